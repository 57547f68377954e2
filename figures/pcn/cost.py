"""What predictive coding costs: passes through layers of an EP step against the accuracy of its gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from physics_ep.errors import InputError
from physics_ep.estimators.propagation import EquilibriumPropagation
from physics_ep.extremes import greatest
from physics_ep.maps import Link
from physics_ep.predictive_coding import PredictiveCodingNetwork
from physics_ep.progress import SILENT, Progress, task
from validation.gradients import estimate_gradient, total_error
from validation.oracles import backprop_gradient

from .. import style
from ..requests import Drawn, Request
from ..subjects import Subject
from .energy import largest_response, unconverged
from .networks import predictive_network, ten_layers, tight

SHARE = 0.05
"""beta lambda: what beta='auto' takes."""

SOLVERS: dict[str, tuple[int, ...]] = {
    "sweep": (1, 2, 3, 4, 5, 6, 8, 10),
    "anderson": (1, 2, 3, 4, 5, 6, 8),
    "mod_pgd": (1, 2, 4, 6, 8, 10, 14, 20, 30, 45),
    "pgd": (1, 2, 4, 6, 8, 10, 14, 20, 30, 45),
    "skew_flow": (5, 10, 15, 20, 30, 45, 70),
    "gradient_flow": (10, 20, 40, 80, 160),
}
"""Numbers of iterations at which each is stopped."""

PRODUCTS = ("drive", "apply", "image_of", "transpose", "gradient")
"""Methods of a link that go through its weights once."""


@dataclass(frozen=True)
class CostCurve:
    """One solver, stopped after K iterations.

    Attributes
    ----------
    solver : str
    iterations : ndarray (n,)
        K.
    passes : ndarray (n,)
        Passes of a batch through a layer in an EP step, over those of a backprop step.
    error : ndarray (n,)
        |g - backprop| / |backprop| of the whole gradient.
    residual : ndarray (n,)
        Residual of the nudged phases, worst example.
    """

    solver: str
    iterations: np.ndarray
    passes: np.ndarray
    error: np.ndarray
    residual: np.ndarray


@dataclass(frozen=True)
class CostPanel:
    """One network at one beta."""

    title: str
    beta: float
    curves: tuple[CostCurve, ...]


@dataclass(frozen=True)
class Costs:
    """Data of the figure of costs: one column for each network."""

    panels: tuple[CostPanel, ...]


@dataclass
class PassTally:
    """Passes by layer, in whole batches of `batch` examples."""

    batch: int
    layers: dict[int, float]

    @property
    def total(self) -> float:
        return sum(self.layers.values())


@contextmanager
def counted(net: PredictiveCodingNetwork, batch: int) -> Iterator[PassTally]:
    """Count passes through the layers of a network: forward, transposed, and products that make gradients.

    A pass on two stacked nudges counts twice; one through a skip counts for the layer that it enters.
    """
    tally = PassTally(batch, dict.fromkeys(range(net.depth), 0.0))
    wrapped: list[tuple[Link, str]] = []
    for k, layer in enumerate(net.stack):
        for _, link, _ in layer.wires(k):
            for name in PRODUCTS:
                setattr(link, name, _counting(getattr(link, name), name, k, tally))
                wrapped.append((link, name))
    try:
        yield tally
    finally:
        for link, name in wrapped:
            delattr(link, name)  # the class's own comes forth


def _counting(method: Callable[..., Any], name: str, k: int, tally: PassTally) -> Callable[..., Any]:
    def counting(first: Any, second: torch.Tensor, *rest: Any) -> Any:
        rows = len(first) if name == "gradient" else len(second)
        tally.layers[k] += rows / tally.batch
        return method(first, second, *rest)

    return counting


def backprop_passes(net: PredictiveCodingNetwork) -> float:
    """Passes of a backprop step: three a layer; two for the first, which has nothing below to tell."""
    return 3 * net.depth - 1


def step_cost(
    subject: Subject, beta: float, solver: str, iterations: int | None, tolerance: float | None = None
) -> tuple[PassTally, dict[str, torch.Tensor], float]:
    """Passes, gradient and residual of one centered EP step, gates held.

    Returns
    -------
    passes : PassTally
        Without those that measure the stability limit, every 200 steps.
    gradient : dict
    residual : float
        Worst of the nudged phases.
    """
    net = predictive_network(subject)
    ep = EquilibriumPropagation(
        subject.cost,
        "centered",
        beta,
        solver=solver,
        tolerance=tolerance,
        max_iterations=1,
        on_unconverged="warn",
        gates="held",
    )
    with unconverged():
        estimate_gradient(ep, net, subject.x, subject.y)  # measures the limit
        ep.max_iterations = iterations
        with counted(net, len(subject.x)) as tally:
            gradient, step = estimate_gradient(ep, net, subject.x, subject.y)
    return tally, gradient, greatest(float(e.residual.max()) for e in step.equilibria[1:])


def pass_costs(
    subjects: Sequence[Subject],
    solvers: dict[str, tuple[int, ...]] | None = None,
    *,
    progress: Progress | bool = SILENT,
) -> Costs:
    """Cost and accuracy of every solver, stopped sooner or later, at the beta that beta='auto' takes.

    Parameters
    ----------
    subjects : sequence of Subject
        Predictive coding networks.
    solvers : dict, optional
        Name to numbers of iterations.
    progress : Progress

    Returns
    -------
    Costs
    """
    chosen = SOLVERS if solvers is None else solvers
    panels = []
    with task(progress, "figure: cost of predictive coding", len(subjects) * len(chosen)) as advance:
        for subject in subjects:
            net = predictive_network(subject)
            exact = backprop_gradient(net, subject.x, subject.y, subject.cost)
            beta = SHARE / largest_response(net, subject.x, subject.y, subject.cost)
            curves = []
            for solver, counts in chosen.items():
                advance(1)
                rows = []
                for k in counts:
                    try:
                        tally, gradient, residual = step_cost(subject, beta, solver, k, tight(net.dtype))
                    except InputError:  # no solver for this activation or energy
                        break
                    rows.append((k, tally.total / backprop_passes(net), total_error(gradient, exact), residual))
                if rows:
                    curves.append(CostCurve(solver, *(np.array(column) for column in zip(*rows, strict=True))))
            panels.append(CostPanel(subject.label, beta, tuple(curves)))
    return Costs(tuple(panels))


@style.drawing
def draw_costs(data: Costs) -> Figure:
    """A column a network; above the residual, below the error of the gradient, over the passes of a step."""
    count = len(data.panels)
    width = style.PAGE if count > 1 else 0.6 * style.PAGE
    figure, axes = style.new_figure(width, 110, 2, count, sharex="col", sharey="row")
    for (above, below), panel in zip(axes.T, data.panels, strict=True):
        for curve in panel.curves:
            look = style.series(list(SOLVERS).index(curve.solver))
            look.plot(above, curve.passes, curve.residual, label=curve.solver)
            look.plot(below, curve.passes, np.maximum(curve.error, 1e-16), label=curve.solver)
        _mark_backprop(below, panel)
        above.set_title(f"{panel.title}, $\\beta$ = {panel.beta:.2g}")
    for ax in axes.flat:
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlabel("Passes through layers (of a backprop step's)")
    for ax in axes[0]:
        ax.set_ylabel("Residual of the nudged phases\n(dimensionless)")
    for ax in axes[1]:
        ax.set_ylabel("Relative error against\nbackprop (dimensionless)")
    style.shared_legend(*axes[0])
    return figure


def _mark_backprop(ax: Axes, panel: CostPanel) -> None:
    """Say of sweeps that have not moved yet what they are."""
    for curve in panel.curves:
        if curve.solver in {"sweep", "anderson"} and curve.iterations[0] == 1 and curve.error[0] < 1e-6:
            ax.annotate(
                "$K$ = 1 is backprop,\nno equilibrium (residual 1)",
                (curve.passes[0], max(curve.error[0], 1e-16)),
                xytext=(14, 6),
                textcoords="offset points",
                fontsize="small",
                va="center",
                arrowprops={"arrowstyle": "-", "lw": 0.5, "shrinkB": 3},
            )
            return


def make_pcn_cost(request: Request) -> Drawn:
    """Figure 'pcn_cost' of the catalogue."""
    data = pass_costs(ten_layers(request), progress=request.progress)
    return Drawn(draw_costs(data), asdict(data))
