"""Operating points of a circuit, whether it has an energy or not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from physics_ep.blocks import State
from physics_ep.equilibrium import Equilibrium, NotConverged, Status
from physics_ep.errors import InputError
from physics_ep.relaxation import relax

from . import element_kernels as kernels

if TYPE_CHECKING:
    from .circuit import Circuit
    from .circuit_layout import Prepared

TOLERANCE = 1e-12
"""Amperes, and volts that they may move a node by."""
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

    def require(self) -> OperatingPoint:
        """Return self if every example converged, else raise `NoOperatingPoint`."""
        if not bool(self.converged.all()):
            raise NoOperatingPoint(self)
        return self


class NoOperatingPoint(NotConverged, InputError):  # noqa: N818 (as NotConverged)
    """A circuit's operating point was needed, and not found. `.equilibrium` holds what was."""

    def __init__(self, point: OperatingPoint) -> None:
        super().__init__(point)
        missing = float(point.residual_si.nan_to_num(nan=float("inf")).max())
        was = f"{missing:.2g} A are missing at a node" if missing < float("inf") else "voltages grow without bound"
        self.args = (
            f"No operating point was found in {point.iterations} iterations of {point.solver}: {was}. The circuit "
            "may have none (a current that nothing can carry, active parts that drive each other), or needs more "
            "max_iterations.",
        )


def relaxed_point(
    circuit: Circuit,
    volts: torch.Tensor,
    single: bool,
    start: State | None,
    tolerance: float | None,
    max_iterations: int | None,
) -> OperatingPoint:
    """By Newton's method on the co-content; arguments as of `Circuit.operating_point`."""
    if not circuit.layout.n:
        circuit.prepare(volts)  # ideal diodes between sources are checked there
        return _known_point(volts, single, tolerance or TOLERANCE)
    asked, scale = tolerance or TOLERANCE, circuit.residual_scale
    if tolerance is None:
        # A picoampere is much to nanosiemens; at kilovolts, a picovolt is less than the last digit.
        asked = min(TOLERANCE, TOLERANCE * scale * max(1.0, float(volts.abs().max()) if volts.numel() else 1.0))
    found = relax(circuit, volts, start=start, tolerance=asked / scale, max_iterations=max_iterations)
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
    allowed = max(tolerance or TOLERANCE, RELATIVE * size, digit) / scale
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
    tolerance: float | None,
    max_iterations: int | None,
) -> OperatingPoint:
    """By modified nodal analysis; the state is the voltages of all nodes but ground."""
    from . import mna

    begun = None if start is None else np.pad(start[0].detach().numpy(), ((0, 0), (1, 0)))  # ground
    found = mna.operating_point(
        circuit.parts,
        volts.numpy(),
        start=begun,
        tolerance=tolerance or TOLERANCE,
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
