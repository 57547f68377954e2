"""Figures of predictive coding networks on substrates: settling, imperfections of devices, learning on them.

Start with `paired_unit`, the circuit of one unit, and `substrates`, one trained network on all three.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from physics_ep.faces import lazy

if TYPE_CHECKING:
    from .copies import draw_copies as draw_copies
    from .depth import DepthCosts as DepthCosts, depth_costs as depth_costs, draw_depth_costs as draw_depth_costs
    from .in_situ import draw_in_situ as draw_in_situ
    from .oscillators import draw_oscillator_mapping as draw_oscillator_mapping
    from .paired_unit import draw_paired_unit as draw_paired_unit
    from .signature import draw_signature as draw_signature
    from .substrates import draw_substrates as draw_substrates
    from .tolerance import (
        BetaChoices as BetaChoices,
        LayerCosines as LayerCosines,
        beta_choices as beta_choices,
        draw_best_beta as draw_best_beta,
        draw_layer_cosines as draw_layer_cosines,
        layer_cosines as layer_cosines,
    )
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "BetaChoices": "tolerance",
            "DepthCosts": "depth",
            "LayerCosines": "tolerance",
            "beta_choices": "tolerance",
            "depth_costs": "depth",
            "draw_best_beta": "tolerance",
            "draw_copies": "copies",
            "draw_depth_costs": "depth",
            "draw_in_situ": "in_situ",
            "draw_layer_cosines": "tolerance",
            "draw_oscillator_mapping": "oscillators",
            "draw_paired_unit": "paired_unit",
            "draw_signature": "signature",
            "draw_substrates": "substrates",
            "layer_cosines": "tolerance",
        },
    )
