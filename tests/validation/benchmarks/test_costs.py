"""Cost, gated on ratios of processor time taken in one run."""

from __future__ import annotations

import math

import pytest

from validation.benchmarks import hopfield, resistive

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("processor_time")]


def test_hopfield_step_costs_at_most_two_backprop_steps() -> None:
    """784-1024-10, batch 128, one thread, residual 1e-6: a recomputed drive or contrast would show at once.

    Where large products are so fast that a backprop step takes no longer than the relaxation, whose passes no BLAS
    speeds up, two steps are not to be had; what is beside the relaxation is bounded everywhere.
    """
    best = None
    for _ in range(8):  # a busy machine may spoil some measurements, not all
        found = hopfield.measure(repeats=15)
        best = found if best is None or found["ratio"] < best["ratio"] else best
        if best["ratio"] <= 2:
            break
    assert best is not None
    # Two large products are one backprop step; a third would be some 0.45 more.
    assert best["ratio"] - best["relaxation"] <= 1.45
    assert best["ratio"] <= 2 or best["relaxation"] > 0.8
    assert best["rows"][1]["residual"] <= 1e-6
    assert best["rows"][1]["sweeps"] == "4/4/4"


def test_resistive_step_costs_at_most_three_times_its_products() -> None:
    """1568-1024-10, batch 32, one thread, residual 1e-5: another pass over the input's conductances would show.

    Where products are so fast that the step's calls and relaxation, in a network of 8 features, take another two
    products or nearly, three times is not to be had; what the step takes beside these is bounded everywhere.
    `test_resistive_step_multiplies_by_half_of_the_conductances` counts the passes themselves.
    """
    best = None
    for _ in range(8):
        found = resistive.measure(repeats=15)
        best = found if best is None or found["ratio"] < best["ratio"] else best
        if best["ratio"] <= 3:
            break
    assert best is not None
    assert best["ratio"] - best["calls"] <= 1.8
    assert best["ratio"] <= 3 or best["calls"] > 1.6
    assert best["rows"][1]["count"] <= 1.1
    assert best["rows"][1]["residual"] <= 1e-5
    assert best["throughput_ratio"] >= 1000


def test_mapped_steps_cost_little_more() -> None:
    """On each substrate a step of two sweeps costs at most 1.6 times that on the network itself, in processor time,
    and finds backprop's gradient of the network that the devices make."""
    from validation.benchmarks import mapping

    found = mapping.measure(repeats=8, cases=("mlp 784-512-512-10",), trained=())
    rows = {row["step"]: row for row in found["rows"]}
    for substrate in mapping.THREE:
        weak = rows[f"{substrate}, ideal, beta/5"]
        assert weak["sweeps"] == rows["EP"]["sweeps"] == "2/2"
        assert weak["cpu"] <= 1.6 * rows["EP"]["cpu"]
        for name in ("ideal", "poor"):
            row = rows[f"{substrate}, {name}"]
            assert row["residual"] <= mapping.TOLERANCE
            assert row["1 - cos"] < (1e-3 if name == "poor" else 1e-5)
    assert rows["hopfield, poor"]["1 - cos"] > 10 * rows["hopfield, ideal"]["1 - cos"]  # separate transposed copies


def test_mapped_steps_of_trained_weights_stand_beside_their_count() -> None:
    """The rows that the findings quote: two sweeps with live gates to 1e-2, counted as 2 F + 7 G products over
    backprop's 2 F + 3 G, F = 784 512 of the layer on the input and G = 512 512 + 512 10 of the others; and a step
    on cells that err apart, beside the multiplications that were counted in it.

    The goals, 1.3 times each count, are missed: 2.95 to 3.1 for 2.17 with equal copies, where the passes written by
    hand take 2.15, and 1.4 times the count of cells that err apart. Bounds are a tenth above what was measured on
    busy machines: a pass made twice would show.
    """
    from validation.benchmarks import mapping

    first, others = 784 * 512, 512 * 512 + 512 * 10
    best = {"ideal": math.inf, "apart": math.inf}
    for _ in range(8):  # a busy machine may spoil some measurements, not all
        found = mapping.measure(repeats=4, cases=(), trained=("mlp 784-512-512-10",))
        rows = {row["step"]: row for row in found["rows"]}
        apart = rows["resistive, apart, live"]
        best["ideal"] = min(best["ideal"], rows["hopfield, ideal, live"]["cpu"])
        best["apart"] = min(best["apart"], apart["cpu"] / apart["count"])
        if best["ideal"] <= 3.4 and best["apart"] <= 1.55:
            break
    for substrate in mapping.THREE:
        row = rows[f"{substrate}, ideal, live"]
        assert row["sweeps"] == "2/2"
        assert row["residual"] <= mapping.TOLERANCE
        assert row["1 - cos"] < 1e-5
        assert row["count"] == pytest.approx((2 * first + 7 * others) / (2 * first + 3 * others), rel=1e-12)
    assert rows["its products alone"]["ms"] < rows["hopfield, ideal, live"]["ms"]
    assert apart["sweeps"] == "28/28"
    assert apart["residual"] <= mapping.TOLERANCE
    assert best["ideal"] <= 3.4
    assert best["apart"] <= 1.55
