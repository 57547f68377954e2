"""Early inference: what a nudge does to hidden layers before anything has settled, against backprop.

Bengio and Fischer 2015, "Early inference in energy-based models approximates back-propagation": pull at the outputs
of a free fixed point, and the first movement of each layer carries the back-propagated error of that layer.

Derivation. Near the free fixed point the displacements d = (d_1 ... d_L) of the layers obey, to first order in the
nudge b, the linear flow

    dd/dt = J d - b g,        d(0) = 0,        d(t) = -b sum_n J^n g t^(n+1) / (n+1)!

with J the Jacobian of the flow (minus the Hessian of E for gradient flow) and g = (0 ... 0, g_L) the slope of the
cost. Layers couple to their neighbours only: J is block tridiagonal, and the shortest path from the outputs to
layer L-j takes j steps, each from a layer to the one below. So (J^n g)_{L-j} = 0 for n < j, and for n = j it is

    delta_{L-j} = J_{L-j,L-j+1} ... J_{L-1,L} g_L,   that is   delta_L = g_L,   delta_k = J_{k,k+1} delta_{k+1} .

Hence, whatever the strength of the couplings,

    d_{L-j}(t) = -b t^(j+1) / (j+1)! delta_{L-j} + O(b t^(j+2)) + O(b^2) .

What remains is that this delta is backprop's. The blocks of J above the diagonal are (a_k = W_k s_{k-1} + b_k; all
slopes are those at the fixed point):

* Hopfield energy in potentials u: J_{k,k+1} = rho'_k W_{k+1}^T rho'_{k+1}, which gives dC/du_k of the network
  u_k = rho'_k (W_k rho(u_{k-1}) + b_k) whose slopes rho'_k are held: the fixed point's own equation, less feedback.
* Squared errors of a predictive coding network: J_{k,k+1} = W_{k+1}^T sigma'_{k+1}, so that delta_k is exactly
  dC/dh_k of the forward pass (outputs are linear).
* Its paired units: pulls q_k = p_k - r_k obey dq_k/dt = W_{k+1}^T sigma'_{k+1} q_{k+1} - q_k: nothing comes up from
  below. So q_{L-j} = -b P(j+1, t) dC/dh_{L-j} at all times, P the regularised incomplete gamma function, and the
  errors h_k - u_k = sigma'_k q_k keep the direction of delta_k = dC/da_k from the first moment to the last.
* Rates of a `HopfieldNetwork` in its rate flow, the metric of its units: J_{k,k+1} = sigma'_k W_{k+1}^T.

`back_propagated` makes delta of the flow's own J; tests hold it against automatic differentiation.

Late, displacements mix with what comes up from below and lose their direction; the *errors* of a predictive coding
network, h_k - sigma_k(a_k), keep it: settled, they are -b delta_k to first order in b.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch

from physics_ep.blocks import State, in_dtype
from physics_ep.cost import Cost, as_cost, require_own
from physics_ep.dynamics.flows import Drift, own_motion
from physics_ep.dynamics.integrators import TABLEAUS, fixed_steps
from physics_ep.dynamics.motion import Motion
from physics_ep.dynamics.noise import STOCHASTIC, NoisyTableau, Wiener, noisy_steps
from physics_ep.errors import argument_error, is_real, require_count
from physics_ep.estimators.chains import Shared, repeated
from physics_ep.nudging import Nudge
from physics_ep.physical_system import Phase, PhysicalSystem, widened
from physics_ep.predictive_coding import PredictiveCodingNetwork
from physics_ep.predictive_coding.flows import skew
from physics_ep.predictive_coding.phase import PredictivePhase
from physics_ep.relaxation.loop import relax
from physics_ep.stillness import require_system

from ..oracles import wide_target

METHOD = TABLEAUS["dormand_prince"]
NOISY_METHOD = STOCHASTIC["stochastic_heun"]
DIFFERENCE = 1e-5
"""Largest entry of a displacement in a central difference of velocities."""
ROWS = 4096
"""Rows that are integrated at once."""


class EarlyRow(NamedTuple):
    """One layer at one time.

    Attributes
    ----------
    time : float
    layer : int
        Number of the layer, from 1; the last is the outputs.
    cosine : float
        Cosine of the displacement and -delta, worst example.
    least, most : float
        |displacement| over |formula|, smallest and largest of the examples.
    noise : float
        Size of the noise that is left in the mean displacement, over its own (root mean square over the examples).
    """

    time: float
    layer: int
    cosine: float
    least: float
    most: float
    noise: float


@dataclass(frozen=True)
class EarlyInference:
    """Displacements of all layers after a nudge, beside what backprop says they begin as.

    T times, L layers (the last is the outputs), B examples; layer k has n_k entries, flattened.

    Attributes
    ----------
    times : Tensor (T,)
        Times, in time constants.
    beta, temperature : float
    runs : int
        Pairs of a free and a nudged run that were averaged.
    delta : tuple of Tensor (B, n_k)
        Back-propagated errors.
    displacement : tuple of Tensor (T, B, n_k)
        Mean over the runs of nudged minus free.
    variance : tuple of Tensor (T, B, n_k)
        Variance of one run's displacement over the runs; 0 for one run.
    error : tuple of Tensor (T, B, n_k), or None
        The same mean of the errors h - sigma(a) of a predictive coding network.
    """

    times: torch.Tensor
    beta: float
    temperature: float
    runs: int
    delta: State = field(repr=False)
    displacement: State = field(repr=False)
    variance: State = field(repr=False)
    error: State | None = field(repr=False)

    @cached_property
    def formula(self) -> State:
        """-beta t^(j+1) / (j+1)! delta of each layer, (T, B, n_k)."""
        depth = len(self.delta)
        found = []
        for k, delta in enumerate(self.delta):
            power = depth - k
            found.append(-self.beta * (self.times**power / math.factorial(power))[:, None, None] * delta)
        return tuple(found)

    @cached_property
    def cosine(self) -> torch.Tensor:
        """Cosine of displacement and formula, (T, L, B)."""
        return torch.stack([cosine(d, f) for d, f in zip(self.displacement, self.formula, strict=True)], 1)

    @cached_property
    def size(self) -> torch.Tensor:
        """|displacement| / |formula|, (T, L, B)."""
        return torch.stack(
            [d.norm(dim=-1) / f.norm(dim=-1) for d, f in zip(self.displacement, self.formula, strict=True)], 1
        )

    @cached_property
    def projection(self) -> torch.Tensor:
        """Displacement along the formula, over the latter, (T, L, B): `size` without what noise adds to it."""
        return torch.stack(
            [(d * f).sum(-1) / f.square().sum(-1) for d, f in zip(self.displacement, self.formula, strict=True)],
            1,
        )

    @cached_property
    def projection_error(self) -> torch.Tensor:
        """Standard error of `projection`, (T, L, B), taking the noise of the entries as independent."""
        return torch.stack(
            [
                ((v * f.square()).sum(-1) / self.runs).sqrt() / f.square().sum(-1)
                for v, f in zip(self.variance, self.formula, strict=True)
            ],
            1,
        )

    @cached_property
    def noise(self) -> torch.Tensor:
        """Expected size of the noise in the mean displacement over the size of the latter, (T, L, B)."""
        return torch.stack(
            [
                (v.sum(-1) / self.runs).sqrt() / d.norm(dim=-1)
                for v, d in zip(self.variance, self.displacement, strict=True)
            ],
            1,
        )

    @cached_property
    def error_cosine(self) -> torch.Tensor | None:
        """Cosine of the errors and -delta, (T, L, B)."""
        if self.error is None:
            return None
        return torch.stack(
            [cosine(e, -math.copysign(1, self.beta) * d) for e, d in zip(self.error, self.delta, strict=True)], 1
        )

    @cached_property
    def error_size(self) -> torch.Tensor | None:
        """|errors| / |beta delta|, (T, L, B)."""
        if self.error is None:
            return None
        return torch.stack(
            [
                e.norm(dim=-1) / (abs(self.beta) * d.norm(dim=-1))
                for e, d in zip(self.error, self.delta, strict=True)
            ],
            1,
        )

    def runs_needed(self, aim: float) -> torch.Tensor:
        """Runs of this noise after which the mean displacement has this cosine to the noiseless one, (T, L, B).

        What is left of the noise is orthogonal to the displacement, near enough, and of size sqrt(v / R) after R
        runs, v the sum of the variances: cosine = 1 / sqrt(1 + v / (R |d|^2)). For |d| stands the formula, which
        overrates it somewhat.
        """
        return torch.stack(
            [
                v.sum(-1) / f.square().sum(-1) * aim**2 / (1 - aim**2)
                for v, f in zip(self.variance, self.formula, strict=True)
            ],
            1,
        )

    @property
    def rows(self) -> list[EarlyRow]:
        """The displacements as rows, one for each time and layer."""
        return [
            EarlyRow(
                float(time),
                k + 1,
                float(self.cosine[i, k].min()),
                float(self.size[i, k].min()),
                float(self.size[i, k].max()),
                float(self.noise[i, k].square().mean().sqrt()),
            )
            for i, time in enumerate(self.times)
            for k in range(len(self.delta))
        ]


def infer_early(
    system: PhysicalSystem,
    x: torch.Tensor,
    y: torch.Tensor,
    cost: Cost,
    *,
    times: Sequence[float] = (0.05, 0.1, 0.3, 1.0),
    beta: float = 1e-3,
    temperature: float = 0.0,
    runs: int = 1,
    common_noise: bool = True,
    steps: int = 40,
    generator: torch.Generator | None = None,
) -> EarlyInference:
    """Nudge a system at its free fixed point, and watch its layers leave it.

    Float64 throughout. Displacements are carried from the fixed point, never the difference of two states, so that
    layers far from the outputs, which move by b t^(j+1), are not lost to rounding.

    Parameters
    ----------
    system : EnergySystem or VectorField
        Its blocks are layers that couple to their neighbours only, the last being the outputs; or a
        `PredictiveCodingNetwork` without skips, which moves by gradient flow or, paired, by its skew-gradient flow.
        Networks of units are watched in their rate flow (`hardware_models.layers.flows`).
    x : Tensor (B, ...)
    y : Tensor
        Targets, as the cost takes them.
    cost : Cost
    times : sequence of float
        Increasing, in time constants of the system.
    beta : float
        Nudging strength.
    temperature : float
        Temperature, in the unit of the energy: both runs obey ds = force dt + sqrt(2 T) dW. Gradient flow of
        unbounded variables only.
    runs : int
        Pairs of runs to average over; more than one only with a temperature.
    common_noise : bool
        Give the free and the nudged run of a pair the same noise: it drops out of their difference but for the
        curvature that it leads through. With independent noise, the difference has variance 4 T t an entry.
    steps : int
        Equal steps in each interval between two times; at least 10 a time constant are taken.
    generator : torch.Generator, optional
        Random generator of the noise. Default: one of the device of x, seeded with 0.

    Returns
    -------
    EarlyInference

    Raises
    ------
    InputError
        If an argument is not as above.
    NotConverged
        If there is no free fixed point to begin with.
    """
    require_system(system)
    cost = as_cost(cost)
    _check(system, times, beta, temperature, runs, steps)
    generator = torch.Generator(x.device).manual_seed(0) if generator is None else generator
    exact = widened(system)
    x, y = in_dtype(x, torch.float64), wide_target(y)
    with torch.no_grad():
        free = relax(exact, x, tolerance=1e-11, max_iterations=20 * exact.default_max_iterations).require().state
        cost.check(exact.outputs(free), y)
        require_own(cost, exact.outputs(free), y)
        nudge = Nudge(cost, y, float(beta))
        delta = tuple(d.flatten(1) for d in back_propagated(exact, x, nudge, free))
        course = EarlyRuns(times, steps, temperature, common_noise, generator)
        most = max(1, ROWS // (2 * len(x)))
        moments: Moments | None = None
        for done in range(0, runs, most):
            found = course.follow(exact, x, nudge, free, min(most, runs - done))
            moments = found if moments is None else moments.merged(found)
    assert moments is not None
    depth = len(delta)
    return EarlyInference(
        times=torch.tensor(list(times), dtype=torch.float64, device=x.device),
        beta=float(beta),
        temperature=float(temperature),
        runs=runs,
        delta=delta,
        displacement=moments.mean[:depth],
        variance=tuple(s / max(runs - 1, 1) for s in moments.squares[:depth]),
        error=moments.mean[depth:] or None,
    )


def cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Cosine of a and b along the last axis, at any scale; 0 where one of them is 0."""
    sizes = a.norm(dim=-1) * b.norm(dim=-1)
    return (a * b).sum(-1) / sizes.clamp_min(torch.finfo(sizes.dtype).tiny)


def _check(
    system: PhysicalSystem, times: Sequence[float], beta: float, temperature: float, runs: int, steps: int
) -> None:
    """InputError for a bad option."""
    held = list(times) if isinstance(times, Sequence) else []
    if not held or any(not later > earlier for earlier, later in itertools.pairwise([0.0, *held])):
        raise argument_error("times", "be increasing positive numbers", times)
    if not is_real(beta) or beta == 0:
        raise argument_error("beta", "be finite and not 0", beta)
    if not (is_real(temperature) and temperature >= 0):
        raise argument_error("temperature", "be a number of at least 0", temperature)
    for name, value in (("runs", runs), ("steps", steps)):
        require_count(name, value)
    if runs > 1 and not temperature:
        raise argument_error("runs", "be 1 without a temperature: all runs would be the same", runs)
    bounded = system.bounded and not isinstance(system, PredictiveCodingNetwork)
    if temperature and (bounded or not system.descends):
        must = f"be 0 for {type(system).__name__}, whose variables are bounded or do not all descend an energy"
        raise argument_error("temperature", must, temperature)


# -- runs: how layers leave a free fixed point when nudged, and the errors they are held to -------------------


def back_propagated(system: PhysicalSystem, x: torch.Tensor, nudge: Nudge, free: State) -> State:
    """Errors delta of all layers at a free fixed point: delta_L = g_L, delta_k = J_{k,k+1} delta_{k+1}.

    g_L is the velocity of the outputs under the nudge over -beta; products with the blocks of J are central
    differences of the free velocity. See `validation.theory.early_inference`.

    Parameters
    ----------
    system : EnergySystem or VectorField
        float64.
    x : Tensor (B, ...)
    nudge : Nudge
    free : State
        The free fixed point.

    Returns
    -------
    tuple of Tensor (B, ...), a layer each
    """
    base = system.phase(system.prepare(x), origin=free, balanced=True)
    motion = followed(base)
    rest = at_rest(motion)
    pulled = followed(base.nudged(nudge)).velocity(rest)
    delta = [pulled[-1] / -nudge.beta]
    for k in range(len(rest) - 2, len(rest) - 1 - depth_of(base), -1):
        scale = _scale(delta[:1])
        above = [torch.zeros_like(b) for b in rest]
        above[k + 1] = scale * delta[0]
        up, down = motion.velocity(tuple(above)), motion.velocity(tuple(-b for b in above))
        delta.insert(0, (up[k] - down[k]) / (2 * scale))
    if not (isinstance(base, PredictivePhase) and base.paired):
        return tuple(delta)
    # What has been followed are the pulls p - r; what moves is h = sigma(p).
    scale = _scale(delta)
    still = [torch.zeros_like(d) for d in delta]
    up, down = (tuple(skew(base, still, [sign * scale * d for d in delta]).errors) for sign in (1, -1))
    return tuple((a - b) / (2 * scale) for a, b in zip(up, down, strict=True))


class Moments(NamedTuple):
    """Means and summed squared deviations over runs, merged as in Chan, Golub and LeVeque 1983, eq. 2.1."""

    runs: int
    mean: State
    squares: State

    def merged(self, other: Moments) -> Moments:
        """Moments over the runs of both."""
        total = self.runs + other.runs
        share = other.runs / total
        gaps = [b - a for a, b in zip(self.mean, other.mean, strict=True)]
        return Moments(
            total,
            tuple(a + share * g for a, g in zip(self.mean, gaps, strict=True)),
            tuple(
                a + b + self.runs * share * g * g for a, b, g in zip(self.squares, other.squares, gaps, strict=True)
            ),
        )


@dataclass(frozen=True)
class EarlyRuns:
    """Times at which the layers are read, and the motion that they follow.

    Attributes
    ----------
    times : sequence of float
        Time constants.
    steps : int
        Least number of equal steps from one time to the next.
    temperature : float
    common_noise : bool
    generator : torch.Generator
    """

    times: Sequence[float]
    steps: int
    temperature: float
    common_noise: bool
    generator: torch.Generator

    def follow(self, system: PhysicalSystem, x: torch.Tensor, nudge: Nudge, free: State, runs: int) -> Moments:
        """Moments of displacements and errors at the times, blocks (T, B, n).

        Rows are ordered (copies, runs, examples); with noise, the first copy is free and the second nudged.
        """
        copies = 2 if self.temperature else 1
        rows = copies * runs
        base = system.phase(
            system.prepare(repeated(x, rows)), origin=tuple(repeated(s, rows) for s in free), balanced=True
        )
        nudged = torch.arange(rows * len(x), device=x.device) >= (copies - 1) * runs * len(x)
        strength = nudge.beta * nudged.to(free[0].dtype)
        phase = base.nudged(Nudge(nudge.cost, repeated(nudge.y, rows), strength))
        motion = followed(phase)
        w = at_rest(motion)
        before = 0.0
        means, squares = [], []
        for time in self.times:
            w = self._advanced(motion, w, time - before, copies)
            before = time
            found = []
            for b in _read(phase, w):
                parts = b.flatten(1).unflatten(0, (copies, runs, -1))
                found.append(parts[-1] - parts[0] if copies > 1 else parts[0])
            means.append([d.mean(0) for d in found])
            squares.append([(d - m).square().sum(0) for d, m in zip(found, means[-1], strict=True)])
        stacked = (tuple(torch.stack(b) for b in zip(*kept, strict=True)) for kept in (means, squares))
        return Moments(runs, *stacked)

    def _advanced(self, motion: Motion, w: State, interval: float, copies: int) -> State:
        """w after an interval, in time constants."""
        count = max(self.steps, math.ceil(10 * interval))
        duration = interval * motion.phase.system.time_constant
        if not self.temperature:
            points = fixed_steps(motion, w, duration, count, count, METHOD)
        else:
            assert isinstance(NOISY_METHOD, NoisyTableau)
            parts = copies if self.common_noise else 1
            like = tuple(b[: len(b) // parts] for b in w)
            amplitudes = Drift(motion.phase).amplitudes(self.temperature, len(w))
            source = Shared(Wiener(like, amplitudes, duration / count, self.generator, areas=False), parts)
            points = noisy_steps(motion, w, duration, count, count, NOISY_METHOD, source)
        *_, (_, w, _) = points
        return w


def followed(phase: Phase) -> Motion:
    """Motion in which layers are watched: units' rate flow, which passes their slopes; else the system's own."""
    rate = phase.system.flows(phase).get("rate")
    return own_motion(phase) if rate is None else rate(phase)


def at_rest(motion: Motion) -> State:
    """Variables of the motion at its phase's origin."""
    assert motion.phase.origin is not None
    return tuple(torch.zeros_like(w) for w in motion.start(tuple(torch.zeros_like(s) for s in motion.phase.origin)))


def depth_of(phase: Phase) -> int:
    """Number of layers of a network."""
    assert phase.origin is not None
    return phase.depth if isinstance(phase, PredictivePhase) else len(phase.origin)


def _read(phase: Phase, w: State) -> list[torch.Tensor]:
    """Displacements of the layers, then their errors, where a network has them."""
    if not isinstance(phase, PredictivePhase):
        return list(w)
    if not phase.paired:
        return [*w, *phase.errors(w)[0]]
    now = skew(phase, list(w[: phase.depth]), list(w[phase.depth :]))
    return [*now.moved, *now.errors]


def _scale(blocks: Sequence[torch.Tensor]) -> float:
    """Factor that brings the largest entry to `DIFFERENCE`."""
    largest = max(float(b.detach().abs().max()) for b in blocks)
    return DIFFERENCE / max(largest, torch.finfo(torch.float64).tiny)
