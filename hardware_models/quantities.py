"""Quantities as people read them: three digits, a prefix and a unit."""

from __future__ import annotations

import math


def quantity(value: float, unit: str) -> str:
    """A figure as text with an SI prefix and three digits; an empty text for NaN."""
    if math.isnan(value):
        return ""
    if value == 0:
        return f"0 {unit}"
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""), (1e-3, "m"), (1e-6, "u"), (1e-9, "n")):
        if abs(value) >= factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value / 1e-12:.3g} p{unit}"


def scaled_unit(largest: float, unit: str) -> tuple[float, str]:
    """The unit that suits numbers up to `largest`: what one of it is in the SI unit, and its name.

    Units that take no prefix stay as they are: time constants, radians.

    Examples
    --------
    >>> scaled_unit(3e-8, "s")
    (1e-09, 'ns')
    """
    if unit not in PREFIXED or not 0 < largest < math.inf:
        return 1.0, unit
    thousands = max(-5, min(3, math.floor(math.log10(largest) / 3 + 1e-12)))
    return float(f"1e{3 * thousands}"), f"{'fpnum kMG'[thousands + 5]}{unit}".replace("u", "\N{MICRO SIGN}").strip()


PREFIXED = ("s", "V", "A", "W", "J")
"""Units that take prefixes."""
