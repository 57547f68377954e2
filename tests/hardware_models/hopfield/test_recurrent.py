"""Networks with separate forward and backward weights: if these fail, one-way amplifiers learn another gradient."""

from __future__ import annotations

import math
import os
import warnings

import pytest
import torch

from hardware_models import RecurrentNetwork
from physics_ep import CrossEntropy, EquilibriumPropagation, SquaredError, VectorField
from physics_ep.config import DataSection
from physics_ep.data.datasets import load_dataset, locate
from physics_ep.errors import InputError
from physics_ep.estimators.methods import AsymmetryWarning
from tests.support.systems import batch
from tests.support.vector_fields import step_ratio
from validation import check_system, implicit_gradient
from validation.gradients import estimate_gradient, total_error


def network(sizes=(5, 12, 8, 3), **options) -> RecurrentNetwork:
    return RecurrentNetwork(list(sizes), back_gain=0.5, **options).double()


def estimate(system, x, y, method: str | None, beta: float = 1e-3, **options) -> dict[str, torch.Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AsymmetryWarning)
        return estimate_gradient(
            EquilibriumPropagation(SquaredError(), beta=beta, method=method, **options), system, x, y
        )[0]


def test_weights_in_each_others_place_give_the_exact_gradient() -> None:
    system = network()
    x, y = batch(5, 3, 4)
    exact = implicit_gradient(system, x, y, SquaredError())
    errors = [total_error(estimate(system, x, y, None, beta), exact) for beta in (1e-2, 1e-3)]
    assert errors[1] <= 1e-5
    assert abs(math.log10(errors[0] / errors[1]) - 2) <= 0.1
    assert total_error(estimate(system, x, y, "vector-field"), exact) > 0.1


@pytest.mark.full
def test_the_exchange_of_weights_is_the_general_correction() -> None:
    """Against products with J - J^T by autograd and a contrast by autograd, with a store that droops too."""
    system = network()
    x, y = batch(5, 3, 4)

    class General(RecurrentNetwork):
        contrast = VectorField.contrast

        def phase(self, inputs, origin=None, balanced=False):
            return super(RecurrentNetwork, self).phase(inputs, origin, balanced)

    twin = General([5, 12, 8, 3], back_gain=0.5).double()
    for droop in (0.0, 1e-6):
        found, general = (estimate(s, x, y, "asymmetric", droop=droop) for s in (system, twin))
        assert total_error(found, general) < 1e-8


@pytest.mark.full
def test_a_subclass_with_another_force_is_relaxed_as_it_is() -> None:
    """Updates and contrasts that know this network by heart would give another system's gradient without a word."""

    class Leaning(RecurrentNetwork):
        def force(self, state, x):
            first, *rest = super().force(state, x)
            return (first - 0.5 * self.bias[0] * torch.tanh(state[0]), *rest)

    class Plain(RecurrentNetwork):
        def coordinates(self, state):
            return state

    x, y = batch(5, 3, 4)
    for kind in (Leaning, Plain):
        system = kind([5, 6, 3], back_gain=0.5).double()
        with torch.no_grad():
            system.bias[0].fill_(0.3)
        exact = implicit_gradient(system, x, y, SquaredError())
        assert total_error(estimate(system, x, y, "asymmetric", 2e-4), exact) <= 1e-5


def test_a_step_in_single_precision_keeps_its_digits() -> None:
    """Displacements of size beta are carried: differences of outputs near one would leave them three digits."""
    exact, found = (network((5, 12, 3)) for _ in range(2))
    x, y = batch(5, 3, 4)
    reference = estimate(exact, x, y, None, 1e-4)
    single = estimate(found.float(), x.float(), y.float(), None, 1e-4)
    assert total_error({n: g.double() for n, g in single.items()}, reference) < 1e-4


def test_a_feedforward_network_learns_by_backprop() -> None:
    """Without backward weights ordinary nudges reach nothing below the outputs; asymmetric EP is backprop."""
    system = network(feedback=False)
    x, y = batch(5, 3, 4)
    h = x
    for k, (w, b) in enumerate(zip(system.forward_weight, system.bias, strict=True)):
        h = h @ w.T + b
        h = torch.tanh(h) if k < 2 else h
    loss = (h - y).square().sum(1).mean() / 2
    names = [n for n, _ in system.named_parameters()]
    exact = dict(zip(names, torch.autograd.grad(loss, list(system.parameters())), strict=True))
    assert total_error(estimate(system, x, y, None), exact) < 1e-5
    blind = estimate(system, x, y, "vector-field")
    assert float(blind["forward_weight.0"].norm()) < 1e-9


@pytest.mark.full
def test_backward_weights_that_are_transposed_have_an_energy() -> None:
    system = network()
    with torch.no_grad():
        for back, w in zip(system.backward_weight, system.forward_weight[1:], strict=True):
            w.mul_(0.5)
            back.copy_(w.T)
    x, y = batch(5, 3, 4)
    step = EquilibriumPropagation(SquaredError(), beta=1e-3).backward(system, x, y)
    assert step.method == "energy"
    assert step.asymmetry < 1e-12


@pytest.mark.full
def test_they_keep_the_contract() -> None:
    x, y = batch(5, 3, 3)
    check_system(network(), x, y)
    check_system(network(feedback=False), x, y)


def test_bad_arguments_are_told() -> None:
    with pytest.raises(InputError, match="sizes must be positive integers"):
        RecurrentNetwork([5])
    with pytest.raises(InputError, match="Did you mean 'tanh'"):
        RecurrentNetwork([5, 3], "tanhh")


@pytest.mark.slow
def test_a_step_costs_what_an_ordinary_one_does() -> None:
    """At most 1.3 times the processor time: nudged phases read the same number of weights."""
    system = RecurrentNetwork([784, 512, 10])
    x, y = torch.rand(32, 784), torch.rand(32, 10)
    assert step_ratio(system, x, y, 1e-2) <= 1.3


@pytest.mark.slow
def test_mnist_gradients_of_separate_weights() -> None:
    """784-512-10 on eight digits: asymmetric EP is exact, and the vector field is off in the first layer."""
    if locate("mnist", os.environ.get("PHYSICS_EP_DATA")) is None:
        pytest.skip("needs MNIST: set PHYSICS_EP_DATA to a folder that holds it")
    data = load_dataset(DataSection(name="mnist"))
    system = RecurrentNetwork([784, 512, 10], gain=0.7, back_gain=0.5).double()
    x, y = data.train_x[:8].flatten(1).double(), data.train_y[:8]
    exact = implicit_gradient(system, x, y, CrossEntropy())
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AsymmetryWarning)
        for method in ("asymmetric", "vector-field"):
            ep = EquilibriumPropagation(CrossEntropy(), beta=1e-3, method=method)
            found[method] = estimate_gradient(ep, system, x, y)[0]
    assert total_error(found["asymmetric"], exact) <= 1e-5
    first = "forward_weight.0"
    cosine = torch.nn.functional.cosine_similarity(
        found["vector-field"][first].flatten(), exact[first].flatten(), dim=0
    )
    assert float(cosine) < 0.9
