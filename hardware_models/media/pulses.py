"""Fronts and pulses that travel through a medium: how they are set off, followed and timed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from physics_ep.blocks import State
from physics_ep.dynamics.simulation import simulate
from physics_ep.errors import argument_error
from physics_ep.storage.trajectory import Trajectory

from .medium import FitzHughNagumoChain

STIMULUS = 5.0
"""Length of what is excited, and of what is made refractory behind it, where d_u = 1."""


@dataclass(frozen=True)
class TravellingPulse:
    """A pulse on its way along a chain or ring.

    Attributes
    ----------
    time : Tensor (T,)
        Times, in reaction times.
    position : Tensor (sites,)
        Positions of the sites, in units of length.
    u, v : Tensor (T, sites)
    speed : float
        Length per reaction time.
    """

    time: torch.Tensor
    position: torch.Tensor
    u: torch.Tensor
    v: torch.Tensor
    speed: float


def stimulated(
    system: FitzHughNagumoChain,
    excited: Sequence[int],
    refractory: Sequence[int] = (),
    *,
    batch: int = 1,
    u: float = 1.0,
    v: float = 0.5,
) -> State:
    """Rest, but for sites that are excited (u) and sites that cannot be (v): what a stimulus leaves behind.

    Parameters
    ----------
    system : FitzHughNagumoChain
    excited, refractory : sequence of int
        Numbers of sites, row by row. A pulse leaves on the sides of the excited ones that are not refractory.
    batch : int
    u, v : float
        Values of u and v at these sites.

    Returns
    -------
    tuple of Tensor (batch, *grid)
    """
    state = system.initial_state(torch.empty(batch, 0))
    for block, sites, value in zip(state, (excited, refractory), (u, v), strict=True):
        block.view(batch, -1)[:, list(sites)] = value
    return state


def crossing_times(trajectory: Trajectory, level: float = 0.5) -> torch.Tensor:
    """When u first rises through a level at each site, (B, *grid), interpolated; NaN where it does not."""
    u = trajectory.state[0]
    rises = (u[:-1] < level) & (u[1:] >= level)
    row = rises.int().argmax(0)
    before, after = u.gather(0, row[None])[0], u.gather(0, row[None] + 1)[0]
    share = (level - before) / (after - before)
    time = trajectory.time.to(u)
    when = time[row] + share * (time[row + 1] - time[row])
    return torch.where(rises.any(0), when, torch.full_like(when, math.nan))


def pulse_speed(
    trajectory: Trajectory, spacing: float, level: float = 0.5, sites: slice | None = None
) -> torch.Tensor:
    """Speed of a front or pulse along a chain or ring, (B,): least squares of its time of arrival over the sites.

    Parameters
    ----------
    trajectory : Trajectory
        A trajectory with rows that follow closely: times are interpolated linearly.
    spacing : float
        Length from site to site.
    level : float
        Value of u whose first crossing is timed.
    sites : slice, optional
        Sites to time it at; default the middle half.

    Returns
    -------
    Tensor (B,)
        Length per unit of time; negative towards the first site; NaN where it does not reach all these sites.
    """
    if trajectory.state[0].ndim != 3:
        raise argument_error(
            "trajectory", "be that of a chain or ring", f"states of shape {tuple(trajectory.state[0].shape)}"
        )
    n = trajectory.state[0].shape[2]
    arrival = crossing_times(trajectory, level)[:, sites or slice(n // 4, n - n // 4)]
    if arrival.shape[1] < 2:
        raise argument_error("sites", f"be a slice with at least two of {n} sites", sites)
    position = spacing * torch.arange(arrival.shape[1], dtype=arrival.dtype, device=arrival.device)
    position = position - position.mean()
    return position.square().sum() / (position * (arrival - arrival.mean(1, keepdim=True))).sum(1)


def travelling_pulse(
    sites: int = 200,
    *,
    spacing: float = 0.5,
    threshold: float = 0.1,
    leak: float = 1.0,
    tau_v: float = 100.0,
    diffusion_v: float = 0.0,
    duration: float = 200.0,
    rows: int = 400,
) -> TravellingPulse:
    """One pulse around a ring whose v is slow, as the classical FitzHugh-Nagumo nerve has it.

    Parameters
    ----------
    sites : int
    spacing : float
        Lengths count in units in which d_u = 1.
    threshold, leak, tau_v, diffusion_v : float
        Constants of the medium, as in `FitzHughNagumoChain`.
    duration : float
        Duration, in reaction times.
    rows : int
        Times to keep, at least.

    Returns
    -------
    TravellingPulse
    """
    system = FitzHughNagumoChain(
        [1, sites, 1],
        "bistable",
        boundary="periodic",
        diffusion_u=1.0,
        diffusion_v=diffusion_v,
        control=threshold,
        leak=leak,
        tau_v=tau_v,
        spacing=spacing,
    ).double()
    width = max(1, int(STIMULUS / spacing))
    start = stimulated(system, range(width, 2 * width), range(width))
    # Explicit steps are short enough for diffusion; three of four places of its stability limit are left unused.
    every = max(1, math.ceil(duration * (4 / spacing**2 + 2) / 1.5 / rows))
    trajectory = simulate(
        system,
        torch.zeros(1, 1, dtype=torch.float64),
        duration,
        start=start,
        steps=every * rows,
        every=every,
    )
    u, v = (s[:, 0] for s in trajectory.state)
    speed = float(pulse_speed(trajectory, spacing))
    return TravellingPulse(trajectory.time, system.positions()[0], u, v, speed)
