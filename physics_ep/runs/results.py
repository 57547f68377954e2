"""What a training gave: weights, metrics of each epoch, and how its errors were come by."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..config import Config
from ..data.tables import ColumnsTaken
from ..misses import told_misses
from ..physical_system import PhysicalSystem
from ..tabular import Tabular, epochs_for_paper, epochs_of


@dataclass(frozen=True, repr=False)
class TrainingResult(Tabular):
    """The outcome of a training: its figures epoch by epoch, the trained system, and the run file.

    Attributes
    ----------
    system : EnergySystem or VectorField
        The system with the final weights; with `data.validation`, those of the epoch that is kept.
    config : Config
        The config with all defaults filled in.
    metrics : dict
        Name to ndarray (epochs, ...); units and meaning in `metrics.METRICS`.
    seconds : float
        Wall time of all epochs, those before a resume included.
    path : Path or None
        The run file.
    broken : tuple of str
        A line on each image that this process has left out since it cannot be decoded.
    kept_epoch : int or None
        With `data.validation`, the epoch, from 1, with the smallest error on the examples held out. None: the last.
    test_read : str or None
        With `data.validation`, when the test set was read (UTC), which was once. None: after each epoch.
    taken : ColumnsTaken or None
        Columns of a table that were learnt from, and those that were learnt. None: the data are no table.
    targets : dict or None
        `names`, `shift` and `scale` of measured targets: one in its own unit is shift + scale * output. None:
        classes, or loaders, whose targets are as they are.
    """

    system: PhysicalSystem
    config: Config
    metrics: dict[str, np.ndarray]
    seconds: float
    path: Path | None = None
    broken: tuple[str, ...] = ()
    kept_epoch: int | None = None
    test_read: str | None = None
    targets: dict[str, Any] | None = None
    taken: ColumnsTaken | None = None

    @property
    def test_error(self) -> float:
        """Fraction of the test examples that the system misclassifies; no equilibrium counts as an error. NaN where
        targets are measured."""
        return float(self._kept("test_error"))

    @property
    def train_error(self) -> float:
        """Fraction of the training examples that were misclassified in the epoch that led to these weights; an
        example without an equilibrium counts as an error. NaN where targets are measured.
        """
        return float(self._kept("train_error"))

    @property
    def validation_error(self) -> float:
        """Fraction of the held-out training examples that the system misclassifies; NaN where none were held out
        or targets are measured.
        """
        return float(self._kept("validation_error")) if "validation_error" in self.metrics else math.nan

    @property
    def test_loss(self) -> float:
        """Mean cost of the test examples, where targets are measured; else NaN. It is in the unit of the outputs,
        squared: systems whose outputs have other units are compared by `test_rms` and `test_r2`.
        """
        return float(self._kept("test_loss"))

    @property
    def test_rms(self) -> dict[str, float]:
        """Root mean square miss of the test examples for each measured target, in its unit; empty for classes."""
        return self._by_target("test_rms")

    @property
    def test_r2(self) -> dict[str, float]:
        """R2 of the test examples for each measured target: 1 where all is right, 0 of the mean alone."""
        return self._by_target("test_r2")

    def _by_target(self, name: str) -> dict[str, float]:
        if self.targets is None or name not in self.metrics:
            return {}
        return dict(zip(self.targets["names"], map(float, self._kept(name)), strict=True))

    def misses(self, part: str = "test") -> str:
        """What one line tells of the misses of a part ('test', 'validation'): '' where targets are classes."""
        off, r2 = self._by_target(f"{part}_rms"), self._by_target(f"{part}_r2")
        return told_misses(list(off), off.values(), r2.values())

    def over_scales(self, loss: float) -> float:
        """Root mean square miss of all targets together, each over its scale (`data.target_scaling`), of a mean
        cost: the same for systems whose outputs have other units."""
        n = len(self.targets["names"]) if self.targets else 1
        return math.sqrt(2 * loss / n) / self.config.ep.target

    @property
    def validation_loss(self) -> float:
        """Mean cost of the held-out training examples, where targets are measured; NaN where none were held out."""
        return float(self._kept("validation_loss")) if "validation_loss" in self.metrics else math.nan

    @property
    def measured(self) -> bool:
        """Whether targets were measured numbers, and no classes."""
        return math.isnan(self.test_error)

    def _kept(self, name: str) -> Any:
        """A metric of the epoch whose weights the system has."""
        return self.metrics[name][-1 if self.kept_epoch is None else self.kept_epoch - 1]

    def words(self) -> list[str]:
        """What was trained, for how long, and what came of it."""
        count = len(self.metrics["loss"])
        told = [f"{self.config.system.name} on {self.config.data.name}", f"{count} epoch{'s' * (count != 1)}"]
        if count:
            told.append(f"test: {self.misses()}" if self.measured else f"test error {self.test_error:.2%}")
        return [*told, f"{self.seconds:.3g} s", *([] if self.path is None else [repr(str(self.path))])]

    def records(self) -> list[dict[str, Any]]:
        """The training as a table, one row for each epoch."""
        return epochs_of(self.metrics, self.targets["names"] if self.targets else ())

    def paper_rows(self) -> list[dict[str, Any]]:
        """The epochs with cost, errors and worst residual."""
        return epochs_for_paper(self.records())

    def figures(self) -> dict[str, Any]:
        """The result's figures as `--json` writes them."""
        chosen = {
            "validation_error": self.validation_error,
            "validation_loss": self.validation_loss,
            "kept_epoch": self.kept_epoch,
            "test_read": self.test_read,
        }
        cells = getattr(self.system, "cells_told", "")
        return {
            **({"cells": cells} if cells else {}),
            **({} if self.taken is None else {"columns": {**asdict(self.taken), "words": self.taken.words()}}),
            "test_error": self.test_error,
            "train_error": self.train_error,
            "test_loss": self.test_loss,
            **({"test_rms": self.test_rms, "test_r2": self.test_r2} if self.test_rms else {}),
            **({} if self.kept_epoch is None else chosen),
            "test_top5_error": float(self._kept("test_top5_error")),
            "train_top5_error": float(self._kept("train_top5_error")),
            "epochs": len(self.metrics["loss"]),
            "seconds": self.seconds,
            "worst_residual": float(self.metrics["worst_residual"].max()),
            "median_residual": float(self._kept("median_residual")),
            "skipped": int(self.metrics["skipped"].sum()),
            "test_unconverged": int(self._kept("test_unconverged")),
            "broken": int(np.nansum(self.metrics["broken"])),
            "config": self.config.as_dict(),
            "metrics": {name: values.tolist() for name, values in self.metrics.items()},
        }
