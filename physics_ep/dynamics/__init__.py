"""Systems in time: how a phase moves, and the methods that integrate its motion, with and without noise.

Start with `simulation`: `simulate` follows a system. `motion` and `flows` say what moves, `integrators` and `noise`
hold the methods as data, `step_limits` refuses steps that are too long, `rest` goes on until a system is at rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from physics_ep.faces import lazy

if TYPE_CHECKING:
    from .integrators import TABLEAUS as TABLEAUS
    from .motion import Motion as Motion
    from .noise import STOCHASTIC as STOCHASTIC
    from .rest import NotAtRestWarning as NotAtRestWarning
    from .simulation import simulate as simulate
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "Motion": "motion",
            "NotAtRestWarning": "rest",
            "STOCHASTIC": "noise",
            "TABLEAUS": "integrators",
            "simulate": "simulation",
        },
    )
