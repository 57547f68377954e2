"""The signature table as a picture: layers' disagreement with backprop over imperfections, on each substrate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure

from physics_ep.progress import SILENT, Progress
from physics_ep.storage.opening import open_run
from validation.experiments.substrates import THREE
from validation.sweeps.plan import IDEAL
from validation.sweeps.store import KIND
from validation.sweeps.table import TolerancePoint
from validation.sweeps.tolerances import open_tolerance, tolerance

from .. import style
from ..pcn.networks import predictive_network
from ..requests import Drawn, Request
from ..subjects import Subject
from .labels import field_told
from .substrates import NAMES, network_of

DECADES = np.arange(-12, 1)
LETTERS = 12
"""Most letters of a layer's name below its column; `style.layer_names` shortens longer ones."""
ALIKE = 2.0
"""Ratio of gaps up to which two maps are one: less than a colour."""
SWEEPS: dict[str, tuple[Any, ...]] = {
    "levels": (16, 256),
    "programming_noise": (0.03,),
    "stuck_off": (0.01,),
    "wire_resistance": (1.0,),
    "copy_mismatch_transpose": (0.01,),
    "conductance_noise": (0.01,),
    "read_noise": (1e-6,),
    "adc_bits": (8,),
}
"""Fields and values that a small network is measured at where no sweep file is given."""


@dataclass(frozen=True)
class Signature:
    """Data of the figure `signature`: how far gradients are from backprop, for each imperfection of devices.

    Attributes
    ----------
    layers : tuple of str (L,)
        Names of weights, from the input.
    rows : tuple of (str, Any)
        Rows of the figure: a field of the device model and its value; the ideal devices come first.
    feedforward, transfer : dict of str to ndarray (number of rows, L)
        Substrate to 1 - mean cosine of EP's gradient to that of backprop: through the devices' arrays
        (feedforward), and of the network that was meant (transfer). NaN where the substrate has no such
        imperfection, or where no device instance has an equilibrium.
    instances : int
        Largest number of device instances that a row is a mean over.
    """

    layers: tuple[str, ...]
    rows: tuple[tuple[str, Any], ...]
    feedforward: dict[str, np.ndarray]
    transfer: dict[str, np.ndarray]
    instances: int


Points = Mapping[str, Sequence[TolerancePoint]]
"""Substrate to what was measured on it."""


def small_points(subject: Subject, *, seed: int = 0, progress: Progress | bool = SILENT) -> Points:
    """Sweeps of a small network on the three substrates."""
    net = predictive_network(subject)
    options: dict[str, Any] = {"sweeps": SWEEPS, "repeats": 3, "seed": seed, "progress": progress}
    return {s: tolerance(net, subject.x, subject.y, subject.cost, substrate=s, **options).points for s in THREE}


def sibling_points(run: Path) -> Points:
    """Sweeps of the folder of a sweep file, as `validation.benchmarks.signature` names them, and further ones of
    the same network, SUBSTRATE-*.h5; of a file with another name its own."""
    if not any(run.stem == s or run.stem.startswith(f"{s}-") for s in THREE):
        table = open_tolerance(run)
        return {table.config["tolerance"]["substrate"]: table.points}
    found = {}
    for s in THREE:
        paths = [run.parent / f"{s}.h5", *sorted(run.parent.glob(f"{s}-*.h5"))]
        points = [point for path in paths if path.exists() for point in open_tolerance(path).points]
        if points:
            found[s] = points
    return found


def signature(points: Points) -> Signature:
    """What sweeps on several substrates say, row by row."""
    rows: dict[tuple[str, Any], None] = {(IDEAL, None): None}
    layers: tuple[str, ...] = ()
    instances = 1
    for measured in points.values():
        for point in measured:
            rows.setdefault((point.field, point.value))
            instances = max(instances, point.repeats)
            layers = tuple(layer.told for layer in point.layers if "weight" in layer.name)
    places = {key: k for k, key in enumerate(rows)}
    found: dict[str, dict[str, np.ndarray]] = {"feedforward": {}, "transfer": {}}
    for target, of in found.items():
        for substrate, measured in points.items():
            gaps = np.full((len(rows), len(layers)), np.nan)
            for point in measured:
                weights = [layer for layer in point.layers if "weight" in layer.name]
                gaps[places[point.field, point.value]] = [1 - getattr(w, target).cosine for w in weights]
            of[substrate] = gaps
    return Signature(layers, tuple(rows), found["feedforward"], found["transfer"], instances)


def merged(maps: Mapping[str, np.ndarray]) -> list[tuple[tuple[str, ...], np.ndarray]]:
    """Maps (R, L) of substrates that agree to `ALIKE` in all rows that both have, as one map of the rows of each.

    They are one computation: substrates differ in what only one of them has, and in cells that err apart.
    """
    found: list[tuple[tuple[str, ...], np.ndarray]] = []
    for name, gaps in maps.items():
        for k, (names, known) in enumerate(found):
            a, b = (np.maximum(g, 10.0 ** DECADES[0]) for g in (gaps, known))
            apart = np.abs(np.log(a) - np.log(b))
            if not (apart > np.log(ALIKE)).any():  # what only one of them has is NaN
                found[k] = ((*names, name), np.where(np.isnan(known), gaps, known))
                break
        else:
            found.append(((name,), gaps))
    return found


@style.drawing
def draw_signature(data: Signature, title: str = "") -> Figure:
    """A map a substrate of the disagreement with backprop through the devices' arrays, one map for those that are
    alike; at the right that with the intended network's, of the first."""
    found = merged(data.feedforward)
    first = next(iter(data.transfer))
    height = 22 + 3.3 * len(data.rows)
    figure, axes = style.new_figure(style.PAGE, height, 1, len(found) + 1, sharey=True)
    names = style.layer_names(data.layers, LETTERS)
    maps = [(" = ".join(NAMES.get(n, n) for n in names), gaps) for names, gaps in found]
    maps.append(("as meant (" + NAMES.get(first, first) + ")", data.transfer[first]))
    colors = style.mpl.colormaps["viridis"].resampled(len(DECADES) - 1)
    norm = BoundaryNorm(DECADES, colors.N)
    for ax, (name, gaps) in zip(axes[0], maps, strict=True):
        picture = _map(ax, gaps, colors, norm)
        ax.set_xticks(np.arange(len(names)) + 0.5, names, rotation=90, fontsize="small")
        ax.set_title(name)
    _rows(axes[0, 0], data)
    label = "log$_{10}$(1 \N{MINUS SIGN} cosine to backprop)"
    style.colorbar(picture, axes[0], shrink=0.6, aspect=40, ticks=DECADES[::2], pad=0.01, label=label)
    if title:
        figure.suptitle(title)
    return figure


def _map(ax: Axes, gaps: np.ndarray, colors: Any, norm: Any) -> Any:
    shown = np.log10(np.clip(gaps, 10.0 ** DECADES[0], 1.0))
    ax.set_facecolor("#e6e6e6")
    picture = ax.pcolormesh(shown, cmap=colors, norm=norm, linewidth=0.3, edgecolor="white")
    ax.tick_params(length=0)
    return picture


def _rows(ax: Axes, data: Signature) -> None:
    labels, before = [], None
    for field, value in data.rows:
        told = field_told(field, data.feedforward)
        text = told.short if told is not None and told.short else field.replace("_", " ")
        shown = "" if value is None else f"{value:g}" if isinstance(value, int | float) else str(value)
        labels.append(shown if field == before else f"{text}  {shown}")
        before = field
    ax.set_yticks(np.arange(len(labels)) + 0.5, labels)
    ax.invert_yaxis()


def make_signature(request: Request) -> Drawn:
    """Figure 'signature' of the catalogue."""
    if request.run is not None and open_run(request.run).attributes.get("kind") == KIND:
        points = sibling_points(request.run)
    else:
        points = small_points(network_of(request), seed=request.seed, progress=request.progress)
    data = signature(points)
    return Drawn(draw_signature(data), asdict(data))
