"""
How strongly to nudge
=====================

Strong nudges bend the estimate; the error falls with beta by the order of the scheme. Weak nudges drown in
rounding, here in float32, and in noise on hardware.
"""

import matplotlib.pyplot as plt
import torch

from hardware_models import HopfieldNetwork
from physics_ep import SquaredError
from validation import gradient_report

network = HopfieldNetwork([10, 16, 4], activation="tanh", seed=0)
x, y = torch.rand(8, 10, generator=torch.Generator().manual_seed(2)), torch.eye(4)[torch.arange(8) % 4]
strengths = [1e-6, 1e-5, 1e-4, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.8]

errors = {
    scheme: [
        gradient_report(network, x, y, SquaredError(), scheme=scheme, beta=beta).relative_error
        for beta in strengths
    ]
    for scheme in ("positive", "centered")
}

# %%

figure, axis = plt.subplots(figsize=(4.5, 3.2), layout="constrained")
for scheme, values in errors.items():
    axis.loglog(strengths, values, "o-", markersize=4, label=scheme)
axis.set(xlabel="nudging strength beta", ylabel="relative error of the gradient")
axis.legend(frameon=False)
plt.show()
