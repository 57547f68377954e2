"""Converters have the ranges of a calibration, and settings that do nothing are refused."""

from __future__ import annotations

import pytest
import torch

from hardware_models import DeviceModel, HopfieldNetwork, map_pcn
from hardware_models.devices import preset
from physics_ep import CrossEntropy, EquilibriumPropagation, SquaredError
from physics_ep.errors import InputError
from physics_ep.predictive_coding import mlp
from validation.sweeps.plan import device_at, planned

COST = CrossEntropy()


def examples(scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return scale * torch.rand(6, 8, generator=generator, dtype=torch.float64), torch.arange(6) % 4


def network():
    torch.manual_seed(0)
    return mlp([8, 6, 4], activation="tanh").double()


def test_ranges_are_those_of_the_calibration():
    """A range of what is being read would be another for the first example alone, and its gradient with it."""
    x, y = examples()
    mapped = map_pcn(network(), device=DeviceModel(adc_bits=6, dac_bits=6), calibration=x)
    both = mapped.gradient(x[:2], y[:2], COST, beta=0.05)
    ranges = mapped.system.ranges
    each = [mapped.gradient(x[n : n + 1], y[n : n + 1], COST, beta=0.05) for n in (0, 1)]
    assert mapped.system.ranges is ranges  # found once
    for name, whole in both.items():
        torch.testing.assert_close(whole, 0.5 * (each[0][name] + each[1][name]), rtol=1e-9, atol=1e-12)


def test_ranges_are_the_largest_readings():
    """The range of a layer is that of its activities and errors under both nudges, found without the converters and
    without drawing noise; what lies beyond is clipped to it."""
    x, y = examples()
    device = DeviceModel(adc_bits=12, read_noise=1e-3)
    mapped = map_pcn(network(), device=device, calibration=x)
    drawn = mapped.system.reads.get_state()
    assert mapped.calibrate(x, y, COST, beta=0.05) is mapped
    assert torch.equal(mapped.system.reads.get_state(), drawn)
    ideal = map_pcn(network(), calibration=x)
    _, step = ideal.estimate(x, y, COST, beta=0.05)
    depth, (activities, errors) = 2, mapped.system.ranges.largest
    units = ideal.system.amplifiers_h
    for k in range(depth):
        found = [units[k].response(e.state[k]).abs().max() for e in step.equilibria[1:]]
        assert activities[k] == pytest.approx(float(max(found)), rel=1e-12)
        apart = [
            (units[k].response(e.state[k]) - units[k].response(e.state[depth + k])) for e in step.equilibria[1:]
        ]
        assert errors[k] == pytest.approx(float(max(d.abs().max() for d in apart)), rel=1e-6)
    # Errors of a nudge ten times as strong are beyond the range that was set on purpose: all of them are clipped.
    quiet = map_pcn(network(), device=DeviceModel(adc_bits=12), calibration=x)
    for p in quiet.calibrate(x, y, COST, beta=0.05).gradient(x, y, COST, beta=0.5).values():
        assert torch.isfinite(p).all()
    bias = quiet.gradient(x, y, COST, beta=0.5)["layers.1.bias"]
    assert float(bias.abs().max()) <= 1.0001 * quiet.system.ranges.largest[1][1] / 0.5


def test_inputs_are_converted_over_a_full_scale():
    """Inputs of twice the calibration's are clipped, and not given a wider range."""
    x, _ = examples()
    mapped = map_pcn(network(), device=DeviceModel(dac_bits=4), calibration=x)
    full = float(x.abs().max())
    assert mapped.system.full_scales[0] == full
    assert float(mapped.encode(2 * x).max()) == full
    torch.testing.assert_close(mapped.encode(x), (x / full * 7).round() / 7 * full)


def test_converters_without_a_range_are_refused():
    """Without a calibration nothing says how wide a converter is; with a range of its own nothing has to."""
    for bits in ("dac", "adc"):
        with pytest.raises(InputError, match=rf"calibration must be given for converters without {bits}_range"):
            map_pcn(network(), device=DeviceModel(**{f"{bits}_bits": 8}))
        assert map_pcn(network(), device=DeviceModel(**{f"{bits}_bits": 8, f"{bits}_range": 1.0}))
    x, y = examples()
    for wrong in (x[:, :5], x[0], x[:0], x.tolist()):
        with pytest.raises(InputError) as refused:
            map_pcn(network(), device=DeviceModel(adc_bits=8), calibration=wrong)
        assert "\n" not in str(refused.value)
    system = map_pcn(network(), device=DeviceModel(adc_bits=8), calibration=x).system
    with pytest.raises(InputError, match=r"adc_range must be given, or ranges be found by Mapped\.calibrate"):
        EquilibriumPropagation(COST, beta=0.05).backward(system, x, y)


IDLE = [
    ({"dac_range": 2.0}, "dac_range must come with dac_bits"),
    ({"adc_range": 2.0}, "adc_range must come with adc_bits"),
    ({"spacing": "log"}, "spacing must come with levels"),
    ({"drift_exponent": 0.06}, "drift_exponent must come with drift_time"),
    ({"drift_time": 1e5}, "drift_time must come with drift_exponent or drift_spread"),
    ({"trim_tolerance": 0.01}, "trim_tolerance must come with copies=trimmed"),
    ({"trim_attempts": 5, "copies": "shared"}, "trim_attempts must come with copies=trimmed"),
    ({"averaging_time": 1e-4}, "averaging_time must come with temperature or phase_noise"),
    ({"pulse_noise": 0.1}, "pulse_noise must come with pulses or levels"),
]


@pytest.mark.parametrize(("fields", "says"), IDLE)
def test_settings_that_do_nothing_are_refused(fields, says):
    """A converter's range without the converter passed in silence, and changed nothing."""
    device = DeviceModel(**fields)
    swept = "stuck_on" if "levels" in says else "levels"  # what needs what is swept waits for it
    for build in (lambda: map_pcn(network(), device=device), lambda: planned(device, {swept: [1]}, ["auto"])):
        with pytest.raises(InputError, match=f"{says}, without which it does nothing, but was"):
            build()
    if not {"averaging_time", "trim_tolerance", "trim_attempts"} & set(fields):
        with pytest.raises(InputError, match=says):
            HopfieldNetwork([4, 3, 2], device=device)


def test_settings_that_do_something_are_taken():
    """Presets describe a technology wherever it is used; tiles are counted by size; what a sweep needs waits."""
    assert map_pcn(network(), device=DeviceModel(tile_rows=16)).fidelity.tiles
    assert preset("pcm").idle == ("drift_exponent", "drift_spread", "drift_reference")
    assert map_pcn(network(), device=preset("pcm"), calibration=examples()[0])
    log = DeviceModel(spacing="log")
    points = planned(log.replace(stuck_on=0.1), {"levels": [None, 4]}, ["auto"])
    devices = [device_at(log, point) for point in points]
    assert [(d.spacing, d.levels) for d in devices] == [("linear", None)] * 3 + [("log", 4)]
    full = DeviceModel(copies="trimmed", trim_tolerance=0.01, programming_noise=0.01)
    assert full.idle == ()
    assert full.without_idle() == full
    assert SquaredError().target == 1
