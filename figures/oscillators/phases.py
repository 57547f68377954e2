"""Phases of a network of oscillators on the circle, as it settles freely and then under a nudge."""

from __future__ import annotations

import math
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.projections.polar import PolarAxes

from hardware_models.oscillators.base import NEUTRAL, Oscillators
from physics_ep.dynamics.simulation import simulate
from physics_ep.equilibrium import Equilibrium
from physics_ep.errors import argument_error
from physics_ep.extremes import greatest
from physics_ep.nudging import Nudge
from physics_ep.relaxation.loop import relax
from physics_ep.runs.training import train

from .. import style
from ..requests import Drawn, Request
from ..subjects import Subject, trained

TOLERANCE = 1e-10
"""Largest residual of the equilibria in which the phases must end, dimensionless."""
HIDDEN_SHOWN = 40
"""Hidden oscillators drawn at most."""
REACHED = 1e-2
"""Radians from the certified equilibrium within which a course of full length must end."""


@dataclass(frozen=True)
class Turning:
    """One example's phases in time, T times.

    Attributes
    ----------
    beta : float
        Nudging strength; 0 for the free phase.
    time : ndarray (T,)
        Times, in inverse coupling units.
    angles : tuple of ndarray (T, n)
        Phases of each block, radians.
    energy : ndarray (T,)
        F = E + beta C, in coupling units.
    force : ndarray (T,)
        Largest force, in coupling units.
    rest : tuple of ndarray (n,)
        The equilibrium in which the phase must end.
    residual : float
        Largest force at that state.
    rest_energy : float
    """

    beta: float
    time: np.ndarray
    angles: tuple[np.ndarray, ...]
    energy: np.ndarray
    force: np.ndarray
    rest: tuple[np.ndarray, ...]
    residual: float
    rest_energy: float

    @property
    def shown(self) -> int:
        """Times until all phases are within a degree of where they end, and a fifth more."""
        apart = np.stack([np.abs(a - r).max(1) for a, r in zip(self.angles, self.rest, strict=True)]).max(0)
        return min(len(self.time), 2 + int(1.2 * np.flatnonzero(apart > np.radians(1.0)).max(initial=10)))

    @property
    def distance(self) -> float:
        """Largest distance of the last phases from the equilibrium, radians."""
        return greatest(float(np.abs(a[-1] - r).max()) for a, r in zip(self.angles, self.rest, strict=True))


@dataclass(frozen=True)
class PhasesOnCircle:
    """A free and a nudged phase.

    Attributes
    ----------
    label : str
    phases : tuple of Turning
        Free, then nudged from where the free one ended.
    read : ndarray of int
        Which oscillators of which block are outputs ...
    block : int
    target : int or None
        The output of the right class, as a number in `read`.
    """

    label: str
    phases: tuple[Turning, Turning]
    read: np.ndarray
    block: int
    target: int | None


def phases_on_circle(
    subject: Subject, *, beta: float = 2.0, duration: float = 40.0, seed: int = 0
) -> PhasesOnCircle:
    """Follow the oscillators' phases on the subject's first example.

    Parameters
    ----------
    subject : Subject
        Its system is a network of phase oscillators.
    beta : float
        Nudging strength over the system's `nudge_scale`.
    duration : float
        Duration of each phase, in time constants.
    seed : int
        Seed of the phases at the start, drawn from the whole circle.

    Returns
    -------
    PhasesOnCircle
        With the equilibria by `relax` in which the phases end.

    Raises
    ------
    InputError
        If the system is another one, or a phase does not come near its equilibrium in time.
    NotConverged
        If an equilibrium cannot be certified: the oscillators do not lock, say.
    """
    system = subject.system
    if not isinstance(system, Oscillators):
        raise argument_error("run", "hold a network of phase oscillators for this figure", type(system).__name__)
    x, y = subject.x[:1], subject.y[:1]
    strength = beta * system.nudge_scale
    found: list[Turning] = []
    drawn = system.random_state(x, torch.Generator().manual_seed(seed))
    start = tuple(s - math.pi + NEUTRAL for s in drawn)
    for nudge in (None, Nudge(subject.cost, y, strength)):
        course = simulate(system, x, duration * system.time_constant, nudge, start, steps=10 * int(duration))
        start = tuple(s[-1] for s in course.state)
        # From where the course has come: a network of many equilibria has to end in this one.
        rest = relax(system, x, nudge, start=start, tolerance=TOLERANCE, solver="trust_region").require()
        turning = _turning(system, x, 0.0 if nudge is None else strength, nudge, course, rest)
        if turning.distance > REACHED:
            must = f"be long enough to come within {REACHED} of the equilibrium"
            raise argument_error("duration", must, f"{duration:g}: {turning.distance:.2g} radians are left")
        found.append(turning)
    label = y[0] if y.ndim > 1 else torch.nn.functional.one_hot(y, system.outputs(rest.state).shape[1])[0]
    places = torch.arange(int(system.sizes[1 + system.output_block]))[cast(slice, system.output_index)]
    ones = (label == label.max()).nonzero()[:, 0]
    return PhasesOnCircle(
        subject.label,
        (found[0], found[1]),
        places.numpy(),
        system.output_block,
        int(ones[0]) if len(ones) == 1 else None,
    )


def _turning(
    system: Oscillators, x: torch.Tensor, beta: float, nudge: Nudge | None, course: Any, rest: Equilibrium
) -> Turning:
    with torch.no_grad():
        energy = system.energy(rest.state, x)
        if nudge is not None:
            energy = energy + nudge.energy(system.outputs(rest.state))
    return Turning(
        beta=beta,
        time=course.time.numpy(),
        angles=tuple(s[:, 0].cpu().numpy() for s in course.state),
        energy=course.energy[:, 0].cpu().numpy(),
        force=course.residual[:, 0].cpu().numpy() * rest.residual_scale,
        rest=tuple(
            _unwound(s[0].cpu().numpy(), a[-1, 0].cpu().numpy())
            for s, a in zip(rest.state, course.state, strict=True)
        ),
        residual=float(rest.residual_si[0]),
        rest_energy=float(energy[0]),
    )


def _unwound(angles: np.ndarray, near: np.ndarray) -> np.ndarray:
    """The same angles, with as many turns as others have."""
    return angles + 2 * math.pi * np.round((near - angles) / (2 * math.pi))


@style.drawing
def draw_phases(data: PhasesOnCircle) -> Figure:
    """Upper row: courses from the inner circle (start) to the rim (end), and the energy. Below: angles, forces."""
    figure, axes = style.new_figure(style.PAGE, 118, 2, 3, polar=[(0, 0), (0, 1)], height_ratios=[1.25, 1.0])
    free, nudged = data.phases
    for k, phase in enumerate(data.phases):
        _draw_circle(axes[0, k], data, phase)
        _draw_angles(axes[1, k], data, phase)
    energy, force = axes[0, 2], axes[1, 2]
    for k, phase in enumerate((free, nudged)):
        above = phase.energy - phase.rest_energy
        clear = above > 1e-13 * max(1.0, abs(phase.rest_energy))
        look, every = style.series(4 + k), max(1, len(phase.time) // 9)
        options = {"label": _name(phase), "markevery": (k * every // 2, every)}
        look.plot(energy, phase.time[clear], above[clear], **options)
        look.plot(force, phase.time, phase.force, **options)
    worst = greatest(phase.residual for phase in data.phases)
    for ax, label in (
        (energy, "$F - F_\\mathrm{equilibrium}$ (coupling units)"),
        (force, "Largest force (coupling units)"),
    ):
        ax.set_yscale("log")
        ax.set_xlabel("Time (inverse coupling units)")
        ax.set_ylabel(label)
        style.legend(ax, loc="upper right", ncols=2)
    energy.set_title("energy $F = E + \\beta C$")
    force.set_title(f"force (crosses: equilibria, to {style.power(worst)})")
    return figure


def _name(phase: Turning) -> str:
    return "free" if phase.beta == 0 else f"$\\beta$ = {phase.beta:g}"


def _groups(data: PhasesOnCircle) -> list[tuple[str, list[tuple[int, int]], style.Series]]:
    """Name, oscillators (block, number) and look of what is told apart: hidden, other outputs, the right one."""
    outputs = [(data.block, int(i)) for i in data.read]
    right = [] if data.target is None else [outputs[data.target]]
    rest = data.phases[0].rest
    hidden = [(k, i) for k, r in enumerate(rest) for i in range(len(r)) if (k, i) not in outputs]
    every = -(-len(hidden) // HIDDEN_SHOWN)
    found = [
        ("hidden", hidden[:: max(every, 1)], style.Series(style.GREY, (0, (1, 1)), "")),
        ("outputs", [place for place in outputs if place not in right], style.series(0)),
        ("output of the right class", right, style.series(1)),
    ]
    return [group for group in found if group[1]]


def _picked(blocks: tuple[np.ndarray, ...], places: list[tuple[int, int]]) -> np.ndarray:
    """Angles of some oscillators, (..., n)."""
    return np.stack([blocks[k][..., i] for k, i in places], -1)


def _draw_circle(ax: PolarAxes, data: PhasesOnCircle, phase: Turning) -> None:
    """Angle is the phase, radius the time: the start on the inner circle, the end on the rim."""
    time = phase.time[: phase.shown]
    for k, (name, places, look) in enumerate(_groups(data)):
        angles, rest = _picked(phase.angles, places), _picked(phase.rest, places)
        wide = {"lw": 0.4, "alpha": 0.8} if name == "hidden" else {"lw": 1.0 + 0.6 * (k == 2)}
        for j in range(angles.shape[1]):
            look.plot(ax, angles[: len(time), j], time, marker="", label=None if j else name, zorder=1 + k, **wide)
        ax.plot(
            rest,
            np.full(len(rest), time[-1]),
            ls="",
            marker="x",
            ms=3.5 if k else 2,
            mew=0.9 if k else 0.5,
            color=look.color,
            label="_rest",
            zorder=4 + k,
            clip_on=False,
        )
    ax.set_ylim(0, float(time[-1]))
    ax.set_rorigin(-0.4 * float(time[-1]))
    ax.set_yticklabels([])
    ax.tick_params(pad=0)
    ax.grid(lw=0.3, color="#cccccc")
    ax.set_xlabel("Phase $\\varphi$ (degrees)", labelpad=1)
    ax.set_ylabel(f"Radius: time, 0 to {time[-1]:.2g}\n(inverse coupling units)", labelpad=18)
    ax.set_title("free phase" if phase.beta == 0 else f"then nudged, {_name(phase)}")
    if phase.beta == 0:
        style.shared_legend(ax)


def _draw_angles(ax: Axes, data: PhasesOnCircle, phase: Turning) -> None:
    free = phase.beta == 0
    time = phase.time[: phase.shown]
    for k, (name, places, look) in enumerate(_groups(data)):
        origin = 0.0 if free else _picked(data.phases[0].rest, places)
        moved, end = (np.degrees(_picked(b, places) - origin) for b in (phase.angles, phase.rest))
        if free:
            turns = 360 * np.round((end - 90) / 360)
            moved, end = moved - turns, end - turns
        every = max(1, len(time) // 6)
        wide = {"lw": 0.4} if name == "hidden" else {"markevery": (k * every // 3, every)}
        for j in range(moved.shape[1]):
            look.plot(ax, time, moved[: len(time), j], label=f"_{name} {j}", zorder=1 + k, **wide)
        ax.plot(
            np.full(len(end), time[-1]),
            end,
            ls="",
            marker="x",
            ms=3.5 if k else 2,
            mew=0.9 if k else 0.5,
            color=look.color,
            label="_rest",
            clip_on=False,
            zorder=5,
        )
    ax.set_xlim(0, float(time[-1]))
    ax.set_xlabel("Time (inverse coupling units)")
    ax.set_ylabel("Phase $\\varphi$ (degrees)" if free else "$\\varphi - \\varphi_\\mathrm{free}$ (degrees)")
    ax.set_title("phases settle" if free else "what the nudge turns")


BRIEF = (
    "system.sizes=[64,24,10]",
    "training.epochs=4",
    "data.train_examples=600",
    "data.test_examples=60",
)
"""Changes to the config by which the network that `phases_on_circle` shows is trained."""


def make_phases_on_circle(request: Request) -> Drawn:
    """Figure 'phases_on_circle' of the catalogue."""

    def made(path: Path) -> Drawn:
        subject = trained(path, examples=1, **request.place())
        with request.progress.task("figure: phases on the circle", 1) as advance:
            data = phases_on_circle(subject, seed=request.seed)
            advance(1)
        return Drawn(draw_phases(data), asdict(data))

    if request.run is not None:
        return made(request.run)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.h5"
        train("oscillator-digits", overrides=BRIEF, out=path, seed=request.seed, progress=request.progress)
        return made(path)
