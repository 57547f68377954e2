"""Comparison with ngspice: run it, read its results, hold our voltages and gradients against its.

Start with `check`. `ngspice` runs the program, `phases` solves free and nudged phases there, `mapped` does so for
networks on the resistive substrate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from physics_ep.faces import lazy

if TYPE_CHECKING:
    from .ngspice import ngspice_operating_point as ngspice_operating_point, ngspice_transient as ngspice_transient
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "ngspice_operating_point": "ngspice",
            "ngspice_transient": "ngspice",
        },
    )
