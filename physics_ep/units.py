"""Laws of units, each written once in plain arithmetic on a namespace argument.

A *unit* gives the local potential Psi of a node. Its response sigma = (dPsi/ds)^-1 takes the drive p on it to the
state that minimises Psi(s) - p s. Activations of predictive coding layers, layered networks and compiled graphs of
units are made of these laws.

`make(xp)` of a law returns its functions over `xp`: torch for tensors of any shape, numpy for scalars under numba
and for arrays. The functions call `xp` only, never each other, so that numba can compile them one by one.

Differences are laws too: sigma(p + d) - sigma(p) keeps its digits however small d is and however far p saturates,
since a nudged phase lives on them.
"""

from __future__ import annotations

import copyreg
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

Function = Callable[..., Any]
X = Any
"""A number or an array of the namespace."""


@dataclass(frozen=True)
class UnitFunctions:
    """Functions of a unit over one namespace; all elementwise. Those of `torch_functions` pickle by their name.

    Attributes
    ----------
    potential : callable (s) -> Psi
        Finite on the bounds.
    inverse : callable (s) -> p
        dPsi/ds, the drive at which s rests; infinite on the bounds of a saturating unit.
    response : callable (p) -> s
        sigma(p), within the bounds.
    slope : callable (p) -> sigma'(p)
    curvature : callable (s) -> d2Psi/ds2
    anchor : callable (p) -> tuple
        What `displaced` needs of the drive p; compute it once where p is constant.
    displaced : callable (d, *anchor) -> sigma(p + d) - sigma(p)
        For real arguments. No cancellation: a relative error of some eps (1 + |p|), which is what rounding the
        drive costs anyway.
    """

    potential: Function
    inverse: Function
    response: Function
    slope: Function
    curvature: Function
    anchor: Function
    displaced: Function

    def difference(self, p: X, d: X) -> X:
        """sigma(p + d) - sigma(p), rounding-safe."""
        return self.displaced(d, *self.anchor(p))

    def __reduce__(self) -> Any:
        for name in UNITS:
            if torch_functions(name) is self:
                return torch_functions, (name,)
        return copyreg.__newobj__, (type(self),), self.__dict__  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Unit:
    """A unit of an energy system: its local potential, response and bounds.

    Attributes
    ----------
    name : str
    kind : int or None
        Code by which compiled kernels know it; None for a law that they do not have.
    bounds : (float, float)
        Least and greatest state.
    analytic : bool
        Whether Psi and sigma continue to complex arguments.
    quadratic : bool
        Whether Psi = s^2 / 2 within the bounds. A nudge beta (s - y)^2 / 2 then keeps the unit's form:
        s = sigma((p + beta y) / (1 + beta)).
    make : callable (xp) -> UnitFunctions
    """

    name: str
    kind: int | None
    bounds: tuple[float, float]
    analytic: bool
    quadratic: bool
    make: Callable[[Any], UnitFunctions]


def within(bounds: tuple[float, float], eps: float) -> tuple[float, float]:
    """Bounds of a saturating unit, narrowed by rounding.

    On the bound itself Psi is finite and its slope is not, so that autograd of Psi sees no barrier there. General
    methods, which follow autograd, are kept this far inside.
    """
    low, high = bounds
    return low + eps, high - eps


def linear(xp: Any) -> UnitFunctions:
    """Linear unit: Psi = s^2 / 2, sigma(p) = p."""

    def potential(s: X) -> X:
        return 0.5 * s * s

    def inverse(s: X) -> X:
        return s

    def response(p: X) -> X:
        return p

    def slope(p: X) -> X:
        return 0 * p + 1

    def anchor(p: X) -> X:
        return ()

    def displaced(d: X) -> X:
        return d

    return UnitFunctions(potential, inverse, response, slope, slope, anchor, displaced)


def clipped(low: float, high: float) -> Callable[[Any], UnitFunctions]:
    """Clipped unit: Psi = s^2 / 2 on [low, high], sigma(p) = clip(p, low, high).

    The slope at the kinks p = low and p = high is taken from outside: 0.
    """

    def make(xp: Any) -> UnitFunctions:
        def potential(s: X) -> X:
            return 0.5 * s * s

        def inverse(s: X) -> X:
            return s

        def response(p: X) -> X:
            return xp.clip(p, low, high)

        def slope(p: X) -> X:
            return (0 * p + 1) * ((p > low) & (p < high))

        def curvature(s: X) -> X:
            return 0 * s + 1

        def anchor(p: X) -> X:
            # How far the state may move down and up, and how far the drive lies beyond it.
            s = xp.clip(p, low, high)
            return low - s, high - s, p - s

        def displaced(d: X, below: X, above: X, beyond: X) -> X:
            return xp.clip(d + beyond, below, above)

        def displaced_tensor(d: torch.Tensor, below: X, above: X, beyond: X) -> torch.Tensor:
            moved = d + beyond  # large: it is clipped where it lies
            return torch.clip(moved, below, above, out=None if moved.requires_grad else moved)

        moved = displaced_tensor if xp is torch else displaced
        return UnitFunctions(potential, inverse, response, slope, curvature, anchor, moved)

    return make


hard_sigmoid = clipped(0.0, 1.0)
"""Hard sigmoid (Scellier and Bengio 2017, section 2.2)."""


def logistic(xp: Any) -> UnitFunctions:
    """Make the functions of the logistic unit over the namespace `xp` (torch or numpy).

    The potential is Psi = s log s + (1 - s) log(1 - s), the response sigma(p) = 1 / (1 + exp(-p)) (Hopfield 1984,
    eq. 7). For d >= 0 the difference sigma(p + d) - sigma(p) is computed as (1 - e^-d) sigma(-p) sigma(p + d), in
    which nothing cancels and nothing overflows. For d < 0 it is the same expression of -p and -d, with the opposite
    sign. A complex d is treated by the sign of its real part.
    """

    # Adding (s == 0) inside the logarithm makes 0 log 0 = 0, also for automatic differentiation.
    def potential(s: X) -> X:
        return s * xp.log(s + (s == 0)) + (1 - s) * xp.log1p(-s + (s == 1))

    def inverse(s: X) -> X:
        return xp.log(s) - xp.log1p(-s)

    def response(p: X) -> X:
        return 1 / (1 + xp.exp(-p))

    def slope(p: X) -> X:
        return 1 / ((1 + xp.exp(-p)) * (1 + xp.exp(p)))

    def curvature(s: X) -> X:
        return 1 / (s * (1 - s))

    def anchor(p: X) -> X:
        return (p,)

    def displaced(d: X, p: X) -> X:
        g = 1 - 2 * (d.real < 0)
        return -g * xp.expm1(-g * d) / ((1 + xp.exp(g * p)) * (1 + xp.exp(-g * (p + d))))

    return UnitFunctions(potential, inverse, response, slope, curvature, anchor, displaced)


def tanh(xp: Any) -> UnitFunctions:
    """Hyperbolic tangent: Psi = s atanh(s) + log(1 - s^2) / 2, sigma(p) = tanh(p) (Hopfield 1984, eq. 7).

    Slope and difference are those of the logistic unit at twice the argument, as tanh(p) = 2 logistic(2 p) - 1.
    Unlike 1 - T^2 and t (1 - T^2) / (1 + T t) with T = tanh p, t = tanh d, they stand when T rounds to 1.
    """

    def potential(s: X) -> X:
        return 0.5 * ((1 + s) * xp.log1p(s + (s == -1)) + (1 - s) * xp.log1p(-s + (s == 1)))

    def inverse(s: X) -> X:
        return xp.arctanh(s)

    def response(p: X) -> X:
        return xp.tanh(p)

    def slope(p: X) -> X:
        return 4 / ((1 + xp.exp(-2 * p)) * (1 + xp.exp(2 * p)))

    def curvature(s: X) -> X:
        return 1 / ((1 - s) * (1 + s))

    def anchor(p: X) -> X:
        return (p,)

    def displaced(d: X, p: X) -> X:
        g = 2 * (1 - 2 * (d.real < 0))
        return -g * xp.expm1(-g * d) / ((1 + xp.exp(g * p)) * (1 + xp.exp(-g * (p + d))))

    return UnitFunctions(potential, inverse, response, slope, curvature, anchor, displaced)


INFINITY = float("inf")

UNITS: dict[str, Unit] = {
    unit.name: unit
    for unit in (
        Unit("linear", 0, (-INFINITY, INFINITY), analytic=True, quadratic=True, make=linear),
        Unit("hard_sigmoid", 1, (0.0, 1.0), analytic=False, quadratic=True, make=hard_sigmoid),
        Unit("tanh", 2, (-1.0, 1.0), analytic=True, quadratic=False, make=tanh),
        Unit("logistic", 3, (0.0, 1.0), analytic=True, quadratic=False, make=logistic),
    )
}
"""Unit laws by name."""


@functools.cache
def torch_functions(name: str) -> UnitFunctions:
    """Functions of a unit over torch, by its name: the same object each time, so that systems can be pickled."""
    return UNITS[name].make(torch)
