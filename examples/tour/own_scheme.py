"""A nudging scheme of your own: four nudges whose errors cancel up to fourth order in beta.

Prints the relative error of the gradient under the centered scheme and under this one, at the same beta. The last
number, the second over the first, is below 0.1.
"""

import torch

from hardware_models import HopfieldNetwork
from physics_ep import SquaredError
from physics_ep.nudging import Stencil
from validation import gradient_report

five_point = Stencil("five_point", (2.0, 1.0, -1.0, -2.0), (-1 / 12, 8 / 12, -8 / 12, 1 / 12), order=4)

x, y = torch.rand(8, 12, dtype=torch.float64), torch.eye(3, dtype=torch.float64)[torch.arange(8) % 3]
network = HopfieldNetwork([12, 16, 3], activation="tanh").double()
errors = [
    gradient_report(network, x, y, SquaredError(), scheme=scheme, beta=0.05, tolerance=1e-12).relative_error
    for scheme in ("centered", five_point)
]
print("centered", errors[0], "five points", errors[1], "ratio", errors[1] / errors[0])
