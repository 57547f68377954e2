"""Predictive coding networks on substrates of hardware: built from devices, settled and trained in situ.

Start with `mapped`: `map_pcn`, and `hopfield`, the shortest substrate. `board` is one device instance, `circuit`
the energy system above it, `fidelity` tells how faithful it is and what it takes, `in_situ` learns on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from physics_ep.faces import lazy

if TYPE_CHECKING:
    from .board import NotRealisable as NotRealisable
    from .circuit import PairedCircuit as PairedCircuit
    from .fidelity import Fidelity as Fidelity
    from .mapped import Mapped as Mapped, SUBSTRATES as SUBSTRATES, map_pcn as map_pcn
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "Fidelity": "fidelity",
            "Mapped": "mapped",
            "NotRealisable": "board",
            "PairedCircuit": "circuit",
            "SUBSTRATES": "mapped",
            "map_pcn": "mapped",
        },
    )
