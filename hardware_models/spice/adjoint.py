"""The nudged phases of asymmetric equilibrium propagation as circuits: a correction made of controlled sources.

About the free state s0 a nudged phase has the correction -(J - J^T) (s - s0) on top of the circuit (Scurria and
others 2026, arXiv 2602.03670). In modified nodal analysis its entries are currents into nodes and voltages in
series with branches, each linear in another node's voltage or another branch's current: a controlled source of one
of the four kinds for each entry, and a constant source for what the held state s0 takes off. Together with the
one-way parts themselves they make each of these act the other way on displacements, as in the adjoint network of
Director and Rohrer (1969, IEEE Transactions on Circuit Theory 16, 318).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from physics_ep.blocks import State, flat
from physics_ep.errors import argument_error
from physics_ep.estimators.methods import AsymmetryWarning, MethodChoice, of_stable
from physics_ep.nudging import centered

from ..circuits.active import ActiveCircuit
from ..circuits.base import PartsCircuit
from ..netlists.parts import GROUND, Part, Parts
from .ngspice import ngspice_operating_point
from .phases import Corrected, nudged_parts, with_sources

ROUNDING = 1e-12
"""Entries of J - J^T below this part of those of J are rounding."""
PREFIX = "aep"
"""Beginning of the names of what is added, behind the letter of its kind."""


def correction(circuit: ActiveCircuit, state: State, x: torch.Tensor) -> np.ndarray:
    """J - J^T of the force by volts and amperes at the state of one example, (n, n), rounding left out.

    Rows are nodes (amperes) and branches (volts, of branch laws over their own ratings put back).
    """
    phase = circuit.phase(circuit.prepare(x), origin=state)
    jacobian = phase.jacobian.matrix[0].numpy().copy()
    nodes = circuit.field.n_nodes - 1
    jacobian[nodes:] *= circuit.field.ratings.numpy()[:, None]
    skew = jacobian - jacobian.T
    skew[np.abs(skew) <= ROUNDING * (np.abs(jacobian) + np.abs(jacobian.T))] = 0.0
    unit = np.ones(len(skew))
    unit[nodes:] = 1 / circuit.field.scale
    return skew * unit[:, None] * unit  # rows of branches in volts, columns of branches by amperes


def adjoint_parts(circuit: ActiveCircuit, state: State, x: torch.Tensor) -> Parts:
    """A circuit with the correction of asymmetric EP about an operating point of one example.

    Without a nudge it has the same operating point. Nodes that are added, and parts, have names that begin with
    their letter and `PREFIX`.

    Parameters
    ----------
    circuit : ActiveCircuit
    state : State
        Free state, a batch of one.
    x : Tensor (1, n_sources)
        Volts.

    Returns
    -------
    Parts
        The circuit's voltage sources come first, at the voltages x.
    """
    parts = with_sources(circuit.parts, x[0].numpy())
    skew = correction(circuit, state, x)
    branches, nodes = circuit.field.branches, parts.nodes[1:]
    held = flat(state)[0].numpy().copy()
    held[len(nodes) :] *= circuit.field.scale
    constant = skew @ held
    taken = {name.lower() for name in (*parts.nodes, *(p.name for p in parts))}
    mark = ""
    while any(name[1:].startswith(f"{PREFIX}{mark}_") or name.startswith(f"{PREFIX}{mark}_") for name in taken):
        mark += "x"
    touched = np.flatnonzero(skew.any(1) | skew.any(0)).tolist()
    inserted = [k - len(nodes) for k in touched if k >= len(nodes)]
    added: list[Part] = []

    def name(letter: str) -> str:
        return f"{letter}{PREFIX}{mark}_{len(added)}"

    meters = {branch: f"V{PREFIX}{mark}_{branches[branch]}" for branch in inserted}

    def driven(kinds: tuple[str, str], ends: tuple[str, str], column: int, value: float) -> None:
        """A source controlled by the unknown of a column: a node's voltage, or the current that a meter reads."""
        if column < len(nodes):
            letter = "G" if kinds[0] == "vccs" else "E"
            added.append(Part(name(letter), kinds[0], (*ends, nodes[column], GROUND), (value,)))
        else:
            letter = "F" if kinds[1] == "cccs" else "H"
            added.append(Part(name(letter), kinds[1], ends, (value,), meters[column - len(nodes)]))

    for row in touched:
        if row < len(nodes):  # the correction leaves the node as a current
            for column in np.flatnonzero(skew[row]).tolist():
                driven(("vccs", "cccs"), (nodes[row], GROUND), column, float(skew[row, column]))
            if constant[row]:
                added.append(Part(name("I"), "current_source", (nodes[row], GROUND), (-float(constant[row]),)))
    moved: dict[str, str] = {}
    first = {p.name: p.nodes[1 if p.kind == "amplifier" else 0] for p in parts}
    for branch in inserted:
        row, here = len(nodes) + branch, first[branches[branch]]
        steps = np.flatnonzero(skew[row]).tolist()
        ends = [here, *(f"{PREFIX}{mark}_{branches[branch]}_{k}" for k in range(len(steps) + 1))]
        added.append(Part(meters[branch], "voltage_source", (ends[0], ends[1]), (float(constant[row]),)))
        for pair, column in zip(pairwise(ends[1:]), steps, strict=True):
            driven(("vcvs", "ccvs"), pair, column, -float(skew[row, column]))
        moved[branches[branch]] = ends[-1]
    found = Parts.collect([*(_moved(p, moved) for p in parts), *added])
    return Parts(found.nodes, found.groups, parts.initial)


def netlist_method(circuit: PartsCircuit, sources: np.ndarray, asked: str | None = None) -> str:
    """The method of EP by which a circuit's nudged phases are written as netlists, if this one is asked for.

    Parameters
    ----------
    circuit : Circuit or ActiveCircuit
    sources : array (1, n_sources)
        Volts at which the asymmetry is measured, where that decides.
    asked : str, optional
        'energy', 'vector-field', 'asymmetric' or 'auto'. Default: the circuit's own.

    Returns
    -------
    str
        'energy', 'vector-field' or 'asymmetric'.

    Raises
    ------
    InputError
        If there is no such method, or no netlist can be nudged by it.
    UnstableFreeState
        If the circuit would leave the operating point by itself.
    NoOperatingPoint
        If there is none.
    """
    chosen = MethodChoice(asked, centered(), 1)
    if asked == "dyadic":
        must = (
            "be 'energy', 'vector-field', 'asymmetric' or 'auto' for netlists (both states of dyadic EP feel the "
            "circuit at their mean, which no circuit of parts does)"
        )
        raise argument_error("method", must, repr(asked))
    system: Any = circuit
    x = torch.from_numpy(sources)
    free = circuit.operating_point(sources).require()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", AsymmetryWarning)
        phase = system.phase(system.prepare(x), origin=free.state, balanced=True)
        _, eigenvalue = chosen.displaced(system, phase)
    if eigenvalue is not None:
        _, unstable = of_stable(system, free, eigenvalue)
        if unstable is not None:
            raise unstable
    return chosen.choice.method


def corrected_parts(circuit: PartsCircuit, sources: np.ndarray, method: str | None = None) -> Corrected | None:
    """What nudged phases at sources (1, n_sources), volts, are made of by a method, and the voltages held there.

    By 'asymmetric' they are `adjoint_parts` about the operating point, else the circuit itself. None for circuits
    with an energy, whose nudged phases are the circuit wherever they begin. Arguments and errors are those of
    `netlist_method`.
    """
    chosen = netlist_method(circuit, sources, method)
    if not isinstance(circuit, ActiveCircuit):
        return None
    x = torch.from_numpy(sources)
    state = circuit.operating_point(sources).require().state
    parts = adjoint_parts(circuit, state, x) if chosen == "asymmetric" else with_sources(circuit.parts, sources[0])
    return Corrected(parts, held_voltages(circuit, state, x))


def held_voltages(circuit: ActiveCircuit, state: State, x: torch.Tensor) -> dict[str, float]:
    """Volts of nodes by name at the state of one example."""
    return dict(zip(circuit.parts.nodes, circuit.voltages(state, x)[0].tolist(), strict=True))


def _moved(part: Part, moved: dict[str, str]) -> Part:
    """The part with what is put in series with it between it and its own node."""
    if part.name not in moved:
        return part
    ends = list(part.nodes)
    ends[1 if part.kind == "amplifier" else 0] = moved[part.name]
    return replace(part, nodes=tuple(ends))


def adjoint_phases(
    circuit: ActiveCircuit,
    state: State,
    x: torch.Tensor,
    targets: np.ndarray,
    betas: Sequence[float],
    method: str = "asymmetric",
) -> list[np.ndarray]:
    """Node voltages of phases of EP by ngspice, an array (B, n_nodes) a nudge, in the circuit's order.

    Nudged phases begin at the free state, as in a machine: there may be other operating points.

    Parameters
    ----------
    circuit : ActiveCircuit
    state : State
        Free states (B, ...), which the phases hold.
    x : Tensor (B, n_sources)
        Volts.
    targets : array (B, n_outputs)
        Volts.
    betas : sequence of float
        Siemens; 0 for the free phase.
    method : str
        'asymmetric', with the correction; or any other, without it.
    """
    tables: list[list[np.ndarray]] = [[] for _ in betas]
    for row in range(len(x)):
        own = tuple(s[row : row + 1] for s in state)
        free = with_sources(circuit.parts, x[row].numpy())
        corrected = adjoint_parts(circuit, own, x[row : row + 1]) if method == "asymmetric" else free
        held = held_voltages(circuit, own, x[row : row + 1])
        for table, beta in zip(tables, betas, strict=True):
            parts = nudged_parts(corrected, circuit.output_names, targets[row], beta) if beta else free
            found = ngspice_operating_point(parts, near=held if beta else None)
            table.append(np.array([float(found[node][0]) for node in circuit.parts.nodes]))
    return [np.stack(table) for table in tables]
