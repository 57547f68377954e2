"""A small residual network with batch norm in training mode, trained by EP and by backprop; and what batches do.

    python -m validation.experiments.batch_statistics twins.json --seeds 5 --data DIR

Twins have the same initial weights, see the same batches in the same order, and differ in nothing but where the
gradient comes from. In training mode the batch is one system: it has one lambda, one residual and one K.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from physics_ep.config import DataSection
from physics_ep.cost import CrossEntropy
from physics_ep.data.datasets import Dataset, load_dataset
from physics_ep.estimators.propagation import EquilibriumPropagation, estimate_gradient
from physics_ep.extremes import greatest, least
from physics_ep.placement import threads
from physics_ep.predictive_coding import from_module
from physics_ep.system import EnergySystem

from ..agreement import interval
from ..gradients import compare, total_error
from ..oracles import backprop_gradient

COST = CrossEntropy()
BATCHES = (8, 32, 128)
"""Sizes of batches at which lambda is measured."""


class ResidualBlock(nn.Module):
    """The basic block of ResNets (He et al. 2016), its shortcut a convolution where the shape changes."""

    def __init__(self, below: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(below, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or below != width:
            self.shortcut = nn.Sequential(nn.Conv2d(below, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(h)) + self.shortcut(x))


def small_resnet(width: int = 32, channels: int = 1, classes: int = 10) -> nn.Module:
    """A residual network of three blocks, of 308 074 parameters at the default width; its stem has stride 2."""
    blocks = [ResidualBlock(width << max(k - 1, 0), width << k, 1 if k == 0 else 2) for k in range(3)]
    return nn.Sequential(
        *(nn.Conv2d(channels, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
        *blocks,
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width << 2, classes)),
    )


def train_twins(
    data: Dataset,
    seed: int,
    *,
    epochs: int = 2,
    examples: int | None = None,
    width: int = 32,
    batch: int = 64,
    lr: float = 0.05,
    momentum: float = 0.9,
    look_every: int = 50,
    measures: bool = True,
) -> dict[str, Any]:
    """Train two copies of one network, by EP and by backprop.

    Parameters
    ----------
    data : Dataset
        Images.
    seed : int
        Seed of the initial weights and of the order of the batches, which both share.
    epochs : int
    examples : int, optional
        Training images to use, the first; default all.
    width : int
        Channels of the first layer.
    batch : int
    lr, momentum : float
        Learning rate and momentum of SGD; the rate falls to 0 along half a cosine.
    look_every : int
        Steps between comparisons of EP's gradient with backprop's, at the weights that EP has found.
    measures : bool
        Whether to measure `responses` before and after.

    Returns
    -------
    dict
        `seed`, `ep` and `backprop` (test errors, fractions), `steps` (each with `step`, `beta`, `lambda`, `K`,
        `residual`, `loss`), `looks` (`step`, `cosine` of the worst tensor, `relative_error` of the whole
        gradient), `responses` at the start and at the end (see `responses`), `seconds`.
    """
    begun = time.process_time()
    torch.manual_seed(seed)
    model = small_resnet(width, data.train_x.shape[1], data.n_outputs).train()
    train_x, train_y = data.train_x[:examples], data.train_y[:examples]
    net = from_module(model, train_x[:2])
    twin = copy.deepcopy(model)
    ep = EquilibriumPropagation(COST, beta="auto")
    steps: list[dict[str, float]] = []
    looks: list[dict[str, float]] = []
    early = responses(net, train_x, train_y) if measures else []

    def by_ep(x: torch.Tensor, y: torch.Tensor) -> None:
        if len(steps) % look_every == 0:
            looks.append({"step": len(steps), **_look(ep, net, x, y)})
        step = ep.backward(net, x, y)
        nudged = step.equilibria[1:]
        steps.append(
            {
                "step": len(steps),
                "beta": step.beta,
                "lambda": 1 / ep.stability_limit,
                "K": max(e.iterations for e in nudged),
                "residual": greatest(float(e.residual.max()) for e in nudged),
                "loss": float(step.loss),
            }
        )

    def by_backprop(x: torch.Tensor, y: torch.Tensor) -> None:
        COST(twin(x), y).mean().backward()

    ways: tuple[tuple[nn.Module, Callable[[torch.Tensor, torch.Tensor], None]], ...] = (
        (net, by_ep),
        (twin, by_backprop),
    )
    order = torch.Generator().manual_seed(seed)
    optimizers = [torch.optim.SGD(m.parameters(), lr, momentum, weight_decay=5e-4) for m, _ in ways]
    count = len(train_x) // batch
    schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(o, epochs * count) for o in optimizers]
    for _ in range(epochs):
        for rows in torch.randperm(len(train_x), generator=order)[: count * batch].view(count, batch):
            x, y = train_x[rows], train_y[rows]
            for (_, backward), optimizer, schedule in zip(ways, optimizers, schedules, strict=True):
                optimizer.zero_grad(set_to_none=True)
                backward(x, y)
                optimizer.step()
                schedule.step()
    return {
        "seed": seed,
        "ep": _test_error(net, data),
        "backprop": _test_error(twin, data),
        "steps": steps,
        "looks": looks,
        "responses": {"before": early, "after": responses(net, train_x, train_y) if measures else []},
        "seconds": time.process_time() - begun,
    }


def responses(net: EnergySystem, x: torch.Tensor, y: torch.Tensor) -> list[dict[str, Any]]:
    """Lambda, the automatic beta, its bias, K and residual in both modes over the size of the batch.

    Parameters
    ----------
    net : EnergySystem
        Left in training mode, its running statistics as they were.
    x, y : Tensor
        Examples and targets; the first ones are taken.

    Returns
    -------
    list of dict
        `mode` ('train' or 'eval'), `batch`, `lambda`, `beta`, `bias`, `K`, `residual`, and `cosine` of the worst
        tensor to backprop.
    """
    rows = []
    for mode in ("train", "eval"):
        for size in BATCHES:
            own = copy.deepcopy(net).train(mode == "train")
            ep = EquilibriumPropagation(COST, beta="auto")
            look = _look(ep, own, x[:size], y[:size])
            told = {"lambda": 1 / ep.stability_limit, "beta": ep.beta, "bias": ep.bias}
            rows.append({"mode": mode, "batch": size, **told, **look})
    return rows


def paired(results: list[dict[str, Any]]) -> tuple[float, float, float]:
    """Mean difference of the test errors, EP less backprop, in points, and its 95 % interval (Student's t)."""
    apart = np.array([100 * (r["ep"] - r["backprop"]) for r in results])
    low, high = interval(apart)
    return float(apart.mean()), low, high


def _look(ep: EquilibriumPropagation, net: EnergySystem, x: torch.Tensor, y: torch.Tensor) -> dict[str, float]:
    """EP's gradient at the present weights beside backprop's."""
    found, step = estimate_gradient(ep, net, x, y)
    exact = backprop_gradient(net, x, y, COST)
    rows = compare(found, exact)
    nudged = step.equilibria[1:]
    return {
        "cosine": least(row.cosine for row in rows if not row.zero),
        "relative_error": total_error(found, exact),
        "K": max(e.iterations for e in nudged),
        "residual": greatest(float(e.residual.max()) for e in nudged),
    }


def _test_error(model: nn.Module, data: Dataset) -> float:
    """Share of the test images that a network classifies wrongly in evaluation mode."""
    model.eval()
    with torch.no_grad():
        parts = zip(data.test_x.split(500), data.test_y.split(500), strict=True)
        wrong = sum(int((model(x).argmax(1) != y).sum()) for x, y in parts)
    model.train()
    return wrong / len(data.test_y)


def main() -> None:
    """Train seed after seed, and write what is known after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--examples", type=int)
    parser.add_argument("--dataset", default="mnist", choices=("mnist", "digits"))
    parser.add_argument("--data", default=None, help="folder of MNIST's files")
    told = parser.parse_args()
    data = load_dataset(DataSection(name=told.dataset, layout="image", folder=told.data))
    results: list[dict[str, Any]] = []
    with threads(1):
        for seed in range(told.seeds):
            found = train_twins(data, seed, epochs=told.epochs, examples=told.examples, measures=seed == 0)
            results.append(found)
            told.out.write_text(json.dumps(results))
            last = results[-1]
            print(f"seed {seed}: EP {last['ep']:.2%}, backprop {last['backprop']:.2%}, {last['seconds']:.0f} s")
            if len(results) > 1:
                print("EP less backprop, points: {:.2f} ({:.2f} to {:.2f})".format(*paired(results)), flush=True)


if __name__ == "__main__":
    main()
