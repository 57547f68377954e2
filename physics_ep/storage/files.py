"""Writing files so that a kill at any moment leaves the old one or the new one, never half of one."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import InputError, argument_error


def check_output(path: str | os.PathLike[str], argument: str) -> Path:
    """Make sure, before work starts, that a file can be written here.

    Parameters
    ----------
    path : path
        File to be written; its folder need not exist yet.
    argument : str
        What the user calls it.

    Returns
    -------
    Path

    Raises
    ------
    InputError
        If it is a folder, or its folder can be neither made nor written to. Nothing is left behind.
    """
    path = Path(path)
    if ".." in path.parts:
        path = Path(os.path.abspath(path))  # else a folder that is left again at once would be made
    if path.is_dir():
        raise argument_error(argument, "be a file", f"the folder {str(path)!r}")
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        # Permission bits do not tell all (read-only mounts, root, quotas): try.
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".physics-ep-"):
            pass
    except OSError as error:
        was = f"{str(path)!r} ({error.strerror})"
        raise argument_error(argument, "be a file that can be written", was) from error
    return path


@contextmanager
def replacing(path: str | os.PathLike[str], size: int = 0) -> Iterator[Path]:
    """Give a temporary file in the same folder, which takes the place of `path` when the block ends well.

    Its bytes reach the disk before its name does, and the folder is synced, so that neither a kill nor a power cut
    leaves a torn file. If the block raises, `path` is as it was.

    Parameters
    ----------
    path : path
    size : int
        Bytes that the disk must be able to take, else OSError. HDF5 does not survive a disk that fills up while it
        writes: objects that it could not close crash the process when they are collected.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-", suffix=".part")
    os.close(handle)
    temporary = Path(name)
    try:
        if size and hasattr(os, "posix_fallocate"):
            with open(temporary, "rb+") as file:
                os.posix_fallocate(file.fileno(), 0, size)
                file.truncate(0)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)  # mkstemp makes it private; the file is as public as any other
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def write_json(path: str | os.PathLike[str], figures: dict[str, Any]) -> None:
    """Write figures as JSON, atomically; NaN and infinities become null, which JSON has no other word for."""
    text = json.dumps(_plain(figures), indent=2, allow_nan=False) + "\n"
    try:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"Cannot write {str(path)!r}: {error.strerror or error}.") from error


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    # Arrays and numpy or torch scalars, without importing either.
    return _plain(value.tolist()) if hasattr(value, "tolist") else value


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # some file systems cannot sync a folder; the rename itself is still atomic
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
