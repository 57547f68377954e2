"""Courses in time. If these fail, a figure of a simulation's file is not of what the file holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import figures
from figures.catalogue import suited
from hardware_models import ConvHopfieldNetwork, HopfieldNetwork, ResistiveNetwork
from physics_ep import cli, open_run, simulate
from physics_ep.config import parse_config
from physics_ep.errors import InputError
from physics_ep.registry import choices
from physics_ep.runs.phases import simulate_phases
from physics_ep.storage.trajectory import Trajectory


def course(start: torch.Tensor, end: torch.Tensor, span: float) -> Trajectory:
    """A straight way (9, 2, n) from one state to another."""
    time = torch.linspace(0, span, 9, dtype=torch.float64)
    state = start + (end - start) * (time / span)[:, None, None]
    fall = torch.linspace(1, 0, 9, dtype=torch.float64)[:, None].expand(9, 2)
    return Trajectory(time, (state,), fall, fall + 1e-9)


def states_of(ax) -> list[np.ndarray]:
    """Lines of a panel without that between phases, (points, 2) each."""
    return [line.get_xydata() for line in ax.lines if line.get_marker() != ""]


def test_phases_show_the_same_units_and_follow_each_other() -> None:
    """A unit of the nudged panel is another one than the line of its colour in the free panel: states seem to jump.
    Or a phase that follows another one starts at 0 again; or phases that do not follow are drawn as if they did."""
    zero = torch.zeros(2, 12, dtype=torch.float64)
    rest, moved = zero.clone(), zero.clone()
    rest[:, :6] = torch.arange(6.0, 0.0, -1)  # the free phase moves the first six, the nudged one the last three
    rest[:, 6:] = 0.01 * torch.arange(1.0, 7.0)
    moved += rest
    moved[:, 9:] += torch.tensor([0.1, 0.2, 0.3])
    free, nudged = course(zero, rest, 5.0), course(rest, moved, 3.0)
    phases = {"free": free, "nudged": nudged}
    states, energy, residual = axes = Figure().subplots(3)
    figures.draw_trajectories(phases, ax=axes)
    assert "example 1" in states.get_ylabel().replace("\n", " ")
    lines = states_of(states)
    ends, starts = [line[-1] for line in lines[:6]], [line[0] for line in lines[6:]]
    np.testing.assert_allclose(starts, ends, atol=1e-12)
    np.testing.assert_allclose([line[-1, 0] for line in lines[6:]], 8.0)
    # Those that either phase moves most: by its share of the phase's longest way.
    share = (rest[0] / 6 + (moved - rest)[0] / 0.3).argsort(descending=True, stable=True)[:6]
    np.testing.assert_allclose([line[-1, 1] for line in lines[6:]], moved[0, share])
    assert all(states_of(ax)[2][0, 0] == 5.0 for ax in (energy, residual))
    axes = Figure().subplots(2)
    figures.draw_trajectories(phases, joined=False, panels="a", ax=axes)
    apart = [states_of(ax) for ax in axes]
    np.testing.assert_allclose([line[-1, 1] for line in apart[0]], [line[0, 1] for line in apart[1]], atol=1e-12)
    with pytest.raises(InputError, match="as many Axes as there are 6 panels"):
        figures.draw_trajectories({"nudged": nudged, "free": free}, ax=axes)
    with pytest.raises(InputError, match="joined must be False where a phase does not start where"):
        figures.draw_trajectories({"nudged": nudged, "free": free}, joined=True)
    bad: list[Any] = [[free, nudged], {}, free, {"free": 3}]
    for wrong in bad:
        with pytest.raises(InputError, match=r"courses must map names of phases to trajectories.*but was"):
            figures.draw_trajectories(wrong)
    assert repr(free) == "Trajectory(9 rows to 5 time constants, 2 examples, blocks of 12 in state units)"


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
    """A shape of images that does not fit is answered with the entry of the config that makes it fit.

    Two shapes alone would not tell a newcomer what to write.
    """
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
