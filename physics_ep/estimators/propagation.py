"""Equilibrium propagation as a `backward`: the physics settles, is nudged, settles again, and `.grad` is filled."""

from __future__ import annotations

import math
import warnings
import weakref
from dataclasses import replace
from typing import Any

import torch

from .. import ranks
from ..blocks import is_dense, masked
from ..compiling import CHOICES, compiling, hindrance
from ..cost import Cost, as_cost, as_targets, costs, fitted_targets, require_own
from ..energies import outputs_of
from ..equilibrium import Equilibrium, NotConverged, NotFinite, OtherBranch, Status, broken_parts
from ..errors import InputError, argument_error, described, require_count, unknown_name
from ..inference import differentiating, training
from ..landscape.branches import check_branches, is_minimum
from ..landscape.exploration import mean_outputs, repeated
from ..landscape.stability import curvature_limit
from ..nudging import Nudge, Stencil, centered, scheme_from_name
from ..physical_system import Phase, PhysicalSystem
from ..reads import Surprise, assuming, likely, read
from ..relaxation.loop import (
    NOTICED,
    check_cost,
    check_outputs,
    check_strength,
    new_phase,
    of_finite_weights,
    prepared,
    require_digits,
    solve,
)
from ..stillness import require_system, require_trained
from ..weights import Weights
from .automatic import AUTO_FRACTION, Bias, check_beta, measured_bias, shared_bias, warn_of_bias, with_small_bias
from .contrasts import (
    Recipe,
    added,
    contrast,
    direct_gradient,
    input_contrast,
    mirror_gap,
    noise_floors,
    relax_nudged,
    surely_finite,
)
from .methods import MethodChoice, check_droop, of_stable, require_invariant, require_settling
from .mirrored import check_opposite, odd_part
from .step import Step, warn_of_input

ON_UNCONVERGED = ("raise", "skip", "warn")
BRANCHES = ("check", "ignore")
WARY = 100
"""Steps that read all they look at on a device (`reads`), after one that had to be done twice."""

LOOK_EVERY = 20
"""Steps between looks at all weights for NaN and infinity; of more, as many gradients may be wrong unseen."""


class UnconvergedWarning(UserWarning):
    """Warns that a state was used that is no equilibrium, as on_unconverged='warn' asks."""


class NegativeNudgeError(InputError):
    """Raised when the negative nudge is stronger than the measured stability limit, so that F = E + beta C has
    no minimum.
    """


class EquilibriumPropagation:
    """Gradients of the mean cost by equilibrium propagation (Scellier and Bengio 2017).

    Parameters
    ----------
    cost : Cost or callable
        A function of (outputs, y) is taken as a `FunctionCost`.
    scheme : Stencil or str
        `centered()` by default: its error is O(beta^2).
    beta : float or 'auto'
        Nudging strength > 0. 'auto' takes 0.05 / lambda, lambda the largest response of the outputs to a force
        on them, weighted by the largest curvature of the cost, measured on the first batch and every
        `measure_every` steps; less where that would move small hidden activities too far (`Phase.mobility`), or
        where the bias so measured exceeds 0.05 (schemes of order 1) or 0.0025 (higher ones) of any parameter
        tensor's gradient: see `bias`.
    solver, tolerance, max_iterations
        For `relax`; None is the system's default. Nudged phases are held to tolerance * min(1, beta).
    on_unconverged : {'raise', 'skip', 'warn'}
        What to do with examples of which a phase is no equilibrium: raise `NotConverged`, leave them out of the
        mean and count them, or use them with a warning. States, costs and gradients that are NaN or infinite are
        never used: 'raise' raises `NotFinite` where a cost or a gradient is so, 'skip' and 'warn' leave the example
        out, or the batch where the examples cannot be told apart.
    starts : int
        Free phases an example. With more than one, each is from a `system.random_state` and may end in another
        equilibrium; gradient, loss and outputs are means over those that converged.
    branches : {'check', 'ignore'}, optional
        Whether to check that free states are minima and that nudged states continue them as the nudge grows
        (`physics_ep.landscape.branches`); others count as unconverged. It takes some tens of Hessian products a
        step, more for examples that answer beyond a linear response. Default: for multistable systems with a smooth
        energy and minima. Complex nudges are not followed.
    generator : torch.Generator, optional
        For random starts and for schemes that draw signs (a CPU generator); default one seeded with 0.
    measure_every : int
        Steps between measurements of the stability limit. A negative nudge is refused from beta * lambda = 1 on;
        where it comes within a factor of two of the limit, it is measured at every step. As often, and on the
        first batch, the residual of a free phase that is solved by construction is measured; steps in between
        have the status `BY_CONSTRUCTION`.
    compile : {'off', 'auto'}
        With 'auto', torch.compile fuses what phases compute between two reads of the host, where the system has
        such functions (predictive coding networks) and torch.compile a compiler; a warning says where not. Numbers
        change by rounding, and the first steps take seconds more. Not yet measured on a GPU.
    method : {'energy', 'vector-field', 'asymmetric', 'dyadic', 'auto'}, optional
        What nudged phases follow (`physics_ep.estimators.methods`). Default: the system's, 'energy' where there is
        one. 'auto' measures the asymmetry of the force every `measure_every` steps, and takes 'energy' if that is
        rounding, else 'asymmetric'; a `VectorField` that reads rounding is measured at every step.
        With an energy J is symmetric, and 'asymmetric' does the same as 'energy'.
    droop : float
        Share of itself that a stored free state loses between the first nudged phase and the second, to simulate
        what a leaking store costs 'asymmetric': an error that grows as 1 / beta.
    opposite : {'relaxed', 'mirrored'}
        What stands under -beta in a centered scheme: a phase of its own, or the mirror image of the other's, at
        five passes for seven and a difference of O(beta^2) (`physics_ep.estimators.mirrored`).
    **options
        Further arguments of the system's phases, such as gates='held' or 'live' of a predictive coding network.

    Notes
    -----
    The free state's displacements are carried, and the contrast is taken in them (`EnergySystem.contrast`). Where
    outputs depend on parameters themselves, the cost's derivative at fixed state is added.
    """

    def __init__(
        self,
        cost: Cost,
        scheme: Stencil | str | None = None,
        beta: float | str = 0.1,
        solver: str | None = None,
        tolerance: float | None = None,
        max_iterations: int | None = None,
        on_unconverged: str = "raise",
        *,
        starts: int = 1,
        branches: str | None = None,
        generator: torch.Generator | None = None,
        measure_every: int = 200,
        compile: str = "off",
        method: str | None = None,
        droop: float = 0.0,
        opposite: str = "relaxed",
        **options: Any,
    ) -> None:
        cost = as_cost(cost)
        if on_unconverged not in ON_UNCONVERGED:
            raise unknown_name("on_unconverged", on_unconverged, ON_UNCONVERGED)
        require_count("starts", starts)
        if compile not in CHOICES:
            raise unknown_name("compile", str(compile), CHOICES)
        if branches not in (None, *BRANCHES):
            raise unknown_name("branches", str(branches), BRANCHES)
        self.cost = cost
        self.pull = cost
        """What nudged phases add to the energy: the cost, but for rules that are no gradient of it."""
        self.scheme = centered() if scheme is None else scheme_from_name(scheme)
        if cost.positive_only is not None and self.scheme.has_negative:
            must = f"be 'positive' under the cost {cost.name!r}: {cost.positive_only}"
            raise argument_error("scheme", must, repr(self.scheme.name))
        self.auto = beta == "auto"
        self.beta = math.nan if self.auto else check_beta(beta)
        self.solver = solver
        self.tolerance = tolerance
        self.max_iterations = max_iterations
        self.on_unconverged = on_unconverged
        self.starts = starts
        self.branches = branches
        self.generator = torch.Generator().manual_seed(0) if generator is None else generator
        self.measure_every = measure_every
        self.compile = compile
        self.method = method
        self.choice = MethodChoice(method, self.scheme, measure_every)
        self.droop = check_droop(droop)
        self.opposite = check_opposite(opposite, self.scheme, cost)
        self.options = options
        self.stability_limit = math.inf
        """Largest |beta| of a negative nudge, 1 / lambda, as last measured."""
        self.bias = math.nan
        """Relative error that beta='auto' leaves in the parameter tensor that has the largest, as last measured.

        It is above 0.0025 (0.05 of schemes of order 1) where kinks or rounding let no smaller beta do better. Kinks
        that one nudge alone crosses are seen by opposite ones. NaN where it is not measured: beta was given; the
        system or its readings are noisy or coarse; displacements answer linearly, where lambda bounds the bias.
        """
        self._told: weakref.ref[PhysicalSystem] | None = None
        self._measured: tuple[Any, int] | None = None
        self._constructed: tuple[Any, int, torch.Tensor] | None = None
        """The system whose free phase is solved by construction, steps since it was measured, and the residual."""
        self._looked: tuple[Any, list[int], list[int], int] | None = None
        """The system whose weights were finite, their versions, how these changed last, steps since the look."""
        self._tried: set[int] = set()  # sizes of batches in which the cost of an example was its own
        self._broadcast: Any = None
        self._wary = 0
        """Steps for which nothing is assumed on a device."""

    def __repr__(self) -> str:
        beta = "auto" if self.auto else f"{self.beta:g}"
        return f"EquilibriumPropagation({type(self.cost).__name__}(), {self.scheme.name}, beta={beta})"

    @training
    def backward(
        self,
        system: PhysicalSystem,
        x: torch.Tensor,
        y: torch.Tensor,
        *,
        sync: bool = True,
        input_gradient: bool = False,
    ) -> Step:
        """Add the EP estimate of the gradient of the mean cost to `.grad` of the system's parameters.

        Parameters are first put into their physical range (`EnergySystem.constrain`). Gradients arrive where
        autograd would put them: uses of a tied parameter are summed, weights that are parametrised or pruned by
        `torch.nn.utils` hand theirs to what they are computed from, and hooks of tensors are called. Hooks of
        modules that are not called are refused.

        Parameters
        ----------
        system : EnergySystem or VectorField
        x : Tensor (B, ...)
        y : Tensor
            Targets, as the cost takes them.
        sync : bool
            Under torch.distributed, reduce `.grad` over the ranks (False to accumulate first).
        input_gradient : bool
            Also estimate dC/dx of the mean cost, for an encoder in front: `Step.input_gradient`. If x requires a
            gradient, it is handed on as by autograd: into `x.grad`, and into the encoder's parameters. Without it,
            an x that requires a gradient gets none, with a warning.

        Returns
        -------
        Step

        Raises
        ------
        NotConverged
            With on_unconverged='raise'.
        NegativeNudgeError
            If the scheme nudges negatively beyond the stability limit.
        InputError
            If an argument does not fit the system.
        """
        require_system(system)
        if input_gradient and not (isinstance(x, torch.Tensor) and x.is_floating_point()):
            was = x.dtype if isinstance(x, torch.Tensor) else type(x).__name__
            raise argument_error("input_gradient", "be False for an x that is not floating point", was)
        y = as_targets(y)
        if not is_dense(x) or not x.ndim:
            raise argument_error("x", "be a tensor (batch, ...)", described(x))
        given, x = x, x.detach()
        weights, grads, step = self._gradient(system, x, y, sync, input_gradient)
        if step.skipped < len(x):
            with weights:
                weights.still.update(tuple(s[: len(x)] for s in step.equilibria[0].state), x)
        weights.deposit(grads)
        if not input_gradient:
            warn_of_input(given)
        elif given.requires_grad:
            torch.autograd.backward(given, step.input_gradient)
        return step

    def _gradient(
        self, system: PhysicalSystem, x: torch.Tensor, y: torch.Tensor, sync: bool, input_gradient: bool = False
    ) -> tuple[Weights, dict[str, torch.Tensor], Step]:
        """The estimate by names of the weights, before any of it is given to parameters."""
        if ranks.is_distributed() and (self._broadcast is None or self._broadcast() is not system):
            ranks.broadcast_parameters(system)
            self._broadcast = weakref.ref(system)
        if not input_gradient:
            require_trained(system)
        weights = Weights(system)
        with torch.no_grad(), weights:
            weights.still.check(x)
            weights.still.renew()
            weights.constrain()  # an optimizer that knows no bounds may have left them
            grads, step, used = self._estimate(system, weights, x, y, input_gradient)
        if sync and ranks.is_distributed():
            everyone = ranks.total(float(used), system.device)
            for g in grads.values():
                g.mul_(used / max(everyone, 1.0))
            if step.input_gradient is not None:
                step.input_gradient.mul_(used / max(everyone, 1.0))
            ranks.all_reduce(grads)
        return weights, grads, step

    def _estimate(
        self, system: PhysicalSystem, weights: Weights, x: torch.Tensor, y: torch.Tensor, input_gradient: bool
    ) -> tuple[dict[str, torch.Tensor], Step, int]:
        """The estimate with as few waits for a device as may be; where something unlikely is met, once more without
        haste."""
        self._wary -= 1
        if system.device.type == "cpu" or self._wary >= 0 or (ranks.is_distributed() and self._measures(system)):
            return self._estimate_once(system, weights, x, y, input_gradient)
        known = self.beta, self.bias, self.stability_limit, self._measured, self._constructed, self._looked
        draws = self.generator.get_state() if self.starts > 1 or self.scheme.random else None
        try:
            with assuming():
                return self._estimate_once(system, weights, x, y, input_gradient)
        except Surprise:
            self._wary = WARY
            self.beta, self.bias, self.stability_limit, self._measured, self._constructed, self._looked = known
            if draws is not None:
                self.generator.set_state(draws)
        return self._estimate_once(system, weights, x, y, input_gradient)

    def _estimate_once(
        self, system: PhysicalSystem, weights: Weights, x: torch.Tensor, y: torch.Tensor, input_gradient: bool
    ) -> tuple[dict[str, torch.Tensor], Step, int]:
        """The estimate, compiled where that is asked for and can be had."""
        if self.compile == "off":
            return self._estimate_plainly(system, weights, x, y, input_gradient)
        reason = hindrance(system.device)
        if reason is None:
            with compiling() as calls:
                found = self._estimate_plainly(system, weights, x, y, input_gradient)
            if calls:
                return found
            reason = f"{type(system).__name__} has nothing that can be compiled"
        else:
            found = self._estimate_plainly(system, weights, x, y, input_gradient)
        self.compile = "off"
        warnings.warn(f"compile='auto' compiles nothing, since {reason}.", UserWarning, stacklevel=5)
        return found

    def _estimate_plainly(
        self, system: PhysicalSystem, weights: Weights, x: torch.Tensor, y: torch.Tensor, input_gradient: bool
    ) -> tuple[dict[str, torch.Tensor], Step, int]:
        self.check(system)
        examples = x.shape[0]
        start = None
        if self.starts > 1:
            system.check_input(x)
            x, y = repeated(x, self.starts), repeated(y, self.starts)
            start = system.random_state(x, self.generator)
        inputs = prepared(system, x, self.options)
        free = solve(
            system.phase(inputs),
            solver=self.solver,
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
            start=start,
            measure=self._due(system),
        )
        free = self._of_finite_weights(system, weights, self._with_residual(system, free))
        with torch.enable_grad():
            outputs = outputs_of(system, free.state)
        direct = outputs.requires_grad  # the state does not: outputs that do depend on parameters themselves
        outputs = outputs.detach()
        check_outputs(system, outputs, len(x))
        y = fitted_targets(self.cost, outputs[:examples], y[:examples])
        if examples not in self._tried:
            require_own(self.cost, outputs[:examples], y)
            self._tried.add(examples)
        y = repeated(y, self.starts) if self.starts > 1 else y
        if direct and self.pull.holds:
            raise InputError(
                f"Argument system must have outputs without parameters of their own for {type(self).__name__}, "
                f"whose rule is no gradient, but was a {type(system).__name__}, whose outputs depend on some."
            )
        if self.on_unconverged == "raise":
            require_settling(system, free, inputs, self.options)
        self._refuse(free, "The free phase")
        base = new_phase(system, inputs, self.options, origin=free.state, balanced=True)
        base, eigenvalue = self.choice.displaced(system, base)
        if eigenvalue is not None:
            require_invariant(system, free.state, self.cost, y)
            free = self._of_stable(system, free, eigenvalue)
        free = self._measure(system, base, free, inputs.x, y)
        check_strength(self.beta * max(abs(n) for n in self.scheme.nodes), base.dtype)

        signs = None
        if self.scheme.random:
            draw = torch.randint(0, 2, (x.shape[0],), generator=self.generator)
            signs = (2 * draw - 1).to(outputs)
        recipe = self._recipe(base, self.beta)
        phases = relax_nudged(recipe, base, y, signs)
        for i, found in phases.items():
            self._refuse(found, self._name(i))
            if self.beta < NOTICED * base.nudge_scale:
                require_digits(base.nudged(recipe.nudge(i, y, signs)), found)
        each_cost = costs(self.cost, outputs, y)
        checks = self._checks(system)
        used, whole = examples, True
        if self.on_unconverged == "raise" and not checks:  # all that was found has converged
            keep = torch.ones(len(outputs), dtype=torch.bool, device=outputs.device)
            weight = torch.full_like(each_cost, 1 / (examples * self.starts), dtype=outputs.dtype)
        else:
            keep = torch.stack([found.converged for found in (free, *phases.values())]).all(0)
            free, phases, unstable, switched = self._on_branch(system, x, y, base, free, phases, signs, keep)
            keep = self._usable(keep & ~unstable & ~switched, each_cost, (free, *phases.values()))
            each = keep.view(self.starts, examples).sum(0)
            if self.on_unconverged != "raise":
                found_used, kept_states = read((each > 0).sum(), keep.sum())
                used, whole = int(found_used), kept_states == len(keep)
            weight = keep.to(outputs) / (max(used, 1) * each.clamp_min(1)).to(outputs).repeat(self.starts)
        loss = ((each_cost if whole else each_cost.masked_fill(~keep, 0.0)) * weight).sum()
        grads = contrast(recipe, system, base, free, phases, x, signs, weight, whole)
        if direct:
            kept = masked(free.state, None if whole else keep)
            grads = added(grads, direct_gradient(system, kept, self.cost, y, weight))
        at_input = None
        if input_gradient:
            each_x = input_contrast(recipe, system, base, free, phases, x, signs, weight, whole)
            at_input = each_x.unflatten(0, (self.starts, examples)).sum(0)
        parts = grads if at_input is None else {**grads, "the input": at_input}
        small = (
            not direct and at_input is None and surely_finite(system, x, free, phases.values(), recipe.beta, grads)
        )
        if not used or not self._finite(system, loss, parts, free, small):
            at_input = None if at_input is None else torch.zeros_like(at_input)
            grads = {name: torch.zeros_like(g) for name, g in grads.items()}
            loss, keep, used = torch.full_like(loss, math.nan), torch.zeros_like(keep), 0
        lost = read(switched.sum(), unstable.sum()) if checks else (0, 0)
        versions = weights.versions()

        def unchanged() -> None:
            if versions != weights.versions():
                raise RuntimeError("A step's errors must be read before the parameters change: ask before step().")

        def floors() -> dict[str, float]:
            unchanged()
            with weights:
                return noise_floors(recipe, system, x, y, (free, phases), signs, weight, grads)

        def leakage() -> float:
            unchanged()
            with torch.no_grad(), weights:
                return mirror_gap(recipe, base, y, phases)

        step = Step(
            loss=loss,
            outputs=mean_outputs(system, outputs, keep, self.starts),
            equilibria=(free, *phases.values()),
            beta=self.beta,
            method=self.choice.choice.method,
            asymmetry=self.choice.choice.asymmetry,
            skipped=examples - used,
            _floors=floors,
            _leakage=leakage,
            used=keep,
            switched=int(lost[0]),
            unstable=int(lost[1]),
            input_gradient=at_input,
        )
        return grads, step, used

    def _due(self, system: PhysicalSystem) -> bool:
        """Whether the residual of a free phase that is solved by construction is to be measured now."""
        if self._constructed is None:
            return True
        known, age, _ = self._constructed
        return known() is not system or age >= self.measure_every

    def _with_residual(self, system: PhysicalSystem, free: Equilibrium) -> Equilibrium:
        """The free phase; with the last measurement of the residual where it is solved by construction."""
        if free.status is not Status.BY_CONSTRUCTION:
            if free.status is Status.CONVERGED:
                self._constructed = (weakref.ref(system), 1, free.residual.max())
            return free
        assert self._constructed is not None
        known, age, residual = self._constructed
        self._constructed = (known, age + 1, residual)
        return replace(free, residual=free.residual + residual.to(free.residual))

    def _of_finite_weights(self, system: PhysicalSystem, weights: Weights, free: Equilibrium) -> Equilibrium:
        """The free phase, which is no equilibrium where a weight is not finite.

        A look at all weights costs up to 5 % of a step of few examples. They are looked at in the first step, every
        `LOOK_EVERY` steps, and where their versions changed in another way than before, as by hand.
        """
        versions, change, age = weights.versions(), [], LOOK_EVERY
        if self._looked is not None and self._looked[0]() is system:
            _, before, usual, age = self._looked
            change = [now - then for now, then in zip(versions, before, strict=False)]
            age = age if change == usual or not any(change) else LOOK_EVERY
            change = change if any(change) else usual
        if age < LOOK_EVERY:
            self._looked = weakref.ref(system), versions, change, age + 1
            return free
        found = of_finite_weights(weights, free)
        self._looked = (weakref.ref(system), versions, change, 1) if found.status.settled else None
        return found

    def _usable(self, keep: torch.Tensor, costs: torch.Tensor, phases: tuple[Equilibrium, ...]) -> torch.Tensor:
        """Which states (N * B,) give a gradient, of those to `keep` since all their phases have converged.

        With 'warn', all that are finite.
        """
        if self.on_unconverged == "raise":
            return torch.ones_like(keep)
        finite = costs.isfinite()
        if self.on_unconverged == "skip":
            return keep & finite
        for found in phases:
            finite = finite & found.residual.isfinite()
        left = int((~finite).sum())
        if left:
            message = f"{left} of {len(finite)} states or costs are NaN or infinite, and were left out"
            warnings.warn(message, UnconvergedWarning, stacklevel=5)
        return finite

    def _finite(
        self,
        system: PhysicalSystem,
        loss: torch.Tensor,
        grads: dict[str, torch.Tensor],
        free: Equilibrium,
        small: bool,
    ) -> bool:
        """Whether loss and gradients are finite, in one look; if not, apply `on_unconverged`.

        `small`: the gradients are known to be finite.
        """
        broken = broken_parts(loss, {} if small else grads)
        if not broken:
            return True
        message = f"NaN or infinite at beta {self.beta:g}: {broken} of {type(system).__name__}"
        if self.on_unconverged == "raise":
            raise NotFinite(message, free)
        if self.on_unconverged == "warn":
            warnings.warn(f"{message}; the batch was left out", UnconvergedWarning, stacklevel=5)
        return False

    def check(self, system: PhysicalSystem) -> None:
        """Raise an error unless the scheme, the method and the cost fit this system.

        Raises
        ------
        InputError
            If the scheme, the method or the cost does not fit the system.
        """
        if self.scheme.analytic and not system.analytic:
            raise InputError(
                f"Argument scheme must not be {self.scheme.name!r} for {type(system).__name__}: complex nudges "
                "need an analytic energy with complex states. Use 'centered'."
            )
        self.choice.check(system)
        check_cost(system, self.cost)

    def _of_stable(self, system: PhysicalSystem, free: Equilibrium, eigenvalue: torch.Tensor) -> Equilibrium:
        """The free phase, of which states count as no equilibria that the system leaves by itself."""
        stable, error = of_stable(system, free, eigenvalue)
        if error is not None and self.on_unconverged == "raise":
            raise error
        if error is not None and self.on_unconverged == "warn":
            warnings.warn(str(error), UnconvergedWarning, stacklevel=5)
        return stable

    def _checks(self, system: PhysicalSystem) -> bool:
        """Whether branches are checked."""
        smooth = system.smooth and system.descends and system.directions is None
        asked = system.multistable and smooth if self.branches is None else self.branches == "check"
        return asked and not self.pull.holds

    def _on_branch(
        self,
        system: PhysicalSystem,
        x: torch.Tensor,
        y: torch.Tensor,
        base: Phase,
        free: Equilibrium,
        phases: dict[int, Equilibrium],
        signs: torch.Tensor | None,
        found: torch.Tensor,
    ) -> tuple[Equilibrium, dict[int, Equilibrium], torch.Tensor, torch.Tensor]:
        """The phases with their final status; which free states are no minima, which nudged ones left their branch.

        Only states that were `found` (B,) are looked at.
        """
        nothing = torch.zeros_like(found)
        settled = all(phase.status.settled for phase in (free, *phases.values()))
        if not self._checks(system) or not (settled or bool(found.any())):
            return free, phases, nothing, nothing
        nodes = [i for i in phases if complex(self.scheme.nodes[i]).imag == 0]
        nudges = []
        for i in nodes:
            strength = self.beta * complex(self.scheme.nodes[i]).real
            nudges.append(Nudge(self.pull, y, strength if signs is None else strength * signs))
        moved = [masked(phases[i].displacement, found) for i in nodes]
        checks = check_branches(system, x, free.state, nudges, moved, base=base.single, only=found, **self.options)
        unstable = found & ~is_minimum(base, base.start())[0]
        if not likely(~unstable.any()):
            free = replace(free, status=Status.UNSTABLE)
            self._refuse(free, "The free phase", unstable)
        switched = nothing
        phases = dict(phases)
        for i, check in zip(nodes, checks, strict=True):
            left = check.switched & ~unstable
            if not likely(~left.any()):
                phases[i] = replace(phases[i], status=Status.SWITCHED)
                self._refuse(phases[i], self._name(i), left)
            switched = switched | left
        return free, phases, unstable, switched

    def _name(self, i: int) -> str:
        return f"The phase nudged by {self.beta * self.scheme.nodes[i]:+.3g}"

    def _refuse(self, found: Equilibrium, phase: str, rows: torch.Tensor | None = None) -> None:
        """Apply `on_unconverged` to one phase, or to the rows (B,) of it that EP cannot use."""
        if found.status.settled or self.on_unconverged == "skip":
            return
        error = NotConverged(found, phase) if rows is None else OtherBranch(found, phase, rows)
        if self.on_unconverged == "raise":
            raise error
        warnings.warn(str(error), UnconvergedWarning, stacklevel=5)

    def _measures(self, system: PhysicalSystem) -> bool:
        """Whether the stability limit is to be measured now, if any is asked for."""
        known, age = (None, 0) if self._measured is None else self._measured
        due = known is None or known() is not system or age >= self.measure_every
        return due or self.beta > 0.5 * self.stability_limit

    def _recipe(self, base: Phase, beta: float) -> Recipe:
        tolerance = None if self.tolerance is None else self.tolerance * base.tolerance_share(beta)
        pull = odd_part(self.pull, base) if self.opposite == "mirrored" else self.pull
        most, options = self.max_iterations, self.options
        return Recipe(self.scheme, pull, beta, self.solver, tolerance, most, options, self.choice, self.droop)

    def _measure(
        self, system: PhysicalSystem, base: Phase, free: Equilibrium, x: torch.Tensor, y: torch.Tensor
    ) -> Equilibrium:
        """Measure the stability limit when due; set an automatic beta; refuse a negative nudge beyond the limit.

        Where branches are checked, each example is judged by itself, and the softest does not speak for the batch.
        The free phase is given back, as no equilibrium of any example where nothing tells the limit.
        """
        checked = self._checks(system)
        if not (self.auto or (self.scheme.has_negative and not checked)):
            return free
        age = 0 if self._measured is None else self._measured[1]
        if self._measures(system):
            if math.isnan(self.beta):
                self.beta = AUTO_FRACTION * base.nudge_scale  # until it is measured
            if not free.status.settled and not bool(free.converged.any()):
                return free  # no example gives a gradient in this step
            try:
                curvature = curvature_limit(
                    system, base, free, self.cost, y, solver=self.solver, anywhere=self.auto
                )
            except NotConverged as error:
                if self.on_unconverged == "raise" or isinstance(error, NotFinite):
                    raise
                return replace(free, residual=torch.full_like(free.residual, math.inf), status=Status.STALLED)
            if not math.isfinite(curvature):
                raise NotFinite(f"The curvature of the cost {self.cost.name!r} is {curvature}", free)
            curvature = ranks.largest(curvature, system.device)  # one beta for all ranks
            self.stability_limit = 1 / curvature if curvature > 0 else math.inf
            age = 0
            if self.auto:
                self.beta = AUTO_FRACTION * (self.stability_limit if curvature > 0 else base.nudge_scale)
                moved = ranks.largest(base.mobility(self.cost, y), system.device)
                if curvature * moved > 0:
                    self.beta = min(self.beta, AUTO_FRACTION / math.sqrt(curvature * moved))
                self._lower(system, base, free, x, y)
        self._measured = (weakref.ref(system), age + 1)
        if self.scheme.has_negative and not checked and self.beta >= self.stability_limit:
            raise NegativeNudgeError(
                f"Argument beta must be below {self.stability_limit:.3g}, where the system nudged by -beta loses "
                f"its minimum (measured: 1 / lambda), but was {self.beta:g}. Lower it, or use beta='auto'."
            )
        return free

    def _lower(
        self, system: PhysicalSystem, base: Phase, free: Equilibrium, x: torch.Tensor, y: torch.Tensor
    ) -> None:
        """Lower an automatic beta until the measured bias is as promised, where contrasts tell it."""
        self.bias = math.nan
        if self.pull.holds or not base.tells_bias(self.pull, y):
            return

        def bias_at(beta: float) -> Bias:
            check_strength(beta * max(abs(n) for n in self.scheme.nodes), base.dtype)
            recipes = self._recipe(base, beta), self._recipe(base, beta / 2)
            return shared_bias(measured_bias(*recipes, system, base, free, x, y), system.device)

        order = self.scheme.order
        self.beta, found = with_small_bias(self.beta, order, bias_at)
        self.bias, self._told = found.whole, warn_of_bias(system, self._told, self.beta, found, order)


@differentiating
def estimate_gradient(
    ep: EquilibriumPropagation, system: PhysicalSystem, x: torch.Tensor, y: torch.Tensor
) -> tuple[dict[str, torch.Tensor], Step]:
    """EP's gradient by parameter name, before any hook and leaving `.grad` as it was; also the `Step`."""
    weights, grads, step = ep._gradient(system, x, as_targets(y), sync=False)
    weights.check(grads)
    return weights.leaves(grads), step
