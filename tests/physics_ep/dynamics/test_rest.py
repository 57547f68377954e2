"""Courses of no given duration. If these fail, a state is taken for an equilibrium that is none, without a word."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy.optimize import root

from hardware_models import OscillatorNetwork, ResistiveNetwork
from physics_ep import EnergySystem, Nudge, SquaredError, VectorField, relax, simulate
from physics_ep.blocks import State, flat
from physics_ep.dynamics import NotAtRestWarning
from physics_ep.errors import InputError
from physics_ep.registry import build_system
from physics_ep.storage.opening import open_run
from tests.support.systems import batch, network


class Modes(EnergySystem):
    """Linear modes of given rates, ds/dt = rate (x - s), which rest at x."""

    def __init__(self, rates: list[float]) -> None:
        super().__init__()
        self.rates = torch.nn.Parameter(torch.tensor(rates, dtype=torch.float64))

    def energy(self, state: State, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * ((state[0] - x).square() * self.rates).sum(1)

    def initial_state(self, x: torch.Tensor) -> State:
        return (torch.zeros_like(x),)

    def outputs(self, state: State) -> torch.Tensor:
        return state[0]


class Wheel(VectorField):
    """A limit cycle of radius 1, which has no rest but at its centre."""

    def __init__(self) -> None:
        super().__init__()
        self.speed = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))

    def force(self, state: State, x: torch.Tensor) -> State:
        u = state[0]
        turned = torch.stack([-u[:, 1], u[:, 0]], 1) * self.speed
        return (u * (1 - u.square().sum(1, keepdim=True)) + turned + 0 * x,)

    def initial_state(self, x: torch.Tensor) -> State:
        return (torch.full_like(x, 0.1),)

    def outputs(self, state: State) -> torch.Tensor:
        return state[0]


def end_of(course) -> State:
    return tuple(block[-1] for block in course.state)


def test_a_course_goes_on_until_it_rests() -> None:
    """Twenty time constants end a resistive network's course early: both phases are held to `relax` and to scipy's
    root of the currents, and the first twenty are those of a course of that duration, bit for bit."""
    system = ResistiveNetwork([4, 3, 2], seed=0).double()
    x = torch.rand(1, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.eye(2, dtype=torch.float64)[:1]
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotAtRestWarning)
        free = simulate(system, x)
        nudge = Nudge(SquaredError(), y, 0.1 * system.nudge_scale)
        nudged = simulate(system, x, nudge=nudge, start=end_of(free))
        begun = simulate(system, x, 20 * system.time_constant)
    assert torch.equal(free.state[0][:401], begun.state[0])
    assert float(free.time[-1]) > float(begun.time[-1])
    assert float(begun.residual[-1]) > 100 * free.tolerance
    shapes = [b.shape for b in free.state]

    def force(flat_state: np.ndarray) -> np.ndarray:
        parts = torch.from_numpy(flat_state).split([s[2] for s in shapes])
        state = tuple(part[None] for part in parts)
        forces = system.force(state, x)
        return torch.cat([f[0] for f in forces]).detach().numpy() / system.residual_scale

    at = flat(end_of(free))[0].detach().numpy()
    off = flat(begun.state and end_of(begun))[0].detach().numpy()
    open_nodes = np.abs(at) > 1e-6  # an ideal diode holds the others at 0 V

    def gaps(values: np.ndarray) -> np.ndarray:
        whole = at.copy()
        whole[open_nodes] = values
        return force(whole)[open_nodes]

    exact = root(gaps, off[open_nodes], tol=1e-13).x
    assert np.abs(at[open_nodes] - exact).max() < 1e-8
    for course, pull in ((free, None), (nudged, nudge)):
        assert bool(course.at_rest.all())
        assert float(course.residual[-1].max()) <= course.tolerance
        settled = relax(system, x, pull, end_of(free), tolerance=1e-12).require().state
        assert float((flat(end_of(course)) - flat(settled)).abs().max()) < 1e-8
    assert "at rest: residual" in repr(free)


@pytest.mark.parametrize("rates", [pytest.param([1.0, 1e5], marks=pytest.mark.full), [1.0, 1e-4]])
def test_stiff_systems_come_to_rest(rates: list[float]) -> None:
    """Time constants that lie far apart: equal steps diverge, or would have to be a million; against x itself."""
    x = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    course = simulate(Modes(rates), x)
    assert bool(course.at_rest.all())
    assert len(course.time) < 1500
    exact = x * (1 - torch.exp(-course.time[:, None, None] * Modes(rates).rates.detach()))
    assert float((course.state[0] - exact).abs().max()) < 2e-3
    assert float((end_of(course)[0] - x).abs().max()) < 1e-4 * max(1.0, 1e-4 / min(rates))


def test_what_does_not_rest_is_told(tmp_path) -> None:
    """A wheel that turns, and steps that end; but neither noise, nor a duration that somebody has chosen."""
    x = torch.zeros(1, 2, dtype=torch.float64)
    system, inputs = network("linear", (5, 3, 2)), batch(5, 2, 2)[0]
    with pytest.warns(NotAtRestWarning, match=r"stopped before rest, after .* residual of up to .*, where rest is"):
        course = simulate(system, inputs, steps=40, out=tmp_path / "run.h5")
    assert not bool(course.at_rest.any())
    assert course.tolerance == open_run(tmp_path / "run.h5").trajectories["free"].tolerance == 1e-10
    with pytest.warns(NotAtRestWarning, match="without friction never rests"):
        simulate(system, inputs, flow="inertial", friction=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotAtRestWarning)
        noisy = simulate(system, inputs, temperature=0.1)
        early = simulate(system, inputs, 1.0)
        simulate(Wheel(), x, 1.0)
    assert float(noisy.time[-1]) == pytest.approx(20.0)
    assert "rest" not in repr(noisy)
    nudge = Nudge(SquaredError(), batch(5, 2, 2)[1], 0.1)
    with pytest.warns(NotAtRestWarning, match="starts where the free phase is not at rest"):
        simulate(system, inputs, 1.0, nudge, end_of(early))


@pytest.mark.slow
def test_an_oscillation_ends_at_the_limit() -> None:
    """A limit cycle must not be followed for ever, nor be damped by the method and taken for rest."""
    with pytest.warns(NotAtRestWarning, match=r"may have no rest \(an oscillation\)"):
        course = simulate(Wheel(), torch.zeros(1, 2, dtype=torch.float64), rtol=1e-4)
    assert float(end_of(course)[0].norm()) == pytest.approx(1.0, abs=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hopfield", "conv-hopfield", "oscillator", "ising-oscillator", "recurrent"])
def test_all_kinds_end_where_they_relax(name: str) -> None:
    """Systems with an energy, with a force alone, of angles, of images: their courses end in an equilibrium."""
    sizes = {"input_shape": [1, 4, 4], "channels": [2], "n_out": 2} if name == "conv-hopfield" else {}
    system = build_system(name, seed=0, **(sizes or {"sizes": [6, 5, 3]})).double()
    shape = (1, 4, 4) if name == "conv-hopfield" else (6,)
    x = torch.rand(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    course = simulate(system, x)
    assert bool(course.at_rest.all())
    settled = relax(system, x, start=end_of(course)).require().state
    assert float((flat(end_of(course)) - flat(settled)).abs().max()) < 1e-6


def test_steps_that_a_nudge_makes_too_long_name_it() -> None:
    """A beta of 0.1 S on a network of microsiemens: the message would speak of steps, and not of what to lower."""
    system = ResistiveNetwork([4, 3, 2], seed=0)
    x, y = torch.rand(1, 4), torch.eye(2)[:1]
    duration = 20 * system.time_constant
    with pytest.raises(InputError, match=r"beta = 0\.1, .* times the system's nudge_scale of .*: lower beta"):
        simulate(system, x, duration, Nudge(SquaredError(), y, 0.1), relax(system, x).state)
    phases = OscillatorNetwork([4, 3, 2], seed=0)
    with pytest.raises(InputError, match=r"steps must be more.* nudged with beta = 1e\+05, .* lower beta"):
        simulate(phases, x, 20.0, Nudge(SquaredError(), y, 1e5), relax(phases, x).state)


@pytest.mark.full
def test_rounding_ends_a_course_and_is_named() -> None:
    """Stiff couplings in float32: no longer course comes nearer to rest, and float64 does. A course that had not
    stopped there took 1000 steps, and its warning told of oscillations."""
    net = OscillatorNetwork([64, 64, 10], seed=0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(60)
    x = torch.rand(4, 64, generator=torch.Generator().manual_seed(0))
    words = r"Rounding of float32 ends the fall .* float64 goes further \(system.double\(\) with x.double\(\)\)"
    with pytest.warns(NotAtRestWarning, match=words):
        course = simulate(net, x)
    assert not bool(course.at_rest.any())
    assert len(course.time) < 300
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert bool(simulate(net.double(), x.double()).at_rest.all())


@pytest.mark.full
def test_points_of_stiff_courses_may_be_left_out() -> None:
    """`every` counts the steps of a stiff course from its start: early ones were all kept."""
    x = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    whole, thin = (simulate(Modes([1.0, 1e5]), x, every=every) for every in (1, 5))
    kept = sorted({*range(0, len(whole.time), 5), len(whole.time) - 1})
    assert torch.equal(thin.time, whole.time[kept])
    assert torch.equal(thin.state[0], whole.state[0][kept])
