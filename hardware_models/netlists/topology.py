"""What no solver can mend in a parts list: nodes that float, and loops of ideal voltage sources."""

from __future__ import annotations

from collections import deque

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from physics_ep.errors import InputError

from ..laws.elements import THERMAL_VOLTAGE
from .behaviours import Behaviour
from .memristors import STATEFUL
from .parts import BEHAVIOURAL, CHANNELS, KINDS, Parts

_TIED = (
    *("resistor", "memristor", "diode", "spice_diode", "piecewise_diode", "ideal_diode", "voltage_source", "cccs"),
    "inductor",
    *STATEFUL,
)
_CONTROLLED = ("vcvs", "ccvs", "rectifier", "vccs")
_FIXED = ("voltage_source", "vcvs", "ccvs", "rectifier", "inductor", "behavioural_voltage")

FLOOR = 1e-3
"""Least slope that Newton's method gives a junction on its way, over its slope at 0 V."""
MANY = 20_000
"""Edges from which on a compiled search for connected components is worth loading numba for."""


def check_floating(parts: Parts, capacitors: bool) -> None:
    """Raise InputError if no path leads from a node to ground by which its voltage could be set.

    Current sources never do that, and capacitors only in time; whether the control of an active part does depends
    on the values, which the solution finds out.

    Parameters
    ----------
    parts : Parts
    capacitors : bool
        Whether they count.
    """
    count = len(parts.nodes)
    _check_controls(parts)
    pairs = [parts.group(kind).nodes for kind in (*_TIED, *(("capacitor",) if capacitors else ()))]
    for kind in _CONTROLLED:
        nodes = parts.group(kind).nodes
        pairs.append(nodes[:, :2])
        if kind == "vccs":
            pairs += [nodes[:, [0, 2]], nodes[:, [0, 3]]]
    pairs += behavioural_ties(parts)
    pairs += [parts.group(kind).nodes[:, channel] for kind, channel in CHANNELS.items()]
    amplifier = parts.group("amplifier").nodes
    pairs += [amplifier, np.stack([amplifier[:, 1], np.zeros(len(amplifier), np.int64)], 1)]
    label = components(count, np.concatenate(pairs))
    loose = np.flatnonzero(label != label[0])
    if loose.size:
        others = f" (and {loose.size - 1} more)" if loose.size > 1 else ""
        counted = "current sources do" if capacitors else "capacitors and current sources do"
        raise InputError(
            f"Node {parts.nodes[loose[0]]!r}{others} floats: no path of parts leads from it to ground "
            f"({counted} not count)."
        )


def _check_controls(parts: Parts) -> None:
    """Raise InputError naming a control node at which no part ends: a misspelled one, say."""
    ends = np.zeros(len(parts.nodes), bool)
    ends[0] = True
    for kind, group in parts.groups.items():
        ends[group.nodes[:, CHANNELS.get(kind, (0, 1))]] = True
    for kind in KINDS:
        group = parts.group(kind)
        controls = np.delete(group.nodes, CHANNELS.get(kind, (0, 1)), axis=1)
        for name, nodes in zip(group.names, controls, strict=True):
            for node in nodes:
                if not ends[node]:
                    raise InputError(
                        f"Part {name!r} is controlled by the node {parts.nodes[node]!r}, which floats: no part "
                        "ends there."
                    )


def behavioural_ties(parts: Parts) -> list[np.ndarray]:
    """Nodes (m, 2) that behavioural sources may tie: their own, and those whose voltages a current follows."""
    pairs = [parts.group(kind).nodes for kind in BEHAVIOURAL]
    currents = parts.group("behavioural_current")
    if not len(currents):
        return pairs
    place = {name: k for k, name in enumerate(parts.nodes)}
    for text, (first, _) in zip(currents.expressions, currents.nodes.tolist(), strict=True):
        read = [(first, place[node]) for node in Behaviour(text).nodes]
        pairs.append(np.array(read, np.int64).reshape(-1, 2))
    return pairs


def held_by_leakage(parts: Parts, *ties: np.ndarray) -> np.ndarray:
    """Nodes that no path of conductors leads from to ground, (n_nodes,) bool.

    Conductors are all parts but diodes of an exponential law, transistors, capacitors and current sources; a
    resistor or memristor counts where `FLOOR` of all the diodes' slopes at 0 V is nothing beside it.

    Parameters
    ----------
    parts : Parts
    *ties : int array (m, 2)
        Nodes that something else ties together.
    """
    n = len(parts.nodes)
    diodes = np.concatenate([parts.group(kind).values[:, :2] for kind in ("diode", "spice_diode")])
    if not len(diodes):
        return np.zeros(n, bool)
    least = 10 * FLOOR * float((diodes[:, 0] / (diodes[:, 1] * THERMAL_VOLTAGE)).sum())
    pairs = [*ties]
    for kind in ("resistor", "memristor"):
        group = parts.group(kind)
        strong = group.values[:, 0] > least
        pairs.append(group.nodes if strong.all() else group.nodes[strong])
    for kind in (
        "piecewise_diode",
        "ideal_diode",
        "voltage_source",
        "cccs",
        "ccvs",
        "vcvs",
        "rectifier",
        "vccs",
        "inductor",
        *STATEFUL,
    ):
        pairs.append(parts.group(kind).nodes[:, :2])
    pairs += [parts.group("vccs").nodes[:, [0, 2]], parts.group("vccs").nodes[:, [0, 3]]]
    pairs += behavioural_ties(parts)
    amplifier = parts.group("amplifier").nodes
    pairs += [amplifier, np.stack([amplifier[:, 1], np.zeros(len(amplifier), np.int64)], 1)]
    label = components(n, np.concatenate(pairs))
    return np.asarray(label != label[0])


def components(n: int, ends: np.ndarray) -> np.ndarray:
    """Label (n,) of each node's connected component, of a graph of n nodes with edges `ends` (m, 2)."""
    if len(ends) > MANY:
        from . import kernels  # numba, which takes longer to load than a small graph to search

        return np.asarray(kernels.components(n, ends))
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1])


def find_loop(parts: Parts, capacitors: bool) -> list[str]:
    """Names of parts that set voltages around a loop, in order; empty where there is none.

    Parameters
    ----------
    parts : Parts
    capacitors : bool
        Whether capacitors count as voltage sources, and ideal diodes, which are such where they conduct.
    """
    known: dict[int, list[tuple[int, str]]] = {}
    root: dict[int, int] = {}

    def top(node: int) -> int:
        root.setdefault(node, node)
        while root[node] != node:
            root[node] = root[root[node]]
            node = root[node]
        return node

    for kind in (*_FIXED, *(("ideal_diode", "capacitor") if capacitors else ())):
        group = parts.group(kind)
        for name, (a, b) in zip(group.names, group.nodes[:, :2].tolist(), strict=True):
            if top(a) == top(b):
                return [*_path(known, a, b), name]
            root[top(a)] = top(b)
            known.setdefault(a, []).append((b, name))
            known.setdefault(b, []).append((a, name))
    return []


def check_loops(parts: Parts) -> None:
    """Raise InputError naming the parts of a loop of ideal voltage sources, if there is one."""
    loop = find_loop(parts, capacitors=False)
    if loop:
        raise InputError(f"Ideal voltage sources form a loop: {', '.join(loop)}; put a resistor into it.")


def _path(known: dict[int, list[tuple[int, str]]], start: int, end: int) -> list[str]:
    """Names along the only way from one node to another in a forest."""
    came: dict[int, tuple[int, str]] = {}
    queue, seen = deque([start]), {start}
    while queue:
        here = queue.popleft()
        for there, name in known.get(here, ()):
            if there not in seen:
                seen.add(there)
                came[there] = (here, name)
                queue.append(there)
    names = []
    while end != start:
        end, name = came[end]
        names.append(name)
    return names[::-1]
