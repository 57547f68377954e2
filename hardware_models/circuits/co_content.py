"""The co-content of a circuit, weighted as `circuits.reduction` says, and its contrast between phases."""

from __future__ import annotations

import numpy as np
import torch

from ..arrays import array
from ..laws.elements import ELEMENTS
from . import kernels
from .layout import ORDER, Layout

FUNCTIONS = {name: element.make(torch) for name, element in ELEMENTS.items()}


def co_content(
    layout: Layout, v: torch.Tensor, conductance: torch.Tensor, current: torch.Tensor | None
) -> torch.Tensor:
    """Sum of weight times int i dv over all elements, (B,), watts; differentiable.

    Parameters
    ----------
    layout : Layout
    v : Tensor (B, n_nodes)
        Node voltages.
    conductance : Tensor
        Conductance of the resistors, then of the memristors, siemens.
    current : Tensor or None
        Values of the current sources, amperes.
    """
    total = v.new_zeros(len(v))
    start = learnt = 0
    for kind, count in zip(ORDER, layout.counts, strict=True):
        part = slice(start, start + count)
        start += count
        if not count:
            continue
        ends = torch.from_numpy(layout.ends[part])
        p, q, r = torch.from_numpy(layout.values[part]).unbind(1)
        if kind in ("resistor", "memristor"):
            p = conductance[learnt : learnt + count]
            learnt += count
        elif current is not None and kind == "current_source":
            p = current
        content = FUNCTIONS[kind].content(v[:, ends[:, 0]] - v[:, ends[:, 1]], p, q, r)
        total = total + content @ torch.from_numpy(layout.weight[part])
    return total


def compiled_co_content(
    layout: Layout, v: np.ndarray, conductance: np.ndarray, current: np.ndarray | None
) -> np.ndarray:
    """The co-content that `co_content` computes, by compiled code."""
    values = layout.values.copy()
    values[: len(conductance), 0] = conductance
    if current is not None:
        values[len(values) - len(current) :, 0] = current
    return np.asarray(kernels.contents(v, layout.ends, layout.kinds, values, layout.weight))


def contrast(
    layout: Layout, part: slice, base: torch.Tensor, shift: torch.Tensor, share: torch.Tensor
) -> torch.Tensor:
    """Sum over the batch of share * [dE/dp(base + shift) - dE/dp(base)], p the first values of some elements, (m,).

    Parameters
    ----------
    part : slice
        Which elements of `layout.ends` this part holds.
    base, shift : Tensor (B, n_nodes)
        Node voltages and what they move by.
    share : Tensor (B,)
    """
    volts, moved = np.ascontiguousarray(base.numpy().T), np.ascontiguousarray(shift.numpy().T)
    elements = (layout.ends[part], layout.kinds[part], layout.values[part], layout.weight[part])
    return torch.from_numpy(kernels.contrast(volts, moved, array(share), *elements))
