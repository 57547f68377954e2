"""Opening a run: a whole run file, or the parts of one that is not complete yet."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import InputError, argument_error
from .files import checked_path
from .parts import parts_folder, read_parts
from .run_file import Run, read_run


def open_run(path: str | os.PathLike[str], verify: bool = True) -> Run:
    """Read a run file, or the parts of one that is not complete yet (`physics_ep.storage.parts`).

    Parameters
    ----------
    path : path
    verify : bool
        Compare each file with its digest before anything in it is parsed: one pass over its bytes. Without, damage
        may go unseen, as in files from before, which have no digest (a note says so).

    Returns
    -------
    Run

    Raises
    ------
    InputError
        If there is no such file, it is damaged, or another program wrote it.
    """
    path = checked_path(path, "path")
    if path.is_file():
        return read_run(path, verify)
    if parts_folder(path).is_dir():
        return read_parts(path, verify)
    raise no_run_file(path)


def run_files(path: str | os.PathLike[str]) -> list[Path]:
    """List the files that `open_run` reads for a path.

    They are the run file itself, or, where there is none yet, the parts of a run that is not complete, sorted by
    name.

    Raises
    ------
    InputError
        If there is neither a run file nor a folder of parts.
    """
    path = checked_path(path, "path")
    if path.is_file():
        return [path]
    if parts_folder(path).is_dir():
        return sorted(parts_folder(path).glob("*.h5"))
    raise no_run_file(path)


def no_run_file(path: Path) -> InputError:
    """The error of a path where no run file lies."""
    return argument_error("path", "be a run file", f"{str(path)!r}, which is no file")
