"""Layers of a predictive coding network: linear maps between units (`physics_ep.maps`), biases, an activation.

A layer's pre-activation is a_k = P(W_k h_{k-1}) + sum_j V_kj h_j + b_k, with links V_kj from layers further
down or from the input, its prediction sigma_k(a_k). Pooling P stands before the activation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from ..errors import argument_error
from ..maps import ConvLink, Link, Shape
from ..moved import moved_names
from ..pooling import channels_last
from .activations import ACTIVATIONS, Activation, activation_named

if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)

_ROWS = " that is mapped: put it as {} on images of one row, x[:, :, None]"
AS_IMAGES = {
    "conv1d": _ROWS.format("a Conv2d with kernel (1, k)"),
    "max_pool1d": _ROWS.format("a MaxPool2d with windows (1, k)"),
    "avg_pool1d": _ROWS.format("an AvgPool2d with windows (1, k)"),
    "adaptive_avg_pool1d": _ROWS.format("an AdaptiveAvgPool2d of (1, k)"),
    "conv3d": " that is mapped: convolutions are of images, in two dimensions",
    "conv_transpose2d": " that is mapped: convolutions are those of Conv2d",
}
"""What is said of calls that are linear maps and yet not mapped."""


class Wire(NamedTuple):
    """A connection that leads into a layer.

    Attributes
    ----------
    source : int
        The layer that it comes from, from 0; -1: the input.
    link : Link
    name : str or None
        Name of the layer's parameter that holds its weights; None: it has none.
    """

    source: int
    link: Link
    name: str | None


Skip = tuple[int, Link, float]


class PredictiveLayer(nn.Module):
    """One layer: a link from the layer below, perhaps others from layers further down, biases, an activation.

    Parameters
    ----------
    link : Link
    activation : str
        A name that `activations.activation_named` knows.
    bound : float
        Weights start uniform in +-bound, biases at 0.
    generator : torch.Generator
    skip : (int, Link, float) or sequence of them, optional
        Index, from 0, of the layer that a skip comes from (-1: the input); its link, and the bound of its weights.
    bias : bool
    source : int, optional
        Index of the layer that `link` comes from, -1 the input; None: the layer below.

    Attributes
    ----------
    weight, skip_weight, bias : Parameter or None
        Parameters of the layer; those of further skips are called `skip_weight_2` and so on. None: there is none,
        or the link has no weights.
    label : str
        Name of the module of a model that it comes from; empty: of none.
    origins : mapping of str to str
        Names of the model's parameters that its own are, or are folded from, where it comes from a model.
    """

    label: str = ""
    origins: Mapping[str, str] = MappingProxyType({})
    _known: tuple[int, int | None, Link, tuple[tuple[int, Link], ...], tuple[Wire, ...]] | None = None
    """Number, `source`, `link` and `skips` for which wires were last asked, and these."""

    def __init__(
        self,
        link: Link,
        activation: str,
        bound: float,
        generator: torch.Generator,
        *,
        skip: Skip | Sequence[Skip] | None = None,
        bias: bool = True,
        source: int | None = None,
    ) -> None:
        super().__init__()
        activation_named(activation)
        self.link = link
        self.activation_name = activation
        self.source = source
        self.weight: nn.Parameter = None  # type: ignore[assignment]
        """There is one wherever the link has weights."""
        if link.weighted:
            self.weight = nn.Parameter(uniform(link.weight_shape, bound, generator))
        self.bias = nn.Parameter(torch.zeros(link.post[0])) if bias else None
        self.skip_weight: nn.Parameter | None = None
        skips: Sequence[Any] = () if skip is None else (skip,) if isinstance(skip[0], int) else skip
        self.skips = tuple((start, over) for start, over, _ in skips)
        for number, (_, over, skip_bound) in enumerate(skips, 1):
            if over.post != link.post:
                raise argument_error("skip", f"end in the shape {link.post} of its layer", over.post)
            if over.routed:
                raise argument_error("skip", "be no max pooling, which only a layer's first link may be", over)
            if over.weighted:
                drawn = nn.Parameter(uniform(over.weight_shape, skip_bound, generator))
                setattr(self, skip_name(number), drawn)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_known"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Layers that were pickled before have one skip at most."""
        source, link = state.pop("skip_source", None), state.pop("skip_link", None)
        super().__setstate__(state)
        if "skips" not in state:
            self.source, self.skips = None, () if link is None else ((source, link),)

    @property
    def activation(self) -> Activation:
        """The layer's response function, with its slope and potential."""
        return ACTIVATIONS.get(self.activation_name) or activation_named(self.activation_name)

    @property
    def post(self) -> Shape:
        """Shape of an example's units."""
        return self.link.post

    def wires(self, k: int) -> tuple[Wire, ...]:
        """What leads into the layer, which is number k of its network, from 0; that of `link` first."""
        source, link, skips, known = self.source, self.link, self.skips, self._known
        if known is not None and known[2] is link and known[3] is skips and known[0] == k and known[1] == source:
            return known[4]
        leads = [(k - 1 if source is None else source, link), *skips]
        wires = tuple(Wire(n, over, skip_name(i) if over.weighted else None) for i, (n, over) in enumerate(leads))
        self._known = (k, source, link, skips, wires)
        return wires

    def give_weights(self, like: torch.Tensor) -> None:
        """Put maps with weights in the place of links without (sums, poolings): weights that are not trained, of
        the dtype and device of `like`."""
        for n, (source, link, name) in enumerate(self.wires(0)):
            if name is not None:
                continue
            weighted, weight = link.with_weights()
            setattr(self, skip_name(n), nn.Parameter(weight.to(like), requires_grad=False))
            if n == 0:
                self.link = weighted
            else:
                self.skips = (*self.skips[: n - 1], (source, weighted), *self.skips[n:])

    def extra_repr(self) -> str:
        words = [type(self.link).__name__, f"{list(self.link.pre)} -> {list(self.post)}", self.activation_name]
        if isinstance(self.link, ConvLink) and self.link.pool is not None:
            words.append(f"{self.link.pool.kind} pooling")
        if self.source is not None:
            words.append("from the input" if self.source < 0 else f"from layer {self.source + 1}")
        words += [
            "skip from the input" if source < 0 else f"skip from layer {source + 1}" for source, _ in self.skips
        ]
        return ", ".join(words)


def skip_name(number: int) -> str:
    """Name of the parameter of a layer's skip, counted from 1; 0 is its first link."""
    return ("weight", "skip_weight")[number] if number < 2 else f"skip_weight_{number}"


def uniform(shape: Shape, bound: float, generator: torch.Generator) -> torch.Tensor:
    """Weights drawn uniformly from +-bound; convolution kernels lie in channels-last memory."""
    values = bound * (2 * torch.rand(shape, generator=generator) - 1)
    return channels_last(values) if len(shape) == 4 else values


FOLDED = " (folded)"


def own_name(origin: str) -> str:
    """The name of a parameter without the mark that it is folded into another."""
    return origin.removesuffix(FOLDED)


def folded_name(origin: str | None) -> str | None:
    """The name of a parameter with the mark that another is folded into it."""
    return origin if origin is None or origin.endswith(FOLDED) else origin + FOLDED


def told_layer(system: nn.Module, path: str) -> tuple[str, str]:
    """Name and class of the module of a model that a layer comes from; of other layers the path, and no class.

    Parameters
    ----------
    system : nn.Module
        A predictive coding network or any other system, which has names of its own.
    path : str
        Path of the module that holds the parameters, such as 'layers.0'.
    """
    name = _module_of(getattr(system, "stack", ()), path)
    return name, getattr(system, "module_kinds", {}).get(name, "")


def told_name(stack: Sequence[nn.Module], parameter: str) -> str:
    """Name of a parameter for a reader: 'c1.weight' for 'layers.0.weight' where that is a model's weight.

    A folded weight bears the name of the one that others were folded into. What has no weights in the model, a
    residual sum say, is the 'sum' of the layer's module. Without a model, or where two layers bear one name, it is
    the parameter's own name.
    """
    path, _, part = parameter.rpartition(".")
    module = _module_of(stack, path)
    if module == path or not part:
        return parameter
    origins: list[Mapping[str, str]] = [getattr(layer, "origins", {}) for layer in stack]
    own = origins[int(path.rpartition(".")[2])]
    if part in own:
        name = own_name(own[part])
        if sum(name in map(own_name, others.values()) for others in origins) == 1:
            return name
    elif part != "bias" and any(other != "bias" for other in own):
        part = part.replace("skip_weight", "sum").replace("weight", "sum")
    return f"{module}.{part}"


def _module_of(stack: Sequence[nn.Module], path: str) -> str:
    """The model's module that layer 'layers.0' comes from; the path where there is none, or two have its name."""
    first, _, number = path.partition(".")
    if first != "layers" or not number.isdecimal():
        return path
    labels = [getattr(layer, "label", "") for layer in stack]
    label = labels[int(number)] if int(number) < len(labels) else ""
    return label if label and labels.count(label) == 1 else path


def label_layers(stack: Iterable[PredictiveLayer], names: Sequence[str]) -> None:
    """Label layers by the modules that they come from, numbered from the second on where one makes several.

    Such are a function that a module calls twice, and a module that stands at two places.
    """
    for k, (layer, name) in enumerate(zip(stack, names, strict=True)):
        again = list(names[:k]).count(name)
        layer.label = f"{name} ({again + 1})" if again and name else name
