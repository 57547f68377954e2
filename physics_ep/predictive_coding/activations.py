"""Activations of predictive coding layers: response, slope, and what their energies are made of.

sigma is the response; Psi, with Psi' the inverse of sigma, is its Fenchel-Young potential (physics of paired
units):

    relu      Psi = v^2 / 2 with v >= 0         linear    Psi = v^2 / 2
    diode     a leak and a real diode, see `diodes`
    hard_sigmoid, hard_tanh   Psi = v^2 / 2 with v clipped to [0, 1], to [-1, 1]
    tanh      Psi = v artanh v + log(1 - v^2) / 2         logistic  Psi = v log v + (1 - v) log(1 - v)
    softplus  Psi' = log(exp v - 1)             gelu      no inverse: the state is the pre-activation p, Psi(p) is
                                                          the integral of p sigma'(p)

In all of them Psi(sigma(p)) = p sigma(p) - S(p) with S the integral of sigma, which is how the curved ones are
computed.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn.functional import gelu

from .activation import Activation, Anchor
from .diodes import diode


def _gauss(count: int) -> tuple[tuple[float, float], ...]:
    """Nodes and weights of the Gauss-Legendre rule on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return tuple((float(0.5 * (1 + t)), float(0.5 * w)) for t, w in zip(nodes, weights, strict=True))


SHORT_RULE, LONG_RULE = _gauss(6), _gauss(16)


def _tanh_slope(a: torch.Tensor) -> torch.Tensor:
    # sech^2 a, exact at saturation too.
    z = torch.exp(-2 * a.abs())
    root = 2 / (1 + z)
    return z * root * root


def _tanh_displaced(a: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
    # tanh(a + d) - tanh(a) = (1 - t^2) tanh d / (1 + t tanh d); 1 - t^2 as sech^2, exact at saturation.
    t, u = torch.tanh(a), torch.tanh(d)
    return _tanh_slope(a) * u / (1 + t * u)


def _tanh_curvature(a: torch.Tensor) -> torch.Tensor:
    return -2 * torch.tanh(a) * _tanh_slope(a)


class TanhAnchor(Anchor):
    """With w = exp(2 d) - 1 and p the logistic function of 2 a, both follow from one exponential:

    tanh(a + d) - tanh(a) = tanh'(a) w / 2 / (1 + p w),        tanh'(a + d) = tanh'(a) (1 + w) / (1 + p w)^2
    """

    def __init__(self, unit: Activation, a: torch.Tensor) -> None:
        self.unit = unit
        self.a = a
        twice = 2 * a
        self.p = torch.sigmoid(twice)
        # 4 p (1 - p), the second factor exact at saturation too.
        self.slope = twice.neg_().sigmoid_().mul_(self.p).mul_(4)

    def curvature(self) -> torch.Tensor:
        return (-4 * self.p).add_(2).mul_(self.slope)

    def moved(self, d: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows = self.stacked(d)
        # Beyond 40 nothing changes but that the exponential overflows.
        w = rows.clamp(max=40).mul_(2).expm1_()
        inverse = (self.p * w).add_(1).reciprocal_()
        part = self.slope * inverse
        shift = (part * w).mul_(0.5)
        return shift.flatten(0, 1), w.add_(1).mul_(inverse).mul_(part).flatten(0, 1)


def _log_cosh(a: torch.Tensor) -> torch.Tensor:
    size = a.abs()
    return size + torch.log1p(torch.exp(-2 * size)) - math.log(2)


def _softplus(a: torch.Tensor) -> torch.Tensor:
    # torch's own drops the exponential above 20, which is 2e-9.
    return torch.logaddexp(a, torch.zeros_like(a))


def _softplus_displaced(a: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
    # log((1 + e^(a+d)) / (1 + e^a)) = log1p(logistic(a) (e^d - 1)); by its mirror image for d > 0, where e^d grows.
    down, up = d.clamp(max=0), d.clamp(min=0)
    return (
        torch.log1p(torch.sigmoid(a) * torch.expm1(down)) + up + torch.log1p(torch.sigmoid(-a) * torch.expm1(-up))
    )


def _softplus_curvature(a: torch.Tensor) -> torch.Tensor:
    return torch.sigmoid(a) * torch.sigmoid(-a)


def _softplus_integral(a: torch.Tensor) -> torch.Tensor:
    # -Li2(-e^a); for a > 0 by reflection, a^2/2 + pi^2/6 - S(-a). The integrand below is analytic up to r = -1/z.
    z = torch.exp(-a.abs())
    total = torch.zeros_like(a)
    for r, w in LONG_RULE:
        total = total + (w / r) * torch.log1p(r * z)
    return torch.where(a > 0, 0.5 * a.square() + math.pi**2 / 6 - total, total)


def _softplus_inverse(v: torch.Tensor) -> torch.Tensor:
    return v + torch.log(-torch.expm1(-v))


def _density(t: torch.Tensor) -> torch.Tensor:
    return torch.exp(-0.5 * t.square()) / math.sqrt(2 * math.pi)


def _gelu_displaced(a: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
    # sigma(a + d) - sigma(a) = d Phi(a + d) + a (Phi(a + d) - Phi(a)); the last by quadrature of the density where
    # d is small, since the difference of two values of Phi loses its digits there.
    b = a + d
    near = torch.zeros_like(b)
    for r, w in SHORT_RULE:
        near = near + w * _density(a + r * d)
    above = torch.special.ndtr(b)
    step = torch.where(d.abs() < 0.5, d * near, above - torch.special.ndtr(a))
    return d * above + a * step


def _gelu_slope(a: torch.Tensor) -> torch.Tensor:
    return torch.special.ndtr(a) + a * _density(a)


def _gelu_curvature(a: torch.Tensor) -> torch.Tensor:
    return (2 - a.square()) * _density(a)


def _gelu_integral(a: torch.Tensor) -> torch.Tensor:
    # The integral of t Phi(t), which is 0 at minus infinity.
    return 0.5 * ((a.square() - 1) * torch.special.ndtr(a) + a * _density(a))


def _logistic_slope(a: torch.Tensor) -> torch.Tensor:
    return torch.sigmoid(a) * torch.sigmoid(-a)


def _logistic_displaced(a: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
    # 1 / (1 + e^-a) is (1 + tanh(a / 2)) / 2.
    return 0.5 * _tanh_displaced(0.5 * a, 0.5 * d)


def _logistic_curvature(a: torch.Tensor) -> torch.Tensor:
    return -_logistic_slope(a) * torch.tanh(0.5 * a)


def clip(name: str, lo: float, hi: float) -> Activation:
    """a clipped to [lo, hi]: two ideal diodes, or an oscillator with its mirror image."""

    def displaced(a: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
        # Within the bounds d itself; else from the bound that a is beyond, or up to the one that is met.
        held = a.clamp(lo, hi)
        return torch.minimum(torch.maximum(d + (a - held), lo - held), hi - held)

    def integral(a: torch.Tensor) -> torch.Tensor:
        held = a.clamp(lo, hi)
        return 0.5 * held.square() + held * (a - held)

    return Activation(
        name,
        lambda a: a.clamp(lo, hi),
        lambda a: ((a > lo) & (a < hi)).to(a.dtype),
        displaced,
        integral,
        _identity,
        smooth=False,
        piecewise_linear=True,
        bounds=(lo, hi),
    )


def _identity(a: torch.Tensor) -> torch.Tensor:
    return a


ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(
        "relu",
        torch.relu,
        lambda a: (a > 0).to(a.dtype),
        # d above -a where a > 0, else what of a + d is above 0: a sum and a maximum, and no cancellation.
        lambda a, d: torch.maximum(d + a.clamp(max=0), -torch.relu(a)),
        lambda a: 0.5 * torch.relu(a).square(),
        _identity,
        smooth=False,
        piecewise_linear=True,
        bounds=(0.0, math.inf),
    ),
    "linear": Activation(
        "linear",
        _identity,
        torch.ones_like,
        lambda a, d: d,
        lambda a: 0.5 * a.square(),
        _identity,
        smooth=True,
        piecewise_linear=True,
    ),
    "diode": diode(),
    "hard_sigmoid": clip("hard_sigmoid", 0.0, 1.0),
    "hard_tanh": clip("hard_tanh", -1.0, 1.0),
    "logistic": Activation(
        "logistic",
        torch.sigmoid,
        _logistic_slope,
        _logistic_displaced,
        _softplus,
        torch.logit,
        smooth=True,
        piecewise_linear=False,
        bounds=(0.0, 1.0),
        curvature=_logistic_curvature,
    ),
    "tanh": Activation(
        "tanh",
        torch.tanh,
        _tanh_slope,
        _tanh_displaced,
        _log_cosh,
        torch.atanh,
        smooth=True,
        piecewise_linear=False,
        bounds=(-1.0, 1.0),
        curvature=_tanh_curvature,
        anchor=TanhAnchor,
    ),
    "softplus": Activation(
        "softplus",
        _softplus,
        torch.sigmoid,
        _softplus_displaced,
        _softplus_integral,
        _softplus_inverse,
        smooth=True,
        piecewise_linear=False,
        bounds=(0.0, math.inf),
        curvature=_softplus_curvature,
    ),
    "gelu": Activation(
        "gelu",
        gelu,
        _gelu_slope,
        _gelu_displaced,
        _gelu_integral,
        None,
        smooth=True,
        piecewise_linear=False,
        curvature=_gelu_curvature,
    ),
}
