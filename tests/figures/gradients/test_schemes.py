"""The figures of schemes, of steps and of clamping show what theory says, in a form that can be printed.

Each test's docstring says what is wrong with the figures if it fails.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from figures.catalogue import Request, draw, find
from figures.gradients.automatic import auto_beta, draw_auto_beta
from figures.gradients.clamping import angle_between, clamping_error, draw_clamping
from figures.gradients.schemes import automatic_beta, draw_holomorphic, holomorphic_map, order_slope
from figures.gradients.stepwise import bptt_equality, draw_bptt_equality, fresh_convolutional
from figures.subjects import fresh_hopfield
from physics_ep.equilibrium import NotConverged
from physics_ep.errors import InputError
from physics_ep.estimators.automatic import AUTO_FRACTION, promised_bias
from physics_ep.estimators.propagation import EquilibriumPropagation, NegativeNudgeError
from physics_ep.nudging import centered
from tests.support import looks
from validation.gradients import estimate_gradient

# The same demands on looks as of the other figures, made of this module's `drawn`.
test_every_axis_is_labelled = looks.every_axis_is_labelled_with_its_unit
test_series_differ_without_colour = looks.series_differ_without_colour
test_legends_leave_the_data_alone = looks.legends_leave_the_data_alone
test_each_figure_is_written_thrice = looks.each_figure_is_written_thrice
test_nothing_overlaps_in_a_column = looks.nothing_overlaps_in_a_column


def hopfield(hidden, gain):
    """Small network of tanh units, before eight digits."""
    return fresh_hopfield(f"depth {len(hidden)}, gain {gain}", hidden, "tanh", gain, examples=8)


@pytest.fixture(scope="module")
def net():
    return hopfield([16, 16, 16], 0.5)


@pytest.fixture(scope="module")
def courses():
    dense = fresh_hopfield("dense", [12, 10], "tanh", 0.5, examples=4)
    return bptt_equality([dense, fresh_convolutional(examples=4)], (1e-3, 1e-4), steps=25)


@pytest.fixture(scope="module")
def holomorphic(net):
    return holomorphic_map(net, np.geomspace(1e-3, 0.9, 16), (2, 4, 8))


@pytest.fixture(scope="module")
def rules():
    return clamping_error([hopfield([16], 0.8), hopfield([16, 16, 16], 0.8)], np.array([1e-3, 1e-2, 1e-1, 1.0]))


@pytest.fixture(scope="module")
def auto(net):
    return auto_beta([net, hopfield([16, 16, 16], 0.8)], np.geomspace(1e-4, 0.9, 7))


@pytest.fixture(scope="module")
def drawn(courses, holomorphic, rules, auto):
    """This module's figures, from small data."""
    return {
        "bptt_equality": draw_bptt_equality(courses),
        "holomorphic_map": draw_holomorphic(holomorphic),
        "clamping": draw_clamping(rules),
        "auto_beta": draw_auto_beta(auto),
    }


# -- EP in time ---------------------------------------------------------------------------------------------------


@pytest.mark.full
def test_ep_shows_truncated_bptt_at_every_step(courses):
    """The curves are not of the theorem: at beta 1e-4 they part by more than 1e-4, or not by O(beta^2)."""
    for panel in courses.panels:
        coarse, fine = panel.difference
        assert list(panel.beta) == [1e-3, 1e-4]
        assert fine.shape == (25,)
        assert fine.max() <= 1e-4
        np.testing.assert_allclose(coarse[5:] / fine[5:], 100, rtol=0.05)


def test_weights_shown_are_of_every_layer(courses):
    """A layer is missing, or markers and lines are not of the same weights."""
    for panel in courses.panels:
        assert [layer.name for layer in panel.layers] == [f"layers.{k}.weight" for k in range(3)]
        for layer in panel.layers:
            np.testing.assert_allclose(layer.ep, layer.bptt, rtol=0, atol=1e-4 * np.abs(layer.bptt).max())
            assert layer.bptt[-1].max() > 0 > layer.bptt[-1].min()
        # Nothing has reached the first layer after one step.
        assert np.abs(panel.layers[0].bptt[0]).max() == 0


# -- holomorphic map ----------------------------------------------------------------------------------------------


@pytest.mark.full
def test_fitted_slopes_are_n(holomorphic):
    """N points have not order N: the circle, the oracle or the fit is wrong."""
    for n, slope in zip(holomorphic.points, holomorphic.slopes, strict=True):
        assert slope == pytest.approx(n, abs=0.05 * n)
    legend = [text.get_text() for text in draw_holomorphic(holomorphic).axes[1].get_legend().get_texts()]
    assert all(f"{slope:.2f}" in text for slope, text in zip(holomorphic.slopes, legend, strict=False))


@pytest.mark.full
def test_more_points_err_less_down_to_the_floor(holomorphic):
    """Rows of the map are swapped, or ten digits are out of reach, or the marked floor is no bound."""
    clear = holomorphic.error[0] > 10 * holomorphic.floor
    assert (holomorphic.error[1][clear] < holomorphic.error[0][clear]).all()
    assert holomorphic.error[2].min() <= 1e-10
    still = holomorphic.beta < 0.01 * holomorphic.limit
    assert (holomorphic.error[2][still] <= holomorphic.floor[still]).all()


def test_fit_needs_points_clear_of_the_floor():
    """A slope is claimed of rounding, or of betas at which no power leads."""
    reach = np.geomspace(1e-3, 0.9, 30)
    floor = np.full_like(reach, 1e-12)
    assert order_slope(reach, reach**4 / (1 - reach**4), floor) == pytest.approx(4, abs=0.02)
    assert order_slope(reach, np.full_like(reach, 2e-12), floor) is None
    assert order_slope(reach[-3:], reach[-3:] ** 2, floor[-3:]) is None


def test_kinks_have_no_map():
    """A system that is no analytic function is given complex nudges."""
    hard = fresh_hopfield("hard", [8], "hard_sigmoid", 0.5, examples=2)
    with pytest.raises(InputError, match="analytic"):
        holomorphic_map(hard, np.array([0.1]), (4,))


# -- clamping -----------------------------------------------------------------------------------------------------


@pytest.mark.full
def test_clamping_is_no_gradient_however_small(rules):
    """Coupled learning passes for a gradient: its angle goes away with the fraction, or EP's does not."""
    for panel in rules.panels:
        clamped, _, symmetric, circle = panel.curves
        assert list(clamped.strength) == [1e-3, 1e-2, 1e-1, 1.0]
        # Ten times gentler changes nothing any more.
        assert clamped.worst_angle[0] == pytest.approx(clamped.worst_angle[1], rel=0.02)
        assert clamped.error[0] > 0.05
        # EP points nearer at every beta within a twentieth of its stability limit, where 'auto' goes, than any
        # fraction does; close to the limit, EP's own bias can be the greater.
        for curve in (symmetric, circle):
            usual = curve.strength <= AUTO_FRACTION * panel.limit
            assert usual.sum() == 2
            assert clamped.worst_cosine.max() < curve.worst_cosine[usual].min()
        assert clamped.worst_angle.min() > 100 * symmetric.worst_angle[0]


@pytest.mark.full
def test_clamping_in_full_is_worse(rules):
    """The star is not at fraction 1, or clamping in full agrees better than a gentle pull."""
    for panel in rules.panels:
        clamped = panel.curves[0]
        assert clamped.worst_cosine[-1] < clamped.worst_cosine[0]
        assert clamped.error[-1] > clamped.error[0]


def test_kinks_are_judged_without_complex_nudges():
    """The figure cannot be drawn of a trained network of hard-sigmoid units."""
    hard = fresh_hopfield("hard", [8], "hard_sigmoid", 0.5, examples=2)
    (panel,) = clamping_error([hard], np.array([1e-2])).panels
    assert [curve.label for curve in panel.curves] == ["coupled learning", "EP, positive", "EP, centered"]


def test_small_angles_are_not_rounded_away():
    """Angles below 1e-6 degrees are drawn as nothing, since their cosine is 1 to rounding."""
    a = torch.tensor([1.0, 0.0], dtype=torch.float64)
    for angle in (1e-12, 1e-5, 0.3, 3.0):
        b = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
        assert angle_between(a, 5 * b) == pytest.approx(math.degrees(angle), rel=1e-6)
    assert angle_between(a, -a) == pytest.approx(180)


# -- automatic beta -----------------------------------------------------------------------------------------------


@pytest.mark.full
def test_automatic_beta_is_stable_and_its_error_second_order(auto):
    """beta='auto' is beyond the limit, or errs by more than the promised 0.05^2 of every tensor, and so of all.

    It is not the most accurate beta: the sweep goes on falling below it, in float32 by a factor of more than 50.
    """
    for panel in auto.panels:
        assert 0 < panel.picked < panel.limit
        wide, narrow = panel.curves
        for curve in panel.curves:
            assert 0 < curve.picked < promised_bias(2)
        assert narrow.picked == pytest.approx(wide.picked, rel=0.05)
        assert narrow.error.min() < narrow.picked / 50
        assert wide.error.min() < narrow.error.min()
        assert (narrow.error[:2] <= panel.floor[:2] + wide.error[:2]).all()


def test_stability_limit_is_where_nudges_are_refused(net):
    """The dashed line is not where a negative nudge loses its minimum."""
    _, limit = automatic_beta(net)
    below = EquilibriumPropagation(net.cost, centered(), 0.9 * limit, max_iterations=20_000)
    estimate_gradient(below, net.system, net.x, net.y)
    with pytest.raises(NegativeNudgeError):
        estimate_gradient(EquilibriumPropagation(net.cost, centered(), 1.01 * limit), net.system, net.x, net.y)


# -- the catalogue ------------------------------------------------------------------------------------------------


def test_unconverged_states_are_not_drawn(net, monkeypatch):
    """Errors of states that are no equilibria pass for errors of EP."""
    monkeypatch.setattr("figures.gradients.schemes.BUDGET", 2)
    with pytest.raises(NotConverged):
        holomorphic_map(net, np.array([0.1]), (2,))


@pytest.mark.full
def test_catalogue_draws_the_dense_and_the_convolutional_network():
    """`figure bptt-equality` fails, or its numbers are not those that are drawn."""
    made = draw(find("bptt-equality"), Request())
    assert [panel["title"] for panel in made.data["panels"]] == ["dense network", "convolutional network"]
    assert all(panel["difference"][-1].max() <= 1e-4 for panel in made.data["panels"])
    lines = {line.get_label(): line for line in made.figure.axes[1].lines}
    shown = lines["$\\beta$ = $10^{-4}$"].get_ydata()
    np.testing.assert_array_equal(shown, made.data["panels"][0]["difference"][-1])
