"""A nudging scheme of second order with nudges towards the target only."""

from __future__ import annotations

from physics_ep.nudging import Stencil


def forward() -> Stencil:
    """Free state, +beta and +2 beta: sum w = 0, sum w n = 1, sum w n^2 = 0, so that the error is O(beta^2)."""
    return Stencil("forward", nodes=(0.0, 1.0, 2.0), weights=(-1.5, 2.0, -0.5), order=2)
