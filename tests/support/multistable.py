"""Systems with many equilibria, all known in closed form, for the tests."""

from __future__ import annotations

import math

import numpy as np
import torch

from physics_ep import EnergySystem
from physics_ep.blocks import State

WIDE = torch.float64


class DoubleWells(EnergySystem):
    """Independent double wells: E = sum s^4 / 4 - a s^2 / 2 - x s. Equilibria: roots of s^3 - a s = x, one by one.

    Under the squared error it is the cusp catastrophe: F' = s^3 + (beta - a) s - (x + beta y).
    """

    multistable = True
    default_solver = "trust_region"

    def __init__(self, n: int = 1, a: float = 1.0) -> None:
        super().__init__()
        self.n = n
        self.a = torch.nn.Parameter(torch.full((n,), a, dtype=WIDE))

    def energy(self, state: State, x: torch.Tensor) -> torch.Tensor:
        (s,) = state
        return (s**4 / 4 - self.a * s**2 / 2 - x * s).sum(1)

    def initial_state(self, x: torch.Tensor) -> State:
        return (torch.ones_like(x),)

    def random_state(self, x: torch.Tensor, generator: torch.Generator) -> State:
        return (4 * torch.rand(x.shape, generator=generator, dtype=WIDE) - 2,)

    def outputs(self, state: State) -> torch.Tensor:
        return state[0]


class Ring(EnergySystem):
    """XY ring without a ground: E = -sum cos(phi_i - phi_i+1). Minima: phi_i = c + 2 pi q i / N, |q| < N / 4."""

    multistable = True
    default_solver = "trust_region"

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n
        self.g = torch.nn.Parameter(torch.ones((), dtype=WIDE))

    def energy(self, state: State, x: torch.Tensor) -> torch.Tensor:
        (phi,) = state
        return -self.g * (phi - phi.roll(1, 1)).cos().sum(1)

    def initial_state(self, x: torch.Tensor) -> State:
        return (torch.zeros(len(x), self.n, dtype=WIDE),)

    def random_state(self, x: torch.Tensor, generator: torch.Generator) -> State:
        return (2 * math.pi * torch.rand(len(x), self.n, generator=generator, dtype=WIDE),)

    def outputs(self, state: State) -> torch.Tensor:
        return state[0]

    def symmetries(self, state: State) -> tuple[State, ...]:
        return ((torch.ones_like(state[0]),),)

    def difference(self, one: State, other: State) -> State:
        turn = torch.polar(torch.ones_like(one[0]), one[0] - other[0])
        return (torch.angle(turn * turn.mean(1, keepdim=True).conj()),)

    def winding(self, state: State) -> torch.Tensor:
        """q of each example."""
        turns = state[0] - state[0].roll(1, 1)
        return torch.angle(torch.polar(torch.ones_like(turns), turns)).sum(1) / (2 * math.pi)


def well(x: float, start: float, a: float = 1.0) -> float:
    """Where the flow in one well leads from a start: by the roots of s^3 - a s - x, computed by numpy."""
    roots = np.sort([r.real for r in np.roots([1, 0, -a, -x]) if abs(r.imag) < 1e-9])
    if len(roots) == 1:
        return float(roots[0])
    return float(roots[0] if start < roots[1] else roots[2])


def cusp_fold(x: float, y: float, a: float = 1.0) -> float:
    """Beta at which the well that starts on y's far side folds: the least root of 4 (a - b)^3 = 27 (x + b y)^2.

    For a well on the side opposite to y, where x + b y changes sign at some b >= 0.
    """
    polynomial = -4 * np.poly1d([1, -a]) ** 3 - 27 * np.poly1d([y, x]) ** 2
    crossing = max(0.0, -x / y)
    real = [r.real for r in polynomial.roots if abs(r.imag) < 1e-9 and r.real > crossing]
    return float(min(real))
