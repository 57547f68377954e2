"""Passes over blocks of a course in time that are one where a processor's memory is what they wait for.

Each has the numbers of torch's operators, to the last bit. Blocks of numbers a row, float32 or float64, on the CPU,
are passed over once by compiled code (`row_kernels`); all others by torch, operator by operator.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch

from physics_ep.predictive_coding.phase import peak

INTEGERS: dict[torch.dtype, Any] = {torch.float32: np.int32, torch.float64: np.int64}
"""Integers as wide as numbers."""


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
