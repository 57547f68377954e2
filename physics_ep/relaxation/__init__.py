"""Relaxation to equilibrium: one loop that decides when to stop, and the solvers that plug into it.

Start with `loop`: `relax` lets a system settle, `solve` does so for one `Phase`, `SOLVERS` lists the solvers by
name. `solvers` holds the iterations, `newton` and `krylov` the methods that use curvature.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from physics_ep.faces import lazy

if TYPE_CHECKING:
    from .loop import SOLVERS as SOLVERS, relax as relax, solve as solve
    from .solvers import Solver as Solver
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "SOLVERS": "loop",
            "Solver": "solvers",
            "relax": "loop",
            "solve": "loop",
        },
    )
