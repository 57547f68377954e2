"""Cells of a device instance: each imperfection against its own definition, and that it changes nothing else."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, kstest

from hardware_models.devices import crossbars
from hardware_models.devices.crossbars import Cells, converted, copied, fluctuated, programmed, stream, tiles
from hardware_models.devices.model import DeviceModel
from hardware_models.devices.presets import PRESETS
from physics_ep.errors import InputError

N = 20_000
"""Cells of a statistic: a standard deviation is known to 0.5 %."""
CHANCE = 1e-4
"""Significance of a statistical test; seeds are fixed, so that one which passes passes always."""

EVERYTHING = {
    "levels": 16,
    "programming_noise": 0.02,
    "device_mismatch": 0.05,
    "stuck_off": 0.03,
    "stuck_on": 0.02,
    "drift_exponent": 0.06,
    "drift_spread": 0.03,
    "drift_time": 1e4,
}


def weights(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Normal weights; exactly representable in float32, so that both widths are given the same ones."""
    drawn = torch.randn(shape or (N,), generator=torch.Generator().manual_seed(seed))
    return drawn.to(dtype)


def both(cells: Cells) -> torch.Tensor:
    """All conductances of an array."""
    return torch.cat([cells.plus.flatten(), cells.minus.flatten()])


def targets(w: torch.Tensor, device: DeviceModel) -> torch.Tensor:
    """What an ideal cell of the range would hold."""
    return both(programmed(w, DeviceModel(g_min=device.g_min, g_max=device.g_max), 0, "w"))


def mid_range(device: DeviceModel, *, span: float = 2.0) -> Cells:
    """N cells of either sign at one conductance in the range's middle, clear of the bound at zero."""
    return programmed(torch.full((N,), 0.5 * span, dtype=torch.float64), device, 7, "w", span=span)


# -- streams ------------------------------------------------------------------------------------------------------


def drawn(generator: torch.Generator) -> tuple[float, ...]:
    return tuple(torch.rand(4, generator=generator).tolist())


def test_streams_depend_on_seed_and_purpose_alone():
    """An instance that hangs on torch's global seed, or on what ran before, cannot be had again."""
    torch.manual_seed(1)
    first = drawn(stream(3, "layer", 2))
    torch.manual_seed(2)
    torch.rand(17)
    assert drawn(stream(3, "layer", 2)) == first
    state = torch.get_rng_state()
    stream(3, "layer")
    assert torch.equal(torch.get_rng_state(), state)


def test_streams_of_different_purposes_differ():
    """Two imperfections on one stream would be correlated. Numbers must neither run together nor pass for texts."""
    keys = [
        (), (0,), (0, 0), (1,), (10,), (1, 0), ("1",), ("1", 0), ("10",), (1, "0"), ("a", "b"), ("ab",), ("a,b",),
        (2**32,), (0, 1), (-1,), ("w", "programming", "plus"), ("w", "programming", "minus"), ('a", "b',),
    ]  # fmt: skip
    found = {drawn(stream(seed, *key)) for seed in (0, 1, 2**40) for key in keys}
    assert len(found) == 3 * len(keys)


@given(st.lists(st.tuples(st.integers(0, 2**63), st.text(max_size=8)), unique=True, min_size=2, max_size=20))
@pytest.mark.full
def test_streams_have_no_collisions_by_spelling(keys):
    """Names of arrays are a user's: none of them may share another's draws."""
    assert len({drawn(stream(*key)) for key in keys}) == len(keys)


@pytest.mark.parametrize("seed", [-1, 1.5, True, "3", None])
def test_bad_seeds(seed):
    """A wrong seed must not become some instance."""
    with pytest.raises(InputError, match=r"^Argument seed must be an integer of 0 or more, but was"):
        stream(seed)


# -- ideal cells --------------------------------------------------------------------------------------------------


@given(
    st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30),
    st.floats(0, 0.9),
    st.floats(1e-9, 1e3),
)
def test_ideal_cells_hold_the_weights(values, low, high):
    """The reference of all else: 1e-15 of the span, times what a narrow range of conductances costs."""
    w = torch.tensor(values, dtype=torch.float64)
    device = DeviceModel(g_min=low * high, g_max=high)
    cells = programmed(w, device, 0, "w")
    span = float(w.abs().max())
    # The second term is for spans so small that the scale is denormal.
    assert float((cells.values - w).abs().max()) <= 1e-15 * span / (1 - low) + 1e-300


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-15), (torch.float32, 2e-7)])
def test_ideal_cells_are_a_differential_pair(dtype, error):
    """One of two cells at g_min, the other above by |w| / scale; zeros come back as zeros."""
    w = weights(40, 50, dtype=dtype)
    w[3] = 0
    device = DeviceModel()
    cells = programmed(w, device, 0, "w")
    assert cells.plus.shape == cells.minus.shape == w.shape
    assert cells.plus.dtype == cells.minus.dtype == cells.values.dtype == dtype
    span = float(w.abs().max())
    assert cells.scale == span / (device.g_max - device.g_min)
    assert float((cells.values - w).abs().max()) <= error * span
    assert not cells.values[3].any()
    assert bool((torch.minimum(cells.plus, cells.minus) == torch.tensor(device.g_min, dtype=dtype)).all())
    assert float(torch.maximum(cells.plus, cells.minus).max()) == pytest.approx(device.g_max, rel=1e-6)
    assert bool(((cells.plus > cells.minus) == (w > 0)).all())


def test_weights_are_left_as_they_are():
    """Cells are worked on in place; the network's own weights must not be."""
    for dtype in (torch.float32, torch.float64):
        w = weights(100, dtype=dtype).requires_grad_()
        before = w.detach().clone()
        cells = programmed(w, DeviceModel(**EVERYTHING), 0, "w")
        held = both(cells).clone()
        copied(cells, 0.1, stream(0))
        _ = cells.values
        assert torch.equal(w.detach(), before)
        assert torch.equal(both(cells), held)
        assert not cells.plus.requires_grad


def test_span_sets_the_scale_and_clips():
    """Arrays that share an amplifier share a scale: the bias row has that of its weights."""
    w = weights(1000)
    device = DeviceModel()
    for span in (0.5, 8.0):
        cells = programmed(w, device, 0, "w", span=span)
        assert cells.scale == span / (device.g_max - device.g_min)
        assert torch.allclose(cells.values, w.clamp(-span, span), rtol=0, atol=1e-14)
    assert both(programmed(w, device, 0, "w", span=0.5)).max() <= device.g_max
    for bad in (-1.0, math.nan, math.inf):
        with pytest.raises(InputError, match=r"^Argument span must"):
            programmed(w, device, 0, "w", span=bad)


def test_empty_and_zero_arrays():
    """A fresh bias is all zeros: it has no scale, and must not become NaN."""
    for device in (DeviceModel(), DeviceModel(**EVERYTHING)):
        zero = programmed(torch.zeros(5, 3), device, 0, "b")
        assert zero.scale == 0
        assert not zero.values.any()
        assert programmed(torch.zeros(0, 3), device, 0, "b").values.shape == (0, 3)
    assert converted(torch.zeros(0), 4).shape == (0,)


def test_memory_layout_and_chunks_do_not_matter(monkeypatch):
    """A transposed view and the tensor that it shows are one array."""
    w = weights(30, 70)
    device = DeviceModel(**EVERYTHING)
    assert torch.equal(programmed(w.t(), device, 0, "w").plus, programmed(w.t().contiguous(), device, 0, "w").plus)
    # Chunks of a multiple of 16 go on with the same draws: an array larger than one is none of several equal parts.
    whole = programmed(weights(640), device, 0, "w")
    monkeypatch.setattr(crossbars, "CHUNK", 64)
    parts = programmed(weights(640), device, 0, "w")
    assert torch.equal(whole.plus, parts.plus)
    assert torch.equal(copied(whole, 0.1, stream(1)).minus, copied(parts, 0.1, stream(1)).minus)


# -- determinism --------------------------------------------------------------------------------------------------


def test_an_instance_is_the_same_always():
    """(device, seed, key) names an instance: torch's seed, its default dtype and the array's width have no part."""
    device = DeviceModel(**EVERYTHING)
    w = weights(60, 70)
    first = programmed(w, device, 5, "w")
    torch.manual_seed(11)
    again = programmed(w, device, 5, "w")
    assert torch.equal(first.plus, again.plus)
    assert torch.equal(first.minus, again.minus)
    torch.set_default_dtype(torch.float64)
    try:
        wide = programmed(w, device, 5, "w")
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(first.plus, wide.plus)
    # Also the level of every cell: one that were rounded in float32 would sometimes be the next.
    narrow = programmed(w.float(), device, 5, "w")
    assert narrow.scale == first.scale
    assert torch.allclose(both(narrow).double(), both(first), rtol=2e-7, atol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_an_instance_is_the_same_on_a_gpu():
    """Draws are made on the CPU, whatever computes."""
    device = DeviceModel(**EVERYTHING)
    w = weights(60, 70)
    here, there = programmed(w, device, 5, "w"), programmed(w.cuda(), device, 5, "w")
    assert torch.allclose(both(here), both(there).cpu(), rtol=1e-12, atol=0)
    mirrored = copied(there, 0.1, stream(2))
    assert torch.allclose(both(copied(here, 0.1, stream(2))), both(mirrored).cpu(), rtol=1e-12, atol=0)


def test_other_seeds_arrays_and_signs_have_other_cells():
    """Equal draws in two layers, or in the two cells of a weight, would correlate errors, or cancel them."""
    device = DeviceModel(programming_noise=0.02)
    base = mid_range(device)
    noise = base.plus - base.plus.mean()
    others = [
        programmed(torch.ones(N, dtype=torch.float64), device, 8, "w", span=2.0).plus,
        programmed(torch.ones(N, dtype=torch.float64), device, 7, "v", span=2.0).plus,
        programmed(-torch.ones(N, dtype=torch.float64), device, 7, "w", span=2.0).minus,
    ]
    for other in others:
        correlation = float(torch.corrcoef(torch.stack([noise, other]))[0, 1])
        assert abs(correlation) < 4 / math.sqrt(N)


def test_imperfections_are_drawn_apart():
    """On one stream, cells that were programmed too high would be those that amplify, stick, or drift the most."""
    w = torch.ones(N, dtype=torch.float64)

    def found(**fields: float) -> torch.Tensor:
        return programmed(w, DeviceModel(**fields), 7, "w", span=2.0).plus

    columns = [
        found(programming_noise=0.02),
        found(device_mismatch=0.02).log(),
        (found(stuck_off=0.5) == DeviceModel().g_min).double(),
        found(drift_spread=0.02, drift_time=1e3).log(),
    ]
    correlations = torch.corrcoef(torch.stack(columns)) - torch.eye(4, dtype=torch.float64)
    assert float(correlations.abs().max()) < 4.5 / math.sqrt(N)


# -- levels -------------------------------------------------------------------------------------------------------


def grid(device: DeviceModel) -> np.ndarray:
    assert device.levels is not None
    build = np.linspace if device.spacing == "linear" else np.geomspace
    return build(device.g_min, device.g_max, device.levels)


@pytest.mark.parametrize("spacing", ["linear", "log"])
@pytest.mark.parametrize("levels", [2, 3, 16, 128])
def test_cells_are_at_the_nearest_level(spacing, levels):
    """A cell between levels, or at the next but one, is no device of so many levels."""
    device = DeviceModel(levels=levels, spacing=spacing, g_min=2e-6, g_max=5e-5)
    w = torch.linspace(-1, 1, N, dtype=torch.float64)
    found, meant = both(programmed(w, device, 0, "w")).numpy(), targets(w, device).numpy()
    levels_of = grid(device)
    distance = np.abs(found[:, None] - levels_of)
    assert distance.min(1).max() <= 1e-14 * device.g_max
    nearest = np.abs(meant[:, None] - levels_of).min(1)
    assert np.abs(found - meant).max() <= nearest.max() + 1e-14 * device.g_max
    assert np.abs(np.abs(found - meant) - nearest).max() <= 1e-14 * device.g_max
    assert len(np.unique(distance.argmin(1))) == levels


@given(st.integers(2, 300), st.sampled_from(["linear", "log"]), st.floats(1e-4, 0.9))
def test_both_ends_are_levels(levels, spacing, low):
    """The largest weight is held exactly, and a zero weight is a zero."""
    device = DeviceModel(levels=levels, spacing=spacing, g_min=low, g_max=1.0)
    cells = programmed(torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64), device, 0, "w")
    assert torch.allclose(cells.values, torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64), rtol=0, atol=1e-12)
    assert cells.values[1] == 0


# -- drawn once a cell --------------------------------------------------------------------------------------------


def test_programming_noise_is_normal_and_additive():
    """Its size is a fraction of the range, the same at every conductance."""
    device = DeviceModel(g_min=1e-5, programming_noise=0.02)
    size = 0.02 * (device.g_max - device.g_min)
    middle = mid_range(device).plus.numpy()
    expected = 0.5 * (device.g_min + device.g_max)
    assert kstest((middle - expected) / size, "norm").pvalue > CHANCE
    w = weights()
    error = (both(programmed(w, device, 3, "w")) - targets(w, device)).numpy() / size
    assert kstest(error, "norm").pvalue > CHANCE


def test_gain_mismatch_is_log_normal():
    """It multiplies the whole conductance, its floor too, and its median is 1."""
    device = DeviceModel(device_mismatch=0.3)
    w = weights()
    log_gain = (both(programmed(w, device, 3, "w")) / targets(w, device)).log().numpy()
    assert kstest(log_gain / 0.3, "norm").pvalue > CHANCE


@pytest.mark.parametrize(("off", "on"), [(0.1, 0.0), (0.0, 0.05), (0.02, 0.3), (0.6, 0.4), (1.0, 0.0), (0.0, 1.0)])
def test_stuck_cells(off, on):
    """So many at exactly g_min, so many at exactly g_max, whatever was written; the others where they were."""
    device = DeviceModel(stuck_off=off, stuck_on=on)
    w = weights().abs() + 0.1
    span = 2 * float(w.max())
    found = programmed(w, device, 3, "w", span=span).plus
    meant = programmed(w, DeviceModel(), 3, "w", span=span).plus
    at_off, at_on = found == device.g_min, found == device.g_max
    for count, share in ((int(at_off.sum()), off), (int(at_on.sum()), on)):
        assert binomtest(count, N, share).pvalue > CHANCE
    moved = at_off | at_on
    assert torch.equal(found[~moved], meant[~moved])
    if off + on == 1:
        assert bool(moved.all())


def test_stuck_cells_take_neither_noise_nor_gain():
    """Programming pulses do not reach them."""
    device = DeviceModel(stuck_off=0.2, stuck_on=0.2, programming_noise=0.1, device_mismatch=0.1)
    found = mid_range(device).plus
    assert binomtest(int((found == device.g_min).sum()), N, 0.2).pvalue > CHANCE
    assert binomtest(int((found == device.g_max).sum()), N, 0.2).pvalue > CHANCE


@pytest.mark.parametrize("time", [0.0, 10.0, 20.0, 40.0, 1e3, 86400.0])
def test_drift_is_a_power_of_time(time):
    """G (t / t0)^-nu (Le Gallo et al. 2018, Adv. Electron. Mater. 4:1700627; Joshi et al. 2020); none up to t0."""
    device = DeviceModel(drift_exponent=0.06, drift_time=time, drift_reference=20.0)
    w = weights(500)
    expected = targets(w, device) * max(time / 20.0, 1.0) ** -0.06
    assert torch.allclose(both(programmed(w, device, 0, "w")), expected, rtol=1e-13, atol=0)


def test_drift_exponents_spread_normally_and_stay():
    """A cell keeps its exponent: on a log-log plot each is a straight line through t0."""
    device = DeviceModel(drift_exponent=0.06, drift_spread=0.02, drift_time=2e4, drift_reference=20.0)
    w = weights()
    meant = targets(w, device)
    exponent = -(both(programmed(w, device, 3, "w")) / meant).log() / math.log(1e3)
    assert kstest(((exponent - 0.06) / 0.02).numpy(), "norm").pvalue > CHANCE
    later = both(programmed(w, device.replace(drift_time=2e7), 3, "w"))
    assert torch.allclose(later, meant * 1e6**-exponent, rtol=1e-10, atol=0)


@given(
    st.integers(0, 2**32),
    st.floats(0, 3),
    st.floats(0, 2),
    st.floats(0, 1),
    st.floats(0, 5),
    st.floats(0, 3),
    st.sampled_from([None, 2, 5]),
)
def test_conductances_are_never_negative(seed, noise, mismatch, stuck, copy, spread, levels):
    """A resistor that delivers power would make an unstable network look stable, or the reverse."""
    device = DeviceModel(
        programming_noise=noise,
        device_mismatch=mismatch,
        stuck_off=stuck / 2,
        stuck_on=stuck / 2,
        drift_exponent=0.1,
        drift_spread=spread,
        drift_time=1e3,
        levels=levels,
    )
    cells = programmed(weights(40), device, seed, "w")
    mirrored = copied(cells, copy, stream(seed, "copy"))
    for part in (cells.plus, cells.minus, mirrored.plus, mirrored.minus):
        assert bool((part >= 0).all())
        assert bool(part.isfinite().all())


# -- nothing else changes -----------------------------------------------------------------------------------------


def test_no_imperfection_touches_the_scale_or_the_targets():
    """A scale taken from noisy cells would hide part of the error that it is there to show."""
    w = weights(1000)
    ideal = programmed(w, DeviceModel(), 3, "w")
    for name, value in EVERYTHING.items():
        assert programmed(w, DeviceModel(**{name: value}), 3, "w").scale == ideal.scale
    assert programmed(w, DeviceModel(**EVERYTHING), 3, "w").scale == ideal.scale
    # Drift's three fields alone do nothing.
    for name in ("drift_exponent", "drift_spread", "drift_time"):
        assert torch.equal(programmed(w, DeviceModel(**{name: EVERYTHING[name]}), 3, "w").plus, ideal.plus)


def test_imperfections_do_not_change_each_others_draws():
    """One at a time is how tolerances are measured: switching one on must leave what the others drew.

    What each adds to all before it is what it does alone.
    """
    w = torch.ones(4000, dtype=torch.float64)
    # A floor far above the noise, so that nothing is clipped, and a span that leaves no cell at g_max.
    base = DeviceModel(g_min=5e-5, g_max=1e-4)

    def cells(*names: str) -> torch.Tensor:
        device = base.replace(**{name: EVERYTHING[name] for name in names})
        return both(programmed(w, device, 3, "w", span=3.0))

    drift = ("drift_exponent", "drift_spread", "drift_time")
    order = (("levels",), ("programming_noise",), ("device_mismatch",), ("stuck_off", "stuck_on"), drift)
    assert {name for names in order for name in names} == set(EVERYTHING)
    plain = cells()
    levelled, noisy, unequal, stuck, old = (cells(*sum(order[: k + 1], ())) for k in range(len(order)))
    assert torch.allclose(noisy - levelled, cells("programming_noise") - plain, rtol=0, atol=1e-19)
    assert torch.allclose(unequal / noisy, cells("device_mismatch") / plain, rtol=1e-13, atol=0)
    lone = cells("stuck_off", "stuck_on")
    held = (lone == base.g_max) | ((lone == base.g_min) & (plain > base.g_min))
    free = stuck == unequal
    assert torch.equal(stuck[~free], lone[~free])
    assert not bool((held & free).any())
    assert torch.allclose(old / stuck, cells(*drift) / plain, rtol=1e-13, atol=0)


def test_a_larger_noise_is_the_same_noise_larger():
    """Points of a sweep then differ by the noise's size, not by luck."""
    one, two = (mid_range(DeviceModel(programming_noise=size)).plus for size in (0.01, 0.02))
    middle = 0.5 * (DeviceModel().g_min + DeviceModel().g_max)
    assert torch.allclose(two - middle, 2 * (one - middle), rtol=0, atol=1e-18)
    some, more = (mid_range(DeviceModel(stuck_off=share)).plus == DeviceModel().g_min for share in (0.05, 0.1))
    assert bool((some <= more).all())
    assert int(some.sum()) < int(more.sum())


def test_one_arrays_noise_leaves_others_alone():
    """Layers are programmed in turn: what one draws must not shift the next one's draws."""
    device = DeviceModel(**EVERYTHING)
    alone = programmed(weights(300), device, 3, "second")
    programmed(weights(10_000), device, 3, "first")
    after = programmed(weights(300), device, 3, "second")
    assert torch.equal(alone.plus, after.plus)
    assert torch.equal(alone.minus, after.minus)


def test_what_acts_elsewhere_leaves_cells_alone():
    """Amplifiers, converters, copies and phases have their own places: what is counted twice is twice as large."""
    elsewhere = DeviceModel(
        copy_mismatch_h=0.1,
        copy_mismatch_u=0.1,
        copy_mismatch_transpose=0.1,
        conductance_noise=0.1,
        read_noise=0.1,
        amplifier_gain=0.1,
        amplifier_offset=0.1,
        amplifier_saturation=1.0,
        time_constant_mismatch=0.1,
        dac_bits=4,
        adc_bits=4,
        dac_range=1.0,
        adc_range=1.0,
        voltage=1.0,
        tile_rows=3,
    )
    w = weights(1000)
    here, there = programmed(w, DeviceModel(), 3, "w"), programmed(w, elsewhere, 3, "w")
    assert torch.equal(here.plus, there.plus)
    assert torch.equal(here.minus, there.minus)


# -- copies and phases --------------------------------------------------------------------------------------------


def test_copies_differ_cell_by_cell():
    """Each conductance of each sign times 1 + mismatch N(0, 1), on its own; the scale and the original stay."""
    cells = programmed(weights(), DeviceModel(), 0, "w")
    before = both(cells).clone()
    found = copied(cells, 0.05, stream(4, "copy"))
    assert found.scale == cells.scale
    assert torch.equal(both(cells), before)
    deviation = ((both(found) / before - 1) / 0.05).numpy()
    assert kstest(deviation, "norm").pvalue > CHANCE
    assert abs(np.corrcoef(deviation[:N], deviation[N:])[0, 1]) < 4 / math.sqrt(N)


def test_copies_without_mismatch_are_the_array():
    """And draw nothing: a generator that many arrays share stays where it was."""
    cells = programmed(weights(100), DeviceModel(), 0, "w")
    generator = stream(4)
    before = generator.get_state()
    for mirrored in (copied(cells, 0.0, generator), fluctuated(cells, 0.0, generator)):
        assert torch.equal(mirrored.plus, cells.plus)
        assert torch.equal(mirrored.minus, cells.minus)
    assert torch.equal(generator.get_state(), before)


def test_copies_are_alike_in_both_widths():
    """The same generator, the same copy."""
    w = weights(50, 20)
    wide, narrow = (programmed(x, DeviceModel(), 0, "w") for x in (w, w.float()))
    one, two = (both(copied(c, 0.1, stream(1, "copy"))) for c in (wide, narrow))
    assert two.dtype == torch.float32
    assert torch.allclose(one, two.double(), rtol=2e-7, atol=0)


def test_conductance_noise_is_new_each_phase():
    """Two phases see two arrays, each of the given spread about the programmed one; averaged it is gone."""
    cells = programmed(weights(), DeviceModel(), 0, "w")
    generator = stream(4, "reads")
    phases = [both(fluctuated(cells, 0.02, generator)) / both(cells) - 1 for _ in range(2)]
    for deviation in phases:
        assert kstest(deviation.numpy() / 0.02, "norm").pvalue > CHANCE
    assert abs(float(torch.corrcoef(torch.stack(phases))[0, 1])) < 4 / math.sqrt(2 * N)


# -- converters ---------------------------------------------------------------------------------------------------


@given(st.integers(2, 16), st.floats(1e-3, 1e3), st.lists(st.floats(-2e3, 2e3), min_size=1, max_size=30))
def test_converters_round_to_the_nearest_level(bits, span, values):
    """2^bits - 1 levels from -span to span, zero among them; an error of half a step within, clipped beyond."""
    x = torch.tensor(values, dtype=torch.float64)
    found = converted(x, bits, span)
    steps = 2 ** (bits - 1) - 1
    code = found / span * steps
    assert float((code - code.round()).abs().max()) <= 1e-9
    assert float(found.abs().max()) <= span
    assert float((found - x.clamp(-span, span)).abs().max()) <= 0.5 * span / steps * (1 + 1e-9)
    assert torch.equal(converted(found, bits, span), found)
    assert torch.equal(converted(-x, bits, span), -found)


def test_converter_has_all_its_levels():
    """One bit lost is a factor of two in the error."""
    for bits in (2, 3, 8):
        found = converted(torch.linspace(-1.5, 1.5, 5001, dtype=torch.float64), bits, 1.0)
        assert len(found.unique()) == 2**bits - 1
        assert {-1.0, 0.0, 1.0} <= set(found.tolist())


def test_converter_range_defaults_to_the_largest_value():
    """No value is clipped then, whichever sign the largest has."""
    for x in (torch.tensor([-3.0, 0.1, 2.0]), torch.tensor([3.0, -0.1, 2.0])):
        assert torch.equal(converted(x, 4), converted(x, 4, 3.0))
        assert converted(x, 4).abs().max() == 3
    assert torch.equal(converted(torch.zeros(3), 4), torch.zeros(3))
    assert converted(x, 4).dtype == torch.float32


def test_no_converter_is_none():
    """Without bits nothing is rounded or clipped; with very many, nothing to speak of."""
    x = weights(100)
    before = x.clone()
    assert converted(x, None, 0.1) is x
    assert torch.allclose(converted(x, 32), x, rtol=0, atol=1e-8)
    converted(x, 4)
    assert torch.equal(x, before)


# -- tiles --------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2000), st.integers(0, 2000), st.integers(1, 300), st.integers(1, 300))
def test_tiles_cover_the_array(rows, columns, high, wide):
    """Rows and columns are cut apart: no tile holds parts of two."""
    device = DeviceModel(tile_rows=high, tile_columns=wide)
    assert tiles(rows, columns, device) == len(range(0, rows, high)) * len(range(0, columns, wide))


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_hold_weights(name):
    """Cells of published technologies: finite, positive, and off by what their figures say, not by all of it."""
    w = weights()
    cells = programmed(w, PRESETS[name], 0, "w")
    error = float((cells.values - w).std() / w.abs().max())
    device = PRESETS[name]
    step = 0.0 if device.levels is None else 1 / (device.levels - 1)
    largest = 2 * (device.programming_noise + device.device_mismatch + step)
    assert 0 < error < largest
    assert torch.corrcoef(torch.stack([cells.values, w]))[0, 1] > 0.95
