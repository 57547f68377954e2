"""Twins that EP and backprop train: the same start and order, batch norm in training mode, and what is told.

If these fail, a difference of test errors is that of initial weights or batches, not of the gradients.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from figures.pcn.batch_statistics import batch_statistics, draw_batch_statistics
from physics_ep.data.datasets import digits
from tests.support import looks
from validation.experiments import batch_statistics as experiment

pytestmark = pytest.mark.full

test_every_axis_is_labelled = looks.every_axis_is_labelled_with_its_unit
test_series_differ_without_colour = looks.series_differ_without_colour
test_legends_leave_the_data_alone = looks.legends_leave_the_data_alone


@pytest.fixture(scope="module")
def twins() -> dict[str, object]:
    """A brief training at a small width."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "BATCHES", (4, 8))
        return experiment.train_twins(digits(), 0, epochs=1, examples=128, width=4, look_every=1)


@pytest.fixture(scope="module")
def drawn(twins) -> dict[str, object]:
    return {"twins": draw_batch_statistics(batch_statistics([twins, {**twins, "ep": 0.2, "backprop": 0.25}]))}


def test_twins_are_alike_and_the_gradient_is_backprops(twins) -> None:
    """Each step has one K and residual for the batch, more than one sweep, and backprop's gradient."""
    assert len(twins["steps"]) == 2
    assert all(step["K"] >= 2 and step["residual"] <= 1e-2 for step in twins["steps"])
    assert min(look["cosine"] for look in twins["looks"]) > 0.999
    modes = [(row["mode"], row["batch"]) for row in twins["responses"]["before"]]
    assert modes == [("train", 4), ("train", 8), ("eval", 4), ("eval", 8)]


def test_exact_gradients_give_the_same_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where EP's step is backprop itself, the two end at the same weights and test error: nothing else differs."""
    ends = []
    wrong = experiment._test_error

    def ended(model, data):
        ends.append([p.detach().clone() for p in model.parameters()])
        return wrong(model, data)

    class Exact(experiment.EquilibriumPropagation):
        def backward(self, system, x, y, **options):
            step = super().backward(system, x, y, **options)
            system.zero_grad(set_to_none=True)
            with torch.enable_grad():
                twin = {n: t.clone() for n, t in system.named_buffers()}
                experiment.COST(system(x), y).mean().backward()
            with torch.no_grad():  # statistics take in each batch once
                for name, t in system.named_buffers():
                    t.copy_(twin[name])
            return step

    monkeypatch.setattr(experiment, "_test_error", ended)
    monkeypatch.setattr(experiment, "EquilibriumPropagation", Exact)
    data = digits()
    small = replace(data, test_x=data.test_x[:50], test_y=data.test_y[:50])
    found = experiment.train_twins(small, 3, epochs=1, examples=192, width=4, measures=False)
    for a, b in zip(*ends, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert found["ep"] == found["backprop"]


def test_the_interval_is_students() -> None:
    """Mean and interval of paired differences, in points."""
    results = [{"ep": e, "backprop": b} for e, b in ((0.03, 0.02), (0.02, 0.03), (0.04, 0.03))]
    mean, low, high = experiment.paired(results)
    assert mean == pytest.approx(1 / 3)
    half = 4.302653 * np.std([1, -1, 1], ddof=1) / 3**0.5
    assert (low, high) == (pytest.approx(mean - half), pytest.approx(mean + half))
