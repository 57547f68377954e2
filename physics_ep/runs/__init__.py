"""Runs that leave a file: a training by equilibrium propagation, and both phases in time.

Start with `training`: `train` makes the epochs and writes the run file. `preparation` makes what a run begins with,
`selection` says which epoch is kept, `seeds` trains with several, `results` is what they give, `resuming` goes on,
`metrics` says what an epoch measures, `loggers` write it as it comes, `phases` follows a free and a nudged phase
in time.
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
    from .preparation import examples_of as examples_of, nudge_of as nudge_of
    from .seeds import SeedsResult as SeedsResult
    from .results import TrainingResult as TrainingResult
    from .training import train as train
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "CsvLogger": "loggers",
            "EpochLogger": "loggers",
            "SeedsResult": "seeds",
            "TensorBoardLogger": "loggers",
            "TrainingResult": "results",
            "WandbLogger": "loggers",
            "examples_of": "preparation",
            "nudge_of": "preparation",
            "simulate_phases": "phases",
            "train": "training",
        },
    )
