"""
Energy of a settling network
============================

A free system only loses energy as it settles. In a nudged phase it is the sum F = E + beta C that falls, C being
the cost.
"""

import matplotlib.pyplot as plt
import torch

from hardware_models import OscillatorNetwork
from physics_ep import Nudge, SquaredError, simulate

network = OscillatorNetwork([16, 12, 4], seed=1)  # phases in radians
x, y = torch.rand(5, 16, generator=torch.Generator().manual_seed(0)), torch.eye(4)[[0, 1, 2, 3, 0]]

free = simulate(network, x, duration=15.0)
rest = tuple(block[-1] for block in free.state)
nudged = simulate(network, x, duration=15.0, nudge=Nudge(SquaredError(), y, beta=0.5), start=rest)

# %%
# One line an example.

figure, axes = plt.subplots(1, 2, figsize=(7.0, 2.8), layout="constrained")
for axis, course, title in zip(axes, (free, nudged), ("free phase", "nudged phase, beta = 0.5"), strict=True):
    axis.plot(course.time, course.energy - course.energy[:1], linewidth=1)
    axis.set(xlabel="time (time constants)", title=title)
axes[0].set_ylabel("F since the start")
plt.show()
