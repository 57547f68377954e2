"""The largest and the least of a few numbers: a NaN among them is the answer, wherever it stands."""

from __future__ import annotations

import ast
import itertools
import math
import re
from pathlib import Path

import pytest

from physics_ep.extremes import greatest, least

ROOT = Path(__file__).parents[2]
NUMBERS = ("residual", "cosine")
LIKELY = re.compile(r"(?<![.\w])(?:max|min)\([^;]{0,120}?\.(?:residual|cosine)\b")
"""Programs without such a passage need no parsing."""


def of_numbers(text: str) -> list[int]:
    """Lines of a program in which Python's own `max` or `min` compares residuals or cosines of several things."""
    if not LIKELY.search(text):
        return []
    found = []
    for call in ast.walk(ast.parse(text)):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in ("max", "min"):
            own = [a.value if isinstance(a, ast.Starred) else a for a in call.args]
            each = [a.elt for a in own if isinstance(a, ast.GeneratorExp | ast.ListComp)]
            names = {n.attr for e in each for n in ast.walk(e) if isinstance(n, ast.Attribute)}
            # numpy's nanmin and the like say what they leave out
            found += [call.lineno] * (not names.isdisjoint(NUMBERS) and not names & {"nanmin", "nanmax"})
    return found


def test_a_nan_is_the_answer_wherever_it_stands() -> None:
    """Without this, a phase that has diverged beside a settled one leaves a small residual."""
    assert (greatest([1.0, 3.0, 2.0]), least([2.0, 1.0, 3.0])) == (3.0, 1.0)
    for numbers in itertools.permutations([1.0, math.nan, 3.0]):
        assert math.isnan(greatest(numbers))
        assert math.isnan(least(numbers))
    assert (greatest([], default=2.0), least(iter(()), default=2.0)) == (2.0, 2.0)
    for function in (greatest, least):
        with pytest.raises(ValueError, match="empty"):
            function([])


def test_residuals_and_cosines_are_compared_so() -> None:
    """Without this, a report of several phases or tensors may hide the one that has no number."""
    assert of_numbers("worst = max(0.0, *(float(e.residual.max()) for e in phases))") == [1]
    for folder in ("physics_ep", "hardware_models", "validation", "figures"):
        for path in (ROOT / folder).rglob("*.py"):
            assert not of_numbers(path.read_text(encoding="utf-8")), path
