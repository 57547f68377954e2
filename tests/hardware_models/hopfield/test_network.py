"""The Hopfield substrate: if these fail, its energy, updates or learning rule are not those of the literature."""

from __future__ import annotations

import itertools

import pytest
import torch

from hardware_models import HopfieldNetwork
from physics_ep import CrossEntropy, EquilibriumPropagation, Nudge, SquaredError, relax
from physics_ep.errors import InputError
from tests.support.systems import batch, network


def test_energy_is_the_sum_over_units_and_edges() -> None:
    """literature.md section 6, written as plain loops: 1/2 |s|^2 - sum_edges W rho rho - b rho, each edge once."""
    system = network("hard_sigmoid", (3, 4, 2))
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(1, 3, generator=generator, dtype=torch.float64)
    h, o = torch.rand(1, 4, generator=generator, dtype=torch.float64), torch.rand(1, 2, dtype=torch.float64)
    w1, w2 = (layer.weight.detach() for layer in system.couplings)
    b1, b2 = (layer.bias.detach() for layer in system.couplings)
    total = 0.5 * sum(float(v) ** 2 for v in (*h[0], *o[0]))
    total -= sum(float(w1[i, j] * h[0, i] * x[0, j]) for i in range(4) for j in range(3))
    total -= sum(float(w2[i, j] * o[0, i] * h[0, j]) for i in range(2) for j in range(4))
    total -= sum(float(b * s) for b, s in zip((*b1, *b2), (*h[0], *o[0]), strict=True))
    assert float(system.energy((h, o), x).detach()) == pytest.approx(total, abs=1e-12)


def test_hard_sigmoid_layers_obey_the_published_update() -> None:
    """At equilibrium s_k = clip(W_k s_{k-1} + W_{k+1}^T s_{k+1} + b_k, 0, 1)."""
    system = network("hard_sigmoid", (6, 9, 7, 4))
    x, _ = batch(6, 4, 5)
    s1, s2, s3 = relax(system, x).require().state
    (w1, b1), (w2, b2), (w3, b3) = ((layer.weight, layer.bias) for layer in system.couplings)
    assert torch.allclose(s1, (x @ w1.t() + s2 @ w2 + b1).clamp(0, 1), atol=1e-9)
    assert torch.allclose(s2, (s1 @ w2.t() + s3 @ w3 + b2).clamp(0, 1), atol=1e-9)
    assert torch.allclose(s3, s2 @ w3.t() + b3, atol=1e-9)


@pytest.mark.parametrize("output", ["linear", "hard_sigmoid"])
def test_nudged_output_has_its_closed_form(output: str) -> None:
    """(drive + beta y) / (1 + beta), clipped where the output units are."""
    system = network("hard_sigmoid", (6, 9, 4), output_activation=output)
    x, y = batch(6, 4, 5)
    y = 1.5 * y  # some targets beyond the bound
    beta = 0.4
    free = relax(system, x).require()
    h, o = relax(system, x, Nudge(SquaredError(), y, beta), free.state).require().state
    last = system.couplings[1]
    exact = (h @ last.weight.t() + last.bias + beta * y) / (1 + beta)
    assert torch.allclose(o, exact.clamp(0, 1) if output == "hard_sigmoid" else exact, atol=1e-9)


def test_learning_rule_is_local_and_has_the_right_sign() -> None:
    """dE/dW_ij = -s_i s_j, dE/db_i = -s_i: the contrast over 2 beta, written out from absolute states."""
    system = network("tanh", (6, 9, 4))
    x, y = batch(6, 4, 5)
    beta = 0.1
    free = relax(system, x, tolerance=1e-14).state
    up, down = (
        relax(system, x, Nudge(SquaredError(), y, b), free, tolerance=1e-14).require().state for b in (beta, -beta)
    )
    step = EquilibriumPropagation(SquaredError(), beta=beta, tolerance=1e-14)
    step.backward(system, x, y)
    n = 2 * beta * x.shape[0]
    first, last = system.couplings
    assert torch.allclose(first.weight.grad, -(up[0] - down[0]).t() @ x / n, atol=1e-10)
    assert torch.allclose(last.weight.grad, -(up[1].t() @ up[0] - down[1].t() @ down[0]) / n, atol=1e-10)
    assert torch.allclose(last.bias.grad, -(up[1] - down[1]).sum(0) / n, atol=1e-10)


def test_learning_lowers_the_loss() -> None:
    """A gradient of the wrong sign raises it."""
    system = network("hard_sigmoid", (6, 16, 4))
    x, y = batch(6, 4, 32)
    ep = EquilibriumPropagation(SquaredError())
    optimizer = torch.optim.SGD(system.parameters(), lr=0.05)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        losses.append(float(ep.backward(system, x, y).loss))
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]
    assert all(b < a + 1e-6 for a, b in itertools.pairwise(losses))


@pytest.mark.parametrize("depth", [0, 1, 2, 5])
def test_any_depth(depth: int) -> None:
    """From no hidden layer (plain linear regression: W x is the free output) to five, an odd and an even number."""
    system = network("tanh", (6, *[7] * depth, 4), gain=0.3)
    x, y = batch(6, 4, 5)
    free = relax(system, x).require()
    if depth == 0:
        layer = system.couplings[0]
        assert torch.allclose(system.outputs(free.state), x @ layer.weight.t() + layer.bias, atol=1e-12)
    loss = EquilibriumPropagation(SquaredError(), beta=1e-3).backward(system, x, y).loss
    assert float(loss) == pytest.approx(float(SquaredError()(system.outputs(free.state), y).mean()), abs=1e-8)


def test_same_seed_same_weights_in_every_dtype() -> None:
    """A run is repeatable, and float64 is the widened float32 to rounding."""
    one, two = HopfieldNetwork([6, 5, 3], seed=3), HopfieldNetwork([6, 5, 3], seed=3)
    other = HopfieldNetwork([6, 5, 3], seed=4)
    assert torch.equal(one.couplings[0].weight, two.couplings[0].weight)
    assert not torch.equal(one.couplings[0].weight, other.couplings[0].weight)


@pytest.mark.parametrize(
    ("sizes", "options", "words"),
    [
        ([64, 0, 10], {}, "sizes must be at least two positive integers"),
        ([64], {}, "sizes must be at least two positive integers"),
        ([64, 2.5, 10], {}, "sizes must be at least two positive integers"),
        (64, {}, "sizes must be at least two positive integers"),
        ([64, 10], {"activation": "tanhh"}, "Did you mean 'tanh'"),
        ([64, 10], {"output_activation": "tanh"}, "output_activation must be one of hard_sigmoid, linear"),
        ([64, 10], {"gain": -1.0}, "gain must be a positive number"),
        ([64, 10], {"gain": float("nan")}, "gain must be a positive number"),
        ([64, 10], {"seed": 1.5}, "seed must be an integer"),
    ],
)
def test_bad_arguments_are_told(sizes, options, words: str) -> None:
    """One line that names the argument, what it must be and what it was."""
    with pytest.raises(InputError, match=words):
        HopfieldNetwork(sizes, **options)


def test_clipped_outputs_refuse_the_cross_entropy() -> None:
    """Its nudged update has no closed form there: say so, do not approximate."""
    system = network("hard_sigmoid", (6, 9, 4), output_activation="hard_sigmoid")
    x, _ = batch(6, 4, 5)
    with pytest.raises(InputError, match="output_activation must be 'linear'"):
        EquilibriumPropagation(CrossEntropy()).backward(system, x, torch.tensor([0, 1, 2, 3, 0]))
