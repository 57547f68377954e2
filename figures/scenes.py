"""Dynamics of any kind in one form: what interactive pages and films are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from physics_ep.errors import argument_error
from physics_ep.storage.run_file import Run
from physics_ep.storage.trajectory import Trajectory

from .hopfield.transients import CircuitTransients
from .oscillators.phases import PhasesOnCircle


@dataclass(frozen=True)
class Scene:
    """One phase of one example in time.

    Attributes
    ----------
    title : str
    time : ndarray (T,)
    states : dict of str to ndarray (T, n)
        The units of each block, by its name.
    energy, residual : ndarray (T,)
    time_unit, state_unit, energy_unit, residual_unit : str
    circular : bool
        Whether states are angles, radians.
    names : dict of str to tuple of str
        Names of the units of a block, where they have any.
    """

    title: str
    time: np.ndarray
    states: dict[str, np.ndarray]
    energy: np.ndarray
    residual: np.ndarray
    time_unit: str
    state_unit: str
    energy_unit: str
    residual_unit: str = "dimensionless"
    circular: bool = False
    names: Mapping[str, tuple[str, ...]] | None = None

    def name(self, block: str, unit: int) -> str:
        """The name of a unit."""
        named = (self.names or {}).get(block)
        return named[unit] if named else f"{block}, {unit}"


def scenes(courses: Any, example: int = 0) -> list[Scene]:
    """Scenes of whatever is a course in time.

    Parameters
    ----------
    courses : Trajectory, mapping of phases to Trajectory, Run, CircuitTransients or PhasesOnCircle
    example : int
        Number of the example in its batch, from 0.

    Raises
    ------
    InputError
        If it is something else, or has no such example.
    """
    if isinstance(courses, Run):
        courses = courses.trajectories
    if isinstance(courses, Trajectory):
        courses = {"course": courses}
    if isinstance(courses, CircuitTransients):
        return [_transient(courses, k) for k in range(len(courses.phases))]
    if isinstance(courses, PhasesOnCircle):
        return [_turning(courses, k) for k in range(len(courses.phases))]
    if isinstance(courses, Mapping) and courses and all(isinstance(c, Trajectory) for c in courses.values()):
        return [_followed(str(name), course, example) for name, course in courses.items()]
    raise argument_error(
        "courses", "be trajectories, a run with some, or transients of a circuit", type(courses).__name__
    )


def _followed(name: str, course: Trajectory, example: int) -> Scene:
    count = course.energy.shape[1]
    if not 0 <= example < count:
        raise argument_error("example", f"be from 0 to {count - 1}", example)
    blocks = [block[:, example].flatten(1).detach().cpu().numpy() for block in course.state]
    nodes = getattr(course, "nodes", ())
    only = len(blocks) == 1
    labels = ["nodes" if nodes and only else f"block {k + 1}" for k in range(len(blocks))]
    named = {labels[0]: tuple(nodes)} if nodes and only and len(nodes) == blocks[0].shape[1] else None
    return Scene(
        f"{name} phase" if name in ("free", "nudged") else name,
        course.time.cpu().numpy(),
        dict(zip(labels, blocks, strict=True)),
        course.energy[:, example].detach().cpu().numpy(),
        course.residual[:, example].cpu().numpy(),
        course.time_unit,
        course.state_unit,
        course.energy_unit,
        "A" if nodes else "dimensionless",
        circular=course.state_unit in ("rad", "radians"),
        names=named,
    )


def _transient(data: CircuitTransients, k: int) -> Scene:
    phase = data.phases[k]
    states = dict(zip(data.layers, phase.volts, strict=True))
    title = f"nudged, beta = {phase.beta:.3g} S" if phase.beta else "free phase"
    return Scene(title, phase.time, states, phase.energy, phase.current, "s", "V", "W", "A")


def _turning(data: PhasesOnCircle, k: int) -> Scene:
    phase = data.phases[k]
    states = {f"block {j + 1}": angles for j, angles in enumerate(phase.angles)}
    title = f"nudged, beta = {phase.beta:.3g}" if phase.beta else "free phase"
    coupling = "coupling units"
    return Scene(
        title,
        phase.time,
        states,
        phase.energy,
        phase.force,
        "inverse coupling units",
        "rad",
        coupling,
        coupling,
        circular=True,
    )
