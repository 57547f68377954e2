"""EP's gradient beside an exact one, a row a parameter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from physics_ep.cost import Cost
from physics_ep.errors import unknown_name
from physics_ep.estimators.propagation import EquilibriumPropagation, estimate_gradient
from physics_ep.nudging import Stencil
from physics_ep.system import EnergySystem

from .oracles import ORACLES, Gradients


@dataclass(frozen=True)
class GradientRow:
    """Agreement of one parameter's gradient with the oracle's.

    Attributes
    ----------
    name : str
    shape : tuple of int
    cosine : float
    relative_error : float
        |g - oracle| / |oracle|.
    scale : float
        <g, oracle> / <oracle, oracle>: 1 when the length is right too.
    sign_agreement : float
        Fraction of the entries with the oracle's sign, zeros of both counted as agreement.
    noise_floor : float
        Bound on the part of relative_error that residuals and rounding make; the rest is finite-beta bias.
    """

    name: str
    shape: tuple[int, ...]
    cosine: float
    relative_error: float
    scale: float
    sign_agreement: float
    noise_floor: float


@dataclass(frozen=True)
class GradientReport:
    """EP against an oracle.

    Attributes
    ----------
    rows : tuple of GradientRow
    oracle : str
    scheme : str
    beta : float
    relative_error : float
        Of the whole gradient as one vector.
    noise_floor : float
    residual : float
        Worst residual of all phases.
    iterations : tuple of int
        Of the free phase, then the nudged ones.
    solver : str
    loss : float
        Mean cost at the free state.
    """

    rows: tuple[GradientRow, ...]
    oracle: str
    scheme: str
    beta: float
    relative_error: float
    noise_floor: float
    residual: float
    iterations: tuple[int, ...]
    solver: str
    loss: float

    @property
    def worst_cosine(self) -> float:
        """Smallest cosine over the parameters."""
        return min(row.cosine for row in self.rows)


def compare(estimate: dict[str, torch.Tensor], exact: dict[str, torch.Tensor]) -> list[GradientRow]:
    """Rows for two gradients given as name to tensor; noise floors are left at 0."""
    rows = []
    for name, reference in exact.items():
        found = estimate.get(name)  # none at all where nothing depends on the parameter
        g = torch.zeros_like(reference) if found is None else found
        g = g.detach().double().flatten().to(reference.device)
        o = reference.detach().double().flatten()
        size, mine = float(o.norm()), float(g.norm())
        both_zero = size == 0 and mine == 0
        dot = float(g @ o)
        rows.append(
            GradientRow(
                name=name,
                shape=tuple(reference.shape),
                cosine=1.0 if both_zero else (dot / (size * mine) if size and mine else 0.0),
                relative_error=0.0 if both_zero else (float((g - o).norm()) / size if size else float("inf")),
                scale=1.0 if both_zero else (dot / size**2 if size else float("inf")),
                sign_agreement=float((g.sign() == o.sign()).double().mean()),
                noise_floor=0.0,
            )
        )
    return rows


def total_error(estimate: dict[str, torch.Tensor], exact: dict[str, torch.Tensor]) -> float:
    """Relative error of the gradient as one vector."""
    gaps = (
        o.double() - estimate[n].double().to(o.device) if n in estimate else o.double() for n, o in exact.items()
    )
    gap = sum(float(g.square().sum()) for g in gaps)
    size = sum(float(o.double().square().sum()) for o in exact.values())
    if size == 0:
        return 0.0 if gap == 0 else float("inf")
    return (gap / size) ** 0.5


def gradient_report(
    system: EnergySystem,
    x: torch.Tensor,
    y: torch.Tensor,
    cost: Cost,
    *,
    scheme: Stencil | str | None = None,
    beta: float | str = 0.1,
    oracle: str | None = None,
    exact: Gradients | None = None,
    solver: str | None = None,
    tolerance: float | None = None,
    max_iterations: int | None = None,
    generator: torch.Generator | None = None,
    on_unconverged: str = "raise",
    floors: bool = True,
    **options: Any,
) -> GradientReport:
    """Compare EP's gradient with an oracle's.

    Parameters
    ----------
    system : EnergySystem
    x, y : Tensor
    cost : Cost
    scheme, beta, solver, tolerance, max_iterations, generator, on_unconverged, **options
        Of `EquilibriumPropagation`.
    floors : bool
        Measure noise floors, which repeats the step in float64; else they are NaN.
    oracle : str, optional
        'implicit', 'bptt', 'finite_difference' or 'backprop'; default the system's.
    exact : Gradients, optional
        The oracle's gradient, if it is at hand already.

    Returns
    -------
    GradientReport

    Raises
    ------
    NotConverged, OracleError
        If a phase or the oracle cannot be certified.
    """
    name = system.default_oracle if oracle is None else oracle
    if name not in ORACLES:
        raise unknown_name("oracle", name, ORACLES)
    ep = EquilibriumPropagation(
        cost,
        scheme,
        beta,
        solver=solver,
        tolerance=tolerance,
        max_iterations=max_iterations,
        generator=generator,
        on_unconverged=on_unconverged,
        **options,
    )
    estimate, step = estimate_gradient(ep, system, x, y)
    target = ORACLES[name](system, x, y, cost) if exact is None else exact
    bounds = step.noise_floors if floors else dict.fromkeys(target, math.nan)
    rows = tuple(
        GradientRow(**{**vars(row), "noise_floor": bounds.get(row.name, math.nan)})
        for row in compare(estimate, target)
    )
    return GradientReport(
        rows=rows,
        oracle=name,
        scheme=ep.scheme.name,
        beta=step.beta,
        relative_error=total_error(estimate, target),
        noise_floor=step.noise_floor if floors else math.nan,
        residual=max(float(e.residual.max()) for e in step.equilibria),
        iterations=tuple(e.iterations for e in step.equilibria),
        solver=step.equilibria[0].solver,
        loss=float(step.loss),
    )
