"""The EP estimator: if these fail, `.grad` is not the gradient that it is said to be."""

from __future__ import annotations

import math

import pytest
import torch

from hardware_models import HopfieldNetwork
from physics_ep import (
    CrossEntropy,
    EquilibriumPropagation,
    NotConverged,
    SquaredError,
    relax,
)
from physics_ep.errors import InputError
from physics_ep.estimators.propagation import NegativeNudgeError
from tests.support.systems import Quartic, batch, network
from validation import gradient_report, implicit_gradient
from validation.gradients import estimate_gradient, total_error


def error(system, x, y, scheme: str, beta: float, exact, cost=None, **options) -> float:
    ep = EquilibriumPropagation(cost or SquaredError(), scheme, beta, **options)
    return total_error(estimate_gradient(ep, system, x, y)[0], exact)


@pytest.mark.parametrize("activation", ["tanh", "logistic"])
@pytest.mark.parametrize("cost", [SquaredError(), CrossEntropy()], ids=lambda c: c.name)
def test_schemes_reach_their_orders(activation: str, cost) -> None:
    """float64, three hidden layers, gain 0.5, against implicit differentiation, over a decade of beta.

    A wrong factor shows as an error that does not fall; a wrong stencil as another slope.
    """
    system = network(activation)
    x, y = batch(20, 10)
    y = cost.encode(y.argmax(1), 10, torch.float64) if cost.name == "cross_entropy" else y
    exact = implicit_gradient(system, x, y, cost)
    for scheme, order in (("centered", 2), ("positive", 1), ("negative", 1)):
        coarse, fine = (error(system, x, y, scheme, b, exact, cost, tolerance=1e-12) for b in (1e-2, 1e-3))
        assert abs(math.log10(coarse / fine) - order) <= 0.1, scheme


def test_centered_estimate_is_as_exact_as_promised() -> None:
    """tanh, gain 0.5: relative error <= 1e-5 at beta 1e-3 and <= 1e-7 at 1e-4."""
    system = network("tanh")
    x, y = batch(20, 10)
    exact = implicit_gradient(system, x, y, SquaredError())
    assert error(system, x, y, "centered", 1e-3, exact) <= 1e-5
    assert error(system, x, y, "centered", 1e-4, exact) <= 1e-7


@pytest.mark.parametrize("activation", ["tanh", "hard_sigmoid"])
def test_float32_keeps_five_digits_at_small_beta(activation: str) -> None:
    """float32 at beta 1e-3 against the same estimate in float64: carried displacements lose no digits to beta."""
    narrow = network(activation).float()
    wide = network(activation)
    wide.load_state_dict(narrow.state_dict())
    x, y = batch(20, 10)
    x, y = x.float(), y.float()
    for beta in (1e-3, 1e-4):
        f32 = estimate_gradient(EquilibriumPropagation(SquaredError(), beta=beta), narrow, x, y)[0]
        ep = EquilibriumPropagation(SquaredError(), beta=beta, tolerance=1e-13)
        f64 = estimate_gradient(ep, wide, x.double(), y.double())[0]
        assert total_error(f32, f64) <= 1e-5


def test_hard_sigmoid_is_second_order_below_the_nearest_kink() -> None:
    """At betas that move no unit across a bound the order is 2; across kinks it is lower."""
    system = network("hard_sigmoid")
    x, y = batch(20, 10)
    exact = implicit_gradient(system, x, y, SquaredError())
    state = relax(system, x, tolerance=1e-13).state
    with torch.no_grad():
        drives = system.drives(state, system.couplings[0].biased(x))[:-1]
    nearest = min(float(torch.minimum(p.abs(), (p - 1).abs()).min()) for p in drives)
    small = 0.3 * nearest
    coarse, fine = (error(system, x, y, "centered", b, exact, tolerance=1e-14) for b in (small, small / 10))
    assert abs(math.log10(coarse / fine) - 2) < 0.1
    assert error(system, x, y, "centered", 0.1, exact) > 1e3 * coarse


def test_random_signs_are_drawn_an_example_and_average_to_second_order() -> None:
    """Each example's sign is its own; the mean of both signs of every example is the centered estimate."""
    system = network("tanh")
    x, y = batch(20, 10, 4)
    exact = implicit_gradient(system, x, y, SquaredError())
    ep = EquilibriumPropagation(SquaredError(), "random", 0.05)
    draws = [estimate_gradient(ep, system, x, y)[0] for _ in range(64)]
    distinct = {round(float(d["layers.0.weight"].sum()), 12) for d in draws}
    assert 8 <= len(distinct) <= 16  # two signs for each of four examples
    mean = {n: torch.stack([d[n] for d in draws]).mean(0) for n in draws[0]}
    single = total_error(draws[0], exact)
    assert total_error(mean, exact) < 0.35 * single


def test_same_seed_same_signs() -> None:
    """Random schemes repeat under an equal generator."""
    system = network("tanh")
    x, y = batch(20, 10, 4)
    first, second = (
        estimate_gradient(
            EquilibriumPropagation(SquaredError(), "random", 0.05, generator=torch.Generator().manual_seed(5)),
            system,
            x,
            y,
        )[0]
        for _ in range(2)
    )
    assert all(torch.equal(first[n], second[n]) for n in first)


def test_a_users_system_is_trained_by_the_defaults() -> None:
    """Default phase and contrast, float64 and float32: order 2 against implicit differentiation."""
    system = Quartic()
    x, y = batch(4, 2, 5)
    exact = implicit_gradient(system, x, y, SquaredError())
    coarse, fine = (error(system, x, y, "centered", b, exact, tolerance=1e-12) for b in (3e-2, 3e-3))
    assert abs(math.log10(coarse / fine) - 2) < 0.1
    narrow = Quartic().float()
    f32 = estimate_gradient(
        EquilibriumPropagation(SquaredError(), beta=3e-3, solver="anderson"), narrow, x.float(), y.float()
    )[0]
    assert total_error(f32, exact) < 1.2 * fine + 1e-5


@pytest.mark.parametrize("activation", ["linear", "tanh"])
def test_stability_limit_is_the_smallest_schur_complement(activation: str) -> None:
    """Independent answer: the Hessian by autograd, its Schur complement on the outputs by solve."""
    system = network(activation, (5, 8, 6, 3), gain=0.7)
    x, y = batch(5, 3, 4)
    ep = EquilibriumPropagation(SquaredError(), beta=1e-3)
    ep.backward(system, x, y)
    state = relax(system, x, tolerance=1e-12).state
    limits = []
    for i in range(4):
        point = torch.cat([s[i] for s in state])

        def energy(v, i=i):
            return system.energy(tuple(b[None] for b in v.split([8, 6, 3])), x[i : i + 1])[0]

        hessian = torch.autograd.functional.hessian(energy, point)
        schur = hessian[14:, 14:] - hessian[14:, :14] @ torch.linalg.solve(hessian[:14, :14], hessian[:14, 14:])
        limits.append(float(torch.linalg.eigvalsh(schur)[0]))
    assert ep.stability_limit == pytest.approx(min(limits), rel=0.02)


def test_a_negative_nudge_beyond_the_limit_is_refused_and_nothing_is_filled() -> None:
    """The error names beta and the measured limit; `positive` with the same beta is allowed."""
    system = network("tanh", gain=0.7)
    x, y = batch(20, 10)
    for scheme in ("centered", "negative", "random"):
        ep = EquilibriumPropagation(SquaredError(), scheme, 1.5)
        with pytest.raises(NegativeNudgeError, match=r"beta must be below 0\.\d+"):
            ep.backward(system, x, y)
        assert all(p.grad is None for p in system.parameters())
    EquilibriumPropagation(SquaredError(), "positive", 1.5).backward(system, x, y)


def test_automatic_beta_follows_the_limit_and_is_good() -> None:
    """beta is at most 0.05 of the limit; the estimate at that beta is within 0.25 % of exact."""
    system = network("tanh", gain=0.7)
    x, y = batch(20, 10)
    ep = EquilibriumPropagation(SquaredError(), beta="auto")
    step = ep.backward(system, x, y)
    assert step.beta <= 0.0501 * ep.stability_limit
    exact = implicit_gradient(system, x, y, SquaredError())
    assert total_error({n: p.grad for n, p in system.named_parameters()}, exact) < 0.0026


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-7])
@pytest.mark.parametrize("scheme", ["centered", "positive"])
def test_noise_floor_bounds_what_residuals_do(scheme: str, tolerance: float) -> None:
    """True error <= floor <= 10 true error where the residual dominates.

    The truth: the same estimate at the same beta, converged to 1e-14.
    """
    system = network("tanh")
    x, y = batch(20, 10)
    beta = 1e-3
    truth = estimate_gradient(EquilibriumPropagation(SquaredError(), scheme, beta, tolerance=1e-14), system, x, y)[
        0
    ]
    rough, step = estimate_gradient(
        EquilibriumPropagation(SquaredError(), scheme, beta, tolerance=tolerance), system, x, y
    )
    true = total_error(rough, truth)
    assert true <= step.noise_floor <= 10 * true
    for name, g in rough.items():
        own = total_error({name: g}, {name: truth[name]})
        assert own <= step.noise_floors[name] <= 10 * own


def test_noise_floor_bounds_what_rounding_does() -> None:
    """float32 against float64 at the same beta."""
    narrow = network("tanh").float()
    wide = network("tanh")
    wide.load_state_dict(narrow.state_dict())
    x, y = (t.float() for t in batch(20, 10))
    rough, step = estimate_gradient(EquilibriumPropagation(SquaredError(), beta=1e-3), narrow, x, y)
    ep = EquilibriumPropagation(SquaredError(), beta=1e-3, tolerance=1e-14)
    truth = estimate_gradient(ep, wide, x.double(), y.double())[0]
    true = total_error(rough, truth)
    assert true <= step.noise_floor <= 10 * true


def test_noise_floor_belongs_to_the_parameters_of_the_step() -> None:
    """Asked for after an update it would speak of another network: refused."""
    system = network("tanh")
    step = EquilibriumPropagation(SquaredError()).backward(system, *batch(20, 10))
    torch.optim.SGD(system.parameters(), lr=0.1).step()
    with pytest.raises(RuntimeError, match="before the parameters change"):
        _ = step.noise_floor


def test_gradients_accumulate_like_backprops() -> None:
    """Two calls add up; the batch mean of halves is the mean of the whole."""
    system = network("tanh")
    x, y = batch(20, 10)
    ep = EquilibriumPropagation(SquaredError(), beta=1e-3, tolerance=1e-13)
    whole = estimate_gradient(ep, system, x, y)[0]
    for part in (slice(0, 8), slice(8, 16)):
        ep.backward(system, x[part], y[part])
    halves = {n: p.grad / 2 for n, p in system.named_parameters()}
    assert total_error(halves, whole) < 1e-9


def test_unconverged_examples_raise_or_are_left_out() -> None:
    """'raise' fills nothing; 'skip' gives the mean over the others, and counts."""
    system = network("tanh", gain=0.8)
    x, y = batch(20, 10)
    options = {"beta": 1e-3, "max_iterations": 24, "tolerance": 1e-9}
    with pytest.raises(NotConverged, match="did not converge"):
        EquilibriumPropagation(SquaredError(), **options).backward(system, x, y)
    assert all(p.grad is None for p in system.parameters())
    grads, step = estimate_gradient(
        EquilibriumPropagation(SquaredError(), on_unconverged="skip", **options), system, x, y
    )
    assert 0 < step.skipped < 16
    good = torch.stack([e.converged for e in step.equilibria]).all(0)
    assert int(good.sum()) == 16 - step.skipped
    exact = implicit_gradient(system, x[good], y[good], SquaredError())
    assert total_error(grads, exact) < 1e-4
    with pytest.warns(UserWarning, match="did not converge"):
        EquilibriumPropagation(SquaredError(), on_unconverged="warn", **options).backward(system, x, y)


def test_free_residual_costs_a_one_sided_scheme_no_more_than_itself() -> None:
    """A loose free state (1e-4) must not be divided by beta: the nudged phase is balanced against it."""
    system = network("tanh")
    x, y = batch(20, 10)
    exact = implicit_gradient(system, x, y, SquaredError())
    for beta in (1e-2, 1e-4, 1e-6):
        assert error(system, x, y, "positive", beta, exact, tolerance=1e-4) < 2 * beta + 2e-3


def test_loss_and_outputs_are_those_of_the_free_state() -> None:
    """What training reports is the cost before the nudge."""
    system = network("tanh")
    x, y = batch(20, 10)
    step = EquilibriumPropagation(SquaredError()).backward(system, x, y)
    free = relax(system, x).require()
    assert torch.allclose(step.outputs, system.outputs(free.state), atol=1e-9)
    assert float(step.loss) == pytest.approx(float(SquaredError()(step.outputs, y).mean()))


def test_targets_of_another_type_are_cast() -> None:
    """float64 or integer targets for a float32 system: the same gradient, in float32."""
    system = network("tanh").float()
    x, _ = batch(20, 10)
    labels = torch.arange(16) % 10
    one_hot = torch.nn.functional.one_hot(labels, 10)
    ep = EquilibriumPropagation(SquaredError(), beta=1e-2)
    found = [estimate_gradient(ep, system, x.float(), y)[0] for y in (one_hot.float(), one_hot.double(), one_hot)]
    for other in found[1:]:
        assert all(torch.equal(g, other[n]) and g.dtype == torch.float32 for n, g in found[0].items())


def test_frozen_parameters_get_no_gradient() -> None:
    """requires_grad_(False) is respected, as in backprop."""
    system = network("tanh")
    system.couplings[0].weight.requires_grad_(False)
    EquilibriumPropagation(SquaredError()).backward(system, *batch(20, 10))
    assert system.couplings[0].weight.grad is None
    assert system.couplings[1].weight.grad is not None


@pytest.mark.parametrize("beta", [0, -0.1, float("nan"), float("inf"), "big", True, None])
def test_bad_betas_are_told(beta) -> None:
    """Zero, a sign, NaN, a word: one line each."""
    with pytest.raises(InputError, match="beta must be a positive number or 'auto'"):
        EquilibriumPropagation(SquaredError(), beta=beta)


def test_other_bad_arguments_are_told() -> None:
    """Cost, scheme, on_unconverged, wrapped systems, targets."""
    with pytest.raises(InputError, match="cost must be a Cost"):
        EquilibriumPropagation("mse")
    with pytest.raises(InputError, match="Did you mean 'centered'"):
        EquilibriumPropagation(SquaredError(), "center")
    with pytest.raises(InputError, match="Did you mean 'skip'"):
        EquilibriumPropagation(SquaredError(), on_unconverged="skipp")
    ep = EquilibriumPropagation(SquaredError())
    with pytest.raises(TypeError, match=r"EnergySystem, but was Linear \(.*from_module"):
        ep.backward(torch.nn.Linear(2, 2), torch.zeros(1, 2), torch.zeros(1, 2))
    with pytest.raises(InputError, match="y must have the outputs' shape"):
        ep.backward(network(), batch(20, 10)[0], torch.zeros(16, 9, dtype=torch.float64))
    with pytest.raises(InputError, match="complex nudges need an analytic energy"):
        EquilibriumPropagation(SquaredError(), "holomorphic:4").backward(network("hard_sigmoid"), *batch(20, 10))


def test_report_restores_gradients() -> None:
    """A report in the middle of training must not disturb `.grad`."""
    system = network("tanh")
    x, y = batch(20, 10)
    EquilibriumPropagation(SquaredError()).backward(system, x, y)
    before = {n: p.grad.clone() for n, p in system.named_parameters()}
    report = gradient_report(system, x, y, SquaredError(), beta=1e-3)
    assert report.worst_cosine > 1 - 1e-9
    assert all(torch.equal(before[n], p.grad) for n, p in system.named_parameters())


def test_outputs_held_by_their_bounds_have_a_limit() -> None:
    """Clipped outputs that answer no force: the stability limit is measured all the same, by those that do."""
    system = HopfieldNetwork([4, 6, 3], output_activation="hard_sigmoid").double()
    with torch.no_grad():
        system.couplings[1].bias[:2] = -2.0
    x, y = torch.rand(5, 4, dtype=torch.float64), torch.zeros(5, 3, dtype=torch.float64)
    ep = EquilibriumPropagation(SquaredError(), beta="auto")
    ep.backward(system, x, y)
    assert math.isfinite(ep.beta)
