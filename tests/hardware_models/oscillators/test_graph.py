"""Oscillators on any graph against sums over edges, autograd, closed forms of locking, and exhaustive search."""

from __future__ import annotations

import itertools
import math
from typing import Any

import networkx
import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from hardware_models import OscillatorGraph, OscillatorNetwork
from hardware_models.oscillators.base import wrapped
from hardware_models.oscillators.ising import anneal, ising_energy
from hardware_models.oscillators.locking import cannot_lock
from hardware_models.oscillators.mirror_pairs import mirror_pairs
from physics_ep import (
    EquilibriumPropagation,
    Nudge,
    PhaseError,
    SquaredError,
    Status,
    centered,
    relax,
    simulate,
)
from physics_ep.blocks import State
from physics_ep.errors import InputError
from physics_ep.estimators.propagation import estimate_gradient
from physics_ep.landscape.branches import smallest_curvature
from physics_ep.landscape.exploration import explore
from validation import check_system, implicit_gradient
from validation.gradients import total_error


@pytest.fixture(autouse=True)
def float64():
    """Closed forms are compared to rounding."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def nothing(batch: int = 1) -> torch.Tensor:
    """Input of a network without inputs."""
    return torch.zeros(batch, 0)


def star(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A connected random graph: a random tree and some edges more, in random order and direction."""
    graph = networkx.gnp_random_graph(n, 0.25, seed=seed)
    graph.add_edges_from((i, (7 * i * i + 3) % i) for i in range(1, n))
    rng = np.random.default_rng(seed)
    edges = rng.permuted(rng.permutation(np.array(graph.edges)), axis=1)
    return torch.from_numpy(edges), torch.from_numpy(rng.normal(size=len(edges)))


CASES: dict[str, Any] = {
    "all to all, detuned": lambda: OscillatorGraph.all_to_all(3, 12, 4, detuning=0.1 * noise(12)),
    "all to all, injected": lambda: OscillatorGraph.all_to_all(3, 12, 4, second_harmonic=0.2, seed=1),
    "edges": lambda: OscillatorGraph(
        12, *star(12), n_inputs=3, input_index=[5, 0, 7], field=2.0, outputs=[3, 11], readout="sin", dense=False
    ),
    "references": lambda: OscillatorGraph(
        12, star(12)[0], 1.0, pins={4: 0.5, 2: -0.7}, field=noise(2, 12), outputs=[3, 11, 0], dense=False
    ),
    "lattice, pinned": lambda: OscillatorGraph.lattice((3, 4), ground="pin", detuning=0.3 * noise(12), dense=False),
    "lattice, modulo rotation": lambda: OscillatorGraph.lattice(
        (3, 4), ground="quotient", detuning=0.3 * noise(12), reference=2, outputs=[5, 11, 0]
    ),
}


def drawn(name: str, batch: int = 3) -> tuple[OscillatorGraph, torch.Tensor, torch.Tensor]:
    system = CASES[name]()
    y = 0.6 * torch.rand(batch, len(system.output_index), generator=torch.Generator().manual_seed(3))
    return system, noise(batch, system.sizes[0], seed=4), y


# -- the energy and its derivatives -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_contract(name: str) -> None:
    """If this fails, forces, contrasts or equilibria disagree with the energy, or EP misses its order."""
    check_system(*drawn(name))


@pytest.mark.parametrize("dense", [True, False])
def test_energy_is_the_sum_over_edges(dense: bool) -> None:
    """If this fails, it is not the graph that was asked for: edges lost, doubled or turned; pins, fields or inputs
    astray."""
    n, batch = 9, 4
    edges, weights = star(n)
    fields, omega, drives = noise(2, n, seed=5), noise(n, seed=6), noise(3, 2, seed=7)
    pins = {1: 0.4, 6: 2.0}
    system = OscillatorGraph(
        n, edges, weights, n_inputs=2, input_index=[8, 0, 3], input_weights=drives, field=fields, detuning=omega,
        second_harmonic=-0.3, pins=pins, dense=dense,
    )  # fmt: skip
    x = noise(batch, 2, seed=8)
    state = system.random_state(x, torch.Generator().manual_seed(1))
    phi = system.phases(state).numpy()
    total = np.zeros(batch)
    for (i, j), w in zip(edges.tolist(), weights.tolist(), strict=True):
        total -= 0 if {i, j} <= set(pins) else w * np.cos(phi[:, i] - phi[:, j])
    for i in set(range(n)) - set(pins):
        total -= fields[0, i].item() * np.cos(phi[:, i]) + fields[1, i].item() * np.sin(phi[:, i])
        total -= omega[i].item() * phi[:, i] - 0.15 * np.cos(2 * phi[:, i])
    for i, row in zip([8, 0, 3], drives.numpy(), strict=True):
        total -= (x.numpy() @ row) * np.cos(phi[:, i])
    energy = system.energy(state, x).detach().numpy()
    np.testing.assert_allclose(energy, total, rtol=0, atol=1e-13)
    phase = system.phase(system.prepare(x))
    np.testing.assert_allclose(phase.energy(state).numpy(), total, rtol=0, atol=1e-13)
    force = system.force(state, x)[0]
    torch.testing.assert_close(phase.force(state)[0], force, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ["all to all, injected", "references", "lattice, modulo rotation"])
def test_nudged_hessian_and_slope_are_autograds(name: str) -> None:
    """If this fails, Newton's steps, stability limits and branch checks go by another curvature than the nudged
    energy's."""
    system, x, y = drawn(name)
    origin = system.random_state(x, torch.Generator().manual_seed(1))
    phase = system.phase(system.prepare(x), origin=origin).nudged(Nudge(SquaredError(), y, 0.3))
    z, v = (0.2 * noise(*origin[0].shape, seed=2),), noise(*origin[0].shape, seed=3)
    leaf = (origin[0] + z[0]).requires_grad_()
    with torch.enable_grad():
        total = system.energy((leaf,), x) + phase.nudge.energy(system.outputs((leaf,)))
        slope = torch.autograd.grad(total.sum(), leaf, create_graph=True)[0]
        product = torch.autograd.grad((slope * v).sum(), leaf)[0]
    with torch.no_grad():
        torch.testing.assert_close(phase.force(z)[0], -slope.detach(), rtol=0, atol=1e-12)
        torch.testing.assert_close(phase.hessian(z)((v,))[0], product, rtol=0, atol=1e-12)


def test_sparse_fields_are_differentiable_twice() -> None:
    """If this fails, implicit gradients of sparse graphs, which differentiate the force, are wrong."""
    system = CASES["edges"]()
    pairs = system.couplings.pairs
    z, w = noise(2, 2, 12).requires_grad_(), system.couplings.weight.detach().requires_grad_()
    assert torch.autograd.gradcheck(pairs.smooth_field, (z, w))
    assert torch.autograd.gradgradcheck(pairs.smooth_field, (z, w))


@pytest.mark.parametrize("batch", [1, 3])
def test_kernels_agree_with_matrices(batch: int) -> None:
    """If this fails, a graph computes something else once it is sparse, for some batches (planes go four at a
    time)."""
    n = 2500  # more than two blocks of rows
    edges = torch.from_numpy(np.array(networkx.random_regular_graph(5, n, seed=0).edges))
    weights = noise(len(edges))
    sparse = OscillatorGraph(n, edges, weights, field=1.0, dense=False)
    x, other = nothing(batch), np.zeros((n, n))
    other[edges[:, 0], edges[:, 1]] = weights.numpy()
    matrix = torch.from_numpy(other + other.T)
    z, v = noise(2, batch, n, seed=2), noise(batch, n, seed=3)
    pairs = sparse.couplings.pairs
    torch.testing.assert_close(pairs.field(z, sparse.couplings.bound()[0]), z @ matrix, rtol=0, atol=1e-13)
    curved = pairs.curvature(z, v, sparse.couplings.bound()[0])(z[0])
    torch.testing.assert_close(curved, v * z[0] - (z * ((z * z[0]) @ matrix)).sum(0), rtol=0, atol=1e-12)
    outer = torch.einsum("cbi,cbj->ij", z, z)
    products = 2 * outer[edges[:, 0], edges[:, 1]]
    torch.testing.assert_close(pairs.products(z, z), products, rtol=0, atol=1e-12)
    narrow = pairs.field(z.float(), sparse.couplings.bound()[0].float())
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow.double(), z @ matrix, rtol=0, atol=1e-5)
    state = (noise(batch, n, seed=4),)
    torch.testing.assert_close(
        sparse.phase(sparse.prepare(x)).force(state)[0], sparse.force(state, x)[0], rtol=0, atol=1e-12
    )


def test_layers_as_a_graph() -> None:
    """If this fails, layers and graphs are two different machines: energies, forces and learning must agree."""
    layers = OscillatorNetwork(
        [4, 6, 5, 2], 0.2, frequency_spread=0.05, encoding="phase", readout="sin", gain=0.6, weight_bits=5
    )
    graph = OscillatorGraph.from_network(layers)
    x, y = noise(3, 4), 0.3 * noise(3, 2, seed=1)
    state = layers.random_state(x, torch.Generator().manual_seed(0))
    beside = (torch.cat(state, 1),)
    torch.testing.assert_close(layers.energy(state, x), graph.energy(beside, x), rtol=0, atol=1e-13)
    forces = [s.phase(s.prepare(x)).force(at) for s, at in ((layers, state), (graph, beside))]
    torch.testing.assert_close(torch.cat(forces[0], 1), forces[1][0], rtol=0, atol=1e-13)
    ep = EquilibriumPropagation(SquaredError(), centered(), 0.05, tolerance=1e-12)
    mine, other = (estimate_gradient(ep, s, x, y)[0] for s in (graph, layers))
    pairs = torch.cat([other[f"couplings.{k}.weight"].flatten() for k in (1, 2)])
    fields = torch.cat([other[f"couplings.{k}.field"] for k in range(3)], 1)
    torch.testing.assert_close(mine["couplings.weight"], pairs, rtol=0, atol=1e-10)
    torch.testing.assert_close(mine["couplings.input_weight"], other["couplings.0.weight"], rtol=0, atol=1e-10)
    torch.testing.assert_close(mine["couplings.local_field"], fields, rtol=0, atol=1e-10)


def test_lattices_are_networkx_grids() -> None:
    """If this fails, a lattice has missing, doubled or wrong bonds at its rim."""
    for shape, periodic in [((7,), True), ((7,), False), ((4, 5), True), ((4, 2), True), ((3, 4, 2), False)]:
        grid = networkx.grid_graph(dim=shape[::-1], periodic=periodic)
        number = {node: i for i, node in enumerate(sorted(grid))}
        wanted = {frozenset((number[a], number[b])) for a, b in grid.edges if a != b}
        lattice = OscillatorGraph.lattice(shape, periodic=periodic, weight=0.5, field=1.0)
        assert {frozenset(edge) for edge in lattice.edges.tolist()} == wanted
        assert len(lattice.edges) == len(wanted)
    graph = networkx.Graph()
    graph.add_edge("a", "c", weight=-2.0)
    graph.add_edge("b", "a")
    found = OscillatorGraph.from_networkx(graph, field=1.0)
    assert found.edges.tolist() == [[0, 1], [0, 2]]
    assert found.couplings.weight.tolist() == [-2.0, 1.0]


def test_turns_never_raise_the_energy() -> None:
    """If this fails, turning neighbours at once oscillates: on frustrated graphs undamped turns do."""
    edges, weights = star(30, seed=2)
    system = OscillatorGraph(30, edges, weights, second_harmonic=0.4, field=0.1)
    start = system.random_state(nothing(4), torch.Generator().manual_seed(5))
    found = relax(system, nothing(4), start=start, solver="coordinate", max_iterations=400, trace=True)
    assert found.trace is not None
    rise = found.trace.energy.diff(dim=0)
    assert float(rise.max()) <= 1e-13 * float(found.trace.energy.abs().max())


# -- gradients --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_centered_gradients_are_of_second_order(name: str) -> None:
    """If this fails, EP on graphs has another bias than promised, or stalls above what it can reach."""
    system, x, y = drawn(name)
    exact = implicit_gradient(system, x, y, SquaredError())
    betas, errors = (1e-2, 1e-3, 1e-4), []
    for beta in betas:
        ep = EquilibriumPropagation(SquaredError(), centered(), beta, tolerance=1e-13)
        errors.append(total_error(estimate_gradient(ep, system, x, y)[0], exact))
    assert abs(math.log10(errors[0] / errors[1]) - 2) <= 0.1
    assert errors[2] <= 1e-6


def test_pinned_and_free_rotation_are_one_machine() -> None:
    """If this fails, the way in which an ungrounded network is held changes its equilibrium or its gradient."""
    omega = 0.2 * noise(12)
    options: dict[str, Any] = {"detuning": omega, "outputs": [5, 7], "readout": "phase"}
    pinned = OscillatorGraph.lattice((3, 4), ground="pin", **options)
    whole = OscillatorGraph.lattice((3, 4), ground="quotient", **options)
    assert pinned.common_frequency == pytest.approx(float(omega.mean()), abs=1e-16)
    assert whole.common_frequency == pinned.common_frequency
    x, y = nothing(2), noise(2, 2, seed=1)
    phases = [s.phases(relax(s, x, tolerance=1e-13).require().state) for s in (pinned, whole)]
    torch.testing.assert_close(phases[0], phases[1] - phases[1][:, :1], rtol=0, atol=1e-11)
    ep = EquilibriumPropagation(PhaseError(), centered(), 0.01, tolerance=1e-12)
    grads = [estimate_gradient(ep, s, x, y)[0]["couplings.weight"] for s in (pinned, whole)]
    torch.testing.assert_close(*grads, rtol=0, atol=1e-9)
    force = whole.phase(whole.prepare(x)).force((noise(2, 12),))[0]
    assert float(force.sum(1).abs().max()) <= 1e-13


# -- synchronisation --------------------------------------------------------------------------------------------


def pair(difference: float, weight: float = 0.7) -> OscillatorGraph:
    """Two oscillators that differ in frequency, about a common one of 3."""
    return OscillatorGraph(
        2, [[0, 1]], weight, detuning=[3 + difference / 2, 3 - difference / 2], ground="quotient"
    )


@pytest.mark.parametrize("share", [-0.999, -0.3, 0.0, 0.8, 0.999])
def test_two_oscillators_lock(share: float) -> None:
    """Adler: phi_0 - phi_1 = arcsin(Delta / 2 W); else couplings count once or four times, or frames are lost."""
    system = pair(share * 1.4)
    found = relax(system, nothing()).require()
    difference = found.state[0][0, 0] - found.state[0][0, 1]
    assert float(difference) == pytest.approx(math.asin(share), abs=1e-8)
    assert system.energy(found.state, nothing()).item() == pytest.approx(
        -0.7 * math.sqrt(1 - share**2) - 0.5 * share * 1.4 * math.asin(share), abs=1e-12
    )
    assert system.common_frequency == 3.0


def test_two_oscillators_beat_by_adlers_equation() -> None:
    """Beyond 2 W the difference turns once in 2 pi / sqrt(Delta^2 - 4 W^2); else frequency pulling is wrong."""
    delta = 2.0
    system = pair(delta)
    refused = relax(system, nothing())
    assert refused.status is Status.NOT_LOCKED
    assert refused.iterations == 1
    turn = 2 * math.pi / math.sqrt(delta**2 - 1.4**2)
    course = simulate(
        system, nothing(), 3 * turn, start=(torch.zeros(1, 2),), steps=300, method="dormand_prince", every=100
    )
    difference = course.state[0][:, 0, 0] - course.state[0][:, 0, 1]
    np.testing.assert_allclose(difference.numpy(), 2 * math.pi * np.arange(4), rtol=0, atol=1e-8)


def test_chain_hands_frequencies_on() -> None:
    """sin(phi_k - phi_(k+1)) is the sum of omega up to k over W; else torques do not balance along a chain."""
    n = 40
    omega = torch.linspace(-1, 1, n) * 0.09
    system = OscillatorGraph.lattice(n, periodic=False, weight=1.0, detuning=omega, ground="pin")
    phi = system.phases(relax(system, nothing()).require().state)[0]
    sums = omega.cumsum(0)[:-1]
    assert float(sums.abs().max()) > 0.8
    torch.testing.assert_close(phi[:-1] - phi[1:], sums.asin(), rtol=0, atol=1e-8)


def test_kuramoto_threshold() -> None:
    """n oscillators, all coupled by K / n, lock where u / mean sqrt(1 - (omega / u)^2) = K has a root u = K r."""
    n = 30
    omega = noise(n, seed=8)
    omega = omega - omega.mean()

    def order(u: float) -> float:
        return float((1 - (omega / u) ** 2).clamp_min(0).sqrt().mean())

    fastest = float(omega.abs().max())
    lowest = minimize_scalar(
        lambda u: u / order(u), bounds=(fastest, 3 * fastest), method="bounded", options={"xatol": 1e-12}
    )

    def network(strength: float) -> OscillatorGraph:
        return OscillatorGraph.all_to_all(
            0, n, 1, weights=strength / n, field=None, detuning=omega, ground="quotient"
        )

    strength = 1.002 * lowest.fun
    found = relax(network(strength), nothing()).require()
    r = float(torch.polar(torch.ones(n), found.state[0][0]).mean().abs())
    assert order(strength * r) == pytest.approx(r, abs=1e-9)
    for share in (0.998, 0.8, 0.4):
        assert relax(network(share * lowest.fun), nothing()).status is Status.NOT_LOCKED


def test_ring_states() -> None:
    """Winding number q: energy -n W cos(2 pi q / n), curvatures in closed form, stable if |q| < n / 4."""
    n, weight = 12, 0.8
    ring = OscillatorGraph.lattice(n, weight=weight, ground="quotient")
    numbers = torch.arange(n)
    for q in (-2, 0, 1, 2, 4, 5):
        state = ((2 * math.pi * q / n * numbers)[None].double(),)
        assert ring.energy(state, nothing()).item() == pytest.approx(-n * weight * math.cos(2 * math.pi * q / n))
        assert float(ring.phase(ring.prepare(nothing())).force(state)[0].abs().max()) <= 1e-14
        bends = 2 * weight * math.cos(2 * math.pi * q / n) * (1 - (2 * math.pi * numbers[1:] / n).cos())
        lowest = smallest_curvature(ring, state, nothing())
        assert float(lowest) == pytest.approx(float(bends.min()), abs=1e-12)
        assert (float(lowest) > 0) == (abs(q) < n / 4)
    # A state near q = 2 settles into it, one near q = 4 does not stay.
    for q, stays in ((2, True), (4, False)):
        near = ((2 * math.pi * q / n * numbers)[None] + 0.05 * noise(1, n),)
        found = relax(ring, nothing(), start=near).require()
        steps = wrapped(found.state[0] - found.state[0].roll(1, 1))
        assert (round(float(steps.sum()) / (2 * math.pi)) == q) == stays


def test_states_that_differ_by_turns_are_one() -> None:
    """If this fails, whole turns and common rotations pass for new states: a ring of 8 has windings -1, 0 and 1
    only."""
    ring = OscillatorGraph.lattice(8, ground="quotient")
    basins = explore(ring, nothing(), 40)[0]
    steps = wrapped(basins.state[0] - basins.state[0].roll(1, 1)).sum(1) / (2 * math.pi)
    assert sorted(steps.round().int().tolist()) == [-1, 0, 1]
    torch.testing.assert_close(basins.energy, torch.tensor([-8, -8 * math.sqrt(0.5), -8 * math.sqrt(0.5)]))
    assert float(basins.share.sum()) == pytest.approx(1.0)
    assert len(explore(OscillatorGraph.lattice(8, ground="pin"), nothing(), 40)[0].energy) == 3


def test_bounds_on_locking() -> None:
    """No group may pull harder than what holds it; else networks that lock are refused, or none is."""
    lost = 0
    for seed in range(30):
        n, batch = 7, 3
        edges, weights = star(n, seed)
        generator = torch.Generator().manual_seed(seed)
        omega = 1.5 * torch.randn(n, generator=generator)
        hold = torch.rand(batch, n, generator=generator)
        around = torch.zeros(n)
        order = omega.argsort(descending=True).tolist()
        groups = [[i] for i in range(n)] + [g for k in range(1, n + 1) for g in (order[:k], order[n - k :])]
        for (i, j), w in zip(edges.tolist(), weights.abs().tolist(), strict=True):
            around[i] += w
            around[j] += w
        wanted = torch.zeros(batch, dtype=torch.bool)
        for group in groups:
            inside = torch.zeros(n, dtype=torch.bool)
            inside[group] = True
            border = weights.abs()[inside[edges].sum(1) == 1].sum()
            wanted |= omega[inside].sum().abs() > border + hold[:, inside].sum(1)
        assert torch.equal(cannot_lock(omega, edges, weights, around, hold), wanted)
        lost += int(wanted.sum())
    assert 20 <= lost <= 80


def test_drifting_examples_leave_the_others_alone() -> None:
    """If this fails, one input that cannot hold the phases stops the relaxation of those that can."""
    system = OscillatorGraph(2, [[0, 1]], 0.1, n_inputs=1, input_weights=[[1.0], [1.0]], detuning=[0.5, 0.5])
    x = torch.tensor([[2.0], [0.1], [0.8]])
    found = relax(system, x)
    assert found.converged.tolist() == [True, False, True]
    assert found.status is Status.NOT_LOCKED
    torch.testing.assert_close(found.state[0][::2].sin(), (0.5 / x[::2]).expand(2, 2), rtol=0, atol=1e-9)


def test_layers_that_cannot_lock_are_refused_at_once() -> None:
    """If this fails, drifting layers iterate until the budget ends; the bound is that of the same network as a
    graph."""
    layers = OscillatorNetwork([2, 3, 2], frequency_spread=1.5, seed=2)
    x = torch.tensor([[0.0, 0.0], [4.0, -3.0], [-2.0, 2.0], [30.0, -9.0]])
    graph = OscillatorGraph.from_network(layers)
    single = graph.frequencies(0).abs() > (
        graph.couplings.strengths()[0] + graph.prepare(x).cache[0].square().sum(0).sqrt()
    )
    lost = layers.phase(layers.prepare(x)).hopeless()[0]
    assert lost.tolist() == single.any(1).tolist()
    assert 0 < int(lost.sum()) < 4
    refused = relax(layers, x[lost], solver="coordinate")
    assert refused.status is Status.NOT_LOCKED
    assert refused.iterations == 1


# -- Ising machine and mirror pairs -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_largest_cuts(seed: int) -> None:
    """The best of 20 starts is the exact maximum cut, found by exhaustive search; else the machine is none."""
    n = 13 + seed
    graph = networkx.gnp_random_graph(n, 0.5, seed=seed)
    networkx.set_edge_attributes(graph, -1.0, "weight")
    system = OscillatorGraph.from_networkx(graph, second_harmonic=1.0)
    found = anneal(system, ramp=[0, 0.3, 0.6, 1.0], starts=20)
    found.equilibrium.require()
    signs = np.array(list(itertools.product([1, -1], repeat=n - 1)))
    signs = np.concatenate([np.ones((len(signs), 1)), signs], 1)
    matrix = networkx.to_numpy_array(graph)
    energies = -0.5 * np.einsum("si,ij,sj->s", signs, matrix, signs, optimize=True)
    assert float(found.energy.min()) == pytest.approx(energies.min(), abs=1e-10)
    mine = found.spins.numpy()
    np.testing.assert_allclose(
        -0.5 * np.einsum("si,ij,sj->s", mine, matrix, mine), found.energy, rtol=0, atol=1e-10
    )
    cut = networkx.cut_size(graph, {i for i in range(n) if found.best[i] > 0}, weight="weight")
    assert -cut == pytest.approx((graph.number_of_edges() - energies.min()) / 2, abs=1e-9)


def test_spins_in_fields() -> None:
    """If this fails, binary phases have another energy than the spins that they stand for."""
    edges, weights = star(8)
    fields = noise(2, 8, seed=2)
    system = OscillatorGraph(8, edges, weights, second_harmonic=0.7, field=fields, n_inputs=2)
    x, spins = noise(5, 2, seed=3), noise(5, 8, seed=4).sign()
    wanted = -(weights * spins[:, edges[:, 0]] * spins[:, edges[:, 1]]).sum(1) - spins @ fields[0]
    wanted = wanted - ((x @ system.couplings.input_weight.detach().T) * spins).sum(1)
    torch.testing.assert_close(ising_energy(system, spins, x), wanted, rtol=0, atol=1e-13)


def reduced(a: torch.Tensor, edges: torch.Tensor, weights: torch.Tensor, h: torch.Tensor, k: float) -> torch.Tensor:
    """-sum J sin a sin b - sum h sin a - K/2 sum cos 2 a."""
    s = a.sin()
    return -(weights * s[:, edges[:, 0]] * s[:, edges[:, 1]]).sum(1) - s @ h - 0.5 * k * (2 * a).cos().sum(1)


def mirrored(a: torch.Tensor, turn: torch.Tensor | float = 0.0) -> State:
    """Pairs at a, the images off by `turn`."""
    return (torch.cat([a, turn - a], 1),)


def test_mirror_pairs_are_bilinear() -> None:
    """If this fails, four edges a coupling do not make J sin a sin b, or the force on a pair is another."""
    n, k = 6, 0.7
    edges, weights = star(n)
    h = noise(n, seed=3)
    system = mirror_pairs(n, edges, weights, h, k)
    a = (3 * noise(5, n, seed=4)).requires_grad_()
    with torch.enable_grad():
        energy = reduced(a, edges, weights, h, k)
        force = -torch.autograd.grad(energy.sum(), a)[0]
    x, a = nothing(5), a.detach()
    torch.testing.assert_close(system.energy(mirrored(a), x).detach(), energy.detach(), rtol=0, atol=1e-12)
    found = system.phase(system.prepare(x)).force(mirrored(a))[0]
    torch.testing.assert_close(found[:, :n] - found[:, n:], force, rtol=0, atol=1e-12)
    torch.testing.assert_close(found[:, :n], -found[:, n:], rtol=0, atol=1e-12)
    # Across the mirror: pairs turned as a whole by e.
    s, matrix = a.sin(), torch.zeros(n, n)
    matrix[edges[:, 0], edges[:, 1]] = weights
    matrix = matrix + matrix.T
    own = s * (s @ matrix + h) + 2 * k * (2 * a).cos()
    e = noise(5, n, seed=5)
    bent = system.phase(system.prepare(x)).hessian(mirrored(a))((torch.cat([e, e], 1),))[0]
    wanted = own * e - s * ((s * e) @ matrix)
    torch.testing.assert_close(bent[:, :n] + bent[:, n:], wanted, rtol=0, atol=1e-12)


def test_a_mirror_pair_is_a_clip() -> None:
    """m + r sin a settles at the drive clipped to [m - r, m + r]; at a bound it never moves: start inside."""
    middle, reach = 0.2, 0.8
    drive = torch.tensor([-1.7, -0.9, -0.3, 0.2, 0.95, 1.4])
    system = mirror_pairs(6, np.zeros((0, 2), int), 1.0, reach * (drive - middle), reach**2 / 2)
    start = mirrored(torch.full((1, 6), 0.1))
    found = relax(system, nothing(), start=start, tolerance=1e-12).require()
    clipped = drive.clamp(middle - reach, middle + reach)
    torch.testing.assert_close(middle + reach * found.state[0][0, :6].sin(), clipped, rtol=0, atol=1e-11)
    bound = mirrored(torch.full((1, 6), math.pi / 2))
    assert relax(system, nothing(), start=bound, solver="coordinate").iterations == 1
    course = simulate(system, nothing(), 5.0, start=bound)
    assert float((course.state[0][-1] - bound[0]).abs().max()) <= 1e-12


def test_small_asymmetries_of_mirror_pairs_decay() -> None:
    """0.01 rad decays where injection outweighs couplings, 1 rad mostly does not; else pairs need be imposed."""
    n, batch = 8, 40
    edges = torch.triu_indices(n, n, 1).t()
    weights = 0.1 / math.sqrt(n) * noise(len(edges))
    system = mirror_pairs(n, edges, weights, 0.3 * noise(n, seed=1), 0.5)
    a = 0.5 * noise(batch, n, seed=2)
    rule: dict[str, Any] = {"solver": "coordinate", "tolerance": 1e-8, "max_iterations": 20000}
    wanted = relax(system, nothing(batch), start=mirrored(a), **rule).require().state[0].sin()
    astray = []
    for turn in (0.01, 1.0):
        start = mirrored(a, turn * noise(batch, n, seed=3).sign())
        found = relax(system, nothing(batch), start=start, **rule).require().state[0].sin()
        astray.append(int(((found - wanted).abs().amax(1) > 1e-4).sum()))
    assert astray[0] == 0
    assert astray[1] >= 10


# -- bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: OscillatorGraph(2, [[0, 1]]), "ground must be 'pin' .* or 'quotient'"),
        (lambda: OscillatorGraph(2, [[0, 1]], ground="rotate"), "ground"),
        (lambda: OscillatorGraph(2, [[0, 1]], field=1.0, ground="pin"), "ground must be None"),
        (lambda: OscillatorGraph(4, [[0, 1], [2, 3]], ground="pin"), "2 parts"),
        (lambda: OscillatorGraph(2, [[0, 2]], field=1.0), r"edges must join .* \[0, 2\]"),
        (lambda: OscillatorGraph(2, [[1, 1]], field=1.0), r"edges must join .* \[1, 1\]"),
        (lambda: OscillatorGraph(3, [[1, 2], [2, 1]], field=1.0), r"once, but was twice \[1, 2\]"),
        (lambda: OscillatorGraph(2, [[0.0, 1.0]], field=1.0), "integers"),
        (lambda: OscillatorGraph(2, [[0, 1]], [1.0, 2.0], field=1.0), r"weights .* \(1,\)"),
        (lambda: OscillatorGraph(2, [[0, 1]], float("nan"), field=1.0), "weights must be finite"),
        (lambda: OscillatorGraph(2, [[0, 1]], pins={2: 0.0}), "pins must name oscillators from 0 to 1"),
        (lambda: OscillatorGraph(2, [[0, 1]], pins={0: 0.0, 1: 1.0}), "pins must map some"),
        (lambda: OscillatorGraph(2, [[0, 1]], pins={0: 0.0}, outputs=[0]), "outputs must leave out"),
        (lambda: OscillatorGraph(2, [[0, 1]], ground="quotient", outputs=[0, 1]), "outputs must leave out"),
        (lambda: OscillatorGraph(2, [[0, 1]], field=1.0, detuning=[1.0]), "detuning"),
        (lambda: OscillatorGraph(2, [[0, 1], [1]], field=1.0), "edges must be integers"),
        (lambda: OscillatorGraph(2, [[0, 1]], pins=[0]), "pins must map oscillators"),
        (lambda: OscillatorGraph(2, [[0, 1]], pins={0: "up"}), "pins must map some .* finite phases"),
        (lambda: OscillatorGraph(2, [[0, 1]], field=1.0, outputs=1), "outputs must be a sequence"),
        (lambda: OscillatorGraph(2, [[0, 1]], n_inputs=1, gain="1"), "gain must be a finite number"),
        (lambda: OscillatorGraph(1, [], ground="pin"), "n must be at least 2"),
        (lambda: OscillatorGraph.lattice((3, 0), field=1.0), "shape"),
        (lambda: OscillatorGraph.lattice(3.0, field=1.0), "shape"),
        (lambda: OscillatorGraph.all_to_all(2, 3, 4), "n_outputs"),
        (lambda: OscillatorGraph.from_networkx(networkx.DiGraph()), "undirected"),
        (lambda: relax(OscillatorGraph.all_to_all(2, 3, 1), torch.full((1, 2), math.nan)), "x must be finite"),
        (lambda: anneal(OscillatorGraph.lattice(4, second_harmonic=1.0), starts=0), "starts"),
        (lambda: anneal(OscillatorGraph.lattice(4, ground="pin")), "ramp must end in a positive injection"),
        (lambda: anneal(OscillatorGraph.lattice(4, second_harmonic=1.0), ramp="up"), "ramp must be finite"),
        (
            lambda: anneal(OscillatorGraph.all_to_all(2, 3, 1, second_harmonic=1.0), torch.zeros(2, 2)),
            "one example",
        ),
    ],
)
def test_bad_input_is_refused(build: Any, message: str) -> None:
    """If this fails, a graph that was not meant is simulated."""
    with pytest.raises(InputError, match=message):
        build()
