"""LU factors of the Jacobians of a batch: dense in one go where they are small, sparse one by one where not."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csc_array, eye_array
from scipy.sparse.linalg import LinearOperator, SuperLU, onenormest, splu

from .equations import Array, NodalEquations

DENSE = 100
"""Unknowns up to which a dense inverse is faster than a sparse factorisation."""


class Factors:
    """Solves with the Jacobians whose entries are given, as often as asked.

    Parameters
    ----------
    equations : NodalEquations
    entries : array (B, entries) or (1, entries)
        The entries that `NodalEquations.jacobian` returned.

    Attributes
    ----------
    singular : bool array (B,) or (1,)
        Matrices that have no inverse; their solutions are NaN.
    """

    def __init__(self, equations: NodalEquations, entries: Array) -> None:
        self.equations, self.entries = equations, entries
        self.dense = equations.size <= DENSE
        self._pattern, self._shape = (equations.rows, equations.starts), (equations.size, equations.size)
        self.singular = np.zeros(len(entries), bool)
        if self.dense:
            n = equations.size
            matrices = np.zeros((len(entries), n * n))
            matrices[:, equations.flat] = entries
            self._inverses = self._inverted(matrices.reshape(-1, n, n))
        else:
            self._sparse = [self._factorised(k) for k in range(len(entries))]

    def _inverted(self, matrices: Array) -> Array:
        try:
            return np.linalg.inv(matrices)
        except np.linalg.LinAlgError:
            if len(matrices) == 1:
                self.singular[:] = True
                return np.full_like(matrices, np.nan)
        inverses = np.full_like(matrices, np.nan)
        for k, matrix in enumerate(matrices):
            try:
                inverses[k] = np.linalg.inv(matrix)
            except np.linalg.LinAlgError:
                self.singular[k] = True
        return inverses

    def _factorised(self, k: int) -> SuperLU | None:
        try:
            return splu(self._matrix(k))
        except (RuntimeError, ValueError):  # exactly singular; not finite
            self.singular[k] = True
            return None

    def solve(self, right: Array) -> Array:
        """J^-1 right, both (B, n): amperes for nodes and volts for branches give volts and amperes."""
        scaled = right * self.equations.stretch
        if self.dense and len(self._inverses) == 1:
            solved = scaled @ self._inverses[0].T
        elif self.dense:
            solved = (self._inverses @ scaled[:, :, None])[:, :, 0]
        elif len(self._sparse) == 1 and self._sparse[0] is not None:
            solved = self._sparse[0].solve(np.ascontiguousarray(scaled.T)).T
        else:
            solved = np.full_like(scaled, np.nan)
            for row, right_side, lu in zip(solved, scaled, self._sparse, strict=False):
                if lu is not None:
                    row[:] = lu.solve(right_side)
        return solved * self.equations.stretch

    def reciprocal_condition(self) -> float:
        """Estimate for the first matrix in the 1-norm, over the size that its rows have before anything cancels."""
        size, _, matrix = self._equilibrated()
        try:
            lu = splu(matrix)
        except RuntimeError:
            return 0.0
        inverse = LinearOperator(
            matrix.shape,
            matvec=lambda v: lu.solve(v.ravel()),
            rmatvec=lambda v: lu.solve(v.ravel(), "T"),
            dtype=np.float64,
        )
        return 1 / (size * float(onenormest(inverse)))

    def weakest(self) -> int:
        """Unknown that the first matrix leaves the most free: the largest of its null vector."""
        _, column, matrix = self._equilibrated()
        # Inverse iteration, on a matrix moved off the singular one by rounding.
        lu = splu(csc_array(matrix + 1e-13 * eye_array(self.equations.size, format="csc")))
        vector = np.random.default_rng(0).standard_normal(self.equations.size)
        for _ in range(3):
            vector = lu.solve(lu.solve(vector, "T"))
            vector /= np.abs(vector).max()
        return int(np.abs(vector * column)[: self.equations.n_nodes - 1].argmax())

    def _matrix(self, k: int) -> csc_array:
        # A row of a product may be strided, which splu refuses as it refuses what is not finite.
        return csc_array((np.ascontiguousarray(self.entries[k]), *self._pattern), shape=self._shape)

    def _equilibrated(self) -> tuple[float, Array, csc_array]:
        """1-norm before anything cancels, column factors, and the first matrix, rows and columns of size one."""
        size = csc_array((self.equations.magnitude, *self._pattern), shape=self._shape)
        row = 1 / np.maximum(size.max(axis=1).toarray().ravel(), 1e-300)
        size = csc_array(size.multiply(row[:, None]))
        column = 1 / np.maximum(size.max(axis=0).toarray().ravel(), 1e-300)
        norm = float(size.multiply(column[None, :]).sum(0).max())
        return norm, column, csc_array(self._matrix(0).multiply(row[:, None]).multiply(column[None, :]))
