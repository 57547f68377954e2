"""Cost of relaxing coupled oscillators and of an EP step, against integrating them in time with SciPy.

    python -m validation.benchmarks.oscillator
    physics-ep bench oscillator

One thread, float64. 784-120-10, batch 20, weights and costs as in a published code (normal with variance 1 / (n +
m), inputs as phases, no local fields), to a largest force of 1e-6. The opponents integrate the same dynamics with
`scipy.integrate.solve_ivp`, as one would write them down: RK45 at that code's tolerances, 1e-3 and 1e-6, for its
300 units of time, forces from the sine of all phase differences, vectorised over examples and pairs. A third one
has our force, two matrix products. The force that is left is measured in each. Further rows: an all-to-all network
of 1000, and square lattices of up to 1e5 oscillators in clamped fields, with the memory that their relaxation adds
at its peak, each in a process of its own.
"""

from __future__ import annotations

import json
import math
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp

from hardware_models import OscillatorGraph, OscillatorNetwork
from physics_ep import placement
from physics_ep.cost import PhaseError
from physics_ep.estimators.propagation import EquilibriumPropagation
from physics_ep.extremes import greatest
from physics_ep.relaxation.loop import relax

from .timing import interleave, machine, measured

SIZES = (784, 120, 10)
BATCH = 20
TOLERANCE = 1e-6
BETA = 1e-3
DURATION = 300.0
GRAPHS = ("all-to-all 1000", "lattice 10000", "lattice 31684", "lattice 99856")
GRAPH_TOLERANCE = 1e-6
_CHILD = """
import json, sys
from validation.benchmarks.oscillator import graph
print(json.dumps(graph(sys.argv[1], int(sys.argv[2]))))
"""

Array = np.ndarray


class Integrated:
    """The oscillator network as numpy arrays, relaxed by scipy's `solve_ivp`.

    Parameters
    ----------
    system : OscillatorNetwork
        784-120-10.
    x, y : Tensor
        Phases of the inputs (B, 784) and targets of the outputs (B, 10).
    products : bool
        Force by matrix products, not by the sine of all differences.
    """

    def __init__(self, system: OscillatorNetwork, x: torch.Tensor, y: torch.Tensor, products: bool) -> None:
        self.first, self.second = (layer.weight.detach().numpy() for layer in system.couplings.layers)
        self.x, self.y, self.products = x.numpy(), y.numpy(), products
        self.calls = 0

    def force(self, hidden: Array, out: Array, beta: float) -> tuple[Array, Array]:
        """The force -dF/dphi on both layers."""
        self.calls += 1
        if self.products:
            field = np.exp(1j * self.x) @ self.first.T + np.exp(1j * out) @ self.second
            on_hidden = (np.conj(np.exp(1j * hidden)) * field).imag
            on_out = (np.conj(np.exp(1j * out)) * (np.exp(1j * hidden) @ self.second.T)).imag
        else:
            from_inputs = self.first * np.sin(hidden[:, :, None] - self.x[:, None, :])
            between = self.second * np.sin(out[:, :, None] - hidden[:, None, :])
            on_hidden = -from_inputs.sum(2) + between.sum(1)
            on_out = -between.sum(2)
        return on_hidden, on_out - beta * np.sin(out - self.y)

    def settle(self, start: Array, beta: float = 0.0) -> tuple[Array, float]:
        """Phases (B, 130) after 300 units of time, and the largest force left."""
        batch, hidden = len(self.x), self.first.shape[0]

        def rate(_: float, flat: Array) -> Array:
            phases = flat.reshape(batch, -1)
            return np.concatenate(self.force(phases[:, :hidden], phases[:, hidden:], beta), 1).ravel()

        found = solve_ivp(rate, (0, DURATION), start.ravel(), rtol=1e-3, atol=1e-6, t_eval=[DURATION]).y[:, -1]
        return found.reshape(batch, -1), float(np.abs(rate(0.0, found)).max())

    def step(self, start: Array) -> float:
        """Free and nudged phases and both weight gradients; the largest force left in either."""
        free, rest = self.settle(start)
        nudged, moved_rest = self.settle(free, BETA)
        hidden = self.first.shape[0]
        for pre, post in ((self.x, slice(0, hidden)), (None, slice(hidden, None))):
            below = [self.x, self.x] if pre is not None else [nudged[:, :hidden], free[:, :hidden]]
            gaps = [
                np.cos(phases[:, post, None] - before[:, None, :])
                for phases, before in zip((nudged, free), below, strict=True)
            ]
            (gaps[0] - gaps[1]).mean(0) / -BETA
        return max(rest, moved_rest)


def measure(repeats: int = 15, threads: int = 1, seed: int = 0, graphs: bool = True) -> dict[str, Any]:
    """Time the contenders in one run, and measure the force that each leaves.

    Parameters
    ----------
    repeats : int
        Timed rounds of ours; each integration is timed once.
    threads : int
        CPU threads.
    seed : int
        Seed of data and couplings.
    graphs : bool
        Whether to measure the graphs too.

    Returns
    -------
    dict
        `rows` (what, milliseconds, ratio to ours, residual, iterations, mebibytes), `free_ratio` and `step_ratio`
        (straightforward integration over ours), `exponents` of the lattices' time and memory, `followed` (our time
        over that of integration with two products, by name), `machine`.
    """
    with placement.threads(threads):
        system, x, y = problem(seed)
        cost = PhaseError()
        ep = EquilibriumPropagation(cost, beta=BETA, tolerance=TOLERANCE)

        def settle() -> None:
            relax(system, x, tolerance=TOLERANCE)

        def propagate() -> None:
            system.zero_grad()
            ep.backward(system, x, y)

        where = machine()
        medians = interleave({"free": settle, "ep": propagate}, repeats)
        free = relax(system, x, tolerance=TOLERANCE).require()
        step = ep.backward(system, x, y)
        start = torch.cat(system.initial_state(x), 1).numpy()
        # An exact start at the neutral phase may be a saddle for the flow: a hundredth of a radian leaves it.
        start = start + 0.01 * np.random.default_rng(seed).standard_normal(start.shape)
        rows = [
            _row("free relaxation", medians["free"], 1.0, float(free.residual.max()), str(free.iterations)),
            _row(
                "EP step",
                medians["ep"],
                1.0,
                greatest(float(e.residual.max()) for e in step.equilibria),
                "/".join(str(e.iterations) for e in step.equilibria),
            ),
        ]
        ratios = {}
        for name, products in (("solve_ivp, all differences", False), ("solve_ivp, two products", True)):
            rival = Integrated(system, x, y, products)
            for task, mine in (("free", medians["free"]), ("ep", medians["ep"])):
                began, calls = time.perf_counter(), rival.calls
                left = rival.settle(start)[1] if task == "free" else rival.step(start)
                seconds = time.perf_counter() - began
                what = "free relaxation" if task == "free" else "EP step, one nudged phase"
                rows.append(_row(f"{name}: {what}", seconds, seconds / mine, left, f"{rival.calls - calls} forces"))
                ratios[name, task] = seconds / mine
        found = [_graph_alone(name, seed) for name in GRAPHS] if graphs else []
    for graph in found:
        rows.append(
            _row(graph["name"], graph["seconds"], 1.0, graph["residual"], str(graph["iterations"]), graph["memory"])
        )
    lattices = [g for g in found if "lattice" in g["name"]]
    sizes = [math.log(g["edges"]) for g in lattices]
    exponents = {
        what: float(np.polyfit(sizes, [math.log(g[what]) for g in lattices], 1)[0])
        for what in ("seconds", "product_seconds", "memory")
        if lattices
    }
    return {
        "title": f"oscillators 784-120-10, batch 20, float64, to a force of {TOLERANCE:g}; graphs",
        "rows": rows,
        "free_ratio": ratios["solve_ivp, all differences", "free"],
        "step_ratio": ratios["solve_ivp, all differences", "ep"],
        "exponents": exponents,
        "followed": {
            "free / solve_ivp, two products": 1 / ratios["solve_ivp, two products", "free"],
            "EP step / solve_ivp, two products": 1 / ratios["solve_ivp, two products", "ep"],
        },
        "graphs": found,
        "machine": where,
    }


def problem(seed: int) -> tuple[OscillatorNetwork, torch.Tensor, torch.Tensor]:
    """Network, inputs as sparse as handwritten digits (in radians), and targets of +-pi/2."""
    generator = torch.Generator().manual_seed(seed)
    system = OscillatorNetwork(SIZES, readout="phase", encoding="phase", span=1.0, field=0.0).double()
    with torch.no_grad():
        for layer in system.couplings.layers:
            shape = layer.weight.shape
            layer.weight.copy_(torch.randn(shape, generator=generator, dtype=torch.float64) / math.sqrt(sum(shape)))
    x = torch.rand(BATCH, SIZES[0], generator=generator, dtype=torch.float64)
    x = x * (torch.rand(x.shape, generator=generator) < 0.2)
    y = math.pi * (torch.eye(10, dtype=torch.float64)[torch.arange(BATCH) % 10] - 0.5)
    return system, x, y


def graph(name: str, seed: int) -> dict[str, Any]:
    """Relax one of `GRAPHS`; seconds, memory beyond what was there before, residual."""
    torch.set_default_dtype(torch.float64)
    kind, number = name.split()
    # All that a relaxation calls is compiled, or loaded, by one of a small graph, to the end.
    small, rest = _graph_of(kind, 100, seed)
    relax(small, rest, tolerance=GRAPH_TOLERANCE, max_iterations=20000)
    system, x = _graph_of(kind, int(number), seed)
    relax(system, x, max_iterations=5, tolerance=GRAPH_TOLERANCE)
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    found = relax(system, x, tolerance=GRAPH_TOLERANCE, max_iterations=20000).require()
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    phase = system.phase(system.prepare(x))
    hessian = phase.hessian(found.state)
    began = time.perf_counter()
    for _ in range(10):
        hessian(found.state)
    return {
        "name": f"{name}, batch {len(x)}",
        "edges": len(system.edges),
        "seconds": seconds,
        "product_seconds": (time.perf_counter() - began) / 10,
        "memory": max(peak - base, 1) * 1024,
        "residual": float(found.residual.max()),
        "iterations": found.iterations,
    }


def _graph_of(kind: str, n: int, seed: int) -> tuple[OscillatorGraph, torch.Tensor]:
    """A graph of n oscillators and its inputs."""
    generator = torch.Generator().manual_seed(seed)
    if kind == "all-to-all":
        x = torch.rand(BATCH, 10, generator=generator)
        return OscillatorGraph.all_to_all(10, n, 10, field=1.0, seed=seed), x
    side = math.isqrt(n)
    field = torch.stack([torch.ones(n), torch.randn(n, generator=generator)])
    return OscillatorGraph.lattice((side, side), field=field.numpy()), torch.zeros(1, 0)


def _graph_alone(name: str, seed: int) -> dict[str, Any]:
    """`graph` in a process of its own, so that its memory is its own."""
    threads = {key: "1" for key in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, name, str(seed)],
        env={**os.environ, **threads},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _row(
    name: str, seconds: float, ratio: float, residual: float, iterations: str, memory: float | None = None
) -> dict[str, object]:
    mebibytes = None if memory is None else memory / 2**20
    return {
        "what": name,
        "ms": 1e3 * seconds,
        "ratio": ratio,
        "residual": residual,
        "iterations": iterations,
        "MiB": mebibytes,
    }


if __name__ == "__main__":
    result = measured(__file__, __doc__, measure)
    print(result["title"], "|", result["machine"])
    for row in result["rows"]:
        memory = "" if row["MiB"] is None else f"{row['MiB']:8.1f} MiB"
        print(
            f"{row['what']:54s} {row['ms']:10.1f} ms  x{row['ratio']:<8.3g} residual {row['residual']:.1e}"
            f"  {row['iterations']:>14s} {memory}"
        )
    print("exponents in the number of edges:", {k: round(v, 2) for k, v in result["exponents"].items()})
