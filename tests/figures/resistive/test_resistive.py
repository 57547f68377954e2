"""The figures of resistive networks and circuits show what was measured, in a form that can be printed.

Each test's docstring says what is wrong with the figures if it fails.
"""

from __future__ import annotations

import re
import resource
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from figures import style
from figures.catalogue import draw, find, suited
from figures.gradients.errors import draw_errors
from figures.hopfield.transients import draw_transients
from figures.requests import Request
from figures.resistive.conductances import conductance_change, draw_conductances
from figures.resistive.relaxation import resistive_error, resistive_relaxation
from figures.resistive.scaling import circuit_scaling, draw_scaling
from figures.subjects import fresh_resistive
from hardware_models import ResistiveNetwork
from hardware_models.laws.elements import THERMAL_VOLTAGE
from physics_ep import EquilibriumPropagation, Nudge, positive, relax
from physics_ep.errors import InputError
from physics_ep.runs.training import train
from physics_ep.storage.opening import open_run
from tests.support import looks
from validation.benchmarks import circuit_scaling as benchmark
from validation.gradients import estimate_gradient, total_error
from validation.oracles import implicit_gradient

pytestmark = pytest.mark.full

SATURATION = 1e-9
G_MAX = 15e-6
BRIEF = [
    "system.sizes=[64,9,10]",
    f"system.g_max={G_MAX}",
    "training.epochs=2",
    "data.train_examples=200",
    "data.test_examples=40",
]


@pytest.fixture(scope="module")
def subject():
    """Network of two layers with Shockley diodes before a digit."""
    options = {"scale": 1e-4, "saturation": SATURATION, "input_gain": 8.0}
    return fresh_resistive("net", [6, 5], "shockley", examples=1, **options)


@pytest.fixture(scope="module")
def course(subject):
    return resistive_relaxation(subject)


@pytest.fixture(scope="module")
def run_file(tmp_path_factory):
    """Run file of a brief training with ideal diodes."""
    path = tmp_path_factory.mktemp("run") / "run.h5"
    train("resistive-digits", overrides=BRIEF, out=path)
    return path


@pytest.fixture(scope="module")
def change(run_file):
    return conductance_change(open_run(run_file))


@pytest.fixture(scope="module")
def plain():
    """Networks without diodes and with soft ones."""
    few = {"examples": 8, "input_gain": 16.0, "saturation": 1e-3}
    return [fresh_resistive(diode, [8], diode, **few) for diode in ("none", "shockley", "ideal")]


@pytest.fixture(scope="module")
def errors(plain):
    return resistive_error(plain, looks.DECADE)


def rows_of_a_law(kind, seconds, memory):
    """Rows as of the benchmark, of power laws, where the smallest circuits take a fixed time."""
    nodes = [100, 1000, 10_000, 100_000]
    return [
        {
            "circuit": kind,
            "nodes": n,
            "resistors": 20 * n,
            "setup": 1e-6 * n,
            "seconds": max(1e-2, 1e-5 * n**seconds),
            "memory": 50 * n**memory,
            "residual": 3e-13,
            "iterations": 5,
        }
        for n in nodes
    ]


@pytest.fixture(scope="module")
def scaling():
    rows = [*rows_of_a_law("layers", 1.0, 1.0), *rows_of_a_law("grid", 1.5, 1.25)]
    return circuit_scaling({"rows": rows, "machine": "none"})


@pytest.fixture(scope="module")
def drawn(course, change, errors, scaling):
    """This module's figures; a warning of matplotlib is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return {
            "resistive_relaxation": draw_transients(course),
            "conductances": draw_conductances(change),
            "resistive_error": draw_errors(errors),
            "circuit_scaling": draw_scaling(scaling),
        }


# -- settling -----------------------------------------------------------------------------------------------------


def test_co_content_falls_and_is_the_energy(course, subject):
    """The co-content drawn is not what the network lowers, or leaves out the nudge."""
    system = subject.system
    for phase in course.phases:
        assert np.diff(phase.energy).max() <= 1e-13 * abs(phase.energy[0])
        for t in (0, len(phase.time) // 3, -1):
            state = tuple(torch.from_numpy(v[t : t + 1] if t >= 0 else v[t:]) for v in phase.volts)
            cost = subject.cost(state[-1], subject.y) if phase.beta else 0.0
            expected = system.energy(state, subject.x) + phase.beta * cost
            assert phase.energy[t] == pytest.approx(float(expected.detach()), rel=1e-12, abs=0)
    assert course.phases[0].energy[-1] < course.phases[0].energy[0]


def test_power_is_accounted_for(course, subject):
    """Power is lost or counted twice, a class has the wrong sign, or energies are not the integrals."""
    capacitance = subject.system.capacitance
    for phase in course.phases:
        power = {name: phase.power.get(name, 0.0) for name in course.classes}
        delivered = power["inputs"] + power["nudge"]
        taken = power["resistors"] + power["diodes"] + power["capacitors"]
        assert np.abs(delivered - taken).max() < 1e-9 * np.abs(delivered).max()
        # What capacitors hold is C v^2 / 2, however they were charged.
        stored = 0.5 * capacitance * sum(float((v[-1] ** 2 - v[0] ** 2).sum()) for v in phase.volts)
        assert phase.energies["capacitors"] == pytest.approx(stored, rel=1e-6, abs=0)
        assert phase.power["resistors"][-1] == pytest.approx(heat(subject, phase), rel=1e-12, abs=0)
        assert min(phase.power["inputs"].min(), phase.power["resistors"].min(), phase.power["diodes"].min()) > 0


def heat(subject, phase):
    """Heat in the conductances at the end, summed one by one."""
    below = np.concatenate([subject.x[0].numpy(), -subject.x[0].numpy()]) * subject.system.gains[0]
    total = 0.0
    for layer, v in zip(subject.system.couplings, phase.volts, strict=True):
        g = layer.conductance.detach().numpy()
        total += sum(g[i, j] * (v[-1, i] - below[j]) ** 2 for i in range(g.shape[0]) for j in range(g.shape[1]))
        below = v[-1]
    return total


def test_phases_end_in_certified_equilibria(course, subject):
    """Crosses mark what is no equilibrium, its residual is another state's, or a phase ends elsewhere."""
    for phase in course.phases:
        missing = kirchhoff(subject, phase.rest, phase.beta)
        assert np.abs(missing).max() < 1e-15
        nudge = Nudge(subject.cost, subject.y, phase.beta) if phase.beta else None
        start = tuple(torch.from_numpy(r)[None] for r in course.phases[0].rest) if nudge else None
        found = relax(subject.system, subject.x, nudge=nudge, start=start, tolerance=1e-12)
        assert phase.residual == pytest.approx(float(found.residual[0]) * found.residual_scale, rel=1e-9, abs=0)
        assert all(np.abs(v[-1] - r).max() <= phase.distance for v, r in zip(phase.volts, phase.rest, strict=True))
        # The last current drawn is that of the last state drawn.
        last = kirchhoff(subject, tuple(v[-1] for v in phase.volts), phase.beta)
        assert phase.current[-1] == pytest.approx(np.abs(last).max(), rel=1e-4, abs=0)
        # Diodes only hold nodes more firmly than the conductances do.
        assert phase.distance <= np.linalg.norm(last) / softest(subject, phase.beta)
        assert phase.distance < 1e-3 * max(np.abs(r).max() for r in phase.rest)
    assert all(
        np.array_equal(a[-1], b[0]) for a, b in zip(course.phases[0].volts, course.phases[1].volts, strict=True)
    )


def softest(subject, beta):
    """Least eigenvalue of the conductance matrix without the diodes, siemens."""
    sizes = subject.system.sizes[1:]
    unit = [np.split(row, np.cumsum(sizes)[:-1]) for row in np.vstack([np.zeros(sum(sizes)), np.eye(sum(sizes))])]
    origin, *columns = [kirchhoff(subject, volts, beta, diodes=False) for volts in unit]
    return np.linalg.eigvalsh(origin - np.array(columns))[0]


def kirchhoff(subject, rest, beta, *, diodes=True):
    """Sum of the currents into each node, amperes, from Ohm's and Shockley's laws."""
    x, y = subject.x[0].numpy(), subject.y[0].numpy()
    volts = [subject.system.gains[0] * np.concatenate([x, -x]), *rest]
    missing = [np.zeros_like(v) for v in volts]
    for k, layer in enumerate(subject.system.couplings):
        g = layer.conductance.detach().numpy()
        flow = g * (volts[k][None, :] - volts[k + 1][:, None])
        missing[k + 1] += flow.sum(1) + layer.bias.detach().numpy()
        missing[k] -= flow.sum(0)
    for k, v in enumerate(rest[:-1] if diodes else (), 1):
        sign = np.where(np.arange(len(v)) < (len(v) + 1) // 2, 1.0, -1.0)
        thermal = subject.system.emission * THERMAL_VOLTAGE
        missing[k] += sign * SATURATION * np.expm1(-sign * v / thermal)
    missing[-1] += beta * (y - rest[-1])
    return np.concatenate(missing[1:])


def test_ideal_diodes_are_followed(run_file):
    """A run of the bundled config, with ideal diodes, cannot be drawn, or ends elsewhere than it should."""
    made = draw(find("resistive_relaxation"), Request(run=run_file)).data
    for phase in made["phases"]:
        assert "diodes" not in phase["power"]  # they take none
        for v, rest in zip(phase["volts"], phase["rest"], strict=True):
            np.testing.assert_allclose(v[-1], rest, rtol=0, atol=1e-6)
    hidden = made["phases"][0]["rest"][0]
    assert (hidden[:5] >= 0).all()
    assert (hidden[5:] <= 0).all()


# -- conductances -------------------------------------------------------------------------------------------------


def test_conductances_are_those_of_the_run(change, run_file):
    """Before and after are of other seeds, options or layers than the run's."""
    run = open_run(run_file)
    fresh = ResistiveNetwork(
        [64, 9, 10], input_gain=0.5, scale=2**-13, g_max=G_MAX, seed=run.config["training"]["seed"]
    )
    for k, layer in enumerate(fresh.couplings):
        assert np.array_equal(change.before[k], layer.conductance.detach().numpy())
        assert np.array_equal(change.after[k], run.state_dict[f"layers.{k}.conductance"].numpy())
        assert not np.array_equal(change.before[k], change.after[k])


@pytest.mark.slow
def test_fields_and_shares(change, drawn):
    """Fields have their pixels or signs mixed up, or shares at the bounds are wrong, in data or legend."""
    assert len(change.nodes) == 9
    for g, fields in ((change.before[0], change.fields_before), (change.after[0], change.fields_after)):
        for field, node in zip(fields, change.nodes, strict=True):
            for row, column in ((0, 0), (2, 5), (7, 7)):
                pixel = 8 * row + column
                assert field[row, column] == g[node, pixel] - g[node, 64 + pixel]
    every = np.concatenate([g.ravel() for g in change.after])
    assert change.at_least_after == (every == 0).mean() > 0
    assert change.at_most_after == (every == np.float32(G_MAX)).mean() > 0
    assert change.at_least_before == 0
    first = drawn["conductances"].axes[1]
    told = [text.get_text() for text in first.get_legend().get_texts()]
    share = 100 * (change.after[0] == 0).mean()
    assert told[1].startswith(f"after: {share:.1f} % at min., ")


def test_histograms_hold_all_devices(change, drawn):
    """Devices fall out of the histograms, or into the wrong layer's."""
    axes = drawn["conductances"].axes
    for ax, count in ((axes[1], change.after[0].size), (axes[3], change.after[1].size)):
        assert [patch.get_data().values.sum() for patch in ax.patches] == [count, count]


# -- EP's error ---------------------------------------------------------------------------------------------------


def test_orders_and_limit(errors, plain):
    """Slopes are not the orders, or the limit is not where an output loses its minimum."""
    for panel in errors.panels[:2]:
        real = panel.curves[:4]
        assert [curve.order for curve in real] == [1, 1, 1, 2]
        for curve in real:
            assert curve.slope == pytest.approx(curve.order, abs=0.1)
    system = plain[0].system
    # One hidden layer without diodes: the outputs' conductance matrix, the hidden nodes eliminated.
    hidden, outputs = (load.detach().numpy() for load in system.loads())
    g = system.layers[1].conductance.detach().numpy()
    schur = np.diag(outputs) - (g / hidden) @ g.T
    expected = np.linalg.eigvalsh(schur)[0] / outputs.mean()
    # By Rayleigh and Ritz, from above, until it changes by 0.5 %.
    assert 0 <= errors.panels[0].limit / expected - 1 < 5e-3
    assert "kinks" in errors.panels[2].title


def test_strengths_are_over_the_outputs_conductance(errors, plain):
    """The axis is in another unit than it says, or float32's curve is of other weights."""
    subject = plain[0].to(torch.float32).to(torch.float64)
    load = float(subject.system.loads()[-1].detach().mean())
    exact = implicit_gradient(subject.system, subject.x, subject.y, subject.cost)
    first, *_, narrow = errors.panels[0].curves
    ep = EquilibriumPropagation(subject.cost, positive(), float(first.beta[2]) * load)
    estimate, _ = estimate_gradient(ep, subject.system, subject.x, subject.y)
    assert first.error[2] == pytest.approx(total_error(estimate, exact), rel=1e-6)
    centered = errors.panels[0].curves[3]
    assert narrow.error[-1] == pytest.approx(centered.error[-1], rel=0.1)
    assert narrow.error[0] < 1e-4


# -- size of circuits ---------------------------------------------------------------------------------------------


def test_exponents_of_power_laws(scaling, drawn):
    """The exponent in the legend is not that of the law, or the smallest circuits spoil it."""
    layers, grid = scaling.curves
    assert grid.exponents["solve"] == pytest.approx(1.5, abs=1e-9)
    assert layers.exponents == pytest.approx({"solve": 1.0, "setup": 1.0, "memory": 1.0}, abs=1e-9)
    time, memory = drawn["circuit_scaling"].axes
    assert [t.get_text() for t in memory.get_legend().get_texts()] == ["layers of 20: 1.00", "crossbar: 1.25"]
    assert "crossbar, solving: 1.50" in [t.get_text() for t in time.get_legend().get_texts()]
    assert benchmark.exponent(rows_of_a_law("grid", 1.0, 1.0)[:2], "seconds") is None


@pytest.mark.slow
def test_operating_points_are_measured_in_a_process_of_their_own(monkeypatch):
    """The benchmark's process fails, its circuits are of other sizes, or points are not solved to 1e-12 A."""
    monkeypatch.delitem(benchmark.KINDS, "layers")
    found = benchmark.measure(repeats=1, sizes=(128, 512))
    small, large = found["rows"]
    assert [small["nodes"], large["nodes"]] == [128, 512]
    # A segment a crosspoint and wire, and the device there.
    assert [small["resistors"], large["resistors"]] == [3 * 64, 3 * 256]
    assert 0 < max(small["residual"], large["residual"]) <= 1e-12
    assert 0 <= small["memory"] <= large["memory"]
    assert found["exponents"] == {"grid": {"seconds": None, "memory": None}}


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc")
def test_peak_memory_grows_by_what_is_taken():
    """Memory is in pages or kilobytes, or is not the peak."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    before, block = benchmark._peak(), 2**26
    taken = np.ones(before - pages * resource.getpagesize() + block, dtype=np.uint8)
    del taken
    # The system counts resident pages to within some hundreds.
    assert benchmark._peak() - before == pytest.approx(block, abs=2**22)


# -- how it looks, and the command --------------------------------------------------------------------------------


def test_looks(drawn):
    """Axes without units, curves that differ by colour alone."""
    looks.every_axis_is_labelled_with_its_unit(drawn)
    looks.series_differ_without_colour(drawn)


test_legends_leave_the_data_alone = looks.legends_leave_the_data_alone
test_nothing_overlaps_in_a_column = looks.nothing_overlaps_in_a_column


def test_files(drawn, tmp_path):
    """A picture cannot be written, or is too large for the README."""
    for name, figure in drawn.items():
        (png,) = style.save(figure, name, tmp_path, formats=("png",))
        assert png.stat().st_size < 150_000


def test_quantities_are_certified(drawn, course):
    """The picture does not tell how well its equilibria are known."""
    axes = drawn["resistive_relaxation"].axes
    told = [text.get_text() for text in axes[1].get_legend().get_texts()]
    assert told[:3] == ["layer 1", "layer 2", "outputs"]
    assert re.fullmatch(r"certified to [\d.]+ [afp]A", told[3])
    (crosses,) = [line for line in axes[0].lines if line.get_marker() == "x"]
    np.testing.assert_allclose(crosses.get_xdata(), axes[0].get_xlim()[1])
    assert max(phase.distance for phase in course.phases) < 1e-3 * max(
        np.abs(v).max() for v in course.phases[0].volts
    )
    assert axes[0].get_xscale() == "log"


def test_runs_are_offered_what_suits_them(run_file):
    """Figures of resistive networks are not offered for their runs, or cannot tell what they are not for."""
    names = {entry.name for entry in suited(run_file)}
    assert {"resistive_relaxation", "conductances", "resistive_error", "learning_curve"} <= names
    assert "pcn_energy" not in names
    made = draw(find("conductances"), Request(run=run_file)).data
    assert made["label"] == "resistive network 64-9-10"
    with pytest.raises(InputError, match="Argument run must"):
        draw(find("circuit_scaling"), Request(run=run_file))


def test_other_systems_are_told(tmp_path):
    """Runs of other systems end in a traceback."""
    path = tmp_path / "run.h5"
    train("hopfield-digits", overrides=[*looks.BRIEF, "training.epochs=1"], out=path)
    for name in ("conductances", "resistive_relaxation"):
        with pytest.raises(InputError, match="resistive network"):
            draw(find(name), Request(run=path))
