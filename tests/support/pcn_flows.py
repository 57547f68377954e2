"""How the circuit of a mapped network decays: its linearised dynamics, and the time that a disturbance takes."""

from __future__ import annotations

import math

import torch

from hardware_models.mapping.mapped import Mapped
from hardware_models.mapping.solvers import Flow, velocity
from physics_ep import relax
from physics_ep.blocks import largest
from physics_ep.dynamics.flows import own_motion


def linearised(mapped: Mapped, x: torch.Tensor) -> torch.Tensor:
    """tau J of the dynamics at the free state of one example."""
    system = mapped.system
    free = relax(system, x, solver="sweep").require()
    phase = system.phase(system.prepare(x), origin=free.state)
    start = own_motion(phase).start(phase.start())
    sizes = [b[0].numel() for b in start]

    def field(flat: torch.Tensor) -> torch.Tensor:
        blocks = [b[None] for b in flat.split(sizes)]
        return torch.cat([v.flatten() for v in velocity(phase, blocks)])

    return torch.autograd.functional.jacobian(field, torch.zeros(sum(sizes), dtype=torch.float64), vectorize=True)


def decay(mapped: Mapped, x: torch.Tensor) -> float:
    """Time constants in which a disturbance of the free state falls to 1e-6 of itself."""
    phase = mapped.system.phase(mapped.system.prepare(x))
    generator = torch.Generator().manual_seed(0)
    state = phase.state(phase.start())
    start = tuple(s + 1e-5 * torch.randn(s.shape, generator=generator, dtype=s.dtype) for s in state)
    with torch.no_grad():
        flow = Flow(phase, start)
        first = largest(tuple(flow.w)).max()
        for steps in range(400):
            if largest(tuple(flow.w)).max() <= 1e-6 * first:
                return 0.5 * steps
            flow.evaluate()
            flow.advance(torch.ones(len(x), dtype=torch.bool))
    return math.inf
