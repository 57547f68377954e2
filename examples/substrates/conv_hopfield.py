"""A convolutional Hopfield network settles on images of digits, and EP finds the gradient of its kernels.

Prints the shapes of the layers' states, the residual of the free phase, and each parameter's cosine with the exact
gradient (implicit differentiation). The last number is the worst of them, above 0.999.
"""

import torch

from hardware_models import ConvHopfieldNetwork
from physics_ep import SquaredError, relax
from physics_ep.data import digits
from validation import gradient_report

system = ConvHopfieldNetwork([1, 8, 8], [4, 6], 10, activation="tanh", pool_after=[1]).double()
data = digits()
x = data.train_x[:8].reshape(8, 1, 8, 8).double()
y = torch.eye(10, dtype=torch.float64)[data.train_y[:8]]

free = relax(system, x).require()
print("layers", [tuple(block.shape[1:]) for block in free.state], "residual", float(free.residual.max()))

report = gradient_report(system, x, y, SquaredError(), beta=0.01)
for row in report.rows:
    print(row.name, row.cosine)
print("worst cosine", report.worst_cosine)
