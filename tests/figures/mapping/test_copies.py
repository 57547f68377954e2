"""The figure of ways to live with cells that err apart: its table is the rows', sorted, and it is drawn in full."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from figures.catalogue import draw, find
from figures.mapping.copies import LOOKS, SMALL, TITLES, draw_copies, ways_measured
from figures.requests import Request
from validation.experiments.copies import SIZES_OF_WAYS, WAYS, OneDevice, markdown, ways


def rows(instances: int = 3) -> list[dict[str, object]]:
    """A table of all ways, with numbers that tell where they belong; one has no gradient at the largest noise."""
    found = []
    for n, case in enumerate(ways()):
        for instance in range(instances):
            lost = case.way == "auto-zero" and case.device.programming_noise == 0.03
            gap = float("nan") if lost else (n + 1) * 1e-4 * (instance + 1)
            gaps = {"transfer": gap, "feedforward": 2 * gap, "adaptation": 3 * gap}
            found.append(asdict(OneDevice(case.key, instance, 1.0, 0.01 * instance, "euler", 16, gaps, 0.1)))
    return found


def test_medians_and_quartiles_are_those_of_the_rows() -> None:
    """A panel shows another way, size, network or statistic than it says."""
    data = ways_measured(rows())
    assert data.networks == ("hard_tanh", "relu")
    assert (*data.ways,) == (*WAYS,) == (*LOOKS,) or set(data.ways) == set(WAYS) == set(LOOKS)
    assert data.sizes.tolist() == [*SIZES_OF_WAYS]
    for n, case in enumerate(ways()):
        at = (
            data.networks.index(case.activation),
            data.ways.index(case.way),
            data.sizes.tolist().index(case.device.programming_noise),
        )
        if case.way == "auto-zero" and at[2] == 3:
            assert np.isnan(data.values["adaptation"][at]).all()
            continue
        expected = 3 * (n + 1) * 1e-4 * np.array([1.5, 2, 2.5])
        np.testing.assert_allclose(data.values["adaptation"][at], expected)
        np.testing.assert_allclose(data.values["error"][at], [0.5, 1, 1.5])
        assert data.instances[at] == 3


@pytest.mark.full
def test_every_way_has_a_curve_in_every_panel() -> None:
    """A way is left out of a panel, or the drawing warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = draw_copies(ways_measured(rows()))
    assert len(figure.axes) == 2 * len(TITLES)
    for ax in figure.axes:
        assert len(ax.lines) == len(WAYS)


@pytest.mark.full
def test_the_table_beside_a_run_is_drawn(tmp_path: Path) -> None:
    """`--from` a network of the table's folder measures anew, or draws another table."""
    (tmp_path / "copies.json").write_text(json.dumps({"conditions": {}, "rows": rows(1)}), encoding="utf-8")
    (tmp_path / "relu.h5").write_bytes(b"")
    drawn = draw(find("copies"), Request(run=tmp_path / "relu.h5"))
    np.testing.assert_allclose(drawn.data["values"]["transfer"][0, 0, 0], 1e-4)
    assert "one array in slots" in markdown(rows(1))  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_small_table_is_measured_where_there_is_none() -> None:
    """Weak feedback does not help a trained network, or the figure needs a file."""
    drawn = draw(find("copies"), Request())
    gaps = drawn.data["values"]["adaptation"][0, :, :, 1]
    plain, weak = (gaps[drawn.data["ways"].index(name)] for name in SMALL[:2])
    assert (weak[1:3] < 0.3 * plain[1:3]).all()
