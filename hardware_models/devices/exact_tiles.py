"""Kirchhoff's laws in all nodes of a tile, by nested dissection with dense blocks.

A tile is a graph of conductances between its terminals (drivers of rows, sense ends of columns) and inner
nodes, two a cell. It is cut in halves until some 64 cells are left (George 1973, SIAM Journal on Numerical
Analysis 10, 345); each part is reduced to the nodes at which it touches others, by its Schur complement, and
neighbours are joined again. A part of s by s cells touches others at some 4 s nodes, so that a tile of n by n
takes some 100 n^3 flops, nearly all in products of dense matrices, where a band takes n^4.

The matrix of a part is that of a circuit of conductances: rows sum to zero, and what is off the diagonal is 0
or less. Nodes are eliminated as Grassmann, Taksar and Heyman (1985, Operations Research 33, 1107) do: a pivot
is no difference, but the sum of what leads from its node to others, so that numbers of one sign are added
throughout, and every effective conductance has nearly all of its digits, however much wires, drivers and cells
differ (O'Cinneide 1993, Numerische Mathematik 65, 109).
"""

from __future__ import annotations

import numpy as np
import torch

from physics_ep.errors import argument_error
from physics_ep.placement import threads

from .tile_kernels import eliminate
from .wiring import Wiring

LEAF = 64
"""Cells of a part that is not cut further. Smaller ones cost calls, larger ones flops and memory."""
PANEL = 32
"""Nodes that are eliminated before a product of matrices brings the rest up to date."""
LARGEST_RATIO = 1 / float(np.finfo(np.float64).eps)
"""Resistance of a wire or an end over that of the best cell, from which on one is nothing beside the other."""

Reduced = tuple[np.ndarray, np.ndarray]
"""Nodes of a part that are left, ascending, and the conductance matrix between them, S."""


class TileNetwork:
    """The graph of a tile. Nodes are drivers of rows, sense ends of columns, then inner nodes; where no resistance
    lies between two, they are one.

    Parameters
    ----------
    tile : float64 array (rows, columns)
        Conductances of the cells, S.
    wiring : Wiring

    Attributes
    ----------
    cells : float64 array (rows, columns)
        Conductances of the cells in series with their selectors, S.
    above, below : int64 array (rows, columns)
        Nodes between which each cell lies, of its row and of its column.
    ends, conductance : int64 array (k, rows, columns, 2), float64 array (k, rows, columns)
        For each cell, k conductances (S) and the nodes that they join: its own, that of the wire before it in its
        row, that of the wire behind it in its column, and those of further ends; 0 S where there is none.

    Raises
    ------
    InputError
        If a resistance is beyond `LARGEST_RATIO`.
    """

    def __init__(self, tile: np.ndarray, wiring: Wiring) -> None:
        rows, columns = tile.shape
        self.cells = tile / (1 + wiring.selector * tile)
        # What drops less than eps of 1 V, were all currents to flow through all of it, is nothing to rounding.
        nothing = np.finfo(np.float64).eps / 8 / max(float(self.cells.sum()), 1e-300)
        row = wiring.row if wiring.row * columns >= nothing else 0.0
        column = wiring.column if wiring.column * rows >= nothing else 0.0
        first, last = (r if r >= nothing else 0.0 for r in (row + wiring.driver, column + wiring.sense))
        ratio = max(row, column, first, last) * float(self.cells.max())
        if ratio > LARGEST_RATIO:
            must = f"be no more than some {LARGEST_RATIO:.0g} times that of a cell, ohm"
            raise argument_error("resistance", must, f"{ratio:.3g} times that")
        drivers = np.repeat(np.arange(rows)[:, None], columns, 1)
        senses = np.repeat(rows + np.arange(columns)[None], rows, 0)
        self.terminals, self.nodes = rows + columns, rows + columns + 2 * rows * columns
        inner = np.arange(self.terminals, self.nodes).reshape(2, rows, columns)
        self.above = inner[0] if row else (np.repeat(inner[0, :, :1], columns, 1) if first else drivers)
        self.below = inner[1] if column else (np.repeat(inner[1, :1], rows, 0) if last else senses)
        before = np.concatenate([drivers[:, :1], self.above[:, :-1]], 1)
        behind = np.concatenate([self.below[1:], senses[:1]], 0)
        along, down = np.full(tile.shape, row), np.full(tile.shape, column)
        along[:, 0], down[-1] = first, last
        edges = [(self.above, self.below, self.cells), (before, self.above, _over(along))]
        edges.append((behind, self.below, _over(down)))
        if wiring.driven_ends == "both":
            right, ohm = self.above.copy(), np.zeros(tile.shape)
            right[:, -1], ohm[:, -1] = drivers[:, -1], first
            edges.append((right, self.above, _over(ohm)))
        if wiring.sensed_ends == "both":
            upper, ohm = self.below.copy(), np.zeros(tile.shape)
            upper[0], ohm[0] = senses[0], last
            edges.append((upper, self.below, _over(ohm)))
        self.ends = np.stack([np.stack([a, b], -1) for a, b, _ in edges])
        self.conductance = np.stack([g for _, _, g in edges])
        # First and last row and column of the cells that touch each node; terminals are touched from outside.
        self.first, self.last = np.full((2, self.nodes), self.nodes), np.full((2, self.nodes), -1)
        indices = np.indices(tile.shape)
        for axis in (0, 1):
            at = np.broadcast_to(indices[axis][None, :, :, None], self.ends.shape).ravel()
            np.minimum.at(self.first[axis], self.ends.ravel(), at)
            np.maximum.at(self.last[axis], self.ends.ravel(), at)
        self.first[:, : self.terminals] = -1
        self.steps: list[tuple[np.ndarray, np.ndarray, np.ndarray]] | None = None

    def between_terminals(self, keep: bool = False) -> np.ndarray:
        """Conductance matrix between the terminals: currents that flow in at each, for 1 V at one of them, S.

        Parameters
        ----------
        keep : bool
            Whether to keep what `voltages` needs: some 100 numbers a cell.
        """
        self.steps = [] if keep else None
        rows, columns = self.cells.shape
        with threads(1):  # two would wait for each other, spinning, at each of thousands of small matrices
            return self._reduced(0, rows, 0, columns)[1]

    def voltages(self, terminals: np.ndarray) -> np.ndarray:
        """Voltages of all nodes, (nodes,), for those of the terminals, V; after `between_terminals(keep=True)`."""
        assert self.steps is not None
        found = np.zeros(self.nodes)
        found[: self.terminals] = terminals
        for gone, left, share in reversed(self.steps):
            found[gone] = share @ found[left]
        return found

    def _reduced(self, top: int, bottom: int, left: int, right: int) -> Reduced:
        """The part of rows top to bottom and columns left to right, reduced to nodes that other parts touch."""
        high, wide = bottom - top, right - left
        if high * wide <= LEAF:
            part = np.s_[:, top:bottom, left:right]
            nodes, at = np.unique(self.ends[part].reshape(-1, 2), return_inverse=True)
            a, b = at.reshape(-1, 2).T
            size = len(nodes)
            own: np.ndarray = np.bincount(a * size + b, self.conductance[part].ravel(), size * size).reshape(
                size, size
            )
            matrix = -(own + own.T)
        else:
            middle = (top + bottom) // 2 if high >= wide else (left + right) // 2
            halves = (
                ((top, middle, left, right), (middle, bottom, left, right))
                if high >= wide
                else ((top, bottom, left, middle), (top, bottom, middle, right))
            )
            one, other = (self._reduced(*half) for half in halves)
            nodes = np.union1d(one[0], other[0])
            matrix = np.zeros((len(nodes), len(nodes)))
            for own_nodes, part_matrix in (one, other):
                here = np.searchsorted(nodes, own_nodes)
                matrix[np.ix_(here, here)] += part_matrix
        inside = (
            (self.first[0, nodes] >= top)
            & (self.last[0, nodes] < bottom)
            & (self.first[1, nodes] >= left)
            & (self.last[1, nodes] < right)
        )
        return self._eliminated(nodes, matrix, inside)

    def _eliminated(self, nodes: np.ndarray, matrix: np.ndarray, inside: np.ndarray) -> Reduced:
        """The nodes that are not inside, and the Schur complement of those that are."""
        gone, left = np.flatnonzero(inside), np.flatnonzero(~inside)
        order, count = np.concatenate([gone, left]), len(gone)
        ordered = matrix[np.ix_(order, order)]
        pivots = np.empty(count)
        for lo in range(0, count, PANEL):
            hi = min(lo + PANEL, count)
            eliminate(ordered[lo:hi, lo:], pivots[lo:hi])
            here = torch.from_numpy(ordered[lo:hi, hi:])
            scaled = here / torch.from_numpy(pivots[lo:hi, None])
            torch.from_numpy(ordered[hi:, hi:]).addmm_(scaled.mT, here, alpha=-1.0)
        if self.steps is not None and count:
            upper = torch.from_numpy(ordered[:count, :count].copy())
            upper.diagonal().copy_(torch.from_numpy(pivots))
            share = torch.linalg.solve_triangular(upper, -torch.from_numpy(ordered[:count, count:]), upper=True)
            self.steps.append((nodes[gone], nodes[left], share.numpy()))
        kept = ordered[count:, count:].copy()
        np.fill_diagonal(kept, 0.0)
        np.fill_diagonal(kept, -kept.sum(1))
        return nodes[left], kept


def _over(ohm: np.ndarray) -> np.ndarray:
    """Conductances (S) of resistances (ohm); 0 of those of 0, which join what is one node already."""
    return np.divide(1.0, ohm, out=np.zeros_like(ohm), where=ohm > 0)
