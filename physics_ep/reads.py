"""What the host reads of a device: it waits for each read, so that numbers are packed, put off or never asked for.

On the CPU a number is read where it is asked for. On a device, what holds in nearly every step (an input is
finite, no state is NaN, a phase that has not moved is no equilibrium) may be assumed: within a block `assuming()`
such a flag joins the next read, and if one of them fails, `Surprise` ends the block. The caller then does all of it
again without the block, where each flag is read at once, so that errors and numbers are those of the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_ASSUMED: ContextVar[list[torch.Tensor] | None] = ContextVar("_ASSUMED", default=None)
"""Flags that are not read yet; None outside of `assuming`."""


class Surprise(Exception):  # noqa: N818 (no error of anybody's: the block is done again)
    """Raised when a flag that was assumed to hold does not."""


@contextmanager
def assuming() -> Iterator[None]:
    """Within this context, flags on a device are assumed to be as `likely` says; they are read later, with other
    numbers.

    Raises
    ------
    Surprise
        If something of it does not hold, in the place of any other error, which may be a consequence.
    """
    token = _ASSUMED.set([])
    try:
        try:
            yield
        except Exception as error:
            if not isinstance(error, Surprise):
                read()
            raise
        read()
    finally:
        _ASSUMED.reset(token)


def read(*values: torch.Tensor) -> list[float]:
    """Read real tensors of one entry, in one wait together with all that is assumed.

    Raises
    ------
    Surprise
    """
    flags = _ASSUMED.get()
    if not flags:
        if not values:
            return []
        if len(values) == 1 or all(v.device.type == "cpu" for v in values):
            return [v.item() for v in values]
        return torch.stack([v.detach().to(torch.float64) for v in values]).tolist()
    packed = torch.stack([v.detach().to(torch.float64) for v in (*flags, *values)]).tolist()
    count = len(flags)
    flags.clear()
    if not all(packed[:count]):
        raise Surprise
    return packed[count:]


def trusting(device: torch.device) -> bool:
    """Whether flags on this device are assumed at present, and read later."""
    return device.type != "cpu" and _ASSUMED.get() is not None


def likely(flag: torch.Tensor) -> bool:
    """Whether a flag () holds that nearly always does; False in what is compiled.

    That reads nothing, and does what is right in either case.
    """
    if torch.compiler.is_compiling():
        return False
    flags = _ASSUMED.get()
    if flags is None or flag.device.type == "cpu":
        return bool(flag)
    flags.append(flag)
    return True


def needed(flag: torch.Tensor) -> bool:
    """Whether to do what changes nothing unless a flag () holds: always on a device, for which it costs less than
    to wait, and in what is compiled, which reads nothing."""
    return flag.device.type != "cpu" or torch.compiler.is_compiling() or bool(flag)
