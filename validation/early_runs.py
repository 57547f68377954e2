"""The runs of early inference: how layers leave a free fixed point when nudged, and the errors it is held to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from physics_ep.blocks import State
from physics_ep.flows import Drift, own_motion
from physics_ep.integrators import TABLEAUS, fixed_steps
from physics_ep.motion import Motion
from physics_ep.nudging import Nudge
from physics_ep.predictive_coding.flows import skew
from physics_ep.predictive_coding.phases import PredictivePhase
from physics_ep.stochastic import STOCHASTIC, NoisyTableau, Wiener, noisy_steps
from physics_ep.stochastic_chains import Shared, repeated
from physics_ep.system import EnergySystem, Phase

METHOD = TABLEAUS["dormand_prince"]
NOISY_METHOD = STOCHASTIC["stochastic_heun"]
DIFFERENCE = 1e-5
"""Largest entry of a displacement in a central difference of velocities."""


def back_propagated(system: EnergySystem, x: torch.Tensor, nudge: Nudge, free: State) -> State:
    """Errors delta of all layers at a free fixed point: delta_L = g_L, delta_k = J_{k,k+1} delta_{k+1}.

    g_L is the velocity of the outputs under the nudge over -beta; products with the blocks of J are central
    differences of the free velocity. See `validation.early_inference`.

    Parameters
    ----------
    system : EnergySystem
        float64.
    x : Tensor (B, ...)
    nudge : Nudge
    free : State
        The free fixed point.

    Returns
    -------
    tuple of Tensor (B, ...), a layer each
    """
    base = system.phase(system.prepare(x), origin=free, balanced=True)
    motion = own_motion(base)
    rest = at_rest(motion)
    pulled = own_motion(base.nudged(nudge)).velocity(rest)
    delta = [pulled[-1] / -nudge.beta]
    for k in range(len(rest) - 2, len(rest) - 1 - depth_of(base), -1):
        scale = _scale(delta[:1])
        above = [torch.zeros_like(b) for b in rest]
        above[k + 1] = scale * delta[0]
        up, down = motion.velocity(tuple(above)), motion.velocity(tuple(-b for b in above))
        delta.insert(0, (up[k] - down[k]) / (2 * scale))
    if not (isinstance(base, PredictivePhase) and base.paired):
        return tuple(delta)
    # What has been followed are the pulls p - r; what moves is h = sigma(p).
    scale = _scale(delta)
    still = [torch.zeros_like(d) for d in delta]
    up, down = (tuple(skew(base, still, [sign * scale * d for d in delta]).errors) for sign in (1, -1))
    return tuple((a - b) / (2 * scale) for a, b in zip(up, down, strict=True))


class Moments(NamedTuple):
    """Means and summed squared deviations over runs, merged as in Chan, Golub and LeVeque 1983, eq. 2.1."""

    runs: int
    mean: State
    squares: State

    def merged(self, other: Moments) -> Moments:
        """Of the runs of both."""
        total = self.runs + other.runs
        share = other.runs / total
        gaps = [b - a for a, b in zip(self.mean, other.mean, strict=True)]
        return Moments(
            total,
            tuple(a + share * g for a, g in zip(self.mean, gaps, strict=True)),
            tuple(
                a + b + self.runs * share * g * g for a, b, g in zip(self.squares, other.squares, gaps, strict=True)
            ),
        )


@dataclass(frozen=True)
class Course:
    """When the layers are read, and how they get there.

    Attributes
    ----------
    times : sequence of float
        Time constants.
    steps : int
        Least number of equal steps from one time to the next.
    temperature : float
    common_noise : bool
    generator : torch.Generator
    """

    times: Sequence[float]
    steps: int
    temperature: float
    common_noise: bool
    generator: torch.Generator

    def follow(self, system: EnergySystem, x: torch.Tensor, nudge: Nudge, free: State, runs: int) -> Moments:
        """Moments of displacements and errors at the times, blocks (T, B, n).

        Rows are ordered (copies, runs, examples); with noise, the first copy is free and the second nudged.
        """
        copies = 2 if self.temperature else 1
        rows = copies * runs
        base = system.phase(
            system.prepare(repeated(x, rows)), origin=tuple(repeated(s, rows) for s in free), balanced=True
        )
        nudged = torch.arange(rows * len(x), device=x.device) >= (copies - 1) * runs * len(x)
        strength = nudge.beta * nudged.to(x.dtype)
        phase = base.nudged(Nudge(nudge.cost, repeated(nudge.y, rows), strength))
        motion = own_motion(phase)
        w = at_rest(motion)
        before = 0.0
        means, squares = [], []
        for time in self.times:
            w = self._advanced(motion, w, time - before, copies)
            before = time
            found = []
            for b in _read(phase, w):
                parts = b.flatten(1).unflatten(0, (copies, runs, -1))
                found.append(parts[-1] - parts[0] if copies > 1 else parts[0])
            means.append([d.mean(0) for d in found])
            squares.append([(d - m).square().sum(0) for d, m in zip(found, means[-1], strict=True)])
        stacked = (tuple(torch.stack(b) for b in zip(*kept, strict=True)) for kept in (means, squares))
        return Moments(runs, *stacked)

    def _advanced(self, motion: Motion, w: State, interval: float, copies: int) -> State:
        """w after an interval, in time constants."""
        count = max(self.steps, math.ceil(10 * interval))
        duration = interval * motion.phase.system.time_constant
        if not self.temperature:
            points = fixed_steps(motion, w, duration, count, count, METHOD)
        else:
            assert isinstance(NOISY_METHOD, NoisyTableau)
            parts = copies if self.common_noise else 1
            like = tuple(b[: len(b) // parts] for b in w)
            amplitudes = Drift(motion.phase).amplitudes(self.temperature, len(w))
            source = Shared(Wiener(like, amplitudes, duration / count, self.generator, areas=False), parts)
            points = noisy_steps(motion, w, duration, count, count, NOISY_METHOD, source)
        *_, (_, w, _) = points
        return w


def at_rest(motion: Motion) -> State:
    """Variables of the motion at its phase's origin."""
    assert motion.phase.origin is not None
    return tuple(torch.zeros_like(w) for w in motion.start(tuple(torch.zeros_like(s) for s in motion.phase.origin)))


def depth_of(phase: Phase) -> int:
    """Number of layers."""
    assert phase.origin is not None
    return phase.depth if isinstance(phase, PredictivePhase) else len(phase.origin)


def _read(phase: Phase, w: State) -> list[torch.Tensor]:
    """Displacements of the layers, then their errors, where a network has them."""
    if not isinstance(phase, PredictivePhase):
        return list(w)
    if not phase.paired:
        return [*w, *phase.errors(w)[0]]
    now = skew(phase, list(w[: phase.depth]), list(w[phase.depth :]))
    return [*now.moved, *now.errors]


def _scale(blocks: Sequence[torch.Tensor]) -> float:
    """Factor that brings the largest entry to `DIFFERENCE`."""
    largest = max(float(b.detach().abs().max()) for b in blocks)
    return DIFFERENCE / max(largest, torch.finfo(torch.float64).tiny)
