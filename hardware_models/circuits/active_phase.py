"""Phases of a circuit with active parts, free, nudged and transposed, and Newton's method for all of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch

from physics_ep.blocks import State, flat, unflat
from physics_ep.errors import InputError
from physics_ep.jacobians import Jacobian, pairwise_asymmetry
from physics_ep.nudging import Nudge
from physics_ep.physical_system import Inputs, Phase
from physics_ep.relaxation.newton import NewtonKrylov
from physics_ep.relaxation.solvers import Solver
from physics_ep.vector_field import FieldPhase

from ..netlists.topology import find_loop
from ..nodal.points import ITERATIONS
from ..nodal.stability import rightmost, stray_instability
from .phase import soft_aim
from .tie import Tie, tied

REUSE = 0.1
"""A Jacobian is kept while one step with it lowers the residual to this part."""


class StabilityWarning(UserWarning):
    """Warns that nothing in a parts list decides whether an operating point is stable, and that stray
    capacitances would make it unstable.
    """


class ActivePhase(FieldPhase):
    """One relaxation of an `ActiveCircuit`; its motion is that of the circuit's own capacitors."""

    system: Any  # an ActiveCircuit, which lies above
    carries_displacements = True
    aim = soft_aim
    tie: Tie | None = None
    """Outputs that ideal sources hold, where the nudge's cost `holds` them (coupled learning)."""

    def __init__(self, system: Any, inputs: Inputs, origin: State | None = None, balanced: bool = False) -> None:
        super().__init__(system, inputs, origin, balanced)
        self._slopes: torch.Tensor | None = None
        self.resting: State | None = None
        """Force at the origin, where it is not left out."""
        if self.origin is not None and not balanced:
            self.resting = tuple(f.detach() for f in system.force(self.origin, self.x))

    def nudged(self, nudge: Nudge | None) -> ActivePhase:
        twin = cast(ActivePhase, super().nudged(nudge))
        twin.tie = None
        if twin.nudge is not None and twin.nudge.cost.holds:
            if self.origin is None:
                raise InputError(
                    "Argument nudge must act on a free state that is known, where it clamps the outputs."
                )
            require_holdable(self.system)
            outputs = self.system.outputs(self.origin)
            way = twin.nudge.column(outputs) * (twin.nudge.y - outputs)
            rows = np.pad(self.reads().numpy(), ((0, 0), (0, self.system.n_branches)))
            twin.tie = tied(rows, way.numpy(), self.system.output_names)
        return twin

    @property
    def slopes(self) -> torch.Tensor:
        """Jacobian (B, n, n) of the circuit's force at the origin, kept however large it is."""
        if self._slopes is None:
            self._slopes = self.jacobian.matrix
        return self._slopes

    def asymmetry(self, even: bool = False) -> float:
        """`Phase.asymmetry`; without differences of scale that of the pair of unknowns that differs most, however
        many there are."""
        return pairwise_asymmetry(self.slopes) if even else super().asymmetry()

    def reads(self) -> torch.Tensor:
        """Outputs as sums of the voltages of all nodes but ground, (n_out, n_nodes - 1)."""
        pairs = self.system.output_nodes
        found = torch.zeros(len(pairs), self.system.field.n_nodes, dtype=torch.float64)
        for way, column in zip((1.0, -1.0), pairs.T, strict=True):
            found[torch.arange(len(pairs)), torch.from_numpy(column)] += way
        return found[:, 1:]

    def start(self) -> State:
        return self.project(super().start())

    def project(self, z: State) -> State:
        if self.tie is None:
            return super().project(z)
        return unflat(torch.from_numpy(self.tie.onto(flat(z).numpy())), [b.shape for b in z])

    def force(self, z: State) -> State:
        found = super().force(z)
        if self.tie is None:
            return found
        return unflat(torch.from_numpy(self.tie.along(flat(found).numpy())), [b.shape for b in z])

    def cost_force(self, state: State) -> State:
        if self.tie is None:
            return super().cost_force(state)
        return tuple(torch.zeros_like(s) for s in state)

    def unbounded_force(self, z: State) -> State:
        if self.origin is None:
            return super().unbounded_force(z)
        force: State = self.system.field.changes(self.origin, z, self.system.values())
        if self.nudge is not None:
            force = tuple(f + p for f, p in zip(force, self.cost_force(self.state(z)), strict=True))
        if self.resting is not None:
            force = tuple(f + r for f, r in zip(force, self.resting, strict=True))
        if self.skew is None:
            return force
        moved = z
        if self.droop:
            moved = tuple(d + self.droop * s for d, s in zip(z, self.origin, strict=True))
        return tuple(f - c for f, c in zip(force, self.skew(moved), strict=True))

    def response(self, force: torch.Tensor) -> torch.Tensor:
        """Changes of the outputs under a force on them, by the Jacobian at the origin: a force that one output
        barely notices carries another past its junctions.

        Rows of examples whose Jacobian has no inverse are NaN.
        """
        reads = self.reads()
        pull = torch.nn.functional.pad(force.to(reads) @ reads, (0, self.system.n_branches))
        moved, info = torch.linalg.solve_ex(self.tangent(None), -pull[:, :, None])
        answer = moved[:, : reads.shape[1], 0] @ reads.mT
        return torch.where((info == 0)[:, None], answer, torch.full_like(answer, torch.nan)).to(force)

    def rightmost(self) -> torch.Tensor:
        """Rightmost eigenvalue (B,) of the circuit's motion at the origin, 1 / second (`nodal.stability`).

        NaN where nothing in the circuit moves. Nodes without a capacitor are algebraic; where they would leave an
        operating point by stray capacitances, a warning says so.
        """
        circuit, found = self.system, self.watched()
        for (j, c), own in zip(self._motions(), found.real.tolist(), strict=True):
            astray = stray_instability(j, c, circuit.field.n_nodes - 1, circuit.node_capacitance)
            if astray is not None and not own > 0:
                warnings.warn(
                    "An operating point holds by its capacitors alone: with stray ones at all nodes the rightmost "
                    f"eigenvalue of its motion is {astray.real:.3g} {astray.imag:+.3g}i per s. Give nodes the "
                    "capacitors that they have, to know whether it is stable.",
                    StabilityWarning,
                    stacklevel=2,
                )
        return found

    def watched(self) -> torch.Tensor:
        """The eigenvalue `rightmost`, without a warning about stray capacitances: one step may close a loop of
        positive feedback.
        """
        return torch.tensor([rightmost(j, c) for j, c in self._motions()], dtype=torch.complex128)

    def _motions(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """J and C of C du/dt = J u of each example, in the unknowns that are free."""
        matrix, keep = self.slopes.numpy(), self.jacobian.keep
        charges = capacitances(self.system)
        for row, j in enumerate(matrix):
            free = np.ones(len(j), bool) if keep is None else keep[row].numpy() > 0
            at = np.ix_(free, free)
            yield j[at], charges[at]

    def tangent(self, z: State | None) -> torch.Tensor:
        """Jacobian (B, n, n) of the force by z, nudge and correction included; None: at the origin."""
        if z is None:
            assert self.origin is not None
            state, matrix = self.origin, self.slopes.clone()
        else:
            state = self.state(z)
            matrix = Jacobian(lambda s: self.system.slope(s, self.x), state).matrix.clone()
        if z is None and self.jacobian.keep is not None:  # what bounds hold has no other law than to stay
            matrix -= self.system.field.scale * torch.diag_embed(1 - self.jacobian.keep)
        if self.skew is not None:
            matrix -= self.slopes - self.slopes.mT
        if self.tie is not None:  # on the plane alone: what the sources carry has no law of its own
            across = torch.from_numpy(self.tie.inverse @ self.tie.rows)
            inside = torch.eye(len(across), dtype=torch.float64) - across
            return inside @ matrix @ inside + self.system.field.scale * across
        if self.nudge is not None:
            self._bend(matrix, state)
        return matrix

    def _bend(self, matrix: torch.Tensor, state: State) -> None:
        """Take the curvature of the nudge's cost off a Jacobian."""
        nudge, nodes = self.nudge, self.reads()
        assert nudge is not None
        outputs = self.system.outputs(state)
        count = outputs.shape[1]
        unit = torch.eye(count, dtype=torch.float64)
        columns = [nudge.cost.curvature(outputs, nudge.y, unit[k].expand_as(outputs)) for k in range(count)]
        bend = torch.stack([nudge.column(outputs) * column for column in columns], 2)
        matrix[:, : nodes.shape[1], : nodes.shape[1]] -= nodes.mT @ bend @ nodes


def require_holdable(circuit: Any) -> None:
    """Raise InputError naming an output that an ideal source sets, so that a clamp would set it twice."""
    parts, names = circuit._parts, circuit.output_names
    group = parts.group("voltage_source")
    held = replace(
        group,
        names=(*group.names, *names),
        nodes=np.concatenate([group.nodes, circuit.output_nodes]),
        values=np.concatenate([group.values, np.zeros((len(names), 1))]),
    )
    loop = find_loop(replace(parts, groups={**parts.groups, "voltage_source": held}), capacitors=False)
    if loop:
        output = next(name for name in reversed(loop) if name in names)
        others = ", ".join(name for name in loop if name != output)
        raise InputError(
            f"Argument system must have output nodes that can be held to clamp them, but {output!r} is set by "
            f"ideal sources already ({others})."
        )


def capacitances(circuit: Any) -> np.ndarray:
    """C of C du/dt = force, (n, n): capacitances of nodes, and minus inductances of branches in their units."""
    field, parts = circuit.field, circuit.parts
    nodes = field.n_nodes - 1
    found = np.zeros((nodes + len(field.branches),) * 2)
    group = parts.group("capacitor")
    whole = np.zeros((field.n_nodes,) * 2)
    for (a, b), (value,) in zip(group.nodes.tolist(), group.values.tolist(), strict=True):
        for row, column, sign in ((a, a, 1), (b, b, 1), (a, b, -1), (b, a, -1)):
            whole[row, column] += sign * value
    found[:nodes, :nodes] = whole[1:, 1:]
    coils = parts.group("inductor").values.ravel()
    at = nodes + np.arange(len(field.branches))[field.where.get("inductor", slice(0))]
    found[at, at] = -(field.scale**2) * coils
    return found


class NodalNewton(Solver):
    """Newton's method on Kirchhoff's laws: free phases from where modified nodal analysis ends.

    Both states of dyadic EP are one set of equations: conductances over decades, and gains, leave Krylov's methods
    without a step.

    A Jacobian is used again while a step with it pays; a step that lowers nothing is halved from the best state.
    """

    patience = 30
    phase: Any  # an ActivePhase or a DyadicPhase: what has a tangent

    def __init__(self, phase: Phase, start: State) -> None:
        self.phase = phase
        self.shapes = [s.shape for s in start]
        self._unsettled = phase.origin is None and phase.nudge is None
        self.z = flat(start)
        self._best = self.z
        self._least = torch.full(self.z.shape[:1], torch.inf, dtype=torch.float64)
        self._share = torch.ones_like(self._least)
        self._step = torch.zeros_like(self.z)
        self._matrix: torch.Tensor | None = None

    def _settle(self, active: torch.Tensor) -> None:
        """Take examples that are no equilibria to where modified nodal analysis ends, from where they are."""
        circuit = self.phase.system
        given = unflat(self.z, self.shapes) if bool(self.z.any()) else None
        found = circuit.solution(self.phase.x, given, 1e-10 * circuit.residual_scale, ITERATIONS)
        self.spent += found.iterations
        self.z = torch.where(active[:, None], flat(circuit.state_of(found)), self.z)
        self._unsettled = False

    def evaluate(self) -> tuple[State, torch.Tensor]:
        self.spent += 1
        blocks = unflat(self.z, self.shapes)
        force = self.phase.force(blocks)
        self._force, self._residual = flat(force), self.phase.residual(force)
        return blocks, self._residual

    def advance(self, active: torch.Tensor) -> None:
        if self._unsettled:
            self._settle(active)
            return
        better = self._residual < self._least
        slow = better & (self._residual > REUSE * self._least)
        stale = active & (slow | ~better)
        self._share = torch.where(better, torch.ones_like(self._share), 0.5 * self._share)
        self._best = torch.where(better[:, None], self.z, self._best)
        if self._matrix is None and self.phase.origin is not None:
            self._matrix = self.phase.tangent(None)
        elif self._matrix is None or bool(stale.any()):
            self._matrix = self.phase.tangent(unflat(self._best, self.shapes))
        self._least = torch.where(better, self._residual, self._least)
        step, info = torch.linalg.solve_ex(self._matrix, -self._force[:, :, None])
        step = torch.where((info == 0)[:, None], step[:, :, 0], torch.full_like(self._force, torch.nan))
        self._step = torch.where(better[:, None], step, self._step)
        trial = self._best + self._share[:, None] * self._step
        self.z = torch.where(active[:, None], trial, self.z)


SOLVERS = {"newton": NodalNewton, "newton_krylov": NewtonKrylov}
