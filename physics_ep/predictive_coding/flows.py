"""Equilibration as physics does it: skew-gradient flow of paired units, and gradient flow of the squared errors."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch

from ..blocks import State
from ..dynamics.motion import Moment, Motion
from ..errors import InputError
from ..relaxation.solvers import GradientFlow, Solver
from .phase import Blocks, PredictivePhase, relative


class Skew(NamedTuple):
    """The values of paired units and those to which they are drawn, a tensor a layer."""

    errors: Blocks
    moved: Blocks
    changes: Blocks
    asked: Blocks


def skew(phase: PredictivePhase, drives: Blocks, pulls: Blocks) -> Skew:
    """State of paired units with r_k displaced by `drives` and p_k - r_k = `pulls`.

    Returns
    -------
    Skew
        Errors h_k - u_k, displacements of h_k, and what da_k and q_k they give.
    """
    errors = [phase.units.answer(k, r, drives[k])[0] for k, r in enumerate(pulls)]
    moved = [phase.units.shift(k, d) + e for k, (d, e) in enumerate(zip(drives, errors, strict=True))]
    changes = [phase.change(k, moved) for k in range(phase.depth)]
    found = [torch.zeros_like(d) if c is None else c for c, d in zip(changes, drives, strict=True)]
    return Skew(errors, moved, found, feedback(phase, errors, moved))


def as_paired(phase: PredictivePhase) -> PredictivePhase:
    """The phase with the paired energy in place of the squared-error energy, for the same network and input."""
    twin = copy.copy(phase)
    twin.units = phase.units.of_energy(paired=True)
    return twin


def skew_start(phase: PredictivePhase, moved: Sequence[torch.Tensor]) -> tuple[Blocks, Blocks]:
    """(drives, pulls) of the displacements that a phase starts from."""
    errors, _ = phase.errors(moved)
    changes = [phase.change(k, moved) for k in range(phase.depth)]
    drives = [torch.zeros_like(d) if c is None else c for c, d in zip(changes, moved, strict=True)]
    # The pull that leaves an error e is sigma^-1(u + e) - sigma^-1(u); e itself to first order in it.
    return drives, errors


class SkewFlow(Solver):
    """Paired units in time, explicit steps of half a time constant, all layers at once (docs/physics.md, Paired
    units):

        tau dp_k/dt = -p_k + a_k + q_k,  h_k = sigma_k(p_k)        a_k = W_k h_{k-1} + b_k
        tau dr_k/dt = -r_k + a_k,        u_k = sigma_k(r_k)        q_k = W_{k+1}^T (h_{k+1} - u_{k+1})
        output layer: linear, with -beta C'(h_L) in the place of q_L

    What is carried is p_k - r_k and the displacement of r_k, so that errors are no differences of states. It solves
    the paired energy, also for a network with the squared one. `iterations` counts steps.
    """

    patience = 2000
    step = 0.5

    def __init__(self, phase: PredictivePhase, start: State) -> None:
        self.phase = phase
        self.twin = as_paired(phase)
        self.spent = 0
        self.drives, self.pulls = skew_start(self.twin, [b.contiguous() for b in start[: phase.depth]])

    def evaluate(self) -> tuple[State, torch.Tensor]:
        self.spent += 1
        self.now = skew(self.twin, self.drives, self.pulls)
        pairs = [
            *zip(self.now.asked, self.pulls, strict=True),
            *zip(self.now.changes, self.drives, strict=True),
        ]
        residual = torch.stack([relative(a, b) for a, b in pairs]).amax(0)
        return tuple(self.now.moved), residual

    def advance(self, active: torch.Tensor) -> None:
        share = self.step * active.to(self.phase.dtype)
        for k, (asked, change) in enumerate(zip(self.now.asked, self.now.changes, strict=True)):
            rows = share.view(-1, *[1] * (asked.ndim - 1))
            self.pulls[k] = self.pulls[k] + rows * (asked - self.pulls[k])
            self.drives[k] = self.drives[k] + rows * (change - self.drives[k])

    def finish(self, z: State) -> State:
        return self.phase.packed(self.now.moved, self.now.errors, self.now.errors, self.drives)


class PredictiveMotion(Motion):
    """A network in time, in its time constants: paired units by the skew-gradient flow, squared errors by descent.

    The variables that move are (r_1 ... r_L, p_1 - r_1 ... p_L - r_L) displaced from the free state, or the
    displacements of h_1 ... h_L.
    """

    phase: PredictivePhase

    def __init__(self, phase: PredictivePhase) -> None:
        super().__init__(phase)
        self.course = Descent(phase)
        # The paired units' flow is one of their drives, not of a state.
        self.flow = None if phase.paired else "gradient"

    def start(self, z: State) -> State:
        phase = self.phase
        begun = z if phase.begun is None else phase.begun
        moved = tuple(b.contiguous() for b in begun[: phase.depth])
        if not phase.paired:
            return moved
        if phase.begun is None:
            drives, pulls = skew_start(phase, moved)
            return (*drives, *pulls)
        return self._internal(phase.begun)

    def _internal(self, begun: State) -> State:
        """Variables for given displacements of h and u; those that stay at a bound keep their free drive."""
        phase = self.phase
        drives: Blocks = []
        pulls: Blocks = []
        for k, layer in enumerate(phase.layers):
            unit, free = layer.activation, phase.units.drives(k)
            at_rest = phase.free_state()[k]
            upper, lower = begun[k] + at_rest, begun[phase.depth + k] + at_rest
            if unit.gated:
                assert unit.inverse is not None
                p, r = (torch.where(unit.response(free) == v, free, unit.inverse(v)) for v in (upper, lower))
            elif unit.inverse is None:
                p, r = upper, lower
            else:
                p, r = unit.inverse(upper), unit.inverse(lower)
            drives.append(r - free)
            pulls.append(p - r)
        return (*drives, *pulls)

    def velocity(self, w: State) -> State:
        phase = self.phase
        if not phase.paired:
            return self.course.force(w)
        drives, pulls = list(w[: phase.depth]), list(w[phase.depth :])
        now = skew(phase, drives, pulls)
        pairs = [*zip(now.changes, drives, strict=True), *zip(now.asked, pulls, strict=True)]
        return tuple(a - b for a, b in pairs)

    def inside(self, w: State) -> State:
        return w

    def observe(self, w: State, velocity: State) -> Moment:
        phase = self.phase
        if not phase.paired:
            return Moment(phase.state(w), phase.energy(w), phase.residual(velocity))
        drives, pulls = list(w[: phase.depth]), list(w[phase.depth :])
        now = skew(phase, drives, pulls)
        z = phase.packed(now.moved, now.errors, now.errors, drives)
        return Moment(phase.state(z), phase.energy(z), phase.residual(velocity), w)


class Descent:
    """What `GradientFlow` needs to know of a phase, the displacements being the unknown."""

    scales = None

    def __init__(self, phase: PredictivePhase) -> None:
        self.phase = phase

    def force(self, z: State) -> State:
        """q_k - e_k of each layer: -dF/dh_k."""
        phase = self.phase
        self.errors, changes = phase.errors(z)
        self.deltas = [
            phase.units.answer(k, e, None if changes is None else changes[k])[1] for k, e in enumerate(self.errors)
        ]
        self.asked = feedback(phase, self.deltas, z)
        return tuple(q - e for q, e in zip(self.asked, self.errors, strict=True))

    def residual(self, force: State) -> torch.Tensor:
        """Residual of each example, (B,), as all solvers of these networks measure it. Dimensionless."""
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
        super().__init__(self.course, tuple(b.contiguous() for b in start[: phase.depth]))

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
