"""The figures say what was measured, in a form that can be printed, told apart, and made again.

Each test's docstring says what is wrong with the figures if it fails.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from figures import style
from figures.catalogue import FIGURES
from figures.gradients.errors import draw_errors, estimator_error, fitted_slope, precision_error
from figures.hopfield.dynamics import draw_dynamics, hopfield_dynamics
from figures.hopfield.training import draw_learning_curve, learning_curve
from figures.hopfield.transients import circuit_transients, draw_transients
from figures.subjects import fresh_hopfield, trained
from physics_ep.equilibrium import NotConverged
from physics_ep.errors import InputError
from physics_ep.runs.training import train
from physics_ep.storage.opening import open_run
from physics_ep.storage.run_file import Quantity, Run, write_run
from tests.support import looks
from tests.support.looks import BRIEF, DECADE, command
from tests.support.paths import ROOT

ELSEWHERE = {
    "bench_history",
    "bptt_equality",
    "holomorphic_map",
    "clamping",
    "auto_beta",
    "trajectories",
    "layers",
    "batch_statistics",
    "pcn_energy",
    "pcn_cosine",
    "pcn_cost",
    "paired_unit",
    "settling_depth",
    "tolerance_layers",
    "best_beta",
    "in_situ",
    "copies",
    "resistive_relaxation",
    "conductances",
    "resistive_error",
    "circuit_scaling",
    "phases_on_circle",
    "two_oscillators",
    "locking",
    "medium",
    "early_inference",
    "branch_switch",
    "oscillator_error",
    "oscillator_mapping",
    "signature",
    "substrates",
}
"""Figures that other files of tests draw, and hold to the same demands."""


@pytest.fixture(scope="module")
def run_file(tmp_path_factory):
    """Run file of a brief training."""
    path = tmp_path_factory.mktemp("run") / "run.h5"
    train("hopfield-digits", overrides=BRIEF, out=path)
    return path


@pytest.fixture(scope="module")
def smooth():
    """Batch before a network of smooth units."""
    return fresh_hopfield("tanh units", [16, 16, 16], "tanh", 0.5, examples=16)


@pytest.fixture(scope="module")
def errors(smooth):
    """Errors over the decade in which slopes are fitted; smooth units and kinks."""
    hard = fresh_hopfield("hard-sigmoid units", [16, 16, 16], "hard_sigmoid", 0.5, examples=16)
    return estimator_error([smooth, hard], DECADE)


@pytest.fixture(scope="module")
def dynamics():
    """The dynamics figure's data as the catalogue has them, but smaller."""
    return hopfield_dynamics(fresh_hopfield("net", [24, 16], "tanh", 0.8, examples=1))


@pytest.fixture(scope="module")
def drawn(run_file, errors, dynamics, smooth):
    """Every figure of the catalogue, from small data."""
    return {
        "hopfield_dynamics": draw_dynamics(dynamics),
        "circuit_transients": draw_transients(circuit_transients(smooth)),
        "estimator_error": draw_errors(errors),
        "precision": draw_errors(precision_error(smooth, DECADE)),
        "learning_curve": draw_learning_curve(learning_curve(open_run(run_file))),
    }


# -- what is measured ---------------------------------------------------------------------------------------------


@pytest.mark.full
def test_legend_slopes_are_the_declared_orders(errors):
    """A slope printed in the figure is off its scheme's order: the estimator, the oracle or the fit is wrong."""
    legend = draw_errors(errors).axes[0].get_legend()
    printed = [re.search(r"slope ([\d.]+) \(order (\d)\)", text.get_text()) for text in legend.get_texts()]
    pairs = [(float(m[1]), int(m[2])) for m in printed if m]
    assert [order for _, order in pairs] == [1, 1, 1, 2]
    for slope, order in pairs:
        assert slope == pytest.approx(order, abs=0.1)


@pytest.mark.full
def test_no_order_is_claimed_at_kinks(errors):
    """The figure promises an order for units with kinks, which have none."""
    hard = errors.panels[1]
    assert "kinks" in hard.title
    assert all(curve.order is None for curve in hard.curves)
    centered = hard.curves[-1]
    assert centered.error[-1] > 10 * errors.panels[0].curves[-1].error[-1]


@pytest.mark.full
def test_error_reaches_the_noise_floor(smooth):
    """Something other than residuals, rounding and bias limits the estimate, and the shaded floor is no bound."""
    panel = estimator_error([smooth], np.array([1e-5, 1e-3])).panels[0]
    centered = panel.curves[-1]
    bias = centered.error[1] * (centered.beta[0] / centered.beta[1]) ** 2
    assert centered.error[0] <= bias + panel.floor[0]


def test_fit_leaves_out_what_rounding_made():
    """Points on the noise floor flatten the fitted slope; or too few points still give one."""
    beta = np.logspace(-4, -1, 31)
    floor = np.full_like(beta, 1e-6)
    assert fitted_slope(beta, 0.5 * beta**2 + 1e-7, floor) == pytest.approx(2, abs=0.03)
    assert fitted_slope(beta, np.full_like(beta, 1e-7), floor) is None


def test_float32_beats_subtraction(smooth):
    """Displacements are no longer carried in float32, or the figure mixes up its curves."""
    wide, narrow, subtracted = precision_error(smooth, np.array([1e-4])).panels[0].curves
    assert wide.error[0] < 1e-6 < narrow.error[0] < 1e-4 < subtracted.error[0]


def test_energy_never_rises(dynamics):
    """A relaxation goes uphill, or the figure's energies do not belong to its states."""
    for phase in dynamics.phases:
        assert np.diff(phase.energy).max() <= dynamics.rounding
        assert phase.energy[0] - phase.energy[-1] > 1e3 * dynamics.rounding
        assert phase.residual[-1] <= phase.tolerance < phase.residual[0]
        assert phase.states[0].shape == (len(phase.energy), 24)


def test_opposite_nudges_move_outputs_oppositely(dynamics):
    """Columns of the figure are swapped, or displacements are not taken from the free state."""
    _, plus, minus = (phase.states[-1][-1] for phase in dynamics.phases)
    assert (dynamics.phases[1].beta, dynamics.phases[2].beta) == (0.1, -0.1)
    assert plus @ minus < -0.9 * np.linalg.norm(plus) * np.linalg.norm(minus)


def test_seed_draws_another_network(dynamics):
    """`--seed` does not reach the network."""
    again = hopfield_dynamics(fresh_hopfield("net", [24, 16], "tanh", 0.8, examples=1, seed=1))
    assert again.phases[0].energy[-1] != dynamics.phases[0].energy[-1]


def test_unconverged_states_are_not_drawn():
    """States that are no equilibria pass for such in the figure."""
    subject = fresh_hopfield("net", [24, 16], "tanh", 0.8, examples=1)
    with pytest.raises(NotConverged):
        hopfield_dynamics(subject, max_iterations=3)


@pytest.mark.full
def test_learning_curve_shows_the_run(run_file):
    """The curves are not those of the run file, or the tolerance is not what its equilibria were held to."""
    run = open_run(run_file)
    figure = draw_learning_curve(learning_curve(run))
    error, _, residual, _ = figure.axes
    lines = {line.get_label(): line for line in (*error.lines, *residual.lines)}
    np.testing.assert_allclose(lines["test"].get_ydata(), 100 * run.metric("test_error"))
    np.testing.assert_allclose(lines["training"].get_ydata(), 100 * run.metric("train_error"))
    np.testing.assert_allclose(lines["worst"].get_ydata(), run.metric("worst_residual"))
    assert lines["tolerance, free phase"].get_ydata()[0] == 1e-6
    assert run.metric("worst_residual").max() <= 1e-6


@pytest.mark.full
def test_skipped_examples_are_marked(run_file):
    """Epochs that left examples out look like any others."""
    run = open_run(run_file)
    run.metrics["skipped"] = Quantity(np.array([0, 7, 2]), "examples", "left out")
    residual = draw_learning_curve(learning_curve(run)).axes[2]
    marks = [line for line in residual.lines if line.get_label() == "skipped examples: 9"]
    assert [list(line.get_xdata()) for line in marks] == [[2, 3]]


def test_run_files_bring_their_weights(run_file):
    """Figures from a run file show a fresh network, not the trained one."""
    run, subject = open_run(run_file), trained(run_file, examples=4)
    for name, tensor in subject.system.state_dict().items():
        assert torch.equal(tensor, run.state_dict[name].double())
    assert subject.x.shape == (4, 64)


# -- how it looks -------------------------------------------------------------------------------------------------

test_every_axis_is_labelled_with_its_unit = looks.every_axis_is_labelled_with_its_unit
test_series_differ_without_colour = looks.series_differ_without_colour
test_legends_leave_the_data_alone = looks.legends_leave_the_data_alone
test_each_figure_is_written_thrice = looks.each_figure_is_written_thrice


@pytest.mark.full
def test_nothing_overlaps_in_a_column(drawn):
    """At 85 mm two texts lie over each other, one is cut off, or a legend covers points of a curve."""
    looks.nothing_overlaps_in_a_column(drawn)


@pytest.mark.parametrize(
    "confusion",
    [
        # Severe protanopia, deuteranopia and tritanopia on linear RGB: Machado, Oliveira and Fernandes 2009.
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    ],
)
def test_colours_differ_for_the_colour_blind(confusion):
    """Two colours that a figure uses together cannot be told apart by a colour-blind reader."""
    seen = [_lab(np.clip(np.array(confusion) @ _linear(s.color), 0, 1)) for s in style.SERIES]
    nearest = min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen[:4], 2))
    assert nearest > 8  # CIE76; 2.3 is just noticeable


def _linear(color):
    rgb = np.array(to_rgb(color))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def _lab(linear):
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(to_xyz @ linear / [0.9505, 1.0, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


# -- files and the command ----------------------------------------------------------------------------------------


@pytest.mark.full
def test_no_figure_is_left_out(drawn):
    """A figure of the catalogue is never drawn by a test."""
    assert set(drawn) | ELSEWHERE == {entry.name for entry in FIGURES}


@pytest.mark.slow
def test_same_seed_same_bytes(tmp_path):
    """A figure differs from run to run: dates, hash seeds, thread counts or unseeded draws got into it."""
    own, other = tmp_path / "own", tmp_path / "other"
    assert command("figure", "hopfield-dynamics", "--seed", "3", "--out", str(own)) == 0
    subprocess.run(
        [sys.executable, "-m", "physics_ep", "figure", "hopfield_dynamics", "--seed", "3", "--out", str(other)],
        check=True,
        env={
            **os.environ,
            "PYTHONHASHSEED": "7",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        },
        cwd=tmp_path,
        capture_output=True,
    )
    assert len(list(own.iterdir())) == 3
    for path in own.iterdir():
        assert path.read_bytes() == (other / path.name).read_bytes()


@pytest.mark.full
def test_command_draws_from_a_run_file(run_file, tmp_path, capsys):
    """`figure --from` does not write all files, or its JSON lacks the numbers drawn."""
    out, numbers = tmp_path / "pictures", tmp_path / "numbers.json"
    assert (
        command("figure", "learning-curve", "--from", str(run_file), "--out", str(out), "--json", str(numbers)) == 0
    )
    written = capsys.readouterr().out.split()
    assert [Path(p) for p in written] == [out / f"learning_curve.{form}" for form in ("pdf", "png", "svg")]
    assert sorted(p.name for p in out.iterdir()) == [Path(p).name for p in written]
    data = json.loads(numbers.read_text())["learning_curve"]["data"]
    assert data["test_error"] == open_run(run_file).metric("test_error").tolist()


def test_list_names_every_figure(capsys):
    """A figure cannot be found by `figure --list`."""
    assert command("figure", "--list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [entry.name for entry in FIGURES]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["learning_curv"], "Did you mean 'learning_curve'?"),
        ([], "NAME must be given"),
        (["precision", "--from", "missing.h5"], "missing.h5"),
        (["precision", "--from", "truncated.h5"], "truncated.h5"),
        (["learning_curve", "--from", "other.h5"], "run file of a training"),
        (["tolerance_layers", "--from", "numbers.json"], "be the .h5 that --out of tolerance"),
        (["precision", "--out", "a_file"], "a_file"),
        (["precision", "--out", "precision.png"], "be a folder"),
        (["precision", "--dtype", "float16"], "float16"),
        (["precision", "--device", "quantum"], "quantum"),
        (["precision", "--json", "."], "json"),
        (["precision", "--seed", "-1"], "seed"),
    ],
)
def test_bad_input_ends_in_one_line(arguments, told, run_file, tmp_path, monkeypatch, capsys):
    """Bad input gives a traceback or a wrong status, or leaves something half-written."""
    monkeypatch.chdir(tmp_path)
    Path("a_file").write_text("in the way")
    Path("truncated.h5").write_bytes(run_file.read_bytes()[:5000])
    write_run("other.h5", Run(attributes={"kind": "simulation"}))
    before = sorted(tmp_path.iterdir())
    assert command("figure", *arguments) == 2
    message = capsys.readouterr().err
    assert told in message
    assert len(message.strip().splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before


def test_unwritable_folder_is_told(dynamics, tmp_path):
    """A figure that cannot be written ends in a traceback of matplotlib."""
    (tmp_path / "a_file").write_text("in the way")
    with pytest.raises(InputError, match="out"):
        style.save(draw_dynamics(dynamics), "x", tmp_path / "a_file")
