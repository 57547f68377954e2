"""ngspice beside this package: operating points, transients and gradients of the same parts.

ngspice is a program of its own (Debian: `apt-get install ngspice`), run as a subprocess on a netlist that
`netlists.writer` makes, one process for all operating points of a call. It runs with tolerances near rounding
(`ACCURATE`). What differs by more than rounding is made good: ngspice adds a conductance gmin across every
junction, here 1e-20 S; and below -3 n VT its diode leaves Shockley's law, i = -Is (1 + (3 n VT / (e v))^3) (up to
5 % of Is off), so that a behavioural source beside each diode adds the rest (`simulator_lines`).
"""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from physics_ep.errors import InputError, argument_error

from ..arrays import plain
from ..laws.elements import THERMAL_VOLTAGE
from ..netlists.parts import GROUND, Parts
from ..netlists.writer import netlist_lines, part_names

ACCURATE = "reltol=1e-10 abstol=1e-16 vntol=1e-13 gmin=1e-20 itl1=1000 itl2=1000"
"""Options for operating points to rounding."""
ACCURATE_TRANSIENT = "reltol=1e-6 abstol=1e-14 vntol=1e-9 chgtol=1e-18 trtol=0.1 gmin=1e-18 itl1=1000 itl4=200"
"""Options for transients to some 1e-5."""
MOST_VOLTS = 1e90
"""n VT of a diode from which on nothing in reverse counts: the law's numbers would exceed float64."""
_TROUBLE = re.compile(
    r"error|singular|abort|iteration limit|fail|too small|unknown|no such|cannot|can't|not found|no convergence",
    re.I,
)
_HARMLESS = re.compile(r"gmin stepping|source stepping|note:|no compatibility", re.I)


class SpiceError(Exception):
    """Raised when ngspice did not do what it was asked for."""

    exit_status = 1


@dataclass(frozen=True)
class Plot:
    """Results of one analysis of ngspice.

    Attributes
    ----------
    name : str
        "Operating Point", "Transient Analysis", "AC Analysis".
    columns : dict of str to float64 array (points,), complex128 of an AC analysis
        Values by variable, in lower case: v(node), i(source), time, frequency; volts, amperes, seconds, hertz.
    """

    name: str
    columns: dict[str, np.ndarray]


def find_ngspice() -> str:
    """Path of the ngspice program.

    Raises
    ------
    InputError
        If there is none.
    """
    found = shutil.which("ngspice")
    if found is None:
        raise InputError("ngspice is not installed: try apt-get install ngspice (or brew install ngspice).")
    return found


def run_ngspice(
    lines: Sequence[str], commands: Sequence[str], *, options: str = ACCURATE, timeout: float = 600.0
) -> list[Plot]:
    """Run a netlist's control commands in ngspice, and read what they wrote.

    Parameters
    ----------
    lines : sequence of str
        Netlist, title first, without .end.
    commands : sequence of str
        Analyses and changes; after each analysis (op, tran, ac) its vectors are kept.
    options : str
        What the line .options says.
    timeout : float
        Seconds.

    Returns
    -------
    list of Plot
        One an analysis, in order.

    Raises
    ------
    InputError
        If ngspice is absent.
    SpiceError
        If it fails, does not converge, or takes too long; its own words are told.
    """
    program = find_ngspice()
    script = ["set filetype=binary", "set appendwrite"]
    analyses = 0
    for command in commands:
        script.append(command)
        if command.split()[0] in ("op", "tran", "ac"):
            # Without its plot, an analysis that fails cannot pass off the one before as its own.
            script += ["write out.raw", "destroy all"]
            analyses += 1
    text = [*lines, f".options {options}", ".control", *script, "quit 0", ".endc", ".end", ""]
    with tempfile.TemporaryDirectory(prefix="physics-ep-spice-") as folder:
        Path(folder, "in.cir").write_text("\n".join(text), encoding="utf-8")
        try:
            done = subprocess.run(
                [program, "-n", "-b", "in.cir"],
                cwd=folder,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired:
            raise SpiceError(f"ngspice did not end within {timeout:g} s") from None
        raw = Path(folder, "out.raw")
        plots = read_raw(raw) if raw.is_file() else []
    if done.returncode or len(plots) != analyses:
        said = [s.strip() for s in (done.stderr + "\n" + done.stdout).splitlines() if _TROUBLE.search(s)]
        said = list(dict.fromkeys(s for s in said if not _HARMLESS.search(s)))
        why = "; ".join(said[:3]) or f"exit status {done.returncode}"
        raise SpiceError(f"ngspice finished {len(plots)} of {analyses} analyses: {why}")
    return plots


def read_raw(path: str | os.PathLike[str]) -> list[Plot]:
    """Plots of a binary raw file; of complex ones those of AC analyses alone.

    Raises
    ------
    SpiceError
        If it cannot be understood.
    """
    data, at, plots = Path(path).read_bytes(), 0, []
    try:
        while at < len(data):
            end = data.index(b"Binary:\n", at) + len(b"Binary:\n")
            head = data[at:end].decode("utf-8", errors="replace").splitlines()
            fields = {k.strip(): v.strip() for k, _, v in (h.partition(":") for h in head if h[:1] != "\t")}
            n, points = int(fields["No. Variables"]), int(fields["No. Points"])
            real = fields["Flags"] == "real"
            if not real and not fields["Plotname"].startswith("AC"):
                at = (
                    end + 16 * n * points
                )  # an analysis that failed leaves the constants, complex ones, as its plot
                continue
            first = head.index("Variables:") + 1
            names = [h.split("\t")[2].lower() for h in head[first : first + n]]
            at = end + (8 if real else 16) * n * points
            table = np.frombuffer(data[end:at], np.float64 if real else np.complex128).reshape(points, n)
            plots.append(Plot(fields["Plotname"], {name: table[:, k].copy() for k, name in enumerate(names)}))
    except (ValueError, KeyError, IndexError) as error:
        raise SpiceError(f"the raw file of ngspice cannot be read: {error}") from error
    return plots


def simulator_lines(parts: Parts) -> list[str]:
    """Netlist lines, with what ngspice's diodes lack of Shockley's law in reverse."""
    return [*netlist_lines(parts), *reverse_lines(parts)]


def reverse_lines(parts: Parts) -> list[str]:
    """A source beside each diode with what ngspice's own lacks of Shockley's law in reverse.

    With w = min(v, -3 n VT) that is Is (exp(w / (n VT)) + (3 n VT / (e w))^3), which is nothing above -3 n VT.
    """
    lines, group = [], parts.group("diode")
    for k, ((a, b), (current, emission)) in enumerate(zip(group.nodes, group.values.tolist(), strict=True)):
        scale = emission * THERMAL_VOLTAGE
        if scale > MOST_VOLTS:
            continue
        edge, cube = 3 * scale, (3 * scale / math.e) ** 3
        w = f"min(v({parts.nodes[a]},{parts.nodes[b]}),{-edge!r})"
        law = f"{current!r}*(exp({w}/{scale!r})+{cube!r}/({w}*{w}*{w}))"
        lines.append(f"Breverse_{k} {parts.nodes[a]} {parts.nodes[b]} I={law}")
    return lines


def ngspice_operating_point(
    parts: Parts,
    sources: np.ndarray | None = None,
    *,
    near: Mapping[str, float] | None = None,
    timeout: float = 600.0,
) -> dict[str, np.ndarray]:
    """Have ngspice solve a netlist's operating point, and return its node voltages.

    Parameters
    ----------
    parts : Parts
    sources : float64 array (B, n_sources), optional
        Volts of the voltage sources in order; default: their own values, with B = 1.
    near : mapping of str to float, optional
        Volts of nodes, by name, from which ngspice is to look (`nodesets`): of several operating points it is to
        find the one there.

    Returns
    -------
    dict of str to float64 array (B,)
        Volts by node, ground included.

    Raises
    ------
    InputError
        If ngspice is absent.
    SpiceError
        If it finds no operating point.
    """
    commands = ["op"]
    if sources is not None:
        commands = [c for row in source_table(parts, sources) for c in [*alterations(parts, row), "op"]]
    lines = [*simulator_lines(parts), *nodesets(near or {})]
    return node_voltages(parts, run_ngspice(lines, commands, timeout=timeout))


def nodesets(volts: Mapping[str, float]) -> list[str]:
    """Lines that tell ngspice near which voltages of nodes, by name, an operating point is looked for."""
    return [f".nodeset v({node})={float(v)!r}" for node, v in volts.items() if node != GROUND]


def alterations(parts: Parts, row: np.ndarray) -> list[str]:
    """Commands that set the voltage sources to other values, volts."""
    names = part_names(parts).get("voltage_source", [])
    return [f"alter {name} dc = {value!r}" for name, value in zip(names, row.tolist(), strict=True)]


def node_voltages(parts: Parts, plots: Sequence[Plot]) -> dict[str, np.ndarray]:
    """Voltages by node, one value a plot (all its points, where there is one plot)."""

    def column(plot: Plot, node: str) -> np.ndarray:
        if node == "0":
            return np.zeros_like(next(iter(plot.columns.values())))
        key = f"v({node.lower()})"
        if key not in plot.columns:
            raise SpiceError(f"ngspice does not know the node {node!r}")
        return plot.columns[key]

    return {node: np.concatenate([column(p, node) for p in plots]) for node in parts.nodes}


def ngspice_transient(
    parts: Parts,
    duration: float,
    *,
    step: float | None = None,
    from_zero: bool = True,
    options: str = ACCURATE_TRANSIENT,
    timeout: float = 600.0,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Node voltages over time by ngspice (trapezoidal rule, adaptive steps).

    Parameters
    ----------
    parts : Parts
    duration : float
        Seconds.
    step : float, optional
        Longest step, seconds; default a thousandth of `duration`.
    from_zero : bool
        Whether capacitors start empty; else at the operating point.
    options : str
    timeout : float

    Returns
    -------
    time : float64 array (T,)
    voltages : dict of str to float64 array (T,)
        Voltages by node, volts.

    Raises
    ------
    InputError, SpiceError
        If ngspice is refused its input or fails, as in `ngspice_operating_point`.
    """
    if not duration > 0:
        raise argument_error("duration", "be positive", duration)
    step = duration / 1000 if step is None else step
    command = f"tran {step!r} {float(duration)!r} 0 {step!r}" + (" uic" if from_zero else "")
    plots = run_ngspice(simulator_lines(parts), [command], options=options, timeout=timeout)
    time = plots[0].columns["time"]
    if time[-1] < duration * (1 - 1e-9):
        raise SpiceError(f"ngspice gave the transient up at {time[-1]:.6g} s of {duration:.6g} s")
    return time, node_voltages(parts, plots)


def ngspice_frequency_response(
    parts: Parts, frequencies: np.ndarray, *, timeout: float = 600.0
) -> dict[str, np.ndarray]:
    """Phasors of node voltages by ngspice, for sources that have an amplitude (AC).

    Parameters
    ----------
    parts : Parts
    frequencies : float64 array (F,)
        Hertz, positive; each is an analysis of its own, all in one process.
    timeout : float
        Seconds.

    Returns
    -------
    dict of str to complex128 array (F,)
        Volts by node, ground included.

    Raises
    ------
    InputError, SpiceError
        As `ngspice_operating_point`.
    """
    commands = [f"ac lin 1 {f!r} {f!r}" for f in np.asarray(frequencies, np.float64).tolist()]
    return node_voltages(parts, run_ngspice(simulator_lines(parts), commands, timeout=timeout))


def source_table(parts: Parts, sources: np.ndarray) -> np.ndarray:
    """Voltages of the sources as a float64 array (B, n_sources), or InputError."""
    table = np.asarray(plain(sources), dtype=np.float64)
    count = len(parts.group("voltage_source"))
    if table.ndim != 2 or table.shape[1] != count or not np.isfinite(table).all():
        raise argument_error("sources", f"be finite volts of shape (B, {count})", table.shape)
    return table
