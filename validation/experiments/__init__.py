"""Experiments on trained networks: exact training, learning on a device, one network on three substrates.

Start with `in_situ`, which trains through the pulses of a device and beside it writes a trained network into it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from physics_ep.faces import lazy

if TYPE_CHECKING:
    from .exact_training import train_exactly as train_exactly
    from .in_situ import InSituTable as InSituTable, learn_in_situ as learn_in_situ, open_in_situ as open_in_situ
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "InSituTable": "in_situ",
            "learn_in_situ": "in_situ",
            "open_in_situ": "in_situ",
            "train_exactly": "exact_training",
        },
    )
