"""What every physical system is asked for, `PhysicalSystem`, and one relaxation of it, `Phase`.

A system has an energy (`physics_ep.system.EnergySystem`) or a force alone (`physics_ep.vector_field.VectorField`).
Everything else is common to both, and stands here: states, bounds, inputs, units, scales, phases.

Conventions
-----------
* A state is a tuple of tensors (B, ...), one a block (layer, species).
* Block k moves by tau_k ds_k/dt = S_k force_k, with S_k = +1 or -1 (`PhysicalSystem.directions`). The force is
  -dE/ds where there is an energy; its Jacobian is then symmetric, which that of ds/dt need not be.
* A contrast between phases is the EP estimate: of dE/dtheta at fixed state, or of the force's work.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import nn

from .blocks import (
    State,
    all_finite,
    derivative,
    exactly_finite_rows,
    in_dtype,
    largest,
    narrowed,
    twice_differentiable,
)
from .cost import Cost
from .energies import energies, outputs_of
from .equilibrium import Equilibrium, Status
from .errors import InputError, argument_error, described
from .jacobians import difference_asymmetry
from .keywords import answering
from .nudging import Nudge
from .overrides import PHYSICS, declaring, fitted
from .placement import first_tensor
from .scales import measured_scales, undeclared


@dataclass(frozen=True)
class Inputs:
    """An input and what a system computes from it once for all phases (`PhysicalSystem.prepare`).

    Attributes
    ----------
    x : Tensor (B, ...)
    cache : object
        What `prepare` computes.
    kept : dict
        What phases find of the system on their way, to share it: it lives as long as they do.
    """

    x: torch.Tensor
    cache: Any = None
    kept: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)


class PhysicalSystem(nn.Module):
    """A physical system that equilibrium propagation trains: it has an energy, or a force alone.

    Each attribute has a default. Override it on the class or on the instance.

    Attributes
    ----------
    residual_scale : float
        The force that counts as 1 in `Equilibrium.residual`, in `residual_unit`. A system that does not set it is
        judged by a scale of its own, example by example: its largest force at the initial and at one random state
        (`physics_ep.scales`), so that the units of its energy do not matter.
    residual_unit : str
        SI unit of the force, or 'state units'.
    energy_meaning : str
        What the number `energy` is, in words: a circuit's is no energy that it takes.
    state_unit, energy_unit, time_unit : str
        Units of the state, of the energy and of time in `simulate`.
    time_constant : float
        Time in which the fastest part of the system moves by itself, in `time_unit`: default steps count in it.
    time_constants : tuple of float or None
        tau_k of each block in tau_k ds_k/dt = -dE/ds_k, in `time_unit` state units^2 per energy unit. None: ones.
    temperature : float
        T of `simulate` where none is given, in `energy_unit` (Boltzmann's constant in it); 0 for no noise.
    nudge_scale : float
        Nudging strength that counts as 1, in the unit of the energy over that of the cost: tolerances are held to
        beta / nudge_scale. Measured too, where a system does not set it.
    default_solver : str
        What `solver=None` means: 'gradient_flow', 'coordinate' or 'anderson'.
    joint_solvers : dict of str to callable, or None
        Solvers for the two states of dyadic EP on a system with an energy; the first serves where another was asked
        for. None: Newton's method by products, 'newton_krylov'.
    default_max_iterations : int
    default_oracle : str
        The exact gradient that EP on this system is judged by.
    default_method : str
        What `method=None` of `EquilibriumPropagation` means.
    has_dyadic : bool
        Whether dyadic EP can nudge it: not where a unit is a pair of states already.
    analytic : bool
        Whether the energy is analytic in the state and accepts complex states.
    smooth : bool
        Whether the energy is smooth and the variables unbounded, so that a stencil reaches its declared order.
    descends : bool
        Whether equilibria are minima that relaxation approaches from above (not so for skew-gradient systems).
    directions : tuple of int or None
        One number a block, the signature S: +1 if it follows its force (descends an energy), -1 if it moves against
        it (ascends, as in skew-gradient systems). None: all follow it.
    relative_residual : bool
        Whether residuals of nudged phases are over the size of the nudge itself. Tolerances then hold at any beta.
    noisy : bool
        Whether each nudged phase has noise of its own, and the free one none.
    example_shape : tuple of int or None
        Shape of an example's input; None: any, and of any dtype.
    angles : bool
        Whether outputs are angles in radians, as costs on phases take them.
    multistable : bool
        Whether an input may have many equilibria, so that a nudged phase may end on another branch than the free
        one: EP then checks that it has not.
    bounded : bool
        Whether `project` does anything. A class with a `project` of its own is bounded unless it says otherwise.
    bilinear : bool
        Whether the contrast is a sum of products of two numbers of states and inputs, so that its size is bounded
        by theirs: EP then need not look at every entry of the gradient to know that it is finite.
    clamps : bool
        Whether its phases can hold the outputs in the place of a nudge (`CoupledLearning`). A class with a `phase`
        of its own can, unless it or an ancestor says otherwise.
    feedforward : bool
        Whether the free state is a forward pass, which `system(x)` computes as autograd can follow it: backprop
        then gives its exact gradient. A class with a `forward` of its own has one unless it says otherwise.
    fast_methods_hold : bool or tuple of str
        Said in the body of a subclass that overrides energy, force, outputs, bounds, start or `prepare` of a system
        with fast methods (a phase with exact updates, a contrast in closed form): True, or the names of those that
        still describe it. A subclass that does not say so is relaxed and contrasted by the general methods, which
        follow what it overrides. It is not inherited.
    overridden : tuple of str
        Methods because of which fast ones were replaced by general ones; set for each class.
    """

    residual_scale: float = 1.0
    residual_unit: str = "state units"
    state_unit: str = "state units"
    energy_unit: str = "energy units"
    energy_meaning: str = "what the system descends, in units of the model; no joules"
    time_unit: str = "time constants"
    time_constant: float = 1.0
    time_constants: tuple[float, ...] | None = None
    temperature: float = 0.0
    nudge_scale: float = 1.0
    default_solver: str = "gradient_flow"
    joint_solvers: Mapping[str, Callable[[Phase, State], Any]] | None = None
    default_max_iterations: int = 2000
    default_oracle: str = "implicit"
    default_method: str = "energy"
    has_dyadic: bool = True
    analytic: bool = False
    smooth: bool = True
    descends: bool = True
    directions: tuple[int, ...] | None = None
    relative_residual: bool = False
    noisy: bool = False
    example_shape: tuple[int, ...] | None = None
    angles: bool = False
    multistable: bool = False
    bounded: bool = False
    bilinear: bool = False
    clamps: bool = False
    feedforward: bool = False
    fast_methods_hold: bool | tuple[str, ...] = False
    overridden: tuple[str, ...] = ()
    unscaled: frozenset[str] = frozenset()
    """Scales that the class does not declare, and that phases measure."""
    contract: type[PhysicalSystem]
    """Class that says what the system is, with general methods: `EnergySystem` or `VectorField`."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            cls.__init__ = answering(cls.__init__, cls.__name__)  # type: ignore[method-assign]
        # What a system is, with an energy or with a force, is a class of its own right above this one.
        cls.contract = root = cls.__mro__[cls.__mro__.index(PhysicalSystem) - 1]
        if cls is root:
            return
        lineage = cls.__mro__[: cls.__mro__.index(root)]
        for flag, method in (("bounded", "project"), ("feedforward", "forward")):
            nearest = next((c for c in lineage if method in vars(c) or flag in vars(c)), None)
            if nearest is not None and flag not in vars(nearest):
                setattr(cls, flag, True)
        own_phase = any("phase" in vars(c) for c in lineage)
        if own_phase and not any("clamps" in vars(c) for c in lineage):
            cls.clamps = True
        replaced = fitted(cls, root)
        cls.overridden = tuple(dict.fromkeys((*cls.overridden, *replaced)))
        # Of an energy that a subclass has overridden, scales of its ancestors say nothing.
        cls.unscaled = undeclared(declaring(cls, root, ("energy", "force")) or lineage)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in PHYSICS and callable(value) and hasattr(type(self), name):
            raise InputError(
                f"Argument {name} of a {type(self).__name__} must be overridden by a subclass, but was set on an "
                "instance: its phases and its copies in float64 would not follow it."
            )
        super().__setattr__(name, value)

    # -- required ---------------------------------------------------------------------------------------------

    def force(self, state: State, x: torch.Tensor) -> State:
        """Force on each block, in its shape: block k moves by tau_k ds_k/dt = S_k force_k."""
        raise NotImplementedError

    def slope(self, state: State, x: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """-force of each block, as autograd can follow it to the state and to the parameters; None: zero."""
        raise NotImplementedError

    def law(self, state: State, x: torch.Tensor) -> object:
        """What says how the system behaves, evaluated once: its energy, or its force."""
        raise NotImplementedError

    def initial_state(self, x: torch.Tensor) -> State:
        """State from which a free phase starts."""
        raise NotImplementedError

    def outputs(self, state: State) -> torch.Tensor:
        """Outputs (B, n_out), on which the cost acts.

        They are linear in the state, up to an offset, but for systems whose phases know their
        `Phase.curvature_limit`, or whose branches are checked. They may depend on parameters themselves (a trained
        readout): gradients then have the cost's derivative at fixed state in them.
        """
        raise NotImplementedError

    # -- optional ---------------------------------------------------------------------------------------------

    def scores(self, outputs: torch.Tensor) -> torch.Tensor:
        """Scores (B, n_classes) of outputs (B, n_out); the largest names the class. Default: the outputs."""
        return outputs

    def project(self, state: State) -> State:
        """Nearest state within the bounds of the variables. Default: no bounds."""
        return state

    def energy(self, state: State, x: torch.Tensor) -> torch.Tensor:
        """Energy of each example, (B,); NaN where a system has none."""
        return state[0].new_full(state[0].shape[:1], math.nan)

    def free_variables(self, state: State, x: torch.Tensor) -> State | None:
        """Masks of the variables that bounds do not hold at an equilibrium (None: all are free).

        Default: of systems with bounds, those that `project` lets follow the force.
        """
        if not self.bounded:
            return None
        with torch.no_grad():
            force = self.force(state, x)
            force = self.following(force)
            moved = self.project(tuple(s + f for s, f in zip(state, force, strict=True)))
            eps = torch.finfo(state[0].dtype).eps
            masks = []
            for s, f, m in zip(state, force, moved, strict=True):
                rounding = 16 * eps * (s.abs() + f.abs())
                masks.append((m - s - f).abs() <= rounding)
            return tuple(masks)

    def curvature_diagonal(self, state: State, x: torch.Tensor) -> State | None:
        """Positive estimate of the diagonal of d2E/ds2, to precondition linear solves (None: ones)."""
        return None

    def following(self, force: State) -> State:
        """Tell which way variables move under a force, or which force moves them so: blocks that ascend flip it."""
        if self.directions is None:
            return force
        return tuple(way * f for f, way in zip(force, self.directions, strict=True))

    def random_state(self, x: torch.Tensor, generator: torch.Generator) -> State:
        """A random state from which a free phase may start.

        Default: `initial_state` with normal noise of one state unit, within bounds. Drawn in float64 on the CPU,
        so that a seed means the same in any dtype and on any device.

        Parameters
        ----------
        x : Tensor (B, ...)
        generator : torch.Generator
            Random generator on the CPU, or on the device of x.
        """
        start, place = self.initial_state(x), generator.device
        noise = (torch.randn(s.shape, generator=generator, dtype=torch.float64, device=place).to(s) for s in start)
        return self.project(tuple(s + r for s, r in zip(start, noise, strict=True)))

    def symmetries(self, state: State) -> tuple[State, ...]:
        """Directions along which the energy never changes, whatever the input; none by default.

        A common rotation of all phases is one. Curvature along them is zero and says nothing of stability. They
        must be linearly independent, and hold for every example.
        """
        return ()

    def difference(self, one: State, other: State) -> State:
        """The change that leads from `other` to `one`, less what makes no difference: the `symmetries`.

        Systems whose states repeat (angles) give the smallest one.
        """
        change = tuple(a - b for a, b in zip(one, other, strict=True))
        directions = self.symmetries(other)
        if not directions:
            return change
        whole = torch.cat([c.flatten(1) for c in change], 1)
        columns = [torch.cat([b.flatten(1) for b in direction], 1) for direction in directions]
        basis = torch.linalg.qr(torch.stack(columns, 2).to(whole))[0]
        whole = whole - (basis @ (basis.mT @ whole[:, :, None]))[:, :, 0]
        parts = whole.split([c[0].numel() for c in change], 1)
        return tuple(p.view_as(c) for p, c in zip(parts, change, strict=True))

    def prepare(self, x: torch.Tensor) -> Inputs:
        """Check x and compute what all phases share (a clamped drive, say)."""
        self.check_input(x)
        return Inputs(x)

    def check_input(self, x: torch.Tensor) -> None:
        """Raise InputError if x is no input of this system."""
        shape, found = self.example_shape, described(x)
        if not isinstance(found, tuple) or len(found) < 2 or (shape is not None and x.shape[1:] != shape):
            sides = "..." if shape is None else ", ".join(map(str, shape))
            raise argument_error("x", f"be a tensor (batch, {sides}){_layout(shape, found)}", found)
        if shape is not None and x.dtype != self.dtype:
            raise argument_error("x", f"have the system's dtype {self.dtype}", x.dtype)
        if not len(x):
            raise argument_error("x", "hold at least one example", f"of shape {tuple(x.shape)}")
        if not all_finite(x):
            raise argument_error("x", "be finite", "NaN or infinite entries")

    def phase(self, inputs: Inputs, origin: State | None = None, balanced: bool = False) -> Phase:
        """Relaxation problem of this system; see `Phase`."""
        return Phase(self, inputs, origin, balanced)

    def solvers(self, phase: Phase) -> Mapping[str, Callable[[Phase, State], Any]] | None:
        """Solvers by name that settle a phase of this system, for systems that have their own.

        None (the default) means the general ones of `physics_ep.relaxation.loop.SOLVERS`.
        """
        return None

    def motion(self, phase: Phase) -> Any:
        """The `Motion` by which a phase of this system moves in time, for systems with equations of their own.

        None (the default) means gradient flow, or skew-gradient flow where blocks ascend the energy.
        """
        return None

    def flows(self, phase: Phase) -> Mapping[str, Callable[[Phase], Any]]:
        """Motions by name that this system has beside those of `physics_ep.dynamics.flows`; by default none."""
        return {}

    def contrast(
        self, free: State, plus: State, minus: State | None, x: torch.Tensor, weight: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Sum over the batch of Re weight * (what the parameters' slopes differ by between two states).

        Parameters
        ----------
        free, plus, minus : State
            Free state and displacements (B, ...) from it; minus None is the free state itself.
        x : Tensor (B, ...)
        weight : Tensor (B,)
            Complex for holomorphic schemes, as the displacements are.

        Returns
        -------
        dict
            Parameter name to tensor of the parameter's shape; parameters that are not used are left out.
        """
        raise NotImplementedError

    def constrain(self) -> None:
        """Put the parameters back into their physical range; called before each EP gradient and by training."""

    def readings(self, free: State, plus: State, minus: State | None) -> tuple[State, State, State | None]:
        """What instruments read of the states of a contrast; by default the states themselves. Substrates draw
        errors here.
        """
        return free, plus, minus

    def default_tolerance(self, dtype: torch.dtype) -> float:
        """Residual that counts as converged for states of this dtype."""
        return 1e-10 if dtype == torch.float64 else 1e-6

    def tolerance_share(self, beta: float) -> float:
        """What part of a tolerance a phase nudged by beta is held to: its contrast is divided by beta."""
        return 1.0 if self.relative_residual else min(1.0, abs(beta) / self.nudge_scale)

    # -- helpers ----------------------------------------------------------------------------------------------

    @property
    def dtype(self) -> torch.dtype:
        """dtype of the parameters, or else of the buffers, which states follow."""
        first = first_tensor(self)
        return torch.get_default_dtype() if first is None else first.dtype

    @property
    def device(self) -> torch.device:
        """Device of the parameters, or else of the buffers, which states follow."""
        first = first_tensor(self)
        return torch.device("cpu") if first is None else first.device


AnySystem = TypeVar("AnySystem", bound=PhysicalSystem)


class Phase:
    """One relaxation: a system with its input and nudge, and everything constant in it computed once.

    The unknown z is the state itself (origin None) or the displacement from `origin`. With `balanced`, the
    origin's own small force is left out: the displaced phase then belongs to the system of which the origin is
    the exact equilibrium, and an error of size r in the free state costs O(r) in a one-sided estimate, not
    O(r / beta).

    This default works for any system through `force`, in float64 for displacements. Systems that know better
    subclass it; those with exact block updates set `exact_updates` and give `interface` and `sweep`, and
    `differentiable_updates` if autograd can follow them. A subclass calls this constructor and adds its own fields.

    Attributes
    ----------
    system : PhysicalSystem
        A float64 copy of it, where displacements need one.
    inputs : Inputs
    x : Tensor (B, ...)
        Input, in `dtype`.
    nudge : Nudge or None
    origin : tuple of Tensor (B, ...) or None
    balanced : bool
    scales : Scales or None
        Sizes that were measured, where the system does not declare its scales.
    residual_scale : float or Tensor (B,)
        The force that counts as 1.
    nudge_scale : float
        The nudging strength that counts as 1.
    dtype, narrow : torch.dtype
        In which it is relaxed, and in which `Equilibrium` hands out its state.
    origin_force : tuple of Tensor (B, ...) or None
        What the default leaves out of the force of a balanced phase.
    """

    exact_updates = False
    differentiable_updates = False
    coupled = False  # Whether examples of a batch feel each other: it is then one system, with one stability limit.
    carries_displacements = False
    """Whether displacements keep their digits in the system's own dtype, and the subclass itself leaves out the
    origin's force where balanced. If not, the system is widened to float64 and `origin_force` is computed."""

    ways: torch.Tensor | None = None
    """Signs (n,) by which plain steps of Newton's method follow the force; None: they follow it as it is."""
    patience: int | None = None
    """Iterations without progress after which the residual counts as stalled; None: what the solver says."""
    joint = False
    """Whether its unknowns are two states of an energy system, which no solver of the system's own knows."""
    odd = False
    """Whether a force on the outputs and its opposite displace the system by opposite amounts, to rounding."""

    def __init__(
        self, system: PhysicalSystem, inputs: Inputs, origin: State | None = None, balanced: bool = False
    ) -> None:
        self.inputs = inputs
        self.nudge: Nudge | None = None
        self.balanced = balanced
        self.narrow = system.dtype
        carried = self.carries_displacements
        self.system = system if carried or origin is None else widened(system)
        self.dtype = self.system.dtype
        self.x = inputs.x if carried else in_dtype(inputs.x, self.dtype)
        self.origin = origin if carried or origin is None else tuple(s.to(self.dtype) for s in origin)
        self.origin_force: State | None = None
        # What the instance has set counts, unless an ancestor's constructor may have set it for its own energy.
        names = {n for n in system.unscaled if n not in vars(system) or {"energy", "force"} & {*system.overridden}}
        self.scales = measured_scales(self.system, self.x) if names else None
        if self.scales is not None and self.origin is not None:
            self.scales = self.scales.steepened(self.system, self.origin)
        self.judges = self.scales is not None and "residual_scale" in names  # residuals, by measured scales
        self.refined = False
        judged = self.scales if self.judges else None
        self.residual_scale: float | torch.Tensor = system.residual_scale if judged is None else judged.force
        self.nudge_scale = (
            self.scales.nudge if self.scales is not None and "nudge_scale" in names else system.nudge_scale
        )
        if self.origin is not None and balanced and not carried:
            self.origin_force = self._projected(self.origin, self.system.force(self.origin, self.x))

    def __copy__(self) -> Phase:
        """A twin with the same attributes: a step makes several."""
        twin = object.__new__(type(self))
        vars(twin).update(vars(self))
        return twin

    @property
    def single(self) -> Phase:
        """The phase whose unknowns are one state of the system: this one, but for the two states of dyadic EP."""
        return self

    def nudged(self, nudge: Nudge | None) -> Phase:
        """The phase of the same system and input under a nudge; what does not depend on the nudge is shared."""
        twin = copy.copy(self)
        twin.nudge = None if nudge is None else nudge.to(self.dtype)
        return twin

    def stacked(self, nudges: Sequence[Nudge]) -> Phase | None:
        """The same displaced problem under several nudges, batch after batch; None (the default): one by one."""
        return None

    def joined(self, parts: Sequence[State]) -> State:
        """The z of a stacked phase, from one for each of its nudges."""
        return tuple(torch.cat(blocks) for blocks in zip(*parts, strict=True))

    def parted(self, found: Equilibrium, count: int) -> tuple[Equilibrium, ...]:
        """What a stacked phase settled in, one for each of its nudges."""
        return found.split(count)

    def adjoint(self) -> Phase:
        """The displaced problem whose linear response is the transposed one, as asymmetric EP nudges it.

        Where the force is the gradient of an energy that is the phase itself.
        """
        return self

    def asymmetry(self, even: bool = False) -> float:
        """|A| / |J| at the origin: J the Jacobian of the force, A = (J - J^T) / 2, both Frobenius norms.

        Differences of the force along random directions tell it here, to some 1e-9; variables at bounds are held.

        Parameters
        ----------
        even : bool
            Where products with J itself are at hand, take differences of scale between variables out
            (`Jacobian.asymmetry`). Differences are too coarse for that, and give the plain figure.
        """
        assert self.origin is not None
        wide = widened(self.system)
        state = narrowed(self.origin, wide.dtype)
        x = in_dtype(self.inputs.x, wide.dtype)
        return difference_asymmetry(lambda s: wide.force(s, x), state, wide.free_variables(state, x))

    def likely_start(self) -> State | None:
        """The displacement by the nudge to first order, where it costs next to nothing.

        None (the default): start at the origin.
        """
        return None

    def drooped(self, share: float) -> Phase:
        """Phase whose stored free state has lost this share of itself; this phase if nothing is stored."""
        return self

    def rightmost(self) -> torch.Tensor | None:
        """Rightmost eigenvalue (B,) of the motion linearised at the origin, complex; None: not looked for here."""
        return None

    def watched(self) -> torch.Tensor | None:
        """Rightmost eigenvalue (B,) of the motion linearised at the origin, complex, where each step of learning
        must look at it, since one step may end a free state. None: it is enough to look at `rightmost` now and
        then."""
        return None

    def start(self) -> State:
        """First z: the system's initial state, or no displacement."""
        if self.origin is None:
            return self.system.initial_state(self.x)
        dtype = self.dtype if self.nudge is None else self.nudge.dtype(self.dtype)
        return tuple(torch.zeros_like(s, dtype=dtype) for s in self.origin)

    def state(self, z: State) -> State:
        """The state that z stands for."""
        return z if self.origin is None else tuple(s + d for s, d in zip(self.origin, z, strict=True))

    def energy(self, z: State) -> torch.Tensor:
        """F = E + beta C at z, (B,), of a balanced phase without the origin's own force."""
        state = self.state(z)
        with torch.no_grad():
            total = energies(self.system, state, self.x)
            if self.nudge is not None:
                total = total + self.nudge.energy(self.system.outputs(state))
            if self.origin_force is not None:
                total = total + sum((f * d).flatten(1).sum(1) for f, d in zip(self.origin_force, z, strict=True))
            return total

    def force(self, z: State) -> State:
        """Projected -dF/ds at z, which solvers step by: zero at an equilibrium, bounds included."""
        force = self._projected(self.state(z), self.unbounded_force(z))
        if self.origin_force is not None:
            force = tuple(f - f0 for f, f0 in zip(force, self.origin_force, strict=True))
        return force

    def unbounded_force(self, z: State) -> State:
        """-dF/ds itself at z, bounds and metrics left out: what all flows in time are driven by (`flows`)."""
        state = self.state(z)
        force = self.system.force(state, self.x)
        if self.nudge is None:
            return force
        return tuple(f + p for f, p in zip(force, self.cost_force(state), strict=True))

    def project(self, z: State) -> State:
        """z of the nearest state within bounds."""
        if not self.system.bounded:
            return z
        if self.origin is None:
            return self.system.project(z)
        inside = self.system.project(self.state(z))
        return tuple(s - o for s, o in zip(inside, self.origin, strict=True))

    def interior(self, z: State) -> State:
        """z of the nearest state within bounds at which `unbounded_force` is finite; default `project`."""
        return self.project(z)

    def own_rates(self, z: State) -> State | None:
        """Diagonal of d2E/ds2, which steps in time must be short for, where it may be without bound; else None."""
        return None

    def residual(self, force: State) -> torch.Tensor:
        """Largest component of a force in each example, (B,), over the residual scale: dimensionless. Where scales
        have been measured, each block of the force is divided by a scale of its own."""
        if self.judges and self.scales is not None:
            return self.scales.over(force)
        return largest(force) / self.residual_scale

    def refine(self, z: State) -> bool:
        """Whether the force that counts as 1 turns out smaller at z, where a residual has met the tolerance.

        Only measured scales are refined, once a phase; `residual` is by the new ones from then on.
        """
        if not self.judges or self.refined or self.scales is None or any(b.is_complex() for b in z):
            return False
        self.refined = True
        found = self.scales.refined(self.system, self.state(z), self.x, self.probe())
        if all(torch.equal(a, b) for a, b in zip(found.blocks, self.scales.blocks, strict=True)):
            return False
        self.scales, self.residual_scale = found, found.force
        return True

    def aim(self, tolerance: float) -> float:
        """Residual, at most the tolerance, at which a relaxation stops while each iteration still pays.

        Default: the tolerance. Where it allows for the rounding of forces that are far above a nudge's own, it may
        be met by a displacement that does not follow the nudge yet.
        """
        return tolerance

    def probe(self) -> State | None:
        """Direction in which `refine` asks for the curvature; None: that of the force."""
        return None

    def slope(self, z: State, force: State) -> State:
        """dF/dz from the force at z. Default: minus the force.

        Phases whose force is not the gradient of F override it; to first order in the force is enough.
        """
        return tuple(-f for f in force)

    def hessian_product(self, z: State, v: State) -> State:
        """d2F/dz2 v, each example by itself, by autograd: exact. Solvers ask through `hessian`."""
        with torch.enable_grad(), twice_differentiable():
            leaves = tuple(s.detach().requires_grad_() for s in self.state(z))
            total = energies(self.system, leaves, self.x)
            if self.nudge is not None:
                total = total + self.nudge.energy(outputs_of(self.system, leaves))
            slope = torch.autograd.grad(total.sum(), leaves, create_graph=True, allow_unused=True)
            along = [(g * d).sum() for g, d in zip(slope, v, strict=True) if g is not None and g.requires_grad]
            if not along:
                return tuple(torch.zeros_like(d) for d in v)
            product = torch.autograd.grad(torch.stack(along).sum(), leaves, allow_unused=True)
        return tuple(torch.zeros_like(d) if h is None else h for h, d in zip(product, v, strict=True))

    def hessian(self, z: State) -> Callable[[State], State]:
        """v -> d2F/dz2 v at one z, for many v. Override it where what all products share is worth keeping."""
        return functools.partial(self.hessian_product, z)

    def curvature_diagonal(self, z: State) -> State | None:
        """Positive estimate of the diagonal of d2F/dz2, to precondition with (None: ones)."""
        return self.system.curvature_diagonal(self.state(z), self.x)

    def known(self, solver: str) -> tuple[State, torch.Tensor] | None:
        """State z and residual of an equilibrium that is known without iterating, such as a forward pass; None
        if there is none.

        Parameters
        ----------
        solver : str
            The one that is asked for: a phase may be asked to reach in time what it knows.

        Returns
        -------
        (tuple of Tensor, Tensor (B,)) or None
            The residual is NaN where a state is not finite, else 0: `measured` says, when due, what it really is.
        """
        return None

    def measured(self, z: State) -> torch.Tensor:
        """Residual (B,) of a state that `known` gives, from the forces or drives in that very state."""
        return self.residual(self.force(z))

    def finite(self, z: State) -> torch.Tensor:
        """Tell which examples (B,) hold no NaN and no infinity in a state that `known` returns, entry by entry."""
        return exactly_finite_rows(self.state(z))

    def without(self, left_out: torch.Tensor) -> Phase:
        """The phase for a contrast that leaves out the examples `left_out` (B,), so that their NaN cannot leak.

        Phases that keep states of their own, beside what `contrast` is handed, set those examples to zero.
        """
        return self

    def hopeless(self) -> tuple[torch.Tensor, Status] | None:
        """Examples (B,) that cannot have an equilibrium, known before any iteration, and why; None: not known."""
        return None

    def verdict(self, z: State, residual: torch.Tensor) -> Status | None:
        """A better reason why a relaxation ended unconverged at z with this residual (B,); None: there is none."""
        return None

    def contrast(
        self,
        system: PhysicalSystem,
        free: State,
        plus: State,
        minus: State | None,
        x: torch.Tensor,
        weight: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """`PhysicalSystem.contrast`, for phases that already know what it needs."""
        return system.contrast(free, plus, minus, x, weight)

    def mirrored_contrast(
        self, system: PhysicalSystem, free: State, plus: State, x: torch.Tensor, weight: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """`contrast` of a displacement with its opposite, where phases are `odd`."""
        return self.contrast(system, free, plus, tuple(-d for d in plus), x, weight)

    def input_contrast(
        self, free: State, plus: State, minus: State | None, x: torch.Tensor, weight: torch.Tensor
    ) -> torch.Tensor:
        """Re weight * [dE/dx(free + plus) - dE/dx(free + minus)] of each example, in x's shape and dtype.

        It is what `contrast` is for a parameter. The default differentiates the system's energy in float64.

        Parameters
        ----------
        free, plus, minus : State
            The states that `PhysicalSystem.contrast` takes; displacements may have further blocks behind those of
            the state.
        x : Tensor (B, ...)
            Floating point.
        weight : Tensor (B,)

        Raises
        ------
        InputError
            If autograd cannot follow the energy to x.
        """
        exact, wide = widened(self.system), torch.float64
        base = tuple(s.to(wide) for s in free)
        up = tuple(s + d for s, d in zip(base, plus, strict=False))
        down = base if minus is None else tuple(s + d for s, d in zip(base, minus, strict=False))
        with torch.enable_grad():
            leaf = x.detach().to(wide).requires_grad_()
            gap = energies(exact, up, leaf) - energies(exact, down, leaf)
            total = (weight.to(torch.promote_types(wide, weight.dtype)) * gap).sum().real
            slope = torch.autograd.grad(total, leaf, allow_unused=True)[0] if total.requires_grad else None
        if slope is None:
            name = type(self.system).__name__
            raise argument_error("input_gradient", f"be False for {name}, whose energy hides its input", True)
        return slope.to(x.dtype)

    def response(self, force: torch.Tensor) -> torch.Tensor | None:
        """First-order change of the outputs (B, n_out) under a force (B, n_out) on them; None: no closed form."""
        return None

    def curvature_limit(self, cost: Cost, y: torch.Tensor, anywhere: bool) -> float | None:
        """Lambda of `stability.curvature_limit` at the origin, where the phase knows it; None: to be measured."""
        return None

    def mobility(self, cost: Cost, y: torch.Tensor) -> float:
        """Largest relative change of what a block feeds on, per unit of beta: it bounds an automatic one; or 0."""
        return 0.0

    def tells_bias(self, cost: Cost, y: torch.Tensor) -> bool:
        """Whether comparing estimates at two betas shows the bias of an automatic beta. It does not where the
        system's phases are noisy, since noise would hide the bias."""
        return not self.system.noisy

    def tolerance_share(self, beta: float) -> float:
        """`PhysicalSystem.tolerance_share`, by the scale of nudges that the phase has measured where it has."""
        if self.nudge_scale == self.system.nudge_scale:
            return self.system.tolerance_share(beta)
        return min(1.0, abs(beta) / self.nudge_scale)

    def interface(self, z: State) -> State:
        """The blocks from which a sweep computes all others."""
        raise NotImplementedError

    def sweep(self, u: State) -> tuple[State, State, torch.Tensor]:
        """From interface u: (next u, the z that u implies, residual of that z)."""
        raise NotImplementedError

    def _projected(self, state: State, force: State) -> State:
        if not self.system.bounded:
            return force
        force = self.system.following(force)  # bounds hold what would move out of them
        if self.scales is not None:
            # In steps of the state's own size: a force in small or large units would be lost in it, or clipped.
            reach = [
                self.scales.reach.view(-1, *[1] * (s.ndim - 1)).to(f.real)
                for s, f in zip(state, force, strict=True)
            ]
            steps = [r * f for r, f in zip(reach, force, strict=True)]
            moved = self.system.project(tuple(s + d for s, d in zip(state, steps, strict=True)))
            held = tuple(
                torch.where(m == s + d, f, (m - s) / r)
                for m, s, d, f, r in zip(moved, state, steps, force, reach, strict=True)
            )
            return self.system.following(held)
        moved = self.system.project(tuple(s + f for s, f in zip(state, force, strict=True)))
        return self.system.following(tuple(m - s for m, s in zip(moved, state, strict=True)))

    def cost_force(self, state: State) -> State:
        """-beta dC/ds of each block at a state, of a nudged phase."""
        assert self.nudge is not None
        with torch.enable_grad():
            leaves = tuple(s.detach().requires_grad_() for s in state)
            total = self.nudge.energy(outputs_of(self.system, leaves))
            slope = derivative(total, leaves)
        return tuple(-g for g in slope)


def widened(system: AnySystem) -> AnySystem:
    """The system itself if it is float64, else a float64 copy (for systems that cannot carry displacements)."""
    return system if system.dtype == torch.float64 else copy.deepcopy(system).double()


__all__ = ["Inputs", "Phase", "PhysicalSystem", "widened"]


def _layout(shape: tuple[int, ...] | None, found: object) -> str:
    """How examples of another shape are brought into this one; nothing where they have other numbers."""
    if shape is None or not isinstance(found, tuple) or math.prod(found[1:]) != math.prod(shape):
        return ""
    image = len(shape) > 1
    layout = "image" if image else "flat"
    call = f"x.unflatten(1, {shape})" if image and len(found) == 2 else "x.flatten(1)"
    return f" (in a config data.layout = {layout!r}; a tensor by {call})"
