"""`python -m physics_ep`: the command `physics-ep`, also from a source tree that is not installed."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import NoReturn


def _end(number: int, frame: FrameType | None) -> NoReturn:
    os.write(2, b"physics-ep: error: interrupted\n")
    os._exit(130)


def _fill_descriptors() -> None:
    """Open the null device where standard input, output or error is closed.

    Else the first file that is opened takes its number, and what a library prints goes into that.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def _let_threads_sleep() -> None:
    """Have threads of libgomp that wait for work sleep after some 30 us; by default they spin for milliseconds.

    On a machine that others use too, spinning takes from those who work. Torch's import reads the variable.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def run() -> NoReturn:
    """Run the command line; Ctrl-C ends it in one line from the first moment, even while modules are imported."""
    signal.signal(signal.SIGINT, _end)
    _fill_descriptors()
    _let_threads_sleep()
    from .cli import main

    main()


if __name__ == "__main__":
    run()
