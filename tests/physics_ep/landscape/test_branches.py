"""Branches of equilibria: if these fail, EP contrasts states that have nothing to do with each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from physics_ep import (
    CrossEntropy,
    EquilibriumPropagation,
    NotConverged,
    Nudge,
    SquaredError,
    Status,
    relax,
    train,
)
from physics_ep.blocks import flat
from physics_ep.equilibrium import OtherBranch
from physics_ep.errors import InputError
from physics_ep.estimators.propagation import UnconvergedWarning, estimate_gradient
from physics_ep.landscape.branches import check_branches, follow, is_minimum, smallest_curvature
from physics_ep.landscape.exploration import explore, relax_from_many
from physics_ep.landscape.stability import curvature_limit
from physics_ep.relaxation.krylov import lowest_value, orthonormal
from tests.support.multistable import WIDE, DoubleWells, Ring, cusp_fold
from tests.support.systems import Quartic, batch, hessian, network
from validation import implicit_gradient


def cusps(count: int = 60) -> tuple[DoubleWells, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Wells that start on the right and are pulled to y = -2: system, x, y, and the beta of each fold."""
    system = DoubleWells()
    x = torch.linspace(-0.36, 0.8, count, dtype=WIDE)[:, None]
    y = torch.full_like(x, -2.0)
    folds = torch.tensor([cusp_fold(float(f), -2.0) for f in x], dtype=WIDE)
    return system, x, y, folds


# -- curvature -------------------------------------------------------------------------------------------


def test_smallest_curvature_of_windings() -> None:
    """A ring that winds q times: cos(2 pi q / N) 2 (1 - cos(2 pi / N)) beside the rotation, which has none."""
    for n in (12, 80):  # all of the Hessian; Lanczos
        system = Ring(n)
        q = torch.tensor([0, 1, 2, -2], dtype=WIDE)
        state = (2 * math.pi * q[:, None] * torch.arange(n, dtype=WIDE) / n + 0.3,)
        x = torch.zeros(4, 1, dtype=WIDE)
        exact = torch.cos(2 * math.pi * q / n) * 2 * (1 - math.cos(2 * math.pi / n))
        assert float((smallest_curvature(system, state, x) - exact).abs().max()) < 1e-9
        # The rotation itself, and the other end of the spectrum where neighbours are opposed.
        assert float(smallest_curvature(system, state, x, modulo=()).abs().max()) < 1e-9
        alternating = (math.pi * (torch.arange(n, dtype=WIDE) % 2).expand(1, n),)
        assert float(smallest_curvature(system, alternating, x[:1])) == pytest.approx(-4, abs=1e-7)


def test_smallest_curvature_of_networks_and_nudged_phases() -> None:
    """Against autograd's dense Hessian; relative to the diagonal, the sign is the same."""
    system = network("tanh", (6, 20, 20, 20, 4), gain=1.0)
    x, y = batch(6, 4, 4)
    free = relax(system, x, solver="trust_region").require()
    dense = torch.linalg.eigvalsh(hessian(system, free.state, x))
    found = smallest_curvature(system, free.state, x)
    assert float((found - dense[:, 0]).abs().max()) < 1e-7 * float(dense.max())
    scale = flat(system.curvature_diagonal(free.state, x)).rsqrt()
    scaled = scale[:, :, None] * hessian(system, free.state, x) * scale[:, None]
    relative = smallest_curvature(system, free.state, x, relative=True)
    assert float((relative - torch.linalg.eigvalsh(scaled)[:, 0]).abs().max()) < 1e-7
    phase = system.phase(system.prepare(x), origin=free.state, balanced=True)
    assert bool(is_minimum(phase, phase.start())[0].all())
    nudge = Nudge(SquaredError(), y, -0.3)
    nudged = torch.linalg.eigvalsh(hessian(system, free.state, x, nudge))[:, 0]
    assert float((smallest_curvature(phase.nudged(nudge), phase.start()) - nudged).abs().max()) < 1e-7


def test_lanczos_against_dense_eigenvalues() -> None:
    """Repeated values, exhausted spaces of single examples, and directions left out."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(4, 60, 60, generator=generator, dtype=WIDE)
    a = a + a.mT
    a[1] = torch.diag(torch.tensor([2.0, 3.0, 5.0], dtype=WIDE).repeat(20))
    a[2] = torch.eye(60, dtype=WIDE)
    start = torch.randn(4, 60, generator=generator, dtype=WIDE)

    def product(v: torch.Tensor) -> torch.Tensor:
        return (a @ v[:, :, None])[:, :, 0]

    found, width, _ = lowest_value(product, start)
    values = torch.linalg.eigvalsh(a)
    assert float((found - values[:, 0]).abs().max()) < 1e-7
    assert bool((width <= values.abs().amax(1) * (1 + 1e-12)).all())
    out = orthonormal(torch.randn(4, 2, 60, generator=generator, dtype=WIDE))
    away = torch.eye(60, dtype=WIDE) - out.mT @ out
    exact = torch.linalg.eigvalsh(away @ a @ away + 1e3 * out.mT @ out)[:, 0]
    assert float((lowest_value(product, start, without=out)[0] - exact).abs().max()) < 1e-7


# -- branches --------------------------------------------------------------------------------------------


def test_branch_ends_at_the_fold() -> None:
    """The cusp's folds in closed form: the branch is followed to them from below, and no further."""
    system, x, y, folds = cusps()
    free = relax(system, x, tolerance=1e-13).require()
    base = system.phase(system.prepare(x), origin=free.state, balanced=True)
    for beta in (0.5, 3.0):  # from beta = 1 on, F is convex again, and Newton's method converges from anywhere
        reached, _, _ = follow(base, Nudge(SquaredError(), y, beta), shortest=1e-4)
        gap = folds - beta * reached
        assert bool((gap > -1e-9).all())
        assert float(gap.max()) < 4e-4 * beta
    # Before the folds it is followed to its end, where F has its minimum on the right.
    late = folds > 0.21
    base = system.phase(system.prepare(x[late]), origin=(free.state[0][late],), balanced=True)
    reached, moved, _ = follow(base, Nudge(SquaredError(), y[late], 0.2), tolerance=1e-9)
    assert bool((reached == 1).all())
    end = free.state[0][late] + moved
    assert float((end**3 - end - x[late] + 0.2 * (end - y[late])).abs().max()) < 1e-9
    assert bool((end > 0).all())


def test_branches_stay_within_bounds() -> None:
    """Newton steps that lead units beyond +-1, where the energy is not defined, are not part of a branch."""
    system = network("tanh", (6, 10, 10, 10, 3), gain=1.2)
    x, y = batch(6, 3, 40)
    free = relax(system, x, solver="trust_region", tolerance=1e-12).require()
    base = system.phase(system.prepare(x), origin=free.state, balanced=True)
    _, moved, _ = follow(base, Nudge(SquaredError(), y, -0.6))
    assert float((flat(free.state) + moved)[:, :30].abs().max()) < 1


@pytest.mark.parametrize("beta", [0.003, 0.03, 0.1, 0.2, 0.3, 1.5])
def test_switches_are_found_where_the_fold_lies_before_beta(beta: float) -> None:
    """Neither more nor less, but within 3 % of a fold; the relaxed state says on which side it is."""
    system, x, y, folds = cusps()
    free = relax(system, x, tolerance=1e-13).require()
    nudge = Nudge(SquaredError(), y, beta)
    found = relax(system, x, nudge, free.state, tolerance=1e-12)
    (check,) = check_branches(system, x, free.state, [nudge], [found.displacement])
    sure = (folds / beta - 1).abs() > 0.03
    assert torch.equal(check.switched[sure], (folds < beta)[sure])
    assert not bool(check.switched[(folds > 1.03 * beta)].any())
    assert bool((check.switched <= check.examined).all())


def test_branches_of_a_network_against_an_integrator() -> None:
    """The branch as a differential equation in beta, ds/dbeta = -H^-1 dC/ds, by scipy until H is singular."""
    system = network("tanh", (6, 10, 10, 10, 3), gain=1.6)
    x, y = batch(6, 3, 40)
    x, y = x[:14], y[:14]
    free = relax(system, x, solver="trust_region", tolerance=1e-12).require()
    weights = [layer.weight.detach().numpy() for layer in system.couplings]
    coupling = np.zeros((33, 33))
    for k, w in enumerate(weights[1:]):
        pre, post = slice(10 * k, 10 * k + 10), slice(10 * k + 10, 10 * k + 10 + len(w))
        coupling[post, pre], coupling[pre, post] = w, w.T

    def hessian(s: np.ndarray, beta: float) -> np.ndarray:
        return np.diag(np.concatenate([1 / (1 - s[:30] ** 2), np.full(3, 1 + beta)])) - coupling

    found = []
    for beta in (0.3, -0.1):
        nudge = Nudge(SquaredError(), y, beta)
        moved = relax(system, x, nudge, free.state, solver="trust_region", tolerance=1e-12).require()
        (check,) = check_branches(system, x, free.state, [nudge], [moved.displacement])
        for s, target, d, switched in zip(
            flat(free.state).numpy(),
            y.numpy(),
            flat(moved.displacement).numpy(),
            check.switched.tolist(),
            strict=True,
        ):

            def motion(t: float, s: np.ndarray, target=target, beta=beta) -> np.ndarray:
                pull = np.concatenate([np.zeros(30), beta * (s[30:] - target)])
                return -np.linalg.solve(hessian(s, beta * t), pull)

            def soft(t: float, s: np.ndarray, beta=beta) -> float:
                return float(np.linalg.eigvalsh(hessian(s, beta * t))[0]) - 1e-4

            soft.terminal = True
            path = solve_ivp(motion, (0, 1), s, rtol=1e-7, atol=1e-9, events=soft)
            ended = path.status != 0
            found.append(switched)
            assert switched == (ended or abs(path.y[:, -1] - s - d).max() > 1e-4)
    assert 1 <= sum(found) <= 14


def test_another_equilibrium_is_no_continuation() -> None:
    """A jump although the branch goes on, as noise would make it: one shallow well among 400 deep ones will do."""
    system = DoubleWells(400)
    with torch.no_grad():
        system.a[7] = 0.01
    x = torch.zeros(3, 400, dtype=WIDE)
    free = relax(system, x, start=(system.a.detach().sqrt().expand_as(x),)).require()
    y = torch.full_like(x, 20.0)
    y[:, 7] = 0
    nudge = Nudge(SquaredError(), y, 0.005)
    (d,) = relax(system, x, nudge, free.state, tolerance=1e-13).require().displacement
    other = d.clone()
    other[1, 7] = -2 * free.state[0][1, 7] - d[1, 7]  # its part of F is even: -s is stationary too
    assert float((other - d)[1].norm()) < 0.25 * float(d[1].norm())
    right, wrong = check_branches(system, x, free.state, [nudge, nudge], [(d,), (other,)])
    assert right.switched.tolist() == [False] * 3
    assert wrong.switched.tolist() == [False, True, False]
    assert wrong.reached.tolist() == [1, 1, 1]


def test_symmetric_jumps_are_seen() -> None:
    """A triple well whose middle empties to both sides: d+ = -d-, so that their asymmetry is zero."""

    class Triple(DoubleWells):
        def energy(self, state, x):
            (s,) = state
            return (s**6 / 6 - 5 * s**4 / 4 + 2 * s**2).sum(1)  # minima at -2, 0, 2

    system = Triple()
    x = torch.zeros(1, 1, dtype=WIDE)
    origin = (torch.zeros(1, 1, dtype=WIDE),)
    y = torch.full((1, 1), 40.0, dtype=WIDE)
    nudges = [Nudge(SquaredError(), y, b) for b in (0.06, -0.06)]  # the middle holds up to a force of 1.7
    ends = [relax(system, x, n, origin, tolerance=1e-13).require().displacement for n in nudges]
    assert float(ends[0][0]) > 1.5
    assert float(ends[1][0]) < -1.5
    for check in check_branches(system, x, origin, nudges, ends):
        assert check.switched.tolist() == [True]


class Convex(Quartic):
    """Every curvature is at least 1: nudged by the squared error, F is convex for all beta > -1."""

    def energy(self, state, x):
        (v,) = state
        local = 0.5 * v**2 + 0.05 * v**4 - v * (x @ self.u.t())
        return local.sum(1) + 2 * torch.nn.functional.softplus(4 * v @ self.w).sum(1)


@pytest.mark.parametrize("kind", ["convex", "weak", "strong"])
@pytest.mark.full
def test_no_false_alarms_without_folds(kind: str) -> None:
    """One equilibrium only: no nudge up to 0.95 of the stability limit may be called a switch, whatever bends."""
    if kind == "convex":
        system, (x, y) = Convex(), batch(4, 2, 12)
    else:
        system, (x, y) = network("tanh", (6, 9, 7, 4), gain=0.4 if kind == "weak" else 0.6), batch(6, 4, 12)
    free = relax(system, x, solver="trust_region", tolerance=1e-12).require()
    base = system.phase(system.prepare(x), origin=free.state, balanced=True)
    limit = 1.0 if kind == "convex" else 1 / curvature_limit(system, base, free, SquaredError(), y)
    for share in (1e-3, 0.1, 0.5, 0.95):
        nudges = [Nudge(SquaredError(), y, sign * share * limit) for sign in (1, -1)]
        ends = [relax(system, x, n, free.state, solver="trust_region").require().displacement for n in nudges]
        for check in check_branches(system, x, free.state, nudges, ends):
            assert not bool(check.switched.any())
    labels = torch.arange(12) % y.shape[1]
    nudge = Nudge(CrossEntropy(), labels, 2.0)
    end = relax(system, x, nudge, free.state, solver="trust_region").require().displacement
    assert not bool(check_branches(system, x, free.state, [nudge], [end])[0].switched.any())


# -- in the estimator ------------------------------------------------------------------------------------


@pytest.mark.full
def test_switched_examples_are_refused_left_out_or_warned_of() -> None:
    """The gradient of those that are left is theirs alone, against implicit differentiation."""
    system, x, y, folds = cusps(16)
    beta = float(folds.median())
    left = folds < beta
    near = (folds / beta - 1).abs() < 0.03
    x, y, left = x[~near], y[~near], left[~near]
    with pytest.raises(
        OtherBranch, match=rf"phase nudged by \+.* has {int(left.sum())} of {len(x)} states"
    ) as caught:
        EquilibriumPropagation(SquaredError(), beta=beta).backward(system, x, y)
    assert isinstance(caught.value, NotConverged)
    assert torch.equal(caught.value.rows, left)
    ep = EquilibriumPropagation(SquaredError(), beta=beta, on_unconverged="skip")
    grads, step = estimate_gradient(ep, system, x, y)
    assert step.skipped == step.switched == int(left.sum())
    assert torch.equal(step.used, ~left)
    assert step.equilibria[1].status is Status.SWITCHED
    alone, _ = estimate_gradient(EquilibriumPropagation(SquaredError(), beta=beta), system, x[~left], y[~left])
    assert torch.allclose(grads["a"], alone["a"], rtol=1e-12)
    assert float(step.loss) == pytest.approx(float(SquaredError()(step.outputs, y)[~left].mean()), rel=1e-12)
    with pytest.warns(UnconvergedWarning, match="left the branch"):
        EquilibriumPropagation(SquaredError(), beta=beta, on_unconverged="warn").backward(system, x, y)
    silent = EquilibriumPropagation(SquaredError(), beta=beta, branches="ignore").backward(system, x, y)
    assert silent.switched == 0
    small = EquilibriumPropagation(SquaredError(), beta=1e-4)
    exact = implicit_gradient(system, x, y, SquaredError())
    grads, step = estimate_gradient(small, system, x, y)
    assert step.switched == 0
    assert torch.allclose(grads["a"], exact["a"], rtol=1e-5)


def test_what_a_switch_does_to_the_gradient() -> None:
    """One example of 61 in another well spoils the batch's gradient; without it, it is right to order beta^2."""
    system, x, y, _ = cusps(120)
    x = torch.cat([torch.full((1, 1), -0.384, dtype=WIDE), x[60:]])
    y = y[:61]
    assert cusp_fold(-0.384, -2) < 2e-3 < cusp_fold(float(x[1]), -2)
    ep = EquilibriumPropagation(SquaredError(), beta=2e-3, on_unconverged="skip")
    grads, step = estimate_gradient(ep, system, x, y)
    assert step.switched == 1
    rest = implicit_gradient(system, x[1:], y[1:], SquaredError())["a"]
    assert float((grads["a"] / rest - 1).abs()) < 1e-4
    blind = EquilibriumPropagation(SquaredError(), "positive", beta=2e-3, branches="ignore")
    grads, _ = estimate_gradient(blind, system, x, y)
    assert float((grads["a"] / rest - 1).abs()) > 1


def test_saddles_are_no_free_states() -> None:
    """On a ridge the residual is zero, and EP's estimate is that of a state no system would stay in."""

    class Ridge(DoubleWells):
        def initial_state(self, x):
            return (torch.zeros_like(x),)

    system, x = Ridge(2), torch.zeros(3, 2, dtype=WIDE)
    x[1:] = 0.1
    y = torch.ones_like(x)
    with pytest.raises(OtherBranch, match=r"free phase has 1 of 3 states .* saddle"):
        EquilibriumPropagation(SquaredError(), beta=1e-3).backward(system, x, y)
    step = EquilibriumPropagation(SquaredError(), beta=1e-3, on_unconverged="skip").backward(system, x, y)
    assert (step.unstable, step.switched, step.skipped) == (1, 0, 1)
    assert step.equilibria[0].status is Status.UNSTABLE


def test_random_signs_and_kinks() -> None:
    """Each example has its own sign; where the energy has kinks, the check says that it cannot be made."""
    system, x, y, folds = cusps(16)
    beta = 1.03 * float(folds.max())
    ep = EquilibriumPropagation(SquaredError(), "random", beta=beta, on_unconverged="skip", branches="check")
    step = ep.backward(system, x, y)
    # Pushed to the right, a well on the right stays; pulled to the left, it folds.
    right = flat(step.equilibria[1].displacement)[:, 0] > 0
    assert torch.equal(step.used, right)
    kinked = network("hard_sigmoid", (6, 5, 4))
    x, y = batch(6, 4, 3)
    with pytest.raises(
        InputError, match="branches must not be 'check' for HopfieldNetwork, whose energy has kinks"
    ):
        EquilibriumPropagation(SquaredError(), branches="check").backward(kinked, x, y)
    kinked.multistable = True
    EquilibriumPropagation(SquaredError()).backward(kinked, x, y)
    for option, value in (("branches", "chek"), ("starts", 0), ("starts", 1.5)):
        with pytest.raises(InputError, match=f"Argument {option} must be"):
            EquilibriumPropagation(SquaredError(), **{option: value})


# -- many starts -----------------------------------------------------------------------------------------


def test_gradients_and_outputs_are_means_over_starts() -> None:
    """Wells in closed form: each start contributes -s^2 ds/df (s - y) of the root s where it landed."""
    system = DoubleWells(2)
    x = torch.tensor([[0.1, -0.2], [0.3, 0.0], [0.0, 0.05]], dtype=WIDE)
    y = torch.tensor([[1.0, 1.0], [-1.0, 0.5], [0.0, 0.0]], dtype=WIDE)
    generator = torch.Generator().manual_seed(5)
    ep = EquilibriumPropagation(SquaredError(), beta=1e-4, starts=8, generator=generator)
    grads, step = estimate_gradient(ep, system, x, y)
    s = step.equilibria[0].state[0]
    assert s.shape == (24, 2)
    assert torch.equal(step.used, torch.ones(24, dtype=torch.bool))
    assert float((s**3 - s - x.repeat(8, 1)).abs().max()) < 1e-9
    assert all(len(s[b::3].round().unique(dim=0)) > 1 for b in range(3))
    assert torch.allclose(step.outputs, s.view(8, 3, 2).mean(0), rtol=1e-12)
    miss = s - y.repeat(8, 1)
    assert float(step.loss) == pytest.approx(float(0.5 * miss.square().sum(1).mean()), rel=1e-12)
    # s^3 - a s = x: ds/da = s / (3 s^2 - a).
    exact = (miss * s / (3 * s**2 - 1)).mean(0)
    assert torch.allclose(grads["a"], exact, rtol=1e-6)
    # A start that finds no equilibrium leaves its example to the others.
    assert step.noise_floor < 1e-6


def test_starts_without_equilibrium_leave_their_example_to_the_others() -> None:
    """Every example counts the same, however many of its starts converged."""
    system = DoubleWells(1)
    x = torch.linspace(-0.3, 0.3, 8, dtype=WIDE)[:, None]
    y = torch.ones_like(x)
    options = {"beta": 1e-4, "starts": 6, "solver": "gradient_flow", "on_unconverged": "skip"}
    ep = EquilibriumPropagation(SquaredError(), max_iterations=40, **options)
    grads, step = estimate_gradient(ep, system, x, y)
    used = step.used.view(6, 8)
    assert int((~used).sum()) > 0
    assert bool(used.any(0).any())
    s, kept = step.equilibria[0].state[0].view(6, 8), used.sum(0)
    each = torch.where(used, (s - 1) * s / (3 * s**2 - 1), 0).sum(0) / kept.clamp_min(1)
    assert step.skipped == int((kept == 0).sum())
    assert float(grads["a"]) == pytest.approx(float(each[kept > 0].mean()), rel=1e-5)
    means = torch.where(used, s, 0).sum(0) / kept
    assert torch.allclose(step.outputs[kept > 0, 0], means[kept > 0], rtol=1e-12)


def test_explore_finds_all_wells() -> None:
    """Three wells: eight minima an example, their energies by the roots, shares that sum to one."""
    system = DoubleWells(3)
    x = torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.5, 0.1]], dtype=WIDE)
    even, tilted = explore(system, x, starts=200)
    assert len(even.energy) == 8
    assert torch.allclose(even.energy, torch.full((8,), -0.75, dtype=WIDE), rtol=1e-12)
    assert torch.allclose(even.curvature, torch.full((8,), 2.0, dtype=WIDE), rtol=1e-6)
    assert float(even.share.sum()) == pytest.approx(1)
    assert even.lost == 0
    assert len(tilted.energy) == 2  # fields above the coercive one, 2 / 27^(1/2), leave one well each
    assert float(tilted.energy[0]) < float(tilted.energy[1])
    assert float(tilted.state[0][0, 2]) > 0 > float(tilted.state[0][1, 2])


def test_explore_counts_states_modulo_symmetries() -> None:
    """A ring has one state a winding number, whatever its common phase."""
    system = Ring(9)
    (found,) = explore(system, torch.zeros(1, 1, dtype=WIDE), starts=150)
    q = system.winding(found.state).round()
    assert sorted(q.tolist()) == sorted(set(q.tolist()))
    assert {-1, 0, 1} <= set(q.tolist()) <= {-2, -1, 0, 1, 2}
    assert torch.allclose(found.energy, -9 * torch.cos(2 * math.pi * q / 9), rtol=1e-10)
    assert float(found.energy[0]) == pytest.approx(-9)
    exact = torch.cos(2 * math.pi * q / 9) * 2 * (1 - math.cos(2 * math.pi / 9))
    assert torch.allclose(found.curvature, exact, rtol=1e-6)
    again = relax_from_many(system, torch.zeros(1, 1, dtype=WIDE), 5)
    same = relax_from_many(system, torch.zeros(1, 1, dtype=WIDE), 5)
    assert torch.equal(again.state[0], same.state[0])


@pytest.mark.full
def test_training_reports_switches() -> None:
    """A multistable run at a beta that is too large must not look like a good one."""
    config = {
        "system": {"name": "hopfield", "sizes": [64, 16, 16, 10], "activation": "tanh", "gain": 1.6},
        "data": {"name": "digits", "train_examples": 16, "test_examples": 8},
        "training": {
            "epochs": 1,
            "batch_size": 16,
            "on_unconverged": "skip",
            "max_skipped": 1.0,
            "dtype": "float64",
        },
        "optimizer": {"name": "SGD", "lr": 0.01},
        "ep": {"beta": 0.3, "starts": 2, "branches": "check", "solver": "trust_region", "max_iterations": 3000},
    }
    result = train(config)
    assert result.metrics["switched"][0] > 0
    assert result.metrics["skipped"][0] < 16
    assert math.isfinite(result.test_error)
