"""Any torch model as a predictive coding network: its forward pass, its units, its gradients against autograd's."""

from __future__ import annotations

import copy
import math
import pickle
import random
import threading
import warnings
import weakref
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from physics_ep import (
    CrossEntropy,
    EquilibriumPropagation,
    Nudge,
    SquaredError,
    relax,
    simulate,
)
from physics_ep.cost import Cost
from physics_ep.errors import InputError
from physics_ep.predictive_coding import from_module
from tests.support.models import CASES, Recurrent, ResNet18, built, drawn
from validation import check_system, finite_difference_gradient, gradient_report

QUICK = ("vit", "unet", "classifier", "siamese")
"""Families that are tried before each commit: residual sums, attention, concatenation, token ids, ties."""

NAMES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.full) for name in CASES]

Gradients = dict[str, torch.Tensor]


def targets(model: nn.Module, x: torch.Tensor) -> tuple[Cost, torch.Tensor]:
    """A cost that suits the outputs, and its targets."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        out = copy.deepcopy(model).eval()(x)
    if out.ndim == 2:
        return CrossEntropy(), torch.randint(0, out.shape[1], (len(x),), generator=generator)
    return SquaredError(), torch.randn(len(x), out[0].numel(), generator=generator, dtype=torch.float64).to(out)


def backprop(model: nn.Module, x: torch.Tensor, y: torch.Tensor, cost: Cost) -> Gradients:
    """Autograd's gradient of the mean cost by the model itself."""
    model.zero_grad(set_to_none=True)
    out = model(x)
    cost(out.reshape(len(x), -1), y).mean().backward()
    return {
        n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters() if p.requires_grad
    }


def propagated(ep: EquilibriumPropagation, net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Gradients:
    """The gradient that EP leaves in `.grad`."""
    net.zero_grad(set_to_none=True)
    ep.backward(net, x, y)
    return {
        n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in net.named_parameters() if p.requires_grad
    }


def compared(found: Gradients, exact: Gradients) -> tuple[float, float, list[str]]:
    """Worst cosine, worst relative error, and names of parameters whose exact gradient is rounding alone; those are
    judged by their absolute error here."""
    assert found.keys() == exact.keys()
    whole = math.sqrt(sum(float(g.square().sum()) for g in exact.values()))
    eps = torch.finfo(next(iter(exact.values())).dtype).eps
    cosine, error, zeros = 1.0, 0.0, []
    for name, g in exact.items():
        size, mine = float(g.norm()), found[name]
        if size <= 1e3 * eps * whole:
            zeros.append(name)
            assert float(mine.norm()) <= 1e4 * eps * whole, name
            continue
        cosine = min(cosine, float((g * mine).sum()) / (size * float(mine.norm())))
        error = max(error, float((g - mine).norm()) / size)
    return cosine, error, zeros


# -- the families --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("name", CASES)
def test_outputs_units_and_names_are_the_models(name: str, dtype: torch.dtype) -> None:
    """A network that computes something else, or whose units are few, would be judged for another model's sake."""
    model, x = built(name).to(dtype), drawn(name, 2)
    x = x.to(dtype) if x.is_floating_point() else x
    net = from_module(model, x)
    free = relax(net, x)
    size = float(model(x).detach().abs().max())
    assert float((net(x) - model(x)).abs().max()) <= (1e-12 if dtype == torch.float64 else 1e-6) * size
    recorded = net.outputs(free.state) - model(x).reshape(2, -1)
    assert float(recorded.abs().max()) <= (1e-12 if dtype == torch.float64 else 1e-6) * size
    assert float(net.energy(free.state, x).abs().max()) <= 1e-10 * size
    assert len(net.units) == len(free.state) >= CASES[name].units
    assert str(len(net.units)) in repr(net)
    assert list(net.state_dict()) == list(model.state_dict())
    assert [n for n, _ in net.named_parameters()] == [n for n, _ in model.named_parameters()]


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_autograds(name: str) -> None:
    """EP at an equilibrium is backprop up to O(beta^2) with gates held, whatever the model is made of."""
    model, x = built(name), drawn(name, 3)
    cost, y = targets(model, x)
    net = from_module(model, x)
    exact = backprop(model, x, y, cost)
    ep = EquilibriumPropagation(cost, beta="auto")
    cosine, _, zeros = compared(propagated(ep, net, x, y), exact)
    step = ep.backward(net, x, y)
    assert cosine >= 0.999
    assert min(e.iterations for e in step.equilibria[1:]) >= 2
    assert max(float(e.residual.max()) for e in step.equilibria) <= 1e-10
    assert zeros == {"siamese": ["branch.2.bias"], "lstm": ["rnn.weight_hh_l1_reverse"]}.get(name, [])
    errors = []
    for part in (0.2, 0.1):
        tight = EquilibriumPropagation(cost, beta=part * ep.beta, tolerance=1e-13, on_unconverged="warn")
        cosine, error, _ = compared(propagated(tight, net, x, y), exact)
        errors.append(error)
    assert cosine >= 0.9999
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize(
    "name", ["mobilenet", *(pytest.param(n, marks=pytest.mark.full) for n in CASES if n != "mobilenet")]
)
def test_single_precision(name: str) -> None:
    """The sum of two gradients loses no digits in float32."""
    model, x = built(name).float(), drawn(name, 3)
    x = x.float() if x.is_floating_point() else x
    cost, y = targets(model, x)
    ep = EquilibriumPropagation(cost, beta="auto")
    net = from_module(model, x)
    exact = backprop(model, x, y, cost)
    assert compared(propagated(ep, net, x, y), exact)[0] >= 0.999
    small = EquilibriumPropagation(cost, beta=0.1 * ep.beta)
    assert compared(propagated(small, net, x, y), exact)[0] >= 0.9999


@pytest.mark.parametrize("name", ["mlp", *(pytest.param(n, marks=pytest.mark.full) for n in ("vgg", "densenet"))])
def test_training_mode(name: str) -> None:
    """Masks of dropout are drawn once and held, and batch statistics make the energy the batch's: with the same
    seed EP's gradient is the model's own, running statistics included."""
    model, x = built(name).train(), drawn(name, 6)
    cost, y = targets(model, x)
    net = from_module(model, x)
    ep = EquilibriumPropagation(cost, beta=1e-3)
    torch.manual_seed(3)
    found = propagated(ep, net, x, y)
    torch.manual_seed(3)
    cosine, _, _ = compared(found, backprop(model, x, y, cost))
    assert cosine >= 0.9999
    for key, value in model.state_dict().items():
        torch.testing.assert_close(net.state_dict()[key], value, rtol=1e-12, atol=1e-12, msg=key)
    torch.manual_seed(3)
    report = gradient_report(net, x, y, cost, beta=1e-3)
    assert report.worst_cosine >= 0.9999 or name == "vgg"  # biases before batch norm have no gradient
    implicit = gradient_report(net, x, y, cost, beta=1e-3, oracle="implicit")
    assert implicit.worst_cosine >= 0.9999 or name == "vgg"


def test_modes_and_batches_after_conversion() -> None:
    """A network made in evaluation mode drops out when it trains, and takes batches of any size."""
    model, x = built("mlp"), drawn("mlp", 3)
    net = from_module(model, x)
    cost, y = targets(model, drawn("mlp", 7))
    for rows in (1, 7):
        part = drawn("mlp", rows)
        assert torch.equal(net(part), model(part))
        assert relax(net, part).state[0].shape[0] == rows
    one, other = relax(net.train(), x).state, relax(net, x).state
    assert not torch.equal(one[-1], other[-1])
    x = drawn("mlp", 7)
    torch.manual_seed(1)
    found = propagated(EquilibriumPropagation(cost, beta=1e-3), net, x, y)
    torch.manual_seed(1)
    assert compared(found, backprop(model.train(), x, y, cost))[0] >= 0.9999
    net.eval(), model.eval()
    found = propagated(EquilibriumPropagation(cost, beta=1e-3), net, x, y)
    assert compared(found, backprop(model, x, y, cost))[0] >= 0.9999


class Causal(nn.Module):
    """Attention that looks back only: its mask adds minus infinity to scores, which are no unit."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.last = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ahead = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        return self.last((x + self.attention(x, x, x, attn_mask=ahead)[0])[:, -1])


class Padded(Causal):
    """Attention with a mask of its own that follows from the tokens, added to scores that it wrote out."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        away = torch.where(x[..., :1] > 1, float("-inf"), 0.0).transpose(1, 2)
        scores = x @ x.transpose(1, 2) + away
        relative = torch.tanh(x) @ x.transpose(1, 2)
        return self.last((x + (scores + relative).softmax(-1) @ x)[:, -1])


def test_scores_are_no_units() -> None:
    """A mask that depends on the input is a sum too, of minus infinity."""
    x, y = torch.randn(4, 5, 8, dtype=torch.float64).clamp(max=0.9), torch.arange(4)
    x[1, 2, 0] = 2.0
    network = from_module(Padded().double(), x)
    assert [name.partition(":")[0] for name in network.units] == ["tanh", "matmul", "add", "last.linear"]
    assert gradient_report(network, x, y, CrossEntropy(), beta=1e-3, oracle="backprop").worst_cosine > 0.999999


def test_a_constant_that_is_added_makes_no_unit() -> None:
    """Scores of attention with a mask of minus infinity would be a state that is not finite."""
    x, y = torch.randn(4, 5, 8, dtype=torch.float64), torch.arange(4)
    network = from_module(Causal().double(), x)
    assert len(network.units) == 3
    assert all(bool(s.isfinite().all()) for s in relax(network, x).require().state)
    assert gradient_report(network, x, y, CrossEntropy(), beta=1e-3, oracle="backprop").worst_cosine > 0.999999


def test_oracles_and_skipped_batches_in_training_mode() -> None:
    """An oracle's copy in float64 has the masks of the step that it judges; a batch that is one system is used or
    left out as one."""
    model, x = built("mlp").float().train(), drawn("mlp", 6).float()
    cost, y = targets(model, x)
    for oracle in ("backprop", "implicit"):
        report = gradient_report(from_module(model, x), x, y, cost, beta=1e-3, oracle=oracle, floors=False)
        assert report.worst_cosine > 0.9999
    net, x = from_module(built("vgg").train(), drawn("vgg", 4)), drawn("vgg", 4)
    with pytest.raises(InputError, match="nudge all examples of a batch alike"):
        EquilibriumPropagation(cost, "random", beta=0.01).backward(net, x, y[:4])
    strong = EquilibriumPropagation(cost, "positive", 100.0, max_iterations=3, on_unconverged="skip")
    assert strong.backward(net, x, y[:4]).skipped == 4
    net.eval()
    assert strong.backward(net, x, y[:4]).skipped == 4


def test_functional_dropout_follows_the_mode() -> None:
    """`F.dropout(training=self.training)` is recorded as it is in each mode; a trace would fix it."""

    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(5, 8), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.two(functional.dropout(torch.tanh(self.one(x)), 0.5, training=self.training))

    model, x = Functional().double().eval(), drawn("mlp", 4)
    net = from_module(model, x)
    assert torch.equal(relax(net, x).state[-1], relax(net, x).state[-1])
    net.train()
    assert not torch.equal(relax(net, x).state[-1], relax(net, x).state[-1])


# -- an energy system ----------------------------------------------------------------------------------------------


def test_it_is_an_energy_system() -> None:
    """All invariants of systems hold: independent examples, forces, contrast, relaxation, order, implicit
    gradient."""
    torch.manual_seed(4)
    x, y = torch.randn(3, 4, dtype=torch.float64), torch.randint(0, 3, (3,))
    net = from_module(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double(), x)
    check_system(net, x, y)
    exact = finite_difference_gradient(net, x, y, CrossEntropy())
    found = propagated(EquilibriumPropagation(CrossEntropy(), beta=1e-3), net, x, y)
    assert compared(found, dict(exact))[0] >= 0.9999


@pytest.mark.parametrize("scheme", ["positive", "negative", "random", "centered"])
def test_schemes(scheme: str) -> None:
    """Each scheme has its order at the exact gradient."""
    model, x = built("siamese"), drawn("siamese", 4)
    cost, y = targets(model, x)
    net = from_module(model, x)
    exact = backprop(model, x, y, cost)
    errors = [
        compared(propagated(EquilibriumPropagation(cost, scheme, beta, tolerance=1e-12), net, x, y), exact)[1]
        for beta in (2e-3, 1e-3)
    ]
    order = 2 if scheme == "centered" else 1
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.1)


def test_nudged_states_start_anywhere_and_are_where_gradient_flow_ends() -> None:
    """The sweeps find the minimum of F = E + beta C that descent in time comes to."""
    net = from_module(built("mlp")[3:], torch.randn(3, 8, dtype=torch.float64))
    x, y = torch.randn(3, 8, dtype=torch.float64), torch.randn(3, 3, dtype=torch.float64)
    nudge = Nudge(SquaredError(), y, beta=0.3)
    free = relax(net, x)
    nudged = relax(net, x, nudge=nudge, start=free.state, trace=True).require()
    assert nudged.trace is not None
    again = relax(net, x, nudge=nudge, start=nudged.state)
    assert again.iterations == 1
    course = simulate(net, x, duration=16.0, steps=160, nudge=nudge)
    assert float((course.energy[-1] - nudged.trace.energy[-1]).abs().max()) < 1e-8
    for now, then in zip(course.state, nudged.state, strict=True):
        assert float((now[-1] - then).abs().max()) < 1e-4
    plain = relax(net, x, nudge=nudge, solver="sweep").require()
    assert plain.iterations >= nudged.iterations
    assert float((plain.state[0] - nudged.state[0]).abs().max()) < 1e-9


def test_input_gradient_pickles_and_copies() -> None:
    """An encoder in front gets its gradient; a network goes to another process as it is."""
    model, x = built("siamese"), drawn("siamese", 3)
    cost, y = targets(model, x)
    net = from_module(model, x)
    leaf = x.clone().requires_grad_()
    cost(model(leaf), y).mean().backward()
    step = EquilibriumPropagation(cost, beta=1e-4).backward(net, x, y, input_gradient=True)
    torch.testing.assert_close(step.input_gradient, leaf.grad, rtol=1e-4, atol=1e-8)
    twin = pickle.loads(pickle.dumps(net))
    assert twin.units == net.units
    assert torch.equal(twin(x), net(x))
    with torch.no_grad():
        next(twin.parameters()).add_(1.0)
    twin.load_state_dict(model.state_dict())
    assert torch.equal(relax(twin, x).state[-1], relax(net, x).state[-1])


def test_training_lowers_the_loss_and_leaves_the_model() -> None:
    """A torch optimizer trains the network's own weights, which a checkpoint gives back to the model."""
    model, x = built("classifier"), drawn("classifier", 8)
    y = torch.arange(8) % 3
    net = from_module(model, x)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.03)
    ep = EquilibriumPropagation(CrossEntropy(), beta=0.01, tolerance=1e-3)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        losses.append(float(ep.backward(net, x, y).loss))
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]
    assert torch.equal(model(x), built("classifier")(x))
    model.load_state_dict(net.state_dict())
    assert torch.equal(model(x), net(x))


# -- parameters as autograd has them -------------------------------------------------------------------------------


def test_tied_masked_frozen_and_hooked_parameters() -> None:
    """Gradients arrive where autograd puts them: ties once, masks kept, nothing for what is frozen, hooks
    called."""
    model, x = built("mlp"), drawn("mlp", 4)
    cost, y = targets(model, x)
    prune.l1_unstructured(model[0], "weight", 0.4)
    parametrizations.weight_norm(model[3])
    model[6].bias.requires_grad_(False)
    model[6].weight.register_hook(lambda g: 3 * g)
    net = from_module(model, x)
    found = propagated(EquilibriumPropagation(cost, beta=1e-3), net, x, y)
    assert compared(found, backprop(model, x, y, cost))[1] < 1e-3
    assert float(found["0.weight_orig"][model[0].weight_mask == 0].abs().max()) == 0

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(9, 6), nn.Linear(6, 9, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.tanh(self.embed(x).mean(1)))

    tied, ids = Tied().double(), torch.randint(0, 9, (5, 4))
    net = from_module(tied, ids)
    labels = torch.randint(0, 9, (5,))
    found = propagated(EquilibriumPropagation(CrossEntropy(), beta=1e-3), net, ids, labels)
    assert compared(found, backprop(tied, ids, labels, CrossEntropy()))[1] < 1e-3


ELSEWHERE = nn.Parameter(torch.eye(6, dtype=torch.float64))
"""A parameter that no model registers."""


def bent(h: torch.Tensor) -> torch.Tensor:
    return torch.tanh(h) * h


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    HIDDEN = torch.jit.script(bent)
    """What torch's functions do not show, and `torch.export` does."""


class Straight(torch.autograd.Function):
    """A sign with the derivative of the identity."""

    @staticmethod
    def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
        return x.sign()

    @staticmethod
    def backward(ctx: object, g: torch.Tensor) -> torch.Tensor:
        return g


STEPS = torch.linspace(1e-4, 2e-4, 6)
"""Steps between levels of each channel, which nudges cross."""


class Written(nn.Module):
    """A model with a middle part of the user's own."""

    def __init__(self, middle: object) -> None:
        super().__init__()
        self.one, self.two, self.middle = nn.Linear(5, 6), nn.Linear(6, 3), middle

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(self.middle(self.one(x)))


def assigned(h: torch.Tensor) -> torch.Tensor:
    h = torch.tanh(h).clone()
    h[:, 0] = 2 * h[:, 1]
    h += 1
    return h


def clipped(h: torch.Tensor) -> torch.Tensor:
    return h.clamp(-0.2, 0.5) + functional.leaky_relu(h, 0.1) + functional.hardswish(6 * h)


@pytest.mark.parametrize(
    "middle",
    [
        Straight.apply,
        lambda h: torch.tanh(h + (h.round() - h).detach()),
        assigned,
        clipped,
        lambda h: torch.sort(h, 1).values * h.abs(),
        lambda h: torch.maximum(h, h.flip(1)) + torch.where(h > 0, h, 0.3 * h).amax(1, keepdim=True),
        lambda h: functional.max_pool1d(h[:, None], 2, 1, 1)[:, 0, :6] + functional.selu(h),
        lambda h: torch.sin(h) * torch.erf(h),
        lambda h: torch.tanh(torch.complex(h, h.flip(1)).abs()),
        lambda h: torch.fake_quantize_per_tensor_affine(torch.tanh(h), 1e-4, 0, -6000, 6000),
        lambda h: torch.fake_quantize_per_channel_affine(h.relu(), STEPS, torch.zeros(6), 1, 0, 6000),
        lambda h: 1.0 * HIDDEN(h),
    ],
    ids=[
        "own backward",
        "detached",
        "assigned",
        "clips",
        "sorted",
        "maxima",
        "routes",
        "smooth",
        "complex",
        "levels",
        "channels",
        "scripted",
    ],
)
def test_functions_of_the_users_own(middle: object) -> None:
    """Own derivatives, cut gradients, writes and every kind of kink have autograd's gradient, to second order."""
    torch.manual_seed(2)
    model = Written(middle).double()
    x, y = torch.randn(4, 5, dtype=torch.float64), torch.randint(0, 3, (4,))
    net = from_module(model, x)
    exact = backprop(model, x, y, CrossEntropy())
    errors = [
        compared(propagated(EquilibriumPropagation(CrossEntropy(), beta=b, tolerance=1e-12), net, x, y), exact)[1]
        for b in (2e-3, 1e-3)
    ]
    assert errors[1] < 1e-4
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.1)


class LiveBytes(TorchDispatchMode):
    """Within, `peak` is the most that tensors made here held at one time, in bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        for t in tree_leaves(found):
            if isinstance(t, torch.Tensor):
                storage = t.untyped_storage()
                key = storage._cdata
                if key not in self.held and key not in given:
                    self.held[key] = storage.nbytes()
                    weakref.finalize(storage, self.held.pop, key, None)
        self.peak = max(self.peak, sum(self.held.values()))
        return found


def test_a_step_holds_one_gradient() -> None:
    """Both nudges learn into one set of gradients; a set each, and one that is scaled, would be three."""
    torch.manual_seed(0)
    layers = [part for _ in range(4) for part in (nn.Linear(300, 300), nn.Tanh())]
    model, x, y = nn.Sequential(*layers, nn.Linear(300, 3)), torch.randn(2, 300), torch.arange(2)
    net, ep = from_module(model, x), EquilibriumPropagation(CrossEntropy(), beta=0.01)
    exact = backprop(model, x, y, CrossEntropy())
    for _ in range(2):  # the second step knows from the first in which sweep it learns
        with LiveBytes() as watch:
            found = propagated(ep, net, x, y)
    assert compared(found, exact)[1] < 1e-3
    weights = sum(4 * p.numel() for p in model.parameters())
    assert watch.peak < 1.6 * weights


# -- what is refused -----------------------------------------------------------------------------------------------


class Switched(nn.Module):
    """Dropout in its own words, statistics of its own, noise from a factory, a parameter that nobody uses."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.unused = nn.Linear(5, 6), nn.Linear(6, 3), nn.Linear(2, 2)
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.one(x))
        if self.training:
            self.mean.mul_(0.9).add_(0.1 * h.mean(0).detach())
            h = h * torch.empty(6, dtype=h.dtype).bernoulli_(0.7) + 0.1 * torch.randn(len(x), 6, dtype=h.dtype)
        return self.two(h - self.mean)


def test_what_a_model_does_itself_in_training_is_held_and_done_once() -> None:
    """Random factories are drawn once a step, and buffers that the model writes take in each batch once."""
    torch.manual_seed(2)
    model = Switched().double()
    x, y = torch.randn(4, 5, dtype=torch.float64), torch.randint(0, 3, (4,))
    net = from_module(model, x)
    assert float(net.mean.abs().max()) == 0
    torch.manual_seed(3)
    found = propagated(EquilibriumPropagation(CrossEntropy(), beta=1e-3), net, x, y)
    torch.manual_seed(3)
    assert compared(found, backprop(model, x, y, CrossEntropy()))[1] < 1e-4
    torch.testing.assert_close(net.mean, model.mean)


@pytest.mark.full
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("RNN", {"nonlinearity": "relu", "num_layers": 2}),
        ("GRU", {"num_layers": 2, "dropout": 0.3, "bias": False}),
        ("LSTM", {"num_layers": 2, "dropout": 0.3, "proj_size": 3, "bidirectional": True}),
    ],
)
def test_recurrent_layers_are_written_out(kind: str, options: dict[str, object]) -> None:
    """Layers that torch computes in one call have units at each step, and draw dropout as torch does."""
    torch.manual_seed(1)
    width = 3 if "proj_size" in options else 6
    model = Recurrent(kind, 6, **options)
    model.head = nn.Linear(width * (2 if "bidirectional" in options else 1), 3)
    model, x, y = model.double().train(), torch.randn(3, 4, 4, dtype=torch.float64), torch.randint(0, 3, (3,))
    net = from_module(model, x)
    assert len(net.units) > 8
    torch.manual_seed(3)
    found = propagated(EquilibriumPropagation(CrossEntropy(), beta=1e-3), net, x, y)
    torch.manual_seed(3)
    assert compared(found, backprop(model, x, y, CrossEntropy()))[1] < 1e-4


def by_values(h: torch.Tensor) -> torch.Tensor:
    if h.sum() > 0:
        return torch.tanh(h)
    return -torch.tanh(h)


def compiled_choice(h: torch.Tensor) -> torch.Tensor:
    return torch.cond(h.sum() > 0, torch.tanh, torch.sin, (h,))


@pytest.mark.parametrize(
    ("middle", "says"),
    [
        pytest.param(compiled_choice, r"torch\.cond.*test_from_module\.py:\d+ \(return", marks=pytest.mark.full),
        (by_values, r"control flow.*test_from_module\.py:\d+ \(if h\.sum\(\) > 0:\)"),
        (lambda h: torch.tanh(h) * float(h[0, 0]), "a number from the values"),
        (lambda h: (torch.tanh(h), h), "linear"),
        (lambda h: h.relu_(), "in place"),
        (lambda h: functional.relu(h, inplace=True), "in place"),
        (lambda h: 2 * h, "a unit before its output"),
        (torch.vmap(torch.tanh), r"functions that torch shows.*test_from_module\.py:\d+"),
        (lambda h: torch.tanh(h * random.random()), "random numbers from torch"),
        (lambda h: torch.tanh(h @ ELSEWHERE), "none of its own"),
    ],
    ids=["cond", "branch", "number", "tuple inside", "relu_", "inplace", "no unit", "vmap", "random", "elsewhere"],
)
def test_what_no_record_holds_is_refused(middle: object, says: str) -> None:
    """A model that is another function for other values would be trained by a gradient of nobody's."""
    x = torch.randn(3, 5, dtype=torch.float64)
    with pytest.raises(InputError, match=says) as refused:
        from_module(Written(middle).double(), x)
    assert "\n" not in str(refused.value)


def test_control_flow_is_refused_where_torch_does_not_compile_it() -> None:
    """After other work in a process torch may run `torch.cond` as it is; a record of one branch is no model."""
    with torch.compiler.set_stance("force_eager"), pytest.raises(InputError, match=r"torch\.cond.*\(return"):
        from_module(Written(compiled_choice).double(), torch.randn(3, 5, dtype=torch.float64))


def test_bad_input_is_one_line() -> None:
    """Each mistake of a caller is named in one line."""
    x, mlp = drawn("mlp", 3), built("mlp")

    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(5, 5)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.tanh(self.one(x)), x

    cases: list[tuple[object, object, dict[str, object], str]] = [
        (mlp, x[:, :4], {}, "example must be an input"),
        (mlp, x.float(), {}, "dtype"),
        (mlp, "x", {}, "example"),
        (mlp, x * math.nan, {}, "finite"),
        (lambda x: x, x, {}, "model must be an nn.Module"),
        (Pair().double(), x, {}, "one tensor .* tuple"),
        (nn.Sequential(nn.Linear(5, 8), nn.ReLU(inplace=True), nn.Linear(8, 3)).double(), x, {}, "'1' has 'relu'"),
        (nn.Linear(5, 3).double(), x, {}, "a unit before"),
        (mlp, x, {"units": ["4", "nowhere"]}, "nowhere"),
        (mlp, x, {"units": "all"}, "units"),
        (mlp, x, {"gates": "open"}, "gates"),
        (mlp, x, {"energy": "paired"}, "form="),
        (mlp, x, {"form": "canonical"}, "form"),
        (mlp, x, {"form": "layers", "units": ["1"]}, "units"),
        (Written(open).double(), x, {}, "runs on"),
        (Written(threading.Lock()).double(), x, {}, "can be copied"),
    ]
    for model, example, options, says in cases:
        with pytest.raises(InputError, match=says) as refused:
            from_module(model, example, **options)  # type: ignore[arg-type]
        assert "\n" not in str(refused.value)
    assert from_module(mlp, x, units=["1"]).units == ("1.relu", "6.linear")
    net = from_module(mlp, x)
    with pytest.raises(InputError, match="axes"):
        relax(net, x[0])
    with pytest.raises(InputError, match="dtype"):
        relax(net, x.float())
    with pytest.raises(InputError, match="Argument x must be an input that the model runs on"):
        relax(net, x[:, :4])


@pytest.mark.slow
def test_resnet18_at_full_size() -> None:
    """What is shown at small widths holds for ResNet-18 at 224x224: 18 units, two sweeps, cosine to backprop."""
    torch.manual_seed(0)
    model = ResNet18().eval()
    x, y = torch.randn(2, 3, 224, 224), torch.tensor([3, 500])
    net = from_module(model, x)
    assert len(net.units) == 18
    ep = EquilibriumPropagation(CrossEntropy(), beta=0.01)
    found = propagated(ep, net, x, y)
    step = ep.backward(net, x, y)
    assert compared(found, backprop(model, x, y, CrossEntropy()))[0] > 0.999
    assert step.equilibria[1].iterations == 2
