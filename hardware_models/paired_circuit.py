"""A predictive coding network as a Hopfield circuit of paired units, with the imperfections of its devices.

Units h and u of layer k are amplifiers with internal voltages p and q, h = sigma(p), u = sigma(q), on RC nodes
whose currents come from crossbars (physics notes, sections 1 and 3a; Hopfield 1984):

    tau_h dp_k/dt = -p_k + W_k h_{k-1} + b_k + sum over the layers above of W^T (h - u)
    tau_u dq_k/dt = -q_k + W_k h_{k-1} + b_k                  output layer: -beta dC/dh_L in place of the last term

Each W is one array of conductance pairs at virtual grounds; its currents are mirrored to h and u, and it is read
the other way for W^T. With separate copies (copy mismatch) the three differ, and no energy is left. Voltages are
given in units of activity; `DeviceModel.voltage` is that of one full scale.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from physics_ep.equilibrium import State
from physics_ep.errors import argument_error, unknown_name
from physics_ep.predictive_coding import PredictiveCodingNetwork
from physics_ep.predictive_coding.activation import Activation
from physics_ep.predictive_coding.network import GATES, ForwardPass
from physics_ep.system import Inputs

from .amplifiers import Amplifiers
from .crossbars import Cells, converted, copied, fluctuated, programmed, stream
from .devices import DeviceModel


class Arrays(NamedTuple):
    """What one layer's crossbars hold, as weights: (n_out, ...), skip weights, biases."""

    weight: torch.Tensor
    skip: torch.Tensor | None
    bias: torch.Tensor | None


class PairedCircuit(PredictiveCodingNetwork):
    """A network's paired units, mapped to a Hopfield circuit.

    States are internal voltages (p_1 ... p_L, q_1 ... q_L), (B, ...) each, in units of activity; the output layer
    is read at its summing node, p_L. Parameters have the network's names; they are the weights that the forward
    arrays of h hold. `circuit(x)` is the forward pass that these compute when nothing is fed back.

    Parameters
    ----------
    net : PredictiveCodingNetwork
        Its activations must be monotone.
    device : DeviceModel
    seed : int
        Of the device instance.
    full_scales : sequence of float
        Largest |activity| of the input and of each layer, L + 1: what noises, offsets and converter ranges are
        relative to.
    gates : {'frozen', 'free'}
        Whether nudged phases hold the gates of ReLUs (by a latch); routes of max poolings are always held there.

    Attributes
    ----------
    one_drive : bool
        Whether h and u are driven by one array.
    shared : bool
        Whether they have equal amplifiers too: then p = q = the forward pass at the free state.
    reads : torch.Generator
        Of read noise and conductance noise.

    Notes
    -----
    The parameters are those of one device instance at one time: after an update map the network anew, since copies
    (for u, the transposed read) are no parameters.
    """

    default_max_iterations = 2000

    def __init__(
        self,
        net: PredictiveCodingNetwork,
        device: DeviceModel,
        seed: int,
        full_scales: Sequence[float],
        gates: str = "frozen",
    ) -> None:
        super().__init__(copy.deepcopy(net.stack), "paired", gates)
        self.device_model = device
        self.seed = seed
        self.full_scales = tuple(full_scales)
        self.reads = stream(seed, "reads")
        self.scales: dict[str, float] = {}
        """Weight per siemens of each array."""
        self.one_drive = device.copy_mismatch_h == 0 and device.copy_mismatch_u == 0
        self._copies: dict[str, dict[str, torch.Tensor]] = {"u": {}, "transpose": {}}
        with torch.no_grad():
            largest = {name: float(p.abs().max()) for name, p in self.named_parameters()}
            for name, p in self.named_parameters():
                self._program(name, p, largest)
        self.amplifiers_h = [self._amplifiers(k, "h") for k in range(self.depth)]
        self.amplifiers_u = [self._amplifiers(k, "u") for k in range(self.depth)]
        self._ideal_amplifiers = device.amplifier_gain == 0 and device.amplifier_offset == 0
        self.shared = self.one_drive and self._ideal_amplifiers
        # Where stability is in question, the circuit's own course decides whether there is an equilibrium.
        in_time = "flow" if device.time_constant_mismatch != 0 else "euler"
        self.default_solver = "sweep" if self.shared and device.time_constant_mismatch == 0 else in_time
        self.smooth = self.smooth and device.amplifier_saturation is None

    def _program(self, name: str, p: torch.Tensor, largest: dict[str, float]) -> None:
        """Put what the devices make of a parameter in its place, and keep copies that differ."""
        device, span = self.device_model, largest[name]
        if name.endswith(".bias"):
            # The bias row has the array's scale; it is driven at the full scale of the layer below, or above.
            layer = name.removesuffix(".bias")
            span = max(span, largest[f"{layer}.weight"] * self.full_scales[int(layer.split(".")[1])])
        cells = programmed(p.detach(), device, self.seed, name, span=span)
        self.scales[name] = cells.scale
        p.copy_(copied(cells, device.copy_mismatch_h, stream(self.seed, name, "h")).values)
        own = {
            "u": not self.one_drive,
            "transpose": device.copy_mismatch_h > 0 or device.copy_mismatch_transpose > 0,
        }
        if name.endswith(".bias"):
            own["transpose"] = False
        for which, mismatch in (("u", device.copy_mismatch_u), ("transpose", device.copy_mismatch_transpose)):
            if own[which]:
                self._copies[which][name] = copied(cells, mismatch, stream(self.seed, name, which)).values

    def _amplifiers(self, k: int, which: str) -> Amplifiers:
        device, layer = self.device_model, self.stack[k]
        full = self.full_scales[k + 1]
        if k == self.depth - 1:  # read at the summing node
            return Amplifiers(layer.activation)

        def drawn(size: float, quantity: str) -> torch.Tensor:
            generator = stream(self.seed, quantity, which, k)
            normal = torch.randn(layer.post, generator=generator, dtype=torch.float32, device="cpu")
            return (size * normal).to(self.device, self.dtype)

        gain, offset = device.amplifier_gain, device.amplifier_offset
        saturation = device.amplifier_saturation
        return Amplifiers(
            layer.activation,
            None if gain == 0 else 1 + drawn(gain, "gain"),
            None if offset == 0 else full * drawn(offset, "offset"),
            float("inf") if saturation is None else full * saturation,
        )

    def _apply(self, fn: Any, recurse: bool = True) -> PairedCircuit:
        super()._apply(fn, recurse)
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
        return [layer.activation for layer in self.stack]

    def fluctuated(self, k: int, arrays: Arrays, generator: torch.Generator) -> Arrays:
        """The arrays of layer k as they are in one phase, under conductance noise.

        Cells are those that an ideal writing of these weights takes. Separate copies have noise of their own.
        """
        device = self.device_model
        found: list[torch.Tensor | None] = []
        for name, values in zip(("weight", "skip_weight", "bias"), arrays, strict=True):
            scale = self.scales.get(f"layers.{k}.{name}", 0.0)
            if values is None or scale == 0:
                found.append(values)
                continue
            plus, minus = (device.g_min + part.clamp(min=0) / scale for part in (values, -values))
            found.append(fluctuated(Cells(plus, minus, scale), device.conductance_noise, generator).values)
        return Arrays(*found)  # type: ignore[arg-type]

    # -- the forward pass, with feedback off -------------------------------------------------------------------

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Inputs as their converters drive them."""
        device = self.device_model
        span = None if device.dac_range is None else device.dac_range * self.full_scales[0]
        return converted(x, device.dac_bits, span)

    def run(self, x: torch.Tensor, keep_drives: bool = True, keep_images: bool = False) -> ForwardPass:
        if self.device_model.dac_bits is not None:
            x = self.encode(x)
        if self._ideal_amplifiers and self.device_model.amplifier_saturation is None:
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
            a, _ = self.drive(k, x, activities)
            p, q = state[k], state[self.depth + k]
            u = self.amplifiers_u[k].response(q)
            part = self.amplifiers_h[k].potential(p) - self.amplifiers_u[k].potential(q) - (activities[k] - u) * a
            total = total + part.flatten(1).sum(1)
        assert isinstance(total, torch.Tensor)
        return total

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
