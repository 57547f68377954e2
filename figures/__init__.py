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
    from .early_inference import EarlyCourses, draw_early, early_courses
    from .gradients import ErrorCurves, draw_errors, estimator_error, precision_error
    from .locking import Locking, draw_locking, locking_curves
    from .mapping import DepthCosts, depth_costs, draw_depth_costs
    from .media import Medium, draw_medium, medium
    from .oscillator_gradients import (
        OscillatorErrors,
        SwitchCurve,
        branch_switches,
        draw_oscillator_errors,
        draw_switches,
        oscillator_errors,
    )
    from .oscillator_pair import OscillatorPair, draw_pair, pair_landscapes
    from .oscillators import PhasesOnCircle, draw_phases, phases_on_circle
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
    "EarlyCourses": "early_inference",
    "EnergyCourses": "pcn",
    "ErrorCurves": "gradients",
    "HolomorphicMap": "schemes",
    "HopfieldDynamics": "dynamics",
    "LayerCosines": "tolerance",
    "LearningCurve": "training",
    "Locking": "locking",
    "Medium": "media",
    "OscillatorErrors": "oscillator_gradients",
    "OscillatorPair": "oscillator_pair",
    "PhasesOnCircle": "oscillators",
    "RuleComparison": "clamping",
    "StepwiseCourses": "stepwise",
    "SwitchCurve": "oscillator_gradients",
    "auto_beta": "automatic",
    "beta_choices": "tolerance",
    "bptt_equality": "stepwise",
    "branch_switches": "oscillator_gradients",
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
    "draw_early": "early_inference",
    "draw_energy": "pcn",
    "draw_errors": "gradients",
    "draw_holomorphic": "schemes",
    "draw_layer_cosines": "tolerance",
    "draw_learning_curve": "training",
    "draw_locking": "locking",
    "draw_medium": "media",
    "draw_oscillator_errors": "oscillator_gradients",
    "draw_pair": "oscillator_pair",
    "draw_paired_unit": "paired_unit",
    "draw_phases": "oscillators",
    "draw_scaling": "scaling",
    "draw_switches": "oscillator_gradients",
    "draw_transients": "circuit",
    "early_courses": "early_inference",
    "energy_courses": "pcn",
    "estimator_error": "gradients",
    "holomorphic_map": "schemes",
    "hopfield_dynamics": "dynamics",
    "layer_cosines": "tolerance",
    "learning_curve": "training",
    "locking_curves": "locking",
    "medium": "media",
    "oscillator_errors": "oscillator_gradients",
    "pair_landscapes": "oscillator_pair",
    "pass_costs": "pcn_cost",
    "phases_on_circle": "oscillators",
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
    "EarlyCourses",
    "EnergyCourses",
    "ErrorCurves",
    "HolomorphicMap",
    "HopfieldDynamics",
    "LayerCosines",
    "LearningCurve",
    "Locking",
    "Medium",
    "OscillatorErrors",
    "OscillatorPair",
    "PhasesOnCircle",
    "RuleComparison",
    "StepwiseCourses",
    "SwitchCurve",
    "auto_beta",
    "beta_choices",
    "bptt_equality",
    "branch_switches",
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
    "draw_early",
    "draw_energy",
    "draw_errors",
    "draw_holomorphic",
    "draw_layer_cosines",
    "draw_learning_curve",
    "draw_locking",
    "draw_medium",
    "draw_oscillator_errors",
    "draw_pair",
    "draw_paired_unit",
    "draw_phases",
    "draw_scaling",
    "draw_switches",
    "draw_transients",
    "early_courses",
    "energy_courses",
    "estimator_error",
    "holomorphic_map",
    "hopfield_dynamics",
    "layer_cosines",
    "learning_curve",
    "locking_curves",
    "medium",
    "oscillator_errors",
    "pair_landscapes",
    "pass_costs",
    "phases_on_circle",
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
