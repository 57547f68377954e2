"""Outputs of a circuit by name: a node's voltage, or the difference of two nodes' voltages, v(a,b) = v_a - v_b."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from physics_ep.errors import argument_error, unknown_name

from .parts import GROUND

_PROBE = re.compile(r"\s*v\(\s*([^\s(),]+)\s*(?:[\s,]\s*([^\s(),]+)\s*)?\)\s*", re.I)


def output_pairs(given: Any, nodes: Sequence[str], argument: str = "outputs") -> tuple[tuple[str, ...], np.ndarray]:
    """Names of outputs, and the two nodes of each.

    Parameters
    ----------
    given : str, or sequence of str and of pairs of str
        Each output is a node's name, v(NODE), v(NODE,NODE), or a pair of nodes whose difference it is.
    nodes : sequence of str
        The circuit's nodes, ground first.
    argument : str
        What errors call it.

    Returns
    -------
    tuple of str
        A node's name, or v(a,b) for a difference.
    int64 array (n_out, 2)
        The node, and the one that is subtracted: ground's 0 where there is none.

    Raises
    ------
    InputError
        If a node is unknown, or the two nodes of a difference are one.
    """
    read = [given] if isinstance(given, str) else list(given)
    known = {name: k for k, name in enumerate(nodes)} if read else {}
    names, pairs = [], []
    for one in read:
        first, second = _ends(one, known, argument)
        for end in (first, second):
            if end not in known:
                raise unknown_name(argument, end, known)
        if first == second:
            raise argument_error(argument, "be differences of two nodes", repr(one))
        names.append(first if second == GROUND else difference_name(first, second))
        pairs.append((known[first], known[second]))
    return tuple(names), np.array(pairs, np.int64).reshape(-1, 2)


def difference_name(first: str, second: str) -> str:
    """What the voltage of one node less that of another is called."""
    return f"v({first},{second})"


def node_names(output: str) -> tuple[str, ...]:
    """The one or two nodes that an output's text names."""
    found = _PROBE.fullmatch(output)
    return (output,) if found is None else tuple(end for end in found.groups() if end is not None)


def _ends(one: Any, known: Mapping[str, int], argument: str) -> tuple[str, str]:
    if isinstance(one, str):
        ends = (one,) if one in known else node_names(one)
    else:
        try:
            ends = tuple(one)
        except TypeError:
            ends = ()
        if not 1 <= len(ends) <= 2 or not all(isinstance(end, str) for end in ends):
            raise argument_error(argument, "be names of nodes, v(NODE,NODE), or pairs of names", repr(one))
    return (ends[0], GROUND) if len(ends) == 1 else (ends[0], ends[1])
