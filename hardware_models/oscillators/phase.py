"""Relaxation of phase oscillators: each turns to its local field.

With the field q on an oscillator (couplings, local field, inputs), the force on its phase is the part of q across
its phasor, omega + q x z = omega - q_c sin phi + q_s cos phi, and the energy -q . z is least where z points along
q: an exact update by atan2 of the tangential and the radial part. What is not linear in z is met by staying power:

* second-harmonic injection, -K/2 cos 2 phi = -K cos^2 phi + K/2 for K > 0, is concave in cos phi, so that its
  tangent, a field 2 K cos phi along the axis, bounds it from above: turning to the field with this added lowers the
  energy (for K < 0 the same along the sine axis);
* a nudge beta C(o) with o = cos phi and C'' <= L is bounded from above by a parabola: its slope is a field, its
  curvature beta L adds a field along the oscillator's own phasor (none for beta < 0 and C convex).

Nudged phases carry the displacement from an origin, and differences of phasors as such (`phasors.difference`).

On a graph all turn at once (`GraphPhase`), where turning neighbours to their fields may raise the energy.
With s_i = sum_j |W_ij| the matrix W + diag(s) has no negative eigenvalue, -1/2 z (W + diag(s)) z is concave, its
tangent bounds it from above, and z . z = 1 makes the added term a constant: so turning each oscillator to
q_i + s_i z_i, as if it pulled at itself, lowers the energy on any graph (detuning aside, which has no bound).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import cast

import torch

from physics_ep.blocks import State, flat, largest, tiled, unflat
from physics_ep.cost import Cost
from physics_ep.equilibrium import Status
from physics_ep.nudging import Nudge
from physics_ep.relaxation.krylov import conjugate_gradients
from physics_ep.system import Inputs, Phase

from .base import Oscillators
from .locking import cannot_lock
from .phasors import across, cross, phasor, turned

INNER_TURNS = 3
"""Turns a sweep takes with a layer that cannot turn exactly (injected or detuned), from where it was before."""


class OscillatorPhase(Phase):
    """A free or nudged phase of `Oscillators`; z is the state, or the displacement from the origin.

    Where the couplings are those of a stack of layers, sweeps turn the layers of one parity, then those of the
    other. Those without the outputs follow from the rest: exactly, or by a few turns if injected or detuned.
    """

    system: Oscillators
    carries_displacements = True

    def __init__(self, system: Oscillators, inputs: Inputs, origin: State | None, balanced: bool) -> None:
        super().__init__(system, inputs, origin, balanced)
        self.couplings = system.couplings
        self.weights = self.couplings.bound()
        # Displacements are counted from here; the state itself from a state of rest, which costs it no digits.
        self.reference = system.initial_state(self.x) if origin is None else origin
        self.z0 = [phasor(phi) for phi in self.reference]
        self.ahead0 = [across(z) for z in self.z0]
        self.gains = [system.gains(k) for k in range(len(self.z0))]
        self.clamped = cast("list[torch.Tensor]", inputs.cache)
        self.q0 = []
        for k, (z, gain) in enumerate(zip(self.z0, self.gains, strict=True)):
            field = self.couplings.field(k, self.z0, self.weights)
            q = self.clamped[k] if field is None else self.clamped[k] + field
            self.q0.append(q if gain is None else q + gain * z)
        force = [system.detuned(k, cross(q, z)) for k, (q, z) in enumerate(zip(self.q0, self.z0, strict=True))]
        self.f0 = [torch.zeros_like(f) for f in force] if balanced else force
        self.left_out = force if balanced else None
        self.exact_updates = system.layered
        self.begun: State | None = None
        """The phases at which sweeps began."""

    # -- the problem ------------------------------------------------------------------------------------------

    def start(self) -> State:
        if self.origin is None:
            return self.reference
        return tuple(torch.zeros_like(s) for s in self.reference)

    def state(self, z: State) -> State:
        return z if self.origin is None else tuple(s + d for s, d in zip(self.reference, z, strict=True))

    def nudged(self, nudge: Nudge | None) -> OscillatorPhase:
        twin = cast(OscillatorPhase, super().nudged(nudge))
        twin._plan()
        return twin

    def stacked(self, nudges: Sequence[Nudge]) -> OscillatorPhase | None:
        if self.origin is None:
            return None
        stack = Nudge.stacked(nudges, len(self.x), self.dtype, self.x.device)
        return self._copied(len(nudges)).nudged(stack)

    def _copied(self, count: int) -> OscillatorPhase:
        """The same problem `count` times, one batch after the other."""
        twin = copy.copy(self)
        twin.begun = None
        twin.x = self.x.repeat(count, *[1] * (self.x.ndim - 1))
        twin.reference = tuple(s.repeat(count, 1) for s in self.reference)
        twin.origin = None if self.origin is None else twin.reference
        twin.z0 = [z.repeat(1, count, 1) for z in self.z0]
        twin.ahead0 = [z.repeat(1, count, 1) for z in self.ahead0]
        twin.q0 = [q.repeat(1, count, 1) for q in self.q0]
        twin.clamped = [q.repeat(1, count, 1) for q in self.clamped]
        twin.f0 = [f.repeat(count, 1) for f in self.f0]
        twin.left_out = None if self.left_out is None else [f.repeat(count, 1) for f in self.left_out]
        return twin

    def energy(self, z: State) -> torch.Tensor:
        state = self.state(z)
        moved = (self._moved(k, d) for k, d in enumerate(self._from_reference(z)))
        here = [a + b for a, b in zip(self.z0, moved, strict=True)]
        strength = self.system.second_harmonic
        total = self.x.new_zeros(len(state[0]))
        for k, (p, phi) in enumerate(zip(here, state, strict=True)):
            pairs = self._change(k, here)
            # Each coupling is met from both its ends.
            total = total - (p * (self.clamped[k] if pairs is None else self.clamped[k] + 0.5 * pairs)).sum((0, 2))
            if strength:
                total = total - 0.5 * strength * (p[0].square() - p[1].square()).sum(1)
            if self.system.is_detuned(k):
                total = total - phi @ self.system.frequencies(k)
        if self.nudge is not None:
            total = total + self.nudge.energy(self.system.outputs(state))
        if self.left_out is not None:
            for f, d in zip(self.left_out, z, strict=True):
                total = total + (f * d).sum(1)
        return total

    def force(self, z: State) -> State:
        moved = [self._moved(k, d) for k, d in enumerate(self._from_reference(z))]
        return tuple(self._turn(k, self._change(k, moved), here)[0] for k, here in enumerate(moved))

    def hessian_product(self, z: State, v: State) -> State:
        return self.hessian(z)(v)

    def hessian(self, z: State) -> Callable[[State], State]:
        """v -> d2F/dphi2 v in closed form: radial v - dq x z, dq the field's change as the others turn by v."""
        moved = [self._moved(k, d) for k, d in enumerate(self._from_reference(z))]
        here = [a + b for a, b in zip(self.z0, moved, strict=True)]
        ahead = [across(p) for p in here]
        radial = [(self._field(k, moved) * p).sum(0) for k, p in enumerate(here)]
        last = self.system.output_block
        bend = None if self.nudge is None else self._nudge_curvature(moved[last])

        def product(v: State) -> State:
            moving = [a * b for a, b in zip(ahead, v, strict=True)]
            found = []
            for k, turn in enumerate(v):
                field = self._change(k, moving)
                gain = self.gains[k]
                if gain is not None:
                    own = gain * moving[k]
                    field = own if field is None else field + own
                answer = radial[k] * turn
                if field is not None:
                    answer = answer - (field * ahead[k]).sum(0)  # its torque on the phasors
                if bend is not None and k == last:
                    answer = answer + bend(turn)
                found.append(answer)
            return tuple(found)

        return product

    def curvature_limit(self, cost: Cost, y: torch.Tensor, anywhere: bool) -> float:
        """Largest eigenvalue over the batch of M R, at the origin: F loses its minimum at beta = -1 / it.

        M is the Hessian of the cost in the phases of the outputs, o' C'' o' + C' o'', R = P H^-1 P^T their response
        to forces on them. Outputs are not linear in the phases, so that the second term counts as the first does;
        `anywhere` takes the largest C'' and both terms as if they were positive.
        """
        block = self.system.output_block
        z, phi, _ = self._outputs(torch.zeros_like(self.z0[block]))
        out = self.system.readout.value(z, phi)
        batch, count = out.shape
        first, second = self.system.readout.slopes(z)
        twin = self._copied(count)
        eye = torch.eye(count, dtype=self.dtype, device=out.device)
        rows = eye.repeat_interleave(batch, 0)
        right = tuple(torch.zeros_like(s) for s in twin.reference)
        pushed = (*right[:block], twin._scattered(rows), *right[block + 1 :])
        start = twin.start() if self.origin is not None else twin.reference
        shapes = [s.shape for s in pushed]
        hessian = twin.hessian(start)
        forcing = torch.full_like(rows[:, 0], 1e-3)
        solved = conjugate_gradients(lambda v: flat(hessian(unflat(v, shapes))), -flat(pushed), forcing, 200)
        answer = self._read(unflat(solved.move, shapes)[block])
        response = answer.reshape(count, batch, count).transpose(0, 1)
        spread = tiled(out, count)
        target = tiled(y, count)
        slope = cost.gradient(out, y)
        if anywhere and cost.steepest is not None:
            metric = torch.diag_embed(cost.steepest * first.square() + (slope * second).abs())
        else:
            bent = cost.curvature(spread, target, rows * tiled(first, count)).reshape(count, batch, count)
            metric = first[:, :, None] * bent.transpose(0, 1) + torch.diag_embed(slope * second)
        values = torch.linalg.eigvals((metric @ response).double()).real
        return max(float(values.max()), 0.0)

    def curvature_diagonal(self, z: State) -> State:
        moved = [self._moved(k, d) for k, d in enumerate(self._from_reference(z))]
        return tuple(self._curvature(k, moved)[0].abs().clamp_min(1e-3) for k in range(len(moved)))

    def _curvature(self, k: int, moved: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Second derivative of the energy by each oscillator of block k, and force of the fields on it, (B, n)."""
        p, q, gain = self.z0[k] + moved[k], self._field(k, moved), self.gains[k]
        bend = (q * p).sum(0)
        if gain is not None:
            bend = bend - cross(gain * across(p), p)
        return bend, cross(q, p)

    def residual(self, force: State) -> torch.Tensor:
        return largest(force) / self.system.residual_scale

    def hopeless(self) -> tuple[torch.Tensor, Status] | None:
        """Examples with an oscillator whose detuning exceeds couplings, fields and injection on it together."""
        system = self.system
        if self.origin is not None or self.nudge is not None or not system.detuned_blocks:
            return None
        lost = torch.zeros(self.x.shape[0], dtype=torch.bool, device=self.x.device)
        for k, (q, around) in enumerate(zip(self.clamped, self.couplings.strengths(), strict=True)):
            hold = around + q.square().sum(0).sqrt() + abs(system.second_harmonic)
            if system.is_detuned(k):
                lost = lost | (system.frequencies(k).abs() > (1 + 1e-12) * hold).any(1)
        return lost, Status.NOT_LOCKED

    def verdict(self, z: State, residual: torch.Tensor) -> Status | None:
        """NOT_LOCKED if an example's phases drift: its detuning exceeds what fields and couplings can hold."""
        begun = self.reference if self.begun is None else self.begun
        return Status.NOT_LOCKED if self.system.drifts(self.state(z), begun) else None

    # -- sweeps -----------------------------------------------------------------------------------------------

    def _plan(self) -> None:
        """Choose the layers that a sweep carries (the half with the outputs, where a nudge pulls)."""
        depth = len(self.z0)
        self.carried = list(range(depth - 1, -1, -2))[::-1]
        self.implied = [k for k in range(depth) if k not in self.carried]
        exact = all(self.gains[k] is None and not self.system.is_detuned(k) for k in self.implied)
        self.inner = 1 if exact else INNER_TURNS
        self.settled: dict[int, torch.Tensor] = {}

    def interface(self, z: State) -> State:
        if not hasattr(self, "carried"):
            self._plan()
        self.begun = self.state(z)
        d = self._from_reference(z)
        # Turning exactly, a layer needs no place to turn from.
        self.settled = {k: d[k] for k in self.implied if self.inner > 1}
        return tuple(z[k] for k in self.carried)

    def sweep(self, u: State) -> tuple[State, State, torch.Tensor]:
        d: list[torch.Tensor | None] = [None] * len(self.z0)
        moved: list[torch.Tensor | None] = [None] * len(self.z0)
        for k, block in zip(self.carried, u, strict=True):
            turned = block if self.origin is not None else block - self.reference[k]
            d[k], moved[k] = turned, self._moved(k, turned)
        gaps = []
        for k in self.implied:
            change = self._change(k, moved)
            angle = self.settled.get(k)
            here = None if angle is None else self._moved(k, angle)
            for _ in range(self.inner):
                turn = self._turn(k, change, here)[1]
                angle = turn if angle is None else angle + turn
                here = self._moved(k, angle)
            d[k], moved[k] = angle, here
            if self.inner > 1:
                self.settled[k] = cast(torch.Tensor, angle)
            gaps.append(self._pull(k, change, cast(torch.Tensor, here))[0])
        following = []
        for k in self.carried:
            here = cast(torch.Tensor, d[k])
            force, turn = self._turn(k, self._change(k, moved), cast(torch.Tensor, moved[k]))
            gaps.append(force)
            following.append(self._to_z(k, here + turn))
        state = tuple(self._to_z(k, cast(torch.Tensor, b)) for k, b in enumerate(d))
        return tuple(following), state, self.residual(tuple(gaps))

    def _from_reference(self, z: State) -> State:
        return z if self.origin is not None else tuple(s - r for s, r in zip(z, self.reference, strict=True))

    def _to_z(self, k: int, d: torch.Tensor) -> torch.Tensor:
        return d if self.origin is not None else d + self.reference[k]

    def _moved(self, k: int, d: torch.Tensor) -> torch.Tensor:
        """Change of the phasors of block k that turn by d, (2, B, n)."""
        return turned(self.z0[k], self.ahead0[k], d)

    def _change(self, k: int, moved: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
        """Change of the field on block k from the others (its own gain is left out)."""
        return self.couplings.field(k, moved, self.weights)

    def _field(self, k: int, moved: Sequence[torch.Tensor | None]) -> torch.Tensor:
        """Field on block k, its own gain included, the nudge's left out."""
        dq = self._change(k, moved)
        gain, here = self.gains[k], moved[k]
        q = self.q0[k] if dq is None else self.q0[k] + dq
        return q if gain is None or here is None else q + gain * here

    def _turn(
        self, k: int, change: torch.Tensor | None, here: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Force on block k, whose field from the others has changed so, and the angle by which it turns.

        `here` is the change of its phasors, None where they are at the reference.
        """
        force, p, q = self._pull(k, change, here)
        radial = (q * p).sum(0)
        gain = self.gains[k]
        if gain is not None:
            # With the energy's own curvature in place of its bound's a turn is Newton's; while it is no more than
            # twice as long as the bound's, it cannot raise the energy.
            radial = torch.maximum(radial - (gain.flip(0) * p * p).sum(0), 0.5 * radial)
        if self.nudge is not None and k == self.system.output_block:
            pull, stay = self._nudge(torch.zeros_like(p) if here is None else here)
            force = force + pull
            radial = radial + stay
        return force, torch.atan2(force, radial)

    def _pull(
        self, k: int, change: torch.Tensor | None, here: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Force without a nudge, phasors and field; the force by differences from the reference's."""
        z, q, gain = self.z0[k], self.q0[k], self.gains[k]
        p = z
        force: torch.Tensor | None = None
        if here is not None:
            p, force = z + here, cross(q, here)
            if gain is not None:
                own = gain * here
                change = own if change is None else change + own
        if change is not None:
            bent = cross(change, p)
            force = bent if force is None else force + bent
            q = q + change
        if force is None:
            return self.f0[k], p, q
        return (force if self.balanced else force + self.f0[k]), p, q

    # -- the nudge --------------------------------------------------------------------------------------------

    def _nudge(self, here: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Force of the nudge on the output block, and what its curvature and field add along the phasors."""
        nudge, readout = cast(Nudge, self.nudge), self.system.readout
        z, phi, here = self._outputs(here)
        p = z + here
        beta = nudge.column(p[0])
        out = readout.value(z, phi)
        moved = readout.change(z, here)
        slope = nudge.cost.gradient(out, nudge.y) + nudge.cost.gradient_difference(out, moved, nudge.y)
        first, second = readout.slopes(p)
        force = -beta * slope * first
        pull = beta if isinstance(beta, torch.Tensor) else torch.as_tensor(beta, dtype=self.dtype)
        steepest: float | torch.Tensor | None = nudge.cost.steepest
        if steepest is None:
            steepest = nudge.cost.curvature(out + moved, nudge.y, torch.ones_like(out)).abs()
        # Along the phasor: the field that the slope is (it may be negative), and staying power for a convex nudge.
        stay = beta * slope * second + pull.clamp(min=0) * steepest
        return self._scattered(force), self._scattered(stay)

    def _nudge_curvature(self, here: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        """v -> second derivative of beta C along v, on the output block."""
        nudge, readout = cast(Nudge, self.nudge), self.system.readout
        z, phi, here = self._outputs(here)
        out = readout.value(z, phi) + readout.change(z, here)
        first, second = readout.slopes(z + here)
        beta = nudge.column(out)
        slope = beta * nudge.cost.gradient(out, nudge.y) * second

        def bend(v: torch.Tensor) -> torch.Tensor:
            v = self._read(v)
            bent = beta * first * nudge.cost.curvature(out, nudge.y, first * v)
            return self._scattered(bent + slope * v)

        return bend

    def _outputs(self, here: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Phasors and phases of the outputs at the reference, and the change of the phasors where the block's is
        `here`."""
        block, index = self.system.output_block, self.system.output_index
        return self.z0[block][..., index], self.reference[block][..., index], here[..., index]

    def _read(self, values: torch.Tensor) -> torch.Tensor:
        """Phases of the outputs, from those of their block."""
        return values[..., self.system.output_index]

    def _scattered(self, values: torch.Tensor) -> torch.Tensor:
        """Forces on the outputs as forces on their block: the transpose of `_read`."""
        index = self.system.output_index
        if isinstance(index, slice):
            return values
        block = self.reference[self.system.output_block]
        return torch.zeros_like(block).index_copy(-1, index, values)


# -- graphs -----------------------------------------------------------------------------------------------------


class GraphPhase(OscillatorPhase):
    """A free or nudged phase of `OscillatorGraph`; outputs may be counted from a reference oscillator."""

    def __init__(self, system: Oscillators, inputs: Inputs, origin: State | None, balanced: bool) -> None:
        super().__init__(system, inputs, origin, balanced)
        self.exact_updates = True
        self.inertia = system.couplings.strengths()[0]

    def interface(self, z: State) -> State:
        self.begun = self.state(z)
        return z

    def sweep(self, u: State) -> tuple[State, State, torch.Tensor]:
        here = self._moved(0, self._from_reference(u)[0])
        force, p, q = self._pull(0, self._change(0, [here]), here)
        radial = (q * p).sum(0) + self.inertia
        if self.nudge is not None:
            pull, stay = self._nudge(here)
            force = force + pull
            radial = radial + stay.abs()
        return (u[0] + torch.atan2(force, radial),), u, self.residual((force,))

    def hopeless(self) -> tuple[torch.Tensor, Status] | None:
        if self.origin is not None or self.nudge is not None or not self.system.is_detuned(0):
            return None
        hold = self.clamped[0].square().sum(0).sqrt() + abs(self.system.second_harmonic)
        couplings = self.system.couplings
        lost = cannot_lock(
            self.system.frequencies(0), couplings.pairs.pairs, couplings.inner_weight().detach(), self.inertia, hold
        )
        return lost, Status.NOT_LOCKED

    def verdict(self, z: State, residual: torch.Tensor) -> Status | None:
        """NOT_LOCKED if detuned phases have gone round: an oscillator past a neighbour or past what holds it."""
        if not self.system.is_detuned(0):
            return None
        gone = self.state(z)[0] - (self.reference if self.begun is None else self.begun)[0]
        pairs = self.system.couplings.pairs.pairs
        slipped = (gone[:, pairs[:, 0]] - gone[:, pairs[:, 1]]).abs() > 2 * torch.pi
        held = self.clamped[0].square().sum(0) + abs(self.system.second_harmonic) > 0
        return Status.NOT_LOCKED if bool(slipped.any() | (held & (gone.abs() > 2 * torch.pi)).any()) else None

    def hessian(self, z: State) -> Callable[[State], State]:
        here = self._moved(0, self._from_reference(z)[0])
        p = self.z0[0] + here
        pairs = self.system.couplings.pairs
        product = pairs.curvature(p, self._curvature(0, [here])[0], self.weights[0])
        bend = None if self.nudge is None else self._nudge_curvature(here)
        return lambda v: (product(v[0]) if bend is None else product(v[0]) + bend(v[0]),)

    def curvature_diagonal(self, z: State) -> State:
        """Size of what fields do to each oscillator: sqrt(E''^2 + E'^2), the curvature itself at rest.

        It vanishes nowhere on the way, where the curvature alone does, so that no step in its metric is a leap.
        """
        here = self._moved(0, self._from_reference(z)[0])
        curvature, force = self._curvature(0, [here])
        return (torch.hypot(curvature, force).clamp_min(1e-3),)

    # -- outputs counted from a reference ---------------------------------------------------------------------

    def _outputs(self, here: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        zero = self.system.zero
        if zero is None:
            return super()._outputs(here)
        phi = self._read(self.reference[0])
        index, counted = self.system.output_index, slice(zero, zero + 1)
        z, base, change = self.z0[0][..., index], self.z0[0][..., counted], here[..., counted]
        moved = here[..., index]
        # Of conj(z_zero) z: the product's change, without the difference of two numbers of size one.
        return phasor(phi), phi, _from(base + change, moved) + _from(change, z)

    def _read(self, values: torch.Tensor) -> torch.Tensor:
        read = super()._read(values)
        zero = self.system.zero
        return read if zero is None else read - values[..., zero : zero + 1]

    def _scattered(self, values: torch.Tensor) -> torch.Tensor:
        forces = super()._scattered(values)
        zero = self.system.zero
        if zero is not None:
            forces[..., zero] -= values.sum(-1)
        return forces


def _from(base: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """Phasors z seen from phasors base: conj(base) z."""
    return torch.stack([base[0] * z[0] + base[1] * z[1], base[0] * z[1] - base[1] * z[0]])
