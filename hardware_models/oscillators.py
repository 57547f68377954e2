"""Networks of coupled phase oscillators (XY, Kuramoto), trained by equilibrium propagation.

Phases in radians; couplings, fields and frequencies in units of a reference coupling, time in its inverse. Energy
(literature: Kuramoto 1975; Wang, Wanjura and Marquardt 2024; bilinear couplings counted once)

    E = - sum_{edges} W_ij cos(phi_i - phi_j) - sum_i h_i cos(phi_i - psi_i)
        - 1/2 sum_i K cos 2 phi_i - sum_i omega_i phi_i

and d phi / dt = -dE/d phi: omega_i is what oscillator i is detuned from the frequency of the frame in which phases
are counted (that of the inputs and of the local fields), K the strength of second-harmonic injection, which makes
the phases 0 and pi of an oscillator Ising machine. Inputs are clamped phasors, A cos theta and A sin theta.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch

from physics_ep.blocks import State
from physics_ep.errors import argument_error, unknown_name
from physics_ep.system import EnergySystem, Inputs

from .arrays import counts
from .oscillator_layers import LayerStack, PhaseCoupling
from .oscillator_phases import OscillatorPhase
from .phasors import difference, phasor
from .readouts import READOUTS

if TYPE_CHECKING:
    from .oscillator_graph import OscillatorGraph

ENCODINGS = ("amplitude", "phase")
NEUTRAL = 0.5 * math.pi
"""Phase at which free phases start: where a quadrature field holds an oscillator, and its cosine is 0."""


class Oscillators(EnergySystem):
    """Phase oscillators on any couplings; `OscillatorNetwork` and `OscillatorGraph` build on it.

    Parameters
    ----------
    couplings : Module
        What `oscillator_layers.LayerStack` gives: clamped fields, fields, energy and contrast.
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
        Which oscillators of which block are read.
    """

    default_solver = "trust_region"
    multistable = True
    default_max_iterations = 1000
    state_unit = "radians"
    residual_unit = "coupling units"
    energy_unit = "coupling units"
    time_unit = "inverse coupling units"
    clamps = False
    layered = True
    """Whether couplings join layers only, so that sweeps over every other layer are exact."""

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
            if isinstance(value, bool) or not (isinstance(value, int | float) and math.isfinite(value)):
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
        return tuple(
            2 * math.pi * torch.rand((x.shape[0], n), generator=generator, dtype=torch.float64).to(x)
            for n in self.sizes[1:]
        )

    def difference(self, one: State, other: State) -> State:
        """Angles by which phases are apart, in (-pi, pi]."""
        return tuple(wrapped(a - b) for a, b in zip(one, other, strict=True))

    def outputs(self, state: State) -> torch.Tensor:
        return self.readout.of_phase(state[self.output_block][:, self.output_index])

    def scores(self, outputs: torch.Tensor) -> torch.Tensor:
        """Phases count by their cosine: the class's is drawn to 0."""
        return outputs.cos() if self.angles else outputs

    def curvature_diagonal(self, state: State, x: torch.Tensor) -> State | None:
        return self.phase(self.prepare(x)).curvature_diagonal(state)

    def prepare(self, x: torch.Tensor) -> Inputs:
        self.check_input(x)
        with torch.no_grad():
            return Inputs(x, self.couplings.clamped(self.inputs(x)))

    def phase(self, inputs: Inputs, origin: State | None = None, balanced: bool = False) -> OscillatorPhase:
        return OscillatorPhase(self, inputs, origin, balanced)

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
        wanted = {name for name, p in self.named_parameters() if p.requires_grad}
        return {name: g for key, g in grads.items() if (name := f"couplings.{key}") in wanted}

    # -- the physics ------------------------------------------------------------------------------------------

    def inputs(self, x: torch.Tensor) -> torch.Tensor:
        """Phasors (2, B, n) of the clamped inputs."""
        return torch.stack([x, torch.zeros_like(x)]) if self.encoding == "amplitude" else phasor(self.span * x)

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
    """Angles in (-pi, pi]."""
    return torch.atan2(phi.sin(), phi.cos())


def check_bits(name: str, bits: int | None) -> None:
    """InputError unless bits are None or an integer from 2 to 24."""
    if bits is not None and (isinstance(bits, bool) or not isinstance(bits, int) or not 2 <= bits <= 24):
        raise argument_error(name, "be None or an integer from 2 to 24", bits)


class OscillatorNetwork(Oscillators):
    """Layers of coupled phase oscillators on clamped inputs.

    A hidden oscillator in a quadrature field q (phase pi/2) that is driven in phase by a settles where its cosine
    is a / sqrt(a^2 + q^2): a soft sign, the network's nonlinearity.

    Parameters
    ----------
    sizes : sequence of int
        [inputs, hidden ..., outputs].
    second_harmonic : float
        K of the injection at twice the frequency. K > 0 draws phases to 0 and pi (oscillator Ising machine); from K
        = q / 2 on an undriven oscillator in a quadrature field q has two states of rest, sin phi = q / 2K.
    frequency_spread : float
        Standard deviation of the oscillators' frequencies about that of the inputs, in coupling units; drawn once.
    readout : {'cos', 'sin', 'phase'}
        Outputs: cosine, sine or the phases themselves (for costs on phases).
    encoding : {'amplitude', 'phase'}
        x as amplitude of inputs in phase, or as phase `span` x of inputs of amplitude 1.
    span : float
        Radians per unit of x.
    gain : float
        Couplings start uniform in +-gain / sqrt(n), n oscillators or inputs below.
    field : float
        Quadrature field with which oscillators start, in coupling units.
    weight_bits, phase_bits : int or None
        Resolution of the couplings that the device holds, and of the phases that learning reads.
    seed : int
        Of the couplings and frequencies.

    Raises
    ------
    InputError
        If an argument is not as above.

    Examples
    --------
    >>> import torch
    >>> from physics_ep import relax
    >>> system = OscillatorNetwork([4, 8, 2])
    >>> free = relax(system, torch.rand(3, 4), tolerance=1e-5).require()
    >>> bool((system.outputs(free.state).abs() <= 1).all())
    True
    """

    def __init__(
        self,
        sizes: Sequence[int],
        second_harmonic: float = 0.0,
        *,
        frequency_spread: float = 0.0,
        readout: str = "cos",
        encoding: str = "amplitude",
        span: float = math.pi,
        gain: float = 0.5,
        field: float = 1.0,
        weight_bits: int | None = None,
        phase_bits: int | None = None,
        seed: int = 0,
    ) -> None:
        if not counts(sizes) or len(sizes) < 2:
            raise argument_error("sizes", "be at least two positive integers [inputs, ..., outputs]", sizes)
        for name, value in (("gain", gain), ("field", field), ("frequency_spread", frequency_spread)):
            if isinstance(value, bool) or not (isinstance(value, int | float) and 0 <= value < math.inf):
                raise argument_error(name, "be a number of at least 0", value)
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise argument_error("seed", "be an integer", seed)
        check_bits("weight_bits", weight_bits)
        generator = torch.Generator().manual_seed(seed)
        layers = LayerStack(
            PhaseCoupling(n_in, n_out, gain, field, generator, weight_bits)
            for n_in, n_out in itertools.pairwise(sizes)
        )
        detuning = None
        if frequency_spread:
            dtype = torch.get_default_dtype()
            draws = (torch.randn(n, generator=generator, dtype=torch.float64) for n in sizes[1:])
            detuning = [(frequency_spread * draw).to(dtype) for draw in draws]
        super().__init__(
            layers,
            sizes,
            second_harmonic=second_harmonic,
            detuning=detuning,
            readout=readout,
            encoding=encoding,
            span=span,
            phase_bits=phase_bits,
        )

    def to_graph(self) -> OscillatorGraph:
        """The same network as a graph of oscillators, layer after layer."""
        from .oscillator_graph import from_layers

        return from_layers(self)


def ising_oscillator(sizes: Sequence[int], second_harmonic: float = 0.25, **options: Any) -> OscillatorNetwork:
    """Oscillator Ising machine, the system 'ising-oscillator': `OscillatorNetwork` with injection at 2 omega."""
    return OscillatorNetwork(sizes, second_harmonic, **options)
