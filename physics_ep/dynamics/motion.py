"""How a phase moves in time: what an integrator integrates, and what is recorded of it.

A `Phase` knows where its equilibrium lies; a `Motion` knows how the system gets there. The default is gradient
flow, tau_k ds_k/dt = -dF/ds_k, with the other sign for blocks that ascend (skew-gradient flow). Bounds stop it: a
variable that has come to one stays there for as long as its force points outwards (Dupuis and Nagurney, Annals of
Operations Research 44 (1993) 9). The force is the energy's own slope, whatever metric a solver may choose for its
steps. A system whose state follows from other variables (voltages on capacitors, say) returns its own subclass from
`EnergySystem.motion`. Flows that a system may be asked for instead stand in `physics_ep.dynamics.flows`.
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
    flow : str or None
        Flow of `simulate` that the motion follows, for a system's own motion that follows one; None: none of them.
    internal_unit : str
        Unit of the internal variables, `Moment.internal`.
    pace : tuple of Tensor or None
        Largest `Phase.own_rates` of each variable at all w whose velocity has been asked for since this was None.
        Steps of explicit methods must be short for it all along, not at the start alone. None: not known.
    """

    flow: str | None = None

    def __init__(self, phase: Phase) -> None:
        self.phase = phase
        self.internal_unit = phase.system.state_unit
        self.bounded = phase.system.bounded
        self.pace: State | None = None
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
        if not self.bounded:
            return self._driven(self.phase.force(w))
        # Outside (where stages of implicit methods may lie), that of the nearest w within.
        near = self.phase.interior(w)
        self._pace(near)
        return self._driven(self.phase.unbounded_force(near))

    def inside(self, w: State) -> State:
        """The nearest w within the bounds of the variables."""
        return self.phase.interior(w)

    def drifted(self, w: State) -> State:
        """w, to which the velocity alone has led, within the bounds: what `inside` is for noise and velocity."""
        return self.inside(w)

    def observe(self, w: State, velocity: State) -> Moment:
        """What a trajectory records at w, where dw/dt is `velocity`."""
        phase = self.phase
        force = phase.force(w) if self.bounded else self._force(velocity)
        return Moment(phase.state(w), phase.energy(w), phase.residual(force))

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

    def _pace(self, w: State) -> None:
        """Note how fast the variables move back by themselves at w."""
        rates = self.phase.own_rates(w)
        if rates is not None:
            known = self.pace or rates
            self.pace = tuple(torch.maximum(a, b) for a, b in zip(known, rates, strict=True))

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
