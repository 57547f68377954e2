"""Systems go into files and other processes whole: `pickle` and `torch.save` of every built-in and mapped one."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch

from hardware_models.devices.model import DeviceModel
from hardware_models.mapping import map_pcn
from physics_ep import EnergySystem, relax
from physics_ep.config import load_system
from physics_ep.predictive_coding import mlp

NAMES = [
    "hopfield", "resistive", "oscillator", "ising-oscillator", "analog-hopfield", "langevin-hopfield", "pcn",
    "conv-hopfield", pytest.param("fitzhugh-nagumo", marks=pytest.mark.full),
]  # fmt: skip


def saved(system: EnergySystem) -> EnergySystem:
    file = io.BytesIO()
    torch.save(system, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def check(system: EnergySystem) -> None:
    """Copies by every way settle in the very same state."""
    torch.manual_seed(0)
    x = torch.rand((2, *(system.example_shape or (64 if hasattr(system, "inputs") else 4,))), dtype=system.dtype)
    expected = relax(system, x, max_iterations=3).state
    for twin in (pickle.loads(pickle.dumps(system)), saved(system), copy.deepcopy(system)):
        assert all(torch.equal(a, b) for a, b in zip(relax(twin, x, max_iterations=3).state, expected, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_built_in_systems_pickle(name: str) -> None:
    """Laws of units and readouts are functions without names: they are found by the name of their law."""
    check(load_system(name))


@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "hard_tanh", "gelu"])
def test_networks_of_every_activation_pickle(activation: str) -> None:
    """Also in the middle of training, as `torch.save(net)` does."""
    check(mlp([4, 5, 3], activation=activation))


@pytest.mark.parametrize("device", [DeviceModel(), DeviceModel(levels=16)], ids=["ideal", "levels"])
@pytest.mark.parametrize("substrate", ["hopfield", "resistive", "oscillator"])
def test_mapped_networks_pickle(substrate: str, device: DeviceModel) -> None:
    """The whole `Mapped`, and its system alone."""
    torch.manual_seed(0)
    mapped = map_pcn(mlp([4, 5, 3], activation="hard_sigmoid"), substrate, device)
    check(mapped.system)
    twin = pickle.loads(pickle.dumps(mapped))
    assert twin.device == mapped.device
    check(twin.system)


@pytest.mark.parametrize(
    ("substrate", "device"),
    [
        ("resistive", DeviceModel(diode_current=1e-12, diode_mismatch=0.1)),
        ("oscillator", DeviceModel()),
        ("oscillator", DeviceModel(detuning=0.01)),
        ("hopfield", DeviceModel(amplifier_saturation=2.0, mirror_mismatch=0.01)),
    ],
    ids=["diodes", "clips", "detuned", "rails"],
)
def test_units_of_a_device_pickle(substrate: str, device: DeviceModel) -> None:
    """Real diodes, oscillators' clips and detuned pairs have laws that were made for a device: they are made anew
    from what they were made of, to the same numbers."""
    torch.manual_seed(0)
    mapped = map_pcn(mlp([4, 5, 3]), substrate, device, calibration=torch.rand(3, 4))
    check(mapped.system)
    assert saved(mapped).device == device  # type: ignore[arg-type, attr-defined]
