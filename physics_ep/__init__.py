"""Energy systems and their training by equilibrium propagation.

Names are imported on first use (PEP 562), so that `import physics_ep`, and with it the command's help, does not
wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .branches import smallest_curvature
    from .cost import CrossEntropy, LogPhaseError, PhaseError, SquaredError
    from .dynamics import simulate
    from .equilibrium import Equilibrium, NotConverged, Status
    from .estimator import EquilibriumPropagation
    from .landscape import explore
    from .nudging import Nudge, centered, holomorphic, negative, positive, random_sign
    from .relaxation import relax
    from .stochastic_propagation import NotStationary, StochasticEquilibriumPropagation, StochasticGradient
    from .store import open_run
    from .system import EnergySystem
    from .training import train

_HOME = {
    "CrossEntropy": "cost",
    "EnergySystem": "system",
    "Equilibrium": "equilibrium",
    "EquilibriumPropagation": "estimator",
    "LogPhaseError": "cost",
    "NotConverged": "equilibrium",
    "NotStationary": "stochastic_propagation",
    "Nudge": "nudging",
    "PhaseError": "cost",
    "SquaredError": "cost",
    "Status": "equilibrium",
    "StochasticEquilibriumPropagation": "stochastic_propagation",
    "StochasticGradient": "stochastic_propagation",
    "centered": "nudging",
    "explore": "landscape",
    "holomorphic": "nudging",
    "negative": "nudging",
    "open_run": "store",
    "positive": "nudging",
    "random_sign": "nudging",
    "relax": "relaxation",
    "simulate": "dynamics",
    "smallest_curvature": "branches",
    "train": "training",
}

__all__ = [
    "CrossEntropy",
    "EnergySystem",
    "Equilibrium",
    "EquilibriumPropagation",
    "LogPhaseError",
    "NotConverged",
    "NotStationary",
    "Nudge",
    "PhaseError",
    "SquaredError",
    "Status",
    "StochasticEquilibriumPropagation",
    "StochasticGradient",
    "__version__",
    "centered",
    "explore",
    "holomorphic",
    "negative",
    "open_run",
    "positive",
    "random_sign",
    "relax",
    "simulate",
    "smallest_curvature",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
