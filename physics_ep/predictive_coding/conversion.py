"""Predictive coding networks to and from an ordinary `torch.nn.Sequential`, weights and all."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..errors import InputError, argument_error
from ..maps import POOL, ConvLink, DenseLink, Link, Shape
from .layers import PredictiveLayer
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


def from_sequential(
    model: nn.Sequential, input_shape: tuple[int, ...], *, energy: str = "squared", gates: str = "frozen"
) -> PredictiveCodingNetwork:
    """A predictive coding network whose forward pass is that of `model`, with copies of its weights.

    Parameters
    ----------
    model : nn.Sequential
        Of `Linear`, `Conv2d` (square kernel, zeros around, one group), `MaxPool2d(2)`, `AvgPool2d(2)`, `Flatten`,
        and the responses `ReLU`, `Tanh`, `GELU`, `Softplus`, `Sigmoid`, `Hardtanh` to [-1, 1] or [0, 1],
        `Identity`; the last a `Linear` with no response.
        Pooling stands after its convolution, before or (max pooling) after its response, which is the same for
        rising ones.
    input_shape : tuple of int
        Of an example.
    energy, gates
        As of `PredictiveCodingNetwork`.

    Returns
    -------
    PredictiveCodingNetwork

    Raises
    ------
    InputError
        If a module is of no use here; it is named.
    """
    if not isinstance(model, nn.Sequential):
        raise argument_error("model", "be an nn.Sequential", type(model).__name__)
    shape: Shape = tuple(input_shape)
    layers: list[PredictiveLayer] = []
    found: list[dict[str, Any]] = []
    for name, module in model.named_children():
        kind = type(module)
        if isinstance(module, nn.Linear | nn.Conv2d):
            found.append({"name": name, "module": module, "pooling": None, "response": None})
        elif kind is nn.Flatten:
            continue
        elif not found:
            raise _unsupported(name, module, "a Linear or a Conv2d must come first")
        elif kind in POOLS:
            _add_pooling(found[-1], name, module)
        elif kind in RESPONSES:
            _add_response(found[-1], name, module)
        else:
            raise _unsupported(name, module, "no predictive coding layer is made of it")
    if not found:
        raise argument_error("model", "hold at least one Linear", "an empty nn.Sequential")
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
    return network.to(next(model.parameters()).device)


def load_sequential(network: PredictiveCodingNetwork, model: nn.Sequential) -> None:
    """Copy the weights of an `nn.Sequential` of the same layers into a network.

    Raises
    ------
    InputError
        If the layers do not match.
    """
    modules = [m for m in model.children() if isinstance(m, nn.Linear | nn.Conv2d)]
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
        If the network has skips, which a sequence cannot hold, or units that torch does not have.
    """
    modules: list[nn.Module] = []
    responses = {name: kind for kind, name in RESPONSES.items()}
    poolings = {name: kind for kind, name in POOLS.items()}
    for number, layer in enumerate(network.stack, 1):
        link, bias = layer.link, layer.bias is not None
        if layer.skip_link is not None:
            raise InputError(
                f"Argument network must have no skips to become an nn.Sequential, but layer {number} has one."
            )
        if isinstance(link, ConvLink):
            channels, below, side, _ = link.weight_shape
            modules.append(nn.Conv2d(below, channels, side, link.stride, link.padding, bias=bias))
            if link.pooling is not None:
                modules.append(poolings[link.pooling](POOL))
        else:
            if len(link.pre) > 1:
                modules.append(nn.Flatten())
            modules.append(nn.Linear(link.fan_in, link.post[0], bias=bias))
        if layer.activation_name == "hard_sigmoid":
            modules.append(nn.Hardtanh(0.0, 1.0))
        elif layer.activation_name not in responses:
            raise argument_error("network", "have activations that torch has", layer.activation_name)
        elif layer.activation_name != "linear":
            modules.append(responses[layer.activation_name]())
    model = nn.Sequential(*modules).to(network.device, network.dtype)
    with torch.no_grad():
        holders = [m for m in model if isinstance(m, nn.Linear | nn.Conv2d)]
        for layer, module in zip(network.stack, holders, strict=True):
            module.weight.copy_(layer.weight)
            if layer.bias is not None and module.bias is not None:
                module.bias.copy_(layer.bias)
    return model


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
        pooling=None if part["pooling"] is None else POOLS[type(part["pooling"][1])],
    )


def _add_pooling(part: dict[str, Any], name: str, module: Any) -> None:
    sides = [getattr(module, key) for key in ("kernel_size", "stride")]
    plain = all(side in (POOL, (POOL, POOL)) for side in sides) and module.padding in (0, (0, 0))
    plain = plain and getattr(module, "dilation", 1) in (1, (1, 1)) and not module.ceil_mode
    if not plain or part["pooling"] is not None:
        raise _unsupported(name, module, "poolings must be 2x2 with stride 2, one a layer")
    after = part["response"] not in (None, "linear")
    if after and (isinstance(module, nn.AvgPool2d) or part["response"] == "gelu"):
        raise _unsupported(name, module, "this pooling must stand before the response")
    part["pooling"] = (name, module)


def _add_response(part: dict[str, Any], name: str, module: Any) -> None:
    if part["response"] is not None:
        raise _unsupported(name, module, "a layer has one response")
    if isinstance(module, nn.Softplus) and module.beta != 1:
        raise _unsupported(name, module, "softplus must have beta = 1")
    if isinstance(module, nn.GELU) and module.approximate != "none":
        raise _unsupported(name, module, "GELU must not be approximate")
    found = RESPONSES[type(module)]
    if isinstance(module, nn.Hardtanh):
        bounds = (module.min_val, module.max_val)
        if bounds not in ((-1, 1), (0, 1)):
            raise _unsupported(name, module, "Hardtanh must clip to [-1, 1] or [0, 1]")
        found = "hard_tanh" if bounds == (-1, 1) else "hard_sigmoid"
    part["response"] = found


def _unsupported(name: str, module: nn.Module, why: str) -> InputError:
    return InputError(f"Argument model must not hold module {name!r}, {module}: {why}.")
