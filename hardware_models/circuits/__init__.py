"""Circuits: any graph of resistors, diodes and sources, solved by Newton's method, with an energy or without one.

Start with `circuit`: `Circuit`; `active` has those without an energy, `base` what both share. `reduction`
eliminates sources, `layout` numbers what is left, `phase` is one relaxation, `newton` settles it with the factors
of `factorizations`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from physics_ep.faces import lazy

if TYPE_CHECKING:
    from .active import ActiveCircuit as ActiveCircuit
    from .circuit import Circuit as Circuit
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "ActiveCircuit": "active",
            "Circuit": "circuit",
        },
    )
