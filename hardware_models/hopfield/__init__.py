"""Hopfield networks: layered, convolutional, on any graph, of potentials in noise, and without an energy.

Start with `network`: `HopfieldNetwork`. `graph` holds units on any graph with the kernels of `graph_kernels`,
`langevin` the network of potentials, `recurrent` layers with separate forward and backward weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from physics_ep.faces import lazy

if TYPE_CHECKING:
    from .graph import UnitGraph as UnitGraph
    from .langevin import LangevinHopfield as LangevinHopfield
    from .network import ConvHopfieldNetwork as ConvHopfieldNetwork, HopfieldNetwork as HopfieldNetwork
    from .recurrent import RecurrentNetwork as RecurrentNetwork
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "ConvHopfieldNetwork": "network",
            "HopfieldNetwork": "network",
            "LangevinHopfield": "langevin",
            "RecurrentNetwork": "recurrent",
            "UnitGraph": "graph",
        },
    )
