"""Names of the release before, which nothing bears today; they go with the next one (`physics_ep.moved`)."""

from __future__ import annotations

import torch

from .blocks import State
from .maps import channels_first
from .predictive_coding.solvers import LinearSweep, Sweep
from .relaxation.solvers import Solver
from .system import Phase

X = torch.Tensor


class Forward(Solver):
    """The free phase as a solver: a phase says by `Phase.known` what its equilibrium is."""

    def __init__(self, phase: Phase, start: State) -> None:
        self.phase = phase
        self.spent = 0

    def evaluate(self) -> tuple[State, torch.Tensor]:
        self.spent += 1
        known = self.phase.known("sweep")
        assert known is not None
        return known

    def advance(self, active: torch.Tensor) -> None:
        return None


Settled = Forward


class AndersonSweep(Sweep):
    """`Sweep` with `mixed=True`."""

    def __init__(self, phase: Phase, start: State) -> None:
        super().__init__(phase, start, mixed=True)  # type: ignore[arg-type]


class LinearAnderson(LinearSweep):
    """`LinearSweep` with `mixed=True`."""

    def __init__(self, phase: Phase, start: State) -> None:
        super().__init__(phase, start, mixed=True)  # type: ignore[arg-type]


def images_of(rows: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    """Inverse of `rows_of`, for images of size (H, W)."""
    return channels_first(rows.unflatten(1, size))
