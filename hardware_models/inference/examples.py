"""The examples that an inference is measured on."""

from __future__ import annotations

import math

import torch

from physics_ep.config import Config
from physics_ep.data.datasets import load_dataset
from physics_ep.errors import argument_error
from physics_ep.physical_system import PhysicalSystem
from physics_ep.runs.preparation import bring_examples


def examples_shown(system: PhysicalSystem, config: Config) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Examples that a system brings, or the test examples of its config's data, in the shape that it takes.

    Parameters
    ----------
    system : EnergySystem or VectorField
    config : Config
        The config that it was built from.

    Returns
    -------
    x : Tensor (N, ...)
    y : Tensor or None
        Class indices (N,), or measured targets (N, n). None: nobody gave targets, as of a netlist's own sources.

    Raises
    ------
    InputError
        If the data are missing or damaged, or have another number of inputs than the system.
    """
    bring_examples(system, config)
    own = getattr(system, "examples", None)
    if own is not None:
        return own[0], None if getattr(system, "stands_in", False) else own[1]
    data, shape = load_dataset(config.data), system.example_shape
    if shape is None:
        return data.test_x, data.test_y
    count = data.test_x[0].numel()
    if math.prod(shape) != count:
        must = f"take the {count} inputs of an example of {data.name!r}, or be named in a config with other [data]"
        raise argument_error("SYSTEM", must, f"{type(system).__name__} of {' x '.join(map(str, shape))} inputs")
    return data.test_x.reshape(-1, *shape), data.test_y
