"""Plain Hopfield, resistive and oscillator networks on the cells of a device: levels, errors, pulses.

Prints, for each network, how far the weights that its cells hold are from those that were asked for, EP's worst
cosine with the exact gradient of the network that the cells make, and the pulses that a step of learning takes. The
last number is the worst of these cosines, above 0.99.
"""

import torch

from hardware_models import DeviceModel, HopfieldNetwork, OscillatorNetwork, ResistiveNetwork
from physics_ep import EquilibriumPropagation, SquaredError
from validation import gradient_report

device = DeviceModel(levels=16, programming_noise=0.02, device_mismatch=0.05, stuck_off=0.01)  # or a name: "reram"
generator = torch.Generator().manual_seed(0)
x, y = torch.rand(8, 16, generator=generator).double(), torch.eye(4).double().repeat(2, 1)

worst = 1.0
for build, rate in ((HopfieldNetwork, 2.0), (ResistiveNetwork, 2e-8), (OscillatorNetwork, 2.0)):
    asked = build([16, 12, 4]).double()
    # `seed` stays that of the weights. With room to learn, a cell at g_max is twice the largest weight.
    network = build([16, 12, 4], device=device, device_seed=1, device_headroom=2.0).double()
    first, held = (next(system.parameters()).detach() for system in (asked, network))
    off = float((held - first).norm() / first.norm())
    cosine = gradient_report(network, x, y, SquaredError(), beta="auto", oracle="implicit").worst_cosine

    optimizer = torch.optim.SGD(network.parameters(), lr=rate)  # of conductances S^2/V^2
    EquilibriumPropagation(SquaredError(), beta="auto").backward(network, x, y)
    optimizer.step()  # a wish ...
    network.constrain()  # ... that becomes pulses on the same cells; EP does so before each gradient
    print(type(network).__name__, "off by", round(off, 2), "worst cosine", cosine, "pulses", network.pulses)
    worst = min(worst, cosine)

print("worst cosine", worst)
