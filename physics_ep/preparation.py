"""From a config to what a run begins with: settled entries, initial weights, enough memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

from .config import Config
from .datasets import Dataset
from .placement import parameters_of, require_memory, resolve_device, resolve_dtype
from .registry import accepts, build_system, load, systems
from .system import EnergySystem

WEIGHT_COPIES = 5
"""Weights, their gradient, two moments of an optimizer, and one copy on its way to the run file."""

LARGE = 10_000
"""A system with an option from here on (units in a layer, say) is counted before it is built."""


def settled(
    config: Config,
    data: str | os.PathLike[str] | Dataset | None,
    device: str | torch.device | None,
    dtype: str | torch.dtype | None,
    seed: int | None,
) -> Config:
    """The config with the entries that arguments replace.

    Parameters
    ----------
    config : Config
    data : path or Dataset or None
        Replaces [data] folder (a path), or the whole section (a Dataset, whose name is kept).
    device, dtype, seed
        Replace those of [training].

    Returns
    -------
    Config

    Raises
    ------
    InputError
        If an argument is not what it must be.
    """
    training: dict[str, Any] = {}
    if device is not None:
        training["device"] = str(resolve_device(device))
    if dtype is not None:
        training["dtype"] = str(resolve_dtype(dtype)).removeprefix("torch.")
    if seed is not None:
        training["seed"] = seed
    sections: dict[str, dict[str, Any]] = {"training": training} if training else {}
    if isinstance(data, Dataset):
        sections["data"] = {"name": data.name}
    elif data is not None:
        sections["data"] = {"folder": os.fspath(data)}
    return config.updated(**sections) if sections else config


def new_system(config: Config) -> EnergySystem:
    """Build the system of a config with its initial weights, which the seed of [training] fixes.

    Raises
    ------
    InputError
        If an option is wrong, or there is too little memory.
    """
    section, seed = config.system, config.training.seed
    options = section.options
    if "seed" not in options and accepts(load(systems()[section.name]), "seed"):
        options["seed"] = seed
    if _largest(options) >= LARGE:
        weights = parameters_of(lambda: build_system(section.name, **options)) or 0
        needed = weights * WEIGHT_COPIES * resolve_dtype(config.training.dtype).itemsize
        require_memory(needed, torch.device("cpu"), f"{weights} parameters")
    # A system without a seed of its own may draw from the global generator: lend it a seeded one.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_system(section.name, **options)


def _largest(value: Any) -> int:
    """Largest integer in nested options."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return max(map(_largest, value), default=0)
    return value if isinstance(value, int) else 0


def bytes_needed(data: Dataset, system: EnergySystem, dtype: torch.dtype) -> int:
    """Memory that training takes: the data once more in their dtype, the weights with what training adds to them.

    States of a batch are small beside these.
    """
    inputs = data.train_x.numel() + data.test_x.numel()
    weights = sum(p.numel() for p in system.parameters())
    return dtype.itemsize * (inputs + WEIGHT_COPIES * weights)
