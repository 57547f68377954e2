"""Images of classes in folders, part/class/file, or in an archive of such folders; decoded once, then cached."""

from __future__ import annotations

import hashlib
import io
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from ..errors import InputError
from ..progress import SILENT, Progress, task
from ..storage.files import replacing
from ..storage.texts import require_regular
from .idx import damaged

SUFFIXES = (".jpg", ".jpeg", ".png")
PARTS = ("train", "test")
DAMAGE = (tarfile.TarError, EOFError, lzma.LZMAError, zlib.error)


@dataclass(frozen=True)
class Images:
    """Decoded images with their classes.

    Attributes
    ----------
    train_x, test_x : ndarray (N, channels, rows, columns) of uint8
    train_y, test_y : ndarray (N,) of int64
        Class indices.
    classes : tuple of str
        Names; a class's index is its place.
    """

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    classes: tuple[str, ...]


def read_images(source: Path, size: tuple[int, int], progress: Progress | bool = SILENT) -> Images:
    """Read train/<class>/<image> and test/<class>/<image>, in colour, classes in the order of their names.

    Decoded arrays are kept in the user's cache folder (XDG_CACHE_HOME), under a name made from the path, size and
    date of every file, so that a second run decodes nothing.

    Parameters
    ----------
    source : Path
        A folder, or a tar archive (plain, gzip, bzip2 or xz); both may hold one folder around train and test.
    size : (rows, columns)
        Size that all images must have.
    progress : Progress

    Returns
    -------
    Images

    Raises
    ------
    InputError
        If there are no such folders, the classes of both parts differ, or a file cannot be read; in one line that
        names it.
    """
    reader: Folder | Archive = Folder(source) if source.is_dir() else Archive(source)
    cache = _cache_folder() / f"images-{reader.digest(size)}.npz"
    kept = _cached(cache)
    if kept is None:
        kept = _decode(reader, _sorted(source, reader.names()), size, progress)
        with suppress(OSError), replacing(cache) as temporary, open(temporary, "wb") as file:
            # A cache that cannot be written costs the next run some seconds, nothing else.
            np.savez(file, **kept)  # type: ignore[arg-type]
    classes = tuple(map(str, kept.pop("classes")))
    return Images(**kept, classes=classes)


def _sorted(source: Path, names: list[PurePosixPath]) -> dict[str, list[PurePosixPath]]:
    """Images of each part in the order of their names, whatever order a disk or an archive has."""
    found = {part: sorted(n for n in names if n.parent.parent.name == part) for part in PARTS}
    for part in PARTS:
        if not found[part]:
            raise InputError(f"Images {str(source)!r} must hold {part}/CLASS/NAME.jpg or .png, but hold none such.")
    odd = set.symmetric_difference(*({n.parent.name for n in found[part]} for part in PARTS))
    if odd:
        must = "must have the same classes to train and test"
        raise InputError(f"Images {str(source)!r} {must}, but {min(odd)!r} is in one of them only.")
    return found


class Folder:
    """Images as files below a folder."""

    def __init__(self, source: Path) -> None:
        self.source = source

    def names(self) -> list[PurePosixPath]:
        """Paths of the images within the folder."""
        found = [p for part in PARTS for p in self.source.glob(f"{part}/*/*")]
        return [PurePosixPath(p.relative_to(self.source).as_posix()) for p in found if _is_image(p)]

    def digest(self, size: tuple[int, int]) -> str:
        """Digest of the files' names, sizes and dates and of the image size, which names the decoded copy."""
        stats = sorted((str(n), (self.source / n).stat()) for n in self.names())
        listing = [(name, s.st_size, s.st_mtime_ns) for name, s in stats]
        return _digest(str(self.source.resolve()), size, listing)

    def read(self) -> Iterator[tuple[PurePosixPath, bytes]]:
        """Yield the path and the bytes of each file of the folder."""
        for name in self.names():
            path = self.source / name
            try:
                require_regular(path)
                content = path.read_bytes()
            except OSError as error:
                raise InputError(f"Image {str(path)!r} cannot be read: {error.strerror or error}.") from error
            yield name, content


class Archive:
    """Images as members of a tar archive, read as a stream: nothing is extracted to disk."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self._members: list[PurePosixPath] = []

    def names(self) -> list[PurePosixPath]:
        """Paths of the images within the archive."""
        if not self._members:
            self._members = [PurePosixPath(m.name) for m, _ in self._stream() if _is_image(PurePosixPath(m.name))]
        return self._members

    def digest(self, size: tuple[int, int]) -> str:
        """Digest of the archive's path, size and date and of the image size, which names the decoded copy."""
        stat = self.source.stat()
        return _digest(str(self.source.resolve()), size, [(stat.st_size, stat.st_mtime_ns)])

    def read(self) -> Iterator[tuple[PurePosixPath, bytes]]:
        """Yield the path and the bytes of each file of the archive."""
        for member, archive in self._stream():
            name = PurePosixPath(member.name)
            file = archive.extractfile(member) if _is_image(name) else None
            if file is not None:
                yield name, file.read()

    def _stream(self) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
        try:
            with tarfile.open(self.source, "r|*") as archive:
                for member in archive:
                    if member.isfile():
                        yield member, archive
        except DAMAGE as error:
            raise damaged(self.source, f"it is no whole tar archive ({error})") from error
        except OSError as error:
            raise InputError(
                f"Data file {str(self.source)!r} cannot be read: {error.strerror or error}."
            ) from error


def _decode(
    reader: Folder | Archive,
    found: dict[str, list[PurePosixPath]],
    size: tuple[int, int],
    progress: Progress | bool,
) -> dict[str, np.ndarray]:
    classes = sorted({n.parent.name for n in found["train"]})
    index = {name: k for k, name in enumerate(classes)}
    arrays: dict[str, np.ndarray] = {"classes": np.array(classes)}
    place: dict[PurePosixPath, tuple[str, int]] = {}
    for part, names in found.items():
        arrays[f"{part}_x"] = np.empty((len(names), 3, *size), np.uint8)
        arrays[f"{part}_y"] = np.array([index[n.parent.name] for n in names], np.int64)
        place |= {n: (part, k) for k, n in enumerate(names)}
    with task(progress, "decoding images", len(place)) as advance:
        for name, content in reader.read():
            if name in place:
                part, k = place[name]
                arrays[f"{part}_x"][k] = _decoded(content, size, f"{reader.source}/{name}")
                advance(1)
    return arrays


def _decoded(content: bytes, size: tuple[int, int], name: str) -> np.ndarray:
    """One image as (3, rows, columns)."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content), formats=["JPEG", "PNG"]) as image:
            # The header tells the size before anything is decoded.
            if (image.height, image.width) != size:
                must = f"have {size[0]} rows and {size[1]} columns"
                raise InputError(f"Image {name!r} must {must}, but has {image.height} and {image.width}.")
            return np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        reason = "it is no JPEG or PNG" if isinstance(error, UnidentifiedImageError) else error
        raise InputError(f"Image {name!r} cannot be decoded: {reason}.") from error


def _cached(path: Path) -> dict[str, np.ndarray] | None:
    try:
        with np.load(path, allow_pickle=False) as held:
            return {
                name: held[name] for name in (*(f"{part}_{axis}" for part in PARTS for axis in "xy"), "classes")
            }
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None  # absent, or damaged by what was no run of ours


def _cache_folder() -> Path:
    import pooch

    return Path(pooch.os_cache("physics-ep"))


def _digest(source: str, size: tuple[int, int], listing: object) -> str:
    return hashlib.sha256(os.fsencode(repr((source, size, listing)))).hexdigest()[:16]


def _is_image(path: Path | PurePosixPath) -> bool:
    return path.suffix.lower() in SUFFIXES
