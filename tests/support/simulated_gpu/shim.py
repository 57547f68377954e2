"""The C++ parts of the simulated device: compiled when they are first asked for, kept for the next process."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import subprocess
import tempfile
from pathlib import Path

import torch

from tests.support.paths import ROOT

SOURCE = Path(__file__).with_name("device.cpp")
TORCH = Path(torch.__file__).parent

LOADED: list[ctypes.CDLL] = []
"""The library, once `install` has loaded it: a process gets it once."""


class UnavailableError(RuntimeError):
    """The device cannot be simulated here; the message says why."""


def pinned_torch() -> str:
    """The version of torch that constraints.txt pins: the private interfaces used here may differ in others."""
    found = re.search(r"^torch==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None, "constraints.txt pins no torch"
    return found[1]


def install(kept: Path | None = None) -> None:
    """Give torch's CPU build the C++ parts of a CUDA device, for the rest of the process.

    Parameters
    ----------
    kept : Path, optional
        Folder in which the compiled library is looked for and kept. By default it is compiled (two seconds) and
        not kept.

    Raises
    ------
    UnavailableError
        This is not the pinned torch, it is built for a real device, or there is no C++ compiler.
    """
    if LOADED:
        return
    version = torch.__version__.partition("+")[0]
    if version != pinned_torch():
        raise UnavailableError(f"it is made for torch {pinned_torch()}, and this is {version}")
    if torch.version.cuda or torch.version.hip:
        raise UnavailableError("this torch is built for real devices; the simulation needs its CPU build")
    with tempfile.TemporaryDirectory() as folder:
        name = hashlib.sha256(SOURCE.read_bytes() + torch.__version__.encode()).hexdigest()[:16]
        library = (kept or Path(folder)) / f"{name}.so"
        if not library.exists():
            _compile(Path(folder) / "new.so")
            os.replace(_beside(Path(folder) / "new.so", library), library)
        LOADED.append(ctypes.CDLL(str(library)))


def _beside(new: Path, library: Path) -> Path:
    """A copy of `new` in the library's folder, of a name of this process: it can take its place at once."""
    copy = library.with_suffix(f".{os.getpid()}")
    copy.write_bytes(new.read_bytes())
    return copy


def _compile(library: Path) -> None:
    compiler = os.environ.get("CXX", "c++")
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"
    command = [compiler, str(SOURCE), "-shared", "-fPIC", "-std=c++20", abi, f"-I{TORCH / 'include'}"]
    command += [f"-L{TORCH / 'lib'}", "-lc10", "-ltorch_cpu", "-o", str(library)]
    try:
        subprocess.run(command, text=True, capture_output=True, check=True)
    except OSError as error:
        raise UnavailableError(f"it needs a C++ compiler, and {compiler} (CXX) does not run: {error}") from error
    except subprocess.CalledProcessError as error:
        raise UnavailableError(f"{compiler} (CXX) does not compile device.cpp: {error.stderr}") from error
