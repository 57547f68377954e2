"""Stationary states of a medium as its input grows: a branch, followed around its folds.

Pseudo-arclength continuation (Keller 1977): a point is a state and an amplitude of the input; the next one lies on
the plane at a given distance along the tangent, where Newton's method finds it, also where the branch turns back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch

from physics_ep.blocks import State, flat, largest
from physics_ep.errors import argument_error, is_real
from physics_ep.relaxation.loop import relax

from .medium import FitzHughNagumoChain
from .phase import MediumPhase

NEWTON_STEPS = 10
SHORTEST = 1e-6
"""Step, over the one asked for, below which a branch is given up."""


@dataclass(frozen=True)
class Branch:
    """Points of a branch, in the order in which they follow each other; all meet the tolerance.

    Attributes
    ----------
    amplitude : Tensor (K,)
        Factor on the input.
    state : tuple of Tensor (K, *grid)
    residual : Tensor (K,)
    growth : Tensor (K,)
        Largest rate of growth of a small disturbance (`FitzHughNagumoChain.spectrum`): stable where negative.
    folds : Tensor (F,)
        Amplitudes at which the branch turns back.
    """

    amplitude: torch.Tensor
    state: State
    residual: torch.Tensor
    growth: torch.Tensor
    folds: torch.Tensor


class _Point(NamedTuple):
    z: State
    amplitude: float
    residual: float
    tangent: State
    rate: float
    """d(amplitude) / d(arclength)."""


def branch(
    system: FitzHughNagumoChain,
    x: torch.Tensor,
    *,
    start: float = 0.0,
    stop: float = 1.0,
    step: float = 0.1,
    max_points: int = 1000,
    tolerance: float = 1e-10,
) -> Branch:
    """Follow the stationary states of a float64 system from one amplitude of an input to another.

    Parameters
    ----------
    system : FitzHughNagumoChain
    x : Tensor (1, features)
        Multiplied by the amplitude; currents `bias` are not.
    start, stop : float
        First amplitude, at which `relax` finds the state, and last.
    step : float
        Length of a step, in which a state counts by its root mean square over the sites; halved where Newton's
        method needs it.
    max_points : int
    tolerance : float
        Residual of each point.

    Returns
    -------
    Branch
        Its last amplitude is `stop`.

    Raises
    ------
    InputError
        If an argument does not fit, or the branch does not lead to `stop`: its folds may turn it away for good.
    NotConverged
        If there is no state to start from.
    """
    if not isinstance(x, torch.Tensor) or x.ndim != 2 or len(x) != 1:
        raise argument_error("x", "be a tensor (1, features)", getattr(x, "shape", type(x).__name__))
    for name, value in {"start": start, "stop": stop, "step": step, "tolerance": tolerance}.items():
        positive = name in ("step", "tolerance")
        if not is_real(value) or (positive and value <= 0):
            raise argument_error(name, "be a positive number" if positive else "be a finite number", value)
    if start == stop:
        raise argument_error("stop", "differ from start", stop)
    with torch.no_grad():
        curve = _Curve(system, x, tolerance)
        free = relax(system, start * x, tolerance=tolerance).require()
        sign = math.copysign(1.0, stop - start)
        point = curve.point(free.state, start, float(free.residual), None, sign)
        points, length = [point], step
        folds: list[float] = []
        while point.amplitude != stop:
            if len(points) >= max_points:
                must = f"be an amplitude that the branch reaches within {max_points} points"
                where = f"it is at {point.amplitude:.3g}, after folds at {[round(f, 4) for f in folds]}"
                raise argument_error("stop", must, f"{stop:g}: {where}")
            following = curve.advanced(point, length)
            if following is not None and sign * (following.amplitude - stop) >= 0:
                following = curve.landed(point, following, stop)
            if following is None:
                length /= 2
                if length < SHORTEST * step:
                    where = f"the branch is lost at amplitude {point.amplitude:.6g}"
                    raise argument_error("tolerance", "be larger", f"{tolerance:g}: {where}")
                continue
            if point.rate * following.rate < 0 and following.amplitude != stop:
                folds.append(curve.fold(point, following, length))
            points.append(point := following)
            length = min(step, 1.5 * length)
        state = tuple(torch.cat([p.z[k] for p in points]) for k in (0, 1))
        amplitude = torch.tensor([p.amplitude for p in points], dtype=state[0].dtype)
        inputs = amplitude[:, None] * x
        return Branch(
            amplitude,
            state,
            torch.tensor([p.residual for p in points], dtype=state[0].dtype),
            system.spectrum(state, inputs)[:, 0].real,
            torch.tensor(folds, dtype=state[0].dtype),
        )


class _Curve:
    """The stationary states of one input, as a curve of points (state, amplitude)."""

    def __init__(self, system: FitzHughNagumoChain, x: torch.Tensor, tolerance: float) -> None:
        self.system, self.tolerance = system, tolerance
        self.phase: MediumPhase = system.phase(system.prepare(x))
        self.rest = system.cubic(torch.zeros_like(x)).p0
        self.current = system.cubic(x).p0 - self.rest

    def at(self, amplitude: float) -> MediumPhase:
        return self.phase.driven(self.rest + amplitude * self.current)

    def inner(self, a: State, b: State) -> float:
        """Inner product of two states: the sum over the blocks of the mean over the sites."""
        return float((flat(a) * flat(b)).sum()) / self.system.sizes[1]

    def along(self, phase: MediumPhase, z: State) -> State:
        """Change of a stationary state per unit of amplitude."""
        moved = phase.answers(z, (self.current[:, None], torch.zeros_like(self.current[:, None])))
        return tuple(m[:, 0] for m in moved)

    def point(self, z: State, amplitude: float, residual: float, before: _Point | None, sign: float) -> _Point:
        """A point with its tangent, which goes on in the direction of the point before."""
        change = self.along(self.at(amplitude), z)
        rate = sign / math.sqrt(1 + self.inner(change, change))
        if before is not None and self.inner(before.tangent, change) * rate + before.rate * rate < 0:
            rate = -rate
        return _Point(z, amplitude, residual, tuple(rate * c for c in change), rate)

    def advanced(self, point: _Point, length: float) -> _Point | None:
        """The point at a distance along the tangent; None if Newton's method does not find it."""
        z = tuple(s + length * t for s, t in zip(point.z, point.tangent, strict=True))
        amplitude = point.amplitude + length * point.rate
        for _ in range(NEWTON_STEPS):
            phase = self.at(amplitude)
            force = phase.force(z)
            residual = float(phase.residual(force))
            if residual <= self.tolerance:
                return self.point(z, amplitude, residual, point, 1.0)
            pushes = (
                torch.stack([force[0], self.current], 1),
                torch.stack([force[1], torch.zeros_like(force[1])], 1),
            )
            moved = phase.answers(z, pushes)
            still, change = (tuple(m[:, k] for m in moved) for k in (0, 1))
            # Stay on the plane across the tangent: tangent . (dz, d amplitude) = 0.
            slope = point.rate + self.inner(point.tangent, change)
            grown = -self.inner(point.tangent, still) / slope if slope else math.nan
            z = tuple(s + a + grown * b for s, a, b in zip(z, still, change, strict=True))
            amplitude += grown
            if not math.isfinite(grown) or float(largest(z)) > 1e6:
                return None
        return None

    def landed(self, point: _Point, beyond: _Point, stop: float) -> _Point | None:
        """The state at `stop`, by Newton's method from between two points; None if it is not found."""
        share = (stop - point.amplitude) / (beyond.amplitude - point.amplitude)
        z = tuple(a + share * (b - a) for a, b in zip(point.z, beyond.z, strict=True))
        phase = self.at(stop)
        for _ in range(NEWTON_STEPS):
            force = phase.force(z)
            residual = float(phase.residual(force))
            if residual <= self.tolerance:
                return self.point(z, stop, residual, point, 1.0)
            move = phase.newton_step(z, force, z[0].new_zeros(1))
            z = tuple(s + d for s, d in zip(z, move, strict=True))
        return None

    def fold(self, point: _Point, beyond: _Point, length: float) -> float:
        """Amplitude at which d(amplitude)/d(arclength) vanishes between two points, by bisection and secants."""
        near, far = (0.0, point.rate), (length, beyond.rate)
        amplitude = max if point.rate > 0 else min
        best = amplitude(point.amplitude, beyond.amplitude)
        for k in range(60):
            (a, fa), (b, fb) = near, far
            middle = (a * fb - b * fa) / (fb - fa) if k % 3 else 0.5 * (a + b)
            found = self.advanced(point, middle)
            if found is None:
                break
            best = amplitude(best, found.amplitude)
            if abs(found.rate) < 1e-7 or b - a < 1e-9 * length:
                break
            near, far = ((middle, found.rate), far) if found.rate * fa > 0 else (near, (middle, found.rate))
        return best
