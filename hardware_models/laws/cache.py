"""Compiled kernels on disk: damaged ones are compiled anew, and processes that compile at once do not mix theirs.

numba keeps an index of numbered files, reads whatever lies there, and of two processes that compile different
signatures at once one may find the other's code under its own number. Here a file is named by what it is for, and
holds that and a digest; what cannot be read, for whatever reason, goes and is compiled again.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from numba.core.caching import FunctionCache, IndexDataCacheFile

DIGEST = 32
"""Bytes of a SHA-256 digest, with which each file begins."""


class KernelCacheWarning(UserWarning):
    """Warns that compiled kernels cannot be read from disk or kept there: results are the same, and each process
    compiles anew.
    """


class KernelFiles(IndexDataCacheFile):
    """The files of one function's compiled forms, without an index."""

    def path(self, key: Any) -> str:
        """Path of the stored form of a key (signature, processor, bytecode)."""
        told = repr((self._version, self._source_stamp, key)).encode()
        base = self._index_name.removesuffix(".nbi")
        return os.path.join(self._cache_path, f"{base}.{hashlib.sha256(told).hexdigest()[:16]}.nbc")

    def load(self, key: Any) -> Any:
        """What was saved with a key, None where nothing was; ValueError where it is damaged."""
        try:
            with open(self.path(key), "rb") as file:
                digest, content = file.read(DIGEST), file.read()
        except FileNotFoundError:
            return None
        if hashlib.sha256(content).digest() != digest:
            raise ValueError("its bytes have changed")
        kept, data = pickle.loads(content)
        return data if kept == key else None

    def save(self, key: Any, data: Any) -> None:
        """Keep data with a key; a file takes its place whole."""
        content = self._dump((key, data))
        with self._open_for_write(self.path(key)) as file:
            file.write(hashlib.sha256(content).digest() + content)


class KernelCache(FunctionCache):
    """The cache of one function, which no state of the disk can make fail.

    Parameters
    ----------
    function : callable
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        locator = self._impl.locator
        self._files = KernelFiles(self._cache_path, self._impl.filename_base, locator.get_source_stamp())
        self._cache_file = self._files

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compiled form of a signature; None, with a warning, where it cannot be read."""
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # pickle raises any, depending on which bytes are damaged
            path = self._files.path(self._index_key(sig, target_context.codegen()))
            with suppress(OSError):
                os.unlink(path)
            why = " ".join(str(error).split())
            told = f"the compiled kernel {path!r} cannot be read ({why}): it is compiled again"
            warnings.warn(told, KernelCacheWarning, stacklevel=2)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep the compiled form of a signature, if the disk lets us."""
        try:
            super().save_overload(sig, data)
        except OSError as error:
            told = f"compiled kernels cannot be kept in {self._cache_path!r} ({error.strerror or error})"
            warnings.warn(told, KernelCacheWarning, stacklevel=2)
