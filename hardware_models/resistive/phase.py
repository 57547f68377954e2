"""Phases of deep resistive networks: exact updates of layers of nodes, and the charging of their capacitances."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import torch

from physics_ep.blocks import State, largest
from physics_ep.dynamics.motion import Moment, Motion
from physics_ep.errors import argument_error
from physics_ep.nudging import Nudge
from physics_ep.reads import likely
from physics_ep.units import UnitFunctions

from ..layers.few_outputs import array_of, outputs_of_rows
from ..layers.layered import LayeredPhase
from . import nodes

if TYPE_CHECKING:
    from ..layers.row_kernels import HiddenRows, OutputRows


@dataclass(frozen=True)
class PreparedNodes:
    """What all phases of a resistive network with one batch share.

    Attributes
    ----------
    current : Tensor (B, n_1)
        Current into the first layer at 0 V, from the input and the current sources, amperes.
    loads : tuple of Tensor (n_k,)
        Total conductance G of each node, siemens.
    units : list of UnitFunctions
        Nodes of each layer.
    diode : str
        Kind of the diodes (`network.DIODES`).
    limits : list of (Tensor, Tensor) (n_k,)
        Least and greatest voltage that ideal diodes leave to the nodes of each hidden layer, volts; else empty.
    capacitance : float
        Capacitance of each node, farad.
    """

    current: torch.Tensor
    loads: tuple[torch.Tensor, ...]
    units: list[UnitFunctions]
    diode: str
    limits: list[tuple[torch.Tensor, torch.Tensor]]
    capacitance: float

    @cached_property
    def hidden(self) -> HiddenRows:
        """Nodes of the first layer, as compiled kernels take them."""
        from ..layers.row_kernels import HiddenRows

        ohms = nodes.resistance(self.loads[0])
        low, high = self.limits[0] if self.limits else (ohms - math.inf, ohms + math.inf)
        return HiddenRows(*map(array_of, (ohms, low, high)))


class ResistivePhase(LayeredPhase):
    """`LayeredPhase` with drives in amperes: the current into a node at 0 V. Residuals are missing currents.

    The squared error is a conductance beta from each output to its target: v = (I + beta y) / (G + beta); any cost
    that is quadratic in each output is such a conductance. Other costs feed a current -beta dC/dv in.
    """

    def _constants(self) -> tuple[list[UnitFunctions], torch.Tensor]:
        self.prepared: PreparedNodes = self.inputs.cache
        self.load = self.prepared.loads[-1]
        return self.prepared.units, self.prepared.current

    def _excess(self, drive: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        # Without bounds, a balanced phase has none but rounding.
        return torch.zeros_like(drive) if self.balanced else drive - self.load * output

    def nudged(self, nudge: Nudge | None) -> ResistivePhase:
        twin = cast(ResistivePhase, super().nudged(nudge))
        linear = None if nudge is None else nudge.linear(self.dtype)
        if linear is not None:
            least, shunt = -self.load.detach().min(), linear[0].real.min()
            if not likely(~(shunt <= least)):
                must = f"exceed {float(least):.3g} S, where an output node loses its minimum"
                raise argument_error("beta", must, float(shunt))
        return twin

    def _output_load(self) -> torch.Tensor | float:
        return self.load

    def _displaced_output(self, rhs: torch.Tensor) -> torch.Tensor:
        assert self.nudge is not None
        # A clamp is a share of the way to the target, a nudge a conductance beside the node's own.
        strength = self.strength if self.nudge.cost.holds else self.strength / self.load
        return self.nudge.cost.displaced_unit(self.pulled, self.nudge.y, strength, rhs / self.load)

    def clips(self) -> bool:
        return self.prepared.diode != "shockley" and self._on_a_line()

    def by_rows(self, u: torch.Tensor) -> tuple[Any, Any, HiddenRows, float, OutputRows]:
        layer = self.layers[-1]
        alone, factor = self._row_answer(u)
        if layer.gain != 1:
            factor = layer.gain * factor
        outputs = outputs_of_rows(u, alone, factor, self.load / self.system.residual_scale)
        clamped, weights = array_of(self.clamped), array_of(layer.conductance)
        return clamped, weights, self.prepared.hidden, 1 / layer.gain, outputs

    def _row_answer(self, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.nudge is not None:
            return super()._row_answer(u)
        factor, bias = nodes.resistance(self.load), self.layers[-1].bias
        return (u.new_zeros(()) if bias is None else bias * factor), factor

    def _missing(self, k: int, gap: torch.Tensor, z: State) -> torch.Tensor:
        if self.prepared.diode == "shockley":
            return gap * self.units[k].curvature(self.state(z)[k])
        return gap * self.prepared.loads[k]

    def _gaps(self, z: State, force: State) -> State:
        state = self.state(z)
        return tuple(f / unit.curvature(v) for f, unit, v in zip(force, self.units, state, strict=True))

    def project(self, z: State) -> State:
        if self.origin is None or self.prepared.diode != "ideal":
            return self.system.project(z)
        held = []
        for d, s, (lo, hi) in zip(z[:-1], self.origin[:-1], self.prepared.limits, strict=True):
            held.append(torch.clamp(d, lo - self._spread(s), hi - self._spread(s)))
        return (*held, z[-1])

    def interior(self, z: State) -> State:
        return self.project(z)


class ResistiveMotion(Motion):
    """C dv/dt = current that is missing at a node, with the same capacitance C at every node; time in seconds.

    An ideal diode takes up what would drive its node past 0 V. It is gradient flow of the energy in time constants
    C c_k, c_k the weight of the layer's stage.
    """

    phase: ResistivePhase
    flow = "gradient"

    def velocity(self, w: State) -> State:
        """Rates dv/dt of the node voltages, volts a second."""
        phase, system = self.phase, self.phase.system
        state = phase.state(w)
        drives, _ = system.routed_drives(state, phase.clamped)
        currents = [p - unit.inverse(v) for p, unit, v in zip(drives, phase.units, state, strict=True)]
        if phase.nudge is not None:
            outputs = state[-1]
            currents[-1] = currents[-1] - phase.nudge.column(outputs) * phase.nudge.cost.gradient(
                outputs, phase.nudge.y
            )
        if phase.prepared.diode == "ideal":
            for k, (v, (lo, hi)) in enumerate(zip(state[:-1], phase.prepared.limits, strict=True)):
                out = ((v <= lo) & (currents[k] < 0)) | ((v >= hi) & (currents[k] > 0))
                currents[k] = torch.where(out, torch.zeros_like(v), currents[k])
        return tuple(current / phase.prepared.capacitance for current in currents)

    def observe(self, w: State, velocity: State) -> Moment:
        phase = self.phase
        missing = largest(velocity) * phase.prepared.capacitance / phase.system.residual_scale
        return Moment(self.phase.state(w), self.phase.energy(w), missing)
