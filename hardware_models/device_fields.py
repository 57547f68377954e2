"""What the fields of `DeviceModel` may hold, and how a command line spells it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from physics_ep.errors import argument_error, unknown_name

SPACINGS = ("linear", "log")
LEAKS = ("trimmed", "dummy", "fixed")


@dataclass(frozen=True)
class Rule:
    """What a field may hold."""

    kind: type
    must: str
    holds: Callable[[Any], bool] = lambda value: True
    optional: bool = False

    def checked(self, name: str, value: Any) -> Any:
        """The value, in the field's own type.

        Raises
        ------
        InputError
        """
        if value is None and self.optional:
            return None
        kinds = {float: Real, int: Integral, str: str}
        if isinstance(value, kinds[self.kind]) and not isinstance(value, bool):
            try:
                plain = self.kind(value)
            except OverflowError:
                plain = math.inf
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


POSITIVE = Rule(float, "be a positive finite number", lambda v: v > 0)
MAGNITUDE = Rule(float, "be a finite number of 0 or more", lambda v: v >= 0)
FRACTION = Rule(float, "be a number from 0 to 1", lambda v: 0 <= v <= 1)
COUNT = Rule(int, "be an integer of 1 or more", lambda v: v >= 1)
RANGE = Rule(float, POSITIVE.must, POSITIVE.holds, optional=True)
ABOVE_MINUS_ONE = Rule(float, "be a finite number above -1", lambda v: v > -1)
# One bit would leave a mid-tread converter its level 0 alone; none has more than 32.
BITS = Rule(int, "be an integer from 2 to 32", lambda v: 2 <= v <= 32, optional=True)

RULES: dict[str, Rule] = {
    "g_min": MAGNITUDE,
    "g_max": POSITIVE,
    "levels": Rule(int, "be an integer from 2 to 2^32", lambda v: 2 <= v <= 2**32, optional=True),
    "spacing": Rule(str, "be 'linear' or 'log'", lambda v: v in SPACINGS),
    "programming_noise": MAGNITUDE,
    "device_mismatch": MAGNITUDE,
    "stuck_off": FRACTION,
    "stuck_on": FRACTION,
    "drift_exponent": Rule(float, "be a finite number"),
    "drift_spread": MAGNITUDE,
    "drift_time": MAGNITUDE,
    "drift_reference": POSITIVE,
    "copy_mismatch_h": MAGNITUDE,
    "copy_mismatch_u": MAGNITUDE,
    "copy_mismatch_transpose": MAGNITUDE,
    "conductance_noise": MAGNITUDE,
    "read_noise": MAGNITUDE,
    "amplifier_gain": MAGNITUDE,
    "amplifier_offset": MAGNITUDE,
    "amplifier_saturation": RANGE,
    "time_constant": POSITIVE,
    "time_constant_mismatch": ABOVE_MINUS_ONE,
    "dac_bits": BITS,
    "dac_range": RANGE,
    "adc_bits": BITS,
    "adc_range": RANGE,
    "wire_resistance": MAGNITUDE,
    "temperature": MAGNITUDE,
    "averaging_time": POSITIVE,
    "amplifier_lag": MAGNITUDE,
    "amplifier_lag_mismatch": ABOVE_MINUS_ONE,
    "amplifier_gain_limit": RANGE,
    "leaks": Rule(str, "be 'trimmed', 'dummy' or 'fixed'", lambda v: v in LEAKS),
    "diode_current": RANGE,
    "diode_ideality": POSITIVE,
    "diode_mismatch": MAGNITUDE,
    "ideality_mismatch": MAGNITUDE,
    "detuning": MAGNITUDE,
    "phase_noise": MAGNITUDE,
    "oscillator_headroom": Rule(float, "be a finite number above 1", lambda v: v > 1),
    "oscillator_frequency": POSITIVE,
    "oscillator_power": MAGNITUDE,
    "pulses": Rule(int, "be an integer of 1 or more", lambda v: v >= 1, optional=True),
    "pulse_nonlinearity_up": Rule(float, "be a finite number"),
    "pulse_nonlinearity_down": Rule(float, "be a finite number"),
    "pulse_asymmetry": ABOVE_MINUS_ONE,
    "pulse_noise": MAGNITUDE,
    "pulse_spread": MAGNITUDE,
    "voltage": POSITIVE,
    "amplifier_power": MAGNITUDE,
    "tile_rows": COUNT,
    "tile_columns": COUNT,
    "source": Rule(str, "be a text"),
}


def rule_of(name: str) -> Rule:
    """What a field may hold.

    Raises
    ------
    InputError
        Of an unknown field, with the nearest right name.
    """
    if name not in RULES:
        raise unknown_name("field", name, RULES)
    return RULES[name]


def parse_field(name: str, text: str) -> Any:
    """Value of a field as it stands on a command line: a number, a word, or 'none' where the field may be None.

    Parameters
    ----------
    name : str
        Of a field of `DeviceModel`.
    text : str

    Returns
    -------
    float, int, str or None

    Raises
    ------
    InputError
    """
    return rule_of(name).parsed(name, text)
