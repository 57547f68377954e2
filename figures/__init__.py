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
    from .conductances import ConductanceChange, conductance_change, draw_conductances
    from .dynamics import HopfieldDynamics, draw_dynamics, hopfield_dynamics
    from .gradients import ErrorCurves, draw_errors, estimator_error, precision_error
    from .mapping import DepthCosts, depth_costs, draw_depth_costs
    from .paired_unit import draw_paired_unit
    from .pcn import EnergyCourses, draw_energy, energy_courses
    from .pcn_cosine import Cosines, cosines, draw_cosines
    from .pcn_cost import Costs, draw_costs, pass_costs
    from .resistive import resistive_error, resistive_relaxation
    from .scaling import CircuitScaling, circuit_scaling, draw_scaling
    from .schemes import HolomorphicMap, draw_holomorphic, holomorphic_map
    from .stepwise import StepwiseCourses, bptt_equality, draw_bptt_equality
    from .style import save
    from .tolerance import (
        BetaChoices,
        LayerCosines,
        beta_choices,
        draw_best_beta,
        draw_layer_cosines,
        layer_cosines,
    )
    from .training import LearningCurve, draw_learning_curve, learning_curve

_HOME = {
    "AutoBeta": "automatic",
    "BetaChoices": "tolerance",
    "CircuitScaling": "scaling",
    "CircuitTransients": "circuit",
    "ConductanceChange": "conductances",
    "Cosines": "pcn_cosine",
    "Costs": "pcn_cost",
    "DepthCosts": "mapping",
    "EnergyCourses": "pcn",
    "ErrorCurves": "gradients",
    "HolomorphicMap": "schemes",
    "HopfieldDynamics": "dynamics",
    "LayerCosines": "tolerance",
    "LearningCurve": "training",
    "RuleComparison": "clamping",
    "StepwiseCourses": "stepwise",
    "auto_beta": "automatic",
    "beta_choices": "tolerance",
    "bptt_equality": "stepwise",
    "circuit_scaling": "scaling",
    "circuit_transients": "circuit",
    "clamping_error": "clamping",
    "conductance_change": "conductances",
    "cosines": "pcn_cosine",
    "depth_costs": "mapping",
    "draw_auto_beta": "automatic",
    "draw_best_beta": "tolerance",
    "draw_bptt_equality": "stepwise",
    "draw_clamping": "clamping",
    "draw_conductances": "conductances",
    "draw_cosines": "pcn_cosine",
    "draw_costs": "pcn_cost",
    "draw_depth_costs": "mapping",
    "draw_dynamics": "dynamics",
    "draw_energy": "pcn",
    "draw_errors": "gradients",
    "draw_holomorphic": "schemes",
    "draw_layer_cosines": "tolerance",
    "draw_learning_curve": "training",
    "draw_paired_unit": "paired_unit",
    "draw_scaling": "scaling",
    "draw_transients": "circuit",
    "energy_courses": "pcn",
    "estimator_error": "gradients",
    "holomorphic_map": "schemes",
    "hopfield_dynamics": "dynamics",
    "layer_cosines": "tolerance",
    "learning_curve": "training",
    "pass_costs": "pcn_cost",
    "precision_error": "gradients",
    "resistive_error": "resistive",
    "resistive_relaxation": "resistive",
    "save": "style",
}

__all__ = [
    "AutoBeta",
    "BetaChoices",
    "CircuitScaling",
    "CircuitTransients",
    "ConductanceChange",
    "Cosines",
    "Costs",
    "DepthCosts",
    "EnergyCourses",
    "ErrorCurves",
    "HolomorphicMap",
    "HopfieldDynamics",
    "LayerCosines",
    "LearningCurve",
    "RuleComparison",
    "StepwiseCourses",
    "auto_beta",
    "beta_choices",
    "bptt_equality",
    "circuit_scaling",
    "circuit_transients",
    "clamping_error",
    "conductance_change",
    "cosines",
    "depth_costs",
    "draw_auto_beta",
    "draw_best_beta",
    "draw_bptt_equality",
    "draw_clamping",
    "draw_conductances",
    "draw_cosines",
    "draw_costs",
    "draw_depth_costs",
    "draw_dynamics",
    "draw_energy",
    "draw_errors",
    "draw_holomorphic",
    "draw_layer_cosines",
    "draw_learning_curve",
    "draw_paired_unit",
    "draw_scaling",
    "draw_transients",
    "energy_courses",
    "estimator_error",
    "holomorphic_map",
    "hopfield_dynamics",
    "layer_cosines",
    "learning_curve",
    "pass_costs",
    "precision_error",
    "resistive_error",
    "resistive_relaxation",
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
