"""Training under an EP recipe with exact gradients instead: what the recipe gives when EP's bias is taken away."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from physics_ep.config import load_config
from physics_ep.cost import Cost
from physics_ep.physical_system import PhysicalSystem
from physics_ep.progress import SILENT, Progress
from physics_ep.runs.results import TrainingResult
from physics_ep.runs.seeds import SeedsResult
from physics_ep.runs.training import train
from physics_ep.weights import Weights

from ..oracles import implicit_gradient

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class ExactStep:
    """Outcome of one exact step, as training reads it (`physics_ep.estimators.step.StepLike`)."""

    loss: torch.Tensor
    outputs: torch.Tensor
    equilibria: tuple[Any, ...] = ()
    skipped: int = 0


def described(backward: F, description: str) -> F:
    """A function that fills gradients, with what run files of its trainings say of it."""
    backward.description = description  # type: ignore[attr-defined]
    return backward


def exact_backward(cost: Cost, tolerance: float = 1e-7) -> Callable[..., ExactStep]:
    """A `backward(system, x, y)` that fills `.grad` by implicit differentiation.

    Parameters
    ----------
    cost : Cost
    tolerance : float
        Residual of the free state and relative residual of the adjoint solve.
    """

    def backward(system: PhysicalSystem, x: torch.Tensor, y: torch.Tensor) -> ExactStep:
        found = implicit_gradient(system, x, y, cost, tolerance=tolerance, adjoint_tolerance=tolerance)
        Weights(system).deposit(
            {name: found[name].to(p.dtype) for name, p in system.named_parameters() if name in found}
        )
        assert found.outputs is not None
        return ExactStep(loss=torch.tensor(found.loss), outputs=found.outputs.to(x.dtype))

    return described(backward, f"exact gradients by an iterative solve to {tolerance:g}, cost {cost.name}")


def train_exactly(
    config: str | os.PathLike[str], *, progress: Progress | bool = SILENT, tolerance: float = 1e-7, **options: Any
) -> TrainingResult | SeedsResult:
    """Train a config with implicit gradients; the rest of the recipe (data order, optimizer, seeds) is the same.

    Parameters
    ----------
    config : str or path
    progress : Progress
    tolerance : float
        Largest residual of the linear system that gives the exact gradient.
    **options
        Further arguments of `physics_ep.train`.

    Returns
    -------
    TrainingResult
        A `SeedsResult` where the config has several seeds.
    """
    cost = load_config(config, options.get("overrides", ())).ep.new_cost()
    return train(config, progress=progress, backward=exact_backward(cost, tolerance), **options)
