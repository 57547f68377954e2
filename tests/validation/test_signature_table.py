"""The signature table of trained networks: its cells are the sweeps', said once, and it says what it stands on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from physics_ep import CrossEntropy, cli
from physics_ep.errors import InputError
from tests.support.pcn import dense, examples
from validation.experiments import signature as module
from validation.experiments.signature import COLUMNS, alike, cell, differences, gaps, measure, rises, rows_of, shown
from validation.references import stability_by
from validation.sweeps.tolerances import open_tolerance


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small network in the place of a trained one."""

    def subject(name: str, folder: Path, batch: int, seed: int = 0) -> Any:
        x, y = examples((8,), batch)
        nets = [dense(3, "relu", width=12, n_in=8, gain=gain, energy="squared") for gain in (1.5, 1.0)]
        return (*nets, x, y)

    monkeypatch.setattr(module, "subject", subject)


def run(folder: Path, **options: Any) -> Any:
    given: dict[str, Any] = {"fields": ["programming_noise", "read_noise"], "repeats": 3, "batch": 4}
    given["substrates"] = ["hopfield", "resistive"]
    given["name"] = "digits-relu"
    return measure(folder=folder, **{**given, **options})


@pytest.mark.slow
def test_cells_are_those_of_the_sweeps(small: None, tmp_path: Path) -> None:
    """A cell is of another column, mode, reference or statistic than it says; or a column is shown twice."""
    lines: list[str] = []
    found = run(tmp_path, tell=lines.append)
    assert len(lines) == 2 * 3 * 7  # a line a point
    assert lines[0] == "hopfield, trained, separate cells: 1/7 ideal"
    head, body = shown(found, "feedforward")
    # Cells that err alike: one set of equations, on both substrates to the last digit.
    one = "trained, cells that err alike (ideal)"
    assert alike(found)["resistive", one] == ("hopfield", one)
    assert head.count(f"hopfield = resistive: {one}, held") == head.count(f"hopfield = resistive: {one}, live") == 1
    table = open_tolerance(tmp_path / "trained-independent" / "resistive.h5")
    at = head.index("resistive: trained, separate cells, live")
    for row in body:
        (point,) = (
            p
            for p in table.points
            if (p.field.replace("_", " "), "" if p.value is None else f"{p.value:g}") == (*row[:2],)
        )
        assert row[at] == cell(point.live, "feedforward")
        weights = [layer.feedforward.cosines for layer in point.live.layers if "weight" in layer.name]
        worst = [max(1 - w[r] for w in weights) for r in range(point.repeats)]
        np.testing.assert_allclose(gaps(point.live, "feedforward"), np.maximum(worst, 0))
        assert row[at].startswith(f"{np.nanmedian(worst):.0e}")
    low, high = np.percentile(gaps(table.of("programming_noise")[1], "transfer"), (25, 75))
    assert f"({low:.0e}..{high:.0e})" in cell(table.of("programming_noise")[1], "transfer")
    # One array is an exact transpose of itself; three that err apart are not.
    apart = differences(found, "feedforward", "trained, separate cells")
    assert any(line.startswith("programming_noise 0.01: hopfield") for line in apart)
    assert not any(line.startswith("read_noise") for line in apart)
    assert found.conditions["gates"] == "held and live"
    assert (found.conditions["instances"], found.conditions["examples"][:2]) == (3, "4,")


@pytest.mark.full
def test_nothing_is_measured_twice(small: None, tmp_path: Path) -> None:
    """A table that was interrupted begins anew, or one that is there is overwritten."""
    first = run(tmp_path, substrates=["hopfield"])
    lines: list[str] = []
    again = run(tmp_path, substrates=["hopfield"], resume=True, tell=lines.append)
    assert lines == []
    assert json.dumps(again.figures()) == json.dumps(first.figures())
    with pytest.raises(InputError, match="out must be a new file"):
        run(tmp_path, substrates=["hopfield"])


@pytest.mark.full
def test_instances_without_a_state_and_rows_that_fall(small: None, tmp_path: Path) -> None:
    """A table hides where there is no answer, or a row that falls says nothing of why."""
    found = run(tmp_path, substrates=["resistive"], columns=["trained, separate cells"], steps=4)
    points = found.tables["resistive", "trained, separate cells"].of("programming_noise")
    lost = [p for p in points if p.stateless]
    assert lost
    for point in lost:
        assert f"no free state in {point.stateless} of 3" in cell(point, "feedforward")
    for line in rises(found, "feedforward"):
        assert any(word in line for word in ("settle there", "on ideal devices", "not explained"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fields": ["levles"]}, "Did you mean 'levels'"),
        ({"columns": ["trained"]}, "columns must be one of"),
        ({"substrates": ["resistve"]}, "Did you mean 'resistive'"),
        ({"repeats": 0}, "repeats must be an integer of at least 1"),
        ({"batch": 0}, "batch must be an integer of at least 1"),
        ({"batch": 361}, "batch must be at most the 360 test examples"),
        ({"steps": 0}, "steps must be an integer of at least 1"),
        ({"seed": -1}, "seed must be an integer of at least 0"),
        ({"solver": "anderson"}, "solver on the substrate hopfield must be one of"),
        ({"name": "digits-tanh"}, "cannot be realised on the substrate 'resistive'"),
    ],
)
def test_bad_input(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    """One line that says what is wrong, before anything is written."""
    with pytest.raises(InputError, match=message):
        run(tmp_path / "none", **options)
    assert not (tmp_path / "none").exists()


def test_examples_are_those_that_carry_the_gradient() -> None:
    """A trained network's table stands on one example that is wrong, and on others whose gradient is nothing."""
    net = dense(3, "relu", width=12, n_in=8)
    x, y = examples((8,), 12)
    weights = [
        float(
            torch.autograd.functional.jacobian(
                lambda h, k=k: CrossEntropy()(h[None], y[k : k + 1])[0], net(x)[k].detach()
            ).norm()
        )
        for k in range(12)
    ]
    chosen, labels = module._heavy(net, x, y, 4)
    wanted = sorted(np.argsort(weights)[-4:].tolist())
    assert torch.equal(chosen, x[wanted])
    assert torch.equal(labels, y[wanted])
    with pytest.raises(InputError, match="batch must be at most the 12 test examples"):
        module._heavy(net, x, y, 13)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("digits-relu", ["hopfield", "resistive", "oscillator"]), ("digits-tanh", ["hopfield"])],
)
def test_substrates_are_those_that_can_hold_the_network(name: str, wanted: list[str]) -> None:
    """If it fails, a table lacks a column that it could have, or ends in an error for want of one."""
    assert module.holding(module.before_training(name)) == wanted


def test_what_says_that_free_states_are_stable() -> None:
    """If it fails, states that nobody certified stand in reports like such as were."""
    assert [stability_by(s) for s in ("guided", "euler", "newton", "", "flow, guided")] == [
        "not certified",
        "followed in time",
        "certified stable",
        "",
        "followed in time, not certified",
    ]


def test_rows_are_those_that_a_substrate_has() -> None:
    """Mirrors are of Hopfield circuits alone."""
    assert "mirror_mismatch" in rows_of("hopfield")
    assert "mirror_mismatch" not in rows_of("resistive")


@pytest.mark.full
def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A trained network is not what the printed table and its JSON are of."""
    out = tmp_path / "out.json"
    words = ["signature", "--network", "digits-relu", "--out", str(tmp_path / "run"), "--repeats", "2"]
    words += ["--substrates", "hopfield", "--fields", "read_noise", "--batch", "4", "--json", str(out)]
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert not caught.value.code
    printed = capsys.readouterr().out
    assert "| read noise | 1e-05 |" in printed
    assert "network digits-relu" in printed
    found = json.loads(out.read_text())
    assert {f"hopfield: {column}" for column in COLUMNS} == set(found["sweeps"])
    assert (tmp_path / "run" / "relu.h5").exists()
    for words in (["--network", "digit-relu"], ["--reference", "transfr"]):
        with pytest.raises(SystemExit) as caught:
            cli.main(["signature", "--out", str(tmp_path / "other"), *words])
        assert caught.value.code == 2
    assert not (tmp_path / "other").exists()
