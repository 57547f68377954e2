"""What must hold for a run to go on where it ended."""

from __future__ import annotations

import inspect
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy as np
import torch

from ..config import Config, DataSection, parse_config
from ..data.datasets import TABLES, Dataset, fits_scales
from ..errors import InputError, argument_error
from ..storage.run_file import Run
from .metrics import OF_TARGETS
from .optimization import LENGTHS, schedulers

FREE = ("folder", "download", "mapping", "workers", "on_broken")
"""Entries of [data] that may differ from machine to machine, or from one run to its resumption."""


MERCY = ("max_skipped", "on_unconverged")
"""Entries of [training] that may change where a run goes on from its best epoch."""


TEST_READ = "test_read"
"""Attribute of a run with examples held out: when its test set was read, once and for all (UTC)."""
KEPT_EPOCH = "kept_epoch"
"""Attribute beside it: the epoch, from 1, whose weights the file holds, and which was tested."""
EXAMPLES = "examples_sha256"
"""Attribute of a run on examples from a table or from Python: their digest (`Dataset.digest`). A known set that is
scaled by its own examples has that of the first ones, which tells the scale."""
BACKWARD = "backward"
"""Attribute of a run: by what its gradients came, where that was no estimator of its config."""


class Interruption:
    """Whether Ctrl-C was pressed; `interruptible` hands it to a loop, which asks."""

    def __init__(self) -> None:
        self.asked = False
        self._deferred = False

    def check(self) -> None:
        """Raise KeyboardInterrupt if Ctrl-C was pressed."""
        if self.asked:
            raise KeyboardInterrupt

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within this context, Ctrl-C waits until the block is done; then KeyboardInterrupt is raised."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        self.check()

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Note that Ctrl-C was pressed, and raise KeyboardInterrupt unless that is deferred; Python calls this
        as the signal's handler.
        """
        self.asked = True
        if not self._deferred:
            signal.default_int_handler(number, frame)


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Within this context, Ctrl-C raises KeyboardInterrupt as ever, and is remembered too.

    The exception is lost where Python ignores exceptions (in a destructor, while a file is closed); a loop that
    also asks is interrupted for certain. Other threads than the main one have no signals.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    before = signal.signal(signal.SIGINT, interruption.handle)
    try:
        yield interruption
    finally:
        signal.signal(signal.SIGINT, before)


def check_resumable(run: Run, config: Config, rewind: bool = False) -> None:
    """Raise InputError if a run file is no training run, or one of another config.

    Parameters
    ----------
    run : Run
    config : Config
        What training is asked to do now. More epochs are welcome, unless they would change the schedule of those
        already done; data may lie elsewhere, and be decoded by more processes or with less mercy.
    rewind : bool
        The run goes on from its best epoch, so that it may be told to go on otherwise: with other entries of [ep],
        other limits of what may be skipped and, unless a scheduler counts on them, other options of the optimizer.
    """
    name = str(run.path)
    if run.attributes.get("kind") != "training" or not run.resume:
        raise argument_error("resume", "be the run file of a training", repr(name))
    # Parsed again, an older run has the defaults of entries that are new since.
    before, now = parse_config(run.config).as_stored(), config.as_stored()
    before["data"] = {**before["data"], **{key: now["data"][key] for key in FREE}}
    if run.epochs > config.training.epochs:
        raise argument_error("training.epochs", f"be at least the {run.epochs} of {name!r}", config.training.epochs)
    extended = before["training"]["epochs"] != now["training"]["epochs"]
    if TEST_READ in run.attributes and (extended or rewind):
        name_of, was = ("rewind", True) if rewind else ("training.epochs", now["training"]["epochs"])
        must = f"leave {name!r} as it is, whose test set was read at {run.attributes[TEST_READ]}: start anew"
        raise argument_error(name_of, must, was)
    if extended and _length_from_epochs(config):
        raise InputError(
            f"Argument training.epochs must be {before['training']['epochs']}, as in {name!r}, since it sets the "
            f"scheduler's length, but was {now['training']['epochs']}."
        )
    for key in ("epochs", "loggers"):
        before["training"] = {**before["training"], key: now["training"][key]}
    if rewind:
        before["ep"] = now["ep"]
        before["training"] = {**before["training"], **{key: now["training"][key] for key in MERCY}}
        same = all(before["optimizer"].get(key) == now["optimizer"].get(key) for key in ("name", "groups"))
        if same and config.scheduler is None:
            before["optimizer"] = now["optimizer"]
    if now["training"]["dtype"] is None:
        now["training"] = {**now["training"], "dtype": before["training"]["dtype"]}
    for section, keys in now.items():
        if keys == before.get(section):
            continue
        old = before.get(section) or {}
        key = next(k for k in {**old, **(keys or {})} if old.get(k) != (keys or {}).get(k))
        raise argument_error(
            f"{section}.{key}", f"be {old.get(key)!r}, as in {name!r}, to resume it", repr((keys or {}).get(key))
        )


def told_backward(backward: Callable[..., Any] | None) -> str | None:
    """What a run file says of a function that fills gradients: its `description`, or its name; None of none."""
    if backward is None:
        return None
    told = getattr(backward, "description", None)
    return str(told or getattr(backward, "__qualname__", type(backward).__qualname__))


def check_given(run: Run, backward: Callable[..., Any] | None, data: object) -> None:
    """Raise InputError unless Python gives what it gave to a run: a function for gradients, and examples."""
    check_backward(run, told_backward(backward))
    if run.examples and (data is None or isinstance(data, str | os.PathLike)):
        must = "be given again by train(..., data=...): the run was trained on examples from Python"
        raise argument_error("data", must, "left out" if data is None else repr(os.fspath(data)))


def check_backward(run: Run, told: str | None) -> None:
    """Raise InputError unless gradients come as they came to the run, by what `told_backward` says of both."""
    before = run.attributes.get(BACKWARD)
    if before != told:
        must = "be left out" if before is None else f"be {before!r} (by its name, or an attribute `description`)"
        why = f"{must}, as in {str(run.path)!r}, to resume it"
        raise argument_error("backward", why, "left out" if told is None else repr(told))


def digest_of(data: Dataset, section: DataSection, given: bool = False) -> str | None:
    """What a run file says of its examples in `EXAMPLES`; None for known sets, whose numbers are always the same.

    Parameters
    ----------
    data : Dataset
        In the dtype of the training.
    section : DataSection
    given : bool
        Whether they came from Python.
    """
    if given or data.name in TABLES:
        return data.digest()
    return data.digest(1) if fits_scales(section) else None


def check_examples(run: Run, section: DataSection, digest: str | None, name: str = "data.file") -> None:
    """Raise InputError unless the examples at hand are those of a run, on the same scale.

    Scales were once fitted to examples that are held out, and to those beyond `data.train_examples`, as well. A run
    file from before, which tells no digest, would be met with other numbers than it was trained on.

    Parameters
    ----------
    run : Run
    section : DataSection
        [data] of the run.
    digest : str or None
        What `digest_of` says of the examples at hand.
    name : str
        What the examples came by.
    """
    told = run.attributes.get(EXAMPLES)
    limited = section.train_examples is not None and section.name in TABLES
    if digest is None or run.attributes.get("kind") != "training":
        return
    if told is None and fits_scales(section) and (section.validation is not None or limited):
        must = (
            "tell what its examples were scaled by (earlier ones were scaled by those held out too): train it anew"
        )
        raise argument_error("run", must, repr(str(run.path)))
    if told is not None and told != digest:
        raise argument_error(name, "hold the examples that the run was trained on, scaled alike", "others")


def copied(state: Any) -> Any:
    """A copy of nested dictionaries and lists whose tensors lie on the CPU and change no more."""
    if isinstance(state, torch.Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, Mapping):
        return {key: copied(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(copied(value) for value in state)
    return state


def _length_from_epochs(config: Config) -> bool:
    if config.scheduler is None:
        return False
    kind = schedulers().get(config.scheduler.name.lower())
    taken = inspect.signature(kind).parameters if kind is not None else {}
    return any(n in taken and n not in config.scheduler.options for n in LENGTHS)


def past_metrics(run: Run, names: Iterable[str], targets: int) -> dict[str, np.ndarray]:
    """Metrics of a run's epochs by name; NaN where an older run has not measured what is measured now.

    Parameters
    ----------
    run : Run
    names : iterable of str
    targets : int
        Number of measured targets, of each of which `metrics.OF_TARGETS` tell.
    """
    unknown = np.full(run.epochs, np.nan)
    of_targets = np.full((run.epochs, targets), np.nan)
    found = {name: of_targets if name.endswith(tuple(OF_TARGETS)) else unknown for name in names}
    return {name: run.metric(name) if name in run.metrics else values for name, values in found.items()}
