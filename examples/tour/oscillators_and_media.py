"""Oscillators, excitable media and noise: what can go wrong with an equilibrium there, and how it is told.

Prints why two detuned oscillators do not lock, the twisted states of a ring, whether a medium rests in a stable
state, and the cosine of each layer's early motion with its back-propagated error. The last number is the worst of
those cosines, above 0.999.
"""

import torch

from hardware_models import FitzHughNagumoChain, HopfieldNetwork, OscillatorGraph, OscillatorNetwork
from physics_ep import EquilibriumPropagation, SquaredError, relax, simulate
from physics_ep.landscape import explore
from validation import infer_early

x, y = torch.rand(8, 64), torch.eye(10)[torch.arange(8)]

network = OscillatorNetwork([64, 32, 10])  # phases in radians; second_harmonic=0.25: an oscillator Ising machine
step = EquilibriumPropagation(SquaredError(), beta=0.05).backward(network, x, y)

pair = OscillatorGraph(2, [[0, 1]], 1.0, detuning=[1.5, -1.5], ground="quotient")
print(relax(pair, torch.zeros(1, 0)).status.value)  # no synchronised state, and why

ring = OscillatorGraph.lattice(12, ground="pin")
(basins,) = explore(ring, torch.zeros(1, 0), starts=50)  # twisted states: phases that wind around the ring
print("energies", basins.energy, "smallest curvatures", basins.curvature, "found by", basins.share)

medium = FitzHughNagumoChain([64, 30, 10])  # a skew-gradient system: u descends its energy, v ascends
rest = relax(medium, x).require()
print("stable:", bool((medium.spectrum(rest.state, x).real < 0).all()))

hot = simulate(network, x, 5.0, temperature=0.01, generator=torch.Generator().manual_seed(1))  # Langevin dynamics
early = infer_early(HopfieldNetwork([64, 32, 32, 10], activation="tanh"), x, y, SquaredError(), times=[0.1, 0.3])
for row in early.rows:  # after a tenth of a time constant each layer moves along its back-propagated error
    print(row.time, row.layer, row.cosine)

print("worst cosine", min(row.cosine for row in early.rows))
