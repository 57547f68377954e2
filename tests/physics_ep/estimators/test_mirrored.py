"""The estimate from the odd part of the output force alone, against autograd and the estimate from both nudges."""

from __future__ import annotations

import math

import pytest
import torch

from physics_ep.cost import CrossEntropy, SquaredError
from physics_ep.errors import InputError
from physics_ep.estimators.mirrored import OddPart
from physics_ep.estimators.propagation import EquilibriumPropagation
from physics_ep.nudging import Nudge
from physics_ep.predictive_coding import PredictiveCodingNetwork, mlp, vgg5

CE = CrossEntropy()


def _case(
    energy: str = "squared", images: bool = False
) -> tuple[PredictiveCodingNetwork, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    net = vgg5(width=1 / 32, seed=2) if images else mlp([6, 9, 8, 4], "relu", seed=2, energy=energy)
    net = net.double()
    x = torch.randn(5, *net.shapes[0], generator=generator, dtype=torch.float64)
    return net, x, torch.randint(0, net.sizes[-1], (5,), generator=generator)


def _estimate(net, x, y, cost=CE, **options):  # type: ignore[no-untyped-def]
    net.zero_grad()
    step = EquilibriumPropagation(cost, **options).backward(net, x, y)
    return torch.cat([p.grad.flatten() for p in net.parameters()]), step


def _backprop(net, x, y, cost=CE):  # type: ignore[no-untyped-def]
    net.zero_grad()
    cost(net(x), y).mean().backward()
    return torch.cat([p.grad.flatten() for p in net.parameters()])


@pytest.mark.parametrize(("energy", "images"), [("squared", False), ("paired", False), ("squared", True)])
def test_its_error_and_its_difference_from_both_nudges_fall_as_beta_squared(energy: str, images: bool) -> None:
    """A product or a factor of two that is missing leaves an error that does not fall, a first-order one falls
    half as fast."""
    net, x, y = _case(energy, images)
    exact = _backprop(net, x, y)
    rows = []
    for beta in (0.04, 0.02):
        mirrored, step = _estimate(net, x, y, beta=beta, opposite="mirrored")
        both, _ = _estimate(net, x, y, beta=beta)
        rows.append([float((a - b).norm() / exact.norm()) for a, b in ((mirrored, exact), (mirrored, both))])
        assert len(step.equilibria) == 2
        assert all(bool(e.converged.all()) for e in step.equilibria)
    for first, second in zip(*rows, strict=True):
        assert first > 1e-9
        assert math.log2(first / second) == pytest.approx(2, abs=0.1)


def test_the_squared_error_leaves_the_gradient_at_any_beta() -> None:
    """Its odd part is a constant force, to which a linear response is exact; so is the residual then."""
    net, x, _ = _case()
    y = torch.randn(5, 4, dtype=torch.float64)
    exact = _backprop(net, x, y, SquaredError())
    mirrored, step = _estimate(net, x, y, SquaredError(), beta=0.4, opposite="mirrored")
    assert float((mirrored - exact).norm()) < 1e-12 * float(exact.norm())
    assert float(step.equilibria[1].residual.max()) < 1e-12


def test_its_state_solves_the_network_nudged_both_ways() -> None:
    """The displacement d is the mean of those under +beta and -(-beta), to O(beta^3), and its force the odd part
    of the cost's, by a cost of autograd."""
    net, x, y = _case()
    with torch.no_grad():
        free = net.prepare(x).cache.states
    odd = OddPart(CE, free[-1])
    _, step = _estimate(net, x, y, beta=0.1, opposite="mirrored")
    moved = step.equilibria[1].displacement
    assert moved is not None
    d, error = moved[net.depth - 1], moved[-1]
    wanted = -0.05 * (CE.gradient(free[-1] + d, y) + CE.gradient(free[-1] - d, y))
    assert float((error - wanted).abs().max()) < 1e-9 * float(error.abs().max())
    leaf = (free[-1] + d).detach().requires_grad_()
    (slope,) = torch.autograd.grad(odd.value(leaf, y).sum(), leaf, create_graph=True)
    assert torch.allclose(slope, odd.gradient(leaf, y), rtol=1e-12)
    v = torch.randn_like(d)
    (curved,) = torch.autograd.grad((slope * v).sum(), leaf)
    assert torch.allclose(curved, odd.curvature(leaf.detach(), y, v), rtol=1e-9)
    change = odd.gradient_difference(free[-1], d, y)
    assert torch.allclose(change, odd.gradient(leaf.detach(), y) - odd.gradient(free[-1], y), atol=1e-14)
    stiffness, force = (
        Nudge(OddPart(SquaredError(), free[-1]), torch.ones(5, 4).double(), 0.1).linear(x.dtype) or ()
    )
    assert not stiffness.any()
    assert torch.allclose(force, 0.1 * (1 - free[-1]))


def test_inputs_noise_floors_and_examples_left_out() -> None:
    """Each takes the same state as the parameters' gradient does."""
    net, x, y = _case()
    leaf = x.clone().requires_grad_()
    CE(net(leaf), y).mean().backward()
    ep = EquilibriumPropagation(CE, beta=1e-3, opposite="mirrored")
    step = ep.backward(net, x, y, input_gradient=True)
    assert float((step.input_gradient - leaf.grad).norm()) < 1e-5 * float(leaf.grad.norm())
    assert step.noise_floor < 1e-6
    net32, x32 = net.float(), x.float()
    with torch.no_grad():
        net32.stack[0].weight.mul_(20)
    broken = x32.clone()
    net32.zero_grad()
    CE(net32(x32[:4]), y[:4]).mean().backward()
    exact = [p.grad.clone() for p in net32.parameters()]
    net32.zero_grad()
    broken[4] = 3e38  # the forward pass overflows
    left = EquilibriumPropagation(CE, beta=1e-3, opposite="mirrored", on_unconverged="skip")
    left = left.backward(net32, broken, y)
    assert left.skipped == 1
    for p, g in zip(net32.parameters(), exact, strict=True):
        assert float((p.grad - g).norm()) < 1e-2 * float(g.norm())


def test_what_has_no_mirror_image_is_refused() -> None:
    """Units that bend answer opposite nudges by displacements whose mean is of first order: a wrong gradient."""
    net, x, y = _case()
    bent = mlp([6, 9, 4], "tanh", seed=2).double()
    for system, options in ((bent, {}), (net, {"gates": "live"})):
        ep = EquilibriumPropagation(CE, opposite="mirrored", **options)
        with pytest.raises(InputError, match="opposite must be 'relaxed'"):
            ep.backward(system, x, y)
    assert all(p.grad is None for p in bent.parameters())
    for options, words in (
        ({"scheme": "positive", "opposite": "mirrored"}, "scheme 'positive'"),
        ({"scheme": "random", "opposite": "mirrored"}, "be 'relaxed' with the scheme"),
        ({"opposite": "mirror"}, "mirrored"),
    ):
        with pytest.raises(InputError, match=words):
            EquilibriumPropagation(CE, **options)
