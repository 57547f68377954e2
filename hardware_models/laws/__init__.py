"""Element laws, each written once over a namespace: torch runs them for layers, numba compiles them for graphs.

`couplings` holds the couplings of units, whose laws stand in `physics_ep.units`; `elements` two-terminal elements.
`compiled` is the one door to numba: it compiles the laws and keeps compiled code in a folder named by the hash of
all files here, and of that one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from physics_ep.faces import lazy

if TYPE_CHECKING:
    from .elements import ELEMENTS as ELEMENTS
    from .units import COUPLINGS as COUPLINGS, UNITS as UNITS
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "COUPLINGS": "units",
            "ELEMENTS": "elements",
            "UNITS": "units",
        },
    )
