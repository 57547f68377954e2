"""Networks mapped to pairs of phase oscillators: exactness, thresholds and rates, detuning, phase noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import brentq
from scipy.special import gammainccinv

from hardware_models import DeviceModel, map_pcn
from hardware_models.mapping.mapped import NotRealisable
from hardware_models.mapping.oscillator import THRESHOLD
from hardware_models.mapping.oscillator_units import detuned_clip, locked_phase
from hardware_models.mapping.solvers import chain_time
from physics_ep import CrossEntropy, Nudge, SquaredError, relax, simulate
from physics_ep.errors import InputError
from physics_ep.estimators.coupled_learning import OutputClamp
from physics_ep.predictive_coding import mlp, vgg5, vgg10_skip
from tests.support.pcn import dense, examples
from validation.gradients import compare, total_error
from validation.oracles import backprop_gradient


@pytest.mark.parametrize("gates", ["held", "live"])
@pytest.mark.parametrize("calibrated", [True, False])
def test_ten_layers(calibrated: bool, gates: str) -> None:
    """Ten layers of width 128, ReLUs: free state to 1e-6 of the forward pass, 1 - cosine to backprop below 1e-4 at
    beta 1e-4, the units at a threshold named: those, and no others, whose pairs answer slower than they say."""
    net = dense(10, "relu", width=128, gain=6**0.5)
    x, y = examples(size=8)
    mapped = map_pcn(net, "oscillator", calibration=x if calibrated else None, gates=gates)
    free = relax(mapped.system, x).require()
    states = net.run(x).states
    for p, h, unit in zip(free.state, states, mapped.system.amplifiers_h, strict=False):
        torch.testing.assert_close(unit.response(p), h.detach(), atol=1e-6 * float(h.detach().abs().max()), rtol=0)
    grads, step = mapped.estimate(x, y, CrossEntropy(), beta=1e-4)
    assert max(float(e.residual.max()) for e in step.equilibria) < 1e-9
    exact = backprop_gradient(net, x, y, CrossEntropy())
    worst = 1 - min(row.cosine for row in compare(grads, exact))
    assert worst <= (1e-4 if gates == "live" else 1e-9)
    if not calibrated or gates == "live":
        return
    device = mapped.device
    for k, row in enumerate(mapped.fidelity.layers):
        hi = device.oscillator_headroom * float(states[k].detach().abs().max())
        lo = 0.0 if k < 9 else -hi
        a = net.run(x).drives[k].detach()
        slow = set()
        for n, unit in np.ndindex(*a.shape):
            p, r = float(a[n, unit]), (hi - lo) / 2
            rate = (p - lo) * (hi - p) / r**2 if lo < p < hi else max(lo - p, p - hi) / r
            if rate < THRESHOLD:
                slow.add(unit)
        assert set(row.threshold_units) == slow
    assert any(row.threshold_units for row in mapped.fidelity.layers)


@pytest.mark.full
def test_pairs_of_u_at_thresholds_are_named_too() -> None:
    """With cells of their own h and u rest apart: here u of unit 7 alone is near a threshold, and its rate is the
    network's slowest eigenvalue. If it fails, the times and energies of a report leave it out without a word."""
    net = mlp([6, 10, 3], "relu", seed=10).double()
    x = torch.rand(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(10))
    mapped = map_pcn(net, "oscillator", DeviceModel(programming_noise=0.03), 10, calibration=x)
    system, count = mapped.system, mapped.system.depth
    free = relax(system, x).require().state
    lo, hi = system.range(0, 0.0)
    rates = [
        torch.where((p > lo) & (p < hi), (p - lo) * (hi - p), (hi - lo) / 2 * torch.maximum(lo - p, p - hi))
        / ((hi - lo) / 2) ** 2
        for p in (free[0], free[count])
    ]
    slow = [(rate < THRESHOLD).any(0).nonzero().flatten().tolist() for rate in rates]
    assert slow == [[], [7]]
    assert [row.threshold_units for row in mapped.fidelity.layers] == [(7,), ()]
    slowest = float(rates[1].min())
    assert -mapped.follow().growth == pytest.approx(slowest, rel=1e-6)
    assert -mapped.fidelity.eigenvalue == pytest.approx(slowest / mapped.system.tau, rel=1e-6)  # in 1/s


@pytest.mark.parametrize("build", [vgg5, vgg10_skip], ids=["pooled", "skips"])
def test_convolutions_pools_and_skips(build) -> None:
    """Whole architectures keep backprop's gradient."""
    net = build(10, input_shape=(3, 32, 32), width=1 / 32, gain=6**0.5).double()
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    y = torch.tensor([1, 4])
    mapped = map_pcn(net, "oscillator", calibration=x)
    grads = mapped.gradient(x, y, CrossEntropy(), beta=1e-4)
    assert min(row.cosine for row in compare(grads, backprop_gradient(net, x, y, CrossEntropy()))) > 1 - 1e-9
    assert mapped.fidelity.free_state_error < 1e-14


@pytest.mark.parametrize("activation", ["hard_sigmoid", "hard_tanh", "linear"])
def test_other_clips(activation: str) -> None:
    """Clips and linear units are pairs as well, with ranges of their own."""
    net = dense(4, activation, gain=6**0.5 if activation != "linear" else 1.0)
    x, y = examples()
    mapped = map_pcn(net, "oscillator", calibration=x)
    grads = mapped.gradient(x, y, CrossEntropy(), beta=1e-4)
    assert total_error(grads, backprop_gradient(net, x, y, CrossEntropy())) < 1e-6


@pytest.mark.full
def test_a_pair_in_time_by_scipy() -> None:
    """One pair, tau a' = cos a (p - v) / r: `simulate` follows DOP853; its rates are those that are reported."""
    net = dense(1, "relu", n_in=3)
    x = torch.ones(1, 3, dtype=torch.float64)
    mapped = map_pcn(net, "oscillator", calibration=2 * x)  # the outputs rest inside their range
    system = mapped.system
    course = simulate(system, x, 12.0, start=system.rest_state(x), steps=800)
    (p,) = net(x)
    lo, hi = system.range(0)
    m, r = (lo + hi) / 2, (hi - lo) / 2

    def speed(t, a):
        return np.cos(a) * (p.detach().numpy() - m - r * np.sin(a)) / r

    start = math.asin(-m / r) * np.ones(10)
    exact = solve_ivp(speed, (0, 12), start, method="DOP853", rtol=1e-11, atol=1e-13).y[:, -1]
    np.testing.assert_allclose(course.internal[0][-1, 0].numpy(), exact, atol=1e-8)
    free = relax(system, x)
    (rates,) = system.rates(free)
    a = course.internal[0][:, 0]
    late = (course.time > 6) & (course.time < 8)
    gap = (a - torch.asin((p.detach() - m) / r)).abs()[late]
    slope = torch.log(gap[0] / gap[-1]) / float(course.time[late][-1] - course.time[late][0])
    torch.testing.assert_close(slope, rates[0], rtol=1e-2, atol=0)


@pytest.mark.slow
def test_settling_time_from_the_rates() -> None:
    """Where no unit is at a threshold, the reported time is that of the course within three times, in networks that
    take 34 to 420 time constants."""
    taken = []
    for seed in (0, 1, 2, 5, 7, 10):
        net = dense(3, "relu", width=4, n_in=5, gain=6**0.5, seed=seed)
        x, _ = examples((5,), 1)
        mapped = map_pcn(net, "oscillator", calibration=x)
        assert not any(row.threshold_units for row in mapped.fidelity.layers)
        settled, end = mapped.settling(x, max_iterations=20000)
        end.require()
        taken.append((settled, mapped.fidelity.settling_time / 1e-6))
    measured, reported = np.array(taken).T
    assert measured.max() > 10 * measured.min()
    assert np.abs(np.log(measured / reported)).max() < np.log(3)
    assert np.corrcoef(np.log(measured), np.log(reported))[0, 1] > 0.9


def test_nudged_in_time() -> None:
    """Nudged phases end in the state of the sweeps, silent units latched."""
    net = dense(3, "relu", width=4, n_in=5, gain=6**0.5, seed=4)
    x, y = examples((5,), 1)
    mapped = map_pcn(net, "oscillator", calibration=x)
    free = relax(mapped.system, x)
    nudge = Nudge(CrossEntropy(), y, 0.01)
    sweep, flow = (
        relax(mapped.system, x, nudge, start=free.state, solver=s, max_iterations=20000).require().state
        for s in ("sweep", "flow")
    )
    for a, b in zip(sweep, flow, strict=True):
        torch.testing.assert_close(a, b, atol=1e-8, rtol=0)


def test_a_chain_of_equal_stages() -> None:
    """L stages of rate 1 need what the incomplete gamma function says; one stage the logarithm over its rate."""
    for count in (1, 3, 10):
        assert chain_time([1.0] * count, 1e-6) == pytest.approx(float(gammainccinv(count, 1e-6)), rel=1e-5)
    assert chain_time([0.2], 1e-6) == pytest.approx(math.log(1e6) / 0.2, rel=1e-5)


@pytest.mark.parametrize("w", [1e-4, 0.02, -0.02, 0.2])
def test_locked_phases(w: float) -> None:
    """Roots of cos a (b - sin a) + w are stable, and those next to the clip's, off, inside and at the end."""
    b = torch.linspace(-3, 3, 4001, dtype=torch.float64)
    a = locked_phase(b, torch.tensor(w, dtype=torch.float64))
    assert float((torch.cos(a) * (b - torch.sin(a)) + w).abs().max()) < 1e-13
    steep = -torch.sin(a) * (b - torch.sin(a)) - torch.cos(a).square()
    assert float(steep.max()) < 1e-6  # stable, or on the verge of slipping
    value = torch.sin(locked_phase(torch.tensor([-2.0, 0.3, -1.0]).double(), torch.tensor(abs(w)).double()))
    root = brentq(lambda a: math.cos(a) * (0.3 - math.sin(a)) + abs(w), math.asin(0.3), 1.0)
    assert float(value[1]) == pytest.approx(math.sin(root), abs=1e-7)
    assert float(value[0]) == pytest.approx(-1 + w**2 / 2, rel=w**2)
    assert float(value[2]) == pytest.approx(-1 + (2 * abs(w)) ** (2 / 3) / 2, rel=abs(w))


def test_detuned_units() -> None:
    """Slope, displacement and integral of the rounded clip against differences of its response."""
    unit = detuned_clip("relu", 0.0, 4.0, torch.tensor(0.02, dtype=torch.float64))
    p = torch.linspace(-2, 3.5, 401, dtype=torch.float64)
    step = 1e-5
    slope = (unit.response(p + step) - unit.response(p - step)) / (2 * step)
    torch.testing.assert_close(unit.slope(p), slope, atol=1e-7, rtol=1e-6)
    torch.testing.assert_close(
        unit.displaced(p, torch.full_like(p, 1e-3)), unit.response(p + 1e-3) - unit.response(p)
    )
    area = (unit.integral(p + step) - unit.integral(p - step)) / (2 * step)
    torch.testing.assert_close(area, unit.response(p), atol=1e-9, rtol=1e-8)
    p.requires_grad_()
    (by_autograd,) = torch.autograd.grad(unit.response(p).sum(), p)
    torch.testing.assert_close(by_autograd, unit.slope(p).detach())


@pytest.mark.full
def test_detuning_by_the_circuits_own_course() -> None:
    """The detuned free state is where the oscillators go: torques of h and u apart, residual and currents."""
    net = dense(2, "relu", width=6, n_in=5)
    x, _ = examples((5,), 3)
    mapped = map_pcn(net, "oscillator", DeviceModel(detuning=0.01), seed=1, calibration=x)
    static = relax(mapped.system, x).require().state
    flow = relax(mapped.system, x, solver="flow", max_iterations=20000, tolerance=1e-9).require().state
    for a, b in zip(static, flow, strict=True):
        torch.testing.assert_close(a, b, atol=1e-7, rtol=0)
    torques = torch.stack([u.torque for u in (mapped.system.amplifiers_h[0], mapped.system.amplifiers_u[0])])
    assert not torch.equal(torques[0], torques[1])
    assert float(torques.min()) >= 0  # ReLUs rest on the side where they are pushed off their end
    wide = map_pcn(dense(2, "linear", width=4000, n_in=5), "oscillator", DeviceModel(detuning=0.01), calibration=x)
    assert float(wide.system.amplifiers_h[0].torque.std()) == pytest.approx(0.01 / 2**0.5, rel=0.03)


@pytest.mark.full
def test_phase_noise() -> None:
    """The odd part of two oscillators' mean torques over t has the variance D / t; an inner pair answers with
    r w / cos a: so its own stationary drift under that torque. The estimate's variance goes as 1 / (t beta^2)."""
    net = dense(2, "relu", width=6, n_in=5)
    x, y = examples((5,), 3)
    device = DeviceModel(phase_noise=1e-2, averaging_time=1e-3)
    mapped = map_pcn(net, "oscillator", device, calibration=x)
    system = mapped.system
    phase = system.phase(system.prepare(x))
    torque = 1e-6 * (1e-2 / 1e-3) ** 0.5
    size = system.noise_sizes(0, "h", phase)
    lo, hi = system.range(0)
    m, r = (lo + hi) / 2, (hi - lo) / 2
    b = (phase.p[0] - m) / r
    inside = b.abs() < 0.99
    a = locked_phase(b[inside].detach(), torch.tensor(torque).double())
    shift = r * (torch.sin(a) - b[inside])
    torch.testing.assert_close(size[inside], shift, rtol=1e-3, atol=0)
    assert float(size[b < -1].abs().max().detach()) == 0
    spread = {}
    for time, beta in ((1e-3, 0.02), (1e-3, 0.04), (4e-3, 0.02)):
        noisy = map_pcn(net, "oscillator", device.replace(averaging_time=time), calibration=x)
        draws = [noisy.gradient(x, y, CrossEntropy(), beta=beta)["layers.1.weight"] for _ in range(60)]
        spread[time, beta] = float(torch.stack(draws).var(0).mean())
    assert spread[1e-3, 0.02] / spread[1e-3, 0.04] == pytest.approx(4, rel=0.3)
    assert spread[1e-3, 0.02] / spread[4e-3, 0.02] == pytest.approx(4, rel=0.3)


def test_activities_beyond_the_range_are_clipped() -> None:
    """Inputs larger than the calibration's drive pairs to the end of their range: a real limit, not hidden."""
    net = dense(2, "relu", width=6, n_in=5)
    x, _ = examples((5,), 3)
    mapped = map_pcn(net, "oscillator", calibration=x)
    top = 2 * float(net.run(x).states[0].detach().max())
    assert float(mapped.system.run(100 * x).states[0].detach().max()) == pytest.approx(top)
    torch.testing.assert_close(map_pcn(net, "oscillator").system.run(100 * x).states[0], net.run(100 * x).states[0])


@pytest.mark.full
def test_outputs_are_values_of_pairs() -> None:
    """What is read, and nudged, is what output pairs hold, clipped and detuned, and not the current into them: else
    EP differentiates another function than the network that the devices compute. Nudged states are stationary
    points of E + beta C at these values."""
    net = dense(3, "relu", width=8, n_in=5)
    x, labels = examples((5,), 4)
    y = torch.eye(10, dtype=torch.float64)[labels]
    clipped = map_pcn(net, "oscillator", calibration=0.2 * x)
    hi, found = clipped.system.range(2)[1], relax(clipped.system, x).require()
    decoded = clipped.decode(found.state)
    assert float(decoded.max()) == pytest.approx(hi)
    torch.testing.assert_close(decoded, clipped.perturbed(x).detach(), atol=1e-12, rtol=0)
    assert float((found.state[2] - decoded).abs().max()) > 0.1 * hi
    exact = backprop_gradient(clipped.perturbed, x, y, SquaredError())
    assert total_error(clipped.gradient(x, y, SquaredError(), beta=1e-4), exact) < 1e-6
    detuned = map_pcn(net, "oscillator", DeviceModel(detuning=1e-3), calibration=x, gates="live")
    system = detuned.system
    free = relax(system, x).require().state
    for beta in (0.02, -0.02):
        nudge = Nudge(SquaredError(), y, beta)
        state = relax(system, x, nudge, start=free, tolerance=1e-11).require().state
        leaves = tuple(s.clone().requires_grad_() for s in state)
        values = system.amplifiers_h[2].response(leaves[2])
        total = system.energy(leaves, x).sum() + nudge.energy(values).sum()
        for slope in torch.autograd.grad(total, leaves):
            assert float(slope.abs().max()) < 1e-9
    with pytest.raises(InputError, match="cost must be one that pulls"):
        relax(system, x, Nudge(OutputClamp(), y, 0.5), start=free)


@pytest.mark.parametrize("gates", ["held", "live"])
def test_strong_nudges_of_clipped_outputs(gates: str) -> None:
    """Beyond beta = 1/2 sweeps take the exact update of linear units, which a clip is within its range alone."""
    one = dense(1, "relu", n_in=5)
    x, _ = examples((5,), 4)
    system = map_pcn(one, "oscillator", calibration=0.3 * x, gates=gates).system
    drive, top = one(x).detach(), system.range(0)[1]
    assert bool((drive.abs() > top).any())
    y = drive.clamp(-0.5 * top, 0.5 * top)
    free = relax(system, x).require().state
    state = relax(system, x, Nudge(SquaredError(), y, 0.9), start=free, tolerance=1e-11).require().state
    # v = clip(drive - beta (v - y)); a latch holds those that are clipped.
    value = ((drive + 0.9 * y) / 1.9).clamp(-top, top)
    value = torch.where(drive.abs() > top, drive.clamp(-top, top), value) if gates == "held" else value
    torch.testing.assert_close(state[0], drive - 0.9 * (value - y), atol=1e-9, rtol=0)


@pytest.mark.parametrize("gates", ["held", "live"])
@pytest.mark.parametrize("beta", [0.8, 1.5])
def test_strong_nudges_that_couple_clipped_outputs(beta: float, gates: str) -> None:
    """A softmax couples outputs, of which some are at the end of their range: what converges is at rest by
    Kirchhoff's law, p = W h + b - beta (softmax(v) - y), and no mixture of two updates."""
    net = dense(2, "relu", width=8, n_in=5)
    x, labels = examples((5,), 6)
    system = map_pcn(net, "oscillator", calibration=0.3 * x, gates=gates).system
    free = relax(system, x).require().state
    found = relax(system, x, Nudge(CrossEntropy(), labels, beta), start=free, tolerance=1e-10)
    phase = system.phase(system.prepare(x), free).nudged(Nudge(CrossEntropy(), labels, beta))
    h = [phase.h[k] + phase.moved(k, found.displacement[k]) for k in range(2)]
    pull = beta * (torch.softmax(h[1], 1) - torch.eye(10, dtype=torch.float64)[labels])
    missing = (system.drive(1, x, h)[0] - pull - found.state[1]).detach().abs().amax(1)
    assert bool(found.converged.any())
    assert float(missing[found.converged].max()) < 1e-8


def test_refusals() -> None:
    """What oscillators cannot be, with what they can be; imperfections that need ranges need a calibration."""
    with pytest.raises(NotRealisable, match=r"'oscillator': its units can be relu, linear, .*, not softplus"):
        map_pcn(dense(3, "softplus"), "oscillator")
    with pytest.raises(InputError, match="calibration must be given where oscillators are detuned or noisy"):
        map_pcn(dense(3, "relu"), "oscillator", DeviceModel(detuning=0.01))
    with pytest.raises(InputError, match="amplifier_gain must be left out on the substrate 'oscillator'"):
        map_pcn(dense(3, "relu"), "oscillator", DeviceModel(amplifier_gain=0.01))
