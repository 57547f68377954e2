"""The forward pass of a network of layers, and what phases need of it: the free equilibrium of both energies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from ..blocks import State
from ..compiling import fusible
from ..errors import InputError, argument_error, unknown_name
from ..pooling import Route, channels_last
from ..system import EnergySystem
from ..weights import refresh
from .layers import PredictiveLayer, Wire

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
    """Weights of layers in the dtype that they work in, each cast when it is first asked for, and again after a
    `release`.

    Parameters
    ----------
    layers : sequence of PredictiveLayer
    dtype : torch.dtype
    """

    def __init__(self, layers: Sequence[PredictiveLayer], dtype: torch.dtype) -> None:
        self._layers = layers
        self._dtype = dtype
        self._cast: dict[tuple[int, str], torch.Tensor] = {}

    def of(self, k: int, name: str | None) -> torch.Tensor:
        """The weight of layer k that has this name; for None, which links without weights have, an empty one."""
        if name is None:
            return torch.empty(0)
        found = self._cast.get((k, name))
        if found is None:
            found = self._cast[k, name] = getattr(self._layers[k], name).to(self._dtype)
        return found

    def release(self) -> None:
        """Free the memory of the weights that were cast."""
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
        What each layer's max pooling picked; those of layers on the input packed.
    weights : Cast
        Weights in the dtype that the layers work in.
    images : tuple of Tensor or None
        What max poolings that are not on the input have picked from, where they are to pick anew; else empty.
    """

    x: torch.Tensor
    states: State
    drives: State | None
    routes: tuple[Route, ...]
    weights: Cast
    images: tuple[torch.Tensor | None, ...] = ()


class ForwardNetwork(EnergySystem):
    """Layers in turn, each fed by some before it, and their forward pass; the energies stand above, in `network`.

    A phase knows its system as this class. `PredictiveCodingNetwork` adds an energy, and hands out phases, solvers
    and motions.

    Parameters
    ----------
    layers : sequence of PredictiveLayer
        Each takes what layers before it, or the input, give. The last is linear.

    Attributes
    ----------
    shapes : tuple of tuple of int
        Shapes of an example's input, then of its units in each layer.
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
        self.layers = nn.ModuleList(layers)
        first = next(w.link.pre for k, layer in enumerate(layers) for w in layer.wires(k) if w.source < 0)
        shapes = [first]
        used = set()
        for number, layer in enumerate(layers, 1):
            for wire in layer.wires(number - 1):
                skips = wire.link is not layer.link
                if not -1 <= wire.source < number - 1 or (skips and shapes[wire.source + 1] != wire.link.pre):
                    raise InputError(
                        f"Argument layers must have skips from fitting layers further down: layer {number}."
                    )
                below = "the input" if wire.source < 0 and number > 1 else f"layer {wire.source + 1}"
                if shapes[wire.source + 1] != wire.link.pre:
                    raise InputError(
                        f"Argument layers must fit on one another, but layer {number} takes {list(wire.link.pre)} "
                        f"and {below} gives {list(shapes[wire.source + 1])}."
                    )
                used.add(wire.source)
            shapes.append(layer.post)
        idle = sorted(set(range(len(layers) - 1)) - used)
        if idle:
            raise argument_error(
                "layers", "each lead into another but the last", f"a layer {idle[0] + 1} that does not"
            )
        if layers[-1].activation_name != "linear" or len(shapes[-1]) != 1:
            raise argument_error("layers", "end in a dense linear layer", layers[-1].activation_name)
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
        """The network's `layers`, with their type for checkers."""
        return cast(list[PredictiveLayer], list(self.layers))

    @property
    def wires(self) -> list[tuple[Wire, ...]]:
        """What leads into each layer."""
        return [layer.wires(k) for k, layer in enumerate(self.stack)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Outputs (B, n_out) of the plain forward pass; autograd follows it."""
        for layer in self.stack:
            refresh(layer)
        return self.run(x).states[-1]

    @fusible
    def run(self, x: torch.Tensor, keep_drives: bool = True, keep_images: bool = False) -> ForwardPass:
        """The forward pass with all that nudged phases need of it."""
        dtype = self.compute_dtype or self.dtype
        x = x.to(dtype)
        x = channels_last(x) if x.ndim == 4 else x
        weights = Cast(self.stack, dtype)
        states: list[torch.Tensor] = []
        drives: list[torch.Tensor] = []
        routes: list[Route] = []
        images: list[torch.Tensor | None] = []
        for k, layer in enumerate(self.stack):
            kept = {"images": images} if keep_images else {}
            a, route = self.drive(k, x, states, weights, **kept)
            # Nothing moves the input: only what is learnt of a layer on it takes its route, once a step.
            routes.append(layer.link.packed(route) if layer.wires(k)[0].source < 0 else route)
            if keep_drives:
                drives.append(a)
            states.append(layer.activation.response(a))
        found = tuple(drives) if keep_drives else None
        return ForwardPass(x, tuple(states), found, tuple(routes), weights, tuple(images))

    def drive(
        self,
        k: int,
        x: torch.Tensor,
        states: Sequence[torch.Tensor],
        weights: Cast | None = None,
        images: list[torch.Tensor | None] | None = None,
    ) -> tuple[torch.Tensor, Route]:
        """Pre-activation a_k (B, *shape) from the activities below, and the route of its max pooling.

        The image that the pooling picks from is added to `images`, or None where there is no route or the layer
        stands on the input.
        """
        layer = self.stack[k]
        given = Cast(self.stack, x.dtype) if weights is None else weights
        (source, link, name), *others = layer.wires(k)
        weight, below = given.of(k, name), x if source < 0 else states[source]
        bias = None if layer.bias is None else layer.bias.to(below.dtype)
        if images is not None and source >= 0 and link.routed:
            images.append(link.image_of(weight, below, bias))
            a, route = link.pooled(cast(torch.Tensor, images[-1]))
        else:
            a, route = link.drive(weight, below, bias)
            if images is not None:
                images.append(None)
        for source, link, name in others:
            below = x if source < 0 else states[source]
            a = a + link.apply(given.of(k, name), below) if name else link.add_to(a, given.of(k, name), below)
        return a, route

    def internal(self, activities: State, drives: State) -> State:
        """Blocks that describe units with these activities: pre-activations where there is no inverse."""
        return tuple(
            p if layer.activation.inverse is None else h
            for layer, h, p in zip(self.stack, activities, drives, strict=True)
        )
