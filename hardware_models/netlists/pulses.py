"""Waveforms of sources: SPICE's PULSE, SIN and EXP, kept as what they say, to go on for as long as is asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from physics_ep.errors import InputError, argument_error

Points = tuple[tuple[float, float], ...]
"""Seconds and values."""
MOST_POINTS = 100_000
"""Most points of a waveform that is written out."""


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


@dataclass(frozen=True)
class Sine:
    """A damped sine from a delay on: SPICE's SIN(offset amplitude frequency delay damping phase).

    The value is offset + amplitude exp(-damping (t - delay)) sin(2 pi frequency (t - delay) + phase), and that of
    the delay before it (ngspice manual 4.1.2).

    Attributes
    ----------
    offset, amplitude : float
        Volts or amperes.
    frequency : float
        Hertz, positive.
    delay : float
        Seconds, not negative.
    damping : float
        1 / seconds.
    phase : float
        Degrees.

    Raises
    ------
    InputError
        If a value is not as above.
    """

    offset: float
    amplitude: float
    frequency: float
    delay: float = 0.0
    damping: float = 0.0
    phase: float = 0.0

    def __post_init__(self) -> None:
        for name in ("offset", "amplitude", "frequency", "delay", "damping", "phase"):
            if not math.isfinite(getattr(self, name)):
                raise argument_error(f"{name} of SIN", "be finite", getattr(self, name))
        if not self.frequency > 0:
            raise argument_error("frequency of SIN", "be positive", self.frequency)
        if not self.delay >= 0:
            raise argument_error("delay of SIN", "not be negative", self.delay)

    def at(self, t: float) -> float:
        """Value at a time, seconds."""
        passed = max(t - self.delay, 0.0)
        angle = 2 * math.pi * self.frequency * passed + math.radians(self.phase)
        return self.offset + self.amplitude * math.exp(-self.damping * passed) * math.sin(angle)

    @property
    def corners(self) -> tuple[float, ...]:
        """Times at which the slope jumps, seconds."""
        return (self.delay,)

    @property
    def longest(self) -> float:
        """Seconds that a step may take without passing over a wave."""
        return 1 / (8 * self.frequency)


@dataclass(frozen=True)
class Decay:
    """An exponential way from one level to another and back: SPICE's EXP(low high delay rise fall_delay fall).

    The value is low + (high - low) (1 - exp(-(t - delay) / rise)) from `delay` on, and from `fall_delay` on also
    + (low - high) (1 - exp(-(t - fall_delay) / fall)) (ngspice manual 4.1.3).

    Attributes
    ----------
    low, high : float
        Volts or amperes.
    delay, fall_delay : float
        Seconds, not negative.
    rise, fall : float
        Time constants, seconds, positive.

    Raises
    ------
    InputError
        If a value is not as above.
    """

    low: float
    high: float
    delay: float
    rise: float
    fall_delay: float
    fall: float

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            if not math.isfinite(getattr(self, name)):
                raise argument_error(f"{name} of EXP", "be finite", getattr(self, name))
        for name in ("rise", "fall"):
            if not 0 < getattr(self, name) < math.inf:
                raise argument_error(f"{name} of EXP", "be positive and finite", getattr(self, name))
        if not 0 <= self.delay <= self.fall_delay < math.inf:
            raise argument_error("delays of EXP", "rise from zero", (self.delay, self.fall_delay))

    def at(self, t: float) -> float:
        """Value at a time, seconds."""
        up = -math.expm1(-max(t - self.delay, 0.0) / self.rise)
        down = -math.expm1(-max(t - self.fall_delay, 0.0) / self.fall)
        return self.low + (self.high - self.low) * (up - down)

    @property
    def corners(self) -> tuple[float, ...]:
        """Times at which the slope jumps, seconds."""
        return (self.delay, self.fall_delay)

    @property
    def longest(self) -> float:
        """Longest step, seconds, that passes over no feature of the waveform between two corners: infinite."""
        return math.inf


Smooth = Sine | Decay
Waveform = Points | Pulse | Smooth
"""A source over time: straight lines between points and constant outside, or one of the above; an empty tuple:
constant."""


def corners(waveform: Points | Pulse, duration: float) -> Points:
    """Points of a waveform of straight lines that hold until a duration, seconds."""
    return waveform.points(duration) if isinstance(waveform, Pulse) else waveform
