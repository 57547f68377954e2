"""A user's netlist beside ngspice, which runs the very text: operating point, transient, small signals."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from physics_ep.errors import InputError
from physics_ep.progress import SILENT, Progress, task
from physics_ep.tabular import Tabular

from ..circuits.circuit import Circuit
from ..netlists import op_amps
from ..netlists.lines import IGNORED, beside, read_source, text_of
from ..netlists.memristors import STATEFUL
from ..netlists.netlist import load_netlist
from ..netlists.parts import CHANNELS, Parts
from ..netlists.writer import DEFINITIONS
from ..nodal.small_signals import frequency_response
from ..nodal.transients import transient
from .ngspice import SpiceError, reverse_lines, run_ngspice

POINT = "reltol=1e-10 abstol=1e-16 vntol=1e-13 itl1=1000 itl2=1000"
"""Options of ngspice for operating points, behind the netlist's own."""
COURSE = "reltol=1e-6 abstol=1e-14 vntol=1e-9 chgtol=1e-18 trtol=0.1 itl1=1000 itl4=200"
"""The same for transients, to some 1e-5 of a voltage."""
STEPS = 2000
"""Steps of ngspice over a transient, at least."""
TIMES = 20_000
"""Times of a transient that are compared, at most."""
FREQUENCIES = 200
"""Frequencies of a sweep that are compared, at most."""
PASSED_OVER = {f".{name}" for name in IGNORED - {"nodeset", "csparam", "protect", "unprotect"}} | {".end"}
"""Lines that ngspice is not given, since they ask for analyses and output of their own."""
_INSIDE = re.compile(r"#|_int\d*$|_vmeas_\d+$")
"""What only nodes within ngspice's own elements have in their names."""


@dataclass(frozen=True)
class CourseAgreement:
    """Node voltages by both programs over time or frequency.

    Attributes
    ----------
    unit : str
        's' or 'Hz'.
    at : float64 array (T,)
    nodes : tuple of str (n,)
    ours, theirs : array (T, n)
        Volts; complex of small signals.
    """

    unit: str
    at: np.ndarray
    nodes: tuple[str, ...]
    ours: np.ndarray
    theirs: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """Largest voltage of each node, (n,) volts: what its difference is taken over."""
        return np.asarray(np.abs(self.theirs).max(0))

    @property
    def worst(self) -> float:
        """Largest difference over the largest voltage of its node, of those above a microvolt."""
        return float((np.abs(self.ours - self.theirs).max(0) / np.maximum(self.sizes, 1e-6)).max(initial=0.0))

    def rows(self) -> list[dict[str, Any]]:
        """A row a node, the largest difference first."""
        apart = np.abs(self.ours - self.theirs)
        found = []
        for k in np.argsort(-apart.max(0, initial=0.0), kind="stable"):
            at = int(apart[:, k].argmax())
            row = {"node": self.nodes[k], "difference": float(apart[at, k]), "at": float(self.at[at])}
            found.append({**row, "largest": float(self.sizes[k])})
        return found


@dataclass(frozen=True, repr=False)
class NetlistAgreement(Tabular):
    """What both programs make of a netlist; `plot` draws what differs.

    Attributes
    ----------
    name : str
    nodes : tuple of str (n,)
        Nodes that both have.
    ours, theirs : float64 array (n,)
        Volts at the operating point.
    residual : float
        Largest current that is missing in ours, amperes.
    courses : dict of str to CourseAgreement
        'transient' where the netlist has .tran, 'small signals' where it has .ac and a source with AC.
    notes : tuple of str
    """

    name: str
    nodes: tuple[str, ...]
    ours: np.ndarray
    theirs: np.ndarray
    residual: float
    courses: dict[str, CourseAgreement]
    notes: tuple[str, ...]

    @property
    def worst(self) -> float:
        """Largest difference at the operating point, volts; over the voltage above a volt."""
        return float((np.abs(self.ours - self.theirs) / np.maximum(1.0, np.abs(self.theirs))).max(initial=0.0))

    def figures(self) -> dict[str, Any]:
        """All rows of the comparison as `--json` writes them."""
        courses = {name: {"worst": course.worst, "rows": course.rows()} for name, course in self.courses.items()}
        point = {"worst": self.worst, "residual": self.residual, "rows": self.records()}
        return {"operating point": point, **courses, "notes": self.notes}

    def words(self) -> list[str]:
        """Its name, and how far the programs are apart in each analysis."""
        told = [f"{name} {course.worst:.1e}" for name, course in self.courses.items()]
        return [self.name, f"operating point {self.worst:.1e} V", *told]

    def records(self) -> list[dict[str, Any]]:
        """A row a node at the operating point, the largest difference first."""
        apart = np.abs(self.ours - self.theirs)
        return [
            {
                "node": self.nodes[k],
                "ours": float(self.ours[k]),
                "ngspice": float(self.theirs[k]),
                "difference": float(apart[k]),
            }
            for k in np.argsort(-apart, kind="stable")
        ]


def compare_netlist(path: str | os.PathLike[str], *, progress: Progress | bool = SILENT) -> NetlistAgreement:
    """Solve a netlist file here, have ngspice run the same text, and compare the node voltages of both.

    ngspice runs with tighter tolerances than the netlist's own. It has no gmin but the netlist's, or its default
    where leakage alone holds a node. Diodes with IS and N alone follow Shockley's law in both programs
    (`ngspice.reverse_lines`). Blocks .control are not run. Transients are compared after time 0, where ngspice
    still holds the nodes of .ic, at the times of our steps: a source beside the circuit has its corners there, so
    that ngspice steps on them and nothing is interpolated.

    Parameters
    ----------
    path : path
        Netlist file in SPICE's language.
    progress : Progress
        Shows how far the solutions are; by default nothing is shown.

    Returns
    -------
    NetlistAgreement
        Voltages of both at the operating point, volts; also over time where the netlist has .tran, and over
        frequency where it has .ac and a source with an amplitude.

    Raises
    ------
    InputError
        If the file cannot be read, ngspice is absent, or an included file has a .control block.
    SpiceError
        If ngspice fails, in its own words, or has a node that the circuit read here has not.
    NoOperatingPoint
        If no operating point is found here.
    """
    netlist = load_netlist(path)
    circuit = Circuit(netlist.parts, outputs=netlist.outputs, gmin=netlist.gmin)
    lines, sets_gmin = text_for_ngspice(path)
    shockley = _reaching(reverse_lines(circuit.parts), circuit.parts)
    lines += shockley
    gmin = "" if sets_gmin or netlist.gmin else " gmin=1e-18"
    asked, hertz = netlist.analyses.transient(), netlist.analyses.frequencies()
    amplitudes = any(netlist.parts.group(kind).ac for kind in ("voltage_source", "current_source"))
    notes, courses = list(netlist.notes), {}
    if shockley:
        notes.append(
            "diodes with IS and N alone follow Shockley's law in both: what ngspice's own have of IS more in "
            "reverse is taken out"
        )
    with task(progress, "ours and ngspice", total=2 + 2 * (asked is not None) + 2 * (hertz is not None)) as advance:
        point = circuit.operating_point().require()
        voltages = circuit.node_voltages(point)
        advance()
        (plot,) = run_ngspice(lines, ["op"], options=POINT + gmin)
        advance()
        low = {node.lower(): volts for node, volts in voltages.items()}
        shared = tuple(n for n in _nodes(plot.columns) if n in low)
        within = _within_built_in(netlist.parts)
        missing = [n for n in _nodes(plot.columns) if n not in low and not _INSIDE.search(n)]
        missing = [n for n in missing if not n.startswith(within)]
        if missing:
            raise SpiceError(f"ngspice has the node {missing[0]!r}, and we have not: it reads another circuit")
        ours, theirs = (
            np.array([low[n] for n in shared]),
            np.array([plot.columns[f"v({n})"][0] for n in shared]),
        )
        parts = circuit.parts
        if asked is not None:
            start = "initial" if asked.uic else "operating_point"
            course = transient(parts, asked.stop, start=start, rtol=1e-7)
            advance()
            table, time = course.state[0][:, 0].numpy(), course.time.numpy()
            keep = np.flatnonzero((time >= asked.start) & (time > 0))
            keep = keep[np.unique(np.linspace(0, len(keep) - 1, TIMES).round().astype(int))]
            time, table = time[keep], table[keep]
            step = min(asked.longest or np.inf, asked.stop / STEPS)
            command = f"tran {step!r} {asked.stop!r} 0 {step!r}" + " uic" * asked.uic
            (plot,) = run_ngspice(lines + _corners(time, lines), [command], options=COURSE + gmin)
            by_both = [np.interp(time, plot.columns["time"], plot.columns[f"v({n})"]) for n in shared]
            courses["transient"] = _course("s", time, shared, table, np.stack(by_both, 1), parts)
            advance()
        if hertz is not None and amplitudes:
            hertz = hertz[np.unique(np.linspace(0, len(hertz) - 1, FREQUENCIES).round().astype(int))]
            response = frequency_response(parts, hertz).voltages[:, 0].numpy()
            advance()
            plots = run_ngspice(lines, [f"ac lin 1 {f!r} {f!r}" for f in hertz.tolist()], options=POINT + gmin)
            phasors = np.array([[one.columns[f"v({n})"][0] for n in shared] for one in plots])
            courses["small signals"] = _course("Hz", hertz, shared, response, phasors, parts)
            advance()
        elif hertz is not None:
            notes.append(".ac has nothing to compare: no source has an amplitude (AC)")
    residual = float(point.residual_si.max())
    return NetlistAgreement(os.fspath(path), shared, ours, theirs, residual, courses, tuple(notes))


def _corners(time: np.ndarray, lines: list[str]) -> list[str]:
    """A source beside the circuit with a corner at each of the times, on which ngspice therefore steps."""
    text, name = "\n".join(lines).lower(), "times"
    while name in text:
        name += "_"
    levels = [f"{t!r} {k % 2}" for k, t in enumerate(np.unique(time).tolist(), 1)]
    rows = [" ".join(levels[k : k + 50]) for k in range(0, len(levels), 50)]
    return [f"V{name} {name} 0 PWL(0 0", *(f"+ {row}" for row in rows), "+ )"]


def _reaching(lines: list[str], parts: Parts) -> list[str]:
    """Lines of two nodes that ngspice has too: within its own elements, nodes have other names than here."""
    own = {f"{name}.{end}" for kind in CHANNELS for name in parts.group(kind).names for end in ("d", "s")}
    return [line for line in lines if ".inside " not in line and not own.intersection(line.split()[1:3])]


def _nodes(columns: dict[str, np.ndarray]) -> list[str]:
    """Nodes of a plot, in lower case."""
    return [name[2:-1] for name in columns if name.startswith("v(")]


def _within_built_in(parts: Parts) -> tuple[str, ...]:
    """Beginnings of the names of nodes within subcircuits that are parts here."""
    names = [name.lower() for kind in ("amplifier", "ideal_diode", *STATEFUL) for name in parts.group(kind).names]
    return tuple(name.removeprefix("x.") + "." for name in names)


def _course(
    unit: str, at: np.ndarray, nodes: tuple[str, ...], table: np.ndarray, theirs: np.ndarray, parts: Parts
) -> CourseAgreement:
    """Both programs' voltages of the nodes that both have; the table (T, n_nodes) is ours, of all nodes."""
    place = {node.lower(): k for k, node in enumerate(parts.nodes)}
    return CourseAgreement(unit, at, nodes, table[:, [place[n] for n in nodes]], theirs)


def text_for_ngspice(path: str | os.PathLike[str]) -> tuple[list[str], bool]:
    """A netlist's lines without analyses, output and .control blocks, and whether it sets gmin itself.

    Names of included files become absolute, and subcircuits that need no definition here are defined.

    Raises
    ------
    InputError
        If the file cannot be read, or an included file has a .control block, whose commands would run.
    """
    source = read_source(path)
    place = Path(path).resolve()
    for line in source.controls:
        if line.file != str(Path(path)):
            raise line.error("ngspice would run this .control block: without it, the netlist would be compared")
    title, *body = text_of(Path(path)).split("\n")
    lines, control, dropped = [title or "netlist"], False, False
    for raw in body:
        words = raw.split()
        first = words[0].lower() if words else ""
        if control:
            control = first != ".endc"
            continue
        if first == ".control":
            control = True
            continue
        if first.startswith("+") and dropped:
            continue
        dropped = first in PASSED_OVER
        if not dropped:
            lines.append(_absolute(raw, place.parent) if first in (".include", ".inc", ".lib") else raw)
    text = "\n".join(lines).lower()
    own = {**{name: DEFINITIONS[name].split("\n") for name in DEFINITIONS}, op_amps.NAME: op_amps.definition()}
    for name, definition in own.items():
        if name not in source.top.subcircuits and re.search(rf"\b{name}\b", text):
            lines += definition
    return lines, any(name == "gmin" for name, *_ in source.options)


def _absolute(raw: str, folder: Path) -> str:
    """An .include or .lib line whose file has its whole path; a comment for a library that is not here."""
    command, _, named = raw.strip().partition(" ")
    windows = "\\" in named
    found = re.match(r"(\"[^\"]*\"|'[^']*'" + (r"|.*\\\S*" if windows else "") + r"|\S+)(.*)", named.strip())
    if found is None:
        raise InputError(f"The line {raw[:100]!r} names no file.")
    name, section = os.path.expanduser(found[1].strip("\"'")), found[2].strip()
    place = folder / name
    if windows and not os.path.exists(place):
        place = beside(name, folder) or place
    if not os.path.exists(place):
        return f"* {raw}"
    return f'.include "{place}"' if not section else f'{command} "{place}" {section}'
