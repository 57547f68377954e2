"""Relaxation, example by example and in compiled code, of networks of one hidden layer and few outputs.

On the CPU, and where there is enough to do; otherwise, and from where an example has not settled after `BURST`
sweeps, the general solvers go on. Both make the same sweeps and mix them alike: numbers differ by rounding.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from physics_ep.blocks import State, keep
from physics_ep.relaxation.loop import SOLVERS
from physics_ep.relaxation.solvers import Anderson, Solver

if TYPE_CHECKING:
    from .row_kernels import HiddenRows, OutputRows

MOST_OUTPUTS = 32
"""Beyond, products of a whole batch are no slower."""
LEAST_WORK = 2**14
"""Hidden units of all examples from which on it pays to load, or to compile, the kernels."""
BURST = 40
"""Most sweeps of an example before the general solver takes over."""


@contextmanager
def whole_batches() -> Iterator[None]:
    """Within this context all networks relax by products of whole batches."""
    global LEAST_WORK
    kept, LEAST_WORK = LEAST_WORK, sys.maxsize
    try:
        yield
    finally:
        LEAST_WORK = kept


def row_solvers(phase: Any) -> Mapping[str, Callable[[Any, State], Solver]] | None:
    """Solvers of a phase by name, 'coordinate' and 'anderson' example by example; None: the general ones."""
    if not serves(phase):
        return None
    return SOLVERS | {
        "coordinate": partial(ByRows, general=SOLVERS["coordinate"], depth=0),
        "anderson": partial(ByRows, general=SOLVERS["anderson"], depth=Anderson.depth),
    }


def serves(phase: Any) -> bool:
    """Whether the kernels know the phase, and it is worth while."""
    if phase.x.device.type != "cpu" or phase.depth != 2 or phase.dtype not in (torch.float32, torch.float64):
        return False
    hidden, outputs = phase.system.sizes[1:]
    if phase.carried != [1]:
        return False
    if outputs > MOST_OUTPUTS or phase.x.shape[0] * hidden < LEAST_WORK:
        return False
    if phase.nudge is not None and (not phase.balanced or phase.nudge.is_complex):
        return False
    if (phase.origin is None) != (phase.nudge is None):
        return False
    return phase.clips()


def paired(
    free: torch.Tensor, plus: torch.Tensor, minus: torch.Tensor | None, weight: torch.Tensor
) -> tuple[torch.Tensor, ...] | None:
    """What a contrast takes of two displacements from free states (B, N), in one pass; None where that is no gain.

    Returns
    -------
    (weight times the difference e of the two states, (B, N), their mean m (B, N), sums over the batch of e m and of
    e, (N,)) or None
    """
    if minus is None or free.ndim != 2 or free.numel() < LEAST_WORK or free.device.type != "cpu":
        return None
    if plus.dtype not in (torch.float32, torch.float64) or not free.dtype == plus.dtype == minus.dtype:
        return None
    from . import row_kernels

    e, m, products, total = row_kernels.paired(*map(array_of, (free, plus, minus, weight)))
    e, m, products, total = map(torch.from_numpy, (e, m, products, total))
    return e, m, products.to(e.dtype), total.to(e.dtype)


class ByRows(Solver):
    """Sweeps of each example by itself until it meets the tolerance, then those of a general solver.

    Parameters
    ----------
    phase : LayeredPhase
    start : State
    general : callable (phase, start) -> Solver
        What goes on, and what is taken where each iterate is wanted.
    depth : int
        Depth of Anderson's mixing; 0: plain sweeps.
    """

    steady = True

    def __init__(self, phase: Any, start: State, *, general: Callable[[Any, State], Solver], depth: int) -> None:
        self.phase, self.depth = phase, depth
        self.general = general
        self.u = start[1]
        self.spent = 0
        self._rest: Solver | None = None
        self._before = 0
        self._last: tuple[State, torch.Tensor] | None = None

    def evaluate(self) -> tuple[State, torch.Tensor]:
        if self._rest is None and self.most == 1:
            self._rest = self.general(self.phase, self._start(self.u))
        if self._rest is not None:
            found = self._rest.evaluate()
            self.spent = self._before + self._rest.spent
            return found
        from .row_kernels import RowRule, relaxed

        phase = self.phase
        clamped, weights, hidden, back, outputs = phase.by_rows(self.u)
        limits = torch.finfo(phase.dtype)
        origin = outputs.first[:0] if phase.origin is None else array_of(phase.origin[1])
        rule = RowRule(back, self.tolerance, min(self.most, BURST), self.depth, limits.eps, limits.tiny)
        states, ends, following, residuals, made = relaxed(clamped, weights, hidden, origin, outputs, rule)
        self._before = self.spent = int(made.max())
        z = torch.from_numpy(states), torch.from_numpy(ends)
        self._last = z, torch.from_numpy(following)
        return z, torch.from_numpy(residuals)

    def advance(self, active: torch.Tensor) -> None:
        if self._rest is not None:
            self._rest.advance(active)
            return
        assert self._last is not None
        (_, u), following = self._last
        self._rest = self.general(self.phase, self._start(keep(active, (following,), (u,))[0]))

    def _start(self, u: torch.Tensor) -> State:
        """Outputs as a start, whose hidden units the general solvers do not look at."""
        hidden = self.phase.system.shapes[1]
        return u.new_zeros(()).expand(len(u), *hidden), u


def array_of(tensor: torch.Tensor) -> Any:
    """The numbers of a tensor as an array in one piece, which they share where they lie so."""
    if tensor.requires_grad:
        tensor = tensor.detach()
    return (tensor if tensor.is_contiguous() else tensor.contiguous()).numpy()


@functools.lru_cache(maxsize=64)
def bounded(units: int, low: float, high: float, dtype: torch.dtype) -> HiddenRows:
    """Units of one range, that a unit of drive moves by one."""
    from .row_kernels import HiddenRows

    one = torch.ones(units, dtype=dtype)
    return HiddenRows(*(array_of(t) for t in (one, low * one, high * one)))


def outputs_of_rows(u: torch.Tensor, alone: torch.Tensor, factor: torch.Tensor, unit: torch.Tensor) -> OutputRows:
    """The kernel's outputs, constants spread over all rows."""
    from .row_kernels import OutputRows

    first, alone, factor = (t if t.shape == u.shape else t.expand_as(u) for t in (u, alone, factor))
    return OutputRows(array_of(first), array_of(alone), array_of(factor), array_of(unit))
