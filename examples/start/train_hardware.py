"""A Hopfield network learns by settling: one free and two nudged phases a step, and any optimizer of torch.

Prints the loss after 20 steps. The last number is the largest residual of the last free phase, below 1e-4.
"""

import torch

from hardware_models import HopfieldNetwork
from physics_ep import EquilibriumPropagation, SquaredError

network = HopfieldNetwork([64, 128, 10], activation="tanh")  # an nn.Module
x, y = torch.rand(32, 64), torch.eye(10)[torch.arange(32) % 10]

ep = EquilibriumPropagation(SquaredError(), scheme="centered", beta=0.01)
optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
for _ in range(20):
    optimizer.zero_grad()
    step = ep.backward(network, x, y)  # settles three times, and fills .grad as loss.backward() would
    optimizer.step()
print("loss", float(step.loss), "residual", float(step.equilibria[0].residual.max()))
