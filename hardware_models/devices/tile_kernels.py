"""Compiled elimination of the nodes of a tile: a file of its own, since an edit compiles anew what imports it."""

from __future__ import annotations

from ..laws.compiled import Array, sequential


@sequential
def eliminate(rows: Array, pivots: Array) -> None:
    """Eliminate nodes from their rows (count, n) of a conductance matrix, which begin with their own columns."""
    for k in range(len(rows)):
        for p in range(k):
            share = rows[p, k] / pivots[p]
            for j in range(k + 1, rows.shape[1]):
                rows[k, j] -= share * rows[p, j]
        total = 0.0
        for j in range(k + 1, rows.shape[1]):
            total -= rows[k, j]
        pivots[k] = total
