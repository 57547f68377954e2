"""Publication figures: what is measured is separate from how it is drawn, and both from where it is saved.

Names are imported on first use (PEP 562), so that the command's help does not wait for matplotlib or torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from physics_ep.faces import lazy

if TYPE_CHECKING:
    from .automatic import AutoBeta as AutoBeta, auto_beta as auto_beta, draw_auto_beta as draw_auto_beta
    from .circuit import (
        CircuitTransients as CircuitTransients,
        circuit_transients as circuit_transients,
        draw_transients as draw_transients,
    )
    from .clamping import (
        RuleComparison as RuleComparison,
        clamping_error as clamping_error,
        draw_clamping as draw_clamping,
    )
    from .conductances import (
        ConductanceChange as ConductanceChange,
        conductance_change as conductance_change,
        draw_conductances as draw_conductances,
    )
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
    from .gradients import (
        ErrorCurves as ErrorCurves,
        draw_errors as draw_errors,
        estimator_error as estimator_error,
        precision_error as precision_error,
    )
    from .locking import Locking as Locking, draw_locking as draw_locking, locking_curves as locking_curves
    from .mapping import DepthCosts as DepthCosts, depth_costs as depth_costs, draw_depth_costs as draw_depth_costs
    from .media import Medium as Medium, draw_medium as draw_medium, medium as medium
    from .oscillator_gradients import (
        OscillatorErrors as OscillatorErrors,
        SwitchCurve as SwitchCurve,
        branch_switches as branch_switches,
        draw_oscillator_errors as draw_oscillator_errors,
        draw_switches as draw_switches,
        oscillator_errors as oscillator_errors,
    )
    from .oscillator_pair import (
        OscillatorPair as OscillatorPair,
        draw_pair as draw_pair,
        pair_landscapes as pair_landscapes,
    )
    from .oscillators import (
        PhasesOnCircle as PhasesOnCircle,
        draw_phases as draw_phases,
        phases_on_circle as phases_on_circle,
    )
    from .paired_unit import draw_paired_unit as draw_paired_unit
    from .pcn import EnergyCourses as EnergyCourses, draw_energy as draw_energy, energy_courses as energy_courses
    from .pcn_cosine import Cosines as Cosines, cosines as cosines, draw_cosines as draw_cosines
    from .pcn_cost import Costs as Costs, draw_costs as draw_costs, pass_costs as pass_costs
    from .resistive import resistive_error as resistive_error, resistive_relaxation as resistive_relaxation
    from .scaling import (
        CircuitScaling as CircuitScaling,
        circuit_scaling as circuit_scaling,
        draw_scaling as draw_scaling,
    )
    from .schemes import (
        HolomorphicMap as HolomorphicMap,
        draw_holomorphic as draw_holomorphic,
        holomorphic_map as holomorphic_map,
    )
    from .stepwise import (
        StepwiseCourses as StepwiseCourses,
        bptt_equality as bptt_equality,
        draw_bptt_equality as draw_bptt_equality,
    )
    from .style import save as save
    from .tolerance import (
        BetaChoices as BetaChoices,
        LayerCosines as LayerCosines,
        beta_choices as beta_choices,
        draw_best_beta as draw_best_beta,
        draw_layer_cosines as draw_layer_cosines,
        layer_cosines as layer_cosines,
    )
    from .training import (
        LearningCurve as LearningCurve,
        draw_learning_curve as draw_learning_curve,
        learning_curve as learning_curve,
    )
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
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
        },
    )
