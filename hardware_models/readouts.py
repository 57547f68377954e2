"""What is read off the phase of an output oscillator: its cosine, its sine, or the phase itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from .phasors import angle


@dataclass(frozen=True)
class Readout:
    """An output o(phi) of one phase.

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


READOUTS = {
    readout.name: readout
    for readout in (
        Readout("cos", torch.cos, lambda z, phi: z[0], lambda z, dz: dz[0], lambda z: (-z[1], -z[0])),
        Readout("sin", torch.sin, lambda z, phi: z[1], lambda z, dz: dz[1], lambda z: (z[0], -z[1])),
        Readout(
            "phase",
            lambda phi: phi,
            lambda z, phi: phi,
            angle,
            lambda z: (torch.ones_like(z[0]), torch.zeros_like(z[0])),
        ),
    )
}
"""Readouts by name."""
