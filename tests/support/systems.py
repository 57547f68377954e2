"""Small systems with known answers, for the tests."""

from __future__ import annotations

import torch

from hardware_models import HopfieldNetwork
from physics_ep import EnergySystem
from physics_ep.blocks import State, flat


class Quartic(EnergySystem):
    """A user's system: three methods and nothing else. Smooth, unbounded, not quadratic."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.w = torch.nn.Parameter(0.2 * torch.randn(6, 6, generator=generator, dtype=torch.float64))
        self.u = torch.nn.Parameter(torch.randn(6, 4, generator=generator, dtype=torch.float64))

    def energy(self, state: State, x: torch.Tensor) -> torch.Tensor:
        (v,) = state
        local = 0.5 * v**2 + 0.05 * v**4 - v * (x @ self.u.t())
        rate = v.tanh()
        return local.sum(1) - 0.5 * ((rate @ (self.w + self.w.t())) * rate).sum(1)

    def initial_state(self, x: torch.Tensor) -> State:
        return (torch.zeros(x.shape[0], 6, dtype=self.dtype, device=self.device),)

    def outputs(self, state: State) -> torch.Tensor:
        return state[0][:, :2]


def network(
    activation: str = "tanh", sizes: tuple[int, ...] = (20, 32, 32, 32, 10), gain: float = 0.5, **options: object
) -> HopfieldNetwork:
    """A float64 Hopfield network with biases that are not zero."""
    system = HopfieldNetwork(list(sizes), activation, gain=gain, **options).double()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for layer in system.couplings:
            layer.bias.copy_(0.1 * torch.randn(layer.bias.shape, generator=generator, dtype=torch.float64))
    return system


def batch(n_in: int, n_out: int, size: int = 16, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random inputs and targets in float64."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, n_in, generator=generator, dtype=torch.float64)
    return x, torch.rand(size, n_out, generator=generator, dtype=torch.float64)


class Quadratic(EnergySystem):
    """E = 1/2 (s - x) . K (s - x): what linear dynamics can be solved for, with blocks that may ascend.

    Parameters
    ----------
    matrix : array (n, n)
        K, symmetric.
    blocks : sequence of int, optional
        Sizes of the blocks of the state; default one.
    directions, time_constants
        Of the blocks.
    """

    residual_scale = 1.0
    nudge_scale = 1.0

    def __init__(
        self,
        matrix: object,
        blocks: tuple[int, ...] | None = None,
        directions: tuple[int, ...] | None = None,
        time_constants: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__()
        self.matrix = torch.nn.Parameter(torch.as_tensor(matrix, dtype=torch.float64))
        self.blocks = blocks or (len(self.matrix),)
        self.directions = directions
        self.descends = directions is None
        self.time_constants = time_constants

    def energy(self, state: State, x: torch.Tensor) -> torch.Tensor:
        away = torch.cat(state, 1) - x
        return 0.5 * ((away @ self.matrix) * away).sum(1)

    def force(self, state: State, x: torch.Tensor) -> State:
        return tuple(-g for g in ((torch.cat(state, 1) - x) @ self.matrix).split(self.blocks, 1))

    def initial_state(self, x: torch.Tensor) -> State:
        return tuple(torch.zeros(len(x), n, dtype=x.dtype) for n in self.blocks)

    def outputs(self, state: State) -> torch.Tensor:
        return state[0]


def hessian(system, state, x, nudge=None) -> torch.Tensor:
    """d2F/ds2 of each example, (B, n, n), by autograd of the energy twice, one example at a time."""
    shapes = [s.shape[1:] for s in state]

    def total(v: torch.Tensor, b: int) -> torch.Tensor:
        blocks = tuple(p.view(1, *s) for p, s in zip(v.split([s.numel() for s in shapes]), shapes, strict=True))
        f = system.energy(blocks, x[b : b + 1])
        if nudge is not None:
            f = f + nudge.beta * nudge.cost(system.outputs(blocks), nudge.y[b : b + 1])
        return f.sum()

    v = flat(state)
    rows = [torch.autograd.functional.hessian(lambda u, b=b: total(u, b), v[b]) for b in range(len(v))]
    return torch.stack(rows)
