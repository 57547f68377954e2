"""Small signals at an operating point: (G + j omega C) v = i, the nodal equations linearised.

G is the Jacobian of modified nodal analysis at the operating point and C holds capacitances and inductances, as
circuit simulators do (Nagel 1975, SPICE2, Berkeley memorandum ERL-M520). Memristors with a state are
resistors of their present state.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse import csc_array
from scipy.sparse.linalg import splu

from physics_ep.errors import InputError, argument_error, unknown_name
from physics_ep.progress import SILENT, Progress, task

from ..netlists.parts import BEHAVIOURAL, CHANNELS, Parts
from ..netlists.resting import resting
from ..netlists.shunts import with_gmin
from .equations import Array, NodalEquations
from .factors import DENSE
from .points import operating_point
from .stability import rightmost, stray_instability

_TOGETHER = 2_000_000
"""Entries of dense matrices that are solved at once."""


ROUNDED = 1e-9
"""Part of an eigenvalue's size that rounding may make its real part: without losses they are imaginary."""

_LAST = 2.0**-200
"""Weight of rows that only tell what an ideal source carries: elimination takes them up last, however large they
are, so that a diode across the source does not round away the voltages of all others."""

_EXACT = 1e-10
"""Residual over the sizes of an equation's terms that passes for rounding."""


STRAY = 1e-12
"""Farad, at most, of stray capacitances at all nodes, by which operating points without capacitors are judged."""

_ONE_WAY = ("vcvs", "vccs", "cccs", "ccvs", "rectifier", "amplifier")


class UnstableWarning(UserWarning):
    """A circuit would leave the operating point at which small signals are asked for."""


@dataclass(frozen=True, repr=False)
class FrequencyResponse:
    """Phasors of small signals at an operating point, over frequency.

    Attributes
    ----------
    frequency : Tensor (F,)
        Hertz.
    voltages : complex Tensor (F, B, n_nodes)
        Volts, in the order of `nodes`, ground first.
    currents : complex Tensor (F, B, n_branches)
        Amperes, in the order of `branches`, from a part's first node through the part to its second.
    nodes : tuple of str
        Names of the nodes.
    branches : tuple of str
        Names of the parts whose currents are unknowns of the circuit.
    """

    frequency: torch.Tensor
    voltages: torch.Tensor
    currents: torch.Tensor
    nodes: tuple[str, ...]
    branches: tuple[str, ...]

    def __repr__(self) -> str:
        told = f"{len(self.frequency)} frequencies, {self.voltages.shape[1]} in the batch"
        return f"FrequencyResponse({told}, {len(self.nodes)} nodes, {len(self.branches)} branches)"

    def voltage(self, node: str) -> torch.Tensor:
        """Phasor of a node's voltage, (F, B) complex volts."""
        if node not in self.nodes:
            raise unknown_name("node", node, self.nodes)
        return self.voltages[..., self.nodes.index(node)]


def frequency_response(
    circuit: Any,
    frequencies: Any,
    *,
    amplitudes: Mapping[str, complex] | None = None,
    inputs: Any = None,
    gmin: float = 0.0,
    progress: Progress | bool = SILENT,
) -> FrequencyResponse:
    """Small-signal (AC) analysis at an operating point.

    Parameters
    ----------
    circuit : Parts, or Circuit
    frequencies : array_like (F,)
        Hertz, not negative.
    amplitudes : mapping of str to complex, optional
        Volts or amperes of sources by name; others have none. Default: those that the parts have (AC in netlists).
    inputs : array_like (B, n_voltage_sources), optional
        Volts of the voltage sources at the operating point. Default: the parts' own, B = 1.
    gmin : float
        Conductance across every diode, siemens, at the operating point and for the signals.
    progress : Progress

    Returns
    -------
    FrequencyResponse
        Ideal diodes conduct or block as they do at the operating point, to 1e-8 of the typical conductance.

    Raises
    ------
    InputError
        If an argument does not fit, no source has an amplitude, no operating point is found, or the equations are
        singular at a frequency.

    Warns
    -----
    UnstableWarning
        If the circuit would leave the operating point by itself, or would with equal stray capacitances at all
        nodes (a latch without a capacitor): what small signals do there is then no answer that it settles to.
        Circuits of up to `factors.DENSE` unknowns are looked at.
    """
    parts = circuit if isinstance(circuit, Parts) else getattr(circuit, "parts", None)
    if not isinstance(parts, Parts):
        raise argument_error("circuit", "be a Circuit or Parts", type(circuit).__name__)
    try:
        given = frequencies.detach().cpu().numpy() if isinstance(frequencies, torch.Tensor) else frequencies
        hertz = np.atleast_1d(np.array(given, np.float64))
    except (TypeError, ValueError):
        raise argument_error("frequencies", "be numbers, in hertz", type(frequencies).__name__) from None
    if hertz.ndim != 1 or not len(hertz) or not (np.isfinite(hertz).all() and (hertz >= 0).all()):
        raise argument_error("frequencies", "be finite and not negative, of shape (F,), in hertz", frequencies)
    parts = resting(with_gmin(parts, gmin))
    point = operating_point(parts, inputs)
    if not point.converged.all():
        raise InputError(f"The circuit has no operating point that could be found: {point.why_not()}.")
    equations = NodalEquations(parts, capacitors="charging")
    z = np.hstack([point.voltages, point.currents])
    slopes = equations.slopes(equations.across(z))
    still = equations.jacobian(z, slopes, equations.conducting(z)) + 0j
    right = _right_side(equations, amplitudes)
    if equations.size <= DENSE:
        _warn_of_instability(equations, still)
    found = np.zeros((len(hertz), len(z), equations.size + 1), np.complex128)
    together = max(1, _TOGETHER // equations.size**2) if equations.size <= DENSE else 1
    with task(progress, "small signals", total=len(hertz)) as advance:
        for first in range(0, len(hertz), together):
            omega = 2j * np.pi * hertz[first : first + together]
            moving = omega[:, None] * equations.storage()
            for row, entries in enumerate(still):
                solved = _solved(equations, entries + moving, right)
                if not np.isfinite(solved).all():
                    at = hertz[first + int((~np.isfinite(solved).all(1)).argmax())]
                    raise InputError(f"The circuit's equations are singular at {at:g} Hz.")
                found[first : first + len(omega), row, 1:] = solved
            advance(len(omega))
    both = torch.from_numpy(found)
    n = equations.n_nodes
    return FrequencyResponse(
        torch.from_numpy(hertz), both[..., :n], both[..., n:], equations.parts.nodes, equations.branches
    )


def _warn_of_instability(equations: NodalEquations, still: Array) -> None:
    """Warn where the motion about an operating point, C du/dt = -G u, grows."""
    n = equations.size
    slopes, storage = np.zeros((len(still), n * n)), np.zeros(n * n)
    slopes[:, equations.flat], storage[equations.flat] = still.real, equations.storage()
    one_way = any(len(equations.parts.group(kind)) for kind in (*_ONE_WAY, *CHANNELS, *BEHAVIOURAL))
    for each in slopes.reshape(-1, n, n):
        found = rightmost(-each, storage.reshape(n, n))
        if one_way and not found.real > 0:
            astray = stray_instability(-each, storage.reshape(n, n), equations.n_nodes - 1, STRAY)
            if astray is not None:
                warnings.warn(
                    "The operating point holds by the circuit's capacitors alone: with equal stray ones at all "
                    f"nodes an eigenvalue of its motion is {astray.real:.3g} {astray.imag:+.3g}i per s: small "
                    "signals there may be no answer that it settles to. Capacitors at the nodes tell.",
                    UnstableWarning,
                    stacklevel=3,
                )
                return
        if found.real > ROUNDED * abs(found):
            warnings.warn(
                f"The circuit leaves its operating point by itself (eigenvalue {found.real:.3g} "
                f"{found.imag:+.3g}i per s): what small signals do there is no answer that it settles to.",
                UnstableWarning,
                stacklevel=3,
            )
            return


def _right_side(equations: NodalEquations, amplitudes: Mapping[str, complex] | None) -> Array:
    """What the sources impose on the scaled equations, (n,) complex."""
    volts, amperes = (equations.parts.group(kind) for kind in ("voltage_source", "current_source"))
    known = {**volts.ac, **amperes.ac}
    if not amplitudes and (amplitudes is not None or not any(known.values())):
        must = "name a source, where none has an amplitude of its own (AC in netlists)"
        raise argument_error("amplitudes", must, amplitudes)
    if amplitudes is not None:
        for name in amplitudes:
            if name not in (*volts.names, *amperes.names):
                raise unknown_name("amplitudes", str(name), (*volts.names, *amperes.names))
        known = dict(amplitudes)
    try:
        given = {name: complex(value) for name, value in known.items()}
    except (TypeError, ValueError):
        raise argument_error("amplitudes", "be complex numbers by name of a source", known) from None
    if not np.isfinite(list(given.values())).all():
        raise argument_error("amplitudes", "be finite", known)
    right = np.zeros(equations.size + 1, np.complex128)
    first = equations.n_nodes + equations.branch_kinds.get("voltage_source", slice(0, 0)).start
    for k, name in enumerate(volts.names):
        right[first + k] = given.get(name, 0.0)
    sent = np.array([given.get(name, 0.0) for name in amperes.names], np.complex128)
    for part in equations.elements:
        if part.kind == "current_source":
            right -= sent @ equations.out_of_nodes[part.where]
    return right[1:] * equations.stretch


def _solved(equations: NodalEquations, entries: Array, right: Array) -> Array:
    """Solutions (F, n) of matrices of the scaled Jacobian's pattern, entries (F, e); NaN where one is singular."""
    last = np.where(equations.carried[1:], _LAST, 1.0)
    found = _eliminated(equations, entries * last[equations.rows], right * last)
    missing = _missing(equations, entries, right, found)
    rest = np.flatnonzero(~(missing <= _EXACT))
    if len(rest):  # currents that others read may have to be taken up early
        again = _eliminated(equations, entries[rest], right)
        better = ~(_missing(equations, entries[rest], right, again) >= missing[rest])
        found[rest[better]] = again[better]
    return np.asarray(found * equations.stretch)


def _missing(equations: NodalEquations, entries: Array, right: Array, found: Array) -> Array:
    """Largest residual of an equation over the sum of the sizes of its terms, (F,)."""
    n = equations.size
    terms = entries * found[:, np.repeat(np.arange(n), np.diff(equations.starts))]
    out = np.empty(len(entries))
    for k, each in enumerate(terms):
        total = np.bincount(equations.rows, each.real, n) + 1j * np.bincount(equations.rows, each.imag, n) - right
        size = np.bincount(equations.rows, np.abs(each), n) + np.abs(right)
        out[k] = (np.abs(total) / np.where(size > 0, size, 1.0)).max(initial=0.0)
    return out


def _eliminated(equations: NodalEquations, entries: Array, right: Array) -> Array:
    """Solutions (F, n) in the scaled unknowns by elimination, currents of branches that set voltages last."""
    n = equations.size
    out = np.full((len(entries), n), np.nan + 0j)
    if n <= DENSE:
        order = np.argsort(equations.tying, kind="stable")
        matrices = np.zeros((len(entries), n * n), np.complex128)
        matrices[:, equations.flat] = entries
        matrices = matrices.reshape(-1, n, n)[..., order]
        try:
            solved = np.linalg.solve(matrices, np.broadcast_to(right[:, None], (len(entries), n, 1)))
            out[:, order] = solved[..., 0]
        except np.linalg.LinAlgError:
            return out
    else:
        for row, each in zip(out, entries, strict=True):
            matrix = csc_array((np.ascontiguousarray(each), equations.rows, equations.starts), shape=(n, n))
            try:
                row[:] = splu(matrix).solve(right)
            except RuntimeError:
                continue
    return out
