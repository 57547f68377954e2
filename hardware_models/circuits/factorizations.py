"""Symmetric positive definite systems on a fixed graph: which factorisation suits it, and the factorisation.

Everything that follows from the graph alone is done once (`Pattern`): an *independent set* of nodes, which no edge
joins (every other layer of a layered circuit), is eliminated first since its block is diagonal; what remains, its
Schur complement, is

* ``dense``: factorised by Cholesky's method as a full matrix;
* ``banded``: by Cholesky's method within a band, in reverse Cuthill-McKee order (Cuthill and McKee 1969), or
* ``minimum_degree``: sparse columns in that order, then a dense core (`elimination`), without an independent set;
* ``cholmod``: by CHOLMOD's supernodes (Chen, Davis, Hager and Rajamanickam 2008), where scikit-sparse is installed
  (the extra `cholmod`) and most of the work lies outside a dense core; or, if asked for,
* ``sparse``: by SuperLU in symmetric mode, ordered by minimum degree.

The least estimated time wins: flops, which the graph tells, over rates that were measured.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache, cached_property
from importlib.util import find_spec
from time import process_time
from typing import Any

import numpy as np
import torch
from scipy import sparse
from scipy.linalg import blas, lapack
from scipy.sparse.csgraph import reverse_cuthill_mckee
from scipy.sparse.linalg import splu

from physics_ep.errors import InputError

from . import elimination_kernels, layout_kernels
from . import matrix_kernels as kernels
from .elimination import Fill, fill_of

KINDS = ("dense", "banded", "minimum_degree", "cholmod", "sparse")
DENSE_RATE, BAND_RATE, SCATTER_RATE, SPARSE_RATE = 2e10, 1e10, 2e9, 1.1e9
"""Flops a second of one core, for the choice alone; SCATTER_RATE of an elimination into a band, SPARSE_RATE of
squared lengths of columns."""
CHOLMOD_RATES, CHOLMOD_NODE, FULL = (2e9, 1.5e10), 1e-6, 500
"""CHOLMOD's flops a second with the reference BLAS and with OpenBLAS, over flops in the order of least degree (its
own order takes fewer); seconds of a node beside; unknowns of the full matrix that tells which BLAS it has."""
LOOK = 2e-4
"""Seconds of a factorisation from which on it is worth to look for a sparse one."""
MEMORY = 2**31
"""Bytes that a matrix may take; where each takes more, the one that takes least is preferred whatever the time."""
CHUNK = 2**26
"""Bytes of dense matrices that are factorised together, of a batch."""


class NotPositive(ArithmeticError):  # noqa: N818 (it is no error until someone makes it one)
    """Raised when a matrix is not positive definite."""


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
    fill : Fill or None
        The order and fill of a matrix of the kind 'minimum_degree'.
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
    fill: Fill | None = None

    @cached_property
    def columns_of(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Compressed columns: where each entry comes from (the diagonal, then the pairs), rows, starts."""
        here, a, b = np.arange(self.n), *self.pairs.T
        numbers = np.concatenate([here, self.n + np.tile(np.arange(len(a)), 2)])
        places = (np.concatenate([here, a, b]), np.concatenate([here, b, a]))
        found = sparse.csc_array((numbers, places), shape=(self.n, self.n))
        return found.data, found.indices, found.indptr

    def assembled(self, diagonal: np.ndarray, off: np.ndarray) -> sparse.csc_matrix:
        """The matrix with this diagonal (n,) and these entries of the pairs (m,)."""
        source, rows, starts = self.columns_of
        return sparse.csc_matrix((np.concatenate([diagonal, off])[source], rows, starts), shape=(self.n, self.n))

    @cached_property
    def supernodes(self) -> Any:
        """CHOLMOD's order and fill of any matrix on this pattern."""
        from sksparse.cholmod import analyze

        return analyze(self.assembled(np.ones(self.n), np.zeros(len(self.pairs))))

    def __getstate__(self) -> dict[str, Any]:
        """What pickles and copies keep, the fields: what CHOLMOD found cannot be written."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


@dataclass(frozen=True)
class _Plan:
    kind: str
    first: np.ndarray
    rest: np.ndarray
    width: int
    seconds: float
    bytes: float
    fill: Fill | None = None


def choose(n: int, pairs: np.ndarray, kind: str | None = None, eliminate: bool | None = None) -> Pattern:
    """Choose how to factorise matrices on a graph, by an estimate of the time that each way takes.

    Parameters
    ----------
    n : int
        Number of unknowns, the nodes of the graph.
    pairs : int64 array (m, 2)
        Unknowns that an edge joins: each pair once, and no loops.
    kind : str, optional
        Factorisation to take, one of `KINDS`. None: the one that is estimated to be fastest.
    eliminate : bool, optional
        Whether a dense or a banded factorisation eliminates an independent set of unknowns first. None: where the
        estimate says that this is faster.

    Returns
    -------
    Pattern
        The graph, laid out for the factorisation. A factorisation that takes 2 GiB a matrix or more (`MEMORY`) is
        only chosen where all do, and then the smallest.

    Raises
    ------
    InputError
        If the kind is 'cholmod' and scikit-sparse is not installed.
    """
    degree = np.bincount(pairs.ravel(), minlength=n)
    starts, neighbours = layout_kernels.adjacency(pairs, n)
    graph = sparse.csr_array((np.ones(len(neighbours)), neighbours, starts), shape=(n, n))
    everyone, nobody = np.arange(n), np.empty(0, dtype=np.int64)
    first = nobody if eliminate is False else np.flatnonzero(_independent(graph))[: n - 1]
    sets = [one for one in (nobody, first) if eliminate is None or bool(len(one)) == eliminate] or [nobody]
    plans = []
    if kind == "cholmod" and find_spec("sksparse") is None:
        raise InputError("Argument factorization 'cholmod' needs scikit-sparse: pip install 'physics-ep[cholmod]'.")
    if kind in ("sparse", "cholmod"):
        plans.append(_Plan(kind, nobody, everyone, 0, 0.0, 0.0))
    if kind in (None, "dense"):
        for chosen in sets:
            size = float(n - len(chosen))
            seconds = (len(chosen) * size**2 + size**3 / 3) / DENSE_RATE
            plans.append(_Plan("dense", chosen, _others(n, chosen), 0, seconds, 8 * n * size))
    if kind == "banded" or (kind is None and min(plan.seconds for plan in plans) > 5e-3):
        for chosen in sets:
            work = 2 * float((degree[chosen].astype(float) ** 2).sum()) / SCATTER_RATE
            left = _others(n, chosen)
            # Neighbours of an eliminated node are joined all to all; those of any other lie on either side of it.
            widest = int(degree[chosen].max()) if len(chosen) else int(degree.max(initial=0)) // 2
            # What an elimination and so wide a band cost, at the least, may be more than all else: no look at it.
            if kind is None and work + len(left) * widest**2 / BAND_RATE > min(plan.seconds for plan in plans):
                continue
            order, width = _band(graph, chosen, left, widest)
            seconds = len(left) * (width + 1) ** 2 / BAND_RATE + work
            plans.append(_Plan("banded", chosen, left[order], width, seconds, 8.0 * len(left) * (width + 1)))
    # Columns of the factor hold all pairs at least, so that their squares sum to no less than this.
    least = float(len(pairs)) ** 2 / max(n, 1) / SPARSE_RATE
    if kind == "minimum_degree" or (kind is None and min(plan.seconds for plan in plans) > max(LOOK, least)):
        fill = fill_of(graph, pairs)
        cube, stored = fill.core**3 / 3, 8.0 * fill.core**2 + 16 * len(fill.below)
        seconds = fill.flops / SPARSE_RATE + cube / DENSE_RATE
        plans.append(_Plan("minimum_degree", nobody, everyone, 0, seconds, stored, fill))
        if kind is None and find_spec("sksparse") is not None:
            supernodes = (fill.flops + cube) / _cholmod_rate() + CHOLMOD_NODE * n
            plans.append(_Plan("cholmod", nobody, everyone, 0, supernodes, stored))
    small = [plan for plan in plans if plan.bytes < MEMORY] or [min(plans, key=lambda plan: plan.bytes)]
    return _laid_out(n, pairs, min(small, key=lambda plan: plan.seconds))


@cache
def _cholmod_rate() -> float:
    """CHOLMOD's rate with the BLAS that it has, measured once a process on a full matrix."""
    pattern = choose(FULL, np.stack(np.triu_indices(FULL, 1), 1), "cholmod")
    matrix = pattern.assembled(np.full(FULL, float(FULL)), np.full(len(pattern.pairs), -1.0))
    spent = []
    for _ in range(3):
        start = process_time()
        pattern.supernodes.cholesky(matrix)
        spent.append(process_time() - start)
    slow, fast = CHOLMOD_RATES
    return fast if FULL**3 / 3 / min(spent) > 1.75 * slow else slow


def _others(n: int, chosen: np.ndarray) -> np.ndarray:
    """All of n numbers that are not chosen, ascending."""
    rest = np.ones(n, dtype=bool)
    rest[chosen] = False
    return np.flatnonzero(rest)


def _independent(graph: sparse.csr_array) -> np.ndarray:
    """Mask (n,) of an independent set: the larger colour where two colours do, else greedily by degree."""
    return np.asarray(kernels.independent(graph.indptr.astype(np.int64), graph.indices.astype(np.int64)))


def _band(graph: sparse.csr_array, first: np.ndarray, left: np.ndarray, least: int) -> tuple[np.ndarray, int]:
    """Order of the rest, as positions in `left`, and the width of its Schur complement in that order.

    No order has less than `least`: one that is given with little more needs no better one to be looked for.
    """
    rest, given = graph, np.arange(len(left))
    if len(first):
        bridge = graph[first][:, left]
        rest = graph[left][:, left] + bridge.T @ bridge
    width = int(layout_kernels.width(rest.indptr, rest.indices, given))
    if width <= 2 * least + 1:
        return given, width
    order = reverse_cuthill_mckee(sparse.csr_matrix(rest), symmetric_mode=True).astype(np.int64)
    position = np.empty(len(left), dtype=np.int64)
    position[order] = given
    narrow = int(layout_kernels.width(rest.indptr, rest.indices, position))
    return (order, narrow) if narrow <= width else (given, width)


def _laid_out(n: int, pairs: np.ndarray, plan: _Plan) -> Pattern:
    side = np.ones(n, dtype=np.int64)
    side[plan.first] = 0
    position = np.empty(n, dtype=np.int64)
    position[plan.first] = np.arange(len(plan.first))
    position[plan.rest] = np.arange(len(plan.rest))
    place, rows, columns, entries = layout_kernels.placed(pairs, side, position, len(plan.first))
    return Pattern(
        n,
        pairs,
        plan.kind,
        plan.first,
        plan.rest,
        plan.width,
        place,
        rows,
        columns,
        entries,
        plan.fill,
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
    """Factorised matrices of a batch, ready to solve linear systems.

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
    """A factorisation by SuperLU of each matrix as it stands."""

    def __init__(self, matrix: Matrix, diagonal: np.ndarray) -> None:
        pattern = matrix.pattern
        self.n, self.shared = pattern.n, len(diagonal) == 1
        if not bool((diagonal > 0).all()):
            raise NotPositive
        self.factors: list[Any] = []
        for row in range(len(diagonal)):
            off = matrix.off[row if len(matrix.off) > 1 else 0]
            try:
                factor = _superlu(pattern.assembled(diagonal[row], off))
            except RuntimeError as error:  # exactly singular
                raise NotPositive from error
            if not bool((factor.U.diagonal() > 0).all()):
                raise NotPositive
            self.factors.append(factor)

    def solve(self, right: np.ndarray) -> np.ndarray:
        if self.shared:
            return np.ascontiguousarray(self.factors[0].solve(np.ascontiguousarray(right.T)).T)
        return np.stack([factor.solve(row) for factor, row in zip(self.factors, right, strict=True)])


class MinimumDegree(MatrixFactor):
    """Sparse columns by least degree, then Cholesky's method on the dense core that they leave."""

    def __init__(self, matrix: Matrix, diagonal: np.ndarray) -> None:
        assert matrix.pattern.fill is not None
        fill = self.fill = matrix.pattern.fill
        self.n, self.shared = matrix.pattern.n, len(diagonal) == 1
        self.factors: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for row in range(len(diagonal)):
            off = matrix.off[row if len(matrix.off) > 1 else 0]
            core = np.zeros((fill.core, fill.core))
            pivots, below, positive = elimination_kernels.eliminated(
                diagonal[row][fill.order], off, fill.rows, fill.columns, fill.entries, fill.starts, fill.below, core
            )
            info = 0
            if positive and fill.core:
                core, info = lapack.dpotrf(core.T, lower=1, clean=0, overwrite_a=1)
            if info or not positive:
                raise NotPositive
            self.factors.append((pivots, below, core))

    def solve(self, right: np.ndarray) -> np.ndarray:
        if self.shared:
            return self._solved(right, *self.factors[0])
        rows = [self._solved(one[None], *factor) for one, factor in zip(right, self.factors, strict=True)]
        return np.concatenate(rows)

    def _solved(self, right: np.ndarray, pivots: np.ndarray, below: np.ndarray, core: np.ndarray) -> np.ndarray:
        fill = self.fill
        x = np.ascontiguousarray(right[:, fill.order].T)
        elimination_kernels.forward(x, pivots, below, fill.starts, fill.below)
        if fill.core:
            x[len(pivots) :], _ = lapack.dpotrs(core, x[len(pivots) :], lower=1)
        elimination_kernels.backward(x, pivots, below, fill.starts, fill.below)
        out = np.empty_like(right)
        out[:, fill.order] = x.T
        return out


class Cholmod(MatrixFactor):
    """A factorisation by CHOLMOD of each matrix as it stands, in the order that CHOLMOD finds best."""

    def __init__(self, matrix: Matrix, diagonal: np.ndarray) -> None:
        from sksparse.cholmod import CholmodNotPositiveDefiniteError

        pattern = matrix.pattern
        self.n, self.shared = pattern.n, len(diagonal) == 1
        self.factors: list[Any] = []
        for row in range(len(diagonal)):
            off = matrix.off[row if len(matrix.off) > 1 else 0]
            try:
                factor = pattern.supernodes.cholesky(pattern.assembled(diagonal[row], off))
                if not bool((factor.D() > 0).all()):  # simplicial factors have signs
                    raise NotPositive
            except CholmodNotPositiveDefiniteError as error:
                raise NotPositive from error
            self.factors.append(factor)

    def solve(self, right: np.ndarray) -> np.ndarray:
        if self.shared:
            return np.ascontiguousarray(self.factors[0](np.ascontiguousarray(right.T)).T)
        return np.stack([factor(row) for factor, row in zip(self.factors, right, strict=True)])


class Bordered(MatrixFactor):
    """Solves with M + S^T C S, where M is factorised and S selects a few unknowns or differences (Woodbury 1950).

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
    """Solves M x + E^T l = right with E x = 0, where M is factorised.

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


_FACTORS: dict[str, type[Any]] = {
    "dense": DenseFactor,
    "banded": Banded,
    "minimum_degree": MinimumDegree,
    "cholmod": Cholmod,
    "sparse": Sparse,
}


def _superlu(matrix: sparse.csc_matrix) -> Any:
    options = {"SymmetricMode": True}
    return splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options)
