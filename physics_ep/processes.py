"""How processes end: a worker with its parent, and the command by a signal as by Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

ENDING = ("SIGTERM", "SIGHUP")
"""Signals that ask a process to end: a scheduler's, and that of a terminal that closes."""
PAUSE = 0.5
"""Seconds between two looks at whether the parent process still lives, and till a lost Ctrl-C comes again."""


class Ending:
    """Within this context, SIGTERM and SIGHUP count as Ctrl-C where they would end the process.

    Ctrl-C raises KeyboardInterrupt, and once more where Python or a library loses it: in a destructor, or in what a
    compiler calls back. What is ignored (under nohup) stays ignored. Only the main thread may set this up; in
    others nothing changes. Afterwards signals are as they were: a command may be called in a program that goes on.

    Attributes
    ----------
    number : int
        That of SIGTERM or SIGHUP; 0 while neither has come.
    pressed : bool
        Whether one of them, or Ctrl-C, has raised KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self.number = 0
        self.pressed = False
        self._before = ExitStack()

    def __enter__(self) -> Ending:
        if threading.current_thread() is threading.main_thread():
            self._before.callback(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, self.press))
            self._before.callback(_press_lost_ones_again())
            for name in ENDING:
                number = getattr(signal, name, None)  # Windows knows no SIGHUP
                if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                    self._before.callback(signal.signal, number, signal.signal(number, self.handle))
        return self

    def __exit__(self, *_: object) -> None:
        self._before.close()

    def press(self, number: int, frame: FrameType | None) -> None:
        """Note that Ctrl-C was pressed; Python calls this as the signal's handler."""
        self.pressed = True
        raise KeyboardInterrupt

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Signal handler: from here on it is as if Ctrl-C had been pressed."""
        self.number = number
        pressed = signal.getsignal(signal.SIGINT)
        if callable(pressed):
            pressed(signal.SIGINT, frame)
        else:
            raise KeyboardInterrupt

    @property
    def status(self) -> int:
        """Exit status by the custom of shells: 128 and the signal's number; 0 while there was none."""
        return 128 + self.number if self.number else 0


def _press_lost_ones_again() -> Callable[[], None]:
    """Have a KeyboardInterrupt that is raised where none can catch it come again later; give what undoes that."""
    before, timers = sys.unraisablehook, list[threading.Timer]()

    def hook(lost: UnraisableHookArgs, /) -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            before(lost)
            return
        again = threading.Timer(PAUSE, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
        again.daemon = True
        again.start()
        timers.append(again)

    def undo() -> None:
        sys.unraisablehook = before
        for timer in timers:
            timer.cancel()

    sys.unraisablehook = hook
    return undo


def runs(process: int) -> bool:
    """Whether a process of this number may be running on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # it is there, and another user's
        pass
    return True


def end_with_parent() -> None:
    """End this process within a second of its parent's end, however that came about.

    A worker that waits for work from a parent which was killed would wait for ever.
    """
    parent = os.getppid()

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(PAUSE)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()
