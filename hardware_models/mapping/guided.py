"""Equilibria of a `PairedCircuit` whose copies err apart: followed in time until they are near, then by algebra.

Explicit steps in time come near the state that the circuit settles in within some tens of passes through the
arrays, and take hundreds to its last digits. `Guided` follows each example by Euler's steps until its residual is
`NEAR`, and solves for the fixed point of a sweep from there by Anderson's mixing (Walker and Ni, SIAM J. Numer.
Anal. 49, 2011). What is found is accepted only where it is the state that the course was coming to:

* it is near: the speed of the course is that which the Jacobian of the nodes at the state gives its deviation from
  there, to `LINEAR`, and
* that deviation dies out: Arnoldi's method on this Jacobian, from the deviation, finds no eigenvalue with a
  positive real part. What the course has left of fast modes is little, so that few vectors tell the slow and the
  growing ones: courses that pass a saddle go on.

Examples whose state is not accepted go on in time to a tenth of the residual, and so on; nothing else than steps in
time is left where the tolerance is reached first, or would be in fewer passes than a trial takes. `spent` counts
passes through all arrays, of all kinds. The nodes are RC nodes of one time constant, as in `Euler`;
`stability.certify` judges a state by the substrate's dynamics.

Residuals are looked at where the course, at the pace between the last two looks, comes near or meets the tolerance:
on the CPU too, so that a device, which waits for each look, takes the same steps.
"""

from __future__ import annotations

import math

import torch

from physics_ep.blocks import State, flat, keep, unflat
from physics_ep.reads import needed, read
from physics_ep.relaxation.solvers import least_squares

from .phase import Blocks, PairedPhase
from .rows import compared
from .solvers import Euler, PairedSweep, exchange, unsettled, velocity

NEAR = 1e-2
"""Residual of the course at which algebra is tried first."""
AGAIN = 0.1
"""What the residual must have fallen by before it is tried again."""
LINEAR = 0.3
"""How far the speed of the course may be from what the Jacobian says, over it, where a state is accepted."""
DEPTH = 8
"""Differences that mixing keeps."""
MIXINGS = 50
"""Sweeps of a trial at most."""
HOPE = 12
"""Sweeps within which a trial must have halved its residual."""
VECTORS = (10, 16)
"""Vectors of Arnoldi's method at which the eigenvalues are looked at."""
TRIAL = 16
"""Passes of a trial, about: where the course seems to need no more, it goes on."""
UNSEEN = 12
"""Steps between two looks at most."""
LOOKS = 3
"""Sweeps of a trial after which a device is asked whether it has converged; from that sweep on it is held still."""
WAIT = 40
"""Passes in time after which those that are near do not wait for the others; after a vain trial twice as many."""
PASSES = 4
"""Passes of a step of the classical Runge-Kutta method, which takes over where Euler's steps do not come on."""
MEMORY = 2**30
"""Bytes that the vectors of a trial may take; larger phases are followed in time alone."""


class Guided(Euler):
    """The course in time, and algebra from where it is near."""

    def __init__(self, phase: PairedPhase, start: State) -> None:
        super().__init__(phase, start)
        self.goal = self.time.new_full((phase.rows,), NEAR)
        self.highest = self.lowest = NEAR  # bounds of the goals, which the host knows without asking
        self.waited, self.wait = 0, WAIT
        self.idle = phase.depth  # steps until what moves one end has reached the other
        self.steps, self.last = 0, (math.nan, 0)
        self.pace = self.fastest = 1.0
        self.budget = PASSES * (self.budget or 1)
        vectors = 2 * DEPTH + 2 * (VECTORS[-1] + 2)
        size = sum(b.numel() * b.element_size() for b in self.w[: phase.depth])
        self.tries = vectors * size <= MEMORY

    def evaluate(self) -> tuple[State, torch.Tensor]:
        self.z, self.residual = super().evaluate()
        return self.z, self.residual

    def advance(self, active: torch.Tensor) -> None:
        if self.idle:
            self.idle, self.top_residual = self.idle - 1, None
        elif self._look(active):
            return
        self.steps += 1
        self.waited += 1
        self.spent += PASSES - 1 if self.since >= self.trials else 0
        super().advance(active)

    def _look(self, active: torch.Tensor) -> bool:
        """Look where the course is and when to look again, or try algebra if that is due; whether it was tried."""
        top = self.top_residual
        assert top is not None
        before, made = self.last
        if top > 0 and before > 0 and self.steps > made:
            self.pace = (top / before) ** (1 / (self.steps - made))
            self.fastest = min(self.fastest, self.pace)
        self.last = top, self.steps
        aim = self.tolerance
        if self.tries and steps(min(top, self.highest), aim, self.pace) > TRIAL:
            aim = self.highest
            late = self.waited >= self.wait
            if top <= aim or late:
                near = active & (self.residual <= self.goal)
                some, others = 1.0, 0.0
                if top > self.lowest:
                    some, others = read(near.any(), (active & ~near).any())
                if some and (late or not others):
                    accepted = self._try(near)
                    self.waited, self.wait = 0, WAIT if accepted else 2 * self.wait
                    self.highest, self.lowest = self.highest if others else AGAIN * top, 0.0
                    self.last = math.nan, self.steps  # it was that of others, perhaps
                    return True
        if self.pace < 1:
            self.idle = max(0, math.ceil(min(steps(top, aim, self.fastest), self.steps, UNSEEN)) - 1)
        return False

    def finish(self, z: State) -> State:
        self.time = None  # type: ignore[assignment]  # algebra has no duration
        return z

    # -- algebra -----------------------------------------------------------------------------------------------

    def _try(self, rows: torch.Tensor) -> bool:
        """Put these rows on the states that algebra finds from them, where these are accepted; whether any is."""
        found, residual = self._mixed(rows)
        good = rows & (residual <= self.tolerance)
        if bool(good.any()):
            good &= self._dies_out(found, good)
        self.w = list(keep(good, tuple(found), tuple(self.w)))
        self.goal = torch.where(rows & ~good, AGAIN * self.residual, self.goal)
        return bool(good.any())

    def _mixed(self, rows: torch.Tensor) -> tuple[Blocks, torch.Tensor]:
        """The nodes (dq, dp - dq) that mixing finds, and their residual (B,)."""
        phase, count = self.phase, self.phase.depth
        sweep = PairedSweep(phase, phase.start())
        sweep.one, sweep.folds = None, False
        moved = [phase.moved(k, b) for k, b in enumerate(self.z[:count])]
        shapes = [b.shape for b in moved]
        f = flat(tuple(exchange(phase, moved, list(self.z[2 * count :]))[0]))
        self.spent += 1
        before = gap = f
        df, dg = (f.new_zeros(len(f), DEPTH, f.shape[1]) for _ in range(2))
        best = torch.full_like(self.residual, torch.inf)
        since = torch.zeros_like(rows, dtype=torch.long)
        used = 0
        while True:
            sweep.fed = list(unflat(f, shapes))
            sweep._forward()
            sweep.evaluate()
            self.spent += 1
            nodes, residual = self._nodes(sweep)
            last, gap = gap, flat(tuple(sweep.images)) - f
            since = torch.where(residual < 0.5 * best, torch.zeros_like(since), since + 1)
            best = torch.minimum(best, residual.nan_to_num(nan=torch.inf))
            going = rows & (residual > self.tolerance) & (since < HOPE)
            more = needed(going.any()) if used % LOOKS else bool(going.any())
            if used > MIXINGS or not more:
                return nodes, residual
            step = gap
            if used:
                slot = (used - 1) % DEPTH
                df[:, slot], dg[:, slot] = gap - last, f - before
                kept = min(used, DEPTH)
                gamma, solved = least_squares(df[:, :kept], gap)
                mixed = gap - (gamma[:, None] @ (df[:, :kept] + dg[:, :kept]))[:, 0]
                step = torch.where(solved[:, None], mixed, gap)
            before, used = f, used + 1
            f = torch.where(going[:, None], f + step, f)

    def _nodes(self, sweep: PairedSweep) -> tuple[Blocks, torch.Tensor]:
        """(dq, dp - dq) of a sweep, and the residual (B,) of a course in time at that state."""
        gap, pairs = [], []
        for image, fed, above, below in zip(sweep.images, sweep.fed, sweep.by_h, sweep.by_u, strict=True):
            apart = above - below
            gap.append(fed + apart)
            pairs.append(compared(image + apart, gap[-1]))
        dp = [a + f for a, f in zip(sweep.by_h, sweep.fed, strict=True)]
        at_rest = [compared(b, b) for b in sweep.by_u]
        residual = unsettled(self.phase, (*dp, *sweep.by_u), [*pairs, *at_rest])
        return [*sweep.by_u, *gap], residual

    def _dies_out(self, found: Blocks, rows: torch.Tensor) -> torch.Tensor:
        """Tell for which examples (B,) the course is near the nodes, and its deviation from them dies out."""
        shapes = [b.shape for b in found]
        at = flat(tuple(found))
        v = flat(tuple(self.w)) - at
        size = v.norm(dim=1, keepdim=True)
        finfo = torch.finfo(at.dtype)
        h = finfo.eps**0.5 * torch.maximum(at.norm(dim=1, keepdim=True), size).clamp(min=finfo.tiny)

        def speed(w: torch.Tensor) -> torch.Tensor:
            self.spent += 1
            return flat(tuple(velocity(self.phase, list(unflat(w, shapes)))))

        rest = speed(at)
        basis = [v / size.clamp(min=finfo.tiny)]
        table = v.new_zeros(len(v), VECTORS[-1] + 1, VECTORS[-1])
        growth = v.new_zeros(len(v))
        for n in range(VECTORS[-1]):
            w = (speed(at + h * basis[n]) - rest) / h
            if n == 0:
                followed = flat(tuple(self.speed))
                linear = (size * w - followed).norm(dim=1) <= LINEAR * followed.norm(dim=1)
            before = w.norm(dim=1)
            stacked = torch.stack(basis, 1)
            for _ in range(2):
                onto = (stacked @ w[:, :, None])[:, :, 0]
                table[:, : n + 1, n] += onto
                w = w - (onto[:, None] @ stacked)[:, 0]
            left = w.norm(dim=1)
            left = torch.where(left > finfo.eps**0.5 * before, left, torch.zeros_like(left))  # no more vectors
            table[:, n + 1, n] = left
            basis.append(
                torch.where(left[:, None] > 0, w / left[:, None].clamp(min=finfo.tiny), torch.zeros_like(w))
            )
            if n + 1 in VECTORS:
                small = table[:, : n + 1, : n + 1]
                there = small.isfinite().flatten(1).all(1)
                values = torch.linalg.eigvals(torch.where(there[:, None, None], small, torch.zeros_like(small)))
                growth = torch.where(there, values.real.amax(1), torch.full_like(growth, torch.inf))
                if bool(((growth <= 0) | ~rows).all()):
                    break
        return linear & (growth <= 0)


def steps(top: float, aim: float, pace: float) -> float:
    """Steps until a residual that falls by a factor each meets an aim; infinite where it does not fall."""
    return math.log(aim / top) / math.log(pace) if 0 < pace < 1 and top > 0 else math.inf
