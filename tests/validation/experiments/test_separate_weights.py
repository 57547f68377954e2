"""Trainings of separate weights: if these fail, asymmetric EP is compared with gradients that are not exact."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from hardware_models import RecurrentNetwork
from physics_ep import CrossEntropy
from physics_ep.errors import InputError
from validation import implicit_gradient
from validation.experiments import separate_weights
from validation.experiments.separate_weights import compared, exact_backward, table
from validation.gradients import total_error


def test_exact_gradients_are_those_of_implicit_differentiation() -> None:
    """The closed form against GMRES on the Jacobian by autograd, feedback strong enough to matter."""
    system = RecurrentNetwork([6, 9, 4], back_gain=0.8).double()
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(5, 6, generator=generator, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0])
    exact = implicit_gradient(system, x, y, CrossEntropy())
    exact_backward(CrossEntropy())(system, x, y)
    assert total_error({n: p.grad for n, p in system.named_parameters()}, exact) < 1e-8


def test_differences_are_paired_by_seed() -> None:
    """Seeds differ by far more than methods: an unpaired interval would hide what is there."""
    rows = [
        {"way": way, "seed": seed, "test_error": [0.5 + extra, 0.1 * seed + extra]}
        for seed in (1, 2, 3)
        for way, extra in (("asymmetric", 0.0), ("vector-field", 0.02 + 1e-3 * seed))
    ]
    found = compared([*rows, {"way": "exact", "seed": 9, "test_error": [0.5, 0.2]}])
    mean, low, high = found["differences"]["vector-field"]["last epoch"]
    assert abs(mean - 2.2) < 1e-9
    assert 1.9 < low < high < 2.5
    assert abs(found["differences"]["vector-field"]["mean over epochs"][0] - 2.2) < 1e-9
    assert "exact" not in found["differences"]


def training(way: str, seed: int, error: float, *overrides: str) -> dict[str, Any]:
    """A row of a file."""
    found = {"way": way, "seed": seed, "overrides": list(overrides), "test_error": [error, error]}
    return {**found, "train_error": [0.3, 0.125], "skipped": 7}


def test_a_table_is_of_one_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A brief training stands in the mean of long ones, or two pairs are told with an interval."""
    long = [training(way, seed, 0.1) for way in ("exact", "asymmetric") for seed in (0, 1)]
    brief = training("exact", 0, 0.9, "training.epochs=2")
    with pytest.raises(InputError, match="rows must be of one recipe"):
        compared([*long, brief])
    (tmp_path / "r.json").write_text(json.dumps({"trainings": [*long, brief]}))
    for words, cells in (
        ([], "| exact | 2 | 10.00 | 10.00 | 12.50 | 7 |"),
        (["--epochs", "2"], "| exact | 1 | 90.00"),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["separate_weights", str(tmp_path / "r.json"), "--table", *words])
            separate_weights.main()
        assert cells in capsys.readouterr().out
    assert all(math.isnan(end) for end in compared(long)["differences"]["exact"]["last epoch"][1:])
    assert "exact less asymmetric, last epoch: +0.00 % (2 of the 3 pairs that an interval needs)" in table(long)
