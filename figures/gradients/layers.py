"""EP's gradient against an exact one, layer by layer, with gates held and live: cosine, error, residual, K."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from physics_ep.cost import COSTS, CrossEntropy, SquaredError
from physics_ep.data.datasets import digits
from physics_ep.errors import unknown_name
from physics_ep.predictive_coding import from_module
from physics_ep.runs.preparation import subject_of
from validation.examples import judged, parse_strength, usual_gates
from validation.experiments.batch_statistics import small_resnet
from validation.gradients import GradientReport, gradient_report

from .. import style
from ..requests import Drawn, Request
from ..subjects import Subject

EXAMPLES = 16
TOLERANCE = 1e-3
"""Residual to reach: live gates stall above what held ones reach at once, and both are held to the same."""
SMALLEST = 1e-17
"""Left end of the cosines; what is nearer to the exact gradient is drawn on it."""
ROW = 3.0
"""Millimetres of a layer's line, which its name fills."""
NARROW = 120 / 25.4
"""Width below which names are shorter and smaller, inches."""
HIGHEST = 235.0
"""Millimetres of a journal's page; more layers than fit have every second name, or fewer."""
LETTERS = 26
"""Most letters of a name; `style.layer_names` shortens longer ones."""
QUANTITIES = (
    ("distance", "1 - cosine (1)"),
    ("error", "Relative error (1)"),
    ("residual", "Residual (1)"),
)


@dataclass(frozen=True)
class LayerCurve:
    """Curves of one mode of gates: cosine, error and residual over the layers.

    Attributes
    ----------
    label : str
    gates : str
        'held', 'live' or '' for systems without gates.
    distance, error, residual : ndarray (L,)
        1 - cosine and relative error of each layer's gradient, and the residual of the units that it acts on; NaN
        where the exact gradient is zero, or no example has settled.
    iterations : int
        K.
    settled, examples : int
    """

    label: str
    gates: str
    distance: np.ndarray
    error: np.ndarray
    residual: np.ndarray
    iterations: int
    settled: int
    examples: int


@dataclass(frozen=True)
class Layers:
    """Layers of a system in the order of its parameters.

    Attributes
    ----------
    title : str
    layers : tuple of str
    zeros : tuple of str
        Layers whose exact gradient is zero but for rounding.
    beta : float
    oracle : str
    curves : tuple of LayerCurve
    """

    title: str
    layers: tuple[str, ...]
    zeros: tuple[str, ...]
    beta: float
    oracle: str
    curves: tuple[LayerCurve, ...]


def layer_agreement(
    subject: Subject, beta: float | str = "auto", gates: str | None = None, tolerance: float | None = TOLERANCE
) -> Layers:
    """EP's gradient of each layer beside the system's oracle.

    Parameters
    ----------
    subject : Subject
        Any system; with gates both modes are shown.
    beta : float or 'auto'
        Nudging strength, as in `EquilibriumPropagation`.
    gates : {'held', 'live', 'both'}, optional
        Default both where the system has gates.
    tolerance : float, optional
        Residual to reach, or the system's own where that is larger. None: the system's own, as of the command
        `gradients`.
    """
    own = subject.system.default_tolerance(subject.system.dtype)
    if gates is None:
        gates = usual_gates(subject.system)
    report = gradient_report(
        subject.system,
        subject.x,
        subject.y,
        subject.cost,
        beta=beta,
        tolerance=None if tolerance is None else max(tolerance, own),
        floors=False,
        gates=gates,
    )
    names = tuple(row.told for row in report.layers)
    compared = [report] if report.live is None else [report, report.live]
    return Layers(
        title=subject.label,
        layers=names,
        zeros=tuple(row.told for row in report.layers if math.isnan(row.cosine)),
        beta=report.beta,
        oracle=report.oracle,
        curves=tuple(_curve(each, names) for each in compared),
    )


def _curve(report: GradientReport, names: tuple[str, ...]) -> LayerCurve:
    rows = {row.told: row for row in report.layers}
    distance, error, residual = np.array(
        [
            [rows[n].distance, rows[n].relative_error, rows[n].residual] if n in rows else [math.nan] * 3
            for n in names
        ]
    ).T
    gates = report.gates or ""
    spent = max(report.iterations[1:], default=0)
    label = f"{gates} gates, K = {spent}" if gates else f"K = {spent}"
    if report.settled < report.examples:
        label += f", {report.settled} of {report.examples} examples settle"
    return LayerCurve(label, gates, distance, error, residual, spent, report.settled, report.examples)


@style.drawing
def draw_layers(data: Layers) -> Figure:
    """A line a layer, first layers on top; panels of cosine, error and residual."""
    count = len(data.layers)
    height = min(30 + ROW * count, HIGHEST)
    every = max(1, math.ceil(count * ROW / (height - 30 + 1e-9)))
    figure, axes = style.new_figure(style.PAGE, height, 1, 3, least=26, sharey=True)
    narrow = figure.get_size_inches()[0] < NARROW
    for ax, (name, label) in zip(axes.flat, QUANTITIES, strict=True):
        _draw_panel(ax, data, name)
        size = "x-small" if narrow else "medium"  # so that a unit stands beside its quantity
        ax.set_xlabel(label, fontsize=size)
        ax.set_ylabel("Layer (from the input on)", fontsize=size)
        ax.tick_params(axis="y", length=0)
        if narrow:
            ax.tick_params(axis="x", labelsize="x-small")
    shown = range(0, count, every)
    told = style.layer_names(data.layers, LETTERS - 8 * narrow)
    names = [told[k] for k in shown]
    marked = [n + (" *" if data.layers[k] in data.zeros else "") for k, n in zip(shown, names, strict=True)]
    axes.flat[0].set_yticks(list(shown), marked, fontsize="x-small" if narrow else "small")
    axes.flat[0].set_ylim(count - 0.4, -0.6)
    words = [f"{data.title}: EP at $\\beta$ = {data.beta:.2g} against {data.oracle}"]
    if data.zeros:
        words.append("* exact gradient zero but for rounding")
    figure.suptitle(("\n" if narrow else "; ").join(words), fontsize="small" if narrow else "medium")
    style.shared_legend(axes.flat[0])
    return figure


def _draw_panel(ax: Axes, data: Layers, name: str) -> None:
    rows = np.arange(len(data.layers))
    for k, curve in enumerate(data.curves):
        values = getattr(curve, name)
        style.series(k).plot(ax, np.maximum(values, SMALLEST), rows, label=curve.label, lw=0.7)
    ax.set_xscale("log")
    low, high = ax.get_xlim()
    if high / low < 100:  # two decades at least, so that what is nearly equal looks so
        middle = math.sqrt(low * high)
        ax.set_xlim(middle / 10, middle * 10)
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.grid(axis="y", color="#e5e5e5", lw=0.4)
    ax.set_axisbelow(True)


def make_layers(request: Request) -> Drawn:
    """A residual network with batch norm before the 8x8 digits; or what --from names, as `gradients` has it."""
    beta = parse_strength("auto" if request.beta is None else request.beta)
    if request.run is None:
        data = layer_agreement(_residual(request), beta, request.gates)
    else:
        data = layer_agreement(_named(request), beta, request.gates, tolerance=None)
    return Drawn(draw_layers(data), asdict(data))


def _named(request: Request) -> Subject:
    """What --from names, as the command `gradients` judges it: of its own precision, by the squared error."""
    assert request.run is not None
    cost = SquaredError.name if request.cost is None else request.cost
    if cost not in COSTS:
        raise unknown_name("cost", cost, COSTS)
    place = {"device": request.place()["device"], "dtype": request.place()["dtype"] if request.dtype else None}
    config = subject_of(request.run, request.weights)
    system, x, y, judge = judged(config, cost, seed=request.seed, **place)
    return Subject(request.run.stem, system, x, y, judge)


def _residual(request: Request) -> Subject:
    """The small residual network at a quarter of its width."""
    place: dict[str, Any] = request.place()
    data = digits()
    x = data.test_x[:EXAMPLES].unflatten(1, (1, 8, 8)) if data.test_x.ndim == 2 else data.test_x[:EXAMPLES]
    with torch.random.fork_rng():
        torch.manual_seed(request.seed)
        model = small_resnet(8).eval()
    x = x.to(**place)
    system = from_module(model.to(**place), x[:2])
    labels = data.test_y[:EXAMPLES].to(place["device"])
    if request.cost in (None, CrossEntropy.name):
        return Subject("residual network", system, x, labels, CrossEntropy())
    if request.cost not in COSTS:
        raise unknown_name("cost", str(request.cost), COSTS)
    cost = COSTS[request.cost]()
    return Subject("residual network", system, x, cost.encode(labels, data.n_outputs, x.dtype), cost)
