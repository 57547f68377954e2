"""Publication figures: what is measured is separate from how it is drawn, and both from where it is saved.

Names are imported on first use (PEP 562), so that the command's help does not wait for matplotlib or torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from physics_ep.faces import lazy

if TYPE_CHECKING:
    from .gradients.automatic import (
        AutoBeta as AutoBeta,
        auto_beta as auto_beta,
        draw_auto_beta as draw_auto_beta,
    )
    from .hopfield.transients import (
        CircuitTransients as CircuitTransients,
        circuit_transients as circuit_transients,
        draw_transients as draw_transients,
    )
    from .gradients.clamping import (
        RuleComparison as RuleComparison,
        clamping_error as clamping_error,
        draw_clamping as draw_clamping,
    )
    from .resistive.conductances import (
        ConductanceChange as ConductanceChange,
        conductance_change as conductance_change,
        draw_conductances as draw_conductances,
    )
    from .hopfield.dynamics import (
        HopfieldDynamics as HopfieldDynamics,
        draw_dynamics as draw_dynamics,
        hopfield_dynamics as hopfield_dynamics,
    )
    from .hopfield.early_inference import (
        EarlyCourses as EarlyCourses,
        draw_early as draw_early,
        early_courses as early_courses,
    )
    from .gradients.errors import (
        ErrorCurves as ErrorCurves,
        draw_errors as draw_errors,
        estimator_error as estimator_error,
        precision_error as precision_error,
    )
    from .oscillators.locking import (
        Locking as Locking,
        draw_locking as draw_locking,
        locking_curves as locking_curves,
    )
    from .mapping.depth import (
        DepthCosts as DepthCosts,
        depth_costs as depth_costs,
        draw_depth_costs as draw_depth_costs,
    )
    from .oscillators.media import Medium as Medium, draw_medium as draw_medium, medium as medium
    from .oscillators.gradients import (
        OscillatorErrors as OscillatorErrors,
        SwitchCurve as SwitchCurve,
        branch_switches as branch_switches,
        draw_oscillator_errors as draw_oscillator_errors,
        draw_switches as draw_switches,
        oscillator_errors as oscillator_errors,
    )
    from .oscillators.pair import (
        OscillatorPair as OscillatorPair,
        draw_pair as draw_pair,
        pair_landscapes as pair_landscapes,
    )
    from .oscillators.phases import (
        PhasesOnCircle as PhasesOnCircle,
        draw_phases as draw_phases,
        phases_on_circle as phases_on_circle,
    )
    from .mapping.paired_unit import draw_paired_unit as draw_paired_unit
    from .pcn.energy import (
        EnergyCourses as EnergyCourses,
        draw_energy as draw_energy,
        energy_courses as energy_courses,
    )
    from .pcn.cosine import Cosines as Cosines, cosines as cosines, draw_cosines as draw_cosines
    from .pcn.cost import Costs as Costs, draw_costs as draw_costs, pass_costs as pass_costs
    from .resistive.relaxation import (
        resistive_error as resistive_error,
        resistive_relaxation as resistive_relaxation,
    )
    from .history import (
        BenchHistory as BenchHistory,
        bench_history as bench_history,
        draw_bench_history as draw_bench_history,
    )
    from .resistive.scaling import (
        CircuitScaling as CircuitScaling,
        circuit_scaling as circuit_scaling,
        draw_scaling as draw_scaling,
    )
    from .gradients.schemes import (
        HolomorphicMap as HolomorphicMap,
        draw_holomorphic as draw_holomorphic,
        holomorphic_map as holomorphic_map,
    )
    from .gradients.stepwise import (
        StepwiseCourses as StepwiseCourses,
        bptt_equality as bptt_equality,
        draw_bptt_equality as draw_bptt_equality,
    )
    from .films import film as film
    from .browsing import interactive as interactive
    from .numbers import save_data as save_data
    from .results import draw_trajectories as draw_trajectories
    from .style import Look as Look, looking as looking, panels as panels, save as save
    from .mapping.tolerance import (
        BetaChoices as BetaChoices,
        LayerCosines as LayerCosines,
        beta_choices as beta_choices,
        draw_best_beta as draw_best_beta,
        draw_layer_cosines as draw_layer_cosines,
        layer_cosines as layer_cosines,
    )
    from .hopfield.training import (
        LearningCurve as LearningCurve,
        draw_learning_curve as draw_learning_curve,
        learning_curve as learning_curve,
    )
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "AutoBeta": "gradients.automatic",
            "BetaChoices": "mapping.tolerance",
            "CircuitScaling": "resistive.scaling",
            "CircuitTransients": "hopfield.transients",
            "ConductanceChange": "resistive.conductances",
            "Cosines": "pcn.cosine",
            "Costs": "pcn.cost",
            "DepthCosts": "mapping.depth",
            "EarlyCourses": "hopfield.early_inference",
            "EnergyCourses": "pcn.energy",
            "ErrorCurves": "gradients.errors",
            "HolomorphicMap": "gradients.schemes",
            "HopfieldDynamics": "hopfield.dynamics",
            "LayerCosines": "mapping.tolerance",
            "LearningCurve": "hopfield.training",
            "Locking": "oscillators.locking",
            "Look": "style",
            "Medium": "oscillators.media",
            "OscillatorErrors": "oscillators.gradients",
            "OscillatorPair": "oscillators.pair",
            "PhasesOnCircle": "oscillators.phases",
            "RuleComparison": "gradients.clamping",
            "StepwiseCourses": "gradients.stepwise",
            "SwitchCurve": "oscillators.gradients",
            "auto_beta": "gradients.automatic",
            "beta_choices": "mapping.tolerance",
            "bptt_equality": "gradients.stepwise",
            "branch_switches": "oscillators.gradients",
            "circuit_scaling": "resistive.scaling",
            "BenchHistory": "history",
            "bench_history": "history",
            "draw_bench_history": "history",
            "circuit_transients": "hopfield.transients",
            "clamping_error": "gradients.clamping",
            "conductance_change": "resistive.conductances",
            "cosines": "pcn.cosine",
            "depth_costs": "mapping.depth",
            "draw_auto_beta": "gradients.automatic",
            "draw_best_beta": "mapping.tolerance",
            "draw_bptt_equality": "gradients.stepwise",
            "draw_clamping": "gradients.clamping",
            "draw_conductances": "resistive.conductances",
            "draw_cosines": "pcn.cosine",
            "draw_costs": "pcn.cost",
            "draw_depth_costs": "mapping.depth",
            "draw_dynamics": "hopfield.dynamics",
            "draw_early": "hopfield.early_inference",
            "draw_energy": "pcn.energy",
            "draw_errors": "gradients.errors",
            "draw_holomorphic": "gradients.schemes",
            "draw_layer_cosines": "mapping.tolerance",
            "draw_learning_curve": "hopfield.training",
            "draw_locking": "oscillators.locking",
            "draw_medium": "oscillators.media",
            "draw_oscillator_errors": "oscillators.gradients",
            "draw_pair": "oscillators.pair",
            "draw_paired_unit": "mapping.paired_unit",
            "draw_phases": "oscillators.phases",
            "draw_scaling": "resistive.scaling",
            "draw_switches": "oscillators.gradients",
            "draw_trajectories": "results",
            "draw_transients": "hopfield.transients",
            "early_courses": "hopfield.early_inference",
            "energy_courses": "pcn.energy",
            "estimator_error": "gradients.errors",
            "film": "films",
            "holomorphic_map": "gradients.schemes",
            "hopfield_dynamics": "hopfield.dynamics",
            "interactive": "browsing",
            "layer_cosines": "mapping.tolerance",
            "learning_curve": "hopfield.training",
            "locking_curves": "oscillators.locking",
            "looking": "style",
            "medium": "oscillators.media",
            "oscillator_errors": "oscillators.gradients",
            "pair_landscapes": "oscillators.pair",
            "pass_costs": "pcn.cost",
            "phases_on_circle": "oscillators.phases",
            "precision_error": "gradients.errors",
            "resistive_error": "resistive.relaxation",
            "resistive_relaxation": "resistive.relaxation",
            "panels": "style",
            "save": "style",
            "save_data": "numbers",
        },
    )
