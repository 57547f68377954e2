"""Graphs of units: any graph of Hopfield couplings, in float64, swept node by node by compiled kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from physics_ep.blocks import State, largest
from physics_ep.dynamics.motion import Motion
from physics_ep.errors import InputError, argument_error
from physics_ep.nudging import Nudge
from physics_ep.placement import OnHost
from physics_ep.system import EnergySystem, Inputs, Phase
from physics_ep.units import UNITS

from ..arrays import array, columns, groups, integers, names, nodes, numbers
from ..laws.couplings import COUPLINGS
from ..layers.flows import Laws, unit_flows
from . import graph_kernels as kernels
from .hosted import UNIT_GRAPHS

HOLD = 1e-30
"""What is left of the drive of a clamped output: nothing, beside a pull over this."""

UNIT_FUNCTIONS = {name: unit.make(torch) for name, unit in UNITS.items()}
COUPLING_FUNCTIONS = {name: coupling.make(torch) for name, coupling in COUPLINGS.items()}


class UnitGraph(OnHost, EnergySystem):
    """Graph of units joined by couplings; build one with `from_edges`.

        E = sum_i [Psi_i(s_i) - b_i s_i] + sum_edges e(w_ij, s_i, s_j),

    over free nodes i (clamped nodes enter the pair energies only), with the laws of `physics_ep.units`.
    Dimensionless, float64, on the CPU. The state is one block (B, n_free), free nodes in ascending order of their
    numbers, which is also the fixed order in which a sweep updates them.

    Parameters of the module: `weight` (m,), one an edge, and `bias` (n_free,).

    Attributes
    ----------
    free, inputs, output_nodes : int64 array
        Node numbers: of the state's columns, of x's columns, and of the outputs' columns.
    units : tuple of str
        Unit of each free node.
    couplings : tuple of str
        Coupling of each edge.
    """

    on_host = UNIT_GRAPHS
    # Descent settles where strong couplings leave several minima; there Anderson acceleration cycles.
    default_solver = "coordinate"
    residual_scale = 1.0
    nudge_scale = 1.0
    bounded = True
    clamps = True
    state_size = 1.0
    """State that its units' laws count as 1."""

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
    ) -> None:
        super().__init__()
        self.units = tuple(units)
        self.couplings = tuple(couplings)
        self.inputs = inputs
        self.output_nodes = outputs
        n_free = len(self.units)
        self.free = np.setdiff1d(np.arange(n_free + len(inputs)), inputs)
        # Columns of cat(state, x), in which everything below is counted.
        column = np.empty(n_free + len(inputs), dtype=np.int64)
        column[self.free] = np.arange(n_free)
        column[inputs] = n_free + np.arange(len(inputs))
        self.graph = kernels.build_graph(
            column[edges],
            np.array([COUPLINGS[name].kind for name in self.couplings], dtype=np.int64),
            np.array([UNITS[name].kind for name in self.units], dtype=np.int64),
        )
        self.output_columns = torch.from_numpy(column[outputs])
        self.unit_groups = groups(self.units)
        self.smooth = "hard_sigmoid" not in self.units
        self.coupling_groups = groups(self.couplings)
        low, high = zip(*(UNITS[name].bounds for name in self.units), strict=True)
        self.low, self.high = torch.tensor(low, dtype=torch.float64), torch.tensor(high, dtype=torch.float64)
        # Where potentials have finite slopes.
        quadratic = torch.tensor([UNITS[name].quadratic for name in self.units])
        margin = torch.where(quadratic, 0.0, 4 * torch.finfo(torch.float64).eps)
        self.inner_low, self.inner_high = self.low + margin, self.high - margin
        self.weight = nn.Parameter(torch.from_numpy(weights))
        self.bias = nn.Parameter(torch.from_numpy(biases))

    @classmethod
    def from_edges(
        cls,
        n_nodes: int,
        edges: Any,
        weights: Any,
        units: str | Sequence[str] = "hard_sigmoid",
        *,
        inputs: Sequence[int] = (),
        outputs: Sequence[int] = (),
        biases: Any = None,
        couplings: str | Sequence[str] = "hopfield",
    ) -> UnitGraph:
        """Build a graph from a list of edges.

        Parameters
        ----------
        n_nodes : int
            Nodes are numbered 0 ... n_nodes - 1.
        edges : array_like of int (m, 2)
            The two nodes of each edge, in either order. Edges between the same nodes add up.
        weights : array_like of float (m,)
            Weight of each edge, in the unit of its coupling.
        units : str or sequence of str (n_free,)
            Unit of all free nodes, or of each in ascending order of node number (`physics_ep.units.UNITS`).
        inputs : sequence of int
            Clamped nodes: x[:, k] is the value of node inputs[k]. All others are free.
        outputs : sequence of int
            Free nodes that the cost acts on, at least one: outputs(state)[:, k] is the state of node outputs[k].
        biases : array_like of float (n_free,), optional
            Biases of the free nodes, in ascending order. Default 0.
        couplings : str or sequence of str (m,)
            Coupling of all edges, or of each (`laws.COUPLINGS`).

        Returns
        -------
        UnitGraph

        Raises
        ------
        InputError
            If an argument is not as above.
        """
        if isinstance(n_nodes, bool) or not isinstance(n_nodes, int | np.integer) or n_nodes < 1:
            raise argument_error("n_nodes", "be an integer of at least 1", n_nodes)
        ends = integers("edges", edges, n_nodes)
        if ends.size == 0:
            ends = ends.reshape(0, 2)
        if ends.ndim != 2 or ends.shape[1] != 2:
            raise argument_error("edges", "have the shape (m, 2)", ends.shape)
        loops = np.flatnonzero(ends[:, 0] == ends[:, 1])
        if loops.size:
            raise argument_error("edges", "join two different nodes", f"a loop at node {ends[loops[0], 0]}")
        clamped = nodes("inputs", inputs, n_nodes)
        read = nodes("outputs", outputs, n_nodes)
        n_free = n_nodes - clamped.size
        if n_free == 0:
            raise argument_error("inputs", "leave at least one node free", f"all {n_nodes} nodes")
        if read.size == 0:
            raise argument_error("outputs", "name at least one node", "empty")
        if np.isin(read, clamped).any():
            raise argument_error("outputs", "be free nodes", f"the input {read[np.isin(read, clamped)][0]}")
        return cls(
            ends,
            numbers("weights", weights, len(ends)),
            numbers("biases", np.zeros(n_free) if biases is None else biases, n_free),
            units=names("units", units, n_free, UNITS),
            couplings=names("couplings", couplings, len(ends), COUPLINGS),
            inputs=clamped,
            outputs=read,
        )

    # -- the contract -----------------------------------------------------------------------------------------

    def energy(self, state: State, x: torch.Tensor) -> torch.Tensor:
        (s,) = state
        values = torch.cat([s, x], 1)
        total = -(s @ self.bias)
        for name, index in self.unit_groups:
            total = total + UNIT_FUNCTIONS[name].potential(s[:, index]).sum(1)
        ends = torch.from_numpy(self.graph.ends)
        for name, index in self.coupling_groups:
            a, b = values[:, ends[index, 0]], values[:, ends[index, 1]]
            total = total + COUPLING_FUNCTIONS[name].energy(self.weight[index], a, b).sum(1)
        return total

    def force(self, state: State, x: torch.Tensor) -> State:
        """-dE/ds, (B, n_free): drive minus Psi'(s), infinite where a tanh or logistic unit sits on a bound."""
        drive = self.drives(state, x)
        return (drive - self._by_unit("inverse", state[0].detach()),)

    def initial_state(self, x: torch.Tensor) -> State:
        """The state in which every unit is at rest: its response to no drive."""
        return (self.respond(torch.zeros(x.shape[0], len(self.units), dtype=torch.float64)),)

    def outputs(self, state: State) -> torch.Tensor:
        return state[0][:, self.output_columns]

    def project(self, state: State) -> State:
        return (torch.clamp(state[0], self.low, self.high),)

    def free_variables(self, state: State, x: torch.Tensor) -> State | None:
        # Bounds hold hard sigmoid units only: tanh and logistic ones approach theirs.
        held = torch.tensor([name == "hard_sigmoid" for name in self.units])
        if not bool(held.any()):
            return None
        drive = self.drives(state, x)
        return (~held | ((drive > self.low) & (drive < self.high)),)

    def check_input(self, x: torch.Tensor) -> None:
        if not isinstance(x, torch.Tensor) or x.ndim != 2 or x.shape[1] != len(self.inputs):
            was = tuple(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__
            raise argument_error("x", f"be a tensor (batch, {len(self.inputs)})", was)
        for name, tensor in (("x", x), ("system", self.weight)):
            if tensor.dtype != torch.float64 or tensor.device.type != "cpu":
                where = f"{tensor.dtype} on {tensor.device}"
                raise argument_error(name, "be float64 on the CPU for a UnitGraph", where)
        super().check_input(x)

    def phase(self, inputs: Inputs, origin: State | None = None, balanced: bool = False) -> Phase:
        return UnitGraphPhase(self, inputs, origin, balanced)

    def flows(self, phase: Phase) -> Mapping[str, Callable[[Phase], Motion]]:
        """Motions in time by name: 'hopfield', and 'rate' where nudged units have exact updates."""
        flows = unit_flows(
            phase,
            Laws(
                lambda state: (self.drives(state, phase.x),),
                lambda drives: (self.respond(drives[0]),),
                lambda state: (self._by_unit("inverse", state[0]),),
            ),
        )
        if isinstance(phase, UnitGraphPhase) and phase.follows_cost:
            del flows["rate"]
        return flows

    def contrast(
        self, free: State, plus: State, minus: State | None, x: torch.Tensor, weight: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The contrast of `EnergySystem.contrast`: products of a difference and a mean, summed over the batch."""
        with torch.no_grad():
            (s,), (up,) = free, plus
            base = s if minus is None else s + minus[0]
            shift = up if minus is None else up - minus[0]
            still = torch.zeros_like(x)
            per_edge = kernels.weight_contrast(
                columns(torch.cat([base, x], 1)), columns(torch.cat([shift, still], 1)), array(weight), self.graph
            )
            found = {"weight": torch.from_numpy(per_edge), "bias": -(weight @ shift)}
        return {name: g for name, g in found.items() if getattr(self, name).requires_grad}

    # -- helpers ----------------------------------------------------------------------------------------------

    def drives(self, state: State, x: torch.Tensor) -> torch.Tensor:
        """Compute the drive of each free node i, (B, n_free): its bias b_i, less the sum of de/ds_i over its edges,
        where e is the energy of an edge. `state` is one block of free nodes (B, n_free); `x` has the clamped ones,
        (B, n_clamped)."""
        values = array(torch.cat([state[0], x], 1))
        return torch.from_numpy(kernels.drives(values, array(self.weight), array(self.bias), self.graph))

    def respond(self, drive: torch.Tensor) -> torch.Tensor:
        """State of each free node under its drive, (B, n_free)."""
        return self._by_unit("response", drive)

    def _by_unit(self, function: str, argument: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(argument)
        for name, index in self.unit_groups:
            out[:, index] = getattr(UNIT_FUNCTIONS[name], function)(argument[:, index])
        return out


class UnitGraphPhase(Phase):
    """Gauss-Seidel sweeps over the nodes, in the state or carried in the displacement from an origin.

    Each update is the exact minimum of F over its node, so a sweep cannot raise F. A sweep certifies the state it
    starts from: it returns that as z, with the largest |sigma(p) - s| of it, measured on the way.

    A cost that is quadratic in each output keeps this form on linear and hard sigmoid outputs (the squared error:
    s = sigma((p + beta y) / (1 + beta))), a constant force on any. Under any other nudge a sweep minimises an
    energy above F that touches it at the present outputs o: there beta C is replaced by its tangent and k D, with k
    a bound on |beta C''| and D(s) = Psi(s) - Psi(o) - Psi'(o) (s - o) the unit's own distance from o (Bauschke,
    Bolte and Teboulle 2017, section 3: C is smooth relative to Psi, as Psi'' >= 1). The minimum over an output,

        s = sigma((p + k Psi'(o) - beta dC(o)) / (1 + k)),

    lowers F, and stands still where the force vanishes, whatever k is.
    """

    system: UnitGraph
    exact_updates = True
    carries_displacements = True

    def __init__(self, system: UnitGraph, inputs: Inputs, origin: State | None, balanced: bool) -> None:
        super().__init__(system, inputs, origin, balanced)
        self._clamped = columns(inputs.x)
        self._pull = kernels.Pull(np.full(len(system.units), -1), np.empty((0, 0)), np.empty((0, 0)))
        self._bound: torch.Tensor | None = None
        if self.origin is not None:
            drive = system.drives(self.origin, inputs.x)
            settled = system.respond(drive)
            mismatch = settled - self.origin[0]
            self._settled = settled if balanced else self.origin[0]
            self._anchor = drive
            self._origin = (
                columns(torch.cat([self.origin[0], inputs.x], 1)),
                columns(drive),
                columns(torch.zeros_like(drive) if balanced else mismatch),
            )

    def nudged(self, nudge: Nudge | None) -> Phase:
        twin = super().nudged(nudge)
        assert isinstance(twin, UnitGraphPhase)
        if twin.nudge is not None:
            twin._bound = None if self._closed(twin.nudge) else self._steepest(twin.nudge)
            twin._pull = self._pulled(twin.nudge) if twin._bound is None else self._pull
        return twin

    def energy(self, z: State) -> torch.Tensor:
        state = self.state(z)
        values = array(torch.cat([state[0], self.x], 1))
        weight, bias = array(self.system.weight), array(self.system.bias)
        total = torch.from_numpy(kernels.energies(values, weight, bias, self.system.graph))
        if self.nudge is None or self.nudge.cost.holds:
            return total
        return total + self.nudge.energy(self.system.outputs(state))

    def force(self, z: State) -> State:
        """sigma(p) - s, (B, n_free): the force in the units' own metric, finite at saturation."""
        return (self._swept(z)[1],)

    def project(self, z: State) -> State:
        if self.origin is None:
            return self.system.project(z)
        return (torch.clamp(z[0], self.system.low - self.origin[0], self.system.high - self.origin[0]),)

    def interior(self, z: State) -> State:
        shift = 0.0 if self.origin is None else self.origin[0]
        return (torch.clamp(z[0], self.system.inner_low - shift, self.system.inner_high - shift),)

    def own_rates(self, z: State) -> State | None:
        if all(UNITS[name].quadratic for name, _ in self.system.unit_groups):
            return None
        return (self.system._by_unit("curvature", self.state(z)[0]),)

    def interface(self, z: State) -> State:
        return z

    def sweep(self, u: State) -> tuple[State, State, torch.Tensor]:
        moved, gap = self._swept(u)
        return (moved,), u, largest((gap,)) / self.system.residual_scale

    def _swept(self, z: State) -> tuple[torch.Tensor, torch.Tensor]:
        system, start, pull = self.system, array(z[0]), self._pull_at(z)
        weight, graph, width = array(system.weight), system.graph, kernels.chunk_width(len(start))
        if self.origin is None:
            swept = kernels.sweep(start, self._clamped, weight, array(system.bias), graph, pull, width)
        else:
            swept = kernels.displaced_sweep(start, *self._origin, weight, graph, pull, width)
        return torch.from_numpy(swept[0]), torch.from_numpy(swept[1])

    def _closed(self, nudge: Nudge) -> bool:
        """Whether the nudged output units have an exact update."""
        if nudge.cost.holds:
            return True
        linear = nudge.linear(self.dtype)
        if linear is None:
            return False
        units = {self.system.units[i] for i in self.system.output_columns.tolist()}
        return all(UNITS[name].quadratic for name in units) or not bool(linear[0].any())

    @property
    def follows_cost(self) -> bool:
        """Whether sweeps take the nudge by its tangent: its outputs then have no update in closed form."""
        return self._bound is not None

    def _steepest(self, nudge: Nudge) -> torch.Tensor:
        """Bound on |beta C''| of each example, (B, 1): the cost's own, else its largest at the present outputs."""
        outputs = self.system.outputs(self.origin if self.origin is not None else self.start())
        if nudge.cost.steepest is not None:
            most = torch.full_like(outputs[:, :1], nudge.cost.steepest)
        else:
            axes = torch.eye(outputs.shape[1], dtype=outputs.dtype)
            columns = [nudge.cost.curvature(outputs, nudge.y, e.expand_as(outputs).clone()) for e in axes]
            most = torch.linalg.matrix_norm(torch.stack(columns, 2), ord=2)[:, None]
        return (nudge.column(outputs) * most).abs()

    def _pull_at(self, z: State) -> kernels.Pull:
        """The nudge as it acts on a sweep from z: the tangent of the cost and the distance from z."""
        if self._bound is None:
            return self._pull
        assert self.nudge is not None
        at, outputs = self.system.output_columns, self.system.outputs(self.state(z))
        force = -self.nudge.column(outputs) * self.nudge.cost.gradient(outputs, self.nudge.y)
        return self._pull_towards(force, self._bound * self._way(z)[:, at], self._bound)

    def _pull_towards(self, force: torch.Tensor, hold: torch.Tensor, bound: torch.Tensor) -> kernels.Pull:
        """A pull of forces on the outputs, and of what holds them where they are with a stiffness `bound`."""
        return kernels.Pull(self._slots(), columns(force + hold), columns((1 / (1 + bound)).expand_as(force)))

    def _way(self, z: State) -> torch.Tensor:
        """Psi' of each unit at z, less its drive at the origin: (B, n_free), finite at saturation."""
        units, unit = self.system, self.system.state_size
        edge = torch.finfo(z[0].dtype).eps * unit
        s = z[0] if self.origin is None else self._settled + z[0]
        slope = units._by_unit("inverse", torch.clamp(s, units.low + edge, units.high - edge) / unit)
        return slope if self.origin is None else slope - self._anchor

    def _pulled(self, nudge: Nudge) -> kernels.Pull:
        if nudge.cost.holds:
            return self._holding(nudge)
        at = self.system.output_columns
        linear = nudge.linear(self.dtype)
        assert linear is not None
        stiffness, push = linear
        if bool((stiffness <= -1).any()):
            least = float(stiffness.min())
            raise argument_error("beta", "exceed -1, where an output unit loses its minimum", least)
        if self.origin is not None:
            # (p + da + f) / (1 + k) = p + (da + f - k p) / (1 + k), force f, stiffness k: f - k p is the pull at p.
            anchor = self._anchor[:, at]
            push = -nudge.column(anchor) * nudge.cost.gradient(anchor, nudge.y.to(self.dtype))
        return kernels.Pull(self._slots(), columns(push), columns(1 / (1 + stiffness)))

    def _holding(self, nudge: Nudge) -> kernels.Pull:
        """A pull beside which drives are nothing: it holds the outputs at (1 - beta) outputs + beta y."""
        system, at = self.system, self.system.output_columns
        if self.origin is None:
            raise InputError("Argument nudge must act on a free state that is known, where it clamps the outputs.")
        outputs = system.outputs(self.origin)
        target = self.origin[0].clone()
        target[:, at] = outputs + nudge.column(outputs) * (nudge.y - outputs)
        if bool(((target < system.low) | (target > system.high)).any()):
            low, high = float(system.low[at].max()), float(system.high[at].min())
            was = f"one at {float(target[:, at].min()):g}, another at {float(target[:, at].max()):g}"
            raise argument_error(
                "y", f"leave the clamped outputs within their units' bounds, {low:g} to {high:g}", was
            )
        way = (system._by_unit("inverse", target) - self._anchor)[:, at]
        return kernels.Pull(self._slots(), columns(way / HOLD), columns(torch.full_like(way, HOLD)))

    def _slots(self) -> np.ndarray:
        """Row of an output node in the nudge's arrays, -1 for any other."""
        slot, at = np.full(len(self.system.units), -1), self.system.output_columns
        slot[at.numpy()] = np.arange(len(at))
        return slot
