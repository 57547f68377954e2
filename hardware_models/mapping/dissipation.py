"""What arrays dissipate: V^2 G of the lines that drive them, forward and back."""

from __future__ import annotations

import torch

from physics_ep.maps import ChannelLink, ConvLink, DenseLink, Link
from physics_ep.pooling import Route


def forward_power(link: Link, lines: torch.Tensor, volts: torch.Tensor) -> float:
    """sum V^2 G over the lines of an array (`of_lines`) and all positions, mean over the examples, W. Of an
    average pooling's window each position has a share of the conductance, as in `node_sums`; of a max pooling's all
    are on."""
    if isinstance(link, ConvLink):
        columns = lines if link.groups > 1 else lines[None]
        each = (link.image_of if link.routed else link.apply)(columns, volts.square())
    elif isinstance(link, ChannelLink):
        each = volts.square() * lines.view(-1, *[1] * (volts.ndim - 2))
    else:
        each = volts.flatten(1).square() @ lines[None].t()
    return float(each.flatten(1).sum(1).mean())


def back_lines(link: Link, cells: torch.Tensor) -> torch.Tensor:
    """What `back_power` needs of the cells, of the weight's shape, that feed back: of dense arrays and convolutions
    their sums over the units below that a line reaches."""
    return cells if isinstance(link, ChannelLink) else cells.sum(1, keepdim=True)


def back_power(link: Link, lines: torch.Tensor, volts: torch.Tensor, route: Route = None) -> float:
    """sum V^2 G over the lines of an array at which errors are driven, `volts` (B, *post), mean over the examples,
    W; `lines` of `back_lines`, and the route of a max pooling, whose other positions are switched off."""
    if isinstance(link, DenseLink):
        each = volts.flatten(1).square() @ lines
    else:
        each = link.transpose(lines, volts.square(), route)
    return float(each.flatten(1).sum(1).mean())
