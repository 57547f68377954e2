"""Gradients of imperfect devices: layer by layer over each imperfection, and over beta under read noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hardware_models.devices.model import DeviceModel
from physics_ep.errors import InputError
from physics_ep.progress import SILENT, Progress, task
from physics_ep.storage.opening import open_run
from physics_ep.storage.outputs import as_asked
from validation.sweeps.plan import BASE, IDEAL
from validation.sweeps.store import KIND
from validation.sweeps.table import LEAST, TolerancePoint, ToleranceTable
from validation.sweeps.tolerances import open_tolerance, tolerance
from validation.theory.noise import best_beta

from .. import style
from ..pcn.networks import predictive_network, six_tanh_layers
from ..requests import Drawn, Request
from ..subjects import Subject
from .labels import field_told

SMALLEST = 1e-16
"""Bottom of the figure; what is nearer to the exact gradient is drawn on it."""
LARGEST = 2.0
"""The most that 1 - cosine can be."""
SHOWN = ("transfer", "adaptation")
"""References that are drawn; files of earlier releases that lack adaptation have feedforward in its place."""
LETTERS = 18
"""Most letters of a layer's name beside the scale of colours; `style.layer_names` shortens longer ones."""
NARROW = 4.0
"""Width in inches below which names of layers are smaller."""
REPEATS = 4
SWEEPS: dict[str, tuple[Any, ...]] = {
    "levels": (8, 32, 128, 512),
    "programming_noise": (0.003, 0.01, 0.03, 0.1),
    "stuck_off": (0.001, 0.01, 0.1),
    "copy_mismatch_transpose": (0.003, 0.01, 0.03, 0.1),
    "copy_mismatch_u": (1e-4, 1e-3, 1e-2),
    "amplifier_offset": (1e-5, 1e-4, 1e-3),
    "read_noise": (1e-7, 1e-6, 1e-5, 1e-4),
    "adc_bits": (4, 8, 12, 16),
}
"""Fields and values that a small network is measured at where no sweep file is given."""


@dataclass(frozen=True)
class TolerancePanel:
    """Data of one panel: gradient quality over one imperfection.

    Attributes
    ----------
    field : str
        A field of `DeviceModel`.
    values : tuple
        N; numbers, or words and None.
    cosine : dict
        Each target of `LayerCosines.targets` to ndarray (N, L, 3): 1 - mean cosine, and the ends of a 95 %
        interval (NaN from one repeat or two); NaN where no repeat found an equilibrium, or the exact gradient
        vanishes. The interval is that of the logarithm: the cosine's half width over 1 - cosine, to both
        sides, cut at 2, which 1 - cosine cannot exceed.
    lost : ndarray (N,)
        Fraction of repeats without equilibrium.
    """

    field: str
    values: tuple[Any, ...]
    cosine: dict[str, np.ndarray]
    lost: np.ndarray


@dataclass(frozen=True)
class LayerCosines:
    """Data of the figure of layers: one panel for each imperfection.

    Attributes
    ----------
    layers : tuple of str
        Weight tensors, from the input, by the names that the table has.
    beta : float or 'auto'
    panels : tuple of TolerancePanel
    reference : dict
        Target to ndarray (L,): 1 - cosine of the device that is varied.
    substrate : str
        What the network was mapped to; its devices say what the fields are called.
    zeros : tuple of str
        Layers without any line, as their exact gradient is zero but for rounding.
    """

    layers: tuple[str, ...]
    beta: float | str
    panels: tuple[TolerancePanel, ...]
    reference: dict[str, np.ndarray]
    substrate: str = "hopfield"
    zeros: tuple[str, ...] = ()

    @property
    def targets(self) -> tuple[str, ...]:
        """The references that are drawn: transfer, then adaptation or feedforward."""
        return tuple(self.reference)


def small_sweep(
    subject: Subject,
    sweeps: Mapping[str, Sequence[Any]] | None = None,
    *,
    repeats: int = REPEATS,
    seed: int = 0,
    progress: Progress | bool = SILENT,
) -> ToleranceTable:
    """A tolerance sweep of a network, from the ideal device."""
    net = predictive_network(subject)
    chosen = SWEEPS if sweeps is None else sweeps
    return tolerance(
        net, subject.x, subject.y, subject.cost, sweeps=chosen, repeats=repeats, seed=seed, progress=progress
    )


def layer_cosines(table: ToleranceTable) -> LayerCosines:
    """What a sweep says of each weight tensor, at its first beta.

    Raises
    ------
    InputError
        If nothing is swept in it, or the device alone has no point.
    """
    points = [point for point in table.points if point.beta == table.points[0].beta]
    names = [layer.name for layer in points[0].layers]
    told = [layer.told for layer in points[0].layers]
    known = any(layer.adaptation.tried for point in points for layer in point.layers)
    shown = SHOWN if known else (SHOWN[0], "feedforward")
    zero = [all(not p.layers[k].transfer.count for p in points) for k in range(len(names))]
    zero = [gone and any(p.layers[k].transfer.vanished for p in points) for k, gone in enumerate(zero)]
    kept = [k for k, name in enumerate(names) if name.endswith("weight")]
    if all(zero[k] for k in kept):  # biases alone may learn
        kept = list(range(len(names)))
    fields = list(dict.fromkeys(p.field for p in points if p.field not in (IDEAL, BASE)))
    references = [p for p in points if p.field == BASE] or [p for p in points if p.field == IDEAL]
    if not fields or not references:
        asked = as_asked("--from", "run")
        raise InputError(
            f"Argument {asked} must be a sweep over some field of a device, but has no point of one yet."
        )
    panels = []
    for field in fields:
        own = [p for p in points if p.field == field]
        if all(isinstance(p.value, (int, float)) for p in own):
            own.sort(key=lambda p: p.value)
        panels.append(
            TolerancePanel(
                field,
                tuple(p.value for p in own),
                {target: np.array([_distances(p, kept, target) for p in own]) for target in shown},
                np.array([p.unconverged / p.repeats for p in own]),
            )
        )
    reference = {target: np.array(_distances(references[0], kept, target))[:, 0] for target in shown}
    substrate = table.config["tolerance"]["substrate"]
    zeros = tuple(told[k] for k in kept if zero[k])
    return LayerCosines(tuple(told[k] for k in kept), points[0].beta, tuple(panels), reference, substrate, zeros)


def _distances(point: TolerancePoint, kept: Sequence[int], target: str) -> list[tuple[float, float, float]]:
    """1 - cosine of some tensors, and the interval's ends."""
    found = []
    for k in kept:
        agreement = getattr(point.layers[k], target)
        distance = 1 - agreement.cosine
        # To first order; an interval of the cosine itself would often hold 1, which has no place on the axis.
        told = distance > 0 and agreement.count >= LEAST
        factor = math.exp(agreement.cosine_half_width / distance) if told else math.nan
        found.append((distance, distance / factor, min(distance * factor, LARGEST)))
    return found


@style.drawing
def draw_layer_cosines(data: LayerCosines) -> Figure:
    """Small multiples: 1 - cosine over the imperfection's size, a line a layer."""
    count, depth = len(data.panels), len(data.layers)
    columns = min(count, 4 if count > 6 else 3)
    rows = math.ceil(count / columns)
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.9, depth))
    width = style.PAGE * max(columns, 2) / 4 if columns < 3 else style.PAGE
    height = 16 + (43 if rows < 3 else 37) * rows
    figure, axes = style.new_figure(width, height, rows, columns, count=count, least=38, sharey=True)
    targets = data.targets
    floor = max(float(np.nanmax(data.reference[targets[-1]], initial=0.0)), SMALLEST)
    for ax, panel in zip(axes.flat, data.panels, strict=False):
        ax.axhline(floor, **FLOOR)
        _draw_panel(ax, panel, shades)
        told = field_told(panel.field, [data.substrate])
        ax.set_xlabel(f"{panel.field.replace('_', ' ')} (value)" if told is None else told.axis)
    used = list(axes.flat[:count])
    worst = max(float(np.nanmax(p.cosine[t], initial=SMALLEST)) for p in data.panels for t in targets)
    least = min(float(np.nanmin(p.cosine[t][..., 0], initial=1.0)) for p in data.panels for t in targets)
    used[0].set_yscale("log")
    used[0].set_ylim(max(min(least, floor), SMALLEST) / 3, 4 * max(worst, 1e-3))
    for ax in used:
        ax.set_ylabel("1 \N{MINUS SIGN} cosine (dimensionless)")
    norm = BoundaryNorm(np.arange(0.5, depth + 1), depth)
    # A name a layer, as far as they have room.
    narrow = figure.get_size_inches()[0] < NARROW
    shown = range(0, depth, math.ceil(depth / 12))
    paths = style.layer_names([name.removesuffix(".weight") for name in data.layers], LETTERS)
    names = [paths[k] + (" *" if data.layers[k] in data.zeros else "") for k in shown]
    size = "x-small" if narrow else "small"
    style.colorbar(
        ScalarMappable(norm, ListedColormap(shades)),
        used,
        after=lambda bar: bar.ax.set_yticks([k + 1 for k in shown], names, fontsize=size),
        ticks=[k + 1 for k in shown],
        label="Layer (from the input)",
        aspect=15 * rows,
        pad=0.03 if narrow else 0.01,
    )
    style.shared_legend(handles=_legend(data))
    return figure


TRANSFER: dict[str, Any] = {"ls": "-", "marker": "o", "ms": 1.8}
SECOND: dict[str, Any] = {"ls": (0, (2.5, 1.2)), "marker": "s", "ms": 3.2, "mfc": "white", "mew": 0.6}
WORDS = {
    "transfer": "transfer: to the exact gradient of the ideal network",
    "adaptation": "adaptation: to that of the machine that is there",
    "feedforward": "feedforward: through the devices' arrays",
}
LOST: dict[str, Any] = {"ls": "none", "marker": "x", "ms": 3.5, "mew": 0.8}
FLOOR: dict[str, Any] = {"color": style.GREY, "lw": 0.7, "ls": (0, (1, 1.5)), "zorder": 1}


def _legend(data: LayerCosines) -> list[Line2D]:
    black = {"color": style.BLACK, "mec": style.BLACK}
    told = [
        Line2D([], [], label=WORDS[target], **{**look, **black})
        for target, look in zip(data.targets, (TRANSFER, SECOND), strict=True)
    ]
    told.append(Line2D([], [], label="without the imperfection, worst layer", **FLOOR))
    if any((p.lost > 0).any() for p in data.panels):
        told.append(Line2D([], [], label="some without equilibrium", **{**LOST, **black}))
    if data.zeros:
        told.append(Line2D([], [], ls="none", label="* exact gradient zero but for rounding"))
    return told


def _draw_panel(ax: Axes, panel: TolerancePanel, shades: np.ndarray) -> None:
    at, ticks = _positions(panel.values)
    for target, look in zip(panel.cosine, (TRANSFER, SECOND), strict=True):
        values = np.maximum(panel.cosine[target], SMALLEST)
        for k, shade in enumerate(shades):
            middle, near, far = values[:, k].T
            ax.fill_between(at, near, far, color=shade, alpha=0.13, lw=0)
            ax.plot(at, middle, color=shade, mec=shade, lw=0.8, zorder=3, **look)
    lost = panel.lost > 0
    if lost.any():
        x = np.array(at)[lost]
        ax.plot(x, np.full(len(x), 0.97), transform=ax.get_xaxis_transform(), color=style.BLACK, **LOST)
    if ticks is None:
        ax.set_xscale("log")
    else:
        ax.set_xticks(at, ticks)
        ax.set_xlim(at[0] - 0.05 * (at[-1] - at[0]) - 0.3, at[-1] + 0.05 * (at[-1] - at[0]) + 0.3)


def _positions(values: Sequence[Any]) -> tuple[list[float], list[str] | None]:
    """Places of values, and their names where the axis is not logarithmic."""
    positive = all(isinstance(v, (int, float)) and v > 0 for v in values)
    if positive and len(values) > 1 and max(values) / min(values) >= 30:
        return [float(v) for v in values], None
    # In a row, evenly: words, none, zero, both signs, numbers close together.
    return [float(k) for k in range(len(values))], ["none" if v is None else _short(v) for v in values]


def _short(value: Any) -> str:
    return f"{value:g}".replace("-", "\N{MINUS SIGN}") if isinstance(value, (int, float)) else str(value)


# -- the best beta ------------------------------------------------------------------------------------------------

NOISES = (1e-4, 1e-3)
"""Read noise of the panels, of full scale."""
DRAWS = 12


@dataclass(frozen=True)
class BetaPanel:
    """One read noise; arrays and numbers as of `validation.BetaChoice`."""

    title: str
    read_noise: float
    betas: np.ndarray
    squared_errors: np.ndarray
    fit_betas: np.ndarray
    squared_biases: np.ndarray
    variances: np.ndarray
    bias_coefficient: float
    variance_coefficient: float
    bias_exponent: float
    variance_exponent: float
    predicted: float
    measured: float
    stability_limit: float


@dataclass(frozen=True)
class BetaChoices:
    """A panel a read noise."""

    panels: tuple[BetaPanel, ...]


def beta_choices(
    subject: Subject,
    noises: Sequence[float] = NOISES,
    *,
    repeats: int = DRAWS,
    seed: int = 0,
    progress: Progress | bool = SILENT,
) -> BetaChoices:
    """Best beta of a network's circuit under read noise, predicted and found.

    Parameters
    ----------
    subject : Subject
        Predictive coding network of smooth units.
    noises : sequence of float
        Read noise, of full scale.
    repeats : int
        Draws of the noise.
    seed : int
        Seed of the draws.
    progress : Progress
    """
    net = predictive_network(subject)
    panels = []
    with task(progress, "figure: best beta", len(noises)) as advance:
        for noise in noises:
            device = DeviceModel(read_noise=noise)
            found = best_beta(net, subject.x, subject.y, subject.cost, device=device, repeats=repeats, seed=seed)
            same = {
                name: getattr(found, name)
                for name in BetaPanel.__dataclass_fields__
                if name not in ("title", "read_noise", "squared_biases")
            }
            title = f"{subject.label}, read noise {style.scientific(noise)}"
            panels.append(BetaPanel(title, noise, squared_biases=found.biases**2, **same))
            advance(1)
    return BetaChoices(tuple(panels))


@style.drawing
def draw_best_beta(data: BetaChoices) -> Figure:
    """Squared error over beta, with the laws that make it, a panel a noise."""
    count = len(data.panels)
    width = style.PAGE if count > 1 else 0.6 * style.PAGE
    figure, axes = style.new_figure(width, 80, 1, count)
    for ax, panel in zip(axes[0], data.panels, strict=True):
        _draw_best(ax, panel)
    return figure


def _draw_best(ax: Axes, panel: BetaPanel) -> None:
    """Points that were measured, and lines of the laws fitted to those at small beta."""
    total, bias, noise = (style.series(k) for k in range(3))
    reach = np.geomspace(
        min(panel.fit_betas[0], panel.betas[0]) / 1.3, min(1.3 * panel.betas[-1], panel.stability_limit), 200
    )
    biases, variances = panel.bias_coefficient**2 * reach**4, panel.variance_coefficient / reach**2
    ax.plot(reach, biases, color=bias.color, ls=bias.line, label="_fit")
    ax.plot(reach, variances, color=noise.color, ls=noise.line, label="_fit")
    ax.plot(reach, biases + variances, color=style.GREY, lw=2.5, alpha=0.5, label="sum of the two laws", zorder=1)
    total.plot(ax, panel.betas, panel.squared_errors, label="measured, bias and noise together", zorder=4)
    for look, name, power, slope, values in (
        (bias, "bias$^2$", "$\\beta^4$", 2 * panel.bias_exponent, panel.squared_biases),
        (noise, "variance", "$\\beta^{-2}$", panel.variance_exponent, panel.variances),
    ):
        label = f"{name}, law {power}: slope {slope:.2f}".replace("-", "\N{MINUS SIGN}")
        label = label.replace("^{\N{MINUS SIGN}2}", "^{-2}")
        look.plot(ax, panel.fit_betas, values, label=label)
    ax.set_xscale("log")
    ax.set_yscale("log")
    low = min(float(panel.squared_biases.min()), float(np.nanmin(panel.squared_errors))) / 3
    high = float(max(np.nanmax(panel.squared_errors), panel.variances.max()))
    for beta, dashes, name in ((panel.predicted, (4, 2), "predicted"), (panel.measured, (1, 1.5), "measured")):
        label = f"best $\\beta$, {name}: {beta:.2g}"
        ax.plot([beta, beta], [low, high], color=style.BLACK, lw=0.9, ls=(0, dashes), label=label, zorder=2)
    ax.set_ylim(low, 2 * high)
    ax.set_xlabel("Nudging strength $\\beta$ (energy / cost)")
    ax.set_ylabel("Squared error of the gradient,\nrelative to its own square (dimensionless)")
    ax.set_title(panel.title)
    style.legend(ax, loc="upper left")


def make_tolerance_layers(request: Request) -> Drawn:
    """Figure 'tolerance_layers' of the catalogue."""
    if request.run is not None and open_run(request.run).attributes.get("kind") == KIND:
        table = open_tolerance(request.run)
    else:
        table = small_sweep(six_tanh_layers(request), seed=request.seed, progress=request.progress)
    data = layer_cosines(table)
    return Drawn(draw_layer_cosines(data), asdict(data))


def make_best_beta(request: Request) -> Drawn:
    """Figure 'best_beta' of the catalogue."""
    data = beta_choices(six_tanh_layers(request), seed=request.seed, progress=request.progress)
    return Drawn(draw_best_beta(data), asdict(data))
