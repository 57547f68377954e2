"""Paired units as a Hopfield circuit: amplifiers on RC nodes, arrays at virtual grounds.

The construction is derived in docs/physics.md, Hopfield circuit. p and q are internal voltages, h = sigma(p)
and u = sigma(q) the outputs of amplifiers (Hopfield 1984):

    tau_h dp_k/dt = -p_k + W_k h_{k-1} + b_k + sum over the layers above of W^T (h - u)
    tau_u dq_k/dt = -q_k + W_k h_{k-1} + b_k

The currents of an array at virtual grounds are mirrored to h and u, so that a node's conductance is that of its
feedback resistor whatever the cells are, and no load arises.
"""

from __future__ import annotations

from typing import Any

import torch

from physics_ep.dynamics.motion import Motion
from physics_ep.equilibrium import Equilibrium
from physics_ep.errors import argument_error
from physics_ep.predictive_coding import PredictiveCodingNetwork
from physics_ep.system import Phase

from ..devices.model import AMPLIFIERS, RESISTORS, DeviceModel
from .amplifiers import MONOTONE, Amplifiers
from .board import SETTLED, Side, erring
from .circuit import PairedCircuit
from .lags import LaggedFlow, LaggedMotion, lags
from .solvers import chain_time


class HopfieldPairs(PairedCircuit):
    """A network's paired units as a Hopfield circuit; see `PairedCircuit` for parameters and attributes."""

    substrate = "hopfield"
    holds = MONOTONE
    effects = frozenset({*AMPLIFIERS, *RESISTORS})

    def build_units(self, k: int, side: Side) -> Amplifiers:
        activation = self.stack[k].activation
        if k == self.depth - 1:  # read at the summing node
            return Amplifiers(activation)
        return erring(self, k, side, activation)

    @classmethod
    def check(cls, net: PredictiveCodingNetwork, device: DeviceModel) -> None:
        super().check(net, device)
        if device.amplifier_lag == 0 and device.amplifier_lag_mismatch != 0:
            must = "be 0 where amplifiers do not lag (amplifier_lag = 0)"
            raise argument_error("amplifier_lag_mismatch", must, device.amplifier_lag_mismatch)

    def _choose_solvers(self) -> None:
        super()._choose_solvers()
        if self.device_model.amplifier_lag > 0 and self.device_model.amplifier_lag_mismatch != 0:
            self.default_solver = "flow"  # whether the free state is stable is in question

    def solvers(self, phase: Phase) -> dict[str, Any]:
        found = super().solvers(phase)
        return {**found, "flow": LaggedFlow} if self.device_model.amplifier_lag > 0 else found

    def motion(self, phase: Phase) -> Motion:
        return LaggedMotion(phase) if self.device_model.amplifier_lag > 0 else super().motion(phase)

    def settling_seconds(self, free: Equilibrium, x: torch.Tensor) -> tuple[float, float]:
        """Seconds to settle of L and 2 L equal stages in a row, with two poles each where amplifiers lag."""
        device = self.device_model
        if device.amplifier_lag == 0:
            return super().settling_seconds(free, x)
        # Outputs are read at their nodes: one amplifier less than nodes.
        rates = [1.0, *[1.0, 1 / max(lags(device))] * (self.depth - 1)]
        times = [device.time_constant * chain_time(rates * n, SETTLED) for n in (1, 2)]
        return times[0], times[1]
