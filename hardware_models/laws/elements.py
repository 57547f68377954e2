"""Laws of two-terminal circuit elements, each written once in plain arithmetic on a namespace argument.

As in `physics_ep.units`, `make(xp)` of an element returns its functions over `xp` (torch for tensors,
numpy for arrays and for scalars under numba); they call `xp` only. All are elementwise in the voltage v across the
element, volts, and take its three values p, q, r whatever it needs of them.

An element whose current i(v) depends on its own voltage alone has a *co-content* int_0^v i dv (Millar 1951; Cherry
1951), in watts. The co-content of a circuit of such elements, as a function of the node voltages, has Kirchhoff's
current law as its stationarity, and the second derivative of each is the element's slope: where no slope is
negative it is convex. Its derivative by an element's first value p is what learning needs (Kendall 2020,
theorem 1).

Differences are laws too: i(v + d) - i(v) and its like keep their digits however small d is, since nudged phases
live on them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Function = Callable[..., Any]
X = Any
"""A number or an array of the namespace."""

BOLTZMANN, CHARGE, TEMPERATURE = 1.38064852e-23, 1.6021766208e-19, 300.15
"""Joule per kelvin, coulomb, kelvin: as ngspice has them (27 degrees Celsius)."""
THERMAL_VOLTAGE = BOLTZMANN * TEMPERATURE / CHARGE
"""k T / q, volts."""


@dataclass(frozen=True)
class ElementFunctions:
    """Functions of an element over one namespace; all elementwise.

    Attributes
    ----------
    content : callable (v, p, q, r) -> int_0^v i dv
        Co-content, watts.
    current : callable (v, p, q, r) -> i
        Amperes, from the first terminal through the element to the second.
    slope : callable (v, p, q, r) -> di/dv
        Siemens.
    current_difference : callable (v, d, p, q, r) -> current(v + d) - current(v)
        Rounding-safe.
    value_slope : callable (v, p, q, r) -> d content / dp
    value_slope_difference : callable (v, d, p, q, r) -> value_slope(v + d) - value_slope(v)
        Rounding-safe.
    """

    content: Function
    current: Function
    slope: Function
    current_difference: Function
    value_slope: Function
    value_slope_difference: Function


@dataclass(frozen=True)
class Element:
    """The law of a two-terminal circuit element: current over voltage.

    Attributes
    ----------
    name : str
        Also a kind of part (`hardware_models.netlists.parts.KINDS`), whose values are p, q, r in order.
    kind : int
        Code by which kernels know it.
    linear : bool
        Whether its slope is constant.
    make : callable (xp) -> ElementFunctions
    """

    name: str
    kind: int
    linear: bool
    make: Callable[[Any], ElementFunctions]


def resistor(xp: Any) -> ElementFunctions:
    """Ohm's law: i = g v, with p = g in siemens. Co-content g v^2 / 2, d/dg = v^2 / 2."""

    def content(v: X, p: X, q: X, r: X) -> X:
        return 0.5 * p * v * v

    def current(v: X, p: X, q: X, r: X) -> X:
        return p * v

    def slope(v: X, p: X, q: X, r: X) -> X:
        return p + 0 * v

    def current_difference(v: X, d: X, p: X, q: X, r: X) -> X:
        return p * d

    def value_slope(v: X, p: X, q: X, r: X) -> X:
        return 0.5 * v * v

    def value_slope_difference(v: X, d: X, p: X, q: X, r: X) -> X:
        return d * (v + 0.5 * d)

    return ElementFunctions(content, current, slope, current_difference, value_slope, value_slope_difference)


def memristor(xp: Any) -> ElementFunctions:
    """Programmable conductance with a field-driven nonlinearity: i = g v0 sinh(v / v0).

    The conduction of oxide memristive cells (Yang et al. 2008, Nature Nanotechnology 3, 429, eq. 2, its sinh term);
    p = g, the conductance near v = 0 that programming sets, siemens; q = v0, volts. Linear as v0 grows.
    """

    def content(v: X, p: X, q: X, r: X) -> X:
        half = xp.sinh(0.5 * v / q)
        return 2 * p * q * q * half * half  # g v0^2 (cosh(v / v0) - 1)

    def current(v: X, p: X, q: X, r: X) -> X:
        return p * q * xp.sinh(v / q)

    def slope(v: X, p: X, q: X, r: X) -> X:
        return p * xp.cosh(v / q)

    def current_difference(v: X, d: X, p: X, q: X, r: X) -> X:
        return 2 * p * q * xp.sinh(0.5 * d / q) * xp.cosh((v + 0.5 * d) / q)

    def value_slope(v: X, p: X, q: X, r: X) -> X:
        half = xp.sinh(0.5 * v / q)
        return 2 * q * q * half * half

    def value_slope_difference(v: X, d: X, p: X, q: X, r: X) -> X:
        return 2 * q * q * xp.sinh(0.5 * d / q) * xp.sinh((v + 0.5 * d) / q)

    return ElementFunctions(content, current, slope, current_difference, value_slope, value_slope_difference)


def diode(xp: Any) -> ElementFunctions:
    """Shockley's diode: i = Is (exp(v / (n VT)) - 1), from anode to cathode (Shockley 1949).

    p = Is, amperes; q = n, the emission coefficient; VT = k T / q at 27 degrees Celsius. Co-content
    Is (n VT (exp(v / (n VT)) - 1) - v).
    """

    def content(v: X, p: X, q: X, r: X) -> X:
        scale = q * THERMAL_VOLTAGE
        return p * (scale * xp.expm1(v / scale) - v)

    def current(v: X, p: X, q: X, r: X) -> X:
        return p * xp.expm1(v / (q * THERMAL_VOLTAGE))

    def slope(v: X, p: X, q: X, r: X) -> X:
        scale = q * THERMAL_VOLTAGE
        return (p / scale) * xp.exp(v / scale)

    def current_difference(v: X, d: X, p: X, q: X, r: X) -> X:
        scale = q * THERMAL_VOLTAGE
        return p * xp.exp(v / scale) * xp.expm1(d / scale)

    def value_slope(v: X, p: X, q: X, r: X) -> X:
        scale = q * THERMAL_VOLTAGE
        return scale * xp.expm1(v / scale) - v

    def value_slope_difference(v: X, d: X, p: X, q: X, r: X) -> X:
        scale = q * THERMAL_VOLTAGE
        return scale * xp.exp(v / scale) * xp.expm1(d / scale) - d

    return ElementFunctions(content, current, slope, current_difference, value_slope, value_slope_difference)


def piecewise_diode(xp: Any) -> ElementFunctions:
    """Make the functions of a piecewise-linear diode, i = r v + p max(v - q, 0), over `xp` (torch or numpy).

    The voltage v is across the diode, volts, and the current i goes from anode to cathode, amperes. The conductance
    that turns on is p, siemens; the threshold is q, volts, not negative; the leakage is r, siemens. The co-content
    is r v^2 / 2 + p max(v - q, 0)^2 / 2, watts. At the threshold the slope is r, as below it.
    """

    def content(v: X, p: X, q: X, r: X) -> X:
        over = (v - q) * (v > q)
        return 0.5 * (r * v * v + p * over * over)

    def current(v: X, p: X, q: X, r: X) -> X:
        return r * v + p * (v - q) * (v > q)

    def slope(v: X, p: X, q: X, r: X) -> X:
        return r + p * (v > q)

    def current_difference(v: X, d: X, p: X, q: X, r: X) -> X:
        # max(a + d, 0) - max(a, 0) with a = v - q: no difference where both are on or both off.
        a = v - q
        both = d * ((a > 0) & (a + d > 0))
        return r * d + p * (both + (a + d) * ((a <= 0) & (a + d > 0)) - a * ((a > 0) & (a + d <= 0)))

    def value_slope(v: X, p: X, q: X, r: X) -> X:
        over = (v - q) * (v > q)
        return 0.5 * over * over

    def value_slope_difference(v: X, d: X, p: X, q: X, r: X) -> X:
        a = v - q
        both = d * (a + 0.5 * d) * ((a > 0) & (a + d > 0))
        rising = 0.5 * (a + d) * (a + d) * ((a <= 0) & (a + d > 0))
        return both + rising - 0.5 * a * a * ((a > 0) & (a + d <= 0))

    return ElementFunctions(content, current, slope, current_difference, value_slope, value_slope_difference)


def current_source(xp: Any) -> ElementFunctions:
    """Current source: i = p amperes, from the first terminal through the source to the second, whatever v is."""

    def content(v: X, p: X, q: X, r: X) -> X:
        return p * v

    def current(v: X, p: X, q: X, r: X) -> X:
        return p + 0 * v

    def slope(v: X, p: X, q: X, r: X) -> X:
        return 0 * v

    def current_difference(v: X, d: X, p: X, q: X, r: X) -> X:
        return 0 * d

    def value_slope(v: X, p: X, q: X, r: X) -> X:
        return v

    def value_slope_difference(v: X, d: X, p: X, q: X, r: X) -> X:
        return d

    return ElementFunctions(content, current, slope, current_difference, value_slope, value_slope_difference)


ELEMENTS: dict[str, Element] = {
    element.name: element
    for element in (
        Element("resistor", 0, linear=True, make=resistor),
        Element("diode", 1, linear=False, make=diode),
        Element("piecewise_diode", 2, linear=False, make=piecewise_diode),
        Element("memristor", 3, linear=False, make=memristor),
        Element("current_source", 4, linear=True, make=current_source),
    )
}
"""Element laws by name: elements with a co-content of their own voltage."""
