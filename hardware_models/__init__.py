"""Substrates: physical systems that learn, and the devices that they are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from physics_ep.faces import lazy

if TYPE_CHECKING:
    from .analog import AnalogHopfieldCircuit as AnalogHopfieldCircuit
    from .board import NotRealisable as NotRealisable
    from .circuit import Circuit as Circuit
    from .circuit_transients import CircuitTrajectory as CircuitTrajectory, transient as transient
    from .devices import DeviceModel as DeviceModel
    from .fidelity import Fidelity as Fidelity
    from .fitzhugh_nagumo import FitzHughNagumoChain as FitzHughNagumoChain
    from .hopfield import ConvHopfieldNetwork as ConvHopfieldNetwork, HopfieldNetwork as HopfieldNetwork
    from .langevin_hopfield import LangevinHopfield as LangevinHopfield
    from .mapping import Mapped as Mapped, map_pcn as map_pcn
    from .oscillator_graph import OscillatorGraph as OscillatorGraph
    from .oscillators import OscillatorNetwork as OscillatorNetwork
    from .paired_circuit import PairedCircuit as PairedCircuit
    from .parts import Part as Part, Parts as Parts
    from .resistive import ResistiveNetwork as ResistiveNetwork
    from .unit_graph import UnitGraph as UnitGraph
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
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
            "NotRealisable": "board",
            "OscillatorGraph": "oscillator_graph",
            "OscillatorNetwork": "oscillators",
            "PairedCircuit": "paired_circuit",
            "Part": "parts",
            "Parts": "parts",
            "ResistiveNetwork": "resistive",
            "UnitGraph": "unit_graph",
            "map_pcn": "mapping",
            "transient": "circuit_transients",
        },
    )
