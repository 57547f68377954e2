"""Landscapes with many equilibria: which there are, which belong together, and how strong a nudge may be.

Start with `exploration`: `explore` relaxes from many random states. `branches` follows an equilibrium as a nudge
grows and measures its curvature; `stability` measures the limit of negative nudging.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from physics_ep.faces import lazy

if TYPE_CHECKING:
    from .branches import smallest_curvature as smallest_curvature
    from .exploration import explore as explore
    from .stability import curvature_limit as curvature_limit
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "curvature_limit": "stability",
            "explore": "exploration",
            "smallest_curvature": "branches",
        },
    )
