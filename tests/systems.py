"""Small systems with known answers, for the tests."""

from __future__ import annotations

import torch

from hardware_models import HopfieldNetwork
from physics_ep import EnergySystem
from physics_ep.equilibrium import State


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
