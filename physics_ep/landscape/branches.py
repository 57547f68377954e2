"""Branches of equilibria: whether a state is a minimum, and whether a nudged state continues the free one.

A system with many equilibria may jump to another of them when it is nudged. What EP then contrasts are two states
that have nothing to do with each other, and the estimate grows like 1 / beta. The nudged state that EP means is the
end of the branch d(t) of equilibria of E + t beta C that starts in the free state at t = 0. Where its smallest
curvature vanishes before t = 1 (a fold), the branch ends, and there is no such state at this beta.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..blocks import State, flat, largest, narrowed, unflat
from ..errors import argument_error
from ..inference import differentiating
from ..nudging import Nudge
from ..physical_system import Phase, PhysicalSystem
from ..reads import likely
from ..relaxation.krylov import (
    QuadraticStep,
    conjugate_gradients,
    deflated,
    lowest_value,
    orthonormal,
)
from ..relaxation.loop import new_phase, prepared
from ..relaxation.newton import flat_hessian, flat_scale, require_minima, within

DENSE = 48
"""Variables up to which all of the Hessian is computed."""
MARGIN = 0.25
"""How far a step along the tangent may be corrected, over its length (where E' = c d + d^2 folds, by 1), and each
correction over the one before; and what half a step may leave of half the pull."""
SHORTEST = 1e-2
"""Step, over t or over itself, below which a branch counts as ended: t_fold is found to about as much of itself."""
FORCING = 1e-2
"""What linear solves leave of their right side. Soft directions that are hardly pulled at hide below it, so that
each step that fails divides it by ten, down to `FINEST`."""
FINEST = 1e-5


@dataclass(frozen=True)
class Branches:
    """Whether nudged states lie on the branch of their free state.

    Attributes
    ----------
    switched : Tensor of bool (B,)
        Not on it: either it ends before this beta, or the nudged state is another.
    examined : Tensor of bool (B,)
        Whether the nudged state was no plain linear response, so that the branch was followed.
    reached : Tensor (B,)
        Part of beta up to which the branch was followed; 1 where it need not be. Below 1: it ends there, to within
        some `SHORTEST`.
    products : int
        Hessian products and forces that it took, each of the batch or of the examples examined.
    """

    switched: torch.Tensor
    examined: torch.Tensor
    reached: torch.Tensor
    products: int


@differentiating
def smallest_curvature(
    system: PhysicalSystem | Phase,
    state: State,
    x: torch.Tensor | None = None,
    *,
    modulo: tuple[State, ...] | None = None,
    relative: bool = False,
    tolerance: float = 1e-8,
) -> torch.Tensor:
    """Smallest eigenvalue of the Hessian of the energy at a state, for each example.

    Parameters
    ----------
    system : EnergySystem or VectorField, VectorField or Phase
        A system, for the Hessian of E; or a phase, for that of F with its nudge, where `state` is its unknown z.
    state : tuple of Tensor (B, ...)
    x : Tensor (B, ...), optional
        Input, for a system.
    modulo : tuple of State, optional
        Directions left out; default the system's `symmetries` where nothing is nudged.
    relative : bool
        Whether to take D^-1/2 H D^-1/2, D the `curvature_diagonal`, in place of H: the sign is the same, and is
        found sooner.
    tolerance : float
        Error of the eigenvalue over the spectrum's width, beyond `DENSE` variables, where Lanczos' method finds it.

    Returns
    -------
    Tensor (B,)
        In energy units over state units squared; a number if `relative`. Positive at a minimum.
    """
    if isinstance(system, Phase):
        phase = system
    elif x is None:
        raise argument_error("x", "be the input of the system", None)
    else:
        phase = system.phase(prepared(system, x, {}))
    with torch.no_grad():
        return _lowest(phase, state, modulo, relative, tolerance)[0]


def is_minimum(phase: Phase, z: State) -> tuple[torch.Tensor, int]:
    """Whether no direction has negative curvature, (B,), and the Hessian products that it took.

    Lanczos' method stops when the smallest is known to a tenth of itself or to 1e-3 of the largest: what lies
    between -1e-3 and 0 of that may go unnoticed.
    """
    with torch.no_grad():
        value, width, products = _lowest(phase, z, None, True, 1e-3, sign=True)
        return value >= -1e-6 * width, products


def _lowest(
    phase: Phase,
    z: State,
    modulo: tuple[State, ...] | None,
    relative: bool,
    tolerance: float,
    sign: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Smallest eigenvalue (B,), the size of the largest (B,), and the products that it took."""
    shapes = [s.shape for s in z]
    point = flat(z)
    batch, n = point.shape
    hessian = flat_hessian(phase, point, shapes)
    scale = flat_scale(phase, point, shapes) if relative else None
    root = None if scale is None else scale.sqrt()
    if modulo is None:
        modulo = phase.system.symmetries(phase.state(z)) if phase.nudge is None else ()
    without = None
    if modulo:
        directions = torch.stack([flat(direction) for direction in modulo], 1).to(point)
        without = orthonormal(directions if root is None else directions * root[:, None])

    def product(v: torch.Tensor) -> torch.Tensor:
        return hessian(v) if root is None else hessian(v / root) / root

    if n <= DENSE and not sign:
        eye = torch.eye(n, dtype=point.dtype, device=point.device)
        columns = [product(eye[k].expand(batch, n)) for k in range(n)]
        matrix = torch.stack(columns, 2)
        matrix = 0.5 * (matrix + matrix.mT)
        if without is not None:  # to the top of the spectrum
            away = eye - without.mT @ without
            top = 2 * matrix.abs().sum(2).amax(1)
            matrix = away @ matrix @ away + top[:, None, None] * (without.mT @ without)
        sound = matrix.isfinite().all(2).all(1)[:, None]
        values = torch.linalg.eigvalsh(matrix.masked_fill(~sound[:, :, None], 0.0)).masked_fill(~sound, math.nan)
        return values[:, 0], values.abs().amax(1), n
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(point.shape[1], generator=generator, dtype=torch.float64).to(point.dtype)
    start = draws.to(point.device, non_blocking=True).expand_as(point)
    return lowest_value(product, start, without=without, tolerance=tolerance, share=0.1 if sign else 0.0)


def check_branches(
    system: PhysicalSystem,
    x: torch.Tensor,
    free: State,
    nudges: Sequence[Nudge],
    displacements: Sequence[State],
    *,
    base: Phase | None = None,
    only: torch.Tensor | None = None,
    **options: Any,
) -> tuple[Branches, ...]:
    """Whether nudged states continue their free state as the nudge grows from nothing.

    One linear solve tells the linear response of the free state for all nudges. Nudged states that are within
    `MARGIN` of it, and whose halves are nearly stationary under half the nudge, lie on the branch: there a Newton
    step spans it all. So do pairs under opposite nudges if the parabola through them and the free state starts with
    the linear response, does not turn, and is nearly stationary half-way on both sides. The others are settled by
    following the branch (`follow`).

    Parameters
    ----------
    system : EnergySystem or VectorField
        A system with a smooth energy whose equilibria are minima.
    x : Tensor (B, ...)
    free : State
        Free equilibrium.
    nudges : sequence of Nudge
        Real, of one cost and one y.
    displacements : sequence of State
        The nudged equilibria minus the free one.
    base : Phase, optional
        The balanced phase at the free state, where it is known.
    only : Tensor of bool (B,), optional
        The examples to look at; the others count as not switched.
    **options
        Further arguments of the system's phases, such as gates='held' or 'live' of a predictive coding network.

    Returns
    -------
    tuple of Branches
        One a nudge.
    """
    with torch.no_grad():
        if base is None:
            base = new_phase(system, prepared(system, x, options), options, origin=free, balanced=True)
        require_minima(base, "check", "branches")
        shapes = [s.shape for s in base.start()]
        origin = flat(tuple(torch.zeros_like(s) for s in base.start()))
        betas = [_column(nudge, base, len(x)) for nudge in nudges]
        moved = [flat(narrowed(d, base.dtype)) for d in displacements]
        halves = [_at(base, nudge, 0.5 * beta) for nudge, beta in zip(nudges, betas, strict=True)]
        pull = _slope(_at(base, nudges[0], betas[0]), origin, shapes)
        response = _newton_step(base, origin, pull, shapes, FORCING)
        spent = 1 + response.products
        found = []
        for i, (nudge, beta, d) in enumerate(zip(nudges, betas, moved, strict=True)):
            linear = _told_apart(base, response.move * (beta / betas[0])[:, None], shapes)

            def starts_right(way: torch.Tensor, linear: torch.Tensor = linear) -> torch.Tensor:
                return _size(_told_apart(base, way, shapes) - linear) <= MARGIN * _size(linear)

            near = starts_right(d) & _straight(halves[i], origin, d, shapes)
            spent += 2
            mirrored = [j for j in range(len(nudges)) if _opposite(nudge, nudges[j])]
            if mirrored and not likely(near.all()):
                j = mirrored[0]
                even, odd = 0.5 * (d + moved[j]), 0.5 * (d - moved[j])
                both = starts_right(odd) & (_size(even) <= 0.5 * _size(odd))
                both = both & _straight(halves[i], origin, odd + 0.5 * even, shapes)
                near = near | (both & _straight(halves[j], origin, 0.5 * even - odd, shapes))
                spent += 4
            near = near | (_size(d) <= _rounding(base))
            if only is not None:
                near = near | ~only
            reached = torch.ones_like(beta)
            switched = ~near
            if not likely(near.all()):
                rows = switched.nonzero()[:, 0]
                part = Nudge(nudge.cost, nudge.y[rows], beta[rows])
                far, end, own = _settle(system, x[rows], tuple(s[rows] for s in free), part, d[rows], options)
                reached[rows], switched[rows] = far, end
                spent += own
            found.append(Branches(switched, ~near, reached, spent))
            spent = 0
    return tuple(found)


def follow(
    base: Phase, nudge: Nudge, *, shortest: float = SHORTEST, tolerance: float = 1e-3
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Follow the branch of equilibria of E + t beta C from the origin at t = 0 towards t = 1.

    A step in t goes along the tangent and is corrected by Newton's method. It counts only if all Hessians are
    positive definite, corrections shrink by `MARGIN` from one to the next, the first against the step itself
    (Deuflhard, Newton Methods for Nonlinear Problems, 2004, section 5.1), and the middle of the step is nearly
    stationary half-way in t: else a step might leap over a fold, as Newton's method finds minima from afar where F
    is convex again.
    Otherwise the step is halved; at less than `shortest` the branch counts as ended.

    Parameters
    ----------
    base : Phase
        The balanced phase at the free state.
    nudge : Nudge
        Real.
    shortest : float
        Step, over t, below which the branch counts as ended; before t = shortest, over shortest.
    tolerance : float
        Largest error of a state, over the step that led to it.

    Returns
    -------
    reached : Tensor (B,)
        The last t found, in [0, 1].
    displacement : Tensor (B, n)
        There, blocks side by side.
    evaluations : int
        Number of Hessian products and slopes that were computed.
    """
    with torch.no_grad():
        start = base.start()
        shapes = [s.shape for s in start]
        z = torch.zeros_like(flat(start))
        beta = _column(nudge, base, len(z))
        t, h = torch.zeros_like(beta), torch.full_like(beta, 0.5)
        forcing = torch.full_like(beta, FORCING)
        spent = 0
        going = t < 1
        while bool(going.any()):
            aim = torch.where(going, (t + h).clamp(max=1), t)
            now, then = _at(base, nudge, beta * t), _at(base, nudge, beta * aim)
            tangent = _newton_step(now, z, _slope(then, z, shapes), shapes, forcing)
            w, steepness, own = _newton(then, z, tangent.move, shapes, forcing, tolerance, going)
            spent += own + tangent.products + 3
            straight = _straight(_at(base, nudge, 0.5 * beta * (t + aim)), z, w - z, shapes)
            steepness = torch.where(straight & ~tangent.indefinite, steepness, torch.inf)
            kept = going & (steepness <= MARGIN)
            t, z = torch.where(kept, aim, t), torch.where(kept[:, None], w, z)
            forcing = torch.where(kept, forcing, 0.1 * forcing).clamp_min(FINEST)
            h = torch.where(kept, torch.where(steepness <= 0.25 * MARGIN, 2 * h, h), 0.5 * h)
            going = going & (t < 1) & (h >= shortest * t.clamp_min(shortest))
    return t, z, spent


def _newton(
    phase: Phase,
    z: torch.Tensor,
    move: torch.Tensor,
    shapes: list[torch.Size],
    forcing: torch.Tensor,
    tolerance: float,
    going: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Where Newton's method leads from z + move, and how its corrections shrink at worst (B,): infinite if lost."""
    first = last = _size(move)
    steepness = torch.zeros_like(first)
    spent = 0
    z = z + move
    for _ in range(8):
        step = _newton_step(phase, z, _slope(phase, z, shapes), shapes, forcing)
        spent += 1 + step.products
        z = z + step.move
        size = _size(step.move)
        settled = (size <= tolerance * first) | (size <= _rounding(phase))
        steepness = torch.where(settled, steepness, torch.maximum(steepness, size / last))
        lost = step.indefinite | ~torch.isfinite(size) | ~within(phase, z, shapes)
        steepness = torch.where(lost, torch.inf, steepness)
        last = size
        going = going & ~settled & (steepness <= MARGIN)
        if not bool(going.any()):
            break
    return z, torch.where(going, torch.inf, steepness), spent


def _straight(phase: Phase, z: torch.Tensor, move: torch.Tensor, shapes: list[torch.Size]) -> torch.Tensor:
    """Whether half a move from z meets most of the slope of the phase under half the step in beta, (B,)."""
    missing, pull = _slope(phase, z + 0.5 * move, shapes), _slope(phase, z, shapes)
    scale = flat_scale(phase, z, shapes)
    if scale is not None:
        missing, pull = missing / scale, pull / scale
    return _size(missing) <= MARGIN * _size(pull)


def _settle(
    system: PhysicalSystem, x: torch.Tensor, free: State, nudge: Nudge, d: torch.Tensor, options: dict[str, Any]
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """How far the branch leads (B,), whether its end is not the displacement d (B, n), and the evaluations."""
    base = new_phase(system, prepared(system, x, options), options, origin=free, balanced=True)
    reached, end, spent = follow(base, nudge)
    shapes = [s.shape for s in base.start()]
    phase = _at(base, nudge, _column(nudge, base, len(x)))
    # How far d itself is from the equilibrium that it stands for: much of it, where hardly anything pulls.
    own = _newton_step(phase, d, _slope(phase, d, shapes), shapes, 0.1)
    slack = _size(own.move)
    slack = torch.where(slack <= 1e-3 * largest(free), 3 * slack, torch.zeros_like(slack))
    allowed = 1e-2 * torch.maximum(_size(d), _size(end)) + slack
    switched = (reached < 1) | own.indefinite | ~(_size(_told_apart(base, end - d, shapes)) <= allowed)
    return reached, switched, spent + 1 + own.products


def _told_apart(base: Phase, d: torch.Tensor, shapes: list[torch.Size]) -> torch.Tensor:
    """A displacement less what symmetries leave open, the common rotation of phases, say."""
    directions = base.system.symmetries(base.state(base.start()))
    if not directions:
        return d
    return deflated(d, orthonormal(torch.stack([flat(narrowed(v, d.dtype)) for v in directions], 1)))


def _at(base: Phase, nudge: Nudge, beta: torch.Tensor) -> Phase:
    """The balanced phase under another beta (B,)."""
    return base.nudged(nudge.at(beta))


def _opposite(one: Nudge, other: Nudge) -> bool:
    """Whether two nudges have opposite strengths."""
    if one.numbers is not None and other.numbers is not None:
        return one.numbers == tuple(-number for number in other.numbers)
    return bool((torch.as_tensor(one.beta) == -torch.as_tensor(other.beta)).all())


def _column(nudge: Nudge, base: Phase, count: int) -> torch.Tensor:
    """beta of each example, (B,)."""
    return nudge.each(count, base.dtype, base.x.device)


def _slope(phase: Phase, z: torch.Tensor, shapes: list[torch.Size]) -> torch.Tensor:
    blocks = unflat(z, shapes)
    return flat(phase.slope(blocks, phase.force(blocks)))


def _newton_step(
    phase: Phase, z: torch.Tensor, slope: torch.Tensor, shapes: list[torch.Size], forcing: float | torch.Tensor
) -> QuadraticStep:
    """-H^-1 slope at z, to `forcing` of the slope."""
    depth = min(2 * z.shape[1], 1000) + 10
    share = forcing if isinstance(forcing, torch.Tensor) else torch.full_like(z[:, 0], forcing)
    return conjugate_gradients(
        flat_hessian(phase, z, shapes), slope, share, depth, scale=flat_scale(phase, z, shapes)
    )


def _rounding(phase: Phase) -> torch.Tensor:
    """Displacements that may be rounding of the origin alone, (B,)."""
    assert phase.origin is not None
    return 1e3 * torch.finfo(phase.dtype).eps * largest(phase.origin)


def _size(v: torch.Tensor) -> torch.Tensor:
    """Largest entry of each example: one unit that jumps is not to be lost among many that do not."""
    return v.abs().amax(1)
