"""A Hopfield network settles, learns a batch by equilibrium propagation, and has its gradient judged.

Prints the status, sweeps and residual of a nudged phase, the loss after 20 steps, and then, for the gradient, the
worst cosine of a parameter with the exact one (implicit differentiation). The last number is the relative error of
the whole gradient, which is below 1e-3.
"""

import torch

from hardware_models import HopfieldNetwork
from physics_ep import EquilibriumPropagation, Nudge, SquaredError, relax
from validation import gradient_report

system = HopfieldNetwork([64, 128, 10], activation="tanh")  # an nn.Module
x, y = torch.rand(32, 64), torch.eye(10)[torch.arange(32) % 10]

free = relax(system, x).require()  # an equilibrium, or NotConverged
nudged = relax(system, x, nudge=Nudge(SquaredError(), y, beta=0.1), start=free.state)
print(nudged.status.name, nudged.iterations, float(nudged.residual.max()))

ep = EquilibriumPropagation(SquaredError(), scheme="centered", beta=0.01)
optimizer = torch.optim.SGD(system.parameters(), lr=0.05)
for _ in range(20):
    optimizer.zero_grad()
    step = ep.backward(system, x, y)  # fills .grad, as loss.backward() would
    optimizer.step()
print("loss", float(step.loss))

report = gradient_report(system, x, y, SquaredError(), beta=0.01)  # against implicit differentiation
print("worst cosine", report.worst_cosine, "relative error", report.relative_error)
