"""One instance of devices that holds a network: cells, copies, loads, units, noise and seeds.

A weight is a list of physical cells, each a pair of conductances with errors of its own (`DeviceModel.copies`).
They drive the units h, drive the units u, and feed h - u back to h of the layer below: `serving` says which of
these one array of cells does on a substrate. What a layer's drives and its feedback amount to are weights W_h, W_u
and T again.

A load l is the total conductance that a node should have over the one that it has: 1, or None, on nodes whose
conductance is not in the cells. A gain is what mirrors and virtual grounds make of a current; None: 1.

A `Board` is what a phase and its solvers know of a substrate. It is also the feedforward network that the devices
compute while nothing is fed back: its parameters are the weights in the arrays that drive h.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import torch
from scipy.special import gammainccinv

from physics_ep.blocks import State
from physics_ep.equilibrium import Equilibrium
from physics_ep.errors import InputError, argument_error, unknown_name
from physics_ep.maps import ChannelLink
from physics_ep.pooling import Route
from physics_ep.predictive_coding import PredictiveCodingNetwork
from physics_ep.predictive_coding.activations import Activation
from physics_ep.predictive_coding.forward import Cast, ForwardPass

from ..devices.crossbars import Cells, converted, fluctuated, stream
from ..devices.model import ASSUMED_SECONDS, DeviceModel
from ..laws.elements import BOLTZMANN
from .amplifiers import Amplifiers
from .node_sums import Array, arrays_of, into_nodes, out_of_nodes
from .physical_cells import COPIES, KEPT, SIDES, Copy, PhysicalCells, Side
from .ranges import ReadingRanges

Sides = Literal["h", "u", "both"]
"""The units of a layer that a current reaches: h, u, or both alike."""
SETTLED = 1e-6
"""Relative distance from the equilibrium that counts as settled in `Fidelity`."""

Loads = Sequence[torch.Tensor | None]


CIRCUITS = {"hopfield": "Hopfield circuits", "resistive": "resistive circuits", "oscillator": "oscillators"}
"""What substrates are made of, in words: the system `hopfield` is a network of its own, and no mapped one."""


def mapped_to(substrate: str) -> str:
    """Say in a title that a network is mapped to a substrate: "mapped to Hopfield circuits"."""
    return f"mapped to {CIRCUITS.get(substrate, f'the substrate {substrate}')}"


class NotRealisable(InputError):  # noqa: N818 (a public name)
    """Raised when a substrate cannot hold a layer of a network; it names the layer and the reason."""

    def __init__(self, substrate: str, layer: int, reason: str, module: str = "") -> None:
        self.substrate, self.layer, self.reason, self.module = substrate, layer, reason, module
        of = f" (module {module!r})" if module else ""
        super().__init__(f"Layer {layer}{of} cannot be realised on the substrate {substrate!r}: {reason}.")


def unread_field(substrate: str, name: str, value: Any, readers: Sequence[str] = ()) -> InputError:
    """Build the error for a field of a device that a substrate does not read, with the substrates that do."""
    must = f"be left out on the substrate {substrate!r}, which does not read it"
    if readers:
        must += f" ({', '.join(map(repr, readers))} {'does' if len(readers) == 1 else 'do'})"
    return argument_error(name, must, value)


class Arrays(NamedTuple):
    """What one layer's crossbars hold, as weights, by the names of its parameters: those of links, then biases."""

    held: dict[str, torch.Tensor]

    @property
    def weight(self) -> torch.Tensor:
        """The weight of the layer's first link, in the network's shape."""
        return self.held["weight"]

    @property
    def bias(self) -> torch.Tensor | None:
        return self.held.get("bias")


class Origin(Protocol):
    """What a substrate may read of a phase: the currents into the units h and u of each layer at the state that
    displacements are taken from, (B, ...), in units of activity."""

    p: list[torch.Tensor]
    q: list[torch.Tensor]


@dataclass(frozen=True)
class Values:
    """How the units h or u of a layer move in time, where values move and not currents (`value_flow`).

    Attributes
    ----------
    place : callable (v) -> x
        State at which a unit rests that puts out v (of its activation, in units of activity).
    moved : callable (x, d) -> V(x + d) - V(x)
        Change of what is read, in units of activity, without cancellation.
    speed : callable (x, d, p, dp) -> dx/dt
        Speed of a unit at x + d, with the current p + dp into the unit, p that of the origin; time in time
        constants.
    within : callable (x, d) -> d
        x + d back in bounds.
    """

    place: Callable[[torch.Tensor], torch.Tensor]
    moved: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    speed: Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
    within: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Board(PhysicalCells):
    """The device instance that holds a network, without what it does in a relaxation: see `PairedCircuit`, which
    tells parameters and attributes.

    All tensors beside the parameters (copies, loads) are buffers that no `state_dict` holds: they follow from the
    seed, and move with the module.
    """

    substrate = "ideal"
    holds: tuple[str, ...] = ()
    effects: frozenset[str] = frozenset()
    device_class: type[DeviceModel] = DeviceModel
    exactness = "exact"
    no_slots = ""
    """Why arrays cannot be read both ways in slots of time; empty where they can, or nothing is known."""

    def __init__(
        self,
        net: PredictiveCodingNetwork,
        device: DeviceModel,
        seed: int,
        full_scales: Sequence[float] | None = None,
        gates: str = "held",
    ) -> None:
        self.check(net, device)
        super().__init__(deepcopy(net.stack), "paired", gates)
        self.device_model = device
        self.seed = seed
        self.calibrated = full_scales is not None
        self.full_scales = (1.0,) * (self.depth + 1) if full_scales is None else tuple(full_scales)
        self.reads = stream(seed, "reads", device=net.device)
        self.scales: dict[str, float] = {}
        """Weight per siemens of each array."""
        self.ranges: ReadingRanges | None = None
        """Ranges of the converters of readings, where the device gives none: those that a calibration has found."""
        self.ranging: ReadingRanges | None = None
        """What a calibration takes in, while it reads."""
        self.writings, self.missed = 0, 0
        """Writings that trimming the copies took, and cells that it left beyond the tolerance."""
        self.equal_loads = True
        """Whether the nodes of h and u have one list of loads."""
        with torch.no_grad():
            largest = {name: float(p.abs().max()) for name, p in self.named_parameters()}
            for name, p in self.named_parameters():
                bank = self.programmed(name, p.detach(), self.span(name, largest))
                self.scales[name] = bank[name].scale
                self._place(name, bank, p.detach())
            self._compare_copies()
            self.find_loads()
            self.check_voltages()
            self.amplifiers_h = [self.build_units(k, "h") for k in range(self.depth)]
            self.amplifiers_u = [self.build_units(k, "u") for k in range(self.depth)]
        self._written()

    def _written(self) -> None:
        """Find out what the cells, loads and units amount to; called after each writing."""
        device = self.device_model
        # No two phases are one problem where something beside readings is drawn in each.
        self.noisy = device.conductance_noise > 0 or device.temperature > 0 or device.phase_noise > 0
        self.gained = any(self.gain(of, k) is not None for of in COPIES for k in range(self.depth))
        gains, rests = (all(a is b for a, b in zip(*self._sides(what), strict=True)) for what in ("gain", "rest"))
        self.one_drive = self.one_array and self.equal_loads and gains
        units = zip(self.amplifiers_h, self.amplifiers_u, strict=True)
        alike = all(h is u or h.equals(u) for h, u in units)
        self.shared = self.one_drive and rests and alike
        activations = zip(self.amplifiers_h, self.stack, strict=True)
        self._as_meant = all(a.ideal and a.activation is layer.activation for a, layer in activations)
        self.smooth = not self.routed and all(a.smooth for a in self.amplifiers_h)

    # -- what a substrate defines ------------------------------------------------------------------------------

    @classmethod
    def check(cls, net: PredictiveCodingNetwork, device: DeviceModel) -> None:
        """Refuse a network that the substrate cannot hold on such devices.

        Raises
        ------
        NotRealisable
        InputError
            If a field of the device differs from its default, and the substrate does not read it.
        """
        clips = "hard_tanh" in cls.holds  # two diodes, or an oscillator's range, stand wherever they are put
        for k, layer in enumerate(net.stack[:-1], 1):  # the outputs are linear: read at their nodes
            held = layer.activation_name in cls.holds or (clips and layer.activation.clips)
            if cls.holds and not held:
                also = "; other clips will do" if clips else ""
                reason = f"its units can be {', '.join(cls.holds)}, not {layer.activation_name}{also}"
                raise NotRealisable(cls.substrate, k, reason, layer.label)
            if device.feedback_gain != 1 and [wire.source for wire in layer.wires(k - 1)] != [k - 2]:
                reason = "its skip feeds errors back past other layers, and a feedback_gain weakens each layer's"
                raise NotRealisable(cls.substrate, k, reason)
        for k, layer in enumerate(net.stack, 1):
            if any(isinstance(wire.link, ChannelLink) and wire.link.tied for wire in layer.wires(k - 1)):
                reason = "it learns one weight for all channels, where an array has a cell for each"
                raise NotRealisable(cls.substrate, k, reason, layer.label)
        for name in device.unread(cls.effects):
            raise unread_field(cls.substrate, name, getattr(device, name))

    def build_units(self, k: int, side: Side) -> Amplifiers:
        """Make the units of layer k that are 'h' or 'u'; values that are None, or the same for both, are shared."""
        return Amplifiers(self.stack[k].activation)

    def adjoint_of(self, phase: Any) -> Any:
        """`Phase.adjoint` of one of its phases, which stand above a board."""
        raise NotImplementedError

    def asymmetry_of(self, phase: Any, even: bool = False) -> float:
        """`Phase.asymmetry` of one of its phases."""
        raise NotImplementedError

    def find_loads(self) -> None:
        """Set what follows from the cells, by `load_h` and `load_u` (one list where they are equal) and by
        `keep_paths`; called after each writing."""

    def line_gain(self, array: Array, back: bool = False) -> float:
        """Volts of the lines of an array over those of what drives it, `voltage` a full scale; of a bias row over
        `voltage`. One resistor makes voltages of all currents into a node, and each array has a scale of its own.

        `back`: of the lines that errors drive where the array feeds back.
        """
        k, full = array.k, self.full_scales
        source = 1.0 if array.source is None else full[array.source + 1]
        if back:
            assert array.fed is not None
            k, source = array.fed, full[array.k + 1]
        scale = self.scales[f"layers.{k}.weight"]
        return self.scales[array.name] * source / (scale * full[k]) if scale > 0 else 0.0

    def line_voltage(self, k: int) -> float:
        """Largest voltage of the lines that drive layer k, at full scale, V."""
        gains = (self.line_gain(array) for array in arrays_of(self.stack) if array.k == k)
        return self.device_model.voltage * max((1.0, *gains))

    def cell_voltage(self, k: int) -> float:
        """Largest voltage across the cells that drive layer k, at full scale, V: here that of their lines, since
        their other ends are virtual grounds."""
        return self.line_voltage(k)

    def ground_power(
        self, x: torch.Tensor, activities: Sequence[torch.Tensor], errors: Sequence[torch.Tensor] | None
    ) -> list[float]:
        """Power that lines need not deliver, W an example and layer, since the other ends of their cells move: here
        none. Arguments are those of `fidelity.array_rows`."""
        return [0.0] * self.depth

    def fed_errors(self, state: State) -> list[torch.Tensor] | None:
        """What the drivers of the feedback take of h - u in a free state, in units of activity; None: nothing."""
        device = self.device_model
        if self.shared or device.auto_zero == "on":  # which stores it
            return None
        units = zip(self.amplifiers_h, self.amplifiers_u, state, state[self.depth :], strict=False)
        return [device.feedback_gain * (a.response(p) - b.response(q)) for a, b, p, q in units]

    def check_voltages(self) -> None:
        """Whether cells bear the voltages at their ends.

        Raises
        ------
        NotRealisable
            With the layer of the largest voltage, and how many times the device's limit it is.
        """
        limit = self.device_model.cell_voltage_limit
        volts = [self.cell_voltage(k) for k in range(self.depth)]
        k = max(range(self.depth), key=lambda k: float(f"{volts[k]:.9g}"))  # the first of those that are equal
        if limit is not None and volts[k] > limit * (1 + 1e-9):
            ratio = volts[k] / limit
            reason = f"its cells see up to {volts[k]:.3g} V, {ratio:.3g} times cell_voltage_limit = {limit:g}"
            raise NotRealisable(self.substrate, k + 1, reason)

    def noise_sizes(self, k: int, side: Sides, phase: Origin) -> torch.Tensor | float:
        """Standard deviation of the noise current into the units of layer k, in units of activity; 0: no noise.

        One current is drawn a unit and a nudged phase, and stays constant during it. `side` says who receives it:
        'h', 'u', or 'both' (the same current). This default is thermal noise.
        """
        return thermal_currents(self, k, side)

    def node_conductances(self, k: int, side: Sides) -> tuple[torch.Tensor | float, float]:
        """Conductances whose currents reach the nodes 'h' or 'u' of layer k, or 'both', in all, and the one that
        turns current into p (here the feedback resistor at a virtual ground), S."""
        return at_virtual_grounds(self, k, side)

    def fastest(self, phase: Origin) -> float:
        """Largest rate in time of a phase's nodes, over that of an RC node."""
        return 1.0

    def values(self, k: int, side: Side, phase: Origin) -> Values:
        """How units of layer k move in time, where values move and not currents: for `value_flow`."""
        raise NotImplementedError

    def count_units(self) -> dict[str, int]:
        """How many 'amplifiers' units have, what stands at the lines of arrays ('buffers'), and 'oscillators'.

        This default is that of arrays between rows and columns at virtual grounds: an amplifier for each hidden h
        and u, two drivers (of the value and of its negative) for each unit that drives a line, forward or back, and
        a virtual ground for each line that is read.
        """
        inputs, *sizes = self.sizes
        drivers = inputs + sum(sizes[:-1]) + sum(sizes[1:])
        grounds = sum(sizes) * len(self.forward_roles()) + sum(sizes[:-1])
        return {"amplifiers": 2 * sum(sizes[:-1]), "buffers": 2 * drivers + grounds}

    def rest_state(self, x: torch.Tensor) -> State:
        """State of the substrate before a free phase: without currents."""
        return tuple(torch.zeros_like(s) for s in self.initial_state(x))

    def _apply(self, fn: Any, recurse: bool = True) -> Board:
        """Move or convert all tensors, as in `torch.nn.Module`; noise in time starts anew."""
        moved = super()._apply(fn, recurse)
        if self.reads.device != self.device:
            self.reads = stream(self.seed, "reads", device=self.device)
        return moved

    # -- cells -------------------------------------------------------------------------------------------------

    def span(self, name: str, largest: dict[str, float]) -> float:
        """Weight that a cell at g_max holds beside one at g_min."""
        if not name.endswith(".bias"):
            return largest[name]
        # The bias row has the array's scale; it is driven at the full scale of the layer below, or above.
        layer = name.removesuffix(".bias")
        return max(largest[name], largest[f"{layer}.weight"] * self.full_scales[int(layer.split(".")[1])])

    def write(self, cells: Mapping[str, Cells], asked: Mapping[str, torch.Tensor] | None = None) -> None:
        """Put other conductances in the place of arrays': what is read of them, their copies, and loads.

        Parameters
        ----------
        cells : mapping of str to Cells
            Cells by the keys of `physical`, as they are, errors of writing included, of the array's scale. Copies
            that are not named hold the conductances of the first.
        asked : mapping of str to Tensor, optional
            Weights that arrays are first written for, at any scale: leaks that are not trimmed are set for these.

        Raises
        ------
        InputError
            If cells have another scale or shape, or the name is unknown.
        NotRealisable
            If the substrate cannot hold these, which are there then.
        """
        asked, parameters = asked or {}, dict(self.named_parameters())
        banks: dict[str, dict[str, Cells]] = {}
        keys = {key: name for name in self.scales for key in self.physical(name)}
        for key, part in cells.items():
            if key not in keys:
                raise unknown_name("array", key, keys)
            name = keys[key]
            if name not in cells:
                raise argument_error("cells", f"hold those of {name!r} beside its copies", repr(key))
            banks.setdefault(name, {})[key] = part
            shape, scale = parameters[name].shape, cells[name].scale if name in asked else self.scales[name]
            if part.scale != scale or part.plus.shape != shape:
                must = f"have the shape {list(shape)} and the scale {scale:g}"
                raise argument_error("cells", must, f"{list(part.plus.shape)} and {part.scale:g}")
        if any(name not in cells or w.shape != cells[name].plus.shape for name, w in asked.items()):
            raise argument_error("asked", "hold weights of arrays that are written, by name", ", ".join(asked))
        with torch.no_grad():
            for name, bank in banks.items():
                self.scales[name] = bank[name].scale
                self._place(name, bank, asked.get(name))
            self._compare_copies()
            self.find_loads()
            self.check_voltages()
        self._written()

    def _place(self, name: str, bank: Mapping[str, Cells], asked: torch.Tensor | None = None) -> None:
        """Put what the devices make of a parameter in its place, and keep copies that differ; `asked` as `write`
        has it."""
        p, found = dict(self.named_parameters())[name], self.acting(name, bank)
        if self.sums_cells:
            self._keep_sums(name, found, asked)  # before p changes, which may be what was asked for
        p.copy_(found["h"].values)
        for role in COPIES[1:]:
            differs = role in found and found[role] is not found["h"]
            self._keep(f"{role}/{name}", found[role].values if differs else None)
        self._keep_drains(name, found)
        if self.keeps_cells:
            for key in self.physical(name):
                cells = bank.get(key, bank[name])
                small = cells.plus.numel() <= KEPT
                self._keep(f"plus/{key}", cells.plus if small else None)
                self._keep(f"minus/{key}", cells.minus if small else None)

    def drawn(self, size: float, k: int, side: Side, quantity: str) -> torch.Tensor:
        """Normal errors of standard deviation `size` of the units of layer k, (*shape): the instance's own."""
        generator = stream(self.seed, quantity, side, k)
        normal = torch.randn(self.stack[k].post, generator=generator, dtype=torch.float32, device="cpu")
        return (size * normal).to(self.device, self.dtype)

    def arrays(self, k: int, copy: Copy) -> Arrays:
        """What the array of layer k holds that serves 'h', 'u' or the 'transpose'."""
        layer = self.stack[k]
        found = {}
        for name in [*(wire.name for wire in layer.wires(k)), "bias"]:
            shared = None if name is None else getattr(layer, name)
            if name is not None and shared is not None:
                kept = self._kept(f"{copy}/layers/{k}/{name}")
                found[name] = shared.detach() if kept is None else kept
        return Arrays(found)

    @property
    def units(self) -> list[Activation]:
        """The activation of each layer."""
        return [a.activation for a in self.amplifiers_h]

    def fluctuated(self, k: int, arrays: Arrays, generator: torch.Generator) -> Arrays:
        """The arrays of layer k as they are in one phase, under conductance noise.

        Cells are those that an ideal writing of these weights takes. Separate copies have their own; loads stay.
        """
        device = self.device_model
        found = dict(arrays.held)
        for name, values in arrays.held.items():
            scale = self.scales.get(f"layers.{k}.{name}", 0.0)
            if scale > 0:
                plus, minus = (device.g_min + part.clamp(min=0) / scale for part in (values, -values))
                found[name] = fluctuated(Cells(plus, minus, scale), device.conductance_noise, generator).values
        return Arrays(found)

    # -- loads and gains ---------------------------------------------------------------------------------------

    def conductance(self, k: int) -> float:
        """Conductance that turns the current into nodes of layer k into their voltage, S: here that of the feedback
        resistor of a virtual ground; 0: the layer holds nothing."""
        scale = self.scales[f"layers.{k}.weight"]
        return self.full_scales[k + 1] / (self.full_scales[k] * scale) if scale > 0 else 0.0

    def capacitance(self, k: int) -> float:
        """Capacitance of a node of layer k as the device gives it, F; 0: it does not. Cells at virtual grounds are
        none of the node's."""
        return self.device_model.unit_capacitance

    @property
    def tau(self) -> float:
        """Time constant of h, s: the device's, or of the slowest layer the capacitance over the conductance."""
        given = self.device_model.time_constant
        return self._charging or ASSUMED_SECONDS if given is None else given

    @property
    def _charging(self) -> float:
        """Capacitance over conductance of the slowest layer, s; 0: there is none."""
        slowest = (self.capacitance(k) / g for k in range(self.depth) if (g := self.conductance(k)) > 0)
        return max(slowest, default=0.0)

    def settling_seconds(self, free: Equilibrium, x: torch.Tensor) -> tuple[float, float]:
        """Seconds to 1e-6 of a free phase from nothing, and of a nudged one, which is the time between the readings
        of two phases: here those of L and 2 L equal RC stages in a row, of gain one (`Mapped.settling` measures
        them)."""
        tau = self.tau
        return tau * float(gammainccinv(self.depth, SETTLED)), tau * float(gammainccinv(2 * self.depth, SETTLED))

    @property
    def time_from(self) -> str:
        """The origin of the time constant: 'the device', 'capacitance', or 'assumed'."""
        if self.device_model.time_constant is not None:
            return "the device"
        return "capacitance" if self._charging > 0 else "assumed"

    @property
    def slowness(self) -> list[torch.Tensor | float]:
        """Time constants of the nodes u of each layer over that of h, numbers or (*shape)."""
        return [1 + self.device_model.time_constant_mismatch] * self.depth

    @property
    def equal_times(self) -> bool:
        """Whether the nodes of h and u are equally fast."""
        return all(isinstance(slow, float) and slow == 1 for slow in self.slowness)

    def gain(self, of: Copy, k: int) -> torch.Tensor | None:
        """Gain of the currents of the arrays that drive 'h' or 'u' of layer k, or that feed back to it
        ('transpose'), (*shape); None for a gain of 1.
        """
        return self._kept(f"gain_{of}/{k}")

    def rest(self, side: Side, k: int) -> torch.Tensor | None:
        """Current that always flows into 'h' or 'u' of layer k beside what arrays drive, (*shape); None: 0."""
        return self._kept(f"rest_{side}/{k}")

    def keep_paths(
        self,
        k: int,
        gains: Mapping[Copy, torch.Tensor | None],
        rests: Mapping[Side, torch.Tensor | None],
    ) -> None:
        """Set gains and constant currents of layer k; those of h and u that are alike must be one object."""
        for of, gain in gains.items():
            self._keep(f"gain_{of}/{k}", gain)
        for side, rest in rests.items():
            self._keep(f"rest_{side}/{k}", rest)

    def _sides(self, what: str) -> tuple[list[torch.Tensor | None], list[torch.Tensor | None]]:
        at_h, at_u = ([self._kept(f"{what}_{side}/{k}") for k in range(self.depth)] for side in SIDES)
        return at_h, at_u

    def through(self, of: Copy, k: int) -> torch.Tensor | None:
        """What a current of these arrays is multiplied with until it is one into a node of this load."""
        gain, load = self.gain(of, k), self._load("h" if of != "u" or self.equal_loads else "u", k)
        found = load if gain is None else loaded(gain, load)
        driver = self.device_model.feedback_gain
        if of != "transpose" or driver == 1:
            return found
        return torch.tensor(driver, dtype=self.dtype, device=self.device) if found is None else driver * found

    def weakening(self, k: int) -> float:
        """What is left of an error at layer k when the drivers of all layers above have fed it back; 1 at the
        outputs."""
        return self.device_model.feedback_gain ** (self.depth - 1 - k)

    @property
    def load_h(self) -> tuple[torch.Tensor | None, ...]:
        """Loads of the nodes h of each layer, (*shape); None: 1."""
        return tuple(self._load("h", k) for k in range(self.depth))

    @load_h.setter
    def load_h(self, loads: Loads) -> None:
        if self.equal_loads:  # those of u stay what they were
            self._keep_loads("u", self.load_h)
            self.equal_loads = False
        self._keep_loads("h", loads)

    @property
    def load_u(self) -> tuple[torch.Tensor | None, ...]:
        """Loads of the nodes u of each layer, (*shape); None: 1."""
        return self.load_h if self.equal_loads else tuple(self._load("u", k) for k in range(self.depth))

    @load_u.setter
    def load_u(self, loads: Loads) -> None:
        self.equal_loads = all(a is b for a, b in zip(loads, self.load_h, strict=True))
        self._keep_loads("u", [None] * self.depth if self.equal_loads else loads)

    def _load(self, side: Side, k: int) -> torch.Tensor | None:
        return self._buffers.get(f"load_{side}/{k}")

    def _keep_loads(self, side: Side, loads: Loads) -> None:
        for k, load in zip(range(self.depth), loads, strict=True):
            self._keep(f"load_{side}/{k}", load)

    # -- the forward pass, with feedback off -------------------------------------------------------------------

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Inputs as their converters drive them, clipped to `dac_range` full scales, or one."""
        device = self.device_model
        span = self.full_scales[0] * (1.0 if device.dac_range is None else device.dac_range)
        return converted(x, device.dac_bits, span)

    def drive(
        self,
        k: int,
        x: torch.Tensor,
        states: Sequence[torch.Tensor],
        weights: Cast | None = None,
        images: list[torch.Tensor | None] | None = None,
    ) -> tuple[torch.Tensor, Route]:
        a, route = super().drive(k, x, states, weights, images)
        return self.driven(a, k, "h"), route

    def driven(self, current: torch.Tensor, k: int, side: Side) -> torch.Tensor:
        """The current into the nodes 'h' or 'u' of layer k, (B, ...), where arrays draw a part of it."""
        total, rest = loaded(current, self.through(side, k)), self.rest(side, k)
        return total if rest is None else total + loaded(rest, self.load_h[k] if side == "h" else self.load_u[k])

    def run(self, x: torch.Tensor, keep_drives: bool = True, keep_images: bool = False) -> ForwardPass:
        if self.device_model.dac_bits is not None:
            x = self.encode(x)
        if self._as_meant:
            return super().run(x, keep_drives, keep_images)
        states: list[torch.Tensor] = []
        drives, routes = [], []
        for k in range(self.depth):
            a, route = self.drive(k, x, states)
            drives.append(a)
            routes.append(route)
            states.append(self.amplifiers_h[k].response(a))
        return ForwardPass(x, tuple(states), tuple(drives), tuple(routes), Cast(self.stack, self.dtype))


def loaded(current: torch.Tensor, load: torch.Tensor | None) -> torch.Tensor:
    """A current into a node of this load, in units of activity."""
    return current if load is None else current * load


def erring(board: Board, k: int, side: Side, activation: Activation, buffered: bool = False) -> Amplifiers:
    """Amplifiers of the units 'h' or 'u' of layer k, with the gains, offsets and rails of the device instance; with
    offsets of buffers behind the units, or of the units' own inputs."""
    device, full = board.device_model, board.full_scales[k + 1]
    gain, offset, saturation = device.amplifier_gain, device.amplifier_offset, device.amplifier_saturation
    shift = None if offset == 0 else full * board.drawn(offset, k, side, "offset")
    return Amplifiers(
        activation,
        None if gain == 0 else 1 + board.drawn(gain, k, side, "gain"),
        None if buffered else shift,
        math.inf if saturation is None else full * saturation,
        shift if buffered else None,
    )


def at_virtual_grounds(board: Board, k: int, side: Sides) -> tuple[torch.Tensor | float, float]:
    """Conductances whose currents reach 'h', 'u' or, mirrored, 'both' of layer k, (*post), and the feedback
    resistor of its nodes, S.

    One array that drives h and u is in 'both'; the feedback resistor, what is fed back, and arrays of which h and u
    have copies are in 'h' and 'u'.
    """
    scale = board.scales[f"layers.{k}.weight"]
    if scale == 0:
        return 0.0, 1.0
    resistor = board.conductance(k)
    off = 2 * board.device_model.g_min
    total: torch.Tensor | float = 0.0 if side == "both" else resistor
    for array in arrays_of(board.stack):
        scale = board.scales[array.name]
        drives = array.k == k and (side == "both") == (not board.served_apart("h", "u"))
        feeds = array.fed == k and side == "h"
        if scale == 0 or not (drives or feeds):
            continue
        copy: Copy = "transpose" if feeds else "h" if side == "both" else side
        held = board.arrays(array.k, copy).held[array.part]
        cells = held.abs() / scale + off
        if array.link is None:
            total = total + cells.view(-1, *[1] * (len(board.stack[k].post) - 1)).expand(board.stack[k].post)
        else:
            total = total + (out_of_nodes if feeds else into_nodes)(array.link, cells)
    return total, resistor


def thermal_currents(board: Board, k: int, side: Sides) -> torch.Tensor | float:
    """Standard deviation, in units of activity, of the thermal current into units of layer k ('h', 'u', or common
    to 'both'), averaged over a phase's readings; 0: none.

    Conductances of S in all are a white current of one-sided density 4 k T S (Nyquist 1928). A node of conductance
    G and time constant tau makes of it a voltage of variance k T S / (G^2 tau), correlated as e^(-|s| / tau). With
    tau = C / G that is (k T / C) (S / G): k T / C where the node has no other conductance, and 1 + sum of the
    column's cells over G times as much at a virtual ground. Its mean over `averaging_time` t has the variance

        k T S / (G^2 tau) 2 (x - 1 + e^-x) / x^2,  x = t / tau:    2 k T S / (G^2 t) for long t.
    """
    device = board.device_model
    if device.temperature == 0:
        return 0.0
    x = device.averaging_time / board.tau
    # By its series where the difference would cancel.
    share = 2 * (x + math.expm1(-x)) / x**2 if x > 1e-3 else 1 - x / 3 + x**2 / 12
    joule = BOLTZMANN * device.temperature / board.tau * share
    total, full = board.node_conductances(k, side)
    volts = device.voltage / board.full_scales[k + 1]
    return (joule * total) ** 0.5 / (full * volts)
