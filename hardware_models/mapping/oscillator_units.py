"""A detuned mirror pair of oscillators as a unit: a clip with its corners rounded or cut.

With b = (p - m) / r the phase a of a pair rests where

    cos a (b - sin a) + w = 0                    v = m + r sin a

Without detuning w that is sin a = b, clipped. With it, units inside their range are off by r w / cos a; beyond
their range, by w^2 / 2 (b -+ 1)^2 of r; at a threshold, by (2 w)^(2/3) / 2 of r. A pair close to an end that w
pushes over it slips to the other side, to pi - a, which has the same value and feels -w: from then on it is pushed
away from this end. Pairs that have one end only, as ReLUs do, therefore come to rest where w pushes away from it,
whatever its sign; with two ends there is hysteresis, of which roots in the direction of w are taken. |w| must be
small beside 1, else some pairs do not lock (NaN).
"""

from __future__ import annotations

import math

import torch

from physics_ep.predictive_coding.activations import Activation

ROUNDS = 25
"""Most steps of the safeguarded Newton's method: six or so are needed, more next to where a pair slips."""


def detuned_clip(name: str, lo: float, hi: float, torque: torch.Tensor) -> Activation:
    """Units of range [lo, hi].

    Parameters
    ----------
    name : str
    lo, hi : float
        Finite, in units of activity.
    torque : Tensor (*shape)
        w, in rates of a pair in the middle of its range.
    """
    m, r = 0.5 * (lo + hi), 0.5 * (hi - lo)

    def phase(p: torch.Tensor) -> torch.Tensor:
        return locked_phase((p - m) / r, torque.to(p.device))

    def steepness(p: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        square = torch.cos(a).square()
        return (square / (square + torch.sin(a) * ((p - m) / r - torch.sin(a)))).to(p.dtype)

    def response(p: torch.Tensor) -> torch.Tensor:
        at = p.detach()
        a = phase(at)
        v = (m + r * torch.sin(a)).to(p.dtype)
        # The iteration is not differentiated, its result is.
        return v + steepness(at, a) * (p - at) if p.requires_grad else v

    def slope(p: torch.Tensor) -> torch.Tensor:
        return steepness(p, phase(p))

    def displaced(p: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
        before, after = phase(p), phase(p.double() + d.double())
        return (2 * r * torch.cos(0.5 * (after + before)) * torch.sin(0.5 * (after - before))).to(d.dtype)

    def integral(p: torch.Tensor) -> torch.Tensor:
        # p v - v^2 / 2 + r^2 w a, whose slope is v where a rests (the envelope theorem).
        a = phase(p)
        v = m + r * torch.sin(a)
        return (p * v - 0.5 * v.square() + r**2 * torque.to(p.device) * a).to(p.dtype)

    return Activation(
        name,
        response,
        slope,
        displaced,
        integral,
        lambda v: v,
        smooth=True,
        piecewise_linear=False,
        bounds=(lo, hi),
        recipe=(detuned_clip, (name, lo, hi, torque)),
    )


def locked_phase(b: torch.Tensor, torque: torch.Tensor) -> torch.Tensor:
    """Phase at which a pair rests, of the shape of b, in float64; NaN where it does not lock.

    With e the phase from the end that w pushes away from, f(e) = sin e (b + cos e) + |w| (b mirrored where w < 0)
    changes sign from + to - at a stable rest: it is enclosed on this side of the range, else on the other, and
    found by bisection and Newton steps.
    """
    b, torque = b.double(), torque.double()
    sign = torch.where(torque < 0, -1.0, 1.0).to(b)
    c, w = sign * b + 1, torque.abs().expand_as(b)

    def balance(e: torch.Tensor) -> torch.Tensor:
        return torch.sin(e) * (c - 1 + torch.cos(e)) + w

    clipped = torch.arccos((1 - c).clamp(-1, 1))
    here = (clipped < math.pi) & (balance(0.5 * (clipped + math.pi)) <= 0)
    low = torch.where(here, clipped, 2 * math.pi - clipped)
    high = torch.where(here, 0.5 * (clipped + math.pi), 2 * math.pi - 0.5 * clipped)
    lost = balance(high) > 0
    # Beyond the end e c + w = 0, at it e^3 = 2 w, inside the clip's own phase and a little more.
    root = (2 * w).pow(1 / 3)
    e = torch.where(c < -root.square(), -w / c.clamp(max=-1e-300), torch.maximum(clipped, root))
    e = torch.where(here, torch.minimum(torch.maximum(e, low), high), 0.5 * (low + high))
    for _ in range(ROUNDS):
        value = balance(e)
        low, high = torch.where(value > 0, e, low), torch.where(value > 0, high, e)
        steep = torch.cos(e) * (c - 1 + torch.cos(e)) - torch.sin(e).square()
        step = e - value / steep
        before = e
        e = torch.where((step >= low) & (step <= high), step, 0.5 * (low + high))
        if float((e - before).abs().max().detach()) < 1e-13:
            break
    return torch.where(lost, torch.full_like(e, math.nan), sign * (e - 0.5 * math.pi))
