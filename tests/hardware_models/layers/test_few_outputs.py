"""Networks of one hidden layer and few outputs, relaxed example by example: equilibria and gradients stay."""

import numpy as np
import pytest
import torch

from hardware_models.hopfield.network import HopfieldNetwork
from hardware_models.layers import few_outputs
from hardware_models.resistive.network import ResistiveNetwork
from physics_ep.cost import CrossEntropy, SquaredError
from physics_ep.equilibrium import Status
from physics_ep.estimators.propagation import EquilibriumPropagation, estimate_gradient
from physics_ep.nudging import Nudge
from physics_ep.relaxation.loop import relax

SIZES = [5, 33, 7]
"""Outputs of all groups that the kernels make of them: four, two and one."""


@pytest.fixture
def by_rows(monkeypatch):
    """Kernels however little there is to do."""
    monkeypatch.setattr(few_outputs, "LEAST_WORK", 0)


def hopfield(activation: str = "hard_sigmoid") -> HopfieldNetwork:
    """A network whose free states have units on both bounds and between."""
    system = HopfieldNetwork(SIZES, activation, gain=[3.0, 0.6], seed=1).double()
    with torch.no_grad():
        for k, layer in enumerate(system.couplings):
            layer.bias.copy_(torch.linspace(-0.2, 0.6, SIZES[k + 1]))
    return system


def resistive(diode: str = "ideal") -> ResistiveNetwork:
    """A network with amplifiers and current sources."""
    system = ResistiveNetwork(SIZES, diode, input_gain=3.0, amplification=2.0, seed=1).double()
    with torch.no_grad():
        for k, layer in enumerate(system.couplings):
            layer.bias.copy_(torch.linspace(-1e-5, 2e-5, SIZES[k + 1]))
    return system


def batch(rows: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(rows, SIZES[0], generator=generator, dtype=torch.float64)
    return x, torch.rand(rows, SIZES[-1], generator=generator, dtype=torch.float64)


def served(system, x: torch.Tensor, nudge: Nudge | None = None) -> bool:
    inputs = system.prepare(x)
    if nudge is None:
        return few_outputs.row_solvers(system.phase(inputs)) is not None
    phase = system.phase(inputs, origin=system.initial_state(x), balanced=True).nudged(nudge)
    return few_outputs.row_solvers(phase) is not None


def test_they_serve_where_they_know_the_network(by_rows) -> None:
    """Clipped or linear units, one hidden layer, few outputs, costs that are quadratic in each; else others do."""
    x, y = batch()
    with torch.no_grad():
        for system in (hopfield(), hopfield("linear"), resistive(), resistive("none")):
            assert served(system, x)
            assert served(system, x, Nudge(SquaredError(), y, 1e-6))
            assert not served(system, x, Nudge(CrossEntropy(), y.argmax(1), 1e-6))
        for system in (hopfield("tanh"), resistive("shockley"), HopfieldNetwork([5, 33, 20, 7]).double()):
            assert not served(system, x)
        assert not served(HopfieldNetwork(SIZES).to(torch.bfloat16), x.to(torch.bfloat16))
        assert not served(HopfieldNetwork([5, 60, 40]).double(), x)
        with few_outputs.whole_batches():
            assert not served(hopfield(), x)


def test_little_work_compiles_nothing() -> None:
    """Small networks and batches load no kernels."""
    with torch.no_grad():
        assert not served(hopfield(), batch()[0])


@pytest.mark.full
def test_equilibria_and_gradients_are_those_of_the_general_solvers(by_rows, monkeypatch) -> None:
    """Hopfield units clip at 0 and 1 and outputs answer them; at each node of a resistive network currents sum to
    zero, or a diode takes up what is missing, from its own side. Gradients, sweeps and what ends a relaxation are
    those of whole batches."""
    x, y = batch()
    for system in (hopfield(), hopfield("linear")):
        free = relax(system, x, tolerance=1e-12).require()
        h, u = (s.numpy() for s in free.state)
        one, two = system.couplings
        drive = (
            x.numpy() @ one.weight.detach().numpy().T + one.bias.detach().numpy() + u @ two.weight.detach().numpy()
        )
        clipped = np.clip(drive, 0, 1) if system.activation == "hard_sigmoid" else drive
        assert np.abs(clipped - h).max() < 1e-11
        assert np.abs(h @ two.weight.detach().numpy().T + two.bias.detach().numpy() - u).max() < 1e-11
        if system.activation == "hard_sigmoid":
            assert (h == 0).any()
            assert (h == 1).any()
            assert ((h > 0) & (h < 1)).any()
    for system in (resistive(), resistive("none")):
        free = relax(system, x, tolerance=1e-12).require()
        v, out = (s.numpy() for s in free.state)
        g1, g2 = (layer.conductance.detach().numpy() for layer in system.couplings)
        b1, b2 = (layer.bias.detach().numpy() for layer in system.couplings)
        below = 3.0 * np.concatenate([x.numpy(), -x.numpy()], 1)
        missing = below @ g1.T + b1 + out @ g2 / 2 - v * (g1.sum(1) + g2.sum(0))
        scale = system.residual_scale
        assert np.abs(2 * v @ g2.T + b2 - out * g2.sum(1)).max() < 1e-11 * scale
        if system.diode == "none":
            assert np.abs(missing).max() < 1e-11 * scale
            continue
        sign = system.signs(1).numpy()
        assert (sign * v >= 0).all()
        assert np.abs(missing[v != 0]).max() < 1e-11 * scale
        assert (sign * missing <= 1e-11 * scale).all()  # diodes let through what would push a node past 0 V
        assert (v == 0).any()
        assert (v != 0).any()
    cost = SquaredError()
    for system, beta in (
        (hopfield(), 0.1),
        (hopfield("linear"), 0.1),
        (resistive(), 1e-6),
        (resistive("none"), 1e-6),
    ):
        for solver in ("coordinate", "anderson"):
            for scheme in ("centered", "positive"):
                ep = EquilibriumPropagation(cost, scheme, beta, solver, 1e-11)
                here, found = estimate_gradient(ep, system, x, y)
                with few_outputs.whole_batches():
                    there, known = estimate_gradient(ep, system, x, y)
                for name, g in there.items():
                    assert (here[name] - g).norm() < 1e-8 * g.norm(), (type(system), solver, name)
                for one, two in zip(found.equilibria, known.equilibria, strict=True):
                    assert abs(one.iterations - two.iterations) <= 1
    for system in (hopfield(), resistive()):
        short = relax(system, x, max_iterations=2)
        assert (short.status, short.iterations) == (Status.BUDGET, 2)
        with few_outputs.whole_batches():  # residuals in the unit of the system, not by the outputs' own
            torch.testing.assert_close(
                short.residual, relax(system, x, max_iterations=2).residual, rtol=1e-6, atol=0
            )
    system = hopfield()
    traced = relax(system, x, trace=True).require()
    assert len(traced.trace.residual) == traced.iterations > 1
    slow = resistive()
    with torch.no_grad():
        slow.couplings[0].conductance.mul_(2e-3)  # hidden nodes hang on the outputs: many sweeps
        slow.couplings[0].bias.mul_(2e-3)
    monkeypatch.setattr(few_outputs, "BURST", 4)
    for solver in ("coordinate", "anderson"):  # the general solver goes on from there
        found = relax(slow, x, solver=solver, tolerance=1e-12).require()
        assert found.iterations > few_outputs.BURST
        with few_outputs.whole_batches():
            known = relax(slow, x, solver=solver, tolerance=1e-12).require()
        for one, two in zip(found.state, known.state, strict=True):
            assert (one - two).abs().max() < 1e-9 * two.abs().max()
