"""Ways to live with cells that err apart: gradients, free states and test error over what the cells err by."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from validation.experiments.copies import SIZES_OF_WAYS, WAYS, measure, read, ways
from validation.references import REFERENCES

from .. import style
from ..requests import Drawn, Request

TITLES = {
    "transfer": "transfer",
    "feedforward": "feedforward",
    "adaptation": "adaptation",
    "share": "free states (share)",
    "error": "their test error (%)",
}
"""Panels of a network: what is drawn, and how it is called."""
SMALL = ("nothing", "feedback gain 0.2", "auto-zero and gain 0.2", "asymmetric EP")
"""Ways that are measured where no table is given, on one instance of one network."""
OPEN = (
    "feedback gain 0.2",
    "auto-zero and gain 0.2",
    "learned in place, gain 0.2",
    "asymmetric EP on oscillators",
)
"""Ways that are another with a weak feedback, or on another substrate: its colour, open markers, dotted."""
LOOKS = {
    "nothing": 0,
    "feedback gain 0.2": 0,
    "auto-zero": 1,
    "auto-zero and gain 0.2": 1,
    "learned in place": 2,
    "learned in place, gain 0.2": 2,
    "copies trimmed to 0.1 %": 3,
    "one array in slots, mirrors 0.1 %": 4,
    "asymmetric EP": 5,
    "asymmetric EP on oscillators": 5,
}
"""Colours, in the order of the legend."""


@dataclass(frozen=True)
class WaysMeasured:
    """Data of the figure `copies`: gradients, free states and test errors that each way leaves.

    Attributes
    ----------
    networks : tuple of str
        Activations.
    ways : tuple of str
    sizes : ndarray (S,)
        Programming noise, of the range of a cell.
    values : dict of str to ndarray (N, W, S, 3)
        Lower quartile, median and upper quartile over device instances: 1 - cosine of the worst weights to each
        reference, the share of test examples that have a free state, and the test error of these. NaN where there
        is none.
    instances : ndarray (N, W, S)
        How many were measured.
    """

    networks: tuple[str, ...]
    ways: tuple[str, ...]
    sizes: np.ndarray
    values: dict[str, np.ndarray]
    instances: np.ndarray


def ways_measured(rows: Sequence[dict[str, Any]]) -> WaysMeasured:
    """Sort the rows of a table of ways (`validation.experiments.copies`)."""
    cases = {case.key: case for case in ways()}
    found = [row for row in rows if row["key"] in cases]
    networks = tuple(dict.fromkeys(cases[row["key"]].activation for row in found))
    names = tuple(name for name in WAYS if any(cases[row["key"]].way == name for row in found))
    sizes = tuple(s for s in SIZES_OF_WAYS if any(_size(cases, row) == s for row in found))
    shape = (len(networks), len(names), len(sizes))
    values = {name: np.full((*shape, 3), np.nan) for name in TITLES}
    instances = np.zeros(shape, dtype=int)
    for at in np.ndindex(shape):
        place = (networks[at[0]], names[at[1]], sizes[at[2]])
        own = [row for row in found if (_network(cases, row), cases[row["key"]].way, _size(cases, row)) == place]
        instances[at] = len(own)
        for name, into in values.items():
            here = [row["gaps"][name] if name in REFERENCES else row[name] for row in own]
            known = np.array([v for v in here if v is not None and np.isfinite(v)], dtype=float)
            if known.size:
                into[at] = np.percentile(known, (25, 50, 75)) * (100 if name == "error" else 1)
    return WaysMeasured(networks, names, np.array(sizes), values, instances)


def _network(cases: dict[str, Any], row: dict[str, Any]) -> str:
    return str(cases[row["key"]].activation)


def _size(cases: dict[str, Any], row: dict[str, Any]) -> float:
    return float(cases[row["key"]].device.programming_noise)


@style.drawing
def draw_copies(data: WaysMeasured) -> Figure:
    """A row of panels a network: the three references, the share with a free state, and the test error."""
    count = len(data.networks)
    figure, axes = style.new_figure(style.PAGE, 22 + 40 * count, count, len(TITLES), sharex=True)
    for n, network in enumerate(data.networks):
        for k, name in enumerate(TITLES):
            _panel(axes[n, k], data, n, name)
            axes[n, k].set_title(f"{network}: {TITLES[name]}")  # narrow pages put panels in rows of their own
            axes[n, k].set_xlabel("programming noise (% of a cell's range)")
        axes[n, 0].set_ylabel("1 \N{MINUS SIGN} cosine")
    shown = dict(zip(data.ways, axes[0, 0].get_lines(), strict=True))
    style.shared_legend(handles=[shown[way] for way in LOOKS if way in shown])
    return figure


def _panel(ax: Axes, data: WaysMeasured, n: int, name: str) -> None:
    x = 100 * data.sizes
    for w, way in enumerate(data.ways):
        look, opened = style.series(LOOKS[way]), way in OPEN
        options: dict[str, Any] = {"label": "as they are" if way == "nothing" else way}
        if opened:
            options |= {"fillstyle": "none", "linestyle": (0, (1, 1.5)), "markeredgewidth": 0.7}
        low, middle, high = np.moveaxis(data.values[name][n, w], -1, 0)
        spread = 1.03 ** (w - len(data.ways) / 2)
        look.plot(ax, x * spread, middle, **options)
        ax.vlines(x * spread, low, high, color=look.color, lw=0.5)
    ax.set_xscale("log")
    ax.set_xticks(x, [f"{v:g}" for v in x])
    if name in REFERENCES:
        ax.set_yscale("log")
        ax.set_ylim(5e-9 if name == "adaptation" else 4e-6, 2)
    elif name == "share":
        ax.set_ylim(-0.05, 1.05)
    else:
        ax.set_yscale("symlog", linthresh=1, linscale=0.3)  # an error of zero has a place, too
        ax.set_ylim(0, 100)
        ax.set_yticks([0, 1, 3, 10, 30, 100], ["0", "1", "3", "10", "30", "100"])
    ax.minorticks_off()


def make_copies(request: Request) -> Drawn:
    """Figure 'copies' of the catalogue: of the table that lies beside the run file, else of a small one."""
    table = None if request.run is None else Path(request.run).parent / "copies.json"
    if table is not None and table.exists():
        rows = read(table)
    else:
        chosen = [case for case in ways() if case.way in SMALL and case.activation == "hard_tanh"]
        task = request.progress.task("ways to live with separate cells", len(chosen))
        with tempfile.TemporaryDirectory() as folder, task as advance:
            rows = measure(Path(folder), 1, chosen, lambda line: advance(1))
    data = ways_measured(rows)
    return Drawn(draw_copies(data), asdict(data))
