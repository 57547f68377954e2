"""Time and memory of an operating point over the size of the circuit.

    python -m validation.benchmarks.circuit_scaling
    physics-ep bench circuit-scaling

Layers of 20 nodes joined all to all with a pair of diodes a node, and crossbars with wire resistance and a diode a
crosspoint (`validation.benchmarks.circuits`), to a residual of 1e-12 A. Each kind runs in a process of its own, on
one thread, from the smallest circuit to the largest. `seconds` is one call of `Circuit.operating_point` from rest,
the median of as many as fit in a second; `setup` is what making a `Circuit` of the parts takes. `memory` is what
the process has needed at most so far beyond what it had before its first circuit, the parts list included.
"""

from __future__ import annotations

import json
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hardware_models.netlists.parts import Parts

from . import circuits
from .timing import machine, measured

SIZES = (100, 300, 1000, 3000, 10_000, 30_000, 100_000)
WIDTH = 20
BUDGET = 1.0
"""Seconds of a size's repetitions."""
FITTED = 1000
"""Nodes from which on exponents are fitted: below, fixed costs of a call count."""
_CHILD = """
import json, sys
from validation.benchmarks.circuit_scaling import measure_kind
print(json.dumps(measure_kind(*json.loads(sys.argv[1]))))
"""
_ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")}


def layers(nodes: int, seed: int) -> Parts:
    """A circuit of layers of 20 nodes, some `nodes` in all."""
    return circuits.narrow_layers(WIDTH, max(2, round(nodes / WIDTH) + 1), seed)


def grid(nodes: int, seed: int) -> Parts:
    """A square crossbar of some `nodes`, two a crosspoint."""
    side = max(2, round(math.sqrt(nodes / 2)))
    return circuits.crossbar(side, side, seed=seed)


KINDS: dict[str, Callable[[int, int], Parts]] = {"layers": layers, "grid": grid}


def measure(repeats: int = 5, seed: int = 0, sizes: Sequence[int] = SIZES) -> dict[str, Any]:
    """Measure both kinds of circuits.

    Parameters
    ----------
    repeats : int
        Operating points of each circuit, at most.
    seed : int
        Seed of the circuits.
    sizes : sequence of int
        Nodes, ascending.

    Returns
    -------
    dict
        `rows` (circuit, nodes, resistors, setup and seconds, memory in bytes, residual in amperes, iterations),
        `exponents` (circuit: those of seconds and of memory), `followed` (the same by name), `machine`.
    """
    rows: list[dict[str, Any]] = []
    for kind in KINDS:
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, json.dumps([kind, repeats, seed, list(sizes)])],
            env={**os.environ, **_ONE_THREAD},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"The circuits of kind {kind} failed: {done.stderr.strip().splitlines()[-1:]}")
        rows += json.loads(done.stdout)
    exponents = {
        kind: {name: exponent([r for r in rows if r["circuit"] == kind], name) for name in ("seconds", "memory")}
        for kind in KINDS
    }
    return {
        "title": "operating points over the number of nodes, one thread",
        "rows": rows,
        "exponents": exponents,
        "followed": {
            f"{kind}: exponent of {name}": value for kind, each in exponents.items() for name, value in each.items()
        },
        "machine": machine(),
    }


def exponent(rows: Sequence[dict[str, Any]], name: str) -> float | None:
    """k of a power law nodes^k fitted to the rows from `FITTED` nodes on; None: fewer than two of them."""
    use = [row for row in rows if row["nodes"] >= 0.9 * FITTED and row[name] > 0]
    if len(use) < 2:
        return None
    return float(np.polyfit(np.log([r["nodes"] for r in use]), np.log([r[name] for r in use]), 1)[0])


def measure_kind(kind: str, repeats: int, seed: int, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Rows of one kind of circuit, in this process."""
    from hardware_models.circuits.circuit import Circuit

    # Compiled and imported before anything is measured.
    Circuit(KINDS[kind](60, seed)).operating_point().require()
    start = _peak()
    rows = []
    warm: set[str] = set()
    for size in sizes:
        parts = KINDS[kind](size, seed)
        circuit = Circuit(parts)  # loads what is compiled for circuits of so many parts
        if circuit.layout.pattern.kind not in warm:
            circuit.operating_point()
            warm.add(circuit.layout.pattern.kind)
        begin = time.perf_counter()
        circuit = Circuit(parts)
        setup = time.perf_counter() - begin
        seconds: list[float] = []
        while len(seconds) < repeats and sum(seconds) < BUDGET:
            begin = time.perf_counter()
            point = circuit.operating_point()
            seconds.append(time.perf_counter() - begin)
        point.require()
        rows.append(
            {
                "circuit": kind,
                "nodes": len(circuit.layout.reduction.representative),
                "resistors": len(parts.group("resistor")),
                "setup": setup,
                "seconds": statistics.median(seconds),
                "memory": _peak() - start,
                "residual": float(point.residual_si.max()),
                "iterations": point.iterations,
            }
        )
    return rows


def _peak() -> int:
    """Largest resident memory of this process so far, bytes."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except OSError:
        # Kibibytes, but on macOS. Unlike VmHWM it may be that of the process which started this one.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    result = measured(__file__, __doc__, measure)
    print(result["title"], "|", result["machine"])
    for row in result["rows"]:
        print(
            f"{row['circuit']:7s} {row['nodes']:7d} nodes  {row['resistors']:8d} resistors  "
            f"set up {row['setup']:8.4f} s  solved {row['seconds']:8.4f} s  "
            f"{row['memory'] / 2**20:7.1f} MiB  {row['residual']:.1e} A"
        )
    print(result["exponents"])
