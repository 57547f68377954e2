"""Reader of IDX files, the format of MNIST and its relatives: plain or gzip, checked to the last byte.

Layout (LeCun, Cortes and Burges): two zero bytes, a type code (8: unsigned byte), the number of axes, each axis as
a big-endian 32-bit integer, then the values in row-major order.
"""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from ..errors import InputError

UNSIGNED_BYTE = 8
MAX_AXES = 4


def read_idx(path: Path, axes: int) -> tuple[np.ndarray, str]:
    """Read an IDX file of unsigned bytes.

    Parameters
    ----------
    path : Path
        Plain or gzip; which of the two is told by the content, not by the name.
    axes : int
        Number of axes that the array must have.

    Returns
    -------
    values : ndarray of uint8
        The numbers of the file, an array of `axes` axes.
    digest : str
        sha256 of the uncompressed bytes, hexadecimal.

    Raises
    ------
    InputError
        If the file cannot be read, is damaged, truncated or too long, or holds something else.
    """
    try:
        with open(path, "rb") as raw:
            compressed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if not compressed:
                return _parse(raw, path, axes)
            with gzip.GzipFile(fileobj=raw) as unpacked:
                return _parse(unpacked, path, axes)  # type: ignore[arg-type]
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise damaged(path, f"its gzip data are damaged ({error})") from error
    except OSError as error:
        raise InputError(f"Data file {str(path)!r} cannot be read: {error.strerror or error}.") from error


def damaged(path: Path, what: str) -> InputError:
    """The error for a data file that is not what it should be, with the remedy."""
    return InputError(f"Data file {str(path)!r} is unusable: {what}. Replace it by a fresh copy.")


def _parse(file: IO[bytes], path: Path, axes: int) -> tuple[np.ndarray, str]:
    head = file.read(4)
    if len(head) < 4 or head[:2] != b"\0\0":
        raise damaged(path, "it does not begin with the magic number of an IDX file")
    kind, found = head[2], head[3]
    if kind != UNSIGNED_BYTE:
        raise damaged(path, f"it holds values of IDX type 0x{kind:02x}, not unsigned bytes (0x08)")
    if found != axes or found > MAX_AXES:
        raise damaged(path, f"it holds an array of {found} axes, not {axes} (are images and labels swapped?)")
    sizes = file.read(4 * axes)
    if len(sizes) < 4 * axes:
        raise damaged(path, "it ends within its header")
    shape = struct.unpack(f">{axes}I", sizes)
    count = int(np.prod(shape, dtype=object))
    # One byte more than is due shows junk at the end, and a header that lies cannot make us read a whole disk.
    body = _read_at_most(file, count + 1)
    if len(body) < count:
        raise damaged(path, f"it is truncated: {count} values of shape {shape} are due, {len(body)} are there")
    if len(body) > count:
        raise damaged(path, f"bytes follow the {count} values of shape {shape} that are due")
    digest = hashlib.sha256(head + sizes + body).hexdigest()
    return np.frombuffer(body, dtype=np.uint8).reshape(shape), digest


def _read_at_most(file: IO[bytes], count: int) -> bytes:
    """Up to `count` bytes, in pieces: `read(count)` would make room for them all at once, be they there or not."""
    pieces = []
    while count > 0 and (piece := file.read(min(count, 1 << 20))):
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)
