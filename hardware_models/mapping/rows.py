"""Passes over blocks of a course in time that are one where a processor's memory is what they wait for.

Each has the numbers of torch's operators, to the last bit. Blocks of numbers a row, float32 or float64, on the CPU,
are passed over once by compiled code (`row_kernels`); all others by torch, operator by operator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch

from physics_ep.predictive_coding.phase import peak

INTEGERS: dict[torch.dtype, Any] = {torch.float32: np.int32, torch.float64: np.int64}
"""Integers as wide as numbers."""
LEAST = 2**14
"""Numbers from which on a compiled pass saves more than it takes to begin; small networks then compile nothing."""
MOST = 2**18
"""Numbers up to which it does where torch has several threads for its own passes."""


class SideBySide(NamedTuple):
    """How two blocks `goal` and `at` (B, ...) compare: what the one is short of the other, and how large they are.

    Attributes
    ----------
    miss : Tensor (B, ...)
        goal - at.
    sizes : Tensor (3, B)
        Largest absolute entry of each example, in `goal`, in `at` and in `miss`, in this order.
    """

    miss: torch.Tensor
    sizes: torch.Tensor


def compared(goal: torch.Tensor, at: torch.Tensor) -> SideBySide:
    """Compare two blocks (B, ...), row by row."""
    if goal.shape != at.shape or not in_one_pass(goal, at):
        miss = goal - at
        # A device is asked for two operators in place of peak's four, which pass over less memory.
        size = peak if goal.device.type == "cpu" else lambda block: block.flatten(1).abs().amax(1)
        return SideBySide(miss, torch.stack([size(goal), size(at), size(miss)]))
    miss, whole = torch.empty_like(goal), INTEGERS[goal.dtype]
    numbers = goal.numpy(), at.numpy(), miss.numpy()
    sizes = np.empty((3, numbers[0].shape[0]), whole)
    _kernels().compare(*numbers, *(n.view(whole) for n in numbers), np.iinfo(whole).max, sizes)
    return SideBySide(miss, torch.from_numpy(sizes.view(numbers[0].dtype)))


def in_one_pass(*blocks: torch.Tensor) -> bool:
    """Whether compiled code passes over these blocks."""
    dtype = blocks[0].dtype
    return dtype in INTEGERS and all(
        b.ndim == 2 and b.dtype == dtype and b.device.type == "cpu" and b.is_contiguous() and not b.requires_grad
        for b in blocks
    )


def in_bulk(*blocks: torch.Tensor) -> bool:
    """Whether `in_one_pass`, and so many numbers in so few threads of torch that one compiled pass saves time."""
    most = math.inf if torch.get_num_threads() == 1 else MOST
    return LEAST <= blocks[0].numel() <= most and in_one_pass(*blocks)


def clip_moves(
    change: torch.Tensor, at: torch.Tensor, bounds: tuple[float, float], start: torch.Tensor | None = None
) -> torch.Tensor:
    """clip(a + d) - clip(a) of stacked rows d around a of one batch, or around a + `start` (as many rows as d), of
    blocks that are `in_bulk`."""
    moved = torch.empty_like(change)
    numbers = change.numpy(), at.numpy()
    low, high = (numbers[0].dtype.type(bound) for bound in bounds)
    if start is None:
        _kernels().clip(*numbers, low, high, moved.numpy())
    else:
        _kernels().clip_on(start.numpy(), *numbers, low, high, moved.numpy())
    return moved


def sizes(goal: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """The sizes of `compared`, (3, B)."""
    if not in_bulk(goal, at):
        return torch.stack([peak(goal), peak(at), peak(goal - at)])
    whole = INTEGERS[goal.dtype]
    numbers = goal.numpy(), at.numpy()
    found = np.empty((3, numbers[0].shape[0]), whole)
    room = np.empty(numbers[0].shape[1], numbers[0].dtype)
    _kernels().measure(*(n.view(whole) for n in numbers), *numbers, room, np.iinfo(whole).max, found)
    return torch.from_numpy(found.view(numbers[0].dtype))


def not_opposite(rows: torch.Tensor) -> torch.Tensor:
    """Which rows of the first half of (2 B, n), `in_bulk`, are not the negatives of their partners in the second:
    their numbers."""
    found = np.empty(rows.shape[0] // 2, INTEGERS[rows.dtype])
    _kernels().not_opposite(rows.numpy(), found)
    return torch.from_numpy(found.nonzero()[0])


def rectified_pair(
    dq: torch.Tensor, gap: torch.Tensor, corners: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, ...]:
    """dq + gap, the change of ReLUs h for it, and that less the change of ReLUs u for dq, of blocks in one pass;
    `corners` are min(p, 0) and -ReLU(p) of h, then of u."""
    found = tuple(torch.empty_like(dq) for _ in range(3))
    _kernels().rectify(*(b.numpy() for b in (dq, gap, *corners, *found)))
    return found


@cache
def _kernels() -> Any:
    """The compiled passes, which take a second to import."""
    from . import row_kernels

    return row_kernels
