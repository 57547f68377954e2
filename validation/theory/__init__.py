"""Theory that experiments are held against: early inference, noise, EP step by step, limits of mappings.

Start with `early_inference`, which compares the first movements of a nudged network with backprop's errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from physics_ep.faces import lazy

if TYPE_CHECKING:
    from .early_inference import EarlyInference as EarlyInference, infer_early as infer_early
    from .noise import BetaChoice as BetaChoice, best_beta as best_beta
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "BetaChoice": "noise",
            "EarlyInference": "early_inference",
            "best_beta": "noise",
            "infer_early": "early_inference",
        },
    )
