"""The parts list of a circuit: what a netlist says, as flat arrays, without any physics.

A *part* has a name, a kind, its nodes by name and its values in SI units. `KINDS` says what each kind has; signs
are SPICE's: a current is positive from the first node through the part to the second, and ground is node "0". An
*ideal diode* is a bound: it conducts from its first node (anode) to its second without any voltage, never back. An
*amplifier* is bidirectional (Kendall 2020): v(output) = A v(input), and 1 / A of the current that the output
delivers is drawn from the input.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from physics_ep.errors import InputError, argument_error, unknown_name

from .behaviours import Behaviour
from .memristors import STATEFUL, VALUES, fault
from .pulses import Waveform

GROUND = "0"


@dataclass(frozen=True)
class Kind:
    """What parts of a kind have.

    Attributes
    ----------
    nodes : tuple of str
        Terminals, in order.
    values : tuple of (name, unit, least)
        Values, in order; each must be finite and exceed `least` (None: any finite number).
    """

    nodes: tuple[str, ...]
    values: tuple[tuple[str, str, float | None], ...]


_TWO = ("first", "second")
_FOUR = ("output+", "output-", "control+", "control-")

_TRANSISTOR = (
    ("transconductance parameter", "A/V^2", 0.0),
    ("threshold", "V", None),
    ("channel length modulation", "1/V", -1e-300),
    ("width", "m", 0.0),
    ("length", "m", 0.0),
    ("body effect", "V^0.5", -1e-300),
    ("surface potential", "V", 0.0),
)
_GATE = (("gate voltage", "V", None),)

KINDS: dict[str, Kind] = {
    "resistor": Kind(_TWO, (("conductance", "S", 0.0),)),
    "memristor": Kind(_TWO, (("conductance", "S", 0.0), ("nonlinearity voltage", "V", 0.0))),
    **{kind: Kind(("plus", "minus"), values) for kind, values in VALUES.items()},
    "diode": Kind(("anode", "cathode"), (("saturation current", "A", 0.0), ("emission coefficient", "", 0.0))),
    "piecewise_diode": Kind(
        ("anode", "cathode"),
        (("on conductance", "S", 0.0), ("threshold", "V", -1e-300), ("leakage", "S", -1e-300)),
    ),
    "ideal_diode": Kind(("anode", "cathode"), ()),
    "spice_diode": Kind(
        ("anode", "cathode"),
        (
            ("saturation current", "A", 0.0),
            ("emission coefficient", "", 0.0),
            ("breakdown voltage", "V", -1e-300),
            ("emission coefficient of breakdown", "", 0.0),
            ("knee current", "A", -1e-300),
            ("recombination current", "A", -1e-300),
            ("emission coefficient of recombination", "", 0.0),
            ("junction potential", "V", 0.0),
            ("grading coefficient", "", -1e-300),
        ),
    ),
    "capacitor": Kind(_TWO, (("capacitance", "F", 0.0),)),
    "inductor": Kind(_TWO, (("inductance", "H", 0.0),)),
    "voltage_source": Kind(_TWO, (("voltage", "V", None),)),
    "current_source": Kind(_TWO, (("current", "A", None),)),
    "vcvs": Kind(_FOUR, (("gain", "", None),)),
    "vccs": Kind(_FOUR, (("transconductance", "S", None),)),
    "cccs": Kind(_TWO, (("gain", "", None),)),
    "ccvs": Kind(_TWO, (("transresistance", "ohm", None),)),
    "amplifier": Kind(("input", "output"), (("gain", "", 0.0),)),
    "rectifier": Kind(_FOUR, (("gain", "", None),)),
    "nmos": Kind(("drain", "gate", "source", "bulk"), _TRANSISTOR),
    "pmos": Kind(("drain", "gate", "source", "bulk"), _TRANSISTOR),
    "nmos_resistor": Kind(("drain", "source", "bulk"), _GATE + _TRANSISTOR),
    "pmos_resistor": Kind(("drain", "source", "bulk"), _GATE + _TRANSISTOR),
    "behavioural_voltage": Kind(_TWO, ()),
    "behavioural_current": Kind(_TWO, ()),
}
"""Kinds of parts by name. A cccs or ccvs also names the voltage source whose current controls it; a rectifier is a
source of v(output) = gain max(v(control), 0); behavioural sources have an expression of voltages and currents in
place of values. A spice_diode is SPICE's diode with what Shockley's law lacks
(`hardware_models.netlists.junctions`); a breakdown voltage, knee current or recombination current of 0 stands for
none. A linear_drift_memristor, biolek_memristor or vteam_memristor is a resistor whose last value, its state, moves
in time (`hardware_models.nodal.memristors`). An nmos or pmos is a transistor of SPICE's level 1
(`hardware_models.nodal.transistor_law`); an nmos_resistor or pmos_resistor is one whose gate is held at a voltage
over ground, which is a value of its own and can learn: a resistor between drain and source."""
GATED = ("nmos_resistor", "pmos_resistor")
CHANNELS = {"nmos": (0, 2), "pmos": (0, 2), **dict.fromkeys(GATED, (0, 1))}
"""Kinds of transistors, and which of their nodes are drain and source; of those in `GATED` the gate is held."""
BEHAVIOURAL = ("behavioural_voltage", "behavioural_current")
CONTROLLED = ("cccs", "ccvs")
"""Kinds of parts that the current of a voltage source controls."""
SETTING = ("voltage_source", "vcvs", "ccvs", "rectifier", "amplifier", "ideal_diode", "inductor", *BEHAVIOURAL)
"""Kinds of parts whose current is an unknown of modified nodal analysis: behavioural sources may read it."""


@dataclass(frozen=True)
class Part:
    """One part of a circuit: its kind, name, nodes and values.

    Attributes
    ----------
    name : str
        Name as in a netlist: "R1".
    kind : str
        One of `KINDS`.
    nodes : tuple of str
    values : tuple of float
        SI units.
    control : str
        For a cccs or ccvs: name of the voltage source whose current (first node to second, through it) controls.
    waveform : tuple of (seconds, value), or Pulse
        For a source in a transient: its value over time, straight lines between the points and constant outside;
        empty: constant.
    initial : float or None
        For a capacitor: volts across it at the start of a transient (IC=); for an inductor: amperes through it.
    ac : complex
        For a source: amplitude of a small signal, volts or amperes (AC).
    expression : str
        For a behavioural source: volts or amperes as a function of node voltages, v(a) and v(a,b), and of currents
        of parts that set voltages, i(V1) (`hardware_models.netlists.behaviours`).
    """

    name: str
    kind: str
    nodes: tuple[str, ...]
    values: tuple[float, ...] = ()
    control: str = ""
    waveform: Waveform = ()
    initial: float | None = None
    expression: str = ""
    ac: complex = 0.0


@dataclass(frozen=True)
class Group:
    """All parts of one kind as arrays, in the order in which they were given.

    Attributes
    ----------
    names : tuple of str (m,)
    nodes : int64 array (m, t)
        Indices into `Parts.nodes`.
    values : float64 array (m, k)
    controls : tuple of str (m,)
        Empty strings where there is none; an empty tuple where the kind has none.
    waveforms : dict of str to tuple or Pulse
        Waveforms of the sources that have one, by part name.
    initial : dict of str to float
        Volts of capacitors, or amperes of inductors, at the start of a transient, by part name, of those that have
        one.
    expressions : tuple of str (m,)
        What behavioural sources compute; an empty tuple where the kind has none.
    ac : dict of str to complex
        Amplitudes of the small signals of sources that have one, by part name.
    """

    names: tuple[str, ...]
    nodes: np.ndarray
    values: np.ndarray
    controls: tuple[str, ...] = ()
    waveforms: dict[str, Waveform] = field(default_factory=dict)
    initial: dict[str, float] = field(default_factory=dict)
    expressions: tuple[str, ...] = ()
    ac: dict[str, complex] = field(default_factory=dict)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(
            {"initial": {}, "expressions": (), "ac": {}, **state}
        )  # pickles of version 0.1.0 have none

    def __len__(self) -> int:
        return len(self.names)

    def joined(self, other: Group) -> Group:
        """These parts, and then those of another group of the same kind."""
        return Group(
            self.names + other.names,
            np.concatenate([self.nodes, other.nodes]),
            np.concatenate([self.values, other.values]),
            self.controls + other.controls,
            {**self.waveforms, **other.waveforms},
            {**self.initial, **other.initial},
            self.expressions + other.expressions,
            {**self.ac, **other.ac},
        )

    def taken(self, rows: np.ndarray) -> Group:
        """The parts in some rows (k,), in their order."""
        names = tuple(self.names[k] for k in rows)
        kept = set(names)
        return Group(
            names,
            self.nodes[rows],
            self.values[rows],
            tuple(self.controls[k] for k in rows) if self.controls else (),
            {name: wave for name, wave in self.waveforms.items() if name in kept},
            {name: value for name, value in self.initial.items() if name in kept},
            tuple(self.expressions[k] for k in rows) if self.expressions else (),
            {name: amplitude for name, amplitude in self.ac.items() if name in kept},
        )


@dataclass(frozen=True)
class Parts:
    """A circuit's parts; iterate over it for one `Part` after the other, kind by kind.

    Attributes
    ----------
    nodes : tuple of str
        Node names, ground first, then in the order in which they were met.
    groups : dict of str to Group
        Parts by kind; kinds without parts are absent.
    initial : dict of str to float
        Volts of nodes at the start of a transient (.ic), by node name.
    """

    nodes: tuple[str, ...]
    groups: dict[str, Group]
    initial: dict[str, float] = field(default_factory=dict)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({"initial": {}, **state})

    def words(self) -> list[str]:
        """How many nodes there are, and parts of each kind."""
        counts = {kind.replace("_", " "): len(group.names) for kind, group in self.groups.items()}
        return [f"{len(self.nodes)} nodes", *(f"{n} {kind}{'s' * (n != 1)}" for kind, n in counts.items())]

    def records(self) -> list[dict[str, Any]]:
        """A row a part: its name, kind, nodes, and its value in SI units; several as text."""
        found = []
        for part in self:
            many = " ".join(f"{value:g}" for value in part.values)
            value = float(part.values[0]) if len(part.values) == 1 else many
            found.append({"part": part.name, "kind": part.kind, "nodes": " ".join(part.nodes), "value": value})
        return found

    @classmethod
    def collect(cls, parts: Iterable[Part]) -> Parts:
        """Check parts one by one and lay them out as arrays.

        Raises
        ------
        InputError
            If a part's kind is unknown, its number of nodes or values is wrong, a value is not finite or out of
            range, two parts have one name, or a cccs or ccvs is controlled by no voltage source.
        """
        index = {GROUND: 0}
        rows: dict[str, list[Part]] = {}
        seen: set[str] = set()
        for part in parts:
            _check(part)
            if part.name in seen:
                raise InputError(f"Part {part.name!r} is there twice: names must be different.")
            seen.add(part.name)
            for node in part.nodes:
                index.setdefault(node, len(index))
            rows.setdefault(part.kind, []).append(part)
        sources = {p.name for p in rows.get("voltage_source", [])}
        for part in (p for kind in CONTROLLED for p in rows.get(kind, [])):
            if part.control not in sources:
                raise unknown_name(
                    f"control of part {part.name!r}, which must be a voltage source", part.control, sources
                )
        groups = {}
        for kind in BEHAVIOURAL:
            for part in rows.get(kind, []):
                _check_expression(part, index, {p.name for k in SETTING for p in rows.get(k, [])})
        for kind, found in rows.items():
            nodes = np.array([[index[n] for n in p.nodes] for p in found], dtype=np.int64)
            values = np.array([p.values for p in found], dtype=np.float64).reshape(len(found), -1)
            controls = tuple(p.control for p in found) if kind in CONTROLLED else ()
            waveforms = {p.name: p.waveform for p in found if p.waveform}
            initial = {p.name: float(p.initial) for p in found if p.initial is not None}
            texts = tuple(p.expression for p in found) if kind in BEHAVIOURAL else ()
            names, ac = tuple(p.name for p in found), {p.name: complex(p.ac) for p in found if p.ac}
            groups[kind] = Group(names, nodes, values, controls, waveforms, initial, texts, ac)
        return cls(tuple(index), groups)

    def __iter__(self) -> Iterator[Part]:
        for kind, group in self.groups.items():
            for k, name in enumerate(group.names):
                yield Part(
                    name,
                    kind,
                    tuple(self.nodes[n] for n in group.nodes[k]),
                    tuple(group.values[k].tolist()),
                    group.controls[k] if group.controls else "",
                    group.waveforms.get(name, ()),
                    group.initial.get(name),
                    group.expressions[k] if group.expressions else "",
                    group.ac.get(name, 0.0),
                )

    def group(self, kind: str) -> Group:
        """Give the parts of one kind, a key of `KINDS`; the group has length 0 where the list has no such part."""
        if kind in self.groups:
            return self.groups[kind]
        layout = KINDS[kind]
        return Group((), np.empty((0, len(layout.nodes)), np.int64), np.empty((0, len(layout.values))))


def _check_expression(part: Part, nodes: dict[str, int], parts: set[str]) -> None:
    for kind, names in Behaviour(part.expression).probes:
        for name in names:
            if name not in (nodes if kind == "v" else parts):
                what = "node" if kind == "v" else "part that sets a voltage"
                raise unknown_name(
                    f"{what} in the expression of {part.name!r}", name, nodes if kind == "v" else parts
                )


def _check(part: Part) -> None:
    if part.kind not in KINDS:
        raise unknown_name(f"kind of part {part.name!r}", part.kind, KINDS)
    kind = KINDS[part.kind]
    if len(part.nodes) != len(kind.nodes):
        raise argument_error(f"nodes of part {part.name!r}", f"be {', '.join(kind.nodes)}", part.nodes)
    if len(part.values) != len(kind.values):
        wanted = ", ".join(name for name, _, _ in kind.values) or "none"
        raise argument_error(f"values of part {part.name!r}", f"be {wanted}", part.values)
    if part.initial is not None and (part.kind not in ("capacitor", "inductor") or not np.isfinite(part.initial)):
        must = "be finite volts of a capacitor, or amperes of an inductor"
        raise argument_error(f"initial of part {part.name!r}", must, part.initial)
    if part.ac and not (part.kind in ("voltage_source", "current_source") and np.isfinite(part.ac)):
        raise argument_error(f"ac of part {part.name!r}", "be a finite amplitude of a source", part.ac)
    if bool(part.expression) != (part.kind in BEHAVIOURAL):
        must = "be there for behavioural sources, and for no other part"
        raise argument_error(f"expression of part {part.name!r}", must, repr(part.expression))
    for value, (name, unit, least) in zip(part.values, kind.values, strict=True):
        if not hasattr(value, "__float__"):
            raise argument_error(f"{name} of part {part.name!r}", "be a number", repr(value))
        if not np.isfinite(value) or (least is not None and not value > least):
            must = "be finite" if least is None else f"be finite and {'positive' if least == 0 else 'not negative'}"
            raise argument_error(f"{name} of part {part.name!r}", must, f"{value:g} {unit}".strip())
    if part.kind in STATEFUL and (wrong := fault(part.kind, part.values)):
        raise argument_error(f"{wrong[0]} of part {part.name!r}", wrong[1], f"{wrong[2]:g}")
