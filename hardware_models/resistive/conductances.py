"""Conductances between two layers of nodes, as matrix products."""

from __future__ import annotations

import math

import torch
from torch import nn


class Conductances(nn.Module):
    """All-to-all conductances from the (amplified) nodes of one layer to those of the next, with current sources.

    Parameters
    ----------
    n_in, n_out : int
    gain : float
        a, the voltage gain from the nodes below to where the conductances hang.
    scale : float
        Conductances start uniform in (0, scale / sqrt(density n_in)), siemens; currents at 0.
    density : float
        Share of the conductances that start so, the others start off.
    bias : bool
        Whether the nodes above have current sources.
    mirrored : bool
        Whether each node of the upper half starts as the mirror image of one of the lower half: the same
        conductances, to the other half of the nodes below. What mirrored nodes below drive it by is then minus
        the other's.
    generator : torch.Generator

    Attributes
    ----------
    conductance : Parameter (n_out, n_in)
        g, siemens.
    bias : Parameter (n_out,) or None
        b, amperes into the nodes above.
    """

    routed = False

    def __init__(
        self,
        n_in: int,
        n_out: int,
        gain: float,
        scale: float,
        density: float,
        bias: bool,
        mirrored: bool,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        draw = torch.rand((n_out, n_in), generator=generator, dtype=torch.float64)
        if density < 1:
            draw *= torch.rand((n_out, n_in), generator=generator, dtype=torch.float64) < density
        draw *= scale / math.sqrt(density * n_in)
        if mirrored and n_out % 2 == n_in % 2 == 0:
            draw[n_out // 2 :] = draw[: n_out // 2].roll(n_in // 2, 1)
        self.conductance = nn.Parameter(draw.to(torch.get_default_dtype()))
        self.bias = nn.Parameter(torch.zeros(n_out)) if bias else None
        self.gain = gain

    def bound(self) -> Conductances:
        """The conductances themselves, since nothing is to be computed beforehand."""
        return self

    def forward(self, v: torch.Tensor, route: None = None) -> torch.Tensor:
        """Currents (B, n_out) that nodes below at v would send into nodes above at 0 V, amperes."""
        current = v @ self.conductance.t()
        return current if self.gain == 1 else self.gain * current

    def drive(self, v: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Currents (B, n_out) into nodes above at 0 V, those of the current sources included, amperes; and no
        route.
        """
        current = self.forward(v)
        return (current if self.bias is None else current + self.bias), None

    def transpose(self, v: torch.Tensor, route: None = None, onto: torch.Tensor | None = None) -> torch.Tensor:
        """Currents (B, n_in) that nodes above at v would send into nodes below at 0 V; on top of `onto`."""
        if self.gain != 1:
            v = v / self.gain
        return v @ self.conductance if onto is None else torch.addmm(onto, v, self.conductance)
