"""Voltages at cells: what is refused, what scales exactly, and what real diodes lose."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from hardware_models import DeviceModel, NotRealisable, map_pcn
from hardware_models.devices.presets import preset
from hardware_models.laws.elements import THERMAL_VOLTAGE
from physics_ep import CrossEntropy, cli, relax
from physics_ep.errors import InputError
from tests.support.pcn import dense, examples

SMALL = {"width": 8, "n_in": 5}


def test_lines_beyond_the_cells_are_refused_with_layer_and_ratio() -> None:
    """Cells that break, or disturb what they hold, are no answer to whether hardware can hold a network."""
    net = dense(3, "relu", **SMALL)
    x, _ = examples((5,), 1)
    free = map_pcn(net, "resistive", DeviceModel(voltage=0.2), calibration=x)
    volts = [(max(gains.values()) + 1) * 0.2 for gains in free.system.gains]  # a rail, and a node of the other sign
    worst = int(np.argmax(volts))
    says = rf"Layer {worst + 1} .* {volts[worst] / 0.1:.3g} times cell_voltage_limit = 0.1"
    with pytest.raises(NotRealisable, match=says):
        map_pcn(net, "resistive", DeviceModel(voltage=0.2, cell_voltage_limit=0.1), calibration=x)
    with pytest.raises(NotRealisable, match=r"0\.2 V, 2 times cell_voltage_limit = 0\.1"):
        map_pcn(net, "hopfield", DeviceModel(voltage=0.2, cell_voltage_limit=0.1), calibration=x)
    # A bias that is larger than what the array's cells make of a full scale has lines of a higher voltage.
    with torch.no_grad():
        net.stack[1].bias.mul_(1000)
    device = DeviceModel(voltage=0.2, cell_voltage_limit=0.2)
    with pytest.raises(NotRealisable, match=r"Layer 2 .* its cells see up to \d"):
        map_pcn(net, "hopfield", device, calibration=x)
    assert map_pcn(net, "hopfield", device, calibration=x, rails="fit").device.voltage < 0.1
    assert [row.line_voltage for row in free.fidelity.layers] == pytest.approx(volts)


def test_fitted_rails_leave_ideal_diodes_what_they_are() -> None:
    """The largest line is at the limit; states and gradients are the same to the bit; power goes as the square."""
    net = dense(3, "relu", **SMALL)
    x, y = examples((5,), 2)
    whole = map_pcn(net, "resistive", DeviceModel(voltage=1.0, programming_noise=0.01), seed=1, calibration=x)
    limit = DeviceModel(voltage=1.0, programming_noise=0.01, cell_voltage_limit=0.2)
    fitted = map_pcn(net, "resistive", limit, seed=1, calibration=x, rails="fit")
    ratio = max(row.line_voltage for row in whole.fidelity.layers) / 0.2
    assert fitted.device.voltage == pytest.approx(1 / ratio)
    assert max(row.line_voltage for row in fitted.fidelity.layers) == pytest.approx(0.2)
    states = [relax(m.system, x).state for m in (whole, fitted)]
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))
    a, b = (m.gradient(x, y, CrossEntropy(), beta=1e-3) for m in (whole, fitted))
    assert all(torch.equal(a[name], b[name]) for name in a)
    for one, two in zip(whole.fidelity.layers, fitted.fidelity.layers, strict=True):
        assert two.power == pytest.approx(one.power / ratio**2, rel=1e-9)
    assert all(row.blocked == 0 for row in fitted.fidelity.layers[:-1])
    within = DeviceModel(voltage=1e-3, cell_voltage_limit=0.2)
    assert map_pcn(net, "resistive", within, calibration=x, rails="fit").device == within  # never scaled up


@pytest.mark.full
def test_conductances_and_saturation_currents_scale_together() -> None:
    """A network at a tenth of the conductances, its diodes at a tenth of their current, is the same network."""
    net = dense(3, "relu", **SMALL)
    x, y = examples((5,), 3)
    fields = {"voltage": 1.0, "programming_noise": 0.01}
    small = DeviceModel(g_min=1e-7, g_max=1e-5, diode_current=1e-9, **fields)
    large = DeviceModel(g_min=1e-6, g_max=1e-4, diode_current=1e-8, **fields)
    a, b = (map_pcn(net, "resistive", d, seed=2, calibration=x) for d in (small, large))
    for p, q in zip(relax(a.system, x).require().state, relax(b.system, x).require().state, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-8, atol=1e-10)
    one, two = (m.gradient(x, y, CrossEntropy(), beta=1e-2, tolerance=1e-11) for m in (a, b))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-5, atol=1e-8)
    assert b.fidelity.layers[0].power == pytest.approx(10 * a.fidelity.layers[0].power, rel=1e-6)


def test_fitted_rails_show_what_real_diodes_no_longer_rectify() -> None:
    """What a diode lets through of the blocked side at the fitted voltage, by Shockley's law and scipy: a
    drop of some 0.1 V does not shrink with the rails."""
    net = dense(3, "relu", **SMALL)
    x, _ = examples((5,), 4)
    found = []
    for limit in (100.0, 0.5):
        device = DeviceModel(voltage=3.0, diode_current=1e-6, cell_voltage_limit=limit)
        mapped = map_pcn(net, "resistive", device, calibration=x, rails="fit")
        volts = mapped.device.voltage

        def node(p: float, total: float) -> float:
            def off(v: float) -> float:
                return v - 1e-6 / total * np.expm1(-v / THERMAL_VOLTAGE) - p

            return brentq(off, -abs(p) - 1, abs(p) + 1, xtol=1e-16)

        for k, row in enumerate(mapped.fidelity.layers[:-1]):
            total = mapped.system.total[k]
            assert row.blocked == pytest.approx(-node(-volts, total) / node(volts, total), rel=1e-6)
        found.append(mapped.fidelity.layers[0].blocked)
    assert found[0] < 0.2
    assert found[1] > 0.5


@pytest.mark.full
def test_bad_rails_are_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Contradictory options, units with a voltage scale of their own; the command's exit status."""
    net = dense(3, "tanh", **SMALL)
    with pytest.raises(InputError, match="Argument rails must be 'refuse' or 'fit', but was 'scale'"):
        map_pcn(net, rails="scale")
    with pytest.raises(InputError, match="rails must be 'refuse' where the device has no cell_voltage_limit"):
        map_pcn(net, rails="fit")
    with pytest.raises(NotRealisable, match=r"Layer 1 .* tanh units have a scale of voltage of their own"):
        map_pcn(net, device=DeviceModel(cell_voltage_limit=0.1), rails="fit")
    with pytest.raises(NotRealisable, match=r"Layer 1 .* diode units have a scale"):
        map_pcn(dense(3, "diode", **SMALL), "resistive", DeviceModel(cell_voltage_limit=0.1), rails="fit")
    out, file = tmp_path / "map.json", tmp_path / "device.json"
    preset("reram").replace(cell_voltage_limit=0.5).to_json(file)
    for words, status in ((["--rails", "fit"], 0), ([], 2)):
        with pytest.raises(SystemExit) as caught:
            cli.main(
                ["map", "pcn", "--substrate", "resistive", "--device-model", str(file), *words, "--json", str(out)]
            )
        assert (caught.value.code or 0) == status
        if status == 0:
            device = json.loads(out.read_text())["device"]
            assert device["cell_voltage_limit"] == 0.5
            assert device["voltage"] < 0.05
            out.unlink()
            capsys.readouterr()
    error = capsys.readouterr().err
    assert "times cell_voltage_limit = 0.5" in error
    assert error.count("\n") == 1
    assert not out.exists()


SETTINGS = ("training.epochs=1", "system.sizes=[64,6,10]", "data.train_examples=64", "data.test_examples=16")
SHORT = [word for setting in SETTINGS for word in ("--set", setting)]


@pytest.mark.full
@pytest.mark.parametrize(
    "words",
    [
        ["tolerance", "pcn", "--substrate", "resistive", "--sweep", "levels=16", "--repeats", "1", "--batch", "2"],
        ["in-situ", "pcn-digits", "--substrate", "resistive", *SHORT],
    ],
)
def test_rails_are_fitted_wherever_a_network_is_mapped(words, tmp_path: Path, capsys) -> None:
    """A sweep, or learning on cells, is refused where lines exceed the cells' limit, unless volts are fitted."""
    file = tmp_path / "device.json"
    DeviceModel(cell_voltage_limit=0.2).to_json(file)
    for more, status in ((["--rails", "fit"], 0), ([], 2), (["--rails", "scale"], 2)):
        with pytest.raises(SystemExit) as caught:
            cli.main([*words, "--device-model", str(file), *more])
        error = capsys.readouterr().err
        assert (caught.value.code or 0) == status, error
        assert status == 0 or error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["spice", "export", "resistive", "net.cir", "--rails", "fit"], "rails must come with --substrate"),
        (["tolerance", "hopfield", "--sweep", "levels=4", "--rails", "fit"], "rails must be left out for a plain"),
        (["in-situ", "hopfield-digits", "--rails", "fit"], "rails must be left out for a plain system"),
        (["tolerance", "pcn", "--sweep", "levels=4", "--rails", "fit"], "rails must be 'refuse' where the device"),
        (["in-situ", "pcn-digits", "--rails", "fit"], "rails must be 'refuse' where the device has no"),
        (["map", "pcn", "--rails", "fit"], "rails must be 'refuse' where the device has no cell_voltage_limit"),
    ],
)
def test_rails_without_cells_are_refused(words, says, tmp_path: Path, capsys, monkeypatch) -> None:
    """What is on no lines has none to fit: one line, status 2, and no file."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    error = capsys.readouterr().err
    assert caught.value.code == 2
    assert says in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
