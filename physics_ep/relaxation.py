"""Relaxation to equilibrium: one outer loop, and the solvers that plug into it.

A solver proposes iterates; the loop alone decides when to stop, from the residual of the very state that it
returns. Examples that have converged are held still, so that a result does not depend on the company it keeps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch

from .equilibrium import Equilibrium, State, Status, Trace
from .errors import InputError, argument_error, unknown_name
from .nudging import Nudge
from .system import EnergySystem, Phase


class Solver(Protocol):
    """A method of relaxation, bound to one `Phase`.

    `evaluate` gives the current z and its residual (B,); `advance` moves the examples where `active` (B,) holds.
    """

    patience: int

    def evaluate(self) -> tuple[State, torch.Tensor]: ...

    def advance(self, active: torch.Tensor) -> None: ...


class Coordinate:
    """Block coordinate descent: exact updates of the even, then of the odd layers, the others held.

    Each half-step is the exact minimum of F over its blocks, so F cannot rise. Written as the fixed-point
    iteration u <- T(u) on the smaller half of the layers.
    """

    # The largest mismatch may rise for long while the energy falls: on sparse graphs over a hundred sweeps.
    patience = 300

    def __init__(self, phase: Phase, start: State) -> None:
        require_updates(phase, "coordinate")
        self.phase = phase
        self.u = phase.interface(start)
        self._next: State = self.u

    def evaluate(self) -> tuple[State, torch.Tensor]:
        self._next, z, residual = self.phase.sweep(self.u)
        return z, residual

    def advance(self, active: torch.Tensor) -> None:
        self.u = keep(active, self._next, self.u)


class Anderson:
    """Anderson acceleration, depth 5, of block coordinate descent or of plain descent (Walker, Ni 2011, type II).

    Every example has its own mixing coefficients. Where the residual doubles, that example takes the plain step.
    """

    patience = 30
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
        self._f = self._g = self.u
        self._residual = self._before = torch.zeros(())

    def evaluate(self) -> tuple[State, torch.Tensor]:
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
            trusted = solved & (self._residual <= 2 * self._before)
            mixed = torch.where(trusted[:, None], mixed, g)
        self._f, self._g = f, g
        self._count += 1
        if self.step_size is not None:
            mixed = flat(self.phase.project(unflat(mixed, self.shapes)))
        self.u = torch.where(active[:, None], mixed, self.u)


class GradientFlow:
    """Explicit descent along the force, with a step an example from the local curvature, no line search.

    h_k = min(sqrt(1 + h_{k-1} / h_{k-2}) h_{k-1}, |dz| / (2 |dforce|)): Malitsky and Mishchenko, ICML 2020,
    algorithm 1. Works for any system; the slowest solver.
    """

    patience = 400

    def __init__(self, phase: Phase, start: State) -> None:
        self.phase = phase
        self.shapes = [s.shape for s in start]
        self.z = flat(start)
        self._last: tuple[torch.Tensor, torch.Tensor] | None = None
        step = 0.5 * inverse_lipschitz(phase, start)
        self._h = torch.full((self.z.shape[0],), step, dtype=self.z.real.dtype, device=self.z.device)
        self._growth = torch.full_like(self._h, 1e6)

    def evaluate(self) -> tuple[State, torch.Tensor]:
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


SOLVERS: dict[str, Callable[[Phase, State], Solver]] = {
    "coordinate": Coordinate,
    "anderson": Anderson,
    "gradient_flow": GradientFlow,
}


def solve(
    phase: Phase,
    *,
    solver: str | None = None,
    tolerance: float | None = None,
    max_iterations: int | None = None,
    start: State | None = None,
    trace: bool = False,
) -> Equilibrium:
    """Relax one `Phase` until every example's residual meets the tolerance, or nothing more is to be had.

    Parameters
    ----------
    phase : Phase
    solver : str, optional
        A name in `SOLVERS`; default the system's.
    tolerance : float, optional
        Dimensionless residual. Default: the system's, times min(1, |beta|) for displacements, whose contrast is
        divided by beta.
    max_iterations : int, optional
    start : State, optional
        First z (a state, or a displacement). Default `phase.start()`.
    trace : bool
        Keep residual, energy and state of every iteration.

    Returns
    -------
    Equilibrium
        Converged or not: see `status`, `residual`, `require()`.
    """
    system = phase.system
    name = system.default_solver if solver is None else solver
    if name not in SOLVERS:
        raise unknown_name("solver", name, SOLVERS)
    tolerance = phase_tolerance(phase, tolerance)
    budget = system.default_max_iterations if max_iterations is None else max_iterations
    if not isinstance(budget, int) or budget < 1:
        raise argument_error("max_iterations", "be an integer of at least 1", budget)
    z = phase.start() if start is None else start
    kept: list[tuple[torch.Tensor, torch.Tensor, State]] = []
    status = Status.BUDGET
    with torch.no_grad():
        method = SOLVERS[name](phase, z)
        best, since, iteration = float("inf"), 0, 0
        while True:
            iteration += 1
            z, residual = method.evaluate()
            if trace:
                kept.append((residual, phase.energy(z), phase.state(z)))
            worst = float(residual.max())
            if worst <= tolerance:
                status = Status.CONVERGED
                break
            active = residual > tolerance
            if not math.isfinite(worst):
                active = active & torch.isfinite(residual)
                if not bool(active.any()):
                    status = Status.NOT_FINITE
                    break
                worst = float(residual[active].max())
            if iteration >= budget:
                status = Status.BUDGET if bool(torch.isfinite(residual).all()) else Status.NOT_FINITE
                break
            since = 0 if worst < 0.999 * best else since + 1
            best = min(best, worst)
            if since >= method.patience:
                status = Status.STALLED
                break
            method.advance(active)
    narrow = phase.narrow
    displacement = None if phase.origin is None else narrowed(z, narrow)
    return Equilibrium(
        state=narrowed(phase.state(z), narrow),
        residual=residual,
        tolerance=tolerance,
        iterations=iteration,
        status=status,
        solver=name,
        displacement=displacement,
        residual_scale=system.residual_scale,
        residual_unit=system.residual_unit,
        trace=_collect(kept) if trace else None,
    )


def relax(
    system: EnergySystem,
    x: torch.Tensor,
    nudge: Nudge | None = None,
    start: State | None = None,
    *,
    solver: str | None = None,
    tolerance: float | None = None,
    max_iterations: int | None = None,
    trace: bool = False,
) -> Equilibrium:
    """Let a system settle: the free phase, or a phase nudged by beta times a cost.

    Parameters
    ----------
    system : EnergySystem
    x : Tensor (B, ...)
        Input, in the system's units.
    nudge : Nudge, optional
    start : State, optional
        Where to start. With a nudge, the displacement from here is what relaxes (and `Equilibrium.displacement`
        holds it): give the free state.
    solver, tolerance, max_iterations, trace
        See `solve`.

    Returns
    -------
    Equilibrium

    Raises
    ------
    InputError
        If an argument does not fit the system.
    """
    with torch.no_grad():
        inputs = system.prepare(x)
        if start is not None:
            check_state(system, start, x)
        if nudge is None:
            phase = system.phase(inputs)
            return solve(
                phase, solver=solver, tolerance=tolerance, max_iterations=max_iterations, start=start, trace=trace
            )
        origin = system.initial_state(x) if start is None else start
        nudge.cost.check(system.outputs(origin), nudge.y)
        phase = system.phase(inputs, origin=origin).nudged(nudge)
        return solve(phase, solver=solver, tolerance=tolerance, max_iterations=max_iterations, trace=trace)


def phase_tolerance(phase: Phase, tolerance: float | None) -> float:
    """The tolerance of a phase: the given one, or the default scaled by the nudge."""
    if tolerance is not None:
        if not (isinstance(tolerance, int | float) and 0 < tolerance < float("inf")):
            raise argument_error("tolerance", "be a positive number", tolerance)
        return float(tolerance)
    default = phase.system.default_tolerance(phase.narrow)
    if phase.nudge is None:
        return default
    return default * min(1.0, float(torch.as_tensor(phase.nudge.beta).abs().max()))


def check_state(system: EnergySystem, state: State, x: torch.Tensor) -> None:
    """Raise InputError unless `state` has the system's blocks and x's batch."""
    want = [tuple(s.shape) for s in system.initial_state(x)]
    got = [tuple(s.shape) for s in state] if isinstance(state, tuple) else type(state).__name__
    if want != got:
        raise argument_error("start", f"be a tuple of tensors of shapes {want}", got)


def require_updates(phase: Phase, solver: str) -> None:
    """Raise InputError if the system has no exact block updates."""
    if not phase.exact_updates:
        raise InputError(
            f"Argument solver must be 'gradient_flow' or 'anderson' for {type(phase.system).__name__}, which has "
            f"no exact block updates, but was {solver!r}."
        )


def narrowed(blocks: State, dtype: torch.dtype) -> State:
    """Blocks in a real dtype, or in its complex partner where they are complex."""
    return tuple(b.to(dtype.to_complex() if b.is_complex() else dtype) for b in blocks)


def flat(blocks: State) -> torch.Tensor:
    """Blocks side by side, (B, n)."""
    return blocks[0].flatten(1) if len(blocks) == 1 else torch.cat([b.flatten(1) for b in blocks], 1)


def unflat(vector: torch.Tensor, shapes: list[torch.Size]) -> State:
    """Inverse of `flat`."""
    if len(shapes) == 1:
        return (vector.reshape(shapes[0]),)
    sizes = [s[1:].numel() for s in shapes]
    return tuple(v.reshape(s) for v, s in zip(vector.split(sizes, 1), shapes, strict=True))


def keep(active: torch.Tensor, new: State, old: State) -> State:
    """`new` where `active` (B,), else `old`."""
    return tuple(torch.where(active.view(-1, *[1] * (n.ndim - 1)), n, o) for n, o in zip(new, old, strict=True))


def least_squares(df: torch.Tensor, f: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Gamma (B, m) minimising |f - sum_m gamma_m df_m| for each example; df (B, m, n), f (B, n).

    Normal equations by Cholesky, which scaled columns do not disturb, with a relative ridge of 10 eps: the
    coefficients need few digits. Also returns, (B,), where the factorisation held.
    """
    gram = df.conj() @ df.mT
    diagonal = gram.diagonal(dim1=1, dim2=2)
    finfo = torch.finfo(f.dtype)
    diagonal.mul_(1 + 10 * finfo.eps).add_(finfo.tiny)
    factor, info = torch.linalg.cholesky_ex(gram)
    gamma = torch.cholesky_solve(df.conj() @ f[:, :, None], factor)
    return gamma[:, :, 0], info == 0


def inverse_lipschitz(phase: Phase, z: State, iterations: int = 12) -> float:
    """One over the largest local curvature of F, by power iteration on differences of the force."""
    base = phase.force(z)
    generator = torch.Generator().manual_seed(0)
    v = tuple(torch.randn(s.shape, generator=generator, dtype=torch.float64).to(s) for s in z)
    curvature = 0.0
    eps = torch.finfo(z[0].dtype).eps ** 0.5
    for _ in range(iterations):
        norm = float(torch.stack([flat((b,)).norm() for b in v]).norm())
        if norm == 0:
            break
        h = eps * max(1.0, len(flat(z)) ** 0.5) / norm
        trial = phase.force(tuple(a + h * b for a, b in zip(z, v, strict=True)))
        v_new = tuple((t - f) / h for t, f in zip(trial, base, strict=True))
        curvature = float(torch.stack([flat((b,)).norm() for b in v_new]).norm()) / norm
        v = v_new
    return 1.0 / curvature if curvature > 0 else 1.0


def _collect(kept: list[tuple[torch.Tensor, torch.Tensor, State]]) -> Trace:
    return Trace(
        residual=torch.stack([k[0] for k in kept]),
        energy=torch.stack([k[1] for k in kept]),
        state=tuple(torch.stack(blocks) for blocks in zip(*[k[2] for k in kept], strict=True)),
    )
