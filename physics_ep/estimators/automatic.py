"""The nudging strength that beta='auto' takes: from the stability limit, lowered where its bias is too great.

The stability limit bounds the bias of a system that answers linearly to a quadratic cost. Units and devices that
bend add a bias of their own, which the limit does not know; two estimates tell it by their difference (Richardson
1911). A kink near the free state, which one nudge crosses and the other does not, leaves the same error at all
strengths beyond it, so that two estimates may agree and be wrong. What tells it is the even part of responses to
opposite nudges: it falls with beta where the system is smooth, and does not where a kink is crossed.
"""

from __future__ import annotations

import math
import warnings
import weakref
from collections.abc import Callable
from typing import NamedTuple

import torch

from .. import ranks
from ..blocks import narrowed
from ..equilibrium import Equilibrium
from ..errors import argument_error
from ..physical_system import Phase, PhysicalSystem
from ..reads import read
from .contrasts import Recipe, added, contrast, direct_gradient, even_part, relax_nudged

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
CROSSED = 6
"""Tenths that are tried below a strength at which kinks are crossed: no law tells how near they are."""
NOISE = 2.0
"""Times the least bias from which on rounding, not kinks, is what a lower beta meets."""


class BiasWarning(UserWarning):
    """The beta that beta='auto' found leaves far more bias than it promises."""


class Bias(NamedTuple):
    """Relative error of an estimate at a finite beta, in the parameter tensor that has the largest.

    Attributes
    ----------
    curved : float
        By what two strengths differ in; NaN where it cannot be told.
    kinked : float
        By kinks that one nudge crosses and the opposite one does not; 0 of schemes without opposite nudges.
    tensor : str
        Name of the parameter.
    """

    curved: float
    kinked: float = 0.0
    tensor: str = ""

    @property
    def whole(self) -> float:
        """Both together."""
        return math.hypot(self.curved, self.kinked)


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


def with_bias(beta: float, bias_at: Callable[[float], Bias]) -> tuple[float, Bias] | None:
    """The first of beta, beta / 10, ... at which phases settle, so that a bias can be told, and that bias.

    The stability limit is of the free state: what bends on the way may leave no phase at a twentieth of it.

    Returns
    -------
    tuple of float and Bias, or None
        None where none of `SETTLING` strengths has a bias.
    """
    for _ in range(SETTLING):
        bias = bias_at(beta)
        if not math.isnan(bias.whole):
            return beta, bias
        beta /= 10
    return None


def with_small_bias(beta: float, order: int, bias_at: Callable[[float], Bias]) -> tuple[float, Bias]:
    """Lower beta until its bias is as promised: by the law bias ~ beta^order, or by tenths where kinks are crossed.

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
    tuple of float and Bias
        Beta and its bias. Where the promise was not met (kinks, rounding), the last pair whose bias had fallen.
    """
    promise = promised_bias(order)
    best, least = beta, Bias(math.nan)
    told = with_bias(beta, bias_at)
    if told is None:
        return best, least
    beta, bias = told
    best, least = beta, bias
    smooth = tenths = 0
    while least.whole > promise:
        if bias.kinked > promise:
            tenths += 1
            if tenths > CROSSED or bias.whole > NOISE * least.whole:
                break
            beta *= 0.1
        else:
            smooth += 1
            if smooth >= TRIALS or bias.whole > least.whole:
                break
            beta *= 0.9 * (promise / bias.whole) ** (1 / order)
        bias = bias_at(beta)
        if math.isnan(bias.whole):
            break
        if bias.whole <= WORTH * least.whole:
            best, least = beta, bias
        elif bias.kinked <= promise:
            break
    return best, least


def measured_bias(
    recipe: Recipe,
    half: Recipe,
    system: PhysicalSystem,
    base: Phase,
    free: Equilibrium,
    x: torch.Tensor,
    y: torch.Tensor,
) -> Bias:
    """Relative error of the estimate at beta, told by the one at beta / 2, in the worst parameter tensor.

    With g(beta) = g + c beta^p, p the scheme's order, g(beta) - g(beta / 2) is (1 - 2^-p) of the error at beta
    (Richardson 1911). Of opposite nudges half the difference h of their one-sided estimates is k + a beta, with k
    the error of a kink that one of them crosses and a what bends: 2 h(beta / 2) - h(beta) is k. A kink that lies
    some way off is seen by both. Tensors below sqrt(eps) of the whole gradient are measured against that: they are
    rounding.

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
    Bias
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
        return Bias(math.nan)
    weight = keep.to(system.outputs(free.state)) / kept
    whole = kept == len(keep)
    far = contrast(recipe, system, base, free, at_beta, x, None, weight, whole)
    near = contrast(half, system, base, free, at_half, x, None, weight, whole)
    share = 1 - 0.5**recipe.scheme.order
    errors = {name: (far[name] - g) / share for name, g in near.items()}
    exact = {name: far[name] - error for name, error in errors.items()}
    exact = added(exact, direct_gradient(system, free.state, recipe.pull, y, weight))
    evens = [
        even_part(way, system, base, free, phases, x, weight, whole, estimate)
        for way, phases, estimate in ((recipe, at_beta, far), (half, at_half, near))
    ]
    even, less = evens
    kinks = {} if even is None or less is None else {name: 2 * h - even[name] for name, h in less.items()}

    def sizes_of(grads: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.stack([torch.linalg.vector_norm(grads[name]).double() for name in errors])

    sizes = sizes_of(exact)
    least = math.sqrt(torch.finfo(system.dtype).eps) * torch.linalg.vector_norm(sizes)
    sizes = torch.maximum(sizes, least).clamp_min(torch.finfo(torch.float64).tiny)
    misses = sizes_of(errors) / sizes
    crossed = sizes_of(kinks) / sizes if kinks else torch.zeros_like(misses)
    worst = torch.hypot(misses, crossed).argmax()
    curved, kinked, at = read(misses[worst], crossed[worst], worst)
    return Bias(float(curved), float(kinked), list(errors)[int(at)])


def warn_of_bias(
    system: PhysicalSystem, told: weakref.ref[PhysicalSystem] | None, beta: float, bias: Bias, order: int
) -> weakref.ref[PhysicalSystem] | None:
    """Warn of a bias over `TOLD` times what an automatic beta promises; the system that was last warned of."""
    if not bias.whole > TOLD * promised_bias(order) or (told is not None and told() is system):
        return told
    why = (
        f"{bias.kinked:.0%} by kinks so near the free state that one nudge crosses them and the other does not, at "
        "all lower betas that were tried"
        if bias.kinked > bias.curved
        else "kinks near the free state, or rounding, let no smaller beta do better that was tried"
    )
    tensor = f"the gradient of {bias.tensor!r}" if bias.tensor else "some parameter tensor's gradient"
    message = (
        f"beta='auto' takes {beta:.3g}, with a measured error of {bias.whole:.0%} of {tensor}: {why} (`bias`). "
        "Set beta, or look at gradients by a report."
    )
    warnings.warn(message, BiasWarning, stacklevel=8)
    return weakref.ref(system)


def shared_bias(bias: Bias, device: torch.device) -> Bias:
    """The largest bias of all ranks, so that they take one beta; NaN if no rank can tell."""
    curved, kinked = (ranks.largest(-1.0 if math.isnan(b) else b, device) for b in (bias.curved, bias.kinked))
    return Bias(math.nan) if curved < 0 else Bias(curved, max(kinked, 0.0), bias.tensor)
