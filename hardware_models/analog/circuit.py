"""The analog circuit of Hopfield 1984, in volts, amperes, siemens, farads and seconds.

Node i is the input of an amplifier, at u_i volts on a capacitor C_i. The amplifier's outputs are +-V_i, with V_i =
V_s sigma(A_i u_i / V_s) and gain A_i (where sigma has slope 1). A resistor that leads here from V_j, or from -V_j,
is a conductance T_ij > 0, or < 0: a pair T = G+ - G- of which one is off (Hopfield 1984, eq. 5):

    C_i du_i/dt = sum_j T_ij V_j - u_i / R_i + I_i,     1 / R_i = 1 / rho_i + sum_j |T_ij|,

R_i the total resistance at node i and rho_i what is left of it for the leak. With T_ij = T_ji, the energy (eq. 6)

    E = -sum_edges T_ij V_i V_j + sum_i (1 / R_i) int_0^V_i g_i^-1(V) dV - sum_i I_i V_i     [V^2 / ohm = watt]

has -dE/dV_i = C_i du_i/dt, in amperes, and falls: dE/dt = -sum_i C_i (du_i/dt)^2 dV_i/du_i. E is a power (a
co-content, whose slope is a current), but no element draws it: see `hardware_models.analog.power` for those.

A network without units, drive p = sum_j w_ij s_j + b_i and state s = sigma(p), is this circuit with s = V / V_s,
p = A u / V_s, T = w / (A R), I = b V_s / (A R): then E = V_s^2 / (A R) times its energy, and time counts in R C.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from physics_ep.blocks import State, largest
from physics_ep.dynamics.motion import Moment, Motion
from physics_ep.errors import argument_error
from physics_ep.keywords import answering
from physics_ep.nudging import Nudge
from physics_ep.system import Inputs, Phase

from ..arrays import array, columns, numbers
from ..hopfield import graph_kernels as kernels
from ..hopfield.graph import UnitGraph, UnitGraphPhase
from ..hopfield.network import HopfieldNetwork
from . import steps as transients

OHM, FARAD, VOLT = 1e5, 1e-13, 1.0
"""Default parts, of an integrated circuit: R C = 10 ns."""
NEAR_BOUND = 1e-9
"""Outputs this near to the supply, as a share of it, do not tell their amplifier's input."""


class AnalogHopfieldCircuit(UnitGraph):
    """Hopfield's circuit of 1984 on any graph; build one with `from_network` or `from_edges`.

    State: outputs V of the amplifiers, volts. Inputs and targets: volts. Energy: watts. Force: amperes. Nudging
    strength: siemens, the transconductance of an amplifier that feeds beta (y - V) into an output node. float64, on
    the CPU, as `UnitGraph`.

    Parameters of the module: `weight` (m,), the conductance T of each edge, siemens; `bias` (n_free,), the current
    I into each node, amperes.

    Attributes
    ----------
    resistance, capacitance, gain : Tensor (n_free,)
        R_i, ohm (the total resistance, as above); C_i, farad; A_i.
    supply : float
        V_s, volts.

    Notes
    -----
    The residual is the current that is missing at a node, as far as its amplifier passes it on: amperes, weighted
    by sigma' (1 for a unit in its linear range, 0 in saturation). Transients know the current itself.
    """

    fast_methods_hold = True  # the graph's learning rule, in the units of the circuit
    residual_unit = "A"
    state_unit = "V"
    energy_unit = "W"
    energy_meaning = (
        "the co-content, which voltages minimise: of linear resistors half the power that they take, less what "
        "sources give; no power that is drawn (physics-ep inference tells that)"
    )
    time_unit = "s"
    clamps = False

    def __init__(
        self,
        edges: np.ndarray,
        weights: np.ndarray,
        biases: np.ndarray,
        *,
        units: Sequence[str],
        couplings: Sequence[str],
        inputs: np.ndarray,
        outputs: np.ndarray,
        resistance: Any = OHM,
        capacitance: Any = FARAD,
        supply: float = VOLT,
        gain: Any = 10.0,
    ) -> None:
        super().__init__(edges, weights, biases, units=units, couplings=couplings, inputs=inputs, outputs=outputs)
        n_free = len(self.units)
        self.resistance = positive("resistance", resistance, n_free)
        self.capacitance = positive("capacitance", capacitance, n_free)
        self.gain = positive("gain", gain, n_free)
        self.supply = float(positive("supply", supply, 1))
        self.state_size = self.supply
        self.low, self.high = self.supply * self.low, self.supply * self.high
        self.unit_conductance = 1 / (self.gain * self.resistance)
        self.nudge_scale = float(self.unit_conductance.max())
        self.residual_scale = self.supply * self.nudge_scale
        self.time_constant = float((self.resistance * self.capacitance).min())
        share = self.resistance * self.fan_in()
        if bool((share > 1 + 1e-9).any()):
            raise argument_error(
                "resistance",
                "be at most what the node's resistors have in parallel, 1 / sum |T| (more gain allows larger ones)",
                f"{float(share.max()):.3g} times that",
            )

    @classmethod
    def from_edges(
        cls,
        n_nodes: int,
        edges: Any,
        weights: Any,
        units: str | Sequence[str] = "tanh",
        *,
        inputs: Sequence[int] = (),
        outputs: Sequence[int] = (),
        biases: Any = None,
        couplings: str | Sequence[str] = "hopfield",
        resistance: Any = OHM,
        capacitance: Any = FARAD,
        supply: float = VOLT,
        gain: Any = 10.0,
    ) -> AnalogHopfieldCircuit:
        """UnitGraph from a list of edges, as `UnitGraph.from_edges`, in SI units.

        Parameters
        ----------
        n_nodes, edges, units, inputs, outputs, couplings
            The arguments of `UnitGraph.from_edges` of the same names.
        weights : array_like of float (m,)
            Conductances T, siemens; negative ones lead from the inverting output.
        biases : array_like of float (n_free,), optional
            Currents into the free nodes, amperes. Default 0.
        resistance, capacitance, gain : float or array_like (n_free,)
            Ohm, the total at a node; farad; dV/du where sigma' = 1. All positive.
        supply : float
            V_s, volts.

        Returns
        -------
        AnalogHopfieldCircuit

        Raises
        ------
        InputError
            If an argument is not as above, or a node's conductances |T| sum to more than 1 / R.
        """
        plain = UnitGraph.from_edges(
            n_nodes, edges, weights, units, inputs=inputs, outputs=outputs, biases=biases, couplings=couplings
        )
        return cls._like(
            plain,
            array(plain.weight),
            array(plain.bias),
            resistance=resistance,
            capacitance=capacitance,
            supply=supply,
            gain=gain,
        )

    @classmethod
    def from_network(
        cls,
        network: HopfieldNetwork | UnitGraph,
        *,
        resistance: float = OHM,
        capacitance: Any = FARAD,
        supply: float = VOLT,
        gain: float | None = None,
    ) -> AnalogHopfieldCircuit:
        """The circuit that is a network without units: states V = V_s s, time R C.

        Parameters
        ----------
        network : HopfieldNetwork or UnitGraph
            Its nodes keep their order (`HopfieldNetwork.to_circuit`). Inputs x become V_s x volts.
        resistance : float
            R, ohm, the total at each node.
        capacitance : float or array_like (n_free,)
            C, farad; equilibria do not depend on it.
        supply : float
            V_s, volts.
        gain : float, optional
            A of all amplifiers; at least the largest sum of |w| at a node. Default twice that, so that weights may
            grow in training.

        Returns
        -------
        AnalogHopfieldCircuit

        Raises
        ------
        InputError
            If an argument is not as above.
        """
        if isinstance(network, AnalogHopfieldCircuit) or not isinstance(network, UnitGraph | HopfieldNetwork):
            raise argument_error(
                "network", "be a HopfieldNetwork or a UnitGraph without units", type(network).__name__
            )
        plain = network if isinstance(network, UnitGraph) else network.to_circuit()
        ohm, volt = float(positive("resistance", resistance, 1)), float(positive("supply", supply, 1))
        least = float(_row_sums(plain).max())
        if gain is None:
            gain = max(2 * least, 1.0)
        amplification = float(positive("gain", gain, 1))
        if amplification < least:
            raise argument_error(
                "gain", f"be at least {least:.4g}, the largest sum of |w| at a node of this network", gain
            )
        siemens = 1 / (amplification * ohm)
        return cls._like(
            plain,
            siemens * array(plain.weight),
            siemens * volt * array(plain.bias),
            resistance=ohm,
            capacitance=capacitance,
            supply=volt,
            gain=amplification,
        )

    @classmethod
    def _like(
        cls, plain: UnitGraph, weights: np.ndarray, biases: np.ndarray, **parts: Any
    ) -> AnalogHopfieldCircuit:
        """The graph of `plain` with these conductances, currents and parts."""
        if set(plain.couplings) - {"hopfield"}:
            raise argument_error("couplings", "be 'hopfield' in an analog Hopfield circuit", set(plain.couplings))
        node = np.concatenate([plain.free, plain.inputs])
        return cls(
            node[plain.graph.ends],
            weights,
            biases,
            units=plain.units,
            couplings=plain.couplings,
            inputs=plain.inputs,
            outputs=plain.output_nodes,
            **parts,
        )

    # -- the contract -----------------------------------------------------------------------------------------

    def energy(self, state: State, x: torch.Tensor) -> torch.Tensor:
        """Energy E of the circuit for each example, (B,), watts."""
        (v,) = state
        values = torch.cat([v, x], 1)
        ends = torch.from_numpy(self.graph.ends)
        pairs = (values[:, ends[:, 0]] * values[:, ends[:, 1]]) @ self.weight
        return self.leak_content(v) - pairs - v @ self.bias

    def leak_content(self, v: torch.Tensor) -> torch.Tensor:
        """Sum of (1 / R) int g^-1 dV over the nodes at outputs v (B, n_free): (B,), watts."""
        return self._by_unit("potential", v / self.supply) @ (self.supply**2 * self.unit_conductance)

    def force(self, state: State, x: torch.Tensor) -> State:
        """Current that charges the capacitor of each node, (B, n_free) amperes: infinite at V = V_s."""
        return (self.drives(state, x) - self.inputs_at(state[0].detach()) / self.resistance,)

    def respond(self, drive: torch.Tensor) -> torch.Tensor:
        """Outputs (B, n_free), volts, of amplifiers whose inputs rest under these currents: u = R I."""
        return self.amplified(self.resistance * drive)

    def amplified(self, u: torch.Tensor) -> torch.Tensor:
        """Outputs V = V_s sigma(A u / V_s) at the amplifiers' inputs u, (B, n_free), volts."""
        return self.supply * self._by_unit("response", u * (self.gain / self.supply))

    def inputs_at(self, v: torch.Tensor) -> torch.Tensor:
        """Amplifiers' inputs u at outputs v, (B, n_free), volts; infinite where a smooth one is saturated."""
        return (self.supply / self.gain) * self._by_unit("inverse", v / self.supply)

    def free_variables(self, state: State, x: torch.Tensor) -> State | None:
        held = torch.tensor([name == "hard_sigmoid" for name in self.units])
        if not bool(held.any()):
            return None
        linear = self.drives(state, x) / self.unit_conductance
        return (~held | ((linear > self.low) & (linear < self.high)),)

    def phase(self, inputs: Inputs, origin: State | None = None, balanced: bool = False) -> Phase:
        return AnalogPhase(self, inputs, origin, balanced)

    def flows(self, phase: Phase) -> dict[str, Callable[[Phase], Motion]]:
        """None, since these circuits move by equations of their own."""
        return {}

    def motion(self, phase: Phase) -> Motion:
        assert isinstance(phase, AnalogPhase)
        return AnalogMotion(phase, phase.nudge)

    def constrain(self) -> None:
        """Scale conductances down where a node's sum |T| exceeds 1 / R, so that no leak is negative."""
        with torch.no_grad():
            excess = (self.resistance * self.fan_in()).clamp(min=1)
            share = torch.cat([1 / excess, torch.ones(len(self.inputs), dtype=torch.float64)])
            ends = torch.from_numpy(self.graph.ends)
            self.weight.mul_(torch.minimum(share[ends[:, 0]], share[ends[:, 1]]))

    # -- elements ---------------------------------------------------------------------------------------------

    def fan_in(self) -> torch.Tensor:
        """Sum of |T| at the input of each amplifier, (n_free,) siemens."""
        return _row_sums(self)

    @property
    def leak(self) -> torch.Tensor:
        """1 / rho of each node, (n_free,) siemens: what its resistors leave of 1 / R."""
        return 1 / self.resistance - self.fan_in()


@answering
def analog_hopfield(
    sizes: Sequence[int],
    activation: str = "hard_sigmoid",
    *,
    output_activation: str = "linear",
    weight_gain: float = 0.5,
    seed: int = 0,
    resistance: float = OHM,
    capacitance: float = FARAD,
    supply: float = VOLT,
    gain: float | None = None,
) -> AnalogHopfieldCircuit:
    """A layered analog circuit: `AnalogHopfieldCircuit.from_network` of a fresh `HopfieldNetwork`.

    Parameters
    ----------
    sizes, activation, output_activation, seed
        The arguments of `HopfieldNetwork` of the same names.
    weight_gain : float
        The network's `gain`: couplings w start uniform in +-weight_gain / sqrt(n_in).
    resistance, capacitance, supply, gain : float
        Resistance (ohm), capacitance (farad), supply (volts) and gain of the amplifiers, as in
        `AnalogHopfieldCircuit.from_network`.

    Returns
    -------
    AnalogHopfieldCircuit

    Raises
    ------
    InputError
        If an argument is not as above.
    """
    network = HopfieldNetwork(sizes, activation, output_activation=output_activation, gain=weight_gain, seed=seed)
    return AnalogHopfieldCircuit.from_network(
        network, resistance=resistance, capacitance=capacitance, supply=supply, gain=gain
    )


def positive(name: str, given: Any, count: int) -> torch.Tensor:
    """Check a positive finite number, or one for each of `count` elements, and return them as float64 (count,)."""
    scalar = np.ndim(given) == 0
    found = numbers(name, [given] * count if scalar else given, count)
    bad = np.flatnonzero(found <= 0)
    if bad.size:
        raise argument_error(name, "be positive", f"{found[bad[0]]:g}" + ("" if scalar else f" at index {bad[0]}"))
    return torch.from_numpy(found)


def _row_sums(circuit: UnitGraph) -> torch.Tensor:
    """Sum of |weight| over the edges of each free node, (n_free,)."""
    ends = torch.from_numpy(circuit.graph.ends)
    sums = torch.zeros(len(circuit.units) + len(circuit.inputs), dtype=torch.float64)
    size = circuit.weight.detach().double().abs()
    return sums.index_add(0, ends[:, 0], size).index_add(0, ends[:, 1], size)[: len(circuit.units)]


# -- phases and motion ------------------------------------------------------------------------------------------


class AnalogPhase(UnitGraphPhase):
    """Sweeps in V / V_s, with conductances over the circuit's unit 1 / (A R): the kernels know no units."""

    system: AnalogHopfieldCircuit

    def __init__(self, system: AnalogHopfieldCircuit, inputs: Inputs, origin: State | None, balanced: bool) -> None:
        Phase.__init__(self, system, inputs, origin, balanced)
        unit, volt = system.nudge_scale, system.supply
        self._clamped = columns(inputs.x / volt)
        self._weight, self._bias = array(system.weight / unit), array(system.bias / (unit * volt))
        # A node's own 1 / (A R) over the unit; the nudge adds to it.
        self._load = (system.unit_conductance / unit)[:, None].expand(-1, len(inputs.x))
        self._pull = self._pulling(torch.zeros_like(self._load), self._load)
        self._bound = None
        if self.origin is not None:
            drive = system.drives(self.origin, inputs.x)
            settled = system.respond(drive)
            self._settled = settled if balanced else self.origin[0]
            self._anchor = drive / (system.unit_conductance * volt)
            mismatch = (settled - self.origin[0]) / volt
            self._origin = (
                columns(torch.cat([self.origin[0], inputs.x], 1) / volt),
                columns(self._anchor),
                columns(torch.zeros_like(drive) if balanced else mismatch),
            )

    def energy(self, z: State) -> torch.Tensor:
        return Phase.energy(self, z)

    def _swept(self, z: State) -> tuple[torch.Tensor, torch.Tensor]:
        graph, volt = self.system.graph, self.system.supply
        start, pull = array(z[0] / volt), self._pull_at(z)
        width = kernels.chunk_width(len(start))
        if self.origin is None:
            swept = kernels.sweep(start, self._clamped, self._weight, self._bias, graph, pull, width)
        else:
            swept = kernels.displaced_sweep(start, *self._origin, self._weight, graph, pull, width)
        # Amperes that would close the gap: what is missing at a node, as far as its amplifier passes it on.
        current = volt * torch.from_numpy(swept[1]) * (self.system.nudge_scale / torch.from_numpy(pull.ease).t())
        return volt * torch.from_numpy(swept[0]), current

    def _pulled(self, nudge: Nudge) -> kernels.Pull:
        at, system = self.system.output_columns, self.system
        linear = nudge.linear(self.dtype)
        assert linear is not None
        shunt, push = linear
        stiffness, target = shunt / system.nudge_scale, push / (system.nudge_scale * system.supply)
        load = self._load.clone()
        load[at] += stiffness.t()
        if bool((load <= 0).any()):
            least = -float(system.unit_conductance[at].min())
            raise argument_error(
                "beta", f"exceed {least:.3g} S, where an output amplifier loses its minimum", nudge.beta
            )
        pull = torch.zeros_like(load)
        # (p + dp + beta y) / (k + beta) = a + (dp + beta (y - a)) / (k + beta) with a = p / k
        pull[at] = (target if self.origin is None else target - stiffness * self._anchor[:, at]).t()
        return self._pulling(pull, load)

    def _pull_towards(self, force: torch.Tensor, hold: torch.Tensor, bound: torch.Tensor) -> kernels.Pull:
        at, system = self.system.output_columns, self.system
        load, pull = self._load.clone(), torch.zeros_like(self._load)
        load[at] += bound.t() / system.nudge_scale
        pull[at] = (hold / system.nudge_scale + force / (system.nudge_scale * system.supply)).t()
        return self._pulling(pull, load)

    @staticmethod
    def _pulling(push: torch.Tensor, load: torch.Tensor) -> kernels.Pull:
        return kernels.Pull(np.arange(len(load)), array(push), array(1 / load))


class AnalogMotion(Motion):
    """C du/dt = sum T V - u / R + I - nudge, integrated in the amplifiers' inputs u, volts; time in seconds.

    It is the circuit of Hopfield (1984), equation 5.

    Parameters
    ----------
    phase : Phase
    nudge : Nudge or None
        Beta in siemens. A nudge that is linear in the outputs (`Cost.linear`) is part of the compiled steps; the
        current of any other cost is added to them.
    """

    flow = "hopfield"

    def __init__(self, phase: AnalogPhase, nudge: Nudge | None) -> None:
        super().__init__(phase)
        self.system, self.nudge = phase.system, nudge
        system = self.system
        rest = torch.zeros(len(phase.x), len(system.units), dtype=torch.float64)
        # What clamped nodes and constant currents add.
        source = system.drives((rest,), phase.x)
        shunt = rest
        linear = None if nudge is None else nudge.linear(torch.float64)
        self.compiled = nudge is None or linear is not None
        if linear is not None:
            at = system.output_columns
            drawn, fed = linear
            shunt = rest.index_copy(1, at, drawn)
            source = source.index_add(1, at, fed)
        self.parts = transients.AnalogParts(
            array(system.weight),
            array(1 / system.resistance),
            array(1 / system.capacitance),
            array(system.gain / system.supply),
            system.supply,
            columns(source),
            columns(shunt),
        )
        self.width = kernels.chunk_width(len(rest))

    def start(self, z: State) -> State:
        """Amplifiers' inputs u that belong to the outputs at which the phase starts.

        A saturated output does not tell its u: where the node's current would hold it there, u is R times that
        current; else the least u that saturates it.
        """
        system = self.system
        (v,) = self.phase.state(z)
        rest = system.resistance * system.drives((v,), self.phase.x)
        eps = torch.finfo(v.dtype).eps * system.supply
        u = system.inputs_at(torch.clamp(v, system.low + eps, system.high - eps))
        margin = NEAR_BOUND * system.supply
        near = (v < system.low + margin) | (v > system.high - margin)
        held = near & ((system.amplified(rest) - v).abs() < margin)
        return (torch.where(held, rest, u),)

    def velocity(self, w: State) -> State:
        """du/dt, volts a second."""
        (u,) = w
        rate = torch.from_numpy(transients.rates(array(u), self.parts, self.system.graph, self.width))
        if not self.compiled:
            assert self.nudge is not None
            outputs = self.system.outputs((self.system.amplified(u),))
            current = -self.nudge.column(outputs) * self.nudge.cost.gradient(outputs, self.nudge.y)
            at = self.system.output_columns
            rate = rate.index_add(1, at, current / self.system.capacitance[at])
        return (rate,)

    def inside(self, w: State) -> State:
        return w

    def observe(self, w: State, velocity: State) -> Moment:
        state = (self.system.amplified(w[0]),)
        energy = self.system.energy(state, self.phase.x)
        if self.nudge is not None:
            energy = energy + self.nudge.energy(self.system.outputs(state))
        current = self.system.capacitance * velocity[0]
        return Moment(state, energy, largest((current,)) / self.system.residual_scale, w)

    def leap(self, w: State, stages: np.ndarray, weights: np.ndarray, dt: float, count: int) -> State | None:
        if not self.compiled:
            return None
        moved = transients.steps(array(w[0]), self.parts, self.system.graph, stages, weights, dt, count, self.width)
        return (torch.from_numpy(moved),)
