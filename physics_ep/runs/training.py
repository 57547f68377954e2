"""Training by equilibrium propagation: epochs, evaluation, and a run file that can be resumed.

Everything random in an epoch comes from generators seeded by (seed, epoch), and nothing but weights, optimizer and
scheduler is carried from one epoch to the next. So an epoch that is repeated after a kill gives the very same bits
on a CPU at the same number of threads. Where batches come from is told in `data.batches`, and how several processes
share them in `ranks`.
"""

from __future__ import annotations

import json
import math
import os
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..blocks import all_finite
from ..config import Config, load_config
from ..cost import SquaredError
from ..data.batches import BatchSource, InMemory, epoch_seed
from ..equilibrium import NotConverged, NotFinite
from ..errors import InputError, argument_error
from ..estimators.backprop import Backprop
from ..estimators.propagation import EquilibriumPropagation, UnconvergedWarning
from ..estimators.step import StepLike
from ..physical_system import PhysicalSystem
from ..placement import require_room, resolve_device, resolve_dtype, threads, work_in
from ..progress import SILENT, Progress, task
from ..ranks import in_step, join_group, meet, rank, summed, world_size
from ..recipes import told_rate
from ..stillness import require_trained
from ..storage.files import checked_path
from ..storage.opening import open_run
from ..storage.outputs import as_asked, writing
from ..storage.run_file import Quantity, Run, write_run
from ..storage.weights import put_weights
from .callbacks import Callback, checked_callbacks
from .following import Following
from .loggers import loggers_of
from .metrics import HELD_OUT, METRICS, OF_TARGETS, Epoch, Evaluation, evaluate
from .optimization import build_optimizer, build_scheduler, clip_gradients, step_scheduler
from .preparation import (
    Data,
    completed,
    in_outputs,
    kept_examples,
    new_system,
    open_source,
    run_attributes,
    unnamed_targets,
    with_arguments,
    with_dtype,
    with_room,
)
from .results import TrainingResult
from .resuming import (
    BACKWARD,
    EXAMPLES,
    KEPT_EPOCH,
    TEST_READ,
    Interruption,
    check_examples,
    check_given,
    check_resumable,
    copied,
    digest_of,
    interruptible,
    past_metrics,
    told_backward,
)
from .seeds import SeedsResult, train_seeds
from .selection import Selection

SEGMENT = 64
"""Batches after which an epoch under `training.checkpoint_minutes` may be cut. The estimator is made anew there,
cut or not, so that the clock changes no bit; another number gives other random signs and other measured betas."""

Backward = Callable[[PhysicalSystem, torch.Tensor, torch.Tensor], StepLike]
"""Fills `.grad` with the batch mean for (system, x, y), as `EquilibriumPropagation.backward` does."""


class TrainingStoppedError(RuntimeError):
    """Raised when equilibria cease to converge; the run file holds the last complete epoch."""

    exit_status = 1


class TrainingInterrupted(KeyboardInterrupt):
    """Raised by Ctrl-C; the run file holds the last complete epoch, and the message tells how to resume."""


def train(
    config: str | os.PathLike[str] | Mapping[str, Any] | Config,
    *,
    overrides: Iterable[str] = (),
    out: str | os.PathLike[str] | None = None,
    resume: str | os.PathLike[str] | None = None,
    data: Data | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    seed: int | None = None,
    progress: Progress | bool = SILENT,
    backward: Backward | None = None,
    callbacks: Iterable[Callback] = (),
    overwrite: bool = False,
    rewind: bool = False,
    workers: int = 1,
) -> TrainingResult | SeedsResult:
    """Train a system as a config says.

    Several processes may train one system: started by torchrun, or within a group of torch.distributed that the
    caller has set up, each takes its share of every batch. The figures are those of all, and the first writes the
    run file.

    Parameters
    ----------
    config : path, str, mapping or Config
        TOML file, name of a bundled config, or the sections themselves.
    overrides : iterable of str
        'section.key=value', as the command's --set.
    out : path, optional
        Run file, written after each epoch. Default: `resume`, else none is written.
    resume : path, optional
        Run file to go on from. The config must be the one it was begun with, but for more epochs.
    data : path, Dataset, tuple of arrays or of loaders, optional
        Folder with the data, or the data themselves, instead of what the config names: arrays (x, y), of which a
        share is held back, or (x, y, test_x, test_y), read as those of an npz file; or two loaders, such as torch's
        DataLoader, that yield (x, y): examples (B, ...) and class indices (B,), or measured targets (B, n). Each
        process gives its own loaders, with equally many batches to train on.
    device, dtype, seed
        Instead of the config's.
    progress : Progress
        Told of every batch and epoch.
    backward : callable, optional
        (system, x, y) -> step, instead of equilibrium propagation: exact gradients, say. With several processes it
        brings `.grad` in line itself. The run file has its `description`, or name, and goes on with no other.
    callbacks : iterable of Callback
        Called before the first batch, after each batch, after each epoch, which they may make the last one, and
        at the end. Loggers that the config names come after them.
    overwrite : bool
        Let `out` replace a file that is there and is not `resume`: another training, say.
    rewind : bool
        Go on from the epoch of `resume` with the smallest training loss, and drop those after it. [ep],
        `training.max_skipped` and `training.on_unconverged` may be changed then and, without a scheduler, the
        options of the optimizer: a smaller lr after a divergence, say. The file says so: attribute `rewound`.
    workers : int
        Processes that share the trainings of `training.seeds`.

    Returns
    -------
    TrainingResult
        A `SeedsResult` where `training.seeds` is above 1: each seed then has its own run file beside `out`,
        RUN.seed0.h5 and so on, and `resume` names RUN.h5.

    Raises
    ------
    InputError
        If anything given is wrong; nothing has been written then. Of an image file that cannot be decoded this is
        known only once its turn comes.
    TrainingStoppedError
        If more than `training.max_skipped` of an epoch's examples had no equilibrium.
    TrainingInterrupted
        On Ctrl-C.
    """
    called = checked_callbacks(callbacks)
    with writing("physics_ep.train", overwrite=overwrite, inputs={"resume": resume}) as call:
        settings = with_arguments(load_config(config, overrides), data, device, dtype, seed)
        settings = with_room(completed(settings, data, progress))
        if settings.training.seeds > 1:
            if rewind:
                must = "be left out where several seeds are trained: rewind the run file of one of them"
                raise argument_error("rewind", must, rewind)
            options = {"data": data, "overwrite": overwrite, "callbacks": called, "backward": backward}
            try:
                return train_seeds(
                    train,
                    settings,
                    call,
                    out=out,
                    resume=resume,
                    workers=workers,
                    options={**options, "progress": progress},
                )
            except KeyboardInterrupt as stop:
                base = resume if out is None else out
                again = as_asked(f"--resume {base}", f"resume={str(base)!r}")
                kept = "nothing was kept" if base is None else f"complete epochs are kept: resume with {again}"
                raise TrainingInterrupted(f"interrupted while several seeds were trained; {kept}") from stop
        if workers != 1:
            raise argument_error("workers", "come with training.seeds above 1", workers)
        if resume is not None and not checked_path(resume, "resume").is_file():
            raise argument_error("resume", "be a run file", f"{os.fspath(resume)!r}, which is no file")
        previous = None if resume is None else open_run(resume)
        if previous is not None:
            check_resumable(previous, settings, rewind)
            check_given(previous, backward, data)
        elif rewind:
            raise argument_error("rewind", "be left out without a run to resume", rewind)
        out = resume if out is None else out
        count = settings.training.threads or torch.get_num_threads()
        cores = os.cpu_count() or 1
        if previous is None and settings.training.threads and count > cores:
            raise argument_error("training.threads", f"be at most the {cores} cores there are", count)
        if previous is not None:
            count = int(previous.attributes["threads"])
        # One of several processes writes.
        path = None if out is None else call.claim("out", out, goes_on=resume, lock=rank() == 0)
        place = join_group(resolve_device(settings.training.device))
        called += loggers_of(settings, path, resume)
        if settings.training.checkpoint_minutes and world_size() > 1:
            must = "be left out where several processes train: they write whole epochs"
            raise argument_error("training.checkpoint_minutes", must, settings.training.checkpoint_minutes)
        system = new_system(settings)
        require_trained(system)
        settings = with_dtype(settings, system)
        source = open_source(settings, data, system, place, progress)
        system.to(place, resolve_dtype(settings.training.dtype))
        work_in(system, settings.training.dtype)
        if source.sample is not None:
            size, starts = settings.training.batch_size, settings.ep.starts
            at_once = size if source.examples is None else min(size, source.examples)
            require_room("training.batch_size", at_once, system, source.sample, each=starts)
        with threads(count):
            trainer = _Trainer(
                config=settings,
                system=system,
                data=source,
                path=path,
                progress=progress,
                backward=backward,
                callbacks=called,
                examples={} if path is None else kept_examples(source, data),
            )
            if previous is not None:
                trainer.restore(previous, rewind)
            result = trainer.run()
    for callback in called:  # the file is free by then
        callback.on_end(result)
    return result


class _Trainer:
    """The state of one training run."""

    def __init__(
        self,
        *,
        config: Config,
        system: PhysicalSystem,
        data: BatchSource,
        path: Path | None,
        progress: Progress | bool,
        backward: Backward | None,
        callbacks: tuple[Callback, ...] = (),
        examples: dict[str, torch.Tensor] | None = None,
    ) -> None:
        self.config = config
        self.callbacks = callbacks
        self.examples = examples or {}
        self.system = system
        self.data = data
        self.path = path
        self.progress = progress
        self.backward, self.following = backward, Following()
        self.cost = config.ep.new_cost()
        self.optimizer = build_optimizer(config.optimizer, system)
        self.optimizer.register_step_post_hook(lambda *_: system.constrain())
        self.scheduler = build_scheduler(config.scheduler, self.optimizer, config.training.epochs, data.batches)
        self.selection = Selection(config, measured=data.targets is not None)
        self.measured = METRICS | HELD_OUT if self.selection.held_out else METRICS
        self.by_batch = config.scheduler is not None and config.scheduler.per == "batch"
        self.rows: list[dict[str, Any]] = []
        self.interruption = Interruption()
        self.stage = "epoch 1"
        self.kept: tuple[int, Path | None] = (0, None)
        self.best = self.selection.start()  # with `state`, unless it is the last epoch's
        self.last: dict[str, Any] = {}  # state at the start of the epoch, where the file may be written within
        self.within: dict[str, Any] = {}  # an epoch that a resumed run had begun, or what of one is in the file
        self.written = time.monotonic()
        self.attributes = run_attributes(config) | ({} if backward is None else {BACKWARD: told_backward(backward)})
        digest = digest_of(data.data, config.data, bool(self.examples)) if isinstance(data, InMemory) else None
        if digest is not None:
            self.attributes[EXAMPLES] = digest
        self.n_outputs = data.n_outputs
        self.targets: dict[str, Any] | None = None
        if data.targets is not None:
            self._measure(in_outputs(data.targets, config.ep.target))
        if data.sample is not None:
            system.check_input(data.sample)

    def _measure(self, targets: dict[str, Any]) -> None:
        """Tell how far outputs are from measured targets, whose names and scales these are."""
        self.attributes["targets"] = self.targets = targets
        parts = ("test", "validation") if self.selection.held_out else ("test",)
        self.measured = self.measured | {f"{p}_{name}": told for p in parts for name, told in OF_TARGETS.items()}

    def restore(self, run: Run, rewind: bool = False) -> None:
        """Take up the last state of a run file, or the best one."""
        for name, kept in run.examples.items() if isinstance(self.data, InMemory) else ():
            if not self.examples or not torch.equal(kept, self.examples[name]):
                must = "be the examples that the run was trained on, to resume it"
                raise argument_error("data", must, "others" if name == "x" else "other targets")
        name = "data" if self.examples else "data.file"
        check_examples(run, self.config.data, self.attributes.get(EXAMPLES), name)
        state, epochs = dict(run.resume), run.epochs
        self.best, self.within = dict(state.pop("best", {})), state.pop("within", {})
        if not self.best and epochs:  # a run of an earlier release
            self.best = {"epochs": epochs, "loss": float(run.metric("loss")[-1])}
        if not self.best:
            self.best = self.selection.start()
        state["weights"] = run.state_dict
        told = run.attributes.get("rewound")
        if rewind:
            if not self.best["epochs"]:
                raise argument_error("resume", "be a run with a complete epoch, to rewind it", repr(str(run.path)))
            before = f"from epoch {epochs} to {self.best['epochs']}; till then {json.dumps(run.config)}"
            told = f"{told}; {before}" if told else before
            state, epochs, self.within = self.best.pop("state", state), self.best["epochs"], {}
        if told:
            self.attributes["rewound"] = told
        groups = self.optimizer.param_groups
        fresh = [{name: value for name, value in group.items() if name != "params"} for group in groups]
        self._put(state, run.path)
        if rewind and self.scheduler is None:
            for group, options in zip(self.optimizer.param_groups, fresh, strict=True):
                group.update(options)
        if epochs and self.best["epochs"] == epochs:
            self.best["state"] = copied(self._state())
        if self.targets is None and "targets" in run.attributes:
            self._measure(run.attributes["targets"])
        columns = past_metrics(run, self.measured, len(self.targets["names"]) if self.targets else 0)
        self.rows = [{name: column[k] for name, column in columns.items()} for k in range(epochs)]
        self.kept = (epochs, run.path)
        for name in (TEST_READ, KEPT_EPOCH):
            if name in run.attributes:
                self.attributes[name] = run.attributes[name]

    def _put(self, state: dict[str, Any], path: Path | None = None) -> None:
        """Take up weights, optimizer and scheduler."""
        put_weights(self.system, state["weights"], path)
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])

    def _state(self) -> dict[str, Any]:
        """Weights, optimizer and scheduler as they are, for `_put`."""
        return {
            "weights": self.system.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
        }

    def run(self) -> TrainingResult:
        """Train the epochs that are left."""
        training = self.config.training
        first = len(self.rows)
        total = (training.epochs - first) * (self.data.examples or 0)
        self.written = time.monotonic()
        try:
            past = [dict(row) for row in self.rows]
            for callback in self.callbacks:
                callback.on_begin(self.system, self.config, past)
            with interruptible() as self.interruption, task(self.progress, "training", total=total) as advance:
                for epoch in range(first, training.epochs):
                    if TEST_READ in self.attributes or self.selection.exhausted(self.rows):
                        break
                    self._epoch(epoch, advance)
                    self._save()
                    # All are asked; one is enough, and all processes end together.
                    asked = [c.on_epoch(self.system, epoch, dict(self.rows[-1])) for c in self.callbacks]
                    if self.callbacks and summed([float(any(asked))], self.system.device)[0]:
                        break
                if self.selection.held_out and TEST_READ not in self.attributes:
                    self._test()
        except KeyboardInterrupt:
            raise TrainingInterrupted(f"interrupted in {self.stage}; {self._remedy()}") from None
        except InputError as error:
            if not self.rows:
                raise
            raise InputError(f"{error} Training stopped in {self.stage}; {self._remedy()}") from error
        return TrainingResult(
            self.system,
            self.config,
            self._columns(),
            self._seconds(),
            self.path,
            tuple(dict.fromkeys(self.data.broken)),
            kept_epoch=self.attributes.get(KEPT_EPOCH),
            test_read=self.attributes.get(TEST_READ),
            targets=self.targets,
            taken=self.data.data.taken if isinstance(self.data, InMemory) else None,
        )

    def _epoch(self, epoch: int, advance: Callable[..., None]) -> None:
        training = self.config.training
        self.stage = f"epoch {epoch + 1}"
        began = time.perf_counter()
        device, known = self.system.device, len(self.data.broken)
        backward = self._gradient(epoch)
        rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        seen = Epoch(self.system)
        if training.checkpoint_minutes:
            self.last = copied(self._state())
        done = int(self.within.get("batches", 0))
        if done:
            self._put(self.within["state"])
            seen.restore(self.within["sums"], device)
            began -= self.within["seconds"]
            advance(seen.examples)
        with closing(in_step(self.data.epoch(epoch), device)) as batches:
            for batch, (x, labels) in enumerate(batches):
                self.interruption.check()
                if batch < done:
                    continue
                if training.checkpoint_minutes and batch and batch % SEGMENT == 0:
                    backward = self._gradient(epoch, batch // SEGMENT)
                    self._save_within(batch, seen, time.perf_counter() - began)
                self.optimizer.zero_grad()
                step = self._step(backward, x, labels, first=epoch == 0 and not seen.batches)
                examples, used = self._added(seen, step, labels)
                # Without a known length, what is lost can only be judged at the end.
                if seen.skipped > training.max_skipped * (self.data.examples or math.inf):
                    raise self._too_many_skipped(seen)
                if used:
                    clip_gradients(self.system.parameters(), training.clip_norm)
                    self.optimizer.step()
                if self.by_batch:
                    step_scheduler(self.scheduler)
                for callback in self.callbacks:
                    callback.on_step(self.system, epoch, seen.batches - 1, step)
                advance(examples)
        if seen.skipped > training.max_skipped * seen.examples:
            raise self._too_many_skipped(seen)
        self._require(seen.examples, "training")
        row = seen.figures(device)
        self._require_finite(seen, row["loss"])
        self._warn_of(seen)
        judges = "validation" if self.selection.held_out else "test"
        row.update(dict.fromkeys(("test_error", "test_top5_error", "test_loss", "test_unconverged"), math.nan))
        if self.targets is not None:
            unread = np.full(len(self.targets["names"]), math.nan)
            row.update({f"test_{name}": unread for name in OF_TARGETS})
        row.update(self._evaluated(judges))
        if not self.by_batch:
            step_scheduler(self.scheduler, row[self.selection.figure])
        row["broken"] = int(summed([float(len(self.data.broken) - known)], device)[0])
        row["learning_rates"] = np.array(rates)
        row["seconds"] = time.perf_counter() - began
        self.rows.append(row)
        self.within = {}
        advance(
            0,
            epoch=f"{epoch + 1}/{training.epochs}",
            loss=row["loss"],
            **_told(row, judges),
        )

    def _test(self) -> None:
        """Read the test set, with the weights of the epoch that the examples held out have chosen."""
        self.stage = "the test"
        kept = int(self.best["epochs"])
        if not kept:
            why = "none of the examples held out had an equilibrium after any epoch, so that none can be chosen"
            raise TrainingStoppedError(f"training stopped before the test: {why}; {self._remedy()}")
        if "state" in self.best:
            self._put(self.best.pop("state"), self.path)
        self.rows[kept - 1].update(self._evaluated("test"))
        self.attributes[KEPT_EPOCH] = kept
        self.attributes[TEST_READ] = datetime.now(UTC).isoformat(timespec="seconds")
        if self.path is not None:
            self._write(self._state())

    def _too_many_skipped(self, seen: Epoch) -> TrainingStoppedError:
        limit = f"more than {self.config.training.max_skipped:.2%} of its examples did not converge"
        count = f"{seen.skipped} of the first {seen.examples}" + (f"; {seen.reason}" if seen.reason else "")
        return TrainingStoppedError(
            f"training stopped in epoch {len(self.rows) + 1}: {limit} ({count}); {self._remedy()}, or start anew "
            f"with {self._smaller_rate()} or beta, or more ep.max_iterations"
        )

    def _added(self, seen: Epoch, step: StepLike, labels: torch.Tensor) -> tuple[int, int]:
        """`Epoch.add`, for what cannot be trusted to be finite too."""
        if self.backward is not None:
            broken = [n for n, p in self.system.named_parameters() if p.grad is not None and not all_finite(p.grad)]
            if broken:
                raise self._stopped(f"the gradient of {broken[0]} is NaN or infinite")
        try:
            return seen.add(step, labels)
        except NotFinite as error:
            raise self._stopped(str(error)) from error

    def _require_finite(self, seen: Epoch, loss: float) -> None:
        """Stop where an epoch has left no loss, or no weights, to go on from."""
        if not math.isfinite(loss):
            raise self._stopped(
                f"the loss is not finite: none of {seen.examples} examples gave a gradient"
                + (f"; {seen.reason}" if seen.reason else "")
            )
        broken = [name for name, p in self.system.named_parameters() if not all_finite(p.detach())]
        if broken:
            raise self._stopped(f"{broken[0]} has become NaN or infinite; start anew with {self._smaller_rate()}")

    def _smaller_rate(self) -> str:
        """What to begin anew with; the recipe's rate where another was asked for."""
        lr, usual = self.config.optimizer.options.get("lr"), told_rate(self.config)
        return f"a smaller lr ({lr:.3g} was asked for, {usual})" if usual else "a smaller lr"

    def _stopped(self, why: str) -> TrainingStoppedError:
        return TrainingStoppedError(f"training stopped in epoch {len(self.rows) + 1}: {why}; {self._remedy()}")

    def _warn_of(self, seen: Epoch) -> None:
        """Say, once an epoch, how many states were used though they are no equilibria."""
        used, left = (int(n) for n in summed([float(seen.unsettled), float(seen.switched)], self.system.device))
        left = left if self.config.training.on_unconverged == "warn" else 0
        if rank() or not (used or left):
            return
        why = f" (worst residual {seen.worst:.2g}: {seen.reason})" if used and seen.reason else ""
        message = (
            f"epoch {len(self.rows) + 1}: {used} of {seen.examples} training examples were used though a phase "
        )
        message += f"of theirs did not converge{why}"
        if left:
            message += f", and {left} states that are off their branch, or no minima"
        if seen.skipped:
            message += f"; {seen.skipped} were left out"
        warnings.warn(message, UnconvergedWarning, stacklevel=2)

    def _require(self, examples: int, part: str) -> None:
        if not examples:
            why = f": {self.data.broken[-1]}" if self.data.broken else "."
            raise InputError(f"There must be {part} examples, but none came{why}")

    def _gradient(self, epoch: int, segment: int = 0) -> Backward:
        """The gradient of this part of an epoch. EP is made anew each time: its random signs and its measured
        stability limit then depend on the part alone, and a resumed run repeats them."""
        if self.backward is not None:
            return self.backward
        ep, training = self.config.ep, self.config.training
        if ep.estimator == "backprop":
            return Backprop(self.cost).backward
        options: dict[str, Any] = {} if ep.gates is None else {"gates": ep.gates}
        found = EquilibriumPropagation(
            self.cost,
            scheme=ep.scheme,
            beta=ep.beta,
            solver=ep.solver,
            tolerance=ep.tolerance,
            max_iterations=ep.max_iterations,
            on_unconverged=training.on_unconverged,
            starts=ep.starts,
            branches=ep.branches,
            method=ep.method,
            generator=torch.Generator().manual_seed(
                epoch_seed(training.seed, epoch, 1, *([segment] if segment else []))
            ),
            **options,
        )
        return self.following.backward(found, epoch) if ep.lower_beta else found.backward

    def _step(self, backward: Backward, x: torch.Tensor, labels: torch.Tensor, first: bool) -> StepLike:
        if first and labels.is_floating_point():
            self._require_measurable()
        if self.n_outputs is None:
            self.system.check_input(x)
            self.n_outputs = self.system.outputs(self.system.initial_state(x[:1])).shape[1]
        y = self.cost.encode(labels, self.n_outputs, self.system.dtype)
        try:
            with warnings.catch_warnings():
                # Of states used though they did not settle, a run speaks once an epoch, with their number.
                warnings.simplefilter("ignore", UnconvergedWarning)
                return backward(self.system, x, y)
        except torch.OutOfMemoryError:
            raise TrainingStoppedError(self._too_large(backward, x, y)) from None
        except (InputError, NotConverged) as error:
            if first and isinstance(error, InputError):
                raise  # the config is wrong from the start
            raise TrainingStoppedError(
                f"training stopped in epoch {len(self.rows) + 1}: {error} {self._remedy()}"
            ) from error

    def _require_measurable(self) -> None:
        """Refuse what measured targets have no use for."""
        if not self.cost.measures:
            must = f"be {SquaredError.name!r} for targets that are measured numbers"
            raise argument_error("ep.cost", must, repr(self.config.ep.cost))

    def _too_large(self, backward: Backward, x: torch.Tensor, y: torch.Tensor) -> str:
        """What to say where a batch does not fit the device's memory: which one would, by trying halves."""
        if world_size() > 1:  # the ranks reduce together, so that one cannot try alone
            share = f"{len(x)} examples a process"
            return f"out of memory on {x.device} with {share}: lower training.batch_size. {self._remedy()}"
        fits, count = 0, len(x) // 2
        while count and not fits:
            self.optimizer.zero_grad()
            if x.is_cuda:
                torch.cuda.empty_cache()
            try:
                backward(self.system, x[:count], y[:count])
                fits = count
            except torch.OutOfMemoryError:
                count //= 2
        remedy = f"{fits} would fit: set training.batch_size={fits}" if fits else "not even one fits"
        return f"out of memory on {x.device} with {len(x)} examples at once; {remedy}. {self._remedy()}"

    def _evaluated(self, part: str) -> dict[str, Any]:
        """Figures of the 'test' set, or of the examples held out for 'validation'."""
        ep = self.config.ep
        alone = evaluate(
            self.system,
            self.data.test() if part == "test" else self.data.validation(),
            solver=ep.solver,
            tolerance=ep.tolerance,
            max_iterations=ep.max_iterations,
            starts=ep.starts,
            seed=self.config.training.seed,
            cost=self.cost,
        )
        found: Evaluation = alone.of_all_ranks(self.system.device)
        self._require(found.examples, part)
        if found.misses is not None and self.targets is None:  # of loaders, whose targets are as they are
            self._measure(in_outputs(unnamed_targets(len(found.misses.squares)), ep.target))
        return found.figures(part, self.targets)

    def _save(self) -> None:
        """Write the run after an epoch, which becomes the best one if its figure is the smallest so far."""
        if self.path is None and not self.selection.held_out:
            return
        row, epochs = self.rows[-1], len(self.rows)
        if self.selection.improved(self.best, row):
            self.best = {"epochs": epochs, self.selection.figure: float(row[self.selection.figure])}
        if self.path is not None:
            self._write(self._state())
        if self.best["epochs"] == epochs and epochs < self.config.training.epochs:
            self.best["state"] = copied(self._state())  # the next epoch may be no better

    def _save_within(self, batches: int, seen: Epoch, seconds: float) -> None:
        """Write the run within an epoch, if it is time to: what the file holds of the last epoch stays."""
        minutes = self.config.training.checkpoint_minutes
        if self.path is None or minutes is None or time.monotonic() - self.written < 60 * minutes:
            return
        self.within = {"batches": batches, "sums": seen.state(), "seconds": seconds, "state": self._state()}
        self._write(self.last)

    def _write(self, last: dict[str, Any]) -> None:
        """Write the run with this state of the last complete epoch, the best one, and an epoch that has begun."""
        best = dict(self.best)
        if best["epochs"] == len(self.rows):
            best.pop("state", None)
        resume = {"optimizer": last["optimizer"], "scheduler": last["scheduler"], "best": best}
        run = Run(
            attributes={**self.attributes, "epochs": len(self.rows), "seconds": self._seconds()},
            metrics={n: Quantity(v, *self.measured[n]) for n, v in self._columns().items()},
            state_dict=last["weights"],
            examples=self.examples,
            resume={**resume, "within": self.within} if self.within else resume,
        )
        # A file that is there and a message that says there is none would part ways.
        with self.interruption.deferred():
            if rank() == 0:
                assert self.path is not None
                write_run(self.path, run)
            meet(self.system.device)
            self.kept = (len(self.rows), self.path)
            self.written = time.monotonic()

    def _columns(self) -> dict[str, np.ndarray]:
        return {name: np.array([row[name] for row in self.rows]) for name in self.measured}

    def _seconds(self) -> float:
        return float(sum(row["seconds"] for row in self.rows))

    def _remedy(self) -> str:
        epochs, path = self.kept
        if path is None:
            return "no complete epoch was kept"
        kept = [f"epochs 1 to {epochs}"] if epochs else []
        if self.within:
            kept.append(f"{self.within['batches']} batches of epoch {epochs + 1}")
        resume = as_asked(f"--resume {path}", f"resume={str(path)!r}")
        told = f"{' and '.join(kept) or 'initial weights'} are kept: resume with {resume}"
        best = int(self.best["epochs"])
        rewind = as_asked("--rewind", "rewind=True")
        return f"{told}, and with {rewind} from the best epoch, {best}" if 0 < best < epochs else told


def _told(row: Mapping[str, Any], judges: str) -> dict[str, str]:
    """What the line of progress says of an epoch beside its loss; a cost of one's own may tell no R2."""
    if not math.isnan(row["train_error"]):
        return {"train": f"{row['train_error']:.2%}", judges: f"{row[f'{judges}_error']:.2%}"}
    if f"{judges}_r2" in row:
        return {f"{judges} R2": f"{min(row[f'{judges}_r2']):.3g}"}
    return {f"{judges} loss": f"{row[f'{judges}_loss']:.3g}"}
