"""Whether an operating point is stable: eigenvalues of its linearised motion, C du/dt = J u.

C holds capacitances and inductances, and is singular: nodes without a capacitor and currents of sources are
algebraic. Constraints are taken out until C is regular on what is left (the shuffle algorithm, Luenberger 1978,
Automatica 14, 473), so that loops of capacitors and sources, which leave no derivative of their own, do no harm.

What is algebraic counts as settled at once. Whether it would settle depends on capacitances that the parts list
does not have: between the two levels of a latch without a capacitor it would not. `stray_instability` tries the
same one at each node, so small that nothing else notices it.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import eigvals

from .equations import Array

RANK = 1e-10
"""Singular values below this part of the largest count as zero."""
SWEEPS = 4
"""Times that rows and columns are brought to one size, in turn."""
QUICK = 1e-6
"""Time constants of stray capacitances over the shortest of the circuit's own."""


def motion(jacobian: Array, capacitance: Array) -> Array:
    """The matrix of the differential equations that are left of C du/dt = J u, (r, r).

    Parameters
    ----------
    jacobian, capacitance : array (n, n)
        J must be regular.
    """
    size = np.sqrt(np.abs(np.diag(capacitance)))
    charged = size > 0
    typical = float(np.exp(np.log(size[charged]).mean())) if charged.any() else 1.0
    size = 1 / np.where(charged, size, typical)
    j, c = size[:, None] * jacobian * size, size[:, None] * capacitance * size
    least = RANK * np.linalg.norm(c, 2) if len(c) else 0.0
    while len(j):
        _even(j, c)
        left, singular, _ = np.linalg.svd(c)
        rank = int((singular > least).sum())
        if rank == len(j):
            return np.asarray(np.linalg.solve(c, j))
        constraints = left[:, rank:].T @ j
        free = np.linalg.svd(constraints)[2][len(j) - rank :].T
        j, c = left[:, :rank].T @ j @ free, left[:, :rank].T @ c @ free
    return np.zeros((0, 0))


def _even(j: Array, c: Array) -> None:
    """Bring what C does not touch to the size of the rest: rows of constraints, and columns of algebraic unknowns.

    Neither has a size of its own: amperes through a source, in any unit, beside volts of nodes with a capacitor,
    would leave these no share in the directions that the constraints allow, and their motion would be lost.
    """
    still, algebraic = ~c.any(1), ~c.any(0)
    for _ in range(SWEEPS):
        j[still] /= np.maximum(np.abs(j[still]).max(1, keepdims=True), 1e-300)
        most = np.abs(j[still]).max(0, initial=0.0)
        j[:, algebraic] /= np.where(most > 0, most, 1.0)[algebraic]


def eigenvalues(jacobian: Array, capacitance: Array) -> Array:
    """Finite eigenvalues of J u = lambda C u, complex (r,), 1 / second."""
    matrix = motion(jacobian, capacitance)
    return np.asarray(eigvals(matrix)) if len(matrix) else np.zeros(0, complex)


def rightmost(jacobian: Array, capacitance: Array) -> complex:
    """Finite eigenvalue of largest real part, 1 / second; NaN where there is none, or J is singular or not finite.

    Parameters
    ----------
    jacobian, capacitance : array (n, n)
    """
    if not is_regular(jacobian):
        return complex(np.nan, np.nan)
    own = eigenvalues(jacobian, capacitance)
    return complex(own[own.real.argmax()]) if len(own) else complex(np.nan, np.nan)


def stray_instability(jacobian: Array, capacitance: Array, nodes: int, stray: float) -> complex | None:
    """Eigenvalue by which stray capacitances at all nodes make an operating point unstable; None: they do not.

    Parameters
    ----------
    jacobian, capacitance : array (n, n)
    nodes : int
        Number of unknowns that are node voltages: the first ones.
    stray : float
        Farad, the same at each. Where the circuit has a motion of its own it is less, so that they settle long
        before it (`QUICK`).
    """
    if not is_regular(jacobian):
        return None
    own = np.abs(eigenvalues(jacobian, capacitance)).max(initial=0.0)
    if own > 0:
        load = float(np.abs(np.diag(jacobian)[:nodes]).max(initial=0.0))
        stray = min(stray, QUICK * load / own)
    shunt = np.zeros(len(jacobian))
    shunt[:nodes] = stray
    found = eigenvalues(jacobian, capacitance + np.diag(shunt))
    worst = found[found.real.argmax()] if len(found) else complex(-np.inf)
    return complex(worst) if worst.real > 1e-3 * own else None


def is_regular(jacobian: Array) -> bool:
    """Whether a Jacobian is finite and has an inverse, as far as float64 tells."""
    return bool(np.isfinite(jacobian).all()) and bool(np.linalg.cond(_balanced(jacobian)) < 1e15)


def _balanced(matrix: Array) -> Array:
    """Rows, then columns, over their largest entries."""
    rows = matrix / np.maximum(np.abs(matrix).max(1, keepdims=True), 1e-300)
    return np.asarray(rows / np.maximum(np.abs(rows).max(0, keepdims=True), 1e-300))
