"""Parts lists at rest: memristors with a state are resistors of their present state for direct current."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from physics_ep.errors import InputError

from .memristors import STATEFUL
from .parts import Group, Parts

_ROUNDING = 1e-9
"""How far beyond 0 or 1 a state may be by rounding of its conductance."""


def resting(parts: Parts) -> Parts:
    """Parts with a resistor in place of each memristor with a state, behind the other resistors.

    Parameters
    ----------
    parts : Parts

    Returns
    -------
    Parts
        The same parts where there are none.
    """
    groups = [parts.groups[kind] for kind in STATEFUL if kind in parts.groups]
    if not groups:
        return parts
    resistors = parts.group("resistor")
    conductances = [1 / resistances(group)[:, None] for group in groups]
    joined = Group(
        resistors.names + tuple(name for group in groups for name in group.names),
        np.concatenate([resistors.nodes, *(group.nodes for group in groups)]),
        np.concatenate([resistors.values, *conductances]),
    )
    kept = {kind: group for kind, group in parts.groups.items() if kind not in STATEFUL}
    return replace(parts, groups={**kept, "resistor": joined})


def resistances(group: Group) -> np.ndarray:
    """Present resistances R_on s + R_off (1 - s), ohm (m,)."""
    on, off, state = group.values[:, 0], group.values[:, 1], group.values[:, -1]
    return on * state + off * (1 - state)


def conductance_range(parts: Parts) -> tuple[np.ndarray, np.ndarray]:
    """Least and most conductances of the memristors with a state, siemens, in the order of `resting`."""
    groups = [parts.groups[kind] for kind in STATEFUL if kind in parts.groups]
    values = np.concatenate([np.empty((0, 2)), *(group.values[:, :2] for group in groups)])
    return 1 / values[:, 1], 1 / values[:, 0]


def with_states(parts: Parts, states: np.ndarray) -> Parts:
    """Parts whose memristors have other states (m,), within 0 and 1, in the order of `resting`.

    Raises
    ------
    InputError
        If a state is not within 0 and 1.
    """
    groups, start = dict(parts.groups), 0
    for kind in STATEFUL:
        if kind not in groups:
            continue
        group = groups[kind]
        found = np.asarray(states, np.float64)[start : start + len(group)]
        start += len(group)
        outside = ~((found >= -_ROUNDING) & (found <= 1 + _ROUNDING))
        if outside.any():
            at = int(outside.argmax())
            raise InputError(f"State of {group.names[at]!r} must be within 0 and 1, but was {found[at]:g}.")
        values = np.hstack([group.values[:, :-1], np.clip(found, 0.0, 1.0)[:, None]])
        groups[kind] = replace(group, values=values)
    return replace(parts, groups=groups)


def restored(given: Parts, rest: Parts) -> Parts:
    """The parts that `resting(given)` was made of, with the conductances and other values of `rest`.

    The state of a memristor is the one that has its conductance; a conductance that did not change keeps the state.

    Raises
    ------
    InputError
        If a conductance lies beyond the memristor's range.
    """
    if not any(kind in given.groups for kind in STATEFUL):
        return rest
    joined, count = rest.groups["resistor"], len(given.group("resistor"))
    groups = {kind: rest.groups.get(kind, group) for kind, group in given.groups.items()}
    if count:
        groups["resistor"] = Group(joined.names[:count], joined.nodes[:count], joined.values[:count])
    before = resting(given).groups["resistor"].values[count:, 0]
    now = joined.values[count:, 0]
    stateful = [given.groups[kind].values for kind in STATEFUL if kind in given.groups]
    on, off, held = (np.concatenate([values[:, k] for values in stateful]) for k in (0, 1, -1))
    states = np.where(now == before, held, (off - 1 / now) / (off - on))
    low, high = conductance_range(given)
    outside = (states < -_ROUNDING) | (states > 1 + _ROUNDING)
    if outside.any():
        at = int(outside.argmax())
        raise InputError(
            f"Conductance of {joined.names[count + at]!r} must be within {low[at]:g} and {high[at]:g} S, but was "
            f"{now[at]:g} S: call the circuit's constrain() after each step of an optimizer."
        )
    return with_states(replace(given, groups=groups), states)
