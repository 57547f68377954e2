"""Learning on the device, beside ideal training that is written into it: test error over what the cells err by."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from hardware_models.devices.model import DeviceModel
from physics_ep.errors import argument_error
from physics_ep.progress import SILENT, Progress
from physics_ep.storage.opening import open_run
from physics_ep.storage.outputs import as_asked
from validation.experiments.in_situ import KIND, InSituTable, learn_in_situ, open_in_situ
from validation.sweeps.plan import BASE, IDEAL

from .. import style
from ..requests import Drawn, Request
from .labels import field_told

NAMES = {"hopfield": "Hopfield circuit", "resistive": "resistors and diodes", "oscillator": "oscillators"}
LABELS = {
    "levels": "levels of a cell",
    "programming_noise": "programming noise (of the range)",
    "device_mismatch": "mismatch of cells (sd of log gain)",
    "stuck_off": "cells stuck off (fraction)",
    "pulses": "pulses from end to end",
    "pulse_asymmetry": "asymmetry of steps down and up",
    "pulse_nonlinearity_up": "nonlinearity of pulses up, $\\nu$",
    "pulse_noise": "noise of a pulse (of the range)",
    "pulse_spread": "spread of step sizes",
    "read_noise": "noise of readings (of full scale)",
    "amplifier_offset": "offset of amplifiers (of full scale)",
}
LOGARITHMIC = ("levels", "pulses")
DEVICE = DeviceModel(levels=16, programming_noise=0.05, device_mismatch=0.1, copies="shared")
SMALL = {"levels": (4,), "programming_noise": (0.0, 0.15)}
BRIEF = ("system.sizes=[64,24,10]", "ep.beta=0.1", "training.epochs=3")
"""Sweep and training of the figure that is drawn without a file."""


@dataclass(frozen=True)
class InSituErrors:
    """Test errors over one field at a time; the base's value of a field is among its values.

    Attributes
    ----------
    substrates, fields : tuple of str
    values : dict of str to ndarray (V,)
        Field to its values, sorted.
    mapped, learned : dict of str to ndarray (S, V, R)
        Test error of networks that were mapped, and that learned in situ, for each field; NaN where not measured.
    ideal : ndarray (R,)
    """

    substrates: tuple[str, ...]
    fields: tuple[str, ...]
    values: dict[str, np.ndarray]
    mapped: dict[str, np.ndarray]
    learned: dict[str, np.ndarray]
    ideal: np.ndarray


def small_table(*, seed: int = 0, progress: Progress | bool = SILENT) -> InSituTable:
    """A short sweep on the 8x8 digits."""
    places = {"substrates": tuple(NAMES), "device": DEVICE, "sweeps": SMALL}
    return learn_in_situ("pcn-digits", **places, overrides=BRIEF, seed=seed, progress=progress)  # type: ignore[arg-type]


def in_situ_errors(table: InSituTable) -> InSituErrors:
    """Sort a table by field.

    Raises
    ------
    InputError
        If no field with numbers was swept.
    """
    substrates = tuple(dict.fromkeys(name for name, _ in table.plan))
    numbers = [p for _, p in table.plan if isinstance(p.value, int | float)]
    fields = tuple(dict.fromkeys(p.field for p in numbers))
    if not fields:
        raise argument_error(as_asked("--from", "run"), "hold a sweep over a field", "the base alone")
    base = table.config["in_situ"]["base"]
    place = {(name, p.field, p.value): k for k, (name, p) in enumerate(table.plan)}
    values: dict[str, np.ndarray] = {}
    found: dict[str, dict[str, np.ndarray]] = {"mapped": {}, "learned": {}}
    nothing = np.full(table.values["learned"].shape[1], np.nan)
    for field in fields:
        own = {p.value for p in numbers if p.field == field}
        own |= {base[field]} if base[field] is not None and any(p.field == BASE for _, p in table.plan) else set()
        values[field] = np.array(sorted(own), dtype=float)
        for name, rows in found.items():
            errors = table.values[name]
            rows[field] = np.array(
                [[_row(errors, place, (s, field, v), base, nothing) for v in sorted(own)] for s in substrates]
            )
    ideal = np.nanmean(table.values["ideal"], 0)
    return InSituErrors(substrates, fields, values, found["mapped"], found["learned"], ideal)


def _row(
    values: np.ndarray, place: dict[Any, int], at: tuple[str, str, Any], base: dict[str, Any], nothing: np.ndarray
) -> np.ndarray:
    """Values of the instances at a point; the base is every field's point of its own value."""
    substrate, field, value = at
    k = place.get(at)
    if k is None and value == base[field]:
        k = place.get((substrate, BASE, None), place.get((substrate, IDEAL, None)))
    return nothing if k is None else values[k]


@style.drawing
def draw_in_situ(data: InSituErrors) -> Figure:
    """A panel a field, nine at most: mapped afterwards (open) and learned on the device (full)."""
    shown = data.fields[:9]
    columns = min(len(shown), 3)
    rows = -(-len(shown) // columns)
    options: dict[str, Any] = {"count": len(shown), "sharey": True}
    figure, axes = style.new_figure(style.PAGE, 16 + 48 * rows, rows, columns, **options)
    panels = axes.ravel()
    for k, field in enumerate(shown):
        _panel(panels[k], data, field)
    for ax in axes[:, 0]:
        ax.set_ylabel("test error (%)")
    style.shared_legend(panels[0])
    return figure


def _panel(ax: Axes, data: InSituErrors, field: str) -> None:
    x = data.values[field]
    at = x if field in LOGARITHMIC else np.arange(len(x))
    for k, substrate in enumerate(data.substrates):
        look, name = style.series(k), NAMES.get(substrate, substrate)
        place = at * 1.06 ** (k - 1) if field in LOGARITHMIC else at + 0.08 * (k - 1)
        for rows, fill, line in ((data.mapped, "none", (0, (1, 1.5))), (data.learned, "full", (0, None))):
            errors = 100 * rows[field][k]
            options: dict[str, Any] = {"fillstyle": fill, "linestyle": line, "markeredgewidth": 0.7}
            means = [np.nan if np.isnan(row).all() else np.nanmean(row) for row in errors]
            look.plot(ax, place, means, label=name if fill == "full" else None, **options)
            for column in errors.T:
                ax.plot(place, column, ls="none", marker=".", ms=1.5, color=look.color, alpha=0.5)
    grey = style.Series(style.GREY, (0, None), "o")
    written: dict[str, Any] = {"linestyle": (0, (1, 1.5)), "fillstyle": "none", "markeredgewidth": 0.7}
    grey.plot(ax, [], [], label="learned on the device")
    grey.plot(ax, [], [], label="trained ideally, then written", **written)
    ax.axhline(
        100 * float(np.nanmean(data.ideal)), color=style.GREY, lw=0.7, ls=(0, (4, 2)), label="trained ideally"
    )
    ax.set_yscale("log")
    ticks = [2, 5, 10, 20, 50, 100]
    ax.set_yticks(ticks, [str(t) for t in ticks])
    ax.yaxis.set_minor_formatter(NullFormatter())
    if field in LOGARITHMIC:
        ax.set_xscale("log", base=2)
    ax.set_xticks(at, [f"{v:g}" for v in x])
    told = field_told(field, data.substrates)
    ax.set_xlabel(LABELS.get(field) or (field if told is None else told.axis))


def make_in_situ(request: Request) -> Drawn:
    """Figure 'in_situ' of the catalogue."""
    if request.run is not None and open_run(request.run).attributes.get("kind") == KIND:
        table = open_in_situ(request.run)
    else:
        table = small_table(seed=request.seed, progress=request.progress)
    data = in_situ_errors(table)
    return Drawn(draw_in_situ(data), asdict(data))
