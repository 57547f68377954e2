"""Phasors of oscillators, and what is read off them.

A phasor is z = (cos phi, sin phi), stored as (2, *shape), its two components one above the other.
All changes are computed as such, without cancellation: cos(phi + d) - cos phi = cos phi (cos d - 1) - sin phi sin d
with cos d - 1 = -2 sin^2(d/2), so that nothing of the size of a nudge is the difference of two numbers of size one.
"""

from __future__ import annotations

import copyreg
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


def phasor(phi: torch.Tensor) -> torch.Tensor:
    """(cos phi, sin phi) of phases in radians."""
    return torch.stack([phi.cos(), phi.sin()])


def difference(z: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
    """Change of phasors z (2, B, n) that turn by d (B, n) radians."""
    return turned(z, across(z), d)


def turned(z: torch.Tensor, ahead: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
    """`difference` where the phasors a quarter of a turn ahead, `across(z)`, are known already."""
    versine = (0.5 * d).sin_().square_().mul_(-2)
    return (z * versine).add_(ahead * d.sin())


def angle(z: torch.Tensor, dz: torch.Tensor) -> torch.Tensor:
    """Angle in (-pi, pi] by which phasors turn from z to z + dz."""
    return torch.atan2(z[0] * dz[1] - z[1] * dz[0], 1 + (z * dz).sum(0))


def across(z: torch.Tensor) -> torch.Tensor:
    """Phasors a quarter of a turn ahead: the direction in which z moves."""
    return torch.stack([-z[1], z[0]])


def cross(q: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """Torque of fields q on phasors z, -q_c z_s + q_s z_c: minus the slope of -q . z in the phase."""
    (q_c, q_s), (z_c, z_s) = q.unbind(), z.unbind()
    return q_s * z_c - q_c * z_s


@dataclass(frozen=True)
class PhaseReadout:
    """What is read off the phase of an output oscillator: o(phi), its cosine, its sine, or the phase itself.

    Attributes
    ----------
    name : str
    of_phase : callable (phi) -> o
    value : callable (z, phi) -> o
        The same from the phasor z (2, ...), where that is known already.
    change : callable (z, dz) -> o(phi + d) - o(phi)
        From the phasor and its change; rounding-safe.
    slopes : callable (z) -> (o', o'')
        Derivatives in the phase.
    """

    name: str
    of_phase: Callable[[torch.Tensor], torch.Tensor]
    value: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    change: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    slopes: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]

    def __reduce__(self) -> Any:
        """Those of `READOUTS` pickle by their name: their functions have none."""
        if READOUTS.get(self.name) is self:
            return _named, (self.name,)
        return copyreg.__newobj__, (type(self),), self.__dict__  # type: ignore[attr-defined]


def _named(name: str) -> PhaseReadout:
    return READOUTS[name]


READOUTS = {
    readout.name: readout
    for readout in (
        PhaseReadout("cos", torch.cos, lambda z, phi: z[0], lambda z, dz: dz[0], lambda z: (-z[1], -z[0])),
        PhaseReadout("sin", torch.sin, lambda z, phi: z[1], lambda z, dz: dz[1], lambda z: (z[0], -z[1])),
        PhaseReadout(
            "phase",
            lambda phi: phi,
            lambda z, phi: phi,
            angle,
            lambda z: (torch.ones_like(z[0]), torch.zeros_like(z[0])),
        ),
    )
}
"""Readouts by name."""
