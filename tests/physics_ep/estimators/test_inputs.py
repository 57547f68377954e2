"""Inputs of the user's own: token ids are never cast, and an encoder in front gets dC/dx of the mean cost."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from hardware_models import HopfieldNetwork, OscillatorNetwork, ResistiveNetwork
from hardware_models.mapping import map_pcn
from physics_ep import CrossEntropy, EnergySystem, EquilibriumPropagation, SquaredError, relax
from physics_ep.blocks import State
from physics_ep.errors import InputError
from physics_ep.estimators.backprop import Backprop
from physics_ep.estimators.coupled_learning import CoupledLearning
from physics_ep.estimators.thermal import StochasticEquilibriumPropagation
from physics_ep.predictive_coding import mlp
from physics_ep.predictive_coding.architectures import vgg5
from tests.support.pcn import examples
from tests.support.systems import Quartic, batch
from validation import check_system
from validation.oracles import implicit_gradient

WORDS = 1000
"""More than bfloat16 can tell apart: ids above 256 that are cast become others."""


class Bag(EnergySystem):
    """E = 1/2 |s|^2 + 1/4 sum s^4 - s . (mean of the embeddings of the ids)."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 3)
        with torch.no_grad():
            generator = torch.Generator().manual_seed(0)
            self.words.weight.copy_(torch.randn(WORDS, 3, generator=generator))

    def energy(self, state: State, x: torch.Tensor) -> torch.Tensor:
        (s,) = state
        return (0.5 * s**2 + 0.25 * s**4 - s * self.words(x).mean(1)).sum(1)

    def initial_state(self, x: torch.Tensor) -> State:
        return (torch.zeros(len(x), 3, dtype=self.dtype),)

    def outputs(self, state: State) -> torch.Tensor:
        return state[0]


def ids(dtype: torch.dtype = torch.int64) -> torch.Tensor:
    return torch.tensor([[999, 257, 3], [998, 258, 999]], dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", [torch.int64, torch.int32])
def test_token_ids_are_left_alone(kind: torch.dtype, dtype: torch.dtype) -> None:
    """Closed form: s + s^3 = m at the minimum, so that dC/dword = (s - y) / (1 + 3 s^2) / 3 / B."""
    system = Bag().to(dtype)
    y = torch.tensor([[0.5, -0.5, 0.0], [0.0, 0.25, 1.0]], dtype=dtype)
    x = ids(kind)
    EquilibriumPropagation(SquaredError(), beta=1e-3).backward(system, x, y)
    s = relax(system, x).state[0]
    slope = (s - y) / (1 + 3 * s**2) / 6
    expected = torch.zeros_like(system.words.weight)
    for row, own in zip(x.long(), slope, strict=True):
        for word in row:
            expected[word] += own
    torch.testing.assert_close(system.words.weight.grad, expected, rtol=1e-4, atol=2e-6)


@pytest.mark.full
def test_token_ids_pass_through_reports_and_oracles() -> None:
    """What works in float64 must not take ids for numbers: oracle, checks, noise floor, temperature 0."""
    system, y = Bag().double(), torch.tensor([[0.5, -0.5, 0.0], [0.0, 0.25, 1.0]], dtype=torch.float64)
    exact = implicit_gradient(system, ids(), y, SquaredError())["words.weight"]
    step = EquilibriumPropagation(SquaredError(), beta=1e-3).backward(system, ids(), y)
    torch.testing.assert_close(system.words.weight.grad, exact, rtol=1e-4, atol=1e-9)
    assert step.noise_floor < 1e-4
    found = StochasticEquilibriumPropagation(SquaredError(), beta=1.3e-3, temperature=0.0).estimate(
        system, ids(), y
    )
    torch.testing.assert_close(found.gradients["words.weight"], exact, rtol=1e-4, atol=1e-9)
    check_system(system, ids(), y)


# -- dC/dx ---------------------------------------------------------------------------------------------------------


def differences(system: EnergySystem, x: torch.Tensor, y: torch.Tensor, cost, h: float = 1e-4) -> torch.Tensor:
    """d(mean cost)/dx by central differences of relaxed states, every component of all examples at once."""
    slope = torch.zeros_like(x)
    for n in range(x[0].numel()):
        ends = []
        for sign in (h, -h):
            moved = x.clone()
            moved.view(len(x), -1)[:, n] += sign
            state = relax(system, moved, tolerance=1e-12).require().state
            ends.append(cost(system.outputs(state), y))
        slope.view(len(x), -1)[:, n] = (ends[0] - ends[1]) / (2 * h) / len(x)
    return slope


def built(name: str) -> tuple[EnergySystem, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    x, y = batch(4, 2, 3)
    systems = {
        "own": Quartic,
        "hopfield": lambda: HopfieldNetwork([4, 5, 2], "tanh", gain=0.5).double(),
        "resistive": lambda: ResistiveNetwork([4, 5, 2], scale=1.0).double(),
        "oscillator": lambda: OscillatorNetwork([4, 5, 2]).double(),
    }
    return systems[name](), 0.5 * x, y


@pytest.mark.full
@pytest.mark.parametrize("scheme", ["centered", "positive"])
@pytest.mark.parametrize("name", ["own", "hopfield", "oscillator", "resistive"])
def test_input_gradients_are_those_of_finite_differences(name: str, scheme: str) -> None:
    """By the contrast of dE/dx: an encoder in front would learn from it."""
    system, x, y = built(name)
    beta = (1e-3 if scheme == "centered" else 1e-4) * system.nudge_scale
    step = EquilibriumPropagation(SquaredError(), scheme, beta, tolerance=1e-9).backward(
        system, x, y, input_gradient=True
    )
    expected = differences(system, x, y, SquaredError())
    torch.testing.assert_close(step.input_gradient, expected, rtol=1e-3, atol=1e-6)
    assert float(expected.abs().max()) > 1e-3


@pytest.mark.parametrize("energy", ["squared", "paired"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_an_encoder_learns_as_by_autograd(activation: str, energy: str) -> None:
    """z = enc(img): weights of the encoder get what torch gives them through the plain forward pass."""
    torch.manual_seed(0)
    encoder, net = nn.Linear(5, 4).double(), mlp([4, 6, 3], activation=activation, energy=energy).double()
    image, y = examples((5,), 7, n_out=3)
    z = encoder(image).tanh()
    ep = EquilibriumPropagation(CrossEntropy(), beta=1e-3, tolerance=1e-9)
    step = ep.backward(net, z, y, input_gradient=True)
    z = encoder(image).tanh()
    loss = nn.functional.cross_entropy(net(z), y)
    at_z, *exact = torch.autograd.grad(loss, [z, *encoder.parameters()])
    torch.testing.assert_close(step.input_gradient, at_z, rtol=1e-4, atol=1e-7)
    for p, g in zip(encoder.parameters(), exact, strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-4, atol=1e-7)


@pytest.mark.full
def test_an_encoder_in_front_of_convolutions() -> None:
    """The first layer's transposed convolution, with its pooling."""
    torch.manual_seed(0)
    net = vgg5(width=0.125).double()
    x, y = examples(net.example_shape, 2, n_out=net.sizes[-1])
    x = x.requires_grad_()
    step = EquilibriumPropagation(CrossEntropy(), beta=1e-3, tolerance=1e-8).backward(
        net, x, y, input_gradient=True
    )
    (exact,) = torch.autograd.grad(nn.functional.cross_entropy(net(x), y), x)
    torch.testing.assert_close(step.input_gradient, exact, rtol=1e-3, atol=1e-7)
    torch.testing.assert_close(x.grad, step.input_gradient)


@pytest.mark.parametrize("substrate", ["hopfield", "resistive", "oscillator"])
def test_a_mapped_network_gives_its_input_gradient(substrate: str) -> None:
    """Ideal devices: that of backprop through the network."""
    torch.manual_seed(0)
    net = mlp([4, 6, 3], activation="hard_sigmoid").double()
    system = map_pcn(net, substrate).system
    x, y = examples((4,), 5, n_out=3)
    x = x.abs().requires_grad_()
    ep = EquilibriumPropagation(CrossEntropy(), beta=1e-3, tolerance=1e-9)
    step = ep.backward(system, x.detach(), y, input_gradient=True)
    (exact,) = torch.autograd.grad(nn.functional.cross_entropy(net(x), y), x)
    torch.testing.assert_close(step.input_gradient, exact, rtol=1e-3, atol=1e-6)


def test_an_input_that_gets_no_gradient_is_told() -> None:
    """If this fails, an encoder in front stays as it is, and nobody knows."""
    torch.manual_seed(0)
    net = mlp([4, 6, 3], activation="tanh").double()
    x, y = examples((4,), 5, n_out=3)
    x.requires_grad_()
    for backward in (EquilibriumPropagation(CrossEntropy(), beta=0.01).backward, Backprop(CrossEntropy()).backward):
        with pytest.warns(UserWarning, match="x requires a gradient, but gets none"):
            backward(net, x, y)
        assert x.grad is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        EquilibriumPropagation(CrossEntropy(), beta=0.01).backward(net, x, y, input_gradient=True)
        EquilibriumPropagation(CrossEntropy(), beta=0.01).backward(net, x.detach(), y)
    assert x.grad is not None


def test_input_gradients_that_are_none_are_refused() -> None:
    """Ids have no gradient, nor has a rule that is no gradient."""
    system, y = Bag().double(), torch.zeros(2, 3, dtype=torch.float64)
    with pytest.raises(InputError, match="input_gradient must be False"):
        EquilibriumPropagation(SquaredError()).backward(system, ids(), y, input_gradient=True)
    hopfield, x, y = built("hopfield")
    with pytest.raises(InputError, match="input_gradient must be False"):
        CoupledLearning(0.1).backward(hopfield, x, y, input_gradient=True)
    assert all(p.grad is None for p in hopfield.parameters())
