"""Publication figures: what is measured is separate from how it is drawn, and both from where it is saved.

Names are imported on first use (PEP 562), so that the command's help does not wait for matplotlib or torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .automatic import AutoBeta, auto_beta, draw_auto_beta
    from .circuit import CircuitTransients, circuit_transients, draw_transients
    from .clamping import RuleComparison, clamping_error, draw_clamping
    from .dynamics import HopfieldDynamics, draw_dynamics, hopfield_dynamics
    from .gradients import ErrorCurves, draw_errors, estimator_error, precision_error
    from .schemes import HolomorphicMap, draw_holomorphic, holomorphic_map
    from .stepwise import StepwiseCourses, bptt_equality, draw_bptt_equality
    from .style import save
    from .training import LearningCurve, draw_learning_curve, learning_curve

_HOME = {
    "AutoBeta": "automatic",
    "CircuitTransients": "circuit",
    "ErrorCurves": "gradients",
    "HolomorphicMap": "schemes",
    "HopfieldDynamics": "dynamics",
    "LearningCurve": "training",
    "RuleComparison": "clamping",
    "StepwiseCourses": "stepwise",
    "auto_beta": "automatic",
    "bptt_equality": "stepwise",
    "circuit_transients": "circuit",
    "clamping_error": "clamping",
    "draw_auto_beta": "automatic",
    "draw_bptt_equality": "stepwise",
    "draw_clamping": "clamping",
    "draw_dynamics": "dynamics",
    "draw_errors": "gradients",
    "draw_holomorphic": "schemes",
    "draw_learning_curve": "training",
    "draw_transients": "circuit",
    "estimator_error": "gradients",
    "holomorphic_map": "schemes",
    "hopfield_dynamics": "dynamics",
    "learning_curve": "training",
    "precision_error": "gradients",
    "save": "style",
}

__all__ = [
    "AutoBeta",
    "CircuitTransients",
    "ErrorCurves",
    "HolomorphicMap",
    "HopfieldDynamics",
    "LearningCurve",
    "RuleComparison",
    "StepwiseCourses",
    "auto_beta",
    "bptt_equality",
    "circuit_transients",
    "clamping_error",
    "draw_auto_beta",
    "draw_bptt_equality",
    "draw_clamping",
    "draw_dynamics",
    "draw_errors",
    "draw_holomorphic",
    "draw_learning_curve",
    "draw_transients",
    "estimator_error",
    "holomorphic_map",
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
