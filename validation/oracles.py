"""Gradients that owe nothing to equilibrium propagation, to judge it by.

All of them work in float64 whatever the system's dtype, differentiate `energy` by autograd (or `force`, where there
is no energy) rather than use what a system does faster, and return the gradient of the batch mean of the cost.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, gmres, minres
from torch import nn

from physics_ep.blocks import flat, in_dtype, require_finite, twice_differentiable, unflat
from physics_ep.cost import Cost, as_cost, as_targets, costs, fitted_targets
from physics_ep.energies import outputs_of
from physics_ep.equilibrium import Equilibrium
from physics_ep.errors import InputError, argument_error
from physics_ep.extremes import greatest
from physics_ep.inference import differentiating
from physics_ep.physical_system import PhysicalSystem, widened
from physics_ep.relaxation.loop import new_phase, prepared, relax
from physics_ep.relaxation.solvers import inverse_lipschitz
from physics_ep.stillness import require_system, require_trained
from physics_ep.system import EnergySystem
from physics_ep.weights import Weights

UNROLLED = (100, 200, 400, 800)
"""Steps that backprop through time unrolls in turn."""
FORGOTTEN = 1e-6
"""What may be left, at the first of these steps, of the residual and of the cost's gradient."""


class Gradients(dict[str, torch.Tensor]):
    """Parameter name to gradient, with the evidence for it.

    Attributes
    ----------
    loss : float
        Mean cost at the free state.
    residual : float
        Worst dimensionless residual of the free state.
    adjoint_residual : float
        Relative residual of the adjoint solve (implicit differentiation), or what is left of the cost's gradient at
        the first step (backprop through time).
    outputs : Tensor (B, n_out) or None
        Outputs at the free state (implicit differentiation only).
    vanishing : frozenset of str
        Parameters whose gradient is known to be zero but for rounding, where it was rounded since.
    """

    loss: float = float("nan")
    residual: float = float("nan")
    adjoint_residual: float = 0.0
    outputs: torch.Tensor | None = None
    vanishing: frozenset[str] = frozenset()


class OracleError(RuntimeError):
    """Raised when an oracle cannot certify its own answer."""


def wide_target(y: torch.Tensor) -> torch.Tensor:
    """Float targets in float64; class indices as they are."""
    y = as_targets(y)
    return y.double() if y.dtype.is_floating_point else y


def of_parameters(oracle: Callable[..., Gradients]) -> Callable[..., Gradients]:
    """An oracle that differentiates by the weights that the physics sees, as one by the parameters behind them."""

    @differentiating
    @functools.wraps(oracle)
    def by_parameters(
        system: PhysicalSystem, x: torch.Tensor, y: torch.Tensor, cost: Cost, **options: Any
    ) -> Gradients:
        require_system(system)
        require_trained(system)
        weights = Weights(system)
        with weights:
            require_finite(system)
            weights.still.check(x)
            found = oracle(system, x, as_targets(y), as_cost(cost), **options)
        if weights.computed:
            own = weights.leaves(found)
            found.clear()
            found.update(own)
        return found

    return by_parameters


def free_state(
    system: PhysicalSystem, x: torch.Tensor, tolerance: float, max_iterations: int | None
) -> Equilibrium:
    """The free equilibrium of a float64 system, certified."""
    budget = 20 * system.default_max_iterations if max_iterations is None else max_iterations
    return relax(system, x, tolerance=tolerance, max_iterations=budget).require()


@of_parameters
def implicit_gradient(
    system: PhysicalSystem,
    x: torch.Tensor,
    y: torch.Tensor,
    cost: Cost,
    *,
    tolerance: float = 1e-12,
    adjoint_tolerance: float = 1e-10,
    max_iterations: int | None = None,
) -> Gradients:
    """Implicit differentiation at the free equilibrium: EP's exact target (Scellier and Bengio 2017, theorem 1).

    With H = d2E/ds2 and H lambda = dC/ds at the equilibrium, dL/dtheta = dC/dtheta - (d2E/dtheta ds) lambda, where
    dC/dtheta at fixed state is what outputs owe to parameters of their own (a trained readout). Where there is a
    force F and no energy, H is -dF/ds, H^T lambda = dC/ds, and -dF/dtheta stands in the place of d2E/dtheta ds.
    Variables that bounds hold do not move with theta and are left out. The adjoint system is solved matrix-free, by
    MINRES where there is an energy (H is symmetric; it need not be definite) and else by GMRES, preconditioned by
    the system's curvature, and repeated on its own residual until that is below `adjoint_tolerance`.

    Parameters
    ----------
    system : EnergySystem or VectorField
    x, y : Tensor
        Batch, targets as the cost takes them.
    cost : Cost
    tolerance : float
        Residual of the free state.
    adjoint_tolerance : float
        Relative residual of the adjoint solve.
    max_iterations : int, optional
        Most iterations of the free relaxation; default 20 times the system's.

    Returns
    -------
    Gradients
        Name to tensor (float64) of the parameter's shape.

    Raises
    ------
    NotConverged
        If the free state is no equilibrium.
    OracleError
        If the adjoint solve does not reach its tolerance (a singular Hessian, say).
    """
    twin = widened(system)
    x = in_dtype(x, torch.float64)
    y = wide_target(y)
    free = free_state(twin, x, tolerance, max_iterations)
    named = [(n, p) for n, p in twin.named_parameters() if p.requires_grad]
    with torch.enable_grad(), twice_differentiable():
        state = tuple(s.detach().requires_grad_() for s in free.state)
        slope = tuple(
            torch.zeros_like(s) if g is None else g for s, g in zip(state, twin.slope(state, x), strict=True)
        )
        outputs = outputs_of(twin, state)
        loss = costs(cost, outputs, fitted_targets(cost, outputs.detach(), y))
        parameters = [p for _, p in named]
        pull = torch.autograd.grad(loss.sum(), (*state, *parameters), allow_unused=True)
        pull, direct = pull[: len(state)], pull[len(state) :]
    mask = twin.free_variables(free.state, x)
    shapes = [s.shape for s in state]
    keep = torch.ones_like(flat(free.state)) if mask is None else flat(tuple(m.double() for m in mask))
    right = keep * flat(tuple(torch.zeros_like(s) if g is None else g for s, g in zip(state, pull, strict=True)))

    def hessian(v: torch.Tensor) -> torch.Tensor:
        live = [(g, d) for g, d in zip(slope, unflat(keep * v, shapes), strict=True) if g.requires_grad]
        ends, along = zip(*live, strict=True)
        grads = torch.autograd.grad(ends, state, along, retain_graph=True, allow_unused=True)
        product = flat(tuple(torch.zeros_like(s) if g is None else g for s, g in zip(state, grads, strict=True)))
        # The identity on held variables keeps the operator regular.
        return keep * product + (1 - keep) * v

    diagonal = twin.curvature_diagonal(free.state, x)
    scale = torch.ones_like(keep)
    if diagonal is not None:  # a node that is joined to nothing has no curvature
        bent = flat(diagonal)
        scale = torch.where((keep > 0) & (bent > 0), bent, 1.0)
    if diagonal is None and twin.unscaled and bool(right.any()):
        # The solver's own limits are absolute: curvatures of an energy in small units must not fall below them.
        scale = torch.where(keep > 0, hessian(right).norm() / right.norm(), 1.0).clamp_min(
            torch.finfo(scale.dtype).tiny
        )
    symmetric = isinstance(twin, EnergySystem)
    multiplier, adjoint_residual = _solve_adjoint(hessian, right, 1 / scale, adjoint_tolerance, symmetric)
    with torch.enable_grad():
        coupled = sum(
            ((g * v).sum() for g, v in zip(slope, unflat(keep * multiplier, shapes), strict=True)),
            torch.zeros((), dtype=torch.float64, device=x.device),
        )
        through: Sequence[torch.Tensor | None] = [None] * len(named)
        if coupled.requires_grad:  # not so where all that is trained is in the outputs
            through = torch.autograd.grad(-coupled / x.shape[0], parameters, allow_unused=True)
    found = Gradients()
    for (n, p), at_rest, moved in zip(named, direct, through, strict=True):
        found[n] = torch.zeros_like(p) if moved is None else moved.detach()
        if at_rest is not None:
            found[n] = found[n] + at_rest / x.shape[0]
    found.loss = float(loss.detach().mean())
    found.residual = float(free.residual.max())
    found.adjoint_residual = adjoint_residual
    found.outputs = twin.outputs(free.state).detach()
    return found


def _solve_adjoint(
    hessian: Callable[[torch.Tensor], torch.Tensor],
    right: torch.Tensor,
    inverse_diagonal: torch.Tensor,
    tolerance: float,
    symmetric: bool,
) -> tuple[torch.Tensor, float]:
    """Solve H^T lambda = right, `hessian` its product; return it and |right - H^T lambda| / |right|."""
    shape, device, n = right.shape, right.device, right.numel()

    def product(v: np.ndarray) -> np.ndarray:
        return hessian(torch.from_numpy(v.reshape(shape)).to(device)).cpu().numpy().ravel()

    operator = LinearOperator((n, n), matvec=product, dtype=np.float64)
    weights = inverse_diagonal.cpu().numpy().ravel()
    scaling = LinearOperator((n, n), matvec=lambda v: weights * v, dtype=np.float64)
    size = float(right.norm())
    solution = torch.zeros_like(right)
    if size == 0:
        return solution, 0.0
    relative = float("inf")
    for _ in range(8):
        miss = right - hessian(solution)
        now = float(miss.norm()) / size
        if now <= tolerance:
            return solution, now
        if not now < 0.5 * relative:
            break
        relative = now
        wanted = miss.cpu().numpy().ravel()
        if symmetric:
            step, _ = minres(operator, wanted, rtol=1e-10, maxiter=20 * 500, M=scaling)
        else:
            step, _ = gmres(operator, wanted, rtol=1e-10, restart=min(n, 300), maxiter=20, M=scaling)
        solution = solution + torch.from_numpy(step.reshape(shape)).to(device)
    raise OracleError(
        f"The adjoint system was solved to a relative residual of {now:.2g} only, not {tolerance:.2g}: the Hessian "
        "(or Jacobian) at the free state is singular or nearly so (a bifurcation, or an ungrounded direction)."
    )


SMALLER_STEPS = 10
"""Tenths of the first step that differences try before they give up: from 1e-5 to 1e-14."""


@of_parameters
def finite_difference_gradient(
    system: PhysicalSystem,
    x: torch.Tensor,
    y: torch.Tensor,
    cost: Cost,
    *,
    step: float | None = None,
    tolerance: float = 1e-13,
    max_iterations: int | None = None,
) -> Gradients:
    """Central differences of the equilibrium's cost in every single parameter; error O(step^2). Small systems only.

    Parameters
    ----------
    step : float, optional
        Change of a parameter, in its unit. Default: 1e-5, or a thousandth of the tensor's largest entry where that
        is less (conductances in millisiemens), or a tenth of this and so on until half of it gives the same slope
        to 1e-5 (a tensor of zeros does not tell its unit).

    Returns
    -------
    Gradients

    Raises
    ------
    OracleError
        If no step gives a slope that half of it confirms.
    """
    twin = copy.deepcopy(system).double()
    x, y = in_dtype(x, torch.float64), wide_target(y)

    def loss() -> float:
        free = free_state(twin, x, tolerance, max_iterations)
        outputs = outputs_of(twin, free.state)
        return float(costs(cost, outputs, fitted_targets(cost, outputs, y)).mean())

    found = Gradients()
    with torch.no_grad():
        for name, p in twin.named_parameters():
            if not p.requires_grad:
                continue
            grad = torch.zeros_like(p)
            values, slots = p.view(-1), grad.view(-1)
            change = step
            if change is None:
                change = _confirmed_step(name, p, loss, min(1e-5, 1e-3 * float(p.abs().max())) or 1e-5)
            for i in range(p.numel()):
                kept = float(values[i])
                values[i] = kept + change
                up = loss()
                values[i] = kept - change
                down = loss()
                values[i] = kept
                slots[i] = (up - down) / (2 * change)
            found[name] = grad
        found.loss = loss()
    return found


def _confirmed_step(name: str, p: torch.Tensor, loss: Callable[[], float], step: float) -> float:
    """The first of step, step / 10, ... whose slope along random signs is that of half of it."""
    signs = torch.randint(0, 2, p.shape, generator=torch.Generator().manual_seed(0)).to(p) * 2 - 1
    kept = p.clone()

    def slope(h: float) -> tuple[float, float]:
        ends = []
        for h_signed in (h, -h):
            p.copy_(kept + h_signed * signs)
            ends.append(loss())
        p.copy_(kept)
        return (ends[0] - ends[1]) / (2 * h), 1e-13 * max(map(abs, ends)) / h

    for _ in range(SMALLER_STEPS):
        (whole, rounding), (half, _) = slope(step), slope(0.5 * step)
        if abs(whole - half) <= 1e-5 * abs(half) + 10 * rounding:
            return step
        step *= 0.1
    raise OracleError(
        f"No step of parameter {name!r} gives a difference that half of it confirms, down to {step:.1g}: the cost "
        "has a kink or a jump there. Give step=, or take another oracle."
    )


@of_parameters
def bptt_gradient(
    system: PhysicalSystem,
    x: torch.Tensor,
    y: torch.Tensor,
    cost: Cost,
    *,
    iterations: int | None = None,
    step: float | None = None,
) -> Gradients:
    """Backprop through time: autograd through `iterations` steps of the relaxation from the initial state.

    The steps are the system's exact block updates where autograd can follow them, else explicit descent
    s <- s - step dE/ds within the bounds (ascent in the blocks that ascend).

    Parameters
    ----------
    iterations : int, optional
        Steps to unroll. `residual` of the result says how far from equilibrium they ended, and `adjoint_residual`
        what part of the cost's gradient is left at the first step: a state may be at rest long before its gradient
        has gone through all steps. Default: from 100 on, twice as many until both are below 1e-6.
    step : float, optional
        Step of the explicit descent, in state units per force unit; default 0.1 over the system's `nudge_scale`, or
        half the inverse of its largest curvature where it declares none.

    Returns
    -------
    Gradients

    Raises
    ------
    OracleError
        If the default does not get there in 800 steps.
    """
    if iterations is not None:
        if iterations < 1:
            raise argument_error("iterations", "be at least 1", iterations)
        return _through_time(system, x, y, cost, iterations, step)
    for count in UNROLLED:
        found = _through_time(system, x, y, cost, count, step)
        if greatest((found.residual, found.adjoint_residual)) <= FORGOTTEN:
            return found
    raise OracleError(
        f"Backprop through {count} steps has not forgotten its first: a residual of {found.residual:.2g} and "
        f"{found.adjoint_residual:.2g} of the cost's gradient are left. Take another oracle, or fewer iterations "
        "as they are."
    )


def _through_time(
    system: PhysicalSystem, x: torch.Tensor, y: torch.Tensor, cost: Cost, iterations: int, step: float | None
) -> Gradients:
    twin = widened(system)
    x, y = in_dtype(x, torch.float64), wide_target(y)
    named = [(n, p) for n, p in twin.named_parameters() if p.requires_grad]
    with torch.enable_grad(), twice_differentiable():
        phase = new_phase(twin, prepared(twin, x, {}), {})
        if phase.differentiable_updates and step is None:
            first = u = tuple(b.detach().requires_grad_() for b in phase.interface(phase.start()))
            for _ in range(iterations):
                u, state, residual = phase.sweep(u)
        else:
            first = state = tuple(s.detach().requires_grad_() for s in twin.initial_state(x))
            ways = twin.directions or (1,) * len(state)
            if step is not None:
                h = step
            elif phase.scales is None:
                h = 0.1 / system.nudge_scale
            else:
                h = 0.5 * inverse_lipschitz(phase, tuple(s.detach() for s in state))
            for _ in range(iterations):
                slope = twin.slope(state, x)
                moved = (s if g is None else s - way * h * g for s, g, way in zip(state, slope, ways, strict=True))
                state = twin.project(tuple(moved))
            residual = phase.residual(phase.force(tuple(s.detach() for s in state)))
        outputs = outputs_of(twin, state)
        loss = costs(cost, outputs, fitted_targets(cost, outputs.detach(), y)).mean()
        parameters = [p for _, p in named]
        grads = torch.autograd.grad(loss, [*parameters, *first], allow_unused=True, retain_graph=True)
        last = torch.autograd.grad(loss, state, allow_unused=True)
    found = Gradients((n, torch.zeros_like(p) if g is None else g) for (n, p), g in zip(named, grads, strict=False))
    found.loss = float(loss.detach())
    found.residual = float(residual.detach().max())
    left, all_of_it = (_size(parts) for parts in (grads[len(parameters) :], last))
    found.adjoint_residual = left / all_of_it if all_of_it != 0 else 0.0
    return found


def _size(parts: Sequence[torch.Tensor | None]) -> float:
    return math.sqrt(sum(float(g.square().sum()) for g in parts if g is not None))


@of_parameters
def backprop_gradient(system: nn.Module, x: torch.Tensor, y: torch.Tensor, cost: Cost) -> Gradients:
    """Backprop of a feedforward network: `system(x)` must be its forward pass (a PCN's free state).

    Raises
    ------
    InputError
        If the system has no forward pass.
    """
    if isinstance(system, PhysicalSystem) and not system.feedforward:
        raise InputError(
            f"Argument oracle must be 'implicit' for {type(system).__name__}, whose free state is no forward pass, "
            "but was 'backprop'."
        )
    twin = copy.deepcopy(system).double()
    named = [(n, p) for n, p in twin.named_parameters() if p.requires_grad]
    with torch.enable_grad():
        outputs = twin(in_dtype(x, torch.float64))
        outputs = outputs.reshape(len(outputs), -1)
        loss = costs(cost, outputs, fitted_targets(cost, outputs.detach(), wide_target(y))).mean()
        grads = torch.autograd.grad(loss, [p for _, p in named], allow_unused=True)
    found = Gradients((n, torch.zeros_like(p) if g is None else g) for (n, p), g in zip(named, grads, strict=True))
    found.loss = float(loss.detach())
    found.residual = 0.0
    return found


ORACLES: dict[str, Callable[..., Gradients]] = {
    "implicit": implicit_gradient,
    "bptt": bptt_gradient,
    "finite_difference": finite_difference_gradient,
    "backprop": backprop_gradient,
}
