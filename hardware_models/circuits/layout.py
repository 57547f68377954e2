"""A circuit's parts laid out for computing: elements as flat arrays, the graph of its unknowns, bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy import sparse

from physics_ep.errors import InputError, argument_error

from ..laws.elements import ELEMENTS
from ..netlists.parts import Parts
from . import kernels, layout_kernels
from .factorizations import Matrix, Pattern, choose
from .reduction import Reduction

JUNCTIONS = ("memristor", "diode", "piecewise_diode")
"""Kinds of junctions, in their order."""
ORDER = ("resistor", *JUNCTIONS, "current_source")
"""Kinds with a co-content, in the order of `Layout.ends`."""


@dataclass(frozen=True)
class Layout:
    """What a circuit's graph says, whatever the values of its parameters.

    Attributes
    ----------
    reduction : Reduction
    net : kernels.Net
    pattern : Pattern
        Places of the entries of the second derivatives that are not 0.
    counts : tuple of int
        Elements of each kind of `ORDER`.
    ends, kinds, values, weight : arrays (m, 2), (m,), (m, 3), (m,)
        All elements with a co-content: their two nodes, kinds, values p, q, r, and the weights of their stages.
    bounds : tuple of arrays (d,), (d,), (d,)
        Ideal diodes: the unknown, whether it is bounded above, the nodes (free, fixed) (d, 2).
    blocking : array (k, 2)
        Anode and cathode of ideal diodes between fixed nodes, which must block.
    output_columns, output_scale : Tensor (n_out,)
        Unknown that the voltage of each output node follows, and dv_node / du.
    output_minus : tuple of Tensor (n_out,), or None
        The same of the nodes whose voltages are subtracted (scale 0 for ground's), where outputs are differences.
    """

    reduction: Reduction
    net: kernels.Net
    pattern: Pattern
    counts: tuple[int, ...]
    ends: np.ndarray
    kinds: np.ndarray
    values: np.ndarray
    weight: np.ndarray
    bounds: tuple[np.ndarray, np.ndarray, np.ndarray]
    blocking: np.ndarray
    output_columns: torch.Tensor
    output_scale: torch.Tensor
    output_minus: tuple[torch.Tensor, torch.Tensor] | None = None

    @cached_property
    def neighbours(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows (n + 1,), and of each row the unknowns it is joined to and the numbers of these pairs."""
        pairs = self.pattern.pairs
        numbers = np.arange(1, len(pairs) + 1)
        entries = (np.tile(numbers, 2), (pairs.T.ravel(), pairs[:, ::-1].T.ravel()))
        graph = sparse.csr_array(entries, shape=(self.n, self.n))
        return graph.indptr.astype(np.int64), graph.indices.astype(np.int64), graph.data.astype(np.int64) - 1

    @property
    def n(self) -> int:
        """Number of unknowns of the equations of the circuit."""
        return len(self.reduction.representative)

    @property
    def linear(self) -> bool:
        """Whether all elements are linear, ideal diodes apart."""
        return not len(self.net.kinds)

    @cached_property
    def unknown_weight(self) -> torch.Tensor:
        """Weight of the stage that each unknown belongs to, (n,): forces are currents times this."""
        return torch.from_numpy(self.reduction.weight[self.reduction.representative])

    def outputs(self, u: torch.Tensor) -> torch.Tensor:
        """Voltages of the output nodes, or their differences, (B, n_out), that follow the unknowns u (B, n)."""
        found = u[:, self.output_columns] * self.output_scale
        if self.output_minus is None:
            return found
        columns, scale = self.output_minus
        return found - u[:, columns] * scale

    def into_unknowns(self, force: torch.Tensor) -> torch.Tensor:
        """Force (B, n) on the unknowns of a force (B, n_out) on the outputs: the transpose of `outputs`."""
        found = torch.zeros(len(force), self.n, dtype=torch.float64)
        found.index_add_(1, self.output_columns, force * self.output_scale)
        if self.output_minus is not None:
            columns, scale = self.output_minus
            found.index_add_(1, columns, -force * scale)
        return found

    @cached_property
    def output_rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Unknowns that each output follows and their shares of it, both (n_out, 1); (n_out, 2) of differences."""
        ends = [(self.output_columns, self.output_scale)]
        if self.output_minus is not None:
            columns, scale = self.output_minus
            ends.append((columns, -scale))
        at, share = (torch.stack(one, 1).numpy() for one in zip(*ends, strict=True))
        return at, share

    def spread(self, u: torch.Tensor) -> torch.Tensor:
        """Voltages of all nodes, (B, N), that follow the unknowns u (B, n); what sources add is left out."""
        reduction = self.reduction
        if not u.shape[1]:
            return u.new_zeros(len(u), len(reduction.unknown))
        column = torch.from_numpy(np.maximum(reduction.unknown, 0))
        return u[:, column] * torch.from_numpy(reduction.scale)


@dataclass(frozen=True)
class PreparedCircuit:
    """What all phases of a circuit with one input share.

    Attributes
    ----------
    layout : Layout
    offset : array (B, N)
        What the sources add to the node voltages, volts.
    conductance : array (m,)
        Conductances of the resistors, siemens.
    learnt : array
        Conductances of the resistors, then of the memristors, siemens.
    current : array or None
        Currents of the current sources, amperes.
    junction_values : array (k, 3)
    injected : array (N,)
        Current that sources drive into each node, amperes.
    diagonal, off : array (n,), (pairs,)
        Second derivatives of the resistors' co-content.
    matrix : Matrix or None
        The matrix with these entries, where no junction adds to the pairs.
    low, high : array (B, n) or None
        Bounds of the unknowns, volts.
    """

    layout: Layout
    offset: np.ndarray
    conductance: np.ndarray
    learnt: np.ndarray
    current: np.ndarray | None
    junction_values: np.ndarray
    injected: np.ndarray
    diagonal: np.ndarray
    off: np.ndarray
    matrix: Matrix | None
    low: np.ndarray | None
    high: np.ndarray | None


def lay_out(
    parts: Parts,
    reduction: Reduction,
    kind: str | None = None,
    eliminate: bool | None = None,
    outputs: np.ndarray | None = None,
) -> Layout:
    """Lay a circuit's parts out as arrays.

    Parameters
    ----------
    parts : Parts
    reduction : Reduction
        The unknowns of these parts.
    kind, eliminate
        How matrices are factorised, with the arguments of `factorizations.choose`.
    outputs : int64 array (n_out, 2), optional
        Nodes that the cost acts on, and those whose voltages are subtracted (ground, 0, where there are none).
        Default: none.

    Raises
    ------
    InputError
        If an ideal diode joins two free nodes.
    """
    counts = tuple(len(parts.group(one)) for one in ORDER)
    ends = np.concatenate([parts.group(one).nodes for one in ORDER])
    kinds = np.repeat([ELEMENTS[one].kind for one in ORDER], counts)
    values = np.zeros((len(ends), 3))
    start = 0
    for one, count in zip(ORDER, counts, strict=True):
        own = parts.group(one).values
        values[start : start + count, : own.shape[1]] = own
        start += count
    unknown = reduction.unknown
    weight = layout_kernels.stage_weights(ends, unknown, reduction.weight)
    resistors, sources = counts[0], counts[-1]
    n, conducting = len(reduction.representative), ends[: len(ends) - sources]
    a, b = unknown[conducting].T
    numbers, pairs = layout_kernels.numbered_pairs(np.ascontiguousarray(a), np.ascontiguousarray(b), n)
    row = reduction.scale * reduction.weight
    acting, stamps, shares = layout_kernels.stamped(conducting, numbers, unknown, reduction.scale, row)
    net = kernels.Net(
        unknown,
        reduction.scale,
        row,
        acting[:resistors],
        acting[resistors:],
        np.ascontiguousarray(kinds[resistors : len(conducting)]).astype(np.int64),
        stamps[:resistors],
        stamps[resistors:],
        shares[:resistors],
        shares[resistors:],
    )
    read = np.empty((0, 2), dtype=np.int64) if outputs is None else outputs
    (plus, minus), scale = unknown[read].T, reduction.scale[read].T
    subtracted = (torch.from_numpy(np.maximum(minus, 0)), torch.from_numpy(scale[1].copy()))
    bounds, blocking = _bounds(parts, unknown)
    return Layout(
        reduction,
        net,
        choose(n, pairs, kind, eliminate),
        counts,
        np.ascontiguousarray(ends),
        kinds.astype(np.int64),
        values,
        weight,
        bounds,
        blocking,
        torch.from_numpy(np.maximum(plus, 0)),
        torch.from_numpy(scale[0].copy()),
        subtracted if (minus >= 0).any() else None,
    )


def _acting(ends: np.ndarray, reduction: Reduction) -> np.ndarray:
    """Nodes (m, 2) of elements; ground twice where a current's two shares, alike, fall to one unknown or to none.

    Such a current may be a billion times all others, which adding and subtracting it would round away.
    """
    first, second = ends.T
    row = reduction.scale * reduction.weight
    idle = (reduction.unknown[first] == reduction.unknown[second]) & (row[first] == row[second])
    return np.where(idle[:, None], 0, ends)


def _bounds(parts: Parts, unknown: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
    """`bounds` and `blocking` of a layout."""
    group = parts.group("ideal_diode")
    anode_free, cathode_free = unknown[group.nodes].T >= 0
    both = np.flatnonzero(anode_free & cathode_free)
    if both.size:
        raise InputError(
            f"Ideal diode {group.names[both[0]]!r} joins two free nodes: one must be ground or held by voltage "
            "sources. Use a diode or a piecewise_diode there."
        )
    held = ~anode_free & ~cathode_free
    nodes = np.where(anode_free[:, None], group.nodes, group.nodes[:, ::-1])[~held]
    return (unknown[nodes[:, 0]], anode_free[~held], nodes), group.nodes[held]


def prepare(
    layout: Layout, sources: np.ndarray, conductance: np.ndarray, current: np.ndarray | None
) -> PreparedCircuit:
    """Compute what stays constant while a batch of operating points is solved.

    Parameters
    ----------
    layout : Layout
    sources : array (B, n_sources)
        Volts.
    conductance : array
        Conductance of the resistors, then of the memristors, siemens.
    current : array or None
        Values of the current sources, amperes.

    Raises
    ------
    InputError
        If bounds of ideal diodes contradict each other at these source voltages.
    """
    net, counts = layout.net, layout.counts
    offset = np.ascontiguousarray((layout.reduction.sources @ sources.T).T)
    resistors = counts[0]
    g = np.ascontiguousarray(conductance[:resistors])
    values = layout.values[resistors : len(layout.values) - counts[-1]].copy()
    values[: counts[1], 0] = conductance[resistors:]
    injected = np.zeros(len(net.unknown))
    if current is not None:
        ends = _acting(layout.ends[len(layout.ends) - counts[-1] :], layout.reduction)
        np.add.at(injected, ends[:, 0], -current)
        np.add.at(injected, ends[:, 1], current)
    diagonal, off = kernels.resistor_matrix(g, layout.n, len(layout.pattern.pairs), net)
    matrix = Matrix(layout.pattern, off[None]) if not (net.junction_stamps[:, 2] >= 0).any() else None
    low, high = limits(layout, offset)
    return PreparedCircuit(
        layout, offset, g, conductance, current, values, injected, diagonal, off, matrix, low, high
    )


def limits(layout: Layout, offset: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Lowest and highest value of each unknown, (B, n), that ideal diodes allow; None where there are none."""
    at, above, nodes = layout.bounds
    across = offset[:, layout.blocking[:, 0]] - offset[:, layout.blocking[:, 1]]
    if (across > 0).any():
        raise InputError(
            f"Ideal diodes between sources must block, but one of them has {across.max():g} V across it: it shorts "
            "two sources."
        )
    if not len(at):
        return None, None
    # Behind an inverting amplifier the unknown falls where the node rises.
    above = above ^ (layout.reduction.scale[nodes[:, 0]] < 0)
    level = (offset[:, nodes[:, 1]] - offset[:, nodes[:, 0]]) / layout.reduction.scale[nodes[:, 0]]
    low, high = np.full((len(offset), layout.n), -np.inf), np.full((len(offset), layout.n), np.inf)
    for row in range(len(offset)):
        np.minimum.at(high[row], at[above], level[row, above])
        np.maximum.at(low[row], at[~above], level[row, ~above])
    crossed = np.argwhere(low > high)
    if crossed.size:
        b, k = crossed[0]
        raise InputError(
            f"Ideal diodes must leave room for the voltage of an unknown, but allow from {low[b, k]:g} V to "
            f"{high[b, k]:g} V only: they short two sources."
        )
    return low, high


def check_outputs(reduction: Reduction, names: Sequence[str], pairs: np.ndarray) -> None:
    """Raise InputError naming an output that no nudge moves: it is fixed, or depends on a source's voltage."""
    tied = (np.diff(reduction.sources.indptr)[pairs] > 0) | (reduction.unknown[pairs] < 0)
    for k in np.flatnonzero((tied & (pairs != 0)).any(1) | (pairs == 0).all(1)):
        raise argument_error("outputs", "be nodes that no voltage source ties to another", names[int(k)])
    (first, second), (own, other) = reduction.unknown[pairs].T, reduction.scale[pairs].T
    for k in np.flatnonzero((first == second) & (own == other)):
        raise argument_error("outputs", "be differences of nodes that nothing holds together", names[int(k)])


def currents_of(current: torch.Tensor | None) -> np.ndarray | None:
    """Values of the current sources as an array; None where the circuit has none."""
    return None if current is None else current.detach().numpy()
