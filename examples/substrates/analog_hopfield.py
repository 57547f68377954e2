"""Hopfield's circuit of 1984 in SI units: amplifiers, resistors and capacitors that compute what the network does.

Prints the resistances of the nodes, the current that is missing at rest, and the power that the resistors turn into
heat. The last number is the largest difference between the circuit's outputs, over the supply voltage, and those of
the network that it was built from, below 1e-8.
"""

import torch

from hardware_models import AnalogHopfieldCircuit, HopfieldNetwork
from physics_ep import relax

network = HopfieldNetwork([8, 6, 3], activation="tanh").double()
circuit = AnalogHopfieldCircuit.from_network(network, resistance=1e5, capacitance=1e-13, supply=0.8)
x = torch.rand(4, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

free = relax(network, x, tolerance=1e-12).require()
rest = relax(circuit, circuit.supply * x, tolerance=1e-16).require()  # inputs in volts, the residual in amperes
print("resistances", float(circuit.resistance.min()), "to", float(circuit.resistance.max()), "ohm")
print("missing", float(rest.residual.max()), "A")

volts, numbers = circuit.outputs(rest.state), network.outputs(free.state)
print("largest difference", float((volts / circuit.supply - numbers).abs().max()))
