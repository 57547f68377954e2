"""
How many levels a cell needs
============================

A network is mapped to a circuit of amplifiers whose cells have few conductance levels. EP still finds the gradient
of the network that the cells make (adaptation); that of the network which was meant (transfer) is lost by and by.
"""

import matplotlib.pyplot as plt
import torch

from hardware_models import DeviceModel, map_pcn
from physics_ep import CrossEntropy
from physics_ep.predictive_coding import mlp
from validation import backprop_gradient
from validation.gradients import total_error

torch.manual_seed(0)
network = mlp([12, 24, 5], activation="tanh")
x, labels = torch.randn(16, 12), torch.arange(16) % 5
levels = [4, 8, 16, 32, 64, 128, 256]
adaptation, transfer = [], []
for count in levels:
    mapped = map_pcn(network, "hopfield", DeviceModel(levels=count), seed=0, calibration=x)
    gradient = mapped.gradient(x, labels, CrossEntropy(), beta=0.01)
    adaptation.append(total_error(gradient, backprop_gradient(mapped.perturbed, x, labels, CrossEntropy())))
    transfer.append(total_error(gradient, backprop_gradient(network, x, labels, CrossEntropy())))

# %%

figure, axis = plt.subplots(figsize=(4.5, 3.2), layout="constrained")
axis.loglog(levels, transfer, "o-", markersize=4, label="to the network that was meant")
axis.loglog(levels, adaptation, "s-", markersize=4, label="to the network that the cells make")
axis.set(xlabel="conductance levels of a cell", ylabel="relative error of the gradient")
axis.legend(frameon=False)
plt.show()
