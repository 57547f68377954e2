"""From a config to what a run begins with: entries, initial or stored weights, enough memory."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from ..config import Config
from ..data.batches import BatchSource, InMemory, Loaders, Stream
from ..data.datasets import Dataset, load_dataset
from ..data.image_folders import STREAMED
from ..errors import InputError, argument_error
from ..physical_system import PhysicalSystem
from ..placement import DTYPES, parameters_of, require_memory, resolve_device, resolve_dtype
from ..progress import Progress
from ..registry import accepts, build_system, load, systems
from ..storage.opening import open_run
from ..storage.run_file import Run, environment
from ..storage.texts import parse_json, read_text
from ..storage.weights import put_weights

Data = str | os.PathLike[str] | Dataset | tuple[Iterable[Any], Iterable[Any]]
"""What a caller may give instead of what a config names: a folder, examples, or loaders (train, test)."""

WEIGHT_COPIES = 5
"""Weights, their gradient, two moments of an optimizer, and one copy on its way to the run file."""

LARGE = 10_000
"""A system with an option from here on (units in a layer, say) is counted before it is built."""


def with_arguments(
    config: Config,
    data: Data | None,
    device: str | torch.device | None,
    dtype: str | torch.dtype | None,
    seed: int | None,
) -> Config:
    """The config with the entries that arguments replace.

    Parameters
    ----------
    config : Config
    data : path or Dataset or (iterable, iterable) or None
        Replaces [data] folder (a path), or the whole section (a Dataset, whose name is kept; or loaders).
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
        resolve_dtype(dtype)
        training["dtype"] = str(dtype).removeprefix("torch.")
    if seed is not None:
        training["seed"] = seed
    sections: dict[str, dict[str, Any]] = {"training": training} if training else {}
    if isinstance(data, Dataset):
        sections["data"] = {"name": data.name}
    elif isinstance(data, tuple):
        sections["data"] = {"name": "loaders"}
    elif data is not None and not isinstance(data, str | os.PathLike):
        must = "be a folder, a Dataset, or a tuple of two loaders (train, test)"
        raise argument_error("data", must, type(data).__name__)
    elif data is not None:
        sections["data"] = {"folder": os.fspath(data)}
    return config.updated(**sections) if sections else config


HEADROOM = 4.0
"""What cells that learn can hold over the largest weight that is written first: weights grow to about that."""


def on_devices(
    config: Config,
    preset: str | None = None,
    device_model: str | os.PathLike[str] | None = None,
    device_seed: int | None = None,
) -> Config:
    """The config with the devices that a command's options put its system on.

    Parameters
    ----------
    config : Config
    preset : str, optional
        Name of a published device.
    device_model : path, optional
        JSON file of a device's fields.
    device_seed : int, optional
        Seed of the device instance.

    Raises
    ------
    InputError
        If the system is on no devices, both are given, or the file cannot be read.
    """
    given = {"preset": preset, "device-model": device_model}
    named = [name for name, value in given.items() if value is not None]
    section = config.system
    if named and "device" not in inspect.signature(load(systems()[section.name])).parameters:
        must = f"be left out for the system {section.name!r}, whose weights no cells hold"
        raise argument_error(named[0], must, repr(str(given[named[0]])))
    if len(named) == 2:
        raise argument_error("device-model", "be left out where preset is given", repr(str(device_model)))
    if device_seed is not None and not named and "device" not in section.options:
        raise argument_error("device-seed", "come with preset, device-model or [system.device]", device_seed)
    options: dict[str, Any] = {} if device_seed is None else {"device_seed": device_seed}
    if preset is not None:
        options["device"] = {"preset": preset}
    if device_model is not None:
        options["device"] = _device_fields(Path(device_model))
    return config.updated(system=options) if options else config


def _device_fields(path: Path) -> dict[str, Any]:
    """Fields of a device as they stand in a JSON file."""
    try:
        found = parse_json(read_text(path, "device-model", "a JSON file of a device"))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise argument_error("device-model", "be a JSON file of a device", f"{str(path)!r} ({error})") from None
    if not isinstance(found, dict):
        raise argument_error("device-model", "hold a JSON object of a device's fields", repr(str(path)))
    found.pop("command", None)  # what wrote the file
    return found


def with_room(config: Config) -> Config:
    """The config with room for the weights to grow in the cells that hold them, unless it says how much."""
    options = config.system.options
    if options.get("device") is None or "device_headroom" in options:
        return config
    return config.updated(system={"device_headroom": HEADROOM})


def new_system(config: Config) -> PhysicalSystem:
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
        return section.build(**options)


def with_dtype(config: Config, system: PhysicalSystem) -> Config:
    """The config with the system's own dtype, where it names none."""
    if config.training.dtype is not None:
        return config
    own = str(system.dtype).removeprefix("torch.")
    return config.updated(training={"dtype": own if own in DTYPES else "float32"})


def _largest(value: Any) -> int:
    """Largest integer in nested options."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return max(map(_largest, value), default=0)
    return value if isinstance(value, int) else 0


def open_source(
    config: Config, data: Data | None, system: PhysicalSystem, device: torch.device, progress: Progress | bool
) -> BatchSource:
    """What a config's system is to be trained on: in memory, streamed from files, or from loaders.

    Parameters
    ----------
    config : Config
        A config with all arguments put in, which `with_arguments` returns.
    data : path or Dataset or (iterable, iterable) or None
    system : EnergySystem or VectorField
    device : torch.device
    progress : Progress

    Returns
    -------
    BatchSource

    Raises
    ------
    InputError
        If data are missing or damaged, or there is too little memory.
    """
    training, dtype = config.training, resolve_dtype(config.training.dtype)
    source: BatchSource
    if isinstance(data, tuple):
        if len(data) != 2:
            raise argument_error("data", "be two loaders (train, test)", f"{len(data)} of them")
        if config.data.validation is not None:
            must = "be left out where loaders are given, which cannot be split: hold examples out in them"
            raise argument_error("data.validation", must, config.data.validation)
        source = Loaders(*data, seed=training.seed, device=device, dtype=dtype)
    elif not isinstance(data, Dataset) and config.data.name in STREAMED:
        stream = source = Stream(config.data, training, device, dtype, progress)
        require_memory(dtype.itemsize * (stream.sample.numel() * training.batch_size + _held(system)), device)
    else:
        examples = data if isinstance(data, Dataset) else load_dataset(config.data, progress)
        require_memory(bytes_needed(examples, system, dtype), device)
        source = InMemory(examples.to(device, dtype), training, config.data)
    return source


def bytes_needed(data: Dataset, system: PhysicalSystem, dtype: torch.dtype) -> int:
    """Memory that training takes: the data once more in their dtype, the weights with what training adds to them.

    States of a batch are small beside these.
    """
    inputs = data.train_x.numel() + data.test_x.numel()
    return dtype.itemsize * (inputs + _held(system))


def _held(system: PhysicalSystem) -> int:
    """Numbers that training keeps about the weights."""
    return WEIGHT_COPIES * sum(p.numel() for p in system.parameters())


def system_of(run: Run) -> PhysicalSystem:
    """Build the system of a run file and load its weights.

    Parameters
    ----------
    run : Run
        A run file, opened by `open_run`.

    Returns
    -------
    EnergySystem
        On the CPU, of the dtype of the weights.

    Raises
    ------
    InputError
        If the file holds no weights, or they do not fit the system.
    """
    section = dict(run.config.get("system", {}))
    if not run.state_dict or "name" not in section:
        raise InputError(f"Run file {str(run.path)!r} holds no trained system.")
    section.pop("weights", None)  # those that the run began with
    system = build_system(section.pop("name"), **section)
    load_weights(system, run)
    return system


def from_run(file: str, *, seed: int = 0) -> PhysicalSystem:
    """Build the system of a run file with its trained weights.

    Parameters
    ----------
    file : str
        A run file of training or of a simulation.
    seed : int
        Without effect, since nothing is drawn; callers that give every system a seed may give one here.

    Raises
    ------
    InputError
        If it is no run file, or holds no system with weights.
    """
    return system_of(open_run(file))


def load_weights(system: torch.nn.Module, run: Run) -> None:
    """Put the weights of a run into a system, whose dtype becomes theirs.

    Raises
    ------
    InputError
        If names or shapes differ.
    """
    put_weights(system, run.state_dict, run.path)


def run_attributes(config: Config, kind: str = "training", **more: Any) -> dict[str, Any]:
    """Attributes of a run of this kind ('training', 'simulation'): its config, seed, device and environment."""
    training = config.training
    return {
        "kind": kind,
        "config": config.as_stored(),
        "seed": training.seed,
        "device": training.device,
        "dtype": training.dtype,
        **environment(),
        **more,
    }
