"""One relaxation as a problem of its own: what a solver sees of a system, its input and its nudge."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from .equilibrium import State, Status
from .nudging import Nudge

if TYPE_CHECKING:
    from .cost import Cost
    from .system import EnergySystem, Inputs


class Phase:
    """One relaxation: a system with its input and nudge, and everything constant in it computed once.

    The unknown z is the state itself (origin None) or the displacement from `origin`. With `balanced`, the
    origin's own small force is left out: the displaced phase then belongs to the system of which the origin is
    the exact equilibrium, and an error of size r in the free state costs O(r) in a one-sided estimate, not
    O(r / beta).

    This default works for any system through `force`, in float64 for displacements. Systems that know better
    subclass it; those with exact block updates set `exact_updates` and give `interface` and `sweep`, and
    `differentiable_updates` if autograd can follow them.
    """

    exact_updates = False
    differentiable_updates = False

    def __init__(self, system: EnergySystem, inputs: Inputs, origin: State | None, balanced: bool) -> None:
        self.inputs = inputs
        self.nudge: Nudge | None = None
        self.balanced = balanced
        self.narrow = system.dtype
        self.system = system if origin is None else widened(system)
        self.dtype = self.system.dtype
        self.x = inputs.x.to(self.dtype)
        self.origin = None if origin is None else tuple(s.to(self.dtype) for s in origin)
        self.origin_force = (
            self._projected(self.origin, self.system.force(self.origin, self.x))
            if self.origin is not None and balanced
            else None
        )

    def nudged(self, nudge: Nudge | None) -> Phase:
        """The same problem under a nudge; constants are shared."""
        twin = copy.copy(self)
        if nudge is not None and isinstance(nudge.y, torch.Tensor) and nudge.y.dtype.is_floating_point:
            nudge = Nudge(nudge.cost, nudge.y.to(self.dtype), nudge.beta)
        twin.nudge = nudge
        return twin

    def stacked(self, nudges: Sequence[Nudge]) -> Phase | None:
        """The same displaced problem under several nudges at once, their batches one after the other.

        None (the default) if the system relaxes them one by one.
        """
        return None

    def start(self) -> State:
        """First z: the system's initial state, or no displacement."""
        if self.origin is None:
            return self.system.initial_state(self.x)
        dtype = self.dtype if self.nudge is None else self.nudge.dtype(self.dtype)
        return tuple(torch.zeros_like(s, dtype=dtype) for s in self.origin)

    def state(self, z: State) -> State:
        """The state that z stands for."""
        return z if self.origin is None else tuple(s + d for s, d in zip(self.origin, z, strict=True))

    def energy(self, z: State) -> torch.Tensor:
        """F = E + beta C at z, (B,), of a balanced phase without the origin's own force."""
        state = self.state(z)
        with torch.no_grad():
            total = self.system.energy(state, self.x)
            if self.nudge is not None:
                total = total + self.nudge.energy(self.system.outputs(state))
            if self.origin_force is not None:
                total = total + sum((f * d).flatten(1).sum(1) for f, d in zip(self.origin_force, z, strict=True))
            return total

    def force(self, z: State) -> State:
        """Projected -dF/ds at z: zero at an equilibrium, bounds included."""
        force = self._projected(self.state(z), self.unbounded_force(z))
        if self.origin_force is not None:
            force = tuple(f - f0 for f, f0 in zip(force, self.origin_force, strict=True))
        return force

    def unbounded_force(self, z: State) -> State:
        """-dF/ds itself at z, bounds and metrics left out: what noise and inertia act beside (`flows`)."""
        state = self.state(z)
        force = self.system.force(state, self.x)
        if self.nudge is None:
            return force
        return tuple(f + p for f, p in zip(force, self._cost_force(state), strict=True))

    def project(self, z: State) -> State:
        """z of the nearest state within bounds."""
        if not self.system.bounded:
            return z
        if self.origin is None:
            return self.system.project(z)
        inside = self.system.project(self.state(z))
        return tuple(s - o for s, o in zip(inside, self.origin, strict=True))

    def residual(self, force: State) -> torch.Tensor:
        """Largest component of a force, (B,), over the residual scale."""
        return largest(force) / self.system.residual_scale

    def slope(self, z: State, force: State) -> State:
        """dF/dz from the force at z. Default: minus the force.

        Phases whose force is not the gradient of F (one in a metric of its own, say) override it; to first order
        in the force is enough.
        """
        return tuple(-f for f in force)

    def hessian_product(self, z: State, v: State) -> State:
        """d2F/dz2 v, each example by itself. Default: autograd of the energy and of the cost, exact.

        Solvers ask through `hessian`.
        """
        with torch.enable_grad():
            leaves = tuple(s.detach().requires_grad_() for s in self.state(z))
            total = self.system.energy(leaves, self.x)
            if self.nudge is not None:
                total = total + self.nudge.energy(self.system.outputs(leaves))
            slope = torch.autograd.grad(total.sum(), leaves, create_graph=True, allow_unused=True)
            along = [(g * d).sum() for g, d in zip(slope, v, strict=True) if g is not None and g.requires_grad]
            if not along:
                return tuple(torch.zeros_like(d) for d in v)
            product = torch.autograd.grad(torch.stack(along).sum(), leaves, allow_unused=True)
        return tuple(torch.zeros_like(d) if h is None else h for h, d in zip(product, v, strict=True))

    def hessian(self, z: State) -> Callable[[State], State]:
        """v -> d2F/dz2 v at one z, for many v. Override it where what all products share is worth keeping."""
        return functools.partial(self.hessian_product, z)

    def curvature_diagonal(self, z: State) -> State | None:
        """Positive estimate of the diagonal of d2F/dz2, to precondition with (None: ones)."""
        return self.system.curvature_diagonal(self.state(z), self.x)

    def hopeless(self) -> tuple[torch.Tensor, Status] | None:
        """Examples (B,) that cannot have an equilibrium, known before any iteration, and why; None: not known."""
        return None

    def verdict(self, z: State, residual: torch.Tensor) -> Status | None:
        """A better reason why a relaxation ended unconverged at z with this residual (B,); None: there is none."""
        return None

    def contrast(
        self,
        system: EnergySystem,
        free: State,
        plus: State,
        minus: State | None,
        x: torch.Tensor,
        weight: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """`EnergySystem.contrast`, for phases that already know what it needs."""
        return system.contrast(free, plus, minus, x, weight)

    def response(self, force: torch.Tensor) -> torch.Tensor | None:
        """Change of the outputs (B, n_out) per unit of a small force on them, where it has a closed form."""
        return None

    def curvature_limit(self, cost: Cost, y: torch.Tensor, anywhere: bool) -> float | None:
        """Lambda of `stability.curvature_limit` at the origin, where the phase knows it; None: to be measured.

        Systems whose outputs are not linear in the state must know it.
        """
        return None

    def mobility(self, cost: Cost, y: torch.Tensor) -> float:
        """Largest relative change of what a block feeds to others, per unit of beta; 0 where that is not known.

        An automatic beta is kept so small that this, times beta lambda, stays within the same bias.
        """
        return 0.0

    def interface(self, z: State) -> State:
        """The blocks from which a sweep computes all others."""
        raise NotImplementedError

    def sweep(self, u: State) -> tuple[State, State, torch.Tensor]:
        """From interface u: (next u, the z that u implies, residual of that z)."""
        raise NotImplementedError

    def _projected(self, state: State, force: State) -> State:
        if not self.system.bounded:
            return force
        moved = self.system.project(tuple(s + f for s, f in zip(state, force, strict=True)))
        return tuple(m - s for m, s in zip(moved, state, strict=True))

    def _cost_force(self, state: State) -> State:
        assert self.nudge is not None
        with torch.enable_grad():
            leaves = tuple(s.detach().requires_grad_() for s in state)
            total = self.nudge.energy(self.system.outputs(leaves))
            slope = derivative(total, leaves)
        return tuple(-g for g in slope)


def derivative(energy: torch.Tensor, state: State) -> State:
    """dE/ds of a batch of energies (B,), by autograd; for an analytic energy the complex derivative.

    Autograd gives the conjugate of the derivative for the real part of an analytic function.
    """
    total = energy.real.sum()
    grads = torch.autograd.grad(total, state, allow_unused=True)
    return tuple(torch.zeros_like(s) if g is None else g.conj() for s, g in zip(state, grads, strict=True))


def largest(blocks: State) -> torch.Tensor:
    """Largest absolute entry of each example over all blocks, (B,)."""
    worst = [b.abs().flatten(1).amax(1) for b in blocks if b[0].numel()]
    return worst[0] if len(worst) == 1 else torch.stack(worst).amax(0)


def widened(system: EnergySystem) -> EnergySystem:
    """The system itself if it is float64, else a float64 copy (for systems that cannot carry displacements)."""
    return system if system.dtype == torch.float64 else copy.deepcopy(system).double()
