"""The networks of the zoo: what there is, and how one is built from its file, once its hash is right."""

from __future__ import annotations

import hashlib
import importlib.resources
import io
import json
from typing import Any, cast

import torch

from ..errors import InputError, unknown_name
from ..registry import build_system
from ..system import EnergySystem

SYSTEM = "zoo"
"""Name of `zoo_network` among the registered systems."""


def zoo() -> dict[str, dict[str, Any]]:
    """Entries of the zoo by name.

    Returns
    -------
    dict
        An entry holds `file`, `sha256`, `rule` ('ep' or 'backprop'), `epochs`, `data`, `train_error`,
        `held_out_error` and `test_error` (fractions), `seconds` of training, `seed` and the whole `config`.
    """
    place = importlib.resources.files("physics_ep") / "zoo" / "index.json"
    found: dict[str, dict[str, Any]] = json.loads(place.read_text(encoding="utf-8"))
    return found


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
        On the CPU, float32 with weights that were kept in float16.

    Raises
    ------
    InputError
        If there is no such network, with the nearest right name, or its file is not the one that the index names.

    Examples
    --------
    >>> import torch
    >>> net = zoo_network("vgg10-eighth-cifar10jpeg-ep")
    >>> net(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 10])
    """
    entries = zoo()
    if network not in entries:
        raise unknown_name("network", network, entries)
    entry = entries[network]
    place = importlib.resources.files("physics_ep") / "zoo" / entry["file"]
    try:
        content = place.read_bytes()
    except OSError as error:
        raise InputError(f"Zoo file {str(place)!r} cannot be read: {error.strerror or error}.") from error
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise InputError(f"Zoo file {str(place)!r} must have the sha256 that its index names, but has another.")
    section = dict(entry["config"]["system"])
    system = cast(EnergySystem, build_system(section.pop("name"), **section))
    system.load_state_dict(torch.load(io.BytesIO(content), weights_only=True))
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
