"""A substrate with an energy of its own: layers of clamped beams, which stiffen as they bend.

A beam that is clamped at both ends resists a deflection s with the force s + c s^3, in units in which small
deflections have the stiffness 1: bending alone gives the first term, stretching adds the second (Duffing's law).
Electrodes between neighbouring layers pull in proportion to the deflections, and a bias of either sign makes a
coupling of either sign:

    E = sum_k  |s_k|^2 / 2 + c |s_k^2|^2 / 4 - s_k . (W_k s_{k-1} + b_k),        s_0 = x

Three methods make it a system. `check_system` holds the rest of the contract, and EP trains it on the 8x8 digits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from physics_ep import EnergySystem, EquilibriumPropagation, SquaredError, relax
from physics_ep.data import digits
from validation import check_system


class Beams(EnergySystem):
    """Layers of clamped beams on clamped inputs; the last layer's deflections are the outputs."""

    def __init__(self, sizes: Sequence[int], stiffening: float = 1.0, seed: int = 0) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        shapes = list(zip(sizes[1:], sizes[:-1], strict=True))
        weights = [0.3 * torch.randn(shape, generator=draw) / shape[1] ** 0.5 for shape in shapes]
        self.weights = torch.nn.ParameterList(weights)
        self.biases = torch.nn.ParameterList(torch.zeros(n) for n in sizes[1:])
        self.stiffening = stiffening

    def energy(self, state, x):
        total = 0.0
        for s, below, w, b in zip(state, (x, *state), self.weights, self.biases, strict=False):
            bent = s.pow(2) / 2 + self.stiffening * s.pow(4) / 4
            total = total + (bent - s * (below @ w.T + b)).sum(1)
        return total

    def initial_state(self, x):
        return tuple(x.new_zeros(len(x), len(b)) for b in self.biases)

    def outputs(self, state):
        return state[-1]


def train(epochs: int = 2, batch: int = 64) -> float:
    """Train a network of 64-32-10 beams by EP, and return its test error."""
    data = digits()
    x, y = data.train_x.flatten(1), data.train_y
    targets = torch.nn.functional.one_hot(y, 10).to(x)
    beams = Beams([64, 32, 10])
    check_system(beams, x[:4], targets[:4])
    ep = EquilibriumPropagation(SquaredError(), beta=0.2, tolerance=1e-3)
    optimizer = torch.optim.Adam(beams.parameters(), lr=0.02)
    draw = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for chosen in torch.randperm(len(x), generator=draw).split(batch):
            optimizer.zero_grad()
            ep.backward(beams, x[chosen], targets[chosen])
            optimizer.step()
    guesses = beams.outputs(relax(beams, data.test_x.flatten(1)).state).argmax(1)
    return float((guesses != data.test_y).float().mean())


if __name__ == "__main__":
    print(f"test error {100 * train():.1f} %")
