"""What the arrays of a network connect, and sums of their cells at the nodes of its layers: conductances that
load them and whose thermal noise they feel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from physics_ep.maps import ChannelLink, ConvLink, Link
from physics_ep.predictive_coding.layers import PredictiveLayer


class Array(NamedTuple):
    """One array of a network: the parameter `name`, which is the `part` of layer k.

    It drives layer k from layer `source`, -1 the input, over a link; a bias row, which has none, from a constant
    voltage, source None.
    """

    name: str
    k: int
    part: str
    link: Link | None
    source: int | None

    @property
    def fed(self) -> int | None:
        """Layer that it feeds back to; None: none, inputs and constants being driven."""
        return None if self.source is None or self.source < 0 else self.source


def arrays_of(stack: Sequence[PredictiveLayer]) -> list[Array]:
    """All arrays of a network, layer by layer: weight, skips, biases."""
    found = []
    for k, layer in enumerate(stack):
        for source, link, name in layer.wires(k):
            if name is not None:
                found.append(Array(f"layers.{k}.{name}", k, name, link, source))
        if layer.bias is not None:
            found.append(Array(f"layers.{k}.bias", k, "bias", None, None))
    return found


def of_lines(link: Link | None, cells: torch.Tensor) -> torch.Tensor:
    """Sum of the cells, of the weight's shape, along each line that drives them: (n_in, ...), of groups of channels
    (groups, n_in of one, ...); of a bias row one number."""
    if isinstance(link, ChannelLink):
        return cells
    groups = link.groups if isinstance(link, ConvLink) else 1
    return cells.sum(0) if groups == 1 else cells.unflatten(0, (groups, -1)).sum(1)


def into_nodes(link: Link, cells: torch.Tensor) -> torch.Tensor:
    """Sum of the cells, of the weight's shape, that drive each unit above, (*post). Of a max pooling's window the
    largest: the leak completes what is driven by one position or another."""
    ones = torch.ones((1, *link.pre), dtype=cells.dtype, device=cells.device)
    if link.routed:
        return link.pooled(link.image_of(cells, ones))[0][0]
    return link.apply(cells, ones)[0]


def out_of_nodes(link: Link, cells: torch.Tensor) -> torch.Tensor:
    """Sum of the cells that lead from each unit below, (*pre): what feeds back to it. Positions that lost a max
    pooling are switched to ground, so that their cells stay."""
    if isinstance(link, ConvLink) and link.routed:
        image = torch.ones((1, cells.shape[0], *link.image), dtype=cells.dtype, device=cells.device)
        return link.image_transpose(cells, image)[0]
    ones = torch.ones((1, *link.post), dtype=cells.dtype, device=cells.device)
    return link.transpose(cells, ones)[0]
