"""What happened on the simulated device, and between it and the host."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

HIDDEN = (str(Path(torch.__file__).parent), str(Path(__file__).parent), "<")
"""Beginnings of files that are no place in the project's sources: torch, the simulation, generated code."""


@dataclass
class Counts:
    """What a block of code asked of the device (`SimulatedGpu.counting`).

    Attributes
    ----------
    operators : Counter of str
        Kernels launched, by operator.
    waits : Counter of (kind, operator, place)
        Moments at which the host waited for the device. Kinds are 'read' (`.item()`, `bool()`, `float()`),
        'download' and 'upload' (copies of tensors, blocking), 'shape' (results whose size depends on numbers, as
        masks and `nonzero` give), 'check' (linear algebra that looks at its error code) and 'explicit'
        (`synchronize`).
    uploaded, downloaded : int
        Bytes copied to the device and from it.
    uploads : int
        Copies to the device, whether the host waited for them or not.
    on_host : Counter of (operator, place)
        Operators on large CPU tensors: work that the device could have done.
    start_bytes, peak_bytes : int
        Bytes in use on the device at the block's beginning, and the most during it.
    """

    operators: Counter[str] = field(default_factory=Counter)
    waits: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    on_host: Counter[tuple[str, str]] = field(default_factory=Counter)
    uploads: int = 0
    uploaded: int = 0
    downloaded: int = 0
    start_bytes: int = 0
    peak_bytes: int = 0

    @property
    def launches(self) -> int:
        """Kernels launched."""
        return self.operators.total()

    @property
    def waited(self) -> int:
        """Times that the host waited, whatever for."""
        return self.waits.total()

    def kinds(self) -> dict[str, int]:
        """Waits by kind."""
        kinds: Counter[str] = Counter()
        for (kind, _, _), times in self.waits.items():
            kinds[kind] += times
        return dict(kinds)

    def table(self, most: int = 20) -> str:
        """The places that made the host wait most often, one a line: how often, kind, operator, file and line."""
        return "\n".join(f"{times:6d}  {' '.join(key)}" for key, times in self.waits.most_common(most))


def place() -> str:
    """File and line of the innermost caller outside torch and the simulation."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(HIDDEN) and not file.endswith("/contextlib.py"):
            return f"{'/'.join(Path(file).parts[-3:])}:{frame.f_lineno}"
        frame = frame.f_back
    return "?"
