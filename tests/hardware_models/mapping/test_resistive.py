"""Networks mapped to resistors and diodes: exactness, Kirchhoff's law node by node, loads, diodes, power."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from hardware_models import DeviceModel, map_pcn
from hardware_models.devices.crossbars import programmed
from hardware_models.devices.wires import wired
from hardware_models.laws.elements import BOLTZMANN, THERMAL_VOLTAGE
from hardware_models.mapping.mapped import NotRealisable
from physics_ep import CrossEntropy, Nudge, SquaredError, relax, simulate
from physics_ep.errors import InputError
from physics_ep.predictive_coding import PredictiveCodingNetwork, vgg5, vgg10_skip
from tests.support.pcn import dense, examples
from tests.support.tiers import first
from validation.gradients import compare, total_error
from validation.oracles import backprop_gradient

SMALL = {"width": 8, "n_in": 5}
PARTS = ("weight", "bias")


def small_images(net: PredictiveCodingNetwork) -> tuple[torch.Tensor, torch.Tensor]:
    """Two random images and their classes."""
    x = torch.rand(2, *net.shapes[0], generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return x, torch.tensor([1, 4])


@pytest.mark.full
@pytest.mark.parametrize("activation", first(2, ["relu", "diode", "hard_sigmoid", "linear"]))
def test_ten_layers_are_the_paired_units(activation: str) -> None:
    """States and gradient of ten layers of width 128 are those of the paired units, to 1e-9. Breaks if a node's
    conductance, a rail gain or the rule of learning differs from the construction."""
    gain = 1.0 if activation == "linear" else 6**0.5
    net = dense(10, activation, width=128, gain=gain)
    paired = dense(10, activation, width=128, gain=gain, energy="paired", gates="live")
    x, y = examples(size=8)
    # Live gates, so that an activity is the response to its current; as ever in the gradient below.
    live = map_pcn(net, "resistive", gates="live").system
    for nudge in (None, Nudge(CrossEntropy(), y, 1e-4), Nudge(CrossEntropy(), y, -1e-4)):
        found = relax(live, x, nudge, tolerance=1e-12).require().state
        wanted = relax(paired, x, nudge, tolerance=1e-12).require().state
        for k, layer in enumerate(net.stack):
            for half in (0, 10):
                value = layer.activation.response(found[half + k])
                torch.testing.assert_close(value, wanted[half + k], atol=1e-9, rtol=1e-9)
    mapped = map_pcn(net, "resistive")
    gradient = mapped.gradient(x, y, CrossEntropy(), beta=1e-3)
    hopfield = map_pcn(net, "hopfield").gradient(x, y, CrossEntropy(), beta=1e-3)
    assert total_error(gradient, hopfield) < 1e-9
    assert min(row.cosine for row in compare(gradient, backprop_gradient(net, x, y, CrossEntropy()))) > 1 - 1e-7


def kirchhoff(net: PredictiveCodingNetwork, x: np.ndarray, pull, mask=None) -> tuple[list, list, float]:
    """Node voltages of h and u of a dense ReLU network from resistors alone, node by node, at one volt a unit.

    Every node has G_tot; a conductance |w| G_tot / A to one of the rails +-A V; ideal diodes by the active set, and
    `pull(v)` the current of the nudge over G_tot. Fixed-point sweeps; also the largest current that is left.
    """
    weights = [layer.weight.detach().numpy() for layer in net.stack]
    biases = [layer.bias.detach().numpy() for layer in net.stack]
    depth, total = len(weights), 1e-3
    gains = []
    for k in range(depth):
        back = np.abs(weights[k + 1]).sum(0) if k + 1 < depth else 0.0
        gains.append(float((np.abs(weights[k]).sum(1) + np.abs(biases[k]) + back).max()))
    h = [np.zeros((len(x), len(b))) for b in biases]
    u = [v.copy() for v in h]

    def current(v, k, rails):
        """Out of nodes v of layer k: through conductances to the rails, and the leak that completes them."""
        out, used = np.zeros_like(v), np.zeros(v.shape[1])
        for weight, volts in rails:
            g = np.abs(weight) * total / gains[k]
            rail = np.sign(weight) * gains[k] * volts[:, None, :]
            out += (g * (v[:, :, None] - rail)).sum(2)
            used += g.sum(1)
        assert (used <= total * (1 + 1e-12)).all()
        return out + (total - used) * v

    left = 0.0
    for _ in range(400):
        left = 0.0
        for k in range(depth):
            below = x if k == 0 else h[k - 1]
            forward = [(weights[k], below), (biases[k][:, None], np.ones((len(x), 1)))]
            fed = [(weights[k + 1].T, h[k + 1] - u[k + 1])] if k + 1 < depth else []
            for v, rails, top in ((h, forward + fed, pull), (u, forward, None)):
                out = current(v[k], k, rails)
                if k == depth - 1 and top is not None:
                    out = out - total * top(v[k])
                new = v[k] - out / total
                if k < depth - 1:
                    new = np.maximum(new, 0)  # the diode carries what would pull the node below ground
                left = max(left, float(np.abs(new - v[k]).max()))
                v[k] = new
    return h, u, left


@pytest.mark.parametrize("beta", [0.0, 0.02, -0.02])
def test_three_layers_by_kirchhoffs_law(beta: float) -> None:
    """Resistor by resistor, in numpy: rails, leaks, diodes, the nudge as a conductance to the target."""
    net = dense(3, "relu", **SMALL)
    x, labels = examples((5,), 4)
    y = torch.eye(10, dtype=torch.float64)[labels]
    mapped = map_pcn(net, "resistive", gates="live")
    found = relax(mapped.system, x, Nudge(SquaredError(), y, beta) if beta else None, tolerance=1e-13)
    h, u, left = kirchhoff(net, x.numpy(), lambda v: -beta * (v - y.numpy()))
    assert left < 1e-13
    state = found.require().state
    for k, layer in enumerate(net.stack):
        for half, volts in ((0, h), (3, u)):
            torch.testing.assert_close(
                layer.activation.response(state[half + k]), torch.from_numpy(volts[k]), atol=1e-12, rtol=0
            )


def test_gains_and_leaks() -> None:
    """Gains are volts a volt: node by node, v = A / G sum (G+ - G-) V in volts and siemens gives the network's
    activities at each layer's own full scale. G is the largest sum of cells, the passive network would need a leak
    of G / A less that; a limit below the largest A is refused, whatever it is in units of activity."""
    net = dense(3, "relu", **SMALL, gain=4.0)
    x, _ = examples((5,), 4)
    for g_max in (1e-4, 1e-2):
        mapped = map_pcn(net, "resistive", DeviceModel(g_min=1e-12, g_max=g_max), calibration=x)
        system, volts = mapped.system, mapped.device.voltage
        activities = [x, *net.run(x).states]
        back = [system.cells_of(f"layers.{k}.weight", "transpose") for k in (1, 2)]
        for k, row in enumerate(mapped.fidelity.layers):
            weight, bias = (system.cells_of(f"layers.{k}.{part}", "h") for part in ("weight", "bias"))
            sums = (weight.plus + weight.minus).sum(1) + bias.plus + bias.minus
            if k < 2:
                sums = sums + (back[k].plus + back[k].minus).sum(0)
            total = float(sums.max())
            assert row.total_conductance == pytest.approx(total, rel=1e-9)
            gains = system.gains[k]
            below = activities[k].detach() * volts / system.full_scales[k]
            current = gains[f"layers.{k}.weight"] * below @ (weight.plus - weight.minus).t()
            current = current + gains[f"layers.{k}.bias"] * volts * (bias.plus - bias.minus)
            node = net.stack[k].activation.response(current / total) * system.full_scales[k + 1] / volts
            torch.testing.assert_close(node, activities[k + 1].detach(), atol=1e-9, rtol=1e-9)
            assert row.gain == max(gains.values())
            passive = total / gains[f"layers.{k}.weight"]
            assert row.negative_conductance == pytest.approx(min(0, passive - total), rel=1e-6)
    gains, scales = [row.gain for row in mapped.fidelity.layers], system.scales
    need = max(gains)
    assert need > 1.5 * max(scales[f"layers.{k}.weight"] * total for k, total in enumerate(system.total))
    device = mapped.device.replace(amplifier_gain_limit=need * 1.01)
    again = map_pcn(net, "resistive", device, calibration=x).system
    with pytest.raises(NotRealisable, match=r"rails need a gain of .* beyond amplifier_gain_limit = "):
        map_pcn(net, "resistive", device.replace(amplifier_gain_limit=need * 0.99), calibration=x)
    # Cells that are written later are asked too: with all at g_max a node needs more.
    cells = {}
    for name, p in net.named_parameters():
        span = again.scales[name] * (device.g_max - device.g_min)
        cells[name] = programmed(torch.full_like(p, span), device, 0, name, span)
    with pytest.raises(NotRealisable, match="beyond amplifier_gain_limit"):
        again.write(cells)


@pytest.mark.parametrize("fields", [
    {},
    {"programming_noise": 0.05, "leaks": "fixed"},
    {"copy_mismatch_u": 0.05, "copy_mismatch_h": 0.02, "copy_mismatch_transpose": 0.02},
    {"diode_current": 1e-6, "amplifier_gain": 0.05, "amplifier_offset": 0.02},
], ids=["ideal", "loaded", "copies", "buffers"])  # fmt: skip
def test_power_is_what_the_rails_deliver(fields: dict[str, Any]) -> None:
    """V I of every rail of the circuit drawn part by part, cell by cell, against the report, at full scales that
    are not one. If this fails, energies are those of another circuit: without what is fed back, say."""
    net = dense(3, "relu", **SMALL)
    x, _ = examples((5,), 1)
    mapped = map_pcn(net, "resistive", DeviceModel(voltage=0.5, **fields), seed=1, calibration=x)
    form = mapped.to_circuit()
    resistors, names = form.circuit.parts.group("resistor"), form.circuit.parts.nodes
    volts = form.solve(x).voltages[0]
    power = np.zeros(3)
    for (node, rail), (siemens,) in zip(resistors.nodes, resistors.values, strict=True):
        delivered = siemens * volts[rail] * (volts[rail] - volts[node])
        if names[rail][0] in "wb":
            power[int(names[node][1]) - 1] += delivered
        elif names[rail][0] == "t":  # of the array that feeds back, "tw2p1"
            power[int(names[rail][2]) - 1] += delivered
    assert [row.power for row in mapped.fidelity.layers] == pytest.approx(power.tolist(), rel=1e-9)


@pytest.mark.parametrize("build", [vgg5, vgg10_skip], ids=["pooled", "skips"])
def test_convolutions_pools_and_skips(build) -> None:
    """Whole architectures: exact, with loads of one at every pixel (padding, strides and windows counted)."""
    options = {"input_shape": (3, 32, 32), "width": 1 / 32, "gain": 6**0.5}
    net = build(10, **options).double()
    x, y = small_images(net)
    mapped = map_pcn(net, "resistive", calibration=x)
    grads = mapped.gradient(x, y, CrossEntropy(), beta=1e-4)
    assert min(row.cosine for row in compare(grads, backprop_gradient(net, x, y, CrossEntropy()))) > 1 - 1e-9
    assert mapped.fidelity.free_state_error < 1e-14
    dummy = DeviceModel(programming_noise=0.02, leaks="dummy", copies="shared")
    loaded = map_pcn(net, "resistive", dummy, calibration=x)
    assert all(load.shape == tuple(shape) for load, shape in zip(loaded.system.load_h, net.shapes[1:], strict=True))
    target = backprop_gradient(loaded.perturbed, x, y, CrossEntropy())
    assert total_error(loaded.gradient(x, y, CrossEntropy(), beta=1e-4), target) < 1e-5


def test_sums_at_pixels_by_single_cells() -> None:
    """Sum of the cells at each node of a convolution and below it, against the matrix that it is."""
    from hardware_models.mapping.node_sums import into_nodes, out_of_nodes
    from physics_ep.maps import ConvLink

    for link in (
        ConvLink((2, 5, 5), 3),
        ConvLink((2, 5, 5), 3, stride=2),
        ConvLink((2, 6, 6), 3, pooling="average"),
    ):
        cells = torch.rand(link.weight_shape, dtype=torch.float64)
        inputs = torch.eye(50 if link.pre[1] == 5 else 72, dtype=torch.float64).view(-1, *link.pre)
        matrix = link.apply(cells, inputs).flatten(1).t()
        torch.testing.assert_close(into_nodes(link, cells).flatten(), matrix.sum(1))
        torch.testing.assert_close(out_of_nodes(link, cells).flatten(), matrix.sum(0))


def test_what_leaks_are_set_for() -> None:
    """Noisy cells: trimmed leaks and a dummy on u keep EP exact for the instance's own network; leaks set for what
    was asked do not, and the free state is no forward pass."""
    net = dense(3, "relu", width=16, gain=6**0.5)
    x, y = examples(size=4)
    for load in map_pcn(net, "resistive", DeviceModel(g_min=2e-5, leaks="fixed")).system.load_u:
        torch.testing.assert_close(load, torch.ones_like(load))  # cells as asked for, those that are off counted
    errors = {}
    for leaks in ("trimmed", "dummy", "fixed"):
        mapped = map_pcn(net, "resistive", DeviceModel(programming_noise=0.05, leaks=leaks, copies="shared"))
        target = backprop_gradient(mapped.perturbed, x, y, CrossEntropy())
        errors[leaks] = total_error(mapped.gradient(x, y, CrossEntropy(), beta=1e-3), target)
        if leaks != "trimmed":
            # By hand: the cells' errors over the conductance that was meant.
            system = mapped.system
            forward = [f"layers.0.{n}" for n in ("weight", "bias")]
            there, asked = system.kept_ends("h"), system.kept_ends("asked")
            extra = sum(there[n][0] - asked[n][0] for n in forward)
            extra = extra + system.kept_ends("transpose")["layers.1.weight"][1] - asked["layers.1.weight"][1]
            torch.testing.assert_close(system.load_h[0], system.total[0] / (system.total[0] + extra))
    assert errors["trimmed"] < 1e-5
    assert errors["dummy"] < 1e-5
    assert 0.01 < errors["fixed"] < 0.5


def test_real_diodes_by_newton() -> None:
    """Is and n of each diode's own: G v - Is (exp(-v / n VT) - 1) = G p in volts and siemens, h and u apart."""
    net = dense(3, "relu", **SMALL)
    x, y = examples((5,), 4)
    device = DeviceModel(
        diode_current=1e-9, diode_ideality=1.3, diode_mismatch=0.3, ideality_mismatch=0.05, voltage=0.5
    )
    mapped = map_pcn(net, "resistive", device, seed=2, calibration=x)
    system = mapped.system
    volts = device.voltage / system.full_scales[1]
    for which, units in (("h", system.amplifiers_h), ("u", system.amplifiers_u)):
        current = 1e-9 * system.drawn(0.3, 0, which, "diode").exp()
        ideality = 1.3 * (1 + system.drawn(0.05, 0, which, "ideality"))
        p = torch.linspace(-3, 3, 13, dtype=torch.float64)[:, None].expand(13, 8)
        v = units[0].response(p) * volts
        missing = system.total[0] * (v - p * volts) - current * torch.expm1(-v / (ideality * THERMAL_VOLTAGE))
        assert float(missing.abs().max()) < 1e-14 * float((system.total[0] * p * volts).abs().max())
    # Equal diodes: the network is another, its gradient exact; unequal ones of h and u spoil it.
    equal = map_pcn(net, "resistive", device.replace(diode_mismatch=0.0, ideality_mismatch=0.0), calibration=x)
    target = backprop_gradient(equal.perturbed, x, y, CrossEntropy())
    assert total_error(equal.gradient(x, y, CrossEntropy(), beta=1e-4), target) < 1e-6
    assert not torch.allclose(equal.perturbed(x), net(x), rtol=1e-2)
    spoilt = total_error(
        mapped.gradient(x, y, CrossEntropy(), beta=1e-2), backprop_gradient(mapped.perturbed, x, y, CrossEntropy())
    )
    assert spoilt > 0.01


def test_buffers_behind_the_nodes() -> None:
    """Gain, offset and rails of the buffers act on what is read of a node, not on its diode."""
    net = dense(3, "relu", **SMALL)
    x, _ = examples((5,), 4)
    device = DeviceModel(amplifier_gain=0.05, amplifier_offset=0.02, amplifier_saturation=0.8)
    system = map_pcn(net, "resistive", device, calibration=x).system
    unit, full = system.amplifiers_h[0], system.full_scales[1]
    p = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None].expand(9, 8)
    gain, offset = 1 + system.drawn(0.05, 0, "h", "gain"), full * system.drawn(0.02, 0, "h", "offset")
    wanted = (gain * (torch.relu(p) + offset)).clamp(-0.8 * full, 0.8 * full)
    torch.testing.assert_close(unit.response(p), wanted)
    moved = unit.displaced(p, torch.full_like(p, 0.3))
    torch.testing.assert_close(moved, unit.response(p + 0.3) - wanted, atol=1e-14, rtol=1e-12)
    slope = (unit.integral(p + 1e-6) - unit.integral(p - 1e-6)) / 2e-6
    torch.testing.assert_close(slope, wanted, atol=1e-5, rtol=0)


def test_in_time() -> None:
    """C dv/dt = G (p - v): an isolated linear node follows 1 - e^-t, a diode stops it at ground at once; the course
    of a nudged network ends in the sweeps' state; simulate is the same course."""
    one = dense(1, "relu", n_in=3)
    x = torch.ones(1, 3, dtype=torch.float64)
    mapped = map_pcn(one, "resistive")
    course = simulate(mapped.system, x, 3.0, start=mapped.system.rest_state(x))
    held = course.internal[0][:, 0]  # volts of h
    end = one(x)[0]
    torch.testing.assert_close(held, (1 - torch.exp(-course.time))[:, None] * end, atol=1e-7, rtol=0)
    net = dense(3, "relu", **SMALL)
    x, y = examples((5,), 4)
    mapped = map_pcn(net, "resistive")
    free = relax(mapped.system, x)
    nudge = Nudge(CrossEntropy(), y, 0.05)
    found = [relax(mapped.system, x, nudge, start=free.state, solver=s).require().state for s in ("sweep", "flow")]
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-8, rtol=0)
    settled, end = mapped.settling(x)
    assert end.require()
    assert settled == pytest.approx(mapped.fidelity.settling_time / 1e-6, abs=3)


@pytest.mark.slow
@pytest.mark.parametrize("voltage", [0.2, 1.0, 3.0])
def test_real_diodes_in_time(voltage: float) -> None:
    """A diode that carries a current is far faster than its node without it: explicit steps must follow, up to
    full scales of volts. The end is that of the sweeps, the time that of the nodes without currents."""
    net = dense(3, "relu", **SMALL)
    x, y = examples((5,), 4)
    mapped = map_pcn(
        net, "resistive", DeviceModel(diode_current=1e-9, voltage=voltage), calibration=x, gates="live"
    )
    settled, found = mapped.settling(x)
    assert found.require()
    assert settled == pytest.approx(mapped.fidelity.settling_time / 1e-6, abs=4)
    free, nudge = relax(mapped.system, x).require().state, Nudge(CrossEntropy(), y, 0.05)
    ends = [relax(mapped.system, x, nudge, start=free, solver=s).require().state for s in ("sweep", "flow")]
    for a, b in zip(*ends, strict=True):
        torch.testing.assert_close(a, b, atol=1e-7, rtol=0)


def test_loads_are_those_of_wired_cells() -> None:
    """Cells that act less through their wires load their nodes less, by hand: else leaks that are set for what was
    asked would seem right where they are not."""
    net = dense(3, "relu", width=16)
    device = DeviceModel(wire_resistance=20.0, leaks="dummy")
    system = map_pcn(net, "resistive", device).system
    bare = map_pcn(net, "resistive").system
    cells = {name: wired(bare.cells_of(name, "h"), device) for name in bare.scales}
    there = sum((cells[f"layers.0.{n}"].plus + cells[f"layers.0.{n}"].minus).reshape(16, -1).sum(1) for n in PARTS)
    back = (cells["layers.1.weight"].plus + cells["layers.1.weight"].minus).sum(0)
    asked = sum(bare.asked_sums(0))
    load = system.total[0] / (system.total[0] + there + back - asked)
    torch.testing.assert_close(system.load_h[0], load)
    assert float((load - 1).abs().max()) > 1e-3


def test_another_dtype_and_then_other_cells() -> None:
    """After `.float()` everything that `write` compares is in float32: cells, targets of leaks, loads, fidelity."""
    net = dense(3, "relu", **SMALL)
    x, y = examples((5,), 4)
    for leaks in ("trimmed", "fixed"):
        mapped = map_pcn(
            net, "resistive", DeviceModel(programming_noise=0.02, leaks=leaks, copies="shared"), calibration=x
        )
        wanted = mapped.gradient(x, y, CrossEntropy(), beta=0.05)
        system = mapped.system.float()
        system.write({name: system.cells_of(name, "h") for name in system.scales})
        found = mapped.gradient(x.float(), y, CrossEntropy(), beta=0.05)
        assert all(g.dtype == torch.float32 for g in found.values())
        assert total_error({n: g.double() for n, g in found.items()}, wanted) < 1e-3
        assert 0 < mapped.fidelity.free_state_error < 1


def test_a_network_of_zeros() -> None:
    """No cell conducts where g_min is 0: the leak alone completes a node, and nothing is divided by it."""
    net = dense(3, "relu", **SMALL)
    for p in net.parameters():
        torch.nn.init.zeros_(p)
    x, _ = examples((5,), 4)
    for fields in ({}, {"temperature": 300.0}, {"diode_current": 1e-9}):
        mapped = map_pcn(net, "resistive", DeviceModel(g_min=0.0, **fields), calibration=x)
        assert mapped.fidelity.free_state_error < 1e-12
        assert mapped.system.total == [1e-4] * 3


@pytest.mark.full
def test_thermal_noise_by_nyquist() -> None:
    """The mean over t of a node's Johnson current has the variance 2 k T G / t: the estimate's variance follows it,
    and goes as 1 / beta^2."""
    net = dense(2, "relu", **SMALL)
    x, y = examples((5,), 4)
    device = DeviceModel(temperature=300.0, averaging_time=1e-7)
    mapped = map_pcn(net, "resistive", device)
    phase = mapped.system.phase(mapped.system.prepare(x))
    size = mapped.system.noise_sizes(0, "h", phase)
    x_ = 0.1  # averaging time over time constant
    mean = 2 * (x_ - 1 + np.exp(-x_)) / x_**2
    wanted = (BOLTZMANN * 300 * mean / (1e-6 * mapped.system.total[0])) ** 0.5 / device.voltage
    assert size == pytest.approx(wanted)
    spread = {}
    for beta in (0.01, 0.02):
        draws = [mapped.gradient(x, y, CrossEntropy(), beta=beta)["layers.1.weight"] for _ in range(60)]
        spread[beta] = float(torch.stack(draws).var(0).mean())
    assert spread[0.01] / spread[0.02] == pytest.approx(4, rel=0.25)


def test_refusals() -> None:
    """What resistors cannot be is told with what they can be."""
    with pytest.raises(NotRealisable, match=r"'resistive': its units can be relu, linear, .*diode, not tanh"):
        map_pcn(dense(3), "resistive")
    with pytest.raises(NotRealisable, match=r"real diodes .* make relu or diode units, not hard_sigmoid"):
        map_pcn(dense(3, "hard_sigmoid"), "resistive", DeviceModel(diode_current=1e-12))
    with pytest.raises(InputError, match="diode_ideality must be 1"):
        map_pcn(dense(3, "relu"), "resistive", DeviceModel(diode_ideality=1.5))
    with pytest.raises(InputError, match="phase_noise must be left out on the substrate 'resistive'"):
        map_pcn(dense(3, "relu"), "resistive", DeviceModel(phase_noise=1.0))
    with pytest.raises(InputError, match="leaks must be 'trimmed', 'dummy' or 'fixed'"):
        DeviceModel(leaks="none")
    with pytest.raises(InputError, match="ideality_mismatch must be 0 where diodes are ideal"):
        map_pcn(dense(3, "relu"), "resistive", DeviceModel(ideality_mismatch=0.1))
    assert map_pcn(dense(3, "diode"), "resistive", DeviceModel(ideality_mismatch=0.1))
    for name, value in (("leaks", "fixed"), ("amplifier_gain_limit", 10.0), ("diode_mismatch", 0.1)):
        with pytest.raises(InputError, match=f"{name} must be left out on the substrate 'hopfield'"):
            map_pcn(dense(3, "relu"), "hopfield", DeviceModel(**{name: value}))
