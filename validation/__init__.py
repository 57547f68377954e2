"""Exact gradients, and how far equilibrium propagation is from them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .gradients import GradientReport, GradientRow, gradient_report
    from .oracles import (
        Gradients,
        OracleError,
        backprop_gradient,
        bptt_gradient,
        finite_difference_gradient,
        implicit_gradient,
    )
    from .system_checks import check_system

_HOME = {
    "GradientReport": "gradients",
    "GradientRow": "gradients",
    "Gradients": "oracles",
    "OracleError": "oracles",
    "backprop_gradient": "oracles",
    "bptt_gradient": "oracles",
    "check_system": "system_checks",
    "finite_difference_gradient": "oracles",
    "gradient_report": "gradients",
    "implicit_gradient": "oracles",
}

__all__ = [
    "GradientReport",
    "GradientRow",
    "Gradients",
    "OracleError",
    "backprop_gradient",
    "bptt_gradient",
    "check_system",
    "finite_difference_gradient",
    "gradient_report",
    "implicit_gradient",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
