"""Nodes that the leakage of diodes alone holds, and how well float64 can tell their voltages.

A diode in reverse has a current of Is and next to no slope: a node between two of them moves by volts where
currents change by attoamperes, or by nothing that float64 can tell. Kirchhoff's current law in amperes says nothing
there; Newton's step in volts does, with the true slopes.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..laws.elements import THERMAL_VOLTAGE
from ..netlists.parts import Parts
from ..netlists.topology import behavioural_ties
from .equations import Array, Drive, NodalEquations
from .factors import Factors

TOLD = 1e-6
"""Volts (relative above 1 V) that rounding of the currents may move a node by."""
FLOOR = 1e-3
"""Of a junction's slope at 0 V: what Newton's method gives it at least, on its way."""


def held_by_leakage(parts: Parts, *ties: Array) -> Array:
    """Nodes that no path of conductors leads from to ground, (n_nodes,) bool.

    Conductors are all parts but diodes of an exponential law, capacitors and current sources; a resistor or
    memristor counts where `FLOOR` of all the diodes' slopes at 0 V is nothing beside it.

    Parameters
    ----------
    parts : Parts
    *ties : int array (m, 2)
        Nodes that something else ties together.
    """
    n = len(parts.nodes)
    diodes = np.concatenate([parts.group(kind).values[:, :2] for kind in ("diode", "spice_diode")])
    if not len(diodes):
        return np.zeros(n, bool)
    least = 10 * FLOOR * float((diodes[:, 0] / (diodes[:, 1] * THERMAL_VOLTAGE)).sum())
    pairs = [*ties]
    for kind in ("resistor", "memristor"):
        group = parts.group(kind)
        pairs.append(group.nodes[group.values[:, 0] > least])
    for kind in (
        "piecewise_diode",
        "ideal_diode",
        "voltage_source",
        "cccs",
        "vcvs",
        "rectifier",
        "vccs",
        "inductor",
    ):
        pairs.append(parts.group(kind).nodes[:, :2])
    pairs += [parts.group("vccs").nodes[:, [0, 2]], parts.group("vccs").nodes[:, [0, 3]]]
    pairs += behavioural_ties(parts)
    amplifier = parts.group("amplifier").nodes
    pairs += [amplifier, np.stack([amplifier[:, 1], np.zeros(len(amplifier), np.int64)], 1)]
    ends = np.concatenate(pairs)
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(n, n))
    _, label = connected_components(graph, directed=False)
    return np.asarray(label != label[0])


def untold(equations: NodalEquations, z: Array, drive: Drive, weak: Array) -> Array:
    """Nodes whose voltages rounding of the currents leaves open, (B, n_nodes) bool.

    Parameters
    ----------
    equations : NodalEquations
    z : array (B, 1 + n)
        States.
    drive : Drive
    weak : bool array (n_nodes,)
        Where to look.
    """
    n = equations.n_nodes
    across = equations.across(z)
    currents = np.abs(equations.currents(across, drive))
    sizes = currents @ abs(equations.out_of_nodes)
    sizes[:, n:] = 0.0
    slopes = equations.slopes(across)
    factors = Factors(equations, equations.jacobian(z, slopes, equations.conducting(z)))
    moved = np.abs(factors.solve(np.finfo(np.float64).eps * sizes[:, 1:]))[:, : n - 1]
    out = np.zeros((len(z), n), bool)
    with np.errstate(invalid="ignore"):
        out[:, 1:] = ~(moved <= TOLD * np.maximum(1.0, np.abs(z[:, 1:n])))
    return out & weak
