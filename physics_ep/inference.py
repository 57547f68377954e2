"""Functions that need autograd, called where `torch.inference_mode` has turned it off."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import nn

from .errors import argument_error
from .placement import first_tensor

P = ParamSpec("P")
R = TypeVar("R")


def differentiating(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function leave torch's inference mode while it runs, since forces and gradients are derivatives.

    Tensors that were made in inference mode, which autograd refuses, are copied; so are systems that hold such.
    """
    return _left(function, trains=False)


def training(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function that fills `.grad` leave inference mode while it runs, as `differentiating` does for
    forces. A system whose parameters were made in inference mode is refused, since the gradients of its copy
    would be lost.
    """
    return _left(function, trains=True)


def _left(function: Callable[P, R], trains: bool) -> Callable[P, R]:
    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        values = (*args, *kwargs.values())
        if not torch.is_inference_mode_enabled() and not any(map(_is_of_inference, values)):
            return function(*args, **kwargs)
        with torch.inference_mode(False):
            own: Any = {key: _plain(value, trains) for key, value in kwargs.items()}
            return function(*(_plain(value, trains) for value in args), **own)

    return call


def _is_of_inference(value: Any) -> bool:
    """Whether it is, or holds, a tensor that was made in inference mode."""
    if isinstance(value, torch.Tensor):
        return value.is_inference()
    if isinstance(value, nn.Module):
        first = first_tensor(value)
        return first is not None and first.is_inference()
    if isinstance(value, tuple):
        return any(map(_is_of_inference, value))
    return dataclasses.is_dataclass(value) and any(map(_is_of_inference, vars(value).values()))


def _plain(value: Any, trains: bool) -> Any:
    """A copy that autograd takes, where one is needed."""
    if not _is_of_inference(value):
        return value
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, nn.Module):
        if trains:
            name = f"system ({type(value).__name__})"
            must = "hold parameters that were made outside torch.inference_mode(), to be trained"
            raise argument_error(name, must, "made within")
        return copy.deepcopy(value)
    if isinstance(value, tuple):
        return tuple(_plain(part, trains) for part in value)
    fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
    return dataclasses.replace(value, **{name: _plain(part, trains) for name, part in fields.items()})
