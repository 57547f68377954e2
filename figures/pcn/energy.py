"""The energy and the residual of a predictive coding network's nudged phase as solvers settle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any
from warnings import catch_warnings, simplefilter

import numpy as np
import torch
from matplotlib.figure import Figure

from physics_ep.cost import Cost
from physics_ep.nudging import Nudge
from physics_ep.predictive_coding import PredictiveCodingNetwork
from physics_ep.progress import SILENT, Progress, task
from physics_ep.relaxation.loop import relax

from .. import style
from ..requests import Drawn, Request
from ..subjects import Subject
from .networks import given_network, predictive_network, tight, vgg_network

BETA = 0.05
"""Nudging strength of Kerjan, Høier and Scellier 2026."""
WEAK_BETA = 0.005
"""So weak that even and odd updates settle."""
ITERATIONS = 20
SOLVERS = ("mod_pgd", "pgd", "sweep", "anderson")


@contextmanager
def unconverged() -> Iterator[None]:
    """Silence the warning of states that are no equilibria, for figures that show such states."""
    with catch_warnings():
        simplefilter("ignore", UserWarning)
        yield


# -- energy and residual as a nudged phase settles ----------------------------------------------------------------


@dataclass(frozen=True)
class EnergyCurve:
    """One solver's course, from the free state.

    Attributes
    ----------
    solver : str
    energy : ndarray (K + 1,)
        Total energy F = E + beta C, mean over the batch, less the free state's beta C. In units of cost.
    residual : ndarray (K + 1,)
        Residual of the worst example. Dimensionless.
    """

    solver: str
    energy: np.ndarray
    residual: np.ndarray


@dataclass(frozen=True)
class EnergyPanel:
    """One network with its gates held or not.

    Attributes
    ----------
    title : str
    gates : str
    beta : float
        Energy over cost.
    depth : int
        Layers. To first order in beta, `pgd` and `mod_pgd` settle in as many iterations, and no sooner.
    nudge : float
        beta C at the free state, mean over the batch.
    coupling : float
        beta lambda, at most over the batch: a sweep contracts below 1.
    curves : tuple of EnergyCurve
    """

    title: str
    gates: str
    beta: float
    depth: int
    nudge: float
    coupling: float
    curves: tuple[EnergyCurve, ...]


@dataclass(frozen=True)
class EnergyCourses:
    """A column a network, treatment of its gates, and beta."""

    panels: tuple[EnergyPanel, ...]


def energy_courses(
    subjects: Sequence[tuple[Subject, str, float]],
    *,
    iterations: int = ITERATIONS,
    progress: Progress | bool = SILENT,
) -> EnergyCourses:
    """Total energy and residual of a phase nudged by +beta, iteration by iteration.

    Parameters
    ----------
    subjects : sequence of (Subject, {'held', 'live'}, float)
        Predictive coding networks with the squared energy, what is done with their gates, and beta.
    iterations : int
        K: those of `mod_pgd` and `pgd` as their paper counts them, passes of `sweep` and `anderson`.
    progress : Progress

    Returns
    -------
    EnergyCourses
    """
    panels = []
    with task(progress, "figure: energy of predictive coding", len(subjects) * len(SOLVERS)) as advance:
        for subject, gates, beta in subjects:
            net = predictive_network(subject)
            free = relax(net, subject.x).state
            nudge = beta * float(subject.cost(net.outputs(free), subject.y).mean())
            curves = []
            for solver in SOLVERS:
                if solver == "mod_pgd" and not net.piecewise_linear:
                    continue
                # The count of sweeps includes the pass that certifies the state.
                budget = iterations + (solver in {"sweep", "anderson"})
                found = relax(
                    net,
                    subject.x,
                    Nudge(subject.cost, subject.y, beta),
                    free,
                    solver=solver,
                    gates=gates,
                    tolerance=tight(net.dtype),
                    max_iterations=budget,
                    trace=True,
                )
                assert found.trace is not None
                energy = found.trace.energy.double().mean(1).cpu().numpy() - nudge
                residual = found.trace.residual.double().amax(1).cpu().numpy()
                curves.append(EnergyCurve(solver, energy, residual))
                advance(1)
            coupling = beta * largest_response(net, subject.x, subject.y, subject.cost)
            panels.append(EnergyPanel(subject.label, gates, beta, net.depth, nudge, coupling, tuple(curves)))
    return EnergyCourses(tuple(panels))


def largest_response(net: PredictiveCodingNetwork, x: torch.Tensor, y: torch.Tensor, cost: Cost) -> float:
    """lambda: largest eigenvalue of sum_l P_l P_l^T over the batch, P_l = dh_L/de_l at the free state.

    From the whole matrices, a column an output.
    """
    with torch.no_grad():
        base = net.phase(net.prepare(x), net.initial_state(x)).nudged(Nudge(cost, y, 1.0))
        out = base.outputs()
        columns = [
            base.response(torch.zeros_like(out).index_fill_(1, torch.tensor(k, device=out.device), 1.0))
            for k in range(out.shape[1])
        ]
        matrices = torch.stack(columns, 2)
        return float(torch.linalg.eigvalsh(0.5 * (matrices + matrices.mT)).max())


@style.drawing
def draw_energy(data: EnergyCourses) -> Figure:
    """A column a panel: above the energy relative to the nudge, below the residual."""
    count = len(data.panels)
    width = style.PAGE if count > 1 else style.COLUMN
    figure, axes = style.new_figure(width, 104, 2, count, sharex=True, sharey="row")
    for column, panel in zip(axes.T, data.panels, strict=True):
        _draw_course(column, panel)
    for ax in axes[0]:
        ax.set_yscale("symlog", linthresh=10, linscale=1.0)
        ax.set_ylim(-100, 3e3)
        ax.set_yticks(
            [-100, -10, 0, 10, 100, 1000], ["\N{MINUS SIGN}100", "\N{MINUS SIGN}10", "0", "10", "100", "1000"]
        )
        ax.set_ylabel("Change of $F = E + \\beta C$\n(% of the free state's $\\beta C$, linear within $\\pm$10)")
    for ax in axes[1]:
        ax.set_yscale("log")
        ax.set_ylabel("Residual, worst example\n(dimensionless)")
    for ax in axes.flat:
        ax.set_xlabel("Iterations $K$ (of the nudged phase)")
        ax.set_xticks(range(0, max(len(c.energy) for p in data.panels for c in p.curves), 5))
    style.shared_legend(axes[0, 0])
    return figure


def _draw_course(column: np.ndarray, panel: EnergyPanel) -> None:
    above, below = column
    for curve in panel.curves:
        # Within the limits of the axes and of float64 where a solver runs away.
        energy = np.clip(100 * curve.energy / abs(panel.nudge), -1e6, 1e6)
        steps = np.arange(len(energy))
        look = style.series(SOLVERS.index(curve.solver))
        look.plot(above, steps, energy, label=curve.solver)
        look.plot(below, steps, np.maximum(curve.residual, 1e-17), label=curve.solver)
    above.axhline(0, color=style.BLACK, lw=0.8, ls=(0, (4, 2)), zorder=1, label="free state")
    for ax in column:
        ax.axvline(panel.depth, color=style.GREY, lw=0.8, ls=(0, (1, 1.5)), zorder=1, label="$K$ = layers")
    strength = f"$\\beta$ = {panel.beta:g}, $\\beta\\lambda$ = {panel.coupling:.2g}"
    above.set_title(f"{panel.title}, gates {panel.gates}\n{strength}")


def make_pcn_energy(request: Request) -> Drawn:
    """Figure 'pcn_energy' of the catalogue."""
    few: dict[str, Any] = {"examples": 16, **request.place()}
    if request.run is not None:
        net = given_network(request, **few)
    else:
        net = vgg_network("trained narrow VGG10", steps=300, seed=request.seed, **few)
    data = energy_courses(
        [(net, "held", WEAK_BETA), (net, "held", BETA), (net, "live", BETA)], progress=request.progress
    )
    return Drawn(draw_energy(data), asdict(data))
