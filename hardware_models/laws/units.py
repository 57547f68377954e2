"""Element laws, each written once in plain arithmetic on a namespace argument.

`make(xp)` of a law returns its functions over `xp`: torch for tensors of any shape, numpy for scalars under numba
and for arrays. The functions call `xp` only, never each other, so that numba can compile them one by one.

Two kinds of law make up an energy

    E = sum_i Psi_i(s_i) + sum_edges e(w, s_i, s_j) - sum_i b_i s_i .

* A *unit* gives the local potential Psi of a node. Its response sigma = (dPsi/ds)^-1 takes the drive
  p = b - sum_edges de/ds to the state that minimises E over that node alone.
* A *coupling* gives the pair energy e(w, a, b), symmetric in a and b and linear in its parameter w.

Differences are laws too: sigma(p + d) - sigma(p) keeps its digits however small d is and however far p saturates,
since a nudged phase lives on them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Function = Callable[..., Any]
X = Any
"""A number or an array of the namespace."""


@dataclass(frozen=True)
class UnitFunctions:
    """Functions of a unit over one namespace; all elementwise.

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


@dataclass(frozen=True)
class Unit:
    """A local potential.

    Attributes
    ----------
    name : str
    kind : int
        Code by which kernels know it.
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
    kind: int
    bounds: tuple[float, float]
    analytic: bool
    quadratic: bool
    make: Callable[[Any], UnitFunctions]


@dataclass(frozen=True)
class Factor:
    """One factor of a separable coupling, a function of one state.

    Attributes
    ----------
    value, derivative : callable (v)
    difference : callable (v, d) -> value(v + d) - value(v)
        Rounding-safe.
    """

    value: Function
    derivative: Function
    difference: Function


@dataclass(frozen=True)
class CouplingFunctions:
    """Functions of a coupling over one namespace; all elementwise.

    Attributes
    ----------
    energy : callable (w, a, b) -> e
    slope : callable (w, a, b) -> de/da
        By symmetry de/db is slope(w, b, a).
    curvature : callable (w, a, b) -> d2e/da2
    mixed : callable (w, a, b) -> d2e/dadb
    weight_slope : callable (a, b) -> de/dw
    slope_difference : callable (w, a, b, da, db) -> slope(w, a + da, b + db) - slope(w, a, b)
        Rounding-safe.
    weight_slope_difference : callable (a, b, da, db) -> weight_slope(a + da, b + db) - weight_slope(a, b)
        Rounding-safe.
    factors : tuple of (Factor, Factor)
        Separable form: e = sum_r phi_r(a) (sign w) psi_r(b), one pair (phi_r, psi_r) a rank.
    sign : float
    """

    energy: Function
    slope: Function
    curvature: Function
    mixed: Function
    weight_slope: Function
    slope_difference: Function
    weight_slope_difference: Function
    factors: tuple[tuple[Factor, Factor], ...]
    sign: float


@dataclass(frozen=True)
class Coupling:
    """A pair energy.

    Attributes
    ----------
    name : str
    kind : int
        Code by which kernels know it.
    analytic : bool
        Whether it continues to complex states.
    make : callable (xp) -> CouplingFunctions
    """

    name: str
    kind: int
    analytic: bool
    make: Callable[[Any], CouplingFunctions]


# -- units ------------------------------------------------------------------------------------------------------


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


def hard_sigmoid(xp: Any) -> UnitFunctions:
    """Hard sigmoid: Psi = s^2 / 2 on [0, 1], sigma(p) = clip(p, 0, 1) (Scellier and Bengio 2017, section 2.2).

    The slope at the kinks p = 0 and p = 1 is taken from outside: 0.
    """

    def potential(s: X) -> X:
        return 0.5 * s * s

    def inverse(s: X) -> X:
        return s

    def response(p: X) -> X:
        return xp.clip(p, 0.0, 1.0)

    def slope(p: X) -> X:
        return (0 * p + 1) * ((p > 0) & (p < 1))

    def curvature(s: X) -> X:
        return 0 * s + 1

    def anchor(p: X) -> X:
        # The last is clip(0, -p, 1 - p): how far the state lies from its drive.
        return -p, 1 - p, xp.clip(p, 0.0, 1.0) - p

    def displaced(d: X, below: X, above: X, overhang: X) -> X:
        return xp.clip(d, below, above) - overhang

    return UnitFunctions(potential, inverse, response, slope, curvature, anchor, displaced)


def logistic(xp: Any) -> UnitFunctions:
    """Logistic unit: Psi = s log s + (1 - s) log(1 - s), sigma(p) = 1 / (1 + exp(-p)) (Hopfield 1984, eq. 7).

    For d >= 0, sigma(p + d) - sigma(p) = (1 - e^-d) sigma(-p) sigma(p + d): nothing cancels and nothing overflows.
    For d < 0 the same holds with the signs of p and d turned. It also holds for complex d, by either sign.
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


# -- couplings --------------------------------------------------------------------------------------------------


def identity_factor(xp: Any) -> Factor:
    """The factor v itself."""

    def value(v: X) -> X:
        return v

    def derivative(v: X) -> X:
        return 0 * v + 1

    def difference(v: X, d: X) -> X:
        return d

    return Factor(value, derivative, difference)


def hopfield_coupling(xp: Any) -> CouplingFunctions:
    """Hopfield coupling: e = -w a b, rank 1 (Hopfield 1984, eq. 5, states being the amplifiers' outputs)."""

    def energy(w: X, a: X, b: X) -> X:
        return -w * a * b

    def slope(w: X, a: X, b: X) -> X:
        return -w * b

    def curvature(w: X, a: X, b: X) -> X:
        return 0 * a

    def mixed(w: X, a: X, b: X) -> X:
        return -w

    def weight_slope(a: X, b: X) -> X:
        return -a * b

    def slope_difference(w: X, a: X, b: X, da: X, db: X) -> X:
        return -w * db

    def weight_slope_difference(a: X, b: X, da: X, db: X) -> X:
        return -(da * (b + 0.5 * db) + db * (a + 0.5 * da))

    factor = identity_factor(xp)
    return CouplingFunctions(
        energy,
        slope,
        curvature,
        mixed,
        weight_slope,
        slope_difference,
        weight_slope_difference,
        factors=((factor, factor),),
        sign=-1.0,
    )


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

COUPLINGS: dict[str, Coupling] = {
    coupling.name: coupling for coupling in (Coupling("hopfield", 0, analytic=True, make=hopfield_coupling),)
}
"""Coupling laws by name."""
