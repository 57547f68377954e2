"""Bilinear couplings between layers: the linear map W of an energy -s_post . (W s_pre + b), and its transpose.

A layered system relaxes over couplings that are `bound`: what depends on the weights alone is computed once a
phase. All couplings answer to the same names, so that dense and convolutional layers stack as one likes:

    forward(s, route) = W s,   drive(s) = (W s + b, route),   transpose(s, route) = W^T s,   contrast(...)

Bound convolutions and readouts are `maps`. A *route* is which entries a max pooling picked, (B, pooled positions,
channels); all other couplings have None.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.functional import avg_pool2d, pad

from physics_ep.maps import ConvLink
from physics_ep.pooling import POOL, Route, channels_last, pixels_first

from .maps import Filter, Product, product


class Dense(nn.Module):
    """All-to-all coupling from a layer of n_in units to one of n_out units, with the biases of the latter.

    Parameters
    ----------
    n_in, n_out : int
    gain : float
        Weights start uniform in +-gain / sqrt(n_in), biases at 0.
    generator : torch.Generator

    Attributes
    ----------
    weight : Parameter (n_out, n_in)
    bias : Parameter (n_out,)
    """

    routed = False

    def __init__(self, n_in: int, n_out: int, gain: float, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(_uniform((n_out, n_in), gain / math.sqrt(n_in), generator))
        self.bias = nn.Parameter(torch.zeros(n_out))

    def bound(self) -> Dense:
        """The coupling itself, since nothing is to be computed beforehand."""
        return self

    def forward(self, s: torch.Tensor, route: Route = None) -> torch.Tensor:
        """The layer's input W s from the layer below, (B, n_out)."""
        if s.is_complex():
            return torch.complex(self.forward(s.real), self.forward(s.imag))
        return product(s, self.weight)

    def drive(self, s: torch.Tensor) -> tuple[torch.Tensor, Route]:
        """W s + b, (B, n_out), and no route."""
        return self.forward(s) + self.bias, None

    def biased(self, s: torch.Tensor, route: Route = None) -> torch.Tensor:
        """The drive W s + b, (B, n_out), in one product."""
        if s.is_complex():
            return self.forward(s) + self.bias
        return torch.addmm(self.bias, s, self.weight.t())

    def transpose(self, s: torch.Tensor, route: Route = None, onto: torch.Tensor | None = None) -> torch.Tensor:
        """W^T s, (B, n_in); added to `onto`, if given."""
        if s.is_complex():
            back = torch.complex(s.real @ self.weight, s.imag @ self.weight)
            return back if onto is None else onto + back
        return s @ self.weight if onto is None else torch.addmm(onto, s, self.weight)

    def contrast(
        self,
        e_post: torch.Tensor,
        m_post: torch.Tensor,
        e_pre: torch.Tensor | None,
        m_pre: torch.Tensor,
        route: Route = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Change of -dE/dW and -dE/db between two states with mean m and difference e; e_pre None: clamped.

        a+ b+ - a- b- = (a+ - a-) (b+ + b-)/2 + (a+ + a-)/2 (b+ - b-): no difference of products. The real part,
        for complex states.
        """
        if e_post.is_complex():
            return _real_contrast(self, e_post, m_post, e_pre, m_pre, route)
        return self.weight_contrast(e_post, m_post, e_pre, m_pre), e_post.sum(0)

    def weight_contrast(
        self, e_post: torch.Tensor, m_post: torch.Tensor, e_pre: torch.Tensor | None, m_pre: torch.Tensor
    ) -> torch.Tensor:
        """The weight's part of `contrast`, of real states."""
        weight = e_post.t() @ m_pre
        return weight if e_pre is None else weight.addmm_(m_post.t(), e_pre)


class Readout(Dense):
    """Dense coupling from an image to a layer of n_out units.

    Parameters
    ----------
    pre : (channels, rows, columns)
        Shape of an image of the layer below; the weight's columns take it flat, channels first.
    n_out : int
    gain, generator
        The arguments of `Dense` of the same names.
    """

    def __init__(self, pre: tuple[int, int, int], n_out: int, gain: float, generator: torch.Generator) -> None:
        super().__init__(math.prod(pre), n_out, gain, generator)
        self.pre = pre

    def bound(self) -> Product:  # type: ignore[override]
        """The map of the present weights, with their columns in the order of images in memory."""
        return Product(pixels_first(self.weight.unflatten(1, self.pre)).flatten(1), self.bias, self.pre)

    def forward(self, s: torch.Tensor, route: Route = None) -> torch.Tensor:
        """The readout W s of the layer below, (B, n_out)."""
        return super().forward(s.flatten(1))

    def biased(self, s: torch.Tensor, route: Route = None) -> torch.Tensor:
        """W s + b, (B, n_out)."""
        return super().biased(s.flatten(1)) if not s.is_complex() else self.forward(s) + self.bias

    def transpose(self, s: torch.Tensor, route: Route = None, onto: torch.Tensor | None = None) -> torch.Tensor:
        """W^T s, (B, *pre); added to `onto`, if given."""
        return self.bound().transpose(s, route, onto)

    def contrast(
        self,
        e_post: torch.Tensor,
        m_post: torch.Tensor,
        e_pre: torch.Tensor | None,
        m_pre: torch.Tensor,
        route: Route = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The contrast of a convolution's weights and biases, with the arguments of `Dense.contrast`."""
        return super().contrast(e_post, m_post, None if e_pre is None else e_pre.flatten(1), m_pre.flatten(1))


class Convolution(nn.Module):
    """Coupling P(w * s) + b between images: a convolution that keeps their size, then, if asked for, 2x2 pooling.

    The convolution is the cross-correlation of deep learning, with zeros around the image. Pooling drops a last
    odd row or column. Average pooling is linear, so kernel and pooling are one strided convolution with the kernel
    averaged over the window: for a 3x3 kernel, 16 products a pooled entry in place of 36.

    Parameters
    ----------
    pre : (channels, rows, columns)
        Shape of an image of the layer below.
    channels : int
        Channels of the layer above.
    kernel_size : int
        Odd.
    pooling : {'average', 'max', None}
    gain : float
        Weights start uniform in +-gain / sqrt(fan-in), fan-in = kernel_size^2 channels below; biases at 0.
    generator : torch.Generator

    Attributes
    ----------
    weight : Parameter (channels, channels below, kernel_size, kernel_size)
    bias : Parameter (channels,)
        One for all units of a channel.
    post : (channels, rows, columns)
        Shape of the layer above.
    routed : bool
        Whether it takes routes (max pooling).
    """

    def __init__(
        self,
        pre: tuple[int, int, int],
        channels: int,
        kernel_size: int,
        pooling: str | None,
        gain: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        below, rows, columns = pre
        shape = (channels, below, kernel_size, kernel_size)
        self.weight = nn.Parameter(_uniform(shape, gain / math.sqrt(math.prod(shape[1:])), generator))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.pooling = pooling
        self.routed = pooling == "max"
        self.pre = pre
        side = 1 if pooling is None else POOL
        self.post = (channels, rows // side, columns // side)

    def bound(self) -> Filter:
        """The map of the present weights."""
        averaged = self.pooling == "average"
        kernel = avg_pool2d(pad(self.weight, (1, 1, 1, 1)), POOL, stride=1) if averaged else self.weight
        return Filter(channels_last(kernel), self.bias, self.link)

    @property
    def link(self) -> ConvLink:
        """Geometry of the map; an average pooling is in the stride and in the kernel, one wider."""
        channels, _, size, _ = self.weight.shape
        if self.pooling == "average":
            return ConvLink(self.pre, channels, kernel_size=size + 1, stride=POOL, padding=size // 2)
        return ConvLink(self.pre, channels, kernel_size=size, padding=size // 2, pooling=self.pooling)

    def forward(self, s: torch.Tensor, route: Route = None) -> torch.Tensor:
        """The pooled convolution P(w * s), (B, *post)."""
        return self.bound().forward(s, route)

    def biased(self, s: torch.Tensor, route: Route = None) -> torch.Tensor:
        """P(w * s) + b, (B, *post)."""
        return self.bound().biased(s, route)

    def transpose(self, s: torch.Tensor, route: Route = None) -> torch.Tensor:
        """The transposed convolution of s (B, *post): (B, *pre)."""
        return self.bound().transpose(s, route)

    def contrast(
        self,
        e_post: torch.Tensor,
        m_post: torch.Tensor,
        e_pre: torch.Tensor | None,
        m_pre: torch.Tensor,
        route: Route = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Contrast of weights and biases, as `Dense.contrast` has it; a max pooling's route is held."""
        if e_post.is_complex():
            return _real_contrast(self, e_post, m_post, e_pre, m_pre, route)
        link, bias = self.link, e_post.sum((0, 2, 3))
        weight = link.gradient(m_pre, e_post, route)
        if e_pre is not None:
            weight = weight + link.gradient(e_pre, m_post, route)
        # The transpose of averaging the kernel over the pooling window.
        weight = avg_pool2d(weight, POOL, stride=1) if self.pooling == "average" else weight
        return weight.contiguous(), bias


def _real_contrast(
    layer: Dense | Convolution,
    e_post: torch.Tensor,
    m_post: torch.Tensor,
    e_pre: torch.Tensor | None,
    m_pre: torch.Tensor,
    route: Route,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Re (a b) = Re a Re b - Im a Im b; a clamped input has no imaginary part."""
    real = layer.contrast(e_post.real, m_post.real, None if e_pre is None else e_pre.real, m_pre.real, route)
    if e_pre is None:
        return real
    imaginary = layer.contrast(e_post.imag, m_post.imag, e_pre.imag, m_pre.imag, route)
    return real[0] - imaginary[0], real[1]


def _uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> torch.Tensor:
    draw = torch.rand(shape, generator=generator, dtype=torch.float64)
    return (bound * (2 * draw - 1)).to(torch.get_default_dtype())
