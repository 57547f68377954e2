"""Circuits: any graph of electrical parts, its operating points, and their training. SI units, float64."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from physics_ep.blocks import State
from physics_ep.dynamics.motion import Motion
from physics_ep.equilibrium import Equilibrium, Status
from physics_ep.errors import InputError, argument_error, unknown_name
from physics_ep.relaxation.loop import relax
from physics_ep.system import EnergySystem, Inputs, Phase

from ..arrays import array
from ..netlists.parts import Parts
from ..netlists.shunts import with_gmin
from ..netlists.topology import components, held_by_leakage
from ..nodal import points as mna
from . import kernels
from .active import ActiveCircuit
from .active_phase import SOLVERS as JOINT_SOLVERS
from .base import NODE_CAPACITANCE, PartsCircuit
from .co_content import co_content, contrast
from .factorizations import KINDS
from .layout import ORDER, Layout, PreparedCircuit, check_outputs, currents_of, lay_out, limits, prepare
from .newton import SOLVERS
from .operating_point import TOLERANCE, OperatingPoint, missing
from .phase import CircuitPhase, NodeMotion
from .reduction import reduce

RELATIVE = 1e-13
"""Rounding errors of the current at a node, over the sum of the sizes of its currents."""


class Circuit(PartsCircuit, EnergySystem):
    """A circuit of the parts of `hardware_models.netlists.parts`.

    Inputs x (B, n_sources) are the voltages of the voltage sources, in the order of the parts list. The state is
    one block (B, n), volts: one voltage of each group of nodes that sources and amplifiers tie together
    (`hardware_models.circuits.reduction`). The energy is the co-content, weighted where there are bidirectional
    amplifiers: watts; the force is the current that is missing in Kirchhoff's law, amperes; a nudge of beta siemens
    draws beta (y - v) amperes into an output node, as a conductance to a source at y does.

    Passive circuits, with or without bidirectional amplifiers between stages, have a convex co-content: where a
    conductor leads from every node to a source (`unique`), there is one operating point, and Newton's method finds
    it from anywhere. Circuits with other active parts (vcvs, vccs, ccvs, cccs, rectifier), or with amplifiers in a
    cycle, have no energy: `Circuit(parts, ...)` is an `ActiveCircuit` then, of the same methods, which asymmetric
    equilibrium propagation trains.

    Capacitors carry no direct current: see `hardware_models.nodal.transients`.

    Parameters
    ----------
    parts : Parts
    outputs : sequence of str or of pairs of str
        Nodes whose voltages the cost acts on, none of them tied to a voltage source. A pair ("a", "b"), or
        "v(a,b)", is the difference v_a - v_b.
    least, most : float
        Bounds of the conductances that learning keeps to (`constrain`), siemens.
    node_capacitance : float
        Farad: what `physics_ep.simulate` puts at each unknown, to follow how the circuit settles.
    factorization : str, optional
        One of `factorizations.KINDS`: 'dense', 'banded', 'minimum_degree', 'cholmod', 'sparse'. Default: the one
        that is estimated to be fastest.

    gmin : float
        Conductance across every diode, siemens: resistors like others, by which nodes that leakage alone holds have
        voltages that float64 can tell (SPICE has 1e-12).
    inputs : sequence of str
        Voltage sources that x sets, in the order of its columns; default all of them. Others keep their own values.

    Parameters of the module: `conductance`, of the resistors and then of the memristors, siemens; `current`, of the
    current sources, amperes; both in the order of the parts list.

    Raises
    ------
    InputError
        If voltage sources form a loop, a node floats, or an argument is not as above.
    """

    default_solver = "newton"
    joint_solvers = JOINT_SOLVERS
    default_max_iterations = 200
    bounded = True
    clamps = True
    has_energy = True
    leaky = False
    """Whether the leakage of diodes alone holds a node: phases then end when steps in volts are small, too."""

    def __new__(cls, parts: Any = None, **options: Any) -> Any:
        """A `Circuit`, or an `ActiveCircuit` where the parts have no energy."""
        self = super().__new__(cls)
        if cls is Circuit and isinstance(parts, Parts):  # copies and pickles bring no parts
            found = reduce(with_gmin(parts, options.get("gmin", 0.0)))
            if found[0] is not None and options.get("train") is not None:
                found = None, "values of parts that its energy holds fixed may be trained (train=)"
            if found[0] is None:
                return ActiveCircuit(parts, because=found[1], **options)
            self.__dict__["_reduced"] = found
        return self

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
    ) -> None:
        if factorization not in (None, *KINDS):
            raise unknown_name("factorization", factorization, KINDS)
        super().__init__(parts, outputs, least, most, node_capacitance, gmin, inputs)
        parts = self._parts
        self.leaky = bool(held_by_leakage(parts).any())
        reduction, why = self.__dict__.pop("_reduced", None) or reduce(parts)
        if reduction is None:  # a subclass has a law of its own
            raise argument_error(f"parts of {type(self).__name__}", "have an energy", f"without one, since {why}")
        learnt = [parts.group("resistor").values[:, 0], parts.group("memristor").values[:, 0]]
        self.conductance = nn.Parameter(torch.from_numpy(np.concatenate(learnt)))
        sources = parts.group("current_source").values[:, 0]
        self.current = nn.Parameter(torch.from_numpy(sources.copy())) if len(sources) else None
        check_outputs(reduction, self.output_names, self.output_nodes)
        self._layout = lay_out(parts, reduction, factorization, outputs=self.output_nodes)
        self._set_scales(self._layout)

    def _set_scales(self, layout: Layout) -> None:
        net = layout.net
        conductance = array(self.conductance)[: layout.counts[0]]
        diagonal, _ = kernels.resistor_matrix(conductance, layout.n, len(layout.pattern.pairs), net)
        loads = diagonal / layout.unknown_weight.numpy()
        loads = np.where(loads > 0, loads, np.median(loads[loads > 0]) if (loads > 0).any() else 1.0)
        at = layout.output_rows[0].ravel() if len(layout.output_columns) else np.arange(layout.n)
        self.nudge_scale = float(np.median(loads[at])) if layout.n else 1.0
        self.residual_scale = max(self.nudge_scale, 1e-4 * float(loads.max(initial=0.0)))
        self.time_constant = self.node_capacitance / float(loads.max(initial=self.nudge_scale))
        smooth = not (len(layout.bounds[0]) or layout.counts[ORDER.index("piecewise_diode")])
        self.smooth = smooth

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over what pickle kept; version 0.1.0 kept the outputs' columns beside the layout."""
        super().__setstate__(state)
        if not hasattr(self._layout, "output_columns"):
            kept = {name: self.__dict__.pop(name) for name in ("output_columns", "output_scale")}
            self._layout = replace(self._layout, **kept)
        if self.output_nodes.ndim == 1:  # of version 0.1.0: no differences
            self.output_nodes = np.stack([self.output_nodes, np.zeros_like(self.output_nodes)], 1)

    @property
    def parts(self) -> Parts:
        """The parts list of the circuit, with the present values of its parameters."""
        self._check_conductances()
        groups = dict(self._parts.groups)
        conductance = self.conductance.detach().numpy()
        start = 0
        for kind in ("resistor", "memristor"):
            group = self._parts.group(kind)
            if len(group):
                values = group.values.copy()
                values[:, 0] = conductance[start : start + len(group)]
                groups[kind] = replace(group, values=values)
            start += len(group)
        if self.current is not None:
            group = self._parts.group("current_source")
            groups["current_source"] = replace(group, values=self.current.detach().numpy()[:, None].copy())
        return self._restored(groups)

    def _check_conductances(self) -> None:
        """Raise InputError where an optimizer has left a conductance that is not positive."""
        values = self.conductance.detach()
        if len(values) and not 0 < float(values.amin()) <= float(values.amax()) < float("inf"):
            bad = (~((values > 0) & (values < float("inf")))).nonzero()
            names = self._parts.group("resistor").names + self._parts.group("memristor").names
            raise InputError(
                f"Conductance of {names[int(bad[0])]!r} must be positive and finite, but was "
                f"{values[bad[0]].item():g} S: call the circuit's constrain() after each step of an optimizer."
            )

    # -- operating points -------------------------------------------------------------------------------------

    @property
    def unique(self) -> bool:
        """Whether there is never a second operating point, whatever the sources: the co-content is strictly convex.

        Not so with active parts, nor where nothing but diodes without leakage holds a node. (There may be none
        where a current source has only diodes in reverse to send its current through.)
        """
        parts, net = self._parts, self._layout.net
        leaky = parts.group("piecewise_diode")
        kinds = ("resistor", "memristor", "diode")
        ends = np.concatenate([*(parts.group(kind).nodes for kind in kinds), leaky.nodes[leaky.values[:, 2] > 0]])
        columns = np.where(net.unknown[ends] < 0, self._layout.n, net.unknown[ends])
        label = components(self._layout.n + 1, columns)
        return bool((label == label[0]).all())

    @property
    def layout(self) -> Layout:
        """The circuit's parts as flat arrays, for compiled kernels."""
        return self._layout

    def operating_point(
        self,
        inputs: Any = None,
        *,
        start: State | None = None,
        tolerance: float | None = None,
        max_iterations: int | None = None,
    ) -> OperatingPoint:
        """Voltages at which Kirchhoff's laws hold, capacitors open.

        Parameters
        ----------
        inputs : array_like (B, n_sources), optional
            Voltages of the sources. Default: their own, B = 1.
        start : State, optional
            State to start from.
        tolerance : float, optional
            Largest current that may be missing at a node, amperes. Default: 1e-12, or what moves a node of the
            circuit's typical conductance (`residual_scale`) by 1e-12 V, where that is less. Where rounding forbids
            it at a node (1e-13 of the sum of the sizes of the currents at this node, or what the last digit of its
            voltage changes), that is asked for there.
        max_iterations : int, optional

        Returns
        -------
        OperatingPoint
            Converged or not: see `status`, `residual_si` (amperes), `require()`. It is the only one where `unique`
            says so.

        Raises
        ------
        InputError
            If an argument is not as above, or a conductance is not positive.
        """
        volts = self._volts(inputs)
        self._check_conductances()
        if tolerance is not None and not tolerance > 0:
            raise argument_error("tolerance", "be positive", tolerance)
        return relaxed_point(self, volts, inputs is None, start, tolerance, max_iterations)

    def voltages(self, state: State, x: torch.Tensor) -> torch.Tensor:
        """Voltages (B, n_nodes) of all nodes in the order of the parts list, ground first."""
        (u,) = state
        return self._layout.spread(u) + torch.from_numpy(self._offset(x))

    def _offset(self, x: torch.Tensor) -> np.ndarray:
        return np.ascontiguousarray((self.layout.reduction.sources @ self.sources(x).detach().numpy().T).T)

    # -- the contract -----------------------------------------------------------------------------------------

    def energy(self, state: State, x: torch.Tensor) -> torch.Tensor:
        """Weighted co-content, (B,), watts; ideal diodes add none."""
        return co_content(self.layout, self.voltages(state, x), self.conductance, self.current)

    def force(self, state: State, x: torch.Tensor) -> State:
        """Weighted current that is missing at each unknown, (B, n), amperes."""
        phase = self.phase(Inputs(x, self._prepared(x)))
        return (torch.from_numpy(phase.currents(array(state[0])).force),)

    def initial_state(self, x: torch.Tensor) -> State:
        """A state with no voltage anywhere, or the nearest to it that ideal diodes allow."""
        return self.project((torch.zeros(len(x), self.layout.n, dtype=torch.float64),))

    def outputs(self, state: State) -> torch.Tensor:
        """Voltages of the output nodes, or differences of two, (B, n_out)."""
        return self._layout.outputs(state[0])

    def project(self, state: State) -> State:
        """Nearest state that ideal diodes allow, held by the sources' own voltages; phases know their inputs'."""
        low, high = self._bounds(self._volts(None))
        if low is None:
            return state
        return (torch.clamp(state[0], torch.from_numpy(low), torch.from_numpy(high)),)

    def free_variables(self, state: State, x: torch.Tensor) -> State | None:
        low, high = self._bounds(x)
        if low is None or high is None:
            return None
        u, force = array(state[0]), array(self.force(state, x)[0])
        held = ((u <= low) & (force <= 0)) | ((u >= high) & (force >= 0))
        return (torch.from_numpy(~held),)

    def curvature_diagonal(self, state: State, x: torch.Tensor) -> State:
        """Diagonal of the second derivatives, (B, n), siemens."""
        known, net = self._prepared(x), self.layout.net
        _, across = kernels.linear_force(array(state[0]), known.offset, known.injected, known.conductance, net)
        _, slopes = kernels.junctions(across, known.junction_values, net)
        diagonal = np.repeat(known.diagonal[None], len(x), 0)
        found, _ = kernels.with_slopes(diagonal, np.zeros((len(x), len(known.off))), slopes, net)
        return (torch.from_numpy(found),)

    def _bounds(self, x: torch.Tensor) -> tuple[np.ndarray | None, np.ndarray | None]:
        return limits(self.layout, self._offset(x))

    def prepare(self, x: torch.Tensor) -> Inputs:
        self.check_input(x)
        return Inputs(x, self._prepared(x))

    def _prepared(self, x: torch.Tensor) -> PreparedCircuit:
        return prepare(
            self.layout, self.sources(x).detach().numpy(), array(self.conductance), currents_of(self.current)
        )

    def phase(self, inputs: Inputs, origin: State | None = None, balanced: bool = False) -> CircuitPhase:
        return CircuitPhase(self, inputs, origin, balanced)

    def solvers(self, phase: Phase) -> Mapping[str, Any]:
        return SOLVERS

    def motion(self, phase: Phase) -> Motion:
        assert isinstance(phase, CircuitPhase)
        storing = [n for kind in ("capacitor", "inductor") for n in self.parts.group(kind).names]
        if storing:
            named = ", ".join(storing[:3]) + (" ..." if len(storing) > 3 else "")
            warnings.warn(
                f"This course has {self.node_capacitance:.3g} F at each node (`node_capacitance`), and not the "
                f"circuit's own {named}: hardware_models.transient moves a circuit by its own parts.",
                UserWarning,
                stacklevel=2,
            )
        return NodeMotion(phase, self.node_capacitance)

    def contrast(
        self, free: State, plus: State, minus: State | None, x: torch.Tensor, weight: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Contrast of each element's parameters, from differences of its co-content's derivatives."""
        self._check_conductances()
        layout = self.layout
        base = free[0] if minus is None else free[0] + minus[0]
        shift = plus[0] if minus is None else plus[0] - minus[0]
        volts, moved = self.voltages((base,), x), layout.spread(shift)
        found = {}
        if self.conductance.requires_grad:
            learnt = slice(0, layout.counts[0] + layout.counts[1])
            found["conductance"] = contrast(layout, learnt, volts, moved, weight)
        if self.current is not None and self.current.requires_grad:
            sources = slice(len(layout.ends) - layout.counts[-1], None)
            found["current"] = contrast(layout, sources, volts, moved, weight)
        return found

    def constrain(self) -> None:
        """Clip the conductances to [least, most]."""
        with torch.no_grad():
            self._limit_conductances()


def relaxed_point(
    circuit: Circuit,
    volts: torch.Tensor,
    single: bool,
    start: State | None,
    tolerance: float | None,
    max_iterations: int | None,
) -> OperatingPoint:
    """Operating point of a circuit with an energy, by Newton's method on the co-content.

    Arguments are those of `Circuit.operating_point`; `single` says that the sources have their own voltages.
    """
    if not circuit.layout.n:
        circuit.prepare(volts)  # ideal diodes between sources are checked there
        return _known_point(volts, single, tolerance or TOLERANCE)
    asked, scale = tolerance or TOLERANCE, circuit.residual_scale
    if tolerance is None:
        # A picoampere is much to nanosiemens; at kilovolts, a picovolt is less than the last digit.
        asked = min(TOLERANCE, TOLERANCE * scale * max(1.0, float(volts.abs().max()) if volts.numel() else 1.0))
    found = relax(circuit, volts, start=start, tolerance=asked / scale, max_iterations=max_iterations)
    fields = {name: getattr(found, name) for name in Equilibrium.__dataclass_fields__}
    point = OperatingPoint(**fields, sources=volts, single=single)
    if len(circuit.layout.net.kinds) and held_by_leakage(circuit.parts).any():
        return _told_point(circuit, point, volts, asked)
    return _rounded_point(circuit, point, volts, asked / scale, tolerance or TOLERANCE, max_iterations)


def _rounded_point(
    circuit: Circuit,
    point: OperatingPoint,
    volts: torch.Tensor,
    asked: float,
    tolerance: float,
    max_iterations: int | None,
) -> OperatingPoint:
    """A point that has stalled, taken where rounding forbids more; what rounding does not hold up goes on.

    Kiloamperes cannot cancel to a picoampere, nor can a voltage be set finer than its last digit: where rounding is
    more than what was asked for, it is what can be asked for, at each node by its own currents.
    """
    if point.status is not Status.STALLED:
        return point
    good = point.converged | _at_rounding(circuit, point.state, volts, tolerance)
    status, u, residual, iterations = Status.CONVERGED, point.state[0], point.residual, point.iterations
    rest = (~good).nonzero()[:, 0]
    if len(rest) == len(good):
        return point
    allowed = max(point.tolerance, float(residual[good].max()))
    if len(rest):  # the others have ended the relaxation for these
        begun = (u[rest],)
        found = relax(circuit, volts[rest], start=begun, tolerance=asked, max_iterations=max_iterations)
        fields = {name: getattr(found, name) for name in Equilibrium.__dataclass_fields__}
        again = _rounded_point(circuit, OperatingPoint(**fields), volts[rest], asked, tolerance, max_iterations)
        u, residual = u.clone(), residual.clone()
        u[rest], residual[rest] = again.state[0], again.residual
        good[rest] = again.converged
        status, iterations = again.status, iterations + again.iterations
        allowed = max(allowed, again.tolerance)
        residual = torch.where(good | (residual > allowed), residual, torch.inf)
    return replace(
        point, residual=residual, tolerance=allowed, status=status, iterations=iterations, _state=lambda: (u,)
    )


def _at_rounding(circuit: Circuit, state: State, volts: torch.Tensor, tolerance: float) -> torch.Tensor:
    """Whether each unknown lacks no more than a tolerance, amperes, or what its own currents round to, (B,)."""
    known: PreparedCircuit = circuit.prepare(volts).cache
    net, u, weight = circuit.layout.net, state[0], circuit.layout.unknown_weight
    _, across = kernels.linear_force(u.numpy(), known.offset, known.injected, known.conductance, net)
    flow, _ = kernels.junctions(across, known.junction_values, net)
    size = torch.from_numpy(kernels.throughput(u.numpy(), known.offset, known.conductance, flow, net))
    (loads,) = circuit.curvature_diagonal(state, volts)
    allowed = torch.maximum(RELATIVE * size, torch.finfo(u.dtype).eps * loads * u.abs()) / weight
    (force,) = circuit.phase(Inputs(volts, known)).force(state)
    return (force.abs() / weight <= allowed.clamp(min=tolerance)).all(1)


def _told_point(circuit: Circuit, point: OperatingPoint, volts: torch.Tensor, asked: float) -> OperatingPoint:
    """A point where leakage holds nodes, followed to where steps are small in volts, or said not to be told."""
    begun = circuit.voltages(point.state, volts).numpy()
    if not np.isfinite(begun).all():
        return point
    found = mna.operating_point(circuit.parts, circuit.sources(volts).numpy(), start=begun, tolerance=asked)
    if not (found.converged.all() or found.untold):
        if bool(point.converged.all()):
            return point
        return replace(point, residual=missing(found) / circuit.residual_scale)  # amperes, not steps in volts
    net, offset = circuit.layout.net, circuit._offset(volts)
    u = point.state[0].numpy().copy()
    for node in np.argsort(np.abs(net.scale)):  # the largest share of an unknown comes last, and counts
        if net.unknown[node] >= 0 and net.scale[node]:
            u[:, net.unknown[node]] = (found.voltages[:, node] - offset[:, node]) / net.scale[node]
    return replace(
        point,
        residual=missing(found) / circuit.residual_scale,
        tolerance=found.tolerance / circuit.residual_scale,
        iterations=point.iterations + found.iterations,
        status=found.status,
        untold=found.untold,
        _state=lambda: (torch.from_numpy(u),),
    )


def _known_point(volts: torch.Tensor, single: bool, tolerance: float) -> OperatingPoint:
    """Operating point of a circuit whose sources hold every node."""
    nothing = torch.zeros(len(volts), 0, dtype=torch.float64)
    return OperatingPoint(
        residual=torch.zeros(len(volts), dtype=torch.float64),
        tolerance=tolerance,
        iterations=0,
        status=Status.CONVERGED,
        _state=lambda: (nothing,),
        residual_unit="A",
        sources=volts,
        single=single,
    )
