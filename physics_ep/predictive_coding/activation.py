"""What an activation of a predictive coding network is: its response, and what its energies are made of.

Psi(sigma(p)) = p sigma(p) - S(p) with S the integral of sigma, which is how curved potentials are computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

Elementwise = Callable[[torch.Tensor], torch.Tensor]


class Anchor:
    """An activation near one pre-activation a, (B, ...): what every displacement from it shares is computed once.

    Displacements may be of several stacked batches, (copies * B, ...).

    Attributes
    ----------
    a : Tensor
    slope : Tensor
        sigma'(a).
    """

    def __init__(self, unit: Activation, a: torch.Tensor) -> None:
        self.unit = unit
        self.a = a
        self.slope = unit.slope(a)

    def curvature(self) -> torch.Tensor | None:
        """sigma''(a); None where it is zero."""
        return None if self.unit.curvature is None else self.unit.curvature(self.a)

    def moved(self, d: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(sigma(a + d) - sigma(a), sigma'(a + d)), of the shape of d."""
        rows = self.stacked(d)
        shift = self.unit.displaced(self.a.expand_as(rows), rows)
        return shift.flatten(0, 1), self.unit.slope(self.a + rows).flatten(0, 1)

    def stacked(self, d: torch.Tensor) -> torch.Tensor:
        """Stacked batches apart from one another, (copies, B, ...)."""
        return d.unflatten(0, (len(d) // max(len(self.a), 1), -1))


@dataclass(frozen=True)
class Activation:
    """An elementwise response.

    Attributes
    ----------
    name : str
    response : callable (a) -> sigma(a)
    slope : callable (a) -> sigma'(a)
        0 at the kink of a ReLU.
    displaced : callable (a, d) -> sigma(a + d) - sigma(a)
        Without cancellation for small d.
    integral : callable (a) -> S(a)
        The integral of sigma, S' = sigma: the convex conjugate of Psi.
    inverse : callable (v) -> p with sigma(p) = v, or None
        On the range of sigma. None: sigma is not monotone.
    smooth : bool
    piecewise_linear : bool
        With its gates held, the response is linear, of slope 0 or 1.
    bounds : (float, float)
        Closure of the range of sigma, where there is an inverse.
    curvature : callable (a) -> sigma''(a), or None
        None: zero wherever it exists. First guesses of nudged states take it.
    anchor : type, optional
        An `Anchor` that does better than two separate evaluations.
    """

    name: str
    response: Elementwise
    slope: Elementwise
    displaced: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    integral: Elementwise
    inverse: Elementwise | None
    smooth: bool
    piecewise_linear: bool
    bounds: tuple[float, float] = (-math.inf, math.inf)
    curvature: Elementwise | None = None
    anchor: type[Anchor] | None = None

    @property
    def gated(self) -> bool:
        """Whether there are gates to be held: slopes of 0 and 1, and kinks between them."""
        return self.piecewise_linear and not self.smooth

    def open(self, v: torch.Tensor) -> torch.Tensor:
        """Where a unit that puts out v has the slope 1; of gated responses."""
        lo, hi = self.bounds
        return v > lo if math.isinf(hi) else (v > lo) & (v < hi)

    def at(self, a: torch.Tensor) -> Anchor:
        """The response near one pre-activation, to be displaced from it many times."""
        return (self.anchor or Anchor)(self, a)

    def potential(self, state: torch.Tensor) -> torch.Tensor:
        """Psi of a state: of the unit's output v, or of its pre-activation p where there is no inverse."""
        if self.piecewise_linear:
            return 0.5 * state.square()
        if self.inverse is None:
            return state * self.response(state) - self.integral(state)
        p = self.inverse(state)
        return state * p - self.integral(p)

    def output(self, state: torch.Tensor) -> torch.Tensor:
        """What the unit puts out in a state."""
        return self.response(state) if self.inverse is None else state
