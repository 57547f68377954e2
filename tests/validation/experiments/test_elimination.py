"""Exact gradients by elimination are those of implicit differentiation, and other energies are refused."""

from __future__ import annotations

import pytest
import torch

from hardware_models.hopfield import HopfieldNetwork
from hardware_models.oscillators import OscillatorNetwork
from hardware_models.resistive import ResistiveNetwork
from physics_ep import relax
from physics_ep.cost import Cost, CrossEntropy, SquaredError
from physics_ep.errors import InputError
from physics_ep.system import EnergySystem
from validation.experiments import elimination
from validation.experiments.elimination import eliminating_backward
from validation.oracles import OracleError, implicit_gradient

CASES = {
    "clipped": (HopfieldNetwork([8, 12, 4], seed=1, gain=2.0), SquaredError()),
    "clipped outputs": (HopfieldNetwork([8, 12, 4], seed=1, output_activation="hard_sigmoid"), SquaredError()),
    "tanh": (HopfieldNetwork([8, 12, 4], activation="tanh", gain=0.8, seed=1), CrossEntropy()),
    "diodes": (ResistiveNetwork([8, 12, 4], diode="ideal", input_gain=2.0, mirrored=True), SquaredError()),
}


@pytest.mark.parametrize("name", CASES)
def test_elimination_is_implicit_differentiation(name: str) -> None:
    """If this fails, what EP is compared with is no exact gradient: bounds, diagonals or the block are wrong."""
    network, cost = CASES[name]
    network = network.double()
    x = torch.rand(6, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(6) % 4
    y = labels if isinstance(cost, CrossEntropy) else torch.eye(4, dtype=torch.float64)[labels]
    exact = implicit_gradient(network, x, y, cost)
    step = eliminating_backward(cost)(network, x, y)
    assert float(step.loss) == pytest.approx(exact.loss, rel=1e-9)
    for key, p in network.named_parameters():
        assert p.grad is not None
        assert float((p.grad - exact[key]).norm()) <= 1e-8 * float(exact[key].norm())


@pytest.mark.parametrize(
    ("network", "cost", "error", "words"),
    [
        (HopfieldNetwork([4, 5, 5, 3]), SquaredError(), InputError, "two blocks of variables, but has 3"),
        (OscillatorNetwork([4, 5, 3]), SquaredError(), OracleError, "by elimination are off by"),
    ],
)
def test_other_energies_are_refused(network: EnergySystem, cost: Cost, error: type[Exception], words: str) -> None:
    """Couplings of phases are not bilinear, so that one example's block is not another's."""
    with pytest.raises(error, match=words):
        eliminating_backward(cost)(network, torch.rand(3, 4), torch.eye(3))


def test_a_singular_hessian_is_told() -> None:
    """Two units with a coupling of 1 have the Hessian ((1, -1), (-1, 1))."""
    network = HopfieldNetwork([1, 1, 1], activation="tanh").double()
    with torch.no_grad():
        for name, p in network.named_parameters():
            p.fill_(1.0 if name == "layers.1.weight" else 0.0)
    x = torch.zeros(2, 1, dtype=torch.float64)
    with pytest.raises(OracleError, match="the Hessian at a free state is singular"):
        eliminating_backward(SquaredError())(network, x, torch.ones_like(x))


def test_each_example_is_held_to_its_own_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """An example that is wrong by all of itself is lost beside one whose error is 1e12 times as large."""
    network = HopfieldNetwork([8, 12, 4], activation="tanh", gain=0.8, seed=1).double()
    usual = elimination.eliminated

    def off(*words: object) -> tuple[torch.Tensor, torch.Tensor]:
        hidden, out = usual(*words)  # type: ignore[arg-type]
        return torch.cat([hidden[:1], 2 * hidden[1:]]), out

    x = torch.rand(2, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    outputs = network.outputs(relax(network, x).require().state)
    y = outputs.detach() + torch.tensor([[1e6], [1e-6]], dtype=torch.float64)
    eliminating_backward(SquaredError())(network, x, y)
    monkeypatch.setattr(elimination, "eliminated", off)
    with pytest.raises(OracleError, match="by elimination are off by"):
        eliminating_backward(SquaredError())(network, x, y)


def test_a_wrong_block_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The adjoints are held against the Hessian itself."""
    network, cost = CASES["tanh"]
    usual = elimination.eliminated

    def off(*words: object) -> tuple[torch.Tensor, torch.Tensor]:
        hidden, out = usual(*words)  # type: ignore[arg-type]
        return 1.001 * hidden, out

    monkeypatch.setattr(elimination, "eliminated", off)
    with pytest.raises(OracleError, match="by elimination are off by"):
        eliminating_backward(cost)(network.double(), torch.rand(3, 8).double(), torch.arange(3))
