"""The circuit of a netlist file as a system that commands take: `physics-ep gradients FILE.cir`.

Two comment lines say what a system is shown and what is read of it::

    * inputs: Vx1 Vx2           voltage sources whose values are x, in this order; all others keep their own
    * outputs: y v(a,b)         nodes, and differences of two
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from physics_ep.errors import InputError
from physics_ep.keywords import answering

from ..netlists.netlist import load_netlist
from .base import PartsCircuit
from .circuit import Circuit


@answering
def circuit_file(
    file: str,
    *,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    train: Sequence[str] | None = None,
    least: float = 1e-12,
    most: float = float("inf"),
    node_capacitance: float = 1e-12,
    gmin: float | None = None,
    seed: int = 0,
) -> PartsCircuit:
    """Read a netlist and build the circuit that learns.

    Parameters
    ----------
    file : str
        Netlist.
    inputs : sequence of str, optional
        Voltage sources whose values are x. Default: those of the comment line `* inputs: ...`.
    outputs : sequence of str, optional
        Nodes, and differences v(a,b). Default: those of the comment line `* outputs: ...`.
    train, least, most, node_capacitance
        Arguments of `Circuit`, and of `ActiveCircuit`, of the same names.
    gmin : float, optional
        Siemens across every diode. Default: as ngspice would have it (`Netlist.gmin`).
    seed : int
        Without effect: a netlist says all values. Systems are built with one.

    Returns
    -------
    Circuit or ActiveCircuit
        Its attribute `examples` is what the netlist itself shows, one example, with targets of 0 V.

    Raises
    ------
    InputError
        If the file cannot be read, names no inputs or no outputs, or is no circuit.
    """
    found = load_netlist(file)
    shown = _sources(file, found.parts.group("voltage_source").names, found.inputs if inputs is None else inputs)
    read = found.outputs if outputs is None else outputs
    for what, names, example in (("inputs", shown, "Vx1 Vx2"), ("outputs", read, "y v(a,b)")):
        if not names:
            kind = "voltage sources" if what == "inputs" else "nodes"
            raise InputError(
                f"Netlist {file!r} must name its {what} to be a system that learns, by a comment line such as "
                f"'* {what}: {example}' ({kind}), or by system.{what} in a config."
            )
    options: dict[str, Any] = {} if train is None else {"train": train}
    circuit: PartsCircuit = Circuit(
        found.parts,
        outputs=read,
        inputs=shown,
        least=least,
        most=most,
        node_capacitance=node_capacitance,
        gmin=found.gmin if gmin is None else gmin,
        **options,
    )
    circuit.examples = circuit._volts(None), torch.zeros(1, len(circuit.output_names), dtype=torch.float64)
    circuit.stands_in = True
    return circuit


def _sources(file: str, known: Sequence[str], given: Sequence[str]) -> tuple[str, ...]:
    """Names of voltage sources as the netlist spells them first."""
    spelled = {name.lower(): name for name in known}
    for name in given:
        if name.lower() not in spelled:
            raise InputError(
                f"Inputs of netlist {file!r} must be voltage sources of it ({', '.join(known) or 'it has none'}), "
                f"but one was {name!r}."
            )
    return tuple(spelled[name.lower()] for name in given)
