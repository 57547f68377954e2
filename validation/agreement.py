"""How well estimates of a gradient agree with their targets over repeats, without keeping them.

An estimate g_r and its target t_r (one for all repeats, or one each) give the deviation e_r = g_r - t_r. Over n
repeats

    bias^2   = |mean e|^2 - variance / n        variance = sum |e_r - mean e|^2 / (n - 1)

are unbiased: the mean of n deviations alone has a squared length that is too large by variance / n. Both are given
relative to the mean of |t_r|^2, the bias as a length. Where the corrected square comes out negative, the bias is
below what n repeats can tell and is given as 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import stdtrit

CONFIDENCE = 0.95
CHUNK = 2**20
"""Entries that are widened to float64 at a time."""


@dataclass(frozen=True, eq=False)
class Agreement:
    """Agreement of one parameter tensor's estimates with one kind of target.

    Attributes
    ----------
    cosines, relative_errors : ndarray (R,)
        Cosine and relative error of each repeat's gradient; NaN where no equilibrium was found. The relative error
        is |g - t| / |t|. Where the target is zero but for rounding the cosine is NaN and the relative error
        infinite; such repeats are in no mean.
    bias : float
        |mean (g - t)| / |t|, corrected for the finite number of repeats (`validation.agreement`).
    variance : float
        mean |e - mean e|^2 / |t|^2 with e = g - t; NaN from a single repeat.
    """

    cosines: np.ndarray
    relative_errors: np.ndarray
    bias: float
    variance: float

    @property
    def cosine(self) -> float:
        """Cosine of a parameter's gradient to the reference, the mean over the repeats."""
        return _mean(self.cosines)

    @property
    def distance(self) -> float:
        """1 minus the mean cosine; 0 where rounding makes the cosine larger than 1."""
        return max(1 - self.cosine, 0.0)

    @property
    def cosine_interval(self) -> tuple[float, float]:
        """95 % confidence interval of the mean cosine: Student's t, cut at -1 and 1.

        Cosines near 1 are skewed, so that the interval is somewhat too narrow on the side of small cosines with few
        repeats; `worst_cosine` stands beside it for that reason.
        """
        low, high = interval(self.cosines)
        return float(np.maximum(low, -1.0)), float(np.minimum(high, 1.0))

    @property
    def cosine_half_width(self) -> float:
        """Half the uncut interval of the mean cosine."""
        low, high = interval(self.cosines)
        return (high - low) / 2

    @property
    def count(self) -> int:
        """Repeats that found an equilibrium, and a target that is not zero."""
        return int((~np.isnan(self.cosines)).sum())

    @property
    def tried(self) -> int:
        """The number of repeats that were compared with a target, be it zero."""
        return self.count + self.vanished

    @property
    def vanished(self) -> int:
        """Repeats whose target is zero but for rounding: nothing can agree with it in direction."""
        return int(np.isinf(self.relative_errors).sum())

    @property
    def worst_cosine(self) -> float:
        """The smallest cosine over the repeats that have one; NaN where none has."""
        return float(np.nanmin(self.cosines)) if np.isfinite(self.cosines).any() else math.nan

    @property
    def relative_error(self) -> float:
        """Relative error of a parameter's gradient, the mean over the repeats whose target is not zero."""
        return _mean(_finite(self.relative_errors))

    @property
    def relative_error_interval(self) -> tuple[float, float]:
        """95 % confidence interval of the mean relative error: Student's t, cut at 0."""
        low, high = interval(_finite(self.relative_errors))
        return float(np.maximum(low, 0.0)), high

    @property
    def worst_relative_error(self) -> float:
        """The largest relative error over the repeats."""
        found = _finite(self.relative_errors)
        return float(found.max()) if found.size else math.nan

    def figures(self) -> dict[str, float | list[float]]:
        """The agreement's figures as `--json` writes them."""
        low, high = self.cosine_interval
        error_low, error_high = self.relative_error_interval
        return {
            "cosine": self.cosine,
            "cosine_low": low,
            "cosine_high": high,
            "worst_cosine": self.worst_cosine,
            "relative_error": self.relative_error,
            "relative_error_low": error_low,
            "relative_error_high": error_high,
            "worst_relative_error": self.worst_relative_error,
            "bias": self.bias,
            "variance": self.variance,
        }


class Tally:
    """Running sums of one tensor's deviations from its target: as large as the tensor, however many repeats.

    Welford's update, which loses nothing where the variance is far below the squared bias. Inner products are taken
    in float64, the mean deviation is kept in the tensor's dtype.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean: torch.Tensor | None = None
        self._scatter = 0.0
        self._size = 0.0

    def add(self, estimate: torch.Tensor, target: torch.Tensor) -> tuple[float, float]:
        """Add a repeat; return its cosine and relative error, 0 and NaN where the estimate is not finite."""
        g, t = estimate.detach().reshape(-1), target.detach().reshape(-1)
        if self._mean is None:
            self._mean = torch.zeros_like(g)
        self.count += 1
        gg = gt = tt = ee = moved = 0.0
        for start in range(0, g.numel(), CHUNK):
            part = slice(start, start + CHUNK)
            a, b, mean = g[part].double(), t[part].double(), self._mean[part]
            e = a - b
            delta = e - mean.double()
            gg, gt, tt = gg + float(a @ a), gt + float(a @ b), tt + float(b @ b)
            ee, moved = ee + float(e @ e), moved + float(delta @ delta)
            mean += (delta / self.count).to(mean.dtype)
        self._scatter += moved * (self.count - 1) / self.count
        self._size += tt
        if gg == 0 and tt == 0:
            return 1.0, 0.0
        if not math.isfinite(ee):  # infinite, or NaN: no agreement, and no target that vanishes
            return 0.0, math.nan
        cosine = gt / (math.sqrt(gg) * math.sqrt(tt)) if gg > 0 and tt > 0 else 0.0
        return max(-1.0, min(1.0, cosine)), math.sqrt(ee / tt) if tt > 0 else math.inf

    @property
    def variance(self) -> float:
        """Variance of the estimate over repeats, over the mean |exact gradient|^2; NaN with less than two."""
        return self._relative(self._scatter / (self.count - 1)) if self.count > 1 else math.nan

    @property
    def bias(self) -> float:
        """Length of the mean error over the exact gradient's; of a single repeat its whole deviation."""
        if self._mean is None:
            return math.nan
        mean = self._mean
        square = 0.0
        for start in range(0, mean.numel(), CHUNK):
            part = mean[start : start + CHUNK].double()
            square += float(part @ part)
        if self.count > 1:
            square -= self._scatter / (self.count - 1) / self.count
        return math.sqrt(self._relative(max(square, 0.0)))

    def _relative(self, square: float) -> float:
        size = self._size / self.count
        return square / size if size > 0 else (0.0 if square == 0 else math.inf)


def interval(values: np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Student's t interval of the mean of the values that are not NaN; NaN with less than two."""
    found = np.asarray(values, float)
    found = found[~np.isnan(found)]
    if found.size < 2 or not np.isfinite(found).all():
        return math.nan, math.nan
    half = float(stdtrit(found.size - 1, 0.5 + confidence / 2) * found.std(ddof=1) / math.sqrt(found.size))
    return float(found.mean()) - half, float(found.mean()) + half


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def _mean(values: np.ndarray) -> float:
    found = values[~np.isnan(values)]
    return float(found.mean()) if found.size else math.nan
