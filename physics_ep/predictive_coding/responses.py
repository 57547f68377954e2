"""What single layers answer in a nudged phase: elementwise, at the free state or displaced from it.

q_k is what is asked of a layer, a_k + da_k its pre-activation; rows of stacked nudges meet constants of one batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from ..moved import moved_names
from .activations import Anchor
from .forward import ForwardPass
from .layers import PredictiveLayer

if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)


def over(
    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], rows: torch.Tensor, one: torch.Tensor
) -> torch.Tensor:
    """Apply a function of (rows, constant), where `rows` stacks several batches and `one` belongs to a single
    batch.
    """
    count, batch = rows.shape[0], one.shape[0]  # a tensor's len() takes as long as a small product
    if count == batch:
        return function(rows, one)
    copies = count // batch
    return function(rows.unflatten(0, (copies, -1)), one.expand(copies, *one.shape)).flatten(0, 1)


def rectified(
    change: torch.Tensor, low: torch.Tensor, high: torch.Tensor, out: torch.Tensor | None = None
) -> torch.Tensor:
    """ReLU(a + d) - ReLU(a) of stacked rows d around a of one batch, into `out` (which may be the change itself).

    `low` is min(a, 0) and `high` -ReLU(a): a sum and a maximum, and no cancellation.
    """
    batch = low.shape[0]
    if change.shape[0] == batch:
        moved = torch.add(change, low, out=out)
        return torch.maximum(moved, high, out=None if moved.requires_grad else moved)
    rows = change.unflatten(0, (change.shape[0] // max(batch, 1), -1))
    moved = torch.add(rows, low, out=None if out is None else out.unflatten(0, rows.shape[:2]))
    return torch.maximum(moved, high, out=None if moved.requires_grad else moved).flatten(0, 1)


def clamped(change: torch.Tensor, below: torch.Tensor, above: torch.Tensor, beyond: torch.Tensor) -> torch.Tensor:
    """clip(a + d) - clip(a) of stacked rows d around a of one batch, from the anchor of the clip at a
    (`physics_ep.units.clipped`)."""
    moved = over(torch.add, change, beyond)
    rows = moved.unflatten(0, (moved.shape[0] // max(below.shape[0], 1), -1))
    return torch.clamp(rows, below, above, out=None if moved.requires_grad else rows).flatten(0, 1)


def rectified_at(a: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    """ReLU(a + d) - ReLU(a) of rows d around as many rows a, whose memory is used up.

    It is max(d, -a) - max(-a, 0), to the last digit what `rectified` gives.
    """
    if a.requires_grad or change.requires_grad:
        return rectified(change, a.clamp(max=0), -a.relu())
    below = a.neg_()
    return torch.maximum(change, below).sub_(below.clamp_min_(0))


class FreeResponse:
    """What the units of a network answer around one forward pass; the elementwise part of a phase.

    Parameters
    ----------
    forward_pass : ForwardPass
        The free state.
    layers : list of PredictiveLayer
    gates : {'held', 'live'}
        Whether gates are held at the free state.
    paired : bool
        Whether the energy is the paired one.

    Attributes
    ----------
    dtype, wide : torch.dtype
        Precision of displacements; and the same precision, but single at least.
    anchors : dict
        Layer to its activation at the free state, as found so far.
    rails : dict
        Layer to (min(a, 0), -ReLU(a)) at the free state, as found so far.
    """

    def __init__(
        self, forward_pass: ForwardPass, layers: Sequence[PredictiveLayer], gates: str, paired: bool
    ) -> None:
        self.free = forward_pass
        self.layers = layers
        self.gates = gates
        self.paired = paired
        self.dtype = forward_pass.states[0].dtype
        self.wide = torch.promote_types(self.dtype, torch.float32)
        self.anchors: dict[int, Anchor] = {}
        self.rails: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def of_energy(self, paired: bool) -> FreeResponse:
        """The responses of the same units for the paired or the squared-error energy; what is known of the free
        state is shared.
        """
        twin = copy.copy(self)
        twin.paired = paired
        return twin

    def answer(self, k: int, q: torch.Tensor, change: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """(e_k, delta_k) of a layer of which q_k is asked, its pre-activation changed by da_k."""
        name = self.layers[k].activation_name
        if name == "linear":
            return q, q
        unit = self.layers[k].activation
        if unit.gated and self.gates == "held":
            gated = self.through_gates(k, q)
            return (gated, gated) if self.paired else (q, gated)
        if change is None and not self.paired:
            return q, over(torch.mul, q, self.anchor(k).slope).to(q.dtype)
        a = self.drives(k) if change is None else over(torch.add, change, self.drives(k))
        if name == "relu" and not self.paired:
            return q, over(_gated, q, a)
        if self.paired:
            error = over(wide(lambda q, a: unit.displaced(a, q)), q, a)
            return error, error
        return q, over(wide(lambda q, a: unit.slope(a) * q), q, a)

    def shift(self, k: int, change: torch.Tensor) -> torch.Tensor:
        """sigma_k(a_k + da_k) - sigma_k(a_k), through held gates where they are held."""
        name = self.layers[k].activation_name
        if name == "linear":
            return change
        if self.layers[k].activation.gated and self.gates == "held":
            return self.through_gates(k, change)
        if name == "relu":
            return self.rectified(k, change)
        return over(wide(lambda d, a: self.layers[k].activation.displaced(a, d)), change, self.drives(k))

    def through_gates(self, k: int, rows: torch.Tensor) -> torch.Tensor:
        """Rows through the gates of layer k as they are at the free state."""
        return over(self.layers[k].activation.through, rows, self.free.states[k])

    def rectified(self, k: int, change: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """ReLU(a_k + da_k) - ReLU(a_k) with live gates, into `out` (which may be the change itself)."""
        if k not in self.rails:
            # d above -a where a > 0, else what of a + d is above 0: a sum and a maximum, and no cancellation.
            self.rails[k] = self.drives(k).clamp(max=0), -self.free.states[k]
        return rectified(change, *self.rails[k], out=out)

    def rectifies(self, k: int) -> bool:
        """Whether layer k is a ReLU whose gates are live, of the squared energy."""
        return self.layers[k].activation_name == "relu" and self.gates == "live" and not self.paired

    def gated(
        self,
        k: int,
        error: torch.Tensor,
        change: torch.Tensor | None,
        shift: torch.Tensor | None,
        overwrite: bool = False,
    ) -> torch.Tensor:
        """delta_k of an error where the pre-activation has changed by da_k, and the prediction with it by `shift`.

        With `overwrite`, the memory of error and shift may be used for the result.
        """
        if not self.rectifies(k):
            return self.answer(k, error, change)[1]
        h = self.free.states[k]
        if shift is None:
            return over(_gated, error, h)
        # What the unit predicts is above 0 where its gate is open.
        if not overwrite:
            return _gated(error, over(torch.add, shift, h))
        rows = shift.unflatten(0, (len(shift) // max(len(h), 1), -1))
        rows.add_(h)
        return torch.ops.aten.threshold_backward.grad_input(error, shift, 0, grad_input=error)

    def drives(self, k: int) -> torch.Tensor:
        """Pre-activations a_k of all layers in the free state."""
        assert self.free.drives is not None
        return self.free.drives[k]

    def slope_times(self, k: int, change: torch.Tensor) -> torch.Tensor:
        """sigma_k'(a_k) da_k at the free state."""
        unit = self.layers[k].activation
        if unit.name == "linear":
            return change
        if unit.gated:
            return self.through_gates(k, change)
        return (self.anchor(k).slope * change).to(change.dtype)

    def linear(self, k: int, change: torch.Tensor, error: torch.Tensor) -> torch.Tensor:
        """sigma_k'(a_k) da_k + e_k at the free state, new."""
        unit = self.layers[k].activation
        if unit.name == "linear" or unit.gated or change.dtype != self.wide:
            return self.slope_times(k, change) + error
        return torch.addcmul(error, self.anchor(k).slope, change)

    def curved(self, k: int, change: torch.Tensor) -> torch.Tensor | None:
        """sigma_k''(a_k) da_k at the free state; None where it is zero."""
        if not self.bends(k):
            return None
        curvature = self.anchor(k).curvature()
        return None if curvature is None else (curvature * change).to(change.dtype)

    def bends(self, k: int) -> bool:
        """Whether layer k's slope changes with its displacement, for the squared energy's backward pass."""
        unit = self.layers[k].activation
        return not self.paired and unit.name != "linear" and not (unit.gated and self.gates == "held")

    def anchor(self, k: int) -> Anchor:
        """Layer k's activation at the free state."""
        if k not in self.anchors:
            self.anchors[k] = self.layers[k].activation.at(self.drives(k).to(self.wide))
        return self.anchors[k]

    def bent(self, k: int, change: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(sigma_k(a_k + da_k) - sigma_k(a_k), sigma_k'(a_k + da_k)), both new."""
        shift, slope = self.anchor(k).moved(change.to(self.wide))
        return shift.to(self.dtype), slope


def _gated(rows: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    """Rows where a ReLU's state h is positive, else 0."""
    return torch.ops.aten.threshold_backward(rows, h, 0)


def wide(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """The function in single precision at least, its result in the dtype of its first argument."""

    def widened(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        wide = torch.promote_types(first.dtype, torch.float32)
        return function(first.to(wide), second.to(wide)).to(first.dtype)

    return widened
