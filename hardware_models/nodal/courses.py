"""What a transient returns: voltages, currents, states and power of a circuit over time."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from physics_ep.errors import argument_error, unknown_name
from physics_ep.storage.trajectory import Trajectory

from ..netlists.memristors import STATEFUL
from ..netlists.parts import Parts
from ..netlists.resting import with_states
from .power import CircuitPower

STILL = 1e-6
"""Share of the largest voltage, current or state that one which is at rest moves by within a whole course."""


@dataclass(frozen=True, repr=False)
class CircuitTrajectory(Trajectory):
    """A circuit's course; a `Trajectory`, so that it plots and is stored as any other.

    Attributes
    ----------
    time : Tensor (T,)
        Seconds; steps as the error asked for, and all corners of the waveforms.
    state : (Tensor (T, B, n_nodes),)
        Node voltages in the order of `nodes`, ground first.
    energy : Tensor (T, B)
        Co-content of two-terminal elements, current sources and nudge, watts: what the circuit lowers where it has
        no active part and its voltage sources are constant.
    residual : Tensor (T, B)
        Largest sum of capacitive currents at a node, amperes: how far Kirchhoff's law of the circuit without
        capacitors is from being met. `settling_time` is when that stays under 1 % of its peak.
    internal : (Tensor (T, B, capacitors),)
        Volts across the capacitors.
    nodes, branches : tuple of str
        Names.
    currents : Tensor (T, B, n_branches)
        Amperes, as in `hardware_models.nodal.points.Solution`.
    charging : Tensor (T, B, capacitors)
        Amperes, from the first node of each capacitor to the second. Where it jumps in a step, since an ideal diode
        has switched, the first value after that is a mean over the step, and the diode's current with it.
    kirchhoff : Tensor (T, B)
        Largest violation of Kirchhoff's current law with the capacitive currents, amperes, in the very states held
        here.
    memristors : tuple of str
        Names of the memristors with a state.
    states, memristor_currents : Tensor (T, B, memristors)
        Their states, 0 to 1, and their currents, amperes.
    power : CircuitPower
    steps, rejected : int
        Steps taken, and steps that were taken back.
    """

    nodes: tuple[str, ...] = ()
    branches: tuple[str, ...] = ()
    currents: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    charging: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    kirchhoff: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    power: CircuitPower | None = None
    steps: int = 0
    rejected: int = 0
    memristors: tuple[str, ...] = ()
    states: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    memristor_currents: torch.Tensor = field(default_factory=lambda: torch.empty(0))

    @property
    def at_rest(self) -> torch.Tensor:
        """Bool (B,): whether node voltages, branch currents and memristors stand still at the end.

        They do where, at the speed of the last step, each would change within the duration of the course by less
        than 1e-6 of the largest of its kind.
        """
        still = torch.ones(self.residual.shape[1], dtype=torch.bool)
        if len(self.time) < 2:
            return ~still
        times = float(self.time[-1] - self.time[0]) / float(self.time[-1] - self.time[-2])
        for values in (self.state[0], self.currents, self.states):
            if values.numel():
                change = (values[-1] - values[-2]).abs().amax(-1)
                still &= times * change <= STILL * values.abs().amax((0, -1))
        return still

    def voltage(self, node: str) -> torch.Tensor:
        """Course of a node's voltage, (T, B) volts."""
        if node not in self.nodes:
            raise unknown_name("node", node, self.nodes)
        return self.state[0][..., self.nodes.index(node)]

    def present(self, parts: Parts, row: int = -1, example: int = 0) -> Parts:
        """The circuit's parts with the memristors' states as they are in a row of the course (the last).

        Raises
        ------
        InputError
            If the parts have other memristors than the course, or it has no such row or example.
        """
        names = tuple(name for kind in STATEFUL for name in parts.group(kind).names)
        if names != self.memristors:
            must = f"have the memristors of the course ({', '.join(self.memristors) or 'none'})"
            raise argument_error("parts", must, ", ".join(names) or "without any")
        for what, index, count in zip(("row", "example"), (row, example), self.state[0].shape, strict=False):
            if not -count <= index < count:
                raise argument_error(what, f"be an integer from {-count} to {count - 1}", index)
        if not names:
            return parts
        return with_states(parts, self.states[row, example].numpy())
