"""Holomorphic EP: if these fail, complex phases solve another problem, or claim an order that they have not."""

from __future__ import annotations

import math

import pytest
import torch

from physics_ep import (
    CrossEntropy,
    EquilibriumPropagation,
    Nudge,
    SquaredError,
    holomorphic,
    relax,
)
from physics_ep.blocks import flat
from physics_ep.errors import InputError
from tests.support.systems import Quartic, batch, network
from validation import implicit_gradient
from validation.gradients import estimate_gradient, total_error


def error(system, x, y, n: int, beta: float, exact, cost=None) -> float:
    ep = EquilibriumPropagation(cost or SquaredError(), holomorphic(n), beta, tolerance=1e-13)
    return total_error(estimate_gradient(ep, system, x, y)[0], exact)


@pytest.mark.parametrize("activation", ["tanh", "logistic"])
@pytest.mark.parametrize(("n", "slack"), [(2, 0.1), (4, 0.2), (8, 0.4), (3, 0.2), (5, 0.3)])
def test_n_points_have_order_n(activation: str, n: int, slack: float) -> None:
    """Slope of the error against implicit differentiation; odd N has no antipodes and pairs with the free state."""
    system = network(activation)
    x, y = batch(20, 10)
    exact = implicit_gradient(system, x, y, SquaredError(), tolerance=1e-14, adjoint_tolerance=1e-12)
    coarse, fine = (error(system, x, y, n, b, exact) for b in (0.2, 0.1))
    assert abs(math.log2(coarse / fine) - n) <= slack


@pytest.mark.parametrize("cost", [SquaredError(), CrossEntropy()], ids=lambda c: c.name)
def test_ten_digits_are_reachable(cost) -> None:
    """Eight points at a beta where centered EP has an error of 1e-2."""
    system = network("logistic")
    x, y = batch(20, 10)
    y = y.argmax(1) if cost.name == "cross_entropy" else y
    exact = implicit_gradient(system, x, y, cost, tolerance=1e-14, adjoint_tolerance=1e-12)
    assert error(system, x, y, 8, 0.05, exact, cost) <= 1e-10


def test_even_n_needs_n_over_two_plus_one_phases() -> None:
    """Conjugate symmetry: the lower half plane is not relaxed, and the estimate is that of all N points."""
    system = network("tanh")
    x, y = batch(20, 10)
    ep = EquilibriumPropagation(SquaredError(), holomorphic(6), 0.3, tolerance=1e-13)
    grads, step = estimate_gradient(ep, system, x, y)
    assert len(step.equilibria) == 1 + 4
    free = relax(system, x, tolerance=1e-14).state
    total = torch.zeros(10, 32, dtype=torch.complex128)
    for node, weight in zip(ep.scheme.nodes, ep.scheme.weights, strict=True):
        state = relax(system, x, Nudge(SquaredError(), y, 0.3 * node), free, tolerance=1e-14).require().state
        total += weight / 0.3 * -(state[-1].t() @ state[-2]) / 16
    assert torch.allclose(grads["layers.3.weight"], total.real, atol=1e-10)
    assert float(total.imag.abs().max()) < 1e-12


def test_complex_states_are_stationary_points_of_the_continued_energy() -> None:
    """Independent answer: the derivative of the complex energy by autograd, real and imaginary part."""
    system = network("tanh", (6, 9, 7, 4))
    x, y = batch(6, 4, 5)
    nudge = Nudge(SquaredError(), y, 0.2 + 0.3j)
    found = relax(system, x, nudge, relax(system, x, tolerance=1e-14).state, tolerance=1e-13).require()
    leaves = tuple(s.detach().requires_grad_() for s in found.state)
    total = system.energy(leaves, x) + nudge.energy(system.outputs(leaves))
    slope = torch.autograd.grad(total.real.sum(), leaves)
    assert float(flat(slope).abs().max()) < 1e-11
    assert float(flat(found.state).imag.abs().max()) > 1e-2


def test_imaginary_leakage_is_rounding() -> None:
    """A phase left out is the conjugate of its mirror image to the tolerance; real schemes have none."""
    system = network("tanh")
    x, y = batch(20, 10)
    step = EquilibriumPropagation(SquaredError(), holomorphic(4), 0.2, tolerance=1e-12).backward(system, x, y)
    assert 0 <= step.imaginary_leakage < 1e-10
    assert EquilibriumPropagation(SquaredError()).backward(system, x, y).imaginary_leakage == 0


def test_noise_floor_covers_complex_phases() -> None:
    """Residuals of complex phases enter the floor like those of real ones."""
    system = network("tanh")
    x, y = batch(20, 10)
    truth = estimate_gradient(
        EquilibriumPropagation(SquaredError(), holomorphic(4), 0.1, tolerance=1e-14), system, x, y
    )
    rough, step = estimate_gradient(
        EquilibriumPropagation(SquaredError(), holomorphic(4), 0.1, tolerance=1e-4), system, x, y
    )
    true = total_error(rough, truth[0])
    assert true <= step.noise_floor <= 10 * true


def test_a_users_analytic_system() -> None:
    """The default phase and contrast take complex states where the system says that its energy is analytic."""
    system = Quartic()
    system.analytic = True
    x, y = batch(4, 2, 5)
    exact = implicit_gradient(system, x, y, SquaredError())
    ep = EquilibriumPropagation(SquaredError(), holomorphic(4), 0.1, solver="anderson", tolerance=1e-11)
    with pytest.raises(RuntimeError, match="dtype"):  # real weights meet complex states: cast them
        estimate_gradient(ep, system, x, y)

    class Analytic(Quartic):
        analytic = True

        def energy(self, state, x):
            (v,) = state
            w, u = self.w.to(v.dtype), self.u.to(v.dtype)
            local = 0.5 * v**2 + 0.05 * v**4 - v * (x.to(v.dtype) @ u.t())
            rate = v.tanh()
            return local.sum(1) - 0.5 * ((rate @ (w + w.t())) * rate).sum(1)

    errors = []
    for beta in (0.1, 0.05):
        ep = EquilibriumPropagation(SquaredError(), holomorphic(4), beta, solver="anderson", tolerance=1e-11)
        errors.append(total_error(estimate_gradient(ep, Analytic(), x, y)[0], exact))
    assert abs(math.log2(errors[0] / errors[1]) - 4) < 0.2


def test_a_system_that_is_not_analytic_is_refused() -> None:
    """Kinks have no complex continuation."""
    with pytest.raises(InputError, match="complex nudges need an analytic energy"):
        EquilibriumPropagation(SquaredError(), "holomorphic:4").backward(network("hard_sigmoid"), *batch(20, 10))
