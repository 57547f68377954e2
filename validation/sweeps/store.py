"""Sweep files: results as they come, in parts that survive a kill, then one file.

Each point of a sweep is written once, as OUT.h5.parts/NNNNNN.h5 with its number in the plan, a run file of its own
(`physics_ep.storage.run_file`) that takes its place atomically. When all points are there, the parts become OUT.h5
in the order of the plan, through a temporary file as well, and go. A resumed sweep measures the points that have no
part.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hardware_models.devices.model import as_compared
from physics_ep.errors import InputError, argument_error
from physics_ep.predictive_coding.forward import FORMER_GATES
from physics_ep.storage.opening import open_run
from physics_ep.storage.outputs import as_asked, claim, note
from physics_ep.storage.parts import parts_folder, remove_parts
from physics_ep.storage.run_file import Quantity, Run, environment, write_run

from .points import FOUND, LIVE, QUANTITIES, Measured, blank_of_gates

KIND, PART = "tolerance sweep", "point of a tolerance sweep"
FREE = ("threads",)
"""Entries of a configuration that a resumed sweep takes from the file."""


class SweepFile:
    """A sweep on disk, or in memory alone.

    Parameters
    ----------
    path : path or None
        None: kept in memory.
    config : dict
        All that the results depend on, JSON-like.
    layers : sequence of str
        Parameter names.
    resume : bool
        Go on with what is there.
    labels : sequence of str, optional
        What the layers are called for a reader; default their own names.
    examples : int
        Size of the batch, for the reader of a table.

    Attributes
    ----------
    found : dict
        Number of a point to what was measured there.
    config : dict
        The config of the file, where there is one.

    Raises
    ------
    InputError
        If the file exists and is not to be resumed, or is another sweep's, or cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        config: dict[str, Any],
        layers: Sequence[str],
        resume: bool = False,
        labels: Sequence[str] | None = None,
        examples: int = 0,
    ) -> None:
        self.examples = examples
        self.config, self.layers, self.labels = config, tuple(layers), tuple(labels or layers)
        self.total = len(config["tolerance"]["plan"])
        self.found: dict[int, Measured] = {}
        self.path = None if path is None else claim("out", path, judge=False)
        self._environment: dict[str, Any] = {}
        if self.path is None:
            return
        self.folder = parts_folder(self.path)
        there = self.path if self.path.exists() else self.folder if self.folder.exists() else None
        if there is not None and not resume:
            must = f"be a new file; {as_asked('--resume', 'resume=True')} goes on with a sweep that is there"
            raise argument_error("out", must, repr(str(there)))
        if there is not None:
            self._read()
        self.begun = bool(self.found)

    @property
    def missing(self) -> list[int]:
        """Numbers of the points that are not measured yet."""
        return [k for k in range(self.total) if k not in self.found]

    def write(self, number: int, measured: Measured) -> None:
        """Keep what was measured at a point of the plan.

        A sweep with a file has it on disk when this returns, so that it survives a kill; a sweep without one keeps
        it in memory alone.

        Parameters
        ----------
        number : int
            Number of the point in the plan.
        measured : Measured
            Quantities of the point, by name.

        Raises
        ------
        InputError
            If the file cannot be written.
        """
        if self.path is not None:
            if not self._environment:
                self._environment = environment()
            rows = {name: values[None] for name, values in measured.items()}
            attributes = self._attributes(PART, point=number)
            write_run(self.folder / f"{number:06d}.h5", Run(attributes, metrics=quantities(rows)))
        self.found[number] = measured

    def discard(self) -> None:
        """Take away what was written, of a sweep that was wrong from the beginning."""
        if self.path is not None and not self.begun:
            self._remove_parts()

    def _remove_parts(self) -> None:
        with suppress(OSError, InputError):  # what else is in the folder stays, with it
            remove_parts(self.folder, PART)

    def finish(self) -> Measured:
        """All points in one, with the axis of points in front; on disk, the parts become the file."""
        assert not self.missing
        rows = {name: np.stack([self.found[k][name] for k in range(self.total)]) for name in QUANTITIES}
        if self.path is not None:
            if not self.path.exists():
                if not self._environment:
                    self._environment = environment()
                write_run(self.path, Run(self._attributes(KIND), metrics=quantities(rows)))
            # Of a sweep that was killed between the two, the parts are still there.
            self._remove_parts()
        return rows

    def _attributes(self, kind: str, **more: Any) -> dict[str, Any]:
        own = self.config["tolerance"]
        known = {
            "config": self.config,
            "layers": list(self.layers),
            "labels": list(self.labels),
            "seed": own["seed"],
            "examples": self.examples,
        }
        return {
            "kind": kind,
            **known,
            "device": own["torch_device"],
            "dtype": own["dtype"],
            **self._environment,
            **more,
        }

    def _read(self) -> None:
        assert self.path is not None
        for file, run in read_runs(self.path):
            self._check(file, run)
            numbers = range(self.total) if run.attributes["kind"] == KIND else [int(run.attributes["point"])]
            for row, number in enumerate(numbers):
                self.found[number] = {name: quantity.values[row] for name, quantity in run.metrics.items()}

    def _check(self, file: Path, run: Run) -> None:
        """Refuse another sweep's file, in words that say what differs."""
        before = _with_names_of_today(run.config)
        for key in FREE:
            self.config["tolerance"][key] = before["tolerance"][key]
        # Through JSON, in which tuples are lists.
        # A file of an earlier release knows fewer fields of a device, and meant that copies are shared.
        now = json.loads(json.dumps(self.config))
        base = as_compared(before["tolerance"]["base"], repr(str(self.path)))
        before = {**before, "tolerance": {**before["tolerance"], "base": base}}
        change = difference(before, now)
        if change is not None:
            key, was, now = change
            must = f"be {_short(was)}, as in {str(self.path)!r}, to resume it"
            raise argument_error(key.removeprefix("tolerance."), must, _short(now))
        if json.loads(run.attributes["layers"]) != list(self.layers):
            raise InputError(f"Sweep file {str(file)!r} has other layers: it cannot be resumed.")


def read_runs(path: Path) -> list[tuple[Path, Run]]:
    """The sweep file, or the parts of one that is not complete; none if no point has been measured.

    Raises
    ------
    InputError
        If a file is damaged or no part of a sweep.
    """
    files = [path] if path.exists() else sorted(parts_folder(path).glob("*.h5"))
    runs = []
    for file in files:
        run = _with_gates_of_today(_with_references_of_today(open_run(file)))
        kind = run.attributes.get("kind")
        if kind not in (KIND, PART) or set(run.metrics) != set(QUANTITIES):
            raise argument_error("out", "be a sweep file", f"{str(file)!r}, a run file of kind {kind!r}")
        runs.append((file, run))
    return runs


def _with_references_of_today(run: Run) -> Run:
    """A run whose `adaptation_*` are what is meant by it now.

    Files of releases that knew two references called backprop through the arrays that drive h adaptation. It is
    read as feedforward; what they did not measure is NaN.
    """
    if run.attributes.get("kind") not in (KIND, PART) or "adaptation_cosine" not in run.metrics:
        return run
    if "feedforward_cosine" in run.metrics:
        return run
    note(
        f"sweep file {str(run.path)!r} is of a release that called backprop through the arrays which drive h "
        "'adaptation': it is read as 'feedforward', and there is no adaptation in it"
    )
    found = {name.replace("adaptation_", "feedforward_"): quantity for name, quantity in run.metrics.items()}
    for name in [name for name in QUANTITIES if name.startswith("adaptation_")]:
        asked = found[name.replace("adaptation_", "feedforward_")].values
        found[name] = Quantity(np.full_like(asked, np.nan), *QUANTITIES[name])
    status = found["status"].values
    for name in ("free_share", "free_error"):
        found[name] = Quantity(np.full(status.shape, np.nan), *QUANTITIES[name])
    found["free_solver"] = Quantity(np.full(status.shape, b"", "S16"), *QUANTITIES["free_solver"])
    return replace(run, metrics=found)


def _with_gates_of_today(run: Run) -> Run:
    """A run that says which examples settle, and has room for live gates beside those that it was measured with.

    Releases that took the whole batch or nothing had all examples settled where they found an equilibrium.
    """
    if run.attributes.get("kind") not in (KIND, PART) or "feedforward_cosine" not in run.metrics:
        return run
    found = dict(run.metrics)
    if "settled" not in found:
        status = found["status"].values
        found["settled"] = Quantity(np.where(status == FOUND, 1.0, np.nan), *QUANTITIES["settled"])
    if f"{LIVE}status" not in found:
        points, layers, repeats = found["feedforward_cosine"].values.shape
        for name, value in blank_of_gates(layers, repeats).items():
            rows = np.repeat(value[None], points, axis=0)
            found[f"{LIVE}{name}"] = Quantity(rows, *QUANTITIES[f"{LIVE}{name}"])
    return replace(run, metrics=found)


def quantities(rows: Measured) -> dict[str, Quantity]:
    """Values with their units and meanings."""
    return {name: Quantity(rows[name], *QUANTITIES[name]) for name in QUANTITIES}


def checksum(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of named tensors: names, dtypes, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        values = np.ascontiguousarray(tensor.detach().cpu().numpy())
        digest.update(f"{name} {values.dtype} {values.shape} ".encode())
        digest.update(values.data)
    return digest.hexdigest()


def difference(before: Any, now: Any, key: str = "") -> tuple[str, Any, Any] | None:
    """First entry of nested tables that differs: where, what it was, what it is; None if none does."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in {**before, **now}:
            found = difference(before.get(name), now.get(name), f"{key}.{name}" if key else name)
            if found is not None:
                return found
        return None
    return None if before == now else (key, before, now)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _with_names_of_today(config: dict[str, Any]) -> dict[str, Any]:
    """A sweep's configuration in which gates bear today's names: files may have been written with the former."""
    own, system = dict(config["tolerance"]), dict(config["system"])
    own["gates"] = FORMER_GATES.get(own["gates"], own["gates"])
    own.setdefault("method", "energy")  # files of earlier releases: ordinary EP, whatever copies are
    for former, name in FORMER_GATES.items():
        # A system that was given as a module is described by representations of its attributes.
        system = {key: repr(name) if key == "gates" and v == repr(former) else v for key, v in system.items()}
    return {**config, "tolerance": own, "system": system}
