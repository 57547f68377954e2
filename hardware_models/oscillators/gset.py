"""Graphs with weights whose cut is sought, and the files that they are published in: Gset, the format of rudy.

The first line of a file has the number of nodes and that of edges, each other line the two nodes of an edge,
counted from 1, and its weight (Helmberg and Rendl, SIAM J. Optim. 10, 673, 2000).
"""

from __future__ import annotations

import math
import os
from typing import Any

import torch

from physics_ep.errors import argument_error
from physics_ep.storage.files import checked_path
from physics_ep.storage.outputs import reading
from physics_ep.storage.texts import require_regular

from .graph import checked_edges, values_of

LARGEST = 2**31
"""Nodes at most: the number of a pair is then an int64."""


class WeightedGraph:
    """A graph of n nodes whose edges have weights.

    Parameters
    ----------
    n : int
        Number of nodes, from 1 to 2^31.
    edges : array of int (m, 2)
        Nodes that an edge joins, counted from 0; each pair once.
    weights : array (m,), or float
        Weights of the edges, of either sign.

    Attributes
    ----------
    edges : int64 Tensor (m, 2)
    weights : float64 Tensor (m,)

    Raises
    ------
    InputError
        If an argument is not as above.

    Examples
    --------
    >>> square = WeightedGraph(4, [[0, 1], [1, 2], [2, 3], [3, 0]])
    >>> float(square.cut(torch.tensor([1, -1, 1, -1])))
    4.0
    """

    def __init__(self, n: int, edges: Any, weights: Any = 1.0) -> None:
        if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= LARGEST:
            raise argument_error("n", f"be an integer from 1 to {LARGEST}", n)
        self.n = n
        self.edges = checked_edges(edges, n)
        self.weights = values_of("weights", weights, (len(self.edges),))
        if not math.isfinite(float(self.weights.abs().sum())):
            raise argument_error("weights", "have a finite sum of sizes", "beyond float64")

    def cut(self, spins: torch.Tensor) -> torch.Tensor:
        """Sum of the weights of the edges whose ends have different signs, float64.

        Parameters
        ----------
        spins : Tensor (..., n)
            The side of each node: above zero, or not.

        Returns
        -------
        Tensor (...)

        Raises
        ------
        InputError
            If there is not one spin a node.
        """
        if not isinstance(spins, torch.Tensor) or spins.ndim < 1 or spins.shape[-1] != self.n:
            was = tuple(spins.shape) if isinstance(spins, torch.Tensor) else type(spins).__name__
            raise argument_error("spins", f"be a tensor (..., {self.n})", was)
        side = spins > 0
        apart = side[..., self.edges[:, 0]] != side[..., self.edges[:, 1]]
        return apart.to(torch.float64) @ self.weights


def read_gset(path: str | os.PathLike[str]) -> WeightedGraph:
    """Read a graph from a Gset file (rudy's format).

    The first line is "n m"; m lines "i j w" follow: an edge between the nodes i and j, counted from 1, of weight w.
    Empty lines are left out.

    Raises
    ------
    InputError
        In one line, with the line of the file, if it is not as above: another number of edges than m, nodes that
        are not there, an edge from a node to itself, a pair named twice, a weight that is no finite number.
    """
    path = checked_path(path, "FILE")
    reading("FILE", path)
    try:
        require_regular(path)
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "no text file"
        raise argument_error("FILE", "be a Gset file that can be read", f"{str(path)!r} ({why})") from None
    rows = [(k, fields) for k, line in enumerate(lines, 1) if (fields := line.split())]
    if not rows:
        raise argument_error("FILE", "begin with a line 'n m', nodes and edges", f"{str(path)!r}, which is empty")
    at, header = rows[0]
    sizes = [_count(field) for field in header]
    if len(sizes) != 2 or sizes[0] is None or sizes[1] is None or sizes[0] < 1:
        raise argument_error("FILE", "begin with a line 'n m', nodes and edges", _shown(at, header))
    n, m = sizes[0], sizes[1]
    if len(rows) - 1 != m:
        raise argument_error(
            "FILE", f"have the {m} edges that its first line tells", f"{len(rows) - 1} lines after it"
        )
    seen: dict[tuple[int, int], int] = {}
    weights = []
    for at, fields in rows[1:]:
        ends = [_count(field) for field in fields[:2]]
        weight = _weight(fields[2]) if len(fields) == 3 else None
        if weight is None or None in ends:
            raise argument_error("FILE", "have lines 'i j w', two nodes and a finite weight", _shown(at, fields))
        i, j = (end for end in ends if end is not None)
        if not (1 <= i <= n and 1 <= j <= n) or i == j:
            raise argument_error("FILE", f"join two different nodes from 1 to {n} by an edge", _shown(at, fields))
        pair = (min(i, j) - 1, max(i, j) - 1)
        if pair in seen:
            raise argument_error("FILE", f"name each pair once (line {seen[pair]})", _shown(at, fields))
        seen[pair] = at
        weights.append(weight)
    edges = torch.tensor(list(seen), dtype=torch.int64).reshape(-1, 2)
    return WeightedGraph(n, edges, torch.tensor(weights, dtype=torch.float64))


def _count(field: str) -> int | None:
    """A number in plain digits, as many as an int64 holds for sure; None: something else."""
    return int(field) if field.isascii() and field.isdigit() and len(field) <= 18 else None


def _weight(field: str) -> float | None:
    """A finite number, in float64; None: something else."""
    try:
        value = float(field)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in field else None


def _shown(at: int, fields: list[str]) -> str:
    """A line of a file, in an error, of bounded length."""
    return f"{' '.join(fields)[:40]!r} in line {at}"
