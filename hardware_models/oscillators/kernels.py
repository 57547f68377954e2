"""Compiled products with the weights of a sparse graph of oscillators: time and memory linear in its edges.

Phasors come as P = 2 B planes (P, n), cosines of the batch above its sines. Rows (or edges) are taken in blocks so
small that their list of neighbours stays in cache while all planes pass over it; blocks run in parallel, and no
result depends on the number of threads. float32 planes are summed in float64.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..laws.compiled import Array, kernel, prange

BLOCK = 1024
"""Rows or edges a block."""


class Lists(NamedTuple):
    """Edges of a graph of n oscillators, as lists of neighbours.

    Unsigned, since signed indices cost a comparison each.

    Attributes
    ----------
    starts : uint32 array (n + 1,)
        Where the neighbours of each oscillator begin: those of oscillator i are entries `starts[i]` to `starts[i +
        1]`.
    neighbours : uint32 array (2 m,)
    ends : uint32 array (m, 2)
        Oscillators of each edge.
    """

    starts: Array
    neighbours: Array
    ends: Array


@kernel
def fields(z: Array, weights: Array, lists: Lists) -> Array:
    """Field on every oscillator, sum_j W_ij z_j, (P, n), with weights (2 m,) in the order of the lists."""
    planes, n = z.shape
    out = np.empty_like(z)
    starts, neighbours = lists.starts, lists.neighbours
    for block in prange((n + BLOCK - 1) // BLOCK):
        first, last = block * BLOCK, min(n, (block + 1) * BLOCK)
        fours = planes - planes % 4
        # An entry that is read once for four planes is what pays here.
        for p in range(0, fours, 4):
            z0, z1, z2, z3 = z[p], z[p + 1], z[p + 2], z[p + 3]
            for i in range(first, last):
                t0, t1, t2, t3 = 0.0, 0.0, 0.0, 0.0
                for e in range(starts[i], starts[i + 1]):
                    w, j = weights[e], neighbours[e]
                    t0 += w * z0[j]
                    t1 += w * z1[j]
                    t2 += w * z2[j]
                    t3 += w * z3[j]
                out[p, i], out[p + 1, i], out[p + 2, i], out[p + 3, i] = t0, t1, t2, t3
        for p in range(fours, planes, 2):
            z0, z1 = z[p], z[p + 1]
            for i in range(first, last):
                t0, t1 = 0.0, 0.0
                for e in range(starts[i], starts[i + 1]):
                    w, j = weights[e], neighbours[e]
                    t0 += w * z0[j]
                    t1 += w * z1[j]
                out[p, i], out[p + 1, i] = t0, t1
    return out


@kernel
def pair_products(a: Array, b: Array, lists: Lists) -> Array:
    """a_i . b_j + b_i . a_j of the ends i, j of every edge, summed over planes (P, n): float64 (m,)."""
    m = len(lists.ends)
    out = np.zeros(m)
    for block in prange((m + BLOCK - 1) // BLOCK):
        first, last = block * BLOCK, min(m, (block + 1) * BLOCK)
        for p in range(len(a)):
            u, v = a[p], b[p]
            for e in range(first, last):
                i, j = lists.ends[e, 0], lists.ends[e, 1]
                out[e] += u[i] * v[j] + v[i] * u[j]
    return out


@kernel
def bent_weights(z: Array, weights: Array, lists: Lists) -> Array:
    """W_ij cos(phi_i - phi_j) in the order of the lists, (B, 2 m), from phasors z (2 B, n)."""
    batch, n = len(z) // 2, z.shape[1]
    out = np.empty((batch, len(weights)), z.dtype)
    starts, neighbours = lists.starts, lists.neighbours
    for block in prange((n + BLOCK - 1) // BLOCK):
        first, last = block * BLOCK, min(n, (block + 1) * BLOCK)
        for b in range(batch):
            c, s, bent = z[b], z[batch + b], out[b]
            for i in range(first, last):
                for e in range(starts[i], starts[i + 1]):
                    j = neighbours[e]
                    bent[e] = weights[e] * (c[i] * c[j] + s[i] * s[j])
    return out


@kernel
def curved(v: Array, diagonal: Array, bent: Array, lists: Lists) -> Array:
    """Product with a Hessian: diagonal_i v_i - sum_j bent_ij v_j, (B, n); `bent` as from `bent_weights`."""
    batch, n = v.shape
    out = np.empty_like(v)
    starts, neighbours = lists.starts, lists.neighbours
    for block in prange((n + BLOCK - 1) // BLOCK):
        first, last = block * BLOCK, min(n, (block + 1) * BLOCK)
        for b in range(batch):
            here, own, weights, product = v[b], diagonal[b], bent[b], out[b]
            for i in range(first, last):
                total = own[i] * here[i]
                for e in range(starts[i], starts[i + 1]):
                    total -= weights[e] * here[neighbours[e]]
                product[i] = total
    return out
