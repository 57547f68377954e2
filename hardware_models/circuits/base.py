"""What all circuits share, with an energy and without one: parts, netlists, graphs, sources and node voltages."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch

from physics_ep.blocks import State
from physics_ep.equilibrium import Equilibrium
from physics_ep.errors import InputError, argument_error, unknown_name
from physics_ep.overrides import require_physics
from physics_ep.placement import OnHost
from physics_ep.tabular import Tabular

from .. import arrays
from ..hopfield.graph import UnitGraph
from ..laws.couplings import COUPLINGS
from ..netlists.netlist import load_netlist, write_netlist
from ..netlists.outputs import output_pairs
from ..netlists.parts import Group, Parts
from ..netlists.resting import conductance_range, resting, restored
from ..netlists.shunts import with_gmin
from ..netlists.suffixes import ON_HOST
from .graphs import ELEMENT_VALUES, LETTERS, graph_of_parts, parts_from_edges, parts_from_networkx
from .operating_point import OperatingPoint

NODE_CAPACITANCE = 1e-12
"""Farad: what circuits have at each unknown where nothing else is given."""


class PartsCircuit(Tabular, OnHost):
    """Base class of circuits that a list of parts describes; a subclass adds the law that the voltages obey.

    Attributes
    ----------
    output_names : tuple of str
        Nodes whose voltages the cost acts on, or v(a,b) for the voltage between two nodes.
    output_nodes : int64 array (n_out, 2)
        Numbers, in the list of parts, of an output's node and of the node whose voltage is subtracted (0, which is
        ground, for the voltage of one node).
    n_sources : int
        Number of voltage sources.
    least, most : float
        Bounds of the conductances that learning keeps to, siemens.
    node_capacitance : float
        Capacitance that `physics_ep.simulate` puts at each unknown, farad.
    has_energy : bool
        Whether an energy describes the circuit; `no_energy_because` says why not.
    unique : bool
        Whether there is never a second operating point, whatever the sources.
    """

    has_energy = False
    example_shape: tuple[int, ...] | None = None
    residual_unit = "A"
    state_unit = "V"
    energy_unit = "W"
    energy_meaning = (
        "the co-content, which voltages minimise: of linear resistors half the power that they take, less what "
        "sources give; no power that is drawn (physics-ep inference tells that)"
    )
    time_unit = "s"
    on_host = ON_HOST
    residual_scale = 1.0
    nudge_scale = 1.0
    no_energy_because = ""
    conductance: torch.nn.Parameter
    examples: tuple[torch.Tensor, torch.Tensor]
    """Inputs and targets, where whoever made the circuit brings some."""
    stands_in = False
    """Whether `examples` are what a netlist itself shows, with targets that nobody gave: data go before them."""
    _shown: torch.Tensor | None = None
    """Numbers of the voltage sources that inputs set; None for all of them."""

    def __init__(
        self,
        parts: Parts,
        outputs: Sequence[str | Sequence[str]],
        least: float,
        most: float,
        node_capacitance: float,
        gmin: float,
        inputs: Sequence[str] = (),
    ) -> None:
        super().__init__()
        check_options(parts, least, most, node_capacitance)
        self._given = with_gmin(parts, gmin)
        self._parts = resting(self._given)
        self.least, self.most = float(least), float(most)
        self.node_capacitance = float(node_capacitance)
        self.output_names, self.output_nodes = output_pairs(outputs, parts.nodes)
        sources = parts.group("voltage_source").names
        self.n_sources = len(sources)
        shown = _input_names(inputs, sources)
        self._shown = None if shown == sources else torch.tensor([sources.index(name) for name in shown])
        self.example_shape = (len(shown),)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__dict__.setdefault("_given", self._parts)  # pickles of before memristors with a state

    @classmethod
    def from_netlist(cls, path: str | os.PathLike[str], **options: Any) -> Self:
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
        own = next(c for c in type(self).__mro__ if c.__module__.startswith("hardware_models."))
        require_physics(self, own, "circuit")
        shown = () if self._shown is None else self.input_names
        write_netlist(path, self.parts, title=title, outputs=self.output_names, inputs=shown, overwrite=overwrite)

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
    ) -> Self:
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
        """The circuit as a table, one row for each part: its name, kind, nodes and values."""
        return self.parts.records()

    @property
    def parts(self) -> Parts:
        """The parts list of the circuit, with the present values of its parameters."""
        raise NotImplementedError

    def _restored(self, groups: dict[str, Group]) -> Parts:
        """Parts with these groups in place of the circuit's own, memristors with a state as such."""
        return restored(self._given, Parts(self._parts.nodes, groups, self._parts.initial))

    def _limit_conductances(self) -> None:
        """Clip the conductances to [least, most], and memristors with a state to their own range."""
        self.conductance.clamp_(self.least, self.most)
        low, high = (torch.from_numpy(bound) for bound in conductance_range(self._given))
        first = len(self._given.group("resistor"))
        memristors = self.conductance[first : first + len(low)]
        memristors.copy_(memristors.clamp(low, high))

    def operating_point(
        self,
        inputs: Any = None,
        *,
        start: State | None = None,
        tolerance: float | None = None,
        max_iterations: int | None = None,
    ) -> OperatingPoint:
        """Voltages at which Kirchhoff's laws hold, capacitors open."""
        raise NotImplementedError

    @property
    def unique(self) -> bool:
        """Whether there is never a second operating point, whatever the sources: not known of active parts."""
        return False

    def voltages(self, state: State, x: torch.Tensor) -> torch.Tensor:
        """Voltages (B, n_nodes) of all nodes in the order of the parts list, ground first."""
        raise NotImplementedError

    @property
    def input_names(self) -> tuple[str, ...]:
        """Voltage sources whose voltages are the inputs, in the order of x's columns."""
        names = self._parts.group("voltage_source").names
        return names if self._shown is None else tuple(names[k] for k in self._shown.tolist())

    def sources(self, x: torch.Tensor) -> torch.Tensor:
        """Voltages (B, n_sources) of all voltage sources at inputs x: those that x does not set keep their own."""
        if self._shown is None:
            return x
        own = torch.from_numpy(self._parts.group("voltage_source").values[:, 0]).to(x)
        return own.expand(len(x), -1).index_copy(1, self._shown, x)

    def _volts(self, inputs: Any) -> torch.Tensor:
        if inputs is None:
            own = self._parts.group("voltage_source").values[:, 0]
            return torch.from_numpy(own[None].copy())[:, slice(None) if self._shown is None else self._shown]
        try:
            volts = torch.as_tensor(inputs)
            volts = volts.detach().to(torch.complex128 if volts.is_complex() else torch.float64)
        except (TypeError, ValueError) as error:
            raise InputError(f"Argument inputs must hold numbers, but was {type(inputs).__name__}.") from error
        count = len(self.input_names)
        if volts.ndim != 2 or volts.shape[1] != count or not len(volts):
            raise argument_error("inputs", f"have the shape (B, {count})", tuple(volts.shape))
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

    def check_input(self, x: torch.Tensor) -> None:
        count = len(self.input_names)
        if not isinstance(x, torch.Tensor) or x.ndim != 2 or x.shape[1] != count or not len(x):
            was = tuple(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__
            raise argument_error("x", f"be a tensor (batch, {count})", was)
        for name, tensor in (("x", x), ("system", self.conductance)):
            if tensor.dtype != torch.float64 or tensor.device.type != "cpu":
                raise argument_error(
                    name, "be float64 on the CPU for a Circuit", f"{tensor.dtype} on {tensor.device}"
                )
        super().check_input(x)  # type: ignore[misc]


def _input_names(given: Sequence[str], sources: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the voltage sources that inputs set; all where none are given."""
    names = tuple(given)
    for name in names:
        if name not in sources:
            raise unknown_name("inputs", str(name), sources)
    if len(set(names)) < len(names):
        raise argument_error("inputs", "be voltage sources, each once", names)
    return names or sources


def check_options(parts: object, least: float, most: float, node_capacitance: float) -> None:
    """Refuse a circuit's arguments that are not as it wants them.

    Raises
    ------
    InputError
    """
    if not isinstance(parts, Parts):
        raise argument_error("parts", "be Parts, as Parts.collect makes them", type(parts).__name__)
    for name, value in (("least", least), ("most", most), ("node_capacitance", node_capacitance)):
        if not value > 0:
            raise argument_error(name, "be positive", value)
    if not least <= most:
        raise argument_error("least", "not exceed most, in siemens", f"{least:g}, above {most:g}")
