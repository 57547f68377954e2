"""The phases of equilibrium propagation as circuits of their own, and the gradient from ngspice's node voltages.

A nudge of strength beta, siemens, is a conductance beta from each output node to a source at the target's voltage:
its co-content is beta times the squared error. The conductance of a negative nudge is negative, which a
voltage-controlled current source across its own nodes is in any simulator.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from physics_ep.errors import InputError, argument_error, unknown_name
from physics_ep.storage.files import checked_path
from physics_ep.storage.outputs import writing

from ..arrays import plain
from ..circuits.reduction import reduce
from ..laws.elements import ELEMENTS
from ..netlists.netlist import write_netlist
from ..netlists.outputs import output_pairs
from ..netlists.parts import Group, Parts
from ..netlists.resting import resting
from .ngspice import (
    ACCURATE,
    alterations,
    node_voltages,
    nodesets,
    run_ngspice,
    simulator_lines,
    source_table,
)

TARGET = "ep_target_"
"""Beginning of the names of the nodes at which nudges end."""
LEARNT = {"conductance": ("resistor", "memristor"), "current": ("current_source",)}
"""Kinds of parts by the parameter that their first values make up."""


class Corrected(NamedTuple):
    """What nudged phases of asymmetric EP are made of, and where they begin.

    Attributes
    ----------
    parts : Parts
        A circuit with the correction (`hardware_models.spice.adjoint.adjoint_parts`).
    held : dict of str to float
        Volts of nodes, by name, at the free state.
    """

    parts: Parts
    held: dict[str, float]


def nudged_parts(parts: Parts, outputs: Sequence[str], targets: Sequence[float] | np.ndarray, beta: float) -> Parts:
    """Parts with a nudge at each output: beta siemens to a source at the target's voltage.

    The source leads to ground, or to the node that a difference subtracts.

    The conductance is a voltage-controlled current source across its own nodes, which may be negative and which
    ngspice can alter: Gnudge1, Gnudge2, ... and Vtarget1, ... (with _ behind where a circuit has such names)

    Parameters
    ----------
    parts : Parts
    outputs : sequence of str
        Nodes, and differences of two as v(a,b).
    targets : sequence of float
        Volts.
    beta : float
        Siemens.

    Returns
    -------
    Parts
    """
    at = _numbers(parts, outputs)
    if len(outputs) != len(targets):
        raise argument_error("targets", f"be {len(outputs)} voltages, one an output", len(targets))
    first = len(parts.nodes)
    own = np.arange(first, first + len(outputs))
    taken = {n.lower() for n in (*parts.nodes, *(n for g in parts.groups.values() for n in g.names))}
    mark = ""
    while {f"{TARGET}1{mark}", f"gnudge1{mark}", f"vtarget1{mark}"} & taken:
        mark += "_"
    count = [f"{k}{mark}" for k in range(1, len(outputs) + 1)]
    sources = Group(
        tuple(f"Vtarget{k}" for k in count),
        np.stack([own, at[:, 1]], axis=1),
        np.array(plain(targets), dtype=np.float64).reshape(-1, 1),
    )
    nudges = Group(
        tuple(f"Gnudge{k}" for k in count),
        np.stack([at[:, 0], own, at[:, 0], own], axis=1),
        np.full((len(outputs), 1), float(beta)),
    )
    added = {"voltage_source": sources, "vccs": nudges}
    groups = {**parts.groups, **{kind: parts.group(kind).joined(group) for kind, group in added.items()}}
    names = (f"{TARGET}{k}" for k in count)
    return Parts((*parts.nodes, *names), groups, parts.initial)


def with_sources(parts: Parts, volts: Sequence[float] | np.ndarray) -> Parts:
    """Parts with the voltage sources at other values, volts, in order."""
    group = parts.group("voltage_source")
    values = source_table(parts, np.atleast_2d(np.asarray(volts, dtype=np.float64))).reshape(-1, 1)
    changed = Group(group.names, group.nodes, values, waveforms=group.waveforms)
    groups = {**parts.groups, **({"voltage_source": changed} if len(group) else {})}
    return Parts(parts.nodes, groups, parts.initial)


def export_phases(
    path: str | os.PathLike[str],
    parts: Parts,
    outputs: Sequence[str],
    targets: Sequence[float] | np.ndarray,
    beta: float,
    *,
    phase: str = "both",
    title: str = "circuit",
    corrected: Corrected | None = None,
    overwrite: bool = False,
) -> dict[str, Path]:
    """Write netlists of the free phase and of nudged ones; `ngspice -b FILE` prints their operating points.

    Diodes are ngspice's own there, whose current in reverse is up to 5 % of Is off
    (`hardware_models.spice.ngspice`).

    Parameters
    ----------
    path : path
        FILE.cir, of the free phase, or of both nudged ones where `phase` is "nudged"; theirs are FILE_plus.cir and
        FILE_minus.cir.
    parts : Parts
    outputs : sequence of str
        Nodes, and differences of two as v(a,b).
    targets : sequence of float
        Volts.
    beta : float
        Siemens.
    phase : str
        "free", "nudged" or "both".
    title : str
    corrected : Corrected, optional
        What nudged phases are made of in place of `parts` (`hardware_models.spice.adjoint.corrected_parts`); their
        files tell ngspice to look near the free state.
    overwrite : bool
        Replace files that another command or call wrote.

    Returns
    -------
    dict of str to Path
        Files by phase: free, plus, minus.

    Raises
    ------
    InputError
        If an argument does not fit, or a file cannot be written.
    """
    if phase not in ("free", "nudged", "both"):
        raise unknown_name("phase", phase, ("free", "nudged", "both"))
    if phase != "free" and not 0 < beta < np.inf:
        raise argument_error("beta", "be positive and finite", beta)
    path = checked_path(path, "path")
    signs = {"free": 0, "plus": 1, "minus": -1}
    names = {"free": ("free",), "nudged": ("plus", "minus"), "both": tuple(signs)}[phase]
    files = {name: path if name == "free" else path.with_name(f"{path.stem}_{name}{path.suffix}") for name in names}
    extra = [f".options {ACCURATE}", ".op"]
    with writing("hardware_models.spice.export_phases", overwrite=overwrite) as call:
        for name, file in files.items():
            call.claim("path" if name == "free" else f"path ({name})", file)
        for name, file in files.items():
            strength = signs[name] * beta
            about, held = (parts, {}) if corrected is None or not strength else corrected
            nudged = nudged_parts(about, outputs, targets, strength) if strength else parts
            label = f"{title}, nudged by {strength:g} S" if strength else f"{title}, free phase"
            write_netlist(file, nudged, title=label, outputs=outputs, extra=[*nodesets(held), *extra])
    return files


def ngspice_phases(
    parts: Parts, outputs: Sequence[str], sources: np.ndarray, targets: np.ndarray, beta: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Node voltages of the free phase and of the phases at +beta and -beta, by one ngspice process.

    Parameters
    ----------
    parts : Parts
    outputs : sequence of str
        Nodes, and differences of two as v(a,b).
    sources : float64 array (B, n_sources)
        Volts.
    targets : float64 array (B, n_outputs)
        Volts.
    beta : float
        Siemens.

    Returns
    -------
    free, plus, minus : float64 arrays (B, n_nodes)
        Volts, in the order of `parts.nodes`.

    Raises
    ------
    InputError, SpiceError
        If ngspice is refused its input or fails, as in `ngspice_operating_point`.
    """
    sources = source_table(parts, sources)
    targets = np.asarray(plain(targets), dtype=np.float64)
    if targets.shape != (len(sources), len(outputs)):
        raise argument_error("targets", f"have the shape ({len(sources)}, {len(outputs)})", targets.shape)
    circuit = nudged_parts(parts, outputs, np.zeros(len(outputs)), 0.0)
    nudges = circuit.group("vccs").names[-len(outputs) :]
    gains = [[f"alter {name} gain = {b!r}" for name in nudges] for b in (0.0, beta, -beta)]
    commands = []
    for row in np.concatenate([sources, targets], axis=1):
        commands += alterations(circuit, row)
        for nudge in gains:
            commands += [*nudge, "op"]
    plots = run_ngspice(simulator_lines(circuit), commands)
    found = node_voltages(circuit, plots)
    table = np.stack([found[node] for node in parts.nodes], axis=1)
    return table[0::3], table[1::3], table[2::3]


def ngspice_gradient(
    parts: Parts, outputs: Sequence[str], sources: np.ndarray, targets: np.ndarray, beta: float
) -> dict[str, np.ndarray]:
    """Gradient of the squared error by centered equilibrium propagation within ngspice.

    ngspice finds the node voltages of all phases; the contrast is taken of them in float64. Close to rounding and
    to ngspice's own tolerances, the best beta is some 1e-3 to 1e-2 of the conductances at the outputs.

    Parameters
    ----------
    parts, outputs, sources, targets, beta
        The arguments of `ngspice_phases` of the same names.

    Returns
    -------
    dict of str to float64 array (n,)
        Batch means: `conductance` of resistors, then memristors, in V^2; `current` of current sources, in V.

    Raises
    ------
    InputError
        If the circuit has no energy.
    SpiceError
        If ngspice fails.
    """
    _, plus, minus = ngspice_phases(parts, outputs, sources, targets, beta)
    return contrast(parts, outputs, plus, minus, beta)


def contrast(
    parts: Parts, outputs: Sequence[str], plus: np.ndarray, minus: np.ndarray, beta: float
) -> dict[str, np.ndarray]:
    """Gradient from node voltages (B, n_nodes) at +beta and -beta, weighted where there are amplifiers."""
    parts = resting(parts)
    reduction, why = reduce(parts)
    if reduction is None:
        raise InputError(f"The circuit has no energy: {why}.")
    pairs = _numbers(parts, outputs)
    stage = reduction.weight[pairs[reduction.unknown[pairs] >= 0]]
    if np.ptp(stage) > 1e-9 * stage.max():
        raise InputError("The outputs lie in stages of different weights: nudge those of one stage.")
    gradient = {}
    for parameter, kinds in LEARNT.items():
        pieces = []
        for kind in kinds:
            group = parts.group(kind)
            if not len(group):
                continue
            first, second = group.nodes.T
            v, d = minus[:, first] - minus[:, second], plus[:, first] - minus[:, first]
            d = d - (plus[:, second] - minus[:, second])
            p, q, r = (group.values[:, k] if k < group.values.shape[1] else 0.0 for k in range(3))
            difference = ELEMENTS[kind].make(np).value_slope_difference(v, d, p, q, r)
            weight = np.where(reduction.unknown[first] >= 0, reduction.weight[first], reduction.weight[second])
            pieces.append(weight * difference.mean(0) / (2 * beta * stage[0]))
        if pieces:
            gradient[parameter] = np.concatenate(pieces)
    return gradient


def _numbers(parts: Parts, outputs: Sequence[str]) -> np.ndarray:
    if not len(outputs):
        raise argument_error("outputs", "name at least one node", "empty")
    return output_pairs(outputs, parts.nodes)[1]
