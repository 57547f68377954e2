"""The order in which a sparse graph is eliminated, up to a dense core, and the fill that follows from it.

Nodes are eliminated by least degree while that costs less than a dense matrix of what is left would save. On graphs
that have no small separators, such as random ones, the last third is joined all to all, and nearly all flops are in
that core, where LAPACK does twenty times as many a second as a sparse factorisation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from . import elimination_kernels as kernels

CORE = 0.3
"""The core begins where a node is joined to this part of all that are left: there one more node costs about as much
in sparse columns, at some 1.1e9 squared degrees a second, as in a dense factor at 2e10 flops a second."""


@dataclass(frozen=True)
class Fill:
    """An order in which nodes are eliminated, and the entries that the elimination adds.

    Attributes
    ----------
    order : int64 array (n,)
        Nodes; the core's last.
    rows, columns, entries : int64 array (n + 1,), (m,), (m,)
        For each position in the order the later ones that an edge joins it to, and the numbers of these pairs.
    starts, below : int64 array (count + 1,), (k,)
        Positions below the diagonal of each column of the factor, of the `count` nodes before the core.
    flops : float
        Sum of the squares of the lengths of these columns.
    """

    order: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    entries: np.ndarray
    starts: np.ndarray
    below: np.ndarray
    flops: float

    @property
    def core(self) -> int:
        """Number of nodes of the core."""
        return len(self.order) - len(self.starts) + 1


def fill_of(graph: sparse.csr_array, pairs: np.ndarray) -> Fill:
    """The order of a graph, given by its adjacency matrix and by its pairs (m, 2), and the fill."""
    n = graph.shape[0]
    order, _, starts, below, flops = kernels.ordered(
        graph.indptr.astype(np.int64), graph.indices.astype(np.int64), CORE
    )
    position = np.empty(n, dtype=np.int64)
    position[order] = np.arange(n)
    at = position[pairs]
    first, last = at.min(1), at.max(1)
    entries = np.argsort(first, kind="stable")
    rows = np.searchsorted(first[entries], np.arange(n + 1)).astype(np.int64)
    return Fill(order, rows, last[entries], entries, starts, kernels.ascending(position, starts, below), flops)
