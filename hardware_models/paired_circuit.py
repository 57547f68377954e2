"""A predictive coding network as paired units on arrays of cells, with the imperfections of its devices.

What all substrates share. Units h and u of layer k answer the currents into them, p and q, with h = sigma(p) and
u = sigma(q); the currents come from arrays of conductances (docs/physics.md, Paired units):

    p_k = l_h (W_k h_{k-1} + b_k + sum over the layers above of W^T (h - u))
    q_k = l_u (W_k h_{k-1} + b_k)                             output layer: -beta dC/dh_L in place of the last term

A load l is the total conductance that a node should have over the one that it has: 1, or None, on nodes whose
conductance is not in the cells. Each W is one array of conductance pairs that drives h and u and is read the other
way for W^T. With separate copies (copy mismatch) the three differ, and no energy is left. Currents and voltages are
given in units of activity; `DeviceModel.voltage` is that of one full scale. With loads the energy is

    E = sum_k  Psi_k(h_k) / l_h - Psi_k(u_k) / l_u - (h_k - u_k) . (W_k h_{k-1} + b_k)
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from scipy.special import gammainccinv

from physics_ep.blocks import State
from physics_ep.equilibrium import Equilibrium
from physics_ep.errors import InputError, argument_error, unknown_name
from physics_ep.predictive_coding import PredictiveCodingNetwork
from physics_ep.predictive_coding.activation import Activation
from physics_ep.predictive_coding.forward import GATES, ForwardPass
from physics_ep.predictive_coding.layers import Route
from physics_ep.system import Inputs

from .amplifiers import Amplifiers
from .crossbars import Cells, converted, copied, fluctuated, programmed, stream
from .devices import COMMON, IMPERFECTIONS, DeviceModel
from .node_sums import at_virtual_grounds, thermal_currents
from .wires import wired

if TYPE_CHECKING:
    from physics_ep.motion import Motion

    from .paired_flows import Values

SETTLED = 1e-6
"""Relative distance from the equilibrium that counts as settled in `Fidelity`."""

Loads = list[torch.Tensor | None]


class NotRealisable(InputError):  # noqa: N818 (a public name)
    """A substrate cannot hold a layer."""

    def __init__(self, substrate: str, layer: int, reason: str) -> None:
        self.substrate, self.layer, self.reason = substrate, layer, reason
        super().__init__(f"Layer {layer} cannot be realised on the substrate {substrate!r}: {reason}.")


class Arrays(NamedTuple):
    """What one layer's crossbars hold, as weights: (n_out, ...), skip weights, biases."""

    weight: torch.Tensor
    skip: torch.Tensor | None
    bias: torch.Tensor | None


class PairedCircuit(PredictiveCodingNetwork):
    """A network's paired units on a substrate: the mechanism, with ideal units. A substrate is a subclass.

    States are the currents into the units (p_1 ... p_L, q_1 ... q_L), (B, ...) each, in units of activity; outputs
    are what the last units answer to p_L, or p_L itself where that is read. Parameters have the network's names;
    they are the weights that the forward arrays of h hold. `circuit(x)` is the forward pass that these compute when
    nothing is fed back.

    Parameters
    ----------
    net : PredictiveCodingNetwork
        Of the activations that the substrate holds.
    device : DeviceModel
    seed : int
        Of the device instance.
    full_scales : sequence of float, optional
        Largest |activity| of the input and of each layer, L + 1: what noises, offsets and converter ranges are
        relative to. Default 1 each.
    gates : {'frozen', 'free'}
        Whether nudged phases hold the gates of ReLUs (by a latch); routes of max poolings are always held there.

    Attributes
    ----------
    substrate : str
        Name, of the class.
    holds : tuple of str
        Activations that its units can have.
    effects : frozenset of str
        Imperfections of `DeviceModel` that it has beyond those of the cells and their readings (`devices.COMMON`).
    exactness : str
        Of the construction with ideal devices: 'exact', or what bounds it.
    calibrated : bool
        Whether full scales were given.
    one_drive : bool
        Whether h and u are driven by one array, at equal loads.
    shared : bool
        Whether they have equal units too: then p = q = the forward pass at the free state.
    load_h, load_u : list of (Tensor (*shape) or None)
        Loads of the nodes of each layer; None: 1.
    reads : torch.Generator
        Of read noise and conductance noise.

    Raises
    ------
    NotRealisable
        With the layer and the reason.

    Notes
    -----
    The parameters are those of one device instance at one time: after an update map the network anew, or `write`
    the cells, since copies (for u, the transposed read) are no parameters.

    A subclass defines the five class attributes, and what it has of `check`, `build_units`, `find_loads`,
    `solvers`, `motion`, `settling_seconds`, `describe` and `power`.
    """

    substrate = "ideal"
    holds: tuple[str, ...] = ()
    effects: frozenset[str] = frozenset()
    exactness = "exact"
    default_max_iterations = 2000

    def __init__(
        self,
        net: PredictiveCodingNetwork,
        device: DeviceModel,
        seed: int,
        full_scales: Sequence[float] | None = None,
        gates: str = "frozen",
    ) -> None:
        self.check(net, device)
        super().__init__(copy.deepcopy(net.stack), "paired", gates)
        self.device_model = device
        self.seed = seed
        self.calibrated = full_scales is not None
        self.full_scales = (1.0,) * (self.depth + 1) if full_scales is None else tuple(full_scales)
        self.reads = stream(seed, "reads")
        self.scales: dict[str, float] = {}
        """Weight per siemens of each array."""
        self.one_array = device.copy_mismatch_h == 0 and device.copy_mismatch_u == 0
        self.load_h: Loads = [None] * self.depth
        self.load_u: Loads = self.load_h
        self._copies: dict[str, dict[str, torch.Tensor]] = {"u": {}, "transpose": {}}
        with torch.no_grad():
            largest = {name: float(p.abs().max()) for name, p in self.named_parameters()}
            for name, p in self.named_parameters():
                cells = programmed(p.detach(), device, seed, name, span=self.span(name, largest))
                self.scales[name] = cells.scale
                self._place(name, cells, p.detach())
            self.find_loads()
            self.amplifiers_h = [self.build_units(k, "h") for k in range(self.depth)]
            self.amplifiers_u = [self.build_units(k, "u") for k in range(self.depth)]
        self._follow()

    def _follow(self) -> None:
        """What depends on cells, units and loads: how the circuit is solved."""
        device = self.device_model
        # No two phases are one problem where something beside readings is drawn in each.
        self.noisy = device.conductance_noise > 0 or device.temperature > 0 or device.phase_noise > 0
        self.one_drive = self.one_array and self.load_h is self.load_u
        units = zip(self.amplifiers_h, self.amplifiers_u, strict=True)
        self.shared = self.one_drive and all(h is u or h.equals(u) for h, u in units)
        activations = zip(self.amplifiers_h, self.stack, strict=True)
        self._as_meant = all(a.ideal and a.activation is layer.activation for a, layer in activations)
        # Where stability is in question, the circuit's own course decides whether there is an equilibrium.
        in_time = "flow" if device.time_constant_mismatch != 0 else "euler"
        self.default_solver = "sweep" if self.shared and device.time_constant_mismatch == 0 else in_time
        self.smooth = not self.routed and all(a.smooth for a in self.amplifiers_h)

    # -- what a substrate defines ------------------------------------------------------------------------------

    @classmethod
    def check(cls, net: PredictiveCodingNetwork, device: DeviceModel) -> None:
        """Whether the substrate can hold the network, on such devices.

        Raises
        ------
        NotRealisable
        InputError
            If the device has an imperfection that the substrate does not know.
        """
        for k, layer in enumerate(net.stack[:-1], 1):  # the outputs are linear: read at their nodes
            if cls.holds and layer.activation_name not in cls.holds:
                reason = f"its units can be {', '.join(cls.holds)}, not {layer.activation_name}"
                raise NotRealisable(cls.substrate, k, reason)
        ideal = DeviceModel()
        for name in IMPERFECTIONS:
            if name not in COMMON and name not in cls.effects and getattr(device, name) != getattr(ideal, name):
                must = f"be left out on the substrate {cls.substrate!r}, which has {', '.join(sorted(cls.effects))}"
                raise argument_error(name, must if cls.effects else must.partition(",")[0], getattr(device, name))

    def build_units(self, k: int, which: str) -> Amplifiers:
        """Units of layer k that are 'h' or 'u'. What is None or the same in both is shared."""
        return Amplifiers(self.stack[k].activation)

    def find_loads(self) -> None:
        """Set `load_h` and `load_u` (one list where they are equal) from the cells; called after each writing."""

    def solvers(self, phase: Any) -> dict[str, Any]:
        """Solvers of a phase: 'sweep' to its fixed point, 'flow' in time, 'euler' in time for its end alone."""
        from .paired_solvers import Euler, Flow, Sweep

        return {"sweep": Sweep, "euler": Euler, "flow": Flow}

    def motion(self, phase: Any) -> Motion:
        """A phase in time, for `simulate`."""
        from .paired_solvers import CircuitMotion

        return CircuitMotion(phase)

    def noise_sizes(self, k: int, which: str, phase: Any) -> torch.Tensor | float:
        """Standard deviation, in units of activity, of a random current into units 'h' or 'u' of layer k, or 'both'
        alike: constant over a phase, drawn anew in each nudged one; 0: none. Here thermal noise."""
        return thermal_currents(self, k, which)

    def node_conductances(self, k: int, which: str) -> tuple[torch.Tensor | float, float]:
        """Conductances whose currents reach the nodes 'h' or 'u' of layer k, or 'both', in all, and the one that
        turns current into p (here the feedback resistor at a virtual ground), S."""
        return at_virtual_grounds(self, k, which)

    def fastest(self, phase: Any) -> float:
        """Largest rate in time of a phase's nodes, over that of an RC node."""
        return 1.0

    def values(self, k: int, which: str, phase: Any) -> Values:
        """How units of layer k move in time, where values move and not currents: for `paired_flows`."""
        raise NotImplementedError

    def rest_state(self, x: torch.Tensor) -> State:
        """Where the substrate is before a free phase: without currents."""
        return tuple(torch.zeros_like(s) for s in self.initial_state(x))

    def settling_seconds(self, free: Equilibrium, x: torch.Tensor) -> tuple[float, float]:
        """Seconds to 1e-6 of a free phase from nothing, and of a nudged one: here those of L and 2 L equal RC
        stages in a row, of gain one (`Mapped.settling` measures them)."""
        return tuple(  # type: ignore[return-value]
            self.device_model.time_constant * float(gammainccinv(n * self.depth, SETTLED)) for n in (1, 2)
        )

    def describe(self, free: Equilibrium, x: torch.Tensor) -> list[dict[str, Any]]:
        """For each layer, values of `LayerFidelity` fields beyond those that any array has."""
        return [{} for _ in range(self.depth)]

    @property
    def unit_power(self) -> float:
        """Static, W a unit h or u."""
        return self.device_model.amplifier_power

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
            By names of parameters: cells as they are, errors of writing included, of the array's scale.
        asked : mapping of str to Tensor, optional
            Weights that arrays are first written for, at any scale: leaks that are not trimmed are set for these.

        Raises
        ------
        InputError
            Of another scale or shape, or an unknown name.
        NotRealisable
            If the substrate cannot hold these, which are there then.
        """
        asked, parameters = asked or {}, dict(self.named_parameters())
        for name, part in cells.items():
            if name not in self.scales:
                raise unknown_name("array", name, self.scales)
            shape, scale = parameters[name].shape, part.scale if name in asked else self.scales[name]
            if part.scale != scale or part.plus.shape != shape:
                must = f"have the shape {list(shape)} and the scale {scale:g}"
                raise argument_error("cells", must, f"{list(part.plus.shape)} and {part.scale:g}")
        if any(name not in cells or w.shape != cells[name].plus.shape for name, w in asked.items()):
            raise argument_error("asked", "hold weights of arrays that are written, by name", ", ".join(asked))
        with torch.no_grad():
            for name, part in cells.items():
                self.scales[name] = part.scale
                self._place(name, part, asked.get(name))
            self.find_loads()
        self._follow()

    def _place(self, name: str, cells: Cells, asked: torch.Tensor | None = None) -> None:
        """Put what the devices make of a parameter in its place, and keep copies that differ; `asked` as `write`
        has it."""
        device = self.device_model
        p, cells = dict(self.named_parameters())[name], wired(cells, self.device_model)
        p.copy_(copied(cells, device.copy_mismatch_h, stream(self.seed, name, "h")).values)
        own = {
            "u": not self.one_array,
            "transpose": device.copy_mismatch_h > 0 or device.copy_mismatch_transpose > 0,
        }
        if name.endswith(".bias"):
            own["transpose"] = False
        for which, mismatch in (("u", device.copy_mismatch_u), ("transpose", device.copy_mismatch_transpose)):
            if own[which]:
                self._copies[which][name] = copied(cells, mismatch, stream(self.seed, name, which)).values

    def drawn(self, size: float, k: int, which: str, quantity: str) -> torch.Tensor:
        """Normal errors of standard deviation `size` of the units of layer k, (*shape): the instance's own."""
        generator = stream(self.seed, quantity, which, k)
        normal = torch.randn(self.stack[k].post, generator=generator, dtype=torch.float32, device="cpu")
        return (size * normal).to(self.device, self.dtype)

    def _apply(self, fn: Any, recurse: bool = True) -> PairedCircuit:
        super()._apply(fn, recurse)
        alike = self.load_h is self.load_u
        self.load_h = [None if load is None else fn(load) for load in self.load_h]
        self.load_u = self.load_h if alike else [None if load is None else fn(load) for load in self.load_u]
        self._copies = {c: {n: fn(t) for n, t in own.items()} for c, own in self._copies.items()}
        return self

    @property
    def read_both_ways(self) -> bool:
        """Whether the transposed read is that of the array that drives h."""
        return not self._copies["transpose"]

    def arrays(self, k: int, which: str) -> Arrays:
        """What the array of layer k holds that serves 'h', 'u' or the 'transpose'."""
        layer, own = self.stack[k], self._copies.get(which, {})
        parts = (("weight", layer.weight), ("skip_weight", layer.skip_weight), ("bias", layer.bias))
        return Arrays(*[None if p is None else own.get(f"layers.{k}.{n}", p.detach()) for n, p in parts])  # type: ignore[arg-type]

    @property
    def units(self) -> list[Activation]:
        """Activation of each layer."""
        return [a.activation for a in self.amplifiers_h]

    def fluctuated(self, k: int, arrays: Arrays, generator: torch.Generator) -> Arrays:
        """The arrays of layer k as they are in one phase, under conductance noise.

        Cells are those that an ideal writing of these weights takes. Separate copies have their own; loads stay.
        """
        device = self.device_model
        found = list(arrays)
        for n, (name, values) in enumerate(zip(("weight", "skip_weight", "bias"), arrays, strict=True)):
            scale = self.scales.get(f"layers.{k}.{name}", 0.0)
            if values is not None and scale > 0:
                plus, minus = (device.g_min + part.clamp(min=0) / scale for part in (values, -values))
                found[n] = fluctuated(Cells(plus, minus, scale), device.conductance_noise, generator).values
        return Arrays(*found)  # type: ignore[arg-type]

    # -- the forward pass, with feedback off -------------------------------------------------------------------

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Inputs as their converters drive them."""
        device = self.device_model
        span = None if device.dac_range is None else device.dac_range * self.full_scales[0]
        return converted(x, device.dac_bits, span)

    def drive(self, k: int, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, Route]:
        a, route = super().drive(k, *args, **kwargs)
        return loaded(a, self.load_h[k]), route

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
        weights = tuple(layer.weight for layer in self.stack)
        skips = tuple(layer.skip_weight for layer in self.stack)
        return ForwardPass(x, tuple(states), tuple(drives), tuple(routes), weights, skips)

    # -- the contract ------------------------------------------------------------------------------------------

    def energy(self, state: State, x: torch.Tensor) -> torch.Tensor:
        """Of the paired units with the arrays of h; without meaning where copies differ."""
        x = self.encode(x)
        total: torch.Tensor | float = 0.0
        activities = [a.response(p) for a, p in zip(self.amplifiers_h, state, strict=False)]
        for k in range(self.depth):
            a, _ = super().drive(k, x, activities)
            p, q = state[k], state[self.depth + k]
            u = self.amplifiers_u[k].response(q)
            upper, lower = self.amplifiers_h[k].potential(p), self.amplifiers_u[k].potential(q)
            for potential, load, sign in ((upper, self.load_h[k], 1), (lower, self.load_u[k], -1)):
                total = total + sign * (potential if load is None else potential / load).flatten(1).sum(1)
            total = total - ((activities[k] - u) * a).flatten(1).sum(1)
        assert isinstance(total, torch.Tensor)
        return total

    def outputs(self, state: State) -> torch.Tensor:
        return self.amplifiers_h[-1].response(state[self.depth - 1])

    def initial_state(self, x: torch.Tensor) -> State:
        """Where nothing is fed back: the free equilibrium, unless copies or amplifiers differ."""
        with torch.no_grad():
            drives = self.run(x).drives
        assert drives is not None
        return drives * 2

    def project(self, state: State) -> State:
        return state

    def free_variables(self, state: State, x: torch.Tensor) -> State | None:
        return None

    def prepare(self, x: torch.Tensor, gates: str | None = None) -> Inputs:
        self.check_input(x)
        return Inputs(x, self.run(x))

    def phase(
        self, inputs: Inputs, origin: State | None = None, balanced: bool = False, gates: str | None = None
    ) -> Any:
        from .paired_phases import CircuitPhase

        if gates is not None and gates not in GATES:
            raise unknown_name("gates", gates, GATES)
        return CircuitPhase(self, inputs, origin, balanced, gates or self.gates)

    def default_tolerance(self, dtype: torch.dtype) -> float:
        """1e-10 in float64, 1e-4 in float32; see `PredictiveCodingNetwork.default_tolerance`."""
        return 1e-10 if dtype == torch.float64 else 1e-4

    def check_input(self, x: torch.Tensor) -> None:
        if self.compute_dtype is not None:
            raise argument_error("compute_dtype", "be None for a circuit", self.compute_dtype)
        super().check_input(x)


def loaded(current: torch.Tensor, load: torch.Tensor | None) -> torch.Tensor:
    """A current into a node of this load, in units of activity."""
    return current if load is None else current * load
