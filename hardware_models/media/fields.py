"""Fields on a grid: differences along edges, diffusion with a coefficient an edge, and cubic reactions of sites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch


class Cubic(NamedTuple):
    """What a site does by itself, p0 + p1 u + p2 u^2 + p3 u^3, with coefficients that broadcast to (B, *grid).

    A displaced cubic is a cubic: see `displaced`.
    """

    p0: torch.Tensor
    p1: torch.Tensor
    p2: torch.Tensor
    p3: torch.Tensor

    def value(self, u: torch.Tensor) -> torch.Tensor:
        """The reaction p0 + f(u) at u."""
        return self.p0 + u * (self.p1 + u * (self.p2 + u * self.p3))

    def slope(self, u: torch.Tensor) -> torch.Tensor:
        """The slope f'(u) of the reaction at u."""
        return self.p1 + u * (2 * self.p2 + 3 * u * self.p3)

    def primitive(self, u: torch.Tensor) -> torch.Tensor:
        """Integral of p0 + f from 0 to u."""
        return u * (self.p0 + u * (self.p1 / 2 + u * (self.p2 / 3 + u * self.p3 / 4)))

    def displaced(self, u: torch.Tensor, p0: torch.Tensor) -> Cubic:
        """p0 + f(u + d) - f(u) as a cubic in d: nothing in it is a difference of two rounded numbers."""
        return Cubic(p0, self.slope(u), self.p2 + 3 * self.p3 * u, self.p3)

    def steepest(self) -> torch.Tensor:
        """Largest f' that any u has; p3 must be negative."""
        return self.p1 - self.p2.square() / (3 * self.p3)


@dataclass(frozen=True)
class Reaction:
    """Family of cubics in a control parameter p, f(u) = (a1 + b1 p) u + (a2 + b2 p) u^2 - u^3.

    Attributes
    ----------
    constants : (float, float)
        a1 and a2.
    slopes : (float, float)
        b1 and b2.
    control : float
        Usual p.
    """

    constants: tuple[float, float]
    slopes: tuple[float, float]
    control: float

    def cubic(self, p0: torch.Tensor, control: torch.Tensor) -> Cubic:
        """Cubic of each site, of a control parameter a site."""
        p1, p2 = (a + b * control for a, b in zip(self.constants, self.slopes, strict=True))
        return Cubic(p0, p1, p2, -torch.ones_like(control))


REACTIONS = {
    # u (1 - u) (u - a), a the threshold: Nagumo, Arimoto and Yoshizawa, Proc. IRE 50 (1962) 2061.
    "bistable": Reaction((0.0, 1.0), (-1.0, 1.0), control=0.25),
    # r u - u^3, r the gain: FitzHugh, Biophysical Journal 1 (1961) 445, in rescaled variables.
    "odd": Reaction((0.0, 0.0), (1.0, 0.0), control=0.5),
}
"""Reactions by name."""


def differences(field: torch.Tensor, axis: int, periodic: bool) -> torch.Tensor:
    """Differences of a field (B, *grid), next site less this one, along a grid axis: (B, *edges of that axis)."""
    if periodic:
        return field.roll(-1, axis + 1) - field
    return field.diff(dim=axis + 1)


def divergence(flux: torch.Tensor, axis: int, periodic: bool) -> torch.Tensor:
    """Divergence of fluxes along the edges of an axis: what leaves each site less what enters it, (B, *grid)."""
    if periodic:
        return flux - flux.roll(1, axis + 1)
    wall = torch.zeros_like(flux.narrow(axis + 1, 0, 1))
    return torch.diff(flux, dim=axis + 1, prepend=wall, append=wall)


def stiffness(field: torch.Tensor, rates: Sequence[torch.Tensor], periodic: bool) -> torch.Tensor:
    """L u = -d Lap u, the gradient of sum over edges of rate / 2 (difference of u)^2: (B, *grid).

    Parameters
    ----------
    field : Tensor (B, *grid)
    rates : sequence of Tensor
        A tensor an axis, of the shape of its edges: diffusion coefficients over the spacing squared.
    periodic : bool
        Whether the last site of an axis is a neighbour of the first; else no flux passes the ends.
    """
    total = torch.zeros_like(field)
    for axis, rate in enumerate(rates):
        if rate.numel():
            total = total - divergence(rate * differences(field, axis, periodic), axis, periodic)
    return total


def degrees(rates: Sequence[torch.Tensor], periodic: bool) -> torch.Tensor:
    """Diagonal of L: what the rates of a site's edges sum to, (*grid) or ()."""
    total = rates[0].new_zeros(())
    for axis, rate in enumerate(rates):
        if rate.numel():
            wall = torch.zeros_like(rate.narrow(axis, 0, 1))
            ahead, behind = torch.cat([rate, wall], axis), torch.cat([wall, rate], axis)
            total = total + (rate + rate.roll(1, axis) if periodic else ahead + behind)
    return total


def bending(field: torch.Tensor, rates: Sequence[torch.Tensor], periodic: bool) -> torch.Tensor:
    """Energy of diffusion of a field (B, *grid): the sum over edges of rate / 2 (difference along it)^2, (B,)."""
    total = field.new_zeros(field.shape[0])
    for axis, rate in enumerate(rates):
        if rate.numel():
            total = total + 0.5 * (rate * differences(field, axis, periodic).square()).flatten(1).sum(1)
    return total


def edge_shapes(grid: Sequence[int], periodic: bool) -> list[tuple[int, ...]]:
    """Shapes of the edges of a grid, one for each axis."""
    return [tuple(n if periodic or k != axis else n - 1 for k, n in enumerate(grid)) for axis in range(len(grid))]
