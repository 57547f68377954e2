"""Element laws, each written once in plain arithmetic on a namespace argument.

`make(xp)` of a law returns its functions over `xp`: torch for tensors of any shape, numpy for scalars under numba
and for arrays. The functions call `xp` only, never each other, so that numba can compile them one by one.

Two kinds of law make up an energy

    E = sum_i Psi_i(s_i) + sum_edges e(w, s_i, s_j) - sum_i b_i s_i .

* A *unit* gives the local potential Psi of a node: `physics_ep.units`. Its response sigma = (dPsi/ds)^-1 takes the
  drive p = b - sum_edges de/ds to the state that minimises E over that node alone.
* A *coupling* gives the pair energy e(w, a, b), symmetric in a and b and linear in its parameter w: here.

Differences are laws too, rounding-safe, since a nudged phase lives on them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Function = Callable[..., Any]
X = Any
"""A number or an array of the namespace."""


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
        Derivative of e by a; by symmetry de/db is slope(w, b, a).
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
    """The law of a coupling between two units: its pair energy.

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


def identity_factor(xp: Any) -> Factor:
    """The factor of a coupling that is linear in a unit's output: the output v itself."""

    def value(v: X) -> X:
        return v

    def derivative(v: X) -> X:
        return 0 * v + 1

    def difference(v: X, d: X) -> X:
        return d

    return Factor(value, derivative, difference)


def hopfield_coupling(xp: Any) -> CouplingFunctions:
    """Make the functions of the Hopfield coupling e = -w a b over the namespace `xp` (torch or numpy).

    The coupling is that of Hopfield 1984, eq. 5, with the states a and b being the amplifiers' outputs. It is
    separable, with one pair of factors (rank 1).
    """

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


COUPLINGS: dict[str, Coupling] = {
    coupling.name: coupling for coupling in (Coupling("hopfield", 0, analytic=True, make=hopfield_coupling),)
}
"""Coupling laws by name."""
