"""How long work reports how far it is, without knowing who listens.

Core functions take `progress=` and stay free of terminals; the command passes an adaptor that draws bars
(`physics_ep.command_options`), a notebook or a service may pass its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol


class Advance(Protocol):
    """Reports work done within one task."""

    def __call__(self, n: int = 1, **info: Any) -> None:
        """Report `n` more units of work, and any figures worth showing beside the bar."""


class Progress(Protocol):
    """Listens to tasks.

    Examples
    --------
    >>> with SILENT.task("relaxing", total=2) as advance:
    ...     advance(1, residual=1e-3)
    ...     advance(1, residual=1e-7)
    """

    def task(self, description: str, total: int) -> AbstractContextManager[Advance]:
        """Begin a task of `total` units of work; it ends with the `with` block."""


class Silent:
    """Progress that nobody sees."""

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Advance]:
        """Begin a task; its reports go nowhere."""
        yield _ignore


def _ignore(n: int = 1, **info: Any) -> None:
    return None


SILENT: Progress = Silent()
"""The default of every `progress=` argument."""
