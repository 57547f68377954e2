"""Whether detuned oscillators can lock at all: bounds that need no relaxation.

At rest every force vanishes, and the forces on any group S of oscillators sum to

    sum_{i in S} omega_i - sum_{i in S, j not in S} W_ij sin(phi_i - phi_j) - (fields and injection on S) = 0,

what couples two of the group cancels. So no state of rest exists where |sum omega_i| exceeds the weights that cross
the border of S plus the fields and the injection on S. Tried are single oscillators, and of each number the fastest
and the slowest ones. For two oscillators, and for a chain in the order of its frequencies, the bound is exact.
"""

from __future__ import annotations

import torch

MARGIN = 1e-12
"""Relative excess that rounding may have made."""


def cannot_lock(
    detuning: torch.Tensor, pairs: torch.Tensor, weight: torch.Tensor, around: torch.Tensor, hold: torch.Tensor
) -> torch.Tensor:
    """Examples that have no state of rest, as far as the bounds tell, (B,).

    Parameters
    ----------
    detuning : Tensor (n,)
        omega, in coupling units.
    pairs : int64 Tensor (m, 2)
    weight : Tensor (m,)
    around : Tensor (n,)
        Sum of the |weight| on each oscillator.
    hold : Tensor (B, n)
        Strength of all else that holds an oscillator: fields and second-harmonic injection.
    """
    n = len(detuning)
    strength = weight.abs()
    single = _exceeds(detuning.abs(), around + hold).any(1)
    order = detuning.argsort(descending=True)
    rank = torch.empty_like(order).index_copy(0, order, torch.arange(n, device=order.device))
    low, high = rank[pairs].amin(1), rank[pairs].amax(1)
    # An edge crosses the border of the k fastest where low < k <= high.
    border = torch.zeros(n + 2, dtype=weight.dtype, device=weight.device)
    border = border.index_add(0, low + 1, strength).index_add(0, high + 1, -strength).cumsum(0)[1 : n + 1]
    held = hold[:, order].cumsum(1)
    pull = detuning[order].cumsum(0)
    fastest = _exceeds(pull.abs(), border + held)
    slowest = _exceeds((pull[-1] - pull).abs(), border + held[:, -1:] - held)
    return single | fastest.any(1) | slowest.any(1)


def _exceeds(pull: torch.Tensor, hold: torch.Tensor) -> torch.Tensor:
    """Whether a pull exceeds a hold by more than the rounding of the sums that they are."""
    return pull > hold * (1 + MARGIN) + len(pull) * torch.finfo(pull.dtype).eps * pull.amax()
