"""The analog circuit of 1984: if these fail, volts, seconds, watts or gradients are not those of the circuit."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.linalg import expm

from hardware_models import AnalogHopfieldCircuit
from hardware_models.analog import analog_hopfield
from hardware_models.power import power
from physics_ep import CrossEntropy, EquilibriumPropagation, Nudge, SquaredError, centered, relax, simulate
from physics_ep.errors import InputError
from physics_ep.integrators import TABLEAUS, step
from physics_ep.motion import Motion
from physics_ep.registry import build_system
from validation import check_system, implicit_gradient

from .graphs import RESPONSES, RandomGraph
from .systems import batch, network

KILO, NANO, PICO = 1e3, 1e-9, 1e-12


class Bench:
    """A random sparse circuit of mixed amplifiers, R, C and gain differing from node to node, in plain numpy."""

    def __init__(
        self,
        seed: int = 0,
        n: int = 24,
        kinds: tuple[str, ...] = ("tanh", "logistic", "linear"),
        strength: float = 0.9,
    ) -> None:
        graph = RandomGraph(seed, n, gain=1.0, kinds=kinds)
        rng = np.random.default_rng(seed + 1)
        free = len(graph.free)
        self.graph, self.supply = graph, 0.8
        self.resistance = 50 * KILO * rng.uniform(0.5, 1.0, free)
        self.capacitance = 0.1 * PICO * rng.uniform(0.5, 3.0, free)
        self.gain = rng.uniform(8.0, 12.0, free)
        sums = np.zeros(n)
        for end in graph.edges.T:
            np.add.at(sums, end, np.abs(graph.weights))
        self.weights = strength * graph.weights / (100 * KILO * sums.max())
        self.biases = 1e-6 * graph.biases
        self.x, self.y = self.supply * graph.x, self.supply * graph.y
        self.matrix = np.zeros((n, n))
        for w, (i, j) in zip(self.weights, graph.edges, strict=True):
            self.matrix[i, j] += w
            self.matrix[j, i] += w
        self.circuit = AnalogHopfieldCircuit.from_edges(
            n,
            graph.edges,
            self.weights,
            graph.units,
            inputs=graph.inputs,
            outputs=graph.outputs,
            biases=self.biases,
            resistance=self.resistance,
            capacitance=self.capacitance,
            supply=self.supply,
            gain=self.gain,
        )

    def volts(self, u: np.ndarray) -> np.ndarray:
        """Outputs of all nodes, (B, n)."""
        out = np.empty((len(u), self.graph.n))
        p = self.gain * u / self.supply
        out[:, self.graph.free] = self.supply * self.graph.response(p)
        out[:, self.graph.inputs] = self.x
        return out

    def current(self, u: np.ndarray, nudge: Nudge | None = None) -> np.ndarray:
        """What charges each capacitor, (B, n_free)."""
        v = self.volts(u)
        found = (v @ self.matrix)[:, self.graph.free] + self.biases - u / self.resistance
        if nudge is not None:
            at = [list(self.graph.free).index(k) for k in self.graph.outputs]
            found[:, at] += float(nudge.beta) * (nudge.y.numpy() - v[:, self.graph.outputs])
        return found

    def nudge(self, share: float = 0.5) -> Nudge:
        return Nudge(SquaredError(), self.y, share * self.circuit.nudge_scale)


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


def small(activation: str = "tanh") -> tuple[AnalogHopfieldCircuit, torch.Tensor, torch.Tensor]:
    x, y = batch(5, 3, 4)
    return AnalogHopfieldCircuit.from_network(network(activation, (5, 6, 4, 3))), x, y


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
    motion = phase.motion()
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
        (fast,) = motion.advance(w, motion.velocity(w), tableau, dt, 50)
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
    course = simulate(circuit, bench.x[:1], 2 * expected, start=(moved,), steps=2000)
    assert float(course.settling_time) == pytest.approx(expected, rel=0.05)
    # From rest, the tail falls at the same rate.
    course = simulate(circuit, bench.x[:1], 14 * circuit.time_constant + 3 * expected, steps=4000)
    left = course.residual[:, 0].numpy()
    tail = slice(-800, None)
    fitted = -np.polyfit(course.time.numpy()[tail], np.log(left[tail]), 1)[0]
    assert fitted == pytest.approx(-rates[slowest].real, rel=0.05)


# -- equilibria -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kinds", [("tanh", "logistic", "linear"), ("linear", "hard_sigmoid")])
def test_transients_end_where_relax_does(kinds: tuple[str, ...]) -> None:
    """Free and nudged, R, C and gain of every node its own: the same volts by two ways, and Kirchhoff's law."""
    bench = Bench(2, kinds=kinds, strength=0.2)
    circuit = bench.circuit
    free = relax(circuit, bench.x, tolerance=1e-13).require()
    phases: list = [(None, None)]
    if kinds[0] == "linear":  # outputs whose nudged update has a closed form
        phases.append((bench.nudge(), free.state))
    for given, start in phases:
        target = free if given is None else relax(circuit, bench.x, given, free.state, tolerance=1e-13).require()
        course = simulate(circuit, bench.x, 2e-6, given, start, every=50)
        assert float((course.state[0][-1] - target.state[0]).abs().max()) < 1e-9
        scale = circuit.residual_scale
        assert np.abs(bench.current(course.internal[0][-1].numpy(), given)).max() < 1e-9 * scale
        assert float((course.energy[1:] - course.energy[:-1]).max()) < 1e-12 * float(course.energy.abs().max())
        assert target.residual_unit == "A"


@pytest.mark.parametrize("method", list(TABLEAUS))
def test_energy_never_rises(method: str) -> None:
    """-dE/dt = sum C (du/dt)^2 dV/du >= 0, in watts a second: free and nudged, with every integrator."""
    circuit, x, y = small()
    free = relax(circuit, x).require()
    for nudge, start in ((None, None), (Nudge(SquaredError(), y, 0.3 * circuit.nudge_scale), free.state)):
        course = simulate(circuit, x, 1e-7, nudge, start, method=method, steps=400, every=4)
        assert float((course.energy[1:] - course.energy[:-1]).max()) < 1e-13 * float(course.energy.abs().max())
        if method == "rk4":
            u, c = course.internal[0], circuit.capacitance
            motion = circuit.phase(circuit.prepare(x)).nudged(nudge).motion()
            eps = 1e-6
            with torch.no_grad():
                rate = torch.stack([motion.velocity((row,))[0] for row in u])
                gain = torch.stack(
                    [(circuit.amplified(r + eps) - circuit.amplified(r - eps)) / (2 * eps) for r in u]
                )
                fall = (c * rate.square() * gain).sum(2)
            measured = -(course.energy[2:] - course.energy[:-2]) / (course.time[2:] - course.time[:-2])[:, None]
            assert float((measured - fall[1:-1]).abs().max()) < 1e-2 * float(fall.max())


def test_saturated_equilibria_stay() -> None:
    """Hard-sigmoid amplifiers at their rails hide u: a phase that starts there must not jump."""
    circuit = AnalogHopfieldCircuit.from_network(network("hard_sigmoid", (5, 12, 12, 3), gain=3.0))
    x, _ = batch(5, 3, 4)
    free = relax(circuit, x).require()
    assert bool(((free.state[0] == 0) | (free.state[0] == 1)).any())
    course = simulate(circuit, x, 1e-7, start=free.state)
    assert float((course.state[0] - free.state[0]).abs().max()) < 1e-9
    assert float(course.residual.max()) < 1e-9


def test_any_cost_nudges_in_time() -> None:
    """Cross-entropy has no constant conductance; its current is added: at the end it balances the node's own."""
    circuit, x, _ = small()
    labels = torch.tensor([0, 1, 2, 0])
    nudge = Nudge(CrossEntropy(), labels, 0.3 * circuit.nudge_scale)
    course = simulate(circuit, x, 4e-7, nudge, method="dormand_prince", rtol=1e-9, atol=1e-12)
    v, u = course.state[0][-1], course.internal[0][-1]
    own = (circuit.drives((v,), x) - u / circuit.resistance)[:, circuit.output_columns]
    outputs = circuit.outputs((v,))
    pull = nudge.beta * (outputs.softmax(1) - torch.nn.functional.one_hot(labels, 3))
    assert float((own - pull).abs().max()) < 1e-6 * circuit.residual_scale
    assert float((course.energy[1:] - course.energy[:-1]).max()) < 1e-12 * float(course.energy.abs().max())


@pytest.mark.parametrize("activation", ["tanh", "hard_sigmoid", "logistic"])
def test_the_circuit_is_the_network_in_volts(activation: str) -> None:
    """V = V_s s and E = V_s^2 / (A R) E_network, free and nudged by beta / (A R): else the units are mixed up."""
    net = network(activation, (5, 6, 4, 3))
    x, y = batch(5, 3, 4)
    volt = 0.6
    circuit = AnalogHopfieldCircuit.from_network(net, supply=volt, resistance=3 * KILO)
    free, theirs = relax(circuit, volt * x, tolerance=1e-13).require(), relax(net, x, tolerance=1e-13).require()
    apart = (free.state[0] / volt - torch.cat(theirs.state, 1)).abs().max()
    assert float(apart) < 1e-10
    energy = circuit.energy(free.state, volt * x) / (volt**2 * circuit.nudge_scale)
    assert torch.allclose(energy, net.energy(theirs.state, x), atol=1e-12)
    nudged = relax(
        circuit, volt * x, Nudge(SquaredError(), volt * y, 0.2 * circuit.nudge_scale), free.state, tolerance=1e-13
    ).require()
    other = relax(net, x, Nudge(SquaredError(), y, 0.2), theirs.state, tolerance=1e-13).require()
    assert nudged.displacement is not None
    assert other.displacement is not None
    apart = (nudged.displacement[0] / volt - torch.cat(other.displacement, 1)).abs().max()
    assert float(apart) < 1e-10


def test_gradients_are_the_networks_in_siemens() -> None:
    """dC/dT = V_s^2 A R dC/dw and dC/dI = V_s A R dC/db, from EP; and both agree with implicit differentiation."""
    net = network("tanh", (5, 6, 4, 3))
    x, y = batch(5, 3, 4)
    volt = 0.6
    circuit = AnalogHopfieldCircuit.from_network(net, supply=volt, resistance=3 * KILO)
    EquilibriumPropagation(SquaredError(), centered(), beta=1e-3).backward(net, x, y)
    EquilibriumPropagation(SquaredError(), centered(), beta=1e-3 * circuit.nudge_scale).backward(
        circuit, volt * x, volt * y
    )
    layers = net.couplings
    weight = torch.cat([layer.weight.grad.flatten() for layer in layers]) * volt**2 / circuit.nudge_scale
    bias = torch.cat([layer.bias.grad for layer in layers]) * volt / circuit.nudge_scale
    for mine, theirs in ((circuit.weight.grad, weight), (circuit.bias.grad, bias)):
        assert float((mine - theirs).norm()) < 1e-9 * float(theirs.norm())
    circuit.zero_grad()
    EquilibriumPropagation(SquaredError(), centered(), beta=1e-5 * circuit.nudge_scale).backward(
        circuit, volt * x, volt * y
    )
    exact = implicit_gradient(circuit, volt * x, volt * y, SquaredError())
    for name, g in exact.items():
        assert float((circuit.get_parameter(name).grad - g).norm()) < 1e-9 * float(g.norm())


def test_automatic_beta_is_in_siemens() -> None:
    """beta='auto' measures the response in volts an ampere: the network's beta, over A R."""
    net = network("tanh", (5, 6, 4, 3))
    circuit = AnalogHopfieldCircuit.from_network(net)
    x, y = batch(5, 3, 4)
    found = []
    for system in (net, circuit):
        ep = EquilibriumPropagation(SquaredError(), centered(), beta="auto")
        ep.backward(system, x, y)
        found.append(ep.beta)
    assert found[1] / circuit.nudge_scale == pytest.approx(found[0], rel=1e-3)


def test_the_circuit_keeps_every_invariant() -> None:
    """check_system counts beta and force in units of one, so the circuit has A R = 1 ohm here, and R, C its own."""
    net = network("tanh", (5, 6, 4, 3))
    circuit = AnalogHopfieldCircuit.from_network(net, resistance=0.1, gain=10.0, capacitance=1.0)
    assert circuit.nudge_scale == pytest.approx(1.0)
    check_system(circuit, *batch(5, 3, 4))
    bench = Bench(2, kinds=("linear", "tanh", "linear"), strength=0.2)
    # The same volts with every conductance a hundred thousand times as large.
    plain = bench.circuit
    scale = 1 / plain.nudge_scale
    graph = bench.graph
    check_system(
        AnalogHopfieldCircuit.from_edges(
            graph.n,
            graph.edges,
            scale * bench.weights,
            graph.units,
            inputs=graph.inputs,
            outputs=graph.free[[0, 5]],
            biases=scale * bench.biases,
            resistance=bench.resistance / scale,
            gain=bench.gain,
            supply=bench.supply,
        ),
        bench.x,
        bench.y[:, :2],
    )


# -- power ------------------------------------------------------------------------------------------------------


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


# -- use --------------------------------------------------------------------------------------------------------


def test_training_keeps_leaks_positive() -> None:
    """Conductances that outgrow 1 / R are scaled down, symmetric as they are; others are left alone."""
    circuit, _, _ = small()
    before = circuit.weight.detach().clone()
    circuit.constrain()
    assert torch.equal(circuit.weight, before)
    with torch.no_grad():
        circuit.weight.mul_(5)
    assert float(circuit.leak.min()) < 0
    circuit.constrain()
    assert float(circuit.leak.min()) >= -1e-12 / float(circuit.resistance[0])
    assert bool((circuit.weight / before).min() > 0)


def test_the_registered_circuit_is_built_and_learns() -> None:
    """`analog-hopfield` in a config: one step down EP's gradient lowers the loss."""
    circuit = build_system("analog-hopfield", sizes=[5, 6, 3], activation="tanh", resistance=2e4, seed=1)
    assert isinstance(circuit, AnalogHopfieldCircuit)
    assert float(circuit.resistance[0]) == 2e4
    x, y = batch(5, 3, 16)
    ep = EquilibriumPropagation(SquaredError(), centered(), beta=1e-3 * circuit.nudge_scale)
    before = ep.backward(circuit, x, y).loss
    with torch.no_grad():
        for p in circuit.parameters():
            p.sub_(0.5 * circuit.nudge_scale**2 * p.grad)
    circuit.constrain()
    assert float(ep.backward(circuit, x, y).loss) < float(before)


def test_compiled_steps_are_faster_than_torch_steps() -> None:
    """Many steps at once, without torch in between: else the kernels are not worth their code."""
    bench = Bench(1, n=400)
    motion = bench.circuit.phase(bench.circuit.prepare(bench.x)).motion()
    w = motion.start(bench.circuit.initial_state(bench.x))

    def seconds(advance: object) -> float:
        began = time.perf_counter()
        advance(w, motion.velocity(w), TABLEAUS["rk4"], 1e-11, 200)  # type: ignore[operator]
        return time.perf_counter() - began

    seconds(motion.advance)
    assert seconds(motion.advance) < seconds(lambda *given: Motion.advance(motion, *given))


EDGE = {"n_nodes": 2, "edges": [[0, 1]], "weights": [1e-6], "outputs": [1]}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"resistance": -1e3}, "Argument resistance must be positive, but was -1000"),
        ({"resistance": [1e3, 0.0]}, "Argument resistance must be positive, but was 0 at index 1"),
        ({"capacitance": 0.0}, "Argument capacitance must be positive, but was 0"),
        ({"capacitance": float("nan")}, "Argument capacitance must be finite, but was nan"),
        ({"gain": 0.0}, "Argument gain must be positive"),
        ({"supply": float("inf")}, "Argument supply must be finite"),
        ({"resistance": [1e3]}, r"Argument resistance must have the shape \(2,\)"),
        ({"resistance": 1e7}, "Argument resistance must be at most what the node's resistors have in parallel"),
        ({"units": "tan"}, "Did you mean 'tanh'"),
    ],
)
def test_bad_parts_are_told(options: dict, words: str) -> None:
    """One line that names the argument."""
    with pytest.raises(InputError, match=words):
        AnalogHopfieldCircuit.from_edges(**{**EDGE, **options})


def test_bad_networks_and_phases_are_told() -> None:
    """Too little gain for the weights, a beta that undoes a minimum, a trajectory of another circuit."""
    with pytest.raises(InputError, match="Argument gain must be at least"):
        analog_hopfield([5, 6, 3], gain=0.1)
    with pytest.raises(InputError, match="Argument gain must be positive"):
        AnalogHopfieldCircuit.from_network(network("tanh", (5, 3)), gain=-2.0)
    circuit, x, y = small()
    with pytest.raises(InputError, match="Argument beta must exceed"):
        relax(circuit, x, Nudge(SquaredError(), y, -2 * circuit.nudge_scale))
    with pytest.raises(InputError, match="x must be finite"):
        simulate(circuit, x * math.nan, 1e-8)
    other = simulate(network("linear", (5, 3)), x, 1.0)
    with pytest.raises(InputError, match="Argument course must hold the inputs of 13 amplifiers"):
        power(circuit, other, x)
    with pytest.raises(InputError, match="duration must be within"):
        simulate(circuit, x, 20.0)


def test_responses_are_those_of_the_units() -> None:
    """V = V_s sigma(A u / V_s) and back, elementwise in plain numpy."""
    bench = Bench(3)
    u = torch.linspace(-0.1, 0.1, 7, dtype=torch.float64)[:, None].repeat(1, len(bench.circuit.units))
    v = bench.circuit.amplified(u)
    for k, name in enumerate(bench.circuit.units):
        exact = bench.supply * RESPONSES[name](bench.gain[k] * u[:, k].numpy() / bench.supply)
        assert np.allclose(v[:, k].numpy(), exact, rtol=1e-13)
    assert float((bench.circuit.inputs_at(v) - u).abs().max()) < 1e-12
