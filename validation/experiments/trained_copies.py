"""Asymmetric EP on trained networks whose arrays err apart: how exact it is, and what learning in place gives.

    python -m validation.experiments.trained_copies results.json [--instances 3] [--only TEXT] [--table]

Networks of depth 3 (64-32-32-10) and 10 (64, nine layers of 24, 10) learn the 8x8 digits by backprop. Each is put
on devices whose arrays differ. Told are the share of test examples that have a stable free state, their test error
before and after an epoch of learning in place by asymmetric EP, and how far gradients are from implicit
differentiation of that physical network (`adaptation_gradient`): 1 - cosine of the worst weights at beta 1e-3 and
1e-4, the order of the error between them, and the beta that brings the cosine to 1e-6 of 1 by that order, tried.
Two figures say why a beta is small or not: the condition number of the Jacobian at the free states, and how far
the nudge moves a unit, where units bend. Beside them stand ordinary EP, live gates of ReLUs, and a store of the
free state that droops by 1e-6 between the two nudges. Gradients are of the examples whose phases all settle with
held gates. The file holds a row an instance, kept as they come, and the same command goes on from there.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
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
from physics_ep.jacobians import Jacobian
from physics_ep.placement import threads
from physics_ep.predictive_coding import PredictiveCodingNetwork, mlp
from physics_ep.storage.outputs import write_json

from ..gradients import compare, total_error
from ..oracles import OracleError
from ..references import adaptation_gradient, of_equilibrium

SIZES = {3: (64, 32, 32, 10), 10: (64, *[24] * 9, 10)}
"""Layers of the networks, by depth."""
GAINS = {"tanh": 1.0, "relu": 6**0.5}
"""Gains of the weights that training begins with, as in `copies`."""
EPOCHS, BATCH, RATE = 40, 32, 2e-3
"""Training by backprop and Adam."""
TEST, EXAMPLES = 100, 8
"""Test examples whose free states are sought; and those of gradients, the first that have one."""
LEARNED, LEARNING_RATE = {3: 480, 10: 160}, 0.01
"""Training examples of the epoch in place, by depth, and its rate (SGD with momentum 0.9)."""
DROOP = 1e-6
"""Share of itself that a stored free state loses between the two nudges."""
BETAS = (1e-3, 1e-4)
"""Stronger nudges than the first take deep networks beyond their stability limit."""
MEANT = 1e-6
"""1 - cosine that a beta is sought for."""
COST = CrossEntropy()


@dataclass(frozen=True)
class TrainedCase:
    """A trained network written into devices whose copies differ.

    Attributes
    ----------
    activation : str
    depth : int
    told : str
        What errs.
    device : DeviceModel
    """

    activation: str
    depth: int
    told: str
    device: DeviceModel

    @property
    def key(self) -> str:
        """The text by which rows of this case are found again in the results."""
        return f"{self.activation} depth {self.depth}, {self.told}"


def cases() -> list[TrainedCase]:
    """The rows of the experiment's table."""
    found = []
    for depth in SIZES:
        for activation in GAINS:
            for size in (0.001, 0.01, 0.03):
                three = DeviceModel(copy_mismatch_h=size, copy_mismatch_u=size, copy_mismatch_transpose=size)
                found.append(TrainedCase(activation, depth, f"three copies {size:.1%}", three))
        second = DeviceModel(transpose="array", copy_mismatch_transpose=0.1)
        found.append(TrainedCase("tanh", depth, "second array 10%", second))
    return found


def trained(activation: str, depth: int, x: torch.Tensor, y: torch.Tensor) -> PredictiveCodingNetwork:
    """A network that backprop has taught, float64."""
    net = mlp(list(SIZES[depth]), activation, gain=GAINS[activation], seed=0).double()
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
    for epoch in range(EPOCHS):
        for rows in torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch)).split(BATCH):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
    return net


def learned(mapped: Mapped, x: torch.Tensor, y: torch.Tensor) -> None:
    """Let the cells learn in place for an epoch by asymmetric EP; what does not settle is left out of a step."""
    learner = InSitu(mapped, lambda p: torch.optim.SGD(p, lr=LEARNING_RATE, momentum=0.9), headroom=1.5)
    for rows in torch.randperm(len(x), generator=torch.Generator().manual_seed(0)).split(BATCH):
        learner.step(x[rows], y[rows], COST, BETAS[0], on_unconverged="skip", method="asymmetric")


def settling(mapped: Mapped, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Which examples (B,) have all phases of asymmetric EP at both betas."""
    used = torch.ones(len(x), dtype=torch.bool)
    for beta in BETAS:
        _, step = mapped.estimate(x, y, COST, beta=beta, method="asymmetric", on_unconverged="skip")
        assert step.used is not None
        used &= step.used
    return used


def condition(mapped: Mapped, state: State, x: torch.Tensor) -> float:
    """Median over examples of the condition number of the Jacobian of the force at free states."""
    matrix = Jacobian(lambda s: mapped.system.slope(s, x), state).matrix
    return float(torch.linalg.cond(matrix).median())


def exactness(mapped: Mapped, x: torch.Tensor, y: torch.Tensor) -> dict[str, float]:
    """How far estimates are from the implicit gradient of the physical network, on examples that settle."""
    used = settling(mapped, x, y)
    x, y = x[used], y[used]
    exact = adaptation_gradient(mapped, x, y, COST)
    names = [name for name in exact if name.endswith("weight")]

    def estimated(beta: float, method: str, **options: Any) -> tuple[dict[str, torch.Tensor], Step]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AsymmetryWarning)
            return mapped.estimate(x, y, COST, beta=beta, method=method, **options)

    def found(beta: float, method: str, **options: Any) -> dict[str, torch.Tensor]:
        return estimated(beta, method, **options)[0]

    def gap(estimate: dict[str, torch.Tensor]) -> float:
        rows = compare({n: estimate[n] for n in names}, {n: exact[n] for n in names})
        return max(1 - row.cosine for row in rows)

    coarse, step = estimated(BETAS[0], "asymmetric")
    fine = found(BETAS[1], "asymmetric")
    # 1 - cosine goes as the square of the error, and the error as the square of beta.
    enough = min(BETAS[0], 0.9 * BETAS[1] * (MEANT / max(gap(fine), 1e-16)) ** 0.25)
    told = {
        "examples": len(x),
        "asymmetric": gap(coarse),
        "finer": gap(fine),
        "enough": enough,
        "at_enough": gap(found(enough, "asymmetric")) if enough < BETAS[0] else gap(coarse),
        "condition": condition(mapped, step.equilibria[0].state, x),
        "moved": max(float(d.abs().max()) for d in step.equilibria[1].displacement or ()),
        "order": math.log10(total_error(coarse, exact) / total_error(fine, exact)),
        "ordinary": math.nan,
        "droop": total_error(found(1e-3, "asymmetric", droop=DROOP), coarse),
    }
    with suppress(NotConverged):
        told["ordinary"] = gap(found(1e-3, "energy"))
    if mapped.system.has_gates:
        told["live"] = math.nan
        with suppress(NotConverged):
            told["live"] = gap(found(1e-3, "asymmetric", gates="live"))
    return told


def measured(case: TrainedCase, instance: int, net: PredictiveCodingNetwork, data: Any) -> dict[str, Any]:
    """A row: one device instance."""
    began = time.perf_counter()
    x, y = data.test_x[:TEST].flatten(1).double(), data.test_y[:TEST]
    with torch.no_grad():
        meant = float((net(x).argmax(1) != y).double().mean())
    mapped = map_pcn(net, "hopfield", case.device, instance, calibration=x)
    free = relax(mapped.system, x)
    before = of_equilibrium(mapped, free, x, y)
    row: dict[str, Any] = {"key": case.key, "instance": instance, "meant": meant}
    row |= {"share": before.share, "error": before.error}
    kept = free.converged.nonzero().flatten()[:EXAMPLES]
    try:
        row |= exactness(mapped, x[kept], y[kept])
    except (NotConverged, OracleError, InputError) as error:
        row["refused"] = str(error)[:200]
    count = LEARNED[case.depth]
    learned(mapped, data.train_x[:count].flatten(1).double(), data.train_y[:count])
    after = of_equilibrium(mapped, relax(mapped.system, x), x, y)
    row |= {"share_after": after.share, "error_after": after.error}
    return row | {"seconds": time.perf_counter() - began}


def table(rows: list[dict[str, Any]]) -> str:
    """A Markdown row a case: medians over its instances."""
    lines = [
        "| network | what errs | instances | examples | 1 - cos, beta 1e-3 | 1e-4 | order | beta for 1e-6 "
        "| condition | moved | live gates | 1 - cos, ordinary | droop 1e-6 | stable free states | test error "
        "| stable, after learning in place | test error |",
        "|" + "---|" * 17,
    ]
    for case in cases():
        own = [row for row in rows if row["key"] == case.key]
        if not own:
            continue

        def middle(name: str, form: str, own: list[dict[str, Any]] = own) -> str:
            there = [row[name] for row in own if row.get(name) is not None]
            return form.format(np.median(there)) if there else "none"

        cells = [
            f"{case.activation}, depth {case.depth}",
            case.told,
            str(len(own)),
            middle("examples", "{:.0f}"),
            middle("asymmetric", "{:.0e}"),
            middle("finer", "{:.0e}"),
            middle("order", "{:.2f}"),
            middle("enough", "{:.1e}"),
            middle("condition", "{:.0e}"),
            middle("moved", "{:.0e}"),
            middle("live", "{:.0e}") if case.activation == "relu" else "",
            middle("ordinary", "{:.0e}"),
            middle("droop", "{:.0e}"),
            *(middle(n, "{:.0%}") for n in ("share", "error", "share_after", "error_after")),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--instances", type=int, default=3)
    parser.add_argument("--only", default="", help="text that is in the key of a row: 'ACTIVATION depth N, WHAT'")
    parser.add_argument("--table", action="store_true", help="print the table of what is there, and stop")
    asked = parser.parse_args()
    rows = json.loads(asked.out.read_text())["rows"] if asked.out.exists() else []
    if not asked.table:
        data = digits()
        nets: dict[tuple[str, int], PredictiveCodingNetwork] = {}
        done = {(row["key"], row["instance"]) for row in rows}
        with threads(1):
            for instance in range(asked.instances):
                for case in cases():
                    if asked.only not in case.key or (case.key, instance) in done:
                        continue
                    which = (case.activation, case.depth)
                    if which not in nets:
                        x, y = data.train_x.flatten(1).double(), data.train_y
                        nets[which] = trained(*which, x, y)
                    rows.append(measured(case, instance, nets[which], data))
                    write_json(asked.out, {"rows": rows})
                    print(json.dumps(rows[-1]), flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
