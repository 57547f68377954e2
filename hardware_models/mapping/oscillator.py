"""Paired units as coupled phase oscillators (docs/physics.md, Phase oscillators).

A unit is a mirror pair of oscillators, at a and at -a, with the value v = m + r sin a; [m - r, m + r] = [lo, hi] is
its range. cos(a - b) - cos(a + b) = 2 sin a sin b, so that two pairs coupled over four edges, +J on equal sides and
-J across, have exactly bilinear energies in sin; with J = r_k W r_{k-1}, fields r (b + W m - m) and second-harmonic
injection r^2 / 2 the energy of a pair is v^2 / 2 - p v on its range: the unit is a clip of its current p to
[lo, hi]. lo = 0 and hi above the largest activity make a ReLU, wide ranges linear units. Edges between u and h are
antisymmetric (h drives u, u pushes h the other way): u-h couplings are not reciprocal.

The four edges of a coupling are one cell: what drives it is the difference of the two oscillators' sines, and its
current goes to the two others with opposite signs. That is a differential coupler; it works one way, so that h, u
and what is fed back have cells of their own. Four edges with cells of their own do not leave pairs mirrored:
`to_graph(edges="separate")` shows what becomes of them.

    tau da/dt = cos a (p - v) / r + w,         tau: time constant of a pair in the middle of its range

w is the detuning: of the two oscillators' natural frequencies only the odd part, (w_1 - w_2) / 2, moves the value;
the even part turns the pair as a whole by e, which couplings feel as cos(e - e') and is left out (second order).

Outputs are the values of the last layer's pairs: what is read of them, and what a nudge acts on.

Near its equilibrium a pair answers at the rate (v - lo)(hi - v) / r^2 inside its range and |p - bound| / r beyond
it, over tau: units near a threshold are slow. Their equilibria are solved for in v, by sweeps over clipped units.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from physics_ep.blocks import State
from physics_ep.equilibrium import Equilibrium
from physics_ep.errors import argument_error
from physics_ep.predictive_coding.activations import clip
from physics_ep.system import Phase

from ..devices.model import OSCILLATORS, DeviceModel
from .amplifiers import Amplifiers
from .board import SETTLED, Origin, Sides, Values
from .circuit import PairedCircuit
from .oscillator_units import detuned_clip
from .physical_cells import Copy, Side
from .solvers import chain_time
from .stiff_flow import StiffFlow
from .value_flow import ValueMotion

THRESHOLD = 0.01
"""Units that answer slower than this share of the rate in the middle of their range count as at a threshold."""
CLOSEST = 1e-7
"""Phase by which noise keeps a pair off the ends of its range, rad: at an end it would never move."""
BEGINNING = 1e-3
"""Phase by which pairs are off the ends of their range where a free phase begins, rad."""


class OscillatorPairs(PairedCircuit):
    """A network's paired units as mirror pairs of oscillators; see `PairedCircuit` for parameters and attributes.

    Ranges of ReLUs and linear units end at `oscillator_headroom` full scales. Without calibration they are as wide
    as the activities ask for: in statics without end, in time to `oscillator_headroom` times the largest current of
    the free state.
    """

    substrate = "oscillator"
    holds = ("relu", "linear", "hard_sigmoid", "hard_tanh")
    effects = frozenset(OSCILLATORS)
    no_slots = "its couplers act as long as its oscillators turn, so that each serves all the time"

    @classmethod
    def serving(cls, device: DeviceModel) -> tuple[tuple[Copy, ...], ...]:
        """Three arrays of differential couplers: to h, to u, and back."""
        return ("h",), ("u",), ("transpose",)

    default_max_iterations = 20000  # of the course: units near a threshold take thousands

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.calibrated and (self.device_model.detuning > 0 or self.device_model.phase_noise > 0):
            must = "be given where oscillators are detuned or noisy: it sets their ranges"
            raise argument_error("calibration", must, "none")

    def conductance(self, k: int) -> float:
        """0: no voltage of a node follows a current."""
        return 0.0

    def range(self, k: int, largest: float | None = None) -> tuple[float, float]:
        """(lo, hi) of the units of layer k; `largest` in place of the full scale where there is no calibration."""
        lo, hi = self.stack[k].activation.bounds
        top = math.inf
        if self.calibrated:
            top = self.device_model.oscillator_headroom * self.full_scales[k + 1]
        elif largest is not None:
            top = self.device_model.oscillator_headroom * max(largest, 1e-12)
        return max(lo, -top), min(hi, top)

    def build_units(self, k: int, side: Side) -> Amplifiers:
        device, activation = self.device_model, self.stack[k].activation
        lo, hi = self.range(k)
        if device.detuning > 0:
            # The odd part of two independent frequencies.
            odd = self.drawn(device.detuning / math.sqrt(2), k, side, "detuning")
            odd = odd.abs() if activation.name == "relu" else odd  # see `oscillator_units`
            return Amplifiers(detuned_clip(activation.name, lo, hi, odd), torque=odd)
        if side == "u":
            return self.amplifiers_h[k]
        if (lo, hi) == activation.bounds:
            return Amplifiers(activation)
        return Amplifiers(clip(activation.name, lo, hi))

    def noise_sizes(self, k: int, side: Sides, phase: Origin) -> torch.Tensor | float:
        """Phase noise: a mean torque of variance 2 D / t on each oscillator, of which the odd part acts, D / t.

        To first order it acts on the value as a current r w / cos a; not at all on pairs that rest at an end.
        """
        device = self.device_model
        if device.phase_noise == 0 or side == "both":
            return 0.0
        torque = self.tau * math.sqrt(device.phase_noise / device.averaging_time)
        lo, hi = self.range(k)
        m, r = 0.5 * (lo + hi), 0.5 * (hi - lo)
        b = ((phase.p[k] if side == "h" else phase.q[k]) - m) / r
        # Next to an end a torque w turns a pair by (2 w)^(1/3) at most.
        cosine = (1 - b.square()).clamp(min=0).sqrt().clamp(min=min(1.0, (2 * torque) ** (1 / 3)))
        return torch.where(b.abs() < 1, r * torque / cosine, torch.zeros_like(b))

    # -- in time -----------------------------------------------------------------------------------------------

    def values(self, k: int, side: Side, phase: Origin) -> Values:
        lo, hi = self.range(k, float(phase.p[k].abs().max()))
        m, r = 0.5 * (lo + hi), 0.5 * (hi - lo)
        unit = (self.amplifiers_h if side == "h" else self.amplifiers_u)[k]
        odd = unit.torque
        detuned = self.device_model.detuning > 0
        end = math.pi / 2 - CLOSEST

        def shift(a: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
            return 2 * torch.cos(a + 0.5 * d) * torch.sin(0.5 * d)  # sin(a + d) - sin a

        def speed(a: torch.Tensor, d: torch.Tensor, p: torch.Tensor, dp: torch.Tensor) -> torch.Tensor:
            b = (p - m) / r
            # How far the origin is from rest: nothing inside the range, to the last digit, unless detuned.
            off = b - torch.sin(a) if detuned else b - b.clamp(-1, 1)
            return torch.cos(a + d) * (off + (dp / r - shift(a, d))) + odd

        def within(a: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
            return d if detuned else torch.maximum(torch.minimum(d, end - a), -end - a)

        return Values(
            place=lambda v: torch.asin(((v - m) / r).clamp(-1, 1)),
            moved=lambda a, d: r * shift(a, d),
            speed=speed,
            within=within,
        )

    def solvers(self, phase: Phase) -> dict[str, Any]:
        return {**super().solvers(phase), "flow": StiffFlow}

    def motion(self, phase: Phase) -> ValueMotion:
        return ValueMotion(phase)

    def rest_state(self, x: torch.Tensor) -> State:
        """Without currents, but that pairs are not quite at the ends of their range."""
        found = []
        for k, drive in enumerate(self.initial_state(x)):
            lo, hi = self.range(k % self.depth, float(drive.abs().max()))
            margin = 0.25 * (hi - lo) * BEGINNING**2
            found.append(torch.zeros_like(drive).clamp(lo + margin, hi - margin))
        return tuple(found)

    # -- rates -------------------------------------------------------------------------------------------------

    def rates(self, free: Equilibrium) -> list[torch.Tensor]:
        """Rates of the pairs of each unit near their equilibrium, the slower of h and u, over that in mid-range,
        (B, ...).

        Where ranges are not set, they end at `oscillator_headroom` times the largest current.
        """
        return [self._rates(k, free)[0].amin(0) for k in range(self.depth)]

    def _rates(self, k: int, free: Equilibrium) -> tuple[torch.Tensor, torch.Tensor]:
        """Rates of the pairs h and u of layer k at their equilibrium, and those at which they leave the end of
        their range where they will rest inside, infinite elsewhere: (2, B, ...)."""
        lo, hi = self.range(k, float(free.state[k].abs().max()))
        r = 0.5 * (hi - lo)
        p = torch.stack((free.state[k], free.state[self.depth + k]))
        inside = (p > lo) & (p < hi)
        rate = torch.where(inside, (p - lo) * (hi - p) / r**2, torch.maximum(lo - p, p - hi) / r)
        leaving = torch.where(inside, (p - lo).clamp(min=1e-300) * (2 / (hi - lo)), torch.full_like(p, math.inf))
        return rate, leaving

    def settling_seconds(self, free: Equilibrium, x: torch.Tensor) -> tuple[float, float]:
        """Settling time of L (free) and 2 L (nudged) stages in a row, each as slow as the slowest pair of its
        layer, h or u: the course (`Mapped.settling`) to within three times. Units at a threshold are left out, and
        take longer.

        From the end of its range, where it begins a phase e off, a pair that will rest inside escapes at the rate
        (p - end) / r first; beyond an end the value, of second order in the phase, settles twice as fast as it.
        """
        slowest = []
        # ln(1 / e) where the last stretch takes ln(1 / SETTLED).
        escape = math.log(BEGINNING) / math.log(SETTLED)
        for k in range(self.depth):
            rate, leaving = self._rates(k, free)
            stage = torch.where(leaving.isfinite(), 1 / (1 / rate + escape / leaving), 2 * rate)
            counted = stage[rate >= THRESHOLD]
            slowest.append(float(counted.min()) if counted.numel() else THRESHOLD)
        tau = self.tau
        return tau * chain_time(slowest, SETTLED), tau * chain_time(slowest * 2, SETTLED)

    def describe(self, free: Equilibrium, x: torch.Tensor) -> list[dict[str, Any]]:
        """Which units lie at a threshold, for each layer: `fidelity` names them, since they settle slowly."""
        found = []
        for rate in self.rates(free):
            near = (rate < THRESHOLD).flatten(1).any(0).nonzero().flatten()
            found.append({"threshold_units": tuple(near.tolist())})
        return found

    def count_units(self) -> dict[str, int]:
        """Two oscillators a unit h or u, those of the outputs included."""
        return {"oscillators": 4 * sum(self.sizes[1:])}
