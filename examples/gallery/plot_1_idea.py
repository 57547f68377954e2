"""
The idea in three panels
========================

A machine settles, its outputs are nudged, it settles again; the difference between the two states is the gradient.
"""

import matplotlib.pyplot as plt
import torch

from hardware_models import HopfieldNetwork
from physics_ep import EquilibriumPropagation, Nudge, SquaredError, simulate
from validation import implicit_gradient

# %%
# A Hopfield network of tanh units, one input vector, and a target for its three outputs.

network = HopfieldNetwork([8, 12, 3], activation="tanh", gain=0.8, seed=3)
x = torch.rand(1, 8, generator=torch.Generator().manual_seed(4))
y = torch.tensor([[0.5, -0.4, 0.2]])
cost = SquaredError()

# %%
# It settles freely, and from there with its outputs nudged towards the target. The nudge is strong here, beta = 1,
# so that it can be seen.

free = simulate(network, x, duration=8.0)
rest = tuple(block[-1] for block in free.state)
nudged = simulate(network, x, duration=8.0, nudge=Nudge(cost, y, beta=1.0), start=rest)

# %%
# Two weak nudges, to either side, give the gradient. An exact one comes from implicit differentiation.

EquilibriumPropagation(cost, scheme="centered", beta=0.01).backward(network, x, y)
exact = implicit_gradient(network, x, y, cost)
learned = torch.cat([p.grad.flatten() for _, p in network.named_parameters()])
wanted = torch.cat([exact[name].flatten() for name, _ in network.named_parameters()])

# %%
# The three panels.

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(9.0, 2.9), layout="constrained")
middle.sharey(left)
for k, colour in enumerate(("C0", "C1", "C2")):
    left.plot(free.time, free.state[-1][:, 0, k], color=colour)
    middle.plot(nudged.time, nudged.state[-1][:, 0, k], color=colour)
    middle.axhline(float(y[0, k]), color=colour, linestyle=":", linewidth=1)
left.set_title("1. It settles", fontsize=10)
middle.set_title("2. Nudged towards the target (dotted)", fontsize=10)
right.set_title("3. The difference is the gradient", fontsize=10)
left.set_ylabel("outputs")
limits = float(wanted.abs().max()) * 1.1
for axis in (left, middle):
    axis.set_xlabel("time (time constants)")
right.plot([-limits, limits], [-limits, limits], color="0.7", linewidth=1)
right.plot(wanted, learned, ".", markersize=4)
right.set_xlabel("exact gradient of the cost")
right.set_ylabel("gradient found by settling")
plt.show()
