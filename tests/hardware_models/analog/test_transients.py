"""The analog circuit in time: if these fail, seconds, watts or joules are not those of the circuit."""

from __future__ import annotations

import copy
import math
import time

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.linalg import expm

from figures.hopfield.transients import circuit_transients, quantity
from figures.subjects import fresh_hopfield
from hardware_models import AnalogHopfieldCircuit
from hardware_models.analog.power import power
from physics_ep import Nudge, SquaredError, relax, simulate
from physics_ep.dynamics.flows import own_motion
from physics_ep.dynamics.integrators import TABLEAUS, advance, step
from physics_ep.dynamics.motion import Motion
from tests.support.analog_bench import KILO, PICO, Bench, small


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


# -- time -------------------------------------------------------------------------------------------------------


def test_one_node_charges_as_rc() -> None:
    """V(t) = A R I (1 - exp(-t / RC)), I the input's current and the bias: else a second is none."""
    ohm, farad, gain, t, bias, volt = 20 * KILO, 2 * PICO, 3.0, 1e-5, 4e-6, 0.7
    circuit = AnalogHopfieldCircuit.from_edges(
        2,
        [[0, 1]],
        [t],
        "linear",
        inputs=[0],
        outputs=[1],
        biases=[bias],
        resistance=ohm,
        capacitance=farad,
        gain=gain,
    )
    course = simulate(circuit, torch.tensor([[volt]], dtype=torch.float64), 5 * ohm * farad, steps=400)
    exact = gain * ohm * (t * volt + bias) * (1 - np.exp(-course.time.numpy() / (ohm * farad)))
    assert np.abs(course.state[0][:, 0, 0].numpy() - exact).max() < 1e-9 * exact[-1]
    assert course.time_unit == "s"
    assert float(course.settling_time) == pytest.approx(ohm * farad * math.log(100), rel=0.01)


@pytest.mark.parametrize("method", ["rk4", "dormand_prince"])
def test_two_coupled_nodes_follow_the_matrix_exponential(method: str) -> None:
    """Two linear amplifiers, different R and C, coupled by T: u(t) = (1 - e^(Mt)) u_end, from eigenvalues of M."""
    ohm, farad, gain = np.array([20 * KILO, 50 * KILO]), np.array([1 * PICO, 3 * PICO]), np.array([4.0, 2.0])
    t, bias = -8e-6, np.array([2e-6, -1e-6])
    circuit = AnalogHopfieldCircuit.from_edges(
        2, [[0, 1]], [t], "linear", outputs=[1], biases=bias, resistance=ohm, capacitance=farad, gain=gain
    )
    tau = ohm * farad
    motion = (np.array([[0, t], [t, 0]]) * gain - np.diag(1 / ohm)) / farad[:, None]
    rest = -np.linalg.solve(motion, bias / farad)
    options = {"steps": 2000} if method == "rk4" else {"rtol": 1e-11, "atol": 1e-12}
    course = simulate(circuit, torch.zeros(1, 0, dtype=torch.float64), 4 * tau.max(), method=method, **options)
    exact = np.stack([rest - expm(motion * s) @ rest for s in course.time.tolist()])
    assert np.abs(course.internal[0][:, 0].numpy() - exact).max() < 1e-9 * np.abs(rest).max()
    assert np.abs(course.state[0][:, 0].numpy() - gain * exact).max() < 1e-9 * np.abs(gain * rest).max()


@pytest.mark.parametrize("nudged", [False, True])
def test_kernels_step_as_numpy_and_torch_do(bench: Bench, nudged: bool) -> None:
    """Compiled rates and steps against Kirchhoff's law written out in numpy, and against steps taken one by one."""
    nudge = bench.nudge() if nudged else None
    circuit, width = bench.circuit, 1e-7
    phase = circuit.phase(circuit.prepare(bench.x)).nudged(nudge)
    motion = own_motion(phase)
    u = 0.2 * torch.randn(7, len(circuit.units), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    rate = bench.current(u.numpy(), nudge) / bench.capacitance
    (mine,) = motion.velocity((u,))
    assert np.abs(mine.numpy() - rate).max() < 1e-10 * np.abs(rate).max()
    with torch.enable_grad():
        v = circuit.amplified(u).requires_grad_()
        total = circuit.energy((v,), bench.x)
        total = total if nudge is None else total + nudge.energy(circuit.outputs((v,)))
        (slope,) = torch.autograd.grad(total.sum(), v)
    assert float((circuit.capacitance * mine + slope).abs().max()) < 1e-10 * float(slope.abs().max())
    for name in ("rk4", "dormand_prince"):
        w, tableau, dt = (u,), TABLEAUS[name], width / 50
        (fast,) = advance(motion, w, motion.velocity(w), tableau, dt, 50)
        for _ in range(50):
            w = step(motion, w, motion.velocity(w), dt, tableau).end
        assert float((fast - w[0]).abs().max()) < 1e-12


def test_a_transient_agrees_with_scipy(bench: Bench) -> None:
    """Nonlinear, nudged, on a sparse graph: Radau's method on the numpy circuit gives the same volts."""
    nudge, free = bench.nudge(), len(bench.circuit.units)
    course = simulate(bench.circuit, bench.x, 2e-8, nudge, method="dormand_prince", rtol=1e-9, atol=1e-11)

    def slope(_: float, u: np.ndarray) -> np.ndarray:
        return (bench.current(u.reshape(-1, free), nudge) / bench.capacitance).ravel()

    first = course.internal[0][0].numpy().ravel()
    theirs = solve_ivp(slope, (0, 2e-8), first, method="Radau", rtol=1e-9, atol=1e-11)
    apart = np.abs(theirs.y[:, -1].reshape(-1, free) - course.internal[0][-1].numpy()).max()
    assert apart < 1e-7 * np.abs(theirs.y[:, -1]).max()


def test_settling_time_is_the_slowest_eigenvalue(bench: Bench) -> None:
    """Displaced along the slowest direction of the linearised circuit, the force falls to 1 % in ln 100 / rate."""
    circuit = bench.circuit
    free = relax(circuit, bench.x[:1], tolerance=1e-14).require()
    p = (circuit.gain * circuit.inputs_at(free.state[0])[0] / bench.supply).numpy()
    slopes = {"tanh": 1 - np.tanh(p) ** 2, "linear": 1 + 0 * p, "logistic": 1 / (4 * np.cosh(p / 2) ** 2)}
    passed = np.array([float(slopes[name][k]) for k, name in enumerate(circuit.units)]) * bench.gain
    at = bench.graph.free
    motion = (bench.matrix[np.ix_(at, at)] * passed - np.diag(1 / bench.resistance)) / bench.capacitance[:, None]
    rates, modes = np.linalg.eig(motion)
    slowest = np.argmax(rates.real)
    assert rates[slowest].imag == 0
    moved = free.state[0] + 1e-4 * torch.from_numpy(passed * modes[:, slowest].real)
    expected = math.log(100) / -rates[slowest].real
    course = simulate(circuit, bench.x[:1], 2 * expected, start=(moved,), steps=500)
    assert float(course.settling_time) == pytest.approx(expected, rel=0.05)
    # From rest, the tail falls at the same rate.
    course = simulate(circuit, bench.x[:1], 14 * circuit.time_constant + 3 * expected, steps=1500)
    left = course.residual[:, 0].numpy()
    tail = slice(-300, None)
    fitted = -np.polyfit(course.time.numpy()[tail], np.log(left[tail]), 1)[0]
    assert fitted == pytest.approx(-rates[slowest].real, rel=0.05)


@pytest.mark.parametrize(
    "method", [pytest.param(m, marks=pytest.mark.full) if TABLEAUS[m].implicit else m for m in TABLEAUS]
)
def test_energy_never_rises(method: str) -> None:
    """-dE/dt = sum C (du/dt)^2 dV/du >= 0, in watts a second: free and nudged, with every integrator."""
    circuit, x, y = small()
    free = relax(circuit, x).require()
    for nudge, start in ((None, None), (Nudge(SquaredError(), y, 0.3 * circuit.nudge_scale), free.state)):
        course = simulate(circuit, x, 1e-7, nudge, start, method=method, steps=400, every=4)
        assert float((course.energy[1:] - course.energy[:-1]).max()) < 1e-13 * float(course.energy.abs().max())
        if method == "rk4":
            u, c = course.internal[0], circuit.capacitance
            motion = own_motion(circuit.phase(circuit.prepare(x)).nudged(nudge))
            eps = 1e-6
            with torch.no_grad():
                rate = torch.stack([motion.velocity((row,))[0] for row in u])
                gain = torch.stack(
                    [(circuit.amplified(r + eps) - circuit.amplified(r - eps)) / (2 * eps) for r in u]
                )
                fall = (c * rate.square() * gain).sum(2)
            measured = -(course.energy[2:] - course.energy[:-2]) / (course.time[2:] - course.time[:-2])[:, None]
            assert float((measured - fall[1:-1]).abs().max()) < 1e-2 * float(fall.max())


@pytest.mark.full
def test_compiled_steps_are_faster_than_torch_steps() -> None:
    """Many steps at once, without torch in between: else the kernels are not worth their code."""
    bench = Bench(1, n=400)
    motion = own_motion(bench.circuit.phase(bench.circuit.prepare(bench.x)))
    w = motion.start(bench.circuit.initial_state(bench.x))
    slow = copy.copy(motion)
    slow.leap = lambda *given: None

    def seconds(moving: Motion) -> float:
        began = time.process_time()
        advance(moving, w, motion.velocity(w), TABLEAUS["rk4"], 1e-11, 200)
        return time.process_time() - began

    seconds(motion)
    assert seconds(motion) < seconds(slow)


# -- power ------------------------------------------------------------------------------------------------------


@pytest.mark.full
@pytest.mark.parametrize("nudged", [False, True])
def test_power_balance_closes(bench: Bench, nudged: bool) -> None:
    """Tellegen at every instant; each class against a loop over its elements; energy against the capacitors'."""
    circuit, nudge = bench.circuit, bench.nudge() if nudged else None
    course = simulate(circuit, bench.x, 4e-8, nudge, steps=800)
    found = power(circuit, course, bench.x, nudge)
    assert float((found.imbalance.abs() / found.delivered.abs()).max()) < 1e-9
    u, at, k = course.internal[0], bench.graph.free, 300
    here = u[k].numpy()
    v = bench.volts(here)
    heat = amplifiers = inputs = 0.0
    through = np.zeros(here.shape)
    for w, (a, b) in zip(bench.weights, bench.graph.edges, strict=True):
        for tail, head in ((a, b), (b, a)):
            if head in bench.graph.inputs:
                continue
            i = list(at).index(head)
            source = np.sign(w) * v[:, tail]
            current = abs(w) * (source - here[:, i])
            through[:, i] += abs(w)
            heat = heat + current * (source - here[:, i])
            if tail in bench.graph.inputs:
                inputs = inputs + current * source
            else:
                amplifiers = amplifiers + current * source
    leaks = (here**2 * (1 / bench.resistance - through)).sum(1)
    for mine, theirs in (
        (found.pairs, heat),
        (found.amplifiers, amplifiers),
        (found.inputs, inputs),
        (found.leaks, leaks),
        (found.currents, here @ bench.biases),
    ):
        assert np.allclose(mine[k].numpy(), theirs, rtol=1e-9, atol=1e-20)
    # What was delivered and not turned into heat lies on the capacitors. Simpson's rule on the equal steps.
    simpson = np.ones(len(u))
    simpson[1:-1:2], simpson[2:-1:2] = 4, 2
    net = (
        ((found.delivered - found.pairs - found.leaks).numpy() * simpson[:, None]).sum(0)
        * float(course.time[1])
        / 3
    )
    stored = 0.5 * ((u[-1] ** 2 - u[0] ** 2) @ circuit.capacitance).numpy()
    assert np.abs(net - stored).max() < 1e-9 * float(found.energies()["pairs"].max())
    rough = found.energies()["capacitors"].numpy()
    assert np.allclose(rough, stored, rtol=1e-3, atol=1e-20)


@pytest.mark.full
def test_the_figure_shows_an_energy_that_falls() -> None:
    """What is plotted: F falls, the current is under 1 % from the settling time on, sources and sinks add up."""
    data = circuit_transients(fresh_hopfield("net", [24, 16], "tanh", 0.5, examples=1))
    for phase in data.phases:
        assert np.diff(phase.energy).max() < 1e-13 * np.abs(phase.energy).max()
        assert phase.energy[0] > phase.energy[-1]
        late = phase.time >= phase.settling_time
        assert phase.current[late].max() <= 0.01 * phase.current.max() < phase.current[~late][-1]
        sources = sum(phase.power[name] for name in ("amplifiers", "inputs", "nudge"))
        sinks = sum(phase.power[name] for name in ("pairs", "leaks", "capacitors"))
        assert np.abs(sources - sinks).max() < 1e-9 * np.abs(sources).max()
    assert data.phases[0].beta == 0 < data.phases[1].beta
    assert quantity(2e-8, "s") == "20 ns"
    assert quantity(0.0, "W") == "0 W"
