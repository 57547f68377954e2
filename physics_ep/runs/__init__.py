"""Runs that leave a file: a training by equilibrium propagation, and both phases in time.

Start with `training`: `train` makes the epochs and writes the run file. `preparation` makes what a run begins with,
`resuming` goes on, `metrics` says what an epoch measures, `phases` follows a free and a nudged phase in time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from physics_ep.faces import lazy

if TYPE_CHECKING:
    from .phases import simulate_phases as simulate_phases
    from .training import TrainingResult as TrainingResult, train as train
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "TrainingResult": "training",
            "simulate_phases": "phases",
            "train": "training",
        },
    )
