"""Text that people write, such as TOML, JSON and netlists: read whole, or refused in one line.

Parsers end in many ways where text is hostile: nested too deeply, with numbers of thousands of digits, in another
encoding, or without an end, as a device is. Here each of these is an InputError.
"""

from __future__ import annotations

import json
import os
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError, argument_error
from .files import checked_path
from .outputs import reading

LARGEST = 2**28
"""Bytes of the largest text file that is read; what is larger was named by mistake."""
DEEPEST = 50
"""Tables and lists within one another that a config may have; it needs some five."""
INTEGERS = range(-(2**63), 2**63)
"""TOML's integers, and those that tensors hold."""


def read_text(path: str | os.PathLike[str], argument: str, what: str = "a text file") -> str:
    """Read a text file in UTF-8, with or without a byte order mark.

    Parameters
    ----------
    path : path
    argument : str
        What the user calls it.
    what : str
        What it must be.

    Raises
    ------
    InputError
        If it is no path, no regular file, too large or no text, cannot be read, or the same command writes it.
    """
    path = checked_path(path, argument)
    reading(argument, path)
    try:
        require_regular(path)
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        why = "no text in UTF-8"
    except OSError as error:
        why = error.strerror or str(error)
    raise argument_error(argument, f"be {what} that can be read", f"{str(path)!r} ({why})")


def require_regular(path: Path) -> None:
    """Raise OSError unless a path leads to a regular file of at most `LARGEST` bytes: a device may have no end."""
    told = path.stat()
    if not stat.S_ISREG(told.st_mode):
        raise OSError("Is a directory" if stat.S_ISDIR(told.st_mode) else "no regular file")
    if told.st_size > LARGEST:
        raise OSError(f"{told.st_size} bytes")


def parse_toml(text: str) -> dict[str, Any]:
    """Parse TOML; ValueError, in one line, where it is not valid or hostile."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except tomllib.TOMLDecodeError:
        raise
    except ValueError:
        raise ValueError("a number has too many digits") from None


def parse_json(text: str) -> Any:
    """Parse JSON; ValueError, in one line, where it is not valid or hostile, or an object has a key twice."""
    try:
        found = json.loads(text, object_pairs_hook=_unique)
        json.dumps(found, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except UnicodeEncodeError:
        raise ValueError("half of a character in a text") from None
    except (json.JSONDecodeError, _TwiceError):
        raise
    except ValueError:
        raise ValueError("a number has too many digits") from None
    return found


def require_plain(table: Mapping[Any, Any]) -> None:
    """Make sure that nested tables of a config are of a depth and of integers that all that reads them can take.

    Raises
    ------
    InputError
        With the place of what is not.
    """
    waiting: list[tuple[str, Any, int]] = [("", table, 0)]
    while waiting:
        where, value, depth = waiting.pop()
        if depth > DEEPEST:
            raise InputError(f"Argument {where[:40]}... must not be nested deeper than {DEEPEST} times.")
        if isinstance(value, Mapping):
            waiting += [(f"{where}.{key}" if where else str(key), v, depth + 1) for key, v in value.items()]
        elif isinstance(value, list | tuple):
            waiting += [(where, v, depth + 1) for v in value]
        elif isinstance(value, int) and value not in INTEGERS:
            raise argument_error(where, "be an integer of 64 bits", f"one of {value.bit_length()} bits")


def set_entry(table: dict[str, Any], override: str) -> None:
    """Set one 'section.key=value' in a table of sections; a key may hold dots in quotes, as in TOML.

    Raises
    ------
    InputError
        If the override has another form.
    """
    key, sign, text = override.partition("=")
    shape = argument_error("set", "have the form section.key=value", shortened(override))
    if not sign or "\n" in override:
        raise shape
    try:
        path = parse_toml(f"{key} = 0")
    except ValueError:
        raise shape from None
    try:
        value = parse_toml(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    except ValueError as error:
        raise argument_error(key.strip(), "have a value that can be read", error) from None
    if not isinstance(next(iter(path.values())), dict):
        raise shape
    while True:
        name, path = next(iter(path.items()))
        if not isinstance(path, dict):
            table[name] = value
            return
        if not isinstance(table.get(name), dict):
            table[name] = {}
        table = table[name]


def shortened(value: Any) -> str:
    """A value as messages show it."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


class _TwiceError(ValueError):
    """A JSON object has a key twice, of which parsers take the last one silently."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _TwiceError(f"the key {twice[:40]!r} is there twice")
    return found


def beside(table: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Sections of a file, whose tables of examples lie beside it, or else where the command runs."""
    data = table.get("data")
    for key in ("file", "test_file"):
        named = data.get(key) if isinstance(data, dict) else None
        if isinstance(named, str) and not Path(named).expanduser().is_absolute() and (folder / named).is_file():
            table["data"][key] = str(folder / named)
    return table
