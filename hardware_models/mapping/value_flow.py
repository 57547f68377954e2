"""Paired circuits in time where what moves is not the current into a unit but its value.

Of a resistive network the node's voltage, of an oscillator its phase: x_h and x_u with h = out(x_h), u = out(x_u),

    tau_h dx_h/dt = speed(x_h, P),    tau_u dx_u/dt = speed(x_u, Q)

What is integrated is d, the displacement of x from where the unit rests at the phase's origin, so that a nudge
keeps its digits in float32. P and Q are the currents from all units as they are at this moment, in units of
activity. Latches that hold gates pin units that rest at a bound in the free state; others are clipped as ever.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from physics_ep.blocks import State, flat, unflat
from physics_ep.dynamics.motion import Moment, Motion
from physics_ep.predictive_coding.phase import peak
from physics_ep.system import Phase

from .phase import Blocks, PairedPhase
from .physical_cells import SIDES
from .solvers import Flow, exchange, share, time_step


class Tangent(NamedTuple):
    """How the speeds of all units change with their values, to first order, where these are displaced by d.

    Attributes
    ----------
    own : list of Tensor (rows, ...)
        Change of a unit's speed with its own value, the currents into it held, 1 a time constant.
    steep : list of Tensor (rows, ...)
        Change of what a unit puts out with its value.
    answer : list of Tensor (rows, ...)
        Change of a unit's speed with the current into it.
    product : callable (v) -> list of Tensor
        Changes of all speeds where the values change by v.
    pulled : callable (v) -> Tensor (rows, n_out)
        Change of the current that a nudge drives into the outputs where these move by v.
    """

    own: Blocks
    steep: Blocks
    answer: Blocks
    product: Callable[[Sequence[torch.Tensor]], Blocks]
    pulled: Callable[[torch.Tensor], torch.Tensor]


class ValueCourse:
    """A phase in time: units of h in layers 1 ... L, then of u; rows of stacked nudges in turn.

    Attributes
    ----------
    origin : list of Tensor (rows, ...)
        x at the phase's origin.
    """

    def __init__(self, phase: PairedPhase) -> None:
        self.phase = phase
        system, count = phase.system, phase.depth
        self.units = [*system.amplifiers_h, *system.amplifiers_u]
        self.values = [system.values(k, side, phase) for side in SIDES for k in range(count)]
        self.currents = [self._stacked(p) for p in (*phase.p, *phase.q)]
        self.origin = [self._place(k, p) for k, p in enumerate(self.currents)]
        slopes = [*phase.slopes_h, *phase.slopes_u] if phase.held else [None] * (2 * count)
        # 1 where a unit may move, 0 where a latch pins it; None: all may.
        self.live = [
            self._stacked(slope) if slope is not None and unit.activation.gated else None
            for unit, slope in zip(self.units, slopes, strict=True)
        ]

    def _stacked(self, block: torch.Tensor) -> torch.Tensor:
        return block.repeat(self.phase.copies, *[1] * (block.ndim - 1))

    def _place(self, k: int, current: torch.Tensor) -> torch.Tensor:
        return self.values[k].place(self.units[k].activation.response(current))

    def begin(self, start: State) -> Blocks:
        """d where the currents are those of a start: a state, for a free phase, or displacements."""
        phase, count = self.phase, 2 * self.phase.depth
        is_state = phase.origin is None and len(start) == count
        at = start if is_state else [c + d for c, d in zip(self.currents, start[:count], strict=True)]
        return self.within([self._place(k, p) - x for k, (p, x) in enumerate(zip(at, self.origin, strict=True))])

    def within(self, d: Sequence[torch.Tensor]) -> Blocks:
        """Displacements d cut so that all values lie within their bounds."""
        return [v.within(x, b) for v, x, b in zip(self.values, self.origin, d, strict=True)]

    def _currents_at(self, d: Sequence[torch.Tensor]) -> tuple[Blocks, Blocks, torch.Tensor, Blocks]:
        """At d: how far what units put out has moved, the errors, the outputs' drive, and all currents' changes."""
        count = self.phase.depth
        moved = [
            self._live(k, v.moved(x, b))
            for k, (v, x, b) in enumerate(zip(self.values, self.origin, d, strict=True))
        ]
        errors = [a - b for a, b in zip(moved[:count], moved[count:], strict=True)]
        fed, changes = exchange(self.phase, moved[:count], errors)
        dp = [*(a + f for (a, _), f in zip(changes, fed, strict=True)), *(b for _, b in changes)]
        return moved, errors, changes[-1][0], dp

    def __call__(self, d: Sequence[torch.Tensor]) -> tuple[Blocks, State, torch.Tensor]:
        """Speeds at d, what phases carry, and how far from rest it is, (rows,)."""
        phase, count = self.phase, self.phase.depth
        moved, errors, _, dp = self._currents_at(d)
        slowness = phase.system.slowness
        speed, worst = [], []
        for k, (unit, p, x) in enumerate(zip(self.units, self.currents, self.origin, strict=True)):
            rate = self._live(k, self.values[k].speed(x, d[k], p, dp[k]))
            speed.append(rate if k < count else rate / slowness[k - count])
            miss = peak(self._live(k, unit.displaced(p, dp[k]) - moved[k]))
            # Relative to the currents; of nudged phases, to how far h of the layer has moved.
            worst.append(share(miss, peak(p + dp[k] if phase.nudge is None else moved[k % count])))
        return speed, (*dp, *errors), torch.stack(worst).amax(0)

    def tangent(self, d: Sequence[torch.Tensor]) -> Tangent:
        """Derivative of the speeds at d, with the slopes of one side where units have kinks."""
        phase, count = self.phase, self.phase.depth
        moved, _, top, dp = self._currents_at(d)
        slowness: list[torch.Tensor | float] = [*[1.0] * count, *phase.system.slowness]
        own, answer, steep = [], [], []
        for k, (v, p, x, at, c, slow) in enumerate(
            zip(self.values, self.currents, self.origin, d, dp, slowness, strict=True)
        ):
            with torch.enable_grad():
                # These functions act on each unit alone: a derivative of their sum is one of every unit.
                value, into = at.detach().requires_grad_(), c.detach().requires_grad_()
                (rise,) = torch.autograd.grad(v.moved(x, value).sum(), value)
                by_value, by_current = torch.autograd.grad(v.speed(x, value, p, into).sum(), (value, into))
            steep.append(self._live(k, rise))
            own.append(self._live(k, by_value) / slow)
            answer.append(self._live(k, by_current) / slow)
        bare = copy.copy(phase)
        bare.forcing = bare.fed = None
        at = moved[count - 1], top

        def product(v: Sequence[torch.Tensor]) -> Blocks:
            change = [s * b for s, b in zip(steep, v, strict=True)]
            upper, lower = change[:count], change[count:]
            back = bare.feedback([a - b for a, b in zip(upper, lower, strict=True)], upper)
            driven = [bare.changes(k, change) for k in range(count)]
            back[-1] = bare.wanted_change(*at, change[count - 1], driven[-1][0])
            into = [*(a + f for (a, _), f in zip(driven, back, strict=True)), *(b for _, b in driven)]
            return [o * b + a * i for o, b, a, i in zip(own, v, answer, into, strict=True)]

        def pulled(v: torch.Tensor) -> torch.Tensor:
            return bare.wanted_change(*at, v, torch.zeros_like(v))

        return Tangent(own, steep, answer, product, pulled)

    def coupling(self) -> torch.Tensor:
        """How the currents into all units change with what units put out, (n, n), without a nudge: the same for all
        examples where no route is chosen."""
        bare, count = copy.copy(self.phase), self.phase.depth
        bare.forcing = bare.fed = None
        shapes = [x.shape for x in self.origin]
        size = sum(math.prod(s[1:]) for s in shapes)
        one = torch.eye(size, dtype=self.origin[0].dtype, device=self.origin[0].device)
        put = unflat(one, [torch.Size((size, *s[1:])) for s in shapes])
        back = bare.feedback([a - b for a, b in zip(put[:count], put[count:], strict=True)])
        nothing = [torch.zeros_like(b) for b in put[:count]]
        driven = [bare.changes(k, put) if bare.is_driven(k) else (nothing[k], nothing[k]) for k in range(count)]
        back[-1] = nothing[-1]
        into = [*(a + f for (a, _), f in zip(driven, back, strict=True)), *(b for _, b in driven)]
        return flat(tuple(into)).T.contiguous()

    def _live(self, k: int, block: torch.Tensor) -> torch.Tensor:
        mask = self.live[k]
        return block if mask is None else block * mask


class ValueFlow(Flow):
    """The circuit's own course: what moves is d."""

    patience = 10000  # oscillators leave the ends of their range slowly, and seem to rest meanwhile

    @staticmethod
    def step_of(phase: PairedPhase) -> float:
        return time_step(phase, phase.system.fastest(phase))

    def rest(self) -> State:
        return self.phase.system.rest_state(self.phase.x)

    def begin(self, start: State) -> Blocks:
        self.path = ValueCourse(self.phase)
        return self.path.begin(start)

    def course(self, w: Blocks) -> tuple[Blocks, State, torch.Tensor]:
        return self.path(w)

    def within(self, w: Blocks) -> Blocks:
        return self.path.within(w)


class ValueMotion(Motion):
    """Values of all units in time for `simulate`, in time constants of h. States are told as currents."""

    phase: PairedPhase

    def __init__(self, phase: Phase) -> None:
        super().__init__(phase)
        assert isinstance(phase, PairedPhase)
        self.course = ValueCourse(phase)

    def start(self, z: State) -> State:
        d = self.course.begin(z if self.phase.begun is None else self.phase.start())
        return tuple(x + b for x, b in zip(self.course.origin, d, strict=True))

    def _displaced(self, w: State) -> Blocks:
        return [b - x for x, b in zip(self.course.origin, w, strict=True)]

    def velocity(self, w: State) -> State:
        return tuple(self.course(self._displaced(w))[0])

    def inside(self, w: State) -> State:
        d = self.course.within(self._displaced(w))
        return tuple(x + b for x, b in zip(self.course.origin, d, strict=True))

    def observe(self, w: State, velocity_: State) -> Moment:
        _, z, residual = self.course(self._displaced(w))
        return Moment(self.phase.state(z), self.phase.energy(z), residual, w)
