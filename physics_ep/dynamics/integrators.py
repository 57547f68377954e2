"""Runge-Kutta methods as data, one step of any of them, and the choice of step sizes.

Sources: Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I (1993), sections II.1, II.4 and II.5,
for the explicit methods and the step sizes; Hosea and Shampine, Applied Numerical Mathematics 20 (1996) 21, for
TR-BDF2 and its filtered error.

The implicit methods are ours and not a library's, since those solve one problem at a time: a batch would have to
be one dense system, with its own time points, events and recording. Their stage equations are solved by Newton's
method with matrix-free GMRES, so that any system has them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from ..blocks import State, flat, unflat
from ..errors import InputError, argument_error
from ..relaxation.krylov import gmres
from .motion import Motion

Points = Iterator[tuple[float, State, State]]
"""Time, w and dw/dt, one after the other."""
Product = Callable[[torch.Tensor], torch.Tensor]

NEWTON_STEPS = 12
KRYLOV_DEPTH = 40


@dataclass(frozen=True)
class Tableau:
    """Runge-Kutta method: stages k_i = f(w + dt sum_j a_ij k_j), step dt sum_i b_i k_i.

    Attributes
    ----------
    stages : tuple of tuple of float
        Rows of a, lower triangular; row i ends before or on the diagonal, in the latter case stage i is implicit.
    weights : tuple of float
        b, summing to 1.
    order : int
    companion : tuple of float
        b of the embedded method of another order, by which the error is estimated; empty if there is none.
    estimate_order : int
        Lower order of the two: the estimate is O(dt^(estimate_order + 1)).
    """

    stages: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]
    order: int
    companion: tuple[float, ...] = ()
    estimate_order: int = 0

    @property
    def implicit(self) -> bool:
        """Whether a stage needs the solution of an equation."""
        return any(len(row) > i for i, row in enumerate(self.stages))

    @property
    def adaptive(self) -> bool:
        """Whether the method estimates its error."""
        return bool(self.companion)

    @property
    def reuses_last(self) -> bool:
        """Whether the last stage is the velocity at the end of the step, which the next one starts with."""
        return self.stages[-1] == self.weights[:-1]

    def matrix(self) -> np.ndarray:
        """a as an array (s, s), zeros written out."""
        full = np.zeros((len(self.weights), len(self.weights)))
        for i, row in enumerate(self.stages):
            full[i, : len(row)] = row
        return full

    @property
    def real_limit(self) -> float:
        """Largest z at which a mode of rate -z / dt does not grow in a step dt; infinite for implicit methods."""
        if self.implicit:
            return math.inf
        z = np.linspace(0, 10, 10001)
        grows = abs(self.amplification(-z)) > 1 + 1e-9
        return float(z[grows.argmax() - 1])

    def amplification(self, z: np.ndarray) -> np.ndarray:
        """R(z) = 1 + z b (1 - z A)^-1 1, by which a step dt multiplies a mode of rate z / dt; z complex (k,)."""
        z = np.asarray(z, dtype=complex)
        k: list[np.ndarray] = []  # slopes over w
        for i, row in enumerate(self.stages):
            at = 1 + z * sum((a * s for a, s in zip(row, k, strict=False)), np.zeros_like(z))
            k.append(at / (1 - z * row[i]) if len(row) > i else at)
        return np.asarray(1 + z * sum((b * s for b, s in zip(self.weights, k, strict=True)), np.zeros_like(z)))


_SHARE = math.sqrt(2) / 4
_DIAGONAL = 1 - math.sqrt(2) / 2

TABLEAUS = {
    "euler": Tableau(((),), (1.0,), order=1),
    "heun": Tableau(((), (1.0,)), (0.5, 0.5), order=2),
    "rk4": Tableau(((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6), order=4),
    # Bogacki and Shampine, Applied Mathematics Letters 2 (1989) 321.
    "bogacki_shampine": Tableau(
        ((), (1 / 2,), (0.0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
        (2 / 9, 1 / 3, 4 / 9, 0.0),
        order=3,
        companion=(7 / 24, 1 / 4, 1 / 3, 1 / 8),
        estimate_order=2,
    ),
    # Dormand and Prince, Journal of Computational and Applied Mathematics 6 (1980) 19.
    "dormand_prince": Tableau(
        (
            (),
            (1 / 5,),
            (3 / 40, 9 / 40),
            (44 / 45, -56 / 15, 32 / 9),
            (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
            (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
            (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
        ),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0.0),
        order=5,
        companion=(5179 / 57600, 0.0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40),
        estimate_order=4,
    ),
    # Both L-stable: what moves faster than the step is damped, not followed.
    "implicit_euler": Tableau(((1.0,),), (1.0,), order=1),
    "tr_bdf2": Tableau(
        ((), (_DIAGONAL, _DIAGONAL), (_SHARE, _SHARE, _DIAGONAL)),
        (_SHARE, _SHARE, _DIAGONAL),
        order=2,
        companion=((1 - _SHARE) / 3, (3 * _SHARE + 1) / 3, _DIAGONAL / 3),
        estimate_order=2,
    ),
}
"""Methods by name."""


class StepEnd(NamedTuple):
    """What an integrator has at the end of a time step.

    Attributes
    ----------
    end : State
        w after it.
    velocity : State or None
        dw/dt there, where the method has it.
    error : State or None
        Estimate of the error of one step, where the method has a companion.
    """

    end: State
    velocity: State | None
    error: State | None


class TooLongStepsError(InputError):
    """Steps are too long for the dynamics, so that the course diverges."""


class SaturatedError(TooLongStepsError):
    """Units have become too fast for equal steps; those before were not too long."""


class Diverged(Exception):  # noqa: N818 (the driver catches it; no user sees it)
    """Raised when a stage equation has no solution within reach, since the time step is too long."""


def step(motion: Motion, w: State, velocity: State, dt: float, tableau: Tableau) -> StepEnd:
    """Take one time step of a Runge-Kutta method from state w.

    Parameters
    ----------
    motion : Motion
    w, velocity : State
        The state at which the step begins, and its dw/dt.
    dt : float
    tableau : Tableau

    Returns
    -------
    StepEnd

    Raises
    ------
    Diverged
        If an implicit stage cannot be solved.
    """
    slopes: list[State] = []
    for i, row in enumerate(tableau.stages):
        if len(row) > i:
            base, last = combined(w, dt, row[:i], slopes), slopes[-1] if slopes else velocity
            slopes.append(_implicit_stage(motion, base, last, dt * row[i]))
        else:
            slopes.append(motion.velocity(motion.inside(combined(w, dt, row, slopes))) if i else velocity)
    end = motion.inside(combined(w, dt, tableau.weights, slopes))
    error = None
    if tableau.adaptive:
        gaps = [b - c for b, c in zip(tableau.weights, tableau.companion, strict=True)]
        error = combined(tuple(torch.zeros_like(s) for s in w), dt, gaps, slopes)
        if tableau.implicit:
            # Unfiltered, the estimate of a stiff component grows with dt instead of falling.
            error = _filtered(motion, end, error, dt * tableau.stages[-1][-1])
    return StepEnd(end, slopes[-1] if tableau.reuses_last else None, error)


def advance(motion: Motion, w: State, velocity: State, tableau: Tableau, dt: float, count: int) -> State:
    """w after `count` equal steps, by the motion's own compiled code (`Motion.leap`) where it has some."""
    if not tableau.implicit:
        leapt = motion.leap(w, tableau.matrix(), np.array(tableau.weights), dt, count)
        if leapt is not None:
            return leapt
    for n in range(count):
        w = step(motion, w, velocity if n == 0 else motion.velocity(w), dt, tableau).end
    return w


def fixed_steps(motion: Motion, w: State, duration: float, count: int, every: int, tableau: Tableau) -> Points:
    """Yield (time, w, velocity) at the start and after every `every` of `count` equal steps, and at the end."""
    dt, done = duration / count, 0
    limit = tableau.real_limit / dt
    try:
        while True:
            velocity = motion.velocity(w)
            if motion.pace is not None and any(bool((r > limit).any()) for r in motion.pace):
                raise saturated(count, duration)
            yield duration * (done / count), w, velocity
            if done == count:
                return
            leap = min(every, count - done)
            w = advance(motion, w, velocity, tableau, dt, leap)
            done += leap
            if not finite(w):
                raise Diverged
    except Diverged:
        raise diverged(count) from None


def diverged(count: int) -> TooLongStepsError:
    """Error of equal steps in which the state has left the finite numbers."""
    must = "be more: the dynamics is faster than its steps and diverged"
    return TooLongStepsError(str(argument_error("steps", must, count)))


def saturated(count: int, duration: float) -> SaturatedError:
    """Error of equal steps that are too long for units which saturate on the way."""
    must = "be more (or method 'tr_bdf2'): units saturate, where they move too fast for these to be stable"
    return SaturatedError(str(argument_error("steps", must, f"{count} of {duration / count:.3g}")))


def adaptive_steps(
    motion: Motion,
    w: State,
    duration: float,
    every: int,
    tableau: Tableau,
    rtol: float,
    atol: float,
    begin: float = 0.0,
    reach: float | None = None,
) -> Points:
    """Yield (time, w, velocity) at the start and after every `every` accepted steps, and at the end.

    All examples take the same steps, as short as the most demanding one needs: the error of each is held to
    atol + rtol * its largest |w|, in the root-mean-square over its variables.

    `begin` is the time at which w is, before `duration`, the end. With a `reach`, of a course whose end is far off,
    no step is longer than a tenth of the longer of `reach` and the time so far.
    """
    exponent = 1 / (1 + tableau.estimate_order)
    velocity = motion.velocity(w)
    near = duration if reach is None else reach
    time, dt, accepted = begin, _first_step(w, velocity, near, rtol, atol), 0
    yield time, w, velocity
    while time < duration:
        if reach is not None:
            dt = min(dt, 0.1 * max(time, reach))
        last = time + dt >= duration * (1 - 1e-12)
        dt = duration - time if last else dt
        if dt < 1e-14 * max(time, near):
            must = f"be larger, or method be 'tr_bdf2': at time {time:.4g} no step is short enough"
            raise TooLongStepsError(str(argument_error("rtol", must, f"{rtol:g}")))
        try:
            moved = step(motion, w, velocity, dt, tableau)
            worst = _error(moved, w, rtol, atol)
        except Diverged:
            worst = math.inf
        if worst <= 1:
            time = duration if last else time + dt
            w = moved.end
            velocity = motion.velocity(w) if moved.velocity is None else moved.velocity
            accepted += 1
            if accepted % every == 0 or last:
                yield time, w, velocity
        shrink = 0.9 * worst**-exponent if 0 < worst < math.inf else (5.0 if worst == 0 else 0.1)
        dt *= min(5.0 if worst <= 1 else 0.9, max(0.1, shrink))


def finite(w: State) -> bool:
    """Whether all entries of a state are finite."""
    return all(bool(torch.isfinite(b).all()) for b in w)


def combined(w: State, dt: float, row: tuple[float, ...] | list[float], slopes: list[State]) -> State:
    """w + dt sum_j row_j slopes_j; the row may be shorter than the slopes, those of factor zero may be empty."""
    for a, k in zip(row, slopes, strict=False):
        if a:
            w = tuple(torch.add(s, f, alpha=dt * a) for s, f in zip(w, k, strict=True))
    return w


def _implicit_stage(motion: Motion, base: State, last: State, h: float) -> State:
    """Slope k = (g - base) / h with g = base + h f(g), by Newton's method from the last known slope."""
    shapes = [s.shape for s in base]
    origin = flat(base)
    g = origin + h * flat(last)
    eps = torch.finfo(g.dtype).eps
    before = math.inf
    for _ in range(NEWTON_STEPS):
        slope = flat(motion.velocity(unflat(g, shapes)))
        miss = origin + h * slope - g
        size = miss.norm(dim=1)
        # Newton ends where rounding does: a difference of numbers as large as g and h f(g).
        floor = 8 * eps * torch.maximum(g.norm(dim=1), h * slope.norm(dim=1))
        worst = float((size / floor.clamp_min(torch.finfo(g.dtype).tiny)).max())
        if not math.isfinite(worst) or worst > 1e3 * before:
            raise Diverged
        if worst <= 1 or (worst < 1e4 and worst > 0.5 * before):
            break
        before = worst
        g = g + gmres(_shifted(motion, g, slope, shapes, h), miss, KRYLOV_DEPTH, 1e-3)
    else:
        raise Diverged
    return unflat((g - origin + miss) / h, shapes)


def _filtered(motion: Motion, end: State, error: State, h: float) -> State:
    """(1 - h J)^-1 error, J the Jacobian of the velocity at the end of the step."""
    shapes = [s.shape for s in end]
    g = flat(end)
    slope = flat(motion.velocity(end))
    return unflat(gmres(_shifted(motion, g, slope, shapes, h), flat(error), KRYLOV_DEPTH, 1e-2), shapes)


def _shifted(motion: Motion, g: torch.Tensor, slope: torch.Tensor, shapes: list[torch.Size], h: float) -> Product:
    """The product v -> (1 - h J) v, J v by a difference along v."""
    finfo = torch.finfo(g.dtype)
    scale = finfo.eps**0.5 * torch.maximum(g.norm(dim=1), h * slope.norm(dim=1))[:, None].clamp_min(finfo.tiny)

    def product(v: torch.Tensor) -> torch.Tensor:
        length = scale / v.norm(dim=1, keepdim=True).clamp_min(finfo.tiny)
        return v - h * (flat(motion.velocity(unflat(g + length * v, shapes))) - slope) / length

    return product


def _error(moved: StepEnd, w: State, rtol: float, atol: float) -> float:
    """Largest error of an example over what is allowed; infinite where it is not finite."""
    assert moved.error is not None
    allowed = atol + rtol * torch.maximum(flat(w).abs().amax(1), flat(moved.end).abs().amax(1))
    worst = float((flat(moved.error).square().mean(1).sqrt() / allowed).max())
    return worst if math.isfinite(worst) else math.inf


def _first_step(w: State, velocity: State, duration: float, rtol: float, atol: float) -> float:
    """A step in which w moves by a hundredth of itself, or of what its tolerances make of it: Hairer II.4."""
    speed = float(flat(velocity).abs().amax())
    size = max(float(flat(w).abs().amax()), atol / rtol)
    return 1e-3 * duration if speed == 0 else min(0.01 * size / speed, 0.01 * duration)
