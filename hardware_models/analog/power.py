"""Power of the analog circuit by class of element, and the energy that each takes over a transient.

Every resistor lies between an output, V_j or -V_j, and the input u_i of an amplifier, so that its power is
|T| (+-V_j - u_i)^2. Sources are the amplifiers' outputs (and the drivers of the clamped nodes, which feed V_j = x_j
and -x_j), the constant currents I_i, and the nudge. Tellegen: what sources deliver is what resistors turn into heat
plus what capacitors store, at every instant.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from scipy.sparse import csr_array

from physics_ep.dynamics.flows import own_motion
from physics_ep.errors import argument_error
from physics_ep.nudging import Nudge, require_nudge
from physics_ep.storage.trajectory import Trajectory

from ..arrays import array
from .circuit import AnalogHopfieldCircuit


@dataclass(frozen=True)
class Power:
    """Power of each class of element over a transient, (T, B) watts.

    Attributes
    ----------
    time : Tensor (T,)
        Seconds.
    amplifiers, inputs, currents, nudge : Tensor (T, B)
        Delivered by the amplifiers' outputs, the drivers of clamped nodes, the constant currents I, the nudge's
        amplifiers. Their own losses are not counted: what a stage draws from its supply depends on its design.
    pairs, leaks : Tensor (T, B)
        Turned into heat by the conductances T, and by the leaks rho.
    capacitors : Tensor (T, B)
        Stored: u C du/dt.
    """

    time: torch.Tensor
    amplifiers: torch.Tensor
    inputs: torch.Tensor
    currents: torch.Tensor
    nudge: torch.Tensor
    pairs: torch.Tensor
    leaks: torch.Tensor
    capacitors: torch.Tensor

    @property
    def delivered(self) -> torch.Tensor:
        """Power that all sources deliver, (T, B) watts."""
        return self.amplifiers + self.inputs + self.currents + self.nudge

    @property
    def imbalance(self) -> torch.Tensor:
        """Power that is delivered, less heat and storage, (T, B) watts: 0 but for rounding."""
        return self.delivered - self.pairs - self.leaks - self.capacitors

    def energies(self) -> dict[str, torch.Tensor]:
        """Integral of each class over the transient by the trapezoidal rule, (B,) joules."""
        names = [f.name for f in fields(self) if f.name != "time"]
        return {name: torch.trapezoid(getattr(self, name), self.time, dim=0) for name in names}


def power(circuit: AnalogHopfieldCircuit, course: Trajectory, x: torch.Tensor, nudge: Nudge | None = None) -> Power:
    """Power of each class of element over a simulated phase.

    Parameters
    ----------
    circuit : AnalogHopfieldCircuit
    course : Trajectory
        A trajectory that `simulate` returned; its state is (T, B, n_free) volts.
    x : Tensor (B, n_in)
        Volts.
    nudge : Nudge, optional
        The nudge of the phase.

    Returns
    -------
    Power

    Raises
    ------
    InputError
        If the trajectory is none of this circuit with this batch.
    """
    free = len(circuit.units)
    if len(course.internal) != 1 or course.internal[0].shape[1:] != (len(x), free):
        was = [tuple(b.shape) for b in course.internal]
        raise argument_error("course", f"hold the inputs of {free} amplifiers for {len(x)} examples", was)
    require_nudge(nudge)
    with torch.no_grad():
        return _power(circuit, course, x, nudge)


def _power(circuit: AnalogHopfieldCircuit, course: Trajectory, x: torch.Tensor, nudge: Nudge | None) -> Power:
    free, at = len(circuit.units), circuit.output_columns
    signed, size = _conductances(circuit), circuit.fan_in()
    feeds = torch.zeros(free + x.shape[1], dtype=torch.float64)
    ends = torch.from_numpy(circuit.graph.ends)
    for here, there in ((0, 1), (1, 0)):
        # A resistor leads to an amplifier's input only: none hangs on a clamped node.
        into = ends[:, here] < free
        feeds.index_add_(0, ends[into, there], circuit.weight[into].double().abs())
    motion = own_motion(circuit.phase(circuit.prepare(x)).nudged(nudge))
    names = ("amplifiers", "inputs", "currents", "nudge", "pairs", "leaks", "capacitors")
    rows: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    for u in course.internal[0]:
        v = torch.cat([circuit.amplified(u), x], 1)
        received = torch.from_numpy(v.numpy() @ signed)  # sum_j T_ij V_j at each amplifier's input
        delivered = v * (v * feeds - torch.from_numpy(u.numpy() @ signed.T))
        fed = torch.zeros(())
        if nudge is not None:
            outputs = v[:, at]
            fed = -(nudge.column(outputs) * nudge.cost.gradient(outputs, nudge.y) * u[:, at]).sum(1)
        (rate,) = motion.velocity((u,))
        rows["amplifiers"].append(delivered[:, :free].sum(1))
        rows["inputs"].append(delivered[:, free:].sum(1))
        rows["currents"].append(u @ circuit.bias)
        rows["nudge"].append(fed.expand(len(x)))
        # sum_ij |T| (+-V_j - u_i)^2
        rows["pairs"].append((v.square() @ feeds) - 2 * (u * received).sum(1) + u.square() @ size)
        rows["leaks"].append(u.square() @ circuit.leak)
        rows["capacitors"].append((u * rate) @ circuit.capacitance)
    return Power(course.time, **{name: torch.stack(values) for name, values in rows.items()})


def _conductances(circuit: AnalogHopfieldCircuit) -> csr_array:
    """T from every node (free, then clamped) to every amplifier's input, sparse (n, n_free), siemens."""
    free, total = len(circuit.units), len(circuit.units) + len(circuit.inputs)
    both = np.concatenate([circuit.graph.ends, circuit.graph.ends[:, ::-1]])
    into = both[:, 1] < free
    weight = np.tile(array(circuit.weight), 2)[into]
    return csr_array((weight, (both[into, 0], both[into, 1])), shape=(total, free))
