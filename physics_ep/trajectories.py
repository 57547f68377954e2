"""Courses in time: in memory, or in parts on disk where they are larger than it.

A long trajectory is written as immutable parts RUN.h5.parts/000000.h5, 000001.h5, ..., each a run file of its own
that takes its place atomically. Killed at any moment, it leaves a readable beginning; at the end the parts become
RUN.h5, through a temporary file as well, and go.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py
import numpy as np
import torch

from .equilibrium import State
from .errors import InputError
from .files import check_output, replacing

if TYPE_CHECKING:
    from .store import Run

PART_BYTES = 2**26
"""Rows are kept in memory up to this size, then become a part ..."""
PART_SECONDS = 60.0
"""... or after this time, so that a kill costs no more than that."""


@dataclass(frozen=True)
class Trajectory:
    """A simulated course.

    Attributes
    ----------
    time : Tensor (T,)
        In `time_unit`.
    state : tuple of Tensor (T, B, ...)
    energy : Tensor (T, B)
        F = E + beta C.
    residual : Tensor (T, B)
        Largest component of the force over the system's residual scale.
    internal : tuple of Tensor (T, B, ...)
        The variables that were integrated, where they are not the state (voltages on capacitors, say); else empty.
    time_unit, state_unit, energy_unit : str
    """

    time: torch.Tensor
    state: State
    energy: torch.Tensor
    residual: torch.Tensor
    internal: State = ()
    time_unit: str = "time constants"
    state_unit: str = "state units"
    energy_unit: str = "energy units"

    @property
    def settling_time(self) -> torch.Tensor:
        """(B,): from when on the force stays under 1 % of its peak; NaN where it does not by the end."""
        above = self.residual > 0.01 * self.residual.amax(0, keepdim=True)
        count = torch.arange(1, len(self.time) + 1, device=above.device)[:, None]
        last = (above * count).amax(0)  # rows up to and including the last one above
        late = last >= len(self.time)
        when = self.time.to(above.device)[last.clamp(max=len(self.time) - 1)]
        return torch.where(late, torch.full_like(when, math.nan), when)


class Point(NamedTuple):
    """A row of a trajectory; fields as `Trajectory` has them, without the axis of time."""

    time: float
    state: State
    energy: torch.Tensor
    residual: torch.Tensor
    internal: State = ()


class Recorder:
    """Collects the points of a trajectory in memory.

    Parameters
    ----------
    units : (str, str, str)
        Of time, state and energy.
    """

    def __init__(self, units: tuple[str, str, str]) -> None:
        self.units = units
        self.points: list[Point] = []

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def append(self, point: Point) -> None:
        """Add the next point."""
        self.points.append(point)

    def finish(self) -> Trajectory:
        """The trajectory of all points."""
        points = self.points

        def rows(blocks: list[State]) -> State:
            return tuple(torch.stack(block) for block in zip(*blocks, strict=True))

        return Trajectory(
            torch.tensor([p.time for p in points], dtype=torch.float64),
            rows([p.state for p in points]),
            torch.stack([p.energy for p in points]),
            torch.stack([p.residual for p in points]),
            rows([p.internal for p in points]),
            *self.units,
        )


class TrajectoryWriter(Recorder):
    """Collects the points of a trajectory in parts on disk.

    Parameters
    ----------
    path : path
        RUN.h5; an older file of this name stays as it is until the new one is complete.
    phase : str
        Name in the file's /trajectories.
    units : (str, str, str)

    Raises
    ------
    InputError
        If the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], phase: str, units: tuple[str, str, str]) -> None:
        super().__init__(units)
        self.path = check_output(path, "out")
        self.phase = phase
        self.folder = parts_folder(self.path)
        self._attributes: dict[str, Any] = {}
        self._parts = 0
        self._due = time.monotonic() + PART_SECONDS

    def __enter__(self) -> TrajectoryWriter:
        try:
            shutil.rmtree(self.folder, ignore_errors=True)  # of a run that was killed
            self.folder.mkdir(parents=True)
        except OSError as error:
            raise InputError(f"Cannot write {str(self.folder)!r}: {error.strerror or error}.") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A run that was stopped leaves what it has; one that was wrong leaves nothing.
        if kind is None or issubclass(kind, InputError):
            shutil.rmtree(self.folder, ignore_errors=True)

    def append(self, point: Point) -> None:
        super().append(point)
        blocks = (*point.state, *point.internal, point.energy, point.residual)
        row = sum(b.numel() * b.element_size() for b in blocks)
        if len(self.points) * row >= PART_BYTES or time.monotonic() >= self._due:
            self._write()

    def finish(self) -> Trajectory:
        """Merge the parts into the run file; the trajectory is mapped from there."""
        from .store import open_run

        if self.points:
            self._write()
        merge(self.path, sorted(self.folder.glob("*.h5")), self.phase)
        return open_run(self.path).trajectories[self.phase]

    def _write(self) -> None:
        from .store import Run, environment, write_run

        if not self._attributes:
            self._attributes = {"kind": "part of a trajectory", **environment()}
        part = Run(self._attributes, trajectories={self.phase: super().finish()})
        write_run(self.folder / f"{self._parts:06d}.h5", part)
        self._parts += 1
        self._due = time.monotonic() + PART_SECONDS
        self.points = []


def parts_folder(path: str | os.PathLike[str]) -> Path:
    """Folder of the parts of a run file that is not complete yet."""
    path = Path(path)
    return path.with_name(f"{path.name}.parts")


def read_parts(path: str | os.PathLike[str]) -> Run:
    """Read the parts of a run file as one.

    Parameters
    ----------
    path : path
        RUN.h5, of which RUN.h5.parts is there.

    Returns
    -------
    Run
        Of kind 'unfinished simulation'; its trajectory ends where the last part does.

    Raises
    ------
    InputError
        If no part has been written, or one is damaged.
    """
    from .store import open_run

    files = sorted(parts_folder(path).glob("*.h5"))
    if not files:
        raise InputError(f"Run file {str(path)!r} was begun, but has no complete part.")
    runs = [open_run(file) for file in files]
    joined = {phase: _joined([run.trajectories[phase] for run in runs]) for phase in runs[0].trajectories}
    attributes = {**runs[0].attributes, "kind": "unfinished simulation"}
    return replace(runs[0], attributes=attributes, trajectories=joined, path=Path(path))


def merge(path: Path, parts: list[Path], phase: str) -> None:
    """Write parts as one run file, one part in memory at a time; a kill leaves them, or the whole file."""
    from .store import FORMAT, FORMAT_VERSION, open_run

    total = 0
    for part in parts:
        with h5py.File(part, "r") as file:
            total += len(file[f"trajectories/{phase}/time"])
    try:
        with replacing(path) as temporary, h5py.File(temporary, "w") as file:
            with h5py.File(parts[0], "r") as first:
                for name, value in first.attrs.items():
                    file.attrs[name] = value
            file.attrs.update({"format": FORMAT, "format_version": FORMAT_VERSION, "kind": "simulation"})
            group, row = file.create_group(f"trajectories/{phase}"), 0
            for part in parts:
                open_run(part)  # whole and unharmed, by its checksums
                with h5py.File(part, "r") as piece:
                    row += _append(group, piece[f"trajectories/{phase}"], row, total)
    except OSError as error:
        raise InputError(f"Cannot write run file {str(path)!r}: {error.strerror or error}.") from error


def stored(held: h5py.Dataset) -> torch.Tensor:
    """Tensor of a dataset: mapped from the file where it lies there in one piece, else read."""
    offset = held.id.get_offset()
    if held.chunks is not None or offset is None or not held.size:
        return torch.from_numpy(np.array(held[()]))
    # Pages are private: what a user changes in them never reaches the file.
    return torch.from_numpy(np.memmap(held.file.filename, held.dtype, "c", offset, held.shape))


def _append(group: h5py.Group, piece: h5py.Group, row: int, total: int) -> int:
    """Copy a part's rows to their place in contiguous datasets, which can be mapped; return how many there were."""
    count = len(piece["time"])
    for name, held in piece.items():
        if name not in group:
            group.create_dataset(name, (total, *held.shape[1:]), held.dtype)
            group[name].attrs.update(held.attrs)
        group[name][row : row + count] = held[()]
    return count


def _joined(pieces: list[Trajectory]) -> Trajectory:
    """One trajectory after the other."""

    def rows(blocks: list[State]) -> State:
        return tuple(torch.cat(block) for block in zip(*blocks, strict=True))

    first = pieces[0]
    return Trajectory(
        torch.cat([p.time for p in pieces]),
        rows([p.state for p in pieces]),
        torch.cat([p.energy for p in pieces]),
        torch.cat([p.residual for p in pieces]),
        rows([p.internal for p in pieces]),
        first.time_unit,
        first.state_unit,
        first.energy_unit,
    )
