"""Figures of resistive networks and circuits: settling, conductances before and after training, cost over size.

Start with `relaxation`, which draws volts, power and co-content over seconds.
"""

from __future__ import annotations

from physics_ep.faces import lazy

__getattr__, __dir__, __all__ = lazy(__name__, {})
