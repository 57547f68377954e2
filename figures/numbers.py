"""The numbers behind a figure, as a file: CSV for a spreadsheet, JSON, or HDF5 for what is large.

All three name a quantity alike, by the fields of the figure's data class: `panels.0.curves.1.beta`.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from physics_ep.errors import InputError, argument_error
from physics_ep.storage.files import check_output
from physics_ep.storage.outputs import write_json, write_text, writer, writing
from physics_ep.storage.sealed import sealed

KIND = "figure data"
SUFFIXES = {".csv": "csv", ".json": "json", ".h5": "hdf5", ".hdf5": "hdf5"}


def check_numbers(path: str | os.PathLike[str], figures: int = 1) -> str:
    """Format that a file's name asks for.

    Raises
    ------
    InputError
        If it asks for none, for a table of several figures, or the file cannot be written.
    """
    place = check_output(path, "data")
    form = SUFFIXES.get(place.suffix.lower())
    if form is None:
        raise argument_error("data", f"end in {', '.join(SUFFIXES)}", repr(str(path)))
    if form == "csv" and figures > 1:
        raise argument_error("data", "end in .json or .h5 for several figures", repr(str(path)))
    return form


def save_data(data: Any, path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Write the numbers behind a figure.

    In a CSV file each quantity is a column, named by where it stands in the data. Each entry of its first axis is a
    row, and further axes are further columns. An HDF5 file has a group where the data have a part, and a data set a
    quantity. Complex numbers are told by their real and imaginary parts, which JSON and CSV have no word for.

    Parameters
    ----------
    data : dataclass, mapping, or sequence of these
        What a function `draw_*` takes, or `Drawn.data`.
    path : path
        Ends in .csv, .json, .h5 or .hdf5.
    overwrite : bool
        Replace a file that something else wrote.

    Returns
    -------
    Path

    Raises
    ------
    InputError
        If the name ends otherwise, or the file cannot be written.
    """
    with writing("figures.save_data", overwrite=overwrite) as call:
        form = check_numbers(path)
        place = call.claim("data", path)
        found = as_numbers(data)
        if form == "json":
            write_json(place, found)
        elif form == "csv":
            write_text(place, _table(found))
        else:
            try:
                with sealed(place, writer("figures.save_data"), KIND) as file:
                    _fill(file, found)
            except OSError as error:
                raise InputError(f"Cannot write {str(path)!r}: {error.strerror or error}.") from error
    return place


def as_numbers(data: Any) -> dict[str, Any]:
    """Nested names with real arrays, numbers and texts in them."""
    told = _plain(data)
    return told if isinstance(told, dict) else {"figure": told}


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        return _plain(value.item()) if value.ndim == 0 else _real(value)
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, complex):
        return {"real": value.real, "imag": value.imag}
    return value if _is_scalar(value) else str(value)


def _parts(value: Any) -> dict[str, Any] | None:
    """What a quantity is made of, by name, those of a sequence by number; None for numbers and texts."""
    if isinstance(value, list) and not all(_is_scalar(part) for part in value):
        return {str(k): part for k, part in enumerate(value)}
    return value if isinstance(value, dict) else None


def _real(values: np.ndarray) -> Any:
    if np.iscomplexobj(values):
        return {"real": values.real, "imag": values.imag}
    return values if values.dtype.kind in "biuf" else [str(v) for v in values.ravel()]


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _columns(name: str, value: Any) -> Iterator[tuple[str, list[Any]]]:
    """Columns of a table by name."""
    parts = _parts(value)
    if parts is not None:
        for key, part in parts.items():
            yield from _columns(f"{name}.{key}" if name else key, part)
    elif isinstance(value, np.ndarray):
        for at in np.ndindex(value.shape[1:]):
            yield f"{name}[{','.join(map(str, at))}]" if at else name, value[(slice(None), *at)].tolist()
    else:
        yield name, value if isinstance(value, list) else [value]


def _table(data: dict[str, Any]) -> str:
    columns = dict(_columns("", data))
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(columns)
    for k in range(max(map(len, columns.values()), default=0)):
        cells = [column[k] if k < len(column) else None for column in columns.values()]
        rows.writerow(["" if cell is None else repr(cell) if isinstance(cell, float) else cell for cell in cells])
    return text.getvalue()


def _fill(group: h5py.Group, data: dict[str, Any]) -> None:
    for name, value in data.items():
        parts = _parts(value)
        if parts is not None:
            _fill(group.create_group(name, track_order=True), parts)
        elif value is not None:
            group.create_dataset(name, **_dataset(value))


def _dataset(value: Any) -> dict[str, Any]:
    """Values of a data set, and their type where they are texts; missing ones are NaN or empty."""
    entries = value if isinstance(value, list) else [value]
    if any(isinstance(entry, str) for entry in entries):
        texts = ["" if entry is None else str(entry) for entry in entries]
        return {"data": texts if isinstance(value, list) else texts[0], "dtype": h5py.string_dtype()}
    return {"data": np.array([np.nan if v is None else v for v in value]) if isinstance(value, list) else value}
