"""Layers of a predictive coding network: a linear map between units (`physics_ep.maps`), skips, an activation.

A layer's pre-activation is a_k = P(W_k h_{k-1}) + V_k h_j + b_k (V_k a skip from a layer j further down, if there
is one), its prediction sigma_k(a_k). Pooling P stands before the activation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from ..errors import argument_error, unknown_name
from ..maps import ConvLink, Link, Shape, channels_last
from ..moved import moved_names
from .activations import ACTIVATIONS, Activation

if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)


class PredictiveLayer(nn.Module):
    """One layer: a link from the layer below, perhaps a skip from a layer further down, biases, an activation.

    Parameters
    ----------
    link : Link
    activation : str
    bound : float
        Weights start uniform in +-bound, biases at 0.
    generator : torch.Generator
    skip : (int, Link, float), optional
        Index, from 0, of the layer that a skip comes from; its link, and the bound of its weights.
    bias : bool

    Attributes
    ----------
    weight, skip_weight, bias : Parameter
    """

    def __init__(
        self,
        link: Link,
        activation: str,
        bound: float,
        generator: torch.Generator,
        *,
        skip: tuple[int, Link, float] | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise unknown_name("activation", activation, ACTIVATIONS)
        self.link = link
        self.activation_name = activation
        self.weight = nn.Parameter(uniform(link.weight_shape, bound, generator))
        self.bias = nn.Parameter(torch.zeros(link.post[0])) if bias else None
        self.skip_source: int | None = None
        self.skip_link: Link | None = None
        self.skip_weight: nn.Parameter | None = None
        if skip is not None:
            self.skip_source, self.skip_link, skip_bound = skip
            if self.skip_link.post != link.post:
                raise argument_error("skip", f"end in the shape {link.post} of its layer", self.skip_link.post)
            self.skip_weight = nn.Parameter(uniform(self.skip_link.weight_shape, skip_bound, generator))

    @property
    def activation(self) -> Activation:
        """Its response, and what belongs to it."""
        return ACTIVATIONS[self.activation_name]

    @property
    def post(self) -> Shape:
        """Shape of an example's units."""
        return self.link.post

    def extra_repr(self) -> str:
        words = [type(self.link).__name__, f"{list(self.link.pre)} -> {list(self.post)}", self.activation_name]
        if isinstance(self.link, ConvLink) and self.link.pooling:
            words.append(f"{self.link.pooling} pooling")
        if self.skip_source is not None:
            words.append(f"skip from layer {self.skip_source + 1}")
        return ", ".join(words)


def uniform(shape: Shape, bound: float, generator: torch.Generator) -> torch.Tensor:
    """Uniform in +-bound; convolution kernels in channels-last memory."""
    values = bound * (2 * torch.rand(shape, generator=generator) - 1)
    return channels_last(values) if len(shape) == 4 else values
