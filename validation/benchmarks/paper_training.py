"""VGG5 on CIFAR-10 and MNIST by EP and by backprop, under the recipe of Kerjan 2026, in turns of an epoch.

SGD with Nesterov momentum 0.9 and weight decay 3e-4; rates fall by a cosine to 1e-6 over all epochs, from 0.01
(cross-entropy, batches of 64) or 0.04 (squared error, batches of 16). EP is centered, beta = 0.02, by the network's
default solver. CIFAR-10 is flipped and cropped; MNIST, padded to 32x32, is taken as it is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from physics_ep.cost import COSTS
from physics_ep.data.augmentation import AUGMENTATIONS
from physics_ep.errors import InputError
from physics_ep.estimators.propagation import EquilibriumPropagation, NegativeNudgeError
from physics_ep.extremes import greatest
from physics_ep.moved import moved_names
from physics_ep.predictive_coding import vgg5
from physics_ep.storage.files import replacing

from .small_images import SETS, SIDE, Examples

if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)

AUGMENTED = {"cifar": "flip-crop"}
RULES = ("EP", "backprop")
LAST_RATE = 1e-6


@dataclass(frozen=True)
class Schedule:
    """The schedule by which both rules train: epochs, rates, decay.

    Attributes
    ----------
    cost : {'cross_entropy', 'squared_error'}
    rate : float
        Learning rate at first.
    batch : int
    epochs : int
        Epochs over which the rate falls, whether or not so many are run.
    beta : float
    decay, momentum : float
    width : float
        Factor on the network's channels.
    seed : int
        Seed of weights, order and augmentation.
    """

    cost: str
    rate: float
    batch: int
    epochs: int = 100
    beta: float = 0.02
    decay: float = 3e-4
    momentum: float = 0.9
    width: float = 1.0
    seed: int = 0

    def rate_at(self, epoch: int) -> float:
        """Learning rate of an epoch, from 0."""
        return LAST_RATE + (self.rate - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))


SCHEDULES = {
    "cross_entropy": Schedule("cross_entropy", rate=0.01, batch=64),
    "squared_error": Schedule("squared_error", rate=0.04, batch=16),
}


class RuleTraining:
    """A network as one rule trains it, an epoch at a time, with a checkpoint after each.

    Every random choice of an epoch comes from a generator seeded by seed and epoch, so that a resumed run goes on
    as an uninterrupted one would.

    Parameters
    ----------
    rule : {'EP', 'backprop'}
    part : {'cifar', 'mnist'}
    schedule : Schedule
    channels : int
        Channels of an image.
    checkpoint : Path
    device : torch.device
    dtype : torch.dtype
        Precision that layers work in; weights are float32.

    Attributes
    ----------
    history : list of dict
        An epoch each: epoch, rate, loss, test_error, seconds, skipped, residual (worst), stability_limit.
    stopped : str
        Why it cannot go on; '' while it can.
    """

    def __init__(
        self,
        rule: str,
        part: str,
        schedule: Schedule,
        channels: int,
        checkpoint: Path,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.rule, self.schedule, self.checkpoint = rule, schedule, checkpoint
        self.change = AUGMENTATIONS[AUGMENTED[part]] if part in AUGMENTED else None
        self.network = vgg5(input_shape=(channels, SIDE, SIDE), width=schedule.width, seed=schedule.seed).to(device)
        self.network.compute_dtype = None if dtype == torch.float32 else dtype
        self.cost = COSTS[schedule.cost]()
        self.optimizer = torch.optim.SGD(
            self.network.parameters(),
            schedule.rate,
            momentum=schedule.momentum,
            weight_decay=schedule.decay,
            nesterov=True,
        )
        self.ep = EquilibriumPropagation(self.cost, beta=schedule.beta, on_unconverged="skip", measure_every=1000)
        self.history: list[dict[str, float]] = []
        self.stopped = ""

    @property
    def done(self) -> bool:
        """Whether no epoch is left to run."""
        return len(self.history) >= self.schedule.epochs or bool(self.stopped)

    def run_epoch(self, data: Examples) -> None:
        """Train for an epoch, test, and write the checkpoint."""
        begin, epoch = time.perf_counter(), len(self.history)
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.rate_at(epoch)
        generator = torch.Generator().manual_seed(1_000_003 * self.schedule.seed + epoch)
        order = torch.randperm(len(data.train_x), generator=generator).to(data.train_x.device)
        loss = torch.zeros((), device=data.train_x.device)
        skipped, residual = 0, 0.0
        learn = self._learn_ep if self.rule == "EP" else self._learn_backprop
        try:
            for rows in order.split(self.schedule.batch):
                x = data.inputs(data.train_x[rows])
                x = x if self.change is None else self.change(x, generator)
                y = self.cost.encode(data.train_y[rows], self.network.sizes[-1], torch.float32)
                self.optimizer.zero_grad(set_to_none=True)
                found, left_out, worst = learn(x, y)
                self.optimizer.step()
                loss += found * len(rows)
                skipped, residual = skipped + left_out, max(residual, worst)
        except NegativeNudgeError as error:
            self.stopped = str(error)
            return
        mean = float(loss) / len(order)
        if not math.isfinite(mean):
            self.stopped = "the loss is not finite"
            return
        self.history.append(
            {
                "epoch": epoch + 1,
                "rate": self.schedule.rate_at(epoch),
                "loss": mean,
                "test_error": self.test_error(data),
                "seconds": time.perf_counter() - begin,
                "skipped": skipped,
                "residual": residual,
                "stability_limit": self.ep.stability_limit,
            }
        )
        self.save()

    @torch.no_grad()
    def test_error(self, data: Examples, batch: int = 500) -> float:
        """Fraction of the test images that are misclassified."""
        wrong = torch.zeros((), dtype=torch.int64, device=data.test_x.device)
        for x, y in zip(data.test_x.split(batch), data.test_y.split(batch), strict=True):
            wrong += (self.network(data.inputs(x)).argmax(1) != y).sum()
        return int(wrong) / len(data.test_x)

    def save(self) -> None:
        """Write the checkpoint; a kill leaves the old one or the new one."""
        arrays = {f"history.{key}": np.array([h[key] for h in self.history]) for key in self.history[-1]}
        for name, p in self.network.named_parameters():
            arrays[f"weight.{name}"] = p.detach().cpu().numpy()
            arrays[f"momentum.{name}"] = self.optimizer.state[p]["momentum_buffer"].cpu().numpy()
        arrays["schedule"] = np.array(repr(self.schedule))
        with replacing(self.checkpoint) as temporary, open(temporary, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one.

        Raises
        ------
        InputError
            If it is of another schedule.
        """
        if not self.checkpoint.is_file():
            return
        with np.load(self.checkpoint, allow_pickle=False) as held:
            if str(held["schedule"]) != repr(self.schedule):
                raise InputError(f"Checkpoint {str(self.checkpoint)!r} is of another schedule: {held['schedule']}.")
            columns = {k.removeprefix("history."): held[k].tolist() for k in held if k.startswith("history.")}
            with torch.no_grad():
                for name, p in self.network.named_parameters():
                    p.copy_(torch.from_numpy(held[f"weight.{name}"]))
                    buffer = torch.empty_like(p).copy_(torch.from_numpy(held[f"momentum.{name}"]))
                    self.optimizer.state[p]["momentum_buffer"] = buffer
        self.history = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def _learn_ep(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, int, float]:
        step = self.ep.backward(self.network, x, y)
        return step.loss, step.skipped, greatest(float(e.residual.max()) for e in step.equilibria)

    def _learn_backprop(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, int, float]:
        loss = self.cost(self.network(x).float(), y).mean()
        loss.backward()
        return loss.detach(), 0, 0.0


def train(
    part: str,
    data: Examples,
    schedule: Schedule,
    out: Path,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    deadline: float = math.inf,
    resume: bool = False,
    report: Callable[[str], None] = print,
) -> list[dict[str, object]]:
    """Train by both rules, in turns of an epoch, until all epochs are run or time is up.

    Parameters
    ----------
    part : {'cifar', 'mnist'}
    data : Examples
        The examples, on the device.
    schedule : Schedule
    out : Path
        Folder of the checkpoints, PART-RULE.npz.
    deadline : float
        Value of time.perf_counter(); no epoch is begun that would not end by then.
    resume : bool
        Go on from the checkpoints.
    report : callable
        Told of each epoch, in a line.

    Returns
    -------
    list of dict
        A row a rule and epoch.
    """
    courses = [
        RuleTraining(rule, part, schedule, data.train_x.shape[1], out / f"{part}-{rule}.npz", device, dtype)
        for rule in RULES
    ]
    if resume:
        for course in courses:
            course.resume()
    while not all(course.done for course in courses):
        # The one that is behind, so that both stand at the same epoch whenever time is up.
        course = min((c for c in courses if not c.done), key=lambda c: len(c.history))
        due = max((h["seconds"] for h in course.history[-3:]), default=0.0)
        if time.perf_counter() + due > deadline:
            report(f"{part}: time is up after {len(course.history)} epochs; go on with --resume")
            break
        course.run_epoch(data)
        report(f"{part}, {course.rule}: {course.stopped or _told(course.history[-1])}")
    rows: list[dict[str, object]] = []
    for course in courses:
        rows += [{"set": SETS[part], "rule": course.rule, **h} for h in course.history]
        if course.stopped:
            rows.append({"set": SETS[part], "rule": course.rule, "stopped": course.stopped})
    return rows


def _told(h: dict[str, float]) -> str:
    return (
        f"epoch {h['epoch']:.0f}, loss {h['loss']:.4f}, test error {h['test_error']:.2%}, {h['seconds']:.1f} s, "
        f"{h['skipped']:.0f} skipped, worst residual {h['residual']:.1e}"
    )
