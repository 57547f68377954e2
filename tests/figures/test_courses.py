"""Courses in time. If these fail, a figure of a simulation's file is not of what the file holds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from figures.catalogue import suited
from hardware_models import ConvHopfieldNetwork, HopfieldNetwork, ResistiveNetwork
from physics_ep import cli, open_run, simulate
from physics_ep.config import parse_config
from physics_ep.errors import InputError
from physics_ep.registry import choices
from physics_ep.runs.phases import simulate_phases


@pytest.mark.full
def test_a_simulation_is_drawn_as_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not settled anew by a solver; and a figure that does so says it."""
    config = parse_config({"system": {"name": "hopfield", "sizes": [64, 8, 10]}})
    path, numbers = tmp_path / "course.h5", tmp_path / "numbers.json"
    simulate_phases(config, out=path, duration=2.0, steps=20, examples=2)
    assert [entry.name for entry in suited(path)] == ["trajectories"]
    words = ["--width", "85", "--out", str(tmp_path), "--data", str(numbers)]
    with pytest.raises(SystemExit) as ended:
        cli.main(["figure", "trajectories", "--from", str(path), *words])
    assert not ended.value.code
    drawn, held = json.loads(numbers.read_text()), open_run(path).trajectories
    assert drawn.keys() - {"command"} == {"free", "nudged"}
    for name, course in held.items():
        assert np.allclose(drawn[name]["time"], course.time.numpy(), rtol=1e-12)
        assert np.allclose(drawn[name]["energy"], course.energy.numpy(), rtol=1e-6)
    assert (tmp_path / "trajectories.pdf").is_file()


def test_a_course_has_a_length_without_being_told_one() -> None:
    """Twenty time constants, in seconds where the system has them."""
    for system in (HopfieldNetwork([3, 2], seed=0), ResistiveNetwork([3, 2], seed=0)):
        course = simulate(system, torch.rand(2, 3, dtype=system.dtype))
        assert float(course.time[-1]) == pytest.approx(20 * system.time_constant, rel=1e-6)


def test_images_of_another_layout_are_told_how_they_fit() -> None:
    """Else a newcomer sees two shapes, and not the entry of the config that brings one to the other."""
    images = ConvHopfieldNetwork(input_shape=(1, 4, 4), channels=[2], n_out=2)
    with pytest.raises(InputError, match=r"data.layout = 'image'; a tensor by x.unflatten\(1, \(1, 4, 4\)\)"):
        images.check_input(torch.rand(2, 16, dtype=images.dtype))
    flat = HopfieldNetwork([16, 2], seed=0)
    with pytest.raises(InputError, match=r"data.layout = 'flat'; a tensor by x.flatten\(1\)"):
        flat.check_input(torch.rand(2, 1, 4, 4, dtype=flat.dtype))
    with pytest.raises(InputError, match=r"\(batch, 16\), but was"):
        flat.check_input(torch.rand(2, 15, dtype=flat.dtype))


def test_what_may_be_chosen_is_listed() -> None:
    """`physics-ep info` else tells systems and configs, and no substrate, scheme or imperfection."""
    told = choices()
    assert told["substrates"][:3] == ["hopfield", "resistive", "oscillator"]
    assert {"centered", "positive", "random"} <= set(told["schemes"])
    assert {"levels", "device_mismatch"} <= set(told["imperfections"])
    assert "csv" in told["loggers"]
