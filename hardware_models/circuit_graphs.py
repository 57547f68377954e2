"""Circuits from graphs and as graphs: lists of edges, networkx."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from physics_ep.errors import InputError, argument_error, unknown_name

from . import arrays
from .laws import COUPLINGS
from .parts import GROUND, KINDS, Group, Part, Parts
from .unit_graph import UnitGraph

if TYPE_CHECKING:
    from .circuit import Circuit

LETTERS = {"resistor": "R", "memristor": "M", "diode": "D", "piecewise_diode": "P", "ideal_diode": "ID"}
"""How parts made from edges are named."""


def circuit_from_edges(
    cls: type[Circuit],
    n_nodes: int,
    edges: Any,
    weights: Any,
    units: str | Sequence[str] | None = None,
    *,
    inputs: Sequence[int] = (),
    outputs: Sequence[int] = (),
    biases: Any = None,
    couplings: str | Sequence[str] | None = None,
    **extra: Any,
) -> Circuit | UnitGraph:
    """A circuit from a list of edges, or a graph of units where `units` or a coupling of units is asked for.

    Parameters
    ----------
    n_nodes : int
        Nodes are numbered 0 ... n_nodes - 1, and named "n0", "n1", ... None of them is ground.
    edges : array_like of int (m, 2)
        The two nodes of each element; a diode's anode first.
    weights : array_like of float (m,)
        First value of each element: conductance, siemens, of resistors and memristors; saturation current, amperes,
        of diodes; on conductance, siemens, of piecewise diodes. Ideal diodes have none: anything.
    units : str or sequence of str, optional
        See `UnitGraph.from_edges`, which then does the rest.
    inputs : sequence of int
        Nodes that voltage sources hold: x[:, k] is the voltage of node inputs[k].
    outputs : sequence of int
        Free nodes that the cost acts on.
    biases : array_like of float (n_free,), optional
        Currents into the free nodes in ascending order, amperes.
    couplings : str or sequence of str (m,), optional
        Element of all edges, or of each: 'resistor' (the default), 'memristor', 'diode', 'piecewise_diode' or
        'ideal_diode'; 'hopfield' and the like make a graph of units.
    **extra : float or array_like (m,)
        Further values of the elements by name: nonlinearity_voltage of memristors, emission_coefficient of diodes
        (default 1), threshold and leakage of piecewise diodes (default 0); and options of `Circuit`.

    Returns
    -------
    Circuit or UnitGraph

    Raises
    ------
    InputError
        If an argument is not as above.
    """
    if isinstance(couplings, str) and couplings not in LETTERS and couplings not in COUPLINGS:
        raise unknown_name("couplings", couplings, {*LETTERS, *COUPLINGS})
    if units is not None or (isinstance(couplings, str) and couplings not in LETTERS):
        if extra:
            raise argument_error(next(iter(extra)), "be left out for a graph of units", extra[next(iter(extra))])
        return UnitGraph.from_edges(
            n_nodes,
            edges,
            weights,
            "hard_sigmoid" if units is None else units,
            inputs=inputs,
            outputs=outputs,
            biases=biases,
            couplings="hopfield" if couplings is None else couplings,
        )
    if isinstance(n_nodes, bool) or not isinstance(n_nodes, int | np.integer) or n_nodes < 1:
        raise argument_error("n_nodes", "be an integer of at least 1", n_nodes)
    ends = arrays.integers("edges", edges, n_nodes)
    if ends.size == 0:
        ends = ends.reshape(0, 2)
    if ends.ndim != 2 or ends.shape[1] != 2:
        raise argument_error("edges", "have the shape (m, 2)", ends.shape)
    clamped = arrays.nodes("inputs", inputs, n_nodes)
    read = arrays.nodes("outputs", outputs, n_nodes)
    kinds = np.array(arrays.names("couplings", couplings or "resistor", len(ends), LETTERS), dtype=object)
    first = arrays.numbers("weights", weights, len(ends))
    known = {_keyword(name) for kind in LETTERS for name, _, _ in KINDS[kind].values[1:]}
    values = {name: _column(name, extra.pop(name), len(ends)) for name in known & set(extra)}
    groups = {}
    for kind, letter in LETTERS.items():
        at = np.flatnonzero(kinds == kind)
        if at.size:
            names = tuple(f"{letter}{k}" for k in at.tolist())
            groups[kind] = Group(names, ends[at] + 1, _values(kind, at, first, values))
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
    return cls(Parts(nodes, groups), outputs=[f"n{k}" for k in read.tolist()], **extra)


def _keyword(name: str) -> str:
    return name.replace(" ", "_")


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


def circuit_from_networkx(
    cls: type[Circuit], graph: Any, *, inputs: Sequence[Any] = (), outputs: Sequence[Any] = (), **options: Any
) -> Circuit:
    """A circuit from a networkx graph.

    Parameters
    ----------
    graph : networkx graph
        Nodes become circuit nodes, named by `str`; "0" is ground. An edge is a part: attribute `kind` (default
        'resistor'), `name` (default made up) and its values by name, with underscores for blanks: `conductance`,
        or `weight`, of a resistor. Kinds whose ends differ (diodes, sources) need a directed graph. Parts of four
        nodes join their outputs, with the other two as `control`; a cccs names a source there.
    inputs : sequence of nodes
        Nodes that further voltage sources hold, in the order of x's last columns.
    outputs : sequence of nodes
        By default those that graph.graph["outputs"] names.
    **options
        As for `Circuit`.

    Raises
    ------
    InputError
        If an edge is not as above, or the circuit is not as `Circuit` wants it.
    """
    found = sorted(enumerate(graph.edges(data=True)), key=lambda one: (one[1][2].get("position", one[0]), one[0]))
    taken = {data["name"] for _, (_, _, data) in found if "name" in data}
    parts = []
    for k, (a, b, data) in found:
        kind = data.get("kind", "resistor")
        if kind not in KINDS:
            raise unknown_name(f"kind of edge {a}-{b}", kind, KINDS)
        if kind not in ("resistor", "memristor", "capacitor") and not graph.is_directed():
            raise argument_error("graph", f"be directed where it has a {kind}", "undirected")
        name = data.get("name")
        if name is None:
            name = _fresh(f"{LETTERS.get(kind, kind[0].upper())}{k}", taken)
        parts.append(_part(str(name), kind, (str(a), str(b)), data))
    for node in inputs:
        if node not in graph:
            raise unknown_name("inputs", str(node), [str(n) for n in graph])
        parts.append(Part(_fresh(f"V{node}", taken), "voltage_source", (str(node), GROUND), (0.0,)))
    read = outputs or graph.graph.get("outputs", ())
    return cls(Parts.collect(parts), outputs=[str(node) for node in read], **options)


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
    if len(KINDS[kind].nodes) == 4:
        if isinstance(control, str) or len(control) != 2:
            raise argument_error(f"control of edge {nodes[0]}-{nodes[1]}", "be two nodes", control)
        nodes = (*nodes, *(str(node) for node in control))  # type: ignore[assignment]
        control = ""
    waveform = tuple((float(t), float(v)) for t, v in data.get("waveform", ()))
    return Part(name, kind, nodes, tuple(values), control or "", waveform)


def graph_of_parts(parts: Parts, outputs: Sequence[str] = ()) -> Any:
    """A networkx MultiDiGraph whose edges are the parts: the inverse of `circuit_from_networkx`.

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
        if len(part.nodes) == 4:
            data["control"] = part.nodes[2:]
        elif part.control:
            data["control"] = part.control
        if part.waveform:
            data["waveform"] = part.waveform
        graph.add_edge(part.nodes[0], part.nodes[1], **data)
    return graph
