"""Kirchhoff's laws of any parts list as a force that autograd follows to the unknowns and to every part's value.

The unknowns are those of modified nodal analysis (`equations`): node voltages but ground's, and the currents of
parts that set a voltage, here over the typical conductance `scale`, so that all of them are volts. The force of a
node is the current that is missing there, amperes. That of a branch is minus what is missing in its own law, volts,
times `scale` and over its gain where that exceeds 1, so that rounding in it is that of the voltages it reads.

Nodes follow their force, and branches move against it (an inductance in series with a source does): in these
signs resistors, diodes and sources of voltage and current have a symmetric Jacobian, and one-way parts do not.

A further kind of element with a current that is a function of the difference of two unknowns needs a law in
`CURRENTS` and a row in `NodalEquations`; one of several differences, such as a transistor, a `Term` with as many
rows of controls.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

from ..laws.elements import ELEMENTS
from ..netlists.behaviours import Behaviour
from ..netlists.junctions import spice_diode
from ..netlists.parts import CHANNELS, GATED
from .equations import Elements, NodalEquations
from .transistor_law import TransistorValues, transistor_current
from .transistors import Transistors

Values = Mapping[str, tuple[torch.Tensor, ...]]
"""Values (m,) of the parts of each kind, in the order of `KINDS`."""


def _ohmic(v: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return factor * v


def _drawn(through: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    """What a bidirectional amplifier draws: 1 / A of what it delivers, minus the current at its output."""
    return -through / gain


def _two_terminal(kind: str) -> Callable[..., torch.Tensor]:
    law = ELEMENTS[kind].make(torch).current

    def current(v: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return law(v, *values, *(0.0,) * (3 - len(values)))

    return current


def _channel(kind: str) -> Callable[..., torch.Tensor]:
    """Current of transistors, which v_gs, v_ds and v_bs control; that a gate is held adds its voltage to v_gs."""
    sign = torch.tensor(1.0 if kind.startswith("n") else -1.0, dtype=torch.float64)

    def current(v_gs: torch.Tensor, v_ds: torch.Tensor, v_bs: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        held, law = (values[0], values[1:]) if kind in GATED else (0.0, values)
        flow = transistor_current(torch, sign, v_gs + held, v_ds, v_bs, TransistorValues(*law))
        return cast(torch.Tensor, flow.current)

    return current


def _spice_diode(v: torch.Tensor, *values: Any) -> torch.Tensor:
    law, at = spice_diode(), v.detach().numpy()
    value, slope = (torch.from_numpy(f(at, *values)) for f in (law.current, law.slope))
    found: torch.Tensor = _WithSlope.apply(v, value, slope)
    return found


CURRENTS: dict[str, Callable[..., torch.Tensor]] = {
    **{kind: _two_terminal(kind) for kind in ELEMENTS},
    **{kind: _channel(kind) for kind in CHANNELS},
    "spice_diode": _spice_diode,
    "vccs": _ohmic,
    "cccs": _ohmic,
    "amplifier": _drawn,
}
"""Currents (B, m), amperes, by kind: functions of the control (B, m) and of the parts' values (m,)."""


class _WithSlope(torch.autograd.Function):
    """A value whose slope by what it reads was computed beside it; derivatives of the slope are not followed."""

    @staticmethod
    def forward(ctx: Any, at: torch.Tensor, value: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(slope)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return (grad[:, None] if slope.ndim > grad.ndim else grad) * slope, None, None


@dataclass(frozen=True)
class Term:
    """Currents of parts of one kind, out of the nodes `first` and into the nodes `second`.

    Attributes
    ----------
    kind : str
    first, second : int64 Tensor (m,)
        Columns of the unknowns, ground's first.
    controls : tuple of (plus, minus)
        Columns (m,) of the differences that the currents are functions of.
    constants : tuple
        Values of kinds that have no parameters.
    """

    kind: str
    first: torch.Tensor
    second: torch.Tensor
    controls: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    constants: tuple[Any, ...] = ()

    def current(self, *arguments: Any) -> torch.Tensor:
        """Amperes (B, m), of the differences (B, m) and the values of the parts."""
        return CURRENTS[self.kind](*arguments)


class NodalField:
    """The force of a parts list: currents missing at its nodes, and what is missing in the laws of its branches.

    Parameters
    ----------
    equations : NodalEquations
        Without a nudge, capacitors open; values of its parts are not used, but for `ratings`.

    Attributes
    ----------
    n_nodes : int
        Ground included.
    scale : float
        Siemens.
    ratings : Tensor (branches,)
        What the law of each branch is divided by.
    """

    def __init__(self, equations: NodalEquations) -> None:
        self.n_nodes, self.scale = equations.n_nodes, equations.scale
        self.branches = equations.branches
        two = [_term(equations, part) for part in equations.elements]
        self.terms = (*two, *_channels(equations.transistors))
        first, second, plus, minus = torch.from_numpy(equations.branch_ends.T.copy())
        self.ends, self.controls = (first, second), (plus, minus)
        self.where = dict(equations.branch_kinds)
        self.ratings = torch.from_numpy(np.maximum(1.0, np.abs(equations.gain)))
        self.behaviours = [
            (branch, law, torch.from_numpy(above), torch.from_numpy(below), bool(equations.flowing[branch]))
            for branch, law, above, below in equations.behaviours
        ]

    def whole(self, voltages: torch.Tensor, currents: torch.Tensor | None) -> torch.Tensor:
        """All unknowns (B, 1 + n): ground's zero, volts, amperes."""
        parts = [torch.zeros_like(voltages[:, :1]), voltages]
        if currents is not None:
            parts.append(currents * self.scale)
        return torch.cat(parts, 1)

    def forces(
        self, voltages: torch.Tensor, currents: torch.Tensor | None, x: torch.Tensor, values: Values
    ) -> tuple[torch.Tensor, ...]:
        """Force on nodes (B, n_nodes - 1) and branches (B, branches), amperes; no second block without branches."""
        z = self.whole(voltages, currents)
        into = z.new_zeros(len(z), self.n_nodes)
        for term in self.terms:
            read = [z[:, plus] - z[:, minus] for plus, minus in term.controls]
            flow = term.current(*read, *values.get(term.kind, term.constants))
            into = into.index_add(1, term.first, -flow).index_add(1, term.second, flow)
        if currents is None:
            return (into[:, 1:],)
        through = z[:, self.n_nodes :]
        first, second = self.ends
        into = into.index_add(1, first, -through).index_add(1, second, through)
        law = self._laws(z, through, x, values)
        return into[:, 1:], -self.scale * law / self.ratings

    def changes(
        self,
        state: tuple[torch.Tensor, ...],
        moved: tuple[torch.Tensor, ...],
        values: Values,
    ) -> tuple[torch.Tensor, ...]:
        """Change of the `forces` from a state to one displaced by `moved`, whose digits it keeps, in their blocks.

        What is linear is asked of the displacement itself, and elements with a co-content by their differences.
        """
        z, d = self.whole(*_two(state)), self.whole(*_two(moved))
        into = z.new_zeros(len(z), self.n_nodes)
        for term in self.terms:
            at, by = ([u[:, plus] - u[:, minus] for plus, minus in term.controls] for u in (z, d))
            flow = _change(term, at, by, values.get(term.kind, term.constants))
            into = into.index_add(1, term.first, -flow).index_add(1, term.second, flow)
        if len(state) == 1:
            return (into[:, 1:],)
        through = d[:, self.n_nodes :]
        first, second = self.ends
        into = into.index_add(1, first, -through).index_add(1, second, through)
        still = torch.zeros_like(d[:, : self._count("voltage_source")])
        law = self._laws(d, through, still, values, z)
        return into[:, 1:], -self.scale * law / self.ratings

    def _count(self, kind: str) -> int:
        where = self.where.get(kind, slice(0, 0))
        return int(where.stop - (where.start or 0))

    def _laws(
        self,
        z: torch.Tensor,
        through: torch.Tensor,
        x: torch.Tensor,
        values: Values,
        origin: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """What is missing in each branch's law, (B, branches) volts; of set currents amperes over `scale`.

        With an origin, z is the displacement from there, and what is returned the change.
        """
        (first, second), (plus, minus) = self.ends, self.controls
        across = z[:, first] - z[:, second]
        found = []
        for kind, where in self.where.items():
            v = across[:, where]
            if kind == "voltage_source":
                v = v - x
            elif kind in ("vcvs", "ccvs", "amplifier", "rectifier"):
                control = z[:, plus[where]] - z[:, minus[where]]
                (gain,) = values[kind]
                if kind == "rectifier":
                    at = 0.0 if origin is None else origin[:, plus[where]] - origin[:, minus[where]]
                    control = _bent(lambda u: u.clamp(min=0), at, control)
                v = v - gain * control
            elif kind == "ideal_diode":
                current = through[:, where] / self.scale
                if origin is None:
                    v = torch.where(v + current > 0, v, current)
                else:
                    was = origin[:, first[where]] - origin[:, second[where]]
                    flowed = origin[:, self.n_nodes :][:, where] / self.scale
                    now = torch.where(was + v + flowed + current > 0, was + v, flowed + current)
                    v = now - torch.where(was + flowed > 0, was, flowed)
            elif kind == "behavioural_current":
                v = through[:, where] / self.scale
            found.append(v)
        law = torch.cat(found, 1)
        for branch, behaviour, above, below, flowing in self.behaviours:
            at = 0.0 if origin is None else origin[:, above] - origin[:, below]
            value = _bent(functools.partial(computed, behaviour), at, z[:, above] - z[:, below])
            index = torch.tensor([branch])
            law = law.index_add(1, index, -value[:, None] / (self.scale if flowing else 1.0))
        return law

    def blocked(self, voltages: torch.Tensor, currents: torch.Tensor) -> torch.Tensor:
        """Whether each branch is an ideal diode that blocks, (B, branches) bool: its current is held at zero."""
        z = self.whole(voltages, currents)
        first, second = self.ends
        off = z[:, first] - z[:, second] + currents <= 0
        switching = torch.zeros_like(off)
        switching[:, self.where.get("ideal_diode", slice(0))] = True
        return off & switching


def _two(blocks: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor | None]:
    return blocks[0], blocks[1] if len(blocks) > 1 else None


def _bent(function: Callable[[torch.Tensor], torch.Tensor], at: Any, by: torch.Tensor) -> torch.Tensor:
    """A function's change from `at`, a tensor, by `by`; its value at `by` where `at` is 0.0, for none."""
    return function(by) if isinstance(at, float) else function(at + by) - function(at)


def _change(term: Term, at: list[torch.Tensor], by: list[torch.Tensor], values: tuple[Any, ...]) -> torch.Tensor:
    """Change of a term's currents as its controls move from `at` by `by`."""
    if term.kind == "current_source":
        return torch.zeros_like(by[0])
    if term.kind in ("vccs", "cccs", "amplifier", "resistor"):
        return term.current(*by, *values)
    if term.kind in ELEMENTS:
        difference = ELEMENTS[term.kind].make(torch).current_difference
        return cast(torch.Tensor, difference(*at, *by, *values, *(0.0,) * (3 - len(values))))
    return term.current(*(a + b for a, b in zip(at, by, strict=True)), *values) - term.current(*at, *values)


def computed(behaviour: Behaviour, at: torch.Tensor) -> torch.Tensor:
    """Value (B,) of a behavioural source's expression where its probes are (B, k), as autograd can follow it."""
    value, slope = behaviour(at.detach().numpy())
    found: torch.Tensor = _WithSlope.apply(at, torch.from_numpy(value), torch.from_numpy(slope))
    return found


def _term(equations: NodalEquations, part: Elements) -> Term:
    a, b, c, d = torch.from_numpy(equations.ends[part.where].T.copy())
    constants = part.values if part.kind == "spice_diode" else ()
    return Term(part.kind, a, b, ((c, d),), constants)


def _channels(transistors: Transistors) -> list[Term]:
    """Terms of transistors."""
    found = []
    for kind, where in transistors.where.items():
        if where.start < where.stop:
            drain, gate, source, bulk = torch.from_numpy(transistors.nodes[where].T.copy())
            found.append(Term(kind, drain, source, ((gate, source), (drain, source), (bulk, source))))
    return found
