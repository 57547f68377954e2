"""Equilibrium propagation as Scellier and Bengio 2017 ran it: phases of a few steps, which do not settle.

States follow projected descent of F = E + beta C (their equation 43),

    s <- project(s - step dF/ds),

all layers at once: from rest with beta = 0, then for as many steps as an error needs to reach the first layer with
a beta whose sign is drawn for each batch. The gradient is (their equation 39)

    dL/dtheta ~ 1/beta [dE/dtheta(nudged) - dE/dtheta(free)].

It tends to EP's one-sided estimate as both phases go on, where the nudged state exists. `sweeping_backward` is what
Scellier 2024 made of it: centered, with sweeps through the layers in the place of steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from hardware_models.layers.layered import Layered, LayeredPhase, LayeredSystem
from physics_ep.blocks import State
from physics_ep.cost import Cost, SquaredError, costs, fitted_targets
from physics_ep.errors import InputError, argument_error, is_real, require_count
from physics_ep.weights import Weights

from .exact_training import ExactStep, described


def brief_backward(cost: Cost, beta: float, free: int, nudged: int, step: float) -> Callable[..., ExactStep]:
    """A `backward(system, x, y)` that fills `.grad` by phases of so many steps.

    The sign of the nudge is + where the classes of a batch have an even sum and - elsewhere: as good as a coin
    where batches are shuffled, and the same again where a training goes on from its run file.

    Parameters
    ----------
    cost : Cost
    beta : float
        Strength of the nudge.
    free, nudged : int
        Steps of the two phases.
    step : float
        Size of a step, in time constants of the units.

    Returns
    -------
    callable
        It raises an InputError on a system that is not layered.

    Raises
    ------
    InputError
        If an argument is not as above.
    """
    require_count("free", free)
    require_count("nudged", nudged)
    for name, value in (("beta", beta), ("step", step)):
        if not (is_real(value) and value > 0):
            raise argument_error(name, "be a positive number", value)

    def backward(system: Layered, x: torch.Tensor, y: torch.Tensor) -> ExactStep:
        if not isinstance(system, Layered):
            raise InputError(f"Argument system must be a layered network, but was {type(system).__name__}.")
        with torch.no_grad():
            clamped = system.prepare(x).cache
            settled = system.initial_state(x)
            for _ in range(free):
                settled = _stepped(system, settled, clamped, step)
            outputs = system.outputs(settled)
            target = fitted_targets(cost, outputs, y)
            classes = target.argmax(1) if target.is_floating_point() else target
            signed = beta if int(classes.sum()) % 2 == 0 else -beta
            state = settled
            for _ in range(nudged):
                pull = -signed * cost.gradient(system.outputs(state), target)
                state = _stepped(system, state, clamped, step, pull)
            moved = tuple(s - s0 for s, s0 in zip(state, settled, strict=True))
            weight = torch.full_like(outputs[:, 0], 1 / (signed * len(x)))
            Weights(system).deposit(system.contrast(settled, moved, None, x, weight))
        return ExactStep(loss=costs(cost, outputs, target).mean(), outputs=outputs)

    told = f"phases of {free} and {nudged} steps of {step:g} at beta {beta:g}, cost {cost.name}"
    return described(backward, told)


def sweeping_backward(cost: Cost, beta: float, sweeps: int) -> Callable[..., ExactStep]:
    """A `backward(system, x, y)` that fills `.grad` by centered EP with phases of so many sweeps (Scellier 2024).

    A sweep sets one layer after the other, from the first to the outputs, to its minimum, the others held. The free
    phase starts at 0, both nudged ones where it ends. How near phases come to rest is not looked at.

    Parameters
    ----------
    cost : Cost
        A quadratic one, the squared error, towards which outputs are pulled by beta.
    beta : float
        Strength of the nudge.
    sweeps : int
        Sweeps of each of the three phases.

    Returns
    -------
    callable
        It raises an InputError on a system that is not layered or whose outputs are not linear.

    Raises
    ------
    InputError
        If an argument is not as above.
    """
    require_count("sweeps", sweeps)
    if not (is_real(beta) and beta > 0):
        raise argument_error("beta", "be a positive number", beta)
    if not isinstance(cost, SquaredError):
        raise argument_error("cost", "be the squared error", type(cost).__name__)

    def backward(system: LayeredSystem, x: torch.Tensor, y: torch.Tensor) -> ExactStep:
        if not isinstance(system, LayeredSystem) or not all(math.isinf(end) for end in system.bounds[-1]):
            was = type(system).__name__
            raise InputError(f"Argument system must be a layered network with linear outputs, but was {was}.")
        with torch.no_grad():
            phase, free = system.phase(system.prepare(x)), system.initial_state(x)
            assert isinstance(phase, LayeredPhase)
            load = _curvature(system, free, x)
            free = _swept(phase, free, sweeps, load, 0.0, None)
            outputs = system.outputs(free)
            target = fitted_targets(cost, outputs, y)
            ends = [_swept(phase, free, sweeps, load, sign * beta, target) for sign in (1, -1)]
            up, down = (tuple(s - s0 for s, s0 in zip(end, free, strict=True)) for end in ends)
            weight = torch.full_like(outputs[:, 0], 1 / (2 * beta * len(x)))
            Weights(system).deposit(system.contrast(free, up, down, x, weight))
        return ExactStep(loss=costs(cost, outputs, target).mean(), outputs=outputs)

    return described(backward, f"centered phases of {sweeps} sweeps at beta {beta:g}, cost {cost.name}")


def _curvature(system: LayeredSystem, state: State, x: torch.Tensor) -> torch.Tensor:
    """Of the energy in each output, the others held."""
    found = system.curvature_diagonal(state, x)
    assert found is not None
    return found[-1]


def _swept(
    phase: LayeredPhase, state: State, sweeps: int, load: torch.Tensor, beta: float, target: torch.Tensor | None
) -> State:
    """The state so many sweeps on; outputs of curvature `load` are pulled to a target by beta, if one is given."""
    found = list(state)
    for _ in range(sweeps):
        for k in range(len(found)):
            found[k] = phase.update(k, found)
        if target is not None:
            # The pull joins the curvature that answers the drive: (drive + beta y) / (load + beta).
            found[-1] = (load * found[-1] + beta * target) / (load + beta)
    return tuple(found)


def _stepped(
    system: Layered, state: State, clamped: torch.Tensor, step: float, pull: torch.Tensor | None = None
) -> State:
    """The state a step on; `clamped` drives the first layer from the input, `pull` the last one by a nudge."""
    drives = list(system.drives(state, clamped))
    if pull is not None:
        drives[-1] = drives[-1] + pull
    moved = (s + step * (p - unit.inverse(s)) for s, p, unit in zip(state, drives, system.units, strict=True))
    return tuple(s.clamp(low, high) for s, (low, high) in zip(moved, system.bounds, strict=True))
