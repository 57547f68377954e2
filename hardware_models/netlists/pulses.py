"""Pulses of sources: SPICE's PULSE, kept as what it says, to go on for as long as a transient is asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from physics_ep.errors import InputError, argument_error

Points = tuple[tuple[float, float], ...]
"""Seconds and values."""
MOST_POINTS = 100_000
"""Of a waveform that is written out."""


@dataclass(frozen=True)
class Pulse:
    """A pulse, repeated or not: SPICE's PULSE(low high delay rise fall width period count).

    Attributes
    ----------
    low, high : float
        Volts or amperes.
    delay, rise, fall : float
        Seconds. A negative delay begins within the course; an edge of 0 s is a jump.
    width : float
        Seconds at the high value; inf: until the end.
    period : float
        Seconds from one pulse to the next; inf: there is one. Where it ends before the pulse does, the next begins.
    count : int
        Number of pulses; 0: without end.

    Raises
    ------
    InputError
        If a value is not as above.
    """

    low: float
    high: float
    delay: float = 0.0
    rise: float = 0.0
    fall: float = 0.0
    width: float = math.inf
    period: float = math.inf
    count: int = 0

    def __post_init__(self) -> None:
        for name in ("low", "high", "delay"):
            if not math.isfinite(getattr(self, name)):
                raise argument_error(f"{name} of PULSE", "be finite", getattr(self, name))
        for name in ("rise", "fall"):
            if not 0 <= getattr(self, name) < math.inf:
                raise argument_error(f"{name} of PULSE", "be finite and not negative", getattr(self, name))
        if not self.width >= 0:
            raise argument_error("width of PULSE", "not be negative", self.width)
        if not self.period > 0:
            raise argument_error("period of PULSE", "be positive", self.period)
        if self.count < 0 or self.count != int(self.count):
            raise argument_error("number of pulses of PULSE", "be a whole number, and not negative", self.count)

    def points(self, duration: float) -> Points:
        """Corners (seconds, value) from before time 0 until past the duration; a jump has two at its time.

        Raises
        ------
        InputError
            If there are more than `MOST_POINTS`.
        """
        repeats = math.isfinite(self.period)
        first = max(0, math.floor(-self.delay / self.period) - 1) if repeats else 0
        last = max(first, math.ceil((duration - self.delay) / self.period)) if repeats else 0
        if self.count:
            last = min(last, self.count - 1)
        if 5 * (last - first) > MOST_POINTS:
            raise InputError(
                f"PULSE repeats {last - first} times within {duration:g} s: too often to write out (its period is "
                f"{self.period:g} s)."
            )
        cycle = self._cycle()
        found: list[tuple[float, float]] = []
        for k in range(first, last + 1):
            began = self.delay + (k * self.period if k else 0.0)
            ended = self.delay + (k + 1) * self.period
            for t, v in cycle:
                at = began + t
                # The next pulse begins where this one ends, to the last digit.
                found.append((ended if at > ended - 1e-9 * self.period else at, v))
        if self.count and cycle[-1][1] != self.low:
            found.append((ended, self.low))
        return tuple(found)

    def _cycle(self) -> list[tuple[float, float]]:
        """Corners of one pulse, up to its period."""
        corners = [(0.0, self.low), (self.rise, self.high)]
        if math.isfinite(self.width):
            corners += [(self.rise + self.width, self.high), (self.rise + self.width + self.fall, self.low)]
        elif math.isfinite(self.period):
            corners.append((max(self.period, self.rise), self.high))
        kept = [corners[0]]
        for (t0, v0), (t1, v1) in pairwise(corners):
            if t1 > self.period:
                kept.append((self.period, v0 + (self.period - t0) / (t1 - t0) * (v1 - v0)))
                break
            kept.append((t1, v1))
        return kept


Waveform = Points | Pulse
"""A source over time: straight lines between points and constant outside, or a pulse; an empty tuple: constant."""


def corners(waveform: Waveform, duration: float) -> Points:
    """Points of a waveform that hold until a duration, seconds."""
    return waveform.points(duration) if isinstance(waveform, Pulse) else waveform
