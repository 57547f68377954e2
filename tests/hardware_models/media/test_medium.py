"""FitzHugh-Nagumo media against the equations written out in numpy, closed forms, and scipy's own integrators."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import brentq, root

from hardware_models import FitzHughNagumoChain
from hardware_models.media import saddle as saddles
from hardware_models.media import schur as schurs
from hardware_models.media.continuation import branch
from hardware_models.media.pulses import crossing_times, pulse_speed, stimulated, travelling_pulse
from hardware_models.media.recurrence import (
    error_growth,
    growth_bound,
    layers_within,
    multiplier,
    next_layers,
    shoot,
    shooting,
)
from physics_ep import (
    CrossEntropy,
    EquilibriumPropagation,
    NotConverged,
    Nudge,
    SquaredError,
    centered,
    holomorphic,
    relax,
    simulate,
)
from physics_ep.config import load_system
from physics_ep.equilibrium import Status
from physics_ep.errors import InputError
from physics_ep.estimators.propagation import estimate_gradient
from physics_ep.relaxation.loop import solve
from validation import (
    check_system,
    finite_difference_gradient,
    gradient_report,
    implicit_gradient,
)
from validation.gradients import total_error

CHAIN = {"sizes": [5, 12, 3]}
RING = {"sizes": [5, 12, 3], "reaction": "odd", "boundary": "periodic", "tau_v": 0.8}
SHEET = {"sizes": [5, 12, 3], "grid": [3, 4], "driven": [0, 1, 4, 6, 7], "spacing": 0.8}
TORUS = {"sizes": [5, 12, 3], "grid": [3, 4], "boundary": "periodic", "read": [2, 5, 11]}
MEDIA = pytest.mark.parametrize("options", [CHAIN, RING, SHEET, TORUS], ids=["chain", "ring", "sheet", "torus"])


def medium(options: dict) -> FitzHughNagumoChain:
    """A float64 medium with parameters of which no two are alike."""
    system = FitzHughNagumoChain(**options).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, p in system.named_parameters():
            noise = torch.rand(p.shape, generator=generator, dtype=torch.float64)
            p.copy_(0.3 + 0.5 * noise if name.startswith("diffusion") else p + 0.3 * (noise - 0.5))
    return system


def batch(system: FitzHughNagumoChain, size: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(size, system.sizes[0], generator=generator, dtype=torch.float64)
    return x, torch.rand(size, system.sizes[-1], generator=generator, dtype=torch.float64)


def edges(system: FitzHughNagumoChain) -> list[tuple[int, int, float, float]]:
    """Sites that each edge joins and its two diffusion coefficients over h^2, by plain loops."""
    found = []
    shape = system.grid
    for axis in range(len(shape)):
        d_u, d_v = (family[axis].detach().numpy() for family in (system.diffusion_u, system.diffusion_v))
        for place in np.ndindex(*shape):
            neighbour = list(place)
            neighbour[axis] += 1
            if neighbour[axis] == shape[axis]:
                if not system.periodic:
                    continue
                neighbour[axis] = 0
            i, j = (int(np.ravel_multi_index(tuple(p), shape)) for p in (place, neighbour))
            found.append((i, j, d_u[place] / system.spacing**2, d_v[place] / system.spacing**2))
    return found


def reaction(system: FitzHughNagumoChain, u: np.ndarray) -> np.ndarray:
    p = system.control.detach().numpy().ravel()
    return u * (1 - u) * (u - p) if system.reaction == "bistable" else p * u - u**3


def current(system: FitzHughNagumoChain, x: np.ndarray) -> np.ndarray:
    found = system.bias.detach().numpy().ravel().copy()
    found[system.driven] += system.weight.detach().numpy() @ x
    return found


def equations(
    system: FitzHughNagumoChain, u: np.ndarray, v: np.ndarray, x: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """u_t and tau_v v_t of one example, edge by edge."""
    first = reaction(system, u) - v + current(system, x)
    second = u - system.leak * v
    for i, j, d_u, d_v in edges(system):
        first[i] += d_u * (u[j] - u[i])
        first[j] += d_u * (u[i] - u[j])
        second[i] += d_v * (v[j] - v[i])
        second[j] += d_v * (v[i] - v[j])
    return first, second


@MEDIA
def test_stationary_states_solve_the_equations(options):
    """Free and nudged states against scipy's hybrid method on equations written out edge by edge; and the energy.

    Guards the signs, the boundary, the spacing, the places of inputs and outputs, and the nudge.
    """
    system = medium(options)
    x, y = batch(system)
    n = system.sizes[1]
    free = relax(system, x, tolerance=1e-14).require()
    nudged = relax(system, x, Nudge(SquaredError(), y, 0.3), start=free.state, tolerance=1e-14).require()
    cold = relax(system, x, Nudge(SquaredError(), y, 0.3), tolerance=1e-14).require()
    for beta, found in ((0.0, free), (0.3, nudged), (0.3, cold)):
        for k in range(len(x)):

            def missing(s, k=k, beta=beta):
                first, second = equations(system, s[:n], s[n:], x[k].numpy())
                first[system.read] -= beta * (s[:n][system.read] - y[k].numpy())
                return np.concatenate([first, second])

            u, v = (b[k].numpy().ravel() for b in found.state)
            assert np.abs(missing(np.concatenate([u, v]))).max() < 1e-13
            exact = root(missing, np.zeros(2 * n), tol=1e-13).x
            assert np.abs(exact - np.concatenate([u, v])).max() < 1e-11
    k, (u, v) = 1, (b[1].numpy().ravel() for b in free.state)
    p = system.control.detach().numpy().ravel()
    if system.reaction == "bistable":
        primitive = -(u**4) / 4 + (1 + p) * u**3 / 3 - p * u**2 / 2
    else:
        primitive = p * u**2 / 2 - u**4 / 4
    energy = (-primitive + u * v - system.leak * v**2 / 2 - current(system, x[k].numpy()) * u).sum()
    energy += sum(a / 2 * (u[i] - u[j]) ** 2 - b / 2 * (v[i] - v[j]) ** 2 for i, j, a, b in edges(system))
    assert abs(energy - float(system.energy(free.state, x)[k].detach())) < 1e-13


@MEDIA
def test_contract(options):
    """Force, contrast of every parameter, relaxation, nudging and the order of EP, by the public checks."""
    system = medium(options)
    x, y = batch(system)
    check_system(system, x, y)


def test_contract_of_costs_that_couple_outputs():
    """Cross-entropy: its curvature joins distant sites of the band."""
    system = medium(CHAIN)
    x, _ = batch(system)
    check_system(system, x, torch.arange(4) % 3)


@pytest.mark.parametrize("options", [CHAIN, SHEET], ids=["chain", "sheet"])
def test_gradient_reaches_its_order(options):
    """Centered EP against implicit differentiation: slope 2, to 1e-7 and below; holomorphic EP: slope 4."""
    system = medium(options)
    x, y = batch(system)
    exact = implicit_gradient(system, x, y, SquaredError(), tolerance=1e-14)
    for scheme, order, betas in ((centered(), 2, (0.1, 0.01, 1e-3, 1e-4)), (holomorphic(4), 4, (0.2, 0.1, 0.05))):
        errors = []
        for beta in betas:
            ep = EquilibriumPropagation(SquaredError(), scheme, beta, tolerance=1e-14)
            errors.append(total_error(estimate_gradient(ep, system, x, y)[0], exact))
        slopes = np.diff(np.log(errors)) / np.diff(np.log(betas))
        assert np.abs(slopes - order).max() < 0.1, errors
        if scheme.order == 2:
            assert errors[-1] < 1e-7


def test_gradient_is_that_of_finite_differences():
    """No autograd and no adjoint: every parameter changed by hand. Guards the parameters' own meaning."""
    system = medium({"sizes": [2, 4, 2]})
    x, y = batch(system, 2)
    exact = finite_difference_gradient(system, x, y, SquaredError())
    ep = EquilibriumPropagation(SquaredError(), beta=1e-3, tolerance=1e-14)
    assert total_error(estimate_gradient(ep, system, x, y)[0], exact) < 1e-6


@pytest.mark.full
@MEDIA
def test_skew_flow_ends_where_newton_does(options):
    """The medium in time, u down and v up the energy, settles in Newton's free and nudged states: to rounding."""
    system = medium(options)
    x, y = batch(system)
    free = relax(system, x, tolerance=1e-14).require()
    flown = relax(system, x, solver="skew_flow", tolerance=1e-13).require()
    assert (free.state[0] - flown.state[0]).abs().max() < 1e-12
    nudge = Nudge(SquaredError(), y, 0.1)
    settled = [
        relax(system, x, nudge, start=free.state, solver=solver, tolerance=1e-14).require().displacement[0]
        for solver in ("newton", "skew_flow")
    ]
    assert (settled[0] - settled[1]).abs().max() < 1e-13


def test_skew_flow_gives_the_same_gradient():
    """EP relaxed by the physics alone, backprop-free; and `simulate`, by its own steps, ends in the same state."""
    system = medium(RING)
    x, y = batch(system)
    grads = []
    for solver in ("newton", "skew_flow"):
        ep = EquilibriumPropagation(SquaredError(), beta=0.1, solver=solver, tolerance=1e-13)
        grads.append(estimate_gradient(ep, system, x, y)[0])
    assert total_error(grads[1], grads[0]) < 1e-11
    free = relax(system, x, tolerance=1e-14).require()
    end = simulate(system, x, 60.0, steps=300, every=300)
    assert (end.state[1][-1] - free.state[1]).abs().max() < 1e-10


def test_float32_carries_the_gradient():
    """Displacements and their contrast in single precision: no digit lost to a small beta."""
    system = medium(CHAIN).float()
    x, y = (t.float() for t in batch(system))
    wide = medium(CHAIN)
    wide.load_state_dict(system.state_dict())
    for beta in (0.1, 1e-2, 1e-3, 1e-4):
        ep = EquilibriumPropagation(SquaredError(), beta=beta)
        narrow = estimate_gradient(ep, system, x, y)[0]
        exact = estimate_gradient(ep, wide, x.double(), y.double())[0]
        assert total_error(narrow, exact) < 1e-6, beta


def test_newton_ends_in_minima_of_the_reduced_energy():
    """Multistable media, driven hard, and started beside an unstable state: no saddle of max_v E is taken.

    Newton's method alone ends in saddles here for some of the examples.
    """
    system = FitzHughNagumoChain([4, 30, 3], "odd", control=3.0, leak=0.5, gain=4.0, diffusion_u=0.2).double()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 4, generator=generator, dtype=torch.float64)
    found = relax(system, x, tolerance=1e-12).require()
    still = torch.zeros(2, 4, dtype=torch.float64)
    beside = tuple(1e-3 * torch.randn(2, 30, generator=generator, dtype=torch.float64) for _ in range(2))
    left = relax(system, still, start=beside, tolerance=1e-12).require()
    assert left.state[0].abs().amax(1).min() > 1
    for state, inputs in ((found.state, x), (left.state, still)):
        blocks = system.hessian(state, inputs).numpy()
        a, b, c = blocks[:, :30, :30], blocks[:, :30, 30:], blocks[:, 30:, 30:]
        reduced = a - b @ np.linalg.solve(c, b.swapaxes(1, 2))
        assert np.linalg.eigvalsh(reduced).min() > 0
        assert system.spectrum(state, inputs).real.max() < 0


def test_newton_never_climbs():
    """Once v is slaved to u, no iterate lies below the one that is returned: steps that fail are taken back."""
    system = FitzHughNagumoChain(
        [4, 30, 3], "odd", control=3.0, leak=0.5, gain=4.0, diffusion_u=1.0, diffusion_v=3.0
    ).double()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 4, generator=generator, dtype=torch.float64)
    start = tuple(torch.randn(40, 30, generator=generator, dtype=torch.float64) for _ in range(2))
    energy = relax(system, x, start=start, tolerance=1e-10, trace=True).require().trace.energy
    assert (energy[-1] - energy[1:].amin(0)).max() < 1e-12


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_nudged_states_keep_to_their_branch(side):
    """One bistable site pulled towards its other state: the root next to the free one up to the fold, none beyond.

    A nudge that pulls it over must not be contrasted: newton's method alone would find the other state.
    """
    system = FitzHughNagumoChain([1, 1, 1], "odd", control=2.0, leak=1.0).double()
    x = torch.zeros(1, 1, dtype=torch.float64)
    y = torch.full((1, 1), -3.0 * side, dtype=torch.float64)
    free = relax(system, x, start=(side * torch.ones(1, 1).double(), x), tolerance=1e-14).require()
    assert free.state[0].item() == pytest.approx(side)  # 2 u - u^3 = u
    phase = system.phase(system.prepare(x), origin=free.state, balanced=True)

    # u - u^3 = beta (u + 3) for u > 0; at the fold 1 - 3 u^2 = beta.
    fold = brentq(lambda u: u - u**3 - (1 - 3 * u**2) * (u + 3), 0.3, 1.0, xtol=1e-14)
    limit = 1 - 3 * fold**2
    for share in (0.5, 0.9, 0.99):
        beta = share * limit
        found = solve(phase.nudged(Nudge(SquaredError(), y, beta)), tolerance=1e-13).require()
        exact = brentq(lambda u, beta=beta: u - u**3 - beta * (u + 3), fold, 1.0, xtol=1e-15)
        assert side * found.state[0].item() == pytest.approx(exact, abs=1e-11)
    over = solve(phase.nudged(Nudge(SquaredError(), y, 1.02 * limit)), tolerance=1e-13)
    assert over.status is Status.SWITCHED
    assert not over.converged.any()
    assert over.iterations < 80


def test_no_nudge_leaps_a_fold():
    """Newton's method finds the state beyond a fold from afar, with corrections that shrink as they should.

    One site: the branch is known as t(u) = (f(u) - u / g) / beta (u - y), from u = 0 up to the first maximum of t.
    """
    system = FitzHughNagumoChain([1, 1, 1], leak=20.0).double()
    with torch.no_grad():
        system.weight.zero_()
    betas, targets = np.meshgrid(np.geomspace(1e-3, 3, 25), np.linspace(-1, 4, 20))
    x = torch.zeros(betas.size, 1, dtype=torch.float64)
    free = relax(system, x).require()
    assert float(free.state[0].abs().max()) == 0
    y = torch.from_numpy(targets.ravel())[:, None]
    phase = system.phase(system.prepare(x), origin=free.state, balanced=True)
    found = solve(phase.nudged(Nudge(SquaredError(), y, torch.from_numpy(betas.ravel()))))
    ends = []
    for beta, target in zip(betas.ravel(), targets.ravel(), strict=True):
        u = target * np.linspace(0, 1, 20001)[1:-1]
        t = (u * (1 - u) * (u - 0.25) - u / 20) / (beta * (u - target))
        turns = np.flatnonzero(np.diff(t) < 0)
        rising = slice(0, turns[0] + 1 if len(turns) else len(t))
        ends.append(np.interp(1.0, t[rising], u[rising]) if t[rising].max() >= 1 else np.nan)
    ends = torch.tensor(ends)
    assert 150 < int(ends.isnan().sum()) < 350
    assert torch.equal(found.converged, ~ends.isnan())
    torch.testing.assert_close(found.state[0][found.converged, 0], ends[found.converged], rtol=0, atol=1e-5)


@pytest.mark.parametrize("boundary", ["neumann", "periodic"])
def test_spectrum_is_the_dispersion_relation(boundary):
    """Rest of a uniform medium: each mode of the grid has two rates, from a quadratic; Hopf, Turing at its zeros.

    s = [f' - d_u k - (g + d_v k) / tau +- sqrt((f' - d_u k + (g + d_v k) / tau)^2 - 4 / tau)] / 2, k = -Lap.
    """
    d_u, d_v, g, tau, h, n = 0.625, 3.0, 0.7, 2.5, 0.9, 16
    modes = np.arange(n)
    k = (2 / h * np.sin((np.pi * modes / n) / (1 if boundary == "periodic" else 2))) ** 2

    def build(gain, tau_v=tau):
        options = {"boundary": boundary, "diffusion_u": d_u, "diffusion_v": d_v, "leak": g, "spacing": h}
        system = FitzHughNagumoChain([1, n, 1], "odd", tau_v=tau_v, **options).double()
        with torch.no_grad():
            system.control.fill_(gain)
        return system

    x = torch.zeros(1, 1, dtype=torch.float64)

    def growth(gain, tau_v=tau):
        system = build(gain, tau_v)
        return system.spectrum(system.initial_state(x), x)[0].numpy()

    a, b = 0.4 - d_u * k, (g + d_v * k) / tau
    rates = np.concatenate([(a - b + sign * np.sqrt((a + b) ** 2 - 4 / tau + 0j)) / 2 for sign in (1, -1)])
    found = growth(0.4)
    assert np.abs(np.sort_complex(np.round(found, 9)) - np.sort_complex(np.round(rates, 9))).max() < 1e-8
    # Turing: (f' - d_u k)(g + d_v k) = 1 for the worst k, with v fast enough for no oscillation.
    turing = (1 / (g + d_v * k) + d_u * k).min()
    assert k[(1 / (g + d_v * k) + d_u * k).argmin()] > 0
    assert abs(brentq(lambda r: growth(r, 0.1)[0].real, 0.5 * turing, 1.3 * turing, xtol=1e-12) - turing) < 1e-9
    # Hopf: f' = g / tau at k = 0, where v is slow.
    assert abs(brentq(lambda r: growth(r, 10.0)[0].real, 0.01, 0.2, xtol=1e-12) - g / 10) < 1e-9


@pytest.mark.parametrize("widest", [64, 0], ids=["banded", "sparse"])
@MEDIA
def test_linear_equations(options, widest, monkeypatch):
    """Steps of Newton's method and the count of negative curvatures against dense matrices of autograd's Hessian.

    The cross-entropy couples outputs; an example that is not finite, or singular, must not touch the others.
    """
    monkeypatch.setattr(saddles, "WIDEST", widest)
    system = medium(options)
    x, _ = batch(system)
    n = system.sizes[1]
    y = torch.arange(4) % 3
    free = relax(system, x).require()
    phase = system.phase(system.prepare(x), origin=free.state, balanced=True).nudged(Nudge(CrossEntropy(), y, 0.7))
    generator = torch.Generator().manual_seed(2)
    z = tuple(torch.randn(s.shape, generator=generator, dtype=torch.float64) for s in free.state)
    shift = torch.tensor([-3.0, -1.0, 0.0, 2.0], dtype=torch.float64)
    force = phase.force(z)
    moved = phase.newton_step(z, force, shift)
    saddle = system.prepare(x).cache.saddle
    slope = phase.cubic.slope(z[0]).flatten(1)
    negative = saddle.negative((shift[:, None] - slope).numpy()) - n
    assert len(set(negative.tolist())) > 1
    assert phase.nudged(None).ascends(z, shift).tolist() == (negative > 0).tolist()
    for k in range(4):

        def total(flat, k=k):
            state = tuple(s[k : k + 1] + d.view_as(s[:1]) for s, d in zip(free.state, flat.split(n), strict=True))
            cost = CrossEntropy()(system.outputs(state), y[k : k + 1])
            return (system.energy(state, x[k : k + 1]) + 0.7 * cost)[0]

        flat = torch.cat([b[k].flatten() for b in z])
        hessian = torch.autograd.functional.hessian(total, flat).numpy()
        hessian[np.arange(n), np.arange(n)] += float(shift[k])
        exact = np.linalg.solve(hessian, torch.cat([b[k].flatten() for b in force]).numpy())
        assert np.abs(torch.cat([b[k].flatten() for b in moved]).numpy() - exact).max() < 1e-11
        own = system.hessian(phase.state(z), x)[k].numpy()
        own[np.arange(n), np.arange(n)] += float(shift[k])
        assert (np.linalg.eigvalsh(own) < 0).sum() == n + int(negative[k])
        products = phase.hessian(z)(moved)
        assert np.abs(products[1][k].flatten().numpy() - (hessian @ exact)[n:]).max() < 1e-11
    diagonal = torch.randn(5, n, generator=generator, dtype=torch.float64).numpy()
    right = torch.randn(5, 1, 2, n, generator=generator, dtype=torch.float64).numpy()
    clean = saddle.solve(diagonal, right)
    broken = diagonal.copy()
    broken[1] = np.nan
    spoilt = saddle.solve(broken, right)
    assert np.isnan(spoilt[1]).all()
    assert np.array_equal(np.delete(spoilt, 1, 0), np.delete(clean, 1, 0))
    shifted = saddle.solve(diagonal + 0.3j, right)
    again = saddle.solve(diagonal - 0.3j, right)
    assert np.abs(shifted - again.conj()).max() < 1e-12
    assert np.abs(shifted.imag).max() > 1e-3


def test_singular_equations_have_no_solution():
    """One site, c g = -1: the determinant vanishes exactly. NaN there, and the answer elsewhere."""
    system = FitzHughNagumoChain([1, 1, 1], leak=0.5).double()
    saddle = system.prepare(torch.zeros(1, 1, dtype=torch.float64)).cache.saddle
    found = saddle.solve(np.array([[1.0], [-2.0], [3.0]]), np.ones((3, 1, 2, 1)))
    assert np.isnan(found[1]).all()
    for c, (a, b) in zip((1.0, 3.0), found[[0, 2], 0, :, 0], strict=True):
        assert np.allclose([c * a + b, a - 0.5 * b], 1.0, atol=1e-14)


def test_branches_turn_at_their_folds():
    """A uniform medium is one cubic: folds where f'(u) = 1 / g, on both sides, and stable outside of them only."""
    a, g = 0.1, 6.0
    system = FitzHughNagumoChain([1, 5, 1], control=a, leak=g).double()
    with torch.no_grad():
        system.weight.fill_(1.0)
    x = torch.ones(1, 1, dtype=torch.float64)
    found = branch(system, x, start=-0.2, stop=0.3)
    u = np.sort(np.roots([-3, 2 * (1 + a), -a - 1 / g]))
    folds = u / g - u * (1 - u) * (u - a)
    assert np.abs(found.folds.numpy() - folds).max() < 1e-9
    assert found.residual.max() <= 1e-10
    assert float(found.amplitude[-1]) == 0.3
    level = found.state[0][:, 0].numpy()
    assert np.abs(level / g - level * (1 - level) * (level - a) - found.amplitude.numpy()).max() < 1e-9
    between = (level > u[0]) & (level < u[1])
    assert between.sum() > 3
    assert np.array_equal(found.growth.numpy() > 0, between)
    with pytest.raises(InputError, match=r"stop must be an amplitude that the branch reaches within 8 points"):
        branch(system, x, start=-0.2, stop=0.3, max_points=8)


def test_branches_lead_to_the_states_that_relaxation_finds():
    """A sheet without folds: the end of the branch is the equilibrium, in the other direction too."""
    system = medium(SHEET)
    x, _ = batch(system, 1)
    free = relax(system, x, tolerance=1e-13).require()
    assert (branch(system, x).state[0][-1] - free.state[0][0]).abs().max() < 1e-9
    rest = relax(system, 0 * x, tolerance=1e-13).require()
    assert (branch(system, x, start=1.0, stop=0.0).state[0][-1] - rest.state[0][0]).abs().max() < 1e-9


def test_front_speed():
    """Without v: u = 1 / (1 + exp((x - c t) / sqrt(2 d))), c = sqrt(d / 2) (1 - 2 a); the grid's error is h^2."""
    a, d = 0.25, 1.0
    exact = np.sqrt(d / 2) * (1 - 2 * a)
    errors = []
    for h in (1.0, 0.5):
        n = int(44 / h)
        system = FitzHughNagumoChain(
            [1, n, 1], control=a, diffusion_u=d, diffusion_v=0.0, tau_v=1e12, spacing=h
        ).double()
        place = system.positions()[0]
        u = 1 / (1 + torch.exp((place - 13) / np.sqrt(2 * d)))[None]
        steps = int(40 * (4 / h**2 + 1) / 2)
        course = simulate(system, torch.zeros(1, 1, dtype=torch.float64), 40.0, start=(u, 0 * u), steps=steps)
        speed = pulse_speed(course, h, sites=slice(int(17 / h), int(24 / h)))
        errors.append(float(speed) / exact - 1)
    assert abs(np.log2(errors[0] / errors[1]) - 2) < 0.1, errors
    assert abs((4 * errors[1] - errors[0]) / 3) < 2e-4, errors
    assert crossing_times(course, 2.0).isnan().all()


@pytest.mark.full
def test_pulse_speed():
    """A pulse around a ring with slow v: speed on the same grid by scipy's DOP853, and on a finer one to h^2."""
    pulse = travelling_pulse(60, spacing=1.0, duration=110.0, rows=220)

    def reference(h):
        n = int(60 / h)

        def velocity(_, s):
            u, v = s[:n], s[n:]
            lap = (np.roll(u, 1) + np.roll(u, -1) - 2 * u) / h**2
            return np.concatenate([lap + u * (1 - u) * (u - 0.1) - v, (u - v) / 100.0])

        start = np.zeros(2 * n)
        width = int(5 / h)
        start[width : 2 * width] = 1.0
        start[n : n + width] = 0.5
        times = np.linspace(0, 110, 221)
        u = solve_ivp(velocity, (0, 110), start, "DOP853", times, rtol=1e-8, atol=1e-10).y[:n]
        sites = range(n // 4, n - n // 4)
        when = []
        for i in sites:
            row = int(np.argmax((u[i, :-1] < 0.5) & (u[i, 1:] >= 0.5)))
            when.append(np.interp(0.5, u[i, row : row + 2], times[row : row + 2]))
        return 1 / np.polyfit(h * np.arange(len(when)), when, 1)[0]

    same, finer = reference(1.0), reference(0.5)
    assert abs(pulse.speed / same - 1) < 1e-6
    assert abs(pulse.speed / finer - 1) < 0.02
    assert pulse.u[-1].max() > 0.7, "the pulse must have survived"
    still = stimulated(FitzHughNagumoChain([1, 60, 1]), [3], [1, 2], u=0.9, v=0.2)
    assert still[0].sum() == pytest.approx(0.9)
    assert still[1].sum() == pytest.approx(0.4)


def test_layers_follow_from_the_two_before_them():
    """Stoermer-Verlet in the layer, three-term and written out, on stationary states and off them."""
    system = medium({"sizes": [5, 30, 3], "spacing": 0.7})
    x, _ = batch(system)
    free = relax(system, x, tolerance=1e-14).require()
    for gap, own in zip(next_layers(system, free.state, x), free.state, strict=True):
        assert (gap - own[:, 1:]).abs().max() < 1e-14
    # Away from them, what is missing is h^2 / d times the force.
    state = tuple(s + 0.1 * torch.sin(torch.arange(30.0)).double() for s in free.state)
    force = system.force(state, x)
    d_u, d_v = system.diffusion_u[0].detach(), system.diffusion_v[0].detach()
    for k, (family, sign) in enumerate(((d_u, -1), (d_v, 1))):
        missing = next_layers(system, state, x)[k] - state[k][:, 1:]
        flux = torch.zeros_like(missing)
        for i in range(29):
            flux[:, i] = sign * system.spacing**2 / family[i] * force[k][:, i]
        assert (missing - flux).abs().max() < 1e-13
    uniform = FitzHughNagumoChain([5, 30, 3], spacing=0.7).double()
    u, v = relax(uniform, x, tolerance=1e-14).require().state
    i, h2 = 12, 0.49 / 0.5
    drive = (x @ uniform.weight.mT)[:, i]
    f = u[:, i] * (1 - u[:, i]) * (u[:, i] - 0.25)
    assert (2 * u[:, i] - u[:, i - 1] - h2 * (f - v[:, i] + drive) - u[:, i + 1]).abs().max() < 1e-14
    assert (2 * v[:, i] - v[:, i - 1] - h2 * (u[:, i] - v[:, i]) - v[:, i + 1]).abs().max() < 1e-14


def test_shooting_is_ill_conditioned():
    """Errors of the first layer grow by the closed form's multiplier, never beyond the bound; rounding takes over.

    It is of order one after as many layers as the transfer matrices say.
    """
    d_u, d_v, a, g, h = 0.5, 0.8, 0.25, 1.0, 1.0
    system = FitzHughNagumoChain(
        [2, 60, 1], diffusion_u=d_u, diffusion_v=d_v, control=a, leak=g, spacing=h
    ).double()
    rest = torch.zeros(1, 2, dtype=torch.float64)
    state = relax(system, rest).require().state
    growth, bound = error_growth(system, state, rest)[0].numpy(), growth_bound(system, state, rest)[0].numpy()

    def largest(slope, d_u, d_v, g, h):
        """m^2 + m h^2 (f' / d_u - g / d_v) + h^4 (1 - f' g) / (d_u d_v) = 0, then l^2 - (2 + m) l + 1 = 0."""
        m = np.roots([1, h**2 * (slope / d_u - g / d_v), h**4 * (1 - slope * g) / (d_u * d_v)])
        return max(abs(np.roots([1, -(2 + k), 1])).max() for k in m)

    for case in ((-a, d_u, d_v, g, h), (6.0, 0.5, 0.7, 0.8, 1.1), (0.3, 0.2, 3.0, 1.5, 0.6)):
        assert multiplier(*case) == pytest.approx(largest(*case), rel=1e-12)
    exact = largest(-a, d_u, d_v, g, h)
    assert np.polyfit(np.arange(20, 60), np.log(growth[20:]), 1)[0] == pytest.approx(np.log(exact), rel=1e-2)
    assert (growth <= bound * (1 + 1e-12)).all()
    x = 2 * torch.rand(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    state = relax(system, x, tolerance=1e-14).require().state
    found = shooting(system, state, x)
    assert (found.growth <= found.bound * (1 + 1e-12)).all()
    for k in range(6):
        reached, possible = int(layers_within(found.growth)[k]), int(layers_within(found.bound)[k])
        measured = int((found.error[k] >= 1).int().argmax())
        assert possible <= reached
        assert abs(measured - reached) <= 3
        # While it is small, an error of known size grows as the transfer matrices say.
        first = (state[0][k : k + 1, 0] + 1e-9, state[1][k : k + 1, 0])
        gap = torch.stack([b[0] - s[k] for b, s in zip(shoot(system, first, x[k : k + 1]), state, strict=True)])[
            :, :9
        ]
        assert (gap.norm(dim=0) <= 1e-9 * 1.01 * found.growth[k, :9]).all()
        assert gap.norm(dim=0)[8] > 1e-11 * found.growth[k, 8]


def test_states_that_do_not_settle_are_told():
    """Oscillation under the skew flow, too few iterations: a status, and a refusal to be learnt from."""
    system = FitzHughNagumoChain([2, 10, 2], "odd", control=0.5, tau_v=10.0, boundary="periodic").double()
    x, y = batch(system, 2)
    stationary = relax(system, x).require()
    assert system.spectrum(stationary.state, x).real.max() > 0
    flown = relax(system, x, solver="skew_flow", max_iterations=300)
    assert not flown.converged.any()
    assert flown.residual.min() > 1e-3
    with pytest.raises(NotConverged, match="did not converge for 2 of 2 examples"):
        EquilibriumPropagation(SquaredError(), max_iterations=2).backward(system, x, y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": [4, 10]}, "sizes must be three positive integers"),
        ({"sizes": [4, 3, 5]}, "sizes must have no more outputs than sites"),
        ({"reaction": "cubic"}, "reaction must be one of bistable, odd"),
        ({"grid": [3, 3]}, "grid must be one or two positive integers with the product 10"),
        ({"grid": [1, 2, 5]}, "grid must be one or two"),
        ({"boundary": "dirichlet"}, "boundary must be one of neumann, periodic"),
        ({"boundary": "periodic", "grid": [2, 5]}, "boundary must be 'neumann' on an axis of less than three"),
        ({"diffusion_u": -0.1}, "diffusion_u must be a number that is not negative, but was -0.1"),
        ({"diffusion_v": float("nan")}, "diffusion_v must be a number that is not negative, but was nan"),
        ({"leak": 0.0}, "leak must be a positive number, but was 0.0"),
        ({"tau_v": float("inf")}, "tau_v must be a positive number"),
        ({"control": float("nan")}, "control must be a finite number"),
        ({"driven": [0, 10]}, "driven must be different numbers of sites, from 0 to 9"),
        ({"read": [1, 1]}, "read must be different numbers"),
        ({"read": [1]}, "read must name 2 sites"),
        ({"seed": 0.5}, "seed must be an integer"),
    ],
)
def test_bad_options(options, message):
    """One line that names the argument, what it must be and what it was."""
    with pytest.raises(InputError, match=message):
        FitzHughNagumoChain(**{"sizes": [4, 10, 2], **options})


def test_bad_input():
    """NaN inputs, the wrong width, coefficients that an optimizer made negative, a sheet in place of a chain."""
    system = FitzHughNagumoChain([4, 10, 2])
    with pytest.raises(InputError, match=r"x must be finite"):
        relax(system, torch.full((2, 4), float("nan")))
    with pytest.raises(InputError, match=r"x must be a tensor \(batch, 4\), but was \(2, 3\)"):
        relax(system, torch.zeros(2, 3))
    with torch.no_grad():
        system.diffusion_u[0][3] = -0.25
    with pytest.raises(InputError, match=r"diffusion_u must not be negative .* but was -0.25 at an edge"):
        relax(system, torch.zeros(2, 4))
    system.constrain()
    relax(system, torch.zeros(2, 4)).require()
    sheet = FitzHughNagumoChain([4, 12, 2], grid=[3, 4])
    state = sheet.initial_state(torch.zeros(1, 4))
    with pytest.raises(InputError, match="system must be a chain with walls"):
        next_layers(sheet, state, torch.zeros(1, 4))
    with pytest.raises(InputError, match=r"diffusion_u and diffusion_v must be positive at every edge"):
        next_layers(system, system.initial_state(torch.zeros(1, 4)), torch.zeros(1, 4))
    with pytest.raises(InputError, match=r"x must be a tensor \(1, features\)"):
        branch(system, torch.zeros(2, 4))


def test_registered_system_learns():
    """The name that commands know, on its bundled config: EP's gradient on digits, and constrain as EP calls it."""
    system = load_system("fitzhugh-nagumo").double()
    assert system.sizes == (64, 100, 10)
    x = torch.rand(3, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.eye(10, dtype=torch.float64)[:3]
    report = gradient_report(system, x, y, SquaredError(), beta=1e-3)
    assert report.relative_error < 1e-5
    assert report.worst_cosine > 1 - 1e-9


@MEDIA
def test_equations_of_a_device_are_those_of_the_cpu(options):
    """The dense Schur complement, which a device solves, against the banded equations of the CPU.

    Real and complex, an example that is not finite, one that is singular; which of the matrices are positive.
    """
    system = medium(options)
    x, _ = batch(system)
    prepared = system.prepare(x).cache
    n = system.sizes[1]
    generator = torch.Generator().manual_seed(3)
    diagonal = 2 * torch.randn(6, n, generator=generator, dtype=torch.float64)
    diagonal[0] = 5.0
    right = torch.randn(6, 3, 2, n, generator=generator, dtype=torch.float64)
    for c in (diagonal, diagonal + 0.3j):
        here = torch.from_numpy(prepared.saddle.solve(c.numpy(), right.numpy()))
        assert (prepared.schur.solve(c, right) - here).abs().max() < 1e-10 * here.abs().max()
    up = prepared.schur.ascends(diagonal)
    assert up.tolist() == (prepared.saddle.negative(diagonal.numpy()) > n).tolist()
    assert not up[0]
    assert up.any()
    broken = diagonal.clone()
    broken[1] = torch.nan
    spoilt = prepared.schur.solve(broken, right)
    assert spoilt[1].isnan().all()
    assert torch.equal(spoilt[[0, 2, 3, 4, 5]], prepared.schur.solve(diagonal, right)[[0, 2, 3, 4, 5]])


def test_singular_equations_of_a_device_have_no_solution(monkeypatch):
    """One site, c g = -1, in chunks of one example: NaN there, and the answer elsewhere."""
    monkeypatch.setattr(schurs, "CHUNK", 1)
    system = FitzHughNagumoChain([1, 1, 1], leak=0.25).double()
    schur = system.prepare(torch.zeros(1, 1, dtype=torch.float64)).cache.schur
    diagonal = torch.tensor([[1.0], [-4.0], [3.0]], dtype=torch.float64)
    found = schur.solve(diagonal, torch.ones(3, 1, 2, 1, dtype=torch.float64))
    assert found[1].isnan().all()
    for c, (a, b) in zip((1.0, 3.0), found[[0, 2], 0, :, 0].tolist(), strict=True):
        assert np.allclose([c * a + b, a - 0.25 * b], 1.0, atol=1e-14)
