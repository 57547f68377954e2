"""Parts lists from graphs and as graphs: lists of edges, networkx."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from physics_ep.errors import InputError, argument_error, unknown_name

from .. import arrays
from ..netlists.parts import CHANNELS, GROUND, KINDS, Group, Part, Parts
from ..netlists.pulses import Decay, Pulse, Sine

LETTERS = {"resistor": "R", "memristor": "M", "diode": "D", "piecewise_diode": "P", "ideal_diode": "ID"}
"""Kinds of elements that an edge can be, and the letters that their names begin with."""


def _keyword(name: str) -> str:
    return name.replace(" ", "_")


ELEMENT_VALUES = {_keyword(name) for kind in LETTERS for name, _, _ in KINDS[kind].values[1:]}
"""Names of the elements' values that are not their weights."""


def parts_from_edges(
    n_nodes: int,
    edges: Any,
    weights: Any,
    inputs: Sequence[int] = (),
    biases: Any = None,
    kinds: str | Sequence[str] = "resistor",
    **values: Any,
) -> Parts:
    """The elements of a list of edges, sources of the inputs and of the biases, as a parts list.

    Parameters
    ----------
    n_nodes, edges, weights, inputs, biases
        The arguments of `Circuit.from_edges` of the same names.
    kinds : str or sequence of str (m,)
        Element of all edges, or of each, out of `LETTERS`.
    **values : float or array_like (m,)
        Further values of the elements, by names out of `ELEMENT_VALUES`.

    Returns
    -------
    Parts
        Node k is "nk". Voltage sources "Vk" hold the inputs, at 0 V; current sources "Ik" feed the free nodes.

    Raises
    ------
    InputError
        If an argument is not as above.
    """
    if isinstance(n_nodes, bool) or not isinstance(n_nodes, int | np.integer) or n_nodes < 1:
        raise argument_error("n_nodes", "be an integer of at least 1", n_nodes)
    ends = arrays.integers("edges", edges, n_nodes)
    if ends.size == 0:
        ends = ends.reshape(0, 2)
    if ends.ndim != 2 or ends.shape[1] != 2:
        raise argument_error("edges", "have the shape (m, 2)", ends.shape)
    clamped = arrays.nodes("inputs", inputs, n_nodes)
    of_edge = np.array(arrays.names("couplings", kinds, len(ends), LETTERS), dtype=object)
    first = arrays.numbers("weights", weights, len(ends))
    others = {name: _column(name, given, len(ends)) for name, given in values.items()}
    groups = {}
    for kind, letter in LETTERS.items():
        at = np.flatnonzero(of_edge == kind)
        if at.size:
            names = tuple(f"{letter}{k}" for k in at.tolist())
            groups[kind] = Group(names, ends[at] + 1, _values(kind, at, first, others))
    if clamped.size:
        sources = np.stack([clamped + 1, np.zeros_like(clamped)], 1)
        names = tuple(f"V{k}" for k in clamped.tolist())
        groups["voltage_source"] = Group(names, sources, np.zeros((len(clamped), 1)))
    if biases is not None:
        free = np.setdiff1d(np.arange(n_nodes), clamped)
        into = arrays.numbers("biases", biases, len(free))
        sources = np.stack([np.zeros_like(free), free + 1], 1)
        groups["current_source"] = Group(tuple(f"I{k}" for k in free.tolist()), sources, into[:, None])
    nodes = (GROUND, *(f"n{k}" for k in range(n_nodes)))
    return Parts(nodes, groups)


def _column(name: str, given: Any, count: int) -> np.ndarray:
    """One number for all edges, or one for each."""
    return arrays.numbers(name, [given] * count if np.ndim(given) == 0 else given, count)


def _values(kind: str, at: np.ndarray, first: np.ndarray, others: dict[str, np.ndarray]) -> np.ndarray:
    """Values (len(at), k) of the elements of one kind, checked."""
    columns = []
    for k, (name, unit, least) in enumerate(KINDS[kind].values):
        keyword = "weights" if k == 0 else _keyword(name)
        if k == 0:
            column = first[at]
        elif keyword in others:
            column = others[keyword][at]
        elif kind == "memristor":
            raise argument_error(keyword, "be given where there are memristors", None)
        else:
            column = np.full(len(at), 1.0 if kind == "diode" else 0.0)
        bad = np.flatnonzero(~(column > least)) if least is not None else np.empty(0, dtype=int)
        if bad.size:
            must = f"be {'positive' if least == 0 else 'not negative'} ({name}, {unit})".replace(", )", ")")
            raise argument_error(keyword, must, f"{column[bad[0]]:g} at index {at[bad[0]]}")
        columns.append(column)
    return np.stack(columns, 1) if columns else np.empty((len(at), 0))


def parts_from_networkx(graph: Any, inputs: Sequence[Any] = ()) -> Parts:
    """The edges of a networkx graph as a parts list.

    Parameters
    ----------
    graph : networkx graph
        Nodes become circuit nodes, named by `str`; "0" is ground. An edge is a part: attribute `kind` (default
        'resistor'), `name` (default made up) and its values by name, with underscores for blanks: `conductance`,
        or `weight`, of a resistor. Kinds whose ends differ (diodes, sources) need a directed graph. Parts of four
        nodes join their outputs, with the other two as `control`; transistors drain and source, with gate and bulk,
        or the bulk alone, as `control`; for a cccs `control` names a source.
    inputs : sequence of nodes
        Nodes that further voltage sources hold, at 0 V; they are the last of the sources.

    Returns
    -------
    Parts

    Raises
    ------
    InputError
        If an edge is not as above.
    """
    found = sorted(enumerate(graph.edges(data=True)), key=lambda one: (one[1][2].get("position", one[0]), one[0]))
    taken = {data["name"] for _, (_, _, data) in found if "name" in data}
    parts = []
    for k, (a, b, data) in found:
        kind = data.get("kind", "resistor")
        if kind not in KINDS:
            raise unknown_name(f"kind of edge {a}-{b}", kind, KINDS)
        if kind not in ("resistor", "memristor", "capacitor", "inductor") and not graph.is_directed():
            raise argument_error("graph", f"be directed where it has a {kind}", "undirected")
        name = data.get("name")
        if name is None:
            name = _fresh(f"{LETTERS.get(kind, kind[0].upper())}{k}", taken)
        parts.append(_part(str(name), kind, (str(a), str(b)), data))
    for node in inputs:
        if node not in graph:
            raise unknown_name("inputs", str(node), [str(n) for n in graph])
        parts.append(Part(_fresh(f"V{node}", taken), "voltage_source", (str(node), GROUND), (0.0,)))
    return Parts.collect(parts)


def _fresh(name: str, taken: set[str]) -> str:
    """This name, or one like it that no part has yet; it is taken from now on."""
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _part(name: str, kind: str, nodes: tuple[str, str], data: dict[str, Any]) -> Part:
    values = []
    for value, _, _ in KINDS[kind].values:
        key = _keyword(value)
        if key not in data and key == "conductance" and "weight" in data:
            key = "weight"
        if key not in data:
            raise InputError(f"Edge {nodes[0]}-{nodes[1]} is a {kind} and must have the attribute {key!r}.")
        values.append(float(data[key]))
    control = data.get("control", ())
    more = len(KINDS[kind].nodes) - 2
    if more:
        if isinstance(control, str) or len(control) != more:
            must = f"be {'two nodes' if more == 2 else 'a sequence of one node'}"
            raise argument_error(f"control of edge {nodes[0]}-{nodes[1]}", must, control)
        every = [str(node) for node in control]
        for place, node in zip(CHANNELS.get(kind, (0, 1)), nodes, strict=True):
            every.insert(place, node)
        nodes, control = tuple(every), ""  # type: ignore[assignment]
    waveform = data.get("waveform", ())
    if not isinstance(waveform, Pulse | Sine | Decay):
        waveform = tuple((float(t), float(v)) for t, v in waveform)
    expression = str(data.get("expression", ""))
    return Part(
        name,
        kind,
        nodes,
        tuple(values),
        control or "",
        waveform,
        data.get("initial"),
        expression,
        data.get("ac", 0.0),
    )


def graph_of_parts(parts: Parts, outputs: Sequence[str] = ()) -> Any:
    """A networkx MultiDiGraph whose edges are the parts: the inverse of `parts_from_networkx`.

    Raises
    ------
    InputError
        If networkx is not installed.
    """
    try:
        import networkx
    except ImportError as error:
        raise InputError("to_networkx needs networkx: pip install networkx.") from error
    graph = networkx.MultiDiGraph(outputs=tuple(outputs))
    graph.add_nodes_from(parts.nodes)
    for position, part in enumerate(parts):
        names = [_keyword(name) for name, _, _ in KINDS[part.kind].values]
        data: dict[str, Any] = dict(zip(names, part.values, strict=True))
        data |= {"name": part.name, "kind": part.kind, "position": position}
        if part.kind == "resistor":
            data["weight"] = part.values[0]
        first, second = CHANNELS.get(part.kind, (0, 1))
        if len(part.nodes) > 2:
            data["control"] = tuple(n for k, n in enumerate(part.nodes) if k not in (first, second))
        elif part.control:
            data["control"] = part.control
        if part.waveform:
            data["waveform"] = part.waveform
        if part.initial is not None:
            data["initial"] = part.initial
        if part.ac:
            data["ac"] = part.ac
        if part.expression:
            data["expression"] = part.expression
        graph.add_edge(part.nodes[first], part.nodes[second], **data)
    return graph
