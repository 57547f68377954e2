"""Newton's method, alone and within a trust region: the latter ends in minima, to the last digit.

`TrustRegion` finishes a descent: some plain steps first, so that the basin is the one into which the system itself
falls, then Newton steps no longer than a radius within which the quadratic model of F has proved right. Negative
curvature is followed to the radius: saddles are left.
"""

from __future__ import annotations

import torch

from ..blocks import State, flat, unflat
from ..errors import InputError
from ..reads import likely, needed, read
from ..system import Phase
from .krylov import Operator, conjugate_gradients, dot, gmres
from .solvers import Coordinate, GradientFlow, Solver, inverse_lipschitz


class TrustRegion(Solver):
    """Solver that finds minima of F by the trust-region Newton method.

    The method is algorithm 6.1.1 of Conn, Gould and Toint, Trust-Region Methods, 2000. Far from rest (a residual
    above 0.02) it first takes plain steps: at most 50 exact updates, or 100 steps along the force where the phase
    has no exact updates. Newton's steps come from preconditioned conjugate gradients
    (`krylov.conjugate_gradients`). Each example has its own radius and its own accuracy min(0.1, residual), so that
    residuals square from step to step. A step is judged by the fall of F where that is large, and otherwise by the
    trapezoid of slopes, -(g0 + g1) . p / 2: a nudge of size beta changes F by beta^2, below rounding, while slopes
    keep their digits.

    `spent` counts slopes, energies and Hessian products.

    Raises
    ------
    InputError
        If the system's equilibria are no minima, or its energy has kinks or bounds that hold variables.
    """

    patience = 100
    sweeps, descents = 50, 100
    """Plain steps at most: of exact updates, or along the force."""
    near = 0.02
    """Residual below which plain steps give way to Newton's."""
    depth = 200
    """Products of a step at most."""

    def __init__(self, phase: Phase, start: State) -> None:
        require_minima(phase, "trust_region")
        self.phase = phase
        self.shapes = [s.shape for s in start]
        self.spent = 0
        self.z = self._before = flat(start)
        # Large systems settle in one place after another; the largest residual is where one is still on its way.
        self.patience = max(self.patience, self.z.shape[1] // 50)
        self._plain = self.sweeps if phase.exact_updates else self.descents
        self._descent: Solver | None = (Coordinate if phase.exact_updates else GradientFlow)(phase, start)
        self._slope = self._trial = self.z
        self._residual = self._radius = self.z.new_full(self.z.shape[:1], float("nan"))
        self._sized = False
        """Whether the radius has its first size."""
        self._hessian: Operator | None = None
        self._scale: torch.Tensor | None = None

    def evaluate(self) -> tuple[State, torch.Tensor]:
        if self._descent is not None:
            before = self._descent.spent
            z, self._residual = self._descent.evaluate()
            self.spent += self._descent.spent - before
            self._before, self.z = self.z, flat(z)
            return z, self._residual
        self._judge()
        return unflat(self.z, self.shapes), self._residual

    def advance(self, active: torch.Tensor) -> None:
        if self._descent is not None:
            if self._plain and self._far(active):
                self._plain -= 1
                self._descent.advance(active)
                return
            self._descent = None
            self._slope, self._residual = self._look(self.z)
        if self._hessian is None:
            self._hessian = flat_hessian(self.phase, self.z, self.shapes)
            self._scale = flat_scale(self.phase, self.z, self.shapes)
        slope = torch.where(active[:, None], self._slope, torch.zeros_like(self._slope))
        finfo = torch.finfo(slope.dtype)
        if not self._sized:
            self._sized = True
            # As far as a few plain steps, or one along the slope: Newton grows from the size of the descent.
            scale = 1.0 if self._scale is None else self._scale
            moves = (4 * (self.z - self._before), slope / scale)
            lengths = [dot(scale * v, v).clamp_min(0).sqrt() for v in moves]
            self._radius = torch.maximum(*lengths).clamp_min(finfo.tiny**0.5)
        forcing = self._residual.clamp(finfo.eps**0.5, 0.1)
        self._step = conjugate_gradients(
            self._hessian, slope, forcing, self.depth, radius=self._radius, scale=self._scale
        )
        self.spent += self._step.products
        self._moving = active
        self._trial = self.z + self._step.move

    def _far(self, active: torch.Tensor) -> bool:
        """Whether an example is far from rest. If the loop has not read it, most likely one is where a system has
        not moved yet; nudged ones may be near."""
        if self.top_residual is not None:
            return self.top_residual > self.near
        far = (active & (self._residual > self.near)).any()
        return likely(far) if self.phase.nudge is None else bool(far)

    def _look(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """dF/dz and the residual at z."""
        self.spent += 1
        blocks = unflat(z, self.shapes)
        force = self.phase.force(blocks)
        return flat(self.phase.slope(blocks, force)), self.phase.residual(force)

    def _value(self, z: torch.Tensor) -> torch.Tensor:
        self.spent += 1
        return self.phase.energy(unflat(z, self.shapes))

    def _judge(self) -> None:
        """Keep the trial where it lowers F as the model said it would; else stay and shrink the radius."""
        step, p = self._step, self._step.move
        slope, residual = self._look(self._trial)
        fall = -0.5 * dot(self._slope + slope, p)
        finfo = torch.finfo(p.dtype)
        # Slopes may agree at the ends of a leap over a ridge: large falls are looked up in F. Of small ones F says
        # nothing but rounding, unless the trapezoid is in doubt.
        energy = self._value(self.z)
        ground = torch.where(self._moving, energy.abs(), torch.zeros_like(energy)).amax()
        doubtful = ~((fall - step.gain).abs() <= 0.25 * step.gain)
        told = self._moving & (step.gain > torch.where(doubtful, 1e4 * finfo.eps, finfo.eps**0.375) * ground)
        host = p.device.type == "cpu"
        if host and bool(told.any()):
            fall = torch.where(told, energy - self._value(self._trial), fall)
        good = self._keep(fall, slope, residual, kept := (self.z, self._slope, self._residual, self._radius))
        if not host:
            # A device is asked once, whether to look F up and how large the residual is if not.
            lookup, self.top_residual = read(told.any(), self._residual.max())
            if lookup:
                self.top_residual = None
                fall = torch.where(told, energy - self._value(self._trial), fall)
                good = self._keep(fall, slope, residual, kept)
        if needed(good.any()):
            self._hessian = None

    def _keep(
        self, fall: torch.Tensor, slope: torch.Tensor, residual: torch.Tensor, before: tuple[torch.Tensor, ...]
    ) -> torch.Tensor:
        """Go from what was before, (z, slope, residual, radius), to the trial where F falls enough; and where that
        is."""
        step, p = self._step, self._step.move
        z, slope_before, residual_before, radius = before
        finfo = torch.finfo(p.dtype)
        ratio = fall / step.gain.clamp_min(finfo.tiny)
        good = (
            (ratio > 0.1) & torch.isfinite(residual) & within(self.phase, self._trial, self.shapes) & self._moving
        )
        length = dot(p if self._scale is None else self._scale * p, p).clamp_min(0).sqrt()
        grown = torch.where((ratio > 0.75) & step.bounded, 3 * radius, radius)
        shrunk = torch.where(good & (ratio > 0.25), grown, 0.25 * length)
        self._radius = torch.where(self._moving, shrunk.clamp_min(finfo.tiny**0.5), radius)
        row = good[:, None]
        self.z = torch.where(row, self._trial, z)
        self._slope = torch.where(row, slope, slope_before)
        self._residual = torch.where(good, residual, residual_before)
        return good


class NewtonKrylov(Solver):
    """Newton's method on T(u) - u (or on the force), each step by matrix-free GMRES; for strongly coupled systems.

    Jacobian products are differences along a direction, the inner tolerance is 0.1 (Knoll and Keyes 2004, section
    2; the last digits come from the outer steps). Each example begins with some plain steps T(u), which lead
    towards a minimum where Newton would take any stationary point. A Newton step that does not lower the mismatch
    is halved from the best point, and given up for plain steps after three halvings.
    """

    patience = 1000
    depth = 20
    forcing = 0.1
    plain_steps = 10

    def __init__(self, phase: Phase, start: State) -> None:
        self.phase = phase
        u = phase.interface(start) if phase.exact_updates else start
        self.shapes = [s.shape for s in u]
        self.u = flat(u)
        self.step_size = None if phase.exact_updates else inverse_lipschitz(phase, start)
        self.spent = 0
        self._best = self.u
        self._best_gap = torch.full(self.u.shape[:1], float("inf"), dtype=self.u.real.dtype, device=self.u.device)
        self._step = torch.zeros_like(self.u)
        self._share = torch.ones_like(self._best_gap)
        self._plain = torch.full_like(self._best_gap, self.plain_steps)

    def evaluate(self) -> tuple[State, torch.Tensor]:
        z, residual, self._gap = self._evaluate(self.u)
        return z, residual

    def _evaluate(self, u: torch.Tensor) -> tuple[State, torch.Tensor, torch.Tensor]:
        """z, its residual, and the vector that Newton drives to zero."""
        self.spent += 1
        blocks = unflat(u, self.shapes)
        if self.step_size is None:
            following, z, residual = self.phase.sweep(blocks)
            return z, residual, flat(following) - u
        force = self.phase.force(blocks)
        gap = self.step_size * flat(force)
        return blocks, self.phase.residual(force), gap if self.phase.ways is None else self.phase.ways * gap

    def advance(self, active: torch.Tensor) -> None:
        size = self._gap.norm(dim=1)
        lower = size < (1 - 0.1 * self._share) * self._best_gap
        self._share = torch.where(lower, torch.ones_like(self._share), 0.5 * self._share)
        self._plain = torch.where(self._share < 1 / 8, torch.full_like(self._plain, self.plain_steps), self._plain)
        plain = self._plain > 0
        fresh = lower | plain
        self._best = torch.where(fresh[:, None], self.u, self._best)
        self._best_gap = torch.where(fresh, size, self._best_gap)
        newton = lower & ~plain
        if bool((newton & active).any()):
            u, gap = self.u, self._gap
            scale = torch.finfo(u.dtype).eps ** 0.5 * torch.maximum(u.norm(dim=1), size)[:, None]

            def jacobian(v: torch.Tensor) -> torch.Tensor:
                h = scale / v.norm(dim=1, keepdim=True).clamp_min(torch.finfo(v.dtype).tiny)
                return (self._evaluate(u + h * v)[2] - gap) / h

            step = gmres(jacobian, -gap, self.depth, self.forcing)
            self._step = torch.where(newton[:, None], step, self._step)
        move = torch.where(plain[:, None], self._gap, self._share[:, None] * self._step)
        trial = self._best + move
        # The last plain step is measured against nothing, so that Newton starts from wherever it led.
        self._best_gap = torch.where(plain, torch.full_like(size, float("inf")), self._best_gap)
        self._share = torch.where(plain, torch.ones_like(self._share), self._share)
        self._plain = (self._plain - 1).clamp(min=0)
        if self.step_size is not None:
            trial = flat(self.phase.project(unflat(trial, self.shapes)))
        self.u = torch.where(active[:, None], trial, self.u)


def trust_region(phase: Phase, start: State) -> Solver:
    """Trust-region Newton; for complex states, which have no energy to descend, Newton's method alone."""
    return NewtonKrylov(phase, start) if any(s.is_complex() for s in start) else TrustRegion(phase, start)


def require_minima(phase: Phase, value: str, argument: str = "solver") -> None:
    """Raise InputError, of an argument that has this value, unless equilibria are minima of a smooth energy."""
    system = phase.system
    name = type(system).__name__
    if not system.descends or system.directions is not None:
        raise InputError(
            f"Argument {argument} must not be {value!r} for {name}, whose equilibria are no minima of its energy."
        )
    if not system.smooth:
        raise InputError(
            f"Argument {argument} must not be {value!r} for {name}, whose energy has kinks or bounds that hold "
            "variables: it has no curvature there."
        )


def within(phase: Phase, z: torch.Tensor, shapes: list[torch.Size]) -> torch.Tensor:
    """Whether the states z (B, n) lie within the bounds, rounding aside, (B,)."""
    cut = (flat(phase.project(unflat(z, shapes))) - z).abs()
    return (cut <= torch.finfo(z.dtype).eps ** 0.5 * z.abs()).all(1)


def flat_hessian(phase: Phase, z: torch.Tensor, shapes: list[torch.Size]) -> Operator:
    """v -> d2F/dz2 v on flat vectors (B, n)."""
    product = phase.hessian(unflat(z, shapes))
    return lambda v: flat(product(unflat(v, shapes)))


def flat_scale(phase: Phase, z: torch.Tensor, shapes: list[torch.Size]) -> torch.Tensor | None:
    """`Phase.curvature_diagonal` on flat vectors (B, n)."""
    diagonal = phase.curvature_diagonal(unflat(z, shapes))
    return None if diagonal is None else flat(tuple(d.expand(s) for d, s in zip(diagonal, shapes, strict=True)))
