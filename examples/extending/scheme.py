"""A nudging scheme: second order with nudges towards the target only.

The centered scheme also nudges away from the target, which some costs and some devices do not allow. Two nudges of
one sign and the free state reach the same order: with the weights w = (-3/2, 2, -1/2) at the nodes n = (0, 1, 2),
sum w = 0, sum w n = 1 and sum w n^2 = 0.
"""

from __future__ import annotations

from physics_ep.nudging import Stencil, register_scheme


def forward() -> Stencil:
    """Free state, +beta and +2 beta: the error is O(beta^2)."""
    return Stencil("forward", nodes=(0.0, 1.0, 2.0), weights=(-1.5, 2.0, -0.5), order=2)


register_scheme("forward", forward)
