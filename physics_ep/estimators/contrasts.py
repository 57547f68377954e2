"""Nudged phases and what is learnt from them: relaxed by a recipe, contrasted, and judged for noise and leakage."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ..blocks import State, in_dtype, masked, narrowed
from ..cost import Cost, costs
from ..equilibrium import Equilibrium
from ..extremes import greatest
from ..nudging import Nudge, Stencil
from ..physical_system import Phase, PhysicalSystem, widened
from ..reads import likely
from ..relaxation.loop import new_phase, prepared, solve
from ..weights import summed
from .methods import MethodChoice
from .mirrored import OddPart


@dataclass(frozen=True)
class Recipe:
    """How a step nudges and relaxes.

    Attributes
    ----------
    scheme : Stencil
    pull : Cost
        What nudged phases add to the energy.
    beta : float
    solver, max_iterations
        The arguments of `relaxation.solve` of the same names.
    tolerance : float or None
        Residual that nudged phases are held to; None: the system's default.
    options : mapping
        Further arguments of the system's phases, such as gates='held' or 'live' of a predictive coding network.
    choice : MethodChoice
        The method of EP that systems are given.
    droop : float
        Share of itself that a stored free state loses between one nudged phase and the next.
    """

    scheme: Stencil
    pull: Cost
    beta: float
    solver: str | None = None
    tolerance: float | None = None
    max_iterations: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    choice: MethodChoice | None = None
    droop: float = 0.0

    @property
    def mirrored(self) -> bool:
        """Whether the state under -beta is the mirror image of the one under +beta (`estimators.mirrored`)."""
        return isinstance(self.pull, OddPart)

    def relaxed(self) -> tuple[int, ...]:
        """Nodes that need a nudged phase of their own."""
        return (0,) if self.mirrored else self.scheme.relaxed()

    def nudge(self, i: int, y: torch.Tensor, signs: torch.Tensor | None = None) -> Nudge:
        """The nudge at node i of the scheme; signs (B,) multiply it where the scheme draws them."""
        strength = self.beta * self.scheme.nodes[i]
        return Nudge(self.pull, y, strength if signs is None else strength * signs)

    def solve(self, phase: Phase, start: State | None = None) -> Equilibrium:
        """Relax a nudged phase by the recipe's solver, tolerance and limit of iterations."""
        return solve(
            phase,
            solver=self.solver,
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
            start=start,
            measure=False,
        )


def relax_nudged(
    recipe: Recipe,
    base: Phase,
    y: torch.Tensor,
    signs: torch.Tensor | None,
    starts: dict[int, State] | None = None,
) -> dict[int, Equilibrium]:
    """Displacements at the scheme's nodes other than 0: all at once where the system can, else in turn.

    Parameters
    ----------
    recipe : Recipe
    base : Phase
        Displaced and balanced, not nudged.
    y : Tensor
        Targets.
    signs : Tensor (B,) or None
    starts : dict, optional
        First displacement of each node's phase.

    Returns
    -------
    dict
        Number of the node to what its phase settled in.
    """
    scheme = recipe.scheme
    nudges = {i: recipe.nudge(i, y, signs) for i in recipe.relaxed()}
    # What a store loses, it loses between one phase and the next: at once, they would all have it whole.
    stack = base.stacked(list(nudges.values())) if len(nudges) > 1 and not recipe.droop else None
    if stack is not None:
        start = None
        if starts is not None:
            start = stack.joined([starts[i] for i in nudges])
        found = recipe.solve(stack, start)
        return dict(zip(nudges, stack.parted(found, len(nudges)), strict=True))
    phases: dict[int, Equilibrium] = {}
    for i, nudge in nudges.items():
        start = None
        if starts is not None:
            start = starts[i]
        elif phases:
            # The displacement is linear in beta to first order.
            j, known = next(reversed(phases.items()))
            scale = scheme.nodes[i] / scheme.nodes[j]
            assert known.displacement is not None
            start = tuple(scale * d for d in narrowed(known.displacement, base.dtype))
            start = start if scheme.analytic else base.nudged(nudge).project(start)
        phase = base.nudged(nudge)
        start = phase.likely_start() if start is None else start
        phases[i] = recipe.solve(phase.drooped(recipe.droop * len(phases)) if recipe.droop else phase, start)
    return phases


def contrast(
    recipe: Recipe,
    system: PhysicalSystem,
    base: Phase,
    free: Equilibrium,
    phases: dict[int, Equilibrium],
    x: torch.Tensor,
    signs: torch.Tensor | None,
    weight: torch.Tensor,
    whole: bool,
) -> dict[str, torch.Tensor]:
    """The scheme's sum of contrasts over beta, each state with its weight (B,) in the mean; by parameter name.

    `whole`: no weight is 0.
    """
    pairs = _pairs(recipe, system, base, free, phases, signs, weight, whole)
    if recipe.mirrored:
        return _total(system, (phase.mirrored_contrast(system, s, up, x, w) for phase, s, up, _, w in pairs))
    return _total(system, (phase.contrast(system, s, up, other, x, w) for phase, s, up, other, w in pairs))


def _total(system: PhysicalSystem, parts: Iterable[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Sum of contrasts, by parameter name."""
    grads: dict[str, torch.Tensor] = {}
    for part in parts:
        grads = part if not grads else {name: grads[name] + part[name] for name in grads}
    return summed(system, grads)


def even_part(
    recipe: Recipe,
    system: PhysicalSystem,
    base: Phase,
    free: Equilibrium,
    phases: dict[int, Equilibrium],
    x: torch.Tensor,
    weight: torch.Tensor,
    whole: bool,
    estimate: dict[str, torch.Tensor],
) -> dict[str, torch.Tensor] | None:
    """What the estimate by the first nudges alone has beyond `estimate`: half of what opposite ones differ by.

    None where a nudge of the scheme has no opposite, or that is its mirror image.
    """
    if recipe.mirrored or any(j is None or complex(w).imag for _, j, w in recipe.scheme.halved_pairs()):
        return None
    pairs = _pairs(recipe, system, base, free, phases, None, weight, whole)
    first = _total(system, (phase.contrast(system, s, up, None, x, 2 * w) for phase, s, up, _, w in pairs))
    return {name: g - estimate[name] for name, g in first.items()}


def direct_gradient(
    system: PhysicalSystem, state: State, cost: Cost, y: torch.Tensor, weight: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Sum over the batch of weight * dC/dtheta at fixed state: what the outputs themselves owe to parameters.

    With F = E + beta C the gradient of the cost is d/dbeta dF/dtheta = d/dbeta dE/dtheta + dC/dtheta (Scellier and
    Bengio 2017, theorem 1). The second term is exact at the free state, whatever beta is.

    Parameters
    ----------
    system : EnergySystem or VectorField
    state : tuple of Tensor (B, ...)
        The free state.
    cost : Cost
    y : Tensor
    weight : Tensor (B,)
        Examples of weight 0 are left out, whatever their state.

    Returns
    -------
    dict
        Parameter name to tensor of its shape, of the parameters that the outputs depend on.
    """
    named = {n: p for n, p in system.named_parameters() if p.requires_grad}
    rows = weight != 0
    with torch.enable_grad():
        outputs = system.outputs(tuple(s.detach()[rows] for s in state))
        if not outputs.requires_grad:
            return {}
        total = (costs(cost, outputs, y[rows]) * weight[rows]).sum()
        grads = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    return {n: g for n, g in zip(named, grads, strict=True) if g is not None}


def added(grads: dict[str, torch.Tensor], more: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Sum of two gradients, parameter by parameter."""
    return grads | {n: grads[n] + g if n in grads else g for n, g in more.items()}


def input_contrast(
    recipe: Recipe,
    system: PhysicalSystem,
    base: Phase,
    free: Equilibrium,
    phases: dict[int, Equilibrium],
    x: torch.Tensor,
    signs: torch.Tensor | None,
    weight: torch.Tensor,
    whole: bool,
) -> torch.Tensor:
    """The scheme's sum of `Phase.input_contrast` over beta: the gradient of the mean cost with respect to x."""
    total = torch.zeros_like(x)
    for phase, state, up, other, w in _pairs(recipe, system, base, free, phases, signs, weight, whole):
        opposite = tuple(-d for d in up) if recipe.mirrored else other
        total = total + phase.input_contrast(state, up, opposite, x, w)
    return total


def _pairs(
    recipe: Recipe,
    system: PhysicalSystem,
    base: Phase,
    free: Equilibrium,
    phases: dict[int, Equilibrium],
    signs: torch.Tensor | None,
    weight: torch.Tensor,
    whole: bool,
) -> Iterator[tuple[Phase, State, State, State | None, torch.Tensor]]:
    """(phase, free state, displacement, its opposite or None, weight over beta (B,)) of each pair of the scheme.

    States are as the system's instruments read them. Examples of weight 0 are set to zero, so that their NaN cannot
    leak.
    """
    scheme = recipe.scheme
    keep = None if whole else weight > 0
    state = masked(free.state, keep)
    if keep is not None:
        base = base.without(~keep)
    if signs is not None:
        weight = weight * signs
    moved = {i: masked(found.displacement, keep) for i, found in phases.items()}
    for i, partner in scheme.mirrored():
        moved[i] = tuple(d.conj().resolve_conj() for d in moved[partner])
    if recipe.mirrored:
        yield base, state, moved[0], None, weight / (2 * recipe.beta)
        return
    for i, j, w in scheme.halved_pairs():
        read = system.readings(state, moved[i], None if j is None else moved[j])
        yield base, *read, weight * (w / recipe.beta)


def noise_floors(
    recipe: Recipe,
    system: PhysicalSystem,
    x: torch.Tensor,
    y: torch.Tensor,
    phases: tuple[Equilibrium, dict[int, Equilibrium]],
    signs: torch.Tensor | None,
    weight: torch.Tensor,
    grads: dict[str, torch.Tensor],
) -> dict[str, float]:
    """Twice the distance to the same estimate taken in float64 with the residuals driven to their floor.

    Parameters
    ----------
    phases
        The free phase, and the nudged ones by the number of their node.
    weight : Tensor (B,)
        Weight of each state in the mean.

    Returns
    -------
    dict
        Parameter name to relative error; '' for the gradient as one vector.
    """
    free, nudged = phases
    options = dict(recipe.options)
    with torch.no_grad():
        twin = widened(system)
        wide = twin.dtype
        inputs = prepared(twin, in_dtype(x, wide), options)
        target = y.to(wide) if y.dtype.is_floating_point else y
        tight = 1e-15
        settled = replace(recipe, tolerance=tight).solve(twin.phase(inputs), tuple(s.to(wide) for s in free.state))
        base = new_phase(twin, inputs, options, origin=settled.state, balanced=True)
        if recipe.choice is not None:
            base = recipe.choice.nudging(base)
        signs = None if signs is None else signs.to(wide)
        starts = {i: narrowed(found.displacement or (), wide) for i, found in nudged.items()}
        exact = replace(recipe, tolerance=tight * base.tolerance_share(recipe.beta))
        if isinstance(recipe.pull, OddPart):
            exact = replace(exact, pull=OddPart(recipe.pull.cost, twin.outputs(settled.state)))
        better = relax_nudged(exact, base, target, signs, starts)
        whole = bool((weight > 0).all())
        reference = contrast(exact, twin, base, settled, better, inputs.x, signs, weight.to(wide), whole)
        if not recipe.pull.holds:
            reference = added(reference, direct_gradient(twin, settled.state, recipe.pull, target, weight.to(wide)))
    eps = torch.finfo(wide).eps
    floors = {}
    squares = [0.0, 0.0]
    for name, g in grads.items():
        size = float(reference[name].norm())
        error = 2 * float((reference[name] - g.to(wide)).norm()) + 8 * eps * size
        floors[name] = error / size if size > 0 else (0.0 if error == 0 else math.inf)
        squares[0] += error**2
        squares[1] += size**2
    known = squares[1] > 0
    floors[""] = math.sqrt(squares[0] / squares[1]) if known else (0.0 if squares[0] == 0 else math.inf)
    return floors


def mirror_gap(recipe: Recipe, base: Phase, y: torch.Tensor, phases: dict[int, Equilibrium]) -> float:
    """How far a phase is from the conjugate of its mirror image; see `Step.imaginary_leakage`."""
    mirrored = recipe.scheme.mirrored()
    if not mirrored:
        return 0.0
    i, j = mirrored[0]
    found = recipe.solve(base.nudged(recipe.nudge(i, y)))
    known = phases[j].displacement
    assert known is not None
    assert found.displacement is not None
    gap = greatest(float((a - b.conj()).abs().max()) for a, b in zip(found.displacement, known, strict=True))
    return gap / greatest(float(b.abs().max()) for b in known)


def surely_finite(
    system: PhysicalSystem,
    x: torch.Tensor,
    free: Equilibrium,
    phases: Iterable[Equilibrium],
    beta: float,
    grads: dict[str, torch.Tensor],
) -> bool:
    """Whether a gradient must be finite since states, displacements and inputs are small numbers.

    Entries of a bilinear contrast are means over the batch of products of two of these, over beta. A margin of 1e10
    is left for gains and counts. Networks whose gradient is much larger than that are spared a pass over it; where
    it is not, nothing is looked at here.
    """
    if not system.bilinear:
        return False
    blocks = [x, *free.state]
    for phase in phases:
        if phase.displacement is None:
            return False
        blocks += phase.displacement
    # The sum of a gradient, by which it is judged otherwise, costs two thirds of norms of as many numbers.
    if x.device.type == "cpu" and 3 * sum(b.numel() for b in blocks) > 2 * sum(g.numel() for g in grads.values()):
        return False
    # The Euclidean norm bounds the largest entry, and costs less than looking for that.
    sizes = [torch.linalg.vector_norm(b) for b in blocks]
    most = math.sqrt(1e-10 * torch.finfo(x.dtype).max * abs(beta))
    if x.device.type == "cpu":  # numbers cost less than tensors of one entry
        return all(size.item() < most for size in sizes)
    return likely((torch.stack([size.double() for size in sizes]) < most).all())
