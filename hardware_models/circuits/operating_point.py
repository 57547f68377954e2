"""What is known of an operating point of a circuit, whether the circuit has an energy or not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from physics_ep.equilibrium import Equilibrium, NotConverged
from physics_ep.errors import InputError

from ..nodal.points import Solution, why_untold

TOLERANCE = 1e-12
"""Amperes that may be missing at a node of an operating point, and volts that they may move it by."""


@dataclass(frozen=True, repr=False)
class OperatingPoint(Equilibrium):
    """An equilibrium that knows the voltages of the sources.

    Attributes
    ----------
    sources : Tensor (B, n_sources) or None
        Volts.
    single : bool
        Whether it is that of the parts' own sources: node voltages are then plain numbers.
    untold : tuple of str
        Nodes that leakage alone holds, and whose voltages float64 cannot tell.
    """

    sources: torch.Tensor | None = None
    single: bool = False
    untold: tuple[str, ...] = ()

    def require(self) -> OperatingPoint:
        """Return self if every example converged, else raise `NoOperatingPoint`."""
        if not bool(self.converged.all()):
            raise NoOperatingPoint(self)
        return self


class NoOperatingPoint(NotConverged, InputError):  # noqa: N818 (as NotConverged)
    """Raised where a circuit's operating point is needed and was not found; `.equilibrium` holds what was."""

    def __init__(self, point: OperatingPoint) -> None:
        super().__init__(point)
        if point.untold:
            why = why_untold(point.untold)
            self.args = (f"No operating point was found in {point.iterations} iterations: {why}.",)
            return
        missing = float(point.residual_si.nan_to_num(nan=float("inf")).max())
        was = f"{missing:.2g} A are missing at a node" if missing < float("inf") else "voltages grow without bound"
        self.args = (
            f"No operating point was found in {point.iterations} iterations of {point.solver}: {was}. The circuit "
            "may have none (a current that nothing can carry, active parts that drive each other), or needs more "
            "max_iterations.",
        )


def missing(found: Solution) -> torch.Tensor:
    """Residuals (B,), amperes; infinite where small ones say nothing: voltages are not settled, or untold."""
    settled = found.converged | (found.residual > found.tolerance)
    return torch.from_numpy(np.where(settled, found.residual, np.inf))
