"""MNIST on a network with separate forward and backward weights: asymmetric EP, the vector field, exact gradients.

    python -m validation.experiments.separate_weights results.json --data DIR --seeds 3 [--images N] [--epochs N]
    python -m validation.experiments.separate_weights results.json --table

Trains the bundled config `recurrent-mnist` by each way with the same initial weights, the same batches in the same
order and the same optimizer; only the gradient differs. Free states that are unstable where EP looks at stability
(every 200 steps) are left out and counted, and stop no training; exact gradients do not look. The file holds a
training a row, and the same command goes on from there; its table is of the trainings with the options given. Exact
gradients are those of implicit differentiation: one hidden layer leaves a linear system of as many equations as
there are outputs for each example.

Scurria, Vanden Abeele, Mognetti and Massar (2026, arXiv 2602.03670) report that asymmetric EP reaches at least the
accuracy of vector-field EP, and in fewer epochs.
"""

from __future__ import annotations

import argparse
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hardware_models import RecurrentNetwork
from physics_ep import relax
from physics_ep.config import load_config
from physics_ep.cost import Cost
from physics_ep.errors import InputError
from physics_ep.estimators.methods import AsymmetryWarning
from physics_ep.runs.training import TrainingResult, train
from physics_ep.storage.outputs import write_json
from physics_ep.units import torch_functions

from ..agreement import interval
from .exact_training import ExactStep

CONFIG = "recurrent-mnist"
WAYS = ("exact", "asymmetric", "vector-field")
"""Exact gradients, and the methods of EP."""


def exact_backward(cost: Cost) -> Callable[..., ExactStep]:
    """A `backward(system, x, y)` for a `RecurrentNetwork` of one hidden layer that fills `.grad` exactly.

    At the free state h = F x + B o + b and o = G v + c with v = sigma(h). The adjoints l of outputs and k of hidden
    units solve l = dC/do + B^T k and k = sigma'(h) G^T l; parameters have their products with x, o and v. Examples
    whose free state is not found are left out and counted, as EP leaves them out.
    """

    @torch.no_grad()
    def backward(system: RecurrentNetwork, x: torch.Tensor, y: torch.Tensor) -> ExactStep:
        free = relax(system, x)
        found = free.converged
        x, y = x[found], y[found]
        hidden, out = (block[found] for block in free.state)
        above, below = system.forward_weight[1], system.backward_weight[0]
        unit = torch_functions(system.activation)
        steep, v = unit.slope(hidden), unit.response(hidden)
        loop = torch.einsum("ki,bk,jk->bij", below, steep, above)
        eye = torch.eye(out.shape[1], dtype=out.dtype)
        at_out = torch.linalg.solve(eye - loop, cost.gradient(out, y) / len(x))
        at_hidden = steep * (at_out @ above)
        slopes = {
            "forward_weight.0": at_hidden.T @ x,
            "forward_weight.1": at_out.T @ v,
            "backward_weight.0": at_hidden.T @ out,
            "bias.0": at_hidden.sum(0),
            "bias.1": at_out.sum(0),
        }
        for name, p in system.named_parameters():
            p.grad = slopes[name] if p.grad is None else p.grad + slopes[name]
        return ExactStep(loss=cost(out, y).mean(), outputs=free.state[1], skipped=int((~found).sum()))

    return backward


def train_by(way: str, seed: int, overrides: tuple[str, ...] = (), data: str | None = None) -> dict[str, Any]:
    """One training of the config by one of `WAYS`.

    Parameters
    ----------
    way : str
    seed : int
        Seed of the initial weights and of the order of examples.
    overrides : tuple of str
        'section.key=value', as of `physics_ep.train`.
    data : str, optional
        Folder with the data.

    Returns
    -------
    dict
        The way, the seed, test and training errors of each epoch as fractions, examples skipped and seconds.
    """
    chosen = (*overrides, f"system.seed={seed}", f"training.seed={seed}", "training.max_skipped=1")
    if way != "exact":
        chosen = (*chosen, f"ep.method={way}")
    backward = exact_backward(load_config(CONFIG, chosen).ep.new_cost()) if way == "exact" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AsymmetryWarning)
        found = train(CONFIG, overrides=chosen, backward=backward, data=data)
    assert isinstance(found, TrainingResult)
    return {
        "way": way,
        "seed": seed,
        "overrides": list(overrides),
        "test_error": found.metrics["test_error"].tolist(),
        "train_error": found.metrics["train_error"].tolist(),
        "skipped": int(np.sum(found.metrics["skipped"])),
        "seconds": found.seconds,
    }


FEWEST = 3
"""Seeds from which on a difference has an interval: that of two, 12.7 standard errors either way, holds all."""


def compared(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds of each way's test errors in percent, and paired differences from asymmetric EP.

    Parameters
    ----------
    rows : list of dict
        Trainings of one recipe, as of `train_by`: one a way and seed.

    Returns
    -------
    dict
        'curves': way to the mean of each epoch; 'differences': way to (mean, low, high) of its test error less
        that of asymmetric EP, over seeds that have both, with the 95 % interval of Student's t, NaN of fewer than
        `FEWEST` seeds; 'seeds', 'pairs': how many seeds each way and each difference has.

    Raises
    ------
    InputError
        If two rows are of one way and seed: they are of two recipes, which have no mean.
    """
    if len({(row["way"], row["seed"]) for row in rows}) < len(rows):
        raise InputError("Argument rows must be of one recipe, but two are of one way and seed.")
    last: dict[str, dict[int, list[float]]] = {way: {} for way in WAYS}
    for row in rows:
        last[row["way"]][row["seed"]] = row["test_error"]
    curves = {way: (100 * np.mean(list(found.values()), axis=0)).tolist() for way, found in last.items() if found}
    differences: dict[str, dict[str, tuple[float, float, float]]] = {}
    pairs: dict[str, int] = {}
    for way in WAYS:
        both = sorted(last[way].keys() & last["asymmetric"].keys())
        if way == "asymmetric" or not both:
            continue
        apart = 100 * np.array([np.subtract(last[way][s], last["asymmetric"][s]) for s in both])
        told = {"last epoch": apart[:, -1], "mean over epochs": apart.mean(1)}
        ends = interval if len(both) >= FEWEST else lambda _: (math.nan, math.nan)
        differences[way] = {name: (float(d.mean()), *ends(d)) for name, d in told.items()}
        pairs[way] = len(both)
    seeds = {way: len(found) for way, found in last.items()}
    return {"curves": curves, "differences": differences, "seeds": seeds, "pairs": pairs}


def table(rows: list[dict[str, Any]]) -> str:
    """The comparison as a Markdown table: test errors in percent by epochs, training errors after the last one and
    examples left out, means over seeds; paired differences below.
    """
    if not rows:
        return "no training with these options"
    found = compared(rows)
    longest = max(len(curve) for curve in found["curves"].values())
    lines = [
        "| gradients | seeds | "
        + " | ".join(f"epoch {k}" for k in range(1, longest + 1))
        + " | training error | left out |",
        "|" + "---|" * (longest + 4),
    ]
    for way, curve in found["curves"].items():
        own = [row for row in rows if row["way"] == way]
        trained, left_out = ([row["train_error"][-1] for row in own], [row["skipped"] for row in own])
        beside = f"{100 * np.mean(trained):.2f} | {np.mean(left_out):g}"
        cells = " | ".join(f"{e:.2f}" for e in curve)
        lines.append(f"| {way} | {found['seeds'][way]} | {cells} | {beside} |")
    lines.append("")
    for way, told in found["differences"].items():
        for name, (mean, low, high) in told.items():
            span = f"95 % interval {low:+.2f} to {high:+.2f}, {found['pairs'][way]} pairs"
            few = f"{found['pairs'][way]} of the {FEWEST} pairs that an interval needs"
            lines.append(f"{way} less asymmetric, {name}: {mean:+.2f} % ({few if math.isnan(low) else span})")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--batch", type=int, help="examples a step; default the config's")
    parser.add_argument("--test", type=int, help="test images; default all")
    parser.add_argument("--table", action="store_true", help="print the table of what is there, and stop")
    asked = parser.parse_args()
    rows = json.loads(asked.out.read_text())["trainings"] if asked.out.exists() else []
    given = {
        "data.train_examples": asked.images,
        "data.test_examples": asked.test,
        "training.epochs": asked.epochs,
        "training.batch_size": asked.batch,
    }
    overrides = tuple(f"{key}={value}" for key, value in given.items() if value is not None)
    if not asked.table:
        known = {(row["way"], row["seed"]) for row in rows if row["overrides"] == list(overrides)}
        for seed in range(asked.seeds):
            for way in WAYS:
                if (way, seed) not in known:
                    rows.append(train_by(way, seed, overrides, asked.data))
                    write_json(asked.out, {"trainings": rows})
                    print(json.dumps(rows[-1]), flush=True)
    print(table([row for row in rows if row["overrides"] == list(overrides)]))


if __name__ == "__main__":
    main()
