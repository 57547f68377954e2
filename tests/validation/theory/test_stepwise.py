"""EP in time against truncated backprop through time, and the rules that are no gradient."""

from __future__ import annotations

import pytest
import torch

from hardware_models import ConvHopfieldNetwork
from physics_ep import CrossEntropy, EquilibriumPropagation, SquaredError, relax
from physics_ep.errors import InputError
from physics_ep.estimators.coupled_learning import CoupledLearning
from tests.support.systems import Quartic, batch, network
from validation import implicit_gradient
from validation.gradients import compare, estimate_gradient, total_error
from validation.theory.stepwise import stepwise


@pytest.mark.parametrize("activation", ["tanh", "hard_sigmoid", "logistic"])
@pytest.mark.parametrize("cost", [SquaredError(), CrossEntropy()], ids=lambda c: c.name)
def test_ep_is_truncated_bptt_at_every_step(activation: str, cost) -> None:
    """beta 1e-4, float64: relative difference <= 1e-4 after every single step (Ernoult 2019, theorem 1)."""
    system = network(activation, (6, 9, 7, 4))
    x, y = batch(6, 4, 5)
    y = y.argmax(1) if cost.name == "cross_entropy" else y
    course = stepwise(system, x, y, cost, beta=1e-4, steps=40)
    assert float(course.relative_difference.max()) <= 1e-4
    # The first step moves the outputs only: no gradient has reached the first layer yet, in either course.
    assert float(course.bptt["layers.0.weight"][0].abs().max()) == 0
    assert float(course.ep["layers.0.weight"][0].abs().max()) < 1e-10


def test_convolutions_too() -> None:
    """The same through 3x3 convolutions with average pooling."""
    system = ConvHopfieldNetwork(
        input_shape=(1, 8, 8), channels=[3, 4], n_out=3, pooling="average", activation="tanh", gain=0.4
    ).double()
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(3, 1, 8, 8, generator=generator, dtype=torch.float64)
    y = torch.rand(3, 3, generator=generator, dtype=torch.float64)
    assert float(stepwise(system, x, y, SquaredError(), steps=25).relative_difference.max()) <= 1e-4


@pytest.mark.full
def test_both_courses_end_at_the_exact_gradient() -> None:
    """After many steps the truncation is no longer felt: both are the implicit gradient; after one they are not."""
    system = network("tanh", (6, 9, 7, 4))
    x, y = batch(6, 4, 5)
    exact = implicit_gradient(system, x, y, SquaredError())
    course = stepwise(system, x, y, SquaredError(), beta=1e-5, steps=200)
    assert total_error({n: g[-1] for n, g in course.ep.items()}, exact) < 1e-4
    assert total_error({n: g[-1] for n, g in course.bptt.items()}, exact) < 1e-6
    assert total_error({n: g[0] for n, g in course.bptt.items()}, exact) > 0.3


def test_truncated_bptt_is_autograd_through_the_unrolled_steps() -> None:
    """Independent answer: unroll k steps explicitly from the free state and differentiate."""
    system = Quartic()
    x, y = batch(4, 2, 3)
    course = stepwise(system, x, y, SquaredError(), steps=6)
    free = relax(system, x, tolerance=1e-13).state
    state = tuple(s.detach().requires_grad_() for s in free)
    for _ in range(6):
        slope = torch.autograd.grad(system.energy(state, x).sum(), state, create_graph=True)
        state = tuple(s - 0.2 * g for s, g in zip(state, slope, strict=True))
    loss = SquaredError()(system.outputs(state), y).mean()
    grads = torch.autograd.grad(loss, list(system.parameters()))
    unrolled = {n: g for (n, _), g in zip(system.named_parameters(), grads, strict=True)}
    assert total_error({n: g[-1] for n, g in course.bptt.items()}, unrolled) < 1e-10


@pytest.mark.parametrize("fraction", [0.1, 1.0])
def test_coupled_learning_is_the_contrast_of_clamped_and_free_energies(fraction: float) -> None:
    """Central differences of [min E(clamped) - min E(free)] / fraction, the clamped outputs held."""
    system = network("tanh", (5, 6, 4, 3))
    x, y = batch(5, 3, 4)
    grads, step = estimate_gradient(CoupledLearning(fraction, tolerance=1e-13), system, x, y)
    held = (1 - fraction) * step.outputs + fraction * y

    def contrast() -> float:
        free = relax(system, x, tolerance=1e-13).require().state
        s = free
        for _ in range(400):  # alternate exact updates of the hidden layers, the outputs held
            drives = system.drives((*s[:-1], held), system.couplings[0].biased(x))
            s = (drives[0].tanh(), drives[1].tanh(), held)
        return float((system.energy(s, x) - system.energy(free, x)).mean()) / fraction

    with torch.no_grad():
        for name, at in (("layers.0.weight", (2, 3)), ("layers.1.weight", (1, 4)), ("layers.2.bias", (0,))):
            p = dict(system.named_parameters())[name]
            kept = float(p[at])
            p[at] = kept + 1e-5
            up = contrast()
            p[at] = kept - 1e-5
            down = contrast()
            p[at] = kept
            assert float(grads[name][at]) == pytest.approx((up - down) / 2e-5, rel=1e-6, abs=1e-9)


def test_clamping_is_no_gradient() -> None:
    """It descends, but however small the fraction its cosine to the gradient stays below that of EP."""
    system = network("tanh", gain=0.7)
    x, y = batch(20, 10)
    exact = implicit_gradient(system, x, y, SquaredError())

    def worst(rule) -> float:
        return min(row.cosine for row in compare(estimate_gradient(rule, system, x, y)[0], exact))

    clamped = [worst(CoupledLearning(f)) for f in (1e-3, 1e-2, 1.0)]
    assert all(0.5 < c < 0.995 for c in clamped)
    assert worst(EquilibriumPropagation(SquaredError(), beta=1e-3)) > 1 - 1e-6


def test_bad_input_is_told() -> None:
    """Fractions outside (0, 1], systems that cannot be clamped, steps that are none."""
    for fraction in (0.0, -0.1, 1.5, float("nan"), True):
        with pytest.raises(InputError, match=r"fraction must lie in \(0, 1\]"):
            CoupledLearning(fraction)
    with pytest.raises(InputError, match="exact block updates to clamp"):
        CoupledLearning(0.1).backward(Quartic(), *batch(4, 2, 3))
    system = network("tanh", (6, 9, 4))
    with pytest.raises(InputError, match="steps must be an integer of at least 1"):
        stepwise(system, *batch(6, 4, 5), SquaredError(), steps=0)
    with pytest.raises(InputError, match="beta must be a positive number"):
        stepwise(system, *batch(6, 4, 5), SquaredError(), beta=-1.0)
