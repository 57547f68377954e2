"""Your own examples from one file: 'npz' (arrays), 'csv' and 'parquet' (a row an example, a column a feature).

    [data]
    name = "csv"
    file = "flowers.csv"
    target = "species"

Where the file holds no test part, a share of each class is held back, drawn once by `data.seed`.
"""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, argument_error, unknown_name
from ..storage.files import checked_path
from ..storage.texts import read_text

if TYPE_CHECKING:
    from ..config import DataSection

INPUTS = ("x", "X", "inputs", "features", "images", "data")
LABELS = ("y", "Y", "labels", "targets", "target")
"""Names that arrays of an npz file may have; with 'train_' and 'test_' before them where it holds both parts."""


@dataclass(frozen=True)
class Table:
    """Examples of a file: features in float32, class indices, and the names of the classes in that file."""

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    classes: tuple[str, ...]


def read_table_file(section: DataSection) -> Table:
    """Read the examples of `section.file`.

    Parameters
    ----------
    section : DataSection
        `file`; `target`, the column or array of the classes; `columns`, the columns to learn from; `scaling`;
        `test_fraction` and `seed` of the part that is held back; `test_file`, a second file with it.

    Returns
    -------
    Table
        `classes` names the classes as the file does, in the order of their indices.

    Raises
    ------
    InputError
        If there is no such file or column, a value is missing, is no number, or is not finite, or targets are no
        classes.
    """
    if section.file is None:
        raise argument_error("data.file", f"be given for data.name = {section.name!r}", "left out")
    path = _file(section.file, "data.file")
    read = _arrays if section.name == "npz" else _columns
    train, test = read(section, path)
    if section.test_file is not None:
        if test is not None:
            raise argument_error(
                "data.test_file", "be left out where the file holds a test part", section.test_file
            )
        test = read(section, _file(section.test_file, "data.test_file"))[0]
    classes = _classes([train[1]] if test is None else [train[1], test[1]])
    indices = _indices(train[1], classes, path)
    if test is None:
        kept, held = split(indices, section.test_fraction, section.seed)
        parts = [(train[0][kept], indices[kept]), (train[0][held], indices[held])]
    else:
        if test[0].shape[1:] != train[0].shape[1:]:
            must = f"have examples of shape {train[0].shape[1:]}"
            raise argument_error("data.test_file", must, f"some of shape {test[0].shape[1:]}")
        parts = [(train[0], indices), (test[0], _indices(test[1], classes, path))]
    (train_x, train_y), (test_x, test_y) = parts
    shift, scale = _scaling(section, train_x)
    train_x, test_x = (((x - shift) / scale).astype(np.float32) for x in (train_x, test_x))
    return Table(train_x, train_y, test_x, test_y, tuple(str(c) for c in classes))


def split(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows to hold back: this share of each class, at least one example in all.

    Parameters
    ----------
    labels : ndarray (N,)
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
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    held: list[int] = []
    for value in np.unique(labels):
        rows = order[labels[order] == value]
        held.extend(rows[: round(fraction * len(rows))])
    if not held:
        held = list(order[:1])
    kept = np.setdiff1d(np.arange(len(labels)), held)
    if not len(kept):
        raise argument_error("data.file", "hold examples enough to train and to test", f"{len(labels)}")
    return kept, np.sort(np.array(held))


def _file(given: str, argument: str) -> Path:
    path = checked_path(given, argument).expanduser()
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no file"
        raise argument_error(argument, "be a file of examples", f"{given!r}, which is {what}")
    return path


Part = tuple[np.ndarray, np.ndarray]
"""Inputs (N, ...) of float64, and targets (N,) as they stand in the file."""


def _arrays(section: DataSection, path: Path) -> tuple[Part, Part | None]:
    """Train and test part of an npz file; one part where the names say nothing of two."""
    if section.columns is not None:
        raise argument_error("data.columns", "be left out for 'npz'", section.columns)
    try:
        with np.load(path, allow_pickle=False) as held:
            arrays = {name: held[name] for name in held.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise argument_error("data.file", "be an npz file of plain arrays", f"{str(path)!r} ({error})") from None
    target = section.target
    prefixed = [p for p in ("train_", "x_train") if any(name.startswith(p) for name in arrays)]
    names = {
        "train": ([f"train_{n}" for n in INPUTS] + ["x_train", "X_train"], ["y_train", "Y_train"]),
        "test": ([f"test_{n}" for n in INPUTS] + ["x_test", "X_test"], ["y_test", "Y_test"]),
    }
    found: list[Part] = []
    for part in ("train", "test") if prefixed else ("",):
        inputs, labels = names[part] if part else (list(INPUTS), [])
        labels = [*([f"{part}_{target}", target] if target else []), *labels]
        labels += [f"{part}_{n}" if part else n for n in LABELS] if target is None else []
        x, y = (_first(arrays, wanted, path, what) for wanted, what in ((inputs, "inputs"), (labels, "target")))
        found.append(_checked(x, y, path, section))
    return found[0], found[1] if len(found) == 2 else None


def _first(arrays: dict[str, np.ndarray], wanted: Sequence[str], path: Path, what: str) -> np.ndarray:
    for name in wanted:
        if name in arrays:
            return arrays[name]
    have = ", ".join(sorted(arrays)) or "none"
    must = f"hold an array of {what}, named {' or '.join(dict.fromkeys(wanted))}"
    raise argument_error("data.file", must, f"{str(path)!r} with {have}")


def _checked(x: np.ndarray, y: np.ndarray, path: Path, section: DataSection) -> Part:
    if x.ndim < 2 or x.dtype.kind not in "fiub":
        raise argument_error(
            "data.file", "hold inputs (N, ...) of numbers", f"{x.dtype} {x.shape} in {str(path)!r}"
        )
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.shape != x.shape[:1]:
        raise argument_error("data.target", f"have shape ({len(x)},), a class an example", y.shape)
    if section.layout == "image":
        if x.ndim not in (3, 4):
            must = "be images (N, rows, columns) or (N, channels, rows, columns) for data.layout = 'image'"
            raise argument_error("data.file", must, x.shape)
        x = x[:, None] if x.ndim == 3 else x
        if x.shape[-1] in (1, 3) and x.shape[1] not in (1, 3):
            x = np.moveaxis(x, -1, 1)  # channels last
    whole = x.dtype == np.uint8
    x = x.astype(np.float64)
    if not np.isfinite(x).all():
        row = int(np.argwhere(~np.isfinite(x))[0][0])
        raise argument_error(
            "data.file", "hold finite inputs", f"NaN or infinity in example {row} of {str(path)!r}"
        )
    return x / 255 if whole else x, y


def _columns(section: DataSection, path: Path) -> tuple[Part, Part | None]:
    """All rows of a table: numbers of its features, and the column of the target."""
    if section.layout == "image":
        raise argument_error("data.layout", f"be 'flat' for {section.name!r}", section.layout)
    columns = _read_csv(path) if section.name == "csv" else _read_parquet(path)
    names = list(columns)
    target = section.target if section.target is not None else names[-1]
    if target not in columns:
        raise unknown_name("data.target", target, names)
    features = [n for n in names if n != target] if section.columns is None else list(section.columns)
    for name in features:
        if name not in columns:
            raise unknown_name("data.columns", name, names)
    if not features or target in features:
        must = "name at least one column, and not the target's"
        raise argument_error("data.columns", must, section.columns if features else "none")
    x = np.stack([_numbers(columns[name], name, path) for name in features], 1)
    return (x, np.asarray(columns[target])), None


def _read_csv(path: Path) -> dict[str, list[str]]:
    """Columns by name, as texts. The first line has the names, unless all of it are numbers."""
    text = read_text(path, "data.file", "a CSV file")
    try:
        dialect: Any = csv.Sniffer().sniff(text[:10_000], delimiters=",;\t")
    except csv.Error:
        dialect = csv.excel
    try:
        rows = [row for row in csv.reader(text.splitlines(), dialect) if row]
    except csv.Error as error:
        raise argument_error("data.file", "be a CSV file", f"{str(path)!r} ({error})") from None
    if len(rows) < 3:
        raise argument_error("data.file", "hold a line of names and at least two examples", repr(str(path)))
    names = [name.strip() for name in rows[0]]
    body = rows[1:]
    if all(_is_number(name) for name in names):
        names, body = [f"column {k + 1}" for k in range(len(names))], rows
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise argument_error("data.file", "name each column once", f"{twice!r} twice in {str(path)!r}")
    for k, row in enumerate(body):
        if len(row) != len(names):
            must = f"hold {len(names)} values in each line"
            raise argument_error("data.file", must, f"{len(row)} in example {k + 1} of {str(path)!r}")
    return {name: [row[k].strip() for row in body] for k, name in enumerate(names)}


def _read_parquet(path: Path) -> dict[str, Any]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_table
    except ImportError:
        needs = "needs pyarrow, which is not installed: pip install 'physics-ep[parquet]'"
        raise InputError(f"Data set 'parquet' {needs}.") from None
    try:
        found = read_table(path)
    except (ArrowException, OSError) as error:
        why = " ".join(str(error).split())[:200]
        raise argument_error("data.file", "be a parquet file", f"{str(path)!r} ({why})") from None
    return {name: found.column(name).to_pylist() for name in found.column_names}


def _numbers(values: Sequence[Any], name: str, path: Path) -> np.ndarray:
    """A feature's values; the first that is no finite number is named."""
    try:
        found = np.array(values, dtype=np.float64)
        if np.isfinite(found).all():
            return found
    except (TypeError, ValueError):
        pass
    row = next(k for k, v in enumerate(values) if not _is_number(v))
    what = "nothing" if values[row] in ("", None) else repr(values[row])
    must = (
        f"be finite numbers in each column to learn from; {name!r} is {what} in example {row + 1} of {str(path)!r}"
    )
    raise InputError(f"Values must {must}. Fill it in, leave the line out, or name the others by data.columns.")


def _is_number(value: Any) -> bool:
    try:
        return bool(np.isfinite(float(value)))
    except (TypeError, ValueError, OverflowError):
        return False


MOST_CLASSES = 10_000


def _classes(targets: Sequence[np.ndarray]) -> list[Any]:
    """The classes in rising order: integers, or texts."""
    values: set[Any] = set()
    for part in targets:
        if part.dtype.kind == "f" and not np.array_equal(part, np.round(part)):
            must = "name classes, by integers or texts (targets that are measured numbers are not read from files)"
            raise argument_error("data.target", must, f"numbers such as {float(part[part != np.round(part)][0]):g}")
        values |= set(part.tolist())
    texts = {v for v in values if isinstance(v, str)}
    if "" in values or None in values:
        raise argument_error("data.target", "be given for each example", "nothing in some")
    if texts and all(_is_number(v) for v in texts):
        if any(float(v) != round(float(v)) for v in texts):
            must = "name classes, by integers or texts (targets that are measured numbers are not read from files)"
            raise argument_error("data.target", must, f"numbers such as {next(iter(texts))}")
        ordered = sorted(values, key=float)
    else:
        ordered = sorted(values, key=str if texts else None)
    if not 2 <= len(ordered) <= MOST_CLASSES:
        raise argument_error("data.target", f"name 2 to {MOST_CLASSES} classes", len(ordered))
    return ordered


def _indices(targets: np.ndarray, classes: Sequence[Any], path: Path) -> np.ndarray:
    place = {value: k for k, value in enumerate(classes)}
    return np.array([place[value] for value in targets.tolist()], dtype=np.int64)


def _scaling(section: DataSection, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is taken off each feature, and what it is divided by; both from the examples to train on."""
    kind = section.scaling or ("none" if section.name == "npz" else "standard")
    if kind == "none":
        return np.zeros(()), np.ones(())
    if kind == "standard":
        shift, scale = x.mean(0), x.std(0)
    else:
        shift, scale = x.min(0), x.max(0) - x.min(0)
    return shift, np.where(scale > 0, scale, 1.0)
