"""Conductances that simulators put across junctions, as parts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from physics_ep.errors import argument_error

from .parts import Group, Parts


def with_gmin(parts: Parts, gmin: float) -> Parts:
    """Parts with a resistor across every diode: SPICE's gmin, which holds nodes that leakage alone held.

    Parameters
    ----------
    parts : Parts
    gmin : float
        Siemens (SPICE has 1e-12); 0: the same parts.

    Returns
    -------
    Parts
        With resistors named Rgmin_ and the diode's name, behind the others.

    Raises
    ------
    InputError
        If gmin is negative or not finite.
    """
    if not 0 <= gmin < np.inf:
        raise argument_error("gmin", "be finite and not negative, in siemens", gmin)
    if not gmin:
        return parts
    diodes, resistors = [parts.group(kind) for kind in ("diode", "spice_diode")], parts.group("resistor")
    names = [name for group in diodes for name in group.names]
    if not names:
        return parts
    taken, start = {name.lower() for group in parts.groups.values() for name in group.names}, "Rgmin_"
    while any((start + name).lower() in taken for name in names):
        start += "_"
    group = Group(
        resistors.names + tuple(start + name for name in names),
        np.concatenate([resistors.nodes, *(group.nodes for group in diodes)]),
        np.concatenate([resistors.values, np.full((len(names), 1), float(gmin))]),
    )
    return replace(parts, groups={**parts.groups, "resistor": group})
