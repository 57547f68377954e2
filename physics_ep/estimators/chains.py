"""Chains that sample exp(-F / T) under each nudge of a stencil, and what is averaged over them.

All phases, chains and examples are rows of one batch, so that a step costs one force, and phases may share their
noise.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch

from ..blocks import State
from ..cost import Cost, fitted_targets, require_own
from ..dynamics.flows import Drift, choose_motion
from ..dynamics.noise import Noise, NoiseSource, NoisyTableau, Wiener, noisy_steps
from ..energies import outputs_of
from ..nudging import Nudge, Stencil
from ..physical_system import PhysicalSystem
from ..relaxation.loop import new_phase, prepared, solve
from ..weights import summed
from .contrasts import direct_gradient

GROUPS = 16
"""Groups of chains, whose gradients tell the standard errors."""
ROWS = 8192
"""Rows of which a contrast is taken at once."""


@dataclass(frozen=True)
class Plan:
    """How chains are run: see `StochasticEquilibriumPropagation`. Times are in time constants."""

    cost: Cost
    scheme: Stencil
    beta: float
    chains: int
    burn_in: float
    duration: float
    interval: float
    step: float
    method: NoisyTableau
    common_noise: bool
    generator: torch.Generator | None


class Averages(NamedTuple):
    """What the chains were found to do on average.

    Attributes
    ----------
    gradients : dict
        Parameter name to (groups, *shape): of each group of chains.
    halves : dict
        The same, of the second half of the run less the first.
    cost : Tensor (chains,)
        Mean cost of each chain over phases, examples and time.
    force : Tensor (phases, chains, B, n)
        Mean force on each variable over time.
    virial : Tensor (phases, chains, B)
        <z . dF/ds> / n T over time, z from the phase's equilibrium at rest.
    """

    gradients: dict[str, torch.Tensor]
    halves: dict[str, torch.Tensor]
    cost: torch.Tensor
    force: torch.Tensor
    virial: torch.Tensor


class Shared:
    """A source of noise that gives each of several copies of a batch the same noise.

    Parameters
    ----------
    source : NoiseSource
        Source of the noise of one copy.
    copies : int
    """

    def __init__(self, source: NoiseSource, copies: int) -> None:
        self.source = source
        self.copies = copies

    def draw(self) -> Noise:
        """Draw the noise of the next step for one copy, and repeat it for the others."""
        noise = self.source.draw()
        return Noise(*(tuple(repeated(b, self.copies) for b in blocks) for blocks in noise))


class Ensemble:
    """Chains that start at the equilibria of their phases, displaced from the free one.

    Rows are ordered (phases, chains, examples).

    Parameters
    ----------
    system : EnergySystem or VectorField
        float64.
    x, y : Tensor
    plan : Plan

    Attributes
    ----------
    phases : int
        Nodes of the stencil, and the free phase where a pair of it needs one.
    start : State
        Displacements at which the chains start, a row each.

    Raises
    ------
    NotConverged
        If a phase has no equilibrium at rest.
    """

    def __init__(self, system: PhysicalSystem, x: torch.Tensor, y: torch.Tensor, plan: Plan) -> None:
        self.system, self.plan = system, plan
        self.batch = len(x)
        inputs = prepared(system, x, {})
        free = solve(system.phase(inputs)).require().state
        with torch.enable_grad():
            outputs = outputs_of(system, free)
        y = fitted_targets(plan.cost, outputs.detach(), y)
        require_own(plan.cost, outputs.detach(), y)
        nodes = [complex(n).real for n in plan.scheme.nodes]
        pairs = plan.scheme.pairs()
        if any(j is None for _, j, _ in pairs) and 0.0 not in nodes:
            nodes.append(0.0)
        self.pairs = [(i, nodes.index(0.0) if j is None else j, complex(w).real / plan.beta) for i, j, w in pairs]
        # dF/dtheta = dE/dtheta + beta dC/dtheta: what outputs owe to parameters themselves, node by node.
        self.direct = [
            (i, (complex(w) * complex(n)).real)
            for i, (n, w) in enumerate(zip(plan.scheme.nodes, plan.scheme.weights, strict=True))
            if n != 0 and outputs.requires_grad
        ]
        self.phases = len(nodes)
        base = new_phase(system, inputs, {}, origin=free, balanced=True)
        moved = []
        for n in nodes:
            found = solve(base.nudged(Nudge(plan.cost, y, plan.beta * n))).require().displacement
            assert found is not None
            moved.append(found)
        self.start = tuple(
            torch.cat([repeated(d, plan.chains) for d in blocks]) for blocks in zip(*moved, strict=True)
        )
        self.free = tuple(repeated(s, plan.chains) for s in free)
        self.x = repeated(x, plan.chains)
        rows = system.phase(
            system.prepare(repeated(self.x, self.phases)),
            origin=tuple(repeated(s, self.phases) for s in self.free),
            balanced=True,
        )
        beta = plan.beta * torch.tensor(nodes, dtype=free[0].dtype, device=x.device)
        self.y = repeated(y, self.phases * plan.chains)
        self.phase = rows.nudged(Nudge(plan.cost, self.y, beta.repeat_interleave(plan.chains * self.batch)))
        self.groups = torch.arange(plan.chains, device=x.device).tensor_split(min(GROUPS, plan.chains))

    def at_rest(self) -> dict[str, torch.Tensor]:
        """The stencil's estimate at the equilibria themselves."""
        return {name: g.mean(0) for name, g in self.contrasts([self.start]).items()}

    def costs(self, w: State) -> torch.Tensor:
        """Cost of each row, (rows,)."""
        return self.plan.cost(self.system.outputs(self.phase.state(w)), self.y)

    def averages(self, temperature: float) -> Averages:
        """Run the chains and average over all times after the burn-in.

        Raises
        ------
        InputError
            If the system moves by equations of its own, or faster than the steps.
        """
        plan = self.plan
        every = max(1, round(plan.interval / plan.step))
        burnt = math.ceil(plan.burn_in / (every * plan.step))
        half = math.ceil(plan.duration / (2 * every * plan.step))
        like = self.start[0]
        force = [torch.zeros_like(b) for b in self.start]
        virial, costs = like.new_zeros(len(like)), like.new_zeros(len(like))
        sums: list[dict[str, torch.Tensor]] = [{}, {}]
        held: list[State] = []
        most = max(1, ROWS // (plan.chains * self.batch))
        points = self._points(temperature, every, burnt + 2 * half)
        for number, w in enumerate(itertools.islice(points, burnt + 1, None)):
            held.append(w)
            slope = self.phase.unbounded_force(w)
            force = [f + g for f, g in zip(force, slope, strict=True)]
            # From where the chain started: any point would do, but a distant one is noise in it.
            for z, g, at in zip(w, slope, self.start, strict=True):
                virial -= ((z - at) * g).flatten(1).sum(1)
            costs += self.costs(w)
            if len(held) == most or number + 1 in (half, 2 * half):
                added(sums[number >= half], self.contrasts(held))
                held = []
        shape = (self.phases, plan.chains, self.batch)
        mean_force = torch.cat([f.flatten(1) for f in force], 1) / (2 * half)
        first, second = ({name: g / half for name, g in part.items()} for part in sums)
        return Averages(
            {name: 0.5 * (g + second[name]) for name, g in first.items()},
            {name: second[name] - g for name, g in first.items()},
            (costs / (2 * half)).view(shape).mean((0, 2)),
            mean_force.unflatten(0, shape),
            (virial / (2 * half * mean_force.shape[1] * temperature)).view(shape),
        )

    def contrasts(self, samples: list[State]) -> dict[str, torch.Tensor]:
        """Estimates of the gradient, summed over the samples: parameter name to (groups, *shape)."""
        times = len(samples)
        shape = (self.phases, self.plan.chains, self.batch)
        blocks = [torch.stack(b).unflatten(1, shape) for b in zip(*samples, strict=True)]
        found: dict[str, list[torch.Tensor]] = {}
        for members in self.groups:
            share = len(members) * self.batch
            phases = [tuple(b[:, i, members].flatten(0, 2) for b in blocks) for i in range(self.phases)]
            x, free = repeated(self.x[:share], times), tuple(repeated(s[:share], times) for s in self.free)
            total: dict[str, torch.Tensor] = {}
            for i, j, weight in self.pairs:
                column = free[0].new_full((times * share,), weight / share)
                part = self.system.contrast(free, phases[i], phases[j], x, column)
                added(total, summed(self.system, part))
            for i, weight in self.direct:
                state = tuple(s + d for s, d in zip(free, phases[i], strict=True))
                column = free[0].new_full((times * share,), weight / share)
                added(
                    total,
                    direct_gradient(self.system, state, self.plan.cost, repeated(self.y[:share], times), column),
                )
            for name, g in total.items():
                found.setdefault(name, []).append(g)
        return {name: torch.stack(parts) for name, parts in found.items()}

    def _points(self, temperature: float, every: int, count: int) -> Iterator[State]:
        """w at the start and after each of `count` intervals of `every` steps."""
        plan = self.plan
        motion = choose_motion(self.phase, "gradient", temperature, 1.0, 1.0)
        assert isinstance(motion, Drift)
        dt = plan.step * self.system.time_constant
        copies = self.phases if plan.common_noise else 1
        like = tuple(b[: len(b) // copies] for b in self.start)
        amplitudes = motion.amplitudes(temperature, len(like))
        assert plan.generator is not None
        source = Shared(Wiener(like, amplitudes, dt, plan.generator, any(plan.method.across)), copies)
        steps = every * count
        for _, w, _ in noisy_steps(motion, self.start, steps * dt, steps, every, plan.method, source):
            yield w


def added(sums: dict[str, torch.Tensor], part: dict[str, torch.Tensor]) -> None:
    """Add a part to sums, in place."""
    for name, g in part.items():
        sums[name] = sums[name] + g if name in sums else g


def repeated(b: torch.Tensor, copies: int) -> torch.Tensor:
    """A batch of rows repeated `copies` times, one copy of the batch after the other."""
    return b.repeat(copies, *[1] * (b.ndim - 1))
