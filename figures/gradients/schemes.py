"""Holomorphic EP over the nudging strength and the number of points on its circle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from physics_ep.errors import InputError
from physics_ep.estimators.propagation import EquilibriumPropagation
from physics_ep.nudging import centered, holomorphic
from physics_ep.physical_system import PhysicalSystem
from physics_ep.progress import SILENT, Progress, task
from validation.gradients import estimate_gradient, total_error
from validation.oracles import implicit_gradient

from .. import style
from ..requests import Drawn, Request
from ..subjects import Subject, tanh_networks

POINTS = (2, 4, 6, 8, 10, 12)
SHOWN = (2, 4, 8)
REACH = 0.95
"""Largest beta, over the stability limit."""
FIT_REACH = 0.3
"""Slopes are fitted below this beta over the stability limit, where one power of beta leads."""
CLEAR_OF_FLOOR = 10.0
BUDGET = 20_000
"""Iterations allowed to a phase: relaxation slows down without end towards the stability limit."""


@dataclass(frozen=True)
class HolomorphicMap:
    """Error of holomorphic EP over the nudging strength and the number of points on its circle.

    Attributes
    ----------
    title : str
    points : ndarray (m,)
        N.
    beta : ndarray (n,)
    error : ndarray (m, n)
        |g - exact| / |exact| of the whole gradient.
    floor : ndarray (n,)
        Bound on the error that residuals and rounding make (`Step.noise_floor`), at the largest N.
    slopes : tuple of float or None (m,)
        Slopes of log error over log beta below `FIT_REACH` and clear of the floor; None with fewer than three
        points.
    limit : float
        Stability limit of a real negative nudge, 1 / lambda.
    """

    title: str
    points: np.ndarray
    beta: np.ndarray
    error: np.ndarray
    floor: np.ndarray
    slopes: tuple[float | None, ...]
    limit: float
    oracle: str = "implicit differentiation"


def tight(system: PhysicalSystem) -> float | None:
    """Residual near rounding in float64, so that errors of 1e-12 can be seen; the default in other dtypes."""
    return 1e-13 if system.dtype == torch.float64 else None


def automatic_beta(subject: Subject) -> tuple[float, float]:
    """What beta='auto' picks for the batch, and the stability limit that it is taken from.

    Raises
    ------
    InputError
        If no negative nudge has a stable state, or every one has.
    """
    ep = EquilibriumPropagation(subject.cost, centered(), beta="auto")
    estimate_gradient(ep, subject.system, subject.x, subject.y)
    if not 0 < ep.stability_limit < np.inf:
        raise InputError(f"{subject.label} has no finite stability limit to mark.")
    return ep.beta, ep.stability_limit


def holomorphic_map(
    subject: Subject,
    reach: np.ndarray | None = None,
    points: Sequence[int] = POINTS,
    *,
    progress: Progress | bool = SILENT,
) -> HolomorphicMap:
    """Error against implicit differentiation over beta and N.

    Parameters
    ----------
    subject : Subject
        Its energy must be analytic.
    reach : ndarray (n,), optional
        Nudging strengths over the stability limit.
    points : sequence of int
        N; even ones need N / 2 + 1 phases.
    progress : Progress

    Returns
    -------
    HolomorphicMap

    Raises
    ------
    InputError
        If the system is not analytic.
    NotConverged, OracleError
        If a phase or the oracle cannot be certified.
    """
    _, limit = automatic_beta(subject)
    betas = limit * (np.geomspace(1e-3, REACH, 22) if reach is None else reach)
    exact = implicit_gradient(
        subject.system, subject.x, subject.y, subject.cost, tolerance=1e-14, adjoint_tolerance=1e-12
    )
    error = np.empty((len(points), len(betas)))
    floors = np.empty(len(betas))
    with task(progress, "figure: holomorphic", len(betas)) as advance:
        for j, beta in enumerate(betas):
            for i, n in enumerate(points):
                ep = EquilibriumPropagation(
                    subject.cost,
                    holomorphic(n),
                    float(beta),
                    tolerance=tight(subject.system),
                    max_iterations=BUDGET,
                )
                estimate, step = estimate_gradient(ep, subject.system, subject.x, subject.y)
                error[i, j] = total_error(estimate, exact)
            # Of the last N only: the residual of the free state, which all share, makes nearly all of it.
            floors[j] = step.noise_floor
            advance(1)
    slopes = tuple(order_slope(betas / limit, row, floors) for row in error)
    title = f"{subject.label}, $N$ points on a circle"
    return HolomorphicMap(title, np.array(points), betas, error, floors, slopes, limit)


def order_slope(reach: np.ndarray, error: np.ndarray, floor: np.ndarray) -> float | None:
    """Slope of log error over log beta up to `FIT_REACH`, from points clear of the noise floor (None: too few)."""
    use = (reach <= FIT_REACH) & (error > CLEAR_OF_FLOOR * floor)
    if int(use.sum()) < 3:
        return None
    return float(np.polyfit(np.log(reach[use]), np.log(error[use]), 1)[0])


@style.drawing
def draw_holomorphic(data: HolomorphicMap) -> Figure:
    """Left: the map, with contours of the decades. Right: rows of it as curves, with their slopes."""
    figure, axes = style.new_figure(style.PAGE, 74, 1, 2, gridspec_kw={"width_ratios": [1.2, 1]})
    left, right = axes[0]
    _draw_map(left, data)
    _draw_rows(right, data)
    for ax in axes[0]:
        ax.set_xscale("log")
        ax.set_xlabel("Nudging strength $\\beta$ (energy / cost)")
    return figure


def _draw_map(ax: Axes, data: HolomorphicMap) -> None:
    noise = float(np.median(data.floor))
    bottom = 10.0 ** np.floor(np.log10(noise))
    # cividis looks the same to readers with and without red-green blindness, and falls evenly to grey.
    mesh = ax.pcolormesh(
        np.minimum(_edges(data.beta), data.limit),
        _steps(data.points),
        data.error,
        norm=LogNorm(bottom, 1.0),
        cmap="cividis",
        lw=0,
    )
    # Of the logarithm, which is what runs evenly from row to row.
    levels = [k for k in range(-12, 0, 2) if 10.0**k > CLEAR_OF_FLOOR / 3 * noise]
    height = np.log10(data.error)
    colors = ["white" if k < -5 else style.BLACK for k in levels]
    lines = ax.contour(
        data.beta, data.points, height, levels=levels, colors=colors, linewidths=0.8, linestyles="solid"
    )
    ax.clabel(lines, fmt=lambda k: f"$10^{{{k:.0f}}}$", fontsize="small", inline_spacing=2)
    ax.axvline(data.limit, color=style.BLACK, lw=1.2, ls=(0, (4, 2)))
    ax.annotate(
        "stability limit $1/\\lambda$",
        (data.limit, 0.5),
        xycoords=("data", "axes fraction"),
        xytext=(3, 0),
        textcoords="offset points",
        rotation=90,
        va="center",
        fontsize="small",
    )
    ax.set_xlim(data.beta[0], 1.8 * data.limit)
    ax.set_yticks(data.points)
    ax.set_ylabel("Points on the circle $N$ (phases: $N/2 + 1$)")
    ax.set_title(data.title)

    def mark(bar: Colorbar) -> None:
        bar.ax.axhline(noise, color="white", lw=1.2)
        bar.ax.minorticks_off()

    label = "Relative error (dimensionless)\nwhite mark: noise floor"
    style.colorbar(mesh, ax, after=mark, extend="both", pad=0.02, ticks=LogLocator(base=100), label=label)


def _draw_rows(ax: Axes, data: HolomorphicMap) -> None:
    shown = [i for i, n in enumerate(data.points) if n in SHOWN]
    for k, i in enumerate(shown):
        slope = data.slopes[i]
        told = "" if slope is None else f": slope {slope:.2f}"
        style.series(k).plot(ax, data.beta, data.error[i], label=f"$N$ = {data.points[i]}{told}")
    ax.set_yscale("log")
    low, high = float(data.floor.min()) / 30, 2 * float(data.error.max())
    ax.fill_between(data.beta, low, data.floor, color=style.GREY, alpha=0.25, lw=0, label="noise floor")
    mark_limit(ax, data.limit)
    ax.set_ylim(low, high)
    ax.set_ylabel(f"Relative error against\n{data.oracle} (dimensionless)")
    ax.set_title("rows of the map")
    style.legend(ax, loc="upper left")


def mark_limit(ax: Axes, limit: float) -> None:
    """Dashed line where a negative nudge loses its minimum."""
    ax.axvline(limit, color=style.BLACK, lw=1.0, ls=(0, (4, 2)), label="stability limit $1/\\lambda$")


def _edges(centres: np.ndarray) -> np.ndarray:
    """Bounds of cells around centres that are evenly spaced in their logarithm."""
    between = np.sqrt(centres[1:] * centres[:-1])
    return np.concatenate(([centres[0] ** 2 / between[0]], between, [centres[-1] ** 2 / between[-1]]))


def _steps(centres: np.ndarray) -> np.ndarray:
    """Bounds of cells around evenly spaced centres."""
    half = 0.5 * (centres[1] - centres[0])
    return np.concatenate(([centres[0] - half], centres + half))


def make_holomorphic_map(request: Request) -> Drawn:
    """Figure 'holomorphic_map' of the catalogue."""
    data = holomorphic_map(tanh_networks(request, [(3, 0.5)])[0], progress=request.progress)
    return Drawn(draw_holomorphic(data), asdict(data))
