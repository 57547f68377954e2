"""Power of each kind of part over a transient, and the energy that each took: V I, and its integral.

Tellegen: at every instant the powers of all parts add up to nothing, whatever the parts are, since the currents at
each node do. What sources deliver is what others turn into heat or store.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array

from physics_ep.errors import InputError

from ..netlists.memristors import STATEFUL
from ..netlists.parts import CHANNELS, Parts
from ..netlists.resting import resting
from .equations import Array, NodalEquations, compact
from .points import operating_point, source_volts, spread

HEAT = ("resistor", "memristor", "diode", "spice_diode", "piecewise_diode", "ideal_diode", *CHANNELS, *STATEFUL)
"""Kinds that can only take power; `STORES` store it, all others are sources."""
STORES = ("capacitor", "inductor")


@dataclass(frozen=True, repr=False)
class CircuitPower:
    """Power that each kind of part, or each part, takes over time; it is negative for sources that deliver.

    Attributes
    ----------
    time : Tensor (T,)
        Seconds.
    kinds : tuple of str (k,)
        Kinds of parts, and 'nudge' for the conductances and sources of a nudged phase together.
    names : tuple of str (k,)
        Names of the parts, where each has been metered by itself; else the same as `kinds`.
    power : Tensor (T, B, k)
        Watts.
    energy : Tensor (T, B, k)
        Energy taken since the start, joules. It is the integral of the power, by the method that follows the
        voltages and to its order. It leaves out what a jump of a source moves at once between capacitors without a
        resistor.
    """

    time: torch.Tensor
    kinds: tuple[str, ...]
    names: tuple[str, ...]
    power: torch.Tensor
    energy: torch.Tensor

    def __repr__(self) -> str:
        return f"CircuitPower({len(self.time)} times, {', '.join(dict.fromkeys(self.kinds))})"

    def _sum(self, values: torch.Tensor, chosen: list[bool]) -> torch.Tensor:
        return values[..., torch.tensor(chosen, dtype=torch.bool)].sum(-1)

    @property
    def delivered(self) -> torch.Tensor:
        """Power that sources and active parts deliver, (T, B) watts."""
        return -self._sum(self.power, [k not in (*HEAT, *STORES) for k in self.kinds])

    @property
    def dissipated(self) -> torch.Tensor:
        """Power that is turned into heat, (T, B) watts."""
        return self._sum(self.power, [k in HEAT for k in self.kinds])

    @property
    def stored(self) -> torch.Tensor:
        """Power that capacitors and inductors store, (T, B) watts."""
        return self._sum(self.power, [k in STORES for k in self.kinds])

    @property
    def imbalance(self) -> torch.Tensor:
        """Delivered, less heat and storage, (T, B) watts: 0 but for the residual of the currents and rounding."""
        return self.delivered - self.dissipated - self.stored

    def energies(self) -> dict[str, torch.Tensor]:
        """What each kind (or part, by name) has taken by the end, (B,) joules."""
        return {name: self.energy[-1, :, k] for k, name in enumerate(self.names)}


def power_at_rest(parts: Parts, sources: Any = None, start: Any = None) -> dict[str, Array]:
    """Power that each kind of part takes at an operating point, (B,) watts; sources have negative ones.

    Parameters
    ----------
    parts : Parts
    sources : array_like (B, n_voltage_sources), optional
        Volts. Default: the parts' own values, B = 1.
    start : array_like (B, n_nodes), optional
        Node voltages, ground's first, from which the operating point is found: those of one that is known, where
        the circuit has several. Default: as `operating_point`.

    Raises
    ------
    InputError
        If an argument does not fit, or no operating point is found.
    """
    parts = resting(parts)
    volts = source_volts(parts, sources)
    found = operating_point(parts, volts, start=start)
    if not found.converged.all():
        raise InputError(f"The circuit has no operating point that could be found: {found.why_not()}.")
    equations = NodalEquations(parts)
    z = np.hstack([found.voltages, found.currents])
    meter = PowerMeter(equations)
    currents = equations.currents(equations.across(z), spread(equations.drive(volts), len(z)))
    power = meter.read(z, currents, np.zeros((len(z), len(equations.capacitance))))
    return dict(zip(meter.kinds, power.T, strict=True))


class PowerMeter:
    """Power by kind of part, or by part, of states of nodal equations with capacitors."""

    def __init__(self, equations: NodalEquations, by_part: bool = False) -> None:
        self.equations = equations
        columns: dict[tuple[str, str], int] = {}
        labels: list[int] = []

        def label(kind: str, count: int) -> None:
            names = equations.parts.group(kind).names if by_part and kind != "nudge" else (kind,) * count
            labels.extend(columns.setdefault((kind, name), len(columns)) for name in names)

        for part in equations.elements:
            label(part.kind, part.where.stop - part.where.start)
        for kind, where in equations.branch_kinds.items():
            label(kind, where.stop - where.start)
        label("capacitor", len(equations.capacitance))
        for kind, where in (*equations.transistors.where.items(), *equations.memristors.where.items()):
            label(kind, where.stop - where.start)
        self.kinds = tuple(kind for kind, _ in columns)
        self.names = tuple(name for _, name in columns)
        m = len(labels)
        self._sums = compact(csr_array((np.ones(m), (np.arange(m), labels)), shape=(m, len(columns))))
        capacitor = equations.parts.group("capacitor").nodes
        channel = equations.transistors.nodes[:, [0, 2]]
        self._flows = equations.flows
        branches = equations.branch_ends[: self._flows.stop - self._flows.start, :2]
        ends = [equations.ends[:, :2], branches, capacitor, channel, equations.memristors.nodes]
        self._ends = np.concatenate(ends)

    def read(self, z: Array, currents: Array, charging: Array) -> Array:
        """Power by column, (B, k) watts, of states z with element and capacitor currents (B, m), amperes."""
        through = [currents, z[:, self._flows], charging]
        if len(self.equations.transistors):
            through.append(self.equations.transistors.currents(z))
        if len(self.equations.memristors):
            through.append(self.equations.memristor_currents(z))
        return (z.take(self._ends[:, 0], 1) - z.take(self._ends[:, 1], 1)) * np.hstack(through) @ self._sums
