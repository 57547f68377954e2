"""Circuits: any graph of electrical parts, its operating points, and their training. SI units, float64."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import nn

from physics_ep.blocks import State
from physics_ep.dynamics.motion import Motion
from physics_ep.equilibrium import Equilibrium, Status
from physics_ep.errors import InputError, argument_error, unknown_name
from physics_ep.overrides import require_physics
from physics_ep.placement import OnHost
from physics_ep.relaxation.loop import relax
from physics_ep.system import EnergySystem, Inputs, Phase
from physics_ep.tabular import Tabular

from .. import arrays
from ..arrays import array
from ..hopfield.graph import UnitGraph
from ..laws.couplings import COUPLINGS
from ..netlists.netlist import load_netlist, write_netlist
from ..netlists.outputs import output_pairs
from ..netlists.parts import Parts
from ..netlists.shunts import with_gmin
from ..netlists.topology import held_by_leakage
from ..nodal import points as mna
from . import kernels
from .co_content import co_content, contrast
from .graphs import (
    ELEMENT_VALUES,
    LETTERS,
    graph_of_parts,
    parts_from_edges,
    parts_from_networkx,
)
from .layout import ORDER, Layout, PreparedCircuit, check_outputs, currents_of, lay_out, limits, prepare
from .newton import SOLVERS
from .operating_point import OperatingPoint
from .phase import CircuitPhase, NodeMotion
from .reduction import reduce

TOLERANCE = 1e-12
"""Amperes that may be missing at a node of an operating point, and volts that they may move it by."""
RELATIVE = 1e-13
"""Rounding errors of the current at a node, over the sum of the sizes of its currents."""


class Circuit(Tabular, OnHost, EnergySystem):
    """A circuit of the parts of `hardware_models.netlists.parts`.

    Inputs x (B, n_sources) are the voltages of the voltage sources, in the order of the parts list. The state is
    one block (B, n), volts: one voltage of each group of nodes that sources and amplifiers tie together
    (`hardware_models.circuits.reduction`). The energy is the co-content, weighted where there are bidirectional
    amplifiers: watts; the force is the current that is missing in Kirchhoff's law, amperes; a nudge of beta siemens
    draws beta (y - v) amperes into an output node, as a conductance to a source at y does.

    Passive circuits, with or without bidirectional amplifiers between stages, have a convex co-content: where a
    conductor leads from every node to a source (`unique`), there is one operating point, and Newton's method finds
    it from anywhere. Circuits with other active parts (vcvs, vccs, cccs, rectifier), or with amplifiers in a cycle,
    have no energy (`has_energy`): they have operating points, found by modified nodal analysis, but there may be
    several or none, and they cannot be trained.

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
        'dense', 'banded' or 'sparse'; default the one that is estimated to be fastest.

    gmin : float
        Conductance across every diode, siemens: resistors like others, by which nodes that leakage alone holds have
        voltages that float64 can tell (SPICE has 1e-12).

    Parameters of the module: `conductance`, of the resistors and then of the memristors, siemens; `current`, of the
    current sources, amperes; both in the order of the parts list.

    Raises
    ------
    InputError
        If voltage sources form a loop, a node floats, or an argument is not as above.
    """

    residual_unit = "A"
    state_unit = "V"
    energy_unit = "W"
    time_unit = "s"
    on_host = (
        "solves its equations by sparse factorisations and compiled loops there (ResistiveNetwork computes on any "
        "device)"
    )
    default_solver = "newton"
    residual_scale = 1.0
    nudge_scale = 1.0
    default_max_iterations = 200
    bounded = True
    clamps = True
    leaky = False
    """Whether the leakage of diodes alone holds a node: phases then end when steps in volts are small, too."""

    def __init__(
        self,
        parts: Parts,
        *,
        outputs: Sequence[str | Sequence[str]] = (),
        least: float = 1e-12,
        most: float = float("inf"),
        node_capacitance: float = 1e-12,
        factorization: str | None = None,
        gmin: float = 0.0,
    ) -> None:
        super().__init__()
        if not isinstance(parts, Parts):
            raise argument_error("parts", "be Parts, as Parts.collect makes them", type(parts).__name__)
        for name, value in (("least", least), ("most", most), ("node_capacitance", node_capacitance)):
            if not value > 0:
                raise argument_error(name, "be positive", value)
        if not least <= most:
            raise argument_error("least", "not exceed most, in siemens", f"{least:g}, above {most:g}")
        if factorization not in (None, "dense", "banded", "sparse"):
            raise unknown_name("factorization", factorization, ("dense", "banded", "sparse"))
        self._parts = parts = with_gmin(parts, gmin)
        self.leaky = bool(held_by_leakage(parts).any())
        self.least, self.most = float(least), float(most)
        self.node_capacitance = float(node_capacitance)
        self.output_names, self.output_nodes = output_pairs(outputs, parts.nodes)
        self.n_sources = len(parts.group("voltage_source"))
        reduction, self.no_energy_because = reduce(parts)
        learnt = [parts.group("resistor").values[:, 0], parts.group("memristor").values[:, 0]]
        self.conductance = nn.Parameter(torch.from_numpy(np.concatenate(learnt)))
        sources = parts.group("current_source").values[:, 0]
        self.current = nn.Parameter(torch.from_numpy(sources.copy())) if len(sources) else None
        self._layout: Layout | None = None
        if reduction is not None:
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
        if self._layout is not None and not hasattr(self._layout, "output_columns"):
            kept = {name: self.__dict__.pop(name) for name in ("output_columns", "output_scale")}
            self._layout = replace(self._layout, **kept)
        if self.output_nodes.ndim == 1:  # of version 0.1.0: no differences
            self.output_nodes = np.stack([self.output_nodes, np.zeros_like(self.output_nodes)], 1)

    # -- making one, and writing it down ----------------------------------------------------------------------

    @classmethod
    def from_netlist(cls, path: str | os.PathLike[str], **options: Any) -> Circuit:
        """Circuit of a netlist in SPICE's language (`hardware_models.netlists.netlist.load_netlist`).

        Parameters
        ----------
        path : path
        **options
            Further arguments of `Circuit`. Outputs are by default those that a comment `* outputs: ...` names; gmin
            is by default ngspice's where leakage alone holds a node and the netlist does not set it
            (`Netlist.gmin`).

        Raises
        ------
        InputError
            If the file cannot be read, a line is not understood, or the circuit is not as `Circuit` wants it.
        """
        found = load_netlist(path)
        return cls(found.parts, **{"outputs": found.outputs, "gmin": found.gmin, **options})

    def to_netlist(self, path: str | os.PathLike[str], *, title: str = "circuit", overwrite: bool = False) -> None:
        """Write the circuit, its parameters as they are now, as a netlist that ngspice reads (`write_netlist`)."""
        require_physics(self, Circuit, "circuit")
        write_netlist(path, self.parts, title=title, outputs=self.output_names, overwrite=overwrite)

    @classmethod
    def from_edges(
        cls,
        n_nodes: int,
        edges: Any,
        weights: Any,
        units: str | Sequence[str] | None = None,
        *,
        inputs: Sequence[int] = (),
        outputs: Sequence[int] = (),
        biases: Any = None,
        couplings: str | Sequence[str] | None = None,
        **extra: Any,
    ) -> Any:
        """A circuit from a list of edges, or a graph of units where `units` or a coupling of units is asked for.

        Parameters
        ----------
        n_nodes : int
            Nodes are numbered 0 ... n_nodes - 1, and named "n0", "n1", ... None of them is ground.
        edges : array_like of int (m, 2)
            The two nodes of each element; a diode's anode first.
        weights : array_like of float (m,)
            First value of each element: conductance, siemens, of resistors and memristors; saturation current,
            amperes, of diodes; on conductance, siemens, of piecewise diodes. Ideal diodes have none: anything.
        units : str or sequence of str, optional
            Units at the free nodes. With them the result is the `UnitGraph` that `UnitGraph.from_edges` builds.
        inputs : sequence of int
            Nodes that voltage sources hold: x[:, k] is the voltage of node inputs[k].
        outputs : sequence of int, or of pairs of int
            Free nodes that the cost acts on; a pair (a, b) is the difference v_a - v_b.
        biases : array_like of float (n_free,), optional
            Currents into the free nodes in ascending order, amperes.
        couplings : str or sequence of str (m,), optional
            Element of all edges, or of each: 'resistor' (the default), 'memristor', 'diode', 'piecewise_diode' or
            'ideal_diode'; 'hopfield' and the like make a graph of units.
        **extra : float or array_like (m,)
            Further values of the elements by name: nonlinearity_voltage of memristors, emission_coefficient of
            diodes (default 1), threshold and leakage of piecewise diodes (default 0); and options of `Circuit`.

        Returns
        -------
        Circuit or UnitGraph

        Raises
        ------
        InputError
            If an argument is not as above.
        """
        if isinstance(couplings, str) and couplings not in LETTERS and couplings not in COUPLINGS:
            raise unknown_name("couplings", couplings, {*LETTERS, *COUPLINGS})
        if units is not None or (isinstance(couplings, str) and couplings not in LETTERS):
            if extra:
                name, given = next(iter(extra.items()))
                raise argument_error(name, "be left out for a graph of units", given)
            return UnitGraph.from_edges(
                n_nodes,
                edges,
                weights,
                "hard_sigmoid" if units is None else units,
                inputs=inputs,
                outputs=outputs,
                biases=biases,
                couplings="hopfield" if couplings is None else couplings,
            )
        values = {name: extra.pop(name) for name in ELEMENT_VALUES & set(extra)}
        parts = parts_from_edges(n_nodes, edges, weights, inputs, biases, couplings or "resistor", **values)
        if not any(np.ndim(one) for one in outputs):
            outputs = arrays.nodes("outputs", outputs, n_nodes).tolist()
        read = [[f"n{k}" for k in arrays.nodes("outputs", np.atleast_1d(one), n_nodes)] for one in outputs]
        return cls(parts, outputs=read, **extra)

    @classmethod
    def from_networkx(
        cls, graph: Any, *, inputs: Sequence[Any] = (), outputs: Sequence[Any] = (), **options: Any
    ) -> Circuit:
        """A circuit from a networkx graph, whose edges are parts (`graphs.parts_from_networkx`).

        Parameters
        ----------
        graph : networkx graph
        inputs : sequence of nodes
            Nodes that further voltage sources hold, in the order of x's last columns.
        outputs : sequence of nodes, or of pairs of nodes
            Nodes that are read, or differences of two; by default those that graph.graph["outputs"] names.
        **options
            Further arguments of `Circuit`.

        Raises
        ------
        InputError
            If an edge is no part, or the circuit is not as `Circuit` wants it.
        """
        read = outputs or graph.graph.get("outputs", ())
        pairs = [isinstance(one, tuple | list) and one not in graph for one in read]
        names = [[str(n) for n in one] if pair else str(one) for one, pair in zip(read, pairs, strict=True)]
        return cls(parts_from_networkx(graph, inputs), outputs=names, **options)

    def to_networkx(self) -> Any:
        """The circuit as a networkx multigraph: see `hardware_models.circuits.graphs.graph_of_parts`."""
        return graph_of_parts(self.parts, self.output_names)

    def words(self) -> list[str]:
        """How many nodes there are, and parts of each kind."""
        return self.parts.words()

    def records(self) -> list[dict[str, Any]]:
        """A row a part: its name, kind, nodes and values."""
        return self.parts.records()

    @property
    def parts(self) -> Parts:
        """The parts list, with the parameters as they are now."""
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
        return Parts(self._parts.nodes, groups, self._parts.initial)

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
    def has_energy(self) -> bool:
        """Whether an energy describes the circuit; `no_energy_because` says why not."""
        return self._layout is not None

    @property
    def unique(self) -> bool:
        """Whether there is never a second operating point, whatever the sources: the co-content is strictly convex.

        Not so with active parts, nor where nothing but diodes without leakage holds a node. (There may be none
        where a current source has only diodes in reverse to send its current through.)
        """
        if self._layout is None:
            return False
        parts, net = self._parts, self._layout.net
        leaky = parts.group("piecewise_diode")
        kinds = ("resistor", "memristor", "diode")
        ends = np.concatenate([*(parts.group(kind).nodes for kind in kinds), leaky.nodes[leaky.values[:, 2] > 0]])
        columns = np.where(net.unknown[ends] < 0, self._layout.n, net.unknown[ends])
        graph = sparse.coo_array((np.ones(len(ends)), columns.T), shape=(self._layout.n + 1,) * 2)
        return int(sparse.csgraph.connected_components(graph, directed=False)[0]) == 1

    @property
    def layout(self) -> Layout:
        """The circuit's arrays; InputError where it has no energy."""
        if self._layout is None:
            raise InputError(
                f"This circuit has no energy, since {self.no_energy_because}: it has operating points "
                "(operating_point), but equilibrium propagation and relax need an energy."
            )
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
            it (1e-13 of the sum of the sizes of the currents at a node, or what the last digit of its voltage
            changes), that is asked for.
        max_iterations : int, optional

        Returns
        -------
        OperatingPoint
            Converged or not: see `status`, `residual_si` (amperes), `require()`. Of a circuit with an energy it is
            the only one where `unique` says so; of an active circuit there may be others.

        Raises
        ------
        InputError
            If an argument is not as above, or a conductance is not positive.
        """
        volts = self._volts(inputs)
        self._check_conductances()
        if tolerance is not None and not tolerance > 0:
            raise argument_error("tolerance", "be positive", tolerance)
        found = active_point if self._layout is None else relaxed_point
        return found(self, volts, inputs is None, start, tolerance, max_iterations)

    def _volts(self, inputs: Any) -> torch.Tensor:
        if inputs is None:
            own = self._parts.group("voltage_source").values[:, 0]
            return torch.from_numpy(own[None].copy())
        try:
            volts = torch.as_tensor(inputs)
            volts = volts.detach().to(torch.complex128 if volts.is_complex() else torch.float64)
        except (TypeError, ValueError) as error:
            raise InputError(f"Argument inputs must hold numbers, but was {type(inputs).__name__}.") from error
        if volts.ndim != 2 or volts.shape[1] != self.n_sources or not len(volts):
            raise argument_error("inputs", f"have the shape (B, {self.n_sources})", tuple(volts.shape))
        self.check_input(volts)
        return volts

    def node_voltages(self, equilibrium: Equilibrium, inputs: torch.Tensor | None = None) -> dict[str, Any]:
        """Voltage of every node by name, volts.

        Parameters
        ----------
        equilibrium : Equilibrium
            What `operating_point`, `relax` or EP returned; the last two need the inputs.
        inputs : Tensor (B, n_sources), optional

        Returns
        -------
        dict
            Ground included. Numbers for the operating point of the circuit's own sources, else tensors (B,).
        """
        single = False
        if isinstance(equilibrium, OperatingPoint):
            single = equilibrium.single
            inputs = equilibrium.sources if inputs is None else inputs
        if inputs is None:
            raise argument_error("inputs", "be the source voltages of this equilibrium", None)
        volts = self.voltages(equilibrium.state, inputs)
        if single:
            return dict(zip(self._parts.nodes, volts[0].tolist(), strict=True))
        return dict(zip(self._parts.nodes, volts.unbind(1), strict=True))

    def voltages(self, state: State, x: torch.Tensor) -> torch.Tensor:
        """Voltages (B, n_nodes) of all nodes in the order of the parts list, ground first."""
        (u,) = state
        if self._layout is None:
            return torch.cat([torch.zeros_like(u[:, :1]), u], 1)
        return self._layout.spread(u) + torch.from_numpy(self._offset(x))

    def _offset(self, x: torch.Tensor) -> np.ndarray:
        return np.ascontiguousarray((self.layout.reduction.sources @ x.detach().numpy().T).T)

    # -- the contract -----------------------------------------------------------------------------------------

    def energy(self, state: State, x: torch.Tensor) -> torch.Tensor:
        """Weighted co-content, (B,), watts; ideal diodes add none."""
        return co_content(self.layout, self.voltages(state, x), self.conductance, self.current)

    def force(self, state: State, x: torch.Tensor) -> State:
        """Weighted current that is missing at each unknown, (B, n), amperes."""
        phase = self.phase(Inputs(x, self._prepared(x)))
        return (torch.from_numpy(phase.currents(array(state[0])).force),)

    def initial_state(self, x: torch.Tensor) -> State:
        """No voltage anywhere, or the nearest to it that ideal diodes allow."""
        return self.project((torch.zeros(len(x), self.layout.n, dtype=torch.float64),))

    def outputs(self, state: State) -> torch.Tensor:
        """Voltages of the output nodes, or differences of two, (B, n_out)."""
        if self._layout is None:
            read = self.voltages(state, torch.empty(0))[:, torch.from_numpy(self.output_nodes)]
            return read[..., 0] - read[..., 1]
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

    def check_input(self, x: torch.Tensor) -> None:
        if not isinstance(x, torch.Tensor) or x.ndim != 2 or x.shape[1] != self.n_sources or not len(x):
            was = tuple(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__
            raise argument_error("x", f"be a tensor (batch, {self.n_sources})", was)
        for name, tensor in (("x", x), ("system", self.conductance)):
            if tensor.dtype != torch.float64 or tensor.device.type != "cpu":
                raise argument_error(
                    name, "be float64 on the CPU for a Circuit", f"{tensor.dtype} on {tensor.device}"
                )
        super().check_input(x)

    def prepare(self, x: torch.Tensor) -> Inputs:
        self.check_input(x)
        return Inputs(x, self._prepared(x))

    def _prepared(self, x: torch.Tensor) -> PreparedCircuit:
        return prepare(self.layout, x.detach().numpy(), array(self.conductance), currents_of(self.current))

    def phase(self, inputs: Inputs, origin: State | None = None, balanced: bool = False) -> CircuitPhase:
        return CircuitPhase(self, inputs, origin, balanced)

    def solvers(self, phase: Phase) -> Mapping[str, Any]:
        return SOLVERS

    def motion(self, phase: Phase) -> Motion:
        assert isinstance(phase, CircuitPhase)
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
            self.conductance.clamp_(self.least, self.most)


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
    if point.status is not Status.STALLED:
        return point
    # Kiloamperes cannot cancel to a picoampere, nor can a voltage be set finer than its last digit: where rounding
    # is more than what was asked for, it is what can be asked for.
    known: PreparedCircuit = circuit.prepare(volts).cache
    net, u = circuit.layout.net, point.state[0]
    _, across = kernels.linear_force(u.numpy(), known.offset, known.injected, known.conductance, net)
    flow, _ = kernels.junctions(across, known.junction_values, net)
    size = float(kernels.throughput(u.numpy(), known.offset, known.conductance, flow, net).max())
    (loads,) = circuit.curvature_diagonal(point.state, volts)
    digit = torch.finfo(u.dtype).eps * float((loads / circuit.layout.unknown_weight * u.abs()).max())
    allowed = max(tolerance or TOLERANCE, RELATIVE * size, digit) / scale
    good = bool((point.residual <= allowed).all())
    return replace(point, tolerance=allowed, status=Status.CONVERGED) if good else point


def _told_point(circuit: Circuit, point: OperatingPoint, volts: torch.Tensor, asked: float) -> OperatingPoint:
    """A point where leakage holds nodes, followed to where steps are small in volts, or said not to be told."""
    begun = circuit.voltages(point.state, volts).numpy()
    if not np.isfinite(begun).all():
        return point
    found = mna.operating_point(circuit.parts, volts.numpy(), start=begun, tolerance=asked)
    if not (found.converged.all() or found.untold):
        if bool(point.converged.all()):
            return point
        return replace(point, residual=_residual(found) / circuit.residual_scale)  # amperes, not steps in volts
    net, offset = circuit.layout.net, circuit._offset(volts)
    u = point.state[0].numpy().copy()
    for node in np.argsort(np.abs(net.scale)):  # the largest share of an unknown comes last, and counts
        if net.unknown[node] >= 0 and net.scale[node]:
            u[:, net.unknown[node]] = (found.voltages[:, node] - offset[:, node]) / net.scale[node]
    return replace(
        point,
        residual=_residual(found) / circuit.residual_scale,
        tolerance=found.tolerance / circuit.residual_scale,
        iterations=point.iterations + found.iterations,
        status=found.status,
        untold=found.untold,
        _state=lambda: (torch.from_numpy(u),),
    )


def _residual(found: mna.Solution) -> torch.Tensor:
    """Residuals (B,), amperes; infinite where small ones say nothing: voltages are not settled, or untold."""
    settled = found.converged | (found.residual > found.tolerance)
    return torch.from_numpy(np.where(settled, found.residual, np.inf))


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


def active_point(
    circuit: Circuit,
    volts: torch.Tensor,
    single: bool,
    start: State | None,
    tolerance: float | None,
    max_iterations: int | None,
) -> OperatingPoint:
    """Operating point of a circuit without an energy, by modified nodal analysis.

    Arguments are those of `relaxed_point`. The state is the voltages of all nodes but ground.
    """
    begun = None if start is None else np.pad(start[0].detach().numpy(), ((0, 0), (1, 0)))  # ground
    found = mna.operating_point(
        circuit.parts,
        volts.numpy(),
        start=begun,
        tolerance=tolerance or TOLERANCE,
        max_iterations=mna.ITERATIONS if max_iterations is None else max_iterations,
    )
    state = (torch.from_numpy(np.ascontiguousarray(found.voltages[:, 1:])),)
    return OperatingPoint(
        residual=_residual(found),
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
