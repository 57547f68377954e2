"""The contract of a physical system with an energy, `EnergySystem`.

To bring a system of your own, subclass `EnergySystem` and write three methods: `energy`, `initial_state` and
`outputs`. Everything else has a default built on them; override what your physics knows better. Run
`validation.check_system` on the result: it names the invariant that is broken. A system that has a force and no
energy is a `physics_ep.vector_field.VectorField`.

Conventions
-----------
* A state is a tuple of tensors (B, ...), one a block (layer, species).
* E(theta, x, s) is real, one number an example: (B,). The dynamics is ds/dt = force = -dE/ds.
* dE/dtheta at a state is the partial derivative at fixed state; its contrast between phases is the EP estimate.
* Complex states (holomorphic EP) meet real weights by an explicit cast, and autograd's gradient of a complex
  energy is the conjugate of the derivative: a system that sets `analytic = True` promises to handle both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from .blocks import State, derivative, in_dtype
from .energies import energies
from .moved import moved_names
from .physical_system import Inputs, Phase, PhysicalSystem, widened

if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)


class EnergySystem(PhysicalSystem):
    """A physical system with an energy; its parameters are trained by equilibrium propagation.

    Its attributes, and what else it may override, are those of `PhysicalSystem`.
    """

    def energy(self, state: State, x: torch.Tensor) -> torch.Tensor:
        """Energy of each example, (B,), differentiable in state and parameters."""
        raise NotImplementedError

    def law(self, state: State, x: torch.Tensor) -> object:
        return self.energy(state, x)

    def force(self, state: State, x: torch.Tensor) -> State:
        """-dE/ds of each block. Default: autograd of `energy`."""
        with torch.enable_grad():
            leaves = tuple(s.detach().requires_grad_() for s in state)
            slope = derivative(energies(self, leaves, x), leaves)
        return tuple(-g for g in slope)

    def slope(self, state: State, x: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """dE/ds, as autograd can follow it to the state and to the parameters; None: E does not see a block."""
        return torch.autograd.grad(energies(self, state, x).sum(), state, create_graph=True, allow_unused=True)

    def contrast(
        self, free: State, plus: State, minus: State | None, x: torch.Tensor, weight: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Sum over the batch of Re weight * [dE/dtheta(free + plus) - dE/dtheta(free + minus)].

        Parameters
        ----------
        free, plus, minus : State
            Free state and displacements (B, ...) from it; minus None is the free state itself.
        weight : Tensor (B,)
            Complex for holomorphic schemes, as the displacements are.

        Returns
        -------
        dict
            Parameter name to tensor of the parameter's shape; parameters that the energy does not use are left out.

        Notes
        -----
        The default differentiates the energy in float64, so that the difference costs no digits. Systems with
        bilinear energies override it with products of (d+ - d-) and means, and need no wider type.
        """
        exact = widened(self)
        wide = torch.float64
        base = tuple(s.to(wide) for s in free)
        up = tuple(s + d for s, d in zip(base, plus, strict=True))
        down = base if minus is None else tuple(s + d for s, d in zip(base, minus, strict=True))
        names = [n for n, p in exact.named_parameters() if p.requires_grad]
        leaves = [p for p in exact.parameters() if p.requires_grad]
        with torch.enable_grad():
            seen = in_dtype(x, wide)
            gap = energies(exact, up, seen) - energies(exact, down, seen)
            total = (weight.to(torch.promote_types(wide, weight.dtype)) * gap).sum().real
            grads: Sequence[torch.Tensor | None] = [None] * len(leaves)
            if total.requires_grad:  # not so where all that is trained is in the outputs
                grads = torch.autograd.grad(total, leaves, allow_unused=True)
        own = dict(self.named_parameters())
        return {n: g.to(own[n].dtype) for n, g in zip(names, grads, strict=True) if g is not None}


__all__ = ["EnergySystem", "Inputs", "Phase", "energies", "widened"]
