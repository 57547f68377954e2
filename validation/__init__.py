"""Exact gradients, and how far equilibrium propagation is from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from physics_ep.faces import lazy

if TYPE_CHECKING:
    from .agreement import Agreement as Agreement
    from .theory.early_inference import EarlyInference as EarlyInference, infer_early as infer_early
    from .experiments.in_situ import (
        InSituTable as InSituTable,
        learn_in_situ as learn_in_situ,
        open_in_situ as open_in_situ,
    )
    from .gradients import (
        GradientReport as GradientReport,
        GradientRow as GradientRow,
        gradient_report as gradient_report,
    )
    from .theory.noise import BetaChoice as BetaChoice, best_beta as best_beta
    from .oracles import (
        Gradients as Gradients,
        OracleError as OracleError,
        backprop_gradient as backprop_gradient,
        bptt_gradient as bptt_gradient,
        finite_difference_gradient as finite_difference_gradient,
        implicit_gradient as implicit_gradient,
    )
    from .system_checks import check_system as check_system
    from .sweeps.tolerances import (
        SweepInterrupted as SweepInterrupted,
        open_tolerance as open_tolerance,
        tolerance as tolerance,
    )
    from .sweeps.table import (
        LayerTolerance as LayerTolerance,
        TolerancePoint as TolerancePoint,
        ToleranceTable as ToleranceTable,
    )
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "Agreement": "agreement",
            "BetaChoice": "theory.noise",
            "EarlyInference": "theory.early_inference",
            "GradientReport": "gradients",
            "GradientRow": "gradients",
            "Gradients": "oracles",
            "InSituTable": "experiments.in_situ",
            "LayerTolerance": "sweeps.table",
            "OracleError": "oracles",
            "SweepInterrupted": "sweeps.tolerances",
            "TolerancePoint": "sweeps.table",
            "ToleranceTable": "sweeps.table",
            "backprop_gradient": "oracles",
            "best_beta": "theory.noise",
            "bptt_gradient": "oracles",
            "check_system": "system_checks",
            "finite_difference_gradient": "oracles",
            "gradient_report": "gradients",
            "implicit_gradient": "oracles",
            "infer_early": "theory.early_inference",
            "learn_in_situ": "experiments.in_situ",
            "open_in_situ": "experiments.in_situ",
            "open_tolerance": "sweeps.tolerances",
            "tolerance": "sweeps.tolerances",
        },
    )
