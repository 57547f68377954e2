"""Examples that a caller hands over from Python, in the place of a name: arrays, a `Dataset`, or loaders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import argument_error
from .datasets import FROM_PYTHON, Dataset, of_table
from .tables import Part, checked_part, made_table

if TYPE_CHECKING:
    from ..config import DataSection

ARRAYS, LOADERS = FROM_PYTHON

MUST = (
    "be a folder, a Dataset, arrays (x, y) or (x, y, test_x, test_y), or two loaders (train, test) to be gone "
    "through anew each epoch"
)


def is_array(value: Any) -> bool:
    """Whether a value is a tensor, a numpy array, or what can be one (a data frame)."""
    return isinstance(value, torch.Tensor) or (hasattr(value, "__array__") and hasattr(value, "shape"))


def arrays_of(data: Any) -> tuple[Any, ...] | None:
    """The arrays of (x, y), (x, y, test_x, test_y) or ((x, y), (test_x, test_y)); None where data are no arrays.

    Raises
    ------
    InputError
        If there are arrays, but not two or four.
    """
    if not isinstance(data, tuple):
        return None
    pairs = all(isinstance(part, tuple) and len(part) == 2 and all(map(is_array, part)) for part in data)
    flat = tuple(array for part in data for array in part) if pairs and data else data
    if not any(map(is_array, flat)):
        return None
    if len(flat) not in (2, 4) or not all(map(is_array, flat)):
        raise argument_error("data", MUST, f"({', '.join(type(v).__name__ for v in data)})")
    return flat


def dataset_of_arrays(arrays: tuple[Any, ...], section: DataSection) -> Dataset:
    """Make a data set of two or four arrays, as of the arrays of an npz file.

    Parameters
    ----------
    arrays : tuple
        Inputs (N, ...) and targets: classes (N,) (integers or texts), or measured numbers (N,) or (N, n); of two
        arrays a share is held back to test on.
    section : DataSection
        `task`, `layout`, `scaling`, `target_scaling`, `test_fraction` and `seed` count as they do for a file.

    Returns
    -------
    Dataset

    Raises
    ------
    InputError
        If the arrays do not fit each other, or hold what is no number.
    """
    plain = [_plain(value) for value in arrays]
    parts: list[Part] = [
        checked_part(x, y, f"data[{2 * k}]", section, "data")
        for k, (x, y) in enumerate(zip(plain[::2], plain[1::2], strict=True))
    ]
    whole = section.model_copy(update={"name": ARRAYS})
    return of_table(ARRAYS, made_table(whole, parts[0], parts[1] if len(parts) == 2 else None))


def dataset_of_loaders(train: Iterable[Any], test: Iterable[Any]) -> Dataset:
    """Go through two loaders once, and hold their examples in memory.

    Raises
    ------
    InputError
        If they do not yield pairs of tensors, or classes in one and measured targets in the other.
    """
    parts: list[torch.Tensor] = []
    for loader in (train, test):
        batches = [checked_batch(batch) for batch in loader]
        if not batches:
            raise argument_error("data", "yield at least one batch to train and one to test on", "a loader of none")
        x, y = (torch.cat(rows) for rows in zip(*batches, strict=True))
        parts += [x, y]
    kinds = {part.is_floating_point() for part in parts[1::2]}
    if len(kinds) == 2:
        raise argument_error("data", "have targets of one kind", "classes and measured numbers")
    classes = None if kinds == {True} else 1 + int(max(part.max() for part in parts[1::2]))
    train_x, train_y, test_x, test_y = parts
    return Dataset(LOADERS, train_x, train_y, test_x, test_y, n_classes=classes)


def checked_batch(batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs (B, ...), and class indices (B,) of int64 or measured targets (B, n), of a batch that a loader yields.

    Raises
    ------
    InputError
        If it is no such pair.
    """
    x, y = batch if isinstance(batch, list | tuple) and len(batch) == 2 else (None, None)
    if (
        not (isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor))
        or not x.dtype.is_floating_point
        or y.dtype.is_complex
        or y.shape[:1] != x.shape[:1]
        or y.ndim not in ((1, 2) if y.dtype.is_floating_point else (1,))
    ):
        must = (
            "yield pairs of a floating-point tensor (B, ...) and class indices (B,), or measured targets (B, n) of "
            "a floating-point dtype"
        )
        raise argument_error("data", must, described_batch(batch))
    if not y.dtype.is_floating_point:
        return x, y.to(torch.int64)
    return x, y if y.ndim == 2 else y[:, None]


def described_batch(batch: Any) -> str:
    """What a loader has yielded, in words."""
    if isinstance(batch, list | tuple):
        return f"({', '.join(map(described_batch, batch))})"
    if isinstance(batch, torch.Tensor):
        return f"{batch.dtype} of shape {tuple(batch.shape)}"
    return type(batch).__name__


def require_loaders(data: tuple[Any, ...]) -> tuple[Iterable[Any], Iterable[Any]]:
    """Two loaders that can be gone through more than once.

    Raises
    ------
    InputError
        If they are not.
    """
    if len(data) != 2:
        raise argument_error("data", MUST, f"a tuple of {len(data)}")
    for part in data:
        if not isinstance(part, Iterable) or isinstance(part, Iterator):
            raise argument_error("data", MUST, type(part).__name__)
    return data


def _plain(value: Any) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = value.float() if value.dtype == torch.bfloat16 else value
    return np.asarray(value)
