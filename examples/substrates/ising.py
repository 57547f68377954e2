"""Oscillators with injection at twice their frequency are spins: an Ising machine that anneals to a maximum cut.

Prints the cut that the best of twenty starts found, its spins, and the largest cut of all 2^11 divisions. The last
number is how many edges the machine's cut lacks: 0.
"""

from itertools import product

import torch

from hardware_models import OscillatorGraph
from hardware_models.oscillators.ising import anneal

generator = torch.Generator().manual_seed(1)
n = 12
edges = [(i, j) for i in range(n) for j in range(i) if float(torch.rand((), generator=generator)) < 0.4]

# A negative coupling wants opposite phases; the injection leaves each two, half a turn apart.
graph = OscillatorGraph(n, edges, -1.0, second_harmonic=1.0)


def cut(spins: tuple[int, ...] | list[float]) -> int:
    return sum(spins[i] != spins[j] for i, j in edges)


machine = anneal(graph, starts=20, generator=torch.Generator().manual_seed(0))
found = cut(machine.best.tolist())
print("edges", len(edges), "cut", found, "spins", [int(spin) for spin in machine.best])

largest = max(cut((1, *rest)) for rest in product((1, -1), repeat=n - 1))
print("largest cut", largest)
print("edges that the machine's cut lacks:", largest - found)
