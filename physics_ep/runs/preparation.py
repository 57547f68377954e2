"""From a config to what a run begins with: entries, initial or stored weights, enough memory."""

from __future__ import annotations

import inspect
import math
import os
from pathlib import Path
from typing import Any

import torch

from ..config import RUN, Config, load_subject, parse_config
from ..cost import SquaredError
from ..data.batches import BatchSource, InMemory, Loaders, Stream
from ..data.cifar import VARIANTS
from ..data.datasets import DATASETS, TABLES, Dataset, load_dataset, locate
from ..data.given import ARRAYS, LOADERS, MUST, arrays_of, dataset_of_arrays, dataset_of_loaders, require_loaders
from ..data.image_folders import STREAMED
from ..errors import InputError, argument_error, require_count
from ..keywords import answering
from ..nudging import Nudge
from ..physical_system import PhysicalSystem
from ..placement import DTYPES, require_memory, require_weights, resolve_device, resolve_dtype
from ..progress import SILENT, Progress
from ..recipes import (
    SLOWER,
    lacks_epochs,
    lacks_recipe,
    lacks_sizes,
    with_gain,
    with_mercy,
    with_recipe,
    with_sizes,
    with_steps,
)
from ..registry import accepts, build_system, load, systems
from ..storage.opening import open_run
from ..storage.outputs import as_asked
from ..storage.run_file import Run, environment
from ..storage.texts import parse_json, read_text
from ..storage.weights import put_weights
from .resuming import check_examples, digest_of

Data = str | os.PathLike[str] | Dataset | tuple[Any, ...]
"""What a caller may give instead of what a config names: a folder, a `Dataset`, arrays (x, y) or (x, y, test_x,
test_y), or loaders (train, test)."""

WEIGHT_COPIES = 5
"""Weights, their gradient, two moments of an optimizer, and one copy on its way to the run file."""

KEPT, KEPT_BYTES = 256, 2**23
"""Test examples, and bytes of them, that a run file keeps of data from Python: a batch for figures and judges."""


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
    data : path, Dataset, tuple of arrays or of loaders, or None
        Replaces [data] folder (a path), or the whole data set (a Dataset, whose name is kept; arrays; loaders).
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
        sections["data"] = {"name": LOADERS if arrays_of(data) is None else ARRAYS}
    elif data is not None and not isinstance(data, str | os.PathLike):
        raise argument_error("data", MUST, type(data).__name__)
    elif data is not None:
        if Path(data).expanduser().is_file() and config.data.name not in VARIANTS:  # which may be archives
            other = as_asked("--set data.file=FILE", "data.file")
            must = f"be a folder of data sets ({other} names a table of examples)"
            raise argument_error("data", must, f"{os.fspath(data)!r}, which is a file")
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
    if config.system.name == RUN and (named or device_seed is not None):
        config = _of_its_run(config, [*named, "device-seed"][0])
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


def _of_its_run(config: Config, asked: str) -> Config:
    """The config of a run file's system with the run's weights, which can be told other options than the run's.

    Raises
    ------
    InputError
        If the run's weights are on devices already, so that no option, `asked`, puts them on others.
    """
    file = str(config.system.options["file"])
    section = dict(open_run(file).config["system"])
    if section.get("device") is not None:
        must = "be left out for a run whose weights are in the cells of devices already"
        raise argument_error(asked, must, f"given for {file!r}")
    if section["name"] == RUN:
        return config
    return parse_config({**config.as_given(), "system": {**section, "weights": file}})


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
    size = WEIGHT_COPIES * resolve_dtype(config.training.dtype).itemsize
    require_weights(lambda: build_system(section.name, **options), options, size)
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


def open_source(
    config: Config, data: Data | None, system: PhysicalSystem, device: torch.device, progress: Progress | bool
) -> BatchSource:
    """What a config's system is to be trained on: in memory, streamed from files, or from loaders.

    Parameters
    ----------
    config : Config
        A config with all arguments put in, which `with_arguments` returns.
    data : path, Dataset, tuple of arrays or of loaders, or None
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
    if isinstance(data, tuple) and arrays_of(data) is None:
        if config.data.validation is not None:
            must = "be left out where loaders are given, which cannot be split: hold examples out in them"
            raise argument_error("data.validation", must, config.data.validation)
        source = Loaders(*require_loaders(data), seed=training.seed, device=device, dtype=dtype)
    elif not isinstance(data, Dataset) and config.data.name in STREAMED:
        stream = source = Stream(config.data, training, device, dtype, progress)
        require_memory(dtype.itemsize * (stream.sample.numel() * training.batch_size + _held(system)), device)
    else:
        examples = dataset_of(config, data, progress)
        require_memory(bytes_needed(examples, system, dtype), device)
        source = InMemory(examples.to(device, dtype), training, config.data)
    return source


def dataset_of(config: Config, data: Data | None = None, progress: Progress | bool = SILENT) -> Dataset:
    """The examples that a caller gives, or those of a config, in memory.

    Parameters
    ----------
    config : Config
        A config with all arguments put in, which `with_arguments` returns.
    data : path, Dataset, tuple of arrays or of loaders, or None
        Loaders are gone through once.
    progress : Progress

    Returns
    -------
    Dataset

    Raises
    ------
    InputError
        If data are missing or damaged, or do not fit each other.
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, tuple):
        arrays = arrays_of(data)
        if arrays is None:
            return dataset_of_loaders(*require_loaders(data))
        return dataset_of_arrays(arrays, config.data)
    return load_dataset(config.data, progress)


def tested_on(run: Run) -> tuple[torch.Tensor, torch.Tensor, int | None]:
    """Test examples of a run: those of its data set, or the first ones of data that came from Python.

    Returns
    -------
    x : Tensor (N, ...)
    y : Tensor
        Class indices (N,), or measured targets (N, n).
    n_outputs : int or None
        Number of classes or targets. None: as many as the system has outputs.

    Raises
    ------
    InputError
        If its data set is not to be found, or is not as it was.
    """
    if run.examples:
        return run.examples["x"], run.examples["y"], None
    data = _data_of(run, parse_config(run.config))
    return data.test_x, data.test_y, data.n_outputs


def _data_of(run: Run, config: Config) -> Dataset:
    """The data set of a run, on the scale of its training."""
    data = load_dataset(config.data)
    place, dtype = torch.device("cpu"), resolve_dtype(config.training.dtype)
    check_examples(run, config.data, digest_of(data.to(place, dtype), config.data))
    return data


def examples_of(run: Run | str | os.PathLike[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Test examples of a run: those of its data set or its table, or the first ones of data that came from Python.

    Parameters
    ----------
    run : Run or path
        A run, or the run file of one.

    Returns
    -------
    x : Tensor (N, ...)
        As the system takes them: scaled as they were in training.
    y : Tensor
        Class indices (N,), or measured targets (N, n).

    Raises
    ------
    InputError
        If it is no run file, or its data set or table is not to be found.
    """
    x, y, _ = tested_on(run if isinstance(run, Run) else open_run(run))
    return x, y


def nudge_of(
    run: Run | str | os.PathLike[str], examples: int | None = None, *, beta: float | None = None
) -> tuple[torch.Tensor, Nudge]:
    """Test inputs of a trained run, and the nudge towards their targets that it was trained with.

    With the trained system, `load_system(run)`, they make its nudged phase: `simulate(system, x, nudge=nudge)`.

    Parameters
    ----------
    run : Run or path
        A run, or the run file of one.
    examples : int, optional
        How many of the first test examples; default all.
    beta : float, optional
        Nudging strength; default the run's, or 0.1 of the system's `nudge_scale` where that is 'auto'.

    Returns
    -------
    x : Tensor (B, ...)
        In the dtype of the system, scaled as in training.
    nudge : Nudge
        The run's cost, the targets as that cost takes them (class numbers one-hot, times `ep.target`), and beta.

    Raises
    ------
    InputError
        If it is no run file, or its data set or table is not to be found.

    Examples
    --------
    >>> system = load_system("run.h5")  # doctest: +SKIP
    >>> x, nudge = nudge_of("run.h5", 4)  # doctest: +SKIP
    >>> rest = relax(system, x).state  # doctest: +SKIP
    >>> course = simulate(system, x, nudge=nudge, start=rest)  # doctest: +SKIP
    """
    found = run if isinstance(run, Run) else open_run(run)
    config, system = parse_config(found.config), system_of(found)
    x, y, n_out = tested_on(found)
    if examples is not None:
        require_count("examples", examples, most=len(x))
        x, y = x[:examples], y[:examples]
    x = x.to(system.dtype)
    if n_out is None:
        n_out = system.outputs(system.initial_state(x[:1])).shape[1]
    cost = config.ep.new_cost()
    return x, Nudge(cost, cost.encode(y, n_out, x.dtype), beta_of(config, system) if beta is None else beta)


def beta_of(config: Config, system: PhysicalSystem) -> float:
    """The nudging strength of a config; 0.1 of the system's `nudge_scale` where that is chosen automatically."""
    return 0.1 * system.nudge_scale if config.ep.beta == "auto" else float(config.ep.beta)


def subject_of(spec: str | os.PathLike[str], weights: str | os.PathLike[str] | None = None) -> Config:
    """The config of what a command calls SYSTEM, with the sizes that its data ask for where it says none.

    Raises
    ------
    InputError
        If there is no such system or file, anything in it is wrong, or the data that it is sized by are missing.
    """
    config = load_subject(spec, weights)
    return completed(config) if lacks_sizes(config) else config


def bring_examples(system: PhysicalSystem, config: Config) -> None:
    """Give a system the test examples of its config's data as its attribute `examples`, in the shape that it takes.

    With measured targets it also gets `measured_targets`: their names, shifts and scales, and `target`, the output
    that stands for 1. A system that has brought its own keeps them, but for a netlist's own sources (`stands_in`).
    None are given of the digits, which fit where nothing is said, of data that are streamed or not to be found, and
    of data of another number of inputs.

    Parameters
    ----------
    system : EnergySystem or VectorField
    config : Config
        The config that the system was built from.

    Raises
    ------
    InputError
        If a table of the user's own cannot be read.
    """
    name = config.data.name
    stands_in = getattr(system, "stands_in", False)
    brought = getattr(system, "examples", None) is not None and not stands_in
    if brought or name == "digits" or name not in DATASETS:
        return
    if name not in TABLES and locate(name, config.data.folder) is None:
        return
    section = config.system
    held = _data_of(open_run(section.options["file"]), config) if section.name == RUN else load_dataset(config.data)
    x, shape = held.test_x, system.example_shape
    if shape is not None:
        if math.prod(shape) != x[0].numel():
            return
        x = x.reshape(len(x), *shape)
    system.examples = (x, held.test_y)
    if held.target_scales is not None and section.name != RUN:
        system.measured_targets = _measured(in_outputs(held.target_scales, config.ep.target), config.ep.target)
    if stands_in:
        system.stands_in = False


def kept_examples(source: BatchSource, data: Data | None) -> dict[str, torch.Tensor]:
    """The first test examples of data that came from Python, for the run file; none of data that a name tells.

    Parameters
    ----------
    source : BatchSource
    data : path, Dataset, tuple of arrays or of loaders, or None
        What the caller gave.
    """
    if data is None or isinstance(data, str | os.PathLike):
        return {}
    x, y = next(iter(source.test()), (None, None))
    if x is None or y is None or not len(x):
        return {}
    size = max(1, x[0].numel() * x.element_size())
    count = max(1, min(KEPT, KEPT_BYTES // size))
    return {"x": _stored(x[:count]), "y": _stored(y[:count])}


def _stored(values: torch.Tensor) -> torch.Tensor:
    """A copy on the CPU, of a dtype that files know."""
    kind = torch.float32 if values.dtype == torch.bfloat16 else values.dtype
    return values.detach().to("cpu", kind, copy=True)


def in_outputs(targets: dict[str, Any], target: float) -> dict[str, Any]:
    """Names, shifts and scales of measured targets, for outputs in their own unit, where `target` stands for 1."""
    return {**targets, "scale": [scale / target for scale in targets["scale"]]}


def unnamed_targets(n: int) -> dict[str, Any]:
    """Names, shifts and scales of n measured targets that nobody has named or scaled."""
    return {"names": [f"target {k + 1}" for k in range(n)], "shift": [0.0] * n, "scale": [1.0] * n}


def _measured(targets: dict[str, Any], target: float) -> dict[str, Any]:
    """What a system knows of its measured targets: their scales, and `target`, the output that stands for 1."""
    return {**targets, "target": target}


def completed(config: Config, data: Data | None = None, progress: Progress | bool = SILENT) -> Config:
    """The config with what it leaves to its system and to the data: the recipe, its length, the sizes (`recipes`).

    Parameters
    ----------
    config : Config
        A config with all arguments put in, which `with_arguments` returns.
    data : path, Dataset, tuple of arrays or of loaders, or None
    progress : Progress

    Returns
    -------
    Config
        The same where it says all itself.

    Raises
    ------
    InputError
        If data that sizes depend on are missing or damaged, or are streamed.
    """
    sized = not lacks_sizes(config)
    if sized and not lacks_recipe(config):
        return config
    found = with_recipe(config)
    loaders = isinstance(data, tuple) and arrays_of(data) is None
    if not isinstance(data, Dataset) and (loaders or config.data.name in STREAMED):
        if not sized:
            raise argument_error("system.sizes", "be given for data that are streamed", "left out")
        return found
    asks = "cost" not in config.ep.model_fields_set and not found.ep.new_cost().measures
    paced = not lacks_epochs(config)
    if sized and not asks and paced and "max_skipped" in found.training.model_fields_set:
        return found
    examples = dataset_of(config, data, progress)
    if not paced:
        found = with_steps(found, len(examples.train_x))
    found = with_mercy(found, len(examples.train_x))
    if not sized:
        found = with_sizes(found, examples.train_x[0].numel(), examples.n_outputs)
        if config.data.name in (*TABLES, ARRAYS) and "input_gain" not in config.system.options:
            found = with_gain(found, examples.train_x)
    if asks and examples.n_classes is None:
        left = "lr" not in config.optimizer.options
        rates = {key: SLOWER * rate for key, rate in found.optimizer.options.items() if key == "lr" and left}
        found = found.updated(ep={"cost": SquaredError.name}, optimizer=rates)
    return found


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
        On the CPU, of the dtype of the weights. Its attribute `examples` is (x, y) where the run was trained on
        data from Python, and `measured_targets` tells their names, shifts and scales where they were measured.

    Raises
    ------
    InputError
        If the file holds no weights, or they do not fit the system.
    """
    section = dict(run.config.get("system", {}))
    if not run.state_dict or "name" not in section:
        raise InputError(f"Run file {str(run.path)!r} holds no trained system.")
    section.pop("weights", None)  # those that the run began with
    targets = run.attributes.get("targets")
    system = build_system(section.pop("name"), **section)
    load_weights(system, run)
    if targets is not None:
        system.measured_targets = _measured(targets, parse_config(run.config).ep.target)
    if run.examples:
        system.examples = (run.examples["x"], run.examples["y"])
        system.stands_in = False
    return system


@answering
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
