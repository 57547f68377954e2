"""Whether an operating point is stable: eigenvalues of its linearised motion, C du/dt = J u.

C holds capacitances and inductances, and is singular: nodes without a capacitor and currents of sources are
algebraic. Constraints are taken out until C is regular on what is left (the shuffle algorithm, Luenberger 1978,
Automatica 14, 473), so that loops of capacitors and sources, which leave no derivative of their own, do no harm.

A circuit may be unstable where its parts list has no capacitor at all: a latch between two levels. What is
algebraic settles at once only if it does so with whatever capacitance its nodes have; `rightmost` tries one so
small that nothing else notices it.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import eigvals

from .equations import Array

RANK = 1e-10
"""Singular values below this part of the largest count as zero."""
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
    size = 1 / np.where(size > 0, size, 1.0)
    j, c = size[:, None] * jacobian * size, size[:, None] * capacitance * size
    least = RANK * np.linalg.norm(c, 2) if len(c) else 0.0
    while len(j):
        still = ~c.any(1)  # rows of very different units would drown each other where they are mixed
        j[still] /= np.maximum(np.abs(j[still]).max(1, keepdims=True), 1e-300)
        left, singular, _ = np.linalg.svd(c)
        rank = int((singular > least).sum())
        if rank == len(j):
            return np.asarray(np.linalg.solve(c, j))
        constraints = left[:, rank:].T @ j
        free = np.linalg.svd(constraints)[2][len(j) - rank :].T
        j, c = left[:, :rank].T @ j @ free, left[:, :rank].T @ c @ free
    return np.zeros((0, 0))


def eigenvalues(jacobian: Array, capacitance: Array) -> Array:
    """Finite eigenvalues of J u = lambda C u, complex (r,), 1 / second."""
    matrix = motion(jacobian, capacitance)
    return np.asarray(eigvals(matrix)) if len(matrix) else np.zeros(0, complex)


def rightmost(jacobian: Array, capacitance: Array, nodes: int, stray: float) -> complex:
    """Eigenvalue of largest real part, 1 / second; NaN where J is singular or not finite.

    Parameters
    ----------
    jacobian, capacitance : array (n, n)
    nodes : int
        Number of unknowns that are node voltages: the first ones.
    stray : float
        Farad: what nodes have in a circuit without capacitors and inductors. With some, the motion without stray
        capacitances counts, unless one so small that it settles long before (`QUICK`) makes it unstable.
    """
    if not (np.isfinite(jacobian).all() and np.linalg.cond(_balanced(jacobian)) < 1e15):
        return complex(np.nan, np.nan)
    own = eigenvalues(jacobian, capacitance)
    first = own[own.real.argmax()] if len(own) else None
    if first is not None:
        if first.real > 0:
            return complex(first)
        load = float(np.abs(np.diag(jacobian)[:nodes]).max(initial=0.0))
        fastest = float(np.abs(own).max())
        stray = min(stray, QUICK * load / fastest) if fastest > 0 else stray
    shunt = np.zeros(len(jacobian))
    shunt[:nodes] = stray
    found = eigenvalues(jacobian, capacitance + np.diag(shunt))
    last = found[found.real.argmax()] if len(found) else complex(-np.inf)
    if first is None or last.real > max(1e-3 * np.abs(own).max(), 0.0):
        return complex(last)
    return complex(first)


def _balanced(matrix: Array) -> Array:
    """Rows, then columns, over their largest entries."""
    rows = matrix / np.maximum(np.abs(matrix).max(1, keepdims=True), 1e-300)
    return np.asarray(rows / np.maximum(np.abs(rows).max(0, keepdims=True), 1e-300))
