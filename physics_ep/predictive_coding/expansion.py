"""A first guess of nudged states: their errors to second order in the nudge, at the price of a sweep.

With g_k the errors of a nudge of one to first order, u_k the displacements that they cause, c_k = sigma_k'' da_k,
and r_k and v_k the same to second order (squared energy; all at the free state, so that every nudge shares them)

    u_k = sigma_k' W_k u_{k-1} + g_k                                           da_k = W_k u_{k-1}
    r_{k-1} = W_k^T (sigma_k' r_k + c_k g_k),                                  r_L = -C''(h_L) u_L
    v_k = sigma_k' W_k v_{k-1} + c_k da_k / 2 + r_k

    e_k ~ f_1 beta g_k + f_2 beta^2 r_k

where f_1 and f_2, near 1, an example, leave the least miss at the outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..blocks import tiled
from ..relaxation.solvers import least_squares
from .phase import Blocks, PredictivePhase


def expands(phase: PredictivePhase) -> bool:
    """Whether the states of a phase have derivatives by the nudge that `expansion` knows."""
    smooth = phase.gates == "held" or phase.system.smooth
    return smooth and not phase.paired and not phase.exact_output and not phase.routing


def expansion(phase: PredictivePhase, errors: Blocks) -> tuple[Blocks, dict[int, torch.Tensor]]:
    """Errors of all stacked nudges to second order, and what is known of the forward pass with them.

    Parameters
    ----------
    phase : PredictivePhase
        Nudged.
    errors : list of Tensor (B, ...)
        g_k.

    Returns
    -------
    list of Tensor (rows, ...), dict
        e_k, and changes of pre-activations by layer, as `PredictivePhase.forward` takes them.
    """
    assert phase.nudge is not None
    copies, beta = phase.copies, phase.strength()
    u, changes = _displaced(phase, errors)
    bends = [phase.units.curved(k, change) if phase.links(k) else None for k, change in enumerate(changes)]
    pull = -phase.nudge.cost.curvature(phase.outputs(), phase.nudge.y[: len(phase.x)], u)
    second = _second_errors(phase, pull, errors, bends)
    halves = [None if c is None else (0.5 * c).mul_(change) for c, change in zip(bends, changes, strict=True)]
    v, others = _displaced(phase, second, halves)

    powers = (beta, beta.square())
    asked = [b * tiled(g[-1].to(phase.wide), copies) for b, g in zip(powers, (errors, second), strict=True)]
    moved = [b * tiled(d, copies) for b, d in zip(powers, (u, v), strict=True)]
    scales = [(b * f).to(phase.dtype) for b, f in zip(powers, _factors(phase, asked, moved), strict=True)]
    following = [_sum(scales, pair, copies) for pair in zip(errors, second, strict=True)]
    # The first layer's displacement is its error, so that what the second feels of it is a sum of known parts.
    second_moves = phase.depth > 1 and bool(phase.links(1))
    return following, {1: _sum(scales, (changes[1], others[1]), copies)} if second_moves else {}


def scaled(phase: PredictivePhase, errors: Blocks) -> tuple[Blocks, dict[int, torch.Tensor]]:
    """The displacements of `expansion`, to first order."""
    copies, beta = phase.copies, phase.strength()
    change = None if phase.routing or phase.depth == 1 else phase.change(1, errors[:1])
    known = {} if change is None else {1: each([change], beta, copies)[0]}
    return each(errors, beta, copies), known


def each(blocks: Blocks, scale: torch.Tensor, copies: int) -> Blocks:
    """Blocks of one batch at the strength of each stacked nudge."""
    return [_times(scale.to(b.dtype), b, copies).flatten(0, 1) for b in blocks]


def _times(scale: torch.Tensor, block: torch.Tensor, copies: int) -> torch.Tensor:
    """Scale (rows,) or (rows, 1) times a block of one batch, (copies, B, ...)."""
    return scale.view(copies, -1, *[1] * (block.ndim - 1)) * block


def _sum(scales: list[torch.Tensor], blocks: tuple[torch.Tensor, torch.Tensor], copies: int) -> torch.Tensor:
    total = _times(scales[0], blocks[0], copies)
    return total.addcmul_(scales[1].view(copies, -1, *[1] * (blocks[1].ndim - 1)), blocks[1]).flatten(0, 1)


def _displaced(
    phase: PredictivePhase, errors: Blocks, more: Sequence[torch.Tensor | None] | None = None
) -> tuple[torch.Tensor, Blocks]:
    """Displacement of the outputs by errors at the free state's slopes (and `more` of each layer), and da_k."""
    moved: Blocks = []
    changes: Blocks = []
    for k, error in enumerate(errors):
        change = phase.change(k, moved)
        if change is None:
            moved.append(error)
            changes.append(error)  # stands for nothing: the pre-activation of a layer on the input does not change
            continue
        total = phase.units.slope_times(k, change) + error
        extra = None if more is None else more[k]
        moved.append(total if extra is None else total.add_(extra))
        changes.append(change)
    return moved[-1].to(phase.wide), changes


def _second_errors(
    phase: PredictivePhase, output: torch.Tensor, errors: Blocks, bends: Sequence[torch.Tensor | None]
) -> Blocks:
    """r_k of all layers for that of the output layer."""
    found: Blocks = [torch.empty(0)] * phase.depth
    found[-1] = output.to(phase.dtype)
    reached = {phase.depth - 1}
    for k in range(phase.depth - 1, 0, -1):
        delta = phase.units.answer(k, found[k], None)[1]
        bend = bends[k]
        if bend is not None:
            delta = delta.addcmul(bend, errors[k])
        for source, link, w, route in phase.links(k):
            back = link.transpose(w, delta, route)
            found[source] = found[source] + back if source in reached else back
            reached.add(source)
    return found


def _factors(
    phase: PredictivePhase, asked: list[torch.Tensor], moved: list[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """(f_1, f_2), (rows, 1) each: one Gauss-Newton step from 1 for the miss at the outputs."""
    assert phase.nudge is not None
    cost, y, beta = phase.nudge.cost, phase.nudge.y, phase.strength()
    error, output = asked[0] + asked[1], moved[0] + moved[1]
    miss = phase.wanted_output(output, error) - error
    there = phase.resting()[0] + output
    slopes = [-beta * cost.curvature(there, y, d) - e for d, e in zip(moved, asked, strict=True)]
    gamma, solved = least_squares(torch.stack(slopes, 1), miss)
    # A correction that is not small is none to a series.
    good = solved & (gamma.abs().amax(1) < 0.5)
    factors = torch.where(good[:, None], 1 - gamma, torch.ones_like(gamma))
    return factors[:, :1], factors[:, 1:]
