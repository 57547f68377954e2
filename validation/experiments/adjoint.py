"""Exact gradients of any system in its own dtype, by a Krylov solve of each example: they cost some nudged phases.

At the free state the adjoint a of an example solves

    H^T a = dC/ds,    H = d2E/ds2, or -dF/ds where there is a force F and no energy,

and the gradient of its cost is dC/dtheta - (d2E/dtheta ds) a (Scellier and Bengio 2017, theorem 1). Variables that
bounds hold are left out. `validation.oracles.implicit_gradient` is the same in float64, solves for all examples of
a batch as one, and is there to judge; this is there to train by.

The solver is the method of generalized conjugate residuals, which takes H symmetric or not: directions z_k are kept
with q_k = H^T z_k orthonormal, and the residual r loses its share along each q_k (Eisenstat, Elman and Schultz
1983).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from physics_ep import relax
from physics_ep.blocks import State, flat, twice_differentiable, unflat
from physics_ep.cost import Cost, costs, fitted_targets
from physics_ep.energies import outputs_of
from physics_ep.errors import argument_error, is_real, require_count
from physics_ep.physical_system import PhysicalSystem
from physics_ep.weights import Weights

from ..oracles import OracleError
from .exact_training import ExactStep, described

DIRECTIONS = 200
"""Most directions of a solve; each costs a product with the Hessian, and keeps two states."""


def adjoint_backward(
    cost: Cost, free: float | None = None, tolerance: float = 1e-5, directions: int = DIRECTIONS
) -> Callable[..., ExactStep]:
    """A `backward(system, x, y)` that fills `.grad` with exact gradients, in the dtype of the system.

    Parameters
    ----------
    cost : Cost
    free : float, optional
        Tolerance of the free state, as `physics_ep.relax` takes it; default the system's.
    tolerance : float
        Largest residual of an example's adjoint over dC/ds, each variable weighted by the root of its inverse
        curvature where the system tells it.
    directions : int
        Most products with the Hessian.

    Returns
    -------
    callable
        Examples without a free state, or whose adjoint is not found since the Hessian is nearly singular, are left
        out and counted, as EP leaves out those whose phases do not settle. Where none remains it raises an
        `OracleError`.

    Raises
    ------
    InputError
        If an argument is not as above.
    """
    require_count("directions", directions)
    for name, value in (("free", 1.0 if free is None else free), ("tolerance", tolerance)):
        if not (is_real(value) and value > 0):
            raise argument_error(name, "be a positive number", value)

    def backward(system: PhysicalSystem, x: torch.Tensor, y: torch.Tensor) -> ExactStep:
        rest = relax(system, x, tolerance=free)
        settled = rest.converged
        x, y, count = x[settled], y[settled], len(x)
        weights = Weights(system)
        with torch.enable_grad(), twice_differentiable(), weights:
            state = tuple(s[settled].detach().requires_grad_() for s in rest.state)
            named = {n: p for n, p in system.named_parameters() if p.requires_grad}
            outputs = outputs_of(system, state)
            loss = costs(cost, outputs, fitted_targets(cost, outputs.detach(), y))
            pull = torch.autograd.grad(loss.sum(), state, allow_unused=True, retain_graph=True)
            adjoint, solved = adjoints(system, state, x, _filled(pull, state), tolerance, directions)
            if not bool(solved.any()):
                raise OracleError(f"None of {count} examples has a free state and an adjoint: nothing is left.")
            share = solved.to(loss.dtype) / solved.sum()
            slope = _filled(system.slope(state, x), state)
            pairs = zip(slope, adjoint, strict=True)
            through = sum(((g * a).flatten(1).sum(1) @ share for g, a in pairs), loss.new_zeros(()))
            grads = torch.autograd.grad(loss @ share - through, [*named.values()], allow_unused=True)
            weights.deposit({n: g for n, g in zip(named, grads, strict=True) if g is not None})
        with torch.no_grad():
            every = system.outputs(rest.state)
        return ExactStep(loss.detach() @ share, every, skipped=count - int(solved.sum()))

    told = "the system's own tolerance" if free is None else f"{free:g}"
    return described(
        backward, f"exact gradients by a Krylov solve to {tolerance:g} of states to {told}, cost {cost.name}"
    )


def adjoints(
    system: PhysicalSystem, state: State, x: torch.Tensor, pull: State, tolerance: float, directions: int
) -> tuple[State, torch.Tensor]:
    """Solve H^T a = pull for each example at a free state.

    Parameters
    ----------
    system : EnergySystem or VectorField
    state : tuple of Tensor (B, ...)
    x : Tensor (B, ...)
    pull : State
        dC/ds.
    tolerance, directions
        See `adjoint_backward`.

    Returns
    -------
    State
        a; zero in variables that bounds hold, and where it was not found.
    Tensor (B,) of bool
        Examples whose adjoint was found.
    """
    mask = system.free_variables(state, x)
    curvatures = system.curvature_diagonal(state, x)
    shapes = [s.shape for s in state]
    state = tuple(s.detach() for s in state)
    keep = torch.ones_like(flat(state)) if mask is None else flat(tuple(m.to(state[0]) for m in mask))
    scale = keep
    if curvatures is not None:  # a node that is joined to nothing has no curvature, and no part in any product
        bent = flat(curvatures)
        scale = keep * torch.where(bent > 0, bent, 1.0).rsqrt()
    with torch.enable_grad(), twice_differentiable():
        leaves = tuple(s.detach().requires_grad_() for s in state)
        slope = [(k, g) for k, g in enumerate(system.slope(leaves, x)) if g is not None and g.requires_grad]

    def product(v: torch.Tensor) -> torch.Tensor:
        along = unflat(scale * v, shapes)
        found = torch.autograd.grad(
            [g for _, g in slope], leaves, [along[k] for k, _ in slope], retain_graph=True, allow_unused=True
        )
        return scale * flat(_filled(found, leaves))

    scaled, solved = conjugate_residuals(product, scale * flat(pull), tolerance, directions)
    return unflat(torch.where(solved[:, None], scale * scaled, 0.0), shapes), solved


@torch.no_grad()
def conjugate_residuals(
    product: Callable[[torch.Tensor], torch.Tensor], right: torch.Tensor, tolerance: float, directions: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Solve A x = right of each row, A = `product`, to a residual of `tolerance` times the row's norm.

    Parameters
    ----------
    product : callable
        Tensor (B, n) to Tensor (B, n), linear, each row by itself.
    right : Tensor (B, n)
    tolerance : float
    directions : int
        Most products.

    Returns
    -------
    Tensor (B, n), Tensor (B,) of bool
        x, and where the residual came to be so small.
    """
    wanted = tolerance * right.norm(dim=1)
    solution, residual = torch.zeros_like(right), right.clone()
    kept = right.new_empty(0, *right.shape), right.new_empty(0, *right.shape)
    rounding = torch.finfo(right.dtype).eps
    for _ in range(directions):
        open_rows = residual.norm(dim=1) > wanted
        if not bool(open_rows.any()):
            break
        way, image = residual, product(residual)
        whole = image.norm(dim=1, keepdim=True)
        if len(kept[0]):
            for _ in range(2):  # twice, since once leaves rounding errors that grow
                shares = torch.einsum("kbn,bn->kb", kept[1], image)
                way = way - torch.einsum("kb,kbn->bn", shares, kept[0])
                image = image - torch.einsum("kb,kbn->bn", shares, kept[1])
        size = image.norm(dim=1, keepdim=True)
        # Rows that are solved stand still, and so do those that have no direction left: what rounding leaves of a
        # residual would be taken for one, along which the solution may go any way.
        moves = open_rows[:, None] & (size > 10 * rounding * whole)
        inverse = torch.where(moves, 1 / size, 0.0)
        way, image = way * inverse, image * inverse
        kept = torch.cat([kept[0], way[None]]), torch.cat([kept[1], image[None]])
        step = (residual * image).sum(1, keepdim=True)
        solution, residual = solution + step * way, residual - step * image
    # What was updated all along drifts from the residual itself.
    return solution, (right - product(solution)).norm(dim=1) <= 2 * wanted


def _filled(grads: Sequence[torch.Tensor | None], like: State) -> State:
    return tuple(torch.zeros_like(s) if g is None else g for s, g in zip(like, grads, strict=True))
