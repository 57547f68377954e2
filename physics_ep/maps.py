"""Linear maps from one layer's units to another's: dense, convolution, pooling; their transposes and gradients.

Every `Link` is the geometry of such a map; its weights are handed in, so that a network's layers, a substrate's
couplings and arrays of devices all use the same ones:

    apply(w, h, route) = P W h,   transpose(w, delta, route) = (P W)^T delta,   gradient(h, delta, route) = sum
    delta h^T

Pooling P, 2x2, stands behind a convolution. All maps are linear once a max pooling's *route* is held: which entry
of each window it picked, as indices (B, pooled positions, channels) into the image before pooling, or packed.

Images are (B, channels, rows, columns) with the channels of a pixel side by side in memory (`channels_last`), which
is the fast layout of convolutions and poolings on CPUs and GPUs alike. Links do not convert: hand them such images.
"""

from __future__ import annotations

import math

import torch
from torch.nn.functional import avg_pool2d, conv2d, conv_transpose2d, linear, max_pool2d, pad
from torch.nn.grad import conv2d_weight

from .errors import argument_error

Route = torch.Tensor | None
Shape = tuple[int, ...]

POOLINGS = ("max", "average")
POOL = 2
"""Rows and columns of a pooling window, and its stride."""
PACKED = torch.int16
"""What packed routes are kept in: how far each index is behind the first of its window."""


class Link:
    """A linear map from one layer's units to another's, without its weights.

    Parameters
    ----------
    pre, post : tuple of int
        Shapes of an example below and above.
    weight_shape : tuple of int
    fan_in, fan_out : int
        Products that make one entry above, and that one entry below takes part in.

    Attributes
    ----------
    routed : bool
        Whether it takes routes (max pooling).
    """

    routed = False

    def __init__(self, pre: Shape, post: Shape, weight_shape: Shape, fan_in: int, fan_out: int) -> None:
        self.pre = pre
        self.post = post
        self.weight_shape = weight_shape
        self.fan_in = fan_in
        self.fan_out = fan_out

    def apply(self, w: torch.Tensor, h: torch.Tensor, route: Route = None) -> torch.Tensor:
        """P W h, (B, *post)."""
        raise NotImplementedError

    def drive(self, w: torch.Tensor, h: torch.Tensor, bias: torch.Tensor | None) -> tuple[torch.Tensor, Route]:
        """P W h + b, and the route that a max pooling takes."""
        raise NotImplementedError

    def image_of(self, w: torch.Tensor, h: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """W h (+ b) before a max pooling."""
        raise NotImplementedError

    def route_of(self, image: torch.Tensor) -> torch.Tensor:
        """What a max pooling picks of an image, (B, pooled positions, channels)."""
        raise NotImplementedError

    def pick(self, image: torch.Tensor, route: torch.Tensor) -> torch.Tensor:
        """What a max pooling passes on of an image where its route is held, (B, *post)."""
        raise NotImplementedError

    def packed(self, route: Route) -> Route:
        """A route in a quarter of its memory, which every method takes; itself where images are too wide."""
        return route

    def transpose(
        self, w: torch.Tensor, delta: torch.Tensor, route: Route = None, space: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(P W)^T delta, (B, *pre); `space`, flat, is memory for what a max pooling has picked from."""
        raise NotImplementedError

    def gradient(self, h: torch.Tensor, delta: torch.Tensor, route: Route = None) -> torch.Tensor:
        """Sum over the batch of d(delta . P W h)/dW, of the weight's shape."""
        raise NotImplementedError


class DenseLink(Link):
    """All-to-all, weights (n_out, n_in); takes images flat, channels first."""

    def __init__(self, pre: Shape, n_out: int) -> None:
        n_in = math.prod(pre)
        super().__init__(pre, (n_out,), (n_out, n_in), n_in, n_out)

    def apply(self, w: torch.Tensor, h: torch.Tensor, route: Route = None) -> torch.Tensor:
        return linear(h.flatten(1), w)

    def drive(self, w: torch.Tensor, h: torch.Tensor, bias: torch.Tensor | None) -> tuple[torch.Tensor, Route]:
        return linear(h.flatten(1), w, bias), None

    def transpose(
        self, w: torch.Tensor, delta: torch.Tensor, route: Route = None, space: torch.Tensor | None = None
    ) -> torch.Tensor:
        back = delta @ w
        return back if len(self.pre) == 1 else channels_last(back.unflatten(1, self.pre))

    def gradient(self, h: torch.Tensor, delta: torch.Tensor, route: Route = None) -> torch.Tensor:
        return delta.t() @ h.flatten(1)


class ConvLink(Link):
    """Convolution (the cross-correlation of deep learning) with zeros around the image, then 2x2 pooling if asked
    for.

    Weights are (channels, channels below, kernel_size, kernel_size). Pooling drops a last odd row or column.
    """

    def __init__(
        self,
        pre: Shape,
        channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        padding: int = 1,
        pooling: str | None = None,
    ) -> None:
        below, rows, columns = pre
        self.stride, self.padding, self.pooling = stride, padding, pooling
        self.routed = pooling == "max"
        reach = kernel_size - 2 * padding
        self.image = ((rows - reach) // stride + 1, (columns - reach) // stride + 1)
        """Rows and columns before pooling."""
        side = 1 if pooling is None else POOL
        post = (channels, self.image[0] // side, self.image[1] // side)
        if min(post) < 1:
            raise argument_error("input_shape", "be large enough for the network's poolings", pre)
        area = kernel_size**2
        super().__init__(pre, post, (channels, below, kernel_size, kernel_size), area * below, area * channels)

    def apply(self, w: torch.Tensor, h: torch.Tensor, route: Route = None) -> torch.Tensor:
        image = conv2d(h, w, None, self.stride, self.padding)
        if self.pooling is None:
            return image
        if not self.routed:
            return avg_pool2d(image, POOL)
        if route is None:
            raise ValueError("a max pooling is linear on a held route only")
        return self.pick(image, route)

    def drive(self, w: torch.Tensor, h: torch.Tensor, bias: torch.Tensor | None) -> tuple[torch.Tensor, Route]:
        return self.pooled(conv2d(h, w, bias, self.stride, self.padding))

    def pooled(self, image: torch.Tensor) -> tuple[torch.Tensor, Route]:
        """P of an image, and the route that a max pooling takes."""
        if self.pooling is None:
            return image, None
        if not self.routed:
            return avg_pool2d(image, POOL), None
        pooled, where = max_pool2d(image, POOL, return_indices=True)
        return pooled, rows_of(where)

    def image_of(self, w: torch.Tensor, h: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        return conv2d(h, w, bias, self.stride, self.padding)

    def route_of(self, image: torch.Tensor) -> torch.Tensor:
        return rows_of(max_pool2d(image, POOL, return_indices=True)[1])

    def pick(self, image: torch.Tensor, route: torch.Tensor) -> torch.Tensor:
        return picked(image, self._indices(route), self.post[1:])

    def packed(self, route: Route) -> Route:
        if route is None or self.image[1] >= torch.iinfo(PACKED).max:
            return route
        return (route - self._window_starts(route.device)).to(PACKED)

    def _indices(self, route: torch.Tensor) -> torch.Tensor:
        """A route, packed or not, as indices into the image."""
        return self._window_starts(route.device) + route if route.dtype is PACKED else route

    def _window_starts(self, device: torch.device) -> torch.Tensor:
        """Index of the first entry of each pooling window, (windows, 1)."""
        places = torch.arange(math.prod(self.image), device=device).view(self.image)
        return places[: POOL * self.post[1] : POOL, : POOL * self.post[2] : POOL].reshape(-1, 1)

    def transpose(
        self, w: torch.Tensor, delta: torch.Tensor, route: Route = None, space: torch.Tensor | None = None
    ) -> torch.Tensor:
        image = self._unpooled(delta, route, space)
        kernel = w.shape[-1]
        # What a strided convolution does not reach at the last rows and columns.
        left = [
            n - ((m - 1) * self.stride - 2 * self.padding + kernel)
            for n, m in zip(self.pre[1:], self.image, strict=True)
        ]
        return conv_transpose2d(image, w, None, self.stride, self.padding, left)

    def gradient(self, h: torch.Tensor, delta: torch.Tensor, route: Route = None) -> torch.Tensor:
        image = self._unpooled(delta, route)
        return conv2d_weight(h, self.weight_shape, image, self.stride, self.padding)

    def _unpooled(self, delta: torch.Tensor, route: Route, space: torch.Tensor | None = None) -> torch.Tensor:
        if self.pooling is None:
            return delta
        if route is not None:
            return placed(delta, self._indices(route), self.image, space)
        spread = (delta / POOL**2).repeat_interleave(POOL, 2).repeat_interleave(POOL, 3)
        rows, columns = (n - spread.shape[k] for k, n in enumerate(self.image, 2))
        return pad(spread, (0, columns, 0, rows)) if rows or columns else spread


def picked(image: torch.Tensor, route: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    """Entries of an image that a route names, as an image of this size (rows, columns).

    An image of c stacked batches takes the route of one.
    """
    copies = len(image) // len(route)
    pixels = pixels_first(image).reshape(copies, len(route), -1, image.shape[1])
    chosen = pixels.gather(2, route.expand(copies, *route.shape))
    return channels_first(chosen.view(len(image), *size, image.shape[1]))


def placed(
    pooled: torch.Tensor, route: torch.Tensor, size: tuple[int, ...], space: torch.Tensor | None = None
) -> torch.Tensor:
    """Transpose of `picked`: an image of this size with the pooled entries where the route names, zeros elsewhere.

    `space`, flat, is memory to write it into.
    """
    copies = len(pooled) // len(route)
    channels = pooled.shape[1]
    values = pixels_first(pooled).reshape(copies, len(route), -1, channels)
    shape = (copies, len(route), math.prod(size), channels)
    pixels = values.new_zeros(shape) if space is None else space[: math.prod(shape)].zero_().view(shape)
    pixels.scatter_(2, route.expand(copies, *route.shape), values)
    return channels_first(pixels.view(len(pooled), *size, channels))


def channels_last(image: torch.Tensor) -> torch.Tensor:
    """The same image (B, C, H, W) with the channels of a pixel side by side in memory."""
    return image.contiguous(memory_format=torch.channels_last)


def pixels_first(block: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) as (B, H, W, C), which a solver flattens without a copy; other blocks as they are."""
    return block.permute(0, 2, 3, 1) if block.ndim == 4 else block


def channels_first(block: torch.Tensor) -> torch.Tensor:
    """Inverse of `pixels_first`."""
    return block.permute(0, 3, 1, 2) if block.ndim == 4 else block


def rows_of(images: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) as (B, H W, C): a view of images with their channels last in memory."""
    return pixels_first(images).flatten(1, 2)
