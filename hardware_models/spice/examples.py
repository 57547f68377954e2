"""Examples that a circuit is asked about: those of its own data, or random ones, and what they are in words."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from physics_ep.config import load_subject
from physics_ep.data.datasets import load_dataset
from physics_ep.errors import InputError, argument_error
from physics_ep.physical_system import PhysicalSystem


@dataclass(frozen=True)
class CircuitExamples:
    """Inputs for a circuit, and where they come from.

    Attributes
    ----------
    x : Tensor (B, ...)
        float64.
    labels : tuple of int
        Their classes; empty where they have none.
    told : str
        What they are, in words.
    """

    x: torch.Tensor
    labels: tuple[int, ...]
    told: str


def random_examples(shape: tuple[int, ...], count: int, seed: int) -> CircuitExamples:
    """Inputs in [0, 1), which are no data."""
    x = torch.rand((count, *shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return CircuitExamples(x, (), f"random inputs in [0, 1), seed {seed}")


def own_examples(
    name: str, system: PhysicalSystem, shape: tuple[int, ...], count: int, seed: int
) -> CircuitExamples:
    """Examples that a system brings, or the first ones of its config's test set; random ones where it has neither.

    Parameters
    ----------
    name : str
        What SYSTEM says.
    system : PhysicalSystem
    shape : tuple of int
        Shape of one example.
    count : int
        How many, at most.
    seed : int
        Seed of random ones.

    Returns
    -------
    CircuitExamples

    Raises
    ------
    InputError
        If there are fewer examples.
    """
    own = getattr(system, "examples", None)
    if own is not None:
        x, y = own
        told = f"examples that {name} brings"
    else:
        config = load_subject(name)
        if "data" not in config.model_fields_set:
            return random_examples(shape, count, seed)
        try:
            data = load_dataset(config.data)
        except InputError:
            return random_examples(shape, count, seed)
        x, y, told = data.test_x, data.test_y, f"test examples of {data.name}"
    if tuple(x.shape[1:]) != tuple(shape):
        return random_examples(shape, count, seed)
    if len(x) < count:
        raise argument_error("batch", f"be at most {len(x)}, the {told}", count)
    classes = y is not None and y.ndim == 1 and not y.is_floating_point()
    return CircuitExamples(
        x[:count].double(), tuple(y[:count].tolist()) if classes else (), f"the first of the {told}"
    )
