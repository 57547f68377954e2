"""One training for each of several seeds, in this process or in some, and what they give together."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from ..config import Config
from ..data.given import arrays_of
from ..errors import REPEATS, argument_error, require_count
from ..intervals import MeanInterval, mean_interval
from ..misses import told_misses
from ..processes import end_with_parent
from ..ranks import rank
from ..storage.files import checked_path
from ..storage.outputs import Call, writing
from ..tabular import Tabular

T = TypeVar("T")
U = TypeVar("U")
Job = dict[str, Any]
"""Arguments of one training."""
Outcome = tuple[dict[str, Any], Path | None]
"""Figures of a training, and its run file."""


class WorkersLostError(RuntimeError):
    """Raised when a process that trained was killed; the run files hold the epochs that are complete."""

    exit_status = 1


@dataclass(frozen=True, repr=False)
class SeedsResult(Tabular):
    """The outcome of trainings that differ in their seeds alone.

    Attributes
    ----------
    config : Config
        The config of all, with all defaults filled in.
    seeds : tuple of int
    trainings : tuple of dict
        Figures of each, as `TrainingResult.figures` gives them, in the order of the seeds.
    paths : tuple of (Path or None)
        Their run files, which hold the weights.
    """

    config: Config
    seeds: tuple[int, ...]
    trainings: tuple[dict[str, Any], ...]
    paths: tuple[Path | None, ...]

    def over_seeds(self, name: str) -> MeanInterval:
        """Mean of a figure over the seeds, with its 95 % interval."""
        return mean_interval([float(figures[name]) for figures in self.trainings])

    @property
    def test_error(self) -> float:
        """Mean fraction of the test examples misclassified."""
        return self.over_seeds("test_error").mean

    @property
    def test_error_interval(self) -> list[float] | None:
        """Interval of the mean test error at 95 %, [low, high]: the spread of seeds, not that of test sets."""
        return self.over_seeds("test_error").ends

    @property
    def measured(self) -> bool:
        """Whether targets were measured numbers, so that there are losses, and no errors."""
        return math.isnan(self.test_error)

    def words(self) -> list[str]:
        """What was trained how often, and the mean."""
        told = [f"{self.config.system.name} on {self.config.data.name}", f"{len(self.seeds)} seeds"]
        return [*told, f"test: {self.misses()}" if self.measured else f"test error {self.test_error:.2%}"]

    def misses(self) -> str:
        """What one line tells of measured targets: the mean of each one's miss, and of its R2, over the seeds."""
        rms, r2 = (self._over_targets(name) for name in ("test_rms", "test_r2"))
        return told_misses(list(rms), rms.values(), r2.values())

    def _over_targets(self, figure: str) -> dict[str, float]:
        """Mean over the seeds of a figure that each target has; empty of classes."""
        first = self.trainings[0].get(figure, {})
        return {name: float(np.mean([each[figure][name] for each in self.trainings])) for name in first}

    def records(self) -> list[dict[str, Any]]:
        """The trainings as a table, one row for each seed."""
        names = (
            "test_error",
            "validation_error",
            "train_error",
            "test_loss",
            "epochs",
            "kept_epoch",
            "skipped",
            "seconds",
        )
        return [
            {
                "seed": seed,
                **{name: figures[name] for name in names if name in figures},
                **{f"{name}, RMS": value for name, value in figures.get("test_rms", {}).items()},
                **{f"{name}, R2": value for name, value in figures.get("test_r2", {}).items()},
            }
            for seed, figures in zip(self.seeds, self.trainings, strict=True)
        ]

    def figures(self) -> dict[str, Any]:
        """The figures for `--json`: means over the seeds, the interval, and the figures of each."""
        rms = self._over_targets("test_rms")
        means = ["train_error", *(["validation_error"] if "validation_error" in self.trainings[0] else [])]
        return {
            "test_error": self.test_error,
            "test_error_interval": self.test_error_interval,
            "test_loss": self.over_seeds("test_loss").mean,
            "test_loss_interval": self.over_seeds("test_loss").ends,
            **({"test_rms": rms, "test_r2": self._over_targets("test_r2")} if rms else {}),
            **{name: self.over_seeds(name).mean for name in means},
            "seeds": list(self.seeds),
            "epochs": max(figures["epochs"] for figures in self.trainings),
            "seconds": sum(figures["seconds"] for figures in self.trainings),
            "worst_residual": max(figures["worst_residual"] for figures in self.trainings),
            "skipped": sum(figures["skipped"] for figures in self.trainings),
            "trainings": list(self.trainings),
            "files": [None if path is None else str(path) for path in self.paths],
            "config": self.config.as_dict(),
        }


def seed_file(path: str | os.PathLike[str], seed: int) -> Path:
    """The run file of one seed: RUN.h5 becomes RUN.seed0.h5."""
    whole = checked_path(path, "out")
    return whole.with_name(f"{whole.stem}.seed{seed}{whole.suffix}")


def train_seeds(
    run_one: Callable[..., Any],
    config: Config,
    call: Call,
    *,
    out: str | os.PathLike[str] | None,
    resume: str | os.PathLike[str] | None,
    workers: int,
    options: Mapping[str, Any],
) -> SeedsResult:
    """Train a config once for each of its seeds.

    Each training is the very one that its seed alone would be, at the same number of threads, whatever the number
    of workers.

    Parameters
    ----------
    run_one : callable
        `physics_ep.train`.
    config : Config
        With `training.seeds` above 1.
    call : Call
        The call within which files are written.
    out : path or None
        Run files are written beside it, as `seed_file` names them.
    resume : path or None
        The same name; trainings whose files are there go on from them, all others begin.
    workers : int
        Processes that train, each one seed at a time; 1: this process.
    options : mapping
        Further arguments of `run_one`.

    Raises
    ------
    InputError
        If an argument does not fit; nothing has been written then.
    WorkersLostError
        If a process is killed.
    """
    training = config.training
    require_count("training.seeds", training.seeds, most=REPEATS)
    seeds = range(training.seed, training.seed + training.seeds)
    require_count("workers", workers)
    if workers > 1:
        for name in ("callbacks", "backward"):
            if options.get(name):
                raise argument_error(name, "be left out where several workers train", "given")
        data = options.get("data")
        if isinstance(data, tuple) and arrays_of(data) is None:
            must = "be a folder, a Dataset or arrays where several workers train"
            raise argument_error("data", must, "two loaders")
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise argument_error("workers", "be 1 where torchrun starts several processes", workers)
    there = {} if resume is None else {s: seed_file(resume, s) for s in seeds if seed_file(resume, s).is_file()}
    if resume is not None and not there:
        must = f"be RUN.h5 where there is a file RUN.seed{seeds[0]}.h5 or of another seed"
        raise argument_error("resume", must, repr(os.fspath(resume)))
    base = resume if out is None else out
    jobs: list[Job] = []
    for seed in seeds:
        path = None if base is None else seed_file(base, seed)
        if path is not None and path != there.get(seed):  # what a training goes on with, it claims itself
            call.claim("out", path, lock=workers == 1 and rank() == 0)
        alone = config.updated(training={"seed": seed, "seeds": 1})
        jobs.append({"config": alone, "out": path, "resume": there.get(seed)})
    if workers == 1:
        found = [_outcome(run_one(**job, **options)) for job in jobs]
    else:
        threads = training.threads or torch.get_num_threads()
        shared = {k: v for k, v in options.items() if k not in ("callbacks", "backward", "progress")}
        train_one = partial(_trained, run_one, call.command, threads, shared)
        found = list(by_processes(train_one, jobs, min(workers, len(jobs))))
    figures, paths = zip(*found, strict=True)
    return SeedsResult(config, tuple(seeds), figures, paths)


def by_processes(do: Callable[[T], U], jobs: Sequence[T], count: int) -> Iterator[U]:
    """Have processes do jobs that leave files, and give the outcomes in the order of the jobs.

    Parameters
    ----------
    do : callable
        A function of a module, job -> outcome; both can be pickled.
    jobs : sequence
    count : int
        Number of processes.

    Raises
    ------
    WorkersLostError
        If a process is killed. What a job raises, the first one to fail, is raised.
    """
    others = set(active_children())
    pool = ProcessPoolExecutor(count, get_context("spawn"), initializer=_begin)
    try:
        futures = [pool.submit(do, job) for job in jobs]
        for future in as_completed(futures):
            future.result()  # the first failure ends all
        yield from (future.result() for future in futures)
    except BrokenProcessPool as error:
        raise WorkersLostError("A process was lost: its complete epochs are kept, and resume goes on.") from error
    finally:
        for process in set(active_children()) - others:
            process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)


def _begin() -> None:
    """In a process of its own: Ctrl-C is the parent's affair, and its end is this one's."""
    end_with_parent()
    with suppress(ValueError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _trained(
    run_one: Callable[..., Any], command: str, threads: int, options: Mapping[str, Any], job: Job
) -> Outcome:
    torch.set_num_threads(threads)
    with writing(command):
        return _outcome(run_one(**job, **options))


def _outcome(result: Any) -> Outcome:
    return result.figures(), result.path
