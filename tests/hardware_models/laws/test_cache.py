"""Compiled kernels survive damage on disk: if these fail, a bad sector ends every command, or runs other code."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numba
import numpy as np
import pytest

from hardware_models.laws.cache import DIGEST, KernelCache, KernelCacheWarning


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    return tmp_path


def double(x):
    return 2 * x


def compiled():
    """The function as a process that has just started has it."""
    found = numba.njit(double)
    found._cache = KernelCache(double)
    return found


def damaged(content: bytes, kind: str) -> bytes:
    """The bytes of a cached kernel after a fault."""
    place = DIGEST + len(content) // 2
    return {
        "bit": content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :],
        "end": content[:place],
        "empty": b"",
        "zeros": bytes(len(content)),
        "other": pickle.dumps("something else"),
    }[kind]


@pytest.mark.parametrize("kind", ["bit", "end", "empty", "zeros", "other"])
def test_damaged_kernels_are_compiled_again(kind: str, folder: Path) -> None:
    """With a warning, once: the file is mended, and the next process finds it."""
    assert compiled()(3) == 6
    (file,) = folder.rglob("*.nbc")
    file.write_bytes(damaged(file.read_bytes(), kind))
    again = compiled()
    with pytest.warns(KernelCacheWarning, match="cannot be read .* it is compiled again"):
        assert again(3) == 6
    assert not sum(again.stats.cache_hits.values())
    mended = compiled()
    assert mended(3) == 6
    assert sum(mended.stats.cache_hits.values()) == 1


def test_processes_that_compile_at_once_keep_both(folder: Path) -> None:
    """Two that have seen an empty cache keep different signatures under different names, in any order."""
    first, second = compiled(), compiled()
    assert first(3) == 6
    assert np.array_equal(second(np.ones(2)), [2.0, 2.0])
    third = compiled()
    assert third(3) == 6
    assert np.array_equal(third(np.ones(2)), [2.0, 2.0])
    assert sum(third.stats.cache_hits.values()) == 2
    assert len(list(folder.rglob("*.nbc"))) == 2


def test_a_full_disk_costs_the_cache_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results come all the same."""

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(KernelCacheWarning, match="cannot be kept .*No space left"):
        assert compiled()(3) == 6
    assert not list(folder.rglob("*.nbc*"))
