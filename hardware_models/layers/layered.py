"""Layered networks of units with bilinear couplings, as matrix products and convolutions.

Energy of layers s_1 ... s_L on the input s_0 = x (bilinear couplings counted once; literature: Hopfield 1984,
Scellier and Bengio 2017):

    E = sum_k Psi_k(s_k) - s_k . (W_k s_{k-1} + b_k)

The drive of layer k is p_k = W_k s_{k-1} + b_k + W_{k+1}^T s_{k+1}, its force p_k - Psi_k'(s_k), and the exact
minimum over layer k, the others held, is s_k = sigma_k(p_k) with sigma_k the inverse of Psi_k'. Layers of one
parity do not couple, so all even layers are minimised at once, then all odd ones.

With max pooling, W_k s_{k-1} is the greatest of several linear maps, one a *route* r. As s_k >= 0, the energy is
the least over the routes, E(s) = min_r E(s, r), and E(s, r) is bilinear. So the routes are one more block of
variables: each sweep minimises over layers with the routes held, and over the routes (the greatest entries) with
layers held. The energy never rises. Each choice of routes may have a minimum: such networks are multistable.

Solvers step in the metric of the units, sigma_k(p_k) - s_k, finite where Psi' is not; motion in time follows
-dE/ds (`LayeredPhase.unbounded_force`), or one of the flows in `hardware_models.layers.flows`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from physics_ep.blocks import State, largest, tiled
from physics_ep.dynamics.motion import Motion
from physics_ep.errors import InputError
from physics_ep.nudging import Nudge
from physics_ep.pooling import Route, channels_first, channels_last, pixels_first
from physics_ep.system import Inputs, Phase
from physics_ep.units import UNITS, UnitFunctions, torch_functions, within

from ..devices.systems import OnDevice
from .couplings import Convolution, Dense
from .few_outputs import array_of, bounded, outputs_of_rows, paired, row_solvers
from .flows import Laws, unit_flows
from .maps import Filter

if TYPE_CHECKING:
    from .row_kernels import HiddenRows, OutputRows

OUTPUT_UNITS = ("linear", "hard_sigmoid")

Routes = list[Route]
"""What the max pooling of each coupling picks, or None."""


class LayeredSystem(OnDevice):
    """Layers in a row, each coupled to the one below: what `LayeredPhase` takes of its system.

    Attributes
    ----------
    shapes : tuple of tuple of int
        Shapes of an example's input, then of its layers' states.
    sizes : tuple of int
        Units in the input and in each layer.
    bounds : list of (float, float)
        Least and greatest value of the units of each layer.
    output_activation : str
        Unit law of the outputs.
    units : list of UnitFunctions
        Laws of the layers' units, where the input does not change them.
    routed : bool
        Whether a coupling has max pooling, whose routes a nudged phase holds.
    stages : sequence of float or None
        Weight of each layer in the energy, where amplifiers stand between layers. None: ones.
    """

    shapes: tuple[tuple[int, ...], ...]
    sizes: tuple[int, ...]
    bounds: list[tuple[float, float]]
    units: list[UnitFunctions]
    output_activation: str = "linear"
    routed: bool = False
    bilinear = True
    stages: Sequence[float] | None = None

    def _blocks(self) -> int:
        return len(self.shapes) - 1

    @property
    def couplings(self) -> Sequence[Any]:
        """The coupling into each layer."""
        raise NotImplementedError

    def inner_bounds(self, eps: float) -> list[tuple[float, float]]:
        """Bounds of the layers, where potentials have finite slopes: those of saturating units less `eps`."""
        return self.bounds

    def routed_drives(self, state: State, clamped: torch.Tensor) -> tuple[State, Routes]:
        """Drive of each layer at a state, where `clamped` comes from the input, and the routes that each took."""
        raise NotImplementedError

    def routes(self, state: State, x: torch.Tensor) -> Routes:
        """What each coupling's max pooling picks; None where it has none."""
        return [None] * len(self.couplings)


class Layered(LayeredSystem):
    """Stack of couplings and units; `HopfieldNetwork` and `ConvHopfieldNetwork` build on it.

    Parameters
    ----------
    shapes : sequence of tuple of int
        Shape of an example's input, then those of its layers' states.
    couplings : sequence of Dense or Convolution
        Coupling k leads from shapes[k] to shapes[k + 1].
    activation : str
        Unit law of the hidden layers (`physics_ep.units.UNITS`).
    output_activation : str
        'linear' or 'hard_sigmoid': the units whose nudged update has a closed form.

    Attributes
    ----------
    sizes : tuple of int
        Units in the input and in each layer.
    """

    default_solver = "anderson"
    residual_scale = 1.0
    nudge_scale = 1.0
    default_max_iterations = 500
    bounded = True
    clamps = True

    def __init__(
        self,
        shapes: Sequence[tuple[int, ...]],
        couplings: Sequence[Dense | Convolution],
        activation: str,
        output_activation: str,
    ) -> None:
        super().__init__()
        self.shapes = tuple(shapes)
        self.example_shape = self.shapes[0]
        self.sizes = tuple(math.prod(shape) for shape in shapes)
        self.activation = activation
        self.output_activation = output_activation
        self.layers = nn.ModuleList(couplings)
        names = [activation] * (len(couplings) - 1) + [output_activation]
        self.routed = any(c.routed for c in couplings)
        # Each choice of routes has a minimum of its own, where the units do not choose others.
        self.multistable = self.routed
        self.smooth = "hard_sigmoid" not in names and not self.routed
        self.analytic = all(UNITS[name].analytic for name in names) and not self.routed
        self.bounds = [UNITS[name].bounds for name in names]
        self.units = [torch_functions(name) for name in names]

    @property
    def couplings(self) -> list[Dense]:
        """`layers`, typed (convolutions have the same methods)."""
        return cast(list[Dense], list(self.layers))

    # -- the contract -----------------------------------------------------------------------------------------

    def energy(self, state: State, x: torch.Tensor, routes: Routes | None = None) -> torch.Tensor:
        """Energy of each example, (B,), at a state, with `x` the inputs. `routes` names, layer by layer, the
        entries that max poolings pass on whatever the state; by default they pass on the greatest ones."""
        total: torch.Tensor | float = 0.0
        below = x
        for k, (layer, unit, s) in enumerate(zip(self.couplings, self.units, state, strict=True)):
            drive = layer.biased(below, None if routes is None else routes[k])
            total = total + (unit.potential(s) - s * drive).flatten(1).sum(1)
            below = s
        assert isinstance(total, torch.Tensor)
        return total

    def force(self, state: State, x: torch.Tensor) -> State:
        drives = self.drives(state, self.couplings[0].biased(x))
        return tuple(p - unit.inverse(s) for p, unit, s in zip(drives, self.units, state, strict=True))

    def initial_state(self, x: torch.Tensor) -> State:
        """The state in which every unit is at rest: its response to no drive."""
        blocks = [
            unit.response(torch.zeros(x.shape[0], *shape, dtype=self.dtype, device=self.device))
            for unit, shape in zip(self.units, self.shapes[1:], strict=True)
        ]
        return tuple(channels_last(s) if s.ndim == 4 else s for s in blocks)

    def outputs(self, state: State) -> torch.Tensor:
        return state[-1]

    def project(self, state: State) -> State:
        # General methods follow autograd of Psi, which sees no barrier on the bound itself.
        bounds = self.inner_bounds(torch.finfo(state[0].dtype).eps) if self.overridden else self.bounds
        return tuple(s.clamp(lo, hi) for s, (lo, hi) in zip(state, bounds, strict=True))

    def free_variables(self, state: State, x: torch.Tensor) -> State | None:
        drives = self.drives(state, self.couplings[0].biased(x))
        return tuple(unit.slope(p) > 0 for p, unit in zip(drives, self.units, strict=True))

    def curvature_diagonal(self, state: State, x: torch.Tensor) -> State | None:
        limit = 1 / torch.finfo(self.dtype).eps
        return tuple(unit.curvature(s).clamp(max=limit) for s, unit in zip(state, self.units, strict=True))

    def prepare(self, x: torch.Tensor) -> Inputs:
        self.check_input(x)
        return Inputs(x, self.couplings[0].biased(x))

    def phase(self, inputs: Inputs, origin: State | None = None, balanced: bool = False) -> LayeredPhase:
        return LayeredPhase(self, inputs, origin, balanced)

    def solvers(self, phase: Phase) -> Mapping[str, Callable[[Any, State], Any]] | None:
        known = isinstance(phase, LayeredPhase) and type(phase).update is LayeredPhase.update
        return row_solvers(phase) if known else None

    def flows(self, phase: Phase) -> Mapping[str, Callable[[Phase], Motion]]:
        """Motions in time by name, 'hopfield' and 'rate' (`hardware_models.layers.flows`)."""
        return unit_flows(
            phase,
            Laws(
                lambda state: self.drives(state, phase.inputs.cache),
                lambda drives: tuple(unit.response(p) for unit, p in zip(self.units, drives, strict=True)),
                lambda state: tuple(unit.inverse(s) for unit, s in zip(self.units, state, strict=True)),
            ),
        )

    def inner_bounds(self, eps: float) -> list[tuple[float, float]]:
        names = [self.activation] * (len(self.bounds) - 1) + [self.output_activation]
        return [b if UNITS[n].quadratic else within(b, eps) for b, n in zip(self.bounds, names, strict=True)]

    def contrast(
        self, free: State, plus: State, minus: State | None, x: torch.Tensor, weight: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The contrast of `EnergySystem.contrast`, with max poolings that pick what they pick at `free`."""
        with torch.no_grad():
            routes = self.routes(free, x)
            grads = {}
            pre: tuple[torch.Tensor | None, torch.Tensor] = (None, x)
            for k, layer in enumerate(self.couplings):
                s, p = free[k], plus[k]
                known = paired(s, p, None if minus is None else minus[k], -weight)
                if known is not None and type(layer) is Dense:
                    e, m, _, total = known
                    grads[f"layers.{k}.weight"] = layer.weight_contrast(e, m, *pre)
                    grads[f"layers.{k}.bias"] = total
                    pre = (e, m)
                    continue
                column = -weight.view(-1, *[1] * (s.ndim - 1))
                if minus is None:
                    e, m = column * p, torch.add(s, p, alpha=0.5)
                else:
                    q = minus[k]
                    e, m = (p - q).mul_(column), p + q
                    torch.add(s, m, alpha=0.5, out=m)
                grads[f"layers.{k}.weight"], grads[f"layers.{k}.bias"] = layer.contrast(e, m, *pre, routes[k])
                pre = (e, m)
        return grads

    # -- helpers ----------------------------------------------------------------------------------------------

    def drives(self, state: State, clamped: torch.Tensor) -> State:
        """Drives p_k of all layers, `clamped` being W_1 x + b_1."""
        return self.routed_drives(state, clamped)[0]

    def routed_drives(self, state: State, clamped: torch.Tensor) -> tuple[State, Routes]:
        """Drives, and the routes on which they came (None for the clamped one)."""
        layers = [layer.bound() for layer in self.couplings]
        pairs: list[tuple[torch.Tensor, Route]] = [(clamped, None)]
        pairs += [layer.drive(s) for layer, s in zip(layers[1:], state[:-1], strict=True)]
        drives = [p for p, _ in pairs]
        routes = [route for _, route in pairs]
        for k in range(len(state) - 1):
            drives[k] = layers[k + 1].transpose(state[k + 1], routes[k + 1], drives[k])
        return tuple(drives), routes

    def routes(self, state: State, x: torch.Tensor) -> Routes:
        """What each coupling's max pooling picks."""
        below = (x, *state[:-1])
        return [
            layer.bound().drive(s)[1] if layer.routed else None
            for layer, s in zip(self.couplings, below, strict=True)
        ]


class LayeredPhase(Phase):
    """Exact even/odd updates, in the state or carried in the displacement from an origin.

    A displaced unit moves by sigma(a + da) - sigma(a), computed without cancellation, where a is its drive at
    the origin and da the change of drive. The origin's own mismatch sigma(a) - s is added unless `balanced`.

    A balanced phase also holds the routes of max poolings at the origin. Its energy is then bilinear and touches
    the true one at the origin, where winners are locally constant: so EP's estimate has the order of its scheme
    at the implicit gradient, and no unit that changes its winner under a finite nudge disturbs it.
    """

    system: LayeredSystem
    exact_updates = True
    differentiable_updates = True
    carries_displacements = True
    pulled: torch.Tensor
    """Outputs at the origin, under the nudge."""
    strength: torch.Tensor | float | complex
    """The nudge's beta, shaped to multiply them."""
    _answer: tuple[torch.Tensor, torch.Tensor | None] | None = None
    """What the outputs do under the nudge alone, and by what part of a change of drive they move further."""

    def __init__(self, system: LayeredSystem, inputs: Inputs, origin: State | None, balanced: bool) -> None:
        super().__init__(system, inputs, origin, balanced)
        self.layers = [layer.bound() for layer in system.couplings]
        self.units, self.clamped = self._constants()
        self.depth = len(self.layers)
        self.stages = [1.0] * self.depth if system.stages is None else system.stages
        self.copies = 1
        self.routes: Routes = [None] * self.depth
        self.held = balanced or not system.routed
        # The smaller half of the layers carries the iteration.
        halves = [list(range(start, self.depth, 2)) for start in (0, 1)]
        self.carried, self.implied = sorted(halves, key=lambda h: (not h, sum(system.sizes[k + 1] for k in h)))
        if origin is not None:
            if system.routed:
                self.settled_drives, self.routes = system.routed_drives(origin, self.clamped)
            self.mismatch = None if balanced else [unit.response(p) - s for unit, p, s in self._settled()]

    @cached_property
    def settled_drives(self) -> State:
        """Drives of the layers at the origin."""
        assert self.origin is not None
        return self.system.routed_drives(self.origin, self.clamped)[0]

    @cached_property
    def anchors(self) -> list[tuple[Any, ...]]:
        """What displacements of the units need of these drives."""
        return [unit.anchor(p) for unit, p in zip(self.units, self.settled_drives, strict=True)]

    @cached_property
    def excess(self) -> torch.Tensor:
        """What the outputs' drive at the origin exceeds their bound by, which a nudge must overcome first."""
        assert self.origin is not None
        out = self.origin[-1]
        if self.balanced and math.isinf(self.system.bounds[-1][0]):
            return torch.zeros_like(out)
        drive = self.settled_drives[-1]
        return self._excess(drive, self.units[-1].response(drive) if self.balanced else out)

    def _settled(self) -> Iterator[tuple[UnitFunctions, torch.Tensor, torch.Tensor]]:
        """Units, drives and states of the layers at the origin."""
        assert self.origin is not None
        yield from zip(self.units, self.settled_drives, self.origin, strict=True)

    def _constants(self) -> tuple[list[UnitFunctions], torch.Tensor]:
        """Units of the layers, and what the input adds to the first one's drive."""
        return self.system.units, self.inputs.cache

    def _excess(self, drive: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """What the outputs' drive exceeds them by."""
        return drive - output

    def start(self) -> State:
        if self.origin is None:
            batch = self.x.shape[0]
            return tuple(self.x.new_zeros(()).expand(batch, *shape) for shape in self.system.shapes[1:])
        rows = self.copies * self.x.shape[0]
        dtype = self.dtype if self.nudge is None else self.nudge.dtype(self.dtype)
        z = tuple(s.new_zeros((), dtype=dtype).expand(rows, *s.shape[1:]) for s in self.origin)
        # The output's answer to the nudge while the hidden layers are still at rest: one sweep saved.
        return z if self.nudge is None else (*z[:-1], self._nudged_output(None))

    def state(self, z: State) -> State:
        return (
            z if self.origin is None else tuple(self._spread(s).add(d) for s, d in zip(self.origin, z, strict=True))
        )

    def energy(self, z: State) -> torch.Tensor:
        with torch.no_grad():
            state = self.state(z)
            routes: Routes | None = None
            if self.system.routed and self.held:
                first = self.system.routes(self.origin, self.x)[0]  # type: ignore[arg-type]
                routes = [None if first is None else self._spread(first), *self.routes[1:]]
            held = () if routes is None else (routes,)
            total = self.system.energy(state, self._spread(self.x), *held)
            return total if self.nudge is None else total + self.nudge.energy(self.system.outputs(state))

    def stacked(self, nudges: Sequence[Nudge]) -> LayeredPhase | None:
        if not self.balanced:
            return None
        dtype = torch.promote_types(*(n.dtype(self.dtype) for n in (nudges[0], nudges[-1])))
        twin = self.nudged(Nudge.stacked(nudges, len(self.x), dtype, self.x.device))
        twin.copies = len(nudges)
        twin.excess, twin.pulled = twin._spread(self.excess), twin._spread(twin.pulled)
        twin.routes = [None if route is None else twin._spread(route) for route in self.routes]
        return twin

    def _spread(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows of one batch for every stacked copy."""
        return rows if self.copies == 1 else tiled(rows, self.copies)

    def nudged(self, nudge: Nudge | None) -> LayeredPhase:
        bounded = nudge is not None and self.system.output_activation != "linear"
        if nudge is not None and bounded and nudge.linear(self.dtype) is None:
            raise InputError(
                "Argument output_activation must be 'linear' for a cost that is not quadratic in each output, as "
                f"squared_error is, but was {self.system.output_activation!r}."
            )
        twin = cast(LayeredPhase, super().nudged(nudge))
        twin.routes, twin._answer = list(self.routes), None
        if twin.nudge is not None and self.origin is not None:
            twin.pulled = self.origin[-1]
            twin.strength = twin.nudge.column(twin.pulled)
        return twin

    def update(self, k: int, z: Sequence[torch.Tensor | None]) -> torch.Tensor:
        """Exact minimum over layer k of F, given z of its neighbours."""
        below = None if k == 0 else z[k - 1]
        above = z[k + 1] if k + 1 < self.depth else None
        if self.origin is None:
            return self.units[k].response(self._drive(k, below, above))
        if self.held:
            change = None if below is None else self.layers[k].forward(below, self.routes[k])
            if above is not None:
                change = self.layers[k + 1].transpose(above, self.routes[k + 1], change)
        else:
            below = None if below is None else below + self.origin[k - 1]
            above = None if above is None else above + self.origin[k + 1]
            change = self._drive(k, below, above) - self.settled_drives[k]
        if k + 1 == self.depth and self.nudge is not None:
            return self._nudged_output(change)
        if change is None:
            change = self._spread(torch.zeros_like(self.origin[k]))
        # Constants of one batch serve all stacked copies by broadcasting.
        change = change.unflatten(0, (self.copies, -1))
        moved = self.units[k].displaced(change, *self.anchors[k]).flatten(0, 1)
        return moved if self.mismatch is None else moved + self.mismatch[k]

    def _drive(self, k: int, below: torch.Tensor | None, above: torch.Tensor | None) -> torch.Tensor:
        """Drive of layer k; it picks the routes from below and takes the picked ones from above."""
        drive = self.clamped
        if below is not None:
            drive, self.routes[k] = self.layers[k].drive(below)
        return drive if above is None else self.layers[k + 1].transpose(above, self.routes[k + 1], drive)

    def _nudged_output(self, change: torch.Tensor | None) -> torch.Tensor:
        assert self.origin is not None
        moved, out = self._answered(change), self.origin[-1]
        lo, hi = self.system.bounds[-1]
        return moved if math.isinf(lo) else torch.clamp(moved, lo - self._spread(out), hi - self._spread(out))

    def _answered(self, change: torch.Tensor | None) -> torch.Tensor:
        """Displacement of the outputs under the nudge without their bounds, their drive changed by `change`.

        It is a line in `change` where the nudge's force is one in the outputs: a state that no sweep changes, and a
        factor.
        """
        assert self.nudge is not None
        if self._answer is None:
            self._answer = self._displaced_output(self.excess), self._line()
        alone, factor = self._answer
        if change is None:
            return alone
        if factor is None:
            return self._displaced_output(change + self.excess)
        return torch.addcmul(alone, change, factor)

    def _line(self) -> torch.Tensor | None:
        """Displacement of the nudged outputs for a unit of drive; None where they do not follow a line."""
        assert self.nudge is not None
        linear = None if self.nudge.cost.holds else self.nudge.linear(self.dtype)
        return None if linear is None else (self._output_load() + linear[0]).reciprocal()

    def _output_load(self) -> torch.Tensor | float:
        """What the outputs' own law needs of drive for a unit of state."""
        return 1.0

    def _displaced_output(self, rhs: torch.Tensor) -> torch.Tensor:
        """Displacement of the outputs under the nudge by the cost's own law, `rhs` the drive that they exceed."""
        assert self.nudge is not None
        return self.nudge.cost.displaced_unit(self.pulled, self.nudge.y, self.strength, rhs)

    # -- example by example -----------------------------------------------------------------------------------

    def clips(self) -> bool:
        """Whether the hidden units are linear or clip, outputs have no bounds, and a nudge's force is linear."""
        if type(self.layers[-1]) is not Dense or self.system.output_activation != "linear":
            return False
        if not isinstance(self.system, Layered) or self.system.activation not in ("hard_sigmoid", "linear"):
            return False
        return self._on_a_line()

    def _on_a_line(self) -> bool:
        """Whether what a nudge does to the outputs is linear in their drive."""
        if self.nudge is None:
            return True
        self._answered(None)
        return self._answer is not None and self._answer[1] is not None

    def by_rows(self, u: torch.Tensor) -> tuple[Any, Any, HiddenRows, float, OutputRows]:
        """What `row_kernels.relaxed` needs of the phase, from outputs u: drives from the input, weights, units,
        factor of what comes back from the outputs, and outputs."""
        hidden = bounded(self.clamped.shape[1], *self.system.bounds[0], self.dtype)
        unit = u.new_full((u.shape[1],), 1 / self.system.residual_scale)
        outputs = outputs_of_rows(u, *self._row_answer(u), unit)
        return array_of(self.clamped), array_of(self.layers[-1].weight), hidden, 1.0, outputs

    def _row_answer(self, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Outputs without what comes from below, and what a unit of it adds."""
        if self.nudge is None:
            return self.layers[-1].bias, u.new_ones(())
        self._answered(None)
        assert self._answer is not None
        alone, factor = self._answer
        assert factor is not None
        return alone, factor

    def interface(self, z: State) -> State:
        if not self.held:
            self._pick(z)
        return tuple(pixels_first(z[k]) for k in self.carried)

    def sweep(self, u: State) -> tuple[State, State, torch.Tensor]:
        z: list[torch.Tensor | None] = [None] * self.depth
        for k, block in zip(self.carried, u, strict=True):
            z[k] = channels_first(block)
        before = list(self.routes)
        for k in self.implied:
            z[k] = self.update(k, z)
        state = cast(State, tuple(z))
        following = tuple(pixels_first(self.update(k, z)) for k in self.carried)
        gap = tuple(self._missing(k, n - o, state) for k, n, o in zip(self.carried, following, u, strict=True))
        # The implied layers are exact for u, so the carried ones hold the whole mismatch of z ...
        residual = largest(gap) / self.system.residual_scale
        if not self.held:
            # ... but for those that came on routes which their own maxima do not confirm.
            for k in self.implied:
                old, new = (routes[k + 1] if k + 1 < self.depth else None for routes in (before, self.routes))
                if old is not None and new is not None:
                    missed = cast(Filter, self.layers[k + 1]).misrouting(old, new, state[k + 1])
                    residual = torch.maximum(residual, missed / self.system.residual_scale)
        return following, state, residual

    def force(self, z: State) -> State:
        """sigma(p) - s of every layer: the force in the units' own metric, in which solvers step.

        Equal, without a nudge, to the projected force for hard sigmoid and linear units, to sigma' times the force
        for smooth ones: finite at saturation, where Psi' is not.
        """
        if not self.held:
            self._pick(z)
        return tuple(self._missing(k, self.update(k, z) - z[k], z) for k in range(self.depth))

    def _missing(self, k: int, gap: torch.Tensor, z: State) -> torch.Tensor:
        """Force on layer k at z, whose exact update lies `gap` away."""
        return gap

    def slope(self, z: State, force: State) -> State:
        """dF/dz: what lies an exact update away is bent back by the layer itself. Exact to first order in it."""
        return tuple(-b for b in self._bent(self._bend(z), self._gaps(z, force)))

    def hessian(self, z: State) -> Callable[[State], State]:
        """The Hessian of a network of smooth units; the couplings are bilinear."""
        bend = self._bend(z)

        def product(v: State) -> State:
            rows = []
            for k, own in enumerate(self._bent(bend, v)):
                change = self.layers[k].forward(v[k - 1], self.routes[k]) if k else None
                if k + 1 < self.depth:
                    change = self.layers[k + 1].transpose(v[k + 1], self.routes[k + 1], change)
                rows.append(own if change is None else own - self.stages[k] * change)
            return tuple(rows)

        return product

    def hessian_product(self, z: State, v: State) -> State:
        return self.hessian(z)(v)

    def curvature_diagonal(self, z: State) -> State | None:
        return self.system.curvature_diagonal(self.state(z), self._spread(self.x))

    def _bend(self, z: State) -> tuple[State, torch.Tensor]:
        """Curvatures of the layers by themselves, and the outputs, at which the cost bends."""
        diagonal = self.curvature_diagonal(z)
        assert diagonal is not None
        return diagonal, self.state(z)[-1]

    def _bent(self, bend: tuple[State, torch.Tensor], v: State) -> State:
        """Product of the layers' own Hessian, the nudge's included, with v."""
        diagonal, outputs = bend
        own = tuple(d * b for d, b in zip(diagonal, v, strict=True))
        if self.nudge is None:
            return own
        return (*own[:-1], own[-1] + self.strength * self.nudge.cost.curvature(outputs, self.nudge.y, v[-1]))

    def _gaps(self, z: State, force: State) -> State:
        """Inverse of `_missing`: the way to the exact updates."""
        return force

    def unbounded_force(self, z: State) -> State:
        state = self.state(z)
        drives, _ = self.system.routed_drives(state, self.clamped)
        parts = zip(self.stages, drives, self.units, state, strict=True)
        force = tuple(c * (p - unit.inverse(s)) for c, p, unit, s in parts)
        if self.nudge is None:
            return force
        return tuple(f + p for f, p in zip(force, self.cost_force(state), strict=True))

    def project(self, z: State) -> State:
        return self.system.project(z) if self.origin is None else self._clamped(z, self.system.bounds)

    def interior(self, z: State) -> State:
        return self._clamped(z, self._inner)

    def own_rates(self, z: State) -> State | None:
        if all(unit_bounds == inner for unit_bounds, inner in zip(self.system.bounds, self._inner, strict=True)):
            return None
        return tuple(unit.curvature(s) for unit, s in zip(self.units, self.state(z), strict=True))

    @property
    def _inner(self) -> list[tuple[float, float]]:
        return self.system.inner_bounds(4 * torch.finfo(self.dtype).eps)

    def _clamped(self, z: State, bounds: Sequence[tuple[float, float]]) -> State:
        """z of the nearest state within bounds."""
        if self.origin is None:
            return tuple(
                s if math.isinf(lo) else torch.clamp(s, lo, hi) for s, (lo, hi) in zip(z, bounds, strict=True)
            )
        return tuple(
            d if math.isinf(lo) else torch.clamp(d, lo - self._spread(s), hi - self._spread(s))
            for d, s, (lo, hi) in zip(z, self.origin, bounds, strict=True)
        )

    def _pick(self, z: State) -> None:
        """Choose the routes of the state that z stands for."""
        state = self.state(z)
        for k in range(1, self.depth):
            if self.layers[k].routed:
                self.routes[k] = self.layers[k].drive(state[k - 1])[1]
