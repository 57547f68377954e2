"""Tensors as arrays for compiled code, and checks of what users give as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from physics_ep.errors import InputError, argument_error, unknown_name


def array(tensor: torch.Tensor) -> np.ndarray:
    """Contiguous view (or copy) of a tensor's values for a kernel; InputError for a tensor on a device."""
    return np.ascontiguousarray(_on_host(tensor).numpy())


def columns(tensor: torch.Tensor) -> np.ndarray:
    """A (B, n) tensor as a contiguous array (n, B); InputError for a tensor on a device."""
    return np.ascontiguousarray(_on_host(tensor).numpy().T)


def plain(values: Any) -> Any:
    """What users give as numbers, a tensor among them without its history: numpy reads no tensor that has one."""
    if not isinstance(values, torch.Tensor):
        return values
    values = _on_host(values)
    return (values.double() if values.is_floating_point() else values).numpy()  # numpy has no bfloat16 either


def _on_host(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.device.type != "cpu":
        raise InputError(
            "Compiled loops, circuits and netlists compute on the CPU, but were given a tensor on "
            f"{tensor.device}: move it by .cpu()."
        )
    return tensor.detach()


def groups(kinds: Sequence[str]) -> list[tuple[str, torch.Tensor]]:
    """Positions of each name in a sequence of names."""
    every = np.array(kinds, dtype=object)
    return [(name, torch.from_numpy(np.flatnonzero(every == name))) for name in sorted(set(kinds))]


def integers(name: str, given: Any, n_nodes: int) -> np.ndarray:
    """Node numbers as an int64 array, or InputError."""
    try:
        found = np.asarray(given)
    except ValueError as error:
        raise InputError(f"Argument {name} must be an array of node numbers, but was ragged.") from error
    if found.size == 0:
        return np.empty(0, dtype=np.int64)
    if found.dtype.kind not in "iu":
        raise argument_error(name, "hold integers", f"of dtype {found.dtype}")
    if found.min() < 0 or found.max() >= n_nodes:
        raise argument_error(
            name, f"hold node numbers from 0 to {n_nodes - 1}", f"from {found.min()} to {found.max()}"
        )
    return found.astype(np.int64)


def nodes(name: str, given: Any, n_nodes: int) -> np.ndarray:
    """Distinct node numbers as a flat int64 array, or InputError."""
    found = integers(name, given, n_nodes)
    if found.ndim != 1:
        raise argument_error(name, "be a flat sequence of node numbers", f"of shape {found.shape}")
    if len(np.unique(found)) != len(found):
        raise argument_error(name, "name each node once", found.tolist())
    return found


def numbers(name: str, given: Any, count: int) -> np.ndarray:
    """A finite float64 copy of shape (count,), or InputError."""
    try:
        found = np.array(plain(given), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"Argument {name} must hold numbers, but was {type(given).__name__}.") from error
    if found.shape != (count,):
        raise argument_error(name, f"have the shape ({count},)", found.shape)
    bad = np.flatnonzero(~np.isfinite(found))
    if bad.size:
        raise argument_error(name, "be finite", f"{found[bad[0]]} at index {bad[0]}")
    return found


def names(name: str, given: str | Sequence[str], count: int, known: dict[str, Any]) -> list[str]:
    """One registered name for each of `count` elements, or InputError."""
    every = [given] * count if isinstance(given, str) else list(given)
    if len(every) != count:
        raise argument_error(name, f"be one name or {count} names", f"{len(every)} names")
    for one in every:
        if one not in known:
            raise unknown_name(name, one, known)
    return every


def counts(values: object) -> bool:
    """Whether values are a sequence of positive integers."""
    return isinstance(values, Sequence) and all(
        isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in values
    )
