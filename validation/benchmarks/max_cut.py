"""Maximum cuts by oscillators, beside the package simulated-bifurcation, at equal cuts and at equal times.

    python -m validation.benchmarks.max_cut
    physics-ep bench max-cut

One thread, float32, 20 starts a run but where told, random graphs of the sizes of Gset's G14, G1, G35 and G22, in
turns. The peer (`pip install simulated-bifurcation`) runs ballistic bifurcation from its model, which is built
beforehand; ours starts from the graph. The peer is given 1000 steps, until its pump is up: left to its own
criterion it goes on, some 3.5 times as long for cuts that are no larger. Of ours the fewest steps are sought that
reach the peer's mean cut; where none do, the row has the most steps and says that its cut is lower. The row "equal
time" has `STEPS` and as many starts as the peer's time has room for, at most 400: more steps would lead all starts
to one cut, which need not be the best. `excess` is by how much the mean cut is larger than the peer's, as a share
of it. `cpu` is the ratio of processor times. "ten lines" is the same algorithm as Goto et al. wrote it down, with a
sparse matrix in numpy, and the steps of our row "equal cut" (Sci. Adv. 7, eabe7953, 2021).
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array, csr_array

from hardware_models.oscillators.gset import WeightedGraph
from hardware_models.oscillators.max_cut import max_cut
from physics_ep import placement

from .peers import absent
from .steps import Clock
from .timing import interleave, machine, measured

PEER = "simulated-bifurcation"
EQUAL = "ours, equal cut"
GRAPHS = {
    "800 nodes, 4694 edges": (800, 4694, False),
    "800 nodes, 19,176 edges +-1": (800, 19176, True),
    "2000 nodes, 11,778 edges": (2000, 11778, False),
    "2000 nodes, 19,990 edges": (2000, 19990, False),
}
"""Nodes, edges, and whether weights are +1 and -1 by chance."""
STARTS = 20
LADDER = (50, 100, 150, 200, 300, 400, 600, 1000, 1500, 2000, 3000, 5000)
"""Steps of ours, of which the fewest are sought."""
ROUNDS = 3
"""Timed rounds at most: the peer takes seconds where ours takes hundredths."""
PUMPED = 1000
"""Steps of the peer, whose pump rises by 1/1000 a step until it is 1."""
STEPS = 300
"""Steps of ours where no cut of the peer's is there to be reached, or its time is to be filled."""
MOST_STARTS = 400
SEEDS = 3
"""Runs of ours with seeds of their own, whose mean cuts are averaged before they are compared."""

Cut = Callable[[], torch.Tensor]


def measure(repeats: int = 5, seed: int = 0, threads: int = 1, cases: list[str] | None = None) -> dict[str, Any]:
    """Time all machines on each graph in turns.

    Parameters
    ----------
    repeats : int
        Timed rounds, at most `ROUNDS`.
    seed : int
        Seed of graphs and starts.
    threads : int
        CPU threads.
    cases : list of str, optional
        Names among `GRAPHS`; default all.

    Returns
    -------
    dict
        `rows` (case, machine, starts, steps, ms, cpu over the peer's, mean and best cut of all starts, excess),
        `followed` (cpu at equal cut, by name), `machine`.
    """
    with placement.threads(threads):
        where = machine()
        rows = [row for case in cases or GRAPHS for row in _rows(case, min(repeats, ROUNDS), seed)]
    followed = {
        f"{row['case']}: equal cut, ours / {PEER}": row["cpu"]
        for row in rows
        if row["machine"] == EQUAL and row["cpu"]
    }
    return {"title": f"maximum cuts, {STARTS} starts", "rows": rows, "followed": followed, "machine": where}


def random_graph(n: int, m: int, signed: bool, seed: int) -> WeightedGraph:
    """m edges between pairs of n nodes by chance; weights 1, or +1 and -1."""
    draws = np.random.default_rng(seed)
    first, second = np.triu_indices(n, 1)
    pairs = draws.choice(len(first), m, replace=False)
    weights = draws.choice([-1.0, 1.0], m) if signed else np.ones(m)
    return WeightedGraph(n, np.stack([first[pairs], second[pairs]], 1), weights)


def _rows(case: str, repeats: int, seed: int) -> list[dict[str, Any]]:
    n, m, signed = GRAPHS[case]
    graph = random_graph(n, m, signed, seed)
    weights = _matrix(graph)
    calls: dict[str, Cut] = {}
    steps: dict[str, int] = {}
    starts: dict[str, int] = {}
    theirs = None
    if importlib.util.find_spec("simulated_bifurcation") is not None:
        calls[PEER], steps[PEER] = _peer(graph, weights), PUMPED
        theirs, spent = _once(calls[PEER])
    equal = STEPS if theirs is None else _fewest(graph, theirs, seed)
    # Without the peer there is no cut to reach; where no rung reaches it, the row does not say that it is equal.
    first = "ours" if theirs is None else EQUAL if equal else "ours, lower cut at most steps"
    equal = equal or LADDER[-1]
    steps[first] = steps["ten lines, the same steps"] = equal
    if theirs is not None:
        _, own = _once(_ours(graph, STEPS, seed))
        steps["ours, equal time"] = STEPS
        starts["ours, equal time"] = min(max(STARTS, round(STARTS * spent / own)), MOST_STARTS)
    for name, count in steps.items():
        if name.startswith("ours"):
            calls[name] = _ours(graph, count, seed, starts.get(name, STARTS))
    calls["ten lines, the same steps"] = lambda: graph.cut(_ten_lines(weights, equal, seed))
    cuts: dict[str, list[torch.Tensor]] = {name: [] for name in calls}

    def keeping(name: str) -> Callable[[], None]:
        return lambda: cuts[name].append(calls[name]())

    clock = Clock()
    interleave(clock.around({name: keeping(name) for name in calls}), repeats, warmup=0)
    unit = None if theirs is None else clock.median(PEER)[1]
    found = {name: torch.cat(each) for name, each in cuts.items()}
    rows = []
    if theirs is None:
        rows.append(_row(case, absent(PEER)))
    for name in calls:
        wall, busy = clock.median(name)
        mean, best = float(found[name].mean()), float(found[name].max())
        excess = None if unit is None else mean / float(found[PEER].mean()) - 1
        cpu = None if unit is None else busy / unit
        rows.append(_row(case, name, starts.get(name, STARTS), steps[name], 1e3 * wall, cpu, mean, best, excess))
    return rows


def _row(
    case: str,
    name: str,
    starts: int | None = None,
    steps: int | None = None,
    ms: float | None = None,
    cpu: float | None = None,
    mean: float | None = None,
    best: float | None = None,
    excess: float | None = None,
) -> dict[str, Any]:
    row = {"case": case, "machine": name, "starts": starts, "steps": steps, "ms": ms, "cpu": cpu}
    return {**row, "mean cut": mean, "best cut": best, "excess": excess}


def _once(call: Cut) -> tuple[float, float]:
    """Mean cut of a run, and its processor seconds."""
    begin = time.process_time()
    cut = call()
    return float(cut.mean()), time.process_time() - begin


def _fewest(graph: WeightedGraph, aim: float, seed: int) -> int:
    """Fewest steps of `LADDER` whose mean cut reaches the aim; 0 if none does."""
    for steps in LADDER:
        cuts = [float(_ours(graph, steps, seed + 1 + k)().mean()) for k in range(SEEDS)]
        if statistics.mean(cuts) >= aim:
            return steps
    return 0


def _ours(graph: WeightedGraph, steps: int, seed: int, starts: int = STARTS) -> Cut:
    draws = iter(range(seed, seed + 10**6))
    return lambda: max_cut(graph, starts=starts, steps=steps, seed=next(draws)).cut


def _peer(graph: WeightedGraph, weights: Any) -> Cut:
    """The package, whose model is built once."""
    import simulated_bifurcation

    # The cut is (sum w - x W x / 2) / 2, so that it is largest where x (W / 2) x is least.
    model = simulated_bifurcation.build_model(torch.from_numpy(weights.toarray() / 2), dtype=torch.float32)

    def run() -> torch.Tensor:
        vectors, _ = model.minimize(
            domain="spin", agents=STARTS, max_steps=PUMPED, early_stopping=False, best_only=False, verbose=False
        )
        return graph.cut(vectors)

    return run


def _matrix(graph: WeightedGraph) -> Any:
    """w_ij, sparse, float32, (n, n)."""
    first, second = graph.edges.numpy().T
    half = coo_array((graph.weights.numpy().astype(np.float32), (first, second)), shape=(graph.n, graph.n))
    return csr_array(half + half.T)


def _ten_lines(weights: Any, steps: int, seed: int) -> torch.Tensor:
    """Ballistic bifurcation as Goto et al. wrote it down: spins (S, n)."""
    draws = np.random.default_rng(seed)
    n = weights.shape[0]
    x, y = (draws.uniform(-0.1, 0.1, (n, STARTS)).astype(np.float32) for _ in range(2))
    size = np.float32(0.5 * np.sqrt((n - 1) / (weights.data**2).sum()))
    for k in range(steps):
        y += np.float32(k / steps - 1) * x - size * (weights @ x)
        x += y
        beyond = np.abs(x) > 1
        x[beyond] = np.sign(x[beyond])
        y[beyond] = 0
    return torch.from_numpy(np.where(x.T >= 0, 1, -1))


if __name__ == "__main__":
    result = measured(__file__, __doc__, measure)
    print(result["title"], "|", result["machine"])
    for row in result["rows"]:
        print("  ".join(f"{v:.4g}" if isinstance(v, float) else f"{v or '':26}" for v in row.values()))
