"""Statistics of repeats: cosine, error, bias, variance and their intervals. If these fail, a table judges its
estimates wrongly."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from validation.agreement import CHUNK, Tally, interval


@pytest.mark.parametrize("bias", [0.0, 1e-6, 3.0])
def test_running_sums_against_all_at_once(bias: float) -> None:
    """If this fails, bias and variance are not what they are called; targets move with the repeat."""
    generator = np.random.default_rng(0)
    targets = generator.normal(size=(7, 3, 5))
    shift = bias * generator.normal(size=(3, 5))
    estimates = targets + shift + 1e-3 * generator.normal(size=targets.shape)
    tally = Tally()
    for g, t in zip(estimates, targets, strict=True):
        cosine, error = tally.add(torch.tensor(g), torch.tensor(t))
        assert cosine == pytest.approx((g * t).sum() / np.linalg.norm(g) / np.linalg.norm(t), rel=1e-12)
        assert error == pytest.approx(np.linalg.norm(g - t) / np.linalg.norm(t), rel=1e-12)
    e = (estimates - targets).reshape(7, -1)
    size = np.square(targets).sum((1, 2)).mean()
    variance = e.var(0, ddof=1).sum()
    assert tally.variance == pytest.approx(variance / size, rel=1e-12)
    square = max(np.square(e.mean(0)).sum() - variance / 7, 0.0)
    assert tally.bias == pytest.approx(math.sqrt(square / size), rel=1e-9, abs=1e-15)


def test_bias_is_corrected_for_the_number_of_repeats() -> None:
    """If this fails, a few noisy repeats of an unbiased estimate look biased: its square would be variance / 3 too
    large."""
    generator = torch.Generator().manual_seed(0)
    target, shift = torch.ones(5000, dtype=torch.float64), 0.1
    squares = []
    for _ in range(100):
        tally = Tally()
        for _ in range(3):
            tally.add(target + shift + 0.5 * torch.randn(5000, generator=generator, dtype=torch.float64), target)
        squares.append(tally.bias**2)
    assert np.mean(squares) == pytest.approx(shift**2, abs=4 * np.std(squares) / math.sqrt(100))
    assert np.mean(squares) < 0.3 * 0.25 / 3


def test_chunks_zeros_and_float32() -> None:
    """If this fails, large tensors are judged by their first part, or an all-zero gradient as infinitely wrong."""
    tally = Tally()
    target = torch.ones(CHUNK + 3)
    estimate = target.clone()
    estimate[-1] = 5.0
    assert tally.add(estimate, target)[1] == pytest.approx(4 / math.sqrt(CHUNK + 3))
    assert Tally().add(torch.zeros(3), torch.zeros(3)) == (1.0, 0.0)
    assert Tally().add(torch.ones(3), torch.zeros(3)) == (0.0, math.inf)
    assert math.isnan(Tally().bias)
    for lost in (math.inf, math.nan):  # of an estimate that diverged, Python's min(1, NaN) had made a cosine of 1
        cosine, error = Tally().add(torch.tensor([1.0, lost]), torch.tensor([1.0, 0.0]))
        assert cosine == 0.0
        assert math.isnan(error)
    tiny = 1e-90 * torch.ones(3, dtype=torch.float64)
    assert Tally().add(tiny, 2 * tiny)[0] == pytest.approx(1.0)
    still = Tally()
    for _ in range(4):
        still.add(torch.full((9,), 1 + 2.0**-12), torch.ones(9))
    assert still.bias == pytest.approx(2.0**-12, rel=1e-12)
    assert still.variance == 0


def test_student_interval() -> None:
    """If this fails, the intervals are too narrow for few repeats."""
    values = np.array([0.9, 0.95, 0.97, 0.99])
    low, high = interval(np.append(values, np.nan))
    wanted = stats.t.interval(0.95, 3, loc=values.mean(), scale=stats.sem(values))
    assert (low, high) == pytest.approx(wanted, rel=1e-9)
    assert all(map(math.isnan, interval(values[:1])))
