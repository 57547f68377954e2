"""Linear maps of images, ready for a relaxation: their weights in the order in which images lie in memory.

Images are (B, channels, rows, columns) with the channels of a pixel side by side in memory (`channels_last`):
convolutions and poolings on the CPU are several times faster so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn.functional import conv2d, conv_transpose2d, max_pool2d

POOL = 2
"""Side and stride of a pooling window."""

Route = torch.Tensor | None


@dataclass(frozen=True)
class Product:
    """A `couplings.Readout` made ready: images are flattened as they lie in memory, which copies nothing.

    Attributes
    ----------
    weight : Tensor (n_out, rows columns channels)
    bias : Tensor (n_out,)
    pre : (channels, rows, columns)
    """

    weight: torch.Tensor
    bias: torch.Tensor
    pre: tuple[int, int, int]
    routed = False

    def forward(self, s: torch.Tensor, route: Route = None) -> torch.Tensor:
        """W s, (B, n_out)."""
        if s.is_complex():
            return torch.complex(self.forward(s.real), self.forward(s.imag))
        return product(pixels_first(s).flatten(1), self.weight)

    def drive(self, s: torch.Tensor) -> tuple[torch.Tensor, Route]:
        """W s + b, (B, n_out), and no route."""
        return self.forward(s) + self.bias, None

    def transpose(self, s: torch.Tensor, route: Route = None, onto: torch.Tensor | None = None) -> torch.Tensor:
        """W^T s, (B, *pre); added to `onto`, if given."""
        if s.is_complex():
            back = torch.complex(s.real @ self.weight, s.imag @ self.weight)
        elif onto is not None:
            back = torch.addmm(pixels_first(onto).flatten(1), s, self.weight)
        else:
            back = s @ self.weight
        channels, rows, columns = self.pre
        image = channels_first(back.view(-1, rows, columns, channels))
        return image + onto if onto is not None and s.is_complex() else image


@dataclass(frozen=True)
class Filter:
    """A `couplings.Convolution` with its kernel made ready.

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


def product(s: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """W s for rows s (B, n_in) and W (n_out, n_in)."""
    few, many = weight.shape
    # A product with few columns is slow in BLAS; with few rows it is not.
    return (weight @ s.t()).t() if 8 * few <= many else s @ weight.t()


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
