"""The nudge of a circuit as parts: a conductance from each output node to a source at its target.

Its current, beta (v - y), is the derivative of beta times the squared error (Kendall 2020); a negative beta is a
conductance that only a simulation, or an active part, has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from physics_ep.errors import argument_error, unknown_name

from ..netlists.parts import Parts

Array = np.ndarray


class Nudging(NamedTuple):
    """Conductances beta from output nodes to sources at the targets: what a nudge by the squared error is.

    Attributes
    ----------
    nodes : int64 array (k,)
    beta : float
        Siemens; negative pushes away.
    targets : array (B, k)
        Volts.
    """

    nodes: Array
    beta: float
    targets: Array


def node_numbers(parts: Parts, names: Sequence[str], argument: str) -> Array:
    """Indices of nodes given by name, or InputError."""
    known = {name: k for k, name in enumerate(parts.nodes)}
    for name in names:
        if name not in known:
            raise unknown_name(argument, name, known)
    return np.array([known[name] for name in names], np.int64)


def nudging(parts: Parts, nudge: Any, batch: int | None = None) -> Nudging | None:
    """A nudge given as (node names, targets (B, k) or (k,) volts, beta siemens), checked."""
    if nudge is None or isinstance(nudge, Nudging):
        return nudge
    try:
        names, targets, beta = nudge
        aimed, strength = np.atleast_2d(np.array(targets, np.float64)), float(beta)
    except (TypeError, ValueError) as error:
        raise argument_error("nudge", "be (node names, targets in volts, beta in siemens)", repr(nudge)) from error
    names = [names] if isinstance(names, str) else list(names)
    if aimed.ndim != 2 or aimed.shape[1] != len(names) or (batch and len(aimed) not in (1, batch)):
        must = f"have the shape ({batch or 'B'}, {len(names)})"
        raise argument_error("targets of nudge", must, aimed.shape)
    if not (np.isfinite(aimed).all() and np.isfinite(strength)):
        raise argument_error("nudge", "be finite", f"{aimed.tolist()} with beta {strength}")
    return Nudging(node_numbers(parts, names, "node of nudge"), strength, aimed)
