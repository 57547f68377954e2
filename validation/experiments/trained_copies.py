"""Asymmetric EP on trained networks whose arrays err apart: how exact it is, and what learning in place gives.

    python -m validation.experiments.trained_copies results.json [--instances 3] [--only TEXT] [--table]

Networks of depth 3 (64-32-32-10) and 10 (64, nine layers of 24, 10) learn the 8x8 digits by backprop. ReLUs of
depth 10 do so twice: freely, and near the identity, with hidden weights of a spectral norm of at most 1.1. Errors
of copies go round through the arrays of all layers, multiplied by their norms (2.5 to 3.1 where nothing holds
them), until no free state is left. Each is put on devices whose arrays differ. Told are the share of test
examples that have a stable free state, their test error before and after an epoch of learning in place by
asymmetric EP, and how far gradients are from implicit differentiation of that physical network
(`adaptation_gradient`): 1 - cosine of the worst weights at beta 1e-3 and 1e-4, the order of the error between
them, the beta that brings the cosine to 1e-6 of 1 by that order and what it is there, and the beta that
beta="auto" takes (by the bias that it measures, whatever the units) with what it reaches. Two figures say why a
beta is small or not: the condition number of the Jacobian at the free states, and how far the nudge moves a unit,
where units bend. Beside them stand ordinary EP, live gates of ReLUs, and a store of the free state that droops by
1e-6 between the two nudges. Gradients are of the examples whose phases all settle with held gates. Full scales are
set by training examples. The file holds a row an instance, kept as they come, and the same command goes on from
there. A median over fewer instances than the row has tells how many.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hardware_models import DeviceModel, map_pcn
from hardware_models.mapping.in_situ import InSitu
from hardware_models.mapping.mapped import Mapped
from physics_ep import relax
from physics_ep.blocks import State
from physics_ep.cost import CrossEntropy
from physics_ep.data.datasets import digits
from physics_ep.equilibrium import NotConverged
from physics_ep.errors import InputError
from physics_ep.estimators.methods import AsymmetryWarning
from physics_ep.estimators.step import Step
from physics_ep.extremes import greatest
from physics_ep.jacobians import Jacobian
from physics_ep.placement import threads
from physics_ep.predictive_coding import PredictiveCodingNetwork, mlp
from physics_ep.storage.outputs import write_json

from ..gradients import compare, total_error
from ..oracles import OracleError
from ..references import adaptation_gradient, of_equilibrium
from .tables import median, read_rows

SIZES = {3: (64, 32, 32, 10), 10: (64, *[24] * 9, 10)}
"""Layers of the networks, by depth."""
GAINS = {"tanh": 1.0, "relu": 6**0.5}
"""Gains of the weights that training begins with, as in `copies`."""
EPOCHS, BATCH, RATE = 40, 32, 2e-3
"""Training by backprop and Adam."""
TEST, EXAMPLES = 100, 8
"""Test examples whose free states are sought; and those of gradients, the first that have one."""
LEARNED, LEARNING_RATE = {3: 480, 10: 160}, {3: 0.01, 10: 0.001}
"""Training examples of the epoch in place and its rate, by depth (SGD with momentum 0.9).

At 0.01 exact gradients take the ideal networks of depth 10 from 11 to 22 % errors and more.
"""
DROOP = 1e-6
"""Share of itself that a stored free state loses between the two nudges."""
BETAS = (1e-3, 1e-4)
"""Stronger nudges than the first take deep networks beyond their stability limit."""
WEAK = (1e-4, 1e-5)
"""For the second array at depth 10: backprop has taught networks whose limit is 1.1e-4, and 8.1e-4."""
NORMS = (1.1, 2.0)
"""Spectral norms of the weights of a network near the identity, at most: between hidden layers, and the last."""
MEANT = 1e-6
"""1 - cosine that a beta is sought for."""
COST = CrossEntropy()
RECIPE = {
    "sizes": [list(sizes) for sizes in SIZES.values()],
    "gains": list(GAINS.values()),
    "training": [EPOCHS, BATCH, RATE],
    "examples": [TEST, EXAMPLES],
    "in_place": [*LEARNED.values(), *LEARNING_RATE.values()],
    "droop": DROOP,
    "betas": [*BETAS, *WEAK],
    "norms": list(NORMS),
    "calibration": "training examples",
}
"""What rows are made by, as a file tells it: rows of another recipe have no median with these."""


@dataclass(frozen=True)
class TrainedCase:
    """A network on devices.

    Attributes
    ----------
    activation : str
    depth : int
    told : str
        What errs.
    device : DeviceModel
    near : bool
        Whether the network learns near the identity.
    betas : tuple of float
    """

    activation: str
    depth: int
    told: str
    device: DeviceModel
    near: bool = False
    betas: tuple[float, float] = BETAS

    @property
    def network(self) -> str:
        """What the network is."""
        return f"{self.activation}{' near the identity' if self.near else ''} depth {self.depth}"

    @property
    def key(self) -> str:
        """By which rows are found again."""
        return f"{self.network}, {self.told}"


def cases() -> list[TrainedCase]:
    """Rows of the table."""
    found = []
    for depth in SIZES:
        for activation in GAINS:
            for size in (0.001, 0.01, 0.03):
                three = DeviceModel(copy_mismatch_h=size, copy_mismatch_u=size, copy_mismatch_transpose=size)
                found.append(TrainedCase(activation, depth, f"three copies {size:.1%}", three))
                if (activation, depth) == ("relu", 10):
                    found.append(TrainedCase(activation, depth, f"three copies {size:.1%}", three, near=True))
        second = DeviceModel(transpose="array", copy_mismatch_transpose=0.1)
        weak = BETAS if depth == 3 else WEAK
        found.append(TrainedCase("tanh", depth, "second array 10%", second, betas=weak))
    return found


def hold(weights: list[torch.nn.Parameter]) -> None:
    """Scale weights down to `NORMS`; the first ones are in no loop of arrays, and free."""
    with torch.no_grad():
        for k, w in enumerate(weights[1:]):
            most = NORMS[k == len(weights) - 2]
            w.mul_(min(1.0, most / float(torch.linalg.matrix_norm(w, 2))))


def trained(case: TrainedCase, x: torch.Tensor, y: torch.Tensor) -> PredictiveCodingNetwork:
    """A network that backprop has taught, float64."""
    net = mlp(list(SIZES[case.depth]), case.activation, gain=GAINS[case.activation], seed=0).double()
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
    weights = [p for p in net.parameters() if p.ndim == 2] if case.near else []
    with torch.no_grad():
        for w in weights[1:-1]:
            w.mul_(0.1).add_(torch.eye(len(w), dtype=w.dtype))
    hold(weights)
    for epoch in range(EPOCHS):
        for rows in torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch)).split(BATCH):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
            hold(weights)
    return net


def learned(mapped: Mapped, x: torch.Tensor, y: torch.Tensor, beta: float | str, rate: float) -> None:
    """Let the cells learn in place for an epoch by asymmetric EP; what does not settle is left out of a step."""
    learner = InSitu(mapped, lambda p: torch.optim.SGD(p, lr=rate, momentum=0.9), headroom=1.5)
    for rows in torch.randperm(len(x), generator=torch.Generator().manual_seed(0)).split(BATCH):
        learner.step(x[rows], y[rows], COST, beta, on_unconverged="skip", method="asymmetric")


def settling(mapped: Mapped, x: torch.Tensor, y: torch.Tensor, betas: tuple[float, float]) -> torch.Tensor:
    """Which examples (B,) have all phases of asymmetric EP at both betas."""
    used = torch.ones(len(x), dtype=torch.bool)
    for beta in (*betas, *betas):  # twice: what settles beside others need not settle without them
        _, step = mapped.estimate(x[used], y[used], COST, beta=beta, method="asymmetric", on_unconverged="skip")
        assert step.used is not None
        used[used.clone()] = step.used
    return used


def condition(mapped: Mapped, state: State, x: torch.Tensor) -> float:
    """Median over examples of the condition number of the Jacobian of the force at free states."""
    matrix = Jacobian(lambda s: mapped.system.slope(s, x), state).matrix
    return float(torch.linalg.cond(matrix).median())


def worst_gap(estimate: dict[str, torch.Tensor], exact: dict[str, torch.Tensor]) -> float:
    """1 - cosine of the worst tensor; NaN if any is."""
    return greatest(1 - row.cosine for row in compare(estimate, exact))


def exactness(mapped: Mapped, x: torch.Tensor, y: torch.Tensor, betas: tuple[float, float]) -> dict[str, float]:
    """How far estimates are from the implicit gradient of the physical network, on examples that settle."""
    used = settling(mapped, x, y, betas)
    x, y = x[used], y[used]
    exact = adaptation_gradient(mapped, x, y, COST)
    names = [name for name in exact if name.endswith("weight")]

    def estimated(beta: float | str, method: str, **options: Any) -> tuple[dict[str, torch.Tensor], Step]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AsymmetryWarning)
            return mapped.estimate(x, y, COST, beta=beta, method=method, **options)

    def found(beta: float, method: str, **options: Any) -> dict[str, torch.Tensor]:
        return estimated(beta, method, **options)[0]

    def gap(estimate: dict[str, torch.Tensor]) -> float:
        return worst_gap({n: estimate[n] for n in names}, {n: exact[n] for n in names})

    coarse, step = estimated(betas[0], "asymmetric")
    fine = found(betas[1], "asymmetric")
    # 1 - cosine goes as the square of the error, and the error as the square of beta.
    enough = min(betas[0], 0.9 * betas[1] * (MEANT / max(gap(fine), 1e-16)) ** 0.25)
    told = {
        "examples": len(x),
        "asymmetric": gap(coarse),
        "finer": gap(fine),
        "enough": enough,
        "at_enough": gap(found(enough, "asymmetric")) if enough < betas[0] else gap(coarse),
        "condition": condition(mapped, step.equilibria[0].state, x),
        "moved": greatest(float(d.abs().max()) for d in step.equilibria[1].displacement or ()),
        "order": math.log10(total_error(coarse, exact) / total_error(fine, exact)),
        "coarse": betas[0],
        "ordinary": math.nan,
        "droop": total_error(found(betas[0], "asymmetric", droop=DROOP), coarse),
    }
    with suppress(NotConverged):
        told["ordinary"] = gap(found(betas[0], "energy"))
    with suppress(NotConverged):
        automatic, step = estimated("auto", "asymmetric")
        told |= {"auto": gap(automatic), "auto_beta": step.beta, "auto_error": total_error(automatic, exact)}
    if mapped.system.has_gates:
        told["live"] = math.nan
        with suppress(NotConverged):
            told["live"] = gap(found(betas[0], "asymmetric", gates="live"))
    return told


def measured(case: TrainedCase, instance: int, net: PredictiveCodingNetwork, data: Any) -> dict[str, Any]:
    """A row: one device instance."""
    began = time.perf_counter()
    x, y = data.test_x[:TEST].flatten(1).double(), data.test_y[:TEST]
    with torch.no_grad():
        meant = float((net(x).argmax(1) != y).double().mean())
    mapped = map_pcn(net, "hopfield", case.device, instance, calibration=data.train_x[:TEST].flatten(1).double())
    free = relax(mapped.system, x)
    before = of_equilibrium(mapped, free, x, y)
    row: dict[str, Any] = {"key": case.key, "instance": instance, "meant": meant}
    row |= {"share": before.share, "error": before.error}
    kept = free.converged.nonzero().flatten()[:EXAMPLES]
    try:
        row |= exactness(mapped, x[kept], y[kept], case.betas)
    except (NotConverged, OracleError, InputError) as error:
        row["refused"] = str(error)[:200]
    count = LEARNED[case.depth]
    beta = case.betas[0] if case.betas == BETAS else "auto"
    learned(mapped, data.train_x[:count].flatten(1).double(), data.train_y[:count], beta, LEARNING_RATE[case.depth])
    after = of_equilibrium(mapped, relax(mapped.system, x), x, y)
    row |= {"share_after": after.share, "error_after": after.error}
    return row | {"seconds": time.perf_counter() - began}


def read(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a table that was begun.

    Raises
    ------
    InputError
        If it is damaged, something else, or of another recipe.
    """
    return read_rows(path, "trained copies", ("key", "instance"), {"recipe": RECIPE})


def median_of(rows: Sequence[dict[str, Any]], name: str, form: str) -> str:
    """Median of a quantity over the rows that have it, with their number where some lack it; 'none' of none."""
    return median([row.get(name) for row in rows], form)


def table(rows: list[dict[str, Any]]) -> str:
    """A Markdown row a case: medians over its instances."""
    lines = [
        "| network | what errs | instances | with gradients | beta | 1 - cos | at a tenth | order | beta for 1e-6 "
        "| 1 - cos there | beta auto | 1 - cos | condition | moved | live gates | 1 - cos, ordinary | droop 1e-6 "
        "| stable free states | test error | stable, after learning in place | test error |",
        "|" + "---|" * 21,
    ]
    for case in cases():
        own = [row for row in rows if row["key"] == case.key]
        if not own:
            continue

        def middle(name: str, form: str, own: list[dict[str, Any]] = own) -> str:
            return median_of(own, name, form)

        cells = [
            case.network,
            case.told,
            str(len(own)),
            str(sum("asymmetric" in row for row in own)),
            f"{case.betas[0]:.0e}",
            middle("asymmetric", "{:.0e}"),
            middle("finer", "{:.0e}"),
            middle("order", "{:.2f}"),
            middle("enough", "{:.1e}"),
            middle("at_enough", "{:.0e}"),
            middle("auto_beta", "{:.1e}"),
            middle("auto", "{:.0e}"),
            middle("condition", "{:.0e}"),
            middle("moved", "{:.0e}"),
            middle("live", "{:.0e}") if case.activation == "relu" else "",
            middle("ordinary", "{:.0e}"),
            middle("droop", "{:.0e}"),
            *(middle(n, "{:.0%}") for n in ("share", "error", "share_after", "error_after")),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(words: list[str] | None = None) -> None:
    """Measure the table of trained copies by the options of its command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--instances", type=int, default=3)
    parser.add_argument("--only", default="", help="text that is in the key of a row: 'ACTIVATION depth N, WHAT'")
    parser.add_argument("--table", action="store_true", help="print the table of what is there, and stop")
    asked = parser.parse_args(words)
    try:
        rows = read(asked.out) if asked.out.exists() else []
    except InputError as error:
        sys.exit(f"trained_copies: {error}")
    if not asked.table:
        data = digits()
        nets: dict[str, PredictiveCodingNetwork] = {}
        done = {(row["key"], row["instance"]) for row in rows}
        with threads(1):
            for instance in range(asked.instances):
                for case in cases():
                    if asked.only not in case.key or (case.key, instance) in done:
                        continue
                    if case.network not in nets:
                        x, y = data.train_x.flatten(1).double(), data.train_y
                        nets[case.network] = trained(case, x, y)
                    rows.append(measured(case, instance, nets[case.network], data))
                    write_json(asked.out, {"recipe": RECIPE, "rows": rows})
                    print(json.dumps(rows[-1]), flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
