"""Methods of equilibrium propagation: what nudged phases follow, with an energy and without one.

| method | nudged phases follow | exact |
|---|---|---|
| energy | F - beta dC/ds, F = -dE/ds (Scellier and Bengio 2017) | if J = dF/ds is symmetric |
| vector-field | the same, for any force (Scellier and others 2018) | if J is symmetric; else biased |
| asymmetric | F - beta dC/ds - (J - J^T) (s - s0) (Scurria and others 2026, arXiv 2602.03670) | always |
| dyadic | the two states of `dyadic.DyadicPhase`, which settle together (the same source) | always |
| auto | energy where the measured asymmetry is rounding, else asymmetric | always |

F is S times ds/dt, S the signature (`PhysicalSystem.directions`).
"""

from __future__ import annotations

import warnings
import weakref
from dataclasses import dataclass, replace
from typing import Any

import torch

from .. import ranks
from ..blocks import State, flat, in_dtype, largest
from ..cost import Cost, costs
from ..energies import outputs_of
from ..equilibrium import Equilibrium, OtherBranch, Status
from ..errors import argument_error
from ..nudging import Stencil, require_method
from ..physical_system import Inputs, Phase, PhysicalSystem, widened
from ..reads import likely
from ..relaxation.loop import new_phase
from ..vector_field import VectorField
from .dyadic import DyadicPhase

EXACT = ("asymmetric", "dyadic")
"""Methods whose gradients are exact for any force, as beta goes to zero."""

HARDWARE = {
    "energy": "Nothing beyond two nudged phases: the response of a reciprocal system is its own transpose.",
    "vector-field": "Nothing beyond two nudged phases; the estimate is biased by the asymmetry.",
    "asymmetric": (
        "Couplings are read the other way in nudged phases (or their differences known or measured); the free "
        "state of every unit is held through both nudges: droop between the two costs an error that grows as "
        "1 / beta."
    ),
    "dyadic": (
        "Two copies of every unit, coupled through the transposed couplings at their mean; nothing is held, but "
        "both copies must have the same law."
    ),
}
"""What each method asks of a machine that does it."""


class AsymmetryWarning(UserWarning):
    """Ordinary EP was asked for on a system whose force is the gradient of no energy."""


class UnstableFreeState(OtherBranch):
    """A free state is stationary, but the system leaves it by itself. `.eigenvalue` (B,) is the rightmost one."""

    def __init__(self, equilibrium: Equilibrium, rows: torch.Tensor, eigenvalue: torch.Tensor, unit: str) -> None:
        super().__init__(equilibrium, "The free phase", rows)
        self.eigenvalue = eigenvalue
        worst = complex(eigenvalue[eigenvalue.real.nan_to_num(nan=-torch.inf).argmax()])
        per = unit.removesuffix("s") or unit
        shown = f"{worst.real:.3g}" if worst.imag == 0 else f"{worst.real:.3g} {worst.imag:+.3g}i"
        self.args = (
            f"The free phase has {int(rows.sum())} of {rows.numel()} states that are unstable: the rightmost "
            f"eigenvalue of the motion there is {shown} per {per}, and must be negative. Try "
            "another start, weaker couplings, other signs in directions, or on_unconverged='skip'.",
        )


@dataclass(frozen=True)
class Choice:
    """The EP method that a step takes, and why.

    Attributes
    ----------
    method : str
    asymmetry : float
        |A| / |J| as last measured (`Phase.asymmetry`); NaN where nothing asked for it.
    even : float
        The same with differences of scale between variables taken out (`Jacobian.asymmetry`): what decides.
    """

    method: str
    asymmetry: float = float("nan")
    even: float = float("nan")


class MethodChoice:
    """Chooses the EP method for a system, and when the asymmetry that it depends on is measured again.

    Parameters
    ----------
    asked : str or None
        One of `METHODS`; None: the system's default.
    scheme : Stencil
    every : int
        Steps between measurements.

    Raises
    ------
    InputError
        If there is no such method, or the scheme cannot have it.
    """

    def __init__(self, asked: str | None, scheme: Stencil, every: int) -> None:
        require_method(asked, scheme)
        self.asked, self.scheme, self.every = asked, scheme, every
        self.choice = Choice("energy")
        self._known: tuple[Any, int] | None = None
        self._warned: weakref.ref[PhysicalSystem] | None = None

    def check(self, system: PhysicalSystem) -> None:
        """Refuse what a system's phases cannot do, such as complex nudges where there is no energy."""
        if system.noisy and any(partner is None for _, partner, _ in self.scheme.halved_pairs()):
            must = "be 'centered' where nudged phases have noise of their own, and the free one none"
            raise argument_error("scheme", must, repr(self.scheme.name))
        if self.scheme.analytic and isinstance(system, VectorField):
            name = type(system).__name__
            raise argument_error(
                "scheme", f"be one of real nudges for {name}, which has no energy", self.scheme.name
            )
        if self.asked == "dyadic" and not system.has_dyadic:
            must = (
                f"be 'asymmetric', 'energy' or 'auto' for {type(system).__name__}, whose units are pairs of states"
            )
            raise argument_error("method", must, repr(self.asked))

    def displaced(self, system: PhysicalSystem, base: Phase) -> tuple[Phase, torch.Tensor | None]:
        """The phase to nudge, and the rightmost eigenvalue (B,) at its origin if it was looked for now.

        Parameters
        ----------
        system : EnergySystem or VectorField
        base : Phase
            The phase at the free state, balanced.
        """
        asked = system.default_method if self.asked is None else self.asked
        if asked == "energy" == system.default_method:
            self.choice = Choice("energy")
            return base, None
        eigenvalue = None
        due = self._due(system)
        if due and isinstance(system, VectorField):
            require_function(system, base)
            eigenvalue = base.rightmost()
        elif isinstance(system, VectorField):
            eigenvalue = base.watched()
        # One change may make couplings that are symmetric what has no energy: a few products of J tell.
        alike = asked == "auto" and self.choice.method == "energy" and isinstance(system, VectorField)
        if due or alike:
            self.choice = self._chosen(asked, base, system, due)
        return self.nudging(base), eigenvalue

    def nudging(self, base: Phase) -> Phase:
        """Phase that nudges act on: the transposed one for 'asymmetric', two states for 'dyadic', else `base`."""
        method = self.choice.method
        if method == "dyadic":
            return DyadicPhase(base)
        return base.adjoint() if method == "asymmetric" else base

    def _due(self, system: PhysicalSystem) -> bool:
        known, age = (None, 0) if self._known is None else self._known
        due = known is None or known() is not system or age >= self.every
        self._known = (weakref.ref(system), 1 if due else age + 1)
        return due

    def _chosen(self, asked: str, base: Phase, system: PhysicalSystem, due: bool) -> Choice:
        rounding = torch.finfo(base.narrow).eps ** 0.5
        even = ranks.largest(base.asymmetry(even=True), system.device)  # one method for all ranks
        biased = even > rounding
        found = self.choice.asymmetry
        if due or biased:
            found = ranks.largest(base.asymmetry(), system.device)
        figure = f"{found:.2g}" if found > rounding else f"{found:.2g} ({even:.2g} without differences of scale)"
        if biased and base.adjoint() is base:
            name = type(system).__name__
            if asked in EXACT and system.smooth:  # at kinks, differences may tell an asymmetry that is not there
                must = (
                    f"be 'energy' for {name}, whose force is not the gradient of its energy (asymmetry "
                    f"{figure}; describe it as a VectorField)"
                )
                raise argument_error("method", must, repr(asked))
            self._warn(
                system,
                f"No method is exact on this {name}, whose force is not the gradient of its "
                f"energy: the asymmetry |A| / |J| of its Jacobian is {figure}. Describe it as a VectorField.",
            )
            return Choice("energy" if asked == "auto" else asked, found, even)
        if asked == "auto":
            return Choice("asymmetric" if biased else "energy", found, even)
        if asked not in EXACT and biased:
            self._warn(
                system,
                f"Ordinary EP is biased on this {type(system).__name__}, whose force is the gradient of no energy: "
                f"the asymmetry |A| / |J| of its Jacobian is {figure}. method='asymmetric' is exact.",
            )
        return Choice(asked, found, even)

    def _warn(self, system: PhysicalSystem, message: str) -> None:
        """Warn of a system once, though its asymmetry is another one at each measurement."""
        if self._warned is None or self._warned() is not system:
            self._warned = weakref.ref(system)
            warnings.warn(message, AsymmetryWarning, stacklevel=8)


def of_stable(
    system: PhysicalSystem, free: Equilibrium, eigenvalue: torch.Tensor
) -> tuple[Equilibrium, UnstableFreeState | None]:
    """A free phase of which unstable examples count as no equilibria, and the error that names them, if any.

    Parameters
    ----------
    system : EnergySystem or VectorField
    free : Equilibrium
    eigenvalue : Tensor (B,)
        Rightmost ones at its states.
    """
    rows = (eigenvalue.real > 0) & free.converged
    if likely(~rows.any()):
        return free, None
    left = replace(free, residual=free.residual.masked_fill(rows, torch.inf), status=Status.UNSTABLE)
    return left, UnstableFreeState(free, rows, eigenvalue, system.time_unit)


def check_droop(droop: float) -> float:
    """Return a share of at least 0 and less than 1, or raise InputError."""
    if isinstance(droop, bool) or not isinstance(droop, int | float) or not 0 <= droop < 1:
        raise argument_error("droop", "be a share of at least 0 and less than 1", droop)
    return float(droop)


def require_invariant(system: PhysicalSystem, state: State, cost: Cost, y: torch.Tensor) -> None:
    """Refuse a cost that changes along a direction in which the law of a system without an energy never does.

    Where all phases may turn together the adjoint equation has no solution for it.

    Raises
    ------
    InputError
        If the cost changes along such a direction.
    """
    directions = system.symmetries(state)
    if not directions:
        return
    with torch.enable_grad():
        leaves = tuple(s.detach().requires_grad_() for s in state)
        total = costs(cost, outputs_of(system, leaves), y).sum()
        slope = torch.autograd.grad(total, leaves, allow_unused=True)
    steep = flat(tuple(torch.zeros_like(s) if g is None else g for s, g in zip(state, slope, strict=True)))
    for direction in directions:
        along = (steep * flat(direction)).sum(1)
        if bool((along.abs() > 1e3 * torch.finfo(along.dtype).eps * steep.abs().sum(1)).any()):
            must = (
                f"not change under the symmetries of a {type(system).__name__} (a common rotation of all phases): "
                "read differences of phases, or pin one"
            )
            raise argument_error("cost", must, f"{cost.name!r} on outputs that change with them")


def require_settling(system: PhysicalSystem, free: Equilibrium, inputs: Inputs, options: dict[str, Any]) -> None:
    """Refuse a `VectorField` whose free phase did not settle, where its force is no sound one and so the reason.

    Raises
    ------
    InputError
    """
    if not free.status.settled and isinstance(system, VectorField):
        require_function(system, new_phase(system, inputs, options, origin=free.state))


def require_function(system: VectorField, base: Phase) -> None:
    """Refuse a force that is no function of its arguments alone, each example's of its own, as autograd has it.

    It is asked twice at the free state, with another state between; for the first and the last example alone; and
    its derivative in one direction, near the free state, is compared with a difference.

    Raises
    ------
    InputError
        If the force differs when it is asked again, or with other examples in the batch.
    """
    assert base.origin is not None
    field: Any = widened(base.system)
    state = tuple(s.to(field.dtype) for s in base.origin)
    x = in_dtype(base.x, field.dtype)
    name = f"system ({type(system).__name__})"
    with torch.no_grad():
        first = field.force(state, x)
        field.force(tuple(s + 1e-3 * (1 + s.abs()) for s in state), x)
        again = field.force(state, x)
        size = max(float(f.abs().nan_to_num(0.0, 0.0).max()) for f in (*first, *state) if f.numel())
        rounding = 1e3 * torch.finfo(field.dtype).eps * max(size, torch.finfo(field.dtype).tiny)

        def same(one: State, other: State) -> bool:
            pairs = zip(one, other, strict=True)  # what has diverged is nothing that a force is judged by
            return all(bool(((a - b).abs() <= rounding).logical_or(~a.isfinite()).all()) for a, b in pairs)

        if not same(first, again):
            must = "have a force that is a function of its arguments and parameters alone"
            raise argument_error(name, must, "another one at the same state when asked again")
        if len(x) > 1:
            for one in (slice(0, 1), slice(len(x) - 1, len(x))):
                alone = field.force(tuple(s[one] for s in state), x[one])
                if not same(tuple(f[one] for f in first), alone):
                    must = "have a force of each example that does not depend on the others in its batch"
                    raise argument_error(name, must, "another one of an example that is alone")
    require_followed(field, state, x, name)


def require_followed(field: Any, state: State, x: torch.Tensor, name: str) -> None:
    """Refuse a force of which autograd does not see all: its Jacobian would be another system's.

    Near the free state w . (F(s + e v) - F(s - e v)) / 2e is compared with v . J^T w for random v and w, twice,
    since a kink may lie between. Examples that have diverged are left out.

    Raises
    ------
    InputError
    """
    generator = torch.Generator().manual_seed(6)
    reach = largest(state)
    unit = torch.where(reach > 0, reach, torch.ones_like(reach))

    def drawn(size: float) -> State:
        normal = (torch.randn(s.shape, generator=generator, dtype=torch.float64).to(s) for s in state)
        return tuple(size * unit.view(-1, *[1] * (n.ndim - 1)) * n for n in normal)

    e = 1e-7
    wrong = torch.ones_like(reach, dtype=torch.bool)
    for _ in range(2):
        at = field.project(tuple(s + d for s, d in zip(state, drawn(1e-2), strict=True)))
        along, across = drawn(1.0), flat(drawn(1.0))
        with torch.no_grad():
            ends = [
                flat(field.force(tuple(s + way * e * d for s, d in zip(at, along, strict=True)), x))
                for way in (1, -1)
            ]
        with torch.enable_grad():
            leaves = tuple(s.detach().requires_grad_() for s in at)
            work = (flat(field.force(leaves, x)) * across).sum()
            found = torch.autograd.grad(work, leaves, allow_unused=True)
        back = flat(tuple(torch.zeros_like(s) if g is None else g for s, g in zip(at, found, strict=True)))
        change = (ends[0] - ends[1]) / (2 * e)
        off = ((flat(along) * back).sum(1) - (across * change).sum(1)).abs()
        rounding = 1e3 * torch.finfo(reach.dtype).eps / e * (ends[0].norm(dim=1) + flat(at).norm(dim=1))
        wrong = wrong & (off > across.norm(dim=1) * (1e-4 * change.norm(dim=1) + rounding))
    if bool(wrong.any()):
        must = "have a force whose derivative autograd gives whole"
        was = "changing otherwise than it says (a part is detached, or autograd inside made no graph)"
        raise argument_error(name, must, was)
