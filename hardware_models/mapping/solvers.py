"""How a `PairedCircuit` settles: sweeps to its fixed point, or its RC nodes in time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.linalg import expm
from scipy.optimize import brentq

from physics_ep.blocks import State
from physics_ep.dynamics.motion import Moment, Motion
from physics_ep.predictive_coding.phase import Rest, part, peak
from physics_ep.reads import needed
from physics_ep.relaxation.solvers import Solver

from .board import loaded
from .phase import Blocks, PairedPhase
from .rows import SideBySide, compared, sizes

Pairs = list[tuple[torch.Tensor, torch.Tensor]]


class Pass(NamedTuple):
    """One pass down: what is fed back to each layer, and the errors h - u."""

    images: Blocks
    errors: Blocks


class PairedSweep(Solver):
    """Fixed-point sweeps: what is fed back, layer by layer from the top, then the drives from the bottom.

    With live gates, sweeps are damped by a half from the second on. The residual compares what is fed back to each
    layer with what its neighbours give, relative to its size: it is 1 before the first sweep. Nothing has moved
    before it, so that no drives are needed; and where gates are held, opposite nudges share the first pass down and
    the first pass up, which are linear. With live gates they share the products of examples in which no unit
    crosses its kink (`opposites`), on the CPU: a device would wait to be told which they are.
    """

    patience = 100

    def __init__(self, phase: PairedPhase, start: State) -> None:
        self.phase = phase
        self.spent = 0
        self.nothing: Blocks = list(start[: phase.depth]) if isinstance(start, Rest) else phase.nothing()
        self.fed: Blocks = self.nothing
        self.images: Blocks = []
        """What the layers above feed back, as last found."""
        self.errors: Blocks = []
        self.damped = not phase.held and not phase.system.smooth
        self.one = phase.half() if phase.mirrored else None
        self.folds = self.one is None and phase.opposed and phase.x.device.type == "cpu"
        """Whether opposite rows are looked for, to map them once: where nothing has moved, and where the pull of
        the cost is linear."""
        self.odd = (
            self.folds and phase.nudge is not None and phase.nudge.cost.linear(phase.nudge.y, 1.0) is not None
        )
        self.driven = [phase.forcing is not None or phase.is_driven(k) for k in range(phase.depth)]
        """Whether anything that moves drives a layer."""
        self.moved: Blocks = self.nothing
        self.by_h: Blocks = self.nothing
        self.by_u: Blocks = self.nothing
        self.dp: Blocks = self.nothing
        self.still = phase.forcing is None
        """Whether nothing has moved yet."""
        if not self.still:
            self._forward()

    def _forward(self) -> None:
        """Drives and activities that follow from what is fed back."""
        first = self.one is not None and self.spent == 1
        phase = self.one if first and self.one is not None else self.phase
        first_up = self.still and self.fed is self.images
        self.still = False
        moved: Blocks = []
        by_h: Blocks = []
        by_u: Blocks = []
        dp: Blocks = []
        for k in range(phase.depth):
            fed = self.fed[k][: phase.rows]
            if self.driven[k]:
                above, below = phase.changes(k, moved)
                dp.append(above + fed)
            else:
                above = below = self.nothing[k][: phase.rows]
                dp.append(fed)
            by_h.append(above)
            by_u.append(below)
            # At rest, what is fed back moves h as it moves h - u: the first pass down has told it.
            told = first_up and phase.system.shared and not self.driven[k]
            moved.append(self.errors[k][: phase.rows] if told else phase.moved(k, dp[k]))
        same = all(a is b for a, b in zip(by_h, by_u, strict=True))
        if first:
            by_u = by_u if same else [_mirrored(b) for b in by_u]
            moved, by_h, dp = ([_mirrored(b) for b in blocks] for blocks in (moved, by_h, dp))
        self.moved, self.by_h, self.dp = moved, by_h, dp
        self.by_u = by_h if same else by_u

    def _down(self, phase: PairedPhase) -> Pass:
        """What layers feed back, from the top, with the drives as they are."""
        rows = phase.rows
        asked: list[torch.Tensor | None] = [None] * phase.depth
        asked[-1] = phase.wanted(self.moved[-1][:rows], self.by_h[-1][:rows], exact=True, still=self.still)
        phase.folding = self.folds and (self.still or self.odd)
        errors: Blocks = [torch.empty(0)] * phase.depth
        images: Blocks = [torch.empty(0)] * phase.depth
        for k in range(phase.depth - 1, -1, -1):
            image = asked[k]
            assert image is not None
            if k < phase.depth - 1:
                image = loaded(image, phase.through("transpose", k))
            if phase.fed is not None:
                image = phase.over(torch.add, image, phase.fed[k])
            images[k] = image
            gap = image if phase.one_drive else image + (self.by_h[k] - self.by_u[k])[:rows]
            resting = self.still or not self.driven[k]
            errors[k] = phase.error(k, None if resting else self.by_u[k][:rows], gap)
            phase.send(k, errors[k], asked, self.moved[k][:rows])
        return Pass(images, errors)

    def evaluate(self) -> tuple[State, torch.Tensor]:
        self.spent += 1
        if self.one is not None and self.spent == 1:
            half = self._down(self.one)
            found = Pass([_mirrored(b) for b in half.images], [_mirrored(b) for b in half.errors])
        else:
            found = self._down(self.phase)
        if self.fed is self.nothing:
            misses = largest = torch.stack([peak(g) for g in found.images])
        else:
            pairs = zip(found.images, self.fed, strict=True)
            goal, at, misses = torch.stack([sizes(g, f) for g, f in pairs], 1)
            largest = torch.maximum(goal, at)
        self.images, self.errors = found.images, found.errors
        return (*self.dp, *self.by_u, *self.errors), part(misses, largest).amax(0)

    def advance(self, active: torch.Tensor) -> None:
        if self.spent == 1 and not needed(~active.all()):
            self.fed = self.images
        else:
            share = active.to(self.phase.dtype) * (0.5 if self.damped and self.spent > 1 else 1.0)
            self.fed = [
                torch.lerp(f, g, share.view(-1, *[1] * (g.ndim - 1)))
                for f, g in zip(self.fed, self.images, strict=True)
            ]
        self._forward()


def _mirrored(rows: torch.Tensor) -> torch.Tensor:
    """Rows of a nudge, followed by those of its opposite, which are the negatives."""
    return torch.cat([rows, -rows])


class Flow(Solver):
    """RC nodes in time, by steps of half a time constant of the classical Runge-Kutta method: it keeps settling
    times and limits of stability. What moves is (dq, dp - dq), so that errors are no differences of states.
    `iterations` counts steps; where these are shorter, more of them may be made.
    """

    patience = 400
    steady = True

    def __init__(self, phase: PairedPhase, start: State) -> None:
        self.phase = phase
        self.spent = 0
        self.step = self.step_of(phase)
        self.budget = math.ceil(phase.system.default_max_iterations * min(STEP / self.step, MOST))
        if phase.origin is None and len(start) != 2 * phase.depth:
            start = self.rest()
        self.time: torch.Tensor = phase.p[0].new_zeros(phase.rows)
        self.w: Blocks = self.begin(start)

    @staticmethod
    def step_of(phase: PairedPhase) -> float:
        """The time step, in time constants of h."""
        return time_step(phase)

    def rest(self) -> State:
        """State in which a free phase begins: empty capacitors."""
        return tuple(torch.zeros_like(s) for s in (*self.phase.p, *self.phase.q))

    def begin(self, start: State) -> Blocks:
        """w of a start: a state, for a free phase, or displacements."""
        return begun(self.phase, start)

    def course(self, w: Blocks) -> tuple[Blocks, State, torch.Tensor]:
        """dw/dt, what phases carry, and the residual."""
        return course_at(self.phase, w)

    def within(self, w: Blocks) -> Blocks:
        """Put the unknown w back within its bounds; without bounds it is returned as it is."""
        return w

    def evaluate(self) -> tuple[State, torch.Tensor]:
        self.spent += 1
        self.speed, z, residual = self.course(self.w)
        return z, residual

    def advance(self, active: torch.Tensor) -> None:
        self.share = self.step * active.to(self.phase.dtype)
        self.time = self.time + self.share
        first = self.speed
        second = self.course(self.stepped(first, 0.5))[0]
        third = self.course(self.stepped(second, 0.5))[0]
        fourth = self.course(self.stepped(third, 1.0))[0]
        slopes = zip(first, second, third, fourth, strict=True)
        self.w = self.stepped([(a + 2 * b + 2 * c + d) / 6 for a, b, c, d in slopes])

    def stepped(self, speed: Blocks, part: float = 1.0) -> Blocks:
        """w after a part of a step at this speed."""
        shares = part * self.share
        return self.within(
            [torch.addcmul(w, shares.view(-1, *[1] * (w.ndim - 1)), v) for w, v in zip(self.w, speed, strict=True)]
        )


class Euler(Flow):
    """RC nodes by Euler's steps in time, for their end and not their course: a quarter of the work of `Flow`.

    Where they settle, the circuit does; where they have not come on in `trials` evaluations, `Flow` takes over.
    """

    trials = 60

    def __init__(self, phase: PairedPhase, start: State) -> None:
        super().__init__(phase, start)
        if phase.origin is None and len(start) != 2 * phase.depth:
            self.w = begun(phase, phase.start())  # nothing fed back: closer than empty capacitors
        self.best, self.since = float("inf"), 0

    def advance(self, active: torch.Tensor) -> None:
        if self.top_residual is not None:  # what nobody has read was foreseen
            self.since = 0 if self.top_residual < 0.99 * self.best else self.since + 1
            self.best = min(self.best, self.top_residual)
        if self.since >= self.trials:
            super().advance(active)
            return
        self.share = self.step * active.to(self.phase.dtype)
        self.time = self.time + self.share
        self.w = self.stepped(self.speed)


STEP = 0.5
"""Time constants of RC nodes."""
MOST = 100
"""Times that a phase may take more steps where these are shorter."""


def time_step(phase: PairedPhase, fastest: float = 1.0) -> float:
    """Step of a circuit followed in time, in time constants of h: half of the fastest node's or amplifier's.

    Less under strong nudges, which the output nodes follow at the rate 1 + beta C''. Of nodes that their units make
    `fastest` times faster it is the whole time constant, if that is less: they are slower where a phase begins.
    """
    device, nudge = phase.system.device_model, phase.nudge
    strength = 0.0 if nudge is None else nudge.most
    lag = device.amplifier_lag
    amplifiers = (lag, lag * (1 + device.amplifier_lag_mismatch)) if lag > 0 else ()
    quickest = min(float(torch.as_tensor(slow).min()) for slow in phase.system.slowness)
    node = min(1.0, quickest) * min(1.0, 1 / (STEP * fastest))
    return STEP * min([node, *amplifiers]) * min(1.0, 2 / (1 + strength))


def unsettled(phase: PairedPhase, z: State, pairs: Sequence[SideBySide]) -> torch.Tensor:
    """Residual (B,): largest disagreement of a pair, relative to the nudge: what is fed back over its largest
    entry, u's displacement over that of its layer. Of free phases, over the internal voltages of the layer."""
    goal, at, most = torch.stack([pair.sizes for pair in pairs], 1)
    if phase.nudge is None:
        size = torch.stack([peak(v) for v in phase.state(z)[: phase.depth]] * 2)
    else:
        size = torch.maximum(goal, at)
        fed, carried = size.chunk(2)
        size = torch.cat([fed, torch.maximum(carried, fed)])
    return share(most, size).amax(0)


def share(miss: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    """An error divided by its scale, 1 at most; 0 where the error is 0, whatever the scale."""
    return torch.where(miss == 0, miss, miss / torch.maximum(size, miss))


def begun(phase: PairedPhase, start: State) -> Blocks:
    """(dq, dp - dq) of a start: a state, for a free phase, or displacements."""
    count = phase.depth
    if phase.origin is None and len(start) == 2 * count:
        start = tuple(s - o for s, o in zip(start, (*phase.p, *phase.q), strict=True))
    dp, dq = start[:count], start[count : 2 * count]
    return [*(b.contiguous() for b in dq), *(a - b for a, b in zip(dp, dq, strict=True))]


def exchange(phase: PairedPhase, moved: Sequence[torch.Tensor], errors: Blocks) -> tuple[Blocks, Pairs]:
    """What is fed back to h of each layer, and the changes of the drives to h and u, beyond the origin's, where
    activities have moved and errors are as given."""
    fed = phase.feedback(errors, moved)
    changes = [phase.changes(k, moved) for k in range(phase.depth)]
    fed[-1] = phase.wanted(moved[-1], changes[-1][0])
    if phase.fed is not None:
        fed = [phase.over(torch.add, f, s) for f, s in zip(fed, phase.fed, strict=True)]
    return fed, changes


def settled_gap(phase: PairedPhase, fed: Blocks, changes: Pairs) -> Blocks:
    """What dp - dq would settle at."""
    if phase.one_drive:
        return fed
    return [(a - b).add_(f) for f, (a, b) in zip(fed, changes, strict=True)]


def rates(phase: PairedPhase, behind_q: Blocks, behind_gap: Blocks) -> tuple[Blocks, Blocks]:
    """d/dt of dq and of dp - dq on RC nodes, in time constants of h, where these are so far behind what they would
    settle at."""
    if phase.system.equal_times:
        return behind_q, behind_gap
    slowness = phase.system.slowness
    rate_gap = [
        g if isinstance(slow, float) and slow == 1 else g + b * (1 - 1 / slow)
        for g, b, slow in zip(behind_gap, behind_q, slowness, strict=True)
    ]
    return [b / slow for b, slow in zip(behind_q, slowness, strict=True)], rate_gap


class Nodes(NamedTuple):
    """RC nodes at one place of a course.

    Attributes
    ----------
    z : State
        What phases carry.
    goals, at : list of Tensor (rows, ...)
        What dp - dq of each layer, and then dq, would settle at, and where they are.
    """

    z: State
    goals: Blocks
    at: Blocks


def nodes_at(phase: PairedPhase, w: Sequence[torch.Tensor]) -> Nodes:
    """The nodes where (dq, dp - dq) is w."""
    count = phase.depth
    dq, gap = list(w[:count]), list(w[count:])
    answers = [phase.answers(k, a, b) for k, (a, b) in enumerate(zip(dq, gap, strict=True))]
    dp, moved, errors = ([answer[n] for answer in answers] for n in range(3))
    fed, changes = exchange(phase, moved, errors)
    return Nodes((*dp, *dq, *errors), [*settled_gap(phase, fed, changes), *(b for _, b in changes)], [*gap, *dq])


def velocity(phase: PairedPhase, w: Sequence[torch.Tensor]) -> Blocks:
    """d/dt of (dq, dp - dq) in time constants of h."""
    nodes = nodes_at(phase, w)
    behind = [a - b for a, b in zip(nodes.goals, nodes.at, strict=True)]
    rate_q, rate_gap = rates(phase, behind[phase.depth :], behind[: phase.depth])
    return [*rate_q, *rate_gap]


def course_at(phase: PairedPhase, w: Sequence[torch.Tensor]) -> tuple[Blocks, State, torch.Tensor]:
    """d/dt of (dq, dp - dq) in time constants of h; what phases carry; and the residual (B,)."""
    nodes = nodes_at(phase, w)
    pairs = [compared(a, b) for a, b in zip(nodes.goals, nodes.at, strict=True)]
    behind = [pair.miss for pair in pairs]
    rate_q, rate_gap = rates(phase, behind[phase.depth :], behind[: phase.depth])
    return [*rate_q, *rate_gap], nodes.z, unsettled(phase, nodes.z, pairs)


class CircuitMotion(Motion):
    """The RC nodes for `simulate`, in time constants of h: (dq, dp - dq)."""

    phase: PairedPhase

    def start(self, z: State) -> State:
        return tuple(begun(self.phase, z if self.phase.begun is None else self.phase.start()))

    def velocity(self, w: State) -> State:
        return tuple(velocity(self.phase, w))

    def inside(self, w: State) -> State:
        return w

    def observe(self, w: State, velocity_: State) -> Moment:
        _, z, residual = course_at(self.phase, w)
        return Moment(self.phase.state(z), self.phase.energy(z), residual, w)


def chain_time(rates: Sequence[float], part: float) -> float:
    """Time after which stages in a row with these rates are within a part of their end: exp(M t) summed."""
    count = len(rates)
    matrix = np.diag(-np.asarray(rates, dtype=np.float64))
    matrix[np.arange(count - 1), np.arange(1, count)] = rates[:-1]

    def left(t: float) -> float:
        return float(expm(matrix * t)[0].sum()) - part

    most = count / min(rates) * (1 - math.log(part))
    return float(brentq(left, 0.0, most, xtol=1e-6 * most))
