"""The two states of dyadic equilibrium propagation, which settle together."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from ..blocks import State, largest, narrowed
from ..cost import Cost
from ..energies import outputs_of
from ..equilibrium import Equilibrium
from ..jacobians import Jacobian
from ..nudging import Nudge
from ..physical_system import Phase, PhysicalSystem
from ..system import EnergySystem
from ..vector_field import work_contrast, work_of


class DyadicPhase(Phase):
    """Both nudged states of dyadic EP as one relaxation, beside a phase that is nudged ordinarily for all else.

    With m = (s+ + s-) / 2, the states nudged by +beta and -beta are stationary points of

        (s- - s+) . F(m) + beta (C(s+) + C(s-)),

    exact gradients included (Scurria and others 2026, arXiv 2602.03670). They settle under the forces

        F(m) + J(m)^T (s+ - m) - beta dC/ds(s+)    and    F(m) + J(m)^T (s- - m) + beta dC/ds(s-),

    one force and one transposed product for the two. The unknown z holds the displacements of s+, then of s-.

    Parameters
    ----------
    alone : Phase
        Displaced and balanced, not nudged: it answers what is asked of a single nudge.
    """

    def __init__(self, alone: Phase) -> None:
        super().__init__(alone.system, alone.inputs, alone.origin, alone.balanced)
        self.alone = alone
        self.narrow = alone.narrow
        self.pair: tuple[Nudge, ...] = ()

    @property
    def single(self) -> Phase:
        return self.alone

    def nudged(self, nudge: Nudge | None) -> Phase:
        return self.alone.nudged(nudge)

    def stacked(self, nudges: Sequence[Nudge]) -> DyadicPhase:
        twin = copy.copy(self)
        twin.pair = tuple(nudge.to(self.dtype) for nudge in nudges)
        twin.nudge = twin.pair[0]
        twin.joint = isinstance(self.system, EnergySystem)
        return twin

    def joined(self, parts: Sequence[State]) -> State:
        return tuple(block for part in parts for block in part)

    def parted(self, found: Equilibrium, count: int) -> tuple[Equilibrium, ...]:
        assert found.displacement is not None
        halves = self._halves(found.displacement)
        return tuple(replace(found, displacement=half, _state=self._standing(half)) for half in halves)

    def _standing(self, half: State) -> Callable[[], State]:
        return lambda: narrowed(Phase.state(self, half), self.narrow)

    def _halves(self, z: State) -> tuple[State, State]:
        count = len(z) // 2
        return z[:count], z[count:]

    def start(self) -> State:
        half = super().start()
        return half + half if self.pair else half

    def state(self, z: State) -> State:
        return super().state(self._halves(z)[0] if self.pair else z)

    def energy(self, z: State) -> torch.Tensor:
        """NaN (B,): the two states have a stationary point in common, and no energy that falls."""
        return z[0].new_full(z[0].shape[:1], torch.nan)

    def force(self, z: State) -> State:
        return tuple(f.detach() for f in self._forces(z, graph=False))

    def tangent(self, z: State | None) -> torch.Tensor:
        """Jacobian (B, 2 n, 2 n) of the force by z, for Newton's method; None: where nothing has moved yet.

        The law of variables that bounds hold is to stay. Where autograd does not follow the slope of a law further,
        the curvature of that law is left out.
        """
        at = self.start() if z is None else z
        matrix = Jacobian(lambda moved: tuple(-f for f in self._forces(moved, graph=True)), at).matrix
        return matrix - torch.diag_embed((matrix == 0).all(2).to(matrix))

    def _forces(self, z: State, graph: bool) -> State:
        """The force at z, which autograd can follow back to z with `graph`."""
        plus, minus = self._halves(z)
        assert self.origin is not None
        middle = [o + (a + b) / 2 for o, a, b in zip(self.origin, plus, minus, strict=True)]
        apart = [(a - b) / 2 for a, b in zip(plus, minus, strict=True)]
        with torch.enable_grad():
            leaves = tuple(middle) if graph else tuple(m.detach().requires_grad_() for m in middle)
            slope = self.system.slope(leaves, self.x)
            live = [(g, d) for g, d in zip(slope, apart, strict=True) if g is not None and g.requires_grad]
            back: tuple[torch.Tensor | None, ...] = (None,) * len(leaves)
            if live:
                back = torch.autograd.grad(
                    [g for g, _ in live], leaves, [d for _, d in live], allow_unused=True, create_graph=graph
                )
            found: list[torch.Tensor] = []
            for half, nudge, way in zip((plus, minus), self.pair, (1, -1), strict=True):
                state = Phase.state(self, half)
                force = self._projected(
                    state,
                    tuple(
                        (0 if g is None else -g) + (0 if b is None else -way * b) + p
                        for g, b, p in zip(slope, back, self._pull(nudge, state, graph), strict=True)
                    ),
                )
                if self.origin_force is not None:
                    force = tuple(f - f0 for f, f0 in zip(force, self.origin_force, strict=True))
                found += force
        return tuple(found)

    def _pull(self, nudge: Nudge, state: State, graph: bool) -> State:
        with torch.enable_grad():
            leaves = state if graph else tuple(s.detach().requires_grad_() for s in state)
            total = nudge.energy(outputs_of(self.system, leaves)).sum()
            found = torch.autograd.grad(total, leaves, allow_unused=True, create_graph=graph)
        return tuple(torch.zeros_like(s) if g is None else -g for s, g in zip(leaves, found, strict=True))

    def residual(self, force: State) -> torch.Tensor:
        if not self.judges or self.scales is None:
            return largest(force) / self.residual_scale
        return torch.maximum(*(self.scales.over(half) for half in self._halves(force)))

    def project(self, z: State) -> State:
        if not self.system.bounded:
            return z
        assert self.origin is not None
        inside = [self.system.project(Phase.state(self, half)) for half in self._halves(z)]
        return tuple(s - o for states in inside for s, o in zip(states, self.origin, strict=True))

    def aim(self, tolerance: float) -> float:
        return type(self.alone).aim(self, tolerance)

    # -- what a single nudge is asked ---------------------------------------------------------------------------

    def asymmetry(self, even: bool = False) -> float:
        return self.alone.asymmetry(even)

    def response(self, force: torch.Tensor) -> torch.Tensor | None:
        return self.alone.response(force)

    def curvature_limit(self, cost: Cost, y: torch.Tensor, anywhere: bool) -> float | None:
        return self.alone.curvature_limit(cost, y, anywhere)

    def mobility(self, cost: Cost, y: torch.Tensor) -> float:
        return self.alone.mobility(cost, y)

    def tells_bias(self, cost: Cost, y: torch.Tensor) -> bool:
        return self.alone.tells_bias(cost, y)

    # -- what is learnt, midway between the two -----------------------------------------------------------------

    def contrast(
        self,
        system: PhysicalSystem,
        free: State,
        plus: State,
        minus: State | None,
        x: torch.Tensor,
        weight: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        return work_contrast(system, None, free, plus, minus, x, weight)

    def input_contrast(
        self, free: State, plus: State, minus: State | None, x: torch.Tensor, weight: torch.Tensor
    ) -> torch.Tensor:
        if isinstance(self.system, EnergySystem):
            return super().input_contrast(free, plus, minus, x, weight)
        leaf = x.detach().to(torch.float64).requires_grad_()
        work = work_of(self.system, None, free, plus, minus, leaf, weight)
        return torch.autograd.grad(work, leaf)[0].to(x.dtype)
