"""Parts from the lines of a netlist: elements, models, parameters, subcircuits flattened."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from physics_ep.errors import InputError, unknown_name

from ..laws.elements import BOLTZMANN, CHARGE
from .lines import DEEPEST, Line, LineError, NetlistFile, NetlistSection, pairs, tokens
from .options import LEAST_GMIN, circuit_options
from .parts import GROUND, KINDS, Group, Parts
from .pulses import Pulse, Waveform
from .sources import behaviour, waveform
from .values import Scope
from .waveforms import value_at_zero
from .writer import DEFINITIONS

BUILT_IN = {
    "biamp": ("in", "out", "gain"),
    "ideal_diode": ("anode", "cathode"),
}
"""Subcircuits that are parts of their own; netlists may use them without a definition, or with the writer's."""
DIODE_DC = {"is": 1e-14, "n": 1.0, "eg": 1.11, "xti": 3.0}
"""Saturation current, emission coefficient, activation energy (eV) and temperature exponent, by default."""
DIODE_NEUTRAL = {
    *("cjo", "cj0", "cj", "tt", "vj", "pb", "m", "mj", "fc", "kf", "af", "cjp", "cjsw", "php", "mjsw", "fcs", "vp"),
}
"""Parameters of a diode model that leave its direct current as it is."""
CELSIUS = 273.15
NOMINAL = 27.0
"""Degrees Celsius at which parts of this package are given."""
MOST_GROWTH = 700.0
"""Logarithm of what a temperature may multiply a saturation current by."""


class Builder:
    """Collects parts as plain rows, and lays them out as `Parts`.

    Attributes
    ----------
    initial : dict of str to float
        Voltages of capacitors with IC=, by part name.
    options : dict of str to (float, Line)
        Options that change the circuit.
    notes : dict of str to None
        What was read over, in order.
    """

    def __init__(self, source: NetlistFile) -> None:
        self.source = source
        self.scope = Scope(source.top.parameters)
        self.options = circuit_options(source, self.scope)
        self.index = {GROUND: 0, "gnd": 0}
        self.nodes = [GROUND]
        self.rows: dict[str, tuple[list, list, list]] = {}
        self.waveforms: dict[str, dict] = {}
        self.controls: list[tuple[str, Line]] = []
        self.names: dict[str, str] = {}
        self.initial: dict[str, float] = {}
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

    def parts(self) -> Parts:
        """All parts."""
        if not self.rows:
            raise InputError("the netlist has no parts")
        self._shunt()
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
            initial = self.initial if kind == "capacitor" else {}
            groups[kind] = Group(tuple(names), found, layout, controls, self.waveforms.get(kind, {}), initial)
        return Parts(tuple(self.nodes), groups, self._held())

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
        if gmin >= LEAST_GMIN and "diode" in self.rows:
            names, nodes, _ = self.rows["diode"]
            self._extra("resistor", "Rgmin", [f"_{name}" for name in names], nodes, gmin)

    def _extra(self, kind: str, start: str, ends: list[str], nodes: list, value: float) -> None:
        while any((start + end).lower() in self.names for end in ends):
            start += "_"
        rows = self.rows.setdefault(kind, ([], [], []))
        rows[0].extend(start + end for end in ends)
        rows[1].extend(nodes)
        rows[2].extend([value] for _ in ends)


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
        if text[0] in "rR" and "=" not in text and "," not in text:
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
        words, area = [w for k, w in enumerate(words) if k < 4 or w.lower() != "off"], "1"
        if len(words) > 4 and words[5:6] != ["="]:
            area = words.pop(4)
        if len(words) < 4 or (len(words) > 4 and words[5:6] != ["="]):
            _length(line, words, 4, "NAME ANODE CATHODE MODEL [AREA] [TEMP=CELSIUS]")
        given = pairs(line, words[4:])
        unknown = [p for p in given if p not in ("area", "m", "temp", "dtemp", "ic")]
        if unknown:
            raise line.error(f"diodes have no parameter {unknown[0].upper()} here")
        size = self.value(given.get("area", area)) * self.value(given.get("m", "1"))
        celsius = self.builder.option("temp", NOMINAL)
        celsius = self.value(given["temp"]) if "temp" in given else celsius + self.value(given.get("dtemp", "0"))
        if not celsius > -CELSIUS:
            raise line.error(f"the temperature must be above -273.15 degrees Celsius, but was {celsius:g}")
        current, emission = self.diode_model(line, words[3], celsius)
        self.add(line, "diode", words[0], words[1:3], [current * size, emission])

    def diode_model(self, line: Line, name: str, celsius: float) -> tuple[float, float]:
        """Saturation current and emission coefficient of a model at a temperature.

        The laws of this package have kT/q at 27 degrees Celsius: another temperature is in the emission
        coefficient, and in the saturation current, Is (T/Tn)^(xti/n) exp((T/Tn - 1) eg / (n kT/q)), as in ngspice.
        """
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
        unknown = [p for p in given if p not in (*DIODE_DC, *DIODE_NEUTRAL, "tnom", "tref", "level")]
        if unknown:
            raise model.error(
                f"diode models have IS and N here, but {unknown[0].upper()} changes the current too: leave it out"
            )
        over = sorted({p.upper() for p in given if p in DIODE_NEUTRAL})
        if over:
            self.builder.notes[f"model {name}: {', '.join(over)} left out, which no direct current needs"] = None
        values = {p: model.check(self.scope.value, text) for p, text in given.items() if p not in DIODE_NEUTRAL}
        if values.pop("level", 1.0) != 1:
            raise model.error("diodes are of level 1 here")
        nominal = values.pop("tref", values.pop("tnom", self.builder.option("tnom", NOMINAL)))
        current, emission, energy, exponent = (values.get(p, default) for p, default in DIODE_DC.items())
        if celsius == nominal == NOMINAL:
            return current, emission
        hot, cold = celsius + CELSIUS, nominal + CELSIUS
        if not (cold > 0 and emission > 0):
            raise model.error("the nominal temperature and N must be positive")
        self.builder.notes[
            f"diodes at {celsius:g} degrees Celsius: their N and IS here are those that behave so at 27"
        ] = None
        ratio = hot / cold
        growth = (ratio - 1) * energy * CHARGE / (emission * BOLTZMANN * hot) + exponent / emission * math.log(
            ratio
        )
        if growth > MOST_GROWTH:
            raise model.error(f"the saturation current is not finite at {celsius:g} degrees Celsius")
        return current * math.exp(growth), emission * hot / (NOMINAL + CELSIUS)

    def source(self, line: Line, words: list[str]) -> None:
        course: Waveform | None
        kind = "voltage_source" if words[0][0] in "vV" else "current_source"
        rest, constant, course = words[3:], None, None
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
            elif word[0].isalpha() and course is None:
                count = 1
                while count < len(rest) and not rest[count][0].isalpha() and rest[count + 1 : count + 2] != ["="]:
                    count += 1
                given, rest = [self.value(t) for t in rest[1:count]], rest[count:]
                delay = 0.0
                while rest[1:2] == ["="]:
                    if word != "pwl" or rest[0].lower() != "td" or len(rest) < 3:
                        raise line.error(f"{' '.join(rest[:3])!r} of {word.upper()} is not read")
                    delay, rest = self.value(rest[2]), rest[3:]
                course = waveform(word, given, self.builder.step)
                if delay and not isinstance(course, Pulse):
                    course = tuple((t + delay, v) for t, v in course)
            elif constant is None:
                constant, rest = self.value(rest[0]), rest[1:]
            else:
                raise line.error(f"{rest[0]!r} is one word too many")
        if constant is None:
            constant = value_at_zero(course) if course else 0.0
        self.add(line, kind, words[0], words[1:3], [constant])
        if course:
            self.builder.waveforms.setdefault(kind, {})[self.name(words[0])] = course

    def controlled(self, line: Line, words: list[str]) -> None:
        quantity = "v" if words[0][0] in "eE" else "i"
        if "=" in words or any(w.lower() in ("value", "vol", "cur", "poly", "table") for w in words[3:]):
            head, equals, expression = line.text.partition("=")
            if not equals or tokens(head)[-1].lower() not in ("value", "vol", "cur"):
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
        quantity = tokens(head)[-1].lower() if len(tokens(head)) == 4 else ""
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
