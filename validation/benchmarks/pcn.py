"""Cost of an EP step of a predictive coding network over a backprop step of the same network.

    python -m validation.benchmarks.pcn
    physics-ep bench pcn

One thread. Backprop is autograd on a copy of the network as an `nn.Sequential` and on the network's own forward
pass; the faster of the two is the unit. Images are channels last for all. Lambda, from which beta comes, is
measured beforehand. `ms` and `ratio` are of the clock on the wall; `cpu` is the same ratio in processor time, which
other programs on the machine disturb less. `1 - cos` is of the worst tensor, against backprop in float32. SE is the
squared error, CE the cross-entropy; the number after it is the batch.

`count` is the counted floor, multiplications of a step over those of backprop, and `floor` the processor time of
these products alone over that of a backprop step. "odd part" is the estimate from the odd part of the output force
alone (opposite='mirrored'), and `to both signs` its relative difference from the step of both signs above it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from physics_ep import placement
from physics_ep.cost import Cost, CrossEntropy, SquaredError
from physics_ep.extremes import least
from physics_ep.predictive_coding import PredictiveCodingNetwork, mlp, vgg5, vgg10

from .counting import floors, with_floors
from .steps import EVERYWHERE, OPPONENTS, Clock, StepRecipe, StepSubject, everywhere, photograph_like
from .timing import interleave, machine, measured

CLOSE = StepRecipe("EP to 1e-3", tolerance=1e-3)
SMALL = StepRecipe("EP to 1e-3, 0.4 beta", tolerance=1e-3, share=0.4, target=2.5)
CLOSER = StepRecipe("EP to 1e-6", tolerance=1e-6, target=4.0)
PLAIN = StepRecipe("EP to 1e-6, sweep", solver="sweep", tolerance=1e-6)
DEFAULT = StepRecipe("EP, default")
ODD = StepRecipe("EP, odd part", opposite="mirrored")
THREE = StepRecipe("EP, 3 sweeps", sweeps=3)
REACHED = StepRecipe("mod-PGD, 10, reached", solver="mod_pgd", sweeps=10, gates="live", beta=0.05)
ALL = StepRecipe("mod-PGD, 10, everywhere", solver=EVERYWHERE, sweeps=10, gates="live", beta=0.05)


@dataclass(frozen=True)
class Case:
    """A network, a batch, and what is timed on it.

    Attributes
    ----------
    name : str
    build : callable (seed) -> PredictiveCodingNetwork
    cost : Cost
    batch : int
    recipes : tuple of StepRecipe
        Timed in turns with backprop.
    dtype : torch.dtype
    rounds : int
        Most rounds.
    warmup : int
    slow : tuple of StepRecipe
        Timed once, between backprop steps.
    """

    name: str
    build: Callable[[int], PredictiveCodingNetwork]
    cost: Cost
    batch: int
    recipes: tuple[StepRecipe, ...]
    dtype: torch.dtype = torch.float32
    rounds: int = 40
    warmup: int = 3
    slow: tuple[StepRecipe, ...] = ()

    @property
    def label(self) -> str:
        """Network, cost, batch, and the dtype if it is not float32."""
        cost = "".join(word[0].upper() for word in self.cost.name.split("_"))
        dtype = "" if self.dtype == torch.float32 else f" {str(self.dtype).removeprefix('torch.')}"
        return f"{self.name} {cost} {self.batch}{dtype}"


def _mlp(activation: str) -> Callable[[int], PredictiveCodingNetwork]:
    return lambda seed: mlp([784, 512, 512, 10], activation, seed=seed)


def _vgg5(seed: int) -> PredictiveCodingNetwork:
    return vgg5(width=0.25, seed=seed)


SQUARED, ENTROPY = SquaredError(), CrossEntropy()
UNJUDGED = (CLOSE, replace(CLOSER, target=None))
SETTLED = (DEFAULT, CLOSE, SMALL, CLOSER, PLAIN)
CASES = (
    Case("mlp relu", _mlp("relu"), SQUARED, 128, (*SETTLED, ODD)),
    Case("mlp relu", _mlp("relu"), ENTROPY, 128, (*SETTLED, ODD)),
    Case("mlp tanh", _mlp("tanh"), SQUARED, 128, SETTLED),
    Case("mlp tanh", _mlp("tanh"), ENTROPY, 128, SETTLED),
    Case("vgg5/4", _vgg5, SQUARED, 16, (DEFAULT, *UNJUDGED, REACHED), rounds=5, warmup=1),
    Case("vgg5/4", _vgg5, ENTROPY, 64, (DEFAULT, UNJUDGED[1], ODD), rounds=6, warmup=1),
    Case("vgg5/4", _vgg5, SQUARED, 16, (DEFAULT, THREE), torch.bfloat16, rounds=8, warmup=1),
    Case(
        "vgg10",
        lambda seed: vgg10(seed=seed),
        SQUARED,
        4,
        (replace(DEFAULT, target=2.5), THREE, ODD),
        rounds=3,
        warmup=1,
        slow=(replace(REACHED, target=8.0), replace(ALL, target=11.0)),
    ),
)


def measure(
    repeats: int = 40, seed: int = 0, threads: int = 1, cases: tuple[Case, ...] = CASES
) -> dict[str, object]:
    """Time the steps of all cases, each case in turns, and say how well each step settled and agrees with backprop.

    Parameters
    ----------
    repeats : int
        Timed rounds, at most; large networks have fewer.
    seed : int
        Seed of data and weights.
    threads : int
        CPU threads.
    cases : tuple of Case

    Returns
    -------
    dict
        `rows` (case, step, ms, ratio, cpu, beta, sweeps, residual, 1 - cos, target, to both signs, count, floor),
        `ratio` (the largest over its target), `followed` (those with a target, in processor time, by name),
        `machine`, `load` (mean processes running over a minute, before and
        after).
    """
    load = [os.getloadavg()[0]]
    with placement.threads(threads):
        where = machine()
        with everywhere():
            rows = [row for case in cases for row in _rows(case, repeats, seed)]
    load.append(os.getloadavg()[0])
    over = [float(r["ratio"]) / float(r["target"]) for r in rows if r["target"]]  # type: ignore[arg-type]
    return {
        "title": "EP over backprop: mlp 784-512-512-10, vgg5 of 1/4 the channels, vgg10 at 224x224",
        "rows": rows,
        "ratio": max(over, default=None),
        "followed": {f"{row['case']}: {row['step']}": row["cpu"] for row in rows if row["target"]},
        "machine": where,
        "load": load,
    }


def _rows(case: Case, repeats: int, seed: int) -> list[dict[str, object]]:
    generator = torch.Generator().manual_seed(seed)
    network = case.build(seed)
    x = inputs(network, case.batch, generator)
    n_out = network.sizes[-1]
    labels = torch.randint(0, n_out, (case.batch,), generator=generator)
    subject = StepSubject(network, x, case.cost.encode(labels, n_out, torch.float32), case.cost, case.dtype)
    exact = subject.reference()
    clock = Clock()
    calls = subject.calls(list(case.recipes))
    for call in list(calls.values()) * case.warmup:
        call()
    interleave(clock.around(calls), min(repeats, case.rounds), warmup=0)
    if case.slow:
        # Backprop before and after; its times join those of the rounds above.
        slow = clock.around(subject.calls(list(case.slow)))
        interleave(slow, 1, warmup=0)
        interleave({name: slow[name] for name in OPPONENTS}, 1, warmup=0)
    gradients = subject.gradients
    apart = {
        recipe.name: _difference(gradients[recipe.name], gradients[DEFAULT.name])
        for recipe in case.recipes
        if recipe.opposite == "mirrored"
    }
    settled = {name: subject.settled(name) for name in clock.seconds}
    cosines = {name: least(row.cosine for row in subject.agreement(name, exact)) for name in clock.seconds}
    found = floors(calls, min(repeats, case.rounds))
    units = [min(clock.median(name)[k] for name in OPPONENTS) for k in range(2)]
    targets = {recipe.name: recipe.target for recipe in (*case.recipes, *case.slow)}
    rows: list[dict[str, object]] = [
        {
            "case": case.label,
            "step": name,
            "ms": 1e3 * clock.median(name)[0],
            "ratio": clock.median(name)[0] / units[0],
            "cpu": clock.median(name)[1] / units[1],
            **settled[name],
            "1 - cos": 1 - cosines[name],
            "target": targets.get(name),
            "to both signs": apart.get(name),
        }
        for name in clock.seconds
    ]
    return with_floors(rows, found, OPPONENTS[1], units[1])


def _difference(found: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Norm of the difference of two gradients over that of the second, all parameters as one vector."""
    gaps, sizes = (
        torch.stack([torch.linalg.vector_norm(g.double()) for g in grads])
        for grads in ([found[name] - g for name, g in other.items()], list(other.values()))
    )
    return float(torch.linalg.vector_norm(gaps) / torch.linalg.vector_norm(sizes))


def inputs(network: PredictiveCodingNetwork, batch: int, generator: torch.Generator) -> torch.Tensor:
    shape = network.shapes[0]
    if len(shape) == 3:
        return photograph_like(batch, shape, generator)
    x = torch.rand(batch, *shape, generator=generator)
    # As sparse as a handwritten digit, so that drives have their usual size.
    return x * (torch.rand(x.shape, generator=generator) < 0.2)


if __name__ == "__main__":
    result = measured(__file__, __doc__, measure)
    print(result["title"], "|", result["machine"], "| load", result["load"])
    for row in result["rows"]:
        residual = "" if row["residual"] is None else f"{row['residual']:.1e}"
        floor = "" if row["count"] is None else f"count {row['count']:.2f} ({row['floor']:.2f} in time)"
        apart = "" if row["to both signs"] is None else f"{row['to both signs']:.1e} to both signs"
        print(
            f"{row['case']:26s} {row['step']:24s} "
            f"{row['ms']:9.2f} ms  x{row['ratio']:5.2f}  cpu x{row['cpu']:5.2f}  {row['sweeps']:6s} {residual:8s} "
            f"{row['1 - cos']:.1e} {row['target'] or '':4} {floor}  {apart}"
        )
