"""The energy landscape of two coupled oscillators: how a nudge tilts it, until the free state's valley is gone."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hardware_models.oscillators.graph import OscillatorGraph
from physics_ep.blocks import State
from physics_ep.cost import PhaseError
from physics_ep.dynamics.simulation import simulate
from physics_ep.landscape.branches import check_branches, follow
from physics_ep.nudging import Nudge
from physics_ep.relaxation.loop import relax

from .. import style
from ..requests import Drawn, Request, refuse_run

COUPLING, FIELD, INJECTION, TARGET = 0.625, 0.15625, 0.4, 0.8 * math.pi
"""W, h and K in coupling units, and where the second oscillator should be, radians."""
START = (math.radians(-60.0), math.radians(120.0))
"""Phases at which the free phase starts, radians."""
WINDOW = (-0.5 * math.pi, 1.5 * math.pi)
TOLERANCE = 1e-11
"""Largest force that a stationary state may have, coupling units."""
DURATION = 60.0
"""Time that each path is followed, inverse coupling units."""
SHORT_AND_LONG = (0.6, 1.3)
"""Nudging strengths shown, over that of the fold."""


@dataclass(frozen=True)
class Stationary:
    """Stationary states of F = E + beta C on the torus, in order of beta.

    Attributes
    ----------
    beta : ndarray (n,)
    angles : ndarray (n, 2)
        Within `WINDOW`, radians.
    index : ndarray of int (n,)
        Directions in which F falls: 0 a minimum, 1 a saddle, 2 a maximum.
    residual : float
        Largest force in any of them, coupling units.
    """

    beta: np.ndarray
    angles: np.ndarray
    index: np.ndarray
    residual: float


@dataclass(frozen=True)
class Landscape:
    """F under one nudge, with a path of gradient flow.

    Attributes
    ----------
    beta : float
    energy : ndarray (n, n)
        F in coupling units, rows of phi_2, columns of phi_1.
    path : ndarray (T, 2)
        Radians.
    end : ndarray (2,)
        The certified equilibrium to which the path leads.
    states : Stationary
    """

    beta: float
    energy: np.ndarray
    path: np.ndarray
    end: np.ndarray
    states: Stationary


@dataclass(frozen=True)
class OscillatorPair:
    """Two oscillators, free and nudged.

    Attributes
    ----------
    grid : ndarray (n,)
        Angles of the landscapes, radians.
    landscapes : tuple of Landscape
        Free; nudged to before the fold; and beyond it.
    states : Stationary
        Stationary states over beta.
    fold : float
        The beta to which the free state can be followed.
    nudged_beta : ndarray (m,)
    nudged_angles : ndarray (m, 2)
        Angles at which the nudged phase settles.
    switched : ndarray of bool (m,)
        What `physics_ep.landscape.branches` tells of that.
    """

    grid: np.ndarray
    landscapes: tuple[Landscape, ...]
    states: Stationary
    fold: float
    nudged_beta: np.ndarray
    nudged_angles: np.ndarray
    switched: np.ndarray


def pair() -> OscillatorGraph:
    """The two oscillators of the figure: E = -W cos(a - b) - h (cos a + cos b) - K / 2 (cos 2a + cos 2b)."""
    return OscillatorGraph(
        2,
        [[0, 1]],
        COUPLING,
        field=[[FIELD, FIELD], [0.0, 0.0]],
        second_harmonic=INJECTION,
        outputs=[1],
        readout="phase",
    ).double()


def pair_landscapes(betas: np.ndarray | None = None, *, points: int = 121) -> OscillatorPair:
    """The landscape of two oscillators of which the second is nudged to `TARGET` by 1 - cos.

    Parameters
    ----------
    betas : ndarray, optional
        Nudging strengths at which branches are drawn.
    points : int
        Points of the landscapes along an axis.

    Returns
    -------
    OscillatorPair

    Raises
    ------
    NotConverged
        If a phase does not settle.
    """
    system, cost = pair(), PhaseError()
    x, y = torch.zeros(1, 0, dtype=torch.float64), torch.full((1, 1), TARGET, dtype=torch.float64)
    begin = (torch.tensor([START], dtype=torch.float64),)
    free = relax(system, x, start=begin, tolerance=TOLERANCE, solver="gradient_flow").require()
    base = system.phase(system.prepare(x), origin=free.state, balanced=True)
    widest = 4 * (COUPLING + FIELD + INJECTION)
    reached, _, _ = follow(base, Nudge(cost, y, widest), shortest=1e-6)
    fold = float(reached) * widest
    grid = np.linspace(*WINDOW, points)
    landscapes = []
    start: State = begin
    for beta in (0.0, *(share * fold for share in SHORT_AND_LONG)):
        nudge = Nudge(cost, y, beta) if beta else None
        course = simulate(system, x, DURATION, nudge, start, method="bogacki_shampine", rtol=1e-5)
        end = relax(system, x, nudge, tuple(s[-1] for s in course.state), tolerance=TOLERANCE).require()
        landscapes.append(
            Landscape(
                beta,
                _energies(system, cost, y, beta, grid),
                course.state[0][:, 0].numpy(),
                end.state[0][0].numpy(),
                stationary_states(system, cost, y, np.array([beta])),
            )
        )
        start = free.state
    swept = np.linspace(0, 1.5 * fold, 121) if betas is None else betas
    nudged = np.linspace(0, 1.45 * fold, 16)[1:]
    nudged = nudged[np.abs(nudged / fold - 1) > 0.02]
    ends, switched = _answers(system, cost, y, free.state, nudged)
    return OscillatorPair(
        grid, tuple(landscapes), stationary_states(system, cost, y, swept), fold, nudged, ends, switched
    )


def stationary_states(
    system: OscillatorGraph, cost: PhaseError, y: torch.Tensor, betas: np.ndarray, starts: int = 12
) -> Stationary:
    """All stationary states that Newton's method finds from a grid of starts, for each beta."""
    line = torch.linspace(*WINDOW, starts + 1, dtype=torch.float64)[:-1] + 0.01
    first = torch.cartesian_prod(line, line)
    beta = torch.as_tensor(betas, dtype=torch.float64).repeat_interleave(len(first))
    phi = first.repeat(len(betas), 1)
    free = system.phase(system.prepare(phi.new_zeros(len(phi), 0)))
    phase = free.nudged(Nudge(cost, y.expand(len(phi), 1), beta))
    units = [phi.new_tensor([1.0, 0.0]).expand_as(phi), phi.new_tensor([0.0, 1.0]).expand_as(phi)]

    def hessian(at: torch.Tensor) -> torch.Tensor:
        return torch.stack([phase.hessian_product((at,), (unit,))[0] for unit in units], 2)

    with torch.no_grad():
        for _ in range(40):
            h, (f, g) = hessian(phi), phase.force((phi,))[0].T
            a, b, c = h[:, 0, 0], h[:, 0, 1], h[:, 1, 1]
            # Cramer's rule; no farther than to the next valley.
            move = torch.stack([c * f - b * g, a * g - b * f], 1) / (a * c - b * b)[:, None]
            phi = phi + move * (0.4 / move.abs().amax(1, keepdim=True)).clamp(max=1)
        missing = phase.force((phi,))[0].abs().amax(1)
        index = (torch.linalg.eigvalsh(hessian(phi)) < 0).sum(1)
    turn = 2 * math.pi
    phi = (phi - WINDOW[0]).remainder(turn) + WINDOW[0]
    keep = missing <= TOLERANCE
    # Alike to 1e-6, also across the border of the window.
    keys = torch.cat([beta[:, None], (phi * 1e6 / turn).round() % round(1e6), index[:, None]], 1)
    _, number = torch.unique(keys[keep], dim=0, return_inverse=True)
    kept = keep.nonzero()[:, 0]
    rows = torch.stack([kept[number == k][0] for k in range(int(number.max()) + 1)])
    return Stationary(beta[rows].numpy(), phi[rows].numpy(), index[rows].numpy(), float(missing[rows].max()))


def _energies(
    system: OscillatorGraph, cost: PhaseError, y: torch.Tensor, beta: float, grid: np.ndarray
) -> np.ndarray:
    b, a = torch.meshgrid(torch.as_tensor(grid), torch.as_tensor(grid), indexing="ij")
    state = (torch.stack([a.flatten(), b.flatten()], 1),)
    with torch.no_grad():
        energy = system.energy(state, state[0].new_zeros(len(state[0]), 0))
        energy = energy + beta * cost(system.outputs(state), y)
    return energy.view(b.shape).numpy()


def _answers(
    system: OscillatorGraph, cost: PhaseError, y: torch.Tensor, free: Any, betas: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """States in which nudged phases settle, and whether each is on another branch."""
    n = len(betas)
    x = y.new_zeros(n, 0)
    origin = tuple(s.expand(n, -1).contiguous() for s in free)
    nudge = Nudge(cost, y.expand(n, 1), torch.as_tensor(betas, dtype=torch.float64))
    found = relax(system, x, nudge, origin, tolerance=TOLERANCE, solver="gradient_flow", max_iterations=20000)
    moved = found.require().displacement
    assert moved is not None
    (told,) = check_branches(system, x, origin, [nudge], [moved])
    return found.state[0].numpy(), told.switched.numpy()


@style.drawing
def draw_pair(data: OscillatorPair) -> Figure:
    """Three landscapes with their paths, and the branches of the second oscillator's phase over beta."""
    figure, axes = style.new_figure(style.PAGE, 112, 2, 3, whole=[1], height_ratios=[1.35, 1])
    every = [landscape.energy for landscape in data.landscapes]
    levels = np.linspace(min(e.min() for e in every), max(e.max() for e in every), 25)
    drawn = [
        _draw_landscape(ax, data, landscape, levels) for ax, landscape in zip(axes[0], data.landscapes, strict=True)
    ]
    ticks = np.arange(np.ceil(levels[0]), levels[-1])
    label = "$F = E + \\beta C$ (coupling units)"
    style.colorbar(drawn[-1], axes[0], ticks=ticks, fraction=0.03, pad=0.01, shrink=0.85, label=label)
    style.shared_legend(axes[0, 1])
    _draw_branches(axes[1, 0], data)
    return figure


def _draw_landscape(ax: Axes, data: OscillatorPair, landscape: Landscape, levels: np.ndarray) -> Any:
    angles = np.degrees(data.grid)
    drawn = ax.contourf(angles, angles, landscape.energy, levels, cmap="Blues_r")
    ax.contour(angles, angles, landscape.energy, levels[::2], colors=style.GREY, linewidths=0.3, linestyles="solid")
    path = np.degrees(landscape.path)
    style.series(1).plot(ax, path[:, 0], path[:, 1], marker="", lw=1.8, label="gradient flow")
    ax.plot(*path[0], ls="", marker="s", ms=4, color=style.series(1).color, mec="white", mew=0.5, label="its start")
    for index, marker, name in ((0, "o", "minimum"), (1, "X", "saddle"), (2, "^", "maximum")):
        here = np.degrees(landscape.states.angles[landscape.states.index == index])
        ax.plot(here[:, 0], here[:, 1], ls="", marker=marker, ms=5, color="black", mec="white", mew=0.6, label=name)
    if landscape.beta:
        target = math.degrees(TARGET)
        ax.axhline(target, color=style.BLACK, lw=0.8, ls=(0, (4, 2)), label="target of $\\varphi_2$")
    low, high = np.degrees(WINDOW)
    ax.set_xlim(low, high)
    ax.set_ylim(low, high)
    ax.set_xticks(np.arange(low, high + 1, 90))
    ax.set_yticks(np.arange(low, high + 1, 90))
    ax.set_aspect("equal")
    ax.set_xlabel("Phase $\\varphi_1$ (degrees)")
    ax.set_ylabel("Phase $\\varphi_2$ (degrees)")
    share = landscape.beta / data.fold
    told = f"nudged, $\\beta$ = {landscape.beta:.2f}" + (", past the fold" if share > 1 else "")
    ax.set_title(told if share else "free")
    return drawn


def _draw_branches(ax: Axes, data: OscillatorPair) -> None:
    states = data.states
    for index, name, color, size in ((0, "minima", style.BLACK, 1.6), (1, "saddles", style.GREY, 1.0)):
        here = states.index == index
        ax.plot(
            states.beta[here],
            np.degrees(states.angles[here, 1]),
            ls="",
            marker="o" if index == 0 else "x",
            ms=size,
            mew=0.4 if index else 0.0,
            color=color,
            label=name,
        )
    second = np.degrees((data.nudged_angles[:, 1] - WINDOW[0]) % (2 * math.pi) + WINDOW[0])
    for flag, look, name in (
        (False, style.series(2), "nudged phase, on its branch"),
        (True, style.series(1), "flagged: switched"),
    ):
        here = data.switched == flag
        look.plot(ax, data.nudged_beta[here], second[here], linestyle="", ms=4.5, label=name, zorder=4)
    ax.axvline(data.fold, color=style.BLACK, lw=0.8, ls=(0, (4, 2)), label="fold")
    low, high = np.degrees(WINDOW)
    ax.set_xlim(0, float(states.beta.max()))
    ax.set_ylim(low, high)
    ax.set_yticks(np.arange(low, high + 1, 90))
    ax.set_xlabel("Nudging strength $\\beta$ (coupling units)")
    ax.set_ylabel("Phase $\\varphi_2$ (degrees)")
    ax.set_title(f"stationary states (forces below {style.power(states.residual)})")
    style.legend(ax, loc="upper right")


def make_two_oscillators(request: Request) -> Drawn:
    """Figure 'two_oscillators' of the catalogue."""
    refuse_run(request, "two_oscillators", "two oscillators of its own")
    with request.progress.task("figure: two oscillators", 1) as advance:
        data = pair_landscapes()
        advance(1)
    return Drawn(draw_pair(data), asdict(data))
