"""Substrates: physical systems that learn, and the devices that they are made of."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .analog import AnalogHopfieldCircuit
    from .circuit import Circuit
    from .circuit_transients import CircuitTrajectory, transient
    from .devices import DeviceModel
    from .fidelity import Fidelity
    from .fitzhugh_nagumo import FitzHughNagumoChain
    from .hopfield import ConvHopfieldNetwork, HopfieldNetwork
    from .langevin_hopfield import LangevinHopfield
    from .mapping import Mapped, NotRealisable, map_pcn
    from .oscillator_graph import OscillatorGraph
    from .oscillators import OscillatorNetwork
    from .paired_circuit import PairedCircuit
    from .parts import Part, Parts
    from .resistive import ResistiveNetwork
    from .unit_graph import UnitGraph

_HOME = {
    "AnalogHopfieldCircuit": "analog",
    "Circuit": "circuit",
    "CircuitTrajectory": "circuit_transients",
    "ConvHopfieldNetwork": "hopfield",
    "DeviceModel": "devices",
    "Fidelity": "fidelity",
    "FitzHughNagumoChain": "fitzhugh_nagumo",
    "HopfieldNetwork": "hopfield",
    "LangevinHopfield": "langevin_hopfield",
    "Mapped": "mapping",
    "NotRealisable": "mapping",
    "OscillatorGraph": "oscillator_graph",
    "OscillatorNetwork": "oscillators",
    "PairedCircuit": "paired_circuit",
    "Part": "parts",
    "Parts": "parts",
    "ResistiveNetwork": "resistive",
    "UnitGraph": "unit_graph",
    "map_pcn": "mapping",
    "transient": "circuit_transients",
}

__all__ = [
    "AnalogHopfieldCircuit",
    "Circuit",
    "CircuitTrajectory",
    "ConvHopfieldNetwork",
    "DeviceModel",
    "Fidelity",
    "FitzHughNagumoChain",
    "HopfieldNetwork",
    "LangevinHopfield",
    "Mapped",
    "NotRealisable",
    "OscillatorGraph",
    "OscillatorNetwork",
    "PairedCircuit",
    "Part",
    "Parts",
    "ResistiveNetwork",
    "UnitGraph",
    "map_pcn",
    "transient",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
