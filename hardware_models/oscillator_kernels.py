"""Compiled products with the weights of a sparse graph of oscillators: time and memory linear in its edges.

Phasors come as P = 2 B planes (P, n), cosines of the batch above its sines. Rows (or edges) are taken in blocks so
small that their list of neighbours stays in cache while all planes pass over it; blocks run in parallel, and no
result depends on the number of threads. float32 planes are summed in float64.
"""

from __future__ import annotations

import numpy as np

from .kernels import Array, kernel, prange

BLOCK = 1024
"""Rows or edges a block."""


@kernel
def fields(z: Array, weights: Array, starts: Array, neighbours: Array) -> Array:
    """Field on every oscillator, sum_j W_ij z_j, (P, n).

    Parameters
    ----------
    z : array (P, n)
    weights, neighbours : array (2 m,), int64 array (2 m,)
        Of oscillator i, entries `starts[i]` to `starts[i + 1]`.
    starts : int64 array (n + 1,)
    """
    planes, n = z.shape
    out = np.empty_like(z)
    for block in prange((n + BLOCK - 1) // BLOCK):
        first, last = block * BLOCK, min(n, (block + 1) * BLOCK)
        for p in range(planes):
            for i in range(first, last):
                total = 0.0
                for e in range(starts[i], starts[i + 1]):
                    total += weights[e] * z[p, neighbours[e]]
                out[p, i] = total
    return out


@kernel
def pair_products(a: Array, b: Array, ends: Array) -> Array:
    """a_i . b_j + b_i . a_j of the ends i, j of every edge, summed over planes: float64 (m,).

    Parameters
    ----------
    a, b : array (P, n)
    ends : int64 array (m, 2)
    """
    m = len(ends)
    out = np.zeros(m)
    for block in prange((m + BLOCK - 1) // BLOCK):
        first, last = block * BLOCK, min(m, (block + 1) * BLOCK)
        for p in range(len(a)):
            for e in range(first, last):
                i, j = ends[e, 0], ends[e, 1]
                out[e] += a[p, i] * b[p, j] + b[p, i] * a[p, j]
    return out
