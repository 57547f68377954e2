"""Systems whose config names no data. If these fail, `simulate` of a plug-in's system asks for the digits' ten
targets, or simulates drawn examples without saying so."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from physics_ep.config import parse_config
from physics_ep.dynamics import NotAtRestWarning
from physics_ep.errors import InputError
from physics_ep.predictive_coding import from_module
from physics_ep.runs.phases import simulate_phases


def test_examples_are_of_the_systems_own_sizes(tmp_path: Path) -> None:
    config = parse_config({"system": {"name": "hopfield", "sizes": [5, 4, 3]}})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotAtRestWarning)
        found = simulate_phases(config, duration=2.0, out=tmp_path / "run.h5")
        again = simulate_phases(config, duration=2.0, examples=2, seed=7)
        images = simulate_phases(parse_config({"system": {"name": "hopfield", "sizes": [64, 4, 10]}}), duration=1.0)
    assert "random inputs (5) and targets of 3 outputs" in found.examples_told
    assert found.figures()["examples"] == found.examples_told
    assert found.nudged.state[-1].shape[1:] == (4, 3)
    assert not torch.equal(again.free.state[0][-1], found.free.state[0][-1, :2])  # of another seed
    assert images.examples_told == ""


def test_models_in_one_dimension_are_told_how_they_map() -> None:
    """`Conv1d` had been "none of linear maps"; written as the message says it is taken."""
    head = (torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(32, 3))
    x = torch.rand(2, 2, 8)
    with pytest.raises(InputError, match=r"calls 'conv1d', which is none that is mapped: put it as a Conv2d with"):
        from_module(torch.nn.Sequential(torch.nn.Conv1d(2, 4, 3, padding=1), *head), x, form="layers")
    flat = torch.nn.Conv2d(2, 4, (1, 3), padding=(0, 1))
    images = from_module(torch.nn.Sequential(flat, *head), x[:, :, None], form="layers")
    assert images.sizes[-1] == 3


@pytest.mark.full
def test_data_that_are_named_are_taken(tmp_path: Path) -> None:
    """A table beside its config, wherever the command runs; else one in the present folder."""
    from physics_ep import train
    from physics_ep.config import load_config

    rows = "\n".join(["a,b,kind", *(f"{k / 7:.3f},{(k * k % 11) / 11:.3f},{'xy'[k % 2]}" for k in range(30))])
    folder = tmp_path / "experiment"
    folder.mkdir()
    (folder / "parts.csv").write_text(rows, encoding="utf-8")
    text = '[system]\nname = "hopfield"\n[data]\nname = "csv"\nfile = "parts.csv"\n'
    (folder / "own.toml").write_text(text, encoding="utf-8")
    config = load_config(folder / "own.toml")
    assert Path(config.data.file or "") == folder / "parts.csv"
    assert train(config, overrides=["training.epochs=1"]).config.system.options["sizes"][0] == 2
    (folder / "other.toml").write_text(text.replace("parts.csv", "elsewhere.csv"), encoding="utf-8")
    assert load_config(folder / "other.toml").data.file == "elsewhere.csv"
