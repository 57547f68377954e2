"""The figure of layers shows what was measured, of any system, at a journal's two widths.

Each test's docstring says what is wrong with the figure if it fails.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from figures.gradients.layers import LayerCurve, Layers, draw_layers
from figures.style import PAGE
from tests.support import looks

pytestmark = pytest.mark.full

test_every_axis_is_labelled = looks.every_axis_is_labelled_with_its_unit
test_series_differ_without_colour = looks.series_differ_without_colour
test_legends_leave_the_data_alone = looks.legends_leave_the_data_alone

MODEL = """
import torch
from torch import nn

class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.last(x + torch.relu(self.first(x)))

def residual():
    return Residual(), torch.rand(8, 6)
"""


@pytest.fixture(scope="module")
def deep() -> Layers:
    """Sixty layers with long names, one of them without a gradient."""
    rng = np.random.default_rng(0)
    names = tuple(f"blocks.{k}.attention.out_projection" for k in range(60))
    held, live = (rng.uniform(-9, -3, (3, 60)) for _ in range(2))
    held[0, 3] = np.nan
    curves = (
        LayerCurve("held gates, K = 3", "held", *10**held, 3, 16, 16),
        LayerCurve("live gates, K = 40", "live", *10**live, 40, 12, 16),
    )
    return Layers("deep", names, names[3:4], 0.01, "backprop", curves)


@pytest.fixture(scope="module")
def drawn(deep: Layers) -> dict[str, object]:
    return {f"{width:g} mm": draw_layers(deep, width=width) for width in (85.0, PAGE)}


def test_sixty_names_can_be_read(drawn) -> None:
    """Names of layers overlap, or two of them are the same."""
    for figure in drawn.values():
        figure.canvas.draw()
        labels = figure.axes[0].get_yticklabels()
        texts = [label.get_text() for label in labels]
        assert len(set(texts)) == len(texts) == 60
        assert "*" in texts[3]
        boxes = [label.get_window_extent() for label in labels]
        assert all(not a.overlaps(b) for a, b in itertools.pairwise(boxes))
        assert min(box.x0 for box in boxes) > 0


def test_the_command_draws_a_model_of_ones_own(tmp_path: Path) -> None:
    """`--from` does not take what SYSTEM is elsewhere, or the weights are not those of --weights."""
    own = tmp_path / "own.py"
    own.write_text(MODEL, encoding="utf-8")
    out, told = tmp_path / "out", tmp_path / "told.json"
    drawing = ("figure", "layers", "--from", f"{own}:residual", "--out", str(out), "--json", str(told))
    assert looks.command(*drawing) == 0
    data = json.loads(told.read_text(encoding="utf-8"))["layers"]["data"]
    assert data["layers"] == ["first", "last"]
    assert max(data["curves"][0]["distance"]) < 1e-4
    assert (out / "layers.pdf").exists()
    assert looks.command("figure", "layers", "--out", str(out), "--weights", str(told)) == 2
    assert looks.command("figure", "layers", "--from", f"{own}:none", "--out", str(out)) == 2
