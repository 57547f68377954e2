"""The learning rule: dE/dW_k = -delta_k h_{k-1}^T and dE/db_k = -delta_k, contrasted between two phases.

`contrast` is a function of arrays: a simulated network hands in what it has computed, a mapped circuit what it has
read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from ..blocks import doubled
from ..pooling import Route
from .forward import ForwardPass
from .layers import PredictiveLayer

Gradients = dict[str, torch.Tensor]


class Nudged(NamedTuple):
    """What the learning rule needs of a nudged state, one tensor a layer.

    Attributes
    ----------
    moved : sequence of Tensor (B, ...)
        Displacements d_k of the activities from the free state.
    deltas : sequence of Tensor (B, ...)
        Errors delta_k = -dE/da_k.
    routes : sequence of Tensor or None, optional
        What max poolings pick in this state. None: what they pick at the free state.
    """

    moved: Sequence[torch.Tensor]
    deltas: Sequence[torch.Tensor]
    routes: Sequence[Route] | None = None


def contrast(
    layers: Sequence[PredictiveLayer],
    free: ForwardPass,
    plus: Nudged,
    minus: Nudged | None,
    weight: torch.Tensor,
) -> Gradients:
    """Sum over the batch of weight * [dE/dtheta(plus) - dE/dtheta(minus)].

    a+ b+ - a- b- = (a+ - a-) (b+ + b-)/2 + (a+ + a-)/2 (b+ - b-), both products in one: no difference of
    products.

    Parameters
    ----------
    layers : sequence of PredictiveLayer
    free : ForwardPass
        The free state, from which states are displaced: its input, activities and routes.
    plus, minus : Nudged
        minus None is the free state, where dE/dtheta = 0.
    weight : Tensor (B,)

    Returns
    -------
    dict
        Parameter name ('layers.0.weight') to tensor of its shape and dtype; parameters that are not trained are
        left out.
    """
    if plus.routes is not None:
        return _contrast_of_routes(layers, free, plus, minus, weight)
    deltas, moved = plus.deltas, plus.moved

    def activity(k: int) -> torch.Tensor:
        """What layer k feeds: at the nudged state, or mean and difference of the two states, stacked."""
        if minus is None:
            return free.states[k] + moved[k]
        both, (mean, gap) = doubled(moved[k])
        torch.add(free.states[k], torch.add(moved[k], minus.moved[k], out=mean), alpha=0.5, out=mean)
        torch.sub(moved[k], minus.moved[k], out=gap)
        return both

    grads: Gradients = {}
    for k, layer in enumerate(layers):
        column = -_column(weight, free, deltas[k])
        if minus is None:
            whole = first = deltas[k] * column
        elif all(wire.source < 0 for wire in layer.wires(k)):
            whole = first = (deltas[k] - minus.deltas[k]).mul_(column)
        else:
            whole, (first, mean) = doubled(deltas[k])
            torch.sub(deltas[k], minus.deltas[k], out=first).mul_(column)
            torch.add(deltas[k], minus.deltas[k], out=mean).mul_(0.5 * column)
        for source, link, part in layer.wires(k):
            if part is None:
                continue
            below, change = (free.x, first) if source < 0 else (activity(source), whole)
            route = free.routes[k] if link.routed else None
            grads[f"layers.{k}.{part}"] = link.gradient(below, change, route)
        if layer.bias is not None:
            grads[f"layers.{k}.bias"] = first.sum([0, *range(2, first.ndim)])
        _settle(grads, k, layer)
    return grads


def mirrored_contrast(
    layers: Sequence[PredictiveLayer], free: ForwardPass, deltas: Sequence[torch.Tensor], weight: torch.Tensor
) -> Gradients:
    """`contrast` of a state and its mirror image, whose displacements and errors are the negatives.

    Means are those of the free state, so that -2 delta_k h_{k-1}^T is left: one product a link.

    Parameters
    ----------
    layers : sequence of PredictiveLayer
    free : ForwardPass
    deltas : sequence of Tensor (B, ...)
        Errors delta_k of the state.
    weight : Tensor (B,)

    Returns
    -------
    dict
        As `contrast` has it.
    """
    grads: Gradients = {}
    for k, layer in enumerate(layers):
        gap = deltas[k] * (-2 * _column(weight, free, deltas[k]))
        for source, link, part in layer.wires(k):
            if part is not None:
                below = free.x if source < 0 else free.states[source]
                grads[f"layers.{k}.{part}"] = link.gradient(below, gap, free.routes[k] if link.routed else None)
        if layer.bias is not None:
            grads[f"layers.{k}.bias"] = gap.sum([0, *range(2, gap.ndim)])
        _settle(grads, k, layer)
    return grads


def _contrast_of_routes(
    layers: Sequence[PredictiveLayer],
    free: ForwardPass,
    plus: Nudged,
    minus: Nudged | None,
    weight: torch.Tensor,
) -> Gradients:
    """`contrast` where each state has pooling routes of its own: both as one batch."""
    signed = [(plus, -1.0)] if minus is None else [(plus, -1.0), (minus, 1.0)]

    def activity(k: int) -> torch.Tensor:
        return torch.cat([free.states[k] + state.moved[k] for state, _ in signed])

    grads: Gradients = {}
    for k, layer in enumerate(layers):
        column = _column(weight, free, plus.deltas[k])
        parts = [state.deltas[k] * (sign * column) for state, sign in signed]
        if layer.bias is not None:
            sums = [part.sum([0, *range(2, part.ndim)]) for part in parts]
            grads[f"layers.{k}.bias"] = torch.stack(sums).sum(0)
        whole: torch.Tensor | None = None
        for source, link, part in layer.wires(k):
            if part is None:
                continue
            name = f"layers.{k}.{part}"
            if source < 0:  # nothing moves the input, nor a route from it
                alone = parts[0] if len(layer.wires(k)) == 1 else parts[0].clone()
                both = parts[0] if len(parts) == 1 else alone.add_(parts[1])
                grads[name] = link.gradient(free.x, both, free.routes[k] if link.routed else None)
                continue
            whole = torch.cat(parts) if whole is None else whole
            picks = [state.routes[k] for state, _ in signed if state.routes is not None and link.routed]
            route = torch.cat([r for r in picks if r is not None]) if picks else None
            grads[name] = link.gradient(activity(source), whole, route)
        _settle(grads, k, layer)
    return grads


def _column(weight: torch.Tensor, free: ForwardPass, rows: torch.Tensor) -> torch.Tensor:
    """Weights (B,) to multiply rows (B, ...), in the dtype that the layers work in."""
    return weight.to(free.states[0].dtype).view(-1, *[1] * (rows.ndim - 1))


def _settle(grads: Gradients, k: int, layer: PredictiveLayer) -> None:
    """Bring the gradients of layer k into the dtype of its parameters, and drop those that are not trained.

    A layer at a time, so that no two copies of all gradients are held.
    """
    for name in [*(wire.name for wire in layer.wires(k)), "bias"]:
        parameter, key = None if name is None else getattr(layer, name), f"layers.{k}.{name}"
        if parameter is None or not parameter.requires_grad:
            grads.pop(key, None)
        else:
            grads[key] = grads[key].to(parameter.dtype)
