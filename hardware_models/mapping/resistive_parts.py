"""A network's paired units as a list of parts: sources, rails, cells, leaks and diodes, node by node.

What `resistive` says in matrices, said in parts, so that another simulator, or modified nodal analysis, can
be asked. Nodes, units counted from 1 and in flat order, layer k from 1:

    x1 ...            inputs, sources                       ref             1 V, a source
    h<k>_1, u<k>_1    units: the drives' cells, what is fed back (h), a leak, a diode
    ah<k>_1, au<k>_1  behind their buffers, where those err; else the units themselves
    w<k>p1, w<k>n1    rails +-A V of the layer's array; s<k>p1 of its skip's, b<k>p of its biases
    tw<k>p1, tw<k>n1  rails +-A (h - u) of what its array feeds back; ts<k>p1 of its skip's
    lo<k>_1, hi<k>_1  bounds of clips, where they are not ground

The cells of an array are there three times, for h, for u and for what is fed back, each with the draws of its own
that the layers have, and a convolution's for each pixel. Diodes are live: a latch that holds the gates of a nudged
phase is no part of it, so that nudged phases are those of `gates="live"`, or of held gates while no unit crosses
its threshold. A nudge is that of the squared error, a conductance beta G from each output to its target
(`nodal.nudges`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from physics_ep.equilibrium import Equilibrium
from physics_ep.errors import InputError, argument_error
from physics_ep.placement import on_host

from ..arrays import array
from ..circuits.circuit import Circuit
from ..devices.model import LINE_RESISTANCES
from ..laws.elements import THERMAL_VOLTAGE
from ..netlists.parts import GROUND, Group, Parts
from ..nodal.points import Solution, operating_point
from .circuit import PairedCircuit
from .node_sums import arrays_of
from .physical_cells import KEPT, SIDES, Copy, Side
from .resistive import ResistivePairs

LEAST = 1e-14
"""Leak, over the conductance of its node, that is taken for none: the rounding of the sum of cells."""
REFERENCE = "ref"


@dataclass(frozen=True)
class PairsCircuit:
    """A mapped network written as a `Circuit` of single parts, with translations between both.

    Attributes
    ----------
    system : PairedCircuit
    circuit : Circuit
        Its outputs are h of the last layer. It has active parts, and so no energy of its own.
    volts : tuple of float
        Volts that one unit of activity is, at the input and in each layer.
    h, u : tuple of int64 array (n_k,)
        Columns of a table of node voltages, in the order of `circuit.parts.nodes`, that hold each layer's units.
    active_h, active_u : tuple of int64 array (n_k,)
        The same behind their buffers.
    """

    system: Any
    circuit: Circuit
    volts: tuple[float, ...]
    h: tuple[np.ndarray, ...]
    u: tuple[np.ndarray, ...]
    active_h: tuple[np.ndarray, ...]
    active_u: tuple[np.ndarray, ...]

    def sources(self, x: torch.Tensor) -> np.ndarray:
        """Volts of the sources for inputs x (B, ...) as they are before converters, (B, n_sources)."""
        volts = array(self.system.encode(x).flatten(1).double()) * self.volts[0]
        constant = self.circuit.parts.group("voltage_source").values[volts.shape[1] :, 0]
        return np.hstack([volts, np.broadcast_to(constant, (len(volts), len(constant)))])

    def targets(self, y: torch.Tensor) -> np.ndarray:
        """Volts of targets (B, n_out) of the squared error."""
        return array(y.double()) * self.volts[-1]

    def siemens(self, beta: float) -> float:
        """The conductance that a nudge of strength beta is."""
        return beta * self.system.total[-1]

    def solve(self, x: torch.Tensor, y: torch.Tensor | None = None, beta: float = 0.0, **options: Any) -> Solution:
        """Operating points by modified nodal analysis, of a nudge by the squared error if there is a y.

        With live diodes a nudged phase can have several; the one that is found is near the start. Where copies
        differ, a free phase can have several too, of which the circuit leaves some at once, and ngspice's `.op` may
        end in one as well: `stability.certify` judges states of the system, which its default solver finds by the
        circuit's course.

        Parameters
        ----------
        x : Tensor (B, ...)
        y : Tensor (B, n_out), optional
        beta : float
        **options
            Options of `points.operating_point`. By default the tolerance is a last digit of the circuit's currents,
            and a nudged phase starts from the free one.

        Returns
        -------
        Solution
            Converged or not: see its `converged`.
        """
        nudge = None if y is None else (self.circuit.output_names, self.targets(y), self.siemens(beta))
        largest = max(t * v for t, v in zip(self.system.total, self.volts[1:], strict=True))
        options = {"tolerance": 1e-13 * largest, **options}
        if nudge is not None and "start" not in options:
            options["start"] = self.solve(x, **options)
        return operating_point(self.circuit.parts, self.sources(x), nudge=nudge, **options)

    def node_voltages(self, state: Sequence[torch.Tensor]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Volts of the nodes h and u of each layer, (B, n_k) each, in a state of the system."""
        system, found = self.system, []
        for units, blocks in ((system.amplifiers_h, state), (system.amplifiers_u, state[system.depth :])):
            rows = zip(units, blocks, self.volts[1:], strict=False)
            found.append([array(a.activation.response(p).flatten(1).double()) * v for a, p, v in rows])
        return found[0], found[1]

    def amperes(self, found: Equilibrium) -> float:
        """What the residual of an equilibrium of the system is at most, as a current that is missing at a node."""
        largest = 0.0
        for k, block in enumerate(found.state):
            layer = k % self.system.depth
            largest = max(largest, float(block.abs().max()) * self.system.total[layer] * self.volts[layer + 1])
        return float(found.residual.max()) * largest

    def gradient(
        self, x: torch.Tensor, plus: np.ndarray, minus: np.ndarray, beta: float
    ) -> dict[str, torch.Tensor]:
        """Centered EP from node voltages: of the batch mean, by the network's parameter names.

        Parameters
        ----------
        x : Tensor (B, ...)
        plus, minus : float64 arrays (B, n_nodes)
            Volts of the phases at +beta and -beta, in the order of `circuit.parts.nodes`.
        beta : float

        Returns
        -------
        dict of str to Tensor
        """
        found: dict[str, torch.Tensor] = {}
        for table, sign in ((plus, 1), (minus, -1)):
            h, u = self._activities(table, self.active_h), self._activities(table, self.active_u)
            below = [self.system.encode(x).double(), *h]
            for name, k, _, link, source in arrays_of(self.system.stack):
                # dE/dW = -(h - u) h^T, of errors that drivers of a gain below one have weakened.
                error = (u[k] - h[k]) * (sign / (2 * beta * len(x) * self.system.weakening(k)))
                if link is None or source is None:
                    value = error.sum([0, *range(2, error.ndim)])
                else:
                    value = link.gradient(below[source + 1], error)
                found[name] = found[name] + value if name in found else value
        return found

    def _activities(self, table: np.ndarray, columns: Sequence[np.ndarray]) -> list[torch.Tensor]:
        rows = zip(self.system.stack, columns, self.volts[1:], strict=True)
        return [torch.from_numpy(table[:, c] / v).unflatten(1, layer.post) for layer, c, v in rows]


def pairs_circuit(system: ResistivePairs) -> PairsCircuit:
    """List the parts of a mapped network's circuit: resistors, diodes, sources and amplifiers.

    Parameters
    ----------
    system : ResistivePairs

    Returns
    -------
    PairsCircuit

    Raises
    ------
    InputError
        If it has max poolings (whose routes depend on the example), too many cells, or an imperfection that is no
        part: noise in time, resistance of wires.
    """
    require_constant_parts(system)
    return _ResistiveDrawing(on_host(system)).finished()


def require_constant_parts(system: PairedCircuit) -> None:
    """Refuse what a list of constant parts cannot be.

    Raises
    ------
    InputError
        If the circuit has max poolings, too many cells, or an imperfection that is no part.
    """
    for k, layer in enumerate(system.stack, 1):
        if layer.link.routed:
            raise InputError(f"Layer {k} has a max pooling, whose switches are not parts of a circuit.")
    device = system.device_model
    for name in (*LINE_RESISTANCES, "selector_resistance", "conductance_noise", "temperature"):
        if (getattr(device, name) or 0) > 0:
            raise argument_error(name, "be 0 for a circuit of constant parts", getattr(device, name))
    if set(system.scales) - set(system.cells):
        raise InputError(
            f"The network is too large to be written part by part: more than {KEPT:,} weights in an array."
        )


class PartsDrawing:
    """A parts list of a mapped network as it grows: nodes, parts of a kind, rails and cells.

    Parameters
    ----------
    system : PairedCircuit
        One whose cells are kept.
    """

    def __init__(self, system: Any) -> None:
        self.system = system
        self.device = system.device_model
        self.volts = tuple(self.device.voltage / full for full in system.full_scales)
        self.names = [GROUND]
        self.rows: dict[str, list[tuple[list[str], np.ndarray, np.ndarray]]] = {}
        self.controls: dict[str, list[str]] = {}
        self.expressions: list[str] = []
        self.count = 0
        sizes = [math.prod(layer.post) for layer in system.stack]
        self.inputs = self.nodes("x", system.sizes[0])
        self.h = [self.nodes(f"h{k}_", n) for k, n in enumerate(sizes, 1)]
        self.u = [self.nodes(f"u{k}_", n) for k, n in enumerate(sizes, 1)]
        # Cells at each node, S.
        self.sums_h, self.sums_u, self.back = ([np.zeros(n) for n in sizes] for _ in range(3))

    def nodes(self, prefix: str, n: int) -> np.ndarray:
        first = len(self.names)
        self.names += [f"{prefix}{i}" for i in range(1, n + 1)]
        return np.arange(first, first + n)

    def add(
        self, kind: str, letter: str, ends: Sequence[Any], values: Sequence[Any] = (), controls: Sequence[str] = ()
    ) -> list[str]:
        """Parts of a kind, numbered as they come; nodes and values broadcast. Their names are given back."""
        table = np.stack(np.broadcast_arrays(*ends), 1).astype(np.int64)
        columns = [np.broadcast_to(v, len(table)) for v in values]
        rows = np.stack(columns, 1) if columns else np.zeros((len(table), 0))
        names = [f"{letter}{self.count + i}" for i in range(1, len(table) + 1)]
        self.count += len(table)
        self.rows.setdefault(kind, []).append((names, table, rows.astype(np.float64)))
        self.controls.setdefault(kind, []).extend(controls)
        return names

    def compute(self, node: str, expression: str) -> None:
        """A source that holds a node at an expression."""
        self.add("behavioural_voltage", "B", (np.array([self.names.index(node)]), 0))
        self.expressions.append(expression)

    def parts(self) -> Parts:
        """All parts so far."""
        groups = {}
        for kind, rows in self.rows.items():
            ends, values = (np.concatenate([r[i] for r in rows]) for i in (1, 2))
            said = tuple(self.expressions) if kind == "behavioural_voltage" else ()
            names = tuple(n for r in rows for n in r[0])
            groups[kind] = Group(names, ends, values, tuple(self.controls[kind]), expressions=said)
        return Parts(tuple(self.names), groups)

    @staticmethod
    def spread(link: Any, cells: Any) -> list[np.ndarray]:
        """Conductances (units above, units below) of a link's cells, plus and minus, a pixel at a time."""
        eye = torch.eye(math.prod(link.pre), dtype=torch.float64).unflatten(1, link.pre)
        return [array(link.apply(g.double(), eye).flatten(1).t()) for g in (cells.plus, cells.minus)]

    @cached_property
    def reference(self) -> int:
        """A node at 1 V."""
        (node,) = self.nodes(REFERENCE, 1)
        self.names[node] = REFERENCE
        self.add("voltage_source", "V", (np.array([node]), 0), (1.0,))
        return int(node)

    def held(self, name: str, volts: np.ndarray | float) -> np.ndarray:
        """Nodes at constant voltages; ground where that is 0, or none."""
        volts = np.atleast_1d(np.asarray(volts, np.float64))
        if not volts.any() or np.isinf(volts).any():
            return np.zeros(len(volts), np.int64)
        found = self.nodes(name, len(volts))
        self.add("vcvs", "E", (found, 0, self.reference, 0), (volts,))
        return found

    def rails(self, name: str, gain: float, plus: np.ndarray, minus: Any) -> tuple[np.ndarray, np.ndarray]:
        """+ and - gain times the voltages from `plus` to `minus`."""
        found = []
        for mark, sign in (("p", 1), ("n", -1)):
            rail = self.nodes(f"{name}{mark}", len(plus))
            self.add("vcvs", "E", (rail, 0, plus, minus), (sign * gain,))
            found.append(rail)
        return found[0], found[1]

    def cells(
        self, rails: tuple[np.ndarray, np.ndarray], nodes: np.ndarray, pair: Sequence[np.ndarray]
    ) -> np.ndarray:
        """Two conductances from the rails of each source to each node, (nodes, sources); sums at the nodes."""
        for rail, table in zip(rails, pair, strict=True):
            above, below = np.nonzero(table)
            self.add("resistor", "R", (nodes[above], rail[below]), (table[above, below],))
        return pair[0].sum(1) + pair[1].sum(1)


class _ResistiveDrawing(PartsDrawing):
    """The parts of a resistive network."""

    system: ResistivePairs

    # -- units -------------------------------------------------------------------------------------------------

    def buffered(self, k: int, side: Side) -> np.ndarray:
        """What the buffers of layer k put out: clip(g (v + c)) of the node's v, or the node itself."""
        system = self.system
        node, unit = (self.h[k], system.amplifiers_h[k]) if side == "h" else (self.u[k], system.amplifiers_u[k])
        if unit.ideal:
            return node
        volts, label = self.volts[k + 1], f"{side}{k + 1}_"
        gain = 1.0 if unit.gain is None else array(unit.gain.double().flatten())
        offset = 0 if unit.output_offset is None else array(unit.output_offset.double().flatten())
        below = self.held(f"o{label}", -volts * offset) if unit.output_offset is not None else 0
        out = self.nodes(f"{'g' if math.isfinite(unit.saturation) else 'a'}{label}", len(node))
        self.add("vcvs", "E", (out, 0, node, below), (gain,))
        if math.isinf(unit.saturation):
            return out
        # V - max(V - top, 0) + max(-top - V, 0), one source on the other.
        top, bottom = (
            self.held(f"{name}{label}", s * volts * unit.saturation) for name, s in (("p", 1), ("n", -1))
        )
        middle, last = self.nodes(f"m{label}", len(node)), self.nodes(f"a{label}", len(node))
        self.add("rectifier", "B", (middle, out, out, top), (-1.0,))
        self.add("rectifier", "B", (last, middle, bottom, out), (1.0,))
        return last

    def diodes(self, k: int) -> None:
        """Those of the units of layer k: one to the lower bound, one to the upper where there is one."""
        system, volts = self.system, self.volts[k + 1]
        layer, loads = system.stack[k], (system.load_h[k], system.load_u[k])
        if layer.activation_name == "linear":
            return
        lo, hi = layer.activation.bounds
        bounds: list[Any] = []
        for side, node, load in zip(SIDES, (self.h[k], self.u[k]), loads, strict=True):
            constants = system.diode_constants(k, side)
            if constants is None:
                bounds = bounds or [self.held(f"{n}{k + 1}_", volts * b) for n, b in (("lo", lo), ("hi", hi))]
                self.add("ideal_diode", "X", (bounds[0], node))
                if math.isfinite(hi):
                    self.add("ideal_diode", "X", (node, bounds[1]))
                continue
            total = system.total[k] / (1.0 if load is None else array(load.double().flatten()))
            current, thermal = (np.asarray(c, np.float64).reshape(-1) for c in constants)
            self.add("diode", "D", (0, node), (current * total * volts, thermal * volts / THERMAL_VOLTAGE))

    # -- arrays ------------------------------------------------------------------------------------------------

    def arrays(self, k: int, active_h: list[np.ndarray], active_u: list[np.ndarray]) -> None:
        """Rails and cells of the arrays of layer k: into h, into u, and back to the layers below."""
        system = self.system
        for name, layer, part, link, source in arrays_of(system.stack):
            if layer != k:
                continue
            if link is None or source is None:
                self.biases(k)
                continue
            below = self.inputs if source < 0 else active_h[source]
            letter = part[0] + part.removeprefix("skip_weight").removeprefix("weight")
            rails = self.rails(f"{letter}{k + 1}", system.gains[k][name], below, 0)

            def pair(copy: Copy, name: str = name, link: Any = link) -> list[np.ndarray]:
                """Conductances (units above, units below)."""
                return self.spread(link, system.cells_of(name, copy))

            self.sums_h[k] += self.cells(rails, self.h[k], pair("h"))
            self.sums_u[k] += self.cells(rails, self.u[k], pair("u"))
            if source >= 0:
                gain = system.gains[source][f"{name} (transposed)"] * self.device.feedback_gain
                rails = self.rails(f"t{letter}{k + 1}", gain, active_h[k], active_u[k])
                back = [g.T for g in pair("transpose")]
                self.back[source] += self.cells(rails, self.h[source], back)

    def biases(self, k: int) -> None:
        """A row of cells driven at constant voltages."""
        name, layer = f"layers.{k}.bias", self.system.stack[k]
        gain = self.system.gains[k][name] * self.device.voltage
        rails = self.rails(f"b{k + 1}", gain, np.array([self.reference]), 0)
        for side, nodes, sums in zip(SIDES, (self.h, self.u), (self.sums_h, self.sums_u), strict=True):
            found = self.system.cells_of(name, side)
            each = [g.double().view(-1, *[1] * (len(layer.post) - 1)) for g in (found.plus, found.minus)]
            sums[k] += self.cells(rails, nodes[k], [array(g.expand(layer.post).reshape(-1, 1)) for g in each])

    def leaks(self, k: int) -> None:
        """What completes the nodes of layer k, to the conductance of those cells that they were set for."""
        total, mode = self.system.total[k], self.device.leaks
        forward, back = (array(s.double().flatten()) for s in self.system.asked_sums(k))
        if mode == "trimmed":
            leak_h, leak_u = total - self.sums_h[k] - self.back[k], total - self.sums_u[k]
        else:
            leak_h, leak_u = total - forward - back, total - forward
        if mode == "dummy":
            leak_u = leak_h + self.back[k]  # a leak, and the dummy of the fed-back cells
        for nodes, leak in ((self.h[k], leak_h), (self.u[k], leak_u)):
            there = leak > LEAST * total
            self.add("resistor", "R", (nodes[there], 0), (leak[there],))

    def finished(self) -> PairsCircuit:
        system = self.system
        self.add("voltage_source", "V", (self.inputs, 0), (0.0,))
        active_h = [self.buffered(k, "h") for k in range(system.depth)]
        active_u = [self.buffered(k, "u") for k in range(system.depth)]
        for k in range(system.depth):
            self.arrays(k, active_h, active_u)
        for k in range(system.depth):
            self.leaks(k)
            if k < system.depth - 1:
                self.diodes(k)
        outputs = [self.names[n] for n in self.h[-1]]
        tables = (tuple(nodes) for nodes in (self.h, self.u, active_h, active_u))
        return PairsCircuit(system, Circuit(self.parts(), outputs=outputs), self.volts, *tables)
