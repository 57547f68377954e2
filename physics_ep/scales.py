"""What force counts as 1: measured from a system's own forces, where the system does not declare it.

A residual without a scale of its own is judged in the units of whoever wrote the energy down: in joules, forces of
a small device are below any tolerance before they have moved anything. Here a system is asked what its forces are
at its initial state and at a random one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from .blocks import State, exactly_finite_rows, flat, largest, require_finite, twice_differentiable
from .energies import outputs_of
from .errors import InputError

NAMES = ("residual_scale", "nudge_scale")
"""Attributes of a system that are measured where it does not declare them."""


LEAST = 1e-8
"""Part of a measured force that a refined one is at least: a state of zero has no size."""


class Measurable(Protocol):
    """The methods that a system must have so that its scales can be measured."""

    def slope(self, state: State, x: torch.Tensor) -> tuple[torch.Tensor | None, ...]: ...

    def named_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]: ...

    def initial_state(self, x: torch.Tensor) -> State: ...

    def project(self, state: State) -> State: ...

    def force(self, state: State, x: torch.Tensor) -> State: ...

    def outputs(self, state: State) -> torch.Tensor: ...


@dataclass(frozen=True)
class Scales:
    """Sizes that a system has in its own units.

    Attributes
    ----------
    blocks : tuple of Tensor (B,)
        Force of each block that counts as 1, example by example: blocks may have units of their own.
    length : Tensor (B,)
        Size of a change of the state: that of the initial state, or of a Newton step from there if that is zero.
    nudge : float
        Energy over cost: beta of this size moves the outputs by some part of their own size.
    gain : float
        Change of the outputs per change of the state.
    """

    blocks: tuple[torch.Tensor, ...]
    length: torch.Tensor
    nudge: float
    gain: float

    @property
    def force(self) -> torch.Tensor:
        """The force that counts as 1, the largest over the blocks, (B,)."""
        return torch.stack(self.blocks).amax(0)

    def over(self, force: State) -> torch.Tensor:
        """Largest component of a force in these units, (B,)."""
        return torch.stack([largest((f,)) / s for f, s in zip(force, self.blocks, strict=True)]).amax(0)

    def refined(
        self,
        system: Measurable,
        state: State,
        x: torch.Tensor,
        along: State | None = None,
    ) -> Scales:
        """Scales with smaller forces, for blocks whose forces were larger at the start than the curvature at the
        state bears out.

        There a block's force is that of a move by its own size against the curvature. A start far away, or where an
        exponential law is steep, would have any state pass for an equilibrium. The curvature is that in the
        direction of the force at the state, or in the direction `along`.
        """
        with torch.no_grad():
            along = _along(system.force(state, x)) if along is None else along
            natural = _natural(_curved(system, state, along, x), largest(state))
        sound = exactly_finite_rows(state)
        lowered = tuple(
            torch.where(sound, torch.minimum(s, torch.maximum(n, LEAST * s)), s)
            for s, n in zip(self.blocks, natural, strict=True)
        )
        return replace(self, blocks=lowered)

    def steepened(self, system: Measurable, state: State) -> Scales:
        """The same, of outputs that are steeper at a state (B, ...) than from the start to anywhere.

        Saturated outputs are flat at the start: judged by that, nudges would need forces below rounding, and forces
        on the outputs that measure a stability limit would carry the state away.
        """
        with torch.enable_grad():
            leaves = tuple(s.detach().requires_grad_() for s in state)
            outputs = outputs_of(system, leaves)
            if outputs.ndim != 2 or outputs.is_complex() or not outputs.requires_grad:
                return self
            signs = torch.randint(0, 2, outputs.shape, generator=torch.Generator().manual_seed(7))
            slopes = torch.autograd.grad(outputs, leaves, (2 * signs - 1).to(outputs), allow_unused=True)
        found = [s for s in slopes if s is not None]
        gain = float(_finite(largest(tuple(found))).median()) if found else 0.0
        if gain <= self.gain:
            return self
        return replace(self, gain=gain, nudge=self.nudge * (self.gain / gain) ** 2)

    @property
    def reach(self) -> torch.Tensor:
        """Change of the state per force, (B,)."""
        return self.length / self.force


def undeclared(lineage: tuple[type, ...]) -> frozenset[str]:
    """Those names of `NAMES`, the scales of a system, that none of these classes sets itself."""
    return frozenset(name for name in NAMES if not any(name in vars(c) for c in lineage))


def measured_scales(system: Measurable, x: torch.Tensor) -> Scales:
    """What force counts as 1, measured at a system's initial state and at one random state, example by example.

    It is the force at the initial state; or that of a move by the state's own size against the curvature there,
    where it is larger and the random state bears it out. Where both are zero, the force at the random state counts.
    That state is as far from the initial one as that is from zero, or else as a Newton step leads: the units of the
    state do not matter either. It is drawn on the CPU with a fixed seed.

    Parameters
    ----------
    system : EnergySystem or VectorField
    x : Tensor (B, ...)

    Raises
    ------
    InputError
        If the force is zero (or not finite) at both states, for all examples; a parameter that is not finite is
        named then.
    """
    with torch.no_grad():
        start = system.project(system.initial_state(x))
        force = system.force(start, x)
        first, size = [_finite(largest((f,))) for f in force], _finite(largest(start))
        along = _along(force)
        curved = _curved(system, start, along, x)
        step = _newton(force, along, curved)
        length = torch.where(size > 0, size, step)
        common = float(length.max())  # an example that nothing drives is as large as its company
        length = torch.where(length > 0, length, torch.full_like(length, common if common > 0 else 1.0))
        generator = torch.Generator().manual_seed(1)
        drawn = []
        for s in start:
            noise = torch.randn(s.shape, generator=generator, dtype=torch.float64).to(s)
            drawn.append(s + length.view(-1, *[1] * (s.ndim - 1)) * noise)
        elsewhere = system.project(tuple(drawn))
        natural = _natural(curved, length)
        there = [_finite(largest((f,))) for f in system.force(elsewhere, x)]
        found = [torch.maximum(f, torch.minimum(t, n)) for f, t, n in zip(first, there, natural, strict=True)]
        found = [torch.where(f > 0, f, t) for f, t in zip(found, there, strict=True)]
        scale = torch.stack(found).amax(0)
        most = float(scale.max())
        if most == 0:
            require_finite(system)
            raise InputError(
                f"Argument residual_scale of a {type(system).__name__} must be set (the force that counts as 1) "
                "where forces at the initial and at a random state are zero or infinite, but was not. Does the "
                "energy, or the force, depend on the state?"
            )
        scale = torch.where(scale > 0, scale, torch.full_like(scale, most))
        blocks = []
        for given in found:  # what nothing drives is as large as the same block of others, or else as other blocks
            company = torch.full_like(given, float(given.max())) if bool(given.any()) else scale
            blocks.append(torch.where(given > 0, given, company))
        change = outputs_of(system, elsewhere) - outputs_of(system, start)
        gain = 1.0
        if change.ndim == 2 and len(change) == len(x):  # others are refused by name when they are read
            gain = float((_finite(largest((change,))) / length).median()) or 1.0
        nudge = float((scale / length).median()) / gain**2
    return Scales(tuple(blocks), length, nudge, gain)


def _along(force: State) -> State:
    """The direction of a force, over its largest component: squares and products of forces in small or large units
    leave the floats. Random numbers for examples without any."""
    generator = torch.Generator().manual_seed(2)
    noise = tuple(torch.randn(f.shape, generator=generator, dtype=torch.float64).to(f) for f in force)
    top = _finite(largest(force))
    shaped = [top.view(-1, *[1] * (f.ndim - 1)) for f in force]
    return tuple(
        torch.where(t > 0, f / t.clamp_min(torch.finfo(t.dtype).tiny), z)
        for f, t, z in zip(force, shaped, noise, strict=True)
    )


def _natural(curved: State, length: torch.Tensor) -> list[torch.Tensor]:
    """Force of each block, (B,), that a move by `length` meets, by the curvature in its direction."""
    return [_finite(largest((c,)) * length) for c in curved]


def _curved(
    system: Measurable,
    state: State,
    along: State,
    x: torch.Tensor,
) -> State:
    """d2E/ds2 along a direction; of a force without an energy, its transposed Jacobian's product, negated."""
    with torch.enable_grad(), twice_differentiable():
        leaves = tuple(s.detach().requires_grad_() for s in state)
        slope = system.slope(leaves, x)
        terms = [(g * f).sum() for g, f in zip(slope, along, strict=True) if g is not None and g.requires_grad]
        if not terms:
            return tuple(torch.zeros_like(s) for s in state)
        bent = torch.autograd.grad(torch.stack(terms).sum(), leaves, allow_unused=True)
    return tuple(torch.zeros_like(f) if b is None else b for b, f in zip(bent, along, strict=True))


def _finite(values: torch.Tensor) -> torch.Tensor:
    return values.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


def _newton(force: State, along: State, curved: State) -> torch.Tensor:
    """Largest component of the step along the force to where it vanishes, (B,); 0 where the energy curves down."""
    top = largest(force)
    bend = (flat(along) * flat(curved)).sum(1) / flat(along).square().sum(1).clamp_min(torch.finfo(top.dtype).tiny)
    return _finite(torch.where(bend > 0, top / bend, torch.zeros_like(top)))
