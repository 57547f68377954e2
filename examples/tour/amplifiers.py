"""An op amp inverts, a transconductance drives a diode: there is no energy, and asymmetric EP is exact.

Prints the method and its gradient by the transconductances, that of the op amp and that of the diode's driver; the
derivatives of the output by each resistor; the rightmost eigenvalue of the motion; at last EP's gradient by the
second transconductance over the exact one: 1.
"""

import torch

from hardware_models import Circuit, Part, Parts, op_amp
from physics_ep import EquilibriumPropagation, SquaredError

parts = [
    Part("V1", "voltage_source", ("in", "0"), (0.4,)),
    Part("R1", "resistor", ("in", "minus"), (1e-4,)),
    Part("R2", "resistor", ("minus", "out"), (2e-5,)),
    *op_amp("U1", "0", "minus", "out", gain=1e5, gain_bandwidth=1e6, output_resistance=75.0),
    Part("G1", "vccs", ("q", "0", "out", "0"), (2e-4,)),  # siemens; nodes of the output, then of the control
    Part("R3", "resistor", ("q", "0"), (1e-4,)),
    Part("D1", "diode", ("q", "0"), (1e-14, 1.0)),
]
circuit = Circuit(Parts.collect(parts), outputs=["q"])  # an ActiveCircuit
x, y = torch.tensor([[0.4]], dtype=torch.float64), torch.tensor([[0.5]], dtype=torch.float64)
step = EquilibriumPropagation(SquaredError(), beta=1e-7).backward(circuit, x, y)
print(step.method, circuit.vccs_transconductance.grad)  # asymmetric ...
print(circuit.sensitivities()["conductance"])  # dv(q)/dg of every resistor, by the exact adjoint
print(circuit.eigenvalue(step.equilibria[0].state, x))  # 1/s; stable below 0

error = circuit.outputs(step.equilibria[0].state) - y
exact = (error[:, :, None] * circuit.sensitivities()["vccs_transconductance"]).sum((0, 1))
print("EP over exact:", float(circuit.vccs_transconductance.grad[1] / exact[1]))
