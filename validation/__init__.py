"""Exact gradients, and how far equilibrium propagation is from them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .agreement import Agreement
    from .early_inference import EarlyInference, infer_early
    from .gradients import GradientReport, GradientRow, gradient_report
    from .noise_theory import BetaChoice, best_beta
    from .oracles import (
        Gradients,
        OracleError,
        backprop_gradient,
        bptt_gradient,
        finite_difference_gradient,
        implicit_gradient,
    )
    from .system_checks import check_system
    from .tolerance_sweep import SweepInterrupted, open_tolerance, tolerance
    from .tolerance_table import LayerTolerance, TolerancePoint, ToleranceTable

_HOME = {
    "Agreement": "agreement",
    "BetaChoice": "noise_theory",
    "EarlyInference": "early_inference",
    "GradientReport": "gradients",
    "GradientRow": "gradients",
    "Gradients": "oracles",
    "LayerTolerance": "tolerance_table",
    "OracleError": "oracles",
    "SweepInterrupted": "tolerance_sweep",
    "TolerancePoint": "tolerance_table",
    "ToleranceTable": "tolerance_table",
    "backprop_gradient": "oracles",
    "best_beta": "noise_theory",
    "bptt_gradient": "oracles",
    "check_system": "system_checks",
    "finite_difference_gradient": "oracles",
    "gradient_report": "gradients",
    "implicit_gradient": "oracles",
    "infer_early": "early_inference",
    "open_tolerance": "tolerance_sweep",
    "tolerance": "tolerance_sweep",
}

__all__ = [
    "Agreement",
    "BetaChoice",
    "EarlyInference",
    "GradientReport",
    "GradientRow",
    "Gradients",
    "LayerTolerance",
    "OracleError",
    "SweepInterrupted",
    "TolerancePoint",
    "ToleranceTable",
    "backprop_gradient",
    "best_beta",
    "bptt_gradient",
    "check_system",
    "finite_difference_gradient",
    "gradient_report",
    "implicit_gradient",
    "infer_early",
    "open_tolerance",
    "tolerance",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
