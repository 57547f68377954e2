"""How a phase moves in time: what an integrator integrates, and what is recorded of it.

A `Phase` knows where its equilibrium lies; a `Motion` knows how the system gets there. The default is gradient
flow, tau_k ds_k/dt = -dF/ds_k within the bounds, with the other sign for blocks that ascend (skew-gradient flow). A
system whose state follows from other variables (voltages on capacitors, say) returns its own subclass from
`EnergySystem.motion`. Flows that any system may be asked for instead stand in `physics_ep.dynamics.flows`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from ..blocks import State
from ..system import Phase


class Moment(NamedTuple):
    """What a trajectory records at one time.

    Attributes
    ----------
    state : tuple of Tensor (B, ...)
    energy : Tensor (B,)
        F = E + beta C.
    residual : Tensor (B,)
        Largest component of the force over the system's `residual_scale`.
    internal : tuple of Tensor (B, ...)
        The variables that are integrated beside the state or in its place; else empty.
    """

    state: State
    energy: torch.Tensor
    residual: torch.Tensor
    internal: State = ()


class Motion:
    """Gradient flow of one `Phase`, whose unknown z is what moves; subclass it for any other dynamics.

    Blocks move at `EnergySystem.directions` over `EnergySystem.time_constants` times their force.

    Parameters
    ----------
    phase : Phase

    Attributes
    ----------
    internal_unit : str
        Of `Moment.internal`.
    """

    def __init__(self, phase: Phase) -> None:
        self.phase = phase
        self.internal_unit = phase.system.state_unit
        signs, taus = phase.system.directions, phase.system.time_constants
        self._rates: tuple[float, ...] | None = None
        if signs is not None or taus is not None:
            blocks = len(signs or taus or ())
            self._rates = tuple(
                sign / tau for sign, tau in zip(signs or (1,) * blocks, taus or (1.0,) * blocks, strict=True)
            )

    def start(self, z: State) -> State:
        """Variables w to integrate, for a phase that starts at z."""
        return z

    def velocity(self, w: State) -> State:
        """dw/dt, over the system's time unit. Examples must not depend on each other."""
        return self._driven(self.phase.force(w))

    def inside(self, w: State) -> State:
        """Nearest w within the bounds."""
        return self.phase.project(w)

    def observe(self, w: State, velocity: State) -> Moment:
        """What to record at w, where dw/dt is `velocity`."""
        return Moment(self.phase.state(w), self.phase.energy(w), self.phase.residual(self._force(velocity)))

    def leap(self, w: State, stages: np.ndarray, weights: np.ndarray, dt: float, count: int) -> State | None:
        """w after `count` equal steps of an explicit method, for motions whose compiled code takes many at once.

        None (the default) means that there is no such code: `integrators.advance` then goes step by step.

        Parameters
        ----------
        w : tuple of Tensor (B, ...)
        stages : ndarray (s, s)
            Strictly lower triangular: stage i is evaluated at w + dt sum_j stages[i, j] k_j.
        weights : ndarray (s,)
            The step is dt sum_i weights[i] k_i.
        dt : float
        count : int
        """
        return None

    def _driven(self, force: State) -> State:
        """What a force makes the blocks do."""
        if self._rates is None:
            return force
        return tuple(rate * f for rate, f in zip(self._rates, force, strict=True))

    def _force(self, velocity: State) -> State:
        """The force behind a velocity."""
        if self._rates is None:
            return velocity
        return tuple(v / rate for rate, v in zip(self._rates, velocity, strict=True))
