"""The even/odd solvers of Kerjan, Hoier and Scellier 2026 (arXiv 2606.03584, section 3), in displacements.

One iteration updates all even layers, then all odd ones, with step 1; layers count from 1. With a_k the
pre-activation, e_k = h_k - sigma_k(a_k) and D_k = J_{k+1}(h_k)^T e_{k+1}:

    PGD       h_k <- ReLU(ReLU(a_k) + D_k)
    mod-PGD   h_k <- ReLU(a_k + D_k)
    both      h_L <- a_L - beta dC/dh_L(h_L)

As published both run K iterations from the free state, whatever they have reached by then; here the residual says
how far the even layers are from their next update (the odd ones have just had theirs).
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from ..blocks import State
from ..errors import InputError
from ..relaxation.solvers import Solver
from .phase import Blocks, PredictivePhase, Rest, relative
from .responses import over


class Update(NamedTuple):
    """What a layer's update proposes, and what it has come from.

    Attributes
    ----------
    moved, error : d_k and e_k after it.
    change, shift : da_k, and what the prediction changes by with it; None while nothing below has moved.
    """

    moved: torch.Tensor
    error: torch.Tensor
    change: torch.Tensor | None
    shift: torch.Tensor | None


class Pgd(Solver):
    """Even/odd projected gradient descent on the squared-error energy, step 1.

    Layers that the perturbation has not reached yet have nothing to update and are left out; the numbers are the
    same (`everywhere = True` updates them all, as published). On a chain a perturbation descends two layers an
    iteration.
    """

    patience = 10_000
    everywhere = False

    def __init__(self, phase: PredictivePhase, start: State) -> None:
        self.check(phase)
        self.phase = phase
        self.spent = 0
        depth = phase.depth
        self.moved: Blocks = list(start[:depth])
        self.error = self.moved[-1]
        """e_L."""
        self.deltas: list[torch.Tensor | None] = [None] * depth
        self.reached = [False] * depth
        self.proposals: dict[int, Update] = {}
        if not isinstance(start, Rest):
            errors, found = phase.errors(self.moved)
            changes = [phase.change(k, self.moved) if found is None else found[k] for k in range(depth)]
            self.deltas = [
                phase.units.answer(k, e, c)[1] for k, (e, c) in enumerate(zip(errors, changes, strict=True))
            ]
            self.error = errors[-1]
            self.reached = [True] * depth
        elif self.everywhere:
            self.deltas = list(self.moved)
            self.reached = [True] * depth
        # Where each layer's prediction is felt.
        self.above: list[list[int]] = [[] for _ in range(depth)]
        for k in range(depth):
            for source, *_ in phase.links(k):
                self.above[source].append(k)
        # Layers of one half feel those of the other alone, so that what an update replaces is nobody's any more.
        self.halves = all((k - j) % 2 for j in range(depth) for k in self.above[j])
        self.spare: dict[int, torch.Tensor] = {}

    def check(self, phase: PredictivePhase) -> None:
        """Raise InputError if the solver does not fit the phase's network."""
        if phase.paired:
            raise InputError(
                "Argument solver must be 'sweep', 'anderson' or 'skew_flow' for a network with the paired energy, "
                f"but was {self.name!r}, which descends the squared-error energy."
            )

    name = "pgd"

    def evaluate(self) -> tuple[State, torch.Tensor]:
        phase = self.phase
        residual = torch.zeros(phase.rows, dtype=phase.wide, device=phase.x.device)
        last = phase.depth - 1
        self.proposals = {k: self._update(k) for k in range(1, last + 1, 2) if self._due(k)}
        if last % 2 == 0:  # an odd output layer: it has the cost to answer before any even layer has anything
            wanted = phase.wanted_output(self.moved[last], self.error)
            residual = relative(wanted, self.error.to(phase.wide))
        for k, update in self.proposals.items():
            now = self._now(k, update)
            residual = torch.maximum(residual, relative(update.error, now, overwrite=now is not self.moved[k]))
        return tuple(self.moved), residual

    def advance(self, active: torch.Tensor) -> None:
        self.spent += 1
        everyone = bool(active.all())
        for k in list(self.proposals):
            self._accept(k, self.proposals.pop(k), active, everyone)
        for k in range(0, self.phase.depth, 2):
            if self._due(k):
                self._accept(k, self._update(k), active, everyone)

    def finish(self, z: State) -> State:
        phase = self.phase
        for k, update in self.proposals.items():
            self.deltas[k] = self._held(k, update)
        self.deltas[0] = phase.units.gated(0, self.moved[0], None, None)  # which nobody below has asked for
        deltas = [torch.zeros_like(d) if e is None else e for d, e in zip(self.moved, self.deltas, strict=True)]
        phase.space.clear()
        self.spare.clear()
        if phase.routing and self.halves:  # the routes are those of z
            phase.keep_routes(tuple(deltas))
        return phase.packed(self.moved, [self.error], deltas, None)

    def _due(self, k: int) -> bool:
        return k == self.phase.depth - 1 or any(self.reached[j] for j in self.above[k]) or self.reached[k]

    def _accept(self, k: int, update: Update, active: torch.Tensor, everyone: bool) -> None:
        moved, error = update.moved, update.error
        last = k == self.phase.depth - 1
        delta: torch.Tensor | None = None
        if last:
            delta = error
        elif k > 0:
            delta = self.phase.units.gated(k, error, update.change, update.shift, overwrite=everyone)
        if not everyone:
            rows = active.view(-1, *[1] * (moved.ndim - 1))
            if delta is not None:
                delta = torch.where(rows, delta, self._held(k, update))
            moved, error = torch.where(rows, moved, self.moved[k]), torch.where(rows, error, self._now(k, update))
        self.moved[k], self.deltas[k] = moved, delta
        if last:
            self.error = error
        self.reached[k] = True

    def _now(self, k: int, update: Update) -> torch.Tensor:
        """e_k without the update."""
        return self.moved[k] if update.shift is None else self.moved[k] - update.shift

    def _held(self, k: int, update: Update) -> torch.Tensor:
        """delta_k without the update."""
        return self.phase.units.gated(k, self._now(k, update), update.change, update.shift)

    def _update(self, k: int) -> Update:
        phase = self.phase
        change = None
        if any(self.reached[source] for source, *_ in phase.links(k)):
            change = phase.change(k, self.moved)
        shift = None if change is None else self._shift(k, change)
        if k == phase.depth - 1:
            now = self.moved[k] if shift is None else self.moved[k] - shift
            error = phase.wanted_output(self.moved[k], now).to(phase.dtype)
            return Update(error if shift is None else shift + error, error, change, shift)
        asked: torch.Tensor | None = None
        for j in self.above[k]:
            delta = self.deltas[j]
            if delta is None:
                continue
            for source, link, w, route in phase.links(j):
                if source == k:
                    asked = phase.fed_back(asked, link, w, delta, route)
        if asked is None:
            asked = torch.zeros_like(self.moved[k])
        moved = self.step(k, change, shift, asked)
        if shift is None:
            return Update(moved, moved, change, None)
        old = self.deltas[k] if self.halves and self.spent > 0 else None
        fresh = old is None or old.stride() != moved.stride() or old.dtype != moved.dtype or old is self.moved[k]
        return Update(moved, torch.sub(moved, shift, out=None if fresh else old), change, shift)

    def _shift(self, k: int, change: torch.Tensor) -> torch.Tensor:
        """`FreeResponse.shift`, in memory of the layer's own."""
        if not self.phase.units.rectifies(k):
            return self.phase.units.shift(k, change)
        if k not in self.spare:
            self.spare[k] = torch.empty_like(change)
        return self.phase.units.rectified(k, change, out=self.spare[k])

    def step(
        self, k: int, change: torch.Tensor | None, shift: torch.Tensor | None, asked: torch.Tensor
    ) -> torch.Tensor:
        """d_k where D_k = asked, which may be written over."""
        phase = self.phase
        moved = asked if shift is None else asked.add_(shift)
        if phase.units.rectifies(k):
            moved = over(torch.maximum, moved, -phase.free.states[k])
        return moved


class ModPgd(Pgd):
    """The paper's modification: the drive and the feedback pass one ReLU together. ReLU and linear layers only.

    With another activation the slope counts twice, once in the update and once in D_k of the layer below (tanh: a
    displacement that is 12 % off).
    """

    name = "mod_pgd"

    def check(self, phase: PredictivePhase) -> None:
        super().check(phase)
        for number, layer in enumerate(phase.layers, 1):
            if layer.activation_name not in ("relu", "linear"):
                raise InputError(
                    f"Argument solver must not be 'mod_pgd' with {layer.activation_name} units (layer {number}): "
                    "the paper's rule is for ReLU and linear layers, and would count the slope twice. Use 'sweep' "
                    "or 'pgd'."
                )

    def step(
        self, k: int, change: torch.Tensor | None, shift: torch.Tensor | None, asked: torch.Tensor
    ) -> torch.Tensor:
        phase = self.phase
        total = asked if change is None else asked.add_(change)
        if phase.units.rectifies(k):
            return phase.units.rectified(k, total, out=total)
        return phase.units.shift(k, total)


class EverywherePgd(Pgd):
    """`Pgd` that updates every layer from the first iteration on, as published."""

    everywhere = True


class EverywhereModPgd(ModPgd):
    """`ModPgd` that updates every layer from the first iteration on, as published."""

    everywhere = True
