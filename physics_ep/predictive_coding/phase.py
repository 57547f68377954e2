"""One relaxation of a predictive coding network: backward passes of errors, forward passes of displacements.

With d_k the displacement of layer k from the free state, da_k that of its pre-activation, and e_k = h_k -
sigma_k(a_k) its error, a nudged equilibrium satisfies (docs/physics.md, Paired units and Solvers; q_k = sum over
the layers above of W^T delta)

    da_k = W_k d_{k-1},        d_k = [sigma_k(a_k + da_k) - sigma_k(a_k)] + e_k             forward
    squared   e_k = q_k,                                   delta_k = sigma_k'(a_k + da_k) q_k
    paired    e_k = sigma_k(a_k + da_k + q_k) - sigma_k(a_k + da_k),      delta_k = e_k     backward
    output    e_L = delta_L = -beta dC/dh_L(h_L + d_L)

The output layer's condition is met with the others', or, where nothing curves (gates held, ReLU and linear
layers), it is the only one left: both passes are then linear maps, and one of each serves +beta and -beta.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from ..blocks import State, exactly_finite_rows, finite_rows, masked, tiled
from ..compiling import fusible, spare
from ..cost import Cost, CostAt
from ..maps import ConvLink, Link
from ..nudging import Nudge
from ..pooling import Route
from ..system import Inputs, Phase
from .forward import ForwardNetwork, ForwardPass
from .learning import Nudged, contrast, mirrored_contrast
from .responses import FreeResponse, over, wide

Blocks = list[torch.Tensor]


class Rest(tuple[torch.Tensor, ...]):
    """Zero displacements and errors, the default start of a nudged phase."""


class Displacements(NamedTuple):
    """A forward pass of displacements, a tensor a layer.

    Attributes
    ----------
    moved : d_k.
    changes : da_k, or None where the next backward pass has no use for them.
    slopes : sigma_k'(a_k + da_k) where the squared energy's next backward pass takes it from here.
    """

    moved: Blocks
    changes: Blocks | None = None
    slopes: list[torch.Tensor | None] | None = None


class Settled(NamedTuple):
    """What max poolings pick in a state that a solver has returned.

    Attributes
    ----------
    errors : Tensor (B, n_out)
        Errors of the output layer in that state, by which it is known again.
    routes : list of Tensor or None
        What the max pooling of each layer picks, for the rows of that state.
    """

    errors: torch.Tensor
    routes: list[Route]


class PredictivePhase(Phase):
    """A relaxation of a predictive coding network, in displacements from the forward pass.

    z is (d_1 ... d_L, [displacements of u,] delta_1 ... delta_L), rows of stacked nudges in turn.

    Parameters
    ----------
    system : ForwardNetwork
        A network with an energy.
    inputs : Inputs
        Their cache is a `ForwardPass`.
    origin : State or None
    balanced : bool
    gates : {'held', 'live'}
    paired : bool
        Whether the energy is the paired one.

    Attributes
    ----------
    free : ForwardPass
    units : FreeResponse
        What single units answer around the free state, with these gates and this energy.
    linear : bool
        Whether both passes are linear maps.
    copies : int
        Stacked nudges.
    routing : bool
        Whether max poolings pick anew in nudged states.
    """

    carries_displacements = True
    system: ForwardNetwork

    def __init__(
        self,
        system: ForwardNetwork,
        inputs: Inputs,
        origin: State | None,
        balanced: bool,
        gates: str,
        paired: bool,
    ) -> None:
        super().__init__(system, inputs, origin, balanced)
        self.at_rest: CostAt | None = None
        """What `resting` has found."""
        self.strengths: torch.Tensor | None = None
        """What `strength` has found."""
        self.exact_output = False
        """Whether the output layer takes its exact update: for nudges so strong that no other would settle."""
        self.linear = self.odd = gates == "held" and system.piecewise_linear
        self.copies = 1
        self.routing = gates == "live" and system.routed
        free: ForwardPass = inputs.cache
        if free.drives is None and not (self.linear and not paired):
            free = system.run(inputs.x)
        self.free = free
        self.routes: list[Route] = list(free.routes)
        """What max poolings pick now: with live gates, at the displaced state, for every row."""
        self.images: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self.space: dict[str, torch.Tensor] = {}
        self.settled: list[Settled] = []
        """What is known of states that solvers returned, one a nudge; nudged phases of one input share it."""
        self.units = FreeResponse(free, system.stack, gates, paired)
        self.dtype = self.narrow = self.units.dtype
        self.wide = self.units.wide
        self.depth = system.depth
        self.layers = system.stack
        # The free state is the forward pass, whatever rounding of it the caller has kept.
        self.begun: State | None = None
        if origin is not None:
            exact = self.free_state()
            self.origin = exact
            if not all(a is b or torch.equal(a, b) for a, b in zip(origin, exact, strict=True)):
                self.begun = tuple(a - b for a, b in zip(origin, exact, strict=True))

    @property
    def gates(self) -> str:
        """How the phase treats the gates of piecewise linear units: 'held' or 'live'."""
        return self.units.gates

    @property
    def paired(self) -> bool:
        """Whether the energy is the paired one."""
        return self.units.paired

    def known(self, solver: str) -> tuple[State, torch.Tensor] | None:
        """The free equilibrium is the forward pass, with E = 0, whatever the solver."""
        if self.origin is not None:
            return None
        residual = torch.zeros(len(self.x), dtype=self.wide, device=self.x.device)
        # Activities follow from pre-activations, and are finite where these are; saturation hides infinite ones.
        kept = self.free.states if self.free.drives is None else (*self.free.drives, self.free.states[-1])
        return self.free_state(), residual.masked_fill(~finite_rows(kept), math.nan)

    def finite(self, z: State) -> torch.Tensor:
        return exactly_finite_rows((*self.free.states, *(self.free.drives or ())))

    def measured(self, z: State) -> torch.Tensor:
        """How far the units of the forward pass are from what they answer when they are driven anew, (B,).

        Relative as in nudged phases: largest entry over largest entry, worst layer.
        """
        found = []
        for k, layer in enumerate(self.layers):
            a, _ = self.system.drive(k, self.free.x, self.free.states, self.free.weights)
            found.append(relative(layer.activation.response(a), self.free.states[k]))
            if self.paired and self.free.drives is not None:
                found.append(relative(a, self.free.drives[k]))
        return torch.stack(found).amax(0).abs()  # of what is exactly met, 0 and not -0

    def without(self, left_out: torch.Tensor) -> PredictivePhase:
        twin, free = copy.copy(self), self.free
        drives = None if free.drives is None else masked(free.drives, ~left_out)
        twin.free = dataclasses.replace(free, states=masked(free.states, ~left_out), drives=drives)
        twin.at_rest = None
        twin.units = FreeResponse(twin.free, self.layers, self.gates, self.paired)
        return twin

    def free_state(self) -> State:
        """The free equilibrium in the system's blocks."""
        if not self.paired:
            return self.free.states
        assert self.free.drives is not None
        return self.system.internal(self.free.states, self.free.drives) * 2

    # -- nudges -----------------------------------------------------------------------------------------------

    def stacked(self, nudges: Sequence[Nudge]) -> PredictivePhase | None:
        twin = self.nudged(Nudge.stacked(nudges, len(self.x), self.wide, self.x.device))
        twin.copies = len(nudges)
        return twin

    def nudged(self, nudge: Nudge | None) -> PredictivePhase:
        twin = copy.copy(self)
        twin.at_rest = twin.strengths = None
        twin.nudge = None if nudge is None else nudge.to(self.wide)
        twin.exact_output = nudge is not None and (nudge.cost.holds or nudge.most > 0.5)
        twin.routes = list(self.free.routes)
        return twin

    @property
    def rows(self) -> int:
        """Number of rows of a stacked batch: examples times nudges that are stacked."""
        return self.copies * len(self.x)

    def strength(self) -> torch.Tensor:
        """Beta of each row, (rows, 1)."""
        if self.strengths is None or len(self.strengths) != self.rows:
            assert self.nudge is not None
            self.strengths = self.nudge.each(self.rows, self.wide, self.x.device)[:, None]
        return self.strengths

    def pull(self) -> torch.Tensor:
        """-dC/dh_L at the free state, (B, n_out): the error of the output layer for a nudge of one, to first
        order."""
        assert self.nudge is not None
        return -self.resting().gradient[: len(self.x)]

    def resting(self) -> CostAt:
        """The nudge's cost at the free outputs, a row each (rows, n_out)."""
        if self.at_rest is None:
            assert self.nudge is not None
            self.at_rest = self.nudge.cost.at(self.outputs(), self.nudge.y, self.copies)
        return self.at_rest

    def outputs(self) -> torch.Tensor:
        """Free outputs (B, n_out), in single precision at least."""
        return self.free.states[-1].to(self.wide)

    def wanted_output(self, moved: torch.Tensor, error: torch.Tensor) -> torch.Tensor:
        """Error that the output layer should have where its displacement is `moved` and its error `error`, (rows,
        n_out).

        -beta dC/dh; for costs that hold the outputs, and nudges so strong that the first would not settle, the
        error that the layer's exact update leaves.
        """
        if self.nudge is None:
            return torch.zeros_like(moved, dtype=self.wide)
        cost, y, beta = self.nudge.cost, self.nudge.y, self.strength()
        moved = moved.to(self.wide)
        if self.exact_output:
            change = moved - error.to(self.wide)
            return cost.displaced_unit(tiled(self.outputs(), self.copies), y, beta, change) - change
        rest = self.resting()
        return -beta * (rest.gradient + rest.difference(moved))

    # -- the two passes ---------------------------------------------------------------------------------------

    @fusible
    def backward(
        self,
        output: torch.Tensor,
        changes: Blocks | None = None,
        keep: bool = True,
        slopes: Sequence[torch.Tensor | None] | None = None,
    ) -> tuple[Blocks, Blocks]:
        """Errors e_k (if to be kept) and delta_k of all layers for that of the output layer, at changes da_k (None:
        the free state), or at the slopes that a forward pass has left."""
        errors: Blocks = [torch.empty(0)] * self.depth
        deltas: Blocks = [torch.empty(0)] * self.depth
        asked: list[torch.Tensor | None] = [None] * self.depth
        asked[-1] = output.to(self.dtype, copy=True)  # `forward` writes into errors
        for k in range(self.depth - 1, -1, -1):
            q = asked[k]
            assert q is not None
            asked[k] = None
            slope = None if slopes is None else slopes[k]
            if slope is not None:
                error, deltas[k] = q, over(torch.mul, q, slope).to(self.dtype)
            else:
                error, deltas[k] = self.units.answer(k, q, None if changes is None else changes[k])
            if keep:
                errors[k] = error
            del q, error
            for source, link, w, route in self.links(k):
                asked[source] = self.fed_back(asked[source], link, w, deltas[k], route)
        return errors, deltas

    def fed_back(
        self, below: torch.Tensor | None, link: Link, w: torch.Tensor, delta: torch.Tensor, route: Route
    ) -> torch.Tensor:
        """Add W^T delta to `below`, in its own memory; without a `below`, return W^T delta."""
        if below is not None and route is None:
            return link.add_back(below, w, delta)
        back = self.transposed(link, w, delta, route)
        return back if below is None else below.add_(back)

    def transposed(self, link: Link, w: torch.Tensor, delta: torch.Tensor, route: Route) -> torch.Tensor:
        """W^T delta; the large image before a pooling in memory that is not asked of the system every time."""
        if route is None or not isinstance(link, ConvLink):
            return link.transpose(w, delta, route)
        size = len(delta) * len(w) * math.prod(link.image)
        return link.transpose(w, delta, route, self._space("transposed", size, delta))

    def _space(self, name: str, size: int, like: torch.Tensor) -> torch.Tensor:
        if name not in self.space or len(self.space[name]) < size or self.space[name].dtype != like.dtype:
            self.space[name] = like.new_empty(size)
        return self.space[name]

    @fusible
    def forward(self, errors: Blocks, known: dict[int, torch.Tensor] | None = None) -> Displacements:
        """Displacements d_k of all layers with these errors; where passes are linear they overwrite them.

        `known` are changes da_k that the caller has already, a layer each, for this pass to write into.
        """
        moved: Blocks = []
        changes: Blocks = []
        slopes: list[torch.Tensor | None] = []
        for k, error in enumerate(errors):
            change = known[k] if known and k in known else self.change(k, moved)
            if change is None:
                moved.append(error)
                slopes.append(self.units.anchor(k).slope if self.units.bends(k) else None)
            elif self.linear:
                moved.append(error.add_(self.units.shift(k, change)))
            elif self.units.bends(k):
                shift, slope = self.units.bent(k, change)
                moved.append(shift.add_(error))
                slopes.append(slope)
            else:
                moved.append(error + self.units.shift(k, change))
                slopes.append(None)
            if self.paired and not self.linear:
                changes.append(torch.zeros_like(error) if change is None else change)
        if self.linear:
            return Displacements(moved)
        return Displacements(moved, changes) if self.paired else Displacements(moved, None, slopes)

    def response(self, force: torch.Tensor) -> torch.Tensor:
        """sum_l P_l P_l^T on a force at the outputs, P_l = dh_L/de_l at the free state; paired: sum_l P_l sigma'
        P_l^T."""
        return self._tangent(force)[-1].to(force.dtype)

    def mobility(self, cost: Cost, y: torch.Tensor) -> float:
        """Largest |d_k| / |h_k| over the hidden layers for a nudge of one, to first order (norms over the batch).

        Weights above a layer feel (h_k + d_k): where activity is small, as in an untrained VGG10 (4e-5 below its
        outputs), a beta that leaves the outputs alone may still move it by many times itself.
        """
        moved = self._tangent(-cost.gradient(self.outputs(), y))
        norms = [
            (float(d.to(self.wide).norm()), float(h.to(self.wide).norm()))
            for d, h in zip(moved[:-1], self.free.states[:-1], strict=True)
        ]
        return max((d / h for d, h in norms if h > 0), default=0.0)

    def tells_bias(self, cost: Cost, y: torch.Tensor) -> bool:
        """False where held gates answer a quadratic cost linearly: lambda and the mobility bound the bias."""
        return super().tells_bias(cost, y) and not (self.linear and cost.linear(y, 1.0) is not None)

    def _tangent(self, output: torch.Tensor) -> Blocks:
        """Displacements of all layers, to first order, where the outputs are pulled at by `output`."""
        twin = copy.copy(self)
        twin.units = self.units.of_energy(self.paired and self.linear)
        errors, deltas = twin.backward(output)
        moved: Blocks = []
        for k, error in enumerate(deltas if self.paired else errors):
            change = self.change(k, moved)
            moved.append(error if change is None else error + self.units.slope_times(k, change))
        return moved

    def change(self, k: int, moved: Sequence[torch.Tensor]) -> torch.Tensor | None:
        """da_k for displacements below; None for the layer on the input."""
        total = None
        for source, link, w, route in self.links(k):
            if self.routing and link.routed:
                part = self._rerouted(k, source, link, w, moved[source])
                total = part if total is None else total.add_(part)
            elif total is None:
                total = link.apply(w, moved[source], route)
            else:
                total = link.add_to(total, w, moved[source], route)
        return total

    def _rerouted(self, k: int, below: int, link: Link, w: torch.Tensor, moved: torch.Tensor) -> torch.Tensor:
        """Change of a max pooling that picks anew; the route that it picks is kept."""
        if k not in self.images:  # images of the free state, before pooling, and what was picked of them
            kept = self.free.images[k] if self.free.images else None
            held = link.image_of(w, self.free.states[below]) if kept is None else kept
            first = self.free.routes[k]
            assert first is not None
            self.images[k] = (held, link.pick(held, first))
        held, chosen = self.images[k]
        parts: Blocks = []
        routes: Blocks = []
        # A batch at a time: images before pooling are large.
        for rows in moved.chunk(max(len(moved) // max(len(held), 1), 1)):
            change = link.image_of(w, rows)
            total = self._space("rerouted", change.numel(), change)[: change.numel()]
            total = total.as_strided(change.shape, change.stride())
            routes.append(link.route_of(torch.add(change, held, out=spare(total))))
            # Where the pick stays, what is left of the free state is exactly zero.
            left = link.pick(held, routes[-1]).sub_(chosen)
            parts.append(link.pick(change, routes[-1]).add_(left))
        mine = self.routes[k]
        spent = mine is not None and mine is not self.free.routes[k] and len(mine) == len(moved)
        self.routes[k] = torch.cat(routes, out=spare(mine if spent else None))
        return torch.cat(parts)

    def links(self, k: int) -> list[tuple[int, Link, torch.Tensor, Route]]:
        """Links into layer k from other layers: (source, link, weight, route)."""
        found: list[tuple[int, Link, torch.Tensor, Route]] = []
        route = self.routes[k]
        for source, link, name in self.layers[k].wires(k):
            if source >= 0:
                found.append((source, link, self.free.weights.of(k, name), route))
            route = None  # a layer's first link alone takes one
        return found

    def errors(self, moved: Sequence[torch.Tensor]) -> tuple[Blocks, Blocks | None]:
        """(e_k, da_k) that displacements d_k imply."""
        found: Blocks = []
        changes: Blocks = []
        for k in range(self.depth):
            change = self.change(k, moved)
            found.append(moved[k].clone() if change is None else moved[k] - self.units.shift(k, change))
            changes.append(torch.zeros_like(moved[k]) if change is None else change)
        return found, None if self.linear else changes

    # -- the contract of a phase --------------------------------------------------------------------------------

    def start(self) -> State:
        if self.origin is None:
            return self.free_state()
        if self.begun is not None:
            deltas = tuple(torch.zeros_like(s) for s in self.free.states)
            return tuple(b.repeat(self.copies, *[1] * (b.ndim - 1)) for b in (*self.begun, *deltas))
        zero = self.free.x.new_zeros(())
        shapes = self.system.shapes[1:] * (3 if self.paired else 2)
        return Rest(zero.expand(self.rows, *shape) for shape in shapes)

    def packed(self, moved: Blocks, errors: Blocks, deltas: Blocks, changes: Blocks | None) -> State:
        """z for displacements and errors."""
        if not self.paired:
            return (*moved, *deltas)
        below = [m - e for m, e in zip(moved, errors, strict=True)]
        blocks = [*moved, *below]
        for k, layer in enumerate(self.layers):
            if layer.activation.inverse is None:
                # Pre-activations: a + da of u, and what the errors ask for more of h.
                assert changes is not None
                above = [(j, link, w, r) for j in range(self.depth) for s, link, w, r in self.links(j) if s == k]
                asked = [link.transpose(w, deltas[j], route) for j, link, w, route in above]
                blocks[k], blocks[self.depth + k] = changes[k] + torch.stack(asked).sum(0), changes[k]
        return (*blocks, *deltas)

    def state(self, z: State) -> State:
        if self.origin is None:
            return z
        count = len(self.origin)
        if len(z) < count:  # displacements of the activities alone, as in the course of a linear sweep
            z = self.packed(list(z), *self._partners(z))
        return tuple(over(torch.add, d, s) for d, s in zip(z[:count], self.origin, strict=True))

    def _partners(self, moved: Sequence[torch.Tensor]) -> tuple[Blocks, Blocks, Blocks | None]:
        errors, changes = self.errors(moved)
        return errors, errors, changes

    def energy(self, z: State) -> torch.Tensor:
        """F = E + beta C; with the squared energy from the errors themselves, gates held as the phase holds
        them."""
        with torch.no_grad():
            state = self.state(z)
            if self.paired or self.origin is None:
                total = self.system.energy(state, self.x.repeat(self.copies, *[1] * (self.x.ndim - 1)))
            else:
                errors, _ = self.errors(z[: self.depth])
                total = sum((0.5 * e.to(self.wide).square().flatten(1).sum(1) for e in errors), torch.zeros(()))
            if self.nudge is None:
                return total
            return total + self.nudge.energy(self.system.outputs(state).to(self.wide))

    def keep_routes(self, z: State) -> None:
        """Keep the present routes as those of state z, which a solver returns, a nudge each."""
        parts: list[list[Route]] = [
            [None if r is None else r if len(r) == len(self.x) else r[rows] for r in self.routes]
            for rows in (slice(n * len(self.x), (n + 1) * len(self.x)) for n in range(self.copies))
        ]
        self.settled.extend(Settled(e, r) for e, r in zip(z[-1].chunk(self.copies), parts, strict=True))

    def contrast(
        self, system: Any, free: State, plus: State, minus: State | None, x: torch.Tensor, weight: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            up, down = self._nudged_state(plus), None if minus is None else self._nudged_state(minus)
            self.free.weights.release()  # large; what relaxes after this casts them again
            found = contrast(self.layers, self.free, up, down, weight)
        self.settled.clear()  # a step outlives its contrast, and routes are large
        return found

    def mirrored_contrast(
        self, system: Any, free: State, plus: State, x: torch.Tensor, weight: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            self.free.weights.release()
            return mirrored_contrast(self.layers, self.free, plus[-self.depth :], weight)

    def input_contrast(
        self, free: State, plus: State, minus: State | None, x: torch.Tensor, weight: torch.Tensor
    ) -> torch.Tensor:
        """-W_k^T delta_k, contrasted, of the links from the input into pre-activations."""
        found: torch.Tensor | None = None
        with torch.no_grad():
            for k, layer in enumerate(self.layers):
                routes = [self.free.routes[k], *[None] * len(layer.skips)]
                for (source, link, name), route in zip(layer.wires(k), routes, strict=True):
                    if source >= 0:
                        continue
                    delta = plus[k - self.depth]
                    delta = delta if minus is None else delta - minus[k - self.depth]
                    column = -weight.to(delta.dtype).view(-1, *[1] * (delta.ndim - 1))
                    back = link.transpose(self.free.weights.of(k, name), delta * column, route)
                    found = back if found is None else found.add_(back)
        assert found is not None
        return found.to(x.dtype)

    def _nudged_state(self, z: State) -> Nudged:
        """What the learning rule needs of z."""
        moved = self._activity_changes(z)
        return Nudged(moved, z[-self.depth :], self._routes_of(z, moved) if self.routing else None)

    def _activity_changes(self, z: State) -> Sequence[torch.Tensor]:
        """d_k of the activities; from the pre-activations where those describe the unit."""
        if not self.paired:
            return z
        found = []
        for k, layer in enumerate(self.layers):
            d = z[k]
            if layer.activation.inverse is None:
                d = over(wide(lambda d, a, unit=layer.activation: unit.displaced(a, d)), d, self.units.drives(k))
            found.append(d)
        return found

    def _routes_of(self, z: State, moved: Sequence[torch.Tensor]) -> list[Route]:
        """What max poolings pick in a state: as its solver has found, else by another forward pass."""
        for errors, routes in self.settled:
            if errors.dtype == z[-1].dtype and torch.equal(errors, z[-1]):
                return routes
        twin = copy.copy(self)
        twin.copies, twin.routes = 1, list(self.free.routes)
        twin.errors(moved[: self.depth])
        return twin.routes


def relative(wanted: torch.Tensor, found: torch.Tensor, overwrite: bool = False) -> torch.Tensor:
    """Largest entry of wanted - found over the largest of either, (rows,); 0 where both are nothing.

    With `overwrite`, the memory of `found` may be used.
    """
    size = torch.maximum(peak(wanted), peak(found))
    return part(peak(torch.sub(wanted, found, out=spare(found if overwrite else None))), size)


def part(miss: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    """An error divided by its scale, (rows,); 0 where the error is 0, whatever the scale."""
    return torch.where(miss == 0, miss, miss / size)


def peak(rows: torch.Tensor) -> torch.Tensor:
    """Largest size of an entry, (rows,), in single precision at least; without an image of sizes in between."""
    if rows.ndim == 4:
        rows = rows.permute(0, 2, 3, 1)  # as they lie in memory
    if rows.ndim != 2:
        rows = rows.flatten(1)
    peak = torch.maximum(rows.amax(1), rows.amin(1).neg_())
    return peak if rows.dtype.itemsize >= 4 else peak.float()
