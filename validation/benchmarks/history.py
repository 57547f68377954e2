"""Files of `physics-ep bench --json`, one a release, and the ratios of them that a history follows.

A benchmark's result has `followed`: a few ratios by name, of which less is better and none has a unit, so that
they may be held against those of other days. Times themselves say more of the machine than of the code. The files
of releases stand in the folder `releases` beside this file.
"""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from physics_ep.errors import InputError, argument_error
from physics_ep.storage.files import checked_path
from physics_ep.storage.outputs import as_asked, reading
from physics_ep.storage.texts import parse_json, require_regular
from physics_ep.version import __version__

RELEASES = Path(__file__).parent / "releases"
LIBRARIES = ("torch", "numpy", "scipy", "numba")
BUSY = 0.25
"""Share of the cores that other programs may keep busy before a machine counts as loaded."""


@dataclass(frozen=True)
class Release:
    """The ratios of one file.

    Attributes
    ----------
    name : str
        Name of the file without its ending.
    date : str
        When the first of its benchmarks began, as ISO 8601 tells it (UTC).
    machine : str
        Processor, threads and torch.
    loaded : bool
        Whether other programs kept more than `BUSY` of the cores busy in any of its benchmarks.
    followed : dict of str to dict
        Benchmark to name to ratio; less is better.
    """

    name: str
    date: str
    machine: str
    loaded: bool
    followed: dict[str, dict[str, float]]


@contextmanager
def conditions() -> Iterator[dict[str, Any]]:
    """Under what a benchmark runs: version, date, versions of what it rests on, cores and load.

    The load is the mean number of busy processes over a minute, before and after the `with` block.
    """
    told: dict[str, Any] = {
        "version": __version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in LIBRARIES},
        },
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "load": [os.getloadavg()[0]],
    }
    yield told
    told["load"].append(os.getloadavg()[0])


def is_loaded(result: Mapping[str, Any]) -> bool:
    """Whether others kept a machine busy while a benchmark ran; after it, one process is its own."""
    before, after = result["load"]
    return max(before, after - 1) > BUSY * result["cores"]


def read_history(folder: str | os.PathLike[str]) -> list[Release]:
    """Read all files `*.json` of a folder, in the order of their dates.

    Parameters
    ----------
    folder : path

    Returns
    -------
    list of Release

    Raises
    ------
    InputError
        If there is no such folder, no such file in it, or a file that `physics-ep bench --json` has not written.
    """
    name = as_asked("--from", "folder")
    place = checked_path(folder, name)
    must = "be a folder of files that physics-ep bench --json wrote"
    if not place.is_dir():
        raise argument_error(name, must, repr(str(place)))
    paths = sorted(place.glob("*.json"))
    if not paths:
        raise argument_error(name, must, f"{str(place)!r}, without a file *.json")
    return sorted((_release(path) for path in paths), key=lambda release: (release.date, release.name))


def _release(path: Path) -> Release:
    reading(str(path), path)
    try:
        require_regular(path)
        found = parse_json(path.read_text(encoding="utf-8"))
        results = _results(found)
        return Release(
            path.stem,
            min(datetime.fromisoformat(result["date"]).isoformat() for result in results.values()),
            next(str(result["machine"]) for result in results.values()),
            any(is_loaded(result) for result in results.values()),
            {key: _ratios(result["followed"]) for key, result in results.items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error) or "no benchmark in it"
        raise InputError(f"File {str(path)!r} must be one that physics-ep bench --json wrote ({why}).") from None


def _results(found: Any) -> dict[str, Any]:
    """Benchmark to result, of a file of one benchmark or of several."""
    if "rows" in found:
        return {found["benchmark"]: found}
    return {key: result for key, result in found.items() if key != "command"}


def _ratios(followed: Mapping[str, Any]) -> dict[str, float]:
    """Ratios above zero; those that were not measured (null) are left out."""
    kept = {str(name): float(value) for name, value in followed.items() if value is not None}
    for name, value in kept.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} is {value}")
    return kept
