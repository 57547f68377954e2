"""Energy and area of mapped networks, against calculations by hand: numpy, and the numbers of docs/physics.md."""

from __future__ import annotations

import json
import math
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from hardware_models import DeviceModel, map_pcn
from hardware_models.devices.crossbars import copied, programmed, stream
from hardware_models.mapping.board import SETTLED
from hardware_models.mapping.budget import PartCounts, Takes
from physics_ep import cli, relax
from physics_ep.errors import InputError
from physics_ep.predictive_coding import mlp, vgg5

DOCS = Path(__file__).parents[3] / "docs" / "physics.md"


def stages(count: int) -> float:
    """Time constants until `count` equal poles in a row have settled, a Poisson tail, e^-t sum t^n/n!."""
    return brentq(
        lambda t: math.exp(-t) * sum(t**n / math.factorial(n) for n in range(count)) - SETTLED, 1, 200, xtol=1e-13
    )


def array_64_10() -> tuple[torch.nn.Module, torch.Tensor, DeviceModel]:
    net = mlp([64, 10]).double()
    with torch.no_grad():
        net.stack[0].weight.fill_(0.1)
        net.stack[0].bias.zero_()
    return net, torch.ones((2, 64), dtype=torch.float64), DeviceModel(time_constant=1e-6, dac_bits=8, adc_bits=8)


def test_a_64_10_array_by_hand() -> None:
    """A report of joules and square metres is what its parts take, by hand."""
    net, x, device = array_64_10()
    found = map_pcn(net, "hopfield", device, calibration=x).fidelity
    watts = 640 * 0.2**2 * 101e-6 + 10 * 0.2**2 * 2e-6
    free, nudged = 1e-6 * math.log(1e6), 1e-6 * stages(2)
    both = free + 2 * nudged
    inference = {"cells": watts * free, "buffers": 138e-5 * free, "converters": (64 + 10) * 256 * 1e-14}
    step = {
        "cells": watts * both,
        "buffers": 138e-5 * both,
        "converters": (64 + 10 + 2 * 20) * 256 * 1e-14,
        "writes": 1300e-12,
    }
    area = {"cells": 1300 * 2e-13, "buffers": 138e-10, "converters": 74e-9}
    for budget, wanted in (
        (found.energy_per_inference, inference),
        (found.energy_per_step, step),
        (found.area, area),
    ):
        assert {row: v for row, v in budget.items() if v} == pytest.approx(wanted, rel=1e-9, abs=0)
        assert budget == budget.total == pytest.approx(sum(wanted.values()), rel=1e-9, abs=0)
        assert pickle.loads(pickle.dumps(budget)).items() == budget.items()
    assert found.energy == found.energy_per_inference.total
    assert found.energy_per_inference.not_counted == ("reads",)
    epoch = found.energy_per_epoch(100, 32)
    assert epoch["writes"] == pytest.approx(4 * 1300e-12, rel=1e-12)
    assert epoch["cells"] == pytest.approx(100 * step["cells"], rel=1e-9)
    # The table of the docs has the same numbers.
    table = DOCS.read_text().split("| | inference | EP step | area |")[1].split("\n\n")[0]
    rows = {line.split("|")[1].strip(): line.split("|")[2:5] for line in table.splitlines() if "n" in line}
    for row in ("cells", "buffers", "converters", "writes", "together"):
        for text, wanted, unit in zip(rows[row], (inference, step, area), (1e9, 1e9, 1e12), strict=True):
            value = sum(wanted.values()) if row == "together" else wanted.get(row, 0.0)
            number = re.findall(r"[\d.]+", text)
            assert float(number[0] if number else 0) == pytest.approx(unit * value, abs=6e-5)


@pytest.mark.parametrize(
    ("substrate", "copies"),
    [
        ("hopfield", {}),
        ("hopfield", {"transpose": "array"}),
        ("hopfield", {"copy_mismatch_u": 0.1}),
        ("oscillator", {}),
    ],
    ids=["one", "two", "own u", "oscillators"],
)
def test_every_cell_dissipates_with_its_own_conductance(substrate: str, copies: dict[str, Any]) -> None:
    """V^2 G, cell by cell of every array that is driven, with errors of writing: numpy, from the conductances.
    Where copies differ, h - u drives the arrays the other way."""
    net = mlp([5, 4, 3], activation="relu").double()
    x = torch.rand((6, 5), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    device = DeviceModel(**{"programming_noise": 0.02, "stuck_on": 0.05, **copies})
    mapped = map_pcn(net, substrate, device, seed=3, calibration=x)
    system, full = mapped.system, mapped.system.full_scales
    state = relax(system, x, tolerance=1e-13).require().state
    hidden, apart = state[0].clamp(min=0).numpy(), (state[1] - state[3]).numpy()
    assert bool(np.abs(apart).max() > 1e-3) is (substrate == "oscillator" or "copy_mismatch_u" in copies)
    scales = system.scales
    largest = {n: float(p.detach().abs().max()) for n, p in net.named_parameters()}

    def cells(name: str, role: str) -> np.ndarray:
        key = next(key for key, roles in system.physical(name).items() if role in roles)
        values = dict(net.named_parameters())[name].detach()
        found = programmed(values, device, 3, key, span=system.span(name, largest))
        if role == "u" and "copy_mismatch_u" in copies:
            found = copied(found, 0.1, stream(3, name, "u"))
        return (found.plus + found.minus).numpy()

    forward = ["h"] if substrate == "hopfield" and "copy_mismatch_u" not in copies else ["h", "u"]
    for k, below in enumerate((x.numpy(), hidden)):
        weight, bias = f"layers.{k}.weight", f"layers.{k}.bias"
        watts = 0.0
        for role in forward:
            watts += float(((0.2 * below / full[k]) ** 2 * cells(weight, role).sum(0)).sum(1).mean())
            watts += (0.2 * scales[bias] / (scales[weight] * full[k])) ** 2 * float(cells(bias, role).sum())
        if k == 1:
            driven = apart * 0.2 * scales[weight] / (scales["layers.0.weight"] * full[0])
            watts += float((driven**2 * cells(weight, "transpose").sum(1)).sum(1).mean())
        assert mapped.fidelity.layers[k].power == pytest.approx(watts, rel=1e-8)


def test_parts_are_those_of_the_substrate() -> None:
    """64-12-10: amplifiers, buffers and oscillators counted by hand, each substrate; nothing twice or free."""
    net = mlp([64, 12, 10], activation="relu").double()
    x = torch.rand((3, 64), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    counts = {
        s: map_pcn(net, s, calibration=x).fidelity.takes.parts for s in ("hopfield", "resistive", "oscillator")
    }
    drivers, grounds = 2 * (64 + 12 + 10), 12 + 10 + 12
    assert (counts["hopfield"].amplifiers, counts["hopfield"].buffers) == (24, drivers + grounds)
    assert (counts["resistive"].amplifiers, counts["resistive"].buffers) == (24, 2 * (64 + 1 + 12 + 1 + 10))
    assert (counts["oscillator"].oscillators, counts["oscillator"].amplifiers) == (4 * 22, 0)
    pairs = 64 * 12 + 12 + 12 * 10 + 10
    assert counts["hopfield"].cells == 2 * pairs
    assert counts["resistive"].cells == 2 * (2 * pairs + 12 * 10)
    found = map_pcn(net, "oscillator", DeviceModel(oscillator_power=1e-5, cell_area=0.0), calibration=x).fidelity
    assert found.energy_per_inference["oscillators"] == pytest.approx(88e-5 * found.settling_time)
    assert "cells" in found.area.not_counted
    assert "amplifiers" not in found.area.not_counted  # there are none


def test_latches_hold_gates_and_routes() -> None:
    """If this fails, held gates look free. A unit h or u with a kink has a latch, set once a step. A max pooling
    has one for each entry of its windows, in inference too; smooth units and live gates have none."""
    net = mlp([6, 5, 4, 3], activation="relu").double()
    x = torch.rand((3, 6), generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    device = DeviceModel(latch_energy=3e-14, latch_area=2e-11)
    found = map_pcn(net, "hopfield", device, calibration=x).fidelity
    assert found.energy_per_step["latches"] == pytest.approx(2 * 9 * 3e-14, rel=1e-12)
    assert found.energy_per_inference["latches"] == 0
    assert found.area["latches"] == pytest.approx(2 * 9 * 2e-11, rel=1e-12)
    assert found.energy_per_epoch(100, 32)["latches"] == pytest.approx(100 * 18 * 3e-14, rel=1e-12)
    free = map_pcn(net, "hopfield", device.replace(latch_energy=0.0), calibration=x).fidelity
    assert "latches" in free.energy_per_step.not_counted
    for other, gates in ((mlp([6, 5, 3], activation="tanh").double(), "held"), (net, "live")):
        found = map_pcn(other, "hopfield", device, calibration=x, gates=gates).fidelity
        assert found.area["latches"] == found.energy_per_step["latches"] == 0
        assert "latches" not in found.energy_per_step.not_counted  # there are none
    pooled = vgg5(3, input_shape=(1, 16, 16), width=1 / 32).double()
    x = torch.rand((2, 1, 16, 16), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    found = map_pcn(pooled, "hopfield", device, calibration=x).fidelity
    posts = [layer.post for layer in pooled.stack if layer.link.routed]
    routes = sum(4 * math.prod(post) for post in posts)
    gates = 2 * sum(math.prod(layer.post) for layer in pooled.stack[:-1])
    assert routes > 0
    assert found.energy_per_inference["latches"] == pytest.approx(routes * 3e-14, rel=1e-12)
    assert found.energy_per_step["latches"] == pytest.approx((routes + gates) * 3e-14, rel=1e-12)


def test_a_skip_is_in_the_power_of_its_layer_once() -> None:
    """V I of the rails of a resistive layer holds its skip's; the skip's own row must not add it again."""
    from physics_ep.predictive_coding import vgg10_skip

    net = vgg10_skip(10, input_shape=(3, 32, 32), width=1 / 32).double()
    x = torch.rand((1, 3, 32, 32), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    mapped = map_pcn(net, "resistive", calibration=x)
    rows = {row.name: row.power for row in mapped.fidelity.layers}
    assert all(power == 0 for name, power in rows.items() if name.endswith("skip_weight"))
    assert any(name.endswith("skip_weight") for name in rows)


def test_the_map_command_tells_budgets_and_what_it_calibrates_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Data of the config, and an epoch of its batches; noise is said."""
    out = tmp_path / "map.json"
    with pytest.raises(SystemExit) as caught:
        cli.main(["map", "pcn", "--json", str(out)])
    assert not caught.value.code
    found = json.loads(out.read_text())
    assert found["calibration"] == "2 training examples of digits"
    epoch, step = found["energy_per_epoch"], found["energy_per_step"]
    assert (epoch["examples"], epoch["batch"]) == (1437, 32)
    writes = math.ceil(1437 / 32) * step["writes"]
    assert epoch["total"] == pytest.approx(1437 * (step["total"] - step["writes"]) + writes)
    assert "an epoch of 1,437 examples in batches of 32" in capsys.readouterr().out
    config = tmp_path / "small.toml"
    config.write_text('[system]\nname = "pcn"\nsizes = [5, 4, 3]\n')
    with pytest.raises(SystemExit):
        cli.main(["map", str(config)])
    assert "random inputs in [0, 1), which are no data" in capsys.readouterr().out
    config.write_text('[system]\nname = "pcn"\nsizes = [5, 4, 3]\n[data]\nname = "digits"\n')
    with pytest.raises(SystemExit) as caught:
        cli.main(["map", str(config)])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert "data must have examples of the network's shape (5,)" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(("examples", "batch", "name"), [(0, 1, "examples"), (10, 0, "batch"), (10, 2.5, "batch")])
def test_an_epoch_has_examples_and_batches(examples: int, batch: int, name: str) -> None:
    net, x, device = array_64_10()
    with pytest.raises(InputError, match=f"Argument {name} must be an integer of 1 or more"):
        map_pcn(net, "hopfield", device, calibration=x).fidelity.energy_per_epoch(examples, batch)


def test_energies_that_are_zero_are_counted() -> None:
    """If it fails, what takes nothing is told like what the device has no figure of."""
    net, x, device = array_64_10()
    found = Takes(device, 0.0, 1e-6, 2e-6, 4, PartCounts(buffers=3, output_values=1, cells=4))
    for budget in (found.inference(), found.step()):
        assert (budget["cells"], budget.not_counted) == (0.0, ("reads",))
        assert {"cells", "buffers", "converters"} <= {*budget.counted}
    dumb = map_pcn(net, "hopfield", device.replace(buffer_power=0.0), calibration=x).fidelity.energy_per_inference
    assert (dumb["buffers"], dumb.not_counted) == (0.0, ("buffers", "reads"))


@pytest.mark.full
def test_energies_are_for_measured_times_where_these_were_measured() -> None:
    """If it fails, joules are for a formula that leaves units at thresholds out, whatever was measured."""
    net = mlp([6, 8, 3], seed=1).double()
    x = torch.rand(2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    mapped = map_pcn(net, "oscillator", DeviceModel(oscillator_power=1e-6), calibration=x)
    before = mapped.fidelity
    assert before.settling_from == ("formula", "formula")
    assert (before.settling_time, before.nudged_settling_time) == (before.formula_time, before.nudged_formula_time)
    course = mapped.follow()
    after = mapped.fidelity
    assert after.settling_from == ("measured", "measured")
    assert (after.settling_time, after.nudged_settling_time) == (course.seconds, course.nudged_seconds)
    free, _ = mapped.settling(x)
    assert course.seconds == pytest.approx(free * mapped.system.tau)
    assert after.formula_time == before.formula_time
    power = 44e-6
    step = after.settling_time + 2 * after.nudged_settling_time
    assert after.energy_per_step["oscillators"] == pytest.approx(power * step, rel=1e-12)
    assert after.figures()["settling_from"] == {"free": "measured", "nudged": "measured"}
