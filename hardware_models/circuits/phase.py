"""Phases of a circuit: Kirchhoff's current law in the state, or carried in the displacement from a free state."""

from __future__ import annotations

from typing import NamedTuple, cast

import numpy as np
import torch

from physics_ep.blocks import State
from physics_ep.dynamics.motion import Moment, Motion
from physics_ep.errors import InputError
from physics_ep.nudging import Nudge
from physics_ep.system import EnergySystem, Inputs, Phase

from . import kernels
from .co_content import compiled_co_content
from .factorizations import Bordered, Constrained, Matrix, MatrixFactor, NotPositive
from .layout import PreparedCircuit
from .tie import Tie, tied

ROUNDING = 1e-9
"""How far beyond a bound a clamped output may lie before it is refused, over its own size or 1 V."""

HELD = 1e14
"""What is added to the diagonal of an unknown that a bound holds, over the largest entry: it does not move."""

LEANS = 0.0, 1e-14, 1e-10
"""What is added to the diagonal of a matrix that is not positive definite, over the largest entry, in turn."""


class Currents(NamedTuple):
    """Kirchhoff's current law at z.

    Attributes
    ----------
    force : array (B, n)
        Weighted current into each unknown, -dF/dz, not projected.
    plain : array (B, n)
        The same without the junctions'.
    across : array (B, k)
        Voltages across the junctions (or what they move by).
    slopes : array (B, k)
        di/dv of the junctions.
    """

    force: np.ndarray
    plain: np.ndarray
    across: np.ndarray
    slopes: np.ndarray


def soft_aim(phase: Phase, tolerance: float) -> float:
    """`Phase.aim` of a displaced phase of a circuit: the tolerance as if soft nodes were all there are.

    The force that counts as 1 allows for the rounding of the largest conductance. A nudge pulls at the outputs:
    where their conductance is far smaller, its curvature is below the tolerance, and the mirror image of the other
    nudge's displacement would pass for this one's, with the bias of a one-sided nudge.
    """
    system = phase.system
    if phase.origin is None or phase.nudge is None:
        return tolerance
    return tolerance * min(1.0, system.nudge_scale / float(system.residual_scale))


class CircuitPhase(Phase):
    """Currents, slopes and factorisations of one relaxation of a circuit.

    The unknown is the state, or a displacement from the origin. A nudge whose cost `holds` the outputs (coupled
    learning) is no current, but a voltage source at each output node: the unknown that the node follows has equal
    bounds below and above, as between two ideal diodes. Where outputs are differences of nodes, sources between
    them keep the unknowns to a plane (`Tie`).
    """

    carries_displacements = True
    aim = soft_aim

    def __init__(self, system: EnergySystem, inputs: Inputs, origin: State | None, balanced: bool) -> None:
        super().__init__(system, inputs, origin, balanced)
        self.prepared: PreparedCircuit = inputs.cache
        self.layout = self.prepared.layout
        self.net = self.layout.net
        self.low, self.high = self.prepared.low, self.prepared.high
        self.base: np.ndarray | None = None
        self.resting: np.ndarray | None = None
        if self.origin is not None:
            u = self.origin[0].numpy()
            plain, self.base = kernels.linear_force(
                u, self.prepared.offset, self.prepared.injected, self.prepared.conductance, self.net
            )
            flow, _ = kernels.junctions(self.base, self.prepared.junction_values, self.net)
            force = kernels.with_junctions(plain, flow, self.net)
            if self.low is not None and self.high is not None:
                self.low, self.high = self.low - u, self.high - u
            if not balanced:
                self.resting = force
            elif self.low is not None:
                # Only the free part of the origin's force is an error: bounds hold the rest.
                zero = np.zeros_like(force)
                self.resting = np.where(self.held(zero, force), force, 0.0)
        self._free: MatrixFactor | None = None
        self.tie: Tie | None = None

    def nudged(self, nudge: Nudge | None) -> CircuitPhase:
        twin = cast(CircuitPhase, super().nudged(nudge))
        twin._free = twin.tie = None
        if twin.clamps:
            twin._clamp()
        return twin

    @property
    def clamps(self) -> bool:
        """Whether the nudge holds the outputs in place of pulling at them."""
        return self.nudge is not None and self.nudge.cost.holds

    @property
    def pulls(self) -> bool:
        """Whether the nudge draws currents."""
        return self.nudge is not None and not self.nudge.cost.holds

    def _clamp(self) -> None:
        """Bound the outputs' unknowns to where the nudge holds them."""
        assert self.nudge is not None
        columns, names = self.layout.output_columns.tolist(), cast(tuple[str, ...], self.system.output_names)
        if self.origin is None:
            raise InputError("Argument nudge must act on a free state that is known, where it clamps the outputs.")
        if self.layout.output_minus is not None:
            self.tie = self._tied(names)
            return
        if len(set(columns)) < len(columns):
            twice = names[next(k for k, column in enumerate(columns) if column in columns[:k])]
            raise InputError(
                "Argument system must have output nodes that can be held one by one to clamp them, but an "
                f"amplifier or a short ties {twice!r} to another output."
            )
        outputs = self.layout.outputs(self.origin[0])
        moved = self.nudge.column(outputs) * (self.nudge.y - outputs) / self.layout.output_scale
        shape = (len(outputs), self.layout.n)
        low = np.full(shape, -np.inf) if self.low is None else np.broadcast_to(self.low, shape).copy()
        high = np.full(shape, np.inf) if self.high is None else np.broadcast_to(self.high, shape).copy()
        target = moved.numpy()
        room = ROUNDING * (1 + np.abs(target) + np.abs(self.origin[0].numpy()[:, columns]))
        beyond = np.argwhere((target < low[:, columns] - room) | (target > high[:, columns] + room))
        if len(beyond):
            example, k = beyond[0].tolist()
            held = float(outputs[example, k] + moved[example, k] * self.layout.output_scale[k])
            raise InputError(
                "Argument y must leave the outputs where ideal diodes let them be held, but node "
                f"{names[k]!r} of example {example} would be held at {held:g} V, against an ideal diode."
            )
        low[:, columns] = high[:, columns] = target
        self.low, self.high = low, high

    def _tied(self, names: tuple[str, ...]) -> Tie:
        """Sources that hold outputs of which some are differences."""
        assert self.nudge is not None
        assert self.origin is not None
        at, share = self.layout.output_rows
        rows = np.zeros((len(at), self.layout.n))
        for column, part in zip(at.T, share.T, strict=True):
            np.add.at(rows, (np.arange(len(at)), column), part)
        if self.low is not None and self.high is not None:
            bounded = (np.isfinite(self.low) | np.isfinite(self.high)).any(0)
            for k in np.flatnonzero((bounded & (rows != 0)).any(1)):
                raise InputError(
                    "Argument system must have no ideal diodes at the outputs that are clamped, where one is a "
                    f"difference, but {names[k]!r} has."
                )
        outputs = self.layout.outputs(self.origin[0])
        target = self.nudge.column(outputs) * (self.nudge.y - outputs)
        return tied(rows, target.numpy(), names)

    # -- Kirchhoff's law --------------------------------------------------------------------------------------

    def currents(self, z: np.ndarray, rows: np.ndarray | slice = slice(None)) -> Currents:
        """Currents of all elements at the unknowns z (b, n) of the examples `rows`."""
        known = self.prepared
        if self.base is None:
            plain, across = kernels.linear_force(z, known.offset[rows], known.injected, known.conductance, self.net)
        else:
            still = np.zeros((1, len(self.net.unknown)))
            plain, across = kernels.linear_force(z, still, still[0], known.conductance, self.net)
            if self.resting is not None:
                plain += self.resting[rows]
        if self.pulls:
            plain += self.pull(z, rows)
        flow, slopes = self.junctions(across, rows)
        force = kernels.with_junctions(plain, flow, self.net)
        return Currents(force if self.tie is None else self.tie.along(force), plain, across, slopes)

    def junctions(
        self, across: np.ndarray, rows: np.ndarray | slice = slice(None)
    ) -> tuple[np.ndarray, np.ndarray]:
        """Currents (or their changes) and slopes of the junctions at `across`."""
        values = self.prepared.junction_values
        if self.base is None:
            return kernels.junctions(across, values, self.net)
        return kernels.junction_differences(self.base[rows], across, values, self.net)

    def pull(self, z: np.ndarray, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Force of the nudge on the unknowns, (b, n)."""
        assert self.nudge is not None
        nudge = self._rows(rows)
        moved = self.layout.outputs(torch.from_numpy(z))
        if self.origin is None:
            slope = nudge.cost.gradient(moved, nudge.y)
        else:
            at = self.layout.outputs(self.origin[0][rows])
            slope = nudge.cost.gradient(at, nudge.y) + nudge.cost.gradient_difference(at, moved, nudge.y)
        return self.layout.into_unknowns(-nudge.column(slope) * slope).numpy()

    def _rows(self, rows: np.ndarray | slice) -> Nudge:
        """The nudge of some examples."""
        nudge = self.nudge
        assert nudge is not None
        if isinstance(rows, slice):
            return nudge
        index = torch.from_numpy(rows)
        beta = nudge.beta
        return Nudge(
            nudge.cost, nudge.y[index], beta[index] if isinstance(beta, torch.Tensor) and beta.ndim else beta
        )

    def held(self, z: np.ndarray, force: np.ndarray, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Tell which unknowns a bound holds against the force on them, bool of the shape of z."""
        if self.low is None or self.high is None:
            return np.zeros(z.shape, dtype=bool)
        return ((z <= self.low[rows]) & (force <= 0)) | ((z >= self.high[rows]) & (force >= 0))

    def clipped(self, z: np.ndarray, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Nearest z within the bounds, at which outputs that are held lie where they are held."""
        found = z if self.low is None or self.high is None else np.clip(z, self.low[rows], self.high[rows])
        return found if self.tie is None else self.tie.onto(found, rows)

    # -- second derivatives -----------------------------------------------------------------------------------

    def factor(
        self,
        z: np.ndarray,
        slopes: np.ndarray,
        held: np.ndarray | None = None,
        rows: np.ndarray | slice = slice(None),
    ) -> MatrixFactor:
        """Factorise the Hessian d2F/dz2 at z, for Newton's steps.

        A Hessian that is singular, as where diodes that are off are all that holds a node, is factorised with
        1e-14, or else 1e-10, of its largest diagonal entry added to the diagonal.

        Parameters
        ----------
        z : array (b, n)
            Unknowns: the state, or a displacement from the origin.
        slopes : array (b, k)
            Slopes of the junctions, siemens.
        held : bool array (b, n), optional
            Unknowns that a bound holds, which do not move.
        rows : int array (b,) or slice
            Examples of the batch that z belongs to. Default: all.

        Returns
        -------
        MatrixFactor

        Raises
        ------
        NotPositive
            If F curves down in some direction: the nudge is negative and beyond its limit.
        """
        for lean in LEANS[:-1]:
            try:
                return self._factor(z, slopes, held, rows, lean)
            except NotPositive:
                continue
        return self._factor(z, slopes, held, rows, LEANS[-1])

    def _factor(
        self, z: np.ndarray, slopes: np.ndarray, held: np.ndarray | None, rows: np.ndarray | slice, lean: float
    ) -> MatrixFactor:
        known = self.prepared
        diagonal = known.diagonal[None]
        stiffness = self._stiffness(rows)
        if stiffness is not None:
            diagonal = diagonal + stiffness
        off = known.off[None]
        if slopes.shape[1]:
            batch = len(slopes)
            diagonal = np.repeat(diagonal, batch // len(diagonal), 0)
            if known.matrix is None:
                off = np.repeat(off, batch, 0)
            diagonal, off = kernels.with_slopes(diagonal, off, slopes, self.net)
        if lean:
            diagonal = diagonal + lean * diagonal.max()
        if held is not None and held.any():
            diagonal = diagonal + np.where(held, HELD * diagonal.max(), 0.0)
        matrix = known.matrix if known.matrix is not None else Matrix(self.layout.pattern, off)
        found = matrix.factor(diagonal)
        if self.tie is not None:
            return Constrained(found, self.tie.rows, len(z))
        if not self.pulls or stiffness is not None:
            return found
        return self._bent(found, z, rows)

    def _bent(self, factor: MatrixFactor, z: np.ndarray, rows: np.ndarray | slice) -> MatrixFactor:
        """Add to the factor the curvature of a cost that may couple the outputs."""
        nudge, layout = self._rows(rows), self.layout
        state = torch.from_numpy(z) if self.origin is None else self.origin[0][rows] + torch.from_numpy(z)
        outputs = layout.outputs(state)
        count = outputs.shape[1]
        unit = torch.eye(count, dtype=torch.float64)
        columns = [nudge.cost.curvature(outputs, nudge.y, unit[k].expand_as(outputs)) for k in range(count)]
        bend = nudge.column(outputs) * torch.stack(columns, 2).flatten(1)
        at, share = layout.output_rows
        return Bordered(factor, at, share, bend.reshape(-1, count, count).numpy())

    def _stiffness(self, rows: np.ndarray | slice) -> np.ndarray | None:
        """Second derivatives of a nudge that is linear in the outputs on the unknowns, (1 or b, n); else None.

        Of outputs that are differences they are no diagonal, and are left to `_bent`. One row serves all examples
        where they have it in common: so does then one factorisation.
        """
        if self.nudge is None or self.clamps or self.layout.output_minus is not None:
            return None
        beta = torch.as_tensor(self.nudge.beta, dtype=torch.float64)
        y = self.nudge.y if isinstance(rows, slice) else self.nudge.y[torch.from_numpy(rows)]
        linear = self.nudge.cost.linear(y, (beta[rows] if beta.ndim else beta[None])[:, None])
        if linear is None:
            return None
        shunt = torch.as_tensor(linear[0], dtype=torch.float64)
        shunt = shunt.expand(len(shunt) if shunt.ndim == 2 else 1, len(self.layout.output_columns))
        stiffness = torch.zeros(len(shunt), self.layout.n, dtype=torch.float64)
        stiffness.index_add_(1, self.layout.output_columns, shunt * self.layout.output_scale**2)
        return stiffness.numpy()

    def response(self, force: torch.Tensor) -> torch.Tensor | None:
        """First-order change of the outputs (B, n_out) under a force on them, by the factors at the origin."""
        if self.origin is None:
            return None
        batch, layout = len(force), self.layout
        rest = np.zeros((batch, layout.n))
        found = self.currents(rest)
        held = None if self.low is None else self.held(rest, found.force)
        if self._free is None:
            self._free = self.factor(rest, found.slopes, held)
        right = layout.into_unknowns(force).numpy()
        right_side = right if held is None else np.where(held, 0.0, right)
        return layout.outputs(torch.from_numpy(self._free.solve(right_side)))

    # -- the contract -----------------------------------------------------------------------------------------

    def start(self) -> State:
        if self.origin is None:
            return (torch.from_numpy(self.clipped(np.zeros((len(self.x), self.layout.n)))),)
        if self.clamps:  # a free state has no force on it: only the clamp itself tells that it has to move
            return (torch.from_numpy(self.clipped(np.zeros((len(self.x), self.layout.n)))),)
        return super().start()

    def energy(self, z: State) -> torch.Tensor:
        state = self.state(z)
        known = self.prepared
        volts = self.layout.spread(state[0]).numpy() + known.offset
        total = torch.from_numpy(compiled_co_content(self.layout, volts, known.learnt, known.current))
        if self.nudge is None or self.clamps:
            return total
        return total + self.nudge.energy(self.system.outputs(state))

    def force(self, z: State) -> State:
        u = z[0].numpy()
        force = self.currents(u).force
        return (torch.from_numpy(np.where(self.held(u, force), 0.0, force)),)

    def project(self, z: State) -> State:
        return (torch.from_numpy(self.clipped(z[0].numpy())),)

    def residual(self, force: State) -> torch.Tensor:
        """Largest current that is missing at an unknown, over the residual scale: weights are taken out."""
        return (force[0].abs() / self.layout.unknown_weight).amax(1) / self.system.residual_scale


class NodeMotion(Motion):
    """Every unknown of a circuit charges a capacitor, of a capacitance times its weight: C du/dt = -dF/du.

    It is gradient flow, in these time constants.

    Parameters
    ----------
    phase : CircuitPhase
    capacitance : float
        Farad (`Circuit.node_capacitance`).
    """

    phase: CircuitPhase
    flow = "gradient"

    def __init__(self, phase: CircuitPhase, capacitance: float) -> None:
        super().__init__(phase)
        self.capacitance = capacitance

    def velocity(self, w: State) -> State:
        (force,) = self.phase.force(w)
        return (force / (self.phase.layout.unknown_weight * self.capacitance),)

    def observe(self, w: State, velocity: State) -> Moment:
        force = (velocity[0] * self.phase.layout.unknown_weight * self.capacitance,)
        return Moment(self.phase.state(w), self.phase.energy(w), self.phase.residual(force))
