"""Compiled kernels that lay a circuit out: pairs of unknowns, what elements add where, places of matrix entries."""

from __future__ import annotations

import numpy as np

from ..laws.compiled import Array, sequential


@sequential
def numbered_pairs(a: Array, b: Array, n: int) -> tuple[Array, Array]:
    """Number the pairs of unknowns that elements join.

    Parameters
    ----------
    a, b : int64 array (m,)
        Unknowns at the ends of each element, from 0 to n - 1; -1 for none.
    n : int

    Returns
    -------
    numbers : int64 array (m,)
        Number of each element's pair; -1 where it joins no two.
    pairs : int64 array (l, 2)
        The lower and the higher unknown, ascending.
    """
    numbers = np.full(len(a), -1)
    starts = np.zeros(n + 1, dtype=np.int64)
    for e in range(len(a)):
        if a[e] >= 0 and b[e] >= 0 and a[e] != b[e]:
            starts[min(a[e], b[e]) + 1] += 1
    for k in range(n):
        starts[k + 1] += starts[k]
    count, fill = starts[n], starts.copy()
    order, highs = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
    for e in range(len(a)):
        if a[e] >= 0 and b[e] >= 0 and a[e] != b[e]:
            low = min(a[e], b[e])
            order[fill[low]], highs[fill[low]] = e, max(a[e], b[e])
            fill[low] += 1
    for k in range(n):
        here = slice(starts[k], starts[k + 1])
        ascending = True
        for t in range(starts[k] + 1, starts[k + 1]):
            ascending = ascending and highs[t - 1] <= highs[t]
        if not ascending:
            order[here] = order[here][np.argsort(highs[here])]
    pairs = np.empty((count, 2), dtype=np.int64)
    last = -1
    for e in order:
        low, high = min(a[e], b[e]), max(a[e], b[e])
        if last < 0 or pairs[last, 0] != low or pairs[last, 1] != high:
            last += 1
            pairs[last, 0], pairs[last, 1] = low, high
        numbers[e] = last
    return numbers, pairs[: last + 1].copy()


@sequential
def stamped(ends: Array, numbers: Array, unknown: Array, scale: Array, row: Array) -> tuple[Array, Array, Array]:
    """Nodes on which elements act, and the stamps and shares of `kernels.Net`.

    Nodes are ground twice where a current's two shares, alike, fall to one unknown or to none: such a current may
    be a billion times all others, which adding and subtracting it would round away.

    Parameters
    ----------
    ends : int64 array (m, 2)
        Nodes.
    numbers : int64 array (m,)
        Pairs of unknowns.
    unknown, scale, row
        Those of `kernels.Net`.
    """
    acting, stamps, shares = ends.copy(), np.empty((len(ends), 3), dtype=np.int64), np.empty((len(ends), 3))
    for e in range(len(ends)):
        i, j = ends[e, 0], ends[e, 1]
        a, b = unknown[i], unknown[j]
        if a == b and row[i] == row[j]:
            acting[e] = 0
        stamps[e, 0], stamps[e, 1], stamps[e, 2] = a, b, numbers[e]
        shares[e, 0], shares[e, 1], shares[e, 2] = row[i] * scale[i], row[j] * scale[j], -row[i] * scale[j]
        if a == b and a >= 0:  # an element between two nodes that follow one unknown acts on that unknown once
            stamps[e, 1] = -1
            shares[e, 0] = (row[i] - row[j]) * (scale[i] - scale[j])
    return acting, stamps, shares


@sequential
def stage_weights(ends: Array, unknown: Array, weight: Array) -> Array:
    """Weight (m,) of the stage of each element: that of its first node that no source fixes, else of its second."""
    out = np.empty(len(ends))
    for e in range(len(ends)):
        out[e] = weight[ends[e, 0] if unknown[ends[e, 0]] >= 0 else ends[e, 1]]
    return out


@sequential
def adjacency(pairs: Array, n: int) -> tuple[Array, Array]:
    """Starts (n + 1,) and neighbours (2 l,) of each of n unknowns; ascending where the pairs are."""
    starts = np.zeros(n + 1, dtype=np.int32)
    for e in range(len(pairs)):
        starts[pairs[e, 0] + 1] += 1
        starts[pairs[e, 1] + 1] += 1
    for k in range(n):
        starts[k + 1] += starts[k]
    fill, found = starts.copy(), np.empty(2 * len(pairs), dtype=np.int32)
    for e in range(len(pairs)):  # those below a node first: they are met as the lower ones of pairs
        b = pairs[e, 1]
        found[fill[b]] = pairs[e, 0]
        fill[b] += 1
    for e in range(len(pairs)):
        a = pairs[e, 0]
        found[fill[a]] = pairs[e, 1]
        fill[a] += 1
    return starts, found


@sequential
def width(starts: Array, columns: Array, position: Array) -> int:
    """Largest distance of two unknowns that are joined, in an order in which each has a position."""
    most = 0
    for a in range(len(starts) - 1):
        for e in range(starts[a], starts[a + 1]):
            most = max(most, abs(position[a] - position[columns[e]]))
    return most


@sequential
def placed(pairs: Array, side: Array, position: Array, n_first: int) -> tuple[Array, Array, Array, Array]:
    """`place`, `rows`, `columns` and `entries` of `factorizations.Pattern`.

    Parameters
    ----------
    pairs : int64 array (l, 2)
    side : int64 array (n,)
        0 for the unknowns that are eliminated first, no two of which are joined, 1 for the rest.
    position : int64 array (n,)
        Positions within each of both.
    n_first : int
    """
    place = np.empty((len(pairs), 3), dtype=np.int64)
    rows = np.zeros(n_first + 1, dtype=np.int64)
    for e in range(len(pairs)):
        a, b = pairs[e, 0], pairs[e, 1]
        both = side[a] == 1 and side[b] == 1
        if (both and position[a] < position[b]) or (not both and side[a] == 1):
            a, b = b, a
        place[e, 0], place[e, 1], place[e, 2] = both, position[a], position[b]
        if not both:
            rows[place[e, 1] + 1] += 1
    for f in range(n_first):
        rows[f + 1] += rows[f]
    fill = rows.copy()
    columns, entries = np.empty(rows[-1], dtype=np.int64), np.empty(rows[-1], dtype=np.int64)
    for e in range(len(pairs)):
        if place[e, 0] == 0:
            at = fill[place[e, 1]]
            columns[at], entries[at] = place[e, 2], e
            fill[place[e, 1]] += 1
    for f in range(n_first):  # ascending columns
        order = np.argsort(columns[rows[f] : rows[f + 1]])
        columns[rows[f] : rows[f + 1]] = columns[rows[f] : rows[f + 1]][order]
        entries[rows[f] : rows[f + 1]] = entries[rows[f] : rows[f + 1]][order]
    return place, rows, columns, entries
