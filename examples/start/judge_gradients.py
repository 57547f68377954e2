"""A torch model as a predictive coding network: its EP gradient is held against backprop's; then it is a circuit.

Prints the size of the first layer's gradient on the circuit, whose cells have 16 levels. The last number is the
worst cosine of a parameter of the network with backprop, above 0.9999.
"""

import torch

from hardware_models import DeviceModel, map_pcn
from physics_ep import CrossEntropy
from physics_ep.predictive_coding import from_sequential
from validation import gradient_report

model = torch.nn.Sequential(torch.nn.Linear(20, 64), torch.nn.Tanh(), torch.nn.Linear(64, 10))
x, labels = torch.randn(32, 20), torch.arange(32) % 10

network = from_sequential(model, (20,))  # its free equilibrium is the model's forward pass
report = gradient_report(network, x, labels, CrossEntropy(), beta="auto", oracle="backprop")

mapped = map_pcn(network, "hopfield", DeviceModel(levels=16, programming_noise=0.05), calibration=x)
gradient = mapped.gradient(x, labels, CrossEntropy(), beta=0.01)  # by EP, on the circuit
print("first layer on the circuit", float(gradient["layers.0.weight"].norm()))
print("worst cosine to backprop", report.worst_cosine)
