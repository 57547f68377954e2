"""Linear maps from one layer's units to another's: dense, convolution, pooling, channels; transposes and gradients.

Every `Link` is the geometry of such a map; its weights are handed in, so that a network's layers, a substrate's
couplings and arrays of devices all use the same ones:

    apply(w, h, route) = P W h,   transpose(w, delta, route) = (P W)^T delta,   gradient(h, delta, route) = sum
    delta h^T

Pooling P may stand behind a convolution (`physics_ep.pooling`). All maps are linear once a max pooling's *route* is
held. What a link returns is new memory, so that callers may add to it.

Images are (B, channels, rows, columns) with the channels of a pixel side by side in memory (`channels_last`). Links
do not convert: hand them such images.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import conv2d, conv_transpose2d, linear, pad
from torch.nn.grad import conv2d_weight

from .errors import argument_error
from .moved import moved_names
from .pooling import Pair, Pooling, Route, channels_last, pair

if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)

Shape = tuple[int, ...]


class Link:
    """A linear map from one layer's units to another's, without its weights.

    Maps that have none (identity, pooling) take an empty tensor in their place.

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
    weighted : bool
        Whether it has weights.
    """

    routed = False
    weighted = True

    def __init__(self, pre: Shape, post: Shape, weight_shape: Shape, fan_in: int, fan_out: int) -> None:
        self.pre = pre
        self.post = post
        self.weight_shape = weight_shape
        self.fan_in = fan_in
        self.fan_out = fan_out

    def apply(self, w: torch.Tensor, h: torch.Tensor, route: Route = None) -> torch.Tensor:
        """The pooled map of activities, P W h, (B, *post)."""
        raise NotImplementedError

    def drive(self, w: torch.Tensor, h: torch.Tensor, bias: torch.Tensor | None) -> tuple[torch.Tensor, Route]:
        """The pooled map of activities with its biases, P W h + b, and the route that a max pooling takes."""
        raise NotImplementedError

    def image_of(self, w: torch.Tensor, h: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """Map activities h (B, *pre) to W h (+ b), which a max pooling then takes as its image. Arguments are the
        weight, the activities and the biases, if any; the result is (B, *image), not pooled."""
        raise NotImplementedError

    def pooled(self, image: torch.Tensor) -> tuple[torch.Tensor, Route]:
        """The pooling P of an image, and the route that a max pooling takes."""
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
        """The transposed map (P W)^T delta, (B, *pre); `space`, flat, is memory for what a max pooling has
        picked from.
        """
        raise NotImplementedError

    def gradient(self, h: torch.Tensor, delta: torch.Tensor, route: Route = None) -> torch.Tensor:
        """Sum over the batch of d(delta . P W h)/dW, of the weight's shape."""
        raise NotImplementedError

    def add_to(self, total: torch.Tensor, w: torch.Tensor, h: torch.Tensor, route: Route = None) -> torch.Tensor:
        """Add P W h to `total`, in its own memory."""
        return total.add_(self.apply(w, h, route))

    def add_back(
        self, total: torch.Tensor, w: torch.Tensor, delta: torch.Tensor, route: Route = None
    ) -> torch.Tensor:
        """Add (P W)^T delta to `total`, in its own memory."""
        return total.add_(self.transpose(w, delta, route))

    def with_weights(self) -> tuple[Link, torch.Tensor]:
        """A link with weights that computes what this one does, and those weights in float64, for an array of
        devices to hold.
        """
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
    """Convolution (the cross-correlation of deep learning) with zeros around the image, then pooling if asked for.

    Weights are (channels, channels below / groups, *kernel_size).

    Parameters
    ----------
    pre : (channels, rows, columns)
    channels : int
        Above.
    kernel_size, stride, dilation : int or (rows, columns)
    padding : int, (rows, columns) or (top, bottom, left, right)
        Zeros around the image.
    groups : int
        Channels above see only those below of their own group; as many groups as channels below: depthwise.
    pooling : str or Pooling, optional
        Behind the convolution; 'max' and 'average' are those of 2x2, which drop a last odd row or column.
    """

    def __init__(
        self,
        pre: Shape,
        channels: int,
        *,
        kernel_size: int | Pair = 3,
        stride: int | Pair = 1,
        padding: int | tuple[int, ...] = 1,
        dilation: int | Pair = 1,
        groups: int = 1,
        pooling: str | Pooling | None = None,
    ) -> None:
        below, rows, columns = pre
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        self.pooling = pooling
        self.pool = Pooling(pooling) if isinstance(pooling, str) else pooling
        self.routed = self.pool is not None and self.pool.routed
        if below % groups or channels % groups:
            raise argument_error("groups", f"divide {below} and {channels} channels", groups)
        kernel = pair(kernel_size)
        around = (padding,) * 4 if isinstance(padding, int) else tuple(padding)
        self.around = tuple(p for p in around for _ in "ab") if len(around) == 2 else around
        """Zeros at the top, bottom, left and right."""
        self.even = self.around[0] == self.around[1] and self.around[2] == self.around[3]
        spans = ((n - 1) * d + 1 for n, d in zip(kernel, pair(dilation), strict=True))
        sides = zip((rows, columns), (sum(self.around[:2]), sum(self.around[2:])), spans, pair(stride), strict=True)
        lines, width = ((n + p - span) // step + 1 for n, p, span, step in sides)
        self.image = (lines, width)
        """Rows and columns before pooling."""
        post = (channels, *(self.image if self.pool is None else self.pool.image(self.image)))
        if min(*post, *self.image) < 1:
            raise argument_error("input_shape", "be large enough for the network's poolings", pre)
        area = math.prod(kernel)
        fans = area * below // groups, area * channels // groups
        super().__init__(pre, post, (channels, below // groups, *kernel), *fans)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Links that were pickled before have fewer attributes, from which the others follow."""
        if "around" not in state:
            channels, _, side, _ = state["weight_shape"]
            names = ("stride", "padding", "pooling")
            self.__init__(state["pre"], channels, kernel_size=side, **{name: state[name] for name in names})  # type: ignore[misc]
        self.__dict__.update(state)

    def apply(self, w: torch.Tensor, h: torch.Tensor, route: Route = None) -> torch.Tensor:
        image = self.image_of(w, h)
        return image if self.pool is None else self.pool.held(image, route)

    def drive(self, w: torch.Tensor, h: torch.Tensor, bias: torch.Tensor | None) -> tuple[torch.Tensor, Route]:
        if self.pool is None or self.routed or self.pool.tiles:
            return self.pooled(self.image_of(w, h, bias))
        found, route = self.pooled(self.image_of(w, h))  # averages over zeros around the image have less of a bias
        return (found if bias is None else found + bias[:, None, None]), route

    def pooled(self, image: torch.Tensor) -> tuple[torch.Tensor, Route]:
        return (image, None) if self.pool is None else self.pool.pooled(image)

    def image_of(self, w: torch.Tensor, h: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        h, padding = self._padded(h)
        return conv2d(h, w, bias, self.stride, padding, self.dilation, self.groups)

    def route_of(self, image: torch.Tensor) -> torch.Tensor:
        assert self.pool is not None
        return self.pool.route_of(image)

    def pick(self, image: torch.Tensor, route: torch.Tensor) -> torch.Tensor:
        assert self.pool is not None
        return self.pool.held(image, route)

    def packed(self, route: Route) -> Route:
        return route if self.pool is None else self.pool.packed(route, self.image)

    def transpose(
        self, w: torch.Tensor, delta: torch.Tensor, route: Route = None, space: torch.Tensor | None = None
    ) -> torch.Tensor:
        return self.image_transpose(w, self._unpooled(delta, route, space))

    def image_transpose(self, w: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """W^T of an image before pooling, (B, *pre)."""
        top, bottom, left, right = self.around
        padding = (top, left) if self.even else (0, 0)
        whole = self.pre[1:] if self.even else (self.pre[1] + top + bottom, self.pre[2] + left + right)
        stride, dilation = pair(self.stride), pair(self.dilation)
        # What a strided convolution does not reach at the last rows and columns.
        rest = [
            n - ((m - 1) * step - 2 * p + d * (kernel - 1) + 1)
            for n, m, step, p, d, kernel in zip(
                whole, self.image, stride, padding, dilation, w.shape[2:], strict=True
            )
        ]
        back = conv_transpose2d(image, w, None, stride, padding, rest, self.groups, dilation)
        if self.even:
            return back
        return channels_last(back[:, :, top : top + self.pre[1], left : left + self.pre[2]])

    def gradient(self, h: torch.Tensor, delta: torch.Tensor, route: Route = None) -> torch.Tensor:
        h, padding = self._padded(h)
        image = self._unpooled(delta, route)
        return conv2d_weight(h, self.weight_shape, image, self.stride, padding, self.dilation, self.groups)

    def _padded(self, h: torch.Tensor) -> tuple[torch.Tensor, Pair]:
        """The image with what is not the same on both sides put around it, and the padding that is left."""
        top, bottom, left, right = self.around
        return (h, (top, left)) if self.even else (pad(h, (left, right, top, bottom)), (0, 0))

    def _unpooled(self, delta: torch.Tensor, route: Route, space: torch.Tensor | None = None) -> torch.Tensor:
        return delta if self.pool is None else self.pool.transpose(delta, self.image, route, space)


class PoolLink(Link):
    """A connection that pools and has no weights."""

    weighted = False

    def __init__(self, pre: Shape, pooling: Pooling) -> None:
        self.pool = pooling
        self.routed = pooling.routed
        self.image = (pre[1], pre[2])
        post = (pre[0], *pooling.image(self.image))
        if min(post) < 1:
            raise argument_error("input_shape", "be large enough for the network's poolings", pre)
        super().__init__(pre, post, (), 1, 1)

    def apply(self, w: torch.Tensor, h: torch.Tensor, route: Route = None) -> torch.Tensor:
        return self.pool.held(h, route)

    def drive(self, w: torch.Tensor, h: torch.Tensor, bias: torch.Tensor | None) -> tuple[torch.Tensor, Route]:
        found, route = self.pool.pooled(h)
        return (found if bias is None else found + bias[:, None, None]), route

    def pooled(self, image: torch.Tensor) -> tuple[torch.Tensor, Route]:
        return self.pool.pooled(image)

    def image_of(self, w: torch.Tensor, h: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        return h if bias is None else h + bias[:, None, None]

    def route_of(self, image: torch.Tensor) -> torch.Tensor:
        return self.pool.route_of(image)

    def pick(self, image: torch.Tensor, route: torch.Tensor) -> torch.Tensor:
        return self.pool.held(image, route)

    def packed(self, route: Route) -> Route:
        return self.pool.packed(route, self.image)

    def transpose(
        self, w: torch.Tensor, delta: torch.Tensor, route: Route = None, space: torch.Tensor | None = None
    ) -> torch.Tensor:
        return self.pool.transpose(delta, self.image, route)

    def with_weights(self) -> tuple[Link, torch.Tensor]:
        channels, pool = self.pre[0], self.pool
        if pool.routed:
            kernel: Pair = (1, 1)
            link = ConvLink(self.pre, channels, kernel_size=1, padding=0, groups=channels, pooling=pool)
        else:
            kernel = pool.size
            link = ConvLink(
                self.pre, channels, kernel_size=kernel, stride=pool.stride, padding=pool.padding, groups=channels
            )
        return link, torch.full((channels, 1, *kernel), 1 / math.prod(kernel), dtype=torch.float64)


class ChannelLink(Link):
    """Channel by channel: the identity (residual sums), or into a part of the channels above (concatenation).

    Parameters
    ----------
    pre, post : tuple of int
        (channels, ...) below and above; the other numbers are the same.
    first : int
        Channel above that the first one below leads to.
    scaled : bool
        Whether each channel has a weight.
    tied : bool
        Whether all channels have one weight.
    """

    def __init__(self, pre: Shape, post: Shape, first: int = 0, scaled: bool = False, tied: bool = False) -> None:
        if pre[1:] != post[1:] or first < 0 or first + pre[0] > post[0]:
            raise argument_error("post", f"have room for the channels of {list(pre)} from {first} on", list(post))
        self.weighted = scaled
        self.first = first
        self.slice = slice(first, first + pre[0])
        super().__init__(pre, post, (1 if tied else pre[0],) if scaled else (), 1, 1)

    def _scaled(self, w: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return rows * w.view(-1, *[1] * (rows.ndim - 2)) if self.weighted else rows

    def apply(self, w: torch.Tensor, h: torch.Tensor, route: Route = None) -> torch.Tensor:
        own = self._scaled(w, h)
        if self.pre == self.post:
            return own.clone() if own is h else own
        layout = torch.channels_last if h.ndim == 4 else torch.contiguous_format
        found = torch.zeros((len(h), *self.post), dtype=h.dtype, device=h.device).to(memory_format=layout)
        found[:, self.slice] += own
        return found

    def drive(self, w: torch.Tensor, h: torch.Tensor, bias: torch.Tensor | None) -> tuple[torch.Tensor, Route]:
        found = self.apply(w, h)
        return (found if bias is None else found + bias.view(-1, *[1] * (found.ndim - 2))), None

    def add_to(self, total: torch.Tensor, w: torch.Tensor, h: torch.Tensor, route: Route = None) -> torch.Tensor:
        if self.pre == self.post:
            return total.add_(self._scaled(w, h))
        total[:, self.slice] += self._scaled(w, h)
        return total

    def transpose(
        self, w: torch.Tensor, delta: torch.Tensor, route: Route = None, space: torch.Tensor | None = None
    ) -> torch.Tensor:
        part = delta[:, self.slice]
        own = self._scaled(w, part)
        return own.clone() if own is part else own

    def add_back(
        self, total: torch.Tensor, w: torch.Tensor, delta: torch.Tensor, route: Route = None
    ) -> torch.Tensor:
        return total.add_(self._scaled(w, delta[:, self.slice]))

    def gradient(self, h: torch.Tensor, delta: torch.Tensor, route: Route = None) -> torch.Tensor:
        found = (h * delta[:, self.slice]).sum([0, *range(2, h.ndim)])
        return found.sum(0, keepdim=True) if self.tied else found

    @property
    def tied(self) -> bool:
        """Whether several channels have one weight."""
        return self.weighted and self.weight_shape != self.pre[:1]

    def with_weights(self) -> tuple[Link, torch.Tensor]:
        return ChannelLink(self.pre, self.post, self.first, scaled=True), torch.ones(
            self.pre[0], dtype=torch.float64
        )
