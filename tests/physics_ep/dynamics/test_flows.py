"""Skew-gradient and inertial flow, time constants, steps that are too long: if these fail, motions are wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from scipy.optimize import brentq

from physics_ep import EnergySystem, Nudge, SquaredError, relax, simulate
from physics_ep.blocks import State
from physics_ep.dynamics.flows import own_motion
from physics_ep.dynamics.integrators import TABLEAUS
from physics_ep.dynamics.motion import Motion
from physics_ep.dynamics.noise import STOCHASTIC
from physics_ep.dynamics.step_limits import DEPTH, rates_at
from physics_ep.errors import InputError
from tests.support.systems import Quadratic, Quartic, batch, network

EXPLICIT = [name for name, tableau in TABLEAUS.items() if not tableau.implicit]
K = np.array([[2.0, 0.6, 0.3], [0.6, 1.0, -0.4], [0.3, -0.4, -1.5]])
TAUS = (1.0, 4.0)


def exact(rates: np.ndarray, target: np.ndarray, times: torch.Tensor) -> np.ndarray:
    """s(t) of ds/dt = rates (s - target) from zero, (T, B, n)."""
    return np.stack([target - target @ expm(rates * t).T for t in times.tolist()])


def test_skew_flow_and_time_constants_in_closed_form() -> None:
    """Blocks that ascend, each at its own pace, free and nudged: else an excitable medium moves as another does.

    The energy has a saddle there, and does not fall all along.
    """
    system = Quadratic(K, (2, 1), (1, -1), TAUS)
    x, y = batch(3, 2, 4)
    rates = np.diag([-1.0, -1.0, 1 / 4]) @ K
    course = simulate(system, x, 8.0, steps=250)
    states = torch.cat(course.state, 2).numpy()
    assert np.abs(states - exact(rates, x.numpy(), course.time)).max() < 1e-7
    assert float(course.energy.diff(dim=0).max()) > 1e-3
    force = np.abs((states - x.numpy()) @ K).max(2)
    assert np.abs(course.residual.detach().numpy() - force).max() < 1e-12  # the force, whatever the time constants
    again = simulate(system, x, 8.0, steps=250, flow="skew")
    assert torch.equal(course.state[0], again.state[0])
    nudged = simulate(system, x, 60.0, Nudge(SquaredError(), y, 0.5), steps=400)
    stiff = K + np.diag([0.5, 0.5, 0.0])
    rest = np.linalg.solve(stiff, (x.numpy() @ K + np.pad(0.5 * y.numpy(), ((0, 0), (0, 1)))).T).T
    assert np.abs(torch.cat(nudged.state, 2)[-1].numpy() - rest).max() < 1e-4


@pytest.mark.full
@pytest.mark.parametrize("method", [*TABLEAUS, *(n for n in STOCHASTIC if n != "leimkuhler_matthews")])
def test_every_method_has_its_order_on_inertial_flow(method: str) -> None:
    """A damped spring in closed form: positions and velocities to the declared order, weak order without noise."""
    mass, friction, duration = 0.5, 0.4, 2.0
    k = np.array([[2.0, 0.5], [0.5, 1.0]])
    system, x = Quadratic(k, (1, 1), None, (1.0, 3.0)), batch(2, 1, 3)[0]
    rates = np.block([[np.zeros((2, 2)), np.eye(2)], [-k / mass, -friction / mass * np.diag([1.0, 3.0])]])
    target = np.pad(x.numpy(), ((0, 0), (0, 2)))
    errors, counts = [], np.array([32, 64])
    for n in counts:
        course = simulate(
            system, x, duration, steps=int(n), method=method, flow="inertial", mass=mass, friction=friction
        )
        found = torch.cat([*course.state, *course.internal], 2)[-1].numpy()
        errors.append(np.abs(found - exact(rates, target, course.time[-1:])[0]).max())
    declared = TABLEAUS[method].order if method in TABLEAUS else STOCHASTIC[method].weak
    assert math.log2(errors[0] / errors[1]) == pytest.approx(declared, abs=0.15)


@pytest.mark.full
def test_inertia_without_friction_keeps_its_energy() -> None:
    """BAOAB at T = 0 is Verlet's method: F + m v^2 / 2 swings with dt^2 and does not drift; friction only takes."""
    system, x = Quartic(), batch(4, 2, 3)[0]
    swings = []
    for steps in (100, 200):
        course = simulate(system, x, 20.0, steps=steps, method="baoab", flow="inertial", mass=2.0, friction=0.0)
        total = course.energy + course.internal[0].square().sum(2)
        first, second = (total[: len(total) // 2] - total[0], total[len(total) // 2 :] - total[0])
        assert float(second.abs().max()) < 1.2 * float(first.abs().max())
        swings.append(float((total - total[0]).abs().max()))
    assert math.log2(swings[0] / swings[1]) == pytest.approx(2, abs=0.2)
    damped = simulate(system, x, 20.0, steps=150, flow="inertial", mass=2.0, friction=0.5)
    total = damped.energy + damped.internal[0].square().sum(2)
    assert float(total.diff(dim=0).max()) < 1e-9
    free = relax(system, x).require()
    settled = simulate(system, x, 40.0, steps=200, flow="inertial", mass=2.0, friction=2.0)
    assert float((settled.state[0][-1] - free.state[0]).abs().max()) < 1e-8


def test_light_masses_follow_the_gradient_flow() -> None:
    """m -> 0 with friction 1: the distance falls as m, for any time constants."""
    system, x = Quadratic(K[:2, :2], (1, 1), None, (1.0, 4.0)), batch(2, 1, 3)[0]
    flow = torch.cat(simulate(system, x, 3.0, steps=400).state, 2)[-1]
    gaps = []
    for mass in (0.04, 0.02):
        course = simulate(system, x, 3.0, steps=400, flow="inertial", mass=mass)
        gaps.append(float((torch.cat(course.state, 2)[-1] - flow).abs().max()))
    assert gaps[0] / gaps[1] == pytest.approx(2, abs=0.1)


@pytest.mark.full
@pytest.mark.parametrize("options", [{}, {"method": "dormand_prince", "rtol": 1e-9}])
def test_energy_never_rises_along_gradient_flow(options: dict) -> None:
    """Not by rounding even, at a stable fixed step of twice the default and at adaptive ones; nudged as well."""
    x, y = batch(5, 3, 4)
    for system, inputs, outputs in (
        (network("tanh", (5, 6, 4, 3)), x, y),
        (Quadratic(K[:2, :2] + np.eye(2), (1, 1), None, TAUS), x[:, :2], y[:, :1]),
    ):
        for nudge in (None, Nudge(SquaredError(), outputs, 0.5)):
            steps = {} if options else {"steps": 120}
            course = simulate(system, inputs, 12.0, nudge, **options, **steps)
            assert float(course.energy.diff(dim=0).max()) < 1e-13 * float(course.energy.abs().max())


def test_settled_is_judged_by_the_force() -> None:
    """Skew and inertial flow stop where force (and motion) have died away, not where one of them passes zero."""
    slow = math.log(1000)
    skew = Quadratic([[1.0, 0.0], [0.0, -1.0]], (1, 1), (1, -1), (1.0, 3.0))
    course = simulate(skew, torch.ones(1, 2, dtype=torch.float64), 60.0, steps=900, stop_when_settled=1e-3)
    assert float(course.time[-1]) == pytest.approx(3 * slow, abs=0.06)  # the slower one decides
    spring, x = Quadratic([[4.0]]), torch.ones(1, 1, dtype=torch.float64)
    whole = simulate(spring, x, 60.0, steps=900, flow="inertial", friction=0.4)
    course = simulate(spring, x, 60.0, steps=900, flow="inertial", friction=0.4, stop_when_settled=1e-3)
    end = float(course.time[-1])
    # s oscillates as exp(-0.2 t) cos(2 t): its force passes zero from t = 0.8 on.
    assert end > slow / 0.2 - 4
    later = whole.time >= end
    assert float((whole.state[0][later] - 1).abs().max()) < 4e-3
    assert float(whole.internal[0][later].abs().max()) < 4e-3


# -- steps that are too long ------------------------------------------------------------------------------------


def real_limit(method: str) -> float:
    """Where the method stops to damp real decaying modes: from the Taylor polynomial of exp, or by hand."""
    polynomials = {
        "euler": [1, 1],
        "heun": [1, 1, 1 / 2],
        "rk4": [1, 1, 1 / 2, 1 / 6, 1 / 24],
        "bogacki_shampine": [1, 1, 1 / 2, 1 / 6],
        # Hairer, Norsett, Wanner, exercise IV.2.2: the last coefficient of its seven stages.
        "dormand_prince": [1, 1, 1 / 2, 1 / 6, 1 / 24, 1 / 120, 1 / 600],
    }

    def excess(z: float) -> float:
        return abs(np.polynomial.Polynomial(polynomials[method])(-z)) - 1

    return float(brentq(excess, 1.5, 4.0))


LIMITS = {name: real_limit(name) for name in EXPLICIT}
LIMITS |= {"euler_maruyama": 2.0, "stochastic_heun": 2.0, "sra1": 2.0, "leimkuhler_matthews": 2.0}


def refused(system: EnergySystem, x: torch.Tensor, duration: float, **options: object) -> str:
    """What `simulate` says against these steps; empty if it goes on."""
    try:
        simulate(system, x, duration, **options)
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("method", list(LIMITS))
def test_steps_beyond_stability_are_refused_with_the_bound(method: str) -> None:
    """Known rates, the fastest 7: refused at 1.01 of the limit, not at 0.99; the named steps are the least ones."""
    assert LIMITS["rk4"] == pytest.approx(2.785293563, abs=1e-8)
    x = batch(40, 1, 3)[0]
    system = Quadratic(np.diag(np.linspace(0.1, 7, 40)))
    noise = {"temperature": 0.1} if method in STOCHASTIC else {}
    duration = 30.0
    limit = duration * 7 / LIMITS[method]
    words = refused(system, x, duration, method=method, steps=int(limit / 1.05), **noise)
    assert "steps must be more, at least" in words
    assert "time constants" in words
    least = int(words.split("at least ")[1].split()[0])
    assert 0.97 * limit < least < 1.01 * limit
    for steps in (least, int(limit / 0.99)):
        assert refused(system, x, duration, method=method, steps=steps, **noise) == ""


def test_nothing_stable_is_refused() -> None:
    """Random symmetric and skew systems at 0.999 of what their spectra allow, and modes that grow by themselves."""
    generator = np.random.default_rng(5)
    for trial in range(12):
        n = int(generator.integers(2, 60))
        k = generator.standard_normal((n, n))
        k = k @ k.T / n if trial % 3 else (k + k.T) / 2  # a third of them with directions that run away
        half = n // 2
        directions = (1, -1) if trial % 2 and trial % 3 else None
        signs = np.repeat([1.0, -1.0 if directions else 1.0], [half, n - half])
        rates = np.linalg.eigvals(-signs[:, None] * k)
        system = Quadratic(k, (half, n - half), directions)
        x = torch.from_numpy(generator.standard_normal((2, n)))
        decaying = rates[rates.real < -1e-6]
        for method in ("euler", "rk4"):
            amplification = TABLEAUS[method].amplification
            dts = np.geomspace(1e-3, 10, 2000)
            bad = (abs(amplification(dts[:, None] * decaying)) > 1).any(1)
            steps = math.ceil(1.0 / (0.999 * dts[bad.argmax()]))
            words = refused(system, x, 1.0, method=method, steps=steps)
            assert words == "", (trial, method)


def test_oscillations_are_judged_by_the_imaginary_axis() -> None:
    """A spring without friction: Verlet's limit 2 / omega, RK4's 2.83 / omega; Euler's method is never stable."""
    system, x = Quadratic([[9.0]]), torch.ones(1, 1, dtype=torch.float64)
    for method, limit in (("baoab", 2.0), ("rk4", 8**0.5)):
        steps = 30 * 3 / limit
        options = {"method": method, "flow": "inertial", "friction": 0.0}
        assert "steps must be more" in refused(system, x, 30.0, steps=int(steps / 1.06), **options)
        assert refused(system, x, 30.0, steps=int(steps / 0.98), **options) == ""
    assert refused(system, x, 30.0, steps=1000, method="euler", flow="inertial", friction=0.0)


def test_the_fastest_example_of_a_batch_is_found_at_little_cost() -> None:
    """One stiff example in a hundred, found by a dozen evaluations of the force; rates that are jumps are none."""
    system = Quartic()
    x = torch.zeros(100, 4, dtype=torch.float64)
    start = torch.zeros(100, 6, dtype=torch.float64)
    start[37, 2] = 8.0  # 1 + 0.6 s^2 = 39.4
    motion = own_motion(system.phase(system.prepare(x)))
    calls = []

    def counted(w: State) -> State:
        calls.append(1)
        return motion.velocity(w)

    with torch.no_grad():
        rates = rates_at(counted, (start,))
    assert len(calls) <= DEPTH + 1
    assert abs(rates.values).max() == pytest.approx(39.4, rel=0.03)
    words = refused(system, x, 10.0, steps=int(10 * 39.4 / 2 / 1.2), method="euler", start=(start,))
    assert "at least 19" in words


class Latch(Quadratic):
    """Moves by the sign of its force: a velocity that jumps has no rate."""

    def motion(self, phase):
        return Jumping(phase)


class Jumping(Motion):
    def velocity(self, w: State) -> State:
        return tuple(f.sign() for f in super().velocity(w))


def test_jumps_are_no_rates() -> None:
    """Ideal diodes hold nodes where the velocity jumps: a difference over a jump tells nothing of stability."""
    system, x = Latch([[1.0]]), torch.zeros(1, 1, dtype=torch.float64)
    assert refused(system, x, 1.0, steps=10, start=(x.clone(),)) == ""


@pytest.mark.parametrize(
    ("system", "options", "words"),
    [
        (Quadratic(K, (2, 1), (1, -1)), {"flow": "gradient"}, "flow must be 'skew', but was 'gradient'"),
        (Quadratic(K, (2, 1), (1, -1)), {"flow": "inertial"}, "blocks of Quadratic ascend its energy"),
        (Quadratic(K, (2, 1), None, (1.0,)), {}, "time_constants of Quadratic must hold 2 positive numbers"),
        (Quadratic(K, (2, 1), None, (1.0, -2.0)), {}, "time_constants of Quadratic must hold 2 positive numbers"),
        (Quadratic(K), {"friction": -1.0, "flow": "inertial"}, "friction must be 0 or a positive number"),
        (Quadratic(K), {"method": "baoab"}, "flow must be 'inertial' for method 'baoab'"),
    ],
)
def test_flows_that_do_not_fit_are_told(system: Quadratic, options: dict, words: str) -> None:
    """One line with the reason; nothing moves uphill by mistake."""
    with pytest.raises(InputError, match=words):
        simulate(system, batch(3, 1, 2)[0], 1.0, **options)
