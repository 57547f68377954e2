"""Estimators of gradients: equilibrium propagation and its kin, each with a `backward` that fills `.grad`.

Start with `propagation`: `EquilibriumPropagation`. `contrasts` holds what its nudged phases have in common, `step`
what a step tells; `thermal` averages over noise, `coupled_learning` clamps outputs, `backprop` is there to compare.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from physics_ep.faces import lazy

if TYPE_CHECKING:
    from .coupled_learning import CoupledLearning as CoupledLearning
    from .propagation import EquilibriumPropagation as EquilibriumPropagation
    from .step import Step as Step
    from .thermal import (
        NotStationary as NotStationary,
        StochasticEquilibriumPropagation as StochasticEquilibriumPropagation,
        StochasticGradient as StochasticGradient,
    )
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "CoupledLearning": "coupled_learning",
            "EquilibriumPropagation": "propagation",
            "NotStationary": "thermal",
            "Step": "step",
            "StochasticEquilibriumPropagation": "thermal",
            "StochasticGradient": "thermal",
        },
    )
