"""What is kept on disk, and read again whole or not at all.

Start with `opening`: `open_run` reads a run file, or the parts of a trajectory that is still being written. `files`
writes whole files or none, `run_file` is one HDF5 file, `parts` and `trajectory` hold courses in time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from physics_ep.faces import lazy

if TYPE_CHECKING:
    from .opening import open_run as open_run
    from .trajectory import Trajectory as Trajectory
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "Trajectory": "trajectory",
            "open_run": "opening",
        },
    )
