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

import torch

from ..equilibrium import State
from ..errors import InputError
from ..solvers import Solver
from .phases import Blocks, PredictivePhase, Rest, relative


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
        self.moved: Blocks = [torch.empty(0)] * depth
        self.errors: Blocks = [torch.empty(0)] * depth
        self.changes: list[torch.Tensor | None] = [None] * depth
        self.reached = [False] * depth
        self.moved = [b.contiguous() for b in start[:depth]] if isinstance(start, Rest) else list(start[:depth])
        if isinstance(start, Rest):
            self.errors = [torch.zeros_like(b) for b in self.moved]
        else:
            self.errors, changes = phase.errors(self.moved)
            self.reached = [True] * depth
            self.changes = [phase.change(k, self.moved) for k in range(depth)] if changes is None else list(changes)
        if self.everywhere:
            self.reached = [True] * depth
        # Where each layer's prediction is felt.
        self.above: list[list[int]] = [[] for _ in range(depth)]
        for k in range(depth):
            for source, *_ in phase.links(k):
                self.above[source].append(k)

    def check(self, phase: PredictivePhase) -> None:
        """Raise InputError if the solver does not fit the phase's network."""
        if phase.paired:
            raise InputError(
                "Argument solver must be 'sweep', 'anderson' or 'skew_flow' for a network with the paired energy, "
                f"but was {self.name!r}, which descends the squared-error energy."
            )

    name = "pgd"

    def evaluate(self) -> tuple[State, torch.Tensor]:
        wide = self.phase.wide
        residual = torch.zeros(self.phase.rows, dtype=wide, device=self.phase.x.device)
        last = self.phase.depth - 1
        self.proposals = {k: self._update(k) for k in range(1, last + 1, 2) if self._due(k)}
        if last % 2 == 0:  # an odd output layer: it has the cost to answer before any even layer has anything
            wanted = self.phase.wanted_output(self.moved[last], self.errors[last])
            residual = relative(wanted, self.errors[last].to(wide))
        for k, (_, error) in self.proposals.items():
            residual = torch.maximum(residual, relative(error, self.errors[k]))
        return tuple(self.moved), residual

    def advance(self, active: torch.Tensor) -> None:
        self.spent += 1
        for k, (moved, error) in self.proposals.items():
            self._accept(k, moved, error, active)
        for k in range(0, self.phase.depth, 2):
            if self._due(k):
                self._accept(k, *self._update(k), active)

    def finish(self, z: State) -> State:
        phase = self.phase
        deltas = [phase.answer(k, e, self.changes[k])[1] for k, e in enumerate(self.errors)]
        return phase.packed(self.moved, self.errors, deltas, None)

    def _due(self, k: int) -> bool:
        return k == self.phase.depth - 1 or any(self.reached[j] for j in self.above[k]) or self.reached[k]

    def _accept(self, k: int, moved: torch.Tensor, error: torch.Tensor, active: torch.Tensor) -> None:
        if not bool(active.all()):
            rows = active.view(-1, *[1] * (moved.ndim - 1))
            moved, error = torch.where(rows, moved, self.moved[k]), torch.where(rows, error, self.errors[k])
        self.moved[k], self.errors[k] = moved, error
        self.reached[k] = True

    def _update(self, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(d_k, e_k) after layer k's update; its own da_k and error are brought up to date on the way."""
        phase = self.phase
        if any(self.reached[source] for source, *_ in phase.links(k)):
            change = phase.change(k, self.moved)
            assert change is not None
            self.changes[k] = change
            self.errors[k] = self.moved[k] - phase.shift(k, change)
        if k == phase.depth - 1:
            error = phase.wanted_output(self.moved[k], self.errors[k]).to(phase.dtype)
            shift = self.changes[k]
            return (error if shift is None else shift + error), error
        asked: torch.Tensor | None = None
        for j in self.above[k]:
            if not self.reached[j]:
                continue
            delta = phase.answer(j, self.errors[j], self.changes[j])[1]
            for source, link, w, route in phase.links(j):
                if source == k:
                    back = link.transpose(w, delta, route)
                    asked = back if asked is None else asked + back
        change = self.changes[k]
        if asked is None:
            asked = torch.zeros_like(self.moved[k])
        return self.step(k, change, asked)

    def step(self, k: int, change: torch.Tensor | None, asked: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(d_k, e_k) where D_k = asked."""
        phase = self.phase
        shift = torch.zeros_like(asked) if change is None else phase.shift(k, change)
        moved = shift + asked
        if phase.layers[k].activation_name == "relu" and phase.gates == "free":
            moved = phase.over(torch.maximum, moved, -phase.free.states[k])
        return moved, moved - shift


class ModPgd(Pgd):
    """The paper's modification: the drive and the feedback pass one ReLU together. ReLU and linear layers only.

    With another activation the slope counts twice, once in the update and once in D_k of the layer below (tanh: a
    displacement that is 12 % off).
    """

    name = "mod_pgd"

    def check(self, phase: PredictivePhase) -> None:
        super().check(phase)
        for number, layer in enumerate(phase.layers, 1):
            if not layer.activation.piecewise_linear:
                raise InputError(
                    f"Argument solver must not be 'mod_pgd' with {layer.activation_name} units (layer {number}): "
                    "the paper's rule is for ReLU and linear layers, and would count the slope twice. Use 'sweep' "
                    "or 'pgd'."
                )

    def step(self, k: int, change: torch.Tensor | None, asked: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        phase = self.phase
        if change is None:
            moved = phase.shift(k, asked)
            return moved, moved
        moved = phase.shift(k, change + asked)
        return moved, moved - phase.shift(k, change)


class EverywherePgd(Pgd):
    """`Pgd` that updates every layer from the first iteration on, as published."""

    everywhere = True


class EverywhereModPgd(ModPgd):
    """`ModPgd` that updates every layer from the first iteration on, as published."""

    everywhere = True
