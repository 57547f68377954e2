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
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py
import numpy as np
import torch

from .blocks import State
from .errors import InputError
from .files import check_output, replacing
from .placement import available_memory, readable

if TYPE_CHECKING:
    from .store import Run

PART_BYTES = 2**26
"""Rows are kept in memory up to this size, then become a part ..."""
PART_SECONDS = 60.0
"""... or after this time, so that a kill costs no more than that."""
CHECKED_BYTES = 2**28
"""Rows in memory are checked against what is free from this size on, each time it has doubled."""


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
        The variables that were integrated in place of the state (voltages on capacitors, say) or beside it
        (velocities); else empty.
    time_unit, state_unit, energy_unit : str
    internal_unit : str
        Empty: that of the state.
    """

    time: torch.Tensor
    state: State
    energy: torch.Tensor
    residual: torch.Tensor
    internal: State = ()
    time_unit: str = "time constants"
    state_unit: str = "state units"
    energy_unit: str = "energy units"
    internal_unit: str = ""

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


class NoRoomError(InputError):
    """Memory or the disk cannot hold a trajectory; what was written before stays."""


class Recorder:
    """Collects the points of a trajectory in memory.

    Parameters
    ----------
    units : (str, str, str, str)
        Of time, state, energy and internal variables.
    """

    def __init__(self, units: tuple[str, str, str, str]) -> None:
        self.units = units
        self.points: list[Point] = []
        self._checked = CHECKED_BYTES

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def expect(self, rows: int, point: Point) -> None:
        """Make sure that there is room for so many rows like this one; raise NoRoomError if there is not."""
        _require_memory(2 * rows * row_bytes(point), point.energy.device)  # joining them makes a copy

    def append(self, point: Point) -> None:
        """Add the next point; raise NoRoomError if memory will not hold them all joined."""
        self.points.append(point)
        held = len(self.points) * row_bytes(point)
        if held > self._checked:
            _require_memory(held, point.energy.device)
            self._checked *= 2

    def begin(self, phase: str, units: tuple[str, str, str, str]) -> Trajectory | None:
        """Go on with another trajectory; return the last one if it is in memory."""
        done, self.points, self.units = self.finish(), [], units
        return done

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
    """Collects the points of one or more trajectories in parts on disk.

    Parameters
    ----------
    path : path
        RUN.h5; an older file of this name stays as it is until the new one is complete.
    phase : str
        Name of the first one in the file's /trajectories.
    units : (str, str, str, str)
        Of time, state, energy and internal variables.
    attributes : dict, optional
        Of the run file.
    state_dict : dict, optional
        Weights of the system, to be kept with it.

    Raises
    ------
    InputError
        If the file cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        phase: str,
        units: tuple[str, str, str, str],
        attributes: dict[str, Any] | None = None,
        state_dict: dict[str, torch.Tensor] | None = None,
    ) -> None:
        super().__init__(units)
        self.path = check_output(path, "out")
        self.phase = phase
        self.folder = parts_folder(self.path)
        self._attributes = attributes
        self._state_dict = state_dict or {}
        self._parts = 0
        self._written = 0
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
        # A run that was stopped leaves all that it has; one that was wrong leaves nothing.
        wrong = kind is not None and issubclass(kind, InputError) and not issubclass(kind, NoRoomError)
        if kind is not None and not wrong:
            with suppress(OSError, InputError):
                self._write()
        if kind is None or wrong or not self._parts:
            shutil.rmtree(self.folder, ignore_errors=True)

    def expect(self, rows: int, point: Point) -> None:
        # Parts stay until the run file is whole.
        needed, there = 2 * rows * row_bytes(point), free_bytes(self.folder)
        there += sum(part.stat().st_size for part in self.folder.glob("*.h5"))  # of a run that was killed
        if needed > there:
            raise NoRoomError(
                f"Too little room on the disk of {str(self.path)!r}: the trajectory needs {readable(needed)} while "
                f"it is written, but {readable(there)} are free. Keep fewer rows (every), or write elsewhere (out)."
            )

    def append(self, point: Point) -> None:
        self.points.append(point)
        if len(self.points) * row_bytes(point) >= PART_BYTES or time.monotonic() >= self._due:
            self._write()
            # Room for the next part, and for all of them again when they become one file.
            if self._written + PART_BYTES > free_bytes(self.folder):
                raise self._stopped(f"The disk of {str(self.path)!r} is too full to go on.")

    def begin(self, phase: str, units: tuple[str, str, str, str]) -> Trajectory | None:
        self._write()
        self.phase, self.units = phase, units
        return None

    def finish(self) -> Trajectory:
        """Merge the parts into the run file; the last trajectory is mapped from there."""
        from .store import open_run

        self._write()
        try:
            merge(self.path, sorted(self.folder.glob("*.h5")))
        except InputError as error:
            raise self._stopped(error) from error
        return open_run(self.path).trajectories[self.phase]

    def _write(self) -> None:
        """Make a part of the rows in memory, if there are any."""
        from .store import Run, environment, write_run

        if not self.points:
            return
        if self._attributes is None:
            self._attributes = environment()
        size = len(self.points) * row_bytes(self.points[0])
        part = Run(
            {**self._attributes, "kind": "part of a trajectory"},
            trajectories={self.phase: super().finish()},
            state_dict={} if self._parts else self._state_dict,
        )
        try:
            write_run(self.folder / f"{self._parts:06d}.h5", part)
        except InputError as error:
            raise self._stopped(error) from error
        # In this order: a run that is stopped in between writes no row twice.
        self.points = []
        self._parts += 1
        self._written += size
        self._due = time.monotonic() + PART_SECONDS

    def _stopped(self, why: object) -> InputError:
        """What to raise where the disk refuses."""
        if not self._parts:
            return InputError(str(why))
        return NoRoomError(f"{why} The rows before are kept in {str(self.folder)!r}; open_run reads them.")


def row_bytes(point: Point) -> int:
    """Size of a row."""
    return 8 + sum(b.numel() * b.element_size() for b in (*point.state, *point.internal, *point[2:4]))


def free_bytes(folder: Path) -> int:
    """Free space where a folder is, or will be."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


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
    phases = dict.fromkeys(phase for run in runs for phase in run.trajectories)
    joined = {
        phase: _joined([run.trajectories[phase] for run in runs if phase in run.trajectories]) for phase in phases
    }
    attributes = {**runs[0].attributes, "kind": "unfinished simulation"}
    return replace(runs[0], attributes=attributes, trajectories=joined, path=Path(path))


def merge(path: Path, parts: list[Path]) -> None:
    """Write parts as one run file, one part in memory at a time; a kill leaves them, or the whole file."""
    from .store import FORMAT, FORMAT_VERSION, open_run

    totals: Counter[str] = Counter()
    for part in parts:
        with h5py.File(part, "r") as file:
            totals.update({phase: len(held["time"]) for phase, held in file["trajectories"].items()})
    try:
        size = sum(part.stat().st_size for part in parts)
        with replacing(path, size) as temporary, h5py.File(temporary, "w") as file:
            with h5py.File(parts[0], "r") as first:
                for name, value in first.attrs.items():
                    file.attrs[name] = value
                if "weights" in first:
                    first.copy("weights", file)
            file.attrs.update({"format": FORMAT, "format_version": FORMAT_VERSION, "kind": "simulation"})
            rows: Counter[str] = Counter()
            for part in parts:
                open_run(part)  # whole and unharmed, by its checksums
                with h5py.File(part, "r") as piece:
                    for phase, held in piece["trajectories"].items():
                        group = file.require_group(f"trajectories/{phase}")
                        rows[phase] += _append(group, held, rows[phase], totals[phase])
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
        first.internal_unit,
    )


def _require_memory(needed: int, device: torch.device) -> None:
    there = available_memory(device)
    if there is not None and needed > there:
        raise NoRoomError(
            f"Too little memory for the trajectory: it needs {readable(needed)} on {device}, but {readable(there)} "
            "are free. Keep fewer rows (every), or write them to a file (out)."
        )
