"""Run files: everything a run was and gave, in one HDF5 file that survives kills.

Layout::

    attributes            format, format_version, kind, config (JSON), seed, versions (JSON), device, dtype,
                          threads, date (UTC), git_commit (if any), and what the writer adds
    /metrics/NAME         one value an epoch
    /weights/NAME         state_dict of the system
    /examples/x, y        first test examples of data that came from Python, which no name tells
    /resume               optimizer, scheduler and random state, to go on from here
    /trajectories/PHASE   time, state_0, state_1, ..., internal_0, ..., energy, residual

Datasets carry `units` and `description`. A file is written beside its place and then takes it (`files.replacing`),
so that it is always complete; a digest before its HDF5 part shows damage (`sealed`). Nothing in it is ever
executed: tensors are arrays, all else is JSON.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from ..entries import ROOT
from ..errors import InputError, argument_error
from ..misses import told_of_metrics
from ..registry import former_options
from ..tabular import Tabular, epochs_for_paper, epochs_of
from ..version import __version__
from .outputs import note, writer, writing
from .sealed import inspect_links, sealed, verify_seal
from .trajectory import Trajectory

FORMAT = "physics-ep run"
FORMAT_VERSION = 1
LAST = ("test_error", "test_loss")
"""Metrics of which one tells how good a trained system is: of classes, or of measured targets."""


@dataclass(frozen=True)
class Quantity:
    """Values with their unit and description.

    Attributes
    ----------
    values : array-like
    units : str
        SI unit, '1' if dimensionless.
    description : str
    """

    values: Any
    units: str
    description: str


@dataclass(frozen=True, repr=False)
class Run(Tabular):
    """A run as it is written to a file and read from one: config, metrics, weights or trajectories.

    Attributes
    ----------
    attributes : dict
        File attributes; `config`, `versions` and `targets` are decoded.
    metrics : dict
        Name to `Quantity`, values (epochs, ...).
    state_dict : dict
        Weights of the system, on the CPU: for `system.load_state_dict`.
    examples : dict
        `x` (N, ...) and `y`, class indices (N,) or measured targets (N, n): the first test examples, where the data
        came from Python. Else empty: `physics_ep.runs.examples_of` gives the test examples of any run.
    resume : dict
        What training needs to go on: optimizer, scheduler and random state. Empty if nothing can go on.
    trajectories : dict
        Phase ('free', 'nudged') to `Trajectory`.
    path : Path or None
        File that the run was read from.
    """

    attributes: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Quantity] = field(default_factory=dict)
    state_dict: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)
    resume: dict[str, Any] = field(default_factory=dict, repr=False)
    examples: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)
    trajectories: dict[str, Trajectory] = field(default_factory=dict, repr=False)
    path: Path | None = None

    @property
    def config(self) -> dict[str, Any]:
        """Sections of the config, all defaults filled in; those of the system as in the release that wrote it."""
        sections = dict(self.attributes.get("config", {}))
        system = sections.get("system")
        if isinstance(system, dict) and "name" in system:
            sections["system"] = former_options(system["name"], system)
        return sections

    @property
    def epochs(self) -> int:
        """Number of epochs that the run has completed."""
        return int(self.attributes.get("epochs", 0))

    def words(self) -> list[str]:
        """What kind of run it is, what it holds, and where it is."""
        told = [str(self.attributes.get("kind", "run"))]
        if self.epochs:
            told.append(f"{self.epochs} epoch{'s' * (self.epochs != 1)}")
        if self.trajectories:
            told.append(f"trajectories {', '.join(self.trajectories)}")
        told_misses = self._misses()
        if told_misses:
            told.append(f"test: {told_misses}")
        elif "test_error" in self.metrics and self.epochs:
            for name in (name for name in LAST if name in self.metrics):
                measured = [value for value in self.metric(name) if np.isfinite(value)]
                shown = "{:.2%}" if name.endswith("error") else "{:.4g}"
                told += [f"{name.replace('_', ' ')} {shown.format(float(v))}" for v in measured[-1:]]
        return [*told, *([] if self.path is None else [repr(str(self.path))])]

    def _misses(self) -> str:
        """How far off measured targets are, after the epoch that was tested last; '' of classes and older runs."""
        if not self.epochs or "test_rms" not in self.metrics:
            return ""
        metrics = {name: self.metric(name) for name in ("test_rms", "test_r2")}
        tested = np.flatnonzero(np.isfinite(metrics["test_rms"]).all(1))
        return told_of_metrics(self.attributes.get("targets"), metrics, int(tested[-1])) if len(tested) else ""

    def records(self) -> list[dict[str, Any]]:
        """The epochs of a training as a table, one row for each."""
        metrics = {name: np.asarray(found.values) for name, found in self.metrics.items()}
        return epochs_of(metrics, (self.attributes.get("targets") or {}).get("names", ()))

    def paper_rows(self) -> list[dict[str, Any]]:
        """The epochs with cost, errors and worst residual."""
        return epochs_for_paper(self.records())

    def metric(self, name: str) -> np.ndarray:
        """Values of one metric, (epochs, ...)."""
        if name not in self.metrics:
            raise argument_error("name", f"be one of {', '.join(self.metrics)}", repr(name))
        return np.asarray(self.metrics[name].values)


def environment() -> dict[str, Any]:
    """Attributes that every file has: date, versions, threads and, from a git checkout, the commit."""
    versions = {"physics-ep": __version__, "python": platform.python_version()}
    for package in ("torch", "numpy", "scipy", "numba", "h5py"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    found = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
    }
    commit = git_commit()
    return found if commit is None else {**found, "git_commit": commit}


def git_commit() -> str | None:
    """Commit of the source tree that runs, with '-dirty' if files differ from it; None outside a checkout."""
    if not (ROOT / ".git").exists():
        return None
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def write_run(path: str | os.PathLike[str], run: Run, overwrite: bool = False) -> None:
    """Write a run file; a kill at any moment leaves the previous file or this one.

    Parameters
    ----------
    path : path
    run : Run
    overwrite : bool
        Replace what is there, though another call wrote it, or it holds a training or a sweep.

    Raises
    ------
    InputError
        If a file is there that is not to be replaced (`outputs`), or the disk refuses.
    """
    if not isinstance(run, Run):
        raise argument_error("run", "be a Run", type(run).__name__)
    with writing("physics_ep.storage.write_run", overwrite=overwrite) as call:
        call.claim("path", path)
        _write_run(path, run)


def _write_run(path: str | os.PathLike[str], run: Run) -> None:
    kind = str(run.attributes.get("kind", ""))
    try:
        with sealed(path, writer("physics_ep"), kind) as file:
            file.attrs["format"] = FORMAT
            file.attrs["format_version"] = FORMAT_VERSION
            for name, value in run.attributes.items():
                file.attrs[name] = json.dumps(value) if isinstance(value, dict | list) else value
            for name, quantity in run.metrics.items():
                _write(file, f"metrics/{name}", quantity)
            for name, tensor in run.state_dict.items():
                _write(file, f"weights/{name}", Quantity(_array(tensor), "model units", "parameter or buffer"))
            for name, tensor in run.examples.items():
                _write(file, f"examples/{name}", Quantity(_array(tensor), "1", "first test examples"))
            if run.resume:
                group = file.create_group("resume")
                # A dataset, since attributes end at 64 KB.
                group.create_dataset("tree", data=json.dumps(_pack(run.resume, group)))
            for phase, trajectory in run.trajectories.items():
                _write_trajectory(file.create_group(f"trajectories/{phase}"), trajectory)
    except OSError as error:
        raise InputError(f"Cannot write run file {str(path)!r}: {error.strerror or error}.") from error


def read_run(path: str | os.PathLike[str], verify: bool = True) -> Run:
    """Read one whole run file; `opening.open_run` also takes the parts of one.

    Parameters
    ----------
    path : path
    verify : bool
        Compare the file with its digest before anything in it is parsed. Without, damage may go unseen.

    Raises
    ------
    InputError
        If it is damaged, or another program wrote it.
    """
    path = Path(path)
    unsealed = verify and verify_seal(path) is None
    try:
        with h5py.File(path, "r") as file:
            inspect_links(file)
            if file.attrs.get("format") != FORMAT:
                raise InputError(f"File {str(path)!r} is HDF5, but no run file of physics-ep.")
            if int(file.attrs["format_version"]) > FORMAT_VERSION:
                raise InputError(f"Run file {str(path)!r} was written by a newer physics-ep: update it.")
            resume = file.get("resume")
            run = Run(
                attributes={name: _attribute(name, value) for name, value in file.attrs.items()},
                metrics={name: _read(file["metrics"][name]) for name in file.get("metrics", ())},
                state_dict=_tensors(file["weights"]) if "weights" in file else {},
                examples=_tensors(file["examples"]) if "examples" in file else {},
                resume={} if resume is None else _unpack(json.loads(resume["tree"].asstr()[()]), resume),
                trajectories={n: _read_trajectory(g) for n, g in file.get("trajectories", {}).items()},
                path=path,
            )
    except InputError:
        raise
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError, StopIteration) as error:
        # h5py raises any of these, depending on which bytes are damaged.
        reason = " ".join(str(error).split())
        raise InputError(f"File {str(path)!r} is no run file, or is damaged or truncated ({reason}).") from error
    if unsealed:
        note(f"{str(path)!r} was written before run files had digests: not all damage to it can be seen.")
    return run


def _write(group: h5py.Group, name: str, quantity: Quantity) -> None:
    values = np.asarray(quantity.values)
    # A checksum tells damaged bytes from weights; it needs chunks, which scalars and empty arrays cannot have.
    options = {"fletcher32": True} if values.ndim and values.size else {}
    held = group.create_dataset(name, data=values, **options)
    held.attrs["units"] = quantity.units
    held.attrs["description"] = quantity.description


def _read(held: h5py.Dataset) -> Quantity:
    return Quantity(held[()], str(held.attrs["units"]), str(held.attrs["description"]))


def _attribute(name: str, value: Any) -> Any:
    if name in ("config", "versions", "targets"):
        return json.loads(value)
    return value.item() if isinstance(value, np.generic) else value


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def _tensors(group: h5py.Group) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.array(held[()])) for name, held in group.items()}


def _pack(value: Any, group: h5py.Group) -> Any:
    """JSON tree of nested state; tensors go into datasets, numbered in order."""
    if isinstance(value, torch.Tensor):
        name = f"{len(group):06d}"
        _write(group, name, Quantity(_array(value), "state units", "part of the state to resume from"))
        return {"tensor": name}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        # Pairs, since optimizers use integers as keys, of which JSON knows none.
        return {"dict": [[_pack(k, group), _pack(v, group)] for k, v in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_pack(v, group) for v in value]}
    if isinstance(value, list):
        return [_pack(v, group) for v in value]
    kind = type(value).__name__
    raise InputError(f"State of type {kind} cannot be stored: choose another optimizer or scheduler.")


def _unpack(tree: Any, group: h5py.Group) -> Any:
    if isinstance(tree, list):
        return [_unpack(v, group) for v in tree]
    if not isinstance(tree, dict):
        return tree
    kind, content = next(iter(tree.items()))
    readers: Mapping[str, Callable[[], Any]] = {
        "tensor": lambda: torch.from_numpy(np.array(group[content][()])),
        "dict": lambda: {_unpack(k, group): _unpack(v, group) for k, v in content},
        "tuple": lambda: tuple(_unpack(v, group) for v in content),
    }
    return readers[kind]()


def _write_trajectory(group: h5py.Group, trajectory: Trajectory) -> None:
    course = trajectory
    if not math.isnan(course.tolerance):
        group.attrs["tolerance"] = course.tolerance
    _write(group, "time", Quantity(_array(course.time), course.time_unit, "time of each row, (T,)"))
    inner = course.internal_unit or course.state_unit
    for name, blocks, unit in (("state", course.state, course.state_unit), ("internal", course.internal, inner)):
        for k, block in enumerate(blocks):
            meaning = f"block {k} of the {name} variables, (T, B, ...)"
            _write(group, f"{name}_{k}", Quantity(_array(block), unit, meaning))
    _write(group, "energy", Quantity(_array(course.energy), course.energy_unit, "energy, nudge included, (T, B)"))
    _write(group, "residual", Quantity(_array(course.residual), "1", "dimensionless force, (T, B)"))


def _read_trajectory(group: h5py.Group) -> Trajectory:
    def blocks(name: str) -> tuple[torch.Tensor, ...]:
        return tuple(stored(group[f"{name}_{k}"]) for k in range(sum(key.startswith(f"{name}_") for key in group)))

    def unit(name: str) -> str:
        return str(group[name].attrs["units"]) if name in group else ""

    return Trajectory(
        stored(group["time"]),
        blocks("state"),
        stored(group["energy"]),
        stored(group["residual"]),
        blocks("internal"),
        unit("time"),
        unit("state_0"),
        unit("energy"),
        unit("internal_0"),
        float(group.attrs.get("tolerance", math.nan)),
    )


def stored(held: h5py.Dataset) -> torch.Tensor:
    """Tensor of a dataset: mapped from the file where it lies there in one piece, else read."""
    offset = held.id.get_offset()
    if held.chunks is not None or offset is None or not held.size:
        return torch.from_numpy(np.array(held[()]))
    # Pages are private: what a user changes in them never reaches the file.
    return torch.from_numpy(np.memmap(held.file.filename, held.dtype, "c", offset, held.shape))
