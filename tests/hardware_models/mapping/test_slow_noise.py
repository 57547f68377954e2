"""Slow noise of readings: two phases of a step have as much of it in common as its correlation time says."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.optimize import brentq

from hardware_models import DeviceModel, HopfieldNetwork, map_pcn
from hardware_models.mapping.board import SETTLED
from hardware_models.mapping.mapped import Mapped
from physics_ep import CrossEntropy
from physics_ep.errors import InputError
from physics_ep.predictive_coding import mlp

COST = CrossEntropy()


def network(substrate: str, **fields: float) -> tuple[Mapped, torch.Tensor, torch.Tensor]:
    """A network on devices with these fields, inputs and labels."""
    torch.manual_seed(0)
    net = mlp([5, 4, 300], activation="tanh" if substrate == "hopfield" else "relu").double()
    x, y = torch.rand(4, 5, dtype=torch.float64), torch.arange(4) % 3
    return map_pcn(net, substrate, DeviceModel(**fields), calibration=x), x, y


def errors(scheme: str = "centered", repeats: int = 3, substrate: str = "hopfield", **fields: float) -> float:
    """Root mean square error of the last layer's biases, whose gradient is the mean of read errors over beta."""
    options = {"scheme": scheme, "beta": 0.1}
    mapped, x, y = network(substrate)
    exact = mapped.gradient(x, y, COST, **options)["layers.1.bias"]
    mapped, x, y = network(substrate, **fields)
    found = [mapped.gradient(x, y, COST, **options)["layers.1.bias"] - exact for _ in range(repeats)]
    full = mapped.system.full_scales[2]
    return float(torch.stack(found).square().mean().sqrt()) / full


def settled(count: int) -> float:
    """Time constants until `count` equal poles in a row have settled, by their Poisson tail."""
    return brentq(
        lambda t: math.exp(-t) * sum(t**n / math.factorial(n) for n in range(count)) - SETTLED, 1, 200, xtol=1e-13
    )


@pytest.mark.parametrize("scheme", ["centered", "positive"])
@pytest.mark.parametrize("ratio", [0.1, 1.0, 10.0])
def test_what_two_phases_have_in_common_cancels(scheme, ratio):
    """The difference of two readings a time t apart has the variance 2 s^2 (1 - e^(-t / time)), that of the origin
    and a nudged phase too; white noise, or a correlation of another time, would have another."""
    apart = settled(4) * 1e-6
    size, beta, examples = 1e-3, 0.1, 4
    found = errors(scheme, slow_noise=size, slow_noise_time=ratio * apart)
    one = size * math.sqrt(2 * -math.expm1(-1 / ratio)) / (beta if scheme == "positive" else 2 * beta)
    assert found == pytest.approx(one / math.sqrt(examples), rel=0.1)


@pytest.mark.parametrize(("substrate", "lag"), [("oscillator", 0.0), ("hopfield", 5.0)])
def test_readings_are_apart_by_the_time_in_which_a_phase_settles(substrate, lag):
    """Oscillators take longer than RC nodes of their time constant, and so do amplifiers that lag. If it fails,
    the noise of two phases has most in common, and cancels, where it is another by then."""
    mapped = network(substrate, amplifier_lag=lag)[0]
    apart = mapped.fidelity.nudged_settling_time
    assert apart > 2 * settled(4) * mapped.system.tau
    found = errors(substrate=substrate, slow_noise=1e-3, slow_noise_time=apart, amplifier_lag=lag)
    one = 1e-3 * math.sqrt(2 * -math.expm1(-1)) / (2 * 0.1)
    assert found == pytest.approx(one / math.sqrt(4), rel=0.1)


@pytest.mark.full
def test_fast_and_slow_limits():
    """Noise that is much faster than a phase is white noise of readings; noise that is much slower cancels."""
    white = errors(read_noise=1e-3)
    assert errors(slow_noise=1e-3, slow_noise_time=1e-9) == pytest.approx(white, rel=0.1)
    assert errors(slow_noise=1e-3, slow_noise_time=1e6) < 1e-4 * white
    # A faster circuit leaves more in common.
    slow = {"slow_noise": 1e-3, "slow_noise_time": 1e-5}
    assert errors(**slow, time_constant=1e-8) < 0.3 * errors(**slow, time_constant=1e-5)


def test_it_is_refused_where_it_does_nothing():
    """A time without noise; a system whose phases have no time."""
    net = mlp([5, 3]).double()
    with pytest.raises(InputError, match="slow_noise_time must come with slow_noise"):
        map_pcn(net, device=DeviceModel(slow_noise_time=1e-5))
    with pytest.raises(InputError, match="slow_noise must be left out for a HopfieldNetwork"):
        HopfieldNetwork([4, 3, 2], device=DeviceModel(slow_noise=1e-3))
