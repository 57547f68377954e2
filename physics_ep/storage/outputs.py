"""The guard of all files that are written: nothing is lost that the same call does not make anew.

Every command, and every call that writes, does so within `writing`, which knows what the call reads (`reading`) and
which files it will write (`claim`). A file is written only if

* it is none that the call reads, and none that it writes under another name: by its inode, so that links of both
  kinds and other spellings of a path are seen through;
* it is a regular file or none yet, and neither it nor its folder is read-only;
* it is new, or the same command wrote it before (`origins`), or the caller says `overwrite`. Weights of a training
  and what else cannot be made anew in passing are `precious`: those only `overwrite` replaces;
* no other process writes it: its lock (`locks`) is held until the call ends.

All is told before work starts, and a refused call leaves everything as it was. Calls nest: a function within a
command writes in the command's name, and what the command has claimed for it need not be claimed again.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from ..errors import InputError, argument_error
from .files import check_output, checked_path, plain, replacing
from .locks import Lock
from .origins import FileOrigin, origin_of

PROGRAM = "physics-ep"

PRECIOUS = frozenset({"training", "tolerance sweep", "in-situ training"})
"""Kinds of run files that took long to make, and that no command replaces unasked."""

FilePath = str | os.PathLike[str]


class OutputWarning(UserWarning):
    """Warns of something about files that a user should know and that does no harm."""


class Call:
    """The files that one command or call reads and writes; made by `writing`.

    Parameters
    ----------
    command : str
        'physics-ep NAME' or 'package.function'.
    overwrite : bool
    outer : Call or None
        The one within which this one runs.
    """

    def __init__(self, command: str, overwrite: bool, outer: Call | None) -> None:
        self.command: str = command if outer is None else outer.command
        self.overwrite: bool = overwrite or (outer is not None and outer.overwrite)
        self.outer = outer
        self.inputs: list[tuple[str, Path]] = []
        self.outputs: list[tuple[str, Path]] = []
        self.own: list[tuple[str, Path]] = []
        self.locks: dict[Path, Lock] = {}
        self._told: set[str] = set()

    @property
    def is_command(self) -> bool:
        """Whether this is a command, whose user writes options, and no call from Python."""
        return self.command.startswith(PROGRAM)

    def reading(self, name: str, path: FilePath) -> None:
        """Say that the call reads a file or a folder; InputError if it is one that it writes."""
        place = _location(checked_path(path, name))
        for output, claimed in (*self.outputs, *self._outer_outputs()):
            if _same(place, claimed):
                raise _both(output, claimed, name)
        self.inputs.append((name, place))

    def claim(
        self,
        name: str,
        path: FilePath,
        *,
        precious: bool = True,
        goes_on: FilePath | None = None,
        own: bool = False,
        judge: bool = True,
        lock: bool = True,
    ) -> Path:
        """Make sure that a file may be written, and keep others from it until the call ends.

        Parameters
        ----------
        name : str
            What the user calls it.
        path : path
        precious : bool
            Not even the same command replaces a training or a sweep (`PRECIOUS`) without `overwrite`.
        goes_on : path, optional
            The file that the call reads in order to go on with it, and may therefore replace.
        own : bool
            The call itself writes it, no call within.
        judge : bool
            False: the caller itself refuses what is there, unless it goes on with it.
        lock : bool
            False: another process of the same run holds the lock.

        Returns
        -------
        Path

        Raises
        ------
        InputError
            If the call reads or writes that file already, it may not be replaced, or another process holds it.
        """
        path = check_output(path, name)
        place = _location(path)
        if (name, place) in self.outputs:
            return path
        for chain in self._chain():
            for output, claimed in chain.own if chain is not self else chain.outputs:
                if _same(place, claimed):
                    raise argument_error(name, f"be another file than {output}", repr(str(path)))
        if not (goes_on is not None and _same(place, _location(goes_on))):
            if not any(_same(place, claimed) for _, claimed in self._outer_outputs()):
                self._require_no_input(name, path, place)
                if judge and place.exists():
                    self._require_replaceable(name, path, place, precious)
            else:
                lock = False
        self.outputs.append((name, place))
        if own:
            self.own.append((name, place))
        if lock and not any(place in chain.locks for chain in self._chain()):
            self._lock(name, path, place)
        return path

    def close(self) -> None:
        """Give back all locks that the call holds on its output files."""
        for lock in reversed(self.locks.values()):
            lock.release()
        self.locks = {}

    def note(self, text: str) -> None:
        """Tell the user, once a call: a command on the standard error, a Python call by a warning."""
        if text in self._told:
            return
        self._told.add(text)
        if self.is_command:
            print(f"{PROGRAM}: note: {text}", file=sys.stderr)
        else:
            warnings.warn(text, OutputWarning, stacklevel=4)

    def _chain(self) -> Iterator[Call]:
        call: Call | None = self
        while call is not None:
            yield call
            call = call.outer

    def _outer_outputs(self) -> list[tuple[str, Path]]:
        return [] if self.outer is None else [entry for call in self.outer._chain() for entry in call.outputs]

    def _require_no_input(self, name: str, path: Path, place: Path) -> None:
        for chain in self._chain():
            for source, read in chain.inputs:
                if _same(place, read):
                    raise _both(name, path, source)
                if place.exists() and _origin(place) is None and read.is_dir() and read in place.parents:
                    must = f"be no file of the folder that {source} reads"
                    raise argument_error(name, must, repr(str(path)))

    def _require_replaceable(self, name: str, path: Path, place: Path, precious: bool) -> None:
        if not self.overwrite and not self._wrote(place, precious):
            origin = _origin(place)
            hint = "--overwrite" if self.is_command else "overwrite=True"
            was = "holds something else" if origin is None else f"{origin.command} wrote"
            raise argument_error(
                name, f"be a new file ({hint} replaces what is there)", f"{str(path)!r}, which {was}"
            )

    def _wrote(self, place: Path, precious: bool) -> bool:
        """Whether this command wrote a file, and may do so again."""
        origin = _origin(place)
        if origin is None or origin.command != self.command:
            return False
        return not (precious and origin.kind in PRECIOUS)

    def _lock(self, name: str, path: Path, place: Path) -> None:
        lock = Lock(place)
        try:
            lock.acquire()
        except OSError as error:
            was = f"{str(path)!r} ({error.strerror or error})"
            raise argument_error(name, "be a file that can be written", was) from error
        self.locks[place] = lock
        if lock.lost_by:
            self.note(f"{lock.lost_by} ended without giving its files free, which are taken over.")


_CALL: ContextVar[Call | None] = ContextVar("call", default=None)


@contextmanager
def writing(
    command: str, *, overwrite: bool = False, inputs: Mapping[str, FilePath | None] | None = None
) -> Iterator[Call]:
    """Begin a command or call that writes files; its locks are given back at the end.

    Parameters
    ----------
    command : str
        'physics-ep NAME' or 'package.function'; within another call that one's counts.
    overwrite : bool
        Replace whatever is there, but for what the call reads.
    inputs : mapping, optional
        What it reads: name to path, or to None.
    """
    call = Call(command, overwrite, _CALL.get())
    token = _CALL.set(call)
    try:
        for name, path in (inputs or {}).items():
            if path is not None:
                call.reading(name, path)
        yield call
    finally:
        _CALL.reset(token)
        call.close()


def reading(name: str, path: FilePath) -> None:
    """Say that the command or call that runs, if any does, reads a file; InputError if it is one that it writes."""
    call = _CALL.get()
    if call is not None:
        call.reading(name, path)


def as_asked(option: str, argument: str) -> str:
    """Choose the words for a message: the option of a command, or the argument of a call from Python."""
    call = _CALL.get()
    return option if call is not None and call.is_command else argument


def claim(name: str, path: FilePath, **options: Any) -> Path:
    """Claim a file for the call that runs (`Call.claim`); outside of one, judge it and keep no lock."""
    call = _CALL.get()
    if call is not None:
        return call.claim(name, path, **options)
    with writing(PROGRAM) as alone:
        return alone.claim(name, path, **options)


def note(text: str) -> None:
    """Tell the user something that does no harm (`Call.note`)."""
    (_CALL.get() or Call("", False, None)).note(text)


def writer(default: str) -> str:
    """Name of the command or call that runs, for the mark in its files."""
    call = _CALL.get()
    return default if call is None else call.command


def write_json(path: FilePath, figures: dict[str, Any]) -> None:
    """Write figures as JSON, atomically, marked by the command that runs.

    NaN and infinities become null, which JSON has no other word for.
    """
    text = json.dumps({"command": writer(PROGRAM), **plain(figures)}, indent=2, allow_nan=False) + "\n"
    write_text(path, text)


def write_text(path: FilePath, text: str) -> None:
    """Write a text file atomically, in UTF-8; InputError if the disk refuses."""
    try:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"Cannot write {os.fspath(path)!r}: {error.strerror or error}.") from error


def _origin(place: Path) -> FileOrigin | None:
    try:
        return origin_of(place)
    except OSError:  # somebody else's, who does not let us read it
        return None


def _location(path: FilePath) -> Path:
    """The path with its links followed, whether or not it exists."""
    return Path(os.path.realpath(path))


def _same(a: Path, b: Path) -> bool:
    """Whether two locations are one file: by the inode, which hard links share."""
    if a == b:
        return True
    try:
        return os.path.samestat(os.stat(a), os.stat(b))
    except OSError:
        return False


def _both(output: str, path: Path, source: str) -> InputError:
    return argument_error(output, f"be another file than {source}, which is read", repr(str(path)))
