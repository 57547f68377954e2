"""The one door of numba: the laws compiled, kernels, and their cache on disk.

The laws are those of `physics_ep.units` and `hardware_models.laws.couplings`, compiled as they stand behind a
switch on their `kind` code; circuits' elements are switched likewise in `hardware_models.circuits.kernels`. Files
with kernels take what they need of numba from here.

Compiled code is cached on disk in a folder named by the hash of all sources whose code kernels may contain
(`sources`): numba's own check sees the one file in which a kernel stands, and would go on running a stale law.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba import prange, types  # noqa: F401 (files with kernels take prange from here)
from numba.extending import overload

from physics_ep import units

from . import couplings
from .cache import KernelCache

Array = np.ndarray
config: Any = numba.config
PACKAGE = Path(__file__).parents[1]
LAWS = "laws/[!_]*.py"
"""Files of the laws in the package, which kernels inline; their face holds no code."""
UNIT_LAWS = Path(units.__file__)
"""Laws of units, which kernels inline too; they stand in physics_ep, for the activations of its networks."""
REORDERED = {"reassoc", "contract", "nsz"}
"""What LLVM may do to floats of kernels that sum: add in another order, multiply and add at once, take -0 for 0.
NaN and infinity stay what they are."""
DOOR = b"compiled import "
"""What stands in every file that has kernels."""


def sources(package: Path = PACKAGE) -> list[Path]:
    """Files whose code compiled kernels may contain: the laws, this file, and all files that import this one.

    A kernel inlines functions, constants and the layout of named tuples of other files. Those are laws or stand in
    files with kernels, and such files import this one.
    """
    found = set(package.glob(LAWS))
    found |= {path for path in package.rglob("*.py") if DOOR in path.read_bytes()}
    return [*sorted(found), UNIT_LAWS]


def digest(package: Path = PACKAGE) -> str:
    """Hash of `sources`: their names and what they hold."""
    total = hashlib.sha256()
    for path in sources(package):
        name = path.relative_to(package).as_posix() if path.is_relative_to(package) else path.name
        total.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()[:16]


def cache_folder() -> str | None:
    """Folder for compiled kernels: under NUMBA_CACHE_DIR or the user's cache; None where it cannot be written."""
    parent = config.CACHE_DIR or os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    folder = os.path.join(os.path.expanduser(parent), "physics-ep", f"kernels-{digest()}")
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return None


CACHE = cache_folder()


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a parallel kernel, cached in `CACHE`; the folder is read when the function is decorated.

    The kernel wakes no more threads than its first array has rows: those with nothing to do would spin meanwhile.
    """
    return by_rows(_cached(function, parallel=True))


def by_rows(compiled: Callable[..., Any]) -> Callable[..., Any]:
    """The parallel function with as many threads as its first argument has rows, or all where there are fewer."""

    @wraps(compiled)
    def run(*arguments: Any) -> Any:
        threads = numba.get_num_threads()
        rows = max(1, len(arguments[0]))
        if rows >= threads:
            return compiled(*arguments)
        numba.set_num_threads(rows)
        try:
            return compiled(*arguments)
        finally:
            numba.set_num_threads(threads)

    return run


def summing(function: Callable[..., Any]) -> Any:
    """A `kernel` whose sums may be added in another order (`REORDERED`): loops over them are then vectorised."""
    return by_rows(_cached(function, parallel=True, fastmath=REORDERED))


def sequential(function: Callable[..., Any]) -> Any:
    """Compile a kernel of one thread, cached as others are: threads with nothing to do would spin meanwhile."""
    return _cached(function, parallel=False)


def _cached(function: Callable[..., Any], parallel: bool, fastmath: bool | set[str] = False) -> Any:
    outer = config.CACHE_DIR
    config.CACHE_DIR = CACHE or outer
    try:
        decorator = numba.njit(parallel=parallel, fastmath=fastmath, nogil=True, error_model="numpy")
        compiled: Any = decorator(function)
        if CACHE is not None:
            compiled._cache = KernelCache(function)  # what `cache=True` does with numba's own
        return compiled
    finally:
        config.CACHE_DIR = outer


def inner(function: Callable[..., Any]) -> Any:
    """Compile a function that kernels call; it lives in their cache entries."""
    return numba.njit(error_model="numpy")(function)


def summing_inner(function: Callable[..., Any]) -> Any:
    """Compile a function that `summing` kernels call, with sums like theirs."""
    return numba.njit(error_model="numpy", fastmath=REORDERED)(function)


@overload(np.clip)
def scalar_clip(a: Any, a_min: Any, a_max: Any) -> Any:
    """np.clip of numbers, which numba has for arrays only."""
    if not all(isinstance(t, types.Float) for t in (a, a_min, a_max)):
        return None

    def clip(a: Any, a_min: Any, a_max: Any) -> Any:
        return a_min if a < a_min else (a_max if a > a_max else a)

    return clip


# -- laws -------------------------------------------------------------------------------------------------------


def switch(choices: list[tuple[int, Callable[..., Any]]]) -> Any:
    """One compiled function (kind, *arguments) that applies the function of that kind; the last one is the rest."""
    (code, function), others = choices[0], choices[1:]
    chosen = inner(function)
    if not others:
        return inner(lambda kind, *arguments: chosen(*arguments))
    rest = switch(others)

    def pick(kind: int, *arguments: float) -> float:
        if kind == code:
            return chosen(*arguments)
        return rest(kind, *arguments)

    return inner(pick)


def compiled_difference(unit: units.UnitFunctions) -> Any:
    """sigma(p + d) - sigma(p) of a unit, rounding-safe."""
    anchor, displaced = inner(unit.anchor), inner(unit.displaced)
    return lambda p, d: displaced(d, *anchor(p))


UNITS = [(unit.kind, unit.make(np)) for unit in units.UNITS.values() if unit.kind is not None]
COUPLINGS = [(coupling.kind, coupling.make(np)) for coupling in couplings.COUPLINGS.values()]

potential = switch([(kind, unit.potential) for kind, unit in UNITS])
response = switch([(kind, unit.response) for kind, unit in UNITS])
difference = switch([(kind, compiled_difference(unit)) for kind, unit in UNITS])
pair_energy = switch([(kind, pair.energy) for kind, pair in COUPLINGS])
slope = switch([(kind, pair.slope) for kind, pair in COUPLINGS])
slope_difference = switch([(kind, pair.slope_difference) for kind, pair in COUPLINGS])
weight_slope_difference = switch([(kind, pair.weight_slope_difference) for kind, pair in COUPLINGS])
