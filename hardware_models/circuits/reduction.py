"""From node voltages to unknowns: what voltage sources, inductors and bidirectional amplifiers leave free.

Ideal sources tie nodes together, v_a - v_b = s, inductors with s = 0, and so do amplifiers, v_out = A v_in: of each
group of tied nodes one voltage u is left unknown, or none where ground is among them. Every node voltage is then

    v_n = scale_n u_group(n) + (Q s)_n,

with s the source voltages. A group's unknown obeys one equation, the sum of Kirchhoff's laws of its nodes in which
the currents of sources and amplifiers cancel (an amplifier draws 1 / A of what it delivers):
sum_n scale_n w_n I_n = 0, I_n the current that leaves node n through two-terminal elements.

Where w is one number for all nodes that elements join (a *stage*) and 1 / A^2 of it behind each amplifier, this is
the stationarity of sum_e w_e (co-content of e): the energy of Kendall (2020), with co-contents weighted by the A^2
of the amplifiers downstream. Where no such weights are to be found, the circuit has no energy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from physics_ep.errors import InputError

from ..netlists.parts import BEHAVIOURAL, CHANNELS, Parts
from ..netlists.resting import resting
from ..netlists.topology import check_floating, check_loops, components
from .senses import Amplifier, amplifiers

CONDUCTORS = ("resistor", "memristor", "diode", "piecewise_diode")
"""Kinds that carry direct current from one node to the other, however little."""
ACTIVE = ("vcvs", "vccs", "cccs", "ccvs", "rectifier", "spice_diode", *CHANNELS, *BEHAVIOURAL)
"""Kinds that no energy describes, or for which none is claimed: but for the sources that `senses` knows."""


@dataclass(frozen=True)
class Reduction:
    """Node voltages v = scale * u[unknown] + Q s.

    Attributes
    ----------
    unknown : int64 array (n_nodes,)
        Column of the unknown that a node's voltage follows; -1 for fixed nodes.
    scale : float64 array (n_nodes,)
        0 for fixed nodes.
    sources : csr array (n_nodes, n_sources)
        Q.
    weight : float64 array (n_nodes,)
        w; 1 for fixed nodes.
    representative : int64 array (n_unknowns,)
        The node whose voltage each unknown is: scale 1.
    """

    unknown: np.ndarray
    scale: np.ndarray
    sources: sparse.csr_array
    weight: np.ndarray
    representative: np.ndarray


@dataclass(frozen=True)
class Ties:
    """What voltage sources and amplifiers tie, as a forest over the nodes.

    Attributes
    ----------
    links : dict of int to list
        For each node, tuples (other node, factor, source or -1, sign): v_other = factor v_node + sign s[source].
    loop : str
        Name of an amplifier that closes a loop, else "".
    """

    links: dict[int, list[tuple[int, float, int, float]]]
    loop: str


def reduce(parts: Parts) -> tuple[Reduction | None, str]:
    """Unknowns of a circuit, or None and why it has no energy.

    Raises
    ------
    InputError
        If voltage sources form a loop, or a node floats.
    """
    parts = resting(parts)
    check_loops(parts)
    known, senses = amplifiers(parts)
    for kind in ACTIVE:
        other = next((name for name in parts.group(kind).names if name not in senses), None)
        if other is not None:
            check_floating(parts, capacitors=False)
            return None, f"part {other!r} is a {kind}"
    check_grounded(parts, known)
    ties = tie(parts, known)
    if ties.loop:
        return None, f"amplifier {ties.loop!r} closes a loop of voltage sources and amplifiers"
    unknown, scale, sources, representative = _follow(parts, ties)
    weight, clash = _weights(parts, unknown, known)
    if weight is None:
        return None, f"amplifier {clash!r} closes a cycle, so that no weights give the circuit an energy"
    return Reduction(unknown, scale, sources, weight, representative), ""


def tie(parts: Parts, known: list[Amplifier]) -> Ties:
    """The forest of voltage sources and amplifiers."""
    root: dict[int, int] = {}

    def top(n: int) -> int:
        root.setdefault(n, n)
        while root[n] != n:
            root[n] = root[root[n]]
            n = root[n]
        return n

    links: dict[int, list[tuple[int, float, int, float]]] = {}
    for k, (a, b) in enumerate(parts.group("voltage_source").nodes.tolist()):
        root[top(a)] = top(b)
        links.setdefault(b, []).append((a, 1.0, k, 1.0))
        links.setdefault(a, []).append((b, 1.0, k, -1.0))
    for a, b in parts.group("inductor").nodes.tolist():  # a short for direct current
        root[top(a)] = top(b)
        links.setdefault(b, []).append((a, 1.0, -1, 0.0))
        links.setdefault(a, []).append((b, 1.0, -1, 0.0))
    loop = ""
    for one in known:
        a, b = one.input, one.output
        if top(a) == top(b):
            loop = loop or one.name
            continue
        root[top(a)] = top(b)
        links.setdefault(a, []).append((b, one.gain, one.source, one.sign))
        links.setdefault(b, []).append((a, 1 / one.gain, one.source, -one.sign / one.gain))
    return Ties(links, loop)


def check_grounded(parts: Parts, known: list[Amplifier]) -> None:
    """Raise InputError naming a node that no conductor, voltage source or amplifier leads to ground."""
    kinds = (*CONDUCTORS, "ideal_diode", "voltage_source", "inductor")
    pairs = np.array([(one.input, one.output) for one in known], dtype=np.int64).reshape(-1, 2)
    label = components(len(parts.nodes), np.concatenate([*(parts.group(kind).nodes for kind in kinds), pairs]))
    loose = np.flatnonzero(label != label[0])
    if loose.size:
        others = f" (and {loose.size - 1} more)" if loose.size > 1 else ""
        raise InputError(
            f"Node {parts.nodes[loose[0]]!r}{others} floats: no path of parts leads from it to ground "
            "(capacitors and current sources do not count)."
        )


def _follow(parts: Parts, ties: Ties) -> tuple[np.ndarray, np.ndarray, sparse.csr_array, np.ndarray]:
    """Walk the forest from ground and from one node of every other tree."""
    n, n_sources = len(parts.nodes), len(parts.group("voltage_source"))
    unknown, scale = np.full(n, -2, dtype=np.int64), np.ones(n)
    offsets: dict[int, dict[int, float]] = {0: {}}
    unknown[0], scale[0] = -1, 0.0
    _walk(0, ties, unknown, scale, offsets)
    for start in sorted(ties.links):
        if unknown[start] == -2:
            unknown[start] = n + start  # a label for now
            offsets[start] = {}
            _walk(start, ties, unknown, scale, offsets)
    alone = unknown == -2
    unknown[alone] = n + np.flatnonzero(alone)
    labels, position = np.unique(unknown, return_inverse=True)
    # Columns in the order of their nodes; fixed nodes, labelled -1, come first and get -1 again.
    unknown = position.reshape(-1) - 1
    entries = [(node, k, value) for node, row in offsets.items() for k, value in row.items() if value]
    rows, columns, values = zip(*entries, strict=True) if entries else ((), (), ())
    sources = sparse.csr_array((np.array(values, dtype=float), (rows, columns)), shape=(n, n_sources))
    return unknown, scale, sources, labels[1:] - n


def _walk(
    start: int, ties: Ties, unknown: np.ndarray, scale: np.ndarray, offsets: dict[int, dict[int, float]]
) -> None:
    queue = [start]
    for node in queue:
        for other, factor, source, sign in ties.links.get(node, []):
            if unknown[other] != -2:
                continue
            unknown[other], scale[other] = unknown[start], factor * scale[node]
            row = {k: factor * value for k, value in offsets[node].items()}
            if source >= 0:
                row[source] = row.get(source, 0.0) + sign
            offsets[other] = row
            queue.append(other)


def _weights(parts: Parts, unknown: np.ndarray, known: list[Amplifier]) -> tuple[np.ndarray | None, str]:
    """w of each node, or None and the amplifier that contradicts the others."""
    n = len(unknown)
    weight = np.ones(n)
    if not known:
        return weight, ""
    kinds = (*CONDUCTORS, "current_source", "voltage_source", "inductor")
    ends = np.concatenate([parts.group(kind).nodes for kind in kinds])
    stage = components(n, ends[(unknown[ends] >= 0).all(1)])
    links: dict[int, list[tuple[int, float, str]]] = {}
    followed = set()
    for one in known:
        a, b, squared = one.input, one.output, one.gain**2
        if unknown[a] < 0:
            continue  # driven by a source: nothing acts back on the stage before
        links.setdefault(stage[a], []).append((stage[b], 1 / squared, one.name))
        links.setdefault(stage[b], []).append((stage[a], squared, one.name))
        followed.add(stage[a])
    found: dict[int, float] = {}
    for start in links:
        if start in found:
            continue
        found[start] = 1.0
        queue = [start]
        for here in queue:
            for other, factor, name in links[here]:
                wanted = factor * found[here]
                if other not in found:
                    found[other] = wanted
                    queue.append(other)
                elif abs(found[other] - wanted) > 1e-9 * wanted:
                    return None, name
        # The stage that no amplifier leaves has weight 1: outputs are there.
        unit = next((found[here] for here in queue if here not in followed), found[start])
        for here in queue:
            found[here] /= unit
    for here, value in found.items():
        weight[stage == here] = value
    weight[unknown < 0] = 1.0
    return weight, ""
