"""Which cases of a parametrised test a newcomer waits for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def first(count: int, cases: Iterable[Any]) -> list[Any]:
    """Cases of `pytest.mark.parametrize` of which all but the first `count` are in the tier `full`."""
    return [case if i < count else pytest.param(case, marks=pytest.mark.full) for i, case in enumerate(cases)]
