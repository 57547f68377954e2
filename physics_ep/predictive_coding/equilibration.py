"""Solvers of a nudged predictive coding network, all behind `relax` and `EquilibriumPropagation`.

| solver | what it is | energy that it solves |
|---|---|---|
| `sweep` | Picard: errors backward, displacements forward | the network's |
| `anderson` | Anderson(5) on the sweep; where all is linear but the cost, in the outputs alone | the network's |
| `pgd`, `mod_pgd` | even, then odd layers, step 1 (Kerjan 2026) | squared; the paper's own rule |
| `skew_flow` | dp/dt = -p + a + q, dq/dt = -q + a, explicit steps of half a time constant | paired |
| `gradient_flow` | descent on E: the classical predictive coding network | squared |

A sweep contracts at the rate beta lambda, lambda the largest eigenvalue of sum_l P_l P_l^T with P_l = dh_L/de_l.
`iterations` counts backward passes, the one that certifies the returned state included, so that K = 1 is a state
that has not moved. With gates held, its errors are those of backprop: agreement then says nothing about
equilibria, and the residual is 1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..equilibrium import State
from ..solvers import Solver, least_squares
from .flows import SkewFlow, descent
from .phases import Blocks, PredictivePhase, Rest, relative
from .published import ModPgd, Pgd

HISTORY = 5


class Forward(Solver):
    """The free phase: the forward pass is its equilibrium, E = 0."""

    def __init__(self, phase: PredictivePhase, start: State) -> None:
        self.phase = phase
        self.spent = 0

    def evaluate(self) -> tuple[State, torch.Tensor]:
        self.spent += 1
        return self.phase.free_state(), torch.zeros(
            len(self.phase.x), dtype=self.phase.wide, device=self.phase.x.device
        )

    def advance(self, active: torch.Tensor) -> None:
        return None


class Mixing:
    """Anderson mixing, depth `HISTORY`, of a fixed-point iteration u <- g(u), each row on its own (Walker, Ni
    2011)."""

    def __init__(self) -> None:
        self._count = 0
        self._miss = self._image = self._steps = self._moves = torch.empty(0)

    def __call__(self, u: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """The next u, (rows, n), where g(u) = image."""
        miss = image - u
        mixed = image
        if self._count == 1:
            # Differences of successive misses and images, the newest overwriting the oldest.
            self._steps = u.new_empty(len(u), HISTORY, u.shape[1])
            self._moves = torch.empty_like(self._steps)
        if self._count:
            slot, used = (self._count - 1) % HISTORY, min(self._count, HISTORY)
            torch.sub(miss, self._miss, out=self._steps[:, slot])
            torch.sub(image, self._image, out=self._moves[:, slot])
            gamma, solved = least_squares(self._steps[:, :used], miss)
            mixed = torch.where(solved[:, None], image - (gamma[:, None] @ self._moves[:, :used])[:, 0], image)
        self._miss, self._image = miss, image
        self._count += 1
        return mixed


class LinearSweep(Solver):
    """Sweeps where both passes are linear: all force is at the outputs, and the first two passes serve every nudge.

    The state's errors are e_k = P_k^T e_L by construction, its displacements those of a forward pass, so the one
    condition left is e_L = -beta dC/dh_L(h_L + d_L), and its miss is the residual. A scaled state costs nothing:
    with mixing, the first displacement is scaled an example to the least residual.
    """

    patience = 20
    mixed = False

    def __init__(self, phase: PredictivePhase, start: State) -> None:
        self.phase = phase
        self.spent = 0
        self.rest = isinstance(start, Rest)
        rows, n = phase.rows, phase.system.sizes[-1]
        self.error = torch.zeros(rows, n, dtype=phase.wide, device=phase.x.device)
        self.moved: Blocks = list(start[: phase.depth])
        self.scale: torch.Tensor | None = None
        self._mixing = Mixing() if self.mixed else None
        if not self.rest:
            errors, _ = phase.errors(self.moved)
            # A start that is no sweep's result has forces within, which one backward and forward pass removes.
            self.error = errors[-1].to(phase.wide)
            self._pass(self.error)

    def evaluate(self) -> tuple[State, torch.Tensor]:
        self.spent += 1
        if self.rest:
            self.image = self.phase.strength() * self.phase.pull().repeat(self.phase.copies, 1)
            if self.phase.nudge is not None and self.phase.nudge.cost.holds:
                self.image = self.phase.wanted_output(self.error, self.error)
            return self._z(), relative(self.image, self.error)
        output = self.moved[-1].to(self.phase.wide)
        if self.scale is not None:
            output = self.scale * output.repeat(self.phase.copies, 1)
            if self.mixed:
                output = self._shrunk(output)
        self.image = self.phase.wanted_output(output, self.error)
        return self._z(), relative(self.image, self.error)

    def _shrunk(self, output: torch.Tensor) -> torch.Tensor:
        """Scale error and displacement, a factor an example, to the least miss |e_L - wanted| (one secant step)."""
        miss = self.phase.wanted_output(output, self.error) - self.error
        begun = self.phase.wanted_output(torch.zeros_like(output), torch.zeros_like(output))
        # The miss is begun at factor 0 and `miss` at 1, nearly linear between.
        change = miss - begun
        size = change.square().sum(1, keepdim=True)
        factor = -(begun * change).sum(1, keepdim=True) / size.clamp_min(torch.finfo(size.dtype).tiny)
        factor = torch.where(size > 0, factor, torch.ones_like(factor))
        assert self.scale is not None
        self.scale = self.scale * factor
        self.error = self.error * factor
        return output * factor

    def advance(self, active: torch.Tensor) -> None:
        if self.rest:
            # One backward and one forward pass on the free state's pull; each nudge has it at its own strength.
            self.rest = False
            pull = self.phase.pull()
            errors, _ = self.phase.backward(pull)
            self.moved, _ = self.phase.forward(errors)
            self.scale = self.phase.strength()
            self.error = self.scale * pull.repeat(self.phase.copies, 1)
            if self._mixing is not None:
                self._mixing(torch.zeros_like(self.error), self.image)
            return
        following = self.image if self._mixing is None else self._mixing(self.error, self.image)
        self.error = torch.where(active[:, None], following, self.error)
        self._pass(self.error)

    def _pass(self, output: torch.Tensor) -> None:
        self.scale = None
        self.moved = []
        errors, _ = self.phase.backward(output)
        self.moved, _ = self.phase.forward(errors)

    def _z(self) -> State:
        """Displacements; the errors that learning needs come with `finish`."""
        return tuple(self.moved if self.scale is None else _each(self.moved, self.scale, self.phase.copies))

    def finish(self, z: State) -> State:
        """The certified displacements with the errors of the last backward pass."""
        phase = self.phase
        self.moved = []  # z has them; a large network needs the memory
        errors, deltas = phase.backward(self.image, keep=phase.paired)
        return phase.packed(list(z[: phase.depth]), errors, deltas, None)


class LinearAnderson(LinearSweep):
    """`LinearSweep` with Anderson mixing of the outputs' errors."""

    mixed = True


class Sweep(Solver):
    """Sweeps where passes curve: every layer's error is a variable.

    With free gates of piecewise linear layers, sweeps are damped by a half from the second on: undamped they jump
    between the sides of kinks.
    """

    patience = 100
    mixed = False

    def __init__(self, phase: PredictivePhase, start: State) -> None:
        self.phase = phase
        self.spent = 0
        self.changes: Blocks | None = None
        self.rest = isinstance(start, Rest)
        self.moved: Blocks = list(start[: phase.depth])
        self.errors: Blocks = self.moved
        self._mixing = Mixing() if self.mixed else None
        self.damped = phase.gates == "free" and phase.system.piecewise_linear
        if not self.rest:
            self.errors, self.changes = phase.errors(self.moved)

    def evaluate(self) -> tuple[State, torch.Tensor]:
        self.spent += 1
        phase = self.phase
        if self.rest and not phase.paired and phase.nudge is not None:
            # The first backward pass is linear in the pull, so all nudges share it.
            errors, deltas = phase.backward(phase.pull())
            scale = phase.strength()
            self.images, self.deltas = _each(errors, scale, phase.copies), _each(deltas, scale, phase.copies)
        else:
            output = phase.wanted_output(self.moved[-1], self.errors[-1])
            self.images, self.deltas = phase.backward(output, self.changes)
        residual = torch.stack([relative(g, e) for g, e in zip(self.images, self.errors, strict=True)]).amax(0)
        return (*self.moved, *self.deltas), residual

    def advance(self, active: torch.Tensor) -> None:
        following = self.images
        if self._mixing is not None:
            flat = torch.cat([e.flatten(1) for e in self.errors], 1).to(self.phase.wide)
            image = torch.cat([g.flatten(1) for g in self.images], 1).to(self.phase.wide)
            mixed = self._mixing(flat, image).to(self.phase.dtype)
            sizes = [g[0].numel() for g in self.images]
            following = [m.view_as(g) for m, g in zip(mixed.split(sizes, 1), self.images, strict=True)]
        elif self.damped and not self.rest:
            following = [torch.lerp(e, g, 0.5) for e, g in zip(self.errors, self.images, strict=True)]
        self.rest = False
        if not bool(active.all()):
            following = [
                torch.where(active.view(-1, *[1] * (g.ndim - 1)), g, e)
                for g, e in zip(following, self.errors, strict=True)
            ]
        self.errors = following
        self.moved, self.changes = self.phase.forward(following)

    def finish(self, z: State) -> State:
        return self.phase.packed(self.moved, self.images, self.deltas, self.changes)


class AndersonSweep(Sweep):
    """`Sweep` with Anderson mixing of all errors."""

    mixed = True


def sweep(phase: PredictivePhase, start: State) -> Solver:
    """Picard iteration, in the outputs alone where that is all there is."""
    return LinearSweep(phase, start) if phase.linear else Sweep(phase, start)


def anderson(phase: PredictivePhase, start: State) -> Solver:
    """Anderson acceleration of `sweep`."""
    return LinearAnderson(phase, start) if phase.linear else AndersonSweep(phase, start)


def _each(blocks: Blocks, scale: torch.Tensor, copies: int) -> Blocks:
    """Blocks of one batch at the strength of each stacked nudge."""
    factors = scale.to(blocks[0].dtype).view(copies, -1)
    return [(factors.view(*factors.shape, *[1] * (b.ndim - 1)) * b).flatten(0, 1) for b in blocks]


SOLVERS: dict[str, Callable[[PredictivePhase, State], Solver]] = {
    "anderson": anderson,
    "sweep": sweep,
    "mod_pgd": ModPgd,
    "pgd": Pgd,
    "skew_flow": SkewFlow,
    "gradient_flow": descent,
}
