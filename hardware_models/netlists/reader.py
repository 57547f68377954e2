"""Parts from the lines of a netlist: elements, models, parameters, subcircuits flattened."""

from __future__ import annotations

import ast
import cmath
import difflib
import itertools
import math
import re
from collections.abc import Callable

from physics_ep.errors import InputError

from . import op_amps
from .behaviours import written
from .builder import Builder, unknown
from .expressions import is_probe
from .lines import Line, LineError, NetlistSection, pairs, tokens
from .memristors import FORMS, fault
from .models import CELSIUS, NOMINAL, DiodeModel, diode_model, diode_values, resistor_model, warmed
from .parts import BEHAVIOURAL, GROUND, KINDS
from .piecewise import piecewise
from .pulses import Waveform
from .sources import behaviour, waveform
from .switches import read_switch
from .transistors import read_transistor
from .values import Scope, number
from .waveforms import value_at_zero
from .writer import DEFINITIONS

BUILT_IN: dict[str, tuple[str, dict[str, str]]] = {
    "biamp": ("amplifier", {"gain": ""}),
    "ideal_diode": ("ideal_diode", {}),
    "shockley": ("diode", {"is": "", "n": ""}),
    **{kind: (kind, form.parameters) for kind, form in FORMS.items()},
}
"""Subcircuits that are parts of their own: the kind of part, what stands for its values, and defaults where no
definition is there. Netlists may use them without one, or with the writer's."""
LEAKY = 1e-9
"""Amperes of IS above which a note tells that ngspice leaves Shockley's law in reverse."""
SHORT = 1e-3
"""Ohms that ngspice makes of a resistance of 0."""
NOT_READ = {
    **dict.fromkeys(
        "qjz", "bipolar and junction transistors are not read: MOS ones (M), diodes and B sources would be"
    ),
    **dict.fromkeys("touyp", "lines are not read: R, L and C in a row would be"),
    "k": "coupled inductors are not read: single ones (L) would be",
    "a": "XSPICE's and LTspice's models are not read: B sources would be",
    "n": "compiled models are not read: B sources would be",
}
"""Element letters that are not read, and what would be."""


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
        The parameters: as in ngspice, an instance sees those of the instance that it stands in.
    copies : float
        How often the instance is there (M=), side by side.
    caller : Level or None
        The level that the instance stands in.
    """

    def __init__(
        self,
        builder: Builder,
        section: NetlistSection,
        path: str,
        ports: dict[str, str],
        scope: Scope,
        copies: float = 1.0,
        caller: Level | None = None,
    ) -> None:
        self.caller = caller
        self.builder, self.section, self.path, self.ports, self.scope = builder, section, path, ports, scope
        self.copies = copies

    def node(self, name: str) -> str:
        low = name.lower()
        if not self.path or low in (GROUND, "gnd") or low in self.builder.source.globals:
            return name
        return self.ports.get(low) or self.path + name

    def name(self, name: str) -> str:
        """Full name of a part of a subcircuit, as ngspice writes it: r.x1.r1."""
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
            except (OverflowError, ValueError):  # of exact arithmetic in B sources
                raise line.error("a number is not finite") from None
            except RecursionError:
                raise line.error("the expression has too many operators") from None

    def element(self, line: Line) -> None:
        text = line.text
        if '"' in text:
            raise line.error("double quotes are blanks to ngspice: names and values would be read without them")
        if text[0] in "rR" and self.copies == 1 and "=" not in text and "," not in text:
            words = text.split()
            if len(words) == 4 and "(" not in text and "'" not in text and words[3][0].isdigit():
                self.plain_resistor(line, words)  # the commonest line by far, the short way
                return
        letter = text[0].lower()
        read = READERS.get(letter)
        if read is None:
            if letter in NOT_READ:
                raise line.error(f"{tokens(text)[0]!r}: {NOT_READ[letter]}")
            raise line.error(f"{tokens(text)[0]!r} begins with no element's letter; read are {', '.join(READERS)}")
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
        if kind in FORMS and (wrong := fault(kind, values)):
            raise line.error(f"the {wrong[0]} must {wrong[1]}, but was {wrong[2]:g}")
        self.builder.add(line, kind, self.name(name), [self.node(n) for n in nodes], values)

    def undefined(self, line: Line, what: str, name: str, known: set[str]) -> LineError:
        """The error of a name that is not defined; it names a library that is not here."""
        absent = self.builder.source.absent
        hint = f" ({absent[0][:100]!r} is not here: copy its definition into the netlist)" if absent else ""
        return line.error(unknown(what, name, known) + hint)

    def note(self, text: str) -> None:
        """Tell the reader of the netlist something once."""
        self.builder.notes[text] = None

    def keywords(self, line: Line, words: list[str], known: tuple[str, ...], form: str) -> dict[str, str]:
        """NAME=VALUE behind an element's words; `known` are the names that it may have, in lower case."""
        given = pairs(line, words)
        for name in given:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f", did you mean {close[0].upper()}?" if close else ""
                raise line.error(f"{name.upper()}= is not read here{hint or f'; read is {form}'}")
        return given

    def split(self, line: Line, words: list[str], form: str) -> tuple[list[str], list[str]]:
        """Words before the first NAME=VALUE, and those from there on."""
        if "=" not in words:
            return words, []
        first = words.index("=") - 1
        if first < 1:
            raise line.error(f"'=' must not stand there; read is {form}")
        return words[:first], words[first:]

    def celsius(self, line: Line, given: dict[str, str]) -> float:
        """Temperature of an element: its own TEMP, or the circuit's and DTEMP."""
        found = self.builder.option("temp", NOMINAL)
        found = self.value(given["temp"]) if "temp" in given else found + self.value(given.get("dtemp", "0"))
        if not found > -CELSIUS:
            raise line.error(f"the temperature must be above -273.15 degrees Celsius, but was {found:g}")
        return found

    def multiple(self, line: Line, given: dict[str, str]) -> float:
        """M= of an element, 1 where there is none."""
        if "m" not in given:
            return 1.0
        self.alone(line, "M=")
        found = self.scope.value(given["m"])
        if not 0 < found < math.inf:
            raise line.error(f"M must be positive, but was {found:g}")
        return found

    def alone(self, line: Line, what: str) -> None:
        """Refuse what ngspice does not multiply, or only once, within a subcircuit that has M=."""
        if self.copies != 1:
            raise line.error(
                f"{what} in a subcircuit with M= is not read, since ngspice does not multiply it: the instances "
                "themselves would be"
            )

    # -- resistors, capacitors, inductors -----------------------------------------------------------------------

    def plain_resistor(self, line: Line, words: list[str]) -> None:
        self.conductor(line, words[0], words[1:3], self.ohms(words[3]), words[3])

    def ohms(self, text: str) -> float:
        """A resistance; 0 ohm is a milliohm, as in ngspice."""
        found = self.scope.value(text)
        if found == 0:
            self.note("resistors of 0 ohm have 1 milliohm, as in ngspice")
        return found or SHORT

    def conductor(self, line: Line, name: str, nodes: list[str], resistance: float, text: str) -> None:
        """Add a resistor whose ohms the text says."""
        resistance = resistance / self.copies
        if not 0 < resistance < math.inf or not 0 < 1 / resistance < math.inf:
            raise line.error(f"the resistance must be positive and finite, but was {text}")
        self.builder.add(line, "resistor", self.name(name), [self.node(n) for n in nodes], [1 / resistance])

    def resistor(self, line: Line, words: list[str]) -> None:
        form = "NAME NODE NODE OHMS [MODEL] [TC1= TC2= TC= TCE= TEMP= DTEMP= M= SCALE=]"
        coefficients: list[str] = []
        for k in range(len(words) - 2):
            if words[k].lower() == "tc" and words[k + 1] == "=":  # tc=FIRST,SECOND
                count = 1 if words[k + 4 : k + 5] == ["="] or len(words) < k + 4 else 2
                coefficients, words = words[k + 2 : k + 2 + count], words[:k] + words[k + 2 + count :]
                break
        head, rest = self.split(line, words, form)
        known = ("r", "resistance", "tc1", "tc2", "tce", "temp", "dtemp", "m", "scale", "ac", "noisy", "noise")
        given = self.keywords(line, rest, known, form)
        if "r" in given or "resistance" in given:
            head = [*head[:3], given.get("r", given.get("resistance", "")), *head[3:]]
        head, model, nominal = self.resistor_model(line, head)
        if len(head) == 3 and "r" in model:
            text = repr(model["r"])
        else:
            _length(line, head, 4, form)
            text = head[3]
        for name, place in (("tc1", 0), ("tc2", 1)):
            if len(coefficients) > place:
                given[name] = coefficients[place]
            if name in given:
                model[name] = self.value(given[name])
        exponential = self.value(given["tce"]) if "tce" in given else model.get("tce")
        nominal = self.builder.option("tnom", NOMINAL) if nominal is None else nominal
        change = self.celsius(line, given) - nominal
        resistance = warmed(self.ohms(text), change, model.get("tc1", 0.0), model.get("tc2", 0.0), exponential)
        resistance = resistance * self.value(given.get("scale", "1"))
        resistance /= self.multiple(line, given)
        self.conductor(line, head[0], head[1:3], resistance, f"{resistance:g} ohm ({text})")

    def scope_of(self, section: NetlistSection) -> Scope:
        """Parameters that models of a section are evaluated with: those of the instance of that section."""
        level: Level = self
        while level.section is not section and level.caller is not None:
            level = level.caller
        return level.scope

    def resistor_model(self, line: Line, head: list[str]) -> tuple[list[str], dict[str, float], float | None]:
        """Words without the model's name, and what the model says; a model may stand before the value or after."""
        for k in (3, 4):
            found = self.section.model(head[k].lower()) if len(head) > k else None
            if found is None:
                continue
            model, section = found
            kind = tokens(model.text)[2].lower()
            if kind not in ("r", "res"):
                raise line.error(f"model {head[k]!r} is of type {kind}, but a resistor needs R")
            values, nominal = resistor_model(model, self.scope_of(section).value)
            return head[:k] + head[k + 1 :], values, nominal
        return head, {}, None

    def storing(self, line: Line, words: list[str], kind: str, unit: str) -> None:
        """A capacitor or an inductor."""
        what = "VOLTS" if kind == "capacitor" else "AMPERES"
        form = f"NAME NODE NODE {unit} [IC={what}] [M= TC1= TC2= TEMP= DTEMP= SCALE=]"
        head, rest = self.split(line, words, form)
        letter = "c" if kind == "capacitor" else "l"
        long = "capacitance" if kind == "capacitor" else "inductance"
        known = (letter, long, "ic", "m", "tc1", "tc2", "temp", "dtemp", "scale")
        given = self.keywords(line, rest, known, form)
        if letter in given or long in given:
            head = [*head, given.get(letter, given.get(long, ""))]
        if len(head) > 3 and self.section.model(head[3 + (len(head) > 4)].lower()) is not None:
            raise line.error(f"models of {kind}s are not read: {form} would be read")
        _length(line, head, 4, form)
        count = self.multiple(line, given) * self.copies
        change = self.celsius(line, given) - self.builder.option("tnom", NOMINAL)
        tc1, tc2 = self.value(given.get("tc1", "0")), self.value(given.get("tc2", "0"))
        size = warmed(self.value(head[3]), change, tc1, tc2, None) * self.value(given.get("scale", "1"))
        if "ic" in given:
            self.builder.initial[self.name(head[0])] = self.value(given["ic"])
            if kind == "inductor":
                self.builder.initial[self.name(head[0])] *= count
        self.add(line, kind, head[0], head[1:3], [size * count if kind == "capacitor" else size / count])

    def capacitor(self, line: Line, words: list[str]) -> None:
        self.storing(line, words, "capacitor", "FARADS")

    def inductor(self, line: Line, words: list[str]) -> None:
        self.storing(line, words, "inductor", "HENRY")

    # -- diodes -------------------------------------------------------------------------------------------------

    def diode(self, line: Line, words: list[str]) -> None:
        form = "NAME ANODE CATHODE MODEL [AREA] [M= TEMP= DTEMP=]"
        words, area = [w for k, w in enumerate(words) if k < 4 or w.lower() != "off"], "1"
        head, rest = self.split(line, words, form)
        if len(head) == 5:
            area = head.pop(4)
        _length(line, head, 4, form)
        given = pairs(line, rest)
        foreign = [p for p in given if p not in ("area", "m", "temp", "dtemp", "ic")]
        if foreign:
            raise line.error(f"diodes have no parameter {foreign[0].upper()} here; read is {form}")
        size, count = self.value(given.get("area", area)), self.multiple(line, given) * self.copies
        if not size > 0:
            raise line.error(f"AREA must be positive, but was {size:g}")
        celsius = self.celsius(line, given)
        found = diode_values(self.diode_model(line, head[3]), celsius, size, count)
        if celsius != NOMINAL:
            self.note(f"diodes at {celsius:g} degrees Celsius: their N and IS here are those that behave so at 27")
        (name, anode, cathode), junction = head[:3], head[1]
        if found.resistance:
            junction = f"{name}.inside"
            ends = [self.node(anode), self.node(junction)]
            self.builder.beside(line, "resistor", f"R{self.name(name)}_rs", ends, 1 / found.resistance)
        kind = "diode" if len(found.law) == 2 else "spice_diode"
        self.add(line, kind, name, [junction, cathode], list(found.law))
        if kind == "diode" and found.law[0] > LEAKY:
            self.note(
                "diodes with IS and N alone follow Shockley's law: in reverse, ngspice has up to 5 % of IS more"
            )
        if found.capacitance:
            self.note("CJO is a constant capacitor here: VJ, M, FC and TT do not change it, as they do in ngspice")
            ends = [self.node(junction), self.node(cathode)]
            self.builder.beside(line, "capacitor", f"C{self.name(name)}_cj", ends, found.capacitance)

    def diode_model(self, line: Line, name: str) -> DiodeModel:
        found = self.section.model(name.lower())
        if found is None:
            raise self.undefined(line, "model", name, self.section.names("models"))
        model, section = found
        known = self.builder.models.get(id(model))
        if known is None or self.path:
            words = tokens(model.text)
            if words[2].lower() != "d":
                raise model.error(f"model {name!r} is of type {words[2]}, but a diode needs D")

            def passed_over(names: list[str]) -> None:
                for one in names:
                    self.builder.foreign[one] = None

            nominal = self.builder.option("tnom", NOMINAL)
            known = self.builder.models[id(model)] = diode_model(
                model, self.scope_of(section).value, nominal, passed_over, self.note
            )
        return known

    # -- sources ------------------------------------------------------------------------------------------------

    def source(self, line: Line, words: list[str]) -> None:
        course: Waveform | None
        kind = "voltage_source" if words[0][0] in "vV" else "current_source"
        rest, constant, course, count = words[3:], None, None, float(self.copies)
        amplitude: complex = 0.0
        if len(words) < 3:
            raise line.error("a source is NAME NODE NODE [DC] VALUE [PWL(...) | PULSE(...) | SIN(...) | EXP(...)]")
        while rest:
            word = rest[0].lower()
            if rest[1:2] == ["="] and word not in ("dc", "ac"):
                if word != "m" or kind == "voltage_source" or len(rest) < 3:
                    where = "LTspice's series resistor or capacitor: an R or C of its own would be read"
                    why = where if word in ("rser", "cpar") else "only M= of current sources is read"
                    raise line.error(f"{word.upper()}= is not read here: {why}")
                count, rest = count * self.multiple(line, {"m": rest[2]}), rest[3:]
            elif word == "dc":
                rest = rest[2:] if rest[1:2] == ["="] else rest[1:]
                if not rest:
                    raise line.error("DC must be followed by a value")
            elif word == "ac":
                rest = rest[2:] if rest[1:2] == ["="] else rest[1:]
                polar: list[float] = []
                while rest and len(polar) < 2 and (rest[0][0] in _NUMERIC or self.scope.knows(rest[0].lower())):
                    polar, rest = [*polar, self.value(rest[0])], rest[1:]
                polar += (1.0, 0.0)[len(polar) :]
                amplitude = cmath.rect(polar[0], math.radians(polar[1]))
            elif word in _WAVES and course is None:
                end = 1
                while end < len(rest) and rest[end].lower() not in _ENDS and rest[end + 1 : end + 2] != ["="]:
                    end += 1
                if word != "pwl" and end > 10:
                    raise line.error(f"{word.upper()} has {end - 1} values, which are too many")
                given, rest = [self.value(t) for t in rest[1:end]], rest[end:]
                delay = 0.0
                while rest[1:2] == ["="] and rest[0].lower() != "m":
                    if word != "pwl" or rest[0].lower() != "td" or len(rest) < 3:
                        raise line.error(f"{' '.join(rest[:3])!r} of {word.upper()} is not read")
                    delay, rest = self.value(rest[2]), rest[3:]
                course = waveform("sin" if word == "sine" else word, given, self.builder.step)
                if delay and isinstance(course, tuple):
                    course = tuple((t + delay, v) for t, v in course)
            elif constant is None and (word[0] in _NUMERIC or self.scope.knows(word)):
                constant, rest = self.value(rest[0]), rest[1:]
            elif word[0].isalpha() and constant is None and course is None:
                known = ", ".join(_WAVES).upper()
                raise line.error(f"{rest[0]!r} is not read: it is neither a number, a parameter nor one of {known}")
            else:
                raise line.error(f"{rest[0]!r} is one word too many")
        if constant is None:
            constant = value_at_zero(course) if course else 0.0
        if kind == "current_source" and count != 1:
            if course:
                raise line.error("M= of a source with a waveform is not read: multiply its values")
            constant *= count
            amplitude *= count
        if amplitude:
            self.builder.ac[self.name(words[0])] = amplitude
        self.add(line, kind, words[0], words[1:3], [constant])
        if course:
            self.builder.waveforms.setdefault(kind, {})[self.name(words[0])] = course

    def controlled(self, line: Line, words: list[str]) -> None:
        quantity = "v" if words[0][0] in "eE" else "i"
        low = [w.lower() for w in words]
        form = "NAME OUT+ OUT- CONTROL+ CONTROL- GAIN, or NAME OUT+ OUT- VALUE={EXPRESSION}"
        if len(words) > 3 and low[3] in ("value", "vol", "cur"):
            body = words[5:] if words[4:5] == ["="] else words[4:]
            whole = re.match(r"\S+\s+\S+\s+\S+\s+\w+\s*=?\s*(.*)", line.text)
            if not body or whole is None:
                raise line.error(f"an expression must follow {words[3]}: {form} would be read")
            self.behavioural(line, words, quantity, whole[1])
            return
        if len(words) > 3 and low[3] == "poly":
            self.polynomial(line, words, quantity)
            return
        for k, word in enumerate(low[3:], 3):
            if word in ("table", "laplace", "freq", "chebyshev") and (k == 3 or words[k + 1 : k + 2] == ["="]):
                raise line.error(
                    f"{word.upper()} is not read (ngspice rounds a table's corners): VALUE={{EXPRESSION}}, with "
                    "pwl(x, x0, y0, x1, y1, ...) for a table, would be"
                )
        head, rest = self.split(line, words, form)
        if len(head) > 3 and quantity == "i":
            given = self.keywords(line, rest, ("m",), form)
        else:
            given = self.keywords(line, rest, (), form)
        _length(line, head, 6, "NAME OUT+ OUT- CONTROL+ CONTROL- GAIN")
        gain = self.value(head[5]) * self.multiple(line, given)
        if quantity == "i":
            gain *= self.copies
        self.add(line, "vcvs" if quantity == "v" else "vccs", head[0], head[1:5], [gain])

    def polynomial(self, line: Line, words: list[str], quantity: str) -> None:
        """POLY(n): constant, linear terms, then products of two, three, ... in the order of SPICE 2."""
        text = words[4] if len(words) > 4 else ""
        count = int(text) if text.isdigit() else 0
        by_current = words[0][0] in "fFhH"
        each = 1 if by_current else 2
        controls, numbers = words[5 : 5 + each * count], words[5 + each * count :]
        if not 1 <= count <= 6 or len(numbers) < 2 or "=" in words:
            what = "voltage sources" if by_current else "pairs of nodes"
            raise line.error(f"POLY(n) with n {what}, and then at least two coefficients, would be read")
        inputs = [f"v({a},{b})" for a, b in zip(controls[::2], controls[1::2], strict=False)]
        if by_current:
            inputs = [f"i({name})" for name in controls]
        terms: list[str] = []
        for degree in itertools.count():
            for factors in itertools.combinations_with_replacement(inputs, degree):
                if len(terms) == len(numbers):
                    break
                terms.append("*".join([f"({self.value(numbers[len(terms)])!r})", *factors]))
            if len(terms) == len(numbers):
                break
        self.behavioural(line, words, quantity, "+".join(terms))

    def current_controlled(self, line: Line, words: list[str]) -> None:
        form = "NAME OUT+ OUT- VSOURCE GAIN"
        if len(words) > 3 and words[3].lower() == "poly":
            self.polynomial(line, words, "i" if words[0][0] in "fF" else "v")
            return
        head, rest = self.split(line, words, form)
        given = self.keywords(line, rest, ("m",) if words[0][0] in "fF" else (), form)
        _length(line, head, 5, form)
        gain = self.value(head[4]) * self.multiple(line, given)
        self.alone(line, "a source controlled by a current")
        kind = "ccvs" if words[0][0] in "hH" else "cccs"
        self.add(line, kind, head[0], head[1:3], [gain])
        self.builder.controls.setdefault(kind, []).append((self.name(head[3]), line))

    def b_source(self, line: Line, words: list[str]) -> None:
        head, equals, expression = line.text.partition("=")
        quantity = tokens(head)[-1].lower() if len(tokens(head)) == 4 else ""
        if not equals or quantity not in ("v", "i"):
            other = f", not {quantity.upper()}=" if quantity else ""
            raise line.error(f"a B source is NAME NODE NODE V=EXPRESSION or I=EXPRESSION{other}")
        factor = 1.0
        change = 0.0
        given: dict[str, str] = {}
        while (found := _behind(expression)) and len(given) < len(_BEHIND):
            name, text, expression = found
            given[name] = text
        if given:
            change = self.celsius(line, given) - self.builder.option("tnom", NOMINAL)
            tc1, tc2 = (self.value(given.get(name, "0")) for name in ("tc1", "tc2"))
            factor = warmed(1.0, change, tc1, tc2, None) * self.multiple(line, given)
            if "m" in given and quantity == "v":
                raise line.error("M= of a voltage is not read")
        self.behavioural(line, words, quantity, expression, factor)

    def behavioural(
        self, line: Line, words: list[str], quantity: str, expression: str, factor: float = 1.0
    ) -> None:
        expression = expression.strip()
        if not expression:
            raise line.error("an expression must follow '='")
        if (
            expression[:1] in "{'"
            and expression[-1:] in "}'"
            and expression.count(expression[0]) <= 1 + (expression[0] == "'")
        ):
            expression = expression[1:-1]
        tree = piecewise(self.scope.functions.expanded(expression, number), self.scope)
        if quantity == "i":
            if line.text[0] in "bB":
                self.alone(line, "a B source of a current")
            factor *= self.copies
        if any(is_probe(n) and n.func.id == "i" for n in ast.walk(tree)):  # type: ignore[attr-defined]
            self.alone(line, "a current in an expression")
        if factor != 1:
            tree = ast.BinOp(ast.Constant(factor), ast.Mult(), tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow) and not _even(node.right):
                self.note("x**y and x^y are |x|**y in B sources, as in ngspice, whatever the sign of x")
        simple = behaviour(quantity, tree, expression, (words[1], words[2]), self.scope)
        if simple is not None:
            kind, nodes, values = simple
            self.add(line, kind, words[0], nodes, values)
            return
        text = written(tree, self.scope, self.node, self.name, expression)
        kind = BEHAVIOURAL[quantity == "i"]
        self.add(line, kind, words[0], words[1:3], [])
        self.builder.expressions.setdefault(kind, []).append((text, line))

    # -- instances ----------------------------------------------------------------------------------------------

    def instance(self, line: Line, words: list[str]) -> None:
        words = [w for w in words if w.lower() != "params:"]
        first = words.index("=") - 1 if "=" in words else len(words)
        head, given = words[:first], pairs(line, words[first:])
        if len(head) < 3:
            raise line.error("a subcircuit is NAME NODE ... SUBCIRCUIT [PARAMETER=VALUE ...]")
        name, nodes, kind = head[0], head[1:-1], head[-1].lower()
        section = self.section.subcircuit(kind)
        if kind in BUILT_IN and (section is None or is_built_in(kind, section)):
            self.alone(line, repr(head[-1]))
            _ports(line, nodes, head[-1], KINDS[BUILT_IN[kind][0]].nodes)
            part, parameters = BUILT_IN[kind]
            if foreign := [p for p in given if p not in parameters]:
                raise line.error(unknown(f"parameter of {head[-1]}", foreign[0], set(parameters)))
            told = {**(parameters if section is None else section.parameters), **given}
            if missing := [p for p in parameters if not told.get(p)]:
                raise line.error(f"{kind} needs {missing[0]}=VALUE")
            self.add(line, part, name, nodes, [self.value(told[p]) for p in parameters])
            return
        if section is None and kind == op_amps.NAME:
            section = op_amps.section()
        if section is None:
            for k, word in enumerate(head[2:-1], 2):
                if word.lower() in BUILT_IN or self.section.subcircuit(word.lower()) is not None:
                    raise line.error(
                        f"{head[k + 1]!r} behind the subcircuit {word!r} is no parameter: NAME=VALUE would be read"
                    )
            known = {*self.section.names("subcircuits"), *BUILT_IN, op_amps.NAME}
            raise self.undefined(line, "subcircuit", head[-1], known)
        _ports(line, nodes, head[-1], section.ports)
        copies = self.copies
        if "m" in given and "m" not in section.parameters:
            copies *= self.multiple(line, {"m": given.pop("m")})
        foreign = [p for p in given if p not in section.parameters]
        if foreign:
            raise line.error(unknown(f"parameter of {head[-1]}", foreign[0], set(section.parameters)))
        for parameter, text in given.items():
            self.check_own(line, parameter, text, section)
        values_here = {p: repr(self.scope.value(text, bare=True)) for p, text in given.items()}
        ports = dict(zip(section.ports, (self.node(n) for n in nodes), strict=True))
        scope = Scope({**section.parameters, **values_here}, self.scope)
        Level(self.builder, section, f"{self.path}{name}.", ports, scope, copies, self).read()

    def check_own(self, line: Line, parameter: str, text: str, section: NetlistSection) -> None:
        """Refuse a value that names another parameter of the subcircuit, which is what ngspice takes it for."""
        if self.scope.is_number(text):
            return
        bare = text[1:-1] if text[0] in "{'" else text
        for node in ast.walk(self.scope.functions.expanded(bare, number)):
            name = node.id.lower() if isinstance(node, ast.Name) else parameter
            if name != parameter and name in section.parameters:
                raise line.error(
                    f"{name!r} in {parameter.upper()}={text} is a parameter of the subcircuit too, and ngspice "
                    "takes that one: with another name it would be read"
                )


_WAVES = ("pwl", "pulse", "sin", "sine", "exp")
_NUMERIC = "0123456789.+-{'"
_ENDS = (*_WAVES, "dc", "ac")
_BEHIND = ("tc1", "tc2", "m", "temp", "dtemp")


def _behind(expression: str) -> tuple[str, str, str] | None:
    """The last NAME=VALUE behind the expression of a B source, and the expression without it, if there is one."""
    head, equals, text = expression.rpartition("=")
    words = head.rsplit(None, 1)
    if not equals or len(words) != 2 or words[1].lower() not in _BEHIND:
        return None
    return words[1].lower(), text.strip(), words[0]


def _even(exponent: ast.expr) -> bool:
    """Whether a number is an even one, so that the sign of what is raised to it does not matter."""
    return isinstance(exponent, ast.Constant) and float(exponent.value) % 2 == 0  # type: ignore[arg-type]


def _length(line: Line, words: list[str], count: int, form: str) -> None:
    if len(words) > count:
        raise line.error(f"{words[count]!r} is one word too many: {form} would be read")
    if len(words) < count:
        raise line.error(f"{words[-1]!r} must not be the last word: {form} would be read")


def _ports(line: Line, nodes: list[str], name: str, ports: tuple[str, ...]) -> None:
    if len(nodes) != len(ports):
        wanted = f"the subcircuit {name!r} has {len(ports)} nodes ({' '.join(ports)})"
        raise line.error(f"{wanted}, but {len(nodes)} are given")


def is_built_in(kind: str, section: NetlistSection) -> bool:
    """Whether a definition says what the writer's definition of `kind` says."""
    own = [*section.elements, *section.models.values()]
    return sorted(" ".join(line.text.lower().split()) for line in own) == _BODIES[kind]


_BODIES = {kind: sorted(DEFINITIONS[kind].lower().split("\n")[1:-1]) for kind in BUILT_IN}


READERS: dict[str, Callable[[Level, Line, list[str]], None]] = {
    "r": Level.resistor,
    "c": Level.capacitor,
    "l": Level.inductor,
    "d": Level.diode,
    "v": Level.source,
    "i": Level.source,
    "e": Level.controlled,
    "g": Level.controlled,
    "f": Level.current_controlled,
    "h": Level.current_controlled,
    "b": Level.b_source,
    "x": Level.instance,
    "m": read_transistor,
    "s": read_switch,
    "w": read_switch,
}
"""Element letters that are read."""
