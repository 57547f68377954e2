"""Costs that a user may write."""

from __future__ import annotations

import torch

from physics_ep import SquaredError
from physics_ep.cost import Cost


class WeightedError(Cost):
    """C = 1/2 sum w (outputs - y)^2: what a user may write, quadratic in each output."""

    name = "weighted_error"

    def __init__(self, weight: float = 2.0) -> None:
        self.weight = weight

    def __call__(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return 0.5 * self.weight * (outputs - y).square().sum(1)

    def gradient(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.weight * (outputs - y)

    def gradient_difference(self, outputs: torch.Tensor, d: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.weight * d

    def curvature(self, outputs: torch.Tensor, y: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return self.weight * v

    def displaced_unit(self, outputs, y, beta, rhs) -> torch.Tensor:
        strength = beta * self.weight
        return (rhs - strength * (outputs - y)) / (1 + strength)

    def linear(self, y, beta):
        return beta * self.weight, beta * self.weight * y

    def check(self, outputs: torch.Tensor, y: torch.Tensor) -> None:
        SquaredError().check(outputs, y)
