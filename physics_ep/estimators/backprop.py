"""Backprop under an EP recipe: the same data, optimizer and seeds, the gradient by autograd of the forward pass."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .. import ranks
from ..cost import Cost, as_targets
from ..equilibrium import Equilibrium, NotFinite, broken_parts
from ..errors import InputError
from ..inference import training
from ..physical_system import PhysicalSystem
from ..stillness import require_trained
from ..weights import Weights
from .step import warn_of_input


@dataclass(frozen=True)
class BackpropStep:
    """Outcome of one step of backprop, with the attributes of `step.StepLike` that training reads.

    Attributes
    ----------
    loss : Tensor ()
    outputs : Tensor (B, n_out)
    """

    loss: torch.Tensor
    outputs: torch.Tensor
    equilibria: tuple[Equilibrium, ...] = ()
    skipped: int = 0


class Backprop:
    """`backward(system, x, y)` as of `EquilibriumPropagation`, for systems whose free state is a forward pass.

    Parameters
    ----------
    cost : Cost
    """

    def __init__(self, cost: Cost) -> None:
        self.cost = cost

    @training
    def backward(self, system: PhysicalSystem, x: torch.Tensor, y: torch.Tensor) -> BackpropStep:
        """Add the gradient of the mean cost to `.grad`; over all ranks under torch.distributed.

        Raises
        ------
        InputError
            If the system has no forward pass.
        NotFinite
            If the loss, a gradient or a parameter is NaN or infinite.
        """
        if not system.feedforward:
            raise InputError(
                f"Argument ep.estimator must be 'ep' for {type(system).__name__}, whose free state is no forward "
                "pass, but was 'backprop'."
            )
        warn_of_input(x)
        require_trained(system)
        x, y = x.detach(), as_targets(y)
        weights = Weights(system)
        with torch.enable_grad(), weights:
            named = {n: p for n, p in system.named_parameters() if p.requires_grad}
            outputs = system(x)
            outputs = outputs.reshape(len(outputs), -1)
            wide = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
            loss = self.cost(wide, y).mean()
            found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
            grads = {name: g for name, g in zip(named, found, strict=True) if g is not None}
            broken = broken_parts(loss.detach(), grads) or ("" if weights.finite() else "parameters")
        if broken:
            raise NotFinite(f"NaN or infinite: {broken} of {type(system).__name__}")
        if ranks.is_distributed():
            everyone = ranks.total(float(len(x)), system.device)
            for g in grads.values():
                g.mul_(len(x) / everyone)
            ranks.all_reduce(grads)
        weights.deposit(grads)
        return BackpropStep(loss.detach(), outputs.detach())
