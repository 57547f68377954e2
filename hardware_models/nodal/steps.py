"""Steps of a diagonally implicit Runge-Kutta method on the nodal equations of a circuit with capacitors.

With a = 1 / (h a_ii), the current of a capacitor at stage i is

    C v'_i = a C (v_i - v_0) - sum_(j < i) (a_ij / a_ii) C v'_j,

so that all stages but the first have one Jacobian, which is kept from step to step as long as it serves. Inductors
are the same with voltage and current, and charge and flux, exchanged. The embedded method's error in the charges,
put into the circuit as a current, and in the fluxes, as a voltage, gives an error in volts at every node (Hosea and
Shampine 1996, whose filter this is).

A node that a conducting ideal diode holds is no exception: its capacitor then carries nothing but what the voltage
that it is held at demands, and the filter, which knows the diode, finds no error there. Where a diode switches,
errors are those of a slope that jumps, and steps shorten until they are allowed.

States of memristors are like inductors, too, with their rates for voltages. An error of a state counts as the
relative error of the resistance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from physics_ep.dynamics.integrators import Tableau
from physics_ep.errors import InputError

from ..netlists.parts import Parts
from .equations import Array, Drive, NodalEquations
from .factors import Factors
from .nudges import Nudging
from .points import spread
from .power import PowerMeter

_NEWTON = 12
"""Iterations in a stage."""
_SHARE = 1e-3
"""Error of the stages' solution over that allowed for a step."""
_ROUNDING = 4e-16
_SLOW = 0.2
"""Contraction of Newton's method above which the Jacobian is renewed."""
_HIGHEST = 1e30
"""Volts at which a circuit has diverged."""
_LEAST = 1e-15
"""Smallest step over the duration."""

Levels = tuple[Array, Array]
"""Volts (B, voltage sources) and amperes (1, current sources)."""
Course = Callable[[float], Levels]
"""Levels of the sources at a time, seconds."""


class TransientPoint(NamedTuple):
    """A state on the course.

    Attributes
    ----------
    time : float
    z : array (B, 1 + n)
        Unknowns of the circuit at that time, in the order of `hardware_models.nodal.equations`.
    charging : array (B, capacitors)
        Currents of the capacitors, amperes.
    force, kirchhoff, content : array (B,)
        The `residual`, `kirchhoff` and `energy` of a `CircuitTrajectory` at that time.
    power, energy : array (B, kinds)
        Watts, and joules since the start.
    """

    time: float
    z: Array
    charging: Array
    force: Array
    kirchhoff: Array
    content: Array
    power: Array
    energy: Array


class Stepper:
    """Takes steps, and chooses their size.

    Parameters
    ----------
    parts : Parts
    nudge : Nudging or None
    tableau : Tableau
        Stiffly accurate, first stage explicit, one coefficient on the diagonal otherwise.
    rtol, atol : float
    by_part : bool
        Whether to meter each part by itself, as in `transient`.
    longest : float
        Longest step, seconds.

    Attributes
    ----------
    equations : NodalEquations
    steps, rejected : int
    """

    def __init__(
        self,
        parts: Parts,
        nudge: Nudging | None,
        tableau: Tableau,
        rtol: float,
        atol: float,
        by_part: bool = False,
        longest: float = math.inf,
    ) -> None:
        self.longest = longest
        self.equations = NodalEquations(parts, nudge=nudge, capacitors="charging")
        self.meter = PowerMeter(self.equations, by_part)
        self.tableau, self.rtol, self.atol = tableau, rtol, atol
        self.steps = self.rejected = 0
        self.diagonal = tableau.stages[-1][-1]
        self.times = [sum(row) for row in tableau.stages]
        self._gap = np.subtract(tableau.weights, tableau.companion)
        self._factors: Factors | None = None
        self._rate, self._on = 0.0, np.empty(0, bool)  # of the factors
        self._velocity: Array | None = None
        self._step = 0.0

    def point(
        self, time: float, z: Array, charging: Array, levels: Levels, energy: Array | None = None
    ) -> TransientPoint:
        """A state with all that is told of it."""
        equations, n = self.equations, self.equations.n_nodes
        drive = self._drive(levels, len(z))
        across = equations.across(z)
        currents = equations.currents(across, drive)
        loads = charging @ equations.charges
        law = equations.residual(z, currents, equations.conducting(z), drive) + loads
        power = self.meter.read(z, currents, charging)
        return TransientPoint(
            time,
            z,
            charging,
            np.abs(loads[:, 1:n]).max(1, initial=0.0),
            np.abs(law[:, 1:n]).max(1, initial=0.0),
            equations.content(across, drive),
            power,
            np.zeros_like(power) if energy is None else energy,
        )

    def cross(
        self, point: TransientPoint, start: float, end: float, course: Course, duration: float
    ) -> Iterator[TransientPoint]:
        """Steps from a point at `start` to `end`, between which all sources are straight lines or smooth."""
        h = self._first_step(point, end - start)
        least = _LEAST * duration
        rejected_before = False
        while point.time < end:
            left = end - point.time
            h = min(h, self.longest)
            if h > left - least:
                h = left
            elif 2 * h > left:
                h = left / 2
            found = self._attempt(point, h, course)
            if found is None or not np.isfinite(found[1]):  # an error that is no number is above none either
                factor, worst = 0.25, np.inf
            else:
                new, worst = found
                power = -1 / (self.tableau.estimate_order + 1)
                factor = float(np.clip(0.9 * max(worst, 1e-12) ** power, 0.2, 5.0))
            if found is None or worst > 1:
                self.rejected += 1
                rejected_before = True
                h *= min(factor, 0.9)
                if h < least:
                    raise InputError(
                        f"The transient cannot go on at {point.time:.6g} s: steps would be below {least:.1g} s "
                        "(a circuit that switches with no capacitor to slow it, or an ideal diode across a source)."
                    )
                continue
            n = self.equations.n_nodes
            high = int(np.abs(new.z[:, :n]).max(0).argmax())
            if np.abs(new.z[:, high]).max() > _HIGHEST:
                raise InputError(
                    f"The circuit diverges: node {self.equations.parts.nodes[high]!r} passes {_HIGHEST:.0e} V at "
                    f"{new.time:.3g} s."
                )
            self._velocity = (new.z - point.z) / h
            self.steps += 1
            new = new._replace(time=end if h == left else new.time)
            point = new
            yield point
            if rejected_before:
                factor = min(factor, 1.0)
                rejected_before = False
            # A step that stays the same keeps its factors.
            h = h if 1.0 <= factor < 1.3 else h * factor
            self._step = h

    def _first_step(self, point: TransientPoint, length: float) -> float:
        """One that moves no capacitor by more than some tolerances, or the last one where that is shorter."""
        self._velocity = None
        equations, c = self.equations, self.equations.capacitance
        first, second = equations.parts.group("capacitor").nodes.T
        v = np.abs(point.z[:, first] - point.z[:, second])
        fastest = float(np.max(np.abs(point.charging / c) / (self.atol + self.rtol * v), initial=0.0))
        if len(equations.states):
            rates = equations.pushes(point.z)[:, -len(equations.states) :] / equations.span
            fastest = max(fastest, self._state_size(rates, point.z[:, equations.states]))
        h = length / 100 if fastest == 0 else min(length / 100, 10 / fastest)
        return max(h, 1e-12 * length)

    def _drive(self, levels: Levels, batch: int) -> Drive:
        volts, amperes = levels
        return spread(self.equations.drive(volts)._replace(amperes=amperes), batch)

    def _attempt(self, point: TransientPoint, h: float, course: Course) -> tuple[TransientPoint, float] | None:
        """The point one step on and its error over what is allowed; None where the stages have no solution."""
        equations, stages = self.equations, self.tableau.stages
        capacitance = equations.capacitance
        first, second = equations.parts.group("capacitor").nodes.T
        rate = 1 / (h * self.diagonal)
        if rate != self._rate:
            self._factors, self._rate = None, rate
        batch = len(point.z)
        origin = point.z[:, first] - point.z[:, second]
        flows, powers, z = [point.charging], [point.power], point.z
        coils, inductance = equations.coils, equations.inductance
        pushes = [equations.pushes(z)]
        currents = np.empty(0)
        drive = self._drive(course(point.time), batch)
        for i in range(1, len(stages)):
            drive = self._drive(course(point.time + self.times[i] * h), batch)
            known = -rate * capacitance * origin
            for a, flow in zip(stages[i][:-1], flows, strict=False):
                known = known - (a / self.diagonal) * flow
            if len(coils):
                drive = drive._replace(volts=drive.volts.copy())
                pushed = -rate * inductance * point.z[:, coils]
                for a, push in zip(stages[i][:-1], pushes, strict=False):
                    pushed = pushed - (a / self.diagonal) * push
                drive.volts[:, coils - equations.n_nodes] = pushed
            guess = z
            if self._velocity is not None:
                guess = guess + (self.times[i] - self.times[i - 1]) * h * self._velocity
            solved = self._stage(guess, drive, rate, known)
            if solved is None:
                return None
            z, currents = solved
            flows.append(rate * capacitance * (z[:, first] - z[:, second]) + known)
            pushes.append(equations.pushes(z))
            powers.append(self.meter.read(z, currents, flows[-1]))
        worst = self._error(point.z, z, flows, pushes, h, rate)
        energy = point.energy + h * sum(w * p for w, p in zip(self.tableau.weights, powers, strict=True))
        loads = flows[-1] @ equations.charges
        law = equations.residual(z, currents, equations.conducting(z), drive) + loads
        n = equations.n_nodes  # rows of nodes alone are looked at: those of inductors lack their own voltage
        content = equations.content(equations.across(z), drive)
        force, violation = (np.abs(x[:, 1:n]).max(1, initial=0.0) for x in (loads, law))
        return TransientPoint(point.time + h, z, flows[-1], force, violation, content, powers[-1], energy), worst

    def _stage(self, z: Array, drive: Drive, rate: float, known: Array) -> tuple[Array, Array] | None:
        """State and element currents at which Kirchhoff's laws hold; None where Newton's method finds none."""
        equations, n = self.equations, self.equations.n_nodes
        first, second = equations.parts.group("capacitor").nodes.T
        last = np.inf
        on = equations.conducting(z)
        with np.errstate(all="ignore"):
            for k in range(_NEWTON):
                across = equations.across(z)
                currents = equations.currents(across, drive)
                flow = rate * equations.capacitance * (z[:, first] - z[:, second]) + known
                law = equations.residual(z, currents, on, drive) + flow @ equations.charges
                if len(equations.coils):
                    law[:, equations.coils] -= rate * equations.inductance * z[:, equations.coils]
                if self._factors is None or not np.array_equal(on, self._on):
                    entries = equations.jacobian(z, equations.slopes(across), on, charging=rate)
                    if not np.isfinite(entries).all():
                        return None
                    self._factors, self._on = Factors(equations, entries), on
                step = self._factors.solve(-law[:, 1:])
                z = z.copy()
                z[:, 1:] += step
                size = self._size(step[:, : n - 1], z[:, 1:n])
                if len(equations.states):
                    own = self._state_size(step[:, equations.states - 1], z[:, equations.states])
                    size = float(np.maximum(size, own))
                if not np.isfinite(size):
                    self._factors = None
                    return None
                ratio = size / last  # 0 at first
                small = size < 1e-2 * _SHARE or (k and size * ratio < _SHARE * (1 - ratio))
                # Where an ideal diode has switched, or shorts a source, small steps in volts say nothing.
                before, on = on, equations.conducting(z)
                settled = np.array_equal(before, on)
                shorted = self._shorted(z, on)
                small = small and settled and self._size(*shorted) < _SHARE
                if equations.linear or small or (settled and self._at_rounding(step, shorted[0], z)):
                    if equations.behaviours and not equations.defined(z).all():
                        return None
                    return z, equations.currents(equations.across(z), drive)
                if ratio > _SLOW:
                    self._factors = None
                last = size
        self._factors = None
        return None

    def _at_rounding(self, step: Array, shorted: Array, z: Array) -> bool:
        """Whether no voltage or state has moved, or is left on a diode, by more than voltages round to.

        Currents are no measure: one of them may be a billion times all voltages.
        """
        n = self.equations.n_nodes
        moved = np.hstack([step[:, : n - 1], step[:, self.equations.states - 1], shorted])
        largest = np.abs(z[:, 1:n]).max(1, keepdims=True, initial=0.0)
        return bool((np.abs(moved) <= _ROUNDING * largest).all())

    def _shorted(self, z: Array, on: Array) -> tuple[Array, Array]:
        """Volts across diodes that conduct, and of their first nodes, (B, branches)."""
        first, second = self.equations.branch_ends[:, :2].T
        return (z[:, first] - z[:, second]) * on, z[:, first]

    def _error(
        self, before: Array, after: Array, flows: list[Array], pushes: list[Array], h: float, rate: float
    ) -> float:
        equations, n = self.equations, self.equations.n_nodes
        gap = h * sum(w * f for w, f in zip(self._gap, flows, strict=True))
        missing = rate * gap @ equations.charges
        if len(equations.coils):
            missing[:, equations.coils] -= rate * h * sum(w * p for w, p in zip(self._gap, pushes, strict=True))
        assert self._factors is not None
        error = self._factors.solve(missing[:, 1:])
        worst = self._size(error[:, : n - 1], np.maximum(np.abs(before[:, 1:n]), np.abs(after[:, 1:n])))
        if len(equations.states):
            own = self._state_size(error[:, equations.states - 1], after[:, equations.states])
            worst = float(np.maximum(worst, own))  # NaN where either is
        return worst

    def _state_size(self, change: Array, s: Array) -> float:
        """Largest change of a memristor's state, as one of its resistance, over what is allowed."""
        return float(np.max(np.abs(change) * self.equations.memristors.weight(s), initial=0.0)) / self.rtol

    def _size(self, change: Array, z: Array) -> float:
        """Largest change of a node's voltage over what is allowed."""
        return float(np.max(np.abs(change) / (self.atol + self.rtol * np.abs(z)), initial=0.0))
