"""The time constant is capacitance over conductance: of stated nodes, h as u, or the mismatch is simulated."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.integrate import solve_ivp

from hardware_models import DeviceModel, map_pcn
from hardware_models.devices.model import as_compared
from physics_ep import cli
from physics_ep.errors import InputError
from physics_ep.predictive_coding import mlp

pytestmark = pytest.mark.full
"""For their processor time."""


def network(*sizes: int):
    torch.manual_seed(3)
    return mlp(list(sizes), activation="relu").double()


def test_a_node_is_charged_through_its_conductance():
    """One output node of a resistive network: C dv/dt = G (p - v), by scipy, with C of the node and of all cells at
    it. The measured time to 1e-6 is that, and the formula's."""
    net = network(6, 1)
    x = torch.rand(1, 6, dtype=torch.float64)
    device = DeviceModel(unit_capacitance=2e-12, cell_capacitance=3e-14)
    mapped = map_pcn(net, "resistive", device, calibration=x)
    cells = 2 * (6 + 1)  # a pair an input, and one of the bias
    farads, siemens = 2e-12 + cells * 3e-14, mapped.system.total[0]
    assert mapped.system.tau == pytest.approx(farads / siemens, rel=1e-12)
    drive = float(net(x).detach())

    def settled(t: float, v: list[float]) -> float:
        return abs(v[0] - drive) / abs(drive) - 1e-6

    settled.terminal = True  # type: ignore[attr-defined]
    options = {"events": settled, "rtol": 1e-11, "atol": 1e-14, "method": "DOP853"}
    course = solve_ivp(lambda t, v: siemens / farads * (drive - v), (0, 1e-6), [0.0], **options)
    exact = float(course.t_events[0][0])
    fidelity = mapped.fidelity
    assert fidelity.settling_time == pytest.approx(exact, rel=1e-4)
    # Measured in steps of at most half a time constant.
    assert mapped.follow().seconds == pytest.approx(exact, abs=0.6 * mapped.system.tau)
    assert fidelity.time_from == "capacitance"
    assert fidelity.layers[0].capacitance == pytest.approx(farads, rel=1e-12)


def test_the_slowest_layer_sets_the_time():
    """Layers of other conductances carry as much more, so that every node has the same time constant; at virtual
    grounds the conductance is that of the feedback resistor, and cells are none of the node's."""
    net = network(6, 5, 3)
    x = torch.rand(4, 6, dtype=torch.float64)
    for substrate in ("hopfield", "resistive"):
        system = map_pcn(net, substrate, DeviceModel(unit_capacitance=1e-12), calibration=x).system
        g = [system.node_conductances(k, "h")[1] for k in (0, 1)]
        assert system.tau == pytest.approx(1e-12 / min(g), rel=1e-12)
        fidelity = map_pcn(net, substrate, DeviceModel(unit_capacitance=1e-12), calibration=x).fidelity
        assert [row.capacitance for row in fidelity.layers] == pytest.approx([system.tau * s for s in g])
        assert min(row.capacitance for row in fidelity.layers) == pytest.approx(1e-12)
        twice = map_pcn(net, substrate, DeviceModel(unit_capacitance=2e-12), calibration=x).fidelity
        assert twice.settling_time == pytest.approx(2 * fidelity.settling_time)
        assert twice.energy_per_inference["cells"] == pytest.approx(2 * fidelity.energy_per_inference["cells"])


def test_u_without_dummy_cells_is_faster_by_its_capacitance():
    """h bears the cells that feed back as well: without dummies u is faster by (C + n c) / (C + (n + m) c); a
    capacitance of the nodes makes that less, and with none of cells there is no difference."""
    net = network(6, 5, 3)
    x = torch.rand(4, 6, dtype=torch.float64)

    def slow(**fields: float) -> float:
        system = map_pcn(net, "resistive", DeviceModel(dummy_cells="none", **fields), calibration=x).system
        return float(torch.as_tensor(system.slowness[0], dtype=torch.float64).flatten()[0])

    n, m = 2 * (6 + 1), 2 * 3
    assert slow() == pytest.approx(n / (n + m))
    assert slow(cell_capacitance=1e-15) == pytest.approx(n / (n + m))
    assert slow(cell_capacitance=1e-15, unit_capacitance=1e-14) == pytest.approx((10 + n) / (10 + n + m))
    assert slow(unit_capacitance=1e-14) == 1
    equal = map_pcn(net, "resistive", DeviceModel(cell_capacitance=1e-15), calibration=x).system
    assert equal.equal_times


def test_contradictory_times_are_refused(tmp_path, capsys):
    """A time constant that is not the capacitance's; capacitances of what a substrate does not have."""
    for name in ("unit_capacitance", "cell_capacitance"):
        with pytest.raises(InputError, match=rf"time_constant must be left out \(None\) where {name} is given"):
            DeviceModel(time_constant=1e-6, **{name: 1e-12})
    net = network(4, 3)
    with pytest.raises(InputError, match=r"cell_capacitance must be left out .* \('resistive' does\)"):
        map_pcn(net, "hopfield", DeviceModel(cell_capacitance=1e-15))
    with pytest.raises(InputError, match=r"unit_capacitance must be left out on the substrate 'oscillator'"):
        map_pcn(net, "oscillator", DeviceModel(unit_capacitance=1e-12))
    file = tmp_path / "device.json"
    file.write_text('{"time_constant": 1e-6, "unit_capacitance": 1e-12}')
    with pytest.raises(SystemExit) as caught:
        cli.main(["map", "pcn", "--device-model", str(file)])
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("substrate", "fields", "told"),
    [
        ("resistive", '"cell_capacitance": 1e-15', "h and u alike"),
        ("resistive", '"cell_capacitance": 1e-15, "dummy_cells": "none"', "at h, others at u"),
        ("hopfield", '"time_constant_mismatch": 0.1', "at h, others at u"),
    ],
)
def test_a_report_calls_nodes_alike_only_where_they_are(substrate, fields, told, tmp_path, capsys):
    """If it fails, `map` says that h and u have equal capacitances on devices that were asked for without."""
    device, config = tmp_path / "device.json", tmp_path / "small.toml"
    device.write_text(f"{{{fields}}}")
    config.write_text('[system]\nname = "pcn"\nsizes = [4, 3]\n')
    with pytest.raises(SystemExit) as caught:
        cli.main(["map", str(config), "--substrate", substrate, "--device-model", str(device)])
    assert caught.value.code == 0
    (line,) = (row for row in capsys.readouterr().out.splitlines() if row.startswith("time constant"))
    assert line.endswith(told)


def test_without_either_the_time_is_assumed_and_says_so():
    """Numbers of devices that give neither stay what they were; the capacitance that these take is told."""
    net = network(4, 3)
    for device, seconds, source in (
        (DeviceModel(), 1e-6, "assumed"),
        (DeviceModel(time_constant=2e-6), 2e-6, "the device"),
    ):
        fidelity = map_pcn(net, device=device).fidelity
        assert (fidelity.time_constant, fidelity.time_from) == (seconds, source)
        siemens = map_pcn(net, device=device).system.conductance(0)
        assert fidelity.layers[0].capacitance == pytest.approx(seconds * siemens)
    assert map_pcn(net, "oscillator").fidelity.time_constant == 1e-6
    assert math.isnan(map_pcn(net, "oscillator").fidelity.layers[0].capacitance)
    before = {"time_constant": 1e-6, "levels": 16}
    assert as_compared(before)["time_constant"] is None
    assert as_compared({**before, "unit_capacitance": 0.0})["time_constant"] == 1e-6
