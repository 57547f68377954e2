"""One network on three substrates: how it settles there, how good EP's gradient is, how well it classifies."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from physics_ep.config import load_config
from physics_ep.data.datasets import load_dataset
from physics_ep.errors import argument_error
from physics_ep.placement import threads
from physics_ep.predictive_coding import PredictiveCodingNetwork
from physics_ep.runs.preparation import tested_on
from physics_ep.runs.training import train
from physics_ep.storage.opening import open_run
from physics_ep.storage.outputs import as_asked
from validation.experiments.substrates import THREE, Placed, place

from .. import style
from ..requests import BATCH, Drawn, Request
from ..subjects import Subject, trained

NETWORK = "pcn-digits"
"""Bundled training config of the network that is mapped."""

NAMES = {"hopfield": "Hopfield circuit", "resistive": "resistors, diodes", "oscillator": "oscillators"}
DEVICE_NAME = "4 bits, 5 % noise,\n10 % mismatch, shared copies"
"""`validation.experiments.substrates.DEVICE`, in words."""
LETTERS = 12
"""Most letters of a layer's name below its place; `style.layer_names` shortens longer ones."""
MOST_LEVEL = 3
"""Names that stand side by side; more are turned."""
SMALLEST = 1e-17
"""Bottom of the disagreements."""


def network_of(request: Request) -> Subject:
    """The dense predictive coding network of a run file, or of a training of `NETWORK`.

    Raises
    ------
    InputError
        If the run holds another.
    """
    with threads(1), tempfile.TemporaryDirectory() as scratch:
        path = request.run
        if path is None:
            path = Path(scratch) / "pcn.h5"
            train(NETWORK, out=path, seed=request.seed, device=request.device, progress=request.progress)
        subject = trained(path, examples=BATCH, **request.place())
    net = subject.system
    if not isinstance(net, PredictiveCodingNetwork) or len(net.shapes[0]) != 1:
        raise argument_error(as_asked("--from", "run"), "be a run of a dense predictive coding network", str(path))
    return subject


def mapped_run(request: Request, substrates: Sequence[str] = THREE) -> tuple[Placed, ...]:
    """Put the requested network on each substrate, with the test part of its data.

    Raises
    ------
    InputError
        If there is no such network, as in `network_of`.
    """
    subject = network_of(request)
    if request.run is None:
        data = load_dataset(load_config(NETWORK).data)
        x, y = data.test_x, data.test_y
    else:
        x, y, _ = tested_on(open_run(request.run))
    if y.is_floating_point():
        must = "be a run that was trained on classes, whose errors are drawn"
        raise argument_error(as_asked("--from", "run"), must, "one on measured targets")
    test = (x.to(subject.x), y.to(subject.x.device))
    options: dict[str, Any] = {"substrates": substrates, "seed": request.seed, "progress": request.progress}
    with threads(1):
        assert isinstance(subject.system, PredictiveCodingNetwork)
        return place(subject.system, subject.x, subject.y, subject.cost, test, **options)


@style.drawing
def draw_substrates(placed: Sequence[Placed], device: str) -> Figure:
    """Three panels; `device` is that of the instances, in words."""
    figure, axes = style.new_figure(style.PAGE, 58.0, 1, 3)
    _settling(axes[0, 0], placed)
    _gradients(axes[0, 1], placed, device)
    _accuracies(axes[0, 2], placed)
    return figure


def _name(placed: Placed) -> str:
    return NAMES.get(placed.substrate, placed.substrate)


def _settling(ax: Axes, placed: Sequence[Placed]) -> None:
    for k, one in enumerate(placed):
        look = style.series(k)
        look.plot(ax, one.time[1:], np.maximum(one.distance[1:], 1e-12), marker="", label=_name(one))
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_ylim(1e-9, 3)
    ax.set_xlabel("Time (time constants of a unit)")
    ax.set_ylabel("Distance of the outputs from\ntheir equilibrium (relative)")
    ax.set_title("Free phase from nothing")
    style.legend(ax, loc="lower left", handlelength=2.2)


def _gradients(ax: Axes, placed: Sequence[Placed], device: str) -> None:
    layers = np.arange(1, len(placed[0].layers) + 1)
    for k, one in enumerate(placed):
        look, shift = style.series(k), 0.09 * (k - (len(placed) - 1) / 2)
        for values, fill in ((one.cosine[None], "full"), (one.adaptation, "none"), (one.transfer, "left")):
            gap = np.maximum(1 - np.nanmedian(values, 0), SMALLEST)
            options: dict[str, Any] = {"fillstyle": fill, "linestyle": "none", "markeredgewidth": 0.7, "ms": 4.2}
            look.plot(ax, layers + shift, gap, **options)
    for fill, text in (("full", "ideal devices"), ("none", "to their own network"), ("left", "to the one meant")):
        ax.plot([], [], marker="o", ls="none", color=style.GREY, fillstyle=fill, mew=0.7, ms=4.2, label=text)
    ax.set_yscale("log")
    least = min(np.min(line.get_ydata(), initial=1) for line in ax.get_lines())  # no decades that are empty
    ax.set_yticks(10.0 ** np.arange(-16, 1, 4))
    ax.set_ylim(max(least / 100, SMALLEST / 3), 3)
    names = style.layer_names(placed[0].layers, LETTERS)
    ax.set_xticks(layers, names, rotation=90 if len(names) > MOST_LEVEL else 0, fontsize="small")
    ax.set_xlabel("Weights (from the input)")
    ax.set_ylabel("1 \N{MINUS SIGN} cosine of EP's gradient\nto backprop")
    ax.set_title(f"Devices: {device}")
    style.legend(ax, loc="upper left", ncols=2, columnspacing=0.8, handlelength=1.2)


def _accuracies(ax: Axes, placed: Sequence[Placed]) -> None:
    groups = [
        ("ideal\ndevices", lambda one: np.array([one.accuracy])),
        ("devices", lambda one: one.device_accuracy),
    ]
    width = 0.8 / len(placed)
    for k, one in enumerate(placed):
        look, place = style.series(k), (k - (len(placed) - 1) / 2) * width
        for n, (_, values) in enumerate(groups):
            found = 100 * (1 - values(one))
            ax.bar(n + place, np.nanmean(found), width * 0.9, color=look.color, alpha=0.45, lw=0)
            ax.plot(np.full(len(found), n + place), found, ls="none", marker=look.marker, color=look.color, ms=2.6)
    ax.set_xticks(range(len(groups)), [title for title, _ in groups])
    ax.set_ylabel("Test error (%)")
    ax.set_ylim(bottom=0)
    ax.set_title("8\N{MULTIPLICATION SIGN}8 digits")


def make_substrates(request: Request) -> Drawn:
    """Figure 'substrates' of the catalogue."""
    placed = mapped_run(request)
    return Drawn(draw_substrates(placed, DEVICE_NAME), {"mapped": [one.figures() for one in placed]})
