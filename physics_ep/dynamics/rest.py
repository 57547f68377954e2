"""Courses that go on until the system rests, and what is said of those that end, or begin, away from rest.

A state is at rest where its residual is within the tolerance that `physics_ep.relax` asks for. A course of no given
duration first takes the steps of its method for `SPAN` time constants of the system. Slow parts (a node with little
conductance, a saddle that is left) may need much longer than that, where explicit steps would have to be as short
as the fastest part asks. From there on TR-BDF2 therefore chooses its steps by the tolerances `rtol` and `atol`: it
damps what is faster than a step, and its steps grow with the time that has passed.
"""

from __future__ import annotations

import itertools
import math

import torch

from ..blocks import State, largest
from ..errors import InputError
from ..physical_system import Phase
from ..relaxation.loop import phase_tolerance
from ..storage.outputs import as_asked
from .flows import Inertial
from .integrators import TABLEAUS, Points, SaturatedError, TooLongStepsError, adaptive_steps
from .motion import Motion

SPAN = 20.0
"""Time constants of the system that a course lasts at least where nobody says how long."""
FURTHER = 1000
"""Steps of TR-BDF2 that a course takes at most on its way to rest."""
LONGEST = 1e9
"""Time constants after which nobody waits for rest."""
STIFF = TABLEAUS["tr_bdf2"]
"""Method that goes on to rest."""
WINDOW, TURNS = 20, 6
"""Steps in which a residual has found no smaller value and turned so often, where rounding alone moves it."""
SHARE = 1e-3
"""Part of the nudge's own force under which that of a start without the nudge does no harm to a nudged course."""


class NotAtRestWarning(UserWarning):
    """A simulated course ended before the system was at rest, or a nudged one began where it was not."""


def points_to_rest(
    motion: Motion, w: State, span: float, first: Points, rescued: bool, rtol: float, atol: float
) -> Points:
    """Yield (time, w, velocity) up to the limits of a course of no given duration; who reads them stops at rest.

    Parameters
    ----------
    motion : Motion
    w : State
        The start.
    span : float
        `SPAN` time constants, in the system's time unit.
    first : iterator of (float, State, State)
        Points of the method that was chosen, up to the span; empty: TR-BDF2 takes all steps.
    rescued : bool
        Whether TR-BDF2 takes over where units saturate within the span, so that steps become too long for them.
    rtol, atol : float
        Tolerances of TR-BDF2.

    Raises
    ------
    InputError
        If the course diverges before the end of the span.
    """
    time, skipped = 0.0, 0
    failed: SaturatedError | None = None
    try:
        for point in first:
            time, w, _ = point
            skipped = 1
            yield point
    except SaturatedError as error:
        if not rescued:
            raise
        failed = error
    # A displacement moves by forces that are as exact as the state is.
    atol = max(atol, least_error(motion, w, motion.velocity(w)))
    steps = adaptive_steps(motion, w, LONGEST / SPAN * span, 1, STIFF, rtol, atol, begin=time, reach=span)
    try:
        for point in itertools.islice(steps, skipped, FURTHER + 1):
            time = point[0]
            yield point
    except TooLongStepsError as error:
        if time < span:
            raise failed or error from None


class Floor:
    """Whether the residuals of a course that waits for rest go up and down where the errors of its steps keep them.

    Steps cannot be more exact than the numbers that they are made of. The floor is reached where the largest
    residual of the last `WINDOW` steps found no smaller value, turned often, and is no larger than what a
    displacement by the error that a step may make changes.

    Attributes
    ----------
    reached : bool
    """

    def __init__(self, motion: Motion) -> None:
        self.motion, self.reached = motion, False
        self.seen: list[float] = []

    def see(self, w: State, velocity: State, residual: torch.Tensor) -> bool:
        """Whether the floor is reached with one more point, its velocity and residuals (B,)."""
        self.seen.append(float(residual.max()))
        last, before = self.seen[-WINDOW:], self.seen[:-WINDOW]
        if len(before) < WINDOW or not min(last) >= 0.9 * min(before):
            return False
        rises = [b > a for a, b in itertools.pairwise(last)]
        if sum(a != b for a, b in itertools.pairwise(rises)) < TURNS:
            return False
        off = least_error(self.motion, w, velocity)
        draws = torch.Generator().manual_seed(0)
        moved = tuple(s + off * (2 * torch.randint(2, s.shape, generator=draws) - 1).to(s) for s in w)
        change = largest(tuple(a - b for a, b in zip(self.motion.velocity(moved), velocity, strict=True)))
        self.reached = bool((largest(velocity) <= 4 * change).all())
        return self.reached

    def words(self, dtype: torch.dtype) -> str:
        """What ended the fall, and what goes further."""
        name, last = str(dtype).removeprefix("torch."), self.seen[-WINDOW:]
        way = as_asked("--dtype float64", "system.double() with x.double()")
        more = f"float64 goes further ({way})" if dtype != torch.float64 else "no longer course comes nearer"
        return f"Rounding of {name} ends the fall of the residual at {min(last):.1g} to {max(last):.1g}: {more}."


def least_error(motion: Motion, w: State, velocity: State) -> float:
    """Error of a step that rounding makes, in the unit of the state."""
    return 16 * torch.finfo(w[0].dtype).eps * float(largest(motion.observe(w, velocity).state).max())


def tolerance_of(phase: Phase) -> float:
    """Residual within which a phase counts as at rest: what `physics_ep.relax` asks for."""
    return phase_tolerance(phase, None)


def unrested(motion: Motion, time: float, residual: torch.Tensor, tolerance: float, why: str) -> str:
    """Say that a course ended with residuals (B,) that are not all within the tolerance; '' if they are."""
    away = ~(residual <= tolerance)
    count = int(away.sum())
    if not count:
        return ""
    phase, system = motion.phase, motion.phase.system
    name = "free" if phase.nudge is None else f"nudged (beta = {phase.nudge.most:.3g})"
    constants = time / system.time_constant
    at = f"{constants:.4g} time constants"
    if system.time_unit != "time constants":
        at += f" ({time:.3g} {system.time_unit})"
    worst = float(residual[away].nan_to_num(nan=math.inf).max())
    return (
        f"The {name} course of {type(system).__name__} stopped before rest, after {at}: {count} of "
        f"{residual.numel()} examples have a residual of up to {worst:.2g}, where rest is {tolerance:.2g}. {why}"
    )


def unrested_start(motion: Motion, w: State, free: Motion) -> str:
    """Say that a nudged phase begins where its system is not at rest without the nudge; '' if it is, or nearly.

    Parameters
    ----------
    motion, free : Motion
        Those of the nudged phase, and of the same phase without its nudge.
    w : State
        The start of both.
    """
    alone, pushed = free.velocity(w), motion.velocity(w)
    residual, tolerance = free.observe(w, alone).residual, tolerance_of(free.phase)
    # By speeds: residuals of nudged phases may be in units of the nudge.
    share = largest(alone) / largest(pushed).clamp_min(torch.finfo(alone[0].dtype).tiny)
    away = ~((residual <= tolerance) | (share <= SHARE))
    if not bool(away.any()):
        return ""
    return (
        f"The nudged course of {type(free.phase.system).__name__} starts where the free phase is not at rest: "
        f"{int(away.sum())} of {residual.numel()} examples have a residual of up to "
        f"{float(residual[away].max()):.2g} there, where rest is {tolerance:.2g}, and would move without the nudge "
        f"at up to {float(share[away].max()):.2g} of the speed that they have with it. What the nudge does is "
        "mixed with what the free phase had still to do: let the free course go on until rest (no duration), or "
        "start from relax(system, x).state."
    )


def never_rests(motion: Motion) -> bool:
    """Whether a motion without noise has nothing that would bring it to rest: inertia without friction."""
    return isinstance(motion, Inertial) and not any(motion.frictions(1))


def of_nudge(error: InputError, phase: Phase) -> InputError:
    """The error of steps that are too long, and of a nudged phase what its nudge has to do with it."""
    if phase.nudge is None:
        return error
    beta, scale = phase.nudge.most, phase.nudge_scale
    unit = f"{beta / scale:.2g} times the system's nudge_scale of {scale:.2g}"
    ways = "lower beta" if beta > scale else "a lower beta helps only where the free course has no such steps"
    return InputError(
        f"{error} The phase is nudged with beta = {beta:.3g}, {unit}: {ways}; or give more steps, a shorter "
        "duration, or method 'tr_bdf2', which is stable at any step."
    )
