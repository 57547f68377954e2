"""Phases of the analog circuit: sweeps to its equilibria, and the charging of its capacitors in time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from physics_ep.blocks import State, largest
from physics_ep.cost import OutputForce, SquaredError
from physics_ep.errors import argument_error
from physics_ep.integrators import Tableau
from physics_ep.motion import Moment, Motion
from physics_ep.nudging import Nudge
from physics_ep.system import Inputs, Phase

from . import kernels, transients
from .arrays import array, columns
from .unit_graph import UnitGraphPhase

if TYPE_CHECKING:
    from .analog import AnalogHopfieldCircuit

NEAR_BOUND = 1e-9
"""Outputs this near to the supply, as a share of it, do not tell their amplifier's input."""


class AnalogPhase(UnitGraphPhase):
    """Sweeps in V / V_s, with conductances over the circuit's unit 1 / (A R): the kernels know no units."""

    system: AnalogHopfieldCircuit

    def __init__(self, system: AnalogHopfieldCircuit, inputs: Inputs, origin: State | None, balanced: bool) -> None:
        Phase.__init__(self, system, inputs, origin, balanced=False)
        self.balanced = balanced
        unit, volt = system.nudge_scale, system.supply
        self._clamped = columns(inputs.x / volt)
        self._weight, self._bias = array(system.weight / unit), array(system.bias / (unit * volt))
        # A node's own 1 / (A R) over the unit; the nudge adds to it.
        self._load = (system.unit_conductance / unit)[:, None].expand(-1, len(inputs.x))
        self._pull = self._pulling(torch.zeros_like(self._load), self._load)
        if self.origin is not None:
            drive = system.drives(self.origin, inputs.x)
            self._anchor = drive / (system.unit_conductance * volt)
            mismatch = (system.respond(drive) - self.origin[0]) / volt
            self._origin = (
                columns(torch.cat([self.origin[0], inputs.x], 1) / volt),
                columns(self._anchor),
                columns(torch.zeros_like(drive) if balanced else mismatch),
            )

    def nudged(self, nudge: Nudge | None) -> Phase:
        if nudge is not None and not self._closed(nudge):
            return AnalogDescent(self.system, self.inputs, self.origin, self.balanced).nudged(nudge)
        twin = Phase.nudged(self, nudge)
        assert isinstance(twin, AnalogPhase)
        if twin.nudge is not None:
            twin._pull = twin._pulled(twin.nudge)
        return twin

    def force(self, z: State) -> State:
        """Missing current of each node, (B, n_free) amperes, as far as its amplifier passes it on."""
        return (self._current(self._swept(z)[1]),)

    def sweep(self, u: State) -> tuple[State, State, torch.Tensor]:
        moved, gap = self._swept(u)
        return (moved,), u, largest((self._current(gap),)) / self.system.residual_scale

    def _current(self, gap: torch.Tensor) -> torch.Tensor:
        """Amperes that would close a gap of (B, n_free) volts."""
        return gap * (self.system.nudge_scale / torch.from_numpy(self._pull.ease).t())

    def _swept(self, z: State) -> tuple[torch.Tensor, torch.Tensor]:
        graph, volt = self.system.graph, self.system.supply
        start = array(z[0] / volt)
        width = kernels.chunk_width(len(start))
        if self.origin is None:
            swept = kernels.sweep(start, self._clamped, self._weight, self._bias, graph, self._pull, width)
        else:
            swept = kernels.displaced_sweep(start, *self._origin, self._weight, graph, self._pull, width)
        return volt * torch.from_numpy(swept[0]), volt * torch.from_numpy(swept[1])

    def _pulled(self, nudge: Nudge) -> kernels.Pull:
        at, system = self.system.output_columns, self.system
        shunt, push = linear_nudge(nudge, self.dtype)
        stiffness, target = shunt / system.nudge_scale, push / (system.nudge_scale * system.supply)
        load = self._load.clone()
        load[at] += stiffness.t()
        if bool((load <= 0).any()):
            least = -float(system.unit_conductance[at].min())
            raise argument_error(
                "beta", f"exceed {least:.3g} S, where an output amplifier loses its minimum", nudge.beta
            )
        pull = torch.zeros_like(load)
        # (p + dp + beta y) / (k + beta) = a + (dp + beta (y - a)) / (k + beta) with a = p / k
        pull[at] = (target if self.origin is None else target - stiffness * self._anchor[:, at]).t()
        return self._pulling(pull, load)

    @staticmethod
    def _pulling(push: torch.Tensor, load: torch.Tensor) -> kernels.Pull:
        return kernels.Pull(np.arange(len(load)), array(push), array(1 / load))


class AnalogDescent(Phase):
    """Descent along the current, for nudges that leave an output amplifier no update in closed form."""

    system: AnalogHopfieldCircuit


class AnalogMotion(Motion):
    """C du/dt = sum T V - u / R + I - nudge, integrated in the amplifiers' inputs u, volts; time in seconds.

    Parameters
    ----------
    phase : Phase
    nudge : Nudge or None
        Beta in siemens. A squared error, or a constant force, is part of the compiled steps; the current of any
        other cost is added to them.
    """

    def __init__(self, phase: AnalogPhase | AnalogDescent, nudge: Nudge | None) -> None:
        super().__init__(phase)
        self.system, self.nudge = phase.system, nudge
        system = self.system
        rest = torch.zeros(len(phase.x), len(system.units), dtype=torch.float64)
        # What clamped nodes and constant currents add.
        source = system.drives((rest,), phase.x)
        shunt = rest
        self.compiled = nudge is None or isinstance(nudge.cost, SquaredError | OutputForce)
        if nudge is not None and self.compiled:
            at = system.output_columns
            drawn, fed = linear_nudge(nudge, torch.float64)
            shunt = rest.index_copy(1, at, drawn)
            source = source.index_add(1, at, fed)
        self.parts = transients.Parts(
            array(system.weight),
            array(1 / system.resistance),
            array(1 / system.capacitance),
            array(system.gain / system.supply),
            system.supply,
            columns(source),
            columns(shunt),
        )
        self.width = kernels.chunk_width(len(rest))

    def start(self, z: State) -> State:
        """u of the outputs at which the phase starts.

        A saturated output does not tell its u: where the node's current would hold it there, u is R times that
        current; else the least u that saturates it.
        """
        system = self.system
        (v,) = self.phase.state(z)
        rest = system.resistance * system.drives((v,), self.phase.x)
        eps = torch.finfo(v.dtype).eps * system.supply
        u = system.inputs_at(torch.clamp(v, system.low + eps, system.high - eps))
        margin = NEAR_BOUND * system.supply
        near = (v < system.low + margin) | (v > system.high - margin)
        held = near & ((system.amplified(rest) - v).abs() < margin)
        return (torch.where(held, rest, u),)

    def velocity(self, w: State) -> State:
        """du/dt, volts a second."""
        (u,) = w
        rate = torch.from_numpy(transients.rates(array(u), self.parts, self.system.graph, self.width))
        if not self.compiled:
            assert self.nudge is not None
            outputs = self.system.outputs((self.system.amplified(u),))
            current = -self.nudge.column(outputs) * self.nudge.cost.gradient(outputs, self.nudge.y)
            at = self.system.output_columns
            rate = rate.index_add(1, at, current / self.system.capacitance[at])
        return (rate,)

    def inside(self, w: State) -> State:
        return w

    def observe(self, w: State, velocity: State) -> Moment:
        state = (self.system.amplified(w[0]),)
        energy = self.system.energy(state, self.phase.x)
        if self.nudge is not None:
            energy = energy + self.nudge.energy(self.system.outputs(state))
        current = self.system.capacitance * velocity[0]
        return Moment(state, energy, largest((current,)) / self.system.residual_scale, w)

    def advance(self, w: State, velocity: State, tableau: Tableau, dt: float, count: int) -> State:
        if tableau.implicit or not self.compiled:
            return super().advance(w, velocity, tableau, dt, count)
        stages = np.zeros((len(tableau.weights), len(tableau.weights)))
        for i, row in enumerate(tableau.stages):
            stages[i, : len(row)] = row
        moved = transients.steps(
            array(w[0]), self.parts, self.system.graph, stages, np.array(tableau.weights), dt, count, self.width
        )
        return (torch.from_numpy(moved),)


def linear_nudge(nudge: Nudge, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """(b, c) of a nudge that feeds the current c - b V into the outputs: siemens and amperes, (B, n_out) each."""
    y = nudge.y.to(dtype)
    beta = torch.as_tensor(nudge.beta, dtype=dtype).expand(len(y))[:, None]
    squared = isinstance(nudge.cost, SquaredError)
    return (beta if squared else torch.zeros_like(beta)).expand_as(y), beta * y
