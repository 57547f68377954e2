"""What an inference costs. If these fail, a table tells watts and joules that the network does not take, or names a
number where the model has no volts and seconds."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hardware_models import DeviceModel, HopfieldNetwork, OscillatorNetwork, ResistiveNetwork
from hardware_models.devices.crossbars import largest_size, programmed
from hardware_models.inference import cost, inference_cost
from hardware_models.inference.examples import examples_shown
from physics_ep import Callback, cli, load_system, relax, simulate, train
from physics_ep.errors import InputError
from physics_ep.runs.preparation import examples_of, on_devices, subject_of

X = torch.rand(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.arange(6) % 3


@pytest.mark.full
def test_a_resistive_network_has_volts_and_seconds_of_its_own() -> None:
    """Watts are those of every resistor of its netlist, and the time is that of its course."""
    network = ResistiveNetwork([5, 7, 3], seed=1).double()
    found = inference_cost(network, X, Y)
    circuit, state = network.to_circuit(), relax(network, X).require().state
    volts = circuit.node_voltages(circuit.operating_point(network.circuit_inputs(X)))
    resistors = circuit.parts.groups["resistor"]
    nodes = [volts.get(name, torch.zeros(len(X), dtype=torch.float64)) for name in circuit.parts.nodes]
    heat = sum(
        float(g) * float(((nodes[a] - nodes[b]) ** 2).mean())
        for (a, b), (g,) in zip(resistors.nodes, resistors.values, strict=True)
    )
    buffers = 10 * DeviceModel().buffer_power
    assert found.watts == pytest.approx(heat + buffers, rel=1e-6)
    assert found.joules == pytest.approx(found.watts * found.seconds, rel=1e-9)
    assert float(network.cell_power(state, X).mean()) == pytest.approx(heat, rel=1e-6)
    course = simulate(network, X[:4], duration=2 * found.seconds)
    late = course.time > found.seconds * 1.01
    assert float((course.residual[late] / course.residual.amax(0)).max()) <= 1.01e-6
    assert 0 <= found.error <= 1


def test_power_tells_whom_it_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mean over the examples that have come to rest is taken for one over all."""
    network = ResistiveNetwork([5, 3], seed=1).double()

    def lost(*words: Any, **options: Any) -> Any:
        found = relax(*words, **options)
        return replace(found, residual=found.residual.where(torch.arange(len(found.residual)) != 2, math.inf))

    whole = network.cell_power(relax(network, X).require().state, X)
    plain = inference_cost(network, X)
    assert "mean of 6 examples: " in plain.words["power"]
    monkeypatch.setattr(cost, "relax", lost)
    found = inference_cost(network, X)
    assert "mean of 5 examples (1 without equilibrium left out): " in found.words["power"]
    assert found.watts - plain.watts == pytest.approx(float(whole[torch.arange(6) != 2].mean() - whole.mean()))


def drawn(network: HopfieldNetwork, name: str) -> torch.Tensor:
    """G+ + G- of the cells of a parameter, from the weights that were asked for: those of the same network without
    a device."""
    plain = HopfieldNetwork([5, 4, 3], seed=1).double()
    asked, span = plain.get_parameter(name), largest_size(plain.get_parameter(f"{name.rpartition('.')[0]}.weight"))
    assert network.device_model is not None
    cells = programmed(asked, network.device_model, 0, name, max(span, largest_size(asked)))
    return cells.plus + cells.minus


def test_a_course_without_numbers_is_not_at_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN is not above a millionth of the peak either: without this, a course that diverged has a time to rest."""
    residual = torch.tensor([[1.0, 1.0], [1e-7, math.nan]])
    course = type("Course", (), {"residual": residual, "time": torch.arange(2.0)})
    monkeypatch.setattr(cost, "simulate", lambda *_, **__: course)
    found = inference_cost(HopfieldNetwork([3, 4, 2], device="reram", seed=1), torch.rand(2, 3))
    assert math.isnan(found.seconds)
    assert "not at rest" in found.words["time to rest"]


def test_a_hopfield_network_has_them_by_its_devices() -> None:
    """Every cell of a pair dissipates V^2 G from either side, as it was drawn: two that are stuck on make a weight
    of 0 and the most heat; a time constant is the device's."""
    device = DeviceModel(levels=16, device_mismatch=0.05, time_constant=2e-7, g_min=1e-6, g_max=1e-4, stuck_on=0.2)
    network = HopfieldNetwork([5, 4, 3], seed=1, device=device).double()
    found = inference_cost(network, X, Y)
    state = relax(network, X).require().state
    blocks = [X / X.max(), *(s / full for s, full in zip(state, network.full_scales, strict=True))]
    heat = 0.0
    for k, layer in enumerate(network.layers):
        pairs = drawn(network, f"layers.{k}.weight")
        for i in range(layer.weight.shape[0]):
            for j in range(layer.weight.shape[1]):
                g = float(pairs[i, j])
                ways = (blocks[k][:, j] ** 2).mean() + (k > 0) * (blocks[k + 1][:, i] ** 2).mean()
                heat += g * device.voltage**2 * float(ways)
        if f"layers.{k}.bias" in network.device_scales:
            heat += float(drawn(network, f"layers.{k}.bias").sum()) * device.voltage**2
    others = 4 * device.amplifier_power + 12 * device.buffer_power
    assert found.watts == pytest.approx(heat + others, rel=1e-6)
    course = simulate(HopfieldNetwork([5, 4, 3], seed=1, device=device).double(), X[:4], stop_when_settled=1e-6)
    assert found.seconds == pytest.approx(2e-7 * float(course.time[-1]), rel=0.05)
    assert "the device's" in found.words["time to rest"]
    # Powers that nobody gave are not the device's; 12 buffers of 5 inputs are explained.
    assert "4 amplifiers of 1e-05 W each, assumed (default)" in found.words["power"]
    assert "12 buffers (one an input and a unit, at the lines of arrays)" in found.words["power"]
    assert network.cells_told == (
        "levels 16, device_mismatch 0.05, stuck_on 0.2, time_constant 2e-07; learns by pulses (accumulated); "
        "instance 0"
    )
    given = HopfieldNetwork([5, 4, 3], seed=1, device=replace(device, buffer_power=2e-6, read_noise=0.01))
    power = inference_cost(given, X, Y).words["power"]
    assert "1e-05 W each, assumed (default)" in power
    assert "2e-06 W each, by the device" in power
    assert "learns by pulses (accumulated); instance 0; full scales of readings 1, 1" in given.cells_told
    assert HopfieldNetwork([5, 4, 3]).cells_told == ""


def test_models_without_units_say_so() -> None:
    for system in (HopfieldNetwork([5, 4, 3], seed=1), OscillatorNetwork([5, 4, 3], seed=1)):
        found = inference_cost(system, X, Y)
        assert math.isnan(found.seconds)
        assert math.isnan(found.watts)
        assert math.isnan(found.joules)
        assert found.words["power"].startswith(
            f"because a {type(system).__name__} has volts and seconds by its devi"
        )
        assert 0 <= found.error <= 1
    on_cells = OscillatorNetwork([5, 4, 3], seed=1, device=DeviceModel(oscillator_power=1e-6, time_constant=1e-9))
    assert inference_cost(on_cells, X, Y).watts == pytest.approx(7e-6)


@pytest.mark.full
def test_the_command_takes_a_table_and_a_trained_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run without devices is put on some by --preset."""
    rows = [
        ",".join(map(repr, [*row.tolist(), int(y)])) for row, y in zip(X.repeat(5, 1), Y.repeat(5), strict=True)
    ]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["a,b,c,d,e,kind", *rows]), encoding="utf-8")
    config = tmp_path / "own.toml"
    config.write_text(
        f'system = {{name = "hopfield"}}\ndata = {{name = "csv", file = "{table}"}}\n', encoding="utf-8"
    )

    def run(*words: str) -> str:
        with pytest.raises(SystemExit) as ended:
            cli.main(list(words))
        assert not ended.value.code
        return " ".join(capsys.readouterr().out.split())

    trained, out = str(tmp_path / "run.h5"), tmp_path / "cost.json"
    brief = ("--set", "training.epochs=1")
    assert "cells:" not in run("train", str(config), *brief, "--out", trained)
    cells = "cells: levels 16, device_mismatch 0.05; learns by pulses (accumulated); instance 0"
    poor = ("--set", "system.device.levels=16", "--set", "system.device.device_mismatch=0.05")
    assert cells in run("train", str(config), *brief, *poor, "--out", str(tmp_path / "poor.h5"))
    assert cells in run("inference", str(tmp_path / "poor.h5"))
    for asked in ({"preset": "reram"}, {"device_seed": 3}):
        with pytest.raises(InputError, match="whose weights are in the cells of devices already"):
            on_devices(subject_of(tmp_path / "poor.h5"), **asked)
    assert "not known because a HopfieldNetwork has volts and seconds by its devices" in run("inference", trained)
    told = run("inference", trained, "--preset", "reram", "--json", str(out))
    assert "time to rest" in told
    found = json.loads(out.read_text(encoding="utf-8"))
    rows = found["rows"]
    assert rows["cells"] > 0
    at_once = rows["reads"] + rows["converters"]
    assert found["joules"] == pytest.approx(found["watts"] * found["seconds"] + at_once, rel=1e-6)
    assert "of 6 test examples" in found["words"]["error"]


DIVIDER = """two resistors and what they charge
* inputs: V1
* outputs: b
V1 a 0 1
R1 a b 1k
R2 b 0 1k
{}
.end
"""


def test_circuits_tell_the_power_of_their_parts_and_no_seconds_that_they_do_not_have(tmp_path: Path) -> None:
    """Breaks if 1 pF at each node, 6.9 ns, passes for the microfarad of a netlist, 6.9 ms, or 0 V for a target."""
    path = tmp_path / "divider.cir"
    for line in ("C1 b 0 1u", "L1 c 0 1m\nR3 b c 1k", "X1 b 0 vteam_memristor", "R3 b 0 1g"):
        path.write_text(DIVIDER.format(line), encoding="utf-8")
        subject = subject_of(path)
        circuit = subject.system.build(seed=0)
        x, y = examples_shown(circuit, subject)
        assert y is None
        found = inference_cost(circuit, x, y)
        assert math.isnan(found.error)
        if line[0] == "R":
            assert found.seconds > 0
            assert "1e-12 F at each node, assumed" in found.words["time to rest"]
            assert found.joules == pytest.approx(found.seconds * found.watts)
        else:
            assert math.isnan(found.seconds)
            assert "moves by parts of its own" in found.words["time to rest"]
        given = {"C": 2e3, "L": 1.5e3, "X": 1e3 + 1 / (1e-3 + 1 / 8050), "R": 2e3}[line[0]]  # ohm, from V1
        assert found.watts == pytest.approx(1 / given, rel=1e-5)


@pytest.mark.full
def test_a_trained_netlist_is_measured_on_its_table(tmp_path: Path) -> None:
    """Its own sources, for which nobody gave a target, stand back behind the data that its config names, which are
    volts: breaks if a circuit learns from, and is judged by, columns that were scaled."""
    table, path = tmp_path / "table.csv", tmp_path / "divider.cir"
    table.write_text("u,w\n" + "".join(f"{k / 10},{k / 30}\n" for k in range(1, 11)), encoding="utf-8")
    path.write_text(DIVIDER.format(""), encoding="utf-8")
    config = tmp_path / "own.toml"
    config.write_text(
        f'system = {{name = "netlist", file = "{path}"}}\n'
        f'data = {{name = "csv", file = "{table}", target = ["w"]}}\nep = {{cost = "squared_error"}}\n',
        encoding="utf-8",
    )
    subject = subject_of(config)
    x, y = examples_shown(subject.system.build(seed=0), subject)
    assert y is not None
    assert len(x) == len(y) > 1
    assert 0 < float(x.min()) < float(x.max()) <= 1
    torch.testing.assert_close(y.double(), x.double() / 3, atol=1e-6, rtol=0)


def test_data_of_another_size_are_refused_by_name(tmp_path: Path) -> None:
    """Breaks if 360 digits of 64 numbers are taken for 720 examples of 32, with the labels of others."""
    config = tmp_path / "half.toml"
    config.write_text('system = {name = "hopfield", sizes = [32, 4, 10]}', encoding="utf-8")
    for name in (str(config), "vgg5"):
        subject = subject_of(name)
        with pytest.raises(InputError, match="must take the 64 inputs of an example of 'digits'"):
            examples_shown(subject.system.build(seed=0), subject)


def test_power_is_that_of_examples_with_an_equilibrium(monkeypatch: pytest.MonkeyPatch) -> None:
    """One example that does not settle takes neither the power of the others nor the table with it."""

    def not_followed(*_: Any) -> None:
        raise cost._UnknownError

    monkeypatch.setattr(cost, "_to_rest", not_followed)
    network = ResistiveNetwork([5, 7, 3], seed=1).double()
    whole = inference_cost(network, X[1:], Y[1:]).watts

    def first_fails(*given: Any, **options: Any) -> Any:
        found = relax(*given, **options)
        residual = found.residual.clone()
        residual[0] = torch.inf
        return replace(found, residual=residual)

    monkeypatch.setattr(cost, "relax", first_fails)
    assert inference_cost(network, X, Y).watts == pytest.approx(whole)


@pytest.mark.full
@pytest.mark.parametrize("name", ["hopfield", "resistive"])
def test_the_error_of_measured_targets_is_in_their_unit(name: str, tmp_path: Path) -> None:
    """Breaks if an inference of a regression tells no error, or one in volts: it is that of the training's end, of
    both kinds of outputs, from a run file and by the command."""
    draw = torch.Generator().manual_seed(2)
    x = torch.randn(60, 3, generator=draw)
    rows = [[*v, 40 + 9 * v[0] - 4 * v[1], 0.01 * v[2]] for v in x.tolist()]
    table, run, told = tmp_path / "own.csv", tmp_path / "run.h5", tmp_path / "told.json"
    table.write_text("a,b,c,heat,force\n" + "\n".join(",".join(map(str, row)) for row in rows), encoding="utf-8")
    data = {"name": "csv", "file": str(table), "target": ["heat", "force"]}
    result = train({"system": {"name": name}, "data": data}, overrides=["training.epochs=2"], out=run)
    found = inference_cost(load_system(run), *examples_of(run))
    assert found.rms == pytest.approx(result.test_rms, rel=1e-3)
    assert found.r2 == pytest.approx(result.test_r2, rel=1e-3, abs=1e-3)
    with pytest.raises(SystemExit) as ended:
        cli.main(["inference", str(run), "--json", str(told)])
    assert not ended.value.code
    assert json.loads(told.read_text())["rms"] == pytest.approx(found.rms, rel=1e-6)
    assert "file's unit" in found.words["error"]


class Cut(Callback):
    """Ends a training after its first epoch, as Ctrl-C does."""

    def on_epoch(self, *arguments: object, **named: object) -> None:
        raise KeyboardInterrupt


@pytest.mark.full
def test_a_training_that_was_cut_is_told_beside_its_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """If this fails, the error of an unfinished training is read as that of the network."""
    path, whole = tmp_path / "cut.h5", tmp_path / "whole.h5"
    few = ["data.train_examples=20", "training.epochs=3"]
    with pytest.raises(KeyboardInterrupt):
        train("hopfield-digits", out=path, overrides=few, callbacks=[Cut()])
    train("hopfield-digits", out=whole, overrides=[*few[:1], "training.epochs=1"])
    for run, told in ((path, True), (whole, False)):
        with pytest.raises(SystemExit, match="0"):
            cli.main(["inference", str(run), "--examples", "5"])
        said = " ".join(capsys.readouterr().out.split())
        assert ("not finished, the weights are those of epoch 1 of 3" in said) is told
