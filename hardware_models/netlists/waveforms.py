"""What sources do over time: straight pieces between the points of their waveforms, and smooth ones."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from physics_ep.errors import argument_error

from .parts import Group, Parts
from .pulses import Decay, Sine, Smooth, Waveform, corners

Array = np.ndarray


class Waveforms:
    """Voltages and currents of a circuit's independent sources over a duration.

    Parameters
    ----------
    parts : Parts
    inputs : array (B, n_voltage_sources) or None
        Volts of the sources that have no waveform; None: the parts' own.
    duration : float
        Seconds.

    Attributes
    ----------
    edges : array (pieces + 1,)
        Times between which every source is a straight line or smooth, from 0 to the duration.
    longest : float
        Seconds that a step may take without passing over a wave.

    Raises
    ------
    InputError
        If the times of a waveform fall, or it is not finite.
    """

    def __init__(self, parts: Parts, inputs: Array | None, duration: float) -> None:
        self._volts, self._amperes = parts.group("voltage_source"), parts.group("current_source")
        self._base = self._volts.values.reshape(1, -1) if inputs is None else inputs
        self._courses: dict[str, tuple[Array, Array]] = {}
        self._smooth: dict[str, Smooth] = {}
        self.longest = math.inf
        times = [0.0, duration]
        for group in (self._volts, self._amperes):
            for name, waveform in group.waveforms.items():
                if isinstance(waveform, Sine | Decay):
                    self._smooth[name] = waveform
                    self.longest = min(self.longest, waveform.longest)
                    times += [t for t in waveform.corners if 0 < t < duration]
                    continue
                points = corners(waveform, duration)
                when = np.array(points, np.float64)
                if when.ndim != 2 or when.shape[1] != 2 or not np.isfinite(when).all():
                    raise argument_error(f"waveform of {name!r}", "hold pairs of finite numbers", points)
                if (np.diff(when[:, 0]) < 0).any():
                    raise argument_error(
                        f"waveform of {name!r}", "have times that do not fall", when[:, 0].tolist()
                    )
                self._courses[name] = when[:, 0], when[:, 1]
                times += [t for t in when[:, 0].tolist() if 0 < t < duration]
        self.edges = np.unique(times)

    def piece(self, k: int) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        """Volts (B, sources) and amperes (1, sources) at the beginning and at the end of piece k."""
        return self.at(self.edges[k], after=True), self.at(self.edges[k + 1], after=False)

    def course(self, k: int) -> Callable[[float], tuple[Array, Array]]:
        """Volts (B, sources) and amperes (1, sources) as a function of the time within piece k."""
        start, end = self.edges[k], self.edges[k + 1]
        (v0, i0), (v1, i1) = self.piece(k)

        def levels(t: float) -> tuple[Array, Array]:
            share = min((t - start) / (end - start), 1.0)
            volts, amperes = v0 + share * (v1 - v0), i0 + share * (i1 - i0)
            if self._smooth:
                for group, values in ((self._volts, volts), (self._amperes, amperes)):
                    for name in group.waveforms.keys() & self._smooth.keys():
                        values[:, group.names.index(name)] = self._smooth[name].at(t)
            return volts, amperes

        return levels

    def at(self, t: float, after: bool) -> tuple[Array, Array]:
        """Volts (B, sources) and amperes (1, sources) just after or just before time t."""
        amperes = self._amperes.values.reshape(1, -1)
        return self._values(self._volts, self._base, t, after), self._values(self._amperes, amperes, t, after)

    def _values(self, group: Group, base: Array, t: float, after: bool) -> Array:
        out = np.array(base)
        for name in group.waveforms:
            smooth = self._smooth.get(name)
            value = _value(*self._courses[name], t, after) if smooth is None else smooth.at(t)
            out[:, group.names.index(name)] = value
        return out


def value_at_zero(waveform: Waveform) -> float:
    """Value of a waveform up to time 0."""
    if isinstance(waveform, Sine | Decay):
        return waveform.at(0.0)
    times, values = np.array(corners(waveform, 0.0), np.float64).T
    return _value(times, values, 0.0, after=False)


def _value(times: Array, values: Array, t: float, after: bool) -> float:
    k = int(np.searchsorted(times, t, side="right" if after else "left"))
    if 0 < k < len(times):
        share = (t - times[k - 1]) / (times[k] - times[k - 1])
        value = values[k - 1] + share * (values[k] - values[k - 1])
    else:
        value = values[min(k, len(times) - 1)]
    return float(value)
