"""Tables of experiments that are kept row by row in a file, so that the same command goes on with it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from physics_ep.errors import argument_error


def read_rows(
    path: Path, table: str, keys: Sequence[str], made_by: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Read the rows of a table that was begun.

    Parameters
    ----------
    path : path
        A JSON file: an object with `rows`, a list of objects, and what these were made by.
    table : str
        What the table is called, in the message of an error.
    keys : sequence of str
        What each row has.
    made_by : mapping, optional
        Entries that the file must have beside its rows: those of another recipe are in no mean with new ones. None:
        rows of any recipe.

    Raises
    ------
    InputError
        If it is damaged, something else, or of another recipe.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        rows: list[dict[str, Any]] = found["rows"]
        sound = all(set(keys) <= set(row) for row in rows)
        alike = made_by is None or all(found[name] == as_read(value) for name, value in made_by.items())
    except (OSError, ValueError, KeyError, TypeError):
        sound = alike = False
    if not (sound and alike):
        recipe = "" if made_by is None else " of this recipe"
        raise argument_error("out", f"hold a table of {table}{recipe}, or none", repr(str(path)))
    return rows


def as_read(value: Any) -> Any:
    """A value as a JSON file gives it back: tuples are lists."""
    return json.loads(json.dumps(value))


def finite(values: Sequence[float | None]) -> list[float]:
    """The values that there are: neither None nor NaN nor infinite."""
    return [float(v) for v in values if v is not None and math.isfinite(v)]


def of_how_many(told: str, there: int, tried: int) -> str:
    """A figure, with the number of rows that it is of where some have none: 'told (there of tried)'."""
    return told if there == tried else f"{told} ({there} of {tried})"


def median(values: Sequence[float | None], form: str, quartiles: bool = False) -> str:
    """The median of the values that there are, in a format, and of how many where some are missing; else 'none'.

    Parameters
    ----------
    values : sequence of float or None
    form : str
        A format, as '{:.2f}'.
    quartiles : bool
        Whether to tell the quartiles, 'median (low..high)', where they differ from it as printed.
    """
    there = finite(values)
    if not there:
        return "none"
    low, middle, high = (form.format(v) for v in np.percentile(there, (25, 50, 75)))
    told = middle if not quartiles or low == middle == high else f"{middle} ({low}..{high})"
    return of_how_many(told, len(there), len(values))
