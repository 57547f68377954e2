"""Conductances of a resistive network before and after its training."""

from __future__ import annotations

import math
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hardware_models.resistive.network import ResistiveNetwork
from physics_ep.config import parse_config
from physics_ep.errors import argument_error
from physics_ep.runs.preparation import new_system, system_of
from physics_ep.runs.training import train
from physics_ep.storage.opening import open_run
from physics_ep.storage.run_file import Run

from .. import style
from ..hopfield.transients import scale
from ..requests import Drawn, Request

SHOWN = (2, 8)
"""Rows and columns of hidden nodes whose receptive fields are drawn: a row held above 0 V, one held below."""
BINS = 40
STRONGEST = 0.99
"""Quantile of the fields at which the scale of colours ends."""


@dataclass(frozen=True)
class ConductanceChange:
    """What a training made of the conductances.

    Attributes
    ----------
    label : str
    before, after : tuple of ndarray (n_out, n_in)
        Conductances of each layer, siemens.
    nodes : ndarray (k,)
        Nodes of the first hidden layer whose fields are shown, `SHOWN` of them at most.
    fields_before, fields_after : ndarray (k, height, width)
        G+ - G- of these, of +x and of -x, siemens: the current a volt of a pixel sends in.
    diode : str
        Kind of the network's diodes.
    least, most : float
        What devices can be programmed to, siemens.
    at_least_before, at_least_after, at_most_before, at_most_after : float
        Share of all conductances that lies at these bounds.
    """

    label: str
    before: tuple[np.ndarray, ...]
    after: tuple[np.ndarray, ...]
    nodes: np.ndarray
    fields_before: np.ndarray
    fields_after: np.ndarray
    diode: str
    least: float
    most: float
    at_least_before: float
    at_least_after: float
    at_most_before: float
    at_most_after: float


def conductance_change(run: Run) -> ConductanceChange:
    """Conductances of a run file, and those that its seed began with.

    Parameters
    ----------
    run : Run
        Run file of a training of a `ResistiveNetwork`.

    Returns
    -------
    ConductanceChange

    Raises
    ------
    InputError
        If the file holds no trained resistive network.
    """
    trained = system_of(run)
    if not isinstance(trained, ResistiveNetwork):
        raise argument_error("run", "hold a resistive network for this figure", type(trained).__name__)
    fresh = new_system(parse_config(run.config))
    assert isinstance(fresh, ResistiveNetwork)
    before, after = (
        tuple(layer.conductance.detach().double().numpy() for layer in system.couplings)
        for system in (fresh, trained)
    )
    nodes = _shown(before[0], after[0])
    least, most = trained.g_min, trained.g_max
    return ConductanceChange(
        label=f"resistive network {'-'.join(map(str, trained.sizes))}",
        before=before,
        after=after,
        nodes=nodes,
        fields_before=_fields(before[0][nodes]),
        fields_after=_fields(after[0][nodes]),
        diode=trained.diode,
        least=least,
        most=most,
        at_least_before=_share(before, least),
        at_least_after=_share(after, least),
        at_most_before=_share(before, most),
        at_most_after=_share(after, most),
    )


def _shown(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Nodes whose conductances moved most: of those that diodes hold above 0 V, and of those below."""
    moved = np.linalg.norm(after - before, axis=1)
    half = (len(moved) + 1) // 2
    order = np.argsort(-moved, kind="stable")
    rows = [order[order < half][: SHOWN[1]], order[order >= half][: SHOWN[1]]]
    return np.concatenate([np.sort(row) for row in rows])


def _fields(g: np.ndarray) -> np.ndarray:
    """(k, height, width): G+ - G- as images where there are as many as an image has, else as rows."""
    n = g.shape[1] // 2
    side = math.isqrt(n)
    return (g[:, :n] - g[:, n:]).reshape(len(g), *((side, side) if side * side == n else (1, n)))


def _share(layers: tuple[np.ndarray, ...], bound: float) -> float:
    every = np.concatenate([g.ravel() for g in layers])
    # float32 rounds bounds.
    return float(np.isclose(every, bound, rtol=1e-6, atol=0).mean())


@style.drawing
def draw_conductances(data: ConductanceChange) -> Figure:
    """Receptive fields before and after on one scale of colours, and histograms of all conductances."""
    ratios = {"width_ratios": [1.7, 1.0]}
    figure, axes = style.new_figure(style.PAGE, 76, 2, 2, letters="acbd", gridspec_kw=ratios)
    largest = float(np.quantile(np.abs(np.stack([data.fields_before, data.fields_after])), STRONGEST))
    factor, unit = scale(largest, "S")
    held = (
        ("first", "second")
        if data.diode == "none"
        else ("\N{GREATER-THAN OR EQUAL TO} 0", "\N{LESS-THAN OR EQUAL TO} 0")
    )
    for ax, fields, when in (
        (axes[0, 0], data.fields_before, "before"),
        (axes[1, 0], data.fields_after, "after"),
    ):
        image = _draw_fields(ax, fields * factor, largest * factor, held)
        ax.set_ylabel("Half (of the layer)" if data.diode == "none" else "Held at (V)")
        ax.set_title(f"input layer, {when} training")
    style.colorbar(image, axes[:, 0], label=f"$G_+ - G_-$ ({unit})", extend="both", pad=0.01, aspect=30)
    factor, unit = scale(max(float(g.max()) for g in data.after), "S")
    for ax, k in ((axes[0, 1], 0), (axes[1, 1], 1)):
        _draw_histogram(ax, _pooled(data, k), factor)
        ax.set_xlabel(f"Conductance ({unit})")
        ax.set_ylabel("Devices (count)")
    axes[0, 1].set_title("input layer")
    axes[1, 1].set_title("all other layers")
    for ax in axes[:, 1]:
        style.legend(ax, loc="upper right")
    return figure


def _pooled(data: ConductanceChange, k: int) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Before and after, of the first layer or of all others, with the bounds."""
    before, after = (
        np.concatenate([g.ravel() for g in (layers[1:] if k else layers[:1])] or [np.empty(0)])
        for layers in (data.before, data.after)
    )
    return before, after, data.least, data.most


def _draw_fields(ax: Axes, fields: np.ndarray, largest: float, held: tuple[str, str]) -> Any:
    """Fields side by side, `SHOWN` of them, with a gap between."""
    rows, columns = SHOWN
    _, height, width = fields.shape
    gap = max(1, width // 8)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap), np.nan)
    for k, field in enumerate(fields):
        row, column = divmod(k, columns)
        top, left = row * (height + gap), column * (width + gap)
        sheet[top : top + height, left : left + width] = field
    image = ax.imshow(sheet, cmap="RdBu_r", vmin=-largest, vmax=largest, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([height / 2 - 0.5, height + gap + height / 2 - 0.5], held)
    ax.tick_params(left=False)
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.set_xlabel(f"Hidden nodes ({height} x {width} pixels each)".replace(" x ", " \N{MULTIPLICATION SIGN} "))
    return image


def _draw_histogram(ax: Axes, pooled: tuple[np.ndarray, np.ndarray, float, float], factor: float) -> None:
    before, after, least, most = pooled
    edges = np.linspace(0, max(float(before.max(initial=0)), float(after.max(initial=0))) * factor, BINS + 1)
    for k, (name, values) in enumerate((("before", before), ("after", after))):
        counts, _ = np.histogram(values * factor, edges)
        look = style.series(k)
        told = ", ".join(
            f"{100 * _share((values,), bound):.1f} % at {word}"
            for bound, word in ((least, "min."), (most, "max."))
            if math.isfinite(bound)
        )
        ax.stairs(
            counts,
            edges,
            color=look.color,
            linestyle=look.line,
            label=f"{name}: {told}",
            lw=1.0,
            fill=k == 0,
            alpha=1 - 0.6 * (k == 0),
        )
    ax.set_yscale("log")
    # One device must show.
    ax.set_ylim(bottom=0.5)
    ax.set_xlim(0, edges[-1])


def make_conductances(request: Request) -> Drawn:
    """Figure 'conductances' of the catalogue."""
    if request.run is not None:
        data = conductance_change(open_run(request.run))
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run.h5"
            train("resistive-digits", out=path, seed=request.seed, device=request.device, progress=request.progress)
            data = conductance_change(open_run(path))
    return Drawn(draw_conductances(data), asdict(data))
