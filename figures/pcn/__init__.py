"""Figures of predictive coding networks: energy as they settle, EP against backprop, passes against accuracy.

`networks` makes what the others look at: dense networks and narrow VGGs that have seen some steps of training.
"""

from __future__ import annotations

from physics_ep.faces import lazy

__getattr__, __dir__, __all__ = lazy(__name__, {})
