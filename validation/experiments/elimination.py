"""Exact gradients of networks of one hidden layer, by elimination: they cost an EP step, and no iterative solve.

At the free state the adjoints of hidden units k and outputs l solve H (k, l) = (0, dC/do) with the Hessian H of the
energy (Scellier and Bengio 2017, theorem 1). Where the energy couples the two layers bilinearly, and units of one
layer do not couple, H has the diagonals A and D and one block B for all examples, so that

    (D - B^T A^-1 B) l = dC/do,    k = -A^-1 B l,

a system of as many equations as there are outputs for each example. Variables that bounds hold are left out. The
gradient is -d2E/dtheta ds (k, l), which `contrast` gives as a difference of two states: it is linear in them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from physics_ep import relax
from physics_ep.blocks import State
from physics_ep.cost import Cost, costs, fitted_targets
from physics_ep.energies import outputs_of
from physics_ep.errors import InputError
from physics_ep.system import EnergySystem
from physics_ep.weights import Weights

from ..oracles import OracleError
from .exact_training import ExactStep, described

CHECKED = 100
"""Every how many steps the adjoints are held against the energy's own Hessian, from the first step on."""
OFF = {torch.float32: 1e-4, torch.float64: 1e-10}
"""Largest relative residual of the adjoint system that is taken for rounding."""


def eliminating_backward(cost: Cost) -> Callable[..., ExactStep]:
    """A `backward(system, x, y)` that fills `.grad` with exact gradients, in the dtype of the system.

    Parameters
    ----------
    cost : Cost

    Returns
    -------
    callable
        It raises an InputError on a system that has not two blocks of variables, an `OracleError` where the Hessian
        is not of the form above or is singular, and `NotConverged` where an example has no free state.
    """
    steps = 0

    def backward(system: EnergySystem, x: torch.Tensor, y: torch.Tensor) -> ExactStep:
        nonlocal steps
        with torch.no_grad():
            state = relax(system, x).require().state
        if len(state) != 2:
            raise InputError(f"Argument system must have two blocks of variables, but has {len(state)}.")
        with torch.enable_grad():
            seen = tuple(s.detach().requires_grad_() for s in state)
            outputs = outputs_of(system, seen)
            loss = costs(cost, outputs, fitted_targets(cost, outputs.detach(), y))
            own = [p for p in system.parameters() if p.requires_grad]
            pull, *others = torch.autograd.grad(loss.sum(), (seen[1], seen[0], *own), allow_unused=True)
        if any(g is not None for g in others):
            raise InputError("Argument system must read its outputs from its second block of variables alone.")
        mask = system.free_variables(state, x)
        free = tuple(torch.ones_like(s) if mask is None else mask[k].to(s) for k, s in enumerate(state))
        adjoint = eliminated(system, state, x, free, pull)
        if steps % CHECKED == 0:
            _check(system, state, x, free, pull, adjoint)
        steps += 1
        half = tuple(0.5 * a for a in adjoint)
        share = torch.full_like(x.flatten(1)[:, 0], 1 / len(x))
        Weights(system).deposit(system.contrast(state, tuple(-h for h in half), half, x, share))
        return ExactStep(loss=loss.detach().mean(), outputs=outputs.detach())

    return described(backward, f"exact gradients by elimination of the hidden layer, cost {cost.name}")


def eliminated(
    system: EnergySystem, state: State, x: torch.Tensor, free: State, pull: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Adjoints of hidden units (B, n) and outputs (B, m) at a free state.

    Parameters
    ----------
    system : EnergySystem
    state : (Tensor (B, n), Tensor (B, m))
    x : Tensor (B, ...)
    free : State
        1 where a variable is free, 0 where a bound holds it.
    pull : Tensor (B, m)
        dC/do.

    Raises
    ------
    InputError
        If the system tells no curvatures of its variables.
    OracleError
        If the system of equations is singular.
    """
    curvatures = system.curvature_diagonal(state, x)
    if curvatures is None:
        raise InputError(f"Argument system must tell its curvatures; {type(system).__name__} does not.")
    m = state[1].shape[1]
    one = tuple(s[:1].expand(m, -1) for s in state)
    along = (torch.zeros_like(one[0]), torch.eye(m, dtype=pull.dtype, device=pull.device))
    block = _hessian(system, one, x[:1].expand(m, *x.shape[1:]), along)[0]  # (m, n), the same for all examples
    weight = free[0] / curvatures[0]
    products = (block[:, None] * block[None]).flatten(0, 1)
    held = torch.diag_embed(torch.where(free[1] > 0, curvatures[1], 1.0))
    inner = held - (weight @ products.t()).view(-1, m, m) * free[1][:, :, None] * free[1][:, None]
    at_out, why = torch.linalg.solve_ex(inner, pull * free[1])
    if bool(why.any()):
        raise OracleError("Adjoints by elimination do not exist: the Hessian at a free state is singular.")
    return -weight * (at_out @ block), at_out


def _hessian(system: EnergySystem, state: State, x: torch.Tensor, along: State) -> State:
    """Product of d2E/ds2 with a displacement of each example."""
    with torch.enable_grad():
        leaves = tuple(s.detach().requires_grad_() for s in state)
        pairs = [(g, d) for g, d in zip(system.slope(leaves, x), along, strict=True) if g is not None]
        ends, ways = zip(*pairs, strict=True)
        found = torch.autograd.grad(ends, leaves, ways, allow_unused=True)
    return tuple(torch.zeros_like(s) if g is None else g for s, g in zip(state, found, strict=True))


def _check(
    system: EnergySystem, state: State, x: torch.Tensor, free: State, pull: torch.Tensor, adjoint: State
) -> None:
    found = _hessian(system, state, x, adjoint)
    hidden, out = (f * (h - r) for f, h, r in zip(free, found, (torch.zeros_like(state[0]), pull), strict=True))
    # Each example by its own size: one that is far off would be lost beside others with a large error.
    size, off = (free[1] * pull).norm(dim=1), torch.cat([hidden, out], 1).norm(dim=1)
    wrong = ~(off <= OFF[pull.dtype] * size)
    if bool(wrong.any()):
        worst = float((off / size)[wrong].max())
        raise OracleError(
            f"Adjoints by elimination are off by {worst:.2g} of the cost's gradient: the energy is not of two "
            "layers with a bilinear coupling, or its Hessian is nearly singular."
        )
