"""A substrate of your own, coupled pendulums: an energy, a start and outputs are all that EP needs.

Prints the worst cosine of EP's gradient with the exact one (implicit differentiation), above 0.9999.
"""

import torch

from physics_ep import EnergySystem, SquaredError
from validation import check_system, gradient_report


class Pendulums(EnergySystem):
    """Coupled pendulums under gravity, driven by torques W x; the first two angles are the outputs."""

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(0.3 * torch.randn(5, 4, generator=torch.Generator().manual_seed(0)))
        self.k = torch.nn.Parameter(torch.full((5, 5), 0.1))

    def energy(self, state, x):
        (angle,) = state
        twist = angle[:, :, None] - angle[:, None, :]
        return -angle.cos().sum(1) - (angle * (x @ self.w.t())).sum(1) + 0.25 * (self.k * twist**2).sum((1, 2))

    def initial_state(self, x):
        return (torch.zeros(x.shape[0], 5, dtype=x.dtype),)

    def outputs(self, state):
        return state[0][:, :2]


check_system(Pendulums(), 0.5 * torch.rand(4, 4), torch.zeros(4, 2))  # names the invariant that is broken

x, y = 0.5 * torch.rand(4, 4), torch.zeros(4, 2)
report = gradient_report(Pendulums().double(), x.double(), y.double(), SquaredError(), beta=0.01)
print("worst cosine", report.worst_cosine)
