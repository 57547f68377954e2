"""Compiled kernels on graphs of unknowns: independent sets, bands, Schur complements, descent within bounds."""

from __future__ import annotations

import numpy as np

from ..laws.compiled import Array, kernel, prange, sequential


@sequential
def independent(rows: Array, columns: Array) -> Array:
    """Mask (n,) of a set of nodes that no edge joins, of a graph in compressed rows.

    Nodes are coloured in turn along each connected part; where two colours do, the larger class is taken. Else
    nodes are taken greedily in that order.
    """
    n = len(rows) - 1
    colour, queue = np.full(n, -1), np.empty(n, dtype=np.int64)
    taken = np.zeros(n, dtype=np.bool_)
    for start in range(n):
        if colour[start] >= 0:
            continue
        colour[start] = 0
        queue[0] = start
        head, tail = 0, 1
        two, count = True, 0
        while head < tail:
            i = queue[head]
            head += 1
            count += colour[i]
            for e in range(rows[i], rows[i + 1]):
                j = columns[e]
                if colour[j] < 0:
                    colour[j] = 1 - colour[i]
                    queue[tail] = j
                    tail += 1
                elif colour[j] == colour[i]:
                    two = False
        if two:
            larger = 1 if 2 * count > tail else 0
            for t in range(tail):
                # A node without neighbours is as good last as first.
                taken[queue[t]] = colour[queue[t]] == larger
            continue
        for t in range(tail):
            i = queue[t]
            free = True
            for e in range(rows[i], rows[i + 1]):
                free = free and not taken[columns[e]]
            taken[i] = free
    return taken


@sequential
def band(
    diagonal: Array,
    inverse: Array,
    off: Array,
    place: Array,
    rows: Array,
    columns: Array,
    entries: Array,
    width: int,
) -> Array:
    """Lower band (n_rest, width + 1) of a Schur complement: entry [j, i - j] is that of rows i >= j.

    Parameters
    ----------
    diagonal : array (n_rest,)
    inverse : array (n_first,)
        One over the diagonal of the unknowns that are eliminated.
    off, place, rows, columns, entries, width
        See `factorizations.Pattern`.
    """
    out = np.zeros((len(diagonal), width + 1))
    out[:, 0] = diagonal
    for e in range(len(off)):
        if place[e, 0] == 1:
            out[place[e, 2], place[e, 1] - place[e, 2]] += off[e]
    for f in range(len(inverse)):
        for s in range(rows[f], rows[f + 1]):
            j, share = columns[s], off[entries[s]] * inverse[f]
            for t in range(s, rows[f + 1]):
                out[j, columns[t] - j] -= share * off[entries[t]]
    return out


@kernel
def pulled(first: Array, rest: Array, off: Array, rows: Array, columns: Array, entries: Array) -> Array:
    """rest - off^T first, (B, n_rest), with the entries off (B or 1, m) between the eliminated and the rest."""
    out = rest.copy()
    for b in prange(len(rest)):
        here = off[np.int64(b) if len(off) > 1 else 0]
        for f in range(first.shape[1]):
            for s in range(rows[f], rows[f + 1]):
                out[b, columns[s]] -= here[entries[s]] * first[b, f]
    return out


@kernel
def pushed(rest: Array, off: Array, rows: Array, columns: Array, entries: Array) -> Array:
    """The product of the sparse blocks `off` with the vectors `rest`, (B, n_first)."""
    out = np.zeros((len(rest), len(rows) - 1))
    for b in prange(len(rest)):
        here = off[np.int64(b) if len(off) > 1 else 0]
        for f in range(len(rows) - 1):
            total = 0.0
            for s in range(rows[f], rows[f + 1]):
                total += here[entries[s]] * rest[b, columns[s]]
            out[b, f] = total
    return out


@kernel
def descend(
    u: Array,
    rest: Array,
    diagonal: Array,
    off: Array,
    low: Array,
    high: Array,
    rows: Array,
    columns: Array,
    entries: Array,
    sweeps: int,
) -> Array:
    """Gauss-Seidel sweeps with bounds, u_i <- clip((rest_i - sum_j off_ij u_j) / diagonal_i, low_i, high_i).

    They end when three sweeps in a row have left every unknown as free, or as held, as it was.

    Parameters
    ----------
    u, rest, low, high : array (B, n)
        Start, force at u = 0, bounds.
    diagonal, off : array (n,), (pairs,)
        Second derivatives.
    rows, columns, entries : array (n + 1,), (2 pairs,), (2 pairs,)
        Neighbours of each unknown, and the pairs that lead to them.
    sweeps : int
        Most sweeps.
    """
    moved = u.copy()
    n = u.shape[1]
    for b in prange(len(u)):
        side = np.zeros(n, dtype=np.int8)
        same = 0
        for _ in range(sweeps):
            changed = False
            for i in range(n):
                total = rest[b, i]
                for e in range(rows[i], rows[i + 1]):
                    total -= off[entries[e]] * moved[b, columns[e]]
                new, now = moved[b, i], 0
                if diagonal[i] > 0:
                    new = total / diagonal[i]
                elif total != 0:  # nothing but its bounds holds it
                    new = np.copysign(np.inf, total)
                if new <= low[b, i]:
                    new, now = low[b, i], -1
                elif new >= high[b, i]:
                    new, now = high[b, i], 1
                changed = changed or now != side[i]
                side[i] = now
                moved[b, i] = new
            same = 0 if changed else same + 1
            if same == 3:
                break
    return moved


@kernel
def scattered(off: Array, place: Array, n_first: int, n_rest: int) -> tuple[Array, Array]:
    """Entries off (B, m) as full matrices: (B, n_first, n_rest), and (B, n_rest, n_rest) below the diagonal."""
    bridge, core = np.zeros((len(off), n_first, n_rest)), np.zeros((len(off), n_rest, n_rest))
    for b in prange(len(off)):
        for e in range(off.shape[1]):
            if place[e, 0] == 0:
                bridge[b, place[e, 1], place[e, 2]] = off[b, e]
            else:
                core[b, place[e, 1], place[e, 2]] = off[b, e]
    return bridge, core
