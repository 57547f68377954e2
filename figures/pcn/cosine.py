"""Angle between EP's gradient and backprop's on predictive coding networks: over beta, layer, iterations, dtype."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from physics_ep.blocks import State
from physics_ep.estimators.propagation import EquilibriumPropagation, NegativeNudgeError
from physics_ep.extremes import greatest
from physics_ep.nudging import Nudge
from physics_ep.predictive_coding import PredictiveCodingNetwork
from physics_ep.predictive_coding.forward import Cast
from physics_ep.predictive_coding.layers import told_name
from physics_ep.progress import SILENT, Progress, task
from physics_ep.relaxation.loop import relax
from validation.gradients import estimate_gradient
from validation.oracles import backprop_gradient

from .. import style
from ..requests import Drawn, Request
from ..subjects import Subject
from .energy import largest_response, unconverged
from .networks import predictive_network, ten_layers, tight

Gradients = dict[str, torch.Tensor]

REACH = 0.95
"""Largest beta over the stability limit."""
SHARE = 0.05
"""beta lambda of the panels over layers and iterations: what beta='auto' takes."""
COUNTS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 40)
LETTERS = 12
"""Most letters of a layer's name below its place; `style.layer_names` shortens longer ones."""
SMALLEST = 1e-17
"""Bottom of the figure; what is nearer to the exact gradient is drawn on it."""


@dataclass(frozen=True)
class Way:
    """One way to settle the nudged phases; `max_iterations` None is until the residual is near rounding."""

    label: str
    solver: str
    gates: str = "held"
    max_iterations: int | None = None
    scheme: str = "centered"


RECTIFIED = (
    Way("anderson", "anderson"),
    Way("sweep, $K$ = 3", "sweep", max_iterations=3),
    Way("mod_pgd", "mod_pgd"),
    Way("mod_pgd, live, $K$ = 10", "mod_pgd", "live", 10),
    Way("anderson, live, $K$ = 10", "anderson", "live", 10),
    Way("anderson, one-sided", "anderson", scheme="positive"),
)
"""For networks of ReLUs, gates held unless 'live' is said: then there is hardly ever an equilibrium to reach."""
SMOOTH = (
    Way("anderson", "anderson"),
    Way("sweep, $K$ = 3", "sweep", max_iterations=3),
    Way("pgd, $K$ = 20", "pgd", max_iterations=20),
    Way("skew_flow, $K$ = 40", "skew_flow", max_iterations=40),
    Way("anderson, one-sided", "anderson", scheme="positive"),
)
COUNTED_RECTIFIED = (
    Way("sweep", "sweep"),
    Way("anderson", "anderson"),
    Way("mod_pgd", "mod_pgd"),
    Way("mod_pgd, live", "mod_pgd", "live"),
)
COUNTED_SMOOTH = (
    Way("sweep", "sweep"),
    Way("anderson", "anderson"),
    Way("pgd", "pgd"),
    Way("skew_flow", "skew_flow"),
)


@dataclass(frozen=True)
class CosineCurve:
    """1 - cosine of one way to estimate the gradient.

    Attributes
    ----------
    label : str
    at : ndarray (n,)
        beta, the number of the layer, or K.
    distance : ndarray (n,)
        1 - cosine to backprop in float64: of the worst parameter, or of each layer's weights.
    """

    label: str
    at: np.ndarray
    distance: np.ndarray


@dataclass(frozen=True)
class CosinePanel:
    """Data of one panel: the cosine of each layer of one network.

    Attributes
    ----------
    title : str
    limit : float
        Stability limit of the negative nudge, 1 / lambda.
    beta : float
        Nudging strength of the curves over layers and over K.
    over_beta, over_layers, over_count, over_dtype : tuple of CosineCurve
    rounded : float
        Value that backprop in bfloat16 reaches.
    layers : tuple of str
        Names of the weights of `over_layers`, from the input.
    """

    title: str
    limit: float
    beta: float
    over_beta: tuple[CosineCurve, ...]
    over_layers: tuple[CosineCurve, ...]
    over_count: tuple[CosineCurve, ...]
    over_dtype: tuple[CosineCurve, ...]
    rounded: float
    layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cosines:
    """Data of the figure of cosines: one column for each network."""

    panels: tuple[CosinePanel, ...]


def one_minus_cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    """From the chord, since the cosine itself rounds to 1; 1 where one is zero, 0 where both are."""
    p, q = a.detach().double().flatten(), b.detach().double().flatten()
    if not bool(p.any()) or not bool(q.any()):
        return float(bool(p.any()) != bool(q.any()))
    if not bool(torch.isfinite(p).all()):
        return 1.0
    return 0.5 * float((p / p.norm() - q / q.norm()).square().sum())


def cosines(
    subjects: Sequence[Subject],
    betas: np.ndarray | None = None,
    counts: Sequence[int] = COUNTS,
    *,
    progress: Progress | bool = SILENT,
) -> Cosines:
    """1 - cosine between EP and backprop, for the worst parameter or layer by layer.

    Parameters
    ----------
    subjects : sequence of Subject
        Predictive coding networks.
    betas : ndarray (n,), optional
        Nudging strengths, energy over cost. The centered scheme, which nudges negatively, goes up to `REACH` of the
        stability limit.
    counts : sequence of int
        K: passes of 'sweep' and 'anderson', the certifying one included; iterations of the others.
    progress : Progress

    Returns
    -------
    Cosines
    """
    grid = np.geomspace(1e-4, 1, 9) if betas is None else betas
    panels = []
    with task(progress, "figure: cosines of predictive coding", 3 * len(subjects)) as advance:
        for subject in subjects:
            net = predictive_network(subject)
            exact = backprop_gradient(net, subject.x, subject.y, subject.cost)
            limit = 1 / largest_response(net, subject.x, subject.y, subject.cost)
            within = grid[grid < REACH * limit]
            beta = SHARE * limit
            ways = RECTIFIED if net.piecewise_linear else SMOOTH
            counted = COUNTED_RECTIFIED if net.piecewise_linear else COUNTED_SMOOTH
            over_beta = tuple(
                _over_beta(way.label, subject, exact, within if way.scheme == "centered" else grid, way)
                for way in ways
            )
            advance(1)
            weights = [n for n in exact if n.endswith(".weight")]
            over_layers = []
            for way in ways:
                found = gradient(subject, beta, way)
                distances = np.array([one_minus_cosine(found[n], exact[n]) for n in weights])
                over_layers.append(CosineCurve(way.label, np.arange(1, len(weights) + 1), distances))
            over_count = tuple(_over_count(way, subject, exact, beta, counts) for way in counted)
            advance(1)
            over_dtype = _over_dtype(subject, within)
            advance(1)
            panels.append(
                CosinePanel(
                    title=subject.label,
                    limit=limit,
                    beta=beta,
                    over_beta=over_beta,
                    over_layers=tuple(over_layers),
                    over_count=over_count,
                    over_dtype=over_dtype,
                    rounded=worst(_rounded_backprop(subject), exact),
                    layers=tuple(told_name(net.stack, n) for n in weights),
                )
            )
    return Cosines(tuple(panels))


def worst(estimate: Gradients, exact: Gradients) -> float:
    """Largest 1 - cosine over the parameters."""
    return greatest(one_minus_cosine(estimate[n], g) for n, g in exact.items())


def gradient(subject: Subject, beta: float, way: Way, tolerance: float | None = None) -> Gradients:
    """EP's gradient, whether its phases have converged or not."""
    net = predictive_network(subject)
    ep = EquilibriumPropagation(
        subject.cost,
        way.scheme,
        beta,
        solver=way.solver,
        tolerance=tight(net.dtype) if tolerance is None else tolerance,
        max_iterations=1000 if way.max_iterations is None else way.max_iterations,
        on_unconverged="warn",
        gates=way.gates,
    )
    with unconverged():
        return estimate_gradient(ep, net, subject.x, subject.y)[0]


def _over_beta(
    label: str, subject: Subject, exact: Gradients, betas: np.ndarray, way: Way, **options: Any
) -> CosineCurve:
    at, found = [], []
    for beta in betas:
        try:
            found.append(worst(gradient(subject, float(beta), way, **options), exact))
        except NegativeNudgeError:  # at the very limit, which is measured
            break
        at.append(float(beta))
    return CosineCurve(label, np.array(at), np.array(found))


def _over_count(way: Way, subject: Subject, exact: Gradients, beta: float, counts: Sequence[int]) -> CosineCurve:
    runs = [Way(way.label, way.solver, way.gates, k) for k in counts]
    return CosineCurve(
        way.label, np.array(counts), np.array([worst(gradient(subject, beta, w), exact) for w in runs])
    )


def _over_dtype(subject: Subject, betas: np.ndarray) -> tuple[CosineCurve, ...]:
    """float64, float32 and bfloat16, with carried displacements and errors, and from states rounded to them.

    Weights and inputs are those of float32 for all.
    """
    narrow = subject.to(torch.float32)
    wide = narrow.to(torch.float64)
    half = Subject(narrow.label, copy.deepcopy(narrow.system), narrow.x, narrow.y, narrow.cost)
    predictive_network(half).compute_dtype = torch.bfloat16
    exact = backprop_gradient(wide.system, wide.x, wide.y, wide.cost)
    way = Way("", "sweep")
    curves = [
        _over_beta("float64", wide, exact, betas, way),
        _over_beta("float32", narrow, exact, betas, way),
        _over_beta("bfloat16", half, exact, betas, way, tolerance=half.system.default_tolerance(torch.bfloat16)),
    ]
    if predictive_network(subject).energy_name == "squared":
        for dtype in (torch.float32, torch.bfloat16):
            distances = [worst(subtracted(wide, float(b), dtype), exact) for b in betas]
            name = str(dtype).removeprefix("torch.")
            curves.append(CosineCurve(f"{name}, states subtracted", betas, np.array(distances)))
    return tuple(curves)


def subtracted(subject: Subject, beta: float, dtype: torch.dtype) -> Gradients:
    """Centered estimate from dE/dtheta at two rounded states, as one would write it without displacements.

    Both are equilibria to 1e-12, of the squared energy with gates held.
    """
    net = predictive_network(subject)
    free = relax(net, subject.x).require().state
    slopes = []
    for strength in (beta, -beta):
        nudge = Nudge(subject.cost, subject.y, strength)
        found = relax(net, subject.x, nudge, free, solver="anderson", gates="held", tolerance=tight(net.dtype))
        slopes.append(_slope(net, subject.x, found.state, free, dtype))
    # The subtraction itself is exact enough: what is lost was lost in the states and in E.
    return {n: (slopes[0][n] - slopes[1][n]) / (2 * beta) for n in slopes[0]}


def _slope(
    net: PredictiveCodingNetwork, x: torch.Tensor, state: State, free: State, dtype: torch.dtype
) -> Gradients:
    """dE/dtheta, batch mean, gates and routes held at the free state, all arithmetic in a dtype."""
    twin = copy.deepcopy(net).to(dtype)
    routes = net.run(x).routes
    h = [x.to(dtype), *(s.to(dtype) for s in state)]
    weights = Cast(twin.stack, dtype)
    with torch.enable_grad():
        total: torch.Tensor | float = 0.0
        for k, layer in enumerate(twin.stack):
            (source, link, name), *others = layer.wires(k)
            a = link.apply(weights.of(k, name), h[source + 1], routes[k])
            if layer.bias is not None:
                a = a + layer.bias.view(-1, *[1] * (a.ndim - 2))
            for source, link, name in others:
                a = link.add_to(a, weights.of(k, name), h[source + 1])
            sigma = a * (free[k] > 0) if layer.activation_name == "relu" else layer.activation.response(a)
            total = total + 0.5 * (h[k + 1] - sigma).square().flatten(1).sum(1).mean()
        assert isinstance(total, torch.Tensor)
        names = [n for n, p in twin.named_parameters() if p.requires_grad]
        found = torch.autograd.grad(total, [p for p in twin.parameters() if p.requires_grad])
    return {n: g.double() for n, g in zip(names, found, strict=True)}


def _rounded_backprop(subject: Subject) -> Gradients:
    """Backprop with weights, states and errors in bfloat16."""
    twin = copy.deepcopy(predictive_network(subject)).to(torch.bfloat16)
    with torch.enable_grad():
        loss = subject.cost(twin(subject.x.to(torch.bfloat16)).float(), _single(subject.y)).mean()
        named = [(n, p) for n, p in twin.named_parameters() if p.requires_grad]
        return dict(zip([n for n, _ in named], torch.autograd.grad(loss, [p for _, p in named]), strict=True))


def _single(y: torch.Tensor) -> torch.Tensor:
    return y.float() if y.dtype.is_floating_point else y


# -- drawing ------------------------------------------------------------------------------------------------------


@style.drawing
def draw_cosines(data: Cosines) -> Figure:
    """A column a network; rows over beta, over layers, over K, over beta by dtype."""
    count = len(data.panels)
    width = style.PAGE if count > 1 else 0.6 * style.PAGE
    figure, axes = style.new_figure(width, 190, 4, count)
    for column, panel in zip(axes.T, data.panels, strict=True):
        _draw_column(column, panel)
    for ax in axes.flat:
        ax.set_yscale("log")
        ax.set_ylim(SMALLEST / 3, 30)
        ax.set_yticks(10.0 ** np.arange(-16, 1, 4))
        style.legend(ax, handlelength=2.6)
    return figure


def _draw_column(column: np.ndarray, panel: CosinePanel) -> None:
    by_beta, by_layer, by_count, by_dtype = column
    beta = f"$\\beta$ = {panel.beta:.2g}"
    _draw_curves(by_beta, panel.over_beta)
    _draw_curves(by_layer, panel.over_layers)
    _draw_curves(by_count, panel.over_count)
    _draw_curves(by_dtype, panel.over_dtype)
    by_dtype.axhline(
        panel.rounded, color=style.GREY, lw=0.9, ls=(0, (1, 1.5)), label="backprop in bfloat16", zorder=1
    )
    for ax in (by_beta, by_dtype):
        ax.axvline(panel.limit, color=style.BLACK, lw=0.8, ls=(0, (4, 2)), label="limit $1/\\lambda$")
        ax.set_xscale("log")
        ax.set_xlim(0.7e-4, 1.4)
        ax.set_xlabel("Nudging strength $\\beta$ (energy / cost)")
    by_layer.set_xlabel("Weights (from the input)")
    numbers = panel.over_layers[0].at
    names = style.layer_names(panel.layers or [f"{k}" for k in numbers], LETTERS)
    by_layer.set_xticks(numbers, names, rotation=90, fontsize="small")
    by_count.set_xlabel("Iterations $K$ (of the nudged phases)")
    by_count.set_xscale("log")
    by_count.set_xticks([1, 2, 5, 10, 20, 40], ["1", "2", "5", "10", "20", "40"])
    by_count.minorticks_off()
    if any(c.at[0] == 1 and c.distance[0] < 1e-12 for c in panel.over_count):
        by_count.annotate(
            "$K$ = 1 is backprop,\nno equilibrium (residual 1)",
            (1, SMALLEST),
            xytext=(17, 6),
            textcoords="offset points",
            fontsize="small",
            va="center",
            arrowprops={"arrowstyle": "-", "lw": 0.5, "shrinkB": 3},
        )
    by_beta.set_title(panel.title)
    by_layer.set_title(f"each layer's weights, {beta}")
    by_count.set_title(f"stopped after $K$, {beta}")
    by_dtype.set_title("sweep, in several dtypes")
    for ax in column:
        ax.set_ylabel("1 \N{MINUS SIGN} cosine to backprop\n(dimensionless)")
    by_beta.set_ylabel("1 \N{MINUS SIGN} cosine to backprop,\nworst tensor (dimensionless)")


def _draw_curves(ax: Axes, curves: tuple[CosineCurve, ...]) -> None:
    for k, curve in enumerate(curves):
        style.series(k).plot(ax, curve.at, np.maximum(curve.distance, SMALLEST), label=curve.label)


def make_pcn_cosine(request: Request) -> Drawn:
    """Figure 'pcn_cosine' of the catalogue."""
    data = cosines(ten_layers(request), progress=request.progress)
    return Drawn(draw_cosines(data), asdict(data))
