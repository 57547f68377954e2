"""What a user's system or cost gets wrong ends in one line that names it; what torch allows elsewhere works here.

If these fail, a slip of a user ends in a traceback from within autograd, or plain torch use (inference mode, a loss
without a second derivative, targets of another dtype) in none of the answers that it has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as losses

from hardware_models import HopfieldNetwork
from physics_ep import CrossEntropy, EnergySystem, EquilibriumPropagation, Nudge, SquaredError, relax, simulate
from physics_ep.blocks import State
from physics_ep.errors import InputError
from physics_ep.estimators.propagation import estimate_gradient
from validation import backprop_gradient, check_system, finite_difference_gradient, implicit_gradient
from validation.oracles import bptt_gradient

LABELS = torch.tensor([0, 1, 2, 1])


class Wells(EnergySystem):
    """E = 1/2 |s - W x|^2 + 1/10 sum s^4: one minimum."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.W = nn.Parameter(torch.randn(3, 5, generator=generator, dtype=torch.float64))

    def energy(self, state: State, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * (state[0] - x @ self.W.T).square().sum(1) + 0.1 * (state[0] ** 4).sum(1)

    def initial_state(self, x: torch.Tensor) -> State:
        return (torch.zeros(len(x), 3, dtype=self.dtype),)

    def outputs(self, state: State) -> torch.Tensor:
        return state[0]


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    draw = torch.rand(4, 8, generator=generator, dtype=torch.float64)
    return draw[:, :5], draw[:, 5:]


def wrong(method: str, change: Callable[[Any], Any], **declared: float) -> EnergySystem:
    """A system of which one method returns something else."""
    own = getattr(Wells, method)
    return type("Wrong", (Wells,), {method: lambda self, *given: change(own(self, *given)), **declared})()


SYSTEMS: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    "energy detached": ("energy", torch.Tensor.detach, "follow to the state, but was detached"),
    "energy complex": ("energy", lambda e: e + 0j, "a real energy"),
    "energy an array": ("energy", lambda e: e.detach().numpy(), "floating-point energy .* was ndarray"),
    "energy None": ("energy", lambda e: None, "floating-point energy .* was NoneType"),
    "energy a list": ("energy", list, "floating-point energy .* was list"),
    "outputs a tuple": ("outputs", lambda o: (o,), "outputs that are .* was tuple"),
    "outputs a list": ("outputs", list, "outputs that are .* was list"),
    "outputs an array": ("outputs", lambda o: o.detach().numpy(), "outputs that are .* was ndarray"),
    "outputs integers": ("outputs", torch.Tensor.long, "outputs that are .* torch.int64"),
    "outputs detached": ("outputs", torch.Tensor.detach, "outputs that autograd can follow"),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_what_a_system_returns_is_named(name: str) -> None:
    """Whether scales are measured or declared: other evaluations come first then."""
    x, y = batch()
    for declared in ({}, {"residual_scale": 1.0, "nudge_scale": 1.0}):
        system = wrong(*SYSTEMS[name][:2], **declared)
        with pytest.raises(InputError, match=SYSTEMS[name][2]) as caught:
            EquilibriumPropagation(SquaredError()).backward(system, x, y)
        assert str(caught.value).startswith("Argument system (Wrong) must")
        assert "\n" not in str(caught.value)
        with pytest.raises(InputError, match="Argument system"):
            implicit_gradient(system, x, y, SquaredError())
    with pytest.raises((InputError, AssertionError)) as caught:
        check_system(system, x, y)
    assert "\n" not in str(caught.value)


COSTS: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "float": (lambda o, t: float((o - t).square().sum()), "was float"),
    "None": (lambda o, t: None, "was NoneType"),
    "array": (lambda o, t: (o - t).square().sum(1).detach().numpy(), "was ndarray"),
    "list": (lambda o, t: list((o - t).square().sum(1)), "was list"),
    "mean": (lambda o, t: (o - t).square().mean(), r"of shape \(\)"),
    "detached": (lambda o, t: (o - t).square().sum(1).detach(), "detached"),
    "hits": (lambda o, t: (o > t).sum(1), "torch.int64"),
}


@pytest.mark.parametrize("name", COSTS)
def test_what_a_cost_returns_is_named(name: str) -> None:
    cost, match = COSTS[name]
    x, y = batch()
    for scheme in ("centered", "positive"):
        with pytest.raises(InputError, match=f"Argument cost .*{match}"):
            EquilibriumPropagation(cost, scheme).backward(Wells(), x, y)
    for oracle in (implicit_gradient, bptt_gradient, finite_difference_gradient):
        if name != "detached" or oracle is not finite_difference_gradient:  # that one needs values alone
            with pytest.raises(InputError, match=f"Argument cost .*{match}"):
                oracle(Wells(), x, y, cost)


@pytest.mark.parametrize("what", [nn.CrossEntropyLoss(), nn.MSELoss, "squared_error", None])
def test_what_is_no_cost_is_told_what_is(what: object) -> None:
    with pytest.raises(InputError, match=r"or a function of \(outputs, y\) with reduction='none', but was"):
        EquilibriumPropagation(what)  # type: ignore[arg-type]


def bce(outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return losses.binary_cross_entropy_with_logits(outputs, y, reduction="none").sum(1)


LOSSES: dict[str, tuple[Callable[[Any, Any], torch.Tensor], Any]] = {
    "huber": (lambda o, t: losses.huber_loss(o, t, reduction="none").sum(1), batch()[1].numpy()),
    "bce int": (
        bce,
        [[0, 1, 1]] * 4,
    ),
    "bce bool": (
        bce,
        batch()[1] > 0.5,
    ),
    "hinge": (lambda o, t: losses.multi_margin_loss(o, t, reduction="none"), LABELS),
    "squared hinge": (lambda o, t: losses.multi_margin_loss(o, t, p=2, reduction="none"), LABELS),
    "labels": (lambda o, t: losses.cross_entropy(o, t, reduction="none"), LABELS.to(torch.uint8)),
}


@pytest.mark.parametrize("dtype", [pytest.param(torch.float32, marks=pytest.mark.full), torch.float64])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_torch_take_what_targets_one_has(name: str, dtype: torch.dtype) -> None:
    """By the exact gradient: float64 targets in a float32 system, integers and booleans as 0 and 1, hinges."""
    cost, y = LOSSES[name]
    system, x = Wells().to(dtype), batch()[0].to(dtype)
    EquilibriumPropagation(cost, beta=1e-3).backward(system, x, y)
    exact = implicit_gradient(system, x, y, cost)["W"]
    assert system.W.grad is not None
    assert system.W.grad.dtype == dtype
    bound = 1e-5 if dtype == torch.float64 else 1e-3
    assert float((system.W.grad - exact).norm() / exact.norm()) < bound
    relax(system, x, Nudge(cost, y, 1e-3), relax(system, x).state).require()  # type: ignore[arg-type]


def test_targets_in_double_fit_a_system_in_single() -> None:
    """The kind of huber_loss, of which torch wants one dtype: numpy targets are float64 mostly."""
    system, (x, y) = Wells().float(), batch()
    EquilibriumPropagation(LOSSES["huber"][0], beta=1e-3).backward(system, x.float(), y.numpy())  # type: ignore[arg-type]
    assert system.W.grad is not None
    assert system.W.grad.dtype == torch.float32


def test_curvature_without_a_second_derivative_is_that_of_the_loss() -> None:
    """The squared hinge sum (1 - o_y + o_i)^2 / n over margins not met, by its Hessian written out."""
    cost = EquilibriumPropagation(LOSSES["squared hinge"][0]).cost
    outputs = torch.tensor([[0.3, 0.1, -0.2], [0.0, 5.0, 0.1]], dtype=torch.float64)
    y, v = torch.tensor([0, 1]), torch.tensor([[1.0, -2.0, 0.5]] * 2, dtype=torch.float64) * 1e3
    hessian = 2 / 3 * torch.tensor([[2.0, -1.0, -1.0], [-1.0, 1.0, 0.0], [-1.0, 0.0, 1.0]], dtype=torch.float64)
    wanted = torch.stack([hessian @ v[0], torch.zeros(3, dtype=torch.float64)])  # all margins of the second are met
    torch.testing.assert_close(cost.curvature(outputs, y, v), wanted, rtol=1e-8, atol=1e-6)


def test_oracles_refuse_targets_that_do_not_fit() -> None:
    x, _ = batch()
    oracles = (implicit_gradient, bptt_gradient, finite_difference_gradient)
    for y in (LABELS.double(), LABELS + 1, LABELS - 1, LABELS[:, None], LABELS[:2], [0.0, 1.0, 2.0, 1.0]):
        for oracle in oracles:
            with pytest.raises(InputError, match="Argument y must"):
                oracle(Wells(), x, y, CrossEntropy())  # type: ignore[arg-type]
    for y in (LABELS, torch.zeros(4, 2, dtype=torch.float64), np.full((4, 3), np.nan)):
        for oracle in oracles:
            with pytest.raises(InputError, match="Argument y must"):
                oracle(Wells(), x, y, SquaredError())  # type: ignore[arg-type]


class Forward(Wells):
    """With a forward pass."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.W.T


def test_backprop_refuses_targets_that_do_not_fit() -> None:
    with pytest.raises(InputError, match="Argument y must hold class indices in"):
        backprop_gradient(Forward(), batch()[0], LABELS + 1, CrossEntropy())


def test_inference_mode_changes_nothing() -> None:
    """States and gradients within torch.inference_mode() are those without, of systems with and without a closed
    force, for inputs, targets and starts made within."""
    x, y = batch()
    # As copies lie in memory: BLAS adds in another order, and rounds otherwise, where rows are not contiguous.
    x = x.contiguous()
    for make in (Wells, lambda: HopfieldNetwork([5, 4, 3], "tanh").double()):
        plain, system = make(), make()
        system.load_state_dict(plain.state_dict())
        free = relax(plain, x).state
        step = EquilibriumPropagation(SquaredError(), beta=1e-3).backward(plain, x, y)
        with torch.inference_mode():
            inner_x, inner_y = x * 1, y * 1
            found = relax(system, inner_x)
            assert all(torch.equal(a, b) for a, b in zip(found.state, free, strict=True))
            start = tuple(s * 1 for s in found.state)
            relax(system, inner_x, Nudge(SquaredError(), inner_y, 1e-3), start).require()
            simulate(system, inner_x, duration=0.01)
            exact = implicit_gradient(system, inner_x, inner_y, SquaredError())
            got, _ = estimate_gradient(EquilibriumPropagation(SquaredError(), beta=1e-3), system, inner_x, inner_y)
            inner = EquilibriumPropagation(SquaredError(), beta=1e-3).backward(system, inner_x, inner_y)
        assert torch.equal(inner.loss, step.loss)
        for (name, p), q in zip(system.named_parameters(), plain.parameters(), strict=True):
            assert p.grad is not None
            assert q.grad is not None
            assert torch.equal(p.grad, q.grad)
            assert torch.equal(got[name], q.grad)
            assert exact[name].shape == q.shape
        relax(system, inner_x)  # outside, with an input made within
        assert not p.grad.is_inference()


def test_parameters_made_in_inference_mode_are_looked_at_but_not_trained() -> None:
    x, y = batch()
    with torch.inference_mode():
        system = Wells()
    assert torch.equal(relax(system, x).state[0], relax(Wells(), x).state[0])
    with pytest.raises(InputError, match=r"hold parameters that were made outside torch\.inference_mode"):
        EquilibriumPropagation(SquaredError()).backward(system, x, y)


class Embedded(Wells):
    """Of token ids: the mean of their embeddings is what drives it."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 5, dtype=torch.float64)

    def energy(self, state: State, x: torch.Tensor) -> torch.Tensor:
        return super().energy(state, self.embedding(x).mean(1))


def test_integers_that_an_energy_does_not_take_are_named() -> None:
    ids = torch.tensor([[0, 1], [2, 3], [4, 5], [6, 0]])
    for system, x, why in (
        (Embedded(), ids + 5, "out of range"),
        (Embedded(), ids - 1, "out of range"),
        (Embedded(), ids.to(torch.int16), "torch.int16"),
        (Embedded(), ids.to(torch.uint8), "torch.uint8"),
        (Wells(), torch.ones(4, 5, dtype=torch.uint8), "torch.uint8"),
    ):
        for act in (
            lambda s, x: EquilibriumPropagation(CrossEntropy()).backward(s, x, LABELS),
            lambda s, x: implicit_gradient(s, x, LABELS, CrossEntropy()),
            relax,
        ):
            with pytest.raises(InputError, match=f"Argument x must hold integers .*{why}") as caught:
                act(system, x)
            assert "\n" not in str(caught.value)
    EquilibriumPropagation(CrossEntropy(), beta=1e-2).backward(Embedded(), ids.int(), LABELS)
