"""The response of a node with a leak and a real diode: a soft rectifier, in closed form.

With a leak G and a diode from ground to the node (Shockley's law), a current G p into the node sets the voltage v,

    v - s (exp(-v / t) - 1) = p,        s = Is / G,  t = n VT,        dv/dp = 1 / (1 + (s / t) exp(-v / t))
    v = p - s + t omega(log(s / t) + (s - p) / t)        omega(z) + log omega(z) = z   (Wright; Lambert's W(e^z))

p and v in the same unit, s and t too. As t falls with s / t held this is a ReLU.
"""

from __future__ import annotations

import torch

from .activation import Activation

X = torch.Tensor
CURRENT, THERMAL = 0.01, 0.05
"""s and t of the activation "diode", in units of activity."""


def diode(current: float | X = CURRENT, thermal: float | X = THERMAL, name: str = "diode") -> Activation:
    """Units with a leak and a diode.

    Parameters
    ----------
    current : float or Tensor
        s = Is / G, positive; one number, or one a unit (*shape).
    thermal : float or Tensor
        t = n VT, likewise.
    name : str
    """

    def like(values: float | X, a: X) -> X:
        return torch.as_tensor(values, dtype=a.dtype, device=a.device)

    def constants(a: X) -> tuple[X, X]:
        return like(current, a), like(thermal, a)

    def response(a: X) -> X:
        s, t = constants(a)
        return soft_rectified(a, s, t)

    def slope(a: X) -> X:
        s, t = constants(a)
        return 1 / (1 + (s / t) * torch.exp(-response(a) / t))

    def displaced(a: X, d: X) -> X:
        # The same law around v(a), with the current that flows there: e - s' (exp(-e / t) - 1) = d.
        s, t = constants(a)
        return soft_rectified(d, s * torch.exp(-soft_rectified(a, s, t) / t), t)

    def inverse(v: X) -> X:
        s, t = constants(v)
        return v - s * torch.expm1(-v / t)

    def integral(a: X) -> X:
        # S = p v - Psi(v), Psi = v^2 / 2 + s t (exp(-v / t) - 1) + s v.
        s, t = constants(a)
        v = soft_rectified(a, s, t)
        return a * v - 0.5 * v.square() - s * t * torch.expm1(-v / t) - s * v

    def curvature(a: X) -> X:
        _, t = constants(a)
        steep = slope(a)
        return (1 - steep) * steep.square() / t

    return Activation(
        name,
        response,
        slope,
        displaced,
        integral,
        inverse,
        smooth=True,
        piecewise_linear=False,
        curvature=curvature,
    )


def soft_rectified(a: X, c: X, scale: float | X) -> X:
    """v with v - c (exp(-v / scale) - 1) = a, to a relative error of rounding however small a is.

    Parameters
    ----------
    a, c : Tensor
        In one unit; c positive.
    scale : float or Tensor
        In that unit, positive.
    """
    # In closed form first; its difference of two large terms costs the digits of a small v ...
    v = a - c + scale * wright_omega(torch.log(c / scale) + (c - a) / scale)
    # ... which Newton, on an equation whose terms are as small as v, restores.
    for _ in range(2):
        miss = a - v + c * torch.expm1(-v / scale)
        v = v + miss / (1 + (c / scale) * torch.exp(-v / scale))
    return v


def wright_omega(z: X) -> X:
    """Omega(z) = W(exp(z)), real: omega + log(omega) = z (Lawrence, Corless, Jeffrey 2012, ACM TOMS 38, 20).

    Starts exp(z) below -2, z - log(z) above 1 and a line between, and three steps of Fritsch, Shafer and Crowley.
    """
    big = z > 1
    middle = (z > -2) & ~big
    omega = torch.where(big, z - torch.log(z.clamp(min=1.0)), torch.exp(z.clamp(max=1.0)))
    omega = torch.where(middle, 0.1353 + (z + 2) * 0.2882, omega)
    small = z < -40
    omega = omega.clamp(min=torch.finfo(z.dtype).tiny)
    for _ in range(3):
        miss = z - omega - torch.log(omega)
        q = 2 * (1 + omega) * (1 + omega + 2 * miss / 3)
        step = (miss / (1 + omega)) * (q - miss) / (q - 2 * miss)
        omega = torch.where(small, omega, omega * (1 + step))
    return omega
