"""Trajectories in time: gradient flow ds/dt = -dF/ds, by explicit Runge-Kutta steps whose tableaus are data.

Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, section II.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from .equilibrium import State
from .errors import argument_error, unknown_name
from .nudging import Nudge
from .progress import SILENT, Progress
from .relaxation import check_state
from .system import EnergySystem, Phase


@dataclass(frozen=True)
class Tableau:
    """Explicit Runge-Kutta method: stages k_i = f(z + dt sum_j a_ij k_j), step dt sum_i b_i k_i.

    Attributes
    ----------
    stages : tuple of tuple of float
        Rows of a, strictly lower triangular.
    weights : tuple of float
        b, summing to 1.
    order : int
    """

    stages: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]
    order: int


TABLEAUS = {
    "euler": Tableau(((),), (1.0,), order=1),
    "heun": Tableau(((), (1.0,)), (0.5, 0.5), order=2),
    "rk4": Tableau(((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6), order=4),
}


@dataclass(frozen=True)
class Trajectory:
    """A simulated course.

    Attributes
    ----------
    time : Tensor (T,)
        In the system's time unit (time constants of a unit, for dimensionless systems).
    state : tuple of Tensor (T, B, ...)
    energy : Tensor (T, B)
        F = E + beta C.
    residual : Tensor (T, B)
        Dimensionless force.
    """

    time: torch.Tensor
    state: State
    energy: torch.Tensor
    residual: torch.Tensor

    @property
    def settling_time(self) -> torch.Tensor:
        """(B,): from when on the force stays under 1 % of its peak; NaN where it does not by the end."""
        above = self.residual > 0.01 * self.residual.amax(0, keepdim=True)
        count = torch.arange(1, len(self.time) + 1, device=above.device)[:, None]
        last = (above * count).amax(0)  # rows up to and including the last one above
        late = last >= len(self.time)
        when = self.time[last.clamp(max=len(self.time) - 1)]
        return torch.where(late, torch.full_like(when, math.nan), when)


def simulate(
    system: EnergySystem,
    x: torch.Tensor,
    duration: float,
    nudge: Nudge | None = None,
    start: State | None = None,
    *,
    steps: int | None = None,
    method: str = "rk4",
    progress: Progress = SILENT,
) -> Trajectory:
    """Integrate the dynamics of a free or nudged phase.

    Parameters
    ----------
    system : EnergySystem
    x : Tensor (B, ...)
    duration : float
        In the system's time unit.
    nudge : Nudge, optional
    start : State, optional
        Default the system's initial state.
    steps : int, optional
        Equal steps; default 20 to a time unit.
    method : {'rk4', 'heun', 'euler'}
    progress : Progress

    Returns
    -------
    Trajectory
        steps + 1 points, the start among them.

    Raises
    ------
    InputError
        If an argument does not fit, or the steps are too long for the dynamics (the state left the finite numbers).
    """
    if not (isinstance(duration, int | float) and 0 < duration < math.inf):
        raise argument_error("duration", "be a positive number", duration)
    if method not in TABLEAUS:
        raise unknown_name("method", method, TABLEAUS)
    count = max(1, math.ceil(20 * duration)) if steps is None else steps
    if not isinstance(count, int) or count < 1:
        raise argument_error("steps", "be an integer of at least 1", steps)
    with torch.no_grad():
        inputs = system.prepare(x)
        if start is not None:
            check_state(system, start, x)
        origin = system.initial_state(x) if start is None else start
        if nudge is not None:
            nudge.cost.check(system.outputs(origin), nudge.y)
        phase = system.phase(inputs, origin=origin).nudged(nudge)
        z = phase.start() if nudge is None else tuple(torch.zeros_like(s) for s in phase.start())
        dt = duration / count
        rows = []
        with progress.task("simulating", count) as advance:
            for n in range(count + 1):
                force = phase.force(z)
                rows.append((phase.state(z), phase.energy(z), phase.residual(force)))
                if n < count:
                    z = _step(phase, z, force, dt, TABLEAUS[method])
                    advance(1, time=(n + 1) * dt)
        if not all(bool(torch.isfinite(b).all()) for b in rows[-1][0]):
            raise argument_error("steps", "be more: the dynamics is faster than its steps and diverged", count)
    return Trajectory(
        time=torch.linspace(0, duration, count + 1, dtype=torch.float64),
        state=tuple(torch.stack(blocks) for blocks in zip(*[r[0] for r in rows], strict=True)),
        energy=torch.stack([r[1] for r in rows]),
        residual=torch.stack([r[2] for r in rows]),
    )


def _step(phase: Phase, z: State, force: State, dt: float, tableau: Tableau) -> State:
    slopes = [force]
    for row in tableau.stages[1:]:
        trial = z
        for a, k in zip(row, slopes, strict=True):
            if a:
                trial = tuple(s + dt * a * f for s, f in zip(trial, k, strict=True))
        slopes.append(phase.force(phase.project(trial)))
    for b, k in zip(tableau.weights, slopes, strict=True):
        z = tuple(s + dt * b * f for s, f in zip(z, k, strict=True))
    return phase.project(z)
