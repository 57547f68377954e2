"""How long work reports how far it is, without knowing who listens.

Core functions take `progress=` and stay free of terminals. The command passes an adaptor that draws bars
(`physics_ep.command_options`), a service may pass its own, and `progress=True` writes one line that is renewed, on
a terminal and in a notebook.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, TextIO

from .errors import argument_error


class Advance(Protocol):
    """Reports work done within one task."""

    def __call__(self, n: int = 1, **info: Any) -> None:
        """Report `n` more units of work, and any figures worth showing beside the bar."""


class Progress(Protocol):
    """What shows the progress of long calls: an object whose `task` gives a function to report work with.

    Examples
    --------
    >>> with SILENT.task("relaxing", total=2) as advance:
    ...     advance(1, residual=1e-3)
    ...     advance(1, residual=1e-7)
    """

    def task(self, description: str, total: int) -> AbstractContextManager[Advance]:
        """Begin a task of `total` units of work; it ends with the `with` block."""


class Silent:
    """Progress that shows nothing: it takes the place of a `Progress` where nobody listens."""

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Advance]:
        """Begin a task; its reports go nowhere."""
        yield _ignore


def _ignore(n: int = 1, **info: Any) -> None:
    return None


SILENT: Progress = Silent()
"""The default of every `progress=` argument; True listens too (`RenewedLine`)."""


class RenewedLine:
    """Progress as one line of text that is renewed: `training [####    ] 12/25, 8 s left, test_error 0.031`.

    Where the text goes to a file, which nothing can be renewed in, a line a tenth of the task.

    Parameters
    ----------
    stream : text stream, optional
        Default the standard error, as it is when a task begins.
    """

    WIDTH = 16
    EVERY = 0.1
    """Seconds between two renewals."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Advance]:
        """Begin a task; its line stays, as far as it came."""
        stream = self.stream or sys.stderr
        # Notebooks renew a line as terminals do.
        renews = stream.isatty() or "ipykernel" in sys.modules
        began = shown = time.monotonic()
        done, written, told = 0, -1, ""

        def show(last: bool) -> None:
            nonlocal shown, written
            part = min(1.0, done / total) if total else 1.0
            left = (time.monotonic() - began) * (1 - part) / part if 0 < part < 1 else 0.0
            bar = ("#" * round(self.WIDTH * part)).ljust(self.WIDTH)
            rest = "" if last or not left else f", {left:.0f} s left"
            text = f"{description} [{bar}] {done}/{total}{rest}{told}"
            if renews:
                stream.write("\r" + text.ljust(79) + ("\n" if last else ""))
            elif last or int(10 * part) > written:
                stream.write(text + "\n")
            written, shown = int(10 * part), time.monotonic()
            stream.flush()

        def advance(n: int = 1, **info: Any) -> None:
            nonlocal done, told
            done += n
            if info:
                told = "".join(f", {k} {v:.3g}" if isinstance(v, float) else f", {k} {v}" for k, v in info.items())
            if time.monotonic() - shown >= self.EVERY:
                show(last=False)

        try:
            yield advance
        finally:
            show(last=True)


def task(progress: Progress | bool | None, description: str, total: int) -> AbstractContextManager[Advance]:
    """Begin a task of `total` units of work for whoever listens.

    Parameters
    ----------
    progress : Progress or bool
        True: a line on the standard error; False or None: nobody.
    description : str
    total : int

    Raises
    ------
    InputError
        If `progress` is nothing that listens.
    """
    if progress is True:
        progress = RenewedLine()
    elif progress is False or progress is None:
        progress = SILENT
    elif not callable(getattr(progress, "task", None)):
        raise argument_error("progress", "be True, False or a Progress", repr(progress))
    return progress.task(description, total)
