"""Systems that declare no scale are judged by one measured from their own forces, whatever units they are in."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.optimize import brentq
from torch import nn

from hardware_models import HopfieldNetwork
from physics_ep import EnergySystem, EquilibriumPropagation, SquaredError, VectorField, centered, relax
from physics_ep.errors import InputError
from physics_ep.estimators.propagation import NegativeNudgeError
from physics_ep.scales import Scales
from tests.support.systems import Quartic, batch
from validation import bptt_gradient, implicit_gradient


class Spring(EnergySystem):
    """E = stiffness / 2 (s / unit - a x)^2, outputs s / unit: the gradient of 1/2 (a x - y)^2 is (a x - y) x."""

    stiffness = 1.0
    unit = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor([[2.0]]))

    def energy(self, state, x):
        return 0.5 * self.stiffness * (state[0] / self.unit - x * self.a).square().sum(1)

    def initial_state(self, x):
        return (torch.zeros_like(x),)

    def outputs(self, state):
        return state[0] / self.unit


class Walled(Spring):
    """The same between two walls, one of which holds the second example."""

    def project(self, state):
        return (state[0].clamp(-3 * self.unit, 3 * self.unit),)


def spring(stiffness: float, unit: float, dtype: torch.dtype, kind: type = Spring) -> EnergySystem:
    return type("Sized", (kind,), {"stiffness": stiffness, "unit": unit})().to(dtype)


class Flip(VectorField):
    """Two amplifiers that hold each other up, read by their outputs: at `begin` these are saturated."""

    begin = 0.5

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([[0.0, 2.0], [2.6, 0.0]], dtype=torch.float64))

    def force(self, state, x):
        return (torch.tanh(state[0]) @ self.w.T + x - state[0],)

    def initial_state(self, x):
        return (torch.full_like(x, self.begin),)

    def outputs(self, state):
        return torch.tanh(state[0])


@pytest.mark.parametrize(
    "begin", [pytest.param(0.5, marks=pytest.mark.full), 5.0, pytest.param(10.0, marks=pytest.mark.full)]
)
def test_outputs_that_are_flat_at_the_start_set_no_scale(begin: float) -> None:
    """A nudge is scaled by what outputs do: measured where tanh is flat, phases were held to residuals below
    rounding and refused, and the stability limit was found 1e4 too high."""
    system = type("Begun", (Flip,), {"begin": begin})()
    x, y = torch.full((1, 2), 0.1, dtype=torch.float64), torch.zeros(1, 2, dtype=torch.float64)
    exact = implicit_gradient(system, x, y, SquaredError())["w"]
    for beta, most in ((1e-3, 1e-6), ("auto", 3e-3)):
        ep = EquilibriumPropagation(SquaredError(), beta=beta)
        system.zero_grad()
        ep.backward(system, x, y)
        assert float((system.w.grad - exact).norm() / exact.norm()) < most
    # 1 / lambda = 1 / largest eigenvalue of the transposed response of the outputs to a force on them.
    state = relax(system, x).require().state[0]
    steep = torch.diag(1 - state[0].tanh() ** 2)
    response = steep @ torch.linalg.inv(torch.eye(2, dtype=torch.float64) - system.w.detach() @ steep) @ steep
    wanted = 1 / float(torch.linalg.eigvalsh((response + response.mT) / 2)[-1])
    assert ep.stability_limit == pytest.approx(wanted, rel=0.02)


X = torch.tensor([[1.0], [2.0], [0.0]])
Y = torch.tensor([[0.0], [1.0], [0.5]])
GRADIENT = (2 * 1 + 3 * 2 + 0) / 3


@pytest.mark.full
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("stiffness", "unit"), [(1e-7, 1.0), (1e-20, 1e-6), (1e8, 1.0), (1.0, 1e-6), (1e-8, 1e5)])
def test_units_of_energy_and_state_do_not_matter(stiffness: float, unit: float, dtype: torch.dtype) -> None:
    """With forces of 1e-7 or states of 1e-6 units the initial state would be converged, and the gradient wrong."""
    system = spring(stiffness, unit, dtype)
    x, y = X.to(dtype), Y.to(dtype)
    free = relax(system, x).require()
    assert free.iterations > 1
    assert torch.allclose(free.state[0] / unit, 2 * x, atol=2e-5)
    ep = EquilibriumPropagation(SquaredError(), beta="auto")
    ep.backward(system, x, y)
    assert ep.beta == pytest.approx(0.05 * stiffness, rel=1e-2)
    assert float(system.a.grad) == pytest.approx(GRADIENT, rel=3e-3)  # (beta lambda)^2 = 2.5e-3
    system.a.grad = None
    EquilibriumPropagation(SquaredError(), centered(), 1e-3 * stiffness).backward(system, x, y)
    assert float(system.a.grad) == pytest.approx(GRADIENT, rel=1e-5)


@pytest.mark.parametrize("stiffness", [1e-8, 1.0, 1e8])
def test_oracles_do_not_depend_on_units(stiffness: float) -> None:
    """A judge that believes a state which has not moved agrees with any estimate taken there."""
    system = spring(stiffness, 1.0, torch.float64)
    for oracle in (implicit_gradient, bptt_gradient):
        assert float(oracle(system, X.double(), Y.double(), SquaredError())["a"]) == pytest.approx(
            GRADIENT, rel=1e-6
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("stiffness", [1e-8, 1.0, 1e8])
def test_bounds_hold_in_any_units(stiffness: float, dtype: torch.dtype) -> None:
    """A large force that a wall clips must not look small, nor a small one be lost in the state."""
    system = spring(stiffness, 1.0, dtype, Walled)
    x = X.to(dtype)
    free = relax(system, x).require()
    assert torch.allclose(free.state[0], torch.tensor([[2.0], [3.0], [0.0]], dtype=dtype), atol=2e-5)


def test_a_nudge_that_is_strong_in_the_systems_units_is_refused() -> None:
    """beta = 0.1 pulls a million times as hard as springs of 1e-7 hold."""
    with pytest.raises(NegativeNudgeError, match="must be below 1e-07"):
        EquilibriumPropagation(SquaredError(), beta=0.1).backward(spring(1e-7, 1.0, torch.float32), X, Y)


def test_a_declared_scale_counts_and_built_in_systems_declare_theirs() -> None:
    """Numbers of systems with a scale must stay what they were, and cost no more."""

    class Declared(Spring):
        residual_scale = 3.0
        nudge_scale = 2.0

    x = X.double()
    phase = Declared().double().phase(Declared().prepare(x))
    assert (phase.scales, phase.residual_scale, phase.nudge_scale) == (None, 3.0, 2.0)
    system = Spring().double()
    system.residual_scale, system.nudge_scale = 3.0, 2.0
    assert system.phase(system.prepare(x)).residual_scale == 3.0
    network = HopfieldNetwork([1, 3, 1]).double()
    assert network.phase(network.prepare(x)).scales is None

    class Lowered(HopfieldNetwork):
        def energy(self, state, x):
            return 1e-9 * super().energy(state, x)

    low = Lowered([1, 3, 1], "tanh", gain=1.0).double()
    high = HopfieldNetwork([1, 3, 1], "tanh", gain=1.0).double()
    low.load_state_dict(high.state_dict())
    for a, b in zip(relax(low, x).require().state, relax(high, x).require().state, strict=True):
        assert torch.allclose(a, b, atol=1e-8)


def test_examples_are_judged_by_scales_of_their_own() -> None:
    """An example must not be called converged because another one in its batch is driven hard."""
    system = spring(1.0, 1.0, torch.float32)
    x = torch.tensor([[1e6], [1e-3]])
    free = relax(system, x).require()
    assert torch.allclose(free.state[0], 2 * x, rtol=1e-5)


def test_a_flat_energy_is_refused() -> None:
    """Where no force is found there is no scale, and every residual would be zero."""

    class Flat(Quartic):
        def energy(self, state, x):
            return (x @ self.u.t()).sum(1) + 0 * state[0].sum(1)

    x, y = batch(4, 2, 3)
    for call in (lambda: relax(Flat(), x), lambda: EquilibriumPropagation(SquaredError()).backward(Flat(), x, y)):
        with pytest.raises(InputError, match="Argument residual_scale of a Flat must be set") as error:
            call()
        assert "\n" not in str(error.value)


def test_an_energy_of_integers_is_refused_by_name() -> None:
    """An energy that was rounded has no force: torch speaks of tensors that do not require grad."""

    class Rounded(Quartic):
        def energy(self, state, x):
            return super().energy(state, x).round().long()

    with pytest.raises(InputError, match="must have a floating-point energy"):
        relax(Rounded(), batch(4, 3, 4)[0])


class Rectifier(EnergySystem):
    """A resistor to a x and a diode to ground, volts and amperes: (v - a x) / R + I exp(v / V) = 0."""

    current, thermal = 1e-12, 0.025

    def __init__(self, resistance: float = 1.0) -> None:
        super().__init__()
        self.resistance = resistance
        self.a = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def energy(self, state, x):
        v = state[0][:, 0]
        diode = self.current * self.thermal * torch.exp(v / self.thermal)
        return 0.5 * (v - self.a * x[:, 0]).square() / self.resistance + diode

    def initial_state(self, x):
        return (torch.zeros_like(x),)

    def outputs(self, state):
        return state[0]


@pytest.mark.full
@pytest.mark.parametrize("resistance", [1.0, 1e3])
@pytest.mark.parametrize("inputs", [(1.0, 0.5), (2.0, 2.5), (5.0, 5.0), (10.0, 20.0)])
def test_an_exponential_law_does_not_make_all_forces_small(inputs: tuple[float, float], resistance: float) -> None:
    """At a random state of some volts a diode passes 1e67 A: beside that, 0 V would be an equilibrium. Found, the
    state is that of a root by bisection; not found, it is said."""
    system, x = Rectifier(resistance), torch.tensor(inputs, dtype=torch.float64)[:, None]

    def short(v: float, at: float) -> float:
        return (v - 2 * at) / resistance + system.current * math.exp(v / system.thermal)

    exact = torch.tensor([brentq(short, -1, 1, args=(at,), xtol=1e-14) for at in inputs], dtype=torch.float64)
    for solver in (None, "trust_region"):
        found = relax(system, x, solver=solver)
        good = found.converged
        assert torch.allclose(found.state[0][good, 0], exact[good], rtol=0, atol=1e-8)
        assert bool(good.all()) or not found.status.settled
    assert bool(relax(system, x[:1] * 0 + 0.5).converged.all())


@pytest.mark.full
def test_blocks_have_units_of_their_own() -> None:
    """Joules in one block and microjoules in another: the second would never move, and be called converged."""

    class Mixed(Spring):
        small = 1.0

        def initial_state(self, x):
            return (torch.zeros_like(x), torch.zeros_like(x))

        def energy(self, state, x):
            own = 0.5 * (state[0] - x).square().sum(1)
            return own + self.small * 0.5 * (state[1] - self.a * x).square().sum(1)

        def outputs(self, state):
            return state[1]

    x = torch.tensor([[1.0], [2.0], [-3.0]], dtype=torch.float64)
    for small in (1e-6, 1e-9, 1e-12):
        system = Mixed().double()
        system.small = small
        for solver in (None, "anderson", "trust_region"):
            found = relax(system, x, solver=solver)
            good = found.converged
            assert torch.allclose(found.state[1][good], 2 * x[good], atol=1e-5)
            assert torch.allclose(found.state[0][good], x[good], atol=1e-5)


def test_a_start_far_away_is_not_what_a_state_is_judged_by() -> None:
    """From 1e9, a force of 0.1 is a ten-billionth of the first."""

    class Far(Spring):
        def initial_state(self, x):
            return (torch.full_like(x, 1e9),)

    system, x = Far().double(), torch.tensor([[1.0], [2.0], [-3.0]], dtype=torch.float64)
    assert torch.allclose(relax(system, x).require().state[0], 2 * x, atol=1e-4)
    EquilibriumPropagation(SquaredError(), beta=1e-3).backward(system, x, torch.zeros_like(x))
    assert float(system.a.grad) == pytest.approx(float((2 * x * x).mean()), rel=1e-4)


def test_steeper_outputs_are_nudged_by_the_square_of_their_gain_less() -> None:
    """E = k/2 s^2 moves outputs o = g s by beta g^2 / k: for the same move beta falls as g^2."""
    spring, state = Spring(), (torch.zeros(2, 1),)
    spring.unit = 0.1
    scales = Scales((torch.ones(2),), torch.ones(2), nudge=3.0, gain=2.0)
    found = scales.steepened(spring, state)
    assert (found.gain, found.nudge) == (pytest.approx(10.0), pytest.approx(3.0 / 25))
    spring.unit = 1.0
    assert scales.steepened(spring, state) is scales
