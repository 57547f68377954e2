"""Netlists: a circuit as a list of parts, read from and written to SPICE files.

Start with `parts`: `Part` and `Parts`. `netlist` reads and writes whole files; `topology` finds floating nodes and
loops.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from physics_ep.faces import lazy

if TYPE_CHECKING:
    from .parts import Part as Part, Parts as Parts
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "Part": "parts",
            "Parts": "parts",
        },
    )
