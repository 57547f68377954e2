"""A network of resistors and diodes, and a circuit of three parts, which goes through a netlist and back.

Prints the voltage of the diode, the current that is missing at its node, and whether the operating point is the
only one. The last number is the voltage by which the circuit that was read back from its netlist differs, below
1e-9.
"""

import torch

from hardware_models import Circuit, Part, Parts, ResistiveNetwork
from physics_ep import EquilibriumPropagation, SquaredError

network = ResistiveNetwork([64, 128, 10], diode="ideal", input_gain=0.5)  # volts; up to 9 uS; "shockley", "none"
x, y = torch.rand(32, 64), 0.01 * torch.eye(10)[torch.arange(32) % 10]  # targets in volts
step = EquilibriumPropagation(SquaredError(), beta=2e-5).backward(network, x, y)  # a conductance to the target

parts = [
    Part("V1", "voltage_source", ("in", "0"), (5.0,)),
    Part("R1", "resistor", ("in", "out"), (1e-3,)),  # siemens
    Part("D1", "diode", ("out", "0"), (1e-14, 1.0)),  # Is in amperes, emission coefficient
]
circuit = Circuit(Parts.collect(parts), outputs=["out"])
point = circuit.operating_point()  # by Newton, to 1e-12 A
print(circuit.node_voltages(point)["out"], "V, missing", float(point.residual_si), "A, unique:", circuit.unique)
circuit.to_netlist("diode.cir")
same = Circuit.from_netlist("diode.cir")  # 10k, 1meg, .param, .model, .subckt as SPICE reads them

layered = ResistiveNetwork([4, 6, 2], diode="shockley", amplification=4.0).to_circuit()  # part by part

again = same.node_voltages(same.operating_point())["out"]
print("volts between the circuit and its netlist, read back:", abs(again - circuit.node_voltages(point)["out"]))
