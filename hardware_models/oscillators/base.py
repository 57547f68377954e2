"""Phase oscillators on any couplings: what a network of layers and a graph have in common.

The energy of their phases and the conventions for units stand in `hardware_models.oscillators.network`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch

from physics_ep.blocks import State
from physics_ep.errors import argument_error, is_real, unknown_name
from physics_ep.system import EnergySystem, Inputs

from .phasors import READOUTS, difference, phasor

ENCODINGS = ("amplitude", "phase")
NEUTRAL = 0.5 * math.pi
"""Phase at which free phases start: where a quadrature field holds an oscillator, and its cosine is 0."""


class Oscillators(EnergySystem):
    """Phase oscillators on any couplings; `OscillatorNetwork` and `OscillatorGraph` build on it.

    A subclass gives `phase`, the relaxation that fits its couplings.

    Parameters
    ----------
    couplings : Module
        What `layers.LayerStack` gives: clamped fields, fields, energy and contrast.
    sizes : sequence of int
        Inputs, then the oscillators of each block.
    second_harmonic : float
        K.
    detuning : sequence of Tensor or None
        omega of each block, (n_k,); None: none.
    readout : {'cos', 'sin', 'phase'}
    encoding : {'amplitude', 'phase'}
    span : float
        Radians per unit of x, for the phase encoding.
    phase_bits : int or None
        Resolution with which phases are read for learning: 2^bits steps a turn.
    output_block : int
    output_index : slice or Tensor
        Oscillators, of a block, that are read.
    """

    default_solver = "trust_region"
    residual_scale = 1.0
    nudge_scale = 1.0
    multistable = True
    default_max_iterations = 1000
    state_unit = "radians"
    residual_unit = "coupling units"
    energy_unit = "coupling units"
    time_unit = "inverse coupling units"
    clamps = False
    layered = True
    """Whether couplings join layers only, so that sweeps over every other layer are exact."""
    zero: int | None = None
    """The oscillator whose phase the outputs are counted from, where nothing holds the phases; None: none."""

    def __init__(
        self,
        couplings: Any,
        sizes: Sequence[int],
        *,
        second_harmonic: float = 0.0,
        detuning: Sequence[torch.Tensor] | None = None,
        readout: str = "cos",
        encoding: str = "amplitude",
        span: float = math.pi,
        phase_bits: int | None = None,
        output_block: int = -1,
        output_index: slice | torch.Tensor = slice(None),
    ) -> None:
        super().__init__()
        if readout not in READOUTS:
            raise unknown_name("readout", readout, READOUTS)
        if encoding not in ENCODINGS:
            raise unknown_name("encoding", encoding, ENCODINGS)
        for name, value in (("second_harmonic", second_harmonic), ("span", span)):
            if not is_real(value):
                raise argument_error(name, "be a finite number", value)
        check_bits("phase_bits", phase_bits)
        self.couplings = couplings
        self.sizes = tuple(sizes)
        self.example_shape = self.sizes[:1]
        self.second_harmonic = float(second_harmonic)
        self.readout = READOUTS[readout]
        self.angles = readout == "phase"
        self.encoding = encoding
        self.span = float(span)
        self.phase_bits = phase_bits
        self.output_block = output_block % (len(self.sizes) - 1)
        if isinstance(output_index, torch.Tensor):
            self.register_buffer("output_index", output_index, persistent=False)  # it moves with the module
        else:
            self.output_index = output_index
        for k, omega in enumerate(detuning or ()):
            self.register_buffer(f"detuning_{k}", omega)
        self.detuned_blocks = len(detuning or ())

    # -- the contract -----------------------------------------------------------------------------------------

    def energy(self, state: State, x: torch.Tensor) -> torch.Tensor:
        z = [phasor(phi) for phi in state]
        total = self.couplings.energy(z, self.inputs(x))
        for k, (here, phi) in enumerate(zip(z, state, strict=True)):
            if self.second_harmonic:
                total = total - 0.5 * self.second_harmonic * (here[0].square() - here[1].square()).sum(1)
            if self.is_detuned(k):
                total = total - (self.frequencies(k) * phi).sum(1)
        return cast(torch.Tensor, total)

    def initial_state(self, x: torch.Tensor) -> State:
        return tuple(
            torch.full((x.shape[0], n), NEUTRAL, dtype=self.dtype, device=self.device) for n in self.sizes[1:]
        )

    def random_state(self, x: torch.Tensor, generator: torch.Generator) -> State:
        """Phases drawn uniformly from the circle."""
        place = generator.device
        return tuple(
            2 * math.pi * torch.rand((x.shape[0], n), generator=generator, dtype=torch.float64, device=place).to(x)
            for n in self.sizes[1:]
        )

    def difference(self, one: State, other: State) -> State:
        """Angles by which two sets of phases differ, in (-pi, pi]."""
        return tuple(wrapped(a - b) for a, b in zip(one, other, strict=True))

    def outputs(self, state: State) -> torch.Tensor:
        return self.readout.of_phase(state[self.output_block][:, self.output_index])

    def scores(self, outputs: torch.Tensor) -> torch.Tensor:
        """Scores of the classes: the cosine of each output's phase, since the class's own is drawn to 0."""
        return outputs.cos() if self.angles else outputs

    def curvature_diagonal(self, state: State, x: torch.Tensor) -> State | None:
        return self.phase(self.prepare(x)).curvature_diagonal(state)

    def prepare(self, x: torch.Tensor) -> Inputs:
        self.check_input(x)
        with torch.no_grad():
            return Inputs(x, self.couplings.clamped(self.inputs(x)))

    def contrast(
        self, free: State, plus: State, minus: State | None, x: torch.Tensor, weight: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        e, m = [], []
        for k, phi in enumerate(free):
            z = phasor(phi)
            up = difference(z, self.read(phi, plus[k]))
            down = difference(z, self.read(phi, torch.zeros_like(phi) if minus is None else minus[k]))
            e.append((up - down) * weight[:, None])
            m.append(z + 0.5 * (up + down))
        grads = self.couplings.contrast(e, m, self.inputs(x))
        wanted = {name for name, p in self.named_parameters(remove_duplicate=False) if p.requires_grad}
        return {name: g for key, g in grads.items() if (name := f"couplings.{key}") in wanted}

    # -- the physics ------------------------------------------------------------------------------------------

    def inputs(self, x: torch.Tensor) -> torch.Tensor:
        """Phasors (2, B, n) of the clamped inputs; (1, B, n), in phase alone, where they are amplitudes."""
        return x[None] if self.encoding == "amplitude" else phasor(self.span * x)

    def gains(self, k: int) -> torch.Tensor | None:
        """What block k adds of its own phasor to its field for second-harmonic injection, (2, 1, 1)."""
        if not self.second_harmonic:
            return None
        axes = torch.tensor([self.second_harmonic, -self.second_harmonic], dtype=self.dtype, device=self.device)
        return 2 * axes.clamp_min(0)[:, None, None]

    def is_detuned(self, k: int) -> bool:
        """Whether oscillators of block k have frequencies of their own."""
        return k < self.detuned_blocks

    def frequencies(self, k: int) -> torch.Tensor:
        """omega of block k, (n_k,)."""
        return cast(torch.Tensor, getattr(self, f"detuning_{k}"))

    def detuned(self, k: int, force: torch.Tensor) -> torch.Tensor:
        """A force on block k with its detuning."""
        return force + self.frequencies(k) if self.is_detuned(k) else force

    def drifts(self, state: State, start: State) -> bool:
        """Whether phases that have no place to rest have gone round by more than a turn."""
        return any(
            self.is_detuned(k) and bool(((phi - start[k]).abs() > 2 * math.pi).any()) for k, phi in enumerate(state)
        )

    def read(self, phi: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
        """Displacement of a phase phi + d from phi as it is read: to 2^phase_bits steps a turn."""
        if self.phase_bits is None:
            return d
        step = 2 * math.pi / 2**self.phase_bits
        return ((phi + d) / step).round() * step - phi


def wrapped(phi: torch.Tensor) -> torch.Tensor:
    """Angles shifted by whole turns into (-pi, pi]."""
    return torch.atan2(phi.sin(), phi.cos())


def check_bits(name: str, bits: int | None) -> None:
    """InputError unless bits are None or an integer from 2 to 24."""
    if bits is not None and (isinstance(bits, bool) or not isinstance(bits, int) or not 2 <= bits <= 24):
        raise argument_error(name, "be None or an integer from 2 to 24", bits)
