"""A first guess of nudged states: their errors to second order in the nudge, at the price of a sweep; to first
order, at half of it, where that is foreseen to meet the tolerance.

With g_k the errors of a nudge of one to first order, u_k the displacements that they cause, c_k = sigma_k'' da_k,
and r_k and v_k the same to second order (squared energy; all at the free state, so that every nudge shares them)

    u_k = sigma_k' W_k u_{k-1} + g_k                                           da_k = W_k u_{k-1}
    r_{k-1} = W_k^T (sigma_k' r_k + c_k g_k),                                  r_L = -C''(h_L) u_L
    v_k = sigma_k' W_k v_{k-1} + c_k da_k / 2 + r_k

    e_k ~ f_1 beta g_k + f_2 beta^2 r_k

where f_1 and f_2, near 1, an example, leave the least miss m at the outputs. With f_2 = 0 and an f_1 of its own the
first order misses of errors, largest entry over largest entry, about

    rho^2 = (|W_L^T m| / |beta W_L^T g_L|)^2 + (B sum_k beta |c_k g_k| / |sigma_k' g_k|)^2

an example: what the second order would add, but for its products. The first term is that of the layer below the
outputs, in the same measure; the second, of what bends further down, is in Euclidean norms, B = 5/4 times which the
largest entries come to. On networks of two to seven layers of 256 and 512 tanh, GELU, logistic and softplus units
rho was 0.8 to 1.06 times the residual that was found; of few units it may be half of it, and a sweep more is made.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..blocks import tiled
from ..relaxation.solvers import least_squares
from .phase import Blocks, PredictivePhase, part, peak

FORESEEN = 1e-5
"""Least tolerance that errors to first order are tried for: usual nudges leave 1e-4 to 1e-2."""
SURE = 0.95
"""Part of the tolerance that they must be foreseen to meet: one example that they fail costs all a sweep more."""
BENT = 1.25
"""Part of a layer's largest entry that what bends misses, over the same part in Euclidean norms."""


def expands(phase: PredictivePhase) -> bool:
    """Whether the states of a phase have derivatives by the nudge that `expansion` knows."""
    smooth = phase.gates == "held" or phase.system.smooth
    return smooth and not phase.paired and not phase.exact_output and not phase.routing


def expansion(
    phase: PredictivePhase, errors: Blocks, deltas: Blocks, tolerance: float
) -> tuple[Blocks, dict[int, torch.Tensor]]:
    """Errors of all stacked nudges, to the order that they need, and what is known of the forward pass with them.

    An example's order does not depend on the others of its batch. On a device, which would have to be asked, and in
    what is compiled all are of second order.

    Parameters
    ----------
    phase : PredictivePhase
        Nudged.
    errors, deltas : list of Tensor (B, ...)
        g_k, and sigma_k' g_k.
    tolerance : float
        Residual to be met.

    Returns
    -------
    list of Tensor (rows, ...), dict
        e_k, and changes of pre-activations by layer, as `PredictivePhase.forward` takes them.
    """
    assert phase.nudge is not None
    copies, beta = phase.copies, phase.strength()
    u, changes = _displaced(phase, errors)
    bends = [phase.units.curved(k, change) if phase.links(k) else None for k, change in enumerate(changes)]
    # The first layer's displacement is its error, so that what the second feels of it is a sum of known parts.
    second_moves = phase.depth > 1 and bool(phase.links(1))
    first = errors[-1].to(phase.wide)
    alone: tuple[torch.Tensor, torch.Tensor] | None = None  # the factor of the first order, and where it is enough
    if tolerance >= FORESEEN and phase.x.device.type == "cpu" and not torch.compiler.is_compiling():
        asked = beta * tiled(first, copies)
        (factor,), missed = _factors(phase, [asked], [beta * tiled(u, copies)])
        foreseen = part(peak(missed), peak(asked))
        if bool((foreseen <= tolerance).any()):
            foreseen = torch.maximum(foreseen, _below(phase, missed, errors))
            enough = torch.hypot(foreseen, BENT * beta[:, 0] * tiled(_bent(errors, deltas, bends, first), copies))
            alone = factor, (enough <= SURE * tolerance)[:, None]
            if bool(alone[1].all()):
                scale = (beta * factor).to(phase.dtype)
                return each(errors, scale, copies), {
                    1: each([changes[1]], scale, copies)[0]
                } if second_moves else {}
    pull = -phase.nudge.cost.curvature(phase.outputs(), phase.nudge.y[: len(phase.x)], u)
    second = _second_errors(phase, pull, errors, bends)
    halves = [None if c is None else (0.5 * c).mul_(change) for c, change in zip(bends, changes, strict=True)]
    v, others = _displaced(phase, second, halves)

    powers = (beta, beta.square())
    both = [b * tiled(g, copies) for b, g in zip(powers, (first, second[-1].to(phase.wide)), strict=True)]
    moved = [b * tiled(d, copies) for b, d in zip(powers, (u, v), strict=True)]
    factors, _ = _factors(phase, both, moved)
    if alone is not None:
        factor, enough = alone
        ones = factor, torch.zeros_like(factor)
        factors = [torch.where(enough, one, two) for one, two in zip(ones, factors, strict=True)]
    scales = [(b * f).to(phase.dtype) for b, f in zip(powers, factors, strict=True)]
    following = [_sum(scales, pair, copies) for pair in zip(errors, second, strict=True)]
    return following, {1: _sum(scales, (changes[1], others[1]), copies)} if second_moves else {}


def _below(phase: PredictivePhase, missed: torch.Tensor, errors: Blocks) -> torch.Tensor:
    """Largest entry of what layers below the outputs are asked for by `missed`, over that of beta g, (rows,)."""
    beta, copies = phase.strength()[:, 0].abs(), phase.copies
    most = torch.zeros_like(missed[:, 0])
    for source, link, w, route in phase.links(phase.depth - 1):
        asked = peak(link.transpose(w, missed.to(phase.dtype), route))
        most = torch.maximum(most, part(asked.to(most.dtype), beta * tiled(peak(errors[source]), copies)))
    return most


def _bent(errors: Blocks, deltas: Blocks, bends: Sequence[torch.Tensor | None], like: torch.Tensor) -> torch.Tensor:
    """Sum over the layers of |c_k g_k| / |sigma_k' g_k|, (B,): what bends of a nudge of one add to rho."""
    total = like.new_zeros(len(like))
    for bend, g, delta in zip(bends, errors, deltas, strict=True):
        if bend is not None:
            sizes = [torch.linalg.vector_norm(b.flatten(1), dim=1, dtype=like.dtype) for b in (bend * g, delta)]
            total = total + part(*sizes)
    return total


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
        total = phase.units.linear(k, change, error)
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
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Factors, (rows, 1) each, of parts of an output error and displacement: one Gauss-Newton step from 1 for the
    miss at the outputs. Also what is missed with them, as far as that step foresees it, (rows, n_out)."""
    assert phase.nudge is not None
    cost, y, beta = phase.nudge.cost, phase.nudge.y, phase.strength()
    error, output = (parts[0] if len(parts) == 1 else parts[0] + parts[1] for parts in (asked, moved))
    miss = phase.wanted_output(output, error) - error
    there = phase.resting().outputs + output
    slopes = [-beta * cost.curvature(there, y, d) - e for d, e in zip(moved, asked, strict=True)]
    gamma, solved = least_squares(torch.stack(slopes, 1), miss)
    # A correction that is not small is none to a series.
    good = solved & (gamma.abs().amax(1) < 0.5)
    gamma = gamma.masked_fill(~good[:, None], 0.0)
    for n, slope in enumerate(slopes):
        miss = torch.addcmul(miss, gamma[:, n : n + 1], slope, value=-1)
    return list((1 - gamma).split(1, 1)), miss
