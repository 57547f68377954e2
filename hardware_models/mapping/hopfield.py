"""Paired units as a Hopfield circuit: amplifiers on RC nodes, arrays at virtual grounds.

The construction is derived in docs/physics.md, Hopfield circuit. p and q are internal voltages, h = sigma(p)
and u = sigma(q) the outputs of amplifiers (Hopfield 1984):

    tau_h dp_k/dt = -p_k + W_k h_{k-1} + b_k + sum over the layers above of W^T (h - u)
    tau_u dq_k/dt = -q_k + W_k h_{k-1} + b_k

The currents of an array at virtual grounds are mirrored to h and u, so that a node's conductance is that of its
feedback resistor whatever the cells are, and no load arises. The same cells are read the other way in slots of time
(each drive is held while the other is read), or a second array feeds back (`DeviceModel.transpose`).

A virtual ground of impedance r at a line whose cells sum to S passes I / (1 + r S) of the current I of its cells:
Kirchhoff's law there is I = (S + 1 / r) v, and what goes on is v / r. S is that of a column, of all cells that
drive a unit, and for the transposed read that of a row, so that even one array is not its own exact transpose. An
offset o of the ground adds -o S to I. Both cells of a pair end at one ground. Each mirror has a gain of its own, 1
+ m.

    p = (1 + m_h) (W h + b - o S) / (1 + r S) + (T^T (h - u) - o' S') / (1 + r S')        S', o' of the row's ground
    q = (1 + m_u) (W h + b - o S) / (1 + r S)
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch

from physics_ep.dynamics.motion import Motion
from physics_ep.equilibrium import Equilibrium
from physics_ep.errors import argument_error
from physics_ep.predictive_coding import PredictiveCodingNetwork
from physics_ep.system import Phase

from ..devices.model import AMPLIFIERS, CONVEYORS, RESISTORS, DeviceModel
from .amplifiers import MONOTONE, Amplifiers
from .board import SETTLED, erring
from .circuit import PairedCircuit
from .lags import LaggedFlow, LaggedMotion, lags
from .node_sums import arrays_of
from .physical_cells import SIDES, Copy, Side
from .solvers import chain_time


class HopfieldPairs(PairedCircuit):
    """A network's paired units as a Hopfield circuit; see `PairedCircuit` for parameters and attributes."""

    substrate = "hopfield"
    holds = MONOTONE
    effects = frozenset({*AMPLIFIERS, *RESISTORS, *CONVEYORS})
    keeps_cells = True

    @property
    def total(self) -> list[float]:
        """Conductance of the nodes of each layer, S: of their feedback resistors."""
        return [self.conductance(k) for k in range(self.depth)]

    def build_units(self, k: int, side: Side) -> Amplifiers:
        activation = self.stack[k].activation
        if k == self.depth - 1:  # read at the summing node
            return Amplifiers(activation)
        return erring(self, k, side, activation)

    @property
    def sums_cells(self) -> bool:  # type: ignore[override]
        """Whether virtual grounds are not perfect, and depend on the cells at them."""
        return self.device_model.ground_resistance > 0 or self.device_model.ground_offset > 0

    def find_loads(self) -> None:
        """Set the gains of mirrors and virtual grounds, and the currents of the grounds' offsets."""
        device = self.device_model
        if device.mirror_mismatch == 0 and not self.sums_cells:
            return
        for k in range(self.depth):
            at_h = self._ground(k, "h")
            at_u = at_h if self.one_array else self._ground(k, "u")
            back, own = self._ground(k, "transpose")
            gains: dict[Copy, torch.Tensor | None] = {"h": at_h[0], "u": at_u[0], "transpose": back}
            rests: dict[Side, torch.Tensor | None] = {"h": at_h[1], "u": at_u[1]}
            if device.mirror_mismatch > 0:
                for side in SIDES:
                    mirror = self.mirror_gains(k, side)
                    assert mirror is not None
                    ground, rest = gains[side], rests[side]
                    gains[side] = mirror if ground is None else mirror * ground
                    rests[side] = None if rest is None else mirror * rest
            if own is not None:
                rests["h"] = own if rests["h"] is None else rests["h"] + own
            self.keep_paths(k, gains, rests)

    def _ground(self, k: int, of: Copy) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Gain of the virtual grounds of the columns that drive 'h' or 'u' of layer k, or of the rows that feed
        back to it, and the current that their offsets make, (*shape), in units of activity; None: 1, and 0."""
        device, fed = self.device_model, of == "transpose"
        if not self.sums_cells or (fed and k == self.depth - 1):
            return None, None
        cells = self.node_sums(of)[1 if fed else 0][k]
        gain = 1 / (1 + device.ground_resistance * cells)
        if device.ground_offset == 0:
            return gain, None
        offset = self.offset_of_grounds(k, of)
        assert offset is not None
        return gain, -offset * cells * gain * self.activity_of_ampere(k)

    def activity_of_ampere(self, k: int) -> float:
        """What the feedback resistors of layer k make of a current, in units of activity an ampere; 0: the layer
        holds nothing."""
        siemens = self.conductance(k)
        return self.full_scales[k + 1] / (siemens * self.device_model.voltage) if siemens > 0 else 0.0

    def mirror_gains(self, k: int, side: Side) -> torch.Tensor | None:
        """Gains of the mirrors into units 'h' or 'u' of layer k, (*shape); None: 1."""
        size = self.device_model.mirror_mismatch
        return 1 + self.drawn(size, k, side, "mirror") if size > 0 else None

    def offset_of_grounds(self, k: int, of: Copy) -> torch.Tensor | None:
        """Volts of the virtual grounds of the lines that drive 'h' or 'u' of layer k, or feed back to it,
        (*shape); None: 0."""
        size, fed = self.device_model.ground_offset, of == "transpose"
        if size == 0:
            return None
        return self.drawn(size, k, "u" if of == "u" else "h", "row ground" if fed else "ground")

    def ground_power(
        self, x: torch.Tensor, activities: Sequence[torch.Tensor], errors: Sequence[torch.Tensor] | None
    ) -> list[float]:
        """V I of the virtual grounds: a ground that moves by v takes v I from what lines deliver to its cells."""
        if not self.sums_cells:
            return [0.0] * self.depth
        states, routes = [self.encode(x), *activities], self.run(x).routes
        sides: tuple[Copy, ...] = ("h", "transpose") if self.one_array else ("h", "u", "transpose")
        found = [0.0] * self.depth
        currents: dict[tuple[Copy, int], torch.Tensor] = {}
        for of, array in itertools.product(sides, arrays_of(self.stack)):
            held, k = self.arrays(array.k, of).held.get(array.part), array.fed if of == "transpose" else array.k
            if held is None or k is None or (of == "transpose" and errors is None):
                continue
            if array.link is None or array.source is None:
                part = held.view(-1, *[1] * (len(self.stack[k].post) - 1)).expand(self.stack[k].post)[None]
            elif errors is not None and of == "transpose":
                part = array.link.transpose(held, errors[array.k], routes[array.k])
            else:
                part = array.link.apply(held, states[array.source + 1], routes[array.k])
            currents[of, k] = part + currents.get((of, k), 0.0)
        for (of, k), current in currents.items():
            unit, offset = self.activity_of_ampere(k), self.offset_of_grounds(k, of)
            amperes = current / unit if unit > 0 else torch.zeros_like(current)
            cells, r = self.node_sums(of)[1 if of == "transpose" else 0][k], self.device_model.ground_resistance
            volts = (r * amperes + (0.0 if offset is None else offset)) / (1 + r * cells)
            found[k] += float((volts * amperes).flatten(1).sum(1).mean())
        return found

    @classmethod
    def check(cls, net: PredictiveCodingNetwork, device: DeviceModel) -> None:
        super().check(net, device)
        if device.amplifier_lag == 0 and device.amplifier_lag_mismatch != 0:
            must = "be 0 where amplifiers do not lag (amplifier_lag = 0)"
            raise argument_error("amplifier_lag_mismatch", must, device.amplifier_lag_mismatch)

    def _choose_solvers(self) -> None:
        super()._choose_solvers()
        if self.device_model.amplifier_lag > 0 and self.device_model.amplifier_lag_mismatch != 0:
            self.default_solver = "flow"  # whether the free state is stable is in question

    def solvers(self, phase: Phase) -> dict[str, Any]:
        found = super().solvers(phase)
        return {**found, "flow": LaggedFlow} if self.device_model.amplifier_lag > 0 else found

    def motion(self, phase: Phase) -> Motion:
        return LaggedMotion(phase) if self.device_model.amplifier_lag > 0 else super().motion(phase)

    def settling_seconds(self, free: Equilibrium, x: torch.Tensor) -> tuple[float, float]:
        """Seconds to settle of L and 2 L equal stages in a row, with two poles each where amplifiers lag."""
        device = self.device_model
        if device.amplifier_lag == 0:
            return super().settling_seconds(free, x)
        # Outputs are read at their nodes: one amplifier less than nodes.
        rates = [1.0, *[1.0, 1 / max(lags(device))] * (self.depth - 1)]
        times = [self.tau * chain_time(rates * n, SETTLED) for n in (1, 2)]
        return times[0], times[1]
