"""One seed of one row by one rule: a resumable run file in, a figure out. Jobs run in this process or in others."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from physics_ep.config import Config
from physics_ep.errors import InputError
from physics_ep.placement import threads
from physics_ep.runs.preparation import with_arguments
from physics_ep.runs.results import TrainingResult
from physics_ep.runs.resuming import KEPT_EPOCH, TEST_READ, check_backward, check_resumable, told_backward
from physics_ep.runs.training import Backward, train
from physics_ep.storage.opening import open_run
from physics_ep.storage.outputs import writing
from physics_ep.storage.run_file import Quantity, Run, environment, write_run

from ..experiments.adjoint import adjoint_backward
from ..experiments.brief_phases import brief_backward, sweeping_backward
from ..experiments.elimination import eliminating_backward
from ..experiments.exact_training import exact_backward
from .measures import MEASURES
from .rows import RowRecipe

EXACT = {"implicit": exact_backward, "elimination": eliminating_backward}
"""Exact gradients by name, that training takes in the place of EP's. 'adjoint' needs a tolerance as well;
'backprop' is an estimator of its own."""
FINER = 0.1
"""Tolerance of free states that exact gradients by 'adjoint' are taken at, over that of EP's phases."""
MEASUREMENT = "measurement"
"""Kind of the run files of measurements."""


@dataclass(frozen=True)
class Job:
    """One training or measurement of a reproduction: a row, a recipe, a rule and a seed.

    Attributes
    ----------
    recipe : RowRecipe
    rule : str
        'ep', 'exact' or 'measure'.
    seed : int
    path : Path
        Its run file; what is in it is gone on with.
    data : str or None
        Folder of data sets.
    command : str
        In whose name files are written.
    device, dtype : str or None
        Where trainings compute, and in which precision, in the place of what their configs say.
    source : Job or None
        The training whose weights a measurement reads; it is made first where it is not done.
    """

    recipe: RowRecipe
    rule: str
    seed: int
    path: Path
    data: str | None
    command: str
    device: str | None = None
    dtype: str | None = None
    source: Job | None = None

    def config(self) -> Config:
        """The config of its training."""
        return with_arguments(self.recipe.config(self.rule), self.data, self.device, self.dtype, self.seed)

    def backward(self, config: Config) -> Backward | None:
        """What fills gradients in the place of EP with phases that settle; None: nothing."""
        cost = config.ep.new_cost()
        if self.rule == "exact" and self.recipe.exact == "adjoint":
            tolerance = config.ep.tolerance
            return adjoint_backward(cost, None if tolerance is None else FINER * tolerance)
        if self.rule == "exact" and self.recipe.exact in EXACT:
            return EXACT[self.recipe.exact](cost)
        if self.rule == "ep" and self.recipe.brief:
            assert not isinstance(config.ep.beta, str)
            if "sweeps" in self.recipe.brief:
                return sweeping_backward(cost, config.ep.beta, **self.recipe.brief)
            return brief_backward(cost, config.ep.beta, **self.recipe.brief)
        return None


@dataclass(frozen=True)
class Made:
    """What a job gave: its figure (a fraction, for errors) and the epoch that was kept, if one was chosen."""

    value: float
    epoch: int | None = None


def found(job: Job) -> Made | None:
    """What the run file of a job holds, if the job is done; None otherwise.

    Raises
    ------
    InputError
        If the file is of another recipe.
    """
    if not job.path.is_file():
        return None
    run = open_run(job.path)
    if job.rule == "measure":
        if job.source is not None and found(job.source) is None:
            return None
        told = _measurement(job)
        if run.attributes.get("kind") != MEASUREMENT or run.attributes.get("measurement") != told:
            raise InputError(f"File {str(job.path)!r} is of another measurement than {told}: name another folder.")
        return Made(float(run.metric("value")[-1]))
    config = job.config()
    check_resumable(run, config)
    check_backward(run, told_backward(job.backward(config)))
    if TEST_READ in run.attributes:
        kept = int(run.attributes[KEPT_EPOCH])
        return Made(float(run.metric("test_error")[kept - 1]), kept)
    whole = config.data.validation is None and run.epochs == config.training.epochs
    return Made(float(run.metric("test_error")[-1])) if whole else None


def make(job: Job) -> Made:
    """Do a job of a reproduction, going on from where its run file ends."""
    with threads(1), writing(job.command):
        done = found(job)
        if done is not None:
            return done
        if job.rule == "measure":
            options = dict(job.recipe.options)
            if job.source is not None:
                make(job.source)
                options["run"] = open_run(job.source.path)
            value = MEASURES[job.recipe.measure](job.seed, **options)
            description = f"{job.recipe.measure} of validation.reproduction.measures"
            attributes = {"kind": MEASUREMENT, "measurement": _measurement(job), "seed": job.seed, **environment()}
            write_run(job.path, Run(attributes, {"value": Quantity([value], "1", description)}))
            return Made(value)
        config = job.config()
        there = job.path.is_file()
        result = train(
            config,
            out=None if there else job.path,
            resume=job.path if there else None,
            backward=job.backward(config),
        )
        assert isinstance(result, TrainingResult)
        return Made(result.test_error, result.kept_epoch)


def _measurement(job: Job) -> str:
    told = {**job.recipe.options}
    if job.source is not None:
        told["run"] = hashlib.sha256(job.source.path.read_bytes()).hexdigest()
    options = ", ".join(f"{name}={value}" for name, value in sorted(told.items()))
    return f"{job.recipe.measure}({options})"


def file_of(folder: str | os.PathLike[str], table: str, row: str, recipe: str, rule: str, seed: int) -> Path:
    """The run file of a job: FOLDER/TABLE/ROW.RECIPE.RULE.seed0.h5."""
    return Path(folder) / table / f"{row}.{recipe}.{rule}.seed{seed}.h5"
