"""Files of weights: run files, safetensors, and state_dicts saved by torch. Code in them is never run."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError, argument_error
from .files import checked_path
from .opening import open_run
from .tensor_files import tensors_of

NESTED = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts commonly save a state_dict beside other things."""


def read_weights(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Read a file of weights.

    Parameters
    ----------
    path : path
        A run file (.h5, .hdf5), .safetensors, or a state_dict saved by torch (.pt, .pth; alone, or under the key
        'state_dict', 'model_state_dict' or 'model'). Code in it is never run.

    Returns
    -------
    dict of str to Tensor
        On the CPU.

    Raises
    ------
    InputError
        If there is no such file, it is of another kind, is damaged, or holds anything but tensors by name.
    """
    file = checked_path(path, "weights")
    if not file.is_file():
        raise argument_error("weights", "be a file of weights", f"{str(file)!r}, which is no file")
    if file.suffix in (".h5", ".hdf5"):
        found: Any = open_run(file).state_dict
    elif file.suffix == ".safetensors":
        found = _safetensors(file)
    elif file.suffix in (".pt", ".pth"):
        found = _torch(file)
    else:
        raise argument_error("weights", "be a file .h5, .safetensors, .pt or .pth", repr(str(file)))
    if isinstance(found, Mapping):
        inner = next((found[key] for key in NESTED if isinstance(found.get(key), Mapping)), None)
        found = found if inner is None else inner
    if not isinstance(found, Mapping) or not found or not all(isinstance(v, torch.Tensor) for v in found.values()):
        raise argument_error("weights", "hold tensors by name (a state_dict)", repr(str(file)))
    return dict(found)


def _safetensors(file: Path) -> dict[str, torch.Tensor]:
    try:
        return tensors_of(file.read_bytes())[0]
    except (OSError, ValueError) as error:
        raise _damaged(file, error) from error


def _torch(file: Path) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        must = "hold tensors alone (torch.save(model.state_dict(), ...)), since code in it is not run"
        raise argument_error("weights", must, repr(str(file))) from error
    except (RuntimeError, OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise _damaged(file, error) from error


def _damaged(file: Path, error: Exception) -> InputError:
    return InputError(f"Weights {str(file)!r} cannot be read: {' '.join(str(error).split())[:200]}.")


def put_weights(module: torch.nn.Module, weights: Mapping[str, torch.Tensor], source: object) -> None:
    """Put weights into a module, whose dtype becomes theirs where they have one.

    Parameters
    ----------
    module : nn.Module
    weights : mapping of str to Tensor
    source : object
        What messages call them: a file.

    Raises
    ------
    InputError
        If names or shapes differ: the first three of each are named.
    """
    kinds = {t.dtype for t in weights.values() if t.dtype.is_floating_point}
    before = next((p.dtype for p in module.parameters() if p.dtype.is_floating_point), None)
    if len(kinds) == 1 and (kind := next(iter(kinds))) in (torch.float32, torch.float64):
        module.to(kind)  # first, so that nothing is rounded on the way
    try:
        module.load_state_dict(dict(weights))
    except RuntimeError as error:
        if before is not None:
            module.to(before)
        raise InputError(
            f"Weights of {str(source)!r} do not fit the system: {_misfit(module, weights, error)}."
        ) from error


def _misfit(module: torch.nn.Module, weights: Mapping[str, torch.Tensor], error: RuntimeError) -> str:
    """What does not fit, by name; torch's own words where names and shapes do."""
    own = module.state_dict()
    trouble = {
        "missing": [name for name in own if name not in weights],
        "not of the system": [name for name in weights if name not in own],
        "of another shape": [
            f"{name} {tuple(weights[name].shape)} in place of {tuple(value.shape)}"
            for name, value in own.items()
            if isinstance(value, torch.Tensor) and name in weights and weights[name].shape != value.shape
        ],
    }
    said = "; ".join(f"{what}: {_first(names)}" for what, names in trouble.items() if names)
    return said or " ".join(str(error).split())


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
