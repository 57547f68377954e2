"""Newton's method on the co-content of a circuit.

Steps are taken in two ways. *Limited* ones follow SPICE (Nagel 1975, ERL-M520): a junction is linearised anew not
where the last step put it, but nearer, where its exponential allows. Here that is where the junction itself would
settle if the network behind it were a resistance (`kernels.settled`): what the junction sees where all of
them move together, which the first factorisation tells, at least the resistance of its own nodes. They are quick,
but nothing says that they settle. *Damped* ones do where the co-content is convex: along the Newton direction, bent
at the bounds of ideal diodes (Bertsekas 1982), as far as the force along it has the right sign, which in a convex
function means that the co-content has fallen. They are taken where limited ones have not settled, and where all is
linear but ideal diodes, after coordinate descent. A factorisation is used again while a step with it pays.
"""

from __future__ import annotations

import numpy as np
import torch

from physics_ep.blocks import State
from physics_ep.relaxation.solvers import Anderson, GradientFlow, Solver

from ..laws.elements import THERMAL_VOLTAGE
from . import kernels
from .factorizations import MatrixFactor, NotPositive
from .matrix_kernels import descend
from .phase import CircuitPhase, Currents

LIMITED_STEPS = 15
"""After so many, damped steps."""
REUSE = 1e-2
"""A factorisation is kept while one step with it lowers the residual to this part."""
TRIALS = 40
"""Lengths of one step that are tried at most."""


class Newton(Solver):
    """Newton's method: limited steps, then damped ones."""

    patience = 50

    def __init__(self, phase: CircuitPhase, start: State) -> None:
        self.phase = phase
        self.spent = 0
        self.z = np.ascontiguousarray(phase.clipped(start[0].numpy()))
        self.here = phase.currents(self.z)
        self.damped = phase.low is not None and phase.layout.linear
        self.factor: MatrixFactor | None = None
        self.before = np.inf
        self.steps = 0
        if phase.low is not None and phase.layout.linear and phase.nudge is None and phase.base is None:
            self._descend()
        self.leaky = bool(getattr(phase.system, "leaky", False))
        if not self.damped:
            self._open(start)

    def evaluate(self) -> tuple[State, torch.Tensor]:
        self.spent += 1
        self.free = np.where(self.phase.held(self.z, self.here.force), 0.0, self.here.force)
        self.residual = (np.abs(self.free) / self.phase.layout.unknown_weight.numpy()).max(
            1
        ) / self.phase.system.residual_scale
        if self.leaky:
            self.residual = np.maximum(self.residual, self._step())
        return (torch.from_numpy(self.z),), torch.from_numpy(self.residual)

    def _step(self) -> np.ndarray:
        """Largest step of Newton's method by true slopes, (B,) volts: amperes say little where leakage holds."""
        held = None if self.phase.low is None else self.phase.held(self.z, self.here.force)
        try:
            step = self.phase.factor(self.z, self.here.slopes, held).solve(self.free)
        except NotPositive:
            return np.ones(len(self.z))  # flat to the last digit: far from settled
        return np.asarray(np.abs(step).max(1, initial=0.0))

    def advance(self, active: torch.Tensor) -> None:
        rows: np.ndarray | slice = slice(None)
        if len(active) > 1 and not bool(active.all()):
            rows = active.nonzero()[:, 0].numpy()
        self.steps += 1
        if not self.damped and self.steps > LIMITED_STEPS:
            self.damped, self.factor = True, None
        if self.damped:
            self._damped(rows)
        else:
            self._limited(rows)

    # -- limited steps ----------------------------------------------------------------------------------------

    def _open(self, start: State) -> None:
        """Choose the voltages at which junctions are linearised first: their own, or below conduction."""
        phase = self.phase
        self.at = self.here.across
        self.resistance: np.ndarray | None = None
        net, values = phase.net, phase.prepared.junction_values
        loads = np.append(phase.prepared.diagonal / phase.layout.unknown_weight.numpy(), 0.0)
        around = np.maximum(loads[net.unknown[net.junctions[:, 0]]], loads[net.unknown[net.junctions[:, 1]]])
        self.local = 1 / np.maximum(around, 1e-15)
        diode = net.kinds == kernels.DIODE
        self.own = np.where(
            net.kinds == kernels.PIECEWISE, np.inf, values[:, 1] * np.where(diode, THERMAL_VOLTAGE, 1)
        )
        if phase.base is not None or bool(start[0].any()):
            return
        knee = self.own * np.log1p(self.own / (self.local * np.where(diode, values[:, 0], 1.0)))
        self.at = np.where(diode, np.minimum(self.at, knee), self.at)

    def _limited(self, rows: np.ndarray | slice) -> None:
        phase, here = self.phase, self.here
        at, across = self.at[rows], here.across[rows]
        whole = np.array_equal(at, across)
        worst = float(self.residual[rows].max())
        plain = whole and isinstance(rows, slice) and phase.low is None
        reuse = self.factor is not None and plain and worst <= REUSE * self.before
        flow, slopes = phase.junctions(at, rows)
        force = here.force[rows]
        if not whole:
            force = kernels.with_junctions(here.plain[rows], flow + slopes * (across - at), phase.net)
        held = None if phase.low is None else phase.held(self.z[rows], force, rows)
        if held is not None:
            force = np.where(held, 0.0, force)
        if not reuse:
            try:
                self.factor = phase.factor(self.z[rows], slopes, held, rows)
            except NotPositive:
                self.damped, self.factor = True, None
                return
        self.before = worst
        assert self.factor is not None
        step = self.factor.solve(force)
        z = phase.clipped(self.z[rows] + (step if held is None else np.where(held, 0.0, step)), rows)
        self._put(rows, z, phase.currents(z, rows))
        if phase.layout.linear:
            return
        if not reuse:
            self.at = self.at.copy()
            wanted = self.here.across[rows]
            if phase.base is not None:
                flow, slopes = kernels.junctions(phase.base[rows] + at, phase.prepared.junction_values, phase.net)
            self.at[rows] = self._nearer(at, wanted, flow + slopes * (wanted - at), rows)
        else:
            self.at = self.here.across
        if not isinstance(rows, slice):
            self.factor = None

    def _nearer(
        self, last: np.ndarray, wanted: np.ndarray, sent: np.ndarray, rows: np.ndarray | slice
    ) -> np.ndarray:
        """Voltages at which to linearise junctions after a step from `last` to `wanted` with currents (b, k)."""
        phase = self.phase
        if not (np.abs(wanted - last) > kernels.NEAR * self.own).any():
            return wanted
        values, kinds, behind = phase.prepared.junction_values, phase.net.kinds, self._behind(rows)
        if phase.base is None:
            return np.asarray(kernels.settled(wanted, sent, behind, last, values, kinds))
        base = phase.base[rows]
        found = kernels.settled(base + wanted, sent, behind, base + last, values, kinds)
        return np.where(found == base + wanted, wanted, found - base)

    def _behind(self, rows: np.ndarray | slice) -> np.ndarray:
        """Resistance that junctions see where the same current flows through all of them, (b, k) ohm."""
        phase = self.phase
        if self.resistance is None:
            assert self.factor is not None
            size = len(self.z[rows])
            pushed = kernels.with_junctions(
                np.zeros((size, phase.layout.n)), np.full((size, len(phase.net.kinds)), -1.0), phase.net
            )
            still = np.zeros((1, len(phase.net.unknown)))
            _, across = kernels.linear_force(
                self.factor.solve(pushed), still, still[0], phase.prepared.conductance, phase.net
            )
            found = np.maximum(across, self.local)
            if isinstance(rows, slice):
                self.resistance = found
            return found
        return self.resistance[rows]

    # -- damped steps -----------------------------------------------------------------------------------------

    def _damped(self, rows: np.ndarray | slice) -> None:
        phase = self.phase
        z, here = self.z[rows], self._of(rows)
        held = phase.held(z, here.force, rows)
        force = np.where(held, 0.0, here.force)
        try:
            factor = phase.factor(z, here.slopes, held, rows)
        except NotPositive:
            # No minimum: nothing to be had.
            lost = np.full_like(z, np.nan)
            self._put(rows, lost, phase.currents(lost, rows))
            return
        step = np.where(held, 0.0, factor.solve(force))
        slope = (force * step).sum(1)
        length, high = np.ones(len(z)), np.full(len(z), np.inf)
        for _ in range(TRIALS):
            trial = phase.clipped(z + length[:, None] * step, rows)
            found = phase.currents(trial, rows)
            with np.errstate(invalid="ignore", over="ignore"):
                ahead = (found.force * (trial - z)).sum(1)
            good = np.isfinite(ahead) & (ahead >= -0.1 * length * slope)
            if good.all():
                break
            high = np.where(good, high, length)
            # Between the bracket's ends where the force along the step would vanish, were it linear.
            guess = np.where(np.isfinite(ahead), length * slope / (slope - ahead / length), 0.0)
            length = np.where(good, length, np.clip(np.nan_to_num(guess), 0.05 * high, 0.7 * high))
        self._put(rows, trial, found)

    def _of(self, rows: np.ndarray | slice) -> Currents:
        return type(self.here)(*(part[rows] for part in self.here))

    def _put(self, rows: np.ndarray | slice, z: np.ndarray, found: Currents) -> None:
        """Take z and its currents over for some examples."""
        if isinstance(rows, slice):
            self.z, self.here = z, found
            return
        self.z = self.z.copy()
        self.z[rows] = z
        here = type(self.here)(*(part.copy() for part in self.here))
        for part, new in zip(here, found, strict=True):
            part[rows] = new
        self.here = here

    # -- ideal diodes -----------------------------------------------------------------------------------------

    def _descend(self) -> None:
        """Coordinate descent, until which unknowns their bounds hold no longer changes."""
        phase = self.phase
        known = phase.prepared
        assert phase.low is not None
        assert phase.high is not None
        rest = phase.currents(np.zeros_like(self.z)).force
        graph = phase.layout.neighbours
        self.z = descend(self.z, rest, known.diagonal, known.off, phase.low, phase.high, *graph, DESCENT_SWEEPS)
        self.here = phase.currents(self.z)


DESCENT_SWEEPS = 100

SOLVERS = {"newton": Newton, "gradient_flow": GradientFlow, "anderson": Anderson}
