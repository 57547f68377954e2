"""One relaxation of a recorded model: nudged states in the errors of their units.

F(e) = 1/2 sum_k |e_k|^2 + beta C(h_L(e)), with h_k = f_k(parents; theta) + e_k, so that a nudged equilibrium has
e_k = -beta dC/dh_k, the back-propagated derivative *at the displaced state*. There

    dE/dtheta = -sum_k e_k . df_k/dtheta

at fixed h, which is beta times the gradient that backprop has at the displaced state (docs/any_model.md).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch

from ...blocks import State, exactly_finite_rows, finite_rows
from ...cost import Cost
from ...dynamics.motion import Motion
from ...errors import argument_error
from ...nudging import Nudge
from ...system import EnergySystem, Inputs, Phase
from ..phase import Rest
from .passes import Blocks, FreePass

NEGLIGIBLE = 1e3
"""Roundings of the largest derivative of any unit below which the derivatives of a unit are rounding alone: where a
unit has no effect at all, the residual would otherwise compare one rounding with another."""


class ModulePhase(Phase):
    """A relaxation of a recorded model, in displacements from its forward pass.

    z is (d_1 ... d_L, e_1 ... e_L): displacements of the units, and the errors that the outputs ask of them there;
    rows of stacked nudges in turn.

    Parameters
    ----------
    system : EnergySystem
        A network made of a model.
    inputs : Inputs
        Their cache is a `FreePass`.
    origin, balanced
        As for `Phase`.

    Attributes
    ----------
    free : FreePass
    copies : int
        Stacked nudges.
    coupled : bool
        Whether examples of the batch feel each other: the energy is then the batch's.
    """

    carries_displacements = True
    system: Any

    def __init__(
        self, system: EnergySystem, inputs: Inputs, origin: State | None = None, balanced: bool = False
    ) -> None:
        super().__init__(system, inputs, origin, balanced)
        self.free: FreePass = inputs.cache
        self.copies = 1
        self.coupled = self.free.graph.coupled
        self.depth = len(self.free.states)
        self.dtype = self.narrow = self.free.states[-1].dtype
        self.begun: State | None = None
        if origin is not None:
            exact = self.free.states
            self.origin = exact
            if not all(a is b or torch.equal(a, b) for a, b in zip(origin, exact, strict=True)):
                self.begun = tuple(a - b for a, b in zip(origin, exact, strict=True))

    def known(self, solver: str) -> tuple[State, torch.Tensor] | None:
        """The free equilibrium is the forward pass, with E = 0, whatever the solver."""
        if self.origin is not None:
            return None
        residual = torch.zeros(len(self.x), dtype=self.dtype, device=self.x.device)
        return self.free.states, residual.masked_fill(~finite_rows(self.free.states), torch.nan)

    def finite(self, z: State) -> torch.Tensor:
        return exactly_finite_rows(self.free.states)

    def measured(self, z: State) -> torch.Tensor:
        """How far the units of the forward pass are from what they answer when they are driven anew, (B,)."""
        with torch.no_grad():
            found = self.free.predictions(self.free.states)
        return self.miss(found, list(self.free.states))

    # -- nudges -----------------------------------------------------------------------------------------------

    def nudged(self, nudge: Nudge | None) -> ModulePhase:
        twin = copy.copy(self)
        twin.nudge = None if nudge is None else nudge.to(self.dtype)
        each = nudge.beta if nudge is not None and self.coupled else None
        if isinstance(each, torch.Tensor) and bool((each != each.flatten()[0]).any()):
            must = "nudge all examples of a batch alike that is normalised together ('centered')"
            raise argument_error("scheme", must, "'random', which draws a sign an example")
        return twin

    def stacked(self, nudges: Sequence[Nudge]) -> ModulePhase | None:
        for nudge in nudges:
            self.nudged(nudge)  # refuses what does not suit the batch
        twin = copy.copy(self)
        twin.nudge = Nudge.stacked(nudges, len(self.x), self.dtype, self.x.device).to(self.dtype)
        twin.copies = len(nudges)
        return twin

    def strengths(self) -> list[torch.Tensor]:
        """Beta of each stacked nudge, (B,) each."""
        assert self.nudge is not None
        rows = self.copies * len(self.x)
        return list(self.nudge.each(rows, self.dtype, self.x.device).chunk(self.copies))

    def pull(self, copy: int, outputs: torch.Tensor) -> torch.Tensor:
        """DC/dh_L of a stacked nudge at outputs (B, n_out)."""
        assert self.nudge is not None
        size = len(self.x)
        return self.nudge.cost.gradient(outputs, self.nudge.y[copy * size : (copy + 1) * size])

    def outputs(self) -> torch.Tensor:
        """Free outputs (B, n_out)."""
        return self.free.states[-1].reshape(len(self.x), -1)

    def asked(self, copy: int, errors: Blocks | None) -> tuple[Blocks, Blocks]:
        """(h_k, -beta dC/dh_k) of a stacked nudge where its units have these errors; None: none."""
        beta = self.strengths()[copy]
        if errors is None:
            values, found = list(self.free.states), self.free.adjoints(self.pull(copy, self.outputs()))
        else:
            values, found = self.free.displaced(errors, lambda outputs: self.pull(copy, outputs))
        return values, [_rows(-beta, g) * g for g in found]

    def miss(self, wanted: Blocks, found: Blocks) -> torch.Tensor:
        """Residual (B,): largest entry of wanted - found over the largest of either, in the worst unit."""
        sizes = torch.stack([torch.maximum(_peak(a), _peak(b)) for a, b in zip(wanted, found, strict=True)])
        misses = torch.stack([_peak(a - b) for a, b in zip(wanted, found, strict=True)])
        if self.coupled:
            sizes, misses = (t.amax(1, keepdim=True).expand_as(t) for t in (sizes, misses))
        floor = NEGLIGIBLE * torch.finfo(sizes.dtype).eps * sizes.amax(0)
        relative = misses / torch.maximum(sizes, floor)
        return torch.where(misses == 0, misses, relative).amax(0)

    # -- responses to small forces ----------------------------------------------------------------------------

    def response(self, force: torch.Tensor) -> torch.Tensor:
        """sum_l P_l P_l^T on a force at the outputs, P_l = dh_L/de_l at the free state."""
        return self._tangent(force)[-1].reshape(force.shape).to(force.dtype)

    def mobility(self, cost: Cost, y: torch.Tensor) -> float:
        """Largest |d_k| / |h_k| over the hidden units for a nudge of one, to first order (norms over the batch)."""
        moved = self._tangent(-cost.gradient(self.outputs(), y))
        pairs = zip(moved[:-1], self.free.states[:-1], strict=True)
        norms = [(float(d.norm()), float(h.norm())) for d, h in pairs]
        return max((d / h for d, h in norms if h > 0), default=0.0)

    def _tangent(self, force: torch.Tensor) -> Blocks:
        """Displacements of all units per unit of a small force on the outputs, by central differences."""
        errors = self.free.adjoints(force)
        sizes = []
        for e, h in zip(errors, self.free.states, strict=True):
            size = _peak(e) / _peak(h).amax().clamp_min(torch.finfo(h.dtype).tiny)
            sizes.append(size if bool(_peak(h).amax() > 0) else torch.zeros_like(size))
        most = torch.stack(sizes).amax(0)
        most = most.amax().expand_as(most) if self.coupled else most
        step = torch.where(most > 0, torch.finfo(most.dtype).eps ** (1 / 3) / most, torch.zeros_like(most))
        up = self.free.moved([_rows(step, e) * e for e in errors])
        down = self.free.moved([_rows(-step, e) * e for e in errors])
        width = torch.where(step > 0, 2 * step, torch.ones_like(step))
        return [(a - b) / _rows(width, a) for a, b in zip(up, down, strict=True)]

    # -- the contract of a phase --------------------------------------------------------------------------------

    def start(self) -> State:
        if self.origin is None:
            return self.free.states
        if self.begun is not None:
            return tuple(b.repeat(self.copies, *[1] * (b.ndim - 1)) for b in self.begun)
        zero = self.free.states[-1].new_zeros(())
        shapes = [(self.copies * len(s), *s.shape[1:]) for s in self.free.states]
        return Rest(zero.expand(shape) for shape in (*shapes, *shapes))

    def errors_of(self, copy: int, z: State) -> Blocks:
        """Errors e_k of one stacked nudge at z: those that z carries, or those that its displacements imply."""
        size = len(self.x)
        rows = [b[copy * size : (copy + 1) * size] for b in z]
        if len(rows) > self.depth:
            return rows[self.depth :]
        state = [s + d for s, d in zip(self.free.states, rows, strict=True)]
        with torch.no_grad():
            return [h - f for h, f in zip(state, self.free.predictions(state), strict=True)]

    def state(self, z: State) -> State:
        if self.origin is None:
            return z
        return tuple(
            d + s.repeat(len(d) // len(s), *[1] * (s.ndim - 1)) for d, s in zip(z, self.origin, strict=False)
        )

    def unbounded_force(self, z: State) -> State:
        """-dF/dh_k of one nudge, gates held as the phase holds them: what drives the units in time."""
        with torch.enable_grad():
            state = [s.detach().requires_grad_() for s in self.state(z[: self.depth])]
            total = halves([h - f for h, f in zip(state, self.free.predictions(state), strict=True)]).sum()
            if self.nudge is not None:
                total = total + self.nudge.energy(state[-1].reshape(len(self.x), -1)).sum()
            return tuple(-g for g in torch.autograd.grad(total, state))

    def energy(self, z: State) -> torch.Tensor:
        """F = E + beta C, (B,) a nudge, gates held as the phase holds them."""
        state = self.state(z)
        size = len(self.x)
        parts = []
        with torch.no_grad():
            for copy_ in range(self.copies):
                rows = [s[copy_ * size : (copy_ + 1) * size] for s in state]
                parts.append(halves([h - f for h, f in zip(rows, self.free.predictions(rows), strict=True)]))
            total = torch.cat(parts)
            return total if self.nudge is None else total + self.nudge.energy(self.system.outputs(state))

    def contrast(
        self, system: Any, free: State, plus: State, minus: State | None, x: torch.Tensor, weight: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Sum over the batch of weight * [dE/dtheta(plus) - dE/dtheta(minus)] by the local rule of the module."""
        tensors = system.tensors()
        names = [n for n, p in system.named_parameters() if p.requires_grad]  # tied ones once
        found: dict[str, torch.Tensor] = {}
        for z, sign in ((plus, 1.0), (minus, -1.0)):
            if z is None:
                continue
            grads = self._learnt(z, sign * weight, tensors, [tensors[n] for n in names], x)
            for name, g in zip(names, grads, strict=True):
                if g is not None:
                    found[name] = found[name] + g if name in found else g
        return found

    def input_contrast(
        self, free: State, plus: State, minus: State | None, x: torch.Tensor, weight: torch.Tensor
    ) -> torch.Tensor:
        leaf = x.detach().clone().requires_grad_()
        total = torch.zeros_like(x)
        for z, sign in ((plus, 1.0), (minus, -1.0)):
            if z is not None:
                (g,) = self._learnt(z, sign * weight, self.free.plain, [leaf], leaf)
                total = total if g is None else total + g
        return total

    def _learnt(
        self, z: State, weight: torch.Tensor, tensors: Any, leaves: list[torch.Tensor], x: torch.Tensor
    ) -> Sequence[torch.Tensor | None]:
        """Derivatives of sum_i weight_i E_i at a displaced state by parameters or inputs."""
        keep = weight != 0
        rows = torch.arange(len(x), device=x.device)
        if not bool(keep.all()):
            if self.coupled:
                must = "be 'raise' for a batch that is normalised together, of which no example can be left out"
                raise argument_error("on_unconverged", must, "another, and examples did not converge")
            # What is left out may be NaN: a used example stands in its place, with no weight.
            rows = torch.where(keep, rows, rows[keep][0]) if bool(keep.any()) else rows
        state = [(s + d)[rows] for s, d in zip(self.free.states, z, strict=False)]
        errors = [e.detach() for e in self.errors_of(0, z)]
        with torch.enable_grad():
            found = self.free.predictions(state, tensors, x[rows])
            pairs = [
                (f, -_rows(weight.to(e.dtype), e) * e)
                for f, e in zip(found, errors, strict=True)
                if f.requires_grad
            ]
            if not pairs:
                return [None] * len(leaves)
            return torch.autograd.grad(
                [f for f, _ in pairs], leaves, [e for _, e in pairs], allow_unused=True, materialize_grads=False
            )


class UnitMotion(Motion):
    """Gradient flow of the units' values, dh_k/dt = -dF/dh_k, in displacements from the forward pass."""

    flow = "gradient"

    def start(self, z: State) -> State:
        assert isinstance(self.phase, ModulePhase)
        return z[: self.phase.depth]


def halves(errors: Blocks) -> torch.Tensor:
    """1/2 sum_k |e_k|^2 of each example, (B,)."""
    return torch.stack([0.5 * e.square().flatten(1).sum(1) for e in errors]).sum(0)


def _rows(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return values.to(like.dtype).view(-1, *[1] * (like.ndim - 1))


def _peak(rows: torch.Tensor) -> torch.Tensor:
    return rows.flatten(1).abs().amax(1) if rows[0].numel() else rows.new_zeros(len(rows))
