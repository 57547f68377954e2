"""Your own examples from one file: 'npz' (arrays), 'csv' and 'parquet' (a row an example, a column a feature).

    [data]
    name = "csv"
    file = "flowers.csv"
    target = "species"

The target is a column of classes, or of measured numbers (`targets`); a list of columns is measured. Where the file
holds no test part, a share of the examples (of each class) is held back, drawn once by `data.seed`.
"""

from __future__ import annotations

import csv
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, argument_error, unknown_name
from ..storage.files import checked_path
from ..storage.outputs import note
from ..storage.texts import read_text
from .held_out import limited, parted
from .targets import as_targets, is_number, split

if TYPE_CHECKING:
    from ..config import DataSection

INPUTS = ("x", "X", "inputs", "features", "images", "data")
LABELS = ("y", "Y", "labels", "targets", "target")
"""Names that arrays of an npz file may have; with 'train_' and 'test_' before them where it holds both parts."""


NAMELESS = r"|Unnamed: \d+"
"""What columns without a name are called: nothing, or as pandas does. They are mostly the index of a data frame."""

Part = tuple[np.ndarray, np.ndarray]
"""Inputs (N, ...) of float64, and targets (N,) or (N, n) as they stand in the file."""


MOST_NAMES = 8
"""Names of columns that a line tells; of more it tells the first and the last ones."""


@dataclass(frozen=True)
class ColumnsTaken:
    """The columns of a table that a system learns from, and those that it learns.

    Attributes
    ----------
    features, targets : tuple of str
        Names as the file has them, in the order of the inputs and outputs.
    columns : int
        How many columns the file has.
    file : str
        The file's name.
    chosen : bool
        Whether `data.columns` has named the features; else they are all columns but the targets.
    """

    features: tuple[str, ...]
    targets: tuple[str, ...]
    columns: int
    file: str
    chosen: bool

    def words(self) -> str:
        """One line that names features and targets, of many the first and the last ones."""
        what = "" if self.chosen else "; data.columns chooses others"
        of = f"{len(self.features)} of the {self.columns} columns of {self.file}{what}"
        noun = "target" if len(self.targets) == 1 else "targets"
        return f"features: {_listed(self.features)} ({of}); {noun}: {_listed(self.targets)}"


def _listed(names: Sequence[str]) -> str:
    """Names between commas, of many the first and the last ones."""
    shown = [repr(name) if "," in name else name for name in names]
    if len(shown) > MOST_NAMES:
        shown[MOST_NAMES - 3 : -2] = ["..."]
    return ", ".join(shown)


@dataclass(frozen=True)
class Table:
    """Examples of a table file or of arrays, features in float32.

    Attributes
    ----------
    train_x, test_x : ndarray (N, ...) of float32
    train_y, test_y : ndarray
        Class indices (N,) of int64, or measured targets (N, n) of float32, scaled.
    classes : tuple of str or None
        Names of the classes as the file has them, in the order of their indices; None: targets are measured.
    targets : tuple of str or None
        Names of the measured targets.
    target_shift, target_scale : tuple of float or None
        A measured target is shift + scale * y, in the file's unit.
    taken : ColumnsTaken or None
        Which columns of the file these are; None of arrays.
    """

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    classes: tuple[str, ...] | None = None
    targets: tuple[str, ...] | None = None
    target_shift: tuple[float, ...] | None = None
    target_scale: tuple[float, ...] | None = None
    taken: ColumnsTaken | None = None


def read_table_file(section: DataSection) -> Table:
    """Read the examples of `section.file`.

    Parameters
    ----------
    section : DataSection
        `file`; `target`, the columns or arrays of the targets, and `task`, what they are; `columns`, the columns to
        learn from; `scaling` and `target_scaling`; `test_fraction` and `seed` of the part that is held back;
        `test_file`, a second file with it.

    Returns
    -------
    Table

    Raises
    ------
    InputError
        If there is no such file or column, a value is missing, is no number, or is not finite, or targets are
        neither classes nor numbers.
    """
    if section.file is None:
        raise argument_error("data.file", f"be given for data.name = {section.name!r}", "left out")
    path = _file(section.file, "data.file")
    test_path = None if section.test_file is None else _file(section.test_file, "data.test_file")
    test: Part | None
    taken = None
    if section.name == "npz":
        train, test, names = _arrays(section, path)
        if test_path is not None and test is not None:
            must = "be left out where the file holds a test part"
            raise argument_error("data.test_file", must, section.test_file)
        test = test if test_path is None else _arrays(section, test_path)[0]
    else:
        columns = _read_columns(section, path)
        features, names = _chosen(section, columns, path)
        train = _part(columns, features, names, path)
        chosen = section.columns is not None
        taken = ColumnsTaken(tuple(features), tuple(names), len(columns), path.name, chosen)
        test = None
        if test_path is not None:
            beside = _read_columns(section, test_path)
            absent = next((name for name in (*features, *names) if name not in beside), None)
            if absent is not None:
                must = f"have the columns of data.file ({', '.join([*features, *names])})"
                raise argument_error("data.test_file", must, f"without {absent!r}")
            test = _part(beside, features, names, test_path)
    return replace(made_table(section, train, test, names), taken=taken)


def made_table(section: DataSection, train: Part, test: Part | None, names: Sequence[str] = ()) -> Table:
    """Make a table of a part to train on and one to test on, or hold a share of the first one back.

    Parameters
    ----------
    section : DataSection
        `task`, `scaling`, `target_scaling`, `test_fraction` and `seed`.
    train, test : (inputs (N, ...), targets)
    names : sequence of str
        Names of the targets, where there are as many.

    Raises
    ------
    InputError
        As `read_table_file`.
    """
    found = as_targets(section, [train[1]] if test is None else [train[1], test[1]])
    if test is None:
        y = found.parts[0]
        groups = y if found.classes is not None else np.zeros(len(y), np.int64)
        kept, held = split(groups, section.test_fraction, section.seed)
        parts = [(train[0][kept], y[kept]), (train[0][held], y[held])]
    else:
        if test[0].shape[1:] != train[0].shape[1:]:
            must = f"have examples of shape {train[0].shape[1:]}"
            raise argument_error("data.test_file", must, f"some of shape {test[0].shape[1:]}")
        if found.parts[1].shape[1:] != found.parts[0].shape[1:]:
            must = f"have {found.parts[0].shape[1]} targets an example"
            raise argument_error("data.test_file", must, found.parts[1].shape[1])
        parts = [(train[0], found.parts[0]), (test[0], found.parts[1])]
    (train_x, train_y), (test_x, test_y) = parts
    tabular = section.name in ("csv", "parquet")
    taken = limited(train_y, section.train_examples, section.seed)
    fitted = taken[parted(train_y[taken], section)[0]]
    shift, scale = _scaling(section.scaling or ("standard" if tabular else "none"), train_x[fitted])
    train_x, test_x = (((x - shift) / scale).astype(np.float32) for x in (train_x, test_x))
    if found.classes is not None:
        if section.target_scaling not in (None, "none"):
            must = "be left out where targets are classes"
            raise argument_error("data.target_scaling", must, repr(section.target_scaling))
        return Table(train_x, train_y, test_x, test_y, found.classes)
    if len(train_y) > 1 and (train_y == train_y[:1]).all():
        was = f"{', '.join(f'{v:g}' for v in np.ravel(train_y[0])[:5])} in all of them"
        raise argument_error("data.target", "differ from example to example", was)
    shift, scale = _scaling(section.target_scaling or ("range" if tabular else "none"), train_y[fitted])
    train_y, test_y = (((y - shift) / scale).astype(np.float32) for y in (train_y, test_y))
    n = train_y.shape[1]
    named = names if len(names) == n else [f"target {k + 1}" for k in range(n)]
    return Table(train_x, train_y, test_x, test_y, None, tuple(named), tuple(shift.tolist()), tuple(scale.tolist()))


def _file(given: str, argument: str) -> Path:
    path = checked_path(given, argument).expanduser()
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no file"
        raise argument_error(argument, "be a file of examples", f"{given!r}, which is {what}")
    return path


def _arrays(section: DataSection, path: Path) -> tuple[Part, Part | None, Sequence[str]]:
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
        x = _first(arrays, inputs, path, "inputs")
        if target is None:
            usual = [*labels, *(f"{part}_{n}" if part else n for n in LABELS)]
            y = _first(arrays, usual, path, "target")
        else:
            wanted = [target] if isinstance(target, str) else target
            y = _beside([_first(arrays, [f"{part}_{n}", n] if part else [n], path, "target") for n in wanted])
        found.append(checked_part(x, y, path, section))
    return found[0], found[1] if len(found) == 2 else None, [target] if isinstance(target, str) else target or ()


def _first(arrays: dict[str, np.ndarray], wanted: Sequence[str], path: Path, what: str) -> np.ndarray:
    for name in wanted:
        if name in arrays:
            return arrays[name]
    have = ", ".join(sorted(arrays)) or "none"
    must = f"hold an array of {what}, named {' or '.join(dict.fromkeys(wanted))}"
    raise argument_error("data.file", must, f"{str(path)!r} with {have}")


def _beside(columns: list[np.ndarray]) -> np.ndarray:
    """Arrays of targets side by side; one alone is as it is."""
    if len(columns) == 1:
        return columns[0]
    if any(c.ndim not in (1, 2) or len(c) != len(columns[0]) for c in columns):
        shapes = ", ".join(str(c.shape) for c in columns)
        raise argument_error("data.target", "name arrays (N,) or (N, n) of equally many examples", shapes)
    return np.concatenate([c[:, None] if c.ndim == 1 else c for c in columns], 1)


def checked_part(
    x: np.ndarray, y: np.ndarray, path: Path | str, section: DataSection, name: str = "data.file"
) -> Part:
    """Inputs as numbers (N, ...) of float64, images channels first, bytes in [0, 1]; targets as they are.

    Parameters
    ----------
    x, y : ndarray
    path : path
        What messages call them.
    section : DataSection
        Its `layout` tells whether inputs are images.
    name : str
        The argument that the inputs came by.

    Raises
    ------
    InputError
        If the shapes do not fit, or inputs are not finite.
    """
    if x.ndim < 2 or x.dtype.kind not in "fiub":
        raise argument_error(name, "hold inputs (N, ...) of numbers", f"{x.dtype} {x.shape} in {str(path)!r}")
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim not in (1, 2) or len(y) != len(x) or not y.size:
        must = f"have shape ({len(x)},), or ({len(x)}, n) where n numbers an example are measured"
        raise argument_error("data.target", must, y.shape)
    if section.layout == "image":
        if x.ndim not in (3, 4):
            must = "be images (N, rows, columns) or (N, channels, rows, columns) for data.layout = 'image'"
            raise argument_error(name, must, x.shape)
        x = x[:, None] if x.ndim == 3 else x
        if x.shape[-1] in (1, 3) and x.shape[1] not in (1, 3):
            x = np.moveaxis(x, -1, 1)  # channels last
    whole = x.dtype == np.uint8
    x = x.astype(np.float64)
    if not np.isfinite(x).all():
        row = int(np.argwhere(~np.isfinite(x))[0][0])
        raise argument_error(name, "hold finite inputs", f"NaN or infinity in example {row} of {str(path)!r}")
    return x / 255 if whole else x, y


def _read_columns(section: DataSection, path: Path) -> dict[str, Any]:
    """Columns of a table by name."""
    if section.layout == "image":
        raise argument_error("data.layout", f"be 'flat' for {section.name!r}", section.layout)
    if section.name == "csv":
        return _read_csv(path)
    asked = [section.target] if isinstance(section.target, str) else section.target or []
    return _read_parquet(path, {*asked, *(section.columns or [])})


def _chosen(section: DataSection, columns: dict[str, Any], path: Path) -> tuple[list[str], list[str]]:
    """Names of the columns to learn from, and of the targets."""
    names = list(columns)
    nameless = next((k for k, name in enumerate(names) if re.fullmatch(NAMELESS, name)), None)
    if nameless is not None and None in (section.columns, section.target):
        must = "have a name for each column, or come with data.columns and data.target: an index is no feature"
        raise argument_error("data.file", must, f"{str(path)!r}, whose column {nameless + 1} has none")
    target = section.target if section.target is not None else names[-1]
    targets = [target] if isinstance(target, str) else target
    for name in targets:
        if name not in columns:
            raise unknown_name("data.target", name, names)
    features = [n for n in names if n not in targets] if section.columns is None else list(section.columns)
    for name in features:
        if name not in columns:
            raise unknown_name("data.columns", name, names)
    if not features or set(targets) & set(features):
        must = "name at least one column, and not the target's"
        raise argument_error("data.columns", must, section.columns if features else "none")
    return features, targets


def _part(columns: dict[str, Any], features: Sequence[str], targets: Sequence[str], path: Path) -> Part:
    """Numbers of the features, and the columns of the targets as they are."""
    x = np.stack([_numbers(columns[name], name, path) for name in features], 1)
    y = [_column(columns[name]) for name in targets]
    return x, y[0] if len(y) == 1 else np.stack(y, 1)


def _column(values: Sequence[Any]) -> np.ndarray:
    """A column as it stands: numbers stay numbers, and what is missing stays missing."""
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return found


def _read_csv(path: Path) -> dict[str, list[str]]:
    """Columns by name, as texts. The first line has the names, unless all of it are numbers that do not count on
    (0, 1, 2, ..., which data frames without names are written with)."""
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
    if len(names) < 2:
        must = "hold two columns or more, between commas, semicolons or tabs"
        raise argument_error("data.file", must, f"{str(path)!r}, which begins with {rows[0][0]!r}")
    if _counts_on(names):
        note(f"{str(path)!r}: its first line, {', '.join(names[:5])}, is taken for names of columns.")
    elif all(is_number(name) for name in names):
        names, body = [f"column {k + 1}" for k in range(len(names))], rows
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise argument_error("data.file", "name each column once", f"{twice!r} twice in {str(path)!r}")
    for k, row in enumerate(body):
        if len(row) != len(names):
            must = f"hold {len(names)} values in each line"
            raise argument_error("data.file", must, f"{len(row)} in example {k + 1} of {str(path)!r}")
    return {name: [row[k].strip() for row in body] for k, name in enumerate(names)}


def _counts_on(names: Sequence[str]) -> bool:
    """Whether a first line counts on by one, from 0 or 1, or in three columns or more (years): numbers that are
    names of columns, and as an example would bring a class or a target of their own."""
    numbers = [int(name) if name.isdecimal() else -1 for name in names]
    return numbers == list(range(numbers[0], numbers[0] + len(names))) and (numbers[0] in (0, 1) or len(names) > 2)


def _read_parquet(path: Path, asked: set[str]) -> dict[str, Any]:
    """Columns by name; the index of a data frame is none, unless it is asked for by its name."""
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
    told = found.schema.pandas_metadata or {}
    index = {name for name in told.get("index_columns", ()) if isinstance(name, str)} - asked
    return {name: found.column(name).to_pylist() for name in found.column_names if name not in index}


def _numbers(values: Sequence[Any], name: str, path: Path) -> np.ndarray:
    """A feature's values; the first that is no finite number is named."""
    try:
        found = np.array(values, dtype=np.float64)
        if np.isfinite(found).all():
            return found
    except (TypeError, ValueError):
        pass
    row = next(k for k, v in enumerate(values) if not is_number(v))
    what = "nothing" if values[row] in ("", None) else repr(values[row])
    must = (
        f"be finite numbers in each column to learn from; {name!r} is {what} in example {row + 1} of {str(path)!r}"
    )
    raise InputError(f"Values must {must}. Fill it in, leave the line out, or name the others by data.columns.")


def _scaling(kind: str, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is taken off each column, and what it is divided by; x are examples to train on, none held out."""
    if kind == "none":
        return np.zeros(x.shape[1:]), np.ones(x.shape[1:])
    low, spread = x.min(0), x.max(0) - x.min(0)
    shift, scale = (x.mean(0), x.std(0)) if kind == "standard" else (low, spread)
    # What rounding makes of the mean of a constant column is no deviation.
    return np.where(spread > 0, shift, low), np.where((spread > 0) & (scale > 0), scale, 1.0)
