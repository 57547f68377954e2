"""Equilibrium propagation at a temperature: gradients of the mean cost of a noisy system, by averages over noise.

A system that samples exp(-F / T), F = E + beta C, has the free energy A(theta, beta) = -T log int exp(-F / T) ds,
with dA/dbeta = <C> and dA/dtheta = <dE/dtheta>. Its mixed second derivative gives (Scellier and Bengio 2017,
appendix on stochastic systems)

    d<C>/dtheta  =  d/dbeta <dE/dtheta>_beta    at beta = 0 ,

of which a stencil in beta is the estimate, as at rest. It is the exact gradient of the *mean* cost, not of the cost
of the mean state, and tends to EP at rest as T -> 0.

Phases with noise of their own leave the estimate a variance of some T / (beta^2 N), N independent samples, beside a
bias of beta^2 (centered). With the same noise in all phases the difference of their states is a smooth response to
the nudge, and the variance does not depend on beta: some T / N, for as long as the noise does not carry two phases
to different minima.

No average without evidence that the chains are stationary. In a stationary state, whatever the energy, the mean
force on each variable is zero (it is the drift of its mean), the virial <s . dF/ds> = n T holds (it is the drift of
the mean square), and the two halves of the run give the same gradient. All three are judged by their standard
errors over independent chains. Steps that are too long show in the virial.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field, replace

import torch
from scipy.special import stdtrit

from ..blocks import in_dtype, require_finite
from ..cost import Cost, as_targets
from ..dynamics.noise import STOCHASTIC, NoisyTableau
from ..equilibrium import NotFinite, broken_parts
from ..errors import InputError, argument_error, is_real, unknown_name
from ..inference import differentiating, training
from ..nudging import Stencil, centered, scheme_from_name
from ..physical_system import PhysicalSystem, widened
from ..stillness import require_trained
from ..weights import Weights
from .automatic import check_beta
from .chains import Averages, Ensemble, Plan
from .propagation import UnconvergedWarning

METHODS = {name: method for name, method in STOCHASTIC.items() if isinstance(method, NoisyTableau)}
LEAST_CHAINS = 8
FALSE_ALARM = 1e-4
"""Chance that one of the three tests calls stationary chains unsettled."""


class NotStationary(RuntimeError):  # noqa: N818 (as `NotConverged`)
    """Raised when chains are not in their stationary state, or steps are too long for it; `.gradient` is what
    was found.
    """

    def __init__(self, gradient: StochasticGradient) -> None:
        self.gradient = gradient
        super().__init__(
            f"Chains are not stationary: {gradient.evidence}. Try a longer burn_in, a smaller step, or "
            "on_unconverged='warn'."
        )


@dataclass(frozen=True)
class StochasticGradient:
    """Estimate of d<C>/dtheta, averaged over the examples, with its errors and the evidence for it.

    Attributes
    ----------
    gradients, standard_errors : dict
        Parameter name to tensor of its shape. The errors are of the noise; the finite beta's bias is not in them.
    loss, loss_error : float
        Mean cost, averaged over all phases (of a centered scheme: that at beta = 0 up to O(beta^2)).
    temperature, beta : float
    mean_force : float
        Largest |mean force| of a variable over its standard error.
    virial : float
        Largest |<s . dF/ds> / n T - 1| of an example over its standard error.
    virial_ratio : float
        The worst <s . dF/ds> / n T itself: 1 in the stationary state.
    halves : float
        Largest difference of a gradient's entry between the halves of the run, over its standard error.
    limits : tuple of float
        What the three may be, by Student's t and the number of entries.
    """

    gradients: dict[str, torch.Tensor] = field(repr=False)
    standard_errors: dict[str, torch.Tensor] = field(repr=False)
    loss: float
    loss_error: float
    temperature: float
    beta: float
    mean_force: float = 0.0
    virial: float = 0.0
    virial_ratio: float = 1.0
    halves: float = 0.0
    limits: tuple[float, float, float] = (math.inf,) * 3

    @property
    def stationary(self) -> bool:
        """Whether none of the three tests speaks against a stationary state."""
        return all(
            found <= limit
            for found, limit in zip((self.mean_force, self.virial, self.halves), self.limits, strict=True)
        )

    @property
    def evidence(self) -> str:
        """Tell in words the three tests for a stationary state (mean force, virial, halves of the run), each with
        its limit, in standard errors."""
        a, b, c = self.limits
        return (
            f"the mean force is {self.mean_force:.1f} standard errors from zero (limit {a:.1f}), the virial "
            f"{self.virial:.1f} from its value ({self.virial_ratio:.3f} times it; limit {b:.1f}), the halves of "
            f"the run {self.halves:.1f} apart (limit {c:.1f})"
        )


class StochasticEquilibriumPropagation:
    """Gradients of the mean cost of a system at a temperature, from averages along chains of Langevin dynamics.

    Parameters
    ----------
    cost : Cost
    scheme : Stencil or str
        Real and without random signs; `centered()` by default.
    beta : float
        Nudging strength > 0.
    temperature : float, optional
        Temperature, in the system's energy unit. Default the system's own. At 0, EP at rest.
    chains : int
        Independent chains an example and phase; at least 8.
    burn_in, duration : float
        Time that is discarded, and time that is averaged over, in the system's time constants.
    interval : float
        Time between two samples, in time constants.
    step : float
        Time step, in time constants.
    method : str
        A method of `dynamics.noise.STOCHASTIC`, without inertia. 'leimkuhler_matthews' samples a quadratic energy
        without any error of its steps, others up to O(step^2), at one force a step.
    common_noise : bool
        Same noise in all phases.
    on_unconverged : {'raise', 'warn'}
        What to do with chains that are not stationary.
    generator : torch.Generator, optional
        Random generator of the noise. Default: one of the device of the first batch, seeded with 0.

    Raises
    ------
    InputError
        If an argument is not as above.
    """

    def __init__(
        self,
        cost: Cost,
        scheme: Stencil | str | None = None,
        beta: float = 0.1,
        *,
        temperature: float | None = None,
        chains: int = 64,
        burn_in: float = 10.0,
        duration: float = 40.0,
        interval: float = 0.5,
        step: float = 0.05,
        method: str = "leimkuhler_matthews",
        common_noise: bool = True,
        on_unconverged: str = "raise",
        generator: torch.Generator | None = None,
    ) -> None:
        if not isinstance(cost, Cost):
            raise argument_error("cost", "be a Cost, such as SquaredError()", type(cost).__name__)
        scheme = centered() if scheme is None else scheme_from_name(scheme)
        if scheme.analytic or scheme.random:
            raise argument_error("scheme", "be real and draw no signs at a temperature", repr(scheme.name))
        if temperature is not None and not (is_real(temperature) and temperature >= 0):
            raise argument_error("temperature", "be 0 or a positive number", temperature)
        if not isinstance(chains, int) or isinstance(chains, bool) or chains < LEAST_CHAINS:
            raise argument_error("chains", f"be an integer of at least {LEAST_CHAINS}", chains)
        for name, value in (("duration", duration), ("interval", interval), ("step", step)):
            if not (is_real(value) and value > 0):
                raise argument_error(name, "be a positive number", value)
        if not (is_real(burn_in) and burn_in >= 0):
            raise argument_error("burn_in", "be 0 or a positive number", burn_in)
        if not step <= interval <= duration / 2:
            raise argument_error("interval", "lie between step and half the duration", interval)
        if method not in METHODS:
            raise unknown_name("method", method, METHODS)
        if on_unconverged not in ("raise", "warn"):
            raise unknown_name("on_unconverged", on_unconverged, ("raise", "warn"))
        self.temperature = temperature
        self.on_unconverged = on_unconverged
        self.plan = Plan(
            cost=cost,
            scheme=scheme,
            beta=check_beta(beta),
            chains=chains,
            burn_in=burn_in,
            duration=duration,
            interval=interval,
            step=step,
            method=METHODS[method],
            common_noise=common_noise,
            generator=generator,
        )

    @training
    def backward(self, system: PhysicalSystem, x: torch.Tensor, y: torch.Tensor) -> StochasticGradient:
        """Add the estimate to `.grad` of the system's parameters; as `estimate` otherwise."""
        weights = Weights(system)
        with weights:
            found = self._estimate(system, weights, x, y)
            own = dict(system.named_parameters())
        weights.deposit({name: g.to(own[name]) for name, g in found.gradients.items() if name in own})
        return found

    @differentiating
    def estimate(self, system: PhysicalSystem, x: torch.Tensor, y: torch.Tensor) -> StochasticGradient:
        """Estimate the gradient of the mean cost, in float64.

        Parameters
        ----------
        system : EnergySystem or VectorField
            A system of unbounded variables that all descend the energy.
        x : Tensor (B, ...)
        y : Tensor

        Returns
        -------
        StochasticGradient

        Raises
        ------
        NotStationary
            With on_unconverged='raise'.
        NotConverged
            If a phase has no equilibrium at rest, from which the chains start.
        NotFinite
            If the loss or a gradient is NaN or infinite, as where chains have run away.
        InputError
            If an argument does not fit the system.
        """
        weights = Weights(system)
        with weights:
            return self._estimate(system, weights, x, y)

    def _estimate(
        self, system: PhysicalSystem, weights: Weights, x: torch.Tensor, y: torch.Tensor
    ) -> StochasticGradient:
        if system.bounded or not system.descends:
            raise InputError(
                "Argument system must have unbounded variables that descend its energy, for others have no mean "
                f"force of zero, but was a {type(system).__name__}."
            )
        require_trained(system)
        require_finite(system)
        weights.still.check(x)
        temperature = system.temperature if self.temperature is None else self.temperature
        with torch.no_grad():
            weights.constrain()
            y = as_targets(y)
            y = y.double() if y.dtype.is_floating_point else y
            if self.plan.generator is None:
                self.plan = replace(self.plan, generator=torch.Generator(x.device).manual_seed(0))
            plan = self.plan if temperature else replace(self.plan, chains=1)
            ensemble = Ensemble(widened(system), in_dtype(x, torch.float64), y, plan)
            if not temperature:
                return _finite(_at_rest(ensemble))
            found = _finite(_judged(ensemble.averages(float(temperature)), float(temperature), plan.beta))
        if not found.stationary:
            if self.on_unconverged == "raise":
                raise NotStationary(found)
            warnings.warn(f"chains are not stationary: {found.evidence}", UnconvergedWarning, stacklevel=3)
        return found


def _finite(found: StochasticGradient) -> StochasticGradient:
    """What was found; raise `NotFinite` if it holds NaN or infinity, which no warning makes usable."""
    broken = broken_parts(torch.tensor(found.loss), found.gradients)
    if broken:
        raise NotFinite(f"NaN or infinite at temperature {found.temperature:g}: {broken}")
    return found


def _at_rest(ensemble: Ensemble) -> StochasticGradient:
    grads = ensemble.at_rest()
    nothing = {name: torch.zeros_like(g) for name, g in grads.items()}
    loss = float(ensemble.costs(ensemble.start).mean())
    return StochasticGradient(grads, nothing, loss, 0.0, 0.0, ensemble.plan.beta)


def _judged(found: Averages, temperature: float, beta: float) -> StochasticGradient:
    """Means with their standard errors, and what the chains say of their stationarity."""
    chains = len(found.cost)
    groups = len(next(iter(found.gradients.values())))
    ratio = found.virial.mean(1).flatten()
    return StochasticGradient(
        gradients={name: g.mean(0) for name, g in found.gradients.items()},
        standard_errors={name: g.std(0) / math.sqrt(groups) for name, g in found.gradients.items()},
        loss=float(found.cost.mean()),
        loss_error=float(found.cost.std() / math.sqrt(chains)),
        temperature=temperature,
        beta=beta,
        mean_force=_worst(found.force.movedim(1, 0)),
        virial=_worst(found.virial.movedim(1, 0) - 1),
        virial_ratio=float(ratio[(ratio - 1).abs().argmax()]),
        halves=float(torch.tensor([_worst(g) for g in found.halves.values()]).max()),
        limits=(
            _limit(found.force[:, 0].numel(), chains),
            _limit(ratio.numel(), chains),
            _limit(sum(g[0].numel() for g in found.halves.values()), groups),
        ),
    )


def _worst(values: torch.Tensor) -> float:
    """Largest |mean| over its standard error; independent values stand along the first axis."""
    error = values.std(0) / math.sqrt(len(values))
    return float((values.mean(0).abs() / error.clamp_min(torch.finfo(values.dtype).tiny)).max())


def _limit(entries: int, independent: int) -> float:
    """What the largest of so many |t| exceeds by chance with probability `FALSE_ALARM` at most."""
    return -float(stdtrit(independent - 1, FALSE_ALARM / (2 * entries)))
