"""
Oscillators lock
================

Phases of coupled oscillators on the circle: each line is an oscillator that comes to rest at a phase of its own.
"""

import matplotlib.pyplot as plt
import torch

from hardware_models import OscillatorNetwork
from physics_ep import simulate

network = OscillatorNetwork([16, 12, 4], gain=2.0, field=0.3, seed=1)
x = torch.rand(1, 16, generator=torch.Generator().manual_seed(0))
course = simulate(network, x, duration=12.0)

# %%
# Time runs outwards.

figure, axis = plt.subplots(figsize=(3.6, 3.6), subplot_kw={"projection": "polar"}, layout="constrained")
for block, colour in zip(course.state, ("C0", "C1"), strict=True):
    for k in range(block.shape[-1]):
        axis.plot(block[:, 0, k], course.time, color=colour, linewidth=1)
axis.set_yticks([4, 8, 12])
axis.set_title("hidden (blue) and output (orange) phases", fontsize=9)
plt.show()
