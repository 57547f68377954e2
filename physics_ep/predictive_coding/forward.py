"""The forward pass of a network of layers, and what phases need of it: the free equilibrium of both energies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from ..blocks import State
from ..errors import InputError, argument_error, unknown_name
from ..maps import ConvLink, Route, channels_last
from ..system import EnergySystem
from ..weights import refresh
from .layers import PredictiveLayer

GATES = ("held", "live")
"""What nudged phases do with the gates of ReLUs and the routes of max poolings: hold them as the free phase left
them, or let each state set its own."""
FORMER_GATES = {"frozen": "held", "free": "live"}
"""Names of before, which are still accepted."""


def gate_mode(gates: str) -> str:
    """'held' or 'live', from these names or from the former ones, 'frozen' and 'free'.

    Raises
    ------
    InputError
        If the name is none of them.
    """
    mode = FORMER_GATES.get(gates, gates)
    if mode not in GATES:
        raise unknown_name("gates", gates, GATES)
    return mode


def gate_modes(gates: str) -> tuple[str, ...]:
    """The modes of gates that a report compares: 'held' and 'live' for 'both', else the one that is named.

    Raises
    ------
    InputError
        If the name is none of them.
    """
    if gates == "both":
        return GATES
    if FORMER_GATES.get(gates, gates) not in GATES:
        raise unknown_name("gates", gates, (*GATES, "both"))
    return (gate_mode(gates),)


class Cast:
    """Tensors in the dtype that layers work in, each cast when it is first asked for, and again after a `release`.

    Parameters
    ----------
    given : sequence of Tensor or None
        Only those that are there may be asked for.
    dtype : torch.dtype
    """

    def __init__(self, given: Sequence[torch.Tensor | None], dtype: torch.dtype) -> None:
        self._given = given
        self._dtype = dtype
        self._cast: dict[int, torch.Tensor] = {}

    def __getitem__(self, k: int) -> torch.Tensor:
        if k not in self._cast:
            given = self._given[k]
            assert given is not None
            self._cast[k] = given.to(self._dtype)
        return self._cast[k]

    def release(self) -> None:
        """Give the memory of what has been cast away."""
        self._cast.clear()


@dataclass(frozen=True)
class ForwardPass:
    """A forward pass: the free equilibrium, and what nudged phases need of it.

    Attributes
    ----------
    x : Tensor (B, ...)
        Input, in the dtype and memory format that the layers work in.
    states : tuple of Tensor (B, ...)
        sigma_k(a_k), a layer each.
    drives : tuple of Tensor (B, ...) or None
        a_k; None where gates held at the free state are all that is needed of them.
    routes : tuple of Tensor or None
        What each layer's max pooling picked; that of the first layer packed.
    weights, skips : Cast
        Weights in the dtype that the layers work in, by number of the layer.
    images : tuple of Tensor or None
        What max poolings above the first layer have picked from, where they are to pick anew; else empty.
    """

    x: torch.Tensor
    states: State
    drives: State | None
    routes: tuple[Route, ...]
    weights: Cast
    skips: Cast
    images: tuple[torch.Tensor | None, ...] = ()


class ForwardNetwork(EnergySystem):
    """Layers on top of one another and their forward pass; the energies stand above, in `network`.

    A phase knows its system as this class. `PredictiveCodingNetwork` adds an energy, and hands out phases, solvers
    and motions.

    Parameters
    ----------
    layers : sequence of PredictiveLayer
        Layer k takes the shape of layer k - 1. The last is linear.

    Attributes
    ----------
    shapes : tuple of tuple of int
        Of an example's input, then of its units in each layer.
    sizes : tuple of int
        Numbers of units likewise.
    depth : int
        Number of layers.
    gates : {'held', 'live'}
        What nudged phases do with gates and routes, where a phase is not told otherwise.
    routed : bool
        Whether a layer has a max pooling.
    piecewise_linear : bool
        Whether all layers are linear once gates and routes are held.
    compute_dtype : torch.dtype or None
        Work in this dtype (bfloat16) while parameters and gradients keep theirs. None: that of the parameters.

    Raises
    ------
    InputError
        If the layers do not fit on one another.
    """

    feedforward = True
    residual_scale = 1.0
    nudge_scale = 1.0

    def __init__(self, layers: Sequence[PredictiveLayer]) -> None:
        super().__init__()
        self._gates = GATES[0]
        if not layers:
            raise argument_error("layers", "be one layer or more", "none")
        shapes = [layers[0].link.pre]
        for number, layer in enumerate(layers, 1):
            if layer.link.pre != shapes[-1]:
                raise InputError(
                    f"Argument layers must fit on one another, but layer {number} takes {list(layer.link.pre)} "
                    f"and layer {number - 1} gives {list(shapes[-1])}."
                )
            if layer.skip_source is not None:
                skip = layer.skip_link
                assert skip is not None
                if not 0 <= layer.skip_source < number - 2 or shapes[layer.skip_source + 1] != skip.pre:
                    raise InputError(
                        f"Argument layers must have skips from fitting layers further down: layer {number}."
                    )
            shapes.append(layer.post)
        if layers[-1].activation_name != "linear" or len(shapes[-1]) != 1:
            raise argument_error("layers", "end in a dense linear layer", layers[-1].activation_name)
        self.layers = nn.ModuleList(layers)
        self.shapes = tuple(shapes)
        self.example_shape = self.shapes[0]
        self.sizes = tuple(math.prod(shape) for shape in shapes)
        self.depth = len(layers)
        self.compute_dtype: torch.dtype | None = None
        activations = [layer.activation for layer in layers]
        self.routed = any(layer.link.routed for layer in layers)
        self.smooth = all(a.smooth for a in activations) and not self.routed
        self.piecewise_linear = all(a.piecewise_linear for a in activations)

    @property
    def gates(self) -> str:
        return self._gates

    @gates.setter
    def gates(self, gates: str) -> None:
        self._gates = gate_mode(gates)

    @property
    def has_gates(self) -> bool:
        """Whether held and live gates may differ: a layer of units with kinks, or a max pooling."""
        return self.routed or any(layer.activation.gated for layer in self.stack)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Networks that were pickled before name their gates by the former names."""
        gates = state.pop("gates", None)
        super().__setstate__(state)
        if gates is not None:
            self.gates = gates

    @property
    def stack(self) -> list[PredictiveLayer]:
        """`layers`, typed."""
        return cast(list[PredictiveLayer], list(self.layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Outputs (B, n_out) of the plain forward pass; autograd follows it."""
        for layer in self.stack:
            refresh(layer)
        return self.run(x).states[-1]

    def run(self, x: torch.Tensor, keep_drives: bool = True, keep_images: bool = False) -> ForwardPass:
        """The forward pass with all that nudged phases need of it."""
        dtype = self.compute_dtype or self.dtype
        x = x.to(dtype)
        x = channels_last(x) if x.ndim == 4 else x
        weights = Cast([layer.weight for layer in self.stack], dtype)
        skips = Cast([layer.skip_weight for layer in self.stack], dtype)
        states: list[torch.Tensor] = []
        drives: list[torch.Tensor] = []
        routes: list[Route] = []
        images: list[torch.Tensor | None] = []
        for k, layer in enumerate(self.stack):
            kept = {"images": images} if keep_images else {}
            a, route = self.drive(k, x, states, weights, skips, **kept)
            # Nothing moves the input: only what is learnt of the first layer takes its route, once a step.
            routes.append(layer.link.packed(route) if k == 0 else route)
            if keep_drives:
                drives.append(a)
            states.append(layer.activation.response(a))
        found = tuple(drives) if keep_drives else None
        return ForwardPass(x, tuple(states), found, tuple(routes), weights, skips, tuple(images))

    def drive(
        self,
        k: int,
        x: torch.Tensor,
        states: Sequence[torch.Tensor],
        weights: Cast | None = None,
        skips: Cast | None = None,
        images: list[torch.Tensor | None] | None = None,
    ) -> tuple[torch.Tensor, Route]:
        """Pre-activation a_k from the activities below, and the route of its max pooling.

        What that picks from is added to `images`, if the layer is not the first.
        """
        layer = self.stack[k]
        weight = layer.weight if weights is None else weights[k]
        bias = None if layer.bias is None else layer.bias.to(weight.dtype)
        link, below = layer.link, x if k == 0 else states[k - 1]
        if images is not None and k > 0 and isinstance(link, ConvLink) and link.routed:
            images.append(link.image_of(weight, below, bias))
            a, route = link.pooled(cast(torch.Tensor, images[-1]))
        else:
            a, route = link.drive(weight, below, bias)
            if images is not None:
                images.append(None)
        if layer.skip_link is not None:
            assert layer.skip_source is not None
            assert layer.skip_weight is not None
            skip = layer.skip_weight if skips is None else skips[k]
            a = a + layer.skip_link.apply(skip, states[layer.skip_source])
        return a, route

    def internal(self, activities: State, drives: State) -> State:
        """Blocks that describe units with these activities: pre-activations where there is no inverse."""
        return tuple(
            p if layer.activation.inverse is None else h
            for layer, h, p in zip(self.stack, activities, drives, strict=True)
        )
