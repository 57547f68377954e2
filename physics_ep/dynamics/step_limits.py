"""Whether equal steps are too long for a dynamics to be stable, judged before the first of them.

A mode of rate r, dw/dt = r w, is multiplied by R(dt r) in a step, R the method's amplification (Hairer and Wanner,
Solving Ordinary Differential Equations II (1996), section IV.2). Rates are measured at the start: Ritz values of
Arnoldi's method on differences of the velocity, over the whole batch at once. Each lies within its own residual
of the spectrum, and is believed only so far: nothing stable is refused. Where the velocity jumps (a node held
by an ideal diode), there are no rates. A dynamics that becomes stiff later is not seen here either; that the
state stays finite is still checked after each recorded step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from ..blocks import State, flat, unflat
from ..errors import argument_error
from .flows import Inertial, split
from .integrators import Tableau, finite
from .motion import Motion
from .noise import NoisyTableau, Splitting

DEPTH = 12
"""Evaluations of the velocity at most."""
MOST = 2**40
GROWTH = math.log(2)
"""Spurious growth of a mode that does not decay by itself which counts as unstable, over the whole run."""

Amplification = Callable[[np.ndarray, float], np.ndarray]
"""|R| of rates (k,) for a step dt."""


class Rates(NamedTuple):
    """Ritz values of a Jacobian: the rates of a motion's fastest modes.

    Attributes
    ----------
    values : complex array (k,)
        Per time unit.
    misses : array (k,)
        Norms of their residuals.
    fastest : Tensor (B, n)
        Real part of the Ritz vector of the largest one.
    """

    values: np.ndarray
    misses: np.ndarray
    fastest: torch.Tensor


def check_steps(
    motion: Motion, w: State, duration: float, count: int, method: Tableau | NoisyTableau | Splitting, name: str
) -> None:
    """Raise InputError if `count` equal steps are unstable for what moves fastest at w.

    Parameters
    ----------
    motion : Motion
    w : State
        The start.
    duration : float
    count : int
    method : Tableau, NoisyTableau or Splitting
        Implicit ones are stable at any step.
    name : str
        Name of the method.
    """
    if isinstance(method, Tableau) and method.implicit:
        return
    velocity, where, amplification = _judged(motion, w, method)
    rates = rates_at(velocity, where)
    believed = rates.misses < 0.3 * abs(rates.values)
    if isinstance(method, Splitting):
        believed &= rates.values.real < 0  # other modes run away, as they should
    values, misses = rates.values[believed], rates.misses[believed]
    # What is certain lies nearer to zero; differences are good to half the digits.
    share = misses / abs(values) + 100 * torch.finfo(w[0].dtype).eps ** 0.5
    if _stable(values * (1 - share), duration, count, amplification):
        return
    if not _differentiable(velocity, where, rates.fastest):
        return
    least = count
    while least < MOST and not _stable(values, duration, least, amplification):
        least *= 2
    low = least // 2
    while least - low > max(1, least // 1000):
        middle = (low + least) // 2
        if _stable(values, duration, middle, amplification):
            least = middle
        else:
            low = middle
    if least >= MOST:
        raise argument_error("method", "be another: no step of this one is stable at the start", repr(name))
    raise argument_error(
        "steps",
        f"be more, at least {least} of {duration / least:.3g} {motion.phase.system.time_unit}, which is where "
        f"{name!r} becomes stable for what moves fastest at the start",
        f"{count} of {duration / count:.3g}",
    )


def rates_at(velocity: Callable[[State], State], w: State, depth: int = DEPTH) -> Rates:
    """Rates of the fastest modes of dw/dt = velocity(w) near w, none if the velocity is not finite.

    Parameters
    ----------
    velocity : callable
        Acts on each example alone, so that the Jacobian of the batch has the rates of all examples.
    w : State
    depth : int
        Products with the Jacobian at most; fewer where the fastest rate is known to one per cent.
    """
    shapes = [b.shape for b in w]
    origin = flat(w)
    start = velocity(w)
    base = flat(start)
    depth = min(depth, origin.numel())
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(origin.shape, generator=generator, dtype=torch.float64).to(origin)
    basis = [v / v.norm()]
    length = _length(origin)
    hessenberg = np.zeros((depth + 1, depth))
    found = Rates(np.zeros(0, dtype=complex), np.zeros(0), basis[0])
    for j in range(depth):
        w_j = (flat(velocity(unflat(origin + length * basis[j], shapes))) - base) / length
        if not finite((w_j,)):
            return found
        for _ in range(2):  # twice, for orthogonality to rounding
            for i, q in enumerate(basis):
                along = (q * w_j).sum()
                hessenberg[i, j] += float(along)
                w_j = w_j - along * q
        grown = float(w_j.norm())
        values, vectors = np.linalg.eig(hessenberg[: j + 1, : j + 1])
        misses = grown * abs(vectors[j]) / np.linalg.norm(vectors, axis=0)
        fastest = abs(values).argmax()
        real = vectors[:, fastest].real
        mode = sum((float(c) * q for c, q in zip(real, basis, strict=True)), torch.zeros_like(v))
        found = Rates(values, misses, mode)
        if grown <= 1e-12 * abs(hessenberg).max() or (j >= 2 and misses[fastest] <= 0.01 * abs(values[fastest])):
            break
        hessenberg[j + 1, j] = grown
        basis.append(w_j / grown)
    return found


def _judged(
    motion: Motion, w: State, method: Tableau | NoisyTableau | Splitting
) -> tuple[Callable[[State], State], State, Amplification]:
    """What has the rates, where, and what a step makes of them; for a splitting, the force and its curvatures."""
    if isinstance(method, Splitting):
        assert isinstance(motion, Inertial)
        s, v = split(w)
        mass, friction = motion.mass, min(motion.frictions(len(v)))
        return motion.phase.unbounded_force, s, lambda r, dt: method.amplification(-r, dt, mass, friction)
    tableau = method if isinstance(method, Tableau) else method.drift
    return motion.velocity, w, lambda r, dt: abs(tableau.amplification(dt * r))


def _length(origin: torch.Tensor) -> float:
    """Length of a difference that is as good as differences of this dtype can be, in variables of size one."""
    return float(torch.finfo(origin.dtype).eps ** 0.5 * max(float(origin.norm()), math.sqrt(origin.numel())))


def _differentiable(velocity: Callable[[State], State], w: State, along: torch.Tensor) -> bool:
    """Whether differences of two lengths agree."""
    shapes = [b.shape for b in w]
    origin, base = flat(w), flat(velocity(w))
    short, long = (
        (flat(velocity(unflat(origin + h * along, shapes))) - base) / h
        for h in (_length(origin), 16 * _length(origin))
    )
    return bool((long - short).norm() <= 0.1 * short.norm())


def _stable(rates: np.ndarray, duration: float, count: int, amplification: Amplification) -> bool:
    """Whether no mode that decays grows, and no other one grows much more than it does by itself."""
    dt = duration / count
    decaying = rates.real < -1e-3 * abs(rates)
    allowed = np.where(decaying, 0.0, np.maximum(rates.real, 0) * dt + GROWTH / count)
    growth = np.log(np.maximum(amplification(rates, dt), 1e-300))
    return bool((growth <= allowed + 1e-12).all())
