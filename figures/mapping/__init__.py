"""Figures of predictive coding networks on substrates: settling, imperfections of devices, learning on them.

Start with `paired_unit`, the circuit of one unit, and `substrates`, one trained network on all three.
"""

from __future__ import annotations

from physics_ep.faces import lazy

__getattr__, __dir__, __all__ = lazy(__name__, {})
