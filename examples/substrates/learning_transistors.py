"""Sixteen transistors as trainable resistors: a learning network on a regression, after Dillavou and others 2022.

The gates learn; the output is the difference of two nodes. Prints the mean squared error over training by
asymmetric equilibrium propagation, by the exact gradient, and by coupled learning, a local rule that is no gradient
here. The last number is how far the first two end from each other, over where they end: below 0.01.
"""

import torch

from hardware_models import Circuit, Part, Parts
from physics_ep import EquilibriumPropagation, SquaredError
from physics_ep.estimators.coupled_learning import CoupledLearning
from validation import implicit_gradient

LAW = (1e-5, 0.7, 0.02, 1e-5, 1e-6, 0.5, 0.65)  # KP, VTO, LAMBDA, W, L, GAMMA, PHI
EDGES = [
    "a-p",
    "p-0",
    "a-q",
    "p-r",
    "0-s",
    "q-r",
    "r-s",
    "q-b",
    "r-t",
    "s-rail",
    "b-t",
    "t-rail",
]  # a 3 x 3 lattice
EDGES += ["a-r", "p-s", "q-t", "r-rail"]  # and a diagonal in each of its cells
x = 0.45 * torch.rand(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))  # volts of a, b, rail
x[:, 2] = 0.45
y = 0.15 * x[:, :1] + 0.25 * x[:, 1:2] - 0.12  # volts between q and s


def network() -> Circuit:
    """The lattice, with gates between 2 and 3 volts."""
    gates = 2 + torch.rand(16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    parts = [Part(f"V{n}", "voltage_source", (n, "0"), (0.0,)) for n in ("a", "b", "rail")]
    for k, (edge, gate) in enumerate(zip(EDGES, gates.tolist(), strict=True)):
        parts.append(Part(f"M{k}", "nmos_resistor", (*edge.split("-"), "0"), (gate, *LAW)))  # drain, source, bulk
    return Circuit(Parts.collect(parts), outputs=["v(q,s)"])


curves = {}
for name in ("asymmetric EP", "exact gradient", "coupled learning"):
    circuit, curve = network(), []
    rule = CoupledLearning(0.1) if name == "coupled learning" else EquilibriumPropagation(SquaredError(), beta=1e-7)
    optimizer = torch.optim.Adam(circuit.parameters(), lr=0.15)
    for _ in range(17):
        optimizer.zero_grad()
        step = rule.backward(circuit, x, y)
        curve.append(2e6 * float(SquaredError()(step.outputs, y).mean()))
        if name == "exact gradient":
            circuit.gate.grad = implicit_gradient(circuit, x, y, SquaredError())["gate"]
        optimizer.step()
    curves[name] = curve
    print(f"{name:18s}", *(f"{error:9.1f}" for error in curve[::4]), "mV^2")
print("apart at the end", abs(curves["asymmetric EP"][-1] / curves["exact gradient"][-1] - 1))
