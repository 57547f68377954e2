"""How far a system can be pushed away from its target: the measured limit of negative nudging."""

from __future__ import annotations

from typing import cast

import torch

from ..blocks import State, all_finite
from ..cost import Cost, OutputForce
from ..equilibrium import Equilibrium, NotConverged, NotFinite
from ..nudging import Nudge
from ..physical_system import Phase, PhysicalSystem
from ..relaxation.loop import solve


def curvature_limit(
    system: PhysicalSystem,
    base: Phase,
    free: Equilibrium,
    cost: Cost,
    y: torch.Tensor,
    *,
    solver: str | None = None,
    force: float = 1e-4,
    iterations: int = 12,
    anywhere: bool = False,
) -> float:
    """Lambda: the largest curvature of the cost along what the outputs do under a force on them.

    F = E + beta C has its minimum near the free state while beta > -1 / lambda, where lambda is the largest
    eigenvalue of C'' R, R = P H^-1 P^T (H the Hessian of E, P the projection on the outputs): for the squared
    error 1 / lambda is the smallest Schur complement of H on the outputs. Rayleigh-Ritz on the Krylov space of
    C'' R; each product with R is a relaxation under a small constant force on the outputs, which any system can
    do, or the closed form of a phase that has one. A batch whose examples feel each other is one row.

    Parameters
    ----------
    base : Phase
        The phase at the free state, balanced.
    force : float
        Size of the force, in units of the phase's `residual_scale`.
    iterations : int
        Most iterations (the number of outputs suffices); it stops when the estimate changes by less than 0.5 %.
    anywhere : bool
        Take the largest curvature that the cost has at any outputs. That of the cross-entropy vanishes for examples
        that are known well, and a nudge that suits them is too strong for the next mistake.

    Returns
    -------
    float
        Largest over the converged examples of the batch; 0 if nothing responds.
    """
    known = base.curvature_limit(cost, y, anywhere)
    if known is not None:
        return known
    push = force * base.residual_scale
    if base.scales is not None:
        push = push / base.scales.gain  # outputs may have other units than the state
    outputs = system.outputs(free.state)
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(outputs.shape, generator=generator, dtype=torch.float64).to(outputs)
    tiny = torch.finfo(outputs.dtype).tiny
    good = free.converged
    if base.coupled:
        v, good = v.reshape(1, -1), good.all(0, keepdim=True)
    basis: list[torch.Tensor] = []
    pulls: list[torch.Tensor] = []
    responses: list[torch.Tensor] = []
    before = largest = 0.0
    for _ in range(min(iterations, v.shape[1])):
        # What has no answer of its own any more (outputs held by their bounds) is left out, and must not be blown
        # up.
        v = torch.where(good[:, None], v, torch.zeros_like(v))
        size = v.norm(dim=1, keepdim=True)
        for b in (*basis, *basis):  # twice, for orthogonality to rounding
            v = v - (b * v).sum(1, keepdim=True) * b
        v = torch.where(v.norm(dim=1, keepdim=True) > 1e-5 * size, v, torch.zeros_like(v))
        basis.append(v / v.norm(dim=1, keepdim=True).clamp_min(tiny))
        bound = cost.steepest if anywhere else None
        along = basis[-1].view_as(outputs)
        pull = (cost.curvature(outputs, y, along) if bound is None else bound * along).reshape(v.shape)
        pulls.append(torch.where(good[:, None], pull, torch.zeros_like(pull)))
        if not all_finite(pulls[-1]):
            raise NotFinite(f"The curvature of the cost {cost.name!r} is NaN or infinite", free)
        answer, settled = output_response(system, base, pulls[-1].view_as(outputs), push, solver)
        v, settled = answer.reshape(v.shape), settled.all(0, keepdim=True) if base.coupled else settled
        good = good & settled
        if not bool(good.any()):
            break
        responses.append(torch.where(good[:, None], v, torch.zeros_like(v)))
        values = _ritz_values(torch.stack(basis, 1), torch.stack(pulls, 1), torch.stack(responses, 1))
        largest = float(values[good].max())
        if abs(largest - before) <= 5e-3 * abs(largest):
            break
        before = largest
    return max(largest, 0.0)


def output_response(
    system: PhysicalSystem,
    base: Phase,
    force: torch.Tensor,
    push: float | torch.Tensor,
    solver: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Change of the outputs (B, n_out) per unit of a small force on them, and where it was found, (B,).

    Parameters
    ----------
    base : Phase
        The phase at the free state, balanced.
    force : Tensor (B, n_out)
    push : float or Tensor (B,)
        Factor on the force that is applied, for phases without a closed form.
    """
    answer = base.response(force)
    if answer is not None:
        return answer, torch.isfinite(answer).all(1)
    phase = base.nudged(Nudge(OutputForce(), force, push))
    size = push / base.residual_scale
    if base.scales is not None:
        size = size * base.scales.gain
    found = solve(
        phase, solver=solver, tolerance=1e-4 * (float(size.max()) if isinstance(size, torch.Tensor) else size)
    )
    assert found.displacement is not None
    if not bool(found.converged.any()):
        raise NotConverged(found, "The response to a small force on the outputs")
    at = tuple(s.to(d) for s, d in zip(base.origin or (), found.displacement, strict=True))
    moved = _outputs_along(system, at, found.displacement)
    return moved / (push[:, None].to(moved) if isinstance(push, torch.Tensor) else push), found.converged


def _outputs_along(system: PhysicalSystem, state: State, change: State) -> torch.Tensor:
    """Change of the outputs (B, n_out) with a small change of the state.

    An offset of the outputs drops out, and no digits are lost to a difference.
    """

    def outputs(*blocks: torch.Tensor) -> torch.Tensor:
        return system.outputs(blocks)

    moved = torch.autograd.functional.jvp(outputs, state, change)[1]
    return cast(torch.Tensor, moved)


def _ritz_values(basis: torch.Tensor, pulls: torch.Tensor, responses: torch.Tensor) -> torch.Tensor:
    """Largest generalised eigenvalue (B,) of (V C R C V^T, V C V^T), V the basis (B, k, n), in float64."""
    basis, pulls, responses = basis.double(), pulls.double(), responses.double()
    metric = basis @ pulls.mT
    action = pulls @ responses.mT
    # Directions that the cost does not bend (a common shift of logits) drop out of both.
    size, frame = torch.linalg.eigh(0.5 * (metric + metric.mT))
    bent = size > 1e-10 * size[:, -1:].clamp_min(1e-300)
    scaled = frame * torch.where(bent, size, torch.ones_like(size)).rsqrt()[:, None] * bent[:, None]
    inner = scaled.mT @ (0.5 * (action + action.mT)) @ scaled
    return torch.linalg.eigvalsh(inner)[:, -1]
