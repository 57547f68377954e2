"""The table of causes: its devices err by one cause each, in cells apart, and shares are those of states."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from hardware_models import map_pcn
from physics_ep.equilibrium import NotFinite
from physics_ep.errors import InputError
from physics_ep.predictive_coding import mlp
from physics_ep.storage.run_file import Quantity, Run, write_run
from validation.experiments import causes
from validation.experiments.in_situ import KIND, QUANTITIES, SettledExamples, open_in_situ

ERRORS = ("device_mismatch", "programming_noise", "levels", "feedback_gain", "auto_zero", "read_noise")


def test_cells_of_a_weight_err_apart_by_the_cause_alone() -> None:
    """A row is of another cause than it says, or the way back reads the cells that drive h, and cannot err."""
    net, x = mlp([6, 5, 3], seed=0), torch.rand(4, 6, generator=torch.Generator().manual_seed(0))
    for case in causes.cases():
        device = case.device
        plain = type(device)()
        assert {n for n in ERRORS if getattr(device, n) != getattr(plain, n)} == {*causes.CAUSES[case.cause]}
        system = map_pcn(net, case.substrate, device, calibration=x).system
        assert system.served_apart("h", "transpose")
        assert system.served_apart("h", "u") == (case.substrate != "hopfield")
        name = "layers.1.weight"
        cells = system.acting(name, system.programmed(name, net.stack[1].weight.detach(), 2.0))
        alike = torch.equal(cells["h"].plus, cells["transpose"].plus)
        assert alike == (case.cause == "16 levels"), case.key  # levels round all of them alike


def phase(*settled: bool) -> Any:
    """What is asked of a phase."""
    return SimpleNamespace(converged=torch.tensor(settled))


def test_shares_are_those_of_the_phases() -> None:
    """An example counts as nudged though one of its phases has not settled, or refused batches are forgotten."""
    phases = SettledExamples()
    parts = (phase(True, True, True, False), phase(True, True, False, True), phase(True, False, True, True))
    step: Any = SimpleNamespace(equilibria=parts, skipped=3, loss=torch.tensor(0.5))
    assert phases.count(4, lambda: step) == 0.5

    def refused() -> Any:
        raise NotFinite("a gradient")

    assert math.isnan(phases.count(4, refused))
    assert phases.shares() == {"skipped": 7 / 8, "free_states": 3 / 8, "nudged_states": 1 / 8}
    parts = (phase(True, False, False, True), phase(False, False, False, True))  # two examples, from two starts
    step = SimpleNamespace(equilibria=parts, skipped=1, loss=torch.tensor(0.5))
    phases.count(2, lambda: step)
    assert phases.shares() == {"skipped": 8 / 10, "free_states": 5 / 10, "nudged_states": 2 / 10}


def test_files_without_shares_of_states_can_be_read(tmp_path: Path) -> None:
    """A file of an earlier release is refused, or shares that nobody measured are numbers."""
    old = [name for name in QUANTITIES if not name.endswith("_states")]
    assert len(old) == len(QUANTITIES) - 4
    own = json.dumps({"plan": [["resistive", "levels", 16]]})
    metrics = {name: Quantity(np.array([[0.25, 0.5]]), *QUANTITIES[name]) for name in old}
    write_run(tmp_path / "old.h5", Run({"kind": KIND, "config": "{}", "in_situ": own}, metrics=metrics))
    table = open_in_situ(tmp_path / "old.h5")
    (row,) = table.rows()
    assert row["learned"] == 0.375
    assert row["nudged_states"] is None
    assert np.isnan(table.values["mapped_states"]).all()


def test_a_table_of_another_recipe_is_refused(tmp_path: Path) -> None:
    """Rows of two recipes stand in one table, or something else is written over."""
    path = tmp_path / "causes.json"
    row = {"key": causes.cases()[0].key, "seed": 0, **dict.fromkeys(causes.FOUND, 0.5)}
    rows = [row, {**row, "seed": 1, "learned": 0.8}]
    path.write_text(json.dumps({"recipe": causes.RECIPES["digits"].overrides, "rows": rows}))
    shown = causes.markdown(causes.read(path)).splitlines()
    assert shown[-1].startswith("| hopfield | mismatch 10 % | asymmetric | nothing | 50 | 50 | 65 (50..80) |")
    for text in ("[]", json.dumps({"recipe": ["training.epochs=7"], "rows": [row]})):
        path.write_text(text)
        with pytest.raises(InputError, match=r"out must hold a table of causes of this recipe"):
            causes.measure(path)
        assert path.read_text() == text


def test_ways_are_rows_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A way is measured without its fields, two rows are taken for one, or an interval is a spread."""
    for network in causes.RECIPES:
        keys = [case.key for case in causes.cases(network)]
        assert len(set(keys)) == len(keys)
    (kept,) = (c for c in causes.cases("mnist") if c.key == "resistive, all three, asymmetric, gain 0.2, narrow")
    assert kept.device.feedback_gain == 0.2
    assert kept.device.copies == "independent"
    assert causes.WAYS[kept.way].headroom == 1.5
    (trimmed,) = (c for c in causes.cases("mnist") if c.way == "trimmed")
    assert (trimmed.device.copies, trimmed.device.programming_noise) == ("trimmed", 0.05)
    rows = [{"key": kept.key, "seed": n, **dict.fromkeys(causes.FOUND, v)} for n, v in enumerate((0.1, 0.2, 0.3))]
    line = causes.markdown(rows, "mnist", intervals=True).splitlines()[-1]
    # Student's t at 97.5 % and two degrees of freedom is 4.303: 4.303 10 / sqrt(3) = 24.8.
    expected = "| gain 0.2, narrow | 20.0 +- 24.8 | 20.0 +- 24.8 | 20.0 +- 24.8 | 20 (10..30) |"
    assert expected in line
    with pytest.raises(SystemExit, match=r"causes: Unknown network|network"):
        causes.main([str(tmp_path / "out.json"), "--network", "cifar"])
    assert not (tmp_path / "out.json").exists()


def test_seeds_that_were_refused_are_told() -> None:
    """A mean over the seeds that a device could hold is taken for one of all, or one of two for an interval."""
    key = causes.cases()[0].key
    rows = [{"key": key, "seed": n, **dict.fromkeys(causes.FOUND, v)} for n, v in enumerate((0.2, 0.4, 0.9))]
    rows[2] |= {"mapped": None, "learned": None}
    line = causes.markdown(rows, intervals=True).splitlines()[-1]
    assert line.startswith("| hopfield | mismatch 10 % | asymmetric | nothing | 30 (20..40) | 30 (20..40) |")
    assert line.endswith("| 2 (1 refused) |")
    assert causes.markdown(rows[2:]).splitlines()[-1].endswith("| none | none | 0 (1 refused) |")


@pytest.mark.full
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")  # the optimizer has made no step
def test_a_row_tells_what_was_learned() -> None:
    """Shares are of other phases than they say, or passes of a phase are not those that the recipe gives it."""
    case = causes.CauseCase("resistive", "all three", "asymmetric")
    small = ("data.train_examples=64", "data.test_examples=40", "training.epochs=1")
    row = causes.measured(case, 0, (*small, "ep.max_iterations=2"))
    assert row["free_states"] == row["nudged_states"] == row["mapped_states"] == row["pulses"] == 0
    assert row["mapped"] == row["learned"] == 1
    row = causes.measured(causes.CauseCase("hopfield", "mismatch 10 %", "asymmetric"), 0, small)
    assert row["free_states"] == row["learned_states"] == row["mapped_states"] == 1
    assert row["pulses"] > 0
