"""How far EP's gradient is from the exact one: over the nudging strength, the scheme, the law and the precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from physics_ep.errors import InputError
from physics_ep.estimators.propagation import EquilibriumPropagation
from physics_ep.nudging import Nudge, Stencil, centered, negative, positive, random_sign
from physics_ep.progress import SILENT, Progress, task
from physics_ep.relaxation.loop import relax
from validation.gradients import estimate_gradient, total_error
from validation.oracles import implicit_gradient

from .. import style
from ..requests import BATCH, Drawn, Request
from ..subjects import Subject, given, hard_network, smooth_network

P = TypeVar("P")

SCHEMES: tuple[Callable[[], Stencil], ...] = (positive, negative, random_sign, centered)
DRAWS = 8
FIT = (1e-3, 1e-2)
"""The decade of beta over which slopes are fitted: one power of beta leads there, well above rounding."""
CLEAR_OF_FLOOR = 10.0


@dataclass(frozen=True)
class ErrorCurve:
    """Error of one way to estimate a gradient over beta.

    Attributes
    ----------
    label : str
    beta : ndarray (n,)
    error : ndarray (n,)
        |g - exact| / |exact| of the whole gradient; root mean square over draws where signs are drawn.
    slope : float or None
        Slope of log error over log beta within `FIT`; None where fewer than three points there are clear of the
        floor.
    order : int or None
        Declared by the stencil; None where bounds hold some units: at their kinks the declared order ends.
    """

    label: str
    beta: np.ndarray
    error: np.ndarray
    slope: float | None = None
    order: int | None = None


@dataclass(frozen=True)
class ErrorPanel:
    """Data of one panel: error curves against one oracle.

    Attributes
    ----------
    title : str
    curves : tuple of ErrorCurve
    floor_beta, floor : ndarray (n,)
        Bound on the error that residuals and rounding make (`Step.noise_floor`) in the centered estimate.
    floor_label : str
    limit : float or None
        Strength at which a negative nudge loses its stability, in the unit of the nudging strengths; None: not
        shown.
    """

    title: str
    curves: tuple[ErrorCurve, ...]
    floor_beta: np.ndarray
    floor: np.ndarray
    floor_label: str = "noise floor"
    limit: float | None = None


@dataclass(frozen=True)
class ErrorCurves:
    """A row of panels, the oracle that all errors are taken against, and the label of the nudging strengths."""

    panels: tuple[ErrorPanel, ...]
    oracle: str = "implicit differentiation"
    strength: str = "Nudging strength $\\beta$ (energy / cost)"


def estimator_error(
    subjects: Sequence[Subject],
    betas: np.ndarray | None = None,
    *,
    seed: int = 0,
    progress: Progress | bool = SILENT,
) -> ErrorCurves:
    """Error of every real scheme over beta, a panel a subject.

    Parameters
    ----------
    subjects : sequence of Subject
    betas : ndarray (n,), optional
        Nudging strengths over each system's `nudge_scale`. Those beyond half the stability limit of a negative
        nudge are left out.
    seed : int
        Seed of the random signs.
    progress : Progress

    Returns
    -------
    ErrorCurves

    Raises
    ------
    NotConverged, OracleError
        If a phase or the oracle cannot be certified.
    """
    grid = np.logspace(-5, -0.5, 19) if betas is None else betas
    panels = []
    with task(progress, "figure: schemes", len(subjects) * len(SCHEMES)) as advance:
        for subject in subjects:
            exact = implicit_gradient(subject.system, subject.x, subject.y, subject.cost)
            unit = subject.system.nudge_scale
            allowed = grid[grid * unit <= 0.5 * stability_limit(subject)]
            floor = np.array([_floor(subject, float(b * unit)) for b in allowed])
            smooth = _is_smooth(subject)
            curves = []
            for scheme in SCHEMES:
                errors = np.array(
                    [estimate_error(subject, exact, scheme(), float(b * unit), seed) for b in allowed]
                )
                slope = fitted_slope(allowed, errors, floor)
                order = scheme().order if smooth else None
                label = f"random, r.m.s. of {DRAWS} draws" if scheme().random else scheme().name
                curves.append(ErrorCurve(label, allowed, errors, slope, order))
                advance(1)
            title = subject.label if smooth else f"{subject.label}, with kinks"
            panels.append(ErrorPanel(title, tuple(curves), allowed, floor))
    return ErrorCurves(tuple(panels), strength=_strength(subjects))


def precision_error(
    subject: Subject, betas: np.ndarray | None = None, *, progress: Progress | bool = SILENT
) -> ErrorCurves:
    """Error of the centered estimate over beta in float32 and float64, and with float32 states subtracted.

    Displacements are carried by `EquilibriumPropagation`; the last curve is what is lost without that: the same
    float32 equilibria, but the difference of dE/dtheta taken between two rounded states.

    Parameters
    ----------
    subject : Subject
        Its parameters are rounded to float32 first, so that all curves share one exact gradient.
    betas : ndarray (n,), optional
        Nudging strengths, over the system's `nudge_scale`.
    progress : Progress

    Returns
    -------
    ErrorCurves
        One panel.
    """
    grid = np.logspace(-5, -0.5, 19) if betas is None else betas
    narrow = subject.to(torch.float32)
    wide = narrow.to(torch.float64)
    exact = implicit_gradient(wide.system, wide.x, wide.y, wide.cost)
    unit = wide.system.nudge_scale
    allowed = grid[grid * unit <= 0.5 * stability_limit(wide)]
    with task(progress, "figure: precision", 4) as advance:

        def curve(label: str, error: Callable[[float], float]) -> ErrorCurve:
            errors = np.array([error(float(b * unit)) for b in allowed])
            advance(1)
            return ErrorCurve(label, allowed, errors)

        curves = (
            curve("float64", lambda b: estimate_error(wide, exact, centered(), b)),
            curve("float32", lambda b: estimate_error(narrow, exact, centered(), b)),
            curve("float32, states subtracted", lambda b: total_error(_subtracted(narrow, b), exact)),
        )
        floor = np.array([_floor(narrow, float(b * unit)) for b in allowed])
        advance(1)
    title = f"{subject.label}, centered scheme"
    panel = ErrorPanel(title, curves, allowed, floor, "noise floor of float32")
    return ErrorCurves((panel,), strength=_strength([subject]))


def fitted_slope(beta: np.ndarray, error: np.ndarray, floor: np.ndarray) -> float | None:
    """Slope of log error over log beta within `FIT`, from points clear of the noise floor (None: too few)."""
    margin = 1 + 1e-9
    use = (beta >= FIT[0] / margin) & (beta <= FIT[1] * margin) & (error > CLEAR_OF_FLOOR * floor)
    if int(use.sum()) < 3:
        return None
    return float(np.polyfit(np.log(beta[use]), np.log(error[use]), 1)[0])


@style.drawing
def draw_errors(data: ErrorCurves) -> Figure:
    """Error over beta, log-log, a panel each; slopes in the legend, the noise floor shaded."""
    many = len(data.panels) > 2

    def draw(ax: Axes, panel: ErrorPanel) -> None:
        _draw_panel(ax, panel)
        ax.set_xlabel(data.strength)
        style.legend(ax, handlelength=2.2)

    return draw_row(data.panels, draw, data.oracle, height=92 if many else 72)


def draw_row(panels: Sequence[P], draw: Callable[[Axes, P], None], oracle: str, height: float) -> Figure:
    """Panels of errors against an oracle side by side, lettered and to one scale.

    Parameters
    ----------
    panels : sequence
    draw : callable (ax, panel)
        Draws one of them.
    oracle : str
        What the errors are measured against.
    height : float
        Height of the figure, mm.
    """
    count = len(panels)
    width = style.COLUMN if count == 1 else style.PAGE
    figure, axes = style.new_figure(width, height, 1, count)
    for ax, panel in zip(axes[0], panels, strict=True):
        draw(ax, panel)
        against = f" against\n{oracle}" if count < 3 else ""
        ax.set_ylabel(f"Relative error{against} (dimensionless)")
    style.same_limits(axes[0])
    return figure


def _draw_panel(ax: Axes, panel: ErrorPanel) -> None:
    for k, curve in enumerate(panel.curves):
        style.series(k).plot(ax, curve.beta, curve.error, label=_legend(curve))
    ax.set_xscale("log")
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    low = min(low, float(panel.floor.min()) / 3)
    ax.fill_between(
        panel.floor_beta, low / 1e3, panel.floor, color=style.GREY, alpha=0.25, lw=0, label=panel.floor_label
    )
    ax.set_ylim(low, 2 * high)
    if panel.limit is not None:
        ax.axvline(
            panel.limit, color=style.BLACK, lw=0.7, ls=(0, (4, 2)), label=f"stability limit: {panel.limit:.2g}"
        )
    ax.set_title(panel.title)


def _legend(curve: ErrorCurve) -> str:
    if curve.slope is None:
        return curve.label
    order = "" if curve.order is None else f" (order {curve.order})"
    return f"{curve.label}: slope {curve.slope:.2f}{order}"


def _is_smooth(subject: Subject) -> bool:
    """Whether no unit of the batch rests on a bound at the free equilibrium."""
    free = relax(subject.system, subject.x).require()
    masks = subject.system.free_variables(free.state, subject.x)
    return masks is None or all(bool(mask.all()) for mask in masks)


def estimate_error(
    subject: Subject, exact: dict[str, torch.Tensor], scheme: Stencil, beta: float, seed: int = 0
) -> float:
    """Relative error of one estimate; root mean square over `DRAWS` draws if the scheme draws signs."""
    squares = []
    for draw in range(DRAWS if scheme.random else 1):
        generator = torch.Generator().manual_seed(1000 * seed + draw)
        ep = EquilibriumPropagation(subject.cost, scheme, beta, generator=generator)
        estimate, _ = estimate_gradient(ep, subject.system, subject.x, subject.y)
        squares.append(total_error(estimate, exact) ** 2)
    return float(np.sqrt(np.mean(squares)))


def _floor(subject: Subject, beta: float) -> float:
    ep = EquilibriumPropagation(subject.cost, centered(), beta)
    _, step = estimate_gradient(ep, subject.system, subject.x, subject.y)
    return step.noise_floor


def stability_limit(subject: Subject) -> float:
    """Largest |beta| of a negative nudge, measured."""
    ep = EquilibriumPropagation(subject.cost, centered(), beta="auto")
    estimate_gradient(ep, subject.system, subject.x, subject.y)
    if not ep.stability_limit > 0:
        raise InputError(f"{subject.label} has no stable nudged state.")
    return ep.stability_limit


def _strength(subjects: Sequence[Subject]) -> str:
    own = any(subject.system.nudge_scale != 1 for subject in subjects)
    return "Nudging strength over the system's scale (dimensionless)" if own else ErrorCurves.strength


def _subtracted(subject: Subject, beta: float) -> dict[str, torch.Tensor]:
    """Centered estimate from dE/dtheta at two rounded states, as one would write it without displacements."""
    system, x = subject.system, subject.x
    free = relax(system, x).require()
    names = [n for n, p in system.named_parameters() if p.requires_grad]
    leaves = [p for p in system.parameters() if p.requires_grad]
    slopes = []
    for strength in (beta, -beta):
        state = relax(system, x, nudge=Nudge(subject.cost, subject.y, strength), start=free.state).require().state
        with torch.enable_grad():
            slopes.append(torch.autograd.grad(system.energy(state, x).mean(), leaves))
    return {n: (up - down) / (2 * beta) for n, up, down in zip(names, *slopes, strict=True)}


def make_estimator_error(request: Request) -> Drawn:
    """Figure 'estimator_error' of the catalogue."""
    subjects = (
        [smooth_network(request), hard_network(request)]
        if request.run is None
        else [given(request, examples=BATCH, **request.place())]
    )
    data = estimator_error(subjects, seed=request.seed, progress=request.progress)
    return Drawn(draw_errors(data), asdict(data))


def make_precision(request: Request) -> Drawn:
    """Figure 'precision' of the catalogue."""
    subject = smooth_network(request) if request.run is None else given(request, examples=BATCH, **request.place())
    data = precision_error(subject, progress=request.progress)
    return Drawn(draw_errors(data), asdict(data))
