"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): the binary version, or image folders.

What is looked for, in this order, in the data set's folder:

1. the files of the binary version (data_batch_1.bin ... or train.bin, test.bin), also within the folder that its
   archive makes;
2. that archive itself, cifar-10-binary.tar.gz or cifar-100-binary.tar.gz;
3. image folders, train/<class name>/*.jpg (or .png) and test/...;
4. a tar archive of such folders, named cifar10*.tar.* (cifar100*.tar.*).

The Python version is a pickle, which is code, and is not read. JPEG is lossy: such images are not the set's own
pixels, so that errors on them compare with each other, not with published ones.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from ..errors import InputError
from ..progress import SILENT, Progress
from .idx import damaged
from .images import DAMAGE, Images, read_images

SIDE = 32
PIXELS = 3 * SIDE * SIDE


@dataclass(frozen=True)
class Variant:
    """One of the two CIFAR data sets, CIFAR-10 or CIFAR-100.

    Attributes
    ----------
    folders : tuple of str
        Names that its own folder may have; the first is the one that its archive makes.
    archive : str
        Name of the archive that holds the binary version.
    train, test : tuple of str
        Binary files. Equally long within a part.
    label_bytes : int
        Before the pixels of a record; the last is the class.
    n_classes : int
    mean, std : tuple of float
        Means and standard deviations of the training set's red, green and blue, in [0, 1].
    images : tuple of str
        Patterns of names of archives of image folders.
    """

    folders: tuple[str, ...]
    archive: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    label_bytes: int
    n_classes: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    images: tuple[str, ...]


VARIANTS = {
    "cifar10": Variant(
        folders=("cifar-10-batches-bin", "cifar10", "cifar-10", "CIFAR10", "CIFAR-10"),
        archive="cifar-10-binary.tar.gz",
        train=tuple(f"data_batch_{k}.bin" for k in range(1, 6)),
        test=("test_batch.bin",),
        label_bytes=1,
        n_classes=10,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        images=("cifar10[!0]*.tar*", "cifar10.tar*", "cifar-10[!0]*.tar*"),
    ),
    "cifar100": Variant(
        folders=("cifar-100-binary", "cifar100", "cifar-100", "CIFAR100", "CIFAR-100"),
        archive="cifar-100-binary.tar.gz",
        train=("train.bin",),
        test=("test.bin",),
        label_bytes=2,
        n_classes=100,
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        images=("cifar100*.tar*", "cifar-100*.tar*"),
    ),
}


@dataclass(frozen=True)
class FoundSet:
    """The place at which a CIFAR data set was found.

    Attributes
    ----------
    kind : {'binary', 'archive', 'images'}
        Binary files in a folder, their archive, or images (a folder or an archive).
    path : Path
    """

    kind: str
    path: Path

    def __str__(self) -> str:
        return f"{self.path} (images: lossy where JPEG)" if self.kind == "images" else str(self.path)


def find_cifar(name: str, place: Path | None) -> FoundSet | None:
    """Look for a CIFAR data set in a folder, in its own folder within it, or in the archive that `place` names.

    Parameters
    ----------
    name : {'cifar10', 'cifar100'}
    place : Path or None

    Returns
    -------
    FoundSet or None
        None if it is not there.
    """
    variant = VARIANTS[name]
    if place is None:
        return None
    if place.is_file():
        return FoundSet("archive" if place.name == variant.archive else "images", place)
    places = [place, *(place / folder for folder in variant.folders)]
    for folder in places:
        if all((folder / file).is_file() for file in (*variant.train, *variant.test)):
            return FoundSet("binary", folder)
    for folder in places:
        if (folder / variant.archive).is_file():
            return FoundSet("archive", folder / variant.archive)
    for folder in places:
        if (folder / "train").is_dir() and (folder / "test").is_dir():
            return FoundSet("images", folder)
    for folder in places:
        archives = sorted(
            path
            for pattern in variant.images
            for path in folder.glob(pattern)
            if "python" not in path.name and path.is_file()
        )
        if archives:
            return FoundSet("images", archives[0])
    return None


def read_cifar(name: str, source: FoundSet, progress: Progress | bool = SILENT) -> Images:
    """Read the training and test images of a CIFAR data set.

    Parameters
    ----------
    name : {'cifar10', 'cifar100'}
    source : FoundSet
    progress : Progress
        Shows how far the decoding of the images is.

    Returns
    -------
    Images
        (N, 3, 32, 32); `classes` are numbers for the binary version.

    Raises
    ------
    InputError
        If a file is damaged, truncated or holds something else; in one line that names it.
    """
    variant = VARIANTS[name]
    if source.kind == "images":
        found = read_images(source.path, (SIDE, SIDE), progress)
        if len(found.classes) != variant.n_classes:
            raise InputError(
                f"Images {str(source.path)!r} must have the {variant.n_classes} classes of {name}, but have "
                f"{len(found.classes)}: {', '.join(found.classes[:3])} ..."
            )
        return found
    contents = _files(source.path, variant) if source.kind == "binary" else _members(source.path, variant)
    parts = {part: _parse(contents, getattr(variant, part), variant) for part in ("train", "test")}
    classes = tuple(map(str, range(variant.n_classes)))
    return Images(*parts["train"], *parts["test"], classes=classes)


def _files(folder: Path, variant: Variant) -> dict[str, tuple[Path, bytes]]:
    contents = {}
    for file in (*variant.train, *variant.test):
        path = folder / file
        try:
            contents[file] = (path, path.read_bytes())
        except OSError as error:
            raise InputError(f"Data file {str(path)!r} cannot be read: {error.strerror or error}.") from error
    return contents


def _members(path: Path, variant: Variant) -> dict[str, tuple[Path, bytes]]:
    wanted = (*variant.train, *variant.test)
    contents = {}
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                file = PurePosixPath(member.name).name
                stream = archive.extractfile(member) if file in wanted and member.isfile() else None
                if stream is not None:
                    contents[file] = (path / file, stream.read())
    except DAMAGE as error:
        raise damaged(path, f"it is no whole tar archive ({error})") from error
    except OSError as error:
        raise InputError(f"Data file {str(path)!r} cannot be read: {error.strerror or error}.") from error
    absent = [file for file in wanted if file not in contents]
    if absent:
        raise damaged(path, f"it lacks {', '.join(absent)}")
    return contents


def _parse(
    contents: dict[str, tuple[Path, bytes]], files: tuple[str, ...], variant: Variant
) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 3, 32, 32) and classes (N,) of one part."""
    record = variant.label_bytes + PIXELS
    first = len(contents[files[0]][1])
    tables = []
    for file in files:
        path, content = contents[file]
        if not content or len(content) % record:
            raise damaged(path, f"its {len(content)} bytes are no whole number of {record}-byte records")
        # A file cut between two records is shorter than its sisters.
        if len(content) != first:
            raise damaged(path, f"it has {len(content)} bytes, but {files[0]} has {first}")
        table = np.frombuffer(content, np.uint8).reshape(-1, record)
        worst = int(table[:, variant.label_bytes - 1].max())
        if worst >= variant.n_classes:
            raise damaged(path, f"a label is {worst}, beyond the {variant.n_classes} classes")
        tables.append(table)
    table = np.concatenate(tables)
    labels = table[:, variant.label_bytes - 1].astype(np.int64)
    return table[:, variant.label_bytes :].reshape(-1, 3, SIDE, SIDE), labels
