"""Phases of coupled oscillators settle; the energy of each example over time goes to energy.pdf.

The last number is the largest rise of an energy between two points in time: it only falls, but for the rounding of
energies of some 40 in float32, a few times 4e-6.
"""

import matplotlib.pyplot as plt
import torch

from hardware_models import OscillatorNetwork
from physics_ep import simulate

network = OscillatorNetwork([64, 32, 10])  # phases in radians
trajectory = simulate(network, torch.rand(4, 64), duration=20.0)
plt.plot(trajectory.time, trajectory.energy)
plt.xlabel("time (time constants)")
plt.ylabel("energy")
plt.savefig("energy.pdf")
print("largest rise", float(trajectory.energy.diff(dim=0).max().clamp_min(0)))
