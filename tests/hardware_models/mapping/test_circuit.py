"""Each imperfection of a paired circuit against its definition, and that it touches nothing else."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from hardware_models import DeviceModel, map_pcn
from hardware_models.devices.crossbars import stream
from hardware_models.mapping.amplifiers import Amplifiers
from hardware_models.mapping.hopfield import HopfieldPairs
from physics_ep import CrossEntropy, Nudge, SquaredError, relax, simulate
from physics_ep.predictive_coding import mlp, vgg5
from physics_ep.predictive_coding.activations import ACTIVATIONS
from tests.support.pcn import dense, examples
from validation import check_system
from validation.gradients import compare, total_error
from validation.oracles import backprop_gradient


def circuit(activation: str = "tanh", scale: float = 1.0, **fields: Any) -> HopfieldPairs:
    net = dense(3, activation)
    return HopfieldPairs(net, DeviceModel(**fields), 0, [scale] * (net.depth + 1))


def amplifiers(activation: str, saturation: float = float("inf")) -> Amplifiers:
    generator = torch.Generator().manual_seed(2)
    gain, offset = (torch.randn(400, generator=generator, dtype=torch.float64) for _ in range(2))
    return Amplifiers(ACTIVATIONS[activation], 1 + 0.1 * gain, 0.2 * offset, saturation)


@pytest.mark.parametrize("saturation", [0.7, float("inf")])
@pytest.mark.parametrize("activation", ["relu", "linear", "tanh", "softplus"])
def test_amplifiers(activation: str, saturation: float) -> None:
    """Offset, gain and saturation are what the device model says, and a potential is that of its unit."""
    unit = amplifiers(activation, saturation)
    p = 2 * torch.randn(5, 400, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wanted = (unit.gain * ACTIVATIONS[activation].response(p + unit.offset)).clamp(-saturation, saturation)
    torch.testing.assert_close(unit.response(p), wanted)
    step = torch.randn(5, 400, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(unit.displaced(p, step), unit.response(p + step) - unit.response(p))
    # Carried: 1e-9 of a step is as exact as the step.
    slope = unit.displaced(p, 1e-9 * torch.ones_like(p)) / 1e-9
    torch.testing.assert_close(slope, unit.slope(p), atol=1e-6, rtol=1e-6)
    p.requires_grad_()
    (slope_of_potential,) = torch.autograd.grad(unit.potential(p).sum(), p)
    torch.testing.assert_close(slope_of_potential, (p * unit.slope(p)).detach(), atol=1e-9, rtol=1e-9)


def test_amplifier_draws() -> None:
    """Spreads are those asked for, h and u have amplifiers of their own, and weights do not change with them."""
    wide = mlp([4, 4000, 4], "tanh").double()
    found = HopfieldPairs(wide, DeviceModel(amplifier_gain=0.03, amplifier_offset=0.02), 0, [1.0, 5.0, 1.0])
    for units in (found.amplifiers_h[0], found.amplifiers_u[0]):
        assert float((units.gain - 1).std()) == pytest.approx(0.03, rel=0.05)
        assert float(units.offset.std()) == pytest.approx(0.02 * 5, rel=0.05)
    gains = torch.stack([found.amplifiers_h[0].gain, found.amplifiers_u[0].gain])
    assert abs(float(torch.corrcoef(gains)[0, 1])) < 0.06
    assert found.amplifiers_h[1].ideal  # read at the summing node
    for name, p in found.named_parameters():
        torch.testing.assert_close(p, wide.get_parameter(name), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    "fields", [{}, {"levels": 16}, {"programming_noise": 0.1}, {"stuck_off": 0.1}, {"device_mismatch": 0.2}]
)
def test_ep_adapts_to_static_errors_of_a_shared_array(fields: dict[str, Any]) -> None:
    """Transfer and adaptation are not mixed: EP's gradient is that of the network which the devices hold."""
    net = dense(3)
    x, y = examples()
    mapped = map_pcn(net, device=DeviceModel(**fields))
    gradient = mapped.gradient(x, y, CrossEntropy(), beta=1e-3)
    assert total_error(gradient, backprop_gradient(mapped.perturbed, x, y, CrossEntropy())) < 1e-5
    transfer = total_error(gradient, backprop_gradient(net, x, y, CrossEntropy()))
    assert transfer < 1e-5 if not fields else transfer > 1e-3


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_saturation_is_learnt_around(activation: str) -> None:
    """If it fails, a unit at the rail is taken for one that answers."""
    x, y = examples()
    mapped = map_pcn(dense(3, activation), device=DeviceModel(amplifier_saturation=0.5))
    free = relax(mapped.system, x).require()
    assert float(mapped.system.amplifiers_h[0].response(free.state[0]).abs().max()) == 0.5
    gradient = mapped.gradient(x, y, CrossEntropy(), beta=1e-5)
    assert total_error(gradient, backprop_gradient(mapped.perturbed, x, y, CrossEntropy())) < 1e-6


@pytest.mark.parametrize("which", ["amplifier_gain", "amplifier_offset"])
def test_unequal_amplifiers_bias_the_estimate(which: str) -> None:
    """The mismatch of h and u, which no gradient of a feedforward network knows, is seen: its damage grows
    with it, and what is settled is still certified."""
    x, y = examples()
    errors = []
    for size in (1e-3, 1e-2):
        mapped = map_pcn(dense(3), device=DeviceModel(**{which: size}))
        gradient, step = mapped.estimate(x, y, CrossEntropy(), beta=1e-3, tolerance=1e-9)
        assert all(bool(e.converged.all()) for e in step.equilibria)
        errors.append(total_error(gradient, backprop_gradient(mapped.perturbed, x, y, CrossEntropy())))
    assert errors[0] < 0.02
    assert errors[1] > 4 * errors[0]


def test_converters() -> None:
    """Inputs and readings are on the converters' levels, and a converter of readings does not move the circuit."""
    x, y = examples()
    found = circuit(dac_bits=4, adc_bits=6, scale=3.0, adc_range=1.0, dac_range=1.0)
    levels = found.encode(x) / (3.0 / 7)
    torch.testing.assert_close(levels, levels.round())
    assert float(levels.abs().max()) <= 7
    torch.testing.assert_close(found(x), circuit(scale=3.0)(found.encode(x)))
    free = relax(found, x).require()
    torch.testing.assert_close(free.state, relax(circuit(), found.encode(x)).state)
    phase = found.phase(found.prepare(x), origin=free.state)
    nudged = relax(found, x, Nudge(CrossEntropy(), y, 0.05), start=free.state)
    read = phase.read(nudged.displacement)
    for k in range(found.depth):
        for value in (read[k] + phase.h[k], read[found.depth + k]):
            levels = value / (3.0 / 31)
            torch.testing.assert_close(levels, levels.round(), atol=1e-9, rtol=0)


def test_read_noise_is_on_readings_alone() -> None:
    """Noise of a reading leaves the physics alone, and has the size that was asked for."""
    x, y = examples(size=64)
    quiet, noisy = circuit(scale=2.0), circuit(scale=2.0, read_noise=0.01)
    states = [relax(c, x, Nudge(CrossEntropy(), y, 0.05), start=relax(c, x).state).state for c in (quiet, noisy)]
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)
    phase = noisy.phase(noisy.prepare(x), origin=relax(noisy, x).state)
    for block in (b.detach() for b in phase.read(phase.start())):
        assert float(block.std()) == pytest.approx(0.02, rel=0.1)
        assert abs(float(block.mean())) < 0.002


def spread(beta: float, **fields: Any) -> float:
    """Standard deviation of the estimate over readings, relative to the gradient."""
    x, y = examples(size=4)
    mapped = map_pcn(dense(3), device=DeviceModel(**fields))
    reads = stream(0, "test")
    found = [mapped.gradient(x, y, CrossEntropy(), beta=beta, reads=reads) for _ in range(24)]
    flat = torch.stack([torch.cat([g.flatten() for g in grads.values()]) for grads in found])
    return float(flat.std(0).norm() / flat.mean(0).norm())


@pytest.mark.full
def test_noise_of_readings_is_amplified_and_noise_of_shared_cells_is_not() -> None:
    """The circuit keeps its advantage: h - u vanishes without a nudge whatever the cells do, so that noise of
    conductances enters in proportion to beta, while that of readings is divided by it."""
    assert spread(1e-3, read_noise=1e-4) / spread(1e-2, read_noise=1e-4) == pytest.approx(10, rel=0.3)
    cells = [spread(beta, conductance_noise=0.01) for beta in (1e-4, 1e-3, 1e-2)]
    assert max(cells) < 1.5 * min(cells)
    assert 0.002 < cells[0] < 0.2


@pytest.mark.slow
def test_conductance_noise_of_copies_is_amplified() -> None:
    """If this fails, separate arrays for h and u are as good as one: what their noise leaves of h - u is divided by
    beta."""
    copies = {"copy_mismatch_h": 1e-9, "copy_mismatch_u": 1e-9, "conductance_noise": 1e-4}
    ratio = spread(1e-3, **copies) / spread(1e-2, **copies)
    assert ratio == pytest.approx(10, rel=0.3)


IMPERFECT = {"amplifier_offset": 0.02, "copy_mismatch_u": 0.02}


@pytest.mark.parametrize(
    ("activation", "fields", "depth", "duration"),
    [
        ("tanh", IMPERFECT, 2, 30.0),
        *((activation, fields, 3, 45.0) for activation in ("tanh", "relu") for fields in ({}, IMPERFECT)),
    ],
)
@pytest.mark.slow
def test_course_in_time(activation: str, fields: dict[str, Any], depth: int, duration: float) -> None:
    """If this fails, `simulate` and `relax` disagree: the circuit followed in time, from empty capacitors or from
    the free state, must end where the fixed point is, by another integrator."""
    x, y = examples(size=4)
    system = map_pcn(dense(depth, activation), device=DeviceModel(**fields)).system
    free = relax(system, x, tolerance=1e-12)
    empty = tuple(torch.zeros_like(s) for s in free.state)
    course = simulate(system, x, duration=duration, start=empty)
    assert all(float(s[0].abs().max()) == 0 for s in course.state)
    for s, wanted in zip(course.state, free.state, strict=True):
        torch.testing.assert_close(s[-1], wanted, atol=1e-7, rtol=1e-7)
    nudge = Nudge(CrossEntropy(), y, 0.05)
    nudged = relax(system, x, nudge, start=free.state, tolerance=1e-11)
    course = simulate(system, x, duration=duration, nudge=nudge, start=free.state)
    for s, wanted in zip(course.state, nudged.state, strict=True):
        torch.testing.assert_close(s[-1], wanted, atol=1e-7, rtol=1e-7)


def test_same_seed_same_devices() -> None:
    """If this fails, results cannot be repeated: a device instance is frozen."""
    fields = {"programming_noise": 0.05, "amplifier_offset": 0.01, "copy_mismatch_h": 0.01, "copy_mismatch_u": 0.01}
    x, _ = examples()
    first, again = circuit(**fields), circuit(**fields)
    torch.testing.assert_close(relax(first, x).state, relax(again, x).state, rtol=0, atol=0)
    other = HopfieldPairs(dense(3), DeviceModel(**fields), 1, [1.0] * 4)
    assert not torch.equal(other(x), first(x))


@pytest.mark.full
def test_contract() -> None:
    """If this fails, the circuit is no EnergySystem: its energy, force and learning rule disagree."""
    x, y = examples(cost=SquaredError(), size=6)
    check_system(circuit("tanh"), x, y)
    check_system(circuit("softplus", programming_noise=0.05), x, y)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_float32_is_as_good_as_float64(activation: str) -> None:
    """If this fails, gradients of large networks, in float32, are those of rounding: displacements are carried."""
    net = dense(5, activation, width=64)
    x, y = examples()
    exact = map_pcn(net).gradient(x, y, CrossEntropy(), beta=1e-4)
    narrow = map_pcn(net.float()).gradient(x.float(), y, CrossEntropy(), beta=1e-4, tolerance=1e-5)
    assert max(row.relative_error for row in compare(narrow, exact)) < 3e-5


def test_training_modes_of_torch() -> None:
    """If this fails, a circuit cannot be moved between dtypes, or its copies stay behind."""
    found = circuit(copy_mismatch_h=0.01, copy_mismatch_u=0.01, copy_mismatch_transpose=0.01).float()
    assert {a.weight.dtype for a in (found.arrays(1, c) for c in ("h", "u", "transpose"))} == {torch.float32}
    values = [found.arrays(1, c).weight for c in ("h", "u", "transpose")]
    assert not torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])


def test_learning_reads_whole_states() -> None:
    """If this fails, what h and u differ by without a nudge is left out of the learning rule, which the circuit
    cannot do: the gradient is that of the states, layer by layer."""
    x, y = examples()
    mapped = map_pcn(dense(3), device=DeviceModel(amplifier_offset=0.02, copy_mismatch_u=0.02))
    system, beta = mapped.system, 1e-2
    gradient = mapped.gradient(x, y, CrossEntropy(), beta=beta, tolerance=1e-11, method="energy")
    free = relax(system, x, tolerance=1e-12)
    products = []
    for sign in (1, -1):
        nudge = Nudge(CrossEntropy(), y, sign * beta)
        state = relax(system, x, nudge, start=free.state, tolerance=1e-11).state
        h = [a.response(p) for a, p in zip(system.amplifiers_h, state[:3], strict=True)]
        u = [a.response(q) for a, q in zip(system.amplifiers_u, state[3:], strict=True)]
        products.append([-(h[k] - u[k]).t() @ (x if k == 0 else h[k - 1]) / len(x) for k in range(3)])
    for k, (plus, minus) in enumerate(zip(*products, strict=True)):
        torch.testing.assert_close(
            gradient[f"layers.{k}.weight"], (plus - minus) / (2 * beta), rtol=1e-6, atol=1e-8
        )


def test_bias_rows_have_their_arrays_scale() -> None:
    """If this fails, noise of biases is that of another array, or biases of zero have none: a row is driven at the
    full scale of the layer below."""
    net = mlp([4, 4000, 4], "tanh").double()
    device = DeviceModel(g_min=5e-5, programming_noise=0.05)
    found = HopfieldPairs(net, device, 0, [3.0, 1.0, 1.0])
    span = 3.0 * float(net.layers[0].weight.detach().abs().max())
    assert float(found.layers[0].bias.detach().std()) == pytest.approx(0.05 * 2**0.5 * span, rel=0.05)


@pytest.mark.full
def test_unequal_time_constants_alone_do_not_change_the_gradient() -> None:
    """If this fails, a circuit that settles is said not to: where u does not move, its displacement is pure
    rounding."""
    net = dense(3)
    x, y = examples(size=4)
    wanted = map_pcn(net).gradient(x, y, CrossEntropy(), beta=1e-3)
    for mismatch in (-0.02, 0.02):
        circuit = map_pcn(net, device=DeviceModel(time_constant_mismatch=mismatch))
        assert total_error(circuit.gradient(x, y, CrossEntropy(), beta=1e-3), wanted) < 1e-8


@pytest.mark.parametrize("scheme", ["positive", "negative", "random"])
def test_other_schemes(scheme: str) -> None:
    """If this fails, a scheme of one side contrasts with a state that is not the free one."""
    x, y = examples(size=4)
    mapped = map_pcn(dense(3), device=DeviceModel(amplifier_offset=1e-4, copy_mismatch_u=1e-4))
    exact = backprop_gradient(mapped.perturbed, x, y, CrossEntropy())
    errors = [total_error(mapped.gradient(x, y, CrossEntropy(), scheme, b), exact) for b in (2e-2, 1e-2)]
    assert errors[1] < 0.05
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.25)


def test_no_equilibrium_beyond_the_negative_limit() -> None:
    """If this fails, a circuit that runs away is said to have settled: one linear layer, no minimum from beta = -1
    on."""
    net = mlp([5, 3]).double()
    x, y = examples((5,), 2, SquaredError(), 3)
    system = map_pcn(net).system
    free = relax(system, x)
    for solver in ("sweep", "euler", "flow"):
        found = relax(system, x, Nudge(SquaredError(), y, -1.5), start=free.state, solver=solver)
        assert not bool(found.converged.any()), solver


def test_strong_nudges_in_time() -> None:
    """If this fails, the outputs jump where they should charge: dp/dt = -(1 + beta) (p - p*) of one linear
    layer."""
    net = mlp([5, 3]).double()
    x, y = examples((5,), 2, SquaredError(), 3)
    system = map_pcn(net).system
    free = relax(system, x).state
    course = simulate(system, x, duration=1.0, nudge=Nudge(SquaredError(), y, 2.0), start=free)
    share = (course.state[0][-1] - free[0]) / (2 / 3 * (y - free[0]))
    torch.testing.assert_close(share, torch.full_like(share, 1 - math.exp(-3)), atol=1e-6, rtol=1e-6)


def test_empty_capacitors_and_borrowed_reads() -> None:
    """If this fails, imperfect circuits seem faster than ideal ones, or one caller's generator serves the next."""
    x, y = examples(size=2)
    device = DeviceModel(copy_mismatch_u=1e-4, read_noise=1e-3)
    ideal, imperfect = map_pcn(dense(3)), map_pcn(dense(3), device=device)
    assert imperfect.settling(x)[0] == pytest.approx(ideal.settling(x)[0], abs=2)
    own = imperfect.system.reads
    imperfect.gradient(x, y, CrossEntropy(), beta=1e-2, reads=stream(1, "other"))
    assert imperfect.system.reads is own


def test_gates_are_latched_layer_by_layer() -> None:
    """If this fails, one smooth layer unlatches all ReLUs, and their kinks spoil the estimate."""
    net = dense(4, "relu")
    net.stack[0].activation_name = "tanh"
    x, y = examples()
    mapped = map_pcn(net)
    gradient = mapped.gradient(x, y, CrossEntropy(), beta=1e-3)
    assert total_error(gradient, backprop_gradient(net, x, y, CrossEntropy())) < 1e-4


def test_power_is_that_of_all_cells() -> None:
    """If this fails, energies are not those of the circuit: sum V^2 G over both cells of each weight and bias, by
    hand."""
    net = dense(2, width=6, n_in=4)
    x, _ = examples((4,), 3)
    mapped = map_pcn(net, calibration=x)
    device, system = mapped.device, mapped.system
    activities = [x, net.run(x).states[0].detach()]
    for k, row in enumerate(mapped.fidelity.layers):
        volts = device.voltage * activities[k] / system.full_scales[k]
        layer, g = net.stack[k], 0.0
        for i in range(layer.weight.shape[0]):
            for j in range(layer.weight.shape[1]):
                pair = (
                    2 * device.g_min + abs(float(layer.weight[i, j].detach())) / system.scales[f"layers.{k}.weight"]
                )
                g += pair * float(volts[:, j].square().mean())
            pair = 2 * device.g_min + abs(float(layer.bias[i].detach())) / system.scales[f"layers.{k}.bias"]
            g += pair * device.voltage**2
        assert row.power == pytest.approx(g, rel=1e-9)


def test_power_of_averaged_positions() -> None:
    """Of an average pooling each position has a quarter of the cells' conductance, in power as in noise: by the
    matrix that the link is, sum V^2 G at every pooled node."""
    net = vgg5(10, input_shape=(3, 16, 16), width=1 / 32, pooling="average").double()
    x = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    mapped = map_pcn(net, calibration=x)
    system, device = mapped.system, mapped.device
    below = [x, *(s.detach() for s in net.run(x).states)]
    for k, row in enumerate(mapped.fidelity.layers[:3]):
        layer, link = net.stack[k], net.stack[k].link
        cells = layer.weight.detach().abs() / system.scales[f"layers.{k}.weight"] + 2 * device.g_min
        matrix = link.apply(
            cells, torch.eye(math.prod(link.pre), dtype=torch.float64).unflatten(1, link.pre)
        ).flatten(1)
        volts = device.voltage * below[k].flatten(1) / system.full_scales[k]
        bias = layer.bias.detach().abs() / system.scales[f"layers.{k}.bias"] + 2 * device.g_min
        rows = float(bias.sum()) * device.voltage**2 * math.prod(link.post[1:])
        wanted = float((volts.square() @ matrix).sum(1).mean()) + rows
        assert row.power == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("activation", ["relu", "hard_tanh", "hard_sigmoid", "tanh"])
def test_units_answer_stacked_nudges_as_two_responses_do(activation: str) -> None:
    """What is kept of the free state would be that of another unit, row or side of a kink; on the outputs, too."""
    net = mlp([3, 40, 2], activation, seed=0).double()
    x = torch.linspace(-2, 2, 12, dtype=torch.float64).view(4, 3)
    system = map_pcn(net, "hopfield", DeviceModel(), 0, calibration=x).system
    inputs = system.prepare(x)
    phase = system.phase(inputs, system.phase(inputs).known("sweep")[0], balanced=True, gates="live")
    phase.copies = 2
    for k, n in enumerate((40, 2)):
        unit = system.amplifiers_h[k]
        change = torch.linspace(-3, 3, 8 * n, dtype=torch.float64).view(8, n)
        at = phase.p[k].repeat(2, 1)
        exact = unit.response(at + change) - unit.response(at)
        torch.testing.assert_close(phase.displaced("h", k, change), exact, rtol=1e-12, atol=1e-14)
        moved = change.flip(0).contiguous()
        exact = unit.response(at + moved + change) - unit.response(at + moved)
        torch.testing.assert_close(phase.error(k, moved, change), exact, rtol=1e-12, atol=1e-14)
