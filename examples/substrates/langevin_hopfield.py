"""A Hopfield network at a temperature: nothing rests, averages over noise take the place of equilibria.

EP's gradient is then that of the mean cost. Prints the evidence that the chains are stationary (the virial ratio is
1 in a stationary state), the mean cost with its standard error, and the gradient's cosine with the one at rest. The
last number is that cosine, above 0.99 at this low temperature.
"""

import torch

from hardware_models import LangevinHopfield
from physics_ep import SquaredError, StochasticEquilibriumPropagation
from validation import implicit_gradient

generator = torch.Generator().manual_seed(0)
system = LangevinHopfield([6, 5, 3], temperature=0.01).double()
x = torch.rand(3, 6, generator=generator, dtype=torch.float64)
y = torch.eye(3, dtype=torch.float64)

ep = StochasticEquilibriumPropagation(SquaredError(), beta=0.1, chains=64, burn_in=10.0, duration=20.0, step=0.1)
hot = ep.estimate(system, x, y)
print("stationary", hot.stationary, "virial ratio", hot.virial_ratio)
print("mean cost", hot.loss, "+-", hot.loss_error)

cold = implicit_gradient(system, x, y, SquaredError())
one, other = (torch.cat([gradient[name].flatten() for name in cold]) for gradient in (hot.gradients, cold))
print("cosine", float(torch.nn.functional.cosine_similarity(one, other, dim=0)))
