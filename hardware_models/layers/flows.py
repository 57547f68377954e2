"""Flows of networks of units, beside the gradient flow of their energy: all come to rest where its slope vanishes.

With the drive p(s) of the units, which a nudge adds -beta dC/ds to, and their response sigma = (Psi')^-1:

* gradient (`physics_ep.dynamics.motion`): ds/dt = -dF/ds = p(s) - Psi'(s);
* hopfield: du/dt = p(s) - u with s = sigma(u), the amplifiers' circuit of Hopfield (1984, eq. 5) with R C = 1 at
  every input. In the state it is ds/dt = sigma'(u) (-dF/ds): the same way down for units that do not saturate,
  slowed where they do;
* rate: ds/dt = sigma(p(s)) - s, firing rates that follow their drive (Dayan and Abbott 2001, eq. 7.11). Relaxation
  steps along it. An output unit under a nudge goes to where F is least over it alone.

Sources: Hopfield, PNAS 81 (1984) 3088; Dayan and Abbott, Theoretical Neuroscience (2001), section 7.2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from physics_ep.blocks import State
from physics_ep.dynamics.motion import Moment, Motion
from physics_ep.system import Phase


class Laws(NamedTuple):
    """How the units of a system answer; each takes and gives blocks (B, ...).

    Attributes
    ----------
    drives : callable (s) -> p
        Drives of the free system, at a state s.
    responses : callable (p) -> sigma(p)
    inverses : callable (s) -> Psi'(s)
        The drive at which a unit rests at s.
    """

    drives: Callable[[State], State]
    responses: Callable[[State], State]
    inverses: Callable[[State], State]


class HopfieldFlow(Motion):
    """The circuit of Hopfield (1984): du/dt = -u + p(sigma(u)), integrated in the units' inputs u.

    The residual is that of the state: a unit that its bound holds has settled, though its input may still move.

    Parameters
    ----------
    phase : Phase
    laws : Laws
    """

    def __init__(self, phase: Phase, laws: Laws) -> None:
        super().__init__(phase)
        self.laws = laws

    def start(self, z: State) -> State:
        """u of the state at which the phase starts; of a unit that its drive holds there, that drive."""
        state = self.phase.state(z)
        drives = self.laws.drives(state)
        parts = zip(drives, self.laws.responses(drives), self.laws.inverses(state), state, strict=True)
        return tuple(torch.where(response == s, p, u) for p, response, u, s in parts)

    def velocity(self, w: State) -> State:
        state = self.laws.responses(w)
        drives = self.laws.drives(state)
        if self.phase.nudge is not None:
            drives = tuple(p + f for p, f in zip(drives, self.phase.cost_force(state), strict=True))
        return tuple(p - u for p, u in zip(drives, w, strict=True))

    def inside(self, w: State) -> State:
        return w

    def observe(self, w: State, velocity: State) -> Moment:
        phase, state = self.phase, self.laws.responses(w)
        z = state if phase.origin is None else tuple(s - o for s, o in zip(state, phase.origin, strict=True))
        return Moment(state, phase.energy(z), phase.residual(phase.force(z)), w)


class RateFlow(Motion):
    """Every unit moves to its exact update at unit rate: ds/dt = sigma(p(s)) - s for a phase that has such updates.

    Parameters
    ----------
    phase : Phase
    """

    def velocity(self, w: State) -> State:
        return self.phase.force(w)

    def inside(self, w: State) -> State:
        return self.phase.project(w)

    def observe(self, w: State, velocity: State) -> Moment:
        return Moment(self.phase.state(w), self.phase.energy(w), self.phase.residual(velocity))


def unit_flows(phase: Phase, laws: Laws) -> dict[str, Callable[[Phase], Motion]]:
    """Flows by name of a phase of units; 'rate' only where each unit has an exact update."""
    flows: dict[str, Callable[[Phase], Motion]] = {"hopfield": lambda given: HopfieldFlow(given, laws)}
    return {**flows, "rate": RateFlow} if phase.exact_updates else flows
