"""Runs that leave a file: a training by equilibrium propagation, and both phases in time.

Start with `training`: `train` makes the epochs and writes the run file. `preparation` makes what a run begins with,
`resuming` goes on, `metrics` says what an epoch measures, `loggers` write it as it comes, `phases` follows a free
and a nudged phase in time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from physics_ep.faces import lazy

if TYPE_CHECKING:
    from .loggers import (
        CsvLogger as CsvLogger,
        EpochLogger as EpochLogger,
        TensorBoardLogger as TensorBoardLogger,
        WandbLogger as WandbLogger,
    )
    from .phases import simulate_phases as simulate_phases
    from .training import TrainingResult as TrainingResult, train as train
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "CsvLogger": "loggers",
            "EpochLogger": "loggers",
            "TensorBoardLogger": "loggers",
            "TrainingResult": "training",
            "WandbLogger": "loggers",
            "simulate_phases": "phases",
            "train": "training",
        },
    )
