"""Element laws, each written once over a namespace: torch runs them for layers, numba compiles them for graphs.

`couplings` holds couplings of units, `elements` two-terminal elements; responses of units stand in
`physics_ep.units`. `compiled` is the one door to numba: it compiles the laws and keeps compiled code in a folder
named by the hash of all files here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from physics_ep.faces import lazy

if TYPE_CHECKING:
    from .couplings import COUPLINGS as COUPLINGS
    from .elements import ELEMENTS as ELEMENTS
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "COUPLINGS": "couplings",
            "ELEMENTS": "elements",
        },
    )
