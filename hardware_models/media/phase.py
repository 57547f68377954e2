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


@dataclass(frozen=True)
class PreparedMedium:
    """What all phases of a medium with one batch share.

    Attributes
    ----------
    cubic : Cubic
        Of each site, p0 (B, *grid) being the current into it.
    rates_u, rates_v : tuple of Tensor
        Diffusion coefficients over the spacing squared, a tensor an axis.
    leak, tau_v : float
        g and the time constant of v.
    lattice : Lattice
    sites : int
        Number of sites.
    read : list of int
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
    read: list[int]
    periodic: bool

    @cached_property
    def saddle(self) -> Saddle:
        """Linear equations of this medium."""
        flat = [
            np.concatenate([r.double().cpu().numpy().ravel() for r in rates])
            for rates in (self.rates_u, self.rates_v)
        ]
        return Saddle(self.lattice, flat[0], flat[1], self.leak)


class MediumPhase(Phase):
    """A medium with its input and nudge; the unknown is (u, v) or its displacement, in the system's own dtype."""

    pulled: torch.Tensor
    """Outputs at the origin, under the nudge."""
    pull: torch.Tensor
    """beta dC there."""
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
        copies, batch, y = len(nudges), self.x.shape[0], nudges[0].y

        def spread(rows: torch.Tensor) -> torch.Tensor:
            return rows.repeat(copies, *[1] * (rows.ndim - 1))

        dtype = torch.promote_types(*(n.dtype(self.dtype) for n in (nudges[0], nudges[-1])))
        beta = torch.cat([torch.as_tensor(n.beta, dtype=dtype).to(self.x.device).expand(batch) for n in nudges])
        twin = cast(MediumPhase, super().nudged(None))
        twin.x = spread(self.x)
        twin.origin = tuple(spread(s) for s in self.origin)
        twin.ascent = spread(self.ascent)
        twin.cubic = self.cubic._replace(**{name: spread(getattr(self.cubic, name)) for name in ("p0", "p1", "p2")})
        return twin.nudged(Nudge(nudges[0].cost, spread(y), beta))

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
        flat[:, self.prepared.read] -= pull
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
                flat[:, self.prepared.read] += self.nudge.column(outputs) * bent
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
            return _fields(self._solve(diagonal, forces)[:, 0], force[0])
        read, n = self.prepared.read, self.prepared.sites
        outputs = np.arange(len(read))
        bend = self._curvature(z)
        diagonal[:, read] += torch.from_numpy(bend[:, outputs, outputs]).to(diagonal)
        bend[:, outputs, outputs] = 0
        if not bend.any():
            return _fields(self._solve(diagonal, forces)[:, 0], force[0])
        units = np.zeros((len(bend), len(read), 2, n), forces.dtype)
        units[:, outputs, 0, read] = 1
        solved = self._solve(diagonal, np.concatenate([forces, units], 1))
        found, answers = solved[:, 0], solved[:, 1:]
        # Row i: what output i does under a force on output j, and under the step without the coupling.
        response, moved = answers[:, :, 0, read].swapaxes(1, 2), found[:, 0, read]
        small = np.eye(len(read)) + bend @ response
        small[~np.isfinite(small).all((1, 2))] = np.eye(len(read))
        pulled = np.linalg.solve(small, bend @ moved[:, :, None])
        return _fields(found - (pulled[:, :, :, None] * answers).sum(1), force[0])

    def _curvature(self, z: State) -> np.ndarray:
        """beta C'', (B, n_out, n_out); of complex states, at their real part."""
        assert self.nudge is not None
        outputs = self.pulled + self.system.outputs(z).real
        batch, count = outputs.shape
        basis = torch.eye(count, dtype=outputs.dtype, device=outputs.device).repeat(batch, 1)
        y = self.nudge.y.repeat_interleave(count, 0)
        bend = self.nudge.cost.curvature(outputs.repeat_interleave(count, 0), y, basis).view(batch, count, count)
        beta = self.nudge.column(outputs)
        return _array((beta[:, :, None] if isinstance(beta, torch.Tensor) else beta) * bend)

    def ascending(self, z: State, shift: torch.Tensor) -> torch.Tensor:
        """How many negative eigenvalues the reduced Hessian of u has at z, shift (B,) added to it: (B,).

        By Sylvester's law, the Hessian of (u, v) has as many more than there are sites. Of a cost that couples
        outputs (the cross-entropy) only the diagonal of its curvature is counted.
        """
        diagonal = shift[:, None] - self.cubic.slope(z[0]).flatten(1)
        if self.nudge is not None:
            diagonal[:, self.prepared.read] += torch.from_numpy(
                self._curvature(z).diagonal(axis1=1, axis2=2).copy()
            ).to(diagonal)
        found = self.prepared.saddle.negative(_array(diagonal)) - self.prepared.sites
        return torch.from_numpy(found).to(shift.device)

    def answers(self, z: State, forces: State) -> State:
        """Solve H moved = force at z, without the nudge, for several forces: blocks (B, k, *grid)."""
        n = self.prepared.sites
        right = np.stack([_array(f).reshape(*f.shape[:2], n) for f in forces], 2)
        found = self._solve(-self.cubic.slope(z[0]).flatten(1), right)
        u, v = (torch.from_numpy(found[:, :, k].copy()).to(f).view_as(f) for k, f in enumerate(forces))
        return u, v

    def _solve(self, diagonal: torch.Tensor, right: np.ndarray) -> np.ndarray:
        return self.prepared.saddle.solve(_array(diagonal), right)

    def response(self, force: torch.Tensor) -> torch.Tensor | None:
        if self.origin is None:
            return None
        right = np.zeros((len(force), 1, 2, self.prepared.sites))
        right[:, 0, 0, self.prepared.read] = _array(force)
        slope = self.cubic.slope(torch.zeros_like(self.origin[0])).flatten(1)
        found = self._solve(-slope, right)[:, 0, 0][:, self.prepared.read]
        return torch.from_numpy(found).to(force)

    # -- how it settles ---------------------------------------------------------------------------------------

    def verdict(self, z: State, residual: torch.Tensor) -> Status | None:
        return Status.SWITCHED if self.ended else None


def _array(block: torch.Tensor) -> np.ndarray:
    """In double precision, for LAPACK."""
    wide = torch.complex128 if block.is_complex() else torch.float64
    return block.detach().to("cpu", wide).resolve_conj().numpy()


def _columns(z: State) -> np.ndarray:
    """(B, 2, sites) of (u, v)."""
    return np.stack([_array(b).reshape(len(b), -1) for b in z], 1)


def _fields(columns: np.ndarray, like: torch.Tensor) -> State:
    """(u, v) of (B, 2, sites)."""
    u, v = (torch.from_numpy(np.ascontiguousarray(columns[:, k])).to(like).view_as(like) for k in (0, 1))
    return u, v
