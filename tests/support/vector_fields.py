"""Systems with a force and no energy, for the tests."""

from __future__ import annotations

import math
import time
import warnings

import torch

from physics_ep import EquilibriumPropagation, SquaredError, VectorField
from physics_ep.blocks import State
from physics_ep.estimators.methods import AsymmetryWarning
from physics_ep.physical_system import PhysicalSystem


def mixed_couplings(n: int, share: float, seed: int, gain: float = 0.8) -> torch.Tensor:
    """A random matrix (n, n) of largest singular value `gain`, `share` of whose norm is antisymmetric."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(n, n, generator=generator, dtype=torch.float64)
    even, odd = drawn + drawn.T, drawn - drawn.T
    mixed = math.sqrt(1 - share**2) * even / even.norm() + share * odd / odd.norm()
    return mixed * gain / torch.linalg.matrix_norm(mixed, 2)


class TanhUnits(VectorField):
    """ds/dt = -s + tanh(W s + U x + b) with any W; outputs are the last units."""

    def __init__(self, n: int = 20, share: float = 0.5, seed: int = 0, n_in: int = 5, n_out: int = 4) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed + 1)
        self.n_out = n_out
        self.w = torch.nn.Parameter(mixed_couplings(n, share, seed))
        self.u = torch.nn.Parameter(torch.randn(n, n_in, generator=generator, dtype=torch.float64) / n_in**0.5)
        self.b = torch.nn.Parameter(0.3 * torch.randn(n, generator=generator, dtype=torch.float64))

    def force(self, state: State, x: torch.Tensor) -> State:
        (s,) = state
        return (torch.tanh(s @ self.w.T + x @ self.u.T + self.b) - s,)

    def initial_state(self, x: torch.Tensor) -> State:
        return (x.new_zeros(len(x), len(self.b)),)

    def outputs(self, state: State) -> torch.Tensor:
        return state[0][:, -self.n_out :]


class Amplifiers(TanhUnits):
    """ds/dt = -s + W tanh(s) + U x + b: currents as functions of outputs, which are the coordinates."""

    def force(self, state: State, x: torch.Tensor) -> State:
        (s,) = state
        return (torch.tanh(s) @ self.w.T + x @ self.u.T + self.b - s,)

    def coordinates(self, state: State) -> State:
        return (torch.tanh(state[0]),)

    def outputs(self, state: State) -> torch.Tensor:
        return torch.tanh(state[0][:, -self.n_out :])


class Wells(VectorField):
    """-dE/ds of E = (a^2 + a^4 / 2) / 2 - b^2 / 2 - a^T W b - a . U x: a descends and b ascends."""

    directions = (1, -1)

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.w = torch.nn.Parameter(torch.randn(6, 3, generator=generator, dtype=torch.float64))
        self.u = torch.nn.Parameter(torch.randn(6, 4, generator=generator, dtype=torch.float64))

    def force(self, state: State, x: torch.Tensor) -> State:
        a, b = state
        return b @ self.w.T + x @ self.u.T - a - a**3, a @ self.w + b

    def initial_state(self, x: torch.Tensor) -> State:
        return x.new_zeros(len(x), 6), x.new_zeros(len(x), 3)

    def outputs(self, state: State) -> torch.Tensor:
        return state[0][:, :2]


def step_ratio(system: PhysicalSystem, x: torch.Tensor, y: torch.Tensor, beta: float) -> float:
    """Processor time of a step by asymmetric EP over that of one by ordinary EP: the median of seven pairs.

    The methods take turns, so that what else the machine does weighs on both alike.
    """
    ways = {
        method: EquilibriumPropagation(SquaredError(), beta=beta, method=method)
        for method in ("vector-field", "asymmetric")
    }
    spent: dict[str, list[float]] = {method: [] for method in ways}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AsymmetryWarning)
        for _ in range(8):  # the first one warms up
            for method, ep in ways.items():
                began = time.process_time()
                ep.backward(system, x, y)
                spent[method].append(time.process_time() - began)
    pairs = zip(spent["asymmetric"][1:], spent["vector-field"][1:], strict=True)
    return sorted(one / other for one, other in pairs)[3]
