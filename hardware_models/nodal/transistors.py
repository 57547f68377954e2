"""Transistors in the nodal equations: currents from drain to source that several voltages control."""

from __future__ import annotations

import numpy as np

from ..netlists.parts import CHANNELS, GATED, Parts
from .transistor_law import TransistorCurrent, TransistorValues, transistor_current

Array = np.ndarray


class Transistors:
    """All transistors of a parts list, kind by kind in the order of `netlists.parts.CHANNELS`.

    Parameters
    ----------
    parts : Parts

    Attributes
    ----------
    where : dict of str to slice
        Transistors by kind.
    nodes : int64 array (m, 4)
        Drain, gate, source and bulk; ground's 0 for a gate whose voltage is held.
    sign : array (m,)
        +1 for n-channel, -1 for p-channel transistors.
    held : array (m,)
        Volts of the gates that are held, 0 for others.
    values : TransistorValues of arrays (m,)
    """

    def __init__(self, parts: Parts) -> None:
        nodes, signs, held, values = [], [], [], []
        self.where: dict[str, slice] = {}
        count = 0
        for kind in CHANNELS:
            group = parts.group(kind)
            self.where[kind] = slice(count, count + len(group))
            count += len(group)
            signs.append(np.full(len(group), 1.0 if kind.startswith("n") else -1.0))
            if kind in GATED:
                nodes.append(np.insert(group.nodes, 1, 0, axis=1))
                held.append(group.values[:, 0])
                values.append(group.values[:, 1:])
            else:
                nodes.append(group.nodes)
                held.append(np.zeros(len(group)))
                values.append(group.values)
        self.nodes = np.concatenate(nodes)
        self.sign, self.held = np.concatenate(signs), np.concatenate(held)
        self.values = TransistorValues(*np.concatenate(values).T)

    def __len__(self) -> int:
        return len(self.nodes)

    @property
    def stamps(self) -> tuple[Array, Array, Array, Array]:
        """Nodes (3 m,) that currents leave, that they enter, and the two whose difference drives each slope."""
        drain, gate, source, bulk = self.nodes.T
        return np.tile(drain, 3), np.tile(source, 3), np.concatenate([gate, drain, bulk]), np.tile(source, 3)

    def controls(self, z: Array) -> Array:
        """v_gs, v_ds and v_bs at unknowns z (B, 1 + n), (B, 3 m) volts."""
        drain, gate, source, bulk = (z.take(column, 1) for column in self.nodes.T)
        return np.hstack([gate + self.held - source, drain - source, bulk - source])

    def law(self, controls: Array) -> TransistorCurrent:
        """Currents and slopes, (B, m) each, at controls (B, 3 m)."""
        gate, drain, bulk = np.split(controls, 3, 1)
        return transistor_current(np, self.sign, gate, drain, bulk, self.values)

    def currents(self, z: Array) -> Array:
        """Amperes from drain to source, (B, m), at unknowns z (B, 1 + n)."""
        return self.law(self.controls(z)).current

    def slopes(self, z: Array) -> Array:
        """Slopes (B, 3 m), siemens, in the order of `stamps`, at unknowns z (B, 1 + n)."""
        return np.hstack(self.law(self.controls(z))[1:])

    def tangent(self, z: Array, at: Array) -> tuple[Array, Array]:
        """Currents (B, m) at z by the laws' tangents at controls `at` (B, 3 m), and the slopes (B, 3 m) there."""
        found = self.law(at)
        slopes = np.hstack(found[1:])
        moved = slopes * (self.controls(z) - at)
        return found.current + moved.reshape(len(z), 3, -1).sum(1), slopes


def limit(wanted: Array, last: Array) -> Array:
    """Controls as far from the last ones as a quadratic law is to be followed at once: a volt, or as much again."""
    room = 1 + np.abs(last)
    return np.clip(wanted, last - room, last + room)
