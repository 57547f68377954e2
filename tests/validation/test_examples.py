"""Examples that gradients are taken on: if these fail, a system is shown what it cannot take."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hardware_models import DirectedOscillators, RecurrentNetwork
from physics_ep import SquaredError
from physics_ep.cli import main
from tests.support.vector_fields import TanhUnits
from validation.examples import examples


@pytest.mark.parametrize(
    ("build", "shape", "outputs"),
    [
        (lambda: TanhUnits(9, 0.5, n_in=64), (64,), 4),
        (lambda: DirectedOscillators(3, [[0, 1], [1, 2], [2, 0]], n_inputs=5), (5,), 2),
        (lambda: DirectedOscillators(3, [[0, 1], [1, 2], [2, 0]]), (0,), 2),
        (lambda: RecurrentNetwork([7, 4, 3]), (7,), 3),
    ],
)
def test_examples_have_the_shape_that_a_system_says(build, shape: tuple[int, ...], outputs: int) -> None:
    """The shape of a system without sizes or shapes of layers is `example_shape`; digits where nothing is said."""
    x, y = examples(build(), SquaredError(), 4, 0, None)
    assert tuple(x.shape) == (4, *shape)
    assert tuple(y.shape) == (4, outputs)


def test_images_of_a_system_with_a_force_are_images() -> None:
    class Grid(TanhUnits):
        example_shape = (3, 2)

        def force(self, state, x):
            return super().force(state, x.flatten(1))

        def initial_state(self, x):
            return super().initial_state(x.flatten(1))

    x, _ = examples(Grid(9, 0.5, n_in=6), SquaredError(), 4, 0, None)
    assert x.shape == (4, 3, 2)
    assert x.dtype == torch.float64


NORMED = """
import torch
from torch import nn


def model():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))
    return net, torch.rand(8, 1, 6, 6)
"""


@pytest.mark.full
def test_a_model_without_targets_has_no_rate_of_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Targets drawn at random make any network wrong. Norms go by running statistics: hardware has no others."""
    (tmp_path / "own.py").write_text(NORMED, encoding="utf-8")
    sweep = ["--sweep", "device_mismatch=0.01", "--repeats", "1", "--gates", "both"]
    with pytest.raises(SystemExit) as ended:
        main(["tolerance", f"{tmp_path / 'own.py'}:model", *sweep])
    assert not ended.value.code
    told = capsys.readouterr().out
    assert "no rate of errors is told" in told
    assert "live gates" in told
    assert "wrong" not in told
