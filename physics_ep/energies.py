"""Energies and outputs of a system that may be a user's: asked for, and looked at."""

from __future__ import annotations

from typing import Protocol

import torch

from .blocks import State
from .errors import argument_error


class HasEnergy(Protocol):
    """The methods that a system must have so that its energy can be computed."""

    def energy(self, state: State, x: torch.Tensor) -> torch.Tensor: ...


class HasOutputs(Protocol):
    """The methods that a system must have so that its outputs can be read."""

    def outputs(self, state: State) -> torch.Tensor: ...


def energies(system: HasEnergy, state: State, x: torch.Tensor) -> torch.Tensor:
    """Energy of each example, (B,), of a system that may be a user's.

    Raises
    ------
    InputError
        If the energy does not have that shape: one number for the whole batch, or a column (B, 1), would give
        gradients that are wrong by factors of B. Also if it is complex at a real state, or cut off from a state
        whose gradient is wanted, or cannot be computed of integers x (token ids out of range, images as bytes).
    """
    try:
        energy = system.energy(state, x)
    except (RuntimeError, IndexError) as error:
        if isinstance(error, NotImplementedError) or x.is_floating_point() or x.is_complex():
            raise
        must = f"hold integers that the energy of a {type(system).__name__} takes"
        raise argument_error("x", must, f"{x.dtype} ({_first_line(error)})") from error
    want = tuple(state[0].shape[:1])
    name = f"system ({type(system).__name__})"
    found = isinstance(energy, torch.Tensor)
    if not found or tuple(energy.shape) != want or not (energy.is_floating_point() or energy.is_complex()):
        was = f"of shape {tuple(energy.shape)}, {energy.dtype}" if found else type(energy).__name__
        raise argument_error(name, f"have a floating-point energy of shape {want}, one number an example", was)
    if energy.is_complex() and not any(s.is_complex() for s in state):
        raise argument_error(name, "have a real energy at real states", f"{energy.dtype}")
    if _cut_off(energy, state):
        raise argument_error(name, "have an energy that autograd can follow to the state", "detached from it")
    return energy


class Forced(Protocol):
    """The methods that a system must have so that its force can be computed."""

    def force(self, state: State, x: torch.Tensor) -> State: ...


def forces(system: Forced, state: State, x: torch.Tensor) -> State:
    """Force on each block of a system that may be a user's.

    Raises
    ------
    InputError
        If it is no tuple of tensors as the state is, or cut off from a state whose gradient is wanted.
    """
    force = system.force(state, x)
    name = f"system ({type(system).__name__})"
    found = isinstance(force, tuple) and all(isinstance(f, torch.Tensor) for f in force)
    want = [tuple(s.shape) for s in state]
    if not found or [tuple(f.shape) for f in force] != want:
        was = [tuple(f.shape) for f in force] if found else type(force).__name__
        raise argument_error(name, f"have a force that is a tuple of tensors of shapes {want}, as its state", was)
    if all(_cut_off(f, state) for f in force):
        raise argument_error(name, "have a force that autograd can follow to the state", "detached from it")
    return force


def outputs_of(system: HasOutputs, state: State) -> torch.Tensor:
    """Outputs (B, n_out) of a system that may be a user's.

    Raises
    ------
    InputError
        If they are no floating-point tensor, or cut off from a state whose gradient is wanted.
    """
    outputs = system.outputs(state)
    name = f"system ({type(system).__name__})"
    found = isinstance(outputs, torch.Tensor)
    if not found or not (outputs.is_floating_point() or outputs.is_complex()):
        was = f"a tensor of {outputs.dtype}" if found else type(outputs).__name__
        raise argument_error(name, "have outputs that are a floating-point tensor (batch, n_out)", was)
    if _cut_off(outputs, state):
        raise argument_error(name, "have outputs that autograd can follow to the state", "detached from it")
    return outputs


def _cut_off(values: torch.Tensor, state: State) -> bool:
    """Whether autograd cannot go from these values to a state that asks for its gradient."""
    return not values.requires_grad and torch.is_grad_enabled() and any(s.requires_grad for s in state)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
