"""Run files, state_dicts and pickles from before the files moved into folders still load, and mean the same."""

from __future__ import annotations

import json
import pickle
import shutil
import warnings
from pathlib import Path

import pytest
import torch

from hardware_models import (
    Circuit,
    ConvHopfieldNetwork,
    DeviceModel,
    FitzHughNagumoChain,
    HopfieldNetwork,
    LangevinHopfield,
    OscillatorNetwork,
    ResistiveNetwork,
    map_pcn,
)
from hardware_models.analog.circuit import analog_hopfield
from hardware_models.devices import preset
from physics_ep import EnergySystem, EquilibriumPropagation, SquaredError, open_run, relax, train
from physics_ep.nudging import centered
from physics_ep.predictive_coding import mlp
from tests.support.paths import ROOT

SAVED = ROOT / "tests" / "data" / "before_folders"


def network(seed: int = 7):
    return mlp([4, 3, 2], activation="relu", seed=seed)


def mapped(substrate: str) -> EnergySystem:
    device = DeviceModel(levels=16, programming_noise=0.02, copies="shared")  # as that release had it
    return map_pcn(network(1), substrate, device, seed=3, calibration=torch.linspace(0, 1, 8).view(2, 4)).system


# Built with other weights than the saved ones, but for parts that a mapping or a circuit takes from them once.
FRESH = {
    "hopfield": lambda: HopfieldNetwork([4, 3, 2], activation="tanh", seed=7),
    "conv-hopfield": lambda: ConvHopfieldNetwork((1, 6, 6), [2], 2, seed=7),
    "resistive": lambda: ResistiveNetwork([4, 3, 2], seed=7, scale=1.0),
    "oscillator": lambda: OscillatorNetwork([4, 3, 2], seed=7),
    "langevin-hopfield": lambda: LangevinHopfield([4, 3, 2], seed=7),
    "analog-hopfield": lambda: analog_hopfield([4, 3, 2], seed=1),
    "fitzhugh-nagumo": lambda: FitzHughNagumoChain([4, 3, 2], seed=7),
    "pcn": network,
    "mapped-hopfield": lambda: mapped("hopfield"),
    "mapped-resistive": lambda: mapped("resistive"),
    "mapped-oscillator": lambda: mapped("oscillator"),
}


def expected() -> dict:
    return json.loads((SAVED / "expected.json").read_text(encoding="utf-8"))


def check(name: str, system: EnergySystem) -> None:
    """Free outputs and energies are those of the version that saved the system."""
    shape = (2, 1, 6, 6) if name == "conv-hopfield" else (2, 4)
    first, last = (0, 1) if name == "conv-hopfield" else (0.1, 0.9)
    x = torch.linspace(first, last, torch.Size(shape).numel()).view(shape).to(system.dtype)
    free = relax(system, x).require()
    tolerance = {"rtol": 1e-4, "atol": 1e-6} if system.dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-12}
    for quantity, value in (("outputs", system.outputs(free.state)), ("energy", system.energy(free.state, x))):
        known = torch.tensor(expected()[name][quantity], dtype=system.dtype)
        torch.testing.assert_close(value.detach(), known, **tolerance)


@pytest.mark.parametrize("name", FRESH)
def test_state_dicts_load(name: str) -> None:
    """If this fails, every saved network of a user is lost: the keys and shapes of parameters are part of the
    contract."""
    states = torch.load(SAVED / "state_dicts.pt", weights_only=True)
    system = FRESH[name]()
    assert list(system.state_dict()) == expected()[name]["keys"]
    system.load_state_dict(states[name])
    check(name, system)


def objects() -> dict[str, bytes]:
    with open(SAVED / "objects.pickle", "rb") as file:
        return pickle.load(file)


def unpickled(name: str):
    """Pickles name old paths, whose warning is not the point here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return pickle.loads(objects()[name])


@pytest.mark.parametrize("name", ["resistive", "analog-hopfield", "fitzhugh-nagumo", "pcn"])
def test_pickled_systems_load(name: str) -> None:
    """A pickle names the module of each class: old paths must lead to the classes of today."""
    check(name, unpickled(name))


def test_pickled_results_load() -> None:
    """Devices, estimators, reports, trajectories and circuits, as joblib or multiprocessing keep them."""
    before = {
        "copies": "shared",
        "amplifier_power": 0.0,
        "time_constant": 1e-6,
    }  # what these fields were then by default
    assert unpickled("preset") == preset("pcm").replace(**before)
    assert unpickled("device") == DeviceModel(levels=16, programming_noise=0.02, **before)
    assert unpickled("stencil") == centered()
    assert unpickled("nudge").beta == 0.1
    assert isinstance(unpickled("estimator"), EquilibriumPropagation)
    assert unpickled("report").worst_cosine == expected()["report"]
    assert unpickled("trajectory").energy.shape[1] == 2
    assert len(unpickled("unit-graph").output_nodes) == 2
    circuit = unpickled("circuit")
    assert isinstance(circuit, Circuit)
    point = circuit.operating_point()
    assert float(circuit.node_voltages(point)["out"]) == pytest.approx(expected()["circuit"], rel=1e-9)
    assert Circuit(unpickled("parts"), outputs=["out"]).n_sources == circuit.n_sources


def test_devices_saved_as_json_keep_their_copies() -> None:
    """A release without `copies` took them to err alike: a device that it saved becomes another in silence."""
    then = vars(unpickled("device")).keys() - {"copies"}  # what a pickle of that release holds
    text = json.dumps({name: getattr(DeviceModel(levels=16), name) for name in then})
    with pytest.warns(UserWarning, match="its copies are 'shared'"):
        assert DeviceModel.from_json(text) == DeviceModel(levels=16, copies="shared", amplifier_power=1e-5)


def test_all_objects_are_tried() -> None:
    """A pickle that no test opens shows nothing."""
    tried = {"resistive", "analog-hopfield", "fitzhugh-nagumo", "pcn", "preset", "device", "stencil", "nudge"}
    tried |= {"estimator", "report", "trajectory", "unit-graph", "circuit", "parts"}
    assert set(objects()) == tried


@pytest.mark.full
def test_training_resumes(tmp_path: Path) -> None:
    """A training that an older version began goes on to the end that it had there."""
    path = shutil.copy(SAVED / "training.h5", tmp_path / "run.h5")
    assert open_run(path).attributes["epochs"] == 1
    result = train(open_run(path).config, resume=path)
    assert len(result.metrics["test_error"]) == 12
    # Of 360 test images, 94 on the machine that wrote the file; another one may round one or two otherwise.
    assert result.metrics["test_error"][-1] == pytest.approx(94 / 360, abs=2.5 / 360)


def test_trajectory_opens() -> None:
    """Figures and analyses read what an older version simulated."""
    run = open_run(SAVED / "trajectory.h5")
    assert run.attributes["kind"] == "simulation"
    assert set(run.trajectories) == {"free", "nudged"}


def test_files_are_small_and_there() -> None:
    """Files that .gitignore swallowed would be missing in a fresh clone."""
    names = {"training.h5", "trajectory.h5", "state_dicts.pt", "objects.pickle", "expected.json"}
    assert names <= {path.name for path in SAVED.iterdir()}
    assert sum(path.stat().st_size for path in SAVED.iterdir()) < 200_000
    assert SquaredError.name == "squared_error"
