"""Whether the free states of a network on cells that err apart are stable in time, by certificate.

Resistors and diodes, 0.2 % of programming noise, states found by Newton's method. Prints the share of the examples
that are certified stable, the share that is undecided, the rightmost eigenvalue over all (in units of one over a
node's time constant, negative), and the largest radius within which nothing is decided. The radius is below 0.1.
"""

import torch

from hardware_models import DeviceModel, map_pcn
from hardware_models.mapping.stability import certify
from physics_ep import relax
from physics_ep.predictive_coding import mlp

torch.manual_seed(0)
x = torch.rand(8, 20, dtype=torch.float64)
apart = map_pcn(mlp([20, 32, 10]).double(), "resistive", DeviceModel(programming_noise=0.002), calibration=x)
free = relax(apart.system, x, solver="newton", tolerance=1e-9)
told = certify(apart.system, free.state, x)
print(told.share("stable"), told.share("undecided"), float(told.eigenvalue.real.max()), float(told.radius.max()))
