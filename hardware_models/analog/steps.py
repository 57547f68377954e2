"""Compiled time steps of the analog circuit: C du/dt = source - u / R + T V(u), many steps at once.

Within a chunk of examples the innermost loops run over examples, as in `hardware_models.hopfield.graph_kernels`;
chunks do not wait for each other. What clamped nodes and constant currents add does not change in time, and is
summed once.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..hopfield.graph_kernels import Graph
from ..laws.compiled import Array, inner, kernel, prange, response


class AnalogParts(NamedTuple):
    """The elements of a circuit with n_free nodes and m edges, and what drives them.

    Attributes
    ----------
    weight : float64 array (m,)
        Conductances T, siemens.
    leak : float64 array (n_free,)
        1 / R, siemens.
    elastance : float64 array (n_free,)
        1 / C, 1 / farad.
    slope : float64 array (n_free,)
        Gain over supply, 1 / volt: V = supply * sigma(slope * u).
    supply : float
        Volts.
    source : float64 array (n_free, B)
        Current that does not depend on the free nodes, amperes.
    shunt : float64 array (n_free, B)
        A nudge draws shunt * V from a node, siemens.
    """

    weight: Array
    leak: Array
    elastance: Array
    slope: Array
    supply: float
    source: Array
    shunt: Array


@inner
def _rates(u: Array, v: Array, rate: Array, lo: int, parts: Any, graph: Any) -> None:
    """du/dt of one chunk into `rate`, by way of the outputs v; all (n_free, m)."""
    n_free, m = u.shape
    for i in range(n_free):
        unit, slope = graph.units[i], parts.slope[i]
        for b in range(m):
            v[i, b] = parts.supply * response(unit, slope * u[i, b])
    for i in range(n_free):
        leak, row = parts.leak[i], rate[i]
        for b in range(m):
            row[b] = parts.source[i, lo + b] - leak * u[i, b] - parts.shunt[i, lo + b] * v[i, b]
        for e in range(graph.rows[i, 0], graph.rows[i, 2]):
            w, there = parts.weight[graph.edges[e]], v[graph.neighbours[e]]
            for b in range(m):
                row[b] += w * there[b]
        elastance = parts.elastance[i]
        for b in range(m):
            row[b] *= elastance


@kernel
def rates(u: Array, parts: AnalogParts, graph: Graph, width: int) -> Array:
    """du/dt, (B, n_free) volts a second, at the amplifiers' inputs u (B, n_free); `width` examples a chunk."""
    batch, n_free = u.shape
    out = np.empty((batch, n_free))
    for chunk in prange((batch + width - 1) // width):
        lo = chunk * width
        m = min(width, batch - lo)
        here, v, rate = np.empty((n_free, m)), np.empty((n_free, m)), np.empty((n_free, m))
        for b in range(m):
            for i in range(n_free):
                here[i, b] = u[lo + b, i]
        _rates(here, v, rate, lo, parts, graph)
        for b in range(m):
            for i in range(n_free):
                out[lo + b, i] = rate[i, b]
    return out


@kernel
def steps(
    u: Array, parts: AnalogParts, graph: Graph, stages: Array, weights: Array, dt: float, count: int, width: int
) -> Array:
    """u (B, n_free) after `count` explicit Runge-Kutta steps of dt seconds.

    Parameters
    ----------
    u : array (B, n_free)
    parts, graph : AnalogParts, Graph
    stages, weights : array (s, s), (s,)
        Tableau, strictly lower triangular.
    dt, count, width
        Step, number of steps, examples a chunk.
    """
    batch, n_free = u.shape
    moved = np.empty((batch, n_free))
    for chunk in prange((batch + width - 1) // width):
        lo = chunk * width
        m = min(width, batch - lo)
        now, trial, v = np.empty((n_free, m)), np.empty((n_free, m)), np.empty((n_free, m))
        slopes = np.empty((len(weights), n_free, m))
        for b in range(m):
            for i in range(n_free):
                now[i, b] = u[lo + b, i]
        for _ in range(count):
            for k in range(len(weights)):
                trial[:, :] = now
                for j in range(k):
                    a = dt * stages[k, j]
                    if a != 0.0:
                        for i in range(n_free):
                            for b in range(m):
                                trial[i, b] += a * slopes[j, i, b]
                _rates(trial, v, slopes[k], lo, parts, graph)
            for k in range(len(weights)):
                a = dt * weights[k]
                for i in range(n_free):
                    for b in range(m):
                        now[i, b] += a * slopes[k, i, b]
        for b in range(m):
            for i in range(n_free):
                moved[lo + b, i] = now[i, b]
    return moved
