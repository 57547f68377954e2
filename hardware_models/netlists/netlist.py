"""Netlists in SPICE's language: read a circuit from one, write a circuit to one.

Read are R, C, L, D, M, V, I, E, F, G, H and B sources, X with .subckt (flattened), .model of diodes, resistors
and transistors, .param, .func, .include, .lib, .global, .ic, .temp and the options that change a circuit
(`options`); analyses, other known options and .control blocks that change nothing are passed over. docs/circuits.md
has the table. Scale factors are SPICE's (`values`). Two subcircuits are parts of their own, `biamp` (bidirectional
amplifier, gain=A) and `ideal_diode`; they need no definition here, nor does `op_amp` (`op_amps`). A comment line
`* outputs: NODE v(A,B) ...` names outputs: voltages of nodes, and differences of two; `* inputs: VNAME ...` names
voltage sources whose values a system is shown; `* gates: NAME ...` names transistors whose gates, each held by a
source of its own, are parameters.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from physics_ep.errors import InputError
from physics_ep.storage.origins import NETLIST_MARK
from physics_ep.storage.outputs import write_text, writing

from .analyses import Analyses
from .builder import Builder
from .lines import LineError, read_source
from .outputs import node_names, output_pairs
from .parts import GROUND, Parts
from .reader import Level
from .topology import held_by_leakage
from .transistors import held_gates
from .writer import netlist_lines

GMIN = 1e-12
"""Siemens across every junction in ngspice, where a netlist does not set it."""


@dataclass(frozen=True)
class Netlist:
    """A netlist that was read: its parts, nodes, sources and analyses.

    Attributes
    ----------
    parts : Parts
    title : str
    outputs : tuple of str
        Output nodes and differences, v(a,b), of comment lines `* outputs: ...`.
    initial_voltages : dict of str to float
        Volts by capacitor name, and amperes by inductor name, of IC=.
    notes : tuple of str
        What was read over, though it can matter in a transient.
    gmin : float
        Siemens across every diode that a circuit of these parts needs to be ngspice's: its default where leakage
        alone holds a node and the netlist does not set it; else 0.
    analyses : Analyses
        What .tran and .ac lines ask for.
    """

    parts: Parts
    title: str = ""
    outputs: tuple[str, ...] = ()
    initial_voltages: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    gmin: float = 0.0
    analyses: Analyses = field(default_factory=Analyses)
    inputs: tuple[str, ...] = ()


def load_netlist(path: str | os.PathLike[str]) -> Netlist:
    """Read a netlist with its title and output nodes.

    Parameters
    ----------
    path : path

    Returns
    -------
    Netlist
        Node and part names as first spelled; ground is "0" ("gnd" is the same node). Resistors are conductances,
        siemens.

    Raises
    ------
    InputError
        If the file cannot be read, or a line is not understood or has a bad value: file, number and text of the
        line are named.
    """
    source = read_source(path)
    builder = Builder(source)
    builder.count(source.top)
    Level(builder, source.top, "", {}, builder.scope).read()
    try:
        parts = held_gates(builder.parts(), source.gates)
        gmin = _junction_leak(parts, builder)
        other = next((name for name in parts.nodes if not name.isascii()), None)
        if other is not None:
            note = f"node {other!r}: ngspice has _ for each byte of letters beyond ASCII, and may take two for one"
            builder.notes[note] = None
        outputs = _outputs(parts, source.outputs)
    except LineError:
        raise
    except InputError as error:
        raise InputError(f"{os.fspath(path)}: {str(error).removesuffix('.')}.") from None
    asked = Analyses(tuple(source.transients), tuple(source.sweeps), builder.scope)
    return Netlist(parts, source.title, outputs, builder.initial, tuple(builder.notes), gmin, asked, source.inputs)


def _outputs(parts: Parts, given: Sequence[str]) -> tuple[str, ...]:
    """Names of the outputs as the circuit spells its nodes."""
    known = {n.lower(): n for n in parts.nodes} | {"gnd": GROUND}
    spelled = []
    for one in given:
        ends = (one,) if one.lower() in known else node_names(one)
        missing = [n for n in ends if n.lower() not in known]
        if missing:
            raise InputError(f"no part touches the output node {missing[0]!r}")
        spelled.append(tuple(known[n.lower()] for n in ends))
    return output_pairs(spelled, parts.nodes)[0]


def _junction_leak(parts: Parts, builder: Builder) -> float:
    """SPICE's gmin where leakage alone holds a node and no .options line sets gmin; else 0."""
    if "gmin" in builder.options or any(n.lower().startswith("rgmin_") for n in parts.group("resistor").names):
        return 0.0
    weak = np.flatnonzero(held_by_leakage(parts))
    if not len(weak):
        return 0.0
    builder.notes[
        f"leakage alone holds node {parts.nodes[int(weak[0])]!r}: circuits of this netlist have ngspice's gmin of "
        f"{GMIN:g} S across the diodes (.options gmin=1e-20 leaves it out)"
    ] = None
    return GMIN


def read_netlist(path: str | os.PathLike[str]) -> Parts:
    """The parts of a netlist: see `load_netlist`."""
    return load_netlist(path).parts


def write_netlist(
    path: str | os.PathLike[str],
    parts: Parts,
    *,
    title: str = "circuit",
    outputs: Sequence[str] = (),
    inputs: Sequence[str] = (),
    extra: Sequence[str] = (),
    overwrite: bool = False,
) -> None:
    """Write parts as a netlist that ngspice and `read_netlist` read; its second line tells which command wrote it.

    Parameters
    ----------
    path : path
    parts : Parts
    title : str
    outputs : sequence of str
        Output nodes and differences, kept in a comment.
    inputs : sequence of str
        Voltage sources that a system is shown, kept in a comment.
    extra : sequence of str
        Lines before .end: analyses, options.
    overwrite : bool
        Replace a file that another command or call wrote.

    Raises
    ------
    InputError
        If the file cannot be written, holds something else, or a name does not fit into a netlist
        (`writer.netlist_lines`).
    """
    first, *others = netlist_lines(parts, title, outputs, inputs)
    with writing("hardware_models.write_netlist", overwrite=overwrite) as call:
        call.claim("path", path)
        lines = [first, NETLIST_MARK + call.command, *others, *extra, ".end", ""]
        write_text(path, "\n".join(lines))
