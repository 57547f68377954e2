"""The opposite nudge as the mirror image of the first: the estimate from the odd part of the output force alone.

Around its free state a network whose gates are held and whose layers are piecewise linear answers a force on its
outputs linearly, so that -d answers -f where d answers f. Of the force f(d) = -beta dC/dh(h + d) of a nudge the odd
part in beta is

    f_odd(d) = -beta [dC/dh(h + d) + dC/dh(h - d)] / 2

and the phase that it pulls at, with its mirror image, has one relaxation in place of two, and in the contrast

    (h + d) (x) delta - (h - d) (x) (-delta) = 2 h (x) delta

one product in place of two: five passes a step where both signs take seven (backprop has three). The centered
estimate has the even part, -beta^2 C'' d, in both of its states; it enters their contrast by its product with
itself and with d, so that the two estimates differ by O(beta^2), as each of them differs from the gradient. With
held gates and the squared error nothing but the gradient is left at any beta.
"""

from __future__ import annotations

import torch

from ..cost import Cost, costs
from ..errors import InputError, argument_error, unknown_name
from ..nudging import Stencil
from ..physical_system import Phase

OPPOSITES = ("relaxed", "mirrored")
"""What the state under -beta is: that of a phase of its own, or the mirror image of the one under +beta."""


class OddPart(Cost):
    """The cost whose slope at a displacement d from a centre c is the mean of another's at c + d and c - d.

    C_odd(o) = [C(o) - C(2 c - o)] / 2, so that its slope is even in d, and the force of a nudge by it odd in beta.

    Parameters
    ----------
    cost : Cost
    centre : Tensor (B, n)
        The free outputs.
    """

    def __init__(self, cost: Cost, centre: torch.Tensor) -> None:
        self.cost = cost
        self.centre = centre
        self.name = f"the odd part of {cost.name}"
        self.separable = cost.separable

    def value(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return 0.5 * (costs(self.cost, outputs, y) - costs(self.cost, self._mirrored(outputs), y))

    def gradient(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return 0.5 * (self.cost.gradient(outputs, y) + self.cost.gradient(self._mirrored(outputs), y))

    def gradient_difference(self, outputs: torch.Tensor, d: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        ahead = self.cost.gradient_difference(outputs, d, y)
        return 0.5 * (ahead + self.cost.gradient_difference(self._mirrored(outputs), -d, y))

    def curvature(self, outputs: torch.Tensor, y: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return 0.5 * (self.cost.curvature(outputs, y, v) - self.cost.curvature(self._mirrored(outputs), y, v))

    def linear(
        self, y: torch.Tensor, beta: torch.Tensor | complex
    ) -> tuple[torch.Tensor | complex, torch.Tensor] | None:
        parts = self.cost.linear(y, beta)
        return None if parts is None else (0.0, parts[1] - parts[0] * self.centre.to(parts[1]))

    def check(self, outputs: torch.Tensor, y: torch.Tensor) -> None:
        self.cost.check(outputs, y)

    def _mirrored(self, outputs: torch.Tensor) -> torch.Tensor:
        return 2 * self.centre.to(outputs) - outputs


def check_opposite(opposite: str, scheme: Stencil, cost: Cost) -> str:
    """The name of what stands under -beta, if the scheme and the cost allow for it.

    Raises
    ------
    InputError
        If it is none of `OPPOSITES`, or a mirror image with a scheme that has none, or with a cost that holds the
        outputs.
    """
    if opposite not in OPPOSITES:
        raise unknown_name("opposite", str(opposite), OPPOSITES)
    if opposite == "relaxed":
        return opposite
    if scheme.nodes != (1.0, -1.0) or scheme.random:
        must = (
            f"be 'relaxed' with the scheme {scheme.name!r}: a mirror image stands for one of the two of 'centered'"
        )
        raise argument_error("opposite", must, repr(opposite))
    if cost.holds:
        must = f"be 'relaxed' under {cost.name!r}, which holds the outputs: a held state has no mirror image"
        raise argument_error("opposite", must, repr(opposite))
    return opposite


def odd_part(cost: Cost, phase: Phase) -> OddPart:
    """The odd part of a cost around the free outputs of a phase, which has an origin.

    Raises
    ------
    InputError
        If the phase's displacements under opposite forces are not opposite.
    """
    if not phase.odd:
        raise InputError(
            f"Argument opposite must be 'relaxed' for {type(phase.system).__name__} with these units and gates: "
            "only a predictive coding network of piecewise linear layers whose gates are held answers opposite "
            "nudges by mirror images."
        )
    assert phase.origin is not None
    return OddPart(cost, phase.system.outputs(phase.origin).detach())
