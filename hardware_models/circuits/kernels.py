"""Compiled kernels on the elements of a circuit: currents, slopes, co-contents, contrasts, and matrices of slopes.

The laws are those of `hardware_models.laws.elements`. Arrays are float64 and C-contiguous, batch axis first. Linear
resistors, which are most of a circuit, have loops of their own; all other elements are *junctions*, and go through
a switch on their kind.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..laws.compiled import Array, inner, kernel, prange, sequential, switch
from ..laws.elements import ELEMENTS, THERMAL_VOLTAGE

DIODE, PIECEWISE, MEMRISTOR = (ELEMENTS[name].kind for name in ("diode", "piecewise_diode", "memristor"))
NEAR = 0.2
"""Part of its own voltage over which an element is as good as linear."""
WIDTH = 16
"""Examples whose currents are computed together: the innermost loop then fills vector units."""
MOST = 1e9
"""Amperes: no junction carries more."""
_LAWS = [(element.kind, element.make(np)) for element in ELEMENTS.values()]

content = switch([(kind, law.content) for kind, law in _LAWS])
current = switch([(kind, law.current) for kind, law in _LAWS])
slope = switch([(kind, law.slope) for kind, law in _LAWS])
current_difference = switch([(kind, law.current_difference) for kind, law in _LAWS])
value_slope_difference = switch([(kind, law.value_slope_difference) for kind, law in _LAWS])


class Net(NamedTuple):
    """A circuit as flat arrays: N nodes, n unknowns, m resistors, k junctions, l pairs of unknowns.

    Attributes
    ----------
    unknown : int64 array (N,)
        Unknown that a node's voltage follows, -1 where sources fix it.
    scale : float64 array (N,)
        dv_node / du, 0 where sources fix it.
    row : float64 array (N,)
        Share of a node's current in its unknown's equation: scale times the weight of its stage.
    resistors : int64 array (m, 2)
        Nodes; ground twice where a current acts on no unknown, since sources carry it straight back.
    junctions : int64 array (k, 2)
        The same.
    kinds : int64 array (k,)
        Element kinds of the junctions.
    resistor_stamps, junction_stamps : int64 array (m, 3), (k, 3)
        First and second unknown that an element acts on (-1: none), and the pair that they are (-1: no two).
    resistor_shares, junction_shares : float64 array (m, 3), (k, 3)
        What a slope of 1 S adds to the diagonal at these unknowns, and to the pair.
    """

    unknown: Array
    scale: Array
    row: Array
    resistors: Array
    junctions: Array
    kinds: Array
    resistor_stamps: Array
    junction_stamps: Array
    resistor_shares: Array
    junction_shares: Array


@inner
def _one_flow(v: Array, into: Array, g: Array, resistors: Array) -> None:
    """Add the resistors' currents at node voltages v (N,) to `into` (N,)."""
    for e in range(len(g)):
        i, j = resistors[e, 0], resistors[e, 1]
        flow = g[e] * (v[i] - v[j])
        into[i] -= flow
        into[j] += flow


@kernel
def linear_force(u: Array, offset: Array, injected: Array, g: Array, net: Net) -> tuple[Array, Array]:
    """Force of resistors and current sources, and the voltages across junctions; `WIDTH` examples at a time.

    Parameters
    ----------
    u : array (B, n)
        Unknowns, or their displacements.
    offset : array (B or 1, N)
        What sources add to the node voltages; zeros for displacements.
    injected : array (N,)
        Current that sources drive into each node; zeros for displacements.
    g : array (m,)
        Conductances.

    Returns
    -------
    force : array (B, n)
        Weighted current into each unknown.
    across : array (B, k)
    """
    batch, n = u.shape
    n_nodes, k = len(net.unknown), len(net.kinds)
    force, across = np.zeros((batch, n)), np.empty((batch, k))
    for chunk in prange((batch + WIDTH - 1) // WIDTH):
        lo = chunk * WIDTH
        m = min(WIDTH, batch - lo)
        v, into = np.empty((n_nodes, m)), np.empty((n_nodes, m))
        for i in range(n_nodes):
            a, scale = net.unknown[i], net.scale[i]
            for b in range(m):
                v[i, b] = offset[np.int64(lo + b) if len(offset) > 1 else 0, i]
                if a >= 0:
                    v[i, b] += scale * u[lo + b, a]
                into[i, b] = injected[i]
        if m == 1:
            _one_flow(v[:, 0], into[:, 0], g, net.resistors)
        else:
            for e in range(len(g)):
                i, j, siemens = net.resistors[e, 0], net.resistors[e, 1], g[e]
                here, there, out, back = v[i], v[j], into[i], into[j]
                for b in range(m):
                    flow = siemens * (here[b] - there[b])
                    out[b] -= flow
                    back[b] += flow
        for e in range(k):
            i, j = net.junctions[e, 0], net.junctions[e, 1]
            for b in range(m):
                across[lo + b, e] = v[i, b] - v[j, b]
        for i in range(n_nodes):
            a, share = net.unknown[i], net.row[i]
            if a >= 0:
                for b in range(m):
                    force[lo + b, a] += share * into[i, b]
    return force, across


@kernel
def with_junctions(force: Array, flow: Array, net: Net) -> Array:
    """A force (B, n) with the currents (B, k) of the junctions added."""
    out = force.copy()
    for b in prange(len(force)):
        for e in range(len(net.kinds)):
            i, j = net.junctions[e, 0], net.junctions[e, 1]
            if net.unknown[i] >= 0:
                out[b, net.unknown[i]] -= net.row[i] * flow[b, e]
            if net.unknown[j] >= 0:
                out[b, net.unknown[j]] += net.row[j] * flow[b, e]
    return out


@kernel
def junctions(across: Array, values: Array, net: Net) -> tuple[Array, Array]:
    """Currents and slopes (B, k) of junctions at the voltages `across` (B, k); values (k, 3).

    Beyond `MOST` amperes they go on along the tangent, so that a search that has lost its way finds finite numbers.
    """
    batch, k = across.shape
    flow, slopes = np.empty((batch, k)), np.empty((batch, k))
    for b in prange(batch):
        for e in range(k):
            kind, v = net.kinds[e], across[b, e]
            p, q, r = values[e, 0], values[e, 1], values[e, 2]
            near = v
            if kind == DIODE and v > 0.5:
                near = min(v, q * THERMAL_VOLTAGE * np.log1p(MOST / p))
            elif kind == MEMRISTOR and abs(v) > q:
                most = q * np.arcsinh(MOST / (p * q))
                near = max(min(v, most), -most)
            slopes[b, e] = slope(kind, near, p, q, r)
            flow[b, e] = current(kind, near, p, q, r) + slopes[b, e] * (v - near)
    return flow, slopes


@kernel
def junction_differences(origin: Array, moved: Array, values: Array, net: Net) -> tuple[Array, Array]:
    """Changes of the currents, and slopes, where `moved` (B, k) is added to the voltages `origin` (B, k)."""
    batch, k = moved.shape
    flow, slopes = np.empty((batch, k)), np.empty((batch, k))
    for b in prange(batch):
        for e in range(k):
            kind, v, d = net.kinds[e], origin[b, e], moved[b, e]
            p, q, r = values[e, 0], values[e, 1], values[e, 2]
            flow[b, e] = current_difference(kind, v, d, p, q, r)
            slopes[b, e] = slope(kind, v + d, p, q, r)
    return flow, slopes


@kernel
def throughput(u: Array, offset: Array, g: Array, flow: Array, net: Net) -> Array:
    """Sum of the sizes of the terms of each unknown's force, (B, n): the scale of its rounding errors."""
    batch, n_nodes = len(u), len(net.unknown)
    out = np.zeros(u.shape)
    for b in prange(batch):
        v, size = np.empty(n_nodes), np.zeros(n_nodes)
        shift = offset[np.int64(b) if len(offset) > 1 else 0]
        for i in range(n_nodes):
            v[i] = shift[i]
            if net.unknown[i] >= 0:
                v[i] += net.scale[i] * u[b, net.unknown[i]]
        for e in range(len(g)):
            i, j = net.resistors[e, 0], net.resistors[e, 1]
            here = abs(g[e] * (v[i] - v[j]))
            size[i] += here
            size[j] += here
        for e in range(len(net.kinds)):
            size[net.junctions[e, 0]] += abs(flow[b, e])
            size[net.junctions[e, 1]] += abs(flow[b, e])
        for i in range(n_nodes):
            if net.unknown[i] >= 0:
                out[b, net.unknown[i]] += abs(net.row[i]) * size[i]
    return out


@sequential
def resistor_matrix(g: Array, n: int, n_pairs: int, net: Net) -> tuple[Array, Array]:
    """Diagonal (n,) and entries of the pairs (n_pairs,) of the resistors' second derivatives."""
    diagonal, off = np.zeros(n), np.zeros(n_pairs)
    stamps, shares = net.resistor_stamps, net.resistor_shares
    for e in range(len(g)):
        a, b, pair = stamps[e, 0], stamps[e, 1], stamps[e, 2]
        if a >= 0:
            diagonal[a] += g[e] * shares[e, 0]
        if b >= 0:
            diagonal[b] += g[e] * shares[e, 1]
        if pair >= 0:
            off[pair] += g[e] * shares[e, 2]
    return diagonal, off


@kernel
def with_slopes(diagonal: Array, off: Array, slopes: Array, net: Net) -> tuple[Array, Array]:
    """A matrix with the junctions' slopes (B, k) added.

    Parameters
    ----------
    diagonal : array (B, n)
        Diagonal of the matrix of the resistors alone, already one copy an example.
    off : array (B or 1, n_pairs)
        One row: no junction joins two unknowns.

    Returns
    -------
    diagonal, off : arrays of these shapes
    """
    diagonal, off = diagonal.copy(), off.copy()
    stamps, shares = net.junction_stamps, net.junction_shares
    for row in prange(len(slopes)):
        here = off[np.int64(row) if len(off) > 1 else 0]
        there = diagonal[row]
        for e in range(len(stamps)):
            g = slopes[row, e]
            a, b, pair = stamps[e, 0], stamps[e, 1], stamps[e, 2]
            if a >= 0:
                there[a] += g * shares[e, 0]
            if b >= 0:
                there[b] += g * shares[e, 1]
            if pair >= 0:
                here[pair] += g * shares[e, 2]
    return diagonal, off


@kernel
def settled(wanted: Array, flow: Array, resistance: Array, last: Array, values: Array, kinds: Array) -> Array:
    """Voltages (B, k) that junctions take behind a resistance, where a linearised network has sent a current.

    v + R i(v) = wanted + R flow: exact where the network behind the junction is a resistance R (Thevenin). Left at
    `wanted` where that is within `NEAR` of the element's own voltage (n VT, v0) of `last`.

    Parameters
    ----------
    wanted, flow, last : array (B, k)
        Voltages and currents of the linearised network, and the voltages that it was linearised at.
    resistance : array (B, k)
        Ohm.
    values, kinds : array (k, 3), (k,)
    """
    out = wanted.copy()
    for b in prange(len(wanted)):
        for e in range(len(kinds)):
            kind, p, q, r = kinds[e], values[e, 0], values[e, 1], values[e, 2]
            if kind == PIECEWISE:
                continue
            scale = q * THERMAL_VOLTAGE if kind == DIODE else q
            if abs(wanted[b, e] - last[b, e]) <= NEAR * scale:
                continue
            ohm = resistance[b, e]
            level = wanted[b, e] + ohm * flow[b, e]
            # From where Newton's method comes down (or, on the other side of a memristor's 0 V, up) monotonically.
            v = wanted[b, e]
            if kind == DIODE:
                if level > 0:
                    v = min(v, scale * np.log1p(level / (ohm * p)))
            else:
                v = q * np.arcsinh(level / (ohm * p * q))
            for _ in range(50):
                step = (v + ohm * current(kind, v, p, q, r) - level) / (1 + ohm * slope(kind, v, p, q, r))
                v -= step
                if abs(step) <= 1e-3 * scale:
                    break
            out[b, e] = v
    return out


@kernel
def contrast(
    base: Array, shift: Array, share: Array, ends: Array, kinds: Array, values: Array, weight: Array
) -> Array:
    """Sum over the batch of share * weight * [d content / dp (base + shift) - (base)] of each element, (m,).

    Parameters
    ----------
    base, shift : array (N, B)
        Node voltages and what they move by.
    share : array (B,)
    ends, kinds, values, weight : array (m, 2), (m,), (m, 3), (m,)
        Nodes, element kinds, values p, q, r and the weights of the elements' stages.
    """
    out = np.empty(len(ends))
    for e in prange(len(ends)):
        i, j = ends[e, 0], ends[e, 1]
        kind, p, q, r = kinds[e], values[e, 0], values[e, 1], values[e, 2]
        total = 0.0
        for b in range(len(share)):
            v, d = base[i, b] - base[j, b], shift[i, b] - shift[j, b]
            total += share[b] * value_slope_difference(kind, v, d, p, q, r)
        out[e] = weight[e] * total
    return out


@kernel
def contents(v: Array, ends: Array, kinds: Array, values: Array, weight: Array) -> Array:
    """Sum of weight times co-content over the elements, (B,), at node voltages v (B, N); else as `contrast`."""
    out = np.empty(len(v))
    for b in prange(len(v)):
        total = 0.0
        for e in range(len(ends)):
            across = v[b, ends[e, 0]] - v[b, ends[e, 1]]
            total += weight[e] * content(kinds[e], across, values[e, 0], values[e, 1], values[e, 2])
        out[b] = total
    return out
