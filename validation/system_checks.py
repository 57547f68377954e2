"""Invariants that every system must keep, checked from outside: for those who bring their own."""

from __future__ import annotations

import copy
import math

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from physics_ep.blocks import State, flat, in_dtype, largest, unflat
from physics_ep.cost import (
    Cost,
    CrossEntropy,
    SquaredError,
    as_cost,
    as_targets,
    costs,
    fitted_targets,
    require_own,
)
from physics_ep.energies import forces
from physics_ep.errors import InputError
from physics_ep.estimators.propagation import EquilibriumPropagation
from physics_ep.inference import differentiating
from physics_ep.jacobians import Jacobian
from physics_ep.nudging import Nudge, centered, positive
from physics_ep.physical_system import Phase, PhysicalSystem
from physics_ep.relaxation.loop import new_phase, prepared, relax
from physics_ep.scales import NAMES as SCALES
from physics_ep.scales import Scales
from physics_ep.system import EnergySystem
from physics_ep.vector_field import VectorField
from physics_ep.weights import Weights, summed

from .gradients import estimate_gradient, total_error
from .oracles import Gradients, implicit_gradient

TOLERANCE = 1e-11
SMALL = 1e-8
"""Factor on the energy with which a system must still come to rest at the same state."""
FAR = 10.0
"""Targets this many times farther from the outputs than these are from their offset are far away."""
LEAST_PART = 1e-3
"""Nudges are made smaller by this at most, where targets are far from the outputs: rounding comes next."""
NOTHING = 1e-9
"""A gradient below this part of a cost over the parameters is zero."""
NEARLY_NOTHING = 1e-6
"""What EP may find for a gradient of zero, in that unit."""
LARGEST_SCALE = 1e3
"""A declared `residual_scale` may exceed the forces by this: the default tolerance of float32, 1e-6, then still
means a thousandth of them."""


@differentiating
def check_system(system: PhysicalSystem, x: torch.Tensor, y: torch.Tensor, cost: Cost | None = None) -> None:
    """Raise AssertionError, naming the invariant that the system breaks; return None if it keeps them all.

    Checked, on a float64 copy: shapes; the scale of residuals is that of forces, and units of the energy do not
    matter; examples do not see each other, in the energy or in the cost (their states do not, where batch norms in
    training mode normalise the input over the batch); outputs are linear, or their curvature is
    known; `force` is -dE/ds and the contrast is dE/dtheta's (both against central differences of `energy`; without
    an energy, autograd's derivative of the force and the contrast of its work, against differences of it);
    `project` is a projection; relaxation converges, and to a lower energy; an equilibrium stays; a nudged
    equilibrium has no force under E + beta C; implicit differentiation agrees with differences of the cost of
    relaxed states; and EP reaches its declared order against implicit differentiation.

    Parameters
    ----------
    system : EnergySystem or VectorField
    x : Tensor (B, ...)
        Input of at least two examples.
    y : Tensor, ndarray or sequence
        Targets: floating point for the squared error, class indices of any integer type for the cross-entropy.
    cost : Cost or callable, optional
        Default by the dtype of y.
    """
    y = as_targets(y)
    cost = as_cost(cost or (SquaredError() if y.dtype.is_floating_point else CrossEntropy()))
    weights = Weights(system)
    with weights:
        weights.still.check(x)
        twin = copy.deepcopy(system).double()  # it has the weights that the physics sees as plain parameters
    with torch.no_grad():
        twin.constrain()  # an optimizer's last step may have left the bounds, which EP would put right
    x = in_dtype(x, torch.float64)
    y = y.double() if y.dtype.is_floating_point else y
    with torch.no_grad():
        state = _check_shapes(twin, x)
        y = fitted_targets(cost, twin.outputs(state), y)
        phase = new_phase(twin, prepared(twin, x, {}), {})
        inside = _interior(twin, state)
        _check_cost(twin, y, cost, state)
        _check_scale(twin, x, inside, phase)
        _check_independence(twin, x, inside)
        _check_outputs(twin, x, y, cost, inside)
        _check_force(twin, x, inside)
        _check_contrast(twin, x, inside)
        _check_projection(twin, inside)
        free = _check_relaxation(twin, x, phase.scales)
        if type(phase) is Phase:
            _check_units(twin, x, free, phase.scales)
        part = _gentle_part(twin, y, cost, free)
        _check_nudged(twin, x, y, cost, free, phase, part * phase.nudge_scale)
        ordinary = max(float(costs(cost, twin.outputs(s), y).abs().mean()) for s in (inside, free))
        _check_stability(twin, x, free)
    exact = implicit_gradient(twin, x, y, cost, max_iterations=20 * twin.default_max_iterations)
    with torch.no_grad():
        _check_gradient(twin, x, y, cost, free, exact)
    _check_order(twin, x, y, cost, exact, phase.nudge_scale, part, ordinary)


def _require(holds: bool, invariant: str) -> None:
    if not holds:
        raise AssertionError(invariant)


def _check_shapes(system: PhysicalSystem, x: torch.Tensor) -> State:
    batch = x.shape[0]
    _require(batch >= 2, "check_system needs a batch of at least two examples")
    state = system.initial_state(x)
    _require(
        isinstance(state, tuple) and all(isinstance(s, torch.Tensor) and s.shape[:1] == (batch,) for s in state),
        "initial_state(x) must be a tuple of tensors with the batch axis first",
    )
    outputs = system.outputs(state)
    _require(
        isinstance(outputs, torch.Tensor) and outputs.is_floating_point(),
        f"outputs must be a floating-point tensor (batch, n_out), but are {_kind(outputs)}",
    )
    _require(outputs.ndim == 2 and outputs.shape[0] == batch, "outputs must have shape (batch, n_out)")
    if isinstance(system, VectorField):
        try:
            force = forces(system, state, x)
        except InputError as error:
            raise AssertionError(str(error)) from None
        finite = all(bool(torch.isfinite(f).all()) for f in force)
        _require(finite, "force must be finite at the initial state")
        return state
    energy = system.energy(state, x)
    _require(isinstance(energy, torch.Tensor), f"energy must be a tensor ({batch},), but is {_kind(energy)}")
    _require(energy.shape == (batch,), f"energy must have shape ({batch},), but has {tuple(energy.shape)}")
    _require(energy.is_floating_point(), f"energy must be real and floating-point, but is {energy.dtype}")
    _require(bool(torch.isfinite(energy).all()), "energy must be finite at the initial state")
    return state


def _law(system: PhysicalSystem, state: State, x: torch.Tensor) -> torch.Tensor:
    """What says how each example behaves, a row each: its energy, or its force."""
    return flat(system.force(state, x)) if isinstance(system, VectorField) else system.energy(state, x)[:, None]


def _gap(system: PhysicalSystem, high: State, low: State, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What a contrast differentiates, (B,), and the size of what it is a difference of: energies, or work."""
    if not isinstance(system, VectorField):
        top = system.energy(high, x)
        return top - system.energy(low, x), top.abs()
    middle = tuple((a + b) / 2 for a, b in zip(high, low, strict=True))
    moved = flat(system.coordinates(high)) - flat(system.coordinates(low))
    parts = moved * flat(system.force(middle, x))
    return -parts.sum(1), parts.abs().sum(1)


def _check_cost(system: PhysicalSystem, y: torch.Tensor, cost: Cost, state: State) -> None:
    outputs = system.outputs(state)
    try:
        require_own(cost, outputs, y)
    except InputError as error:
        raise AssertionError(f"batch independence: {error}") from None


def _kind(values: object) -> str:
    return f"of {values.dtype}" if isinstance(values, torch.Tensor) else f"a {type(values).__name__}"


def _interior(system: PhysicalSystem, state: State) -> State:
    """A random state well inside the bounds: the middle of where two projections land, shrunk towards it."""
    generator = torch.Generator().manual_seed(1)
    low = system.project(tuple(torch.full_like(s, -0.8) for s in state))
    high = system.project(tuple(torch.full_like(s, 0.8) for s in state))
    mixed = [torch.rand(s.shape, generator=generator, dtype=s.dtype).to(s.device) * 0.6 + 0.2 for s in state]
    return tuple(lo + m * (hi - lo) for lo, hi, m in zip(low, high, mixed, strict=True))


def _check_scale(system: PhysicalSystem, x: torch.Tensor, state: State, phase: Phase) -> None:
    """A declared scale against forces as they are: with one that is far too large, anything has converged."""
    if phase.scales is not None and "residual_scale" in system.unscaled:
        return
    declared = float(torch.as_tensor(phase.residual_scale).max())
    start = system.project(system.initial_state(x))
    forces = [float(largest(system.force(s, x)).nan_to_num(0.0, 0.0, 0.0).max()) for s in (start, state)]
    _require(
        declared <= LARGEST_SCALE * max(forces),
        f"residual_scale must be of the size of the system's forces, but is {declared:.3g} where they are "
        f"{max(forces):.3g} at the initial or at a random state: a residual over it says nothing",
    )


def _check_units(system: PhysicalSystem, x: torch.Tensor, free: State, scales: Scales | None) -> None:
    """The same system with its energy in units 1e8 times as large must come to rest at the same state."""
    kind = type(system)

    def energy(self: EnergySystem, state: State, x: torch.Tensor) -> torch.Tensor:
        return SMALL * kind.energy(self, state, x)

    own = {name: SMALL * getattr(system, name) for name in SCALES if name not in system.unscaled}
    small = copy.deepcopy(system)
    small.__class__ = type(kind.__name__, (kind,), {"energy": energy, **own})
    for name in SCALES:
        vars(small).pop(name, None)
    found = relax(small, x, tolerance=TOLERANCE, max_iterations=20 * system.default_max_iterations)
    length = 1.0 if scales is None else float(scales.length.max())
    apart = float((flat(found.state) - flat(free)).abs().max())
    _require(
        bool(found.converged.all()) and (system.multistable or apart <= 1e-6 * length),
        f"units: with {SMALL:g} times its energy the system must relax to the same state, but it ended {apart:.2g} "
        f"from it ({found.status.value})",
    )


def _check_independence(system: PhysicalSystem, x: torch.Tensor, state: State) -> None:
    if _normalises(system):  # the input over the batch, so that a batch of one is another input
        found = []
        for i in range(len(x)):
            others = tuple(s.roll(1, 0) for s in state)
            mixed = tuple(torch.cat([o[:i], s[i : i + 1], o[i + 1 :]]) for s, o in zip(state, others, strict=True))
            found.append(_law(system, mixed, x)[i])
        alone = torch.stack(found)
    else:
        rows = [(tuple(s[i : i + 1] for s in state), x[i : i + 1]) for i in range(len(x))]
        alone = torch.cat([_law(system, *row) for row in rows])
    together = _law(system, state, x)
    _require(
        float((alone - together).abs().max()) <= 1e-9 * float(together.abs().max()),
        f"batch independence: the {_kind_of_law(system)} of an example must not depend on the others in its batch",
    )


def _kind_of_law(system: PhysicalSystem) -> str:
    return "force" if isinstance(system, VectorField) else "energy"


def _normalises(system: PhysicalSystem) -> bool:
    """Whether a batch norm takes the statistics of the batch that it is given."""
    norms = [module for module in system.modules() if isinstance(module, _BatchNorm)]
    return any(norm.training or norm.running_mean is None for norm in norms)


def _check_outputs(system: PhysicalSystem, x: torch.Tensor, y: torch.Tensor, cost: Cost, state: State) -> None:
    phase = system.phase(system.prepare(x), origin=state, balanced=True)
    followed = system.multistable and system.smooth and system.descends and system.directions is None
    if isinstance(system, VectorField) and (system.own_coordinates is not None or system.multistable):
        return  # linear in the coordinates, it may be; of phases, they are read as angles
    if followed or phase.curvature_limit(cost, y, False) is not None:
        return
    once, twice = system.outputs(state), system.outputs(tuple(2 * s for s in state))
    offset = system.outputs(tuple(torch.zeros_like(s) for s in state))
    size = float((once.abs() + offset.abs()).max())
    _require(
        float((twice - 2 * once + offset).abs().max()) <= 1e-10 * size,
        "outputs must be linear in the state up to an offset (responses are read through it), or phases know their "
        "curvature_limit, or the system is multistable, so that branches are checked",
    )


def _check_force(system: PhysicalSystem, x: torch.Tensor, state: State) -> None:
    generator = torch.Generator().manual_seed(2)
    force = flat(system.force(state, x))
    shapes = [s.shape for s in state]
    if isinstance(system, VectorField):
        jacobian = Jacobian(lambda s: system.slope(s, x), state)
        v = torch.randn(force.shape, generator=generator, dtype=force.dtype).to(force.device)
        h = 1e-6
        up, down = (flat(system.force(unflat(flat(state) + way * h * v, shapes), x)) for way in (1, -1))
        slope, mine = (up - down) / (2 * h), jacobian.along(v)
        _require(
            bool(((slope - mine).abs() <= 1e-5 * slope.abs().max() + 1e-9 * force.abs().max()).all()),
            "force must be a function of its arguments alone that autograd can follow: differences of it disagree "
            "with its derivative",
        )
        return
    for _ in range(3):
        v = torch.randn(force.shape, generator=generator, dtype=force.dtype).to(force.device)
        h = 1e-6
        up = system.energy(unflat(flat(state) + h * v, shapes), x)
        down = system.energy(unflat(flat(state) - h * v, shapes), x)
        slope = (up - down) / (2 * h)
        mine = -(force * v).sum(1)
        # The last term is what the energies themselves are rounded by.
        allowed = 1e-4 * slope.abs() + 1e-6 * slope.abs().max() + 1e-9 * up.abs()
        _require(
            bool(((slope - mine).abs() <= allowed).all()),
            "force must be -dE/ds: it disagrees with central differences of energy",
        )


def _check_contrast(system: PhysicalSystem, x: torch.Tensor, state: State) -> None:
    generator = torch.Generator().manual_seed(3)
    # A contrast is that of one smooth piece of the energy (max pooling has many): stay within it.
    reach = 0.05 if system.smooth else 1e-4
    lots = (torch.rand(s.shape, generator=generator, dtype=s.dtype).to(s.device) for s in state)
    shift = tuple(reach * (2 * lot - 1) for lot in lots)
    plus = tuple(p - s for p, s in zip(_shifted(system, state, shift, 1), state, strict=True))
    minus = tuple(m - s for m, s in zip(_shifted(system, state, shift, -1), state, strict=True))
    weight = torch.rand(x.shape[0], generator=generator, dtype=state[0].dtype).to(x.device)
    for down in (minus, None):
        grads = summed(system, system.contrast(state, plus, down, x, weight))
        for name, p in system.named_parameters():
            if not p.requires_grad:
                continue
            absent = name not in grads  # right where the energy does not depend on it
            grads.setdefault(name, torch.zeros_like(p))
            _require(
                grads[name].shape == p.shape,
                f"contrast must return a tensor of its shape for every parameter; {name} is missing or misshapen",
            )
            v = torch.randn(p.shape, generator=generator, dtype=p.dtype).to(p.device)
            h = 1e-5 * max(1.0, float(p.abs().max()))
            kept = p.data.clone()
            gaps = []
            rounding = size_of_energy = 0.0
            for sign in (1, -1):
                p.data = kept + sign * h * v
                high = tuple(s + d for s, d in zip(state, plus, strict=True))
                base = state if down is None else tuple(s + d for s, d in zip(state, down, strict=True))
                gap, whole = _gap(system, high, base, x)
                gaps.append(float((weight * gap).sum()))
                # What the energies themselves are rounded by, as the difference quotient shows it.
                total = float((weight * whole).sum())
                size_of_energy = max(size_of_energy, total)
                rounding += total * torch.finfo(state[0].dtype).eps / h
            p.data = kept
            slope = (gaps[0] - gaps[1]) / (2 * h)
            mine = float((grads[name] * v).sum())
            size = float(grads[name].norm() * v.norm()) + abs(slope)
            _require(
                not absent or abs(slope) <= 1e-9 * size_of_energy + rounding,
                f"contrast must return a tensor of its shape for every parameter; {name} is missing or misshapen",
            )
            _require(
                abs(slope - mine) <= 1e-5 * size + 1e-9 * size_of_energy + rounding,
                f"contrast of {name} must be the change of dE/dtheta between the two states (sign and factor too): "
                f"central differences give {slope:.6g}, contrast {mine:.6g}",
            )


def _shifted(system: PhysicalSystem, state: State, shift: State, sign: int) -> State:
    return system.project(tuple(s + sign * d for s, d in zip(state, shift, strict=True)))


def _check_projection(system: PhysicalSystem, state: State) -> None:
    far = tuple(3 * s + 0.1 for s in state)
    once = system.project(far)
    _require(
        system.bounded or all(torch.equal(a, b) for a, b in zip(far, once, strict=True)),
        "bounded must be True where project moves a state",
    )
    twice = system.project(once)
    _require(
        all(torch.equal(a, b) for a, b in zip(once, twice, strict=True)),
        "project must leave a state within the bounds alone",
    )


def _check_relaxation(system: PhysicalSystem, x: torch.Tensor, scales: Scales | None) -> State:
    budget = 20 * system.default_max_iterations
    length = 1.0 if scales is None else float(scales.length.max())
    unit = 1.0 if scales is None else float((scales.force * scales.length).max())
    free = relax(system, x, tolerance=TOLERANCE, max_iterations=budget)
    _require(
        bool(free.converged.all()),
        f"relaxation must reach a residual of {TOLERANCE:g} from initial_state: {free.status.value} "
        f"(worst residual {float(free.residual.max()):.2g})",
    )
    outside = (flat(system.project(free.state)) - flat(free.state)).abs().max()
    _require(float(outside) <= 1e-12 * length, "an equilibrium must lie within the bounds: project moves it")
    if system.descends:
        before = system.energy(system.project(system.initial_state(x)), x)
        after = system.energy(free.state, x)
        _require(
            bool((after <= before + 1e-10 * (unit + before.abs())).all()),
            "descent: relaxation must end at an energy no higher than where it began (or set descends = False)",
        )
    again = relax(system, x, start=free.state, tolerance=TOLERANCE, max_iterations=budget)
    moved = (flat(again.state) - flat(free.state)).abs().max()
    # A measured scale may be another where relaxation begins at the equilibrium, and ask for a few steps more.
    at_once = again.iterations <= 2 or scales is not None
    _require(
        at_once and float(moved) <= 1e-8 * length,
        "a fixed point must stay: relaxing from an equilibrium moved it",
    )
    if _normalises(system):
        return free.state
    alone = relax(system, x[:1], tolerance=TOLERANCE, max_iterations=budget)
    apart = (flat(alone.state) - flat(free.state)[:1]).abs().max()
    _require(
        float(apart) <= 1e-6 * length,
        "batch independence: an example relaxed alone must end where it ends in a batch",
    )
    return free.state


def _check_stability(system: PhysicalSystem, x: torch.Tensor, free: State) -> None:
    """A free state without an energy must be one that the motion returns to."""
    value = new_phase(system, prepared(system, x, {}), {}, origin=free, balanced=True).rightmost()
    if value is None:
        return
    worst = value[value.real.nan_to_num(nan=-math.inf).argmax()]
    _require(
        not float(worst.real) > 0,
        f"the free state must be stable, but the rightmost eigenvalue of the motion there is {complex(worst):.3g} "
        "(does the force of a block that ascends have the sign of -dE/ds?)",
    )


def _gentle_part(system: PhysicalSystem, y: torch.Tensor, cost: Cost, free: State) -> float:
    """Part of `nudge_scale` that is gentle where targets are far away: orders in beta are of small nudges.

    Far is more than ten times what the outputs are beyond their offset.
    """
    outputs = system.outputs(free)
    own = float((outputs - system.outputs(tuple(torch.zeros_like(s) for s in free))).abs().max())
    pull = float(cost.gradient(outputs, y).abs().max())
    return max(LEAST_PART, min(1.0, FAR * own / pull)) if own > 0 and pull > 0 else 1.0


def _check_nudged(
    system: PhysicalSystem, x: torch.Tensor, y: torch.Tensor, cost: Cost, free: State, phase: Phase, unit: float
) -> None:
    nudge = Nudge(cost, y, 1e-2 * unit)
    budget = 20 * system.default_max_iterations
    found = relax(system, x, nudge=nudge, start=free, tolerance=1e-2 * TOLERANCE, max_iterations=budget)
    _require(bool(found.converged.all()), f"a small positive nudge must have an equilibrium: {found.status.value}")
    with torch.enable_grad():
        leaves = tuple(s.detach().requires_grad_() for s in found.state)
        pull = torch.autograd.grad(nudge.energy(system.outputs(leaves)).sum(), leaves, allow_unused=True)
        both = zip(system.slope(leaves, x), pull, strict=True)
        slope = [
            sum((g for g in pair if g is not None), torch.zeros_like(s))
            for pair, s in zip(both, leaves, strict=True)
        ]
        if isinstance(system, VectorField):  # nudges are forces on coordinates
            placed = torch.cat([c.flatten() for c in system.coordinates(leaves)])
            steep = torch.autograd.grad(placed.sum(), leaves)
            slope = [g if p is None else g - p + p / k for g, p, k in zip(slope, pull, steep, strict=True)]
    # A short step along the force, in states over forces of the system's own size.
    scale = float(torch.as_tensor(phase.residual_scale).max())
    h = 1e-3 / scale if phase.scales is None else 1e-3 * float(phase.scales.reach.min())
    directions = system.directions or (1,) * len(slope)
    landed = system.project(
        tuple(s - way * h * g for s, g, way in zip(found.state, slope, directions, strict=True))
    )
    left = (flat(landed) - flat(found.state)).abs().max() / h
    _require(
        float(left) <= 1e-6 * scale,
        "a nudged equilibrium must have no force left under E + beta C within the bounds: "
        f"autograd finds {float(left):.2g} (is the nudge's sign or factor wrong?)",
    )


def _check_gradient(
    system: PhysicalSystem, x: torch.Tensor, y: torch.Tensor, cost: Cost, free: State, exact: Gradients
) -> None:
    """The exact gradient against what a small change of all parameters does to the cost of relaxed states."""
    generator = torch.Generator().manual_seed(4)
    kept = {n: p.data.clone() for n, p in system.named_parameters() if p.requires_grad}
    ways = {}
    for name, p in kept.items():
        size = p.abs().clamp(min=1e-3 * float(p.abs().max()))
        if not bool(p.any()):  # zeros do not tell their unit: as far as would change the cost by its own size
            steep = float(exact[name].abs().max())
            size = torch.full_like(p, max(abs(exact.loss), 1e-3) / steep if steep > 0 else 1.0)
        ways[name] = size * torch.randn(p.shape, generator=generator, dtype=p.dtype).to(p.device)
    h = 1e-5
    losses = []
    for sign in (1, -1):
        for name, p in system.named_parameters():
            if name in kept:
                p.data = kept[name] + sign * h * ways[name]
        found = relax(system, x, start=free, tolerance=TOLERANCE, max_iterations=20 * system.default_max_iterations)
        losses.append(float(costs(cost, system.outputs(found.state), y).mean()))
    for name, p in system.named_parameters():
        if name in kept:
            p.data = kept[name]
    slope = (losses[0] - losses[1]) / (2 * h)
    parts = [exact[name] * way for name, way in ways.items()]
    mine = sum(float(part.sum()) for part in parts)
    typical = math.sqrt(sum(float(part.square().sum()) for part in parts)) + abs(slope)
    allowed = (1e-3 if system.smooth else 5e-2) * typical + 1e-5 * abs(losses[0])
    _require(
        abs(slope - mine) <= allowed,
        "implicit differentiation must agree with the cost of relaxed states: a change of the parameters changes "
        f"it at a rate of {slope:.6g}, but the gradient says {mine:.6g} (do outputs, bounds or a force depend on "
        "parameters in a way that autograd does not see?)",
    )


def _check_order(
    system: PhysicalSystem,
    x: torch.Tensor,
    y: torch.Tensor,
    cost: Cost,
    exact: Gradients,
    nudge_scale: float,
    part: float,
    ordinary: float,
) -> None:
    """EP against implicit differentiation, at betas in the unit part * nudge_scale.

    `ordinary` is a cost as it comes. A gradient that is nothing beside it over the parameters is zero: a relative
    error would be that of rounding.
    """
    named = dict(system.named_parameters())
    natural = math.sqrt(sum((ordinary / (float(named[n].detach().norm()) or 1.0)) ** 2 for n in exact))
    size = math.sqrt(sum(float(g.square().sum()) for g in exact.values()))
    vanishing = size <= NOTHING * natural

    def error(scheme: object, beta: float) -> float:
        ep = EquilibriumPropagation(
            cost,
            scheme,  # type: ignore[arg-type]
            beta * part * nudge_scale,
            tolerance=TOLERANCE / part,
            max_iterations=20 * system.default_max_iterations,
        )
        found = estimate_gradient(ep, system, x, y)[0]
        if not vanishing:
            return total_error(found, exact)
        gaps = (g - found[n] if n in found else g for n, g in exact.items())
        return math.sqrt(sum(float(g.square().sum()) for g in gaps)) / (natural or 1.0)

    if vanishing:
        found = error(centered(), 1e-3)
        _require(
            found <= NEARLY_NOTHING,
            "EP must agree with implicit differentiation, whose gradient is zero, but is "
            f"{found:.2g} of a cost over the parameters",
        )
        return
    if not system.smooth:
        found = error(centered(), 1e-4)
        _require(
            found <= 5e-2,
            f"EP at beta 1e-4 must agree with implicit differentiation: relative error {found:.2g}",
        )
        return
    for stencil in (centered(), positive()):
        coarse, fine = error(stencil, 1e-2), error(stencil, 1e-3)
        if fine < 1e-8:
            continue  # below what the residual can resolve: the energy is quadratic, or nearly so
        order = math.log10(coarse / fine)
        _require(
            fine < 0.1 and abs(order - stencil.order) <= 0.25,
            f"EP ({stencil.name}) must approach implicit differentiation at order {stencil.order} in beta: "
            f"measured {order:.2f}, relative error {fine:.2g} at beta 1e-3",
        )
