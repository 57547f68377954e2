"""The largest and the least of a few numbers, NaN where one of them is.

Python's `max` and `min` keep a NaN that comes first and drop one that comes later: a phase that has diverged beside
one that has settled would leave a small residual.
"""

from __future__ import annotations

import math
from collections.abc import Iterable


def greatest(numbers: Iterable[float], default: float | None = None) -> float:
    """Return the largest of some numbers, or NaN if any is; `default` if there are none.

    Raises
    ------
    ValueError
        If there are none, and no default.
    """
    found = list(numbers)
    if not found and default is not None:
        return default
    return math.nan if any(map(math.isnan, found)) else max(found)


def least(numbers: Iterable[float], default: float | None = None) -> float:
    """Return the least of some numbers, or NaN if any is; `default` if there are none.

    Raises
    ------
    ValueError
        If there are none, and no default.
    """
    return -greatest((-number for number in numbers), None if default is None else -default)
