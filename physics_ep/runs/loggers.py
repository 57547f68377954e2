"""Loggers of a training: a CSV file, TensorBoard, Weights & Biases, or one that a package brings.

A config names them, and they write beside its run file:

    [training]
    loggers = ["csv", "tensorboard"]

In Python they are callbacks as any other: `train(config, callbacks=[CsvLogger("log.csv")])`. A package of yours
adds one by an entry point `physics_ep.loggers`, which names a callable (path of the run file, config)
-> `Callback`.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..entries import load
from ..errors import InputError, argument_error
from ..physical_system import PhysicalSystem
from ..ranks import rank
from ..registry import loggers
from ..storage.outputs import claim, write_text
from .callbacks import Callback

if TYPE_CHECKING:
    from ..config import Config


class EpochLogger(Callback):
    """Base of the loggers: keeps the rows of all epochs, those before a resume included, on the first process.

    A subclass gives `begin` and `write`.

    Attributes
    ----------
    rows : list of dict
        Name to number, an epoch each: `epoch` counts from 1, a metric with several values has a number for each
        (`learning_rates.0`).
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_begin(self, system: PhysicalSystem, config: Config, past: Sequence[dict[str, Any]]) -> None:
        if rank():
            return
        self.rows = [_row(epoch, figures) for epoch, figures in enumerate(past)]
        self.begin(config)

    def on_epoch(self, system: PhysicalSystem, epoch: int, figures: dict[str, Any]) -> None:
        if rank():
            return
        self.rows.append(_row(epoch, figures))
        self.write(self.rows[-1])

    def on_end(self, result: Any) -> None:
        if rank():
            return
        rows = [
            _row(epoch, {name: values[epoch] for name, values in result.metrics.items()})
            for epoch in range(len(self.rows))
        ]
        if result.kept_epoch is not None:  # the test set was read at the end, for that epoch
            self.rows = rows
            last = rows[result.kept_epoch - 1]
            self.write({name: value for name, value in last.items() if name == "epoch" or name.startswith("test_")})
        self.end()

    def begin(self, config: Config) -> None:
        """Open what is written to; `rows` has the epochs that are done already."""

    def end(self) -> None:
        """Close what was written to."""

    def write(self, row: dict[str, float]) -> None:
        """Write the last of `rows`; at the end, what became known of an earlier one."""
        raise NotImplementedError


class CsvLogger(EpochLogger):
    """Write a line an epoch into a CSV file, with all digits and a line of names first.

    The file is whole at any moment. A training that is resumed, or goes on from its best epoch, has every epoch in
    it once.

    Parameters
    ----------
    path : path

    Raises
    ------
    InputError
        If the file cannot be written. A file that is there is replaced.

    Examples
    --------
    >>> from physics_ep import train
    >>> result = train("pcn-digits", callbacks=[CsvLogger("log.csv")])  # doctest: +SKIP
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__()
        self.path = Path(path)

    def begin(self, config: Config) -> None:
        self._put()

    def write(self, row: dict[str, float]) -> None:
        self._put()

    def _put(self) -> None:
        if self.rows:
            text = io.StringIO()
            writer = csv.DictWriter(text, list(self.rows[-1]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
            write_text(self.path, text.getvalue())


class TensorBoardLogger(EpochLogger):
    """Write the figures of each epoch as scalars for TensorBoard (extra `tensorboard`).

    Parameters
    ----------
    folder : path
        Folder of event files, for `tensorboard --logdir`. Epochs that a resumed run does over are purged.

    Raises
    ------
    InputError
        If tensorboard is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        super().__init__()
        self._module = _needed("torch.utils.tensorboard", "TensorBoardLogger", "tensorboard")
        self.folder = Path(folder)
        self._writer: Any = None

    def begin(self, config: Config) -> None:
        self._writer = self._module.SummaryWriter(str(self.folder), purge_step=len(self.rows) + 1)

    def write(self, row: dict[str, float]) -> None:
        for name, value in row.items():
            if name != "epoch":
                self._writer.add_scalar(name, value, int(row["epoch"]))
        self._writer.flush()  # a training that is killed keeps what it has written

    def end(self) -> None:
        self._writer.close()


class WandbLogger(EpochLogger):
    """Write the figures of each epoch as an offline run of Weights & Biases (extra `wandb`).

    Nothing is sent: `wandb sync` does that, when you want it. A training that is resumed begins another offline
    run, which has the earlier epochs too.

    Parameters
    ----------
    folder : path
        Folder that wandb writes its runs into.
    project, name : str, optional
        What wandb calls the project and the run.

    Raises
    ------
    InputError
        If wandb is not installed.
    """

    def __init__(
        self, folder: str | os.PathLike[str], project: str = "physics-ep", name: str | None = None
    ) -> None:
        super().__init__()
        self._module = _needed("wandb", "WandbLogger", "wandb")
        self.folder, self.project, self.name = Path(folder), project, name
        self._run: Any = None

    def begin(self, config: Config) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._run = self._module.init(
            mode="offline",
            dir=str(self.folder),
            project=self.project,
            name=self.name,
            config=config.as_dict(),
            reinit="create_new",
        )
        for row in self.rows:
            self.write(row)

    def write(self, row: dict[str, float]) -> None:
        figures = {name: value for name, value in row.items() if name != "epoch"}
        if int(row["epoch"]) < self._run.step:  # wandb takes no earlier steps
            self._run.summary.update({**figures, "kept_epoch": int(row["epoch"])})
        else:
            self._run.log(figures, step=int(row["epoch"]))

    def end(self) -> None:
        self._run.finish()


def csv_logger(run: Path, config: Config) -> Callback:
    """The logger 'csv': RUN.csv beside RUN.h5, which no run but this one may have written."""
    return CsvLogger(run.with_suffix(".csv"))


def tensorboard_logger(run: Path, config: Config) -> Callback:
    """The logger 'tensorboard': the folder RUN.tensorboard beside RUN.h5."""
    return TensorBoardLogger(run.with_suffix(".tensorboard"))


def wandb_logger(run: Path, config: Config) -> Callback:
    """The logger 'wandb': offline runs in the folder RUN.wandb beside RUN.h5."""
    return WandbLogger(run.with_suffix(".wandb"), name=run.stem)


def loggers_of(
    config: Config, run: Path | None, resume: str | os.PathLike[str] | None = None
) -> tuple[Callback, ...]:
    """Make the loggers that a config names.

    Parameters
    ----------
    config : Config
        Its [training] names them.
    run : Path or None
        The run file, beside which they write.
    resume : path, optional
        Run file that is gone on with. If it is `run`, so are the files beside it.

    Raises
    ------
    InputError
        If there is no run file or no such logger, what one needs is not installed, or its file may not be replaced.
    """
    names = config.training.loggers
    if not names:
        return ()
    if run is None:
        raise argument_error("training.loggers", "come with a run file (out), beside which they write", names)
    known = loggers()
    goes_on = resume is not None and os.path.realpath(resume) == os.path.realpath(run)
    made: list[Callback] = []
    for name in names:
        build: Callable[[Path, Config], Any] = load(known[name])
        logger = build(run, config)
        if not isinstance(logger, Callback):
            must = f"name a logger that makes a physics_ep.Callback, which {name!r} does not"
            raise argument_error("training.loggers", must, type(logger).__name__)
        if isinstance(logger, CsvLogger) and not rank():
            claim("training.loggers", logger.path, goes_on=logger.path if goes_on else None)
        made.append(logger)
    return tuple(made)


def _row(epoch: int, figures: dict[str, Any]) -> dict[str, float]:
    return {"epoch": epoch + 1, **dict(_scalars(figures))}


def _scalars(figures: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in figures.items():
        values = np.asarray(value)
        if values.ndim:
            yield from ((f"{name}.{k}", one) for k, one in enumerate(values.ravel().tolist()))
        else:
            yield name, values.item()


def _needed(module: str, what: str, extra: str) -> Any:
    """Import an optional package, or say how it is had."""
    try:
        return import_module(module)
    except ImportError:
        needs = f"needs {extra}, which is not installed: pip install 'physics-ep[{extra}]'"
        raise InputError(f"{what} {needs}.") from None
