"""Which epoch of a training is kept, and when a training ends before its last epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..config import Config


class Selection:
    """What epochs are judged by: the error on examples held out of the training set, else the training loss.

    The test set is no part of this. Without held-out examples the last epoch's state is the result, and the epoch
    of the smallest training loss is only kept beside it, to go back to after a divergence.

    Parameters
    ----------
    config : Config
        Its `data.validation` and `training.patience` count.
    measured : bool
        Whether targets are measured: examples held out then have a loss, and no error.

    Attributes
    ----------
    held_out : bool
        Whether examples are held out.
    figure : str
        Name of the metric whose smallest value is the best; the earliest epoch of several counts.
    """

    def __init__(self, config: Config, measured: bool = False) -> None:
        self.held_out = config.data.validation is not None
        judge = "validation_loss" if measured else "validation_error"
        self.figure = judge if self.held_out else "loss"
        self.patience = config.training.patience

    def start(self) -> dict[str, Any]:
        """The record of the best epoch before any epoch was trained."""
        return {"epochs": 0, self.figure: math.inf}

    def improved(self, best: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
        """Whether an epoch's figures are better than those of the best epoch so far; without a figure none is."""
        return float(row[self.figure]) < best[self.figure]

    def exhausted(self, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Whether `patience` epochs in a row, up to the last one, were no better than one before them."""
        if self.patience is None or not rows:
            return False
        errors = [math.inf if math.isnan(value) else value for value in (float(row[self.figure]) for row in rows)]
        return len(errors) - 1 - errors.index(min(errors)) >= self.patience
