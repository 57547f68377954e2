"""Trajectories in memory: what a simulation records, row by row, and whether memory will hold it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple

import torch

from ..blocks import State
from ..errors import InputError
from ..placement import available_memory, readable
from ..tabular import Drawable

CHECKED_BYTES = 2**28
"""Rows in memory are checked against what is free from this size on, each time it has doubled."""


@dataclass(frozen=True, repr=False)
class Trajectory(Drawable):
    """A simulated course. `plot` draws its first example: units that move most, energy and residual over time.

    Attributes
    ----------
    time : Tensor (T,)
        Times, in `time_unit`.
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
    tolerance : float
        Residual within which an example is at rest. NaN: not told, as of courses with noise.
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
    tolerance: float = math.nan

    def __repr__(self) -> str:
        span = (
            f"{len(self.time)} rows to {float(self.time[-1]):.4g} {self.time_unit}" if len(self.time) else "empty"
        )
        examples = self.energy.shape[1]
        blocks = ", ".join(" x ".join(map(str, block.shape[2:])) or "1" for block in self.state)
        batch = f"{examples} example{'' if examples == 1 else 's'}"
        rest = ""
        if examples and len(self.time) and not math.isnan(self.tolerance):
            told = "at rest" if bool(self.at_rest.all()) else "not at rest"
            rest = f", {told}: residual {float(self.residual[-1].max()):.1e}"
        return f"{type(self).__name__}({span}, {batch}, blocks of {blocks} in {self.state_unit}{rest})"

    @property
    def at_rest(self) -> torch.Tensor:
        """Bool (B,): which examples end with a residual within the tolerance; none where it is not told."""
        return self.residual[-1] <= self.tolerance

    @property
    def settling_time(self) -> torch.Tensor:
        """(B,): from when on the force stays under 1 % of its peak; NaN where it does not by the end."""
        above = self.residual > 0.01 * self.residual.amax(0, keepdim=True)
        count = torch.arange(1, len(self.time) + 1, device=above.device)[:, None]
        last = (above * count).amax(0)  # rows up to and including the last one above
        late = last >= len(self.time)
        when = self.time.to(above.device)[last.clamp(max=len(self.time) - 1)]
        return torch.where(late, torch.full_like(when, math.nan), when)


class TrajectoryRow(NamedTuple):
    """A row of a trajectory; fields as `Trajectory` has them, without the axis of time."""

    time: float
    state: State
    energy: torch.Tensor
    residual: torch.Tensor
    internal: State = ()


class NoRoomError(InputError):
    """Raised when memory or the disk cannot hold a trajectory; what was written before stays."""


class Recorder:
    """Collects the points of a trajectory in memory.

    Parameters
    ----------
    units : (str, str, str, str)
        Units of time, state, energy and internal variables.
    tolerance : float
        Residual within which an example is at rest; NaN: not told.
    """

    def __init__(self, units: tuple[str, str, str, str], tolerance: float = math.nan) -> None:
        self.units = units
        self.tolerance = tolerance
        self.points: list[TrajectoryRow] = []
        self._checked = CHECKED_BYTES

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def expect(self, rows: int, point: TrajectoryRow) -> None:
        """Make sure that memory has room for `rows` rows as large as this one; raise NoRoomError if it has not."""
        _require_memory(2 * rows * row_bytes(point), point.energy.device)  # joining them makes a copy

    def append(self, point: TrajectoryRow) -> None:
        """Add the next point; raise NoRoomError if memory will not hold them all joined."""
        self.points.append(point)
        held = len(self.points) * row_bytes(point)
        if held > self._checked:
            _require_memory(held, point.energy.device)
            self._checked *= 2

    def begin(self, phase: str, units: tuple[str, str, str, str], tolerance: float = math.nan) -> Trajectory | None:
        """Go on with another trajectory; return the last one if it is in memory."""
        done, self.points, self.units, self.tolerance = self.finish(), [], units, tolerance
        return done

    def finish(self) -> Trajectory:
        """Join all points into one trajectory."""
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
            self.tolerance,
        )


def row_bytes(point: TrajectoryRow) -> int:
    """Bytes that one row of a trajectory takes."""
    return 8 + sum(b.numel() * b.element_size() for b in (*point.state, *point.internal, *point[2:4]))


def _require_memory(needed: int, device: torch.device) -> None:
    there = available_memory(device)
    if there is not None and needed > there:
        raise NoRoomError(
            f"Too little memory for the trajectory: it needs {readable(needed)} on {device}, but {readable(there)} "
            "are free. Keep fewer rows (every), or write them to a file (out)."
        )
