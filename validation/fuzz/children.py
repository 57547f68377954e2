"""Cases run in processes of their own, forked from one that has torch imported: two seconds less a case."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TextIO

GRACE = 10.0
"""Seconds that a process which is asked to end has for it."""
HANDLERS: dict[int, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGHUP: signal.SIG_DFL,
}
"""What a process has that Python has just started."""
SPARE = 2**26
"""Bytes of addresses beyond those in use that a limit of memory leaves at least."""


@dataclass(frozen=True)
class Ended:
    """How a child process of the fuzz test ended.

    Attributes
    ----------
    status : int
        Exit status; minus the signal's number where one ended it.
    out, error : str
        What it printed on the standard output and the standard error.
    seconds : float
        Wall time.
    late : bool
        Whether it was asked to end since its time was over, or the case said so.
    stuck : bool
        Whether it had to be killed after that.
    """

    status: int
    out: str
    error: str
    seconds: float
    late: bool
    stuck: bool


def run_child(
    work: Callable[[], object],
    folder: Path,
    *,
    seconds: float = 60.0,
    ask: int = signal.SIGTERM,
    limits: Mapping[int, int] | None = None,
    grace: float = GRACE,
) -> Ended:
    """Run `work` in a forked process, within `folder`, and wait for its end.

    Parameters
    ----------
    work : callable
        Its SystemExit sets the status; another exception prints itself, and the status is 70.
    folder : Path
    seconds : float
        Wall time after which the process gets the signal `ask`, and SIGKILL `grace` seconds later.
    ask : int
        Number of that signal.
    limits : mapping, optional
        Limits of `resource`: number of the limit to its value; of RLIMIT_AS beyond what is in use now.
    grace : float
    """
    told = [folder.with_name(f"{folder.name}.{name}") for name in ("out", "error")]
    for path in told:
        path.touch()  # the process may end before it begins
    begin = time.monotonic()
    child = os.fork()
    if not child:
        _work(work, folder, told, limits or {})
    status, late, stuck = _wait(child, begin + seconds), False, False
    if status is None:
        late = True
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, ask)
        status = _wait(child, time.monotonic() + grace)
    if status is None:
        stuck = True
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)  # and what it has left behind
    if status is None:
        status = os.waitpid(child, 0)[1]
    code = os.waitstatus_to_exitcode(status)
    out, error = [path.read_text(encoding="utf-8", errors="replace") for path in told]
    for path in told:
        path.unlink()
    return Ended(code, out, error, time.monotonic() - begin, late, stuck)


def _wait(child: int, until: float) -> int | None:
    """Status of a process that ends before a moment; None if it does not."""
    pause = 0.002
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status
        left = until - time.monotonic()
        if left <= 0:
            return None
        time.sleep(min(pause, left))
        pause = min(2 * pause, 0.05)


def _work(work: Callable[[], object], folder: Path, told: list[Path], limits: Mapping[int, int]) -> NoReturn:
    """What the child does; it never returns into the parent's code."""
    status = 70
    try:
        os.setpgid(0, 0)
        for number, path in enumerate(told, 1):
            handle = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_APPEND, 0o644)
            os.dup2(handle, number)
        sys.stdout, sys.stderr = _stream(1, "strict"), _stream(2, "backslashreplace")
        os.chdir(folder)
        for number, handler in HANDLERS.items():  # not those that a test, say, has set up in the parent
            signal.signal(number, handler)
        gc.freeze()  # what the parent has left is not the child's to collect
        for limit, value in limits.items():
            bound = value + _addresses() if limit == resource.RLIMIT_AS else value
            resource.setrlimit(limit, (bound, resource.getrlimit(limit)[1]))
        try:
            work()
            status = 0
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        except BaseException:
            traceback.print_exc()
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
    finally:
        os._exit(status)


def _stream(number: int, errors: str) -> TextIO:
    """What Python writes to a descriptor by, at its start."""
    return io.TextIOWrapper(os.fdopen(number, "wb", closefd=False), encoding="utf-8", errors=errors)


def _addresses() -> int:
    """Bytes of addresses that this process has now, and `SPARE`."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    return pages * resource.getpagesize() + SPARE
