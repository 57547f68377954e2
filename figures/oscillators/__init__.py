"""Figures of oscillators and excitable media: phases, landscapes, locking, gradients, pulses.

Start with `phases`, which draws phases on the circle as they settle, free and nudged.
"""

from __future__ import annotations

from physics_ep.faces import lazy

__getattr__, __dir__, __all__ = lazy(__name__, {})
