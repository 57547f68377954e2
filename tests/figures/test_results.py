"""Results that show themselves: a line, a table, a figure, and how far the work is.

Each test's docstring says what is wrong if it fails.
"""

from __future__ import annotations

import io
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import figures
from hardware_models import Circuit, DeviceModel, HopfieldNetwork, map_pcn
from hardware_models.netlists.parts import Part, Parts
from physics_ep import CrossEntropy, SquaredError, open_run, relax, simulate, train
from physics_ep.entries import entries
from physics_ep.errors import InputError
from physics_ep.predictive_coding import mlp
from physics_ep.progress import RenewedLine, task
from physics_ep.storage.run_file import Run
from physics_ep.tabular import PLOTS, Tabular
from tests.support.looks import overlaps
from tests.support.systems import batch
from validation import gradient_report, tolerance


@pytest.fixture(scope="module")
def few() -> dict[str, object]:
    """The results that are made at once."""
    x, y = batch(5, 3, 4)
    system = HopfieldNetwork([5, 4, 3], "tanh").double()
    divider = [Part("V1", "voltage_source", ("in", "0"), (3.0,)), Part("R1", "resistor", ("in", "mid"), (1e-3,))]
    divider.append(Part("R2", "resistor", ("mid", "0"), (2e-3,)))
    mapped = map_pcn(
        mlp([5, 4, 3], "tanh"), "hopfield", DeviceModel(levels=16, copies="shared"), calibration=x.float()
    )
    return {
        "GradientReport": gradient_report(system, x, y, SquaredError(), beta=1e-3),
        "Equilibrium": relax(system, x, trace=True),
        "Circuit": Circuit(Parts.collect(divider)),
        "Mapped": mapped,
        "Fidelity": mapped.fidelity,
    }


BRIEF = ["training.epochs=2", "data.train_examples=64", "data.test_examples=32", "system.sizes=[64, 8, 10]"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict[str, object]:
    """The results of trainings and sweeps."""
    folder = tmp_path_factory.mktemp("runs")
    result = train("hopfield-digits", overrides=BRIEF, out=folder / "run.h5")
    net, x, y = mlp([5, 4, 3], "tanh"), torch.rand(4, 5), torch.tensor([0, 1, 2, 0])
    table = tolerance(net, x, y, CrossEntropy(), substrate="hopfield", sweeps={"levels": (4, 16)}, repeats=2)
    return {"TrainingResult": result, "Run": open_run(folder / "run.h5"), "ToleranceTable": table}


def shows_itself(name: str, result: Tabular) -> None:
    """One line, a figure that fits a column, and a table."""
    line = repr(result)
    assert line.startswith(f"{name}(")
    assert len(line) < 160
    assert "\n" not in line
    assert len(result.to_frame()) == len(result.records()) > 0
    assert r"\toprule" in result.to_latex()
    assert "<table>" in result._repr_html_()
    figure = result.plot(width="column", font=8)
    assert isinstance(figure, Figure)
    assert figure.get_size_inches()[0] * 25.4 == pytest.approx(85)
    assert overlaps(figure) == []


@pytest.mark.full
def test_results_show_themselves(few, trained):
    """A result has no figure, no table, or a wall of text in place of a line."""
    for name, result in {**few, **trained}.items():
        shows_itself(name, result)
    assert set(few) | set(trained) <= set(entries(PLOTS))


def test_a_report_is_drawn_and_told(few):
    """`.plot()` draws other numbers than the report's, or its line tells others."""
    report = few["GradientReport"]
    assert f"worst cosine {report.worst_cosine:.6g}" in repr(report)
    angle, error = figures.panels(report.plot()).values()
    drawn = error.lines[0].get_xdata()
    np.testing.assert_allclose(drawn, [row.relative_error for row in report.rows])
    assert [label.get_text() for label in angle.get_yticklabels()] == [row.name for row in report.rows]


def test_gradients_that_are_zero_but_for_rounding_stretch_no_axis(few):
    """A bias before a batch norm has a relative error of 1e8, beside which all others are one point."""
    report = few["GradientReport"]
    rows = tuple(replace(row, zero=k == 1) for k, row in enumerate(report.rows))
    angle, error = figures.panels(replace(report, rows=rows).plot()).values()
    for ax in (angle, error):
        assert ax.lines[0].get_ydata().tolist() == [k for k in range(len(rows)) if k != 1]
    assert [label.get_text()[-1] == "*" for label in angle.get_yticklabels()] == [row.zero for row in rows]
    assert "zero but for rounding" in angle.get_title()


@pytest.mark.full
def test_figures_show_the_results_numbers(few, trained):
    """A figure is of another state, circuit or training than its result."""
    volts = few["Circuit"].plot().axes[0].lines[0].get_xdata()
    assert sorted(volts) == pytest.approx([0.0, 1.0, 3.0])
    assert repr(few["Circuit"]) == "Circuit(3 nodes, 1 voltage source, 2 resistors)"
    residual = few["Equilibrium"].plot().axes[1].lines[0].get_ydata()
    np.testing.assert_array_equal(residual, few["Equilibrium"].trace.residual[:, 0])
    error = trained["TrainingResult"].plot().axes[0].lines[0].get_ydata()
    np.testing.assert_allclose(error, 100 * trained["Run"].metric("test_error"))
    chosen = train("hopfield-digits", overrides=[*BRIEF, "data.validation=16"])
    curve, _, tested = chosen.plot().axes[0].lines
    np.testing.assert_allclose(curve.get_ydata(), 100 * chosen.metrics["validation_error"])
    assert tested.get_xydata().tolist() == [[chosen.kept_epoch, pytest.approx(100 * chosen.test_error)]]
    meant, held = few["Mapped"].plot().axes[0].lines[0].get_data()
    assert np.abs(meant - held).max() > 0
    system, (x, _) = HopfieldNetwork([5, 4, 3], "tanh").double(), batch(5, 3, 2)
    course = simulate(system, x, 5.0)
    drawn = Run({"kind": "simulation"}, trajectories={"free": course}).plot()
    for figure in (drawn, course.plot()):
        np.testing.assert_array_equal(figure.axes[2].lines[1].get_ydata(), course.residual[:, 1])
    with pytest.raises(InputError, match="data of draw_dynamics must be a HopfieldDynamics, but was Trajectory"):
        figures.draw_dynamics(course)


def test_results_that_nobody_draws_are_told():
    """A class without a figure ends in a traceback."""

    class Bare(Tabular):
        def records(self):
            return [{"a": 1}]

    assert repr(Bare()) == "Bare(1 rows)"
    with pytest.raises(InputError, match="No installed package draws a Bare"):
        Bare().plot()
    with pytest.raises(InputError, match="nothing to draw"):
        Run({"kind": "simulation"}).plot()


def test_progress_true_writes_one_line(capsys):
    """`progress=True` tells nothing, or a file gets a line for each renewal."""
    with task(True, "work", 20) as advance:
        for _ in range(20):
            advance(1, error=0.25)
    assert re.fullmatch(r"work \[#{16}\] 20/20, error 0\.25\n", capsys.readouterr().err)
    with task(False, "work", 2) as advance:
        advance(2)
    assert capsys.readouterr().err == ""
    with pytest.raises(InputError, match="progress must be True, False or a Progress"):
        task(3, "work", 1)


def test_progress_renews_its_line_on_a_terminal():
    """A terminal scrolls, or the last state is missing."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream, line = Terminal(), RenewedLine()
    line.stream, line.EVERY = stream, 0.0
    with line.task("work", 4) as advance:
        advance(1)
        advance(2)
    told = stream.getvalue().split("\r")[1:]
    assert [re.search(r"\d/\d", text)[0] for text in told] == ["1/4", "3/4", "3/4"]
    assert stream.getvalue().count("\n") == 1


@pytest.mark.full
def test_calls_that_take_long_take_progress(capsys):
    """`progress=True` is refused, or nothing is told, by a call that takes more than two seconds on real sizes."""
    x, y = batch(5, 3, 4)
    system = HopfieldNetwork([5, 4, 3], "tanh").double()
    brief = ["training.epochs=1", "data.train_examples=64", "data.test_examples=32", "system.sizes=[64, 8, 10]"]
    net, labels = mlp([5, 4, 3], "tanh"), torch.tensor([0, 1, 2, 0])
    calls = {
        "simulating": lambda: simulate(system, x, 2.0, progress=True),
        "gradients": lambda: gradient_report(system, x, y, SquaredError(), beta=1e-3, progress=True),
        "training": lambda: train("hopfield-digits", overrides=brief, progress=True),
        "tolerance": lambda: tolerance(
            net, x.float(), labels, CrossEntropy(), substrate="hopfield", sweeps={"levels": (4,)}, progress=True
        ),
    }
    for name, call in calls.items():
        call()
        assert name in capsys.readouterr().err
