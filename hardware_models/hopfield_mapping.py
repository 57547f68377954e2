"""Paired units as a Hopfield circuit: amplifiers on RC nodes, arrays at virtual grounds (physics notes, 3a).

p and q are internal voltages, h = sigma(p) and u = sigma(q) the outputs of amplifiers (Hopfield 1984):

    tau_h dp_k/dt = -p_k + W_k h_{k-1} + b_k + sum over the layers above of W^T (h - u)
    tau_u dq_k/dt = -q_k + W_k h_{k-1} + b_k

The currents of an array at virtual grounds are mirrored to h and u, so that a node's conductance is that of its
feedback resistor whatever the cells are, and no load arises.
"""

from __future__ import annotations

import math

from .amplifiers import MONOTONE, Amplifiers
from .devices import AMPLIFIERS, RESISTORS
from .paired_circuit import PairedCircuit


class HopfieldPairs(PairedCircuit):
    """A network's paired units as a Hopfield circuit; see `PairedCircuit` for parameters and attributes."""

    substrate = "hopfield"
    holds = MONOTONE
    effects = frozenset({*AMPLIFIERS, *RESISTORS})

    def build_units(self, k: int, which: str) -> Amplifiers:
        device, activation = self.device_model, self.stack[k].activation
        if k == self.depth - 1:  # read at the summing node
            return Amplifiers(activation)
        full = self.full_scales[k + 1]
        gain, offset, saturation = device.amplifier_gain, device.amplifier_offset, device.amplifier_saturation
        return Amplifiers(
            activation,
            None if gain == 0 else 1 + self.drawn(gain, k, which, "gain"),
            None if offset == 0 else full * self.drawn(offset, k, which, "offset"),
            math.inf if saturation is None else full * saturation,
        )
