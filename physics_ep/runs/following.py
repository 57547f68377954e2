"""A beta that gives way where training brings the stability limit of negative nudges below it (`ep.lower_beta`)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch

from ..estimators.propagation import EquilibriumPropagation, NegativeNudgeError
from ..ranks import rank

SHARE = 0.3
"""Share of the limit that a lowered beta takes: the bias of a centered scheme is of the order of its square, and
the limit, measured again in the next epoch or after `measure_every` steps, has room to fall further."""


class LoweredBetaWarning(UserWarning):
    """Warns, once a training, that beta is lower in some steps than the config has it."""


class Following:
    """Lowers beta where the limit of negative nudges falls below it, and says so once."""

    def __init__(self) -> None:
        self.told = False

    def backward(self, ep: EquilibriumPropagation, epoch: int) -> Callable[[Any, torch.Tensor, torch.Tensor], Any]:
        """`ep.backward` that takes a step again with 0.3 of the limit where that is at beta or below.

        Parameters
        ----------
        ep : EquilibriumPropagation
            Its `beta` is lowered, once or more.
        epoch : int
            From 0, for the warning.
        """

        def step(system: Any, x: torch.Tensor, y: torch.Tensor) -> Any:
            try:
                return ep.backward(system, x, y)
            except NegativeNudgeError:
                given, lower = ep.beta, SHARE * ep.stability_limit
                if not math.isfinite(lower) or lower <= 0:
                    raise
                ep.beta = lower
                self._tell(epoch, given, lower)
                return ep.backward(system, x, y)

        return step

    def _tell(self, epoch: int, given: float, lower: float) -> None:
        if not self.told and not rank():
            warnings.warn(
                f"epoch {epoch + 1}: the system nudged by -{given:.3g} has no equilibrium any more; from here on "
                f"beta is lower where it must be, {lower:.2g} now (ep.lower_beta)",
                LoweredBetaWarning,
                stacklevel=2,
            )
        self.told = True
