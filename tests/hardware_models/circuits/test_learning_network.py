"""Transistors as trainable resistors: gradients beside ngspice's, training, clamping where there is no energy."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from hardware_models import Circuit
from hardware_models.netlists.parts import GATED, Part, Parts
from hardware_models.spice.adjoint import adjoint_parts
from hardware_models.spice.ngspice import ngspice_operating_point
from hardware_models.spice.phases import nudged_parts
from physics_ep import EquilibriumPropagation, SquaredError
from physics_ep.estimators.coupled_learning import CoupledLearning
from tests.support.circuits import V
from tests.support.learning_network import learning_network, regression
from tests.support.transistors import transistor_circuit
from validation import implicit_gradient

needs_ngspice = pytest.mark.skipif(shutil.which("ngspice") is None, reason="ngspice is not installed")
COST = SquaredError()


def by_differences(circuit: Circuit, kind: str, column: int, x: torch.Tensor, y: torch.Tensor) -> np.ndarray:
    """Gradient by a value of all parts of a kind, finite differences of the cost in ngspice."""
    parts, group, found = circuit.parts, circuit.parts.group(kind), []
    ends = [(parts.nodes[a], parts.nodes[b]) for a, b in circuit.output_nodes.tolist()]
    for k in range(len(group)):
        step, costs = 1e-5 * abs(group.values[k, column]), []
        for way in (1, -1):
            values = group.values.copy()
            values[k, column] += way * step
            changed = Parts(parts.nodes, {**parts.groups, kind: replace(group, values=values)})
            v = ngspice_operating_point(changed, x.numpy())
            read = np.stack([v[a] - v[b] for a, b in ends], 1)
            costs.append(0.5 * float(((read - y.numpy()) ** 2).sum(1).mean()))
        found.append((costs[0] - costs[1]) / (2 * step))
    return np.array(found)


def relative(found: torch.Tensor | np.ndarray, wanted: torch.Tensor | np.ndarray) -> float:
    """Norm of the difference over the norm."""
    return float(np.linalg.norm(np.asarray(found) - np.asarray(wanted)) / np.linalg.norm(np.asarray(wanted)))


@pytest.mark.full
@needs_ngspice
def test_gates_of_a_learning_network_have_the_gradient_of_ngspice() -> None:
    """Asymmetric EP, which `method=None` is for such a circuit, and the exact adjoint: to 1e-6."""
    circuit, (x, y) = learning_network(), regression(1)
    wanted = by_differences(circuit, "nmos_resistor", 0, x, y)
    assert relative(implicit_gradient(circuit, x, y, COST)["gate"], wanted) < 1e-6
    step = EquilibriumPropagation(COST, beta=1e-7).backward(circuit, x, y)
    assert step.method == "asymmetric"
    assert relative(circuit.gate.grad, wanted) < 1e-6


@pytest.mark.full
@needs_ngspice
@pytest.mark.parametrize(("kind", "column"), [("nmos", 5), ("pmos", 1), *((k, 0) for k in GATED)])
def test_values_of_transistors_have_the_gradient_of_ngspice(kind: str, column: int) -> None:
    """Thresholds, body effect and gates of a circuit with both channels, in all regions."""
    parts = transistor_circuit(1, 12)
    every = [name for name, _ in Circuit(parts).named_parameters()]
    circuit = Circuit(parts, outputs=["v(n4,n5)", "n3"], train=every)
    x = torch.tensor([[2.0, -1.0, -3.0, 5.0]], dtype=torch.float64)
    y = torch.tensor([[0.1, 0.2]], dtype=torch.float64)
    name, at = circuit._places[kind][column]
    found = implicit_gradient(circuit, x, y, COST)[name][at]
    wanted = by_differences(circuit, kind, column, x, y)
    assert np.abs(wanted).max() > 1e-3  # it conducts
    assert np.abs(found.numpy() - wanted).max() < 1e-6 * np.abs(wanted).max()


@needs_ngspice
def test_both_nudged_phases_of_a_learning_network_in_ngspice() -> None:
    """With the correction of asymmetric EP as controlled sources, and the nudge between the two output nodes."""
    circuit, (x, y), beta = learning_network(), regression(1), 1e-5
    step = EquilibriumPropagation(COST, beta=beta, tolerance=1e-11).backward(circuit, x, y)
    turned = adjoint_parts(circuit, step.equilibria[0].state, x)
    assert any(p.name.startswith("Gaep_") for p in turned)
    for found, strength in zip(step.equilibria, (0.0, beta, -beta), strict=True):
        theirs = ngspice_operating_point(nudged_parts(turned, circuit.output_names, y[0].tolist(), strength))
        wanted = np.array([theirs[node][0] for node in circuit.parts.nodes])
        np.testing.assert_allclose(circuit.voltages(found.state, x)[0], wanted, rtol=0, atol=1e-9)


@pytest.mark.slow
def test_a_learning_network_learns_a_regression_as_by_exact_gradients() -> None:
    """Both curves: the loss of asymmetric EP at every step is that of the exact gradient's."""
    x, y = regression(4)
    curves = []
    for exact in (False, True):
        circuit, curve = learning_network(), []
        optimizer = torch.optim.Adam(circuit.parameters(), lr=0.1)
        for _ in range(40):
            optimizer.zero_grad()
            curve.append(float(EquilibriumPropagation(COST, beta=1e-7).backward(circuit, x, y).loss))
            if exact:
                circuit.gate.grad = implicit_gradient(circuit, x, y, COST)["gate"]
            optimizer.step()
        curves.append(curve)
    assert curves[0] == pytest.approx(curves[1], rel=1e-3)
    assert curves[0][-1] < 0.01 * curves[0][0]


def test_clamped_transistors_have_a_source_between_the_outputs() -> None:
    """Coupled learning without an energy: the clamped state is that of the circuit with an ideal source, and its
    estimate the way between the states times what each gate changes of its current."""
    circuit, (x, y) = learning_network(), regression(2)
    step = CoupledLearning(0.25).backward(circuit, x, y)
    held = step.outputs + 0.25 * (y - step.outputs)
    free, clamped = (circuit.voltages(e.state, x) for e in step.equilibria)
    wanted = torch.zeros(16, dtype=torch.float64)
    for k in range(2):
        own = [p for p in circuit.parts if p.kind != "voltage_source"]
        sources = [V(n, float(v)) for n, v in zip(("a", "b", "rail"), x[k], strict=True)]
        sources.append(Part("Vout", "voltage_source", ("n3", "n5"), (float(held[k, 0]),)))
        sourced = Circuit(Parts.collect([*sources, *own]))
        point = sourced.node_voltages(sourced.operating_point().require())
        exact = torch.tensor([point[n] for n in circuit.parts.nodes], dtype=torch.float64)
        torch.testing.assert_close(clamped[k], exact, rtol=0, atol=1e-10)
        middle, moved = 0.5 * (free[k] + clamped[k]), clamped[k] - free[k]
        group = circuit.parts.group("nmos_resistor")
        for m, ((d, s, _), values) in enumerate(zip(group.nodes.tolist(), group.values.tolist(), strict=True)):
            beta, threshold, modulation = values[1] * values[4] / values[5], values[2], values[3]
            low, high = sorted((float(middle[d]), float(middle[s])))
            raised = values[6] * (np.sqrt(values[7] + low) - np.sqrt(values[7]))
            over = values[0] - low - threshold - raised
            slope = beta * min(high - low, over) * (1 + modulation * (high - low))
            way = float(moved[d] - moved[s]) * (1 if middle[d] >= middle[s] else -1)
            wanted[m] += slope * way / 0.25 / 2
    torch.testing.assert_close(circuit.gate.grad, wanted, rtol=1e-8, atol=1e-12)


@pytest.mark.full
def test_direction_of_coupled_learning_without_an_energy() -> None:
    """A circuit with an amplifier behind all that learns is reciprocal before it, so that one output's direction is
    the gradient's; transistors are not reciprocal, and theirs stays off it however small the fraction."""
    cosines = []
    for f in (0.3, 1e-3):
        circuit, (x, y) = learning_network(), regression(2)
        CoupledLearning(f).backward(circuit, x, y)
        exact = implicit_gradient(circuit, x, y, COST)["gate"]
        cosines.append(float(torch.cosine_similarity(circuit.gate.grad, exact, 0)))
    assert 0.99 < cosines[1] < 1 - 1e-5
    lattice = [
        Part(f"R{k}", "resistor", ends, (1e-3 * (k + 1),)) for k, ends in enumerate(("ap", "pq", "bq", "q0"))
    ]
    sensed = Part("E1", "vcvs", ("o", "0", "a", "b"), (1.0,))
    parts = Parts.collect([V("a", 0.0), V("b", 0.0), *lattice, sensed, Part("Ro", "resistor", ("o", "0"), (1e-3,))])
    circuit = Circuit(parts, outputs=["v(p,q)"], train=["conductance"])
    x, y = torch.tensor([[0.3, -0.2], [0.1, 0.4]], dtype=torch.float64), torch.zeros(2, 1, dtype=torch.float64)
    exact = implicit_gradient(circuit, x, y, COST)["conductance"]
    CoupledLearning(1e-6).backward(circuit, x, y)
    assert float(torch.cosine_similarity(circuit.conductance.grad, exact, 0)) > 1 - 1e-10
