"""Trajectories: if these fail, a figure shows a motion that the energy does not make."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from physics_ep import EnergySystem, Nudge, SquaredError, relax, simulate
from physics_ep.blocks import State, flat
from physics_ep.dynamics.flows import own_motion
from physics_ep.dynamics.integrators import TABLEAUS, step
from physics_ep.errors import InputError
from tests.support.systems import Quartic, batch, network


class Decay(EnergySystem):
    """Linear modes of given rates: ds/dt = rate (x - s). Stiff where rates lie far apart."""

    def __init__(self, rates: list[float]) -> None:
        super().__init__()
        self.rates = torch.nn.Parameter(torch.tensor(rates, dtype=torch.float64))

    def energy(self, state: State, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * ((state[0] - x).square() * self.rates).sum(1)

    def initial_state(self, x: torch.Tensor) -> State:
        return (torch.zeros_like(x),)

    def outputs(self, state: State) -> torch.Tensor:
        return state[0]


@pytest.mark.parametrize("method", list(TABLEAUS))
def test_methods_reach_their_order_on_a_closed_form(method: str) -> None:
    """One linear unit relaxes as s(t) = a (1 - exp(-t)); the error falls as dt^order."""
    system = network("linear", (3, 2))
    x, _ = batch(3, 2, 1)
    layer = system.couplings[0]
    a = (x @ layer.weight.t() + layer.bias).detach()
    exact = a * (1 - math.exp(-2.0))
    errors = [
        float((simulate(system, x, 2.0, steps=n, method=method).state[0][-1] - exact).abs().max()) for n in (10, 40)
    ]
    assert abs(math.log(errors[0] / errors[1], 4) - TABLEAUS[method].order) < 0.25
    assert sum(TABLEAUS[method].weights) == pytest.approx(1)


@pytest.mark.parametrize(
    "method", [pytest.param(m, marks=pytest.mark.full) if TABLEAUS[m].implicit else m for m in TABLEAUS]
)
def test_methods_reach_their_order_on_a_nonlinear_system(method: str) -> None:
    """The slope of log error over log dt, against scipy's DOP853: a wrong coefficient passes linear tests."""
    system = Quartic()
    x, _ = batch(4, 2, 2)

    def slope(_: float, s: np.ndarray) -> np.ndarray:
        return system.force((torch.from_numpy(s.reshape(2, 6)),), x)[0].numpy().ravel()

    theirs = solve_ivp(slope, (0, 1.0), np.zeros(12), method="DOP853", rtol=1e-13, atol=1e-13)
    exact = theirs.y[:, -1].reshape(2, 6)
    counts = np.array([24, 32, 48])
    errors = [
        np.abs(simulate(system, x, 1.0, steps=int(n), method=method).state[0][-1].numpy() - exact).max()
        for n in counts
    ]
    order = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert abs(order - TABLEAUS[method].order) < 0.3


@pytest.mark.parametrize("name", [name for name, tableau in TABLEAUS.items() if tableau.adaptive])
def test_companions_are_of_the_order_that_the_step_control_takes_them_for(name: str) -> None:
    """One step's estimate is O(dt^(estimate_order + 1)): else steps are chosen too long or too short."""
    system, tableau = Quartic(), TABLEAUS[name]
    x, _ = batch(4, 2, 2)
    motion = own_motion(system.phase(system.prepare(x)))
    w = (0.3 * torch.ones(2, 6, dtype=torch.float64),)
    sizes = []
    for dt in (0.0125, 0.00625):
        error = step(motion, w, motion.velocity(w), dt, tableau).error
        assert error is not None
        sizes.append(float(error[0].norm()))
    assert abs(math.log2(sizes[0] / sizes[1]) - tableau.estimate_order - 1) < 0.3
    nodes = [sum(row) for row in tableau.stages]
    for weights, order in ((tableau.weights, tableau.order), (tableau.companion, tableau.estimate_order)):
        for k in range(order):
            assert sum(b * c**k for b, c in zip(weights, nodes, strict=True)) == pytest.approx(1 / (k + 1))


@pytest.mark.full
@pytest.mark.parametrize("method", ["bogacki_shampine", "dormand_prince", "tr_bdf2"])
def test_tolerances_are_met(method: str) -> None:
    """At every recorded time the error is within what the steps so far may add up to; looser ones are fewer."""
    system, x = Decay([1.0, 3.0]), torch.tensor([[1.0, -2.0], [0.5, 4.0]], dtype=torch.float64)
    counts = []
    for rtol in (1e-4, 1e-7):
        course = simulate(system, x, 3.0, method=method, rtol=rtol, atol=rtol)
        exact = x * (1 - torch.exp(-course.time[:, None, None] * system.rates.detach()))
        allowed = rtol * (1 + float(x.abs().max())) * torch.arange(len(course.time))
        assert bool(((course.state[0] - exact).abs().amax((1, 2)) <= allowed).all())
        assert float(course.time[-1]) == 3.0
        assert bool((course.time[1:] > course.time[:-1]).all())
        counts.append(len(course.time))
    assert counts[0] < counts[1]


@pytest.mark.full
def test_stiff_systems_take_few_implicit_steps() -> None:
    """Rates a million apart: an explicit method needs 1e6 steps; TR-BDF2 some hundred, and is right."""
    system, x = Decay([1.0, 1e6]), torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    course = simulate(system, x, 5.0, method="tr_bdf2", rtol=1e-5, atol=1e-8)
    assert len(course.time) < 500
    exact = x * (1 - torch.exp(-course.time[:, None, None] * system.rates.detach()))
    assert float((course.state[0] - exact).abs().max()) < 1e-3
    assert float((course.energy[1:] - course.energy[:-1]).max()) < 1e-9 * float(course.energy.max())
    euler = simulate(system, x, 5.0, method="implicit_euler", steps=50)
    assert float((euler.state[0][-1] - x).abs().max()) < 0.02


@pytest.mark.parametrize(
    "system",
    [pytest.param(network("tanh", (5, 6, 4, 3)), marks=pytest.mark.full), network("hard_sigmoid", (5, 6, 4, 3))],
)
def test_energy_falls_and_the_end_is_the_equilibrium(system) -> None:
    """Free and nudged: dF/dt <= 0 all along, and the limit is what `relax` finds."""
    x, y = batch(5, 3, 4)
    free = relax(system, x).require()
    for nudge, start in ((None, None), (Nudge(SquaredError(), y, 0.5), free.state)):
        course = simulate(system, x, 60.0, nudge, start)
        assert float((course.energy[1:] - course.energy[:-1]).max()) < 1e-12
        target = free if nudge is None else relax(system, x, nudge, free.state).require()
        end = tuple(s[-1] for s in course.state)
        assert float((flat(end) - flat(target.state)).abs().max()) < 1e-9


@pytest.mark.full
def test_a_users_system_is_simulated() -> None:
    """Gradient flow from `energy` alone."""
    system = Quartic()
    x, _ = batch(4, 2, 3)
    course = simulate(system, x, 60.0, steps=1800)
    free = relax(system, x).require()
    assert float((course.state[0][-1] - free.state[0]).abs().max()) < 1e-8
    assert float((course.energy[1:] - course.energy[:-1]).max()) < 1e-12


def test_settling_time_of_an_exponential() -> None:
    """The force falls as exp(-t): it stays under 1 % of its peak from ln 100 on."""
    course = simulate(network("linear", (3, 2)), batch(3, 2, 4)[0], 10.0, steps=2000)
    assert torch.allclose(course.settling_time, torch.full((4,), math.log(100), dtype=torch.float64), atol=0.01)
    short = simulate(network("linear", (3, 2)), batch(3, 2, 4)[0], 2.0)
    assert bool(short.settling_time.isnan().all())


@pytest.mark.full
def test_simulation_stops_when_settled() -> None:
    """At the first point where every example's force is under the fraction: the same points as without, fewer."""
    system, x = network("tanh", (5, 6, 4, 3)), batch(5, 3, 4)[0]
    course = simulate(system, x, 60.0, stop_when_settled=0.01)
    whole = simulate(system, x, 60.0)
    count = len(course.time)
    assert count < len(whole.time)
    assert torch.equal(course.state[0], whole.state[0][:count])
    assert torch.equal(course.settling_time, whole.settling_time)
    assert float(course.time[-1]) == float(whole.settling_time.max())


@pytest.mark.parametrize("options", [{"steps": 50}, {"method": "dormand_prince"}])
def test_points_may_be_left_out(options: dict) -> None:
    """`every` keeps the start, the multiples and the end, and moves none."""
    system, x = network("tanh", (5, 6, 4, 3)), batch(5, 3, 4)[0]
    whole, thin = simulate(system, x, 7.0, **options), simulate(system, x, 7.0, every=7, **options)
    kept = sorted({*range(0, len(whole.time), 7), len(whole.time) - 1})
    assert torch.allclose(thin.time, whole.time[kept], rtol=1e-14)
    assert torch.equal(thin.state[1], whole.state[1][kept])


class Wall(Decay):
    """ds/dt = 1 up to s = 1, where a spring of rate 1000 begins."""

    def energy(self, state: State, x: torch.Tensor) -> torch.Tensor:
        return (-state[0] + 500 * (state[0] - 1).clamp(min=0).square()).sum(1)


@pytest.mark.parametrize("method", ["bogacki_shampine", "dormand_prince", "tr_bdf2"])
def test_steps_that_miss_are_taken_again(method: str) -> None:
    """Long steps lead into the wall; those whose estimate exceeds the tolerance must not count."""
    x = torch.zeros(1, 1, dtype=torch.float64)
    course = simulate(Wall([1.0]), x, 1.1, method=method, rtol=1e-6, atol=1e-9)
    late = (course.time - 1).clamp(min=0)
    exact = course.time.clamp(max=1) + -torch.expm1(-1000 * late) / 1000
    assert float((course.state[0][:, 0, 0] - exact).abs().max()) < 2e-5


class Hill(Decay):
    """ds/dt = s^2 leaves the finite numbers at t = 1."""

    def energy(self, state: State, x: torch.Tensor) -> torch.Tensor:
        return -(self.rates * (state[0] + 1) ** 3 / 3).sum(1)


def test_a_motion_that_explodes_is_told() -> None:
    """Steps chosen by tolerance shrink without end: one line that says when, no endless loop."""
    with pytest.raises(InputError, match=r"rtol must be larger, .* at time (1|0\.9999)"):
        simulate(Hill([1.0]), torch.zeros(1, 1, dtype=torch.float64), 2.0, method="dormand_prince")


def test_progress_is_told() -> None:
    """The bar reaches its end, however the steps are chosen."""

    class Listener:
        def __init__(self) -> None:
            self.done, self.total = 0, 0

        @contextmanager
        def task(self, description: str, total: int) -> Iterator:
            self.total = total
            yield self.advance

        def advance(self, n: int = 1, **info: object) -> None:
            self.done += n

    for method in ("rk4", "dormand_prince"):
        listener = Listener()
        simulate(network("linear", (3, 2)), batch(3, 2, 4)[0], 2.0, method=method, progress=listener)
        assert listener.done == listener.total > 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"duration": -1.0}, "duration must be a positive number"),
        ({"duration": 5.0, "method": "rk5"}, "Did you mean 'rk4'"),
        ({"duration": 5.0, "steps": 0}, "steps must be an integer of at least 1"),
        ({"duration": math.nan}, "duration must be a positive number"),
        ({"duration": 1e9}, "duration must be within"),
        ({"duration": 5.0, "every": 0}, "every must be an integer of at least 1"),
        ({"duration": 5.0, "rtol": -1e-3}, "rtol must be a positive number"),
        ({"duration": 5.0, "atol": math.nan}, "atol must be a positive number"),
        ({"duration": 5.0, "stop_when_settled": 2.0}, "stop_when_settled must be a number between 0 and 1"),
        ({"duration": 1e5, "steps": 300, "method": "euler"}, "steps must be more"),
    ],
)
def test_bad_options_are_told(options, words: str) -> None:
    """One line that names the argument; steps that are too long are told, not plotted."""
    with pytest.raises(InputError, match=words):
        simulate(network("linear", (3, 2)), batch(3, 2, 4)[0], **options)
