"""The nudge of a circuit as parts: a conductance from each output node to a source at its target.

Its current, beta (v - y), is the derivative of beta times the squared error (Kendall 2020); a negative beta is a
conductance that only a simulation, or an active part, has. Where an output is the difference of two nodes, the
conductance and its source lie between them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from physics_ep.errors import argument_error

from ..arrays import plain
from ..netlists.outputs import output_pairs
from ..netlists.parts import Parts

Array = np.ndarray


class Nudging(NamedTuple):
    """Conductances beta from output nodes to sources at the targets: what a nudge by the squared error is.

    Attributes
    ----------
    nodes : int64 array (k, 2)
        The node, and the one whose voltage is subtracted: ground for outputs that are one node's.
    beta : float
        Siemens; negative pushes away.
    targets : array (B, k)
        Volts.
    """

    nodes: Array
    beta: float
    targets: Array


def nudging(parts: Parts, nudge: Any, batch: int | None = None) -> Nudging | None:
    """A nudge given as (outputs by name, targets (B, k) or (k,) volts, beta siemens), checked."""
    if nudge is None or isinstance(nudge, Nudging):
        return nudge
    try:
        names, targets, beta = nudge
        aimed, strength = np.atleast_2d(np.array(plain(targets), np.float64)), float(beta)
    except (TypeError, ValueError) as error:
        raise argument_error("nudge", "be (node names, targets in volts, beta in siemens)", repr(nudge)) from error
    names, pairs = output_pairs(names, parts.nodes, "node of nudge")
    if aimed.ndim != 2 or aimed.shape[1] != len(names) or (batch and len(aimed) not in (1, batch)):
        must = f"have the shape ({batch or 'B'}, {len(names)})"
        raise argument_error("targets of nudge", must, aimed.shape)
    if not (np.isfinite(aimed).all() and np.isfinite(strength)):
        raise argument_error("nudge", "be finite", f"{aimed.tolist()} with beta {strength}")
    return Nudging(pairs, strength, aimed)
