"""The table of trained copies: test examples set no scales, and medians tell of how many rows they are."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from physics_ep.errors import InputError
from physics_ep.predictive_coding import mlp
from validation.experiments import trained_copies
from validation.experiments.trained_copies import RECIPE, median_of, read


def test_full_scales_are_of_training_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network is tested on examples that have set its scales."""
    seen: list[torch.Tensor] = []

    def mapped(*_: Any, calibration: torch.Tensor, **__: Any) -> Any:
        seen.append(calibration)
        raise InputError("as far as this test goes")

    monkeypatch.setattr(trained_copies, "map_pcn", mapped)
    x = torch.arange(6.0)[:, None].expand(6, 64)
    data = SimpleNamespace(train_x=x[:3], train_y=torch.arange(3), test_x=x[3:], test_y=torch.arange(3))
    with pytest.raises(InputError, match="as far as this test goes"):
        trained_copies.measured(trained_copies.cases()[0], 0, mlp([64, 10]).double(), data)
    assert torch.equal(seen[0], x[:3].double())


def test_medians_tell_of_how_many_rows_they_are() -> None:
    """Rows that have no value, or none that is finite, are left out in silence."""
    rows: list[dict[str, Any]] = [
        {"a": 1.0, "b": math.nan},
        {"a": 3.0, "b": None},
        {"a": 8.0, "b": 2.0},
        {"c": 1.0},
    ]
    assert median_of(rows[:3], "a", "{:.0f}") == "3"
    assert median_of(rows, "a", "{:.0f}") == "3 (3 of 4)"
    assert median_of(rows[:3], "b", "{:.0f}") == "2 (1 of 3)"
    assert median_of(rows, "d", "{:.0f}") == "none"


def test_a_gap_that_nobody_knows_is_not_a_small_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest of 1 - cosine forgets a NaN that is not the first."""
    rows = [SimpleNamespace(cosine=value) for value in (0.5, math.nan, 0.75)]
    monkeypatch.setattr(trained_copies, "compare", lambda *_: rows)
    assert math.isnan(trained_copies.worst_gap({}, {}))
    del rows[1]
    assert trained_copies.worst_gap({}, {}) == 0.5


def test_rows_of_another_recipe_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A median is over rows of two recipes."""
    path = tmp_path / "r.json"
    row = {"key": trained_copies.cases()[0].key, "instance": 0, "error": 0.25}
    path.write_text(json.dumps({"recipe": RECIPE, "rows": [row]}))
    assert read(path) == [row]
    trained_copies.main([str(path), "--table"])
    assert "| none | 25% | none | none |" in capsys.readouterr().out
    for recipe in (None, {**RECIPE, "calibration": "test examples"}):
        path.write_text(json.dumps({"recipe": recipe, "rows": [row]}))
        with pytest.raises(SystemExit, match="out must hold a table of trained copies of this recipe"):
            trained_copies.main([str(path), "--table"])
