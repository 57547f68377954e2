"""The sources from which training draws its batches: examples in memory, image files decoded on the way, or a
caller's loaders.

All have the methods of `BatchSource`. A batch is this rank's share, on the device, in the dtype of the system.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sized
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader

from ..config import DataSection, TrainingSection
from ..errors import InputError, argument_error, unknown_name
from ..progress import SILENT, Progress
from ..ranks import Batch, batch_count, rank, share, shared_out, summed, world_size
from .datasets import Dataset, data_folder
from .given import checked_batch
from .held_out import parted
from .image_folders import STREAMED, Listing, list_parts
from .photographs import (
    DEVIATIONS,
    MEANS,
    TRAINING_VIEWS,
    Views,
    central_view,
    collated,
    read_view,
)

MOST_WORKERS = 16


class BatchSource(Protocol):
    """Where training and evaluation take their batches from.

    Attributes
    ----------
    n_outputs : int or None
        Number of classes or of measured targets. None: as many as the system has outputs.
    examples : int or None
        Number of examples of an epoch of training, by all ranks together; None if that cannot be told beforehand.
    batches : int or None
        Number of batches of an epoch of training; None if that cannot be told beforehand.
    sample : Tensor (1, ...) or None
        An input of the right shape, if one can be had before training.
    targets : dict or None
        Names of measured targets, with the shift and the scale that give them their own unit again; None: classes,
        or unknown.
    broken : list of str
        What was left out since it cannot be decoded, a line for each; it grows as batches are drawn.
    """

    broken: list[str]

    @property
    def targets(self) -> dict[str, Any] | None: ...

    @property
    def n_outputs(self) -> int | None: ...

    @property
    def examples(self) -> int | None: ...

    @property
    def batches(self) -> int | None: ...

    @property
    def sample(self) -> torch.Tensor | None: ...

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Batches of one epoch to train on; the same epoch number always gives the same batches."""

    def validation(self) -> Iterator[Batch]:
        """Batches held out of the training set by data.validation, to choose by; they are never trained on."""

    def test(self) -> Iterator[Batch]:
        """Batches to be tested on."""


class InMemory:
    """A `BatchSource` of examples in memory.

    Parameters
    ----------
    data : Dataset
        The examples, on the device and in the dtype of the system.
    training : TrainingSection
    section : DataSection
        What it says of `validation` and its `seed` counts.
    """

    def __init__(self, data: Dataset, training: TrainingSection, section: DataSection) -> None:
        self.data = data
        self.training = training
        self.n_outputs = data.n_outputs
        self.targets = data.target_scales
        kept, held = parted(data.train_y.cpu().numpy(), section)
        device = data.train_y.device
        self._kept, self._held = (torch.from_numpy(part).to(device) for part in (kept, held))
        self.examples = len(kept)
        self.batches = batch_count(self.examples, training.batch_size)
        self.sample = data.train_x[:1]
        self.broken: list[str] = []

    def epoch(self, epoch: int) -> Iterator[Batch]:
        x, labels = self.data.train_x, self.data.train_y
        generator = torch.Generator().manual_seed(epoch_seed(self.training.seed, epoch, 0))
        order = self._kept[torch.randperm(self.examples, generator=generator).to(x.device)]
        for chosen in shared_out(order, self.training.batch_size):
            batch = x[chosen]
            # Changed before it is shared out, so that the number of ranks changes no image.
            if self.data.augment is not None:
                batch = self.data.augment(batch, generator)
            yield share(batch), share(labels[chosen])

    def validation(self) -> Iterator[Batch]:
        for chosen in self._held.split(self.training.evaluation_batch_size):
            yield share(self.data.train_x[chosen]), share(self.data.train_y[chosen])

    def test(self) -> Iterator[Batch]:
        size = self.training.evaluation_batch_size
        for x, labels in zip(self.data.test_x.split(size), self.data.test_y.split(size), strict=True):
            yield share(x), share(labels)


class Stream:
    """A `BatchSource` of image files, which other processes decode while the system is trained.

    Parameters
    ----------
    section : DataSection
        Its name is one of `image_folders.STREAMED`.
    training : TrainingSection
    device, dtype
        Where the batches are and in which precision; images are normalised on that device.
    progress : Progress
        Shows how far the listing of the images is.

    Raises
    ------
    InputError
        If images are missing or without a class, or the section asks for what photographs do not have.
    """

    def __init__(
        self,
        section: DataSection,
        training: TrainingSection,
        device: torch.device,
        dtype: torch.dtype,
        progress: Progress | bool = SILENT,
    ) -> None:
        for key in ("pad_to", "download"):
            if getattr(section, key):
                raise argument_error(f"data.{key}", f"be left out for {section.name!r}", getattr(section, key))
        view = section.augmentation or TRAINING_VIEWS[0]
        if view not in TRAINING_VIEWS:
            raise unknown_name("data.augmentation", view, TRAINING_VIEWS)
        self.random = view == TRAINING_VIEWS[0]
        place = data_folder(section.folder, STREAMED[section.name])
        parts = list_parts(section, place, progress)
        self.section = section
        self.training = training
        self.device = device
        kept, held = parted(parts.train.labels, section)
        self.train_part, self.validation_part = parts.train.chosen(kept), parts.train.chosen(held)
        self.test_part = parts.test
        self.n_outputs = parts.n_classes
        self.targets = None
        self.examples = len(self.train_part)
        self.batches = batch_count(self.examples, training.batch_size)
        self.workers = _available_cores() if section.workers is None else section.workers
        self.broken: list[str] = []
        self._means, self._deviations = (
            torch.tensor(given or usual, dtype=dtype, device=device).view(3, 1, 1)
            for given, usual in ((section.means, MEANS), (section.deviations, DEVIATIONS))
        )
        self.sample = self._normalised(torch.zeros(1, 3, section.size, section.size, dtype=torch.uint8))

    def epoch(self, epoch: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(epoch_seed(self.training.seed, epoch, 0))
        order = torch.randperm(self.examples, generator=generator)
        draw = (self.training.seed, epoch) if self.random else None
        return self._batches(self.train_part, draw, shared_out(order, self.training.batch_size))

    def validation(self) -> Iterator[Batch]:
        return self._all_of(self.validation_part)

    def test(self) -> Iterator[Batch]:
        return self._all_of(self.test_part)

    def _all_of(self, part: Listing) -> Iterator[Batch]:
        return self._batches(part, None, torch.arange(len(part)).split(self.training.evaluation_batch_size))

    def _batches(
        self, part: Listing, draw: tuple[int, int] | None, chosen: Iterable[torch.Tensor]
    ) -> Iterator[Batch]:
        loader = DataLoader(
            Views(part, self.section.size, draw),
            batch_sampler=(share(which).tolist() for which in chosen),
            num_workers=self.workers,
            collate_fn=collated,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # else the loader would draw from the global one
        )
        for images, labels, broken in loader:
            if broken and self.section.on_broken == "refuse":
                raise InputError(f"{broken[0]} Mend or remove it, or set data.on_broken to 'skip'.")
            self.broken += broken
            yield self._normalised(images), labels.to(self.device, non_blocking=True)

    def _normalised(self, images: torch.Tensor) -> torch.Tensor:
        x = images.to(self.device, non_blocking=True).to(self._means.dtype)
        x = x.div_(255).sub_(self._means).div_(self._deviations)
        return x.flatten(1) if self.section.layout == "flat" else x


class Loaders:
    """A `BatchSource` of loaders that the caller gives.

    Parameters
    ----------
    train, test : iterable
        Batches (x, y), anew each epoch: torch's DataLoader, say; y are class indices (B,) or measured targets
        (B, n). Several processes give each its own, with equally many batches to train on.
    seed : int
        What the loaders draw from torch's global generator, or from their own, is seeded by it and the epoch.
    device, dtype
        Where the batches are, and in which precision.

    """

    sample = None
    n_outputs = None
    targets = None

    def __init__(
        self, train: Iterable[Any], test: Iterable[Any], seed: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.train_part, self.test_part = train, test
        self.seed = seed
        self.device = device
        self.dtype = dtype
        self.broken: list[str] = []
        try:
            own = len(train.sampler)  # type: ignore[attr-defined]
        except (AttributeError, TypeError):
            own = None
        told, count = summed([float(own is not None), float(own or 0)], device)
        self.examples = int(count) if told == world_size() else None
        self.batches = len(train) if isinstance(train, Sized) else None

    def epoch(self, epoch: int) -> Iterator[Batch]:
        loader: Any = self.train_part
        generator = getattr(loader, "generator", None)
        if isinstance(generator, torch.Generator):
            generator.manual_seed(epoch_seed(self.seed, epoch, 0))
        if hasattr(getattr(loader, "sampler", None), "set_epoch"):
            loader.sampler.set_epoch(epoch)
        return self._batches(loader, epoch_seed(self.seed, epoch, 3, rank()))

    def validation(self) -> Iterator[Batch]:
        raise argument_error("data.validation", "be left out where loaders are given", "given")

    def test(self) -> Iterator[Batch]:
        return self._batches(self.test_part, epoch_seed(self.seed, 0, 4, rank()))

    def _batches(self, loader: Iterable[Any], seed: int) -> Iterator[Batch]:
        # A loader without a generator of its own draws from the global one: lend it a seeded one.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for batch in loader:
                x, y = (t.to(self.device, non_blocking=True) for t in checked_batch(batch))
                yield x.to(self.dtype), y.to(self.dtype) if y.is_floating_point() else y


def epoch_seed(seed: int, epoch: int, *stream: int) -> int:
    """Seed of one random stream in one epoch; neighbouring seeds and epochs give unrelated streams."""
    return int(np.random.SeedSequence([seed, epoch, *stream]).generate_state(1, np.uint64)[0] >> 1)


def _available_cores() -> int:
    """Cores for this process to decode on, of which those on the same machine have their part."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MOST_WORKERS, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def photographs(
    folder: str | os.PathLike[str], size: int, count: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """A few labelled photographs of a folder, in their central views, normalised as for training.

    Parameters
    ----------
    folder : path
        Folder of images, laid out as 'image-folder' reads it.
    size : int
        Rows and columns.
    count : int
    seed : int
        Seed of the random draw that decides which images are taken.

    Returns
    -------
    x : Tensor (count, 3, size, size)
    labels : Tensor (count,)

    Raises
    ------
    InputError
        If there are too few, or one cannot be decoded.
    """
    section = DataSection(name="image-folder", folder=os.fspath(folder), augmentation="centre")
    parts = list_parts(section, data_folder(section.folder, ()))
    found = [(part, k) for part in (parts.train, parts.test) for k in range(len(part))]
    if len(found) < count:
        raise argument_error("images", f"hold at least {count} labelled images", f"{len(found)} of them")
    order = np.random.default_rng(seed).permutation(len(found))[:count]
    views, labels = [], []
    for part, k in (found[i] for i in order):
        pixels = read_view(part.path(k), lambda image: central_view(image, size))
        if isinstance(pixels, str):
            raise InputError(pixels)
        views.append(torch.tensor(pixels))
        labels.append(int(part.labels[k]))
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in (MEANS, DEVIATIONS))
    return (torch.stack(views).float() / 255 - mean) / deviation, torch.tensor(labels)
