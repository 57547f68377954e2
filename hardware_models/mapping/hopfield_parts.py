"""A network's Hopfield circuit as a list of parts: sources, lines, cells, virtual grounds, mirrors and amplifiers.

What `hopfield` says in equations, said in parts, so that another simulator, or modified nodal analysis, can be
asked. Nodes, units counted from 1 and in flat order, layer k from 1:

    x1 ...            inputs, sources                       ref             1 V, a source
    h<k>_1, u<k>_1    nodes at their feedback resistors: the internal voltages p and q
    ah<k>_1, au<k>_1  what their amplifiers put out; of outputs, which are read at their nodes, the nodes
    w<k>p1, w<k>n1    lines at +-A V of the layer's array; s<k>p1 of its skip's, b<k>p of its biases
    tw<k>p1, tw<k>n1  lines at +-A (h - u) of what its array feeds back; ts<k>p1 of its skip's
    gh<k>_1, gu<k>_1  ends of the cells that drive h and u, and gt<k>_1 of those that feed back to layer k
    rh<k>_1 ...       behind the impedance of a virtual ground, where it has one: the source that holds it

A virtual ground is a voltage source of its offset, 0 V without, in series with its impedance; mirrors are
current-controlled sources of its current (`cccs`). One array that serves h and u ends at one ground, whose current
goes through a mirror of each. Cells that are read both ways in slots of time stand twice, at the same values: each
way is there while the other is not. The nudge of the squared error is a conductance beta G from each output to its
target (`nodal.nudges`). Units that are not ReLUs, clips or linear are sources of an expression.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from physics_ep.errors import InputError, argument_error
from physics_ep.placement import on_host

from ..arrays import array
from ..circuits.circuit import Circuit
from .circuit import PairedCircuit
from .hopfield import HopfieldPairs
from .node_sums import Array, arrays_of
from .physical_cells import SIDES, Copy, Side
from .resistive import ResistivePairs
from .resistive_parts import PairsCircuit, PartsDrawing, pairs_circuit, require_constant_parts

EXPRESSIONS = {
    "tanh": "tanh({})",
    "logistic": "1/(1+exp(-({})))",
}
"""Responses that are one expression of the internal voltage, in units of activity."""


class HopfieldCircuit(PairsCircuit):
    """A mapped Hopfield circuit, written as a `Circuit` of single parts; `h` and `u` are columns of p and q,
    `active_h` and `active_u` of what the amplifiers put out."""

    def node_voltages(self, state: Sequence[torch.Tensor]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Volts of the nodes p and q of each layer, (B, n_k) each, in a state of the system."""
        depth = self.system.depth
        found: list[list[np.ndarray]] = []
        for blocks in (state[:depth], state[depth:]):
            rows = zip(blocks, self.volts[1:], strict=True)
            found.append([array(p.flatten(1).double()) * v for p, v in rows])
        return found[0], found[1]


def in_parts(system: PairedCircuit) -> PairsCircuit:
    """The parts of a mapped network.

    Raises
    ------
    InputError
        If its substrate is neither a Hopfield circuit nor resistors, or it cannot be drawn.
    """
    if isinstance(system, HopfieldPairs):
        return hopfield_circuit(system)
    if isinstance(system, ResistivePairs):
        return pairs_circuit(system)
    must = "be 'resistive' or 'hopfield', whose parts SPICE knows"
    raise argument_error("substrate", must, repr(system.substrate))


def hopfield_circuit(system: HopfieldPairs) -> HopfieldCircuit:
    """List the parts of a mapped network's Hopfield circuit.

    Parameters
    ----------
    system : HopfieldPairs

    Returns
    -------
    HopfieldCircuit

    Raises
    ------
    InputError
        If it has max poolings (whose routes depend on the example), too many cells, a layer without weights, units
        that are no parts, or an imperfection that is none: noise in time, resistance of wires.
    """
    require_constant_parts(system)
    for k, unit in enumerate(system.amplifiers_h, 1):
        name = unit.activation.name
        known = name == "linear" or unit.activation.piecewise_linear or name in EXPRESSIONS
        if not known:
            raise InputError(f"Layer {k} has {name} units, which are not written as parts of a circuit.")
        if system.conductance(k - 1) == 0:
            raise InputError(f"Layer {k} has weights of 0 alone, and so no feedback resistors.")
    return _HopfieldDrawing(on_host(system)).finished()


class _HopfieldDrawing(PartsDrawing):
    """A parts list as it grows."""

    system: HopfieldPairs

    # -- units -------------------------------------------------------------------------------------------------

    def clip(self, label: str, node: np.ndarray, low: np.ndarray | float, high: np.ndarray | float) -> np.ndarray:
        """clip(v) of nodes at v, between two voltages; infinite ones are none."""
        last = node
        for mark, bound, sign in (("p", high, -1.0), ("n", low, 1.0)):
            if np.isinf(bound).any():
                continue
            at = self.held(f"{mark}{label}", bound)
            # v - max(v - high, 0) + max(low - v, 0), one source on the other.
            beyond = (node, at) if sign < 0 else (at, node)
            above = self.nodes(f"c{mark}{label}", len(node))
            self.add("rectifier", "B", (above, last, *beyond), (sign,))
            last = above
        return last

    def amplified(self, k: int, side: Side) -> np.ndarray:
        """What the amplifiers of layer k put out: clip(g sigma(p + o)), or the nodes that are read themselves."""
        system = self.system
        node, unit = (self.h[k], system.amplifiers_h[k]) if side == "h" else (self.u[k], system.amplifiers_u[k])
        name, volts, label = unit.activation.name, self.volts[k + 1], f"{side}{k + 1}_"
        if unit.ideal and name == "linear":
            return node
        if unit.offset is None:
            above, below = node, np.zeros(1, np.int64)
        else:
            below = self.held(f"o{label}", -volts * array(unit.offset.double().flatten()))
            above = self.nodes(f"d{label}", len(node))
            self.add("vcvs", "E", (above, 0, node, below), (1.0,))
        gain = 1.0 if unit.gain is None else array(unit.gain.double().flatten())
        if name in EXPRESSIONS:
            out = self.nodes(f"s{label}", len(node))
            for n, a in zip(out, above, strict=True):
                response = EXPRESSIONS[name].format(f"v({self.names[a]})/{volts!r}")
                self.compute(self.names[n], f"{volts!r}*({response})")
        else:
            lo, hi = unit.activation.bounds
            out = self.clip(f"r{label}", above, volts * lo, volts * hi)
        last = self.nodes(f"a{label}", len(node))
        level = self.nodes(f"g{label}x", len(node)) if np.isfinite(unit.saturation) else last
        self.add("vcvs", "E", (level, 0, out, 0), (gain,))
        if np.isfinite(unit.saturation):
            railed = self.clip(f"v{label}", level, -volts * unit.saturation, volts * unit.saturation)
            self.add("vcvs", "E", (last, 0, railed, 0), (1.0,))
        return last

    # -- arrays ------------------------------------------------------------------------------------------------

    def grounds(self, k: int, of: Copy, mirrors: Sequence[tuple[np.ndarray, np.ndarray | float]]) -> np.ndarray:
        """Virtual grounds of the lines that drive 'h' or 'u' of layer k, or feed back to it: where cells end. Their
        currents go into `mirrors`, (nodes, gains)."""
        device = self.device
        label = f"{of[0]}{k + 1}_"
        ends = self.nodes(f"g{label}", len(self.h[k]))
        held = ends
        if device.ground_resistance > 0:
            held = self.nodes(f"r{label}", len(ends))
            self.add("resistor", "R", (ends, held), (1 / device.ground_resistance,))
        offset = self.system.offset_of_grounds(k, of)
        volts = 0.0 if offset is None else array(offset.double().flatten())
        names = self.add("voltage_source", "V", (held, 0), (volts,))
        for nodes, gains in mirrors:
            self.add("cccs", "F", (0, nodes), (gains,), controls=names)
        return ends

    def mirror(self, k: int, side: Side) -> np.ndarray | float:
        """Gains of the mirrors into units 'h' or 'u' of layer k."""
        gain = self.system.mirror_gains(k, side)
        return 1.0 if gain is None else array(gain.double().flatten())

    def into(self, k: int, active_h: list[np.ndarray], reference: np.ndarray) -> None:
        """The arrays that drive h and u of layer k, and where they end; biases are driven from 1 V."""
        system = self.system
        mirrors = [(nodes[k], self.mirror(k, side)) for side, nodes in zip(SIDES, (self.h, self.u), strict=True)]
        places: list[tuple[Side, np.ndarray]] = []
        if system.served_apart("h", "u"):
            places += [(side, self.grounds(k, side, [m])) for side, m in zip(SIDES, mirrors, strict=True)]
        else:
            places.append(("h", self.grounds(k, "h", mirrors)))
        scaled = system.conductance(k) * self.volts[k + 1]
        for one in arrays_of(system.stack):
            if one.k != k:
                continue
            if one.source is None:
                rails = self.rails(f"b{k + 1}", system.scales[one.name] * scaled, reference, 0)
            else:
                below = self.inputs if one.source < 0 else active_h[one.source]
                gain = system.scales[one.name] * scaled / self.volts[one.source + 1]
                rails = self.rails(f"{self.letter(one)}{k + 1}", gain, below, 0)
            for side, ends in places:
                self.cells(rails, ends, self.pair(one, side))

    def back_to(self, k: int, active_h: list[np.ndarray], active_u: list[np.ndarray]) -> None:
        """The arrays that feed back to layer k, read the other way: driven by errors times what the node's resistor
        asks for."""
        system = self.system
        feeding = [a for a in arrays_of(system.stack) if a.fed == k]
        if not feeding:
            return
        ends = self.grounds(k, "transpose", [(self.h[k], 1.0)])
        for one in feeding:
            gain = system.line_gain(one, back=True) * self.device.feedback_gain
            rails = self.rails(f"t{self.letter(one)}{one.k + 1}", gain, active_h[one.k], active_u[one.k])
            self.cells(rails, ends, [g.T for g in self.pair(one, "transpose")])

    @staticmethod
    def letter(one: Array) -> str:
        """What names of the lines of an array begin with."""
        return one.part[0] + one.part.removeprefix("skip_weight").removeprefix("weight")

    def pair(self, one: Array, copy: Copy) -> list[np.ndarray]:
        """Conductances of an array's copy, plus and minus, (units above, units below)."""
        found = self.system.cells_of(one.name, copy)
        if one.link is None:
            post = self.system.stack[one.k].post
            each = [g.double().view(-1, *[1] * (len(post) - 1)) for g in (found.plus, found.minus)]
            return [array(g.expand(post).reshape(-1, 1)) for g in each]
        return self.spread(one.link, found)

    def finished(self) -> HopfieldCircuit:
        system = self.system
        self.add("voltage_source", "V", (self.inputs, 0), (0.0,))
        reference = np.array([self.reference])  # the first of all sources that are constant
        active_h = [self.amplified(k, "h") for k in range(system.depth)]
        active_u = [self.amplified(k, "u") for k in range(system.depth)]
        for k in range(system.depth):
            self.into(k, active_h, reference)
            self.back_to(k, active_h, active_u)
            for nodes in (self.h[k], self.u[k]):
                self.add("resistor", "R", (nodes, 0), (system.conductance(k),))
        outputs = [self.names[n] for n in self.h[-1]]
        tables: Any = (tuple(nodes) for nodes in (self.h, self.u, active_h, active_u))
        return HopfieldCircuit(system, Circuit(self.parts(), outputs=outputs), self.volts, *tables)
