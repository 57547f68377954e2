"""Energy systems and their training by equilibrium propagation.

Names are imported on first use (PEP 562), so that `import physics_ep`, and with it the command's help, does not
wait for torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .faces import lazy
from .moved import install

if TYPE_CHECKING:
    from .landscape.branches import smallest_curvature as smallest_curvature
    from .config import load_system as load_system
    from .cost import (
        CrossEntropy as CrossEntropy,
        LogPhaseError as LogPhaseError,
        PhaseError as PhaseError,
        SquaredError as SquaredError,
    )
    from .dynamics.simulation import simulate as simulate
    from .equilibrium import Equilibrium as Equilibrium, NotConverged as NotConverged, Status as Status
    from .estimators.propagation import EquilibriumPropagation as EquilibriumPropagation
    from .landscape.exploration import explore as explore
    from .nudging import (
        Nudge as Nudge,
        centered as centered,
        holomorphic as holomorphic,
        negative as negative,
        positive as positive,
        random_sign as random_sign,
    )
    from .relaxation.loop import relax as relax
    from .estimators.thermal import (
        NotStationary as NotStationary,
        StochasticEquilibriumPropagation as StochasticEquilibriumPropagation,
        StochasticGradient as StochasticGradient,
    )
    from .storage.opening import open_run as open_run
    from .system import EnergySystem as EnergySystem
    from .vector_field import VectorField as VectorField
    from .runs.callbacks import Callback as Callback
    from .runs.preparation import nudge_of as nudge_of
    from .runs.training import train as train
    from .version import __version__ as __version__
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "Callback": "runs.callbacks",
            "CrossEntropy": "cost",
            "EnergySystem": "system",
            "Equilibrium": "equilibrium",
            "EquilibriumPropagation": "estimators.propagation",
            "LogPhaseError": "cost",
            "NotConverged": "equilibrium",
            "NotStationary": "estimators.thermal",
            "Nudge": "nudging",
            "PhaseError": "cost",
            "SquaredError": "cost",
            "Status": "equilibrium",
            "StochasticEquilibriumPropagation": "estimators.thermal",
            "StochasticGradient": "estimators.thermal",
            "VectorField": "vector_field",
            "__version__": "version",
            "centered": "nudging",
            "explore": "landscape.exploration",
            "holomorphic": "nudging",
            "load_system": "config",
            "negative": "nudging",
            "nudge_of": "runs.preparation",
            "open_run": "storage.opening",
            "positive": "nudging",
            "random_sign": "nudging",
            "relax": "relaxation.loop",
            "simulate": "dynamics.simulation",
            "smallest_curvature": "landscape.branches",
            "train": "runs.training",
        },
    )

install()
