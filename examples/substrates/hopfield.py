"""A Hopfield network of amplifiers settles on real digits; its EP gradient has the order that the scheme declares.

Prints the sweeps and residual of the free phase, and for each beta the relative error of the centered gradient
against implicit differentiation, in float64. The last number is the slope of log error over log beta: 2, within
0.05.
"""

import math

import torch

from hardware_models import HopfieldNetwork
from physics_ep import SquaredError, relax
from physics_ep.data import digits
from validation import gradient_report

system = HopfieldNetwork([64, 32, 10], activation="tanh").double()
data = digits()
x = data.train_x[:16].flatten(1).double()
y = torch.eye(10, dtype=torch.float64)[data.train_y[:16]]

free = relax(system, x).require()
print("sweeps", free.iterations, "residual", float(free.residual.max()))

betas = (0.04, 0.02)
errors = [gradient_report(system, x, y, SquaredError(), beta=beta).relative_error for beta in betas]
for beta, error in zip(betas, errors, strict=True):
    print("beta", beta, "relative error", error)
print("order", math.log(errors[0] / errors[1]) / math.log(betas[0] / betas[1]))
