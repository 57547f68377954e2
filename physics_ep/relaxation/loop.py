"""Relaxation to equilibrium: the one outer loop that decides when to stop.

A solver (`physics_ep.relaxation.solvers`) proposes iterates; the loop alone decides when to stop, from the residual
of the very state that it returns. Examples that have converged are held still, so that a result does not depend on
the company it keeps.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..blocks import State, exactly_finite_rows, finite_rows, largest, narrowed
from ..cost import Cost, fitted_targets, require_own
from ..energies import outputs_of
from ..equilibrium import Equilibrium, Status, Trace
from ..errors import InputError, argument_error, is_real, require_count, unknown_name
from ..inference import differentiating
from ..nudging import Nudge, require_nudge
from ..physical_system import Inputs, Phase, PhysicalSystem
from ..reads import Surprise, likely, read, trusting
from ..stillness import require_system
from ..weights import Weights
from .newton import NewtonKrylov, trust_region
from .solvers import Anderson, Coordinate, GradientFlow, Solver

PATIENCE_AT_ROUNDING = 30
"""Iterations without progress after which a residual near rounding counts as stalled."""

NOTICED = 1e-11
"""Nudges of at least this part of the system's `nudge_scale` are not looked at for lost digits."""
DIGITS = 1e3
"""Displacements must be as many times the rounding of the state that they are added to."""

ROUNDED = 100
"""Times the rounding of 1: residuals of forces that count as 1 need not be told from zero below that."""
RESOLVED = 1e-6
"""Part of a nudge's own pull that a residual within rounding must be at most."""

PAYS = 0.5
"""Ratio of residuals of an iteration that pays, once the tolerance is met."""

SOLVERS: dict[str, Callable[[Phase, State], Solver]] = {
    "coordinate": Coordinate,
    "anderson": Anderson,
    "gradient_flow": GradientFlow,
    "newton_krylov": NewtonKrylov,
    "trust_region": trust_region,
}
"""The general solvers by name, for systems that hand out none of their own."""


def solve(
    phase: Phase,
    *,
    solver: str | None = None,
    tolerance: float | None = None,
    max_iterations: int | None = None,
    start: State | None = None,
    trace: bool = False,
    measure: bool = True,
) -> Equilibrium:
    """Relax one `Phase` until every example's residual meets the tolerance, or nothing more is to be had.

    Parameters
    ----------
    phase : Phase
    solver : str, optional
        A name in `SOLVERS`; default the system's.
    tolerance : float, optional
        Dimensionless residual. Default: the system's, times min(1, |beta| / nudge_scale) for displacements, whose
        contrast is divided by beta.
    max_iterations : int, optional
    start : State, optional
        First z (a state, or a displacement). Default `phase.start()`.
    trace : bool
        Keep residual, energy and state of every iteration.
    measure : bool
        Whether to measure the residual of a state that the phase knows by construction; if not, the status is
        `BY_CONSTRUCTION`, and only that the state is finite is checked. Also whether to look for NaN in a state
        that a solver has found, where its force may hide it; estimators look at what they make of the state.

    Returns
    -------
    Equilibrium
        Converged or not: see `status`, `residual`, `require()`.
    """
    system = phase.system
    own = system.joint_solvers if phase.joint else system.solvers(phase)
    methods = SOLVERS if own is None else own
    name = _default_solver(system, phase, methods) if solver is None else solver
    if phase.joint and (own is None or name not in own):
        name = "newton_krylov" if own is None else next(iter(own))
    if name not in methods:
        raise unknown_name(f"solver of {type(system).__name__}", name, methods)
    if own is None and name != "coordinate" and phase.dtype.itemsize < 4:
        kind = str(phase.dtype).removeprefix("torch.")
        must = f"be float32 or float64 for the solver {name!r}, whose steps are lost in the rounding of less"
        raise argument_error(f"system ({type(system).__name__})", must, kind)
    tolerance = phase_tolerance(phase, tolerance)
    if max_iterations is not None:
        require_count("max_iterations", max_iterations)
    with torch.no_grad():
        known = phase.known(name)
        if known is not None:
            return _known(phase, name, tolerance, known, trace, measure)
    z = phase.start() if start is None else start
    kept: list[tuple[torch.Tensor, torch.Tensor, State]] = []
    status = Status.BUDGET
    with torch.no_grad():
        lost = phase.hopeless()
        haste = lost is None and not trace and trusting(phase.x.device)
        method = methods[name](phase, z)
        method.tolerance = tolerance
        budget = max_iterations or method.budget or system.default_max_iterations
        method.most = 1 if trace or lost is not None else budget
        course = Decline()
        aim = phase.aim(tolerance)
        within: tuple[State, torch.Tensor, float] | None = None  # what has met the tolerance, and not the aim
        unread: list[torch.Tensor] = []
        made: list[int] = []  # evaluations until each of the unread
        # What has not moved yet is no equilibrium, most likely: nothing to wait for.
        ahead = (1 if method.idle is None else method.idle) if haste and start is None else 0
        while True:
            method.top_residual = None
            z, residual = method.evaluate()
            if trace:
                kept.append((residual, phase.energy(z), phase.state(z)))
            top = residual.max()
            if ahead and method.spent < budget and (method.steady or likely((top > tolerance) & top.isfinite())):
                ahead -= 1
                unread.append(top)
                made.append(method.spent)
                method.advance(residual > tolerance)
                continue
            spent, worst = method.spent, method.top_residual
            if worst is None:
                *before, worst = read(*unread, top)
                if before:
                    if not all(map(math.isfinite, before)):
                        raise Surprise
                    for early in before:
                        course.add(early)
                    # Once it has met the tolerance, it was held still.
                    met = (n for n, early in zip(made, before, strict=True) if early <= tolerance >= worst)
                    spent = next(met, spent)
                    unread, made = [], []
            if worst <= tolerance and phase.refine(z):
                residual = phase.residual(phase.force(z))
                worst, course = float(residual.max()), Decline()
            # An aim below the tolerance is what iterations that pay may reach, and nothing that a phase is held to.
            if within is not None and not worst <= PAYS * within[2]:
                aim = tolerance
                z, residual, worst = within if not worst <= within[2] else (z, residual, worst)
            if aim < worst <= tolerance and method.spent < budget:
                within = tuple(b.clone() for b in z), residual.clone(), worst
            elif worst <= tolerance:
                # A force may hide what a state holds: a bound, a maximum or a sum over some of it does.
                if not measure or likely(finite_rows(z).all()):
                    status = Status.CONVERGED
                    break
                rows = exactly_finite_rows(z)
                residual = residual.masked_fill(~rows, math.nan)
                status = Status.CONVERGED if bool(rows.all()) else Status.NOT_FINITE
                break
            active = residual > (tolerance if within is None else aim)
            if lost is not None and bool((active & lost[0]).any()):
                active = active & ~lost[0]
                if not bool(active.any()):
                    status = lost[1]
                    break
                worst = float(residual[active].max())
            finite = math.isfinite(worst)
            if not finite:
                active = active & torch.isfinite(residual)
                if not bool(active.any()):
                    status = Status.NOT_FINITE
                    break
                worst = float(residual[active].max())
            if method.spent >= budget:
                status = Status.BUDGET if bool(torch.isfinite(residual).all()) else Status.NOT_FINITE
                break
            course.add(worst)
            since = course.since
            patience = phase.patience or method.patience  # a solver may lose it on the way
            if since >= patience or (since >= PATIENCE_AT_ROUNDING and worst < rounding(z)):
                status = Status.STALLED
                break
            made_so_far = method.spent
            method.top_residual = worst
            method.advance(active)
            if haste and method.steady and finite:
                ahead = course.ahead(tolerance, made_so_far) if method.idle is None else method.idle
        z = method.finish(z)
        if status is not Status.CONVERGED:
            status = phase.verdict(z, residual) or status
    return _equilibrium(phase, name, tolerance, z, residual, status, spent, kept, method.time, method.by_block)


@dataclass
class Decline:
    """How the largest residual of a relaxation has gone so far.

    Attributes
    ----------
    best, last : float
        Least, and last one.
    since : int
        Iterations without progress.
    fastest : float
        Least ratio of one to the one before.
    """

    best: float = math.inf
    last: float = math.nan
    since: int = 0
    fastest: float = 1.0

    def add(self, worst: float) -> None:
        """Take in the residual of the next iterate."""
        self.since = 0 if worst < 0.999 * self.best else self.since + 1
        self.best = min(self.best, worst)
        self.fastest = min(self.fastest, worst / self.last) if self.last > 0 else self.fastest
        self.last = worst

    def ahead(self, tolerance: float, made: int) -> int:
        """Iterates before one can meet the tolerance at the fastest pace so far, of which nobody need be told.

        They are fewer than those made, so that a pace that quickens costs little, and than what counts as stalled.
        """
        if not (0 < self.fastest < 1 and tolerance > 0):
            return 0
        least = math.ceil(math.log(tolerance / self.last) / math.log(self.fastest))
        return max(0, min(least, made, PATIENCE_AT_ROUNDING - 1 - self.since) - 1)


def _default_solver(system: PhysicalSystem, phase: Phase, methods: Mapping[str, Any]) -> str:
    """The system's solver; one that needs no fast methods where a subclass has lost those of its ancestors."""
    name = system.default_solver
    if not system.overridden or methods is not SOLVERS or "default_solver" in vars(type(system)):
        return name
    if system.directions is not None:
        return "newton_krylov"
    # Mixing is for maps that contract, as exact updates do; plain descent has steps that fit any energy.
    return name if name == "trust_region" else "gradient_flow"


def _known(
    phase: Phase, solver: str, tolerance: float, known: tuple[State, torch.Tensor], trace: bool, measure: bool
) -> Equilibrium:
    """The equilibrium that a phase knows without a solver, as one iteration.

    It has converged if its measured residual says so, is one by construction if none is measured, or is not finite.
    """
    z, residual = known
    status = Status.BY_CONSTRUCTION
    if measure:
        residual = torch.maximum(residual, phase.measured(z).to(residual))
        status = Status.CONVERGED
    if not likely((residual <= tolerance).all()):
        rows = phase.finite(z)
        # A phase tells finite states by their sum, which may have overflowed.
        residual = torch.where(known[1].isnan(), torch.zeros_like(residual), known[1])
        if measure:
            residual = torch.maximum(residual, phase.measured(z).to(residual))
        residual = residual.masked_fill(~rows, math.nan)
        if not bool((rows & residual.isfinite()).all()):
            status = Status.NOT_FINITE
        elif not bool((residual <= tolerance).all()):
            status = Status.STALLED
    kept = [(residual, phase.energy(z), phase.state(z))] if trace else []
    return _equilibrium(phase, solver, tolerance, z, residual, status, 1, kept)


def _equilibrium(
    phase: Phase,
    solver: str,
    tolerance: float,
    z: State,
    residual: torch.Tensor,
    status: Status,
    iterations: int,
    kept: list[tuple[torch.Tensor, torch.Tensor, State]],
    time: torch.Tensor | None = None,
    by_block: torch.Tensor | None = None,
) -> Equilibrium:
    """What a relaxation returns; `kept` holds residual, energy and state of each iteration, for a trace."""
    narrow = phase.narrow
    return Equilibrium(
        _state=lambda: narrowed(phase.state(z), narrow),
        residual=residual,
        tolerance=tolerance,
        iterations=iterations,
        status=status,
        solver=solver,
        displacement=None if phase.origin is None else narrowed(z, narrow),
        residual_scale=phase.residual_scale,
        residual_unit=phase.system.residual_unit,
        trace=_collect(kept) if kept else None,
        time=time,
        by_block=by_block,
    )


def rounding(z: State) -> float:
    """Residual that may be rounding alone, for numbers of the size of z (a state or a displacement)."""
    return 100 * torch.finfo(z[0].dtype).eps * float(largest(z).max())


@differentiating
def relax(
    system: PhysicalSystem,
    x: torch.Tensor,
    nudge: Nudge | None = None,
    start: State | None = None,
    *,
    solver: str | None = None,
    tolerance: float | None = None,
    max_iterations: int | None = None,
    trace: bool = False,
    **options: Any,
) -> Equilibrium:
    """Let a system settle: the free phase, or a phase nudged by beta times a cost.

    Parameters
    ----------
    system : EnergySystem or VectorField
    x : Tensor (B, ...)
        Input, in the system's units.
    nudge : Nudge, optional
    start : State, optional
        State to start from. With a nudge, the displacement from here is what relaxes (and
        `Equilibrium.displacement` holds it): give the free state.
    solver, tolerance, max_iterations, trace
        See `solve`.
    **options
        Further arguments of the system's phases, such as gates='held' or 'live' of a predictive coding network.

    Returns
    -------
    Equilibrium

    Raises
    ------
    InputError
        If an argument does not fit the system.
    """
    require_system(system)
    require_nudge(nudge)
    weights = Weights(system)
    with torch.no_grad(), weights:
        weights.still.check(x)
        if nudge is None:
            weights.still.renew()
        inputs = prepared(system, x, {} if nudge is None else options)
        sound = True
        if start is not None:
            check_state(system, start, x)
            sound = bool(exactly_finite_rows(start).all())
        if nudge is None:
            phase = new_phase(system, inputs, options)
            # Elsewhere an example that starts from NaN ends as such, beside the others.
            if not sound and phase.known(solver or system.default_solver) is not None:
                raise start_not_finite()
            found = solve(
                phase, solver=solver, tolerance=tolerance, max_iterations=max_iterations, start=start, trace=trace
            )
            return of_finite_weights(weights, found)
        if not sound:
            raise start_not_finite()
        origin = system.initial_state(x) if start is None else start
        nudge = fitted_nudge(system, nudge, outputs_of(system, origin))
        phase = new_phase(system, inputs, options, origin=origin).nudged(nudge)
        found = solve(phase, solver=solver, tolerance=tolerance, max_iterations=max_iterations, trace=trace)
        return of_finite_weights(weights, found)


def of_finite_weights(weights: Weights, found: Equilibrium) -> Equilibrium:
    """What was found, if weights are finite; else no equilibrium."""
    if not found.status.settled or weights.finite():
        return found
    lost = torch.full_like(found.residual, math.nan)
    return replace(found, residual=lost, status=Status.NOT_FINITE)


def new_phase(
    system: PhysicalSystem,
    inputs: Inputs,
    options: dict[str, Any],
    *,
    origin: State | None = None,
    balanced: bool = False,
) -> Phase:
    """A phase of a system, with options that not every system has.

    Raises
    ------
    InputError
        If the system's phases do not take an option, or one relaxes on another input.
    """
    _check_options(system, options)
    phase = system.phase(inputs, origin=origin, balanced=balanced, **options)
    _require_same(system, "phase", phase.inputs.x, inputs.x)
    return phase


def prepared(system: PhysicalSystem, x: torch.Tensor, options: dict[str, Any]) -> Inputs:
    """`system.prepare(x)`, told the options of the phases to come if it asks for them.

    Raises
    ------
    InputError
        If it hands on another x, or the system's phases do not take an option.
    """
    known = _check_options(system, options)
    own = {name: options[name] for name in known & {*_parameters(system.prepare)}} if known else {}
    inputs = system.prepare(x, **own)
    _require_same(system, "prepare", inputs.x, x)
    return inputs


def _require_same(system: PhysicalSystem, method: str, found: torch.Tensor, x: torch.Tensor) -> None:
    """Refuse a method that hands on another x: contrasts and oracles differentiate the energy at the given one."""
    if found is x or (found.shape == x.shape and torch.equal(found, x.to(found))):
        return
    raise InputError(
        f"Argument system ({type(system).__name__}) must relax on the x that it is given, at which gradients are "
        f"taken, but its method {method} hands on another: change x within energy(state, x), or beforehand."
    )


def _check_options(system: PhysicalSystem, options: dict[str, Any]) -> set[str]:
    if not options:
        return set()
    known = [name for name in _parameters(system.phase) if name not in ("inputs", "origin", "balanced")]
    for option, value in options.items():
        if option not in known and not known:
            raise argument_error(
                option, f"be left out for {type(system).__name__}, which has no such option", value
            )
        if option not in known:
            raise unknown_name(f"option of {type(system).__name__}", option, known)
    return set(options)


def _parameters(method: Any) -> tuple[str, ...]:
    """Names of a method's arguments; to find them out takes as long as some ten small operators."""
    function = getattr(method, "__func__", None)
    return tuple(inspect.signature(method).parameters) if function is None else _argument_names(function)[1:]


@functools.lru_cache(maxsize=256)
def _argument_names(function: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)


def phase_tolerance(phase: Phase, tolerance: float | None) -> float:
    """The tolerance of a phase: the given one, or the default scaled by the nudge."""
    if tolerance is not None:
        if not (is_real(tolerance) and tolerance > 0):
            raise argument_error("tolerance", "be a positive number", tolerance)
        return float(tolerance)
    default = phase.system.default_tolerance(phase.narrow)
    if phase.nudge is None:
        return default
    found = default * phase.tolerance_share(phase.nudge.most)
    within = ROUNDED * torch.finfo(phase.dtype).eps
    if found >= within or phase.scales is None or phase.origin is None or not phase.balanced:
        return found
    # The scale was measured where outputs are flat, as saturated ones are. What the nudge pulls with tells more.
    pull = float(phase.residual(phase.force(phase.start())).max())
    return max(found, min(within, RESOLVED * pull)) if math.isfinite(pull) else found


def check_state(system: PhysicalSystem, state: State, x: torch.Tensor) -> None:
    """Raise InputError unless `state` has the system's blocks and x's batch."""
    want = [tuple(s.shape) for s in system.initial_state(x)]
    got = [tuple(s.shape) for s in state] if isinstance(state, tuple) else type(state).__name__
    if want != got:
        raise argument_error("start", f"be a tuple of tensors of shapes {want}", got)


def start_not_finite() -> InputError:
    """Build the error for a start with NaN or infinite entries."""
    return argument_error("start", "be finite", "NaN or infinite entries")


def check_outputs(system: PhysicalSystem, outputs: torch.Tensor, batch: int) -> None:
    """Raise InputError unless outputs have the shape (B, n_out)."""
    if outputs.ndim != 2 or len(outputs) != batch:
        name = f"system ({type(system).__name__})"
        raise argument_error(name, f"have outputs of shape ({batch}, n_out)", f"of shape {tuple(outputs.shape)}")


def check_cost(system: PhysicalSystem, cost: Cost) -> None:
    """Raise InputError if a cost on angles is asked of outputs that are not angles, or any other cost of angles."""
    if cost.angular and not system.angles:
        raise InputError(
            f"Argument cost must not be {cost.name!r} for {type(system).__name__}, whose outputs are no angles: it "
            "is for oscillators with readout 'phase'."
        )
    if system.angles and not cost.angular:
        raise InputError(
            f"Argument cost must not be {cost.name!r} for outputs that are angles, since it tells whole turns "
            "apart: take 'phase_error', or readout 'cos' or 'sin'."
        )


def check_strength(beta: float, dtype: torch.dtype) -> None:
    """Raise InputError if displacements by a nudge of size beta (0 for none) have not all their digits in a dtype.

    A displacement is some beta times a gradient; entries below the smallest normal number lose digits, and those
    below that over 1/eps vanish. Gradients down to eps of the largest are to survive, and 1/beta is to be finite.
    """
    limits = torch.finfo(dtype)
    least, most = limits.tiny / limits.eps**2, limits.max * limits.eps**2
    if least >= most:
        raise argument_error("system", "be float32, float64 or bfloat16", str(dtype).removeprefix("torch."))
    if beta != 0 and not least <= beta <= most:
        kind = str(dtype).removeprefix("torch.")
        must = f"lie between {least:.1g} and {most:.1g} in {kind}, which keeps no digits of displacements beyond"
        raise argument_error("beta", must, f"{beta:g}")


def require_digits(phase: Phase, found: Equilibrium) -> None:
    """Refuse a nudge whose displacements are lost: in the rounding of the state that they are added to, or of zero.

    Where the pull is below the rounding of the force, a phase is at rest without having moved. Only nudges that are
    small in the system's unit are looked at.

    Parameters
    ----------
    phase : Phase
        Displaced and nudged.
    found : Equilibrium
        What it settled in.

    Raises
    ------
    InputError
        If no example that settled has moved by what could be told from rounding, although its cost has a slope.
    """
    nudge, displacement, rows = phase.nudge, found.displacement, found.converged
    if nudge is None or displacement is None or not 0 < nudge.most < NOTICED * phase.nudge_scale:
        return
    if not bool(rows.any()):
        return
    moved = float(largest(displacement)[rows].max())
    limits = torch.finfo(phase.narrow)
    least, lost_in = limits.tiny / limits.eps, "below the smallest normal numbers"
    if not phase.carries_displacements and phase.origin is not None:
        size = float(largest(phase.origin)[rows].max())
        floor = DIGITS * torch.finfo(phase.dtype).eps * size
        if floor > least:
            least, lost_in = floor, f"in the rounding of states of {size:.2g}"
    if moved >= least:
        return
    slope = nudge.cost.gradient(phase.system.outputs(phase.state(phase.start())), nudge.y)
    if bool(slope[rows].any()):
        must = f"be large enough for displacements that keep digits: those of {moved:.2g} are lost {lost_in}"
        raise argument_error("beta", must, f"{nudge.most:g}")


def fitted_nudge(system: PhysicalSystem, nudge: Nudge, outputs: torch.Tensor) -> Nudge:
    """The nudge with targets as its cost takes them beside outputs (B, n_out).

    Raises
    ------
    InputError
        If it does not fit the system.
    """
    check_outputs(system, outputs, len(outputs))
    check_cost(system, nudge.cost)
    y = fitted_targets(nudge.cost, outputs, nudge.y)
    require_own(nudge.cost, outputs, y)
    check_strength(nudge.most, system.dtype)
    if nudge.is_complex and not system.analytic:
        name = type(system).__name__
        raise argument_error("beta", f"be real for {name}, whose energy takes no complex states", nudge.beta)
    shape = tuple(nudge.beta.shape) if isinstance(nudge.beta, torch.Tensor) else ()
    if shape not in ((), (len(outputs),)):
        raise argument_error("beta", f"be a number or of shape ({len(outputs)},)", f"of shape {shape}")
    return nudge if y is nudge.y else replace(nudge, y=y)


def _collect(kept: list[tuple[torch.Tensor, torch.Tensor, State]]) -> Trace:
    return Trace(
        residual=torch.stack([k[0] for k in kept]),
        energy=torch.stack([k[1] for k in kept]),
        state=tuple(torch.stack(blocks) for blocks in zip(*[k[2] for k in kept], strict=True)),
    )
