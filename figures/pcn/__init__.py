"""Figures of predictive coding networks: energy as they settle, EP against backprop, passes against accuracy.

`networks` makes what the others look at: dense networks and narrow VGGs that have seen some steps of training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from physics_ep.faces import lazy

if TYPE_CHECKING:
    from .cosine import Cosines as Cosines, cosines as cosines, draw_cosines as draw_cosines
    from .cost import Costs as Costs, draw_costs as draw_costs, pass_costs as pass_costs
    from .energy import EnergyCourses as EnergyCourses, draw_energy as draw_energy, energy_courses as energy_courses
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "Cosines": "cosine",
            "Costs": "cost",
            "EnergyCourses": "energy",
            "cosines": "cosine",
            "draw_cosines": "cosine",
            "draw_costs": "cost",
            "draw_energy": "energy",
            "energy_courses": "energy",
            "pass_costs": "cost",
        },
    )
