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
