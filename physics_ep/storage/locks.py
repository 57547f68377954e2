"""One writer a file: a lock beside it that tells who writes, and that outlives no process for long.

The lock of DIR/NAME is DIR/.NAME.lock, made with O_EXCL: of two processes that ask at the same moment one gets it.
It holds the process's id, its start time (ids are given again), the host and the date. A lock of a process of this
host that has ended is taken over; one of another host cannot be judged and is respected.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from ..errors import InputError
from ..processes import runs

WRITTEN_WITHIN = 2.0
"""Seconds within which a lock that was made has its content; one that is older and empty was left by a kill."""


class Lock:
    """The right to write one file, from `acquire` to `release`.

    Parameters
    ----------
    path : Path
        The file, its links followed; its folder is made if it is missing.

    Attributes
    ----------
    lost_by : str
        Who held the lock before and ended without giving it back; empty where nobody did.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.place = lock_of(path)
        self.lost_by = ""
        self._made: list[Path] = []
        self._process = 0

    def acquire(self) -> None:
        """Take the lock, or raise an error that names who holds it.

        Raises
        ------
        InputError
            If another process, or another thread of this one, writes the file.
        OSError
            If the disk refuses.
        """
        folder = self.place.parent
        while not folder.exists():
            self._made.append(folder)
            folder = folder.parent
        self.place.parent.mkdir(parents=True, exist_ok=True)
        self._process = os.getpid()
        try:
            while not self._create():
                self._take_over()
        except BaseException:
            self._remove_folders()
            raise

    def release(self) -> None:
        """Give the lock back; folders that were made for it and are empty go, too."""
        if os.getpid() != self._process:  # a process that was forked from the one that holds it
            return
        with suppress(OSError):
            self.place.unlink()
        self._remove_folders()

    def _create(self) -> bool:
        """Whether the lock was free, and is ours now."""
        try:
            handle = os.open(self.place, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        try:
            with open(handle, "w", encoding="utf-8") as file:
                json.dump(_this_process(), file)
        except OSError:  # a full disk: a lock that says nothing would hold others up
            os.unlink(self.place)
            raise
        return True

    def _take_over(self) -> None:
        """Take away a lock whose process has ended; raise InputError if it has not."""
        # Whoever waited in `_alone` may find that another has taken the lock over, and made it anew.
        with suppress(FileNotFoundError), open(self.place, "rb+") as file, _alone(file):
            if not os.path.samestat(os.fstat(file.fileno()), os.stat(self.place)):
                return
            holder = _holder(file)
            if holder is None or not _has_ended(holder):
                raise InputError(
                    f"File {str(self.path)!r} is being written by {_described(holder)}: wait until it has ended, "
                    f"or write elsewhere. If nothing writes it any more, remove {str(self.place)!r}."
                )
            self.lost_by = _described(holder)
            self.place.unlink()

    def _remove_folders(self) -> None:
        with suppress(OSError):
            for folder in self._made:
                folder.rmdir()
        self._made = []


def lock_of(path: Path) -> Path:
    """Path of the lock of a file."""
    return path.with_name(f".{path.name}.lock")


def _this_process() -> dict[str, Any]:
    return {
        "process": os.getpid(),
        "started": _start_time(os.getpid()),
        "host": platform.node(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _start_time(process: int) -> str | None:
    """When a process was started: boot, and clock ticks since then (Linux); None where the system does not tell."""
    try:
        status = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None
    return f"{boot} {status.rpartition(')')[2].split()[19]}"


def _holder(file: IO[bytes]) -> dict[str, Any] | None:
    """What a lock says, once its maker has written it; None while it has not; {} of one that says nothing."""
    until = time.monotonic() + WRITTEN_WITHIN
    while True:
        file.seek(0)
        with suppress(ValueError):
            told = json.loads(file.read())
            if isinstance(told, dict) and isinstance(told.get("process"), int):
                return told
        if time.time() - os.fstat(file.fileno()).st_mtime > WRITTEN_WITHIN:
            return {}
        if time.monotonic() > until:  # clocks that disagree
            return None
        time.sleep(0.01)


def _has_ended(holder: dict[str, Any]) -> bool:
    """Whether the process of a lock is certain to run no more."""
    if not holder:
        return True
    if holder.get("host") != platform.node():
        return False
    if not runs(holder["process"]):
        return True
    now = _start_time(holder["process"])
    return now is not None and holder.get("started") is not None and now != holder["started"]


def _described(holder: dict[str, Any] | None) -> str:
    if not holder:
        return "another process"
    return f"process {holder['process']} on {holder.get('host')} since {holder.get('date')}"


@contextmanager
def _alone(file: IO[bytes]) -> Iterator[None]:
    """Within, no other process judges this lock; where the system knows no such thing, they may."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with suppress(OSError):  # some network file systems cannot
        fcntl.flock(file, fcntl.LOCK_EX)
    yield  # closing the file ends it
