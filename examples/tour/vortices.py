"""A lattice of oscillators with random phases loses its vortices in pairs.

Prints how many vortices there are before and after a hundred steps of descent, the sum of all windings, which is
zero on a torus, and the share of the vortices that is left: below 0.1.
"""

import torch

from hardware_models import OscillatorGraph
from hardware_models.oscillators.vortices import vortex_count, windings
from physics_ep import relax

shape = (64, 64)
lattice = OscillatorGraph.lattice(shape, ground="quotient")
x = torch.zeros(1, 0)
start = lattice.random_state(x, torch.Generator().manual_seed(0))
state = relax(lattice, x, start=start, solver="gradient_flow", max_iterations=100).state
print(vortex_count(lattice.phases(start), shape), vortex_count(lattice.phases(state), shape))
print(windings(lattice.phases(state), shape).sum())  # 0

left = vortex_count(lattice.phases(state), shape) / vortex_count(lattice.phases(start), shape)
print("share of the vortices that is left:", float(left))
