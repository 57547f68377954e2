"""The figures of predictive coding networks show what was measured, in a form that can be printed.

Each test's docstring says what is wrong with the figures if it fails.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from figures.catalogue import FIGURES, suited
from figures.pcn.cosine import (
    Way,
    cosines,
    draw_cosines,
    gradient,
    one_minus_cosine,
    subtracted,
    worst,
)
from figures.pcn.cost import backprop_passes, counted, draw_costs, pass_costs, step_cost
from figures.pcn.energy import draw_energy, energy_courses, largest_response
from figures.pcn.networks import dense_network, predictive_network, vgg_network
from figures.subjects import Subject, fresh_hopfield
from physics_ep.cost import SquaredError
from physics_ep.errors import InputError
from physics_ep.estimators.propagation import EquilibriumPropagation
from physics_ep.predictive_coding import mlp, to_sequential
from physics_ep.runs.training import train
from tests.support import looks

pytestmark = pytest.mark.full

# The same demands on looks as of the other figures, made of this module's `drawn`.
test_every_axis_is_labelled = looks.every_axis_is_labelled_with_its_unit
test_series_differ_without_colour = looks.series_differ_without_colour
test_legends_leave_the_data_alone = looks.legends_leave_the_data_alone
test_nothing_overlaps_in_a_column = looks.nothing_overlaps_in_a_column

BETA = 0.01


@pytest.fixture(scope="module")
def rectified():
    """Six ReLU layers, trained a little."""
    return dense_network("ReLU", "relu", 3**0.5, depth=6, steps=20, examples=4)


@pytest.fixture(scope="module")
def smooth():
    return dense_network("tanh", "tanh", 1.0, depth=6, steps=20, examples=4)


@pytest.fixture(scope="module")
def courses(rectified):
    pictures = vgg_network("VGG10", width=0.02, steps=0, examples=2)
    return energy_courses([(rectified, "frozen", 0.05), (pictures, "free", 0.05)], iterations=8)


@pytest.fixture(scope="module")
def angles(rectified, smooth):
    return cosines([rectified, smooth], np.array([1e-3, BETA]), (1, 2, 10))


@pytest.fixture(scope="module")
def costs(rectified, smooth):
    few = {"sweep": (1, 2, 4), "anderson": (1, 4), "mod_pgd": (2, 12), "pgd": (2, 12), "skew_flow": (20,)}
    return pass_costs([rectified, smooth], {**few, "gradient_flow": (20,)})


@pytest.fixture(scope="module")
def drawn(courses, angles, costs):
    """This module's figures, from small data; a warning of matplotlib is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures = {
            "pcn_energy": draw_energy(courses),
            "pcn_cosine": draw_cosines(replace(angles, panels=angles.panels[:1])),
            "pcn_cost": draw_costs(costs),
        }
    return figures


def by_hand(subject):
    """Activities of a dense ReLU network, and its weights."""
    weights = [(layer.weight.detach(), layer.bias.detach()) for layer in subject.system.layers]
    h = [subject.x]
    for k, (w, b) in enumerate(weights, 1):
        a = h[-1] @ w.t() + b
        h.append(a if k == len(weights) else a.clamp_min(0))
    return h, [w for w, _ in weights]


def backprop(subject):
    """Gradient of an ordinary torch network with the same weights, by the network's parameter names."""
    model = to_sequential(subject.system)
    loss = 0.5 * (model(subject.x) - subject.y).square().sum(1).mean()
    grads = torch.autograd.grad(loss, list(model.parameters()))
    # Weight, then bias, layer by layer.
    names = [f"layers.{k}.{part}" for k in range(subject.system.depth) for part in ("weight", "bias")]
    return dict(zip(names, grads, strict=True))


# -- energy -------------------------------------------------------------------------------------------------------


def test_energy_starts_at_the_nudge(courses, rectified):
    """What is subtracted is not beta C of the free state, or the first point is not the free state."""
    h, _ = by_hand(rectified)
    nudge = 0.05 * 0.5 * (h[-1] - rectified.y).square().sum(1).mean()
    assert courses.panels[0].nudge == pytest.approx(float(nudge), rel=1e-12)
    for panel in courses.panels:
        assert {curve.solver for curve in panel.curves} == {"mod_pgd", "pgd", "sweep", "anderson"}
        for curve in panel.curves:
            assert abs(curve.energy[0]) < 1e-14
            assert curve.residual[0] == pytest.approx(1, abs=1e-12)


def test_energy_after_one_iteration(courses, rectified):
    """The energy at iteration 1 is not that after the output layer's update and the one of the layer below."""
    h, w = by_hand(rectified)
    error = -0.05 * (h[-1] - rectified.y)
    below = error @ w[-1]
    left = error - below @ w[-1].t()
    # Layer L has moved by its error; layer L - 1 then moved by what was asked of it, which changed L's prediction.
    cost = 0.5 * (h[-1] + error - rectified.y).square().sum(1)
    total = 0.5 * left.square().sum(1) + 0.5 * below.square().sum(1) + 0.05 * cost
    pgd = next(c for c in courses.panels[0].curves if c.solver == "pgd")
    assert pgd.energy[1] + courses.panels[0].nudge == pytest.approx(float(total.mean()), rel=1e-10)


def test_equilibrium_lies_below_the_free_state(courses):
    """A converged phase nudged by +beta has more energy than the free state, which it started from."""
    anderson = courses.panels[0].curves[-1]
    assert anderson.residual[-1] < 1e-6
    assert anderson.energy[-1] < -0.01 * courses.panels[0].nudge


def test_response_is_that_of_the_jacobians(rectified, courses):
    """beta lambda in the titles is not that of sum_l P_l P_l^T."""
    h, w = by_hand(rectified)
    largest = 0.0
    for row in range(len(rectified.x)):
        path = torch.eye(w[-1].shape[0], dtype=torch.float64)
        matrix = path.clone()
        for k in range(len(w) - 1, 0, -1):
            path = path @ w[k]  # dh_L/dh_k, an error of layer k being added after its gate
            matrix += path @ path.t()
            path = path * (h[k][row] > 0)
        largest = max(largest, float(torch.linalg.eigvalsh(matrix).max()))
    args = rectified.x, rectified.y, rectified.cost
    assert largest_response(rectified.system, *args) == pytest.approx(largest, rel=1e-10)
    assert courses.panels[0].coupling == pytest.approx(0.05 * largest, rel=1e-10)


# -- cosines ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", [0, 1])
def test_cosines_are_those_of_an_independent_call(column, angles, rectified, smooth):
    """Points of the figure are not 1 - cosine to backprop of an ordinary torch network."""
    subject = (rectified, smooth)[column]
    net, exact = subject.system, backprop(subject)
    net.zero_grad()
    EquilibriumPropagation(SquaredError(), beta=BETA, solver="sweep", tolerance=1e-12).backward(
        net, subject.x, subject.y
    )
    apart = [
        1 - float(torch.cosine_similarity(p.grad.flatten(), exact[n].flatten(), 0))
        for n, p in net.named_parameters()
    ]
    net.zero_grad()
    curve = angles.panels[column].over_beta[0]
    assert curve.at[-1] == BETA
    assert curve.distance[-1] == pytest.approx(max(apart), rel=1e-6)


def test_one_pass_is_backprop(angles):
    """The mark at K = 1 says of something else that it is backprop."""
    for panel in angles.panels:
        sweep, anderson = panel.over_count[:2]
        assert sweep.at[0] == anderson.at[0] == 1
        assert max(sweep.distance[0], anderson.distance[0]) < 1e-26
        assert sweep.distance[-1] > 1e-12


def test_two_iterations_do_not_reach_the_first_layers(angles):
    """K of the published solvers is not their paper's: a perturbation descends two layers an iteration."""
    published = angles.panels[0].over_count[2]
    assert published.label == "mod_pgd"
    np.testing.assert_array_equal(published.distance[:2] >= 1, True)
    assert published.distance[2] < 1e-2


def test_cosine_of_what_is_not_there():
    """A layer without a gradient passes for one that agrees."""
    a, zero = torch.tensor([3.0, 4.0]), torch.zeros(2)
    assert one_minus_cosine(a, zero) == one_minus_cosine(zero, a) == 1
    assert one_minus_cosine(zero, zero) == 0
    assert one_minus_cosine(a, torch.tensor([4.0, 3.0])) == pytest.approx(1 - 24 / 25, abs=1e-15)


def test_subtraction_in_float64_is_the_carried_estimate(smooth, rectified):
    """The naive estimate is of another gradient: its error is not rounding alone."""
    for subject in (smooth, rectified):
        carried = gradient(subject, BETA, Way("", "anderson"))
        rough = subtracted(subject, BETA, torch.float64)
        assert worst(rough, carried) < 1e-16
        assert worst(subtracted(subject, BETA, torch.float32), carried) > 1e-12


# -- cost ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def square():
    """Layers of one size, so that every pass has as many products."""
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(8, 16, generator=generator), torch.randn(8, 16, generator=generator)
    return Subject("square", mlp([16] * 7, gain=1.5).double(), x.double(), y.double(), SquaredError())


def test_passes_are_those_of_the_matrix_products(square):
    """Passes are left out, or counted twice: their products are not what torch multiplied."""
    net, a_pass = square.system, 2 * 8 * 16 * 16
    for solver in ("sweep", "pgd", "skew_flow"):
        ep = EquilibriumPropagation(
            square.cost, "positive", 0.01, solver=solver, max_iterations=3, on_unconverged="skip"
        )
        with counted(net, 8) as tally, FlopCounterMode(display=False) as flops:
            ep.backward(net, square.x, square.y)
        assert tally.total == flops.get_total_flops() / a_pass > 2 * net.depth
        net.zero_grad()
    with FlopCounterMode(display=False) as flops:
        square.cost(net(square.x), square.y).sum().backward()
    net.zero_grad()
    assert flops.get_total_flops() == backprop_passes(net) * a_pass
    assert "apply" not in vars(net.layers[0].link)


def test_two_sweeps_cost_seven_thirds_of_backprop(square):
    """A default step with two sweeps needs more than seven passes a layer, where backprop needs three."""
    tally, _, residual = step_cost(square, 0.01, "sweep", 2)
    assert 0 < residual < 0.2
    assert tally.layers[0] <= 3
    assert max(list(tally.layers.values())[1:]) <= 7
    assert tally.total / backprop_passes(square.system) <= 7 / 3


def test_costs_rise_and_residuals_fall(costs):
    """A curve's points are not in the order of K, or the smooth column shows a solver that is for ReLUs."""
    assert [len(panel.curves) for panel in costs.panels] == [6, 5]
    for panel in costs.panels:
        for curve in panel.curves:
            assert (np.diff(curve.passes) > 0).all()
        sweep = panel.curves[0]
        assert sweep.residual[0] == pytest.approx(1)
        assert sweep.residual[-1] < 1e-3
        assert sweep.error[-1] < 1e-2


@pytest.mark.parametrize("solver", ["pgd", "mod_pgd"])
def test_published_solvers_need_as_many_iterations_as_layers(solver, rectified):
    """The line at K = layers marks nothing: to first order in beta, the error does not vanish there at once."""
    exact = backprop(rectified)
    errors = [worst(step_cost(rectified, 1e-6, solver, k, 1e-15)[1], exact) for k in (5, 6)]
    assert errors[1] < 1e-15
    assert errors[0] > 1e9 * errors[1]


# -- files and runs -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_files_are_written_without_warnings(drawn, tmp_path):
    """Saving warns of missing glyphs, of a layout that does not fit, or of its data; or a file is wrong."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        looks.each_figure_is_written_thrice(drawn, tmp_path)


def test_other_systems_are_told_or_left_out(tmp_path):
    """`figure all --from` a Hopfield network's run stops at the figures of predictive coding networks."""
    with pytest.raises(InputError, match="HopfieldNetwork"):
        predictive_network(fresh_hopfield("net", [8], "tanh", 0.5, examples=2))
    path = tmp_path / "run.h5"
    train("hopfield-digits", overrides=["training.epochs=1", "data.train_examples=50"], out=path)
    left_out = {entry.name for entry in FIGURES} - {entry.name for entry in suited(path)}
    mapped = {
        "paired_unit",
        "settling_depth",
        "tolerance_layers",
        "best_beta",
        "signature",
        "substrates",
        "in_situ",
        "copies",
    }
    resistive = {"resistive_relaxation", "conductances", "resistive_error", "circuit_scaling"}
    oscillating = {"phases_on_circle", "two_oscillators", "locking", "branch_switch", "oscillator_error"}
    oscillating.add("oscillator_mapping")
    others = oscillating | {"medium", "early_inference", "batch_statistics", "bench_history"}
    assert left_out == {"pcn_energy", "pcn_cosine", "pcn_cost"} | mapped | resistive | others
    assert suited(None) == list(FIGURES)


def test_all_figures_of_a_run_leave_out_what_does_not_fit(tmp_path: Path, monkeypatch, capsys) -> None:
    """One figure that a run's system does not allow must not keep the others from being drawn."""
    from figures import commands
    from physics_ep import train

    run = tmp_path / "run.h5"
    train("pcn-digits", overrides=("training.epochs=1", "data.train_examples=64"), out=run)
    known = {entry.name: entry for entry in FIGURES}
    monkeypatch.setattr("figures.catalogue.FIGURES", (known["clamping"], known["learning_curve"]))
    commands.figure("all", run=run, out=tmp_path / "drawn")
    printed = capsys.readouterr().out
    assert "clamping is not drawn of this run: Argument y" in printed
    assert (tmp_path / "drawn" / "learning_curve.png").is_file()
    assert not (tmp_path / "drawn" / "clamping.png").exists()
