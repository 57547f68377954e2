"""Energy systems and their training by equilibrium propagation.

Names are imported on first use (PEP 562), so that `import physics_ep`, and with it the command's help, does not
wait for torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .faces import lazy
from .moved import install

if TYPE_CHECKING:
    from .branches import smallest_curvature as smallest_curvature
    from .cost import (
        CrossEntropy as CrossEntropy,
        LogPhaseError as LogPhaseError,
        PhaseError as PhaseError,
        SquaredError as SquaredError,
    )
    from .dynamics import simulate as simulate
    from .equilibrium import Equilibrium as Equilibrium, NotConverged as NotConverged, Status as Status
    from .estimator import EquilibriumPropagation as EquilibriumPropagation
    from .landscape import explore as explore
    from .nudging import (
        Nudge as Nudge,
        centered as centered,
        holomorphic as holomorphic,
        negative as negative,
        positive as positive,
        random_sign as random_sign,
    )
    from .relaxation import relax as relax
    from .stochastic_propagation import (
        NotStationary as NotStationary,
        StochasticEquilibriumPropagation as StochasticEquilibriumPropagation,
        StochasticGradient as StochasticGradient,
    )
    from .opening import open_run as open_run
    from .system import EnergySystem as EnergySystem
    from .training import train as train
    from .version import __version__ as __version__
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
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
            "__version__": "version",
            "centered": "nudging",
            "explore": "landscape",
            "holomorphic": "nudging",
            "negative": "nudging",
            "open_run": "opening",
            "positive": "nudging",
            "random_sign": "nudging",
            "relax": "relaxation",
            "simulate": "dynamics",
            "smallest_curvature": "branches",
            "train": "training",
        },
    )

install()
