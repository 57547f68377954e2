"""Learning on devices: against plain training where devices are ideal, around defects where they are not."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from figures.mapping.in_situ import draw_in_situ, in_situ_errors
from hardware_models.devices.model import DeviceModel
from hardware_models.mapping.in_situ import InSitu
from hardware_models.mapping.mapped import map_pcn
from physics_ep.cli import main
from physics_ep.cost import CrossEntropy
from physics_ep.equilibrium import NotConverged
from physics_ep.errors import InputError
from physics_ep.estimators.propagation import EquilibriumPropagation
from physics_ep.predictive_coding import mlp
from physics_ep.progress import SILENT
from validation.experiments import in_situ
from validation.experiments.in_situ import LearningInterrupted, learn_in_situ, open_in_situ

SMALL = ["system.sizes=[64,24,10]", "ep.beta=0.1", "training.epochs=4", "training.batch_size=96"]
BASE = DeviceModel(levels=16, programming_noise=0.05, device_mismatch=0.1)


def batches(count: int = 6) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Random float64 examples."""
    generator = torch.Generator().manual_seed(4)
    return [
        (
            torch.rand(16, 8, generator=generator, dtype=torch.float64),
            torch.randint(0, 3, (16,), generator=generator),
        )
        for _ in range(count)
    ]


def momentum(parameters: Any) -> torch.optim.Optimizer:
    """Steps that keep a memory, which writing must not disturb."""
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


@pytest.mark.parametrize("substrate", ["hopfield", "resistive", "oscillator"])
def test_ideal_devices_learn_as_the_network_does(substrate: str) -> None:
    """Six steps with momentum on continuous cells give the weights of plain EP training to 1e-8 of their course: a
    sign, a scale, or an optimizer that works on weights that are no longer there would show."""
    net = mlp([8, 12, 3], energy="paired", seed=1).double()  # what substrates realise
    device = DeviceModel(**({"oscillator_headroom": 50.0} if substrate == "oscillator" else {}))
    learner = InSitu(map_pcn(net, substrate, device, calibration=batches()[0][0]), momentum, headroom=8)
    ep, optimizer = EquilibriumPropagation(CrossEntropy(), beta=0.01), momentum(net.parameters())
    for x, y in batches():
        learner.step(x, y, CrossEntropy(), beta=0.01)
        optimizer.zero_grad()
        ep.backward(net, x, y)
        optimizer.step()
    found = dict(learner.mapped.perturbed.named_parameters())
    start = dict(mlp([8, 12, 3], seed=1).double().named_parameters())
    for name, p in net.named_parameters():
        moved = float((p - start[name]).detach().norm())
        assert moved > 0.01
        assert float((found[name] - p).detach().norm()) < 1e-8 * moved, name


def test_weights_are_those_of_the_cells(tmp_path: Path) -> None:
    """After steps the system reads what the arrays hold, and going on from a saved state gives the same bits."""
    net = mlp([8, 12, 3], seed=1).double()
    first, second = (
        InSitu(map_pcn(net, "hopfield", BASE.replace(levels=512), 3), momentum, headroom=3) for _ in range(2)
    )
    for x, y in batches(3):
        first.step(x, y, CrossEntropy(), beta=0.1)
    assert first.pulses > 0
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt"))
    for x, y in batches(5)[3:]:
        for learner in (first, second):
            learner.step(x, y, CrossEntropy(), beta=0.1)
    for name, p in first.mapped.system.named_parameters():
        assert torch.equal(p, first.arrays[name].cells.values)
        assert torch.equal(p, dict(second.mapped.system.named_parameters())[name])


def test_changes_below_a_step_are_kept_and_not_read() -> None:
    """A small change moves no cell: the system still reads the cells, not what the optimizer made of them."""
    net = mlp([8, 12, 3], seed=1).double()
    learner = InSitu(map_pcn(net, "hopfield", BASE, 3), lambda p: torch.optim.SGD(p, lr=1e-6))
    learner.step(*batches()[0], CrossEntropy(), beta=0.1)
    assert learner.pulses == 0
    for name, array in learner.arrays.items():
        assert torch.equal(dict(learner.mapped.system.named_parameters())[name], array.cells.values)
        assert float(array.state_dict()["residue"].abs().max()) > 0


@pytest.mark.parametrize("largest", [1e-3, 1e3])
def test_clipped_gradients_move_cells_by_their_norm(largest: float) -> None:
    """A gradient that is a hundred times too large moves cells as far as it asks for, or a small one is changed."""
    net = mlp([8, 12, 3], seed=1).double()
    (x, y), *_ = batches()
    mapped = map_pcn(net, "resistive", calibration=x)
    learner = InSitu(mapped, lambda p: torch.optim.SGD(p, lr=0.1), headroom=4, clip_norm=largest)
    before = {name: array.cells.values.clone() for name, array in learner.arrays.items()}
    gradient, _ = mapped.estimate(x, y, CrossEntropy(), beta=0.05)
    size = float(torch.cat([g.flatten() for g in gradient.values()]).norm())
    learner.step(x, y, CrossEntropy(), beta=0.05)
    for name, g in gradient.items():
        wanted = -0.1 * g * min(1.0, largest / size)
        torch.testing.assert_close(learner.arrays[name].cells.values - before[name], wanted, rtol=1e-5, atol=1e-12)
    with pytest.raises(InputError, match="clip_norm must be a finite number above 0, or None, but was 0"):
        InSitu(mapped, momentum, clip_norm=0)


def test_no_cell_moves_where_there_is_no_equilibrium() -> None:
    """A phase that does not settle leaves cells, sums and optimizer as they were."""
    learner = InSitu(map_pcn(mlp([8, 12, 3], seed=1).double(), "hopfield", BASE, 3), momentum, headroom=3)
    before = {name: array.cells.values for name, array in learner.arrays.items()}
    x, y = batches()[0]
    with pytest.raises(NotConverged):
        learner.step(x, y, CrossEntropy(), beta=0.1, max_iterations=1, tolerance=1e-12, solver="euler")
    assert all(torch.equal(array.cells.values, before[name]) for name, array in learner.arrays.items())
    assert learner.pulses == 0
    with pytest.raises(InputError, match="headroom"):
        InSitu(learner.mapped, momentum, headroom=0.5)
    with pytest.raises(InputError, match="headroom must be a finite number of 1 or more, but was '4'"):
        InSitu(learner.mapped, momentum, headroom="4")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"mapped must be a mapped network, .* but was PredictiveCodingNetwork"):
        InSitu(mlp([8, 12, 3]), momentum)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"optimizer must be a function .* but was SGD"):
        InSitu(learner.mapped, torch.optim.SGD(learner.mapped.system.parameters()))  # type: ignore[arg-type]


@pytest.mark.parametrize("leaks", ["dummy", "fixed"])
def test_leaks_are_set_for_what_is_written_first(leaks: str) -> None:
    """With headroom, arrays are written at another scale, and leaks for that: ideal cells then have loads of one,
    and gradients as with trimmed leaks, until cells that have moved load their nodes."""
    net = mlp([8, 12, 3], seed=1).double()
    (x, y), *_ = batches()
    learners = [
        InSitu(map_pcn(net, "resistive", DeviceModel(leaks=which), calibration=x), momentum, headroom=4)
        for which in (leaks, "trimmed")
    ]
    system = learners[0].mapped.system
    for load in (*system.load_h, *system.load_u):
        torch.testing.assert_close(load, torch.ones_like(load))
    steps = [learner.mapped.estimate(x, y, CrossEntropy(), beta=0.05)[0] for learner in learners]
    for name, g in steps[0].items():
        torch.testing.assert_close(g, steps[1][name], atol=1e-9, rtol=0)
    learners[0].step(x, y, CrossEntropy(), beta=0.05)
    assert max(float((load - 1).abs().max()) for load in system.load_h) > 1e-4


def test_fidelity_is_that_of_the_cells_as_they_are() -> None:
    """After learning it is another network: what was measured before must not be told of it."""
    net = mlp([8, 12, 3], seed=1).double()
    (x, y), *_ = batches()
    learner = InSitu(map_pcn(net, "hopfield", calibration=x), momentum, headroom=4)
    assert learner.mapped.fidelity.free_state_error < 1e-12
    before = learner.mapped.fidelity.layers[0].power
    for _ in range(5):
        learner.step(x, y, CrossEntropy(), beta=0.05)
    off = (learner.mapped.perturbed(x) - net(x)).abs().max() / net(x).abs().max()
    found = learner.mapped.fidelity
    assert found.free_state_error == pytest.approx(float(off.detach()), rel=1e-9)
    assert found.layers[0].power != before


@pytest.mark.slow
def test_learning_goes_around_defects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of the cells stuck, gains 60 % apart: writing a trained network misses more than a fifth of the
    digits, learning on the same instance far fewer. An interrupted run goes on to the same numbers, other
    devices are refused, and the figure finds the base among each field's values."""
    out = tmp_path / "r.h5"
    options: dict[str, Any] = {
        "substrates": ["hopfield", "oscillator"],
        "device": BASE.replace(stuck_off=0.3, copies="shared"),  # separate cells: docs/findings.md
        "sweeps": {"device_mismatch": [0.6]},
        "overrides": [*SMALL, "optimizer.lr=0.1"],
        "out": out,
    }
    compare, calls = in_situ.Lesson.compare, []

    def stopped(*args: Any, **kwargs: Any) -> dict[str, float]:
        calls.append(args[2])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return compare(*args, **kwargs)

    monkeypatch.setattr(in_situ.Lesson, "compare", stopped)
    with pytest.raises(LearningInterrupted, match=r"2 of 4 .*resume=True"):
        learn_in_situ("pcn-digits", progress=SILENT, **options)
    there = open_in_situ(out).values["learned"]
    with pytest.raises(InputError, match="resume=True"):
        learn_in_situ("pcn-digits", **options)
    with pytest.raises(InputError, match="to resume"):
        learn_in_situ("pcn-digits", resume=True, **{**options, "device": BASE})
    table = learn_in_situ("pcn-digits", resume=True, **options)
    assert calls == ["hopfield", "hopfield", "oscillator", "oscillator", "oscillator"]
    known = np.isfinite(there)
    assert known.sum() == 2
    assert np.array_equal(table.values["learned"][known], there[known])
    for row in table.rows():
        assert row["ideal"] < 0.15, row
        assert row["mapped"] > 0.2, row
        assert row["learned"] < 0.6 * row["mapped"], row
        assert row["unconverged"] == row["skipped"] == 0
    data = in_situ_errors(table)
    assert data.values["device_mismatch"].tolist() == [0.1, 0.6]
    assert np.array_equal(data.learned["device_mismatch"][0], table.values["learned"][:2])
    ax = draw_in_situ(data).axes[0]
    points = [line.get_ydata()[0] for line in ax.get_lines() if line.get_label() == "Hopfield circuit"]
    assert points == [pytest.approx(100 * table.values["learned"][0, 0])]


def test_written_and_learned_are_on_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offsets, read noise, rails and ranges are relative to full scales: of a network with others, what is written
    and what learns would be compared on different devices."""
    seen = []

    def kept(*args: Any, **kwargs: Any) -> Any:
        seen.append(map_pcn(*args, **kwargs))
        return seen[-1]

    monkeypatch.setattr(in_situ, "map_pcn", kept)
    device = DeviceModel(amplifier_offset=0.01)
    table = learn_in_situ("pcn-digits", device=device, overrides=[*SMALL, "training.epochs=1"], headroom=3)
    assert [point for _, point in table.plan] == [in_situ.Point("base", None, "auto")]
    (written, learner) = (mapped.system for mapped in seen[-2:])
    assert written.full_scales == learner.full_scales
    assert written.full_scales != seen[0].system.full_scales  # those of the initial weights
    for a, b in zip(written.amplifiers_h, learner.amplifiers_h, strict=True):
        assert a.offset is b.offset is None or torch.equal(a.offset, b.offset)


def test_a_device_of_pulses_alone_is_one() -> None:
    """It errs in nothing but how it learns: taken for ideal, it would learn without a pulse."""
    table = learn_in_situ(
        "pcn-digits", device=DeviceModel(pulses=12), overrides=[*SMALL, "training.epochs=1"], headroom=3
    )
    (row,) = table.rows()
    assert row["field"] == "base"
    assert row["pulses"] == round(row["pulses"] * 2 * 1810) / (2 * 1810) > 0
    assert row["learned"] > row["ideal"]  # twelve steps a range are coarse
    assert row["mapped"] == row["ideal"]


def test_what_cannot_be_is_told_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule, a field that the substrate lacks, drift: one line, and no minute lost. Words can be swept too."""
    monkeypatch.setattr(in_situ.Lesson, "train", lambda *args: pytest.fail("trained first"))
    for options, message in (
        ({"resume": True}, "resume must come with out"),
        ({"rule": "eager"}, "rule must be one of accumulated, stochastic"),
        ({"side": "left"}, "side must be one of"),
        ({"headroom": 0.5}, "headroom"),
        ({"device": DeviceModel(detuning=0.1)}, "detuning must be left out"),
        ({"device": DeviceModel(temperature=300.0), "overrides": [*SMALL, "ep.scheme=positive"]}, "scheme must be"),
        ({"overrides": [*SMALL, "ep.scheme=holomorphic:4"]}, "scheme must not be 'holomorphic:4'"),
        ({"device": DeviceModel(pulse_noise=0.1)}, "pulse_noise must come with pulses or levels"),
        ({"device": DeviceModel(drift_time=100.0, drift_exponent=0.1)}, "drift_time must be 0 while cells learn"),
    ):
        with pytest.raises(InputError, match=message):
            learn_in_situ("pcn-digits", **{"overrides": SMALL, **options})  # type: ignore[arg-type]
    plan = tuple(("resistive", in_situ.Point("leaks", word, "auto")) for word in ("dummy", "fixed"))
    values = {name: np.zeros((2, 1)) for name in in_situ.QUANTITIES}
    _, rows = in_situ.InSituTable(plan, values, {}).shown()
    assert [row[1] for row in rows] == ["leaks dummy", "leaks fixed"]


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")  # the optimizer has made no step
def test_phases_settle_as_the_config_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gates, limits and the solver of a config hold on the device as in `train`. Dropped in silence, live gates
    were held ones, and one example without a state cost its whole batch. Where none has a state, no cell moves,
    whatever the optimizer remembers."""
    seen: list[dict[str, Any]] = []
    step = InSitu.step

    def kept(self: InSitu, *args: Any, **kwargs: Any) -> Any:
        seen.append(kwargs)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(InSitu, "step", kept)
    sets = [*SMALL, "training.epochs=1", "ep.gates=live", "ep.max_iterations=2"]
    (row,) = learn_in_situ("pcn-digits", substrates=["resistive"], device=BASE, overrides=sets).rows()
    assert {"gates": "live", "max_iterations": 2}.items() <= seen[0].items()
    assert row["skipped"] == 1
    assert row["pulses"] == row["refreshes"] == 0
    assert row["unconverged"] == 2 * 360
    monkeypatch.setattr(in_situ.Lesson, "train", lambda *args: pytest.fail("trained first"))
    must = {
        "ep.estimator=backprop": "ep.estimator must be 'ep'",
        "ep.solver=anderson": "solver of HopfieldPairs must",
    }
    for wrong, message in must.items():
        with pytest.raises(InputError, match=message):
            learn_in_situ("pcn-digits", overrides=[*SMALL, wrong])


@pytest.mark.full
def test_an_instance_that_cannot_be_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rails whose gain suffices for the initial weights, and not for the trained ones: told at the end, and what
    else was measured is there."""
    sweeps = {"amplifier_gain_limit": [25.0, 1000.0]}
    options: dict[str, Any] = {"substrates": ["resistive"], "sweeps": sweeps, "out": tmp_path / "r.h5"}
    table = learn_in_situ("pcn-digits", overrides=SMALL, headroom=2, **options)
    (reason,) = table.refused.values()
    assert "resistive, amplifier_gain_limit 25.0, seed 0: Layer" in reason
    assert "beyond amplifier_gain_limit = 25" in reason
    assert [np.isfinite(v) for v in table.values["learned"][:, 0]] == [False, True]
    assert table.shown()[1][0][4] == ""
    # It is kept, is not tried again, and leaves a gap in the figure.
    assert open_in_situ(options["out"]).refused == table.refused
    monkeypatch.setattr(in_situ.Lesson, "train", lambda *args: pytest.fail("tried again"))
    again = learn_in_situ("pcn-digits", overrides=SMALL, headroom=2, resume=True, **options)
    assert again.refused == table.refused
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_in_situ(in_situ_errors(again))
    sweeps["amplifier_gain_limit"] = [3.0]
    with pytest.raises(InputError, match=r"beyond amplifier_gain_limit = 3\. Here amplifier_gain_limit is 3"):
        learn_in_situ("pcn-digits", overrides=SMALL, substrates=["resistive"], sweeps=sweeps)


def test_learners_start_from_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two learners in turn on one mapped network have the same range: headroom is over the network's weights."""
    mapped = map_pcn(mlp([8, 12, 3], seed=1).double(), "hopfield", DeviceModel(levels=64))
    first, second = (InSitu(mapped, momentum, headroom=3) for _ in range(2))
    for name, array in first.arrays.items():
        assert second.arrays[name].scale == array.scale


@pytest.mark.full
def test_command_tells_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`in-situ` prints the row that its JSON holds; a system that is no such network is refused in one line."""
    file = tmp_path / "f.json"
    sets = [part for text in [*SMALL[:2], "training.epochs=1"] for part in ("--set", text)]
    with pytest.raises(SystemExit) as ended:
        main(["in-situ", "pcn-digits", *sets, "--preset", "fefet", "--rule", "stochastic", "--json", str(file)])
    assert ended.value.code == 0
    (row,) = json.loads(file.read_text())["rows"]
    assert f"{row['learned']:.2%}" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(["in-situ", "langevin-hopfield-digits"])
    assert ended.value.code == 2
    assert "predictive coding" in capsys.readouterr().err
