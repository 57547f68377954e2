"""Sweeps over device imperfections: which points, how each is measured, by which processes, kept where.

Start with `tolerances`, whose `tolerance` runs a sweep and returns the table of `table`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from physics_ep.faces import lazy

if TYPE_CHECKING:
    from .table import (
        LayerTolerance as LayerTolerance,
        TolerancePoint as TolerancePoint,
        ToleranceTable as ToleranceTable,
    )
    from .tolerances import (
        SweepInterrupted as SweepInterrupted,
        open_tolerance as open_tolerance,
        tolerance as tolerance,
    )
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "LayerTolerance": "table",
            "SweepInterrupted": "tolerances",
            "TolerancePoint": "table",
            "ToleranceTable": "table",
            "open_tolerance": "tolerances",
            "tolerance": "tolerances",
        },
    )
