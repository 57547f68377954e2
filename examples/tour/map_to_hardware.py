"""One network on three substrates, on poor devices, and over a sweep of one imperfection.

The devices have 4 bits and a programming noise of 5 %. The cells of one weight err alike, an ideal that separate
parts do not have. Prints the gradient's error to the network that the arrays hold (feedforward) and to the one that
was meant (transfer), what the mapping asks of resistors and oscillators, and a table: mismatch of the two copies of
the arrays, the worst layer's cosine, and nudged phases that did not settle. The last number counts these; it is 0.
"""

import torch

from hardware_models import DeviceModel, map_pcn
from hardware_models.devices import preset
from physics_ep import CrossEntropy
from physics_ep.predictive_coding import mlp
from validation import backprop_gradient, tolerance
from validation.gradients import total_error

net = mlp([20, 64, 64, 10], activation="relu")
x, labels = torch.randn(32, 20), torch.arange(32) % 10

device = DeviceModel(levels=16, programming_noise=0.05, copies="shared")  # or preset("pcm"), "reram", "sram", ...
for substrate in ("hopfield", "resistive", "oscillator"):
    mapped = map_pcn(net, substrate, device, seed=0, calibration=x)
    gradient = mapped.gradient(x, labels, CrossEntropy(), beta=0.01)  # by EP, on the substrate
    own, meant = (backprop_gradient(n, x, labels, CrossEntropy()) for n in (mapped.perturbed, net))
    print(substrate, "feedforward", total_error(gradient, own), "transfer", total_error(gradient, meant))

fidelity = map_pcn(net, "resistive", preset("pcm"), calibration=x).fidelity
for row in fidelity.layers:
    print(row.name, "rail gain", row.gain, "node", row.total_conductance, "S,", row.power, "W")
print(map_pcn(net, "oscillator", calibration=x).fidelity.settling_time, "s")

table = tolerance(net, x, labels, CrossEntropy(), sweeps={"copy_mismatch_transpose": [0.001, 0.01]}, repeats=3)
for point in table.points:
    print(point.field, point.value, point.worst_layer("adaptation").adaptation.cosine, point.unconverged)
