"""What `.plot()` of a result draws. The entry points `physics_ep.plots` name these functions by the class."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hardware_models.circuits.base import PartsCircuit
from hardware_models.mapping.budget import Budget
from hardware_models.mapping.fidelity import Fidelity
from hardware_models.mapping.mapped import Mapped
from hardware_models.quantities import scaled_unit
from hardware_models.spice.given import NetlistAgreement
from physics_ep.equilibrium import Equilibrium
from physics_ep.errors import InputError, argument_error
from physics_ep.runs.training import TrainingResult
from physics_ep.storage.run_file import Run
from physics_ep.storage.trajectory import Trajectory
from validation.experiments.in_situ import KIND as IN_SITU
from validation.experiments.in_situ import InSituTable, open_in_situ
from validation.gradients import GradientReport, GradientRow
from validation.sweeps.table import ToleranceTable
from validation.sweeps.tolerances import KIND as TOLERANCE
from validation.sweeps.tolerances import open_tolerance

from . import style
from .hopfield.training import curve_of, draw_learning_curve, learning_curve
from .mapping.in_situ import draw_in_situ, in_situ_errors
from .mapping.tolerance import draw_layer_cosines, layer_cosines

ROW = 3.4
"""Height of a row with a name, mm."""
NAMED = 24
"""Nodes and parameters up to which each is told by its name."""
POINTS = 1500
"""Weights of an array that are drawn."""
LINES = 6
"""Examples, and units of a block, of which courses are drawn."""
ROUNDING = 32
"""Differences of energies that are not drawn, in units of their rounding: they are noise."""


# -- gradients and sweeps ------------------------------------------------------------------------------------------


@style.drawing
def plot_gradient_report(report: GradientReport) -> None:
    """Disagreement of each parameter's gradient with the oracle's: of its direction, and as a whole."""
    count = max(len(report.rows), 1)
    height = 30 + ROW * min(count, NAMED + 16)
    _, axes = style.new_figure(style.PAGE, height, 1, 2, sharey=True)
    angle, error = axes[0]
    modes: list[tuple[str, Sequence[GradientRow]]] = [("EP" if report.live is None else "held gates", report.rows)]
    if report.live is not None:
        modes.append(("live gates", report.live.rows))
    at = {row.name: k for k, row in enumerate(report.rows)}
    for k, (name, rows) in enumerate(modes):
        known = [row for row in rows if row.name in at and not row.zero]
        places = [at[row.name] for row in known]
        look = style.series(k)
        gaps = np.array([max(1 - row.cosine, 1e-17) for row in known])
        look.plot(angle, gaps, places, linestyle="none", label=name)
        look.plot(error, np.array([row.relative_error for row in known]), places, linestyle="none", label=name)
    floor = [math.nan if row.zero else row.noise_floor for row in report.rows]
    floors = style.Series(style.GREY, (0, None), "|")
    floors.plot(error, floor, list(range(len(floor))), linestyle="none", mew=1.0, ms=6, label="noise floor")
    for ax in (angle, error):
        ax.set_xscale("log")
        _names(ax, [name + (" *" if name in report.zeros else "") for name in at])
    angle.invert_yaxis()
    angle.set_xlabel("1 \N{MINUS SIGN} cosine (dimensionless)")
    error.set_xlabel("Relative error (dimensionless)")
    title = f"{report.scheme}, $\\beta$ = {report.beta:.3g}, against {report.oracle}"
    angle.set_title(title + ("\n* exact gradient zero but for rounding" if report.zeros else ""))
    style.legend(error)


def _names(ax: Axes, names: Sequence[str]) -> None:
    """A tick a name on the vertical axis; numbers where there are many."""
    if len(names) <= NAMED:
        ax.set_yticks(range(len(names)), list(names))
    else:
        ax.set_ylabel("Parameter (number)")
    ax.set_ylim(-0.6, max(len(names), 1) - 0.4)


def plot_tolerance_table(table: ToleranceTable, **look: Any) -> Figure:
    """Gradient cosine of each layer over the imperfections that were swept."""
    return draw_layer_cosines(layer_cosines(table), **look)


def plot_in_situ_table(table: InSituTable, **look: Any) -> Figure:
    """Test errors of learning on the device and of writing into it, over the fields that were swept."""
    return draw_in_situ(in_situ_errors(table), **look)


@style.drawing
def plot_netlist_agreement(found: NetlistAgreement) -> None:
    """Differences between our node voltages and ngspice's: at the operating point, over time and frequency."""
    _, axes = style.new_figure(style.PAGE, 70, 1, 1 + len(found.courses))
    point, *courses = axes[0]
    rows = found.records()[:NAMED]
    apart = [max(row["difference"], 1e-17) for row in rows]
    style.series(0).plot(point, apart, list(range(len(rows))), linestyle="none")
    point.set_xscale("log")
    _names(point, [row["node"] for row in rows])
    point.invert_yaxis()
    point.set_xlabel("Difference at the operating point (V)")
    for ax, (name, course) in zip(courses, found.courses.items(), strict=True):
        every = max(1, len(course.at) // 6)
        for k, row in enumerate(course.rows()[:LINES]):
            column = course.nodes.index(row["node"])
            apart = np.maximum(np.abs(course.ours - course.theirs)[:, column], 1e-17)
            style.series(k).plot(ax, course.at, apart, label=row["node"], markevery=(k * every // LINES, every))
        ax.set_yscale("log")
        if course.unit == "Hz":
            ax.set_xscale("log")
        ax.set_xlabel("Frequency (Hz)" if course.unit == "Hz" else "Time (s)")
        ax.set_ylabel(f"Difference, {name} (V)")
        style.legend(ax)


# -- runs ----------------------------------------------------------------------------------------------------------


def plot_training_result(result: TrainingResult, **look: Any) -> Figure:
    """Errors, loss, residuals and iterations over epochs."""
    return draw_learning_curve(curve_of(result.config, result.system, result.metrics), **look)


def plot_run(run: Run, **look: Any) -> Figure:
    """Whatever a run file holds: a training, trajectories, a sweep."""
    kind = run.attributes.get("kind")
    if run.trajectories:
        return draw_trajectories(run.trajectories, **look)
    if kind == TOLERANCE and run.path is not None:
        return plot_tolerance_table(open_tolerance(run.path), **look)
    if kind == IN_SITU and run.path is not None:
        return plot_in_situ_table(open_in_situ(run.path), **look)
    if kind == "training" and run.epochs:
        return draw_learning_curve(learning_curve(run), **look)
    raise InputError(f"A run of the kind {kind!r} that holds no epoch and no trajectory has nothing to draw.")


def plot_trajectory(course: Trajectory, **look: Any) -> Figure:
    """Units of the first example that move most, energy above its end, and residual, over time."""
    return draw_trajectories({"": course}, **look)


@style.drawing
def draw_trajectories(courses: Mapping[str, Trajectory], joined: bool | None = None) -> None:
    """States of the first example, energy above its end and residual over time; the same units in all phases.

    The units are those that move most, each phase measured by its most mobile unit. In `panels`, a is the states, b
    the energy and c the residual, of all phases, joined or not. With `ax` there are as many Axes as panels: one for
    each letter, of phases that are not joined one a phase, those of a letter after one another.

    Parameters
    ----------
    courses : mapping of str to Trajectory
        What `physics_ep.simulate` returns, by the name of its phase, such as "free" and "nudged".
    joined : bool, optional
        Whether the phases follow each other on one axis of time, in three panels; else each has three panels and a
        time of its own, side by side. By default they are joined where each starts where the one before ended.

    Raises
    ------
    InputError
        If `courses` is something else, or phases are to be joined that do not follow each other.
    """
    if not isinstance(courses, Mapping) or not courses:
        found = "empty" if isinstance(courses, Mapping) else type(courses).__name__
        raise argument_error("courses", COURSES, found)
    for course in courses.values():
        if not isinstance(course, Trajectory):
            raise argument_error("courses", COURSES, f"one to {type(course).__name__}")
    phases = list(courses.items())
    follow = all(_follows(one, other) for (_, one), (_, other) in itertools.pairwise(phases))
    if joined and not follow:
        raise argument_error("joined", "be False where a phase does not start where the one before ended", joined)
    together = follow if joined is None else joined
    columns = [phases] if together else [[phase] for phase in phases]
    letters = "".join(letter * len(columns) for letter in "abc")
    _, axes = style.new_figure(style.PAGE, 120, 3, len(columns), sharex="col", letters=letters)
    units = _most_moved(list(courses.values()))
    for column, shown in zip(axes.T, columns, strict=True):
        longest = sum(float(course.time[-1]) for _, course in shown)
        largest = max((float(b.abs().max()) for _, c in shown for b in _firsts(c) if b.numel()), default=0.0)
        _draw_course(column, shown, units, longest, largest)


COURSES = "map names of phases to trajectories, such as {'free': free, 'nudged': nudged}"
"""What `draw_trajectories` is given, in words."""


def _firsts(course: Trajectory) -> list[torch.Tensor]:
    """Blocks (T, ...) of the first example."""
    return [block[:, 0].detach() for block in course.state if block.shape[1]]


def _first(course: Trajectory) -> list[np.ndarray]:
    """Blocks (T, n) of the first example."""
    return [block[:, 0].flatten(1).detach().cpu().numpy() for block in course.state]


def names_of_nodes(course: Trajectory) -> tuple[str, ...]:
    """Names of what the columns of a transient's only block are, the nodes of its circuit; of others none."""
    nodes = tuple(getattr(course, "nodes", ()))
    return nodes if len(course.state) == 1 and _sizes(course) == (len(nodes),) else ()


def residual_unit(course: Trajectory) -> str:
    """Unit of a course's residual: amperes of a transient of parts, whose residual is a sum of currents."""
    return "A" if getattr(course, "nodes", ()) else "dimensionless"


def _sizes(course: Trajectory) -> tuple[int, ...]:
    return tuple(block[0, 0].numel() for block in course.state)


def _follows(one: Trajectory, other: Trajectory) -> bool:
    """Whether a course of the same system starts, but for rounding, where another one ended."""
    units = [(c.time_unit, c.state_unit, c.energy_unit, [b.shape[1:] for b in c.state]) for c in (one, other)]
    return units[0] == units[1] and all(
        float((b[0] - a[-1]).abs().max()) <= 1e-5 * float(a.abs().max())
        for a, b in zip(one.state, other.state, strict=True)
        if a[-1].numel()
    )


def _most_moved(courses: Sequence[Trajectory]) -> dict[tuple[int, ...], list[np.ndarray]]:
    """By the sizes of a system's blocks the units of each block that its courses move most."""
    moved: dict[tuple[int, ...], list[np.ndarray]] = {}
    for course in courses:
        ways = [np.abs(block[-1] - block[0]) for block in _first(course)]
        shares = [way / max(float(way.max(initial=0.0)), 1e-300) for way in ways]
        before = moved.setdefault(_sizes(course), [np.zeros_like(share) for share in shares])
        moved[_sizes(course)] = [a + b for a, b in zip(before, shares, strict=True)]
    return {
        sizes: [np.argsort(-share, kind="stable")[:LINES] for share in shares] for sizes, shares in moved.items()
    }


def _draw_course(
    column: Sequence[Axes],
    phases: Sequence[tuple[str, Trajectory]],
    units: Mapping[tuple[int, ...], Sequence[np.ndarray]],
    longest: float,
    largest: float,
) -> None:
    """Phases that follow each other, in a panel each for states, energy and residual.

    The units of time and of states are those that suit the time and the largest state of these phases.
    """
    states, energy, residual = column
    begin = 0.0
    for number, (_, course) in enumerate(phases):
        seconds, time_unit = scaled_unit(longest, course.time_unit)
        size, state_unit = scaled_unit(largest, course.state_unit)
        time = begin + course.time.cpu().numpy() / seconds
        every = max(1, len(time) // 6)
        chosen = units[_sizes(course)]
        for k, (values, own) in enumerate(zip(_first(course), chosen, strict=True)):
            nodes = names_of_nodes(course)
            for j, unit in enumerate(u for u in own if not nodes or nodes[u] != "0"):
                told = nodes[unit] if nodes else f"block {k + 1}, {len(own)} of {values.shape[1]}"
                label = None if number or (j and not nodes) else told
                order = j if nodes else k
                mark = (order * every // 3 % every, every)
                style.series(order).plot(states, time, values[:, unit] / size, label=label, markevery=mark)
        for k in range(min(course.energy.shape[1], LINES)):
            look = style.series(k)
            mark = (k * every // LINES, every)
            total = course.energy[:, k].detach().cpu().numpy()
            above = total - total[-1]
            seen = above > ROUNDING * np.finfo(total.dtype).eps * float(np.abs(total).max())
            label = None if number else f"example {k + 1}"
            look.plot(energy, time[seen], above[seen], label=label, markevery=mark)
            look.plot(residual, time, course.residual[:, k].cpu().numpy(), markevery=mark)
        if number:
            for ax in column:
                ax.axvline(begin, color=style.GREY, lw=0.7, ls=(0, (4, 2)), marker="", zorder=1)
        begin = float(time[-1])
    named = [name for name, _ in phases if name]
    states.set_title(", then ".join(named) + " phase" if named else "")
    some = course.energy.shape[1] > 1
    states.set_ylabel(f"State of example 1 ({state_unit})" if some else f"State ({state_unit})")
    energy.set_ylabel(f"$F - F_\\mathrm{{end}}$ ({course.energy_unit})")
    residual.set_ylabel(f"Residual ({residual_unit(phases[0][1])})")
    for ax in column:
        ax.set_xlabel(f"Time ({time_unit})")
    for ax in (energy, residual):
        ax.set_yscale("log")
    style.legend(states)
    if some:
        style.legend(energy)


# -- equilibria and circuits ---------------------------------------------------------------------------------------


@style.drawing
def plot_equilibrium(found: Equilibrium) -> None:
    """Values of the units of each block, and the residual of each example, or its course."""
    _, axes = style.new_figure(style.PAGE, 62, 1, 2)
    values, residual = axes[0]
    start = 0
    for k, block in enumerate(found.state):
        own = np.sort(block.detach().flatten(1)[0].cpu().numpy())
        place = np.arange(start, start + len(own))
        style.series(k).plot(values, place, own, linestyle="none", label=f"block {k + 1}")
        start += len(own)
    values.set_xlabel("Unit (number, sorted within its block)")
    values.set_ylabel("State of the first example (units of the state)")
    style.legend(values)
    if found.trace is not None:
        courses = found.trace.residual.cpu().numpy()
        steps = np.arange(1, len(courses) + 1)
        for k in range(min(courses.shape[1], LINES)):
            style.series(k).plot(residual, steps, courses[:, k], label=f"example {k + 1}", markevery=0.2)
        residual.set_xlabel("Iteration (count)")
    else:
        own = np.maximum(found.residual.cpu().numpy(), 1e-300)
        style.series(0).plot(residual, np.arange(1, len(own) + 1), own, linestyle="none", label="examples")
        residual.set_xlabel("Example (number)")
    residual.axhline(found.tolerance, color=style.BLACK, lw=0.7, ls=(0, (4, 2)), label="tolerance")
    residual.set_yscale("log")
    residual.set_ylabel("Residual (dimensionless)")
    style.legend(residual)


@style.drawing
def plot_circuit(circuit: PartsCircuit) -> None:
    """Voltages of the nodes at the operating point of the circuit's own sources."""
    told = circuit.node_voltages(circuit.operating_point())
    names = list(told)
    volts = np.array([float(torch.as_tensor(told[name]).flatten()[0]) for name in names])
    height = 22 + ROW * min(len(names), NAMED)
    _, axes = style.new_figure(style.COLUMN, height)
    ax = axes[0, 0]
    ax.hlines(range(len(names)), 0, volts, color=style.GREY, lw=0.6)
    style.series(0).plot(ax, volts, list(range(len(names))), linestyle="none", label="_volts")
    ax.axvline(0, color=style.BLACK, lw=0.6)
    _names(ax, names)
    if len(names) > NAMED:
        ax.set_ylabel("Node (number)")
    ax.invert_yaxis()
    ax.set_xlabel("Voltage at the operating point (V)")


# -- mapped networks -----------------------------------------------------------------------------------------------


@style.drawing
def plot_mapped(mapped: Mapped) -> None:
    """Weights that the devices hold over those that were meant, a panel an array."""
    meant = dict(mapped.network.named_parameters())
    held = dict(mapped.perturbed.named_parameters())
    names = [name for name in meant if name in held and name.endswith("weight")][:6] or list(meant)[:6]
    columns = min(len(names), 3)
    rows = -(-len(names) // columns)
    width = style.PAGE * columns / 3
    _, axes = style.new_figure(width, 56 * rows, rows, columns, count=len(names))
    for ax, name in zip(axes.flat, names, strict=False):
        pair = [parts[name].detach().flatten().double().cpu().numpy() for parts in (meant, held)]
        # Every so many, so that the same weights are drawn each time.
        step = max(1, len(pair[0]) // POINTS)
        x, y = (values[::step] for values in pair)
        style.series(0).plot(ax, x, y, linestyle="none", marker=".", ms=2, alpha=0.5, label="_weights")
        low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
        ax.plot([low, high], [low, high], color=style.BLACK, lw=0.6, ls=(0, (4, 2)), marker="")
        ax.set_title(name)
        ax.set_xlabel("Weight that was meant (dimensionless)")
        ax.set_ylabel("Weight on the devices (dimensionless)")


@style.drawing
def plot_fidelity(fidelity: Fidelity) -> None:
    """Energy of an inference and area by parts, and the cells of each array."""
    parts: list[tuple[str, Budget, str]] = [
        ("energy of an inference", fidelity.energy_per_inference, "Energy (J)"),
        ("area", fidelity.area, "Area (m$^2$)"),
    ]
    rows = max(len(fidelity.layers), *(sum(v > 0 for v in budget.values()) for _, budget, _ in parts))
    _, axes = style.new_figure(style.PAGE, 26 + 4.2 * rows, 1, 3)
    for ax, (title, budget, label) in zip(axes[0], parts, strict=False):
        taken = {name.replace("_", " "): value for name, value in budget.items() if value > 0}
        _bars(ax, taken, label)
        ax.set_title(title)
    cells = axes[0, 2]
    _bars(cells, {layer.name: float(layer.cells) for layer in fidelity.layers}, "Cells (count)")
    cells.set_title("cells of each array")


def _bars(ax: Axes, values: dict[str, float], label: str) -> None:
    """Horizontal bars with names; words where there are none."""
    look = style.series(0)
    if values:
        ax.barh(range(len(values)), list(values.values()), color=look.color, height=0.6, lw=0)
        ax.set_yticks(range(len(values)), list(values))
        ax.set_xscale("log")
        ax.invert_yaxis()
    else:
        ax.set_yticks([])
        ax.text(0.5, 0.5, "not told by the device", transform=ax.transAxes, ha="center", fontsize="small")
    ax.set_xlabel(label)
