"""Examples to compare gradients on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from hardware_models.devices.systems import OnDevice
from physics_ep.config import Config
from physics_ep.cost import Cost
from physics_ep.data.batches import photographs
from physics_ep.data.datasets import digits
from physics_ep.errors import InputError, argument_error
from physics_ep.placement import REPORT_NUMBERS, require_room
from physics_ep.runs.preparation import bring_examples
from physics_ep.stillness import Stillness


def examples(
    system: Any, cost: Cost, batch: int, seed: int, images: Path | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Photographs of a folder; else the examples that a system brings (`physics_ep.own_code`); else real digits
    where they fit the system, else random inputs of the shape that it says, and random targets.

    Parameters
    ----------
    system : EnergySystem or VectorField
    cost : Cost
        The cost that encodes the targets.
    batch : int
    seed : int
    images : path or None
        Folder of labelled photographs, for systems that take square colour images.

    Returns
    -------
    Tensor (batch, ...), Tensor
        Inputs and targets on the system's device, in its dtype.
    """
    if images is not None:
        shape = tuple(getattr(system, "shapes", ((),))[0])
        if len(shape) != 3 or shape[0] != 3 or shape[1] != shape[2]:
            raise argument_error(
                "images", "be left out for a system that does not take square colour images", images
            )
        x, labels = photographs(images, shape[1], batch, seed)
        n_out = system.sizes[-1]
        return x.to(system.device, system.dtype), cost.encode(
            (labels % n_out).to(system.device), n_out, system.dtype
        )

    generator = torch.Generator().manual_seed(seed)
    own = getattr(system, "examples", None)
    if own is not None:
        return _own(system, cost, batch, generator, *own)
    data = digits()
    flat = data.train_x.flatten(1)
    said = _shape_of(system)
    shape = tuple(flat.shape[1:]) if said is None else said
    n_in = math.prod(shape)
    if n_in == flat.shape[1]:
        if batch > len(flat):
            raise argument_error("batch", f"be at most the {len(flat)} examples there are", batch)
        rows = torch.randperm(len(flat), generator=generator)[:batch]
        x, classes = flat[rows], data.train_y[rows]
    else:
        sample = torch.zeros((1, *shape), dtype=system.dtype, device=system.device)
        require_room("batch", batch, system, sample, REPORT_NUMBERS)
        x, classes = torch.rand(batch, n_in, generator=generator), None
    x = x.unflatten(1, shape).to(system.device, system.dtype)
    if said is None:
        _require_fit(system, x)
    n_out = system.outputs(system.initial_state(x)).shape[1]
    if classes is None:
        classes = torch.randint(0, n_out, (batch,), generator=generator)
    return x, cost.encode((classes % n_out).to(system.device), n_out, system.dtype)


LARGE = 5_000_000
"""Parameters from which two examples do for a comparison, and held gates."""


def parse_strength(text: str) -> float | str:
    """Return a nudging strength as a user writes it: a positive number, or 'auto'."""
    if text == "auto":
        return text
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argument_error("beta", "be a positive number or 'auto' (the scheme carries the sign)", repr(text))
    return value


def judged(
    subject: Config,
    cost: str,
    *,
    batch: int | None = None,
    seed: int = 0,
    images: Path | None = None,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[Any, torch.Tensor, torch.Tensor, Cost]:
    """Build a system with the examples and the cost by which its gradient is judged.

    Parameters
    ----------
    subject : Config
        What SYSTEM names on a command line.
    cost : str
    batch : int, optional
        Default 16, or 2 for large systems.
    seed : int
    images : path, optional
        Folder of labelled photographs to take.
    device, dtype
        Default the CPU, and the system's own.

    Returns
    -------
    system : EnergySystem or VectorField
    x, y : Tensor
        Test examples of the config's data; or `examples`.
    cost : Cost
    """
    section, judge = subject.system, subject.ep.new_cost(cost)
    built = section.build(seed=seed)
    bring_examples(built, subject)
    built.to(device or torch.device("cpu"), built.dtype if dtype is None else dtype)
    large = sum(p.numel() for p in built.parameters()) >= LARGE
    x, y = examples(built, judge, batch or (2 if large else 16), seed, images)
    if (
        isinstance(built, OnDevice)
        and built.device_model is not None
        and "device_full_scales" not in section.options
    ):
        built.calibrate(x)
    return built, x, y, judge


def usual_gates(system: Any) -> str | None:
    """Return the gates that a comparison shows where nobody names any; None for a system without gates."""
    if not getattr(system, "has_gates", False):
        return None
    return "both" if sum(p.numel() for p in system.parameters()) < LARGE else "held"


def has_targets(system: Any, images: Path | None) -> bool:
    """Whether the targets of `examples` are those of its inputs, and not classes drawn at random."""
    if images is not None:
        return True
    own = getattr(system, "examples", None)
    if own is not None:
        return own[1] is not None
    said = _shape_of(system)
    return said is None or math.prod(said) == digits().train_x[0].numel()


def _shape_of(system: Any) -> tuple[int, ...] | None:
    """Shape of an example's input, as far as a system says it."""
    if hasattr(system, "shapes"):
        return tuple(system.shapes[0])
    if hasattr(system, "sizes"):
        return (system.sizes[0],)
    return getattr(system, "example_shape", None)


def _require_fit(system: Any, x: torch.Tensor) -> None:
    """Refuse a system that takes no digits, and does not say what it takes."""
    try:
        with torch.no_grad(), Stillness(system):
            state = system.initial_state(x)
            system.outputs(state)
            system.law(state, x)
    except InputError:
        raise  # it says itself what it takes
    except (RuntimeError, ValueError, IndexError) as error:
        must = (
            "say the shape of its inputs (the attribute example_shape), bring examples (FILE.py:factory), or be "
            f"named in a config with [data], where it does not take digits of {x.shape[1]} inputs"
        )
        raise argument_error("system", must, f"{type(system).__name__} ({' '.join(str(error).split())})") from error


def _own(
    system: Any, cost: Cost, batch: int, generator: torch.Generator, x: torch.Tensor, y: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The first of the examples that a system brings, with random classes where they have no targets."""
    x = x[:batch].to(system.device)
    x = x.to(system.dtype) if x.dtype.is_floating_point else x
    n_out = system.outputs(system.initial_state(x)).shape[1]
    labels = torch.randint(0, n_out, (len(x),), generator=generator) if y is None else y[:batch]
    if not labels.dtype.is_floating_point:
        return x, cost.encode(labels.to(system.device), n_out, system.dtype)
    labels = labels.to(system.device, system.dtype)
    return x, cost.encode(labels, n_out, system.dtype) if cost.measures and labels.ndim == 2 else labels
