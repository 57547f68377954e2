"""A small convolutional predictive coding network: two linear passes of a nudged phase give backprop's gradient.

Prints the beta that the measured stability limit allows, the sweeps and residual of the nudged phases, and each
parameter's cosine with backprop. The last number is the relative error of the whole gradient, below 0.02.
"""

import torch

from physics_ep import CrossEntropy, EquilibriumPropagation
from physics_ep.predictive_coding import from_sequential
from validation import gradient_report

torch.manual_seed(0)
model = torch.nn.Sequential(
    torch.nn.Conv2d(1, 4, 3, padding=1),
    torch.nn.ReLU(),
    torch.nn.MaxPool2d(2),
    torch.nn.Flatten(),
    torch.nn.Linear(64, 10),
)
net = from_sequential(model, (1, 8, 8))
x, labels = torch.rand(16, 1, 8, 8), torch.arange(16) % 10
print("free phase is the forward pass:", torch.allclose(net(x), model(x), atol=1e-6))

ep = EquilibriumPropagation(CrossEntropy(), beta="auto")
step = ep.backward(net, x, labels)
for phase in step.equilibria[1:]:
    print("beta", ep.beta, "sweeps", phase.iterations, "residual", float(phase.residual.max()))

report = gradient_report(net, x, labels, CrossEntropy(), beta="auto")  # its oracle is backprop
for row in report.rows:
    print(row.name, row.cosine)
print("relative error", report.relative_error)
