"""HDF5 files that show damage: a digest of all bytes, in the user block, is compared before HDF5 parses anything.

A damaged HDF5 file may open with other numbers, read as zeros, or keep the library busy for ever. The first 512
bytes of a run file are a user block, which HDF5 passes over: who wrote the file, its kind, its size and a SHA-256
digest of all that follows. The digest is that of the digests of pieces, so that several cores share the work.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import h5py

from ..errors import InputError
from .disk import PatientFile
from .files import replacing
from .origins import SEAL

BLOCK = 512
"""Bytes of the user block, the least that HDF5 knows."""
PIECE = 2**24
"""Bytes of a piece. Part of the digest: another value refuses every file there is."""
THREADS = 4
SIGNATURE = b"\x89HDF\r\n\x1a\n"
DEPTH = 3
"""Groups within groups that a run file has: /trajectories/free/time."""


@contextmanager
def sealed(path: str | os.PathLike[str], command: str, kind: str) -> Iterator[h5py.File]:
    """Give an empty HDF5 file, which is sealed and takes the place of `path` when the block ends well.

    A disk that refuses to take a part of it raises its OSError at the end of the block.

    Parameters
    ----------
    path : path
    command : str
        Who writes it.
    kind : str
        Kind of the run file, which its mark tells.
    """
    with replacing(path) as temporary:
        with PatientFile(temporary) as disk:
            try:
                with h5py.File(disk, "w", userblock_size=BLOCK) as file:
                    yield file
            finally:
                disk.check()  # what HDF5 says of bytes that it reads back as zeros comes after
        seal(temporary, command, kind)


def seal(path: str | os.PathLike[str], command: str, kind: str) -> str:
    """Write the digest of an HDF5 file with a user block into that block; return it, in hexadecimal digits."""
    told = {"command": command, "kind": kind, "bytes": str(os.path.getsize(path))}
    lines = [f"{name}: {' '.join(value.split())}\n".encode()[:120] for name, value in told.items()]
    head = SEAL + b"".join(line if line.endswith(b"\n") else line[:-1] + b"\n" for line in lines)
    digest = _digest(Path(path), head)
    with open(path, "rb+") as file:
        file.write((head + f"sha256: {digest}\n".encode()).ljust(BLOCK, b"\0"))
    return digest


def verify_seal(path: str | os.PathLike[str]) -> str | None:
    """Compare a run file with its digest.

    Returns
    -------
    str or None
        The digest, in hexadecimal digits; None of an HDF5 file without one.

    Raises
    ------
    InputError
        If the file cannot be read, is damaged, or is no HDF5 file.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            block = file.read(BLOCK)
        if block.startswith(SIGNATURE):
            return None
        if not block.startswith(SEAL):
            raise InputError(f"File {str(path)!r} is no run file, or is damaged or truncated (its first bytes).")
        head, found, _ = block.partition(b"sha256: ")
        digest = _digest(path, head) if found else ""
        size = path.stat().st_size
    except OSError as error:
        raise InputError(f"Cannot read run file {str(path)!r}: {error.strerror or error}.") from error
    if block == (head + f"sha256: {digest}\n".encode()).ljust(BLOCK, b"\0"):
        return digest
    expected = head.partition(b"bytes: ")[2].strip()
    why = "its bytes are not those that its digest was made of"
    if expected.isdigit() and len(expected) < 20 and int(expected) != size:
        why = f"{size} of {int(expected)} bytes"
    raise InputError(f"Run file {str(path)!r} is damaged or truncated ({why}).")


def inspect_links(file: h5py.File) -> None:
    """Raise InputError where a file leads out of itself, into itself, or promises more than it holds.

    Our files have none of these; a file that somebody made could read others by them, or end in no time.
    """
    _inspect(file, file.filename, 0)


def _inspect(group: h5py.Group, name: str, depth: int) -> None:
    for key in group:
        where = f"{group.name.rstrip('/')}/{key}"
        if not isinstance(group.get(key, getlink=True), h5py.HardLink):
            raise InputError(f"Run file {name!r} has a link at {where!r}: links are not followed.")
        held = group[key]
        if isinstance(held, h5py.Group) and depth < DEPTH:
            _inspect(held, name, depth + 1)
        elif not isinstance(held, h5py.Dataset):
            raise InputError(f"Run file {name!r} has something at {where!r} that no run file has.")
        elif held.external or held.is_virtual:
            raise InputError(f"Run file {name!r} keeps {where!r} in other files: those are not read.")
        elif held.dtype.kind != "O" and held.id.get_storage_size() < held.nbytes:
            raise InputError(f"Run file {name!r} is damaged: {where!r} has not the size that it says.")


def _digest(path: Path, head: bytes) -> str:
    """SHA-256 of what the block says and of the digests of all pieces after it."""
    size = path.stat().st_size

    def of_piece(begin: int) -> bytes:
        with open(path, "rb") as file:
            file.seek(begin)
            return hashlib.sha256(file.read(PIECE)).digest()

    whole = hashlib.sha256(head)
    places = range(BLOCK, size, PIECE)
    if len(places) <= 1:
        pieces = [of_piece(begin) for begin in places]
    else:
        with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as threads:
            pieces = list(threads.map(of_piece, places))
    for piece in pieces:
        whole.update(piece)
    return whole.hexdigest()
