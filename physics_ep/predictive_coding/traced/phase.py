"""One relaxation of a recorded model: nudged states in the errors of their units.

F(e) = 1/2 sum_k |e_k|^2 + beta C(h_L(e)), with h_k = f_k(parents; theta) + e_k, so that a nudged equilibrium has
e_k = -beta dC/dh_k, the back-propagated derivative *at the displaced state*. There

    dE/dtheta = -sum_k e_k . df_k/dtheta

at fixed h, which is beta times the gradient that backprop has at the displaced state (docs/any_model.md).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from ...blocks import State, exactly_finite_rows, finite_rows
from ...cost import Cost
from ...dynamics.motion import Motion
from ...errors import argument_error
from ...nudging import Nudge
from ...system import EnergySystem, Inputs, Phase
from ..phase import Rest
from .passes import Blocks, FreePass, Learnt

Errors = Callable[[int], torch.Tensor]
"""Number of a unit to its error, (B, ...)."""

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
        The arguments of `Phase` of the same names.

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
        self.settled: list[LearntState] = []
        """What sweeps have learnt in the states that they returned; shared by the nudged phases of one input."""
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

    def opposed(self) -> bool:
        """Whether two nudges are stacked, alike for all examples and of opposite signs: they learn the same sum."""
        if self.copies != 2:
            return False
        one, other = self.strengths()
        return bool((one == one[0]).all() & (other == -one[0]).all())

    def pull(self, copy: int, outputs: torch.Tensor) -> torch.Tensor:
        """DC/dh_L of a stacked nudge at outputs (B, n_out)."""
        assert self.nudge is not None
        size = len(self.x)
        return self.nudge.cost.gradient(outputs, self.nudge.y[copy * size : (copy + 1) * size])

    def outputs(self) -> torch.Tensor:
        """Outputs (B, n_out) of the free state."""
        return self.free.states[-1].reshape(len(self.x), -1)

    def pulls(self) -> list[Blocks]:
        """DC/dh_k at the free state, for each stacked nudge; those that pull alike share it."""
        assert self.nudge is not None
        targets = self.nudge.y.chunk(self.copies)
        if all(torch.equal(y, targets[0]) for y in targets[1:]):
            return [self.free.adjoints(self.pull(0, self.outputs()), last=True)] * self.copies
        return [self.free.adjoints(self.pull(c, self.outputs())) for c in range(self.copies)]

    def asked(
        self, copy: int, errors: Errors, learn: bool, moved: Blocks, images: Blocks, onto: Learnt | None = None
    ) -> tuple[torch.Tensor, Learnt | None]:
        """Sweep a stacked nudge once: the residual of each unit (n, B), and what is learnt there if that is asked
        for.

        Parameters
        ----------
        copy : int
        errors : callable
            Number of a unit to its error.
        learn : bool
        moved, images : list of Tensor (B, ...)
            Tensors in which to write d_k and -beta dC/dh_k.
        onto : Learnt, optional
            Derivatives to which those of this state are added.
        """
        beta = -self.strengths()[copy]
        values, found, learnt = self.free.displaced(errors, lambda o: self.pull(copy, o), learn, onto)
        misses = []
        for k, free in enumerate(self.free.states):
            torch.sub(values[k], free, out=moved[k])
            torch.mul(found[k], rows(beta, found[k]), out=images[k])
            found[k] = values[k] = images[k]  # the memory of the others is free
            misses.append(_miss(images[k], errors(k)))
        return self.relative(misses), learnt

    def miss(self, wanted: Blocks, found: Blocks) -> torch.Tensor:
        """Residual (B,): |wanted - found| over the larger of |wanted| and |found|, in the worst unit."""
        return self.relative([_miss(a, b) for a, b in zip(wanted, found, strict=True)]).amax(0)

    def asks(self, pull: Blocks) -> torch.Tensor:
        """Residual (B,) of units at rest that are pulled at: 1, or 0 where nothing pulls."""
        size = torch.stack([_norm(g) for g in pull]).sum(0)
        size = size.sum().expand_as(size) if self.coupled else size
        return torch.where(size > 0, torch.ones_like(size), size)

    def relative(self, pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
        """Residual (n, B) of each unit, of their misses and sizes."""
        misses, sizes = (torch.stack(parts) for parts in zip(*pairs, strict=True))
        if self.coupled:
            sizes, misses = (t.norm(dim=1, keepdim=True).expand_as(t) for t in (sizes, misses))
        floor = NEGLIGIBLE * torch.finfo(sizes.dtype).eps * sizes.amax(0)
        relative = misses / torch.maximum(sizes, floor)
        return torch.where(misses == 0, misses, relative)

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
        up = self.free.moved([rows(step, e) * e for e in errors])
        down = self.free.moved([rows(-step, e) * e for e in errors])
        width = torch.where(step > 0, 2 * step, torch.ones_like(step))
        return [(a - b) / rows(width, a) for a, b in zip(up, down, strict=True)]

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
        own = [b[copy * size : (copy + 1) * size] for b in z]
        if len(own) > self.depth:
            return own[self.depth :]
        state = [s + d for s, d in zip(self.free.states, own, strict=True)]
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
                own = [s[copy_ * size : (copy_ + 1) * size] for s in state]
                parts.append(halves([h - f for h, f in zip(own, self.free.predictions(own), strict=True)]))
            total = torch.cat(parts)
            return total if self.nudge is None else total + self.nudge.energy(self.system.outputs(state))

    def contrast(
        self, system: Any, free: State, plus: State, minus: State | None, x: torch.Tensor, weight: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Sum over the batch of weight * [dE/dtheta(plus) - dE/dtheta(minus)].

        Where the last sweep has learnt already, and all examples weigh alike, this is what backprop found at the
        displaced states, times beta; else the local rule of the module.
        """
        states = [(plus, 1.0)] if minus is None else [(plus, 1.0), (minus, -1.0)]
        found: dict[str, torch.Tensor] = {}
        starts: dict[int, torch.Tensor] = {}
        joint = self._settled([z for z, _ in states], weight)
        for part in [states] if joint is not None else [[state] for state in states]:
            known = joint or self._settled([z for z, _ in part], weight)
            ((z, sign), *_) = part
            if known is None:
                leaves = [system.tensors()[n] for n in self.free.trained]
                grads = self._learnt(z, sign * weight, system.tensors(), leaves, x)
                _add(found, {n: g for n, g in zip(self.free.trained, grads, strict=True) if g is not None})
            else:
                scale = sign * float(weight[0]) * known.beta
                _add(found, known.learnt.grads, scale)
                _add(starts, known.learnt.at_starts, scale)
        _add(found, self.free.learnt_before(starts))
        self.settled.clear()  # a step outlives its contrast, and gradients are large
        return found

    def _settled(self, states: Sequence[State], weight: torch.Tensor) -> LearntState | None:
        """What was learnt in the sweep that returned these states, if all examples weigh alike."""
        if not bool((weight == weight[0]).all() & (weight[0] != 0)):
            return None
        errors = [z[-1] for z in states]
        return next((s for s in self.settled if s.of(errors)), None)

    def keep_learnt(self, images: list[Blocks], learnt: list[Learnt | None]) -> None:
        """Keep what the last sweep has learnt, for the contrast; once for two nudges that have learnt a sum."""
        betas = [float(b[0]) if bool((b == b[0]).all()) else None for b in self.strengths()]
        errors = [blocks[-1] for blocks in images]
        if len(learnt) == 2 and learnt[0] is not None and learnt[0] is learnt[1] and betas[0] is not None:
            self.settled.append(LearntState(tuple(errors), betas[0], learnt[0]))
            return
        for error, found, beta in zip(errors, learnt, betas, strict=True):
            if found is not None and beta is not None:
                self.settled.append(LearntState((error,), beta, found))

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
        order = torch.arange(len(x), device=x.device)
        if not bool(keep.any()):
            return [None] * len(leaves)
        if not bool(keep.all()):
            if self.coupled:
                must = "be 'raise' for a batch that is normalised together, of which no example can be left out"
                raise argument_error("on_unconverged", must, "another, and examples did not converge")
            # What is left out may be NaN: a used example stands in its place, with no weight.
            order = torch.where(keep, order, order[keep][0])
        state = [(s + d)[order] for s, d in zip(self.free.states, z, strict=False)]
        errors = [e.detach() for e in self.errors_of(0, z)]
        with torch.enable_grad():
            found = self.free.predictions(state, tensors, x[order])
            pairs = [
                (f, -rows(weight.to(e.dtype), e) * e) for f, e in zip(found, errors, strict=True) if f.requires_grad
            ]
            if not pairs:
                return [None] * len(leaves)
            return torch.autograd.grad(
                [f for f, _ in pairs], leaves, [e for _, e in pairs], allow_unused=True, materialize_grads=False
            )


class LearntState(NamedTuple):
    """What a sweep has learnt in the states that it returned.

    Attributes
    ----------
    errors : tuple of Tensor (B, ...)
        Errors of the output in those states, by which they are known again: one, or those of two opposite nudges.
    beta : float
        Strength of the first nudge.
    learnt : Learnt
        What was learnt in the state of the one nudge, or of both together.
    """

    errors: tuple[torch.Tensor, ...]
    beta: float
    learnt: Learnt

    def of(self, errors: Sequence[torch.Tensor]) -> bool:
        """Whether it was learnt in the states with these errors of the output, in this order."""
        if len(errors) != len(self.errors):
            return False
        return all(torch.equal(a, b) for a, b in zip(self.errors, errors, strict=True))


class UnitMotion(Motion):
    """Gradient flow of the units' values, dh_k/dt = -dF/dh_k, in displacements from the forward pass."""

    flow = "gradient"

    def start(self, z: State) -> State:
        assert isinstance(self.phase, ModulePhase)
        return z[: self.phase.depth]


def halves(errors: Blocks) -> torch.Tensor:
    """Half the squared errors of each example, 1/2 sum_k |e_k|^2, (B,)."""
    return torch.stack([0.5 * e.square().flatten(1).sum(1) for e in errors]).sum(0)


def _add(total: dict[Any, torch.Tensor], more: dict[Any, torch.Tensor], scale: float = 1.0) -> None:
    """Add tensors by key, and take them out of `more`: their memory is free before the next is scaled."""
    for key in list(more):
        g = more.pop(key)
        if key in total:
            total[key].add_(g, alpha=scale)
        else:
            total[key] = g if scale == 1 else scale * g


def rows(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return values.to(like.dtype).view(-1, *[1] * (like.ndim - 1))


def _miss(wanted: torch.Tensor, found: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """|wanted - found| and the larger of |wanted| and |found|, of each example, (B,)."""
    gap = _norm(wanted - found)
    return gap, torch.maximum(_norm(wanted), _norm(found))


def _norm(block: torch.Tensor) -> torch.Tensor:
    """Euclidean norm of each example, (B,), also of numbers whose squares vanish."""
    flat = block.reshape(len(block), -1)
    norm = torch.linalg.vector_norm(flat, dim=1)
    if flat.shape[1] and bool((norm < torch.finfo(norm.dtype).tiny ** 0.5).any()):
        return torch.maximum(norm, _peak(block))
    return norm


def _peak(block: torch.Tensor) -> torch.Tensor:
    flat = block.flatten(1)
    return torch.maximum(flat.amax(1), -flat.amin(1)) if flat.shape[1] else flat.new_zeros(len(flat))
