"""What the arrays of a network connect, and sums of their cells at the nodes of its layers: conductances that load
them, and the thermal noise of these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn.functional import conv2d, conv_transpose2d, max_pool2d

from physics_ep.predictive_coding.layers import POOL, ConvLink, Link, PredictiveLayer

from .elements import BOLTZMANN

if TYPE_CHECKING:
    from .paired_circuit import PairedCircuit


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
    """All arrays of a network, layer by layer: weight, skip, biases."""
    found = []
    for k, layer in enumerate(stack):
        found.append(Array(f"layers.{k}.weight", k, "weight", layer.link, k - 1))
        if layer.skip_link is not None:
            found.append(Array(f"layers.{k}.skip_weight", k, "skip_weight", layer.skip_link, layer.skip_source))
        if layer.bias is not None:
            found.append(Array(f"layers.{k}.bias", k, "bias", None, None))
    return found


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
    """Conductances whose currents reach 'h', 'u' or, mirrored, 'both' of layer k, (*post), and the feedback
    resistor of its nodes, S.

    One array that drives h and u is in 'both'; the feedback resistor, what is fed back, and arrays of which h and u
    have copies are in 'h' and 'u'.
    """
    scale = system.scales[f"layers.{k}.weight"]
    if scale == 0:
        return 0.0, 1.0
    resistor = system.full_scales[k + 1] / (system.full_scales[k] * scale)
    off = 2 * system.device_model.g_min
    total: torch.Tensor | float = 0.0 if which == "both" else resistor
    for array in arrays_of(system.stack):
        scale = system.scales[array.name]
        drives = array.k == k and (which == "both") == system.one_array
        feeds = array.fed == k and which == "h"
        if scale == 0 or not (drives or feeds):
            continue
        copy = "transpose" if feeds else "h" if which == "both" else which
        held = getattr(system.arrays(array.k, copy), array.part.removesuffix("_weight"))
        cells = held.abs() / scale + off
        if array.link is None:
            total = total + cells.view(-1, *[1] * (len(system.stack[k].post) - 1)).expand(system.stack[k].post)
        else:
            total = total + (out_of_nodes if feeds else into_nodes)(array.link, cells)
    return total, resistor


def thermal_currents(system: PairedCircuit, k: int, which: str) -> torch.Tensor | float:
    """Standard deviation, in units of activity, of the thermal current into units of layer k ('h', 'u', or common
    to 'both'), averaged over a phase's readings; 0: none.

    A reading that is averaged over `averaging_time` t outlasts a node's settling many times, so that what counts of
    a white current is its mean over t: conductances of S in all give it the variance 2 k T S / t (Nyquist 1928;
    one-sided density 4 k T S).
    """
    device = system.device_model
    if device.temperature == 0:
        return 0.0
    joule = 2 * BOLTZMANN * device.temperature / device.averaging_time
    total, full = system.node_conductances(k, which)
    volts = device.voltage / system.full_scales[k + 1]
    return (joule * total) ** 0.5 / (full * volts)
