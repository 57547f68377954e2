"""Random sparse graphs of mixed units, with their physics written out in plain numpy and in mpmath."""

from __future__ import annotations

import mpmath
import numpy as np
import torch
from scipy.special import xlogy

from hardware_models import UnitGraph

MIX = ("linear", "hard_sigmoid", "tanh", "logistic")
RESPONSES = {
    "linear": lambda p: p,
    "hard_sigmoid": lambda p: np.minimum(np.maximum(p, 0), 1),
    "tanh": np.tanh,
    "logistic": lambda p: 0.5 * (1 + np.tanh(p / 2)),
}
POTENTIALS = {
    "linear": lambda s: s**2 / 2,
    "hard_sigmoid": lambda s: s**2 / 2,
    "tanh": lambda s: (xlogy(1 + s, 1 + s) + xlogy(1 - s, 1 - s)) / 2,
    "logistic": lambda s: xlogy(s, s) + xlogy(1 - s, 1 - s),
}
DIGITS = {
    "linear": lambda p: p,
    "hard_sigmoid": lambda p: min(max(p, mpmath.mpf(0)), mpmath.mpf(1)),
    "tanh": mpmath.tanh,
    "logistic": lambda p: 1 / (1 + mpmath.exp(-p)),
}


class RandomGraph:
    """A random sparse graph of mixed units, inputs scattered among the nodes, with its energy in plain numpy."""

    def __init__(self, seed: int = 0, n: int = 24, gain: float = 0.25, kinds: tuple[str, ...] = MIX) -> None:
        rng = np.random.default_rng(seed)
        self.n = n
        self.inputs = np.array([n - 1, 2, 9])
        self.free = np.setdiff1d(np.arange(n), self.inputs)
        pairs = rng.integers(0, n, (3 * n, 2))
        self.edges = np.concatenate([pairs[pairs[:, 0] != pairs[:, 1]], [[2, 9], [0, 1], [1, 0]]])
        self.weights = gain * rng.normal(size=len(self.edges))
        self.biases = 0.5 * rng.normal(size=len(self.free))
        self.units = [kinds[k % len(kinds)] for k in range(len(self.free))]
        self.outputs = self.free[[5, 0, 1]]
        self.circuit = self.build(self.weights)
        self.x = torch.tensor(rng.normal(size=(7, 3)))
        self.y = torch.tensor(rng.random(size=(7, 3)))
        self.rng = rng

    def build(self, weights: np.ndarray) -> UnitGraph:
        return UnitGraph.from_edges(
            self.n, self.edges, weights, self.units, inputs=self.inputs, outputs=self.outputs, biases=self.biases
        )

    def state(self) -> torch.Tensor:
        """A state well inside the bounds."""
        return torch.tensor(self.rng.uniform(0.1, 0.9, (7, len(self.free))))

    def values(self, s: torch.Tensor) -> np.ndarray:
        full = np.empty((len(s), self.n))
        full[:, self.free], full[:, self.inputs] = s, self.x
        return full

    def energy(self, s: torch.Tensor, weights: np.ndarray | None = None) -> np.ndarray:
        v, w = self.values(s), self.weights if weights is None else weights
        local = sum(POTENTIALS[u](v[:, i]) for u, i in zip(self.units, self.free, strict=True))
        pairs = sum(w * v[:, i] * v[:, j] for w, (i, j) in zip(w, self.edges, strict=True))
        return local - pairs - v[:, self.free] @ self.biases

    def drive(self, s: torch.Tensor) -> np.ndarray:
        matrix = np.zeros((self.n, self.n))
        for w, (i, j) in zip(self.weights, self.edges, strict=True):
            matrix[i, j] += w
            matrix[j, i] += w
        return (self.values(s) @ matrix)[:, self.free] + self.biases

    def response(self, p: np.ndarray) -> np.ndarray:
        return np.stack([RESPONSES[u](p[:, k]) for k, u in enumerate(self.units)], 1)
