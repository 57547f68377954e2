"""Flows of networks of units in time: if these fail, settling times and noise are those of another machine."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.special import expit, logit

from hardware_models import (
    ConvHopfieldNetwork,
    FitzHughNagumoChain,
    HopfieldNetwork,
    LangevinHopfield,
    OscillatorNetwork,
    ResistiveNetwork,
)
from hardware_models.analog import AnalogHopfieldCircuit
from physics_ep import CrossEntropy, EquilibriumPropagation, Nudge, SquaredError, relax, simulate
from physics_ep.blocks import flat
from physics_ep.errors import InputError
from physics_ep.predictive_coding import mlp
from tests.support.systems import batch, network
from tests.support.tiers import first

ONE = torch.zeros(1, 1, dtype=torch.float64)
RESPONSES = {"tanh": np.tanh, "logistic": expit, "hard_sigmoid": lambda p: np.clip(p, 0, 1), "linear": lambda p: p}
INVERSES = {"tanh": np.arctanh, "logistic": logit, "hard_sigmoid": lambda s: s, "linear": lambda s: s}


def driven(activation: str, drive: float) -> HopfieldNetwork:
    """One hidden unit under a constant drive; the output stays at zero."""
    system = HopfieldNetwork([1, 1, 1], activation).double()
    with torch.no_grad():
        for layer in system.couplings:
            layer.weight.zero_()
            layer.bias.zero_()
        system.couplings[0].bias.fill_(drive)
    return system


def integrated(slope, start, time: float) -> np.ndarray:
    """The end of a course by scipy's DOP853."""
    return solve_ivp(slope, (0, time), np.atleast_1d(start), method="DOP853", rtol=1e-12, atol=1e-13).y[:, -1]


@pytest.mark.full
@pytest.mark.parametrize(
    ("flow", "end"),
    [
        (None, 0.6068768627),  # ds/dt = 1 - atanh(s), by scipy
        ("gradient", 0.6068768627),
        ("hopfield", math.tanh(1 - math.exp(-1))),  # du/dt = 1 - u in closed form
        ("rate", math.tanh(1) * (1 - math.exp(-1))),
    ],
)
def test_a_tanh_unit_follows_the_flow_of_that_name(flow: str | None, end: float) -> None:
    """One unit at drive 1 after one time constant, as layers and as a graph; the default is -dE/ds."""
    assert integrated(lambda _, s: 1 - np.arctanh(s), 0.0, 1.0)[0] == pytest.approx(0.6068768627, abs=1e-9)
    system = driven("tanh", 1.0)
    for units in (system, system.to_circuit()):
        course = simulate(units, ONE, 1.0, flow=flow, steps=200)
        assert float(course.state[0].flatten(1)[-1, 0]) == pytest.approx(end, abs=1e-8)


@pytest.mark.full
@pytest.mark.parametrize("drive", [0.6, 3.0, 30.0, -2.0])
def test_a_hard_sigmoid_unit_stops_at_its_bound(drive: float) -> None:
    """ds/dt = p - s, until the bound stops it; the bound does not slow it before, and noise becomes nothing."""
    system = driven("hard_sigmoid", drive)
    for units in (system, system.to_circuit()):
        for temperature in (0.0, 1e-12):
            course = simulate(units, ONE, 1.0, steps=60, temperature=temperature)
            found = course.state[0].flatten(1)[:, 0]
            exact = (drive * -torch.expm1(-course.time)).clamp(0, 1)
            assert float((found - exact).abs().max()) < 1e-4
    for method in ("dormand_prince", "tr_bdf2"):
        course = simulate(system, ONE, 1.0, method=method)
        exact = (drive * -torch.expm1(-course.time)).clamp(0, 1)
        assert float((course.state[0][:, 0, 0] - exact).abs().max()) < 3e-4  # the step that meets the bound


@pytest.mark.full
@pytest.mark.parametrize("activation", first(1, ["logistic", "tanh", "linear"]))
@pytest.mark.parametrize("flow", ["gradient", "hopfield", "rate"])
def test_two_layers_follow_equations_written_by_hand(activation: str, flow: str) -> None:
    """Hidden units and linear outputs, free and nudged, against scipy on numpy's matrices."""
    system = network(activation, (3, 4, 2), gain=1.0)
    x, y = batch(3, 2, 1)
    beta, start = 0.4, (0.2 + 0.1 * torch.arange(4.0).double()[None], torch.tensor([[0.3, -0.5]]).double())
    (w1, b1), (w2, b2) = ((c.weight.detach().numpy(), c.bias.detach().numpy()) for c in system.couplings)
    response, inverse = RESPONSES[activation], INVERSES[activation]
    held = w1 @ x[0].numpy() + b1

    for nudge in (None, Nudge(SquaredError(), y, beta)):
        pull = 0.0 if nudge is None else beta

        def drives(h: np.ndarray, o: np.ndarray, pull=pull) -> tuple[np.ndarray, np.ndarray]:
            return held + w2.T @ o, w2 @ h + b2 - pull * (o - y[0].numpy())

        def slope(_: float, w: np.ndarray, drives=drives, pull=pull) -> np.ndarray:
            h, o = w[:4], w[4:]
            if flow == "hopfield":
                p, q = drives(response(h), o)
                return np.r_[p - h, q - o]
            p, q = drives(h, o)
            if flow == "gradient":
                return np.r_[p - inverse(h), q - o]
            return np.r_[response(p) - h, (q - o) / (1 + pull)]

        s = np.concatenate([start[0][0].numpy(), start[1][0].numpy()])
        if flow == "hopfield":
            s[:4] = inverse(s[:4])
        end = integrated(slope, s, 1.5)
        if flow == "hopfield":
            end[:4] = response(end[:4])
        for units, begin in ((system, start), (system.to_circuit(), (torch.cat(start, 1),))):
            course = simulate(units, x, 1.5, nudge, begin, flow=flow, steps=60)
            assert np.abs(flat(tuple(b[-1] for b in course.state))[0].numpy() - end).max() < 1e-6


@pytest.mark.parametrize(("pooling", "activation"), [("average", "tanh"), ("max", "logistic")])
def test_convolutions_follow_the_slope_of_their_energy(pooling: str, activation: str) -> None:
    """Against scipy on autograd of the energy; and the circuit, du/dt = -dE/ds at s = sigma(u)."""
    system = ConvHopfieldNetwork([1, 4, 4], [2], 2, activation, pooling=pooling, gain=1.5).double()
    x = batch(16, 1, 1)[0].view(1, 1, 4, 4)
    start = system.initial_state(x)
    shapes = [s.shape for s in start]

    def force(flattened: np.ndarray) -> np.ndarray:
        blocks = torch.from_numpy(flattened).split([s.numel() for s in shapes])
        leaves = [b.clone().reshape(s).requires_grad_() for b, s in zip(blocks, shapes, strict=True)]
        return -torch.cat(
            [g.reshape(-1) for g in torch.autograd.grad(system.energy(leaves, x).sum(), leaves)]
        ).numpy()

    begin = torch.cat([s.reshape(-1) for s in start]).numpy()
    hidden = slice(0, shapes[0].numel())

    def states(u: np.ndarray) -> np.ndarray:
        s = u.copy()
        s[hidden] = RESPONSES[activation](u[hidden])
        return s

    for flow in ("gradient", "hopfield"):
        course = simulate(system, x, 1.0, flow=flow, steps=50)
        found = torch.cat([s[-1].reshape(-1) for s in course.state]).numpy()
        if flow == "gradient":
            end = integrated(lambda _, s: force(s), begin, 1.0)
        else:
            u = begin.copy()
            u[hidden] = INVERSES[activation](begin[hidden])
            end = states(integrated(lambda _, u: force(states(u)), u, 1.0))
        assert np.abs(found - end).max() < 1e-6


@pytest.mark.full
@pytest.mark.parametrize(
    "system",
    [
        network("tanh", (5, 4, 3)),
        network("hard_sigmoid", (5, 4, 3), gain=3.0),
        network("logistic", (5, 4, 3)),
        network("tanh", (5, 4, 3)).to_circuit(),
        LangevinHopfield([5, 4, 3]).double(),
        OscillatorNetwork([5, 4, 3]).double(),
    ],
    ids=["tanh", "hard_sigmoid", "logistic", "graph", "potentials", "oscillators"],
)
def test_noise_goes_to_nothing_as_the_temperature_does(system) -> None:
    """T = 1e-12 follows the path of T = 0: no jump to another flow, and no bouncing off bounds that stop it."""
    x, y = batch(5, 3, 3)
    for nudge in (None, Nudge(SquaredError(), y, 0.3)):
        still, cold = (
            simulate(system, x, 1.5, nudge, steps=60, method="sra1", flow="gradient", temperature=t)
            for t in (0.0, 1e-12)
        )
        for a, b in zip(still.state, cold.state, strict=True):
            assert float((a - b).abs().max()) < 2e-5
        assert float((still.residual - cold.residual).abs().max()) < 1e-4


@pytest.mark.parametrize("flow", ["gradient", "hopfield", pytest.param("rate", marks=pytest.mark.full)])
@pytest.mark.parametrize("activation", ["hard_sigmoid", pytest.param("logistic", marks=pytest.mark.full)])
def test_every_flow_comes_to_rest_where_relaxation_does(flow: str, activation: str) -> None:
    """Free, then nudged from there, with F falling all along; units that bounds hold included."""
    system = network(activation, (5, 4, 3))
    x, y = batch(5, 3, 4)
    free = relax(system, x, tolerance=1e-10).require()
    assert activation != "hard_sigmoid" or bool((free.state[0] == 0).any())
    for nudge, start in ((None, None), (Nudge(SquaredError(), y, 0.5), free.state)):
        course = simulate(system, x, 30.0, nudge, start, flow=flow, steps=300)
        target = free if nudge is None else relax(system, x, nudge, free.state, tolerance=1e-10).require()
        assert float((flat(tuple(s[-1] for s in course.state)) - flat(target.state)).abs().max()) < 1e-6
        assert float((course.energy[1:] - course.energy[:-1]).max()) < 1e-12
        assert float(course.residual[-1].max()) < 1e-6


@pytest.mark.full
def test_steps_too_long_for_saturated_units_are_refused() -> None:
    """At drive 3 a tanh unit moves back at rate 101: 20 steps a time constant bounce off the bound for ever.

    Recorded states look like an oscillation then, or rest where the unit does not (0.807 in place of 0.99966).
    """
    for activation, drive in (("tanh", 3.0), ("logistic", 8.0)):
        system = driven(activation, drive)
        for units in (system, system.to_circuit()):
            for options in ({}, {"method": "euler"}, {"every": 7}, {"temperature": 1e-8}):
                with pytest.raises(InputError, match=r"steps must be more .or method 'tr_bdf2'.: units saturate"):
                    simulate(units, ONE, 5.0, **options)
            course = simulate(units, ONE, 5.0, method="tr_bdf2")
            end = RESPONSES[activation](drive)
            assert float(course.state[0].flatten(1)[-1, 0]) == pytest.approx(end, abs=1e-6)
        for flow in ("hopfield", "rate"):  # not stiff
            assert float(simulate(system, ONE, 20.0, flow=flow, steps=100).state[0][-1]) == pytest.approx(
                end, abs=1e-6
            )
    course = simulate(driven("tanh", 3.0), ONE, 1.0, steps=200)  # short enough
    exact = integrated(lambda _, s: 3 - np.arctanh(s), 0.0, 1.0)[0]
    assert float(course.state[0][-1]) == pytest.approx(exact, abs=1e-6)


def test_motions_of_ones_own_say_which_flow_they_are() -> None:
    """Gradient flow of resistive and of classical predictive networks, the amplifiers' circuit: by their names."""
    x = batch(3, 2, 2)[0]
    circuit = AnalogHopfieldCircuit.from_network(network("tanh", (3, 2)))
    resistive = ResistiveNetwork([3, 4, 2], amplification=2.0, scale=1.0).double()
    cases = ((resistive, "gradient"), (mlp([3, 4, 2]).double(), "gradient"), (circuit, "hopfield"))
    for system, flow in cases:
        span = 3 * system.time_constant
        start = system.initial_state(x)
        if system is resistive:  # off the bounds of its ideal diodes
            start = (0.1 * system.signs(1).expand(2, -1), start[1])
        own, named = (simulate(system, x, span, start=start, steps=60, flow=f) for f in (None, flow))
        assert torch.equal(own.state[-1], named.state[-1])
        other = "inertial" if flow == "gradient" else "gradient"
        with pytest.raises(InputError, match=f"flow must be '{flow}' or left out, but was '{other}'"):
            simulate(system, x, span, start=start, steps=60, flow=other)
    # C c_k dv/dt = -dE/dv, c_k = 4 for the hidden layer below amplifiers of gain 2.
    start = tuple(
        s + 0.1 * sign for s, sign in zip(resistive.initial_state(x), (resistive.signs(1), 1.0), strict=True)
    )
    with torch.no_grad():
        force = resistive.force(start, x)
    course = simulate(resistive, x, 1e-6 * resistive.time_constant, start=start, steps=1)
    for c, s, f in zip((4.0, 1.0), course.state, force, strict=True):
        rate = (s[1] - s[0]) / course.time[1]
        torch.testing.assert_close(rate, f / (resistive.capacitance * c), rtol=1e-4, atol=0)


def test_systems_that_rest_in_several_states_say_so() -> None:
    """Max poolings (a minimum a choice of routes) and bistable media: starts end far apart, and the flag tells."""
    pooled = ConvHopfieldNetwork([1, 4, 4], [3], 2, pooling="max", gain=2.0).double()
    medium = FitzHughNagumoChain([4, 12, 3], control=0.05, leak=20.0).double()
    inputs = torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for system, some in ((pooled, inputs), (medium, torch.zeros(1, 4, dtype=torch.float64))):
        assert system.multistable
        x = some.repeat_interleave(12, 0)
        start = system.random_state(x, torch.Generator().manual_seed(1))
        found = relax(system, x, start=start, tolerance=1e-9, max_iterations=2000)
        ends = flat(found.state).unflatten(0, (len(some), 12))
        apart = (ends - ends[:, :1]).abs().amax(2)
        assert float(apart[found.converged.view(len(some), 12)].max()) > 0.1
    assert not ConvHopfieldNetwork([1, 4, 4], [3], 2).multistable
    assert ConvHopfieldNetwork([1, 4, 4], [3], 2, "logistic", pooling="max").multistable
    assert not ConvHopfieldNetwork([1, 4, 4], [3], 2, pooling="max", pool_after=[]).multistable
    pooled = ConvHopfieldNetwork([1, 4, 4], [3], 2, pooling="max").double()
    step = EquilibriumPropagation(SquaredError()).backward(pooled, inputs[:2], inputs.new_zeros(2, 2))
    assert step.used.all()  # kinks: branches are not checked


class Lateral(HopfieldNetwork):
    """With an energy of its own."""

    def energy(self, state, x, routes=None):
        return super().energy(state, x) + 0.1 * state[0].square().sum(1)


def test_flows_that_do_not_fit_are_told() -> None:
    """One line each: no system moves by equations of another, and noise acts where it samples exp(-F / T)."""
    x, _ = batch(3, 2, 2)
    system = network("tanh", (3, 4, 2))
    with pytest.raises(InputError, match=r"flow must be one of gradient, hopfield, .*Did you mean 'hopfield'"):
        simulate(system, x, 1.0, flow="hopfeild")
    for flow in ("hopfield", "rate"):
        with pytest.raises(InputError, match=f"temperature must be 0 for flow '{flow}'"):
            simulate(system, x, 1.0, flow=flow, temperature=0.1)
        for other in (Lateral([3, 4, 2], "tanh").double(), LangevinHopfield([3, 4, 2]).double()):
            with pytest.raises(InputError, match="flow must be one of gradient, inertial, skew, but was"):
                simulate(other, x, 1.0, flow=flow)
    graph = system.to_circuit()
    nudge = Nudge(CrossEntropy(), torch.tensor([0, 1]), 0.1)  # leaves an output no update in closed form
    with pytest.raises(InputError, match="flow must be one of gradient, hopfield, inertial, skew, but was 'rate'"):
        simulate(graph, x, 1.0, nudge, flow="rate")
    layers = simulate(system, x, 1.0, nudge, flow="hopfield")
    nodes = simulate(graph, x, 1.0, nudge, flow="hopfield")
    torch.testing.assert_close(torch.cat(layers.state, 2), nodes.state[0], rtol=0, atol=1e-12)
    lateral = Lateral([3, 4, 2], "tanh").double()
    course = simulate(lateral, x, 30.0, steps=300)  # by its own energy
    end = tuple(s[-1] for s in course.state)
    assert float((flat(end) - flat(relax(lateral, x, tolerance=1e-10).require().state)).abs().max()) < 1e-6
