"""Deep resistive networks: layers of nodes joined by programmable conductances, rectified by diodes.

Volts, siemens, amperes. Layer k has nodes v_k, joined to amplified copies a_k v_{k-1} of the layer below (v_0 =
+-x, a_1 the input's gain) by conductances g_k >= 0, one a pair; to ground by diodes; and to current sources b_k.
An amplifier between layers is bidirectional (Kendall 2020): it also draws 1 / a_k of the current that it delivers.
By Kirchhoff's current law at node i of layer k,

    G v = sum_j g_k,ij a_k v_{k-1,j} + (1 / a_{k+1}) sum_i' g_{k+1,i'i} v_{k+1,i'} + b_k + diode,
    G   = sum_j g_k,ij + sum_i' g_{k+1,i'i},

which is the stationarity of the energy (a co-content, watts)

    E = sum_k c_k [ 1/2 sum_ij g_k,ij (v_k,i - a_k v_{k-1,j})^2 - b_k . v_k + diodes of layer k ],

c_k the product of a_m^2 over all m > k: each stage counts with the amplifiers downstream (Kendall 2020, section 2).
Without amplifiers c_k = 1. The energy is convex, so the operating point is unique; each layer has an exact update,
the others held, and layers of one parity do not touch (Scellier 2024, algorithm 1).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import numpy as np
import torch
from torch import nn

from physics_ep.blocks import State
from physics_ep.dynamics.motion import Motion
from physics_ep.errors import InputError, argument_error, is_real, require_seed, unknown_name
from physics_ep.overrides import require_physics
from physics_ep.placement import require_dense
from physics_ep.reads import likely
from physics_ep.system import Inputs, Phase
from physics_ep.units import UnitFunctions

from ..arrays import array, counts
from ..devices.model import DeviceModel
from ..devices.systems import Device
from ..laws.elements import THERMAL_VOLTAGE
from ..layers.few_outputs import paired, row_solvers
from ..layers.layered import LayeredSystem, Routes
from ..netlists.parts import GROUND, Group, Parts
from . import nodes
from .conductances import Conductances
from .phase import PreparedNodes, ResistiveMotion, ResistivePhase

if TYPE_CHECKING:
    from ..circuits.circuit import Circuit

DIODES = ("ideal", "shockley", "none")


class ResistiveNetwork(LayeredSystem):
    """Deep resistive network (Kendall 2020; Scellier 2024) trained by equilibrium propagation.

    States: node voltages, (B, n_k) volts. Inputs x are multiplied by `input_gain` and fed in as +x and -x, since
    conductances are not negative. Diodes hold the first half of each hidden layer above 0 V, the second half below;
    output nodes have none. Nudging strength: siemens, the conductance that ties an output node to its target (the
    squared error), or the transconductance of a source that feeds -dC/dv in. Voltages do not change when all
    conductances, current sources, saturation currents and nudges are multiplied by one factor: `scale` chooses it.
    With ideal diodes all voltages, targets and current sources may be multiplied by another one.

    Parameters
    ----------
    sizes : sequence of int
        [features, hidden ..., outputs].
    diode : {'ideal', 'shockley', 'none'}
        Diodes at the hidden nodes: perfect switches, real diodes with `saturation` and `emission`, or none.
    input_gain : float
        Volts per unit of x.
    amplification : float
        Voltage gain a of the bidirectional amplifiers between layers; 1: none.
    bias : bool
        Whether nodes have current sources.
    scale : float
        Conductances start uniform in (0, scale / sqrt(n)), n the number of nodes below: siemens. The default is
        that of cells of a crossbar: up to some 10 uS.
    density : float or sequence of float
        Share of the conductances behind hidden layers that start on, sqrt(1 / density) times larger; or a share for
        each layer, that of the inputs first. The mean of conductances, which cannot be negative, passes a common
        voltage forwards and a common error backwards; in deep networks it drowns what their differences pass,
        unless few start on.
    mirrored : bool
        Whether each hidden node held below 0 V starts as the mirror image of one held above: the same conductances,
        to the other half of the nodes below it, and so the opposite current. Little of a common voltage is passed
        then. (Both conduct, or neither: where layers are so small that all of one may be off, the next rests
        exactly on its diodes' kinks.)
    rest : float
        Voltage at which the outputs start by their current sources, volts: the mean of the targets, say.
    g_min, g_max : float
        What devices can be programmed to, siemens; `constrain` keeps to it, which EP calls before each gradient
        and `physics_ep.train` after each step of an optimizer.
    saturation, emission : float
        Saturation current and ideality of Shockley diodes: amperes, and dimensionless.
    capacitance : float
        Capacitance of each node, farad. Only `simulate` needs it; equilibria do not depend on it.
    seed : int
        Seed of the conductances.
    device : DeviceModel, mapping or str, optional
        Devices whose cells are the conductances, one cell each (`hardware_models.devices.systems`), or the name of
        a preset. One factor for the whole network, `device_scales`, stands between its siemens and the cells':
        voltages do not depend on it. A cell is never less than its g_min. Current sources are no cells. Default:
        conductances are what they are.
    device_seed : int
        Seed of the device instance.
    device_headroom : float
        What a cell at g_max is over the largest conductance that is written: room to learn.
    device_full_scales : sequence of float, optional
        Full scale of the readings of each layer, volts; default `input_gain`, the voltage of an input of 1.

    Raises
    ------
    InputError
        If an argument is not as above.

    Examples
    --------
    >>> import torch
    >>> from physics_ep import relax
    >>> system = ResistiveNetwork([4, 8, 2], input_gain=4.0)
    >>> free = relax(system, torch.rand(3, 4)).require()
    >>> bool((free.state[0][:, :4] >= 0).all()), bool((free.state[0][:, 4:] <= 0).all())
    (True, True)
    """

    residual_scale = 1.0  # set by the constructor
    nudge_scale = 1.0
    default_max_iterations = 500
    residual_unit = "A"
    state_unit = "V"
    energy_unit = "W"
    energy_meaning = (
        "the co-content, which voltages minimise: of linear resistors half the power that they take, less what "
        "sources give; no power that is drawn (physics-ep inference tells that)"
    )
    time_unit = "s"
    bounded = True
    clamps = True
    stages: tuple[float, ...]
    former_defaults: ClassVar[dict[str, float]] = {"scale": 1.0, "saturation": 1e-6}
    """Defaults of options that run files of earlier releases leave out."""

    def __init__(
        self,
        sizes: Sequence[int],
        diode: str = "ideal",
        *,
        input_gain: float = 1.0,
        amplification: float = 1.0,
        bias: bool = True,
        scale: float = 1e-4,
        density: float | Sequence[float] = 1.0,
        mirrored: bool = False,
        rest: float = 0.0,
        g_min: float = 0.0,
        g_max: float = math.inf,
        saturation: float = 1e-10,
        emission: float = 1.0,
        capacitance: float = 1e-12,
        seed: int = 0,
        device: Device = None,
        device_seed: int = 0,
        device_headroom: float = 1.0,
        device_full_scales: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if not counts(sizes) or len(sizes) < 2:
            raise argument_error("sizes", "be at least two positive integers [features, ..., outputs]", sizes)
        require_dense(sizes)
        if diode not in DIODES:
            raise unknown_name("diode", diode, DIODES)
        given = {
            "input_gain": input_gain,
            "amplification": amplification,
            "scale": scale,
            "saturation": saturation,
            "emission": emission,
            "capacitance": capacitance,
        }
        for name, value in given.items():
            if not (is_real(value) and value > 0):
                raise argument_error(name, "be a positive number", value)
        for name, value in {"rest": rest, "g_min": g_min, "g_max": g_max}.items():
            if not isinstance(value, int | float):
                raise argument_error(name, "be a number", value)
        shares = density if isinstance(density, Sequence) else [density] * (len(sizes) - 1)
        if len(shares) != len(sizes) - 1 or not all(is_real(d) and 0 < d <= 1 for d in shares):
            raise argument_error("density", f"lie in (0, 1], or be {len(sizes) - 1} such numbers", density)
        if shares is not density:
            shares = [1.0, *shares[1:]]
        if not math.isfinite(rest):
            raise argument_error("rest", "be finite", rest)
        if rest and not bias:
            raise argument_error("rest", "be 0 V without current sources (bias)", rest)
        if not 0 <= g_min < g_max:
            raise argument_error("g_min and g_max", "satisfy 0 <= g_min < g_max, in siemens", f"{g_min}, {g_max}")
        require_seed(seed)
        for name, value, free in (("g_min", g_min, 0.0), ("g_max", g_max, math.inf)):
            if device is not None and value != free:
                raise argument_error(
                    name, "be left out with a device, whose cells have a range of their own", value
                )
        self.sizes = tuple(sizes)
        self.example_shape = self.sizes[:1]
        self.shapes = tuple((n,) for n in sizes)
        self.diode, self.saturation, self.emission = diode, saturation, emission
        self.g_min, self.g_max = g_min, g_max
        self.capacitance = capacitance
        generator = torch.Generator().manual_seed(seed)
        pairs = list(itertools.pairwise([2 * sizes[0], *sizes[1:]]))
        self.gains = (float(input_gain), *[float(amplification)] * (len(pairs) - 1))
        self.layers = nn.ModuleList(
            Conductances(n_in, n_out, gain, scale, shares[k], bias, mirrored and k + 1 < len(pairs), generator)
            for k, ((n_in, n_out), gain) in enumerate(zip(pairs, self.gains, strict=True))
        )
        self.constrain()
        self.full_scale = float(input_gain)
        self._on(device, device_seed, device_headroom, device_full_scales)
        if rest:
            with torch.no_grad():
                self.couplings[-1].bias = nn.Parameter(rest * self.loads()[-1])
        for k, n in enumerate(sizes[1:-1], 1):
            sign = torch.where(torch.arange(n) < (n + 1) // 2, 1.0, -1.0)
            self._hold(k, sign.to(torch.get_default_dtype()))
        # c_k: amplifiers downstream of each layer.
        self.stages = tuple(math.prod(a * a for a in self.gains[k + 1 :]) for k in range(len(pairs)))
        self.smooth = diode != "ideal"
        bound = -math.inf if diode != "ideal" else 0.0
        self.bounds = [(bound, math.inf)] * (len(pairs) - 1) + [(-math.inf, math.inf)]
        self._measure_loads()
        # One hidden layer is loaded so little by the outputs that plain sweeps are as few as mixed ones.
        self.default_solver = "coordinate" if len(pairs) <= 2 else "anderson"

    def _measure_loads(self) -> None:
        """Set the scales of forces, nudges and time to those of the conductances that are there."""
        means = [float(load.detach().mean()) for load in self.loads()]
        # Amperes that move a node by a volt.
        self.residual_scale = mean = max(means)
        self.nudge_scale = means[-1]
        self.time_constant = self.capacitance / mean

    def program(self, device: DeviceModel | Mapping[str, Any] | str, seed: int = 0, **options: Any) -> Self:
        """Put the conductances on a device (`OnDevice.program`); scales of forces, nudges and time follow them."""
        super().program(device, seed, **options)
        self._measure_loads()
        return self

    def cell_signs(self) -> dict[str, bool]:
        return {f"layers.{k}.conductance": False for k in range(len(self.layers))}

    def cell_spans(self, largest: Mapping[str, float]) -> dict[str, float]:
        """Give all arrays the same span, the largest of `largest`, which maps each array's name to its largest
        conductance. The span is the value that a cell at g_max holds. One factor on all conductances leaves all
        voltages as they are, so that one span serves every array."""
        return dict.fromkeys(largest, max(largest.values()))

    @property
    def couplings(self) -> list[Conductances]:
        """The network's `layers`, with their type for checkers."""
        return cast(list[Conductances], [*self.layers._modules.values()])

    def cell_voltages(self, state: State, x: torch.Tensor) -> list[torch.Tensor]:
        """Voltage across each cell, a v_{k-1} - v_k, a tensor (B, n_k, nodes below) a layer, volts."""
        below, found = self.doubled(x), []
        for layer, v in zip(self.couplings, state, strict=True):
            found.append(layer.gain * below[:, None, :] - v[:, :, None])
            below = v
        return found

    def cell_power(self, state: State, x: torch.Tensor) -> torch.Tensor:
        """What the cells dissipate, the sum of g V^2 over all of them: (B,), watts.

        What amplifiers, current sources and drivers take themselves is not in it.
        """
        below, total = self.doubled(x), torch.zeros(len(x), dtype=self.dtype, device=self.device)
        with torch.no_grad():
            for layer, v in zip(self.couplings, state, strict=True):
                g, a = layer.conductance, layer.gain
                own, across = v.square() @ g.sum(1), (v * (below @ g.t())).sum(1)
                total = total + own - 2 * a * across + a * a * (below.square() @ g.sum(0))
                below = v
        return total

    def loads(self) -> tuple[torch.Tensor, ...]:
        """Total conductance G of each node, a tensor (n_k,) a layer, siemens."""
        layers = self.couplings
        totals = [layer.conductance.sum(1) for layer in layers]
        for k in range(1, len(layers)):
            totals[k - 1] = totals[k - 1] + layers[k].conductance.sum(0)
        return tuple(totals)

    def signs(self, k: int) -> torch.Tensor:
        """+1 for nodes of hidden layer k that diodes hold above 0 V, -1 for those below: (n_k,)."""
        return cast(torch.Tensor, getattr(self, f"signs_{k}"))

    def units_of(
        self, loads: Sequence[torch.Tensor], held: Sequence[tuple[torch.Tensor, torch.Tensor]] | None = None
    ) -> list[UnitFunctions]:
        """Nodes of each layer under their total conductances; `held`: `limits` of each, where they are known."""
        units = []
        for k, load in enumerate(loads[:-1], 1):
            if self.diode == "ideal":
                units.append(nodes.ideal(load, *(held[k - 1] if held else self.limits(k))))
            elif self.diode == "shockley":
                thermal = self.emission * THERMAL_VOLTAGE
                units.append(nodes.shockley(load, self.signs(k), self.saturation, thermal))
            else:
                units.append(nodes.plain(load))
        return [*units, nodes.plain(loads[-1])]

    def doubled(self, x: torch.Tensor) -> torch.Tensor:
        """(x, -x), (B, 2 features): what the input's amplifiers are given."""
        return torch.cat([x, -x], 1)

    def _driven(self, x: torch.Tensor) -> torch.Tensor:
        """What the input sends into the first layer at 0 V, (B, n_1), amperes.

        The two halves of its amplifiers stand at opposite voltages, x and -x: one product of x with the differences
        of their conductances, half the multiplications of a product with (x, -x).
        """
        first = self.couplings[0]
        plus, minus = first.conductance.chunk(2, 1)
        current = x @ (plus - minus).t()
        return current if first.gain == 1 else first.gain * current

    # -- the contract -----------------------------------------------------------------------------------------

    def energy(self, state: State, x: torch.Tensor) -> torch.Tensor:
        """Co-content, (B,), watts, each stage times the square of the amplifiers' gains downstream."""
        loads = self.loads()
        units = self.units_of(loads)
        first = self.couplings[0]
        below = self.doubled(x)
        # What the resistors at the input take whatever the nodes do.
        total = 0.5 * self.stages[0] * first.gain**2 * (below.square() @ first.conductance.sum(0))
        for layer, unit, c, v in zip(self.couplings, units, self.stages, state, strict=True):
            total = total + c * (unit.potential(v) - v * layer.drive(below)[0]).sum(1)
            below = v
        return total

    def force(self, state: State, x: torch.Tensor) -> State:
        """-dE/dv of each layer: the current that is missing at each node, amperes, times its stage's c_k."""
        units = self.units_of(self.loads())
        drives, _ = self.routed_drives(state, self.couplings[0].drive(self.doubled(x))[0])
        return tuple(
            c * (current - unit.inverse(v))
            for c, current, unit, v in zip(self.stages, drives, units, state, strict=True)
        )

    def initial_state(self, x: torch.Tensor) -> State:
        return tuple(torch.zeros(x.shape[0], n, dtype=self.dtype, device=self.device) for n in self.sizes[1:])

    def outputs(self, state: State) -> torch.Tensor:
        return state[-1]

    def project(self, state: State) -> State:
        if self.diode != "ideal":
            return state
        limits = [self.limits(k) for k in range(1, len(state))]
        return (*(v.clamp(lo, hi) for v, (lo, hi) in zip(state[:-1], limits, strict=True)), state[-1])

    def limits(self, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Least and greatest voltage that ideal diodes leave to the nodes of hidden layer k, (n_k,) volts."""
        return cast(torch.Tensor, getattr(self, f"low_{k}")), cast(torch.Tensor, getattr(self, f"high_{k}"))

    def _hold(self, k: int, sign: torch.Tensor) -> None:
        """Keep what the ideal diodes of hidden layer k do: `signs`, and their `limits`, which a phase asks for."""
        infinity, zero = torch.full_like(sign, math.inf), torch.zeros_like(sign)
        self.register_buffer(f"signs_{k}", sign, persistent=False)
        self.register_buffer(f"low_{k}", torch.where(sign > 0, zero, -infinity), persistent=False)
        self.register_buffer(f"high_{k}", torch.where(sign > 0, infinity, zero), persistent=False)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for k in range(1, len(self.sizes) - 1):  # networks that were pickled before have no limits
            self._hold(k, self.signs(k))

    def free_variables(self, state: State, x: torch.Tensor) -> State | None:
        prepared: PreparedNodes = self.prepare(x).cache
        drives, _ = self.routed_drives(state, prepared.current)
        return tuple(unit.slope(p) > 0 for p, unit in zip(drives, prepared.units, strict=True))

    def curvature_diagonal(self, state: State, x: torch.Tensor) -> State | None:
        units = self.units_of([load.detach() for load in self.loads()])
        return tuple(c * unit.curvature(v) for c, unit, v in zip(self.stages, units, state, strict=True))

    def prepare(self, x: torch.Tensor) -> Inputs:
        self.check_input(x)
        first = self.couplings[0]
        current = self._driven(x)
        loads = self.loads()
        if not likely(~(torch.cat(loads) < 0).any()):
            k, load = next((k, load) for k, load in enumerate(loads, 1) if bool((load < 0).any()))
            raise InputError(
                f"Conductances at a node of layer {k} must not sum to less than 0, but did to "
                f"{float(load.detach().min()):.3g} S: call constrain() after each step of an optimizer."
            )
        held = [self.limits(k) for k in range(1, len(loads))] if self.diode == "ideal" else []
        return Inputs(
            x,
            PreparedNodes(
                current if first.bias is None else current + first.bias,
                loads,
                self.units_of(loads, held),
                self.diode,
                held,
                self.capacitance,
            ),
        )

    def phase(self, inputs: Inputs, origin: State | None = None, balanced: bool = False) -> ResistivePhase:
        return ResistivePhase(self, inputs, origin, balanced)

    def solvers(self, phase: Phase) -> Mapping[str, Callable[[Any, State], Any]] | None:
        known = isinstance(phase, ResistivePhase) and type(phase).update is ResistivePhase.update
        return row_solvers(phase) if known else None

    def motion(self, phase: Phase) -> Motion:
        assert isinstance(phase, ResistivePhase)
        return ResistiveMotion(phase)

    def contrast(
        self, free: State, plus: State, minus: State | None, x: torch.Tensor, weight: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The contrast of `EnergySystem.contrast`, by products of differences and means of voltages.

        dE/dg = c (v - a v')^2 / 2, so that with e the difference and m the mean of two states its contrast is
        c (e - a e') (m - a m'), summed over the batch: matrix products, and sums over the nodes' own e m.
        """
        grads = {}
        below: tuple[torch.Tensor, ...] = ()
        with torch.no_grad():
            for k, (layer, c) in enumerate(zip(self.couplings, self.stages, strict=True)):
                found = paired(free[k], plus[k], None if minus is None else minus[k], weight)
                if found is None:
                    if minus is None:
                        moved, m = plus[k], torch.add(free[k], plus[k], alpha=0.5)
                    else:
                        moved, m = plus[k] - minus[k], plus[k] + minus[k]
                        torch.add(free[k], m, alpha=0.5, out=m)
                    e = weight[:, None] * moved
                    found = e, m, (e * m).sum(0), e.sum(0)
                e, m, products, total = found
                a, g, bias = layer.gain, layer.conductance, layer.bias
                if g.requires_grad:
                    # c [e m 1 - a e m' - a m e' + a^2 1 e' m'].
                    own = (c * products)[:, None]
                    if k == 0:
                        # The input does not move, and the two halves of its amplifiers stand at x and -x.
                        across = torch.empty_like(g)
                        first, second = across.chunk(2, 1)
                        torch.addmm(first, e.t(), x, beta=0, alpha=-a * c, out=first)
                        torch.sub(own, first, out=second)
                        first += own
                    else:
                        across = torch.add(own, below[2], alpha=a * a * c)
                        across.addmm_(e.t(), below[1], alpha=-a * c)
                        across.addmm_(m.t(), below[0], alpha=-a * c)
                    grads[f"layers.{k}.conductance"] = across
                if bias is not None and bias.requires_grad:
                    grads[f"layers.{k}.bias"] = -c * total
                below = found
        return grads

    def constrain(self) -> None:
        """Clip conductances to what the devices can be programmed to."""
        with torch.no_grad():
            for layer in self.couplings:
                layer.conductance.clamp_(self.g_min, self.g_max)
        super().constrain()

    # -- helpers ----------------------------------------------------------------------------------------------

    def to_circuit(self) -> Circuit:
        """The same network as a `Circuit`, part by part, float64, on the CPU: see `circuit_inputs`, `as_parts`."""
        from ..circuits.circuit import Circuit

        require_physics(self, ResistiveNetwork, "network")
        return Circuit(as_parts(self), outputs=[f"y{i}" for i in range(1, self.sizes[-1] + 1)])

    def circuit_inputs(self, x: torch.Tensor) -> torch.Tensor:
        """Voltages (B, 2 features) of the sources of `to_circuit()` for the input x: volts, float64, on the CPU."""
        return self.gains[0] * self.doubled(x.double()).cpu()

    def routed_drives(self, state: State, clamped: torch.Tensor) -> tuple[State, Routes]:
        """Currents that neighbours would send into each node at 0 V, amperes; and no routes."""
        layers = self.couplings
        drives = [clamped, *(layer.drive(v)[0] for layer, v in zip(layers[1:], state[:-1], strict=True))]
        for k in range(len(state) - 1):
            drives[k] = layers[k + 1].transpose(state[k + 1], None, drives[k])
        return tuple(drives), [None] * len(drives)


# -- the network as a list of parts --------------------------------------------------------------------------------


def as_parts(network: ResistiveNetwork) -> Parts:
    """Sources of +-x at 0 V, conductances, diodes, amplifiers and current sources of a network.

    Nodes: `xp1 ... xn1 ...` of the input, +x before -x; `h1_1 ...` of hidden layer 1, `a1_1 ...` behind its
    amplifiers where it has any; `y1 ...` of the outputs. Devices off (conductances of 0) are left out.

    Returns
    -------
    Parts
    """
    features, *hidden, outputs = network.sizes
    names = [f"{sign}{i}" for sign in ("xp", "xn") for i in range(1, features + 1)]
    below = np.arange(1, 2 * features + 1)
    groups = {
        "voltage_source": Group(tuple(f"V{name}" for name in names), _pairs(below, 0), np.zeros((2 * features, 1)))
    }
    node_names = [GROUND, *names]
    resistors: list[tuple[list[str], np.ndarray, np.ndarray]] = []
    diodes: list[tuple[list[str], np.ndarray]] = []
    sources: list[tuple[list[str], np.ndarray, np.ndarray]] = []
    amplifiers: list[tuple[list[str], np.ndarray]] = []
    for k, (layer, n) in enumerate(zip(network.couplings, (*hidden, outputs), strict=True), 1):
        last = k == len(network.couplings)
        prefix = "y" if last else f"h{k}_"
        here = len(node_names) + np.arange(n)
        node_names += [f"{prefix}{i}" for i in range(1, n + 1)]
        g = array(layer.conductance.double().cpu())
        above, under = np.nonzero(g)
        ends = np.stack([here[above], below[under]], 1)
        resistors.append(
            ([f"R{k}_{i + 1}_{j + 1}" for i, j in zip(above, under, strict=True)], ends, g[above, under])
        )
        if layer.bias is not None:
            names = [f"I{prefix}{i}" for i in range(1, n + 1)]
            sources.append((names, _pairs(np.zeros(n, np.int64), here), array(layer.bias.double().cpu())))
        if not last and network.diode != "none":
            up = array(network.signs(k).cpu()) > 0
            ground = np.zeros(n, np.int64)
            ends = np.where(up[:, None], _pairs(ground, here), _pairs(here, ground))
            diodes.append(([f"D{prefix}{i}" for i in range(1, n + 1)], ends))
        below = here
        if not last and network.gains[k] != 1:
            below = len(node_names) + np.arange(n)
            node_names += [f"a{k}_{i}" for i in range(1, n + 1)]
            amplifiers.append(([f"X{k}_{i}" for i in range(1, n + 1)], _pairs(here, below)))
    groups["resistor"] = _joined(resistors)
    if diodes:
        kind = "ideal_diode" if network.diode == "ideal" else "diode"
        values = () if network.diode == "ideal" else (network.saturation, network.emission)
        groups[kind] = _joined([(names, ends, np.tile(values, (len(names), 1))) for names, ends in diodes])
    if amplifiers:
        gain = network.gains[1]
        groups["amplifier"] = _joined([(names, ends, np.full(len(names), gain)) for names, ends in amplifiers])
    if sources:
        groups["current_source"] = _joined(sources)
    return Parts(tuple(node_names), groups)


def _pairs(first: np.ndarray, second: np.ndarray | int) -> np.ndarray:
    return np.stack(np.broadcast_arrays(first, second), 1).astype(np.int64)


def _joined(rows: list[tuple[list[str], np.ndarray, np.ndarray]]) -> Group:
    names = tuple(name for some, _, _ in rows for name in some)
    values = np.concatenate([v for _, _, v in rows]).astype(np.float64)
    return Group(names, np.concatenate([ends for _, ends, _ in rows]), values.reshape(len(names), -1))
