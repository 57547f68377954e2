"""The nudge of a trained run. If these fail, a nudged course pulls to other targets than the run has learnt."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from physics_ep import Nudge, SquaredError, load_system, nudge_of, relax, simulate
from physics_ep.errors import InputError
from physics_ep.runs import examples_of, simulate_phases
from physics_ep.runs.phases import Phases
from physics_ep.runs.preparation import subject_of
from physics_ep.runs.training import train


@pytest.mark.full
def test_the_nudge_of_a_run_is_the_one_that_it_learnt_with(tmp_path: Path) -> None:
    """Inputs, targets, cost and beta at hand by one call: the course is that of the command, which reads them
    itself. Class numbers as targets are answered with what makes rows of them."""
    path = tmp_path / "run.h5"
    train({"system": {"name": "resistive", "sizes": [64, 6, 10]}, "training": {"epochs": 1}}, out=path)
    system = load_system(path)
    x, nudge = nudge_of(path, 2)
    own, labels = examples_of(path)
    assert torch.equal(x, own[:2].to(x))
    config = subject_of(path)
    assert config.ep.beta in (nudge.beta, "auto")
    target = config.ep.new_cost().target
    assert torch.equal(nudge.y, target * torch.nn.functional.one_hot(labels[:2], 10).to(x))
    found = simulate_phases(config, examples=2, duration=2 * system.time_constant)
    rest = tuple(block[-1] for block in found.free.state)
    nudged = simulate(system, x, 2 * system.time_constant, nudge, rest)
    assert torch.allclose(nudged.state[-1][-1], found.nudged.state[-1][-1], rtol=1e-5)
    assert nudge_of(path, 2, beta=1e-3)[1].beta == 1e-3
    with pytest.raises(InputError, match=r"one_hot\(y, 10\).*physics_ep.nudge_of"):
        simulate(system, x, nudge=Nudge(SquaredError(), labels[:2], 1e-5), start=relax(system, x).state)
    with pytest.raises(InputError, match="examples must be at most"):
        nudge_of(path, 10**6)


@pytest.mark.parametrize("beta", [2e-6, "auto"])
def test_the_strength_is_that_of_the_run(beta: float | str, tmp_path: Path) -> None:
    """If this fails, a run that was trained with a strength of its own is nudged by a tenth of the system's scale,
    one with an automatic strength by a tenth of a siemens, or a strength that was asked for is another."""
    x, labels = torch.rand(6, 3, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3
    config = {
        "system": {"name": "resistive", "sizes": [3, 3]},
        "ep": {"beta": beta, "cost": "squared_error", "target": 0.5},
        "training": {"epochs": 1},
        "optimizer": {"name": "SGD", "lr": 0.01},
    }
    train(config, data=(x, labels, x, labels), out=tmp_path / "run.h5")
    found, nudge = nudge_of(tmp_path / "run.h5")
    assert torch.equal(found, x)
    scale = load_system(tmp_path / "run.h5").nudge_scale
    assert scale < 1e-3  # siemens: a number that a constant in its place would not be
    assert nudge.beta == (beta if beta != "auto" else 0.1 * scale)
    for asked in (3e-6, -5e-7):
        assert nudge_of(tmp_path / "run.h5", 2, beta=asked)[1].beta == asked
    assert torch.equal(nudge.y, 0.5 * torch.nn.functional.one_hot(labels, 3))


def test_figures_of_phases_are_of_their_ends() -> None:
    """Residuals and energies at the end are those at the end: without this, a course that went far looks as it
    began."""
    ramp = torch.tensor([[4.0, 3.0], [2.0, 1.0]])
    course: Any = SimpleNamespace(
        time=torch.tensor([0.0, 5.0]), time_unit="s", energy_unit="W", energy=10 * ramp, residual=ramp,
        tolerance=1.5, settling_time=torch.tensor([1.0, math.nan]), at_rest=torch.tensor([False, True]),
    )  # fmt: skip
    told = Phases(course, course, 0.1).figures()["phases"]["nudged"]
    assert (told["first_energy"], told["last_energy"]) == ([40.0, 30.0], [20.0, 10.0])
    assert told["last_residual"] == [2.0, 1.0]
    assert (told["duration"], told["settling_time"], told["at_rest"]) == (5.0, [1.0, None], [False, True])
