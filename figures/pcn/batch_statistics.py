"""Batch norm in training mode: lambda over the batch, EP's gradient as it trains, and twins' test errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from physics_ep.data.datasets import digits
from physics_ep.progress import SILENT, Progress
from validation.experiments.batch_statistics import train_twins

from .. import style
from ..requests import Drawn, Request, refuse_run

WIDTH, SEEDS, EPOCHS = 8, 3, 4
"""Size of the figure's network and training: a sixteenth of the experiment's weights, which takes seconds."""
MODES = (("train", "statistics of the batch"), ("eval", "running statistics"))


@dataclass(frozen=True)
class BatchStatistics:
    """Data of the figure of batch statistics: a network and its twins.

    Attributes
    ----------
    batches : ndarray (N,)
        Sizes of batches.
    responses : dict of str to ndarray (N,)
        'train before', 'eval after' and the like, to lambda.
    steps : ndarray (L,)
        Steps at which EP's gradient was compared with backprop's, of the first seed.
    error, residual : ndarray (L,)
        Relative error of its whole gradient, and the worst residual of its phases.
    ep, backprop : ndarray (S,)
        Test errors, in percent.
    """

    batches: np.ndarray
    responses: dict[str, np.ndarray]
    steps: np.ndarray
    error: np.ndarray
    residual: np.ndarray
    ep: np.ndarray
    backprop: np.ndarray


def batch_statistics(results: Sequence[dict[str, Any]]) -> BatchStatistics:
    """Sort what `train_twins` has told of several seeds; the first has its responses measured."""
    first = results[0]
    batches = sorted({row["batch"] for row in first["responses"]["before"]})
    lambdas = {
        f"{mode} {when}": np.array([row["lambda"] for row in first["responses"][when] if row["mode"] == mode])
        for mode, _ in MODES
        for when in ("before", "after")
    }
    looks = first["looks"]
    return BatchStatistics(
        batches=np.array(batches),
        responses=lambdas,
        steps=np.array([look["step"] for look in looks]),
        error=np.array([look["relative_error"] for look in looks]),
        residual=np.array([look["residual"] for look in looks]),
        ep=np.array([100 * r["ep"] for r in results]),
        backprop=np.array([100 * r["backprop"] for r in results]),
    )


def train_small(seed: int = 0, progress: Progress = SILENT) -> BatchStatistics:
    """Twins at a small width on the 8x8 digits."""
    data, results = digits(), []
    with progress.task("figure: batch statistics", SEEDS) as advance:
        for k in range(SEEDS):
            options = {"epochs": EPOCHS, "width": WIDTH, "look_every": 10, "measures": k == 0}
            results.append(train_twins(data, seed + k, **options))  # type: ignore[arg-type]
            advance(1)
    return batch_statistics(results)


@style.drawing
def draw_batch_statistics(data: BatchStatistics) -> Figure:
    """Panels: lambda over the batch; error and residual over the steps; test errors of twins."""
    figure, ((left, middle, right),) = style.new_figure(style.PAGE, 62, 1, 3)
    for k, (name, values) in enumerate(data.responses.items()):
        mode, _, when = name.partition(" ")
        label = f"{dict(MODES)[mode]}, {'new' if when == 'before' else 'trained'}"
        style.series(k).plot(left, data.batches, values, label=label)
    left.set_xscale("log", base=2)
    left.set_yscale("log")
    left.set_xlabel("Size of the batch (examples)")
    left.set_ylabel("Curvature limit $\\lambda$ (dimensionless)")
    style.series(0).plot(middle, data.steps, data.error, label="relative error of the gradient")
    style.series(1).plot(middle, data.steps, data.residual, label="residual")
    middle.set_yscale("log")
    middle.set_xlabel("Step of training (number)")
    middle.set_ylabel("Error, residual (dimensionless)")
    both = np.concatenate([data.ep, data.backprop])
    ends = [both.min() - 0.5, both.max() + 0.5]
    right.plot(ends, ends, color=style.GREY, lw=0.8, ls=(0, (4, 2)), label="equal")
    style.series(0).plot(right, data.backprop, data.ep, linestyle="none", label="a seed")
    right.set_xlabel("Test error of backprop (%)")
    right.set_ylabel("Test error of EP (%)")
    for ax in (left, middle, right):
        style.legend(ax)
    return figure


def make_batch_statistics(request: Request) -> Drawn:
    """Twins at a small width, trained now."""
    refuse_run(request, "batch_statistics", "networks that it trains itself")
    data = train_small(request.seed, request.progress)
    return Drawn(draw_batch_statistics(data), asdict(data))
