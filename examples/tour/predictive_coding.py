"""A predictive coding network: its free phase is a forward pass, and its gradient is that of backprop.

Prints how the published solver ended, the beta that the measured stability limit allows, and the sweeps and
residual of the nudged phase at that beta. The last number is the relative error of EP's gradient against backprop,
which is below 0.02.
"""

import torch

from physics_ep import CrossEntropy, EquilibriumPropagation, Nudge, relax
from physics_ep.predictive_coding import from_sequential, mlp
from validation import backprop_gradient
from validation.gradients import total_error

net = mlp([20, 64, 64, 10], activation="relu")  # vgg5(), vgg10() and vgg10_skip() likewise
x, labels = torch.randn(32, 20), torch.arange(32) % 10

free = relax(net, x)  # the forward pass: net(x)
nudged = relax(
    net, x, nudge=Nudge(CrossEntropy(), labels, beta=0.02), start=free.state, solver="mod_pgd", gates="live"
)
print(nudged.solver, nudged.iterations, nudged.status.name)  # the paper's solver, with the residual it lacks

ep = EquilibriumPropagation(CrossEntropy(), beta="auto")  # beta from the measured stability limit and bias
step = ep.backward(net, x, labels)
print(
    "beta", ep.beta, "sweeps", step.equilibria[1].iterations, "residual", float(step.equilibria[1].residual.max())
)

model = torch.nn.Sequential(torch.nn.Linear(20, 32), torch.nn.Tanh(), torch.nn.Linear(32, 10))
same = from_sequential(model, (20,), energy="paired")  # the energy that hardware can hold, with the model's weights

exact = backprop_gradient(net, x, labels, CrossEntropy())
found = {name: parameter.grad for name, parameter in net.named_parameters()}
print("relative error", total_error(found, exact))
