"""What force counts as 1: measured from a system's own forces, where the system does not declare it.

A residual without a scale of its own is judged in the units of whoever wrote the energy down: in joules, forces of
a small device are below any tolerance before they have moved anything. Here a system is asked what its forces are
at its initial state and at a random one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from .blocks import State, all_finite, flat, largest, twice_differentiable
from .errors import InputError

NAMES = ("residual_scale", "nudge_scale")
"""Attributes of a system that are measured where it does not declare them."""


class Measurable(Protocol):
    """What is asked of a system."""

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
    force : Tensor (B,)
        Largest component of the force of each example, at the initial or at the random state.
    length : Tensor (B,)
        Size of a change of the state: that of the initial state, or of a Newton step from there if that is zero.
    nudge : float
        Energy over cost: beta of this size moves the outputs by some part of their own size.
    gain : float
        Change of the outputs per change of the state.
    """

    force: torch.Tensor
    length: torch.Tensor
    nudge: float
    gain: float

    @property
    def reach(self) -> torch.Tensor:
        """Change of the state per force, (B,)."""
        return self.length / self.force


def undeclared(lineage: tuple[type, ...]) -> frozenset[str]:
    """Those of `NAMES` that none of these classes sets itself."""
    return frozenset(name for name in NAMES if not any(name in vars(c) for c in lineage))


def measured_scales(
    system: Measurable, x: torch.Tensor, energies: Callable[[Any, State, torch.Tensor], torch.Tensor]
) -> Scales:
    """Forces of a system at its initial state and at one random state, example by example.

    The random state is as far from the initial one as that is from zero, or else as a Newton step leads, so that
    the units of the state do not matter either. It is drawn on the CPU with a fixed seed.

    Parameters
    ----------
    system : EnergySystem
    x : Tensor (B, ...)
    energies : callable
        (system, state, x) to the energy of each example, (B,).

    Raises
    ------
    InputError
        If the force is zero (or not finite) at both states, for all examples; a parameter that is not finite is
        named then.
    """
    with torch.no_grad():
        start = system.project(system.initial_state(x))
        force = system.force(start, x)
        first, size = _finite(largest(force)), _finite(largest(start))
        step = _newton(system, start, force, x, energies)
        length = torch.where(size > 0, size, step)
        common = float(length.max())  # an example that nothing drives is as large as its company
        length = torch.where(length > 0, length, torch.full_like(length, common if common > 0 else 1.0))
        generator = torch.Generator().manual_seed(1)
        drawn = []
        for s in start:
            noise = torch.randn(s.shape, generator=generator, dtype=torch.float64).to(s)
            drawn.append(s + length.view(-1, *[1] * (s.ndim - 1)) * noise)
        elsewhere = system.project(tuple(drawn))
        scale = torch.maximum(first, _finite(largest(system.force(elsewhere, x))))
        most = float(scale.max())
        if most == 0:
            for name, p in system.named_parameters():
                if not all_finite(p):
                    raise InputError(f"Parameter {name} of a {type(system).__name__} must be finite, but was not.")
            raise InputError(
                f"Argument residual_scale of a {type(system).__name__} must be set (the force that counts as 1) "
                "where forces at the initial and at a random state are zero or infinite, but was not. Does the "
                "energy depend on the state?"
            )
        scale = torch.where(scale > 0, scale, torch.full_like(scale, most))
        change = system.outputs(elsewhere) - system.outputs(start)
        gain = 1.0
        if change.ndim == 2 and len(change) == len(x):  # others are refused by name when they are read
            gain = float((_finite(largest((change,))) / length).median()) or 1.0
        nudge = float((scale / length).median()) / gain**2
    return Scales(scale, length, nudge, gain)


def _finite(values: torch.Tensor) -> torch.Tensor:
    return values.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


def _newton(
    system: Measurable,
    start: State,
    force: State,
    x: torch.Tensor,
    energies: Callable[[Any, State, torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Largest component of the step along the force to where it vanishes, (B,); 0 where the energy curves down."""
    top = largest(force)
    tiny = torch.finfo(top.dtype).tiny
    # Over its largest component, as squares and products of forces in small or large units leave the floats.
    unit = tuple(f / top.clamp_min(tiny).view(-1, *[1] * (f.ndim - 1)) for f in force)
    with torch.enable_grad(), twice_differentiable():
        leaves = tuple(s.detach().requires_grad_() for s in start)
        slope = torch.autograd.grad(energies(system, leaves, x).sum(), leaves, create_graph=True, allow_unused=True)
        along = [(g * f).sum() for g, f in zip(slope, unit, strict=True) if g is not None and g.requires_grad]
        if not along:
            return torch.zeros_like(top)
        bent = torch.autograd.grad(torch.stack(along).sum(), leaves, allow_unused=True)
    curved = tuple(torch.zeros_like(f) if b is None else b for b, f in zip(bent, unit, strict=True))
    bend = (flat(unit) * flat(curved)).sum(1) / flat(unit).square().sum(1).clamp_min(tiny)
    return _finite(torch.where(bend > 0, top / bend, torch.zeros_like(top)))
