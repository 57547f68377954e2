"""Phases of a FitzHugh-Nagumo medium: forces, energies and linear equations of a relaxation.

A displaced phase is a medium again, whose sites have the cubic f(u0 + d) - f(u0) in d.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
import torch

from physics_ep.blocks import State
from physics_ep.equilibrium import Status
from physics_ep.nudging import Nudge
from physics_ep.system import EnergySystem, Inputs, Phase

from .fields import Cubic, bending, stiffness
from .saddle import Lattice, Saddle
from .schur import Schur


@dataclass(frozen=True)
class PreparedMedium:
    """What all phases of a medium with one batch share.

    Attributes
    ----------
    cubic : Cubic
        The cubic that each site solves; its p0 (B, *grid) is the current into the site.
    rates_u, rates_v : tuple of Tensor
        Diffusion coefficients over the spacing squared, a tensor an axis.
    leak, tau_v : float
        g and the time constant of v.
    lattice : Lattice
    sites : int
        Number of sites.
    read : int64 Tensor
        Sites of the outputs.
    periodic : bool
        Whether the medium is a ring or a torus.
    """

    cubic: Cubic
    rates_u: tuple[torch.Tensor, ...]
    rates_v: tuple[torch.Tensor, ...]
    leak: float
    tau_v: float
    lattice: Lattice
    sites: int
    read: torch.Tensor
    periodic: bool

    @cached_property
    def saddle(self) -> Saddle:
        """Linear equations of this medium on the CPU."""
        flat = [
            np.concatenate([r.double().cpu().numpy().ravel() for r in rates])
            for rates in (self.rates_u, self.rates_v)
        ]
        return Saddle(self.lattice, flat[0], flat[1], self.leak)

    @cached_property
    def schur(self) -> Schur:
        """Linear equations of this medium on another device, where they are solved without the CPU."""
        return Schur(self.cubic.p0.shape[1:], self.rates_u, self.rates_v, self.leak, self.periodic)

    @property
    def on_host(self) -> bool:
        """Whether the medium is on the CPU."""
        return self.cubic.p0.device.type == "cpu"

    def solve(self, diagonal: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Solve the equations for c (B, sites) and right-hand sides (B, k, 2, sites), as `Saddle.solve` does."""
        diagonal = _wide(diagonal)
        if not self.on_host:
            return self.schur.solve(diagonal, right)
        return torch.from_numpy(self.saddle.solve(diagonal.numpy(), right.numpy()))

    def ascends(self, diagonal: torch.Tensor) -> torch.Tensor:
        """Whether the reduced Hessian of u with this c (B, sites) has a negative eigenvalue, (B,) bool.

        By Sylvester's law, the Hessian of (u, v) has as many more than there are sites.
        """
        diagonal = _wide(diagonal)
        if not self.on_host:
            return self.schur.ascends(diagonal)
        return torch.from_numpy(self.saddle.negative(diagonal.numpy()) > self.sites)


class MediumPhase(Phase):
    """A medium with its input and nudge; the unknown is (u, v) or its displacement, in the system's own dtype."""

    pulled: torch.Tensor
    """Outputs at the origin, under the nudge."""
    pull: torch.Tensor
    """Derivative of the nudge, beta dC, at the origin."""
    ended = False
    """Whether a solver found the branch of an equilibrium to end before the nudge does."""

    carries_displacements = True

    def __init__(self, system: EnergySystem, inputs: Inputs, origin: State | None, balanced: bool) -> None:
        super().__init__(system, inputs, origin, balanced)
        self.prepared: PreparedMedium = inputs.cache
        self.cubic, self.ascent = self.prepared.cubic, torch.zeros_like(self.prepared.cubic.p0)
        if origin is not None:
            force = (torch.zeros_like(origin[0]),) * 2 if balanced else self._force(origin)
            self.cubic, self.ascent = self.cubic.displaced(origin[0], force[0]), force[1]

    def nudged(self, nudge: Nudge | None) -> MediumPhase:
        twin = cast(MediumPhase, super().nudged(nudge))
        if twin.nudge is not None:
            assert twin.origin is not None
            twin.pulled = twin.system.outputs(twin.origin)
            twin.pull = twin.nudge.column(twin.pulled) * twin.nudge.cost.gradient(twin.pulled, twin.nudge.y)
        return twin

    def stacked(self, nudges: Sequence[Nudge]) -> MediumPhase | None:
        if not self.balanced or self.origin is None:
            return None
        copies = len(nudges)

        def spread(rows: torch.Tensor) -> torch.Tensor:
            return rows.repeat(copies, *[1] * (rows.ndim - 1))

        dtype = torch.promote_types(*(n.dtype(self.dtype) for n in (nudges[0], nudges[-1])))
        stack = Nudge.stacked(nudges, len(self.x), dtype, self.x.device)
        twin = cast(MediumPhase, super().nudged(None))
        twin.x = spread(self.x)
        twin.origin = tuple(spread(s) for s in self.origin)
        twin.ascent = spread(self.ascent)
        twin.cubic = self.cubic._replace(**{name: spread(getattr(self.cubic, name)) for name in ("p0", "p1", "p2")})
        return twin.nudged(stack)

    def driven(self, current: torch.Tensor) -> MediumPhase:
        """The same free phase with other currents into the sites, (B, *grid)."""
        twin = copy.copy(self)
        twin.cubic = self.cubic._replace(p0=current)
        return twin

    # -- energy and its derivatives ---------------------------------------------------------------------------

    def _force(self, z: State) -> State:
        """-dE/dz of the medium alone."""
        u, v = z
        medium = self.prepared
        return (
            self.cubic.value(u) - v - stiffness(u, medium.rates_u, medium.periodic),
            self.ascent + medium.leak * v - u + stiffness(v, medium.rates_v, medium.periodic),
        )

    def force(self, z: State) -> State:
        force = self._force(z)
        if self.nudge is None:
            return force
        pull = self.pull + self.nudge.column(self.pulled) * self.nudge.cost.gradient_difference(
            self.pulled, self.system.outputs(z), self.nudge.y
        )
        flat = force[0].flatten(1)
        flat.index_add_(1, self.prepared.read, pull.to(flat), alpha=-1)
        return flat.view_as(force[0]), force[1]

    def unbounded_force(self, z: State) -> State:
        return self.force(z)

    def merit(self, z: State) -> torch.Tensor:
        """F at z less F at no displacement, less what a balanced phase leaves out: (B,)."""
        u, v = z
        medium = self.prepared
        alone = u * v - 0.5 * medium.leak * v.square() - self.cubic.primitive(u) - self.ascent * v
        spread = bending(u, medium.rates_u, medium.periodic) - bending(v, medium.rates_v, medium.periodic)
        total = alone.flatten(1).sum(1) + spread
        if self.nudge is None:
            return total
        moved = self.pulled + self.system.outputs(z)
        return total + self.nudge.energy(moved) - self.nudge.energy(self.pulled.to(moved.dtype))

    def hessian(self, z: State) -> Callable[[State], State]:
        medium = self.prepared
        slope = self.cubic.slope(z[0])
        outputs = None if self.nudge is None else self.pulled + self.system.outputs(z)

        def product(w: State) -> State:
            a, b = w
            along = stiffness(a, medium.rates_u, medium.periodic) - slope * a + b
            if self.nudge is not None:
                assert outputs is not None
                bent = self.nudge.cost.curvature(outputs, self.nudge.y, self.system.outputs(w))
                flat = along.flatten(1)
                flat.index_add_(1, self.prepared.read, (self.nudge.column(outputs) * bent).to(flat))
                along = flat.view_as(a)
            return along, a - medium.leak * b - stiffness(b, medium.rates_v, medium.periodic)

        return product

    def hessian_product(self, z: State, v: State) -> State:
        return self.hessian(z)(v)

    # -- linear equations -------------------------------------------------------------------------------------

    def newton_step(self, z: State, force: State, shift: torch.Tensor) -> State:
        """Solve (H + shift on u) step = force at z, H the Hessian of F; shift (B,).

        What the cost's curvature couples outputs by, whatever their distance, is added by the formula of Sherman,
        Morrison and Woodbury, with an answer of the medium to a force on each output.
        """
        diagonal = shift[:, None] - self.cubic.slope(z[0]).flatten(1)
        forces = _columns(force)[:, None]
        if self.nudge is None:
            return _fields(self.prepared.solve(diagonal, forces)[:, 0], force[0])
        read, n = self.prepared.read, self.prepared.sites
        bend = self._curvature(z)
        own = bend.diagonal(dim1=1, dim2=2)
        diagonal.index_add_(1, read, own.to(diagonal))
        if self.nudge.cost.separable:
            return _fields(self.prepared.solve(diagonal, forces)[:, 0], force[0])
        bend = bend - torch.diag_embed(own)
        units = forces.new_zeros(len(bend), len(read), 2, n)
        units[:, :, 0] = torch.zeros_like(units[0, :, 0]).scatter_(1, read[:, None], 1.0)
        solved = self.prepared.solve(diagonal, torch.cat([forces, units], 1))
        found, answers = solved[:, 0], solved[:, 1:]
        # Row i: what output i does under a force on output j, and under the step without the coupling.
        response, moved = answers[:, :, 0].index_select(2, read).mT, found[:, 0].index_select(1, read)
        bend, eye = bend.to(response), torch.eye(len(read), dtype=response.dtype, device=response.device)
        small = eye + bend @ response
        small = torch.where(torch.isfinite(small).all(2).all(1)[:, None, None], small, eye)
        pulled = torch.linalg.solve_ex(small, bend @ moved[:, :, None]).result
        return _fields(found - (pulled[:, :, :, None] * answers).sum(1), force[0])

    def _curvature(self, z: State) -> torch.Tensor:
        """beta C'', (B, n_out, n_out), float64; of complex states, at their real part."""
        assert self.nudge is not None
        outputs = self.pulled + self.system.outputs(z).real
        batch, count = outputs.shape
        basis = torch.eye(count, dtype=outputs.dtype, device=outputs.device).repeat(batch, 1)
        y = self.nudge.y.repeat_interleave(count, 0)
        bend = self.nudge.cost.curvature(outputs.repeat_interleave(count, 0), y, basis).view(batch, count, count)
        beta = self.nudge.column(outputs)
        return _wide((beta[:, :, None] if isinstance(beta, torch.Tensor) else beta) * bend)

    def ascends(self, z: State, shift: torch.Tensor) -> torch.Tensor:
        """Whether the reduced energy of u, with shift (B,) added to its Hessian, has a direction at z in which it
        bends down: (B,) bool.

        Of a cost that couples outputs (the cross-entropy) only the diagonal of its curvature is counted.
        """
        diagonal = shift[:, None] - self.cubic.slope(z[0]).flatten(1)
        if self.nudge is not None:
            own = self._curvature(z).diagonal(dim1=1, dim2=2)
            diagonal.index_add_(1, self.prepared.read, own.to(diagonal))
        return self.prepared.ascends(diagonal)

    def answers(self, z: State, forces: State) -> State:
        """Solve H moved = force at z, without the nudge, for several forces: blocks (B, k, *grid)."""
        right = torch.stack([_wide(f).flatten(2) for f in forces], 2)
        found = self.prepared.solve(-self.cubic.slope(z[0]).flatten(1), right)
        u, v = (found[:, :, k].to(f).view_as(f) for k, f in enumerate(forces))
        return u, v

    def response(self, force: torch.Tensor) -> torch.Tensor | None:
        if self.origin is None:
            return None
        wide = _wide(force)
        right = wide.new_zeros(len(force), 1, 2, self.prepared.sites)
        right[:, 0, 0].index_copy_(1, self.prepared.read, wide)
        slope = self.cubic.slope(torch.zeros_like(self.origin[0])).flatten(1)
        return self.prepared.solve(-slope, right)[:, 0, 0].index_select(1, self.prepared.read).to(force)

    # -- how it settles ---------------------------------------------------------------------------------------

    def verdict(self, z: State, residual: torch.Tensor) -> Status | None:
        return Status.SWITCHED if self.ended else None


def _wide(block: torch.Tensor) -> torch.Tensor:
    """In double precision, in which linear equations are solved."""
    return block.detach().to(torch.complex128 if block.is_complex() else torch.float64).resolve_conj()


def _columns(z: State) -> torch.Tensor:
    """(B, 2, sites) of (u, v)."""
    return torch.stack([_wide(b).flatten(1) for b in z], 1)


def _fields(columns: torch.Tensor, like: torch.Tensor) -> State:
    """(u, v) of (B, 2, sites)."""
    u, v = (columns[:, k].to(like).reshape(like.shape) for k in (0, 1))
    return u, v
