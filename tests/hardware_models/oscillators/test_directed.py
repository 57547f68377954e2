"""Directed oscillators: if these fail, locked states or the gradients of their frequencies are wrong."""

from __future__ import annotations

import math
import warnings

import networkx
import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from hardware_models import DirectedOscillators, OscillatorGraph
from physics_ep import EquilibriumPropagation, NotConverged, SquaredError, relax
from physics_ep.cost import FunctionCost, PhaseError
from physics_ep.equilibrium import Status
from physics_ep.errors import InputError
from physics_ep.estimators.methods import AsymmetryWarning
from physics_ep.registry import build_system
from validation import check_system, finite_difference_gradient, implicit_gradient
from validation.gradients import estimate_gradient, total_error

N = 8


def oscillators(**options) -> DirectedOscillators:
    """Eight oscillators, about 30 directed edges with lags, two inputs that add to the frequencies."""
    rng = np.random.default_rng(0)
    edges = [(i, j) for i in range(N) for j in range(N) if i != j and rng.random() < 0.6]
    options = {"readout": "sin", "n_inputs": 2, "gain": 0.3, "outputs": [2, 3, 5], **options}
    return DirectedOscillators(
        N,
        edges,
        rng.uniform(0.5, 1.5, len(edges)),
        lags=rng.uniform(0, 0.5, len(edges)),
        frequencies=0.3 * rng.standard_normal(N),
        **options,
    ).double()


def examples(size: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(size, 2, generator=generator, dtype=torch.float64)
    return x, 0.3 * torch.randn(size, 3, generator=generator, dtype=torch.float64)


def estimate(system, x, y, cost, method: str, beta: float) -> dict[str, torch.Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AsymmetryWarning)
        return estimate_gradient(EquilibriumPropagation(cost, beta=beta, method=method), system, x, y)[0]


def test_locked_states_are_those_of_the_equations_in_time() -> None:
    """scipy integrates the Kuramoto-Sakaguchi equations, written once more, until all turn at one frequency."""
    system = oscillators()
    x, _ = examples()
    found = relax(system, x).require()
    phases = system.phases(found.state).numpy()
    omega = system.locked_frequency(found.state, x).detach().numpy()
    source, target = system.sources.numpy(), system.targets.numpy()
    weight, lag = system.weight.detach().numpy(), system.lag.detach().numpy()
    for n in range(len(x)):
        own = (system.frequency + x[n] @ system.input_weight.T).detach().numpy()

        def speed(t: float, phi: np.ndarray, own: np.ndarray = own) -> np.ndarray:
            rate = own.copy()
            np.add.at(rate, target, weight * np.sin(phi[source] - phi[target] - lag))
            return rate

        end = solve_ivp(speed, (0, 60), np.zeros(N), rtol=1e-11, atol=1e-11).y[:, -1]
        np.testing.assert_allclose(end - end[0], phases[n] - phases[n][0], atol=1e-7)
        np.testing.assert_allclose(speed(0, end), omega[n], atol=1e-7)


@pytest.mark.full
def test_implicit_gradients_agree_with_finite_differences() -> None:
    """Couplings, lags, natural frequencies and input weights: the cost of relaxed states, to rounding."""
    x, y = examples(1)
    system = oscillators()
    exact = implicit_gradient(system, x, y, SquaredError())
    differences = finite_difference_gradient(system, x, y, SquaredError())
    assert set(exact) == {"weight", "lag", "frequency", "input_weight"}
    for name, g in exact.items():
        assert float((g - differences[name]).norm() / g.norm()) < 1e-7, name


class Turning(FunctionCost):
    """A cost on phases that are angles, of differences alone."""

    angular = True


@pytest.mark.parametrize("ground", ["pin", pytest.param("quotient", marks=pytest.mark.full)])
def test_gradients_of_locked_states_are_exact(ground: str) -> None:
    """EP is of order 2 for all parameters. In the quotient, costs of differences have the same gradients."""
    x, y = examples(2)
    system = oscillators(ground=ground, readout="phase") if ground == "quotient" else oscillators()
    cost = SquaredError()
    if ground == "quotient":
        # Differences to the first output do not change under a common rotation.
        cost = Turning(lambda o, t: ((o[:, 1:] - o[:, :1]).sin() - t[:, 1:]).square().sum(1) / 2)
    exact = implicit_gradient(system, x, y, cost)
    for method in ("asymmetric", "dyadic"):
        errors = [total_error(estimate(system, x, y, cost, method, beta), exact) for beta in (1e-2, 1e-3)]
        assert errors[1] <= 1e-5
        assert abs(math.log10(errors[0] / errors[1]) - 2) <= 0.1
    assert total_error(estimate(system, x, y, cost, "vector-field", 1e-3), exact) > 0.1


def test_cosines_of_pinned_oscillators_are_read() -> None:
    """At the start all phases are 0 and no cosine changes: a scale of nudges that was measured there asked phases
    for residuals below rounding, and refused what had settled."""
    x, y = examples(2)
    system = DirectedOscillators(
        3,
        [[0, 1], [1, 2], [2, 0], [0, 2]],
        [1.0, 0.8, 0.6, 0.5],
        frequencies=[0.0, 1e-3, -2e-3],
        n_inputs=2,
        gain=1e-3,
        readout="cos",
        outputs=[1, 2],
    ).double()
    y = y[:, :2]
    exact = implicit_gradient(system, x, y, SquaredError())
    assert total_error(estimate(system, x, y, SquaredError(), "asymmetric", 1e-3), exact) < 1e-5


def test_a_state_that_rounding_ends_is_not_said_to_drift() -> None:
    x, _ = examples(2)
    found = relax(oscillators().float(), x.float(), tolerance=1e-12)
    assert not found.converged.any()
    assert found.status is not Status.NOT_LOCKED
    fast = oscillators()
    with torch.no_grad():
        fast.frequency[1] += 30.0
    assert relax(fast, x, max_iterations=300).status is Status.NOT_LOCKED


def test_a_config_builds_them() -> None:
    """Edges as lists, or drawn: a ring, so that all share one frequency, and as many more as are asked."""
    system = build_system("directed-oscillators", n=6, degree=2, couplings=2.0, n_inputs=3, seed=1)
    assert len(system.weight) == 6 * 3
    assert torch.bincount(system.targets).tolist() == [3] * 6
    given = build_system("directed-oscillators", n=2, edges=[[1, 0]], couplings=[1.5], train=["frequency"])
    assert [n for n, p in given.named_parameters() if p.requires_grad] == ["frequency"]
    for options, words in (
        ({"n": 4}, "edges must be given, or degree"),
        ({"n": 4, "edges": [[0, 1]], "degree": 1}, "edges must be given, or degree"),
        ({"n": 4, "degree": 3}, "degree must be an integer from 0 to 2"),
    ):
        with pytest.raises(InputError, match=words):
            build_system("directed-oscillators", **options)


def test_a_minimum_norm_adjoint_is_another_gradient() -> None:
    """The transposed Jacobian has a null vector that is not uniform, and the locked frequency follows the
    parameters: of all solutions the one with sum 0 is right, and the smallest one is off by far."""
    system = oscillators()
    x, y = examples(1)
    exact = implicit_gradient(system, x, y, SquaredError())["frequency"]
    phi = system.phases(relax(system, x).state)[0].detach()
    jacobian = torch.autograd.functional.jacobian(
        lambda p: system.frequency.detach().index_add(
            0, system.targets, system.weight * torch.sin(p[system.sources] - p[system.targets] - system.lag)
        ),
        phi,
    ).detach()
    read = phi[system.output_index] - phi[0]
    pull = torch.zeros(N, dtype=torch.float64)
    pull[system.output_index] = (read.sin() - y[0]) * read.cos()
    pull[0] -= pull.sum()
    smallest = -torch.linalg.pinv(jacobian.T) @ pull
    null = torch.linalg.svd(jacobian)[0][:, -1]
    right = smallest - null * (smallest.sum() / null.sum())
    assert float((right - exact).norm() / exact.norm()) < 1e-8
    assert float((smallest - exact).norm() / exact.norm()) > 0.05


def test_a_cost_that_turns_with_the_phases_is_refused() -> None:
    x, y = examples(2)
    system = oscillators(ground="quotient", readout="phase")
    for method in ("asymmetric", "dyadic", "auto"):
        with pytest.raises(InputError, match="cost must not change under the symmetries"):
            EquilibriumPropagation(PhaseError(), beta=1e-2, method=method).backward(system, x, y)


def test_symmetric_couplings_without_lag_are_an_oscillator_graph() -> None:
    """An undirected graph of networkx means the same to both classes; auto then finds an energy."""
    graph = networkx.gnp_random_graph(6, 0.7, seed=1)
    for _, _, values in graph.edges(data=True):
        values["weight"] = 0.8
    for node, values in graph.nodes(data=True):
        values["frequency"] = 0.1 * (node - 2.5)
    one_way = DirectedOscillators.from_networkx(graph, ground="pin", readout="sin").double()
    omega = [values["frequency"] for _, values in graph.nodes(data=True)]
    energy = OscillatorGraph.from_networkx(graph, ground="pin", detuning=omega, readout="sin").double()
    x = torch.zeros(1, 0, dtype=torch.float64)
    here, there = (s.outputs(relax(s, x).state) for s in (one_way, energy))
    torch.testing.assert_close(here, there, atol=1e-8, rtol=0)
    quotient = DirectedOscillators.from_networkx(graph, ground="quotient", readout="phase").double()
    cost = Turning(lambda o, t: (o - o.roll(1, 1)).sin().square().sum(1) / 2)
    step = EquilibriumPropagation(cost, beta=1e-2).backward(quotient, x, torch.zeros(1, 5, dtype=torch.float64))
    assert step.method == "energy"


def test_directed_graphs_of_networkx() -> None:
    graph = networkx.DiGraph()
    graph.add_node("a", frequency=0.3)
    graph.add_node("b")
    graph.add_edge("b", "a", weight=0.6, lag=0.1)
    system = DirectedOscillators.from_networkx(graph, readout="phase", reference=1).double()
    x = torch.zeros(1, 0, dtype=torch.float64)
    # omega = 0.3 + 0.6 sin(-phi - 0.1) must be that of b, 0.
    assert float(system.outputs(relax(system, x).state)) == pytest.approx(math.asin(0.5) - 0.1, abs=1e-8)
    graph.add_edge("b", "c")
    graph.remove_edge("b", "a")
    with pytest.raises(InputError, match="edges must join all oscillators"):
        DirectedOscillators.from_networkx(graph)
    for pairs, words in (([[0, 0]], "two different"), ([[0, 1], [0, 1]], "once"), ([[0, 5]], "two different")):
        with pytest.raises(InputError, match=words):
            DirectedOscillators(2, pairs)


def test_what_cannot_lock_says_so() -> None:
    system = DirectedOscillators(2, [[1, 0]], 0.5, frequencies=[1.0, 0.0], readout="sin", reference=1).double()
    with pytest.raises(NotConverged, match="no synchronised state"):
        relax(system, torch.zeros(1, 0, dtype=torch.float64)).require()


@pytest.mark.full
def test_they_keep_the_contract() -> None:
    x, y = examples(3)
    check_system(oscillators(), x, y)
