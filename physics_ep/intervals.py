"""Means of a few repetitions, with the interval that the mean of many would lie in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

LEVEL = 0.95
"""Confidence of intervals."""


@dataclass(frozen=True)
class MeanInterval:
    """The mean of repetitions, and its interval at 95 % confidence by Student's t distribution.

    Attributes
    ----------
    mean : float
    low, high : float
        Ends of the interval; NaN where there are fewer than two repetitions, which tell no spread.
    count : int
        Number of repetitions.
    """

    mean: float
    low: float
    high: float
    count: int

    @property
    def ends(self) -> list[float] | None:
        """Lower and upper end of the confidence interval; None where the interval is not known."""
        return None if math.isnan(self.low) else [self.low, self.high]


def mean_interval(values: Sequence[float], level: float = LEVEL) -> MeanInterval:
    """Mean of independent repetitions with its interval: mean +- t s / sqrt(n) (Student 1908).

    Parameters
    ----------
    values : sequence of float
        One value a repetition, at least one.
    level : float
        Probability with which such an interval holds the mean of a normal distribution, in (0, 1).
    """
    found = np.asarray(values, dtype=float)
    mean, count = float(found.mean()), len(found)
    if count < 2:
        return MeanInterval(mean, math.nan, math.nan, count)
    half = float(stdtrit(count - 1, (1 + level) / 2) * found.std(ddof=1) / math.sqrt(count))
    return MeanInterval(mean, mean - half, mean + half, count)
