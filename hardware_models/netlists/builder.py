"""Parts collected from the lines of a netlist, and laid out as arrays."""

from __future__ import annotations

import difflib

import numpy as np

from physics_ep.errors import InputError

from .behaviours import renamed
from .expressions import Functions
from .lines import DEEPEST, Line, NetlistFile, NetlistSection, tokens
from .models import NOMINAL, DiodeModel
from .options import LEAST_GMIN, circuit_options
from .parts import CONTROLLED, GROUND, SETTING, Group, Parts
from .values import Scope

AMPLITUDES = ("voltage_source", "current_source")
"""Kinds that may have the amplitude of a small signal."""
LONGEST_NAME = 100
"""Characters of a name that others are compared with for a hint: the time grows with their square."""
MOST_PARTS = 1_000_000
"""Elements that instances of subcircuits may multiply to."""


class Builder:
    """Collects parts as plain rows, and lays them out as `Parts`.

    Attributes
    ----------
    initial : dict of str to float
        Voltages of capacitors, and currents of inductors, with IC=, by part name.
    options : dict of str to (float, Line)
        Options that change the circuit.
    notes : dict of str to None
        What was read over, in order.
    """

    def __init__(self, source: NetlistFile) -> None:
        self.source = source
        functions = Functions()
        functions.known.update(source.functions)
        self.scope = Scope(source.top.parameters, functions=functions)
        self.options = circuit_options(source, self.scope)
        self.scope = Scope(source.top.parameters, Scope({"temper": repr(self.option("temp", NOMINAL))}), functions)
        self.models: dict[int, DiodeModel] = {}
        self.foreign: dict[str, None] = {}
        self.expressions: dict[str, list[tuple[str, Line]]] = {}
        self.counts: dict[int, int] = {}
        self.index = {GROUND: 0, "gnd": 0}
        self.nodes = [GROUND]
        self.rows: dict[str, tuple[list, list, list]] = {}
        self.waveforms: dict[str, dict] = {}
        self.controls: dict[str, list[tuple[str, Line]]] = {}
        self.names: dict[str, str] = {}
        self.initial: dict[str, float] = {}
        self.ac: dict[str, complex] = {}
        self.notes: dict[str, None] = dict(source.notes)

    def node(self, name: str) -> int:
        """Number of a node; its first spelling is kept."""
        low = name.lower()
        found = self.index.get(low)
        if found is None:
            found = self.index[low] = len(self.nodes)
            self.nodes.append(name)
        return found

    def add(self, line: Line, kind: str, name: str, nodes: list[str], values: list[float]) -> None:
        """Add a part whose values have been checked by `check_values` or need no check."""
        low = name.lower()
        if low in self.names:
            raise line.error(f"part {name!r} is there twice")
        self.names[low] = name
        rows = self.rows.get(kind)
        if rows is None:
            rows = self.rows[kind] = ([], [], [])
        rows[0].append(name)
        rows[1].append([self.node(n) for n in nodes])
        rows[2].append(values)

    def beside(self, line: Line, kind: str, name: str, nodes: list[str], *values: float) -> None:
        """Add a part that belongs to another element, under a name that no part has."""
        while name.lower() in self.names:
            name += "_"
        self.add(line, kind, name, nodes, [*values])

    def parts(self) -> Parts:
        """All parts that the netlist has built so far."""
        if not self.rows:
            raise InputError("the netlist has no parts")
        if self.foreign:
            self.notes[f"passed over in models of diodes, as in ngspice: {', '.join(self.foreign)}"] = None
        self._shunt()
        groups = {}
        sources = {n.lower(): n for n in self.rows.get("voltage_source", ([],))[0]}
        for kind, (names, nodes, values) in self.rows.items():
            controls: tuple[str, ...] = ()
            if kind in CONTROLLED:
                for control, line in self.controls[kind]:
                    if control.lower() not in sources:
                        raise line.error(self._no_control(control, set(sources.values())))
                controls = tuple(sources[c.lower()] for c, _ in self.controls[kind])
            layout = np.array(values, dtype=np.float64).reshape(len(names), -1)
            found = np.array(nodes, dtype=np.int64)
            initial = {}
            if kind in ("capacitor", "inductor"):
                initial = {name: self.initial[name] for name in names if name in self.initial}
            texts = self._expressions(kind)
            ac = {name: self.ac[name] for name in names if name in self.ac} if kind in AMPLITUDES else {}
            groups[kind] = Group(
                tuple(names), found, layout, controls, self.waveforms.get(kind, {}), initial, texts, ac
            )
        return Parts(tuple(self.nodes), groups, self._held())

    def _no_control(self, name: str, sources: set[str]) -> str:
        """What to say of a control that is no voltage source: whether there is such a part at all."""
        if name.lower() in self.names:
            return (
                f"the current of {name!r} cannot control, since it is no voltage source: one of 0 V in series would"
            )
        return f"the current of {name!r} cannot control: {unknown('voltage source', name, sources)}"

    def _expressions(self, kind: str) -> tuple[str, ...]:
        """Expressions of behavioural sources, with names as the circuit spells them."""
        nodes = {low: self.nodes[number] for low, number in self.index.items()}
        parts = {name.lower(): name for k in SETTING for name in self.rows.get(k, ((),))[0]}
        found = []
        for text, line in self.expressions.get(kind, []):
            try:
                found.append(renamed(text, nodes, parts))
            except InputError as error:
                raise line.error(error) from None
        return tuple(found)

    def option(self, name: str, default: float) -> float:
        """Value of an option that changes the circuit."""
        return self.options[name][0] if name in self.options else default

    def step(self) -> float | None:
        """Seconds, of .tran lines and commands: edges of pulses that have none; None where there is none.

        Raises
        ------
        InputError
            If they differ.
        """
        found: float | None = None
        for words, line in self.source.transients:
            if not words:
                raise line.error("a transient is .tran STEP STOP")
            value = line.check(self.scope.value, words[0])
            if not value or all(w.lower() == "uic" for w in words[1:]):
                continue  # LTspice's .tran 0 STOP and .tran STOP name no step
            if found is not None and value != found:
                raise line.error("transients of different steps, and the edges of a PULSE are not given")
            found = value
        return found

    def _held(self) -> dict[str, float]:
        """Initial volts of nodes, of .ic lines."""
        found = {}
        for node, text, line in self.source.initial:
            number = self.index.get(node.lower())
            if not number:
                raise line.error(f"no part touches the node {node!r}" if number is None else "ground is at 0 V")
            found[self.nodes[number]] = line.check(self.scope.value, text)
        return found

    def _shunt(self) -> None:
        """Parts that options add: from every node to ground, and across every diode."""
        everywhere = [[k, 0] for k in range(1, len(self.nodes))]
        places = [f"_{node}" for node in self.nodes[1:]]
        if "rshunt" in self.options:
            self._extra("resistor", "Rshunt", places, everywhere, 1 / self.option("rshunt", 1.0))
        if "cshunt" in self.options:
            self._extra("capacitor", "Cshunt", places, everywhere, self.option("cshunt", 0.0))
        gmin = self.option("gmin", 0.0)
        for kind in ("diode", "spice_diode"):
            if gmin >= LEAST_GMIN and kind in self.rows:
                names, nodes, _ = self.rows[kind]
                self._extra("resistor", "Rgmin", [f"_{name}" for name in names], nodes, gmin)

    def count(self, section: NetlistSection, within: tuple[int, ...] = ()) -> int:
        """Elements and instances that instances of subcircuits add, counted without writing them out.

        Raises
        ------
        InputError
            If a subcircuit lies within itself, or they are too many.
        """
        key = id(section)
        if key not in self.counts:
            total = 0
            for line in section.elements:
                inner = None
                if line.text[0] in "xX":
                    words = [w for w in tokens(line.text) if w.lower() != "params:"]
                    head = words[: words.index("=") - 1] if "=" in words else words
                    inner = section.subcircuit(head[-1].lower()) if head else None
                if inner is None:
                    total += bool(section.outer)
                    continue
                if id(inner) in (*within, key):
                    raise line.error(f"subcircuit {head[-1]!r} lies within itself")
                if len(within) >= DEEPEST:
                    raise line.error(f"subcircuit {head[-1]!r} lies too deep: at most {DEEPEST} within one another")
                total += 1 + self.count(inner, (*within, key))
                if total > MOST_PARTS:
                    raise line.error(
                        f"instances of subcircuits multiply to more than {MOST_PARTS:,} elements here: fewer would "
                        "be read"
                    )
            self.counts[key] = total
        return self.counts[key]

    def _extra(self, kind: str, start: str, ends: list[str], nodes: list, value: float) -> None:
        while any((start + end).lower() in self.names for end in ends):
            start += "_"
        rows = self.rows.setdefault(kind, ([], [], []))
        rows[0].extend(start + end for end in ends)
        rows[1].extend(nodes)
        rows[2].extend([value] for _ in ends)


def unknown(what: str, name: str, known: set[str]) -> str:
    """What to say of a name that is not defined."""
    close = difflib.get_close_matches(name.lower(), sorted(known), n=1) if len(name) <= LONGEST_NAME else []
    hint = f", did you mean {close[0]!r}?" if close else f"; defined are {', '.join(sorted(known)[:10]) or 'none'}"
    return f"the {what} {name!r} is not defined{hint}"
