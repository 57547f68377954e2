"""A circuit as a subcircuit in a file of its own, and a test bench that asks ngspice what it does."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from physics_ep.storage.files import checked_path
from physics_ep.storage.origins import NETLIST_MARK
from physics_ep.storage.outputs import write_text, writing

from ..netlists.outputs import difference_name
from ..netlists.parts import Parts
from ..netlists.subcircuits import (
    PortDrive,
    PortedCircuit,
    continued,
    default_drives,
    ported,
    subcircuit_lines,
)
from ..netlists.writer import source_text
from .check import CheckedCircuit
from .ngspice import ACCURATE

INSTANCE = "Xnet"
"""The subcircuit in its bench."""


class Bench(NamedTuple):
    """A subcircuit and its test bench as `export_subcircuit` wrote them.

    Attributes
    ----------
    files : dict of str to Path
        Of the 'subcircuit', and of its 'bench'.
    circuit : PortedCircuit
    volts : float64 array (B, n_inputs)
        At the inputs, by example.
    found : float64 array (B, n_out)
        Our voltages of the outputs.
    """

    files: dict[str, Path]
    circuit: PortedCircuit
    volts: np.ndarray
    found: np.ndarray


def export_subcircuit(path: str | os.PathLike[str], subject: CheckedCircuit, *, overwrite: bool = False) -> Bench:
    """Write a circuit as a subcircuit, and a bench of its examples that `ngspice -b` runs.

    Parameters
    ----------
    path : path
        FILE.cir, of the subcircuit FILE; the bench is FILE_bench.cir, which includes it.
    subject : CheckedCircuit
    overwrite : bool
        Replace files that another command or call wrote.

    Returns
    -------
    Bench

    Raises
    ------
    InputError
        If the circuit has too many ports, a name does not fit into a netlist, or a file cannot be written.
    NotConverged
        If we do not find an operating point.
    """
    path = checked_path(path, "path")
    files = {"subcircuit": path, "bench": path.with_name(f"{path.stem}_bench{path.suffix}")}
    parts = subject.circuit.parts
    drives = default_drives(parts) if subject.drives is None else subject.drives
    circuit = ported(parts, subject.circuit.output_names, drives)
    volts = port_volts(circuit, drives, subject.sources)
    nodes, ends = subject.solved(), subject.circuit.output_nodes
    found = nodes[:, ends[:, 0]] - nodes[:, ends[:, 1]]
    name = subcircuit_name(path)
    with writing("hardware_models.spice.export_subcircuit", overwrite=overwrite) as call:
        for what, file in files.items():
            call.claim("path" if what == "subcircuit" else f"path ({what})", file)
        mark = NETLIST_MARK + call.command
        head = [f"* {' '.join(subject.title.split())} as a subcircuit", mark, f"* volts: {subject.ports}"]
        write_text(path, "\n".join([*head, *subcircuit_lines(circuit, name), ""]))
        lines = bench_lines(subject, circuit, name, path.name, drives, volts, found)
        title = f"* test bench of {name}: {' '.join(subject.title.split())}"
        write_text(files["bench"], "\n".join([title, mark, *lines, ""]))
    return Bench(files, circuit, volts, found)


def subcircuit_name(path: Path) -> str:
    """The name of a file as that of a subcircuit: letters, digits and _, a letter first."""
    name = re.sub(r"\W", "_", path.stem, flags=re.ASCII)
    return name if name[:1].isalpha() else f"net_{name}"


def port_volts(circuit: PortedCircuit, drives: tuple[PortDrive, ...], sources: np.ndarray) -> np.ndarray:
    """Volts at the inputs (B, n_inputs) that make the sources' (B, n_sources)."""
    first = [next(k for k, d in enumerate(drives) if d.port == port) for port in circuit.inputs]
    gains = np.array([drives[k].gain for k in first])
    return sources[:, first] / gains


def bench_lines(
    subject: CheckedCircuit,
    circuit: PortedCircuit,
    name: str,
    file: str,
    drives: tuple[PortDrive, ...],
    volts: np.ndarray,
    found: np.ndarray,
) -> Iterator[str]:
    """Lines of a bench without its title: sources of the first example, the outputs of each printed.

    A comment has our voltages of the outputs.
    """
    outputs = [ports[0] if len(ports) == 1 else difference_name(*ports) for ports in circuit.outputs]
    if outputs:
        yield "* outputs: " + " ".join(outputs)
    yield f'.include "{file}"'
    waves = _waves(subject.circuit.parts, drives)
    for port, value in zip(circuit.inputs, volts[0].tolist(), strict=True):
        yield f"V{port} {port} 0 DC {value!r}{waves.get(port, '')}"
    yield from continued([INSTANCE, *circuit.ports, name])
    inner = {node for node in circuit.initial if node not in circuit.ports}
    if circuit.initial:
        told = ((f"{INSTANCE}.{n}" if n in inner else n, v) for n, v in circuit.initial.items())
        yield ".ic " + " ".join(f"v({node})={float(value)!r}" for node, value in told)
    yield f".options {ACCURATE}"
    yield ".op"
    yield ".control"
    yield "set numdgt=16"
    probes = [f"print {o if o.startswith('v(') else f'v({o})'}" for o in outputs] or ["print all"]
    labels = () if subject.examples is None else subject.examples.labels
    what = "the sources' own values" if subject.examples is None else subject.examples.told
    for k, row in enumerate(volts.tolist()):
        if k:
            yield from (f"alter V{port} dc = {value!r}" for port, value in zip(circuit.inputs, row, strict=True))
        yield "op"
        own = f" class {labels[k]}" if labels else ""
        yield f"echo example {k}{own}"
        yield from probes
        yield from (f"* ours: {o} = {value!r}" for o, value in zip(outputs, found[k].tolist(), strict=True))
    yield "quit 0"
    yield ".endc"
    yield f"* examples: {what}"
    yield ".end"


def _waves(parts: Parts, drives: tuple[PortDrive, ...]) -> dict[str, str]:
    """Small signals and waveforms of the sources at inputs, as lines of sources have them."""
    group = parts.group("voltage_source")
    found = {}
    for name, drive in zip(group.names, drives, strict=True):
        if drive.gain == 1:
            found[drive.port] = source_text(group, name)
    return found
