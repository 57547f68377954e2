"""Courses in time: those that a simulation's run file holds, or new ones of any system."""

from __future__ import annotations

from typing import Any

from physics_ep.config import RUN_FILES
from physics_ep.runs.phases import simulate_phases
from physics_ep.runs.preparation import subject_of
from physics_ep.storage.opening import open_run
from physics_ep.storage.trajectory import Trajectory

from .requests import Drawn, Request
from .results import draw_trajectories


def courses_of(request: Request) -> dict[str, Trajectory]:
    """Courses of the file that --from names; of any other system those of `simulate`, and by default of a Hopfield
    network before the 8x8 digits."""
    run = request.run
    if run is not None and run.suffix in RUN_FILES:
        held = open_run(run).trajectories
        if held:
            return dict(held)
    place = request.place()
    config = subject_of("hopfield" if run is None else run, request.weights)
    found = simulate_phases(
        config,
        device=place["device"],
        dtype=request.dtype,
        seed=request.seed,
        progress=request.progress,
    )
    return {"free": found.free, "nudged": found.nudged}


def make_trajectories(request: Request) -> Drawn:
    """Draw states, energies and residuals over time."""
    courses = courses_of(request)
    return Drawn(draw_trajectories(courses), {name: _numbers(course) for name, course in courses.items()})


def _numbers(course: Trajectory) -> dict[str, Any]:
    """What the figure draws of a course, and the states of all its units."""
    states = {f"block {k + 1}": block.detach().cpu().numpy() for k, block in enumerate(course.state)}
    energy, residual = course.energy.detach().cpu().numpy(), course.residual.detach().cpu().numpy()
    return {"time": course.time.cpu().numpy(), "states": states, "energy": energy, "residual": residual}
