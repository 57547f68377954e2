"""What is measured in each epoch of a training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from .equilibrium import Equilibrium
from .relaxation import relax
from .system import EnergySystem

if TYPE_CHECKING:
    from .training import StepLike

METRICS: dict[str, tuple[str, str]] = {
    "loss": ("cost units", "mean cost of the free states during the epoch"),
    "train_error": ("fraction", "training examples misclassified by the free states during the epoch"),
    "test_error": ("fraction", "test examples misclassified after the epoch; those without equilibrium count"),
    "test_unconverged": ("examples", "test examples without equilibrium after the epoch"),
    "skipped": ("examples", "training examples left out for want of an equilibrium"),
    "worst_residual": ("1", "largest residual of the equilibria used for gradients"),
    "median_residual": ("1", "median residual of the equilibria used for gradients"),
    "free_iterations": ("1", "mean iterations of a free phase"),
    "nudged_iterations": ("1", "mean iterations of a nudged phase"),
    "learning_rates": ("1", "learning rate of each parameter group during the epoch"),
    "seconds": ("s", "wall time of the epoch, evaluation included"),
}
"""Name to (units, description), as stored in run files."""


class Epoch:
    """Sums over the batches of one epoch.

    Parameters
    ----------
    total : int
        Examples in the epoch.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.batches = 0
        self.examples = 0
        self.skipped = 0
        self._used = 0
        self._loss = 0.0
        self._wrong = 0
        self._residuals: list[torch.Tensor] = []
        self._free: list[int] = []
        self._nudged: list[int] = []

    def add(self, step: StepLike, labels: torch.Tensor) -> None:
        """Add a step on a batch with these class indices (B,)."""
        used = len(labels) - step.skipped
        self.batches += 1
        self.examples += len(labels)
        self.skipped += step.skipped
        self._used += used
        self._loss += used * float(step.loss)
        wrong = step.outputs.argmax(1) != labels
        if step.equilibria:
            free, *nudged = step.equilibria
            if step.skipped:
                wrong |= ~free.converged
            self._residuals.append(_used_residuals(step.equilibria, step.skipped))
            self._free.append(free.iterations)
            self._nudged.extend(phase.iterations for phase in nudged)
        self._wrong += int(wrong.sum())

    def figures(self) -> dict[str, Any]:
        """Metrics of the epoch; NaN where nothing was measured."""
        residuals = torch.cat(self._residuals) if self._residuals else torch.empty(0)
        known = residuals.numel() > 0
        return {
            "loss": self._loss / self._used if self._used else float("nan"),
            "train_error": self._wrong / self.examples,
            "skipped": self.skipped,
            "worst_residual": float(residuals.max()) if known else float("nan"),
            "median_residual": float(residuals.median()) if known else float("nan"),
            "free_iterations": _mean(self._free),
            "nudged_iterations": _mean(self._nudged),
        }


def classification_error(
    system: EnergySystem,
    x: torch.Tensor,
    labels: torch.Tensor,
    *,
    batch_size: int = 1000,
    solver: str | None = None,
    tolerance: float | None = None,
    max_iterations: int | None = None,
) -> tuple[float, int]:
    """Fraction of examples that the free equilibria misclassify.

    Parameters
    ----------
    system : EnergySystem
    x : Tensor (N, ...)
    labels : Tensor (N,)
        Class indices.
    batch_size : int
    solver, tolerance, max_iterations
        For `relax`.

    Returns
    -------
    error : float
        In [0, 1]. Examples without equilibrium count as misclassified.
    unconverged : int
        How many those are.
    """
    wrong = unconverged = 0
    for batch, truth in zip(x.split(batch_size), labels.split(batch_size), strict=True):
        free = relax(system, batch, solver=solver, tolerance=tolerance, max_iterations=max_iterations)
        right = system.outputs(free.state).argmax(1) == truth
        wrong += int((~(right & free.converged)).sum())
        unconverged += int((~free.converged).sum())
    return wrong / len(labels), unconverged


def _used_residuals(phases: tuple[Equilibrium, ...], skipped: int) -> torch.Tensor:
    """Residuals of all phases, of the examples that gave a gradient, in one vector."""
    table = torch.stack([phase.residual for phase in phases])
    if skipped:
        kept = torch.stack([phase.converged for phase in phases]).all(0)
        table = table[:, kept]
    return table.flatten()


def _mean(counts: list[int]) -> float:
    return sum(counts) / len(counts) if counts else float("nan")
