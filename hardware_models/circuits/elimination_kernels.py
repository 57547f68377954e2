"""Compiled kernels of a sparse elimination that ends in a dense core: order, factors, solution; one thread."""

from __future__ import annotations

import numpy as np

from ..laws.compiled import Array, sequential


@sequential
def ordered(rows: Array, columns: Array, ratio: float) -> tuple[Array, int, Array, Array, float]:
    """Order of elimination by least degree, up to where a dense core is better.

    A quotient graph: an eliminated node is an element, the list of those that its elimination joins. Degrees are
    bounds from above, and elements that others cover are absorbed (Amestoy, Davis and Duff 1996, SIAM Journal on
    Matrix Analysis and Applications 17, 886).

    Parameters
    ----------
    rows, columns : int64 array (n + 1,), (2 m,)
        Neighbours of each node.
    ratio : float
        The core begins where the next node is joined to more than this part of all that are left.

    Returns
    -------
    order, count : int64 array (n,), int
        Nodes, the first `count` of them eliminated in this order, then the core.
    starts, below : int64 array (count + 1,), (k,)
        Nodes that each eliminated one is joined to when its turn comes.
    flops : float
        Sum of the squares of their numbers.
    """
    n = len(rows) - 1
    lists = columns.copy()
    first = rows[:-1].copy()  # of a node's list: elements, then nodes
    elements = np.zeros(n, dtype=np.int64)
    ends = rows[1:].copy()
    degree = np.empty(n, dtype=np.int64)
    gone = np.zeros(n, dtype=np.bool_)
    heads, after, before = np.full(n + 1, -1), np.full(n, -1), np.full(n, -1)
    for i in range(n - 1, -1, -1):
        d = ends[i] - first[i]
        degree[i] = d
        after[i] = heads[d]
        if heads[d] >= 0:
            before[heads[d]] = i
        heads[d] = i
    starts, stops = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)  # of elements, in `below`
    absorbed = np.zeros(n, dtype=np.bool_)
    below = np.empty(max(2 * len(columns), 16), dtype=np.int64)
    used = 0
    mark, outside = np.full(n, -1), np.zeros(n, dtype=np.int64)
    seen = np.full(n, -1)
    order = np.empty(n, dtype=np.int64)
    flops, least, count = 0.0, 0, 0
    while count < n:
        while heads[least] < 0:
            least += 1
        left = n - count
        if least > ratio * left:
            break
        p = heads[least]
        heads[least] = after[p]
        if after[p] >= 0:
            before[after[p]] = -1
        # The new element.
        if used + left > len(below):
            larger = np.empty(2 * len(below) + left, dtype=np.int64)
            larger[:used] = below[:used]
            below = larger
        start = used
        mark[p] = p
        for s in range(first[p], ends[p]):
            if s - first[p] < elements[p]:
                e = lists[s]
                if absorbed[e]:
                    continue
                for t in range(starts[e], stops[e]):
                    i = below[t]
                    if mark[i] != p:
                        mark[i] = p
                        below[used] = i
                        used += 1
                absorbed[e] = True
            else:
                i = lists[s]
                if not gone[i] and mark[i] != p:
                    mark[i] = p
                    below[used] = i
                    used += 1
        gone[p] = True
        order[count] = p
        count += 1
        starts[p], stops[p] = start, used
        size = used - start
        flops += float(size) * size
        # |L_e without L_p| of the elements around.
        for t in range(start, used):
            i = below[t]
            for s in range(first[i], first[i] + elements[i]):
                e = lists[s]
                if absorbed[e]:
                    continue
                if seen[e] != p:
                    seen[e] = p
                    outside[e] = stops[e] - starts[e]
                outside[e] -= 1
        for t in range(start, used):
            i = below[t]
            d = degree[i]
            if before[i] >= 0:
                after[before[i]] = after[i]
            else:
                heads[d] = after[i]
            if after[i] >= 0:
                before[after[i]] = before[i]
            bound = size - 1
            at = first[i]
            for s in range(first[i], first[i] + elements[i]):
                e = lists[s]
                if absorbed[e]:
                    continue
                if outside[e] == 0:
                    absorbed[e] = True
                    continue
                lists[at] = e
                at += 1
                bound += outside[e]
            kept = at - first[i]
            for s in range(first[i] + elements[i], ends[i]):
                j = lists[s]
                if gone[j] or mark[j] == p:
                    continue
                lists[at] = j
                at += 1
                bound += 1
            # Room for p: it was a node of the list, or in an element that is absorbed.
            if at > first[i] + kept:
                lists[at] = lists[first[i] + kept]
            lists[first[i] + kept] = p
            elements[i], ends[i] = kept + 1, at + 1
            d = min(bound, degree[i] + size - 1, n - count - 1)
            degree[i] = d
            before[i] = -1
            after[i] = heads[d]
            if heads[d] >= 0:
                before[heads[d]] = i
            heads[d] = i
            least = min(least, d)
    at = count
    for i in range(n):
        if not gone[i]:
            order[at] = i
            at += 1
    bounds = np.empty(count + 1, dtype=np.int64)
    bounds[0] = 0
    for k in range(count):
        bounds[k + 1] = stops[order[k]]
    return order, count, bounds, below[:used].copy(), flops


@sequential
def ascending(position: Array, starts: Array, below: Array) -> Array:
    """The nodes below each eliminated one as their positions, in ascending order: transposed twice."""
    n, count = len(position), len(starts) - 1
    sizes = np.zeros(n + 1, dtype=np.int64)
    for s in range(len(below)):
        sizes[position[below[s]] + 1] += 1
    for i in range(n):
        sizes[i + 1] += sizes[i]
    turned = np.empty(len(below), dtype=np.int64)
    for k in range(count):
        for s in range(starts[k], starts[k + 1]):
            i = position[below[s]]
            turned[sizes[i]] = k
            sizes[i] += 1
    found, at = np.empty(len(below), dtype=np.int64), starts[:-1].copy()
    s = 0
    for i in range(n):
        while s < sizes[i]:
            k = turned[s]
            found[at[k]] = i
            at[k] += 1
            s += 1
    return found


@sequential
def eliminated(
    diagonal: Array,
    off: Array,
    rows: Array,
    columns: Array,
    entries: Array,
    starts: Array,
    below: Array,
    core: Array,
) -> tuple[Array, Array, bool]:
    """Cholesky's method, column by column (left-looking), and the Schur complement of what is left.

    Parameters
    ----------
    diagonal : array (n,)
        In the order of elimination.
    off : array (m,)
    rows, columns, entries : int64 array (n + 1,), (m,), (m,)
        For each position the later ones that it is joined to, and the numbers of these pairs.
    starts, below : int64 array (count + 1,), (k,)
        Rows below the diagonal of each column of the factor, ascending.
    core : array (n - count, n - count)
        What the Schur complement is written into, on and above the diagonal; zeros.

    Returns
    -------
    pivots, factor, positive : array (count,), array (k,), bool
    """
    n, count = len(diagonal), len(starts) - 1
    x = np.zeros(n)
    pivots, factor = np.empty(count), np.empty(len(below))
    # Columns whose next row is this one, as linked lists.
    heads, after, at = np.full(n, -1), np.full(count, -1), starts[:-1].copy()
    for j in range(n):
        x[j] = diagonal[j]
        for s in range(rows[j], rows[j + 1]):
            x[columns[s]] += off[entries[s]]
        k = heads[j]
        while k >= 0:
            following = after[k]
            s, end = at[k], starts[k + 1]
            share = factor[s]
            for t in range(s, end):
                x[below[t]] -= share * factor[t]
            at[k] = s + 1
            if s + 1 < end:
                row = below[s + 1]
                after[k] = heads[row]
                heads[row] = k
            k = following
        if j >= count:
            for i in range(j, n):
                core[j - count, i - count] = x[i]
                x[i] = 0.0
            continue
        if not x[j] > 0:
            return pivots, factor, False
        pivots[j] = np.sqrt(x[j])
        x[j] = 0.0
        s, end = starts[j], starts[j + 1]
        for t in range(s, end):
            factor[t] = x[below[t]] / pivots[j]
            x[below[t]] = 0.0
        if s < end:
            after[j] = heads[below[s]]
            heads[below[s]] = j
    return pivots, factor, True


@sequential
def forward(right: Array, pivots: Array, factor: Array, starts: Array, below: Array) -> None:
    """Solve with the eliminated columns in place: right (n, B) in the order of elimination."""
    for j in range(len(pivots)):
        for b in range(right.shape[1]):
            right[j, b] /= pivots[j]
        for t in range(starts[j], starts[j + 1]):
            for b in range(right.shape[1]):
                right[below[t], b] -= factor[t] * right[j, b]


@sequential
def backward(right: Array, pivots: Array, factor: Array, starts: Array, below: Array) -> None:
    """Solve with the transpose of the eliminated columns in place, after the core."""
    for j in range(len(pivots) - 1, -1, -1):
        for t in range(starts[j], starts[j + 1]):
            for b in range(right.shape[1]):
                right[j, b] -= factor[t] * right[below[t], b]
        for b in range(right.shape[1]):
            right[j, b] /= pivots[j]
