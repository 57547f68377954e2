"""Noise in time: if these fail, a thermal system is sampled at another temperature, or not reproducibly."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy.linalg import expm

from hardware_models import AnalogHopfieldCircuit
from physics_ep import EnergySystem, Nudge, relax, simulate
from physics_ep.blocks import State
from physics_ep.cost import OutputForce
from physics_ep.dynamics.flows import Drift, Inertial
from physics_ep.dynamics.noise import STOCHASTIC, Noise, NoisyTableau, noisy_steps
from physics_ep.errors import InputError
from tests.support.systems import Quadratic, Quartic, batch, network
from tests.support.tiers import first

OVERDAMPED = [name for name, method in STOCHASTIC.items() if isinstance(method, NoisyTableau)]
T = 0.7
RATE = 1.3


class Impulses:
    """Unit kicks and areas, one an example: what a linear method makes of each draw."""

    def __init__(self, draws: int, inertial: bool) -> None:
        self.draws, self.inertial, self.step = draws, inertial, 0

    def draw(self) -> Noise:
        kick, area = torch.zeros(2, 2 * self.draws, 1, dtype=torch.float64)
        kick[self.step] = area[self.draws + self.step] = 1
        self.step += 1
        rest = torch.zeros_like(kick)
        return Noise((rest, kick) if self.inertial else (kick,), (rest, area) if self.inertial else (area,))


@torch.no_grad()
def linear_response(
    name: str, dt: float, count: int, mass: float = 1.0, friction: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """What each draw has become after `count` steps: of position (and velocity), (draws, 2, blocks)."""
    method, inertial = STOCHASTIC[name], name == "baoab"
    system, x = Quadratic([[RATE]]), torch.zeros(2 * (count + 1), 1, dtype=torch.float64)
    phase = system.phase(system.prepare(x))
    motion = Inertial(phase, mass, friction) if inertial else Drift(phase)
    start = motion.start(system.initial_state(x))
    source = Impulses(count + 1, inertial)
    *_, (_, w, _) = noisy_steps(motion, start, dt * count, count, count, method, source)
    found = torch.cat(w, 1).numpy().reshape(2, count + 1, -1)
    return found[0], found[1]


def covariance(kicks: np.ndarray, areas: np.ndarray, dt: float, power: float) -> np.ndarray:
    """Exact covariance of what a linear method has made of kicks of variance power dt."""
    # E[dW I / dt] = dt / 2, E[I^2 / dt^2] = dt / 3 (Kloeden and Platen, 10.4.2).
    mixed = kicks.T @ areas
    return power * dt * (kicks.T @ kicks + 0.5 * (mixed + mixed.T) + areas.T @ areas / 3)


STATIONARY: dict[str, Callable[[float], float]] = {
    "euler_maruyama": lambda z: 1 / (1 - z / 2),
    "stochastic_heun": lambda z: (1 - z / 2) / (1 - z / 2 + z**2 / 4),
    "sra1": lambda z: 2 * z * (1 - z + z**2 / 3) / (1 - (1 - z + z**2 / 2) ** 2),
    "leimkuhler_matthews": lambda z: 1.0,
}
"""Variance over T / rate of w' = R(z) w + noise in closed form, z = rate dt."""


@pytest.mark.parametrize("name", OVERDAMPED)
def test_ornstein_uhlenbeck_exactly(name: str) -> None:
    """The stationary variance of each method in closed form, and its declared orders, without sampling.

    A linear method makes a Gaussian of its draws, of which the covariance is a sum. A wrong factor in the noise, or
    in one stage, changes it.
    """
    method = STOCHASTIC[name]
    dt = 0.4 / RATE
    spread = covariance(*linear_response(name, dt, 80), dt, 2 * T)[0, 0]
    assert spread == pytest.approx(T / RATE * STATIONARY[name](0.4), rel=1e-10)
    counts = np.array([16, 32, 64])
    weak, strong = [], []
    for n in counts:
        dt = 1 / n
        kicks, areas = linear_response(name, dt, n)
        weak.append(abs(covariance(kicks, areas, dt, 2 * T)[0, 0] - T / RATE * -math.expm1(-2 * RATE)))
        strong.append(strong_error(kicks[:, 0], areas[:, 0], dt))
    assert order(counts, weak) == pytest.approx(method.weak, abs=0.1)
    # For linear forces SRA1 is better by half an order than for all others.
    assert order(counts, strong) == pytest.approx(method.strong + (name == "sra1") / 2, abs=0.1)


def strong_error(kicks: np.ndarray, areas: np.ndarray, dt: float) -> float:
    """Root mean square distance at t = 1 from the exact path of the same Wiener process, in closed form."""
    n = len(kicks) - 1  # the last draw is used by an averaging method only, for time that is still to come
    z = RATE * dt
    weights = np.append(np.exp(-z * np.arange(n - 1, -1, -1)), 0.0)  # of xi_j = int exp(-rate (t_j+1 - s)) dW
    own = weights @ weights * -math.expm1(-2 * z) / (2 * RATE)
    with_kick = kicks @ weights * -math.expm1(-z) / RATE
    with_area = areas @ weights * (1 - math.exp(-z) * (1 + z)) / RATE**2 / dt
    theirs = covariance(kicks[:, None], areas[:, None], dt, 1.0)[0, 0]
    return math.sqrt(2 * T * (own - 2 * (with_kick + with_area) + theirs))


def order(counts: np.ndarray, errors: list[float]) -> float:
    """Slope of log error over log step."""
    return float(-np.polyfit(np.log(counts), np.log(errors), 1)[0])


@pytest.mark.parametrize("friction", [0.3, 4.0])
def test_inertial_ornstein_uhlenbeck_exactly(friction: float) -> None:
    """BAOAB on a spring: positions exactly thermal at any step, velocities short by dt^2 k / 4m (equipartition)."""
    mass, dt = 0.5, 0.4
    power = 2 * friction * T / mass**2
    spread = covariance(*linear_response("baoab", dt, 400, mass, friction), dt, power)
    expected = np.diag([T / RATE, T / mass * (1 - dt**2 * RATE / (4 * mass))])
    assert np.abs(spread - expected).max() < 1e-10


class Tilted(EnergySystem):
    """E = k s^2 / 2 - s - cos(w s) / (2 w): neither symmetric nor quadratic.

    Parameters
    ----------
    spring, wave : float
        k and w.
    """

    def __init__(self, spring: float, wave: float) -> None:
        super().__init__()
        self.spring = torch.nn.Parameter(torch.tensor(spring, dtype=torch.float64))
        self.wave = wave

    def energy(self, state: State, x: torch.Tensor) -> torch.Tensor:
        s = state[0]
        return (self.spring * s**2 / 2 - s - (self.wave * s).cos() / (2 * self.wave)).sum(1)

    def force(self, state: State, x: torch.Tensor) -> State:
        s = state[0]
        return (1 - self.spring * s - (self.wave * s).sin() / 2,)

    def initial_state(self, x: torch.Tensor) -> State:
        return (torch.zeros_like(x),)

    def outputs(self, state: State) -> torch.Tensor:
        return state[0]


class Path:
    """One Wiener path for all step sizes: a coarse step adds the fine ones up.

    Kicks and areas have the amplitude of the noise in them. BAOAB's stand for int exp(-g (t - s)) dW, and are added
    with that weight.
    """

    def __init__(self, kicks: torch.Tensor, areas: torch.Tensor, each: int, rate: float | None, dt: float) -> None:
        self.kicks, self.areas = kicks, areas
        self.each, self.rate, self.dt, self.done = each, rate, dt, 0

    def draw(self) -> Noise:
        fine = slice(self.done, self.done + self.each)
        self.done += self.each
        kicks = self.kicks[fine]
        if self.rate is not None:
            back = torch.exp(-self.rate * self.dt * torch.arange(self.each - 1, -1, -1, dtype=torch.float64))
            coarse = self.each * self.dt
            scale = math.sqrt(
                math.expm1(-2 * self.rate * self.dt) / math.expm1(-2 * self.rate * coarse) * self.each
            )
            kick = scale * (back[:, None, None] * kicks).sum(0)
            return Noise((torch.zeros_like(kick), kick))
        before = kicks.cumsum(0) - kicks
        return Noise((kicks.sum(0),), ((self.areas[fine] + before).sum(0) / self.each,))


@pytest.mark.full
@torch.no_grad()
@pytest.mark.parametrize("name", first(3, STOCHASTIC))
def test_orders_on_nonlinear_systems(name: str) -> None:
    """Strong order by coupled paths, weak order of <s + s^2>, against paths of many more steps.

    Errors that linear forces do not show (a coefficient of SRA1, the force at a wrong stage) change a slope.
    """
    method, inertial = STOCHASTIC[name], name == "baoab"
    fine, mass, friction = 192, 0.5, 1.5
    counts = np.array([6, 12, 24])
    generator = torch.Generator().manual_seed(3)
    half = torch.randn(2, fine + 32, 10000, 1, generator=generator, dtype=torch.float64)
    u, v = torch.cat([half, -half], 2)  # mirror images have no odd errors
    amplitude = (math.sqrt(2 * friction * T) / mass if inertial else math.sqrt(2 * T)) / math.sqrt(fine)
    kicks, areas = amplitude * u, amplitude * 0.5 * (u + v / math.sqrt(3))

    def ends(system: Tilted) -> list[torch.Tensor]:
        x = torch.zeros(20000, 1, dtype=torch.float64)
        phase = system.phase(system.prepare(x))
        motion = Inertial(phase, mass, friction) if inertial else Drift(phase)
        start = motion.start(system.initial_state(x))
        found = []
        for n, which in [*((int(n), name) for n in counts), (fine, "baoab" if inertial else "sra1")]:
            source = Path(kicks, areas, fine // n, friction / mass if inertial else None, 1 / fine)
            *_, (_, w, _) = noisy_steps(motion, start, 1.0, n, n, STOCHASTIC[which], source)
            found.append(w[0])
        return found

    *rough, exact = ends(Tilted(0.5, 3.0))
    strong = [float((s - exact).square().mean().sqrt()) for s in rough]
    *rough, exact = ends(Tilted(1.0, 1.0))
    weak = [abs(float((s + s**2 - exact - exact**2).mean())) for s in rough]
    assert order(counts, strong) == pytest.approx(method.strong, abs=0.06)
    assert order(counts, weak) == pytest.approx(method.weak, abs=0.3)


def boltzmann(system: EnergySystem, moment: Callable, low: float, high: float) -> float:
    """<moment> under exp(-E / T) of one variable, by quadrature."""
    s = torch.linspace(low, high, 4001, dtype=torch.float64)[:, None]
    weight = (-system.energy((s,), torch.zeros_like(s)) / T).exp().detach()[:, None]
    return float((moment(s) * weight).sum() / weight.sum())


class Sampled(NamedTuple):
    """Mean over chains and times, and its standard error from chain to chain."""

    mean: float
    error: float


def sampled(system: EnergySystem, moment: Callable, steps: int, dt: float, **options: object) -> Sampled:
    """Of 10^4 chains that start at rest, the first fifth of the time left out."""
    x = torch.zeros(10000, 1, dtype=torch.float64)
    course = simulate(system, x, steps * dt, steps=steps, temperature=T, every=4, **options)
    values = moment(course.state[0][len(course.time) // 5 :]).mean((0, 2))
    return Sampled(float(values.mean()), float(values.std()) / math.sqrt(len(x)))


def test_stationary_averages_are_boltzmanns() -> None:
    """<s> and <s^2> of an anharmonic well against quadrature: each method to its order in the stationary state.

    At a step of 0.4 Euler and Maruyama are off by 20 %, Leimkuhler and Matthews at the same cost by less than 2 %.
    """
    system = Tilted(1.0, 1.0)
    for name, method in STOCHASTIC.items():
        flow = {"flow": "inertial", "friction": 1.5} if name == "baoab" else {}
        misses = []
        for dt in (0.4, 0.2):
            found = sampled(system, torch.square, 80, dt, method=name, **flow)
            exact = boltzmann(system, torch.square, -9, 9)
            misses.append(abs(found.mean - exact) / exact)
        noise = 4 * found.error / exact
        if method.invariant == 1:
            assert misses[0] > 0.15
            assert misses[0] / misses[1] == pytest.approx(2, abs=0.8)
        else:
            assert misses[0] < 0.02 + noise
            assert misses[1] < misses[0] / 4 + noise


class Boxed(Tilted):
    """Held within [-0.5, 1]."""

    def project(self, state: State) -> State:
        return (state[0].clamp(-0.5, 1.0),)


@pytest.mark.full
@pytest.mark.parametrize("flow", ["gradient", "inertial"])
def test_bounds_reflect(flow: str) -> None:
    """A bounded system samples exp(-F / T) between its bounds; projection would heap it up on them (<s^2> 0.35)."""
    system = Boxed(1.0, 1.0)
    for moment in (torch.clone, torch.square):
        found = sampled(system, moment, 200, 0.02, flow=flow)
        exact = boltzmann(system, moment, -0.5, 1.0)
        assert abs(found.mean - exact) < 4 * found.error < 0.01


def test_the_measure_is_that_of_the_force_itself() -> None:
    """Phases of Hopfield networks relax in a metric of their own; noise beside that force would sample another law.

    At a low temperature the covariance is T over the Hessian at the minimum.
    """
    system, low = network("tanh", (3, 2, 2), gain=1.5), 1e-4
    one = batch(3, 2, 1)[0]
    free = relax(system, one).require().state
    course = simulate(
        system,
        one.expand(20000, 3),
        6.0,
        start=tuple(s.expand(20000, 2).contiguous() for s in free),
        temperature=low,
        method="leimkuhler_matthews",
        every=120,
    )
    flat = torch.cat(free, 1)[0]
    hessian = torch.autograd.functional.hessian(lambda s: system.energy((s[None, :2], s[None, 2:]), one)[0], flat)
    exact = low * np.linalg.inv(hessian.detach().numpy())
    found = np.cov(torch.cat(course.state, 2)[-1].T.numpy())
    size = np.sqrt(np.outer(exact.diagonal(), exact.diagonal()))
    assert (abs(found - exact) < 0.05 * size).all()
    assert abs(exact / low - np.eye(4)).max() > 0.3  # not what any metric would give


def run(**options: object):
    """A short thermal course of a user's system."""
    system, x = Quartic(), batch(4, 2, 3)[0]
    return simulate(system, x, 2.0, **{"steps": 12, "temperature": T, **options})


@pytest.mark.parametrize("name", list(STOCHASTIC))
def test_noise_is_reproducible(name: str) -> None:
    """The same seed is the same path, whatever is recorded; another seed is another; a generator goes on."""
    options = {"method": name, "flow": "inertial" if name == "baoab" else None}
    whole = run(**options)
    assert torch.equal(whole.state[0], run(generator=torch.Generator().manual_seed(0), **options).state[0])
    assert torch.equal(whole.state[0][::4], run(every=4, **options).state[0])
    assert not torch.equal(whole.state[0], run(generator=torch.Generator().manual_seed(1), **options).state[0])
    if name in ("baoab", "leimkuhler_matthews"):
        return  # a part would have to begin with the velocity, or the draw, that the last one ended with
    generator = torch.Generator().manual_seed(0)
    system, x = Quartic(), batch(4, 2, 3)[0]
    start = None
    for _ in range(2):
        part = simulate(system, x, 1.0, start=start, steps=6, temperature=T, generator=generator, **options)
        start = tuple(s[-1] for s in part.state)
    assert torch.allclose(part.state[0], whole.state[0][6:], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", list(STOCHASTIC))
def test_common_random_numbers(name: str) -> None:
    """Seeded alike, a free and a nudged run of a linear system differ by the noiseless answer to the nudge."""
    system = Quadratic([[2.0, 0.5], [0.5, 1.0]])
    x = torch.zeros(3, 2, dtype=torch.float64)
    nudge = Nudge(OutputForce(), torch.tensor([[1.0, -2.0]] * 3, dtype=torch.float64), 0.1)
    options = {"steps": 40, "method": name, "flow": "inertial" if name == "baoab" else None}
    noisy = [simulate(system, x, 2.0, n, temperature=T, **options).state[0] for n in (None, nudge)]
    still = [simulate(system, x, 2.0, n, temperature=0.0, **options).state[0] for n in (None, nudge)]
    assert float((noisy[1] - noisy[0]).abs().max()) > 0.01
    assert float((noisy[1] - noisy[0] - still[1] + still[0]).abs().max()) < 1e-13
    assert float((noisy[0][-1] - still[0][-1]).abs().max()) > 0.1


def test_time_constants_share_the_temperature() -> None:
    """Blocks of different tau_k: sqrt(2 T / tau_k) dW each, so that all are at T. Exact covariance over time."""
    k, taus = np.array([[2.0, 0.6], [0.6, 1.0]]), np.array([1.0, 3.0])
    system = Quadratic(k, (1, 1), None, tuple(taus))
    x = torch.zeros(20000, 2, dtype=torch.float64)
    course = simulate(system, x, 1.5, steps=30, temperature=T, every=15)
    a = -k / taus[:, None]
    for time, state in zip(course.time.tolist()[1:], torch.stack(course.state, 2)[1:, :, :, 0], strict=True):
        # int_0^t e^{As} D e^{A^T s} ds, by the block exponential of Van Loan (1978).
        d = np.diag(2 * T / taus)
        blocks = expm(np.block([[-a, d], [np.zeros((2, 2)), a.T]]) * time)
        exact = blocks[2:, 2:].T @ blocks[:2, 2:]
        found = np.cov(state.numpy().T)
        assert np.abs(found - exact).max() < 0.04 * exact.diagonal().max()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": -1.0}, "temperature must be 0 or a positive number, but was -1.0"),
        ({"temperature": math.nan}, "temperature must be 0 or a positive number, but was nan"),
        ({"method": "rk4"}, "method must be one that takes noise .euler_maruyama, .*matthews. at temperature 0.7"),
        ({"method": "baoab"}, "flow must be 'inertial' for method 'baoab'"),
        ({"method": "leimkuhler_matthews", "flow": "inertial"}, "method must be 'baoab' or another"),
        ({"method": "sra2"}, "Did you mean 'sra1'"),
        ({"flow": "inertial", "friction": 0.0}, "friction must be positive"),
        ({"flow": "inertial", "mass": 0.0}, "mass must be a positive number"),
        ({"flow": "inertia"}, "Did you mean 'inertial'"),
        ({"flow": "skew"}, "flow must be 'gradient' or 'inertial', but was 'skew': Quartic declares no directions"),
        ({"stop_when_settled": 0.01}, "stop_when_settled must be left out at temperature 0.7"),
        ({"generator": 3}, "generator must be a torch.Generator, but was int"),
    ],
)
def test_bad_options_are_told(options: dict, words: str) -> None:
    """One line that names the argument; nothing runs at a temperature that was not asked for."""
    with pytest.raises(InputError, match=words):
        run(**options)


def test_systems_with_a_motion_of_their_own_take_no_noise() -> None:
    """Their noise would have to be that of their parts; and a system's own temperature is used where it has one."""
    system = Quartic()
    system.temperature = T
    x = batch(4, 2, 3)[0]
    assert torch.equal(simulate(system, x, 2.0, steps=12).state[0], run().state[0])
    zeros = tuple(torch.zeros(2, n, dtype=torch.float64) for n in (3, 2))  # on the logistic units' bound
    with pytest.raises(InputError, match="start must lie where the force on HopfieldNetwork is finite"):
        simulate(network("logistic", (5, 3, 2)), batch(5, 2, 2)[0], 1.0, start=zeros, temperature=T)
    circuit = AnalogHopfieldCircuit.from_network(network("tanh", (5, 3)))
    with pytest.raises(InputError, match=r"temperature must be 0, but was 0.1: AnalogHopfieldCircuit moves by"):
        simulate(circuit, batch(5, 3, 2)[0], 1e-8, temperature=0.1)
