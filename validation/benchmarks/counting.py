"""The counted floor of a step: multiplications of its matrix products and convolutions, and their time alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from .steps import Clock
from .timing import interleave


class Products(TorchDispatchMode):
    """A context that records the matrix products and convolutions made within, those of autograd among them.

    Attributes
    ----------
    multiplications : int
        How many multiplications they take, by torch's own formulas.
    """

    def __init__(self) -> None:
        super().__init__()
        self.multiplications = 0
        self._made: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Do what is asked for, and keep it if it is a product."""
        given = dict(kwargs or {})
        found = func(*args, **given)
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.multiplications += formula(*args, **given, out_val=found) // 2  # a product is two operations
            out = given.get("out")
            if out is not None:  # as it lies in memory, but nobody's result
                given["out"] = torch.empty_strided(out.shape, out.stride(), dtype=out.dtype, device=out.device)
            self._made.append((func, args, given))
        return found

    def again(self) -> None:
        """Make the same products of the same tensors, and nothing else."""
        with torch.no_grad():
            for func, args, kwargs in self._made:
                func(*args, **kwargs)


def products_of(call: Callable[[], object]) -> Products:
    """The products that a call makes."""
    with Products() as found:
        call()
    return found


def floors(calls: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, tuple[int, float]]:
    """Multiplications of each call, and processor seconds that its products take alone: medians, in turns.

    Parameters
    ----------
    calls : mapping of str to callable
        Functions without arguments.
    repeats : int
        Timed rounds.

    Returns
    -------
    dict
        Name to (multiplications, seconds).
    """
    found = {name: products_of(call) for name, call in calls.items()}
    clock = Clock()
    interleave(clock.around({name: products.again for name, products in found.items()}), repeats, warmup=0)
    return {name: (products.multiplications, clock.median(name)[1]) for name, products in found.items()}


def with_floors(
    rows: Sequence[dict[str, Any]], found: Mapping[str, tuple[int, float]], unit: str, seconds: float
) -> list[dict[str, Any]]:
    """Rows with the columns `count`, multiplications over those of the step `unit`, and `floor`, the processor time
    of these products alone over the processor seconds of a whole step `unit`; None where nothing was counted."""
    whole = found[unit][0]
    for row in rows:
        count, alone = found.get(str(row["step"]), (None, None))
        row["count"] = None if count is None else count / whole
        row["floor"] = None if alone is None else alone / seconds
    return list(rows)
