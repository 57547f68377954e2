"""Hopfield circuits part by part: against the layers, node by node, and against ngspice."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hardware_models import DeviceModel, map_pcn
from hardware_models.mapping.hopfield_parts import HopfieldCircuit
from hardware_models.mapping.mapped import Mapped
from hardware_models.spice.phases import ngspice_phases
from physics_ep import SquaredError
from physics_ep.errors import InputError
from physics_ep.predictive_coding import PredictiveCodingNetwork, mlp
from validation.gradients import total_error

from .test_resistive_parts import batch, disagreement, images, run, small

needs_ngspice = pytest.mark.skipif(shutil.which("ngspice") is None, reason="ngspice is not installed")
OWN: dict[str, Any] = {"programming_noise": 0.005, "device_mismatch": 0.01}
"""Cells with errors of their own."""
GROUNDS: dict[str, Any] = {"ground_resistance": 100.0, "ground_offset": 1e-3, "mirror_mismatch": 0.01}
AMPLIFIERS: dict[str, Any] = {"amplifier_gain": 0.05, "amplifier_offset": 0.02, "amplifier_saturation": 0.6}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("tanh", {**OWN, **GROUNDS, "transpose": "array"}),
    ("relu", {}),
    ("linear", OWN),
    ("hard_tanh", {"voltage": 0.7}),
    ("logistic", {}),
    ("relu", {**OWN, "transpose": "array"}),
    ("relu", {**OWN, **GROUNDS, "copy_mismatch_u": 0.02}),
    ("hard_sigmoid", {**OWN, **AMPLIFIERS}),
    ("relu", {"programming_noise": 0.03, "feedback_gain": 0.3, "transpose": "array", "copy_mismatch_u": 0.02}),
    ("tanh", {"drift_exponent": 0.05, "drift_spread": 0.02, "drift_time": 1e4, "levels": 64, "copies": "trimmed"}),
]


def cases(*chosen: int) -> list[Any]:
    """Cases by their numbers: all but the first belong to the longer tests."""
    marks = [pytest.mark.full]
    return [pytest.param(*CASES[n], id=f"{CASES[n][0]}-{n}", marks=marks if n else []) for n in chosen]


def drawn(
    net: PredictiveCodingNetwork, **fields: Any
) -> tuple[Mapped, HopfieldCircuit, torch.Tensor, torch.Tensor]:
    x, y = batch(net)
    mapped = map_pcn(net, "hopfield", DeviceModel(**fields), seed=1, calibration=x, gates="live")
    form = mapped.to_circuit()
    assert isinstance(form, HopfieldCircuit)
    return mapped, form, x, y


@pytest.mark.parametrize(("activation", "fields"), cases(*range(10)))
def test_layers_and_parts_agree(activation: str, fields: dict[str, Any]) -> None:
    """Each cell, ground, mirror and amplifier as a part of its own: a free and a nudged phase within 1e-11 V of the
    layers. If it fails, a gain, a copy, a ground or an amplifier is other in the equations than in the circuit."""
    found = drawn(small(activation), **fields)
    for beta in (0.0, 0.05):
        assert disagreement(*found, beta) < 1e-11


@pytest.mark.full
@pytest.mark.parametrize("fields", [{}, {**OWN, **GROUNDS}], ids=["ideal", "poor"])
def test_convolutions_and_skips_as_parts(fields: dict[str, Any]) -> None:
    """Lines of their own for each array, driven so that one ground adds their currents: phases and gradient."""
    mapped, form, x, y = drawn(images(), **fields)
    assert disagreement(mapped, form, x, y, -0.03) < 1e-11
    plus, minus = (form.solve(x, y, b).voltages for b in (0.03, -0.03))
    gradient = form.gradient(x, plus, minus, 0.03)
    wanted, _ = mapped.estimate(x, y, SquaredError(), beta=0.03, tolerance=1e-11, method="energy")
    assert gradient.keys() == wanted.keys()
    assert total_error(gradient, wanted) < 1e-9


@pytest.mark.parametrize(
    ("build", "fields"),
    [
        (small, {}),
        (small, {**OWN, **GROUNDS, "transpose": "array", "copy_mismatch_u": 0.02}),
        pytest.param(images, {}, marks=pytest.mark.full),
        pytest.param(images, {**OWN, **GROUNDS}, marks=pytest.mark.full),
    ],
    ids=["ideal", "poor", "images", "poor images"],
)
def test_lines_deliver_what_is_told(build: Any, fields: dict[str, Any]) -> None:
    """V I of every line of the circuit part by part, and the largest voltage at any cell. Large biases, and skips,
    have lines of another voltage than a full scale. If this fails, joules are another circuit's, or a limit of the
    cells is passed in silence."""
    net = build()
    with torch.no_grad():
        for layer in net.stack:
            layer.bias.mul_(20)
    mapped, form, x, _ = drawn(net, **fields)
    parts, names = form.circuit.parts.group("resistor"), np.array(form.circuit.parts.nodes)
    volts, (ends, lines) = form.solve(x).voltages, parts.nodes.T
    driven = np.array([name[0] in "wbst" for name in names[lines]])
    ends, lines, siemens = ends[driven], lines[driven], parts.values[driven, 0]
    across = volts[:, lines] - volts[:, ends]
    told = mapped.fidelity.layers
    delivered = float((siemens * volts[:, lines] * across).sum(1).mean())
    assert sum(row.power for row in told) == pytest.approx(delivered, rel=1e-9)
    if not fields:
        largest = max(row.line_voltage for row in told)
        assert largest > 1.1 * mapped.device.voltage
        assert np.abs(across).max() == pytest.approx(largest, rel=1e-9)


def test_each_array_has_draws_of_its_own() -> None:
    """One array for both ways has twice the same cells as parts; a second one errs by itself, cell by cell."""
    for transpose, equal in (("slots", True), ("array", False)):
        mapped, form, _, _ = drawn(small(), **OWN, transpose=transpose)
        parts, names = form.circuit.parts.group("resistor"), form.circuit.parts.nodes
        sums = np.zeros(len(names))
        np.add.at(sums, parts.nodes.ravel(), np.repeat(parts.values[:, 0], 2))
        lines = {n: s for n, s in zip(names, sums, strict=True) if n.startswith(("w2p", "tw2p"))}
        cells = mapped.system.cells_of("layers.1.weight", "h").plus
        columns = [lines[f"w2p{i}"] for i in range(1, 7)]
        np.testing.assert_allclose(columns, cells.sum(0).numpy(), rtol=1e-12)
        back = np.array([lines[f"tw2p{i}"] for i in range(1, 7)])
        assert np.allclose(back, cells.sum(1).numpy(), rtol=1e-12) is equal
        assert np.allclose(back, cells.sum(1).numpy(), rtol=0.05)


@needs_ngspice
@pytest.mark.parametrize(("activation", "fields"), cases(0, 1, 5, 6, 7, 8, 9))
def test_ngspice_finds_the_same_phases_and_gradient(activation: str, fields: dict[str, Any]) -> None:
    """Three layers in another simulator, each cell with a draw of its own: all nodes of the free phase and of both
    nudged ones within 1e-11 V of ours, and EP's gradient from ngspice's voltages that of the layers."""
    mapped, form, x, y = drawn(small(activation), **fields)
    beta = 3e-4
    theirs = ngspice_phases(
        form.circuit.parts, form.circuit.output_names, form.sources(x), form.targets(y), form.siemens(beta)
    )
    for table, b in zip(theirs, (0.0, beta, -beta), strict=True):
        found = form.solve(x, y, b)
        assert found.converged.all()
        assert float(np.abs(found.voltages - table).max()) < 1e-11
        assert float(np.abs(table[:, [*form.h[0], *form.h[1]]]).max()) > 0.02
    gradient = form.gradient(x, theirs[1], theirs[2], beta)
    wanted, _ = mapped.estimate(x, y, SquaredError(), beta=beta, tolerance=1e-11, method="energy")
    assert total_error(gradient, wanted) < 1e-8


def test_what_is_no_part_is_refused() -> None:
    """Each in one line."""
    with pytest.raises(InputError, match="Layer 1 has softplus units"):
        map_pcn(mlp([3, 4, 2], "softplus"), "hopfield").to_circuit()
    net = mlp([3, 4, 2])
    with torch.no_grad():
        net.stack[1].weight.zero_()
    with pytest.raises(InputError, match="Layer 2 has weights of 0 alone"):
        map_pcn(net, "hopfield").to_circuit()
    with pytest.raises(InputError, match="Argument wire_resistance must be 0"):
        map_pcn(mlp([3, 4, 2]), "hopfield", DeviceModel(wire_resistance=1.0)).to_circuit()
    with pytest.raises(InputError, match=r"Argument auto_zero must be 'off' for a list of parts"):
        map_pcn(mlp([3, 4, 2]), "hopfield", DeviceModel(auto_zero="on")).to_circuit()


@needs_ngspice
@pytest.mark.full
def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`spice check` compares parts, layers and ngspice; what `spice export` writes, ngspice runs."""
    config, out, net = (tmp_path / name for name in ("net.toml", "check.json", "net.cir"))
    config.write_text('[system]\nname = "pcn"\nsizes = [5, 8, 6, 4]\nactivation = "tanh"\n', encoding="utf-8")
    common = ("--substrate", "hopfield", "--seed", "2")
    device = tmp_path / "device.json"
    DeviceModel(**OWN, **GROUNDS).to_json(device)
    assert run(["spice", "check", str(config), *common, "--device-model", str(device), "--json", str(out)]) == 0
    assert json.loads(out.read_text())["worst_difference"] < 1e-11
    capsys.readouterr()
    assert run(["spice", "export", str(config), str(net), *common]) == 0
    done = subprocess.run(["ngspice", "-b", str(net)], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0
    assert "error" not in done.stderr.lower()
