"""Nudged phases of a mapped network whose copies differ, with all arrays read the other way: asymmetric EP.

In the activities h and u, in which a unit's own law is diagonal, and with the sign of u reversed, the currents of a
`PairedCircuit` have a symmetric Jacobian where one array serves h, u and the transposed read. With copies W_h, W_u
and T they have not, and asymmetric EP (`physics_ep.estimators.methods`) asks nudged phases for its transpose:

    dp_k = T_k dh_{k-1} + W_h^T dh_{k+1} - W_u^T du_{k+1},    dq_k = T_k dh_{k-1},    dp_L += -beta dC/dh_L

The array that feeds back drives h and u, and those that drive h and u feed back: the correction holds nothing but
differences of arrays. A gain of mirrors or drivers goes with its array, to where that array reads from.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch

from physics_ep.blocks import State
from physics_ep.jacobians import PAIRS
from physics_ep.nudging import Nudge
from physics_ep.physical_system import PhysicalSystem
from physics_ep.predictive_coding.learning import Nudged, contrast

from ..devices.crossbars import stream
from .board import Arrays, loaded
from .phase import Blocks, PairedPhase
from .physical_cells import Copy


class AdjointPhase(PairedPhase):
    """A displaced phase whose linear response is the transpose of another's.

    Parameters
    ----------
    plain : PairedPhase
        The phase as the circuit has it, at the free state.
    """

    def __init__(self, plain: PairedPhase) -> None:
        vars(self).update(vars(plain))
        self.plain = plain
        system = self.system
        driver = system.device_model.feedback_gain
        layers = range(self.depth)
        self.gain_h, self.gain_u, fed = ([system.gain(of, k) for k in layers] for of in ("h", "u", "transpose"))
        self.gain_fed = [_times(g, driver) for g in fed]
        self.same_gains = all(a is b for a, b in zip(self.gain_h, self.gain_u, strict=True))
        self.apart: list[Arrays] | None = None
        """Arrays of h less those of u; None where they are one."""
        if not plain.one_array:
            self.apart = [
                Arrays({name: w - u.held[name] for name, w in h.held.items()})
                for h, u in zip(self.by_h, self.by_u, strict=True)
            ]
        self.one_array = True  # the one that feeds back drives h and u
        self.paths = {}

    def nudged(self, nudge: Nudge | None) -> AdjointPhase:
        return AdjointPhase(self.plain.nudged(nudge))

    def adjoint(self) -> PairedPhase:
        return self.plain

    def drooped(self, share: float) -> AdjointPhase:
        """Phase whose stores of all activities have lost this share: differences of copies are driven by it."""
        twin = copy.copy(self)
        stored = [share * h for h in self.h], [share * u for u in self.u]
        both = zip(driven_by(self, *stored), driven_by(self.plain, *stored), strict=True)
        lost = [[a - b for a, b in zip(turned, plain, strict=True)] for turned, plain in both]
        given = (
            lost
            if self.forcing is None
            else [
                [a + b for a, b in zip(mine, more, strict=True)]
                for mine, more in zip(self.forcing, lost, strict=True)
            ]
        )
        twin.forcing = given[0], given[1]
        return twin

    @property
    def one_drive(self) -> bool:
        return self.system.equal_loads and (self.forcing is None or self.forcing[0] is self.forcing[1])

    def driven(self, k: int, arrays: list[Arrays], moved: Sequence[torch.Tensor]) -> torch.Tensor | None:
        total = None
        for source, link, w, route in self.links(k, self.back):
            if source >= 0:
                part = link.apply(w, loaded(moved[source], self.gain_fed[source]), route)
                total = part if total is None else total.add_(part)
        return total

    def through(self, of: Copy, k: int) -> torch.Tensor | None:
        """The load of the node alone: gains go with the arrays, to where these read from."""
        return self.load_u[k] if of == "u" else self.load_h[k]

    def send(
        self, k: int, error: torch.Tensor, asked: list[torch.Tensor | None], moved: torch.Tensor | None = None
    ) -> None:
        through_u = loaded(error, self.gain_u[k])
        if moved is not None and not self.same_gains:
            through_u = through_u + loaded(moved, self.gain_h[k]) - loaded(moved, self.gain_u[k])
        parts = [(self.by_u, through_u)]
        if moved is not None and self.apart is not None:
            parts.append((self.apart, loaded(moved, self.gain_h[k])))
        for arrays, values in parts:
            for source, link, w, route in self.links(k, arrays):
                if source >= 0:
                    back = link.transpose(w, values, route)
                    below = asked[source]
                    asked[source] = back if below is None else below.add_(back)

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
        """d . dF/dW of the three arrays of each weight together, as the readings have it:

        (g_h dh - g_u du) h^T + (h - u) (g_T dh_{k-1})^T, g the gains of the arrays' currents.
        """
        with torch.no_grad():
            states = self._both(plus, minus)
            plain = self.same_gains and all(g is None for g in (*self.gain_h, *self.gain_fed))
            if plain:
                return contrast(self.layers, self.free, *states, weight=weight)
            static = [h - u for h, u in zip(self.h, self.u, strict=True)]
            up, down = (self._driving(s, static) for s in states)
            driven = contrast(self.layers, self.free, up, down, weight)
            up, down = (self._fed(s, static) for s in states)
            fed = contrast(self.layers, self.free, up, down, weight)
            return {name: g + fed[name] for name, g in driven.items()}

    def _driving(self, state: Nudged, static: Blocks) -> Nudged:
        deltas = []
        for k, (delta, rest, moved) in enumerate(zip(state.deltas, static, state.moved, strict=True)):
            own = loaded(delta - rest, self.gain_u[k])
            if not self.same_gains:
                own = own + loaded(moved, self.gain_h[k]) - loaded(moved, self.gain_u[k])
            deltas.append(own)
        return Nudged(state.moved, tuple(deltas))

    def _fed(self, state: Nudged, static: Blocks) -> Nudged:
        moved = tuple(loaded(m, g) for m, g in zip(state.moved, self.gain_fed, strict=True))
        return Nudged(moved, tuple(static))

    def _readings(self, z: State, slow: Blocks | None = None) -> Nudged:
        found = self.read(z, slow)
        return Nudged(found[: self.depth], found[self.depth :])


def _times(gain: torch.Tensor | None, driver: float) -> torch.Tensor | None:
    if driver == 1:
        return gain
    # In float64: one number keeps its digits, and leaves blocks of float32 beside it what they are.
    return torch.tensor(driver, dtype=torch.float64) if gain is None else driver * gain


def _over(current: torch.Tensor, load: torch.Tensor | None) -> torch.Tensor:
    return current if load is None else current / load


def driven_by(phase: PairedPhase, v_h: Blocks, v_u: Blocks) -> tuple[Blocks, Blocks]:
    """What drives the nodes of h and of u of each layer where activities of h and u have moved by v_h and v_u."""
    driven = [phase.changes(k, v_h) for k in range(phase.depth)]
    back = phase.feedback([a - b for a, b in zip(v_h, v_u, strict=True)], v_h)
    last = phase.depth - 1
    return [h if k == last else h + back[k] for k, (h, _) in enumerate(driven)], [u for _, u in driven]


def coupled(phase: PairedPhase, v_h: Blocks, v_u: Blocks) -> tuple[Blocks, Blocks]:
    """Multiply changes (v_h, v_u) of the activities with the off-diagonal Jacobian of the currents of `phase`.

    Each of `v_h` and `v_u` has a block (B, ...) for each layer, and so has each of the two results, the currents
    into the nodes of h and of u. Currents are divided by the loads of their nodes, and those of u have their sign
    reversed, so that the Jacobian is symmetric where one array serves h, u and the transposed read.
    """
    to_h, to_u = driven_by(phase, v_h, v_u)
    over_h = [_over(h, load) for h, load in zip(to_h, phase.load_h, strict=True)]
    return over_h, [-_over(u, load) for u, load in zip(to_u, phase.load_u, strict=True)]


def asymmetry(phase: PairedPhase, even: bool = False) -> float:
    """Estimate |J - J^T| / (2 |J|) at the origin over the batch, J the Jacobian of the currents; 0: symmetric.

    The norms are those of Frobenius, estimated by products with random vectors.

    Units that stand still whatever flows into them (a diode that blocks) are left out.

    Parameters
    ----------
    even : bool
        Take D J D for J, with D_i^2 the slope of unit i, so that its own law counts as 1: a saturated unit's is
        1 / slope, and would make any difference of copies look like rounding.
    """
    one = AdjointPhase(phase)
    slopes = [
        a.slope(v)
        for units, at in ((phase.system.amplifiers_h, phase.p), (phase.system.amplifiers_u, phase.q))
        for a, v in zip(units, at, strict=True)
    ]
    loads = [*phase.load_h, *phase.load_u]
    ease = [torch.where(s > 0, s, torch.ones_like(s)).sqrt() if even else torch.ones_like(s) for s in slopes]
    generator = stream(0, "asymmetry")
    apart = size = 0.0
    for _ in range(PAIRS):
        drawn = [torch.randn(s.shape, generator=generator, dtype=torch.float64).to(s) * (s > 0) for s in slopes]
        drawn = [v * e for v, e in zip(drawn, ease, strict=True)]
        halves = drawn[: phase.depth], drawn[phase.depth :]
        mine, other = ([*a, *b] for a, b in (coupled(phase, *halves), coupled(one, *halves)))
        for n, (a, b, s, v) in enumerate(zip(mine, other, slopes, drawn, strict=True)):
            live = s > 0
            load = loads[n]
            own = torch.where(live, v / s.where(live, torch.ones_like(s)), torch.zeros_like(v))
            own = _over(own, load)
            whole = a - own if n < phase.depth else a + own
            apart += float(((a - b) * live * ease[n]).double().square().sum())
            size += float((whole * live * ease[n]).double().square().sum())
    return 0.5 * math.sqrt(apart / size) if size > 0 else 0.0
