"""Poolings of images: averages and maxima over windows, their transposes, and the routes of maxima.

A max pooling is linear once its *route* is held: which entry of each window it picked, as indices (B, pooled
positions, channels) into the image before pooling, or packed.

Images are (B, channels, rows, columns) with the channels of a pixel side by side in memory (`channels_last`), which
is the fast layout of convolutions and poolings on CPUs and GPUs alike. Poolings do not convert: hand them such
images.
"""

from __future__ import annotations

import math

import torch
from torch.nn.functional import avg_pool2d, conv_transpose2d, max_pool2d, pad

from .errors import argument_error, unknown_name

Route = torch.Tensor | None
Pair = tuple[int, int]

POOLINGS = ("max", "average")
POOL = 2
"""Rows and columns of a pooling window, and its stride, where nothing else is said."""
PACKED = torch.int16
"""What packed routes are kept in: how far each index is behind the first of its window."""


class Pooling:
    """A pooling over windows of an image; averages count the zeros around it, maxima do not.

    Parameters
    ----------
    kind : {'max', 'average'}
    size : int or (rows, columns)
        Rows and columns of a window.
    stride : int or (rows, columns), optional
        From window to window; None: their size.
    padding : int or (rows, columns)
        Around the image, at most half a window.

    Raises
    ------
    InputError
        If an argument is not as above.
    """

    def __init__(
        self, kind: str, size: int | Pair = POOL, stride: int | Pair | None = None, padding: int | Pair = 0
    ) -> None:
        if kind not in POOLINGS:
            raise unknown_name("pooling", kind, POOLINGS)
        self.kind = kind
        self.size, self.padding = pair(size), pair(padding)
        self.stride = self.size if stride is None else pair(stride)
        self.tiles = self.stride == self.size and self.padding == (0, 0)
        """Whether windows lie side by side: no entry is in two of them."""
        if min(*self.size, *self.stride) < 1 or any(
            2 * p > n for p, n in zip(self.padding, self.size, strict=True)
        ):
            raise argument_error(
                "pooling", "have windows of one or more, and a padding of at most half a window", repr(self)
            )

    @property
    def routed(self) -> bool:
        """Whether the pooling chooses one entry of each window, as max pooling does."""
        return self.kind == "max"

    def __repr__(self) -> str:
        return f"Pooling({self.kind!r}, {self.size}, {self.stride}, {self.padding})"

    def image(self, image: Pair) -> Pair:
        """Rows and columns that are left of an image; a last window that does not fit is dropped."""
        sides = zip(image, self.size, self.stride, self.padding, strict=True)
        rows, columns = ((n + 2 * p - size) // stride + 1 for n, size, stride, p in sides)
        return rows, columns

    def pooled(self, image: torch.Tensor) -> tuple[torch.Tensor, Route]:
        """The pooling P of an image, and the route of a maximum."""
        if not self.routed:
            return avg_pool2d(image, self.size, self.stride, self.padding), None
        found, where = max_pool2d(image, self.size, self.stride, self.padding, return_indices=True)
        return found, rows_of(where)

    def route_of(self, image: torch.Tensor) -> torch.Tensor:
        """What a maximum picks of an image."""
        found = max_pool2d(image, self.size, self.stride, self.padding, return_indices=True)
        return rows_of(found[1])

    def held(self, image: torch.Tensor, route: Route) -> torch.Tensor:
        """The pooling P of an image where the route of a maximum is held."""
        if not self.routed:
            return avg_pool2d(image, self.size, self.stride, self.padding)
        if route is None:
            raise ValueError("a max pooling is linear on a held route only")
        sides = (int(image.shape[2]), int(image.shape[3]))
        return picked(image, self.indices(route, sides), self.image(sides))

    def transpose(
        self, delta: torch.Tensor, image: Pair, route: Route = None, space: torch.Tensor | None = None
    ) -> torch.Tensor:
        """P^T of an image, which is again of these rows and columns; `space`, flat, is memory for it."""
        if self.routed:
            assert route is not None
            return placed(delta, self.indices(route, image), image, space, alone=self.tiles)
        if not self.tiles:
            sides = zip(image, delta.shape[2:], self.size, self.stride, self.padding, strict=True)
            rest = [n - ((m - 1) * stride - 2 * p + size) for n, m, size, stride, p in sides]
            kernel = delta.new_full((delta.shape[1], 1, *self.size), 1 / math.prod(self.size))
            return conv_transpose2d(delta, kernel, None, self.stride, self.padding, rest, delta.shape[1])
        rows, columns = self.size
        spread = (delta / (rows * columns)).repeat_interleave(rows, 2).repeat_interleave(columns, 3)
        more_rows, more_columns = (n - spread.shape[k] for k, n in enumerate(image, 2))
        return pad(spread, (0, more_columns, 0, more_rows)) if more_rows or more_columns else spread

    def packed(self, route: Route, image: Pair) -> Route:
        """A route in a quarter of its memory, which every method takes; itself where images are too wide."""
        farthest = (self.size[0] - 1) * image[1] + self.size[1] - 1
        if route is None or farthest > torch.iinfo(PACKED).max:
            return route
        return (route - self._window_starts(image, route.device)).to(PACKED)

    def indices(self, route: torch.Tensor, image: Pair) -> torch.Tensor:
        """A route, packed or not, as indices into the image."""
        return self._window_starts(image, route.device) + route if route.dtype is PACKED else route

    def _window_starts(self, image: Pair, device: torch.device) -> torch.Tensor:
        """Index of the first entry of each window, (windows, 1); in the padding it counts on."""
        rows, columns = (
            torch.arange(n, device=device) * stride - p
            for n, stride, p in zip(self.image(image), self.stride, self.padding, strict=True)
        )
        return (rows[:, None] * image[1] + columns).reshape(-1, 1)


def pair(value: int | Pair) -> Pair:
    """One number for rows and columns, or both of them."""
    if isinstance(value, int):
        return value, value
    rows, columns = value
    return int(rows), int(columns)


def picked(image: torch.Tensor, route: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    """Entries of an image that a route names, as an image of this size (rows, columns).

    An image of c stacked batches takes the route of one.
    """
    copies = len(image) // len(route)
    pixels = pixels_first(image).reshape(copies, len(route), -1, image.shape[1])
    chosen = pixels.gather(2, route.expand(copies, *route.shape))
    return channels_first(chosen.view(len(image), *size, image.shape[1]))


def placed(
    pooled: torch.Tensor,
    route: torch.Tensor,
    size: tuple[int, ...],
    space: torch.Tensor | None = None,
    alone: bool = True,
) -> torch.Tensor:
    """Transpose of `picked`: an image of this size with the pooled entries where the route names, zeros elsewhere.

    `space`, flat, is memory to write it into. Where windows are not `alone`, several may name one entry.
    """
    copies = len(pooled) // len(route)
    channels = pooled.shape[1]
    values = pixels_first(pooled).reshape(copies, len(route), -1, channels)
    shape = (copies, len(route), math.prod(size), channels)
    pixels = values.new_zeros(shape) if space is None else space[: math.prod(shape)].zero_().view(shape)
    where = route.expand(copies, *route.shape)
    pixels = pixels.scatter_(2, where, values) if alone else pixels.scatter_add_(2, where, values)
    return channels_first(pixels.view(len(pooled), *size, channels))


def channels_last(image: torch.Tensor) -> torch.Tensor:
    """An image (B, C, H, W) stored so that the channels of a pixel lie side by side in memory."""
    return image.contiguous(memory_format=torch.channels_last)


def pixels_first(block: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) as (B, H, W, C), which a solver flattens without a copy; other blocks as they are."""
    return block.permute(0, 2, 3, 1) if block.ndim == 4 else block


def channels_first(block: torch.Tensor) -> torch.Tensor:
    """Undo `pixels_first`: bring the channels in front of the pixels again."""
    return block.permute(0, 3, 1, 2) if block.ndim == 4 else block


def rows_of(images: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) as (B, H W, C): a view of images with their channels last in memory."""
    return pixels_first(images).flatten(1, 2)
