"""The energy of each example, of a system that may be a user's: asked for, and looked at."""

from __future__ import annotations

from typing import Protocol

import torch

from .blocks import State
from .errors import argument_error


class HasEnergy(Protocol):
    """What is asked of a system."""

    def energy(self, state: State, x: torch.Tensor) -> torch.Tensor: ...


def energies(system: HasEnergy, state: State, x: torch.Tensor) -> torch.Tensor:
    """Energy of each example, (B,), of a system that may be a user's.

    Raises
    ------
    InputError
        If the energy does not have that shape. One number for the whole batch, or a column (B, 1), would give
        gradients that are wrong by factors of B.
    """
    energy = system.energy(state, x)
    want = tuple(state[0].shape[:1])
    found = isinstance(energy, torch.Tensor)
    if not found or tuple(energy.shape) != want or not (energy.is_floating_point() or energy.is_complex()):
        was = f"of shape {tuple(energy.shape)}, {energy.dtype}" if found else type(energy).__name__
        name = f"system ({type(system).__name__})"
        raise argument_error(name, f"have a floating-point energy of shape {want}, one number an example", was)
    return energy
