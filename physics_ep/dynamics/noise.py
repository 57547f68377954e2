"""Methods for stochastic differential equations with additive noise, as data, and one driver for them.

dw = a(w) dt + B dW with a diagonal B that does not depend on w (`physics_ep.dynamics.flows`). There the equations
of Ito and of Stratonovich are one, and the integrals that a step may need are two normal numbers: the increment
Delta W and, for strong order 1.5, I = int (W - W_0) dt, the area under it.

Sources: Kloeden and Platen, Numerical Solution of Stochastic Differential Equations (1992), sections 10.2, 10.4 and
15.1; Roessler, SIAM Journal on Numerical Analysis 48 (2010) 922, for SRA1; Leimkuhler and Matthews, Applied
Mathematics Research eXpress 2013, 34, for BAOAB and its limit of large friction; Leimkuhler, Matthews and
Tretyakov, Proceedings of the Royal Society A 470 (2014) 20140120, for the orders of that limit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch

from ..blocks import State, unflat
from .flows import Drift, Inertial, split
from .integrators import Points, Tableau, combined, diverged, finite, saturated
from .motion import Motion

LEAST, OFTEN = 20, 0.1
"""Steps before it is judged whether units saturate, and the share of them at which a unit may be too fast."""


class Noise(NamedTuple):
    """Random numbers that one time step of a stochastic method draws.

    Attributes
    ----------
    kick : tuple of Tensor (B, ...)
        B Delta W of each block.
    area : tuple of Tensor (B, ...)
        B I / dt; empty for methods that do not ask for it.
    """

    kick: State
    area: State = ()


class NoiseSource(Protocol):
    """Draws the noise of one step after another."""

    def draw(self) -> Noise:
        """Draw the noise of the next step."""


@dataclass(frozen=True)
class NoisyTableau:
    """Runge-Kutta method for additive noise (Roessler 2010, section 6):

        H_i = w + dt sum_j a_ij a(H_j) + along_i B Delta W + across_i B I / dt
        w'  = w + dt sum_i b_i a(H_i) + B Delta W

    Attributes
    ----------
    stages, weights
        Coefficients of an explicit method, as in `integrators.Tableau`.
    strong, weak, invariant : float
        Orders: of the path, of averages at a given time, of averages in the stationary state.
    along, across : tuple of float
        Coefficients of B Delta W and of B I / dt in each stage.
    averaged : bool
        Delta W is the mean of this step's draw and the next one's (Leimkuhler and Matthews): no Markov chain, but
        twice the order in the stationary state at one force a step.
    """

    stages: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]
    strong: float
    weak: float
    invariant: float
    along: tuple[float, ...] = (0.0,)
    across: tuple[float, ...] = (0.0,)
    averaged: bool = False

    @property
    def drift(self) -> Tableau:
        """The deterministic Runge-Kutta method that this one becomes without noise."""
        return Tableau(self.stages, self.weights, order=int(self.weak))


@dataclass(frozen=True)
class Splitting:
    """Exact flows of the parts of the inertial Langevin equation, one after the other.

    B kicks the velocity by the force, A drifts the position, O lets friction and noise act on the velocity. A
    letter that comes k times takes 1 / k of the step each time.

    Attributes
    ----------
    word : str
        Begins and ends with B, so that a step costs one force; one O.
    strong, weak, invariant : float
        Orders of accuracy, as in `NoisyTableau`.
    """

    word: str
    strong: float
    weak: float
    invariant: float

    def parts(self, dt: float) -> list[tuple[str, float]]:
        """The flows of one step of length dt in their order, each as its letter and the time that it takes."""
        return [(letter, dt / self.word.count(letter)) for letter in self.word]

    def amplification(self, curvatures: np.ndarray, dt: float, mass: float, friction: float) -> np.ndarray:
        """Spectral radius of one step on modes of these curvatures, the force being -curvature * s, (k,)."""
        curvatures = np.asarray(curvatures)
        step = np.broadcast_to(np.eye(2, dtype=curvatures.dtype), (len(curvatures), 2, 2))
        for letter, span in self.parts(dt):
            part = np.zeros_like(step)
            part[:, 0, 0] = part[:, 1, 1] = 1
            if letter == "A":
                part[:, 0, 1] = span
            elif letter == "B":
                part[:, 1, 0] = -span / mass * curvatures
            else:
                part[:, 1, 1] = math.exp(-friction / mass * span)
            step = part @ step
        return np.asarray(abs(np.linalg.eigvals(step)).max(axis=1))


STOCHASTIC: dict[str, NoisyTableau | Splitting] = {
    "euler_maruyama": NoisyTableau(((),), (1.0,), strong=1, weak=1, invariant=1),
    "stochastic_heun": NoisyTableau(
        ((), (1.0,)), (0.5, 0.5), strong=1, weak=2, invariant=2, along=(0.0, 1.0), across=(0.0, 0.0)
    ),
    "sra1": NoisyTableau(
        ((), (3 / 4,)), (1 / 3, 2 / 3), strong=1.5, weak=2, invariant=2, along=(0.0, 0.0), across=(0.0, 3 / 2)
    ),
    "leimkuhler_matthews": NoisyTableau(((),), (1.0,), strong=0.5, weak=1, invariant=2, averaged=True),
    "baoab": Splitting("BAOAB", strong=1, weak=2, invariant=2),
}
"""Methods by name. All but 'baoab', which is for inertial flow, take any flow; 'leimkuhler_matthews' is for flow
without inertia."""


class Wiener:
    """Increments of a Wiener process, and the areas under them.

    Normal numbers are drawn in float64 on the generator's device, a step after the other and all blocks of an
    example side by side: a seed means the same noise for any dtype, and whatever is recorded. Blocks without noise
    take none.

    Parameters
    ----------
    like : tuple of Tensor (B, ...)
        Blocks to draw for.
    amplitudes : sequence of float
        Size of the noise on each block, in state units per root of time.
    dt : float
    generator : torch.Generator
    areas : bool
        Whether the areas are wanted: two normal numbers a variable in place of one.
    """

    def __init__(
        self, like: State, amplitudes: list[float], dt: float, generator: torch.Generator, areas: bool
    ) -> None:
        self.like = like
        self.amplitudes = amplitudes
        self.root = math.sqrt(dt)
        self.generator = generator
        self.areas = areas
        self._shapes = [b.shape for b, a in zip(like, amplitudes, strict=True) if a]

    def draw(self) -> Noise:
        """Draw the noise of the next step (Kloeden and Platen, eq. 10.4.3)."""
        kick = self._normal()
        if not self.areas:
            return Noise(self._scaled(kick))
        area = tuple(0.5 * (k + s / math.sqrt(3)) for k, s in zip(kick, self._normal(), strict=True))
        return Noise(self._scaled(kick), self._scaled(area))

    def _normal(self) -> State:
        rows = len(self.like[0])
        count = sum(shape[1:].numel() for shape in self._shapes)
        device = self.generator.device
        flat = torch.randn(rows, count, generator=self.generator, dtype=torch.float64, device=device)
        return unflat(flat, self._shapes) if self._shapes else ()

    def _scaled(self, drawn: State) -> State:
        rest = iter(drawn)
        return tuple(
            (self.root * a * next(rest)).to(b) if a else torch.zeros_like(b)
            for b, a in zip(self.like, self.amplitudes, strict=True)
        )


class Still:
    """No noise at all: the limit of temperature zero.

    Parameters
    ----------
    like : tuple of Tensor (B, ...)
    """

    def __init__(self, like: State) -> None:
        nothing = tuple(torch.zeros_like(b) for b in like)
        self._noise = Noise(nothing, nothing)

    def draw(self) -> Noise:
        """Draw no noise: every kick is zero."""
        return self._noise


class Averaged:
    """A source of noise whose kicks are the means of two successive kicks of another source.

    Parameters
    ----------
    source : NoiseSource
    """

    def __init__(self, source: NoiseSource) -> None:
        self.source = source
        self._last = source.draw().kick

    def draw(self) -> Noise:
        """Draw the noise of the next step."""
        last, self._last = self._last, self.source.draw().kick
        return Noise(tuple(0.5 * (a + b) for a, b in zip(last, self._last, strict=True)))


def source_for(
    motion: Motion,
    method: NoisyTableau | Splitting,
    w: State,
    dt: float,
    temperature: float,
    generator: torch.Generator | None,
) -> NoiseSource:
    """Noise of a motion at a temperature; the default generator is of the state's device, seeded with 0."""
    if temperature == 0:
        return Still(w)
    assert isinstance(motion, Drift | Inertial)
    seeded = torch.Generator(w[0].device).manual_seed(0) if generator is None else generator
    areas = isinstance(method, NoisyTableau) and any(method.across)
    return Wiener(w, motion.amplitudes(temperature, len(w)), dt, seeded, areas)


def noisy_steps(
    motion: Motion,
    w: State,
    duration: float,
    count: int,
    every: int,
    method: NoisyTableau | Splitting,
    source: NoiseSource,
) -> Points:
    """Yield (time, w, velocity) at the start and after every `every` of `count` equal steps, and at the end."""
    dt = duration / count
    if isinstance(method, NoisyTableau) and method.averaged:
        source = Averaged(source)
    limit = method.drift.real_limit / dt if isinstance(method, NoisyTableau) else math.inf
    velocity = motion.velocity(w)
    often: State | None = None
    yield 0.0, w, velocity
    for done in range(1, count + 1):
        if isinstance(method, Splitting):
            assert isinstance(motion, Inertial)
            w, velocity = split_step(motion, w, velocity, dt, method, source.draw())
        else:
            w = noisy_step(motion, w, velocity, dt, method, source.draw())
            velocity = motion.velocity(w)
            if motion.pace is not None:
                fast = tuple((r > limit).to(r) for r in motion.pace)
                often = fast if often is None else tuple(n + f for n, f in zip(often, fast, strict=True))
                motion.pace = None
        if done % every == 0 or done == count:
            if not finite(w) or not finite(velocity):
                raise diverged(count)
            # Noise leads to a bound now and then; who is there for long has steps that are too long.
            if often is not None and done >= LEAST and any(bool((n > OFTEN * done).any()) for n in often):
                raise saturated(count, duration)
            yield duration * (done / count), w, velocity


def noisy_step(motion: Motion, w: State, velocity: State, dt: float, method: NoisyTableau, noise: Noise) -> State:
    """State w after one step of a stochastic method; `velocity` is the drift at w."""
    slopes = [velocity]
    for row, along, across in zip(method.stages[1:], method.along[1:], method.across[1:], strict=True):
        led = motion.drifted(combined(w, dt, row, slopes))
        stage = combined(led, 1.0, (along, across), [noise.kick, noise.area])
        slopes.append(motion.velocity(motion.inside(stage)))
    led = motion.drifted(combined(w, dt, method.weights, slopes))
    return motion.inside(combined(led, 1.0, (1.0,), [noise.kick]))


def split_step(
    motion: Inertial, w: State, velocity: State, dt: float, method: Splitting, noise: Noise
) -> tuple[State, State]:
    """State w after one split step, and dw/dt there; friction and noise act on the velocities alone."""
    s, v = split(w)
    m, frictions = motion.mass, motion.frictions(len(v))
    # -dF/ds, of which the velocity is already known from the step before.
    force = tuple(m * a + g * u for a, u, g in zip(split(velocity)[1], v, frictions, strict=True))
    fresh = True
    for letter, span in method.parts(dt):
        if letter == "A":
            s, v = split(motion.inside((*(a + span * u for a, u in zip(s, v, strict=True)), *v)))
            fresh = False
        elif letter == "B":
            if not fresh:
                force, fresh = motion.phase.unbounded_force(s), True
            v = tuple(u + span / m * f for u, f in zip(v, force, strict=True))
        else:
            v = tuple(
                _rubbed(u, g / m, span, k) for u, g, k in zip(v, frictions, split(noise.kick)[1], strict=True)
            )
    pairs = zip(force, v, frictions, strict=True)
    return (*s, *v), (*v, *((f - g * u) / m for f, u, g in pairs))


def _rubbed(v: torch.Tensor, rate: float, span: float, kick: torch.Tensor) -> torch.Tensor:
    """Exact Ornstein-Uhlenbeck flow over `span`: a kick of variance 2 rate span T / m becomes (1 - e^2) T / m."""
    kept = math.exp(-rate * span)
    return kept * v + math.sqrt(-math.expm1(-2 * rate * span) / (2 * rate * span)) * kick if rate else v
