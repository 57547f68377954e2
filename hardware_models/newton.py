"""Newton's method on the co-content of a circuit.

Steps are taken in two ways. *Limited* ones are SPICE's (Nagel 1975, ERL-M520): each junction is linearised not
where the last step put it but only as far along as its exponential allows, v + n VT ln(1 + dv / (n VT)), so that a
diode that turns on costs a few steps; they start from diodes that conduct about as much as what surrounds them. They
are quick, but nothing says that they settle. *Damped* ones do where the co-content is convex: along the Newton
direction, bent at the bounds of ideal diodes (Bertsekas 1982), as far as the force along it has the right sign,
which in a convex function means that the co-content has fallen. Circuits with ideal diodes take those alone; others
when limited steps have not settled. Both reuse a factorisation while that pays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from physics_ep.equilibrium import State
from physics_ep.solvers import SOLVERS as GENERAL
from physics_ep.solvers import Solver

from . import element_kernels as kernels
from .elements import ELEMENTS, THERMAL_VOLTAGE
from .factorizations import Factor, NotPositive

if TYPE_CHECKING:
    from .circuit_phases import CircuitPhase, Currents

LIMITED_STEPS = 25
"""After so many, damped steps."""
REUSE = 1e-2
"""A factorisation is kept while one step with it lowers the residual to this part."""
TRIALS = 40
"""Of a step's length."""


class Newton(Solver):
    """Newton's method: limited steps, then damped ones."""

    patience = 25

    def __init__(self, phase: CircuitPhase, start: State) -> None:
        self.phase = phase
        self.spent = 0
        self.z = np.ascontiguousarray(phase.clipped(start[0].numpy()))
        self.here = phase.currents(self.z)
        self.damped = phase.low is not None
        self.factor: Factor | None = None
        self.worst = np.inf
        self.steps = 0
        if phase.low is not None and phase.layout.linear and phase.nudge is None and phase.base is None:
            self._descend()
        if not self.damped:
            self._open(start)

    def evaluate(self) -> tuple[State, torch.Tensor]:
        self.spent += 1
        self.free = np.where(self.phase.held(self.z, self.here.force), 0.0, self.here.force)
        # An overflow is no equilibrium, but the next limited step may well come back from it.
        size = np.nan_to_num(np.abs(self.free), nan=np.inf, posinf=1e300) if not self.damped else np.abs(self.free)
        self.residual = (size / self.phase.system.unknown_weight.numpy()).max(1) / self.phase.system.residual_scale
        return (torch.from_numpy(self.z),), torch.from_numpy(self.residual)

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
        """Where junctions are linearised first: where they are, or diodes on the verge of conducting."""
        phase = self.phase
        self.at = self.here.across.copy()
        if phase.base is not None or bool(start[0].any()) or phase.layout.linear:
            return
        net, values = phase.net, phase.prepared.junction_values
        loads = np.append(phase.prepared.diagonal, 0.0)
        around = np.maximum(loads[net.unknown[net.junctions[:, 0]]], loads[net.unknown[net.junctions[:, 1]]])
        diode = (net.kinds == ELEMENTS["diode"].kind) & (around > 0)
        scale = values[:, 1] * THERMAL_VOLTAGE
        knee = scale * np.log(np.maximum(around * scale / np.maximum(values[:, 0], 1e-300), 1.0))
        self.at = np.where(diode, np.minimum(np.maximum(self.at, knee), np.maximum(knee, 0)), self.at)

    def _limited(self, rows: np.ndarray | slice) -> None:
        phase, here = self.phase, self.here
        at, across = self.at[rows], here.across[rows]
        whole = np.array_equal(at, across)
        worst = float(self.residual[rows].max())
        reuse = self.factor is not None and whole and isinstance(rows, slice) and worst <= REUSE * self.worst
        if whole:
            force, slopes = here.force[rows], here.slopes[rows]
        else:
            flow, slopes = phase.junctions(at, rows)
            force = kernels.with_junctions(here.plain[rows], flow + slopes * (across - at), phase.net)
        if not reuse:
            try:
                self.factor = phase.factor(self.z[rows], slopes, None, rows)
            except NotPositive:
                self.damped, self.factor = True, None
                return
        self.worst = worst
        assert self.factor is not None
        z = self.z[rows] + self.factor.solve(force)
        self._put(rows, z, phase.currents(z, rows))
        if not isinstance(rows, slice):
            self.factor = None
        self.at[rows] = self._nearer(at, self.here.across[rows], rows)

    def _nearer(self, last: np.ndarray, wanted: np.ndarray, rows: np.ndarray | slice) -> np.ndarray:
        """Where to linearise junctions after a step from `last` to `wanted` (b, k)."""
        phase = self.phase
        kinds, values = phase.net.kinds, phase.prepared.junction_values
        diode, memristor = kinds == ELEMENTS["diode"].kind, kinds == ELEMENTS["memristor"].kind
        scale = np.where(diode, THERMAL_VOLTAGE, 1.0) * values[:, 1]
        step = wanted - last
        along = np.abs(step)
        base = last if phase.base is None else last + phase.base[rows]
        rising = (diode & (step > 0)) | (memristor & (step * (base + step) > 0))
        limited = rising & (along > 2 * scale)
        safe = np.where(limited, scale, 1.0)
        return np.where(limited, last + np.sign(step) * safe * np.log1p(along / safe), wanted)

    # -- damped steps -----------------------------------------------------------------------------------------

    def _damped(self, rows: np.ndarray | slice) -> None:
        phase = self.phase
        z, here = self.z[rows], self._of(rows)
        held = phase.held(z, here.force, rows)
        force = np.where(held, 0.0, here.force)
        try:
            factor = phase.factor(z, here.slopes, held, rows)
        except NotPositive:
            # Flat directions (diodes without leakage that are off) or none of a minimum: lean on the diagonal.
            try:
                slopes = here.slopes + 1e-9 * (1e-12 + np.abs(here.slopes).max(initial=0.0))
                factor = phase.factor(z, slopes, held, rows)
            except NotPositive:
                self.z[rows] = np.nan
                self._put(rows, self.z[rows], phase.currents(self.z[rows], rows))
                return
        step = np.where(held, 0.0, factor.solve(force))
        slope = (force * step).sum(1)
        length, low, high = np.ones(len(z)), np.zeros(len(z)), np.full(len(z), np.inf)
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
        assert phase.low is not None and phase.high is not None
        rest = phase.currents(np.zeros_like(self.z)).force
        graph = phase.system.neighbours
        self.z = kernels.descend(
            self.z, rest, known.diagonal, known.off, phase.low, phase.high, *graph, DESCENT_SWEEPS
        )
        self.here = phase.currents(self.z)


DESCENT_SWEEPS = 100

SOLVERS = {"newton": Newton, **{name: GENERAL[name] for name in ("gradient_flow", "anderson")}}
