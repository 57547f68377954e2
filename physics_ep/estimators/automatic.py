"""The nudging strength that beta='auto' takes: from the stability limit, lowered where its bias is too great.

The stability limit bounds the bias of a system that answers linearly to a quadratic cost. Units and devices that
bend add a bias of their own, which the limit does not know; two estimates tell it by their difference (Richardson
1911).
"""

from __future__ import annotations

import math
import warnings
import weakref
from collections.abc import Callable

import torch

from .. import ranks
from ..blocks import narrowed
from ..equilibrium import Equilibrium
from ..errors import argument_error
from ..physical_system import Phase, PhysicalSystem
from ..reads import read
from .contrasts import Recipe, added, contrast, direct_gradient, relax_nudged

AUTO_FRACTION = 0.05
"""beta='auto' is at most this over lambda, the curvature limit."""
TRIALS = 3
"""Strengths that are tried, each by the phases of two estimates."""
SETTLING = 7
"""Strengths, each a tenth of the one before, at which phases may settle."""
TOLD = 10
"""Times the promised bias from which on a warning tells that no lower beta brought it down."""
WORTH = 0.9
"""Share of the bias to which a lower beta must bring it, or it is not taken."""


class BiasWarning(UserWarning):
    """The beta that beta='auto' found leaves far more bias than it promises."""


def check_beta(beta: float | str) -> float:
    """Return beta if it is a positive finite number, else raise InputError."""
    number = isinstance(beta, int | float) and not isinstance(beta, bool)
    if not number or not 0 < float(beta) < math.inf:
        raise argument_error(
            "beta", "be a positive number or 'auto' (the scheme, such as negative(), carries the sign)", repr(beta)
        )
    return float(beta)


def promised_bias(order: int) -> float:
    """Relative bias that an automatic beta is lowered to: 0.05 of a scheme of order 1, 0.0025 of higher ones.

    A linear system at beta lambda = 0.05 has 0.05^p / (1 - 0.05^p), and is left alone.
    """
    leading: float = AUTO_FRACTION ** min(order, 2)
    return leading * (1 + 2 * leading)


def with_bias(beta: float, bias_at: Callable[[float], float]) -> tuple[float, float] | None:
    """The first of beta, beta / 10, ... at which phases settle, so that a bias can be told, and that bias.

    The stability limit is of the free state: what bends on the way may leave no phase at a twentieth of it.

    Returns
    -------
    tuple of float, or None
        None where none of `SETTLING` strengths has a bias.
    """
    for _ in range(SETTLING):
        bias = bias_at(beta)
        if not math.isnan(bias):
            return beta, bias
        beta /= 10
    return None


def with_small_bias(beta: float, order: int, bias_at: Callable[[float], float]) -> tuple[float, float]:
    """Lower beta until its bias is as promised, by the law bias ~ beta^order.

    Parameters
    ----------
    beta : float
        Nudging strength to begin with.
    order : int
        Order of the scheme's error in beta.
    bias_at : callable
        The measured bias at a beta; NaN where it cannot be told, which ends the search once it could.

    Returns
    -------
    tuple of float
        Beta and its bias. Where the promise was not met (kinks, rounding), the last pair whose bias had fallen.
    """
    promise = promised_bias(order)
    best, least = beta, math.nan
    told = with_bias(beta, bias_at)
    if told is None:
        return best, least
    beta, bias = told
    for trial in range(TRIALS):
        bias = bias_at(beta) if trial else bias
        if math.isnan(bias) or bias > WORTH * least:
            break
        best, least = beta, bias
        if bias <= promise:
            break
        beta *= 0.9 * (promise / bias) ** (1 / order)
    return best, least


def measured_bias(
    recipe: Recipe,
    half: Recipe,
    system: PhysicalSystem,
    base: Phase,
    free: Equilibrium,
    x: torch.Tensor,
    y: torch.Tensor,
) -> float:
    """Relative error of the estimate at beta, told by the one at beta / 2, in the worst parameter tensor.

    With g(beta) = g + c beta^p, p the scheme's order, g(beta) - g(beta / 2) is (1 - 2^-p) of the error at beta
    (Richardson 1911). Tensors below sqrt(eps) of the whole gradient are measured against that: they are rounding.

    Parameters
    ----------
    recipe, half : Recipe
        The same but for their beta and tolerance.
    base : Phase
        The phase at the free state, balanced.
    free : Equilibrium
    x, y : Tensor

    Returns
    -------
    float
        NaN where no example has all its phases converged.
    """
    at_beta = relax_nudged(recipe, base, y, None)
    moved = {i: narrowed(found.displacement or (), base.dtype) for i, found in at_beta.items()}
    starts = {i: tuple(0.5 * d for d in blocks) for i, blocks in moved.items()}
    at_half = relax_nudged(half, base, y, None, starts)
    keep = free.converged
    for found in (*at_beta.values(), *at_half.values()):
        keep = keep & found.converged
    (kept,) = read(keep.sum())
    if not kept:
        return math.nan
    weight = keep.to(system.outputs(free.state)) / kept
    whole = kept == len(keep)
    far = contrast(recipe, system, base, free, at_beta, x, None, weight, whole)
    near = contrast(half, system, base, free, at_half, x, None, weight, whole)
    share = 1 - 0.5**recipe.scheme.order
    errors = {name: (far[name] - g) / share for name, g in near.items()}
    exact = {name: far[name] - error for name, error in errors.items()}
    exact = added(exact, direct_gradient(system, free.state, recipe.pull, y, weight))
    misses = torch.stack([torch.linalg.vector_norm(e).double() for e in errors.values()])
    sizes = torch.stack([torch.linalg.vector_norm(exact[name]).double() for name in errors])
    least = math.sqrt(torch.finfo(system.dtype).eps) * torch.linalg.vector_norm(sizes)
    (worst,) = read((misses / torch.maximum(sizes, least).clamp_min(torch.finfo(torch.float64).tiny)).max())
    return float(worst)


def warn_of_bias(
    system: PhysicalSystem, told: weakref.ref[PhysicalSystem] | None, beta: float, bias: float, order: int
) -> weakref.ref[PhysicalSystem] | None:
    """Warn of a bias over `TOLD` times what an automatic beta promises; the system that was last warned of."""
    if not bias > TOLD * promised_bias(order) or (told is not None and told() is system):
        return told
    message = (
        f"beta='auto' takes {beta:.3g}, with a measured error of {bias:.0%} of some parameter tensor's gradient: "
        "kinks near the free state, or rounding, let no smaller beta do better that was tried (`bias`). Set beta, "
        "or look at gradients by a report."
    )
    warnings.warn(message, BiasWarning, stacklevel=8)
    return weakref.ref(system)


def shared_bias(bias: float, device: torch.device) -> float:
    """The largest bias of all ranks, so that they take one beta; NaN if no rank can tell."""
    most = ranks.largest(-1.0 if math.isnan(bias) else bias, device)
    return math.nan if most < 0 else most
