"""Symmetric positive definite systems on a fixed graph: which factorisation suits it, and the factorisation.

Everything that follows from the graph alone is done once (`Pattern`): an *independent set* of nodes, which no edge
joins (every other layer of a layered circuit), is eliminated first since its block is diagonal; what remains, its
Schur complement, is

* ``dense``: factorised by Cholesky's method as a full matrix;
* ``banded``: by Cholesky's method within a band, in reverse Cuthill-McKee order (Cuthill and McKee 1969), or
* ``sparse``: by SuperLU in symmetric mode, ordered by minimum degree, without elimination.

The least estimated time wins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
from scipy.linalg import blas, lapack
from scipy.sparse.csgraph import reverse_cuthill_mckee
from scipy.sparse.linalg import splu

from . import matrix_kernels as kernels

KINDS = ("dense", "banded", "sparse")
DENSE_RATE, BAND_RATE, SCATTER_RATE, SPARSE_RATE = 2e10, 1e10, 2e9, 1e9
"""Flops a second of one core, for the choice alone; SCATTER_RATE of an elimination into a band."""
MEMORY = 2**31
"""Bytes that a dense or banded matrix may take before a sparse one is preferred whatever the time."""
CHUNK = 2**26
"""Bytes of dense matrices that are factorised together, of a batch."""


class NotPositive(ArithmeticError):  # noqa: N818 (it is no error until someone makes it one)
    """A matrix is not positive definite."""


@dataclass(frozen=True)
class Pattern:
    """A graph of n unknowns and how matrices on it are factorised.

    Attributes
    ----------
    n : int
    pairs : int64 array (m, 2)
        Unknowns that an edge joins, each pair once.
    kind : str
        One of `KINDS`.
    first, rest : int64 array (n_first,), (n_rest,)
        Unknowns eliminated first, and the others in the order of the band.
    width : int
        Largest distance of two unknowns that are joined, of a banded matrix; 0 for the other kinds.
    place : int64 array (m, 3)
        Dense and banded: (0, i, j) for a pair of first[i] and rest[j]; (1, i, j), i > j, of rest[i] and rest[j].
    rows : int64 array (n_first + 1,)
    columns, entries : int64 array (k,)
        For each first[i], the rest that it is joined to and the numbers of those pairs: slices rows[i] to rows[i +
        1].
    """

    n: int
    pairs: np.ndarray
    kind: str
    first: np.ndarray
    rest: np.ndarray
    width: int
    place: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    entries: np.ndarray


@dataclass(frozen=True)
class _Plan:
    kind: str
    first: np.ndarray
    rest: np.ndarray
    width: int
    seconds: float
    bytes: float


def choose(n: int, pairs: np.ndarray, kind: str | None = None, eliminate: bool | None = None) -> Pattern:
    """The pattern of a graph, with the factorisation that is estimated to be fastest.

    Parameters
    ----------
    n : int
    pairs : int64 array (m, 2)
        Each once; no loops.
    kind : str, optional
        Factorisation to take, one of `KINDS`. None: the fastest by the estimate.
    eliminate : bool, optional
        Whether to eliminate an independent set first.
    """
    degree = np.bincount(pairs.ravel(), minlength=n)
    everyone, nobody = np.arange(n), np.empty(0, dtype=np.int64)
    first = nobody if eliminate is False else np.flatnonzero(independent(n, pairs))[: n - 1]
    sets = [one for one in (nobody, first) if eliminate is None or bool(len(one)) == eliminate] or [nobody]
    plans = []
    if kind == "sparse":
        plans.append(_Plan("sparse", nobody, everyone, 0, 0.0, 0.0))
    if kind in (None, "dense"):
        for chosen in sets:
            size = float(n - len(chosen))
            seconds = (len(chosen) * size**2 + size**3 / 3) / DENSE_RATE
            plans.append(_Plan("dense", chosen, np.setdiff1d(everyone, chosen), 0, seconds, 8 * n * size))
    if kind == "banded" or (kind is None and min(plan.seconds for plan in plans) > 5e-3):
        for chosen in sets:
            work = 2 * float((degree[chosen].astype(float) ** 2).sum()) / SCATTER_RATE
            # An elimination that costs more than all else is not worth a look at the band that it leaves.
            if kind is None and work > min(plan.seconds for plan in plans):
                continue
            left = np.setdiff1d(everyone, chosen)
            order, width = _band(n, pairs, chosen, left)
            seconds = len(left) * (width + 1) ** 2 / BAND_RATE + work
            plans.append(_Plan("banded", chosen, left[order], width, seconds, 8.0 * len(left) * (width + 1)))
    small = [plan for plan in plans if plan.bytes < MEMORY] or plans
    best = min(small, key=lambda plan: plan.seconds)
    if kind is None and (best.seconds > 0.05 or best.bytes >= MEMORY):
        seconds = _sparse_seconds(n, pairs)
        if seconds < best.seconds:
            best = _Plan("sparse", nobody, everyone, 0, seconds, 0.0)
    return _laid_out(n, pairs, best)


def independent(n: int, pairs: np.ndarray) -> np.ndarray:
    """Mask (n,) of an independent set: the larger colour where two colours do, else greedily by degree."""
    graph = sparse.csr_array(
        (np.ones(2 * len(pairs), dtype=np.int8), (pairs.T.ravel(), pairs[:, ::-1].T.ravel())), shape=(n, n)
    )
    return kernels.independent(graph.indptr.astype(np.int64), graph.indices.astype(np.int64))


def _band(n: int, pairs: np.ndarray, first: np.ndarray, left: np.ndarray) -> tuple[np.ndarray, int]:
    """Order of the rest, as positions in `left`, and the width of its Schur complement in that order."""
    graph = sparse.csr_array((np.ones(2 * len(pairs)), (pairs.T.ravel(), pairs[:, ::-1].T.ravel())), shape=(n, n))
    rest = graph[left][:, left]
    if len(first):
        bridge = graph[first][:, left]
        rest = rest + bridge.T @ bridge
    order = reverse_cuthill_mckee(sparse.csr_matrix(rest), symmetric_mode=True).astype(np.int64)
    candidates = []
    for one in (order, np.arange(len(left))):
        position = np.empty(len(left), dtype=np.int64)
        position[one] = np.arange(len(left))
        entries = rest.tocoo()
        gap = np.abs(position[entries.row] - position[entries.col])
        candidates.append((int(gap.max()) if gap.size else 0, one))
    width, order = min(candidates, key=lambda candidate: candidate[0])
    return order, width


def _sparse_seconds(n: int, pairs: np.ndarray) -> float:
    """Estimated from the fill of a trial factorisation of the graph's Laplacian."""
    factor = _superlu(_csc(n, pairs, np.full(n, len(pairs) + 1.0), np.full(len(pairs), -1.0)))
    columns = np.diff(factor.L.indptr).astype(float)
    return float((columns**2).sum()) / SPARSE_RATE


def _laid_out(n: int, pairs: np.ndarray, plan: _Plan) -> Pattern:
    side = np.ones(n, dtype=np.int64)
    side[plan.first] = 0
    position = np.empty(n, dtype=np.int64)
    position[plan.first] = np.arange(len(plan.first))
    position[plan.rest] = np.arange(len(plan.rest))
    a, b = pairs[:, 0], pairs[:, 1]
    both = (side[a] == 1) & (side[b] == 1)
    swap = np.where(both, position[a] < position[b], side[a] == 1)
    i, j = np.where(swap, b, a), np.where(swap, a, b)
    place = np.stack([both.astype(np.int64), position[i], position[j]], 1)
    across = np.flatnonzero(~both)
    across = across[np.lexsort((place[across, 2], place[across, 1]))]
    rows = np.searchsorted(place[across, 1], np.arange(len(plan.first) + 1))
    return Pattern(
        n,
        pairs,
        plan.kind,
        plan.first,
        plan.rest,
        plan.width,
        np.ascontiguousarray(place),
        rows.astype(np.int64),
        np.ascontiguousarray(place[across, 2]),
        across.astype(np.int64),
    )


class Matrix:
    """Symmetric matrices on a pattern whose off-diagonal entries are known; diagonals come with `factor`.

    Parameters
    ----------
    pattern : Pattern
    off : float64 array (B or 1, m)
        Entry of each pair. One row: shared by the batch.
    """

    def __init__(self, pattern: Pattern, off: np.ndarray) -> None:
        self.pattern = pattern
        self.off = off
        if pattern.kind == "dense":
            self.bridge, self.core = kernels.scattered(off, pattern.place, len(pattern.first), len(pattern.rest))

    def factor(self, diagonal: np.ndarray) -> MatrixFactor:
        """Factorise with diagonals (B or 1, n); NotPositive if one is not positive definite."""
        return _FACTORS[self.pattern.kind](self, diagonal)


class MatrixFactor:
    """Factorised matrices.

    Attributes
    ----------
    n : int
    """

    n: int

    def solve(self, right: np.ndarray) -> np.ndarray:
        """x (B, n) with M x = right (B, n); one matrix serves all rows, or each its own."""
        raise NotImplementedError


class DenseFactor(MatrixFactor):
    """Elimination of the first set, then Cholesky's method on the full Schur complement."""

    def __init__(self, matrix: Matrix, diagonal: np.ndarray) -> None:
        pattern = matrix.pattern
        self.n, self.pattern, self.bridge = pattern.n, pattern, matrix.bridge
        eliminated = np.take(diagonal, pattern.first, 1)
        if not bool((eliminated > 0).all()):
            raise NotPositive
        self.inverse = 1 / eliminated
        rest = np.take(diagonal, pattern.rest, 1)
        self.shared = len(diagonal) == 1
        if self.shared:
            core = np.array(matrix.core[0], order="F")
            np.fill_diagonal(core, rest[0])
            if len(pattern.first):
                scaled = self.bridge[0] * np.sqrt(self.inverse[0])[:, None]
                core = blas.dsyrk(-1.0, scaled.T, beta=1.0, c=core, lower=1, overwrite_c=1)
            self.cholesky, info = lapack.dpotrf(core, lower=1, clean=0, overwrite_a=1)
            if info:
                raise NotPositive
            return
        factors = []
        n_rest = len(pattern.rest)
        step = max(1, CHUNK // (8 * max(1, n_rest * (n_rest + len(pattern.first)))))
        for lo in range(0, len(diagonal), step):
            part = slice(lo, lo + step)
            shared = slice(None) if len(matrix.core) == 1 else part
            full = torch.diag_embed(torch.from_numpy(rest[part])) + torch.from_numpy(matrix.core[shared])
            if len(pattern.first):
                bridge = torch.from_numpy(self.bridge[shared])
                scaled = bridge * torch.from_numpy(self.inverse[part])[:, :, None]
                full -= scaled.mT @ bridge
            factor, bad = torch.linalg.cholesky_ex(full)
            if bool(bad.any()):
                raise NotPositive
            factors.append(factor)
        self.factors = torch.cat(factors)

    def solve(self, right: np.ndarray) -> np.ndarray:
        pattern = self.pattern
        first, rest = np.take(right, pattern.first, 1), np.take(right, pattern.rest, 1)
        out = np.empty_like(right)
        if self.shared:
            bridge = self.bridge[0]
            weighted = first * self.inverse
            y, _ = lapack.dpotrs(self.cholesky, (rest - weighted @ bridge).T, lower=1)
            out[:, pattern.rest] = y.T
            out[:, pattern.first] = weighted - (y.T @ bridge.T) * self.inverse
            return out
        bridge_t = torch.from_numpy(self.bridge)
        weighted_t = torch.from_numpy(first * self.inverse)[:, None]
        pulled = torch.from_numpy(rest)[:, :, None] - (weighted_t @ bridge_t).mT
        z = torch.cholesky_solve(pulled, self.factors)
        out[:, pattern.rest] = z[:, :, 0].numpy()
        back = (bridge_t @ z)[:, :, 0].numpy()
        out[:, pattern.first] = (first - back) * self.inverse
        return out


class Banded(MatrixFactor):
    """Elimination of the first set, then Cholesky's method within the band of the Schur complement."""

    def __init__(self, matrix: Matrix, diagonal: np.ndarray) -> None:
        pattern = matrix.pattern
        self.n, self.pattern = pattern.n, pattern
        self.shared = len(diagonal) == 1
        self.off = matrix.off
        eliminated = np.take(diagonal, pattern.first, 1)
        if not bool((eliminated > 0).all()):
            raise NotPositive
        self.inverse = 1 / eliminated
        self.bands = []
        rest = np.take(diagonal, pattern.rest, 1)
        for row in range(len(diagonal)):
            off = self.off[row if len(self.off) > 1 else 0]
            band = kernels.band(
                rest[row],
                self.inverse[row],
                off,
                pattern.place,
                pattern.rows,
                pattern.columns,
                pattern.entries,
                pattern.width,
            )
            factor, info = lapack.dpbtrf(band.T, lower=1, overwrite_ab=1)
            if info:
                raise NotPositive
            self.bands.append(factor)

    def solve(self, right: np.ndarray) -> np.ndarray:
        pattern = self.pattern
        first = np.take(right, pattern.first, 1) * self.inverse
        rest = np.take(right, pattern.rest, 1)
        layout = (self.off, pattern.rows, pattern.columns, pattern.entries)
        pulled = kernels.pulled(first, rest, *layout) if len(pattern.first) else rest
        if self.shared:
            solved = lapack.dpbtrs(self.bands[0], pulled.T, lower=1)[0].T
        else:
            solved = np.stack([lapack.dpbtrs(f, b, lower=1)[0] for f, b in zip(self.bands, pulled, strict=True)])
        solved = np.ascontiguousarray(solved)
        out = np.empty_like(right)
        out[:, pattern.rest] = solved
        if len(pattern.first):
            out[:, pattern.first] = first - self.inverse * kernels.pushed(solved, *layout)
        return out


class Sparse(MatrixFactor):
    """SuperLU of each matrix as it stands."""

    def __init__(self, matrix: Matrix, diagonal: np.ndarray) -> None:
        pattern = matrix.pattern
        self.n, self.shared = pattern.n, len(diagonal) == 1
        if not bool((diagonal > 0).all()):
            raise NotPositive
        self.factors: list[Any] = []
        for row in range(len(diagonal)):
            off = matrix.off[row if len(matrix.off) > 1 else 0]
            try:
                factor = _superlu(_csc(pattern.n, pattern.pairs, diagonal[row], off))
            except RuntimeError as error:  # exactly singular
                raise NotPositive from error
            if not bool((factor.U.diagonal() > 0).all()):
                raise NotPositive
            self.factors.append(factor)

    def solve(self, right: np.ndarray) -> np.ndarray:
        if self.shared:
            return np.ascontiguousarray(self.factors[0].solve(np.ascontiguousarray(right.T)).T)
        return np.stack([factor.solve(row) for factor, row in zip(self.factors, right, strict=True)])


class Bordered(MatrixFactor):
    """M + S^T C S, with M factorised and S the selection of a few unknowns or differences (Woodbury 1950).

    Parameters
    ----------
    factor : MatrixFactor
        The factors of M.
    at, scale : arrays (k,) or (k, w)
        (S x)_j = sum_w scale_jw x[at_jw].
    bend : array (B, k, k)
        C.
    """

    def __init__(self, factor: MatrixFactor, at: np.ndarray, scale: np.ndarray, bend: np.ndarray) -> None:
        at, scale = at.reshape(len(at), -1), scale.reshape(len(at), -1)
        self.factor, self.at, self.scale, self.bend = factor, at, scale, bend
        rows = np.zeros((len(at), len(bend), factor.n))
        for column, share in zip(at.T, scale.T, strict=True):
            rows[np.arange(len(at)), :, column] += share[:, None]
        # (B, k, n): column j of M^-1 S^T, for each example.
        self.columns = np.stack([factor.solve(row) for row in rows], 1)
        response = (self.columns[:, :, at] * scale).sum(-1)
        self.inner = np.eye(len(at)) + bend @ response

    def solve(self, right: np.ndarray) -> np.ndarray:
        x = self.factor.solve(right)
        pull = self.bend @ (x[:, self.at] * self.scale).sum(-1)[:, :, None]
        share = np.linalg.solve(self.inner, pull)
        return x - (share.transpose(0, 2, 1) @ self.columns)[:, 0]


class Constrained(MatrixFactor):
    """M on the vectors x with E x = 0, with M factorised: M x + E^T l = right.

    Parameters
    ----------
    factor : MatrixFactor
        The factors of M.
    rows : array (k, n)
        E.
    batch : int
        Number of examples.
    """

    def __init__(self, factor: MatrixFactor, rows: np.ndarray, batch: int) -> None:
        self.factor, self.rows = factor, rows
        # (B, k, n): column j of M^-1 E^T, for each example.
        self.columns = np.stack([factor.solve(np.tile(row, (batch, 1))) for row in rows], 1)
        self.inner = self.columns @ rows.T

    def solve(self, right: np.ndarray) -> np.ndarray:
        x = self.factor.solve(right)
        share = np.linalg.solve(self.inner, (x @ self.rows.T)[:, :, None])
        return x - (share.transpose(0, 2, 1) @ self.columns)[:, 0]


_FACTORS: dict[str, type[Any]] = {"dense": DenseFactor, "banded": Banded, "sparse": Sparse}


def _csc(n: int, pairs: np.ndarray, diagonal: np.ndarray, off: np.ndarray) -> sparse.csc_array:
    here = np.arange(n)
    rows = np.concatenate([here, pairs[:, 0], pairs[:, 1]])
    columns = np.concatenate([here, pairs[:, 1], pairs[:, 0]])
    return sparse.csc_array((np.concatenate([diagonal, off, off]), (rows, columns)), shape=(n, n))


def _superlu(matrix: sparse.csc_array) -> Any:
    options = {"SymmetricMode": True}
    return splu(sparse.csc_matrix(matrix), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options)
