"""The demonstration: train each substrate by EP on real digits, check its gradients, draw the figures; then train
a predictive coding network and map it to all of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from physics_ep.placement import threads
from physics_ep.progress import SILENT, Advance, Progress, task
from physics_ep.runs.training import train
from physics_ep.storage.files import checked_path
from physics_ep.storage.opening import open_run
from physics_ep.storage.outputs import write_json, writing
from validation.experiments.substrates import THREE, Placed
from validation.gradients import GradientReport, gradient_report

from .catalogue import draw, find
from .mapping.substrates import DEVICE_NAME, NETWORK, draw_substrates, mapped_run
from .requests import BATCH, Entry, Request
from .style import save
from .subjects import trained

CHECK_BETA = 1e-5
"""Part of a system's `nudge_scale` at which EP must agree with the oracle: so small that hardly a unit crosses a
kink."""

MIN_COSINE = 0.999


@dataclass(frozen=True)
class Substrate:
    """One substrate of the demonstration.

    Attributes
    ----------
    name : str
        Also of its run file.
    config : str
        Bundled training config.
    min_accuracy : float
        Fraction of the test digits that it must classify.
    """

    name: str
    config: str
    min_accuracy: float


SUBSTRATES: tuple[Substrate, ...] = (
    Substrate("hopfield", "hopfield-digits", 0.96),
    Substrate("resistive", "resistive-digits", 0.96),
    Substrate("oscillator", "oscillator-digits", 0.95),
)
"""What the demonstration runs; a further substrate is a further row."""

DRAWN: tuple[Entry, ...] = tuple(
    find(name)
    for name in (
        "hopfield_dynamics",
        "estimator_error",
        "precision",
        "learning_curve",
        "conductances",
        "phases_on_circle",
    )
)
"""The figures of the substrates that are trained; all of the catalogue's would more than double the time."""


@dataclass(frozen=True)
class Result:
    """What came of one substrate.

    Attributes
    ----------
    substrate : str
    test_accuracy : float
        Fraction.
    epochs : int
    seconds : float
        Seconds that the training took.
    worst_residual : float
        Largest residual of all equilibria that gave gradients. Dimensionless.
    skipped : int
        Examples left out for want of an equilibrium.
    free_iterations, nudged_iterations : float
        Mean of the last epoch, a phase.
    oracle : str
        What the gradients were judged by.
    beta, cosine, relative_error : float
        Nudging strength, `CHECK_BETA` of the nudge scale; worst cosine over the parameters; error of the whole
        gradient.
    training_beta, training_cosine, training_error : float
        The same at the nudging strength of the training.
    passed : bool
        Whether accuracy and cosine reach what they must.
    """

    substrate: str
    test_accuracy: float
    epochs: int
    seconds: float
    worst_residual: float
    skipped: int
    free_iterations: float
    nudged_iterations: float
    oracle: str
    beta: float
    cosine: float
    relative_error: float
    training_beta: float
    training_cosine: float
    training_error: float
    passed: bool


@dataclass(frozen=True)
class Demo:
    """Results of all substrates, what became of one network on them, and the files written."""

    results: tuple[Result, ...]
    placed: tuple[Placed, ...]
    files: tuple[Path, ...]


class DemoFailedError(RuntimeError):
    """Raised when the demo's substrate misses its accuracy, or EP its oracle; the files that were written stay."""

    exit_status = 1


def run_demo(
    out: str | os.PathLike[str] = "runs/demo",
    *,
    substrates: Sequence[Substrate] = SUBSTRATES,
    figures: Sequence[Entry] = DRAWN,
    mapped: Sequence[str] = THREE,
    seed: int = 0,
    device: str | None = None,
    dtype: str | None = None,
    progress: Progress = SILENT,
    overwrite: bool = False,
) -> Demo:
    """Train, check and draw; leave SUBSTRATE.h5, demo.json and the figures in a folder.

    Each file is written whole or not at all, so that an interrupted demonstration leaves nothing broken.

    Parameters
    ----------
    out : path
        Folder; files of an earlier demonstration in it are replaced, no others.
    substrates : sequence of Substrate
    mapped : sequence of str
        Substrates that a predictive coding network, trained here too, is mapped to.
    figures : sequence of Entry
        Drawn at the end: the learning curve of the first substrate, figures of certain systems of the substrate
        that bears one of their names, all others of fresh networks.
    seed : int
    device, dtype : str, optional
        Device and dtype of the training; gradients are checked in float64.
    progress : Progress
    overwrite : bool
        Replace files of those names that something else wrote.

    Returns
    -------
    Demo

    Raises
    ------
    InputError
        If the folder cannot be written to.
    """
    with writing("figures.demo.run_demo", overwrite=overwrite) as call:
        folder = checked_path(out, "out")
        names = [*(f"{substrate.name}.h5" for substrate in substrates), *(f"{entry.name}.png" for entry in figures)]
        names += ["pcn.h5", "substrates.png"] if mapped else []
        for name in (*names, "demo.json"):
            # The runs are the demonstration's own, which trains them anew each time.
            call.claim(f"out ({name})", folder / name, precious=False)
        summary = folder / "demo.json"
        request = Request(None, seed, device, progress=progress)
        request.place()
        results, files = [], []
        for substrate in substrates:
            path = folder / f"{substrate.name}.h5"
            # One thread, as in `draw`.
            with threads(1):
                results.append(
                    _train_and_check(substrate, path, seed, device, dtype, _Named(substrate.name, progress))
                )
            files.append(path)
        runs = {substrate.name: path for substrate, path in zip(substrates, files, strict=True)}
        for entry in figures:
            fitting = [runs[name] for name in entry.systems if name in runs]
            if entry.name == "learning_curve":
                fitting = files[:1]
            drawn = draw(entry, replace(request, run=fitting[0] if fitting else None))
            files += save(drawn.figure, entry.name, folder, formats=("png",))
        placed: tuple[Placed, ...] = ()
        if mapped:
            placed, written = _map(folder, mapped, seed, device, dtype, progress)
            files += written
        told = {
            "results": [asdict(r) for r in results],
            "mapped": [p.figures() for p in placed],
            "files": [str(f) for f in files],
        }
        write_json(summary, told)
        return Demo(tuple(results), placed, (*files, summary))


def _map(
    folder: Path, names: Sequence[str], seed: int, device: str | None, dtype: str | None, progress: Progress
) -> tuple[tuple[Placed, ...], list[Path]]:
    """Train a predictive coding network, put it on each substrate, and draw what became of it."""
    path = folder / "pcn.h5"
    named = _Named("pcn", progress)
    with threads(1):
        train(NETWORK, out=path, seed=seed, device=device, dtype=dtype, progress=named)
    placed = mapped_run(Request(path, seed, device, progress=named), names)
    drawn = save(draw_substrates(placed, DEVICE_NAME), "substrates", folder, formats=("png",))
    return placed, [path, *drawn]


def _train_and_check(
    substrate: Substrate, path: Path, seed: int, device: str | None, dtype: str | None, progress: Progress
) -> Result:
    done = train(substrate.config, out=path, seed=seed, device=device, dtype=dtype, progress=progress)
    with task(progress, "gradients", 2) as advance:
        close = _check(path, None, device)
        advance(1, cosine=close.worst_cosine)
        usual = _check(path, done.config.ep.beta, device)
        advance(1)
    return _result(substrate, path, close, usual)


class _Named:
    """Progress that says which substrate a task is about."""

    def __init__(self, name: str, progress: Progress) -> None:
        self.name = name
        self.progress = progress

    def task(self, description: str, total: int) -> AbstractContextManager[Advance]:
        return task(self.progress, f"{self.name}: {description}", total)


def _check(path: Path, beta: float | str | None, device: str | None) -> GradientReport:
    """EP against the system's own oracle on the trained network, in float64; beta None: of `CHECK_BETA`."""
    subject = trained(path, examples=BATCH, **Request(device=device).place())
    if beta is None:
        beta = CHECK_BETA * subject.system.nudge_scale
    return gradient_report(subject.system, subject.x, subject.y, subject.cost, beta=beta)


def _result(substrate: Substrate, path: Path, close: GradientReport, usual: GradientReport) -> Result:
    run = open_run(path)
    accuracy = 1 - float(run.metric("test_error")[-1])
    return Result(
        substrate=substrate.name,
        test_accuracy=accuracy,
        epochs=run.epochs,
        seconds=float(run.metric("seconds").sum()),
        worst_residual=float(run.metric("worst_residual").max()),
        skipped=int(run.metric("skipped").sum()),
        free_iterations=float(run.metric("free_iterations")[-1]),
        nudged_iterations=float(run.metric("nudged_iterations")[-1]),
        oracle=close.oracle,
        beta=close.beta,
        cosine=close.worst_cosine,
        relative_error=close.relative_error,
        training_beta=usual.beta,
        training_cosine=usual.worst_cosine,
        training_error=usual.relative_error,
        passed=accuracy >= substrate.min_accuracy and close.worst_cosine >= MIN_COSINE,
    )


def table(demo: Demo) -> tuple[list[str], list[list[str]]]:
    """Header and rows, a column a substrate, as text.

    Returns
    -------
    header : list of str
    rows : list of list of str
    """
    results = demo.results
    lines: list[tuple[str, Any]] = [
        ("test accuracy", lambda r: f"{r.test_accuracy:.2%}"),
        ("epochs", lambda r: str(r.epochs)),
        ("seconds to train", lambda r: f"{r.seconds:.1f}"),
        ("worst residual", lambda r: f"{r.worst_residual:.1e}"),
        ("examples skipped", lambda r: str(r.skipped)),
        ("iterations, free / nudged", lambda r: f"{r.free_iterations:.1f} / {r.nudged_iterations:.1f}"),
        ("gradient oracle", lambda r: r.oracle),
        ("at beta", lambda r: f"{r.beta:.3g} (training: {r.training_beta:g})"),
        ("gradient cosine", lambda r: f"{r.cosine:.7f} ({r.training_cosine:.4f})"),
        ("relative gradient error", lambda r: f"{r.relative_error:.1e} ({r.training_error:.1e})"),
    ]
    figures = sum(path.suffix == ".png" for path in demo.files)
    rows = [[name, *(show(r) for r in results)] for name, show in lines]
    rows.append(["figures written", str(figures), *[""] * (len(results) - 1)])
    return ["substrate", *(r.substrate for r in results)], rows


def mapping_table(demo: Demo) -> tuple[list[str], list[list[str]]]:
    """Header and rows of what became of one network, a column a substrate, as text."""
    lines: list[tuple[str, Callable[[Placed], str]]] = [
        ("construction", lambda p: p.exactness),
        ("outputs off, ideal devices", lambda p: f"{p.free_state_error:.0e}"),
        ("gradient cosine to backprop, ideal", lambda p: f"{p.cosine.min():.7f}"),
        ("test accuracy, ideal", lambda p: f"{p.accuracy:.2%}"),
        ("  on devices of 4 bits, shared copies", lambda p: f"{p.device_accuracy.mean():.2%}"),
        ("  examples with a free state", lambda p: f"{p.share.mean():.0%} ({p.solver})"),
        ("gradient cosine there: of their own network", lambda p: f"{np.nanmin(p.adaptation):.5f}"),
        ("  of the network that was meant", lambda p: f"{np.nanmin(p.transfer):.3f}"),
        ("settling time (s)", lambda p: f"{p.settling_time:.1e}"),
        ("largest rail gain", lambda p: f"{p.gain:.3g}" if p.gain != 1 else ""),
        ("units at a threshold", lambda p: str(p.threshold_units) if p.threshold_units else ""),
        ("worst residual", lambda p: f"{p.residual:.0e}"),
    ]
    rows = [[name, *(show(p) for p in demo.placed)] for name, show in lines]
    return ["one network mapped to", *(p.substrate for p in demo.placed)], rows


def require_passed(demo: Demo) -> None:
    """Raise `DemoFailedError`, naming the substrates, unless all of them passed."""
    lost = [p.substrate for p in demo.placed if not p.cosine.min() >= MIN_COSINE]
    if lost:
        raise DemoFailedError(
            f"The demonstration missed backprop's gradient with the network on {', '.join(lost)}."
        )
    failed = [r for r in demo.results if not r.passed]
    if failed:
        told = "; ".join(f"{r.substrate}: accuracy {r.test_accuracy:.2%}, cosine {r.cosine:.6f}" for r in failed)
        raise DemoFailedError(f"The demonstration missed what it must reach: {told}.")
