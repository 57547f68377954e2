"""Circuits with active parts: amplifiers that pass one way, and what else has operating points but no energy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from physics_ep.blocks import State
from physics_ep.errors import InputError, argument_error, unknown_name
from physics_ep.physical_system import Inputs, Phase
from physics_ep.vector_field import VectorField

from ..netlists.parts import GATED, KINDS, Parts
from ..nodal import points as mna
from ..nodal.equations import NodalEquations
from ..nodal.field import NodalField, Values
from .active_phase import SOLVERS, ActivePhase
from .base import NODE_CAPACITANCE, PartsCircuit
from .operating_point import TOLERANCE, OperatingPoint, missing

TRAINED = (
    *("conductance", "current", "vcvs_gain", "vccs_transconductance", "ccvs_transresistance", "cccs_gain"),
    *("amplifier_gain", "rectifier_gain", "gate"),
)
"""Parameters that are trained where nothing else is said."""
UNTRAINED = ("voltage_source", "capacitor", "inductor", "spice_diode")
"""Kinds without parameters: inputs, what an operating point does not know, a law that autograd cannot follow."""
SHARED = {
    **{"resistor": "conductance", "memristor": "conductance", "current_source": "current"},
    **dict.fromkeys(GATED, "gate"),
}
"""Parameters that hold the first values of one kind after those of another, or that have a name of their own."""


class ActiveCircuit(PartsCircuit, VectorField):
    """A circuit with active parts, whose force is the gradient of no energy.

    `Circuit(parts, ...)` and `Circuit.from_netlist` make one where the parts have no energy: controlled sources
    (vcvs, vccs, ccvs, cccs), amplifiers in a cycle, rectifiers, behavioural sources, SPICE's diodes.

    Inputs x (B, n_sources) are the voltages of the voltage sources. The state is two blocks in volts: the voltages
    of all nodes but ground (B, n_nodes - 1), and the currents of the parts that set a voltage over the typical
    conductance (B, n_branches), where there are such parts. The force is what is missing in Kirchhoff's laws and in
    those of these parts, amperes (`hardware_models.nodal.field`). A nudge of beta siemens draws beta (y - v)
    amperes into an output node.

    Asymmetric equilibrium propagation (Scurria, Vanden Abeele, Mognetti and Massar 2026, arXiv 2602.03670) nudges
    the circuit with every one-way part read the other way about the held operating point: the adjoint network of
    Director and Rohrer (1969, IEEE Transactions on Circuit Theory 16, 318), which the physics solves by settling.

    Capacitors and inductors carry no signal at an operating point. They say whether it is stable (`eigenvalue`); a
    step of learning refuses one that is not. `hardware_models.transient` follows the circuit's own motion;
    `physics_ep.simulate` one with a capacitance at every node and an inductance in every branch, alike.

    Parameters
    ----------
    parts : Parts
    outputs : sequence of str or of pairs of str
        Nodes whose voltages the cost acts on. A pair ("a", "b"), or "v(a,b)", is the difference v_a - v_b.
    least, most : float
        Bounds of the conductances that learning keeps to (`constrain`), siemens.
    node_capacitance : float
        Farad: what `physics_ep.simulate` puts at each unknown, and the most that is taken for stray capacitances of
        nodes where stability is looked at.
    gmin : float
        Conductance across every diode, siemens.
    inputs : sequence of str
        Voltage sources that x sets, in the order of its columns; default all of them. Others keep their own values.
    train : sequence of str, optional
        Names of the parameters that are trained. Default: those of `TRAINED` that there are.
    because : str, optional
        Why the parts have no energy.

    Parameters of the module: `conductance`, of the resistors and then of the memristors, siemens; `current`, of the
    current sources, amperes; `gate`, of the held gates of n-channel and then p-channel transistors, volts over
    ground; and a tensor for each further value of each kind in its own unit, such as `vcvs_gain`,
    `vccs_transconductance`, `ccvs_transresistance`, `cccs_gain`, `diode_saturation_current`; all in the order of
    the parts list.

    Raises
    ------
    InputError
        If voltage sources form a loop, a node floats, or an argument is not as above.
    """

    default_solver = "newton"
    clamps = True
    default_max_iterations = 200

    def __init__(
        self,
        parts: Parts,
        *,
        outputs: Sequence[str | Sequence[str]] = (),
        least: float = 1e-12,
        most: float = float("inf"),
        node_capacitance: float = NODE_CAPACITANCE,
        factorization: str | None = None,
        gmin: float = 0.0,
        inputs: Sequence[str] = (),
        train: Sequence[str] | None = None,
        because: str = "",
    ) -> None:
        super().__init__(parts, outputs, least, most, node_capacitance, gmin, inputs)
        parts = self._parts
        self.no_energy_because = because or "it has active parts"
        equations = NodalEquations(parts)
        self.field = NodalField(equations)
        self._register(train)
        self.n_branches = len(equations.branches)
        self.directions = (1, -1) if self.n_branches else (1,)
        constants = (self.node_capacitance,) * len(self.directions)
        self.time_constants = constants
        self.smooth = not any(len(parts.group(k)) for k in ("ideal_diode", "rectifier", "piecewise_diode"))
        self._set_scales(equations)

    def _register(self, train: Sequence[str] | None) -> None:
        """Make the parameters, and remember where each value of each kind is found."""
        self._places: dict[str, list[tuple[str, slice]]] = {}
        found: dict[str, list[np.ndarray]] = {}
        for kind in ("resistor", "memristor", *(k for k in KINDS if k not in ("resistor", "memristor"))):
            group = self._parts.group(kind)
            if kind in UNTRAINED or not (len(group) or kind == "resistor"):
                continue
            places = []
            for k, (value, _, _) in enumerate(KINDS[kind].values):
                name = SHARED[kind] if k == 0 and kind in SHARED else f"{kind}_{value.replace(' ', '_')}"
                held = found.setdefault(name, [])
                start = sum(map(len, held))
                held.append(group.values[:, k])
                places.append((name, slice(start, start + len(group))))
            self._places[kind] = places
        chosen = [n for n in TRAINED if n in found] if train is None else list(train)
        for name in chosen:
            if name not in found:
                raise unknown_name("train", str(name), found)
        for name, columns in found.items():
            values = torch.from_numpy(np.concatenate(columns))
            self.register_parameter(name, nn.Parameter(values, requires_grad=name in chosen))
        if "current" not in found:
            self.current = None

    def _set_scales(self, equations: NodalEquations) -> None:
        """What counts as 1: the conductance at a typical output, as in a circuit with an energy."""
        parts = self._parts
        loads = np.zeros(len(parts.nodes))
        for kind in ("resistor", "memristor"):
            group = parts.group(kind)
            np.add.at(loads, group.nodes, group.values[:, :1])
        group = parts.group("vccs")
        np.add.at(loads, group.nodes[:, :2], np.abs(group.values))
        loads = np.where(loads > 0, loads, equations.scale)[1:]
        read = self.output_nodes[self.output_nodes > 0]
        at = read - 1 if len(read) else np.arange(len(loads))
        # An amplifier's output has any conductance; what the nudge moves in the adjoint network has the others'.
        self.nudge_scale = min(float(np.median(loads[at])), equations.scale) if len(loads) else 1.0
        self.residual_scale = max(self.nudge_scale, 1e-3 * float(loads.max(initial=0.0)))
        self.time_constant = self.node_capacitance / float(loads.max(initial=self.nudge_scale))

    # -- parts --------------------------------------------------------------------------------------------------

    def values(self) -> Values:
        """Values of the parts of each kind, as the parameters are now."""
        return self._values_of(dict(self.named_parameters()))

    def _values_of(self, own: Mapping[str, torch.Tensor]) -> Values:
        return {kind: tuple(own[name][at] for name, at in places) for kind, places in self._places.items()}

    @property
    def parts(self) -> Parts:
        """The parts list of the circuit, with the present values of its parameters."""
        groups = dict(self._parts.groups)
        for kind, columns in self.values().items():
            group = self._parts.group(kind)
            if len(group) and columns:
                values = np.stack([column.detach().numpy() for column in columns], 1)
                self._check(kind, group.names, values)
                groups[kind] = replace(group, values=values)
        return self._restored(groups)

    def _check(self, kind: str, names: tuple[str, ...], values: np.ndarray) -> None:
        """Raise InputError where an optimizer has left a value that no such part has."""
        for k, (value, unit, least) in enumerate(KINDS[kind].values):
            column = values[:, k]
            bad = ~np.isfinite(column) | (column <= (-np.inf if least is None else least))
            if bad.any():
                at = int(bad.argmax())
                must = "finite" if least is None else "positive and finite"
                raise InputError(
                    f"{value.capitalize()} of {names[at]!r} must be {must}, but was {column[at]:g} {unit}".rstrip()
                    + ": call the circuit's constrain() after each step of an optimizer."
                )

    def constrain(self) -> None:
        """Clip the conductances to [least, most], and every other value to the range that such parts have."""
        with torch.no_grad():
            self._limit_conductances()
            for kind, places in self._places.items():
                for (name, at), (_, _, least) in zip(places, KINDS[kind].values, strict=True):
                    if name != "conductance" and least is not None:
                        self.get_parameter(name)[at].clamp_(min=1e-30 if least == 0 else 0.0)

    # -- operating points ---------------------------------------------------------------------------------------

    def operating_point(
        self,
        inputs: Any = None,
        *,
        start: State | None = None,
        tolerance: float | None = None,
        max_iterations: int | None = None,
    ) -> OperatingPoint:
        """Voltages at which Kirchhoff's laws hold, capacitors open: one of perhaps several, or none.

        Parameters
        ----------
        inputs : array_like (B, n_sources), optional
            Voltages of the sources. Default: their own, B = 1.
        start : State, optional
            State to start from.
        tolerance : float, optional
            Largest current that may be missing at a node, amperes. Default: 1e-12.
        max_iterations : int, optional

        Returns
        -------
        OperatingPoint
            Converged or not: see `status`, `residual_si` (amperes), `require()`. Whether it is stable is what
            `eigenvalue` tells.

        Raises
        ------
        InputError
            If an argument is not as above, a part's value is none that it can have, or the equations are singular.
        """
        volts = self._volts(inputs)
        if tolerance is not None and not tolerance > 0:
            raise argument_error("tolerance", "be positive", tolerance)
        return active_point(self, volts, inputs is None, start, tolerance, max_iterations)

    def solution(self, x: torch.Tensor, start: State | None, tolerance: float, limit: int) -> mna.Solution:
        """Operating point by modified nodal analysis, from a state or from rest."""
        begun = None if start is None else np.pad(start[0].detach().numpy(), ((0, 0), (1, 0)))  # ground
        return mna.operating_point(
            self.parts, self.sources(x).detach().numpy(), start=begun, tolerance=tolerance, max_iterations=limit
        )

    def state_of(self, found: mna.Solution) -> State:
        """The state of an operating point."""
        volts = torch.from_numpy(np.ascontiguousarray(found.voltages[:, 1:]))
        if not self.n_branches:
            return (volts,)
        return (volts, torch.from_numpy(found.currents / self.field.scale))

    def voltages(self, state: State, x: torch.Tensor) -> torch.Tensor:
        """Voltages (B, n_nodes) of all nodes in the order of the parts list, ground first."""
        return torch.cat([torch.zeros_like(state[0][:, :1]), state[0]], 1)

    def eigenvalue(self, state: State, x: torch.Tensor) -> torch.Tensor:
        """Rightmost eigenvalue (B,) of the motion about operating points, complex, 1 / second: stable below 0.

        The motion is that of the circuit's own capacitors and inductors; nodes without one are algebraic
        (`hardware_models.nodal.stability`). NaN where there are none; a warning tells where stray capacitances of
        `node_capacitance`, or less, would end an operating point.
        """
        return self.phase(self.prepare(x), origin=state).rightmost()

    def sensitivities(self, inputs: Any = None) -> dict[str, torch.Tensor]:
        """Derivatives of every output by every part's value, by the exact adjoint: J^T lambda = dv/ds, one solve.

        Parameters
        ----------
        inputs : array_like (B, n_sources), optional
            Voltages of the sources. Default: their own, B = 1.

        Returns
        -------
        dict of str to Tensor (B, n_out, m)
            Volts over the unit of the value, by name of the parameter, trained or not, in the order of the parts
            list; `voltage_source` has the derivatives by the sources' voltages.

        Raises
        ------
        NoOperatingPoint
            If there is none.
        """
        x = self._volts(inputs)
        state = self.operating_point(inputs).require().state
        phase = self.phase(self.prepare(x), origin=state)
        reads = phase.reads()
        right = torch.nn.functional.pad(reads, (0, self.n_branches)).mT.expand(len(x), -1, -1)
        adjoint = torch.linalg.solve(phase.tangent(None).mT, -right).mT
        leaves = {name: p.detach().requires_grad_() for name, p in self.named_parameters()}
        given = (*leaves.values(), x.clone().requires_grad_())
        with torch.enable_grad():
            currents = state[1] if self.n_branches else None
            force = torch.cat(
                self.field.forces(state[0], currents, self.sources(given[-1]), self._values_of(leaves)), 1
            )
        found: list[list[torch.Tensor]] = [[] for _ in given]
        for row, multipliers in enumerate(adjoint):
            for each in multipliers:
                grads = torch.autograd.grad(force[row] @ each, given, retain_graph=True, materialize_grads=True)
                for kept, grad in zip(found, (*grads[:-1], grads[-1][row]), strict=True):
                    kept.append(grad)
        tables = [torch.stack(kept).view(len(x), len(reads), -1) for kept in found]
        return dict(zip((*leaves, "voltage_source"), tables, strict=True))

    # -- the contract -------------------------------------------------------------------------------------------

    def force(self, state: State, x: torch.Tensor) -> State:
        """Current missing at each node, and what is missing in the law of each branch, amperes."""
        currents = state[1] if self.n_branches else None
        return self.field.forces(state[0], currents, self.sources(x), self.values())

    def initial_state(self, x: torch.Tensor) -> State:
        """A state with no voltage and no current anywhere."""
        sizes = (len(self._parts.nodes) - 1, self.n_branches)
        return tuple(torch.zeros(len(x), n, dtype=torch.float64) for n in sizes[: len(self.directions or ())])

    def outputs(self, state: State) -> torch.Tensor:
        """Voltages of the output nodes, or differences of two, (B, n_out)."""
        read = self.voltages(state, state[0])[:, torch.from_numpy(self.output_nodes)]
        return read[..., 0] - read[..., 1]

    def free_variables(self, state: State, x: torch.Tensor) -> State | None:
        """Which variables can move: all but the currents of ideal diodes that block. None for a circuit without
        ideal diodes.
        """
        if "ideal_diode" not in self.field.where:
            return None
        return (torch.ones_like(state[0], dtype=torch.bool), ~self.field.blocked(*state))

    def phase(self, inputs: Inputs, origin: State | None = None, balanced: bool = False) -> ActivePhase:
        return ActivePhase(self, inputs, origin, balanced)

    def solvers(self, phase: Phase) -> Mapping[str, Any]:
        return SOLVERS


def active_point(
    circuit: ActiveCircuit,
    volts: torch.Tensor,
    single: bool,
    start: State | None,
    tolerance: float | None,
    max_iterations: int | None,
) -> OperatingPoint:
    """Operating point of a circuit without an energy, by modified nodal analysis.

    Arguments are those of `ActiveCircuit.operating_point`; `single` says that the sources have their own voltages.
    """
    limit = mna.ITERATIONS if max_iterations is None else max_iterations
    found = circuit.solution(volts, start, tolerance or TOLERANCE, limit)
    state = circuit.state_of(found)
    return OperatingPoint(
        residual=missing(found),
        tolerance=float(found.tolerance),
        iterations=found.iterations,
        status=found.status,
        _state=lambda: state,
        solver="modified nodal analysis",
        untold=found.untold,
        residual_scale=1.0,
        residual_unit="A",
        sources=volts,
        single=single,
    )
