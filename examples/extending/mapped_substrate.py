"""A substrate that predictive coding networks are mapped to: translinear circuits in current mode.

The transistors of such a circuit make softplus units, and the mirrors that copy currents are mismatched. Arrays,
copies, converters, noise, solvers, EP, the fidelity report, `physics-ep map` and `physics-ep tolerance` come with
the base class.
"""

from __future__ import annotations

from hardware_models import DeviceModel, PairedCircuit, map_pcn
from hardware_models.mapping import SUBSTRATES
from hardware_models.mapping.amplifiers import Amplifiers
from physics_ep.predictive_coding import mlp


class CurrentMode(PairedCircuit):
    """Units are diode-connected transistors between weak and strong inversion, log(1 + exp p) (Enz et al. 1995)."""

    substrate = "current-mode"
    holds = ("softplus",)
    effects = frozenset({"amplifier_gain"})

    def build_units(self, k, side):
        activation, spread = self.stack[k].activation, self.device_model.amplifier_gain
        if k == self.depth - 1 or spread == 0:
            return Amplifiers(activation)
        return Amplifiers(activation, gain=1 + self.drawn(spread, k, side, "mirrors"))


SUBSTRATES["current-mode"] = CurrentMode

if __name__ == "__main__":
    mapped = map_pcn(mlp([20, 32, 10], "softplus"), "current-mode", DeviceModel(levels=64, amplifier_gain=0.01))
    print(mapped.fidelity.exactness, mapped.fidelity.free_state_error)
