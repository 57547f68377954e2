"""Opening a run: a whole run file, or the parts of one that is not complete yet."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import argument_error
from .parts import parts_folder, read_parts
from .run_file import Run, read_run


def open_run(path: str | os.PathLike[str]) -> Run:
    """Read a run file, or the parts of one that is not complete yet (`physics_ep.storage.parts`).

    Parameters
    ----------
    path : path

    Returns
    -------
    Run

    Raises
    ------
    InputError
        If there is no such file, it is damaged, or another program wrote it.
    """
    path = Path(path)
    if path.is_file():
        return read_run(path)
    if parts_folder(path).is_dir():
        return read_parts(path)
    raise argument_error("path", "be a run file", f"{str(path)!r}, which is no file")
