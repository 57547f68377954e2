"""Couplings of oscillators on any graph: one symmetric matrix where it is dense, a list of edges where it is not.

A weight belongs to a pair: one parameter an edge. With phasors z (2, B, n) the energy of all pairs is

    -sum_{edges} W_ij z_i . z_j = -1/2 sum_i z_i . q_i,        q = W z.

It is linear in the weights and bilinear in the phasors, so that fields and products of pairs (`kernels`)
are each other's derivatives, to any order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from physics_ep.placement import OnHost

from .kernels import Lists, bent_weights, curved, fields, pair_products
from .layers import Phasors, both

DENSE_SHARE = 0.1
"""Share of all pairs from which on a matrix product is faster than a list of edges."""


class GraphCouplings(nn.Module):
    """Couplings of n oscillators, some of which may be held at a phase, with inputs and local fields.

    Parameters
    ----------
    n : int
    edges : int64 Tensor (m, 2)
        Pairs, each once.
    weight : Tensor (m,)
    input_index : int64 Tensor (k,)
        Oscillators that inputs drive; none of them is held.
    input_weight : Tensor (k, n_in) or None
    local_field : Tensor (2, n) or None
        Field on each oscillator: the in-phase and the quadrature component h (cos psi, sin psi).
    pins : mapping of int to float
        Oscillators held at phases: no variables. What couples two of them is a constant, left out.
    dense : bool or None
        None: by the number of edges.

    Attributes
    ----------
    weight, input_weight, local_field : Parameter or None
    free : int64 Tensor (n_free,)
        Oscillators that are variables, in ascending order, which is the order of states.
    """

    free: torch.Tensor
    edges: torch.Tensor
    input_slots: torch.Tensor
    inner_edges: torch.Tensor
    outer_edges: torch.Tensor
    outer_slots: torch.Tensor
    outer_phasors: torch.Tensor

    def __init__(
        self,
        n: int,
        edges: torch.Tensor,
        weight: torch.Tensor,
        *,
        input_index: torch.Tensor,
        input_weight: torch.Tensor | None,
        local_field: torch.Tensor | None,
        pins: Mapping[int, float],
        dense: bool | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.input_weight = None if input_weight is None else nn.Parameter(input_weight)
        self.local_field = None if local_field is None else nn.Parameter(local_field)
        held, angles = torch.zeros(n, dtype=torch.bool), torch.zeros(n, dtype=torch.float64)
        for i, angle in pins.items():
            held[i], angles[i] = True, angle
        free = (~held).nonzero()[:, 0]
        slots = torch.full((n,), -1).index_copy(0, free, torch.arange(len(free)))
        ends = held[edges]
        # What couples to a held oscillator is a field on the other one.
        outer = edges[ends.sum(1) == 1]
        first = held[outer[:, 0]]
        there = angles[torch.where(first, outer[:, 0], outer[:, 1])]
        for name, values in {
            "free": free,
            "edges": edges,
            "input_slots": slots[input_index],
            "inner_edges": (~ends.any(1)).nonzero()[:, 0],
            "outer_edges": (ends.sum(1) == 1).nonzero()[:, 0],
            "outer_slots": slots[torch.where(first, outer[:, 1], outer[:, 0])],
            "outer_phasors": torch.stack([there.cos(), there.sin()]).to(weight.dtype),
        }.items():
            self.register_buffer(name, values, persistent=False)
        pairs = slots[edges[self.inner_edges]]
        if dense is None:
            dense = 2 * len(pairs) >= DENSE_SHARE * len(free) ** 2
        self.pairs: DensePairs | SparsePairs = (DensePairs if dense else SparsePairs)(len(free), pairs)

    def inner_weight(self) -> torch.Tensor:
        """Weights of the pairs of free oscillators."""
        return self.weight if len(self.inner_edges) == len(self.edges) else self.weight[self.inner_edges]

    def clamped(self, inputs: torch.Tensor) -> Phasors:
        """Field on the free oscillators from input phasors (2 or 1, B, n_in), local fields and held oscillators."""
        total = inputs.new_zeros(2, inputs.shape[1], len(self.free))
        if self.local_field is not None:
            total = total + self.local_field[:, None, self.free]
        if self.input_weight is not None:
            total = total.index_add(2, self.input_slots, both(inputs @ self.input_weight.t()))
        if len(self.outer_edges):
            pulls = self.weight[self.outer_edges] * self.outer_phasors
            total = total + pulls.new_zeros(2, len(self.free)).index_add(1, self.outer_slots, pulls)[:, None]
        return [total]

    def bound(self) -> list[torch.Tensor]:
        """The weights in the form that products take, for a relaxation."""
        return [self.pairs.operator(self.inner_weight().detach())]

    def strengths(self) -> list[torch.Tensor]:
        """sum_j |W_ij| over the other free oscillators, (n_free,)."""
        weight = self.inner_weight().detach().abs()
        found = weight.new_zeros(len(self.free))
        return [found.index_add(0, self.pairs.pairs[:, 0], weight).index_add(0, self.pairs.pairs[:, 1], weight)]

    def field(
        self, k: int, z: Sequence[torch.Tensor | None], weights: Sequence[torch.Tensor]
    ) -> torch.Tensor | None:
        """Field on the free oscillators from each other (None: at rest), (2, B, n_free)."""
        here = z[k]
        return None if here is None else self.pairs.field(here, weights[0])

    def energy(self, z: Phasors, inputs: torch.Tensor) -> torch.Tensor:
        """-sum W cos(phi_i - phi_j) - sum h cos(phi_i - psi_i), (B,)."""
        here = z[0]
        pull = 0.5 * self.pairs.smooth_field(here, self.inner_weight()) + self.clamped(inputs)[0]
        return -(here * pull).sum((0, 2))

    def contrast(self, e: Phasors, m: Phasors, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Contrast of couplings W and fields h, as `layers.LayerStack.contrast` has it: dE/dW and dE/dh."""
        moved, mean = e[0], m[0]
        weight = torch.zeros_like(self.weight)
        weight[self.inner_edges] = -self.pairs.products(moved, mean)
        total = moved.sum(1)
        weight[self.outer_edges] = -(total[:, self.outer_slots] * self.outer_phasors).sum(0)
        grads = {"weight": weight}
        if self.input_weight is not None:
            driven = moved[: len(inputs), :, self.input_slots]
            grads["input_weight"] = -driven.flatten(0, 1).t() @ inputs.flatten(0, 1)
        if self.local_field is not None:
            grads["local_field"] = torch.zeros_like(self.local_field).index_copy(1, self.free, -total)
        return grads


class DensePairs(nn.Module):
    """Pairs (m, 2) of n oscillators, their weights in a symmetric matrix."""

    pairs: torch.Tensor
    places: torch.Tensor

    def __init__(self, n: int, pairs: torch.Tensor) -> None:
        super().__init__()
        self.n = n
        self.register_buffer("pairs", pairs.contiguous(), persistent=False)
        self.register_buffer("places", pairs[:, 0] * n + pairs[:, 1], persistent=False)

    def operator(self, weight: torch.Tensor) -> torch.Tensor:
        """The matrix W of all couplings, (n, n)."""
        half = weight.new_zeros(self.n**2).index_copy(0, self.places, weight).view(self.n, self.n)
        return half + half.t()

    def field(self, z: torch.Tensor, operator: torch.Tensor) -> torch.Tensor:
        """W z, (2, B, n)."""
        return z @ operator

    def curvature(
        self, z: torch.Tensor, diagonal: torch.Tensor, operator: torch.Tensor
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """v -> diagonal_i v_i - sum_j W_ij cos(phi_i - phi_j) v_j, (B, n), at phasors z."""
        return lambda v: diagonal * v - (z * ((z * v) @ operator)).sum(0)

    def smooth_field(self, z: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """The field on each oscillator, computed so that autograd can differentiate it by the weights of the
        pairs.
        """
        return z @ self.operator(weight)

    def products(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """a_i . b_j + b_i . a_j of each pair, summed over the batch, (m,)."""
        outer = a.flatten(0, 1).t() @ b.flatten(0, 1)
        return (outer + outer.t()).flatten()[self.places]


class SparsePairs(OnHost):
    """Pairs (m, 2) of n oscillators as lists of neighbours, on the CPU."""

    on_host = "sums over edges by compiled loops there (OscillatorGraph(..., dense=True) computes on any device)"

    pairs: torch.Tensor
    entries: torch.Tensor

    def __init__(self, n: int, pairs: torch.Tensor) -> None:
        super().__init__()
        ends = pairs.numpy()
        tails, heads = ends.T.ravel(), ends[:, ::-1].T.ravel()
        order = np.lexsort((heads, tails))
        starts = np.concatenate([[0], np.cumsum(np.bincount(tails, minlength=n))])
        self.lists = Lists(*(np.ascontiguousarray(a, np.uint32) for a in (starts, heads[order], ends)))
        entries = torch.from_numpy(np.tile(np.arange(len(ends)), 2)[order])
        self.register_buffer("entries", entries, persistent=False)
        self.register_buffer("pairs", pairs.contiguous(), persistent=False)

    def operator(self, weight: torch.Tensor) -> torch.Tensor:
        """Weights in the order of the lists of neighbours, (2 m,)."""
        return weight[self.entries]

    def field(self, z: torch.Tensor, operator: torch.Tensor) -> torch.Tensor:
        """W z, (2, B, n)."""
        planes = z.reshape(-1, z.shape[-1]).contiguous().numpy()
        return torch.from_numpy(fields(planes, operator.numpy(), self.lists)).view(z.shape)

    def curvature(
        self, z: torch.Tensor, diagonal: torch.Tensor, operator: torch.Tensor
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """v -> diagonal_i v_i - sum_j W_ij cos(phi_i - phi_j) v_j, (B, n), at phasors z."""
        bent = bent_weights(z.flatten(0, 1).contiguous().numpy(), operator.numpy(), self.lists)
        own = diagonal.contiguous().numpy()
        return lambda v: torch.from_numpy(curved(v.contiguous().numpy(), own, bent, self.lists))

    def smooth_field(self, z: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """The field on each oscillator, computed so that autograd can differentiate it by the weights of the
        pairs.
        """
        return cast(torch.Tensor, _Field.apply(z, weight, self))

    def products(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """a_i . b_j + b_i . a_j of each pair, summed over the batch, (m,)."""
        a, b = (v.reshape(-1, v.shape[-1]).contiguous() for v in (a, b))
        return torch.from_numpy(pair_products(a.numpy(), b.numpy(), self.lists)).to(a.dtype)


class _Field(torch.autograd.Function):
    """q = W z of sparse pairs."""

    @staticmethod
    def forward(ctx: Any, z: torch.Tensor, weight: torch.Tensor, pairs: SparsePairs) -> torch.Tensor:
        ctx.save_for_backward(z, weight)
        ctx.pairs = pairs
        return pairs.field(z.detach(), pairs.operator(weight.detach()))

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        z, weight = ctx.saved_tensors
        return _Field.apply(grads[0], weight, ctx.pairs), _Products.apply(grads[0], z, ctx.pairs), None


class _Products(torch.autograd.Function):
    """a_i . b_j + b_i . a_j of sparse pairs; a tangent of the weights turns it into fields again."""

    @staticmethod
    def forward(ctx: Any, a: torch.Tensor, b: torch.Tensor, pairs: SparsePairs) -> torch.Tensor:
        ctx.save_for_backward(a, b)
        ctx.pairs = pairs
        return pairs.products(a.detach(), b.detach())

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        a, b = ctx.saved_tensors
        return _Field.apply(b, grads[0], ctx.pairs), _Field.apply(a, grads[0], ctx.pairs), None
