"""Free phases that are solved by construction: their residual is measured when due, and the status says when."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from hardware_models.mapping import map_pcn
from physics_ep import CrossEntropy, EquilibriumPropagation, NotConverged, SquaredError, Status, relax
from physics_ep.blocks import State, largest
from physics_ep.predictive_coding import PredictiveCodingNetwork, mlp
from physics_ep.predictive_coding.forward import ForwardPass
from physics_ep.relaxation.loop import solve
from physics_ep.runs.metrics import Epoch
from physics_ep.system import Inputs, Phase
from tests.support.pcn import examples
from tests.support.systems import Quadratic, batch

OFF = 0.125


class OffNetwork(PredictiveCodingNetwork):
    """A planted bug: the second layer's activities are by an eighth larger than what drives them gives."""

    def run(self, x: torch.Tensor, keep_drives: bool = True, keep_images: bool = False) -> ForwardPass:
        found = super().run(x, keep_drives, keep_images)
        states = list(found.states)
        states[1] = states[1] * (1 + OFF)
        return dataclasses.replace(found, states=tuple(states))


def off_network(activation: str = "tanh") -> OffNetwork:
    torch.manual_seed(0)
    return OffNetwork(list(mlp([4, 6, 5, 3], activation=activation).layers)).double()


X, Y = examples((4,), 8, n_out=3)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_a_forward_pass_that_is_wrong_is_no_equilibrium(activation: str) -> None:
    """The residual of a network was zero by decree, whatever its state: here one layer is an eighth off."""
    found = relax(off_network(activation), X)
    assert found.status is Status.STALLED
    silent = (found.state[1] == 0).all(1)  # an eighth of nothing
    assert int(silent.sum()) <= 1
    assert bool((found.residual[~silent] >= OFF / (1 + OFF) - 1e-12).all())
    with pytest.raises(NotConverged):
        EquilibriumPropagation(CrossEntropy(), beta=0.01).backward(off_network(activation), X, Y)


def test_the_residual_is_that_of_the_energy() -> None:
    """Independent: the largest force, by autograd of the energy, is zero in the state that is called converged."""
    torch.manual_seed(0)
    net = mlp([4, 6, 5, 3], activation="tanh").double()
    found = relax(net, X)
    assert found.status is Status.CONVERGED
    torch.testing.assert_close(found.residual, largest(net.force(found.state, X)), rtol=0, atol=1e-15)


def test_steps_measure_the_first_batch_and_then_as_often_as_they_say() -> None:
    """Between measurements the status says 'by construction', and examples count as converged all the same."""
    torch.manual_seed(0)
    net, other = (mlp([4, 6, 3], activation="tanh").double() for _ in range(2))
    ep = EquilibriumPropagation(CrossEntropy(), beta=0.01, measure_every=3)
    steps = [ep.backward(net, X, Y) for _ in range(7)]
    measured = [step.equilibria[0].status is Status.CONVERGED for step in steps]
    assert measured == [True, False, False, True, False, False, True]
    between = steps[1].equilibria[0]
    assert between.status is Status.BY_CONSTRUCTION
    assert "by construction" in between.status.value
    assert bool(between.converged.all())
    assert between.require() is between
    assert bool((between.residual == steps[0].equilibria[0].residual.max()).all())
    assert ep.backward(other, X, Y).equilibria[0].status is Status.CONVERGED  # another system is measured anew


def test_what_was_not_measured_now_is_not_in_the_metrics() -> None:
    """The median residual of an epoch was half zeros that nobody had measured."""
    torch.manual_seed(0)
    net = mlp([4, 6, 3], activation="tanh").double()
    ep, seen = EquilibriumPropagation(CrossEntropy(), beta=0.01), Epoch(net)
    steps = [ep.backward(net, X, Y) for _ in range(3)]
    for step in steps:
        seen.add(step, Y)
    residuals = [p.residual for step in steps for p in step.equilibria if p.status is Status.CONVERGED]
    assert len(residuals) == 1 + 3 * 2
    assert seen.figures(net.device)["median_residual"] == float(torch.cat(residuals).median())


@pytest.mark.parametrize("substrate", ["hopfield", "resistive", "oscillator"])
def test_a_mapped_network_is_driven_anew(substrate: str) -> None:
    """A planted bug in a circuit's forward pass: one internal voltage is off by a tenth of the largest."""
    torch.manual_seed(0)
    system = map_pcn(mlp([4, 6, 3], activation="hard_sigmoid"), substrate).system
    x = X.abs().to(system.dtype)
    phase = system.phase(system.prepare(x))
    assert phase.known("sweep") is not None
    found = solve(phase)
    assert found.status is Status.CONVERGED
    assert float(found.residual.max()) <= 1e-6
    assert solve(phase, measure=False).status is Status.BY_CONSTRUCTION
    peak = phase.p[0].abs().amax(1)
    phase.p[0] = phase.p[0].clone()
    phase.p[0][:, 2] += 0.1 * peak
    wrong = solve(phase)
    assert wrong.status is Status.STALLED
    assert bool((wrong.residual > 0.05).all())


class Solved(Phase):
    """A user's phase that knows its free state, right or wrong."""

    shift = 0.0

    def known(self, solver: str) -> tuple[State, torch.Tensor] | None:
        if self.origin is not None:
            return None
        return (self.x + self.shift,), torch.zeros(len(self.x), dtype=self.dtype)


class SolvedQuadratic(Quadratic):
    """E = 1/2 (s - x) . K (s - x), which x itself minimises."""

    def phase(self, inputs: Inputs, origin: State | None = None, balanced: bool = False) -> Phase:
        return Solved(self, inputs, origin, balanced)


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_a_phase_of_a_user_is_measured_by_its_force(monkeypatch: pytest.MonkeyPatch, shift: float) -> None:
    """Closed form: shifted by c in each variable, the largest force is max |K c|."""
    matrix = [[2.0, 0.25], [0.25, 1.0]]
    system, (x, y) = SolvedQuadratic(matrix), batch(2, 2, 3)
    monkeypatch.setattr(Solved, "shift", shift)
    found = relax(system, x)
    torch.testing.assert_close(found.residual, torch.full((3,), shift * 2.25, dtype=torch.float64))
    assert found.status is (Status.STALLED if shift else Status.CONVERGED)
    ep = EquilibriumPropagation(SquaredError(), beta=0.01, on_unconverged="skip")
    skipped = [ep.backward(system, x, y).skipped for _ in range(2)]
    assert skipped == ([3, 3] if shift else [0, 0])
