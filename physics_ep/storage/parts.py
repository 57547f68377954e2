"""Trajectories larger than memory: rows go to parts on disk, which become one run file at the end.

Rows are collected for a while, then become a part: RUN.h5.parts/000000.h5, 000001.h5, ..., each a run file of its
own that takes its place atomically. Killed at any moment, it leaves a readable beginning; at the end the parts
become RUN.h5, through a temporary file as well, and go.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import time
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import torch

from ..blocks import State
from ..errors import InputError
from ..placement import readable
from .origins import origin_of
from .outputs import claim, writer, writing
from .run_file import FORMAT, FORMAT_VERSION, Run, environment, read_run, write_run
from .sealed import sealed, verify_seal
from .trajectory import NoRoomError, Recorder, Trajectory, TrajectoryRow, row_bytes

CALL = "physics_ep.simulate"
PART_BYTES = 2**26
"""Rows are kept in memory up to this size, then become a part ..."""
FIRST_SECONDS = 1.0
PART_SECONDS = 60.0
"""... or after this time, at first the shorter one and then twice the last: a kill costs half of what was done or a
minute."""

PART = "part of a trajectory"
_OURS = re.compile(r"\d{6}\.h5|\.\d{6}\.h5.*\.(part|lock)")
"""Names of parts, and of what a kill leaves while one is written."""


class TrajectoryWriter(Recorder):
    """Collects the points of one or more trajectories in parts on disk.

    Parameters
    ----------
    path : path
        RUN.h5; an older file of this name stays as it is until the new one is complete.
    phase : str
        Name of the first one in the file's /trajectories.
    units : (str, str, str, str)
        Units of time, state, energy and internal variables.
    attributes : dict, optional
        Attributes to write into the run file.
    state_dict : dict, optional
        Weights of the system, to be kept with it.
    overwrite : bool
        Replace a file that something else wrote.
    tolerance : float
        Residual within which an example of the first trajectory is at rest; NaN: not told.

    Raises
    ------
    InputError
        If the file cannot be written, or is not to be replaced.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        phase: str,
        units: tuple[str, str, str, str],
        attributes: dict[str, Any] | None = None,
        state_dict: dict[str, torch.Tensor] | None = None,
        overwrite: bool = False,
        tolerance: float = math.nan,
    ) -> None:
        super().__init__(units, tolerance)
        self._overwrite = overwrite
        with writing(CALL, overwrite=overwrite):
            self.path = claim("out", path)
        self.phase = phase
        self.folder = parts_folder(self.path)
        self._attributes = attributes
        self._state_dict = state_dict or {}
        self._parts = 0
        self._written = 0
        self._expected: int | None = None  # bytes of all rows, where their number is known
        self._pause = FIRST_SECONDS
        self._due = time.monotonic() + self._pause
        self._call = ExitStack()

    def __enter__(self) -> TrajectoryWriter:
        with self._call:
            call = self._call.enter_context(writing(CALL, overwrite=self._overwrite))
            call.claim("out", self.path)
            try:
                remove_parts(self.folder, PART)  # of a run that was killed
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"Cannot write {str(self.folder)!r}: {error.strerror or error}.") from error
            self._call = self._call.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A run that was stopped leaves all that it has; one that was wrong leaves nothing.
        wrong = kind is not None and issubclass(kind, InputError) and not issubclass(kind, NoRoomError)
        with self._call:
            if kind is not None and not wrong:
                with suppress(OSError, InputError):
                    self._write()
            if kind is None or wrong or not self._parts:
                with suppress(OSError, InputError):
                    remove_parts(self.folder, PART)

    def expect(self, rows: int, point: TrajectoryRow) -> None:
        # Parts stay until the run file is whole.
        self._expected = rows * row_bytes(point)
        needed, there = 2 * self._expected, free_bytes(self.folder)
        there += sum(part.stat().st_size for part in self.folder.glob("*.h5"))  # of a run that was killed
        if needed > there:
            raise NoRoomError(
                f"Too little room on the disk of {str(self.path)!r}: the trajectory needs {readable(needed)} while "
                f"it is written, but {readable(there)} are free. Keep fewer rows (every), or write elsewhere (out)."
            )

    def append(self, point: TrajectoryRow) -> None:
        self.points.append(point)
        if len(self.points) * row_bytes(point) >= PART_BYTES or time.monotonic() >= self._due:
            self._write()
            # Room for the next part, and for all of them again when they become one file.
            ahead = PART_BYTES if self._expected is None else min(PART_BYTES, self._expected - self._written)
            if self._written + ahead > free_bytes(self.folder):
                raise self._stopped(f"The disk of {str(self.path)!r} is too full to go on.")

    def begin(self, phase: str, units: tuple[str, str, str, str], tolerance: float = math.nan) -> Trajectory | None:
        self._write()
        self.phase, self.units, self.tolerance = phase, units, tolerance
        return None

    def finish(self) -> Trajectory:
        """Merge the parts into the run file, and return the last trajectory, mapped from that file."""
        self._write()
        try:
            merge(self.path, sorted(self.folder.glob("*.h5")))
        except InputError as error:
            raise self._stopped(error) from error
        return read_run(self.path, verify=False).trajectories[self.phase]

    def _write(self) -> None:
        """Make a part of the rows in memory, if there are any."""
        if not self.points:
            return
        if self._attributes is None:
            self._attributes = environment()
        size = len(self.points) * row_bytes(self.points[0])
        part = Run(
            {**self._attributes, "kind": PART},
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
        self._pause = min(2 * self._pause, PART_SECONDS)
        self._due = time.monotonic() + self._pause

    def _stopped(self, why: object) -> InputError:
        """What to raise where the disk refuses."""
        if not self._parts:
            return InputError(str(why))
        return NoRoomError(f"{why} The rows before are kept in {str(self.folder)!r}; open_run reads them.")


def free_bytes(folder: Path) -> int:
    """Free space where a folder is, or will be."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def parts_folder(path: str | os.PathLike[str]) -> Path:
    """Folder of the parts of a run file that is not complete yet."""
    path = Path(path)
    return path.with_name(f"{path.name}.parts")


def remove_parts(folder: Path, kind: str) -> None:
    """Take away a folder of parts, if it is there.

    Parameters
    ----------
    folder : Path
    kind : str
        What the marks of the parts must say that they are; other files are refused.

    Raises
    ------
    InputError
        If something else is in it; everything stays then.
    """
    if not folder.exists():
        return
    for entry in folder.iterdir():
        origin = origin_of(entry) if entry.suffix == ".h5" and entry.is_file() else None
        if not _OURS.fullmatch(entry.name) or (origin is not None and origin.kind != kind):
            raise InputError(
                f"Folder {str(folder)!r} holds {entry.name!r}, which is no {kind}: move it, or write elsewhere."
            )
    for entry in folder.iterdir():
        entry.unlink()
    folder.rmdir()


def read_parts(path: str | os.PathLike[str], verify: bool = True) -> Run:
    """Read the parts of a run file as one.

    Parameters
    ----------
    path : path
        RUN.h5, of which RUN.h5.parts is there.
    verify : bool
        Compare each part with its digest first.

    Returns
    -------
    Run
        A run of kind 'unfinished simulation'; its trajectory ends where the last part does.

    Raises
    ------
    InputError
        If no part has been written, or one is damaged.
    """
    files = sorted(parts_folder(path).glob("*.h5"))
    if not files:
        raise InputError(f"Run file {str(path)!r} was begun, but has no complete part.")
    runs = [read_run(file, verify) for file in files]
    phases = dict.fromkeys(phase for run in runs for phase in run.trajectories)
    joined = {
        phase: _joined([run.trajectories[phase] for run in runs if phase in run.trajectories]) for phase in phases
    }
    attributes = {**runs[0].attributes, "kind": "unfinished simulation"}
    return replace(runs[0], attributes=attributes, trajectories=joined, path=Path(path))


def merge(path: Path, parts: list[Path]) -> None:
    """Write parts as one run file, one part in memory at a time; a kill leaves them, or the whole file."""
    totals: Counter[str] = Counter()
    for part in parts:
        with h5py.File(part, "r") as file:
            totals.update({phase: len(held["time"]) for phase, held in file["trajectories"].items()})
    try:
        with sealed(path, writer(CALL), "simulation") as file:
            with h5py.File(parts[0], "r") as first:
                for name, value in first.attrs.items():
                    file.attrs[name] = value
                if "weights" in first:
                    first.copy("weights", file)
            file.attrs.update({"format": FORMAT, "format_version": FORMAT_VERSION, "kind": "simulation"})
            rows: Counter[str] = Counter()
            for part in parts:
                verify_seal(part)
                with h5py.File(part, "r") as piece:
                    for phase, held in piece["trajectories"].items():
                        group = file.require_group(f"trajectories/{phase}")
                        group.attrs.update(held.attrs)
                        rows[phase] += _append(group, held, rows[phase], totals[phase])
    except OSError as error:
        raise InputError(f"Cannot write run file {str(path)!r}: {error.strerror or error}.") from error


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
        first.tolerance,
    )
