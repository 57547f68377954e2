"""Deep resistive networks: layers of nodes between conductances and diodes, where Kirchhoff's laws do the relaxing.

Start with `network`: `ResistiveNetwork`. `nodes` says what a node answers, `phase` is one relaxation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from physics_ep.faces import lazy

if TYPE_CHECKING:
    from .network import ResistiveNetwork as ResistiveNetwork
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "ResistiveNetwork": "network",
        },
    )
