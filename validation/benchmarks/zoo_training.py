"""Train the networks of `physics_ep.zoo` on CIFAR-10, by EP or by backprop, under one recipe.

    python -m validation.benchmarks.zoo_training --rule ep|backprop --out RUN.h5 [--images DIR] [--resume]
    python -m validation.benchmarks.zoo_training --export RUN.h5 --out NAME.safetensors [--images DIR]

The recipe is the bundled config vgg10-eighth-cifar10. 500 images of each class of the training set are held out, by
a fixed draw, and their error after each epoch is the run's "test" error: the test set takes no part. `--export`
writes the weights of a run in float16, as safetensors, and reads the test set, once: its error stands beside the
file's sha256 in index.json beside it, as entries of physics_ep/zoo/index.json.

A run file is written after each epoch, and `--resume` goes on from it. One thread; an epoch takes some 20 s of one
core by backprop and twice as long by EP.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from physics_ep.data.datasets import Dataset, load_dataset
from physics_ep.errors import InputError
from physics_ep.progress import Advance
from physics_ep.storage.opening import open_run
from physics_ep.storage.outputs import writing
from physics_ep.zoo import add_to_zoo

CONFIG = "vgg10-eighth-cifar10"
HELD_OUT = 500
"""Images of each class that are held out of the training set."""


def parted(data: Dataset, each: int = HELD_OUT, seed: int = 0) -> Dataset:
    """The training set alone, with some images of each class in the place of the test set.

    Parameters
    ----------
    data : Dataset
    each : int
        Images of each class to hold out.
    seed : int
        Seed of the random draw.

    Returns
    -------
    Dataset
        Its `test_x` and `test_y` are held out of the training set of `data`.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(data.train_x), generator=generator)
    classes = data.train_y[order]
    held = torch.cat([order[classes == k][:each] for k in range(data.n_outputs)])
    left = torch.ones(len(data.train_x), dtype=torch.bool)
    left[held] = False
    return Dataset(
        data.name,
        data.train_x[left],
        data.train_y[left],
        data.train_x[held],
        data.train_y[held],
        data.n_classes,
        data.augment,
    )


class EpochLines:
    """Progress as a line an epoch."""

    def task(self, description: str, total: int) -> EpochLines:
        return self

    def __enter__(self) -> Advance:
        return self._advance

    def __exit__(self, *_: object) -> None:
        return None

    def _advance(self, n: int = 1, **info: Any) -> None:
        if info:
            print("  ".join(f"{name} {value}" for name, value in info.items()), flush=True)


def images_of(folder: Path | None) -> Dataset:
    """CIFAR-10, its training images mirrored at random."""
    from physics_ep.config import DataSection, load_config  # pydantic, which a machine of benchmarks may lack

    place = None if folder is None else str(folder)
    section = load_config(CONFIG).data.model_dump()
    return load_dataset(DataSection(**{**section, "folder": place}))


def export(run: Path, out: Path, images: Path | None) -> dict[str, Any]:
    """Write a run's weights in float16 as safetensors, and what is known of them into the index.json beside.

    Parameters
    ----------
    run : Path
        Run file of a training.
    out : Path
        File of the weights, NAME.safetensors; their entry goes into index.json beside it.
    images : Path, optional
        Folder of CIFAR-10, whose test set is read.

    Returns
    -------
    dict
        The entry. Errors are fractions; that of the test set is of the weights in float16.
    """
    from physics_ep.runs.preparation import system_of

    found = open_run(run)
    weights = {name: tensor.half() for name, tensor in found.state_dict.items()}
    net = system_of(found)
    net.load_state_dict(weights)
    data = images_of(images)
    scores = torch.cat([net(part).detach() for part in data.test_x.split(500)])
    wrong = scores.argmax(1) != data.test_y
    data_told = "CIFAR-10 as JPEG (lossy), 45,000 of its training images; errors compare with each other alone"
    held_out = float(found.metric("test_error")[-1])
    error = float(wrong.double().mean())
    with writing("validation.benchmarks.zoo_training") as call:
        call.claim("out", out)
        call.claim("index", out.with_name("index.json"))
        return add_to_zoo(
            out.parent,
            out.stem,
            found,
            data_told,
            dtype=torch.float16,
            held_out_error=held_out,
            test_error=error,
        )


def main(words: list[str] | None = None) -> None:
    """Train a network of the zoo by the options of its command line."""
    parser = argparse.ArgumentParser(prog="python -m validation.benchmarks.zoo_training", description=__doc__)
    parser.add_argument("--rule", choices=("ep", "backprop"), default="ep")
    parser.add_argument("--images", type=Path, default=None, help="folder of CIFAR-10; default PHYSICS_EP_DATA")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--export", type=Path, default=None, help="run file whose weights go to --out")
    arguments = parser.parse_args(words)
    from physics_ep.runs.training import train  # needs pydantic, which --help does not

    try:
        if arguments.export is not None:
            entry = export(arguments.export, arguments.out, arguments.images)
            print(f"test set: {entry['test_error']:.2%} wrong; sha256 {entry['sha256']}")
            return
        found = train(
            CONFIG,
            overrides=[f"ep.estimator={arguments.rule}"],
            out=arguments.out,
            resume=arguments.out if arguments.resume else None,
            data=parted(images_of(arguments.images)),
            progress=EpochLines(),
        )
    except InputError as error:
        sys.exit(f"zoo_training: {error}")
    told = found.figures()
    print(f"held out: {found.test_error:.2%} wrong after {told['epochs']} epochs; {told['seconds']:.0f} s")


if __name__ == "__main__":
    main()
