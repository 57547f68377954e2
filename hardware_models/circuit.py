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
from physics_ep.equilibrium import Equilibrium
from physics_ep.errors import InputError, argument_error, unknown_name
from physics_ep.motion import Motion
from physics_ep.system import EnergySystem, Inputs, Phase

from . import element_kernels as kernels
from .arrays import array
from .circuit_layout import ORDER, Layout, Prepared, currents_of, lay_out, limits, prepare
from .co_contents import co_content, compiled_co_content, contrast
from .operating_points import OperatingPoint, active_point, relaxed_point
from .parts import Parts
from .reduction import reduce


class Circuit(EnergySystem):
    """A circuit of the parts of `hardware_models.parts`.

    Inputs x (B, n_sources) are the voltages of the voltage sources, in the order of the parts list. The state is
    one block (B, n), volts: one voltage of each group of nodes that sources and amplifiers tie together
    (`hardware_models.reduction`). The energy is the co-content, weighted where there are bidirectional amplifiers:
    watts; the force is the current that is missing in Kirchhoff's law, amperes; a nudge of beta siemens draws
    beta (y - v) amperes into an output node, as a conductance to a source at y does.

    Passive circuits, with or without bidirectional amplifiers between stages, have a convex co-content: where a
    conductor leads from every node to a source (`unique`), there is one operating point, and Newton's method finds
    it from anywhere. Circuits with other active parts (vcvs, vccs, cccs, rectifier), or with amplifiers in a cycle,
    have no energy (`has_energy`): they have operating points, found by modified nodal analysis, but there may be
    several or none, and they cannot be trained.

    Capacitors carry no direct current: see `hardware_models.circuit_transients`.

    Parameters
    ----------
    parts : Parts
    outputs : sequence of str
        Nodes that the cost acts on, none of them tied to a voltage source.
    least, most : float
        Bounds of the conductances that learning keeps to (`constrain`), siemens.
    node_capacitance : float
        Farad: what `physics_ep.simulate` puts at each unknown, to follow how the circuit settles.
    factorization : str, optional
        'dense', 'banded' or 'sparse'; default the one that is estimated to be fastest.

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
    default_solver = "newton"
    default_max_iterations = 200

    def __init__(
        self,
        parts: Parts,
        *,
        outputs: Sequence[str] = (),
        least: float = 1e-12,
        most: float = float("inf"),
        node_capacitance: float = 1e-12,
        factorization: str | None = None,
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
        self._parts = parts
        self.least, self.most = float(least), float(most)
        self.node_capacitance = float(node_capacitance)
        self.output_names = (outputs,) if isinstance(outputs, str) else tuple(outputs)
        self.n_sources = len(parts.group("voltage_source"))
        reduction, self.no_energy_because = reduce(parts)
        learnt = [parts.group("resistor").values[:, 0], parts.group("memristor").values[:, 0]]
        self.conductance = nn.Parameter(torch.from_numpy(np.concatenate(learnt)))
        sources = parts.group("current_source").values[:, 0]
        self.current = nn.Parameter(torch.from_numpy(sources.copy())) if len(sources) else None
        self._layout = None if reduction is None else lay_out(parts, reduction, factorization)
        self._columns = {name: k for k, name in enumerate(parts.nodes)}
        self._place_outputs()
        if self._layout is not None:
            self._set_scales(self._layout)

    def _place_outputs(self) -> None:
        nodes = []
        for name in self.output_names:
            if name not in self._columns:
                raise unknown_name("outputs", name, self._columns)
            nodes.append(self._columns[name])
        self.output_nodes = np.array(nodes, dtype=np.int64)
        if self._layout is None:
            return
        reduction = self._layout.reduction
        tied = np.diff(reduction.sources.indptr)[self.output_nodes] > 0
        for k in np.flatnonzero(tied | (reduction.unknown[self.output_nodes] < 0)):
            raise argument_error(
                "outputs", "be nodes that no voltage source ties to another", self.output_names[int(k)]
            )
        self.output_columns = torch.from_numpy(reduction.unknown[self.output_nodes])
        self.output_scale = torch.from_numpy(reduction.scale[self.output_nodes])

    def _set_scales(self, layout: Layout) -> None:
        net = layout.net
        conductance = array(self.conductance)[: layout.counts[0]]
        diagonal, _ = kernels.resistor_matrix(conductance, layout.n, len(layout.pattern.pairs), net)
        self.unknown_weight = torch.from_numpy(layout.reduction.weight[layout.reduction.representative])
        loads = diagonal / self.unknown_weight.numpy()
        loads = np.where(loads > 0, loads, np.median(loads[loads > 0]) if (loads > 0).any() else 1.0)
        at = self.output_columns.numpy() if len(self.output_columns) else np.arange(layout.n)
        self.nudge_scale = float(np.median(loads[at])) if layout.n else 1.0
        self.residual_scale = max(self.nudge_scale, 1e-4 * float(loads.max(initial=0.0)))
        self.time_constant = self.node_capacitance / float(loads.max(initial=self.nudge_scale))
        smooth = not (len(layout.bounds[0]) or layout.counts[ORDER.index("piecewise_diode")])
        self.smooth = smooth

    # -- making one, and writing it down ----------------------------------------------------------------------

    @classmethod
    def from_netlist(cls, path: str | os.PathLike[str], **options: Any) -> Circuit:
        """Circuit of a netlist in SPICE's language (`hardware_models.netlist.load_netlist`).

        Parameters
        ----------
        path : path
        **options
            As for `Circuit`. Outputs are by default those that a comment `* outputs: ...` names.

        Raises
        ------
        InputError
            If the file cannot be read, a line is not understood, or the circuit is not as `Circuit` wants it.
        """
        from .netlist import load_netlist

        found = load_netlist(path)
        return cls(found.parts, **{"outputs": found.outputs, **options})

    def to_netlist(self, path: str | os.PathLike[str], *, title: str = "circuit") -> None:
        """Write the circuit, its parameters as they are now, as a netlist that ngspice reads."""
        from .netlist import write_netlist

        write_netlist(path, self.parts, title=title, outputs=self.output_names)

    @classmethod
    def from_edges(cls, n_nodes: int, edges: Any, weights: Any, units: Any = None, **options: Any) -> Any:
        """Circuit from a list of edges: see `hardware_models.circuit_graphs.circuit_from_edges`."""
        from .circuit_graphs import circuit_from_edges

        return circuit_from_edges(cls, n_nodes, edges, weights, units, **options)

    @classmethod
    def from_networkx(cls, graph: Any, **options: Any) -> Circuit:
        """Circuit from a networkx graph: see `hardware_models.circuit_graphs.parts_from_networkx`."""
        from .circuit_graphs import circuit_from_networkx

        return circuit_from_networkx(cls, graph, **options)

    def to_networkx(self) -> Any:
        """The circuit as a networkx multigraph: see `hardware_models.circuit_graphs.graph_of_parts`."""
        from .circuit_graphs import graph_of_parts

        return graph_of_parts(self.parts, self.output_names)

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
        return Parts(self._parts.nodes, groups)

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
            Where to start.
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
            Of `operating_point`, or of `relax` or EP; those need the inputs.
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
        return self._spread(u) + torch.from_numpy(self._offset(x))

    def _spread(self, u: torch.Tensor) -> torch.Tensor:
        """Node voltages (B, N) that follow the unknowns."""
        reduction = self.layout.reduction
        if not u.shape[1]:
            return u.new_zeros(len(u), len(reduction.unknown))
        column = torch.from_numpy(np.maximum(reduction.unknown, 0))
        return u[:, column] * torch.from_numpy(reduction.scale)

    def _offset(self, x: torch.Tensor) -> np.ndarray:
        return np.ascontiguousarray((self.layout.reduction.sources @ x.detach().numpy().T).T)

    # -- the contract -----------------------------------------------------------------------------------------

    def energy(self, state: State, x: torch.Tensor) -> torch.Tensor:
        """Weighted co-content, (B,), watts; ideal diodes add none."""
        return co_content(self.layout, self.voltages(state, x), self.conductance, self.current)

    def force(self, state: State, x: torch.Tensor) -> State:
        """Weighted current that is missing at each unknown, (B, n), amperes."""
        phase = self.phase(Inputs(x, self._prepared(x)))
        assert hasattr(phase, "currents")
        return (torch.from_numpy(phase.currents(array(state[0])).force),)

    def co_content(self, u: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """`energy` by compiled code, at unknowns u (B, n) and what sources add to the node voltages (B, N)."""
        v = self._spread(torch.from_numpy(u)).numpy() + offset
        return compiled_co_content(self.layout, v, array(self.conductance), currents_of(self.current))

    def initial_state(self, x: torch.Tensor) -> State:
        """No voltage anywhere, or the nearest to it that ideal diodes allow."""
        return self.project((torch.zeros(len(x), self.layout.n, dtype=torch.float64),))

    def outputs(self, state: State) -> torch.Tensor:
        """Voltages of the output nodes, (B, n_out)."""
        if self._layout is None:
            return self.voltages(state, torch.empty(0))[:, torch.from_numpy(self.output_nodes)]
        return state[0][:, self.output_columns] * self.output_scale

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

    def _prepared(self, x: torch.Tensor) -> Prepared:
        return prepare(self.layout, x.detach().numpy(), array(self.conductance), currents_of(self.current))

    def phase(self, inputs: Inputs, origin: State | None = None, balanced: bool = False) -> Phase:
        from .circuit_phases import CircuitPhase

        return CircuitPhase(self, inputs, origin, balanced)

    def solvers(self, phase: Phase) -> Mapping[str, Any]:
        from .newton import SOLVERS

        return SOLVERS

    def motion(self, phase: Any) -> Motion:
        from .circuit_phases import NodeMotion

        return NodeMotion(phase)

    def contrast(
        self, free: State, plus: State, minus: State | None, x: torch.Tensor, weight: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """As `EnergySystem.contrast`: differences of co-contents' derivatives, element by element."""
        self._check_conductances()
        layout = self.layout
        base = free[0] if minus is None else free[0] + minus[0]
        shift = plus[0] if minus is None else plus[0] - minus[0]
        volts, moved = self.voltages((base,), x), self._spread(shift)
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
