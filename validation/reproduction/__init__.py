"""Published figures beside ours: tables of rows as data, one command that makes them, and what may be said of them.

Start with `reproducing`, whose `reproduce` makes rows; `tables/` holds what was published, under which recipe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from physics_ep.faces import lazy

if TYPE_CHECKING:
    from .outcomes import Reproduction as Reproduction
    from .outcomes import RowOutcome as RowOutcome
    from .reproducing import reproduce as reproduce
    from .rows import published_tables as published_tables
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "Reproduction": "outcomes",
            "RowOutcome": "outcomes",
            "published_tables": "rows",
            "reproduce": "reproducing",
        },
    )
