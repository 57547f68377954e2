"""Publication figures: what is measured is separate from how it is drawn, and both from where it is saved.

Names are imported on first use (PEP 562), so that the command's help does not wait for matplotlib or torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .circuit import CircuitTransients, circuit_transients, draw_transients
    from .dynamics import HopfieldDynamics, draw_dynamics, hopfield_dynamics
    from .gradients import ErrorCurves, draw_errors, estimator_error, precision_error
    from .style import save
    from .training import LearningCurve, draw_learning_curve, learning_curve

_HOME = {
    "CircuitTransients": "circuit",
    "ErrorCurves": "gradients",
    "HopfieldDynamics": "dynamics",
    "LearningCurve": "training",
    "circuit_transients": "circuit",
    "draw_dynamics": "dynamics",
    "draw_errors": "gradients",
    "draw_learning_curve": "training",
    "draw_transients": "circuit",
    "estimator_error": "gradients",
    "hopfield_dynamics": "dynamics",
    "learning_curve": "training",
    "precision_error": "gradients",
    "save": "style",
}

__all__ = [
    "CircuitTransients",
    "ErrorCurves",
    "HopfieldDynamics",
    "LearningCurve",
    "circuit_transients",
    "draw_dynamics",
    "draw_errors",
    "draw_learning_curve",
    "draw_transients",
    "estimator_error",
    "hopfield_dynamics",
    "learning_curve",
    "precision_error",
    "save",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
