"""Linear equations of a medium: its indefinite Hessian, factorised for a whole batch at once.

    [ L_u + diag(c)     I         ] [ a ]   [ r ]
    [ I                -(g + L_v) ] [ b ] = [ s ]

with L_u and L_v the stiffnesses of diffusion and c, which differs from example to example, minus the slopes of the
reaction. With u and v of a site side by side and the sites in reverse Cuthill-McKee order (Cuthill and McKee 1969)
the matrix is banded. The matrices of a batch, one after the other, are one banded matrix: a single call of LAPACK
factorises it, with pivots, and no example touches another. Wide grids are left to a sparse factorisation each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.linalg import get_lapack_funcs
from scipy.sparse.csgraph import reverse_cuthill_mckee
from scipy.sparse.linalg import splu

from ..laws.compiled import Array, kernel, prange

WIDEST = 64
"""Sites across a band beyond which a sparse factorisation is faster."""
CHUNK = 2**27
"""Bytes of a banded matrix that are factorised together."""


@dataclass(frozen=True)
class Lattice:
    """Sites of a grid in the order of a band.

    Attributes
    ----------
    sites : int
    edges : int64 array (m, 2)
        Sites that are neighbours, axis by axis, in the order of the diffusion coefficients.
    place : int64 array (sites,)
        Number of each site in the order of the band.
    width : int
        Largest distance of two neighbours in that order.
    """

    sites: int
    edges: Array
    place: Array
    width: int


def lattice(grid: Sequence[int], periodic: bool) -> Lattice:
    """The lattice of a grid with walls, or closed on itself."""
    numbers = np.arange(int(np.prod(grid))).reshape(grid)
    pairs = []
    for axis in range(len(grid)):
        if periodic:
            first, second = numbers, np.roll(numbers, -1, axis)
        else:
            first, second = np.delete(numbers, -1, axis), np.delete(numbers, 0, axis)
        pairs.append(np.stack([first.ravel(), second.ravel()], 1))
    edges = np.concatenate(pairs)
    n = numbers.size
    graph = sparse.coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(n, n))
    order = reverse_cuthill_mckee(sparse.csr_array(graph + graph.T), symmetric_mode=True)
    place = np.empty(n, np.int64)
    place[order] = np.arange(n)
    width = int(np.abs(place[edges[:, 0]] - place[edges[:, 1]]).max()) if len(edges) else 0
    return Lattice(n, edges, place, width)


class Saddle:
    """The Hessian of a medium but for the diagonal c, and solutions of linear equations with it.

    Parameters
    ----------
    sites : Lattice
    rates_u, rates_v : array (m,)
        Diffusion coefficients of the edges over the spacing squared.
    leak : float
        g.
    """

    def __init__(self, sites: Lattice, rates_u: Array, rates_v: Array, leak: float) -> None:
        self.lattice, self.leak = sites, leak
        n, (i, j) = sites.sites, sites.edges.T
        self.banded = sites.width <= WIDEST
        # v of a site before its u: eliminated first, it leaves the reduced problem of u.
        at = 2 * sites.place
        self._u, self._v = at + 1, at
        degree_u, degree_v = np.zeros(n), np.zeros(n)
        for end in (i, j):
            np.add.at(degree_u, end, rates_u)
            np.add.at(degree_v, end, rates_v)
        u, v, ones = self._u, self._v, np.ones(n)
        rows, columns = [u, v, u, v, u[i], u[j], v[i], v[j]], [u, v, v, u, u[j], u[i], v[j], v[i]]
        values = [degree_u, -(leak + degree_v), ones, ones, -rates_u, -rates_u, rates_v, rates_v]
        row, column, value = (np.concatenate(parts) for parts in (rows, columns, values))
        self.reach = max(2 * sites.width, 1)
        lower = row >= column
        self.lower = np.zeros((2 * n, self.reach + 1))
        np.add.at(self.lower, (column[lower], (row - column)[lower]), value[lower])
        if self.banded:
            # LAPACK's band storage, transposed: entry (i, j) at [j, 2 reach + i - j]; the first columns take fill.
            self.band = np.zeros((2 * n, 3 * self.reach + 1))
            np.add.at(self.band, (column, 2 * self.reach + row - column), value)
        else:
            self.matrix = sparse.csc_array(sparse.coo_array((value, (row, column)), shape=(2 * n, 2 * n)))

    def solve(self, diagonal: Array, right: Array) -> Array:
        """Solve for several right-hand sides an example.

        Parameters
        ----------
        diagonal : array (B, sites)
            c, real or complex.
        right : array (B, k, 2, sites)
            r and s.

        Returns
        -------
        array (B, k, 2, sites)
            a and b; NaN for an example whose matrix has no inverse or is not finite.
        """
        kind = np.result_type(diagonal, right, np.float64)
        batch, count, _, n = right.shape
        bad = ~(np.isfinite(diagonal).all(1) & np.isfinite(right).reshape(batch, -1).all(1))
        columns = np.zeros((count, batch, 2 * n), kind)
        moved = np.where(bad[:, None, None, None], 0.0, right).swapaxes(0, 1)
        columns[:, :, self._u], columns[:, :, self._v] = moved[:, :, 0], moved[:, :, 1]
        solve = self._solve_banded if self.banded else self._solve_sparse
        step = max(1, CHUNK // (self.band.nbytes)) if self.banded else 1
        for start in range(0, batch, step):
            part = slice(start, start + step)
            columns[:, part], bad[part] = solve(diagonal[part], columns[:, part], bad[part])
        found = np.stack([columns[:, :, self._u], columns[:, :, self._v]], 2).swapaxes(0, 1)
        found[bad] = np.nan
        return found

    def negative(self, diagonal: Array) -> Array:
        """Negative eigenvalues of the matrices with these real c (B, sites): int array (B,)."""
        shifts = np.zeros((len(diagonal), len(self.lower)))
        shifts[:, self._u] = diagonal
        return negative_pivots(self.lower, shifts)

    def _solve_banded(self, diagonal: Array, columns: Array, bad: Array) -> tuple[Array, Array]:
        batch, size = len(diagonal), len(self.band)
        (solve,) = get_lapack_funcs(("gbsv",), (columns,))
        while True:
            band = np.repeat(self.band[None].astype(columns.dtype), batch, 0)
            band[:, self._u, 2 * self.reach] += diagonal
            # What is not finite would spread to the other examples of the band.
            band[bad] = 0
            band[bad, :, 2 * self.reach] = 1
            flat = np.ascontiguousarray(columns).reshape(len(columns), -1)
            *_, found, info = solve(
                self.reach, self.reach, band.reshape(batch * size, -1).T, flat.T, overwrite_ab=True
            )
            if info == 0:
                return found.T.reshape(columns.shape), bad
            bad = bad.copy()
            bad[(info - 1) // size] = True  # a pivot that is exactly zero

    def _solve_sparse(self, diagonal: Array, columns: Array, bad: Array) -> tuple[Array, Array]:
        if bad[0]:
            return columns, bad
        shift = np.zeros(self.matrix.shape[0], columns.dtype)
        shift[self._u] = diagonal[0]
        matrix = sparse.csc_array(self.matrix + sparse.diags_array(shift, format="csc"))
        try:
            factors = splu(matrix)
        except RuntimeError:
            return columns, np.ones(1, bool)
        return factors.solve(np.ascontiguousarray(columns[:, 0].T)).T[:, None], bad


@kernel
def negative_pivots(lower: Array, shifts: Array) -> Array:
    """Negative pivots of symmetric banded matrices, (B,): by Sylvester's law, their negative eigenvalues.

    Elimination without exchanges, of which only the signs are kept; a pivot that vanishes counts as a tiny positive
    one.

    Parameters
    ----------
    lower : array (n, reach + 1)
        Entry (j + i, j) at [j, i].
    shifts : array (B, n)
        Added to the diagonal.
    """
    n, width = lower.shape
    count = np.zeros(len(shifts), np.int64)
    for b in prange(len(shifts)):
        rest = lower.copy()
        for j in range(n):
            pivot = rest[j, 0] + shifts[b, j]
            if pivot < 0:
                count[b] += 1
            if pivot == 0:
                pivot = 1e-300
            for i in range(1, min(width, n - j)):
                share = rest[j, i] / pivot
                for m in range(i, min(width, n - j)):
                    rest[j + i, m - i] -= share * rest[j, m]
    return count
