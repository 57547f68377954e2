"""Paired units as an amplified network of resistors and diodes (docs/physics.md, Resistors and diodes).

A weight is two cells G+ and G- from its unit to buffered rails +A V and -A V of the activity below; what is fed
back comes from rails +-A (h - u) of the layer above, over copies of the cells. A leak to ground completes every
node of a layer, h or u, to the same conductance G. By Kirchhoff's law

    v_i = (A / G) sum_j (G+_ij - G-_ij) V_j = sum_j W_ij V_j          with the rail gain A = (weight per siemens) G,

so that G is the largest sum of cells at a node of the layer: forward, skip, bias and fed-back ones, off cells and
their g_min counted. These v and V are in units of activity; in volts, of which each layer has `voltage` a full
scale, the gain is A times the full scale below over that of the layer. Each array has rails of its own (a skip
source needs one rail a destination); the leak of u also stands for the fed-back cells that u does not have. A diode
from ground to the node makes it a ReLU, two make a
clip; real ones follow Shockley's law, v - (Is / G) (exp(-v / n VT) - 1) = p.

Where cells are not what they should be, a node's conductance S is not G either, and its load is G / S. Leaks are

* 'trimmed' to the cells that are there, node by node: S = G;
* 'dummy': set for the cells that were asked for, with a dummy of the fed-back cells on u: S is that of h for u too;
* 'fixed': set for the cells that were asked for: S differs between h and u.

Resistance of wires is that of an array at virtual grounds (`wires`), as nodes nearly are beside rails of a larger
voltage: what goes from one node through the wires of a row to another, a share of about 1 / A of it, is left out.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from physics_ep.equilibrium import Equilibrium
from physics_ep.errors import argument_error
from physics_ep.predictive_coding import PredictiveCodingNetwork
from physics_ep.predictive_coding.activations import CURRENT, THERMAL, diode
from physics_ep.system import Phase

from ..devices.model import AMPLIFIERS, DIODES, RAILS, RESISTORS, DeviceModel
from ..laws.elements import THERMAL_VOLTAGE
from .amplifiers import Amplifiers
from .board import NotRealisable, Origin, Sides, Values, erring
from .circuit import PairedCircuit
from .node_sums import arrays_of
from .physical_cells import KEPT, SIDES, Copy, Ends, Side
from .stiff_flow import StiffFlow
from .value_flow import ValueFlow, ValueMotion

__all__ = ["KEPT", "Ends", "ResistivePairs"]


class ResistivePairs(PairedCircuit):
    """A network's paired units as resistors and diodes; see `PairedCircuit` for parameters and attributes.

    Attributes
    ----------
    total : list of float
        G of the nodes of each layer, S.
    gains : list of dict of str to float
        Volts a volt, of the rails of the arrays that drive each layer, those that feed back to it included; of a
        bias row over `DeviceModel.voltage`.
    largest_sums : list of float
        Largest sum of cells at a node of each layer, S: what `total` completes nodes to.
    """

    substrate = "resistive"
    holds = ("relu", "linear", "hard_sigmoid", "hard_tanh", "diode")
    effects = frozenset({*AMPLIFIERS, *RESISTORS, *DIODES, *RAILS}) - {"amplifier_lag", "amplifier_lag_mismatch"}
    sums_cells = keeps_cells = True
    no_slots = "its cells hang on the nodes themselves, so that h, u and what is fed back have arrays of their own"

    @classmethod
    def serving(cls, device: DeviceModel) -> tuple[tuple[Copy, ...], ...]:
        """Three arrays: to h, to u, and back."""
        return ("h",), ("u",), ("transpose",)

    @classmethod
    def check(cls, net: PredictiveCodingNetwork, device: DeviceModel) -> None:
        super().check(net, device)
        if device.diode_current is None:
            ideal = all(layer.activation_name != "diode" for layer in net.stack)
            for name, value in (("diode_ideality", 1), ("diode_mismatch", 0), ("ideality_mismatch", 0)):
                if getattr(device, name) != value and ideal:
                    must = f"be {value} where diodes are ideal: no diode_current, and no units 'diode'"
                    raise argument_error(name, must, getattr(device, name))
            return
        for k, layer in enumerate(net.stack[:-1], 1):
            if layer.activation.clips and layer.activation_name != "relu":
                reason = f"real diodes (diode_current) make relu or diode units, not {layer.activation_name}"
                raise NotRealisable(cls.substrate, k, reason)

    # -- conductances of nodes ---------------------------------------------------------------------------------

    def asked_sums(self, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Cells that drive each node of layer k, and that feed back to it, as they were asked for, S (*shape)."""
        forward, back = self.node_sums("asked")
        return forward[k], back[k]

    def _written(self) -> None:
        # What a real diode answers depends on the conductance that stands beside it.
        for units, side in zip((self.amplifiers_h, self.amplifiers_u), SIDES, strict=True):
            units[:] = [self.build_units(k, side) for k in range(self.depth)]
        super()._written()

    @property
    def slowness(self) -> list[torch.Tensor | float]:
        """Without dummy cells u has the capacitance of its own cells, and h that of the fed-back ones too; nodes
        have that of cells alone where no capacitance is given."""
        equal = super().slowness
        if self.device_model.dummy_cells == "equal":
            return equal
        unit, cell = self.device_model.unit_capacitance, self.device_model.cell_capacitance
        if unit > 0 and cell == 0:
            return equal
        own = unit / cell if cell > 0 else 0.0  # in cells
        return [
            slow * ((own + count) / (own + count + back))
            for slow, count, back in zip(equal, *self.counts, strict=True)
        ]

    def conductance(self, k: int) -> float:
        return self.total[k]

    def capacitance(self, k: int) -> float:
        """Capacitance of a node h of layer k with all cells that hang on it, F."""
        device = self.device_model
        cells = 0.0
        if device.cell_capacitance > 0:
            forward, back = self.counts
            cells = device.cell_capacitance * float((forward[k] + back[k]).max())
        return device.unit_capacitance + cells

    def dummies(self, name: str) -> int:
        """The dummies on u of the cells that feed back to h."""
        return int(self.device_model.dummy_cells == "equal" and self._array(name).fed is not None)

    @property
    def counts(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Cells that drive each node of a layer, and that feed back to it, (*shape)."""
        forward, back = ([torch.zeros(layer.post, dtype=self.dtype) for layer in self.stack] for _ in "hu")
        parameters = dict(self.named_parameters())
        for array in arrays_of(self.stack):
            into, out = self._ends(array, torch.full_like(parameters[array.name].detach(), 2.0))
            forward[array.k] = forward[array.k].to(into) + into
            if array.fed is not None:
                back[array.fed] = back[array.fed].to(out) + out
        return forward, back

    def find_loads(self) -> None:
        leaks = self.device_model.leaks
        by_h, by_u = self.node_sums("h")[0], self.node_sums("u")[0]
        back = self.node_sums("transpose")[1]
        meant, meant_back = self.node_sums("asked")
        whole = [a + b for a, b in zip(meant, meant_back, strict=True)]
        # Cells of u alone are fewer, but its copies can be larger.
        there = [torch.maximum(a + c, b) for a, b, c in zip(by_h, by_u, back, strict=True)]
        self.largest_sums = [float(s.max()) for s in (there if leaks == "trimmed" else whole)]
        self.total = [largest or self.device_model.g_max for largest in self.largest_sums]
        self._find_gains()
        if leaks == "trimmed":
            return
        load_h, load_u = [], []
        for k, total in enumerate(self.total):
            fed = back[k] - meant_back[k]
            load_h.append(total / (total + (by_h[k] - meant[k]) + fed))
            dummy = fed if leaks == "dummy" else 0.0
            load_u.append(total / (total + (by_u[k] - meant[k]) + dummy))
        self.load_h = load_h
        self.load_u = load_h if leaks == "dummy" and self.one_array else load_u

    def _find_gains(self) -> None:
        """Set `gains`.

        Raises
        ------
        NotRealisable
            If one is beyond the device's limit.
        """
        full, limit = self.full_scales, self.device_model.amplifier_gain_limit
        self.gains: list[dict[str, float]] = [{} for _ in self.stack]
        for name, k, _, _, source in (arrays := arrays_of(self.stack)):
            below = 1.0 if source is None else full[source + 1]
            self.gains[k][name] = self.scales[name] * self.total[k] * below / full[k + 1]
        for array in arrays:
            if array.fed is not None:
                gain = self.scales[array.name] * self.total[array.fed]
                gain *= full[array.k + 1] / full[array.fed + 1]
                self.gains[array.fed][f"{array.name} (transposed)"] = gain
        for k, gains in enumerate(self.gains, 1):
            largest = max(gains.values())
            if limit is not None and largest > limit:
                reason = f"its rails need a gain of {largest:.3g}, beyond amplifier_gain_limit = {limit:g}"
                raise NotRealisable(self.substrate, k, reason)

    def line_voltage(self, k: int) -> float:
        return max(self.gains[k].values()) * self.device_model.voltage

    def cell_voltage(self, k: int) -> float:
        """That of the rails and of the node, which may be at a full scale of the other sign."""
        return self.line_voltage(k) + self.device_model.voltage

    # -- units -------------------------------------------------------------------------------------------------

    def build_units(self, k: int, side: Side) -> Amplifiers:
        device, activation = self.device_model, self.stack[k].activation
        if k == self.depth - 1:
            return Amplifiers(activation)
        spread = device.diode_mismatch > 0 or device.ideality_mismatch > 0
        constants = self.diode_constants(k, side)
        if constants is not None:
            if side == "u" and not spread and self.equal_loads:
                activation = self.amplifiers_h[k].activation
            elif device.diode_current is not None or spread or self._load("h", k) is not None:
                activation = diode(*constants)
        return erring(self, k, side, activation, buffered=True)

    def diode_constants(self, k: int, side: Side) -> tuple[Any, Any] | None:
        """s = Is / S and t = n VT of the diodes of layer k in units of activity (`activations.diode`).

        None: the diodes are ideal, or there are none.
        Numbers, or tensors (*shape) where each diode has an Is or n of its own, or each node an S.
        """
        device, name = self.device_model, self.stack[k].activation_name
        load = (self.load_h if side == "h" else self.load_u)[k]
        if name not in ("relu", "diode") or (name == "relu" and device.diode_current is None):
            return None
        volts = device.voltage / self.full_scales[k + 1]  # of one unit of activity
        current: Any = CURRENT
        thermal: Any = THERMAL * device.diode_ideality
        if device.diode_current is not None:
            current = device.diode_current / (self.total[k] * volts)
            thermal = device.diode_ideality * THERMAL_VOLTAGE / volts
        if device.diode_mismatch > 0:
            current = current * self.drawn(device.diode_mismatch, k, side, "diode").exp()
        if device.ideality_mismatch > 0:
            thermal = thermal * (1 + self.drawn(device.ideality_mismatch, k, side, "ideality")).clamp(min=0.1)
        return current if load is None else current * load, thermal

    def count_units(self) -> dict[str, int]:
        """A buffer behind each hidden node h and u, and two rails for each line of each array that is driven, since
        arrays have gains of their own; those of h and u have the same."""
        rails = 0
        for array in arrays_of(self.stack):
            rails += 1 if array.link is None else math.prod(array.link.pre)
            if array.fed is not None and array.link is not None:
                rails += math.prod(array.link.post)
        return {"amplifiers": 2 * sum(self.sizes[1:-1]), "buffers": 2 * rails}

    def node_conductances(self, k: int, side: Sides) -> tuple[float, float]:
        """G twice: the leak completes a node to it, and all of it turns current into voltage. Cells of h and of u
        are different ones."""
        return 0.0 if side == "both" else self.total[k], self.total[k]

    # -- in time -----------------------------------------------------------------------------------------------

    def fastest(self, phase: Origin) -> float:
        """A diode's conductance makes its node faster: by 1 / slope of the unit that it is."""
        slopes = [
            float(unit.activation.slope(p.detach()).min())
            for units, at in ((self.amplifiers_h, phase.p), (self.amplifiers_u, phase.q))
            for unit, p in zip(units, at, strict=True)
            if not unit.activation.piecewise_linear
        ]
        return 1 / max(min(slopes, default=1.0), 1e-3)

    def values(self, k: int, side: Side, phase: Origin) -> Values:
        """C dv/dt = G (p - v) less the diode's current; ideal diodes stop v at their bounds. Times in C / G."""
        unit = (self.amplifiers_h if side == "h" else self.amplifiers_u)[k]
        activation, (lo, hi) = unit.activation, unit.activation.bounds
        inverse = activation.inverse
        assert inverse is not None

        def speed(v: torch.Tensor, d: torch.Tensor, p: torch.Tensor, dp: torch.Tensor) -> torch.Tensor:
            if not activation.piecewise_linear:
                # v is where the unit rests with p. Inverses are steep, so that their difference needs digits.
                wide, there = v.double(), v.double() + d.double()
                return dp - (inverse(there) - inverse(wide)).to(d.dtype)
            # p - v is nothing inside the bounds, to the last digit.
            rate = (p - v) + (dp - d)
            stopped = ((d <= lo - v) & (rate < 0)) | ((d >= hi - v) & (rate > 0))
            return torch.where(stopped, torch.zeros_like(rate), rate)

        def within(v: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
            return torch.maximum(torch.minimum(d, hi - v), lo - v) if activation.piecewise_linear else d

        return Values(place=lambda v: v, moved=unit.read_between, speed=speed, within=within)

    def solvers(self, phase: Phase) -> dict[str, Any]:
        real = not all(a.activation.piecewise_linear for a in self.amplifiers_h)
        return {**super().solvers(phase), "flow": StiffFlow if real else ValueFlow}

    def motion(self, phase: Phase) -> ValueMotion:
        return ValueMotion(phase)

    # -- what it takes -----------------------------------------------------------------------------------------

    def describe(self, free: Equilibrium, x: torch.Tensor) -> list[dict[str, Any]]:
        """Gain, G, leak without gain, and V I power of the rails of h and u, a free phase and example."""
        found = []
        power = self._power(free, x) if bool(free.converged.all()) else [math.nan] * self.depth
        for k, total in enumerate(self.total):
            # Without a gain, cells and leak of a node would sum to this.
            gain = self.gains[k][f"layers.{k}.weight"]
            passive = total / gain if gain > 0 else math.inf
            found.append(
                {
                    "gain": max(self.gains[k].values()),
                    "total_conductance": total,
                    "negative_conductance": min(0.0, passive - self.largest_sums[k]),
                    "power": power[k],
                }
            )
        return found

    def _power(self, free: Equilibrium, x: torch.Tensor) -> list[float]:
        """What the rails of each layer's arrays deliver, W an example: the sum over the cells of h and u, and of
        those that feed back, of V I, that is of G A^2 V^2 - G A V v with the node's v."""
        phase, volts = self.phase(self.prepare(x)), self.device_model.voltage
        amplifiers = (self.amplifiers_h, self.amplifiers_u)
        sums = (self.kept_ends("h"), self.kept_ends("u"))
        units = zip((0, self.depth), SIDES, amplifiers, sums, (self.load_h, self.load_u), strict=True)
        h = [a.response(p) for a, p in zip(self.amplifiers_h, free.state, strict=False)]
        below = [phase.x, *h]
        found = [0.0] * self.depth
        for start, side, answering, ends, loads in units:
            drives = phase.drives(side, h)
            for name, k, _, _, source in arrays_of(self.stack):
                if source is None:
                    rail = self.gains[k][name] * volts
                    found[k] += float(rail**2 * ends[name][0].sum())
                else:
                    rails = below[source + 1] * (self.gains[k][name] * volts / self.full_scales[source + 1])
                    found[k] += float((rails.square() * ends[name][1]).flatten(1).sum(1).mean())
            for k, drive in enumerate(drives):
                own, load = volts / self.full_scales[k + 1], loads[k]
                inward = self.total[k] * own * (drive if load is None else drive / load)
                node = answering[k].activation.response(free.state[start + k]) * own
                found[k] -= float((inward * node).flatten(1).sum(1).mean())
        errors = self.fed_errors(free.state)
        if errors is None:
            return found
        ends, routes = self.kept_ends("transpose"), self.run(x).routes
        for name, k, part, link, source in arrays_of(self.stack):
            if link is None or source is None or source < 0:
                continue
            held, own = self.arrays(k, "transpose").held[part], volts / self.full_scales[source + 1]
            rails = errors[k] * (self.gains[source][f"{name} (transposed)"] * volts / self.full_scales[k + 1])
            inward = link.transpose(held, errors[k], routes[k]) * (self.total[source] * own)
            node = self.amplifiers_h[source].activation.response(free.state[source]) * own
            delivered = (rails.square() * ends[name][0]).flatten(1).sum(1) - (inward * node).flatten(1).sum(1)
            found[k] += float(delivered.mean())
        return found
