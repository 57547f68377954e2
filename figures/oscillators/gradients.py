"""EP's gradient of networks of oscillators: its order, branch switches of strongly coupled ones, and two costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from hardware_models.media.medium import FitzHughNagumoChain
from hardware_models.oscillators.graph import OscillatorGraph
from hardware_models.oscillators.network import OscillatorNetwork
from physics_ep.cost import Cost, LogPhaseError, PhaseError
from physics_ep.estimators.propagation import EquilibriumPropagation, NegativeNudgeError
from physics_ep.nudging import Stencil, centered, positive
from physics_ep.progress import SILENT, Progress, task
from validation.gradients import estimate_gradient, total_error
from validation.oracles import implicit_gradient

from .. import style
from ..gradients.errors import ErrorCurve, estimate_error, fitted_slope
from ..requests import Drawn, Request
from ..subjects import Subject, before_digits, given

PUBLISHED = 0.1
"""The beta of a published training with -log(1 + cos)."""
BETAS = np.geomspace(1e-4, 1e-1, 7)
SWITCHING = np.geomspace(1e-3, 1.0, 10)


@dataclass(frozen=True)
class PhaseCostCurve:
    """EP's gradient for one cost and scheme over n nudging strengths, in m networks.

    Attributes
    ----------
    label : str
    beta : ndarray (n,)
    cosine : ndarray (m, n)
        Cosine to the exact gradient; NaN where a negative nudge is refused: -beta leaves no minimum.
    """

    label: str
    beta: np.ndarray
    cosine: np.ndarray

    @property
    def refused(self) -> int:
        """Networks in which some nudge is refused."""
        return int(np.isnan(self.cosine).any(1).sum())


@dataclass(frozen=True)
class OscillatorErrors:
    """Errors of the centered scheme for several systems, and cosines for two costs of phases."""

    curves: tuple[ErrorCurve, ...]
    costs: tuple[PhaseCostCurve, ...]


@dataclass(frozen=True)
class SwitchCurve:
    """One system over n nudging strengths, positive nudges.

    Attributes
    ----------
    label : str
    beta : ndarray (n,)
    switched : ndarray (n,)
        Part of the examples that are flagged.
    kept_error, kept_cosine : ndarray (n,)
        Relative error and cosine of the gradient of the examples that are kept, against their exact one; NaN where
        none is left.
    blind_error, blind_cosine : ndarray (n,)
        Relative error and cosine of the gradient of all examples, unchecked.
    residual : float
        Largest of all phases used, in the system's unit.
    """

    label: str
    beta: np.ndarray
    switched: np.ndarray
    kept_error: np.ndarray
    kept_cosine: np.ndarray
    blind_error: np.ndarray
    blind_cosine: np.ndarray
    residual: float


def oscillator_errors(
    subjects: Sequence[Subject],
    phases: Sequence[Subject],
    betas: np.ndarray = BETAS,
    *,
    progress: Progress | bool = SILENT,
) -> OscillatorErrors:
    """Error of centered EP over beta, a curve a subject; and what the cost does to networks that read phases.

    Parameters
    ----------
    subjects : sequence of Subject
    phases : sequence of Subject
        Networks whose outputs are phases, with target phases y.
    betas : ndarray
        Nudging strengths, over each system's `nudge_scale`.
    progress : Progress

    Returns
    -------
    OscillatorErrors

    Raises
    ------
    NotConverged, OracleError
        If a phase or the oracle cannot be certified.
    """
    curves = []
    with task(progress, "figure: oscillator error", len(subjects) + 3) as advance:
        for subject in subjects:
            unit = subject.system.nudge_scale
            exact = implicit_gradient(subject.system, subject.x, subject.y, subject.cost)
            errors = np.array([estimate_error(subject, exact, centered(), float(b * unit)) for b in betas])
            slope = fitted_slope(betas, errors, np.zeros_like(betas))
            curves.append(ErrorCurve(subject.label, betas, errors, slope, centered().order))
            advance(1)
        costs = []
        wide = np.geomspace(1e-4, 1.0, 9)
        for label, cost, scheme, limit in (
            ("1 $-$ cos, centered", PhaseError(), centered(), PUBLISHED),
            ("1 $-$ cos, positive", PhaseError(), positive(), math.inf),
            ("$-$log(1 + cos), positive", LogPhaseError(), positive(), math.inf),
        ):
            tried = wide[wide <= limit * 1.001]
            found = np.stack([_cosines(subject, cost, scheme, tried) for subject in phases])
            costs.append(PhaseCostCurve(label, tried, found))
            advance(1)
    return OscillatorErrors(tuple(curves), tuple(costs))


def _cosines(subject: Subject, cost: Cost, scheme: Stencil, betas: np.ndarray) -> np.ndarray:
    exact = implicit_gradient(subject.system, subject.x, subject.y, cost)
    found = []
    for beta in betas:
        # What is asked here is what a certified gradient is worth, jumps and all.
        ep = EquilibriumPropagation(cost, scheme, float(beta), branches="ignore")
        try:
            estimate, _ = estimate_gradient(ep, subject.system, subject.x, subject.y)
        except NegativeNudgeError:
            found.append(math.nan)
            continue
        found.append(cosine(estimate, exact))
    return np.array(found)


def cosine(estimate: dict[str, torch.Tensor], exact: dict[str, torch.Tensor]) -> float:
    """Cosine of two gradients, each as one vector."""
    a, b = (torch.cat([g[name].flatten() for name in exact]).double().cpu() for g in (estimate, exact))
    return float(a @ b / (a.norm() * b.norm()))


def branch_switches(
    subjects: Sequence[Subject], betas: np.ndarray = SWITCHING, *, progress: Progress | bool = SILENT
) -> tuple[SwitchCurve, ...]:
    """How many examples leave their branch as they are nudged, and what that does to the gradient.

    Parameters
    ----------
    subjects : sequence of Subject
        Systems with smooth energies whose free states are minima.
    betas : ndarray
        Strengths of positive nudges, over each system's `nudge_scale`.
    progress : Progress

    Returns
    -------
    tuple of SwitchCurve

    Raises
    ------
    NotConverged, OracleError
        If a phase or the oracle cannot be certified.
    """
    with task(progress, "figure: branch switches", len(subjects) * len(betas)) as advance:
        curves = []
        for subject in subjects:
            system, x, y, cost = subject.system, subject.x, subject.y, subject.cost
            exact = implicit_gradient(system, x, y, cost)
            rows, worst = [], 0.0
            for beta in betas:
                strength = float(beta * system.nudge_scale)
                ep = EquilibriumPropagation(cost, positive(), strength, on_unconverged="skip", branches="check")
                kept, step = estimate_gradient(ep, system, x, y)
                assert step.used is not None
                used = step.used
                own: dict[str, torch.Tensor] = exact
                if not bool(used.all()):
                    own = {**implicit_gradient(system, x[used], y[used], cost)} if bool(used.any()) else {}
                blind_ep = EquilibriumPropagation(cost, positive(), strength, branches="ignore")
                blind, all_of_them = estimate_gradient(blind_ep, system, x, y)
                for found in all_of_them.equilibria:
                    worst = max(worst, float(found.require().residual_si.max()))
                rows.append(
                    (
                        step.switched / len(x),
                        total_error(kept, own) if own else math.nan,
                        cosine(kept, own) if own else math.nan,
                        total_error(blind, exact),
                        cosine(blind, exact),
                    )
                )
                advance(1)
            switched, error, angle, blind_error, blind_angle = np.array(rows).T
            curves.append(
                SwitchCurve(subject.label, betas, switched, error, angle, blind_error, blind_angle, worst)
            )
    return tuple(curves)


@style.drawing
def draw_switches(curves: Sequence[SwitchCurve]) -> Figure:
    """Switch rate over beta of all systems; error and cosine of the last with and without what is flagged."""
    figure, axes = style.new_figure(style.PAGE, 74, 1, 3)
    rate, error, angle = axes[0]
    for k, curve in enumerate(curves):
        style.series(k).plot(rate, curve.beta, 100 * curve.switched, label=curve.label)
    last = curves[-1]
    for k, (kept, values, angles) in enumerate(
        (
            ("all examples, unchecked", last.blind_error, last.blind_cosine),
            ("without those flagged", last.kept_error, last.kept_cosine),
        )
    ):
        look = style.series((1, 2)[k])
        look.plot(error, last.beta, values, label=kept)
        look.plot(angle, last.beta, angles, label=kept)
    guide = last.kept_error[0] * last.beta / last.beta[0]
    error.plot(last.beta, guide, color=style.BLACK, lw=0.7, ls=(0, (1, 2)), label="order 1")
    error.set_yscale("log")
    rate.set_ylabel("Examples that switch (%)")
    most = 100 * max(float(curve.switched.max()) for curve in curves)
    rate.set_ylim(-0.03 * (most + 5), most + 5)
    rate.set_title("examples that leave their branch")
    error.set_ylabel("Relative error of the gradient (dimensionless)")
    error.set_title(f"size: {last.label}")
    angle.set_ylabel("Cosine to the exact gradient (dimensionless)")
    angle.set_title(f"direction: {last.label}")
    for ax in axes[0]:
        ax.set_xscale("log")
        ax.set_xlabel("Nudging strength $\\beta$ (energy / cost)")
        style.legend(ax, loc="upper left")
    return figure


@style.drawing
def draw_oscillator_errors(data: OscillatorErrors) -> Figure:
    """Error over beta with the order-2 line; cosine over beta for costs of phases."""
    figure, axes = style.new_figure(style.PAGE, 78, 1, 2)
    error, angle = axes[0]
    for k, curve in enumerate(data.curves):
        slope = "" if curve.slope is None else f": slope {curve.slope:.2f}"
        style.series(k).plot(error, curve.beta, curve.error, label=f"{curve.label}{slope}")
    first = max(data.curves, key=lambda curve: float(curve.error[-1]))
    guide = 2 * first.error[-1] * np.square(first.beta / first.beta[-1])
    error.plot(first.beta, guide, color=style.BLACK, lw=0.8, ls=(0, (1, 2)), label="order 2")
    error.set_yscale("log")
    error.set_ylabel("Relative error against\nimplicit differentiation (dimensionless)")
    error.set_title("centered EP, squared error")
    for k, cost in enumerate(data.costs):
        look, count = style.series(k), len(cost.cosine)
        refused = f": refused in {cost.refused} of {count}" if cost.refused else ""
        look.plot(angle, cost.beta, np.nanmedian(cost.cosine, 0), label=cost.label + refused)
        for j, own in enumerate(cost.cosine):
            angle.plot(cost.beta, own, color=look.color, lw=0.5, alpha=0.5, label=f"_{cost.label} {j}")
    angle.axvline(PUBLISHED, color=style.BLACK, lw=0.7, ls=(0, (4, 2)), label="a published $\\beta$")
    angle.set_ylabel("Cosine to the exact gradient (dimensionless)")
    least = min(0.0, *(float(np.nanmin(cost.cosine)) for cost in data.costs))
    angle.set_ylim(least - 0.03, 1.03)
    angle.set_title(f"{len(data.costs[0].cosine)} networks that read phases, and medians")
    for ax in axes[0]:
        ax.set_xscale("log")
        ax.set_xlabel("Nudging strength $\\beta$ (energy / cost)")
        style.legend(ax, loc="upper left")
    return figure


NETWORKS = 6
"""Whose costs of phases are compared."""
COUPLINGS = {"weak coupling": 0.5, "strong coupling": 2.0, "very strong coupling": 4.0}
"""Largest eigenvalues of coupling matrices, over the fields."""


def make_branch_switch(request: Request) -> Drawn:
    """Figure 'branch_switch' of the catalogue."""
    subjects = (
        [_all_to_all(f"{name}, {c:g}", c, 32, request.seed) for name, c in COUPLINGS.items()]
        if request.run is None
        else [given(request, examples=32)]
    )
    data = branch_switches(subjects, progress=request.progress)
    return Drawn(draw_switches(data), {"curves": [asdict(curve) for curve in data]})


def make_oscillator_error(request: Request) -> Drawn:
    """Figure 'oscillator_error' of the catalogue."""
    subjects = _kinds(request.seed) if request.run is None else [given(request, examples=16)]
    phases = [_phases_of_digits(NETWORKS * request.seed + k) for k in range(NETWORKS)]
    data = oscillator_errors(subjects, phases, progress=request.progress)
    return Drawn(draw_oscillator_errors(data), asdict(data))


def _all_to_all(label: str, coupling: float, examples: int, seed: int, n: int = 32) -> Subject:
    return before_digits(
        label,
        lambda n_in, n_out: OscillatorGraph.all_to_all(n_in, n, n_out, coupling=coupling, seed=seed),
        examples,
    )


def _kinds(seed: int) -> list[Subject]:
    """Networks whose centered EP is of second order."""

    def layers(label: str, **options: Any) -> Subject:
        return before_digits(
            label,
            lambda n_in, n_out: OscillatorNetwork([n_in, 24, n_out], gain=0.5, seed=seed, **options),
            8,
        )

    return [
        layers("layers"),
        layers("detuned", frequency_spread=0.05),
        layers("injected", second_harmonic=0.2),
        _all_to_all("all to all", 0.5, 8, seed),
        before_digits("FitzHugh-Nagumo", lambda n_in, n_out: FitzHughNagumoChain([n_in, 40, n_out], seed=seed), 8),
    ]


def _phases_of_digits(seed: int) -> Subject:
    """Oscillators whose phases should be 90 degrees for the right class and -90 for others; only inputs hold them.

    As in a published code (Wang, Wanjura and Marquardt 2024), with normal couplings of variance 1 / n.
    """

    def build(n_in: int, n_out: int) -> OscillatorNetwork:
        system = OscillatorNetwork([n_in, n_out], readout="phase", encoding="phase", span=1.0, field=0.0)
        weight = system.couplings.layers[0].weight
        draw = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        with torch.no_grad():
            weight.copy_(draw / math.sqrt(n_in + n_out))
        return system

    subject = before_digits("phases of 10 outputs, 8x8 digits", build, 20)
    return Subject(subject.label, subject.system, subject.x, math.pi * (subject.y - 0.5), PhaseError())
