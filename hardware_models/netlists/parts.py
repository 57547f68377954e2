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

KINDS: dict[str, Kind] = {
    "resistor": Kind(_TWO, (("conductance", "S", 0.0),)),
    "memristor": Kind(_TWO, (("conductance", "S", 0.0), ("nonlinearity voltage", "V", 0.0))),
    "diode": Kind(("anode", "cathode"), (("saturation current", "A", 0.0), ("emission coefficient", "", 0.0))),
    "piecewise_diode": Kind(
        ("anode", "cathode"),
        (("on conductance", "S", 0.0), ("threshold", "V", -1e-300), ("leakage", "S", -1e-300)),
    ),
    "ideal_diode": Kind(("anode", "cathode"), ()),
    "capacitor": Kind(_TWO, (("capacitance", "F", 0.0),)),
    "voltage_source": Kind(_TWO, (("voltage", "V", None),)),
    "current_source": Kind(_TWO, (("current", "A", None),)),
    "vcvs": Kind(_FOUR, (("gain", "", None),)),
    "vccs": Kind(_FOUR, (("transconductance", "S", None),)),
    "cccs": Kind(_TWO, (("gain", "", None),)),
    "amplifier": Kind(("input", "output"), (("gain", "", 0.0),)),
    "rectifier": Kind(_FOUR, (("gain", "", None),)),
}
"""Kinds of parts by name. A cccs also names the voltage source whose current controls it; a rectifier is a source
of v(output) = gain max(v(control), 0)."""


@dataclass(frozen=True)
class Part:
    """One part.

    Attributes
    ----------
    name : str
        As in a netlist: "R1".
    kind : str
        One of `KINDS`.
    nodes : tuple of str
    values : tuple of float
        SI units.
    control : str
        Of a cccs: name of the voltage source whose current (first node to second, through it) controls.
    waveform : tuple of (seconds, value), or Pulse
        Of a source in a transient: its value over time, straight lines between the points and constant outside;
        empty: constant.
    initial : float or None
        Of a capacitor: volts across it at the start of a transient (IC=).
    """

    name: str
    kind: str
    nodes: tuple[str, ...]
    values: tuple[float, ...] = ()
    control: str = ""
    waveform: Waveform = ()
    initial: float | None = None


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
        By part name, of those that have one.
    initial : dict of str to float
        Volts of capacitors at the start of a transient, by part name, of those that have one.
    """

    names: tuple[str, ...]
    nodes: np.ndarray
    values: np.ndarray
    controls: tuple[str, ...] = ()
    waveforms: dict[str, Waveform] = field(default_factory=dict)
    initial: dict[str, float] = field(default_factory=dict)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({"initial": {}, **state})  # pickles of version 0.1.0 have none

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Parts:
    """A circuit's parts; iterate over it for one `Part` after the other, kind by kind.

    Attributes
    ----------
    nodes : tuple of str
        Node names, ground first, then in the order in which they were met.
    groups : dict of str to Group
        By kind; kinds without parts are absent.
    initial : dict of str to float
        Volts of nodes at the start of a transient (.ic), by node name.
    """

    nodes: tuple[str, ...]
    groups: dict[str, Group]
    initial: dict[str, float] = field(default_factory=dict)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({"initial": {}, **state})

    @classmethod
    def collect(cls, parts: Iterable[Part]) -> Parts:
        """Check parts one by one and lay them out as arrays.

        Raises
        ------
        InputError
            If a part's kind is unknown, its number of nodes or values is wrong, a value is not finite or out of
            range, two parts have one name, or a cccs is controlled by no voltage source.
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
        for part in rows.get("cccs", []):
            if part.control not in sources:
                raise unknown_name(f"control of part {part.name!r}", part.control, sources)
        groups = {}
        for kind, found in rows.items():
            nodes = np.array([[index[n] for n in p.nodes] for p in found], dtype=np.int64)
            values = np.array([p.values for p in found], dtype=np.float64).reshape(len(found), -1)
            controls = tuple(p.control for p in found) if kind == "cccs" else ()
            waveforms = {p.name: p.waveform for p in found if p.waveform}
            initial = {p.name: float(p.initial) for p in found if p.initial is not None}
            groups[kind] = Group(tuple(p.name for p in found), nodes, values, controls, waveforms, initial)
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
                )

    def group(self, kind: str) -> Group:
        """Parts of a kind; an empty group where there are none."""
        if kind in self.groups:
            return self.groups[kind]
        layout = KINDS[kind]
        return Group((), np.empty((0, len(layout.nodes)), np.int64), np.empty((0, len(layout.values))))


def _check(part: Part) -> None:
    if part.kind not in KINDS:
        raise unknown_name(f"kind of part {part.name!r}", part.kind, KINDS)
    kind = KINDS[part.kind]
    if len(part.nodes) != len(kind.nodes):
        raise argument_error(f"nodes of part {part.name!r}", f"be {', '.join(kind.nodes)}", part.nodes)
    if len(part.values) != len(kind.values):
        wanted = ", ".join(name for name, _, _ in kind.values) or "none"
        raise argument_error(f"values of part {part.name!r}", f"be {wanted}", part.values)
    if part.initial is not None and (part.kind != "capacitor" or not np.isfinite(part.initial)):
        raise argument_error(f"initial of part {part.name!r}", "be finite volts of a capacitor", part.initial)
    for value, (name, unit, least) in zip(part.values, kind.values, strict=True):
        if not hasattr(value, "__float__"):
            raise argument_error(f"{name} of part {part.name!r}", "be a number", repr(value))
        if not np.isfinite(value) or (least is not None and not value > least):
            must = "be finite" if least is None else f"be finite and {'positive' if least == 0 else 'not negative'}"
            raise argument_error(f"{name} of part {part.name!r}", must, f"{value:g} {unit}".strip())
