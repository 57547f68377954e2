"""The figures of oscillators, media and early inference show the right numbers, in a form that can be printed.

Each test's docstring says what is wrong with the figures if it fails.
"""

from __future__ import annotations

import math
import re
import warnings
from statistics import NormalDist

import numpy as np
import pytest
import torch
from scipy.integrate import quad, solve_ivp
from scipy.linalg import expm
from scipy.optimize import brentq, fsolve

from figures import style
from figures.catalogue import draw, find, suited
from figures.gradients.automatic import auto_beta
from figures.hopfield.early_inference import draw_early, early_courses
from figures.oscillators.gradients import (
    branch_switches,
    draw_oscillator_errors,
    draw_switches,
    oscillator_errors,
)
from figures.oscillators.locking import CRITICAL, draw_locking, locking_curves
from figures.oscillators.media import draw_medium, medium
from figures.oscillators.pair import COUPLING, FIELD, INJECTION, TARGET, draw_pair, pair_landscapes
from figures.oscillators.phases import draw_phases, phases_on_circle
from figures.requests import Drawn, Entry, Request
from figures.subjects import Subject
from hardware_models import (
    FitzHughNagumoChain,
    HopfieldNetwork,
    LangevinHopfield,
    OscillatorNetwork,
)
from physics_ep import PhaseError, SquaredError, relax
from physics_ep.errors import InputError
from physics_ep.estimators.coupled_learning import CoupledLearning
from physics_ep.runs.training import train
from tests.support import looks
from tests.support.multistable import WIDE, DoubleWells, cusp_fold

pytestmark = pytest.mark.full


def rows(count, n_in, n_out, seed=1):
    """A batch of inputs and one-hot targets."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(count, n_in, generator=generator, dtype=WIDE)
    return x, torch.eye(n_out, dtype=WIDE)[torch.arange(count) % n_out]


@pytest.fixture(scope="module")
def turning():
    """Phases of a small network of oscillators, detuned and injected."""
    system = OscillatorNetwork([5, 6, 3], 0.1, frequency_spread=0.1).double()
    return Subject("net", system, *rows(1, 5, 3), SquaredError())


@pytest.fixture(scope="module")
def circle(turning):
    return phases_on_circle(turning)


@pytest.fixture(scope="module")
def pair():
    return pair_landscapes(np.append(np.linspace(0, 1.25, 11), 0.85), points=31)  # the last just before the fold


@pytest.fixture(scope="module")
def locked():
    return locking_curves(np.array([0.8, 1.3, 2.6]), oscillators=40)


@pytest.fixture(scope="module")
def chain():
    """A chain on an input that some of its sites answer strongly."""
    system = FitzHughNagumoChain([4, 50, 3], gain=2.0, seed=3).double()
    return Subject("chain", system, *rows(1, 4, 3), SquaredError())


@pytest.fixture(scope="module")
def course(chain):
    return medium(chain, sites=50, duration=100.0)


LAYERS = [5, 7, 6, 4]


@pytest.fixture(scope="module")
def linear():
    """Linear layers, whose displacements are matrix exponentials."""
    system = LangevinHopfield(LAYERS, "linear", gain=0.5).double()
    return Subject("linear", system, *rows(12, 5, 4), SquaredError())


@pytest.fixture(scope="module")
def early(linear):
    return early_courses(linear, times=np.array([0.1, 0.3, 1.0, 3.0]), runs=(100, 400), temperature=1e-9)


@pytest.fixture(scope="module")
def wells():
    """Wells of which each leaves its branch at a beta in closed form."""
    x = torch.linspace(-0.37, 0.3, 12, dtype=WIDE)[:, None]
    return Subject("wells", DoubleWells(), x, torch.full_like(x, -2.0), SquaredError())


@pytest.fixture(scope="module")
def folds(wells):
    return np.array([cusp_fold(float(f), -2.0) for f in wells.x])


@pytest.fixture(scope="module")
def switches(wells, folds):
    between = np.sqrt(folds[:-1] * folds[1:])
    return branch_switches([wells], np.array([0.5 * folds[0], between[0], between[3], between[8]]))


def reading(seed):
    """Oscillators that read phases, held by nothing but their inputs."""
    system = OscillatorNetwork([6, 3], readout="phase", encoding="phase", span=1.0, field=0.0, seed=seed).double()
    x, y = rows(4, 6, 3, seed)
    return Subject("phases", system, x, math.pi * (y - 0.5), PhaseError())


@pytest.fixture(scope="module")
def errors():
    """Two systems in the decade in which slopes are fitted; and networks that read phases."""
    net = Subject("net", OscillatorNetwork([5, 6, 3], gain=0.5).double(), *rows(3, 5, 3), SquaredError())
    site = Subject("chain", FitzHughNagumoChain([5, 9, 3]).double(), *rows(3, 5, 3), SquaredError())
    return oscillator_errors([net, site], [reading(k) for k in range(3)], looks.DECADE[::2])


@pytest.fixture(scope="module")
def drawn(circle, pair, locked, course, early, switches, errors):
    """This module's figures; a warning of matplotlib is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return {
            "phases_on_circle": draw_phases(circle),
            "two_oscillators": draw_pair(pair),
            "locking": draw_locking(locked),
            "medium": draw_medium(course),
            "early_inference": draw_early(early),
            "branch_switch": draw_switches(switches),
            "oscillator_error": draw_oscillator_errors(errors),
        }


def line(ax, start):
    """The one line whose label begins so."""
    (found,) = [each for each in ax.lines if each.get_label().startswith(start)]
    return np.array(found.get_xdata(), float), np.array(found.get_ydata(), float)


# -- phases -------------------------------------------------------------------------------------------------------


def pulls(system, x, angles, y=None, beta=0.0):
    """Forces on all oscillators, one by one, from the sums over couplings; with the nudge of a squared error."""
    blocks = [np.zeros(len(x)), *angles]
    sizes = [x, *(np.ones(len(a)) for a in angles)]
    forces = [np.zeros_like(a) for a in angles]
    for k, layer in enumerate(system.couplings.layers):
        w, field = layer.weight.detach().numpy(), layer.field.detach().numpy()
        for i, phi in enumerate(blocks[k + 1]):
            own = -math.hypot(*field[:, i]) * math.sin(phi - math.atan2(field[1, i], field[0, i]))
            own += float(system.frequencies(k)[i]) - system.second_harmonic * math.sin(2 * phi)
            for j, below in enumerate(blocks[k]):
                pull = w[i, j] * sizes[k][j] * math.sin(phi - below)
                own -= pull
                if k:
                    forces[k - 1][j] += pull
            forces[k][i] += own
    if y is not None:
        last = angles[-1]
        forces[-1] += beta * (np.cos(last) - y) * np.sin(last)
    return np.concatenate(forces)


def test_phases_end_where_all_forces_vanish(circle, turning):
    """Crosses mark what is no equilibrium, the force drawn is another one's, or the nudge is left out."""
    x, y = turning.x[0].numpy(), turning.y[0].numpy()
    for phase in circle.phases:
        assert np.abs(pulls(turning.system, x, phase.rest, y, phase.beta)).max() < 1e-9
        assert phase.distance < 1e-4
        for t in (0, 20, 100):
            own = pulls(turning.system, x, [a[t] for a in phase.angles], y, phase.beta)
            assert phase.force[t] == pytest.approx(np.abs(own).max(), rel=1e-9)
        assert np.diff(phase.energy).max() <= 1e-12
        assert phase.energy[-1] - phase.rest_energy == pytest.approx(0, abs=1e-9)
    free, nudged = circle.phases
    assert (free.beta, nudged.beta) == (0.0, 2.0)
    assert all(np.array_equal(a[-1], b[0]) for a, b in zip(free.angles, nudged.angles, strict=True))
    # The nudge draws the cosine of the right class's output to 1.
    assert circle.target == 0
    assert math.cos(nudged.rest[1][0]) > math.cos(free.rest[1][0]) + 0.1


@pytest.mark.slow
def test_circle_shows_the_phases(circle, drawn):
    """A course is turned, in the wrong colour or not at its time; a cross is elsewhere than its equilibrium."""
    axes = drawn["phases_on_circle"].axes
    polar = [ax for ax in axes if ax.name == "polar"]
    for ax, phase in zip(polar, circle.phases, strict=True):
        angle, radius = line(ax, "output of the right class")
        np.testing.assert_array_equal(angle, phase.angles[1][: phase.shown, 0])
        np.testing.assert_array_equal(radius, phase.time[: phase.shown])
        crosses = [each for each in ax.lines if each.get_label() == "_rest"]
        marked = np.concatenate([each.get_xdata() for each in crosses])
        np.testing.assert_allclose(np.sort(marked), np.sort(np.concatenate(phase.rest)))
        assert (ax.get_theta_offset(), ax.get_theta_direction()) == (0.0, 1.0)
    (moved,) = [ax for ax in axes if "free" in ax.get_ylabel() and "degrees" in ax.get_ylabel()]
    right = line(moved, "_output of the right class 0")[1]
    expected = np.degrees(circle.phases[1].angles[1][:, 0] - circle.phases[0].rest[1][0])
    np.testing.assert_allclose(right, expected[: len(right)])


# -- two oscillators ----------------------------------------------------------------------------------------------


def slope(angles, beta):
    """dF/d(phi_1, phi_2) of the two oscillators, with its own slopes, from the formula."""
    a, b = angles
    pull = COUPLING * math.sin(a - b)
    first = pull + FIELD * math.sin(a) + INJECTION * math.sin(2 * a)
    second = -pull + FIELD * math.sin(b) + INJECTION * math.sin(2 * b) + beta * math.sin(b - TARGET)
    bend = COUPLING * math.cos(a - b)
    h = np.array(
        [
            [bend + FIELD * math.cos(a) + 2 * INJECTION * math.cos(2 * a), -bend],
            [-bend, bend + FIELD * math.cos(b) + 2 * INJECTION * math.cos(2 * b) + beta * math.cos(b - TARGET)],
        ]
    )
    return np.array([first, second]), h


def test_landscape_is_the_formula(pair, drawn):
    """The landscape drawn has its axes swapped, leaves a term out, or is that of another beta."""
    a, b = np.meshgrid(pair.grid, pair.grid)
    for landscape in pair.landscapes:
        f = -COUPLING * np.cos(a - b) - FIELD * (np.cos(a) + np.cos(b))
        f = f - INJECTION / 2 * (np.cos(2 * a) + np.cos(2 * b)) + landscape.beta * (1 - np.cos(b - TARGET))
        np.testing.assert_allclose(landscape.energy, f, atol=1e-13)
    for ax, landscape in zip(drawn["two_oscillators"].axes, pair.landscapes, strict=False):
        path = np.stack(line(ax, "gradient flow"), 1)
        np.testing.assert_array_equal(path, np.degrees(landscape.path))
        low = np.stack(line(ax, "minimum"), 1)
        assert np.abs(low - path[-1]).max(1).min() < 0.1


def test_stationary_states_are_all_of_them(pair):
    """States are missing, none at all, or a saddle passes for a minimum; on a torus saddles are half of all."""
    states = pair.states
    for beta in np.unique(states.beta):
        here = states.beta == beta
        # Morse on the torus: minima - saddles + maxima = 0.
        assert (np.where(states.index[here] == 1, -1, 1)).sum() == 0
        assert here.sum() in (4, 6, 8)
    for beta, angles, index in zip(states.beta, states.angles, states.index, strict=True):
        force, h = slope(angles, beta)
        assert np.abs(force).max() < 1e-10
        assert (np.linalg.eigvalsh(h) < 0).sum() == index
    assert states.residual < 1e-10


def test_fold_is_where_the_minimum_ends(pair, drawn):
    """The line marks something else than the fold, or nudged states are not told apart at it."""

    def conditions(v):
        force, h = slope(v[:2], v[2])
        return [*force, np.linalg.det(h)]

    fold = fsolve(conditions, [0.7, 1.1, 0.83], xtol=1e-12)
    assert np.abs(conditions(fold)).max() < 1e-9
    assert pair.fold == pytest.approx(fold[2], abs=3e-5)
    assert pair.fold <= fold[2] + 1e-9
    np.testing.assert_array_equal(pair.switched, pair.nudged_beta > fold[2])
    branches = style.panels(drawn["two_oscillators"])["d"]
    assert "fold" in branches.get_legend().get_texts()[-1].get_text()
    beta, angle = line(branches, "flagged")
    np.testing.assert_array_equal(beta, pair.nudged_beta[pair.switched])
    assert angle.min() > 90 > line(branches, "nudged phase")[1].max()
    for b, angles in zip(pair.nudged_beta, pair.nudged_angles, strict=True):
        assert np.abs(slope(angles, b)[0]).max() < 1e-9


def test_paths_go_down(pair):
    """A path is no gradient flow, or the valley that is gone still holds it."""
    for landscape in pair.landscapes:
        velocity = -np.array([slope(angles, landscape.beta)[0] for angles in landscape.path])
        step = np.diff(landscape.path, axis=0)
        assert (np.sum(step * velocity[:-1], 1) >= -1e-12).all()
        assert np.abs(landscape.path[-1] - landscape.end).max() < 2e-3
    free, short, far = (landscape.end for landscape in pair.landscapes)
    assert np.abs(free).max() < 1e-9
    assert np.abs(short).max() < math.pi / 4
    assert far.min() > math.pi / 2


# -- locking ------------------------------------------------------------------------------------------------------


def test_points_lie_on_closed_forms(locked, drawn):
    """Measured points and the curves behind them are of different laws."""
    rest, beat, order = drawn["locking"].axes
    detuning, difference = line(rest, "relaxed")
    np.testing.assert_allclose(np.sin(np.radians(difference)), detuning, atol=1e-9)
    assert np.abs(difference).max() < 90
    fast, rate = line(beat, "simulated")
    np.testing.assert_allclose(rate, np.sqrt(fast**2 - 1), rtol=5e-6)
    curve, law = line(beat, "$\\sqrt")
    np.testing.assert_allclose(law[curve > 1], np.sqrt(curve[curve > 1] ** 2 - 1))
    np.testing.assert_array_equal(law[curve <= 1], 0)
    strength, expected = line(order, "self-consistent")
    for k in (30, 90, 140):
        a = strength[k] * CRITICAL * expected[k]
        integral, _ = quad(
            lambda t, a=a: math.cos(t) ** 2 * math.exp(-((a * math.sin(t)) ** 2) / 2) / math.sqrt(2 * math.pi),
            -math.pi / 2,
            math.pi / 2,
        )
        assert strength[k] * CRITICAL * integral == pytest.approx(1, rel=1e-9)


def test_populations_are_simulated_and_relaxed(locked, drawn):
    """Order parameters are of another coupling, another average, or of a population that is not at rest."""
    assert locked.locked.tolist() == [False, False, True]
    order = drawn["locking"].axes[2]
    assert line(order, "relaxed, all")[0].tolist() == [2.6]
    n, coupling = 40, 2.6 * CRITICAL
    omega = np.array([NormalDist().inv_cdf((k + 0.5) / n) for k in range(n)])
    exact = brentq(lambda r: np.sqrt(1 - (omega / (coupling * r)) ** 2).mean() - r, 0.8, 1.0, xtol=1e-14)
    assert locked.order[2] == pytest.approx(exact, abs=1e-8)  # frequencies are held in float32
    start = torch.randn(1, n, generator=torch.Generator().manual_seed(0), dtype=WIDE)[0].numpy()

    for k, strength in enumerate((0.8, 1.3)):

        def velocity(_, phi, strength=strength):
            mean = np.exp(1j * phi).mean()
            return omega + strength * CRITICAL * (mean * np.exp(-1j * phi)).imag

        times = np.linspace(0, 50, 401)
        phi = solve_ivp(velocity, (0, 50), start, "DOP853", times, rtol=1e-9, atol=1e-9).y
        mean = np.abs(np.exp(1j * phi).mean(0))[200:].mean()
        assert locked.order[k] == pytest.approx(mean, abs=1e-5)


# -- media --------------------------------------------------------------------------------------------------------


def currents(chain):
    """Current into each site, and the threshold."""
    system = chain.system
    return system.weight.detach().numpy() @ chain.x[0].numpy(), float(system.control.detach()[0])


def test_state_is_stationary_and_its_spectrum_is_that_of_the_flow(course, chain, drawn):
    """The state drawn does not solve the equations, or rates of growth are of another state, sign or tau_v."""
    current, a = currents(chain)
    u, v, n = course.u, course.v, 50

    def laplacian(z):
        padded = np.concatenate([z[:1], z, z[-1:]])
        return padded[2:] + padded[:-2] - 2 * padded[1:-1]

    assert np.abs(0.5 * laplacian(u) + u * (1 - u) * (u - a) - v + current).max() < 1e-12
    assert np.abs(0.5 * laplacian(v) + u - v).max() < 1e-12
    second = np.stack([laplacian(e) for e in np.eye(n)])
    bend = -3 * u**2 + 2 * (1 + a) * u - a
    eye = np.eye(n)
    for tau, rates in zip(course.tau_v, course.spectra, strict=True):
        flow = np.block([[0.5 * second + np.diag(bend), -eye], [eye / tau, (0.5 * second - eye) / tau]])
        exact = np.linalg.eigvals(flow)
        apart = np.abs(rates[:, None] - exact[None])
        assert max(apart.min(0).max(), apart.min(1).max()) < 1e-6
    spectrum = drawn["medium"].axes[2]
    for tau, rates in zip(course.tau_v, course.spectra, strict=True):
        told = line(spectrum, f"$\\tau_v$ = {tau:g}: " + ("stable" if rates.real.max() < 0 else ""))
        np.testing.assert_array_equal(told, [rates.real, rates.imag])
    assert chain.system.tau_v == 1.0


def test_pulse_and_the_line_beside_it(course, drawn):
    """The line does not follow the pulse, or space and time are swapped."""
    ax = drawn["medium"].axes[0]
    place, when = line(ax, "constant speed")
    assert 0.4 < course.speed < 0.46  # of this medium on a grid this coarse, known from fine references
    for x, t in zip(place[::6], when[::6], strict=True):
        site = int(np.flatnonzero(course.place == x)[0])
        before, after = np.searchsorted(course.time, [t - 1.5, t + 1.5])
        assert course.pulse[before, site] < 0.5 < course.pulse[after, site]
    picture = ax.images[0]
    assert picture.get_array().shape == course.pulse.shape
    assert picture.get_extent() == [0.0, 50.0, 0.0, pytest.approx(100.0)]


def test_shooting_loses_what_it_is_told_to_lose(course, chain, drawn):
    """Growth or bound are of other matrices, or the error drawn is not that of shooting."""
    current, a = currents(chain)
    bend = -3 * course.u**2 + 2 * (1 + a) * course.u - a
    layer, flux, growth = np.eye(2), np.zeros((2, 2)), [1.0]
    for i in range(49):
        flux = flux - np.array([[bend[i], -1.0], [1.0, -1.0]]) @ layer
        layer = layer + flux / 0.5
        growth.append(np.linalg.norm(layer, 2))
    np.testing.assert_allclose(course.growth, growth, rtol=1e-9)
    assert (course.growth <= course.bound * (1 + 1e-12)).all()
    u, v = course.u[0], course.v[0]
    p = q = gone = 0.0
    for i in range(49):
        p, q = p - (u * (1 - u) * (u - a) - v + current[i]), q - (u - v)
        u, v = u + p / 0.5, v + q / 0.5
        gap = max(abs(u - course.u[i + 1]), abs(v - course.v[i + 1]))
        if gap >= 1:
            gone = i + 1
            break
    layer, error = line(drawn["medium"].axes[3], "measured")
    lost = np.flatnonzero(course.error >= 1)[0]
    assert abs(lost - gone) <= 2
    shown = layer <= lost
    np.testing.assert_array_equal(error[shown], course.error[layer[shown].astype(int) - 1])
    layers, shown = line(drawn["medium"].axes[3], "bound")
    np.testing.assert_allclose(shown, np.finfo(float).eps * course.bound[layers.astype(int) - 1])


# -- early inference ----------------------------------------------------------------------------------------------


def descent(linear):
    """Hessian of the linear layers, the cost's slope at rest (B, n), back-propagated errors, ends of the layers."""
    weights = [layer.weight.detach().numpy() for layer in linear.system.layers]
    ends = np.cumsum([0, *LAYERS[1:]])
    h = np.eye(ends[-1])
    for k in (1, 2):
        here, below = slice(ends[k], ends[k + 1]), slice(ends[k - 1], ends[k])
        h[here, below], h[below, here] = -weights[k], -weights[k].T
    drive = np.zeros((len(linear.x), ends[-1]))
    drive[:, : LAYERS[1]] = linear.x.numpy() @ weights[0].T
    free = np.linalg.solve(h, drive.T).T
    g = np.zeros_like(free)
    g[:, ends[2] :] = free[:, ends[2] :] - linear.y.numpy()
    deltas = [g[:, ends[2] :]]
    for k in (2, 1):
        deltas.insert(0, deltas[0] @ weights[k])
    return h, g, deltas, ends


def displaced(h, g, ends, beta, t):
    """(1 - exp(-H t)) H^-1 (-beta g), the nudge's own curvature in H."""
    bent = h.copy()
    bent[ends[2] :, ends[2] :] += beta * np.eye(LAYERS[-1])
    return -beta * np.linalg.solve(bent, (np.eye(len(h)) - expm(-t * bent)) @ g.T).T


NAMES = ("2 below", "1 below", "outputs")


def test_displacements_are_matrix_exponentials(early, linear, drawn):
    """Layers are mixed up, or what is drawn is not their alignment and size beside the formula's."""
    h, g, deltas, ends = descent(linear)
    aligned, size, _ = drawn["early_inference"].axes
    for i, t in enumerate(early.time):
        moved = displaced(h, g, ends, early.beta, t)
        for k, (delta, name) in enumerate(zip(deltas, NAMES, strict=True)):
            d, power = moved[:, ends[k] : ends[k + 1]], 3 - k
            whole = np.linalg.norm(d, axis=1) * np.linalg.norm(delta, axis=1)
            apart = 1 + np.sum(d * delta, 1) / whole
            assert line(aligned, name)[1][i] == pytest.approx(apart.max(), rel=1e-4, abs=1e-11)
            formula = early.beta * t**power / math.factorial(power) * np.linalg.norm(delta, axis=1)
            ratio = np.linalg.norm(d, axis=1) / formula
            assert line(size, name)[1][i] == pytest.approx(ratio.mean(), rel=1e-5)


def test_noise_is_what_is_expected_of_it(early, linear, drawn):
    """Lines are not those of two Ornstein-Uhlenbeck runs, points not on them, or common noise loses layers."""
    noisy = drawn["early_inference"].axes[2]
    _, worst = line(noisy, "common random numbers")
    assert worst.min() > 0.99
    h, g, _, ends = descent(linear)
    moved = displaced(h, g, ends, early.beta, early.moment)
    values, vectors = np.linalg.eigh(h)
    per_run = 2 * early.temperature * (vectors**2 @ (-np.expm1(-2 * values * early.moment) / values))
    for k in (2, 1):
        runs, found = line(noisy, f"averaged: {NAMES[k]}")
        assert runs.tolist() == [100, 400]
        expected = np.interp(runs, early.fine, early.expected[:, k])
        here = slice(ends[k], ends[k + 1])
        noise = per_run[here].sum() / np.square(moved[:, here]).sum(1)
        exact = (1 / np.sqrt(1 + noise[:, None] / runs)).mean(0)
        np.testing.assert_allclose(expected, exact, atol=0.02)
        np.testing.assert_allclose(found, exact, atol=0.05)
    assert line(noisy, "averaged: 1 below")[1][0] < 0.95


# -- gradients ----------------------------------------------------------------------------------------------------


def test_switched_examples_are_those_past_their_folds(switches, wells, folds, drawn):
    """The share drawn is not that of the examples whose fold lies below beta, or they are not left out."""
    rate, error, angle = drawn["branch_switch"].axes
    beta, share = line(rate, "wells")
    assert np.abs(folds[:, None] / beta - 1).min() > 0.03
    np.testing.assert_allclose(share, 100 * np.array([0, 1, 4, 9]) / 12)
    np.testing.assert_array_equal(share, 100 * (folds[:, None] < beta).mean(0))
    (curve,) = switches
    kept, blind = line(error, "without")[1], line(error, "all examples")[1]
    for k, b in enumerate(beta):
        left = folds > b
        # s^3 - s = x + b (y - s) on the right; dE/da = -s^2 / 2, against -s (s - y) / (3 s^2 - 1) at b = 0.
        s, moved = (
            np.array([max(r.real for r in np.roots([1, 0, c - 1, -f - c * -2.0]) if abs(r.imag) < 1e-9) for f in x])
            for c, x in ((0.0, wells.x[left, 0].tolist()), (float(b), wells.x[left, 0].tolist()))
        )
        exact = (s * (s + 2) / (3 * s**2 - 1)).mean()
        estimate = -(moved**2 - s**2).mean() / (2 * b)
        # dL/da = (s - y) ds/da = (s - y) s / (3 s^2 - 1).
        assert kept[k] == pytest.approx(abs(estimate / exact - 1), rel=1e-3)
    assert blind[0] == pytest.approx(kept[0], rel=1e-6)
    assert blind[1] > 1 > 3 * kept[1]
    assert curve.residual <= 1e-8
    assert line(angle, "without")[1].min() > 0.999


def held(subject, b, i):
    """Field on an output that reads phases: its size and its direction; and the phases of all that pulls."""
    theta = subject.x[b].numpy()
    pull = (subject.system.couplings.layers[0].weight[i].detach().numpy() * np.exp(1j * theta)).sum()
    # Its own local field, which is zero, is learnt as well: in phase and in quadrature.
    return abs(pull), np.angle(pull), np.append(theta, [0.0, math.pi / 2])


def turned(size, gap, beta, derivative):
    """By how much a nudge turns an output that is this far from its target: towards it, less than all the way."""
    return brentq(
        lambda d: size * math.sin(d) + beta * derivative(gap + d), min(-gap, 0.0), max(-gap, 0.0), xtol=1e-14
    )


def test_costs_of_phases_by_one_equation_an_output(drawn):
    """Cosines are of another cost, sign or beta: each output alone solves R sin(phi - alpha) + beta C' = 0."""
    costs = {
        "1 $-$ cos, positive": math.sin,
        "$-$log(1 + cos), positive": lambda gap: math.tan(gap / 2),
    }
    for name, derivative in costs.items():
        ax = drawn["oscillator_error"].axes[1]
        for k in range(3):
            subject = reading(k)
            for beta in (0.01, 0.1):
                exact, estimate = [], []
                for i in range(3):
                    for b in range(4):
                        size, free, theta = held(subject, b, i)
                        gap = (free - float(subject.y[b, i]) + math.pi) % (2 * math.pi) - math.pi
                        moved = turned(size, gap, beta, derivative)
                        estimate.append(-(np.cos(free + moved - theta) - np.cos(free - theta)) / beta)
                        # dC/dphi dphi/dW, with R dphi = -sin(phi - theta) dW.
                        exact.append(-derivative(gap) * np.sin(free - theta) / size)
                sums = [np.reshape(v, (3, 4, 8)).mean(1).ravel() for v in (exact, estimate)]
                cosine = sums[0] @ sums[1] / np.linalg.norm(sums[0]) / np.linalg.norm(sums[1])
                betas, drawn_values = line(ax, f"_{name} {k}")
                at = int(np.argmin(np.abs(betas - beta)))
                assert drawn_values[at] == pytest.approx(cosine, abs=1e-6), (name, k, beta)


def test_automatic_beta_of_a_medium(chain):
    """Systems whose parameters have a range cannot be drawn; or beta is not picked where the error is small."""
    (panel,) = auto_beta([chain], np.array([1e-3, 1e-2, 0.5])).panels
    wide, _ = panel.curves
    assert math.log10(wide.error[1] / wide.error[0]) == pytest.approx(2, abs=0.05)
    assert 0 < panel.floor.max() < 1e-2
    assert wide.picked < wide.error[2]


def test_slopes_are_two(errors, drawn):
    """EP of a system is not of second order, or the legend does not tell its slope; or medians are none."""
    ax, angle = drawn["oscillator_error"].axes
    told = [text.get_text() for text in ax.get_legend().get_texts()]
    for name in ("net", "chain"):
        (slope_of,) = [re.search(r"slope ([\d.]+)", text) for text in told if text.startswith(f"{name}:")]
        assert float(slope_of[1]) == pytest.approx(2, abs=0.05)
        assert line(ax, f"{name}:")[1].max() < 1e-2
    centered = errors.costs[0]
    refused = [k for k in range(3) if np.isnan(centered.cosine[k]).any()]
    assert centered.refused == len(refused)
    for k in range(3):
        # A nudge by -beta leaves a minimum where all curvatures R - beta cos(gap) stay positive.
        least = min(held(reading(k), b, i)[0] for b in range(4) for i in range(3))
        assert (k in refused) <= (least < 0.2)
    median = line(angle, "1 $-$ cos, positive")[1]
    np.testing.assert_array_equal(median, np.median(errors.costs[1].cosine, 0))


# -- how it looks, and the command --------------------------------------------------------------------------------


def test_looks(drawn):
    """Axes without units, curves that differ by colour alone."""
    looks.every_axis_is_labelled_with_its_unit(drawn)
    looks.series_differ_without_colour(drawn)


test_legends_leave_the_data_alone = looks.legends_leave_the_data_alone
test_nothing_overlaps_in_a_column = looks.nothing_overlaps_in_a_column


def test_files(drawn, tmp_path):
    """A picture cannot be written, or is too large for the README."""
    for name in ("phases_on_circle", "two_oscillators"):  # those with most in them
        (png,) = style.save(drawn[name], name, tmp_path, formats=("png",))
        assert png.stat().st_size < 150_000


@pytest.fixture(scope="module")
def run_file(tmp_path_factory):
    """Run file of a brief training."""
    path = tmp_path_factory.mktemp("run") / "run.h5"
    brief = ["system.sizes=[64,6,10]", "training.epochs=1", "data.train_examples=64", "data.test_examples=8"]
    train("oscillator-digits", overrides=brief, out=path)
    return path


def test_runs_are_offered_what_suits_them(run_file):
    """Figures of oscillators are not offered for their runs, or cannot tell what they are not for."""
    names = {entry.name for entry in suited(run_file)}
    assert {"phases_on_circle", "branch_switch", "oscillator_error", "learning_curve"} <= names
    assert not {"medium", "early_inference", "pcn_energy"} & names
    data = draw(find("phases_on_circle"), Request(run=run_file)).data
    assert data["label"] == "trained oscillator"
    for name in ("two_oscillators", "locking"):
        with pytest.raises(InputError, match="Argument run must"):
            draw(find(name), Request(run=run_file))


def test_all_goes_on_after_what_cannot_be_certified(run_file, tmp_path, monkeypatch, capsys):
    """One figure whose equilibria cannot be certified keeps all others of a run from being drawn."""

    def uncertified(request):
        found = relax(OscillatorNetwork([2, 2]), torch.ones(1, 2), max_iterations=1, tolerance=1e-12)
        return found.require()

    def blank(request):
        with style.applied():
            return Drawn(style.new_figure(40, 30)[0], {})

    rows = [Entry("uncertified", "", uncertified), Entry("blank", "", blank)]
    monkeypatch.setattr("figures.commands.suited", lambda run: rows)
    assert looks.command("figure", "all", "--from", str(run_file), "--out", str(tmp_path)) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"blank.pdf", "blank.png", "blank.svg"}
    told = capsys.readouterr().out
    assert "uncertified is not drawn of this run" in told
    monkeypatch.setattr("figures.commands.suited", lambda run: rows[:1])
    assert looks.command("figure", "all", "--from", str(run_file), "--out", str(tmp_path)) == 1


def test_what_cannot_be_shown_is_told(chain, turning, linear):
    """Other systems, unfinished phases, rings, or outputs that nothing holds are drawn, or end in a traceback."""
    hopfield = Subject("net", HopfieldNetwork([4, 3], "tanh").double(), *rows(1, 4, 3), SquaredError())
    with pytest.raises(InputError, match="phase oscillators"):
        phases_on_circle(hopfield)
    with pytest.raises(InputError, match="duration must be long enough"):
        phases_on_circle(turning, duration=1.0)
    ring = FitzHughNagumoChain([4, 9, 3], boundary="periodic").double()
    with pytest.raises(InputError, match="chain with walls"):
        medium(Subject("ring", ring, chain.x, chain.y, chain.cost))
    for subject in (turning, chain, linear):
        # Not to be had here: a nudge in the name of a clamp would be drawn.
        with pytest.raises(InputError, match="exact block updates to clamp"):
            CoupledLearning().backward(subject.system, subject.x, subject.y)
    with pytest.raises(InputError, match="temperature"):
        early_courses(hopfield, times=np.array([0.1]), runs=(2,))
