"""Bilinear couplings between layers: the linear map W of an energy -s_post . (W s_pre + b), and its transpose.

A layered system relaxes over couplings that are `bound`: what depends on the weights alone is computed once a
phase. All couplings answer to the same names, so that dense and convolutional layers stack as one likes:

    forward(s, route) = W s,   drive(s) = (W s + b, route),   transpose(s, route) = W^T s,   contrast(...)

A *route* is which entries a max pooling picked, (B, pooled positions, channels); all other couplings have None.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import avg_pool2d, conv2d, conv_transpose2d, max_pool2d, pad
from torch.nn.grad import conv2d_weight

POOLINGS = ("average", "max")
POOL = 2
"""Side and stride of a pooling window."""

Route = torch.Tensor | None


class Dense(nn.Module):
    """All-to-all coupling from a layer of n_in units to one of n_out units, with the biases of the latter.

    Parameters
    ----------
    pre : int or (channels, rows, columns)
        Units of the layer below; images are taken flat, channels first.
    n_out : int
    gain : float
        Weights start uniform in +-gain / sqrt(n_in), biases at 0.
    generator : torch.Generator

    Attributes
    ----------
    weight : Parameter (n_out, n_in)
    bias : Parameter (n_out,)
    """

    routed = False

    def __init__(self, pre: int | tuple[int, ...], n_out: int, gain: float, generator: torch.Generator) -> None:
        super().__init__()
        self.image = pre if isinstance(pre, tuple) and len(pre) == 3 else None
        n_in = pre if isinstance(pre, int) else math.prod(pre)
        self.weight = nn.Parameter(_uniform((n_out, n_in), gain / math.sqrt(n_in), generator))
        self.bias = nn.Parameter(torch.zeros(n_out))

    def bound(self) -> Dense:
        """Itself: nothing is to be computed beforehand."""
        return self

    def forward(self, s: torch.Tensor, route: Route = None) -> torch.Tensor:
        """W s, (B, n_out)."""
        if s.is_complex():
            return torch.complex(self.forward(s.real), self.forward(s.imag))
        s = s if self.image is None else s.flatten(1)
        few, many = self.weight.shape
        # A product with few columns is slow in BLAS; with few rows it is not.
        return (self.weight @ s.t()).t() if 8 * few <= many else s @ self.weight.t()

    def drive(self, s: torch.Tensor) -> tuple[torch.Tensor, Route]:
        """W s + b, (B, n_out), and no route."""
        return self.forward(s) + self.bias, None

    def biased(self, s: torch.Tensor, route: Route = None) -> torch.Tensor:
        """W s + b, (B, n_out), in one product."""
        if s.is_complex():
            return self.forward(s) + self.bias
        return torch.addmm(self.bias, s if self.image is None else s.flatten(1), self.weight.t())

    def transpose(self, s: torch.Tensor, route: Route = None, onto: torch.Tensor | None = None) -> torch.Tensor:
        """W^T s, (B, n_in) or (B, channels, rows, columns); added to `onto`, if given."""
        if s.is_complex():
            back = torch.complex(s.real @ self.weight, s.imag @ self.weight)
        elif self.image is None and onto is not None:
            return torch.addmm(onto, s, self.weight)
        else:
            back = s @ self.weight
        if self.image is not None:
            back = channels_last(back.view(-1, *self.image))
        return back if onto is None else onto + back

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
        if self.image is not None:
            m_pre = m_pre.flatten(1)
            e_pre = None if e_pre is None else e_pre.flatten(1)
        weight = e_post.t() @ m_pre
        if e_pre is not None:
            weight = torch.addmm(weight, m_post.t(), e_pre)
        return weight, e_post.sum(0)


class Convolution(nn.Module):
    """Coupling P(w * s) + b between images: a convolution that keeps their size, then, if asked for, 2x2 pooling.

    The convolution is the cross-correlation of deep learning, with zeros around the image. Pooling drops a last
    odd row or column. Average pooling is linear, so kernel and pooling are one strided convolution with the kernel
    averaged over the window: for a 3x3 kernel, 16 products a pooled entry in place of 36.

    Parameters
    ----------
    pre : (channels, rows, columns)
        Of the layer below.
    channels : int
        Of the layer above.
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
        size = self.weight.shape[-1]
        averaged = self.pooling == "average"
        kernel = avg_pool2d(pad(self.weight, (1, 1, 1, 1)), POOL, stride=1) if averaged else self.weight
        stride = POOL if averaged else 1
        return Filter(channels_last(kernel), self.bias, self.pre, self.post, stride, size // 2, self.routed)

    def forward(self, s: torch.Tensor, route: Route = None) -> torch.Tensor:
        """P(w * s), (B, *post)."""
        return self.bound().forward(s, route)

    def biased(self, s: torch.Tensor, route: Route = None) -> torch.Tensor:
        """P(w * s) + b, (B, *post)."""
        return self.bound().biased(s, route)

    def transpose(self, s: torch.Tensor, route: Route = None) -> torch.Tensor:
        """Its transpose on s (B, *post): (B, *pre)."""
        return self.bound().transpose(s, route)

    def contrast(
        self,
        e_post: torch.Tensor,
        m_post: torch.Tensor,
        e_pre: torch.Tensor | None,
        m_pre: torch.Tensor,
        route: Route = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `Dense.contrast`; a max pooling's route is held."""
        if e_post.is_complex():
            return _real_contrast(self, e_post, m_post, e_pre, m_pre, route)
        stride = POOL if self.pooling == "average" else 1
        shape = list(self.weight.shape)
        padding = shape[-1] // 2
        bias = e_post.sum((0, 2, 3))
        if route is not None:
            e_post, m_post = (unpooled(s, route, self.pre[1:]) for s in (e_post, m_post))
        if stride > 1:
            shape[2:] = [n + 1 for n in shape[2:]]
        weight = conv2d_weight(m_pre, shape, e_post, stride, padding)
        if e_pre is not None:
            weight = weight + conv2d_weight(e_pre, shape, m_post, stride, padding)
        # The transpose of averaging the kernel over the pooling window.
        weight = weight if stride == 1 else avg_pool2d(weight, POOL, stride=1)
        return weight.contiguous(), bias


@dataclass(frozen=True)
class Filter:
    """A `Convolution` with its kernel made ready.

    Attributes
    ----------
    kernel : Tensor (channels, channels below, size, size)
        Averaged over the pooling window if there is average pooling.
    bias : Tensor (channels,)
    pre, post : (channels, rows, columns)
    stride, padding : int
    routed : bool
    """

    kernel: torch.Tensor
    bias: torch.Tensor
    pre: tuple[int, int, int]
    post: tuple[int, int, int]
    stride: int
    padding: int
    routed: bool

    def forward(self, s: torch.Tensor, route: Route = None) -> torch.Tensor:
        """P(w * s), (B, *post); the entries of `route`, if given, in place of the greatest."""
        if s.is_complex():
            return torch.complex(self.forward(s.real, route), self.forward(s.imag, route))
        return self._pooled(conv2d(s, self.kernel, None, self.stride, self.padding), route)

    def drive(self, s: torch.Tensor) -> tuple[torch.Tensor, Route]:
        """P(w * s) + b, (B, *post), and where the greatest entries are."""
        if not self.routed:
            return self.biased(s), None
        maps = conv2d(s, self.kernel, self.bias, self.stride, self.padding)
        top, where = max_pool2d(maps, POOL, return_indices=True)
        return channels_last(top), rows_of(where)

    def biased(self, s: torch.Tensor, route: Route = None) -> torch.Tensor:
        """P(w * s) + b, (B, *post)."""
        if s.is_complex():
            return self.forward(s, route) + self.bias[:, None, None]
        return self._pooled(conv2d(s, self.kernel, self.bias, self.stride, self.padding), route)

    def transpose(self, s: torch.Tensor, route: Route = None, onto: torch.Tensor | None = None) -> torch.Tensor:
        """Its transpose on s (B, *post): (B, *pre); added to `onto`, if given."""
        if s.is_complex():
            back = torch.complex(self.transpose(s.real, route), self.transpose(s.imag, route))
        else:
            if route is not None:
                s = unpooled(s, route, self.pre[1:])
            # The row or column that pooling drops.
            spare = [n % self.stride for n in self.pre[1:]]
            back = conv_transpose2d(s, self.kernel, None, self.stride, self.padding, spare)
        return back if onto is None else back.add_(onto)

    def misrouting(self, old: torch.Tensor, new: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        """Bound (B,) on the change of W^T s, s (B, *post), when the route changes from old to new."""
        moved = (rows_of(s).abs() * (old != new)).flatten(1).amax(1)
        # An entry of W^T s meets each tap of each channel once.
        return moved * self.kernel.abs().sum((0, 2, 3)).amax()

    def _pooled(self, maps: torch.Tensor, route: Route) -> torch.Tensor:
        if not self.routed:
            return channels_last(maps)
        if route is None:
            return channels_last(max_pool2d(maps, POOL))
        return images_of(rows_of(maps).gather(1, route), self.post[1:])


def channels_last(images: torch.Tensor) -> torch.Tensor:
    """The same images (B, C, H, W) with the channels of a pixel side by side in memory.

    Convolutions and poolings on the CPU are several times faster so.
    """
    return images.contiguous(memory_format=torch.channels_last)


def pixels_first(block: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) as (B, H, W, C), which a solver flattens without a copy; other blocks as they are."""
    return block.permute(0, 2, 3, 1) if block.ndim == 4 else block


def channels_first(block: torch.Tensor) -> torch.Tensor:
    """Inverse of `pixels_first`."""
    return block.permute(0, 3, 1, 2) if block.ndim == 4 else block


def rows_of(images: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) as (B, H W, C): a view of images with their channels last in memory."""
    return pixels_first(images).flatten(1, 2)


def images_of(rows: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    """Inverse of `rows_of`, for images of size (H, W)."""
    return channels_first(rows.unflatten(1, size))


def unpooled(s: torch.Tensor, route: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    """Pooled entries s (B, C, h, w) put back where a route took them from, zeros elsewhere: (B, C, *size)."""
    flat = s.new_zeros(s.shape[0], math.prod(size), s.shape[1])
    return images_of(flat.scatter_(1, route, rows_of(s)), size)


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
