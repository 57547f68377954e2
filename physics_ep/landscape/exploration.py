"""The equilibria of one input: relaxation from many starts, and which of them are different."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ..blocks import State, largest
from ..equilibrium import Equilibrium
from ..errors import argument_error, is_real, require_count
from ..inference import differentiating
from ..physical_system import PhysicalSystem
from ..relaxation.loop import new_phase, prepared, solve
from ..stillness import require_system
from .branches import smallest_curvature


@dataclass(frozen=True)
class Basins:
    """Distinct equilibria of one input, the lowest energy first.

    Attributes
    ----------
    state : tuple of Tensor (K, ...)
    energy : Tensor (K,)
        Energies of the minima, in the system's energy unit.
    residual : Tensor (K,)
        Dimensionless.
    curvature : Tensor (K,)
        Smallest eigenvalue of the Hessian, modulo the system's symmetries; NaN where the energy has kinks.
    share : Tensor (K,)
        Part of the starts that ended here.
    lost : float
        Part of the starts that ended in no equilibrium.
    """

    state: State
    energy: torch.Tensor
    residual: torch.Tensor
    curvature: torch.Tensor
    share: torch.Tensor
    lost: float


@differentiating
def relax_from_many(
    system: PhysicalSystem,
    x: torch.Tensor,
    starts: int,
    *,
    generator: torch.Generator | None = None,
    solver: str | None = None,
    tolerance: float | None = None,
    max_iterations: int | None = None,
    measure: bool = True,
) -> Equilibrium:
    """Free phases from several random states (`EnergySystem.random_state`) of each example.

    Parameters
    ----------
    system : EnergySystem or VectorField
    x : Tensor (B, ...)
    starts : int
        N; with 1, the one phase is from the system's initial state.
    generator : torch.Generator, optional
        Random generator on the CPU; default one seeded with 0.
    solver, tolerance, max_iterations
        For `relax`.
    measure : bool
        Whether to measure the residual of what is solved by construction, as in `solve`.

    Returns
    -------
    Equilibrium
        The equilibria of N * B states: all examples from the first start, then all from the second, ...
    """
    require_system(system)
    require_count("starts", starts)
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    options: dict[str, Any] = {"solver": solver, "tolerance": tolerance, "max_iterations": max_iterations}
    with torch.no_grad():
        system.check_input(x)
        many = repeated(x, starts)
        start = None if starts == 1 else system.random_state(many, generator)
        return solve(new_phase(system, prepared(system, many, {}), {}), start=start, measure=measure, **options)


@differentiating
def explore(
    system: PhysicalSystem,
    x: torch.Tensor,
    starts: int = 64,
    *,
    same: float = 1e-4,
    generator: torch.Generator | None = None,
    solver: str | None = None,
    tolerance: float | None = None,
    max_iterations: int | None = None,
) -> tuple[Basins, ...]:
    """The distinct equilibria that many starts find for each example, with how often.

    Parameters
    ----------
    system : EnergySystem or VectorField
    x : Tensor (B, ...)
    starts : int
    same : float
        Two states are one where `EnergySystem.difference` leaves no entry larger than this, in state units.
    generator, solver, tolerance, max_iterations
        For `relax_from_many`.

    Returns
    -------
    tuple of Basins
        One an example.
    """
    if not (is_real(same) and same >= 0):
        raise argument_error("same", "be a number of at least 0", repr(same))
    found = relax_from_many(
        system,
        x,
        starts,
        generator=generator,
        solver=solver,
        tolerance=tolerance,
        max_iterations=max_iterations,
    )
    with torch.no_grad():
        many = repeated(x, starts)
        energy = system.energy(found.state, many)
        results = []
        for b in range(len(x)):
            rows = torch.arange(b, len(many), len(x), device=x.device)
            rows = rows[found.converged[rows]]
            rows = rows[energy[rows].argsort()]
            results.append(_distinct(system, x[b : b + 1], found, energy, rows, starts, same))
    return tuple(results)


def _distinct(
    system: PhysicalSystem,
    x: torch.Tensor,
    found: Equilibrium,
    energy: torch.Tensor,
    rows: torch.Tensor,
    starts: int,
    same: float,
) -> Basins:
    """Those of the rows of one example that differ, each the first of its kind."""
    firsts, counts = [], []
    left = rows
    while len(left):
        one = tuple(s[left[:1]].expand_as(s[left]) for s in found.state)
        apart = largest(system.difference(tuple(s[left] for s in found.state), one))
        close = apart <= same
        close[0] = True
        firsts.append(int(left[0]))
        counts.append(int(close.sum()))
        left = left[~close]
    state = tuple(s[firsts] for s in found.state)
    curvature = torch.full_like(energy[firsts], float("nan"))
    if system.smooth and firsts:
        curvature = smallest_curvature(system, state, x.expand(len(firsts), *x.shape[1:]))
    return Basins(
        state=state,
        energy=energy[firsts],
        residual=found.residual[firsts],
        curvature=curvature,
        share=torch.tensor(counts, dtype=energy.dtype, device=energy.device) / starts,
        lost=1 - len(rows) / starts,
    )


def repeated(rows: torch.Tensor, starts: int) -> torch.Tensor:
    """A batch (B, ...) repeated once for each start, (N * B, ...)."""
    return rows.repeat(starts, *[1] * (rows.ndim - 1))


def averaged(outputs: torch.Tensor, keep: torch.Tensor, starts: int) -> torch.Tensor:
    """Mean of the outputs (N * B, n_out) over the starts kept (N * B,), over all where none is: (B, n_out)."""
    if starts == 1:
        return outputs
    kept = keep.view(starts, -1)
    kept = kept | ~kept.any(0)
    share = kept.to(outputs) / kept.sum(0)
    part = outputs.unflatten(0, kept.shape) * share[:, :, None]
    return torch.where(kept[:, :, None], part, torch.zeros_like(part)).sum(0)


def mean_outputs(system: PhysicalSystem, outputs: torch.Tensor, keep: torch.Tensor, starts: int) -> torch.Tensor:
    """`averaged` outputs; of angles, the angle of their mean phasor."""
    if starts == 1 or not system.angles:
        return averaged(outputs, keep, starts)
    return torch.atan2(averaged(outputs.sin(), keep, starts), averaged(outputs.cos(), keep, starts))
