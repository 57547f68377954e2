"""Writing files so that a kill at any moment leaves the old one or the new one, never half of one."""

from __future__ import annotations

import errno
import hashlib
import math
import os
import platform
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import InputError, argument_error
from ..processes import runs


def check_output(path: str | os.PathLike[str], argument: str) -> Path:
    """Make sure, before work starts, that a file can be written here.

    Parameters
    ----------
    path : path
        File to be written; its folder need not exist yet. Links are followed.
    argument : str
        What the user calls it.

    Returns
    -------
    Path

    Raises
    ------
    InputError
        If it is no path, a folder, a device or a pipe, is read-only, or its folder can be neither made nor written
        to. Nothing is left behind.
    """
    path = checked_path(path, argument)
    if ".." in path.parts:
        path = Path(os.path.abspath(path))  # else a folder that is left again at once would be made
    place = Path(os.path.realpath(path))
    folder = place.parent
    try:
        if place.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if place.is_dir():
            raise argument_error(argument, "be a file", f"the folder {str(path)!r}")
        blocked = next((parent for parent in place.parents if parent.is_file()), None)
        if blocked is not None:
            raise argument_error(argument, "lie in a folder", f"{str(path)!r}, where {str(blocked)!r} is a file")
        if place.exists() or path.exists():
            mode = path.stat().st_mode
            if not stat.S_ISREG(mode):
                raise argument_error(argument, "be a file", f"{str(path)!r}, a device or a pipe")
            _require_writable(mode, place, path, argument)
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        _require_writable(folder.stat().st_mode, folder, path, argument)
        # Permission bits do not tell all (read-only mounts, root, quotas): try.
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".physics-ep-"):
            pass
    except OSError as error:
        was = f"{str(path)!r} ({error.strerror})"
        raise argument_error(argument, "be a file that can be written", was) from error
    return path


def checked_path(path: Any, argument: str) -> Path:
    """The path that a user gives, or an InputError where it cannot be one.

    Raises
    ------
    InputError
        If it is no text and no path (a number would be taken for an open file), is empty, has a NUL in it, is too
        long for any file's name, or leads from link to link for ever.
    """
    if not isinstance(path, str | os.PathLike):
        raise argument_error(argument, "be a path", repr(path))
    text = os.fspath(path)
    if not isinstance(text, str) or not text or "\0" in text:
        raise argument_error(argument, "be a path", repr(text))
    try:
        os.stat(text)
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            was = repr(text if len(text) <= 200 else f"{text[:200]}...")
            raise argument_error(argument, "be the path of a file", f"{was} ({error.strerror})") from None
    except ValueError:  # half of a character
        raise argument_error(argument, "be a path", repr(text)) from None
    return Path(path)


def _require_writable(mode: int, place: Path, path: Path, argument: str) -> None:
    """Nobody writes where all have renounced to, though a folder's owner, or root, could."""
    if not mode & 0o222:
        must = f"be a file that can be written, but {str(place)!r} is read-only"
        raise InputError(f"Argument {argument} must {must} (it was {str(path)!r}).")


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary file in the same folder, which takes the place of `path` when the block ends well.

    Its bytes reach the disk before its name does, and the folder is synced, so that neither a kill nor a power cut
    leaves a torn file. If the block raises, `path` is as it was.
    """
    path = Path(os.path.realpath(path))  # a link stays one: what it leads to is replaced
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{_ours(path)}{os.getpid()}-", suffix=".part")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, _mode(path))  # mkstemp makes it private
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def _ours(path: Path) -> str:
    """How names of temporary files for `path` begin that processes of this machine make; their number follows."""
    machine = hashlib.sha256(platform.node().encode()).hexdigest()[:6]
    return f".{path.name}-{machine}-"


def _sweep(path: Path) -> None:
    """Remove temporary files for `path` whose process on this machine has ended: a kill has left them."""
    begin = _ours(path)
    with suppress(OSError):
        for entry in os.scandir(path.parent):
            if entry.name.startswith(begin) and entry.name.endswith(".part"):
                number = entry.name[len(begin) :].partition("-")[0]
                if number.isdecimal() and not runs(int(number)):
                    with suppress(OSError):
                        os.unlink(entry.path)


def plain(value: Any) -> Any:
    """Nested values in the form that JSON can hold: arrays become lists, paths text, NaN and infinities null."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    # Arrays and numpy or torch scalars, without importing either.
    return plain(value.tolist()) if hasattr(value, "tolist") else value


def _mode(path: Path) -> int:
    """Who may read and write a file: as before, or as any other new one."""
    with suppress(OSError):
        return stat.S_IMODE(path.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # some file systems cannot sync a folder; the rename itself is still atomic
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
