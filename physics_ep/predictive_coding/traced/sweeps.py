"""Solvers of a nudged recorded model: one sweep is a forward pass with the errors added and a backward pass.

| solver | what it is |
|---|---|
| `sweep` | Picard iteration e_k <- -beta dC/dh_k(e) |
| `anderson` | Anderson mixing of it, depth 5 (Walker, Ni 2011) |

`iterations` counts backward passes, the one that certifies the returned state included: K = 1 is a state that has
not moved, whose errors are those of backprop and whose residual is 1. The first backward pass, at the free state,
serves all nudges.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from ...blocks import State
from ...relaxation.solvers import Solver
from ..phase import Rest
from ..solvers import Mixing
from .passes import Blocks
from .phase import ModulePhase


class ErrorSweep(Solver):
    """Sweeps of the errors of all units; `mixed`: with Anderson mixing.

    Stacked nudges are swept one after the other, so that no two are in memory with all their intermediate values.
    """

    patience = 30

    def __init__(self, phase: ModulePhase, start: State, mixed: bool = False) -> None:
        self.phase = phase
        self.spent = 0
        self.resting = isinstance(start, Rest)
        self.errors: list[Blocks] = []
        if not self.resting:
            self.errors = [phase.errors_of(copy, start) for copy in range(phase.copies)]
        self.start = start
        self.images: list[Blocks] = []
        self._mixing = [Mixing() for _ in range(phase.copies)] if mixed else None

    def evaluate(self) -> tuple[State, torch.Tensor]:
        self.spent += 1
        phase = self.phase
        moved: list[Blocks] = []
        residuals = []
        self.images = []
        for copy in range(phase.copies):
            values, image = phase.asked(copy, None if self.resting else self.errors[copy])
            own = [torch.zeros_like(g) for g in image] if self.resting else self.errors[copy]
            residuals.append(phase.miss(image, own))
            self.images.append(image)
            moved.append([h - s for h, s in zip(values, phase.free.states, strict=True)])
        return _stacked(moved), torch.cat(residuals)

    def advance(self, active: torch.Tensor) -> None:
        following = self.images
        if self._mixing is not None and not self.resting:
            mixes = zip(self._mixing, self.errors, self.images, strict=True)
            following = [self._mixed(mix, errors, images) for mix, errors, images in mixes]
        if not self.resting and not bool(active.all()):
            rows = active.chunk(self.phase.copies)
            following = [
                [torch.where(a.view(-1, *[1] * (g.ndim - 1)), g, e) for g, e in zip(new, old, strict=True)]
                for a, new, old in zip(rows, following, self.errors, strict=True)
            ]
        self.resting = False
        self.errors = following

    def _mixed(self, mix: Mixing, errors: Blocks, images: Blocks) -> Blocks:
        """Mixed errors; where the batch is one system, it is mixed as one."""
        if not self.phase.coupled:
            return mix(errors, images)
        found = mix([e.reshape(1, -1) for e in errors], [g.reshape(1, -1) for g in images])
        return [f.view_as(e) for f, e in zip(found, errors, strict=True)]

    def finish(self, z: State) -> State:
        """The certified displacements, and the errors that the last backward pass has found there."""
        return (*z, *_stacked(self.images))


def _stacked(copies: list[Blocks]) -> State:
    if len(copies) == 1:
        return tuple(copies[0])
    return tuple(torch.cat(blocks) for blocks in zip(*copies, strict=True))


SOLVERS: dict[str, Callable[[ModulePhase, State], Solver]] = {
    "anderson": partial(ErrorSweep, mixed=True),
    "sweep": ErrorSweep,
}
