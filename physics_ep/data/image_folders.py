"""Folders of labelled photographs: which files there are and which class each has. Nothing is decoded here.

What 'imagenet' reads (ILSVRC 2012)::

    train/<wnid>/*.JPEG
    val/<wnid>/*.JPEG, or val/*.JPEG and a mapping file (LOC_val_solution.csv, or any of two columns)

and 'image-folder'::

    train/ and val/ (or validation/, test/), or no such parts, of which a share is held back to test;
    each a folder of <class>/*.jpg, or of *.jpg with a mapping file, or of *_<class index>.jpg

Classes are numbered in the order of their names.
"""

from __future__ import annotations

import csv
import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError, argument_error
from ..progress import SILENT, Progress, task
from ..storage.outputs import as_asked, reading
from ..storage.texts import require_regular
from .images import SUFFIXES

if TYPE_CHECKING:
    from ..config import DataSection

IMAGENET_FOLDERS = ("imagenet", "ImageNet", "imagenet-1k", "ILSVRC2012", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")
"""Names that ImageNet's folder may have within a folder of data sets."""

TEST_PARTS = ("val", "validation", "test")
STREAMED = {"imagenet": IMAGENET_FOLDERS, "image-folder": ()}
"""Data sets that are read while training goes on, and names that their own folders may have."""

ENDING = re.compile(r"_(\d+)$")


@dataclass(frozen=True)
class Listing:
    """The labelled image files of one part of a data set, training or test.

    Attributes
    ----------
    folder : Path
    files : ndarray (N,) of bytes
        Paths within the folder, in their order. One array, since a million Python strings would be copied into
        every process that decodes, merely by being counted.
    labels : ndarray (N,) of int64
        Class indices.
    """

    folder: Path
    files: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.files)

    def path(self, k: int) -> Path:
        """Path of the file of image k."""
        return self.folder / os.fsdecode(self.files[k])

    def chosen(self, which: np.ndarray) -> Listing:
        """A listing of some of the images, in the order of this one."""
        which = np.sort(which)
        return Listing(self.folder, self.files[which], self.labels[which])

    def limited(self, count: int | None, name: str) -> Listing:
        """A listing of `count` images drawn at random with a fixed seed: the first images of a folder would all
        be of one class.

        Raises
        ------
        InputError
            If there are fewer; `name` is what the argument is called.
        """
        if count is None:
            return self
        if count > len(self):
            raise argument_error(name, f"be at most the {len(self)} examples there are", count)
        return self.chosen(_shuffled(len(self))[:count])


@dataclass(frozen=True)
class ImageSet:
    """A data set of image files.

    Attributes
    ----------
    name : str
    train, test : Listing
    n_classes : int
    """

    name: str
    train: Listing
    test: Listing
    n_classes: int


@dataclass(frozen=True)
class _Labelled:
    """Images with what says their classes: names of classes, or numbers as text."""

    folder: Path
    files: list[str]
    tags: list[str]


def list_parts(section: DataSection, place: Path | None, progress: Progress | bool = SILENT) -> ImageSet:
    """List the images of a [data] section.

    Parameters
    ----------
    section : DataSection
        Its name is one of `STREAMED`.
    place : Path or None
        The data set's folder.
    progress : Progress

    Returns
    -------
    ImageSet
        At most `section.train_examples` and `test_examples` of them.

    Raises
    ------
    InputError
        If folders or images are missing, an image has no class, or one beyond `section.n_classes`.
    """
    if place is None or not place.is_dir():
        where = "no folder was named" if place is None else f"{str(place)!r} is no folder"
        raise _not_found(section.name, where)
    if section.name == "imagenet":
        absent = [part for part in ("train", "val") if not (place / part).is_dir()]
        if absent:
            raise _not_found(section.name, f"{str(place)!r} lacks {' and '.join(absent)}")
        train, known = _numbered(_class_folders(place / "train", progress))
        test, _ = _numbered(_part(place / "val", place, section.mapping, progress), known)
    elif (place / "train").is_dir():
        train, known = _numbered(_part(place / "train", place, section.mapping, progress))
        beside = next((place / part for part in TEST_PARTS if (place / part).is_dir()), None)
        if beside is None:
            train, test = _split(train, section.test_fraction)
        else:
            test, _ = _numbered(_part(beside, place, section.mapping, progress), known)
    else:
        whole, known = _numbered(_part(place, place, section.mapping, progress))
        train, test = _split(whole, section.test_fraction)
    n_classes = section.n_classes
    if n_classes is None:
        n_classes = len(known) if known else 1 + int(max(train.labels.max(), test.labels.max()))
    for listing in (train, test):
        beyond = np.flatnonzero(listing.labels >= n_classes)
        if len(beyond):
            label = listing.labels[beyond[0]]
            raise InputError(
                f"Image {str(listing.path(beyond[0]))!r} must have a label in [0, {n_classes}), but has {label}: "
                "set data.n_classes, or mend the labels."
            )
    return ImageSet(
        section.name,
        train.limited(section.train_examples, "data.train_examples"),
        test.limited(section.test_examples, "data.test_examples"),
        n_classes,
    )


def read_mapping(path: Path) -> dict[str, str]:
    """First two columns of a text or CSV file, separated by a comma, a tab or blanks.

    Parameters
    ----------
    path : Path

    Returns
    -------
    dict
        Name of an image, as it is written but without its folders, to its class: the second column, without the
        boxes that LOC_val_solution.csv has there. A heading is an entry for an image that does not exist.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    reading("data.mapping", path)
    try:
        require_regular(path)
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise InputError(f"Mapping file {str(path)!r} cannot be read: {error.strerror or error}.") from error
    table = {}
    for line in text.splitlines():
        if "," in line:
            try:
                cells = next(csv.reader([line], skipinitialspace=True))
            except csv.Error as error:
                raise InputError(f"Mapping file {str(path)!r} is unusable: {error}.") from None
        else:
            cells = line.split("\t") if "\t" in line else line.rsplit(maxsplit=1)
        words = cells[1].split() if len(cells) > 1 else []
        if words:
            boxes = len(words) % 5 == 0 and words[1].isdecimal()
            table[PurePosixPath(cells[0].strip()).name] = words[0] if boxes else " ".join(words)
    return table


def _part(folder: Path, place: Path, mapping: str | None, progress: Progress | bool) -> _Labelled:
    """Images of a folder, whether in folders of classes or flat."""
    files = _children(folder)[1]
    if not files:
        return _class_folders(folder, progress)
    if mapping is not None:
        path = place / Path(mapping).expanduser()
        if not path.is_file():
            raise argument_error("data.mapping", "be a text or CSV file", f"{str(path)!r}, which is no file")
        return _mapped(folder, files, path, read_mapping(path))
    found = _find_mapping(folder, place, files)
    if found is not None:
        return _mapped(folder, files, *found)
    tags = []
    for name in files:
        match = ENDING.search(Path(name).stem)
        if match is None:
            raise InputError(
                f"Image {str(folder / name)!r} has no class: put a file of two columns (image, class) beside it, "
                "name one as data.mapping, or end the image's name in _<class index>."
            )
        tags.append(match[1])
    return _Labelled(folder, files, tags)


def _find_mapping(folder: Path, place: Path, files: list[str]) -> tuple[Path, dict[str, str]] | None:
    """The file beside the images, or above them, that speaks of the most of them."""
    folders = {folder: None, place: None}
    if place.name == "CLS-LOC":  # Kaggle's archive has LOC_val_solution.csv at its top
        folders |= dict.fromkeys(place.resolve().parents[2:3])
    best: tuple[int, Path, dict[str, str]] | None = None
    for path in (p for f in folders for p in sorted(f.iterdir()) if p.suffix.lower() in (".csv", ".txt")):
        table = read_mapping(path) if path.is_file() else {}
        named = sum(_tag(table, name) is not None for name in files)
        if named and (best is None or named > best[0]):
            best = (named, path, table)
    return None if best is None else best[1:]


def _mapped(folder: Path, files: list[str], path: Path, table: dict[str, str]) -> _Labelled:
    tags = []
    for name in files:
        tag = _tag(table, name)
        if tag is None:
            raise InputError(f"Image {str(folder / name)!r} is missing from the mapping {str(path)!r}.")
        tags.append(tag)
    return _Labelled(folder, files, tags)


def _tag(table: dict[str, str], name: str) -> str | None:
    return table.get(name, table.get(Path(name).stem))


def _class_folders(folder: Path, progress: Progress | bool) -> _Labelled:
    names = _children(folder)[0]
    files, tags = [], []
    with task(progress, "listing images", len(names)) as advance:
        for name in names:
            found = _children(folder / name)[1]
            if not found:
                raise InputError(f"Class folder {str(folder / name)!r} holds no images ({', '.join(SUFFIXES)}).")
            files += [f"{name}/{file}" for file in found]
            tags += [name] * len(found)
            advance(1)
    if not files:
        raise InputError(f"Folder {str(folder)!r} holds no images ({', '.join(SUFFIXES)}) and no folders of them.")
    return _Labelled(folder, files, tags)


def _numbered(found: _Labelled, known: tuple[str, ...] | None = None) -> tuple[Listing, tuple[str, ...]]:
    """Class indices for tags, and the names of the classes (or the known ones); none where tags were indices."""
    distinct = sorted(set(found.tags))
    # Folders named by numbers are classes in the order of their names; numbers in a file are indices.
    in_folders = "/" in found.files[0]
    if known is None and (in_folders or not all(tag.isdecimal() for tag in distinct)):
        known = tuple(distinct)
    index = {name: k for k, name in enumerate(known or ())}
    for tag in distinct:
        if tag not in index:
            if in_folders or not tag.isdecimal():
                name = found.files[found.tags.index(tag)]
                raise InputError(
                    f"Image {str(found.folder / name)!r} must be of one of the classes to train on, but is of "
                    f"{tag!r}."
                )
            index[tag] = int(tag)
    labels = np.array([index[tag] for tag in found.tags], np.int64)
    return Listing(found.folder, np.array([os.fsencode(name) for name in found.files]), labels), known or ()


def _children(folder: Path) -> tuple[list[str], list[str]]:
    """Names of folders and of images within a folder, sorted; hidden ones are none."""
    folders, files = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                    files.append(entry.name)
                elif entry.is_dir():
                    folders.append(entry.name)
    except OSError as error:
        raise InputError(f"Folder {str(folder)!r} cannot be read: {error.strerror or error}.") from error
    return sorted(folders), sorted(files)


def _split(whole: Listing, fraction: float) -> tuple[Listing, Listing]:
    """A share to test, drawn once and for all; neither part is empty."""
    if len(whole) < 2:
        raise InputError(f"Folder {str(whole.folder)!r} must hold two images or more, to train and to test.")
    order = _shuffled(len(whole))
    held = min(max(1, round(fraction * len(whole))), len(whole) - 1)
    return whole.chosen(order[held:]), whole.chosen(order[:held])


def _shuffled(count: int) -> np.ndarray:
    return np.random.default_rng(0).permutation(count)


def _not_found(name: str, where: str) -> InputError:
    wanted = {
        "imagenet": "train/WNID/*.JPEG and val/ with WNID/*.JPEG, or with *.JPEG and a mapping file",
        "image-folder": "images in folders of classes, with a mapping file, or named NAME_<class index>.jpg",
    }
    asked = as_asked("--data", "data=...")
    return InputError(
        f"Data set {name!r} was not found: {where}. Give a folder with {asked} or PHYSICS_EP_DATA that holds "
        f"{wanted[name]}."
    )
