"""Equilibria of a `PairedCircuit` by algebra where plain sweeps are slow or never end: copies that err apart.

With shared copies a sweep (errors from the top, drives from the bottom) solves a triangular system. Where h and u
have cells of their own, what is fed back, f, also moves the errors that feed it back: f is a fixed point of a sweep
T whose derivative grows with the differences of the copies. `PairedNewton` takes steps d of

    (1 + 1 / s) d - T'(f) d = T(f) - f,         s -> s |T(f) - f| before / after,       each example by itself,

by GMRES on differences of sweeps (pseudo-transient continuation, Kelley and Keyes, SIAM J. Numer. Anal. 35, 1998;
Knoll and Keyes 2004): damped steps where the last one has missed, Newton's method near the end. A state that
algebra has found is an equilibrium, stable or not, and where a network has several not always the one that its
circuit comes to from rest: nothing here has been followed in time.
"""

from __future__ import annotations

import torch

from physics_ep.blocks import State, flat, unflat
from physics_ep.relaxation.krylov import gmres
from physics_ep.relaxation.solvers import Solver

from .phase import PairedPhase
from .solvers import PairedSweep

FORCING = 0.03
"""Relative residual of the linear systems of a step."""
DEPTH = 40
"""Sweeps of a step at most."""
CONTRACTS = 0.2
"""A sweep that leaves at most this part of every residual is followed by another: nothing is cheaper."""


class PairedNewton(Solver):
    """Damped Newton steps on what is fed back; `spent` counts sweeps."""

    patience = 60

    def __init__(self, phase: PairedPhase, start: State) -> None:
        self.sweep = PairedSweep(phase, start)
        self.sweep.one, self.sweep.folds = None, False
        self.shapes = [b.shape for b in self.sweep.fed]
        self.f = flat(tuple(self.sweep.fed))
        self.before = self.f.new_full((phase.rows,), torch.inf)
        self.reach = self.f.new_ones(phase.rows)
        self.plain = True

    def _swept(self, f: torch.Tensor) -> tuple[State, torch.Tensor, torch.Tensor]:
        """What phases carry, the residual, and T(f) - f."""
        self.spent += 1
        self.sweep.fed = list(unflat(f, self.shapes))
        self.sweep._forward()
        z, residual = self.sweep.evaluate()
        return z, residual, flat(tuple(self.sweep.images)) - f

    def evaluate(self) -> tuple[State, torch.Tensor]:
        z, self.residual, self.gap = self._swept(self.f)
        return z, self.residual

    def advance(self, active: torch.Tensor) -> None:
        size = self.gap.norm(dim=1)
        left = torch.where(active, size / self.before, torch.zeros_like(size))
        self.before = size
        if self.plain and bool((left <= CONTRACTS).all()):
            self.f = torch.where(active[:, None], self.f + self.gap, self.f)
            return
        if self.plain:
            self.plain = False
        else:
            # At kinks long steps lead around in circles: where one has missed, the next are short.
            shorter = (self.reach.clamp(max=2) / 4).clamp(min=0.1)
            longer = (self.reach / left.clamp(0.25, 1)).clamp(max=1e12)
            self.reach = torch.where(left <= 1, longer, shorter)
        f, gap = self.f, self.gap
        right = torch.where(active[:, None], gap, torch.zeros_like(gap))
        tiny = torch.finfo(f.dtype).tiny
        step = torch.finfo(f.dtype).eps ** 0.5 * torch.maximum(f.norm(dim=1), size)[:, None]

        def product(v: torch.Tensor) -> torch.Tensor:
            h = step / v.norm(dim=1, keepdim=True).clamp_min(tiny)
            return v / self.reach[:, None] - (self._swept(f + h * v)[2] - gap) / h

        self.f = f + gmres(product, right, DEPTH, FORCING)
