"""Amplifier neurons: internal voltage p to output V = clip(g (sigma(p + o) + c), -V_sat, V_sat), in activity.

sigma is the activation that the neuron is built for; g, o, c and V_sat are what its parts make of it (Hopfield
1984: the potential of such a unit is the integral of its inverse). Psi(V) = p V - S(p), with S the integral of the
response.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch

from physics_ep.predictive_coding.activations import ACTIVATIONS, Activation, clip

MONOTONE = ("relu", "linear", "tanh", "logistic", "softplus", "hard_sigmoid", "hard_tanh", "diode")
"""Activations that an amplifier can hold: the potential of a unit needs an inverse."""


@dataclass(frozen=True)
class Amplifiers:
    """The amplifiers of one layer's units.

    Attributes
    ----------
    activation : Activation
    gain : Tensor (*shape), float or None
        Factor on the response; None: 1. A number, here and in the offsets, holds for all units, kept as a tensor.
    offset : Tensor (*shape), float or None
        Input-referred, in units of activity; None: 0.
    saturation : float
        Largest |V|, in units of activity.
    output_offset : Tensor (*shape), float or None
        c, of a buffer behind the unit, in units of activity; None: 0.
    torque : Tensor (*shape) or float
        Odd detuning w of units that are pairs of oscillators, which their activation allows for; in rates of a pair
        in the middle of its range.
    """

    activation: Activation
    gain: torch.Tensor | None = None
    offset: torch.Tensor | None = None
    saturation: float = math.inf
    output_offset: torch.Tensor | None = None
    torque: torch.Tensor | float = 0.0

    def __post_init__(self) -> None:
        for name in ("gain", "offset", "output_offset"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, torch.Tensor):
                object.__setattr__(self, name, torch.tensor(value, dtype=torch.float64))

    @cached_property
    def plain(self) -> bool:
        """Whether the amplifiers have neither errors of gain nor offsets."""
        return self.gain is None and self.offset is None and self.output_offset is None

    def equals(self, other: Amplifiers) -> bool:
        """Whether other amplifiers respond as these do, unit by unit."""
        alike = self.activation is other.activation and self.saturation == other.saturation
        return alike and self.plain and other.plain

    @cached_property
    def ideal(self) -> bool:
        """Whether the response is the activation itself."""
        return self.plain and math.isinf(self.saturation)

    @cached_property
    def follows(self) -> bool:
        """Whether units put out what drives them, as outputs do that are read at their nodes."""
        return self.ideal and self.activation is ACTIVATIONS["linear"]

    @cached_property
    def rectifies(self) -> bool:
        """Whether units are ideal ReLUs; detuned oscillators and real diodes bear that name, and are none."""
        return self.ideal and self.activation.displaced is ACTIVATIONS["relu"].displaced

    @cached_property
    def bounded(self) -> bool:
        """Whether units put out what drives them, clipped at `activation.bounds`: ideal ReLUs, two diodes, or
        oscillators in tune."""
        clips = self.activation.recipe is not None and self.activation.recipe[0] is clip
        return self.rectifies or (self.ideal and clips)

    @property
    def smooth(self) -> bool:
        """Whether the response has no kinks."""
        return self.activation.smooth and math.isinf(self.saturation)

    def response(self, p: torch.Tensor) -> torch.Tensor:
        """Output voltages (B, *shape) of the amplifiers for p, clipped at their rails."""
        return self._clipped(self.unclipped(p))

    def slope(self, p: torch.Tensor) -> torch.Tensor:
        """Slope dV/dp of the output; 0 beyond the rails and at kinks."""
        slope = self.steepness(p)
        if math.isinf(self.saturation):
            return slope
        return torch.where(self.unclipped(p).abs() < self.saturation, slope, torch.zeros_like(slope))

    def steepness(self, p: torch.Tensor) -> torch.Tensor:
        """Slope dV/dp of the output as it would be without rails."""
        return self._scaled(self.activation.slope(self._shifted(p)))

    def unclipped(self, p: torch.Tensor) -> torch.Tensor:
        """The output g sigma(p + o) as it would be without rails."""
        return self._read(self.activation.response(self._shifted(p)))

    def read_between(self, v: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
        """What the output moves where the activation's goes from v to v + d, without cancellation for small d."""
        return self.railed(self._read(v), self._scaled(d))

    def displaced(self, p: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
        """The change V(p + d) - V(p) of the output, without cancellation for small d."""
        step = self._scaled(self.activation.displaced(self._shifted(p), d))
        return step if math.isinf(self.saturation) else self.railed(self.unclipped(p), step)

    def railed(self, before: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """Change of an amplifier's output, clipped at its rails, as the output without rails goes from `before` to
        `before + step`: clip(before + step) - clip(before), without cancellation where neither end is clipped."""
        if math.isinf(self.saturation):
            return step
        after = before + step
        inside = (before.abs() < self.saturation) & (after.abs() < self.saturation)
        return torch.where(inside, step, self._clipped(after) - self._clipped(before))

    def integral(self, p: torch.Tensor) -> torch.Tensor:
        """S(p), the integral of the response."""
        if math.isinf(self.saturation):
            return self._unclipped_integral(p)
        reached = self._held(p)
        inside = self._unclipped_integral(reached)
        return inside + self.response(p) * (p - reached)

    def potential(self, p: torch.Tensor) -> torch.Tensor:
        """Psi of the output at p: p V - S(p)."""
        return p * self.response(p) - self.integral(p)

    def _held(self, p: torch.Tensor) -> torch.Tensor:
        """p, or where the output saturates, the internal voltage at which it begins to."""
        inverse = self.activation.inverse
        assert inverse is not None
        lo, hi = self.activation.bounds
        gain = torch.ones_like(p) if self.gain is None else self.gain.to(p).expand_as(p)
        offset = torch.zeros_like(p) if self.offset is None else self.offset.to(p)
        level = 0.0 if self.output_offset is None else self.output_offset.to(p)
        top, bottom = self.saturation / gain - level, -self.saturation / gain - level
        upper = torch.where(top < hi, inverse(top.clamp(max=hi)) - offset, torch.full_like(p, math.inf))
        lower = torch.where(bottom > lo, inverse(bottom.clamp(min=lo)) - offset, torch.full_like(p, -math.inf))
        return torch.minimum(torch.maximum(p, lower), upper)

    def _shifted(self, p: torch.Tensor) -> torch.Tensor:
        return p if self.offset is None else p + self.offset.to(p)

    def _unclipped_integral(self, p: torch.Tensor) -> torch.Tensor:
        found = self.activation.integral(self._shifted(p))
        return self._scaled(found if self.output_offset is None else found + self.output_offset.to(p) * p)

    def _read(self, v: torch.Tensor) -> torch.Tensor:
        return self._scaled(v if self.output_offset is None else v + self.output_offset.to(v))

    def _scaled(self, v: torch.Tensor) -> torch.Tensor:
        return v if self.gain is None else v * self.gain.to(v)

    def _clipped(self, v: torch.Tensor) -> torch.Tensor:
        return v if math.isinf(self.saturation) else v.clamp(-self.saturation, self.saturation)
