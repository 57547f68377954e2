"""Memristors whose state moves in time: i = v / R(s), R(s) = R_on s + R_off (1 - s), ds/dt = f(s, v).

The state s is the conducting share of the device, 0 to 1. Rates, with n the exponent of the window:

    linear drift   f = mu R_on / D^2 i F(s), F = 1 - (2 s - 1)^(2 n)
                   (Strukov, Snider, Stewart and Williams 2008, Nature 453, 80, equations 5 and 6; window of
                   Joglekar and Wolf 2009, European Journal of Physics 30, 661)
    Biolek         the same with F = 1 - (s - step(-i))^(2 n)
                   (Biolek, Biolek and Biolkova 2009, Radioengineering 18, 210)
    VTEAM          f = -k_off / D (v / v_off - 1)^alpha_off (1 - (1 - s)^(2 n))    for v > v_off > 0
                   f = -k_on / D (v / v_on - 1)^alpha_on (1 - s^(2 n))             for v < v_on < 0
                   and 0 between (Kvatinsky, Ramadan, Friedman and Kolodny 2015, IEEE Transactions on Circuits and
                   Systems II 62, 786, with w = D (1 - s), k_on < 0 and Biolek's windows)

Signs are those of the publications: a positive voltage switches the first two on, and the last off. Joglekar's
window lets a state that has reached an end leave it only from what rounding and tolerance left of the way, since
F is zero there for both signs of the current; the others let it leave at once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..netlists.memristors import STATEFUL
from ..netlists.parts import Parts

Array = np.ndarray


class StateRate(NamedTuple):
    """Rates at which the states of m memristors change, and how they depend on voltage and state.

    Attributes
    ----------
    value : array (B, m)
        Rates ds/dt, 1/s.
    by_voltage : array (B, m)
        Derivatives of the rates by the memristors' voltages, 1/(V s).
    by_state : array (B, m)
        Derivatives of the rates by the states, 1/s.
    """

    value: Array
    by_voltage: Array
    by_state: Array


class Memristors:
    """All memristors of a parts list that have a state, kind by kind in the order of `STATEFUL`.

    Parameters
    ----------
    parts : Parts

    Attributes
    ----------
    names : tuple of str (m,)
    where : dict of str to slice
        Memristors by kind.
    nodes : int64 array (m, 2)
    states : array (m,)
        States at the start.
    on, off : array (m,)
        Ohm.
    span : array (m,)
        Seconds that a volt takes, by order of magnitude, to switch: what the rates are scaled by.
    """

    def __init__(self, parts: Parts) -> None:
        groups = [(kind, parts.group(kind)) for kind in STATEFUL]
        self.where: dict[str, slice] = {}
        count = 0
        for kind, group in groups:
            self.where[kind] = slice(count, count + len(group))
            count += len(group)
        self.names = tuple(name for _, group in groups for name in group.names)
        self.nodes = np.concatenate([group.nodes for _, group in groups])
        self.on, self.off, self.states = (np.concatenate([g.values[:, k] for _, g in groups]) for k in (0, 1, -1))
        self._values = {kind: tuple(group.values[:, 2:].T) for kind, group in groups if len(group)}
        self.span = np.ones(count)
        for kind, values in self._values.items():
            at = self.where[kind]
            if kind == "vteam_memristor":
                self.span[at] = values[6] / np.maximum(-values[2], values[3])
            else:
                self.span[at] = values[1] ** 2 * self.off[at] / (values[0] * self.on[at])

    def __len__(self) -> int:
        return len(self.names)

    def resistance(self, s: Array) -> Array:
        """Ohm at states s (..., m)."""
        return self.on * s + self.off * (1 - s)

    def weight(self, s: Array) -> Array:
        """Relative change of the resistance by a change of the state, at least 1: the weight of an error."""
        return np.maximum((self.off - self.on) / np.abs(self.resistance(s)), 1.0)

    def slopes(self, v: Array, s: Array) -> tuple[Array, Array]:
        """Derivatives of the current v / R by the voltage, siemens, and by the state, amperes."""
        conductance = 1 / self.resistance(s)
        return np.broadcast_to(conductance, v.shape), v * (self.off - self.on) * conductance**2

    def rate(self, v: Array, s: Array) -> StateRate:
        """How the states s (B, m) move under the voltages v (B, m)."""
        found = StateRate(np.empty_like(v), np.empty_like(v), np.empty_like(v))
        for kind, values in self._values.items():
            at = self.where[kind]
            law = _vteam if kind == "vteam_memristor" else _drift
            piece = law(v[:, at], s[:, at], self.on[at], self.off[at], values, kind)
            for whole, part in zip(found, piece, strict=True):
                whole[:, at] = part
        return found


def _power(base: Array, exponent: Array) -> tuple[Array, Array]:
    """|base|^exponent and its derivative by the base; a slope that is infinite at 0 counts as 0."""
    size = np.abs(base)
    tiny = size == 0
    slope = exponent * np.where(tiny, 1.0, size) ** (exponent - 1) * np.sign(base)
    return size**exponent, slope


def _drift(v: Array, s: Array, on: Array, off: Array, values: tuple[Array, ...], kind: str) -> StateRate:
    mobility, length, exponent, _ = values
    resistance = on * s + off * (1 - s)
    k = mobility * on / length**2
    current, by_state = v / resistance, v * (off - on) / resistance**2
    if kind == "biolek_memristor":
        power, slope = _power(s - (v < 0), 2 * exponent)
        window, bend = 1 - power, -slope
    else:
        power, slope = _power(2 * s - 1, 2 * exponent)
        within = power < 1
        window, bend = np.where(within, 1 - power, 0.0), np.where(within, -2 * slope, 0.0)
    return StateRate(k * current * window, k * window / resistance, k * (by_state * window + current * bend))


def _vteam(v: Array, s: Array, on: Array, off: Array, values: tuple[Array, ...], kind: str) -> StateRate:
    on_at, off_at, on_rate, off_rate, on_power, off_power, length, exponent, _ = values
    closing, closing_slope = _power(np.maximum(v / on_at - 1, 0.0), on_power)
    opening, opening_slope = _power(np.maximum(v / off_at - 1, 0.0), off_power)
    full, full_slope = _power(s, 2 * exponent)
    empty, empty_slope = _power(s - 1, 2 * exponent)
    up, down = -on_rate / length, off_rate / length
    return StateRate(
        up * closing * (1 - full) - down * opening * (1 - empty),
        up * closing_slope / on_at * (1 - full) - down * opening_slope / off_at * (1 - empty),
        -up * closing * full_slope + down * opening * empty_slope,
    )
