"""CIFAR-10 and MNIST at 32x32 as bytes, from files that any machine can hold: decoded once, or where they are used.

CIFAR-10 from JPEG files is not the canonical set: its errors compare EP with backprop, not with published ones.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from physics_ep.data.cifar import VARIANTS
from physics_ep.data.datasets import GREY_STATISTICS, PARTS
from physics_ep.data.idx import read_idx
from physics_ep.data.images import Archive
from physics_ep.errors import InputError
from physics_ep.storage.files import replacing

SETS = {"cifar": "cifar10_jpeg", "mnist": "mnist"}
"""Part of the run to data set; the name says which CIFAR-10 it is."""

SIDE = 32


@dataclass(frozen=True)
class Examples:
    """Bytes of a set, as they are on disk, and what makes inputs of them.

    Attributes
    ----------
    train_x, test_x : Tensor (N, channels, 32, 32) of uint8
    train_y, test_y : Tensor (N,) of int64
    mean, std : Tensor (channels, 1, 1)
        Means and standard deviations of the levels in [0, 1].
    """

    train_x: torch.Tensor
    train_y: torch.Tensor
    test_x: torch.Tensor
    test_y: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor

    def to(self, device: torch.device) -> Examples:
        """The examples on another device."""
        return Examples(**{name: value.to(device) for name, value in vars(self).items()})

    def inputs(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised inputs, float32 and channels last."""
        levels = images.float().div_(255).sub_(self.mean).div_(self.std)
        return levels.contiguous(memory_format=torch.channels_last)


def shortened(data: Examples, train: int, test: int) -> Examples:
    """So many examples, evenly spaced: files may be in the order of their classes."""

    def spaced(values: torch.Tensor, count: int) -> torch.Tensor:
        return values[:: max(1, len(values) // count)][:count]

    return replace(
        data,
        train_x=spaced(data.train_x, train),
        train_y=spaced(data.train_y, train),
        test_x=spaced(data.test_x, test),
        test_y=spaced(data.test_y, test),
    )


def prepare(folder: Path, out: Path) -> list[Path]:
    """Decode the sets that a folder holds into uint8 arrays, one NAME.npz each in `out`.

    Parameters
    ----------
    folder : Path
        A folder with cifar10_jpeg.tar.xz, the IDX files of MNIST (plain or gzip; in the folder or in mnist/ in it),
        or both.
    out : Path

    Returns
    -------
    list of Path

    Raises
    ------
    InputError
        If it holds neither.
    """
    written = []
    for part, name in SETS.items():
        arrays = _decoded(part, folder)
        if arrays is not None:
            with replacing(out / f"{name}.npz") as temporary, open(temporary, "wb") as file:
                np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
            written.append(out / f"{name}.npz")
    if not written:
        raise InputError(f"Folder {str(folder)!r} must hold cifar10_jpeg.tar.xz or the files of MNIST.")
    return written


def load(part: str, folder: Path | None) -> Examples:
    """A set: from its NAME.npz, or else decoded from what `prepare` takes.

    Raises
    ------
    InputError
        If there is neither.
    """
    if folder is None:
        raise InputError(f"Part {part!r} needs data: name their folder with --data.")
    ready = folder / f"{SETS[part]}.npz"
    arrays: dict[str, np.ndarray] | None
    if ready.is_file():
        with np.load(ready, allow_pickle=False) as held:
            arrays = dict(held)
    else:
        arrays = _decoded(part, folder)
    if arrays is None:
        raise InputError(
            f"Folder {str(folder)!r} must hold {ready.name}, or what it is made of, for part {part!r}."
        )
    colours = VARIANTS["cifar10"]
    mean, std = (colours.mean, colours.std) if part == "cifar" else GREY_STATISTICS["mnist"]
    tensors = {key: torch.from_numpy(arrays[key]) for key in ("train_x", "train_y", "test_x", "test_y")}
    return Examples(**tensors, mean=torch.tensor(mean).view(-1, 1, 1), std=torch.tensor(std).view(-1, 1, 1))


def _decoded(part: str, folder: Path) -> dict[str, np.ndarray] | None:
    if part == "cifar":
        archive = folder / "cifar10_jpeg.tar.xz"
        return _decoded_images(archive) if archive.is_file() else None
    return _decoded_digits(folder)


def _decoded_images(archive: Path) -> dict[str, np.ndarray]:
    """train|test/CLASS/NAME.jpg, in the order of their names."""
    images = {name: content for name, content in sorted(Archive(archive).read())}
    classes = sorted({name.parent.name for name in images})
    found: dict[str, np.ndarray] = {}
    for part in ("train", "test"):
        names = [name for name in images if name.parent.parent.name == part]
        pixels = np.empty((len(names), 3, SIDE, SIDE), np.uint8)
        for k, name in enumerate(names):
            with Image.open(io.BytesIO(images[name])) as image:
                pixels[k] = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
        found[f"{part}_x"] = pixels
        found[f"{part}_y"] = np.array([classes.index(name.parent.name) for name in names], np.int64)
    return found


def _decoded_digits(folder: Path) -> dict[str, np.ndarray] | None:
    places = [place / f"{{}}{ending}" for place in (folder, folder / "mnist") for ending in ("", ".gz")]
    found: dict[str, np.ndarray] = {}
    for part, stems in PARTS.items():
        for axis, stem in zip("xy", stems, strict=True):
            paths = [Path(str(place).format(stem)) for place in places]
            path = next((p for p in paths if p.is_file()), None)
            if path is None:
                return None
            values, _ = read_idx(path, axes=3 if axis == "x" else 1)
            found[f"{part}_{axis}"] = values.astype(np.int64) if axis == "y" else _padded(values)
    return found


def _padded(images: np.ndarray) -> np.ndarray:
    """(N, 1, 32, 32), zeros around."""
    gaps = [SIDE - n for n in images.shape[1:]]
    return np.pad(images, [(0, 0), *((gap // 2, gap - gap // 2) for gap in gaps)])[:, None]
