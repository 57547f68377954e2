"""A report of gradients becomes a table for a paper.

Prints LaTeX, a row a parameter with the cosine and the relative error of EP's gradient. The last number is the
relative error of the whole gradient, which is below 1e-3. Needs pandas (`pip install 'physics-ep[tables]'`).
"""

import torch

from hardware_models import HopfieldNetwork
from physics_ep import SquaredError
from validation import gradient_report

system, x, y = HopfieldNetwork([8, 6, 3], "tanh"), torch.rand(4, 8), torch.eye(3)[[0, 1, 2, 0]]
report = gradient_report(system, x, y, SquaredError(), beta=1e-2)
print(report.to_latex(["parameter", "cosine", "relative error"], caption="EP against the implicit gradient"))
print("relative error of the whole gradient", report.relative_error)
