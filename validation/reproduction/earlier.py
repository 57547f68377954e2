"""Figures of rows that an earlier call told (`physics-ep reproduce --json`), where run files are not at hand."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

from physics_ep.errors import InputError
from physics_ep.intervals import MeanInterval
from physics_ep.storage.texts import read_text

from .rows import RowRecipe

Key = tuple[str, str, str]
"""Table, row and recipe."""


def digest(recipe: RowRecipe) -> str:
    """Sixteen digits that tell a recipe from others: what is trained or measured, and by which gradients.

    Entries that a config leaves to their defaults are not in it, nor are words about the recipe.
    """
    told: dict[str, Any] = {"measure": recipe.measure, "options": recipe.options, "reads": recipe.reads}
    if recipe.base:
        told |= {"brief": recipe.brief, "config": recipe.config().as_given()}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def earlier_figures(path: str | os.PathLike[str]) -> dict[Key, Mapping[str, Any]]:
    """Rows of a file of `--json` that have a figure, each as `RowOutcome.as_dict` has it.

    Raises
    ------
    InputError
        If there is no such file, or it is none of this command.
    """
    try:
        rows = json.loads(read_text(path, "earlier"))["rows"]
        return {(row["table"], row["row"], row["recipe"]): row for row in rows if row["seeds"]}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"File {os.fspath(path)!r} is none that `physics-ep reproduce --json` wrote: {error!r}."
        ) from error


def interval_of(mean: float, ends: list[float] | None, count: int) -> MeanInterval:
    """A mean with its interval, as a file tells them."""
    low, high = (float("nan"), float("nan")) if ends is None else ends
    return MeanInterval(mean, low, high, count)
