"""Equilibration as physics does it: skew-gradient flow of paired units, and gradient flow of the squared errors."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, cast

import torch

from ..equilibrium import State
from ..errors import InputError
from ..solvers import GradientFlow, Solver
from .phases import Blocks, PredictivePhase, relative

if TYPE_CHECKING:
    from ..system import Phase


class SkewFlow(Solver):
    """Paired units in time, explicit steps of half a time constant, all layers at once (physics notes, section 1):

        tau dp_k/dt = -p_k + a_k + q_k,  h_k = sigma_k(p_k)        a_k = W_k h_{k-1} + b_k tau dr_k/dt = -r_k +
        a_k,        u_k = sigma_k(r_k)        q_k = W_{k+1}^T (h_{k+1} - u_{k+1}),  q_L = -beta C'(h_L)

    What is carried is p_k - r_k and the displacement of r_k, so that errors are no differences of states. It
    solves the paired energy, also for a network with the squared one. `iterations` counts steps.
    """

    patience = 2000
    step = 0.5

    def __init__(self, phase: PredictivePhase, start: State) -> None:
        self.phase = phase
        self.twin = copy.copy(phase)
        self.twin.paired = True
        if phase.free.drives is None and not phase.linear:
            self.twin.free = phase.system.run(phase.inputs.x)
        self.spent = 0
        depth = phase.depth
        moved = [b.contiguous() for b in start[:depth]]
        if all(not bool(b.any()) for b in moved):
            self.drives = [torch.zeros_like(b) for b in moved]
            self.pulls = [torch.zeros_like(b) for b in moved]
        else:
            errors, changes = phase.errors(moved)
            found = [phase.change(k, moved) for k in range(depth)] if changes is None else changes
            self.drives = [torch.zeros_like(b) if c is None else c for b, c in zip(moved, found, strict=True)]
            self.pulls = errors
        self._move()

    def _move(self) -> None:
        twin = self.twin
        self.errors: Blocks = [twin.answer(k, r, self.drives[k])[0] for k, r in enumerate(self.pulls)]
        self.moved = [twin.shift(k, d) + e for k, (d, e) in enumerate(zip(self.drives, self.errors, strict=True))]

    def evaluate(self) -> tuple[State, torch.Tensor]:
        self.spent += 1
        twin = self.twin
        changes = [twin.change(k, self.moved) for k in range(twin.depth)]
        self.changes = [torch.zeros_like(d) if c is None else c for c, d in zip(changes, self.drives, strict=True)]
        self.asked = feedback(twin, self.errors, self.moved)
        pairs = [*zip(self.asked, self.pulls, strict=True), *zip(self.changes, self.drives, strict=True)]
        residual = torch.stack([relative(a, b) for a, b in pairs]).amax(0)
        return tuple(self.moved), residual

    def advance(self, active: torch.Tensor) -> None:
        share = self.step * active.to(self.phase.dtype)
        for k, (asked, change) in enumerate(zip(self.asked, self.changes, strict=True)):
            rows = share.view(-1, *[1] * (asked.ndim - 1))
            self.pulls[k] = self.pulls[k] + rows * (asked - self.pulls[k])
            self.drives[k] = self.drives[k] + rows * (change - self.drives[k])
        self._move()

    def finish(self, z: State) -> State:
        return self.phase.packed(self.moved, self.errors, self.errors, self.drives)


class Descent:
    """What `GradientFlow` needs to know of a phase, the displacements being the unknown."""

    def __init__(self, phase: PredictivePhase) -> None:
        self.phase = phase

    def force(self, z: State) -> State:
        """q_k - e_k of each layer: -dF/dh_k."""
        phase = self.phase
        self.errors, changes = phase.errors(z)
        self.deltas = [
            phase.answer(k, e, None if changes is None else changes[k])[1] for k, e in enumerate(self.errors)
        ]
        self.asked = feedback(phase, self.deltas, z)
        return tuple(q - e for q, e in zip(self.asked, self.errors, strict=True))

    def residual(self, force: State) -> torch.Tensor:
        """As of every solver of these networks."""
        pairs = zip(self.asked, self.errors, strict=True)
        return torch.stack([relative(q, e) for q, e in pairs]).amax(0)

    def project(self, z: State) -> State:
        return z


class _Descending(GradientFlow):
    """Gradient flow of the squared-error energy."""

    patience = 5000

    def __init__(self, phase: PredictivePhase, start: State) -> None:
        self.system_phase = phase
        self.course = Descent(phase)
        super().__init__(cast("Phase", self.course), tuple(b.contiguous() for b in start[: phase.depth]))

    def finish(self, z: State) -> State:
        self.course.force(z)
        return self.system_phase.packed(list(z), self.course.errors, self.course.deltas, None)


def descent(phase: PredictivePhase, start: State) -> Solver:
    """Descent along the force with steps from the local curvature: the classical predictive coding network."""
    if phase.paired:
        raise InputError(
            "Argument solver must not be 'gradient_flow' for a network with the paired energy, whose "
            "equilibria are saddles: use 'skew_flow', 'sweep' or 'anderson'."
        )
    return _Descending(phase, start)


def feedback(phase: PredictivePhase, deltas: Any, moved: Any) -> Blocks:
    """q_k of all layers for the errors delta_k of those above, all at once."""
    asked: list[torch.Tensor | None] = [None] * phase.depth
    asked[-1] = phase.wanted_output(moved[-1], deltas[-1]).to(phase.dtype)
    for k in range(phase.depth):
        for source, link, w, route in phase.links(k):
            back = link.transpose(w, deltas[k], route)
            below = asked[source]
            asked[source] = back if below is None else below + back
    return cast(Blocks, asked)
