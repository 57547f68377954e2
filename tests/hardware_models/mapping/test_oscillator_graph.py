"""Mapped networks oscillator by oscillator: four phases a unit, whose mirror images are not imposed but found."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from hardware_models import DeviceModel, map_pcn
from hardware_models.devices.presets import preset
from hardware_models.mapping.mapped import Mapped
from hardware_models.mapping.oscillator import THRESHOLD
from hardware_models.mapping.oscillator_graph import PairsGraph
from physics_ep import Nudge, SquaredError, relax
from physics_ep.equilibrium import NotConverged
from physics_ep.errors import InputError
from physics_ep.maps import ConvLink, DenseLink
from physics_ep.predictive_coding import PredictiveCodingNetwork, vgg5
from physics_ep.predictive_coding.layers import PredictiveLayer
from tests.support.pcn import biased, dense, examples
from tests.support.tiers import first
from validation.gradients import compare, total_error
from validation.oracles import backprop_gradient

GAIN = {"relu": 3**0.5, "linear": 3**0.5, "hard_sigmoid": 1.5, "hard_tanh": 1.5}
POOR = {"copies": "shared", "programming_noise": 0.05, "device_mismatch": 0.1}
COPIES = {"copy_mismatch_h": 0.02, "copy_mismatch_u": 0.03, "copy_mismatch_transpose": 0.01}


def drawn(
    activation: str = "relu", depth: int = 3, gates: str = "held", **fields: Any
) -> tuple[Mapped, PairsGraph, torch.Tensor, torch.Tensor]:
    """A small network, its graph, three inputs that leave no unit at a threshold, and targets."""
    net = dense(depth, activation, width=6, n_in=5, gain=GAIN[activation])
    x, _ = examples((5,), 12)
    ideal = map_pcn(net, "oscillator", calibration=x[:3]).system
    slowest = torch.stack([r.flatten(1).amin(1) for r in ideal.rates(relax(ideal, x))]).amin(0)
    x = x[slowest > THRESHOLD][:3]
    assert len(x) == 3
    mapped = map_pcn(net, "oscillator", DeviceModel(**fields), seed=1, calibration=x, gates=gates)
    return mapped, mapped.to_graph(), x, targets(net, len(x))


def targets(net: PredictiveCodingNetwork, size: int) -> torch.Tensor:
    return torch.randn(size, *net.shapes[-1], dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def layered(mapped: Mapped, state: tuple[torch.Tensor, ...]) -> np.ndarray:
    """h and u of a state of the layers, in the order of the graph's pairs."""
    units = [*mapped.system.amplifiers_h, *mapped.system.amplifiers_u]
    return np.hstack([a.response(p).flatten(1).detach().numpy() for a, p in zip(units, state, strict=True)])


def valued(graph: PairsGraph, phi: np.ndarray) -> np.ndarray:
    upper, lower = graph.values(phi)
    return np.concatenate([*upper, *lower], -1)


def only_odd(graph: PairsGraph) -> PairsGraph:
    """Without what turns pairs as a whole."""
    first, second = np.split(graph.frequencies, 2)
    odd = (first - second) / 2
    return dataclasses.replace(graph, frequencies=np.concatenate([odd, -odd]))


# -- equations ----------------------------------------------------------------------------------------------------


def test_couplings_edge_by_edge() -> None:
    """Two layers of ReLUs written down edge by edge in units of activity: torques on phases of no symmetry, their
    slopes against differences, and the course against DOP853. Else the graph is not that of the paired units."""
    mapped, graph, x, y = drawn(depth=2, time_constant_mismatch=-0.1)
    net, beta = mapped.network, 0.3
    w1, w2 = (layer.weight.detach().numpy() for layer in net.stack)
    b1, b2 = (layer.bias.detach().numpy() for layer in net.stack)
    (lo, hi), (low, high) = (mapped.system.range(k) for k in range(2))
    assert (lo, low) == (0.0, -high)
    r = np.array([hi / 2] * 6 + [high] * 10)
    count = 32  # h of 6 and 10 units, u of 6 and 10
    rng = np.random.default_rng(0)
    phi = rng.uniform(-math.pi, math.pi, 2 * count)
    plus, image = phi[:count], phi[count:]

    def torques(phi: np.ndarray) -> np.ndarray:
        plus, image = phi[:count], phi[count:]
        total = np.zeros(2 * count)
        for which in (0, 16):
            for i in range(16):
                own, size = which + i, r[i]
                pairs = []
                if i < 6:
                    field = (w1[i] @ x[0].numpy() + b1[i] - hi / 2) / size
                    if which == 0:
                        for j in range(10):
                            pairs += [(6 + j, w2[j, i] * high / size), (22 + j, -w2[j, i] * high / size)]
                else:
                    field = (w2[i - 6] @ np.full(6, hi / 2) + b2[i - 6]) / size
                    pairs = [(j, w2[i - 6, j] * (hi / 2) / size) for j in range(6)]
                pull = beta if which == 0 and i >= 6 else 0.0
                if pull:
                    field += beta * float(y[0, i - 6]) / size
                for here, sign in ((own, 1), (count + own, -1)):
                    near, far = (plus, image) if sign == 1 else (image, plus)
                    at = phi[here]
                    total[here] += sign * field * math.cos(at) - (1 + pull) / 2 * math.sin(2 * at)
                    for other, coupling in pairs:
                        total[here] += coupling / 2 * math.sin(near[other] - at)
                        total[here] -= coupling / 2 * math.sin(far[other] - at)
        return total

    clamps = graph.clamps(x[:1], y[:1], beta)
    np.testing.assert_allclose(graph.torque(phi[None], clamps)[0], torques(phi), atol=1e-13)
    step = 1e-6
    slopes = [
        (graph.torque(phi + step * e, clamps) - graph.torque(phi - step * e, clamps))[0] for e in np.eye(2 * count)
    ]
    np.testing.assert_allclose(graph.stiffness(phi[None], clamps)[0], -np.stack(slopes, 1) / (2 * step), atol=1e-8)
    lag = np.tile(np.repeat([1.0, 0.9], 16), 2)
    exact = solve_ivp(lambda t, v: torques(v) / lag, (0, 1.5), phi, "DOP853", rtol=1e-10, atol=1e-10).y[:, -1]
    _, course = graph.course(x[:1], 1.5, y[:1], beta, start=phi[None])
    np.testing.assert_allclose(course[-1, 0], exact, atol=1e-6)
    v = np.concatenate([np.full(6, hi / 2), np.zeros(10)] * 2) + np.tile(r, 2) * (np.sin(plus) - np.sin(image)) / 2
    np.testing.assert_allclose(valued(graph, phi[None])[0], v, atol=1e-14)


@pytest.mark.full
@pytest.mark.parametrize("activation", first(2, GAIN))
@pytest.mark.parametrize("gates", ["held", "live"])
@pytest.mark.parametrize("fields", [{}, POOR, {**POOR, **COPIES}], ids=["ideal", "cells", "copies"])
def test_rest_where_the_pairs_do(activation: str, gates: str, fields: dict[str, float]) -> None:
    """Free and nudged phases: to 1e-10 of the layers' sweeps, mirrored with nothing that holds them so. Else the
    reduction to one angle a pair is wrong, or an encoding in it."""
    mapped, graph, x, y = drawn(activation, gates=gates, **fields)
    free = relax(mapped.system, x, tolerance=1e-12).require()
    rest = graph.settle(x).require().state[0].numpy()
    np.testing.assert_allclose(valued(graph, rest), layered(mapped, free.state), atol=1e-10)
    assert np.abs(graph.turns(rest)).max() < 1e-10
    held = graph.at_bounds(rest) if gates == "held" else None
    for beta in (1e-4, -1e-4):
        nudge = Nudge(SquaredError(), y, beta)
        state = relax(mapped.system, x, nudge, start=free.state, tolerance=1e-12).require().state
        nudged = graph.settle(x, y, beta, start=rest, held=held).require().state[0].numpy()
        np.testing.assert_allclose(valued(graph, nudged), layered(mapped, state), atol=1e-10)
        assert np.abs(valued(graph, nudged) - valued(graph, rest)).max() > 1e-5
        assert np.abs(graph.turns(nudged)).max() < 1e-9


def test_gradient() -> None:
    """EP from four phases a unit is EP on the layers, and backprop's gradient."""
    mapped, graph, x, y = drawn()
    beta = 1e-4
    rest = graph.settle(x).require().state[0].numpy()
    held = graph.at_bounds(rest)
    plus, minus = (graph.settle(x, y, s * beta, start=rest, held=held).require().state[0].numpy() for s in (1, -1))
    grads = graph.gradient(x, plus, minus, beta)
    assert total_error(grads, mapped.gradient(x, y, SquaredError(), beta=beta)) < 1e-8
    rows = compare(grads, backprop_gradient(mapped.network, x, y, SquaredError()))
    assert min(row.cosine for row in rows) > 1 - 1e-10
    assert len(rows) == 6


def test_convolutions_and_skips() -> None:
    """Unrolled kernels and skips in couplings and gradients, with units at a threshold, and one left for
    long at the wrong end of its range; else only dense layers are right."""
    conv = ConvLink((1, 5, 5), 2, stride=2)
    links = [conv, DenseLink(conv.post, 4), DenseLink((4,), 3)]
    generator = torch.Generator().manual_seed(2)
    skip = (0, DenseLink(conv.post, 3), 0.5)
    layers = [
        PredictiveLayer(link, activation, 1.0, generator, skip=skip if link is links[2] else None)
        for link, activation in zip(links, ("relu", "hard_tanh", "linear"), strict=True)
    ]
    net = biased(PredictiveCodingNetwork(layers, "squared").double())
    x, _ = examples((1, 5, 5), 6)
    y = targets(net, 6)
    mapped = map_pcn(net, "oscillator", calibration=x)
    graph = mapped.to_graph()
    free = relax(mapped.system, x, tolerance=1e-12).require()
    rest = graph.settle(x).require().state[0].numpy()
    np.testing.assert_allclose(valued(graph, rest), layered(mapped, free.state), atol=1e-10)
    held = graph.at_bounds(rest)
    plus, minus = (graph.settle(x, y, s * 1e-4, start=rest, held=held).require().state[0].numpy() for s in (1, -1))
    exact = backprop_gradient(net, x, y, SquaredError())
    assert total_error(graph.gradient(x, plus, minus, 1e-4), exact) < 1e-6


# -- mirror images ------------------------------------------------------------------------------------------------


def test_a_turned_pair_turns_back() -> None:
    """One pair without partners, inside its range: e decays at the rate of the pair itself, cos^2 a."""
    net = dense(1, "relu", n_in=5)
    x, _ = examples((5,), 2)
    mapped = map_pcn(net, "oscillator", calibration=x)
    graph = mapped.to_graph()
    rest = graph.settle(x).require().state[0].numpy()
    start = rest + 1e-4
    time, course = graph.course(x, 3.0, start=start, points=4, tolerance=1e-12)
    rate = np.cos(rest[:, :20]) ** 2
    expected = 1e-4 * np.exp(-rate * time[:, None, None])
    np.testing.assert_allclose(graph.turns(course), expected, rtol=1e-6)
    (rates,) = mapped.system.rates(relax(mapped.system, x))
    np.testing.assert_allclose(rate[:, :10], rates.numpy(), rtol=1e-10)


def test_mirrors_mend_or_break() -> None:
    """Phases 0.01 rad off their mirror images return to them; some that are 0.3 to 1 rad off end elsewhere at rest.
    Else the construction would be as safe or as unsafe as nobody has seen it."""
    _, graph, x, _ = drawn()
    rest = graph.settle(x).require().state[0].numpy()
    rng = np.random.default_rng(3)

    def ends(size: float) -> np.ndarray:
        _, course = graph.course(x, 600.0, start=rest + rng.uniform(-size, size, rest.shape))
        found = graph.settle(x, start=course[-1]).require().state[0].numpy()
        off = np.abs(valued(graph, found) - valued(graph, rest)).max(1)
        # Wrong values are of turned pairs: mirrored ones have one state.
        assert ((off > 1e-3) <= (np.abs(graph.turns(found)).max(1) > 0.1)).all()
        return off

    assert ends(0.01).max() < 1e-9
    assert max(float(ends(size).max()) for size in (0.3, 0.5, 1.0)) > 0.01


def test_strong_nudges_break_mirrors() -> None:
    """Nudged with free gates from the free state as it is rounded: mirrored at beta 1e-4, turned at 0.05."""
    _, graph, x, y = drawn(gates="live")
    rest = graph.settle(x).require().state[0].numpy()
    turned = [
        np.abs(graph.turns(graph.course(x, 300.0, y, beta, start=rest)[1][-1])).max() for beta in (1e-4, 0.05)
    ]
    assert turned[0] < 1e-9
    assert turned[1] > 0.1


# -- detuning -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "activation", ["relu", *(pytest.param(a, marks=pytest.mark.full) for a in GAIN if a != "relu")]
)
def test_odd_detuning(activation: str) -> None:
    """Frequencies apart within pairs, of h and of u: the rounded clips' states. Else those are no clips of
    oscillators."""
    mapped, graph, x, _ = drawn(activation, detuning=0.01)
    free = relax(mapped.system, x, tolerance=1e-12).require()
    rest = only_odd(graph).settle(x).require().state[0].numpy()
    np.testing.assert_allclose(valued(graph, rest), layered(mapped, free.state), atol=1e-9)
    ideal, _, _, _ = drawn(activation)
    assert np.abs(valued(graph, rest) - layered(ideal, relax(ideal.system, x).state)).max() > 1e-3


@pytest.mark.parametrize("activation", ["linear", "hard_tanh"])
def test_even_detuning_is_of_second_order(activation: str) -> None:
    """What the pairs leave out, frequencies that both of a pair have: drawn independently, of an effect as their
    square. Else it must not be left out."""
    size, turn = [], []
    for detuning in (1e-5, 2e-5, 4e-5):
        _, graph, x, _ = drawn(activation, detuning=detuning)
        both = graph.settle(x).require().state[0].numpy()
        odd = only_odd(graph).settle(x).require().state[0].numpy()
        size.append(np.abs(valued(graph, both) - valued(graph, odd)).max())
        turn.append(np.abs(graph.turns(both)).max())
    np.testing.assert_allclose(np.log2(np.divide(turn[1:], turn[:-1])), 1, atol=0.02)
    np.testing.assert_allclose(np.log2(np.divide(size[1:], size[:-1])), 2, atol=0.04)
    assert 0 < size[0] < 4 * graph.radii.max() * turn[0] ** 2
    _, wide, _, _ = drawn("linear", detuning=0.01)
    first, second = np.split(wide.frequencies, 2)
    assert np.corrcoef(first - second, first + second)[0, 1] == pytest.approx(0, abs=0.3)
    assert np.std(wide.frequencies) == pytest.approx(0.01, rel=0.2)


def test_pairs_slip_off_their_end() -> None:
    """ReLU pairs pushed towards the end at which they begin pass it, and rest as those that are pushed away."""
    net = dense(2, "relu", width=6, n_in=5)
    x, _ = examples((5,), 1)
    mapped = map_pcn(net, "oscillator", DeviceModel(detuning=0.02), seed=1, calibration=x)
    graph = only_odd(mapped.to_graph())
    half = graph.count // 2
    hidden = np.zeros(half, bool)
    hidden[:6] = hidden[16:22] = True
    every = np.tile(hidden, 2)
    start = np.where(hidden, -math.pi / 2, 0.0)
    begin = np.concatenate([start, -start])[None]
    pushed = dataclasses.replace(graph, frequencies=graph.frequencies * np.where(every, -1.0, 1.0))
    # A silence before the phase: all currents 2 % of r short of the end.
    silent = dataclasses.replace(
        pushed,
        couplings=pushed.couplings * ~every[:, None],
        inputs=pushed.inputs * ~every[:, None],
        fields=np.where(every, 1.02 * np.sign(begin[0]), pushed.fields),
    )
    _, slipped = silent.course(x, 400.0, start=begin)
    _, course = pushed.course(x, 400.0, start=slipped[-1])
    rest = pushed.settle(x, start=course[-1]).require().state[0].numpy()
    state = layered(mapped, relax(mapped.system, x, tolerance=1e-12).require().state)
    np.testing.assert_allclose(valued(graph, rest), state, atol=1e-9)
    assert (np.cos(rest[0, :half][hidden]) < 0).all()


def test_ring_oscillators() -> None:
    """The preset against the figures of its papers, and in use: pairs lock, h and u apart as detuning has them."""
    device = preset("ring-oscillator")
    assert device.oscillator_power * 1968 == pytest.approx(0.042)
    assert device.oscillator_frequency == pytest.approx(50 / 50e-9)
    assert 2 * device.levels - 1 == len(range(-14, 15))
    # A linewidth of 2 D / 2 pi, and L(f) = 2 D / (2 pi f)^2 beyond it.
    offset = 2 * math.pi * 1e6
    assert 10 * math.log10(2 * device.phase_noise / offset**2) == pytest.approx(-90, abs=0.5)
    net = dense(3, "hard_tanh", width=6, n_in=5, gain=1.5)
    x, _ = examples((5,), 3)
    mapped = map_pcn(net, "oscillator", device, calibration=x)
    graph = map_pcn(net, "oscillator", device.replace(phase_noise=0.0), calibration=x).to_graph()
    rest = graph.settle(x).require().state[0].numpy()
    state = relax(mapped.system, x, tolerance=1e-12).require().state
    even = np.abs(valued(graph, rest) - layered(mapped, state)).max()
    assert 0 < even < 1e-3
    h, u = graph.values(rest)
    assert 1e-3 < max(float(np.abs(a - b).max()) for a, b in zip(h, u, strict=True)) < 0.3


# -- refusals -----------------------------------------------------------------------------------------------------


def test_refusals() -> None:
    """One line each, that says what must be otherwise; and no state passes for one at rest that is none."""
    x, _ = examples((5,), 3)
    net = dense(2, "relu", width=6, n_in=5)
    with pytest.raises(InputError, match="calibration must be given: it sets the ranges"):
        map_pcn(net, "oscillator").to_graph()
    noisy = map_pcn(net, "oscillator", DeviceModel(phase_noise=1.0), calibration=x)
    with pytest.raises(InputError, match="phase_noise must be 0 for a graph of constant couplings, but was 1"):
        noisy.to_graph()
    with pytest.raises(InputError, match="too large for a graph of at most 4096 oscillators: 8040"):
        map_pcn(dense(2, "relu", width=2000, n_in=5), "oscillator", calibration=x).to_graph()
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pooled = vgg5(10, input_shape=(3, 32, 32), width=1 / 32).double()
    with pytest.raises(InputError, match=r"Layer \d has a max pooling, whose switches are not couplings"):
        map_pcn(pooled, "oscillator", calibration=image).to_graph()
    graph = map_pcn(net, "oscillator", calibration=x).to_graph()
    with pytest.raises(NotConverged, match="3 of 3 examples: worst residual"):
        graph.settle(x, max_iterations=2).require()
