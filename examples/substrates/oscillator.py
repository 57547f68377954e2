"""Layers of coupled phase oscillators lock, free and nudged, on the branch of their free state.

Prints the residual of the free phase, the smallest curvature of the energy there (positive: a minimum), and each
parameter's cosine with the exact gradient (implicit differentiation). The last number is the worst of them, above
0.999.
"""

import torch

from hardware_models import OscillatorNetwork
from physics_ep import SquaredError, relax, smallest_curvature
from validation import gradient_report

generator = torch.Generator().manual_seed(0)
network = OscillatorNetwork([16, 12, 4]).double()  # phases in radians
x = torch.rand(8, 16, generator=generator, dtype=torch.float64)
y = torch.eye(4, dtype=torch.float64)[torch.arange(8) % 4]

free = relax(network, x).require()
print(
    "residual",
    float(free.residual.max()),
    "smallest curvature",
    float(smallest_curvature(network, free.state, x).min()),
)

report = gradient_report(network, x, y, SquaredError(), beta=0.001)
for row in report.rows:
    print(row.name, row.cosine)
print("worst cosine", report.worst_cosine)
