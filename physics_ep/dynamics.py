"""Trajectories in time of a free or a nudged phase, in the system's own time unit."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

import torch

from .equilibrium import State
from .errors import argument_error, unknown_name
from .integrators import TABLEAUS, Points, adaptive_steps, fixed_steps
from .nudging import Nudge
from .progress import SILENT, Progress
from .relaxation import check_state
from .system import EnergySystem
from .trajectories import Point, Recorder, Trajectory, TrajectoryWriter

MOST_STEPS = 10**8
TICKS = 1000
"""In how many parts the duration is reported to a progress bar."""


def simulate(
    system: EnergySystem,
    x: torch.Tensor,
    duration: float,
    nudge: Nudge | None = None,
    start: State | None = None,
    *,
    steps: int | None = None,
    method: str = "rk4",
    rtol: float = 1e-6,
    atol: float = 1e-9,
    every: int = 1,
    stop_when_settled: float | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: Progress = SILENT,
) -> Trajectory:
    """Integrate the dynamics of a free or nudged phase.

    Parameters
    ----------
    system : EnergySystem
    x : Tensor (B, ...)
    duration : float
        In the system's `time_unit`.
    nudge : Nudge, optional
    start : State, optional
        Default the system's initial state.
    steps : int, optional
        Equal steps. Without it, methods that estimate their error choose their steps by `rtol` and `atol`, all
        others take 20 a `time_constant` of the system.
    method : str
        Explicit: 'euler', 'heun', 'rk4', 'bogacki_shampine', 'dormand_prince'. Implicit, for stiff systems:
        'implicit_euler', 'tr_bdf2'. Of these bogacki_shampine (order 3), dormand_prince (5) and tr_bdf2 (2)
        estimate their error. See `integrators.TABLEAUS`.
    rtol, atol : float
        Error allowed to one step: atol + rtol * largest variable of the example; atol in the unit of the variables
        that are integrated (the state, or `Trajectory.internal`). The batch takes the steps of its most demanding
        example.
    every : int
        Keep the start, each step of which the number is a multiple of this, and the end.
    stop_when_settled : float, optional
        Stop as soon as the force of every example is under this fraction of its peak so far; 0.01 or less for a
        `Trajectory.settling_time`.
    out : path, optional
        Run file RUN.h5 for a trajectory larger than memory: its rows go to RUN.h5.parts as they are computed, and
        become one file at the end. What is returned then is mapped from the file, not held in memory. Killed before
        the end, it leaves parts that `open_run` reads as the beginning of the trajectory.
    progress : Progress

    Returns
    -------
    Trajectory
        For equal steps, every = 1 and no early stop: steps + 1 points, the start among them.

    Raises
    ------
    InputError
        If an argument does not fit, the steps are too long for the dynamics (the state left the finite numbers), or
        `out` cannot be written.
    """
    count = _check_options(system, duration, steps, method, rtol, atol, every, stop_when_settled)
    tableau = TABLEAUS[method]
    with torch.no_grad():
        inputs = system.prepare(x)
        if start is not None:
            check_state(system, start, x)
        origin = system.initial_state(x) if start is None else start
        if nudge is not None:
            nudge.cost.check(system.outputs(origin), nudge.y)
        phase = system.phase(inputs, origin=origin).nudged(nudge)
        motion = phase.motion()
        w = motion.start(tuple(torch.zeros_like(s) for s in phase.start()))
        points = (
            adaptive_steps(motion, w, duration, every, tableau, rtol, atol)
            if count is None
            else fixed_steps(motion, w, duration, count, every, tableau)
        )
        units = (system.time_unit, system.state_unit, system.energy_unit)
        name = "free" if nudge is None else "nudged"
        recorder = Recorder(units) if out is None else TrajectoryWriter(out, name, units)
        with recorder:
            peak = torch.zeros(x.shape[0], dtype=torch.float64, device=x.device)
            for time, w, velocity in _reported(points, duration, progress):
                moment = motion.observe(w, velocity)
                recorder.append(Point(time, *moment))
                peak = torch.maximum(peak, moment.residual.double())
                if stop_when_settled and bool((moment.residual <= stop_when_settled * peak).all()):
                    break
            return recorder.finish()


def _check_options(
    system: EnergySystem,
    duration: float,
    steps: int | None,
    method: str,
    rtol: float,
    atol: float,
    every: int,
    settled: float | None,
) -> int | None:
    """Number of equal steps, None for steps chosen by tolerance; InputError for a bad option."""
    if not (isinstance(duration, int | float) and 0 < duration < math.inf):
        raise argument_error("duration", "be a positive number", duration)
    if method not in TABLEAUS:
        raise unknown_name("method", method, TABLEAUS)
    for name, value in (("rtol", rtol), ("atol", atol)):
        if not (isinstance(value, int | float) and 0 < value < math.inf):
            raise argument_error(name, "be a positive number", value)
    if not isinstance(every, int) or isinstance(every, bool) or every < 1:
        raise argument_error("every", "be an integer of at least 1", every)
    if settled is not None and not (isinstance(settled, int | float) and 0 < settled < 1):
        raise argument_error("stop_when_settled", "be a number between 0 and 1", settled)
    if steps is None:
        if TABLEAUS[method].adaptive:
            return None
        if 20 * duration / system.time_constant > MOST_STEPS:
            raise argument_error(
                "duration",
                f"be within {MOST_STEPS // 20:.0e} time constants of {system.time_constant:g} {system.time_unit}, "
                "unless steps are given",
                f"{duration:g}",
            )
        return max(1, math.ceil(20 * duration / system.time_constant))
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise argument_error("steps", "be an integer of at least 1", steps)
    return steps


def _reported(points: Points, duration: float, progress: Progress) -> Iterator[tuple[float, State, State]]:
    """The points, with word of how far they have come."""
    told = 0
    with progress.task("simulating", TICKS) as advance:
        for point in points:
            due = int(TICKS * point[0] / duration)
            if due > told:
                advance(due - told, time=point[0])
                told = due
            yield point
