"""Nodes of a layered resistive network as units: the current that flows in sets the voltage.

A node with total conductance G, resistors and amplifiers' inputs together, settles where G v plus what its diode
carries is the current I that its neighbours would send into it at 0 V. `UnitFunctions` over torch, with the drive I
in amperes and the state v in volts, so that layers of such nodes relax as layers of any other units.

* No diode: v = I / G.
* Ideal diode to ground: v = max(I / G, 0), or min(I / G, 0) (Scellier 2024, eq. 8).
* Shockley's diode from ground to the node: G v - Is (exp(-v / VT) - 1) = I; with c = Is / G and a = I / G,
  v = a - c + VT W((c / VT) exp((c - a) / VT)), W Lambert's function: a soft rectifier. Or from the node to ground,
  the mirror image.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from physics_ep.predictive_coding.activations import soft_rectified
from physics_ep.units import UnitFunctions, X


def plain(load: torch.Tensor) -> UnitFunctions:
    """The law of nodes that have no diode.

    Parameters
    ----------
    load : Tensor (n,)
        Total conductance G, siemens.
    """
    ohms = resistance(load)

    def potential(v: X) -> X:
        return 0.5 * load * v * v

    def inverse(v: X) -> X:
        return load * v

    def response(current: X) -> X:
        return current * ohms

    def slope(current: X) -> X:
        return ohms.expand_as(current)

    def curvature(v: X) -> X:
        return load.expand_as(v)

    def anchor(current: X) -> tuple[Any, ...]:
        return ()

    return UnitFunctions(potential, inverse, response, slope, curvature, anchor, response)


def ideal(load: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> UnitFunctions:
    """Nodes held within bounds by ideal diodes.

    Parameters
    ----------
    load : Tensor (n,)
        Total conductance G, siemens.
    low, high : Tensor (n,)
        Volts: 0 and infinity, or -infinity and 0.
    """
    ohms = resistance(load)

    def response(current: X) -> X:
        return (current * ohms).clamp(low, high)

    def slope(current: X) -> X:
        v = current * ohms
        return ohms * ((v > low) & (v < high))

    def anchor(current: X) -> tuple[Any, ...]:
        # As of the hard sigmoid: where the bounds lie from the voltage without a diode, and its overhang.
        v = current * ohms
        return low - v, high - v, v.clamp(low, high) - v

    def displaced(change: X, below: X, above: X, overhang: X) -> X:
        moved = change * ohms
        if moved.requires_grad:
            return moved.clamp(below, above) - overhang
        return moved.clamp_(below, above).sub_(overhang)  # large: it is clipped where it lies

    return replace(plain(load), response=response, slope=slope, anchor=anchor, displaced=displaced)


def shockley(load: torch.Tensor, sign: torch.Tensor, saturation: float, thermal: float) -> UnitFunctions:
    """Nodes with a Shockley diode to ground.

    Parameters
    ----------
    load : Tensor (n,)
        Total conductance G, siemens.
    sign : Tensor (n,)
        +1: the diode lets current in and keeps v from falling far below 0 V; -1: the mirror image.
    saturation : float
        Is, amperes.
    thermal : float
        n VT, volts.
    """
    ohms = resistance(load)
    share = saturation * ohms

    def potential(v: X) -> X:
        s = sign * v
        return 0.5 * load * v * v + saturation * (thermal * torch.expm1(-s / thermal) + s)

    def inverse(v: X) -> X:
        return load * v - sign * saturation * torch.expm1(-sign * v / thermal)

    def response(current: X) -> X:
        return sign * soft_rectified(sign * current * ohms, share, thermal)

    def slope(current: X) -> X:
        return 1 / curvature(response(current))

    def curvature(v: X) -> X:
        return load + (saturation / thermal) * torch.exp(-sign * v / thermal)

    def anchor(current: X) -> tuple[Any, ...]:
        # Seen from v, the diode is one of the current that it carries there.
        return (share * torch.exp(-sign * response(current) / thermal),)

    def displaced(change: X, carried: X) -> X:
        return sign * soft_rectified(sign * change * ohms, carried, thermal)

    return UnitFunctions(potential, inverse, response, slope, curvature, anchor, displaced)


def resistance(load: torch.Tensor) -> torch.Tensor:
    """1 / load, ohm; where all conductances are off no current flows, and any number keeps the node at 0 V."""
    return load.masked_fill(load <= 0, 1).reciprocal()
