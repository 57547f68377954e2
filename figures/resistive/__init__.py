"""Figures of resistive networks and circuits: settling, conductances before and after training, cost over size.

Start with `relaxation`, which draws volts, power and co-content over seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from physics_ep.faces import lazy

if TYPE_CHECKING:
    from .conductances import (
        ConductanceChange as ConductanceChange,
        conductance_change as conductance_change,
        draw_conductances as draw_conductances,
    )
    from .relaxation import resistive_error as resistive_error, resistive_relaxation as resistive_relaxation
    from .scaling import (
        CircuitScaling as CircuitScaling,
        circuit_scaling as circuit_scaling,
        draw_scaling as draw_scaling,
    )
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "CircuitScaling": "scaling",
            "ConductanceChange": "conductances",
            "circuit_scaling": "scaling",
            "conductance_change": "conductances",
            "draw_conductances": "conductances",
            "draw_scaling": "scaling",
            "resistive_error": "relaxation",
            "resistive_relaxation": "relaxation",
        },
    )
