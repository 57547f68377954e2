"""What one step of equilibrium propagation did, and how exact it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from .blocks import narrowed
from .equilibrium import Equilibrium
from .nudging import Nudge
from .relaxation import new_phase, prepared, solve
from .system import EnergySystem, Phase, widened

if TYPE_CHECKING:
    from .estimator import EquilibriumPropagation


@dataclass(frozen=True)
class Step:
    """What one EP step did.

    Attributes
    ----------
    loss : Tensor ()
        Mean cost at the free states over the examples used.
    outputs : Tensor (B, n_out)
        At the free state; with several starts, the mean over those used.
    equilibria : tuple of Equilibrium
        The free phase, then the nudged phases in the stencil's order. With N starts they hold N * B states: all
        examples from the first start, then all from the second, ...
    beta : float
    skipped : int
        Examples left out because a phase did not converge (from any start), or left its branch.
    used : Tensor of bool (N * B,)
        Which states gave a gradient.
    switched : int
        States whose nudged phase left the branch of the free one, of N * B; 0 where that was not checked.
    unstable : int
        Free states that are no minima, of N * B; 0 where that was not checked.
    noise_floors : dict
        Parameter name to a bound on the relative error of its gradient from residuals and rounding at this beta
        (the finite-beta bias is not in it). Computed when asked for, by a float64 twin of the step.
    noise_floor : float
        The same for the gradient as one vector.
    """

    loss: torch.Tensor
    outputs: torch.Tensor = field(repr=False)
    equilibria: tuple[Equilibrium, ...] = field(repr=False)
    beta: float
    skipped: int
    _floors: Callable[[], dict[str, float]] = field(repr=False)
    _leakage: Callable[[], float] = field(repr=False)
    used: torch.Tensor | None = field(default=None, repr=False)
    switched: int = 0
    unstable: int = 0

    @cached_property
    def _all_floors(self) -> dict[str, float]:
        return self._floors()

    @cached_property
    def imaginary_leakage(self) -> float:
        """How far a phase is from the conjugate of its mirror image, over its size: what is lost to Im dL/dtheta.

        Conjugate symmetry halves the phases of a holomorphic scheme; this relaxes one of those left out and
        compares. Rounding and residual for an energy that is real on real states, of order one for one that is
        not analytic. 0 for real schemes.
        """
        return self._leakage()

    @property
    def noise_floors(self) -> dict[str, float]:
        return {name: value for name, value in self._all_floors.items() if name}

    @property
    def noise_floor(self) -> float:
        return self._all_floors[""]


def noise_floors(
    ep: EquilibriumPropagation,
    system: EnergySystem,
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
        Of each state in the mean.

    Returns
    -------
    dict
        Parameter name to relative error; '' for the gradient as one vector.
    """
    free, nudged = phases
    with torch.no_grad():
        twin = widened(system)
        wide = twin.dtype
        inputs = prepared(twin, x.to(wide), ep.options)
        target = y.to(wide) if y.dtype.is_floating_point else y
        tight = 1e-15
        settled = solve(
            twin.phase(inputs),
            solver=ep.solver,
            tolerance=tight,
            max_iterations=ep.max_iterations,
            start=tuple(s.to(wide) for s in free.state),
        )
        base = new_phase(twin, inputs, ep.options, origin=settled.state, balanced=True)
        signs = None if signs is None else signs.to(wide)
        starts = {i: narrowed(found.displacement or (), wide) for i, found in nudged.items()}
        better = ep._relax_nudged(base, target, signs, tight * system.tolerance_share(ep.beta), starts)
        reference = ep._contrast(twin, base, settled, better, inputs.x, signs, weight.to(wide))
    eps = torch.finfo(wide).eps
    floors = {}
    squares = [0.0, 0.0]
    for name, g in grads.items():
        size = float(reference[name].norm())
        error = 2 * float((reference[name] - g.to(wide)).norm()) + 8 * eps * size
        floors[name] = error / size if size > 0 else (0.0 if error == 0 else math.inf)
        squares[0] += error**2
        squares[1] += size**2
    floors[""] = math.sqrt(squares[0] / squares[1]) if squares[1] > 0 else 0.0
    return floors


def mirror_gap(
    ep: EquilibriumPropagation,
    base: Phase,
    y: torch.Tensor,
    tolerance: float | None,
    phases: dict[int, Equilibrium],
) -> float:
    """See `Step.imaginary_leakage`."""
    mirrored = ep.scheme.mirrored()
    if not mirrored:
        return 0.0
    i, j = mirrored[0]
    phase = base.nudged(Nudge(ep.pull, y, ep.beta * ep.scheme.nodes[i]))
    found = solve(phase, solver=ep.solver, tolerance=tolerance, max_iterations=ep.max_iterations)
    known = phases[j].displacement
    assert known is not None
    assert found.displacement is not None
    gap = max(float((a - b.conj()).abs().max()) for a, b in zip(found.displacement, known, strict=True))
    return gap / max(float(b.abs().max()) for b in known)
