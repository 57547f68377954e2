"""Operating points of a circuit, whether it has an energy or not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from physics_ep.equilibrium import Equilibrium, State, Status
from physics_ep.relaxation import relax

from . import element_kernels as kernels

if TYPE_CHECKING:
    from .circuit import Circuit
    from .circuit_layout import Prepared

TOLERANCE = 1e-12
"""Amperes."""
RELATIVE = 1e-13
"""Of the sum of the sizes of the currents at a node: their rounding."""


@dataclass(frozen=True)
class OperatingPoint(Equilibrium):
    """An equilibrium that knows the voltages of the sources.

    Attributes
    ----------
    sources : Tensor (B, n_sources) or None
        Volts.
    single : bool
        Whether it is that of the parts' own sources: node voltages are then plain numbers.
    """

    sources: torch.Tensor | None = None
    single: bool = False


def relaxed_point(
    circuit: Circuit,
    volts: torch.Tensor,
    single: bool,
    start: State | None,
    tolerance: float,
    max_iterations: int | None,
) -> OperatingPoint:
    """By Newton's method on the co-content; arguments as of `Circuit.operating_point`."""
    if not circuit.layout.n:
        return _known_point(volts, single, tolerance)
    found = relax(
        circuit, volts, start=start, tolerance=tolerance / circuit.residual_scale, max_iterations=max_iterations
    )
    fields = {name: getattr(found, name) for name in Equilibrium.__dataclass_fields__}
    point = OperatingPoint(**fields, sources=volts, single=single)
    if point.status is not Status.STALLED:
        return point
    # Kiloamperes cannot cancel to a picoampere, nor can a voltage be set finer than its last digit: where rounding
    # is more than what was asked for, it is what can be asked for.
    known: Prepared = circuit.prepare(volts).cache
    net, u = circuit.layout.net, point.state[0]
    _, across = kernels.linear_force(u.numpy(), known.offset, known.injected, known.conductance, net)
    flow, _ = kernels.junctions(across, known.junction_values, net)
    size = float(kernels.throughput(u.numpy(), known.offset, known.conductance, flow, net).max())
    (loads,) = circuit.curvature_diagonal(point.state, volts)
    digit = torch.finfo(u.dtype).eps * float((loads / circuit.unknown_weight * u.abs()).max())
    allowed = max(point.tolerance, max(RELATIVE * size, digit) / circuit.residual_scale)
    good = bool((point.residual <= allowed).all())
    return replace(point, tolerance=allowed, status=Status.CONVERGED) if good else point


def _known_point(volts: torch.Tensor, single: bool, tolerance: float) -> OperatingPoint:
    """Of a circuit whose sources hold every node."""
    nothing = torch.zeros(len(volts), 0, dtype=torch.float64)
    return OperatingPoint(
        residual=torch.zeros(len(volts), dtype=torch.float64),
        tolerance=tolerance,
        iterations=0,
        status=Status.CONVERGED,
        _state=lambda: (nothing,),
        residual_unit="A",
        sources=volts,
        single=single,
    )


def active_point(
    circuit: Circuit,
    volts: torch.Tensor,
    single: bool,
    start: State | None,
    tolerance: float,
    max_iterations: int | None,
) -> OperatingPoint:
    """By modified nodal analysis; the state is the voltages of all nodes but ground."""
    from . import mna

    begun = None if start is None else np.concatenate([np.zeros((len(volts), 1)), start[0].numpy()], 1)
    found = mna.operating_point(
        circuit.parts,
        volts.numpy(),
        start=begun,
        tolerance=tolerance,
        max_iterations=mna.ITERATIONS if max_iterations is None else max_iterations,
    )
    state = (torch.from_numpy(np.ascontiguousarray(found.voltages[:, 1:])),)
    return OperatingPoint(
        residual=torch.from_numpy(np.asarray(found.residual)),
        tolerance=float(found.tolerance),
        iterations=found.iterations,
        status=found.status,
        _state=lambda: state,
        solver="modified nodal analysis",
        residual_scale=1.0,
        residual_unit="A",
        sources=volts,
        single=single,
    )
