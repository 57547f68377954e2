"""Functions of a phase that torch.compile may fuse: what runs between two reads of the host, and none that reads.

Within a block `compiling()` functions that are `fusible` are compiled, once a shape; outside of it they are not. A
loop whose end depends on numbers is none of them, so that no graph breaks.
"""

from __future__ import annotations

import functools
import importlib.util
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch

CHOICES = ("off", "auto")
BACKEND = "inductor"
VARIANTS = 64
"""Compiled forms of one function, for networks, batch sizes and dtypes; calls beyond them are not compiled."""

F = TypeVar("F", bound=Callable[..., Any])

_CALLS: ContextVar[list[str] | None] = ContextVar("_CALLS", default=None)
"""Names of the compiled functions that were called in the block; None outside of `compiling`."""
_COMPILED: dict[tuple[str, Callable[..., Any]], Callable[..., Any]] = {}
"""Compiled functions by backend and function."""


def fusible(function: F) -> F:
    """Mark a function that reads no number of a device: within `compiling` it is compiled."""

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():  # a part of what is being fused
            return function(*args, **kwargs)
        calls = _CALLS.get()
        if calls is None:
            return function(*args, **kwargs)
        calls.append(function.__qualname__)
        from torch._dynamo import config  # seconds of imports, which nobody else needs

        with config.patch(recompile_limit=VARIANTS):
            return _compiled(function)(*args, **kwargs)

    return called  # type: ignore[return-value]


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    key = BACKEND, function
    if key not in _COMPILED:
        _COMPILED[key] = torch.compile(function, backend=BACKEND, dynamic=False)
    return _COMPILED[key]


def spare(memory: torch.Tensor | None) -> torch.Tensor | None:
    """Memory that an operator may write into, as its argument `out`; None in compiled code, which plans its
    memory itself.
    """
    return None if torch.compiler.is_compiling() else memory


@contextmanager
def compiling() -> Iterator[list[str]]:
    """Within this context, functions marked `fusible` are compiled; the list tells which of them were called."""
    calls: list[str] = []
    token = _CALLS.set(calls)
    try:
        yield calls
    finally:
        _CALLS.reset(token)


def hindrance(device: torch.device) -> str | None:
    """Say in words why torch.compile cannot serve a device here; None if it can."""
    if BACKEND != "inductor":
        return None
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "triton is not installed, which makes a GPU's kernels"
    if device.type == "cpu" and not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        return "there is no C++ compiler, which makes a CPU's kernels"
    return None
