"""Transients larger than memory: rows go to a file in chunks while they are computed, and come back mapped from it.

The file is a run file, which `physics_ep.open_run` reads as a trajectory named `transient`; `read_transient` gives
all that a `CircuitTrajectory` holds. Until the end rows stand in a temporary file beside it, in chunks that HDF5
can add to; then they are copied, a chunk in memory at a time, into datasets of one piece, which can be mapped.
"""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import torch

from physics_ep.errors import InputError
from physics_ep.storage.outputs import claim, writer, writing
from physics_ep.storage.run_file import FORMAT, FORMAT_VERSION, environment, stored
from physics_ep.storage.sealed import inspect_links, sealed, verify_seal

from .courses import CircuitTrajectory
from .power import CircuitPower

CALL = "hardware_models.transient"
CHUNK_BYTES = 2**24
"""Bytes of rows that are kept in memory before they are written."""
PHASE = "transient"
UNITS = {
    **{"time": "s", "state_0": "V", "internal_0": "V", "energy": "W", "residual": "A", "currents": "A"},
    **{"charging": "A", "kirchhoff": "A", "states": "1", "memristor_currents": "A", "power": "W", "taken": "J"},
}
"""Datasets and their units."""
_NAMES = ("nodes", "branches", "memristors")


def _columns(piece: CircuitTrajectory) -> dict[str, torch.Tensor]:
    """Tensors of a course by the name of their dataset, time first in each."""
    power = piece.power
    assert power is not None
    found = {name: getattr(piece, name) for name in UNITS if hasattr(piece, name) and name != "power"}
    return {
        **found,
        "state_0": piece.state[0],
        "internal_0": piece.internal[0],
        "power": power.power,
        "taken": power.energy,
    }


class TransientStore:
    """Takes a transient's pieces as they come, and gives the whole course at the end.

    Parameters
    ----------
    path : path
    overwrite : bool
        Replace a file that something else wrote.

    Raises
    ------
    InputError
        If the file cannot be written, or is not to be replaced.
    """

    def __init__(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        self._overwrite = overwrite
        with writing(CALL, overwrite=overwrite):
            self.path = claim("out", path)
        self._open = ExitStack()
        self._last: CircuitTrajectory | None = None

    def __enter__(self) -> TransientStore:
        with self._open:
            call = self._open.enter_context(writing(CALL, overwrite=self._overwrite))
            call.claim("out", self.path)
            try:
                folder = tempfile.TemporaryDirectory(prefix=f".{self.path.name}.", dir=self.path.parent)
                rows = h5py.File(Path(self._open.enter_context(folder), "rows.h5"), "w")
            except OSError as error:
                raise self._refused(error) from error
            self._rows = self._open.enter_context(rows)
            self._open = self._open.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def append(self, piece: CircuitTrajectory) -> None:
        """Write the next rows; InputError if the disk refuses."""
        self._last = piece
        try:
            for name, tensor in _columns(piece).items():
                values = tensor.numpy()
                if not values[0].size:
                    continue
                if name not in self._rows:
                    self._rows.create_dataset(
                        name, (0, *values.shape[1:]), values.dtype, maxshape=(None, *values.shape[1:]), chunks=True
                    )
                held = self._rows[name]
                held.resize(len(held) + len(values), axis=0)
                held[-len(values) :] = values
        except OSError as error:
            raise self._refused(error) from error

    def finish(self) -> CircuitTrajectory:
        """The course, mapped from the file that takes its place now."""
        last = self._last
        assert last is not None
        assert last.power is not None
        total = len(self._rows["time"])
        try:
            with sealed(self.path, writer(CALL), "simulation") as file:
                file.attrs.update({"format": FORMAT, "format_version": FORMAT_VERSION, "kind": "simulation"})
                for name, value in environment().items():
                    file.attrs[name] = json.dumps(value) if isinstance(value, dict | list) else value
                group = file.create_group(f"trajectories/{PHASE}")
                told = {name: getattr(last, name) for name in _NAMES}
                told |= {"kinds": last.power.kinds, "names": last.power.names}
                # A dataset, since attributes end at 64 KB.
                group.create_dataset("words", data=json.dumps(told))
                group.attrs.update({"steps": last.steps, "rejected": last.rejected})
                for name, tensor in _columns(last).items():
                    held = group.create_dataset(name, (total, *tensor.shape[1:]), tensor.numpy().dtype)
                    held.attrs.update({"units": UNITS[name], "description": f"{name} of the transient"})
                    size = max(1, tensor[0].numel() * tensor.element_size())
                    step = max(1, CHUNK_BYTES // size)
                    for row in range(0, total if name in self._rows else 0, step):
                        held[row : row + step] = self._rows[name][row : row + step]
        except OSError as error:
            raise self._refused(error) from error
        return read_transient(self.path, verify=False)

    def _refused(self, error: OSError) -> InputError:
        return InputError(f"Cannot write the transient {str(self.path)!r}: {error.strerror or error}.")


def read_transient(path: str | os.PathLike[str], verify: bool = True) -> CircuitTrajectory:
    """Read what `transient(..., out=path)` wrote; tensors are mapped from the file, and read where they are used.

    Parameters
    ----------
    path : path
    verify : bool
        Compare the file with its digest first.

    Raises
    ------
    InputError
        If the file cannot be read, is damaged, or holds no transient.
    """
    if verify:
        verify_seal(path)
    try:
        with h5py.File(path, "r") as file:
            inspect_links(file)
            group = file["trajectories"][PHASE]
            told: dict[str, Any] = {
                name: tuple(values) for name, values in json.loads(group["words"].asstr()[()]).items()
            }
            held = {name: stored(group[name]) for name in UNITS}
            told |= {name: int(group.attrs[name]) for name in ("steps", "rejected")}
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"File {os.fspath(path)!r} holds no transient ({reason}).") from error
    power = CircuitPower(held["time"], told.pop("kinds"), told.pop("names"), held.pop("power"), held.pop("taken"))
    time, state, energy, residual, internal = (
        held.pop(name) for name in ("time", "state_0", "energy", "residual", "internal_0")
    )
    return CircuitTrajectory(
        time, (state,), energy, residual, (internal,), "s", "V", "W", power=power, **{**held, **told}
    )
