"""Circuits: equilibria and gradients against linear algebra, 40-digit arithmetic and the layered networks."""

from __future__ import annotations

import copy

import mpmath
import numpy as np
import pytest
import torch

from hardware_models import HopfieldNetwork, UnitGraph
from physics_ep import CrossEntropy, EquilibriumPropagation, Nudge, SquaredError, relax
from physics_ep.cost import OutputForce
from physics_ep.errors import InputError
from physics_ep.relaxation.loop import solve
from physics_ep.system import EnergySystem
from tests.support.graphs import DIGITS, RandomGraph
from validation import check_system

# -- equilibria -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["coordinate", "anderson", "gradient_flow"])
def test_residual_vanishes_where_the_force_does(solver):
    """A residual that certifies states which are no equilibria, or never lets go of one that is."""
    case = RandomGraph()
    found = relax(case.circuit, case.x, solver=solver, tolerance=1e-12).require()
    (s,) = found.state
    (force,) = EnergySystem.force(case.circuit, (s,), case.x)
    projected = case.circuit.project((s + force,))[0] - s
    assert projected.abs().max() < 1e-10
    moved = s.clone()
    moved[:, 4] += 1e-3
    assert case.circuit.phase(case.circuit.prepare(case.x)).sweep((moved,))[2].min() > 5e-4


def test_free_variables_are_those_that_no_bound_holds():
    """Implicit gradients leave out what does not move: a wrong mask is a wrong oracle."""
    case = RandomGraph()
    drive = case.drive(relax(case.circuit, case.x).state[0])
    held = np.array(case.units) == "hard_sigmoid"
    (free,) = case.circuit.free_variables((relax(case.circuit, case.x).state[0],), case.x)
    assert np.array_equal(free.numpy(), ~held | ((drive > 0) & (drive < 1)))
    assert 0 < (~free).sum() < held.sum() * len(drive)
    assert RandomGraph(kinds=("tanh",)).circuit.free_variables((case.state(),), case.x) is None


def test_circuit_keeps_every_invariant_of_a_system():
    """The public checks: force and contrast by finite differences, descent, independence, order of the stencils."""
    case = RandomGraph(kinds=("linear", "hard_sigmoid"), gain=0.12)
    check_system(case.circuit, case.x, case.y)


def test_linear_circuit_solves_its_linear_system():
    """An independent answer for free and nudged states: (1 - W + beta P) s = b + W_in x + beta P y."""
    case = RandomGraph(kinds=("linear",), gain=0.08)
    free = relax(case.circuit, case.x, tolerance=1e-14).require()
    n = len(case.free)
    zero = torch.zeros(7, n, dtype=torch.float64)
    matrix = np.empty((n, n))
    for k in range(n):
        unit = zero.clone()
        unit[:, k] = 1
        matrix[:, k] = (case.drive(unit) - case.drive(zero))[0]
    exact = np.linalg.solve(np.eye(n) - matrix, case.drive(zero).T).T
    assert np.abs(free.state[0].numpy() - exact).max() < 1e-13
    for beta in (0.5, 1e-6, -0.1):
        nudge = Nudge(SquaredError(), case.y, beta)
        phase = case.circuit.phase(case.circuit.prepare(case.x), origin=free.state, balanced=True)
        nudged = solve(phase.nudged(nudge), tolerance=1e-14 * abs(beta)).require()
        pull = np.zeros((n, n))
        push = np.zeros((7, n))
        for k, node in enumerate(case.outputs):
            at = int(np.flatnonzero(case.free == node)[0])
            pull[at, at] = beta
            push[:, at] = beta * (case.y[:, k].numpy() - exact[:, at])
        moved = np.linalg.solve(np.eye(n) - matrix + pull, push.T).T
        assert nudged.displacement is not None
        assert np.abs(nudged.displacement[0].numpy() - moved).max() < 1e-12 * abs(beta)


@mpmath.workdps(40)
def test_displacement_keeps_its_digits_at_a_small_nudge():
    """Two float64 states subtracted would leave ten digits at beta 1e-6; carried displacements keep all."""
    case = RandomGraph(seed=5, gain=0.15)
    beta = 1e-6
    s0, start = relax(case.circuit, case.x, tolerance=1e-15).state, case.x[:1]
    free = solve(case.circuit.phase(case.circuit.prepare(start)), start=(s0[0][:1],), tolerance=1e-15)
    phase = case.circuit.phase(case.circuit.prepare(start), origin=free.state, balanced=True)
    nudged = solve(phase.nudged(Nudge(SquaredError(), case.y[:1], beta)), tolerance=1e-22, max_iterations=200)

    near: list[list[tuple[int, mpmath.mpf]]] = [[] for _ in range(case.n)]
    for w, (i, j) in zip(case.weights, case.edges, strict=True):
        near[i].append((int(j), mpmath.mpf(w)))
        near[j].append((int(i), mpmath.mpf(w)))
    targets = {int(node): mpmath.mpf(float(case.y[0, k])) for k, node in enumerate(case.outputs)}

    def settle(strength: float, v: list[mpmath.mpf]) -> list[mpmath.mpf]:
        for _ in range(200):
            worst = mpmath.mpf(0)
            for k, i in enumerate(case.free):
                p = mpmath.mpf(case.biases[k]) + mpmath.fsum(w * v[j] for j, w in near[i])
                if i in targets:
                    p = (p + strength * targets[i]) / (1 + mpmath.mpf(strength))
                new = DIGITS[case.units[k]](p)
                worst, v[i] = max(worst, abs(new - v[i])), new
            if worst < mpmath.mpf(10) ** -30:
                return v
        raise AssertionError("the reference did not settle")

    exact_free = settle(0.0, [mpmath.mpf(float(v)) for v in case.values(s0[0])[0]])
    exact = settle(beta, list(exact_free))
    assert nudged.displacement is not None
    scale = max(abs(a - b) for a, b in zip(exact, exact_free, strict=True))
    for k, i in enumerate(case.free):
        assert abs(float(nudged.displacement[0][0, k]) - (exact[i] - exact_free[i])) < 1e-13 * scale


@pytest.mark.parametrize("solver", ["coordinate", "gradient_flow"])
def test_unbalanced_displacement_repairs_a_rough_origin(solver):
    """relax(start=...) must reach the equilibrium itself, whatever the origin's own mismatch, within the bounds."""
    case = RandomGraph()
    rough = relax(case.circuit, case.x, tolerance=1e-2).state
    nudge = Nudge(SquaredError(), case.y, 0.3)
    from_rough = relax(case.circuit, case.x, nudge, rough, solver=solver, tolerance=1e-13).require()
    state_form = solve(case.circuit.phase(case.circuit.prepare(case.x)).nudged(nudge), tolerance=1e-13).require()
    assert (from_rough.state[0] - state_form.state[0]).abs().max() < 1e-12


def test_nudged_output_unit_in_closed_form():
    """clip((p + beta y) / (1 + beta)): a hard sigmoid alone, below, between and above its bounds."""
    drives = torch.tensor([-0.5, 0.2, 0.9, 1.4], dtype=torch.float64)[:, None]
    circuit = UnitGraph.from_edges(2, [[0, 1]], [1.0], inputs=[0], outputs=[1])
    y = torch.full((4, 1), 0.6, dtype=torch.float64)
    free = relax(circuit, drives)
    for beta in (0.5, 4.0, -0.3, torch.tensor([0.5, -0.3, 2.0, 1.0], dtype=torch.float64)):
        column = beta[:, None] if isinstance(beta, torch.Tensor) else beta
        exact = ((drives + column * y) / (1 + column)).clamp(0, 1)
        got = relax(circuit, drives, Nudge(SquaredError(), y, beta), free.state).state[0]
        assert (got - exact).abs().max() < 1e-15


def test_nodes_without_edges_or_inputs_rest_at_their_biases():
    """The smallest circuits: empty arrays must not trip the layout of the graph."""
    circuit = UnitGraph.from_edges(2, [], [], ["tanh", "linear"], outputs=[1], biases=[0.3, -0.4])
    found = relax(circuit, torch.empty(3, 0, dtype=torch.float64)).require()
    exact = torch.tensor([np.tanh(0.3), -0.4]).expand(3, 2)
    assert (found.state[0] - exact).abs().max() < 1e-15


def test_a_constant_force_on_outputs_is_a_bias():
    """The stability limit is measured with it, on any unit."""
    case = RandomGraph()
    free = relax(case.circuit, case.x, tolerance=1e-13)
    pulled = relax(
        case.circuit, case.x, Nudge(OutputForce(), case.y[:1].expand(7, 3), 0.4), free.state, tolerance=1e-13
    )
    at = case.circuit.output_columns
    with torch.no_grad():
        case.circuit.bias[at] += 0.4 * case.y[0]
    assert (pulled.state[0] - relax(case.circuit, case.x, tolerance=1e-13).state[0]).abs().max() < 1e-11


def test_other_costs_and_units_take_the_generic_path():
    """Cross-entropy, or a squared error on tanh outputs: no closed update, still an equilibrium of F."""
    labels = torch.arange(7) % 3
    for kinds, cost, y in ((("linear",), CrossEntropy(), labels), (("tanh",), SquaredError(), None)):
        case = RandomGraph(kinds=kinds, gain=0.1)
        target = case.y if y is None else y
        nudge = Nudge(cost, target, 0.3)
        free = relax(case.circuit, case.x, tolerance=1e-12)
        nudged = relax(case.circuit, case.x, nudge, free.state, solver="anderson", tolerance=1e-11).require()
        s = nudged.state[0].clone().requires_grad_()
        total = case.circuit.energy((s,), case.x) + nudge.energy(case.circuit.outputs((s,)))
        assert torch.autograd.grad(total.sum(), s)[0].abs().max() < 1e-10


def test_ep_gradient_is_the_gradient_of_the_settled_cost():
    """EP on a linear circuit has the gradient of autograd through the solution of its linear system."""
    edges, n = [[0, 1], [1, 2], [2, 3], [3, 1], [0, 3]], 4
    circuit = UnitGraph.from_edges(n, edges, [0.5, 0.3, -0.2, 0.1, 0.4], "linear", inputs=[0], outputs=[2, 3])
    x = torch.tensor([[0.7], [-1.2]], dtype=torch.float64)
    y = torch.tensor([[1.0, 0.0], [0.5, 0.2]], dtype=torch.float64)
    EquilibriumPropagation(SquaredError(), beta=1e-5, tolerance=1e-13).backward(circuit, x, y)
    w = circuit.weight.detach().clone().requires_grad_()
    full = torch.zeros(n, n, dtype=torch.float64)
    for k, (i, j) in enumerate(edges):
        full = full.index_put((torch.tensor([i, j]), torch.tensor([j, i])), w[k].expand(2), accumulate=True)
    s = torch.linalg.solve(torch.eye(3, dtype=torch.float64) - full[1:, 1:], full[1:, :1] @ x.T).T
    (0.5 * (s[:, 1:] - y).square().sum(1)).mean().backward()
    assert (circuit.weight.grad - w.grad).abs().max() < 1e-9 * w.grad.abs().max()


# -- parity, parameters, input ----------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["hard_sigmoid", "tanh", "logistic"])
def test_layered_network_and_its_circuit_agree(activation):
    """One set of laws, two assemblers: states, energies and EP gradients to 1e-10."""
    net = HopfieldNetwork([6, 9, 7, 4], activation, seed=2).double()
    with torch.no_grad():
        for name, p in net.named_parameters():
            if name.endswith("bias"):
                p.copy_(torch.linspace(-0.3, 0.4, p.numel()))
    circuit = net.to_circuit()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, 6, generator=generator, dtype=torch.float64)
    y = torch.rand(5, 4, generator=generator, dtype=torch.float64)
    layers, graph = (relax(system, x, tolerance=1e-14).require() for system in (net, circuit))
    assert (torch.cat(layers.state, 1) - graph.state[0]).abs().max() < 1e-10
    assert (net.energy(layers.state, x) - circuit.energy(graph.state, x)).abs().max() < 1e-10
    ep = EquilibriumPropagation(SquaredError(), beta=0.01, tolerance=1e-13)
    for system in (net, circuit):
        ep.backward(system, x, y)
    for kind, mine in (("weight", circuit.weight.grad), ("bias", circuit.bias.grad)):
        theirs = torch.cat([p.grad.flatten() for name, p in net.named_parameters() if name.endswith(kind)])
        assert (mine - theirs).abs().max() < 1e-10 * theirs.abs().max()


def test_kernels_read_the_parameters_of_today():
    """Views kept from construction go stale under assignment, deepcopy and load_state_dict(assign=True)."""
    case = RandomGraph()
    twin = copy.deepcopy(case.circuit)
    twin.load_state_dict({"weight": 0.5 * case.circuit.weight, "bias": -case.circuit.bias}, assign=True)
    s = case.state()
    for circuit in (case.circuit, twin):
        (auto,) = EnergySystem.force(circuit, (s,), case.x)
        assert (circuit.force((s,), case.x)[0] - auto).abs().max() < 1e-13


def test_frozen_parameters_have_no_contrast():
    """As for the default contrast."""
    case = RandomGraph()
    case.circuit.bias.requires_grad_(False)
    s = case.state()
    assert set(case.circuit.contrast((s,), (s,), None, case.x, torch.ones(7, dtype=torch.float64))) == {"weight"}


GOOD: dict = {"n_nodes": 3, "edges": [[0, 1], [1, 2]], "weights": [1.0, 2.0], "inputs": [0], "outputs": [2]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_nodes": 0}, "n_nodes must be an integer of at least 1"),
        ({"edges": [[0, 1], [1, 3]]}, "edges must hold node numbers from 0 to 2"),
        ({"edges": [[0, 1], [-1, 2]]}, "edges must hold node numbers from 0 to 2"),
        ({"edges": [[0, 1.5], [1, 2]]}, "edges must hold integers"),
        ({"edges": [[0, 1], [2]]}, "edges must be an array of node numbers"),
        ({"edges": [0, 1]}, r"edges must have the shape \(m, 2\)"),
        ({"edges": [[0, 1], [2, 2]]}, "edges must join two different nodes, but was a loop at node 2"),
        ({"weights": [1.0]}, r"weights must have the shape \(2,\)"),
        ({"weights": [1.0, float("nan")]}, "weights must be finite, but was nan at index 1"),
        ({"weights": ["a", "b"]}, "weights must hold numbers"),
        ({"biases": [0.0]}, r"biases must have the shape \(2,\)"),
        ({"units": ["tanh"]}, "units must be one name or 2 names"),
        ({"units": "tanhh"}, "Did you mean 'tanh'"),
        ({"couplings": "hopfeld"}, "Did you mean 'hopfield'"),
        ({"inputs": [0, 1, 2], "outputs": []}, "inputs must leave at least one node free"),
        ({"inputs": [0, 0]}, "inputs must name each node once"),
        ({"inputs": [[0]]}, "inputs must be a flat sequence"),
        ({"outputs": []}, "outputs must name at least one node"),
        ({"outputs": [0]}, "outputs must be free nodes, but was the input 0"),
    ],
)
def test_bad_circuits_are_refused(change, message):
    """One line that names the argument; numba would read beyond its arrays without a word."""
    with pytest.raises(InputError, match=message):
        UnitGraph.from_edges(**{**GOOD, **change})


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2, 3, dtype=torch.float64), r"x must be a tensor \(batch, 1\), but was \(2, 3\)"),
        (torch.zeros(2, 1, dtype=torch.float32), "x must be float64 on the CPU"),
        (torch.full((2, 1), float("nan"), dtype=torch.float64), "x must be finite"),
        ([[0.0]], "x must be a tensor"),
    ],
)
def test_bad_inputs_are_refused(x, message):
    with pytest.raises(InputError, match=message):
        relax(UnitGraph.from_edges(**GOOD), x)


def test_narrowed_circuits_and_runaway_nudges_are_refused():
    """Kernels would read float32 as float64; beyond beta = -1 an output unit has no minimum to go to."""
    x = torch.zeros(2, 1, dtype=torch.float64)
    with pytest.raises(InputError, match="system must be float64"):
        relax(UnitGraph.from_edges(**GOOD).float(), x)
    with pytest.raises(InputError, match="beta must exceed -1"):
        relax(UnitGraph.from_edges(**GOOD), x, Nudge(SquaredError(), torch.zeros_like(x), -1.0))
