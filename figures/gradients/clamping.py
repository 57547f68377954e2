"""Coupled learning and clamping beside nudging: what a contrast says when it is not the gradient of a cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from matplotlib.figure import Figure

from physics_ep.estimators.coupled_learning import CoupledLearning
from physics_ep.estimators.propagation import EquilibriumPropagation
from physics_ep.nudging import Stencil, centered, holomorphic, positive
from physics_ep.progress import SILENT, Progress, task
from validation.gradients import estimate_gradient, total_error
from validation.oracles import implicit_gradient

from .. import style
from ..requests import Drawn, Request
from ..subjects import Subject, tanh_networks
from .schemes import BUDGET, REACH, automatic_beta, tight

SCHEMES: tuple[Callable[[], Stencil], ...] = (positive, centered, lambda: holomorphic(4))
CLAMPING = "coupled learning"


@dataclass(frozen=True)
class RuleCurve:
    """One learning rule over its strength.

    Attributes
    ----------
    label : str
    strength : ndarray (n,)
        Fraction of the way that outputs are clamped (dimensionless), or beta (energy over cost).
    worst_angle : ndarray (n,)
        Degrees, between estimate and gradient, of the parameter where it is largest.
    angle : ndarray (n,)
        Degrees, of the whole gradient as one vector.
    error : ndarray (n,)
        |g - exact| / |exact| of the whole gradient.
    """

    label: str
    strength: np.ndarray
    worst_angle: np.ndarray
    angle: np.ndarray
    error: np.ndarray

    @property
    def worst_cosine(self) -> np.ndarray:
        """Smallest cosine over the parameters."""
        return np.cos(np.radians(self.worst_angle))


@dataclass(frozen=True)
class RulePanel:
    """All rules on one system; the first is coupled learning, whose fraction 1 is full clamping.

    Attributes
    ----------
    title : str
    curves : tuple of RuleCurve
    limit : float
        Stability limit of EP's negative nudge, 1 / lambda.
    """

    title: str
    curves: tuple[RuleCurve, ...]
    limit: float


@dataclass(frozen=True)
class RuleComparison:
    """Data of the figure that compares EP, which nudges the outputs, with coupled learning, which clamps them.

    Attributes
    ----------
    panels : tuple of RulePanel
        A panel holds the angles and errors of all rules on one system, and is drawn as one column.
    oracle : str
        Method that gave the exact gradients, in words.
    """

    panels: tuple[RulePanel, ...]
    oracle: str = "implicit differentiation"


def clamping_error(
    subjects: Sequence[Subject], strengths: np.ndarray | None = None, *, progress: Progress | bool = SILENT
) -> RuleComparison:
    """Angle and error of coupled learning, clamping and EP over their strength, a panel a subject.

    Parameters
    ----------
    subjects : sequence of Subject
        Systems with real-valued targets. Complex nudges are left out where the energy is not analytic.
    strengths : ndarray (n,), optional
        Nudging strengths, in (0, 1]. Schemes with a negative nudge go up to `schemes.REACH` of the stability limit.
    progress : Progress

    Returns
    -------
    RuleComparison

    Raises
    ------
    NotConverged, OracleError
        If a phase or the oracle cannot be certified.
    InputError
        If the outputs cannot be clamped.
    """
    grid = np.geomspace(1e-3, 1, 10) if strengths is None else strengths
    panels = []
    with task(progress, "figure: clamping", len(subjects) * (1 + len(SCHEMES))) as advance:
        for subject in subjects:
            _, limit = automatic_beta(subject)
            exact = implicit_gradient(
                subject.system, subject.x, subject.y, subject.cost, tolerance=1e-14, adjoint_tolerance=1e-12
            )
            tolerance = tight(subject.system)
            rules: list[EquilibriumPropagation] = [
                CoupledLearning(float(f), tolerance=tolerance, max_iterations=BUDGET) for f in grid
            ]
            curves = [_curve(CLAMPING, subject, exact, rules)]
            advance(1)
            for scheme in SCHEMES:
                if scheme().analytic and not subject.system.analytic:
                    continue
                within = grid[grid <= REACH * limit] if scheme().has_negative else grid
                rules = [
                    EquilibriumPropagation(
                        subject.cost, scheme(), float(b), tolerance=tolerance, max_iterations=BUDGET
                    )
                    for b in within
                ]
                curves.append(_curve(_name(scheme()), subject, exact, rules))
                advance(1)
            panels.append(RulePanel(subject.label, tuple(curves), limit))
    return RuleComparison(tuple(panels))


def _name(scheme: Stencil) -> str:
    return f"EP, {scheme.name.replace('holomorphic:', 'holomorphic $N$ = ')}"


def _curve(
    label: str, subject: Subject, exact: dict[str, torch.Tensor], rules: Sequence[EquilibriumPropagation]
) -> RuleCurve:
    worst, whole, errors = [], [], []
    for rule in rules:
        estimate, _ = estimate_gradient(rule, subject.system, subject.x, subject.y)
        worst.append(max(angle_between(estimate[n], g) for n, g in exact.items()))
        whole.append(angle_between(_flat(estimate, exact), _flat(exact, exact)))
        errors.append(total_error(estimate, exact))
    strength = np.array([rule.beta for rule in rules])
    return RuleCurve(label, strength, np.array(worst), np.array(whole), np.array(errors))


def _flat(grads: dict[str, torch.Tensor], names: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([grads[n].flatten().double() for n in names])


def angle_between(a: torch.Tensor, b: torch.Tensor) -> float:
    """Angle of two tensors as vectors, in degrees; from the chord, since the cosine of 1e-6 degrees rounds to 1."""
    p, q = a.detach().double().flatten(), b.detach().double().flatten()
    chord = float((p / p.norm() - q / q.norm()).norm())
    return float(np.degrees(2 * np.arcsin(min(1.0, 0.5 * chord))))


@style.drawing
def draw_clamping(data: RuleComparison) -> Figure:
    """A column a system; above the angle of the worst parameter, below the error of the whole gradient."""
    count = len(data.panels)
    width = style.COLUMN if count == 1 else style.PAGE
    figure, axes = style.new_figure(width, 108, 2, count, sharex=True, sharey="row")
    for column, panel in zip(axes.T, data.panels, strict=True):
        _draw_rules(column, panel)
    for ax in axes.flat:
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlabel("Fraction (dimensionless)\nor $\\beta$ (energy / cost)")
    for ax in axes[0]:
        ax.set_ylabel("Angle to the gradient,\nworst parameter (degrees)")
    for ax in axes[1]:
        ax.set_ylabel(f"Relative error against\n{data.oracle} (dimensionless)")
    style.shared_legend(axes[0, 0])
    return figure


def _draw_rules(column: np.ndarray, panel: RulePanel) -> None:
    above, below = column
    for k, curve in enumerate(panel.curves):
        look = style.series(k)
        look.plot(above, curve.strength, curve.worst_angle, label=curve.label)
        look.plot(below, curve.strength, curve.error)
    clamped = panel.curves[0]
    for ax, values in ((above, clamped.worst_angle), (below, clamped.error)):
        ax.plot(
            clamped.strength[-1:],
            values[-1:],
            color=style.BLACK,
            ls="none",
            marker="*",
            ms=7,
            zorder=5,
            label="full clamping (fraction 1)",
        )
        ax.axvline(
            panel.limit, color=style.BLACK, lw=0.8, ls=(0, (4, 2)), label="stability limit of EP, $1/\\lambda$"
        )
    above.set_title(panel.title)


def make_clamping(request: Request) -> Drawn:
    """Figure 'clamping' of the catalogue."""
    data = clamping_error(
        tanh_networks(request, [(1, 0.5), (3, 0.5), (1, 0.8), (3, 0.8)]), progress=request.progress
    )
    return Drawn(draw_clamping(data), asdict(data))
