"""Element laws against closed identities, numerical derivatives and 50-digit arithmetic."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import torch

from hardware_models.laws.couplings import COUPLINGS
from physics_ep.units import UNITS

mpmath.mp.dps = 50
EPS = 2.0**-52

EXACT_RESPONSE = {
    "linear": lambda p: p,
    "hard_sigmoid": lambda p: min(max(p, mpmath.mpf(0)), mpmath.mpf(1)),
    "tanh": mpmath.tanh,
    "logistic": lambda p: 1 / (1 + mpmath.exp(-p)),
}
EXACT_POTENTIAL = {
    "linear": lambda s: s**2 / 2,
    "hard_sigmoid": lambda s: s**2 / 2,
    "tanh": lambda s: s * mpmath.atanh(s) + mpmath.log(1 - s**2) / 2,
    "logistic": lambda s: s * mpmath.log(s) + (1 - s) * mpmath.log(1 - s),
}
unit_names = pytest.mark.parametrize("name", sorted(UNITS))


def inside(name: str) -> list[float]:
    """States within the bounds of a unit."""
    lo, hi = (max(UNITS[name].bounds[0], -3.0), min(UNITS[name].bounds[1], 3.0))
    return [lo + f * (hi - lo) for f in (1e-6, 0.01, 0.3, 0.5, 0.77, 0.99, 1 - 1e-6)]


def column(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_every_law_has_its_own_kind():
    """Kernels choose a law by its code alone: two laws of one code would run as one."""
    for registry in (UNITS, COUPLINGS):
        assert sorted(law.kind for law in registry.values()) == list(range(len(registry)))
        assert all(name == law.name for name, law in registry.items())


@unit_names
def test_potential_is_the_published_one(name):
    """A wrong potential shifts every energy, and with it the equilibria that gradient flow finds."""
    states = inside(name)
    got = UNITS[name].make(torch).potential(column(states))
    for s, psi in zip(states, got.tolist(), strict=True):
        assert abs(psi - EXACT_POTENTIAL[name](mpmath.mpf(s))) <= 4 * EPS


@unit_names
def test_inverse_and_curvature_are_derivatives_of_the_potential(name):
    """Force and Hessian are taken from them: another function there is a system without this energy."""
    unit = UNITS[name].make(torch)
    for s in inside(name):
        inverse = mpmath.diff(EXACT_POTENTIAL[name], mpmath.mpf(s))
        curvature = mpmath.diff(EXACT_POTENTIAL[name], mpmath.mpf(s), 2)
        assert float(unit.inverse(column([s]))) == pytest.approx(float(inverse), rel=1e-9, abs=1e-15)
        assert float(unit.curvature(column([s]))) == pytest.approx(float(curvature), rel=1e-9)


@unit_names
def test_response_inverts_the_gradient_of_the_potential(name):
    """sigma(dPsi/ds) = s, or a coordinate update is no minimum."""
    unit = UNITS[name].make(torch)
    s = column(inside(name))
    assert (unit.response(unit.inverse(s)) - s).abs().max() <= 4 * EPS * s.abs().max()


@unit_names
def test_slope_is_the_derivative_of_the_response(name):
    """Also where the unit saturates: 1 - tanh^2 in its place has no digits from p = 18 on."""
    drives = [-40.0, -17.0, -2.5, -0.4, 0.3, 0.6, 2.1, 18.0, 35.0]
    got = UNITS[name].make(torch).slope(column(drives))
    for p, slope in zip(drives, got.tolist(), strict=True):
        with mpmath.workdps(80):
            exact = mpmath.diff(EXACT_RESPONSE[name], mpmath.mpf(p), h=mpmath.mpf(10) ** -20)
        assert slope == pytest.approx(float(exact), rel=1e-13, abs=0)


def test_slope_at_the_kinks_is_taken_from_outside():
    """A documented convention, on which free_variables of implicit gradients relies."""
    assert UNITS["hard_sigmoid"].make(torch).slope(column([0.0, 1.0])).tolist() == [0.0, 0.0]


@unit_names
def test_difference_keeps_its_digits(name):
    """Nudged phases live on sigma(p + d) - sigma(p) at small d and saturated p, where subtraction has no digits."""
    rng = np.random.default_rng(3)
    drives = (rng.normal(size=400) * 10.0 ** rng.uniform(-3, 1.5, 400)).tolist()
    steps = (rng.normal(size=400) * 10.0 ** rng.uniform(-14, 1.5, 400)).tolist()
    drives += [30.0, 20.0, -20.0, 40.0, 0.5, 0.5]
    steps += [-1e-12, -25.0, 25.0, -80.0, 0.0, 3.0]
    got = UNITS[name].make(torch).difference(column(drives), column(steps))
    with mpmath.workdps(120):
        for p, d, change in zip(map(mpmath.mpf, drives), map(mpmath.mpf, steps), got.tolist(), strict=True):
            exact = EXACT_RESPONSE[name](p + d) - EXACT_RESPONSE[name](p)
            if name == "hard_sigmoid":
                # Exact between its kinks; beyond them, no better than the rounding of the distance to a kink.
                bound = 0 if 0 <= p <= 1 and 0 <= p + d <= 1 else EPS * (1 + abs(p))
            else:
                bound = EPS * (2 + abs(p + d)) * abs(exact)
            assert abs(change - exact) <= bound


@unit_names
def test_difference_stays_finite_far_out(name):
    """An overflow would turn a diverging relaxation's message into NaN, or a saturated unit's update into one."""
    unit = UNITS[name].make(torch)
    for dtype in (torch.float32, torch.float64):
        p = torch.tensor([-900.0, 900.0, -900.0, 900.0], dtype=dtype)
        d = torch.tensor([1800.0, -1800.0, -900.0, 900.0], dtype=dtype)
        got, exact = unit.difference(p, d), unit.response(p + d) - unit.response(p)
        assert got.dtype == dtype
        assert torch.equal(got, exact)


@unit_names
def test_states_on_the_bounds_have_finite_energies(name):
    """tanh rounds to 1 from p = 19 on: 0 log 0 there must be 0, with a finite gradient, not NaN."""
    bounds = [b for b in UNITS[name].bounds if np.isfinite(b)] or [0.0]
    s = column(bounds).requires_grad_()
    psi = UNITS[name].make(torch).potential(s)
    (slope,) = torch.autograd.grad(psi.sum(), s)
    assert torch.isfinite(slope).all()
    for b, value in zip(bounds, psi.tolist(), strict=True):
        limit = {"tanh": np.log(2), "logistic": 0.0}.get(name, b * b / 2)
        assert value == pytest.approx(limit, abs=1e-15)


@pytest.mark.parametrize("name", [name for name, unit in UNITS.items() if unit.analytic])
def test_analytic_units_take_complex_arguments(name):
    """Holomorphic schemes need sigma off the real line; a unit that says so must agree with the exact function."""
    unit = UNITS[name].make(torch)
    p = torch.tensor([0.3 + 0.2j, -1.1 - 0.4j], dtype=torch.complex128)
    for drive, s, back in zip(
        p.tolist(), unit.response(p).tolist(), unit.inverse(unit.response(p)).tolist(), strict=True
    ):
        assert abs(s - complex(EXACT_RESPONSE[name](mpmath.mpc(drive)))) <= 4 * EPS
        assert abs(back - drive) <= 1e-14


@pytest.mark.parametrize("name", [name for name, unit in UNITS.items() if unit.quadratic])
def test_quadratic_units_keep_their_form_under_a_squared_error(name):
    """Output updates use s = sigma((p + beta y) / (1 + beta)), the minimum of Psi - p s + beta (s - y)^2 / 2."""
    unit, (lo, hi) = UNITS[name].make(np), UNITS[name].bounds
    grid = np.linspace(max(lo, -4), min(hi, 4), 80001)
    for p, y, beta in ((0.4, 1.0, 0.5), (1.7, 0.0, 0.3), (-0.6, 1.0, 2.0), (0.9, 2.0, -0.4)):
        energy = unit.potential(grid) - p * grid + beta * (grid - y) ** 2 / 2
        assert unit.response((p + beta * y) / (1 + beta)) == pytest.approx(grid[energy.argmin()], abs=1e-4)


# -- couplings --------------------------------------------------------------------------------------------------

w, a, b, da, db = 0.7, -0.3, 1.1, 1e-9, -3e-9
coupling_names = pytest.mark.parametrize("name", sorted(COUPLINGS))


def test_hopfield_coupling_is_minus_w_a_b():
    """The sign of the energy is the sign of what is learnt."""
    assert COUPLINGS["hopfield"].make(np).energy(w, a, b) == -w * a * b


@coupling_names
def test_coupling_derivatives(name):
    """Sweeps use the slope, learning the weight slope, Newton steps the curvatures: all of one energy."""
    pair = COUPLINGS[name].make(np)
    exact = COUPLINGS[name].make(mpmath)
    at = tuple(map(mpmath.mpf, (w, a, b)))
    assert pair.slope(w, a, b) == pytest.approx(float(mpmath.diff(exact.energy, at, (0, 1, 0))), rel=1e-14)
    assert pair.curvature(w, a, b) == pytest.approx(float(mpmath.diff(exact.energy, at, (0, 2, 0))), abs=1e-14)
    assert pair.mixed(w, a, b) == pytest.approx(float(mpmath.diff(exact.energy, at, (0, 1, 1))), rel=1e-14)
    assert pair.weight_slope(a, b) == pytest.approx(float(mpmath.diff(exact.energy, at, (1, 0, 0))), rel=1e-14)


@coupling_names
def test_coupling_is_symmetric(name):
    """Kernels take de/db as slope(w, b, a)."""
    pair = COUPLINGS[name].make(np)
    assert pair.energy(w, a, b) == pytest.approx(pair.energy(w, b, a), rel=1e-15)


@coupling_names
def test_coupling_differences_keep_their_digits(name):
    """The drive's change and the weight's contrast between two nudged states some 1e-9 apart."""
    pair, exact = COUPLINGS[name].make(np), COUPLINGS[name].make(mpmath)
    W, A, B, DA, DB = map(mpmath.mpf, (w, a, b, da, db))
    change = exact.slope(W, A + DA, B + DB) - exact.slope(W, A, B)
    assert abs(pair.slope_difference(w, a, b, da, db) - change) <= 4 * EPS * abs(change)
    change = exact.weight_slope(A + DA, B + DB) - exact.weight_slope(A, B)
    assert abs(pair.weight_slope_difference(a, b, da, db) - change) <= 4 * EPS * abs(change)


@coupling_names
def test_separable_form_is_the_energy(name):
    """Layers compute the energy as sum_r phi_r(a) (sign w) psi_r(b), circuits pair by pair: one energy."""
    pair = COUPLINGS[name].make(np)
    total = sum(phi.value(a) * pair.sign * w * psi.value(b) for phi, psi in pair.factors)
    slope = sum(phi.derivative(a) * pair.sign * w * psi.value(b) for phi, psi in pair.factors)
    assert total == pytest.approx(pair.energy(w, a, b), rel=1e-15)
    assert slope == pytest.approx(pair.slope(w, a, b), rel=1e-15)
    exact = COUPLINGS[name].make(mpmath)
    for both, wide in zip(pair.factors, exact.factors, strict=True):
        for factor, reference in zip(both, wide, strict=True):
            V, D = mpmath.mpf(a), mpmath.mpf(da)
            change = reference.value(V + D) - reference.value(V)
            assert abs(factor.difference(a, da) - change) <= 4 * EPS * abs(change)
