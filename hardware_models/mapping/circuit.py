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

from typing import Any

import torch

from physics_ep.blocks import State
from physics_ep.dynamics.motion import Motion
from physics_ep.equilibrium import Equilibrium
from physics_ep.errors import argument_error
from physics_ep.predictive_coding import PredictiveCodingNetwork
from physics_ep.predictive_coding.forward import gate_mode
from physics_ep.system import Inputs, Phase

from .adjoint import AdjointPhase, asymmetry
from .algebra import PairedNewton
from .board import Board
from .guided import Guided
from .phase import PairedPhase
from .solvers import CircuitMotion, Euler, Flow, PairedSweep


class PairedCircuit(Board):
    """A network's paired units on a substrate: the mechanism, with ideal units. A substrate is a subclass.

    States are the currents into the units (p_1 ... p_L, q_1 ... q_L), (B, ...) each, in units of activity; outputs
    are what the last units answer to p_L, or p_L itself where that is read. Parameters have the network's names;
    they are the weights that the forward arrays of h hold. `circuit(x)` is the forward pass that these compute when
    nothing is fed back.

    Parameters
    ----------
    net : PredictiveCodingNetwork
        The network to map; the substrate must hold its activations.
    device : DeviceModel
    seed : int
        Seed of the device instance: the same devices for the same seed.
    full_scales : sequence of float, optional
        Largest |activity| of the input and of each layer, L + 1: what noises, offsets and converter ranges are
        relative to. Default 1 each.
    gates : {'held', 'live'}
        Whether nudged phases hold the gates of ReLUs (by a latch). They always hold routes of max poolings.

    Attributes
    ----------
    substrate : str
        Name, of the class.
    holds : tuple of str
        Activations that its units can have.
    effects : frozenset of str
        Fields of its devices that it reads beyond those that every substrate does: cells, their copies and wires,
        nodes, readings and converters. Others are refused where they differ from their defaults.
    device_class : type
        Class of its devices: `DeviceModel`, or a subclass with fields of its own.
    exactness : str
        How exact the construction is with ideal devices: 'exact', or what bounds it.
    calibrated : bool
        Whether full scales were given.
    one_drive : bool
        Whether h and u are driven by one array, at equal loads.
    shared : bool
        Whether they have equal units too: then p = q = the forward pass at the free state.
    load_h, load_u : tuple of (Tensor (*shape) or None)
        Loads of the nodes of each layer; None: 1. They are set as a whole, by any sequence.
    reads : torch.Generator
        Generator of all noise that phases and readings draw.

    Raises
    ------
    NotRealisable
        With the layer and the reason.

    Notes
    -----
    The parameters are those of one device instance at one time: after an update map the network anew, or `write`
    the cells, since copies (for u, the transposed read) are no parameters.

    A subclass defines the class attributes, and what it has of `check`, `build_units`, `find_loads`,
    `solvers`, `motion`, `settling_seconds`, `describe` and `count_units`.
    """

    has_dyadic = False
    fast_methods_hold = True  # its phases, and the learning rule on what they carry, are those of these units
    default_max_iterations = 2000
    bounded = True
    clamps = True

    def _written(self) -> None:
        super()._written()
        self._choose_solvers()

    def _choose_solvers(self) -> None:
        """Set `default_solver`. Where stability is in question, the circuit's own course decides whether there is
        an equilibrium, and which."""
        device = self.device_model
        one = not self.served_apart("h", "u") and not self.served_apart("h", "transpose")
        in_time = "guided" if self.equal_times else "flow"
        sweeps = self.shared and self.equal_times and (one or device.conductance_noise == 0)
        self.default_solver = "sweep" if sweeps else in_time

    @property
    def has_gates(self) -> bool:
        """Whether held and live gates may differ: a layer of units with kinks. Routes are held in all phases."""
        return any(layer.activation.gated for layer in self.stack)

    # -- how it settles, and what it takes: what a substrate may define ------------------------------------------

    def solvers(self, phase: Phase) -> dict[str, Any]:
        """Solvers of a phase: 'sweep' and 'newton' to its fixed point, 'flow' in time, 'euler' for its end, and
        'guided' to the fixed point that the course in time leads to."""
        return {"sweep": PairedSweep, "newton": PairedNewton, "euler": Euler, "guided": Guided, "flow": Flow}

    def motion(self, phase: Phase) -> Motion:
        """A phase in time, for `simulate`."""
        return CircuitMotion(phase)

    def describe(self, free: Equilibrium, x: torch.Tensor) -> list[dict[str, Any]]:
        """For each layer, values of `LayerFidelity` fields beyond those that any array has."""
        return [{} for _ in range(self.depth)]

    # -- the contract ------------------------------------------------------------------------------------------

    def energy(self, state: State, x: torch.Tensor) -> torch.Tensor:
        """Energy of the paired units with the arrays of h, (B,); it means nothing where copies differ."""
        x = self.encode(x)
        total: torch.Tensor | float = 0.0
        activities = [a.response(p) for a, p in zip(self.amplifiers_h, state, strict=False)]
        load_h, load_u = self.load_h, self.load_u
        for k in range(self.depth):
            a, _ = PredictiveCodingNetwork.drive(self, k, x, activities)  # without loads, which divide below
            p, q = state[k], state[self.depth + k]
            u = self.amplifiers_u[k].response(q)
            upper, lower = self.amplifiers_h[k].potential(p), self.amplifiers_u[k].potential(q)
            for potential, load, sign in ((upper, load_h[k], 1), (lower, load_u[k], -1)):
                total = total + sign * (potential if load is None else potential / load).flatten(1).sum(1)
            total = total - ((activities[k] - u) * a).flatten(1).sum(1)
        assert isinstance(total, torch.Tensor)
        return total

    def outputs(self, state: State) -> torch.Tensor:
        return self.amplifiers_h[-1].response(state[self.depth - 1])

    def initial_state(self, x: torch.Tensor) -> State:
        """State without feedback: the free equilibrium, unless copies or amplifiers differ."""
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

    def phase(  # type: ignore[override]  # its phases stand in the place of a network's own
        self, inputs: Inputs, origin: State | None = None, balanced: bool = False, gates: str | None = None
    ) -> PairedPhase:
        return PairedPhase(self, inputs, origin, balanced, gate_mode(gates or self.gates))

    @property
    def reciprocal(self) -> bool:
        """Whether the circuit has an energy. It has one where a single array drives h, drives u and feeds errors
        back, with equal gains."""
        return self.one_array and not self.gained and not self.served_apart("h", "transpose")

    @property
    def default_method(self) -> str:  # type: ignore[override]
        """'auto' where copies differ, which then have no energy; 'energy' where they do not."""
        return "energy" if self.reciprocal or self.device_model.auto_zero != "off" else "auto"

    def adjoint_of(self, phase: PairedPhase) -> PairedPhase:
        """`Phase.adjoint` of one of its phases.

        Raises
        ------
        InputError
            If what copies differ by is stored by an auto-zero.
        """
        if self.reciprocal:
            return phase
        if self.device_model.auto_zero != "off":
            # The free state is a forward pass, since the store follows it, and nudged phases hold the store.
            must = (
                "be 'energy' where an auto-zero stores what copies differ by: its store follows the free state and "
                "stands still in nudged phases, which have another Jacobian"
            )
            raise argument_error("method", must, "asymmetric")
        return AdjointPhase(phase)

    def asymmetry_of(self, phase: PairedPhase, even: bool = False) -> float:
        """`Phase.asymmetry` of one of its phases: 0 where an energy is there."""
        return 0.0 if self.reciprocal else asymmetry(phase, even)

    def default_tolerance(self, dtype: torch.dtype) -> float:
        """1e-10 in float64, 1e-4 in float32; see `PredictiveCodingNetwork.default_tolerance`."""
        return 1e-10 if dtype == torch.float64 else 1e-4

    def check_input(self, x: torch.Tensor) -> None:
        if self.compute_dtype is not None:
            raise argument_error("compute_dtype", "be None for a circuit", self.compute_dtype)
        super().check_input(x)
