"""Data sets: the 8x8 digits that ship with the package; MNIST, Fashion-MNIST, CIFAR and ImageNet32 from a folder.

To add one, write a function (section, progress) -> Dataset and put it into `DATASETS`. Photographs are not held in
memory: see `batches`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..blocks import is_dense
from ..errors import InputError, argument_error, unknown_name
from ..placement import require_memory
from ..progress import SILENT, Progress
from ..storage.outputs import as_asked
from .augmentation import Augmentation
from .cifar import VARIANTS, find_cifar, read_cifar
from .held_out import limited, parted
from .idx import damaged, read_idx
from .image_folders import STREAMED
from .imagenet32 import (
    CLASSES,
    FOLDERS,
    absent,
    colour_statistics,
    not_found,
    read_imagenet32,
)
from .images import Images
from .tables import ColumnsTaken, Table, read_table_file

if TYPE_CHECKING:
    from ..config import DataSection

ENVIRONMENT = "PHYSICS_EP_DATA"

FOR_PHOTOGRAPHS = ("size", "n_classes", "mapping", "test_fraction", "on_broken", "workers", "means", "deviations")
"""Entries of [data] that say nothing about other sets; the last two do about 'imagenet32'."""


@dataclass(frozen=True)
class Dataset:
    """Examples in memory, split into training and test.

    Attributes
    ----------
    name : str
    train_x, test_x : Tensor (N, ...)
        Inputs, dimensionless; images are (N, channels, rows, columns) with grey levels in [0, 1], or colours from
        which the training set's mean is subtracted, in units of its standard deviation.
    train_y, test_y : Tensor
        Class indices (N,) of int64 in [0, n_classes); or measured targets (N, n), floating, scaled as
        `target_scale` says.
    n_classes : int or None
        None: targets are measured.
    augment : Augmentation or None
        Applied to each training batch.
    classes : tuple of str or None
        Names of the classes, where the set has them.
    targets : tuple of str or None
        Names of measured targets, where the set has them.
    target_shift, target_scale : tuple of float or None
        A measured target is shift + scale * y, in its own unit. None: shift 0, scale 1.
    taken : ColumnsTaken or None
        Columns of a table that the inputs and targets are; None where no columns have names.
    """

    name: str
    train_x: torch.Tensor
    train_y: torch.Tensor
    test_x: torch.Tensor
    test_y: torch.Tensor
    n_classes: int | None
    augment: Augmentation | None = None
    classes: tuple[str, ...] | None = None
    targets: tuple[str, ...] | None = None
    target_shift: tuple[float, ...] | None = None
    target_scale: tuple[float, ...] | None = None
    taken: ColumnsTaken | None = None

    def __post_init__(self) -> None:
        for part in ("train", "test"):
            x, y = getattr(self, f"{part}_x"), getattr(self, f"{part}_y")
            if not is_dense(x) or x.ndim < 2 or not x.dtype.is_floating_point or not len(x):
                raise argument_error(f"{part}_x", "be a floating-point tensor (N, ...) with N > 0", _described(x))
            if not bool(torch.isfinite(x).all()):
                raise argument_error(f"{part}_x", "be finite", "NaN or infinite entries")
            if self.n_classes is None:
                self._require_measured(f"{part}_y", y, len(x))
                continue
            if not is_dense(y) or y.shape != x.shape[:1] or y.dtype != torch.int64:
                raise argument_error(f"{part}_y", f"be int64 class indices of shape ({len(x)},)", _described(y))
            if int(y.min()) < 0 or int(y.max()) >= self.n_classes:
                raise argument_error(
                    f"{part}_y",
                    f"hold class indices in [0, {self.n_classes})",
                    f"values from {int(y.min())} to {int(y.max())}",
                )
        if self.train_x.shape[1:] != self.test_x.shape[1:]:
            raise argument_error(
                "test_x", f"have examples of shape {tuple(self.train_x.shape[1:])}", tuple(self.test_x.shape[1:])
            )

    def _require_measured(self, name: str, y: torch.Tensor, examples: int) -> None:
        n = self.train_y.shape[1:].numel()
        if not is_dense(y) or y.shape != (examples, n) or not n or not y.dtype.is_floating_point:
            must = f"be floating-point targets of shape ({examples}, n), or come with n_classes"
            raise argument_error(name, must, _described(y))
        if not bool(torch.isfinite(y).all()):
            raise argument_error(name, "be finite", "NaN or infinite entries")

    @property
    def n_outputs(self) -> int:
        """Outputs that a system needs: one a class, or one a measured target."""
        return self.train_y.shape[1] if self.n_classes is None else self.n_classes

    @property
    def target_scales(self) -> dict[str, list[Any]] | None:
        """Names, shifts and scales of measured targets, as run files keep them; None where targets are classes."""
        if self.n_classes is not None:
            return None
        n = self.n_outputs
        names = list(self.targets or (f"target {k + 1}" for k in range(n)))
        return {
            "names": names,
            "shift": list(self.target_shift or [0.0] * n),
            "scale": list(self.target_scale or [1.0] * n),
        }

    def digest(self, count: int | None = None) -> str:
        """SHA-256 of the examples and their targets, in hexadecimal digits.

        Parameters
        ----------
        count : int, optional
            Number of examples of each part that are read. Default: all.
        """
        found = hashlib.sha256()
        for whole in (self.train_x, self.train_y, self.test_x, self.test_y):
            part = whole[:count]
            found.update(f"{part.dtype} {tuple(part.shape)}".encode())
            found.update(part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return found.hexdigest()

    def require_classes(self, what: str) -> None:
        """Refuse a data set whose targets are measured numbers, where classes are needed.

        Parameters
        ----------
        what : str
            What needs classes: the subject of the message.

        Raises
        ------
        InputError
            If targets are measured.
        """
        if self.n_classes is None:
            raise InputError(f"{what} needs examples with classes, but the targets of {self.name!r} are measured.")

    def to(self, device: torch.device, dtype: torch.dtype) -> Dataset:
        """The data set on another device, with its inputs and measured targets of another dtype."""
        kind = dtype if self.n_classes is None else torch.int64
        return replace(
            self,
            train_x=self.train_x.to(device, dtype),
            train_y=self.train_y.to(device, kind),
            test_x=self.test_x.to(device, dtype),
            test_y=self.test_y.to(device, kind),
        )


@dataclass(frozen=True)
class Files:
    """The four IDX files of a data set: their names, addresses and checksums.

    Attributes
    ----------
    folders : tuple of str
        Names that its own folder may have within a folder of data sets.
    url : str
        Mirror to download from.
    md5 : dict
        MD5 sums of the gzip files as published (what a download is checked against).
    sha256 : dict
        SHA-256 sums of the uncompressed content, where known.
    """

    folders: tuple[str, ...]
    url: str
    md5: dict[str, str]
    sha256: dict[str, str]


PARTS = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}

MNIST = Files(
    folders=("mnist", "MNIST", "MNIST/raw"),
    url="https://ossci-datasets.s3.amazonaws.com/mnist/",
    md5={
        "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
    },
    sha256={
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
)

FASHION_MNIST = Files(
    folders=("fashion-mnist", "fashion_mnist", "FashionMNIST", "FashionMNIST/raw"),
    url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    md5={
        "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
    },
    sha256={},
)

GREY_STATISTICS = {"mnist": (0.1307, 0.3081), "fashion-mnist": (0.2860, 0.3530)}
"""Mean and standard deviation of the pixels of the training images, in [0, 1]."""

SOURCES = {"mnist": MNIST, "fashion-mnist": FASHION_MNIST}


def load_dataset(section: DataSection, progress: Progress | bool = SILENT) -> Dataset:
    """Load the data set of a config's [data] section.

    Parameters
    ----------
    section : DataSection
    progress : Progress
        Shows how far the decoding of images is, which takes long.

    Returns
    -------
    Dataset
        float32, on the CPU, in the layout that the section asks for.

    Raises
    ------
    InputError
        If the name is unknown, files are missing or damaged, or the section asks for what the set does not have.
    """
    if section.name in STREAMED:
        raise InputError(
            f"Data set {section.name!r} is streamed from its files to training, and is not held in memory for this."
        )
    if section.name in FROM_PYTHON:
        must = f"be given again by data=...: [data] name {section.name!r} stands for what came from Python"
        raise argument_error("data", must, "left out")
    if section.name not in DATASETS:
        raise unknown_name("data.name", section.name, [*DATASETS, *STREAMED])
    foreign = FOR_PHOTOGRAPHS[: -2 if section.name == "imagenet32" else None]
    foreign = (
        tuple(k for k in foreign if k != "test_fraction") if section.name in TABLES else (*foreign, *FOR_TABLES)
    )
    if section.validation is not None:
        foreign = tuple(k for k in foreign if k != "seed")
    for key in foreign:
        if getattr(section, key) != type(section).model_fields[key].default:
            raise argument_error(f"data.{key}", f"be left out for {section.name!r}", repr(getattr(section, key)))
    data = DATASETS[section.name](section, progress)
    train, test = section.train_examples, section.test_examples
    _at_most("data.train_examples", train, len(data.train_x))
    _at_most("data.test_examples", test, len(data.test_x))
    train_x, train_y = _limited(data.train_x, data.train_y, train, section.seed)
    test_x, test_y = _limited(data.test_x, data.test_y, test, section.seed)
    if section.pad_to is not None:
        train_x, test_x = _padded(train_x, section.pad_to), _padded(test_x, section.pad_to)
    if section.normalise:
        train_x, test_x = _normalised(section.name, train_x, test_x)
    augment = None
    if section.augmentation is not None:
        augment = Augmentation(section.augmentation, tuple(train_x.shape[1:]))
    if section.layout == "flat":
        train_x, test_x = train_x.flatten(1), test_x.flatten(1)
    return replace(
        data,
        train_x=train_x,
        train_y=train_y,
        test_x=test_x,
        test_y=test_y,
        augment=augment,
    )


def _limited(x: torch.Tensor, y: torch.Tensor, count: int | None, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """So many of the examples; views of them where the first ones are taken."""
    rows = limited(y.numpy(), count, seed)
    if len(rows) == 0 or rows[-1] == len(rows) - 1:
        return x[: len(rows)], y[: len(rows)]
    return x[rows], y[rows]


def _normalised(name: str, *parts: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Grey images over the deviation of their training set, its mean taken off."""
    if name not in GREY_STATISTICS:
        raise argument_error("data.normalise", f"be left out for {name!r}", True)
    mean, deviation = GREY_STATISTICS[name]
    return tuple((part - mean) / deviation for part in parts)


def digits(section: DataSection | None = None, progress: Progress | bool = SILENT) -> Dataset:
    """The 1797 real 8x8 digits that ship with the package: 1437 to train, 360 to test (see data/README.md)."""
    with (files("physics_ep") / "data" / "digits.npz").open("rb") as file:
        held = np.load(file, allow_pickle=False)
        images, labels, test = held["images"], held["labels"], held["test"]
    x = torch.from_numpy(images).to(torch.float32).div_(16)[:, None]
    y = torch.from_numpy(labels).to(torch.int64)
    chosen = torch.from_numpy(test)
    return Dataset("digits", x[~chosen], y[~chosen], x[chosen], y[chosen], n_classes=10)


def mnist(section: DataSection, progress: Progress | bool = SILENT) -> Dataset:
    """MNIST: 60000 to train, 10000 to test, 28x28 (LeCun, Cortes and Burges)."""
    return _idx_dataset("mnist", section)


def fashion_mnist(section: DataSection, progress: Progress | bool = SILENT) -> Dataset:
    """Fashion-MNIST: 60000 to train, 10000 to test, 28x28 (Xiao, Rasul and Vollgraf 2017)."""
    return _idx_dataset("fashion-mnist", section)


def cifar10(section: DataSection, progress: Progress | bool = SILENT) -> Dataset:
    """CIFAR-10: 50000 to train, 10000 to test, 32x32 in colour, 10 classes (see `cifar`)."""
    return _cifar_dataset("cifar10", section, progress)


def cifar100(section: DataSection, progress: Progress | bool = SILENT) -> Dataset:
    """CIFAR-100: 50000 to train, 10000 to test, 32x32 in colour, 100 fine classes (see `cifar`)."""
    return _cifar_dataset("cifar100", section, progress)


def imagenet32(section: DataSection, progress: Progress | bool = SILENT) -> Dataset:
    """ImageNet at 32x32: 1281167 to train, 50000 to test, 1000 classes (see `imagenet32`).

    Colours are normalised by the means and deviations of the images to train on, those held out left aside, or by
    those of the section.
    """
    if section.download:
        raise argument_error("data.download", "be false for imagenet32, which is read from your own copy", True)
    place = data_folder(section.folder, FOLDERS)
    if place is None or absent(place):
        raise not_found(place)
    found = read_imagenet32(place, section.train_examples, section.test_examples, progress)
    width = torch.float32.itemsize
    require_memory(width * (found.train_x.size + found.test_x.size), torch.device("cpu"), "images of imagenet32")
    means, deviations = section.means, section.deviations
    if means is None or deviations is None:
        rows = None if section.validation is None else parted(found.train_y, section)[0]
        measured = colour_statistics(found.train_x, rows)
        means, deviations = means or measured[0], deviations or measured[1]
    return _in_colour("imagenet32", found, means, deviations, CLASSES)


def own_table(section: DataSection, progress: Progress | bool) -> Dataset:
    """Examples from a file of your own: npz, csv or parquet (see `tables`)."""
    return of_table(section.name, read_table_file(section))


def of_table(name: str, found: Table) -> Dataset:
    """Make a data set of the examples of a file or of arrays."""
    return Dataset(
        name,
        train_x=torch.from_numpy(found.train_x),
        train_y=torch.from_numpy(found.train_y),
        test_x=torch.from_numpy(found.test_x),
        test_y=torch.from_numpy(found.test_y),
        n_classes=None if found.classes is None else len(found.classes),
        classes=found.classes,
        targets=found.targets,
        target_shift=found.target_shift,
        target_scale=found.target_scale,
        taken=found.taken,
    )


TABLES = ("npz", "csv", "parquet")
FROM_PYTHON = ("arrays", "loaders")
"""What [data] name says of examples that a caller of Python has handed over (`given`)."""
FOR_TABLES = ("file", "test_file", "target", "task", "target_scaling", "columns", "scaling", "seed")
"""Entries of [data] that say nothing about sets that bring their own files."""


def fits_scales(section: DataSection) -> bool:
    """Whether the inputs or targets of a set are scaled by figures of its own examples to train on."""
    if section.name == "imagenet32":
        return section.means is None or section.deviations is None
    told = [kind not in (None, "none") for kind in (section.scaling, section.target_scaling)]
    return section.name in TABLES and (any(told) or (section.scaling is None and section.name != "npz"))


DATASETS: dict[str, Callable[[DataSection, Progress | bool], Dataset]] = {
    "digits": digits,
    "mnist": mnist,
    "fashion-mnist": fashion_mnist,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "imagenet32": imagenet32,
    **dict.fromkeys(TABLES, own_table),
}


def data_folder(folder: str | os.PathLike[str] | None, names: tuple[str, ...] = ()) -> Path | None:
    """Folder to look for data in: the given one, else that of PHYSICS_EP_DATA; or the child that bears a name.

    Parameters
    ----------
    folder : path or None
        The data set's own folder or its parent.
    names : tuple of str
        Names of the data set's own folder.

    Returns
    -------
    Path or None
        None if no folder was named anywhere.
    """
    given = folder or os.environ.get(ENVIRONMENT)
    if not given:
        return None
    base = Path(given).expanduser()
    return next((base / name for name in names if (base / name).is_dir()), base)


def locate(name: str, folder: str | os.PathLike[str] | None = None) -> str | None:
    """Look for a data set: 'shipped' if it comes with the package, else its folder; None if files are missing."""
    if name in VARIANTS:
        found = find_cifar(name, data_folder(folder))
        return None if found is None else str(found)
    if name == "imagenet32":
        place = data_folder(folder, FOLDERS)
        return None if absent(place) else str(place)
    if name in STREAMED:
        place = data_folder(folder, STREAMED[name])
        return str(place) if place is not None and (place / "train").is_dir() else None
    source = SOURCES.get(name)
    if name in TABLES:
        return "your own file"
    if source is None:
        return "shipped" if name in DATASETS else None
    place = data_folder(folder, source.folders)
    whole = all(_find(place, stem) is not None for stems in PARTS.values() for stem in stems)
    return str(place) if whole else None


def _cifar_dataset(name: str, section: DataSection, progress: Progress | bool) -> Dataset:
    place = data_folder(section.folder)
    source = find_cifar(name, place)
    if section.download:
        raise argument_error("data.download", f"be false for {name}, which is read from your own copy", True)
    if source is None:
        where = "no folder was named" if place is None else f"{str(place)!r} has none of them"
        if place is not None and not place.exists():
            where = f"{str(place)!r} is no folder and no archive"
        variant = VARIANTS[name]
        asked = as_asked("--data", "data=...")
        raise InputError(
            f"Data set {name!r} was not found: {where}. Give a folder with {asked} or {ENVIRONMENT} that holds "
            f"{variant.archive} (or its files), train/CLASS/*.jpg and test/CLASS/*.jpg, or a tar archive of these."
        )
    found = read_cifar(name, source, progress)
    return _in_colour(name, found, VARIANTS[name].mean, VARIANTS[name].std, VARIANTS[name].n_classes)


def _in_colour(
    name: str, found: Images, means: Sequence[float], deviations: Sequence[float], n_classes: int
) -> Dataset:
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (means, deviations))

    def scaled(images: np.ndarray) -> torch.Tensor:
        # In place: 60000 images take 0.7 GB.
        return torch.from_numpy(images.astype(np.float32)).div_(255).sub_(mean).div_(std)

    return Dataset(
        name,
        train_x=scaled(found.train_x),
        train_y=torch.from_numpy(found.train_y),
        test_x=scaled(found.test_x),
        test_y=torch.from_numpy(found.test_y),
        n_classes=n_classes,
    )


def _idx_dataset(name: str, section: DataSection) -> Dataset:
    source = SOURCES[name]
    folder = data_folder(section.folder, source.folders)
    paths = {stem: _find(folder, stem) for stems in PARTS.values() for stem in stems}
    absent = [stem for stem, path in paths.items() if path is None]
    if absent and section.download:
        for stem in absent:
            paths[stem] = _download(source, stem, folder)
    elif absent:
        where = "no folder was named" if folder is None else f"{str(folder)!r} lacks {', '.join(absent)} (or .gz)"
        if folder is not None and not folder.is_dir():
            where = f"{str(folder)!r} is no folder"
        asked = as_asked("--data", "data=...")
        raise InputError(
            f"Data set {name!r} was not found: {where}. Give its folder with {asked} or {ENVIRONMENT}, or ask for "
            "a download with data.download=true."
        )
    arrays: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for part, (image_stem, label_stem) in PARTS.items():
        arrays[part] = _read_pair(name, source, paths[image_stem], paths[label_stem], label_stem)
    return Dataset(name, *arrays["train"], *arrays["test"], n_classes=10)


def _read_pair(
    name: str, source: Files, image_path: Path | None, label_path: Path | None, label_stem: str
) -> tuple[torch.Tensor, torch.Tensor]:
    assert image_path is not None
    assert label_path is not None
    images, _ = read_idx(image_path, axes=3)
    labels, digest = read_idx(label_path, axes=1)
    if len(images) != len(labels):
        raise damaged(image_path, f"it holds {len(images)} images, but {label_path.name} {len(labels)} labels")
    if not images.size:
        raise damaged(image_path, f"it holds no images (shape {images.shape})")
    if labels.max() >= 10:
        raise damaged(label_path, f"a label is {labels.max()}, beyond the ten classes 0 ... 9")
    # The relatives of MNIST have its very file names: MNIST's digits must not pass for clothes.
    if source is not MNIST and digest == MNIST.sha256[label_stem]:
        raise InputError(f"Data file {str(label_path)!r} belongs to MNIST, not to {name}: name another folder.")
    x = torch.from_numpy(images.astype(np.float32))[:, None].div_(255)
    return x, torch.from_numpy(labels.astype(np.int64))


def _find(folder: Path | None, stem: str) -> Path | None:
    if folder is None:
        return None
    # 'train-images.idx3-ubyte' is how some archives spell it.
    spellings = (stem, f"{stem}.gz", stem.replace("-idx", ".idx"), f"{stem.replace('-idx', '.idx')}.gz")
    return next((folder / spelling for spelling in spellings if (folder / spelling).is_file()), None)


def _download(source: Files, stem: str, folder: Path | None) -> Path:
    import pooch

    base = folder or Path(pooch.os_cache("physics-ep"))
    # Within a folder of data sets, make the set's own: its relatives use the same file names.
    target = base if base.name in source.folders else base / source.folders[0]
    try:
        found = pooch.retrieve(
            url=f"{source.url}{stem}.gz", known_hash=f"md5:{source.md5[stem]}", fname=f"{stem}.gz", path=target
        )
    except Exception as error:
        # pooch passes on whatever the transport raises; a wrong hash is a ValueError.
        message = " ".join(str(error).split())
        raise InputError(f"Download of {source.url}{stem}.gz to {str(target)!r} failed: {message}") from error
    return Path(found)


def _padded(x: torch.Tensor, size: int) -> torch.Tensor:
    rows, columns = x.shape[-2:]
    if size < max(rows, columns):
        raise argument_error("data.pad_to", f"be at least the images' size, {max(rows, columns)}", size)
    top, left = (size - rows) // 2, (size - columns) // 2
    return torch.nn.functional.pad(x, (left, size - columns - left, top, size - rows - top))


def _at_most(name: str, asked: int | None, there: int) -> None:
    if asked is not None and asked > there:
        raise argument_error(name, f"be at most the {there} examples there are", asked)


def _described(value: object) -> str:
    if isinstance(value, torch.Tensor):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    return type(value).__name__
