"""Couplings between layers of phase oscillators, as products with phasors.

A phasor is z = (cos phi, sin phi), stored as (2, B, n): its two components one above the other, so that one matrix
product serves both. With a coupling W of oscillators i to oscillators j,

    -sum W_ij cos(phi_i - phi_j) = -sum_i z_i . (W z)_i,

since cos(a - b) = cos a cos b + sin a sin b: the Kuramoto coupling is separable, of rank two, and the *field*
q = W z on an oscillator is all that it knows of the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

Phasors = list[torch.Tensor]
"""Cosines and sines of the phases of each block of oscillators, tensors (2, B, n)."""


class PhaseCoupling(nn.Module):
    """Couplings of a layer of n_in oscillators (or inputs) to one of n_out, with the fields on the latter.

    Parameters
    ----------
    n_in, n_out : int
    gain : float
        Weights start uniform in +-gain / sqrt(n_in).
    field : float
        Quadrature field with which all oscillators of the layer start.
    generator : torch.Generator
    bits : int or None
        Resolution of the weights: 2^bits - 1 equal levels from minus the largest to the largest; None: continuous.

    Attributes
    ----------
    weight : Parameter (n_out, n_in)
        W, in coupling units.
    field : Parameter (2, n_out)
        h (cos psi, sin psi) of the local field -h cos(phi - psi): its in-phase and its quadrature component.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        gain: float,
        field: float,
        generator: torch.Generator,
        bits: int | None = None,
    ) -> None:
        super().__init__()
        draw = torch.rand((n_out, n_in), generator=generator, dtype=torch.float64)
        bound = gain / math.sqrt(n_in)
        self.weight = nn.Parameter(((2 * draw - 1) * bound).to(torch.get_default_dtype()))
        self.field = nn.Parameter(torch.stack([torch.zeros(n_out), torch.full((n_out,), float(field))]))
        self.bits = bits

    @property
    def strength(self) -> torch.Tensor:
        """The weights that the device holds: rounded to its levels, with the gradient of those that are trained."""
        return self.weight if self.bits is None else rounded(self.weight, self.bits)


def rounded(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """Weights on 2^bits - 1 levels from minus the largest to the largest; gradients pass straight through."""
    steps = 2 ** (bits - 1) - 1
    span = weight.detach().abs().max().clamp_min(torch.finfo(weight.dtype).tiny)
    level = (weight.detach() * (steps / span)).round() * (span / steps)
    return weight + (level - weight).detach()


def both(z: torch.Tensor) -> torch.Tensor:
    """Phasors or fields with both components, (2, B, n), of such or of the in-phase ones alone, (1, B, n)."""
    return z if len(z) == 2 else torch.cat([z, torch.zeros_like(z)])


class LayerStack(nn.ModuleList):
    """Couplings of a stack of layers, each to the next; the first to the inputs.

    All linear maps are in the phasors alone: they act on differences of phasors as on phasors.
    """

    @property
    def layers(self) -> list[PhaseCoupling]:
        """The couplings between layers, with their type for checkers."""
        return cast("list[PhaseCoupling]", list(self))

    def clamped(self, inputs: torch.Tensor) -> Phasors:
        """Fields on all layers from input phasors (2 or 1, B, n_0) and local fields: (2, B, n_k) each."""
        batch = inputs.shape[1]
        fields = [layer.field.detach()[:, None] for layer in self.layers]
        first = both(inputs @ self.layers[0].strength.detach().t()) + fields[0]
        rest = [field.expand(2, batch, -1) for field in fields[1:]]
        return [first, *rest]

    def bound(self) -> list[torch.Tensor]:
        """The weights of all layers, fetched and rounded once for a relaxation."""
        return [layer.strength.detach() for layer in self.layers]

    def strengths(self) -> list[torch.Tensor]:
        """Sum of the |W| that join each oscillator to neighbouring layers, inputs left out; (n_k,) each."""
        sizes = [weight.abs() for weight in self.bound()]
        below = [torch.zeros_like(sizes[0][:, 0]), *(w.sum(1) for w in sizes[1:])]
        above = [*(w.sum(0) for w in sizes[1:]), torch.zeros_like(sizes[-1][:, 0])]
        return [a + b for a, b in zip(below, above, strict=True)]

    def field(
        self, k: int, z: Sequence[torch.Tensor | None], weights: Sequence[torch.Tensor]
    ) -> torch.Tensor | None:
        """Field on layer k from its neighbours among the layers (None: at rest), (2, B, n_k)."""
        below = z[k - 1] if k > 0 else None
        above = z[k + 1] if k + 1 < len(weights) else None
        total = None if below is None else below @ weights[k].t()
        if above is not None:
            back = above @ weights[k + 1]
            total = back if total is None else total.add_(back)
        return total

    def energy(self, z: Phasors, inputs: torch.Tensor) -> torch.Tensor:
        """-sum W cos(phi_i - phi_j) - sum h cos(phi_i - psi_i), (B,)."""
        total: torch.Tensor | float = 0.0
        below = inputs
        for layer, here in zip(self.layers, z, strict=True):
            field = both(below @ layer.strength.t()) + layer.field[:, None]
            total = total - (here * field).sum((0, 2))
            below = here
        assert isinstance(total, torch.Tensor)
        return total

    def contrast(self, e: Phasors, m: Phasors, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Change of dE/dW and dE/dh, summed over the batch, between two phases.

        Parameters
        ----------
        e, m : list of Tensor (2, B, n_k)
            Difference of the phases' phasors, with the examples' weights on it, and their mean: the difference of
            products a+ b+ - a- b- is e_a m_b + m_a e_b, where nothing cancels.
        inputs : Tensor (2, B, n_0), or (1, B, n_0) where they are in phase alone
        """
        grads = {}
        for k in range(len(self)):
            below = inputs if k == 0 else m[k - 1]
            weight = e[k][: len(below)].flatten(0, 1).t() @ below.flatten(0, 1)
            if k > 0:
                weight = torch.addmm(weight, m[k].flatten(0, 1).t(), e[k - 1].flatten(0, 1))
            grads[f"{k}.weight"] = weight.neg_()
            grads[f"{k}.field"] = -e[k].sum(1)
        return grads
