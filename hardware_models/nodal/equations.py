"""The equations of modified nodal analysis, for any parts list (Ho, Ruehli and Brennan 1975).

Unknowns are the node voltages but ground's, and a current for each *branch* whose voltage is set: voltage sources,
vcvs, ccvs, rectifiers, amplifiers, ideal diodes, inductors, behavioural sources, and capacitors where they are held
at a voltage; and the state of each memristor that has one. A row for each node is Kirchhoff's current law, in
amperes; a row for each branch is its own law, in volts (for a current, over the typical conductance), or that of a
memristor's state. Where branches of set voltage tie nodes to each other, and not to ground, the row of the first
has the law of all of them together: what flows from one straight to another, however much, is then no part of it,
and rounds nothing away (the supernodes of nodal analysis). A state is an array (B, 1 + n): the ground's zero, node
voltages in volts, then branch currents in amperes, from the first node through the part to the second, then states
of memristors, 0 to 1.

All currents that are functions of other unknowns have one form: a law of `hardware_models.laws.elements`, of the
difference of two unknowns c and d, flows out of node a and into node b. For a two-terminal part c and d are a and
b; for a vccs they are its control nodes; for a cccs c is the current of its control, and for the input of a
bidirectional amplifier c is the current at its output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

from ..laws.elements import ELEMENTS, THERMAL_VOLTAGE, resistor
from ..netlists.behaviours import Behaviour
from ..netlists.junctions import spice_diode
from ..netlists.parts import BEHAVIOURAL, SETTING, Parts
from ..netlists.topology import check_floating, check_loops
from .memristors import Memristors
from .nudges import Nudging
from .transistors import Transistors

Array = np.ndarray

CURVED = ("diode", "spice_diode", "piecewise_diode", "memristor")
"""Kinds of elements whose slope is not constant."""
BRANCHES = SETTING
"""Kinds of parts whose current is an unknown, in the order of the unknowns."""

SMALL = 20_000
"""Entries up to which a matrix is kept dense."""

_BLUNT = 1e-8
"""Conductance of a blocking ideal diode in the Jacobian, over the typical one; a conducting one has the inverse."""
_SOFT = 1e-2
"""Most resistance of a conducting diode in the Jacobian, over the least one in series with a capacitor."""


class Drive(NamedTuple):
    """What sources impose: each array (B, m) or (1, m).

    Attributes
    ----------
    volts : array (B, branches)
        Right-hand sides of the branch laws.
    amperes : array (B, current sources)
    targets : array (B, nudged nodes)
        Volts.
    """

    volts: Array
    amperes: Array
    targets: Array


@dataclass(frozen=True)
class Elements:
    """Consecutive elements of one kind.

    Attributes
    ----------
    kind : str
    where : slice
        Among all elements.
    functions : ElementFunctions
    values : tuple of array (m,)
        p, q, r, and more where the law has more.
    """

    kind: str
    where: slice
    functions: Any
    values: tuple[Any, ...]


class NodalEquations:
    """Residual and Jacobian of a parts list, batched over sources.

    Parameters
    ----------
    parts : Parts
    nudge : Nudging, optional
    capacitors : {'open', 'held', 'charging'}
        Left out; a branch of set voltage each; or left to the caller, who adds their currents (`capacitance`).
        Inductors are shorts; branches of set current; or left to the caller, who adds their voltages
        (`inductance`, at the unknowns `coils`). States of memristors are those that the drive gives; the same; or
        left to the caller as inductors are, with the rate that `pushes` tells in place of a voltage.
    series : array (capacitors,), optional
        Resistance in series with each held capacitor, ohm. Default 0.
    parallel : array (inductors,), optional
        Conductance in parallel with each held inductor, siemens. Default 0.

    Attributes
    ----------
    size : int
        Number of unknowns n.
    n_nodes : int
        Number of nodes, ground included.
    branches : tuple of str
        Names of the branches, in the order of their currents; states of memristors follow them in `flows` and
        after.
    elements : tuple of Elements
        First the curved ones.
    memristors : Memristors
        Those that have a state; `states` are the columns of their states in z.
    scale : float
        Typical conductance, siemens, by which branch rows are scaled in the linear algebra.
    active : bool
        Whether there are parts that are not two-terminal elements or sources.
    linear : bool
        Whether the Jacobian is constant.
    magnitude : array (entries,)
        What the constant entries of the Jacobian would be if nothing cancelled.

    Raises
    ------
    InputError
        If a node floats, or ideal voltage sources form a loop.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        nudge: Nudging | None = None,
        capacitors: str = "open",
        series: Array | None = None,
        parallel: Array | None = None,
    ) -> None:
        self.parts, self.n_nodes = parts, len(parts.nodes)
        self.memristors = Memristors(parts)
        check_floating(parts, capacitors != "open")
        check_loops(parts)
        self._lay_out_branches(capacitors, series, parallel)
        self._lay_out_elements(nudge)
        self.active = any(len(parts.group(k)) for k in ("vcvs", "vccs", "cccs", "ccvs", "amplifier", "rectifier"))
        self._lay_out_behaviours()
        self.transistors = Transistors(parts)
        smooth = not (self.rectifying.any() or self.switching.any() or self.behaviours or len(self.transistors))
        self.linear = self.curved == 0 and smooth and not len(self.memristors)
        self._lay_out_jacobian()

    def _lay_out_branches(self, capacitors: str, series: Array | None, parallel: Array | None) -> None:
        parts = self.parts
        self.charging = capacitors == "charging"
        self.moving = np.arange(0)  # branches that are states of memristors
        kinds = [k for k in BRANCHES if len(parts.group(k))]
        kinds += ["state"] * (len(self.memristors) > 0)
        kinds += ["capacitor"] * (capacitors == "held" and len(parts.group("capacitor")) > 0)
        names: list[str] = []
        rows: list[Array] = []  # first, second, control+, control-
        gains: list[Array] = []
        self.branch_kinds: dict[str, slice] = {}
        for kind in kinds:
            if kind == "state":
                self.moving = len(names) + np.arange(len(self.memristors))
                names += [f"{name}.state" for name in self.memristors.names]
                rows.append(np.zeros((len(self.memristors), 4), np.int64))
                gains.append(np.zeros(len(self.memristors)))
                continue
            group = parts.group(kind)
            self.branch_kinds[kind] = slice(len(names), len(names) + len(group))
            names += group.names
            ends = np.zeros((len(group), 4), dtype=np.int64)
            gain = np.zeros(len(group))
            if kind == "amplifier":
                ends[:, 0], ends[:, 2], gain = group.nodes[:, 1], group.nodes[:, 0], group.values[:, 0]
            elif kind in ("vcvs", "rectifier"):
                ends[:], gain = group.nodes, group.values[:, 0]
            else:
                ends[:, :2] = group.nodes
            if kind == "ccvs":
                gain = group.values[:, 0]
            rows.append(ends)
            gains.append(gain)
        self.branches = tuple(names)
        columns = {name: self.n_nodes + k for k, name in enumerate(names)}
        for kind, ends in zip(kinds, rows, strict=True):
            if kind == "ccvs":
                ends[:, 2] = [columns[name] for name in parts.group(kind).controls]
        self.branch_ends = np.concatenate([np.empty((0, 4), np.int64), *rows])
        self.gain = np.concatenate([np.empty(0), *gains])
        count = len(names)
        self.size = self.n_nodes - 1 + count
        self.rectifying, self.switching, self.series = np.zeros(count, bool), np.zeros(count, bool), np.zeros(count)
        self.rectifying[self.branch_kinds.get("rectifier", slice(0))] = True
        self.switching[self.branch_kinds.get("ideal_diode", slice(0))] = True
        self.flowing, self.parallel = np.zeros(count, bool), np.zeros(count)
        self.flowing[self.branch_kinds.get("behavioural_current", slice(0))] = True
        if capacitors == "held":
            self.flowing[self.branch_kinds.get("inductor", slice(0))] = True
        if parallel is not None:
            self.parallel[self.branch_kinds.get("inductor", slice(0))] = parallel
        if series is not None:
            self.series[self.branch_kinds["capacitor"]] = series
        if not self.charging:
            self.series[self.moving] = -1.0  # the law of a state that is held: s less what the drive gives
        self.branch_columns = self.n_nodes + np.arange(count)
        self.states = self.branch_columns[self.moving]
        self.flows = slice(self.n_nodes, self.n_nodes + (self.moving[0] if len(self.moving) else count))
        self.gathered, self.carried = self._gather()
        self.tying = np.zeros(self.size, bool)
        self.tying[self.n_nodes - 1 :] = ~(self.flowing | self.switching)
        self.into_nodes = self._incidence(self.branch_ends[:, :2])
        self.to_ground = self._incidence(np.stack([np.arange(self.n_nodes), np.zeros(self.n_nodes, np.int64)], 1))

    def _gather(self) -> tuple[Array, Array]:
        """Row that gathers the law of each node's group, (1 + n,): that of its first node; its own for all others.

        A group are the nodes that branches of set voltage tie to each other, and not to ground. Also whether a row
        only tells what such a branch carries, (1 + n,) bool: the rest of a group, and all nodes tied to ground.
        """
        ties = self.branch_ends[~(self.flowing | self.switching), :2]
        graph = coo_array((np.ones(len(ties)), (ties[:, 0], ties[:, 1])), shape=(self.n_nodes, self.n_nodes))
        _, label = connected_components(graph, directed=False)
        _, first = np.unique(label, return_index=True)
        rows = np.arange(self.size + 1)
        rows[: self.n_nodes] = np.where(label == label[0], rows[: self.n_nodes], first[label])
        carried = rows != np.arange(self.size + 1)
        carried[: self.n_nodes] |= label == label[0]
        return rows, carried

    def _incidence(self, ends: Array) -> csr_array | Array:
        """Rows that a current from the first node of each part to the second leaves (+1) and enters, (m, 1 + n)."""
        m = len(ends)
        row, at, signs = np.tile(np.arange(m), 2), ends.T.ravel(), np.repeat([1.0, -1.0], m)
        more = np.flatnonzero(self.gathered[at] != at)
        row, signs = np.append(row, row[more]), np.append(signs, signs[more])
        at = np.append(at, self.gathered[at[more]])
        found = csr_array(coo_array((signs, (row, at)), shape=(m, self.size + 1)))
        found.eliminate_zeros()
        return compact(found)

    def _lay_out_behaviours(self) -> None:
        """Behavioural sources: their branches, and the unknowns that their expressions read."""
        self.behaviours: list[tuple[int, Behaviour, Array, Array]] = []
        nodes = {name: k for k, name in enumerate(self.parts.nodes)}
        columns = dict(zip(self.branches, self.branch_columns.tolist(), strict=True))
        for kind in BEHAVIOURAL:
            where = self.branch_kinds.get(kind, slice(0))
            for branch, text in zip(
                range(where.start or 0, where.stop), self.parts.group(kind).expressions, strict=True
            ):
                law = Behaviour(text)
                pairs = [
                    (columns[names[0]], 0)
                    if letter == "i"
                    else (nodes[names[0]], nodes[names[1]] if names[1:] else 0)
                    for letter, names in law.probes
                ]
                plus, minus = np.array(pairs, np.int64).reshape(-1, 2).T
                self.behaviours.append((branch, law, plus, minus))

    def _lay_out_elements(self, nudge: Nudging | None) -> None:
        parts, ohmic = self.parts, resistor(np)
        found: list[Elements] = []
        ends: list[Array] = []
        count = 0

        def add(kind: str, functions: Any, nodes: Array, *values: Any) -> None:
            nonlocal count
            if len(nodes):
                padded = (*values, *(0.0,) * (3 - len(values)))
                found.append(Elements(kind, slice(count, count + len(nodes)), functions, padded))
                ends.append(nodes)
                count += len(nodes)

        for kind in (*CURVED, "resistor", "current_source"):
            group = parts.group(kind)
            if kind == "resistor":
                self.curved = count
            law = spice_diode() if kind == "spice_diode" else ELEMENTS[kind].make(np)
            add(kind, law, np.tile(group.nodes, 2), *group.values.T)
        group = parts.group("vccs")
        add("vccs", ohmic, group.nodes, *group.values.T)
        columns = dict(zip(self.branches, self.branch_columns.tolist(), strict=True))
        group = parts.group("cccs")
        control = np.array([[columns[name], 0] for name in group.controls], np.int64).reshape(-1, 2)
        add("cccs", ohmic, np.hstack([group.nodes, control]), *group.values.T)
        group = parts.group("amplifier")
        draw = np.zeros((len(group), 4), np.int64)
        draw[:, 0] = group.nodes[:, 0]
        draw[:, 2] = [columns[name] for name in group.names]
        # What is delivered is minus the current at the output; 1 / A of it leaves the input node.
        add("amplifier", ohmic, draw, -1 / group.values[:, 0])
        if nudge is not None:
            add("nudge", ohmic, np.tile(nudge.nodes, 2), np.full(len(nudge.nodes), float(nudge.beta)))
        self.nudge = nudge
        self.elements = tuple(found)
        self.ends = np.concatenate([np.empty((0, 4), np.int64), *ends])
        self.out_of_nodes = self._incidence(self.ends[:, :2])
        self._lay_out_limits()

    def _lay_out_limits(self) -> None:
        """Voltage scales of the exponentials, and where they begin to be limited (Nagel 1975, pnjlim)."""
        self.exponential, self.critical = np.ones(self.curved), np.full(self.curved, np.inf)
        for part in self.elements:
            p, q, *_ = part.values
            if part.kind in ("diode", "spice_diode"):
                scale = q * THERMAL_VOLTAGE
                self.exponential[part.where] = scale
                self.critical[part.where] = np.maximum(scale * np.log(scale / (np.sqrt(2) * p)), 4 * scale)
            elif part.kind == "memristor":
                self.exponential[part.where], self.critical[part.where] = q, q
        # Where a law is exponential below a voltage too: minus that voltage, which is 0 for a memristor.
        self.mirror = np.full(self.curved, np.inf)
        for part in self.elements:
            if part.kind == "memristor":
                self.mirror[part.where] = 0.0
            elif part.kind == "spice_diode":
                self.mirror[part.where] = np.where(part.values[2] > 0, part.values[2], np.inf)

    def _lay_out_jacobian(self) -> None:
        """Fixed pattern; entries are a constant part and a sparse matrix times what varies.

        With D = diag(1 for nodes and states, `scale` for branches) the matrix kept is D J D, whose entries are
        siemens.
        """
        parts, k = self.parts, self.branch_columns
        conductances = parts.group("resistor").values.ravel()
        self.scale = float(np.exp(np.log(conductances).mean())) if len(conductances) else 1e-3
        self.stretch = np.ones(self.size)
        self.stretch[self.n_nodes - 1 :] = self.scale
        self.stretch[self.states - 1] = 1.0
        a, b, c, d = self.ends.T
        first, second, plus, minus = self.branch_ends.T
        capacitor, diagonal = parts.group("capacitor").nodes, np.arange(1, self.n_nodes)
        self.capacitance = parts.group("capacitor").values.ravel()
        self.charges = self._incidence(capacitor)
        # Where entries come from: slopes of elements, slopes of branch laws by own voltage, by control and by
        # current, one, leaks, and capacitances.
        element, branch = np.arange(len(self.ends)), np.arange(len(k))
        own = len(element) + branch
        by_control, by_current = own + len(k), own + 2 * len(k)
        ones = len(element) + 3 * len(k)
        coil = np.concatenate([k[self.branch_kinds.get("inductor", slice(0))], self.states])
        self.span = self.scale * self.memristors.span  # rates of states become amperes by it
        self.inductance = np.concatenate([parts.group("inductor").values.ravel(), self.span])
        if not self.charging:
            coil, self.inductance = coil[:0], self.inductance[:0]
        self.coils = coil
        charge = ones + 2 + np.arange(len(capacitor))
        flux = ones + 2 + len(capacitor) + np.arange(len(coil))
        at = ones + 2 + len(capacitor) + len(coil)
        reads = [(k[branch], *ends) for branch, _, *sides in self.behaviours for ends in zip(*sides, strict=True)]
        reader, above, below = np.array(reads, np.int64).reshape(-1, 3).T
        read = at + np.arange(len(reads))
        gated = at + len(reads) + np.arange(3 * len(self.transistors))
        self.through_transistors = self._incidence(self.transistors.nodes[:, [0, 2]])
        head, tail = self.memristors.nodes.T
        none, moved = np.zeros_like(self.states), self.states if self.charging else self.states[:0]
        end = at + len(reads) + len(gated)
        by_v, by_s, rate_by_v, rate_by_s = (end + k * len(head) + np.arange(len(head)) for k in range(4))
        rate_by_v, rate_by_s = rate_by_v[: len(moved)], rate_by_s[: len(moved)]
        total = end + 2 * len(head) + 2 * len(moved)
        self.through_memristors = self._incidence(self.memristors.nodes)
        self.shares = np.array([1 / self.scale if self.flowing[branch] else 1.0 for branch, *_ in self.behaviours])
        stamps: list[tuple[Array, Array, Array, float]] = [
            *_four(a, b, c, d, element),
            *_four(*self.transistors.stamps, gated),
            *_four(head, tail, head, tail, by_v),
            *_four(head, tail, self.states, none, by_s),
            (moved, head[: len(moved)], rate_by_v, 1.0),
            (moved, tail[: len(moved)], rate_by_v, -1.0),
            (moved, moved, rate_by_s, 1.0),
            *_four(capacitor[:, 0], capacitor[:, 1], capacitor[:, 0], capacitor[:, 1], charge),
            (k, first, own, 1.0),
            (k, second, own, -1.0),
            (k, plus, by_control, 1.0),
            (k, minus, by_control, -1.0),
            (k, k, by_current, 1.0),
            (coil, coil, flux, -1.0),
            (reader, above, read, -1.0),
            (reader, below, read, 1.0),
            (first, k, np.full(len(k), ones), 1.0),
            (second, k, np.full(len(k), ones), -1.0),
            (diagonal, diagonal, np.full(len(diagonal), ones + 1), 1.0),
        ]
        row, col, source = (np.concatenate(x) for x in list(zip(*stamps, strict=True))[:3])
        signs = np.repeat([sign for *_, sign in stamps], [len(r) for r, *_ in stamps])
        more = np.flatnonzero(self.gathered[row] != row)
        row = np.append(row, self.gathered[row[more]])
        col, source, signs = (np.append(x, x[more]) for x in (col, source, signs))
        keep = (row > 0) & (col > 0)  # not ground's
        row, col, source, signs = row[keep] - 1, col[keep] - 1, source[keep], signs[keep]
        place, slot = np.unique(col * self.size + row, return_inverse=True)
        self.rows, cols_of = place % self.size, place // self.size
        self.starts = np.searchsorted(cols_of, np.arange(self.size + 1))
        self.flat = self.rows * self.size + cols_of
        signs = signs * self.stretch[row] * self.stretch[col]
        spread = csr_array(coo_array((signs, (source, slot)), shape=(total, len(place))))
        values = np.zeros(ones)
        for part in self.elements:
            values[part.where] = part.functions.slope(np.zeros(1), *part.values)
        values[own], values[by_control], values[by_current] = 1.0, -self.gain, -self.series
        values[own[self.flowing]] = -self.parallel[self.flowing] / self.scale
        values[by_current[self.flowing]] = 1 / self.scale
        varying = np.zeros(ones, bool)
        varying[: self.curved] = True
        varying[by_control[self.rectifying]] = True
        varying[own[self.switching]] = varying[by_current[self.switching]] = True
        values[varying] = 0.0
        self._constant = values @ spread[:ones] + spread[[ones]].toarray()[0]
        self.magnitude = np.abs(values) @ abs(spread[:ones]) + abs(spread[[ones]]).toarray()[0]
        self._spread = compact(spread[np.flatnonzero(varying)])
        self.leaks = spread[[ones + 1]].toarray()[0]
        self._charging = compact(spread[ones + 2 : ones + 2 + len(capacitor)])
        self._fluxes = compact(spread[ones + 2 + len(capacitor) : at])
        self._reads = compact(spread[at : at + len(reads)])
        self._gated = compact(spread[at + len(reads) : end])
        self._memristive = compact(spread[end:])

    # -- evaluation ---------------------------------------------------------------------------------------------

    def drive(self, sources: Array) -> Drive:
        """The drive of constant sources (B, voltage sources), volts; other values as in the parts list."""
        volts = np.zeros((len(sources), len(self.branches)))
        volts[:, self.branch_kinds.get("voltage_source", slice(0))] = sources
        volts[:, self.moving] = self.memristors.states
        targets = np.zeros((1, 0)) if self.nudge is None else self.nudge.targets
        return Drive(volts, self.parts.group("current_source").values.reshape(1, -1), targets)

    def across(self, z: Array) -> Array:
        """What each element's law is a function of, (B, elements): volts, or amperes of a controlling current."""
        return z.take(self.ends[:, 2], 1) - z.take(self.ends[:, 3], 1)

    def currents(self, across: Array, drive: Drive) -> Array:
        """Current through each element, (B, elements) amperes."""
        out = np.empty_like(across)
        for part in self.elements:
            v = across[:, part.where]
            if part.kind == "current_source":
                out[:, part.where] = drive.amperes
            elif part.kind == "nudge":
                out[:, part.where] = part.functions.current(v - drive.targets, *part.values)
            else:
                out[:, part.where] = part.functions.current(v, *part.values)
        return out

    def slopes(self, across: Array) -> Array:
        """Slopes dI/dV of the curved elements at the voltages `across` them, (B, curved) volts; siemens."""
        out = np.empty((len(across), self.curved))
        for part in self.elements:
            if part.where.stop <= self.curved:
                out[:, part.where] = part.functions.slope(across[:, part.where], *part.values)
        return out

    def content(self, across: Array, drive: Drive) -> Array:
        """Co-content of two-terminal elements, current sources and nudges together, (B,) watts."""
        total = np.zeros(len(across))
        for part in self.elements:
            v = across[:, part.where]
            if part.kind == "current_source":
                total = total + (v * drive.amperes).sum(1)
            elif part.kind == "nudge":
                total = total + part.functions.content(v - drive.targets, *part.values).sum(1)
            elif part.kind in ELEMENTS:
                total = total + part.functions.content(v, *part.values).sum(1)
        return total

    def conducting(self, z: Array) -> Array:
        """Whether each branch is an ideal diode that conducts, (B, branches) of bool."""
        if not self.switching.any():
            return np.zeros((len(z), len(self.branches)), bool)
        v = z[:, self.branch_ends[:, 0]] - z[:, self.branch_ends[:, 1]]
        return self.switching & (v + z[:, self.n_nodes :] / self.scale > 0)

    def residual(
        self, z: Array, currents: Array, conducting: Array, drive: Drive, channels: Array | None = None
    ) -> Array:
        """Kirchhoff's current law (amperes) and branch laws (volts), (B, 1 + n), of which column 0 is zero.

        Parameters
        ----------
        z : array (B, 1 + n)
        currents : array (B, elements)
            Amperes.
        conducting : bool array (B, branches)
        drive : Drive
        channels : array (B, transistors), optional
            Amperes from drain to source. Default: those at z.
        """
        through = z[:, self.n_nodes :]
        out = currents @ self.out_of_nodes + through @ self.into_nodes
        if len(self.transistors):
            channels = self.transistors.currents(z) if channels is None else channels
            out += channels @ self.through_transistors
        if len(self.memristors):
            out += self.memristor_currents(z) @ self.through_memristors
        first, second, plus, minus = self.branch_ends.T
        if len(self.branches):
            control = z[:, plus] - z[:, minus]
            control = np.where(self.rectifying, np.maximum(control, 0.0), control)
            law = z[:, first] - z[:, second] - self.gain * control - self.series * through - drive.volts
            if self.flowing.any():
                current = (through - self.parallel * (z[:, first] - z[:, second])) / self.scale - drive.volts
                law = np.where(self.flowing, current, law)
            blocked = self.switching & ~conducting
            out[:, self.n_nodes :] = np.where(blocked, through / self.scale, law)
            for (branch, law_of, above, below), share in zip(self.behaviours, self.shares, strict=True):
                out[:, self.n_nodes + branch] -= share * law_of(z[:, above] - z[:, below]).value
        if self.charging and len(self.memristors):
            out[:, self.states] += self.pushes(z)[:, -len(self.states) :]
        out[:, 0] = 0.0
        return out

    def jacobian(
        self,
        z: Array,
        slopes: Array,
        conducting: Array,
        leak: float = 0.0,
        charging: float = 0.0,
        gated: Array | None = None,
    ) -> Array:
        """Entries of the scaled Jacobian D J D, siemens: (B, entries), or (1, entries) where all examples share
        them.

        D is 1 for nodes and `scale` for branches; the places of the entries are those of the fixed pattern.

        Parameters
        ----------
        z : array (B, 1 + n)
        slopes : array (B, curved)
        conducting : bool array (B, branches)
        leak : float
            Conductance from every node to ground, siemens.
        charging : float
            Rate by which capacitances become conductances, 1 / second.
        gated : array (B, 3 transistors), optional
            Slopes of transistors, siemens. Default: those at z.
        """
        constant = self._constant
        if leak:
            constant = constant + leak * self.leaks
        if charging:
            constant = constant + charging * self.capacitance @ self._charging
            if len(self.coils):
                constant = constant + charging * self.inductance @ self._fluxes
        if self.linear:
            return constant[None, :]
        _, _, plus, minus = self.branch_ends.T
        r, s = self.rectifying, self.switching
        controlled = -self.gain[r] * (z[:, plus[r]] - z[:, minus[r]] > 0)
        on = conducting[:, s] * 1.0
        off = 1.0 - on
        # Diodes between the same nodes, all on or all off, would leave the matrix singular on the way.
        blunt = _BLUNT / (self.scale + charging * self.capacitance.max(initial=0.0))
        if self.series.any():
            blunt = min(blunt, _SOFT * self.series[self.series > 0].min(initial=np.inf))
        own, by_current = on - _BLUNT * off, off / self.scale - blunt * on
        found = constant + np.hstack([slopes, own, controlled, by_current]) @ self._spread
        if self.behaviours:
            read = [
                share * law(z[:, above] - z[:, below]).slope
                for (_, law, above, below), share in zip(self.behaviours, self.shares, strict=True)
            ]
            found = found + np.hstack(read) @ self._reads
        if len(self.transistors):
            found = found + (self.transistors.slopes(z) if gated is None else gated) @ self._gated
        if len(self.memristors):
            v, s = self._memristor_controls(z)
            varied = [*self.memristors.slopes(v, s)]
            if self.charging:
                varied += [self.span * slope for slope in self.memristors.rate(v, s)[1:]]
            found = found + np.hstack(varied) @ self._memristive
        return found

    def storage(self) -> Array:
        """Entries (e,) of the scaled Jacobian that grow with the rate: those of charges and fluxes, S s."""
        return np.asarray(self.capacitance @ self._charging + self.inductance @ self._fluxes)

    def _memristor_controls(self, z: Array) -> tuple[Array, Array]:
        """Voltages and states of the memristors that have a state, (B, m)."""
        plus, minus = self.memristors.nodes.T
        return z[:, plus] - z[:, minus], z[:, self.states]

    def memristor_currents(self, z: Array) -> Array:
        """Amperes through the memristors that have a state, (B, m)."""
        v, s = self._memristor_controls(z)
        return np.asarray(v / self.memristors.resistance(s))

    def pushes(self, z: Array) -> Array:
        """What moves the unknowns `coils`, (B, coils): volts across inductors, rates of memristors' states."""
        first, second = self.parts.group("inductor").nodes.T
        across = z[:, first] - z[:, second]
        if not len(self.memristors):
            return across
        return np.hstack([across, self.span * self.memristors.rate(*self._memristor_controls(z)).value])

    def defined(self, z: Array) -> Array:
        """Whether all expressions of behavioural sources have finite values, (B,)."""
        found = np.ones(len(z), bool)
        for _, law, above, below in self.behaviours:
            found &= law.defined(z[:, above] - z[:, below])
        return found

    def rounding(self, z: Array, slopes: Array) -> Array:
        """What one unit in the last place of all unknowns is worth in each node's own law, (B, n_nodes) amperes."""
        size = np.abs(z)
        every = np.empty((len(z), len(self.ends)))
        for part in self.elements:
            every[:, part.where] = np.abs(part.functions.slope(np.zeros(1), *part.values))
        every[:, : self.curved] = slopes
        every *= size.take(self.ends[:, 2], 1) + size.take(self.ends[:, 3], 1)
        sums = every @ abs(self.out_of_nodes) + size[:, self.branch_columns] @ abs(self.into_nodes)
        if len(self.transistors):
            _, _, plus, minus = self.transistors.stamps
            moved = np.abs(self.transistors.slopes(z)) * (size.take(plus, 1) + size.take(minus, 1))
            sums += moved.reshape(len(z), 3, -1).sum(1) @ abs(self.through_transistors)
        if len(self.memristors):
            plus, minus = self.memristors.nodes.T
            most = (size[:, plus] + size[:, minus]) / self.memristors.resistance(z[:, self.states])
            sums += most @ abs(self.through_memristors)
        return np.asarray(np.finfo(np.float64).eps * sums[:, : self.n_nodes])


def compact(matrix: csr_array) -> csr_array | Array:
    """A matrix for products: dense where it is so small that a sparse product would be all overhead."""
    return matrix.toarray() if matrix.shape[0] * matrix.shape[1] <= SMALL else matrix


def _four(a: Array, b: Array, c: Array, d: Array, source: Array) -> list[tuple[Array, Array, Array, float]]:
    """Entries of currents out of nodes a into nodes b that depend on the difference of unknowns c and d."""
    return [(a, c, source, 1.0), (a, d, source, -1.0), (b, c, source, -1.0), (b, d, source, 1.0)]
