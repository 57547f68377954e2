"""Products of arrays with a nudge's rows and those of its opposite, where most of these are the negatives.

Units with kinks answer opposite currents by opposite displacements wherever neither crosses a kink. An array is
linear: what it makes of the opposite rows is known, but for the few rows in which a unit has crossed one,

    W d_- = -W d_+ + W (d_+ + d_-),        the last term in the rows where it is not 0.

Small nudges of trained networks, which settle in two or three sweeps, cross kinks in few examples.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from physics_ep.blocks import doubled
from physics_ep.maps import Link
from physics_ep.pooling import Route, channels_last, pixels_first

from .rows import in_bulk, not_opposite

Product = Callable[[torch.Tensor, Route], torch.Tensor]
"""A linear map of rows, with the route of a max pooling, of one batch or of stacked ones."""


WORTH = 2**16
"""Multiplications an example from which on a product takes longer than to look which rows are opposite."""


def worth(link: Link) -> bool:
    """Whether a map takes so many multiplications an example, `WORTH` or more, that it saves time to look for rows
    of a nudge which are the negatives of the opposite nudge's: the map of one then gives that of the other."""
    return link.fan_in * math.prod(link.post) >= WORTH


def folded(product: Product, rows: torch.Tensor, route: Route) -> torch.Tensor:
    """A product with a nudge's rows and then those of its opposite, (2 B, ...), of which opposite ones make one."""
    batch = rows.shape[0] // 2
    odd: torch.Tensor | None = None
    if in_bulk(rows):
        crossed = not_opposite(rows)
    else:
        odd = _sum(rows)
        crossed = _nonzero(odd).nonzero()[:, 0]
    if 2 * crossed.shape[0] > batch:
        return product(rows, route)
    one = product(rows[:batch], route)
    both, (first, second) = doubled(one)
    first.copy_(one)
    torch.neg(one, out=second)
    if crossed.shape[0]:
        few = rows[crossed] + rows[batch:][crossed] if odd is None else odd[crossed]
        few = channels_last(few) if few.ndim == 4 else few
        second.index_add_(0, crossed, product(few, None if route is None else route[crossed]))
    return both


def _sum(rows: torch.Tensor) -> torch.Tensor:
    batch = rows.shape[0] // 2
    return rows[:batch] + rows[batch:]


def _nonzero(rows: torch.Tensor) -> torch.Tensor:
    """Rows with an entry that is not 0, (B,) of bool; which NaN is too."""
    rows = pixels_first(rows).flatten(1)
    return (rows.amax(1) != 0) | (rows.amin(1) != 0)
