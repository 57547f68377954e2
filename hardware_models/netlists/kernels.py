"""Compiled kernels on the graph of a parts list."""

from __future__ import annotations

import numpy as np

from ..laws.compiled import Array, sequential


@sequential
def components(n: int, ends: Array) -> Array:
    """The least node of each node's connected component, (n,), of a graph with edges `ends` (m, 2)."""
    root = np.arange(n)
    for e in range(len(ends)):
        a, b = ends[e, 0], ends[e, 1]
        while root[a] != a:
            root[a] = root[root[a]]
            a = root[a]
        while root[b] != b:
            root[b] = root[root[b]]
            b = root[b]
        root[max(a, b)] = min(a, b)
    for node in range(n):
        root[node] = root[root[node]]  # the root of a node is no larger, and known already
    return root
