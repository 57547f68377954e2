"""A predictive coding network on arrays of 16-level cells, settled by amplifiers, resistors or oscillators.

Prints for each substrate the error of EP's gradient to the network that the arrays hold (feedforward), and to the
one that was meant (transfer). The cells of one weight err alike here, an ideal that separate parts do not have. The
last number is the largest feedforward error, below 1e-3.
"""

import torch

from hardware_models import DeviceModel, map_pcn
from physics_ep import CrossEntropy
from physics_ep.predictive_coding import mlp
from validation import backprop_gradient
from validation.gradients import total_error

generator = torch.Generator().manual_seed(0)
net = mlp([12, 16, 4], activation="relu")
x, labels = torch.randn(16, 12, generator=generator), torch.arange(16) % 4
device = DeviceModel(levels=16, programming_noise=0.05, copies="shared")  # an ideal: cells of a weight err alike

worst = 0.0
for substrate in ("hopfield", "resistive", "oscillator"):
    mapped = map_pcn(net, substrate, device, seed=0, calibration=x)
    gradient = mapped.gradient(x, labels, CrossEntropy(), beta=0.01)
    feedforward = total_error(gradient, backprop_gradient(mapped.perturbed, x, labels, CrossEntropy()))
    transfer = total_error(gradient, backprop_gradient(net, x, labels, CrossEntropy()))
    print(substrate, "feedforward", feedforward, "transfer", transfer)
    worst = max(worst, feedforward)
print("largest feedforward error", worst)
