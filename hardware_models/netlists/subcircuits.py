"""A circuit as a subcircuit: its sources become ports in0, in1, ..., its outputs ports out0, out1, ...

Kirchhoff's laws inside are those of the circuit; only what holds its voltage sources' nodes stands outside, in a
bench. Its units are definitions within it (`units`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from physics_ep.errors import argument_error

from .behaviours import Behaviour, renamed
from .outputs import output_pairs
from .parts import GROUND, SETTING, Group, Part, Parts
from .transistors import released_gates
from .units import UnitForm, folded, without
from .writer import SUBCIRCUITS, definition_lines, part_lines, part_names, resistances

MOST_PORTS = 1004
"""Ports that ngspice reads of a subcircuit: it ends with "N_GLOBAL_NODES overflow" at one more."""
WRITTEN_BY = {**SUBCIRCUITS, "diode": "shockley"}
"""Definitions by kind of parts: diodes are Shockley's in reverse, too."""
WIDE = 100
"""Characters of a line of ports."""


class PortDrive(NamedTuple):
    """What a voltage source becomes: gain times the voltage of a port."""

    port: str
    gain: float = 1.0


@dataclass(frozen=True)
class PortedCircuit:
    """A circuit whose sources stand outside.

    Attributes
    ----------
    parts : Parts
        What belongs to no unit, with ports among the nodes.
    units : list of UnitForm
    inputs : tuple of str
        Ports at which sources stand, in order.
    outputs : tuple of tuple of str
        The port of each output, or the two ports of a difference.
    initial : dict of str to float
        Volts of nodes at the start of a transient.
    """

    parts: Parts
    units: list[UnitForm]
    inputs: tuple[str, ...]
    outputs: tuple[tuple[str, ...], ...]
    initial: dict[str, float]

    @property
    def ports(self) -> tuple[str, ...]:
        """Names of all ports, inputs first."""
        return (*self.inputs, *(port for ports in self.outputs for port in ports))


def default_drives(parts: Parts) -> tuple[PortDrive, ...]:
    """A port of its own for each voltage source."""
    return tuple(PortDrive(f"in{k}") for k in range(len(parts.group("voltage_source"))))


def ported(parts: Parts, outputs: Sequence[str], drives: Sequence[PortDrive] | None = None) -> PortedCircuit:
    """Put ports in the places of a circuit's voltage sources and outputs, and set its units apart.

    Parameters
    ----------
    parts : Parts
    outputs : sequence of str
        Nodes, and differences of two as v(a,b).
    drives : sequence of PortDrive, optional
        What becomes of each voltage source; by default each has a port of its own.

    Returns
    -------
    PortedCircuit

    Raises
    ------
    InputError
        If there are more than `MOST_PORTS` ports.
    """
    drives = default_drives(parts) if drives is None else drives
    pairs = output_pairs(outputs, parts.nodes)[1]
    sources = parts.group("voltage_source")
    parts, _ = released_gates(parts)
    opened = _Opened(parts, [*dict.fromkeys(d.port for d in drives)], pairs)
    for k, drive in enumerate(drives):
        opened.drive(sources, k, drive)
    for k, (first, second) in enumerate(pairs.tolist()):
        opened.read(k, first, second)
    return opened.finished()


class _Opened:
    """A circuit as its sources are taken off and its ports are put on."""

    def __init__(self, parts: Parts, inputs: list[str], pairs: np.ndarray) -> None:
        self.parts, self.inputs = parts, inputs
        self.outputs = [
            (f"out{k}p", f"out{k}n") if second else (f"out{k}",) for k, (_, second) in enumerate(pairs.tolist())
        ]
        every = [*inputs, *(port for ports in self.outputs for port in ports)]
        if len(every) > MOST_PORTS:
            must = f"have at most {MOST_PORTS:,} inputs and outputs, as ngspice reads no subcircuit with more"
            raise argument_error("SYSTEM", must, f"{len(every):,}")
        self.bound: dict[int, str] = {}
        self.at: dict[str, int] = {}
        self.names = list(parts.nodes)
        self.taken = {port.lower() for port in every}
        self.known = {n.lower() for g in parts.groups.values() for n in g.names}
        self.gone: list[str] = []
        self.added: list[tuple[str, str, tuple[int, ...], float]] = []
        self.watched = {c for g in parts.groups.values() for c in g.controls}
        for group in parts.groups.values():
            for text in group.expressions:
                self.watched |= {n for kind, names in Behaviour(text).probes if kind == "i" for n in names}

    def fresh(self, name: str) -> int:
        """A new node."""
        self.names.append(name)
        return len(self.names) - 1

    def part(self, name: str) -> str:
        """A name that no part has."""
        while name.lower() in self.known:
            name += "_"
        self.known.add(name.lower())
        return name

    def bind(self, node: int, port: str) -> bool:
        """Give a port to a node, unless it is ground or has one."""
        if not node or node in self.bound:
            return False
        self.bound[node] = port
        self.at[port] = node
        return True

    def port(self, name: str) -> int:
        """The node of a port."""
        if name not in self.at:
            self.bind(self.fresh(name), name)
        return self.at[name]

    def drive(self, sources: Group, k: int, drive: PortDrive) -> None:
        """Take a source off: its port is the node that it held, or drives a controlled source in its place."""
        name, (first, second) = sources.names[k], sources.nodes[k].tolist()
        watched = name in self.watched
        plain = drive.gain == 1 and not second and not watched and drive.port not in self.at
        if plain and self.bind(first, drive.port):
            self.gone.append(name)
            return
        if watched:
            middle = self.fresh(f"{name}_drive")
            self.added.append(("voltage_source", name, (first, middle), 0.0))
            first = middle
        self.gone.append(name)
        ends = (first, second, self.port(drive.port), 0)
        self.added.append(("vcvs", self.part(f"Edrive_{name}"), ends, drive.gain))

    def read(self, k: int, first: int, second: int) -> None:
        """Put the ports of an output on its nodes, or 0 V in series where a node has a port, or is ground."""
        for port, node in zip(self.outputs[k], (first, second), strict=False):
            if not self.bind(node, port):
                self.added.append(("voltage_source", self.part(f"V{port}"), (self.port(port), node), 0.0))

    def finished(self) -> PortedCircuit:
        for port in self.inputs:
            self.port(port)
        names, taken = [GROUND], self.taken | {GROUND, "gnd"}
        free = {n.lower() for n in self.names} | taken
        for k, old in enumerate(self.names[1:], 1):
            name = self.bound.get(k, old)
            if k not in self.bound and name.lower() in taken:
                while name.lower() in free:
                    name += "_"
                free.add(name.lower())
            names.append(name)
        told = {old.lower(): new for old, new in zip(self.names, names, strict=True)} | {"gnd": GROUND}
        setting = {n.lower(): n for kind in SETTING for n in self.parts.group(kind).names}
        groups = dict(without(self.parts, {*self.gone}).groups)
        for kind, group in groups.items():
            if group.expressions:
                texts = tuple(renamed(text, told, setting) for text in group.expressions)
                groups[kind] = replace(group, expressions=texts)
        for kind, name, ends, value in self.added:
            one = Group((name,), np.array([ends], np.int64), np.array([[value]]))
            groups[kind] = groups[kind].joined(one) if kind in groups else one
        initial = {told[n.lower()]: volts for n, volts in self.parts.initial.items()}
        whole = Parts(tuple(names), groups, initial)
        outputs = tuple(self.outputs)
        seen = [port for ports in outputs for port in ports]
        rest, units = folded(whole, self.inputs, seen)
        return PortedCircuit(Parts(rest.nodes, rest.groups), units, tuple(self.inputs), outputs, initial)


def subcircuit_lines(circuit: PortedCircuit, name: str) -> Iterator[str]:
    """Lines of a `.subckt`, with all that it needs within it.

    Parameters
    ----------
    circuit : PortedCircuit
    name : str

    Yields
    ------
    str

    Raises
    ------
    InputError
        If a name has characters that netlists have no place for, or two differ only in case.
    """
    inner = [Parts.collect(unit.parts) for unit in circuit.units]
    yield from continued([".subckt", name, *circuit.ports])
    kinds = {kind: group for parts in (circuit.parts, *inner) for kind, group in parts.groups.items()}
    yield from definition_lines(Parts(circuit.parts.nodes, kinds), WRITTEN_BY)
    for unit, parts in zip(circuit.units, inner, strict=True):
        yield from unit_lines(unit, parts)
    yield from _lines(circuit.parts)
    taken = {n.lower() for names in part_names(circuit.parts).values() for n in names}
    for unit in circuit.units:
        for one in unit.instances:
            own = f"X{one.name}"
            while own.lower() in taken:
                own += "_"
            taken.add(own.lower())
            given = (f"{p}={v!r}" for p, v in zip(unit.parameters, _told(unit, one.values), strict=True))
            yield " ".join([own, *one.nodes, unit.name, *given])
    yield f".ends {name}"


def unit_lines(unit: UnitForm, parts: Parts) -> Iterator[str]:
    """Lines of the definition of a unit; `parts` are its parts."""
    first = _told(unit, tuple(unit.parts[k].values[column] for k, column in unit.parameters.values()))
    defaults = (f"{p}={v!r}" for p, v in zip(unit.parameters, first, strict=True))
    yield " ".join([".subckt", unit.name, *unit.ports, *defaults])
    named: dict[int, dict[int, str]] = {}
    for parameter, (k, column) in unit.parameters.items():
        named.setdefault(k, {})[column] = f"{{{parameter}}}"
    yield from _lines(without(parts, {unit.parts[k].name for k in named}))
    for k, texts in named.items():
        yield _line(unit.parts[k], [texts.get(c, repr(v)) for c, v in enumerate(unit.parts[k].values)])
    yield f".ends {unit.name}"


def _told(unit: UnitForm, values: tuple[float, ...]) -> list[float]:
    """Parameters of a unit as a netlist has them: ohms for siemens of resistors."""
    kinds = [unit.parts[k].kind for k, _ in unit.parameters.values()]
    rows = zip(kinds, values, strict=True)
    return [float(resistances(np.array([v]))[0]) if kind == "resistor" else v for kind, v in rows]


def _lines(parts: Parts) -> Iterator[str]:
    """Lines of parts, diodes by their definition."""
    groups = {kind: group for kind, group in parts.groups.items() if kind != "diode"}
    yield from part_lines(Parts(parts.nodes, groups))
    for part in Parts(parts.nodes, {"diode": parts.group("diode")}):
        yield _line(part, [repr(v) for v in part.values])


def _line(part: Part, values: list[str]) -> str:
    """The line of a part, its values as given: numbers or parameters."""
    nodes = " ".join(part.nodes)
    if part.kind == "diode":
        return f"X{part.name} {nodes} shockley is={values[0]} n={values[1]}"
    if part.kind == "amplifier":
        return f"{part.name} {nodes} biamp gain={values[0]}"
    return f"{part.name} {nodes} {values[0]}"


def continued(words: Sequence[str]) -> Iterator[str]:
    """Words as a line with its continuations."""
    line = ""
    for word in words:
        if line and len(line) + len(word) >= WIDE:
            yield line
            line = "+"
        line += f" {word}" if line else word
    yield line
