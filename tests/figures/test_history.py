"""The figure of what benchmarks cost from release to release."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from figures.catalogue import suited
from figures.history import bench_history, draw_bench_history
from figures.requests import names_folder
from tests.support import looks
from tests.support.looks import command
from validation.benchmarks.history import Release


@pytest.fixture(scope="module")
def history() -> list[Release]:
    many = {f"case {k}": 1.5 + k for k in range(7)}
    return [
        Release("0.1", "2026-01-01", "an abacus", False, {"pcn": many, "hopfield": {"EP step": 2.9}}),
        Release(
            "0.2", "2026-02-01", "an abacus", True, {"hopfield": {"EP step": 2.5}, "spice": {"ours / SPICE": 0.01}}
        ),
    ]


@pytest.fixture(scope="module")
def drawn(history):
    return {"bench_history": draw_bench_history(bench_history(history))}


def test_ratios_stand_under_their_releases(history, drawn) -> None:
    """A ratio drawn at another release tells of a gain that nobody made; a busy machine's marks are open."""
    data = bench_history(history)
    np.testing.assert_array_equal(data.ratios["hopfield"]["EP step"], [2.9, 2.5])
    np.testing.assert_array_equal(data.ratios["spice"]["ours / SPICE"], [np.nan, 0.01])
    panels = drawn["bench_history"].axes
    assert [ax.get_title() for ax in panels] == ["pcn", "pcn", "hopfield", "spice"]  # at most six curves a panel
    line, open_marks = panels[2].lines
    np.testing.assert_array_equal(line.get_ydata(), [2.9, 2.5])
    np.testing.assert_array_equal(open_marks.get_ydata(), [np.nan, 2.5])
    assert [text.get_text() for text in panels[2].get_xticklabels()] == ["0.1", "0.2"]


@pytest.mark.full
def test_command_draws_the_projects_own_history_or_a_folder(tmp_path, capsys) -> None:
    """Without --from the releases that ship are drawn; a folder without files, and a folder for another figure, are
    refused in one line."""
    assert command("figure", "bench_history", "--out", str(tmp_path / "out")) == 0
    assert (tmp_path / "out" / "bench_history.pdf").is_file()
    capsys.readouterr()
    empty = tmp_path / "empty"
    empty.mkdir()
    for name, path in (("bench_history", empty), ("bench_history", tmp_path / "missing"), ("bptt_equality", empty)):
        assert command("figure", name, "--from", str(path), "--out", str(tmp_path / "none")) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "none").exists()


def test_a_folder_hides_no_system_of_its_name(tmp_path, monkeypatch) -> None:
    """`mkdir hopfield` would take all figures from `--from hopfield`."""
    monkeypatch.chdir(tmp_path)
    before = suited(Path("hopfield"))
    (tmp_path / "hopfield").mkdir()
    assert names_folder(tmp_path)
    assert not names_folder(Path("hopfield"))
    assert [entry.name for entry in suited(Path("hopfield"))] == [entry.name for entry in before]


test_axes_are_labelled = looks.every_axis_is_labelled_with_its_unit
test_series_differ_without_colour = looks.series_differ_without_colour
test_legends_leave_the_data_alone = looks.legends_leave_the_data_alone
test_nothing_overlaps_in_a_column = looks.nothing_overlaps_in_a_column
test_each_figure_is_written_thrice = looks.each_figure_is_written_thrice
