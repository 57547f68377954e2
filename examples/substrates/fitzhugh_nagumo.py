"""An excitable medium rests in a saddle of its energy: u descends, v ascends, and EP still finds the gradient.

Prints the residual of the resting state, the rightmost eigenvalue of its motion (negative real part: it is stable),
and each parameter's cosine with the exact gradient. The last number is the worst of them, above 0.999.
"""

import torch

from hardware_models import FitzHughNagumoChain
from physics_ep import SquaredError, relax
from validation import gradient_report

generator = torch.Generator().manual_seed(0)
medium = FitzHughNagumoChain([8, 20, 3]).double()
x = torch.rand(4, 8, generator=generator, dtype=torch.float64)
y = torch.rand(4, 3, generator=generator, dtype=torch.float64)

rest = relax(medium, x).require()
print("residual", float(rest.residual.max()), "rightmost", float(medium.spectrum(rest.state, x).real.max()))

report = gradient_report(medium, x, y, SquaredError(), beta=0.001)
for row in report.rows:
    print(row.name, row.cosine)
print("worst cosine", report.worst_cosine)
