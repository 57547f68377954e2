"""The best nudging strength under read noise: where the bias of EP and the noise that it amplifies are equally bad.

With centered nudging and smooth units, relative to the exact gradient (docs/physics.md, Noise and the best beta),

    bias = b beta^2        variance = V / beta^2        mean squared error = b^2 beta^4 + V / beta^2

the last of which is least at beta* = (V / (2 b^2))^(1/6). The laws hold for beta lambda < 0.1, lambda the response
at whose inverse the phase nudged negatively loses its equilibrium; both are fitted there, the bias without noise.
The read noise of a repeat is the same at all betas (a controlled variate), so that slopes and the place of the
minimum are known far better than the errors themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from physics_ep.cost import Cost
from physics_ep.errors import REPEATS, InputError, argument_error, require_count
from physics_ep.estimators.automatic import AUTO_FRACTION, check_beta
from physics_ep.estimators.propagation import NegativeNudgeError
from physics_ep.nudging import Stencil, scheme_from_name
from physics_ep.progress import SILENT, Progress, task

from ..agreement import Tally
from ..sweeps.points import drawing, exact, standard_mapper

FIT_LIMIT = 0.1
"""Largest beta lambda of the fits."""
FIT_POINTS = 4
NOISES = ("read_noise", "slow_noise", "conductance_noise")
"""Fields of `DeviceModel` that differ from phase to phase."""


@dataclass(frozen=True, eq=False)
class BetaChoice:
    """Bias and noise of the estimate over beta, and the beta at which their sum is least.

    Attributes
    ----------
    betas, squared_errors : ndarray (N,)
        Grid, and mean |g - g*|^2 / |g*|^2 over the repeats there, bias and noise together; NaN from the stability
        limit on.
    fit_betas, biases, variances : ndarray (M,)
        Betas of the fits; |g - g*| / |g*| without noise; variance / |g*|^2 with it.
    bias_coefficient, variance_coefficient : float
        b and V.
    bias_exponent, variance_exponent : float
        Slopes in log-log, which theory says are 2 and -2 (of a scheme of order n: n and -2).
    predicted : float
        beta* of the fits.
    measured : float
        The grid's best beta, refined by a parabola in log beta.
    stability_limit : float
        1 / lambda, the largest beta that a negative nudge may have; less where beta='auto' is kept smaller for
        other reasons.
    """

    betas: np.ndarray
    squared_errors: np.ndarray
    fit_betas: np.ndarray
    biases: np.ndarray
    variances: np.ndarray
    bias_coefficient: float
    variance_coefficient: float
    bias_exponent: float
    variance_exponent: float
    predicted: float
    measured: float
    stability_limit: float

    def figures(self) -> dict[str, Any]:
        """The choice's figures as `--json` writes them."""
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in vars(self).items()}


def best_beta(
    net: Any,
    x: torch.Tensor,
    y: torch.Tensor,
    cost: Cost,
    betas: Sequence[float] | None = None,
    *,
    substrate: str = "hopfield",
    device: Any = None,
    seed: int = 0,
    repeats: int = 16,
    scheme: Stencil | str | None = None,
    gates: str = "held",
    mapper: Callable[..., Any] | None = None,
    progress: Progress | bool = SILENT,
    **options: Any,
) -> BetaChoice:
    """Predict the best beta of a noisy substrate from fits at small betas, and find it on a grid.

    Parameters
    ----------
    net : PredictiveCodingNetwork or Mapped
        A network, to be mapped with the device; or a mapped one, whose device, seed, substrate and gates are taken.
    x, y : Tensor
        Batch, targets as the cost takes them. x also calibrates the full scales.
    cost : Cost
    betas : sequence of float, optional
        Grid; default: 9 from a quarter of the prediction to four times it.
    substrate, device, gates
        The arguments of `map_pcn`; the device must have read noise or conductance noise.
    seed : int
        Seed of the device instance and its reads.
    repeats : int
        Draws of the noise, at least 2.
    scheme, **options
        Further arguments of `EquilibriumPropagation`. Schemes that draw signs have noise of their own and are
        refused.
    mapper : callable, optional
        Function that replaces `hardware_models.map_pcn`.
    progress : Progress or bool
        Told after each beta of the grid.

    Returns
    -------
    BetaChoice
        Errors are those to the instance's own network (feedforward): static errors of the devices are no part of
        this balance.

    Raises
    ------
    InputError
        If an argument is not as above, or no beta of the grid is below the stability limit.

    Notes
    -----
    The equilibria must be more exact than the bias that is fitted, some 1e-4: work in float64, or pass `tolerance`.
    """
    if hasattr(net, "perturbed"):
        given = net
        net, substrate, device, seed = given.network, given.substrate, given.device, given.seed
        gates = getattr(given.system, "gates", gates)
    if device is not None and not all(hasattr(device, name) for name in NOISES):
        raise argument_error("device", "be a DeviceModel", type(device).__name__)
    if device is None or not any(getattr(device, name) > 0 for name in NOISES):
        raise argument_error(
            "device", f"have {' or '.join(NOISES)} above 0", "none" if device is None else "without"
        )
    require_count("repeats", repeats, 2, REPEATS)
    chosen = scheme_from_name("centered" if scheme is None else scheme)
    if chosen.random:
        raise argument_error("scheme", "be one that draws no signs", repr(chosen.name))
    grid = None if betas is None else [check_beta(beta) for beta in betas]
    if grid is not None and len(set(grid)) < 3:
        raise argument_error("betas", "be at least three numbers", grid)
    build = standard_mapper() if mapper is None else mapper

    def mapped(own: Any) -> Any:
        return build(net, substrate=substrate, device=own, seed=seed, calibration=x, gates=gates)

    noisy, quiet = mapped(device), mapped(device.replace(**dict.fromkeys(NOISES, 0.0)).without_idle())
    target = exact(quiet.perturbed, x, y, cost)
    limit = _stability_limit(quiet, x, y, cost, options)
    fit = FIT_LIMIT * limit * 2.0 ** np.arange(1 - FIT_POINTS, 1)

    def tally(subject: Any, beta: float, draws: int) -> tuple[Tally, float]:
        found, errors = Tally(), []
        for r in range(draws):
            reads = drawing(seed, r, "reads", x.device)
            estimate, _ = subject.estimate(x, y, cost, scheme=scheme, beta=beta, reads=reads, **options)
            errors.append(found.add(_vector(estimate, target), _vector(target, target))[1])
        return found, float(np.mean(np.square(errors)))

    biases = np.array([tally(quiet, float(beta), 1)[0].bias for beta in fit])
    variances = np.array([tally(noisy, float(beta), repeats)[0].variance for beta in fit])
    b, bias_exponent = _power_law(fit, biases, chosen.order)
    v, variance_exponent = _power_law(fit, variances, -2)
    if abs(variance_exponent + 2) > 0.2:
        raise InputError(
            "Argument device must have noise of readings (read_noise), whose variance falls as 1 / beta^2, but the "
            f"measured one goes as beta^{variance_exponent:.2f}: noise of shared cells is not amplified."
        )
    # Of b^2 beta^(2 n) + V / beta^2, with n the scheme's order.
    predicted = (v / (chosen.order * b**2)) ** (1 / (2 * chosen.order + 2))
    if grid is None:
        grid = list(predicted * np.geomspace(0.25, 4, 9))
    grid = sorted(set(grid))
    squared = np.full(len(grid), math.nan)
    with task(progress, "best beta", len(grid)) as advance:
        for k, beta in enumerate(grid):
            try:
                squared[k] = tally(noisy, beta, repeats)[1]
            except NegativeNudgeError:
                break
            advance(1, beta=beta)
    if np.isnan(squared[0]):
        raise argument_error("betas", f"have some below the stability limit, {limit:.3g}", grid)
    return BetaChoice(
        betas=np.array(grid),
        squared_errors=squared,
        fit_betas=fit,
        biases=biases,
        variances=variances,
        bias_coefficient=b,
        variance_coefficient=v,
        bias_exponent=bias_exponent,
        variance_exponent=variance_exponent,
        predicted=float(predicted),
        measured=_minimum(np.array(grid), squared),
        stability_limit=limit,
    )


def _stability_limit(mapped: Any, x: torch.Tensor, y: torch.Tensor, cost: Cost, options: dict[str, Any]) -> float:
    """1 / lambda at least: what beta='auto' is a twentieth of."""
    _, step = mapped.estimate(x, y, cost, beta="auto", **options)
    return float(step.beta) / AUTO_FRACTION


def _vector(gradient: dict[str, torch.Tensor], like: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([gradient[name].reshape(-1) for name in like])


def _power_law(betas: np.ndarray, values: np.ndarray, exponent: float) -> tuple[float, float]:
    """Coefficient for the exponent that theory gives, and the exponent that a fit in log-log gives."""
    if not (values > 0).all():
        raise InputError("Bias and variance must be above rounding to be fitted: work in float64, or nudge more.")
    logs, slope = np.log(values), np.polyfit(np.log(betas), np.log(values), 1)[0]
    return float(np.exp((logs - exponent * np.log(betas)).mean())), float(slope)


def _minimum(betas: np.ndarray, errors: np.ndarray) -> float:
    """The beta of the least error, by a parabola through the three points around the least one, in log-log."""
    best = int(np.nanargmin(errors))
    if best in (0, len(betas) - 1) or np.isnan(errors[best + 1]):
        return float(betas[best])
    place = slice(best - 1, best + 2)
    logs = np.log(betas[place])
    curvature, slope, _ = np.polyfit(logs - logs[1], np.log(errors[place]), 2)
    return float(betas[best] * math.exp(-slope / (2 * curvature)))
