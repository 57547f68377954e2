"""A user's quadratic cost on every fast path: if these fail, it is relaxed slowly there, or wrongly."""

from __future__ import annotations

import pytest
import torch

from hardware_models import AnalogHopfieldCircuit, HopfieldNetwork, ResistiveNetwork
from hardware_models.nodal.transients import transient
from physics_ep import CrossEntropy, Nudge, SquaredError, relax, simulate
from physics_ep.errors import InputError
from physics_ep.system import EnergySystem
from tests.support.costs import WeightedError

GENERATOR = torch.Generator().manual_seed(0)
X, Y = (torch.rand(5, 4, generator=GENERATOR, dtype=torch.float64) for _ in range(2))
WIDE = torch.cat([X, -X], 1)
"""Inputs of the circuit of a resistive network, which has a source for each rail."""


def layers(output: str = "linear") -> EnergySystem:
    return HopfieldNetwork([4, 5, 4], output_activation=output, seed=2).double()


def resistive() -> ResistiveNetwork:
    return ResistiveNetwork([4, 5, 4], seed=2, scale=1.0).double()


SYSTEMS = {
    "layers": (layers, X),
    "bounded layers": (lambda: layers("hard_sigmoid"), X),
    "graph": (lambda: layers().to_circuit(), X),
    "bounded graph": (lambda: layers("hard_sigmoid").to_circuit(), X),
    "analog": (lambda: AnalogHopfieldCircuit.from_network(layers("hard_sigmoid")), X),
    "resistive": (resistive, X),
    "circuit": (lambda: resistive().to_circuit(), WIDE),
}


@pytest.mark.parametrize("name", list(SYSTEMS))
@pytest.mark.parametrize("beta", [0.1, torch.linspace(0.05, 0.2, 5, dtype=torch.float64)], ids=["one", "each"])
def test_twice_the_weight_is_twice_the_nudge(name: str, beta: float | torch.Tensor) -> None:
    """A power of two in the weight gives the same bits, at the same number of iterations, as in beta."""
    make, x = SYSTEMS[name]
    system = make()
    unit = system.nudge_scale
    free = relax(system, x).require()
    ours = relax(system, x, Nudge(SquaredError(), Y, 2 * beta * unit), free.state, tolerance=1e-12).require()
    theirs = relax(system, x, Nudge(WeightedError(2.0), Y, beta * unit), free.state, tolerance=1e-12).require()
    assert ours.iterations == theirs.iterations
    assert all(torch.equal(a, b) for a, b in zip(ours.displacement, theirs.displacement, strict=True))


@pytest.mark.parametrize("name", ["graph", "bounded graph", "analog"])
def test_nudged_graphs_keep_their_sweeps(name: str) -> None:
    """The generic phase in the place of sweeps would settle too, some hundred times slower."""
    make, x = SYSTEMS[name]
    system = make()
    phase = system.phase(system.prepare(x))
    assert phase.nudged(Nudge(WeightedError(2.0), Y, 0.1 * system.nudge_scale)).exact_updates
    labels = torch.tensor([0, 1, 2, 3, 0])
    assert phase.nudged(Nudge(CrossEntropy(), labels, 0.1 * system.nudge_scale)).exact_updates


def test_compiled_transients_take_a_users_cost() -> None:
    """The nudge is part of the compiled steps of the analog circuit, at the same bits."""
    make, x = SYSTEMS["analog"]
    circuit = make()
    unit, duration = circuit.nudge_scale, 3 * circuit.time_constant
    nudges = Nudge(SquaredError(), Y, 0.2 * unit), Nudge(WeightedError(2.0), Y, 0.1 * unit)
    ours, theirs = (simulate(circuit, x, duration, nudge, steps=60, every=20) for nudge in nudges)
    assert torch.equal(ours.state[0], theirs.state[0])


def test_transients_of_circuits_take_multiples_of_the_squared_error() -> None:
    """A conductance to each target; a cost that is none is refused."""
    circuit = resistive().to_circuit()
    unit = circuit.nudge_scale

    def followed(nudge: Nudge) -> torch.Tensor:
        return transient(circuit, 1e-9, nudge=nudge, rtol=1e-4).state[0]

    ours = followed(Nudge(SquaredError(), Y[:1], 0.2 * unit))
    theirs = followed(Nudge(WeightedError(2.0), Y[:1], 0.1 * unit))
    assert torch.equal(ours, theirs)
    with pytest.raises(InputError, match="SquaredError"):
        followed(Nudge(CrossEntropy(), torch.tensor([0]), 0.1 * unit))
