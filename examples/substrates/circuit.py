"""A circuit of any parts: a bridge with a diode is solved, nudged, and its conductances get their gradient by EP.

The bridge is balanced but for the diode across it. Prints the voltages of its nodes, the current that is missing at
them, and the gradient of every conductance. The last number is the worst cosine of EP's gradient with the exact one
(implicit differentiation), above 0.9999.
"""

import torch

from hardware_models import Circuit, Part, Parts
from physics_ep import SquaredError
from validation import gradient_report

parts = [
    Part("V1", "voltage_source", ("in", "0"), (2.0,)),  # volts
    Part("R1", "resistor", ("in", "left"), (1e-3,)),  # siemens
    Part("R2", "resistor", ("left", "0"), (2e-3,)),
    Part("R3", "resistor", ("in", "right"), (3e-3,)),
    Part("R4", "resistor", ("right", "0"), (1e-3,)),
    Part("D1", "diode", ("right", "left"), (1e-14, 1.0)),  # saturation current in amperes, emission coefficient
]
circuit = Circuit(Parts.collect(parts), outputs=["left", "right"])
point = circuit.operating_point()
print(circuit.node_voltages(point), "missing", float(point.residual_si), "A")

x = torch.tensor([[2.0], [1.0], [-1.0]], dtype=torch.float64)  # of the source, volts
y = torch.tensor([[0.8, 1.2], [0.4, 0.6], [0.0, 0.0]], dtype=torch.float64)  # wanted at the outputs, volts
report = gradient_report(circuit, x, y, SquaredError(), beta=1e-5)  # beta in siemens
for row in report.rows:
    print(row.name, "cosine", row.cosine, "relative error", row.relative_error)
print("worst cosine", report.worst_cosine)
