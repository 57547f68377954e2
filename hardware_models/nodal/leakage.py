"""Nodes that the leakage of diodes alone holds, and how well float64 can tell their voltages.

A diode in reverse has a current of Is and next to no slope: a node between two of them moves by volts where
currents change by attoamperes, or by nothing that float64 can tell. Kirchhoff's current law in amperes says nothing
there; Newton's step in volts does, with the true slopes.
"""

from __future__ import annotations

import numpy as np

from .equations import Array, Drive, NodalEquations
from .factors import Factors

TOLD = 1e-6
"""Volts (relative above 1 V) that rounding of the currents may move a node by."""


def untold(equations: NodalEquations, z: Array, drive: Drive, weak: Array) -> Array:
    """Nodes whose voltages rounding of the currents leaves open, (B, n_nodes) bool.

    Parameters
    ----------
    equations : NodalEquations
    z : array (B, 1 + n)
        States.
    drive : Drive
    weak : bool array (n_nodes,)
        Nodes to look at.
    """
    n = equations.n_nodes
    across = equations.across(z)
    currents = np.abs(equations.currents(across, drive))
    sizes = currents @ abs(equations.out_of_nodes)
    if len(equations.transistors):
        sizes += np.abs(equations.transistors.currents(z)) @ abs(equations.through_transistors)
    if len(equations.memristors):
        sizes += np.abs(equations.memristor_currents(z)) @ abs(equations.through_memristors)
    sizes[:, n:] = 0.0
    slopes = equations.slopes(across)
    factors = Factors(equations, equations.jacobian(z, slopes, equations.conducting(z)))
    moved = np.abs(factors.solve(np.finfo(np.float64).eps * sizes[:, 1:]))[:, : n - 1]
    out = np.zeros((len(z), n), bool)
    with np.errstate(invalid="ignore"):
        out[:, 1:] = ~(moved <= TOLD * np.maximum(1.0, np.abs(z[:, 1:n])))
    return out & weak
