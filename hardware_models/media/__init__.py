"""Excitable media: FitzHugh-Nagumo chains and lattices, whose stationary states are saddles of an energy.

Start with `medium`: `FitzHughNagumoChain`. `saddle` and `solvers` find stationary states, `continuation` follows
them, `pulses` and `recurrence` describe what travels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from physics_ep.faces import lazy

if TYPE_CHECKING:
    from .medium import FitzHughNagumoChain as FitzHughNagumoChain
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "FitzHughNagumoChain": "medium",
        },
    )
