"""The contract of a physical system that has a force and no energy, `VectorField`, and its relaxations.

Amplifiers that pass one way, couplings with a lag, separate forward and backward weights: their force F is the
gradient of nothing. Asymmetric equilibrium propagation trains them exactly all the same (Scurria, Vanden Abeele,
Mognetti and Massar 2026, arXiv 2602.03670). With s0 the free state, J = dF/ds there and A = (J - J^T) / 2, nudged
phases follow

    F(s) - beta dC/ds - 2 A (s - s0),

whose linear response is J^T d = beta dC/ds, the adjoint equation, in a physical settling. It is as stable as the
free phase, since J and J^T have the same eigenvalues.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch

from .blocks import State, flat, in_dtype, unflat
from .energies import forces
from .errors import argument_error
from .jacobians import Jacobian
from .physical_system import Inputs, Phase, PhysicalSystem, widened


class VectorField(PhysicalSystem):
    """A physical system that has a force and no energy; its parameters are trained by asymmetric EP.

    A subclass writes `force`, `initial_state` and `outputs`. Block k moves by tau_k ds_k/dt = S_k force_k, with
    `time_constants` tau (default ones) and `directions` S = +1 or -1 (default +1): without either, the force is
    ds/dt. What ordinary EP asks to be symmetric is the Jacobian of the force, which is S times that of ds/dt: a
    system with blocks that ascend an energy gives -dE/ds for them too.

    Attributes and what else may be overridden are those of `PhysicalSystem`.
    """

    descends = False
    default_solver = "newton_krylov"
    default_method = "auto"

    def force(self, state: State, x: torch.Tensor) -> State:
        """Force on each block, (B, ...) in its shape, differentiable in state and parameters.

        It must be a function of its arguments and of the parameters alone, and each example's of that example.
        """
        raise NotImplementedError

    def coordinates(self, state: State) -> State:
        """Increasing functions of each variable, unit by unit, in which displacements and asymmetries are measured.

        Default: the variables themselves. Where forces are currents into nodes and each node feeds others by what
        its amplifier puts out, the outputs are the coordinates in which the node's own law is diagonal: symmetric
        couplings then have an energy, and a correction holds differences of couplings alone. Nudges are forces on
        the coordinates.
        """
        return state

    @property
    def own_coordinates(self) -> Callable[[State], State] | None:
        """The system's `coordinates` where they are not the variables themselves, else None."""
        return None if type(self).coordinates is VectorField.coordinates else self.coordinates

    def law(self, state: State, x: torch.Tensor) -> object:
        return self.force(state, x)

    def slope(self, state: State, x: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return tuple(-f for f in forces(self, state, x))

    def contrast(
        self, free: State, plus: State, minus: State | None, x: torch.Tensor, weight: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Sum over the batch of weight * -(displacement . dF/dtheta), midway between the two states.

        The displacement is that of `coordinates` from the one with `minus` to the one with `plus`. Where the force
        is -dE/ds this is the contrast of dE/dtheta, up to the third order in the displacement; exactly so where
        dF/dtheta is linear in the state.
        """
        return work_contrast(self, self.own_coordinates, free, plus, minus, x, weight)

    def phase(self, inputs: Inputs, origin: State | None = None, balanced: bool = False) -> FieldPhase:
        return FieldPhase(self, inputs, origin, balanced)


class FieldPhase(Phase):
    """One relaxation of a `VectorField`, free or nudged; nudged ones may carry the correction of asymmetric EP.

    Attributes
    ----------
    skew : callable or None
        v -> (J - J^T) v at the origin, in coordinates; None: no correction.
    """

    system: VectorField
    patience = 100  # a displacement ends in the rounding of the state, and has nothing smaller to be told by

    def __init__(
        self, system: VectorField, inputs: Inputs, origin: State | None = None, balanced: bool = False
    ) -> None:
        if origin is None:  # before anything is measured of a force that may be a user's
            forces(system, system.initial_state(inputs.x), inputs.x)
        super().__init__(system, inputs, origin, balanced)
        signs = self.system.directions
        if signs is not None:
            start = system.initial_state(inputs.x)
            self.ways = torch.cat(
                [
                    torch.full_like(s[0].flatten(), way, dtype=self.dtype)
                    for s, way in zip(start, signs, strict=True)
                ]
            )
        self.skew: Callable[[State], State] | None = None
        self.droop = 0.0
        """Share of itself that the stored free state has lost."""
        self._jacobian: Jacobian | None = None
        self.straight = self.system.own_coordinates is None
        """Whether the coordinates are the variables."""
        self._placed = None if self.origin is None else self.system.coordinates(self.origin)

    @property
    def jacobian(self) -> Jacobian:
        """The Jacobian J of the force at the origin, with respect to the coordinates."""
        if self._jacobian is None:
            assert self.origin is not None
            free = self.system.free_variables(self.origin, self.x)
            keep = None if free is None else flat(tuple(m.to(self.dtype) for m in free))
            scale = None if self.straight else flat(self.steepness(self.origin))
            self._jacobian = Jacobian(lambda s: self.system.slope(s, self.x), self.origin, scale, keep)
        return self._jacobian

    def probe(self) -> State | None:
        """A random direction: the force of a nudged phase is in the outputs alone, and tells nothing of others."""
        generator = torch.Generator().manual_seed(5)
        start = self.system.initial_state(self.x)
        return tuple(torch.randn(s.shape, generator=generator, dtype=torch.float64).to(s) for s in start)

    def steepness(self, state: State) -> State:
        """Slope of each of `VectorField.coordinates` by its own variable at a state, in blocks of its shapes."""
        with torch.enable_grad():
            leaves = tuple(s.detach().requires_grad_() for s in state)
            total = sum(c.sum() for c in self.system.coordinates(leaves))
            return torch.autograd.grad(total, leaves)  # type: ignore[arg-type]

    def adjoint(self) -> FieldPhase:
        skew = self.jacobian.skew()  # before the twin is made, which has the Jacobian with it
        twin = copy.copy(self)
        twin.skew = skew
        return twin

    def likely_start(self) -> State | None:
        """Linear response J^-T of the transposed problem to the nudge, where the matrix J is kept for it.

        Examples start at the origin where that lowers no residual: J may be singular, or the nudge strong.
        """
        matrix = self.jacobian.kept if self.skew is not None and self.jacobian.keep is None else None
        if matrix is None or self.nudge is None or self.nudge.cost.holds:
            return None
        assert self.origin is not None
        pull = self.cost_force(self.origin)
        moved = torch.linalg.solve_ex(matrix.mT, -flat(pull)[:, :, None])[0][:, :, 0]
        if not self.straight:
            steep = flat(self.steepness(self.origin))
            moved = torch.where(steep == 0, torch.zeros_like(steep), moved / steep)
        shapes = [s.shape for s in self.origin]
        found = self.project(unflat(moved.nan_to_num(0.0, 0.0, 0.0), shapes))
        better = self.residual(self.force(found)) < self.residual(pull)
        return unflat(torch.where(better[:, None], flat(found), torch.zeros_like(moved)), shapes)

    def drooped(self, share: float) -> FieldPhase:
        twin = copy.copy(self)
        twin.droop = share
        return twin

    def asymmetry(self, even: bool = False) -> float:
        return self.jacobian.asymmetry(even)

    def rightmost(self) -> torch.Tensor | None:
        """Rightmost eigenvalue (B,) of the motion linearised at the origin, over the system's time unit."""
        assert self.origin is not None
        system = self.system
        signs = system.directions or (1,) * len(self.origin)
        taus = system.time_constants or (1.0,) * len(self.origin)
        rates = torch.cat(
            [
                torch.full_like(s[0].flatten(), way / tau)
                for s, way, tau in zip(self.origin, signs, taus, strict=True)
            ]
        )
        if not self.straight:  # J is by coordinates, which move by their steepness times what the variables move by
            return self.jacobian.rightmost(rates * flat(self.steepness(self.origin)))
        return self.jacobian.rightmost(rates)

    def unbounded_force(self, z: State) -> State:
        force = super().unbounded_force(z)
        if self.skew is None:
            return force
        assert self._placed is not None
        moved = z
        if not self.straight:
            now = self.system.coordinates(self.state(z))
            moved = tuple(a - b for a, b in zip(now, self._placed, strict=True))
        if self.droop:
            moved = tuple(m + self.droop * v for m, v in zip(moved, self._placed, strict=True))
        return tuple(f - c for f, c in zip(force, self.skew(moved), strict=True))

    def cost_force(self, state: State) -> State:
        """-beta dC/dv of each block at a state, v the coordinates."""
        force = super().cost_force(state)
        if self.straight:
            return force
        steep = self.steepness(state)
        return tuple(torch.where(f == 0, f, f / s) for f, s in zip(force, steep, strict=True))

    def input_contrast(
        self, free: State, plus: State, minus: State | None, x: torch.Tensor, weight: torch.Tensor
    ) -> torch.Tensor:
        leaf = x.detach().to(torch.float64).requires_grad_()
        work = work_of(self.system, self.system.own_coordinates, free, plus, minus, leaf, weight)
        slope = torch.autograd.grad(work, leaf, allow_unused=True)[0] if work.requires_grad else None
        if slope is None:
            name = type(self.system).__name__
            raise argument_error("input_gradient", f"be False for {name}, whose force hides its input", True)
        return slope.to(x.dtype)


def work_of(
    system: PhysicalSystem,
    coordinates: Callable[[State], State] | None,
    free: State,
    plus: State,
    minus: State | None,
    x: torch.Tensor,
    weight: torch.Tensor,
) -> torch.Tensor:
    """Sum over the batch of weight * -(displacement . F), as autograd can follow it to the parameters and to x.

    F is taken at the midpoint of the two states, in float64.
    """
    base = tuple(s.detach().double() for s in free)
    up = tuple(s + d.double() for s, d in zip(base, plus, strict=True))
    down = base if minus is None else tuple(s + d.double() for s, d in zip(base, minus, strict=True))
    if coordinates is None:  # displacements keep their digits
        moved = plus if minus is None else tuple(a - b for a, b in zip(plus, minus, strict=True))
    else:
        with torch.no_grad():
            moved = tuple(a - b for a, b in zip(coordinates(up), coordinates(down), strict=True))
    with torch.enable_grad():
        middle = tuple(((a + b) / 2).requires_grad_() for a, b in zip(up, down, strict=True))
        slope = widened(system).slope(middle, x)
        each = sum((g * d).flatten(1).sum(1) for g, d in zip(slope, moved, strict=True) if g is not None)
        return (weight.double() * each).sum()


def work_contrast(
    system: PhysicalSystem,
    coordinates: Callable[[State], State] | None,
    free: State,
    plus: State,
    minus: State | None,
    x: torch.Tensor,
    weight: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """`VectorField.contrast`, with the coordinates in which displacements are measured."""
    exact = widened(system)
    named = {n: p for n, p in exact.named_parameters() if p.requires_grad}
    work = work_of(exact, coordinates, free, plus, minus, in_dtype(x, torch.float64), weight)
    if not work.requires_grad:  # all that is trained is in the outputs
        return {}
    grads = torch.autograd.grad(work, list(named.values()), allow_unused=True)
    own = dict(system.named_parameters())
    return {n: g.to(own[n].dtype) for n, g in zip(named, grads, strict=True) if g is not None}


__all__ = ["FieldPhase", "VectorField", "work_contrast", "work_of"]
