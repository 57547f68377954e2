"""Solvers of a nudged predictive coding network, all behind `relax` and `EquilibriumPropagation`.

| solver | what it is | energy that it solves |
|---|---|---|
| `sweep` | Picard: errors backward, displacements forward | the network's |
| `anderson` | Anderson(5) on the sweep, from a guess of first or second order (`expansion`) | the network's |
| | where all is linear but the cost: combinations of passes that nudges share (`LinearSpace`) | |
| `pgd`, `mod_pgd` | even, then odd layers, step 1 (Kerjan 2026) | squared; the paper's own rule |
| `skew_flow` | dp/dt = -p + a + q, dq/dt = -q + a, explicit steps of half a time constant | paired |
| `gradient_flow` | descent on E: the classical predictive coding network | squared |

A sweep contracts at the rate beta lambda, lambda the largest eigenvalue of sum_l P_l P_l^T with P_l = dh_L/de_l.
`iterations` counts backward passes, the one that certifies the returned state included, so that K = 1 is a state
that has not moved; what is done at the free state for all nudges together belongs to the first. With gates held, a
state that has not moved has the errors of backprop: agreement then says nothing about equilibria, and the residual
is 1.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from ..blocks import State, tiled
from ..compiling import fusible, spare
from ..reads import likely, needed
from ..relaxation.solvers import Solver, least_squares
from .expansion import each, expands, expansion, scaled
from .flows import SkewFlow, descent
from .phase import Blocks, Displacements, PredictivePhase, Rest, part, peak, relative
from .published import ModPgd, Pgd

HISTORY = 5


class Mixing:
    """Anderson mixing, depth `HISTORY`, of a fixed-point iteration u <- g(u), each row on its own (Walker, Ni
    2011).

    Unknowns come in blocks, (rows, ...), which are never copied together: what is solved is the normal equations.
    """

    def __init__(self) -> None:
        self._last: tuple[Blocks, Blocks] | None = None
        # Differences of successive misses and images, oldest first, and the products of the former.
        self._steps: list[Blocks] = []
        self._moves: list[Blocks] = []
        self._gram: list[list[torch.Tensor]] = []

    def __call__(self, u: Blocks, image: Blocks) -> Blocks:
        """The next u where g(u) = image."""
        wide = torch.promote_types(image[0].dtype, torch.float32)
        dtype, image = image[0].dtype, [g.to(wide) for g in image]
        miss = [g - e for g, e in zip(image, u, strict=True)]
        mixed = image
        if self._last is not None:
            last_miss, last_image = self._last
            # Nobody else holds the last miss: it becomes the step.
            self._record(
                [torch.sub(m, n, out=spare(n)) for m, n in zip(miss, last_miss, strict=True)],
                [g - h for g, h in zip(image, last_image, strict=True)],
            )
            gamma = self._weights(torch.stack([_inner(step, miss) for step in self._steps], 1))
            mixed = [g.clone() for g in image]
            for weight, move in zip(gamma.unbind(1), self._moves, strict=True):
                for g, m in zip(mixed, move, strict=True):
                    g.addcmul_(_column(weight, g), m, value=-1)
        self._last = miss, image
        return [g.to(dtype) for g in mixed]

    def _record(self, step: Blocks, move: Blocks) -> None:
        if len(self._steps) == HISTORY:
            self._steps, self._moves = self._steps[1:], self._moves[1:]
            self._gram = [row[1:] for row in self._gram[1:]]
        self._steps.append(step)
        self._moves.append(move)
        self._gram.append([_inner(step, other) for other in self._steps])

    def _weights(self, right: torch.Tensor) -> torch.Tensor:
        """Gamma (rows, m) of the least |miss - sum_m gamma_m step_m|; 0 where the equations are singular."""
        count = len(self._steps)
        gram = torch.stack([self._gram[max(i, j)][min(i, j)] for i in range(count) for j in range(count)], 1)
        gram = gram.view(-1, count, count)
        # As in `least_squares`: scaled columns do no harm, and the coefficients need few digits.
        finfo = torch.finfo(gram.dtype)
        gram.diagonal(dim1=1, dim2=2).mul_(1 + 10 * finfo.eps).add_(finfo.tiny)
        if count == 1:
            return right / gram[:, 0]
        factor, info = torch.linalg.cholesky_ex(gram)
        gamma = torch.cholesky_solve(right[:, :, None], factor)[:, :, 0]
        return torch.where((info == 0)[:, None], gamma, torch.zeros_like(gamma))


def _inner(a: Blocks, b: Blocks) -> torch.Tensor:
    """Products of rows of blocks, (rows,), in single precision at least."""
    wide = torch.promote_types(a[0].dtype, torch.float32)
    parts = [(x.to(wide) * y.to(wide)).flatten(1).sum(1) for x, y in zip(a, b, strict=True)]
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)


def _column(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Values (rows,) to multiply blocks like this one."""
    return values.to(like.dtype).view(-1, *[1] * (like.ndim - 1))


def _where(active: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Rows of a where `active` (rows,) holds, and of b elsewhere."""
    return torch.where(active.view(-1, *[1] * (a.ndim - 1)), a, b)


class LinearSweep(Solver):
    """Sweeps where both passes are linear: all force is at the outputs, and the first two passes serve every nudge.

    The state's errors are e_k = P_k^T e_L by construction, its displacements those of a forward pass, so the one
    condition left is e_L = -beta dC/dh_L(h_L + d_L), and its miss is the residual. A scaled state costs nothing:
    where `mixed` (Anderson mixing of the outputs' errors), the first displacement is scaled an example to the least
    residual.
    """

    patience = 20

    def __init__(self, phase: PredictivePhase, start: State, mixed: bool = False) -> None:
        self.phase = phase
        self.spent = 0
        self.rest = isinstance(start, Rest)
        rows, n = phase.rows, phase.system.sizes[-1]
        self.error = torch.zeros(rows, n, dtype=phase.wide, device=phase.x.device)
        self.moved: Blocks = list(start[: phase.depth])
        self.scale: torch.Tensor | None = None
        self._mixing = Mixing() if mixed else None
        if not self.rest:
            errors, _ = phase.errors(self.moved)
            # A start that is no sweep's result has forces within, which one backward and forward pass removes.
            self.error = errors[-1].to(phase.wide)
            self._pass(self.error)

    def evaluate(self) -> tuple[State, torch.Tensor]:
        self.spent += 1
        return self._judged()

    @fusible
    def _judged(self) -> tuple[State, torch.Tensor]:
        if self.rest:
            self.image = self.phase.strength() * tiled(self.phase.pull(), self.phase.copies)
            if self.phase.nudge is not None and self.phase.nudge.cost.holds:
                self.image = self.phase.wanted_output(self.error, self.error)
            return self._z(), relative(self.image, self.error)
        output = self.moved[-1].to(self.phase.wide)
        if self.scale is not None:
            output = self.scale * tiled(output, self.phase.copies)
            if self._mixing is not None:
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

    @fusible
    def advance(self, active: torch.Tensor) -> None:
        if self.rest:
            # One backward and one forward pass on the free state's pull; each nudge has it at its own strength.
            self.rest = False
            pull = self.phase.pull()
            errors, _ = self.phase.backward(pull)
            self.moved = self.phase.forward(errors).moved
            self.scale = self.phase.strength()
            self.error = self.scale * tiled(pull, self.phase.copies)
            if self._mixing is not None:
                self._mixing([torch.zeros_like(self.error)], [self.image])
            return
        following = self.image if self._mixing is None else self._mixing([self.error], [self.image])[0]
        self.error = torch.where(active[:, None], following, self.error)
        self._pass(self.error)

    def _pass(self, output: torch.Tensor) -> None:
        self.scale = None
        self.moved = []
        errors, _ = self.phase.backward(output)
        self.moved = self.phase.forward(errors).moved

    def _z(self) -> State:
        """Displacements; the errors that learning needs come with `finish`."""
        return tuple(self.moved if self.scale is None else each(self.moved, self.scale, self.phase.copies))

    def finish(self, z: State) -> State:
        """The certified displacements with the errors of the last backward pass."""
        phase = self.phase
        self.moved = []  # z has them; a large network needs the memory
        errors, deltas = phase.backward(self.image, keep=phase.paired)
        phase.space.clear()
        return phase.packed(list(z[: phase.depth]), errors, deltas, None)


class LinearSpace(Solver):
    """Solver of phases that start from rest in a linear network: one space of output errors for all nudges.

    A backward and a forward pass on vectors p_i (B, n_out) tell their displacements; each nudge takes its own
    combination, with the least miss |e_L + beta dC/dh_L(h_L + d_L)| at the outputs. The next p is what the nudges
    still miss, each in the sense of the first: for the squared error all misses of an example are parallel, since
    a Krylov space does not depend on the shift beta.
    """

    patience = 20
    most = 8
    """Vectors kept, before the nudges' states alone are."""

    def __init__(self, phase: PredictivePhase, start: State) -> None:
        self.phase = phase
        self.spent = 0
        self.start = start
        self.errors: Blocks = []
        self.moved: list[Blocks] = []
        self.weights = torch.zeros(phase.rows, 0, dtype=phase.wide, device=phase.x.device)
        self.active = torch.ones(phase.rows, dtype=torch.bool, device=phase.x.device)

    def evaluate(self) -> tuple[State, torch.Tensor]:
        self.spent += 1
        return self._judged()

    @fusible
    def _judged(self) -> tuple[State, torch.Tensor]:
        phase = self.phase
        if not self.moved:
            self.image = phase.strength() * tiled(phase.pull(), phase.copies)
            self.miss = self.image
            return tuple(self.start[: phase.depth]), relative(self.image, torch.zeros_like(self.image))
        self._fit()
        error, output = self._sums(self.errors), self._outputs()
        self.image = phase.wanted_output(output, error)
        self.miss = self.image - error
        return self._z(), relative(self.image, error)

    @fusible
    def advance(self, active: torch.Tensor) -> None:
        phase = self.phase
        self.active = active
        if not self.moved:
            following = phase.pull()
            weights = phase.strength() * active[:, None]
        else:
            if len(self.moved) == self.most:
                self._collapse()
            miss = torch.where(active[:, None], self.miss, torch.zeros_like(self.miss)).unflatten(
                0, (phase.copies, -1)
            )
            against = (miss * miss[0]).sum(2, keepdim=True) < 0
            following = torch.where(against, -miss, miss).sum(0)
            weights = torch.zeros_like(self.weights[:, :1])
        self.weights = torch.cat([self.weights, weights], 1)
        self.errors.append(following)
        self.moved.append(phase.forward(phase.backward(following)[0]).moved)

    def _fit(self) -> None:
        """One Gauss-Newton step of the weights towards the least miss; where the cost is quadratic, all the way."""
        phase = self.phase
        assert phase.nudge is not None
        error, output = self._sums(self.errors), self._outputs()
        miss = phase.wanted_output(output, error) - error
        there, y = tiled(phase.outputs(), phase.copies) + output, phase.nudge.y
        slopes = []
        for p, moved in zip(self.errors, self.moved, strict=True):
            direction = tiled(moved[-1].to(phase.wide), phase.copies)
            bent = phase.nudge.cost.curvature(there, y, direction)
            slopes.append(-phase.strength() * bent - tiled(p, phase.copies))
        gamma, solved = least_squares(torch.stack(slopes, 1), miss)
        self.weights = torch.where((solved & self.active)[:, None], self.weights - gamma, self.weights)

    def _sums(self, vectors: Blocks) -> torch.Tensor:
        """Each nudge's combination of vectors of one batch, (rows, ...)."""
        total: torch.Tensor | None = None
        for weight, vector in zip(self.weights.unbind(1), vectors, strict=True):
            part = weight.to(vector.dtype).view(self.phase.copies, -1, *[1] * (vector.ndim - 1))
            total = part * vector if total is None else total.addcmul_(part, vector)
        assert total is not None
        return total.flatten(0, 1)

    def _outputs(self) -> torch.Tensor:
        return self._sums([moved[-1].to(self.phase.wide) for moved in self.moved])

    def _z(self) -> State:
        return tuple(self._sums(list(blocks)) for blocks in zip(*self.moved, strict=True))

    def _collapse(self) -> None:
        """Keep the states that the nudges have reached, and forget what they are made of."""
        copies = self.phase.copies
        errors, moved = self._sums(self.errors).chunk(copies), [d.chunk(copies) for d in self._z()]
        self.errors = list(errors)
        self.moved = [[blocks[j] for blocks in moved] for j in range(copies)]
        own = torch.eye(copies, dtype=self.weights.dtype, device=self.weights.device)
        self.weights = own.repeat_interleave(len(errors[0]), 0)

    def finish(self, z: State) -> State:
        """Pack the displacements z with the errors of a last backward pass on their image, and free the space."""
        phase = self.phase
        self.moved = []  # z has their sums; a large network needs the memory
        errors, deltas = phase.backward(self.image, keep=phase.paired)
        phase.space.clear()
        return phase.packed(list(z), errors, deltas, None)


class Sweep(Solver):
    """Sweeps where passes curve: every layer's error is a variable; `mixed`: with Anderson mixing of all of them.

    With live gates of piecewise linear layers, sweeps are damped by a half from the second on: undamped they jump
    between the sides of kinks.
    """

    patience = 100

    def __init__(self, phase: PredictivePhase, start: State, mixed: bool = False) -> None:
        self.phase = phase
        self.spent = 0
        self.rest = isinstance(start, Rest)
        self.displacements = Displacements(list(start[: phase.depth]))
        self.errors: Blocks = self.displacements.moved
        self._mixing = Mixing() if mixed else None
        self.damped = phase.gates == "live" and phase.system.piecewise_linear
        # The first backward pass of the squared energy is linear in the pull, so all nudges share it.
        self.shared = self.rest and not phase.paired and phase.nudge is not None
        if not self.rest:
            self.errors, changes = phase.errors(self.displacements.moved)
            self.displacements = Displacements(self.displacements.moved, changes)

    def evaluate(self) -> tuple[State, torch.Tensor]:
        self.spent += 1
        return self._judged()

    @fusible
    def _judged(self) -> tuple[State, torch.Tensor]:
        phase, now = self.phase, self.displacements
        if self.rest and self.shared:
            self.images, self.deltas = phase.backward(phase.pull())
            # Nothing answers yet, in whichever layer: all miss the whole of what they are asked for.
            asked = phase.strength()[:, 0].abs() * tiled(peak(self.images[-1]), phase.copies)
            residual = part(asked, asked)
        else:
            output = phase.wanted_output(now.moved[-1], self.errors[-1])
            self.images, self.deltas = phase.backward(output, now.changes, slopes=now.slopes)
            self.by_block = torch.stack([relative(g, e) for g, e in zip(self.images, self.errors, strict=True)])
            residual = self.by_block.amax(0)
        return tuple(now.moved), residual

    @fusible
    def advance(self, active: torch.Tensor) -> None:
        begins, self.rest = self.rest, False
        known: dict[int, torch.Tensor] = {}
        if begins and self.shared:
            if self._mixing is not None and expands(self.phase):
                following, known = expansion(self.phase, self.images, self.deltas, self.tolerance)
            else:
                following, known = scaled(self.phase, self.images)
        elif self._mixing is not None:
            following = self._mixing(self.errors, self.images)
        elif self.damped and not begins:
            following = [torch.lerp(e, g, 0.5) for e, g in zip(self.errors, self.images, strict=True)]
        else:
            following = self.images
        moving = active.all()
        if not likely(moving) if known else needed(~moving):
            following = [_where(active, g, e) for g, e in zip(following, self.errors, strict=True)]
            # What is known is known at the beginning, where nothing has moved.
            known = {k: _where(active, change, torch.zeros_like(change)) for k, change in known.items()}
        self.errors = following
        self.displacements = self.phase.forward(following, known)

    def finish(self, z: State) -> State:
        if self.rest and self.shared:
            scale, copies = self.phase.strength(), self.phase.copies
            self.images, self.deltas = each(self.images, scale, copies), each(self.deltas, scale, copies)
        self.phase.space.clear()
        return self.phase.packed(self.displacements.moved, self.images, self.deltas, self.displacements.changes)


def sweep(phase: PredictivePhase, start: State, mixed: bool = False) -> Solver:
    """Picard iteration, in the outputs alone where that is all there is; `mixed`: with Anderson acceleration."""
    if not phase.linear:
        return Sweep(phase, start, mixed)
    shared = mixed and isinstance(start, Rest) and phase.nudge is not None and not phase.exact_output
    return LinearSpace(phase, start) if shared else LinearSweep(phase, start, mixed)


anderson = partial(sweep, mixed=True)
"""Anderson acceleration of `sweep`."""

SOLVERS: dict[str, Callable[[PredictivePhase, State], Solver]] = {
    "anderson": anderson,
    "sweep": sweep,
    "mod_pgd": ModPgd,
    "pgd": Pgd,
    "skew_flow": SkewFlow,
    "gradient_flow": descent,
}
