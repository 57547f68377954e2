"""What is measured in each epoch of a training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..cost import Cost, check_labels
from ..equilibrium import Equilibrium, NotFinite, Status
from ..estimators.step import StepLike
from ..extremes import greatest
from ..landscape.exploration import averaged, mean_outputs, relax_from_many
from ..misses import Misses
from ..physical_system import PhysicalSystem
from ..ranks import Batch, gathered, summed

METRICS: dict[str, tuple[str, str]] = {
    "loss": ("cost units", "mean cost of the free states during the epoch"),
    "train_error": ("fraction", "training examples misclassified by the free states during the epoch"),
    "test_error": ("fraction", "test examples misclassified after the epoch; those without equilibrium count"),
    "train_top5_error": ("fraction", "training examples whose class is not among the five largest free outputs"),
    "test_top5_error": ("fraction", "the same of the test examples; those without equilibrium count"),
    "test_loss": ("cost units", "mean cost of the test examples after the epoch, of measured targets; else NaN"),
    "test_unconverged": ("examples", "test examples without equilibrium after the epoch"),
    "skipped": ("examples", "training examples left out for want of an equilibrium, or of its branch"),
    "switched": ("states", "nudged states that left the branch of their free state, and free states no minima"),
    "broken": ("images", "images of both parts left out during the epoch since they cannot be decoded"),
    "worst_residual": ("1", "largest residual of the equilibria used for gradients"),
    "median_residual": ("1", "median residual of the equilibria used for gradients"),
    "free_iterations": ("1", "mean iterations of a free phase"),
    "nudged_iterations": ("1", "mean iterations of a nudged phase"),
    "learning_rates": (
        "1",
        "learning rate of each parameter group during the epoch (at its start, where it changes)",
    ),
    "seconds": ("s", "wall time of the epoch, evaluation included"),
}
"""Name to (units, description), as stored in run files.

Figures are those of all ranks together. Errors are NaN where targets are measured, and no classes. With five
classes or fewer the top-5 errors are 0, but for test examples without equilibrium.
"""

HELD_OUT: dict[str, tuple[str, str]] = {
    "validation_error": ("fraction", "examples held out of the training set misclassified after the epoch"),
    "validation_top5_error": (
        "fraction",
        "the same with the five largest outputs; those without equilibrium count",
    ),
    "validation_loss": ("cost units", "mean cost of examples held out, of measured targets; else NaN"),
    "validation_unconverged": ("examples", "examples held out without equilibrium after the epoch"),
}
"""What a training with `data.validation` measures besides. Its test figures are those of the epoch that is kept,
and NaN for all others, after which the test set was not read."""

OF_TARGETS: dict[str, tuple[str, str]] = {
    "rms": ("unit of each target", "root mean square miss of each measured target after the epoch"),
    "r2": ("1", "1 - squared misses over the squared deviations from the mean, of each measured target"),
}
"""What is told of measured targets besides, (epochs, n): `test_rms`, and `validation_rms` of examples held out."""

TOP = 5


class Epoch:
    """Sums over the batches of one epoch.

    Parameters
    ----------
    system : EnergySystem or VectorField
        What is trained.

    Attributes
    ----------
    batches : int
    examples, skipped : int
        So far, of all ranks.
    switched : int
        So far, of this rank.
    unsettled : int
        Examples that were used though a phase of theirs has not converged, so far, of this rank.
    worst : float
        The largest residual of such a phase, on this rank.
    reason : str
        Why the latest phase that did not converge ended, on this rank; empty while there was none.
    """

    def __init__(self, system: PhysicalSystem) -> None:
        self._scores = system.scores
        self.batches = 0
        self.examples = 0
        self.skipped = 0
        self.switched = 0
        self.unsettled = 0
        self.worst = 0.0
        self.reason = ""
        self._used = 0
        self._loss = 0.0
        self._classes = True
        self._wrong = 0
        self._missed = 0
        self._residuals: list[torch.Tensor] = []
        self._free: list[int] = []
        self._nudged: list[int] = []

    def state(self) -> dict[str, Any]:
        """All sums so far, as a run file keeps them; `restore` takes them up."""
        found = {name: value for name, value in vars(self).items() if name != "_scores"}
        return {**found, "_residuals": [torch.cat(self._residuals)] if self._residuals else []}

    def restore(self, state: dict[str, Any], device: torch.device) -> None:
        """Go on from sums that `state` has given, on a device."""
        vars(self).update(state)
        self._residuals = [residuals.to(device) for residuals in self._residuals]

    def add(self, step: StepLike, labels: torch.Tensor) -> tuple[int, int]:
        """Add a step on a batch with these class indices (B,), or measured targets (B, n).

        Returns
        -------
        examples, used : int
            Examples of this batch, and those of them that gave a gradient, of all ranks.

        Raises
        ------
        NotFinite
            If the loss over the examples used is NaN or infinite.
        """
        used = len(labels) - step.skipped
        examples, skipped = map(int, summed([len(labels), step.skipped], labels.device))
        self.batches += 1
        self.examples += examples
        self.skipped += skipped
        self._used += used
        if used:
            loss = float(step.loss)
            if not math.isfinite(loss):
                raise NotFinite(f"The loss of batch {self.batches} is {loss}")
            self._loss += used * loss
        self._classes = not labels.is_floating_point()
        if self._classes:
            scores = self._scores(step.outputs)
            wrong = scores.argmax(1) != labels
            missed = ~_among_the_top(scores, labels)
        else:
            wrong = missed = torch.zeros(len(labels), dtype=torch.bool, device=labels.device)
        if step.equilibria:
            free, *nudged = step.equilibria
            lost = [p for p in step.equilibria if not p.status.settled]
            if lost:
                self.reason = lost[0].status.value
                self._count_unsettled(step, lost, len(labels))
            if step.skipped:
                settled = free.converged.view(-1, len(labels)).any(0)
                wrong |= ~settled
                missed |= ~settled
            self._residuals.append(_used_residuals(step))
            self.switched += getattr(step, "switched", 0) + getattr(step, "unstable", 0)
            self._free.append(free.iterations)
            self._nudged.extend(phase.iterations for phase in nudged)
        self._wrong += int(wrong.sum())
        self._missed += int(missed.sum())
        return examples, examples - skipped

    def _count_unsettled(self, step: StepLike, lost: list[Equilibrium], examples: int) -> None:
        """Count the examples that gave a gradient though one of the phases `lost` has not converged for them."""
        rows = torch.stack([~p.converged for p in lost]).any(0)
        used = getattr(step, "used", None)
        rows = rows & used if used is not None else rows & (step.skipped == 0)
        if bool(rows.any()):
            self.unsettled += int(rows.view(-1, examples).any(0).sum())
            self.worst = greatest((self.worst, *(float(p.residual[rows].max()) for p in lost)))

    def figures(self, device: torch.device) -> dict[str, Any]:
        """Metrics of the epoch; NaN where nothing was measured.

        Parameters
        ----------
        device : torch.device
            Through which ranks talk.
        """
        residuals = gathered(torch.cat(self._residuals) if self._residuals else torch.empty(0, device=device))
        known = residuals.numel() > 0
        phases = [len(self._free), sum(self._free), len(self._nudged), sum(self._nudged)]
        used, loss, wrong, missed, switched, free, free_sum, nudged, nudged_sum = summed(
            [self._used, self._loss, self._wrong, self._missed, self.switched, *phases], device
        )
        return {
            "loss": loss / used if used else float("nan"),
            "train_error": wrong / self.examples if self._classes else float("nan"),
            "train_top5_error": missed / self.examples if self._classes else float("nan"),
            "skipped": self.skipped,
            "switched": int(switched),
            "worst_residual": float(residuals.max()) if known else float("nan"),
            "median_residual": float(residuals.median()) if known else float("nan"),
            "free_iterations": free_sum / free if free else float("nan"),
            "nudged_iterations": nudged_sum / nudged if nudged else float("nan"),
        }


@dataclass(frozen=True)
class Evaluation:
    """How many test examples were classified, and how; or how far they were from measured targets.

    Attributes
    ----------
    examples : int
    wrong, missed : int
        Those whose class has not the largest output, or none of the five largest; those without equilibrium count.
    unconverged : int
        Those without equilibrium.
    measured : int
        Those with measured targets, of which there are no wrong ones.
    cost : float
        Sum of the costs of those of them that have an equilibrium.
    misses : Misses or None
        How far the outputs of those are from each target, in the unit of the outputs; None where none are measured.
    """

    examples: int
    wrong: int
    missed: int
    unconverged: int
    measured: int = 0
    cost: float = 0.0
    misses: Misses | None = None

    @property
    def error(self) -> float:
        """Fraction misclassified, in [0, 1]; NaN without examples, and of measured targets."""
        return self.wrong / self.examples if self.examples and not self.measured else float("nan")

    @property
    def top5_error(self) -> float:
        """Fraction whose class is not among the five largest outputs, in [0, 1]; NaN as `error` is."""
        return self.missed / self.examples if self.examples and not self.measured else float("nan")

    @property
    def loss(self) -> float:
        """Mean cost of the examples with measured targets and an equilibrium; NaN where there are none."""
        settled = self.measured - self.unconverged
        return self.cost / settled if settled > 0 else float("nan")

    def figures(self, part: str, targets: Mapping[str, Any] | None) -> dict[str, Any]:
        """Metrics of a part ('test', 'validation'), misses in the unit of the targets whose scales are given."""
        told = {
            f"{part}_error": self.error,
            f"{part}_top5_error": self.top5_error,
            f"{part}_loss": self.loss,
            f"{part}_unconverged": self.unconverged,
        }
        if self.misses is None or targets is None:
            return told
        scale = np.array(targets["scale"])
        return {**told, f"{part}_rms": scale * self.misses.rms, f"{part}_r2": self.misses.r2}

    def of_all_ranks(self, device: torch.device) -> Evaluation:
        """The evaluation of the examples of all processes together; every process must call this."""
        counts = (self.examples, self.wrong, self.missed, self.unconverged, self.measured, self.cost)
        own = self.misses
        of_targets: Sequence[float] | np.ndarray = (
            [] if own is None else own.squares
        )  # a process without examples does not know how many
        *whole, cost, n, those = summed(
            [*(float(n) for n in counts), len(of_targets), float(own is not None)], device
        )
        examples, wrong, missed, unconverged, measured = map(int, whole)
        misses = None if not those else _of_all(own, int(n / those), device)
        return Evaluation(examples, wrong, missed, unconverged, measured, cost, misses)


def _of_all(own: Misses | None, n: int, device: torch.device) -> Misses:
    """Misses of n targets of all processes together."""
    own = Misses(0, np.zeros(n), np.zeros(n), np.zeros(n)) if own is None else own
    count, *sums = summed([float(own.count), *own.squares, *(own.count * own.means)], device)
    squares, means = np.array(sums[:n]), np.array(sums[n:]) / max(count, 1.0)
    spreads = summed(list(own.spreads + own.count * (own.means - means) ** 2), device)
    return Misses(int(count), squares, means, np.array(spreads))


def evaluate(
    system: PhysicalSystem,
    batches: Iterable[Batch],
    *,
    solver: str | None = None,
    tolerance: float | None = None,
    max_iterations: int | None = None,
    starts: int = 1,
    seed: int = 0,
    cost: Cost | None = None,
) -> Evaluation:
    """Classify examples by their free equilibria, or judge outputs by measured targets.

    Parameters
    ----------
    system : EnergySystem or VectorField
    batches : iterable of (x, labels)
        The batches that this process evaluates: class indices (B,) or measured targets (B, n). Empty ones are
        passed over.
    solver, tolerance, max_iterations
        For `relax`.
    starts, seed : int
        Free phases an example, and what their random starts are drawn from: scores are means over those that
        converged.
    cost : Cost, optional
        The cost of measured targets.

    Returns
    -------
    Evaluation
        The evaluation of the examples of this process.

    Raises
    ------
    InputError
        If a label is beyond the outputs, or targets are measured and there is no cost.
    """
    examples = wrong = missed = unconverged = measured = 0
    total = 0.0
    pairs: list[torch.Tensor] = []
    generator = torch.Generator().manual_seed(seed)
    measure = True  # by construction is by construction: the first batch has shown it
    for x, labels in batches:
        if not len(labels):
            continue
        free = relax_from_many(
            system,
            x,
            starts,
            generator=generator,
            solver=solver,
            tolerance=tolerance,
            max_iterations=max_iterations,
            measure=measure,
        )
        measure = False
        settled = free.converged.view(starts, -1).any(0)
        if labels.is_floating_point() and cost is not None:
            outputs = mean_outputs(system, system.outputs(free.state), free.converged, starts)
            y = cost.encode(labels, outputs.shape[1], outputs.dtype)
            examples += len(labels)
            measured += len(labels)
            total += float(cost(outputs, y)[settled].sum())
            kept = settled.cpu()
            unconverged += int((~kept).sum())
            if y.shape == outputs.shape:
                pairs.append(torch.stack([outputs, y]).detach().cpu().double()[:, kept])
            continue
        scores = averaged(system.scores(system.outputs(free.state)), free.converged, starts)
        check_labels(labels, scores.shape[1])
        examples += len(labels)
        wrong += int((~((scores.argmax(1) == labels) & settled)).sum())
        missed += int((~(_among_the_top(scores, labels) & settled)).sum())
        unconverged += int((~settled).sum())
    misses = Misses.of(*torch.cat(pairs, 1).numpy()) if pairs else None
    return Evaluation(examples, wrong, missed, unconverged, measured, total, misses)


def classification_error(
    system: PhysicalSystem,
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
    system : EnergySystem or VectorField
    x : Tensor (N, ...)
    labels : Tensor (N,)
        Class indices.
    batch_size : int
    solver, tolerance, max_iterations
        For `relax`.

    Returns
    -------
    error : float
        Share of misclassified examples, in [0, 1]. Examples without equilibrium count as misclassified.
    unconverged : int
        How many those are.
    """
    batches = zip(x.split(batch_size), labels.split(batch_size), strict=True)
    found = evaluate(system, batches, solver=solver, tolerance=tolerance, max_iterations=max_iterations)
    return found.error, found.unconverged


def _among_the_top(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Whether each example's class (B,) is among its five largest scores (B, n)."""
    return (scores.topk(min(TOP, scores.shape[1]), dim=1).indices == labels[:, None]).any(1)


def _used_residuals(step: StepLike) -> torch.Tensor:
    """Residuals of all phases, of the states that gave a gradient, in one vector."""
    # What is an equilibrium by construction has been measured in another step.
    measured = [phase.residual for phase in step.equilibria if phase.status is not Status.BY_CONSTRUCTION]
    if not measured:
        return step.equilibria[0].residual.new_zeros(0)
    table = torch.stack(measured)
    used = getattr(step, "used", None)
    if used is None and step.skipped:
        used = torch.stack([phase.converged for phase in step.equilibria]).all(0)
    return table.flatten() if used is None else table[:, used].flatten()
