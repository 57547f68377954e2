"""A small system of every kind with a batch and a cost: what the tests run on a device, and count there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from hardware_models import (
    ConvHopfieldNetwork,
    DeviceModel,
    FitzHughNagumoChain,
    HopfieldNetwork,
    LangevinHopfield,
    OscillatorGraph,
    OscillatorNetwork,
    ResistiveNetwork,
    map_pcn,
)
from hardware_models.oscillators import ising_oscillator
from physics_ep import CrossEntropy, EnergySystem, EquilibriumPropagation, SquaredError
from physics_ep.cost import Cost
from physics_ep.predictive_coding import mlp, vgg5, vgg10, vgg10_skip

BATCH = 4
NOISY = DeviceModel(levels=16, programming_noise=0.05, adc_bits=8, copies="shared")
"""Cells of 16 levels that are written with errors, and converters: no noise in time."""
APART = DeviceModel(levels=16, programming_noise=0.05, adc_bits=8)
"""The same with the default copies, whose cells err independently: such circuits are followed in time."""


@dataclass(frozen=True)
class DeviceCase:
    """How a system is made, and what it learns in a step.

    Attributes
    ----------
    build : callable
        System of these inputs (B, ...) on their device.
    cost : Cost
    beta : float or str
    shape : tuple of int
        Shape of an example.
    options : dict
        Options of `EquilibriumPropagation`.
    rounding : float
        Part of a gradient by which those of a device may differ from the CPU's: 0 where they compute the same.
    unread : str
        Pattern of the names of tensors that a step does not read: only what prepares the system does.
    """

    build: Callable[[torch.Tensor], EnergySystem]
    cost: Cost = field(default_factory=SquaredError)
    beta: float | str = 0.05
    shape: tuple[int, ...] = (8,)
    options: dict[str, Any] = field(default_factory=dict)
    rounding: float = 0.0
    unread: str = ""

    def examples(self, device: str | torch.device = "cpu", outputs: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
        """(x, y) on a device, the same numbers on each."""
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(BATCH, *self.shape, generator=generator)
        return x.to(device), self.cost.encode(torch.arange(BATCH), outputs, torch.float32).to(device)

    def ready(self, device: str | torch.device = "cpu") -> tuple[EnergySystem, torch.Tensor, torch.Tensor]:
        """The system and its batch on a device."""
        x, y = self.examples(device)
        return self.build(x), x, y

    def estimator(self) -> EquilibriumPropagation:
        """Equilibrium propagation as its defaults have it."""
        return EquilibriumPropagation(self.cost, beta=self.beta, **self.options)


def _moved(build: Callable[[], EnergySystem]) -> Callable[[torch.Tensor], EnergySystem]:
    """A system of the CPU, moved to where the inputs are: as users do it."""
    return lambda x: build().to(x.device)


def _mapped(substrate: str, model: DeviceModel | None = None) -> Callable[[torch.Tensor], EnergySystem]:
    def build(x: torch.Tensor) -> EnergySystem:
        mapped = map_pcn(_mlp().to(x.device), substrate, model, calibration=x)
        if model is not None and model.adc_bits is not None:
            mapped.calibrate(x, torch.arange(len(x), device=x.device), CrossEntropy())
        return mapped.system

    return build


def _mlp(activation: str = "relu") -> EnergySystem:
    return mlp([8, 16, 16, 10], activation=activation)


def _ring() -> OscillatorGraph:
    """A ring that nothing holds: its outputs are counted from a reference."""
    return OscillatorGraph.lattice(11, ground="quotient", weight=0.5)


def _detuned() -> OscillatorGraph:
    """Frequencies of their own, one oscillator held at a phase, second-harmonic injection."""
    drift = [0.02 * (i - 6) for i in range(13)]
    return OscillatorGraph.all_to_all(
        8, 13, 10, pins={1: 0.3}, detuning=drift, second_harmonic=0.2, input_index=[0, 2, 4], readout="sin"
    )


EDGES = r"couplings\.(edges|(inner|outer)_edges|outer_slots)"
"""Lists of a graph whose oscillators are all variables."""
CELLS = r"(asked into|asked out|plus|minus|[hu] into|[hu] out|transpose into|transpose out)/.*"
"""Conductances of which the loads of a resistive network's nodes are made, each time it is written."""

DRAINS = r"drain_.*"
"""Sums of cells of which the report makes power: no step reads them."""

UPWARDS = r"transpose/layers/0/weight"
"""The first layer's array read the other way, where it is one of its own: nothing is fed back to the input."""

PREDICTIVE: dict[str, Any] = {"cost": CrossEntropy(), "beta": "auto"}

CASES: dict[str, DeviceCase] = {
    "hopfield": DeviceCase(_moved(lambda: HopfieldNetwork([8, 6, 10], activation="tanh"))),
    "conv-hopfield": DeviceCase(
        _moved(lambda: ConvHopfieldNetwork((1, 8, 8), [4], 10, pooling="max")), shape=(1, 8, 8)
    ),
    "langevin-hopfield": DeviceCase(_moved(lambda: LangevinHopfield([8, 6, 10]))),
    "resistive": DeviceCase(
        _moved(lambda: ResistiveNetwork([8, 6, 10], diode="shockley", scale=1.0, saturation=1e-6)),
        unread=r"(low|high)_1",  # what ideal diodes leave
    ),
    "resistive-ideal": DeviceCase(
        _moved(lambda: ResistiveNetwork([8, 6, 10], scale=1.0)),
        unread=r"signs_1",  # what the limits were made of
    ),
    "oscillator": DeviceCase(_moved(lambda: OscillatorNetwork([8, 6, 10]))),
    "ising-oscillator": DeviceCase(_moved(lambda: ising_oscillator([8, 6, 10]))),
    "oscillator-graph": DeviceCase(_moved(lambda: OscillatorGraph.all_to_all(8, 16, 10)), unread=EDGES),
    "oscillator-graph-held": DeviceCase(_moved(_detuned), unread=r"couplings\.edges"),
    "oscillator-ring": DeviceCase(_moved(_ring), shape=(0,), unread=rf"{EDGES}|couplings\.(free|input_slots)"),
    "fitzhugh-nagumo": DeviceCase(_moved(lambda: FitzHughNagumoChain([8, 12, 10])), rounding=1e-5),
    "fitzhugh-nagumo-sheet": DeviceCase(
        _moved(lambda: FitzHughNagumoChain([8, 12, 10], grid=(3, 4), driven=range(9), boundary="periodic")),
        rounding=1e-5,
    ),
    "pcn": DeviceCase(_moved(_mlp), **PREDICTIVE),
    "vgg5": DeviceCase(_moved(lambda: vgg5(10, (3, 32, 32), width=1 / 32)), shape=(3, 32, 32), **PREDICTIVE),
    "vgg10": DeviceCase(_moved(lambda: vgg10(10, (3, 32, 32), width=1 / 32)), shape=(3, 32, 32), **PREDICTIVE),
    "vgg10-skip": DeviceCase(
        _moved(lambda: vgg10_skip(10, (3, 32, 32), width=1 / 32)), shape=(3, 32, 32), **PREDICTIVE
    ),
    **{
        f"mapped-{kind}{suffix}": DeviceCase(_mapped(kind, model), unread=unread, **PREDICTIVE)
        for kind, unread in (
            ("hopfield", rf"{CELLS}|{DRAINS}"),
            ("resistive", rf"{CELLS}|{DRAINS}"),
            ("oscillator", DRAINS),
        )
        for suffix, model in (("", None), ("-written", NOISY))
    },
}
"""Systems that run on a device, by name."""

FOLLOWED: dict[str, DeviceCase] = {
    f"mapped-{kind}-apart": DeviceCase(_mapped(kind, APART), unread=unread, **PREDICTIVE)
    for kind, unread in (("resistive", rf"{CELLS}|{DRAINS}|{UPWARDS}"), ("oscillator", rf"{DRAINS}|{UPWARDS}"))
}
"""Systems that are followed in time."""
