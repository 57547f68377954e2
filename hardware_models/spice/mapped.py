"""Mapped networks beside ngspice: resistors and Hopfield circuits as layers, as parts, and in another simulator."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from physics_ep.config import load_system
from physics_ep.cost import SquaredError
from physics_ep.errors import InputError, argument_error
from physics_ep.placement import require_room
from physics_ep.predictive_coding import PredictiveCodingNetwork

from ..devices.model import DeviceModel
from ..mapping.mapped import Mapped, map_pcn
from ..mapping.resistive_parts import REFERENCE, PairsCircuit
from ..netlists.subcircuits import PortDrive
from ..nodal.points import Solution
from .check import NODE_NUMBERS, CheckedCircuit, PhaseRow, SpiceAgreement, phase_row
from .examples import own_examples
from .phases import ngspice_phases

TIGHT = 1e-11
"""Residual of the compared phases as layers."""


@dataclass(frozen=True, kw_only=True)
class PairsSubject(CheckedCircuit):
    """A mapped network with what its phases need; see `CheckedCircuit`.

    Attributes
    ----------
    mapped : Mapped
    form : PairsCircuit
    x, y : Tensor
        Inputs, and targets of the squared error, in units of activity.
    """

    mapped: Mapped
    form: PairsCircuit
    x: torch.Tensor
    y: torch.Tensor

    def solved(self) -> np.ndarray:
        found = self.form.solve(self.x)
        if not found.converged.all():
            raise InputError("An operating point of the mapped circuit was not found: it may have none.")
        return found.voltages


def find_pairs(
    name: str,
    substrate: str,
    device: DeviceModel,
    seed: int = 0,
    batch: int = 2,
    weights: Path | None = None,
    rails: str = "refuse",
    *,
    data: bool = False,
) -> PairsSubject:
    """A network on resistors or as a Hopfield circuit, with inputs in [0, 1) or its data's, and targets in +-0.5.

    Parameters
    ----------
    name : str
        A predictive coding network: registered, bundled config or TOML file.
    substrate : str
        'resistive' or 'hopfield'.
    device : DeviceModel
    seed : int
        Seed of the network, the device instance and the examples.
    batch : int
    weights : Path, optional
        File of the network's weights.
    data : bool
        Whether inputs are the first test examples, where the network has some (`examples.own_examples`).

    Raises
    ------
    InputError
        If there is no such network, or it cannot be drawn part by part (`Mapped.to_circuit`).
    """
    net = load_system(name, weights=weights, seed=seed).double()
    if not isinstance(net, PredictiveCodingNetwork):
        raise argument_error("SYSTEM", "be a predictive coding network where there is a substrate", repr(name))
    generator = torch.Generator().manual_seed(seed)
    require_room("batch", batch, net, torch.zeros((1, *net.shapes[0])), NODE_NUMBERS)
    examples = None
    x = torch.rand((batch, *net.shapes[0]), generator=generator, dtype=torch.float64)
    y = torch.rand((batch, *net.shapes[-1]), generator=generator, dtype=torch.float64) - 0.5
    if data:
        examples = own_examples(name, net, net.shapes[0], batch, seed)
        x = examples.x
    # Diodes are live in a circuit: no latch holds the gates of ReLUs.
    mapped = map_pcn(net, substrate, device, seed, calibration=x, gates="live", rails=rails)
    form = mapped.to_circuit()
    volts = form.sources(x), form.targets(y), form.siemens(1.0)
    inputs = math.prod(net.shapes[0])
    constant = form.circuit.parts.group("voltage_source").values[inputs:, 0]
    drives = (
        *(PortDrive(f"in{k}") for k in range(inputs)),
        *(PortDrive(REFERENCE, float(v)) for v in constant),
    )
    return PairsSubject(
        name,
        form.circuit,
        *volts,
        drives=drives,
        examples=examples,
        ports=f"{form.volts[0]:g} V a unit of input k at in<k>, 1 V at {REFERENCE}",
        mapped=mapped,
        form=form,
        x=x,
        y=y,
    )


def check_pairs(subject: PairsSubject, beta: float | None = None) -> SpiceAgreement:
    """Compare free and nudged phases of parts and of layers with ngspice's, and the gradient from its voltages.

    Parameters
    ----------
    subject : PairsSubject
    beta : float, optional
        Siemens; default a hundredth of the conductance of an output.

    Returns
    -------
    SpiceAgreement
        Three rows of all nodes by modified nodal analysis, three of the units as layers; gradients by the network's
        parameter names, against those of the layers.

    Raises
    ------
    InputError
        If ngspice is absent, or an operating point was not found.
    SpiceError
        If it fails.
    NotConverged
        If a phase of the layers does not meet its tolerance.
    """
    form, x, y = subject.form, subject.x, subject.y
    siemens = subject.strength(beta)
    strength = siemens / form.siemens(1.0)
    parts, outputs = form.circuit.parts, form.circuit.output_names
    theirs = ngspice_phases(parts, outputs, subject.sources, subject.targets, siemens)
    exact, step = subject.mapped.estimate(x, y, SquaredError(), beta=strength, tolerance=TIGHT, method="energy")
    names = ("free", f"nudged +{siemens:.3g} S", f"nudged -{siemens:.3g} S")
    free: Solution | None = None
    units: list[PhaseRow] = []
    nodes: list[PhaseRow] = []
    for name, sign, table, layers in zip(names, (0, 1, -1), theirs, step.equilibria, strict=True):
        found = form.solve(x, y, sign * strength, start=free)
        free = found if free is None else free
        if not found.converged.all():
            raise InputError("An operating point of the mapped circuit was not found: it may have none.")
        nodes.append(phase_row(parts, name, found.voltages, table, float(found.residual.max())))
        ours = table.copy()
        by_h, by_u = form.node_voltages(layers.state)
        for columns, volts in zip((*form.h, *form.u), (*by_h, *by_u), strict=True):
            ours[:, columns] = volts
        units.append(phase_row(parts, f"{name}, layers", ours, table, form.amperes(layers)))
    estimate = form.gradient(x, theirs[1], theirs[2], strength)
    errors = {}
    for name, g in exact.items():
        size = float(g.norm())
        errors[name] = float((estimate[name] - g).norm()) / (size if size > 0 else 1.0)
    rows = [*nodes, *units]
    return SpiceAgreement(rows, errors, siemens, float(np.max([row.difference for row in rows])))
