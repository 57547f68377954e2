"""What one step of equilibrium propagation did, and how exact it is; what training reads of any step."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import torch

from ..equilibrium import Equilibrium
from .methods import HARDWARE


@dataclass(frozen=True)
class Step:
    """The outcome of one EP step: loss, equilibria, and what is known of the gradient's errors.

    Attributes
    ----------
    loss : Tensor ()
        Mean cost at the free states over the examples used; NaN where none was.
    outputs : Tensor (B, n_out)
        Outputs at the free state; with several starts, the mean over those used.
    equilibria : tuple of Equilibrium
        The free phase, then the nudged phases in the stencil's order. With N starts they hold N * B states: all
        examples from the first start, then all from the second, ...
    beta : float
    skipped : int
        Examples left out because a phase did not converge (from any start), or left its branch, or since a cost or
        the gradient was not finite.
    used : Tensor of bool (N * B,)
        Whether each state gave a gradient.
    switched : int
        States whose nudged phase left the branch of the free one, of N * B; 0 where that was not checked.
    method : str
        The method that was taken: 'energy', 'vector-field', 'asymmetric' or 'dyadic'.
    asymmetry : float
        |A| / |J| of the force's Jacobian at the free state as last measured; NaN where nothing asked for it.
    hardware : str
        What the method asks of a machine that does it.
    input_gradient : Tensor (B, ...) or None
        dC/dx of the mean cost, zero for examples left out; None where it was not asked for.
    unstable : int
        Free states that are no minima, of N * B; 0 where that was not checked.
    noise_floors : dict
        Parameter name to a bound on the relative error of its gradient from residuals and rounding at this beta
        (the finite-beta bias is not in it). Computed when asked for, by a float64 twin of the step.
    noise_floor : float
        The same for the gradient as one vector.
    """

    loss: torch.Tensor
    outputs: torch.Tensor = field(repr=False)
    equilibria: tuple[Equilibrium, ...] = field(repr=False)
    beta: float
    skipped: int
    _floors: Callable[[], dict[str, float]] = field(repr=False)
    _leakage: Callable[[], float] = field(repr=False)
    used: torch.Tensor | None = field(default=None, repr=False)
    switched: int = 0
    unstable: int = 0
    input_gradient: torch.Tensor | None = field(default=None, repr=False)
    method: str = "energy"
    asymmetry: float = math.nan

    @property
    def hardware(self) -> str:
        return HARDWARE[self.method]

    @cached_property
    def _all_floors(self) -> dict[str, float]:
        return self._floors()

    @cached_property
    def imaginary_leakage(self) -> float:
        """How far a phase is from the conjugate of its mirror image, over its size: what is lost to Im dL/dtheta.

        Conjugate symmetry halves the phases of a holomorphic scheme; this relaxes one of those left out and
        compares. Rounding and residual for an energy that is real on real states, of order one for one that is
        not analytic. 0 for real schemes.
        """
        return self._leakage()

    @property
    def noise_floors(self) -> dict[str, float]:
        return {name: value for name, value in self._all_floors.items() if name}

    @property
    def noise_floor(self) -> float:
        return self._all_floors[""]


def warn_of_input(x: object) -> None:
    """Say that an input that requires a gradient gets none: an encoder in front of it would not learn."""
    if isinstance(x, torch.Tensor) and x.requires_grad:
        warnings.warn(
            "Argument x requires a gradient, but gets none: what made it will not learn. Ask for it with "
            "EquilibriumPropagation.backward(..., input_gradient=True), or pass x.detach().",
            UserWarning,
            stacklevel=3,
        )


class StepLike(Protocol):
    """What training reads of a gradient step; `Step` is one."""

    @property
    def loss(self) -> torch.Tensor: ...

    @property
    def outputs(self) -> torch.Tensor: ...

    @property
    def equilibria(self) -> tuple[Equilibrium, ...]: ...

    @property
    def skipped(self) -> int: ...
