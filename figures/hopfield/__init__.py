"""Figures of Hopfield networks and their circuit: settling, transients in SI units, training, early inference.

Start with `dynamics`, which draws the states, the energy and the residual of a free and two nudged phases.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from physics_ep.faces import lazy

if TYPE_CHECKING:
    from .dynamics import (
        HopfieldDynamics as HopfieldDynamics,
        draw_dynamics as draw_dynamics,
        hopfield_dynamics as hopfield_dynamics,
    )
    from .early_inference import (
        EarlyCourses as EarlyCourses,
        draw_early as draw_early,
        early_courses as early_courses,
    )
    from .training import (
        LearningCurve as LearningCurve,
        draw_learning_curve as draw_learning_curve,
        learning_curve as learning_curve,
    )
    from .transients import (
        CircuitTransients as CircuitTransients,
        circuit_transients as circuit_transients,
        draw_transients as draw_transients,
    )
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "CircuitTransients": "transients",
            "EarlyCourses": "early_inference",
            "HopfieldDynamics": "dynamics",
            "LearningCurve": "training",
            "circuit_transients": "transients",
            "draw_dynamics": "dynamics",
            "draw_early": "early_inference",
            "draw_learning_curve": "training",
            "draw_transients": "transients",
            "early_courses": "early_inference",
            "hopfield_dynamics": "dynamics",
            "learning_curve": "training",
        },
    )
