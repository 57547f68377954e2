"""Networks on the resistive substrate part by part: against the layers, node by node, and against ngspice."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from hardware_models import DeviceModel, map_pcn
from hardware_models.devices.crossbars import programmed
from hardware_models.mapping import board
from hardware_models.mapping.mapped import Mapped
from hardware_models.mapping.resistive_parts import PairsCircuit
from hardware_models.netlists.netlist import load_netlist
from hardware_models.spice.mapped import find_pairs
from hardware_models.spice.phases import ngspice_phases
from physics_ep import Nudge, SquaredError, relax
from physics_ep.cli import main
from physics_ep.errors import InputError
from physics_ep.maps import ConvLink, DenseLink
from physics_ep.predictive_coding import PredictiveCodingNetwork, vgg5
from physics_ep.predictive_coding.layers import PredictiveLayer
from physics_ep.storage.run_file import Run, write_run
from tests.support.pcn import biased, dense, examples
from validation.gradients import total_error
from validation.oracles import backprop_gradient

needs_ngspice = pytest.mark.skipif(shutil.which("ngspice") is None, reason="ngspice is not installed")
POOR = {"copies": "shared", "programming_noise": 0.05, "device_mismatch": 0.1, "stuck_on": 0.02}
OWN = {"programming_noise": 0.005, "device_mismatch": 0.01}
"""Cells with errors of their own, small enough that ReLUs keep a free state."""
COPIES = {"copy_mismatch_h": 0.02, "copy_mismatch_u": 0.03, "copy_mismatch_transpose": 0.01}
REAL = {"diode_current": 1e-6, "diode_ideality": 1.2}
SPREAD = {**REAL, "diode_mismatch": 0.2, "ideality_mismatch": 0.05}
BUFFERS = {"amplifier_gain": 0.05, "amplifier_offset": 0.02, "amplifier_saturation": 0.6}


def small(activation: str = "relu") -> PredictiveCodingNetwork:
    return dense(3, activation, width=6, n_in=5)


def batch(net: PredictiveCodingNetwork, size: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs so large that some clips rest at either bound, and targets."""
    x = 3 * examples(net.shapes[0], size)[0]
    y = torch.randn(size, *net.shapes[-1], dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return x, y


def drawn(
    net: PredictiveCodingNetwork, **fields: object
) -> tuple[Mapped, PairsCircuit, torch.Tensor, torch.Tensor]:
    x, y = batch(net)
    mapped = map_pcn(net, "resistive", DeviceModel(**fields), seed=1, calibration=x, gates="live")
    return mapped, mapped.to_circuit(), x, y


def disagreement(mapped: Mapped, form: PairsCircuit, x: torch.Tensor, y: torch.Tensor, beta: float) -> float:
    """Largest difference of the units' voltages in a phase, as parts and as layers."""
    free = relax(mapped.system, x, tolerance=1e-12).require()
    state = free
    if beta:
        nudge = Nudge(SquaredError(), y, beta)
        state = relax(mapped.system, x, nudge, start=free.state, tolerance=1e-11).require()
    parts = form.solve(x, y, beta)
    assert parts.converged.all()
    h, u = form.node_voltages(state.state)
    return max(
        float(np.abs(parts.voltages[:, columns] - volts).max())
        for columns, volts in zip((*form.h, *form.u), (*h, *u), strict=True)
    )


@pytest.mark.parametrize(
    ("activation", "fields"),
    [
        ("relu", {}),
        ("linear", {}),
        ("hard_sigmoid", {}),
        ("hard_tanh", {"voltage": 0.7}),
        ("diode", {}),
        ("relu", POOR),
        ("relu", {**POOR, "leaks": "dummy"}),
        ("relu", {**POOR, "leaks": "fixed"}),
        ("relu", {**POOR, **COPIES}),
        ("relu", {**POOR, **COPIES, "leaks": "dummy"}),
        ("relu", {**POOR, **COPIES, "leaks": "fixed"}),
        ("relu", {**OWN, "leaks": "fixed"}),
        ("relu", {**OWN, **COPIES}),
        ("relu", REAL),
        ("relu", SPREAD),
        pytest.param("diode", {**POOR, **REAL, "leaks": "dummy"}, marks=pytest.mark.full),
        pytest.param("diode", {**POOR, "leaks": "fixed"}, marks=pytest.mark.full),
        pytest.param("diode", {**POOR, **SPREAD, **COPIES, "leaks": "fixed"}, marks=pytest.mark.full),
        ("relu", {**BUFFERS, **POOR}),
        pytest.param("relu", {**BUFFERS, **SPREAD, "dac_bits": 4}, marks=pytest.mark.full),
        ("relu", {"g_min": 0.0, "levels": 8}),
        ("relu", {"programming_noise": 0.02, "feedback_gain": 0.3}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value) or "ideal",
)
def test_layers_and_parts_agree(activation: str, fields: dict[str, object]) -> None:
    """Every cell, leak, rail, diode and buffer as a part of its own, by modified nodal analysis: a free and a
    nudged phase within 1e-11 V of the layers, two ways to write Kirchhoff's law. Breaks if a load, a gain, a copy,
    the current of a diode or a buffer is other in the equations than in the circuit.
    """
    found = drawn(small(activation), **fields)
    for beta in (0.0, 0.05):
        assert disagreement(*found, beta) < 1e-11
    if activation.startswith("hard"):
        mapped, form, x, _ = found
        units = form.solve(x).voltages[:, form.h[0]] / form.volts[1]
        for bound in mapped.system.stack[0].activation.bounds:
            assert (np.abs(units - bound) < 1e-12).any()


def images() -> PredictiveCodingNetwork:
    """Average pooling, a stride, a skip from an image to the outputs."""
    generator = torch.Generator().manual_seed(2)
    links = [ConvLink((2, 5, 6), 3, pooling="average"), ConvLink((3, 2, 3), 2, stride=2), DenseLink((2, 1, 2), 4)]
    skip = (0, DenseLink((3, 2, 3), 4), 0.5)
    layers = [
        PredictiveLayer(link, act, 1.0, generator, skip=skip if link is links[2] else None)
        for link, act in zip(links, ("relu", "relu", "linear"), strict=True)
    ]
    return biased(PredictiveCodingNetwork(layers, "squared").double())


@pytest.mark.parametrize("fields", [{}, {**POOR, **COPIES, "leaks": "fixed"}], ids=["ideal", "poor"])
def test_convolutions_and_skips_as_parts(fields: dict[str, object]) -> None:
    """A cell for each pixel, padding and pooling counted, rails of their own for the skip: the same phases, and the
    gradient from the nodes' voltages that of the layers, by the network's names."""
    mapped, form, x, y = drawn(images(), **fields)
    assert disagreement(mapped, form, x, y, -0.03) < 1e-11
    plus, minus = (form.solve(x, y, b).voltages for b in (0.03, -0.03))
    gradient = form.gradient(x, plus, minus, 0.03)
    wanted, _ = mapped.estimate(x, y, SquaredError(), beta=0.03, tolerance=1e-11, method="energy")
    assert gradient.keys() == wanted.keys()
    assert {name: g.shape for name, g in gradient.items()} == {name: g.shape for name, g in wanted.items()}
    assert total_error(gradient, wanted) < 1e-9


@pytest.mark.parametrize("leaks", ["trimmed", "dummy", "fixed"])
def test_conductances_at_each_node(leaks: str) -> None:
    """Summed part by part, a unit's node has G where leaks are trimmed, else G over its load; h and u differ only
    where they are fixed. Breaks if a leak completes a node to something else than what the layers divide by."""
    mapped, form, _, _ = drawn(small(), **POOR, **COPIES, leaks=leaks)
    resistors = form.circuit.parts.group("resistor")
    sums = np.zeros(len(form.circuit.parts.nodes))
    for column in (0, 1):
        np.add.at(sums, resistors.nodes[:, column], resistors.values[:, 0])
    system = mapped.system
    assert (resistors.values > 0).all()
    for k, total in enumerate(system.total):
        for nodes, load in ((form.h[k], system.load_h[k]), (form.u[k], system.load_u[k])):
            wanted = total if load is None else total / load.numpy()
            np.testing.assert_allclose(sums[nodes], wanted, rtol=1e-12)
    apart = np.abs(sums[form.h[0]] / sums[form.u[0]] - 1).max()
    assert apart < 1e-12 if leaks == "trimmed" else apart > 1e-3


def test_written_cells_are_drawn() -> None:
    """After `write` the circuit is that of the new cells, and real diodes stand beside the new conductances."""
    net, other = small("diode"), dense(3, "diode", width=6, n_in=5, seed=4)
    for leaks in ("trimmed", "dummy"):
        mapped, before, x, y = drawn(net, leaks=leaks, **SPREAD)
        wanted, cells = dict(other.named_parameters()), {}
        for name, scale in mapped.system.scales.items():
            span = scale * (mapped.device.g_max - mapped.device.g_min)
            cells[name] = programmed(wanted[name].clamp(-span, span), mapped.device, 7, name, span)
        mapped.system.write(cells)
        after = mapped.to_circuit()
        assert disagreement(mapped, after, x, y, 0.0) < 1e-11
        assert float(np.abs(after.solve(x).voltages - before.solve(x).voltages).max()) > 1e-3


def test_real_diodes_are_the_devices() -> None:
    """Is and n of the parts are amperes and numbers of the device model, whatever the layer's full scale and G."""
    _, form, _, _ = drawn(small(), **REAL, **POOR, leaks="fixed")
    diodes = form.circuit.parts.group("diode")
    assert len(diodes) == 24
    np.testing.assert_allclose(diodes.values, [[1e-6, 1.2]] * 24, rtol=1e-12)
    spread = drawn(small(), **SPREAD)[1].circuit.parts.group("diode").values
    assert 0.1 < float(np.log(spread[:, 0] / 1e-6).std()) < 0.3
    assert 0.02 < float((spread[:, 1] / 1.2).std()) < 0.08


@needs_ngspice
@pytest.mark.parametrize(
    ("activation", "fields"),
    [
        ("relu", {}),
        ("hard_tanh", {}),
        ("relu", REAL),
        ("relu", {**SPREAD, **POOR, **COPIES, "leaks": "fixed"}),
        ("relu", BUFFERS),
    ],
    ids=["ideal", "clips", "real", "poor", "buffers"],
)
def test_ngspice_finds_the_same_phases_and_gradient(activation: str, fields: dict[str, object]) -> None:
    """Three layers in another simulator, diodes ideal (B sources) and real: all nodes of the free phase and both
    nudged ones within 1e-11 V of ours, EP's gradient from ngspice's voltages that of the layers; with equal units
    it is the gradient of backprop."""
    mapped, form, x, y = drawn(small(activation), **fields)
    beta = 3e-4
    theirs = ngspice_phases(
        form.circuit.parts, form.circuit.output_names, form.sources(x), form.targets(y), form.siemens(beta)
    )
    for table, b in zip(theirs, (0.0, beta, -beta), strict=True):
        found = form.solve(x, y, b)
        assert found.converged.all()
        assert float(np.abs(found.voltages - table).max()) < 1e-11
        largest = float(np.abs(found.voltages[:, [*form.h[0], *form.h[1]]]).max())
        assert largest > 0.02
    gradient = form.gradient(x, theirs[1], theirs[2], beta)
    wanted, _ = mapped.estimate(x, y, SquaredError(), beta=beta, tolerance=1e-11, method="energy")
    assert total_error(gradient, wanted) < 1e-8
    exact = total_error(gradient, backprop_gradient(mapped.perturbed, x, y, SquaredError()))
    assert (exact < 1e-4) is mapped.system.shared


def test_many_unknowns_need_no_continuation() -> None:
    """A batch of more than a hundred unknowns with ideal diodes: Newton's method alone, some six steps. Breaks if
    strided rows of a batch's Jacobians are taken for singular matrices, after which leaks were followed for 90."""
    _, form, x, _ = drawn(small())
    found = form.solve(x)
    assert found.converged.all()
    assert found.iterations <= 10


def test_refusals(monkeypatch) -> None:
    """What a list of constant parts cannot be is said in one line."""
    for name in ("conductance_noise", "temperature", "wire_resistance", "driver_resistance", "selector_resistance"):
        fields = {name: 300.0 if name == "temperature" else 0.01}
        with pytest.raises(InputError, match=f"Argument {name} must be 0 for a circuit of constant parts"):
            map_pcn(small(), "resistive", DeviceModel(**fields)).to_circuit()
    with pytest.raises(InputError, match="Argument substrate must be 'resistive' or 'hopfield'"):
        map_pcn(small(), "oscillator").to_circuit()
    pooled = vgg5(10, (3, 16, 16), width=1 / 32).double()
    with pytest.raises(InputError, match="Layer 2 has a max pooling"):
        map_pcn(pooled, "resistive").to_circuit()
    monkeypatch.setattr(board, "KEPT", 20)
    with pytest.raises(InputError, match="too large to be written part by part"):
        map_pcn(small(), "resistive").to_circuit()


def run(arguments: list[str]) -> int:
    """Exit status of a command."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code


TOML = """[system]
name = "pcn"
sizes = [5, 8, 6, 4]
activation = "relu"
"""


@needs_ngspice
def test_commands(tmp_path: Path, capsys) -> None:
    """`spice check --substrate` compares parts, layers and ngspice; `spice export` writes what ngspice runs, whose
    outputs are those of the network."""
    config, device, out = tmp_path / "net.toml", tmp_path / "device.json", tmp_path / "found.json"
    config.write_text(TOML)
    DeviceModel(**POOR, **SPREAD).to_json(device)
    common = ["--substrate", "resistive", "--device-model", str(device)]
    assert run(["spice", "check", str(config), *common, "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    assert len(found["rows"]) == 6
    assert found["worst_difference"] < 1e-11
    assert max(found["gradient_error"].values()) < 1e-8
    assert set(found["gradient_error"]) == {f"layers.{k}.{n}" for k in range(3) for n in ("weight", "bias")}
    net = tmp_path / "net.cir"
    assert run(["spice", "export", str(config), str(net), "--substrate", "resistive"]) == 0
    assert (tmp_path / "net_minus.cir").is_file()
    again = load_netlist(net)
    assert again.outputs == ("h3_1", "h3_2", "h3_3", "h3_4")
    done = subprocess.run(["ngspice", "-b", str(net)], capture_output=True, text=True, cwd=tmp_path, check=False)
    said = {n: float(v) for n, v in re.findall(r"^\s*(h3_\d)\s+(\S+)\s*$", done.stdout, flags=re.MULTILINE)}
    assert len(said) == 4
    subject = find_pairs(str(config), "resistive", DeviceModel(), batch=1)
    h, _ = subject.form.node_voltages(relax(subject.mapped.system, subject.x).require().state)
    for name, volts in zip(again.outputs, h[-1][0], strict=True):
        assert said[name] == pytest.approx(float(volts), abs=1e-6)
    capsys.readouterr()
    for arguments, message in (
        (["check", "pcn"], "or come with --substrate resistive or hopfield, but was 'pcn'"),
        (["check", "pcn", "--substrate", "oscillator"], "substrate must be 'resistive' or 'hopfield'"),
        (["check", "pcn", "--substrate", "resistiv"], "Did you mean 'resistive'"),
        (["check", "resistive", "--substrate", "resistive"], "be a predictive coding network where there is"),
        (["check", "learning", "--preset", "pcm"], "preset must come with --substrate"),
    ):
        assert run(["spice", *arguments]) == 2
        assert message in " ".join(capsys.readouterr().err.split())


def test_weights_of_a_run_are_drawn_in_float64(tmp_path: Path) -> None:
    """Runs hold float32 weights as a rule: the circuit is of these very weights, in float64 as its inputs are."""
    trained = dense(2, "relu", width=6, n_in=5, seed=9).float()
    write_run(tmp_path / "run.h5", Run({"kind": "training"}, state_dict=trained.state_dict()))
    config = tmp_path / "net.toml"
    config.write_text('[system]\nname = "pcn"\nsizes = [5, 6, 10]\nactivation = "relu"\n', encoding="utf-8")
    subject = find_pairs(str(config), "resistive", DeviceModel(), weights=tmp_path / "run.h5")
    for name, p in subject.mapped.network.named_parameters():
        assert torch.equal(p, dict(trained.named_parameters())[name].double())
    assert disagreement(subject.mapped, subject.form, subject.x, subject.y, 0.0) < 1e-11
