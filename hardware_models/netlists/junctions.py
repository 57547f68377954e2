"""SPICE's diode: Shockley's law with what ngspice adds to it, as a function of the voltage across the junction.

With x = v / (n VT) (ngspice 39, dioload.c; manual 7.1):

    v >= -3 n VT:         Is (exp(x) - 1) + recombination, over 1 + sqrt(that / IKF)         (high injection)
    -BV <= v < -3 n VT:   -Is (1 + (3 / (e x))^3)
    v < -BV:              -Is exp(-(BV + v) / (nbv VT))                                      (breakdown)

with the recombination current ISR (exp(v / (nr VT)) - 1) ((1 - v / VJ)^2 + 0.005)^(M / 2). BV is the voltage that
ngspice computes from BV and IBV (`breakdown_knee`). All values are those at the temperature of the part; VT is that
of 27 degrees, whose ratio the emission coefficients carry.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..laws.elements import THERMAL_VOLTAGE, ElementFunctions

LEAST_CURRENT = 1e-18
"""Amperes above which high injection counts, as in ngspice."""


def spice_diode() -> ElementFunctions:
    """The law over numpy; values: Is, n, BV, nbv, IKF, ISR, nr, VJ, M, where 0 V and 0 A stand for none.

    The functions that only learning needs are not there, since no energy is claimed for circuits with these diodes.
    """

    def conducting(v: Any, values: Any) -> Any:
        """Current above -3 n VT; what no diode has (recombination, high injection) is not computed."""
        saturation, n, _, _, knee, recombining, nr, potential, grading = values
        current = saturation * np.expm1(v / (n * THERMAL_VOLTAGE))
        if np.any(recombining):
            factor = ((1 - v / potential) ** 2 + 0.005) ** (0.5 * grading)
            current = current + recombining * np.expm1(v / (nr * THERMAL_VOLTAGE)) * factor
        if np.any(knee):
            injected = (knee > 0) & (current > LEAST_CURRENT)
            current = current / (1 + np.sqrt(np.where(injected, current, 0.0) / np.where(knee > 0, knee, 1.0)))
        return current

    def rising(v: Any, values: Any) -> Any:
        """Slope above -3 n VT."""
        saturation, n, _, _, knee, recombining, nr, potential, grading = values
        scale, slow = n * THERMAL_VOLTAGE, nr * THERMAL_VOLTAGE
        slope = saturation / scale * np.exp(v / scale)
        current = saturation * np.expm1(v / scale)
        if np.any(recombining):
            base = (1 - v / potential) ** 2 + 0.005
            factor = base ** (0.5 * grading)
            bare = recombining * np.expm1(v / slow)
            current = current + bare * factor
            change = -grading * (1 - v / potential) / potential * base ** (0.5 * grading - 1)
            slope = slope + recombining / slow * np.exp(v / slow) * factor + bare * change
        if np.any(knee):
            injected = (knee > 0) & (current > LEAST_CURRENT)
            root = np.sqrt(np.where(injected, current, 0.0) / np.where(knee > 0, knee, 1.0))
            slope = slope * (1 + 0.5 * root) / (1 + root) ** 2
        return slope

    def current(v: Any, *values: Any) -> Any:
        saturation, n, breakdown, nbv, *_ = values
        scale = n * THERMAL_VOLTAGE
        with np.errstate(all="ignore"):
            found = conducting(np.maximum(v, -3 * scale), values)
            blocks = v < -3 * scale
            if not np.any(blocks):
                return found
            reverse = -saturation * (1 + (3 * scale / (math.e * np.minimum(v, -3 * scale))) ** 3)
            broken = blocks & (breakdown > 0) & (v < -breakdown)
            if np.any(broken):
                growth = np.exp(-(breakdown + v) / (nbv * THERMAL_VOLTAGE))
                reverse = np.where(broken, -saturation * growth, reverse)
            return np.where(blocks, reverse, found)

    def slope(v: Any, *values: Any) -> Any:
        saturation, n, breakdown, nbv, *_ = values
        scale, steep = n * THERMAL_VOLTAGE, nbv * THERMAL_VOLTAGE
        with np.errstate(all="ignore"):
            found = rising(np.maximum(v, -3 * scale), values)
            blocks = v < -3 * scale
            if not np.any(blocks):
                return found
            low = np.minimum(v, -3 * scale)
            flat = 3 * saturation * (3 * scale / (math.e * low)) ** 3 / low
            broken = blocks & (breakdown > 0) & (v < -breakdown)
            if np.any(broken):
                flat = np.where(broken, saturation * np.exp(-(breakdown + v) / steep) / steep, flat)
            return np.where(blocks, flat, found)

    def absent(*_: Any) -> Any:
        raise NotImplementedError("no energy is claimed for SPICE's diode")

    return ElementFunctions(absent, current, slope, absent, absent, absent)


def breakdown_knee(voltage: float, current: float, saturation: float, emission: float, thermal: float) -> float:
    """Voltage at which breakdown begins, volts, so that IBV flows at BV (ngspice 39, diotemp.c).

    Parameters
    ----------
    voltage, current : float
        BV and IBV.
    saturation : float
        Is, amperes.
    emission : float
        Emission coefficient of breakdown.
    thermal : float
        kT/q, volts.
    """
    if current < saturation * voltage / thermal:
        return voltage
    knee = voltage - emission * thermal * math.log1p(current / saturation)
    for _ in range(25):
        knee = voltage - emission * thermal * math.log(max(current / saturation + 1 - knee / thermal, 1e-300))
    return knee
