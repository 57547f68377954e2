"""Thermal noise and finite bandwidth of mapped networks, against linear systems in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import expm, solve_continuous_lyapunov

from hardware_models import DeviceModel, map_pcn
from hardware_models.laws.elements import BOLTZMANN
from physics_ep import CrossEntropy, Nudge, SquaredError, relax, simulate
from physics_ep.equilibrium import NotConverged
from physics_ep.errors import InputError
from physics_ep.predictive_coding import mlp
from tests.support.pcn import dense, examples
from validation.gradients import total_error

BETA = 0.1


def linear_pair(lag: tuple[float, float] | None = None):
    """A linear network of two layers, and its paired units' matrix: d(p1, p2, q1, q2[, V1h, V1u])/dt = M ... ."""
    net = mlp([3, 4, 2], "linear", gain=2.0, seed=1).double()
    first, second = (layer.weight.detach().numpy() for layer in net.stack)
    eye, zero = np.eye, np.zeros
    feed = second.T
    # p1' = -p1 + feed (p2 - q2), p2' = -(1 + beta) p2 + W p1, q1' = -q1, q2' = -q2 + W p1; outputs of layer 1 lag.
    rows = [
        [-eye(4), feed, zero((4, 4)), -feed],
        [second, -(1 + BETA) * eye(2), zero((2, 4)), zero((2, 2))],
        [zero((4, 4)), zero((4, 2)), -eye(4), zero((4, 2))],
        [second, zero((2, 2)), zero((2, 4)), -eye(2)],
    ]
    matrix = np.block(rows)
    if lag is not None:
        matrix = np.block([[matrix, zero((12, 8))], [zero((8, 20))]])
        matrix[4:6, :4], matrix[4:6, 12:16] = 0, second
        matrix[10:12, :4], matrix[10:12, 12:16] = 0, second
        matrix[12:16, :4], matrix[12:16, 12:16] = eye(4) / lag[0], -eye(4) / lag[0]
        matrix[16:, 6:10], matrix[16:, 16:] = eye(4) / lag[1], -eye(4) / lag[1]
    return net, first, matrix


@pytest.mark.full
def test_lagging_amplifiers_by_the_matrix_exponential() -> None:
    """Two poles a unit: the course of a nudged linear network with lags of h and u of their own is e^(Mt)."""
    device = DeviceModel(amplifier_lag=0.3, amplifier_lag_mismatch=0.5)
    net, _, matrix = linear_pair((0.3, 0.45))
    x = torch.tensor([[0.5, -1.0, 2.0]], dtype=torch.float64)
    mapped = map_pcn(net, "hopfield", device)
    nudge = Nudge(SquaredError(), torch.zeros(1, 2, dtype=torch.float64), BETA)
    end = relax(mapped.system, x, nudge, tolerance=1e-12).require().state
    free = relax(mapped.system, x).require().state
    generator = torch.Generator().manual_seed(0)
    begin = tuple(s + torch.randn(s.shape, generator=generator, dtype=s.dtype) for s in free)
    course = simulate(mapped.system, x, 3.0, nudge, start=begin, steps=300)
    gap = np.concatenate([(a - b)[0].numpy() for a, b in zip(begin, end, strict=True)])
    gap = np.concatenate([gap, gap[:4], gap[6:10]])  # amplifiers at rest: V = p
    wanted = expm(3.0 * matrix) @ gap
    found = np.concatenate([(a[-1] - b)[0].numpy() for a, b in zip(course.state, end, strict=True)])
    np.testing.assert_allclose(found, wanted[:12], atol=1e-8)


@pytest.mark.full
def test_lags_change_the_course_and_not_the_equilibrium() -> None:
    """The gradient is that without lags; the settling time that is reported is the one that is measured."""
    net = dense(3, "tanh", width=8, gain=6**0.5)
    x, y = examples(size=2)
    wanted = map_pcn(net).gradient(x, y, CrossEntropy(), beta=1e-2)
    for lag, mismatch in ((0.5, 0.0), (1.0, 0.0)):
        device = DeviceModel(amplifier_lag=lag, amplifier_lag_mismatch=mismatch)
        mapped = map_pcn(net, "hopfield", device)
        assert total_error(mapped.gradient(x, y, CrossEntropy(), beta=1e-2, solver="flow"), wanted) < 1e-9
        settled, end = mapped.settling(x)
        assert end.require()
        assert settled == pytest.approx(mapped.fidelity.settling_time / 1e-6, rel=0.4)
    assert (
        map_pcn(net, "hopfield", DeviceModel(amplifier_lag=0.2)).fidelity.settling_time
        > map_pcn(net).fidelity.settling_time
    )


@pytest.mark.slow
def test_amplifiers_of_u_must_not_lag_more() -> None:
    """Ten layers: amplifiers of u 30 % slower lose the free state, as unequal time constants do."""
    net = dense(10, "tanh", width=32, gain=6**0.5)
    x, _ = examples(size=1)
    equal = map_pcn(net, "hopfield", DeviceModel(amplifier_lag=1.0))
    disturbed = tuple(s + 1e-3 for s in relax(equal.system, x).state)
    assert relax(equal.system, x, start=disturbed, solver="flow", tolerance=1e-8).require()
    slower = map_pcn(net, "hopfield", DeviceModel(amplifier_lag=1.0, amplifier_lag_mismatch=0.3))
    with pytest.raises(NotConverged):
        relax(slower.system, x, start=disturbed, tolerance=1e-8, max_iterations=300).require()


def test_a_constant_current_stands_for_white_noise() -> None:
    """The mean over t of a linear network under white noise: exact, from its covariance, against A^-1 D A^-T / t,
    which is what a random current that is constant over the phase gives: the same but for O(1 / t)."""
    _, _, matrix = linear_pair()
    noise = np.diag(np.linspace(0.5, 2, 12))
    covariance = solve_continuous_lyapunov(matrix, -noise)
    inverse = np.linalg.inv(matrix)
    first = inverse @ noise @ inverse.T
    off = []
    for t in (50.0, 100.0, 200.0):
        # (2 / t^2) integral of (t - s) C(s), C(s) = e^(Ms) C: by parts, -M^-1 t - M^-2 (1 - e^(Mt)).
        part = -inverse * t - inverse @ inverse @ (np.eye(12) - expm(matrix * t))
        mean = (part @ covariance + (part @ covariance).T) / t**2
        off.append(np.abs(mean * t - first).max() / np.abs(first).max())
    assert off[0] < 0.1
    np.testing.assert_allclose(np.array(off[:-1]) / off[1:], 2, rtol=0.1)


@pytest.mark.parametrize("fields", [{}, {"copy_mismatch_u": 1e-9}], ids=["mirrored", "copied"])
@pytest.mark.parametrize("substrate", ["hopfield", "resistive"])
def test_thermal_noise_of_a_phase(substrate: str, fields: dict[str, float]) -> None:
    """Covariance of the nudged currents over many phases against A^-1 D A^-T / t with Nyquist's D, node by node.

    The current of a mirrored array is one current in h and u: taken for two, h - u, which EP reads, gets many times
    its noise. Cells of resistive networks, and copies, have their own."""
    net, _, matrix = linear_pair()
    x = torch.tensor([[0.5, -1.0, 2.0]], dtype=torch.float64).expand(4000, 3)
    device = DeviceModel(temperature=300.0, averaging_time=1e-6, voltage=0.2, **fields)
    mapped = map_pcn(net, substrate, device, seed=5)
    free = relax(mapped.system, x)
    nudge = Nudge(SquaredError(), torch.zeros(4000, 2, dtype=torch.float64), BETA)
    state = relax(mapped.system, x, nudge, start=free.state, tolerance=1e-9, solver="sweep").require().state
    found = np.concatenate([s.numpy() for s in state], 1)
    own, common = [], []
    for which in ("h", "u"):
        for k, layer in enumerate(net.stack):
            # The mean over t of noise with the correlation time tau = t: 2 (x - 1 + e^-x) / x^2 at x = 1.
            nyquist = BOLTZMANN * 300 / 1e-6 / 0.2**2 * 2 / np.e
            if substrate == "resistive":
                own.append(np.full(layer.post, nyquist / mapped.system.total[k]))
                common.append(np.zeros(layer.post))
                continue
            scale, off = mapped.system.scales[f"layers.{k}.weight"], 2 * device.g_min
            forward = (layer.weight.detach().abs() / scale + off).sum(1) + off  # biases are 0
            alone = torch.full(layer.post, 1 / scale, dtype=torch.float64)  # the feedback resistor
            if k == 0 and which == "h":
                above = mapped.system.scales["layers.1.weight"]
                alone = alone + (net.stack[1].weight.detach().abs() / above + off).sum(0)
            mirrored = 0 if fields else 1
            own.append(nyquist * scale**2 * (alone + (1 - mirrored) * forward).numpy())
            common.append(nyquist * scale**2 * mirrored * forward.numpy())
    inverse = np.linalg.inv(matrix)
    both = np.concatenate(common)
    drawn = np.diag(np.concatenate(own)) + np.outer(np.ones(12), both) * np.kron(np.ones((2, 2)), np.eye(6))
    wanted = inverse @ drawn @ inverse.T
    np.testing.assert_allclose(found.var(0), np.diag(wanted), rtol=0.12)
    apart = np.hstack([np.eye(6), -np.eye(6)])
    errors = np.diag(apart @ wanted @ apart.T)
    np.testing.assert_allclose((found @ apart.T).var(0), errors, rtol=0.12)
    if substrate == "hopfield":
        ones = np.diag(apart @ inverse @ np.diag(np.concatenate(own) + both) @ inverse.T @ apart.T)
        assert ((errors < 0.5 * ones).any()) == (not fields)


@pytest.mark.parametrize(("substrate", "fields"), [
    ("hopfield", {"temperature": 300.0}),
    ("hopfield", {"conductance_noise": 0.01}),
    ("oscillator", {"phase_noise": 1.0}),
])  # fmt: skip
def test_one_sided_schemes_are_refused_where_phases_are_noisy(substrate: str, fields: dict[str, float]) -> None:
    """They compare with the free phase, which has no noise here: their estimates would be too good."""
    net = dense(3, "relu", width=8)
    x, y = examples(size=2)
    mapped = map_pcn(net, substrate, DeviceModel(**fields), calibration=x)
    with pytest.raises(InputError, match="scheme must be 'centered' where nudged phases have noise"):
        mapped.gradient(x, y, CrossEntropy(), "positive", beta=0.05)
    assert mapped.gradient(x, y, CrossEntropy(), "centered", beta=0.05)


@pytest.mark.slow
def test_short_lags_have_the_steps_that_they_need() -> None:
    """Steps go with the lag, and so does what a phase may take of them: 1 % of one settles as none does."""
    net = dense(3, "tanh", width=8)
    x, y = examples(size=2)
    wanted = map_pcn(net).gradient(x, y, CrossEntropy(), beta=1e-2)
    mapped = map_pcn(net, "hopfield", DeviceModel(amplifier_lag=0.01))
    assert total_error(mapped.gradient(x, y, CrossEntropy(), beta=1e-2, solver="flow"), wanted) < 1e-9


def test_mismatch_of_lags_needs_lags() -> None:
    """Without a lag it would be accepted and do nothing."""
    with pytest.raises(InputError, match="amplifier_lag_mismatch must come with amplifier_lag"):
        map_pcn(dense(3), "hopfield", DeviceModel(amplifier_lag_mismatch=0.1))
