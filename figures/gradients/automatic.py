"""The beta that 'auto' picks, beside a sweep over beta in two precisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from physics_ep.estimators.propagation import EquilibriumPropagation
from physics_ep.estimators.step import Step
from physics_ep.nudging import centered
from physics_ep.progress import SILENT, Progress, task
from validation.gradients import estimate_gradient, total_error
from validation.oracles import implicit_gradient

from .. import style
from ..requests import Drawn, Request
from ..subjects import Subject, tanh_networks
from .errors import draw_row
from .schemes import BUDGET, REACH, automatic_beta, mark_limit


@dataclass(frozen=True)
class SweepCurve:
    """Error of the centered estimate over beta in one precision.

    Attributes
    ----------
    label : str
    error : ndarray (n,)
    picked : float
        Error at the automatic beta.
    """

    label: str
    error: np.ndarray
    picked: float


@dataclass(frozen=True)
class AutoPanel:
    """Data of one panel: a sweep of beta on one system, and the beta that beta='auto' picks there.

    Attributes
    ----------
    title : str
    beta : ndarray (n,)
        Nudging strengths of the sweep.
    curves : tuple of SweepCurve
        Error of the gradient over beta, a curve for each precision.
    floor : ndarray (n,)
        Noise floor of the float32 estimate at each beta: the relative error that residuals and rounding may make.
    picked : float
        The automatic beta.
    limit : float
        Stability limit 1 / lambda of the negative nudge.
    """

    title: str
    beta: np.ndarray
    curves: tuple[SweepCurve, ...]
    floor: np.ndarray
    picked: float
    limit: float


@dataclass(frozen=True)
class AutoBeta:
    """Data of the figure of automatic beta: one panel for each system."""

    panels: tuple[AutoPanel, ...]
    oracle: str = "implicit differentiation"


def auto_beta(
    subjects: Sequence[Subject], reach: np.ndarray | None = None, *, progress: Progress | bool = SILENT
) -> AutoBeta:
    """Sweep the centered scheme over beta in float64 and float32, and ask for the automatic beta.

    Parameters
    ----------
    subjects : sequence of Subject
        Parameters are rounded to float32 first, so that both precisions share one exact gradient.
    reach : ndarray (n,), optional
        Nudging strengths over the stability limit, below 1.
    progress : Progress

    Returns
    -------
    AutoBeta

    Raises
    ------
    NotConverged, OracleError
        If a phase or the oracle cannot be certified.
    """
    grid = np.geomspace(1e-5, REACH, 16) if reach is None else reach
    panels = []
    with task(progress, "figure: automatic beta", 2 * len(subjects)) as advance:
        for subject in subjects:
            narrow = subject.to(torch.float32)
            wide = narrow.to(torch.float64)
            exact = implicit_gradient(wide.system, wide.x, wide.y, wide.cost)
            picked, limit = automatic_beta(wide)
            betas = limit * grid
            curves = []
            for label, kind in (("float64", wide), ("float32", narrow)):
                errors, floor = np.empty_like(betas), np.empty_like(betas)
                for k, beta in enumerate(betas):
                    errors[k], step = _judge(kind, exact, float(beta))
                    # Before the next step puts parameters into their range.
                    floor[k] = step.noise_floor if kind is narrow else np.nan
                curves.append(SweepCurve(label, errors, _judge(kind, exact, picked)[0]))
                advance(1)
            panels.append(AutoPanel(subject.label, betas, tuple(curves), floor, picked, limit))
    return AutoBeta(tuple(panels))


def _judge(subject: Subject, exact: dict[str, torch.Tensor], beta: float) -> tuple[float, Step]:
    """Relative error of the centered estimate, and the step."""
    ep = EquilibriumPropagation(subject.cost, centered(), beta, max_iterations=BUDGET)
    estimate, step = estimate_gradient(ep, subject.system, subject.x, subject.y)
    return total_error(estimate, exact), step


@style.drawing
def draw_auto_beta(data: AutoBeta) -> Figure:
    """Error over beta, a panel a system; a star where beta='auto' falls."""
    return draw_row(data.panels, _draw_sweep, data.oracle, height=76)


def _draw_sweep(ax: Axes, panel: AutoPanel) -> None:
    for k, curve in enumerate(panel.curves):
        style.series(k).plot(ax, panel.beta, curve.error, label=curve.label)
    ax.plot(
        panel.beta,
        (panel.beta / panel.limit) ** 2,
        color=style.GREY,
        lw=2.5,
        alpha=0.5,
        label="$(\\beta\\lambda)^2$",
        zorder=1,
    )
    picked = max(curve.picked for curve in panel.curves)
    ax.plot(
        panel.picked,
        picked,
        color=style.BLACK,
        ls="none",
        marker="*",
        ms=8,
        label="beta = 'auto'",
        zorder=5,
    )
    ax.set_xscale("log")
    ax.set_yscale("log")
    low = min(float(panel.floor.min()), *(float(c.error.min()) for c in panel.curves)) / 10
    ax.vlines(panel.picked, low, picked, color=style.BLACK, lw=0.7, ls=(0, (1, 2)))
    ax.fill_between(
        panel.beta, low / 1e3, panel.floor, color=style.GREY, alpha=0.25, lw=0, label="noise floor of float32"
    )
    mark_limit(ax, panel.limit)
    ax.set_ylim(low, 3 * max(float(curve.error.max()) for curve in panel.curves))
    ax.set_xlabel("Nudging strength $\\beta$ (energy / cost)")
    ax.set_title(f"{panel.title}, centered scheme")
    style.legend(ax, loc="upper left")


def make_auto_beta(request: Request) -> Drawn:
    """Figure 'auto_beta' of the catalogue."""
    data = auto_beta(tanh_networks(request, [(3, 0.5), (3, 0.8)]), progress=request.progress)
    return Drawn(draw_auto_beta(data), asdict(data))
