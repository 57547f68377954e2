"""Resistive networks on the scale of real cells: exact scalings, volts, watts, and files of a larger scale."""

from __future__ import annotations

import copy
import inspect
import tomllib

import pytest
import torch

from hardware_models import ResistiveNetwork
from physics_ep import CrossEntropy, SquaredError, relax
from physics_ep.config import load_config, parse_config
from physics_ep.errors import InputError
from physics_ep.registry import bundled, former_options, told_options
from physics_ep.runs.training import train
from physics_ep.storage.opening import open_run
from physics_ep.storage.run_file import Run, write_run

BRIEF = ["training.epochs=1", "data.train_examples=200", "data.test_examples=50"]
CONFIGS = sorted(name for name in bundled() if name.startswith("resistive"))


def scaled(table: dict, conductance: float, voltage: float) -> dict:
    """The config with all conductances and voltages multiplied; currents are products, gradients V^2/S, V^2/A."""
    table = copy.deepcopy(table)
    system, optimizer, ep = table["system"], table["optimizer"], table["ep"]
    system["scale"] *= conductance
    for name in {"input_gain", "rest"} & set(system):
        system[name] *= voltage
    for options in (optimizer, *optimizer["groups"].values()):
        options["lr"] *= conductance
    optimizer["eps"] *= voltage**2 / conductance
    for name, options in optimizer["groups"].items():
        if name.endswith("bias"):
            options["lr"] *= voltage
            options["eps"] *= voltage / conductance
    ep["beta"] *= conductance
    ep["target"] *= voltage
    ep["tolerance"] *= voltage
    return table


@pytest.mark.parametrize(
    "name", [n if n == "resistive-digits" else pytest.param(n, marks=pytest.mark.slow) for n in CONFIGS]
)
def test_conductances_and_voltages_scale_exactly(name):
    """Factors of two leave training as it is, bit for bit: the test error at microsiemens and half a volt is that
    of a siemens and 64 V. A rate, target or tolerance in the config that is not of its unit breaks it."""
    table = tomllib.loads(bundled()[name].read_text(encoding="utf-8"))
    before = {"resistive-digits": 64.0, "resistive-mnist": 480.0}.get(name, 200.0)
    voltage = before / table["system"]["input_gain"]
    assert voltage == 2 ** round(torch.tensor(voltage).log2().item())
    small, large = (train(config, overrides=BRIEF, seed=1) for config in (table, scaled(table, 2.0**13, voltage)))
    assert large.config.system.options["scale"] == 1
    assert small.test_error == large.test_error
    for (key, p), (_, q) in zip(small.system.named_parameters(), large.system.named_parameters(), strict=True):
        assert torch.equal(p * (2.0**13 * (voltage if key.endswith("bias") else 1)), q), key


def test_power_by_hand():
    """Cells of 3 and 1 uS to +0.5 and -0.5 V: the node is at 0.25 V, and 3 uS (0.25 V)^2 + 1 uS (0.75 V)^2 = 0.75
    uW are dissipated. Behind an amplifier of 2, a node of 2 uS sees twice the voltage below."""
    system = ResistiveNetwork([1, 1], input_gain=0.5).double()
    with torch.no_grad():
        system.couplings[0].conductance.copy_(torch.tensor([[3e-6, 1e-6]], dtype=torch.float64))
    x = torch.ones(1, 1, dtype=torch.float64)
    state = relax(system, x).require().state
    assert float(state[0]) == pytest.approx(0.25, rel=1e-12)
    assert float(system.cell_power(state, x)) == pytest.approx(7.5e-7, rel=1e-12)
    assert system.cell_voltages(state, x)[0].flatten().tolist() == pytest.approx([0.25, -0.75])

    deep = ResistiveNetwork([1, 1, 1], input_gain=0.5, amplification=2.0, bias=False).double()
    with torch.no_grad():
        deep.couplings[0].conductance.copy_(torch.tensor([[3e-6, 1e-6]], dtype=torch.float64))
        deep.couplings[1].conductance.fill_(2e-6)
    state = (torch.tensor([[0.2]], dtype=torch.float64), torch.tensor([[0.1]], dtype=torch.float64))
    # 3 uS (0.3 V)^2 + 1 uS (0.7 V)^2 + 2 uS (0.4 V - 0.1 V)^2
    assert float(deep.cell_power(state, x)) == pytest.approx(0.27e-6 + 0.49e-6 + 0.18e-6, rel=1e-12)
    # Co-content is half of what resistors dissipate, each stage times the amplifiers' gains downstream squared.
    energy = 0.5 * (4 * (0.27e-6 + 0.49e-6) + 0.18e-6)
    assert float(deep.energy(state, x).detach()) == pytest.approx(energy, rel=1e-12)


def test_bundled_digits_are_cells_that_exist():
    """Cells of at most 100 uS bear less than a volt, and dissipate less than a watt an example."""
    trained = train("resistive-digits", overrides=BRIEF, seed=0).system
    assert isinstance(trained, ResistiveNetwork)
    x = torch.ones(2, 64)  # no image has more than every pixel on
    state = relax(trained, x).require().state
    assert max(float(layer.conductance.detach().max()) for layer in trained.couplings) < 1e-4
    assert max(float(v.detach().abs().max()) for v in trained.cell_voltages(state, x)) < 1
    assert 1e-3 < float(trained.cell_power(state, x).max()) < 1
    default = ResistiveNetwork([64, 128, 10])
    assert all(1e-6 < float(layer.conductance.detach().max()) < 1e-4 for layer in default.couplings)


@pytest.mark.parametrize("name", CONFIGS)
def test_bundled_configs_are_on_the_scale_of_cells(name):
    """A config that begins above 100 uS or feeds a volt in is none of cells."""
    config = load_config(name)
    options = config.system.options
    assert options["input_gain"] <= 0.5
    assert options["scale"] / options.get("density", 1.0) ** 0.5 < 1e-3  # before the root of the width
    assert config.ep.target < 0.01
    assert config.ep.beta < 2e-4


def former(run: Run) -> Run:
    """The run as an earlier release stored it: it told no defaults, and knew no targets."""
    config = run.config
    for name in ("scale", "saturation"):
        del config["system"][name]
    del config["ep"]["target"]
    return Run({**run.attributes, "config": config}, run.metrics, run.state_dict, run.resume)


def test_old_run_files_go_on_at_their_scale(tmp_path):
    """A run of the siemens that were the default goes on as if it had not been interrupted, not at today's."""
    config = {
        "system": {"name": "resistive", "sizes": [64, 6, 10], "input_gain": 64.0, "scale": 1.0, "saturation": 1e-6},
        "data": {"name": "digits", "train_examples": 100, "test_examples": 50},
        "training": {"epochs": 1},
        "optimizer": {"name": "Adam", "lr": 1e-3},
        "ep": {"beta": 0.2, "tolerance": 1e-5},
    }
    whole = train(config, overrides=["training.epochs=2"])
    train(config, out=tmp_path / "run.h5")
    write_run(tmp_path / "old.h5", former(open_run(tmp_path / "run.h5")))
    old = open_run(tmp_path / "old.h5")
    assert "scale" not in old.attributes["config"]["system"]
    assert old.config["system"]["scale"] == 1
    more = train(old.config, resume=tmp_path / "old.h5", overrides=["training.epochs=2"])
    for (name, p), q in zip(whole.system.named_parameters(), more.system.parameters(), strict=True):
        assert torch.equal(p, q), name
    del config["system"]["scale"]  # today's default is another
    with pytest.raises(InputError, match=r"system\.scale must be 1\.0, as in .* but was 0\.0001"):
        train(config, resume=tmp_path / "old.h5", overrides=["training.epochs=2"])


def test_defaults_that_changed_are_told(tmp_path):
    """A file of today that did not tell its scale would be taken for one of a siemens."""
    signature = inspect.signature(ResistiveNetwork).parameters
    today = {name: signature[name].default for name in ResistiveNetwork.former_defaults}
    assert today == {"scale": 1e-4, "saturation": 1e-10}
    assert told_options("resistive", {"sizes": [2, 1]}) == {"sizes": [2, 1], **today}
    assert told_options("resistive", {"scale": 3.0})["scale"] == 3
    assert former_options("resistive", {"scale": 3.0}) == {"scale": 3.0, "saturation": 1e-6}
    assert former_options("of another package", {"scale": 3.0}) == {"scale": 3.0}
    other = parse_config({"system": {"name": "pcn"}})
    assert other.as_stored() == other.as_dict()


def test_targets_of_the_squared_error():
    """Targets are volts; a cost that has none is not given one."""
    assert SquaredError(0.25).encode(torch.tensor([1, 0]), 3, torch.float64).tolist() == [
        [0, 0.25, 0],
        [0.25, 0, 0],
    ]
    assert parse_config({"system": {"name": "resistive"}, "ep": {"target": 0.5}}).ep.new_cost().target == 0.5
    other = parse_config({"system": {"name": "resistive"}, "ep": {"target": 0.5}}).ep.new_cost("cross_entropy")
    assert isinstance(other, CrossEntropy)
    for value in (0.0, -1.0, float("inf"), True, "1"):
        with pytest.raises(InputError, match="target must be a positive finite number"):
            SquaredError(value)
    with pytest.raises(InputError, match=r"ep\.target must be left out for the cost 'cross_entropy'"):
        parse_config({"system": {"name": "resistive"}, "ep": {"target": 0.5, "cost": "cross_entropy"}})
