"""Flows that a system may be asked for in place of its own motion: gradient, skew, noisy, inertial.

Gradient and skew flow are `Motion` itself. All act by the force -dF/ds itself, not by what a phase makes of it (a
projection on the bounds, a metric of its own): with any other force a thermal system would not sample exp(-F / T),
nor become the gradient flow as T goes to 0. At bounds noise and inertia are reflected, and what the force alone
leads to is projected, so that the path is that of the gradient flow where there is no noise; a step's
drift crosses a bound with probability O(dt), by O(dt), which leaves the weak order 1 of reflection. Systems may
have flows of their own besides (`EnergySystem.flows`).

Sources: Leimkuhler and Matthews, Molecular Dynamics (2015), chapters 6 and 7, for both equations of motion; Bossy,
Gobet and Talay, Journal of Applied Probability 41 (2004) 877, for reflection, which keeps weak order 1 where
projection falls to 1/2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ..blocks import State, largest
from ..errors import InputError, argument_error, unknown_name
from ..physical_system import Phase, PhysicalSystem
from .motion import Moment, Motion

FLOWS = ("gradient", "skew", "inertial")
"""What `simulate` may be asked for, whatever the system; `EnergySystem.flows` may add others."""


class Drift(Motion):
    """tau_k ds_k = -+dF/ds_k dt + sqrt(2 T tau_k) dW: the overdamped Langevin equation, where every block descends.

    Parameters
    ----------
    phase : Phase
    """

    def velocity(self, w: State) -> State:
        self._pace(w)
        return self._driven(self.phase.unbounded_force(w))

    def inside(self, w: State) -> State:
        return reflected(self.phase, w) if self.bounded else w

    def drifted(self, w: State) -> State:
        return self.phase.interior(w) if self.bounded else w

    def amplitudes(self, temperature: float, blocks: int) -> list[float]:
        """Amplitude of the noise on each block of w, sqrt(2 T / tau_k), in state units per root of time."""
        taus = self.phase.system.time_constants or (1.0,) * blocks
        return [math.sqrt(2 * temperature / tau) for tau in taus]


class Inertial(Motion):
    """m ds'_k = (-dF/ds_k - gamma tau_k s'_k) dt + sqrt(2 gamma tau_k T) dW, ds_k = s'_k dt.

    What is integrated is (s, s'). For m -> 0 and gamma = 1 it is the gradient flow. The residual is the largest of
    the force and of (gamma + m / `time_constant`) s': neither a state that only passes its equilibrium nor one that
    only turns round has settled.

    Parameters
    ----------
    phase : Phase
    mass : float
        m, energy unit * time unit^2 / state unit^2.
    friction : float
        gamma, energy unit * time unit / state unit^2 for tau_k = 1.
    """

    def __init__(self, phase: Phase, mass: float, friction: float) -> None:
        super().__init__(phase)
        system = phase.system
        self.mass = mass
        self.internal_unit = f"{system.state_unit} / {system.time_unit}"
        self._friction = friction
        self._weight = friction + mass / system.time_constant

    def frictions(self, blocks: int) -> list[float]:
        """gamma tau_k of each block."""
        taus = self.phase.system.time_constants or (1.0,) * blocks
        return [self._friction * tau for tau in taus]

    def start(self, z: State) -> State:
        return (*z, *(torch.zeros_like(s) for s in z))

    def velocity(self, w: State) -> State:
        s, v = split(w)
        force = self.phase.unbounded_force(s)
        pairs = zip(force, v, self.frictions(len(v)), strict=True)
        return (*v, *((f - g * u) / self.mass for f, u, g in pairs))

    def inside(self, w: State) -> State:
        """w reflected at the bounds: positions mirrored, their velocities turned round."""
        if not self.bounded:
            return w
        s, v = split(w)
        back = reflected(self.phase, s)
        turned = (torch.where(b == a, u, -u) for a, b, u in zip(s, back, v, strict=True))
        return (*back, *turned)

    def observe(self, w: State, velocity: State) -> Moment:
        phase = self.phase
        s, v = split(w)
        rest = phase.residual(phase.force(s))
        moving = self._weight * largest(v) / phase.residual_scale
        return Moment(phase.state(s), phase.energy(s), torch.maximum(rest, moving), v)

    def amplitudes(self, temperature: float, blocks: int) -> list[float]:
        """Amplitude of the noise on each block of w: 0 on s, sqrt(2 gamma tau_k T) / m on the velocity s'."""
        return [0.0] * (blocks // 2) + [
            math.sqrt(2 * g * temperature) / self.mass for g in self.frictions(blocks // 2)
        ]


def own_motion(phase: Phase) -> Motion:
    """The motion of a phase by its system's own equations, or by the flow along its force where it has none."""
    motion = phase.system.motion(phase)
    return Motion(phase) if motion is None else motion


def choose_motion(phase: Phase, flow: str | None, temperature: float, mass: float, friction: float) -> Motion:
    """The motion of a phase under a flow.

    Raises
    ------
    InputError
        If the system cannot be asked for that flow, or for noise on it.
    """
    system, name = phase.system, type(phase.system).__name__
    more, known = system.flows(phase), system.motion(phase)
    names = {*FLOWS, *more, *(() if known is None or known.flow is None else (known.flow,))}
    if flow is not None and flow not in names:
        raise unknown_name("flow", flow, names)
    if known is not None:
        if flow not in (None, known.flow):
            must = "be left out" if known.flow is None else f"be {known.flow!r} or left out"
            raise InputError(f"Argument flow must {must}, but was {flow!r}: {name} moves by equations of its own.")
        if temperature > 0:
            raise InputError(
                f"Argument temperature must be 0, but was {temperature:g}: {name} moves by equations of its own, "
                "which have no noise."
            )
        return known
    if flow is not None and flow in more:
        if temperature > 0:
            must = f"be 0 for flow {flow!r}, whose noise would not sample exp(-F / T) (the gradient flow's does)"
            raise argument_error("temperature", must, f"{temperature:g}")
        return more[flow](phase)
    own = "gradient" if system.directions is None else "skew"
    if flow == "skew" and own != "skew":
        raise InputError(
            f"Argument flow must be 'gradient' or 'inertial', but was 'skew': {name} declares no directions."
        )
    if own == "skew" and flow not in (None, "skew"):
        raise InputError(f"Argument flow must be 'skew', but was {flow!r}: blocks of {name} ascend its energy.")
    if own == "skew" and system.bounded:
        raise InputError(f"{name} cannot be simulated: a skew flow has no bounds, but this system has.")
    _check_time_constants(system, phase.start())
    if flow == "inertial":
        return Inertial(phase, mass, friction)
    return Drift(phase) if temperature > 0 else Motion(phase)


def reflected(phase: Phase, z: State) -> State:
    """z mirrored at the bounds that it has crossed, and projected where it then lies beyond the others."""
    nearest = phase.interior(z)
    return phase.interior(tuple(2 * n - s for n, s in zip(nearest, z, strict=True)))


def split(w: State) -> tuple[State, State]:
    """Positions and velocities of an inertial flow."""
    half = len(w) // 2
    return w[:half], w[half:]


def _check_time_constants(system: PhysicalSystem, blocks: Sequence[torch.Tensor]) -> None:
    taus = system.time_constants
    if taus is not None and (len(taus) != len(blocks) or not all(0 < tau < math.inf for tau in taus)):
        raise InputError(
            f"Attribute time_constants of {type(system).__name__} must hold {len(blocks)} positive numbers, one a "
            f"block, but was {taus}."
        )
