"""Sums of cells at the nodes of a layer: what its units are loaded with, at either end of an array."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import conv2d, conv_transpose2d, max_pool2d

from physics_ep.predictive_coding.layers import POOL, ConvLink, Link

if TYPE_CHECKING:
    from .paired_circuit import PairedCircuit


def into_nodes(link: Link, cells: torch.Tensor) -> torch.Tensor:
    """Sum of the cells, of the weight's shape, that drive each unit above, (*post). Of a max pooling's window the
    largest: the leak completes what is driven by one position or another."""
    ones = torch.ones((1, *link.pre), dtype=cells.dtype, device=cells.device)
    if isinstance(link, ConvLink) and link.routed:
        return max_pool2d(conv2d(ones, cells, None, link.stride, link.padding), POOL)[0]
    return link.apply(cells, ones)[0]


def out_of_nodes(link: Link, cells: torch.Tensor) -> torch.Tensor:
    """Sum of the cells that lead from each unit below, (*pre): what feeds back to it. Positions that lost a max
    pooling are switched to ground, so that their cells stay."""
    if isinstance(link, ConvLink) and link.routed:
        image = torch.ones((1, cells.shape[0], *link.image), dtype=cells.dtype, device=cells.device)
        kernel = cells.shape[-1]
        left = [
            n - ((m - 1) * link.stride - 2 * link.padding + kernel)
            for n, m in zip(link.pre[1:], link.image, strict=True)
        ]
        return conv_transpose2d(image, cells, None, link.stride, link.padding, left)[0]
    ones = torch.ones((1, *link.post), dtype=cells.dtype, device=cells.device)
    return link.transpose(cells, ones)[0]


def at_virtual_grounds(system: PairedCircuit, k: int, which: str) -> tuple[torch.Tensor | float, float]:
    """Conductances at the summing nodes of units 'h' or 'u' of layer k, (*post), and their feedback resistor, S."""
    layer, off = system.stack[k], 2 * system.device_model.g_min
    scale = system.scales[f"layers.{k}.weight"]
    if scale == 0:
        return 0.0, 1.0
    own = system.full_scales[k + 1] / (system.full_scales[k] * scale)
    arrays = system.arrays(k, which)
    total = own + into_nodes(layer.link, arrays.weight.abs() / scale + off)
    skip_scale = system.scales.get(f"layers.{k}.skip_weight", 0.0)
    if layer.skip_link is not None and arrays.skip is not None and skip_scale > 0:
        total = total + into_nodes(layer.skip_link, arrays.skip.abs() / skip_scale + off)
    if which == "u":
        return total, own
    for above, other in enumerate(system.stack[k + 1 :], k + 1):
        back = system.arrays(above, "transpose")
        ends = (
            (above - 1, other.link, back.weight, "weight"),
            (other.skip_source, other.skip_link, back.skip, "skip_weight"),
        )
        for source, link, weight, part in ends:
            scale = system.scales.get(f"layers.{above}.{part}", 0.0)
            if source == k and link is not None and weight is not None and scale > 0:
                total = total + out_of_nodes(link, weight.abs() / scale + off)
    return total, own
