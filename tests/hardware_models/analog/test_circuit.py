"""The analog circuit of 1984: if these fail, volts, amperes or gradients are not those of the circuit."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hardware_models import AnalogHopfieldCircuit
from hardware_models.analog.circuit import analog_hopfield
from hardware_models.analog.power import power
from physics_ep import (
    CrossEntropy,
    EquilibriumPropagation,
    Nudge,
    SquaredError,
    centered,
    relax,
    simulate,
)
from physics_ep.errors import InputError
from physics_ep.registry import build_system
from tests.support.analog_bench import KILO, Bench, small
from tests.support.graphs import RESPONSES
from tests.support.systems import batch, network
from validation import check_system, implicit_gradient

# -- equilibria -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kinds", [pytest.param(("tanh", "logistic", "linear"), marks=pytest.mark.full), ("linear", "hard_sigmoid")]
)
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
    """beta='auto' measures the response in volts an ampere: the network's limit, over A R.

    Beta itself may be lower on either, since its bias is measured by tensors, which are others in a circuit.
    """
    net = network("tanh", (5, 6, 4, 3))
    circuit = AnalogHopfieldCircuit.from_network(net)
    x, y = batch(5, 3, 4)
    found = []
    for system in (net, circuit):
        ep = EquilibriumPropagation(SquaredError(), centered(), beta="auto")
        ep.backward(system, x, y)
        found.append(ep.stability_limit)
        assert ep.beta <= 0.05 * ep.stability_limit * (1 + 1e-6)
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
    with pytest.raises(InputError, match="Argument network must be a HopfieldNetwork or a UnitGraph without units"):
        AnalogHopfieldCircuit.from_network(circuit)
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
