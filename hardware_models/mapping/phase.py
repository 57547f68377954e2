"""One relaxation of a `PairedCircuit`: its arrays, amplifiers and readings.

A phase carries displacements from an origin: the free state for nudged phases; for the free phase of a circuit
whose copies differ, the state in which nothing is fed back. With dq_k the displacement of u's internal voltage,
f_k what is fed back to h beyond the origin's, and D_h, D_u the drives from the arrays of h and u,

    dq_k = D_u dh_{k-1},    dp_k = D_h dh_{k-1} + f_k,    dh_k = sigma_h(p_k + dp_k) - sigma_h(p_k)
    f_k = sum over the layers above of T^T d(h - u),      f_L = -beta dC/dh_L,          T the transposed read

Gains of mirrors and virtual grounds are in D_h, D_u and T^T.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, cast

import torch

from physics_ep.blocks import State, exactly_finite_rows, finite_rows, masked, tiled
from physics_ep.cost import Cost
from physics_ep.equilibrium import Equilibrium, Status
from physics_ep.errors import argument_error
from physics_ep.maps import Link
from physics_ep.nudging import Nudge
from physics_ep.physical_system import Inputs, Phase, PhysicalSystem
from physics_ep.pooling import Route
from physics_ep.predictive_coding.forward import ForwardPass
from physics_ep.predictive_coding.learning import Nudged, contrast
from physics_ep.predictive_coding.phase import Rest, relative
from physics_ep.predictive_coding.responses import clamped, over, rectified, rectified_at
from physics_ep.reads import needed
from physics_ep.units import clipped

from ..devices.crossbars import converted, normal
from .amplifiers import Amplifiers
from .board import Arrays, Board, Sides, loaded
from .opposites import Product, folded, worth
from .physical_cells import SIDES, Copy, Side
from .ranges import ACTIVITIES, ERRORS
from .rows import clip_moves, in_bulk, in_one_pass, rectified_pair

Blocks = list[torch.Tensor]


class OutputPull(NamedTuple):
    """What a nudge asks of the outputs at the origin.

    Attributes
    ----------
    beta : Tensor (rows, 1) or (rows, n_out)
        Strengths, times the load of the output nodes.
    outputs : Tensor (rows, n_out)
    slope : Tensor (rows, n_out) or None
        Gradient of the cost; None where the cost holds the outputs.
    """

    beta: torch.Tensor
    outputs: torch.Tensor
    slope: torch.Tensor | None


class PairedPhase(Phase):
    """One relaxation of a `PairedCircuit`, free or nudged.

    z is (dp_1 ... dp_L, dq_1 ... dq_L, d(h_1 - u_1) ... d(h_L - u_L)): displacements of the internal voltages of h
    and u, and of the errors. Stacked nudges have their rows one after the other.

    Attributes
    ----------
    p, q : list of Tensor (B, ...)
        Internal voltages of the origin.
    latched, held : bool
        Whether gates of ReLUs are those of the origin in nudged phases, by a latch; and whether they are in this
        one. Rails are not latched.
    """

    system: Board
    carries_displacements = True
    over = staticmethod(over)

    def __init__(self, system: Board, inputs: Inputs, origin: State | None, balanced: bool, gates: str) -> None:
        super().__init__(system, inputs, None, balanced)
        self.free: ForwardPass = inputs.cache
        self.x = self.free.x
        self.depth = system.depth
        self.layers = system.stack
        self.copies = 1
        self.folding = False
        """Whether rows of two stacked nudges are taken for opposite: arrays then map those that are once."""
        self.one_array = system.one_array
        self.by_h = self._arrays("h")
        self.by_u = self.by_h if self.one_array else self._arrays("u")
        self.back = self.by_h if system.read_both_ways else self._arrays("transpose")
        self.paths: dict[tuple[Copy, int], torch.Tensor | None] = inputs.kept.setdefault("paths", {})
        """What `through` has found so far."""
        self.corners: dict[tuple[Side, int], tuple[torch.Tensor, ...]] = {}
        """What `rectified` or `clamped` needs of internal voltages of h or u at the origin, as found so far."""
        self.pull: OutputPull | None = None
        """What the nudge asks of the outputs at the origin, once it is known."""
        self.load_h, self.load_u = system.load_h, system.load_u
        self.latched = gates == "held" and origin is not None and not all(a.smooth for a in system.units)
        self.held = False
        self.begun: State | None = None
        """Displacement from the origin at which the phase starts; None: at the origin."""
        if origin is None or system.shared:
            self.p = list(self.free.drives)
            states = self.free.states
            self.q = self.p if system.shared else self.drives("u", states)
        else:
            self.p, self.q = list(origin[: self.depth]), list(origin[self.depth :])
        if origin is not None:
            self.origin = (*self.p, *self.q)
            # Where it is to be the equilibrium, the forward pass is that to the last digit.
            pairs = zip(origin, self.origin, strict=True)
            if not balanced and any(a is not b and not torch.equal(a, b) for a, b in pairs):
                self.begun = tuple(a - b for a, b in zip(origin, self.origin, strict=True))
        if self.p[0] is self.free.drives[0]:
            self.h: Blocks = list(self.free.states)
        else:
            self.h = [a.response(p) for a, p in zip(system.amplifiers_h, self.p, strict=True)]
        self.u: Blocks = self.h
        self.fed: Blocks | None = None
        """What is fed back at the origin and not balanced by the phase."""
        if not system.shared:
            self.u = [a.response(q) for a, q in zip(system.amplifiers_u, self.q, strict=True)]
            if origin is None or not balanced:
                self.fed = self._static(origin is None)
        self.free = dataclasses.replace(self.free, states=tuple(self.h))
        self.forcing: tuple[Blocks, Blocks] | None = None
        """Drives to h and u at the origin, beyond the origin's: of fluctuating arrays, or of an origin out of
        balance."""
        if not system.shared and origin is not None and not balanced:
            now = (self.drives("h", self.h), self.drives("u", self.h))
            to_h, to_u = (
                [a - b for a, b in zip(drives, at, strict=True)]
                for drives, at in zip(now, (self.p, self.q), strict=True)
            )
            self.forcing = (to_h, to_u)
        self.slopes_h: Blocks = []
        if self.latched:
            self.slopes_h = [a.steepness(v) for a, v in zip(system.amplifiers_h, self.p, strict=True)]
        self.slopes_u = self.slopes_h
        if self.latched and not system.shared:
            self.slopes_u = [a.steepness(v) for a, v in zip(system.amplifiers_u, self.q, strict=True)]

    def _arrays(self, of: Copy) -> list[Arrays]:
        """The arrays of all layers that serve a purpose, found once for all phases of an input."""
        kept = self.inputs.kept
        if of not in kept:
            kept[of] = [self.system.arrays(k, of) for k in range(self.depth)]
        return list(kept[of])

    def _static(self, nothing_fed: bool) -> Blocks | None:
        """What h - u at the origin feeds back, less what an auto-zero has stored; None: nothing. The store holds
        h - u as they are where nothing is fed back."""
        apart = [h - u for h, u in zip(self.h, self.u, strict=True)]
        if self.system.device_model.auto_zero == "off":
            return self.feedback(apart)
        if nothing_fed:
            return None
        states = self.inputs.cache.states
        beside = [a.response(q) for a, q in zip(self.system.amplifiers_u, self.drives("u", states), strict=True)]
        return self.feedback([d - (h - u) for d, h, u in zip(apart, states, beside, strict=True)])

    # -- nudges ------------------------------------------------------------------------------------------------

    def stacked(self, nudges: Sequence[Nudge]) -> PairedPhase | None:
        if self.system.noisy:
            return None  # each phase has noise of its own
        twin = self.nudged(Nudge.stacked(nudges, len(self.x), self.dtype, self.x.device))
        twin.copies = len(nudges)
        return twin

    def nudged(self, nudge: Nudge | None) -> PairedPhase:
        if nudge is not None and nudge.cost.holds and not self.system.amplifiers_h[-1].activation.piecewise_linear:
            raise argument_error("cost", "be one that pulls: detuned outputs are not held", nudge.cost.name)
        twin = cast(PairedPhase, super().nudged(nudge))
        twin.held = self.latched and nudge is not None
        twin.pull = None
        if nudge is not None and self.system.device_model.conductance_noise > 0:
            twin.fluctuate()
        if nudge is not None and self.system.noisy:
            twin.shake()
        return twin

    def shake(self) -> None:
        """Take new random currents into all units, constant over this phase, for each example."""
        system = self.system
        receivers: tuple[tuple[Sides, Blocks], ...] = (("both", self.p), ("h", self.p), ("u", self.q))
        for side, blocks in receivers:
            sizes = [system.noise_sizes(k, side, self) for k in range(self.depth)]
            if all(isinstance(size, float) and size == 0 for size in sizes):
                continue
            drawn = [size * normal(b, system.reads) for size, b in zip(sizes, blocks, strict=True)]
            self._force(drawn if side != "u" else None, drawn if side != "h" else None)

    def _force(self, to_h: Blocks | None, to_u: Blocks | None) -> None:
        """Add constant drives to h and to u."""
        zeros = [torch.zeros_like(b) for b in self.p]
        at_h, at_u = (zeros, zeros) if self.forcing is None else self.forcing
        same = at_h is at_u and to_h is to_u
        found = at_h if to_h is None else [a + b for a, b in zip(at_h, to_h, strict=True)]
        if not same:
            at_u = at_u if to_u is None else [a + b for a, b in zip(at_u, to_u, strict=True)]
        self.forcing = (found, found if same else at_u)

    def fluctuate(self) -> None:
        """Take new arrays, as conductance noise leaves them in this phase."""
        system = self.system

        def anew(arrays: list[Arrays]) -> list[Arrays]:
            return [system.fluctuated(k, a, system.reads) for k, a in enumerate(arrays)]

        quiet = copy.copy(self)
        before = (self.drives("h", self.h), self.drives("u", self.h))
        before_h, before_u, before_back = self.by_h, self.by_u, self.back
        self.one_array = not system.served_apart("h", "u")
        self.by_h = anew(before_h)
        self.by_u = self.by_h if self.one_array else anew(before_u)
        self.back = anew(before_back) if system.served_apart("h", "transpose") else self.by_h
        after_h = self.drives("h", self.h)
        gain_h = [a - b for a, b in zip(after_h, before[0], strict=True)]
        gain_u = gain_h
        if not (system.one_drive and self.one_array):
            gain_u = [a - b for a, b in zip(self.drives("u", self.h), before[1], strict=True)]
        self._force(gain_h, gain_u)
        if not system.shared and system.device_model.auto_zero == "off":
            static = [h - u for h, u in zip(self.h, self.u, strict=True)]
            now, then = self.feedback(static), quiet.feedback(static)
            change = [a - b for a, b in zip(now, then, strict=True)]
            self.fed = change if self.fed is None else [a + b for a, b in zip(self.fed, change, strict=True)]

    @property
    def one_drive(self) -> bool:
        """Whether h and u have the same drives."""
        alike = self.system.one_drive and self.one_array
        return alike and (self.forcing is None or self.forcing[0] is self.forcing[1])

    @property
    def mirrored(self) -> bool:
        """Whether this is a nudge and its opposite, of which all but the nudge's own curvature is linear."""
        railed = any(math.isfinite(a.saturation) for a in self.system.amplifiers_h)
        return self.held and not railed and self.opposed

    @property
    def opposed(self) -> bool:
        """Whether this is a nudge and its opposite, which units answer alike where they cross no kink."""
        linear = all(a.activation.piecewise_linear for a in self.system.amplifiers_h)
        if self.copies != 2 or not linear or self.forcing is not None or self.fed is not None:
            return False
        assert self.nudge is not None
        if self.nudge.cost.holds or self.nudge.most > 0.5:
            return False
        if self.nudge.numbers is not None:
            up, down = self.nudge.numbers * (2 // len(self.nudge.numbers))
            return up == -down
        ups, downs = torch.as_tensor(self.nudge.beta).expand(self.rows).chunk(2)
        return bool((ups == -downs).all())

    def half(self) -> PairedPhase:
        """The first of two stacked nudges alone."""
        twin, batch = copy.copy(self), len(self.x)
        assert self.nudge is not None
        twin.nudge, twin.copies, twin.pull = self.nudge.first(batch), 1, None
        return twin

    @property
    def rows(self) -> int:
        """Number of rows of a stacked batch: examples times nudges that are stacked."""
        return self.copies * self.x.shape[0]

    def wanted(
        self, moved: torch.Tensor, drive: torch.Tensor, exact: bool = False, still: bool = False
    ) -> torch.Tensor:
        """-beta dC/dh_L where the outputs have moved by `moved`, (rows, n_out), or are `still`; for costs that hold
        the outputs, and strong nudges, the force of the layer's exact update at this drive."""
        if self.nudge is None:
            return torch.zeros_like(moved)
        cost, y = self.nudge.cost, self.nudge.y
        if self.pull is None:
            beta = loaded(self.nudge.each(self.rows, self.dtype, self.x.device)[:, None], self.load_h[-1])
            out = tiled(self.h[-1], self.copies)
            self.pull = OutputPull(beta, out, None if cost.holds else cost.gradient(out, y))
        beta, out, slope = self.pull
        if slope is None:
            return cost.displaced_unit(out, y, beta, drive) - drive
        force = -beta * (slope if still else slope + cost.gradient_difference(out, moved, y))
        activation = self.system.amplifiers_h[-1].activation
        strong = exact and activation.piecewise_linear
        strong = strong and (self.nudge.most > 0.5 if self.load_h[-1] is None else needed((beta > 0.5).any()))
        if strong:
            # Of linear units, and of clipped ones within their range; where a cost couples them, of all or none.
            d, (lo, hi) = cost.displaced_unit(out, y, beta, drive), activation.bounds
            ends = [self.over(torch.add, v, self.p[-1]) for v in ([0 * d] if self.held else [0 * d, d])]
            free = torch.stack([(p >= lo) & (p <= hi) for p in ends]).all(0)
            free = free if cost.separable else free.all(1, keepdim=True)
            return torch.where((beta > 0.5) & free, d - drive, force)
        return force

    def wanted_change(
        self, moved: torch.Tensor, drive: torch.Tensor, change: torch.Tensor, driven: torch.Tensor
    ) -> torch.Tensor:
        """How `wanted` changes, to first order, where the outputs move on by `change` and the drive by `driven`."""
        if self.nudge is None:
            return torch.zeros_like(change)
        cost = self.nudge.cost
        if cost.holds:
            return self.wanted(moved, drive + driven) - self.wanted(moved, drive)
        beta = self.nudge.each(self.rows, self.dtype, self.x.device)[:, None]
        return -loaded(beta, self.load_h[-1]) * cost.curvature(
            self.over(torch.add, moved, self.h[-1]), self.nudge.y, change
        )

    # -- arrays and amplifiers ---------------------------------------------------------------------------------

    def links(self, k: int, arrays: list[Arrays]) -> list[tuple[int, Link, torch.Tensor, Route]]:
        """Links into layer k: (source, link, weight, route); the input is source -1."""
        # Routes are latched in all phases: those of h's arrays where nothing is fed back, for u too.
        return [
            (source, link, arrays[k].held[str(name)], self.free.routes[k] if link.routed else None)
            for source, link, name in self.layers[k].wires(k)
        ]

    def drives(self, side: Side, states: Sequence[torch.Tensor]) -> Blocks:
        """Currents into each layer's units 'h' or 'u' from the activities below, biases included, (B, ...)."""
        arrays = self.by_h if side == "h" else self.by_u
        found = []
        for k in range(self.depth):
            total = torch.stack(
                [
                    link.apply(w, self.x if s < 0 else states[s], route)
                    for s, link, w, route in self.links(k, arrays)
                ]
            ).sum(0)
            bias = arrays[k].bias
            total = total if bias is None else total + bias.view(-1, *[1] * (total.ndim - 2))
            found.append(self.system.driven(total, k, side))
        return found

    def driven(self, k: int, arrays: list[Arrays], moved: Sequence[torch.Tensor]) -> torch.Tensor | None:
        """Change of the current into layer k for displacements below; None where nothing below moves."""
        total = None
        for source, link, w, route in self.links(k, arrays):
            if source >= 0:
                part = self._mapped(link, partial(link.apply, w), moved[source], route)
                total = part if total is None else total.add_(part)
        return total

    def _mapped(self, link: Link, product: Product, rows: torch.Tensor, route: Route) -> torch.Tensor:
        """A product of an array with stacked rows; new memory."""
        return folded(product, rows, route) if self.folding and worth(link) else product(rows, route)

    def through(self, of: Copy, k: int) -> torch.Tensor | None:
        """What a current of these arrays is multiplied with until it is one into a node of layer k; None: 1."""
        if (of, k) not in self.paths:
            self.paths[of, k] = self.system.through(of, k)
        return self.paths[of, k]

    def is_driven(self, k: int) -> bool:
        """Whether layers that move drive layer k: the input does not."""
        return any(source >= 0 for source, *_ in self.links(k, self.by_h))

    def changes(self, k: int, moved: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Change of the drives to h and to u of layer k, (rows, ...); one tensor where one array serves both."""
        found: Blocks = []
        raw: torch.Tensor | None = None
        for n, (side, arrays) in enumerate(zip(SIDES, (self.by_h, self.by_u), strict=True)):
            if n == 1 and self.one_drive:
                return found[0], found[0]
            if n == 0 or not self.one_array:
                raw = self.driven(k, arrays, moved)
            if raw is None:
                change = self.p[k].new_zeros((self.rows, *self.p[k].shape[1:]))
            else:
                change = loaded(raw, self.through(side, k))
            if self.forcing is not None:
                change = self.over(torch.add, change, self.forcing[n][k])
            found.append(change)
        return found[0], found[1]

    def feedback(self, errors: Sequence[torch.Tensor], moved: Sequence[torch.Tensor] | None = None) -> Blocks:
        """T^T (h - u) to each layer but the last, all at once; `moved`: dh of all layers, as `send` takes it."""
        asked: list[torch.Tensor | None] = [None] * self.depth
        for k in range(self.depth):
            self.send(k, errors[k], asked, None if moved is None else moved[k])
        return [
            torch.zeros_like(e) if a is None else loaded(a, self.through("transpose", k))
            for k, (a, e) in enumerate(zip(asked, errors, strict=True))
        ]

    def send(
        self, k: int, error: torch.Tensor, asked: list[torch.Tensor | None], moved: torch.Tensor | None = None
    ) -> None:
        """Add what layer k feeds back: its error is d(h - u), and h has moved by `moved` (None: it has not)."""
        for source, link, w, route in self.links(k, self.back):
            if source >= 0:
                back = self._mapped(link, partial(link.transpose, w), error, route)
                below = asked[source]
                asked[source] = back if below is None else below.add_(back)

    def moved(self, k: int, dp: torch.Tensor) -> torch.Tensor:
        """How far the outputs h of layer k move when their pre-activations move by dp."""
        unit = self.system.amplifiers_h[k]
        if self.held and unit.activation.piecewise_linear:
            return self.along(unit, dp, self.slopes_h[k], self.p[k])
        return self.displaced("h", k, dp)

    def answers(self, k: int, dq: torch.Tensor, gap: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """dp_k, dh_k and d(h_k - u_k) where u's internal voltage has moved by dq and h's by dq + gap."""
        units = self.system.amplifiers_h[k], self.system.amplifiers_u[k]
        if not self.held and not self.system.shared and all(unit.rectifies for unit in units):
            corners = (*self._corner("h", k), *self._corner("u", k))
            if in_one_pass(dq, gap, *corners):
                return rectified_pair(dq, gap, corners)
        dp = dq + gap
        moved = self.moved(k, dp)
        return dp, moved, self.error(k, dq, gap, moved)

    def _corner(self, side: Side, k: int) -> tuple[torch.Tensor, ...]:
        """What `rectified` needs of ReLUs at the origin, found once."""
        if (side, k) not in self.corners:
            at, states = (self.p, self.h) if side == "h" else (self.q, self.u)
            self.corners[side, k] = at[k].clamp(max=0), states[k].neg()
        return self.corners[side, k]

    def displaced(self, side: Side, k: int, change: torch.Tensor) -> torch.Tensor:
        """Change of the outputs of units `side` of layer k as their drive moves by `change`, with live gates."""
        units, at = (self.system.amplifiers_h, self.p) if side == "h" else (self.system.amplifiers_u, self.q)
        unit = units[k]
        if unit.follows:
            return change
        if unit.bounded and in_bulk(change, at[k]):
            return clip_moves(change, at[k], unit.activation.bounds)
        if unit.rectifies:
            return rectified(change, *self._corner(side, k))
        if unit.bounded:
            if (side, k) not in self.corners:
                self.corners[side, k] = clipped(*unit.activation.bounds)(torch).anchor(at[k])
            return clamped(change, *self.corners[side, k])
        return self.over(lambda d, v: unit.displaced(v, d), change, at[k])

    def along(self, unit: Amplifiers, change: torch.Tensor, slope: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        """Change of outputs along the slope at the origin, up to the rails."""
        step = self.over(torch.mul, change, slope)
        if math.isinf(unit.saturation):
            return step
        return self.over(lambda s, p: unit.railed(unit.unclipped(p), s), step, at)

    def error(
        self, k: int, dq: torch.Tensor | None, gap: torch.Tensor, moved: torch.Tensor | None = None
    ) -> torch.Tensor:
        """d(h_k - u_k) where u's internal voltage has moved by dq (None: not at all) and h's by dq + gap, of which
        h has `moved`, if that is known."""
        side: Side = "h" if self.system.shared else "u"
        unit = self.system.amplifiers_h[k] if side == "h" else self.system.amplifiers_u[k]
        held = self.held and unit.activation.piecewise_linear
        if dq is None:
            if self.system.shared and not held:
                return self.displaced(side, k, gap)
            dq = torch.zeros_like(gap)
        if self.system.shared:
            if not held:
                if unit.follows:
                    return gap
                if unit.bounded and in_bulk(gap, dq, self.q[k]):
                    return clip_moves(gap, self.q[k], unit.activation.bounds, dq)
                at = self.over(torch.add, dq, self.q[k])
                return rectified_at(at, gap) if unit.rectifies else unit.displaced(at, gap)
            step = self.over(torch.mul, gap, self.slopes_h[k])
            if math.isinf(unit.saturation):
                return step
            below = self.over(torch.mul, dq, self.slopes_h[k])
            return unit.railed(self.over(lambda d, q: unit.unclipped(q) + d, below, self.q[k]), step)
        moved = self.moved(k, dq + gap) if moved is None else moved
        return moved - (self.along(unit, dq, self.slopes_u[k], self.q[k]) if held else self.displaced("u", k, dq))

    # -- the contract of a phase -------------------------------------------------------------------------------

    def known(self, solver: str) -> tuple[State, torch.Tensor] | None:
        """The free phase of a circuit with one array and equal units is the forward pass by construction, h = u.

        Solvers in time are not spared their course.
        """
        if solver != "sweep" or self.origin is not None or not self.system.shared:
            return None
        # Currents are those that these very activities drive, and nothing is fed back. What is not finite is no
        # state.
        residual = self.p[0].new_zeros(len(self.x))
        return self.start(), residual.masked_fill(~finite_rows(self.p), math.nan)

    def finite(self, z: State) -> torch.Tensor:
        return exactly_finite_rows((*self.p, *self.h))

    def measured(self, z: State) -> torch.Tensor:
        """How far internal voltages are from the currents that the activities drive when they are read anew, (B,).

        Relative as in nudged phases: largest entry over largest entry, worst layer.
        """
        drives = self.drives("h", [a.response(p) for a, p in zip(self.system.amplifiers_h, self.p, strict=True)])
        return torch.stack([relative(a, p) for a, p in zip(drives, self.p, strict=True)]).amax(0).abs()

    def without(self, left_out: torch.Tensor) -> PairedPhase:
        twin = copy.copy(self)
        for name in ("p", "q", "h", "u", "slopes_h", "slopes_u"):
            setattr(twin, name, list(masked(tuple(getattr(self, name)), ~left_out)))
        twin.free = dataclasses.replace(self.free, states=tuple(twin.h))
        twin.corners, twin.pull = {}, None
        return twin

    def start(self) -> State:
        if self.begun is None:
            zero = self.p[0].new_zeros(())
            return Rest([zero.expand(self.rows, *v.shape[1:]) for v in self.p] * 3)
        zeros = self.nothing()
        return (*(b.repeat(self.copies, *[1] * (b.ndim - 1)) for b in self.begun), *zeros)

    def nothing(self) -> Blocks:
        """Zeros of the shapes of all layers (rows, ...), in the order in memory that images have."""
        found = []
        for v in self.p:
            images = v.ndim == 4 and v.is_contiguous(memory_format=torch.channels_last)
            layout = torch.channels_last if images else torch.contiguous_format
            shape = (self.rows, *v.shape[1:])
            found.append(torch.empty(shape, dtype=v.dtype, device=v.device, memory_format=layout).zero_())
        return found

    def state(self, z: State) -> State:
        at = (*self.p, *self.q)
        if isinstance(z, Rest) and self.copies == 1:
            return at
        return tuple(self.over(torch.add, d, s) for d, s in zip(z[: len(at)], at, strict=True))

    def project(self, z: State) -> State:
        return z

    def energy(self, z: State) -> torch.Tensor:
        with torch.no_grad():
            state = self.state(z)
            total = self.system.energy(state, self.inputs.x.repeat(self.copies, *[1] * (self.x.ndim - 1)))
            return total if self.nudge is None else total + self.nudge.energy(self.system.outputs(state))

    def response(self, force: torch.Tensor) -> torch.Tensor:
        """First-order change of the outputs (B, n_out) under a force on them, sum_l P_l sigma'_l P_l^T force."""
        return self._tangent(force)[-1]

    def mobility(self, cost: Cost, y: torch.Tensor) -> float:
        """Largest |dh_k| / |h_k| over the hidden layers for a nudge of one, to first order."""
        moved = self._tangent(-cost.gradient(self.h[-1], y))[:-1]
        norms = [(float(d.norm()), float(h.norm())) for d, h in zip(moved, self.h[:-1], strict=True)]
        return max((d / h for d, h in norms if h > 0), default=0.0)

    def tells_bias(self, cost: Cost, y: torch.Tensor) -> bool:
        """False where readings are noisy or rounded by a converter, too."""
        device = self.system.device_model
        quiet = device.read_noise == 0 and device.slow_noise == 0
        return super().tells_bias(cost, y) and quiet and device.adc_bits is None

    def _tangent(self, output: torch.Tensor) -> Blocks:
        """dh of all layers, to first order, where the outputs are pulled at by `output`."""
        twin = copy.copy(self)
        twin.copies, twin.forcing = 1, None
        slopes = [a.slope(p) for a, p in zip(self.system.amplifiers_h, self.p, strict=True)]
        loads = [*(self.through("transpose", k) for k in range(self.depth - 1)), self.load_h[-1]]
        asked: list[torch.Tensor | None] = [None] * self.depth
        asked[-1] = output
        for k in range(self.depth - 1, -1, -1):
            fed = asked[k]
            assert fed is not None
            asked[k] = fed = loaded(fed, loads[k])
            twin.send(k, slopes[k] * fed, asked)
        moved: Blocks = []
        for k, fed in enumerate(asked):
            assert fed is not None
            moved.append(slopes[k] * (fed + twin.changes(k, moved)[0]))
        return moved

    # -- the transposed response -------------------------------------------------------------------------------

    def adjoint(self) -> PairedPhase:
        return cast(PairedPhase, self.system.adjoint_of(self))

    def asymmetry(self, even: bool = False) -> float:
        return self.system.asymmetry_of(self, even)

    # -- learning ----------------------------------------------------------------------------------------------

    def contrast(
        self,
        system: PhysicalSystem,
        free: State,
        plus: State,
        minus: State | None,
        x: torch.Tensor,
        weight: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """-(h - u) h^T of the layer below, contrasted, as the readings have them."""
        with torch.no_grad():
            return contrast(self.layers, self.free, *self._both(plus, minus), weight)

    def input_contrast(
        self, free: State, plus: State, minus: State | None, x: torch.Tensor, weight: torch.Tensor
    ) -> torch.Tensor:
        """-T_k^T (h_k - u_k), contrasted, as the readings have it and the transposed read of the arrays on the
        input."""
        with torch.no_grad():
            up, rest = self._both(plus, minus)
            found: torch.Tensor | None = None
            for k in range(self.depth):
                for source, link, w, route in self.links(k, self.back):
                    if source < 0:
                        error = up.deltas[k] - rest.deltas[k]
                        error = error * -weight.to(error.dtype).view(-1, *[1] * (error.ndim - 1))
                        back = link.transpose(w, error, route)
                        found = back if found is None else found.add_(back)
            assert found is not None
            return found.to(x.dtype)

    def _both(self, plus: State, minus: State | None) -> tuple[Nudged, Nudged]:
        """Readings of two phases, of the origin in place of `minus` where there is none, with slow noise of which
        the second keeps what the time leaves in which a nudged phase settles."""
        rest = tuple(torch.zeros_like(b) for b in plus) if minus is None else minus
        system, device = self.system, self.system.device_model
        if device.slow_noise == 0 or system.ranging is not None:
            return self._readings(plus), self._readings(rest)
        at = (*self.p, *self.q)
        origin = Equilibrium(self.p[0].new_zeros(len(self.x)), 0.0, 0, Status.BY_CONSTRUCTION, lambda: at)
        ages = system.settling_seconds(origin, self.inputs.x)[1] / device.slow_noise_time
        kept = math.exp(-ages)
        blocks = [*plus[: self.depth], *plus[2 * self.depth :]]
        first = [normal(b, system.reads) for b in blocks]
        left = math.sqrt(-math.expm1(-2 * ages))
        second = [kept * n + left * normal(n, system.reads) for n in first]
        return self._readings(plus, first), self._readings(rest, second)

    def _readings(self, z: State, slow: Blocks | None = None) -> Nudged:
        found = self.read(z, slow)
        if self.system.device_model.feedback_gain == 1:
            return Nudged(found[: self.depth], found[self.depth :])
        errors = (e / self.system.weakening(k) for k, e in enumerate(found[self.depth :]))
        return Nudged(found[: self.depth], tuple(errors))

    def read(self, z: State, slow: Blocks | None = None) -> State:
        """Return what readings of z give: the activities, displaced from the origin, and then the errors h - u,
        each of L blocks. `slow` has the slow noise of these 2 L blocks, in its standard deviations; None: there is
        none. Each call draws read noise anew. A converter of `adc_bits` rounds a layer's readings, over a range of
        `adc_range` full scales, or of what a calibration has found; the calibration itself reads without either."""
        system, device = self.system, self.system.device_model
        nudged = copy.copy(self)
        nudged.held = self.latched
        moved = [nudged.moved(k, z[k]) for k in range(self.depth)]
        errors = list(z[2 * self.depth :])
        if not system.shared:
            errors = [e + (h - u) for e, h, u in zip(errors, self.h, self.u, strict=True)]
        if system.ranging is not None:
            for k in range(self.depth):
                system.ranging.widen(ACTIVITIES, k, self.over(torch.add, moved[k], self.h[k]))
                system.ranging.widen(ERRORS, k, errors[k])
            return (*moved, *errors)
        if device.read_noise == 0 and device.adc_bits is None and slow is None:
            return (*moved, *errors)
        for k, full in enumerate(system.full_scales[1:]):
            for kind, blocks, origin in ((ACTIVITIES, moved, self.h[k]), (ERRORS, errors, None)):
                value = blocks[k]
                if device.read_noise > 0:
                    value = value + device.read_noise * full * normal(value, system.reads)
                if slow is not None:
                    value = value + device.slow_noise * full * slow[k + kind * self.depth]
                if device.adc_bits is not None:
                    span = self._span(kind, k) if device.adc_range is None else device.adc_range * full
                    whole = value if origin is None else value + origin
                    value = converted(whole, device.adc_bits, span)
                    value = value if origin is None else value - origin
                blocks[k] = value
        return (*moved, *errors)

    def _span(self, kind: int, k: int) -> float:
        """Range of the converter of a layer's readings, as a calibration has found it."""
        if self.system.ranges is None:
            must = "be given, or ranges be found by Mapped.calibrate: no converter sets its range by what it reads"
            raise argument_error("adc_range", must, None)
        return self.system.ranges.largest[kind][k]
