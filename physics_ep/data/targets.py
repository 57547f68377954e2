"""Targets of your own examples: names of classes, or measured numbers (regression).

Which of the two they are is said by `data.task`, or seen: texts and whole numbers name classes, several columns and
numbers with a fraction are measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import argument_error
from .held_out import drawn

if TYPE_CHECKING:
    from ..config import DataSection

MOST_CLASSES = 10_000
MISSING = ("nan", "na", "n/a", "null", "none", "?", "-")
"""Texts that stand for no value at all beside numbers, in small letters; the first one is never a class."""
FEW_CLASSES = 20
"""Up to so many whole numbers are taken for classes however few examples each has; beyond, each has two or more."""


@dataclass(frozen=True)
class Targets:
    """Targets of the parts of a data set.

    Attributes
    ----------
    parts : tuple of ndarray
        Class indices (N,) of int64, or measured numbers (N, n) of float64, as many arrays as there are parts.
    classes : tuple of str or None
        Names of the classes in the order of their indices; None where targets are measured.
    """

    parts: tuple[np.ndarray, ...]
    classes: tuple[str, ...] | None


def as_targets(section: DataSection, parts: Sequence[np.ndarray]) -> Targets:
    """Make class indices or measured numbers of what stands in a file or in arrays.

    Parameters
    ----------
    section : DataSection
        `task` says which, where it is given.
    parts : sequence of ndarray
        Texts or numbers of each part, (N,) or (N, n).

    Returns
    -------
    Targets

    Raises
    ------
    InputError
        If a target is missing or not finite, or what they are cannot be told.
    """
    for part in parts:
        if part.dtype.kind == "c":
            raise argument_error("data.target", "be real", part.dtype)
        if part.dtype.kind == "f" and not np.isfinite(part).all():
            row = int(np.argwhere(~np.isfinite(part))[0][0])
            raise argument_error("data.target", "be finite", f"NaN or infinity in example {row}")
    if measured(section.task, parts):
        return Targets(tuple(_numbers(part) for part in parts), None)
    classes = _classes(parts)
    place = {value: k for k, value in enumerate(classes)}
    indices = tuple(np.array([place[v] for v in part.tolist()], dtype=np.int64) for part in parts)
    return Targets(indices, tuple(str(c) for c in classes))


def measured(task: str | None, parts: Sequence[np.ndarray]) -> bool:
    """Whether targets are measured numbers, as `task` ('classification', 'regression', None) or they say.

    Raises
    ------
    InputError
        If it cannot be told, or they are not what the task needs.
    """
    wide = [part for part in parts if part.ndim == 2]
    if task is not None:
        if task == "classification" and wide:
            must = "be one column of classes for data.task = 'classification'"
            raise argument_error("data.target", must, f"of shape {wide[0].shape}")
        return task == "regression"
    if wide:
        whole = next((part for part in wide if part.dtype.kind in "iub"), None)
        if whole is not None:
            must = f"have shape ({len(whole)},), a class an example, or come with data.task = 'regression'"
            raise argument_error("data.target", must, f"integers of shape {whole.shape}")
        return True
    values = list(dict.fromkeys(value for part in parts for value in part.tolist()))
    numbers = [float(value) for value in values if is_number(value)]
    fraction = next((number for number in numbers if number != round(number)), None)
    if fraction is not None:
        if len(numbers) < len(values):
            odd = next(value for value in values if not is_number(value))
            must = "be a number in each example, or a class in each with data.task = 'classification'"
            was = "nothing" if odd in ("", None) else repr(odd)
            raise argument_error("data.target", must, f"{was} in some, and {fraction:g} in others")
        return True
    examples = sum(map(len, parts))
    if len(numbers) == len(values) > FEW_CLASSES and 2 * len(values) > examples:
        must = "name classes, or come with data.task = 'regression' (or 'classification', if these are classes)"
        raise argument_error("data.target", must, f"{len(values)} whole numbers in {examples} examples")
    return False


def is_number(value: Any) -> bool:
    """Whether a value is a finite number, or a text that says one."""
    try:
        return bool(np.isfinite(float(value)))
    except (TypeError, ValueError, OverflowError):
        return False


def split(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows to hold back: this share of all, with the shares of the classes, and at least one.

    Parameters
    ----------
    labels : ndarray (N,)
        Classes; one for all where targets are measured.
    fraction : float
        Share of the examples to hold back, in (0, 1).
    seed : int

    Returns
    -------
    kept, held : ndarray of int
        Numbers of the examples of the two parts, in rising order.

    Raises
    ------
    InputError
        If there are not examples enough for both.
    """
    wanted = max(1, round(fraction * len(labels)))
    if wanted >= len(labels):
        raise argument_error("data.file", "hold examples enough to train and to test", f"{len(labels)}")
    return drawn(labels, wanted, np.random.default_rng(seed))


def _numbers(part: np.ndarray) -> np.ndarray:
    """Measured targets (N, n) of float64."""
    columns = part if part.ndim == 2 else part[:, None]
    for row, values in enumerate(columns.tolist() if columns.dtype.kind not in "fiub" else ()):
        for value in values:
            if not is_number(value):
                was = "nothing" if value in ("", None) else repr(value)
                raise argument_error("data.target", "be a finite number", f"{was} in example {row + 1}")
    return columns.astype(np.float64)


def _classes(parts: Sequence[np.ndarray]) -> list[Any]:
    """The classes in rising order: integers, or texts."""
    values: set[Any] = set()
    for part in parts:
        values |= set(part.tolist())
    beside_numbers = all(is_number(v) or _missing(v, MISSING) for v in values) and any(map(is_number, values))
    absent = [v for v in values if _missing(v, MISSING if beside_numbers else MISSING[:1])]
    if absent:
        was = "nothing in some" if absent[0] in ("", None) else f"{str(absent[0])!r} in some"
        raise argument_error("data.target", "be given for each example", was)
    fraction = next((v for v in values if is_number(v) and float(v) != round(float(v))), None)
    texts = {v for v in values if isinstance(v, str)}
    if fraction is not None and (not texts or all(map(is_number, texts))):
        must = "name classes, by integers or texts, for data.task = 'classification'"
        raise argument_error("data.target", must, f"numbers such as {fraction}")
    if texts and all(map(is_number, texts)):
        ordered = sorted(values, key=float)
    else:
        ordered = sorted(values, key=str if texts else None)
    if not 2 <= len(ordered) <= MOST_CLASSES:
        raise argument_error("data.target", f"name 2 to {MOST_CLASSES} classes", len(ordered))
    spelt: dict[Any, Any] = {}
    for value in ordered:
        for key in {str(value), float(value) if is_number(value) else str(value)}:
            other = spelt.setdefault(key, value)
            if other is not value:
                raise argument_error("data.target", "spell each class in one way", f"{other!r} and {value!r}")
    return ordered


def _missing(value: Any, texts: Sequence[str]) -> bool:
    """Whether a target is no value: nothing, NaN, or one of these texts."""
    if isinstance(value, str):
        return not value or value.lower() in texts
    return value is None or (isinstance(value, float) and math.isnan(value))
