"""The couplings of a network's mirror pairs: a mapped network written down as a `PairsGraph`."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from physics_ep.errors import InputError, argument_error

from .arrays import array
from .oscillator_pairs_graph import PairsGraph

if TYPE_CHECKING:
    from physics_ep.predictive_coding.layers import Link

    from .oscillator_mapping import OscillatorPairs

LARGEST = 4096
"""Oscillators, as couplings are kept as a matrix."""


def pairs_graph(system: OscillatorPairs) -> PairsGraph:
    """The oscillators of a mapped network; see `oscillator_pairs_graph`.

    Parameters
    ----------
    system : OscillatorPairs
        Calibrated: that sets the ranges of its pairs.

    Returns
    -------
    PairsGraph

    Raises
    ------
    InputError
        If it is not calibrated or too large, has max poolings (whose routes depend on the example), or noise.
    """
    for k, layer in enumerate(system.stack, 1):
        if layer.link.routed:
            raise InputError(f"Layer {k} has a max pooling, whose switches are not couplings of a graph.")
    device = system.device_model
    for name in ("conductance_noise", "phase_noise"):
        if getattr(device, name) > 0:
            raise argument_error(name, "be 0 for a graph of constant couplings", getattr(device, name))
    if not system.calibrated:
        raise argument_error("calibration", "be given: it sets the ranges of the oscillators", "none")
    units = sum(math.prod(layer.post) for layer in system.stack)
    if 4 * units > LARGEST:
        raise InputError(f"The network is too large for a graph of at most {LARGEST} oscillators: {4 * units}.")
    return _Drawing(system, units).finished()


class _Drawing:
    """Pairs and what acts on them, in units of sin a, as layers are gone through."""

    def __init__(self, system: OscillatorPairs, units: int) -> None:
        self.system = system
        sizes = [math.prod(layer.post) for layer in system.stack]
        ends = list(itertools.pairwise(np.cumsum([0, *sizes])))
        self.h = [slice(a, b) for a, b in ends]
        self.u = [slice(a + units, b + units) for a, b in ends]
        ranges = [system.range(k) for k in range(system.depth)]
        self.m = [0.5 * (lo + hi) for lo, hi in ranges]
        self.r = [0.5 * (hi - lo) for lo, hi in ranges]
        self.drive = np.zeros((2 * units, 2 * units))
        self.field = np.zeros(2 * units)
        self.signal = np.zeros((2 * units, math.prod(system.stack[0].link.pre)))
        self.odd, self.even = np.zeros(2 * units), np.zeros(2 * units)
        self.lag = np.repeat([1.0, 1 + system.device_model.time_constant_mismatch], units)
        self.middles, self.radii = (np.tile(np.repeat(v, sizes), 2) for v in (self.m, self.r))

    def matrix(self, k: int, which: str, part: str, link: Link) -> np.ndarray:
        """W of an array of layer k, (units above, units below)."""
        eye = torch.eye(math.prod(link.pre), dtype=torch.float64).unflatten(1, link.pre)
        w = getattr(self.system.arrays(k, which), part)
        return array(link.apply(w.double(), eye).flatten(1).t())

    def couple(self, k: int, part: str, link: Link, source: int) -> None:
        """What an array of layer k drives, and what it feeds back."""
        r = self.r[k]
        for which, rows in (("h", self.h[k]), ("u", self.u[k])):
            w = self.matrix(k, which, part, link)
            if source < 0:
                self.signal[rows] += w / r
            else:
                self.drive[rows, self.h[source]] += w * (self.r[source] / r)
                self.field[rows] += w.sum(1) * (self.m[source] / r)
        if source >= 0:
            # Of h - u: the middles of their ranges cancel.
            back = self.matrix(k, "transpose", part, link).T * (r / self.r[source])
            self.drive[self.h[source], self.h[k]] += back
            self.drive[self.h[source], self.u[k]] -= back

    def bias(self, k: int) -> None:
        layer = self.system.stack[k]
        for which, rows in (("h", self.h[k]), ("u", self.u[k])):
            b = self.system.arrays(k, which).bias
            self.field[rows] -= self.m[k] / self.r[k]
            if b is not None:
                each = b.double().view(-1, *[1] * (len(layer.post) - 1)).expand(layer.post)
                self.field[rows] += array(each.reshape(-1)) / self.r[k]

    def detune(self, k: int) -> None:
        system = self.system
        spread = system.device_model.detuning / math.sqrt(2)
        for which, rows, units in (
            ("h", self.h[k], system.amplifiers_h[k]),
            ("u", self.u[k], system.amplifiers_u[k]),
        ):
            odd = torch.as_tensor(getattr(units.activation, "torque", 0.0), dtype=torch.float64)
            self.odd[rows] = array(odd.flatten())
            self.even[rows] = array(system.drawn(spread, k, which, "even detuning").double().flatten())

    def finished(self) -> PairsGraph:
        for k, layer in enumerate(self.system.stack):
            self.couple(k, "weight", layer.link, k - 1)
            if layer.skip_link is not None and layer.skip_source is not None:
                self.couple(k, "skip", layer.skip_link, layer.skip_source)
            self.bias(k)
            self.detune(k)
        return PairsGraph(
            self.system,
            np.block([[self.drive, -self.drive], [-self.drive, self.drive]]) / 2,
            np.concatenate([self.field, -self.field]),
            np.concatenate([self.signal, -self.signal]),
            np.concatenate([self.even + self.odd, self.even - self.odd]),
            self.middles,
            self.radii,
            np.tile(self.lag, 2),
        )
