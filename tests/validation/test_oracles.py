"""The oracles judge EP, so they are judged by each other: implicit, finite differences, backprop through time."""

from __future__ import annotations

import math

import pytest
import torch

from hardware_models import Circuit
from hardware_models.netlists.parts import GROUND, Parts
from physics_ep import CrossEntropy, EnergySystem, NotConverged, SquaredError, relax
from physics_ep.errors import InputError
from tests.support.circuits import R, V
from tests.support.systems import Quartic, batch, network
from tests.support.tiers import first
from validation import (
    OracleError,
    backprop_gradient,
    bptt_gradient,
    finite_difference_gradient,
    gradient_report,
    implicit_gradient,
    oracles,
)
from validation.gradients import total_error

COSTS = [SquaredError(), CrossEntropy()]


@pytest.mark.parametrize("cost", COSTS, ids=lambda c: c.name)
@pytest.mark.parametrize("activation", first(2, ["tanh", "hard_sigmoid", "logistic", "linear"]))
def test_implicit_against_finite_differences(activation: str, cost) -> None:
    """Every single parameter differentiated by central differences of relaxed costs: <= 1e-7."""
    system = network(activation, (5, 6, 4, 3))
    x, y = batch(5, 3, 4)
    y = torch.tensor([0, 2, 1, 1]) if cost.name == "cross_entropy" else y
    exact = implicit_gradient(system, x, y, cost)
    numeric = finite_difference_gradient(system, x, y, cost, step=1e-5)
    assert total_error(numeric, exact) <= 1e-7
    assert exact.loss == pytest.approx(numeric.loss, abs=1e-10)
    assert exact.adjoint_residual <= 1e-10


@pytest.mark.full
def test_implicit_against_finite_differences_for_a_users_system() -> None:
    """The oracle needs only `energy`, `initial_state` and `outputs`."""
    system = Quartic()
    x, y = batch(4, 2, 3)
    exact = implicit_gradient(system, x, y, SquaredError())
    assert total_error(finite_difference_gradient(system, x, y, SquaredError(), tolerance=1e-12), exact) <= 1e-7


def test_steps_suit_the_units_of_parameters() -> None:
    """Conductances are thousandths: a step of 1e-5 would be a part in a hundred, 0.1 V/A no descent."""
    parts = [R("s", "a", 1e3), R("a", "b", 2e3), R("b", GROUND, 3e3), R("a", GROUND, 5e4), V("s", 1.0)]
    circuit = Circuit(Parts.collect(parts), outputs=["a", "b"])
    x, y = torch.tensor([[1.0], [-0.5]], dtype=torch.float64), torch.tensor([[0.3, 0.4], [0.0, 1.0]]).double()
    exact = implicit_gradient(circuit, x, y, SquaredError())
    assert total_error(finite_difference_gradient(circuit, x, y, SquaredError()), exact) <= 1e-5
    assert total_error(bptt_gradient(circuit, x, y, SquaredError(), iterations=300), exact) <= 1e-5


def test_a_gradient_without_numbers_has_not_forgotten_its_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A state may be at rest where backprop through its steps overflows: NaN is not above a limit either."""
    lost = oracles.Gradients()
    lost.residual, lost.adjoint_residual = 0.0, math.nan
    monkeypatch.setattr(oracles, "_through_time", lambda *_: lost)
    x = torch.zeros(1, 4)
    with pytest.raises(OracleError, match="nan of the cost's gradient"):
        bptt_gradient(network("tanh", (4, 3, 2)), x, x[:, :2], SquaredError())


@pytest.mark.parametrize("activation", ["tanh", "hard_sigmoid"])
def test_bptt_converges_to_implicit(activation: str) -> None:
    """Unrolled far enough, backprop through the relaxation is the implicit gradient; a short unroll is not."""
    system = network(activation, (5, 8, 6, 3))
    x, y = batch(5, 3, 4)
    exact = implicit_gradient(system, x, y, SquaredError())
    assert total_error(bptt_gradient(system, x, y, SquaredError(), iterations=80), exact) < 1e-10
    assert total_error(bptt_gradient(system, x, y, SquaredError(), iterations=2), exact) > 1e-2
    descent = bptt_gradient(system, x, y, SquaredError(), iterations=300, step=0.2)
    assert total_error(descent, exact) < 1e-6


def test_oracles_do_not_use_the_systems_own_contrast_or_phase() -> None:
    """An oracle that shared EP's code would share its bugs."""
    system = network("tanh", (5, 6, 3))
    x, y = batch(5, 3, 4)
    exact = implicit_gradient(system, x, y, SquaredError())
    system.contrast = None
    system.force = None
    again = implicit_gradient(system, x, y, SquaredError())
    assert total_error(again, exact) == 0


def test_an_oracle_refuses_what_it_cannot_certify() -> None:
    """No exact gradient from a state that is no equilibrium."""
    system = network("tanh", gain=0.8)
    with pytest.raises(NotConverged):
        implicit_gradient(system, *batch(20, 10), SquaredError(), max_iterations=2)


def test_a_singular_hessian_is_told() -> None:
    """A flat direction that the cost pulls along has no adjoint solution."""

    class Flat(Quartic):
        def energy(self, state, x):
            (v,) = state
            return 0.5 * ((v - x @ self.u.t())[:, 1:] ** 2).sum(1) + 0 * self.w.sum()

    with pytest.raises(OracleError, match="singular"):
        implicit_gradient(Flat(), *batch(4, 2, 3), SquaredError())


def test_backprop_needs_a_forward_pass() -> None:
    """A recurrent system has none: which backprop is meant is always said."""
    system = network("tanh", (5, 6, 3))
    with pytest.raises(InputError, match="oracle must be 'implicit' for HopfieldNetwork"):
        backprop_gradient(system, *batch(5, 3, 4), SquaredError())


def test_report_rows_measure_what_they_say() -> None:
    """Known distortions of a known gradient: scaled, flipped, orthogonal."""
    from validation.gradients import compare

    o = {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([1.0, 0.0]), "c": torch.zeros(2)}
    g = {"a": torch.tensor([6.0, 8.0]), "b": torch.tensor([0.0, -1.0]), "c": torch.zeros(2)}
    a, b, c = compare(g, o)
    assert (a.cosine, a.scale, a.relative_error, a.sign_agreement) == pytest.approx((1, 2, 1, 1))
    assert (b.cosine, b.scale, b.relative_error, b.sign_agreement) == pytest.approx((0, 0, 2**0.5, 0))
    assert (c.cosine, c.scale, c.relative_error, c.sign_agreement) == pytest.approx((1, 1, 0, 1))


def test_report_names_its_oracle_and_refuses_unknown_ones() -> None:
    """A report that does not say against what is worth nothing."""
    system = network("tanh", (5, 6, 3))
    x, y = batch(5, 3, 4)
    report = gradient_report(system, x, y, SquaredError(), beta=1e-3)
    assert report.oracle == "implicit"
    assert report.scheme == "centered"
    assert [row.name for row in report.rows] == [n for n, _ in system.named_parameters()]
    assert report.residual <= 1e-10
    bptt = gradient_report(system, x, y, SquaredError(), beta=1e-3, oracle="bptt")
    assert bptt.relative_error == pytest.approx(report.relative_error, rel=1e-3)
    with pytest.raises(InputError, match="Did you mean 'implicit'"):
        gradient_report(system, x, y, SquaredError(), oracle="implict")


def test_differences_find_a_step_for_any_unit() -> None:
    """In amperes, a step of 1e-5 in parameters that are all zero moves the state by ten times the range: the slope
    is 50 times too small, and looks right. Against implicit differentiation, and against the closed form."""

    class Microamperes(EnergySystem):
        """E = G v^2 / 2 + G v^4 - v (G x + I), G = 1 uS, I in amperes."""

        def __init__(self) -> None:
            super().__init__()
            self.current = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))

        def energy(self, state, x):
            v = state[0]
            return (1e-6 * (0.5 * v.square() + v.pow(4) - v * x) - v * self.current).sum(1)

        def outputs(self, state):
            return state[0]

        def initial_state(self, x):
            return (torch.zeros_like(x),)

    system, x, y = Microamperes(), torch.tensor([[0.2, 0.5, 0.9]], dtype=torch.float64), torch.zeros(1, 3).double()
    found = finite_difference_gradient(system, x, y, SquaredError())["current"]
    (v,) = relax(system, x, tolerance=1e-12).state
    torch.testing.assert_close(found, (v / (1e-6 * (1 + 12 * v.square())))[0], rtol=1e-4, atol=0)


def test_differences_over_a_jump_are_refused() -> None:
    """Where the equilibrium jumps with a parameter no step has a slope: a number is given for it."""

    class Jump(EnergySystem):
        def __init__(self) -> None:
            super().__init__()
            self.b = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))

        def energy(self, state, x):
            return 0.5 * (state[0] - torch.where(self.b > 0, 1.0, 0.0) - x).square().sum(1)

        def outputs(self, state):
            return state[0]

        def initial_state(self, x):
            return (torch.zeros_like(x),)

    x = torch.ones(1, 1, dtype=torch.float64)
    with pytest.raises(OracleError, match="Give step="):
        finite_difference_gradient(Jump(), x, torch.zeros_like(x), SquaredError())
