"""Paired circuits in time where what moves is not the current into a unit but its value.

Of a resistive network the node's voltage, of an oscillator its phase: x_h and x_u with h = out(x_h), u = out(x_u),

    tau_h dx_h/dt = speed(x_h, P),    tau_u dx_u/dt = speed(x_u, Q)

with P and Q the currents from all units as they are at this moment, in units of activity. Latches that hold gates
pin units that rest at a bound in the free state; others are clipped as ever.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from physics_ep.equilibrium import State
from physics_ep.motion import Moment, Motion
from physics_ep.solvers import Solver

from .paired_solvers import time_step

if TYPE_CHECKING:
    from .paired_phases import Blocks, CircuitPhase


@dataclass(frozen=True)
class Values:
    """How the units h or u of a layer move.

    Attributes
    ----------
    start : callable (v) -> x
        Where a unit is that puts out v, or where one begins whose v would not move; v is nothing (0) at rest.
    output : callable (x) -> V
        In units of activity.
    speed : callable (x, P) -> dx/dt
        P the current into the unit, in units of activity; time in time constants.
    inside : callable (x) -> x
        Back into bounds.
    """

    start: Callable[[torch.Tensor], torch.Tensor]
    output: Callable[[torch.Tensor], torch.Tensor]
    speed: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    inside: Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Course:
    """A moment of the circuit: speeds of x_h and x_u, what phases carry, and how far from rest it is (B,)."""

    speed: Blocks
    z: State
    residual: torch.Tensor


def unit_values(phase: CircuitPhase) -> list[Values]:
    """Of h in layers 1 ... L, then of u."""
    return [phase.system.values(k, which, phase) for which in ("h", "u") for k in range(phase.depth)]


def beginning(phase: CircuitPhase, start: State, values: list[Values]) -> Blocks:
    """x_h and x_u where the currents are those of a start: a state, for a free phase, or displacements."""
    count = phase.depth
    state = start if phase.origin is None and len(start) == 2 * count else phase.state(start)
    system = phase.system
    units = [*system.amplifiers_h, *system.amplifiers_u]
    found = []
    for moves, unit, p in zip(values, units, state, strict=True):
        found.append(moves.inside(moves.start(unit.activation.response(p))))
    return found


def course(phase: CircuitPhase, x: Blocks, values: list[Values]) -> Course:
    """Where the units go from x."""
    count, system = phase.depth, phase.system
    units, origin = [*system.amplifiers_h, *system.amplifiers_u], [*phase.h, *phase.u]
    slopes = [*phase.slopes_h, *phase.slopes_u] if phase.held else [None] * (2 * count)
    # 1 where a unit may move, 0 where a latch pins it; None: all may.
    live = [slope if unit.activation.gated else None for unit, slope in zip(units, slopes, strict=True)]

    def of_live(block: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        return block if mask is None else phase.over(torch.mul, block, mask)

    out = [v.output(b) for v, b in zip(values, x, strict=True)]
    moved = [of_live(phase.over(torch.sub, v, o), m) for v, o, m in zip(out, origin, live, strict=True)]
    upper = moved[:count]
    errors = [a - b for a, b in zip(upper, moved[count:], strict=True)]
    fed = phase.feedback(errors)
    changes = [phase.changes(k, upper) for k in range(count)]
    fed[-1] = phase.wanted(upper[-1], changes[-1][0])
    if phase.fed is not None:
        fed = [phase.over(torch.add, f, s) for f, s in zip(fed, phase.fed, strict=True)]
    dp = [a + f for (a, _), f in zip(changes, fed, strict=True)]
    dq = [b for _, b in changes]
    currents = [phase.over(torch.add, d, o) for d, o in zip((*dp, *dq), (*phase.p, *phase.q), strict=True)]
    slow = 1 + system.device_model.time_constant_mismatch
    speed, worst = [], []
    for k, (unit, current, mask) in enumerate(zip(units, currents, live, strict=True)):
        speed.append(of_live(values[k].speed(x[k], current), mask) / (1 if k < count else slow))
        miss = of_live(unit.response(current) - out[k], mask).flatten(1).abs().amax(1)
        # Relative to the currents; of nudged phases, to how far h of the layer has moved.
        size = (current if phase.nudge is None else upper[k % count]).flatten(1).abs().amax(1)
        worst.append(torch.where(miss == 0, miss, miss / torch.maximum(size, miss)))
    return Course(speed, (*dp, *dq, *errors), torch.stack(worst).amax(0))


class ValueFlow(Solver):
    """The circuit's own course, by steps of the classical Runge-Kutta method; `iterations` counts steps."""

    patience = 10000  # oscillators leave the ends of their range slowly, and seem to rest meanwhile

    def __init__(self, phase: CircuitPhase, start: State) -> None:
        self.phase = phase
        self.spent = 0
        self.step = time_step(phase.system.device_model, phase.nudge)
        self.values = unit_values(phase)
        if phase.origin is None and len(start) != 2 * phase.depth:
            start = phase.system.rest_state(phase.x)
        self.x = beginning(phase, start, self.values)

    def evaluate(self) -> tuple[State, torch.Tensor]:
        self.spent += 1
        self.now = course(self.phase, self.x, self.values)
        return self.now.z, self.now.residual

    def advance(self, active: torch.Tensor) -> None:
        step = self.step * active.to(self.phase.dtype)

        def moved(speed: Blocks, part: float) -> Blocks:
            shares = part * step
            steps = [x + shares.view(-1, *[1] * (x.ndim - 1)) * s for x, s in zip(self.x, speed, strict=True)]
            return [v.inside(x) for v, x in zip(self.values, steps, strict=True)]

        first = self.now.speed
        second = course(self.phase, moved(first, 0.5), self.values).speed
        third = course(self.phase, moved(second, 0.5), self.values).speed
        fourth = course(self.phase, moved(third, 1.0), self.values).speed
        slopes = zip(first, second, third, fourth, strict=True)
        self.x = moved([(a + 2 * b + 2 * c + d) / 6 for a, b, c, d in slopes], 1.0)


class ValueMotion(Motion):
    """The same for `simulate`, in time constants of h. The state is told by the currents into the units."""

    phase: CircuitPhase

    def __init__(self, phase: CircuitPhase) -> None:
        super().__init__(phase)
        self.values = unit_values(phase)

    def start(self, z: State) -> State:
        phase = self.phase
        return tuple(beginning(phase, z if phase.begun is None else phase.start(), self.values))

    def velocity(self, w: State) -> State:
        return tuple(course(self.phase, list(w), self.values).speed)

    def inside(self, w: State) -> State:
        return tuple(v.inside(x) for v, x in zip(self.values, w, strict=True))

    def observe(self, w: State, velocity_: State) -> Moment:
        now = course(self.phase, list(w), self.values)
        return Moment(self.phase.state(now.z), self.phase.energy(now.z), now.residual, w)


def solvers(found: dict[str, Any]) -> dict[str, Any]:
    """Solvers of a phase with the flow of values in place of that of currents."""
    return {**found, "flow": ValueFlow}
