"""The figure of networks on oscillators shows what was measured, in a form that can be printed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq

from figures.catalogue import Request, draw, find
from figures.mapping.oscillators import (
    ASYMMETRY,
    TORQUE,
    WATCHED,
    draw_oscillator_mapping,
    oscillator_mapping,
)
from physics_ep.errors import InputError
from tests.support import looks

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def data():
    return oscillator_mapping(detunings=np.array([1e-5, 1e-4]))


@pytest.fixture(scope="module")
def drawn(data):
    return {"oscillator_mapping": draw_oscillator_mapping(data)}


def line(ax, label):
    (found,) = [one for one in ax.lines if one.get_label() == label]
    return np.asarray(found.get_xdata()), np.asarray(found.get_ydata())


@pytest.mark.slow
def test_units_are_clips(drawn, data):
    """Markers are of oscillators at rest: clips where they are not detuned, roots of their own balances where they
    are. Else the first panel shows something else."""
    assert data.residual < 1e-12
    ax = drawn["oscillator_mapping"].axes[0]
    p, value = line(ax, "not detuned")
    np.testing.assert_allclose(value, p.clip(0, 1), atol=1e-8)
    p, value = line(ax, f"frequencies apart, $\\pm${TORQUE:g}")
    inside = (p > 0.2) & (p < 0.8)
    assert inside.sum() > 5
    for at, v in zip(2 * p[inside] - 1, value[inside], strict=True):
        a = brentq(lambda a, b=at: np.cos(a) * (b - np.sin(a)) + TORQUE, np.arcsin(at), np.arcsin(at) + 0.2)
        assert v == pytest.approx(0.5 + 0.5 * np.sin(a), abs=1e-9)
    for name, values in data.values.items():
        np.testing.assert_allclose(values, data.curves[name], atol=1e-8)


def test_layers_settle_and_thresholds_are_late(drawn, data):
    """Units at a threshold are drawn apart, and are those that are late; else the time from the rates misleads."""
    assert sum(data.slow) >= 1
    ax = drawn["oscillator_mapping"].axes[1]
    assert line(ax, "settling time from rates")[0][0] == data.settled
    first = data.slow.index(max(data.slow))
    at = np.searchsorted(data.time, data.settled)
    assert np.nanmax(data.slow_distances[:, at]) > 1e-5
    assert data.distances[first, at] < 1e-6
    np.testing.assert_array_equal(line(ax, f"layer {first + 1}")[1], np.maximum(data.distances[first], 1e-13))


def test_mirror_images(drawn, data):
    """Begun as far off as is said; lost only in the strong nudge without latch."""
    ax = drawn["oscillator_mapping"].axes[2]
    ends = []
    for text in WATCHED:
        time, turn = line(ax, text)
        assert 0.5 * ASYMMETRY < turn[0] <= ASYMMETRY
        ends.append(turn[time > 200].max())
    free, weak, strong, latched = ends
    assert strong > 1
    assert 0.1 > free > weak > latched


def test_what_is_left_out_is_of_second_order(data):
    """Away from thresholds a tenfold detuning changes values a hundredfold; at one it changes them far more."""
    near, relu, clips = data.left_out.values()
    for found in (relu, clips):
        np.testing.assert_allclose(np.log10(found[1] / found[0]), 2, atol=0.02)
    assert np.nanmedian(near[0]) > 100 * np.median(relu[0])


def test_charts_meet_the_demands(drawn):
    """Axes have units, and series can be told apart without colour."""
    looks.every_axis_is_labelled_with_its_unit(drawn)
    looks.series_differ_without_colour(drawn)


test_legends_leave_the_data_alone = looks.legends_leave_the_data_alone
test_nothing_overlaps_in_a_column = looks.nothing_overlaps_in_a_column


def test_runs_are_refused(tmp_path):
    """The figure has networks of its own; a run file would be ignored in silence."""
    with pytest.raises(InputError, match="be left out for oscillator_mapping"):
        draw(find("oscillator-mapping"), Request(run=tmp_path / "run.h5"))
