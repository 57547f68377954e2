"""What a relaxation returns: a state, the residual that certifies it, and why the solver stopped."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from .blocks import State, finite_sum
from .moved import moved_names
from .tabular import Tabular

if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)


class Status(enum.Enum):
    """Why a relaxation stopped. The value is the message a user reads."""

    CONVERGED = "every example's residual is within the tolerance"
    BY_CONSTRUCTION = "every example's state is an equilibrium by construction; its residual was measured before"
    STALLED = "the residual stopped falling above the tolerance (rounding, a kink or an oscillation)"
    BUDGET = "the iterations ran out before the residual met the tolerance"
    NOT_FINITE = (
        "the state became infinite or NaN: the energy has no lower bound (let it grow faster than it falls, say by "
        "a term s^2 / 2, or bound the variables), the nudge is too strong (a smaller beta), or a step too large"
    )
    NOT_LOCKED = (
        "no synchronised state: the detuning exceeds what couplings and fields can hold, so that phases drift"
    )
    SWITCHED = "the nudged phase left the branch of the free state"
    UNSTABLE = "the free state is no minimum but a saddle"

    @property
    def settled(self) -> bool:
        """Whether every example is at an equilibrium: measured now, or by construction."""
        return self in (Status.CONVERGED, Status.BY_CONSTRUCTION)


@dataclass(frozen=True, repr=False)
class Trace:
    """The course of a relaxation, one row an iteration.

    Attributes
    ----------
    residual : Tensor (K, B)
        Dimensionless residual.
    energy : Tensor (K, B)
        Total energy E + beta C.
    state : tuple of Tensor (K, B, ...)
        States.
    """

    residual: torch.Tensor
    energy: torch.Tensor
    state: State

    def __repr__(self) -> str:
        iterations, examples = self.residual.shape
        return f"Trace({iterations} iterations, {examples} example{'' if examples == 1 else 's'})"


@dataclass(frozen=True, repr=False)
class Equilibrium(Tabular):
    """A state with the evidence that it is (or is not) an equilibrium.

    Attributes
    ----------
    state : tuple of Tensor (B, ...)
        One tensor for each block of the system.
    residual : Tensor (B,)
        Largest component of the (projected) force an example, over the system's `residual_scale`. Dimensionless.
        NaN where a state is not finite. Of a free phase that is solved by construction, how far the units are from
        what they answer when they are driven anew; with the status `BY_CONSTRUCTION` it is the worst of the last
        measurement.
    tolerance : float
        What `residual` was asked to meet.
    iterations : int
        Iterations of the solver.
    status : Status
        Why the solver stopped, for the batch as a whole.
    solver : str
        Name of the solver.
    displacement : tuple of Tensor (B, ...) or None
        For a nudged phase, state minus the free state, carried as such: never the difference of two rounded
        states.
    residual_scale, residual_unit
        One unit of `residual` in the system's own unit: a number, or (B,) where the scale was measured.
    trace : Trace or None
        Kept when asked for.
    time : Tensor (B,) or None
        Time until each example settled, or until it was given up, in the system's time constants; known only where
        the solver follows the system's own course in time.
    by_block : Tensor (n, B) or None
        Residual of each block of the state, of which `residual` is the largest, where the solver tells it.
    """

    residual: torch.Tensor
    tolerance: float
    iterations: int
    status: Status
    _state: Callable[[], State] = field(repr=False)
    solver: str = ""
    displacement: State | None = None
    residual_scale: float | torch.Tensor = 1.0
    residual_unit: str = ""
    trace: Trace | None = field(default=None, repr=False)
    time: torch.Tensor | None = None
    by_block: torch.Tensor | None = None

    @cached_property
    def state(self) -> State:
        """State of the equilibrium, a tuple of blocks (B, ...), computed when it is asked for.

        Learning needs the displacements of nudged phases, and no state.
        """
        return self._state()

    @property
    def converged(self) -> torch.Tensor:
        """Bool (B,): which examples meet the tolerance. NaN never does."""
        return self.residual <= self.tolerance

    @property
    def residual_si(self) -> torch.Tensor:
        """Residual (B,) in `residual_unit`."""
        return self.residual * self.residual_scale

    def words(self) -> list[str]:
        """How many examples are at rest, and how far the worst one is."""
        count = self.residual.numel()
        told = [f"{int(self.converged.sum())} of {count} converged"]
        if count:
            told.append(f"worst residual {float(self.residual.max()):.2g}, tolerance {self.tolerance:.2g}")
        how = f"{self.iterations} iterations of {self.solver!r}" if self.solver else self.status.name.lower()
        return [*told, how]

    def records(self) -> list[dict[str, Any]]:
        """The relaxation as a table, one row for each example."""
        times = [None] * len(self.residual) if self.time is None else self.time.tolist()
        rows = zip(self.residual.tolist(), self.converged.tolist(), times, strict=True)
        return [
            {"example": k, "residual": r, "converged": c, **({} if t is None else {"time": t})}
            for k, (r, c, t) in enumerate(rows)
        ]

    def split(self, parts: int) -> tuple[Equilibrium, ...]:
        """Split the equilibrium of a batch in which batches of equal size are stacked into one `Equilibrium` for
        each. `parts` is the number of batches. Each part has converged if its own residuals are within the
        tolerance."""

        def chunks(blocks: State) -> list[State]:
            return list(zip(*[b.chunk(parts) for b in blocks], strict=True))

        def state(k: int) -> Callable[[], State]:
            return lambda: chunks(self.state)[k]

        moved: list[State] | list[None] = [None] * parts
        if self.displacement is not None:
            moved = chunks(self.displacement)
        times = [None] * parts if self.time is None else self.time.chunk(parts)
        each = [None] * parts if self.by_block is None else self.by_block.chunk(parts, 1)
        pieces = zip(self.residual.chunk(parts), moved, times, each, strict=True)
        return tuple(
            replace(
                self, _state=state(k), residual=r, displacement=d, status=self._status_of(r), time=t, by_block=b
            )
            for k, (r, d, t, b) in enumerate(pieces)
        )

    def _status_of(self, residual: torch.Tensor) -> Status:
        if self.status is Status.CONVERGED:
            return self.status
        return Status.CONVERGED if bool((residual <= self.tolerance).all()) else self.status

    def require(self) -> Equilibrium:
        """Return self if every example converged, else raise `NotConverged`."""
        if not bool(self.converged.all()):
            raise NotConverged(self)
        return self


class NotConverged(RuntimeError):  # noqa: N818 (a public name)
    """Raised where a state is needed that is no equilibrium; `.equilibrium` holds what was found."""

    def __init__(self, equilibrium: Equilibrium, phase: str = "relaxation") -> None:
        self.equilibrium = equilibrium
        bad = int((~equilibrium.converged).sum())
        worst = float(equilibrium.residual.nan_to_num(nan=float("inf")).max())
        ways = "a smaller beta, more iterations, another solver"
        if equilibrium.status is Status.NOT_LOCKED:
            ways = "a smaller detuning, stronger couplings or fields"
        super().__init__(
            f"{phase} did not converge for {bad} of {equilibrium.residual.numel()} examples: worst residual "
            f"{worst:.2g}, tolerance {equilibrium.tolerance:.2g} after {equilibrium.iterations} iterations of "
            f"{equilibrium.solver or 'the solver'}; {equilibrium.status.value}. Try {ways}, "
            "or on_unconverged='skip'."
        )


class NotFinite(NotConverged):
    """Raised where a cost or a gradient is NaN or infinite though states may be equilibria; `.equilibrium` may
    be None.
    """

    def __init__(self, what: str, equilibrium: Equilibrium | None = None) -> None:
        self.equilibrium = equilibrium  # type: ignore[assignment]
        RuntimeError.__init__(self, f"{what}. Nothing was added to .grad.")


def broken_parts(loss: torch.Tensor, gradients: Mapping[str, torch.Tensor]) -> str:
    """Say in words which of a loss and its gradients are not finite; empty if all are, which takes one look."""
    if finite_sum([loss, *gradients.values()]):
        return ""
    names = [name for name, g in gradients.items() if not bool(g.isfinite().all())]  # a sum may have overflowed
    parts = [] if bool(loss.isfinite()) else ["the loss"]
    if names:
        others = f" (and of {len(names) - 1} other parameters)" if len(names) > 1 else ""
        parts.append(f"the gradient of {names[0]}{others}")
    return " and ".join(parts)


class OtherBranch(NotConverged):
    """Raised where a state is an equilibrium, but not one that EP may contrast; `.rows` (B,) tells for which
    examples.
    """

    def __init__(self, equilibrium: Equilibrium, phase: str, rows: torch.Tensor) -> None:
        self.equilibrium = equilibrium
        self.rows = rows
        RuntimeError.__init__(
            self,
            f"{phase} has {int(rows.sum())} of {rows.numel()} states that EP cannot use: "
            f"{equilibrium.status.value}. Try a smaller beta, another start or solver, or on_unconverged='skip'.",
        )
