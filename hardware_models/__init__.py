"""Substrates: physical systems that learn, and the devices that they are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from physics_ep.faces import lazy

if TYPE_CHECKING:
    from .circuits.active import ActiveCircuit as ActiveCircuit
    from .analog.circuit import AnalogHopfieldCircuit as AnalogHopfieldCircuit
    from .mapping.board import NotRealisable as NotRealisable
    from .circuits.circuit import Circuit as Circuit
    from .nodal.courses import CircuitTrajectory as CircuitTrajectory
    from .nodal.transients import transient as transient
    from .nodal.small_signals import (
        FrequencyResponse as FrequencyResponse,
        frequency_response as frequency_response,
    )
    from .devices.model import DeviceModel as DeviceModel
    from .mapping.fidelity import Fidelity as Fidelity
    from .media.medium import FitzHughNagumoChain as FitzHughNagumoChain
    from .hopfield.network import (
        ConvHopfieldNetwork as ConvHopfieldNetwork,
        HopfieldNetwork as HopfieldNetwork,
    )
    from .hopfield.langevin import LangevinHopfield as LangevinHopfield
    from .mapping.in_situ import InSitu as InSitu
    from .mapping.mapped import Mapped as Mapped, map_pcn as map_pcn
    from .oscillators.directed import DirectedOscillators as DirectedOscillators
    from .oscillators.graph import OscillatorGraph as OscillatorGraph
    from .oscillators.network import OscillatorNetwork as OscillatorNetwork
    from .mapping.circuit import PairedCircuit as PairedCircuit
    from .netlists.parts import Part as Part, Parts as Parts
    from .netlists.op_amps import op_amp as op_amp
    from .hopfield.recurrent import RecurrentNetwork as RecurrentNetwork
    from .resistive.network import ResistiveNetwork as ResistiveNetwork
    from .hopfield.graph import UnitGraph as UnitGraph
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "ActiveCircuit": "circuits.active",
            "AnalogHopfieldCircuit": "analog.circuit",
            "Circuit": "circuits.circuit",
            "CircuitTrajectory": "nodal.courses",
            "ConvHopfieldNetwork": "hopfield.network",
            "DeviceModel": "devices.model",
            "DirectedOscillators": "oscillators.directed",
            "Fidelity": "mapping.fidelity",
            "FrequencyResponse": "nodal.small_signals",
            "frequency_response": "nodal.small_signals",
            "FitzHughNagumoChain": "media.medium",
            "HopfieldNetwork": "hopfield.network",
            "InSitu": "mapping.in_situ",
            "LangevinHopfield": "hopfield.langevin",
            "Mapped": "mapping.mapped",
            "NotRealisable": "mapping.board",
            "OscillatorGraph": "oscillators.graph",
            "OscillatorNetwork": "oscillators.network",
            "PairedCircuit": "mapping.circuit",
            "Part": "netlists.parts",
            "Parts": "netlists.parts",
            "RecurrentNetwork": "hopfield.recurrent",
            "ResistiveNetwork": "resistive.network",
            "UnitGraph": "hopfield.graph",
            "map_pcn": "mapping.mapped",
            "op_amp": "netlists.op_amps",
            "transient": "nodal.transients",
        },
    )
