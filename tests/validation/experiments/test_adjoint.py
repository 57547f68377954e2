"""Exact gradients by a Krylov solve of each example are those of implicit differentiation in float64."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hardware_models.hopfield import ConvHopfieldNetwork, HopfieldNetwork, RecurrentNetwork
from hardware_models.media import FitzHughNagumoChain
from hardware_models.oscillators import ising_oscillator
from hardware_models.resistive import ResistiveNetwork
from physics_ep.cost import Cost, CrossEntropy, SquaredError
from physics_ep.errors import InputError
from physics_ep.physical_system import PhysicalSystem
from validation.experiments import adjoint
from validation.experiments.adjoint import adjoint_backward, conjugate_residuals
from validation.oracles import OracleError, implicit_gradient

CASES = {
    "three clipped layers": (HopfieldNetwork([8, 12, 9, 4], seed=1, gain=1.0), SquaredError()),
    "amplifiers": (
        ResistiveNetwork([8, 12, 9, 4], diode="ideal", input_gain=2.0, mirrored=True, amplification=4.0),
        SquaredError(),
    ),
    "phases": (ising_oscillator([8, 12, 4], second_harmonic=0.25, seed=1), SquaredError()),
    "no energy": (RecurrentNetwork([8, 12, 4], activation="tanh", seed=1), CrossEntropy()),
    "ascending blocks": (FitzHughNagumoChain([8, 12, 4], reaction="bistable"), SquaredError()),
    "winners": (ConvHopfieldNetwork([1, 4, 4], [4, 3], 4, pooling="max", gain=1.0, seed=1), SquaredError()),
}


def examples(system: PhysicalSystem, cost: Cost, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (6, 1, 4, 4) if isinstance(system, ConvHopfieldNetwork) else (6, 8)
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    return x, cost.encode(torch.arange(6) % 4, 4, dtype)


@pytest.mark.parametrize("name", CASES)
def test_it_is_implicit_differentiation(name: str) -> None:
    """If this fails, what EP is compared with is no exact gradient: with and without an energy, bounds, mixed
    signs."""
    system, cost = CASES[name]
    system = system.double()
    x, y = examples(system, cost, torch.float64)
    exact = implicit_gradient(system, x, y, cost)
    system.zero_grad()
    step = adjoint_backward(cost, free=1e-12, tolerance=1e-11)(system, x, y)
    assert step.skipped == 0
    assert float(step.loss) == pytest.approx(exact.loss, rel=1e-9)
    assert max(float(g.norm()) for g in exact.values()) > 0
    for key, p in system.named_parameters():
        own = torch.zeros_like(p) if p.grad is None else p.grad
        assert float((own - exact[key]).norm()) <= 1e-7 * float(exact[key].norm()), key


@pytest.mark.parametrize("diode", ["ideal", "none"])
def test_a_node_that_is_joined_to_nothing_spoils_no_gradient(diode: str) -> None:
    """A hidden node whose devices are all off has no curvature, and no part in any gradient: those of all others
    are as of the network without it, by either solver."""
    system = ResistiveNetwork([5, 6, 3], diode, input_gain=3.0, bias=False, seed=1).double()
    first, second = (layer.conductance for layer in system.couplings)
    with torch.no_grad():
        first[1], second[:, 1] = 0.0, 0.0
    cost, kept = SquaredError(), [0, 2, 3, 4, 5]
    x, y = torch.rand(2, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    adjoint_backward(cost, free=1e-12, tolerance=1e-11)(system, x, y[:, :3])
    exact = implicit_gradient(system, x, y[:, :3], cost)
    few = ResistiveNetwork([5, 5, 3], "none", input_gain=3.0, bias=False, seed=1).double()
    for one, other in zip(few.couplings, (first[kept], second[:, kept]), strict=True):
        one.conductance.data = other.detach().clone()
    wanted = implicit_gradient(few, x, y[:, :3], cost)["layers.0.conductance"] if diode == "none" else None
    for k, p in enumerate((first, second)):
        own = exact[f"layers.{k}.conductance"]
        assert p.grad is not None
        assert float((p.grad - own).norm()) <= 1e-7 * float(own.norm()) > 0
        if k == 0 and wanted is not None:
            torch.testing.assert_close(own[kept], wanted, rtol=1e-8, atol=1e-12)


def test_float32_is_within_its_tolerance() -> None:
    """Trainings are in float32, whose rounding must not end a solve early nor leave examples out."""
    system, cost = CASES["three clipped layers"]
    x, y = examples(system, cost, torch.float64)
    exact = implicit_gradient(system.double(), x, y, cost)
    system.float().zero_grad()
    assert adjoint_backward(cost, free=1e-6)(system, x.float(), y.float()).skipped == 0
    for key, p in system.named_parameters():
        assert p.grad is not None
        assert float((p.grad - exact[key]).norm()) <= 1e-4 * float(exact[key].norm())


def test_rows_that_are_not_solved_are_told() -> None:
    """Each row has its own matrix, symmetric or not; a singular one spoils no other."""
    generator = torch.Generator().manual_seed(0)
    matrices = torch.eye(7).double() + 0.3 * torch.randn(3, 7, 7, generator=generator, dtype=torch.float64)
    matrices[1, :, 0] = 0.0
    right = torch.randn(3, 7, generator=generator, dtype=torch.float64)
    found, solved = conjugate_residuals(lambda v: torch.einsum("bij,bj->bi", matrices, v), right, 1e-10, 60)
    assert solved.tolist() == [True, False, True]
    for row in (0, 2):
        torch.testing.assert_close(found[row], torch.linalg.solve(matrices[row], right[row]))


def test_a_row_that_is_solved_waits_for_the_others() -> None:
    """An example of few free variables is solved after as many products, and what rounding leaves of its residual
    is no direction. Without this, it goes astray while others are solved, and a good example is left out."""
    generator = torch.Generator().manual_seed(0)
    turned, _ = torch.linalg.qr(torch.randn(2, 9, 9, generator=generator, dtype=torch.float64))
    matrices = turned @ torch.diag_embed(torch.arange(1.0, 10.0).double()) @ turned.mT
    free = torch.ones(2, 9, dtype=torch.float64)
    free[0, 3:] = 0.0
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        own = (free[:, :, None] * matrices * free[:, None]).to(dtype)
        right = (free * torch.randn(2, 9, generator=generator, dtype=torch.float64)).to(dtype)
        found, solved = conjugate_residuals(lambda v, own=own: (own @ v[:, :, None])[:, :, 0], right, tolerance, 60)
        assert solved.all()
        inverse = torch.linalg.pinv(own.double())
        torch.testing.assert_close(
            found.double(), (inverse @ right[:, :, None].double())[:, :, 0], rtol=1e-3, atol=1e-4
        )


def test_examples_without_an_adjoint_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are counted and have no share in the mean of the others; where none is left, it is said."""
    system, cost = HopfieldNetwork([8, 6, 4], activation="tanh", seed=1).double(), SquaredError()
    x, y = examples(system, cost, torch.float64)
    kept = implicit_gradient(system, x[:5], y[:5], cost)
    usual = adjoint.relax

    def lost(*words: Any, **options: Any) -> SimpleNamespace:
        free = usual(*words, **options)
        state = tuple(s.clone().index_fill_(0, torch.tensor(5), float("nan")) for s in free.state)
        return SimpleNamespace(state=state, converged=torch.arange(6) < 5)

    with monkeypatch.context() as patch:
        patch.setattr(adjoint, "relax", lost)
        step = adjoint_backward(cost, free=1e-12, tolerance=1e-11)(system, x, y)
    assert step.skipped == 1
    assert float(step.loss) == pytest.approx(kept.loss)
    for key, p in system.named_parameters():
        torch.testing.assert_close(p.grad, kept[key])
    with pytest.raises(OracleError, match="nothing is left"):
        adjoint_backward(cost, directions=1)(system, x[:5], y[:5])
    with pytest.raises(InputError, match="tolerance must be a positive number"):
        adjoint_backward(cost, tolerance=0.0)
