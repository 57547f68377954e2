"""Oscillator Ising machine: spins from phases that second-harmonic injection makes binary.

With phases 0 and pi the energy of an `OscillatorGraph` is that of Ising spins s = cos phi, -sum W_ij s_i s_j - sum
h_i s_i, less K / 2 an oscillator. A minimum over phases that are free to turn relaxes it, and injection that grows
from nothing turns that into a binary one (Wang and Roychowdhury, OIM, 2019). With W = -1 on the edges of a graph,
the lowest energy is the largest cut.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from physics_ep.equilibrium import Equilibrium
from physics_ep.errors import argument_error, is_real, require_count
from physics_ep.relaxation.loop import relax

from .graph import OscillatorGraph

STAGES = 8
ROUGH = 1e-3
"""Tolerance of all stages but the last."""


@dataclass(frozen=True)
class Annealed:
    """What many starts of an oscillator Ising machine ended in.

    Attributes
    ----------
    spins : Tensor (S, n)
        +1 or -1: the sign of the cosine of each phase.
    energy : Tensor (S,)
        Energy of the spins, -sum W s s - sum h s, coupling units.
    equilibrium : Equilibrium
        The phases that were read, with their residual (S,).
    """

    spins: torch.Tensor
    energy: torch.Tensor
    equilibrium: Equilibrium

    @property
    def best(self) -> torch.Tensor:
        """Spins (n,) of the lowest energy."""
        return self.spins[int(self.energy.argmin())]


def anneal(
    system: OscillatorGraph,
    x: torch.Tensor | None = None,
    *,
    ramp: Sequence[float] | None = None,
    starts: int = 20,
    generator: torch.Generator | None = None,
    tolerance: float | None = None,
) -> Annealed:
    """Relax from random phases while the injection K grows; read the signs.

    Parameters
    ----------
    system : OscillatorGraph
        Its own `second_harmonic` is where K ends.
    x : Tensor (1, n_inputs), optional
        Input, for systems that have one.
    ramp : sequence of float, optional
        K of each stage, in coupling units. Default: eight equal steps from nothing to the system's own.
    starts : int
    generator : torch.Generator, optional
        Random generator on the CPU; default one seeded with 0.
    tolerance : float, optional
        Residual of the last stage; default the system's.

    Returns
    -------
    Annealed

    Raises
    ------
    InputError
        If an argument is not as above.
    """
    require_count("starts", starts)
    if x is None and system.sizes[0]:
        raise argument_error("x", f"be a tensor (1, {system.sizes[0]})", None)
    if ramp is None:
        ramp = [system.second_harmonic * k / STAGES for k in range(STAGES + 1)]
    if not ramp or not all(is_real(k) for k in ramp):
        raise argument_error("ramp", "be finite numbers", ramp)
    if not ramp[-1] > 0:
        raise argument_error("ramp", "end in a positive injection, which makes phases spins", ramp[-1])
    one = torch.zeros(1, 0, dtype=system.dtype, device=system.device) if x is None else x
    if len(one) != 1:
        raise argument_error("x", "be one example", f"{len(one)}")
    many = one.expand(starts, -1).contiguous()
    state = system.random_state(many, generator or torch.Generator().manual_seed(0))
    for k, strength in enumerate(ramp):
        stage = copy.copy(system)
        stage.second_harmonic = float(strength)
        last = k == len(ramp) - 1
        found = relax(stage, many, start=state, tolerance=tolerance if last else ROUGH)
        state = found.state
    spins = torch.where(system.phases(state).cos() >= 0, 1.0, -1.0).to(system.dtype)
    return Annealed(spins, ising_energy(system, spins, many), found)


def ising_energy(system: OscillatorGraph, spins: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """-sum W s s - sum h s of spins (S, n), with the fields that inputs x (S, n_in) make; coupling units, (S,)."""
    binary = torch.where(spins > 0, 0.0, math.pi).to(system.dtype)[:, system.couplings.free]
    with torch.no_grad():
        return system.energy((binary,), x) + 0.5 * system.second_harmonic * binary.shape[1]
