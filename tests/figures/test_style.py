"""Figures at a journal's size, in one's own style, in parts, into one's own axes, and as numbers.

Each test's docstring says what is wrong with the figures if it fails.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import h5py
import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

import figures
from figures import style
from figures.gradients.errors import ErrorCurve, ErrorCurves, ErrorPanel, draw_errors
from figures.numbers import as_numbers
from physics_ep.errors import InputError
from tests.support.looks import command, legends_leave_the_data_alone, overlaps

BETA = np.logspace(-4, -1, 7)


@pytest.fixture(scope="module")
def errors() -> ErrorCurves:
    """Two panels of four curves each, that fill their axes from corner to corner."""
    curves = tuple(ErrorCurve(f"scheme {k}", BETA, BETA ** (0.3 + 0.3 * k)) for k in range(4))
    floor = np.full_like(BETA, 1e-6)
    return ErrorCurves(tuple(ErrorPanel(f"a network of kind {k}", curves, BETA, floor) for k in range(2)))


def size(figure: Figure) -> tuple[float, float]:
    """Width and height in millimetres."""
    width, height = 25.4 * figure.get_size_inches()
    return float(width), float(height)


def test_own_style_in_five_lines(errors, tmp_path, monkeypatch):
    """A user's style sheet is not what the figure looks like: its fonts, colours, lines and background."""
    monkeypatch.chdir(tmp_path)
    Path("mine.mplstyle").write_text(
        "font.size: 9\nfont.family: serif\nlines.linewidth: 2.5\naxes.facecolor: eeeeee\naxes.spines.top: True\n"
        "axes.prop_cycle: cycler(color=['112233', 'abcdef'])\n"
    )
    figure = draw_errors(errors, style="mine.mplstyle", width="column", panels="a")
    ax = figures.panels(figure)["a"]
    assert size(figure)[0] == pytest.approx(85)
    assert [to_hex(line.get_color()) for line in ax.lines[:3]] == ["#112233", "#abcdef", "#112233"]
    assert ax.lines[0].get_linewidth() == 2.5
    assert (ax.xaxis.label.get_size(), ax.xaxis.label.get_family()) == (9, ["DejaVu Serif"])
    assert to_hex(ax.get_facecolor()) == "#eeeeee"
    assert ax.spines["top"].get_visible()
    assert ax.get_xlabel().startswith("Nudging strength")


@pytest.mark.full
def test_users_settings_count_and_stay(errors, tmp_path):
    """What the user changed in rcParams does not count, or a figure changes the user's later plots."""
    plain = draw_errors(errors).axes[0]
    with mpl.rc_context({"font.size": 11, "lines.linewidth": 3, "svg.fonttype": "none", "text.color": "navy"}):
        before = dict(mpl.rcParams)
        figure = draw_errors(errors)
        assert dict(mpl.rcParams) == before
        assert draw_errors(errors, font=8).axes[0].xaxis.label.get_size() == 8
    ax = figure.axes[0]
    assert (ax.xaxis.label.get_size(), plain.xaxis.label.get_size()) == (11, 7)
    assert (ax.lines[0].get_linewidth(), plain.lines[0].get_linewidth()) == (3, 1)
    # Saved later, elsewhere, it still looks as it was made: text in an SVG is text.
    (path,) = style.save(figure, "x", tmp_path, formats=("svg",))
    assert "<text" in path.read_text()
    with mpl.rc_context({"font.size": 20}):
        figure.canvas.draw()
        assert ax.xaxis.get_ticklabels()[0].get_size() < 11


@pytest.mark.parametrize(
    "width", [85, *(pytest.param(w, marks=pytest.mark.full) for w in ("column", 60, 120, "page"))]
)
def test_nothing_overlaps_at_any_width(errors, width):
    """Texts run into each other or out of the page, or a legend covers points, where the page is narrow."""
    figure = draw_errors(errors, width=width, font=8 if width == 85 else None)
    assert size(figure)[0] == pytest.approx({"column": 85, "page": 178}.get(width, width))
    assert overlaps(figure) == []
    legends_leave_the_data_alone({"errors": figure})
    rows = len({round(ax.get_position().y0, 3) for ax in figures.panels(figure).values()})
    assert rows == (1 if width == "page" else 2)


def test_a_look_holds_for_given_axes_and_when_drawn_anew(errors):
    """A font or a style stops at the curves of one's own axes, whose labels and numbers keep 10 points; axes keep
    no look where none was asked for; or a figure drawn anew is of another width and font than before."""
    ours, plain = Figure().subplots(2)
    draw_errors(errors, panels="a", ax=ours, font="DejaVu Serif 6", style={"axes.labelcolor": "navy"})
    draw_errors(errors, panels="a", ax=plain)
    assert to_hex(ours.xaxis.label.get_color()) == to_hex("navy")
    for ax, points, family in ((ours, 6, "DejaVu Serif"), (plain, 10, "sans-serif")):
        for axis in (ax.xaxis, ax.yaxis):
            assert (axis.label.get_size(), axis.label.get_fontfamily()) == (points, [family])
            # Ticks that are made later too.
            numbers = [*axis.get_ticklabels(), *axis.get_ticklabels(minor=True)]
            assert numbers
            assert all(n.get_size() == pytest.approx(points, rel=0.17) for n in numbers)
            assert all(n.get_fontfamily() == [family] for n in numbers)
    again = draw_errors(errors, width=60, font=6, panels="b").redraw(height=40)
    assert size(again) == (pytest.approx(60), pytest.approx(40))
    assert again.axes[0].xaxis.label.get_size() == 6
    assert again.axes[0].get_title().endswith("kind 1")


@pytest.mark.full
def test_planted_overlaps_are_seen(errors):
    """The test above sees nothing."""
    figure = draw_errors(errors, width=85)
    figures.panels(figure)["a"].text(0.5, 1.02, "over the title", transform=figure.axes[0].transAxes)
    assert overlaps(figure)


@pytest.mark.full
def test_panels_are_chosen_and_lettered_anew(errors):
    """`panels` draws others than asked for, or leaves their letters or places as they were."""
    figure = draw_errors(errors, panels="b", height=50)
    assert [ax.get_title() for ax in figure.axes] == ["a network of kind 1"]
    assert size(figure) == pytest.approx((89, 50))
    turned = draw_errors(errors, panels="b,a")
    first, second = figures.panels(turned).values()
    assert (first.get_title(), second.get_title()) == ("a network of kind 1", "a network of kind 0")
    assert first.get_position().x0 < second.get_position().x0


@pytest.mark.full
def test_draws_into_the_users_axes(errors):
    """`ax` draws elsewhere, or changes the user's figure beside it."""
    own = Figure(figsize=(6, 3))
    left, right = own.subplots(1, 2)
    right.plot([0, 1], [0, 1])
    assert draw_errors(errors, panels="a", ax=left) is own
    assert [line.get_label() for line in left.lines[:4]] == [f"scheme {k}" for k in range(4)]
    assert left.get_legend() is not None
    assert len(right.lines) == 1
    assert len(own.axes) == 2
    assert draw_errors(errors, ax=[left, right]) is own
    with pytest.raises(InputError, match="as many Axes as there are 2 panels"):
        draw_errors(errors, ax=left)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"width": 5}, "width must be 'column', 'page' or millimetres from 30 to 500"),
        ({"width": "colum"}, "width must be"),
        ({"height": float("nan")}, "height must be"),
        ({"font": "Arrial of mine 6.5"}, r"installed on this machine \(DejaVu Sans, .*'Arrial of mine', which"),
        ({"font": "Dejavu Sanss"}, r"\(DejaVu Sans, "),
        ({"font": 200}, "font must be"),
        ({"panels": "c"}, "panels must be of this figure, which has panels a to b"),
        ({"panels": ""}, "panels must be letters"),
        ({"ax": 3}, "ax must be Axes"),
        ({"style": "missing.mplstyle"}, "style must be a file that is there"),
        ({"style": {"font.sise": 3}}, "font.sise"),
        ({"style": {"font.size": "large"}}, "style must hold values"),
        ({"style": 3}, "style must be"),
        ({"style": "ggplott"}, "ggplot"),
    ],
)
def test_bad_looks_end_in_one_line(errors, options, told):
    """A look that cannot be had ends in a traceback, or in a figure of another look."""
    with pytest.raises(InputError, match=told) as error:
        draw_errors(errors, **options)
    assert "\n" not in str(error.value)


def test_numbers_are_the_same_in_all_formats(errors, tmp_path):
    """CSV, JSON or HDF5 of a figure lack numbers that it shows, or round them."""
    data = {
        **as_numbers(errors),
        "rates": np.array([1 + 2j, 3 - 4j]),
        "grid": np.arange(6.0).reshape(3, 2),
        "no": None,
    }
    paths = [figures.save_data(data, tmp_path / f"numbers.{suffix}") for suffix in ("csv", "json", "h5")]
    with open(paths[0], newline="") as file:
        names, *rows = csv.reader(file)
    columns = {name: [row[k] for row in rows] for k, name in enumerate(names)}
    curve = errors.panels[1].curves[2]
    assert [float(v) for v in columns["panels.1.curves.2.error"][:7]] == curve.error.tolist()
    assert columns["panels.1.title"][0] == "a network of kind 1"
    assert columns["rates.imag"][:2] == ["2.0", "-4.0"]
    assert columns["grid[1]"][:3] == ["1.0", "3.0", "5.0"]
    told = json.loads(paths[1].read_text())
    assert told["panels"][1]["curves"][2]["error"] == curve.error.tolist()
    assert told["rates"]["real"] == [1.0, 3.0]
    with h5py.File(paths[2]) as file:
        np.testing.assert_array_equal(file["panels/1/curves/2/error"][()], curve.error)
        assert file["panels/1/title"].asstr()[()] == "a network of kind 1"
        assert file["grid"].shape == (3, 2)
    with pytest.raises(InputError, match=r"data must end in \.csv, \.json, \.h5"):
        figures.save_data(data, tmp_path / "numbers.txt")


@pytest.mark.full
def test_command_takes_looks_and_writes_numbers(tmp_path, monkeypatch, capsys):
    """An option of `figure` does not reach the picture, or is told to be wrong only after all work is done."""
    monkeypatch.chdir(tmp_path)
    Path("mine.mplstyle").write_text("lines.linewidth: 2\n")
    looks = ["--width", "column", "--height", "60", "--font", "8", "--panels", "d", "--style", "mine.mplstyle"]
    assert command("figure", "hopfield-dynamics", *looks, "--data", "n.csv") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *(f"hopfield_dynamics.{form}" for form in style.FORMATS),
        "mine.mplstyle",
        "n.csv",
    ]
    assert 'width="240.9' in Path("hopfield_dynamics.svg").read_text()  # points: 85 mm
    assert Path("n.csv").read_text().startswith("label,phases.0.beta")
    capsys.readouterr()
    for wrong, told in (
        (["all", "--panels", "a"], "panels must be left out for all"),
        (["all", "--data", "x.csv"], "data must end in .json or .h5"),
        (["precision", "--width", "wide"], "width must be"),
        (["precision", "--font", "Arrial of mine 6.5"], "installed on this machine"),
        (["precision", "--style", "no.mplstyle"], "style must be a file"),
    ):
        assert command("figure", *wrong) == 2
        message = capsys.readouterr().err
        assert told in message
        assert len(message.strip().splitlines()) == 1


def test_names_of_layers_keep_what_tells_them_apart():
    """A name cut in its middle, as 4.b.0...ight, tells neither the layer nor the parameter; or two become one."""
    deep = ["1.weight", "4.b.0.skip_weight", "network.blocks.10.attention.q.weight"]
    assert style.layer_names(deep, 40) == deep
    assert style.layer_names(deep, 30) == ["1", "4.b.0.skip_weight", "network.blocks.10.attention.q"]
    assert style.layer_names(deep, 18) == ["1", "4.b.0.skip_weight", "…10.attention.q"]
    assert style.layer_names(["4.b.0 (Conv2d)", "4.b.1 (BatchNorm2d)"], 18) == ["4.b.0", "4.b.1"]
    assert style.layer_names(["encoder.0.weight", "encoder.0"], 10) == ["…0.weight", "encoder.0"]
    assert style.layer_names(["a.b.c (identity of 4)", "a.b.c.weight"], 19) == ["…c (identity of 4)", "a.b.c"]
    ends = ["first.block.of.attention", "other.block.of.attention"]
    assert style.layer_names(ends, 12) == ends
    assert style.layer_names([], 12) == []
