"""Activations of predictive coding layers: response, slope, and what their energies are made of.

sigma is the response; Psi, with Psi' the inverse of sigma, is its Fenchel-Young potential (docs/physics.md, Paired
units):

    relu      Psi = v^2 / 2 with v >= 0         linear    Psi = v^2 / 2
    hard_sigmoid, hard_tanh   Psi = v^2 / 2 with v clipped to [0, 1], to [-1, 1]
    tanh      Psi = v artanh v + log(1 - v^2) / 2         logistic  Psi = v log v + (1 - v) log(1 - v)
    softplus  Psi' = log(exp v - 1)             gelu      no inverse: the state is the pre-activation p, Psi(p) is
                                                          the integral of p sigma'(p)
    silu      p sigmoid(p), likewise no inverse
    clip(lo, hi)   v^2 / 2 with v clipped to [lo, hi]; relu6 is clip(0, 6)
    leaky_relu(r)  v^2 / 2 above 0, v^2 / (2 r) below     diode    a node with a leak and a real diode, see `diode`

Laws that layered networks have too (`physics_ep.units`) are written there; what is here beside them are forms that
are quicker for real tensors.

In all of them Psi(sigma(p)) = p sigma(p) - S(p) with S the integral of sigma, which is how the curved ones are
computed.
"""

from __future__ import annotations

import copyreg
import functools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.nn.functional import gelu, hardtanh

from ..errors import argument_error, unknown_name
from ..units import UNITS, Unit, clipped

Elementwise = Callable[[torch.Tensor], torch.Tensor]


class Anchor:
    """An activation near one pre-activation a, (B, ...): what every displacement from it shares is computed once.

    Displacements may be of several stacked batches, (copies * B, ...).

    Attributes
    ----------
    a : Tensor
    slope : Tensor
        sigma'(a).
    """

    def __init__(self, unit: Activation, a: torch.Tensor) -> None:
        self.unit = unit
        self.a = a
        self.slope = unit.slope(a)

    def curvature(self) -> torch.Tensor | None:
        """sigma''(a); None where it is zero."""
        return None if self.unit.curvature is None else self.unit.curvature(self.a)

    def moved(self, d: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Change sigma(a + d) - sigma(a) of the response, and slope sigma'(a + d), in the shape of d."""
        rows = self.stacked(d)
        shift = self.unit.displaced(self.a.expand_as(rows), rows)
        return shift.flatten(0, 1), self.unit.slope(self.a + rows).flatten(0, 1)

    def stacked(self, d: torch.Tensor) -> torch.Tensor:
        """Stacked batches apart from one another, (copies, B, ...)."""
        return d.unflatten(0, (len(d) // max(len(self.a), 1), -1))


@dataclass(frozen=True)
class Activation:
    """An elementwise response function of units, with its slope, inverse and potential.

    Attributes
    ----------
    name : str
    response : callable (a) -> sigma(a)
    slope : callable (a) -> sigma'(a)
        0 at the kink of a ReLU.
    displaced : callable (a, d) -> sigma(a + d) - sigma(a)
        Without cancellation for small d.
    integral : callable (a) -> S(a)
        The integral of sigma, S' = sigma: the convex conjugate of Psi.
    inverse : callable (v) -> p with sigma(p) = v, or None
        On the range of sigma. None: sigma is not monotone.
    smooth : bool
    piecewise_linear : bool
        With its gates held, the response is linear, of slope 1, or `leak` where a gate is closed.
    bounds : (float, float)
        Closure of the range of sigma, where there is an inverse.
    curvature : callable (a) -> sigma''(a), or None
        None: zero wherever it exists. First guesses of nudged states take it.
    anchor : type, optional
        An `Anchor` that does better than two separate evaluations.
    recipe : (callable, tuple), optional
        The function that made it, and its arguments: it pickles as these, since its own functions are closures.
    leak : float
        Slope of a gated response below 0, at least 0; positive ones have no bounds.
    """

    name: str
    response: Elementwise
    slope: Elementwise
    displaced: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    integral: Elementwise
    inverse: Elementwise | None
    smooth: bool
    piecewise_linear: bool
    bounds: tuple[float, float] = (-math.inf, math.inf)
    curvature: Elementwise | None = None
    anchor: type[Anchor] | None = None
    recipe: tuple[Callable[..., Activation], tuple[Any, ...]] | None = field(
        default=None, repr=False, compare=False
    )
    leak: float = 0.0

    def __reduce__(self) -> Any:
        """Those of `ACTIVATIONS` pickle by their name, others by their recipe: their functions are closures."""
        if ACTIVATIONS.get(self.name) is self:
            return _named, (self.name,)
        if self.recipe is not None:
            return self.recipe
        return copyreg.__newobj__, (type(self),), self.__dict__  # type: ignore[attr-defined]

    @property
    def gated(self) -> bool:
        """Whether there are gates to be held: slopes of 0 (or `leak`) and 1, and kinks between them."""
        return self.piecewise_linear and not self.smooth

    @property
    def clips(self) -> bool:
        """Whether the response is v clipped to its bounds, with at least one bound."""
        return self.gated and not self.leak

    def open(self, v: torch.Tensor) -> torch.Tensor:
        """Tell where a gated unit that puts out v is at none of its bounds; bool, of the shape of v."""
        lo, hi = self.bounds
        return v > lo if math.isinf(hi) else (v > lo) & (v < hi)

    def through(self, rows: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Rows times the slope of units that put out v; of gated responses, and in one pass."""
        lo, hi = self.bounds
        if self.leak:
            return torch.ops.aten.leaky_relu_backward(rows, v, self.leak, True)
        if math.isinf(hi):
            return torch.ops.aten.threshold_backward(rows, v, lo)
        return torch.ops.aten.hardtanh_backward(rows, v, lo, hi)

    def at(self, a: torch.Tensor) -> Anchor:
        """The response near one pre-activation, to be displaced from it many times."""
        return (self.anchor or Anchor)(self, a)

    def potential(self, state: torch.Tensor) -> torch.Tensor:
        """Psi of a state: of the unit's output v, or of its pre-activation p where there is no inverse."""
        if self.piecewise_linear and not self.leak:
            return 0.5 * state.square()
        if self.inverse is None:
            return state * self.response(state) - self.integral(state)
        p = self.inverse(state)
        return state * p - self.integral(p)

    def output(self, state: torch.Tensor) -> torch.Tensor:
        """What the unit puts out in a state."""
        return self.response(state) if self.inverse is None else state


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
    """Displaced tanh at an anchor a. With w = exp(2 d) - 1 and p the logistic function of 2 a,

    tanh(a + d) - tanh(a) = tanh'(a) w / 2 / (1 + p w),        tanh'(a + d) = tanh'(a) (1 + w) / (1 + p w)^2
    """

    def __init__(self, unit: Activation, a: torch.Tensor) -> None:
        self.unit = unit
        self.a = a
        self.halves: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None  # p / 2, slope / 4, and 1 / 2
        twice = 2 * a
        self.p = torch.sigmoid(twice)
        # 4 p (1 - p), the second factor exact at saturation too.
        self.slope = twice.neg_().sigmoid_().mul_(self.p).mul_(4)

    def curvature(self) -> torch.Tensor:
        return (-4 * self.p).add_(2).mul_(self.slope)

    def moved(self, d: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows = self.stacked(d)
        # Beyond 80 nothing changes but that the exponential overflows.
        w = (2 * rows).clamp_(max=80).expm1_()
        if self.halves is None:
            self.halves = 0.5 * self.p, 0.25 * self.slope, self.p.new_full((), 0.5)
        p, slope, one = self.halves
        twice = torch.addcmul(one, p, w).reciprocal_()  # 2 / (1 + p w)
        part = slope * twice
        shift = part * w
        return shift.flatten(0, 1), part.add_(shift).mul_(twice).flatten(0, 1)


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


def _silu_slope(a: torch.Tensor) -> torch.Tensor:
    p = torch.sigmoid(a)
    return p + a * p * torch.sigmoid(-a)


def _silu_displaced(a: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
    # (a + d) p(a + d) - a p(a) = d p(a + d) + a (p(a + d) - p(a)).
    return d * torch.sigmoid(a + d) + a * _logistic_displaced(a, d)


def _silu_curvature(a: torch.Tensor) -> torch.Tensor:
    return _logistic_slope(a) * (2 - a * torch.tanh(0.5 * a))


def _silu_integral(a: torch.Tensor) -> torch.Tensor:
    # The integral of t p(t), by parts: t softplus(t) less the integral of softplus; 0 at minus infinity.
    return a * _softplus(a) - _softplus_integral(a)


def _logistic_slope(a: torch.Tensor) -> torch.Tensor:
    return torch.sigmoid(a) * torch.sigmoid(-a)


def _logistic_displaced(a: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
    # 1 / (1 + e^-a) is (1 + tanh(a / 2)) / 2.
    return 0.5 * _tanh_displaced(0.5 * a, 0.5 * d)


def _logistic_curvature(a: torch.Tensor) -> torch.Tensor:
    return -_logistic_slope(a) * torch.tanh(0.5 * a)


def of_unit(unit: Unit, **forms: Any) -> Activation:
    """The activation whose law a unit has.

    Parameters
    ----------
    unit : Unit
    **forms
        Fields of `Activation` in forms of their own: quicker for real tensors than the law's, which also serve
        compiled code and complex arguments; or those that a law does not give (`curvature`, `anchor`).
    """
    law = unit.make(torch)
    from_law = {
        "name": unit.name,
        "response": law.response,
        "slope": law.slope,
        "displaced": law.difference,
        "integral": lambda a: a * law.response(a) - law.potential(law.response(a)),
        "inverse": law.inverse,
        "smooth": unit.analytic,
        "piecewise_linear": unit.quadratic,
        "bounds": unit.bounds,
    }
    return Activation(**{**from_law, **forms})


def clip(name: str, lo: float, hi: float) -> Activation:
    """The input a clipped to [lo, hi], as two ideal diodes do, or an oscillator with its mirror image."""

    def integral(a: torch.Tensor) -> torch.Tensor:
        held = a.clamp(lo, hi)
        return 0.5 * held.square() + held * (a - held)

    unit = Unit(name, None, (lo, hi), analytic=False, quadratic=True, make=clipped(lo, hi))

    def response(a: torch.Tensor) -> torch.Tensor:
        # As torch's clamp, but with a derivative of 0 at the bounds themselves, which `slope` and held gates have.
        return hardtanh(a, lo, hi)

    return of_unit(unit, integral=integral, response=response, recipe=(clip, (name, lo, hi)))


def leaky(name: str, leak: float) -> Activation:
    """The leaky ReLU: a above 0, leak * a below."""

    def displaced(a: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
        return leak * d + (1 - leak) * torch.maximum(d + a.clamp(max=0), -torch.relu(a))

    return Activation(
        name,
        lambda a: torch.nn.functional.leaky_relu(a, leak),
        lambda a: torch.where(a > 0, torch.ones_like(a), leak),
        displaced,
        lambda a: 0.5 * a * torch.nn.functional.leaky_relu(a, leak),
        lambda v: torch.where(v > 0, v, v / leak),
        smooth=False,
        piecewise_linear=True,
        recipe=(leaky, (name, leak)),
        leak=leak,
    )


CURRENT, THERMAL = 0.01, 0.05
"""s and t of the activation "diode", in units of activity."""


def diode(
    current: float | torch.Tensor = CURRENT, thermal: float | torch.Tensor = THERMAL, name: str = "diode"
) -> Activation:
    """Units with a leak and a diode: a soft rectifier, in closed form.

    With a leak G and a diode from ground to the node (Shockley's law), a current G p into the node sets the voltage
    v; p and v are in the same unit, s and t too. As t falls with s / t held this is a ReLU.

        v - s (exp(-v / t) - 1) = p,       s = Is / G,  t = n VT,       dv/dp = 1 / (1 + (s / t) exp(-v / t))
        v = p - s + t omega(log(s / t) + (s - p) / t)       omega(z) + log omega(z) = z   (Wright; Lambert's W(e^z))

    Parameters
    ----------
    current : float or Tensor
        s = Is / G, positive; one number, or one a unit (*shape).
    thermal : float or Tensor
        t = n VT, likewise.
    name : str
    """

    def like(values: float | torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(values, dtype=a.dtype, device=a.device)

    def constants(a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return like(current, a), like(thermal, a)

    def response(a: torch.Tensor) -> torch.Tensor:
        s, t = constants(a)
        return soft_rectified(a, s, t)

    def slope(a: torch.Tensor) -> torch.Tensor:
        s, t = constants(a)
        return 1 / (1 + (s / t) * torch.exp(-response(a) / t))

    def displaced(a: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
        # The same law around v(a), with the current that flows there: e - s' (exp(-e / t) - 1) = d.
        s, t = constants(a)
        return soft_rectified(d, s * torch.exp(-soft_rectified(a, s, t) / t), t)

    def inverse(v: torch.Tensor) -> torch.Tensor:
        s, t = constants(v)
        return v - s * torch.expm1(-v / t)

    def integral(a: torch.Tensor) -> torch.Tensor:
        # S = p v - Psi(v), Psi = v^2 / 2 + s t (exp(-v / t) - 1) + s v.
        s, t = constants(a)
        v = soft_rectified(a, s, t)
        return a * v - 0.5 * v.square() - s * t * torch.expm1(-v / t) - s * v

    def curvature(a: torch.Tensor) -> torch.Tensor:
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
        recipe=(diode, (current, thermal, name)),
    )


def soft_rectified(a: torch.Tensor, c: torch.Tensor, scale: float | torch.Tensor) -> torch.Tensor:
    """The voltage v that solves v - c (exp(-v / scale) - 1) = a, to a relative error of rounding however small a
    is.

    Parameters
    ----------
    a, c : Tensor
        In one unit; c positive.
    scale : float or Tensor
        In that unit, positive.
    """
    # In closed form first; its difference of two large terms costs the digits of a small v ...
    v = a - c + scale * wright_omega(torch.log(c / scale) + (c - a) / scale)
    # ... which Newton, on an equation whose terms are as small as v, restores: by a factor eps a step, too slowly
    # for what the line at 0 has to rounding.
    v = torch.where(a.abs() < torch.finfo(a.dtype).eps ** 2 * c, a / (1 + c / scale), v)
    for _ in range(2):
        miss = a - v + c * torch.expm1(-v / scale)
        v = v + miss / (1 + (c / scale) * torch.exp(-v / scale))
    return v


def wright_omega(z: torch.Tensor) -> torch.Tensor:
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


def _identity(a: torch.Tensor) -> torch.Tensor:
    return a


def _named(name: str) -> Activation:
    return ACTIVATIONS[name]


def activation_named(name: str) -> Activation:
    """The activation of this name: one of `ACTIVATIONS`, 'clip(LOW, HIGH)' or 'leaky_relu(SLOPE)'.

    Raises
    ------
    InputError
        If there is none.
    """
    found = ACTIVATIONS.get(name) if isinstance(name, str) else None
    return _with_numbers(name) if found is None else found


@functools.lru_cache(maxsize=64)
def _with_numbers(name: str) -> Activation:
    asked = re.fullmatch(r"(clip|leaky_relu)\(([^()]*)\)", name) if isinstance(name, str) else None
    if asked is None:
        raise unknown_name("activation", name, (*ACTIVATIONS, "clip(LOW, HIGH)", "leaky_relu(SLOPE)"))
    kind, given = asked.groups()
    try:
        numbers = [float(part) for part in given.split(",")]
    except ValueError:
        numbers = []
    if kind == "clip":
        if len(numbers) != 2 or not -math.inf < numbers[0] < numbers[1] < math.inf:
            raise argument_error("activation", "clip to two finite numbers, the lower first", repr(name))
        return clip(name, *numbers)
    if len(numbers) != 1 or not 0 < numbers[0] < math.inf:
        raise argument_error("activation", "have one positive slope below 0", repr(name))
    return leaky(name, *numbers)


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
    "linear": of_unit(UNITS["linear"]),
    "diode": diode(),
    "hard_sigmoid": clip("hard_sigmoid", 0.0, 1.0),
    "hard_tanh": clip("hard_tanh", -1.0, 1.0),
    "relu6": clip("relu6", 0.0, 6.0),
    "leaky_relu": leaky("leaky_relu", 0.01),
    "silu": Activation(
        "silu",
        torch.nn.functional.silu,
        _silu_slope,
        _silu_displaced,
        _silu_integral,
        None,
        smooth=True,
        piecewise_linear=False,
        curvature=_silu_curvature,
    ),
    "logistic": of_unit(
        UNITS["logistic"],
        response=torch.sigmoid,
        slope=_logistic_slope,
        displaced=_logistic_displaced,
        integral=_softplus,
        inverse=torch.logit,
        curvature=_logistic_curvature,
    ),
    "tanh": of_unit(
        UNITS["tanh"],
        slope=_tanh_slope,
        displaced=_tanh_displaced,
        integral=_log_cosh,
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
