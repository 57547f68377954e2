"""What every figure is held to, and the command that draws them.

A file of tests that has a fixture `drawn` (figures by name) takes a check over as a test of its own:
`test_series_differ_without_colour = looks.series_differ_without_colour`.
"""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from figures import style
from physics_ep.cli import main

DECADE = np.logspace(-3, -2, 5)


BRIEF = ["training.epochs=3", "data.train_examples=200", "data.test_examples=60"]


def command(*arguments):
    """Run the command within this process; give its exit status."""
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return stop.value.code


@pytest.mark.full
def every_axis_is_labelled_with_its_unit(drawn):
    """An axis does not say what it shows, or in which unit."""
    for name, figure in drawn.items():
        for ax in figure.axes:
            # A colour bar has one axis only.
            labels = [ax.get_ylabel()] if ax.get_label() == "<colorbar>" else [ax.get_xlabel(), ax.get_ylabel()]
            for label in labels:
                assert label == "Epoch" or re.search(r"\(.+\)", label, re.DOTALL), (name, label)


@pytest.mark.full
def series_differ_without_colour(drawn):
    """Two curves of one panel look the same on a greyscale printer."""
    for name, figure in drawn.items():
        for ax in figure.axes:
            named = [line for line in ax.lines if not line.get_label().startswith("_")]
            looks = [(line.get_marker(), str(line._dash_pattern)) for line in named]
            assert len(set(looks)) == len(named), (name, ax.get_ylabel())
    for a, b in itertools.combinations(style.SERIES, 2):
        assert a.line != b.line
        assert a.marker != b.marker


@pytest.mark.full
def legends_leave_the_data_alone(drawn):
    """A legend covers points of a curve."""
    for name, figure in drawn.items():
        figure.canvas.draw()
        for ax in figure.axes:
            if (legend := ax.get_legend()) is None:
                continue
            box = legend.get_window_extent()
            for line in ax.lines:
                if line.get_transform() == ax.transData and len(line.get_xdata()):
                    hits = [box.contains(*xy) for xy in ax.transData.transform(line.get_xydata())]
                    assert not any(hits), (name, ax.get_ylabel(), line.get_label())


@pytest.mark.slow
def nothing_overlaps_in_a_column(drawn):
    """At 85 mm two texts lie over each other, one is cut off, or a legend covers points of a curve."""
    for name, figure in drawn.items():
        narrow = figure.redraw(width="column")
        assert narrow.get_size_inches()[0] * 25.4 == pytest.approx(85)
        assert overlaps(narrow) == [], name
        legends_leave_the_data_alone({name: narrow})


def overlaps(figure):
    """Pairs of texts that lie over each other, and texts that lie outside of the figure."""
    # Numbers on axes are chosen by the size of their font.
    with style.applied(figure.settings):
        return _overlaps(figure)


def _overlaps(figure):
    figure.canvas.draw()
    found = []
    legends = [*figure.legends, *(ax.get_legend() for ax in figure.axes if ax.get_legend() is not None)]
    boxes = [("legend", legend.get_window_extent()) for legend in legends]
    if figure.get_suptitle():
        boxes.append((figure.get_suptitle(), figure._suptitle.get_window_extent()))
    for ax in figure.axes:
        words = [ax.title, *ax.texts, *((ax.xaxis.label, ax.yaxis.label) if ax.axison else ())]
        inner = ax.get_window_extent()
        for side, axis in enumerate((ax.xaxis, ax.yaxis) if ax.axison and ax.name != "polar" else ()):
            for label in axis.get_ticklabels():
                middle = label.get_window_extent().get_points().mean(0)[side]
                if inner.get_points()[0, side] - 1 <= middle <= inner.get_points()[1, side] + 1:
                    words.append(label)
        shown = [word for word in words if word.get_visible() and word.get_text().strip()]
        boxes += [(word.get_text(), word.get_window_extent()) for word in shown]
    bars = [ax for ax in figure.axes if ax.get_label() == "<colorbar>"]
    boxes += [("colour bar", bar.get_window_extent()) for bar in bars]
    page = figure.bbox
    for text, box in boxes:
        if box.x0 < page.x0 - 1 or box.x1 > page.x1 + 1 or box.y0 < page.y0 - 1 or box.y1 > page.y1 + 1:
            found.append((text, "outside"))
    for (a, one), (b, other) in itertools.combinations(boxes, 2):
        wide = min(one.x1, other.x1) - max(one.x0, other.x0)
        tall = min(one.y1, other.y1) - max(one.y0, other.y0)
        if wide > 1 and tall > 1:
            found.append((a, b))
    return found


@pytest.mark.slow
def each_figure_is_written_thrice(drawn, tmp_path):
    """A figure is missing as PDF, PNG or SVG, or its text is no embedded TrueType font."""
    for name, figure in drawn.items():
        pdf, png, svg = style.save(figure, name, tmp_path / "new" / "folder")
        assert (pdf.name, png.name, svg.name) == (f"{name}.pdf", f"{name}.png", f"{name}.svg")
        assert svg.read_bytes().startswith(b"<?xml")
        content = pdf.read_bytes()
        assert content.startswith(b"%PDF-")
        assert b"/FontFile2" in content
        assert b"/Type3" not in content
        assert png.read_bytes().startswith(b"\x89PNG")
        assert png.stat().st_size < 150_000
