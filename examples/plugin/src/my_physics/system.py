"""A system: clamped beams, which stiffen as they bend, coupled by springs."""

from __future__ import annotations

import torch

from physics_ep import EnergySystem


class Beams(EnergySystem):
    """Beams s with the energy sum s^2/2 + s^4/4, pushed by the inputs through springs and read through others.

    The outputs are the first beams themselves.

    Parameters
    ----------
    inputs, beams, n_out : int
        Numbers of inputs, of beams and of outputs.
    seed : int
        Seed of the springs.
    """

    def __init__(self, inputs: int = 64, beams: int = 20, n_out: int = 10, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.beams, self.n_out, self.example_shape = beams, n_out, (inputs,)
        self.springs = torch.nn.Parameter(torch.randn(inputs, beams, generator=generator) / inputs**0.5)
        self.couplings = torch.nn.Parameter(0.1 * torch.randn(beams, beams, generator=generator) / beams**0.5)

    def energy(self, state, x):
        """Energy of each example, (B,)."""
        (s,) = state
        coupled = (s @ self.couplings * s).sum(1)
        return (s**2 / 2 + s**4 / 4).sum(1) - coupled - (x @ self.springs * s).sum(1)

    def initial_state(self, x):
        """All beams straight."""
        return (x.new_zeros(len(x), self.beams),)

    def outputs(self, state):
        """The first beams."""
        return state[0][:, : self.n_out]
