"""Predictive coding networks to and from an ordinary `torch.nn.Sequential`, weights and all.

A model becomes a network only if every module is exactly of a known kind: a subclass, a hook or a replaced method
may compute anything. The network is then compared with the model on an example.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ..blocks import all_finite
from ..errors import InputError, argument_error
from ..maps import ConvLink, DenseLink, Link, PoolLink, Shape
from ..pooling import POOL, Pooling
from ..weights import check_plain
from .activations import Activation
from .layers import PredictiveLayer, label_layers
from .network import PredictiveCodingNetwork

RESPONSES: dict[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.Tanh: "tanh",
    nn.GELU: "gelu",
    nn.Softplus: "softplus",
    nn.Sigmoid: "logistic",
    nn.Hardtanh: "hard_tanh",
    nn.Identity: "linear",
}
POOLS: dict[type[nn.Module], str] = {nn.MaxPool2d: "max", nn.AvgPool2d: "average"}
KINDS = (nn.Linear, nn.Conv2d, nn.Flatten, *POOLS, *RESPONSES)

HARMLESS = {"__init__", "__module__", "__doc__", "__annotations__", "__qualname__", "__constants__", "__repr__"}
"""What a subclass may define anew; also the next two, and names that torch's own class does not have."""
HARMLESS |= {"extra_repr", "reset_parameters", "__firstlineno__", "__static_attributes__", "__annotate__"}

EXAMPLES = 3
ROUNDINGS = 200
"""Network and model may differ by so many roundings of the largest output, a layer: sums have other orders."""


def from_sequential(
    model: nn.Sequential, input_shape: tuple[int, ...], *, energy: str = "squared", gates: str = "held"
) -> PredictiveCodingNetwork:
    """A predictive coding network whose forward pass is that of `model`, with copies of its weights.

    Parameters
    ----------
    model : nn.Sequential
        A chain of `Linear`, `Conv2d` (square kernel, zeros around, one group), `MaxPool2d(2)`, `AvgPool2d(2)`,
        `Flatten`, and the responses `ReLU`, `Tanh`, `GELU`, `Softplus`, `Sigmoid`, `Hardtanh` to [-1, 1] or [0, 1],
        `Identity`; the last a `Linear` with no response. Pooling stands after its convolution, before or (max
        pooling) after its response, which is the same for rising ones.
    input_shape : tuple of int
        Shape of an example, without the batch.
    energy, gates
        The arguments of `PredictiveCodingNetwork` of the same names.

    Returns
    -------
    PredictiveCodingNetwork
        Weights that are one parameter in the model (a module that stands twice, tied weights) are one parameter
        here, and what the model does not train is not trained.

    Raises
    ------
    InputError
        If a module is of no use here, or not exactly known: a subclass that overrides anything, a hook, a
        parametrisation, pruning. It is named. Also if the network and the model, in the mode in which it is, do not
        agree on random examples.
    """
    modules = _known_modules(model)
    shape = input_shape = _checked_shape(input_shape)
    layers: list[PredictiveLayer] = []
    found: list[dict[str, Any]] = []
    for name, module in modules:
        kind = _kind(module)
        if isinstance(module, nn.Linear | nn.Conv2d):
            found.append({"name": name, "module": module, "pooling": None, "response": None})
        elif isinstance(module, nn.Flatten):
            if (module.start_dim, module.end_dim) != (1, -1):
                raise _unsupported(name, module, "it must leave nothing but the batch axis")
        elif isinstance(module, nn.Sequential):
            raise _unsupported(name, module, "a Sequential within another is not taken apart: list its layers")
        elif not found:
            raise _unsupported(name, module, "a Linear or a Conv2d must come first")
        elif kind in POOLS:
            _add_pooling(found[-1], name, module)
        elif kind in RESPONSES:
            _add_response(found[-1], name, module)
        else:
            raise _unsupported(name, module, "no predictive coding layer is made of it")
    if not found:
        was = "one of " + ", ".join(type(m).__name__ for _, m in modules) if modules else "an empty nn.Sequential"
        raise argument_error("model", "hold at least one Linear or Conv2d", was)
    last = found[-1]
    end = last["module"] if last["response"] in (None, "linear") else modules[-1][1]
    if not isinstance(end, nn.Linear):
        raise argument_error(
            "model", "end in a Linear without a response", f"one that ends in {_kind(end).__name__}"
        )
    generator = torch.Generator().manual_seed(0)
    for part in found:
        module = part["module"]
        link = _link(part, shape)
        layer = PredictiveLayer(
            link, part["response"] or "linear", 0.0, generator, bias=module.bias is not None
        ).to(module.weight.dtype)
        layers.append(layer)
        shape = link.post
    network = PredictiveCodingNetwork(layers, energy, gates)
    load_sequential(network, model)
    network = network.to(next(model.parameters()).device)
    label_layers(network.stack, [part["name"] for part in found])
    network.module_kinds = {name: type(module).__name__ for name, module in modules}
    holders = [part["module"] for part in found]
    _tie(network.stack, holders)
    for layer, module in zip(network.stack, holders, strict=True):
        layer.weight.requires_grad_(module.weight.requires_grad)
        if layer.bias is not None:
            layer.bias.requires_grad_(module.bias.requires_grad)
    _compare(network, model, shape=input_shape)
    return network


def _checked_shape(input_shape: Any) -> Shape:
    """The shape of an example."""
    sides = tuple(input_shape) if isinstance(input_shape, tuple | list) else ()
    if not sides or not all(isinstance(s, int) and not isinstance(s, bool) and s > 0 for s in sides):
        must = "be the shape of an example without the batch axis, positive integers such as (784,) or (1, 28, 28)"
        raise argument_error("input_shape", must, repr(input_shape))
    return sides


def load_sequential(network: PredictiveCodingNetwork, model: nn.Sequential) -> None:
    """Copy the weights of an `nn.Sequential` of the same layers into a network.

    Raises
    ------
    InputError
        If the layers do not match.
    """
    modules = [m for _, m in _known_modules(model) if isinstance(m, nn.Linear | nn.Conv2d)]
    if len(modules) != network.depth:
        raise argument_error("model", f"have {network.depth} layers with weights", len(modules))
    with torch.no_grad():
        for number, (layer, module) in enumerate(zip(network.stack, modules, strict=True), 1):
            pairs: list[tuple[str, torch.Tensor | None, torch.Tensor | None]] = [
                ("weight", layer.weight, module.weight),
                ("bias", layer.bias, module.bias),
            ]
            for what, mine, theirs in pairs:
                shapes = [None if p is None else list(p.shape) for p in (mine, theirs)]
                if shapes[0] != shapes[1]:
                    raise InputError(
                        f"Argument model must fit the network, but layer {number} has a {what} of shape "
                        f"{shapes[1]}, not {shapes[0]}."
                    )
                if mine is not None and theirs is not None:
                    mine.copy_(theirs)


def to_sequential(network: PredictiveCodingNetwork) -> nn.Sequential:
    """An ordinary `nn.Sequential` with copies of the weights: the same forward pass, trained by autograd.

    Raises
    ------
    InputError
        If the network has skips, which a sequence cannot hold, or units that torch does not have, or weights that
        are computed from others; hooks are not carried over and refused too. Ties and what is not trained are kept.
    """
    check_plain(network, "network", "to become an nn.Sequential")
    modules: list[nn.Module] = []
    responses = {name: kind for kind, name in RESPONSES.items()}
    for number, layer in enumerate(network.stack, 1):
        link, bias = layer.link, layer.bias is not None
        if layer.skips or layer.source is not None:
            raise InputError(
                f"Argument network must have no skips to become an nn.Sequential, but layer {number} has one."
            )
        if isinstance(link, ConvLink):
            modules += _convolution(link, bias, number)
        elif isinstance(link, DenseLink):
            if len(link.pre) > 1:
                modules.append(nn.Flatten())
            modules.append(nn.Linear(link.fan_in, link.post[0], bias=bias))
        elif isinstance(link, PoolLink) and not bias:
            modules.append(_pooling(link.pool))
        else:
            raise _no_sequence(number, "be a matrix, a convolution or a pooling", f"a {type(link).__name__}")
        if layer.activation_name != "linear":
            modules.append(_response(layer.activation, responses))
    model = nn.Sequential(*modules).to(network.device, network.dtype)
    weighted = [layer for layer in network.stack if layer.link.weighted]
    with torch.no_grad():
        holders = [m for m in model if isinstance(m, nn.Linear | nn.Conv2d)]
        for layer, module in zip(weighted, holders, strict=True):
            module.weight.copy_(layer.weight)
            if layer.bias is not None and module.bias is not None:
                module.bias.copy_(layer.bias)
    _tie(holders, weighted)
    for layer, module in zip(weighted, holders, strict=True):
        module.weight.requires_grad_(layer.weight.requires_grad)
        if layer.bias is not None and module.bias is not None:
            module.bias.requires_grad_(layer.bias.requires_grad)
    return model


def _convolution(link: ConvLink, bias: bool, number: int) -> list[nn.Module]:
    """A convolution of torch, and the pooling behind it, for layer `number`, from 1."""
    if not link.even:
        raise _no_sequence(
            number, "have equal padding on both sides", f"one with {link.around} (top, bottom, left, right)"
        )
    top, _, left, _ = link.around
    kernel: Any = tuple(link.weight_shape[2:])
    options: dict[str, Any] = {
        "stride": link.stride,
        "dilation": link.dilation,
        "groups": link.groups,
        "bias": bias,
    }
    found: list[nn.Module] = [nn.Conv2d(link.pre[0], link.weight_shape[0], kernel, padding=(top, left), **options)]
    pool = link.pool
    if pool is not None:
        if bias and not pool.routed and pool.padding != (0, 0):
            raise _no_sequence(number, "have no padding around an average", f"one with {pool}")  # less of the bias
        found.append(_pooling(pool))
    return found


def _pooling(pool: Pooling) -> nn.Module:
    kinds: dict[str, Any] = {name: kind for kind, name in POOLS.items()}
    found: nn.Module = kinds[pool.kind](pool.size, pool.stride, pool.padding)
    return found


def _response(activation: Activation, responses: dict[str, type[nn.Module]]) -> nn.Module:
    """The module of torch that computes an activation."""
    name = activation.name
    if name in responses:
        return responses[name]()
    if name == "silu":
        return nn.SiLU()
    if activation.leak:
        return nn.LeakyReLU(activation.leak)
    if name in ("hard_sigmoid", "relu6") or name.startswith("clip("):
        return nn.Hardtanh(*activation.bounds)
    raise argument_error("network", "have activations that torch has", name)


def _no_sequence(number: int, must: str, but: str) -> InputError:
    return InputError(f"Argument network must {must} in layer {number} to become an nn.Sequential, but has {but}.")


def _known_modules(model: nn.Sequential) -> list[tuple[str, nn.Module]]:
    """The model's modules in turn, as often as they stand in it.

    Raises
    ------
    InputError
        If the model or a module is not exactly what its class in torch is.
    """
    if not isinstance(model, nn.Sequential):
        raise argument_error("model", "be an nn.Sequential", type(model).__name__)
    own = _overridden(model, nn.Sequential)
    if own is not None:
        raise argument_error("model", "be an nn.Sequential that overrides nothing", f"one with its own {own!r}")
    for name, module in model.named_modules():
        if any(map(is_lazy, module.parameters(recurse=False))):
            must = "have all its weights: run it once on an example"
            raise argument_error("model", must, f"one whose module {name!r} is lazy ({type(module).__name__})")
    check_plain(model, "model", "to become a network")
    found = [(name, module) for name, module in model._modules.items() if module is not None]
    for name, module in found:
        own = _overridden(module, _kind(module))
        if own is not None:
            raise _unsupported(name, module, f"it has its own {own!r}, of which nothing is known")
        for key in ("weight", "bias") if isinstance(module, nn.Linear | nn.Conv2d) else ():
            value = getattr(module, key)
            if type(value) is not nn.Parameter and not (key == "bias" and value is None):
                raise _unsupported(name, module, f"its {key} must be a plain parameter")
            if value is not None and not value.numel():
                raise _unsupported(name, module, "it has no inputs or no outputs")
    holders = [m for _, m in found if isinstance(m, nn.Linear | nn.Conv2d)]
    for what in ("dtype", "device"):
        kinds = {getattr(p, what) for m in holders for p in m.parameters(recurse=False)}
        if len(kinds) > 1:
            raise argument_error("model", f"have one {what}", ", ".join(sorted(map(str, kinds))))
    return found


def _kind(module: nn.Module) -> type[nn.Module]:
    """The known class that a module is an instance of; its own class, if there is none."""
    return next((c for c in type(module).__mro__ if c in KINDS), type(module))


def _overridden(module: nn.Module, kind: type[nn.Module]) -> str | None:
    """Something that an instance, or a subclass of torch's own class, does in its own way; None: nothing."""
    lineage = type(module).__mro__
    for owner in lineage[: lineage.index(kind)]:
        for name in vars(owner):
            if name not in HARMLESS and (hasattr(kind, name) or name in ("weight", "bias")):
                return name
    return next((name for name in vars(module) if callable(getattr(kind, name, None))), None)


def _tie(holders: Sequence[Any], like: Sequence[Any]) -> None:
    """Make weights, and biases, one parameter where those of `like` are."""
    for what in ("weight", "bias"):
        first: dict[int, Any] = {}
        for mine, theirs in zip(holders, like, strict=True):
            p = getattr(theirs, what)
            if p is not None:
                setattr(mine, what, getattr(first.setdefault(id(p), mine), what))


def _compare(network: PredictiveCodingNetwork, model: nn.Sequential, shape: Shape) -> None:
    """Refuse a network that does not compute what the model does, in the mode in which that is."""
    generator = torch.Generator().manual_seed(0)
    broken = [name for name, p in model.named_parameters() if not all_finite(p)]
    if broken:
        raise argument_error("model", "have finite weights", f"one with others in {broken[0]}")
    x = torch.randn((EXAMPLES, *shape), generator=generator).to(network.device, network.dtype)
    with torch.no_grad():
        mine = network(x)
        try:
            theirs = model(x.clone())
        except (RuntimeError, ValueError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"Argument model must run on examples of input_shape, but did not: {reason}"
            ) from error
    if mine.shape != theirs.shape:
        raise argument_error("model", f"give outputs of shape {list(mine.shape)}", list(theirs.shape))
    away, size = float((mine - theirs).abs().max()), float(theirs.abs().max())
    bound = ROUNDINGS * network.depth * torch.finfo(network.dtype).eps * max(size, 1.0)
    if not away <= bound:
        raise argument_error(
            "model", "compute what its modules say", f"{away:.2g} away from the network made of them, on an example"
        )


def _link(part: dict[str, Any], shape: Shape) -> Link:
    module, name = part["module"], part["name"]
    if isinstance(module, nn.Linear):
        if part["pooling"] is not None:
            raise _unsupported(part["pooling"][0], part["pooling"][1], "pooling follows convolutions only")
        link: Link = DenseLink(shape, module.out_features)
        if link.fan_in != module.in_features:
            raise InputError(
                f"Argument model must fit input_shape, but module {name!r} takes {module.in_features} inputs where "
                f"{list(shape)} arrive."
            )
        return link
    plain = (
        len(set(module.kernel_size)) == 1
        and len(set(module.stride)) == 1
        and module.dilation == (1, 1)
        and module.groups == 1
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and len(set(module.padding)) == 1
    )
    if not plain:
        raise _unsupported(name, module, "convolutions must be square, of one group, undilated, with zeros around")
    if len(shape) != 3 or shape[0] != module.in_channels:
        raise InputError(
            f"Argument model must fit input_shape, but module {name!r} takes {module.in_channels} channels where "
            f"{list(shape)} arrive."
        )
    return ConvLink(
        shape,
        module.out_channels,
        kernel_size=module.kernel_size[0],
        stride=module.stride[0],
        padding=int(module.padding[0]),
        pooling=None if part["pooling"] is None else POOLS[_kind(part["pooling"][1])],
    )


def _add_pooling(part: dict[str, Any], name: str, module: Any) -> None:
    sides = [getattr(module, key) for key in ("kernel_size", "stride")]
    plain = all(side in (POOL, (POOL, POOL)) for side in sides) and module.padding in (0, (0, 0))
    plain = plain and getattr(module, "dilation", 1) in (1, (1, 1)) and not module.ceil_mode
    plain = plain and not getattr(module, "return_indices", False)
    plain = plain and getattr(module, "divisor_override", None) is None
    if not plain or part["pooling"] is not None:
        raise _unsupported(name, module, "poolings must be plain, 2x2 with stride 2, one a layer")
    after = part["response"] not in (None, "linear")
    if after and (isinstance(module, nn.AvgPool2d) or part["response"] == "gelu"):
        raise _unsupported(name, module, "this pooling must stand before the response")
    part["pooling"] = (name, module)


def _add_response(part: dict[str, Any], name: str, module: Any) -> None:
    if part["response"] is not None:
        raise _unsupported(name, module, "a layer has one response")
    if isinstance(module, nn.Softplus) and (module.beta != 1 or module.threshold < 20):
        raise _unsupported(name, module, "softplus must have beta = 1, and a threshold of at least 20")
    if isinstance(module, nn.GELU) and module.approximate != "none":
        raise _unsupported(name, module, "GELU must not be approximate")
    found = RESPONSES[_kind(module)]
    if isinstance(module, nn.Hardtanh):
        bounds = (module.min_val, module.max_val)
        if bounds not in ((-1, 1), (0, 1)):
            kind = type(module).__name__
            why = f"{kind} clips to [{bounds[0]:g}, {bounds[1]:g}], and units here to [-1, 1] or [0, 1]"
            raise _unsupported(name, module, why)
        found = "hard_tanh" if bounds == (-1, 1) else "hard_sigmoid"
    part["response"] = found


def _unsupported(name: str, module: nn.Module, why: str) -> InputError:
    described = " ".join(str(module).split())  # in one line, whatever it holds
    return InputError(f"Argument model must not hold module {name!r}, {described}: {why}.")
