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
from typing import Any

import torch

from physics_ep.blocks import State
from physics_ep.errors import argument_error, is_real, require_seed
from physics_ep.placement import require_dense
from physics_ep.system import Inputs

from ..arrays import counts
from ..devices.systems import Device, OnDevice
from .base import Oscillators, check_bits
from .layers import LayerStack, PhaseCoupling
from .phase import OscillatorPhase


class OscillatorNetwork(OnDevice, Oscillators):
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
        Seed of the couplings and frequencies.
    device : DeviceModel, mapping or str, optional
        Devices whose cells hold couplings and fields, a pair of cells each (`hardware_models.devices.systems`), or
        the name of a preset. Couplings are then what the cells make of them. Default: they are what they are.
    device_seed : int
        Seed of the device instance.
    device_headroom : float
        What a cell at g_max holds over the largest coupling of its array that is written: room to learn.
    device_full_scales : sequence of float, optional
        Full scale of the readings of each layer; default pi.

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
        device: Device = None,
        device_seed: int = 0,
        device_headroom: float = 1.0,
        device_full_scales: Sequence[float] | None = None,
    ) -> None:
        if not counts(sizes) or len(sizes) < 2:
            raise argument_error("sizes", "be at least two positive integers [inputs, ..., outputs]", sizes)
        require_dense(sizes)
        for name, value in (("gain", gain), ("field", field), ("frequency_spread", frequency_spread)):
            if isinstance(value, bool) or not (is_real(value) and value >= 0):
                raise argument_error(name, "be a number of at least 0", value)
        require_seed(seed)
        check_bits("weight_bits", weight_bits)
        if device is not None and weight_bits is not None:
            must = "be left out with a device, whose `levels` are those of its cells"
            raise argument_error("weight_bits", must, weight_bits)
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
        self._on(device, device_seed, device_headroom, device_full_scales)

    full_scale = math.pi
    """Readings of phases have the range of a turn, from -pi to pi."""

    def _blocks(self) -> int:
        return len(self.sizes) - 1

    def phase(self, inputs: Inputs, origin: State | None = None, balanced: bool = False) -> OscillatorPhase:
        return OscillatorPhase(self, inputs, origin, balanced)


def ising_oscillator(
    sizes: Sequence[int], second_harmonic: float = 0.25, *, device: Device = None, **options: Any
) -> OscillatorNetwork:
    """Build an oscillator Ising machine: an `OscillatorNetwork` with injection at twice its frequency.

    Parameters
    ----------
    sizes : sequence of int
        [inputs, hidden ..., outputs].
    second_harmonic : float
        Strength K of the injection, in coupling units.
    device : DeviceModel, mapping or str, optional
        Devices whose cells hold the couplings, or the name of a preset.
    **options
        All others of `OscillatorNetwork`.

    Returns
    -------
    OscillatorNetwork
    """
    return OscillatorNetwork(sizes, second_harmonic, device=device, **options)
