"""The networks of the zoo: what there is, and how one is built from its file, once its hash is right."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import os
from pathlib import Path
from typing import Any, cast

import torch

from ..errors import InputError, unknown_name
from ..keywords import answering
from ..registry import build_system
from ..storage.run_file import Run
from ..storage.tensor_files import file_of_tensors, tensors_of
from ..system import EnergySystem

SYSTEM = "zoo"
"""Name of `zoo_network` among the registered systems."""
SHIPPED = importlib.resources.files("physics_ep") / "zoo"
"""The folder of the package with the index, and the files that ship."""
ADDRESSES = ("http://", "https://")
ENVIRONMENT = "PHYSICS_EP_ZOO"
"""A folder, or the address of one (http, https), with the files that do not ship with the package. A folder may
have an index.json of its own, as `add_to_zoo` writes it, with networks that the package does not know."""


def zoo(data: str | None = None) -> dict[str, dict[str, Any]]:
    """Entries of the zoo by name.

    Parameters
    ----------
    data : str, optional
        Name of a data set, such as 'cifar10', whose networks alone are wanted. Default: all.

    Returns
    -------
    dict
        An entry holds `file`, `sha256`, `rule` ('ep' or 'backprop'), `epochs`, `data`, `train_error`,
        `held_out_error` and `test_error` (fractions), `seconds` of training, `seed` and the whole `config`; where
        gradients came from a function given to `train`, what its run tells of it as `backward`.

    Raises
    ------
    InputError
        If PHYSICS_EP_ZOO names a folder whose index.json is none of a zoo.
    """
    found: dict[str, dict[str, Any]] = json.loads((SHIPPED / "index.json").read_text(encoding="utf-8"))
    found = {**_own(), **found}
    return {name: e for name, e in found.items() if data is None or e["config"]["data"]["name"] == data}


def _own() -> dict[str, dict[str, Any]]:
    """Entries of the index in the folder that PHYSICS_EP_ZOO names, if there is one."""
    given = os.environ.get(ENVIRONMENT, "")
    index = Path(given).expanduser() / "index.json"
    if not given or given.startswith(ADDRESSES) or not index.is_file():
        return {}
    try:
        entries = json.loads(index.read_text(encoding="utf-8"))
        for entry in entries.values():
            # A name without folders: an index from elsewhere leads to no file outside of its folder.
            whole = Path(entry["file"]).name == entry["file"] and isinstance(entry["sha256"], str)
            if not whole or not isinstance(entry["config"]["system"], dict):
                raise ValueError(f"entry {entry!r}")
            entry["config"]["data"]["name"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"{type(error).__name__}: {str(error)[:100]}"
        raise InputError(f"File {str(index)!r} ({ENVIRONMENT}) is no index of a zoo: {what}.") from error
    return dict(entries)


def zoo_weights(network: str) -> dict[str, torch.Tensor]:
    """Read the weights of a network of the zoo, once its file has the hash that the index names.

    The file that ships with the package is taken first. Otherwise the environment variable PHYSICS_EP_ZOO names a
    folder that holds the file, or an address from which it is fetched once and kept in the user's cache folder.

    Parameters
    ----------
    network : str
        A name in `zoo()`.

    Returns
    -------
    dict of str to Tensor
        Tensors by parameter name, on the CPU, in the dtype of the file.

    Raises
    ------
    InputError
        If the zoo has no such network (the error names the nearest one that it has), if its file is found nowhere
        or cannot be read, or if the file's hash is not the one in the index.
    """
    entries = zoo()
    if network not in entries:
        raise unknown_name("network", network, entries)
    file, digest = entries[network]["file"], entries[network]["sha256"]
    shipped = SHIPPED / file
    place = shipped if shipped.is_file() else _elsewhere(network, file, digest)
    try:
        content = place.read_bytes()
    except OSError as error:
        raise InputError(f"Zoo file {str(place)!r} cannot be read: {error.strerror or error}.") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise InputError(f"Zoo file {str(place)!r} must have the sha256 that its index names, but has another.")
    return tensors_of(content)[0]


def _elsewhere(network: str, file: str, digest: str) -> Path:
    """The file of a network that does not ship with the package."""
    given = os.environ.get(ENVIRONMENT)
    if not given:
        must = f"be a folder or an address that holds {file!r}, which does not ship with the package"
        raise InputError(f"Environment variable {ENVIRONMENT} must {must} (network {network!r}), but is not set.")
    if not given.startswith(ADDRESSES):
        return Path(given).expanduser() / file
    import pooch

    address = f"{given.rstrip('/')}/{file}"
    folder = pooch.os_cache("physics-ep") / "zoo"
    try:
        found = pooch.retrieve(url=address, known_hash=f"sha256:{digest}", fname=file, path=folder)
    except Exception as error:
        # pooch passes on whatever the transport raises; a wrong hash is a ValueError.
        raise InputError(f"Download of {address} failed: {' '.join(str(error).split())}.") from error
    return Path(found)


@answering
def zoo_network(network: str, *, seed: int = 0) -> EnergySystem:
    """Build a network of the zoo with its trained weights.

    Parameters
    ----------
    network : str
        A name in `zoo()`.
    seed : int
        Without effect, since nothing is drawn; callers that give every system a seed may give one here.

    Returns
    -------
    EnergySystem
        On the CPU, in float32 where weights were kept in 16 bits, else in their dtype.

    Raises
    ------
    InputError
        As `zoo_weights` says.

    Examples
    --------
    >>> import torch
    >>> net = zoo_network("vgg10-eighth-cifar10jpeg-ep")
    >>> net(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 10])
    """
    weights = zoo_weights(network)
    section = {**zoo()[network]["config"]["system"]}
    section.pop("weights", None)  # those that the training began with
    system = cast(EnergySystem, build_system(section.pop("name"), **section))
    kinds = {t.dtype for t in weights.values() if t.dtype.is_floating_point}
    if kinds == {torch.float64}:
        system.double()
    system.load_state_dict(weights)
    return system


def zoo_config(network: str) -> dict[str, Any]:
    """Sections of the config of a network of the zoo, with its trained weights to begin with.

    Parameters
    ----------
    network : str
        A name in `zoo()`.

    Returns
    -------
    dict
        The config as a dict, which `physics_ep.config.parse_config` takes.
    """
    return {**zoo()[network]["config"], "system": {"name": SYSTEM, "network": network}}


def add_to_zoo(
    folder: str | os.PathLike[str],
    name: str,
    run: Run,
    data: str,
    *,
    dtype: torch.dtype | None = None,
    **metrics: float,
) -> dict[str, Any]:
    """Write the weights of a run into a folder of the zoo, and its entry into the folder's index.json.

    Parameters
    ----------
    folder : path
    name : str
        Name of the network.
    run : Run
        The run file of a training.
    data : str
        What it was trained on, in words.
    dtype : torch.dtype, optional
        In which weights are kept: float16, or bfloat16 where they are below its 6e-5 (conductances in siemens).
        Default: that of the run.
    **metrics
        Metrics of the entry in place of those of the run: `test_error` of rounded weights, say.

    Returns
    -------
    dict
        The entry.
    """
    place = Path(folder)
    weights = {key: tensor.to(dtype or tensor.dtype) for key, tensor in run.state_dict.items()}
    kept = int(run.attributes.get("kept_epoch", run.epochs)) - 1
    errors = {"train_error": "train_error", "held_out_error": "validation_error", "test_error": "test_error"}
    told = {key: float(run.metric(metric)[kept]) for key, metric in errors.items() if metric in run.metrics}
    config = {**run.config, "data": {**run.config["data"], "folder": None}}  # the folder is this machine's
    config["system"] = {**config["system"], "weights": None}
    entry = {
        "file": f"{name}.safetensors",
        "rule": run.config["ep"]["estimator"],
        "epochs": run.epochs,
        "data": data,
        **told,
        **metrics,
        "seconds": float(run.metric("seconds").sum()),
        "seed": run.config["training"]["seed"],
        **({"backward": run.attributes["backward"]} if "backward" in run.attributes else {}),
        "config": config,
    }
    figures = {key: str(entry[key]) for key in ("rule", "epochs", "data", *told, "seed")}
    content = file_of_tensors(weights, {**figures, "config": json.dumps(config)})
    (place / entry["file"]).write_bytes(content)
    index = place / "index.json"
    entries = json.loads(index.read_text(encoding="utf-8")) if index.is_file() else {}
    entries[name] = {"file": entry.pop("file"), "sha256": hashlib.sha256(content).hexdigest(), **entry}
    index.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    return entries[name]
