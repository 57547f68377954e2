"""From a torch model to layers of linear maps and unit functions, where it is made of such: the canonical form.

The recorded forward pass (`traced.recording`) is read call by call. A value is either what units put out, or a sum
of linear maps of such that no activation has taken yet; an activation, another use of a sum, and a map of a sum
make a layer of it. Norms with fixed statistics and constants fold into the maps before them, in float64; those that
stand behind units become a weight a channel. Nothing folds unless the result is free to take all values that the
model can give it: a factor that is trained where the map before it is frozen, or that is one number for all
channels, is a weight of its own, behind a layer of linear units.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import nn

from ..errors import InputError, argument_error
from ..maps import ChannelLink, ConvLink, DenseLink, Link, PoolLink, Shape
from ..pooling import Pooling, channels_last
from .layers import AS_IMAGES, PredictiveLayer, folded_name, label_layers, own_name, skip_name
from .network import PredictiveCodingNetwork
from .traced.graph import CallGraph, Node, Ref
from .traced.recording import NoInputError, record

CLOSE = {torch.float64: 1e-9, torch.float32: 1e-3}
"""Share of the largest output by which network and model may differ: what float64 folds, float32 rounds."""
BY_BATCH = "normalises by the statistics of the batch, no linear map: use the evaluation mode"
SAME = {"dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "clone"}
SAME |= {"contiguous", "to", "float", "double", "identity", "detach", "type_as", "feature_dropout"}
"""Functions that change nothing where no number is drawn."""
FLAT = {"flatten", "view", "reshape", "squeeze"}
VIEWS = SAME | FLAT | {"unsqueeze", "getitem"}
"""Functions that keep a parameter's numbers, in their order, where they keep all of them."""
UNITS: dict[str, str] = {
    "relu": "relu", "relu6": "relu6", "tanh": "tanh", "sigmoid": "logistic", "silu": "silu", "gelu": "gelu",
    "softplus": "softplus", "hardtanh": "clip", "clamp": "clip", "clip": "clip", "clamp_min": "clip",
    "leaky_relu": "leaky_relu",
}  # fmt: skip


class NoLayersError(InputError):
    """Raised when a model is not made of linear maps and unit functions.

    Attributes
    ----------
    module, reason : str
        The module that is not, and why.
    """

    def __init__(self, module: str, reason: str) -> None:
        self.module, self.reason = module, reason
        where = f"module {module!r}" if module else "the model itself"
        super().__init__(f"Argument model must be made of linear maps and unit functions, but {where} {reason}.")


@dataclass(frozen=True)
class Units:
    """What a layer puts out (-1: the input), with zeros around it, or read flat."""

    source: int
    flat: bool = False
    around: tuple[int, int, int, int] = (0, 0, 0, 0)


@dataclass(frozen=True)
class Path:
    """A linear map of what a layer puts out; its weights, and the parameter that they are, if they are one."""

    source: int
    link: Link
    weight: torch.Tensor | None = None
    origin: str | None = None


@dataclass(frozen=True)
class LinearSum:
    """A sum of maps of units and of constants, a number a channel, which no activation has taken yet.

    `made_by` names the module that began it, which is what a layer without weights is called by.
    """

    paths: tuple[Path, ...]
    bias: torch.Tensor | None = None
    origin: str | None = None
    flat: bool = False
    made_by: str = ""

    @property
    def post(self) -> Shape:
        """Shape of the sum for one example, without the batch."""
        return self.paths[0].link.post


Value = Units | LinearSum


def layered(
    model: nn.Module, example: torch.Tensor, *, energy: str = "squared", gates: str = "held"
) -> PredictiveCodingNetwork:
    """A network of layers whose forward pass is that of a model in its present mode, with copies of its weights.

    Parameters
    ----------
    model : nn.Module
        Made of `Linear` and `Conv2d` of any kind, sums, concatenations, poolings of any window, batch norms with
        fixed statistics (evaluation mode), factors a channel, and activations that units have; the last a `Linear`.
    example : Tensor (B, ...)
    energy, gates
        The arguments of `PredictiveCodingNetwork` of the same names.

    Returns
    -------
    PredictiveCodingNetwork
        Norms are folded where all that folds is trained: what it learns are the weights behind them. Where a norm's
        map or offset is frozen, and for factors that are no norm's, it learns the factor itself. What the model
        does not train is not trained.
        Layers bear the names of the modules that they come from (`label`), and of the parameters (`origins`).

    Raises
    ------
    NoLayersError
        If a part of the model is nothing of that kind; it is named.
    InputError
        If the model cannot be recorded, or if the network does not return what it does.
    """
    dtype = next((p.dtype for p in model.parameters()), example.dtype)
    twin = copy.deepcopy(model)
    tensors = {**dict(twin.named_buffers()), **dict(twin.named_parameters())}
    names: dict[int, str] = {}
    for name, tensor in tensors.items():
        names.setdefault(id(tensor), name)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((1, *example.shape[1:]), generator=generator).to(example.device, dtype)
    for name, p in model.named_parameters():
        if p._backward_hooks or p._post_accumulate_grad_hooks:
            raise argument_error("model", "have no hooks of parameters (form='any' calls them)", f"one of {name!r}")
    try:
        with torch.no_grad():
            graph, values = record(twin, names, x)
    except NoInputError as error:
        raise InputError(f"Argument example must {error}") from error
    trained = {name for name, p in twin.named_parameters() if p.requires_grad}
    leaves = {name for name, module in twin.named_modules() if name and not any(module.children())}
    layers = _LayerReader(graph, values, tensors, trained, leaves).read(tuple(x.shape[1:]))
    label_layers(layers, [layer.label for layer in layers])
    network = PredictiveCodingNetwork(layers, energy, gates).to(example.device, dtype)
    network.module_kinds = {name: type(module).__name__ for name, module in twin.named_modules()}
    x = torch.randn(x.shape, generator=generator).to(x)  # other numbers, in another call
    with torch.no_grad():
        mine, theirs = network(x), twin(x)
    away, size = float((mine - theirs).abs().max()), float(theirs.abs().max())
    if not away <= CLOSE.get(dtype, 1e-1) * max(size, torch.finfo(dtype).tiny):
        must = "compute what its layers do"
        raise argument_error("model", must, f"{away:.2g} away from the network made of them, on an example")
    return network


class _LayerReader:
    """Layers as a forward pass is read."""

    def __init__(
        self,
        graph: CallGraph,
        values: dict[int, torch.Tensor],
        tensors: dict[str, torch.Tensor],
        trained: set[str],
        leaves: set[str],
    ) -> None:
        self.graph, self.values, self.tensors, self.trained = graph, values, tensors, trained
        self.leaves = leaves
        """Modules without parts."""
        self.layers: list[PredictiveLayer] = []
        self.generator = torch.Generator().manual_seed(0)
        self.uses = [0] * len(graph.nodes)
        for node in graph.nodes:
            for j in node.sources():
                self.uses[j] += 1
        self.uses[graph.output] += 1
        self.found: dict[int, Value] = {}
        named = [(n.name, uses) for n, uses in zip(graph.nodes, self.uses, strict=True) if n.kind == "tensor"]
        self.tied = {name for name, uses in named if uses > 1 and name in trained}
        """Parameters that the model trains and uses more than once."""
        self.first: dict[str, tuple[int, str]] = {}
        """Parameter of the model to the place where it stands first in the network."""
        self.learnt: list[bool] = []
        """Whether each value depends on a parameter that the model trains."""
        self.node = graph.nodes[0]

    def read(self, shape: Shape) -> list[PredictiveLayer]:
        """All layers, for inputs of this shape."""
        self.input = shape
        for i, node in enumerate(self.graph.nodes):
            self.node = node
            self.learnt.append(node.name in self.trained or any(self.learnt[j] for j in node.sources()))
            if node.random:
                self.refused(f"draws random numbers ({node.name.strip('_')}): use the evaluation mode")
            if node.cut and self.learnt[i]:
                self.refused("passes no gradient to what the model trains (detach, torch.no_grad): freeze it")
            if not node.from_input:
                continue
            value = Units(-1) if node.kind == "input" else self.value(i, node)
            if isinstance(value, LinearSum) and self.uses[i] > 1:
                value = self.layer(value, "linear")
            self.found[i] = value
        last = self.found[self.graph.output]
        if isinstance(last, LinearSum):
            self.layer(last, "linear")
        if not self.layers or self.layers[-1].activation_name != "linear" or len(self.layers[-1].post) > 1:
            self.refused("ends the model, whose last map must be a Linear")
        return self.layers

    def refused(self, reason: str) -> Any:
        """Raise the error that names the module of the present call."""
        raise NoLayersError(self.node.module, reason)

    # -- values ------------------------------------------------------------------------------------------------

    def shape(self, source: int) -> Shape:
        return self.input if source < 0 else self.layers[source].post

    def constant(self, given: Any) -> torch.Tensor | None:
        """The value of an argument that does not depend on the input; None: it does, or is none."""
        if isinstance(given, int | float):
            return torch.tensor(float(given), dtype=torch.float64)
        if not isinstance(given, Ref):
            return given.double() if isinstance(given, torch.Tensor) else None
        node = self.graph.nodes[given.node]
        if node.from_input:
            return None
        if self.learnt[given.node] and self.origin(given) is None:
            self.refused(
                "computes weights from parameters that the model trains (masks, norms, transposes): freeze them"
            )
        return (self.tensors[node.name] if node.kind == "tensor" else self.values[given.node]).detach().double()

    def origin(self, given: Any) -> str | None:
        """Name of the parameter that an argument is, or another view of, which is learnt as if folded."""
        if not isinstance(given, Ref):
            return None
        node = self.graph.nodes[given.node]
        if node.kind == "tensor":
            return node.name
        sources = node.sources()
        if node.name.strip("_") not in VIEWS or len(sources) != 1:
            return None
        whole = sources[0] in self.values and self.values[given.node].numel() == self.values[sources[0]].numel()
        return folded_name(self.origin(Ref(sources[0]))) if whole else None

    def either(self, one: str | None, two: str | None) -> str | None:
        """The name of a sum of two parameters: of the one that the model trains."""
        first, second = (one, two) if one is not None else (two, one)
        if one is not None and two is not None and folded_name(one) != folded_name(two):
            self.folds(one)
            self.folds(two)
        return folded_name(first if self.trains(first) or second is None else second)

    def drive(self, value: Value) -> LinearSum:
        """The value as a sum: that of units over an identity."""
        if isinstance(value, LinearSum):
            return value
        value = self.units(value)
        shape = self.shape(value.source)
        return LinearSum((Path(value.source, ChannelLink(shape, shape)),), flat=value.flat)

    def trains(self, origin: str | None) -> bool:
        """Whether the model trains the parameter that an origin names."""
        return origin is not None and own_name(origin).partition("[")[0] in self.trained

    def folds(self, name: str | None) -> None:
        """Refuse a parameter that becomes part of another and is used elsewhere, too."""
        own = None if name is None else own_name(name)
        if own in self.tied:
            self.refused(f"has {own!r}, which stands at several places and is folded")

    def units(self, value: Value, padded: bool = False) -> Units:
        """The value as units: a sum becomes a layer of linear ones. A convolution takes zeros around them."""
        if isinstance(value, Units) and any(value.around) and not padded:
            self.refused("takes what is padded, which convolutions alone do")
        return value if isinstance(value, Units) else self.layer(value, "linear")

    def layer(self, drive: LinearSum, activation: str) -> Units:
        """Make a layer that takes a sum."""
        routed = [p for p in drive.paths if p.link.routed]
        for path in routed[1:]:
            alone = self.layer(LinearSum((path,), made_by=drive.made_by), "linear")
            same = ChannelLink(path.link.post, path.link.post)
            at = drive.paths.index(path)
            paths = (*drive.paths[:at], Path(alone.source, same), *drive.paths[at + 1 :])
            drive = replace(drive, paths=paths)
        paths = tuple(sorted(drive.paths, key=lambda path: not path.link.routed))
        first, *others = paths
        k = len(self.layers)
        made = PredictiveLayer(
            first.link,
            activation,
            0.0,
            self.generator,
            skip=[(p.source, p.link, 0.0) for p in others] or None,
            bias=drive.bias is not None,
            source=None if first.source == k - 1 else first.source,
        ).double()
        weighted = next((p.origin for p in paths if p.origin is not None), drive.origin)
        made.label = (
            own_name(weighted).rpartition(".")[0] if weighted is not None else drive.made_by or self.place()
        )
        made.origins = {}
        names = [skip_name(n) for n in range(len(paths))]
        held = [(name, p.weight, p.origin) for name, p in zip(names, paths, strict=True)]
        self.layers.append(made)
        for name, value, origin in [*held, ("bias", drive.bias, drive.origin)]:
            if value is not None:
                self.hold(k, name, value, origin)
        return Units(k, drive.flat)

    def place(self) -> str:
        """The module of the present call; of a function that a larger module calls, its name behind that."""
        module, name = self.node.module, self.node.name.strip("_")
        return module if module in self.leaves else f"{module}.{name}".strip(".")

    def hold(self, k: int, name: str, value: torch.Tensor, origin: str | None) -> None:
        """Put a weight in its place: tied where the model has one parameter, trained where the model trains it."""
        layer = self.layers[k]
        if origin is not None:
            layer.origins = {**layer.origins, name: origin}
        own, trained = None if origin is None else own_name(origin), self.trains(origin)
        if own is not None and own in self.first:
            other, at = self.first[own]
            if origin == own and torch.equal(getattr(self.layers[other], at), value):
                setattr(layer, name, getattr(self.layers[other], at))
                return
            if trained:
                self.refused(f"has {own!r}, which stands at several places and is folded")
        value = channels_last(value) if value.ndim == 4 else value.contiguous()
        setattr(layer, name, nn.Parameter(value.clone(), requires_grad=trained))
        if own is not None:
            self.first.setdefault(own, (k, name))

    # -- calls -------------------------------------------------------------------------------------------------

    def value(self, i: int, node: Node) -> Value:
        """What a call gives."""
        name = node.name.strip("_")
        args, own = list(node.args), dict(node.kwargs)
        try:
            found = self.call(i, name, args, own)
        except InputError as error:
            if isinstance(error, NoLayersError):
                raise
            return self.refused(f"calls {name!r} in a way that is none: {str(error).rstrip('.')}")
        if isinstance(found, LinearSum) and not found.made_by:
            return replace(found, made_by=self.place())
        return found

    def call(self, i: int, name: str, args: list[Any], own: dict[str, Any]) -> Value:
        """What a function gives."""
        known: dict[str, Callable[..., Value]] = {
            "linear": self.linear, "conv2d": self.conv2d, "batch_norm": self.batch_norm, "pad": self.pad,
            "max_pool2d": self.max_pool2d, "avg_pool2d": self.avg_pool2d, "mean": self.mean, "cat": self.cat,
            "adaptive_avg_pool2d": self.adaptive, "concat": self.cat, "concatenate": self.cat,
        }  # fmt: skip
        if name in ("add", "radd", "sub", "rsub", "iadd", "subtract"):
            return self.sum(name, *args, **own)
        if name in ("mul", "rmul", "div", "truediv", "multiply", "divide"):
            return self.product(name, *args, **own)
        if name in ("neg", "negative"):
            return self.signed(self.of(args, own), -1)
        if name in UNITS:
            return self.layer(self.drive(self.of(args, own)), self.unit(name, args[1:], own))
        if name in SAME | FLAT:
            self.uses[i] += self.uses[self.node.sources()[0]] - 1  # another name of the same units
            return self.flat(i, self.of(args, own)) if name in FLAT else self.of(args, own)
        if name not in known:
            self.refused(f"calls {name!r}, which is none" + AS_IMAGES.get(name, ""))
        return known[name](*args, **own)

    def of(self, args: Sequence[Any], own: dict[str, Any]) -> Value:
        """What a traced call acts on: the first positional argument, or without one the keyword `input`."""
        return self.at(args[0] if args else own.get("input"))

    def at(self, given: Any) -> Value:
        if not isinstance(given, Ref) or given.node not in self.found:
            self.refused(f"calls {self.node.name!r} of something that is no units' value")
        return self.found[given.node]

    def unit(self, name: str, args: Sequence[Any], own: dict[str, Any]) -> str:
        """The activation's name."""
        kind = UNITS[name]
        if kind == "clip":
            hard = name == "hardtanh"
            low = args[0] if args else own.get("min_val" if hard else "min", -1.0 if hard else None)
            high = args[1] if len(args) > 1 else own.get("max_val" if hard else "max", 1.0 if hard else None)
            if low == 0 and high in (None, math.inf):
                return "relu"
            if not isinstance(low, int | float) or not isinstance(high, int | float):
                return self.refused("clips at one side, or to tensors")
            named: dict[tuple[float, float], str] = {(0, 1): "hard_sigmoid", (-1, 1): "hard_tanh", (0, 6): "relu6"}
            return named.get((low, high), f"clip({float(low)!r}, {float(high)!r})")
        if kind == "leaky_relu":
            slope = args[0] if args else own.get("negative_slope", 0.01)
            return "leaky_relu" if slope == 0.01 else f"leaky_relu({float(slope)!r})"
        if kind == "gelu" and own.get("approximate", "none") != "none":
            self.refused("has a GELU that is approximate")
        if kind == "softplus":
            given = [*args, *(1, 20)[len(args) :]]
            if own.get("beta", given[0]) != 1 or own.get("threshold", given[1]) < 20:
                self.refused("has a softplus with a beta that is not 1, or a threshold below 20")
        return kind

    def linear(self, input: Any, weight: Any, bias: Any = None) -> Value:
        at = self.units(self.at(input))
        w, shape = self.constant(weight), self.shape(at.source)
        if w is None or w.ndim != 2 or not (at.flat or len(shape) == 1):
            self.refused("is a linear map of the last of several axes")
        assert w is not None
        path = Path(at.source, DenseLink(shape, len(w)), w, self.origin(weight))
        return self.biased(path, bias)

    def conv2d(
        self, input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
        groups: int = 1,
    ) -> Value:  # fmt: skip
        given, w = self.at(input), self.constant(weight)
        at = self.units(given, padded=True)
        shape = self.shape(at.source)
        if w is None or at.flat or len(shape) != 3:
            self.refused("convolves what is no image, or with a kernel that depends on the input")
        assert w is not None
        top, bottom, left, right = at.around
        if isinstance(padding, str):
            spans = [d * (n - 1) for d, n in zip(_pair(dilation), w.shape[2:], strict=True)]
            (a, b), (c, d) = ((s // 2, s - s // 2) if padding == "same" else (0, 0) for s in spans)
        else:
            a, c = _pair(padding)
            b, d = a, c
        link = ConvLink(
            shape, len(w), kernel_size=_pair(w.shape[2:]), stride=_pair(stride),
            padding=(top + a, bottom + b, left + c, right + d), dilation=_pair(dilation), groups=groups,
        )  # fmt: skip
        return self.biased(Path(at.source, link, w, self.origin(weight)), bias)

    def biased(self, path: Path, bias: Any) -> LinearSum:
        """A map and its bias."""
        found, numbers = LinearSum((path,)), self.constant(bias)
        return found if numbers is None else self.shifted(found, numbers, self.origin(bias), own=True)

    def batch_norm(
        self, input: Any, running_mean: Any = None, running_var: Any = None, weight: Any = None, bias: Any = None,
        training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
    ) -> Value:  # fmt: skip
        mean, var = self.constant(running_mean), self.constant(running_var)
        if training or mean is None or var is None:
            self.refused(BY_BATCH)
        assert mean is not None
        assert var is not None
        scale, value = (var + eps).rsqrt(), self.at(input)
        factor, offset = self.constant(weight), self.constant(bias)
        if factor is not None and self.trains(self.origin(weight)) and not self.free(value, self.origin(bias)):
            found = self.shifted(self.scaled(value, scale, None), -mean * scale, None)
            found = self.gained(found, factor, self.origin(weight))
            return found if offset is None else self.shifted(found, offset, self.origin(bias), own=True)
        scale = scale if factor is None else scale * factor
        shift = -mean * scale if offset is None else offset - mean * scale
        return self.shifted(self.scaled(value, scale, self.origin(weight)), shift, self.origin(bias))

    def free(self, value: Value, offset: str | None) -> bool:
        """Whether the weights and the bias into which a factor that is trained would fold may take any value: all
        maps are trained, or none is one with weights, and so is the norm's offset."""
        paths = self.drive(value).paths
        free = [self.trains(path.origin) for path in paths if path.link.weighted]
        return self.trains(offset) and all(free) and len(free) in (0, len(paths))

    def gained(self, value: Value, gain: torch.Tensor, origin: str | None) -> LinearSum:
        """A value times what the model trains, a number a channel or one for all of them: weights of their own."""
        at = self.units(value)
        shape = self.shape(at.source)
        self.expanded(gain, self.drive(at))
        link = ChannelLink(shape, shape, scaled=True, tied=gain.numel() == 1)
        path = Path(at.source, link, gain.flatten(), None if origin is None else own_name(origin))
        return LinearSum((path,), flat=at.flat)

    def scaled(self, value: Value, scale: torch.Tensor, origin: str | None) -> LinearSum:
        """A value times a number a channel."""
        self.folds(origin)
        if isinstance(value, LinearSum) and any(p.link.routed for p in value.paths) and bool((scale <= 0).any()):
            value = self.units(value)
        links = [p.link for p in self.drive(value).paths]
        first = [link.first for link in links if isinstance(link, ChannelLink)]
        pools = any(isinstance(link, PoolLink) for link in links)
        if origin is not None and (len(set(first)) < len(first) or pools):
            value = self.units(value)  # a factor of several identities is one parameter, poolings have none
        drive = self.drive(value)
        scale = self.expanded(scale, drive)
        paths = []
        for path in drive.paths:
            link = path.link
            if not link.weighted:
                if isinstance(link, ChannelLink):
                    link = ChannelLink(link.pre, link.post, link.first, scaled=True)
                    part = origin
                    if origin is not None and len(drive.paths) > 1:
                        part = f"{own_name(origin)}[{link.first}:]"
                    paths.append(Path(path.source, link, scale[link.slice].clone(), folded_name(part)))
                else:
                    link, weight = link.with_weights()
                    own = weight.double() * scale.view(-1, *[1] * (weight.ndim - 1))
                    paths.append(Path(path.source, link, own))
                continue
            assert path.weight is not None
            own = scale[link.slice] if isinstance(link, ChannelLink) else scale
            weight = path.weight * own.view(-1, *[1] * (path.weight.ndim - 1))
            paths.append(replace(path, link=link, weight=weight, origin=folded_name(path.origin)))
        bias = None if drive.bias is None else drive.bias * scale
        return replace(drive, paths=tuple(paths), bias=bias, origin=folded_name(drive.origin))

    def shifted(self, value: Value, shift: torch.Tensor, origin: str | None, own: bool = False) -> LinearSum:
        """A value plus a number a channel, which is a parameter's `own`, or depends on it."""
        drive = self.drive(value)
        if self.trains(origin) and shift.numel() < drive.post[0]:
            self.refused(f"adds {own_name(str(origin))!r}, one number that the model trains, to all channels")
        shift = self.expanded(shift, drive)
        if drive.bias is None and own and origin is not None:
            return replace(drive, bias=shift.clone(), origin=own_name(origin))
        bias = shift.clone() if drive.bias is None else drive.bias + shift
        return replace(drive, bias=bias, origin=self.either(drive.origin, origin))

    def expanded(self, numbers: torch.Tensor, drive: LinearSum) -> torch.Tensor:
        """Numbers a channel, of as many channels as a sum has."""
        if numbers.numel() not in (1, drive.post[0]):
            self.refused("has a number for each of a flattened image's, where layers have one a channel")
        return numbers.expand(drive.post[0])

    def channels(self, given: Any, like: Value) -> torch.Tensor:
        """A constant argument as a number a channel, or one number."""
        found = self.constant(given)
        shape = like.post if isinstance(like, LinearSum) else self.shape(like.source)
        if found is None:
            self.refused(f"calls {self.node.name!r} of two values that depend on the input")
        assert found is not None
        if found.numel() == 1:
            return found.reshape(1)
        if like.flat:
            shape = (math.prod(shape),)
        rows = found.reshape(found.shape[max(found.ndim - len(shape), 0) :])
        if rows.ndim != len(shape) or not found.numel() == rows.numel() == rows.shape[0] == shape[0]:
            self.refused(f"calls {self.node.name!r} with other constants than a number a channel")
        return rows.flatten()

    def sum(self, name: str, input: Any, other: Any, alpha: float = 1) -> Value:
        one, two = ("rsub" in name and (other, input)) or (input, other)
        sign = -float(alpha) if "sub" in name else float(alpha)
        values = [self.found.get(v.node) if isinstance(v, Ref) else None for v in (one, two)]
        a, b = values
        if a is not None and b is not None:
            first, second = self.drive(a), self.signed(b, sign)
            if first.post != second.post or first.flat != second.flat:
                self.refused("adds values of different shapes, or numbers to those of a flattened image")
            same = (
                first.origin is not None
                and second.origin is not None
                and own_name(first.origin) == own_name(second.origin)
            )
            if same and self.trains(first.origin):  # one bias is learnt at both places
                first = self.drive(self.layer(first, "linear"))
            biases = [d.bias for d in (first, second) if d.bias is not None]
            origins = [d.origin for d in (first, second) if d.bias is not None]
            bias = None if not biases else biases[0] if len(biases) == 1 else biases[0] + biases[1]
            origin = None if not origins else origins[0] if len(origins) == 1 else self.either(*origins)
            return LinearSum((*first.paths, *second.paths), bias, origin, first.flat)
        if a is not None:
            if abs(sign) != 1 and self.trains(self.origin(two)):
                self.refused("adds a multiple of what the model trains: freeze it")
            return self.shifted(a, sign * self.channels(two, a), self.origin(two), own=sign == 1)
        assert b is not None
        return self.shifted(self.signed(b, sign), self.channels(one, b), self.origin(one), own=True)

    def signed(self, value: Value, sign: float) -> LinearSum:
        """A value times a number that the model does not learn."""
        return self.drive(value) if sign == 1 else self.scaled(value, torch.tensor([sign]).double(), None)

    def product(self, name: str, input: Any, other: Any) -> Value:
        left = isinstance(input, Ref) and input.node in self.found
        value, by = (self.at(input), other) if left else (self.at(other), input)
        scale = self.channels(by, value)
        if "div" in name and not left:
            self.refused("divides by units")
        if self.trains(self.origin(by)):
            if "div" in name:
                self.refused("divides by what the model trains: freeze it")
            return self.gained(value, scale, self.origin(by))
        return self.scaled(value, 1 / scale if "div" in name else scale, self.origin(by))

    def pad(self, input: Any, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Value:
        at = self.units(self.at(input), padded=True)
        sides = [*pad, *[0] * (4 - len(pad))]
        if (
            mode != "constant"
            or value not in (None, 0, 0.0)
            or len(sides) != 4
            or min(sides) < 0
            or at.flat
            or len(self.shape(at.source)) != 3
        ):
            self.refused("pads by other things than zeros around an image")
        left, right, top, bottom = sides
        around = tuple(a + b for a, b in zip(at.around, (top, bottom, left, right), strict=True))
        return replace(at, around=cast(tuple[int, int, int, int], around))

    def pooled(self, input: Any, kind: str, size: Any, stride: Any, padding: Any) -> Value:
        """A pooling of units; a maximum behind a convolution's activation is put before it, which is the same."""
        given = self.at(input)
        pooling = Pooling(kind, _pair(size), None if stride in (None, []) else _pair(stride), _pair(padding))
        if kind == "max" and self.layers and given == Units(len(self.layers) - 1) and self.uses[input.node] == 1:
            layer = self.layers[-1]
            link, rises = layer.link, layer.activation.inverse is not None
            if isinstance(link, ConvLink) and link.pool is None and not layer.skips and rises:
                layer.link = ConvLink(
                    link.pre, link.post[0], kernel_size=_pair(link.weight_shape[2:]), stride=link.stride,
                    padding=link.around, dilation=link.dilation, groups=link.groups, pooling=pooling,
                )  # fmt: skip
                return Units(len(self.layers) - 1)
        at = self.units(given)
        if at.flat or len(self.shape(at.source)) != 3:
            self.refused("pools what is no image")
        return LinearSum((Path(at.source, PoolLink(self.shape(at.source), pooling)),))

    def max_pool2d(
        self, input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
        ceil_mode: bool = False, return_indices: bool = False,
    ) -> Value:  # fmt: skip
        if _pair(dilation) != (1, 1) or ceil_mode or return_indices:
            self.refused("has a max pooling that is dilated, has windows beyond the image, or returns indices")
        return self.pooled(input, "max", kernel_size, stride, padding)

    def avg_pool2d(
        self, input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: Any = None,
    ) -> Value:  # fmt: skip
        zeros = _pair(padding) != (0, 0)
        if ceil_mode or divisor_override is not None or (zeros and not count_include_pad):
            self.refused("has an average pooling whose windows count differently")
        return self.pooled(input, "average", kernel_size, stride, padding)

    def adaptive(self, input: Any, output_size: Any) -> Value:
        at = self.units(self.at(input))
        shape = self.shape(at.source)
        if at.flat or len(shape) != 3:
            self.refused("pools what is no image")
        wanted = [output_size] * 2 if isinstance(output_size, int) else list(output_size)
        wanted = [n if w is None else w for n, w in zip(shape[1:], wanted, strict=True)]
        if any(n % w for n, w in zip(shape[1:], wanted, strict=True)):
            self.refused("pools to sizes that do not divide the image")
        windows = [n // w for n, w in zip(shape[1:], wanted, strict=True)]
        return LinearSum((Path(at.source, PoolLink(shape, Pooling("average", _pair(windows)))),))

    def mean(self, input: Any, dim: Any = None, keepdim: bool = False, **_: Any) -> Value:
        at = self.units(self.at(input))
        shape = self.shape(at.source)
        axes = sorted(d % 4 for d in (dim if isinstance(dim, list | tuple) else [dim or 0]))
        if at.flat or len(shape) != 3 or axes != [2, 3]:
            self.refused("takes means over other axes than those of images")
        link = PoolLink(shape, Pooling("average", _pair(shape[1:])))
        return LinearSum((Path(at.source, link),), flat=not keepdim)

    def cat(self, tensors: Sequence[Any], dim: int = 0, axis: int | None = None) -> Value:
        parts = [self.units(self.at(t)) for t in tensors]
        shapes = [self.shape(p.source) for p in parts]
        axis = dim if axis is None else axis
        flat = parts[0].flat
        if any(p.flat != flat or s[1:] != shapes[0][1:] for p, s in zip(parts, shapes, strict=True)):
            self.refused("concatenates flattened images with what is none, or is of another size")
        if axis % (2 if flat else len(shapes[0]) + 1) != 1:
            self.refused("concatenates along another axis than that of channels")
        post = (sum(s[0] for s in shapes), *shapes[0][1:])
        starts = [sum(s[0] for s in shapes[:n]) for n in range(len(shapes))]
        rows = zip(parts, shapes, starts, strict=True)
        paths = tuple(Path(p.source, ChannelLink(s, post, start)) for p, s, start in rows)
        return LinearSum(paths, flat=flat)

    def flat(self, i: int, value: Value) -> Value:
        shape = value.post if isinstance(value, LinearSum) else self.shape(value.source)
        size = tuple(self.values[i].shape[1:])
        if size == shape and not value.flat:
            return value
        if size != (math.prod(shape),) or len(self.values[i]) != 1:
            self.refused(f"calls {self.node.name!r}, which leaves more than an example's numbers in a row")
        if isinstance(value, LinearSum) and len(shape) > 1:
            value = self.units(value)
        return replace(value, flat=True)


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    found = [int(n) for n in value]
    return (found[0], found[-1])
