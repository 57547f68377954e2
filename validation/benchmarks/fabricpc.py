"""Cost of a learning step of predictive coding, ours by EP and FabricPC's, on one network in one run.

    python -m validation.benchmarks.fabricpc
    physics-ep bench fabricpc

784-512-512-10, tanh, squared error, batch 128, float32. FabricPC (`pip install fabricpc`; JAX, compiled) is a
process of its own with one thread, and takes turns with us. Its predictive coding clamps the outputs to the
targets and takes 20 steps of descent, as its examples do; its weights are drawn by itself. `ratio` and `cpu` are
over the backprop of the same library, on the wall and in processor time; `ms` compares the libraries. `1 - cos` is
of the worst tensor against that backprop, whose gradient clamped outputs do not approach as steps are added.
`residual` is the largest force that is left: of ours relative, of FabricPC's that on a latent, in its own units.
"""

from __future__ import annotations

import importlib.util
import itertools
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch

from physics_ep import placement
from physics_ep.cost import SquaredError
from physics_ep.extremes import greatest, least
from physics_ep.predictive_coding import mlp

from .peers import absent
from .steps import OPPONENTS, Clock, StepRecipe, StepSubject
from .timing import machine, measured

PEER = "FabricPC"
SIZES = (784, 512, 512, 10)
BATCH = 128
RATE, STEPS = 0.05, 20
"""Step and number of steps of its descent, as in its own examples."""
RECIPES = (StepRecipe("EP, default"), StepRecipe("EP to 1e-6", tolerance=1e-6))
_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
}


def measure(repeats: int = 20, seed: int = 0, threads: int = 1) -> dict[str, Any]:
    """Time the steps of both libraries in turns.

    Parameters
    ----------
    repeats : int
        Timed rounds.
    seed : int
        Seed of data and weights.
    threads : int
        CPU threads of ours.

    Returns
    -------
    dict
        `rows` (library, step, ms, ratio, cpu, sweeps, residual, 1 - cos), `followed` (our EP step over FabricPC's
        step, in processor time, by name), `machine`. Where FabricPC is not installed, a row says what installs it.
    """
    with placement.threads(threads):
        generator = torch.Generator().manual_seed(seed)
        x = torch.rand(BATCH, SIZES[0], generator=generator)
        x = x * (torch.rand(x.shape, generator=generator) < 0.2)
        labels = torch.randint(0, SIZES[-1], (BATCH,), generator=generator)
        cost = SquaredError()
        y = cost.encode(labels, SIZES[-1], torch.float32)
        subject = StepSubject(mlp(list(SIZES), "tanh", seed=seed), x, y, cost, torch.float32)
        exact, calls, clock = subject.reference(), subject.calls(list(RECIPES)), Clock()
        timed = clock.around(calls)
        theirs: dict[str, list[tuple[float, float]]] = {}
        told: dict[str, Any] = {}
        if importlib.util.find_spec("fabricpc") is None:
            for _ in range(repeats):
                for call in timed.values():
                    call()
        else:
            with _worker(x.numpy(), y.numpy(), seed) as ask:
                for _ in range(repeats):
                    for call in timed.values():
                        call()
                    for name in ("backprop", "pc"):
                        theirs.setdefault(name, []).append(ask(name))
                told = ask("quality")
        where = machine()
    unit = [min(clock.median(name)[k] for name in OPPONENTS) for k in range(2)]
    rows = []
    for name in clock.seconds:
        wall, busy = clock.median(name)
        settled = subject.settled(name)
        apart = 1 - least(row.cosine for row in subject.agreement(name, exact))
        ours = _row("physics-ep", name, 1e3 * wall, wall / unit[0], busy / unit[1])
        rows.append({**ours, "sweeps": settled["sweeps"], "residual": settled["residual"], "1 - cos": apart})
    if not theirs:
        return {"title": TITLE, "rows": [*rows, _row(absent(PEER), "")], "followed": {}, "machine": where}
    medians = {
        name: [statistics.median(each) for each in zip(*pairs, strict=True)] for name, pairs in theirs.items()
    }
    for name, step in (("backprop", "backprop"), ("pc", "predictive coding")):
        wall, busy = medians[name]
        ratios = wall / medians["backprop"][0], busy / medians["backprop"][1]
        row = _row(PEER, step, 1e3 * wall, *ratios)
        rows.append({**row, "sweeps": str(STEPS), **told} if name == "pc" else row)
    followed = {
        f"{recipe.name}, ours / {PEER}'s step": clock.median(recipe.name)[1] / medians["pc"][1]
        for recipe in RECIPES
    }
    return {"title": TITLE, "rows": rows, "followed": followed, "machine": f"{where}; one thread each"}


TITLE = "a step on 784-512-512-10, tanh, squared error, batch 128"


def _row(
    library: str, step: str, ms: float | None = None, ratio: float | None = None, cpu: float | None = None
) -> dict[str, Any]:
    row = {"library": library, "step": step, "ms": ms, "ratio": ratio, "cpu": cpu}
    return {**row, "sweeps": "", "residual": None, "1 - cos": None}


@contextmanager
def _worker(x: np.ndarray, y: np.ndarray, seed: int) -> Iterator[Callable[[str], Any]]:
    """FabricPC in a process of its own, on one thread: what asks it."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    os.environ.update(_ONE_THREAD)
    try:
        process = context.Process(target=_serve, args=(there, x, y, seed), daemon=True)
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
        ask("backprop"), ask("pc")  # compiles
        yield ask
    finally:
        here.close()
        process.join(10)


def _serve(pipe: Connection, x: np.ndarray, y: np.ndarray, seed: int) -> None:
    """Make steps, and answer with wall and processor seconds of each, until the other end closes."""
    import fabricpc
    import jax
    import optax
    from fabricpc.core.activations import TanhActivation
    from fabricpc.core.inference import InferenceSGD
    from fabricpc.core.topology import Edge
    from fabricpc.graph_assembly import TaskMap, graph
    from fabricpc.nodes import Linear
    from fabricpc.training.trainer import make_train_step

    layers = [Linear(shape=(SIZES[0],), name="input")]
    layers += [Linear(shape=(n,), name=f"h{k}", activation=TanhActivation()) for k, n in enumerate(SIZES[1:-1])]
    layers += [Linear(shape=(SIZES[-1],), name="output")]
    structure = graph(
        nodes=layers,
        edges=[Edge(source=a, target=b.slot("in")) for a, b in itertools.pairwise(layers)],
        task_map=TaskMap(x=layers[0], y=layers[-1]),
        inference=InferenceSGD(eta_infer=RATE, infer_steps=STEPS),
    )
    key = jax.random.PRNGKey(seed)
    params = fabricpc.initialize_params(structure, key)
    batch = {"x": jax.numpy.asarray(x), "y": jax.numpy.asarray(y)}
    # The gradient is handed out as the optimizer's state, and nothing moves.
    still = optax.GradientTransformation(
        lambda weights: jax.tree_util.tree_map(jax.numpy.zeros_like, weights),
        lambda grads, state, weights=None: (jax.tree_util.tree_map(jax.numpy.zeros_like, grads), grads),
    )
    empty = still.init(params)
    steps = {name: make_train_step(structure, still, algorithm=name) for name in ("pc", "backprop")}
    found: dict[str, Any] = {}
    try:
        while True:
            what = pipe.recv()
            if what in steps:
                begin = time.perf_counter(), time.process_time()
                found[what] = jax.block_until_ready(steps[what](params, empty, batch, key))
                pipe.send((time.perf_counter() - begin[0], time.process_time() - begin[1]))
                continue
            pairs = zip(*(jax.tree_util.tree_leaves(found[name][1]) for name in ("pc", "backprop")), strict=True)
            forces = [found["pc"][3].nodes[layer.name].latent_grad for layer in layers[1:-1]]
            pipe.send(
                {
                    "residual": greatest(float(abs(force).max()) for force in forces),
                    "1 - cos": 1 - least(_cosine(np.asarray(a, float), np.asarray(b, float)) for a, b in pairs),
                }
            )
    except (EOFError, BrokenPipeError):
        pass


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()))


if __name__ == "__main__":
    result = measured(__file__, __doc__, measure)
    print(result["title"], "|", result["machine"])
    for row in result["rows"]:
        print("  ".join(f"{v:.3g}" if isinstance(v, float) else f"{v or '':20}" for v in row.values()))
