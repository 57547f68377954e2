"""What benchmarks cost from release to release."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from physics_ep.errors import argument_error
from validation.benchmarks.history import RELEASES, Release, read_history

from . import style
from .requests import Drawn, Request

ROW = 62.0
"""Millimetres of a row of panels."""


@dataclass(frozen=True)
class BenchHistory:
    """Ratios over n releases.

    Attributes
    ----------
    releases : tuple of str
        Names of the files, by date.
    dates, machines : tuple of str
    loaded : bool ndarray (n,)
        Whether other programs kept the machine busy.
    ratios : dict of str to dict of str to ndarray (n,)
        Benchmark to what is followed of it; NaN where a release has not measured it.
    """

    releases: tuple[str, ...]
    dates: tuple[str, ...]
    machines: tuple[str, ...]
    loaded: np.ndarray
    ratios: dict[str, dict[str, np.ndarray]]


def bench_history(history: Sequence[Release]) -> BenchHistory:
    """Arrange what `validation.benchmarks.history.read_history` read.

    Parameters
    ----------
    history : sequence of Release

    Returns
    -------
    BenchHistory

    Raises
    ------
    InputError
        If there is nothing to draw.
    """
    ratios: dict[str, dict[str, np.ndarray]] = {}
    for k, release in enumerate(history):
        for benchmark, followed in release.followed.items():
            for name, value in followed.items():
                lines = ratios.setdefault(benchmark, {})
                lines.setdefault(name, np.full(len(history), np.nan))[k] = value
    if not ratios:
        raise argument_error("history", "hold a release with a benchmark", "nothing")
    return BenchHistory(
        tuple(release.name for release in history),
        tuple(release.date for release in history),
        tuple(release.machine for release in history),
        np.array([release.loaded for release in history]),
        ratios,
    )


@style.drawing
def draw_bench_history(data: BenchHistory) -> Figure:
    """Ratios over releases, at most six a panel; open marks are of machines that other programs kept busy."""
    most = len(style.SERIES)
    panels = [
        (benchmark, list(lines.items())[first : first + most])
        for benchmark, lines in data.ratios.items()
        for first in range(0, len(lines), most)
    ]
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    width = style.PAGE if columns > 1 else style.COLUMN
    figure, axes = style.new_figure(width, rows * ROW, rows, columns, count=len(panels))
    at = np.arange(len(data.releases))
    for ax, (benchmark, lines) in zip(np.ravel(axes), panels, strict=False):
        for k, (name, values) in enumerate(lines):
            look = style.series(k)
            look.plot(ax, at, values, label=name)
            busy = np.where(data.loaded, values, np.nan)
            look.plot(ax, at, busy, linestyle="none", markerfacecolor="white", markeredgewidth=0.8,
                      markeredgecolor=look.color)  # fmt: skip
        ax.set_title(benchmark)
        ax.set_yscale("log")
        # Ratios near 1 as plain numbers, not as multiples of a power of ten.
        ax.yaxis.set_major_formatter(LogFormatter())
        ax.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.0, 0.4)))
        ax.set_xticks(at, data.releases)
        ax.set_xlim(-0.5, len(at) - 0.5)
        ax.set_xlabel("Release (by date)")
        ax.set_ylabel("Ratio (1), less is better")
        style.legend(ax)
    return figure


def make_bench_history(request: Request) -> Drawn:
    """Figure 'bench_history' of the catalogue."""
    data = bench_history(read_history(RELEASES if request.run is None else request.run))
    return Drawn(draw_bench_history(data), asdict(data))
