"""A disk that HDF5 takes for endless: where the real one is full, writing goes on into nothing, and fails last.

HDF5 does not survive a write that fails: objects that it could not close crash the process when they are collected,
and leave temporary files and locks behind. So it writes through a file that remembers the first error, and drops
what comes after.
"""

from __future__ import annotations

import io
import os
from types import TracebackType


class PatientFile(io.RawIOBase):
    """A new binary file that takes every write; `check` tells whether the disk did.

    Parameters
    ----------
    path : path
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__()
        self._file = open(path, "wb+", buffering=0)  # noqa: SIM115 (`close` closes it)
        self._error: OSError | None = None
        self._size = 0  # that HDF5 believes in
        self._place = 0

    def check(self) -> None:
        """Raise the OSError that the first failed write met."""
        if self._error is not None:
            raise self._error

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        """Write all of it at the current place, or drop it once the disk has refused."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while len(rest) and self._error is None:
                written = self._file.write(rest)
                rest = rest[written or 0 :]
        except OSError as error:
            self._error = error
        self._place += size
        self._size = max(self._size, self._place)
        return size

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Read back from the current place; zeros where a write was dropped."""
        room = memoryview(buffer).cast("B")
        asked = max(0, min(len(room), self._size - self._place))
        found = self._file.readinto(room[:asked]) or 0
        room[found:asked] = bytes(asked - found)
        self._place += asked
        return asked

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position in the file, which may lie beyond what the disk holds."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = self._file.seek(start + offset)
        return self._place

    def tell(self) -> int:
        """The position in the file, in bytes."""
        return self._place

    def truncate(self, size: int | None = None) -> int:
        """Cut or lengthen the file to `size` bytes, by default to the current position."""
        self._size = self._place if size is None else size
        try:
            if self._error is None:
                self._file.truncate(self._size)
        except OSError as error:
            self._error = error
        return self._size

    def readable(self) -> bool:
        """Tell HDF5 that it can read back what it wrote: always true."""
        return True

    def writable(self) -> bool:
        """Tell HDF5 that the file can be written: always true."""
        return True

    def seekable(self) -> bool:
        """Tell HDF5 that any position of the file can be reached: always true."""
        return True

    def close(self) -> None:
        """Close the file on the disk."""
        self._file.close()
        super().close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
