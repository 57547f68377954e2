"""Figures of EP's gradient against exact ones: over beta, scheme, precision and step.

`errors` compares schemes and dtypes, `schemes` maps holomorphic EP, `clamping` sets coupled learning beside EP,
`automatic` shows what beta='auto' picks, `stepwise` holds EP's course against backprop through time.
"""

from __future__ import annotations

from physics_ep.faces import lazy

__getattr__, __dir__, __all__ = lazy(__name__, {})
