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
from .passes import Blocks, Learnt
from .phase import Errors, ModulePhase, rows


class ErrorSweep(Solver):
    """Sweeps of the errors of all units; `mixed`: with Anderson mixing.

    Stacked nudges are swept one after the other, so that no two are in memory with all their intermediate values.
    """

    patience = 30

    def __init__(self, phase: ModulePhase, start: State, mixed: bool = False) -> None:
        self.phase = phase
        self.spent = 0
        self.start = start
        self.errors: list[Blocks] = []
        """Errors of each nudge; none at rest, and after the first sweep, when they are multiples of `pulls`."""
        if not isinstance(start, Rest):
            self.errors = [phase.errors_of(copy, start) for copy in range(phase.copies)]
        self.pulls: list[Blocks] = []
        """DC/dh_k at rest, of each nudge."""
        self.images: list[Blocks] = []
        self.whole: Blocks = []
        """Images of all nudges, stacked."""
        self.learnt: list[Learnt | None] = []
        self._mixing = [Mixing() for _ in range(phase.copies)] if mixed else None

    def evaluate(self) -> tuple[State, torch.Tensor]:
        self.spent += 1
        phase = self.phase
        residuals = []
        if not self.errors and not self.pulls:
            self.pulls = phase.pulls()
            return self.start[: phase.depth], phase.asks(self.pulls[0]).repeat(phase.copies)
        learns = phase.balanced and self.spent == phase.free.graph.sweeps
        joint = learns and phase.opposed()
        like = [(phase.copies * len(s), s) for s in phase.free.states]
        moved, images = ([s.new_empty((n, *s.shape[1:])) for n, s in like] for _ in range(2))
        following: list[Blocks] = []
        self.learnt = []
        parts = zip(self._parts(moved), self._parts(images), strict=True)
        for copy, (change, image) in enumerate(parts):
            onto = self.learnt[0] if copy and joint else None
            residual, learnt = phase.asked(copy, self._errors(copy), learns, change, image, onto)
            residuals.append(residual)
            following.append(image)
            self.learnt = [learnt] * 2 if onto else [*self.learnt, learnt]
        self.whole, self.images = images, following
        self.by_block = torch.cat(residuals, 1)
        return tuple(moved), self.by_block.amax(0)

    def _parts(self, blocks: Blocks) -> list[Blocks]:
        """The blocks of each nudge."""
        return [list(parts) for parts in zip(*[b.chunk(self.phase.copies) for b in blocks], strict=True)]

    def _errors(self, copy: int) -> Errors:
        if self.errors:
            return self.errors[copy].__getitem__
        beta, pull = -self.phase.strengths()[copy], self.pulls[copy]
        return lambda k: rows(beta, pull[k]) * pull[k]

    def _begun(self) -> list[Blocks]:
        """Errors of each nudge after the first sweep."""
        return [[self._errors(copy)(k) for k in range(self.phase.depth)] for copy in range(self.phase.copies)]

    def advance(self, active: torch.Tensor) -> None:
        if not self.images:
            return  # the first errors are multiples of what pulls at rest
        errors = self.errors or self._begun()
        following = self.images
        if self._mixing is not None:
            mixes = zip(self._mixing, errors, self.images, strict=True)
            following = [self._mixed(mix, old, images) for mix, old, images in mixes]
        if not bool(active.all()):
            parts = active.chunk(self.phase.copies)
            following = [
                [torch.where(a.view(-1, *[1] * (g.ndim - 1)), g, e) for g, e in zip(new, old, strict=True)]
                for a, new, old in zip(parts, following, errors, strict=True)
            ]
        self.errors = following

    def _mixed(self, mix: Mixing, errors: Blocks, images: Blocks) -> Blocks:
        """Mixed errors; where the batch is one system, it is mixed as one."""
        if not self.phase.coupled:
            return mix(errors, images)
        found = mix([e.reshape(1, -1) for e in errors], [g.reshape(1, -1) for g in images])
        return [f.view_as(e) for f, e in zip(found, errors, strict=True)]

    def finish(self, z: State) -> State:
        """The certified displacements; the errors that the last backward pass found are kept for the gradient."""
        phase = self.phase
        if not self.images:
            return (*z, *_stacked(self._begun()))
        if phase.balanced:
            phase.free.graph.sweeps = self.spent
            phase.keep_learnt(self.images, self.learnt)
        return (*z, *self.whole)


def _stacked(copies: list[Blocks]) -> State:
    if len(copies) == 1:
        return tuple(copies[0])
    return tuple(torch.cat(blocks) for blocks in zip(*copies, strict=True))


SOLVERS: dict[str, Callable[[ModulePhase, State], Solver]] = {
    "anderson": partial(ErrorSweep, mixed=True),
    "sweep": ErrorSweep,
}
