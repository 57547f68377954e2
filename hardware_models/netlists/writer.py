"""Netlists from parts, for ngspice and for `reader`: a line a part, kind by kind, in the parts' order.

Numbers have the digits that make them the same float again; only a conductance is written as its inverse, in ohms,
and can come back in its last bit changed (the resistance is chosen so that this is rare, and never happens twice).
Names get their SPICE letter where they lack it.
"""

from __future__ import annotations

import cmath
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple

import numpy as np

from physics_ep.errors import argument_error

from ..laws.elements import THERMAL_VOLTAGE
from .behaviours import written
from .expressions import syntax_tree
from .memristors import FORMS
from .parts import CHANNELS, GROUND, SETTING, Group, Parts
from .pulses import Decay, Pulse, Sine, Waveform
from .transistors import released_gates, transistor_lines
from .values import Scope, number

LETTERS = {
    "resistor": "R",
    "memristor": "B",
    **dict.fromkeys(FORMS, "X"),
    "diode": "D",
    "spice_diode": "D",
    "piecewise_diode": "B",
    "ideal_diode": "X",
    "capacitor": "C",
    "inductor": "L",
    "voltage_source": "V",
    "current_source": "I",
    "vcvs": "E",
    "vccs": "G",
    "cccs": "F",
    "ccvs": "H",
    "amplifier": "X",
    "rectifier": "B",
    **dict.fromkeys(CHANNELS, "M"),
    "behavioural_voltage": "B",
    "behavioural_current": "B",
}
_REVERSE = f"min(v(anode,cathode)/({{n}}*{THERMAL_VOLTAGE!r}),-3)"
DEFINITIONS = {
    "biamp": """.subckt biamp in out gain=1
E1 a 0 in 0 {gain}
V1 a out 0
F1 in 0 V1 {1/gain}
.ends biamp""",
    "ideal_diode": """.subckt ideal_diode anode cathode
V1 anode a 0
B1 a cathode V=v(z)-max(v(z),0)
F1 0 z V1 1
B2 z 0 I=1e-3*max(v(z),0)
.ends ideal_diode""",
    **{kind: form.definition(kind) for kind, form in FORMS.items()},
    "shockley": f""".subckt shockley anode cathode is=1e-14 n=1
.model junction D(IS={{is}} N={{n}})
D1 anode cathode junction
B1 anode cathode I={{is}}*(exp({_REVERSE})+{(3 / math.e) ** 3!r}/({_REVERSE}*{_REVERSE}*{_REVERSE}))
.ends shockley""",
}
"""A bidirectional amplifier senses the current that its output delivers and draws 1/gain of it from its input. An
ideal diode has a node z of its own: v = min(z, 0) across it and i = 1 mS max(z, 0) through it, which is its law
exactly (one of v <= 0 and i >= 0 is zero) in a form that Newton's method can follow. Shockley's law is a diode and
what ngspice's lacks of it in reverse (`hardware_models.spice.ngspice`); ngspice drops braces about products in B
sources, so that none stand there."""
SUBCIRCUITS = {"amplifier": "biamp", "ideal_diode": "ideal_diode", **{kind: kind for kind in FORMS}}
"""Kinds of parts that netlists have as instances of definitions."""
LEAST_CURRENT = 1e-28
"""Amperes: what ngspice makes of a model's IS that is less; cold diodes of large gaps have less."""
NO_BREAKDOWN = 1e30
"""Volts: what is written where a spice_diode has neither breakdown nor anything else that a diode lacks."""
_BAD_NODE = re.compile(r"[\s(),=;{}'\"$]|//|^[.*+]")


def netlist_lines(
    parts: Parts, title: str = "circuit", outputs: Sequence[str] = (), inputs: Sequence[str] = ()
) -> Iterator[str]:
    """Lines of a netlist, without .end.

    Parameters
    ----------
    parts : Parts
    title : str
    outputs : sequence of str
        Outputs named in a comment, for the reader: nodes, and differences v(a,b).
    inputs : sequence of str
        Voltage sources named in a comment, likewise.

    Yields
    ------
    str

    Raises
    ------
    InputError
        If a name has characters that netlists have no place for, or two differ only in case.
    """
    parts, gates = released_gates(parts)
    _check_names("node", parts.nodes)
    yield "* " + " ".join(title.split())
    if outputs:
        yield "* outputs: " + " ".join(outputs)
    if inputs:
        yield "* inputs: " + " ".join(n if n[:1] in "vV" else f"V{n}" for n in inputs)
    if gates:
        yield "* gates: " + " ".join(gates)
    yield from part_lines(parts)
    if parts.initial:
        yield ".ic " + " ".join(f"v({node})={float(volts)!r}" for node, volts in parts.initial.items())
    yield from definition_lines(parts)


def part_lines(parts: Parts) -> Iterator[str]:
    """Lines of the parts alone, kind by kind, and of their models."""
    names = part_names(parts)
    nodes = np.array(parts.nodes, dtype=object)
    for kind, group in parts.groups.items():
        yield from _WRITERS[kind](names[kind], nodes[group.nodes].tolist(), group, names)


def definition_lines(parts: Parts, written_by: Mapping[str, str] | None = None) -> Iterator[str]:
    """Yield the lines of subcircuits that stand for parts which SPICE has no element for, for the kinds in `parts`.
    `written_by` maps a kind to the name of its subcircuit in `DEFINITIONS`; by default it is `SUBCIRCUITS`."""
    for kind, name in (SUBCIRCUITS if written_by is None else written_by).items():
        if kind in parts.groups:
            yield from DEFINITIONS[name].split("\n")


def part_names(parts: Parts) -> dict[str, list[str]]:
    """SPICE names of all parts by kind: with the element's letter in front where it is missing."""
    found = {}
    for kind, group in parts.groups.items():
        letter = LETTERS[kind]
        found[kind] = [n if n[:1].upper() == letter else letter + n for n in group.names]
    _check_names("part", [n for names in found.values() for n in names])
    return found


def resistances(conductances: np.ndarray) -> np.ndarray:
    """Ohms for siemens such that 1 / ohms is the same number of siemens again, where there is such a number."""
    best = 1 / conductances
    for trial in (np.nextafter(best, 0), np.nextafter(best, np.inf)):
        best = np.where((1 / best != conductances) & (1 / trial == conductances), trial, best)
    return best


def _check_names(what: str, names: Sequence[str]) -> None:
    lowered: dict[str, str] = {}
    for name in names:
        if not name or _BAD_NODE.search(name):
            raise argument_error(
                f"{what} name", "have no blanks, quotes, // or any of (),=;{}$, nor begin with . * or +", repr(name)
            )
        low = "0" if name.lower() == "gnd" else name.lower()
        if low in lowered:
            raise argument_error(f"{what} names", "differ in more than case", f"{lowered[low]!r} and {name!r}")
        lowered[low] = name


def _across(first: str, second: str) -> str:
    """The voltage between two nodes in an expression."""
    return f"v({first},{second})" if second != GROUND else f"v({first})"


Names = dict[str, list[str]]


def _resistors(names: list[str], nodes: list, group: Group, every: Names) -> Iterator[str]:
    ohms = resistances(group.values[:, 0]).tolist()
    return (f"{n} {a} {b} {r!r}" for n, (a, b), r in zip(names, nodes, ohms, strict=True))


def _sources(names: list[str], nodes: list, group: Group, every: Names) -> Iterator[str]:
    rows = zip(names, group.names, nodes, group.values[:, 0].tolist(), strict=True)
    for name, own, (a, b), value in rows:
        yield f"{name} {a} {b} DC {value!r}{source_text(group, own)}"


def source_text(group: Group, name: str) -> str:
    """What follows the value of a source: its small signal and its waveform, with a blank before each."""
    text = wave_text(group.waveforms.get(name, ()))
    if name in group.ac:
        size, angle = cmath.polar(group.ac[name])
        text = f" AC {size!r} {math.degrees(angle)!r}{text}"
    return text


def wave_text(waveform: Waveform) -> str:
    """PULSE(...) or PWL(...) of a source, with a blank before it; nothing for a constant one."""
    if isinstance(waveform, Pulse):
        w = waveform
        if not (w.rise and w.fall and w.width):
            raise argument_error("edges and width of a Pulse", "be positive in a netlist", w)
        numbers = [w.low, w.high, w.delay, w.rise, w.fall]
        numbers += [0.0 if math.isinf(t) else t for t in (w.width, w.period)]
        return " PULSE(" + " ".join(repr(float(v)) for v in numbers) + (f" {w.count}" if w.count else "") + ")"
    if isinstance(waveform, Sine | Decay):
        name = "SIN" if isinstance(waveform, Sine) else "EXP"
        return f" {name}(" + " ".join(repr(float(v)) for v in astuple(waveform)) + ")"
    return " PWL(" + " ".join(f"{float(t)!r} {float(v)!r}" for t, v in waveform) + ")" if waveform else ""


def _storing(names: list[str], nodes: list, group: Group, every: Names) -> Iterator[str]:
    for name, own, (a, b), (value,) in zip(names, group.names, nodes, group.values.tolist(), strict=True):
        initial = f" IC={float(group.initial[own])!r}" if own in group.initial else ""
        yield f"{name} {a} {b} {value!r}{initial}"


def _diodes(names: list[str], nodes: list, group: Group, every: Names) -> Iterator[str]:
    models: dict[tuple[float, float], str] = {}
    for name, (a, b), values in zip(names, nodes, group.values.tolist(), strict=True):
        key = (values[0], values[1])
        if key not in models:
            models[key] = f"diode{len(models) + 1}"
            yield f".model {models[key]} D(IS={max(key[0], LEAST_CURRENT)!r} N={key[1]!r})"
        yield f"{name} {a} {b} {models[key]}{_small_area(key[0])}"


def _spice_diodes(names: list[str], nodes: list, group: Group, every: Names) -> Iterator[str]:
    models: dict[tuple[float, ...], str] = {}
    for name, (a, b), values in zip(names, nodes, group.values.tolist(), strict=True):
        key = tuple(values)
        if key not in models:
            models[key] = f"spice_diode{len(models) + 1}"
            current, n, breakdown, steep, knee, recombining, slow, potential, grading = key
            area = min(current / LEAST_CURRENT, 1.0)
            current, knee, recombining = max(current, LEAST_CURRENT), knee / area, recombining / area
            text = f"IS={current!r} N={n!r} VJ={potential!r} M={grading!r}"
            if breakdown or not (knee or recombining):
                text += f" BV={breakdown or NO_BREAKDOWN!r} IBV=0 NBV={steep!r}"  # IBV=0: breakdown begins at BV
            text += f" IKF={knee!r}" if knee else ""
            text += f" ISR={recombining!r} NR={slow!r}" if recombining else ""
            yield f".model {models[key]} D({text})"
        yield f"{name} {a} {b} {models[key]}{_small_area(key[0])}"


def _small_area(current: float) -> str:
    """AREA of a diode whose saturation current is below the least that ngspice's models have."""
    return f" AREA={current / LEAST_CURRENT!r}" if current < LEAST_CURRENT else ""


def _behavioural_voltages(names: list[str], nodes: list, group: Group, every: Names) -> Iterator[str]:
    rows = zip(names, nodes, group.expressions, strict=True)
    return (f"{name} {a} {b} V={_told(text, every)}" for name, (a, b), text in rows)


def _behavioural_currents(names: list[str], nodes: list, group: Group, every: Names) -> Iterator[str]:
    rows = zip(names, nodes, group.expressions, strict=True)
    return (f"{name} {a} {b} I={_told(text, every)}" for name, (a, b), text in rows)


def _told(text: str, every: Names) -> str:
    """An expression with the names that parts have in the netlist."""
    if "i(" not in text:
        return text

    def part(name: str) -> str:
        known = (n for kind in SETTING for n in every.get(kind, ()) if name in (n, n[1:]))
        return next(known, name)

    return written(syntax_tree(text, number), Scope(), str, part, text)


def _piecewise(names: list[str], nodes: list, group: Group, every: Names) -> Iterator[str]:
    for name, (a, b), (on, threshold, leak) in zip(names, nodes, group.values.tolist(), strict=True):
        v = _across(a, b) if a != GROUND else f"(-{_across(b, a)})"
        yield f"{name} {a} {b} I={leak!r}*{v}+{on!r}*max({v}-{threshold!r},0)"


def _memristors(names: list[str], nodes: list, group: Group, every: Names) -> Iterator[str]:
    for name, (a, b), (g, v0) in zip(names, nodes, group.values.tolist(), strict=True):
        v = _across(a, b) if a != GROUND else f"(-{_across(b, a)})"
        yield f"{name} {a} {b} I={g!r}*{v0!r}*sinh({v}/{v0!r})"


def _rectifiers(names: list[str], nodes: list, group: Group, every: Names) -> Iterator[str]:
    for name, (a, b, c, d), (gain,) in zip(names, nodes, group.values.tolist(), strict=True):
        v = _across(c, d) if c != GROUND else f"-{_across(d, c)}"
        yield f"{name} {a} {b} V={gain!r}*max({v},0)"


def _four_terminal(names: list[str], nodes: list, group: Group, every: Names) -> Iterator[str]:
    values = group.values[:, 0].tolist()
    return (f"{n} {' '.join(at)} {v!r}" for n, at, v in zip(names, nodes, values, strict=True))


def _current_controlled(names: list[str], nodes: list, group: Group, every: Names) -> Iterator[str]:
    # A source's name may have got its letter.
    for name, (a, b), control, (gain,) in zip(names, nodes, group.controls, group.values.tolist(), strict=True):
        source = control if control[:1] in "vV" else f"V{control}"
        yield f"{name} {a} {b} {source} {gain!r}"


def _amplifiers(names: list[str], nodes: list, group: Group, every: Names) -> Iterator[str]:
    values = group.values[:, 0].tolist()
    return (f"{n} {a} {b} biamp gain={v!r}" for n, (a, b), v in zip(names, nodes, values, strict=True))


def _moving_memristors(kind: str) -> Callable[[list[str], list, Group, Names], Iterator[str]]:
    def lines(names: list[str], nodes: list, group: Group, every: Names) -> Iterator[str]:
        for name, (a, b), values in zip(names, nodes, group.values.tolist(), strict=True):
            given = zip(FORMS[kind].parameters, values, strict=True)
            yield f"{name} {a} {b} {kind} " + " ".join(f"{parameter}={value!r}" for parameter, value in given)

    return lines


def _n_transistors(names: list[str], nodes: list, group: Group, every: Names) -> Iterator[str]:
    return transistor_lines(names, nodes, group, "nmos")


def _p_transistors(names: list[str], nodes: list, group: Group, every: Names) -> Iterator[str]:
    return transistor_lines(names, nodes, group, "pmos")


def _ideal_diodes(names: list[str], nodes: list, group: Group, every: Names) -> Iterator[str]:
    return (f"{n} {a} {b} ideal_diode" for n, (a, b) in zip(names, nodes, strict=True))


_WRITERS = {
    "resistor": _resistors,
    "memristor": _memristors,
    **{kind: _moving_memristors(kind) for kind in FORMS},
    "diode": _diodes,
    "spice_diode": _spice_diodes,
    "piecewise_diode": _piecewise,
    "ideal_diode": _ideal_diodes,
    "capacitor": _storing,
    "inductor": _storing,
    "voltage_source": _sources,
    "current_source": _sources,
    "vcvs": _four_terminal,
    "vccs": _four_terminal,
    "cccs": _current_controlled,
    "ccvs": _current_controlled,
    "amplifier": _amplifiers,
    "rectifier": _rectifiers,
    "nmos": _n_transistors,
    "pmos": _p_transistors,
    "behavioural_voltage": _behavioural_voltages,
    "behavioural_current": _behavioural_currents,
}
