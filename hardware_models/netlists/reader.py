"""Parts from the lines of a netlist: elements, models, parameters, subcircuits flattened."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from physics_ep.errors import InputError, unknown_name

from .lines import DEEPEST, Line, LineError, NetlistFile, NetlistSection, pairs, tokens
from .parts import GROUND, KINDS, Group, Parts
from .sources import behaviour, waveform
from .values import Scope, number
from .writer import DEFINITIONS

BUILT_IN = {
    "biamp": ("in", "out", "gain"),
    "ideal_diode": ("anode", "cathode"),
}
"""Subcircuits that are parts of their own; netlists may use them without a definition, or with the writer's."""
DIODE_DC = {"is": 1e-14, "n": 1.0}
DIODE_NEUTRAL = {
    *("cjo", "cj0", "cj", "tt", "vj", "pb", "m", "mj", "fc", "eg", "xti", "kf", "af", "cjp", "cjsw", "php", "mjsw"),
    *("fcs", "tnom", "level", "vp", "tref"),
}
"""Parameters of a diode model that leave its direct current at 27 degrees Celsius as it is."""


class Builder:
    """Collects parts as plain rows, and lays them out as `Parts`.

    Attributes
    ----------
    initial : dict of str to float
        Voltages of capacitors with IC=, by part name.
    notes : dict of str to None
        What was read over, in order.
    """

    def __init__(self, source: NetlistFile) -> None:
        self.source = source
        self.scope = Scope(source.top.parameters)
        self.index = {GROUND: 0, "gnd": 0}
        self.nodes = [GROUND]
        self.rows: dict[str, tuple[list, list, list]] = {}
        self.waveforms: dict[str, dict] = {}
        self.controls: list[tuple[str, Line]] = []
        self.names: dict[str, str] = {}
        self.initial: dict[str, float] = {}
        self.notes: dict[str, None] = {}

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

    def parts(self) -> Parts:
        """All parts."""
        if not self.rows:
            raise InputError("the netlist has no parts")
        groups = {}
        sources = {n.lower(): n for n in self.rows.get("voltage_source", ([],))[0]}
        for kind, (names, nodes, values) in self.rows.items():
            controls: tuple[str, ...] = ()
            if kind == "cccs":
                for control, line in self.controls:
                    if control.lower() not in sources:
                        raise line.error(unknown_name("control", control, sources.values()))
                controls = tuple(sources[c.lower()] for c, _ in self.controls)
            layout = np.array(values, dtype=np.float64).reshape(len(names), -1)
            found = np.array(nodes, dtype=np.int64)
            groups[kind] = Group(tuple(names), found, layout, controls, self.waveforms.get(kind, {}))
        return Parts(tuple(self.nodes), groups)


class Level:
    """The netlist's top, or one subcircuit instance: names and nodes get its path, parameters its values.

    Parameters
    ----------
    builder : Builder
    section : NetlistSection
    path : str
        "" at the top, "x1." within X1 and so on.
    ports : dict of str to str
        Node of the circuit for each port of the subcircuit.
    scope : Scope
    """

    def __init__(
        self, builder: Builder, section: NetlistSection, path: str, ports: dict[str, str], scope: Scope
    ) -> None:
        self.builder, self.section, self.path, self.ports, self.scope = builder, section, path, ports, scope

    def node(self, name: str) -> str:
        low = name.lower()
        if not self.path or low in (GROUND, "gnd") or low in self.builder.source.globals:
            return name
        return self.ports.get(low) or self.path + name

    def name(self, name: str) -> str:
        """As ngspice names flattened parts: r.x1.r1."""
        return f"{name[0]}.{self.path}{name}" if self.path else name

    def read(self) -> None:
        """Add every element of the section."""
        for line in self.section.elements:
            try:
                self.element(line)
            except LineError:
                raise
            except InputError as error:
                raise line.error(error) from None
            except OverflowError:  # of exact arithmetic in B sources
                raise line.error("a number is not finite") from None

    def element(self, line: Line) -> None:
        text = line.text
        if text[0] in "rR" and "=" not in text:
            words = text.split()
            if len(words) == 4 and "(" not in text and "'" not in text:
                self.resistor(line, words)  # the commonest line by far, the short way
                return
        read = READERS.get(text[0].lower())
        if read is None:
            raise line.error(unknown_name("element", text[0].upper(), {k.upper() for k in READERS}))
        read(self, line, tokens(text))

    def value(self, text: str) -> float:
        found = self.scope.value(text)
        if not math.isfinite(found):
            raise InputError(f"{text!r} is not finite")
        return found

    def add(self, line: Line, kind: str, name: str, nodes: list[str], values: list[float]) -> None:
        for value, (what, unit, least) in zip(values, KINDS[kind].values, strict=True):
            if not math.isfinite(value) or (least is not None and not value > least):
                must = "be finite" if least is None else f"be {'positive' if least == 0 else 'not negative'}"
                raise line.error(f"the {what} must {must}, but was {value:g} {unit}".rstrip())
        self.builder.add(line, kind, self.name(name), [self.node(n) for n in nodes], values)

    def resistor(self, line: Line, words: list[str]) -> None:
        if len(words) == 6 and words[3].lower() in ("r", "resistance") and words[4] == "=":
            words = [*words[:3], words[5]]
        _length(line, words, 4, "NAME NODE NODE OHMS")
        resistance = self.scope.value(words[3])
        if not 0 < resistance < math.inf or not 0 < 1 / resistance < math.inf:
            raise line.error(f"the resistance must be positive and finite, but was {words[3]}")
        nodes = [self.node(words[1]), self.node(words[2])]
        self.builder.add(line, "resistor", self.name(words[0]), nodes, [1 / resistance])

    def capacitor(self, line: Line, words: list[str]) -> None:
        if len(words) > 4 and words[4].lower() == "ic" and len(words) == 7:
            self.builder.initial[self.name(words[0])] = self.value(words[6])
            words = words[:4]
        _length(line, words, 4, "NAME NODE NODE FARADS [IC=VOLTS]")
        self.add(line, "capacitor", words[0], words[1:3], [self.value(words[3])])

    def diode(self, line: Line, words: list[str]) -> None:
        area = 1.0
        if len(words) >= 5 and words[-1].lower() == "off":
            words = words[:-1]
        if len(words) == 7 and words[4].lower() == "area":
            area = self.value(words[6])
        elif len(words) == 5:
            area = self.value(words[4])
        else:
            _length(line, words, 4, "NAME ANODE CATHODE MODEL [AREA]")
        current, emission = self.diode_model(line, words[3])
        self.add(line, "diode", words[0], words[1:3], [current * area, emission])

    def diode_model(self, line: Line, name: str) -> tuple[float, float]:
        """Saturation current and emission coefficient of a model."""
        top = self.builder.source.top
        local = name.lower() in self.section.models
        known = self.section.models if local else top.models
        if name.lower() not in known:
            raise line.error(unknown_name("model", name, {*self.section.models, *top.models}))
        model = known[name.lower()]
        words = tokens(model.text)
        if words[2].lower() != "d":
            raise model.error(f"model {name!r} is of type {words[2]}, but a diode needs D")
        given = pairs(model, words[3:])
        if "rs" in given and self.scope.value(given["rs"]) == 0:
            del given["rs"]
        unknown = [p for p in given if p not in DIODE_DC and p not in DIODE_NEUTRAL]
        if unknown:
            raise model.error(
                f"diode models have IS and N here, but {unknown[0].upper()} changes the current too: leave it out"
            )
        for key in ("tnom", "tref"):
            if key in given and self.scope.value(given[key]) != 27:
                raise model.error("diodes are at 27 degrees Celsius here")
        over = sorted({p.upper() for p in given if p in DIODE_NEUTRAL} - {"TNOM", "TREF", "LEVEL"})
        if over:
            self.builder.notes[f"model {name}: {', '.join(over)} left out, which no direct current needs"] = None
        try:
            found = [self.value(given[p]) if p in given else default for p, default in DIODE_DC.items()]
        except InputError as error:
            raise model.error(error) from None
        return found[0], found[1]

    def source(self, line: Line, words: list[str]) -> None:
        kind = "voltage_source" if words[0][0] in "vV" else "current_source"
        rest, constant, points = words[3:], None, None
        if len(words) < 3:
            raise line.error("a source is NAME NODE NODE [DC] VALUE [PWL(...) | PULSE(...)]")
        while rest:
            word = rest[0].lower()
            if word == "dc":
                rest = rest[2:] if rest[1:2] == ["="] else rest[1:]
                if not rest:
                    raise line.error("DC must be followed by a value")
            elif word == "ac":
                rest = rest[1:]
                while rest and rest[0][0] in "0123456789.+-{'":
                    rest = rest[1:]
            elif word[0].isalpha():
                given = [self.value(t) for t in rest[1:]]
                points, rest = self.wave(word, given), []
            elif constant is None:
                constant, rest = self.value(rest[0]), rest[1:]
            else:
                raise line.error(f"{rest[0]!r} is one word too many")
        if constant is None:
            constant = points[0][1] if points else 0.0
        self.add(line, kind, words[0], words[1:3], [constant])
        if points:
            self.builder.waveforms.setdefault(kind, {})[self.name(words[0])] = tuple(points)

    def wave(self, name: str, given: list[float]) -> list[tuple[float, float]]:
        times = [number(t) for t in self.builder.source.transient if t[0] in "0123456789."]
        return waveform(name, given, times[1] if len(times) > 1 else None, times[0] if times else None)

    def controlled(self, line: Line, words: list[str]) -> None:
        quantity = "v" if words[0][0] in "eE" else "i"
        if "=" in words or any(w.lower() in ("value", "vol", "cur", "poly", "table") for w in words[3:]):
            head, equals, expression = line.text.partition("=")
            if not equals or head.split()[-1].lower() not in ("value", "vol", "cur"):
                raise line.error("a controlled source is NAME OUT+ OUT- CONTROL+ CONTROL- GAIN")
            self.behavioural(line, words, quantity, expression)
            return
        _length(line, words, 6, "NAME OUT+ OUT- CONTROL+ CONTROL- GAIN")
        self.add(line, "vcvs" if quantity == "v" else "vccs", words[0], words[1:5], [self.value(words[5])])

    def current_controlled(self, line: Line, words: list[str]) -> None:
        _length(line, words, 5, "NAME OUT+ OUT- VSOURCE GAIN")
        self.add(line, "cccs", words[0], words[1:3], [self.value(words[4])])
        self.builder.controls.append((self.name(words[3]), line))

    def b_source(self, line: Line, words: list[str]) -> None:
        head, equals, expression = line.text.partition("=")
        quantity = head.split()[-1].lower() if len(head.split()) == 4 else ""
        if not equals or quantity not in ("v", "i"):
            raise line.error("a B source is NAME NODE NODE V=EXPRESSION or I=EXPRESSION")
        self.behavioural(line, words, quantity, expression)

    def behavioural(self, line: Line, words: list[str], quantity: str, expression: str) -> None:
        expression = expression.strip()
        if expression[:1] in "{'" and expression[-1:] in "}'":
            expression = expression[1:-1]
        kind, nodes, values = behaviour(quantity, expression, (words[1], words[2]), self.scope)
        self.add(line, kind, words[0], nodes, values)

    def instance(self, line: Line, words: list[str]) -> None:
        words = [w for w in words if w.lower() != "params:"]
        first = words.index("=") - 1 if "=" in words else len(words)
        head, given = words[:first], pairs(line, words[first:])
        if len(head) < 3:
            raise line.error("a subcircuit is NAME NODE ... SUBCIRCUIT [PARAMETER=VALUE ...]")
        name, nodes, kind = head[0], head[1:-1], head[-1].lower()
        section = self.builder.source.subcircuits.get(kind)
        if kind in BUILT_IN and (section is None or is_built_in(kind, section)):
            _ports(line, nodes, 2)
            values = []
            if kind == "biamp":
                if "gain" not in given:
                    raise line.error("biamp needs gain=VALUE")
                values = [self.scope.value(given["gain"])]
            self.add(line, "amplifier" if kind == "biamp" else kind, name, nodes, values)
            return
        if section is None:
            raise line.error(unknown_name("subcircuit", head[-1], {*self.builder.source.subcircuits, *BUILT_IN}))
        _ports(line, nodes, len(section.ports))
        if self.path.count(".") >= DEEPEST:
            raise line.error(f"subcircuit {head[-1]!r} lies within itself, or too deep")
        unknown = [p for p in given if p not in section.parameters]
        if unknown:
            raise line.error(unknown_name(f"parameter of {head[-1]}", unknown[0], section.parameters))
        values_here = {p: repr(self.scope.value(text, bare=True)) for p, text in given.items()}
        ports = dict(zip(section.ports, (self.node(n) for n in nodes), strict=True))
        scope = Scope({**section.parameters, **values_here}, self.builder.scope)
        Level(self.builder, section, f"{self.path}{name}.", ports, scope).read()


def _length(line: Line, words: list[str], count: int, form: str) -> None:
    if len(words) != count:
        raise line.error(f"expected {form}, but found {len(words)} words")


def _ports(line: Line, nodes: list[str], count: int) -> None:
    if len(nodes) != count:
        raise line.error(f"the subcircuit has {count} nodes, but {len(nodes)} are given")


def is_built_in(kind: str, section: NetlistSection) -> bool:
    """Whether a definition says what the writer's definition of `kind` says."""
    body = DEFINITIONS[kind].lower().split("\n")[1:-1]
    return [" ".join(line.text.lower().split()) for line in section.elements] == body


READERS: dict[str, Callable[[Level, Line, list[str]], None]] = {
    "r": Level.resistor,
    "c": Level.capacitor,
    "d": Level.diode,
    "v": Level.source,
    "i": Level.source,
    "e": Level.controlled,
    "g": Level.controlled,
    "f": Level.current_controlled,
    "b": Level.b_source,
    "x": Level.instance,
}
"""Element letters that are read."""
