"""Sixteen transistors as trainable resistors between nine nodes, after Dillavou, Stern, Liu and Durian 2022."""

from __future__ import annotations

import numpy as np
import torch

from hardware_models import Circuit
from hardware_models.netlists.parts import GROUND, Part, Parts
from tests.support.circuits import V

LAW = (1e-5, 0.7, 0.02, 1e-5, 1e-6, 0.5, 0.65)
"""KP, VTO, LAMBDA, W, L, GAMMA, PHI: 0.1 mS a volt of the gate above threshold and channel."""


def learning_network(seed: int = 0) -> Circuit:
    """A 3 x 3 lattice with one diagonal a cell; inputs a and b, a rail, ground; the output is a difference."""
    rng = np.random.default_rng(seed)
    names = np.array([["a", "n1", GROUND], ["n3", "n4", "n5"], ["b", "n7", "rail"]])
    edges = [(names[r, c], names[r, c + 1]) for r in range(3) for c in range(2)]
    edges += [(names[r, c], names[r + 1, c]) for r in range(2) for c in range(3)]
    edges += [(names[r, c], names[r + 1, c + 1]) for r in range(2) for c in range(2)]
    parts = [V("a", 0.0), V("b", 0.0), V("rail", 0.45)]
    for k, (one, other) in enumerate(edges):
        parts.append(Part(f"M{k}", "nmos_resistor", (one, other, GROUND), (rng.uniform(2.0, 3.0), *LAW)))
    return Circuit(Parts.collect(parts), outputs=["v(n3,n5)"])


def regression(count: int = 12, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs a, b in 0 to 0.45 V beside the rail, and 0.15 a + 0.25 b - 0.12 V, which may be negative."""
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.uniform(0, 0.45, (count, 2)))
    y = 0.15 * x[:, :1] + 0.25 * x[:, 1:] - 0.12
    return torch.cat([x, torch.full((count, 1), 0.45, dtype=torch.float64)], 1), y
