"""The command or call that wrote a file, read from the mark in each format; nothing is parsed beyond the mark.

A run file says it in the block before its HDF5 part (`sealed`), JSON in its first key, a netlist in its second
line, a table in LaTeX in its first, and figures in their metadata. A table of layers in CSV, which has no comments,
is known by the names of its columns. A file without a mark is somebody else's.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HEAD_BYTES = 2**13
"""Marks lie within so many bytes from the beginning of a file, but for that of a PDF ..."""
TAIL_BYTES = 2**20
"""... which lies before its table of objects, within so many bytes from its end."""

SEAL = b"physics-ep run file\n"
"""How run files begin (`sealed`)."""
NETLIST_MARK = "* written by "
LATEX_MARK = "% written by "

_JSON = re.compile(rb'(?:\xef\xbb\xbf)?\s*\{\s*"command": "([^"\\]+)"')
_NETLIST = re.compile(rb"[^\n]*\n\* written by ([^\r\n]+)\r?\n")
_LATEX = re.compile(rb"% written by ([^\r\n]+)\r?\n")
_LAYERS = b"layer,weights,cosine,1 - cosine,relative error,residual,K"
_SVG = re.compile(rb"<dc:creator>\s*<cc:Agent>\s*<dc:title>([^<]+)</dc:title>")
_PDF = re.compile(rb"/Creator \(([^()\\]+)\)")


@dataclass(frozen=True)
class FileOrigin:
    """Which command or call wrote a file.

    Attributes
    ----------
    command : str
        Command line without its arguments ('physics-ep train') or call ('physics_ep.train').
    kind : str
        Kind of a run file ('training', 'simulation', ...); empty for other files.
    """

    command: str
    kind: str = ""


def origin_of(path: Path) -> FileOrigin | None:
    """Read who wrote a file; None where it bears no mark of ours.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
        if head.startswith(b"%PDF-"):
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            marks = _PDF.findall(file.read())
            return FileOrigin(marks[-1].decode("utf-8", "replace")) if marks else None
    for begins, read in _READERS:
        if head.startswith(begins):
            return read(head)
    for pattern in (_JSON, _LATEX, _NETLIST):
        found = pattern.match(head)
        if found:
            return FileOrigin(found[1].decode("utf-8", "replace"))
    return FileOrigin("physics-ep gradients") if head.startswith(_LAYERS) else None


def _of_run(head: bytes) -> FileOrigin | None:
    told = dict(line.split(b": ", 1) for line in head[:512].split(b"\n") if b": " in line)
    if b"command" not in told:
        return None
    return FileOrigin(*(told.get(name, b"").decode("utf-8", "replace") for name in (b"command", b"kind")))


def _of_png(head: bytes) -> FileOrigin | None:
    """Text chunk 'Software', before the pixels."""
    place = 8
    while place + 8 <= len(head):
        size, kind = struct.unpack(">I4s", head[place : place + 8])
        content = head[place + 8 : place + 8 + size]
        if kind == b"IDAT":
            return None
        if kind == b"tEXt" and content.startswith(b"Software\0"):
            return FileOrigin(content.partition(b"\0")[2].decode("latin-1"))
        place += size + 12
    return None


def _of_svg(head: bytes) -> FileOrigin | None:
    found = _SVG.search(head)
    return FileOrigin(found[1].decode("utf-8", "replace")) if found else None


_READERS: tuple[tuple[bytes, Callable[[bytes], FileOrigin | None]], ...] = (
    (SEAL, _of_run),
    (b"\x89PNG\r\n\x1a\n", _of_png),
    (b"<?xml", _of_svg),
)
