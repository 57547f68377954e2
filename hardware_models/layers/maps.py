"""Linear maps of images, ready for a relaxation: their weights in the order in which images lie in memory.

Images are (B, channels, rows, columns) with the channels of a pixel side by side in memory (`channels_last`):
convolutions and poolings on the CPU are several times faster so.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from physics_ep.maps import ConvLink
from physics_ep.pooling import Route, channels_first, channels_last, pixels_first, rows_of


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
        """The product W s of a dense map, (B, n_out)."""
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
    link : ConvLink
        Geometry of that kernel, with max pooling if there is any.
    """

    kernel: torch.Tensor
    bias: torch.Tensor
    link: ConvLink

    @property
    def routed(self) -> bool:
        """Whether it takes routes (max pooling)."""
        return self.link.routed

    def forward(self, s: torch.Tensor, route: Route = None) -> torch.Tensor:
        """P(w * s), (B, *post); the entries of `route`, if given, in place of the greatest."""
        if s.is_complex():
            return torch.complex(self.forward(s.real, route), self.forward(s.imag, route))
        return self._pooled(self.link.image_of(self.kernel, s), route)

    def drive(self, s: torch.Tensor) -> tuple[torch.Tensor, Route]:
        """P(w * s) + b, (B, *post), and where the greatest entries are."""
        if not self.routed:
            return self.biased(s), None
        top, route = self.link.drive(self.kernel, s, self.bias)
        return channels_last(top), route

    def biased(self, s: torch.Tensor, route: Route = None) -> torch.Tensor:
        """P(w * s) + b, (B, *post)."""
        if s.is_complex():
            return self.forward(s, route) + self.bias[:, None, None]
        return self._pooled(self.link.image_of(self.kernel, s, self.bias), route)

    def transpose(self, s: torch.Tensor, route: Route = None, onto: torch.Tensor | None = None) -> torch.Tensor:
        """The transposed convolution of s (B, *post): (B, *pre); added to `onto`, if given."""
        if s.is_complex():
            back = torch.complex(self.transpose(s.real, route), self.transpose(s.imag, route))
        else:
            back = self.link.transpose(self.kernel, s, route)
        return back if onto is None else back.add_(onto)

    def misrouting(self, old: torch.Tensor, new: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        """Bound (B,) on the change of W^T s, s (B, *post), when the route changes from old to new."""
        moved = (rows_of(s).abs() * (old != new)).flatten(1).amax(1)
        # An entry of W^T s meets each tap of each channel once.
        return moved * self.kernel.abs().sum((0, 2, 3)).amax()

    def _pooled(self, image: torch.Tensor, route: Route) -> torch.Tensor:
        if route is None:
            return channels_last(self.link.pooled(image)[0])
        return self.link.pick(image, route)


def product(s: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """W s for rows s (B, n_in) and W (n_out, n_in)."""
    few, many = weight.shape
    # A product with few columns is slow in BLAS; with few rows it is not.
    return (weight @ s.t()).t() if 8 * few <= many else s @ weight.t()
