"""Outputs that depend on parameters themselves, and what else a user's energy, outputs and cost may be."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call

from physics_ep import CrossEntropy, EnergySystem, EquilibriumPropagation, SquaredError, relax
from physics_ep.cost import Cost
from physics_ep.errors import InputError
from physics_ep.estimators.contrasts import direct_gradient
from physics_ep.estimators.propagation import estimate_gradient
from physics_ep.estimators.thermal import StochasticEquilibriumPropagation
from physics_ep.nudging import Nudge
from tests.support.systems import Quartic, batch
from tests.support.tiers import first
from validation import bptt_gradient, gradient_report, implicit_gradient


class Springs(EnergySystem):
    """E = 1/2 |s - U x|^2, so that s = U x and outputs are those of a plain network, `forward`."""

    feedforward = False

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.u = nn.Parameter(0.4 * torch.randn(6, 4, generator=generator, dtype=torch.float64))
        self.read = nn.Linear(6, 3).double()
        with torch.no_grad():
            for p in self.read.parameters():
                p.copy_(0.4 * torch.randn(p.shape, generator=generator, dtype=torch.float64))

    def energy(self, state, x):
        return 0.5 * (state[0] - x @ self.u.t()).square().sum(1)

    def initial_state(self, x):
        return (x.new_zeros(len(x), 6),)

    def outputs(self, state):
        return self.read(state[0])

    def forward(self, x):
        return self.outputs((x @ self.u.t(),))


class Gained(Springs):
    """A trained gain and offset, no module."""

    def outputs(self, state):
        return self.read.bias * state[0][:, :3] + self.read.weight[0, 0]


class Tied(Springs):
    """The couplings are read a second time as the readout's weights."""

    def outputs(self, state):
        return state[0] @ self.u[:, :3]


class OnlyReadout(Springs):
    """Nothing in the energy is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.u.requires_grad_(False)


class DeepReadout(Springs):
    """A readout that is not linear."""

    def outputs(self, state):
        return self.read(state[0].tanh()).tanh()


READOUTS = [Springs, Gained, Tied, OnlyReadout, DeepReadout]


def autograd(system, x, y, cost):
    named = {n: p for n, p in system.named_parameters() if p.requires_grad}
    loss = cost(functional_call(system, named, (x,)), y).mean()
    grads = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(named.items(), grads, strict=True)}


def differences(found, want):
    return {n: float((found.get(n, torch.zeros_like(g)) - g).abs().max()) for n, g in want.items()}


@pytest.mark.parametrize("cost", first(1, [SquaredError(), CrossEntropy()]), ids=lambda c: c.name)
@pytest.mark.parametrize("kind", READOUTS, ids=lambda k: k.__name__)
def test_gradients_hold_what_outputs_owe_to_parameters(kind, cost) -> None:
    """A trained readout would otherwise learn nothing, and every oracle would agree that it need not."""
    system = kind()
    x, y = batch(4, 3, 5)
    y = y if cost.name == "squared_error" else torch.tensor([0, 2, 1, 1, 0])
    want = autograd(system, x, y, cost)
    step, _ = estimate_gradient(EquilibriumPropagation(cost, beta=1e-4), system, x, y)
    assert max(differences(step, want).values()) < 1e-7
    assert max(differences(implicit_gradient(system, x, y, cost), want).values()) < 1e-8
    assert max(differences(bptt_gradient(system, x, y, cost, iterations=40, step=0.5), want).values()) < 1e-8
    thermal = StochasticEquilibriumPropagation(cost, beta=1e-4, temperature=0.0).estimate(system, x, y)
    assert max(differences(thermal.gradients, want).values()) < 1e-7


def test_report_and_noise_floor_know_the_direct_part() -> None:
    """If this fails, a report of a trained readout would show an error where there is none, or the other way
    about."""
    x, y = batch(4, 3, 5)
    report = gradient_report(Springs(), x, y, SquaredError(), beta=1e-4)
    rows = {row.name: row for row in report.rows}
    assert set(rows) == {"u", "read.weight", "read.bias"}
    assert report.relative_error < 1e-6
    assert rows["read.weight"].relative_error < 1e-9
    assert rows["read.weight"].noise_floor < 1e-8


def test_direct_part_leaves_out_examples_that_are_not_used() -> None:
    """A state of NaN with weight 0 must not reach the sum: 0 times NaN is NaN."""
    system = Springs()
    x, y = batch(4, 3, 3)
    s = x @ system.u.detach().t()
    s[1] = torch.nan
    weight = torch.tensor([0.5, 0.0, 0.5], dtype=torch.float64)
    found = direct_gradient(system, (s,), SquaredError(), y, weight)
    want = autograd(system, x[[0, 2]], y[[0, 2]], SquaredError())
    assert float((found["read.weight"] - want["read.weight"]).abs().max()) < 1e-12
    assert "u" not in found


class Offset(Quartic):
    def outputs(self, state):
        return super().outputs(state) + 1


@pytest.mark.full
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_an_offset_of_the_outputs_moves_no_stability_limit(dtype) -> None:
    """An offset taken for a response to a force gives beta='auto' 2e-6 for 0.05 and refuses negative nudges."""
    x, y = (t.to(dtype) for t in batch(4, 2, 4))
    plain, shifted = Quartic().to(dtype), Offset().to(dtype)
    found = []
    for system, target in ((plain, y), (shifted, y + 1)):
        ep = EquilibriumPropagation(SquaredError(), beta="auto")
        ep.backward(system, x, target)
        found.append((ep.beta, system.w.grad))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-3 if dtype == torch.float32 else 1e-6)
    assert float((found[0][1] - found[1][1]).norm() / found[0][1].norm()) < 1e-5
    EquilibriumPropagation(SquaredError(), beta=0.2).backward(shifted, x, y + 1)


def test_the_limit_of_a_trained_readout_is_that_of_its_weights() -> None:
    """With H = 1 and outputs A s + b, lambda is the largest eigenvalue of A A^T."""
    system = Springs()
    x, y = batch(4, 3, 5)
    ep = EquilibriumPropagation(SquaredError(), beta="auto")
    ep.backward(system, x, y)
    weight = system.read.weight.detach()
    want = float(torch.linalg.eigvalsh(weight @ weight.t())[-1])
    assert 1 / ep.stability_limit == pytest.approx(want, rel=5e-3)


# -- shapes --------------------------------------------------------------------------------------------------------


class Summed(Quartic):
    def energy(self, state, x):
        return super().energy(state, x).sum()


class Averaged(Quartic):
    def energy(self, state, x):
        return super().energy(state, x).mean()


class Column(Quartic):
    def energy(self, state, x):
        return super().energy(state, x)[:, None]


class PerUnit(Quartic):
    def energy(self, state, x):
        return 0.5 * (state[0] - x @ self.u.t()).square()


class Row(Quartic):
    def energy(self, state, x):
        return super().energy(state, x).sum(0, keepdim=True)


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize(
    ("kind", "shape"), [(Summed, "()"), (Averaged, "()"), (Column, "(4, 1)"), (PerUnit, "(4, 6)"), (Row, "(1,)")]
)
def test_an_energy_that_is_not_one_number_an_example_is_refused(kind, shape: str, size: int) -> None:
    """Gradients would be wrong by the size of the batch, in silence."""
    if kind is Row and size == 1:
        return  # the sum over one example is its energy
    system = kind()
    x, y = batch(4, 2, size)
    words = rf"system \({kind.__name__}\) must have a floating-point energy of shape \({size},\), one number an"
    for call in (
        lambda: relax(system, x),
        lambda: EquilibriumPropagation(SquaredError()).backward(system, x, y),
        lambda: implicit_gradient(system, x, y, SquaredError()),
        lambda: bptt_gradient(system, x, y, SquaredError(), iterations=2),
        lambda: system.contrast(system.initial_state(x), system.initial_state(x), None, x, x[:, 0]),
    ):
        with pytest.raises(InputError, match=words) as error:
            call()
        assert shape.replace("4", str(size), 1) in str(error.value)
        assert "\n" not in str(error.value)
    assert system.w.grad is None


class FlatOutputs(Quartic):
    def outputs(self, state):
        return state[0][:, 0]


class MeanOutputs(Quartic):
    def outputs(self, state):
        return state[0][:, :2].mean(0, keepdim=True)


class MeanSquare(Cost):
    name = "mean_square"

    def __call__(self, outputs, y):
        return 0.5 * (outputs - y).square().mean()

    def gradient(self, outputs, y):
        return (outputs - y) / y.numel()

    def curvature(self, outputs, y, v):
        return v / y.numel()

    def check(self, outputs, y):
        return None


def test_outputs_and_costs_that_mix_examples_are_refused() -> None:
    """A cost averaged over the batch nudges each example by 1 / B of its pull; outputs (B,) broadcast with y."""
    x, y = batch(4, 2, 4)
    for kind, was in ((FlatOutputs, r"\(4,\)"), (MeanOutputs, r"\(1, 2\)")):
        with pytest.raises(InputError, match=rf"must have outputs of shape \(4, n_out\), but was of shape {was}"):
            EquilibriumPropagation(SquaredError()).backward(kind(), x, y)
    words = r"cost \(MeanSquare\) must return one number an example, of shape \(4,\), but was of shape \(\)"
    with pytest.raises(InputError, match=words):
        EquilibriumPropagation(MeanSquare()).backward(Quartic(), x, y)
    with pytest.raises(InputError, match=words):
        relax(Quartic(), x, Nudge(MeanSquare(), y, 0.1))
    with pytest.raises(InputError, match=words):
        implicit_gradient(Quartic(), x, y, MeanSquare())
