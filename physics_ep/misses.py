"""How far outputs are from measured targets: told alike of all systems, whatever unit their outputs have.

The root mean square is in the unit of each target, and R2 = 1 - sum of squared misses / sum of squared deviations
of the targets from their mean: 1 where all is right, 0 of the mean alone (Draper and Smith, Applied Regression
Analysis, 1998).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SHOWN = 3
"""Targets that a line tells of; of more it tells the worst R2 of the others."""


@dataclass(frozen=True)
class Misses:
    """Sums over examples, one number a target; sums over parts of the examples add up.

    Attributes
    ----------
    count : int
        Number of examples.
    squares : ndarray (n,)
        Sum of the squared misses.
    means : ndarray (n,)
        Mean of the targets.
    spreads : ndarray (n,)
        Sum of the squared deviations of the targets from that mean.
    """

    count: int
    squares: np.ndarray
    means: np.ndarray
    spreads: np.ndarray

    @staticmethod
    def of(outputs: np.ndarray, targets: np.ndarray) -> Misses:
        """Sums of outputs (N, n) beside targets (N, n), both in one unit; zeros of no example."""
        count = len(targets)
        means = targets.mean(0) if count else np.zeros(targets.shape[1])
        return Misses(count, ((outputs - targets) ** 2).sum(0), means, ((targets - means) ** 2).sum(0))

    @property
    def rms(self) -> np.ndarray:
        """Root mean square miss of each target (n,), in the unit of the outputs; NaN of no example."""
        return np.sqrt(self.squares / self.count) if self.count else np.full(len(self.squares), math.nan)

    @property
    def r2(self) -> np.ndarray:
        """R2 of each target (n,); NaN where the targets are all equal."""
        rounding = self.count * (8 * np.finfo(np.float64).eps * np.abs(self.means)) ** 2
        safe = np.where(self.spreads > rounding, self.spreads, math.nan)
        return 1 - self.squares / safe


def told_misses(names: Sequence[str], rms: Iterable[float], r2: Iterable[float]) -> str:
    """Say how far off each target is in its own unit, with its R2: 'heat off by 1.2 (R2 0.93)'."""
    rows = list(zip(names, rms, r2, strict=True))
    told = [f"{name} off by {off:.4g} (R2 {'unknown' if math.isnan(r) else f'{r:.4g}'})" for name, off, r in rows]
    others = [r for _, _, r in rows[SHOWN:] if not math.isnan(r)]
    if len(rows) > SHOWN:
        worst = f", R2 {min(others):.4g} or more" if others else ""
        told[SHOWN:] = [f"{len(rows) - SHOWN} more{worst}"]
    return ", ".join(told)


def told_of_metrics(targets: Mapping[str, Any] | None, metrics: Mapping[str, np.ndarray], epoch: int = -1) -> str:
    """Say what metrics `test_rms` and `test_r2` (epochs, n) hold of an epoch; '' of classes and of older runs."""
    if not targets or "test_rms" not in metrics or not len(metrics["test_rms"]):
        return ""
    return told_misses(targets["names"], metrics["test_rms"][epoch], metrics["test_r2"][epoch])
