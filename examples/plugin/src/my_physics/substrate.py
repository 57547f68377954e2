"""A substrate with an imperfection of its own: Hopfield circuits some of whose units have no supply."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from hardware_models import DeviceModel
from hardware_models.devices.fields import FRACTION, imperfection
from hardware_models.mapping.mapped import substrate_class


@dataclass(frozen=True, kw_only=True)
class Worn(DeviceModel):
    """Devices some of whose units are dead."""

    dead_units: float = imperfection(0.0, FRACTION, "Dead units", "fraction")


class WornHopfield(substrate_class("hopfield")):
    """Hopfield circuits whose dead units stay at 0, as h and as u, since both share a supply."""

    substrate = "worn-hopfield"
    effects = substrate_class("hopfield").effects | {"dead_units"}
    device_class = Worn

    def build_units(self, k, side):
        """The units of layer k, those without a supply at gain 0."""
        units = super().build_units(k, side)
        least = torch.special.ndtri(torch.tensor(self.device_model.dead_units))
        alive = self.drawn(1.0, k, "h", "supplies") > least
        return replace(units, gain=alive * (1.0 if units.gain is None else units.gain))
