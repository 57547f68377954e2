"""ImageNet downsampled to 32x32 (Chrabaszcz, Loshchilov and Hutter 2017), as published for numpy.

The training set is train_data_batch_1.npz ... train_data_batch_10.npz, the validation set val_data.npz; each holds
`data` (N, 3072) uint8, red, then green, then blue, and `labels` from 1 to 1000. The version without .npz is a
pickle, which is code, and is not read.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..progress import SILENT, Progress, task
from ..storage.outputs import as_asked
from .idx import damaged
from .images import Images

FOLDERS = ("imagenet32", "Imagenet32", "ImageNet32", "imagenet-32")
TRAIN = tuple(f"train_data_batch_{k}.npz" for k in range(1, 11))
TEST = "val_data.npz"
CLASSES = 1000
SIDE = 32
CHUNK = 10_000
"""Images of which colours are counted at once: the count takes eight bytes for each."""


def absent(folder: Path | None) -> list[str]:
    """Files of the set that a folder lacks."""
    return [name for name in (*TRAIN, TEST) if folder is None or not (folder / name).is_file()]


def read_imagenet32(
    folder: Path, train: int | None = None, test: int | None = None, progress: Progress | bool = SILENT
) -> Images:
    """Read the training and test images of downsampled ImageNet (32 x 32 pixels).

    Parameters
    ----------
    folder : Path
    train, test : int or None
        Only the first so many images, and no more files than they need.
    progress : Progress

    Returns
    -------
    Images
        (N, 3, 32, 32), of fewer images than asked for where there are fewer; classes are numbered from 0.

    Raises
    ------
    InputError
        If a file is damaged or holds something else; in one line that names it.
    """
    batches: list[tuple[np.ndarray, np.ndarray]] = []
    with task(progress, "reading imagenet32", len(TRAIN) + 1) as advance:
        for name in TRAIN:
            if train is None or sum(len(y) for _, y in batches) < train:
                batches.append(_read(folder / name))
            advance(1)
        test_x, test_y = _read(folder / TEST)
        advance(1)
    return Images(
        np.concatenate([x for x, _ in batches])[:train],
        np.concatenate([y for _, y in batches])[:train],
        test_x[:test],
        test_y[:test],
        classes=tuple(map(str, range(CLASSES))),
    )


def colour_statistics(images: np.ndarray, chosen: np.ndarray | None = None) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each colour, in [0, 1], from exact counts of its 256 levels.

    Parameters
    ----------
    images : ndarray (N, 3, rows, columns) of uint8
    chosen : ndarray of int, optional
        Numbers of the images that count; default all.

    Returns
    -------
    means, deviations : list of float
        A deviation of a colour that never changes is given as 1.
    """
    counts = np.zeros((images.shape[1], 256), np.int64)
    for first in range(0, len(images) if chosen is None else len(chosen), CHUNK):
        some = slice(first, first + CHUNK)
        for colour in range(len(counts)):
            levels = images[some if chosen is None else chosen[some], colour]
            counts[colour] += np.bincount(levels.ravel(), minlength=256)
    levels = np.arange(256) / 255
    means = counts @ levels / counts.sum(1)
    squares = (counts * (levels - means[:, None]) ** 2).sum(1) / counts.sum(1)
    return means.tolist(), np.where(squares > 0, np.sqrt(squares), 1.0).tolist()


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 3, 32, 32) and classes (N,) of one file."""
    try:
        with np.load(path, allow_pickle=False) as held:
            x, labels = held["data"], held["labels"]
    except (OSError, ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise damaged(path, f"it holds no arrays 'data' and 'labels' ({' '.join(str(error).split())})") from error
    if x.dtype != np.uint8 or x.ndim != 2 or x.shape[1] != 3 * SIDE**2 or not len(x):
        raise damaged(path, f"'data' must be bytes (N, {3 * SIDE**2}), but is {x.dtype} of shape {x.shape}")
    if labels.shape != (len(x),) or labels.dtype.kind not in "iu":
        raise damaged(path, f"'labels' must be {len(x)} integers, but is {labels.dtype} of shape {labels.shape}")
    if labels.min() < 1 or labels.max() > CLASSES:
        raise damaged(path, f"labels are from {labels.min()} to {labels.max()}, not from 1 to {CLASSES}")
    return x.reshape(-1, 3, SIDE, SIDE), labels.astype(np.int64) - 1


def not_found(place: Path | None) -> InputError:
    """The error that says that the data set was not found, and which files were looked for."""
    where = "no folder was named" if place is None else f"{str(place)!r} lacks {', '.join(absent(place))}"
    if place is not None and not place.is_dir():
        where = f"{str(place)!r} is no folder"
    asked = as_asked("--data", "data=...")
    return InputError(
        f"Data set 'imagenet32' was not found: {where}. Give a folder with {asked} or PHYSICS_EP_DATA that holds "
        f"{TRAIN[0]} to {TRAIN[-1]} and {TEST}."
    )
