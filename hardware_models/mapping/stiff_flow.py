"""Paired circuits in time by implicit steps: units that answer a thousand times faster or slower than others.

A real diode makes its node faster by its conductance, an oscillator pair at a threshold of its range slower without
end. Explicit steps follow the fastest unit, and stall long before the slowest has come to rest. Here each example
takes steps of its own of the Rosenbrock method of Shampine and Reichelt (The MATLAB ODE suite, SIAM J. Sci. Comput.
18, 1997, section 3, `ode23s`), which is L-stable and of second order whatever stands for the Jacobian J. With
W = 1 - g h J and g = 1 / (2 + sqrt 2),

    W k1 = f(y),    W (k2 - k1) = f(y + h k1 / 2) - k1,    y' = y + h k2
    W k3 = f(y') - (6 + sqrt 2) (k2 - f(y + h k1 / 2)) - 2 (k1 - f(y)),    error = h (k1 - 2 k2 + k3) / 6

Of small networks each W is factorised, once a step. Of others it is inverted by GMRES: what is left of W once it is
divided by its diagonal couples units of different layers only, so that some twice as many products as there are
layers are enough.
"""

from __future__ import annotations

import math

import torch

from physics_ep.blocks import State, flat, keep, unflat
from physics_ep.predictive_coding.phase import peak
from physics_ep.relaxation.krylov import gmres

from .phase import PairedPhase
from .value_flow import Tangent, ValueFlow

GAMMA = 1 / (2 + 2**0.5)
THIRD = 6 + 2**0.5
ACCURACY = 0.01
"""Largest error of a step, as a part of how far the example moves in it."""
RESOLUTION = 0.1
"""Longest step, as a part of the time that has passed: what a settling time is known to."""
SOLVED = 1e-3
"""Relative residual of the linear systems of a step."""
FACTORISED = 3e8
"""Largest product of the number of rows and of the third power of the number of units for which W is factorised."""
ESCAPE = 0.5
"""Longest step, in time constants of the unit that leaves an unstable rest fastest: a longer one ends in it."""


class StiffFlow(ValueFlow):
    """The circuit's own course by implicit steps, each example with steps of its own."""

    patience = 400
    steady = False  # a step is dear, and steps grow
    most = 3000
    """Steps at most: they grow with the time that has passed, so that these are enough for any that ends."""

    def __init__(self, phase: PairedPhase, start: State) -> None:
        super().__init__(phase, start)
        self.budget = self.most
        self.shapes = [b.shape for b in self.w]
        self.now = self.course(self.w)
        fastest = torch.stack([peak(r) for r in self.path.tangent(self.w).own]).amax(0)
        self.currents = torch.stack([peak(p) for p in self.path.currents]).amax(0)
        self.h = 0.1 / fastest.clamp(min=1)
        self.depth = 2 * (2 * phase.depth) + 10
        size = sum(math.prod(s[1:]) for s in self.shapes)
        small = phase.rows * size**3 <= FACTORISED and not phase.system.routed
        held = phase.nudge is not None and phase.nudge.cost.holds
        self.coupling = self.path.coupling().double() if small and not held else None

    def evaluate(self) -> tuple[State, torch.Tensor]:
        self.spent += 1
        return self.now[1], self.now[2]

    def advance(self, active: torch.Tensor) -> None:
        line = self.path.tangent(self.w)
        own, steep = flat(tuple(line.own)), flat(tuple(line.steep))
        # An unknown is what a unit puts out: the phase of a pair at the end of its range hardly tells.
        scale = steep.abs().clamp(min=1e-9)
        h = torch.minimum(self.h, ESCAPE / own.amax(1).clamp(min=torch.finfo(own.dtype).tiny))
        h = torch.minimum(h, RESOLUTION * self.time + 0.5)[:, None]
        diagonal = (1 - GAMMA * h * own).clamp(min=0.1)

        factors = None if self.coupling is None else self._factors(line, self.coupling, h)

        def solved(right: torch.Tensor) -> torch.Tensor:
            if factors is not None:
                found = torch.linalg.lu_solve(*factors, right.double()[:, :, None])
                return found[:, :, 0].to(right.dtype)

            def product(y: torch.Tensor) -> torch.Tensor:
                v = y / scale
                turned = flat(tuple(line.product(unflat(v, self.shapes))))
                return scale * (v - GAMMA * h * turned) / diagonal

            def wide(y: torch.Tensor) -> torch.Tensor:  # short numbers make no orthogonal basis
                return product(y.to(right.dtype)).double()

            return gmres(wide, (scale * right / diagonal).double(), self.depth, SOLVED).to(right.dtype) / scale

        def speed(w: torch.Tensor) -> torch.Tensor:
            return flat(tuple(self.course(list(unflat(w, self.shapes)))[0]))

        y, f = flat(tuple(self.w)), flat(tuple(self.now[0]))
        first = solved(f)
        middle = speed(y + 0.5 * h * first)
        second = first + solved(middle - first)
        after = self.within(list(unflat(y + h * second, self.shapes)))
        new = self.course(after)
        third = solved(flat(tuple(new[0])) - THIRD * (second - middle) - 2 * (first - f))
        error = (h * (first - 2 * second + third) / 6 * scale).abs().amax(1)
        moved = (h * second * scale).abs().amax(1)
        finfo = torch.finfo(error.dtype)
        rounding = 4 * finfo.eps * self.currents * (scale * h * flat(tuple(line.answer)) / diagonal).abs().amax(1)
        ratio = error / (ACCURACY * moved + rounding).clamp(min=finfo.tiny)
        good = (ratio <= 1) & active  # NaN is not
        self.w = list(keep(good, tuple(after), tuple(self.w)))
        (speed_, z, residual), count = new, len(self.now[0])
        kept = keep(good, (*speed_, *z, residual), (*self.now[0], *self.now[1], self.now[2]))
        self.now = list(kept[:count]), kept[count:-1], kept[-1]
        self.time = self.time + torch.where(good, h[:, 0], torch.zeros_like(self.time))
        change = (0.9 * ratio.nan_to_num(nan=1e9, posinf=1e9).clamp(min=1e-3) ** (-1 / 3)).clamp(0.1, 4)
        self.h = torch.where(active, h[:, 0] * change, self.h)

    def _factors(self, line: Tangent, coupling: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The triangular factors of W of each example, and their pivots, for steps h (rows, 1)."""
        own, steep, answer = (flat(tuple(blocks)).double() for blocks in (line.own, line.steep, line.answer))
        jacobian = answer[:, :, None] * coupling * steep[:, None, :]
        if self.phase.nudge is not None:
            top = line.steep[self.phase.depth - 1]
            first = sum(math.prod(s[1:]) for s in self.shapes[: self.phase.depth - 1])
            at = slice(first, first + top.shape[1])
            columns = [line.pulled(v.expand_as(top)) for v in torch.eye(top.shape[1]).to(top)]
            jacobian[:, at, at] += answer[:, at, None] * torch.stack(columns, 2).double() * steep[:, None, at]
        jacobian.diagonal(dim1=1, dim2=2).add_(own)
        eye = torch.eye(len(coupling), dtype=coupling.dtype, device=coupling.device)
        factors, pivots, _ = torch.linalg.lu_factor_ex(eye - GAMMA * h.double()[:, :, None] * jacobian)
        return factors, pivots
