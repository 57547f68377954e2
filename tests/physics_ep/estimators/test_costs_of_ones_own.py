"""Costs and targets of the user's own: by the documented contract, by autograd, in any integer type."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, kl_div

from hardware_models import HopfieldNetwork, ResistiveNetwork
from physics_ep import CrossEntropy, EnergySystem, EquilibriumPropagation, SquaredError, relax, simulate
from physics_ep.cost import Cost, FunctionCost
from physics_ep.errors import InputError
from physics_ep.estimators.thermal import StochasticEquilibriumPropagation
from physics_ep.nudging import Nudge
from physics_ep.predictive_coding import mlp
from tests.support.systems import Quartic
from validation import check_system
from validation.oracles import implicit_gradient

X = torch.linspace(-1, 1, 16, dtype=torch.float64).view(4, 4)
LABELS = torch.tensor([0, 1, 2, 0])
SOFT = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.0, 0.5, 0.5], [1.0, 0.0, 0.0]], dtype=torch.float64)
WEIGHTS = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)


class Fourth(Cost):
    """1/4 sum (o - y)^4 with the three methods that the base class names."""

    def value(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return 0.25 * ((outputs - y) ** 4).sum(1)

    def gradient(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (outputs - y) ** 3

    def curvature(self, outputs: torch.Tensor, y: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return 3 * (outputs - y) ** 2 * v


def network() -> EnergySystem:
    torch.manual_seed(0)
    return mlp([4, 6, 3], activation="tanh").double()


FUNCTIONS: dict[str, tuple[Callable[..., torch.Tensor], torch.Tensor]] = {
    "class weights": (lambda o, y: cross_entropy(o, y, WEIGHTS.to(o), reduction="none"), LABELS),
    "label smoothing": (lambda o, y: cross_entropy(o, y, label_smoothing=0.1, reduction="none"), LABELS),
    "soft targets": (lambda o, y: cross_entropy(o, y, reduction="none"), SOFT),
    "binary": (lambda o, y: binary_cross_entropy_with_logits(o, y, reduction="none").sum(1), SOFT),
    "divergence": (lambda o, y: kl_div(o.log_softmax(1), y, reduction="none").sum(1), SOFT),
    "linear": (lambda o, y: (o * y).sum(1), SOFT),
}


@pytest.mark.parametrize("beta", [1e-3, "auto"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_torch_function_is_a_cost(name: str, beta: float | str) -> None:
    """The gradient is autograd's of the mean of the same function, up to the finite beta."""
    function, y = FUNCTIONS[name]
    net = network()
    step = EquilibriumPropagation(function, beta=beta, tolerance=1e-9).backward(net, X, y)
    loss = function(net(X), y).mean()
    assert float(step.loss) == pytest.approx(float(loss.detach()), rel=1e-12)
    exact = torch.autograd.grad(loss, list(net.parameters()))
    size = max(float(g.abs().max()) for g in exact)
    for p, g in zip(net.parameters(), exact, strict=True):
        torch.testing.assert_close(p.grad, g, rtol=0, atol=(1e-5 if beta == 1e-3 else 1e-2) * size)


def test_a_function_of_the_whole_batch_is_refused() -> None:
    """A mean would make each example's pull too small by the batch."""
    with pytest.raises(InputError, match="one number an example"):
        EquilibriumPropagation(cross_entropy, beta=0.01).backward(network(), X, LABELS)


@pytest.mark.parametrize("beta", [1e-3, "auto", 0.9])
def test_value_gradient_and_curvature_are_enough(beta: float | str) -> None:
    """What the base class says that a subclass gives; also for nudges that need the output layer's exact update."""
    net, y = network(), SOFT
    ep = EquilibriumPropagation(Fourth(), "positive" if beta == 0.9 else None, beta, tolerance=1e-9)
    ep.backward(net, X, y)
    if beta == 0.9:
        state = relax(net, X, Nudge(Fourth(), y, 0.9), start=net.initial_state(X), tolerance=1e-10).require().state
        leaves = tuple(s.clone().requires_grad_() for s in state)
        total = net.energy(leaves, X) + 0.9 * Fourth()(net.outputs(leaves), y)
        slope = torch.autograd.grad(total.sum(), leaves)
        assert max(float(g.abs().max()) for g in slope) < 1e-8
        return
    exact = torch.autograd.grad(Fourth()(net(X), y).mean(), list(net.parameters()))
    for p, g in zip(net.parameters(), exact, strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("kind", ["own", "hopfield"])
def test_such_costs_serve_other_systems_too(kind: str) -> None:
    """Against implicit differentiation, which knows nothing of nudges."""
    torch.manual_seed(0)
    system = Quartic() if kind == "own" else HopfieldNetwork([4, 5, 2], "tanh", gain=0.5).double()
    y = SOFT[:, :2]
    EquilibriumPropagation(Fourth(), beta=1e-3).backward(system, X, y)
    exact = implicit_gradient(system, X, y, Fourth())
    for name, p in system.named_parameters():
        torch.testing.assert_close(p.grad, exact[name], rtol=1e-3, atol=1e-5)


def test_autograd_finds_what_the_built_in_costs_know() -> None:
    """Gradient, curvature and exact output unit of the cross-entropy in closed form, beside those by autograd."""
    own, known = FunctionCost(lambda o, y: cross_entropy(o, y, reduction="none")), CrossEntropy()
    outputs, v = SOFT * 3 - 1, SOFT.flip(1)
    for method in ("gradient", "curvature"):
        more = (v,) if method == "curvature" else ()
        torch.testing.assert_close(
            getattr(own, method)(outputs, LABELS, *more), getattr(known, method)(outputs, LABELS, *more)
        )
    beta = torch.full((4, 1), 2.5, dtype=torch.float64)
    torch.testing.assert_close(
        own.displaced_unit(outputs, LABELS, beta, v), known.displaced_unit(outputs, LABELS, beta, v)
    )


@pytest.mark.parametrize(
    "given",
    [LABELS.to(torch.int32), LABELS.to(torch.uint8), LABELS.to(torch.int16), LABELS.numpy(), LABELS.tolist(),
     np.array([0, 1, 2, 0], np.int32)],
    ids=["int32", "uint8", "int16", "numpy", "list", "numpy int32"],
)  # fmt: skip
def test_labels_of_any_integer_type(given: object) -> None:
    """To the last bit what int64 gives: in EP, in `relax`, and encoded as one-hot targets."""
    net, other = network(), network()
    EquilibriumPropagation(CrossEntropy(), beta=0.01).backward(net, X, given)
    EquilibriumPropagation(CrossEntropy(), beta=0.01).backward(other, X, LABELS)
    assert all(torch.equal(p.grad, q.grad) for p, q in zip(net.parameters(), other.parameters(), strict=True))
    found, right = (relax(net, X, Nudge(CrossEntropy(), y, 0.01)).state[-1] for y in (given, LABELS))
    assert torch.equal(found, right)
    assert torch.equal(SquaredError().encode(given, 3, torch.float64), torch.eye(3, dtype=torch.float64)[LABELS])


def test_targets_that_are_none_are_told() -> None:
    """One line that names the argument."""
    with pytest.raises(InputError, match="Argument y must be"):
        EquilibriumPropagation(CrossEntropy(), beta=0.01).backward(network(), X, ["a", "b", "c", "d"])
    with pytest.raises(InputError, match="Argument y must be"):
        EquilibriumPropagation(CrossEntropy(), beta=0.01).backward(network(), X, LABELS.double())


def normalised(o: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Class weights over their sum in the batch, as torch's mean has them."""
    return cross_entropy(o, y, WEIGHTS.to(o), reduction="none") / WEIGHTS.to(o)[y].sum()


class Three(Quartic):
    """Three outputs."""

    def outputs(self, state: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return state[0][:, :3]


class BatchError(SquaredError):
    """A built-in cost whose subclass divides its gradient alone by the batch."""

    def gradient(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (outputs - y) / len(outputs)


OF_THE_BATCH = {
    "over outputs": (lambda o, y: cross_entropy(o, y, reduction="none") / len(o), LABELS),
    "over targets": (lambda o, y: cross_entropy(o, y, reduction="none") / len(y), LABELS),
    "class weights": (normalised, LABELS),
    "centred": (lambda o, y: (o - o.mean(0) - y).square().sum(1), SOFT),
    "largest": (lambda o, y: (o - y).square().sum(1) / (o.detach() - y).square().sum(1).max(), SOFT),
    "gradient": (BatchError(), SOFT),
    "listed weights": (
        lambda o, y: torch.tensor([1.0, 2.0, 3.0, 4.0]).to(o) * cross_entropy(o, y, reduction="none"),
        LABELS,
    ),
}


@pytest.mark.parametrize("name", OF_THE_BATCH)
def test_a_cost_that_changes_with_its_batch_is_refused(name: str) -> None:
    """Nudged phases are stacked: the gradient of such a cost was half of what its loss said, on some systems."""
    function, y = OF_THE_BATCH[name]
    cost = function if isinstance(function, Cost) else FunctionCost(function)
    torch.manual_seed(0)
    systems = (network(), HopfieldNetwork([4, 5, 3], "tanh").double(), ResistiveNetwork([4, 5, 3]).double())
    for system in systems:
        with pytest.raises(InputError, match=r"same cost in any batch.*divide by nothing"):
            EquilibriumPropagation(function, beta=1e-4).backward(system, X, y)
        assert all(p.grad is None for p in system.parameters())
    net = systems[1]
    free = relax(net, X).state
    for use in (
        lambda: relax(net, X, Nudge(cost, y, 0.01), start=free),
        lambda: simulate(net, X, 0.1, Nudge(cost, y, 0.01), free),
        lambda: StochasticEquilibriumPropagation(cost, beta=0.01, temperature=0.0).estimate(Three(), X, y),
    ):
        with pytest.raises(InputError, match="same cost in any batch"):
            use()
    with pytest.raises(AssertionError, match="batch independence: Argument cost"):
        check_system(network(), X, y, cost)


@pytest.mark.parametrize("name", ["over outputs", "centred"])
def test_it_is_seen_in_a_batch_of_one_and_when_the_batch_changes(name: str) -> None:
    """One example has no other half; and a cost may do as its author meant in the first batch only."""
    function, y = OF_THE_BATCH[name]
    with pytest.raises(InputError, match="same cost in any batch"):
        EquilibriumPropagation(function, beta=1e-4).backward(network(), X[:1], y[:1])
    ep = EquilibriumPropagation(lambda o, t: function(o, t) if len(o) == 3 else (o - 1).square().sum(1))
    ep.backward(network(), X[:2], y[:2])
    with pytest.raises(InputError, match="same cost in any batch"):
        ep.backward(network(), X[:3], y[:3])


def test_weights_of_examples_stand_in_the_targets() -> None:
    """What the refusal says to do, against autograd."""
    weights = torch.tensor([[1.0], [2.0], [0.5], [0.1]], dtype=torch.float64)
    y = torch.cat([SOFT, weights], 1)
    net = network()

    def cost(o: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return t[:, -1] * (o - t[:, :-1]).square().sum(1)

    EquilibriumPropagation(cost, beta=1e-4).backward(net, X, y)
    exact = torch.autograd.grad(cost(net(X), y).mean(), list(net.parameters()))
    for p, g in zip(net.parameters(), exact, strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-4, atol=1e-7)


def test_a_cost_is_tried_once_for_each_size_of_batch() -> None:
    """More would make every step of a cost of one's own slower."""
    calls = []
    ep = EquilibriumPropagation(lambda o, y: calls.append(len(o)) or (o - y).square().sum(1), beta=1e-3)
    net = network()
    for _ in range(3):
        ep.backward(net, X[:3], SOFT[:3])
    assert calls.count(1) == 1  # the lesser half
