"""What a field of a device says of itself: what it may hold, how it is called, which parts of hardware have it.

An imperfection is a field of `DeviceModel`, or of a subclass of it, that `imperfection` declares, and the
code where it acts. Everything else is read from the declaration: what a value must be and how a command line spells
it, what a sweep of it needs, the labels of figures, and which substrates read it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from physics_ep.errors import InputError, argument_error

SPACINGS = ("linear", "log")
LEAKS = ("trimmed", "dummy", "fixed")
COPIES = ("independent", "trimmed", "shared")
TRANSPOSES = ("slots", "array")
DUMMIES = ("equal", "none")
SWITCH = ("off", "on")
LINE_ENDS = ("one", "both")

LARGEST = 1e30
"""What no quantity of a device exceeds in its SI unit; single precision ends at 3e38."""


@dataclass(frozen=True)
class Rule:
    """What a field may hold; `words` are all of the texts that it may, where not any text will do."""

    kind: type
    must: str
    holds: Callable[[Any], bool] = lambda value: True
    optional: bool = False
    words: tuple[str, ...] = ()

    def checked(self, name: str, value: Any) -> Any:
        """The value, converted to the field's own type; InputError where the rule forbids it.

        Raises
        ------
        InputError
            If the value is none that the field may have.
        """
        if value is None and self.optional:
            return None
        kinds = {float: Real, int: Integral, str: str}
        if isinstance(value, kinds[self.kind]) and not isinstance(value, bool):
            try:
                plain = self.kind(value)
            except OverflowError:
                plain = math.inf
            if self.kind is float and LARGEST < abs(plain) < math.inf:
                raise argument_error(name, f"be a number of at most {LARGEST:g} in size", repr(value))
            if (self.kind is not float or math.isfinite(plain)) and self.holds(plain):
                return plain
        raise argument_error(name, self.must + (" or None" if self.optional else ""), repr(value))

    def parsed(self, name: str, text: str) -> Any:
        """The value that a text stands for."""
        word = text.strip()
        if self.optional and word.lower() == "none":
            return None
        try:
            value = self.kind(word)
        except ValueError:
            raise argument_error(name, self.must + (" or none" if self.optional else ""), repr(text)) from None
        return self.checked(name, value)


def one_of(words: tuple[str, ...], optional: bool = False) -> Rule:
    """The rule of a field that holds one of two or more words."""
    *others, last = map(repr, words)
    return Rule(str, f"be {', '.join(others)} or {last}", words.__contains__, optional, words)


POSITIVE = Rule(float, "be a positive finite number", lambda v: v > 0)
MAGNITUDE = Rule(float, "be a finite number of 0 or more", lambda v: v >= 0)
FRACTION = Rule(float, "be a number from 0 to 1", lambda v: 0 <= v <= 1)
COUNT = Rule(int, "be an integer of 1 or more", lambda v: v >= 1)
RANGE = Rule(float, POSITIVE.must, POSITIVE.holds, optional=True)
MAGNITUDE_OR_NONE = Rule(float, MAGNITUDE.must, MAGNITUDE.holds, optional=True)
ABOVE_MINUS_ONE = Rule(float, "be a finite number above -1", lambda v: v > -1)
# One bit would leave a mid-tread converter its level 0 alone; none has more than 32.
BITS = Rule(int, "be an integer from 2 to 32", lambda v: 2 <= v <= 32, optional=True)

COUNT_OR_NONE = Rule(int, COUNT.must, COUNT.holds, optional=True)
NUMBER = Rule(float, "be a finite number")
ABOVE_ONE = Rule(float, "be a finite number above 1", lambda v: v > 1)
LEVELS = Rule(int, "be an integer from 2 to 2^32", lambda v: 2 <= v <= 2**32, optional=True)
SPACING = one_of(SPACINGS)
LEAK = one_of(LEAKS)
COPYING = one_of(COPIES)
TRANSPOSE = one_of(TRANSPOSES, optional=True)
DUMMY = one_of(DUMMIES)
ON_OFF = one_of(SWITCH)
ENDS = one_of(LINE_ENDS)
GAIN = Rule(float, "be a number above 0 and at most 1", lambda v: 0 < v <= 1)
TEXT = Rule(str, "be a text")

UNCHOSEN = ("common", "learning", "description")
"""Parts that no substrate chooses. Every substrate reads what is common to all: cells with their copies and wires,
nodes, readings, converters. How cells learn, and what a device takes, is no matter of the substrate."""
LINE = 30
"""Characters of a label on one line. Panels of tolerance figures are too narrow for more."""


@dataclass(frozen=True)
class DeviceField:
    """What a field of a device says of itself.

    Attributes
    ----------
    rule : Rule
        What it may hold.
    label : str
        Name on the axis of a figure, without the unit.
    unit : str
        Unit, or what the value is relative to, in words.
    needs : tuple of str
        Fields without which it does nothing: at least one of them must differ from its default, or 'field=value'
        have that value.
    parts : tuple of str
        Parts of hardware that have it, such as 'amplifiers'. 'common': every substrate has it. 'learning': it acts
        while cells learn. 'description': it tells what a device takes, and changes nothing but power and energy.
        'own': a substrate has it that names the field in its `effects`.
    errs : bool
        Whether a device is not ideal where the field differs from its default. False of a field that says only how
        large an error is, or what the device takes.
    drawn : bool
        Whether instances of a device differ by an imperfection. A sweep measures a device once of which nothing is
        drawn.
    short : str
        Name in the row of a table; empty: the field's own, with spaces.
    """

    rule: Rule
    label: str
    unit: str = ""
    needs: tuple[str, ...] = ()
    parts: tuple[str, ...] = ("own",)
    errs: bool = True
    drawn: bool = True
    short: str = ""

    @property
    def needed(self) -> tuple[str, ...]:
        """Names of the fields in `needs`."""
        return tuple(need.partition("=")[0] for need in self.needs)

    def idle(self, values: Mapping[str, Any], ideal: Mapping[str, Any]) -> bool:
        """Whether the field does nothing for want of others, `ideal` being the defaults of all fields."""
        pairs = (need.partition("=") for need in self.needs)
        met = (str(values[n]) == word if sign else values[n] != ideal[n] for n, sign, word in pairs)
        return bool(self.needs) and not any(met)

    @property
    def axis(self) -> str:
        """Label with the unit ('value' where there is none), on two lines where one would be too long."""
        unit = f"({self.unit or 'value'})"
        between = " " if len(self.label) + 1 + len(unit) <= LINE else "\n"
        return self.label + between + unit


def imperfection(
    default: Any,
    rule: Rule,
    label: str,
    unit: str = "",
    needs: tuple[str, ...] = (),
    *,
    parts: str | tuple[str, ...] = "own",
    drawn: bool = True,
    short: str = "",
) -> Any:
    """Declare a field of a device that makes it err, or bounds what it can hold, where it differs from its default.

    Parameters
    ----------
    default
        Its value in an ideal device.
    rule, label, unit, needs, parts, drawn, short
        The fields of `DeviceField` of the same names.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> from hardware_models import DeviceModel
    >>> from hardware_models.devices.fields import FRACTION, imperfection
    >>> @dataclass(frozen=True, kw_only=True)
    ... class Worn(DeviceModel):
    ...     dead_units: float = imperfection(0.0, FRACTION, "Dead amplifiers", "fraction")
    >>> Worn(dead_units=0.1, levels=16).ideal
    False
    """
    parts = (parts,) if isinstance(parts, str) else parts
    return _declared(default, DeviceField(rule, label, unit, needs, parts, True, drawn, short))


def setting(
    default: Any,
    rule: Rule,
    label: str,
    unit: str = "",
    needs: tuple[str, ...] = (),
    *,
    parts: str | tuple[str, ...] = "own",
    short: str = "",
) -> Any:
    """Declare a field of a device that says how large errors are, what the device takes, or how it learns.

    Parameters are those of `imperfection`.
    """
    parts = (parts,) if isinstance(parts, str) else parts
    return _declared(default, DeviceField(rule, label, unit, needs, parts, False, False, short))


def _declared(default: Any, told: DeviceField) -> Any:
    return dataclasses.field(default=default, metadata={"device": told})


def fields_of(kind: type) -> dict[str, DeviceField]:
    """What the fields of a class of devices say of themselves, by name and in their order.

    Raises
    ------
    InputError
        If a field was declared without `imperfection` or `setting`, or the class is no dataclass itself.
    """
    return _fields(kind)


def defaults_of(kind: type) -> dict[str, Any]:
    """The default of each field of a class of devices."""
    return _defaults(kind)


@functools.cache
def _fields(kind: type) -> dict[str, DeviceField]:
    for name, value in vars(kind).items():
        if isinstance(value, dataclasses.Field):
            must = "be decorated with @dataclass(frozen=True, kw_only=True)"
            raise InputError(f"Class {kind.__name__} must {must}: it has a field of its own, {name}.")
    found = {field.name: field.metadata.get("device") for field in dataclasses.fields(kind)}
    for name, told in found.items():
        if not isinstance(told, DeviceField):
            raise InputError(
                f"Field {name} of {kind.__name__} must be declared by imperfection(...) or setting(...)."
            )
    return found  # type: ignore[return-value]


@functools.cache
def _defaults(kind: type) -> dict[str, Any]:
    return {field.name: field.default for field in dataclasses.fields(kind)}
