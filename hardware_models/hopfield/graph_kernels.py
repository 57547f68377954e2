"""Compiled kernels on graphs: coordinate sweeps, drives, energies and contrasts, batch-parallel.

The laws are those of `physics_ep.units` and `hardware_models.laws.couplings`, compiled in
`hardware_models.laws.compiled`. Arrays are float64 and C-contiguous. Nodes are numbered free ones first, then
clamped ones. Within a chunk of `width` examples the innermost loop runs over examples, so that it vectorises; no
result depends on the width or the number of threads.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..laws.compiled import (
    Array,
    difference,
    kernel,
    numba,
    pair_energy,
    potential,
    prange,
    response,
    slope,
    slope_difference,
    weight_slope_difference,
)


class Graph(NamedTuple):
    """A graph as flat arrays; n nodes, the first n_free free, the others clamped; m edges.

    Attributes
    ----------
    ends : int64 array (m, 2)
        Nodes of each edge.
    couplings : int64 array (m,)
        Kind of each edge.
    units : int64 array (n_free,)
        Kind of each free node.
    rows : int64 array (n_free, 4)
        Where the neighbours of free node i stand: `neighbours[rows[i, 0]:rows[i, 1]]` are the free ones before i,
        up to rows[i, 2] the free ones after i, up to rows[i, 3] the clamped ones.
    neighbours, edges : int64 array (2 m,) or less
        Node at the other end of each edge, and the number of that edge.
    """

    ends: Array
    couplings: Array
    units: Array
    rows: Array
    neighbours: Array
    edges: Array


def build_graph(ends: Array, couplings: Array, units: Array) -> Graph:
    """Lay out a graph from its edges (m, 2), their kinds (m,) and the kinds of the free nodes (n_free,)."""
    n_free = len(units)
    tails = np.concatenate([ends[:, 0], ends[:, 1]])
    heads = np.concatenate([ends[:, 1], ends[:, 0]])
    edges = np.tile(np.arange(len(ends)), 2)
    order = np.lexsort((edges, heads, tails))
    order = order[tails[order] < n_free]
    tails, heads, edges = tails[order], heads[order], edges[order]
    group = np.where(heads >= n_free, 2, (heads > tails).astype(np.int64))
    counts = np.zeros((n_free, 3), dtype=np.int64)
    np.add.at(counts, (tails, group), 1)
    stops = np.cumsum(counts.ravel()).reshape(n_free, 3)
    starts = np.concatenate([[0], stops[:-1, 2]])[:n_free, None]
    rows = np.concatenate([starts, stops], axis=1)
    arrays = (ends, couplings, units, rows, heads, edges)
    return Graph(*(np.ascontiguousarray(a, dtype=np.int64) for a in arrays))


class Pull(NamedTuple):
    """A nudge of output nodes, on which drive p acts as (p + push) * ease.

    Attributes
    ----------
    slot : int64 array (n_free,)
        Row of `push` for an output node, -1 for any other.
    push : float64 array (n_out, B)
    ease : float64 array (n_out, B)
    """

    slot: Array
    push: Array
    ease: Array


def chunk_width(batch: int) -> int:
    """Examples a chunk: enough to fill vector units, few enough to give every thread one."""
    return max(1, min(16, -(-batch // numba.get_num_threads())))


# -- kernels ----------------------------------------------------------------------------------------------------


@kernel
def drives(values: Array, weight: Array, bias: Array, graph: Graph) -> Array:
    """Drive p_i = b_i - sum_j de/ds_i of the free nodes, (B, n_free), at the values (B, n) of all nodes."""
    batch, n_free = values.shape[0], len(graph.units)
    out = np.empty((batch, n_free))
    for b in prange(batch):
        v = values[b]
        for i in range(n_free):
            p = bias[i]
            for e in range(graph.rows[i, 0], graph.rows[i, 3]):
                edge = graph.edges[e]
                p -= slope(graph.couplings[edge], weight[edge], v[i], v[graph.neighbours[e]])
            out[b, i] = p
    return out


@kernel
def energies(values: Array, weight: Array, bias: Array, graph: Graph) -> Array:
    """Energy of each example, (B,), at the values (B, n) of all nodes."""
    batch, n_free = values.shape[0], len(graph.units)
    out = np.empty(batch)
    for b in prange(batch):
        v = values[b]
        total = 0.0
        for i in range(n_free):
            total += potential(graph.units[i], v[i]) - bias[i] * v[i]
        for e in range(len(weight)):
            total += pair_energy(graph.couplings[e], weight[e], v[graph.ends[e, 0]], v[graph.ends[e, 1]])
        out[b] = total
    return out


@kernel
def sweep(
    s: Array, clamped: Array, weight: Array, bias: Array, graph: Graph, pull: Pull, width: int
) -> tuple[Array, Array]:
    """One Gauss-Seidel sweep over the free nodes in ascending order.

    Each node goes to the minimum of F over itself, the others held at their newest states.

    Parameters
    ----------
    s : array (B, n_free)
    clamped : array (n_clamped, B)
    weight, bias : array (m,), (n_free,)
    graph, pull : Graph, Pull
    width : int
        Examples a chunk.

    Returns
    -------
    moved : array (B, n_free)
        States after the sweep.
    gap : array (B, n_free)
        sigma(p) - s at the state s that was given, all its drives taken from s itself.
    """
    batch, n_free = s.shape
    moved, gap = np.empty((batch, n_free)), np.empty((batch, n_free))
    for chunk in prange((batch + width - 1) // width):
        lo = chunk * width
        m = min(width, batch - lo)
        old, new = np.empty((n_free, m)), np.empty((n_free, m))
        shared, before, after = np.empty(m), np.empty(m), np.empty(m)
        for b in range(m):
            for i in range(n_free):
                old[i, b] = s[lo + b, i]
        for i in range(n_free):
            first, middle, last, stop = graph.rows[i]
            unit, slot = graph.units[i], pull.slot[i]
            here = old[i]
            for b in range(m):
                shared[b] = bias[i]
                before[b] = 0.0
                after[b] = 0.0
            for e in range(first, middle):
                edge, j = graph.edges[e], graph.neighbours[e]
                kind, w = graph.couplings[edge], weight[edge]
                there, then = old[j], new[j]
                for b in range(m):
                    before[b] -= slope(kind, w, here[b], there[b])
                    after[b] -= slope(kind, w, here[b], then[b])
            for e in range(middle, stop):
                edge, j = graph.edges[e], graph.neighbours[e]
                kind, w = graph.couplings[edge], weight[edge]
                there = old[j] if e < last else clamped[j - n_free, lo : lo + m]
                for b in range(m):
                    shared[b] -= slope(kind, w, here[b], there[b])
            for b in range(m):
                was, now = shared[b] + before[b], shared[b] + after[b]
                if slot >= 0:
                    was = (was + pull.push[slot, lo + b]) * pull.ease[slot, lo + b]
                    now = (now + pull.push[slot, lo + b]) * pull.ease[slot, lo + b]
                gap[lo + b, i] = response(unit, was) - here[b]
                new[i, b] = response(unit, now)
        for b in range(m):
            for i in range(n_free):
                moved[lo + b, i] = new[i, b]
    return moved, gap


@kernel
def displaced_sweep(
    d: Array,
    values: Array,
    anchor: Array,
    mismatch: Array,
    weight: Array,
    graph: Graph,
    pull: Pull,
    width: int,
) -> tuple[Array, Array]:
    """`sweep` carried in the displacement d from an origin: no state is formed, so none is rounded.

    d_i <- sigma(a_i + da_i) - sigma(a_i) + r_i with a_i the drive at the origin and da_i its change. Clamped nodes
    do not move, and add nothing to da.

    Parameters
    ----------
    d : array (B, n_free)
    values : array (n, B)
        Values of all nodes at the origin.
    anchor, mismatch : array (n_free, B)
        a and r.
    weight, graph, pull, width
        The arguments of `sweep` of the same names.

    Returns
    -------
    moved, gap : array (B, n_free)
        Displacements after the sweep, and what the update of d from d alone would add to d.
    """
    batch, n_free = d.shape
    moved, gap = np.empty((batch, n_free)), np.empty((batch, n_free))
    for chunk in prange((batch + width - 1) // width):
        lo = chunk * width
        m = min(width, batch - lo)
        old, new = np.empty((n_free, m)), np.empty((n_free, m))
        shared, before, after = np.empty(m), np.empty(m), np.empty(m)
        for b in range(m):
            for i in range(n_free):
                old[i, b] = d[lo + b, i]
        for i in range(n_free):
            first, middle, last = graph.rows[i, 0], graph.rows[i, 1], graph.rows[i, 2]
            unit, slot = graph.units[i], pull.slot[i]
            here, s = old[i], values[i, lo : lo + m]
            for b in range(m):
                shared[b] = 0.0
                before[b] = 0.0
                after[b] = 0.0
            for e in range(first, middle):
                edge, j = graph.edges[e], graph.neighbours[e]
                kind, w = graph.couplings[edge], weight[edge]
                there, then, t = old[j], new[j], values[j, lo : lo + m]
                for b in range(m):
                    before[b] -= slope_difference(kind, w, s[b], t[b], here[b], there[b])
                    after[b] -= slope_difference(kind, w, s[b], t[b], here[b], then[b])
            for e in range(middle, last):
                edge, j = graph.edges[e], graph.neighbours[e]
                kind, w = graph.couplings[edge], weight[edge]
                there, t = old[j], values[j, lo : lo + m]
                for b in range(m):
                    shared[b] -= slope_difference(kind, w, s[b], t[b], here[b], there[b])
            for b in range(m):
                was, now = shared[b] + before[b], shared[b] + after[b]
                if slot >= 0:
                    was = (was + pull.push[slot, lo + b]) * pull.ease[slot, lo + b]
                    now = (now + pull.push[slot, lo + b]) * pull.ease[slot, lo + b]
                a, r = anchor[i, lo + b], mismatch[i, lo + b]
                gap[lo + b, i] = difference(unit, a, was) + r - here[b]
                new[i, b] = difference(unit, a, now) + r
        for b in range(m):
            for i in range(n_free):
                moved[lo + b, i] = new[i, b]
    return moved, gap


@kernel
def weight_contrast(base: Array, shift: Array, share: Array, graph: Graph) -> Array:
    """Sum over the batch of share * [de/dw(base + shift) - de/dw(base)] for each edge, (m,).

    Parameters
    ----------
    base, shift : array (n, B)
        Values of all nodes and what they move by.
    share : array (B,)
    graph : Graph
    """
    out = np.empty(len(graph.ends))
    for e in prange(len(graph.ends)):
        i, j = graph.ends[e, 0], graph.ends[e, 1]
        total = 0.0
        for b in range(len(share)):
            total += share[b] * weight_slope_difference(
                graph.couplings[e], base[i, b], base[j, b], shift[i, b], shift[j, b]
            )
        out[e] = total
    return out
