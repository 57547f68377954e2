"""Networks of layers that any layers and the input lead into: made of torch models, relaxed and learnt.

The references are the torch models themselves, with their norms unfolded, and autograd through them.
"""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional

from physics_ep import CrossEntropy, EquilibriumPropagation
from physics_ep.errors import InputError
from physics_ep.predictive_coding import PredictiveCodingNetwork, from_module
from tests.support.folded import MODELS, Residual, settled_norms
from tests.support.tiers import first

COST = CrossEntropy()


def made(name: str, **options: str) -> tuple[nn.Module, PredictiveCodingNetwork, torch.Tensor, torch.Tensor]:
    """A model with norms that have seen data, its layers, and a batch."""
    torch.manual_seed(0)
    model = settled_norms(MODELS[name]().double())
    x = torch.randn(4, 3, 17, 16, dtype=torch.float64)
    return model, from_module(model, x, form="layers", **options), x, torch.arange(4) % 5


def learnt(net: PredictiveCodingNetwork, x: torch.Tensor, y: torch.Tensor, **options: object) -> list[torch.Tensor]:
    """EP's gradient by all parameters that are trained, in the order of the layers."""
    net.zero_grad(set_to_none=True)
    EquilibriumPropagation(COST, **options).backward(net, x, y)  # type: ignore[arg-type]
    return [p.grad for p in net.parameters() if p.grad is not None]


@pytest.mark.parametrize("name", first(2, MODELS))
def test_layers_are_the_model_and_ep_its_gradient(name: str) -> None:
    """Outputs to 1e-9 with norms folded, and the gradients of all biases of norms (which folding leaves what they
    are) and of the last map, against autograd through the model: a wrong link, transpose or sum shows."""
    model, net, x, y = made(name)
    with torch.no_grad():
        wanted = model(x)
        torch.testing.assert_close(net(x), wanted, rtol=0, atol=1e-9 * float(wanted.abs().max()))
    functional.cross_entropy(model(x), y).backward()
    norms = {n: p.grad for n, p in model.named_parameters() if n.endswith("bias")}
    misses: list[list[float]] = []
    for beta in (2e-3, 1e-3):
        learnt(net, x, y, beta=beta)
        biases = {layer.origins.get("bias", "").removesuffix(" (folded)"): layer.bias for layer in net.stack}
        assert len(biases) >= 5
        found = [(b.grad, norms[n]) for n, b in biases.items() if n and b is not None]
        found.append((net.stack[-1].weight.grad, model.head.weight.grad))  # type: ignore[union-attr, arg-type]
        misses.append([float((g - r).norm() / r.norm()) for g, r in found])  # type: ignore[operator, union-attr]
    worst = [max(m) for m in misses]
    assert worst[0] < 1e-3
    assert worst[0] / worst[1] == pytest.approx(4, rel=0.1)  # O(beta^2), gates and routes held


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.full
def test_solvers_agree_on_branches(name: str) -> None:
    """Sweeps, even/odd updates, flows and both energies go over all links: one that forgets a branch differs."""
    _, net, x, y = made(name)
    exact = learnt(net, x, y, beta=1e-3, solver="sweep", tolerance=1e-11)
    for solver in ("anderson", "pgd"):
        found = learnt(net, x, y, beta=1e-3, solver=solver, tolerance=1e-10, max_iterations=3000)
        for a, b in zip(found, exact, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)
    _, net, x, y = made(name, energy="paired")
    for solver in ("anderson", "skew_flow"):
        found = learnt(net, x, y, beta=1e-3, solver=solver, tolerance=1e-9, max_iterations=3000)
        for a, b in zip(found, exact, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-4 * float(b.abs().max()))


@pytest.mark.parametrize(("name", "energy"), [("inception", "squared"), ("residual", "paired")])
def test_live_routes_are_the_held_ones_while_nothing_flips(name: str, energy: str) -> None:
    """At a nudge too small to move a gate or a route, live ones give the held ones' gradient: they are told by
    other code, from images of their own sources."""
    _, net, x, y = made(name, energy=energy)
    held = learnt(net, x, y, beta=1e-7, tolerance=1e-8)
    net.gates = "live"
    for a, b in zip(learnt(net, x, y, beta=1e-7, tolerance=1e-8), held, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-8)


def test_what_stays_and_what_is_trained() -> None:
    """Frozen and tied parameters stay so, what the model does not learn is not learnt, networks are pickled."""
    torch.manual_seed(0)
    model = settled_norms(Residual().double())
    model.stem.weight.requires_grad_(False)
    x = torch.randn(2, 3, 17, 16, dtype=torch.float64)
    net = from_module(model, x, form="layers")
    assert not net.stack[0].weight.requires_grad
    assert net.stack[0].origins == {"weight": "stem.weight (folded)", "bias": "bn1.bias (folded)"}
    assert net.stack[0].label == "stem"
    shared = nn.Linear(6, 6).double()
    tied = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), shared, nn.Tanh(), shared, nn.Tanh(), nn.Linear(6, 2)).double()
    both = from_module(tied, x[:, 0, 0, :4], form="layers")
    assert both.stack[1].weight is both.stack[2].weight
    again = pickle.loads(pickle.dumps(net))
    assert torch.equal(again(x), net(x))


def test_units_that_rest_on_a_bound_learn_nothing() -> None:
    """A blank input and zero biases leave ReLU6 at 0, where torch's has no slope: EP and the network's own backprop
    agree with the model there, and would else blame each other (dead channels of coarse devices are such)."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU6(), nn.Flatten(), nn.Linear(12, 5)).double()
    assert model[0].bias is not None
    nn.init.zeros_(model[0].bias)
    x, y = torch.zeros(2, 1, 4, 4, dtype=torch.float64), torch.tensor([1, 2])
    net = from_module(model, x, form="layers")
    functional.cross_entropy(net(x), y).backward()
    assert net.stack[0].bias is not None
    assert not bool(net.stack[0].bias.grad.any())
    learnt(net, x, y, beta=1e-3)
    assert not bool(net.stack[0].bias.grad.any())


def test_what_is_not_made_of_layers_is_named() -> None:
    """Refusals name the module and say why, in one line."""
    x = torch.randn(2, 3, 8, 8)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(192, 8))
    cases: list[tuple[nn.Module, str]] = [
        (nn.Sequential(*flat, nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 2)), "module '2' calls 'layer_norm'"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).train(), "module '1' normalises by"),
        (nn.Sequential(*flat, nn.Dropout(), nn.ReLU(), nn.Linear(8, 2)).train(), "module '2' draws random"),
        (nn.Sequential(*flat, nn.Softmax(1), nn.Linear(8, 2)), "module '2' calls 'softmax'"),
        (nn.Sequential(*flat, nn.ReLU()), "last map must be a Linear"),
        (
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2, ceil_mode=True), nn.ReLU()),
            "module '1' has a max pool",
        ),
    ]
    for model, says in cases:
        with pytest.raises(InputError, match=says) as refused:
            from_module(model, x, form="layers")
        assert "\n" not in str(refused.value)
