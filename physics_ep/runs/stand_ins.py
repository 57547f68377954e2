"""Examples of a system whose config names none: inputs that it takes, and targets of its own outputs."""

from __future__ import annotations

import math

import torch

from ..data.datasets import digits
from ..physical_system import PhysicalSystem


def stand_ins(
    system: PhysicalSystem, count: int, seed: int
) -> tuple[tuple[torch.Tensor, torch.Tensor], int, str] | None:
    """Random examples for a system that the digits do not fit.

    Parameters
    ----------
    system : EnergySystem or VectorField
    count : int
        Number of examples.
    seed : int

    Returns
    -------
    examples : (Tensor (count, ...), Tensor (count,))
        Inputs in [0, 1), and classes.
    n_out : int
        Outputs of the system, each of which stands for a class.
    words : str
        What they are, in a line.
    None
        If the system takes the digits and has an output for each of them, or does not say the shape of its inputs.
    """
    shape = shape_of(system)
    if shape is None:
        return None
    x = torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))
    n_out = system.outputs(system.initial_state(x.to(system.device, system.dtype))).shape[1]
    images = digits()
    if math.prod(shape) == images.train_x[0].numel() and n_out == images.n_outputs:
        return None
    labels = torch.arange(count) % n_out
    inputs = " x ".join(map(str, shape))
    words = f"random inputs ({inputs}) and targets of {n_out} outputs, since the config names no [data]"
    return (x, labels), n_out, words


def shape_of(system: PhysicalSystem) -> tuple[int, ...] | None:
    """Shape of an example's input, as far as a system says it."""
    shapes, sizes = (getattr(system, name, None) for name in ("shapes", "sizes"))
    if shapes is not None:
        return tuple(shapes[0])
    if sizes is not None:
        return (sizes[0],)
    found = getattr(system, "example_shape", None)
    return None if found is None else tuple(found)
