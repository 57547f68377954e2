"""Examples that gradients are taken on: if these fail, a system is shown what it cannot take."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from hardware_models import DirectedOscillators, RecurrentNetwork
from physics_ep import EnergySystem, SquaredError, relax, simulate
from physics_ep.cli import main
from physics_ep.data.datasets import load_dataset
from physics_ep.errors import InputError
from physics_ep.runs.preparation import subject_of
from tests.support.vector_fields import TanhUnits
from validation.examples import examples, has_targets, judged


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


def test_a_system_that_takes_no_digits_and_says_no_shape_is_told_so() -> None:
    """The way out is said, in place of an error of shapes; a nudge in another form is refused by name too."""

    class Ropes(EnergySystem):
        def __init__(self) -> None:
            super().__init__()
            self.pull = torch.nn.Parameter(torch.ones(6, 4, dtype=torch.float64))

        def initial_state(self, x):
            return (x.new_zeros(len(x), 4),)

        def energy(self, state, x):
            return ((state[0] - x @ self.pull) ** 2).sum(1)

        def outputs(self, state):
            return state[0][:, :2]

    with pytest.raises(
        InputError, match=r"^Argument system must say the shape .*example_shape.*\[data\].*64 inputs, but was R"
    ):
        examples(Ropes(), SquaredError(), 4, 0, None)
    system = Ropes()
    system.example_shape = (6,)
    x, y = examples(system, SquaredError(), 4, 0, None)
    assert x.shape == (4, 6)
    for nudge in ((SquaredError(), y, 0.5), SquaredError()):
        for follow in (relax, simulate):
            with pytest.raises(
                InputError,
                match=r"^Argument nudge must be a Nudge\(cost, y, beta\) or None, but was (tuple|SquaredError)\.$",
            ):
                follow(system, x, nudge=nudge)


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
    assert "% wrong" not in told


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A config without sizes, of 40 rows with 5 features and 3 classes."""
    x = torch.rand(40, 5, generator=torch.Generator().manual_seed(0))
    rows = [",".join(map(repr, [*row.tolist(), "pqr"[k % 3]])) for k, row in enumerate(x)]
    (tmp_path / "table.csv").write_text("\n".join(["a,b,c,d,e,kind", *rows]).replace("'", ""), encoding="utf-8")
    config = tmp_path / "own.toml"
    data = f'data = {{name = "csv", file = "{tmp_path / "table.csv"}"}}\n'
    config.write_text('system = {name = "hopfield"}\n' + data, encoding="utf-8")
    return config


def test_a_config_is_judged_on_its_own_data(table: Path) -> None:
    """If this fails, a network for a table is judged on digits or random numbers, and nothing says so."""
    subject = subject_of(table)
    system, x, y, _ = judged(subject, "squared_error")
    held = load_dataset(subject.data)
    assert system.sizes == (5, 128, 3)
    assert torch.equal(x, held.test_x[:16])
    assert torch.equal(y.argmax(1), held.test_y[:16])
    assert has_targets(system, None)


@pytest.mark.slow
def test_the_figure_of_layers_is_the_table_of_gradients(table: Path, tmp_path: Path) -> None:
    """If this fails, a figure and a table of one network differ: in K, beta, cost, gates or examples."""
    told, drawn = tmp_path / "told.json", tmp_path / "drawn.json"
    options = ["--beta", "0.02", "--cost", "cross_entropy"]
    with pytest.raises(SystemExit):
        main(["gradients", str(table), *options, "--by", "layer", "--json", str(told)])
    with pytest.raises(SystemExit) as ended:
        main(["figure", "layers", "--from", str(table), *options, "--out", str(tmp_path), "--data", str(drawn)])
    assert not ended.value.code
    table_of, data = json.loads(told.read_text()), json.loads(drawn.read_text())
    assert data["curves"][0]["iterations"] == max(table_of["iterations"][1:])
    assert data["beta"] == table_of["beta"] == 0.02
    errors = [row["relative_error"] for row in table_of["layers"]]
    assert data["curves"][0]["error"] == pytest.approx(errors, rel=1e-6)
    for wrong in (["precision", "--beta", "0.1"], ["hopfield_dynamics", "--gates", "held"]):
        with pytest.raises(SystemExit) as ended:
            main(["figure", *wrong, "--out", str(tmp_path)])
        assert ended.value.code == 2
