"""How a FitzHugh-Nagumo medium settles: Newton's method, down the reduced energy or along a branch, or in time."""

from __future__ import annotations

from collections.abc import Callable

import torch

from physics_ep.blocks import State, flat, keep
from physics_ep.dynamics.integrators import TABLEAUS, step
from physics_ep.dynamics.motion import Motion
from physics_ep.nudging import Nudge
from physics_ep.reads import likely
from physics_ep.relaxation.solvers import Solver

from .phase import MediumPhase


class ReducedNewton(Solver):
    """Newton's method down the reduced energy max_v F, which no stationary state stops but a minimum.

    A step solves (H + shift on u) dz = force: v is slaved to u, and u takes an implicit Euler step of 1 / shift
    along the gradient of the reduced energy (pseudo-transient continuation, Kelley and Keyes, SIAM J. Numer. Anal.
    35 (1998) 508). The shift begins with the largest slope of the reaction, where the step is a convex problem; it
    falls at least as fast as the residual while steps keep what they promise, to quadratic convergence, but never
    below what makes the shifted reduced Hessian positive (its inertia is counted), so that each step leads
    downwards. Steps that lower the reduced energy by less than a tenth of their promise are taken back, and the
    shift is raised.
    """

    patience = 150
    fall, rise = 0.3, 4.0

    def __init__(self, phase: MediumPhase, start: State) -> None:
        self.phase = phase
        self.z = start
        self.spent = 0
        steepest = phase.cubic.steepest().expand(start[0].shape)
        self.convex = steepest.flatten(1).amax(1).clamp(min=0.1)
        self.shift = self.convex
        self._base: tuple[State, State, torch.Tensor, torch.Tensor] | None = None
        self._promise = torch.zeros_like(self.convex)
        self._slaved = False

    def evaluate(self) -> tuple[State, torch.Tensor]:
        self.spent += 1
        self._force = self.phase.force(self.z)
        self._residual = self.phase.residual(self._force)
        return self.z, self._residual

    def advance(self, active: torch.Tensor) -> None:
        energy = self.phase.merit(self.z)
        z, force, residual = self.z, self._force, self._residual
        if self._base is not None:
            before, push, merit, worst = self._base
            finfo = torch.finfo(energy.dtype)
            size = energy.abs() + sum(b.square().flatten(1).sum(1) for b in self.z)
            slack = 16 * finfo.eps * size
            # Where rounding hides what a step gains, the residual tells; and the first v need not have been slaved
            # to u, so that its energy is no bound.
            blind, told = self._promise <= 1e3 * slack, (merit - energy) / self._promise
            good = torch.where(blind, residual <= worst + slack, told >= 0.1)
            good = good if self._slaved else torch.isfinite(residual)
            trusted = blind | (told >= 0.7) | (not self._slaved)
            self._slaved = True
            ratio = torch.where(trusted, (residual / worst.clamp_min(finfo.tiny)).clamp(max=self.fall), 1.0)
            self.shift = torch.where(good, self.shift * ratio, self._raised())
            z, force = keep(good, z, before), keep(good, force, push)
            energy, residual = torch.where(good, energy, merit), torch.where(good, residual, worst)
        for _ in range(4):  # which lead from any shift to a convex problem
            uphill = active & (self.phase.ascends(z, self.shift))
            if not bool(uphill.any()):
                break
            self.shift = torch.where(uphill, torch.minimum(self._raised(), self.convex), self.shift)
        move = self.phase.newton_step(z, force, self.shift)
        gained = (force[0] * move[0]).flatten(1).sum(1)
        self._promise = 0.5 * (gained + self.shift * move[0].square().flatten(1).sum(1))
        self._base = (z, force, energy, residual)
        self.z = keep(active, tuple(s + d for s, d in zip(z, move, strict=True)), self.z)

    def _raised(self) -> torch.Tensor:
        return torch.maximum(self.rise * self.shift, 0.05 * self.convex)


class DisplacedNewton(Solver):
    """Newton's method from an equilibrium to the one that a nudge moves it to, whatever its stability.

    What is meant is the end of the branch of equilibria under t times the nudge, from t = 0 to 1. Where a step
    corrects the one before by more than a quarter, t was too large (Deuflhard, Newton Methods for Nonlinear
    Problems (2004), section 5.1), or half of what it added is not nearly stationary half-way in t, t was too large:
    beyond a fold the state on its other side attracts Newton's method from afar. It is halved from the last t that
    went well. Where t cannot grow any more, the branch has a fold and ends before this nudge, and the status says
    so. Most nudges are taken at once.
    """

    patience = 150
    margin, shortest = 0.25, 1e-3

    def __init__(self, phase: MediumPhase, start: State) -> None:
        self.phase = phase
        self.z = start
        self.spent = 0
        one = torch.ones_like(start[0].real.flatten(1)[:, 0])
        self._known: State = tuple(torch.zeros_like(s) for s in start)
        self._reached, self._share = 0 * one, one
        self._first = torch.full_like(one, torch.inf)
        self._ended = torch.zeros_like(one, dtype=torch.bool)
        # Residual under the whole nudge at the last state that went well, and where that is the present one.
        self._pull, self._fresh = 0 * one, torch.ones_like(self._ended)

    def evaluate(self) -> tuple[State, torch.Tensor]:
        self.spent += 1
        self._force = self.phase.force(self.z)
        residual = self.phase.residual(self._force)
        self._pull = torch.where(self._fresh, residual, self._pull)
        leapt = (self._share == 1) & (residual <= 0.1 * self._pull) & ~self._ended & ~self._straight(self.z)
        if not likely(~leapt.any()):
            self._retreat(leapt)
            self.z = keep(leapt, self._known, self.z)
            self._force = self.phase.force(self.z)
            residual = self.phase.residual(self._force)
        return self.z, residual

    def _straight(self, z: State) -> torch.Tensor:
        """Whether half the way from the last good state meets most of half the step of the nudge, (B,)."""
        nudge = self.phase.nudge
        if nudge is None:
            return torch.ones_like(self._ended)
        phase = self.phase.nudged(Nudge(nudge.cost, nudge.y, nudge.beta * (0.5 * (self._reached + self._share))))
        middle = tuple(0.5 * (a + b) for a, b in zip(self._known, z, strict=True))
        missing, pull = (flat(phase.force(at)).abs().amax(1) for at in (middle, self._known))
        return missing <= self.margin * pull

    def _retreat(self, rows: torch.Tensor) -> None:
        """Halve the step of these examples, or end where it is too short for that."""
        step = self._share - self._reached
        self._ended |= rows & (0.5 * step < self.shortest)
        self.phase.ended = not likely(~self._ended.any())
        self._share = torch.where(rows, self._share - 0.5 * step, self._share)
        self._first = torch.where(rows, torch.inf, self._first)

    def advance(self, active: torch.Tensor) -> None:
        phase, force, nudge = self.phase, self._force, self.phase.nudge
        if nudge is not None and not likely(~(self._share < 1).any()):
            phase = phase.nudged(Nudge(nudge.cost, nudge.y, nudge.beta * self._share))
            force = phase.force(self.z)
        move = phase.newton_step(self.z, force, torch.zeros_like(self._share))
        moved = tuple(s + d for s, d in zip(self.z, move, strict=True))
        length, size = flat(move).norm(dim=1), flat(moved).norm(dim=1)
        # Corrections far below the displacement are rounding, and lead nowhere else.
        astray = ~torch.isfinite(length) | ((length > self.margin * self._first) & (length > 1e-4 * size))
        arrived = ~astray & (length <= 1e-2 * self._first) & self._first.isfinite() & (self._share < 1)
        if not likely(~arrived.any()):
            straight = self._straight(moved)
            arrived, astray = arrived & straight, astray | (arrived & ~straight)
        step = self._share - self._reached
        self._retreat(active & astray)
        if not likely((active & ~self._ended).any()):
            self.patience = 1  # nothing moves any more
        self._known, self._fresh = keep(arrived, moved, self._known), arrived
        self._reached = torch.where(arrived, self._share, self._reached)
        self._share = torch.where(arrived, (self._share + 2 * step).clamp(max=1.0), self._share)
        self._first = torch.where(arrived | astray, torch.inf, torch.minimum(self._first, length))
        self.z = keep(active & ~self._ended, keep(astray, self._known, moved), self.z)


class MediumFlow(Solver):
    """The medium in time, by steps of the classical Runge-Kutta method as long as its stability allows.

    It ends where the medium does: not in a state that is unstable for its tau_v. `iterations` counts steps.
    """

    patience = 2000

    def __init__(self, phase: MediumPhase, start: State) -> None:
        self.motion = Motion(phase)
        self.phase = phase
        self.z = start
        self.spent = 0
        self.dt = 2.0 / fastest(phase, start)

    def evaluate(self) -> tuple[State, torch.Tensor]:
        self.spent += 1
        self._velocity = self.motion.velocity(self.z)
        return self.z, self.phase.residual(self.phase.force(self.z))

    def advance(self, active: torch.Tensor) -> None:
        moved = step(self.motion, self.z, self._velocity, self.dt, TABLEAUS["rk4"])
        self.z = keep(active, moved.end, self.z)


def fastest(phase: MediumPhase, z: State) -> float:
    """Bound on the rates of the flow near z, by Gershgorin's circles: within 1.5 of a start, 0.1 of an origin."""
    medium, tau, axes = phase.prepared, phase.prepared.tau_v, len(phase.prepared.rates_u)
    spread = [
        4 * axes * max((float(r.max()) for r in rates if r.numel()), default=0.0)
        for rates in (medium.rates_u, medium.rates_v)
    ]
    reach = 1.5 if phase.origin is None else 0.1
    slopes = [phase.cubic.slope(z[0].real + d).abs().max() for d in (-reach, 0.0, reach)]
    return max(spread[0] + float(torch.stack(slopes).max()) + 1, (spread[1] + medium.leak + 1) / tau)


def newton(phase: MediumPhase, start: State) -> Solver:
    """Down the reduced energy; from an equilibrium that a nudge displaces, along its branch."""
    return DisplacedNewton(phase, start) if phase.balanced else ReducedNewton(phase, start)


SOLVERS: dict[str, Callable[[MediumPhase, State], Solver]] = {"newton": newton, "skew_flow": MediumFlow}
