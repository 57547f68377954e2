"""Units of a circuit: what is left between the cells of its arrays, where one structure is there several times.

Cells are resistors and memristors that lead from node to node. Without them, and with ground, the inputs and the
rails that these alone set cut off, a network falls into its units: a diode, a current source and an amplifier each,
or the two halves of a paired unit with their rails. Units of one structure share a definition; a value that differs
among them is a parameter of it. What is there once is a unit, too, where it is no larger than those that are there
several times: one of them that lacks a part.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .behaviours import Behaviour, renamed
from .memristors import STATEFUL
from .parts import BEHAVIOURAL, GROUND, Part, Parts
from .writer import LETTERS

CELLS = ("resistor", "memristor", *STATEFUL)
"""Kinds of parts that join units, where neither end is ground."""
PARAMETERS = {
    "resistor": ("ohms",),
    "current_source": ("amperes",),
    "vcvs": ("gain",),
    "vccs": ("siemens",),
    "amplifier": ("gain",),
    "diode": ("saturation", "emission"),
}
"""Kinds of parts whose values may differ among units of one definition, and what the parameters are called."""


@dataclass(frozen=True)
class UnitInstance:
    """One unit of a network in a netlist.

    Attributes
    ----------
    name : str
        Name of its first own node.
    nodes : tuple of str
        Nodes of the circuit at its ports, in order.
    values : tuple of float
        Its parameters in SI units, in order; those of resistors are conductances.
    """

    name: str
    nodes: tuple[str, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class UnitForm:
    """Units of one structure.

    Attributes
    ----------
    name : str
    parts : tuple of Part
        Those of the first instance, with nodes n1, n2, ... and names of their own.
    ports : tuple of str
        Nodes of its own that the circuit sees.
    parameters : dict of str to (int, int)
        The part, and the place among its values, that each parameter stands for.
    instances : tuple of UnitInstance
    """

    name: str
    parts: tuple[Part, ...]
    ports: tuple[str, ...]
    parameters: dict[str, tuple[int, int]]
    instances: tuple[UnitInstance, ...]


def folded(parts: Parts, inputs: Iterable[str], seen: Iterable[str]) -> tuple[Parts, list[UnitForm]]:
    """Set the units of a circuit apart.

    Parameters
    ----------
    parts : Parts
        Without held gates.
    inputs : iterable of str
        Nodes whose voltages are set from outside: they belong to no unit.
    seen : iterable of str
        Further nodes that must stay visible from outside.

    Returns
    -------
    Parts
        What belongs to no unit.
    list of UnitForm
    """
    rows = [p for p in _others(parts)]
    place = {name: k for k, name in enumerate(parts.nodes)}
    setter = {p.name: p for p in parts}
    reads = {p.name: _reads(p) for p in rows}
    rails = _rails(parts, [place[n] for n in inputs])
    ends = [[place[n] for n in _nodes(p, reads[p.name], setter)] for p in rows]
    own = [[n for n in each if not rails[n]] for each in ends]
    pairs = np.array([(each[0], n) for each in own for n in each], np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(place), len(place)))
    _, label = connected_components(graph, directed=False)
    groups: dict[int, list[Part]] = {}
    for part, each in zip(rows, own, strict=True):
        if each:
            groups.setdefault(int(label[each[0]]), []).append(part)
    home = {p.name: k for k, members in groups.items() for p in members}
    stuck = set()
    for part in rows:
        for other in (*reads[part.name][1], *([part.control] if part.control else [])):
            if home.get(part.name) != home.get(other):
                stuck |= {home.get(part.name), home.get(other)}
    alike: dict[tuple, list[list[Part]]] = {}
    for k, members in groups.items():
        if k not in stuck and any(p.kind not in CELLS for p in members):
            alike.setdefault(_structure(members), []).append(members)
    largest = max((len(found[0]) for found in alike.values() if len(found) > 1), default=0)
    chosen = [found for found in alike.values() if len(found[0]) <= largest]
    inside = {p.name for found in chosen for members in found for p in members}
    visible = {n for p in parts if p.name not in inside for n in (*p.nodes, *_reads(p)[0])}
    outer = {n for n in parts.nodes if rails[place[n]]}
    visible |= {*outer, *seen, *parts.initial} - {GROUND}
    order = {name: place[name] for name in place if name not in outer}
    units = [_unit(f"unit{k}", found, visible, order) for k, found in enumerate(chosen, 1)]
    return without(parts, inside), units


def _others(parts: Parts) -> Iterator[Part]:
    """All parts but the cells."""
    for kind, group in parts.groups.items():
        chosen = np.ones(len(group), bool) if kind not in CELLS else (group.nodes == 0).any(1)
        if chosen.any():
            yield from Parts(parts.nodes, {kind: group.taken(np.flatnonzero(chosen))})


def without(parts: Parts, names: set[str]) -> Parts:
    """The parts but those of some names."""
    groups = {}
    for kind, group in parts.groups.items():
        kept = [k for k, name in enumerate(group.names) if name not in names]
        if kept:
            groups[kind] = group if len(kept) == len(group) else group.taken(np.array(kept))
    return Parts(parts.nodes, groups, parts.initial)


def _reads(part: Part) -> tuple[list[str], list[str]]:
    """Nodes, and parts that set a voltage, which the expression of a behavioural source reads."""
    if part.kind not in BEHAVIOURAL:
        return [], []
    probes = Behaviour(part.expression).probes
    return [n for kind, names in probes if kind == "v" for n in names], [
        n for kind, names in probes if kind == "i" for n in names
    ]


def _nodes(part: Part, reads: tuple[list[str], list[str]], setter: dict[str, Part]) -> list[str]:
    """Nodes that belong together by a part."""
    controls = [*reads[1], *([part.control] if part.control else [])]
    return [*part.nodes, *reads[0], *(n for name in controls for n in setter[name].nodes)]


def _rails(parts: Parts, inputs: Sequence[int]) -> np.ndarray:
    """Whether a node is ground, an input, or set by these alone."""
    rails = np.zeros(len(parts.nodes), bool)
    rails[[0, *inputs]] = True
    nodes = parts.group("vcvs").nodes
    while len(nodes):
        known = rails[nodes[:, 2]] & rails[nodes[:, 3]]
        fresh = [*nodes[known & rails[nodes[:, 1]], 0], *nodes[known & rails[nodes[:, 0]], 1]]
        if rails[fresh].all():
            break
        rails[fresh] = True
    return rails


def _structure(members: list[Part]) -> tuple:
    """What units of one definition have in common: kinds, nodes and all that is no parameter."""
    local, names = _local(members)
    rows = []
    for p in members:
        text = renamed(p.expression, _lowered(local), _lowered(names)) if p.expression else ""
        values = None if p.kind in PARAMETERS else p.values
        nodes = tuple(local[n] for n in p.nodes)
        rows.append((p.kind, nodes, values, names.get(p.control, ""), p.waveform, p.initial, p.ac, text))
    return tuple(rows)


def _local(members: list[Part]) -> tuple[dict[str, str], dict[str, str]]:
    """Names of nodes, n1, n2, ..., and of parts within a unit."""
    nodes = {GROUND: GROUND}
    for p in members:
        for n in (*p.nodes, *_reads(p)[0]):
            nodes.setdefault(n, f"n{len(nodes)}")
    return nodes, {p.name: f"{LETTERS[p.kind]}{k}" for k, p in enumerate(members, 1)}


def _lowered(names: dict[str, str]) -> dict[str, str]:
    return {name.lower(): local for name, local in names.items()}


def _unit(name: str, found: list[list[Part]], visible: set[str], order: dict[str, int]) -> UnitForm:
    """A definition for groups of parts of one structure; `order` has the places of the nodes that units own."""
    maps = [_local(members) for members in found]
    locals_ = list(maps[0][0].values())[1:]
    at = [dict(zip(nodes.values(), nodes, strict=True)) for nodes, _ in maps]
    ports = tuple(n for n in locals_ if any(there[n] in visible for there in at))
    first, (nodes, names) = found[0], maps[0]
    parameters: dict[str, tuple[int, int]] = {}
    for k, part in enumerate(first):
        for column, label in enumerate(PARAMETERS.get(part.kind, ())):
            if len({members[k].values[column] for members in found}) > 1:
                parameters[f"{label}{k + 1}"] = k, column
    parts = tuple(
        replace(
            p,
            name=names[p.name],
            nodes=tuple(nodes[n] for n in p.nodes),
            control=names.get(p.control, ""),
            expression=renamed(p.expression, _lowered(nodes), _lowered(names)) if p.expression else "",
        )
        for p in first
    )
    instances = tuple(
        UnitInstance(
            min((n for n in there.values() if n in order), key=order.__getitem__),
            tuple(there[n] for n in ports),
            tuple(members[k].values[column] for k, column in parameters.values()),
        )
        for members, there in zip(found, at, strict=True)
    )
    return UnitForm(name, parts, ports, parameters, instances)
