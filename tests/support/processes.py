"""Processes that a test starts and ends: it waits for what it needs to see, not for a time."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

LIMIT = 600
"""Seconds after which a condition is held never to come: far more than a busy machine takes."""


def wait_for(condition: Callable[[], object], child: subprocess.Popen, pause: float = 0.01) -> None:
    """Wait until the condition holds; the child must still run then."""
    until = time.monotonic() + LIMIT
    while not condition():
        assert child.poll() is None, "the process ended before the condition came true"
        assert time.monotonic() < until, f"the condition did not come true in {LIMIT} s"
        time.sleep(pause)


def processor_seconds(child: subprocess.Popen) -> float:
    """Seconds on the processor, user's and system's, that a running process has had so far (Linux)."""
    fields = Path(f"/proc/{child.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
