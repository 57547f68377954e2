"""Layers of units, dense and convolutional, whose couplings are matrix products: what networks of substrates share.

Start with `layered`: `Layered`, the base class, and its phase. `couplings` holds the parameters of a layer, `maps`
the linear maps with their pooling, `flows` how units move in time, `few_outputs` relaxations that are compiled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from physics_ep.faces import lazy

if TYPE_CHECKING:
    from .layered import Layered as Layered
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "Layered": "layered",
        },
    )
