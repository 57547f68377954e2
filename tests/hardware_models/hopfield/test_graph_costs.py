"""Graphs of units under any cost: the defaults relax, learn and agree with exact gradients."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from hardware_models import HopfieldNetwork, UnitGraph
from hardware_models.analog import analog_hopfield
from physics_ep import CrossEntropy, EquilibriumPropagation, Nudge, SquaredError, relax
from physics_ep.cost import FunctionCost
from validation import check_system, implicit_gradient
from validation.gradients import total_error

EDGES = [[0, 2], [1, 2], [2, 3], [3, 4], [1, 4], [3, 5], [2, 5]]
WEIGHTS = [0.4, -0.2, 0.28, 0.12, 0.24, -0.32, 0.08]
X = torch.rand(4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.rand(4, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
LABELS = torch.tensor([0, 1, 1, 0])


def quartic(outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return ((outputs - y) ** 4).sum(1)


def smooth(outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return cross_entropy(outputs, y, label_smoothing=0.1, reduction="none")


COSTS = {
    "squared": (SquaredError(), Y),
    "entropy": (CrossEntropy(), LABELS),
    "quartic": (FunctionCost(quartic), Y),
    "smoothed": (FunctionCost(smooth), LABELS),
}


@pytest.mark.full
@pytest.mark.parametrize("units", ["hard_sigmoid", "tanh", "logistic", "linear"])
@pytest.mark.parametrize("name", COSTS)
def test_a_graph_with_its_defaults_learns_under_any_cost(units: str, name: str) -> None:
    """Outputs without a closed update were refused by the default solver: a tanh graph could not learn at all."""
    graph = UnitGraph.from_edges(6, EDGES, WEIGHTS, units, inputs=[0, 1], outputs=[4, 5])
    cost, y = COSTS[name]
    step = EquilibriumPropagation(cost, beta=1e-4).backward(graph, X, y)
    exact = implicit_gradient(graph, X, y, cost)
    assert total_error({n: p.grad for n, p in graph.named_parameters()}, exact) < 1e-5
    optimizer = torch.optim.SGD(graph.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.step()
        optimizer.zero_grad()
        after = EquilibriumPropagation(cost, beta="auto").backward(graph, X, y)
    assert float(after.loss) < float(step.loss)
    check_system(graph, X, y, cost)


@pytest.mark.full
@pytest.mark.parametrize("units", ["tanh", "logistic", "hard_sigmoid"])
def test_strong_nudges_descend(units: str) -> None:
    """Each sweep lowers F, also where beta times the cost's curvature exceeds the unit's own."""
    graph = UnitGraph.from_edges(6, EDGES, WEIGHTS, units, inputs=[0, 1], outputs=[4, 5])
    free = relax(graph, X)
    for beta in (3.0, 30.0):
        nudge = Nudge(CrossEntropy(), LABELS, beta)
        found = relax(graph, X, nudge=nudge, start=free.state, trace=True)
        assert bool(found.converged.all())
        energy = found.trace.energy
        assert bool((energy[1:] <= energy[:-1] + 1e-12).all())


def test_the_analog_circuit_takes_any_cost_and_reports_watts() -> None:
    """A trace's energy is the circuit's own: that of the dimensionless graph is wrong by its units."""
    x, y = torch.rand(3, 4, dtype=torch.float64), torch.tensor([0, 1, 2])
    circuit = analog_hopfield([4, 5, 3], activation="tanh", output_activation="hard_sigmoid", resistance=2e4)
    circuit.bias.data[-3:] = 0.3 * circuit.unit_conductance[-3:]  # outputs away from their bounds
    free = relax(circuit, x, trace=True)
    torch.testing.assert_close(free.trace.energy[-1], circuit.energy(free.state, x).detach(), rtol=1e-9, atol=0)
    ep = EquilibriumPropagation(CrossEntropy(), beta=1e-4 * circuit.nudge_scale)
    ep.backward(circuit, x, y)
    exact = implicit_gradient(circuit, x, y, CrossEntropy())
    assert total_error({n: p.grad for n, p in circuit.named_parameters()}, exact) < 1e-5
    check_system(circuit, x, y)


def test_hard_sigmoid_graphs_are_not_smooth() -> None:
    """A graph with kinks that calls itself smooth is judged by an order in beta that it does not have."""
    assert not HopfieldNetwork([2, 3, 2]).to_circuit().smooth
    assert HopfieldNetwork([2, 3, 2], activation="tanh").to_circuit().smooth
