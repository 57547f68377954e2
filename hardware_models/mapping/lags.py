"""Paired circuits whose amplifiers have a finite bandwidth: their outputs follow what they answer with a lag.

    l_h dV_h/dt = sigma(p) - V_h,    l_u dV_u/dt = sigma(q) - V_u            in time constants of h

with p and q as in `solvers`, driven by the outputs as they are. Equilibria are those without lags; the
course is not: a unit has two poles, and where u lags more than h the free state may be lost, as with unequal time
constants. What moves is (dq, dp - dq, dV_u, d(V_h - V_u)), so that errors are no differences of states. Outputs are
read at their nodes, without an amplifier.
"""

from __future__ import annotations

import torch

from physics_ep.blocks import State
from physics_ep.dynamics.motion import Moment, Motion
from physics_ep.predictive_coding.phase import peak

from ..devices.model import DeviceModel
from .phase import Blocks, PairedPhase
from .solvers import Flow, begun, exchange, rates, settled_gap, share


def lags(device: DeviceModel) -> tuple[float, float]:
    """Lags of the amplifiers of h and of u, in time constants of h."""
    return device.amplifier_lag, device.amplifier_lag * (1 + device.amplifier_lag_mismatch)


def lagged_begin(phase: PairedPhase, start: State) -> Blocks:
    """(dq, dp - dq, dV_u, d(V_h - V_u)) with amplifiers at rest."""
    w = begun(phase, start)
    count = phase.depth
    return [*w, *at_rest(phase, w[:count], w[count:])]


def at_rest(phase: PairedPhase, dq: Blocks, gap: Blocks) -> Blocks:
    """Outputs to which hidden amplifiers settle at (dq, dp - dq): dV_u a layer, then d(V_h - V_u) a layer."""
    hidden = range(phase.depth - 1)
    errors = [phase.error(k, dq[k], gap[k]) for k in hidden]
    return [*(phase.moved(k, dq[k] + gap[k]) - errors[k] for k in hidden), *errors]


def lagged_velocity(phase: PairedPhase, w: Blocks) -> tuple[Blocks, State, torch.Tensor]:
    """d/dt of w in time constants of h; what phases carry; the residual (B,)."""
    count, device = phase.depth, phase.system.device_model
    dq, gap = w[:count], w[count : 2 * count]
    below, errors = w[2 * count : 3 * count - 1], list(w[3 * count - 1 :])
    lag_h, lag_u = lags(device)
    goals = at_rest(phase, dq, gap)
    errors.append(phase.error(count - 1, dq[-1], gap[-1]))
    moved = [*(a + b for a, b in zip(below, errors, strict=False)), phase.moved(count - 1, dq[-1] + gap[-1])]
    fed, changes = exchange(phase, moved, errors)
    apart = settled_gap(phase, fed, changes)
    behind_gap = [a - b for a, b in zip(apart, gap, strict=True)]
    behind_q = [b - d for (_, b), d in zip(changes, dq, strict=True)]
    rate_q, rate_gap = rates(phase, behind_q, behind_gap)
    behind_u = [a - b for a, b in zip(goals[: count - 1], below, strict=True)]
    behind = [a - b for a, b in zip(goals[count - 1 :], errors[:-1], strict=True)]
    rate_u = [b / lag_u for b in behind_u]
    rate_error = [e / lag_h + b * (1 / lag_h - 1 / lag_u) for e, b in zip(behind, behind_u, strict=True)]
    worst = []
    for k in range(count):
        pairs = [(apart[k], behind_gap[k]), (changes[k][1], behind_q[k])]
        if k < count - 1:
            pairs += [(goals[count - 1 + k], behind[k]), (moved[k], behind_u[k])]
        size_moved = peak(moved[k])
        for n, (goal, miss_of) in enumerate(pairs):
            size = peak(goal)
            if phase.nudge is None or n in (1, 3):
                size = torch.maximum(size, size_moved)
            if phase.nudge is None:
                size = torch.maximum(size, peak(phase.p[k]))
            worst.append(share(peak(miss_of), size))
    dp = [a + b for a, b in zip(dq, gap, strict=True)]
    speed = [*rate_q, *rate_gap, *rate_u, *rate_error]
    return speed, (*dp, *dq, *errors), torch.stack(worst).amax(0)


class LaggedFlow(Flow):
    """`Flow` with the amplifiers' lags."""

    def begin(self, start: State) -> Blocks:
        return lagged_begin(self.phase, start)

    def course(self, w: Blocks) -> tuple[Blocks, State, torch.Tensor]:
        return lagged_velocity(self.phase, w)


class LaggedMotion(Motion):
    """Nodes and lagging amplifiers in time for `simulate`, in time constants of h."""

    phase: PairedPhase

    def start(self, z: State) -> State:
        return tuple(lagged_begin(self.phase, z if self.phase.begun is None else self.phase.start()))

    def velocity(self, w: State) -> State:
        return tuple(lagged_velocity(self.phase, list(w))[0])

    def inside(self, w: State) -> State:
        return w

    def observe(self, w: State, velocity_: State) -> Moment:
        _, z, residual = lagged_velocity(self.phase, list(w))
        return Moment(self.phase.state(z), self.phase.energy(z), residual, w)
