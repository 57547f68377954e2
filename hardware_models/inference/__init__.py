"""What an inference of a trained system costs, in seconds, watts and joules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from physics_ep.faces import lazy

if TYPE_CHECKING:
    from .cost import InferenceCost as InferenceCost, inference_cost as inference_cost
else:
    __getattr__, __dir__, __all__ = lazy(__name__, {"InferenceCost": "cost", "inference_cost": "cost"})
