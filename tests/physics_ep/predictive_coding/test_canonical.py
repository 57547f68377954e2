"""Networks of layers that any layers and the input lead into: made of torch models, relaxed and learnt.

The references are the torch models themselves, with their norms unfolded, and autograd through them.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from physics_ep import CrossEntropy, EquilibriumPropagation
from physics_ep.errors import InputError
from physics_ep.predictive_coding import PredictiveCodingNetwork, from_module
from physics_ep.predictive_coding.layers import told_name
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


class Summed(nn.Module):
    """A residual sum whose first link is what comes in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x + self.conv(x))


class Twice(nn.Module):
    """Poolings that are functions, no modules."""

    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.avg_pool2d(functional.avg_pool2d(torch.tanh(x), 2), 2)


def test_what_stays_and_what_is_trained() -> None:
    """Frozen and tied parameters stay so, what the model does not learn is not learnt, networks are pickled."""
    torch.manual_seed(0)
    model = settled_norms(Residual().double())
    model.stem.weight.requires_grad_(False)
    x = torch.randn(2, 3, 17, 16, dtype=torch.float64)
    net = from_module(model, x, form="layers")
    assert not net.stack[0].weight.requires_grad
    assert net.stack[0].origins == {"weight": "stem.weight (folded)"}
    assert net.stack[1].origins == {"weight": "bn1.weight", "bias": "bn1.bias"}
    assert [layer.label for layer in net.stack[:2]] == ["stem", "bn1"]
    pools = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(2, 2, 3, padding=1), Twice(),
        nn.Flatten(), nn.Linear(2, 3),
    ).double()  # fmt: skip
    layers = from_module(pools, torch.rand(2, 1, 8, 8, dtype=torch.float64), form="layers").stack
    names = [told_name(layers, f"layers.{k}.weight") for k in range(len(layers))]
    assert names == [
        "0.weight",
        "2.weight",
        "3.weight",
        "4.avg_pool2d.weight",
        "4.avg_pool2d (2).weight",
        "6.weight",
    ]
    block = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), Summed(2), nn.Flatten(), nn.Linear(32, 3)).double().eval()
    summed = from_module(block, torch.rand(2, 1, 4, 4, dtype=torch.float64), form="layers")
    told = {told_name(summed.stack, name): tuple(p.shape) for name, p in summed.named_parameters()}
    assert told["1.conv.weight"] == (2, 2, 3, 3)  # no "skip weight", though the sum is the layer's first link
    assert told_name(summed.stack, "layers.1.weight") == "1.conv.sum"
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


class Written(nn.Module):
    """Two dense maps, or a convolution and one, with a factor, and whatever stands between them."""

    def __init__(
        self, between: Callable[[Any, torch.Tensor], torch.Tensor], wide: int, image: bool = False
    ) -> None:
        super().__init__()
        self.between = between
        self.a: nn.Module = nn.Conv2d(2, 3, 3) if image else nn.Linear(4, 6)
        self.c: nn.Module = nn.Conv2d(2, 3, 1) if image else nn.Linear(6, 6)
        self.g = nn.Parameter(torch.rand(3 if image else 6) + 0.5)
        self.norm, self.b = nn.BatchNorm2d(3), nn.Linear(wide, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.between(self, x))


def _unlearnt(m: Any, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        h = m.a(x).relu()
    return m.c(h).tanh()


def _one(m: Any, x: torch.Tensor) -> torch.Tensor:
    m.b.bias.data = m.b.bias.data[:1]
    return m.a(x).tanh() + m.b.bias


REFUSED: dict[str, tuple[Callable[[Any, torch.Tensor], torch.Tensor], int, bool]] = {
    "draws random numbers": (lambda m, x: m.a(x).relu() + torch.randn(6).to(x), 6, False),
    "draws random": (lambda m, x: functional.linear(x, m.a.weight + torch.rand(6, 4).to(x)).relu(), 6, False),
    "passes no gradient": (lambda m, x: m.a(x).relu() + m.c(m.a(x).relu()).detach(), 6, False),
    "module 'a' passes no": (_unlearnt, 6, False),
    "computes weights from": (lambda m, x: functional.linear(m.a(x).relu(), m.a.weight.t()), 4, False),
    "computes weights": (lambda m, x: m.a(x).relu() * m.g.exp(), 6, False),
    "computes": (lambda m, x: functional.linear(x, m.a.weight * (m.a.weight > 0)).relu(), 6, False),
    "divides by what the": (lambda m, x: (m.a(x) / m.g).relu(), 6, False),
    "adds a multiple": (lambda m, x: torch.add(m.a(x).tanh(), m.g, alpha=2), 6, False),
    "'b.bias', one number": (_one, 6, False),
    "'norm.weight', which stands at several": (
        lambda m, x: (m.norm(m.a(x)).relu().mean((2, 3)) + m.norm(m.a(x)).tanh().mean((2, 3))), 3, True,
    ),
    "'g', which stands at": (lambda m, x: ((m.c(m.a(x).relu()) + m.g).tanh() + m.g).relu(), 6, False),
    "pads by other things": (lambda m, x: functional.pad(m.a(x).relu(), (1, 1)), 8, False),
    "takes what is padded": (lambda m, x: functional.pad(m.a(x).relu(), (0, 2)).mean((2, 3)), 3, True),
    "takes what is": (
        lambda m, x: functional.adaptive_avg_pool2d(functional.pad(x, (1, 1)), 1).view(-1, 2), 2, True,
    ),
    "a number for each of a": (
        lambda m, x: functional.batch_norm(m.a(x).relu().flatten(1), *torch.ones(2, 48).double()), 48, True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("says", first(4, REFUSED))
def test_what_would_be_learnt_otherwise_is_refused(says: str) -> None:
    """Noise that would be baked in, gradients that the model cuts, weights that it computes from what it trains:
    networks of layers would put out or learn something else, without a word."""
    between, wide, image = REFUSED[says]
    x = torch.randn(2, 2, 6, 6).double() if image else torch.randn(2, 4).double()
    with pytest.raises(InputError, match=says):
        from_module(Written(between, wide, image).double().eval(), x, form="layers")


TAKEN: dict[str, tuple[Callable[[Any, torch.Tensor], torch.Tensor], int, bool, str]] = {
    "behind a pooling": (
        lambda m, x: m.norm(functional.max_pool2d(m.a(x), 2)).relu().flatten(1), 12, True, "norm.weight",
    ),
    "behind a mean": (lambda m, x: m.a(x).relu().mean((2, 3)) * m.g, 3, True, "g"),
    "of a sum": (lambda m, x: m.norm(m.a(x).relu() + m.a(x).tanh()).relu().flatten(1), 48, True, "norm.weight"),
    "a view": (lambda m, x: (m.a(x).relu() * m.g.view(1, -1, 1, 1)).flatten(1), 48, True, "g"),
    "pooled input": (
        lambda m, x: torch.cat([m.c(functional.max_pool2d(x, 2)).tanh().mean((2, 3)), m.a(x).mean((2, 3))], 1),
        6, True, "c.weight",
    ),
    "one map twice": (lambda m, x: (m.c(x) + m.c(2 * x)).tanh().mean((2, 3)), 3, True, "c.weight"),
    "flat images": (
        lambda m, x: torch.cat([m.c(-x).relu().flatten(1), (-x).tanh().flatten(1)], 1), 180, True, "c.weight",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", first(3, TAKEN))
def test_factors_and_shapes_that_layers_have(case: str) -> None:
    """Factors behind poolings, sums and in other shapes are learnt as the model learns them, by autograd; pooled
    inputs and concatenated flat images are taken."""
    between, wide, image, name = TAKEN[case]
    torch.manual_seed(0)
    model = Written(between, wide, image).double().eval()
    model.norm.eps = 0.0  # statistics 0 and 1: its folded factor is its factor
    nn.init.uniform_(model.norm.weight, 0.5, 1.5)
    net = from_module(model, torch.randn(1, 2, 6, 6).double(), form="layers")
    x, y = torch.randn(3, 2, 6, 6).double(), torch.arange(3)
    torch.testing.assert_close(net(x), model(x), rtol=0, atol=1e-12)
    functional.cross_entropy(model(x), y).backward()
    EquilibriumPropagation(COST, beta=1e-4, tolerance=1e-8).backward(net, x, y)
    exact = dict(model.named_parameters())[name].grad
    assert exact is not None
    found = [
        getattr(layer, own).grad
        for layer in net.stack
        for own, origin in layer.origins.items()
        if origin.removesuffix(" (folded)") == name
    ]
    torch.testing.assert_close(found[0].view_as(exact), exact, rtol=1e-6, atol=1e-9)


def _frozen(*names: str) -> Callable[[nn.Module], None]:
    """A function that freezes parameters by name."""

    def freeze(model: nn.Module) -> None:
        for name, p in model.named_parameters():
            p.requires_grad_(name not in names)

    return freeze


def _every(m: nn.Module) -> None:
    """Freeze nothing."""


def _share(m: Any) -> None:
    m.c.bias = m.a.bias


def _alpha(m: Any) -> None:
    m.g = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))


TRAINED: dict[str, tuple[Callable[[Any, torch.Tensor], torch.Tensor], int, bool, Callable[[Any], None]]] = {
    "norm of a frozen map": (
        lambda m, x: m.norm(m.a(x)).relu().mean((2, 3)), 3, True, _frozen("a.weight", "a.bias"),
    ),
    "scalar gain": (lambda m, x: x_of(m, x) + m.g * m.c(x_of(m, x)), 6, False, _alpha),
    "frozen in the middle": (
        lambda m, x: m.c(m.a(x).tanh() * m.g).tanh(), 6, False, _frozen("c.weight", "c.bias"),
    ),
    "a norm without its offset": (
        lambda m, x: m.norm(m.a(x).relu()).tanh().mean((2, 3)), 3, True, _frozen("norm.bias"),
    ),
    "one gain for two": (lambda m, x: (m.c(m.a(x).tanh() * m.g) * m.g).tanh(), 6, False, _every),
    "one bias of two": (lambda m, x: m.c(m.a(x).tanh()).tanh(), 6, False, _share),
    "one map twice in a sum": (lambda m, x: m.a(x).tanh() + (m.a(x) + m.a(2 * x)).tanh(), 6, False, _every),
    "a shift of its own": (lambda m, x: (m.c(m.a(x).tanh() + m.g).tanh() + m.g), 6, False, _every),
    "one frozen map twice": (
        lambda m, x: m.norm(m.a(x)).tanh().mean((2, 3)) + (3 * m.a(x)).relu().mean((2, 3)), 3, True,
        _frozen("a.weight", "a.bias"),
    ),
}  # fmt: skip
"""Models of which some is trained and some is not: what stands between the first map and the last, sizes as in
`TAKEN`, and what is done to the parameters."""


FACTORS: dict[str, tuple[Callable[[Any, torch.Tensor], torch.Tensor], Callable[[Any], None], str]] = {
    "a frozen offset": (lambda m, x: m.norm(m.a(x)).relu(), _frozen("norm.bias", "a.bias"), "norm.weight"),
    "a map and units": (
        lambda m, x: m.norm(m.a(x) + m.c(functional.avg_pool2d(x, 3, 1)).tanh()).relu(), _every, "norm.weight",
    ),
    "a sum with a frozen map": (
        lambda m, x: m.norm(m.a(x) + m.c(functional.avg_pool2d(x, 3, 1))).relu(), _frozen("c.weight", "c.bias"),
        "norm.weight",
    ),
}  # fmt: skip
"""Norms whose factor is trained beside something that is not, and the name of the factor."""


def x_of(m: Any, x: torch.Tensor) -> torch.Tensor:
    """The units behind the first map."""
    return m.a(x).tanh()


@pytest.mark.parametrize("case", first(3, TRAINED))
def test_three_steps_are_those_of_the_model(case: str) -> None:
    """Whatever is frozen or shared around it, what the model trains moves as it does under backprop: a gain that
    became one a channel, a factor that was folded into a frozen map, and a bias of two that became two, move
    otherwise, or not at all. The rule of the networks is EP's, at a beta where its error is below 1e-6."""
    between, wide, image, prepare = TRAINED[case]
    torch.manual_seed(0)
    model = Written(between, wide, image).double().eval()
    for buffer in (model.norm.running_mean, model.norm.running_var):
        assert buffer is not None
        buffer.uniform_(0.5, 1.5)
    nn.init.uniform_(model.norm.weight, 0.5, 1.5)
    prepare(model)
    x = torch.randn(3, 2, 6, 6).double() if image else torch.randn(3, 4).double()
    y = torch.arange(3)
    net = from_module(model, x[:1], form="layers")
    start = net(x).detach()
    mine, theirs = (
        torch.optim.SGD([p for p in m.parameters() if p.requires_grad], lr=0.2, momentum=0.9) for m in (net, model)
    )
    ep = EquilibriumPropagation(COST, beta=1e-4, tolerance=1e-9)
    for _ in range(3):
        mine.zero_grad()
        theirs.zero_grad()
        ep.backward(net, x, y)
        functional.cross_entropy(model(x), y).backward()
        mine.step()
        theirs.step()
    wanted = model(x).detach()
    away = float((wanted - start).abs().max())
    assert away > 1e-2
    torch.testing.assert_close(net(x), wanted, rtol=0, atol=1e-5 * away)


@pytest.mark.parametrize("case", first(1, FACTORS))
def test_a_factor_beside_what_is_frozen_has_its_gradient(case: str) -> None:
    """A norm's factor that cannot fold without a loss stands by itself, with autograd's gradient: folded into what
    is trained, it would leave what is frozen as it is."""
    between, prepare, name = FACTORS[case]
    torch.manual_seed(0)
    model = settled_norms(Written(lambda m, x: between(m, x).mean((2, 3)), 3, True).double())
    prepare(model)
    x, y = torch.randn(3, 2, 6, 6).double(), torch.arange(3)
    net = from_module(model, x[:1], form="layers")
    functional.cross_entropy(model(x), y).backward()
    learnt(net, x, y, beta=1e-4, tolerance=1e-9)
    exact = dict(model.named_parameters())
    own = [(layer, at) for layer in net.stack for at, origin in layer.origins.items() if origin == name]
    assert len(own) == 1
    found = getattr(*own[0]).grad
    torch.testing.assert_close(found, exact[name].grad, rtol=1e-5, atol=1e-9)


def test_what_is_trained_bears_its_own_name() -> None:
    """A norm behind a frozen map is a weight and a bias of its own, whose gradients are the norm's by autograd; of
    two biases that become one, the one that is trained decides; hooks of parameters are refused."""
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).eval()
    model[0].requires_grad_(False)
    nn.init.uniform_(model[1].weight, 0.5, 1.5)  # type: ignore[arg-type]
    x, y = torch.randn(5, 4), torch.arange(5) % 3
    net = from_module(model, x, form="layers")
    assert [dict(layer.origins) for layer in net.stack[:2]] == [
        {"weight": "0.weight (folded)", "bias": "0.bias (folded)"},
        {"weight": "1.weight", "bias": "1.bias"},
    ]
    assert not any(p.requires_grad for p in net.stack[0].parameters())
    functional.cross_entropy(model(x), y).backward()
    learnt(net, x, y, beta=1e-3)
    for own, name in ((net.stack[1].weight, "1.weight"), (net.stack[1].bias, "1.bias")):
        assert own is not None
        torch.testing.assert_close(own.grad, dict(model.named_parameters())[name].grad, rtol=1e-4, atol=1e-6)
    model[0].weight.requires_grad_(True)  # type: ignore[union-attr]
    net = from_module(model, x, form="layers")
    assert net.stack[0].origins["bias"] == "1.bias (folded)"
    assert net.stack[0].bias is not None
    assert net.stack[0].bias.requires_grad
    dict(model.named_parameters())["3.weight"].register_hook(lambda grad: 2 * grad)
    with pytest.raises(InputError, match=r"no hooks of parameters .* '3.weight'"):
        from_module(model, x, form="layers")
