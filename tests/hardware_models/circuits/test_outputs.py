"""Outputs that are differences of two nodes: read, nudged, clamped and written as single nodes are."""

from __future__ import annotations

import shutil
from pathlib import Path

import networkx
import numpy as np
import pytest
import torch

from hardware_models import Circuit
from hardware_models.netlists.parts import GROUND, Part, Parts
from hardware_models.nodal.transients import transient
from hardware_models.spice.ngspice import ngspice_operating_point
from hardware_models.spice.phases import nudged_parts
from physics_ep import CrossEntropy, EquilibriumPropagation, Nudge, SquaredError, relax
from physics_ep.errors import InputError
from physics_ep.estimators.coupled_learning import CoupledLearning
from tests.support.circuits import V, solved
from validation import implicit_gradient

needs_ngspice = pytest.mark.skipif(shutil.which("ngspice") is None, reason="ngspice is not installed")


def mesh(seed: int = 3, diodes: bool = True) -> Parts:
    """Sources x0 and x1, and five free nodes; resistors between all, and diodes."""
    rng = np.random.default_rng(seed)
    names = ["x0", "x1", "a", "b", "c", "d", "e", GROUND]
    pairs = [(p, q) for k, p in enumerate(names) for q in names[k + 1 :] if not {p, q} <= {"x0", "x1", GROUND}]
    parts = [V("x0", 0.4), V("x1", -0.3)]
    parts += [Part(f"R{k}", "resistor", pair, (10 ** rng.uniform(-4, -3),)) for k, pair in enumerate(pairs)]
    if diodes:
        parts += [Part(f"D{n}", "diode", (n, m), (1e-6, 1.5)) for n, m in ("ab", "bc", "cd", "ea")]
    return Parts.collect(parts)


X = torch.tensor([[0.4, -0.3], [-0.5, 0.2]], dtype=torch.float64)
Y = torch.tensor([[0.1, 0.0], [-0.05, 0.1]], dtype=torch.float64)


def gradient(circuit: Circuit, estimator: EquilibriumPropagation, y: torch.Tensor = Y) -> torch.Tensor:
    """What an estimator adds to the conductances' gradients."""
    circuit.zero_grad()
    estimator.backward(circuit, X, y)
    return circuit.conductance.grad.clone()


@needs_ngspice
def test_gradient_of_differences_is_that_of_finite_differences_in_ngspice() -> None:
    """If it fails, the nudge draws its current from one node alone: it must leave the other one."""
    parts = mesh()
    circuit = Circuit(parts, outputs=[("a", "b"), "v(d, c)"])
    assert circuit.output_names == ("v(a,b)", "v(d,c)")

    def cost(k: int, step: float) -> float:
        group = parts.group("resistor")
        values = group.values.copy()
        values[k] += step
        changed = Parts(
            parts.nodes, {**parts.groups, "resistor": type(group)(group.names, group.nodes, values)}, parts.initial
        )
        v = ngspice_operating_point(changed, X.numpy())
        read = np.stack([v["a"] - v["b"], v["d"] - v["c"]], 1)
        return 0.5 * float(((read - Y.numpy()) ** 2).sum(1).mean())

    chosen, step = (0, 4, 9), 1e-8
    wanted = [(cost(k, step) - cost(k, -step)) / (2 * step) for k in chosen]
    found = gradient(circuit, EquilibriumPropagation(SquaredError(), beta=1e-7))
    np.testing.assert_allclose(found[list(chosen)], wanted, rtol=1e-6, atol=1e-7 * float(found.abs().max()))


@pytest.mark.full
@pytest.mark.parametrize("cost", [SquaredError(), CrossEntropy()], ids=["squared_error", "cross_entropy"])
def test_every_cost_and_way_to_name_them(cost: SquaredError, tmp_path: Path) -> None:
    """Costs that couple the outputs too, a difference beside a node, one that is minus a node, from graphs and
    netlists: the same gradient as the implicit one, whose outputs are these differences."""
    circuit = Circuit(mesh(), outputs=["v(a,b)", "c", (GROUND, "e")])
    y = torch.tensor([0, 2]) if cost.name == "cross_entropy" else torch.cat([Y, Y[:, :1]], 1)
    exact = implicit_gradient(circuit, X, y, cost)["conductance"]
    found = gradient(circuit, EquilibriumPropagation(cost, beta=1e-6), y)
    assert float((found - exact).norm() / exact.norm()) < 1e-5
    circuit.to_netlist(tmp_path / "mesh.cir")
    assert "* outputs: v(a,b) c v(0,e)" in (tmp_path / "mesh.cir").read_text()
    for other in (Circuit.from_netlist(tmp_path / "mesh.cir"), Circuit.from_networkx(circuit.to_networkx())):
        assert other.output_names == circuit.output_names
        torch.testing.assert_close(gradient(other, EquilibriumPropagation(cost, beta=1e-6), y), found)
    grid = networkx.grid_2d_graph(2, 2)
    networkx.set_edge_attributes(grid, 1e-3, "weight")
    of_grid = Circuit.from_networkx(grid, inputs=[(0, 0)], outputs=[(0, 1), ((0, 1), (1, 0))])
    assert of_grid.output_names == ("(0, 1)", "v((0, 1),(1, 0))")
    of_edges = Circuit.from_edges(4, [(0, 1), (1, 2), (2, 3)], [1e-3] * 3, inputs=[0, 3], outputs=[(1, 2), 1])
    assert of_edges.output_names == ("v(n1,n2)", "n1")


@needs_ngspice
def test_nudged_phases_are_the_same_everywhere() -> None:
    """The phase that is solved, the one that ngspice solves, and the end of a transient."""
    circuit = Circuit(mesh(), outputs=["v(a,b)"])
    nudge = Nudge(SquaredError(), Y[:1, :1], 1e-4)
    free = relax(circuit, X[:1])
    found = circuit.voltages(relax(circuit, X[:1], nudge=nudge, start=free.state, tolerance=1e-12).state, X[:1])
    theirs = ngspice_operating_point(nudged_parts(circuit.parts, ["v(a,b)"], Y[0, :1].tolist(), 1e-4))
    spice = [theirs[n][0] if n in theirs else np.nan for n in circuit.parts.nodes]
    np.testing.assert_allclose(found[0], spice, rtol=0, atol=1e-9)
    loaded = Parts.collect([*circuit.parts, Part("C1", "capacitor", ("a", GROUND), (1e-9,))])
    course = transient(Circuit(loaded, outputs=["v(a,b)"]), 1e-4, nudge=nudge)
    np.testing.assert_allclose(course.state[0][-1, 0], found[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("solver", "kind"), [("newton", "diode"), ("newton", "ideal_diode"), ("gradient_flow", "ideal_diode")]
)
def test_clamped_difference_is_a_source_between_its_nodes(solver: str, kind: str) -> None:
    """Coupled learning of a difference: the circuit with an ideal source between the two nodes."""
    parts = mesh() if kind == "diode" else Parts.collect([*mesh(diodes=False), Part("Z", kind, ("c", GROUND))])
    circuit = Circuit(parts, outputs=["v(a,b)", "d"])
    step = CoupledLearning(0.25, solver=solver, tolerance=1e-12, max_iterations=20000).backward(circuit, X, Y)
    held = step.outputs + 0.25 * (Y - step.outputs)
    found = circuit.voltages(step.equilibria[1].state, X)
    for k in range(2):
        sources = [Part("Vab", "voltage_source", ("a", "b"), (float(held[k, 0]),)), V("d", float(held[k, 1]))]
        own = [p for p in parts if p.kind != "voltage_source"]
        exact = solved(V("x0", float(X[k, 0])), V("x1", float(X[k, 1])), *own, *sources)
        wanted = torch.tensor([exact[n] for n in circuit.parts.nodes], dtype=torch.float64)
        torch.testing.assert_close(found[k], wanted, rtol=0, atol=1e-10)


def test_direction_of_coupled_learning_is_the_gradient_s_where_theory_says_so() -> None:
    """One output of a linear circuit: the stiffness at the output is a number, the same for all examples, and the
    cosine goes to 1 with the fraction; two outputs have a matrix there, and it does not."""
    cosines = []
    for outputs, y in (("v(a,b)", Y[:, :1]), (["v(a,b)", "v(d,c)"], Y)):
        circuit = Circuit(mesh(diodes=False), outputs=outputs)
        exact = implicit_gradient(circuit, X, y, SquaredError())["conductance"]
        rows = [gradient(circuit, CoupledLearning(f), y) for f in (0.3, 3e-2, 3e-3, 3e-6)]
        cosines.append([1 - float(torch.cosine_similarity(g, exact, 0)) for g in rows])
    one, two = cosines
    assert one[0] > 1e-3
    assert one[1] / one[2] == pytest.approx(100, rel=0.3)
    assert one[3] < 1e-11
    assert two[3] > 1e-3


def test_what_is_no_difference_is_refused_by_name() -> None:
    """One line each, that names the output."""
    for outputs, words in (
        (["v(a,z)"], "'z'"),
        ([("a", "a")], "differences of two nodes"),
        ([("a", "x0")], "no voltage source ties"),
        ([("a", "b", "c")], "pairs of names"),
        ([3], "pairs of names"),
        ([GROUND], "differences of two nodes"),
    ):
        with pytest.raises(InputError, match=words):
            Circuit(mesh(), outputs=outputs)
    short = Parts.collect([*mesh(), Part("L1", "inductor", ("a", "b"), (1e-3,))])
    with pytest.raises(InputError, match="nothing holds together"):
        Circuit(short, outputs=["v(a,b)"])
    ring = Circuit(mesh(), outputs=["v(a,b)", "v(b,c)", "v(a,c)"])
    with pytest.raises(InputError, match=r"'v\(a,c\)' follows from the outputs before it"):
        CoupledLearning(0.1).backward(ring, X, torch.zeros(2, 3, dtype=torch.float64))
    bounded = Circuit(
        Parts.collect([*mesh(diodes=False), Part("Z", "ideal_diode", ("a", GROUND))]), outputs=["v(a,b)"]
    )
    with pytest.raises(InputError, match="no ideal diodes at the outputs"):
        CoupledLearning(0.1).backward(bounded, X, Y[:, :1])
