"""How a training went, out of its run file."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from physics_ep.config import Config, parse_config
from physics_ep.errors import argument_error
from physics_ep.physical_system import PhysicalSystem
from physics_ep.runs.preparation import system_of
from physics_ep.runs.training import train
from physics_ep.storage.opening import open_run
from physics_ep.storage.run_file import Run

from .. import style
from ..requests import Drawn, Request


@dataclass(frozen=True)
class LearningCurve:
    """Metrics of each epoch, and what its equilibria were held to.

    Attributes
    ----------
    label : str
        System and data.
    train_error, test_error : ndarray (epochs,)
        Misclassified fraction: of the training set during, of the test set after the epoch.
    loss : ndarray (epochs,)
        Mean cost of the free states.
    worst_residual, median_residual : ndarray (epochs,)
        Largest and median residual over the equilibria of all phases that gave gradients. Dimensionless.
    tolerance : float
        Tolerance of the free phases; nudged phases are held to it times beta.
    free_iterations, nudged_iterations : ndarray (epochs,)
        Mean iterations of a phase.
    skipped : ndarray (epochs,)
        Examples left out for want of an equilibrium.
    validation_error : ndarray (epochs,) or None
        Misclassified fraction of the examples held out, where some were: the test set is read once then, and
        `test_error` is NaN but for the epoch that is kept.
    judged_loss : ndarray (epochs,) or None
        Mean cost of the examples held out, or else of the test set, where targets are measured and there are no
        errors; else NaN.
    judged_r2 : ndarray (epochs, n) or None
        R2 of the same examples for each measured target; None of runs of earlier releases.
    """

    label: str
    train_error: np.ndarray
    test_error: np.ndarray
    loss: np.ndarray
    worst_residual: np.ndarray
    median_residual: np.ndarray
    tolerance: float
    free_iterations: np.ndarray
    nudged_iterations: np.ndarray
    skipped: np.ndarray
    validation_error: np.ndarray | None = None
    judged_loss: np.ndarray | None = None
    judged_r2: np.ndarray | None = None


def learning_curve(run: Run) -> LearningCurve:
    """Learning curve of a run file.

    Parameters
    ----------
    run : Run
        A run file, opened by `open_run`.

    Returns
    -------
    LearningCurve

    Raises
    ------
    InputError
        If the file is no training run, or holds no complete epoch.
    """
    if run.attributes.get("kind") != "training" or not run.epochs:
        must = "be the run file of a training with a complete epoch"
        raise argument_error("from", must, f"{str(run.path)!r}, which is none")
    metrics = {name: run.metric(name) for name in run.metrics}
    return curve_of(parse_config(run.config), cast(PhysicalSystem, system_of(run)), metrics)


def curve_of(config: Config, system: PhysicalSystem, metrics: Mapping[str, np.ndarray]) -> LearningCurve:
    """Learning curve of a training's metrics."""
    tolerance = config.ep.tolerance
    return LearningCurve(
        label=f"{config.system.name} on {config.data.name}",
        train_error=metrics["train_error"],
        test_error=metrics["test_error"],
        loss=metrics["loss"],
        worst_residual=metrics["worst_residual"],
        median_residual=metrics["median_residual"],
        tolerance=system.default_tolerance(system.dtype) if tolerance is None else tolerance,
        free_iterations=metrics["free_iterations"],
        nudged_iterations=metrics["nudged_iterations"],
        skipped=metrics["skipped"],
        validation_error=metrics.get("validation_error"),
        judged_loss=metrics.get("validation_loss", metrics.get("test_loss")),
        judged_r2=metrics.get("validation_r2", metrics.get("test_r2")),
    )


@style.drawing
def draw_learning_curve(data: LearningCurve) -> Figure:
    """Four panels over epochs: errors, loss, residuals with the tolerance and skipped examples, iterations."""
    epochs = np.arange(1, len(data.loss) + 1)
    figure, axes = style.new_figure(style.PAGE, 100, 2, 2)
    errors, loss, residuals, iterations = axes.flat
    judged = {"test": data.test_error} if data.validation_error is None else {"validation": data.validation_error}
    measured = bool(np.isnan(data.train_error).all())
    if data.judged_r2 is not None and measured:
        name = next(iter(judged))
        many = data.judged_r2.shape[1] > 1
        curves = {f"{name}, target {k + 1}" if many else name: 1 - r2 for k, r2 in enumerate(data.judged_r2.T)}
        _draw(errors, epochs, curves)
        errors.set_yscale("log")
        errors.set_ylabel("$1 - R^2$ of examples not trained on")
    elif data.judged_loss is not None and measured:  # a run of an earlier release
        _draw(errors, epochs, dict.fromkeys(judged, data.judged_loss))
        errors.set_yscale("log")
        errors.set_ylabel("Mean cost of examples not trained on\n(dimensionless)")
    else:
        _draw(errors, epochs, {name: 100 * e for name, e in {**judged, "training": data.train_error}.items()})
        if data.validation_error is not None:
            tested = np.isfinite(data.test_error)
            errors.plot(epochs[tested], 100 * data.test_error[tested], "*", color=style.BLACK, label="test, once")
        _error_scale(errors, data)
    _draw(loss, epochs, {"training": data.loss})
    loss.set_ylabel("Mean cost (outputs squared)" if measured else "Mean cost (dimensionless)")
    _draw(residuals, epochs, {"worst": data.worst_residual, "median": data.median_residual})
    residuals.axhline(data.tolerance, color=style.BLACK, lw=0.7, ls=(0, (4, 2)), label="tolerance, free phase")
    residuals.set_yscale("log")
    residuals.set_ylim(top=3 * max(data.tolerance, float(np.nanmax(data.worst_residual))))
    _mark_skipped(residuals, epochs, data)
    residuals.set_ylabel("Residual (dimensionless)")
    _draw(iterations, epochs, {"free phase": data.free_iterations, "nudged phases": data.nudged_iterations})
    iterations.set_ylabel("Mean iterations (count)")
    iterations.set_ylim(bottom=0)
    loss.set_yscale("log")
    for ax in axes.flat:
        ax.set_xlabel("Epoch")
        ax.set_xlim(0, len(epochs) + 1)
        style.legend(ax)
    return figure


def _draw(ax: Axes, epochs: np.ndarray, curves: dict[str, np.ndarray]) -> None:
    every = max(1, len(epochs) // 10)
    for k, (label, values) in enumerate(curves.items()):
        style.series(k).plot(ax, epochs, values, label=label, markevery=(k * every // 2, every))


def _error_scale(ax: Axes, data: LearningCurve) -> None:
    """Logarithmic down to one example or so, linear to zero below: an error of 0 must stay on the page."""
    judged = [] if data.validation_error is None else [data.validation_error]
    seen = np.concatenate([data.test_error[np.isfinite(data.test_error)], data.train_error, *judged])
    positive = seen[seen > 0]
    smallest = 100 * float(positive.min()) if positive.size else 1.0
    ax.set_yscale("symlog", linthresh=smallest)
    ax.set_ylim(0, 200 * float(seen.max()) if positive.size else 1.0)
    ticks = [tick for tick in (0.0, 0.01, 0.1, 1.0, 10.0, 100.0) if tick == 0 or tick >= smallest]
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.set_ylabel(f"Error (%), linear below {smallest:.2g}")


def _mark_skipped(ax: Axes, epochs: np.ndarray, data: LearningCurve) -> None:
    hit = data.skipped > 0
    label = f"skipped examples: {int(data.skipped.sum())}"
    ax.plot(epochs[hit], np.full(int(hit.sum()), data.tolerance), "x", color=style.BLACK, mew=0.8, label=label)


def make_learning_curve(request: Request) -> Drawn:
    """Figure 'learning_curve' of the catalogue."""
    if request.run is not None:
        data = learning_curve(open_run(request.run))
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run.h5"
            train(
                "hopfield-digits",
                out=path,
                seed=request.seed,
                device=request.device,
                dtype=request.dtype,
                progress=request.progress,
            )
            data = learning_curve(open_run(path))
    return Drawn(draw_learning_curve(data), asdict(data))
