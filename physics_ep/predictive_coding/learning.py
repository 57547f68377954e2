"""The learning rule: dE/dW_k = -delta_k h_{k-1}^T and dE/db_k = -delta_k, contrasted between two phases."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch

from ..blocks import State
from .layers import Route
from .phases import PredictivePhase
from .responses import wide


def contrast(
    phase: PredictivePhase, plus: State, minus: State | None, weight: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Sum over the batch of weight * [dE/dtheta(plus) - dE/dtheta(minus)], for carried displacements and errors.

    a+ b+ - a- b- = (a+ - a-) (b+ + b-)/2 + (a+ + a-)/2 (b+ - b-), both products in one: no difference of
    products.

    Parameters
    ----------
    phase : PredictivePhase
        At the free state.
    plus, minus : tuple of Tensor
        As `PredictivePhase` carries them; minus None is the free state, where dE/dtheta = 0.
    weight : Tensor (B,)

    Returns
    -------
    dict
        Parameter name to tensor of its shape and dtype.
    """
    if phase.routing:
        return _contrast_routed(phase, plus, minus, weight)
    depth, free = phase.depth, phase.free
    deltas = plus[-depth:]
    others = None if minus is None else minus[-depth:]
    moved = _activity_changes(phase, plus)
    partners = None if minus is None else _activity_changes(phase, minus)

    def activity(k: int) -> torch.Tensor:
        """What layer k feeds: at the nudged state, or mean and difference of the two states, stacked."""
        if partners is None:
            return free.states[k] + moved[k]
        mean = torch.add(free.states[k], moved[k] + partners[k], alpha=0.5)
        return torch.cat([mean, moved[k] - partners[k]])

    grads: dict[str, torch.Tensor] = {}
    for k, layer in enumerate(phase.layers):
        column = -weight.to(phase.dtype).view(-1, *[1] * (deltas[k].ndim - 1))
        first = (deltas[k] if others is None else deltas[k] - others[k]) * column
        whole = first
        if others is not None and k > 0:
            whole = torch.cat([first, (deltas[k] + others[k]) * (0.5 * column)])
        name = f"layers.{k}"
        below = free.x if k == 0 else activity(k - 1)
        grads[f"{name}.weight"] = layer.link.gradient(below, whole, free.routes[k])
        if layer.skip_link is not None:
            assert layer.skip_source is not None
            grads[f"{name}.skip_weight"] = layer.skip_link.gradient(activity(layer.skip_source), whole)
        if layer.bias is not None:
            grads[f"{name}.bias"] = first.sum([0, *range(2, first.ndim)])
    return _parameters(phase, grads)


def _contrast_routed(
    phase: PredictivePhase, plus: State, minus: State | None, weight: torch.Tensor
) -> dict[str, torch.Tensor]:
    """`contrast` where each phase has pooling routes of its own: both as one batch."""
    depth = phase.depth
    signed = [(plus, -1.0)] if minus is None else [(plus, -1.0), (minus, 1.0)]
    moved = [_activity_changes(phase, z) for z, _ in signed]
    routes = [_routes(phase, z, d) for (z, _), d in zip(signed, moved, strict=True)]

    def activity(k: int) -> torch.Tensor:
        return torch.cat([phase.free.states[k] + d[k] for d in moved])

    grads: dict[str, torch.Tensor] = {}
    for k, layer in enumerate(phase.layers):
        deltas = [z[k - depth] for z, _ in signed]
        column = weight.to(phase.dtype).view(-1, *[1] * (deltas[0].ndim - 1))
        parts = [delta * (sign * column) for delta, (_, sign) in zip(deltas, signed, strict=True)]
        name = f"layers.{k}"
        if layer.bias is not None:
            grads[f"{name}.bias"] = torch.stack([part.sum([0, *range(2, part.ndim)]) for part in parts]).sum(0)
        if k == 0:  # nothing moves its input, nor its route
            whole = parts[0] if len(parts) == 1 else parts[0].add_(parts[1])
            grads[f"{name}.weight"] = layer.link.gradient(phase.free.x, whole, phase.free.routes[0])
            continue
        whole = torch.cat(parts)
        picks = [r[k] for r in routes]
        route = None if picks[0] is None else torch.cat([r for r in picks if r is not None])
        grads[f"{name}.weight"] = layer.link.gradient(activity(k - 1), whole, route)
        if layer.skip_link is not None:
            assert layer.skip_source is not None
            grads[f"{name}.skip_weight"] = layer.skip_link.gradient(activity(layer.skip_source), whole)
    return _parameters(phase, grads)


def _routes(phase: PredictivePhase, z: State, moved: Sequence[torch.Tensor]) -> list[Route]:
    """What max poolings pick in a state: as its solver has found, else by another forward pass."""
    last = z[-1]
    for found, routes in phase.settled:
        if last.untyped_storage().data_ptr() == found.untyped_storage().data_ptr() and last.shape[1:].numel():
            first = (last.storage_offset() - found.storage_offset()) // last.shape[1:].numel()
            mine = slice(first, first + len(last))
            return [r if r is None or len(r) == len(last) else r[mine] for r in routes]
    twin = copy.copy(phase)
    twin.copies, twin.routes = 1, list(phase.free.routes)
    twin.errors(moved[: phase.depth])
    return twin.routes


def _parameters(phase: PredictivePhase, grads: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Those of parameters that are trained, in their dtype."""
    return {n: grads[n].to(p.dtype) for n, p in phase.system.named_parameters() if p.requires_grad}


def _activity_changes(phase: PredictivePhase, z: State) -> Sequence[torch.Tensor]:
    """d_k of the activities; from the pre-activations where those describe the unit."""
    if not phase.paired:
        return z
    found = []
    for k, layer in enumerate(phase.layers):
        d = z[k]
        if layer.activation.inverse is None:
            d = phase.over(wide(lambda d, a, unit=layer.activation: unit.displaced(a, d)), d, phase.drives(k))
        found.append(d)
    return found
