"""Modified nodal analysis: circuits with any active parts, at rest and in time.

Start with `transients`: `transient` follows a circuit with capacitors. `equations` assembles, `factors` factorises,
`points` finds operating points, `small_signals` the answer to small signals there, `power` tells where the energy
goes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from physics_ep.faces import lazy

if TYPE_CHECKING:
    from .small_signals import (
        FrequencyResponse as FrequencyResponse,
        frequency_response as frequency_response,
    )
    from .courses import CircuitTrajectory as CircuitTrajectory
    from .stored_transients import read_transient as read_transient
    from .transients import transient as transient
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "CircuitTrajectory": "courses",
            "read_transient": "stored_transients",
            "FrequencyResponse": "small_signals",
            "frequency_response": "small_signals",
            "transient": "transients",
        },
    )
