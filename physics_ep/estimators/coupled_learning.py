"""Contrasts of a free and a clamped state: learning rules that are no gradient of the cost, to judge beside EP."""

from __future__ import annotations

import math

import torch

from ..cost import Cost, SquaredError
from ..errors import InputError, argument_error
from ..nudging import positive
from ..physical_system import Phase, PhysicalSystem
from ..vector_field import VectorField
from ..weights import Weights
from .methods import Choice, MethodChoice, require_function
from .propagation import EquilibriumPropagation
from .step import Step

SLACK = 1e-3
"""How far clamped outputs may lie from where they are held, over the largest way that they are moved. Phases hold
them exactly, or to their tolerance; a phase that takes the clamp for a nudge is off by the whole way."""


NOT_HELD = (
    "Argument system must hold its outputs in a clamped phase, but its phases take the clamp for a cost: override "
    "what they do where nudge.cost.holds, or set clamps = False on the system."
)


class OutputClamp(Cost):
    """Outputs held at (1 - beta) outputs + beta y, whatever the drive: a constraint in the place of a nudge."""

    name = "output_clamp"
    holds = True

    def __call__(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        raise InputError(NOT_HELD)

    def curvature(self, outputs: torch.Tensor, y: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        raise InputError(NOT_HELD)

    def gradient(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        # The direction in which the outputs are moved, as under the squared error.
        return outputs - y

    def displaced_unit(
        self, outputs: torch.Tensor, y: torch.Tensor, beta: torch.Tensor | complex, rhs: torch.Tensor
    ) -> torch.Tensor:
        return (beta * (y - outputs)).expand_as(rhs)

    def check(self, outputs: torch.Tensor, y: torch.Tensor) -> None:
        SquaredError().check(outputs, y)


class OwnLaw(MethodChoice):
    """The method of clamped phases: they follow the system's own law, whether it has an energy or not."""

    def displaced(self, system: PhysicalSystem, base: Phase) -> tuple[Phase, torch.Tensor | None]:
        self.choice = Choice("vector-field" if isinstance(system, VectorField) else "energy")
        if not (isinstance(system, VectorField) and self._due(system)):
            return base, None
        require_function(system, base)
        return base, base.rightmost()


class CoupledLearning(EquilibriumPropagation):
    """Coupled learning (Stern, Hexner, Rocks and Liu, Phys. Rev. X 2021): outputs clamped towards the target.

    The estimate is [dE/dtheta(clamped) - dE/dtheta(free)] / fraction. As the fraction goes to 0 it is the gradient
    of 1/2 (y - o) . S (y - o) at fixed y - o, with S the Schur complement of the Hessian on the outputs: not that
    of the squared error, whose S is the identity. fraction = 1 is classical clamping of the outputs (contrastive
    Hebbian learning, Movellan 1991).

    Without an energy the estimate is what stands for that difference: minus the way from the free to the clamped
    state times dF/dtheta midway between them, F the force. Of a transistor that is the change of the voltage across
    it times what its gate changes of its current: local, but no gradient where the circuit is not reciprocal.

    Parameters
    ----------
    fraction : float
        Share of the way to the target to which outputs are drawn, in (0, 1].
    solver, tolerance, max_iterations, on_unconverged
        The arguments of `EquilibriumPropagation` of the same names.

    Notes
    -----
    The system's phases must be able to hold outputs (`EnergySystem.clamps`): layered and graph-shaped Hopfield
    networks, resistive networks, predictive coding networks and circuits can; systems that only have an
    energy, oscillators, excitable media and noisy networks cannot. Targets are real-valued; the loss reported is
    the squared error. That the outputs were held is checked at every step.
    """

    def __init__(
        self,
        fraction: float = 0.1,
        solver: str | None = None,
        tolerance: float | None = None,
        max_iterations: int | None = None,
        on_unconverged: str = "raise",
    ) -> None:
        number = isinstance(fraction, int | float) and not isinstance(fraction, bool)
        if not number or not 0 < fraction <= 1:
            raise argument_error("fraction", "lie in (0, 1]", fraction)
        super().__init__(SquaredError(), positive(), fraction, solver, tolerance, max_iterations, on_unconverged)
        self.pull = OutputClamp()
        self.choice = OwnLaw(None, self.scheme, self.choice.every)

    def __repr__(self) -> str:
        return f"CoupledLearning(fraction={self.beta:g})"

    def backward(
        self,
        system: PhysicalSystem,
        x: torch.Tensor,
        y: torch.Tensor,
        *,
        sync: bool = True,
        input_gradient: bool = False,
    ) -> Step:
        """Add the contrast over the fraction, a batch mean, to `.grad`, as `EquilibriumPropagation.backward` does.

        Raises
        ------
        InputError
            If input_gradient is True: this rule is no gradient.
        """
        if input_gradient:
            raise argument_error("input_gradient", "be False for CoupledLearning, whose rule is no gradient", True)
        return super().backward(system, x, y, sync=sync)

    def check(self, system: PhysicalSystem) -> None:
        """Refuse a system whose outputs cannot be clamped, and what `EquilibriumPropagation.check` refuses."""
        if not system.clamps:
            raise InputError(
                f"Argument system must have exact block updates to clamp its outputs, but {type(system).__name__} "
                "has none."
            )
        super().check(system)

    def _estimate(
        self, system: PhysicalSystem, weights: Weights, x: torch.Tensor, y: torch.Tensor, input_gradient: bool
    ) -> tuple[dict[str, torch.Tensor], Step, int]:
        grads, step, used = super()._estimate(system, weights, x, y, input_gradient)
        free, clamped = step.equilibria[:2]
        outputs = system.outputs(free.state)
        way = self.beta * (y - outputs)
        off = (system.outputs(clamped.state) - outputs - way)[clamped.converged]
        room = SLACK * way.abs().max() + math.sqrt(torch.finfo(outputs.dtype).eps) * (1 + outputs.abs().max())
        if off.numel() and not bool((off.abs() <= room).all()):
            raise InputError(
                f"{NOT_HELD[:-1]} ({type(system).__name__}: outputs {float(off.abs().max()):.3g} off)."
            )
        return grads, step, used
