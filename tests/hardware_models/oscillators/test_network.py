"""Layers of phase oscillators against closed forms, sums over edges, autograd and implicit gradients."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from hardware_models import (
    FitzHughNagumoChain,
    HopfieldNetwork,
    OscillatorGraph,
    OscillatorNetwork,
)
from hardware_models.oscillators.network import ising_oscillator
from physics_ep import (
    CrossEntropy,
    EquilibriumPropagation,
    LogPhaseError,
    NotConverged,
    Nudge,
    PhaseError,
    SquaredError,
    Status,
    positive,
    relax,
    simulate,
)
from physics_ep.blocks import State
from physics_ep.config import load_config
from physics_ep.cost import Cost
from physics_ep.data.datasets import load_dataset
from physics_ep.errors import InputError
from physics_ep.estimators.propagation import estimate_gradient
from physics_ep.landscape.branches import smallest_curvature
from physics_ep.system import Phase
from tests.support.tiers import first
from validation import check_system, implicit_gradient
from validation.gradients import total_error

KINDS: dict[str, dict[str, object]] = {
    "plain": {},
    "injected": {"second_harmonic": 0.2},
    "injected across": {"second_harmonic": -0.2},
    "detuned": {"frequency_spread": 0.05},
    "sine of phases": {"readout": "sin", "encoding": "phase", "span": 1.5},
    "all at once": {"second_harmonic": 0.15, "frequency_spread": 0.05, "readout": "sin"},
}


def network(sizes: tuple[int, ...] = (12, 9, 7, 5), **options: object) -> OscillatorNetwork:
    """A float64 network with local fields that are not all alike."""
    system = OscillatorNetwork(list(sizes), gain=0.5, **options).double()  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for layer in system.couplings.layers:
            layer.field.add_(0.1 * torch.randn(layer.field.shape, generator=generator, dtype=torch.float64))
    return system


def data(n_in: int = 12, n_out: int = 5, batch: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.rand(batch, n_in, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    return x, torch.eye(n_out, dtype=torch.float64)[torch.arange(batch) % n_out]


def draw(shapes: State, size: float, seed: int) -> State:
    generator = torch.Generator().manual_seed(seed)
    return tuple(size * torch.randn(s.shape, generator=generator, dtype=torch.float64) for s in shapes)


def single(field: float = 1.0, **options: object) -> OscillatorNetwork:
    """One oscillator, driven in phase by its input with unit coupling, held in quadrature."""
    system = OscillatorNetwork([1, 1], **options).double()  # type: ignore[arg-type]
    with torch.no_grad():
        system.couplings.layers[0].weight.fill_(1.0)
        system.couplings.layers[0].field[1] = field
    return system


# -- closed forms -----------------------------------------------------------------------------------------------


def test_energy_is_the_sum_over_edges_fields_injection_and_detuning() -> None:
    """Breaks if a coupling is counted twice or not at all, or a local term has the wrong sign or factor."""
    system = network(second_harmonic=0.3, frequency_spread=0.2, encoding="phase", span=1.1)
    x, _ = data(batch=2)
    state = draw(system.initial_state(x), 2.0, 5)
    layers = system.couplings.layers
    for b in range(2):
        phases = [1.1 * x[b].numpy(), *(s[b].numpy() for s in state)]
        total = 0.0
        found = float(system.energy(state, x)[b].detach())
        for k, layer in enumerate(layers):
            w, field = layer.weight.detach().numpy(), layer.field.detach().numpy()
            for i, j in itertools.product(range(w.shape[0]), range(w.shape[1])):
                total -= w[i, j] * math.cos(phases[k + 1][i] - phases[k][j])
            for i, phi in enumerate(phases[k + 1]):
                h, psi = math.hypot(*field[:, i]), math.atan2(field[1, i], field[0, i])
                total -= h * math.cos(phi - psi) + 0.15 * math.cos(2 * phi)
                total -= float(system.frequencies(k)[i]) * phi
        assert found == pytest.approx(total, rel=1e-13)


def test_a_driven_oscillator_is_a_soft_sign() -> None:
    """Breaks if an oscillator does not turn to its field: cos phi = a / |(a, q)|, energy -|(a, q)|."""
    x = torch.tensor([[-3.0], [0.0], [0.5], [40.0]], dtype=torch.float64)
    for q in (0.3, 2.0):
        system = single(q)
        free = relax(system, x).require()
        size = (x.square() + q * q).sqrt()
        torch.testing.assert_close(system.outputs(free.state), x / size, rtol=0, atol=1e-12)
        torch.testing.assert_close(system.energy(free.state, x), -size[:, 0], rtol=1e-13, atol=0)


def test_adler_locking() -> None:
    """Breaks if detuning has the wrong sign, or an oscillator that cannot lock is reported as if it did.

    Adler 1946: an oscillator in a field R locks at the angle arcsin(omega / R) from it if |omega| < R; beyond, its
    phase drifts at the mean rate sqrt(omega^2 - R^2).
    """
    x = torch.full((1, 1), 0.6, dtype=torch.float64)
    field = math.hypot(0.6, 0.8)
    for omega in (-0.9, 0.4, 0.99):
        system = single(0.8, frequency_spread=1.0)
        system.detuning_0 = torch.tensor([omega], dtype=torch.float64)
        free = relax(system, x).require()
        locked = math.atan2(0.8, 0.6) + math.asin(omega / field)
        assert float(free.state[0]) == pytest.approx(locked, abs=1e-9)
    system.detuning_0 = torch.tensor([1.25], dtype=torch.float64)
    lost = relax(system, x)
    assert lost.status is Status.NOT_LOCKED
    assert not bool(lost.converged)
    period = 2 * math.pi / math.sqrt(1.25**2 - field**2)
    course = simulate(system, x, 4 * period, steps=2000, every=2000)
    turned = float(course.state[0][-1] - course.state[0][0])
    assert turned == pytest.approx(4 * 2 * math.pi, rel=1e-8)


def test_a_far_start_is_no_drift() -> None:
    """Breaks if turns that a start has made already count as drift of a network that had no time to settle."""
    system = network((12, 9, 5), frequency_spread=0.05)
    x, _ = data()
    start = tuple(s + 20 * math.pi for s in system.initial_state(x))
    assert relax(system, x, start=start, max_iterations=2, tolerance=1e-12).status is Status.BUDGET
    assert relax(system, x, start=start).status is Status.CONVERGED


def test_injection_makes_spins_beyond_half_the_quadrature_field() -> None:
    """Breaks if second-harmonic injection has the wrong sign or factor.

    E = -q sin phi - K/2 cos 2 phi: pi/2 is stable while K < q/2, with curvature q - 2 K; beyond, sin phi = q / 2K.
    """
    x = torch.zeros(1, 1, dtype=torch.float64)
    for injection in (0.1, 0.45, 0.7, 2.0):
        system = single(1.0, second_harmonic=injection)
        neutral = system.initial_state(x)
        phase = system.phase(system.prepare(x))
        one = (torch.ones(1, 1, dtype=torch.float64),)
        assert float(phase.hessian_product(neutral, one)[0]) == pytest.approx(1 - 2 * injection, abs=1e-12)
        nearby = relax(system, x, start=(neutral[0] - 0.01,)).require()
        sine = 1.0 if injection < 0.5 else 1 / (2 * injection)
        assert float(nearby.state[0].sin()) == pytest.approx(sine, abs=1e-8)


def test_injection_holds_what_fields_alone_do_not() -> None:
    """Breaks if what locks to the injection is refused: 0.8 cos phi - 0.8 sin 2 phi reaches below -1."""
    system = single(0.8, second_harmonic=0.8, frequency_spread=1.0)
    system.detuning_0 = torch.tensor([1.0], dtype=torch.float64)
    x = torch.zeros(1, 1, dtype=torch.float64)
    found = relax(system, x, start=(torch.full((1, 1), 1.15 * math.pi, dtype=torch.float64),)).require()
    phi = float(found.state[0])
    assert 1 + 0.8 * math.cos(phi) - 0.8 * math.sin(2 * phi) == pytest.approx(0, abs=1e-9)


def test_couplings_start_within_their_bound() -> None:
    """Breaks if the drive of an oscillator grows with the number of those below."""
    for layer, n in zip(OscillatorNetwork([100, 400, 50], gain=0.7).couplings.layers, (100, 400), strict=True):
        assert float(layer.weight.detach().abs().max()) == pytest.approx(0.7 / math.sqrt(n), rel=1e-2)


@pytest.mark.parametrize(("cost", "kind"), [(SquaredError(), "one-hot"), (CrossEntropy(), "classes")])
def test_the_limit_for_any_target_is_the_lowest(cost: Cost, kind: str) -> None:
    """Breaks if beta='auto' is set by targets that happen to be met: another batch would lose its minima."""
    system = network((12, 9, 5))
    x, _ = data()
    free = relax(system, x).require()
    base = system.phase(system.prepare(x), free.state, True)
    every = [torch.full((len(x),), k) for k in range(5)]
    limits = [base.curvature_limit(cost, targets(kind, torch.eye(5, dtype=torch.float64)[k]), False) for k in every]
    for k in every:
        y = targets(kind, torch.eye(5, dtype=torch.float64)[k])
        assert base.curvature_limit(cost, y, True) >= base.curvature_limit(cost, y, False)
    assert max(limits) > min(limits)


# -- forces, curvature, sweeps ----------------------------------------------------------------------------------


COSTS: list[tuple[Cost, str, str]] = [
    (SquaredError(), "cos", "one-hot"),
    (SquaredError(), "sin", "one-hot"),
    (CrossEntropy(), "cos", "classes"),
    (PhaseError(), "phase", "phases"),
    (LogPhaseError(), "phase", "phases"),
]


def targets(kind: str, y: torch.Tensor) -> torch.Tensor:
    return {"one-hot": y, "classes": y.argmax(1), "phases": 0.7 * math.pi * (1 - y)}[kind]


@pytest.mark.parametrize(("cost", "readout", "kind"), COSTS, ids=lambda v: getattr(v, "name", v))
def test_force_and_hessian_against_autograd(cost: Cost, readout: str, kind: str) -> None:
    """Breaks if a force by differences, the nudge's chain rule or the closed-form Hessian is wrong."""
    system = network(second_harmonic=0.2, frequency_spread=0.1, readout=readout)
    x, y = data()
    free = relax(system, x).require()
    nudge = Nudge(cost, targets(kind, y), 0.4)
    d, v = draw(free.state, 0.3, 6), draw(free.state, 1.0, 7)
    for balanced in (False, True):
        phase = system.phase(system.prepare(x), free.state, balanced).nudged(nudge)
        with torch.enable_grad():
            state = tuple((s + m).requires_grad_() for s, m in zip(free.state, d, strict=True))
            slope = torch.autograd.grad(
                (system.energy(state, x) + nudge.energy(system.outputs(state))).sum(), state
            )
        for mine, exact, start in zip(phase.force(d), slope, system.force(free.state, x), strict=True):
            torch.testing.assert_close(mine, -exact - start if balanced else -exact, rtol=0, atol=1e-13)
        generic = Phase.hessian_product(phase, d, v)
        for mine, exact in zip(phase.hessian_product(d, v), generic, strict=True):
            torch.testing.assert_close(mine, exact, rtol=0, atol=1e-12)


@pytest.mark.parametrize("graph", [False, True])
def test_balanced_energies_have_the_balanced_force(graph: bool) -> None:
    """Breaks if steps of a nudged phase are judged by an energy that falls along the origin's own force."""
    system: OscillatorNetwork | OscillatorGraph = network(**KINDS["all at once"])
    x, y = data()
    if graph:
        system = OscillatorGraph.from_network(system)
    origin = draw(system.initial_state(x), 0.5, 15)
    base = system.phase(system.prepare(x), origin, True)
    stack = base.stacked([Nudge(SquaredError(), y, 0.2), Nudge(SquaredError(), y, -0.2)])
    assert stack is not None
    z, v = (draw(tuple(torch.cat([s, s]) for s in origin), size, 16 + k) for k, size in enumerate((0.3, 1.0)))
    h = 1e-5
    ends = [stack.energy(tuple(a + sign * h * b for a, b in zip(z, v, strict=True))) for sign in (1, -1)]
    slope = -torch.stack([(f * b).sum(1) for f, b in zip(stack.force(z), v, strict=True)]).sum(0)
    torch.testing.assert_close((ends[0] - ends[1]) / (2 * h), slope, rtol=1e-7, atol=1e-8)


@pytest.mark.full
@pytest.mark.parametrize("beta", [0.3, -0.05, 20.0])
@pytest.mark.parametrize("name", ["plain", "injected", "injected across", "sine of phases", "spins"])
def test_sweeps_never_raise_the_energy(name: str, beta: float) -> None:
    """Breaks if turning to the field with its staying power is no descent: too small, or on the wrong axis."""
    system = network(**{**KINDS, "spins": {"second_harmonic": 2.0}}[name])
    x, y = data()
    start = system.random_state(x, torch.Generator().manual_seed(8))
    free = relax(system, x, start=start, solver="coordinate", tolerance=1e-8, max_iterations=5000, trace=True)
    nudge = Nudge(SquaredError(), y, beta)
    nudged = relax(
        system, x, nudge, free.require().state, solver="coordinate", max_iterations=3000, tolerance=1e-9, trace=True
    )
    for found in (free, nudged):
        assert found.trace is not None
        rise = (found.trace.energy[1:] - found.trace.energy[:-1]).max()
        assert float(rise) <= 1e-12
        # The certificate is the force on the very state that is returned.
        assert float(found.residual.max()) <= 1e-8


@pytest.mark.parametrize("name", KINDS)
def test_the_residual_is_the_force(name: str) -> None:
    """Breaks if a sweep certifies another state than the one it returns."""
    system = network(**KINDS[name])
    x, _ = data()
    for iterations in (1, 3, 10):
        found = relax(system, x, max_iterations=iterations, tolerance=1e-14)
        force = torch.cat(system.force(found.state, x), 1).abs().amax(1)
        torch.testing.assert_close(found.residual, force, rtol=1e-6, atol=1e-13)


@pytest.mark.parametrize("name", ["injected", "detuned"])
def test_layers_that_follow_count_in_the_residual(name: str) -> None:
    """Breaks if a sweep certifies the layers that it carries alone: the others are off until they have followed."""
    system = network(**{**KINDS[name], "second_harmonic": 0.45})
    x, _ = data()
    carried = relax(system, x).require().state
    start = (carried[0], carried[1] + 2.5, carried[2])
    phase = system.phase(system.prepare(x))
    _, state, residual = phase.sweep(phase.interface(start))
    force = [f.abs().amax(1) for f in system.force(state, x)]
    assert bool((force[1] > torch.maximum(force[0], force[2])).any())
    torch.testing.assert_close(residual, torch.stack(force).amax(0), rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("name", ["plain", "injected", "injected across"])
def test_diagonals_are_the_hessians(name: str) -> None:
    """Breaks if linear solves are preconditioned by another curvature: right answers, but late."""
    system = network((4, 3, 2), **KINDS[name])
    x, _ = data(4, 2, 5)
    state = draw(system.initial_state(x), 1.0, 14)
    phase = system.phase(system.prepare(x))
    found = torch.cat(system.curvature_diagonal(state, x) or (), 1)
    for k in range(5):
        unit = torch.zeros(len(x), 5, dtype=torch.float64)
        unit[:, k] = 1
        column = torch.cat(phase.hessian_product(state, tuple(unit.split([3, 2], 1))), 1)[:, k]
        torch.testing.assert_close(found[:, k], column.abs().clamp_min(1e-3), rtol=1e-12, atol=0)


def test_angles_that_differ_by_turns_are_one() -> None:
    """Breaks if a whole turn of a hidden oscillator counts as another equilibrium."""
    system = network((12, 9, 5))
    x, _ = data()
    one = draw(system.initial_state(x), 1.0, 11)
    turns = tuple(2 * math.pi * t.round() for t in draw(one, 2.0, 12))
    moved = tuple(a + 0.2 + t for a, t in zip(one, turns, strict=True))
    for apart in system.difference(moved, one):
        torch.testing.assert_close(apart, torch.full_like(apart, 0.2), rtol=0, atol=1e-13)


def test_solvers_agree() -> None:
    """Breaks if a solver ends elsewhere than the others from the same start."""
    system = network(second_harmonic=0.1)
    x, _ = data()
    found = [
        relax(system, x, solver=solver, max_iterations=20000, tolerance=1e-9).require()
        for solver in ("anderson", "coordinate", "trust_region", "gradient_flow")
    ]
    for other in found[1:]:
        for a, b in zip(other.state, found[0].state, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-7)


# -- learning ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
def test_contract(name: str) -> None:
    """Breaks if energy, force, contrast, relaxation or EP's order disagree with each other."""
    x, y = data()
    check_system(network(**KINDS[name]), x, y)


@pytest.mark.parametrize("name", first(3, KINDS))
def test_centered_is_second_order(name: str) -> None:
    """Breaks if EP of an injected, detuned or plain network is not O(beta^2), or loses digits before 1e-6."""
    system = network(**KINDS[name])
    x, y = data()
    exact = implicit_gradient(system, x, y, SquaredError())
    errors = []
    for beta in (3e-3, 3e-4, 3e-5):
        grads, _ = estimate_gradient(EquilibriumPropagation(SquaredError(), beta=beta), system, x, y)
        errors.append(total_error(grads, exact))
    orders = [math.log10(a / b) for a, b in itertools.pairwise(errors)]
    assert orders == pytest.approx([2.0, 2.0], abs=0.1)
    assert errors[-1] <= 1e-6


@pytest.mark.full
@pytest.mark.parametrize(("cost", "readout", "kind"), COSTS, ids=lambda v: getattr(v, "name", v))
def test_every_cost_reaches_its_order(cost: Cost, readout: str, kind: str) -> None:
    """Breaks if a cost's gradient, its difference or its fixed-point update is wrong in a nudged phase."""
    system = network(readout=readout)
    x, y = data()
    target = targets(kind, y)
    exact = implicit_gradient(system, x, target, cost)
    scheme = positive() if cost.positive_only else "centered"
    errors = []
    for beta in (1e-3, 1e-4):
        grads, _ = estimate_gradient(EquilibriumPropagation(cost, scheme, beta), system, x, target)
        errors.append(total_error(grads, exact))
    assert math.log10(errors[0] / errors[1]) == pytest.approx(1.0 if cost.positive_only else 2.0, abs=0.1)


@pytest.mark.full
@pytest.mark.parametrize(
    ("gain", "told"), [(2.0, "left the branch of the free state"), (5.0, "no minimum but a saddle")]
)
def test_networks_that_outgrow_their_fields_are_checked(gain: float, told: str) -> None:
    """Breaks if a gradient that is wrong by 4 or 70 times itself passes: couplings decide, not sizes."""
    system = OscillatorNetwork([64, 32, 10], gain=gain).double()
    system.default_solver = "anderson"  # mixed sweeps, which may end in saddles
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(8, 64, generator=generator, dtype=torch.float64)
    y = torch.eye(10, dtype=torch.float64)[torch.arange(8)]
    exact = implicit_gradient(system, x, y, SquaredError())
    unchecked = EquilibriumPropagation(SquaredError(), beta=0.01, branches="ignore")
    assert total_error(estimate_gradient(unchecked, system, x, y)[0], exact) > 3
    with pytest.raises(NotConverged, match=told):
        EquilibriumPropagation(SquaredError(), beta=0.01).backward(system, x, y)


def test_strongly_coupled_networks_end_in_minima() -> None:
    """Breaks if networks that are deep, injected or without fields are left to sweeps, which end in saddles."""
    x = torch.rand(8, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for sizes, injection, field in (
        ([64, 32, 10], 0.25, 1.0),
        ([64, 32, 10], 0.0, 0.0),
        ([64, 32, 32, 10], 0.0, 1.0),
    ):
        system = OscillatorNetwork(sizes, injection, field=field, gain=5.0).double()
        found = relax(system, x).require()
        assert found.solver == "trust_region"
        assert float(smallest_curvature(system, found.state, x).min()) > 0
    assert ising_oscillator([64, 32, 10]).second_harmonic > 0


def test_costs_on_phases_train_classes() -> None:
    """Breaks if targets are not 0 for the class and pi for the others, or phases are read for what they are not.

    Phases at their targets must be classified as their classes, whatever turns they have made.
    """
    labels = torch.tensor([2, 0, 1])
    cost = PhaseError()
    y = cost.encode(labels, 3, torch.float64)
    torch.testing.assert_close(y.cos(), 2 * torch.eye(3, dtype=torch.float64)[labels] - 1, rtol=0, atol=1e-15)
    turns = 2 * math.pi * torch.tensor([[3.0, -2, 0], [0, 1, 5], [-4, 0, 0]], dtype=torch.float64)
    angular = OscillatorNetwork([4, 3], readout="phase").double()
    torch.testing.assert_close(cost(y + turns, y), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-13)
    assert angular.scores(y + turns + 0.3).argmax(1).tolist() == labels.tolist()
    plain = OscillatorNetwork([4, 3]).double()
    assert torch.equal(plain.scores(y), y)
    with pytest.raises(InputError, match=r"cost must not be 'squared_error' for outputs that are angles"):
        EquilibriumPropagation(SquaredError(), beta=0.1).backward(angular, torch.zeros(3, 4).double(), y)
    with pytest.raises(InputError, match=r"y must have the outputs' shape \(3, 3\)"):
        cost.check(y, y[:, :2])
    with pytest.raises(InputError, match="y must be finite"):
        cost.check(y, y * math.nan)


def test_angles_of_several_starts_are_averaged_on_the_circle() -> None:
    """Breaks if the mean of 179 and -179 degrees is 0: a start may have wound the other way round."""
    system = OscillatorNetwork([4, 3], readout="phase").double()
    x, y = data(4, 3, batch=2)
    step = EquilibriumPropagation(PhaseError(), beta=1e-3, starts=8).backward(system, x, y)
    alone = system.outputs(relax(system, x).require().state)  # without hidden oscillators there is one equilibrium
    torch.testing.assert_close(step.outputs.cos(), alone.cos(), rtol=0, atol=1e-9)
    torch.testing.assert_close(step.outputs.sin(), alone.sin(), rtol=0, atol=1e-9)


def test_parameters_that_are_held_get_no_gradient() -> None:
    """Breaks if fields that a user has frozen are trained all the same."""
    system = network((12, 9, 5))
    system.couplings.layers[1].field.requires_grad_(False)
    x, y = data()
    EquilibriumPropagation(SquaredError(), beta=0.01).backward(system, x, y)
    filled = {name for name, p in system.named_parameters() if p.grad is not None}
    assert filled == {"couplings.0.weight", "couplings.0.field", "couplings.1.weight"}
    free = relax(system, x).require().state
    grads = system.contrast(free, draw(free, 0.1, 13), None, x, torch.ones(len(x), dtype=torch.float64))
    assert set(grads) == filled


def test_float32_carries_the_gradient() -> None:
    """Breaks if phases are subtracted from each other: at beta 1e-3 float32 would keep three digits."""
    exact = network()
    x, y = data()
    wide, _ = estimate_gradient(EquilibriumPropagation(SquaredError(), beta=1e-3, tolerance=1e-12), exact, x, y)
    single = network().float()
    narrow, _ = estimate_gradient(EquilibriumPropagation(SquaredError(), beta=1e-3), single, x.float(), y.float())
    assert total_error({n: g.double() for n, g in narrow.items()}, wide) <= 1e-5


def test_phases_nudged_together_and_alone_agree() -> None:
    """Breaks if a constant of the origin is not repeated for each stacked copy."""
    system = network(frequency_spread=0.05)
    x, y = data()
    free = relax(system, x, tolerance=1e-13).require()
    step = EquilibriumPropagation(SquaredError(), beta=0.02, tolerance=1e-12).backward(system, x, y)
    for found, beta in zip(step.equilibria[1:], (0.02, -0.02), strict=True):
        alone = relax(system, x, Nudge(SquaredError(), y, beta), free.state, tolerance=1e-13)
        for a, b in zip(found.displacement or (), alone.displacement or (), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("cost", "readout", "kind"), COSTS, ids=lambda v: getattr(v, "name", v))
def test_stability_limit_is_where_the_hessian_turns_singular(cost: Cost, readout: str, kind: str) -> None:
    """Breaks if the limit of negative nudges leaves out the bending of the readout."""
    system = network((12, 9, 5), readout=readout)
    x, y = data()
    target = targets(kind, y)
    free = relax(system, x).require()
    base = system.phase(system.prepare(x), free.state, True)
    limit = 1 / base.curvature_limit(cost, target, False)
    shapes = [s.shape for s in free.state]
    n = sum(s[1] for s in shapes)

    def lowest(beta: float) -> float:
        """Smallest eigenvalue of the Hessian of E + beta C over the batch."""
        phase = base.nudged(Nudge(OnlyCurvature(cost), target, beta))
        columns = []
        for k in range(n):
            unit = torch.zeros(x.shape[0], n, dtype=torch.float64)
            unit[:, k] = 1
            blocks = tuple(unit.split([s[1] for s in shapes], 1))
            at = tuple(torch.zeros(s, dtype=torch.float64) for s in shapes)
            columns.append(torch.cat(Phase.hessian_product(phase, at, blocks), 1))
        return float(torch.linalg.eigvalsh(torch.stack(columns, 2))[:, 0].min())

    assert lowest(-0.98 * limit) > 0 > lowest(-1.02 * limit)


class OnlyCurvature(Cost):
    """A cost whose negative nudges are not refused, to look at its curvature."""

    def __init__(self, cost: Cost) -> None:
        self.cost = cost

    def __call__(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.cost(outputs, y)


def test_the_logarithmic_cost_at_a_published_nudge() -> None:
    """Breaks if what a certified gradient is worth at beta 0.1 depends on anything but the cost and the scheme.

    A published code trains 784-10 with -log(1 + cos), +beta only, at beta 0.1, where its gradient has a cosine of
    0.50 to the exact one. On fully relaxed phases that estimate has 0.51 on twenty MNIST images (one draw of the
    weights): not relaxation but the cost is at fault, whose slope diverges where a free phase lies opposite to its
    target, so that a nudge of 0.1 carries it round. Centered nudges by 1 - cos have 0.998 there, at the same beta.
    Here on 8x8 digits, with a network of which several phases lie so; others fare better.
    """
    train = load_dataset(load_config("oscillator-digits").data)
    x, labels = train.train_x[:20].double(), train.train_y[:20]
    y = math.pi * (torch.eye(10, dtype=torch.float64)[labels] - 0.5)
    system = OscillatorNetwork([64, 10], readout="phase", encoding="phase", span=1.0, field=0.0).double()
    with torch.no_grad():
        weight = system.couplings.layers[0].weight
        generator = torch.Generator().manual_seed(2)
        weight.copy_(torch.randn(weight.shape, generator=generator, dtype=torch.float64) / math.sqrt(74))
    assert cosine_to_exact(system, x, y, LogPhaseError(), "positive", 0.1) < 0.6
    assert cosine_to_exact(system, x, y, LogPhaseError(), "positive", 1e-6) > 0.999
    assert cosine_to_exact(system, x, y, PhaseError(), "centered", 0.1) > 0.995


def cosine_to_exact(
    system: OscillatorNetwork, x: torch.Tensor, y: torch.Tensor, cost: Cost, scheme: str, beta: float
) -> float:
    exact = implicit_gradient(system, x, y, cost)
    grads, _ = estimate_gradient(EquilibriumPropagation(cost, scheme, beta), system, x, y)
    a, b = (torch.cat([g[n].flatten() for n in exact]) for g in (grads, exact))
    return float(a @ b / (a.norm() * b.norm()))


# -- bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"sizes": [4]}, "sizes"),
        ({"sizes": [4, 0, 2]}, "sizes"),
        ({"second_harmonic": math.nan}, "second_harmonic"),
        ({"frequency_spread": -0.1}, "frequency_spread"),
        ({"gain": "1"}, "gain"),
        ({"readout": "cosine"}, "readout.*cos"),
        ({"encoding": "amplitudes"}, "encoding.*amplitude"),
        ({"weight_bits": 1}, "weight_bits"),
        ({"phase_bits": 2.5}, "phase_bits"),
        ({"seed": 0.5}, "seed"),
    ],
)
def test_bad_options(options: dict[str, object], told: str) -> None:
    """Breaks if a bad option is taken, or the error does not name it."""
    with pytest.raises(InputError, match=told):
        OscillatorNetwork(**{"sizes": [4, 3, 2], **options})  # type: ignore[arg-type]


def test_bad_use() -> None:
    """Breaks if NaN phases, a cost of angles on cosines or a bad negative nudge are let through."""
    system = network((12, 9, 5))
    x, y = data()
    bad = relax(system, x).state
    bad[-1][0, 0] = math.nan
    found = relax(system, x, start=bad)
    assert found.status is Status.NOT_FINITE
    assert found.converged.tolist() == [False, True, True, True, True, True]
    with pytest.raises(InputError, match="x must be finite"):
        relax(system, x * math.nan)
    for other in (system, FitzHughNagumoChain([12, 9, 5]).double(), HopfieldNetwork([12, 9, 5]).double()):
        with pytest.raises(
            InputError, match=r"cost must not be 'phase_error' for \w+, whose outputs are no angles"
        ):
            EquilibriumPropagation(PhaseError(), beta=0.1).backward(other, x, y)
        with pytest.raises(InputError, match="cost must not be 'log_phase_error'"):
            relax(other, x, Nudge(LogPhaseError(), y, 0.1))
        with pytest.raises(InputError, match="cost must not be 'phase_error'"):
            simulate(other, x, 1.0, Nudge(PhaseError(), y, 0.1))
    for scheme in ("centered", "negative", "random"):
        with pytest.raises(InputError, match=r"scheme must be 'positive'.*antipode.*but was '" + scheme):
            EquilibriumPropagation(LogPhaseError(), scheme)
    with pytest.raises(InputError, match=r"beta must not be negative.*antipode.*but was -0\.2\.$"):
        Nudge(LogPhaseError(), y, torch.tensor([0.1, -0.2, 0.3]))
    nudges = {
        "beta must be a number": lambda: Nudge(SquaredError(), y, "0.1"),  # type: ignore[arg-type]
        "beta must be real": lambda: Nudge(SquaredError(), y, 0.1j),
        r"beta must be a number or of shape \(6,\)": lambda: Nudge(SquaredError(), y, torch.tensor([0.1, 0.2])),
        "y must be a tensor": lambda: Nudge(SquaredError(), "y", 0.1),  # type: ignore[arg-type]
    }
    for told, nudge in nudges.items():
        with pytest.raises(InputError, match=told):
            relax(system, x, nudge())
    with pytest.raises(InputError, match="x must hold at least one example"):
        relax(system, x[:0])
    with pytest.raises(InputError, match="start must be finite"):
        simulate(system, x, 1.0, start=bad)


def test_what_drifts_is_told_as_such() -> None:
    """Breaks if layers that escape the bounds on locking seem to need more iterations, or a smaller beta.

    Each oscillator alone is held by its field and the coupling, but both are pulled the same way, where
    the coupling does not help: 0.9 + 0.6 exceeds the fields 0.5 + 0.2.
    """
    system = OscillatorNetwork([1, 1, 1], frequency_spread=1.0).double()
    system.detuning_0 = torch.tensor([0.9], dtype=torch.float64)
    system.detuning_1 = torch.tensor([0.6], dtype=torch.float64)
    with torch.no_grad():
        for layer, field in zip(system.couplings.layers, (0.5, 0.2), strict=True):
            layer.weight.fill_(0.5)
            layer.field[1] = field
    x = torch.zeros(1, 1, dtype=torch.float64)
    assert not bool(system.phase(system.prepare(x)).hopeless()[0])  # type: ignore[index]
    found = relax(system, x, solver="coordinate", max_iterations=2000)
    assert found.status is Status.NOT_LOCKED
    with pytest.raises(NotConverged, match=r"no synchronised state.*Try a smaller detuning"):
        found.require()


@pytest.mark.parametrize("graph", [False, True])
def test_amplitudes_make_no_product_with_zeros(graph):
    """Inputs that are amplitudes lie in phase: fields and gradients are those of phasors whose sines are zeros, at
    half the multiplications."""
    system = OscillatorGraph.all_to_all(7, 6, 2) if graph else OscillatorNetwork([7, 6, 2])
    system = system.double()
    x = torch.rand(5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    phasors = torch.stack([x, torch.zeros_like(x)])
    assert system.inputs(x).shape == (1, 5, 7)
    with torch.no_grad():
        fields = zip(system.couplings.clamped(system.inputs(x)), system.couplings.clamped(phasors), strict=True)
        z = [torch.randn(2, 5, n, generator=torch.Generator().manual_seed(n)).double() for n in system.sizes[1:]]
        short, long = (system.couplings.contrast(z, z, inputs) for inputs in (system.inputs(x), phasors))
        energies = [system.couplings.energy(z, inputs) for inputs in (system.inputs(x), phasors)]
    for found, full in [*fields, *((short[name], g) for name, g in long.items()), energies]:
        torch.testing.assert_close(found, full, rtol=1e-14, atol=1e-14)
