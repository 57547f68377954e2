"""Names of the release before, which nothing bears today; they go with the next one (`physics_ep.moved`)."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import torch

from .blocks import State
from .errors import argument_error
from .pooling import channels_first
from .predictive_coding.solvers import LinearSweep, Sweep
from .relaxation.solvers import Solver
from .storage.files import check_output
from .storage.run_file import FORMAT
from .system import Phase

X = torch.Tensor


class Forward(Solver):
    """The free phase as a solver: a phase says by `Phase.known` what its equilibrium is."""

    def __init__(self, phase: Phase, start: State) -> None:
        self.phase = phase
        self.spent = 0

    def evaluate(self) -> tuple[State, torch.Tensor]:
        self.spent += 1
        known = self.phase.known("sweep")
        assert known is not None
        return known

    def advance(self, active: torch.Tensor) -> None:
        return None


Settled = Forward


class AndersonSweep(Sweep):
    """The old name of `Sweep` with `mixed=True`."""

    def __init__(self, phase: Phase, start: State) -> None:
        super().__init__(phase, start, mixed=True)  # type: ignore[arg-type]


class LinearAnderson(LinearSweep):
    """The old name of `LinearSweep` with `mixed=True`."""

    def __init__(self, phase: Phase, start: State) -> None:
        super().__init__(phase, start, mixed=True)  # type: ignore[arg-type]


def images_of(rows: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    """Turn rows of pixels (B, H W, C) into images (B, C, H, W); `size` is (H, W)."""
    return channels_first(rows.unflatten(1, size))


def is_run_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file is an HDF5 file with our mark, whole or not beyond that."""
    try:
        with h5py.File(path, "r") as file:
            return bool(file.attrs.get("format") == FORMAT)
    except OSError:
        return False


def check_run_output(out: str | os.PathLike[str]) -> Path:
    """Make sure that a run file can be written, and that nobody's other file is lost to it.

    Raises
    ------
    InputError
        If it cannot be written, or holds something else than a run.
    """
    path = check_output(out, "out")
    if path.exists() and not is_run_file(path):
        raise argument_error("out", "be a new file or a run file", f"{str(path)!r}, which holds something else")
    return path
