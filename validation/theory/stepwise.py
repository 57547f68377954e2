"""EP in time: its running update during the nudged phase is truncated backprop through time, step by step.

For a discrete dynamics whose step is the gradient of a scalar, s <- s - h dE/ds here, the EP estimate after k
nudged steps from the free state equals, as beta -> 0, the gradient that backprop through the last k steps of the
free phase gives (Ernoult, Grollier, Querlioz, Bengio and Scellier, NeurIPS 2019, theorem 1). Both courses cost
O(k): the backward one is a single sweep whose partial sums are the truncations.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from physics_ep.blocks import State, in_dtype
from physics_ep.cost import Cost
from physics_ep.errors import argument_error, is_real, require_count
from physics_ep.physical_system import PhysicalSystem, widened

from ..oracles import free_state, wide_target


@dataclass(frozen=True)
class StepwiseEstimates:
    """Gradient estimates after each of k = 1 ... K steps.

    Attributes
    ----------
    ep, bptt : dict
        Parameter name to tensor (K, *shape): EP's running estimate, truncated backprop through time.
    relative_difference : Tensor (K,)
        |ep - bptt| / |bptt| of all parameters as one vector.
    residual : float
        Residual of the free state from which both methods start.
    """

    ep: dict[str, torch.Tensor]
    bptt: dict[str, torch.Tensor]
    relative_difference: torch.Tensor
    residual: float


def stepwise(
    system: PhysicalSystem,
    x: torch.Tensor,
    y: torch.Tensor,
    cost: Cost,
    *,
    beta: float = 1e-4,
    steps: int = 30,
    step: float = 0.2,
    tolerance: float = 1e-13,
) -> StepwiseEstimates:
    """Run a nudged relaxation and backpropagation through time from the same free state, step by step, in float64.

    Parameters
    ----------
    system : EnergySystem or VectorField
    x, y : Tensor
    cost : Cost
    beta : float
        Nudging strength of the two nudged courses, +beta and -beta: the difference is O(beta^2).
    steps : int
        K.
    step : float
        h, in state units per force unit; both dynamics are explicit descent within the bounds.
    tolerance : float
        Residual of the free state.

    Returns
    -------
    StepwiseEstimates
    """
    if not (is_real(beta) and beta > 0):
        raise argument_error("beta", "be a positive number", beta)
    require_count("steps", steps)
    if not (is_real(step) and step > 0):
        raise argument_error("step", "be a positive number", step)
    twin = widened(system)
    x, y = in_dtype(x, torch.float64), wide_target(y)
    free = free_state(twin, x, tolerance, None)
    ep = _ep_course(twin, x, y, cost, free.state, beta, steps, step)
    bptt = _bptt_course(twin, x, y, cost, free.state, steps, step)
    gap = sum((ep[n] - bptt[n]).flatten(1).square().sum(1) for n in ep)
    size = sum(g.flatten(1).square().sum(1) for g in bptt.values())
    assert isinstance(gap, torch.Tensor)
    assert isinstance(size, torch.Tensor)
    return StepwiseEstimates(ep, bptt, (gap / size).sqrt(), float(free.residual.max()))


def _parameters(system: PhysicalSystem) -> dict[str, torch.nn.Parameter]:
    return {n: p for n, p in system.named_parameters() if p.requires_grad}


def _energy_slope(system: PhysicalSystem, state: State, x: torch.Tensor) -> list[torch.Tensor]:
    """dE/dtheta at a state, batch mean."""
    parameters = _parameters(system)
    with torch.enable_grad():
        grads = torch.autograd.grad(system.energy(state, x).mean(), list(parameters.values()), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters.values(), grads, strict=True)]


def _moved(system: PhysicalSystem, state: State, x: torch.Tensor, step: float) -> State:
    """One differentiable step of the free dynamics."""
    slope = torch.autograd.grad(system.energy(state, x).sum(), state, create_graph=True)
    return system.project(tuple(s - step * g for s, g in zip(state, slope, strict=True)))


def _ep_course(
    system: PhysicalSystem,
    x: torch.Tensor,
    y: torch.Tensor,
    cost: Cost,
    free: State,
    beta: float,
    steps: int,
    step: float,
) -> dict[str, torch.Tensor]:
    names = list(_parameters(system))
    rows: list[list[torch.Tensor]] = []
    up = down = free
    for _ in range(steps):
        up = _nudged(system, up, x, y, cost, beta, step)
        down = _nudged(system, down, x, y, cost, -beta, step)
        slopes = zip(_energy_slope(system, up, x), _energy_slope(system, down, x), strict=True)
        rows.append([(a - b) / (2 * beta) for a, b in slopes])
    return {n: torch.stack([row[i] for row in rows]) for i, n in enumerate(names)}


def _nudged(
    system: PhysicalSystem, state: State, x: torch.Tensor, y: torch.Tensor, cost: Cost, beta: float, step: float
) -> State:
    """One step of the nudged dynamics."""
    with torch.enable_grad():
        leaves = tuple(s.detach().requires_grad_() for s in state)
        total = system.energy(leaves, x) + beta * cost(system.outputs(leaves), y)
        slope = torch.autograd.grad(total.sum(), leaves)
    with torch.no_grad():
        return system.project(tuple(s - step * g for s, g in zip(state, slope, strict=True)))


def _bptt_course(
    system: PhysicalSystem,
    x: torch.Tensor,
    y: torch.Tensor,
    cost: Cost,
    free: State,
    steps: int,
    step: float,
) -> dict[str, torch.Tensor]:
    parameters = _parameters(system)
    with torch.enable_grad():
        leaves = tuple(s.detach().requires_grad_() for s in free)
        loss = cost(system.outputs(leaves), y).mean()
        pulled = torch.autograd.grad(loss, leaves, allow_unused=True)
        delta = tuple(torch.zeros_like(s) if g is None else g for s, g in zip(leaves, pulled, strict=True))
        # The free state is a fixed point, so every one of the last steps is this one.
        after = _moved(system, leaves, x, step)
        total = [torch.zeros_like(p) for p in parameters.values()]
        rows = []
        for _ in range(steps):
            wanted = [*leaves, *parameters.values()]
            grads = torch.autograd.grad(after, wanted, delta, retain_graph=True, allow_unused=True)
            filled = [torch.zeros_like(w) if g is None else g for w, g in zip(wanted, grads, strict=True)]
            delta = tuple(filled[: len(leaves)])
            total = [t + g for t, g in zip(total, filled[len(leaves) :], strict=True)]
            rows.append(total)
    return {n: torch.stack([row[i] for row in rows]).detach() for i, n in enumerate(parameters)}
