"""How a network settles: states, total energy and residual of the free and the nudged phases."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from physics_ep.equilibrium import Equilibrium
from physics_ep.nudging import Nudge
from physics_ep.relaxation.loop import relax

from .. import style
from ..requests import Drawn, Request
from ..subjects import Subject, fresh_hopfield, given

UNITS_SHOWN = 3


@dataclass(frozen=True)
class PhaseCourse:
    """The relaxation of one example in one phase, K iterations.

    Attributes
    ----------
    beta : float
        Nudging strength; 0 for the free phase.
    energy : ndarray (K,)
        Total energy F = E + beta C.
    residual : ndarray (K,)
        Largest component of the force over the system's residual scale.
    tolerance : float
        Tolerance that the last residual meets.
    states : tuple of ndarray (K, n)
        States of each layer; of nudged phases their displacements from the free equilibrium.
    """

    beta: float
    energy: np.ndarray
    residual: np.ndarray
    tolerance: float
    states: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class HopfieldDynamics:
    """Free, positively and negatively nudged relaxation of one example, and what rounding makes of their energy.

    Attributes
    ----------
    label : str
    phases : tuple of PhaseCourse
        Free, +beta, -beta.
    rounding : float
        Changes of energy below this are rounding.
    """

    label: str
    phases: tuple[PhaseCourse, ...]
    rounding: float


def hopfield_dynamics(
    subject: Subject, beta: float = 0.1, *, solver: str = "coordinate", max_iterations: int = 5000
) -> HopfieldDynamics:
    """Relax the subject's first example freely, then nudged by +beta and by -beta from the free equilibrium.

    Parameters
    ----------
    subject : Subject
    beta : float
        Nudging strength, energy over cost.
    solver : str
        Block coordinate descent by default: each of its steps is an exact minimum, so that F cannot rise.
    max_iterations : int

    Returns
    -------
    HopfieldDynamics

    Raises
    ------
    NotConverged
        If a phase does not reach its tolerance: no other states are shown as equilibria.
    """
    x, y = subject.x[:1], subject.y[:1]
    system = subject.system

    def course(found: Equilibrium, strength: float, origin: tuple[torch.Tensor, ...] | None) -> PhaseCourse:
        trace = found.require().trace
        assert trace is not None
        blocks = [s[:, 0].flatten(1) for s in trace.state]
        if origin is not None:
            blocks = [s - o.flatten(1) for s, o in zip(blocks, origin, strict=True)]
        return PhaseCourse(
            beta=strength,
            energy=trace.energy[:, 0].cpu().numpy(),
            residual=trace.residual[:, 0].cpu().numpy(),
            tolerance=found.tolerance,
            states=tuple(s.cpu().numpy() for s in blocks),
        )

    free = relax(system, x, solver=solver, max_iterations=max_iterations, trace=True)
    phases = [course(free, 0.0, None)]
    for strength in (beta, -beta):
        nudge = Nudge(subject.cost, y, strength)
        found = relax(
            system, x, nudge=nudge, start=free.state, solver=solver, max_iterations=max_iterations, trace=True
        )
        phases.append(course(found, strength, free.state))
    # A sum of some hundred terms of order one, each rounded.
    size = float(np.abs(phases[0].energy).max())
    rounding = 8 * torch.finfo(system.dtype).eps * max(size, 1.0)
    return HopfieldDynamics(subject.label, tuple(phases), rounding)


@style.drawing
def draw_dynamics(data: HopfieldDynamics) -> Figure:
    """Upper row: states of the most moved units in each phase. Lower row: energy and residual of all phases."""
    figure, axes = style.new_figure(style.PAGE, 102, 2, 3)
    shown = _most_moved(data.phases[1])
    for ax, phase in zip(axes[0], data.phases, strict=True):
        _draw_states(ax, phase, shown)
    style.same_limits(axes[0, 1:])
    total, above, residual = axes[1]
    for k, phase in enumerate(data.phases):
        _draw_course(axes[1], style.series(k), phase, data.rounding)
    above.axhspan(data.rounding / 10, data.rounding, color=style.GREY, alpha=0.25, lw=0, label="rounding")
    total.set_ylabel("Total energy $F$ (dimensionless)")
    above.set_ylabel("$F - F_\\mathrm{end}$ (dimensionless)")
    residual.set_ylabel("Residual (dimensionless)")
    for ax in (above, residual):
        ax.set_yscale("log")
    for ax in axes.flat:
        ax.set_xlabel("Iteration (sweeps)")
        ax.set_xlim(0, 1.04 * max(len(phase.energy) for phase in data.phases))
    style.legend(total, loc="upper right")
    style.legend(above, *_only(above, "rounding"), loc="upper right")
    style.legend(residual, *_only(residual, "tolerance"), loc="upper right")
    style.shared_legend(axes[0, 0])
    return figure


def _name(phase: PhaseCourse) -> str:
    return "free" if phase.beta == 0 else f"$\\beta$ = {phase.beta:+g}".replace("-", "\N{MINUS SIGN}")


def _most_moved(nudged: PhaseCourse) -> list[np.ndarray]:
    """Indices of the units of each layer that the nudge moves most."""
    return [np.argsort(-np.abs(s[-1]), kind="stable")[:UNITS_SHOWN] for s in nudged.states]


def _draw_states(ax: Axes, phase: PhaseCourse, shown: list[np.ndarray]) -> None:
    count = len(phase.states)
    steps = np.arange(1, len(phase.energy) + 1)
    every = max(1, len(steps) // 5)
    for k, (layer, units) in enumerate(zip(phase.states, shown, strict=True)):
        name = "output units" if k == count - 1 else f"hidden layer {k + 1}"
        for j, unit in enumerate(units):
            style.series(k).plot(
                ax, steps, layer[:, unit], label=None if j else name, markevery=(k * every // 3, every)
            )
    free = phase.beta == 0
    ax.set_title("free phase" if free else f"nudged, {_name(phase)}")
    ax.set_ylabel("State $s$ (dimensionless)" if free else "$s - s_\\mathrm{free}$ (dimensionless)")


def _draw_course(axes: np.ndarray, look: style.Series, phase: PhaseCourse, rounding: float) -> None:
    total, above, residual = axes
    steps = np.arange(1, len(phase.energy) + 1)
    options = {"label": _name(phase), "markevery": (0, max(1, len(steps) // 8))}
    look.plot(total, steps, phase.energy, **options)
    height = phase.energy - phase.energy[-1]
    visible = height > rounding
    look.plot(above, steps[visible], height[visible], **options)
    look.plot(residual, steps, phase.residual, **options)
    # Both nudged phases share a tolerance.
    label = "tolerance, free" if phase.beta == 0 else ("tolerance, nudged" if phase.beta > 0 else None)
    dashes = (0, (4, 2)) if phase.beta == 0 else (0, (1, 2))
    residual.axhline(phase.tolerance, color=style.BLACK, lw=0.7, ls=dashes, label=label)


def _only(ax: Axes, start: str) -> tuple[list[Artist], list[str]]:
    """Legend entries whose label begins so."""
    found = [(h, text) for h, text in zip(*ax.get_legend_handles_labels(), strict=True) if text.startswith(start)]
    return [h for h, _ in found], [text for _, text in found]


def make_hopfield_dynamics(request: Request) -> Drawn:
    """Make the catalogue's figure 'hopfield_dynamics': how one example settles, freely and nudged by +-beta.

    The network is that of the request's run, or an untrained Hopfield network with hidden layers of 48 and 32
    units.
    """
    subject = (
        fresh_hopfield("Hopfield network", [48, 32], "tanh", 0.8, examples=1, seed=request.seed, **request.place())
        if request.run is None
        else given(request, examples=1, **request.place())
    )
    with request.progress.task("figure: dynamics", 1) as advance:
        data = hopfield_dynamics(subject)
        advance(1)
    return Drawn(draw_dynamics(data), asdict(data))
