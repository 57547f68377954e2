"""Relaxation of oscillators on any graph: all turn at once.

Turning oscillators to their fields one layer after the other lowers the energy; turning neighbours at once may not.
With s_i = sum_j |W_ij| the matrix W + diag(s) has no negative eigenvalue, -1/2 z (W + diag(s)) z is concave, its
tangent bounds it from above, and z . z = 1 makes the added term a constant: so turning each oscillator to
q_i + s_i z_i, as if it pulled at itself, lowers the energy on any graph (detuning aside, which has no bound).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from physics_ep.blocks import State
from physics_ep.equilibrium import Status
from physics_ep.system import Inputs

from .oscillator_locking import cannot_lock
from .oscillator_phases import OscillatorPhase
from .phasors import phasor

if TYPE_CHECKING:
    from .oscillator_graph import OscillatorGraph


class GraphPhase(OscillatorPhase):
    """A free or nudged phase of `OscillatorGraph`; outputs may be counted from a reference oscillator."""

    system: OscillatorGraph

    def __init__(self, system: OscillatorGraph, inputs: Inputs, origin: State | None, balanced: bool) -> None:
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
        index = self.system.output_index
        z, base, change = self.z0[0][..., index], self.z0[0][..., [zero]], here[..., [zero]]
        moved = here[..., index]
        # Of conj(z_zero) z: the product's change, without the difference of two numbers of size one.
        return phasor(phi), phi, _from(base + change, moved) + _from(change, z)

    def _read(self, values: torch.Tensor) -> torch.Tensor:
        read = super()._read(values)
        zero = self.system.zero
        return read if zero is None else read - values[..., [zero]]

    def _scattered(self, values: torch.Tensor) -> torch.Tensor:
        forces = super()._scattered(values)
        zero = self.system.zero
        if zero is not None:
            forces[..., zero] -= values.sum(-1)
        return forces


def _from(base: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """Phasors z seen from phasors base: conj(base) z."""
    return torch.stack([base[0] * z[0] + base[1] * z[1], base[0] * z[1] - base[1] * z[0]])
