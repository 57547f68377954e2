"""Solvers of a relaxation: how the next iterate is found. `physics_ep.relaxation.loop` decides when to stop."""

from __future__ import annotations

from typing import Protocol

import torch

from ..blocks import State, flat, keep, unflat
from ..errors import InputError
from ..reads import needed
from ..scales import Scales
from ..system import Phase


class HasForce(Protocol):
    """The methods that descent needs of a phase."""

    @property
    def scales(self) -> Scales | None:
        """Scales that were measured for a system that declares none."""
        ...

    def force(self, z: State) -> State:
        """The force -dF/dz on the variables, projected where bounds hold them."""
        ...

    def residual(self, force: State) -> torch.Tensor:
        """Dimensionless size of a force, (B,)."""
        ...

    def project(self, z: State) -> State:
        """The nearest z within the bounds."""
        ...


class Solver:
    """A method of relaxation, bound to one `Phase`; subclass it for another.

    Attributes
    ----------
    patience : int
        Evaluations without progress after which the residual counts as stalled.
    spent : int
        Evaluations of the phase so far: what `Equilibrium.iterations` counts.
    budget : int or None
        Most evaluations, where `max_iterations` is not given; None: the system's `default_max_iterations`.
    time : Tensor (B,) or None
        Time that each example has been followed for, in the system's time constants; None: not a course in time.
    steady : bool
        Whether examples that are held still stay where they are, and residuals fall by a factor at a time. A device
        is then not asked for each of them: an iterate too many costs little, and changes nothing.
    top_residual : float or None
        Largest residual, where the host knows it: the loop sets what it has read before `advance`, and a solver
        whose `evaluate` reads other numbers may read this one with them.
    idle : int or None
        Iterates after the next `advance` whose residuals the solver has no use for either; None: those before which
        the tolerance cannot be met at the fastest pace so far.
    tolerance : float
        What the residual is asked to meet. The loop sets it: it alone decides when to stop.
    most : int
        Evaluations that one `evaluate` may make at most, where nobody looks at those between. The loop sets it.
    by_block : Tensor (n, B) or None
        Residual of each block of the state at the last evaluation, where the method finds it anyway.
    """

    patience: int = 1000
    spent: int = 0
    budget: int | None = None
    time: torch.Tensor | None = None
    steady: bool = False
    top_residual: float | None = None
    idle: int | None = None
    tolerance: float = 0.0
    most: int = 1
    by_block: torch.Tensor | None = None

    def evaluate(self) -> tuple[State, torch.Tensor]:
        """The current z and its residual (B,)."""
        raise NotImplementedError

    def advance(self, active: torch.Tensor) -> None:
        """Move the examples where `active` (B,) holds."""
        raise NotImplementedError

    def finish(self, z: State) -> State:
        """The z to return, once the loop has stopped at `z`."""
        return z


class Coordinate(Solver):
    """Block coordinate descent: exact updates of the even, then of the odd layers, the others held.

    Each half-step is the exact minimum of F over its blocks, so F cannot rise. Written as the fixed-point
    iteration u <- T(u) on the smaller half of the layers.
    """

    # The largest mismatch may rise for long while the energy falls: on sparse graphs, or when it leaves a saddle.
    patience = 1000
    steady = True

    def __init__(self, phase: Phase, start: State) -> None:
        require_updates(phase, "coordinate")
        self.phase = phase
        self.u = phase.interface(start)
        self.spent = 0
        self._next: State = self.u

    def evaluate(self) -> tuple[State, torch.Tensor]:
        self.spent += 1
        self._next, z, residual = self.phase.sweep(self.u)
        return z, residual

    def advance(self, active: torch.Tensor) -> None:
        self.u = keep(active, self._next, self.u)


class Anderson(Solver):
    """Anderson acceleration, depth 5, of block coordinate descent or of plain descent (Walker, Ni 2011, type II).

    Every example has its own mixing coefficients. Where a mixed step has raised the residual, that example forgets
    its history and takes plain steps for a while, twice as long each time: plain steps descend, so that a system
    with many equilibria ends in a minimum of the energy, not wherever the residual vanishes.
    """

    patience = 1000
    steady = True
    depth = 5

    def __init__(self, phase: Phase, start: State) -> None:
        self.phase = phase
        u = phase.interface(start) if phase.exact_updates else start
        self.shapes = [s.shape for s in u]
        self.u = flat(u)
        self.step_size = None if phase.exact_updates else inverse_lipschitz(phase, start)
        batch, n = self.u.shape
        # Differences of successive residual vectors f = T(u) - u and images g = T(u), newest overwriting oldest.
        self._df = self.u.new_zeros(batch, self.depth, n)
        self._dg = self.u.new_zeros(batch, self.depth, n)
        self._count = 0
        self.spent = 0
        self._f = self._g = self.u
        self._residual = self._before = self.u.real.new_full((batch,), float("inf"))
        self._plain = self.u.real.new_zeros(batch)
        self._penalty = self.u.real.new_ones(batch)

    def evaluate(self) -> tuple[State, torch.Tensor]:
        self.spent += 1
        u = unflat(self.u, self.shapes)
        if self.step_size is None:
            following, z, residual = self.phase.sweep(u)
        else:
            force = self.phase.force(u)
            z, residual = u, self.phase.residual(force)
            h = self.step_size
            following = self.phase.project(tuple(s + h * f for s, f in zip(u, force, strict=True)))
        self._image = flat(following)
        self._before, self._residual = self._residual, residual
        return z, residual

    def advance(self, active: torch.Tensor) -> None:
        g = self._image
        f = g - self.u
        mixed = g
        if self._count:
            slot = (self._count - 1) % self.depth
            torch.sub(f, self._f, out=self._df[:, slot])
            torch.sub(g, self._g, out=self._dg[:, slot])
            used = min(self._count, self.depth)
            df, dg = self._df[:, :used], self._dg[:, :used]
            gamma, solved = least_squares(df, f)
            mixed = g - (gamma[:, None] @ dg)[:, 0]
            good = solved & (self._residual <= self._before) & (self._plain == 0)
            if needed(~good.all()):
                mixed = self._restrained(good, mixed, g)
        self._f, self._g = f, g
        self._count += 1
        if self.step_size is not None:
            mixed = flat(self.phase.project(unflat(mixed, self.shapes)))
        self.u = torch.where(active[:, None], mixed, self.u)

    def _restrained(self, good: torch.Tensor, mixed: torch.Tensor, plain: torch.Tensor) -> torch.Tensor:
        """Plain steps, and an empty history, for the examples that mixing leads astray."""
        failed = ~good & (self._plain == 0)
        self._penalty = torch.where(failed, (2 * self._penalty).clamp(max=64), self._penalty)
        self._plain = torch.where(failed, self._penalty, (self._plain - 1).clamp(min=0))
        keep = good[:, None, None].to(self._df.dtype)
        self._df *= keep
        self._dg *= keep
        return torch.where(good[:, None], mixed, plain)


class GradientFlow(Solver):
    """Explicit descent along the force, with a step an example from the local curvature, no line search.

    h_k = min(sqrt(1 + h_{k-1} / h_{k-2}) h_{k-1}, |dz| / (2 |dforce|)): Malitsky and Mishchenko, ICML 2020,
    algorithm 1. Works for any system; the slowest solver.
    """

    patience = 400
    steady = True

    def __init__(self, phase: HasForce, start: State) -> None:
        self.phase = phase
        self.shapes = [s.shape for s in start]
        self.z = flat(start)
        self._last: tuple[torch.Tensor, torch.Tensor] | None = None
        step = 0.5 * inverse_lipschitz(phase, start)
        self._h = torch.full((self.z.shape[0],), step, dtype=self.z.real.dtype, device=self.z.device)
        self._growth = torch.full_like(self._h, 1e6)
        self.spent = 0

    def evaluate(self) -> tuple[State, torch.Tensor]:
        self.spent += 1
        z = unflat(self.z, self.shapes)
        force = self.phase.force(z)
        self._force = flat(force)
        return z, self.phase.residual(force)

    def advance(self, active: torch.Tensor) -> None:
        if self._last is not None:
            dz = (self.z - self._last[0]).norm(dim=1)
            df = (self._force - self._last[1]).norm(dim=1)
            moved = (dz > 0) & (df > 0)
            local = torch.where(moved, dz / (2 * df.clamp_min(torch.finfo(df.dtype).tiny)), self._h)
            h = torch.minimum((1 + self._growth).sqrt() * self._h, local)
            self._growth = h / self._h
            self._h = h
        self._last = (self.z, self._force)
        trial = self.z + self._h[:, None] * self._force
        moved_z = flat(self.phase.project(unflat(trial, self.shapes)))
        self.z = torch.where(active[:, None], moved_z, self.z)


def require_updates(phase: Phase, solver: str) -> None:
    """Raise InputError if the system has no exact block updates."""
    if not phase.exact_updates:
        raise InputError(
            f"Argument solver must be 'gradient_flow' or 'anderson' for {type(phase.system).__name__}, which has "
            f"no exact block updates, but was {solver!r}."
        )


def least_squares(df: torch.Tensor, f: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Gamma (B, m) minimising |f - sum_m gamma_m df_m| for each example; df (B, m, n), f (B, n).

    Normal equations by Cholesky, which scaled columns do not disturb, with a relative ridge of 10 eps: the
    coefficients need few digits. Also returns, (B,), where the factorisation held.
    """
    finfo = torch.finfo(f.dtype)
    if df.shape[1] == 1:
        one = df[:, 0]
        size = (one.conj() * one).real.sum(1).mul_(1 + 10 * finfo.eps).add_(finfo.tiny)
        return ((one.conj() * f).sum(1) / size)[:, None], size > 0
    gram = df.conj() @ df.mT
    diagonal = gram.diagonal(dim1=1, dim2=2)
    diagonal.mul_(1 + 10 * finfo.eps).add_(finfo.tiny)
    factor, info = torch.linalg.cholesky_ex(gram)
    gamma = torch.cholesky_solve(df.conj() @ f[:, :, None], factor)
    return gamma[:, :, 0], info == 0


def inverse_lipschitz(phase: HasForce, z: State, iterations: int = 12) -> float:
    """One over the largest local curvature of F, by power iteration on differences of the force."""
    base = phase.force(z)
    generator = torch.Generator().manual_seed(0)
    v = tuple(torch.randn(s.shape, generator=generator, dtype=torch.float64).to(s) for s in z)
    curvature = 0.0
    eps = torch.finfo(z[0].dtype).eps ** 0.5
    if phase.scales is not None:
        eps *= float(phase.scales.length.min())
    for _ in range(iterations):
        norm = float(torch.stack([flat((b,)).norm() for b in v]).norm())
        if norm == 0:
            break
        h = eps * max(1.0, len(flat(z)) ** 0.5) / norm
        trial = phase.force(tuple(a + h * b for a, b in zip(z, v, strict=True)))
        v_new = tuple((t - f) / h for t, f in zip(trial, base, strict=True))
        curvature = float(torch.stack([flat((b,)).norm() for b in v_new]).norm()) / norm
        # Powers of a curvature in small or large units leave the floats.
        v = v_new if phase.scales is None or not curvature else tuple(b / curvature for b in v_new)
    return 1.0 / curvature if curvature > 0 else 1.0
